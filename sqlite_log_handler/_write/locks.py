"""
The lock that a thread holds while it uses SQLite, and that of forks; `_logfile.locks` says how a thread takes them.

A fork takes, in this order, and keeps to its end what is marked with a star:

1. the lock of forks*, so that forks come one after the other;
2. logging's lock, because `dictConfig` holds that while it closes handlers, and waits for their commit locks;
3. all commit locks*, under which it closes the files;
4. the locks of `_logfile.forks`*.

It lets go of logging's lock before the hooks of other libraries run, which may wait for a thread that logs. The last
hook, that of `logging`, takes it again. So who has logging's lock waits for nothing that a fork holds: it does without.
A listener that is made during the fork has a commit lock that the fork does not know, so its first commit waits for the
end of the fork. A fork that begins later finds the listener.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock, start_new_thread  # gevent's, put there later, would let others run in a fork
from collections.abc import Callable

from sqlite_log_handler._logfile.locks import LOGGING_LOCK, acquire
from sqlite_log_handler._logfile.typed import Final, T

# An RLock: a signal handler may fork in a fork.
fork_lock = threading.RLock()

# The threads that fork, and have taken the locks or are about to: one entry for each fork.
forking: Final[list[int]] = []


def another_forks() -> bool:
    """Tell whether another thread than this one forks, and so may wait for logging's lock and have all others."""
    return not {threading.get_ident()}.issuperset(forking)


def renew_fork_lock() -> None:
    """Begin anew in a child: a thread that it does not have may hold the lock."""
    global fork_lock  # noqa: PLW0603 - it belongs to the process
    fork_lock = threading.RLock()


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
        self.has_closed = False  # the fork that holds it, and so nobody is inside SQLite
        self._is_known = False  # to each fork that is under way

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread has the lock: a signal handler may ask in the middle of a commit, or a fork."""
        return threading.get_ident() in {self._worker, self._forking}

    def do(self, work: Callable[[], T], timeout: float) -> T | None:
        """
        Do `work` under the lock, and return what it returns; None if `is_mine`, or if the lock is not free in time.

        It is one frame, and no context manager: what a signal handler raises into the frames of `contextlib` would
        leave the lock taken for as long as somebody keeps that exception.
        """
        if self.is_mine or not (self._is_known or self._await_fork(timeout)):
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

    def _await_fork(self, timeout: float) -> bool:
        """Wait for the end of a fork that may not know this lock, which is new; return whether it came in time."""
        self._is_known = not forking  # not even this thread, which may have made the handler in a hook
        if self._is_known or LOGGING_LOCK._is_owned():  # noqa: SLF001 - as threading.Condition asks
            return True  # in the latter case, the fork waits for this thread
        lock, held = fork_lock, False
        try:
            (held,) = acquire(lock, timeout)
        finally:
            if held:
                lock.release()
        return held

    def hold_over_fork(self, timeout: float) -> bool:
        """Take the lock for a thread that forks; tell whether it came in time. A thread that has it does not wait."""
        thread = threading.get_ident()
        (held,) = acquire(self._lock, 0 if self.is_mine or self._forking is not None else timeout)
        if held:
            self._forking, self.has_closed = thread, False
        return held

    def close_beside_fork(self, close: Callable[[], None], timeout: float) -> None:
        """Call `close` on a thread: a frozen disk may hold it for ever. If it takes too long, the child has no log."""
        lock, done, first = self._lock, allocate_lock(), allocate_lock()  # thread and wait race for `first`

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
            (started,) = map(start_new_thread, (run,), ((),))
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
        if self._forking is not None and self.has_closed:
            return None
        return self._worker or 0
