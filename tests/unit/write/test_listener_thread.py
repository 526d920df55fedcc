"""
The listener's thread: its start, its work, and its end.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque

import pytest
from listeners import INFO, Impatient, numbers, put, row

from sqlite_log_handler._logfile import locks
from sqlite_log_handler._logfile.locks import LOGGING_LOCK
from sqlite_log_handler._write import listener as listener_module
from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.listener import RecordListener
from sqlite_log_handler._write.queue import Closed


def test_start_and_stop_are_idempotent(make):
    """Starting twice is one thread, stopping twice is no error, and no thread is left."""
    listener = make()
    threads = threading.active_count()

    listener.start()
    listener.start()
    assert threads + 1 == threading.active_count()

    listener.stop(timeout=threading.TIMEOUT_MAX)
    listener.stop()
    assert threads == threading.active_count()


def test_a_start_that_fails_can_be_made_again(make, monkeypatch):
    """When no thread can be started the queue is closed, so that the next record tries again."""
    listener = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            listener.start()
    assert (True, None) == (listener.queue.closed, listener._thread)

    listener.start()

    assert listener._thread.is_alive()


def test_a_thread_whose_start_was_interrupted_ends(make, monkeypatch):
    """
    A thread that runs already, when a signal handler raises into its start, ends.

    The listener knew of no thread then, so nothing woke that one: it slept for the life of the process.
    """
    listener = make()
    threads, waits = [], threading.Event()
    monkeypatch.setattr(listener, "seconds_to_wait", lambda _: waits.set())

    def interrupted(thread):
        threads.append(thread)
        thread.start()
        waits.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(listener, "_start_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        listener.start()
    threads[0].join(60)

    assert not threads[0].is_alive()


def test_a_start_that_is_interrupted_can_be_made_again(make, monkeypatch):
    """
    What a signal handler raises into a start comes out, and the next start makes a thread.

    The note that a thread was being started stayed: later records waited for a thread that never came.
    """
    listener = make()

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(listener.queue, "renew_wakeup", interrupted)
        with pytest.raises(KeyboardInterrupt):
            listener.start()
    listener.start()

    assert listener._thread is not None
    assert listener._thread.is_alive()


def test_nothing_is_said_under_the_commit_lock(make, monkeypatch):
    """What the writer has to say waits until the lock is free: standard error may be a pipe that nobody reads."""
    listener = make()
    put(listener, 1)
    locked = []
    listener.committer.writer.before = lambda _: listener.committer.operator.say_later("a new file is begun")
    monkeypatch.setattr(
        listener.committer.operator, "say", lambda line: locked.append(listener.committer.lock._lock.locked())
    )

    assert listener.committer.commit()
    assert [False] == locked


def test_two_threads_may_have_the_same_line_to_say(make):
    """A thread that finds that another one has just said the last line raises no error."""

    class Raced(deque[str]):
        def __bool__(self):
            return True

    listener = make()
    listener.committer.operator._waiting = Raced()
    put(listener, 1)

    assert listener.flush()
    assert [0] == numbers(listener)


def test_nobody_waits_for_himself(make, clock):
    """A signal handler that flushes, forks or closes while its own thread is in a commit does not wait for its end."""
    listener = make(close_timeout=5)
    listener.committer.lock._lock = Impatient(listener.committer.lock._lock, clock)
    put(listener, 2)
    began = clock()
    told = []

    def interrupted(_):
        told.append(listener.committer.commit(1.0))
        told.append(listener.flush())
        listener.before_fork(5.0)
        listener.committer.lock.after_fork_in_parent()
        listener.close()

    listener.committer.writer.before = interrupted

    assert listener.committer.commit()
    assert ([False, False], [0, 1], began) == (told, numbers(listener), clock())
    assert listener.committer.lock._worker is None


def close_in_a_commit(listener, count):
    """Commit, and in the middle of it log `count` records and close, as a signal handler may."""
    writer = listener.committer.writer

    def interrupted(_):
        writer.before = lambda _: None
        put(listener, count)
        listener.close()

    writer.before = interrupted
    listener.committer.commit()


def test_what_a_signal_handler_could_not_write_is_left_to_the_next_close(make, said):
    """A signal handler that closes while its own thread is in a commit drops nothing that the exit can still write."""
    listener = make()
    put(listener, 2)
    close_in_a_commit(listener, 3)
    assert (3, 0, True) == (listener.queue.queued, listener.queue.dropped_total, listener.queue.closed)
    listener.close()

    assert (list(range(5)), 0, []) == (numbers(listener), listener.queue.dropped_total, said)
    assert 1 == listener.committer.writer.closed


def test_what_a_signal_handler_could_not_write_is_written_when_the_handler_goes(make):
    """Nothing is lost when the handler is forgotten after that `close`, as by a signal handler that configures anew."""
    listener = make()
    put(listener, 2)
    close_in_a_commit(listener, 7)
    listener.retire()

    assert (list(range(9)), 1) == (numbers(listener), listener.committer.writer.closed)


def test_who_lets_go_late_closes_the_file(make, monkeypatch):
    """When a stuck commit ends in the instant in which `close` gives up waiting for it, its thread closes the file."""
    listener = make()

    class Late:
        """A commit lock that is released just when no thread waits any more."""

        def __init__(self, lock):
            self.lock, self.waiting = lock, True

        def acquire(self, *arguments):
            if not self.waiting:
                return self.lock.acquire(*arguments)
            self.waiting = False
            # A thread that is none of the listener's: for it, it was stopped.
            other = threading.Thread(target=listener._run, args=(None,))
            other.start()
            other.join()
            return False

        def release(self):
            self.lock.release()

    monkeypatch.setattr(listener.committer.lock, "_lock", Late(listener.committer.lock._lock))
    listener.committer.close(0)

    assert 1 == listener.committer.writer.closed


def test_a_stop_during_a_start(make, monkeypatch):
    """A thread that was stopped before it was there ends when it is."""
    listener = make()
    start, started = RecordListener._start_thread, []

    def interleaved(self, thread):
        self.stop()
        start(self, thread)
        started.append(thread)

    monkeypatch.setattr(RecordListener, "_start_thread", interleaved)
    listener.start()
    started[0].join()

    assert (True, None) == (listener.queue.closed, listener._thread)


def test_a_stop_and_a_record_during_a_start(make, monkeypatch):
    """
    What is logged after a stop that came in the middle of a start has a thread to commit it.

    The one that is being started finds that it was stopped, and ends; and the next record found the queue open, because
    somebody was about to start: nobody committed, until the queue was full and after.
    """
    listener = make()
    start = RecordListener._start_thread

    def interleaved(self, thread):
        monkeypatch.undo()
        self.stop()
        self.start()  # as a handler does when it is logged to and finds the queue closed
        start(self, thread)
        thread.join()

    monkeypatch.setattr(RecordListener, "_start_thread", interleaved)
    listener.start()

    assert (False, True) == (listener.queue.closed, listener._thread is not None and listener._thread.is_alive())


def test_stop_does_not_need_room_in_the_queue(make):
    """A full queue can be stopped: `QueueListener` would put a sentinel, and raise `queue.Full`."""
    listener = make(capacity=1)
    listener.committer.writer.error = OSError("disk")
    put(listener, 2)
    listener.start()

    listener.stop()

    assert listener._thread is None


def test_the_thread_commits(make, warnings):
    """A started listener writes what comes without anybody calling it."""
    listener = make(batch_size=1)
    listener.start()

    put(listener, 1)
    listener.committer.writer.entered.wait()
    listener.stop(timeout=threading.TIMEOUT_MAX)

    assert [0] == numbers(listener)


def test_an_idle_listener_does_not_wake_up(make):
    """With nothing queued the thread waits on its lock without a timeout, however long."""
    listener = make()
    waits = []
    wait = listener.seconds_to_wait
    waiting = threading.Event()

    def spy(now):
        waits.append(wait(now))
        waiting.set()
        return waits[-1]

    listener.seconds_to_wait = spy
    listener.start()
    waiting.wait()

    assert [None] == waits
    listener.stop()


def test_a_lock_of_eventlet_is_looked_at_each_second(make):
    """
    A listener with nothing to do sleeps for a second at most where eventlet has patched Python.

    eventlet's lock does not wake a green thread when another native thread releases it: after a record from its `tpool`
    nothing was written any more.
    """
    listener = make()
    slept = []

    class Lock:
        """As `threading.Lock` is then."""

        def acquire(self, timeout):
            slept.append(timeout)
            listener._thread = None
            listener.queue.renew_wakeup()

    Lock.__module__ = "eventlet.lock"
    listener.queue.wakeup = Lock()
    listener._thread = threading.current_thread()
    listener.dequeue(block=True)

    assert [1.0] == slept


def test_a_replaced_thread_takes_no_wake_up(make):
    """Each thread has a lock of its own, so that one on its way out cannot take the wake-up of the next."""
    listener = make()
    listener.start()
    first = listener.queue.wakeup
    listener.stop()
    listener.start()

    assert first is not listener.queue.wakeup
    listener.stop()


def test_a_thread_that_dies_is_replaced(make):
    """
    The next record finds the queue closed, as before the first one, and starts another thread.

    A MemoryError between two hooks, or an exception that another thread sets, ended the thread. The log was dead from
    there on, and no line said so.
    """
    listener, died = make(), threading.Event()

    def dies():
        raise MemoryError

    listener._monitor, threading.excepthook, hook = dies, lambda _: died.set(), threading.excepthook
    try:
        listener.start()
        assert died.wait(60)
    finally:
        threading.excepthook = hook
    del listener._monitor
    assert (True, None) == (listener.queue.closed, listener._thread)
    listener.start()

    assert listener._thread.is_alive()


@contextlib.contextmanager
def closed_under_logging_lock(listener, *, flushes=False):
    """Have the thread stand in a commit of 5 rows, and close as `dictConfig` does; it goes on after the block."""
    listener.committer.writer.gate = threading.Event()
    listener.start()
    thread = listener._thread
    put(listener, 5)
    listener.committer.writer.entered.wait()
    with LOGGING_LOCK, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener_module, "LOCKED_PATIENCE", 0.001)
        assert not (flushes and listener.flush())
        listener.close()
    yield thread
    listener.committer.writer.gate.set()
    thread.join()


def test_close_under_logging_lock_leaves_the_rest_to_the_thread(make, said):
    """
    A `__del__` that logs may run in the middle of a commit, and need the lock that the caller of `close` holds.

    `dictConfig` waited for that commit for five seconds, and then dropped what was queued, on a healthy disk.
    """
    listener = make(batch_size=1, close_timeout=60)
    with closed_under_logging_lock(listener, flushes=True):
        assert (5, 0) == (listener.queue.queued, listener.queue.dropped_total)

    assert (list(range(5)), 1, []) == (numbers(listener), listener.committer.writer.closed, said)


def test_a_locked_file_does_not_hold_close_under_logging_lock(make):
    """
    Where commits fail, `close` under logging's lock leaves the rest to the thread as well, which tries on.

    The thread tried once and ended, and `dictConfig` then tried for five seconds, in which no other thread could use a
    logger for the first time. The rows were dropped, though the file was free soon after.
    """
    listener = make(batch_size=5, close_timeout=60)
    writer = listener.committer.writer
    writer.error = OSError("locked")
    tries = []

    def sleep(_):
        tries.append(threading.current_thread())
        writer.error = None

    listener.committer._sleep = sleep
    with closed_under_logging_lock(listener) as thread:
        pass

    assert ([thread], list(range(5)), 1) == (tries, numbers(listener), writer.closed)
    assert 0 == listener.queue.dropped_total


def test_what_fails_after_close_under_logging_lock_is_counted(make):
    """When commits fail for another `close_timeout`, the thread drops the rows, and counts them."""
    listener = make(batch_size=5, close_timeout=60)
    listener.committer.writer.error = OSError("disk")
    with closed_under_logging_lock(listener):
        pass

    assert {("close_timeout", INFO, "a"): 5} == listener.queue.books()["drops"]


def test_a_revived_listener_ends_when_it_is_idle(make, clock):
    """
    After `close`, a listener that has had nothing to do for ten seconds closes its file and ends.

    A handler that `dictConfig` replaces while threads log at it comes back to life for the last of them. 8 of 17 such
    threads were still there, each with its connection, because the configuration's dict is in a cycle.
    """
    listener = make()
    assert None is listener.seconds_to_wait(clock())
    listener.close()
    listener.queue.open()
    listener._thread = threading.current_thread()
    put(listener, 1)
    assert 0.1 == pytest.approx(listener.seconds_to_wait(clock()))
    listener.handle(None)
    closed = listener.committer.writer.closed
    assert listener_module.REVIVED_IDLE == listener.seconds_to_wait(clock())
    clock.advance(5)
    put(listener, 1)
    listener.seconds_to_wait(clock())
    listener.handle(None)
    assert listener_module.REVIVED_IDLE == listener.seconds_to_wait(clock())
    assert (closed, False) == (listener.committer.writer.closed, listener.queue.closed)

    clock.advance(10)
    listener._run(listener._thread)
    assert (closed + 1, True, None) == (listener.committer.writer.closed, listener.queue.closed, listener._thread)


def test_the_first_row_after_close_is_due_at_once(make, clock, monkeypatch):
    """
    A record that reaches a closed handler does not wait for a tick.

    A program of one thread configured logging again in a signal handler. The record that this had interrupted went to
    the old handler, and waited there until the next records of the thread stood in the file.
    """
    listener = make(flush_interval=3600)
    listener.close()
    monkeypatch.setattr(listener, "_start_thread", lambda _: None)
    listener.start()
    assert None is not listener.seconds_to_wait(clock())  # REVIVED_IDLE
    put(listener, 1)

    assert 0 == listener.seconds_to_wait(clock())


def test_a_retired_listener_writes_and_goes(make):
    """When the program has dropped the handler, its thread writes the rest, closes the file and ends."""
    listener = make()
    listener.start()
    thread = listener._thread
    put(listener, 3)

    listener.retire()
    thread.join()

    assert ([0, 1, 2], 1) == (numbers(listener), listener.committer.writer.closed)


def test_ctrl_c_as_the_handler_is_freed(make):
    """
    What a signal handler raises while a freed handler writes its rest leaves the rows to the exit.

    Nobody had the listener any more, so its rows were lost, and no line said so.
    """
    listener = make()
    listener.start()
    listener.stop()
    listener.queue.open()
    put(listener, 3)
    listener.committer.writer.error = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        listener.retire()
    assert listener in listener_module._owing

    listener.committer.writer.error = None
    listener.close()
    assert ([0, 1, 2], set()) == (numbers(listener), listener_module._owing)


@contextlib.contextmanager
def without_mutex(listener):
    """Have another thread hold the queue's mutex inside the `with` block, and this one logging's lock."""
    held, go = threading.Event(), threading.Event()

    def hold():
        with listener.queue.mutex:
            held.set()
            go.wait()

    other = threading.Thread(target=hold)
    with pytest.MonkeyPatch.context() as patch, LOGGING_LOCK:
        patch.setattr(locks, "LOCKED_TIMEOUT", 0.001)
        other.start()
        held.wait()
        yield
        go.set()
        other.join()


def test_a_start_that_fails_without_the_mutex(make, monkeypatch):
    """
    The next record starts a thread, though the last one could not be started, nor the mutex be had in time after that.

    The thread that had never begun stayed in charge, and rows waited for a `flush`, or for the exit.
    """
    listener = make()
    with contextlib.ExitStack() as stack:

        def fail(_):
            stack.enter_context(without_mutex(listener))
            raise RuntimeError

        monkeypatch.setattr(listener, "_start_thread", fail)
        with pytest.raises(locks.MutexTimeoutError):
            listener.start()

    assert None is listener._thread
    with pytest.raises(Closed):
        put(listener, 1)


def test_a_handler_is_freed_without_the_mutex(make):
    """A gap that could not be written is written later: the listener stays, though the mutex did not come in time."""
    listener = make()
    listener.queue.contend(row())
    listener.queue.add_gap(listener.queue.take_drops())
    with without_mutex(listener), pytest.raises(locks.MutexTimeoutError):
        listener.retire()
    assert listener in listener_module._owing

    listener.close()
    assert ([1], set()) == ([gap.count for gap in listener.committer.writer.gaps], listener_module._owing)


def test_a_gap_that_close_could_not_write_is_owed(make):
    """What `close` leaves may be a gap alone: the listener stays alive for it, and another one has it written."""
    listener = make()
    listener.queue.contend(row())
    listener.committer.writer.error = OSError("disk")
    listener.close()
    owed = {*listener_module._owing}
    listener.committer.writer.error = None
    listener.write_rest()

    assert ({listener}, set()) == (owed, listener_module._owing)
    assert [1] == [gap.count for gap in listener.committer.writer.gaps]


def test_a_thread_whose_last_steps_fail_owes_its_rows(make, monkeypatch):
    """An error in the last steps of the thread, as for lack of memory, is noted, and the rows are left to another."""

    def fail(_):
        raise MemoryError

    listener = make()
    put(listener, 1)
    with monkeypatch.context() as patch:
        patch.setattr(listener.committer, "finish", fail)
        listener._finish()

    assert ("MemoryError: ", {listener}) == (listener.committer.outage.last_error, listener_module._owing)


def test_contended_drops_are_reported(make, monkeypatch, warnings, clock):
    """A drop that could not wait for the mutex is reported at the next tick like any other."""
    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0)
    listener = make()
    with listener.queue.mutex:
        thread = threading.Thread(target=put, args=(listener, 1))
        thread.start()
        thread.join()

    assert 0.1 == pytest.approx(listener.seconds_to_wait(clock()))
    listener.handle(None)

    assert ["contended"] == [cause for (cause, *_) in listener.queue.books()["drops"]]
    assert [1] == [record.dropped for record in warnings]
