"""
The threads that a record starts in the midst of a program.

They take none of the program's signals. A thread has the signal mask of the one that starts it, so one of ours would
have all signals open that the program blocks later, to wait for them in a thread of its own, or for a part that nothing
may interrupt. The system would hand them to our thread, where most of them end the process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not `signal`, which makes enums of all names when it is imported
import _thread
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from functools import partial

from sqlite_log_handler._logfile.typed import Any, Final

# Longer than a new thread waits for its first turn on any machine that still works.
START_TIMEOUT = 1.0

# All signals but those that the system sends to the thread that has caused them. Windows has no masks.
_OWN = {getattr(_signal, f"SIG{name}", None) for name in ("SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS")}
_OTHERS = _signal.valid_signals() - _OWN if hasattr(_signal, "pthread_sigmask") else None

# An isolated subinterpreter, as that of an InterpreterPoolExecutor, waits for its threads. In one of 3.13, for which
# Python had no public name, ours do not start: Python may wait for them before it has told them to end.
DAEMON: Final = sys.version_info < (3, 14) or _thread.daemon_threads_allowed()


def make(target: Callable[..., object], *arguments: Any, name: str, nice: int = 0) -> threading.Thread:
    """
    Make a thread that blocks all signals, to be started by `start`.

    With `nice`, it has a lower priority where each thread has one of its own (on Linux). The class is looked up now,
    because gevent may have put another one there.
    """
    work = partial(_work, threading.get_native_id(), nice, target)
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=DAEMON)
    thread._started = _Begun()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name
    return thread


def start(thread: threading.Thread) -> None:
    """Start a thread within START_TIMEOUT seconds, or raise a RuntimeError."""
    thread.start()
    if not thread._started.is_set():  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name
        raise RuntimeError("a new thread did not begin: no memory for it, or an overloaded machine")


def _work(starter: int, nice: int, target: Callable[..., object], *arguments: Any) -> None:
    thread = threading.get_native_id()
    if thread != starter:  # else it is a greenlet of gevent, in the thread of others
        if _OTHERS is not None:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _OTHERS)
        if nice and sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, nice)
    target(*arguments)


class _Begun(threading.Event):
    """
    Set when a thread has begun. `Thread.start` waits for it without a limit.

    A thread for whose first steps there is no memory never begins (https://github.com/python/cpython/issues/140746).
    """

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(START_TIMEOUT if timeout is None else timeout)
