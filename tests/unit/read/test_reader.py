"""
Reading a log back: rows, filters, following, numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sqlite_log_handler
from sqlite_log_handler import (
    BusyFileError,
    CorruptFileError,
    EmptyFileError,
    FilterError,
    ForeignFileError,
    LimitError,
    LogReader,
    MissingFileError,
    NewerSchemaError,
    Row,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.schema import LOG_COLUMNS
from sqlite_log_handler._logfile.times import microseconds
from sqlite_log_handler._read import filters as filters_module
from sqlite_log_handler._read import opening as opening_module

BEGIN = datetime(2025, 6, 30, 12, tzinfo=UTC)


def record(message="hello", level=logging.INFO, name="shop", *, seconds=0.0, **attributes):
    """
    Make a record as if it had been logged `seconds` after BEGIN.
    """
    made = logging.LogRecord(name, level, "/srv/shop/app.py", 7, message, (), None, func="work")
    made.created = (BEGIN + timedelta(seconds=seconds)).timestamp()
    made.msecs = made.created * 1000 // 1 % 1000
    vars(made).update(attributes)
    return made


@pytest.fixture
def log(make_handler):
    """
    Put records into the log at `path`, at once.
    """

    def log(*records):
        handler = make_handler()
        for one in records:
            handler.handle(one)
        assert handler.flush()
        handler.close()

    return log


@pytest.fixture
def change(path):
    """
    Change a file behind everybody's back.
    """

    def change(script, *parameters):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            if parameters:
                connection.execute(script, parameters)
            else:
                connection.executescript(script)

    return change


@pytest.fixture
def reading(path):
    """
    Open the log at `path` for reading.
    """
    with contextlib.ExitStack() as stack:
        yield lambda file=path: stack.enter_context(LogReader(file))


@pytest.fixture
def messages(reading):
    """
    Return the messages that match some filters.
    """
    return lambda **filters: [row.message for row in reading().rows(**filters)]


def test_a_reader_says_what_it_reads(log, path):
    """What is printed of a reader says which file it reads, and whether it still does."""
    log(record())

    with LogReader(path) as reader:
        assert f"<LogReader {path}>" == repr(reader)
    assert f"<LogReader {path} (closed)>" == repr(reader)


QUESTIONS = ["last_id", "rows", "json_lines", "top", "gaps", "stats", "histogram", "books", "check", "follow"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_closed_reader(log, path, question):
    """
    A reader that was closed says so in a ValueError, as a closed file does, and may be closed again.

    It used to raise what SQLite says of a closed database, and `check` an AttributeError.
    """
    log(record())
    reader = LogReader(path)
    reader.close()
    reader.close()

    with pytest.raises(ValueError, match=r"the reader of .* is closed: make a new LogReader"):
        list(getattr(reader, question)())


def test_a_reader_is_closed_under_way(log, path):
    """Rows that were begun end with the same error, and so does following, also where a new file stands already."""
    log(record())
    reader = LogReader(path)
    rows = iter(reader)
    old = path.rename(path.with_suffix(".old"))

    def close(_):
        reader.close()
        shutil.copy(old, path)

    followed = reader.follow(wait=close)

    with pytest.raises(ValueError, match="is closed"):
        next(followed)
    with pytest.raises(ValueError, match="is closed"):
        next(rows)


# Rows -----------------------------------------------------------------------------------------------------------------


def test_rows_have_the_names_of_the_view(log, reading, query):
    """A row has the columns of the view `logs`, by name, in its order, with its values."""
    log(record("one", seconds=1, size=3), record("two", logging.ERROR, exc_text="Traceback: no", stack_info="Stack"))

    assert tuple(LOG_COLUMNS) == Row._fields
    assert query("SELECT * FROM logs ORDER BY id") == [tuple(row) for row in reading()]


def test_rows_cannot_be_changed(log, reading):
    """A row is frozen."""
    log(record())
    (row,) = reading()

    with pytest.raises(AttributeError):
        row.message = "other"


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


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"level": "WARNING"}, "bdg"),
    ({"level": "INFO..WARNING"}, "abefh"),
    ({"logger": "shop"}, "abce"),
    ({"logger": "shop.db"}, "bc"),
    ({"logger": ["shop.db", "root"]}, "bcd"),
    ({"exclude": "shop"}, "dfgh"),
    ({"logger": "shop", "exclude": ["shop.db"]}, "ae"),
    ({"logger": "sho"}, ""),
    ({"text": "TIMED"}, "b"),
    ({"text": "timed"}, "ab"),
    ({"text": "50%_"}, "e"),
    ({"text": "keyerror"}, "d"),
    ({"text": "größe"}, "f"),
    ({"pattern": "timed? out"}, "ab"),
    ({"pattern": r"T\w+D OUT"}, "b"),
    ({"pattern": "^gr..e$"}, "f"),
    ({"pattern": "keyerror: 'x"}, "d"),
    ({"pattern": "(stock|timed) out"}, "ab"),
    ({"process": 99_999_999}, "e"),
    ({"thread": "worker_1"}, "c"),
    ({"thread": 99}, "e"),
    ({"thread": "99"}, "e"),
    ({"thread": "9" * 20}, ""),
    ({"thread": "9" * 5_000}, ""),
    ({"task": "Task-7"}, "h"),
    ({"exception": "KeyError"}, "d"),
    ({"exception": "JSONDecodeError"}, "g"),
    ({"exception": "json.decoder.JSONDecodeError"}, "g"),
    ({"exception": "DecodeError"}, ""),
    ({"exception": "jsondecodeerror"}, ""),
    ({"attributes": {"order": 7}}, "ac"),
    ({"attributes": {"order": "7"}}, "ac"),
    ({"attributes": {"order": 7.0}}, "a"),
    ({"attributes": {"ok": True}}, "a"),
    ({"attributes": {"ok": "true"}}, "a"),
    ({"attributes": {"ok": None}}, "e"),
    ({"attributes": {'we"ird] key': "x"}}, "h"),
    ({"attributes": {"order": 7, "ok": True}}, "a"),
    ({"attributes": {"big": 2**60 + 1}}, "h"),
    ({"attributes": {"trace": 2**64 - 1}}, "h"),
    ({"attributes": {"trace": str(2**64 - 1)}}, "h"),
    ({"attributes": {"trace": 2**64 - 2}}, ""),
    ({"attributes": {"trace": (2**64 - 1) // 10}}, ""),
    ({"attributes": {"missing": "x"}}, ""),
    ({"since": BEGIN + timedelta(seconds=6)}, "gh"),
    ({"until": BEGIN + timedelta(seconds=1)}, "ab"),
    ({"since": "2025-06-30T12:00:02Z", "until": "2025-06-30T12:00:03Z"}, "cd"),
    ({"after_id": 6}, "gh"),
    ({"after_id": 2, "up_to_id": 4}, "cd"),
    ({"run": 0}, "abcdfgh"),
    ({"level": "WARNING", "logger": "shop", "text": "timed"}, "b"),
]


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """
    A log of eight rows, a to h, that differ in everything that can be filtered by.
    """

    def error(make):
        try:
            make()
        except Exception:  # noqa: BLE001
            return sys.exc_info()

    path = tmp_path_factory.mktemp("varied") / "app-log.db"
    handler = sqlite_log_handler.SQLiteHandler(path, close_timeout=60)
    for one in [
        record("request timed out", order=7, ok=True),
        record("TIMED OUT", logging.WARNING, "shop.db.pool", seconds=1),
        record("c", logging.DEBUG, "shop.db", seconds=2, threadName="worker_1", order="7"),
        record("d", logging.ERROR, "root", seconds=3, exc_info=error(lambda: dict[str, int]()["x"])),
        record("50%_ done", seconds=4, process=99_999_999, thread=99, ok=None, order=70),
        record("Größe", name="shopping", seconds=5),
        record("g", logging.CRITICAL, "jobs", seconds=6, exc_info=error(lambda: json.loads("{"))),
        record(
            "h", name="jobs", seconds=7, taskName="Task-7", **{'we"ird] key': "x", "big": 2**60 + 1, "trace": 2**64 - 1}
        ),
    ]:
        handler.handle(one)
    handler.close()
    if sys.version_info < (3, 12):
        # Of records as old as that, taskName is an attribute.
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE records SET task_name = 'Task-7' WHERE message = 'h'")
    return path


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=[str(filters) for filters, _ in FILTERS])
def test_filters(varied, filters, expected):
    """Each filter returns the rows that it says and no others, as rows, as JSON, forwards, backwards and counted."""
    with LogReader(varied) as reader:
        ids = [row.id for row in reader.rows(**filters)]

        assert expected == "".join("abcdefgh"[id_ - 1] for id_ in ids)
        assert ids == [row.id for row in reader.rows(**filters, reverse=True)][::-1]
        assert ids == [json.loads(line)["id"] for line in reader.json_lines(**filters)]
        assert ids[-2:] == [row.id for row in reader.rows(**filters, newest=2)]
        assert len(ids) == sum(talker.records for talker in reader.top("source", **filters))
        assert len(ids) == sum(bucket.records for bucket in reader.histogram("1s", **filters))


def test_a_run_is_one_whatever_its_process_is_called(make_handler, messages):
    """A process that is given another name under way is the same start of the program."""
    handler = make_handler()
    for message, name in (("starting", "MainProcess"), ("serving", "server")):
        handler.handle(record(message, process=os.getpid(), processName=name))
    handler.close()

    assert ["starting", "serving"] == messages(run=0) == messages(run=1)
    with pytest.raises(FilterError, match="there is no run -1: the log has 1;"):
        messages(run=-1)


def test_a_date_is_its_midnight(log, messages):
    """A date is the midnight at which it begins here, as a datetime without a zone is a local time."""
    midnight = datetime(2025, 7, 1).astimezone()
    log(*(record(str(second), seconds=(midnight - BEGIN).total_seconds() + second) for second in (-1, 0, 1)))

    assert ["0", "1"] == messages(since=date(2025, 7, 1))
    assert ["-1", "0"] == messages(until=date(2025, 7, 1))


@pytest.mark.parametrize("name", ["text", "pattern"])
def test_a_very_long_text(log, messages, name):
    """A text that is longer than SQLite takes for LIKE is looked for as any other."""
    long = "ab" * 30_000
    log(record(long.upper()), record("other"))

    assert [long.upper()] == messages(**{name: long})


@pytest.mark.parametrize(
    ("newest", "told"),
    [("x", "newest='x': must be an integer, 0 or more"), (-1, "newest=-1: must be"), (2**70, "is beyond 64 bits")],
)
def test_a_number_of_rows_that_is_none(log, reading, newest, told):
    """How many rows are wanted is a number from 0 on; `newest="x"` used to be an error that blamed the file."""
    log(record())

    with pytest.raises(FilterError, match=told):
        reading().rows(newest=newest)


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


def test_what_is_pruned_meanwhile_is_not_returned(log, reading, change):
    """Rows that go while one reads are left out, and no other row with them."""
    log(*(record(str(number)) for number in range(2_000)))
    rows = reading().rows()
    begun = [next(rows).id]
    change("DELETE FROM records WHERE id BETWEEN 500 AND 1500")

    ids = begun + [row.id for row in rows]
    assert [*range(1, 500), *range(1501, 2001)] == ids


@pytest.mark.parametrize("statement", range(12))
@pytest.mark.parametrize(
    "question",
    [
        lambda reader: list(reader.rows()),
        lambda reader: list(reader.rows(newest=2, reverse=True)),
        lambda reader: reader.top("source"),
        lambda reader: reader.histogram(),
        lambda reader: reader.stats(),
    ],
    ids=["rows", "newest", "top", "histogram", "stats"],
)
def test_everything_is_pruned_meanwhile(log, path, change, question, statement):
    """Whenever the last row goes, between any two statements, what is asked has an answer and no error."""
    log(*(record(str(number)) for number in range(100)))

    with LogReader(path) as reader:
        run, left = reader._scan.all, iter(range(statement, -1, -1))

        def all_rows(sql, parameters=()):
            if next(left, None) == 0:
                change("DELETE FROM records")
            return run(sql, parameters)

        reader._scan.all = all_rows  # type: ignore[method-assign]
        question(reader)


# JSON and records -----------------------------------------------------------------------------------------------------


SCALARS = st.none() | st.text() | st.integers() | st.floats()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(), st.dictionaries(st.text(min_size=1), st.none() | st.text() | st.integers() | st.floats()))
    )
)
def test_json_lines_are_what_the_row_is(tmp_path_factory, contents):
    """What SQLite makes of a row is the JSON that Python makes of it, whatever was logged."""
    path = tmp_path_factory.mktemp("json") / "app-log.db"
    handler = sqlite_log_handler.SQLiteHandler(path, close_timeout=60)
    handler.handle(record("first"))
    for message, extra in contents:
        one = record(message)
        vars(one).update({f"x{key}": value for key, value in extra.items()})
        handler.handle(one)
    handler.close()

    with LogReader(path) as reader:
        rows, lines = list(reader), list(reader.json_lines())
    assert [json.loads(row.to_json()) for row in rows] == [json.loads(line) for line in lines]
    assert [row.extra for row in rows] == [json.loads(line)["attributes"] or {} for line in lines]
    assert all("\n" not in line for line in lines)


def test_numbers_in_attributes_stay_as_they_are(log, reading):
    """Integers beyond 2**53 and long fractions are the same digits in JSON as in the program."""
    log(record(big=2**60 + 1, small=0.1, exact=12345678901234567.0))

    (line,) = reading().json_lines()
    assert {"big": 2**60 + 1, "small": 0.1, "exact": 12345678901234567.0} == json.loads(line)["attributes"]
    assert "1152921504606846977" in line


@pytest.mark.parametrize("attributes", ["no JSON", "{", "NaN", '{"a": NaN}', "[" * 5_000])
def test_attributes_that_are_no_json(log, reading, change, attributes):
    """In a file from elsewhere, attributes that are no JSON are a text in JSON, and no attributes of the row."""
    log(record())
    change("UPDATE records SET attributes = ?", attributes)

    (row,) = reading()
    (line,) = reading().json_lines()
    assert attributes == json.loads(line)["attributes"] == json.loads(row.to_json())["attributes"]
    assert {} == row.extra or "NaN" in attributes
    assert [] == list(reading().rows(attributes={"a": 1}))


def test_a_row_becomes_a_record_again(log, reading):
    """A record that is made of a row has what the first one had, so a formatter prints the same."""
    try:
        dict[str, int]()["price"]
    except KeyError:
        first = record(
            "no %s", logging.ERROR, "shop.orders", exc_info=sys.exc_info(), order=7, stack_info="Stack: here"
        )
    first.msg, first.args = "no %s at 100%%", ("price",)
    pattern = (
        "%(asctime)s %(created).6f %(msecs)03.0f %(name)s %(levelno)d %(levelname)s %(pathname)s %(filename)s "
        "%(module)s %(lineno)d %(funcName)s %(process)d %(processName)s %(thread)d %(threadName)s %(message)s %(order)d"
    )
    expected = logging.Formatter(pattern).format(first)
    log(first)

    (row,) = reading()
    assert expected == logging.Formatter(pattern).format(row.to_record())
    now = logging.makeLogRecord({})
    relative = now.relativeCreated - (now.created - first.created) * 1000
    assert pytest.approx(relative, abs=60_000) == row.to_record().relativeCreated


def test_a_log_is_replayed_through_another_handler(log, reading, make_handler, tmp_path):
    """Rows can be sent through any handler, this one included: what arrives is what was there."""
    log(record("one", size=3), record("two", logging.ERROR, exc_text="Traceback: no", seconds=1.25))
    stream = io.StringIO()
    text, copy = logging.StreamHandler(stream), make_handler(tmp_path / "copy.db")

    for row in reading():
        text.handle(row.to_record())
        copy.handle(row.to_record())
    copy.close()

    assert "one\ntwo\nTraceback: no\n" == stream.getvalue()
    assert [row._replace(id=0) for row in reading()] == [row._replace(id=0) for row in reading(tmp_path / "copy.db")]


def test_attributes_do_not_hide_what_a_record_has(log, reading, change):
    """In a file from elsewhere, an attribute named `exc_info` or `getMessage` does not spoil the record."""
    log(record("hello"))
    change("""UPDATE records SET attributes = '{"name": 1, "args": [1], "exc_info": 1, "getMessage": 1, "size": 1}'""")

    (row,) = reading()
    made = row.to_record()
    assert ("shop", "hello", None, 1) == (made.name, made.getMessage(), made.exc_info, made.size)


# Following ------------------------------------------------------------------------------------------------------------


class Script:
    """
    What happens between two looks at a log: one step each, and then the end.
    """

    def __init__(self, *steps):
        self.steps = list(steps)

    def __call__(self, seconds):
        if not self.steps:
            return True
        self.steps.pop(0)()
        return False


def test_follow_begins_behind_the_last_row(log, reading):
    """Following returns what is committed from now on, in order, in whatever portions it comes."""
    log(record("before"))
    steps = Script(lambda: log(record("one"), record("two")), lambda: None, lambda: log(record("three")))

    assert ["one", "two", "three"] == [row.message for row in reading().follow(wait=steps)]


def test_follow_goes_on_behind_an_id(log, reading):
    """With `after_id`, following begins with what is there behind it."""
    log(record("one"), record("two"))

    assert ["two"] == [row.message for row in reading().follow(after_id=1, wait=Script())]


def test_follow_has_filters(log, reading):
    """What is followed can be filtered as everything else."""
    log(record("before"))
    steps = Script(lambda: log(record("one"), record("two", logging.ERROR)), lambda: log(record("three")))

    assert ["two"] == [row.message for row in reading().follow(level="ERROR", wait=steps)]


@pytest.mark.parametrize("filters", [{"after_id": "x"}, {"text": 5}], ids=str)
def test_follow_refuses_filters_at_once(log, reading, filters):
    """Whoever follows a quiet log learns at once, and not with the next row, that a filter is of a wrong kind."""
    log(record())

    with pytest.raises(FilterError, match="must be"):
        reading().follow(**filters)


def test_additions_refuse_what_is_no_id(log, reading):
    """The id behind which additions begin is an integer."""
    log(record())

    with pytest.raises(FilterError, match="after_id='x': must be an integer"):
        next(reading().additions("x"))


def test_follow_survives_pruning(log, reading, change):
    """When everything that was read is deleted, following goes on: ids are never given twice."""
    log(record("before"))
    steps = Script(
        lambda: log(record("one")), lambda: change("DELETE FROM records"), lambda: log(record("two"), record("three"))
    )

    assert ["one", "two", "three"] == [row.message for row in reading().follow(wait=steps)]


def test_follow_survives_a_replaced_file(log, reading, path):
    """When the file is moved away, its last rows are read, and then the file that comes in its place from its start."""

    def replaced():
        log(record("last"))
        for end in ("", "-wal", "-shm"):
            if os.path.exists(f"{path}{end}"):
                os.replace(f"{path}{end}", f"{path}.1{end}")

    log(record("before"))
    steps = Script(replaced, lambda: None, path.touch, lambda: log(record("new")), lambda: log(record("more")))

    assert ["last", "new", "more"] == [row.message for row in reading().follow(wait=steps)]


def test_follow_knows_a_level_in_a_replaced_file(log, reading, path, monkeypatch):
    """
    A level of the program's own is known by its name in the file that comes in place of the one that is followed.

    Until somebody logs with it, it has no name in there, and following once ended with an error.
    """
    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName, 25: "NOTICE"})

    def replaced():
        os.replace(path, f"{path}.1")
        log(record("info"), record("warning", logging.WARNING))

    log(record("before", 25))
    steps = Script(replaced, lambda: None, lambda: log(record("notice", 25)))

    assert ["warning", "notice"] == [row.message for row in reading().follow(level="NOTICE", wait=steps)]


def test_follow_without_the_right_to_make_a_shm(log, reading, make_handler, path, monkeypatch):
    """
    Who may not write beside a log that no program has open sees what is written once a program has.

    The file was read as one that nobody writes to, for as long as it was followed.
    """
    connect = opening_module._connect

    def refused(path, timeout, *, immutable=False):
        if not immutable and not os.path.exists(f"{path}-wal"):
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return connect(path, timeout, immutable=immutable)

    monkeypatch.setattr(opening_module, "_connect", refused)
    log(record("before"))
    following = reading()

    def write(message):
        handler = make_handler()
        handler.handle(record(message))
        assert handler.flush()

    steps = Script(lambda: log(record("one")), lambda: write("two"), lambda: write("three"))
    assert ["one", "two", "three"] == [row.message for row in following.follow(wait=steps)]


def test_follow_without_the_right_to_read_the_wal(log, reading, make_handler, path, monkeypatch):
    """
    While a program has a log open whose -wal may not be read, the file is not read anew: in the middle of a checkpoint
    it looked damaged, which ended the following.
    """
    connect = opening_module._connect

    def refused(path, timeout, *, immutable=False):
        if not immutable:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return connect(path, timeout, immutable=immutable)

    log(record("before"))
    handler = make_handler()
    monkeypatch.setattr(opening_module, "_connect", refused)
    following, shown, early = reading(), [], []

    def write():
        handler.handle(record("one"))
        assert handler.flush()

    def checkpoint():
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    for row in following.follow(wait=Script(write, checkpoint, lambda: early.extend(shown), handler.close)):
        shown.append(row.message)  # noqa: PERF401 - it is looked at meanwhile

    assert ([], ["one"]) == (early, shown)


def test_follow_counts_time_from_where_it_begins(log, reading, monkeypatch):
    """A time of today is one of the day on which following begins; once, nothing came from midnight until noon."""
    noon = datetime(2025, 6, 30, 12)
    times = iter([noon, *[noon + timedelta(hours=13)] * 9])
    monkeypatch.setattr(filters_module, "_local_now", lambda: next(times))
    seconds = noon.timestamp() - BEGIN.timestamp()
    log(record("before"))
    steps = Script(*(lambda at=at: log(record(f"{at} h later", seconds=seconds + at * 3600)) for at in (1, 13)))

    assert ["1 h later", "13 h later"] == [row.message for row in reading().follow(since="12:00", wait=steps)]


def test_follow_ends_nowhere_but_at_an_id_that_was_given(log, reading):
    """With `up_to_id`, no row behind it is returned, however long one follows."""
    log(record("before"))
    steps = Script(lambda: log(record("one"), record("two")), lambda: log(record("three")))

    assert ["one"] == [row.message for row in reading().follow(up_to_id=2, wait=steps)]


def test_follow_refuses_what_is_no_log(log, reading, path):
    """When something else comes in the place of the log, following ends with an error, and not in silence."""

    def replaced():
        os.replace(path, f"{path}.1")
        path.write_bytes(b"something else" * 100)

    log(record("before"))

    with pytest.raises(ForeignFileError, match="is not an SQLite database"):
        list(reading().follow(wait=Script(replaced)))


def test_follow_ends_when_an_event_is_set(log, reading):
    """`wait` may be that of a `threading.Event`: once it is set, following ends."""
    log(record("before"))
    event = threading.Event()
    event.set()

    assert [] == list(reading().follow(wait=event.wait))


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def overflowed(make_handler, path):
    """
    A log with a gap: 10 of 25 DEBUG records are kept and the ERROR record, 15 are dropped.
    """
    handler = make_handler(capacity=20, reserve=0.5, flush_interval=3_600, flush_level=logging.CRITICAL)
    for number in range(25):
        handler.handle(record(f"burst {number}", logging.DEBUG, "shop.cache", seconds=number / 10))
    handler.handle(record("kept", logging.ERROR, seconds=3))
    handler.close()
    return path


def test_gaps(overflowed, reading):
    """A gap says behind which row it is, since when and until when, why, whose and how many."""
    (gap,) = reading().gaps()

    assert (11, "queue_full", "shop.cache", "DEBUG", 15, os.getpid()) == (
        gap.after_id, gap.cause, gap.logger, gap.level, gap.count, gap.process,
    )  # fmt: skip
    assert [microseconds(BEGIN) + 1_000_000, microseconds(BEGIN) + 2_400_000] == [gap.since_us, gap.until_us]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"level": "DEBUG"}, 1),
        ({"level": "ERROR"}, 0),
        ({"logger": "shop"}, 1),
        ({"logger": "jobs"}, 0),
        ({"exclude": "shop.cache"}, 0),
        ({"since": BEGIN + timedelta(seconds=2)}, 1),
        ({"since": BEGIN + timedelta(seconds=3)}, 0),
        ({"until": BEGIN}, 0),
        ({"process": 99_999_999}, 0),
        ({"run": 0}, 1),
        ({"after_id": 12}, 0),
        ({"after_id": 11}, 1),
        ({"text": "whatever"}, 1),
    ],
)
def test_gaps_are_filtered_as_far_as_can_be(overflowed, reading, filters, expected):
    """A gap is left out when no record in it can match; what cannot be known of a dropped record lets it pass."""
    assert expected == len(reading().gaps(**filters))


PRUNES = """
CREATE TABLE IF NOT EXISTS prunes (
    id INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL, since_us INTEGER NOT NULL,
    until_us INTEGER NOT NULL, cause TEXT NOT NULL, count INTEGER NOT NULL, unsent INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT PRIMARY KEY, after_id INTEGER NOT NULL, updated_us INTEGER NOT NULL
) WITHOUT ROWID;
"""


def test_what_was_pruned_before_it_was_forwarded_is_a_gap(log, reading, change):
    """Rows that retention deleted before anybody had taken them elsewhere stand among the gaps; others do not."""
    log(record("one"), record("two"), record("three"))
    change(PRUNES)
    change("INSERT INTO prunes VALUES (1, 1, 1, 100, 200, 'max_age', 1, 0), (2, 2, 2, 300, 400, 'max_rows', 1, 1)")
    change("DELETE FROM records WHERE id < 3")

    (gap,) = reading().gaps()
    assert (2, 300, 400, "max_rows (not forwarded)", "", "", 1, None) == (
        gap.after_id, gap.since_us, gap.until_us, gap.cause, gap.logger, gap.level, gap.count, gap.process,
    )  # fmt: skip
    assert [gap] == reading().gaps(logger="whatever")
    assert [] == reading().gaps(since=BEGIN)
    assert (2, 1) == (reading().stats().pruned, reading().stats().unsent)


def test_cursors_say_how_far_behind_they_are(log, reading, change):
    """The statistics have each cursor with the rows behind it, and the age of the first of them."""
    log(record("one"), record("two"), record("three"))
    change(PRUNES)
    change("INSERT INTO cursors VALUES ('to loki', 1, 5), ('done', 3, 6)")

    done, behind = reading().stats().cursors
    assert ("done", 3, 6, 0, 0.0) == (done.name, done.after_id, done.updated_us, done.lag_rows, done.lag_seconds)
    assert ("to loki", 1, 2) == (behind.name, behind.after_id, behind.lag_rows)
    assert behind.lag_seconds > 86_400


def test_a_file_from_before_there_were_prunes_and_cursors(log, reading, change):
    """A file without these tables has no such gaps and no cursors, and no error."""
    log(record("one"))
    change("DROP TABLE IF EXISTS prunes; DROP TABLE IF EXISTS cursors;")

    assert ([], (), 0) == (reading().gaps(), reading().stats().cursors, reading().books().pruned)


def test_top_by_logger_comes_from_the_volume(overflowed, reading, change):
    """By logger and by level, what was pruned since still counts, and so do drops."""
    change("DELETE FROM records")

    loudest = reading().top()[0]
    assert ("shop.cache", 10, 15) == (loudest.name, loudest.records, loudest.dropped)
    assert (25 / 27, 1.0) == (loudest.share, loudest.dropped_share)
    assert ["DEBUG", "ERROR", "WARNING"] == [talker.name for talker in reading().top("level")]
    found = reading().top(level="..DEBUG", logger="shop", exclude="x")
    assert [("shop.cache", 10)] == [(talker.name, talker.records) for talker in found]


def test_top_of_a_time_is_counted_from_the_rows(overflowed, reading):
    """Bounds of time that are no full hours are kept to the microsecond, for rows and for drops."""
    since, until = BEGIN + timedelta(seconds=0.5), BEGIN + timedelta(seconds=3)
    (loudest,) = reading().top(logger="shop.cache", since=since, until=until)

    assert (5, 15, 1.0) == (loudest.records, loudest.dropped, loudest.share)


def test_full_hours_are_answered_from_the_volume(log, reading, change):
    """Bounds of time that are full hours leave the other hours out."""
    log(record("one"), record("two", seconds=3600), record("three", seconds=7200))
    change("DELETE FROM records")

    (talker,) = reading().top(since=BEGIN + timedelta(hours=1), until=BEGIN + timedelta(hours=2))
    assert 1 == talker.records


def test_top_has_the_same_numbers_from_the_volume_and_from_the_rows(overflowed, reading):
    """Volume and rows agree on records, bytes and drops as long as nothing was pruned."""

    def numbers(talkers):
        return [(talker.name, talker.records, talker.bytes, talker.dropped) for talker in talkers]

    assert numbers(reading().top()) == numbers(reading().top(since=BEGIN - timedelta(seconds=1)))


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("source", ["shop /srv/shop/app.py:7 work", "jobs /srv/shop/app.py:7 work"]),
        ("exception", ["KeyError"]),
        ("thread", ["MainThread", "17"]),
        ("process", [f"{os.getpid()} MainProcess"]),
    ],
)
def test_top_by_other_things(log, reading, by, expected):
    """Call sites, exceptions, threads and processes are counted as well; where the ledger knows nothing, so it says."""
    try:
        dict[str, int]()["x"]
    except KeyError:
        log(record("a"), record("b", exc_info=sys.exc_info()), record("c", name="jobs", threadName=None, thread=17))

    talkers = reading().top(by)
    assert expected == [talker.name[: len(name)] for talker, name in zip(talkers, expected, strict=True)]
    assert by == "process" or {None} == {talker.dropped for talker in talkers}


def test_top_by_nothing_known(log, reading):
    """What cannot be grouped by is refused, with what can be."""
    log(record())

    for by in ("moon", ["logger"]):
        with pytest.raises(FilterError, match=r"by=.* is nothing to group by: use one of logger, source, level"):
            reading().top(by)


def test_the_trend_is_the_course_of_time(log, reading):
    """The trend has twelve equal parts of the time, with what was logged in each."""
    log(*(record(seconds=number * 10) for number in range(12)), record(seconds=119))

    (talker,) = reading().top("source")
    assert (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2) == talker.trend


def test_a_histogram_counts_by_level(overflowed, reading):
    """Each bucket has records by level, and drops; buckets without any are there as well."""
    buckets = reading().histogram("1s", until=BEGIN + timedelta(seconds=60))

    assert [{10: 10}, {}, {}, {40: 1}] == [bucket.levels for bucket in buckets[:4]]
    assert [0, 15, 0, 0] == [bucket.dropped for bucket in buckets[:4]]
    assert [microseconds(BEGIN), microseconds(BEGIN) + 1_000_000] == [bucket.since_us for bucket in buckets[:2]]
    assert [] == reading().histogram(since=datetime.now(UTC) + timedelta(days=1))


@pytest.mark.parametrize("seconds", [0, 0.5, 20, 7_000, 90_000, 40_000_000, 2_000_000_000])
def test_a_histogram_has_a_round_bucket_by_default(log, reading, seconds):
    """Without a bucket, a round one is taken of which a few are enough."""
    log(record(), record(seconds=seconds))

    assert 1 <= len(reading().histogram()) <= 24


@pytest.mark.parametrize(
    "bucket", ["soon", 0, -1, "0s", float("nan"), "1us", float("inf"), 1e30, "99999999999w", [1]], ids=str
)
def test_a_histogram_refuses_other_buckets(log, reading, bucket):
    """A bucket that is no length of time, or makes millions of them, is refused."""
    log(record(), record(seconds=3600))

    with pytest.raises(FilterError, match=r"length of time|must be a microsecond or more|take a longer one"):
        reading().histogram(bucket)


@pytest.mark.parametrize("most", [0, 1, "x", 2.5])
def test_a_histogram_refuses_other_numbers_of_buckets(log, reading, most):
    """Round buckets of which one is enough there are not; 0 and 1 used to be a ZeroDivisionError."""
    log(record())

    with pytest.raises(FilterError, match=f"most={most!r}: must be an integer, 2 or more"):
        reading().histogram(most=most)
    assert 1 == len(reading().histogram(most=2))


def test_stats(overflowed, reading):
    """The statistics count rows, levels, sources, drops and bytes."""
    stats = reading().stats()

    assert (12, 1, 12, {10: 10, 30: 1, 40: 1}) == (stats.rows, stats.first_id, stats.last_id, stats.levels)
    assert (15, {"queue_full": 15}) == (stats.dropped, stats.dropped_by_cause)
    assert (3, 1, "wal", "incremental") == (stats.loggers, stats.processes, stats.journal_mode, stats.auto_vacuum)
    assert (os.path.getsize(overflowed), 0) == (stats.file_bytes, stats.wal_bytes)


def test_stats_by_a_link(make_handler, reading, path):
    """By a link to the log, its WAL is counted too: it is beside the log, and not beside the link."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    handler = make_handler()
    handler.handle(record())
    assert handler.flush()

    assert 0 < os.path.getsize(f"{path}-wal") == reading(link).stats().wal_bytes


def test_books(overflowed, reading, change):
    """The books count each thing in all the places that have to agree."""
    books = reading().books()

    assert (11, 1, 12) == (books.rows, books.warnings, books.written_in_volume)
    assert (15, 15, 15) == (books.dropped_in_ledger, books.dropped_in_volume, books.dropped_in_warnings)


# Files from elsewhere -------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path):
    """A missing file has an error of its own, is also a FileNotFoundError, and is not made."""
    with pytest.raises(MissingFileError, match="does not exist: name the file of a SQLiteHandler") as caught:
        LogReader(tmp_path / "no.db")

    assert isinstance(caught.value, FileNotFoundError)
    assert [] == list(tmp_path.iterdir())


def test_a_folder(tmp_path):
    """A folder is refused as such."""
    with pytest.raises(UnreadableFileError, match="is a folder"):
        LogReader(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe(path):
    """A pipe is refused as such: SQLite would wait for ever for who writes to it."""
    os.mkfifo(path)
    with pytest.raises(UnreadableFileError, match="is a device, a pipe or a socket"):
        LogReader(path)


def test_files_that_are_no_logs(path, tmp_path):
    """Text, empty files, other databases and newer logs are told apart."""
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    with contextlib.closing(sqlite3.connect(tmp_path / "newer.db")) as connection:
        connection.executescript(f"PRAGMA application_id = {0x534C6F67}; PRAGMA user_version = 99")
    path.touch()
    (tmp_path / "text.db").write_text("no database\n" * 100)

    for name, error in [
        ("app-log.db", EmptyFileError),
        ("other.db", ForeignFileError),
        ("text.db", ForeignFileError),
        ("newer.db", NewerSchemaError),
    ]:
        with pytest.raises(error):
            LogReader(tmp_path / name)


def test_a_name_that_looks_like_a_uri(log, path, tmp_path):
    """A question mark, a percent sign and a hash in a name are part of the name."""
    log(record("here"))
    odd = tmp_path / "100%41?mode=memory&cache=shared#x.db"
    shutil.copy(path, odd)

    with LogReader(odd) as reader:
        assert ["here"] == [row.message for row in reader]


def test_nothing_can_be_written(log, reading):
    """The connection of a reader refuses to write, whatever is asked of it."""
    log(record())

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reading()._scan.connection.execute("DELETE FROM records")


def test_a_view_without_end(log, change, path, monkeypatch):
    """A file whose tables are endless views is given up with an error, and does not hang the reader."""
    monkeypatch.setattr("sqlite_log_handler._read.opening._STEPS", 1_000_000)
    log(record())
    change("""
        ALTER TABLE records RENAME TO real;
        CREATE VIEW records AS WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)
            SELECT n.id, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message, exc_type,
            exc_text, stack_info, attributes FROM n JOIN real;
    """)

    with LogReader(path) as reader, pytest.raises(LimitError, match="more steps than any log does"):
        list(reader.rows())


def test_a_function_in_a_view(log, change, path):
    """A view of the file calls no function that is not harmless."""
    log(record())
    change(
        "ALTER TABLE levels RENAME TO real;"
        "CREATE VIEW levels AS SELECT levelno, log_search('a', 1, name) AS name FROM real"
    )

    with LogReader(path) as reader, pytest.raises(CorruptFileError, match="unsafe use of log_search"):
        list(reader.rows())


def test_a_huge_value(log, change, path):
    """A value larger than any that is logged costs no memory: it is an error that says how to go on."""
    log(record("one"), record("two"))
    change("UPDATE records SET message = CAST(zeroblob(17 * 1024 * 1024) AS TEXT) WHERE id = 1")

    with LogReader(path) as reader:
        with pytest.raises(LimitError, match="a value of more than 16 MiB: read on behind that row"):
            list(reader.rows())
        assert ["two"] == [row.message for row in reader.rows(after_id=1)]


def test_text_that_is_no_utf_8(log, change, reading, messages):
    """Bytes that are no text are shown as the character for that, and the other rows as they are."""
    log(record("größe"), record("two"))
    change("UPDATE records SET message = CAST(X'61FF62' AS TEXT) WHERE id = 2")

    assert ["größe", "a\N{REPLACEMENT CHARACTER}b"] == messages()
    assert "a\N{REPLACEMENT CHARACTER}b" == json.loads(list(reading().json_lines())[1])["message"]


def test_a_damaged_file(log, path, reading):
    """A damaged file has an error that says so, and names what tells more and what saves the rest."""
    log(*(record(str(number) * 50) for number in range(5_000)))
    with open(path, "r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096 * 50)

    with pytest.raises(CorruptFileError, match="it is damaged: `sqlite-log check` says where"):
        list(reading())


def test_a_file_without_its_tables(log, change, reading):
    """A file that says it is a log and has not its tables is named so."""
    log(record())
    change("DROP VIEW logs; DROP TABLE records")

    with pytest.raises(CorruptFileError, match="does not have the tables that a log has"):
        list(reading())


def test_a_file_that_somebody_keeps_for_himself(log, change, path):
    """A file that is locked for everybody is an error that says to try again, after `timeout`."""
    log(record())
    change("PRAGMA journal_mode = DELETE")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyFileError, match="try again when it is done"):
            LogReader(path, timeout=0.01)


AS_NOBODY = """
import os, sys, urllib.parse  # which pathlib imports late, and another user may not read the standard library
from sqlite_log_handler import LogFileError, LogReader
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with LogReader(sys.argv[1]) as reader:
        print(reader.notice, [row.message for row in reader])
except LogFileError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def as_nobody():
    """
    Read a copy of a log as a user who may not write to its folder.

    The folder is not one of pytest's: those are closed to other users, and closed again by each run of pytest.
    """
    if not hasattr(os, "setuid"):
        pytest.skip("no users on this system")
    above = Path(tempfile.gettempdir()).resolve()
    if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in (above, *above.parents)):
        pytest.skip(f"nobody but root may look into {above}")

    def read(path, mode=0o644, *, linked=False):
        with tempfile.TemporaryDirectory() as folder:
            for name in os.listdir(path.parent):
                shutil.copy(path.parent / name, folder)
                os.chmod(f"{folder}/{name}", mode)
            file = f"{folder}/{path.name}"
            if linked:
                os.symlink(file, f"{folder}/link.db")
                file = f"{folder}/link.db"
            os.chmod(folder, 0o555)
            try:
                command = [sys.executable, "-c", AS_NOBODY, file]
                package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
                environment = {**os.environ, "PYTHONPATH": package}
                run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            finally:
                os.chmod(folder, 0o755)
        assert "" == run.stderr
        return run.stdout

    return read


def test_without_the_right_to_write(log, path, as_nobody):
    """A log in WAL mode can be read by somebody who may not write to its folder, where SQLite alone would refuse."""
    log(record("here"))

    assert "None ['here']\n" == as_nobody(path)


@pytest.mark.parametrize("linked", [False, True])
def test_a_dead_wal_without_the_right_to_write(log, path, tmp_path, as_nobody, linked):
    """The rows in a WAL that may not be read are left out, and it is said how to see them, by a link to the log too."""
    log(record("in the file"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE records SET message = 'in the WAL'")
        wal = (tmp_path / "app-log.db-wal").read_bytes()
        main = path.read_bytes()
    path.write_bytes(main)
    (tmp_path / "app-log.db-wal").write_bytes(wal)

    said = as_nobody(path, linked=linked)
    assert "is read without its -wal, whose rows are left out" in said
    assert said.endswith(" ['in the file']\n")


@pytest.mark.parametrize("linked", [False, True])
def test_a_journal_that_has_to_be_rolled_back(log, path, tmp_path, change, as_nobody, linked):
    """What a killed process left half written is not read as if it were whole: it is said what to do first."""
    log(*(record(str(number) * 100) for number in range(500)))
    change("PRAGMA journal_mode = DELETE")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE records SET message = 'half'")
        left = {name: (tmp_path / name).read_bytes() for name in ("app-log.db", "app-log.db-journal")}
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)

    said = as_nobody(path, linked=linked)
    assert said.startswith("UnreadableFileError")
    assert "half" not in said


def test_without_the_right_to_read(log, path, as_nobody):
    """A file that may not be read has an error of its own."""
    log(record())

    assert as_nobody(path, 0o000).startswith("UnreadableFileError")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_raised_inside_of_a_query_comes_out_of_it(log, reading, monkeypatch, error):
    """Ctrl-C while SQLite has the word ends a search as it ends everything else, and is no error of the file."""

    def interrupted(*arguments):
        raise error

    log(record())
    monkeypatch.setattr("sqlite_log_handler._read.scan.search", interrupted)

    with pytest.raises(error):
        list(reading().rows(pattern="hel+o"))


@pytest.mark.parametrize("question", [list, LogReader.check], ids=["rows", "check"])
def test_ctrl_c_in_a_long_query(log, path, monkeypatch, question):
    """Ctrl-C while SQLite works on something long is not taken for the limit of steps."""

    def interrupted(limit):
        raise KeyboardInterrupt

    monkeypatch.setattr("sqlite_log_handler._read.opening._STEPS_AT_ONCE", 1)
    monkeypatch.setattr("sqlite_log_handler._read.opening.StepBudget._tick", interrupted)
    log(record())

    with LogReader(path) as reader, pytest.raises(KeyboardInterrupt):
        question(reader)


def test_importing_the_package_does_not_import_the_reader():
    """A program that only logs does not pay for the half that reads."""
    program = "import json, sys, sqlite_log_handler; print(json.dumps([n for n in sys.modules if 'sqlite_log' in n]))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))},
    )

    names = {name.partition(".")[2] for name in json.loads(run.stdout)}
    assert [] == [name for name in names if name.startswith("_read")]
    assert "_write.handler" in names
    with pytest.raises(AttributeError, match="has no attribute 'LogWriter'"):
        _ = sqlite_log_handler.LogWriter
