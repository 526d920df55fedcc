"""
Threads, signals, closing and coming back.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import logging.config
import logging.handlers
import os
import sqlite3
import threading
from unittest.mock import Mock

import pytest
from records import messages

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import process, row
from sqlite_log_handler._write.listener import RecordListener
from sqlite_log_handler._write.queue import Closed, RecordQueue


def no_thread(*_):
    """Start no thread, as at the limit of a container."""
    raise RuntimeError("can't start new thread")


def test_emit_takes_no_lock_of_the_handler(make_handler, logger):
    """`logging.shutdown` holds a handler's lock while it flushes and closes it; no caller waits for that."""
    handler = make_handler()
    logger.addHandler(handler)
    handler.acquire()
    try:
        thread = threading.Thread(target=logger.info, args=("x",))
        thread.start()
        thread.join()
    finally:
        handler.release()

    assert 1 == handler.stats().seen


def test_emit_does_not_wait_for_a_commit(make_handler, logger, monkeypatch):
    """While a commit stands still, logging goes on."""
    handler = make_handler()
    logger.addHandler(handler)
    inside, leave = threading.Event(), threading.Event()
    write = handler.listener.committer.writer.write

    def stuck(batch, outcome, **options):
        inside.set()
        leave.wait()
        return write(batch, outcome, **options)

    monkeypatch.setattr(handler.listener.committer.writer, "write", stuck)
    logger.error("first")
    inside.wait()
    for _ in range(1_000):
        logger.info("x")

    assert (1_001, 0) == (handler.stats().queued, handler.stats().written)
    leave.set()


def test_a_time_limit_of_the_program_comes_out_of_flush(make_handler, logger, monkeypatch):
    """
    What a signal handler raises while `flush` waits for its turn comes out, also a TimeoutError.

    The job went on without its time limit.
    """
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("x")
    monkeypatch.setattr(handler.listener.committer, "commit", lambda _: False)
    monkeypatch.setattr(handler.listener.committer, "_sleep", Mock(side_effect=TimeoutError("of the job")))

    with pytest.raises(TimeoutError, match="of the job"):
        handler.flush()
    monkeypatch.undo()


def test_a_closed_handler_comes_back(make_handler, logger, query):
    """A handler that was closed and is used again works again: dictConfig closes handlers that stay attached."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("before")
    handler.close()
    handler.close()
    logger.info("after")
    handler.flush()

    assert ["before", "after"] == messages(query)


def test_no_thread_until_something_is_logged(make_handler, logger):
    """A handler that is only configured, as in the master of a prefork server, has no thread."""
    threads = threading.active_count()
    handler = make_handler()
    logger.addHandler(handler)
    assert threads == threading.active_count()

    logger.info("x")
    assert threads + 1 == threading.active_count()

    handler.close()
    assert threads == threading.active_count()


def test_a_new_process_is_noticed(make_handler, logger, query, monkeypatch, unattended):
    """
    The first record that carries another process id begins anew, whether it is queued or would be refused.

    A process that C code forks, as uWSGI does, runs none of Python's hooks. Its log was dead while it ran, and at its
    end it wrote what its parent had written already.
    """
    monkeypatch.setattr(process, "_run_hooks", lambda: False)
    handler = make_handler(capacity=100, reserve=0)
    logger.addHandler(handler)
    for full in (1, 101):
        for _ in range(full):
            logger.info("parent")
        child = os.getpid() + 1
        with monkeypatch.context() as patch:
            for module in os, row:  # that of `os` for the record
                patch.setattr(module, "getpid", lambda child=child: child)
            logger.info("child")
            stats = handler.stats()
            assert (1, 1, 0) == (stats.seen, stats.queued, stats.dropped_total)
            assert handler.flush()
        handler.stats()  # back in the parent

    assert ["child", "child"] == messages(query)


def test_without_a_thread_records_wait(make_handler, logger, query, monkeypatch):
    """When no thread can be started the record is queued, `stats` says why it waits, and `flush` still writes it."""
    monkeypatch.setattr(RecordListener, "_start_thread", no_thread)
    handler = make_handler(capacity=2, reserve=0)
    logger.addHandler(handler)
    for number in range(3):
        logger.info("%d", number)
    stats = handler.stats()
    assert (2, 1, "RuntimeError: can't start new thread") == (stats.queued, stats.dropped_total, stats.last_error)

    handler.flush()

    assert ["0", "1"] == messages(query)[:2]


def test_without_a_thread_and_without_memory(make_handler, logger, monkeypatch, unattended):
    """
    When neither a thread can be started nor the row be queued, for lack of memory, the next record tries both again.

    The queue stayed open, so later records were queued for a thread that nobody started, until it was full.
    """
    handler = make_handler()
    logger.addHandler(handler)
    admit = Mock(side_effect=[Closed, MemoryError, True])
    with monkeypatch.context() as patch:
        patch.setattr(RecordListener, "_start_thread", no_thread)
        patch.setattr(RecordQueue, "_admit", admit)
        logger.info("1")

    logger.info("2")

    assert handler.listener._thread is not None


def test_a_queue_that_is_closed_again_and_again(make_handler, logger, monkeypatch):
    """However often another thread closes the handler between the start of its thread and the row, the row comes in."""
    handler = make_handler()
    logger.addHandler(handler)
    put, closed = handler.queue.put_nowait, [Closed] * 5

    def put_late(row):
        if closed:
            raise closed.pop()
        put(row)

    monkeypatch.setattr(handler.queue, "put_nowait", put_late)
    logger.info("kept")

    assert (1, 0) == (handler.stats().seen, handler.stats().dropped_total)


def test_a_thread_that_dies_before_it_has_begun(make_handler, logger, query, no_birth):
    """
    A record whose thread dies in its first step waits for the next one, and its caller does not.

    `Thread.start` waits until the thread has begun. When there was no memory for that, the caller waited for ever.
    """
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("first")
    error = handler.stats().last_error
    no_birth.undo()
    logger.info("second")
    handler.close()

    assert "RuntimeError: a new thread did not begin: no memory for it, or an overloaded machine" == error
    assert ["first", "second"] == messages(query)


def test_at_exit_callers_wait_for_close_timeout_together(make_handler, logger, path, monkeypatch, clock):
    """
    While the file cannot be written, the calls that come at exit wait for `close_timeout` seconds, all together.

    Each waited for the lock of a locked file by itself: ten thousand lines of a callback would take nine minutes. And
    when that time was over, a handler with a healthy file wrote nothing more either, and nobody said so.
    """
    handler = make_handler(close_timeout=1, flush_interval=3600)
    healthy = make_handler(path.with_name("healthy.db"), close_timeout=1, flush_interval=3600)
    logger.addHandler(handler)
    logger.addHandler(healthy)
    committer, tries = handler.listener.committer, []

    def commit(timeout):
        tries.append(timeout)
        clock.advance(0.05)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(process.at_exit, "begun", True)
        patch.setattr(process.at_exit, "_failed", {})
        patch.setattr(committer, "now", lambda: clock.now)
        patch.setattr(committer, "commit", commit)
        for _ in range(100):
            logger.info("last")

    assert 20 <= len(tries) <= 21
    assert (100, 0, 100) == (handler.stats().queued, healthy.stats().queued, healthy.stats().written)
    assert handler.flush(60)


def test_at_exit_records_are_committed_by_their_caller(make_handler, logger, query, monkeypatch):
    """Once the interpreter exits there is no thread to commit later, so what is logged then is written at once."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("before")
    monkeypatch.setattr(process.at_exit, "begun", True)
    handler.close()
    logger.info("during")

    assert ["before", "during"] == messages(query)


class OverdueError(TimeoutError):
    """What a signal handler raises, to put an end to what takes too long."""


@pytest.mark.parametrize("queued_by", [1, 2])
def test_a_signal_after_the_row_was_queued(make_handler, logger, query, monkeypatch, unattended, queued_by):
    """
    A time limit is an Exception that may come out of any line of `emit`, and the row may be queued by then.

    Then the record was queued once more, and stood in the log twice.
    """
    handler = make_handler()
    logger.addHandler(handler)
    put_nowait, tries = handler.queue.put_nowait, []

    def interrupted(row):
        tries.append(row)
        if len(tries) == queued_by:
            put_nowait(row)
        raise OverdueError

    logger.info("starts the listener")
    monkeypatch.setattr(handler.queue, "put_nowait", interrupted)
    logger.info("once")
    handler.flush()

    assert (["starts the listener", "once"], 0) == (messages(query), handler.dropped_total)


def test_a_signal_while_the_listener_starts(make_handler, logger, query, monkeypatch):
    """A time limit that ends the start of the thread does not cost the record: a second try is made."""
    handler = make_handler()
    logger.addHandler(handler)
    start = handler.listener.start

    def interrupted():
        monkeypatch.setattr(handler.listener, "start", start)
        raise OverdueError

    monkeypatch.setattr(handler.listener, "start", interrupted)
    logger.info("kept")
    handler.flush()

    assert ["kept"] == messages(query)


@pytest.mark.parametrize("error", [OverdueError, RecursionError, MemoryError, KeyboardInterrupt])
def test_what_cannot_be_queued_at_all_is_counted(make_handler, logger, capsys, monkeypatch, error):
    """When nothing helps, because no frame is left on the stack, say, the call is counted as a drop all the same."""

    def fails(row):
        raise error

    handler = make_handler()
    logger.addHandler(handler)
    logger.info("starts the listener")
    with monkeypatch.context() as patched:
        patched.setattr(handler.queue, "put_nowait", fails)
        with contextlib.nullcontext() if issubclass(error, Exception) else pytest.raises(error):
            logger.info("lost")

    stats = handler.stats()
    assert (2, 1) == (stats.seen, stats.dropped_total)
    assert issubclass(error, Exception) == (error.__name__ in capsys.readouterr().err)


def test_a_handler_that_nobody_has_goes(path, logger, query):
    """A handler that was removed and forgotten without close writes what it has, and its thread ends."""
    threads = set(threading.enumerate())
    handler = SQLiteHandler(path)
    logger.addHandler(handler)
    logger.info("x")
    (thread,) = set(threading.enumerate()) - threads
    logger.removeHandler(handler)

    del handler
    gc.collect()
    thread.join()

    assert ["x"] == messages(query)


def test_a_handler_that_goes_while_its_file_is_locked(make_handler, path, logger, query, monkeypatch, unattended):
    """
    Rows that wait without a thread, when their handler is collected and the file is locked, are written later.

    Nobody had them any more, and no ledger counted them.
    """
    handler = SQLiteHandler(path)
    logger.addHandler(handler)
    with monkeypatch.context() as patch:
        patch.setattr(RecordListener, "_start_thread", no_thread)
        logger.info("x")
    logger.removeHandler(handler)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        del handler
        gc.collect()

    other = make_handler()
    logger.addHandler(other)
    logger.info("y")
    other.listener.handle(None)

    assert ["y", "x"] == messages(query)


def test_a_copy_of_a_handler_outlives_it(path, logger, query):
    """
    A copy of a handler goes on when the handler itself is gone.

    It has the same listener, which had been told to end for good: each thread ended before the record that had started
    it was queued, and the caller started threads for ever.
    """
    handler = SQLiteHandler(path)
    twin = copy.copy(handler)
    logger.addHandler(twin)
    logger.info("before")
    del handler
    gc.collect()
    logger.info("after")
    twin.close()

    assert ["before", "after"] == messages(query)


def test_a_replaced_getpid_is_no_fork(make_handler, logger, query, monkeypatch):
    """
    A test of the program that replaces `os.getpid` makes no forked child of its process.

    The next record began anew, as in a child: the queued records were lost, and so were the books.
    """
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    logger.info("before")
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    logger.info("meanwhile")
    handler.flush()

    assert (2, [("before",), ("meanwhile",)]) == (handler.stats().written, query("SELECT message FROM logs"))


def test_a_filter_that_raises_in_a_new_process(make_handler, logger, query, monkeypatch, unattended):
    """
    A record whose filter raises is noticed as one of a new process as well.

    It was queued behind the rows of the parent, and went with them, uncounted, when the next one began anew.
    """
    monkeypatch.setattr(process, "_run_hooks", lambda: False)
    handler = make_handler()
    handler.addFilter(Mock(filter=Mock(side_effect=[True, ValueError])))
    logger.addHandler(handler)
    logger.info("parent")
    child = os.getpid() + 1
    with monkeypatch.context() as patch:
        patch.setattr(row, "getpid", lambda: child)
        logger.info("child")
        assert handler.flush()
    handler.stats()  # back in the parent

    assert ["<record not kept: ValueError>"] == messages(query)


def test_close_raises_nothing(make_handler, logger, monkeypatch):
    """
    `logging.shutdown` swallows OSError and ValueError only: anything else would cost the later handlers their flush.
    """
    handler = make_handler()

    def fails(_):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.committer.writer, "close", fails)
        handler.close()

    assert "disk I/O error" in handler.stats().last_error


@pytest.mark.parametrize(("work", "expected"), [("flush", False), ("close", None)])
def test_flush_and_close_raise_nothing_without_memory(make_handler, monkeypatch, work, expected):
    """
    A MemoryError ends `flush` or `close`, and does not keep `logging.shutdown` from closing the next handlers.

    It came out of `flush` when the program had used up what a limit of its memory allows.
    """
    handler = make_handler()
    with monkeypatch.context() as patch:
        patch.setattr(handler.listener, work, lambda *_: bytearray(1 << 62))
        done = getattr(handler, work)()

    assert (expected, "MemoryError: ") == (done, handler.stats().last_error)


def test_close_raises_nothing_of_other_handlers(make_handler, logger, logging_tree, monkeypatch):
    """The last drop warning goes to other handlers, and what one of them raises does not come out of `close` either."""

    class Raises(logging.Handler):
        def handle(self, record):
            raise ZeroDivisionError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    own = logging.getLogger(OWN_LOGGER)
    own.addHandler(Raises())
    own.propagate = False
    handler = make_handler(capacity=1, reserve=0, batch_size=100, flush_interval=3600)
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("x")
    handler.close()

    assert (1, 2, None) == (
        handler.stats().written,
        handler.dropped_total,
        handler.listener.committer.writer.file.connection,
    )


def test_shutdown_under_load(make_handler, logger, query):
    """All records logged before `logging.shutdown` are in the file when it returns."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(5_000):
        logger.info("%d", number)

    logging.shutdown([lambda: handler])

    assert 5_000 == len(messages(query))
