"""
Who holds the lock beside a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_log_handler._logfile.write_lock import WriteLock


def is_held(lock: WriteLock) -> bool:
    """Tell whether another one holds the lock of this log."""
    try:
        with lock.hold(0):
            return False
    except TimeoutError:
        return True
