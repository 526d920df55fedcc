"""
`show`: rows and gaps in each format, chosen by flags, and followed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sqlite3
from datetime import timedelta

import pytest
from command_line import BEGIN, NOBODY, log_of, record
from freezegun import freeze_time

from sqlite_log_handler import Row


def test_show_has_a_line_for_each_record(run):
    """A record is a line with time, level, logger and message; its traceback stands below it, indented."""
    status, lines = run("show", "--utc", "-l", "shop.orders")

    assert 0 == status
    assert "Jun 30 12:00:01 INFO     shop.orders: order 7 paid" == lines[0]
    assert "Jun 30 12:00:02 ERROR    shop.orders: order 8 failed" == lines[1]
    assert "    Traceback (most recent call last):" == lines[2]
    assert "    KeyError: 'price'" == lines[-1]


def test_the_gap_is_drawn_where_it_is(run):
    """Between the rows that it stands between, a gap is a line that says how many, why and whose."""
    _, lines = run("--utc", "-p", "DEBUG..WARNING", "-n", "3")

    assert "Jun 30 12:00:03 DEBUG    shop.cache: miss 9" == lines[0]
    gap = "Jun 30 12:00:04 GAP      ~~~ 15 records dropped in 1.4 s: queue_full 15; from shop.cache 15 ~~~"
    assert gap == lines[1]
    assert lines[2].startswith("Jun 30 12:00:06 WARNING  sqlite_log_handler: dropped 15 records")
    assert gap in run("--utc", "-r")[1]
    assert "GAP" not in str(run("-p", "ERROR"))
    assert "GAP" not in str(run("-n", "1"))


def test_a_gap_behind_the_last_row_is_drawn(run, shop, tmp_path):
    """A gap that no row has come behind is drawn at the end, also when no row is left at all."""
    path = tmp_path / "copy.db"
    path.write_bytes(shop.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM drops")
        connection.execute("INSERT INTO prunes VALUES (1, 1, 15, 0, 0, 'max_age', 15, 9, 0)")

        gap = "GAP      ~~~ 9 records pruned in 0 ms: max_age (not forwarded) 9 ~~~"
        for words in (["-n", "1"], ["-n", "1", "-r"], []):
            _, lines = run(str(path), *words)
            assert lines[0 if "-r" in words else -1].endswith(gap)
            assert 1 == str(lines).count("GAP")

        connection.execute("DELETE FROM records")
    status, (line,) = run(str(path))
    assert line.endswith(gap)
    assert 1 == status


def test_a_row_with_the_highest_id_is_shown(run, path):
    """Behind the highest id that SQLite has there is none to ask for."""
    log_of(path, record("one"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE records SET id = ?", [2**63 - 1])

    status, (line,) = run(str(path))
    assert line.endswith("one")
    assert 0 == status


def test_reverse_is_the_same_from_the_end(run):
    """With -r the newest comes first, and gaps stay where they are."""
    forwards, backwards = run("-o", "short", "-p", "DEBUG..WARNING")[1], run("-r", "-p", "DEBUG..WARNING")[1]

    assert forwards == backwards[::-1]
    assert forwards[-2:] == run("-r", "-n", "2")[1][::-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "short-iso"], "2025-06-30T12:00:09+00:00 WARNING  shop.stock: stock is low"),
        (["-o", "short-precise"], "Jun 30 12:00:09.000000 WARNING  shop.stock: stock is low"),
        (["-o", "verbose"], "2025-06-30T12:00:09.000000+00:00 [id 15] WARNING shop.stock: stock is low"),
        (["-o", "cat"], "stock is low"),
    ],
)
def test_formats(run, words, expected):
    """Each format has its time, or none."""
    assert expected == run("--utc", "-n", "1", *words)[1][0]


def test_verbose_has_everything(run):
    """In `verbose`, call site, process, thread and attributes are lines of their own."""
    _, lines = run("-o", "verbose", "--where", "order=7", "-p", "INFO")

    host = [line for line in lines if line.startswith("    process=4711 Main on ")]
    assert ["    source=/srv/shop/app.py:7 in work", host[0], "    thread=worker 77"] == lines[1:4]
    assert ["    attributes.order=7", "    attributes.customer=c 17"] == lines[4:6]


def test_an_attribute_of_any_name_and_value_is_shown(run, path):
    """An attribute with the name of what a row has by itself, and one that is empty, are shown as all others."""
    log_of(path, record(level=logging.INFO, time=12, logger="payments", empty=""))

    (line,) = run(str(path), "-o", "logfmt")[1]
    assert line.endswith(' extra.time=12 extra.logger=payments empty=""')
    lines = run(str(path), "-o", "verbose")[1]
    assert ["    attributes.time=12", "    attributes.logger=payments", "    attributes.empty="] == lines[-3:]


def test_json_is_a_document_and_jsonl_lines(run):
    """`json` is one array, `jsonl` an object on each line, both with the columns of the view `logs`."""
    document = json.loads("\n".join(run("-o", "json")[1]))
    lines = [json.loads(line) for line in run("-o", "jsonl")[1]]

    assert document == lines
    assert set(Row._fields) == set(document[0])
    assert {"order": 7, "customer": "c 17"} == document[1]["attributes"]
    assert (1, ["[]"]) == run("-o", "json", "-l", "nobody", stderr=NOBODY)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-p", "ERROR"], ["order 8 failed"]),
        (["-g", "ORDER 7|STOCK"], []),
        (["-g", "order 7|stock"], ["order 7 paid", "stock is low"]),
        (["-F", "keyerror: 'pr"], ["order 8 failed"]),
        (["--exception", "KeyError"], ["order 8 failed"]),
        (["--where", "customer=c 17"], ["order 7 paid"]),
        (["--pid", "4711", "-n", "1"], ["stock is low"]),
        (["--thread", "worker", "-n", "1"], ["stock is low"]),
        (["--task", "x"], []),
        (["--exclude", "shop.cache", "--exclude", "sqlite_log_handler", "-l", "shop", "-n1"], ["stock is low"]),
        (["-l", "shop.stock", "-l", "shop.orders", "-n2"], ["order 8 failed", "stock is low"]),
        (["--after-id", "14"], ["stock is low"]),
        (["-S", "2025-06-30 12:00:07", "--utc"], ["stock is low"]),
        (["-S", "@1751284801", "-U", "@1751284801"], ["order 7 paid"]),
        (["--run", "0", "-n", "0"], []),
    ],
)
def test_flags_are_filters(run, words, expected):
    """Each flag chooses rows, and the exit status tells whether there are any."""
    status, lines = run("-o", "cat", *words)

    assert expected == lines
    assert (0 if expected else 1) == status


def test_times_are_counted_from_now(run):
    """`yesterday`, `-1h` and `ago` are counted from the moment at which the command is run."""
    with freeze_time(BEGIN + timedelta(minutes=10)):
        recent = run("-o", "cat", "--utc", "-S", "-595s")
        ago = run("-o", "cat", "--utc", "--since", "9 min 51 s ago")
        past = run("-o", "cat", "--utc", "-U", "yesterday")
    with freeze_time(BEGIN + timedelta(days=1)):
        yesterday = run("-o", "cat", "--utc", "-S", "yesterday", "-U", "today", "-n", "1")

    assert (0, ["stock is low"]) == ago == yesterday
    assert "stock is low" == recent[1][-1]
    assert (1, []) == past


def test_a_pattern_is_looked_for_without_a_word_about_it(start, shop):
    """What Python has to say about a pattern that is valid, with a line of our source, is nothing for a terminal."""
    process = start(shop, "-g", "[[]")

    assert "" == process.communicate(timeout=60)[1]
    assert 0 == process.returncode


def test_a_length_of_time_is_not_taken_for_a_point(run):
    """Who writes `-S '1 hour'` is told what was meant, as one has to write it in a shell."""
    note = "sqlite-log show: '1 hour' is a length of time, not a point in time: did you mean '-1 hour'?\n"

    assert (2, []) == run("-S", "1 hour", stderr=note)


def test_all_lines(run):
    """`-n all` is no limit, as journalctl has it; a gap before the first line belongs to what is shown."""
    assert run("--after-id", "13") == run("-n", "all", "--after-id", "13")
    assert "GAP" in str(run("-n", "all", "--after-id", "13"))
    assert run("top", "-n", "1000") == run("top", "-n", "all")


@pytest.mark.parametrize("words", [["-o", "cat"], ["-o", "jsonl"]], ids=" ".join)
def test_follow_shows_each_record_that_comes(start, make_handler, logger, path, words):
    """`-f` shows the newest, then each record that is logged, until it is interrupted."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(20):
        logger.info("before %d", number)
    handler.flush()

    process = start(path, "-f", *words)
    shown = [process.stdout.readline() for _ in range(10)]
    logger.info("first")
    shown.append(process.stdout.readline())
    logger.error("second")
    shown.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert (130, "") == (process.wait(60), process.stderr.read())

    expected = [*(f"before {number}" for number in range(10, 20)), "first", "second"]
    assert expected == [json.loads(line)["message"] if "jsonl" in words else line.strip() for line in shown]


def test_follow_shows_all_when_asked_to(start, make_handler, logger, path):
    """`-f` begins with the newest ten, and with `-n all` at the beginning."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(20):
        logger.info("before %d", number)
    handler.flush()

    process = start(path, "-f", "-n", "all", "-o", "cat")
    assert "before 0\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.wait(60)


def test_follow_draws_the_gap_where_it_is(start, make_handler, path):
    """A gap that comes while one follows is drawn between the rows that it stands between."""
    handler = make_handler(capacity=20, reserve=0.5, batch_size=100, flush_interval=3_600, flush_level=logging.CRITICAL)
    handler.handle(record("before"))
    handler.flush()

    process = start(path, "-f")
    shown = [process.stdout.readline()]
    for number in range(11):
        handler.handle(record(f"burst {number}", logging.DEBUG))
    handler.close()
    shown += [process.stdout.readline() for _ in range(12)]
    process.send_signal(signal.SIGINT)
    process.wait(60)

    assert "burst 9\n" == shown[10][-8:]
    assert "GAP      ~~~ 1 record dropped" in shown[11]
    assert "sqlite_log_handler: dropped 1 record" in shown[12]


def test_follow_goes_on_in_a_file_that_has_no_name_for_the_level(start, path, tmp_path, monkeypatch):
    """A file in which nobody has logged with a level of the program's own yet is followed as well."""
    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName, 25: "NOTICE"})
    log_of(path, record("before", 25))

    process = start(path, "-f", "-p", "NOTICE", "-o", "cat")
    shown = [process.stdout.readline()]
    for end in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{end}"):
            os.replace(f"{path}{end}", tmp_path / f"old.db{end}")
    log_of(path, record("after", logging.WARNING))
    shown.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    process.wait(60)

    assert ["before\n", "after\n"] == shown


def test_what_is_read_beside_a_live_writer_has_no_hole(run, busy_log):
    """Rows that are read while others are written are all there, in order, once."""
    _, lines = run("-o", "jsonl", str(busy_log))
    ids = [json.loads(line)["id"] for line in lines]

    assert list(range(1, len(ids) + 1)) == ids
