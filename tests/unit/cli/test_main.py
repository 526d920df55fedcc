"""
The command line: what each command prints, and its exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

import sqlite_log_handler
from sqlite_log_handler import Row, SQLiteHandler
from sqlite_log_handler.__main__ import add_demo, main
from sqlite_log_handler._cli.arguments import join_times
from sqlite_log_handler._cli.commands import demo as demo_module
from sqlite_log_handler._cli.commands import prune as prune_module
from sqlite_log_handler._cli.formats import json_safe
from sqlite_log_handler._cli.main import build_parser
from sqlite_log_handler._cli.main import terminal as terminal_module
from sqlite_log_handler._cli.terminal import columns, fit, width_of
from sqlite_log_handler._logfile.printable import printable

BEGIN = datetime(2025, 6, 30, 12, tzinfo=UTC)

PARSER, COMMANDS = build_parser([add_demo, prune_module.add_parser])
READING = ["show", "top", "gaps", "stats", "check", "export"]

# What a stranger may write: colours, a cleared screen, C1, text that runs backwards, a line of its own, NUL, a tab.
NAUGHTY = "a\x1b[31m\x1b[2J\x07\x9b1m\u202eevil\u2066\nERROR root: forged\r\x00\tb\x7f\u2028\ud800z"


def record(message="hello", level=logging.INFO, name="shop", *, seconds=0.0, **attributes):
    """
    Make a record as if it had been logged `seconds` after BEGIN.
    """
    made = logging.LogRecord(name, level, "/srv/shop/app.py", 7, message, (), None, func="work")
    made.created = (BEGIN + timedelta(seconds=seconds)).timestamp()
    made.thread, made.threadName, made.process, made.processName = 77, "worker", 4711, "Main"
    vars(made).update(attributes)
    return made


def failed():
    """
    Give the exc_info of an error.
    """
    try:
        dict[str, int]()["price"]
    except KeyError:
        return sys.exc_info()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """
    A log of a shop, with levels, a traceback, attributes and a gap.
    """
    path = tmp_path_factory.mktemp("shop") / "app-log.db"
    handler = SQLiteHandler(
        path, capacity=20, reserve=0.5, flush_interval=3_600, flush_level=logging.CRITICAL, close_timeout=60
    )
    handler.handle(record("started"))
    handler.handle(record("order 7 paid", name="shop.orders", seconds=1, order=7, customer="c 17"))
    handler.handle(record("order 8 failed", logging.ERROR, "shop.orders", seconds=2, exc_info=failed()))
    handler.flush()
    for number in range(25):
        handler.handle(record(f"miss {number}", logging.DEBUG, "shop.cache", seconds=3 + number / 10))
    handler.close()  # which writes the drop warning
    handler = SQLiteHandler(path, close_timeout=60)
    handler.handle(record("stock is low", logging.WARNING, "shop.stock", seconds=9))
    handler.close()
    begin = int(BEGIN.timestamp())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # The drop warning was logged now; here it is to have been logged then.
        connection.execute("UPDATE records SET created_us = ? WHERE id = 14", [begin * 1_000_000 + 6_500_000])
        connection.execute("UPDATE volume SET hour = ?", [begin // 3600 * 3600])
    return path


@pytest.fixture
def run(capsys, monkeypatch, shop):
    """
    Run a command on the log of the shop, or on another, and return its exit status and the lines that it prints.
    """
    monkeypatch.setenv("SQLITE_LOG_DB", str(shop))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words, stderr=""):
        try:
            status = main(words)
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        assert (err == stderr) if isinstance(stderr, str) else stderr.search(err)
        return status, out.splitlines()

    return run


# show -----------------------------------------------------------------------------------------------------------------


def test_show_has_a_line_for_each_record(run):
    """A record is a line with time, level, logger and message; its traceback stands below it, indented."""
    status, lines = run("show", "--utc", "-l", "shop.orders")

    assert 0 == status
    assert "Jun 30 12:00:01 INFO     shop.orders: order 7 paid" == lines[0]
    assert "Jun 30 12:00:02 ERROR    shop.orders: order 8 failed" == lines[1]
    assert "    Traceback (most recent call last):" == lines[2]
    assert "    KeyError: 'price'" == lines[-1]


def test_version(capsys):
    """
    `sqlite-log --version` prints the name and the version of the package.
    """
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert (0, f"sqlite-log {sqlite_log_handler.__version__}\n") == (ended.value.code, capsys.readouterr().out)


def test_show_is_what_is_done_without_a_command(run, shop):
    """Without a command, and with flags or a file only, the log is shown."""
    expected = run("show", str(shop))

    assert expected == run(str(shop)) == run() == run("--level", "0", str(shop))


def test_the_gap_is_drawn_where_it_is(run):
    """Between the rows that it stands between, a gap is a line that says how many, why and whose."""
    _, lines = run("--utc", "-p", "DEBUG..WARNING", "-n", "3")

    assert "Jun 30 12:00:03 DEBUG    shop.cache: miss 9" == lines[0]
    gap = "Jun 30 12:00:04 GAP      ~~~ 15 records dropped in 1.40 s: queue_full 15; shop.cache 15 ~~~"
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
        connection.execute("INSERT INTO prunes VALUES (1, 1, 15, 0, 0, 'max_age', 15, 9)")

        gap = "GAP      ~~~ 9 records pruned in 0.00 s: max_age (not forwarded) 9 ~~~"
        for words in (["-n", "1"], ["-n", "1", "-r"], []):
            _, lines = run(str(path), *words)
            assert lines[0 if "-r" in words else -1].endswith(gap)
            assert 1 == str(lines).count("GAP")

        connection.execute("DELETE FROM records")
    status, (line,) = run(str(path))
    assert line.endswith(gap)
    assert 1 == status


def test_a_row_with_the_highest_id_is_shown(run, make_handler, path):
    """Behind the highest id that SQLite has there is none to ask for."""
    handler = make_handler()
    handler.handle(record("one"))
    handler.close()
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


def test_logfmt_quotes_what_must_be(run):
    """In `logfmt` a value with a blank is quoted, and attributes come last."""
    _, (line,) = run("--utc", "-o", "logfmt", "--where", "order=7")

    assert line.startswith(
        'time=2025-06-30T12:00:01.000000+00:00 level=INFO logger=shop.orders message="order 7 paid" pathname=/srv'
    )
    assert line.endswith(' thread_name=worker order=7 customer="c 17"')


def test_an_attribute_of_any_name_and_value_is_shown(run, make_handler, path):
    """An attribute with the name of what a row has by itself, and one that is empty, are shown as all others."""
    handler = make_handler()
    handler.handle(record(level=logging.INFO, time=12, logger="payments", empty=""))
    handler.close()

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
    assert (1, ["[]"]) == run("-o", "json", "-l", "nobody")


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


def test_a_time_may_begin_with_a_minus():
    """`-S -1h` is a flag and its value, with and without a blank, short and long."""
    assert ["-S-1h", "x.db"] == join_times(["-S", "-1h", "x.db"])
    assert ["--until=-1h 30min"] == join_times(["--until", "-1h 30min"])
    assert ["-S", "yesterday", "-f"] == join_times(["-S", "yesterday", "-f"])


def test_the_cursor_file_keeps_how_far_one_has_read(run, tmp_path, make_handler, logger, path):
    """What was shown once is not shown again, whatever the filters left out; a new log is shown from its start."""
    cursor = str(tmp_path / "cursor")
    handler = make_handler()
    logger.addHandler(handler)
    show = [str(path), "-o", "cat", "--cursor-file", cursor]

    logger.info("one")
    logger.error("two")
    handler.flush()
    assert (0, ["two"]) == run(*show, "-p", "ERROR")
    assert (1, []) == run(*show)
    logger.info("three")
    handler.flush()
    assert (0, ["three"]) == run(*show)
    assert re.fullmatch(r"3 \d+\n", (tmp_path / "cursor").read_text())

    (tmp_path / "cursor").write_text("99\n")
    note = f"sqlite-log: the log was begun anew since {cursor!r} was written: it is read from its beginning\n"
    assert (0, ["one", "two", "three"]) == run(*show, stderr=note)
    assert ["logger"] != handler  # the handler lives as long as the test


def test_a_cursor_of_another_log_is_told_from_one_of_this(run, tmp_path, make_handler, path):
    """
    A log that was begun anew is read from its beginning, also when it has more rows by now than had been read.

    Its first rows were once taken for those that had been shown, and never were.
    """
    cursor = str(tmp_path / "cursor")
    show = [str(path), "-o", "cat", "--cursor-file", cursor]
    note = f"sqlite-log: the log was begun anew since {cursor!r} was written: it is read from its beginning\n"

    for numbers, stderr in ((range(2), ""), (range(10, 15), note)):
        path.unlink(missing_ok=True)
        handler = make_handler()
        for number in numbers:
            handler.handle(record(str(number), seconds=number))
        handler.close()
        assert (0, [str(number) for number in numbers]) == run(*show, stderr=stderr)
        assert (1, []) == run(*show)


def test_a_cursor_stays_when_all_rows_are_pruned(run, tmp_path, make_handler, path):
    """Where no row is left, the log is not taken for one that was begun anew, and the cursor is kept."""
    show = [str(path), "-o", "cat", "--cursor-file", str(tmp_path / "cursor")]
    handler = make_handler()
    handler.handle(record("one"))
    assert handler.flush()
    assert (0, ["one"]) == run(*show)

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM records")
    assert (1, []) == run(*show)
    handler.handle(record("two"))
    handler.close()
    assert (0, ["two"]) == run(*show)


def test_an_empty_cursor_file_is_the_beginning(run, tmp_path):
    """A file that `mktemp` made is empty: nothing was read yet."""
    (tmp_path / "cursor").write_text("")

    assert (0, ["stock is low"]) == run("-o", "cat", "-n", "1", "--cursor-file", str(tmp_path / "cursor"))
    assert f"15 {int(BEGIN.timestamp()) + 9}000000\n" == (tmp_path / "cursor").read_text()


@pytest.mark.skipif(os.name != "posix", reason="a socket that is a file")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{folder}/no/c", "'{folder}/no/c': there is no folder '{folder}/no': create it first"),
        ("", "--cursor-file has no name: name a file"),
        (".", "'.' is a folder: name a file in it"),
        ("{folder}/socket", "'{folder}/socket' is no regular file: name one that does not exist yet"),
        ("{folder}/ro/c", "'{folder}/ro/c': you may not write to the folder '{folder}/ro': make it writable"),
    ],
)
def test_a_cursor_that_cannot_be_kept_is_said_before_anything_is_shown(run, tmp_path, monkeypatch, name, told):
    """
    Where no cursor can be kept, no record is shown: a job would take those for new ones, each time.

    All of the log was once printed first, and then "No such file or directory: '/nonexistent/c.new'". And what is no
    file, as /dev/null, would have been replaced by one. (The test has a socket for it, which nobody misses.)
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ro").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket")  # by its short name: the path may be longer than a socket's may be
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path / "ro") and access(path, mode))
    name, told = (text.replace("{folder}", str(tmp_path)) for text in (name, told))

    assert (2, []) == run("--cursor-file", name, stderr=f"sqlite-log show: {told}\n")
    assert {"ro", "socket"} == set(os.listdir(tmp_path))


def test_nothing_new_is_told_as_such(shop, tmp_path):
    """On a terminal it is told behind which id nothing came, or nothing that matches."""
    cursor = tmp_path / "cursor"
    cursor.write_text("15\n")
    assert "sqlite-log: nothing new since id 15\r\n" == in_terminal([str(shop), "--cursor-file", str(cursor)], status=1)

    cursor.write_text("14\n")
    words = [str(shop), "-p", "ERROR", "--cursor-file", str(cursor)]
    assert "sqlite-log: nothing new since id 14 matches\r\n" == in_terminal(words, status=1)


ERRORS = {
    "show no-such.db": "show: '{folder}/no-such.db' does not exist: name the file of a SQLiteHandler",
    "-p LOUD": "show: 'LOUD' is no level of this log: write one of DEBUG, INFO, WARNING, ERROR, CRITICAL, a number, "
    "or a range as INFO..ERROR",
    "top --where x": "top: --where 'x' has no =: write KEY=VALUE",
    "--where a=1 --where b=1 --where a=2": "show: --where has two values for 'a', and all of those given must hold: "
    "give one of them",
    "-f -r": "show: -f has no end, so it goes neither with -r nor with -o json; -o jsonl has an object on each line",
    "no-such.db -f -U -1h": "show: -f shows what is still to come, which -U would leave out: give one of them",
    "--cursor-file c -U now": "show: --cursor-file keeps how far the log was read, and -U would leave out what is "
    "never read again",
    "--cursor-file {folder}/text": "show: '{folder}/text' is no cursor file: name one that does not exist yet, or the "
    "one that was written before",
    "export --output {folder}/text": "export: '{folder}/text' exists: name a file that does not exist yet",
    "export --output {folder}/no/x": "export: '{folder}/no/x': there is no folder '{folder}/no': create it first",
    "{folder}/text": "show: '{folder}/text' is not an SQLite database: name the file of a SQLiteHandler",
    "{folder}": "show: '{folder}' is a folder: name a file in it",
    "-p ERROR..INFO": "show: 'ERROR..INFO' has no level in it: write the lower one first, INFO..ERROR",
    "gaps -S 2025-02-01T00:00Z -U 2025-01-01T00:00Z": "gaps: since (2025-02-01 00:00:00+00:00) is after until "
    "(2025-01-01 00:00:00+00:00), so nothing is between them: swap them",
    "--run x": "show: argument --run: 'x' is no whole number; `sqlite-log show --help` says more",
    "--pid 1.5": "show: argument --pid: '1.5' is no whole number; `sqlite-log show --help` says more",
    "--after-id x": "show: argument --after-id: 'x' is no whole number; `sqlite-log show --help` says more",
    "-n x": "show: argument -n/--lines: 'x' is no whole number; `sqlite-log show --help` says more",
    "top -n -5": "top: argument -n/--lines: '-5' is below 0; `sqlite-log top --help` says more",
    "prune --max-rows 1,000": "prune: argument --max-rows: '1,000' is no whole number; `sqlite-log prune --help` says "
    "more",
    "forward a.db --batch-rows x": "forward: argument --batch-rows: 'x' is no whole number; `sqlite-log forward "
    "--help` says more",
    "-S 1h": "show: '1h' is a length of time, and no point in time: did you mean -1h?",
    "-S 99999999999999d": "show: '99999999999999d' is no point in time: write ISO 8601 (2025-06-30, "
    "'2025-06-30 12:00', 2025-06-30T12:00:00Z), a time of today (12:00), now, today, yesterday, -1h, '10 min ago', or "
    "@seconds since 1970",
    "-g a{99999999999}": "show: 'a{99999999999}' is no regular expression: the repetition number is too large; a text "
    "as it is goes with -F or `text=`",
    "--colour": "show: unrecognized arguments: --colour; `sqlite-log show --help` says more",
    "gaps a.db -g x": "gaps: unrecognized arguments: -g x; `sqlite-log gaps --help` says more",
    "top a.db b.db": "top: one log at a time: 'b.db' is one too many; `sqlite-log top --help` says more",
    "a.db b.db": "show: one log at a time: 'b.db' is one too many; `sqlite-log show --help` says more",
    "gaps a.db top": "gaps: one log at a time: 'top' is one too many; `sqlite-log gaps --help` says more",
    "stats --bucket 1us": "stats: bucket='1us' makes 9,000,001 buckets of this log: take a longer one",
}


def test_a_pattern_is_looked_for_without_a_word_about_it(start, shop):
    """What Python has to say about a pattern that is valid, with a line of our source, is nothing for a terminal."""
    process = start(shop, "-g", "[[]")

    assert "" == process.communicate(timeout=60)[1]
    assert 0 == process.returncode


@pytest.mark.parametrize("words", ERRORS)
def test_errors_are_one_line(run, tmp_path, monkeypatch, words):
    """What is wrong is said in one line that says what to do, and the exit status is 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    message = f"sqlite-log {ERRORS[words]}\n".replace("{folder}", str(tmp_path))

    assert (2, []) == run(*words.replace("{folder}", str(tmp_path)).split(), stderr=message)


WHICH = "sqlite-log {}: which log? Name a FILE, or set SQLITE_LOG_DB; `sqlite-log --help` lists the commands\n"


def test_which_log(run, monkeypatch):
    """Without a FILE and without SQLITE_LOG_DB, it is asked which log is meant."""
    monkeypatch.delenv("SQLITE_LOG_DB")

    assert (2, []) == run("stats", stderr=WHICH.format("stats"))
    assert (2, []) == run(stderr=WHICH.format("show"))


def test_a_command_that_does_not_exist(run, tmp_path, monkeypatch):
    """A word that is neither a command nor a file is told as such, with the commands there are."""
    monkeypatch.chdir(tmp_path)

    note = re.compile(
        r"^sqlite-log: 'tops' is neither a command \(show, top, .*\) nor a file; `sqlite-log --help` says"
    )
    assert (2, []) == run("tops", "app-log.db", stderr=note)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("app-log.db top", "top app-log.db"),
        ("app-log.db top -n 3", "top app-log.db -n 3"),
        ("-p ERROR gaps app-log.db", "gaps -p ERROR app-log.db"),
        ("app-log.db stats -S -1h", "stats app-log.db -S-1h"),
    ],
)
def test_a_command_that_comes_too_late(run, words, meant):
    """
    Who names the log before the command is shown the line that was meant.

    It was once "unrecognized arguments: top".
    """
    note = f"sqlite-log: the command comes first: sqlite-log {meant}; `sqlite-log --help` says more\n"

    assert (2, []) == run(*words.split(), stderr=note)


def test_a_log_may_have_the_name_of_a_command(run, shop, tmp_path, monkeypatch):
    """A log that is called `top` is a log, where it cannot be the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "top").write_bytes(shop.read_bytes())

    note = "sqlite-log show: one log at a time: 'top' is one too many; `sqlite-log show --help` says more\n"
    assert (0, ["stock is low"]) == run("show", "top", "-o", "cat", "-n", "1")
    assert (2, []) == run("./top", "top", stderr=note)


@pytest.mark.parametrize(("words", "expected"), [(["help"], ["--help"]), (["help", "top"], ["top", "--help"])])
def test_help_is_a_word(run, words, expected):
    """`sqlite-log help` is the help, and `help top` that of `top`."""
    assert run(*expected) == run(*words)
    assert run(*words)[1]


def test_a_length_of_time_is_not_taken_for_a_point(run):
    """Who writes `-S '1 hour'` is told what was meant, as one has to write it in a shell."""
    note = "sqlite-log show: '1 hour' is a length of time, and no point in time: did you mean '-1 hour'?\n"

    assert (2, []) == run("-S", "1 hour", stderr=note)


@pytest.mark.parametrize(
    ("number", "meant"), [("3", "ERROR is 40"), ("4", "WARNING is 30"), ("6", "INFO is 20"), ("7", "DEBUG is 10")]
)
@pytest.mark.parametrize("command", ["show", "top", "gaps", "stats", "export"])
def test_who_means_a_level_of_journalctl_is_told(run, command, number, meant):
    """`-p 3` is `err` to journalctl; here it is a level below DEBUG, so that all is shown, and a note says so."""
    note = f"sqlite-log: {number} is a level of Python's logging, below DEBUG (10); {meant}\n"

    assert run(command, "-p", "0") == run(command, "-p", number, stderr=note)


def test_a_number_that_the_log_has_a_name_for_is_meant(run, make_handler, path):
    """Where 5 is the level TRACE, `-p 5` needs no note; nor does a name, a range, or a number above."""
    handler = make_handler()
    handler.handle(record("deep", 5))
    handler.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT OR REPLACE INTO levels VALUES (5, 'TRACE')")

    assert (0, ["deep"]) == run("-p", "5", "-o", "cat", str(path))
    assert (0, 1, 1) == (run("-p", "..5", str(path))[0], run("-p", "ERROR", str(path))[0], run("-p", "8", str(path))[0])


def test_all_lines(run):
    """`-n all` is no limit, as journalctl has it; a gap before the first line belongs to what is shown."""
    assert run("--after-id", "13") == run("-n", "all", "--after-id", "13")
    assert "GAP" in str(run("-n", "all", "--after-id", "13"))
    assert run("top", "-n", "1000") == run("top", "-n", "all")


# The other commands ---------------------------------------------------------------------------------------------------


def test_top_says_who_and_what_to_do(run):
    """`top` has a line for the loudest, and the setLevel line that makes the loudest of all quiet."""
    status, lines = run("top", "-n", "2")

    assert 0 == status
    assert ["records", "bytes", "share", "dropped", "logger"] == lines[0].split()
    assert "     10   60 B  83.3%       15  shop.cache" == lines[1]
    assert lines[3].endswith("3 more")
    assert [
        "",
        "To leave out 10 of its records, and 15 that were dropped, 83.3% of all:",
        "  logging.getLogger('shop.cache').setLevel(logging.INFO)",
    ] == (lines[4:])


def test_top_gives_advice_on_what_it_shows(run):
    """
    With no line in the table there is no advice, and where nothing was dropped, or that is not known, no word of drops.

    The advice once had a higher number of records than the row above it, because those dropped were among them.
    """
    assert "setLevel" not in str(run("top", "-n", "0"))
    assert "To leave out 10 of its records, 100.0% of all:" in run("top", "-F", "miss")[1]


@pytest.mark.parametrize("level", ["WARNING", "INFO..", "DEBUG..INFO"])
def test_top_gives_no_advice_for_a_part_of_the_levels(run, make_handler, path, level):
    """
    With a level asked for there is no advice: it would count records that the table does not.

    It once promised to leave out nine records of the one warning that was shown, 900 % of all.
    """
    handler = make_handler()
    for levelno in [logging.DEBUG] * 9 + [logging.INFO, logging.WARNING]:
        handler.handle(record("hello", levelno))
    handler.close()

    status, lines = run("top", str(path), "-p", level)
    assert 0 == status
    assert 2 == len(lines)
    assert "setLevel" in str(run("top", str(path)))


def test_top_by_source_draws_the_trend(run):
    """By call site there is a line of bars for the course of time, and no line to paste."""
    _, lines = run("top", "--by", "source", "-l", "shop.cache")

    assert lines[0].endswith("  trend         source")
    assert lines[1].endswith("shop.cache app.py:7 work")
    assert set("▁▂▃▄▅▆▇█") & set(lines[1])
    assert 2 == len(lines)


def test_top_does_not_advise_to_lose_warnings(run):
    """When the loudest logger logs errors for the most part, no line is offered that would leave them out."""
    assert "setLevel" not in str(run("top", "-l", "shop.stock"))


def test_gaps_are_a_table(run):
    """`gaps` has a line for each place and cause, and a sum."""
    status, lines = run("gaps", "--utc")

    assert 0 == status
    assert "Jun 30 12:00:04     1.40       15        13  queue_full: shop.cache DEBUG 15" == lines[1]
    assert lines[2].split() == ["15", "in", "1", "gap"]
    assert (1, []) == run("gaps", "-p", "ERROR")


def test_stats_have_a_histogram(run):
    """`stats` says how much there is, and draws it over time, with ~ where records were dropped."""
    status, lines = run("stats", "--utc", "--bucket", "1s")

    assert 0 == status
    assert "rows     15, id 1 to 15; 5 loggers, 5 call sites, 2 processes" == lines[3]
    assert "time     2025-06-30 12:00:00 to 2025-06-30 12:00:09, 9.0 s" == lines[4]
    assert "levels   DEBUG 10, INFO 2, WARNING 2, ERROR 1" == lines[5]
    assert "dropped  15: queue_full 15" == lines[6]
    bars = [line.split() for line in lines[8:-1]]
    assert 10 == len(bars)
    assert {"D"} == set(bars[3][4])
    assert {"~"} == set(bars[4][4])
    assert {"W"} == set(bars[9][4])
    assert lines[-1].endswith("D DEBUG, I INFO, W WARNING, E ERROR, ~ dropped 15")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_histogram_fits_the_terminal(run, monkeypatch, columns):
    """No bar is longer than the terminal is wide, and the longest fills it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, lines = run("stats")

    assert columns - 1 <= max(len(line) for line in lines[8:-1]) <= columns


def test_what_retention_and_forwarding_leave_is_shown(run, shop, path):
    """Rows that were pruned before they were forwarded are a gap, and cursors stand among the statistics."""
    path.write_bytes(shop.read_bytes())
    since = int(BEGIN.timestamp()) * 1_000_000
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            f"""
            CREATE TABLE IF NOT EXISTS prunes (
                id INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL, since_us INTEGER NOT NULL,
                until_us INTEGER NOT NULL, cause TEXT NOT NULL, count INTEGER NOT NULL, unsent INTEGER NOT NULL
            );
            CREATE TABLE IF NOT EXISTS cursors (
                name TEXT PRIMARY KEY, after_id INTEGER NOT NULL, updated_us INTEGER NOT NULL
            ) WITHOUT ROWID;
            DELETE FROM records WHERE id <= 3;
            INSERT INTO prunes VALUES (1, 1, 3, {since}, {since} + 500000, 'max_rows', 3, 2);
            INSERT INTO cursors VALUES ('loki', 13, 0), ('done', 15, 0);
            """
        )

    gap = "Jun 30 12:00:00 GAP      ~~~ 2 records pruned in 0.50 s: max_rows (not forwarded) 2 ~~~"
    assert gap == run("--utc", str(path))[1][0]
    assert ["Jun", "30", "12:00:00", "0.50", "2", "3", "max_rows", "(not", "forwarded)"] == run(
        "gaps", "--utc", str(path)
    )[1][1].split()
    lines = run("stats", "--utc", str(path))[1]
    assert ["pruned   3, 2 of them not forwarded", "cursor   done at id 15, at the end"] == lines[7:9]
    assert lines[9].startswith("cursor   loki at id 13, 2 rows and ")
    assert [] == [line for line in run("check", str(path))[1] if line.startswith("WRONG")]


def test_check_says_ok(run):
    """`check` has a line for everything that it has looked at."""
    status, lines = run("check")

    assert 0 == status
    assert ["ok"] * 5 == [line.split()[0] for line in lines]


def test_check_finds_books_that_do_not_agree(run, shop, path):
    """When somebody has deleted from the ledger, `check` says which sums differ, and its exit status is 1."""
    path.write_bytes(shop.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM drops")

    status, lines = run("check", str(path))
    assert 1 == status
    assert ["ok", "ok", "WRONG", "WRONG", "ok"] == [line.split()[0] for line in lines]


def fill_and_damage(make_handler, logger, path, *, rows, pages):
    """
    Log so many rows, and write over so many pages of the file.
    """
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(rows):
        logger.info("%d %s", number, "x" * 50)
    handler.close()
    with open(path, "r+b") as file:
        file.seek(4096 * 30)
        file.write(b"\xff" * 4096 * pages)


def test_check_finds_damage(run, make_handler, logger, path):
    """When the file is damaged, `check` says where, as far as SQLite can tell."""
    fill_and_damage(make_handler, logger, path, rows=3_000, pages=5)

    status, lines = run("check", str(path))
    assert 1 == status
    assert "WRONG" == lines[1].split()[0]


def test_check_prints_a_finding_on_each_line(run, make_handler, logger, path):
    """
    SQLite puts up to a hundred findings into one text: the first ten are lines, and the others are counted.

    They were once one line of 4,931 characters.
    """
    fill_and_damage(make_handler, logger, path, rows=10_000, pages=130)

    status, lines = run("check", str(path))
    assert 1 == status
    assert "ok     a log of sqlite-log-handler, schema 1 of 1" == lines[0]
    assert [True] * 10 == [bool(re.fullmatch(r"WRONG  (?!\*).*[Pp]age \d+.*", line)) for line in lines[1:11]]
    assert re.fullmatch(r"WRONG  and \d+ more", lines[11])
    assert max(map(len, lines)) < 100
    assert 13 == len(lines)


def test_check_of_a_file_that_cannot_be_opened(run, shop, tmp_path):
    """A file that is too damaged to be read is what `check` is there for: one line says so, and the status is 1."""
    (tmp_path / "cut.db").write_bytes(shop.read_bytes()[:8_192])

    status, lines = run("check", str(tmp_path / "cut.db"))
    assert 1 == status
    assert "WRONG  database disk image is malformed" == lines[-2]
    assert "-" == lines[-1].split()[0]


def test_export_writes_the_same_rows_in_each_format(run, tmp_path):
    """JSON lines and CSV have the same rows and columns, on standard output and in a file."""
    _, lines = run("export")
    status, _ = run("export", "--format", "csv", "--output", str(tmp_path / "x.csv"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8"), newline="")))

    assert 0 == status
    assert [str(json.loads(line)["id"]) for line in lines] == [row["id"] for row in rows]
    assert [json.loads(line)["exc_text"] or "" for line in lines] == [row["exc_text"] for row in rows]
    assert list(Row._fields) == list(rows[0])
    assert (1, []) == run("export", "-l", "nobody")
    assert 0 == run("export", "--output", str(tmp_path / "x.jsonl"))[0]
    assert lines == (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()


def test_export_writes_parquet(run, tmp_path):
    """Parquet has the same columns, with the time as a timestamp."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")

    assert 0 == run("export", "--format", "parquet", "--output", str(tmp_path / "x.parquet"))[0]
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [json.loads(line)["message"] for line in run("export")[1]] == [row["message"] for row in rows]
    assert BEGIN == rows[0]["time"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_export_without_a_record_leaves_no_file(run, tmp_path, form):
    """
    When nothing matches no file is made, so that the next run can make it.

    An empty file, or one of a head alone, was once left behind, and the next run said that it exists.
    """
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    words = ["export", "--format", form, "--output", str(tmp_path / "x")]

    assert (1, []) == run(*words, "-l", "nothere")
    assert [] == list(tmp_path.iterdir())
    assert (0, []) == run(*words, "-l", "shop.orders")


@pytest.mark.parametrize("words", [["-p", "LOUD"], ["-g", "("], ["--run", "9"]], ids=" ".join)
def test_an_export_with_a_wrong_filter_leaves_no_file(run, tmp_path, words):
    """A filter is refused before the file is made, so that the next run can make it."""
    assert (2, []) == run("export", "--output", str(tmp_path / "x"), *words, stderr=re.compile("^sqlite-log export: "))
    assert [] == list(tmp_path.iterdir())


def test_an_export_to_a_dash_is_one_to_standard_output(run, tmp_path, monkeypatch):
    """`--output -` writes to standard output, as elsewhere, and makes no file of that name."""
    monkeypatch.chdir(tmp_path)

    assert run("export") == run("export", "--output", "-")
    assert (1, []) == run("export", "--output", "-", "-l", "nothere")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="a socket that is a file")
@pytest.mark.parametrize("words", [["show"], ["check"], ["prune", "--vacuum"]], ids=" ".join)
def test_what_is_no_regular_file_is_no_log(run, tmp_path, monkeypatch, words):
    """
    A pipe, a device or a socket is told as such: SQLite would open a pipe and wait for ever.

    (Here it is a socket, which nobody waits for.)
    """
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket")

    what = "is a device, a pipe or a socket: name the file of a SQLiteHandler"
    note = re.compile(rf"^sqlite-log {words[0]}: '.*socket' {what}\n$")
    assert (2, []) == run(*words, "socket", stderr=note)


def test_parquet_needs_pyarrow(run, monkeypatch):
    """Without pyarrow, it is said what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    note = "sqlite-log export: --format parquet needs pyarrow: pip install 'sqlite-log-handler[parquet]'\n"
    assert (2, []) == run("export", "--format", "parquet", stderr=note)


# A terminal -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def naughty(make_handler, tmp_path):
    """
    A log in which every text that a stranger can write is naughty.
    """
    path = tmp_path / "naughty.db"
    handler = make_handler(path, capacity=2, flush_interval=3_600, flush_level=logging.CRITICAL)
    one = record(NAUGHTY, logging.ERROR, NAUGHTY, exc_info=failed(), stack_info=NAUGHTY, pathname=NAUGHTY)
    vars(one).update({"threadName": NAUGHTY, "processName": NAUGHTY, NAUGHTY: NAUGHTY, "funcName": NAUGHTY})
    one.exc_text = NAUGHTY
    one.exc_info = None
    for _ in range(10):
        handler.handle(one)
    handler.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE levels SET name = ?", ["\x1b[2J\u202e\n"])
        connection.execute("UPDATE drops SET cause = ?", ["\x1b[2J\u202e\n"])
        connection.execute("UPDATE records SET exc_type = ?", ["\x1b[2J\u202e\n"])
    return path


LINES = [
    *(["show", "-o", name] for name in ("short", "short-precise", "verbose", "json", "jsonl", "cat", "logfmt")),
    *(["top", "--by", by] for by in ("logger", "source", "level", "exception", "thread", "process")),
    *([name] for name in ("gaps", "stats", "check", "export")),
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_nothing_reaches_the_terminal_that_it_would_obey(run, naughty, words):
    """Whatever stands in a log, a command prints nothing but letters, blanks and the ends of its own lines."""
    _, lines = run(*words, str(naughty))

    assert lines
    assert [] == [line for line in lines if not line.isprintable()]
    assert not any(line.startswith("ERROR root: forged") for line in lines)


@pytest.mark.parametrize("words", [["gaps"], ["stats"]], ids=" ".join)
def test_a_text_in_the_place_of_a_number_is_made_safe(run, naughty, words):
    """A column of integers takes a text from whoever made the file, and that is no more obeyed than any other."""
    with contextlib.closing(sqlite3.connect(naughty, isolation_level=None)) as connection:
        connection.execute("UPDATE drops SET after_id = ?", ["\x1b[2J"])
        connection.execute("INSERT INTO cursors VALUES ('collector', ?, 0)", ["\x1b[2J"])

    _, lines = run(*words, str(naughty))
    assert r"\x1b[2J" in "".join(lines)
    assert [] == [line for line in lines if not line.isprintable()]


def test_json_stays_the_same_when_it_is_made_safe(run, naughty):
    """What is escaped in JSON is the same text when it is read."""
    _, (line, *_) = run("-o", "jsonl", str(naughty))

    assert NAUGHTY.replace("\x00", r"\x00").replace("\ud800", r"\ud800") == json.loads(line)["message"]


def in_terminal(words, status=0, **environment):
    """
    Run a command with a terminal for its output, and return what it prints there.
    """
    pty = pytest.importorskip("pty", reason="no terminals on this system")
    ours, theirs = pty.openpty()
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    settings = {**os.environ, "PYTHONPATH": package, "TERM": "xterm", "COLUMNS": "80", **environment}
    settings.pop("NO_COLOR", None)
    settings.update(environment)
    command = [sys.executable, "-m", "sqlite_log_handler", *words]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=settings) as process:
        os.close(theirs)
        printed = b""
        with contextlib.suppress(OSError):  # the other side is closed
            while part := os.read(ours, 65536):
                printed += part
        os.close(ours)
        assert status == process.wait(60)
    return printed.decode()


def test_levels_have_colours_on_a_terminal(shop):
    """On a terminal warnings are yellow and errors red; with NO_COLOR, or on a dumb one, nothing is."""
    words = [str(shop), "-p", "WARNING"]

    printed = in_terminal(words)
    assert "\x1b[31mERROR    shop.orders: order 8 failed\x1b[0m" in printed
    assert "\x1b[33mWARNING  shop.stock: stock is low\x1b[0m" in printed
    assert "\x1b" not in in_terminal(words, NO_COLOR="1")
    assert "\x1b" not in in_terminal(words, TERM="dumb")


def test_there_are_no_colours_without_a_terminal(run):
    """What is piped has no colours."""
    assert "\x1b" not in str(run())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("show", "no record matches; `sqlite-log stats` shows what there is"),
        ("top", "no record matches; `sqlite-log stats` shows what there is"),
        ("gaps", "no gap: of what was asked for, nothing is missing"),
        ("stats", "no record matches, so there is no histogram"),
        ("export", "no record matches; `sqlite-log stats` shows what there is"),
    ],
)
def test_nothing_is_told_on_a_terminal_only(run, shop, words, told):
    """Somebody at a terminal is told that nothing matched; whoever reads a pipe has the exit status."""
    assert f"sqlite-log: {told}" in in_terminal([words, "-p", "CRITICAL", str(shop)], status=1)
    assert 1 == run(words, "-p", "CRITICAL")[0]


def test_tables_fit_the_terminal(shop):
    """On a terminal the lines of a table are cut to its width."""
    printed = in_terminal(["top", "--by", "source", str(shop)], COLUMNS="50")

    assert 50 == max(len(line) for line in printed.splitlines())
    assert "trend" not in printed  # the names need the room


def test_the_demo_keeps_to_a_narrow_terminal(monkeypatch):
    """The demo folds what it tells to the width of the terminal, and breaks no name at its hyphen."""
    monkeypatch.setenv("COLUMNS", "60")

    lines = demo_module.fold("       WARNING ", "lib-dynload " * 20).splitlines()
    assert 40 < max(len(line) for line in lines) <= 60
    assert {"lib-dynload"} == {word for line in lines for word in line.split()} - {"WARNING"}


def test_the_books_of_the_demo_say_how_many_rows_there_are(run, make_handler, path):
    """
    The drop warnings are rows of the file that no program has logged, and the demo says so.

    It once said that 12,938 rows were in the file, in which `stats` then found 12,947.
    """
    handler = make_handler(capacity=20, reserve=0.5, flush_interval=3_600, flush_level=logging.CRITICAL)
    for number in range(25):
        handler.handle(record(f"miss {number}", logging.DEBUG))
    handler.close()
    printed = []

    assert demo_module.show_books(handler, str(path), 25, printed.append)
    assert "written 10 rows without the drop warnings 10 agree" in [" ".join(line.split()) for line in printed]
    assert "  The drop warnings are rows as well: `sqlite-log stats` counts 11." in printed
    assert "rows     11, id 1 to 11" in str(run("stats", str(path)))
    assert "drop warnings and pruned rows, and the volume: 11 and 11" in str(run("check", str(path)))


def test_whose_a_gap_is_moves_to_a_line_of_its_own(shop):
    """On a terminal that is too narrow for it, the loggers of a gap stand below its line."""
    wide = in_terminal(["gaps", str(shop)], COLUMNS="100").splitlines()
    narrow = in_terminal(["gaps", str(shop)], COLUMNS="60").splitlines()

    assert wide[1].endswith("13  queue_full: shop.cache DEBUG 15")
    assert narrow[1].endswith("13  queue_full")
    assert "    shop.cache DEBUG 15" == narrow[2]


def test_printable_keeps_letters():
    """Letters of all scripts stay as they are."""
    assert "größer, больше, 大きい, 🎉" == printable("größer, больше, 大きい, 🎉")


PERSIAN = "می\u200cخواهم"  # noqa: RUF001 - it is not meant to look like Latin
HINDI, FAMILY = "क\u094d\u200dष", "👩\u200d👧"


@pytest.mark.parametrize("text", [PERSIAN, HINDI, FAMILY])
def test_joiners_pass(text):
    """
    Persian, Hindi and emoji are written with characters of no width that join letters or keep them apart.

    They were once escaped as control characters are, so that the words could not be read. JSON has them as they are,
    too. What turns the direction of writing, or has no width for no such reason, is still escaped.
    """
    assert text == printable(text) == json_safe(text)
    assert (f"{text}\\x1b", rf"{text}\u001b") == (printable(f"{text}\x1b"), json_safe(f"{text}\x1b"))
    assert r"\u200b\u200e\u200f\u2060\u202e" == printable("\u200b\u200e\u200f\u2060\u202e")


def test_joiners_have_no_width(monkeypatch):
    """In a table a joiner takes no column, neither where cells are aligned nor where a line is cut."""
    joined, plain_text = "a\u200db", "ab"
    first, second, third = columns([(joined, "x"), (plain_text, "x"), ("abc", "x")])
    assert (" a\u200db  x", " ab  x", "abc  x") == (first, second, third)
    assert (2, 2) == (width_of(joined), width_of(plain_text))

    monkeypatch.setattr(terminal_module, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal_module, "terminal_width", lambda: 40)
    line = "a\u200d" * 20 + "b" * 20
    assert line == fit(line)
    assert fit(line + "c").endswith("...")


# Processes ------------------------------------------------------------------------------------------------------------


# Started in the background by a shell, a program ignores Ctrl-C, and inherits that to its children.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sqlite_log_handler.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def start():
    """
    Start a command as a process of its own; with `closed`, nobody reads what it prints, from the start on.
    """
    with contextlib.ExitStack() as stack:

        def start(*words, closed=False):
            package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
            out = subprocess.PIPE
            if closed:
                reading, out = os.pipe()
                os.close(reading)
                stack.callback(os.close, out)
            process = subprocess.Popen(
                [sys.executable, "-c", INTERRUPTIBLE, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": package},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_a_closed_pipe_is_no_error(start, make_handler, logger, path):
    """When `head` has seen enough, nothing is said."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(20_000):
        logger.info("%d %s", number, "x" * 50)
    handler.close()

    process = start(path)
    process.stdout.readline()
    process.stdout.close()
    assert (141, "") == (process.wait(60), process.stderr.read())

    process = start(path, "-n", "5", closed=True)
    assert (141, "") == (process.wait(60), process.stderr.read())


@pytest.mark.parametrize("words", [[], ["--help"], ["demo"], *([name] for name in (*READING, "prune"))], ids=" ".join)
def test_a_closed_output_is_one_line(shop, monkeypatch, capsys, words):
    """
    A shell closes the output with `>&-`: every command says so, and its exit status is 2.

    It was once a traceback that ended in "'NoneType' object has no attribute 'isatty'".
    """
    monkeypatch.setenv("SQLITE_LOG_DB", str(shop))
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        assert 2 == main(words)

    note = "standard output is closed, so nothing can be shown: send it to /dev/null if nobody is to see it"
    assert f"sqlite-log: {note}\n" == capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes descriptors")
@pytest.mark.parametrize(("closed", "status"), [(">&-", 2), ("2>&-", 0), (">&- 2>&-", 2)])
def test_a_shell_may_close_what_is_printed_to(shop, closed, status):
    """With the output closed the status is 2, and with that for errors closed the command works without a word."""
    command = f"{shlex.quote(sys.executable)} -m sqlite_log_handler {shlex.quote(str(shop))} -n 1 {closed}"
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    process = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": package}, check=False
    )

    assert (status, status == 0) == (process.returncode, "stock is low" in process.stdout)
    assert ("standard output is closed" in process.stderr) == (closed == ">&-")
    assert "Traceback" not in process.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes descriptors")
def test_an_error_that_nobody_can_be_told_has_its_status(tmp_path):
    """What is wrong with a command is in its exit status, also when the output for errors is closed."""
    command = f"{shlex.quote(sys.executable)} -m sqlite_log_handler {shlex.quote(str(tmp_path))}/no.db 2>&-"
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    process = subprocess.run(command, shell=True, env={**os.environ, "PYTHONPATH": package}, check=False)

    assert 2 == process.returncode


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
    handler = make_handler(capacity=20, reserve=0.5, flush_interval=3_600, flush_level=logging.CRITICAL)
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


def test_follow_goes_on_in_a_file_that_has_no_name_for_the_level(start, make_handler, path, tmp_path, monkeypatch):
    """A file in which nobody has logged with a level of the program's own yet is followed as well."""
    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName, 25: "NOTICE"})
    handler = make_handler()
    handler.handle(record("before", 25))
    handler.close()

    process = start(path, "-f", "-p", "NOTICE", "-o", "cat")
    shown = [process.stdout.readline()]
    for end in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{end}"):
            os.replace(f"{path}{end}", tmp_path / f"old.db{end}")
    handler = make_handler()
    handler.handle(record("after", logging.WARNING))
    handler.close()
    shown.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    process.wait(60)

    assert ["before\n", "after\n"] == shown


@pytest.fixture
def busy_log(path):
    """
    A log that another process is filling, until the test is over.
    """
    program = """
import itertools, logging, sys
from sqlite_log_handler import SQLiteHandler
handler = SQLiteHandler(sys.argv[1], capacity=2_000, flush_interval=0.01, close_timeout=60)
logger = logging.getLogger("busy")
logger.setLevel(1)
logger.addHandler(handler)
logger.propagate = False
logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
for number in itertools.count():
    logger.log((number % 5 + 1) * 10, "order %d", number, extra={"order": number})
    if number == 100:
        handler.flush()
        print("begun", flush=True)
"""
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": package},
    ) as process:
        try:
            assert b"begun\n" == process.stdout.readline()
            yield path
            assert None is process.poll()
        finally:
            process.kill()


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["show", "-n", "100"],
        ["show", "-r", "-n", "100"],
        ["show", "-o", "jsonl"],
        ["show", "-p", "ERROR", "-S", "-1h", "-g", "order \\d+3"],
        ["top"],
        ["top", "--by", "source"],
        ["stats"],
        ["check"],
        ["export", "--format", "csv"],
    ],
    ids=" ".join,
)
def test_every_command_works_beside_a_live_writer(run, busy_log, words):
    """Each command gives its answer on a file that another process is filling at that moment."""
    status, lines = run(*words, str(busy_log))

    assert 0 == status
    assert lines


def test_gaps_works_beside_a_live_writer(run, busy_log):
    """The ledger can be read while it is written, whether there is something in it yet or not."""
    status, lines = run("gaps", str(busy_log))

    assert (0 if lines else 1) == status


def test_what_is_read_beside_a_live_writer_has_no_hole(run, busy_log):
    """Rows that are read while others are written are all there, in order, once."""
    _, lines = run("-o", "jsonl", str(busy_log))
    ids = [json.loads(line)["id"] for line in lines]

    assert list(range(1, len(ids) + 1)) == ids


# Help -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READING)
def test_help_shows_examples(run, name):
    """The help of each command has examples, and each of them is understood."""
    _, lines = run(name, "--help")
    examples = [line.strip() for line in lines[lines.index("examples:") :] if line.startswith("  sqlite-log ")]

    assert examples
    assert max(len(line) for line in lines) <= 80
    for example in examples:
        words = join_times(argparse_words(example))
        PARSER.parse_args(words if words[0] in COMMANDS else ["show", *words])


def argparse_words(example):
    """
    Split an example as a shell does, up to a pipe or the next command.
    """
    words = shlex.split(example)[1:]
    for end in ("|", "&&"):
        if end in words:
            words = words[: words.index(end)]
    return words


def test_the_command_is_installed():
    """The package brings the command `sqlite-log`."""
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="sqlite-log")

    assert main is command.load()


def test_help_of_all(run):
    """The help names every command."""
    status, lines = run("--help")

    assert 0 == status
    assert max(len(line) for line in lines) <= 80
    assert set(COMMANDS) <= {line.split()[0] for line in lines if line.startswith("    ")}
    assert isinstance(PARSER, argparse.ArgumentParser)
