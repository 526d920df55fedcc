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

from sqlite_log_handler._logfile.typed import Any, Final

# Longer than a new thread waits for its first turn on any machine that still works.
START_TIMEOUT = 1.0

# All signals but those that the system sends to the thread that has caused them. Windows has no masks.
_OWN = {getattr(_signal, f"SIG{name}", None) for name in ("SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS")}
_OTHERS = _signal.valid_signals() - _OWN if hasattr(_signal, "pthread_sigmask") else None

# An isolated subinterpreter, as that of an InterpreterPoolExecutor, waits for its threads. In one of 3.13, for which
# Python had no public name, ours do not start: Python may wait for them before it has told them to end.
DAEMON: Final = sys.version_info < (3, 14) or _thread.daemon_threads_allowed()


class Thread(threading.Thread):
    """
    A thread that blocks all signals, and whose start ends within START_TIMEOUT seconds.

    With `nice`, it has a lower priority where each thread has one of its own (on Linux).
    """

    def __init__(self, target: Callable[..., object], *arguments: Any, name: str, nice: int = 0) -> None:
        super().__init__(target=target, args=arguments, name=name, daemon=DAEMON)
        self._started = _Begun()
        self._nice = nice
        self._starter = threading.get_native_id()

    def start(self) -> None:
        """Start, or raise a RuntimeError."""
        super().start()
        if not self._started.is_set():
            raise RuntimeError("a new thread did not begin: there may be no memory for it")

    def run(self) -> None:
        """Do the work of the target."""
        if threading.get_native_id() != self._starter:  # else it is a greenlet of gevent, in the thread of others
            if _OTHERS is not None:
                _signal.pthread_sigmask(_signal.SIG_BLOCK, _OTHERS)
            if self._nice and sys.platform == "linux":
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        super().run()


class _Begun(threading.Event):
    """
    Set when a thread has begun. `Thread.start` waits for it without a limit.

    A thread for whose first steps there is no memory never begins (https://github.com/python/cpython/issues/140746).
    """

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(START_TIMEOUT if timeout is None else timeout)
