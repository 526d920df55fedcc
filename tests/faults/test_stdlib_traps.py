"""
Traps of `logging`, `queue` and `threading`, one test each, with the story of how a handler falls into it.
"""

from __future__ import annotations

import gc
import logging
import logging.config
import logging.handlers
import math
import sqlite3
import sys
import threading
import weakref
from unittest.mock import Mock

import pytest
from records import messages

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile import forks, locks
from sqlite_log_handler._logfile.locks import LOGGING_LOCK
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import listener as listener_module
from sqlite_log_handler._write import queue as queue_module


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
    with handler.listener.committer.lock._lock:
        # A commit of the thread would hold the rows that `close` drops.
        handler.listener.committer.outage.next_attempt = math.inf

    handler.close()
    lock()

    thread.join()
    assert {"queue_full": 3, "close_timeout": 2} == handler.stats().dropped_by_cause


def test_an_idle_listener_lives_on(make_handler, logger, query, monkeypatch):
    """
    Woken for nothing, the listener waits again.

    `QueueListener._monitor` ends its loop at `queue.Empty`: a `dequeue` with a timeout ends the thread at the first
    idle tick, silently, and every later record is lost.
    """
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    idle, waits = threading.Semaphore(0), handler.listener.seconds_to_wait

    def wait(now):
        seconds = waits(now)
        if seconds is None:
            idle.release()
        return seconds

    monkeypatch.setattr(handler.listener, "seconds_to_wait", wait)
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
    The same thread makes the next attempt after each error of a commit.

    What comes out of `QueueListener.handle` ends the thread: every later record is lost, and only the first line on
    stderr, if there is one, says so.
    """
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    write, failed, written = handler.listener.committer.writer.write, [], threading.Event()

    def fails_once(batch, outcome, **options):
        if not failed:
            failed.append(threading.current_thread())
            raise error("once")
        done = write(batch, outcome, **options)
        failed.append(threading.current_thread())
        written.set()
        return done

    monkeypatch.setattr(handler.listener.committer.writer, "write", fails_once)
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
    no caller waits without a limit: the record is dropped, and counted as `contended`.
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
        """A lock that another thread releases between the look and the release."""

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


def test_dictconfig_closes_while_the_listener_logs(make_handler, logger, lock, logging_tree, query, monkeypatch):
    """
    `close` under logging's own locks returns though the listener waits for them.

    The second dictConfig holds `logging._lock` and the handler's lock while it closes the old handlers. A listener
    that warns of drops needs the first of them, and a thread that joins it waits for ever.
    """
    monkeypatch.setattr(listener_module, "LOCKED_PATIENCE", 60)  # for a slow machine
    gc.collect()  # what other tests have left: to end a handler takes logging's lock, also on the listener's thread
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
    # To join that thread would take an hour.
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


@pytest.mark.parametrize("holder", ["queue", "forks"])
def test_a_handler_is_freed_under_our_lock(make_handler, logger, query, monkeypatch, tmp_path, holder):
    """
    `dictConfig` ends, though a thread that holds a lock of ours needs the one that `dictConfig` holds.

    A garbage collection may come under any lock, and the end of a handler takes logging's. `dictConfig` closes handlers
    under that one, and makes new ones: the two threads waited for each other for ever.
    """
    monkeypatch.setattr(locks, "LOCKED_TIMEOUT", 0.01)
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    logger.info("before")
    assert handler.flush()
    held, locked = threading.Event(), threading.Event()

    def collect():
        with {"queue": handler.queue.mutex, "forks": forks._opening()}[holder]:
            held.set()
            locked.wait()
            with LOGGING_LOCK:  # as logging's own callback for a handler that is freed
                pass

    thread = threading.Thread(target=collect)
    thread.start()
    held.wait()
    with LOGGING_LOCK:
        locked.set()
        handler.flush()
        handler.close()
        other = make_handler(tmp_path / "other.db")
    thread.join()
    logger.addHandler(other)
    logger.info("after")

    assert (True, True, 0, 0) == (handler.flush(), other.flush(), handler.dropped_total, other.dropped_total)
    assert ["before", "after"] == messages(query)


def test_current_thread_is_replaced(make_handler, logger, query, monkeypatch):
    """
    A listener that takes itself for another one, which was stopped, ends, and the next record starts it anew.

    gevent replaces `threading.current_thread` when it patches Python, so does a mock in a test, and a program may have
    logged before. The thread ended and nobody missed it: nothing was written any more, and no line said so.
    """
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    logger.info("before")
    thread = handler.listener._thread
    with monkeypatch.context() as patch:
        patch.setattr(threading, "current_thread", Mock())
        handler.queue.wake()
        thread.join()
    written = watch_commits(handler, monkeypatch)
    logger.info("after")
    written.wait()
    handler.close()

    assert ["before", "after"] == messages(query)


def watch_commits(handler, monkeypatch):
    """Return an event that is set when a commit has ended."""
    write, written = handler.listener.committer.writer.write, threading.Event()

    def watched(batch, outcome, **options):
        try:
            return write(batch, outcome, **options)
        finally:
            written.set()

    monkeypatch.setattr(handler.listener.committer.writer, "write", watched)
    return written


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
    written = watch_commits(handler, monkeypatch)
    logger.info("after")
    written.wait()
    handler.close()

    assert ["before", "after"] == messages(query)


def test_close_lets_no_sqlite_error_out(make_handler, monkeypatch):
    """
    Handlers after ours are closed too when SQLite raises.

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
        patch.setattr(handler.listener.committer.writer, "close", fails)
        logging.shutdown([lambda: later, lambda: handler])

    assert [True] == closed


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
    A formatter that fails costs its own record only, in each way to complain.

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
