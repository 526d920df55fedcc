"""
Walking over a log, in short statements.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import logging
import shutil
import signal
import sqlite3
import threading
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from logged import BEGIN, record
from slowly import slowly

from sqlite_log_handler import FilterError, LogReader, SQLiteHandler
from sqlite_log_handler._read.budget import keeping
from sqlite_log_handler._read.rows import FITS
from sqlite_log_handler._read.scan import Scan


def test_rows_come_in_the_order_of_their_commits(log, messages):
    """Rows come by id, and not by time, which may go back."""
    log(record("first", seconds=5), record("second", seconds=1))

    assert ["first", "second"] == messages()
    assert ["second", "first"] == messages(reverse=True)


@pytest.mark.parametrize("count", [0, 1, 3, 1_000, 5_000])
def test_the_newest_rows(log, messages, count):
    """`newest` are the last so many that match, the oldest of them first, or the newest with `reverse`."""
    log(*(record(str(number), logging.INFO if number % 2 else logging.DEBUG) for number in range(3_000)))
    expected = [str(number) for number in range(3_000) if number % 2][-count:] if count else []

    assert expected == messages(newest=count, level="INFO")
    assert expected[::-1] == messages(newest=count, level="INFO", reverse=True)


def test_the_newest_rows_beside_a_program(log, reading, monkeypatch):
    """
    The newest rows are those that were the newest at one moment, so many as were asked for.

    Rows that a program committed between two looks were counted among them and then left out: none was shown.
    """
    log(*(record(str(number)) for number in range(5)))
    bounds = Scan.bounds

    def write_after(scan, where):
        found = bounds(scan, where)
        monkeypatch.setattr(Scan, "bounds", bounds)
        log(*(record("new") for _ in range(3)))
        return found

    monkeypatch.setattr(Scan, "bounds", write_after)
    assert ["3", "4"] == [row.message for row in reading().rows(newest=2)]


@pytest.mark.parametrize(
    ("newest", "told"),
    [("x", "newest='x': must be an integer, 0 or more"), (-1, "newest=-1: must be"), (2**70, "is beyond 64 bits")],
)
def test_a_number_of_rows_that_is_none(log, reading, newest, told):
    """How many rows are wanted is a number from 0 on; `newest="x"` used to be an error that blamed the file."""
    log(record())

    with pytest.raises(FilterError, match=told):
        reading().rows(newest=newest)


def test_a_log_that_has_grown(log, reading):
    """A reader that stays open has the time of a log of this size: a question had that of the log as it was opened."""
    log(record())
    reader = reading()
    before, reader._scan.budget.seconds = reader._scan.budget.seconds, 0.0  # all of it is used up
    log(*(record("-" * 60_000) for _ in range(100)))
    reader.count()

    assert before < reading()._scan.budget.seconds == reader._scan.budget.seconds


def test_a_clock_that_went_back(log, messages):
    """Filters on time are right where times do not rise with the ids."""
    log(*(record(name, seconds=second) for name, second in [("late", 100), ("early", 0), ("later", 200), ("mid", 50)]))

    assert ["early", "mid"] == messages(until=BEGIN + timedelta(seconds=60))
    assert ["late", "later"] == messages(since=BEGIN + timedelta(seconds=60))


def test_ids_far_apart(log, change, messages):
    """Between ids there may be room for billions of rows: that takes no time."""
    log(record("one"), record("two"))
    change("UPDATE records SET id = 9000000000000000000 WHERE message = 'two'")

    assert ["one", "two"] == messages()
    assert ["two", "one"] == messages(reverse=True)


def test_no_statement_is_left_open(log, reading, change):
    """A reader that has stopped in the middle holds no snapshot: the WAL can be written back whole."""
    log(*(record(str(number)) for number in range(2_000)))
    rows = reading().rows()
    next(rows)
    change("UPDATE records SET message = 'changed' WHERE id = 2000")

    with contextlib.closing(sqlite3.connect(reading().path)) as connection:
        busy, wal, moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (0, 0, 0) == (busy, wal, moved)
    assert "changed" == [row.message for row in rows][-1]


def test_the_highest_id_that_there_may_be(log, reading, change):
    """No row comes behind the highest id of 64 bits, and none of the newest 0 rows: that row came in both cases."""
    log(record("a"))
    change(f"UPDATE records SET id = {2**63 - 1}")

    assert [] == list(reading().rows(after_id=2**63 - 1))
    assert [] == list(reading().rows(newest=0))
    assert ["a"] == [row.message for row in reading().rows(newest=1)]


def test_what_is_pruned_meanwhile_is_not_returned(log, reading, change):
    """Rows that go while one reads are left out, and no other row with them."""
    log(*(record(str(number)) for number in range(2_000)))
    rows = reading().rows()
    begun = [next(rows).id]
    change("DELETE FROM records WHERE id BETWEEN 500 AND 1500")

    ids = begun + [row.id for row in rows]
    assert [*range(1, 500), *range(1501, 2001)] == ids


@pytest.fixture(scope="module")
def hundred_rows(tmp_path_factory):
    """A log to copy."""
    path = tmp_path_factory.mktemp("hundred") / "app-log.db"
    handler = SQLiteHandler(path, close_timeout=60)
    for number in range(100):
        handler.handle(record(str(number)))
    handler.close()
    return path


@pytest.mark.parametrize("statement", range(12))
@pytest.mark.parametrize(
    "question",
    [
        lambda reader: list(reader.rows()),
        lambda reader: reader.top("source"),
        lambda reader: reader.stats(),
        *slowly(lambda reader: list(reader.rows(newest=2, reverse=True)), lambda reader: reader.histogram()),
    ],
    ids=["rows", "top", "stats", "newest", "histogram"],
)
def test_everything_is_pruned_meanwhile(hundred_rows, path, change, question, statement):
    """Whenever the last row goes, between any two statements, what is asked has an answer and no error."""
    shutil.copy(hundred_rows, path)

    with LogReader(path) as reader:
        run, left = reader._scan.all, iter(range(statement, -1, -1))

        def all_rows(sql, parameters=(), each=tuple):
            if next(left, None) == 0:
                change("DELETE FROM records")
            return run(sql, parameters, each)

        reader._scan.all = all_rows  # type: ignore[method-assign]
        question(reader)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_raised_inside_of_a_query_comes_out_of_it(log, reading, monkeypatch, error):
    """Ctrl-C while SQLite has the word ends a search as it ends everything else, and is no error of the file."""

    def search(expression, ignore_case, text):
        raise error

    log(record())
    monkeypatch.setattr("sqlite_log_handler._read.search.search", search)

    with pytest.raises(error):
        list(reading().rows(pattern="hel+o"))


def test_a_question_leaves_nothing_to_collect(log, reading):
    """What a question has opened is closed with it, and waits for no garbage collector."""
    log(record())
    reader = reading()
    reader.count(pattern="hel+o")
    gc.collect()
    reader.count(pattern="hel+o")

    assert 0 == gc.collect()


@pytest.mark.parametrize("question", [list, LogReader.check], ids=["rows", "check"])
def test_ctrl_c_in_a_long_query(log, path, monkeypatch, question):
    """Ctrl-C while SQLite works on something long is not taken for the end of the budget."""

    def interrupted(budget, _):
        raise KeyboardInterrupt

    log(record())

    with LogReader(path) as reader:
        monkeypatch.setattr("sqlite_log_handler._read.budget.Budget._tick", interrupted)
        monkeypatch.setattr("sqlite_log_handler._read.budget._USUAL_STEPS", 1)
        monkeypatch.setattr("sqlite_log_handler._read.budget._LARGE_STEPS", 1)
        with pytest.raises(KeyboardInterrupt):
            question(reader)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OverflowError, "late"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT log_call(struck) FROM (SELECT strike(2) AS struck)",
        "SELECT sum(strike(two)) FROM (SELECT 2 AS two UNION ALL SELECT 2)",
    ],
    ids=["call", "tick"],
)
def test_a_signal_where_sqlite_calls_python(log, path, monkeypatch, sql, error):
    """
    What a signal handler raises as a function begins that SQLite calls comes out of the statement unchanged.

    A function has no `try` there yet, and `sqlite3` drops what it raises: after Ctrl-C a search went on and found
    nothing, and the time limit of a job became a KeyboardInterrupt.
    """

    class JobTimeoutError(Exception):
        pass

    def handle(*_):
        raise kind

    kind: Any = JobTimeoutError if error == "late" else error
    log(record())
    monkeypatch.setattr("sqlite_log_handler._read.budget._LARGE_STEPS", 1 if "sum" in sql else 1_000)
    before = signal.signal(signal.SIGINT, handle)
    try:
        with LogReader(path) as reader:
            # As a signal at this moment: the next function in Python runs the handler.
            reader._scan.require_open().create_function("strike", 1, _thread.interrupt_main)
            with pytest.raises(kind) as found:
                reader._scan.all(sql, (repr,) if "log_call" in sql else ())
            assert isinstance(found.value.__cause__, sqlite3.Error | MemoryError)
            assert [("2",)] == reader._scan.all("SELECT log_call(2)", (repr,))  # the reader is as good as new
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_question_gives_sqlite_its_functions_once(log, path, monkeypatch):
    """A question of many statements registers its functions once: it took a quarter longer to do so for each batch."""
    registered = []

    def counted(function, raised):
        registered.append(function)
        return keeping(function, raised)

    log(*map(record, ["hello"] * 300))
    with LogReader(path) as reader:
        reader.count()
        for module in ("scan", "budget"):
            monkeypatch.setattr(f"sqlite_log_handler._read.{module}.keeping", counted)

        assert (300, 2) == (len([*reader.rows(pattern="hel+o")]), len(registered))  # message and traceback


@pytest.mark.parametrize("nested", [LogReader.count, LogReader.last_id, lambda reader: list(reader.rows(text="ß"))])
def test_a_question_in_the_middle_of_another(log, path, nested):
    """
    A reader that is asked in the middle of a question, as by a signal handler, refuses the second one.

    That took away the functions and the bounds of the first one, which found wrong rows, or ended the process.
    """
    errors = []

    def match(_text):
        with pytest.raises(ValueError, match="is being asked") as found:
            nested(reader)
        errors.append(found)
        return True

    log(record(), record())
    with LogReader(path) as reader:
        sql = "SELECT count(*) FROM records WHERE log_call(message)"
        assert 2 == reader._scan.one(sql, (match,))
        assert 2 == reader.count()
    assert 2 == len(errors)


@pytest.mark.parametrize("first", [False, True])
def test_closed_in_the_middle_of_a_statement(log, path, monkeypatch, first):
    """
    A reader that a signal handler closes in the middle of a statement is closed at its end; the process crashed.

    With `first`, the statement is one of those that look at the tables before the first question.
    """

    def close(*_):
        reader.close()
        return True

    log(record(), record())
    reader = LogReader(path)
    connection = reader._scan.require_open()
    if first:
        monkeypatch.setattr("sqlite_log_handler._read.scan.require_log", close)
        with pytest.raises(ValueError, match="is closed"):
            reader.count()
    else:
        assert 2 == reader._scan.one("SELECT count(*) FROM records WHERE log_call(message)", (close,))
    with pytest.raises(ValueError, match="is closed"):
        reader.count()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


@pytest.mark.parametrize("number", range(5))
def test_closed_just_before_a_statement(log, path, monkeypatch, number):
    """
    Before whichever statement of a question a signal handler closes the reader, it is a ValueError.

    It was an error of `sqlite3` before those that compare the tables.
    """
    require_idle, statements = Scan._require_idle, count()

    def close_and_look(scan):
        if next(statements) == number:
            reader.close()
        require_idle(scan)

    log(record())
    with LogReader(path) as reader:
        monkeypatch.setattr(Scan, "_require_idle", close_and_look)
        with pytest.raises(ValueError, match="is closed"):
            reader.count()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_ctrl_c_in_a_regular_expression_without_end(log, reading):
    """An expression that would take hours on one row is ended by a signal at once, in the middle of that row."""

    def interrupted(*_):
        raise KeyboardInterrupt

    log(record("a" * 60 + "!"))
    before = signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(reading().rows(pattern="(a+)+$"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_close_waits_for_the_statement_of_another_thread(log, path):
    """
    A thread follows a log, and another one closes the reader: it waits for the end of the statement that runs.

    The process crashed, because `sqlite3` closes a connection in the middle of a statement.
    """

    def is_waiting(_row):
        closer.start()
        closer.join(0.05)
        return closer.is_alive()

    log(record())
    with LogReader(path) as reader:
        closer = threading.Thread(target=reader.close)
        assert [True] == reader._scan.all("SELECT 1", each=is_waiting)
        closer.join()
        with pytest.raises(ValueError, match="is closed"):
            reader.count()


@pytest.mark.parametrize("ask", [LogReader.count, lambda reader: reader._scan.one("SELECT 1")], ids=["renew", "run"])
def test_a_reader_that_another_thread_closes_before_a_statement(log, path, monkeypatch, ask):
    """Whenever another thread closes a reader, it is a ValueError, and no error of `sqlite3`."""

    def in_use():
        monkeypatch.undo()
        reader.close()
        return connection.in_use()

    log(record())
    with LogReader(path) as reader:
        connection = reader._scan.require_open()
        monkeypatch.setattr(connection, "in_use", in_use)
        with pytest.raises(ValueError, match="is closed"):
            ask(reader)


@pytest.mark.parametrize(("size", "twice"), [(1_000, False), (10_000, False), (100_000, True)])
def test_only_a_large_row_is_looked_at_twice(reading, make_handler, size, twice):
    """
    The texts of a row are added up only where they may be large together: for rows of 10 kB that costs a fifth.
    """
    handler = make_handler(max_record_bytes=200_000)
    handler.handle(record("x" * size))
    handler.close()
    reader, statements = reading(), []
    reader._scan.require_open().set_trace_callback(statements.append)

    assert [size] == [len(row.message) for row in reader]
    assert twice == any(FITS in sql for sql in statements)
