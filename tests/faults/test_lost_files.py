"""
Files that are moved, removed, cut or damaged while they are open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys

import pytest
from listeners import ticks

import sqlite_log_handler


@pytest.mark.parametrize(
    "fault",
    ["unlink", "unlink all", "rename", "replace", "truncate wal", "truncate"],
)
def test_the_file_changes_under_us(make, clock, log, contents, path, tmp_path, fault):
    """
    From the next tick after any change of the file, rows go into one that is at the path, and is whole.

    SQLite goes on in a file without a name, where its rows are lost: logrotate does just that.
    """
    if fault == "replace":
        from sqlite_log_handler import SQLiteHandler  # noqa: PLC0415 - the other file, of another program run

        SQLiteHandler(tmp_path / "other.db").close()
    handler = make()
    log(300)
    ticks(handler, clock)
    handler.listener.committer.writer.file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log(5)
    ticks(handler, clock)
    if fault.startswith("unlink"):
        for end in ("", "-wal", "-shm") if fault.endswith("all") else ("",):
            os.unlink(f"{path}{end}")
    elif fault == "rename":
        os.rename(path, f"{path}.1")
    elif fault == "replace":
        os.replace(tmp_path / "other.db", path)
    elif fault == "truncate":
        os.truncate(path, 0)
    else:
        os.truncate(f"{path}-wal", 0)
    log(10)
    ticks(handler, clock, 60)
    log(10)
    ticks(handler, clock, 60)
    stats = handler.stats()
    handler.close()

    assert (325, 325, 0) == (stats.seen, stats.written, stats.queued), stats.last_error
    numbers = contents().numbers["n"]
    assert list(range(315, 325)) == numbers[-10:]
    if fault in {"unlink", "rename", "replace"}:
        assert list(range(305, 325)) == numbers
    if fault == "rename":
        assert list(range(305)) == contents(f"{path}.1").numbers["n"]


def test_the_folder_is_removed(make, clock, log, contents, tmp_path, said):
    """Without its folder the log waits; when the folder is there again, so is the log."""
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = make(filename=folder / "app-log.db", capacity=100, reserve=0, fair_share=1)
    log(10)
    ticks(handler, clock)
    os.rename(folder, tmp_path / "moved")
    log(20)
    ticks(handler, clock, 20)
    assert 20 == handler.stats().queued
    folder.mkdir()
    ticks(handler, clock, 60)
    handler.close()

    assert list(range(10, 30)) == contents(folder / "app-log.db").numbers["n"]
    assert 2 == len(said)


def test_a_corrupt_file_is_never_overwritten(make, clock, log, path, monkeypatch):
    """
    Two files that turn out to be corrupt within the same second are both kept.

    The name of the copy has the time in it, to the second; the second copy took the place of the first.
    """
    monkeypatch.setattr("time.strftime", lambda *_: ".corrupt-20240101T000000Z")
    handler = make()
    for _ in range(2):
        log(300)
        ticks(handler, clock)
        handler.close()
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (os.stat(path).st_size - 4096))
        log(10)
        ticks(handler, clock, 60)

    assert 2 == len(
        [name for name in os.listdir(path.parent) if ".corrupt-" in name and name[-4:] not in {"-wal", "-shm"}]
    )


def test_a_log_that_was_cut_short(make, clock, log, contents, path):
    """
    A log that has lost its end is moved aside, and a new one is begun, when the program runs and when it starts.

    SQLite reads not even the header of a file that is shorter than that says, so no process could tell whose it is.
    """
    handler = make()
    log(300)
    ticks(handler, clock)
    handler.close()
    os.truncate(path, 5_000)
    log(10)
    ticks(handler, clock, 60)
    assert 0 == handler.stats().queued, handler.stats().last_error
    handler.close()
    assert list(range(300, 310)) == contents().numbers["n"]

    os.truncate(path, 5_000)
    make()
    assert 2 == len([name for name in os.listdir(path.parent) if ".corrupt-" in name and name[-1] not in "lm"])


@pytest.mark.parametrize("how", ["deleted", "restored"])
def test_a_person_changes_the_rows(make, path, query, how):
    """
    A record has its row in the view, under its own logger, when a person has deleted all rows and call sites, or
    has restored an older state of the file with the shell of SQLite.

    The handler remembers the ids of call sites. A row with the id of one that was gone was in no view, though it
    counted as written; and a row whose id another call site had been given meanwhile had the logger of that one.
    """
    handler = make()

    def log(name, message):
        # One call site for each logger.
        handler.emit(logging.makeLogRecord({"name": name, "levelno": 20, "msg": message}))

    for name in "abc":
        log(name, "before")
    handler.flush()
    with contextlib.closing(sqlite3.connect(path)) as person, contextlib.closing(sqlite3.connect(":memory:")) as copy:
        if how == "restored":
            person.backup(copy)
            for name in "de":
                log(name, "lost")
            handler.flush()
            copy.backup(person)
        else:
            for table in ("records", "sources", "processes", "threads"):
                person.execute(f"DELETE FROM {table}")
            person.commit()
    for name in "fdecba":
        log(name, "after")
        handler.flush()
    handler.close()

    assert list("fdecba") == [name for (name,) in query("SELECT logger FROM logs WHERE message = 'after' ORDER BY id")]
    assert 0 == handler.dropped_total


TALKS = """
import logging, sys
from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler(sys.argv[1])
logger = logging.getLogger("program")
logger.setLevel("INFO")
logger.addHandler(handler)
number = 0
for line in sys.stdin:
    for _ in range(int(line)):
        logger.info(f"{sys.argv[2]} %d", number)
        number += 1
    print(handler.flush(60), flush=True)
"""


@pytest.fixture
def talk(path):
    """Have programs "a" and "b" write this many records to one log, or end: `talk("a", 5)`, `talk("a", None)`."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))}
    programs = {
        name: subprocess.Popen(
            [sys.executable, "-c", TALKS, path, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in "ab"
    }

    def talk(name, count):
        if count is None:
            programs[name].communicate()
        else:
            programs[name].stdin.write(f"{count}\n")
            programs[name].stdin.flush()
            assert "True\n" == programs[name].stdout.readline()

    yield talk

    for program in programs.values():
        with program:
            program.kill()


@pytest.mark.parametrize("fault", ["rename", "unlink"])
def test_the_file_goes_under_two_processes(talk, contents, path, fault):
    """
    When the file of two processes is moved or removed, the rows of both go into the new one, and none into the old.

    The first to notice left an empty -wal and the -shm. A new file took them, and the other process wrote its rows from
    there into the old file.
    """
    talk("a", 5)
    talk("b", 5)
    if fault == "rename":
        os.rename(path, f"{path}.1")
    else:
        os.unlink(path)
    for name, count in (("a", 100), ("b", 20), ("a", 10), ("b", 5), ("a", None), ("b", None)):
        talk(name, count)

    assert {"a": [*range(5, 115)], "b": [*range(5, 30)]} == contents().numbers
    if fault == "rename":
        assert {"a": [*range(5)], "b": [*range(5)]} == contents(f"{path}.1").numbers


@pytest.mark.parametrize("steps", ["a b", "b a", "A b", "B a"])
def test_a_shm_that_is_removed_from_a_log_that_is_moved_then(talk, contents, path, steps):
    """
    A process whose -shm was removed does not empty the WAL of a log that was moved then: others have added to it.

    It wrote back what its own -shm told of the WAL, and the rows that another process had added were in no file.
    """
    talk("a", 5)
    talk("b", 5)
    os.unlink(f"{path}-shm")
    talk("b", 5)
    os.rename(path, f"{path}.1")
    for step in steps.split():
        if step.isupper():  # goes on
            talk(step.lower(), 1)
        else:
            talk(step, None)
    for name in "ab":
        talk(name, None)

    assert {"a": [*range(5)], "b": [*range(10)]} == contents(f"{path}.1").numbers
    assert not [name for name in os.listdir(path.parent) if "left" in name]


@pytest.mark.privileged
def test_a_volume_is_mounted_over_the_folder(mounted, start, make_handler, logger, contents):
    """
    A process whose folder is covered by another file system leaves the log there alone, and goes on in it.

    SQLite compares inode numbers and not devices. Each file of a fresh file system had the number that it had on the
    one below, so SQLite deleted the -wal of another process, with the rows that this one had committed.
    """
    folder = mounted("-t", "tmpfs", "tmpfs")
    path = folder / "app-log.db"
    program = start(
        """
        handler = SQLiteHandler(arguments[0], flush_interval=3600)
        logger.addHandler(handler)
        for number, _ in enumerate(sys.stdin):
            logger.info("old %d", number)
            print(handler.flush(60), flush=True)
        """,
        path,
    )

    def log_old():
        program.stdin.write("\n")
        program.stdin.flush()
        assert "True\n" == program.stdout.readline()

    log_old()
    number = os.stat(path).st_ino
    mounted("-t", "tmpfs", "tmpfs")
    handler = make_handler(filename=path, flush_interval=3600)
    if os.stat(path).st_ino != number:
        pytest.skip("this file system gives other numbers")
    logger.addHandler(handler)
    for count in range(2):
        logger.info("new %d", count)
        assert handler.flush()
        log_old()
    handler.close()

    assert {"new": [0, 1], "old": [1, 2]} == contents(path).numbers
