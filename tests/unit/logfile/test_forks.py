"""
Connections to SQLite, over a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sqlite3
import sys
import threading
from functools import partial
from pathlib import Path

import forked
import pytest
from locked import is_free

from sqlite_log_handler import LogReader, UnreadableFileError
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.locks import acquire, held_by_forks

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


@pytest.mark.parametrize("opened", [True, False], ids=["closed", "never opened"])
def test_a_connection_that_is_not_open_over_a_fork(log, in_child, opened):
    """
    A connection that could not be opened, or is closed and not yet forgotten, keeps no child from reading.

    A program kept the error of a reader that found no file, and with it the connection. The first reader of a child
    then raised a ProgrammingError: `Base Connection.__init__ not called`.
    """

    def child():
        with LogReader(log) as own:
            return len(list(own))

    connection = forks.Connection.__new__(forks.Connection)
    with contextlib.nullcontext() if opened else pytest.raises(sqlite3.OperationalError):
        connection.__init__(log if opened else "/no/where", file=None)
    with contextlib.suppress(sqlite3.ProgrammingError):
        sqlite3.Connection.close(connection)

    assert "1" == in_child(child)


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


def test_a_connection_is_known_until_it_is_closed(log):
    """
    A fork waits for a connection that is being closed, as the archive's thread and readers close theirs.

    It did not. One child in ten had no locks for the log, another one hung in SQLite, as its parent had left it.
    """
    connection, known = connect_read_only(log), []

    class Watched:
        """The connection's lock, which looks whether a fork would ask for it."""

        def __enter__(self):
            known.append(connection in forks._connections)

        def __exit__(self, *_):
            self.__enter__()

    connection.lock = Watched()
    connection.close()

    assert [True, False] == known


def test_no_connection_is_opened_beside_a_fork(log, monkeypatch):
    """A thread opens no connection from the moment at which a fork has asked for all of them until it is over."""
    asked, opened = threading.Event(), []

    class Gate:
        """The lock that a fork holds."""

        def __init__(self):
            self.lock = threading.Lock()

        def acquire(self, *arguments):
            return self.lock.acquire(*arguments)

        def release(self):
            self.lock.release()

        def _is_owned(self):
            return False

        def __enter__(self):
            asked.set()
            self.lock.acquire()

        def __exit__(self, *_):
            self.lock.release()

    def work():
        opened.append(connect_read_only(log))
        asked.set()

    gate = Gate()
    monkeypatch.setattr(forks, "_opening", lambda: gate)
    forks.hold()
    thread = threading.Thread(target=work)
    thread.start()
    asked.wait()
    beside = [*opened]
    forks.let_go()
    thread.join()

    assert [] == beside
    (connection,) = opened
    connection.close()


def test_a_fork_waits_once(log, monkeypatch):
    """The hook of the handler, and then that of the connections, hold these; the second does not wait once more."""
    connection, waits = connect_read_only(log), []

    def record(lock, timeout):
        waits.extend([timeout] * (lock is connection.lock))
        return acquire(lock, 0)

    monkeypatch.setattr(forks, "acquire", record)
    in_use = threading.Thread(target=connection.lock.acquire)
    in_use.start()
    in_use.join()
    forks.hold()
    forks.hold()
    forks.let_go()

    assert [True, False] == [timeout > 0 for timeout in waits]
    connection.lock = threading.RLock()  # nobody lets go of the other one
    connection.close()


def test_a_signal_handler_forks_at_any_call_of_a_fork(log):
    """
    Wherever a second fork comes in the hooks of the first, in the middle of a statement, that keeps its lock.

    The second one let go of the locks of both. The first one went on, and let go of the lock of the statement itself:
    another thread used the connection at the same time, or closed it.
    """
    connection = connect_read_only(log)
    calls = at = 0

    def fork():
        for hook in (forks.hold, forks.let_go, forks.let_go):
            hook()

    def handle(frame, event, _):
        nonlocal calls
        # No signal handler runs just before a call of C code.
        if event != "c_call" and forks.__file__ in {each.f_code.co_filename for each in (frame, frame.f_back)}:
            calls += 1
            if calls == at:
                fork()

    while calls >= at:
        calls, at = 0, at + 1
        connection.lock.acquire()
        try:
            sys.setprofile(handle)
            fork()
        finally:
            sys.setprofile(None)
        assert (False, []) == (is_free(connection.lock), held_by_forks), at
        connection.lock.release()
        assert is_free(connection.lock), at
    connection.close()


@pytest.mark.slow
@pytest.mark.skipif("free-threading" in sys.version, reason="without a GIL, CPython itself may hang in such a child")
def test_forks_beside_a_thread_that_reads(log):
    """Each child that is forked while a thread opens, reads and closes the log has locks of its own, and ends."""
    ends = threading.Event()

    def work():
        while not ends.is_set():
            with LogReader(log) as own:
                list(own)

    def child():
        signal.alarm(60)
        with LogReader(log) as own:
            return len(list(own)), locks(log) > 0

    with LogReader(log) as reader:
        list(reader)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            found = [forked.in_child(child) for _ in range(60)]
        finally:
            ends.set()
            thread.join()

    assert ["(1, True)"] * 60 == found


class Announced:
    """A lock that says when somebody asks for it."""

    def __init__(self, lock, announce):
        self.lock, self.announce = lock, announce

    def acquire(self, *arguments):
        """Say so, and wait for the lock."""
        self.announce()
        return self.lock.acquire(*arguments)

    def release(self):
        """Let go of it."""
        self.lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()

    def _is_owned(self):
        return self.lock._is_owned()


@pytest.mark.parametrize("left", ["query", "transaction"])
def test_a_file_that_a_fork_cut_off_is_lost(log, monkeypatch, left):
    """Where a thread was inside SQLite, or in a transaction, the child neither closes that nor opens the file."""
    monkeypatch.setattr(forks, "lost", set())
    kept = []
    monkeypatch.setattr(forks, "keep_open", kept.append)
    with LogReader(log) as reader:
        connection = reader._scan.require_open()
        connection.process = 0
        if left == "transaction":
            connection.execute("BEGIN")
        in_use = connection.in_use() if left == "query" else contextlib.nullcontext()
        with in_use, pytest.raises(UnreadableFileError, match="forked in the middle of a query"):
            LogReader(log)
        connection.process = os.getpid()

    assert [connection] == kept


@pytest.mark.parametrize("first", ["settle", "close"])
def test_two_threads_of_a_child_open_a_log_at_once(log, monkeypatch, first):
    """
    A thread of a child opens no log while another one is closing an inherited connection to it.

    One child in eight had no lock on its log, because its listener and a reader opened it at the same moment. Another
    program could delete the WAL under it, with rows that were flushed.
    """
    standing, leave = threading.Event(), threading.Event()
    mutex = forks._opening()
    opening = Announced(mutex, lambda: standing.is_set() and leave.set())
    monkeypatch.setattr(forks, "_opening", lambda: opening)
    connection = connect_read_only(log)
    connection.process = 0

    class Slow:
        """The connection's lock, at which the first thread stands before it closes the connection."""

        def _is_owned(self):
            if not standing.is_set():
                standing.set()
                leave.wait()
            return False

        def acquire(self, *_):
            return True

        def release(self):
            pass

    connection.lock = Slow()
    thread = threading.Thread(target={"settle": forks.settle, "close": connection.close}[first])
    thread.start()
    standing.wait()
    free = mutex.acquire(blocking=False)
    if free:
        mutex.release()
    forks.settle()
    known = connection in forks._connections
    leave.set()
    thread.join()

    assert (False, False) == (free, known)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_signal_handler_raises_while_a_child_closes_what_it_inherited(log, monkeypatch):
    """
    What a signal handler raises before an inherited connection is closed leaves it to the next look.

    It was forgotten, and stayed open: the child had no lock on that log as long as it lived.
    """
    connection = connect_read_only(log)
    connection.process = 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forks.Connection, "_was_in_use", property(lambda _: signal.raise_signal(signal.SIGINT)))
        forks.settle()
    forks.settle()

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
