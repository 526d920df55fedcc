"""
`gaps`: the ledger of drops as a table.
"""

from __future__ import annotations

import dataclasses
import json

from command_line import in_terminal

from sqlite_log_handler import Gap
from sqlite_log_handler._cli import terminal as terminal_module
from sqlite_log_handler._cli.commands import gaps as gaps_module
from sqlite_log_handler._cli.commands.gaps import table
from sqlite_log_handler._cli.terminal import width_of


def test_gaps_are_a_table(run):
    """`gaps` has a line for each place and cause, and a sum."""
    status, lines = run("gaps", "--utc")

    assert 0 == status
    assert "Jun 30 12:00:04   1.4 s       15        13  queue_full: shop.cache DEBUG 15" == lines[1]
    assert lines[2].split() == ["15", "in", "1", "gap"]
    assert (1, []) == run("gaps", "-p", "ERROR")


def test_a_cause_has_one_line_at_a_place():
    """
    Causes that take turns at one place are one line each.

    A queue that was full while a logger flooded was shown in four lines, `fair_share` and `queue_full` twice.
    """
    lost = [
        Gap(5, at, at + 1, cause, "flood", "INFO", count=1, process=1)
        for at, cause in ((1, "fair_share"), (2, "queue_full"), (3, "fair_share"), (4, "queue_full"))
    ]

    assert [
        "since  lasted  missing  after id  cause: loggers",
        "    1    0 ms        2         5  fair_share: flood INFO 2",
        "    2    0 ms        2         5  queue_full: flood INFO 2",
        "                     4            in 1 gap",
    ] == list(table(lost, str))


def test_whose_a_gap_is_moves_to_a_line_of_its_own(shop):
    """On a terminal that is too narrow for them, cause and loggers of a gap stand below its line, and whole."""
    wide = in_terminal(["gaps", str(shop)], COLUMNS="100").splitlines()
    narrow = in_terminal(["gaps", str(shop)], COLUMNS="45").splitlines()

    assert wide[1].endswith("13  queue_full: shop.cache DEBUG 15")
    assert narrow[0].endswith("after id")
    assert "    cause: loggers" == narrow[1]
    assert narrow[2].endswith(" 13")
    assert "    queue_full: shop.cache DEBUG 15" == narrow[3]


def test_wide_letters_are_wrapped_by_their_columns(monkeypatch):
    """
    The lines of a cause are as wide as the terminal, in letters of any width: at blanks, or where a word is longer.

    Letters of Chinese take two columns each, and the lines went on behind the edge.
    """
    monkeypatch.setattr(gaps_module, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal_module, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "45")
    names = ["订单" * 12, "支付" * 4, "a" * 50]
    lost = [Gap(5, 1, 2, "queue_full", name, "INFO", count=9, process=1) for name in names]
    _, _, _, *detail, _, _ = table(lost, str)

    assert [
        "    queue_full:",
        "      " + "a" * 39,
        "      " + "a" * 11 + " INFO 9, 支付支付支付支付",
        "      INFO 9,",
        "      订单订单订单订单订单订单订单订单订单订",
        "      单订单订单 INFO 9",
    ] == detail
    assert 45 == max(map(width_of, detail))


def test_gaps_works_beside_a_live_writer(run, busy_log):
    """The ledger can be read while it is written, whether there is something in it yet or not."""
    status, lines = run("gaps", str(busy_log))

    assert (0 if lines else 1) == status


def test_gaps_in_json(run):
    """For a program, `gaps` is an array of the lines of the ledger, with the fields of `Gap`."""
    status, lines = run("gaps", "-o", "json")
    (found,) = json.loads("\n".join(lines))

    assert 0 == status
    assert {field.name for field in dataclasses.fields(Gap)} == set(found)
    assert (13, "queue_full", "shop.cache", 15) == tuple(
        found[name] for name in ("after_id", "cause", "logger", "count")
    )
    assert (1, ["[]"]) == run("gaps", "-o", "json", "-p", "ERROR")
