"""
Exceptions that a signal handler raises into the middle of our code.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from records import messages
from slowly import slowly

import sqlite_log_handler
from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._write import queue as queue_module

PACKAGE = Path(sqlite_log_handler.__file__).parent


def test_an_exception_from_a_signal_handler_leaves_no_lock(run):
    """
    A signal handler that raises into a log call leaves the queue's mutex free.

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
    A signal handler that raises into a commit leaves the commit lock free, and its thread may commit.

    Ctrl-C between `acquire()` and the `try` that releases left it to the main thread for ever: no commit succeeded from
    there on, and no line said so. A context manager does not help: an exception in the frames of `contextlib` leaves
    the lock taken as long as it is kept, as by the REPL.
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
        while count < 1500 and listener.committer.commit(0.1):
            try:
                armed = True
                while True: listener.committer.commit()
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
    A signal handler that raises into `flush` leaves each row in the file once.

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


@pytest.mark.parametrize("where", ["_review", "_remove", "_count_rows"])
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
    write = handler.listener.committer.writer.write
    step = getattr(handler.queue, where)

    def interrupted(*arguments, **options):
        monkeypatch.setattr(handler.queue, where, step)
        raise KeyboardInterrupt

    def written(batch, outcome, **options):
        write(batch, outcome, **options)
        monkeypatch.setattr(handler.queue, where, interrupted)

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.committer.writer, "write", written)
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


def test_give_up_leaves_a_batch_that_is_being_copied(make_handler, logger, unattended):
    """
    `close` that gives up while another thread copies a batch drops none of the rows that are then written.

    The batch is copied under the mutex, measured without it, and marked as held under it again. In between its rows
    looked like rows that no commit holds: dropped and written, and others removed in their place.
    """
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(4):
        logger.info("%d", number)
    queue = handler.queue
    queue.open()  # which takes the permits back

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


def descriptors():
    """List what this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed the folder
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted(found)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.parametrize("part", ["_logfile/write_lock.py", "_write/handler.py", *slowly("")])
def test_what_a_signal_handler_raises_into_the_constructor_leaves_no_file_open(tmp_path, part):
    """
    Wherever a signal handler raises while a handler is made, no descriptor stays open.

    That of the lock beside the file did, for ever: nothing closed it, as no handler had come about.
    """
    part = str(PACKAGE / part)
    gc.collect()
    before, calls, at = descriptors(), 0, 0

    def interrupt(frame, event, argument):
        nonlocal calls
        # No signal handler runs just before a call of C code, nor when a function in Python has returned.
        calls += frame.f_code.co_filename.startswith(part) and event in {"call", "c_return"}
        if calls == at:
            raise KeyboardInterrupt(frame.f_code.co_name, frame.f_lineno, event, argument)

    while calls == at:
        calls, at, where, handler = 0, at + 1, None, None
        try:
            sys.setprofile(interrupt)
            handler = SQLiteHandler(tmp_path / f"{at}.db")
        except KeyboardInterrupt as error:
            where = error.args
        sys.setprofile(None)
        if handler is not None:
            handler.close()
        gc.collect()
        assert before == descriptors(), where
