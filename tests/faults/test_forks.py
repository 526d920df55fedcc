"""
Traps of a fork: locks, commits and connections that a child inherits.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

import sqlite_log_handler
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.locks import LOGGING_LOCK
from sqlite_log_handler._write import process

PACKAGE = str(Path(sqlite_log_handler.__file__).parent)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_takes_no_lock_along(run, contents):
    """
    A child forked while other threads hold the mutex and the commit lock logs, flushes and ends.

    Locks are copied as they are, and the threads that hold them are not: the first call in the child that wants one
    waits for ever. As a commit may have been going on, the child never opens the file; its record is counted.
    """
    run(
        """
        _process.FORK_TIMEOUT = 0.01
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.01)
        logger.addHandler(handler)
        logger.info("parent %d", 1)
        assert handler.flush(60)
        held, leave = threading.Barrier(3), threading.Event()
        def hold(lock):
            with lock:
                held.wait()
                leave.wait()
        locks = handler.queue.mutex, handler.listener.committer.lock._lock
        threads = [threading.Thread(target=hold, args=(lock,)) for lock in locks]
        for thread in threads: thread.start()
        held.wait()
        pid = os.fork()
        if not pid:
            logger.info("child %d", 1)
            assert not handler.flush(0)
            handler.close()
            assert (1, 1) == (handler.stats().seen, handler.stats().dropped_total)
            sys.exit()
        leave.set()
        for thread in threads: thread.join()
        assert 0 == os.waitpid(pid, 0)[1]
        """,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
        stderr=".*closed with 1 records dropped .*LostFileError.*",
    )

    assert {"parent": [1]} == contents().numbers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_a_commit(run, contents):
    """
    A child that was forked while a commit went on, longer than a fork waits, never opens the file, and counts.

    SQLite's lists say that the child holds the locks that its parent holds. It wrote in the middle of the parent's
    transaction: rows that both had counted as written were gone, and the file was malformed.
    """
    run(
        """
        _process.FORK_TIMEOUT = 0.01
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.01)
        logger.addHandler(handler)
        inside, leave = threading.Event(), threading.Event()
        writer = handler.listener.committer.writer
        from sqlite_log_handler._write.inserts import Inserter
        insert = Inserter.write
        def slow(*arguments):
            insert(*arguments)
            inside.set()
            leave.wait()
        Inserter.write = slow
        for number in range(1, 101): logger.info("parent %d", number)
        thread = threading.Thread(target=handler.flush, args=(60,))
        thread.start()
        inside.wait()
        pid = os.fork()
        if not pid:
            sqlite3.connect = None
            # As a worker configures itself. No tick is near whose commit would hold the rows.
            logger.handlers.append(SQLiteHandler(path, flush_interval=3600, close_timeout=0.01))
            for number in range(100): logger.info("child %d", number)
            for handler in logger.handlers:
                assert not handler.flush(0)
                handler.close()
                assert (100, 100) == (handler.stats().seen, handler.stats().dropped_total)
            sys.exit()
        status = os.waitpid(pid, 0)[1]
        leave.set()
        thread.join()
        assert 0 == status
        """,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
        stderr=".*closed with 100 records dropped .*LostFileError.*",
    )

    assert {"parent": [*range(1, 101)]} == contents().numbers


@pytest.mark.parametrize("fork", ["os.fork", "C code"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_a_commit_to_another_file(run, contents, tmp_path, fork):
    """
    A child that was forked while a thread was inside SQLite never calls SQLite, for no file, and counts.

    Some mutexes of SQLite, as that of its allocator, are of the process. The child left alone only the file to which
    its parent was writing. It opened another one, and waited there for a thread that it did not have, for ever.
    """
    run(
        """
        import ctypes
        _process.FORK_TIMEOUT = 0.01
        busy = logging.getLogger("busy")
        busy.addHandler(SQLiteHandler(arguments[0], flush_interval=3600, close_timeout=0.01))
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.01)
        logger.addHandler(handler)
        logger.info("parent %d", 1)
        assert handler.flush(60)
        inside, leave = threading.Event(), threading.Event()
        from sqlite_log_handler._write.inserts import Inserter
        insert = Inserter.write
        def slow(*arguments):
            insert(*arguments)
            inside.set()
            leave.wait()
        Inserter.write = slow
        busy.error("busy %d", 1)
        inside.wait()
        inherited = handler.listener.committer.writer.file.connection
        pid = os.fork() if arguments[1] == "os.fork" else ctypes.PyDLL(None).fork()
        if not pid:
            # As SQLite does that waits for a mutex of a thread of the parent.
            sys.addaudithook(lambda event, _: event == "sqlite3.connect" and os._exit(7))
            logger.handlers.append(SQLiteHandler(arguments[2], flush_interval=3600, close_timeout=0.01))
            logger.info("child %d", 1)
            for handler in logger.handlers:
                assert not handler.flush(0)
                handler.close()
                stats = handler.stats()
                assert (1, 1) == (stats.seen, stats.dropped_total)
                assert "LostFileError" in stats.last_error
            if arguments[1] == "C code": inherited.total_changes  # which raises if it was closed
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        leave.set()
        while not busy.handlers[0].stats().written: pass
        assert 0 == status, status
        """,
        tmp_path / "busy.db",
        fork,
        tmp_path / "third.db",
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
        stderr=".*closed with 1 records dropped .*LostFileError.*",
    )

    assert {"parent": [1]} == contents().numbers
    assert {"busy": [1]} == contents(tmp_path / "busy.db").numbers


@pytest.mark.parametrize("where", ["write", "end_commit"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_by_the_thread_that_commits(run, contents, where):
    """
    A signal handler may fork while its thread is in `flush`. The child does not go on with the commit of its parent.

    It did, on the parent's connection: both wrote to the WAL at once.
    """
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.01)
        logger.addHandler(handler)
        from sqlite_log_handler._write.inserts import Inserter
        owner = {"write": Inserter, "end_commit": handler.queue}[arguments[0]]
        original, children = getattr(owner, arguments[0]), []
        def size():
            return os.stat(f"{path}-wal").st_size
        def forks(*positional, **named):
            if not children:
                wal = size()
                children.append(os.fork())
                if children[0]: children.append(os.waitpid(children[0], 0)[1])
                else: children.append(wal)
            return original(*positional, **named)
        setattr(owner, arguments[0], forks)
        for number in range(1, 101): logger.info("parent %d", number)
        assert handler.flush(60)
        if children[0]:
            assert 0 == children[1]
            assert (100, 100) == (handler.stats().seen, handler.stats().written)
        else:
            assert (0, 0) == (handler.stats().seen, handler.stats().written)
            logger.info("child 1")
            assert not handler.flush(0)  # so that `close` gives the rows to no thread, which would hold them
            handler.close()
            assert size() == children[1]
            assert (1, 1) == (handler.stats().seen, handler.stats().dropped_total)
        """,
        where,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
        stderr=".*closed with 1 records dropped .*LostFileError.*",
    )

    assert {"parent": [*range(1, 101)]} == contents().numbers


def test_a_fork_beside_a_configuration(make_handler, monkeypatch):
    """
    A fork takes logging's module lock first, and then the commit locks: in the order of `dictConfig`.

    That holds the module lock while it closes handlers, which wait for their commit locks; a fork had those, and
    waited for the module lock. Each `close` lost what was queued after five seconds, on a healthy disk.
    """
    listener = make_handler().listener
    locked = []

    class Recorder:
        def acquire(self, *_):
            locked.append(listener.committer.lock._lock.locked())

        def _is_owned(self):
            return True

        release = acquire

    monkeypatch.setattr(process, "LOGGING_LOCK", Recorder())
    process._before_fork()
    locked.append(listener.committer.lock._lock.locked())
    process._after_fork_in_parent()

    assert [False, True, False] == locked


def test_two_forks_at_once_leave_no_lock(make_handler):
    """
    When two threads fork at the same time, each lets go of what it holds itself, and of nothing else.

    "Held for the fork" was one flag for all threads: the second fork, which did not get the lock, cleared the flag of
    the first, and the lock was never released. From then on nothing is written, and no line says so.
    """
    listener = make_handler().listener
    listener.before_fork(5.0)
    other = threading.Thread(
        target=lambda: (listener.before_fork(0.01), listener.committer.lock.after_fork_in_parent())
    )
    other.start()
    other.join()
    assert listener.committer.lock._lock.locked()
    listener.committer.lock.after_fork_in_parent()

    free = listener.committer.lock._lock.acquire(blocking=False)
    listener.committer.lock._lock.release()
    assert free


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_may_fork(run, contents):
    """
    A child forks again, as a daemon does: it has nothing to let go of that its parent had taken for the first fork.
    """
    run(
        """
        logger.addHandler(SQLiteHandler(path))
        logger.info("first 1")
        pid = os.fork()
        if not pid:
            pid = os.fork()
            if not pid:
                logger.info("third 1")
                sys.exit()
            logger.info("second 1")
        assert 0 == os.waitpid(pid, 0)[1]
        """,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )

    assert {"first": [1], "second": [1], "third": [1]} == contents().numbers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("hook", ["_process._after_fork_in_parent", "_process.forks.let_go"])
def test_an_exception_from_a_signal_handler_during_a_fork(run, contents, hook):
    """
    A signal that came during a fork is handled in the first line of the hook that comes after it. The locks go anyway.

    They stayed taken for ever: nothing was written any more, and the first close dropped all that was queued.
    """
    run(
        """
        from sqlite_log_handler import LogReader
        handler = SQLiteHandler(path)
        reader = LogReader(path)
        logger.addHandler(handler)
        def limit(number, frame): raise TimeoutError
        signal.signal(signal.SIGALRM, limit)
        def trace(frame, event, argument):
            if frame.f_code is HOOK.__code__:
                sys.settrace(None)
                signal.raise_signal(signal.SIGALRM)
        sys.settrace(trace)
        pid = os.fork()
        if not pid:
            sys.settrace(None)
            sys.exit()
        os.waitpid(pid, 0)
        logger.info("parent 1")
        assert handler.flush()
        def work():
            logging.getLogger("new")  # takes logging's lock
            reader.close()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """.replace("HOOK", hook),
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
        stderr=f"Exception ignored .*<function {hook.rpartition('.')[-1]}.*TimeoutError.*",
    )

    assert {"parent": [1]} == contents().numbers


def test_what_a_signal_handler_raises_at_any_call_of_a_fork(make_handler):
    """
    Wherever a signal handler raises in the hooks of a fork, no lock is left taken.

    Ctrl-C that came when logging's lock had just been taken, or was just to be let go of, left it taken for ever: every
    other thread waited for it at its first `getLogger`. So did the lock of a reader, and the one to open another.
    """
    handler = make_handler()
    handler.listener.start()
    handler.flush()
    reading = connect_read_only(handler.filename)
    hooks = [process._before_fork, forks._before_fork]
    hooks += 2 * [forks.let_go, process._after_fork_in_parent]
    events, failing, free = 0, 0, []

    def take(lock):
        free.append(lock.acquire(timeout=5))
        if free[-1]:
            lock.release()

    def interrupt(frame, event, argument):
        nonlocal events
        # No signal handler runs just before a call of C code.
        events += event != "c_call" and frame.f_code.co_filename.startswith(PACKAGE)
        if events == failing:
            raise KeyboardInterrupt(frame.f_code.co_name, frame.f_lineno, event, argument)

    while events == failing:
        events, failing = 0, failing + 1
        for hook in hooks:
            try:
                sys.setprofile(interrupt if events < failing else None)
                hook()
            except KeyboardInterrupt as error:
                where = error.args
            sys.setprofile(None)
        free.clear()
        for lock in (LOGGING_LOCK, handler.listener.committer.lock._lock, forks._opening(), reading.lock):
            thread = threading.Thread(target=take, args=(lock,))
            thread.start()
            thread.join()
        assert ([True] * 4, []) == (free, forks._held), where
    reading.close()


def test_a_handler_made_during_a_fork(make_handler, tmp_path):
    """
    A handler that another thread makes between the two halves of a fork disturbs neither.

    The hook that runs after the fork went through all handlers, and the new one had never been asked before: an
    AttributeError, and the handlers after it kept their commit lock for ever.
    """
    listeners = [make_handler(tmp_path / "a.db").listener]
    process._before_fork()
    listeners.append(make_handler(tmp_path / "b.db").listener)
    try:
        process._after_fork_in_parent()
        assert [False, False] == [listener.committer.lock._lock.locked() for listener in listeners]
    finally:
        for listener in listeners:
            if listener.committer.lock._lock.locked():
                listener.committer.lock._lock.release()
