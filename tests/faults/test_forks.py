"""
Traps of a fork: locks, commits and connections that a child inherits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
from pathlib import Path

import pytest
from batches import stored
from locked import in_another_thread

import sqlite_log_handler
from sqlite_log_handler import LogReader
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile import locks as logfile_locks
from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.locks import LOGGING_LOCK, acquire, held_by_forks
from sqlite_log_handler._write import listener as listener_module
from sqlite_log_handler._write import locks, process, threads

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
    A fork takes logging's module lock first, then the commit locks, as `dictConfig` does, and lets go of the first.

    That holds the module lock while it closes handlers, which wait for their commit locks; a fork had those, and
    waited for the module lock. Each `close` lost what was queued after five seconds, on a healthy disk.
    """
    listener = make_handler().listener
    locked = []

    class Recorder:
        def acquire(self, *_):
            locked.append(listener.committer.lock._lock.locked())
            return True

        release = _is_owned = acquire

    monkeypatch.setattr(process, "LOGGING_LOCK", Recorder())
    process._before_fork()
    locked.append(listener.committer.lock._lock.locked())
    forks.let_go()
    process._after_fork_in_parent()

    assert [False, False, True, True] == locked


@contextlib.contextmanager
def forking():
    """Be between the two halves of the hooks of a fork."""
    process._before_fork()
    try:
        yield
    finally:
        forks.let_go()
        process._after_fork_in_parent()


def no_thread(_):
    """Fail as a process that has no room for a thread."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("has_lock", [True, False], ids=["configuration", "thread"])
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("has_thread", [True, False])
def test_a_handler_that_is_closed_beside_a_fork(make_handler, path, monkeypatch, rows, has_thread, has_lock):
    """
    Who closes a handler while another thread forks drops nothing, and with logging's lock does not wait for the fork.

    The fork waits for that lock itself. And in a hook of the fork, a library may wait for the thread that closes.
    """
    handler = make_handler(flush_interval=3600, close_timeout=3600 if has_lock else 0.01)
    with in_another_thread(forking()), monkeypatch.context() as patch:
        if not has_thread:
            patch.setattr(threads, "start", no_thread)
        for _ in range(rows):
            handler.handle(logging.makeLogRecord({"msg": "kept"}))
        with LOGGING_LOCK if has_lock else contextlib.nullcontext():
            handler.flush()
            handler.close()
    handler.listener.committer.close_timeout = 60
    handler.close()

    assert (0, rows * ["kept"]) == (handler.dropped_total, stored(path))


def test_what_is_left_of_a_handler_that_is_closed_beside_a_fork(make_handler, monkeypatch):
    """
    The thread that goes on alone has `close_timeout` for the rest; without one, the next to commit takes the rows.

    They stayed queued until the exit, if the file was locked just when the fork was over. At the exit itself nobody
    comes after it, so it counts them.
    """
    handler, idle, ending = (make_handler(flush_interval=3600, close_timeout=0.01) for _ in range(3))
    deadlines, finished = [], threading.Event()
    monkeypatch.setattr(
        handler.listener.committer, "finish", lambda *deadline: (deadlines.extend(deadline), finished.set())
    )
    ending.listener.committer.exits = True
    with in_another_thread(forking()), monkeypatch.context() as patch:
        handler.handle(logging.makeLogRecord({"msg": "by the thread"}))
        patch.setattr(threads, "start", no_thread)
        idle.handle(logging.makeLogRecord({"msg": "without a thread"}))
        ending.handle(logging.makeLogRecord({"msg": "at the exit"}))
        with LOGGING_LOCK:
            patience = handler.listener._patience
            handler.close()
            idle.close()
        ending.close()
        owing = idle.listener in listener_module._owing
    finished.wait()

    assert (0, True, False, 1) == (patience, owing, None in deadlines, ending.dropped_total)


def test_a_handler_is_made_beside_a_fork(make_handler, path, monkeypatch):
    """
    A handler that another thread makes in the middle of a fork, as `dictConfig` does, commits when the fork is over.

    The fork does not know its commit lock: in the middle of a commit, the child could never open a file. Logging's lock
    keeps the fork from coming to its end, so who has that commits.
    """
    handler = make_handler()
    assert handler.flush()
    opening, waits = forks._opening(), []

    def record(lock, timeout=-1):
        waits.extend([timeout] * (lock is opening))
        return acquire(lock, timeout)

    foreign = path.with_name("foreign.db")
    with contextlib.closing(sqlite3.connect(foreign)) as other:
        other.execute("CREATE TABLE own (id)")
    with in_another_thread(forking()):
        monkeypatch.setattr(logfile_locks, "acquire", record)
        with LOGGING_LOCK:
            made = make_handler(flush_interval=3600)  # on a file that it would look at
            make_handler(foreign)
            with pytest.raises(TimeoutError):
                LogReader(path)
        lock = made.listener.committer.lock
        made.handle(logging.makeLogRecord({"msg": "made"}))
        beside = made.flush(0), lock.do(lambda: "beside", 0.001)
        with LOGGING_LOCK:
            under = lock.do(lambda: "under logging's lock", 0)
    after = lock.do(lambda: "after", 0)

    assert ((False, None), "under logging's lock", "after", True) == (beside, under, after, made.flush())
    assert (["made"], 0) == (stored(path), waits[0])


def test_a_hook_makes_a_handler_in_a_fork(make_handler):
    """A handler that a hook of the fork makes commits on that thread only, until the fork is over."""

    def by_another_thread():
        other = threading.Thread(target=lambda: done.append(lock.do(lambda: "other", 0.001)))
        other.start()
        other.join()

    with forking():
        lock = make_handler().listener.committer.lock
        done = [lock.do(lambda: "mine", -1)]
        by_another_thread()
    by_another_thread()

    assert ["mine", None, "other"] == done


def test_two_forks_at_once_wait_for_each_other(make_handler, monkeypatch):
    """
    A fork waits for the one under way without logging's lock, which that one needs once more.

    Both waited for five seconds, and the first child had no log. A thread that has the lock itself waits for nothing:
    no commit goes on, because the other fork has each commit lock.
    """
    looks, waits, lock, events = [], threading.Event(), threading.RLock(), []

    class ForkLock:
        def acquire(self, blocking, timeout):
            looks.append((LOGGING_LOCK._is_owned(), timeout))
            waits.set()
            return lock.acquire(blocking, timeout)

        release, _is_owned = lock.release, lock._is_owned

    def fork():
        with forking():
            events.append("forks")

    listener, second = make_handler().listener, threading.Thread(target=fork)
    monkeypatch.setattr(locks, "fork_lock", ForkLock())

    def record(lock, timeout):
        opening.extend([timeout] * (lock is forks._opening()))
        return acquire(lock, timeout)

    opening = []
    with in_another_thread(forking()):
        with LOGGING_LOCK, monkeypatch.context() as patch:
            patch.setattr(forks, "acquire", record)
            fork()
        waits.clear()
        second.start()
        waits.wait()
        with LOGGING_LOCK:
            events.append("the first goes on")
    second.join()

    assert [(False, -1), (True, 0), (False, -1)] == looks
    assert [0] == opening
    assert ["forks", "the first goes on", "forks"] == events
    assert ([], False) == (locks.forking, listener.committer.lock._lock.locked())


def test_a_signal_handler_forks_while_a_fork_takes_locks(monkeypatch):
    """The child of a fork in a fork has a new lock of logging, that is not taken, and nothing is raised."""
    lock = threading.RLock()
    with monkeypatch.context() as patch:
        patch.setattr(process, "LOGGING_LOCK", lock)
        patch.setattr(process, "all_listeners", lambda: lock.release() or [])
        process._before_fork()
    forks.let_go()
    process._after_fork_in_parent()

    assert [] == locks.forking


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
    hooks = [process._before_fork, forks.hold]
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
        mine = handler.listener.committer.lock._lock
        for lock in (LOGGING_LOCK, locks.fork_lock, mine, forks._opening(), reading.lock):
            thread = threading.Thread(target=take, args=(lock,))
            thread.start()
            thread.join()
        assert ([True] * 5, [], []) == (free, held_by_forks, locks.forking), where
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
        forks.let_go()
        process._after_fork_in_parent()
        assert [False, False] == [listener.committer.lock._lock.locked() for listener in listeners]
    finally:
        for listener in listeners:
            if listener.committer.lock._lock.locked():
                listener.committer.lock._lock.release()
