"""
Traps of the standard library, one test each, with the story of how a handler falls into it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import logging.config
import logging.handlers
import math
import os
import sqlite3
import sys
import threading
import weakref

import pytest

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import process
from sqlite_log_handler._write import queue as queue_module


def messages(query):
    """Return the messages in the file, in order, without the drop warnings."""
    return [text for (text,) in query("SELECT message FROM logs WHERE logger <> ? ORDER BY id", OWN_LOGGER)]


@pytest.fixture
def lock(path):
    """Another connection that locks the database: `lock()`, and again to let go."""
    connection = sqlite3.connect(path, isolation_level=None)

    def toggle():
        connection.execute("ROLLBACK" if connection.in_transaction else "BEGIN IMMEDIATE")

    yield toggle

    connection.close()


def test_dictconfig_takes_the_class_by_its_name(path, query, logging_tree):
    """
    `class:` in dictConfig works on every version.

    A subclass of QueueHandler would not: 3.12 raises ValueError for it, and from 3.13 on dictConfig passes a queue of
    its own as the first argument, where our filename is.
    """
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": str(path)}},
        "loggers": {"configured": {"handlers": ["db"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(config)
    logging.getLogger("configured").info("x")
    (handler,) = logging.getLogger("configured").handlers
    handler.flush()

    assert (False, ["x"]) == (isinstance(handler, logging.handlers.QueueHandler), messages(query))


def test_a_full_queue_can_be_closed(make_handler, logger, lock, warnings):
    """
    `close` ends the thread though the queue is full.

    `QueueListener.stop` puts a sentinel into the queue: with a bounded one that is full, `queue.Full` escapes from it
    and the thread goes on for ever.
    """
    threads = set(threading.enumerate())
    handler = make_handler(capacity=2, reserve=0, fair_share=1, close_timeout=0.5)
    logger.addHandler(handler)
    lock()
    logger.info("x")
    (thread,) = set(threading.enumerate()) - threads  # before anything is dropped: a warning has a thread of its own
    for _ in range(4):
        logger.info("x")
    handler.flush(0)
    with handler.listener._commit_lock:
        handler.listener.outage.next_attempt = math.inf  # a commit of the thread would hold the rows that `close` drops

    handler.close()
    lock()

    thread.join()
    assert {"queue_full": 3, "close_timeout": 2} == handler.stats().dropped_by_cause


def test_an_idle_listener_lives_on(make_handler, logger, query, monkeypatch):
    """
    Woken for nothing, the listener waits again.

    `QueueListener._monitor` ends its loop at `queue.Empty`: a `dequeue` with a timeout ends the thread at the first
    idle tick, silently, and whatever is logged later is lost.
    """
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    idle, waits = threading.Semaphore(0), handler.listener.wait

    def wait(now):
        seconds = waits(now)
        if seconds is None:
            idle.release()
        return seconds

    monkeypatch.setattr(handler.listener, "wait", wait)
    handler.listener.start()
    idle.acquire()  # with nothing to do yet: from here on it is idle once for each wake-up
    thread = handler.listener._thread
    logger.info("first")
    idle.acquire()
    for _ in range(3):
        handler.queue.wake()
        idle.acquire()
    logger.info("second")
    idle.acquire()

    assert (True, thread) == (thread.is_alive(), handler.listener._thread)
    assert ["first", "second"] == messages(query)


@pytest.mark.parametrize("error", [ValueError, sqlite3.OperationalError, MemoryError, SystemExit, KeyboardInterrupt])
def test_nothing_ends_the_listener(make_handler, logger, query, monkeypatch, error):
    """
    Whatever a commit raises, the same thread makes the next attempt.

    What comes out of `QueueListener.handle` ends the thread: every later record is lost, and only the first line on
    stderr, if there is one, says so.
    """
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    write, failed, written = handler.listener.writer.write, [], threading.Event()

    def fails_once(batch, outcome):
        if not failed:
            failed.append(threading.current_thread())
            raise error("once")
        done = write(batch, outcome)
        failed.append(threading.current_thread())
        written.set()
        return done

    monkeypatch.setattr(handler.listener.writer, "write", fails_once)
    logger.info("x")
    written.wait()
    handler.flush()

    assert 1 == len(set(failed))
    assert ["x"] == messages(query)


def test_starting_twice_and_stopping_twice(make_handler, logger):
    """
    Two starts are one thread, two stops are no error.

    `QueueListener.start` forgets the first thread when it is called again (to 3.13); `stop` raises AttributeError the
    second time (to 3.12).
    """
    threads = threading.active_count()
    handler = make_handler()
    for _ in range(3):
        handler.listener.start()
    assert threads + 1 == threading.active_count()

    for _ in range(3):
        handler.listener.stop()
    assert threads == threading.active_count()


def test_logging_while_the_same_thread_is_in_the_queue(make_handler, logger, query):
    """
    A record logged by a thread that holds the queue's mutex is queued.

    A signal handler or a `__del__` runs in the middle of `put`. The mutex of `queue.Queue` is a plain Lock, so there
    the thread waits for itself: a deadlock, on all versions.
    """
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("before")
    with handler.queue.mutex:
        logger.info("inside")
    handler.flush()

    assert ["before", "inside"] == messages(query)


def test_two_queues_in_opposite_orders(make_handler, tmp_path, monkeypatch, warnings):
    """
    Two threads, each holding one handler's mutex and logging to the other's, both go on.

    A collection can log from anywhere, so no order of locks can be kept. RLocks are no help here; what is, is that
    nobody who logs waits without a limit: the record is dropped, and counted as `contended`.
    """
    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0.01)
    handlers = [make_handler(tmp_path / f"{name}.db") for name in "ab"]
    held, gave_up = threading.Barrier(2), threading.Barrier(2)

    def cross(own, other):
        with own.queue.mutex:
            held.wait()
            other.handle(logging.makeLogRecord({"msg": "x", "levelno": 20, "levelname": "INFO"}))
            gave_up.wait()

    for handler in handlers:
        handler.listener.start()
    threads = [threading.Thread(target=cross, args=pair) for pair in (handlers, handlers[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [{"contended": 1}] * 2 == [handler.stats().dropped_by_cause for handler in handlers]


def test_the_listener_is_woken_without_a_lock_that_can_deadlock(make_handler, logger):
    """
    A wake-up in the middle of a wake-up is one wake-up.

    `Event.set` and `Condition.notify` take a lock that is not reentrant: a signal handler that logs while its thread
    is inside one waits for itself. Releasing a raw lock takes none; a RuntimeError says that it was done already.
    """
    handler = make_handler()

    class Interrupted:
        """A lock that somebody else releases between the look and the release."""

        def __init__(self):
            self.lock = threading.Lock()
            self.lock.acquire()

        def locked(self):
            return True

        def release(self):
            if self.lock.locked():
                self.lock.release()
                handler.queue.wake()
            self.lock.release()

    handler.queue.wakeup = Interrupted()
    handler.queue.wake()

    assert not handler.queue.wakeup.lock.locked()


def test_dictconfig_closes_while_the_listener_logs(make_handler, logger, lock, logging_tree, query):
    """
    `close` under logging's own locks returns though the listener waits for them.

    The second dictConfig holds `logging._lock` and the handler's lock while it closes the old handlers. A listener
    that warns of drops needs the first of them, and whoever joins it waits for ever.
    """
    entered, taken, warned = threading.Event(), threading.Event(), []
    module_lock = logging._lock  # type: ignore[attr-defined]

    class NeedsTheLock(logging.Handler):
        def emit(self, record):
            entered.set()
            taken.wait()
            with module_lock:
                warned.append(record.dropped)

    logging.getLogger(OWN_LOGGER).addHandler(NeedsTheLock())
    logging.getLogger(OWN_LOGGER).propagate = False
    # Who joins that thread waits for an hour.
    handler = make_handler(capacity=1, reserve=0, fair_share=1, flush_interval=0.001, close_timeout=3600)
    logger.addHandler(handler)
    lock()
    for _ in range(3):
        logger.info("x")
    entered.wait()
    lock()
    with module_lock:
        taken.set()
        handler.acquire()
        try:
            handler.close()
        finally:
            handler.release()
        assert ["x"] == messages(query)

    assert 2 == handler.dropped_total


def test_a_closed_handler_that_stays_attached(make_handler, logger, query, monkeypatch):
    """
    A handler that was closed and is still attached works: a thread of its own commits what comes.

    dictConfig closes handlers and leaves them on loggers that it does not name; uvicorn's and celery's configurations
    do just that to yours. A handler that is closed for good swallows everything from there on.
    """
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    logger.info("before")
    logging.shutdown([lambda: handler])
    write, written = handler.listener.writer.write, threading.Event()

    def watched(batch, outcome):
        try:
            return write(batch, outcome)
        finally:
            written.set()

    monkeypatch.setattr(handler.listener.writer, "write", watched)
    logger.info("after")
    written.wait()
    handler.close()

    assert ["before", "after"] == messages(query)


def test_close_lets_no_sqlite_error_out(make_handler, monkeypatch):
    """
    Handlers that are closed after ours are closed whatever SQLite says.

    `logging.shutdown` forgives OSError and ValueError. A `sqlite3.Error` ends its loop, and the handlers that come
    after are never flushed.
    """
    closed = []

    class Later(logging.Handler):
        def close(self):
            closed.append(True)
            super().close()

    handler, later = make_handler(), Later()

    def fails():
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.writer, "close", fails)
        logging.shutdown([lambda: later, lambda: handler])

    assert [True] == closed


def test_a_handler_that_could_not_be_made_is_nowhere(run):
    """
    A wrong option leaves nothing for the exit to stumble on.

    A class that raises after `logging.Handler.__init__` leaves a half-made handler in logging's list; when the
    interpreter ends, `logging.shutdown` prints a traceback for it.
    """
    run(
        """
        errors = []  # a traceback keeps alive what was half made
        for options in ({"capacity": 0}, {"level": "LOUD"}, {"flush_interval": -1}, {"unknown": 1}):
            try: SQLiteHandler(path, **options)
            except (TypeError, ValueError) as error: errors.append(error)
        try: SQLiteHandler(path + "/missing/x.db")
        except FileNotFoundError as error: errors.append(error)
        assert 5 == len(errors)
        assert [] == [known() for known in logging._handlerList if isinstance(known(), SQLiteHandler)]
        """
    )


def test_the_first_record_comes_when_no_thread_can_start(run, contents):
    """
    A record that is the first ever and comes at exit is written by its caller.

    From 3.12 on starting a thread while the interpreter ends raises RuntimeError: a handler that starts its thread
    lazily loses what atexit callbacks log.
    """
    run(
        """
        def refuse(thread): raise RuntimeError("can't create new thread at interpreter shutdown")
        threading.Thread.start = refuse  # on every version
        logger.addHandler(SQLiteHandler(path))
        atexit.register(lambda: [logger.info("exit %d", number) for number in range(3)])
        """
    )

    assert {"exit": [0, 1, 2]} == contents().numbers


def test_a_subinterpreter_without_threads(run, contents):
    """
    An isolated subinterpreter refuses daemon threads; the log is kept there too.

    `Thread.start` raises RuntimeError in it, which is nobody's fault: the rows wait, and `flush` or `close` writes
    them.
    """
    try:
        import _interpreters  # noqa: PLC0415, F401 - 3.13
    except ImportError:
        pytest.skip("isolated subinterpreters can be had from Python 3.13 on")
    out = run(
        """
        import _interpreters
        code = f'''if True:
            import logging, threading
            try:
                from sqlite_log_handler import SQLiteHandler
            except ImportError as error:
                print(error, end="")
            else:
                logger = logging.getLogger("program")
                logger.setLevel(1)
                handler = SQLiteHandler({path!r})
                logger.addHandler(handler)
                for number in range(3):
                    logger.info("sub %d", number)
                assert handler.flush()
                handler.close()
        '''
        interpreter = _interpreters.create("isolated")
        failed = _interpreters.exec(interpreter, code)
        assert not failed, failed
        _interpreters.destroy(interpreter)
        """
    )
    if out:
        pytest.skip(f"this interpreter has no sqlite3 for subinterpreters: {out}")

    assert {"sub": [0, 1, 2]} == contents().numbers


def test_the_process_ends(run, contents):
    """
    The listener keeps no process alive, and what it had not written is written.

    A thread that is no daemon is waited for before any atexit callback runs, so it is never told to stop.
    """
    run(
        """
        logger.addHandler(SQLiteHandler(path, flush_interval=3600))
        logger.info("last %d", 1)
        assert [True] == [thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()]
        """
    )

    assert {"last": [1]} == contents().numbers


def test_a_multiprocessing_child_runs_no_atexit(run, contents):
    """
    A child made by multiprocessing keeps its last tick.

    Up to 3.12 such a child ends by `os._exit` and runs no atexit callback. multiprocessing has a list of its own,
    `util.Finalize`, where the handler puts itself at its first record.
    """
    run(
        """
        import multiprocessing
        def work():
            logger.info("child %d", 1)
        if __name__ == "__main__":
            logger.addHandler(SQLiteHandler(path, flush_interval=3600))
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            assert 0 == process.exitcode
        """
    )

    assert {"child": [1]} == contents().numbers


def test_a_thread_that_outlives_the_work_of_a_multiprocessing_child(run, contents):
    """
    A thread of such a child keeps what it logs after `multiprocessing.util.Finalize` has had its turn.

    The child joins its threads after that, and ends by `os._exit`. A handler that got its first record by then was
    never told of the end.
    """
    run(
        """
        import multiprocessing, multiprocessing.util
        def log_later():
            while not multiprocessing.util._exiting: pass
            for number in range(3): logger.info("thread %d", number)
        def work(): threading.Thread(target=log_later).start()
        if __name__ == "__main__":
            logger.addHandler(SQLiteHandler(path, flush_interval=3600))
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            assert 0 == process.exitcode
        """
    )

    assert {"thread": [0, 1, 2]} == contents().numbers


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
        locks = handler.queue.mutex, handler.listener._commit_lock
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
        writer = handler.listener.writer
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
        inherited = handler.listener.writer.file.connection
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
        def acquire(self):
            locked.append(listener._commit_lock.locked())

        release = acquire

    monkeypatch.setattr(process, "LOGGING_LOCK", Recorder())
    process._before_fork()
    locked.append(listener._commit_lock.locked())
    process._after_fork_in_parent()

    assert [False, True, False] == locked


@pytest.mark.skipif(
    (3, 13, 4) <= sys.version_info[:3] <= (3, 13, 5),
    reason="3.13.4 and 3.13.5 lose every log call made inside a log call (gh-91555, reverted in 3.13.6)",
)
def test_a_log_call_inside_a_log_call(make_handler, logger, query):
    """
    What an argument's `__str__` logs is stored, before the record it is part of.

    A handler with a lock that is not reentrant hangs here, and two versions of CPython lost the inner record.
    """
    handler = make_handler()
    logger.addHandler(handler)

    class Talks:
        def __str__(self):
            logger.info("inner")
            return "outer"

    logger.info("%s", Talks())
    handler.flush()

    assert ["inner", "outer"] == messages(query)


@pytest.mark.parametrize("quiet", ["no stderr", "no raiseExceptions", "recursion"])
def test_trouble_is_quiet(make_handler, logger, query, monkeypatch, capsys, quiet):
    """
    A formatter that fails costs its own record only, whatever the way to complain is.

    Without a console `sys.stderr` is None; `raiseExceptions` is there to be switched off; a RecursionError leaves no
    stack to complain with. `Handler.handleError` minds the first two.
    """
    handler = make_handler()
    logger.addHandler(handler)

    class Fails(logging.Formatter):
        def format(self, record):
            return self.format(record) if quiet == "recursion" else 1 / 0  # type: ignore[return-value]

    handler.setFormatter(Fails())
    if quiet == "no stderr":
        monkeypatch.setattr(sys, "stderr", None)
    elif quiet == "no raiseExceptions":
        monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("x")
    handler.setFormatter(None)
    logger.info("y")
    handler.flush()
    monkeypatch.undo()

    first, second = messages(query)
    assert (True, "y", 1) == (first.startswith("x <not formatted: "), second, handler.stats().malformed)
    assert "" == capsys.readouterr().err


def test_a_handler_that_was_removed_and_forgotten(path, logger, query):
    """
    A handler taken off its logger without `close` is collected; its thread writes what there is and ends.

    A thread that holds its handler keeps both for ever, with the file and its locks.
    """
    handler = SQLiteHandler(path, flush_interval=3600)
    logger.addHandler(handler)
    logger.info("x")
    thread, gone = handler.listener._thread, weakref.ref(handler)
    logger.removeHandler(handler)

    del handler
    gc.collect()
    thread.join()

    assert (None, ["x"]) == (gone(), messages(query))


# What was found when these tests were written -------------------------------------------------------------------------


def test_an_exception_from_a_signal_handler_leaves_no_lock(run):
    """
    Whatever a signal handler raises into a log call, the queue's mutex is free afterwards.

    `if mutex.acquire(): ... try:` is interrupted between the call and the `try`: CPython looks for signals when a call
    returns. Ctrl-C or a time limit that raises (celery, pytest-timeout) then leaves the mutex to the main thread for
    ever: the listener waits for it without end, and every other thread for a second a record.
    """
    run(
        """
        handler = SQLiteHandler(path, capacity=100)
        logger.addHandler(handler)
        logger.propagate = False
        logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
        class TimeLimit(BaseException): pass
        armed = False
        def limit(number, frame):
            if armed: raise TimeLimit
        signal.signal(signal.SIGALRM, limit)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        count = 0
        while count < 1500 and not handler.queue.mutex._is_owned():
            try:
                armed = True
                while True: logger.info("x")
            except TimeLimit:
                armed = False
                count += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert 1500 == count, f"the mutex is held after {count} signals"
        """
    )


def test_an_exception_from_a_signal_handler_leaves_no_commit_lock(run):
    """
    Whatever a signal handler raises into a commit, the commit lock is free afterwards, and its thread may commit.

    Ctrl-C between `acquire()` and the `try` that releases left it to the main thread for ever: nothing was written any
    more, and nobody said so. A context manager is no way out: what is raised into the frames of `contextlib` leaves the
    lock taken as long as somebody keeps the exception, as the REPL does.
    """
    run(
        """
        handler = SQLiteHandler(path)
        class TimeLimit(BaseException): pass
        armed = False
        def limit(number, frame):
            if armed: raise TimeLimit
        signal.signal(signal.SIGALRM, limit)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        listener, count = handler.listener, 0
        while count < 1500 and listener.commit(0.1):
            try:
                armed = True
                while True: listener.commit()
            except TimeLimit as error:
                armed = False
                count, kept = count + 1, error
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert 1500 == count, f"the commit lock is held after {count} signals"
        """
    )


@pytest.mark.parametrize("when", ["BEGIN IMMEDIATE", "INSERT", "COMMIT"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_an_exception_from_a_signal_handler_writes_nothing_twice(
    make_handler, logger, query, monkeypatch, unattended, when, before, error
):
    """
    Whatever a signal handler raises into `flush`, each row is in the file once.

    Ctrl-C that came when COMMIT had just returned looked like a commit that had failed: the batch was written again.
    """
    interrupting = []

    class Interrupted(sqlite3.Connection):
        def execute(self, sql, *arguments):
            interrupted = interrupting and sql.lstrip().startswith(when)
            if interrupted:
                interrupting.clear()
            done = None if interrupted and before else super().execute(sql, *arguments)
            if interrupted:
                raise error
            return done

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "factory": Interrupted})
    )
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(3):
        logger.info("%d", number)
        handler.flush()
        logger.info("%d again", number)
        interrupting.append(True)
        # What is an Exception cannot be told from a commit that failed, and is tried again.
        with contextlib.nullcontext() if error is TimeoutError else pytest.raises(error):
            assert handler.flush()
    handler.flush()

    assert [f"{number}{again}" for number in range(3) for again in ("", " again")] == messages(query)
    assert (6, 6, 0) == (handler.stats().seen, handler.stats().written, handler.stats().queued)


@pytest.mark.parametrize("where", ["_put_back", "_review", "_remove", "_head"])
def test_an_exception_from_a_signal_handler_leaves_no_wrong_books(
    make_handler, logger, query, monkeypatch, unattended, where
):
    """
    What a signal handler raises while written rows leave the queue costs no row, and the books and the bounds hold.
    """
    handler = make_handler(capacity=10, reserve=0, fair_share=1)
    logger.addHandler(handler)
    for number in range(10):
        logger.info("%d", number)
    write = handler.listener.writer.write
    step = getattr(handler.queue, where)

    def interrupted(*arguments, **options):
        monkeypatch.setattr(handler.queue, where, step)
        raise KeyboardInterrupt

    def written(batch, outcome):
        write(batch, outcome)
        monkeypatch.setattr(handler.queue, where, interrupted)

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.writer, "write", written)
        with pytest.raises(KeyboardInterrupt):
            handler.flush()
    for number in range(10, 20):
        logger.info("%d", number)
    handler.flush()

    assert list(map(str, range(20))) == messages(query)
    assert (20, 20, 0, 0) == (
        handler.stats().seen,
        handler.stats().written,
        handler.stats().queued,
        len(handler.queue.queue),
    )


def test_an_exception_from_a_signal_handler_loses_no_wake_up(make_handler, logger, monkeypatch, unattended):
    """
    When a signal handler raises after a record was queued, the listener is woken all the same.

    The exception comes out between the append and the wake-up, and the listener has nothing else to wait for: the
    rows stay in memory until a batch is full.
    """
    handler = make_handler()
    logger.addHandler(handler)
    handler.listener.start()
    wake, interrupted = handler.queue.wake, []

    def interrupt():
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        wake()

    monkeypatch.setattr(handler.queue, "wake", interrupt)
    with pytest.raises(KeyboardInterrupt):
        logger.info("x")

    assert (False, 1) == (handler.queue.wakeup.locked(), handler.stats().queued)


def test_one_handler_that_raises_at_exit_costs_no_other(run, contents, path):
    """
    At exit every handler is written, though the drop warning of one meets a handler that raises.

    An atexit callback that goes through a list ends with the first exception. The handlers behind it, when dictConfig
    has taken them off logging's list, have nobody else to write them.
    """
    run(
        """
        class Raises(logging.Handler):
            def handle(self, record): raise RuntimeError("no")
        own = logging.getLogger("sqlite_log_handler")
        own.addHandler(Raises())
        own.propagate = False
        handlers = [SQLiteHandler(f"{path}{name}", capacity=1, reserve=0, flush_interval=3600) for name in ("", "-2")]
        logging._handlerList.clear()
        for handler in handlers:
            logger.addHandler(handler)
        for number in range(3):
            logger.info("x %d", number)
        """,
        stderr=".*",
    )

    for other in ("", "-2"):
        assert {"x": [0]} == contents(f"{path}{other}").numbers


def test_give_up_leaves_a_batch_that_is_being_copied(make_handler, logger, unattended):
    """
    `close` that gives up while another thread copies a batch drops none of the rows that are then written.

    The batch is copied under the mutex, measured without it, and marked as held under it again. In between its rows
    looked like rows that nobody holds: dropped and written, and others removed in their place.
    """
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(4):
        logger.info("%d", number)
    queue = handler.queue
    queue.settle()

    class Measured(tuple):
        """A row that is measured while `close` gives up."""

        __slots__ = ()

        def __getitem__(self, index):
            if index == queue_module.SIZE and queue._rows_in_commit < 4 and not given_up:
                given_up.append(None)
                given_up.append(queue.give_up(queue.removed + queue.queued, "close_timeout"))
            return tuple.__getitem__(self, index)

    given_up: list[int | None] = [None]
    rows = [Measured(row) for row in queue.queue]
    queue.queue.clear()
    queue.queue.extend(rows)
    given_up.clear()
    batch = queue.begin_commit(1 << 30)
    queue.end_commit(batch)

    assert (4, 0, 0) == (queue.written, queue.dropped_total, queue.queued)


def test_two_forks_at_once_leave_no_lock(make_handler):
    """
    When two threads fork at the same time, each lets go of what it holds itself, and of nothing else.

    "Held for the fork" was one flag for all threads: the second fork, which did not get the lock, cleared the flag of
    the first, and the lock was never released. From then on nothing is written, and nobody says so.
    """
    listener = make_handler().listener
    listener.before_fork(5.0)
    other = threading.Thread(target=lambda: (listener.before_fork(0.01), listener.after_fork_in_parent()))
    other.start()
    other.join()
    assert listener._commit_lock.locked()
    listener.after_fork_in_parent()

    free = listener._commit_lock.acquire(blocking=False)
    listener._commit_lock.release()
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
def test_an_exception_from_a_signal_handler_during_a_fork(run, contents):
    """
    A signal that came during a fork is handled in the first line of the hook that comes after it. The locks go anyway.

    They stayed taken for ever: nothing was written any more, and the first close dropped all that was queued.
    """
    run(
        """
        handler = SQLiteHandler(path)
        logger.addHandler(handler)
        def limit(number, frame): raise TimeoutError
        signal.signal(signal.SIGALRM, limit)
        def trace(frame, event, argument):
            if frame.f_code is _process._after_fork_in_parent.__code__:
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
        thread = threading.Thread(target=logging.getLogger, args=("new",))  # takes logging's lock
        thread.start()
        thread.join()
        """,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
        stderr="Exception ignored .*<function _after_fork_in_parent.*TimeoutError.*",
    )

    assert {"parent": [1]} == contents().numbers


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
        assert [False, False] == [listener._commit_lock.locked() for listener in listeners]
    finally:
        for listener in listeners:
            if listener._commit_lock.locked():
                listener._commit_lock.release()
