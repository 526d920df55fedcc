"""
The lock of those who commit, and signals that come when a lock was just taken.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from functools import partial
from itertools import repeat

import pytest
from locked import is_free

from sqlite_log_handler._logfile.locks import LOGGING_LOCK, acquire
from sqlite_log_handler._write import locks
from sqlite_log_handler._write.drop_report import DropReport
from sqlite_log_handler._write.locks import CommitLock
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.outage import Outage
from sqlite_log_handler._write.queue import RecordQueue

HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.fixture(params=[threading.Lock, threading.RLock])
def lock(request):
    """Make a lock of each kind."""
    return request.param()


@pytest.fixture
def sigint():
    """Have SIGINT raise KeyboardInterrupt, and the GIL change hands only when a thread waits."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), sys.getswitchinterval()
    sys.setswitchinterval(100)
    yield
    signal.signal(signal.SIGINT, before[0])
    sys.setswitchinterval(before[1])


class Holder:
    """Another thread that holds a lock. When this one waits for the lock, it sends a signal and lets go."""

    def __init__(self, lock):
        taken, self._waited = threading.Event(), threading.Event()

        def hold():
            with lock:
                taken.set()
                self._waited.wait()
                # In one turn of the GIL, so the main thread gets the lock before it sees the signal.
                _thread.interrupt_main()

        self._thread = threading.Thread(target=hold)
        self._thread.start()
        taken.wait()

    def let_go(self):
        """Let the thread go on, as soon as this one waits."""
        self._waited.set()

    def join(self):
        """Wait for the end of the thread."""
        self._thread.join()


@pytest.mark.skipif(not HAS_GIL, reason="without a GIL nothing orders the signal and the lock")
@pytest.mark.usefixtures("sigint")
def test_a_signal_when_the_lock_was_just_taken(lock):
    """
    Ctrl-C that arrives with the lock leaves it free: `held` is set before the handler can raise.

    With `held = lock.acquire()` the exception came between the call and the name, and nobody ever got the lock again.
    """
    holder = Holder(lock)
    held = False

    with pytest.raises(KeyboardInterrupt):
        try:
            holder.let_go()
            (held,) = acquire(lock)
            threading.get_ident()  # the first call, which sees the signal
        finally:
            if held:
                lock.release()

    holder.join()
    assert held
    assert is_free(lock)


class Interrupting(tuple[()]):
    """Empty: when it is asked for an item, SIGINT arrives, and only C code runs before the next jump."""

    __slots__ = ()

    __contains__ = staticmethod(partial(next, map(_thread.interrupt_main, repeat(signal.SIGINT))))  # type: ignore[assignment]


@pytest.mark.usefixtures("sigint")
def test_a_signal_while_rows_are_looked_through():
    """
    Ctrl-C between two rows of a commit that has just ended leaves the queue's lock free.

    CPython 3.13 and 3.14 forget the `with` around a comprehension at the jump of its `if`. An exception there left the
    lock taken, so nothing was written any more, and each call of another thread waited for a second.
    """
    queue = RecordQueue(10, 1_000_000)
    queue.open()
    for _ in range(3):
        queue.put_nowait((20, 0.0, ("q",), 1, 0))
    commit = queue.begin_commit(1_000_000)

    with pytest.raises(KeyboardInterrupt):
        queue.end_commit(commit, Interrupting())
    assert is_free(queue.mutex)

    queue.end_commit(commit)
    assert (0, 3) == (queue.queued, queue.written)


@pytest.mark.skipif(not HAS_GIL, reason="without a GIL nothing orders the signal and the lock")
@pytest.mark.usefixtures("sigint")
def test_a_signal_while_close_looks_for_warnings():
    """
    Ctrl-C while `close` looks for warnings that are not sent leaves the queue's lock free, as in the test above.

    On CPython 3.14 it also came when the lock was just taken, before the `with` had begun.
    """
    queue = RecordQueue(10, 1_000_000)
    report = DropReport(queue, Outage(0.1), Operator("app-log.db"))
    holder = Holder(queue.mutex)

    holder.let_go()
    with pytest.raises(KeyboardInterrupt):
        report.wait(0)

    holder.join()
    assert is_free(queue.mutex)


def test_a_fork_knows_whose_commit_it_cut_off():
    """A child opens the file only if no commit went on, and SQLite only if none of another thread did."""
    lock = CommitLock()
    inside, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=lock.do, args=(lambda: (inside.set(), leave.wait()), -1))
    mine = threading.get_ident()

    assert None is lock.cut_off
    assert mine == lock.do(lambda: lock.cut_off, -1)
    other.start()
    inside.wait()
    assert other.ident == lock.cut_off
    leave.set()
    other.join()
    assert lock.hold_over_fork(-1)
    assert None is lock.cut_off
    lock.has_closed = True
    lock.after_fork_in_parent()
    other = threading.Thread(target=lock.hold_over_fork, args=(-1,))
    other.start()
    other.join()
    assert 0 == lock.cut_off  # it may be closing the file
    lock.has_closed = True
    assert (None, False) == (lock.cut_off, lock.hold_over_fork(-1))  # nobody commits, and nobody waits for that fork
    lock._forking = None
    lock._lock.release()
    with lock._lock:
        assert 0 == lock.cut_off  # the other thread has just taken it, and has not said so yet


def test_a_signal_while_a_fork_waits_for_a_close(monkeypatch):
    """
    Ctrl-C beside a frozen disk ends the wait of a fork, and the child knows that a thread was closing the file.

    Python forks on after an error in a hook. The child opened the file, while the parent's thread was inside SQLite.
    """
    lock = CommitLock()
    frozen = threading.Event()

    def close():
        frozen.wait()

    def interrupted(lock, timeout):
        if timeout == 60:
            raise KeyboardInterrupt
        return acquire(lock, timeout)

    assert lock.hold_over_fork(-1)
    monkeypatch.setattr(locks, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lock.close_beside_fork(close, 60)

    assert 0 == lock.cut_off
    lock.after_fork_in_parent()
    assert 0 == lock.cut_off
    frozen.set()
    assert 1 == lock.do(lambda: 1, -1)


def test_nobody_waits_for_his_own_work():
    """Work that asks for the lock again, as a signal handler may, does not wait, nor does a fork inside of it."""
    lock = CommitLock()

    assert (None, False) == lock.do(lambda: (lock.do(lambda: 1, -1), lock.hold_over_fork(60)), -1)
    assert 1 == lock.do(lambda: 1, 0)


def test_nobody_waits_for_his_own_fork():
    """A signal handler that flushes in the middle of a fork of its thread does not wait for that."""
    lock = CommitLock()
    assert lock.hold_over_fork(0)

    assert (True, None) == (lock.is_mine, lock.do(lambda: 1, 0))
    lock.after_fork_in_parent()
    assert (False, 1) == (lock.is_mine, lock.do(lambda: 1, 0))


def test_nobody_waits_for_a_fork_that_waits_for_him(monkeypatch):
    """A thread that has logging's lock uses a new handler beside a fork, which waits for that lock."""
    monkeypatch.setattr(locks, "fork_lock", threading.Lock())
    monkeypatch.setattr(locks, "forking", [0])
    found = []
    with locks.fork_lock:
        found += [CommitLock().do(lambda: 1, 0)]
        with LOGGING_LOCK:
            found += [CommitLock().do(lambda: 1, 0)]

    assert [None, 1] == found


@pytest.mark.skipif(not HAS_GIL, reason="without a GIL nothing orders the signal and the lock")
@pytest.mark.usefixtures("sigint")
def test_a_signal_handler_knows_that_its_thread_has_the_lock():
    """A signal that arrives with the lock finds that it `is_mine`: a handler that commits would wait for itself."""
    lock, told = CommitLock(), []
    holder = Holder(lock._lock)
    signal.signal(signal.SIGINT, lambda *_: told.append(lock.is_mine))

    holder.let_go()
    lock.do(threading.get_ident, -1)

    holder.join()
    assert [True] == told
