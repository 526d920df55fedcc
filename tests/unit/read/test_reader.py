"""
One reader: its life, and following a log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from logged import BEGIN, record

import sqlite_log_handler
from sqlite_log_handler import FilterError, ForeignFileError, LogReader, MissingFileError
from sqlite_log_handler._read import filters as filters_module
from sqlite_log_handler._read import opening as opening_module


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


class Script:
    """What happens between two looks at a log: one step each, and then the end."""

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


@pytest.mark.parametrize(
    "filters",
    [
        {"where": ["status=1"] * 2_000},
        {"logger": ["shop"] * 3_000},
        {"attributes": {f"key{number}": 1 for number in range(2_000)}},
    ],
)
def test_more_filters_than_sqlite_takes_are_a_fault_of_the_question(log, path, filters):
    """
    Thousands of filters made the reader say that the log was damaged, or raise an error of `sqlite3`.

    Over HTTP the answer was 503, as if the log could not be read.
    """
    log(record())
    with LogReader(path) as reader, pytest.raises(FilterError, match="the filters are too many for one question"):
        reader.count(**filters)


def test_follow_goes_on_behind_an_id(log, reading):
    """With `after_id`, following begins with what is there behind it."""
    log(record("one"), record("two"))

    assert ["two"] == [row.message for row in reading().follow(after_id=1, wait=Script())]


def test_follow_has_filters(log, reading):
    """What is followed can be filtered as everything else."""
    log(record("before"))
    steps = Script(lambda: log(record("one"), record("two", logging.ERROR)), lambda: log(record("three")))

    assert ["two"] == [row.message for row in reading().follow(level="ERROR", wait=steps)]


HUGE: Any = 10**5_000


@pytest.mark.parametrize("value", [HUGE, [HUGE], 2**70, float("nan"), float("inf"), b"x", {}, object()], ids=type)
def test_an_argument_that_makes_no_sense(log, path, value):
    """
    Each argument of each method is refused by a FilterError, whatever it is.

    An error could not show an integer of 5,000 digits, which Python does not write, and `timeout` was not looked at.
    """
    log(record())
    with LogReader(path) as reader:
        for ask in (
            lambda: reader.rows(newest=value),
            lambda: reader.json_lines(newest=value),
            lambda: reader.top(value),
            lambda: reader.top("logger", key=value),
            lambda: reader.top("attribute", key=value),
            lambda: reader.patterns(new_since=value),
            lambda: reader.brief(value),
            lambda: reader.histogram(value),
            lambda: reader.histogram("1 min", most=value),
            lambda: next(reader.additions(value)),
            lambda: next(reader.additions(poll=value)),
            lambda: reader.follow(poll=value),
            lambda: LogReader(path, timeout=value),
        ):
            with pytest.raises(FilterError):
                ask()


@pytest.mark.parametrize("path", [None, HUGE, [HUGE], [None], 1.5, object()], ids=type)
def test_what_is_no_path(path):
    """A path of another type is a TypeError, as in `open`."""
    with pytest.raises(TypeError):
        LogReader(path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_a_path_that_no_file_has(path):
    """A path with a NUL or half of a surrogate pair in it is one without a file."""
    with pytest.raises(MissingFileError, match="does not exist"):
        LogReader(path)


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
    """When all that was read is deleted, but the newest row, following goes on: ids are never given twice."""
    log(record("before"))
    steps = Script(
        lambda: log(record("one")),
        lambda: change("DELETE FROM records WHERE id < 2"),
        lambda: log(record("two"), record("three")),
    )

    assert ["one", "two", "three"] == [row.message for row in reading().follow(wait=steps)]


@pytest.mark.parametrize("where", ["true", "id > 1"])
def test_follow_survives_a_deletion_of_the_newest_rows(log, reading, change, where):
    """
    When a person has deleted the newest rows, what a program that starts then writes is followed.

    Its rows have the ids of those, which following had passed.
    """
    log(*[record("before")] * 3)
    steps = Script(lambda: change(f"DELETE FROM records WHERE {where}"), lambda: log(record("one"), record("two")))

    assert ["one", "two"] == [row.message for row in reading().follow(wait=steps)]


def test_follow_waits_for_an_id(log, reading):
    """What is followed from an id on that is not given yet begins behind that."""
    log(record("one"))
    steps = Script(lambda: log(record("two")), lambda: log(record("three"), record("four")))

    assert ["four"] == [row.message for row in reading().follow(after_id=3, wait=steps)]


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


def test_follow_reads_a_moved_file_to_its_end_before_an_error(log, reading, path):
    """When something that is no log stands where the log was, the last rows of the log come before the error."""

    def replaced():
        log(record("last"))
        os.replace(path, f"{path}.1")
        path.write_text("of another program\n" * 100)

    log(record("before"))
    rows = reading().follow(wait=Script(replaced))

    assert "last" == next(rows).message
    with pytest.raises(ForeignFileError):
        next(rows)


@pytest.mark.parametrize("is_quick", [True, False])
def test_follow_reads_what_is_committed_into_a_moved_file(log, reading, path, is_quick):
    """
    When the file is moved in the middle of a commit, the rows of that commit come before those of the next file.

    They came never: nobody looked into the moved file again, until another one stood in its place.
    """
    log(record("before"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:

        def moved():
            writer.execute("BEGIN IMMEDIATE")
            writer.execute(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message) "
                "SELECT created_us, levelno, source_id, process_id, 'last' FROM records"
            )
            os.replace(path, f"{path}.1")

        def committed():
            writer.execute("COMMIT")
            if is_quick:
                log(record("new"))

        steps = Script(moved, committed, lambda: None, *([] if is_quick else [lambda: log(record("new"))]))
        assert ["last", "new"] == [row.message for row in reading().follow(wait=steps)]


@pytest.mark.parametrize(("lost", "expected"), [([], []), (["lost"], ["lost", "before", "one"])])
def test_follow_knows_a_copy_of_its_file(log, reading, path, lost, expected):
    """
    Following goes on in a copy of the file that takes its place; if the copy lacks rows, it is read from its first one.

    Each copy was read from its first row, as another log is.
    """
    copy = path.with_name("copy.db")

    def copied():
        log(record("one"))
        copy.write_bytes(path.read_bytes())
        log(*map(record, lost))

    log(record("before"))
    steps = Script(copied, lambda: os.replace(copy, path), lambda: None, lambda: log(record("two"), record("three")))

    assert ["one", *expected, "two", "three"] == [row.message for row in reading().follow(wait=steps)]


def test_follow_goes_on_in_a_copy_of_a_file_that_was_away(log, reading, path):
    """
    If the file is away when one stops to follow it, the next call too goes on in a copy that comes in its place.

    It read the copy from its first row.
    """
    log(record("before"))
    away, reader = path.with_name("away.db"), reading()
    assert [] == list(reader.follow(wait=Script(lambda: os.replace(path, away))))
    steps = Script(lambda: shutil.copy(away, path), lambda: None, lambda: log(record("one")))

    assert ["one"] == [row.message for row in reader.follow(after_id=1, wait=steps)]


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


STARTED = "INSERT INTO processes VALUES (50, 'host', 1, 'MainProcess', {}, 'job')"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"pattern_of": 1}, ["stock of milk is low", "stock of rice is low"]),
        ({"without": {"pattern_of": 1}}, ["order 2", "order 3"]),
        ({"without": {"pattern_of": [1, 2]}}, []),
        ({"pattern_of": 2, "without": {"pattern_of": 1}}, ["order 2", "order 3"]),
        ({"without": {"level": "NOTICE"}}, ["order 2", "order 3"]),
        ({"without": {"run": 1}}, ["order 2", "stock of milk is low", "order 3", "stock of rice is low"]),
        *(({"run": run}, ["order 2", "stock of milk is low", "order 3", "stock of rice is low"]) for run in (0, 2)),
        ({"run": 1}, []),
        ({"run": -1}, []),
    ],
    ids=repr,
)
def test_what_is_followed_stays_the_same(log, reading, path, change, monkeypatch, filters, expected):
    """
    A row, a run and the name of a level in a filter are those of the moment in which following begins.

    When retention deleted the row, or an earlier run, following ended with an error; a row of the next file with the
    same id made it follow another pattern, without a word; and a job that began took the place of the last run.
    """
    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName, 25: "NOTICE"})

    def both(number, name):
        log(
            record("order %d", lineno=8, args=(number,)),
            record("stock of %s is low", level=25, lineno=number, args=(name,)),
        )

    def replaced():
        os.replace(path, f"{path}.1")
        monkeypatch.setattr(logging, "_levelToName", {30: "WARNING"})
        both(3, "rice")

    log(record("stock of %s is low", level=25, args=("tea",)), record("order %d", lineno=8, args=(1,)), record())
    change(STARTED.format(5))
    steps = Script(
        lambda: change("DELETE FROM records WHERE id < 3"),
        lambda: change("DELETE FROM processes WHERE id = 50"),
        lambda: change(STARTED.format(2**60)),
        lambda: both(2, "milk"),
        replaced,
        lambda: None,
    )

    assert expected == [row.message for row in reading().follow(wait=steps, **filters)]


@pytest.mark.parametrize("filters", [{"run": 5}, {"pattern_of": 9}, {"without": {"pattern_of": 9}}], ids=repr)
def test_follow_refuses_at_once_what_is_not_there(log, reading, filters):
    """A run or a row that the log does not have is refused when following begins, and not when the next row comes."""
    log(record())

    with pytest.raises(FilterError, match="there is no r"):
        reading().follow(**filters)


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


def test_importing_the_handler_does_not_import_the_reader():
    """A program that only logs does not pay for the half that reads."""
    program = "import json, sys; from sqlite_log_handler import SQLiteHandler; print(json.dumps([*sys.modules]))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))},
    )

    names = [name.removeprefix("sqlite_log_handler.") for name in json.loads(run.stdout)]
    assert [] == [name for name in names if name.startswith("_read")]
    assert "_write.handler" in names
    with pytest.raises(AttributeError, match="has no attribute 'LogWriter'"):
        _ = sqlite_log_handler.LogWriter
