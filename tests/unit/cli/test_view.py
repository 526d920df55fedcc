"""
Rows as lines: those around a match or a place, with gaps, fields and ids.
"""

from __future__ import annotations

import json
import logging
import re

import pytest
from command_line import log_of, record

from sqlite_log_handler import LogReader


@pytest.fixture
def hundred(path):
    """A log of 100 rows, `0` to `99`, in which every tenth is an error."""
    levels = [logging.ERROR, *[logging.INFO] * 9] * 10
    log_of(path, *(record(str(n), level, f"shop.{n % 3}", seconds=n) for n, level in enumerate(levels)))
    return str(path)


def numbers(*ranges):
    """Return the lines of these ranges, with a line between two of them."""
    lines = []
    for begin, end in ranges:
        lines += [*(["--"] if lines else []), *map(str, range(begin, end + 1))]
    return lines


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-g ^50$ -C 2", numbers((48, 52))),
        ("-g ^50$ -A 2", numbers((50, 52))),
        ("-g ^50$ -B 2", numbers((48, 50))),
        ("-g ^50$ -C 2 -A 1", numbers((48, 51))),
        ("-g ^(20|25)$ -C 2", numbers((18, 27))),
        ("-g ^(20|26)$ -C 2", numbers((18, 22), (24, 28))),
        ("-p ERROR -C 1 -n 2", numbers((79, 81), (89, 91))),
        ("-g ^(0|99)$ -C 2", numbers((0, 2), (97, 99))),
        ("-p ERROR -C 2 --after-id 50 --up-to-id 51", numbers((48, 52))),
        ("-p ERROR -l shop.0 -C 4", numbers((0, 4), (26, 34), (56, 64), (86, 94))),
        ("-g nothing -C 2", []),
    ],
)
def test_context_is_the_rows_around_each_match(run, hundred, words, expected):
    """With -C, -A and -B each match has the rows around it, whatever the filters; what touches is one piece."""
    status, lines = run(hundred, "-o", "cat", *words.split())

    assert expected == lines
    assert (0 if expected else 1) == status


def test_context_is_the_same_backwards(run, hundred):
    """With -r the newest piece comes first."""
    words = (hundred, "-o", "cat", "-p", "ERROR", "-C", "2")

    assert run(*words)[1] == run(*words, "-r")[1][::-1]


@pytest.mark.parametrize("order", [[], ["-r"]])
def test_near_windows_are_read_at_once(run, hundred, monkeypatch, order):
    """Windows with few rows between them cost one statement together: 100,000 of them took 9.5 s, one by one."""
    shown = run(hundred, "-o", "cat", "-g", "^[1-9]?5$", "-C", "1", *order)
    asked = []
    gaps = LogReader.gaps
    monkeypatch.setattr(LogReader, "gaps", lambda self, **filters: asked.append(filters) or gaps(self, **filters))

    assert shown == run(hundred, "-g", "^[1-9]?5$", "-C", "1", "-o", "cat", *order)
    run(hundred, "-g", "^[1-9]?5$", "-C", "1", *order)
    assert 1 == len(asked)
    monkeypatch.setattr("sqlite_log_handler._cli.view._FEW_BETWEEN", 0)
    assert shown == run(hundred, "-g", "^[1-9]?5$", "-C", "1", "-o", "cat", *order)
    run(hundred, "-g", "^[1-9]?5$", "-C", "1", *order)
    assert 11 == len(asked)


@pytest.mark.parametrize("order", [[], ["-r"]])
def test_a_context_without_end(run, hundred, order):
    """
    A context as wide as ids go shows the whole log.

    It was refused, for an `up_to_id` beyond 64 bits that nobody had given.
    """
    assert 100 == len(run(hundred, "-g", "^50$", "-C", str(2**63 - 1), *order)[1])


def test_context_in_json_has_no_lines_between(run, hundred):
    """A program that reads the rows has their ids to see where rows were left out."""
    document = json.loads("\n".join(run(hundred, "-o", "json", "-g", "^(20|30)$", "-A", "1")[1]))

    assert ["20", "21", "30", "31"] == [row["message"] for row in document]


def test_gaps_between_the_rows_of_a_context_are_drawn(run):
    """The gap between a match and its neighbour is drawn, the one behind the last row that is shown is not."""
    around = [line.split()[3] for line in run("--utc", "-g", "miss 9", "-A", "1")[1]]

    assert ["DEBUG", "GAP", "WARNING"] == around
    assert "GAP" not in str(run("-g", "miss 8", "-A", "1"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--around 51 -C 2", numbers((48, 52))),
        ("--around 51 -B 1", numbers((49, 60))),
        ("--around 51 -A 1", numbers((40, 51))),
        ("--around 1 -C 1", numbers((0, 1))),
        ("--around 900 -C 1", ["99"]),
        ("--around @1751284850 -C 1", numbers((49, 51))),
        ("--around @1751284849.5 -C 1", numbers((49, 51))),
        ("--around 51 -C 1 -p ERROR", ["40", "50", "60"]),
        ("--around 52 -C 1 -l shop.2", ["50", "53"]),
        ("--around 51 -C 3 --after-id 50 --up-to-id 52", numbers((50, 51))),
    ],
)
def test_around_a_place(run, hundred, words, expected):
    """`--around` shows the rows before and after an id or a time, of those that match."""
    assert expected == run(hundred, "-o", "cat", *words.split())[1]


@pytest.mark.parametrize("words", ["-f -C 1", "-f --around 1", "--around 1 -n 3", "--around 1 -r"])
def test_what_has_no_sense_together(run, hundred, words):
    """Flags that contradict each other are refused, in one line that says why."""
    assert (2, []) == run(hundred, *words.split(), stderr=re.compile("^sqlite-log show: (-f shows|--around chooses) "))


def test_a_range_of_ids(run, hundred):
    """`--after-id` and `--up-to-id` are bounds, of which the second is included."""
    assert ["9", "10"] == run(hundred, "-o", "cat", "--after-id", "9", "--up-to-id", "11")[1]


def test_a_search_has_gaps_when_they_are_asked_for(run):
    """
    Where nobody knows whether a dropped record would have matched, its gap is drawn only with --gaps.

    Every search for a text once ended in lines about records that had nothing to do with it.
    """
    for words in (["-g", "miss"], ["--where", "order=7"], ["--exception", "KeyError"]):
        assert "GAP" not in str(run(*words))
        assert "GAP" in str(run(*words, "--gaps"))
    assert "GAP" in str(run("-l", "shop.cache"))


def test_fields_and_ids_in_short_lines(run):
    """`--fields` shows attributes behind the message, of the rows that have them, and `--id` the id."""
    _, lines = run("--utc", "-l", "shop.orders", "--fields", "order,customer,nothing", "--id")

    assert 'Jun 30 12:00:01 [id 2] INFO     shop.orders: order 7 paid order=7 customer="c 17"' == lines[0]
    assert "Jun 30 12:00:02 [id 3] ERROR    shop.orders: order 8 failed" == lines[1]


def test_a_field_in_an_object(make_handler, run, path):
    """`--fields user.plan` shows the member of an object, as `--where` finds it; blanks behind commas are left out."""
    handler = make_handler(flush_interval=3_600)
    handler.handle(logging.makeLogRecord({"msg": "paid", "user": {"plan": "pro"}, "order": 7}))
    handler.close()

    assert run(str(path), "--fields", "user.plan, order,user.id")[1][0].endswith("paid user.plan=pro order=7")


def test_no_row_and_no_gap(run, shop):
    """Up to the id 0 there is neither a row nor a gap; `show` drew all gaps of the log."""
    assert (1, []) == run(str(shop), "--up-to-id", "0")
