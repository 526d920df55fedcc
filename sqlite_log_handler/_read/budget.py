"""
Bounds of what SQLite may do for one question, in time and in memory, whatever stands in the file.

Theory of operation
===================

SQLite asks a progress handler between the steps of a statement, so a bound holds only as far as one step is bounded.
Two things see to that. The schema is known before a row is read, so a step is one of our making. And no value is
longer than the limits below, so a step takes some milliseconds at most.

A tree of damaged pages can lead back into itself, and then a table has no end. So the time of all statements of a
question is counted together. It is CPU time of the thread, which neither a slow disk nor a busy machine uses up, and
grows with the file, so that no sensible question on a log of any size comes near it. To read that clock costs as much
as a short statement, so the budget is spent by the wall clock first, which is never behind it, and then once more by
the clock of the thread.

Most rows are short, and looking at each of them costs. A question begins with a limit that few rows exceed, and with
few looks at the clock. The first longer row moves it to a higher limit, with many looks; from then on each row is
measured. There are two such limits, because a large row is looked at twice.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Final, Self

from sqlite_log_handler._logfile.errors import LimitError
from sqlite_log_handler._logfile.schema import MAX_RECORD_BYTES

# CPU seconds for one question, and for each MB of the file: a core reads 20 to 100 MB a second.
_SECONDS: Final = 0.5
_SECONDS_PER_MB: Final = 0.5

# Bytes of a value or a row, and steps between two looks at the clock, for most rows, for long ones, and for
# large ones, whose texts have to be small together. A row has names of at most 4 kB each beside its text.
_USUAL_BYTES: Final = 4 * 1024
_USUAL_STEPS: Final = 200_000
LONG_BYTES: Final = 64 * 1024
LARGE_BYTES: Final = MAX_RECORD_BYTES + 64 * 1024
# As JSON, a control character is `\u001b`.
JSON_BYTES: Final = 6 * LARGE_BYTES
_LARGE_STEPS: Final = 2_000

# What SQLite allows by default is made for programs that bring their own SQL.
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class Budget:
    """
    Bound the statements that are run inside its `with` block; `renew` before each question.

    Args:
        connection: What runs them.
        path: The file, for the error.
        size: Its size in bytes.
        wall: Tells seconds, and costs little.
        clock: Tells the CPU seconds of this thread.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        size: int,
        *,
        wall: Callable[[], float] = time.perf_counter,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._connection = connection
        self._path = path
        self._clocks = (wall, clock)
        self._clock = wall
        self._seconds = self._left = _SECONDS + size / 1e6 * _SECONDS_PER_MB
        self._since = 0.0
        self.spent = False
        for category, limit in _LIMITS.items():
            connection.setlimit(category, limit)
        self._set(_USUAL_BYTES, _USUAL_STEPS)

    def renew(self) -> None:
        """Begin to count anew."""
        self._clock, _ = self._clocks
        self._left = self._seconds
        self._set(_USUAL_BYTES, _USUAL_STEPS)

    def extend(self, seconds: float) -> None:
        """Leave out seconds that were the user's: those of a regular expression."""
        self._left += seconds

    @property
    def is_long(self) -> bool:
        """Whether long values are allowed."""
        return self.value_bytes > _USUAL_BYTES

    @property
    def is_large(self) -> bool:
        """Whether large values are allowed."""
        return self.value_bytes > LONG_BYTES

    def allow_more(self, most_bytes: int) -> bool:
        """Allow larger values until the next question, up to `most_bytes`, and return whether there are any."""
        if self.value_bytes >= most_bytes:
            return False
        self._set(most_bytes if self.is_long else LONG_BYTES, _LARGE_STEPS)
        return True

    def __enter__(self) -> Self:
        if self._left <= 0 and self._is_last():
            message = f"{self._path!r}: it takes more work to read than any log: it was not made by this package"
            raise LimitError(message)
        self.spent = False
        self._since = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self._left -= self._clock() - self._since

    def _set(self, value_bytes: int, steps: int) -> None:
        self.value_bytes = value_bytes
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, value_bytes)
        self._connection.set_progress_handler(self._tick, steps)

    def _tick(self) -> bool:
        return self._clock() - self._since > self._left and self._is_last()

    def _is_last(self) -> bool:
        """Go over to the clock of the thread, or tell that it has been spent as well."""
        wall, clock = self._clocks
        self.spent = self._clock is not wall
        if not self.spent:
            self._clock, self._left, self._since = clock, self._seconds, clock()
        return self.spent
