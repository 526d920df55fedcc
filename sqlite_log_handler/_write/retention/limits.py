"""
How much of a log is kept, and what that calls for: plain functions of numbers, without a clock, a thread or a file.

Theory of operation
===================

Rows are deleted from the low end of `records`, so each limit comes down to one cut id: rows up to it go.

`max_bytes` bounds the file and its WAL together, and is shared out: an eighth for the WAL, a sixteenth for the next
commit, the rest for rows; of large budgets WAL and commit take no more than they do without one. Rows are deleted when
live pages take more than their share. The pages freed are used again by the rows to come, so the file stands at what
the WAL leaves, and need not shrink: the cheap thing is the common one. When a reader keeps the WAL from being written
back, commits are allowed until the next one would lead beyond 13/12 of the budget.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlite_log_handler._logfile.units import parse_seconds, parse_size

_Number = TypeVar("_Number", int, float)

# A transaction of this many bytes at most, by the size of its rows in memory: it bounds what SQLite and sqlite3 copy.
COMMIT_BYTES = 8 * 1024 * 1024

# WAL left behind after a checkpoint: what a few full batches take. SQLite's default is no limit.
WAL_BYTES = 16 * 1024 * 1024

# Pages in the WAL that make SQLite write it back: its default.
_CHECKPOINT_PAGES = 1_000

# Rows, and bytes of them, that one transaction deletes: some 10 ms, and twice the WAL of a full batch. While the
# program logs at full speed, each statement is a wait for the GIL, so there are to be few.
_CHUNK_ROWS = 20_000
_CHUNK_BYTES = 2 * 1024 * 1024

# So many commits are allowed at a time, until sizes are looked at again.
_COMMITS = 4

# Pages that one step gives back to the file system.
VACUUM_PAGES = 256

# SQLite's default (https://sqlite.org/pragma.html#pragma_page_size).
_PAGE_BYTES = 4_096

# Lines of `drops`, `volume`, `prunes`, `sources` and `processes` that are kept, each: one for 10 kB of `max_bytes`. The
# least is one of number only: 1,000 lines with names of 1,000 characters are more than the least budget.
_LINES = (1_000, 100_000)
_BYTES_PER_LINE = 10_000

_YEAR = 365.25 * 86_400
LEAST_BYTES = 1 << 20


class NoRoom(Exception):  # noqa: N818 - a state, as queue.Full is
    """
    File and WAL have come to `max_bytes`, and it does not help to delete rows; says why.
    """


class Cut(NamedTuple):
    """
    Rows up to `last_id` are to go, because of `cause`.

    Urgent: also while many rows wait to be written. Partial: the rest is for other transactions.
    """

    last_id: int
    cause: str
    urgent: bool
    partial: bool = False


class State(NamedTuple):
    """
    What a log holds and takes: pages and rows as the last commit left them, and bytes.
    """

    page_size: int
    pages: int
    free_pages: int
    first_id: int | None  # None when there is no row
    last_id: int | None
    oldest_us: int | None  # the earliest time
    head_bytes: float | None  # of text in a row, on average, among those that are next to go
    wal: int
    file: int  # on disk, or when the WAL is written back, whichever is more

    @property
    def live(self) -> int:
        """
        Bytes of the pages in use.
        """
        return (self.pages - self.free_pages) * self.page_size

    @property
    def rows(self) -> int:
        """
        Number of rows; there are no holes, see `_write.retention.pruner`.
        """
        return 0 if self.first_id is None or self.last_id is None else self.last_id - self.first_id + 1

    @property
    def last_but_one_id(self) -> int:
        """
        The highest id that may be deleted. SQLite gives the highest id plus one, so without the newest row it would
        give an id twice.
        """
        return (self.last_id or 0) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What is kept at most; None where there is no limit.

    Attributes:
        max_age: Seconds.
        max_rows: Rows.
        max_bytes: Bytes of the file and its WAL.
    """

    max_age: float | None = None
    max_rows: int | None = None
    max_bytes: int | None = None

    def __bool__(self) -> bool:
        return self != Limits()

    @property
    def commit_bytes(self) -> int:
        """
        What one commit writes at most, by the size of its rows in memory.
        """
        return COMMIT_BYTES if self.max_bytes is None else min(COMMIT_BYTES, self.max_bytes // 16)

    @property
    def wal_bytes(self) -> int:
        """
        What the WAL may take; if it is larger, somebody keeps it from being written back.
        """
        return WAL_BYTES if self.max_bytes is None else min(WAL_BYTES, self.max_bytes // 8)

    @property
    def file_bytes(self) -> int:
        """
        What the file may take, with `max_bytes`.
        """
        return (self.max_bytes or 0) - self.wal_bytes

    @property
    def lines(self) -> int:
        """
        How many lines of a table beside `records` are kept.
        """
        least, most = _LINES
        return most if self.max_bytes is None else min(max(self.max_bytes // _BYTES_PER_LINE, least), most)

    @property
    def text_bytes(self) -> int:
        """
        What the lines of `drops`, and of `volume`, may take when rows have to go for them, with `max_bytes`.
        """
        return (self.max_bytes or 0) // 16

    def checkpoint_pages(self, page_size: int) -> int:
        """
        Return after how many pages SQLite is to write the WAL back.
        """
        if self.max_bytes is None:
            return _CHECKPOINT_PAGES
        return max(1, min(_CHECKPOINT_PAGES, self.max_bytes // 16 // page_size))

    def room(self, state: State) -> int:
        """
        Return how many more commits keep to `max_bytes`, as far as it matters: 4 at most.

        A commit may make the file longer, and the WAL too when somebody keeps it from being written back. A file that
        is too large already, because the limit is new, may be written to as long as that makes it no larger.
        """
        if self.max_bytes is None:
            return _COMMITS
        spare = self.max_bytes * 13 // 12 - state.wal
        size = self.commit_bytes
        for commits in range(_COMMITS, 0, -1):
            if max(state.file, state.live + commits * size) + commits * size <= spare:
                return commits
        return int(state.live + size <= state.file and state.wal <= self.wal_bytes)

    @property
    def chunk_bytes(self) -> int:
        """
        How many bytes of rows one transaction may delete.
        """
        return _CHUNK_BYTES if self.max_bytes is None else min(_CHUNK_BYTES, self.max_bytes // 16)

    @property
    def chunk_lines(self) -> int:
        """
        How many lines of a table beside the rows one transaction may delete, if each has a page of its own.
        """
        return self.chunk_bytes // _PAGE_BYTES

    def chunk_rows(self, state: State) -> int:
        """
        Return how many rows one transaction deletes, if they are as large as those of the whole log.
        """
        return self._rows_of(max(1, state.live / max(1, state.rows)))

    def chunk_end(self, state: State) -> int:
        """
        Return the highest id that one transaction may delete.

        Not by the average of all rows alone: a chunk of larger ones would make a WAL many times as large.
        """
        rows = min(self.chunk_rows(state), self._rows_of(max(1, state.head_bytes or 0)))
        return min((state.first_id or 0) - 1 + rows, state.last_but_one_id)

    def _rows_of(self, size: float) -> int:
        return max(1, min(_CHUNK_ROWS, int(self.chunk_bytes / size)))

    def cut(self, state: State, *, aged: Cut | None = None, crowded: bool = False) -> Cut | None:
        """
        Reduce all limits to one cut, as far as one transaction goes.

        Args:
            state: Of the log.
            aged: What `max_age` asks for; that is for the file to tell.
            crowded: Many rows wait to be written, so that only what is urgent is done.
        """
        cut = self.whole_cut(state, aged=aged, crowded=crowded)
        end = self.chunk_end(state)
        return cut and cut._replace(last_id=min(cut.last_id, end), partial=cut.last_id > end)

    def whole_cut(self, state: State, *, aged: Cut | None = None, crowded: bool = False) -> Cut | None:
        """
        Reduce all limits to one cut, however many rows it is.
        """
        cuts = [aged, self._cut_by_rows(state), self._cut_by_bytes(state)] if state.rows > 1 else []
        cut = max((cut for cut in cuts if cut and (cut.urgent or not crowded)), default=None)
        return cut and cut._replace(last_id=min(cut.last_id, state.last_but_one_id))

    def _cut_by_rows(self, state: State) -> Cut | None:
        if self.max_rows is None or state.rows <= self.max_rows:
            return None
        # Down to 99 %: a program that logs a row at a time would else delete a row at a time.
        keep = self.max_rows - self.max_rows // 100
        return Cut((state.last_id or 0) - keep, "max_rows", state.rows * 10 > self.max_rows * 11)

    def _cut_by_bytes(self, state: State) -> Cut | None:
        if self.max_bytes is None:
            return None
        excess = state.live - (self.file_bytes - self.commit_bytes)
        if excess <= 0:
            return None
        # And a sixteenth more, for the same reason.
        rows = math.ceil((excess + self.max_bytes // 16) * state.rows / state.live)
        return Cut((state.first_id or 0) - 1 + rows, "max_bytes", urgent=True)

    def vacuum_pages(self, state: State, *, crowded: bool = False) -> int:
        """
        Return how many free pages to give back in one step: none, as a rule, because the next rows go there.
        """
        spare = 0 if crowded else state.free_pages - max(state.pages // 4, VACUUM_PAGES)
        if self.max_bytes is not None:
            reserve = self.commit_bytes // state.page_size
            beyond = state.pages - self.file_bytes // state.page_size
            spare = max(spare, min(beyond, state.free_pages - reserve))
        return max(0, min(spare, VACUUM_PAGES))


def seconds(option: str, value: object) -> float:
    """
    Read an age: a number of seconds, or a text like "7d", "1h 30min", "2 weeks".
    """
    age = _named(option, value, parse_seconds)
    if not 1 <= age <= 100 * _YEAR:
        message = f"{option}={value!r}: must be from 1 second to 100 years, and is {age:,.15g} seconds"
        raise ValueError(message)
    return age


def count(option: str, value: object) -> int:
    """
    Read a number of rows.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{option}={value!r}: must be an integer, 1 or more"
        raise TypeError(message)
    if value < 1:
        message = f"{option}={value!r}: must be 1 or more"
        raise ValueError(message)
    return value


def size(option: str, value: object) -> int:
    """
    Read a size: a number of bytes, or a text like "500MB", "2GB", "64MiB".
    """
    found = _named(option, value, parse_size)
    if not LEAST_BYTES <= found < 1 << 62:
        allowed = f"must be {LEAST_BYTES:,} bytes or more" if found < LEAST_BYTES else "must be below 2**62 bytes"
        message = f"{option}={value!r}: {allowed}, and is {found:,.15g} bytes"
        raise ValueError(message)
    return found


def _named(option: str, value: object, parse: Callable[[object], _Number]) -> _Number:
    """
    Call `parse`, and name the option in the error that it raises.
    """
    try:
        return parse(value)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        message = f"{option}: {error}"
        raise kind(message) from error


def limits(max_age: Any = None, max_rows: Any = None, max_bytes: Any = None) -> Limits:
    """
    Read all three, None where there is no limit.

    Raises:
        TypeError, ValueError: One is of the wrong kind, or out of range.
    """
    return Limits(
        None if max_age is None else seconds("max_age", max_age),
        None if max_rows is None else count("max_rows", max_rows),
        None if max_bytes is None else size("max_bytes", max_bytes),
    )
