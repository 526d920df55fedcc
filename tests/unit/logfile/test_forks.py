"""
Connections to SQLite, over a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from functools import partial
from pathlib import Path

import forked
import pytest

from sqlite_log_handler import LogReader, UnreadableFileError
from sqlite_log_handler._logfile import forks

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc/self/fdinfo")


@pytest.fixture(params=[True, False], ids=["os.fork", "without hooks"])
def in_child(request):
    """
    Run a function in a forked child, by `os.fork` and by a fork that runs none of Python's hooks; return its text.
    """
    return partial(forked.in_child, fork=os.fork if request.param else ctypes.PyDLL(None).fork)


def locks(log):
    """
    Count the POSIX locks that this process has on a log.

    /proc/locks would list a lock twice, or leave it out, while another process takes and releases some.
    """
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed the folder
            if any(os.path.samefile(f"/proc/self/fd/{descriptor}", path) for path in (log, f"{log}-shm")):
                count += Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").count("lock:")
    return count


@pytest.fixture
def log(make_handler, logger):
    """A log with one row, whose handler is closed."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("first")
    handler.close()
    logger.removeHandler(handler)
    return handler.filename


def test_a_child_takes_locks_of_its_own(log, in_child):
    """
    A reader that is open over a fork does not keep a reader of the child from taking its locks.

    SQLite's list of locks says in the child that the process has them. It once had none: when the parent closed the
    file, the next program that looked into it deleted the WAL, with a hundred rows that the child had committed.
    """

    def child():
        with LogReader(log) as own:
            return len(list(own)), locks(log)

    with LogReader(log) as reader:
        list(reader)
        held = locks(log)

        assert held > 0
        assert str((1, held)) == in_child(child)
        assert (1, held) == (len(list(reader)), locks(log))


def test_rows_of_a_child_stay(log, in_child, make_handler, logger):
    """What a child's handler commits beside a reader of its parent is in the file, under locks of the child."""

    def child():
        handler = make_handler()
        logger.addHandler(handler)
        logger.info("child")
        handler.flush()
        return locks(log) > 0, handler.stats().written

    with LogReader(log) as reader:
        list(reader)
        assert "(True, 1)" == in_child(child)
        assert ["first", "child"] == [row.message for row in reader]


def test_a_reader_belongs_to_its_process(log, in_child):
    """The reader of a parent says in the child that it is not for it, and may be closed there."""

    def child():
        reader.close()
        return "closed"

    with LogReader(log) as reader:
        assert "made before this process was forked: make a new LogReader" in in_child(lambda: list(reader))
        assert "closed" == in_child(child)
        assert 1 == len(list(reader))


def test_a_fork_waits_for_the_end_of_a_statement(log, in_child):
    """`os.fork` waits for a thread that is inside SQLite; a child that was forked past that never opens the file."""
    inside, leave = threading.Event(), threading.Event()

    def read():
        with reader._scan.require_open().in_use():
            inside.set()
            leave.wait()

    def child():
        with LogReader(log) as own:
            return len(list(own))

    def let_go(*_):
        waiting.set()
        leave.set()

    waiting = threading.Event()
    with LogReader(log) as reader:
        thread = threading.Thread(target=read)
        thread.start()
        inside.wait()
        lock = reader._scan.require_open().lock
        reader._scan.require_open().lock = Announced(lock, let_go)
        said = in_child(child)
        waited = waiting.is_set()  # before `close` asks for the lock
        leave.set()
        thread.join()

    expected = "1" if waited else f"UnreadableFileError: {str(log)!r}: this process was forked in the middle"
    assert said.startswith(expected)


class Announced:
    """A lock that says when somebody asks for it."""

    def __init__(self, lock, announce):
        self.lock, self.announce = lock, announce

    def acquire(self, **options):
        """Say so, and wait for the lock."""
        self.announce()
        return self.lock.acquire(**options)

    def release(self):
        """Let go of it."""
        self.lock.release()


def test_a_file_whose_query_a_fork_cut_off_is_lost(log, monkeypatch):
    """Where a thread was inside SQLite at the fork, the child neither closes that connection nor opens the file."""
    monkeypatch.setattr(forks, "lost", set())
    kept = []
    monkeypatch.setattr(forks, "keep_open", kept.append)
    with LogReader(log) as reader:
        connection = reader._scan.require_open()
        connection.active, connection.process = 1, 0
        with pytest.raises(UnreadableFileError, match="forked in the middle of a query"):
            LogReader(log)
        connection.active, connection.process = 0, os.getpid()

    assert [connection] == kept
