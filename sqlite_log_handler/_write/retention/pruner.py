"""
Retention at work: it deletes rows in chunks, gives pages back in steps, and makes room for commits.

Theory of operation
===================

The writer hands its connection to a `Pruner` under the commit lock, between two commits. `limits` decides what to
delete. Here it is deleted, each piece in a short transaction of its own, never in that of an insert. `Wal` knows
whether the WAL can be written back, and `SideTables` cuts the tables beside `records`.

`step` has its turn when few rows wait to be written, `step_before` before a full batch, and `make_room` before each
commit if there is `max_bytes`. That sets SQLite's `max_page_count`, so that a commit cannot make the file longer than
its share, whatever other processes have written.

Nothing is deleted while a reader holds the WAL back, see `wal`. When file and WAL have come to `max_bytes` then, the
rows that wait are dropped.

Guarantees
==========

- Rows go from the low end of `records`, up to one cut id, so what is left has no hole. The newest row always stays, so
  that SQLite never gives its id again.
- No row younger than `max_age` is deleted because of its age, wherever the clock has jumped to and back. Rows go in the
  order of their ids: a row with an earlier time than the rows before it goes with them.
- After an exception no transaction is open, and `prunes` says what was deleted.
- The tables beside the rows do not push the rows out; docs/retention.md ("What is kept besides") has when they are cut.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import nullcontext

from sqlite_log_handler._logfile.clock import monotonic
from sqlite_log_handler._logfile.connect import corrupt, primary_code, size_of
from sqlite_log_handler._logfile.schema import ARCHIVED_ID, HOUR_US, ROW_BYTES
from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._logfile.units import format_size
from sqlite_log_handler._write import volume
from sqlite_log_handler._write.retention.limits import Cut, Limits, NoRoom, State
from sqlite_log_handler._write.retention.side_tables import SideTables
from sqlite_log_handler._write.retention.wal import RETRY, Wal

TYPE_CHECKING = False
if TYPE_CHECKING:  # a program without an archive loads none of it
    from sqlite_log_handler._write.retention.archiver import Archiver

_CHUNKS = 4  # that one step deletes when it has to hurry: four times what one commit of small rows adds
_CHUNKS_FOR_ROOM = 256  # that `make_room` deletes at most for one commit
_FAILED_RETRY = 5.0  # seconds
_MOST_PAGES = 4_294_967_294  # https://sqlite.org/limits.html
INCREMENTAL = 2  # https://sqlite.org/pragma.html#pragma_auto_vacuum

# Rows, or bytes of them in memory, after which retention has a turn though many wait: every other full batch of small
# rows, or each of large ones. A step that is urgent deletes more.
_ROWS_PER_STEP = 15_000
_BYTES_PER_STEP = 4 * 1024 * 1024

# Units of free pages at most, where a commit needs that many.
_MOST_FREE_UNITS = 8

# The plus signs keep SQLite from the index on time: these walk up the ids and stop at the first hit.
_FIRST_YOUNG = "SELECT id FROM records WHERE id <= ? AND +created_us BETWEEN ? AND ? ORDER BY id LIMIT 1"
_FIRST_PAST = "SELECT id, created_us FROM records WHERE +created_us <= ? ORDER BY id LIMIT 1"
_LAST_OLD = "SELECT id FROM records WHERE id <= ? AND id < ? AND +created_us < ? ORDER BY id DESC LIMIT 1"

# One statement, because in a busy program each is a wait for the GIL; with min and max apart, because together they
# read all rows.
_LOOK = """
SELECT page_size, page_count, freelist_count, ifnull((SELECT min(id) FROM records), 1),
    ifnull((SELECT max(id) FROM records), 0), ifnull((SELECT CAST(min(created_us) AS INTEGER) FROM records), 0),
    auto_vacuum
FROM pragma_page_size, pragma_page_count, pragma_freelist_count, pragma_auto_vacuum
"""
_HEAD_ROWS = 256
# The bytes of a row, on average, among some rows from an id on, each so many ids after the one before. A row counts for
# more if an earlier one follows, see `Limits.disorder_bytes`.
_HEADS = f"""
WITH RECURSIVE heads (id) AS (SELECT ? UNION ALL SELECT id + ? FROM heads LIMIT ?)
SELECT ifnull(avg({ROW_BYTES} + ? * EXISTS (
    SELECT 1 FROM records AS later WHERE later.id = records.id + 1 AND later.created_us < records.created_us - 1000000
)), 0) FROM records WHERE id IN heads
"""  # noqa: S608 - our own SQL
# A run of pruning is one line of `prunes` for each cause and hour.
_NOTE = f"""
INSERT INTO prunes (id, first_id, last_id, since_us, until_us, cause, count, unsent, archived) VALUES (
    (SELECT id FROM prunes WHERE since_us / {HOUR_US} = :now / {HOUR_US} AND cause = :cause ORDER BY id DESC),
    :first_id, :last_id, :now, :now, :cause, :count,
    ifnull(min(:count, max(0, :last_id - max(:first_id - 1, (SELECT min(after_id) FROM cursors)))), 0),
    (SELECT ifnull(sum(min(last_id, :last_id) - max(first_id, :first_id) + 1), 0) FROM archives
    WHERE last_id >= :first_id AND first_id <= :last_id)
)
ON CONFLICT (id) DO UPDATE SET last_id = excluded.last_id, until_us = max(ifnull(until_us, 0), excluded.until_us),
    count = ifnull(count, 0) + excluded.count, unsent = ifnull(unsent, 0) + excluded.unsent,
    archived = ifnull(archived, 0) + excluded.archived
"""  # noqa: S608 - our own number
# Ids below the archive's that no part has were counted when it moved on.
_MARK = f"""
UPDATE marks SET archived_id = max({ARCHIVED_ID}, :last_id),
    unarchived = ifnull(unarchived, 0) + max(0, :last_id - {ARCHIVED_ID})
"""  # noqa: S608 - our own SQL


class Pruner:
    """
    Keep the log at `path`, without links, within `limits`. Of a cut, delete what `bound` or the `archiver` leaves.

    `say` takes a line for the operator, `now` gives the time, for the age of rows, and `clock` seconds that never jump.
    """

    def __init__(
        self,
        path: str,
        limits: Limits,
        *,
        archiver: Archiver | None = None,
        bound: Callable[[sqlite3.Connection, State, Cut], Cut | None] | None = None,
        say: Callable[[str], None] = print,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limits = limits
        self._archiver = archiver
        self._bound = bound if archiver is None else archiver.bound
        self.deleted: dict[str, int] = {}  # rows by cause
        quiet = archiver.quiet if archiver is not None else lambda _: nullcontext(enter_result=True)
        self.wal = Wal(path, limits, say=say, now=now, clock=clock, quiet=quiet)
        self.tables = SideTables(limits, self.wal)
        self._say = say
        self._now = now
        self._clock = clock
        self._said_no_vacuum = False
        self._failures = 0  # since the last step that succeeded
        self._capped = False  # SQLite keeps the file from growing beyond its share
        self._live: float = math.inf  # bytes, before the last chunk of this run: to delete it may have freed nothing
        self._rows_since_step = self._bytes_since_step = 0
        self._next_look = 0.0  # at the age of rows, by `clock`
        self._aged_at = math.inf  # when the next row is too old

    # What the writer calls --------------------------------------------------------------------------------------------

    def opened(self, path: str) -> None:
        """Forget what is known of the file: it was opened, and may be another one."""
        self.wal.path = path
        self.tables.forget_sweep()
        if self._archiver is not None:
            self._archiver.opened(path)
        self._capped = False

    def step(self, connection: sqlite3.Connection, *, crowded: bool = False) -> float | None:
        """
        Do a piece of what is due; only of what is urgent when it is `crowded`, because many rows wait to be written.

        Return the seconds until there is more to do, if nothing is written meanwhile; 0 when there is more now, None
        when there is nothing to come.
        """
        self.lift_cap(connection)
        self._live = math.inf
        state = self._look(connection)
        if not self.wal.is_free(connection):
            return RETRY
        archive_due = math.inf if self._archiver is None else self._archiver.step(connection, state)
        for _ in range(_CHUNKS):
            cut = self._delete(connection, state, crowded=crowded)
            # Rows that the disk has room for are not worth a longer wait of those who commit.
            hurried = crowded or self.limits.excess(state) > 0
            if not (cut and cut.partial and hurried and self.wal.is_free(connection)):
                break
            state = self._look(connection)
        more = self.tables.step(connection)
        if cut is not None or self._give_back(connection, state, crowded=crowded):
            more = True
        if self._failures > 1:
            self._say("pruning again")
        self._failures = 0
        due = 0 if more else max(0, min(self._aged_at - self._clock(), archive_due))
        return None if due == math.inf else due

    def step_before(self, connection: sqlite3.Connection, rows: int, size: int) -> None:
        """Do what is urgent, if it is time to, before `rows` rows of `size` bytes in memory are written."""
        self._rows_since_step += rows
        self._bytes_since_step += size
        if self._rows_since_step >= _ROWS_PER_STEP or self._bytes_since_step >= _BYTES_PER_STEP:
            self._rows_since_step = self._bytes_since_step = 0
            self.step(connection, crowded=True)

    def make_room(self, connection: sqlite3.Connection) -> None:
        """Make room for one commit. Raises NoRoom if that does not help, BlockingIOError if it may in a moment."""
        self._live = math.inf
        trimmed = False
        for _ in range(_CHUNKS_FOR_ROOM):
            free = self.wal.is_free(connection)
            state = self._look(connection)
            if self.limits.has_room(state):
                if not self._capped:
                    # Of a file that is larger, because the limit is new, SQLite makes it the present size.
                    connection.execute(f"PRAGMA max_page_count = {self.limits.file_bytes // state.page_size}")
                    self._capped = True
                return
            if not free:
                break
            self.lift_cap(connection)  # to delete rows may take pages for what is written down of them
            if not self._delete(connection, state, crowded=True):
                if trimmed:
                    break
                trimmed = self.tables.trim_all(connection)
        if not (free or self.wal.stays_pinned):  # the rows wait on the queue for that
            raise BlockingIOError("a reader, perhaps that of the archive, keeps the WAL from being written back")
        taken, budget = format_size(state.file + state.wal), format_size(self.limits.max_bytes or 0)
        waiting = self._archiver is not None and state.rows > 1 and self._archiver.why
        why = self.wal.pinned or waiting or "no row is left that could be deleted"
        raise NoRoom(f"file and WAL take {taken} of max_bytes {budget}, and {why}")

    def can_free_more(self, error: BaseException) -> bool:
        """Tell whether a commit that failed, because the file was full, may succeed after another `make_room`."""
        known = self.limits
        if not self._capped or primary_code(error) != sqlite3.SQLITE_FULL or known.free_units >= _MOST_FREE_UNITS:
            return False
        if _free_on_disk(self.wal.path) < known.commit_bytes:  # a full disk looks the same, and is to cost no row
            return False
        # The commit needs more pages than we keep free.
        self.limits = Limits(known.max_age, known.max_rows, known.max_bytes, 2 * known.free_units)
        return True

    def lift_cap(self, connection: sqlite3.Connection) -> None:
        """Let the file grow beyond its share, for what is to be written in any case."""
        if self._capped:
            self._capped = False
            connection.execute(f"PRAGMA max_page_count = {_MOST_PAGES}")

    def failed(self, error: Exception) -> float:
        """Note that `step` failed, and say so once if that lasts. Return when to try again, in seconds."""
        self.tables.forget_sweep()
        if self._failures == 1:  # the first may be a process that has the file locked
            self._say(f"cannot prune ({type(error).__name__}: {error}): the log is written all the same; trying again")
        self._failures += 1
        return _FAILED_RETRY

    # Rows -------------------------------------------------------------------------------------------------------------

    def _delete(self, connection: sqlite3.Connection, state: State, *, crowded: bool) -> Cut | None:
        """Delete a chunk, if one is due. When the tables beside the rows went first, the cut is still to be made."""
        aged = self._cut_by_age(connection, state)
        # What is urgent goes first: the archive may let that go, but not a cut that goes further and is not urgent.
        cut = self.limits.cut(state, aged=aged, crowded=True)
        if cut is None and (crowded or (cut := self.limits.cut(state, aged=aged)) is None):
            return None
        end = self._chunk_end(connection, state)
        if end < cut.last_id:
            cut = cut._replace(last_id=end, partial=True)
        if self._bound is not None and (cut := self._bound(connection, state, cut)) is None:
            return None
        if self.limits.excess(state) > 0 and (self.tables.deleted_rows >= state.rows or state.live >= self._live):
            # The tables beside the rows may be what takes too much: they go first.
            self.tables.trim_all(connection)
            self._live = math.inf
            return cut
        with transaction(connection):
            counted, last_id = volume.unfolded_up_to(connection, cut.last_id, self.limits.volume_lines)
            if last_id < cut.last_id:
                cut = cut._replace(last_id=last_id, partial=True)
            # Before the rest: in a full file the pages of the rows are the only ones for it.
            count = connection.execute("DELETE FROM records WHERE id <= ?", (cut.last_id,)).rowcount
            volume.add(connection, counted, cut.last_id)
            note = {"now": round(self._now() * 1e6), "cause": cut.cause, "count": count}
            connection.execute(_NOTE, {**note, "first_id": state.first_id, "last_id": cut.last_id})
            connection.execute(_MARK, {"last_id": cut.last_id})
        self.deleted[cut.cause] = self.deleted.get(cut.cause, 0) + count
        self.tables.deleted_rows += count
        self._live = state.live
        return cut

    def fold(self, connection: sqlite3.Connection) -> int:
        """Fold rows after the mark of `volume`, as many as one transaction may; return how many are left."""
        with transaction(connection):
            (last_id,) = connection.execute("SELECT ifnull(max(id), 0) FROM records").fetchone()
            counted, folded_id = volume.unfolded_up_to(connection, last_id, self.limits.volume_lines)
            volume.add(connection, counted, folded_id)
        return int(last_id - folded_id)

    def _chunk_end(self, connection: sqlite3.Connection, state: State) -> int:
        """Return the highest id that one transaction may delete."""
        fewer, rows = self.limits.chunk_rows(state.live / max(1, state.rows)), state.rows + 1
        # Not by the average of all rows alone: a chunk of larger ones would make a WAL many times as large. Nor by that
        # of more rows than go, of which the first may be the larger ones. A quarter more than a chunk is one too, or
        # there would be very many looks, and each reads all that its rows hold.
        while fewer < rows * 0.8:
            rows = fewer
            heads = state.first_id, math.ceil(rows / _HEAD_ROWS), min(rows, _HEAD_ROWS), self.limits.disorder_bytes
            fewer = self.limits.chunk_rows(connection.execute(_HEADS, heads).fetchone()[0])
        return min(state.first_id - 1 + rows, state.last_but_one_id)

    def _cut_by_age(self, connection: sqlite3.Connection, state: State) -> Cut | None:
        """Return what is too old in the next chunk."""
        max_age = self.limits.max_age
        if state.rows <= 1:
            self._next_look, self._aged_at = 0.0, math.inf
            return None
        if max_age is None or self._clock() < self._next_look:
            return None
        now = self._now()
        age = now - state.oldest_us / 1e6
        pause, last_old = max_age / 100, None
        if age > max_age:
            last_old = last_too_old(connection, now, max_age, self._chunk_end(connection, state))
            if last_old is None:
                # More rows of the future than a chunk has may stand before an old one, and go with it.
                first_past = connection.execute(_FIRST_PAST, (round(now * 1e6),)).fetchone()
                if first_past and first_past[1] < round((now - max_age) * 1e6):
                    last_old = int(first_past[0])
        if last_old is None:
            # Rows that come of age one by one go together.
            self._next_look = self._clock() + pause
            self._aged_at = self._clock() + max(pause, max_age - age)
            return None
        urgent_in = max_age * 1.1 - age
        # If the rows wait for the archive, they are due when that says so, or without it when they are urgent.
        self._aged_at = math.inf if urgent_in < 0 else self._clock() + max(pause, urgent_in)
        return Cut(last_old, "max_age", urgent_in < 0)

    # Pages ------------------------------------------------------------------------------------------------------------

    def _look(self, connection: sqlite3.Connection) -> State:
        state = look(connection, self.wal.path)
        if state.rows < 0:
            raise corrupt("the ids of its rows are out of order")
        return state

    def _give_back(self, connection: sqlite3.Connection, state: State, *, crowded: bool) -> bool:
        """Give free pages back to the file system, if there are too many. Returns whether there may be more."""
        can_vacuum = state.auto_vacuum == INCREMENTAL
        if not can_vacuum and not self._said_no_vacuum:
            self._said_no_vacuum = True
            self._say(
                "the file was made without auto_vacuum=INCREMENTAL: what retention frees is used again, but the file "
                "does not become smaller; `sqlite-log prune FILE --vacuum` changes that"
            )
        pages = self.limits.vacuum_pages(state, crowded=crowded) if can_vacuum else 0
        piece = max(1, self.limits.chunk_bytes // state.page_size)
        for done in range(0, pages, piece):
            if not self.wal.is_free(connection):
                break
            # Not `execute`, which steps once, and once frees one page.
            connection.executescript(f"PRAGMA incremental_vacuum({min(piece, pages - done)})")
        all_bytes = state.pages * state.page_size
        if not pages and state.file > self.limits.file_bytes >= all_bytes:
            # The file gets shorter when the WAL is written back, which may be long after.
            self.wal.write_back(connection)
        return pages > 0


def last_too_old(connection: sqlite3.Connection, now: float, max_age: float, end: int) -> int | None:
    """Return the last id up to `end` that is too old, before the first row that is neither old nor of the future."""
    since, until = round((now - max_age) * 1e6), round(now * 1e6)
    young = connection.execute(_FIRST_YOUNG, (end, since, until)).fetchone()
    old = connection.execute(_LAST_OLD, (end, young[0] if young else end + 1, since)).fetchone()
    return None if old is None else int(old[0])


def _free_on_disk(path: str) -> float:
    """Return the bytes that the disk has left for this user; infinity where the system does not tell."""
    try:
        found = os.statvfs(path)
        return (found.f_bavail if os.geteuid() else found.f_bfree) * found.f_frsize
    except (AttributeError, OSError):  # Windows has none
        return math.inf


def look(connection: sqlite3.Connection, path: str) -> State:
    """Look at a log, and open none of its files, see `_write.log_file`."""
    page_size, pages, *_ = found = connection.execute(_LOOK).fetchone()
    return State._make((*found, size_of(path + "-wal"), max(size_of(path), pages * page_size)))
