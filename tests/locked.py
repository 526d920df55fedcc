"""
Who holds the lock beside a log, or one of a process.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlite_log_handler._logfile.locks import acquire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlite_log_handler._logfile.write_lock import WriteLock


def is_held(lock: WriteLock) -> bool:
    """Tell whether another one holds the lock of this log."""
    try:
        with lock.hold(0):
            return False
    except TimeoutError:
        return True


def is_free(lock: Any, timeout: float = 0) -> bool:
    """Tell whether another thread could take the lock."""
    found: list[bool] = []

    def look() -> None:
        found.extend(acquire(lock, timeout))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def in_another_thread(context: AbstractContextManager[object]) -> Iterator[None]:
    """Have another thread be inside of `context`, such as a lock, for as long as the `with` lasts."""
    entered, leave = threading.Event(), threading.Event()

    def keep() -> None:
        with context:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=keep)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()
