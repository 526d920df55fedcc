"""
How much of a log is kept, and what that calls for: plain functions of numbers, without a clock, a thread or a file.

Theory of operation
===================

Rows are deleted from the low end of `records`, so each limit comes down to one cut id: rows up to it go.

`max_bytes` bounds the file and its WAL together. Their shares are multiples of one unit, `commit_bytes`: what the rows
of one commit take in memory, a 32nd of the budget or 8 MiB.

| share | units | kept by |
|---|---|---|
| WAL before a transaction | 2 | the writer, which writes a larger one back first, by the size of the -wal |
| what a transaction adds to the WAL | 5 | the size of commits and of chunks: most add less than 2, see below |
| file | the rest of 110 %, but 2 less than 100 % | SQLite, whose `max_page_count` stops a commit that needs more |
| free pages of the file, before a commit | 3 | retention, which deletes rows until there are as many |

Rows are deleted when live pages take more than the file without its free share. The rows to come use the freed pages
again, so the file stands at its share and need not shrink: the cheap thing is the common one. A transaction adds more
pages than its rows take in memory: pages are half empty at worst, text is stored as UTF-8, and the index and the tables
beside the rows change as well. While a reader holds the WAL, a commit is allowed if file and WAL stay within 110 % even
if it adds 4 units. None of this depends on what other processes do: a process looks at the -wal under the lock that all
of them share, and its `max_page_count` counts their pages as well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from sqlite_log_handler._logfile.typed import Any, NamedTuple, T
from sqlite_log_handler._logfile.units import parse_seconds, parse_size
from sqlite_log_handler._write.options import integer

# A transaction of this many bytes at most, by the size of its rows in memory: it bounds what SQLite and sqlite3 copy.
COMMIT_BYTES = 8 * 1024 * 1024

# Size of the WAL that makes SQLite write it back: with its default pages, its default of 1,000 of them.
_CHECKPOINT_BYTES = 4_096_000

# Rows, and bytes of them, that one transaction deletes: some 10 ms, and twice the WAL of a full batch. While the
# program logs at full speed, each statement is a wait for the GIL, so there are to be few.
_CHUNK_ROWS = 20_000
_CHUNK_BYTES = 2 * 1024 * 1024

# Shares of `max_bytes`, in units of `commit_bytes`; see above. Measured: 88 to 94 % of `max_bytes` in all, and up to
# 100 % of 1 MiB with 4,000 names of 200 or 1,000 characters.
_WAL_UNITS = 2
_TRANSACTION_UNITS = 5
_PINNED_TRANSACTION_UNITS = 4
_FREE_UNITS = 3

# Of a new file. A commit writes two whole pages, so with SQLite's default of 4 KiB a row of a trickle costs 1.7 times
# as much; docs/what-it-writes.md has what was measured.
PAGE_BYTES = 2_048

VACUUM_PAGES = 1024 * 1024 // PAGE_BYTES  # that one step gives back to the file system

# Lines of `drops`, `volume`, `prunes`, `sources` and `processes` that are kept, each: one for 10 kB of `max_bytes`. The
# least is one of number only: 1,000 lines with names of 1,000 characters are more than the least budget.
_LINES = (1_000, 100_000)
_BYTES_PER_LINE = 10_000

_YEAR = 365.25 * 86_400
LEAST_BYTES = 1 << 20


class NoRoom(Exception):  # noqa: N818 - a state, as queue.Full is
    """File and WAL have come to `max_bytes`, and it does not help to delete rows; says why."""


class Cut(NamedTuple):
    """Rows up to `last_id` are to go, because of `cause`."""

    last_id: int
    cause: str
    urgent: bool  # also while many rows wait to be written
    partial: bool = False  # the rest is for other transactions


class State(NamedTuple):
    """What a log holds and takes: pages and rows as the last commit left them, and bytes."""

    page_size: int
    pages: int
    free_pages: int
    first_id: int  # 1 when there is no row
    last_id: int  # 0 when there is none
    oldest_us: int  # the earliest time
    auto_vacuum: int  # INCREMENTAL, unless another program made the file
    wal: int
    file: int  # on disk, or when the WAL is written back, whichever is more

    @property
    def live(self) -> int:
        """Bytes of the pages in use."""
        return (self.pages - self.free_pages) * self.page_size

    @property
    def rows(self) -> int:
        """Number of rows; there are no holes, see `_write.retention.pruner`."""
        return self.last_id - self.first_id + 1

    @property
    def last_but_one_id(self) -> int:
        """The highest id that may be deleted: without the newest row, SQLite would give its id again."""
        return self.last_id - 1


class Limits:
    """What is kept at most, None where there is no limit, and what follows from that. Nothing changes it."""

    def __init__(
        self,
        max_age: float | None = None,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        free_units: int = _FREE_UNITS,
        beside: int = sys.maxsize,
    ) -> None:
        self.max_age = max_age  # seconds
        self.max_rows = max_rows
        self.max_bytes = max_bytes  # of the file and its WAL
        self.free_units = free_units  # see above; a program whose commits need more gets more
        budget = sys.maxsize if max_bytes is None else max_bytes
        # What one commit writes at most, by the size of its rows in memory. A program beside may have this `max_bytes`.
        self.commit_bytes = min(COMMIT_BYTES, min(budget, beside) // 32)
        # What the WAL may take before a transaction; a larger one is written back first.
        self.wal_bytes = _WAL_UNITS * self.commit_bytes
        # What file and WAL may take together at any moment, and what the file may.
        self.most_bytes = budget * 11 // 10
        rest = self.most_bytes - (_WAL_UNITS + _TRANSACTION_UNITS) * self.commit_bytes
        self.file_bytes = min(budget - self.wal_bytes, rest)
        # What free pages, and pages that the file may still get, are to take before a commit.
        self.free_bytes = free_units * self.commit_bytes
        # How many lines of a table beside `records` are kept, and what those of `drops`, and of `volume`, may take when
        # rows have to go for them.
        self.lines = min(max(budget // _BYTES_PER_LINE, _LINES[0]), _LINES[1])
        self.text_bytes = budget // 32
        # How many bytes of rows one transaction may delete, and how many lines beside the rows: each may be on a page
        # of its own.
        self.chunk_bytes = min(_CHUNK_BYTES, self.commit_bytes)
        self.chunk_lines = self.chunk_bytes // PAGE_BYTES
        # What a row that is not in the order of time counts more: deleting it changes a page of its own in the index by
        # time. Nothing bounds the WAL without `max_bytes`, and with fewer rows at once retention would fall behind.
        self.disorder_bytes = PAGE_BYTES // 2 if min(budget, beside) < sys.maxsize else 0
        # How many lines of `volume_folded` one transaction may change, for the same reason.
        self.volume_lines = sys.maxsize if max_bytes is None else self.commit_bytes // PAGE_BYTES

    def __bool__(self) -> bool:
        return (self.max_age, self.max_rows, self.max_bytes) != (None, None, None)

    def checkpoint_pages(self, page_size: int) -> int:
        """Return after how many pages SQLite is to write the WAL back."""
        return max(1, min(_CHECKPOINT_BYTES, self.wal_bytes) // page_size)

    def has_room(self, state: State) -> bool:
        """Tell whether there is room for a commit."""
        # A file that is too large already, because the limit is new, may be written to as long as it grows no more.
        free = max(self.file_bytes, state.file) - state.live
        if free < self.free_bytes:
            return False
        if state.wal <= self.wal_bytes:
            return True
        # A reader holds it, so a commit makes it longer, and the file too when it is written back at last.
        file = max(state.file, state.live + self.free_bytes)
        return file + state.wal + _PINNED_TRANSACTION_UNITS * self.commit_bytes <= self.most_bytes

    def chunk_rows(self, row_bytes: float) -> int:
        """Return how many rows of this size one transaction deletes."""
        return max(1, min(_CHUNK_ROWS, int(self.chunk_bytes / max(1, row_bytes))))

    def cut(self, state: State, *, aged: Cut | None = None, crowded: bool = False) -> Cut | None:
        """Reduce all limits to one cut; only what is urgent if it is `crowded`."""
        cuts = [aged, self._cut_by_rows(state), self._cut_by_bytes(state)] if state.rows > 1 else []
        cut = max((cut for cut in cuts if cut and (cut.urgent or not crowded)), default=None)
        return cut and cut._replace(last_id=min(cut.last_id, state.last_but_one_id))

    def _cut_by_rows(self, state: State) -> Cut | None:
        if self.max_rows is None or state.rows <= self.max_rows:
            return None
        # Down to 99 %: a program that logs a row at a time would else delete a row at a time.
        keep = self.max_rows - self.max_rows // 100
        return Cut(state.last_id - keep, "max_rows", state.rows * 10 > self.max_rows * 11)

    def excess(self, state: State) -> int:
        """Return by how many bytes the pages in use take too much; at most 0 if they do not."""
        return state.live - (self.file_bytes - self.free_bytes)

    def to_free(self, state: State) -> int:
        """Return how many bytes to delete when they take too much: one unit more, for the reason of `_cut_by_rows`."""
        return self.excess(state) + self.commit_bytes

    def _cut_by_bytes(self, state: State) -> Cut | None:
        if self.excess(state) <= 0:
            return None
        rows = math.ceil(self.to_free(state) * state.rows / state.live)
        return Cut(state.first_id - 1 + rows, "max_bytes", urgent=True)

    def vacuum_pages(self, state: State, *, crowded: bool = False) -> int:
        """Return how many free pages to give back in one step: none, as a rule, because the next rows go there."""
        spare = 0 if crowded else state.free_pages - max(state.pages // 4, VACUUM_PAGES)
        reserve = self.free_bytes // state.page_size
        beyond = state.pages - self.file_bytes // state.page_size
        spare = max(spare, min(beyond, state.free_pages - reserve))
        return max(0, min(spare, VACUUM_PAGES))


def seconds(option: str, value: object) -> float | None:
    """Read an age, None for no limit: a number of seconds, or a text like "7d", "1h 30min", "2 weeks"."""
    if value is None:
        return None
    age = _named(option, value, parse_seconds)
    if not 1 <= age <= 100 * _YEAR:
        raise ValueError(f"{option}={value!r}: must be from 1 second to 100 years, and is {age:,.15g} seconds")
    return age


def size(option: str, value: object) -> int | None:
    """Read a size, None for no limit: a number of bytes, or a text like "500MB", "2GB", "64MiB"."""
    if value is None:
        return None
    found = _named(option, value, parse_size)
    if not LEAST_BYTES <= found < 1 << 62:
        allowed = f"must be {LEAST_BYTES:,} bytes or more" if found < LEAST_BYTES else "must be below 2**62 bytes"
        raise ValueError(f"{option}={value!r}: {allowed}, and is {found:,} bytes")
    return found


def _named(option: str, value: object, parse: Callable[[object], T]) -> T:
    """Call `parse`, and name the option in the error that it raises."""
    try:
        return parse(value)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{option}: {error}") from error


def limits(max_age: Any = None, max_rows: Any = None, max_bytes: Any = None) -> Limits:
    """Read all three, None where there is no limit. Raises TypeError or ValueError if one is wrong."""
    rows = None if max_rows is None else integer("max_rows", max_rows, 1)
    return Limits(seconds("max_age", max_age), rows, size("max_bytes", max_bytes))
