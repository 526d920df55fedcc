"""
How to take a lock in one step that no signal handler can tear.

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
signal handler raises there leaves the lock taken. A comprehension with an `if` is such a loop, and so is a `while` with
a condition. So no frame of the package has one inside of a `with` that cleans up, and a test looks at its bytecode.
"""

from __future__ import annotations

import _thread
import logging
import threading
from collections.abc import Iterator

from sqlite_log_handler._logfile.typed import Final

# An RLock, which logging makes anew in a child.
LOGGING_LOCK: Final = logging._lock  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name

# Those that forks in progress hold, once for each time that they were taken.
held_by_forks: Final[list[_thread.RLock]] = []

LOCKED_TIMEOUT = 1.0  # longer than any stall of the scheduler
_NOT_HAD = "another thread does not let go of a lock of this log, perhaps because this one has that of logging"


def acquire(lock: threading.Lock | _thread.RLock, timeout: float = -1) -> Iterator[bool]:
    """Return an iterator that takes `lock`, as `lock.acquire` does, when it is unpacked, and yields whether it did."""
    return map(lock.acquire, (True,), (min(timeout, threading.TIMEOUT_MAX),))


class MutexTimeoutError(TimeoutError):
    """A mutex did not come in time. What the thread wanted is not begun."""


class _Mutex(_thread.RLock):  # type: ignore[misc]  # final in typeshed
    """
    An RLock whose `with` no signal handler can tear, and for which a thread that has logging's lock waits a second.

    On CPython 3.14 the `with` calls an `__enter__` in C as any other function: a signal handler that raises after it
    leaves the lock taken. After a function in Python none runs.

    A garbage collection in the `with` of another thread may free a handler, which needs logging's lock for that. Then
    the two would wait for each other for ever. A fork that holds the mutex waits for logging's lock in any case, so
    that thread does not wait for a fork at all.

    Raises:
        MutexTimeoutError: The second has passed, or a fork holds it.
    """

    __slots__ = ()

    def __enter__(self) -> bool:  # type: ignore[override]
        timeout = -1.0
        if LOGGING_LOCK._is_owned():  # noqa: SLF001 - as threading.Condition asks
            timeout = 0 if self in held_by_forks else LOCKED_TIMEOUT
        (held,) = acquire(self, timeout)
        if not held:
            raise MutexTimeoutError(_NOT_HAD)
        return held


def make_mutex() -> _thread.RLock:
    """Return an RLock for `with`."""
    lock = threading.RLock()  # gevent may have put its own there
    return _Mutex() if type(lock) is _Mutex.__base__ else lock
