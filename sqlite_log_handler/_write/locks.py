"""
Taking a lock so that no signal handler can tear the step.

A signal handler may raise: Ctrl-C, a time limit. In

    lock.acquire()
    try: ...
    finally: lock.release()

CPython runs signal handlers when the call has returned. What one raises there comes before the `try`, and the lock
stays taken for ever. `held = lock.acquire()` inside the `try` is no better: the lock is taken, and `held` does not say
so yet.
A `with` has no time limit, and a raw lock that was not acquired would be released by its end all the same.

CPython runs signal handlers after calls and at jumps back, but not while it unpacks an iterator, nor between that and
the store. So the call is made by a `map`, in C, when its result is unpacked:

    held = False
    try:
        (held,) = acquire(lock, timeout)
        if held: ...
    finally:
        if held:
            lock.release()

Either the lock is taken and `held` says so, or neither. In the `finally` there is no call before `release`.

The one thing that can come in between is a trace function that asks for every opcode (`frame.f_trace_opcodes`), and
that raises.
"""

import threading
from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import _thread

Lock: TypeAlias = "threading.Lock | _thread.RLock"

_BLOCKING = repeat(True)  # noqa: FBT003 - a map passes no keywords


def acquire(lock: Lock, timeout: float = -1) -> Iterator[bool]:
    """
    Return an iterator that takes `lock` when it is unpacked, and yields whether it did.

    Args:
        lock: A lock of the standard library.
        timeout: Seconds to wait; -1, the default, is without limit, and 0 does not wait.
    """
    return map(lock.acquire, _BLOCKING, (min(timeout, threading.TIMEOUT_MAX),))
