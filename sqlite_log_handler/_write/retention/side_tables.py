"""
The tables beside `records`: they outlive the rows, and are cut so that they do not push the rows out.

`drops`, `volume` and `prunes` keep their newest lines. `sources`, `processes`, `threads` and `levels` keep the lines
that a row or a gap refers to. To find those, a sweep reads all rows, a slice in each step, and then deletes the other
lines in portions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.retention.wal import Wal

_ROWS_PER_LINE = 10  # that were deleted for each line that is kept, when the tables are cut
_SWEEP_ROWS = 20_000  # that a sweep looks through in a step: some 5 ms
_SWEEP_LINES = 1_000  # that a sweep deletes in a step, but one transaction of lines at least: some 20 ms
_SWEEP_CHUNKS = 64  # transactions of lines that it deletes where there is no room without
_TRIM_CHUNKS = 16  # transactions of lines that a cut of a table takes at a time: some 50 ms

# The tables that rows refer to, and by which column.
_REFERRED = {"sources": "source_id", "processes": "process_id", "threads": "thread_id", "levels": "levelno"}
_OWN_LEVELS = range(10, 60, 10)  # those of `logging`, which stay

# Gaps whose place was deleted. If there is no row, those are all gaps.
_OLD_DROPS = "drops WHERE after_id < ifnull((SELECT min(id) FROM records), 1 << 62)"
_HOUR = "hour, logger, levelno"

# The lines to choose from, and how to delete some of the oldest. What `volume` loses is kept in totals, because a
# counter that a monitoring system reads must not fall. Levels are bounded as in `_write.volume`.
_TRIM_DROPS = (
    _OLD_DROPS,
    f"DELETE FROM drops WHERE id IN (SELECT id FROM {_OLD_DROPS} ORDER BY id LIMIT ?)",  # noqa: S608 - our own name
)
_TRIM_VOLUME = (
    "volume_folded",
    """
    INSERT INTO record_totals
    SELECT
        iif((SELECT count(*) FROM record_totals) < 1000 OR levelno IN (SELECT levelno FROM record_totals), levelno, 0),
        ifnull(sum(records), 0), ifnull(sum(bytes), 0)
    FROM (SELECT levelno, records, bytes FROM volume_folded ORDER BY hour, logger, levelno LIMIT ?)
    GROUP BY 1
    ON CONFLICT DO UPDATE SET records = ifnull(records, 0) + excluded.records, bytes = ifnull(bytes, 0) + excluded.bytes
    """,
    f"DELETE FROM volume_folded WHERE ({_HOUR}) IN (SELECT {_HOUR} FROM volume_folded ORDER BY {_HOUR} LIMIT ?)",  # noqa: S608 - names
)
_TRIM_PRUNES = ("prunes", "DELETE FROM prunes WHERE id IN (SELECT id FROM prunes ORDER BY id LIMIT ?)")

_MOST_LINES = f"SELECT max({', '.join(f'(SELECT count(*) FROM {table})' for table in _REFERRED)})"  # noqa: S608 - our own names
_ENDS = """
SELECT ifnull((SELECT min(id) FROM records WHERE id >= :start), :start), ifnull((SELECT max(id) FROM records), 0)
"""
_REFERENCES = f"SELECT DISTINCT {', '.join(_REFERRED.values())} FROM records WHERE id >= ? AND id < ?"  # noqa: S608 - our own names

# What lines take: the name of the logger, or all texts, and the numbers.
_SIZE = "SELECT ifnull(sum(length(CAST(logger AS BLOB)) + 50), 0) FROM "
_TEXTS = {
    "sources": "logger || pathname || func || template",
    "processes": "host || name || program",
    "threads": "name",
    "levels": "name",
}
_SIZES = " UNION ALL ".join(
    f"SELECT sum(length(CAST({texts} AS BLOB)) + 50) FROM {table}"  # noqa: S608 - our own names
    for table, texts in _TEXTS.items()
)


class SideTables:
    """Keep the tables beside `records` within `limits`, while the `wal` is free."""

    def __init__(self, limits: Limits, wal: Wal) -> None:
        self._limits = limits
        self._wal = wal
        self._enough_rows = _ROWS_PER_LINE * limits.lines
        # Since the last cut. What was deleted before this process is not known, so the first deletion is enough.
        self.deleted_rows = self._enough_rows - 1
        self._trimming = False  # whether a cut has begun, and the rest is still to go
        self.needed: Collection[int] = ()  # sources of the rows to be written, which a sweep leaves
        self._sweep: _Sweep | None = None  # the one that has begun
        self._swept_lines = 0  # what the last one left in the longer table

    def forget_sweep(self) -> None:
        """Forget a sweep: the file may be another one, or retention failed. The next step cuts the tables anew."""
        if self._sweep is not None:
            self._sweep, self.deleted_rows = None, self._enough_rows

    def step(self, connection: sqlite3.Connection) -> bool:
        """Cut the tables if enough rows were deleted, and go on with a sweep; tell whether there is more to do."""
        if self._trimming or self.deleted_rows >= self._enough_rows:
            self._trim(connection)
        self._go_on(connection, max(1, _SWEEP_LINES // self._limits.chunk_lines))
        return self._trimming or self._sweep is not None

    def trim_all(self, connection: sqlite3.Connection) -> bool:
        """Cut the tables by the bytes of their lines too, because few long names take much; tell whether it is done."""
        self.deleted_rows = 0  # if this fails, rows go all the same
        self._trim(connection)
        if self._trimming:
            self.deleted_rows = 1 << 62  # the rest goes before rows do
            return False
        self._shorten(connection, _TRIM_DROPS)
        size = max(size or 0 for (size,) in connection.execute(_SIZES))
        if self._sweep is None and size > self._limits.text_bytes:
            self._sweep = _Sweep()
        self._go_on(connection, _SWEEP_CHUNKS)
        return True

    def _shorten(self, connection: sqlite3.Connection, trim: tuple[str, ...]) -> None:
        lines = self._limits.lines
        while lines and connection.execute(_SIZE + trim[0]).fetchone()[0] > self._limits.text_bytes:
            lines //= 2
            self._keep(connection, trim, lines)

    def _trim(self, connection: sqlite3.Connection) -> None:
        lines = self._limits.lines
        self._trimming = True
        if not all(self._keep(connection, trim, lines) for trim in (_TRIM_DROPS, _TRIM_VOLUME, _TRIM_PRUNES)):
            return
        # Deleting a row of a logger with a long name can add more to `volume` than it frees.
        self._shorten(connection, _TRIM_VOLUME)
        (count,) = connection.execute(_MOST_LINES).fetchone()
        # A sweep reads all rows, which a few lines are not worth.
        if self._sweep is None and count > max(lines, 2 * self._swept_lines):
            self._sweep = _Sweep()
        self._trimming, self.deleted_rows = False, 0

    def _keep(self, connection: sqlite3.Connection, trim: tuple[str, ...], lines: int) -> bool:
        """Keep this many of the newest lines; return False if more are to go, at another time."""
        lines_of, *statements = trim
        going = connection.execute(f"SELECT count(*) FROM {lines_of}").fetchone()[0] - lines  # noqa: S608 - our own name
        rest = max(0, going - _TRIM_CHUNKS * self._limits.chunk_lines)
        while going > rest and self._wal.is_free(connection):
            # One transaction adds no more to the WAL than one that deletes rows.
            with transaction(connection):
                for statement in statements:
                    connection.execute(statement, (min(going, self._limits.chunk_lines),))
            going -= self._limits.chunk_lines
        return bool(going <= 0)

    def _go_on(self, connection: sqlite3.Connection, most: int) -> None:
        sweep = self._sweep
        if sweep is None or not sweep.look(connection):
            return  # the next slice is for the next step
        for _ in range(most):
            with transaction(connection):
                ended = sweep.delete(connection, self._limits.chunk_lines, self.needed)
            if ended:
                self._swept_lines, self._sweep = sweep.left, None
            if ended or not self._wal.is_free(connection):
                break


class _Sweep:
    """Find the lines that no row refers to, a slice of the rows at a time, and delete them."""

    def __init__(self) -> None:
        self.left = 0  # lines in the longer table, at the end
        self._unused: list[tuple[str, int]] | None = None  # the lowest id last
        self._next_id = 0
        self._used: dict[str, set[int]] = {table: set() for table in _REFERRED}
        self._used["levels"].update(_OWN_LEVELS)

    def look(self, connection: sqlite3.Connection) -> bool:
        """Look through a slice of the rows; tell whether that was the last one."""
        start, last_id = connection.execute(_ENDS, {"start": self._next_id}).fetchone()
        self._next_id = min(start + _SWEEP_ROWS, last_id + 1)
        for line in connection.execute(_REFERENCES, (start, self._next_id)):
            for used, id_ in zip(self._used.values(), line, strict=True):
                used.add(id_)
        return bool(self._next_id > last_id)

    def delete(self, connection: sqlite3.Connection, lines: int, needed: Collection[int] = ()) -> bool:
        """Delete this many unused lines, but no needed source, in the open transaction; tell whether none is left."""
        self._used["sources"].update(needed)
        while not self.look(connection):
            pass  # rows that have come since
        for process, levelno in connection.execute("SELECT DISTINCT process_id, levelno FROM drops"):
            self._used["processes"].add(process)
            self._used["levels"].add(levelno)
        if self._unused is None:
            self._unused = [line for table, used in self._used.items() for line in self._find(connection, table, used)]
            self._unused.reverse()
        some = self._unused[-lines:]
        del self._unused[-lines:]
        for table, used in self._used.items():
            # Another process may have logged from one of them meanwhile.
            ids = ",".join(str(line) for name, line in some if name == table and line not in used)
            connection.execute(f"DELETE FROM {table} WHERE rowid IN ({ids})")  # noqa: S608 - integers
        # Ids that a writer has learned may be gone, see `_write.inserts`.
        connection.execute("UPDATE marks SET sweeps = ifnull(sweeps, 0) + 1")
        return not self._unused

    def _find(self, connection: sqlite3.Connection, table: str, used: set[int]) -> list[tuple[str, int]]:
        ids = [line for (line,) in connection.execute(f"SELECT rowid FROM {table} ORDER BY 1")]  # noqa: S608 - our own name
        # The highest stays, so that its id is not given again.
        unused = [(table, line) for line in ids[:-1] if line not in used]
        self.left = max(self.left, len(ids) - len(unused))
        return unused
