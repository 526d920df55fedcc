"""
How to take a lock in one step that no signal handler can tear, and the commit lock.

A signal handler may raise: Ctrl-C, a time limit. CPython runs it after calls and at jumps back. If it raises between
`lock.acquire()` and the `try`, or before the result is stored, the lock stays taken for ever. A `with` has no time
limit. CPython runs no signal handler while it unpacks an iterator, nor between that and the store. So a `map`, in C,
makes the call when its result is unpacked:

    held = False
    try:
        (held,) = acquire(lock, timeout)
        if held: ...
    finally:
        if held:
            lock.release()

Either the lock is taken and `held` says so, or neither, and in the `finally` there is no call before `release`. Only a
trace function that asks for every opcode (`frame.f_trace_opcodes`) can raise in between.

CPython 3.13 and 3.14 forget the `with` or `try` around a loop where an `if` at the end of its body jumps back: what a
signal handler raises there leaves the lock taken. A comprehension with an `if` is such a loop. So a frame that holds a
lock has none.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable, Iterator

from sqlite_log_handler._logfile.typed import T


def acquire(lock: threading.Lock | _thread.RLock, timeout: float = -1) -> Iterator[bool]:
    """Return an iterator that takes `lock`, as `lock.acquire` does, when it is unpacked, and yields whether it did."""
    return map(lock.acquire, (True,), (min(timeout, threading.TIMEOUT_MAX),))


class _Mutex(_thread.RLock):  # type: ignore[misc]  # final in typeshed
    """
    An RLock whose `with` no signal handler can tear on CPython 3.14.

    There the `with` calls an `__enter__` in C as any other function: a signal handler that raises after it leaves the
    lock taken. After a function in Python none runs.
    """

    __slots__ = ()

    def __enter__(self) -> bool:  # type: ignore[override]
        (held,) = acquire(self)
        return held


def make_mutex() -> _thread.RLock:
    """Return an RLock for `with`."""
    lock = threading.RLock()  # gevent may have put its own there
    return _Mutex() if type(lock) is _Mutex.__base__ and (3, 14) <= sys.version_info < (3, 15) else lock


class CommitLock:
    """
    The lock that a thread holds while it uses SQLite, and that a fork holds from its beginning to its end.

    A child believes that it has the parent's POSIX locks (see `_logfile.forks`), and in the middle of a commit both
    would write at once. So a fork waits for the end of the commit, and closes the file. When that takes too long, or a
    signal handler forks in a commit of its own thread, the child never opens the file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: int | None = None  # the thread that works under the lock
        self._forking: int | None = None  # the thread that holds it over a fork

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread works under the lock, as when a signal handler asks in the middle of a commit."""
        return self._worker == threading.get_ident()

    def do(self, work: Callable[[], T], timeout: float) -> T | None:
        """
        Do `work` under the lock, and return what it returns; None if `is_mine`, or if the lock is not free in time.

        It is one frame, and no context manager: what a signal handler raises into the frames of `contextlib` would
        leave the lock taken for as long as somebody keeps that exception.
        """
        if self.is_mine:
            return None
        lock, thread, held = self._lock, threading.get_ident(), False
        try:
            # There is no call, and so no signal, between taking the lock and saying so, nor between the two at the end.
            (held,) = acquire(lock, timeout)
            if not held:
                return None
            self._worker = thread
            return work()
        finally:
            if held:
                self._worker = None
                lock.release()

    def hold_over_fork(self, timeout: float) -> bool:
        """Take the lock for a thread that forks; tell whether it came in time. A thread that has it does not wait."""
        thread = threading.get_ident()
        (held,) = acquire(self._lock, 0 if thread in {self._worker, self._forking} else timeout)
        if held:
            self._forking = thread
        return held

    def close_beside_fork(self, close: Callable[[], None], timeout: float) -> None:
        """Call `close` on a thread: a frozen disk may hold it for ever. If it takes too long, the child has no log."""
        lock, done, first = self._lock, threading.Lock(), threading.Lock()  # thread and wait race for `first`

        def run() -> None:
            try:
                close()
            finally:
                if first.acquire(blocking=False):
                    done.release()
                else:  # the fork did not wait for this
                    lock.release()

        done.acquire()
        started = closed = None
        try:
            (started,) = map(_thread.start_new_thread, (run,), ((),))
            (closed,) = acquire(done, timeout)
        except RuntimeError:
            if started:
                raise
            run()
        finally:
            # A signal handler may raise in the wait; the thread closes on all the same.
            (alone,) = acquire(first, 0) if started and not closed else (False,)
            if alone:
                self._forking = None

    def after_fork_in_parent(self) -> None:
        """Let go of the lock, if this thread holds it over a fork."""
        if self._forking == threading.get_ident():
            self._forking = None
            self._lock.release()

    @property
    def cut_off(self) -> int | None:
        """In a child: the thread whose work the fork cut off, 0 if that is unknown; None if no work was cut off."""
        if not self._lock.locked() or self._forking == threading.get_ident():
            return None
        return self._worker or 0
