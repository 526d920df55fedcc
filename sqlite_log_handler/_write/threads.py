"""
How to start a thread in the midst of a program.

It takes none of the program's signals. A thread has the signal mask of the one that starts it. So one that a record
starts would have all signals open that the program blocks later, to wait for them in a thread of its own, or for a part
that nothing may interrupt. The system would hand them to our thread, where most of them end the process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not `signal`, which makes enums of all names when it is imported
import _thread
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from sqlite_log_handler._logfile.typed import Final

# Longer than a new thread waits for its first turn on any machine that still works.
START_TIMEOUT = 1.0

# What the system sends to the thread that has caused it.
_OWN = {getattr(_signal, f"SIG{name}", None) for name in ("SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS")}
_CAN_MASK = hasattr(_signal, "pthread_sigmask")  # not on Windows

# An isolated subinterpreter, as that of an InterpreterPoolExecutor, waits for its threads. In one of 3.13, for which
# Python had no public name, ours do not start: Python may wait for them before it has told them to end.
DAEMON: Final = sys.version_info < (3, 14) or _thread.daemon_threads_allowed()


def start(thread: threading.Thread) -> None:
    """
    Start a thread with all signals blocked, or raise a RuntimeError within START_TIMEOUT seconds.

    A thread may die in its first steps, for which there may be no memory. `Thread.start` waits until it says that it
    has begun, so its caller would wait for ever (https://github.com/python/cpython/issues/140746).
    """
    begun = thread._started  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name
    with suppress(AttributeError):  # gevent's takes no other `wait`
        begun.wait = partial(begun.wait, START_TIMEOUT)
    thread.daemon = DAEMON
    masks: list[set[int]] = []
    try:
        # In one step, see `_logfile.locks`.
        if _CAN_MASK:
            masks.extend(map(_signal.pthread_sigmask, (_signal.SIG_BLOCK,), (_signal.valid_signals() - _OWN,)))
        thread.start()
    finally:
        for mask in masks:
            set_mask(mask)
    if not begun.is_set():
        raise RuntimeError("a new thread did not begin: there may be no memory for it")


def mask() -> set[int]:
    """Return the signals that this thread blocks."""
    return _signal.pthread_sigmask(_signal.SIG_BLOCK, ()) if _CAN_MASK else set()


def set_mask(signals: Iterable[int]) -> None:
    """Have this thread block these signals, and no others."""
    if _CAN_MASK:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, signals)
