"""
Bounds on the time and memory that SQLite takes for one question, for any contents of the file.

Theory of operation
===================

SQLite calls a progress handler between the steps of a statement, so we can bound a statement only if each step is
bounded. We know the schema before we read a row, so each step comes from our own SQL. And no value is longer than the
limits below, so a step takes some milliseconds at most.

Damaged pages can lead back into themselves, and then a table has no end. So we count the time of all statements of a
question together. We count CPU time of the thread, which neither a slow disk nor a busy machine uses up. The budget
grows with the file, so no sensible question comes near it, however large the log is.

A statement calls functions of Python, whose time we take off, because a regular expression of the user may take long on
any text. To read the clock of the thread takes as long as such a call, so we time calls by the wall clock. On a busy
machine, and beside threads that hold the GIL, calls then take more seconds than the whole statement has used, and we
would read a table without end for ever. So a part of the CPU time counts in any case.

Most rows are short, and to measure each of them costs time. A question begins with a limit that few rows exceed, and
with few looks at the clock. The first longer row moves it to a higher limit with many looks, and from then on we
measure each row. There are two such limits, because we look at a large row twice.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator
from typing import Any, Final, Self

from sqlite_log_handler._logfile.errors import LimitError
from sqlite_log_handler._logfile.schema import MAX_ROW_BYTES

# CPU seconds for one question, and for each MB of the file: a core reads 20 to 100 MB a second.
_SECONDS: Final = 1.0
_SECONDS_PER_MB: Final = 1.0
# The part that counts of a statement's CPU time, however long its calls of Python took.
_LEAST: Final = 1 / 32

# Most bytes of a value or a row, and steps between two looks at the clock: for most rows, for long ones, and for large
# ones, whose texts must be small together. A row has names of at most 4 kB each besides its text.
_USUAL_BYTES: Final = 4 * 1024
_USUAL_STEPS: Final = 200_000
LONG_BYTES: Final = 64 * 1024
LARGE_BYTES: Final = MAX_ROW_BYTES
# As JSON, a control character is `\u001b`.
JSON_BYTES: Final = 6 * LARGE_BYTES
_LARGE_STEPS: Final = 2_000

# SQLite's defaults are for programs that bring their own SQL.
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


def keeping(function: Callable[[Any], Any], raised: list[BaseException]) -> Generator[Any, Any, None]:
    """
    Return a generator by whose `send` SQLite calls a function of one argument, and which keeps what is raised there.

    Signal handlers raise as well where a function in Python begins, before it is in a `try`, and `sqlite3` drops that.
    A generator goes on where it waits, which is in its `try`.
    """
    found = _keeping(function, raised)
    next(found)
    return found


def _keeping(function: Callable[[Any], Any], raised: list[BaseException]) -> Generator[Any, Any, None]:
    answer = None
    try:
        while True:
            answer = function((yield answer))
    except GeneratorExit:
        raise  # it is not used any more
    except BaseException as error:
        raised.append(error)
        raise


class Budget:
    """
    Bounds the statements inside its `with` block; call `renew` before each question.

    `size` tells the bytes of the file at `path`; `clock` tells the CPU seconds of this thread. `spent` is True after a
    statement that was ended. What was raised in Python inside of SQLite, see `keeping`, is in `raised`, and comes out
    of the block in the place of SQLite's error. That ends a generator, so after a block that failed, `raised` is
    another list, and whatever keeps what is raised has to be made anew.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        size: Callable[[], int],
        *,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._connection = connection
        self._path = path
        self._size = size
        self._clock = clock
        self.seconds = self._left = 0.0
        self._grow()
        self._since = self._called = 0.0
        self.spent = self._is_whole = False
        self.raised: list[BaseException] = []
        self._steps = 0
        for category, limit in _LIMITS.items():
            connection.setlimit(category, limit)
        self._set(_USUAL_BYTES)

    def renew(self) -> None:
        """Start to count for a new question."""
        self._left = self.seconds
        self._set(_USUAL_BYTES)

    def _grow(self) -> None:
        """Allow the time for the file as it is now: a log may have grown since."""
        seconds = max(self.seconds, _SECONDS + self._size() / 1e6 * _SECONDS_PER_MB)
        self._left += seconds - self.seconds
        self.seconds = seconds

    def leave_out(self, seconds: float) -> None:
        """Take off a call of Python that took these seconds by the wall clock."""
        self._called += seconds

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
        self._set(most_bytes if self.is_long else LONG_BYTES)
        return True

    def __enter__(self) -> Self:
        if self._left <= 0:
            self._grow()
        if self._left <= 0:
            message = f"{self._path!r}: it takes more work to read than any log: it was not made by this package"
            raise LimitError(message)
        if not self._is_whole:
            self.raised, self._steps = [], 0
        self.spent = self._is_whole = False
        steps = _LARGE_STEPS if self.is_long else _USUAL_STEPS
        if steps != self._steps:
            with contextlib.suppress(sqlite3.ProgrammingError):  # another thread has closed it: the statement says so
                self._connection.set_progress_handler(keeping(self._tick, self.raised).__next__, steps)
            self._steps = steps
        self._since, self._called = self._clock(), 0.0
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._left -= self._used()
        self._is_whole = error is None
        if isinstance(error, sqlite3.Error | MemoryError) and self.raised:
            raise self.raised.pop() from error  # or its traceback would keep the frames of the question

    def lift(self) -> None:
        """Lift the bound of time until the next `with` block."""
        self._is_whole = False
        self._connection.set_progress_handler(None, 0)

    def _set(self, value_bytes: int) -> None:
        self.value_bytes = value_bytes
        with contextlib.suppress(sqlite3.ProgrammingError):  # another thread has closed it: the next statement says so
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, value_bytes)

    def _tick(self, _: None) -> bool:
        used = self._used()
        if used > self._left:
            self._grow()
        self.spent = used > self._left
        return self.spent

    def _used(self) -> float:
        used = self._clock() - self._since
        return max(used - self._called, used * _LEAST)
