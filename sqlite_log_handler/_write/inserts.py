"""
From rows to INSERTs: statements of many rows, and the ids of what rows share.

Theory of operation
===================

The sqlite3 module releases the GIL around every step, and in a busy process each time is a wait to get it back. So one
INSERT has up to 5,000 rows, which `executemany` would take one by one. It runs in C, on the second core.

Most rows differ in time, message and attributes only. The rest of a row is its context, and many rows have the same.
So where ten rows or more share a context, a statement is given each context once, and each row with the number of its
context. That takes a third of the parameters, so twice as many rows fit into a statement.

An `Inserter` belongs to one connection. It remembers the ids of sources and processes. They are wrong after a rollback,
which takes back ids that the transaction gave, and after a sweep, which deletes those that no row uses. The file counts
its sweeps (`marks.sweeps`), because another process may make them. They are also wrong when a person has deleted the
rows, or has put an older copy in the place of the contents, which shows because the last row is gone.

SQLite gives the highest id plus one. When a person has deleted the newest rows, that was given before. So where the
archive or a forwarder has come to a higher one, a row with that id stands in the table while rows are added.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._logfile.typed import Any
from sqlite_log_handler._write import row as _row
from sqlite_log_handler._write import volume
from sqlite_log_handler._write.ledger import PendingGap, for_others
from sqlite_log_handler._write.plain import clean, level_name
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.row import PackedRow

_COLUMNS = (
    "created_us, levelno, source_id, process_id, thread_id, thread, thread_name, task_name, "
    "message, exc_type, exc_text, stack_info, attributes"
)
# Microseconds are made in C, with the GIL free.
_INSERT = f"""
INSERT INTO records ({_COLUMNS})
SELECT CAST(round(column1 * 1e6) AS INTEGER), column2, column3, column4, column5, column6, column7, column8, column9,
    column10, column11, column12, column13
FROM (VALUES {{values}})
WHERE column1 IS NOT NULL
"""  # noqa: S608 - no value in it
_PARAMETERS = 13
_VALUES = f"({', '.join('?' * _PARAMETERS)})"

# The rows, each with the number of its context, and the contexts. CROSS JOIN keeps the rows outside and so in order
# (https://sqlite.org/optoverview.html#manual_control_of_query_plans_using_cross_join).
_INSERT_SHARED = f"""
INSERT INTO records ({_COLUMNS})
SELECT CAST(round(r.column1 * 1e6) AS INTEGER), c.column2, c.column3, c.column4, c.column5, c.column6, c.column7,
    c.column8, r.column2, c.column9, c.column10, c.column11, r.column3
FROM (VALUES {{rows}}) AS r CROSS JOIN (VALUES {{contexts}}) AS c ON c.column1 = r.column4
"""  # noqa: S608 - no value in it
_ROW_PARAMETERS = 4
_CONTEXT_PARAMETERS = 10

# SQLite keeps the contexts in memory, in a table and an index of its own.
_CONTEXTS_BYTES = 64 * 1024

# SQLite takes 32,766 parameters in a statement (https://sqlite.org/limits.html). Preparing one takes longer than
# running it, so there are a few of fixed length, and rows that do not fill one are followed by NULLs, which the WHERE
# leaves out, or which find no context. A full batch is two statements: one of 10,000 rows would take 80 ms to prepare,
# and one of 5,000 takes 20.
_STATEMENT_ROWS = (1, 3, 8, 25, 64, 160, 400, 1_000, 2_500, 5_000)
_MOST_ROWS_UNSHARED = 2_500
_FEWEST_ROWS_SHARED = 160
_ROWS_PER_CONTEXT = 10

# A statement keeps copies of what was bound to it until it runs again, so we bind 1 MiB of text at most. The size of a
# row is that of its text and 240 bytes more.
_STATEMENT_SIZE = 1024 * 1024 // _row.SIZE_UNIT
_WITHOUT_TEXT = 240 // _row.SIZE_UNIT

_DROPS = """
INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count)
VALUES (:after_id, :since_us, :until_us, :process_id, :cause, :logger, :level, :count)
"""
_MARKS = """
SELECT folded_id, sweeps, ifnull((SELECT max(id) FROM records), 0),
    max(ifnull(CAST(archived_id AS INTEGER), 0), ifnull((SELECT max(CAST(after_id AS INTEGER)) FROM cursors), 0))
FROM marks
"""
_HOLD = "INSERT INTO records (id, created_us, levelno, source_id, process_id, message) VALUES (?, 0, 0, 0, 0, '')"
_LET_GO = "DELETE FROM records WHERE id = ?"
# A mark that is so far above that of `volume` was never an id: a bit has flipped. By default 20,000 rows stand between.
_MOST_UNFOLDED = 20 * volume.FOLD_ROWS
_SOURCE_COLUMNS = ("logger", "pathname", "lineno", "func", "template")
_CACHED_IDS = 10_000
_NAMES_LENGTH = 250  # letters
_SHARED_THREADS = 100  # that get a line: those of a pool, and not each of a server that starts one for each request

# What a row can be refused for, by sqlite3 when it binds, and by SQLite when it steps.
DATA_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)


class Inserter:
    """
    Insert rows and gaps by `connection`, in the open transaction; the `limits` bound what the gaps name.

    This process runs `program` on `host`.
    """

    def __init__(self, connection: sqlite3.Connection, host: str, program: str, limits: Limits) -> None:
        self.connection = connection
        self._host = host
        self._program = program
        self._limits = limits
        self.last_id = 0  # of the last row of this transaction
        self.unfolded = 0  # rows after the mark of `volume` after the last batch
        self.gap_bytes = 0  # what the gaps of this batch add to `drops`, and to `volume`
        self._sweeps = self._highest = 0  # sweeps of the file, and the id of its last row, when the ids were learned
        self.forget_ids()

    def write(self, batch: Commit, refused: set[int] | None = None) -> None:
        """Insert a batch. Given `refused`, insert row by row, and add the indexes of rows that SQLite does not take."""
        self.last_id = 0
        folded_id, sweeps, highest, given = self.connection.execute(_MARKS).fetchone()
        known = self.sources.weight + self._threads.weight + len(self._levels)
        if sweeps != self._sweeps or highest < self._highest or known > _CACHED_IDS:
            self.forget_ids()
        mark = folded_id if type(folded_id) is int else highest
        is_held = highest < given <= mark + _MOST_UNFOLDED and self._hold(given)
        if is_held:
            highest = given
        self._sweeps, self._highest = sweeps, highest
        if mark != folded_id or mark > highest:  # a bit has flipped, or somebody has deleted rows
            self.connection.execute("UPDATE marks SET folded_id = ?", (highest,))
            mark = highest
        for levelno in {row[_row.LEVELNO] for row in batch.rows}:
            # A reader's process may not know the name that `logging.addLevelName` gave, or has given since.
            name = level_name(levelno)
            if name not in {self._levels.get(levelno), f"Level {levelno}"}:
                self.connection.execute("INSERT OR REPLACE INTO levels VALUES (?, ?)", (levelno, clean(name)))
                self._levels[levelno] = name
        start = 0
        self.gap_bytes = self._gap_lines = 0
        for gap in batch.gaps:
            end = min(max(gap.position - batch.first, start), len(batch.rows))
            self._insert_rows(batch.rows, start, end, refused)
            self._insert_gap(gap)
            start = end
        self._insert_rows(batch.rows, start, len(batch.rows), refused)
        if is_held:
            self.connection.execute(_LET_GO, (given,))
        self._highest = self.last_id or highest
        self.unfolded = self._highest - mark
        if self.unfolded >= volume.FOLD_ROWS and self._limits.max_bytes is None:
            volume.fold(self.connection)

    def _hold(self, given: int) -> bool:
        try:
            return self.connection.execute(_HOLD, (given,)).rowcount == 1
        except sqlite3.IntegrityError:  # a person's trigger refuses it
            return False

    def _insert_rows(self, rows: Sequence[PackedRow], start: int, end: int, refused: set[int] | None) -> None:
        while start < end:
            count = _statement_rows(rows, start, end) if refused is None else 1
            try:
                self._insert(rows[start : start + count])
            except DATA_ERRORS:
                if refused is None:
                    raise
                refused.add(start)
            start += count

    def _insert(self, rows: Sequence[PackedRow]) -> None:
        """Insert rows by one statement, or by two if they share too little and have too many parameters."""
        length = next(length for length in _STATEMENT_ROWS if length >= len(rows))
        parameters = self._shared_parameters(rows, length) if length >= _FEWEST_ROWS_SHARED else None
        if parameters is not None:
            statement = _shared_statement(length)
        elif len(rows) > _MOST_ROWS_UNSHARED:
            self._insert(rows[:_MOST_ROWS_UNSHARED])
            self._insert(rows[_MOST_ROWS_UNSHARED:])
            return
        else:
            statement = _statement(length)
            parameters = self._parameters(rows)
            parameters += [None] * (_PARAMETERS * (length - len(rows)))
        cursor = self.connection.execute(statement, parameters)
        if cursor.rowcount != len(rows):
            raise sqlite3.IntegrityError("a row has no time")
        self.last_id = cursor.lastrowid or 0

    def _insert_gap(self, gap: PendingGap) -> None:
        """Write a gap where it is: its drops into the ledger, its warning as a row."""
        after_id = self.last_id or self._highest
        if gap.warning is None:  # an error has ended the report
            text = f"dropped {gap.count:,} records"
            gap.warning = logging.LogRecord(OWN_LOGGER, logging.WARNING, __file__, 0, text, (), None)
            gap.warning.dropped_total = gap.dropped_total
        gap.warning.dropped = gap.count  # that of all reports that were put together in this gap
        warning = _row.make_row(gap.warning)
        self._insert([warning])
        process_id = self._threads[warning[_row.THREAD]][0]
        for (cause, level, logger), (count, since_us, until_us) in self._lines_of(gap):
            drops = {"cause": cause, "level": level, "logger": logger, "count": count}
            drops |= {"since_us": since_us, "until_us": until_us, "after_id": after_id, "process_id": process_id}
            self.connection.execute(_DROPS, drops)
            volume.add_drops(self.connection, drops)

    def _lines_of(self, gap: PendingGap) -> Iterable[tuple[tuple[str, int, str], list[int]]]:
        """Return the lines of a gap by cause, level and logger, as many loggers as there is room for."""
        lines: dict[tuple[str, int, str], list[int]] = {}
        for (cause, levelno, name), (count, since, until) in gap.drops.items():
            # Of a record that was refused nothing has been cleaned yet.
            logger, level = clean(name), _row.integer(levelno)
            since_us, until_us = _row.microseconds(since), _row.microseconds(until)
            key = (cause, level, logger)
            self.gap_bytes += len(logger.encode()) + volume.LINE_BYTES
            self._gap_lines += 1
            if self.gap_bytes > self._limits.commit_bytes or self._gap_lines > self._limits.volume_lines:
                key = for_others(key)
            line = lines.setdefault(key, [0, since_us, until_us])
            line[:] = line[0] + count, min(line[1], since_us), max(line[2], until_us)
        return lines.items()

    def _parameters(self, rows: Sequence[PackedRow]) -> list[object]:
        """Return the parameters of a statement without contexts."""
        sources, threads = self.sources, self._threads
        values: list[object] = []
        for row in rows:
            values += (row[_row.CREATED], row[_row.LEVELNO], sources[row[_row.SOURCE]])
            values += threads[row[_row.THREAD]]
            values += row[_row.TASK_NAME :]
        return values

    def _shared_parameters(self, rows: Sequence[PackedRow], length: int) -> list[object] | None:
        """Return the parameters of a statement with contexts; None if it takes fewer contexts, or shorter ones."""
        most = length // _ROWS_PER_CONTEXT
        numbers: dict[tuple[object, ...], int] = {}
        contexts: list[object] = []
        values: list[object] = []
        size = 0
        for levelno, created, source, _, _, thread, task, message, exc_type, exc_text, stack, attributes in rows:
            context = (levelno, source, thread, task, exc_type, exc_text, stack)
            number = numbers.get(context)
            if number is None:
                number = len(numbers)
                size += sum(len(text.encode()) for text in (thread[3], task, exc_type, exc_text, stack) if text)
                if number == most or size > _CONTEXTS_BYTES:
                    return None
                numbers[context] = number
                contexts += (levelno, self.sources[source], *self._threads[thread], task, exc_type, exc_text, stack)
            values += (created, message, attributes, number)
        values += [None] * (_ROW_PARAMETERS * (length - len(rows)))
        contexts += [None] * (_CONTEXT_PARAMETERS * (most - len(numbers)))
        return values + contexts

    # Ids of what many rows share --------------------------------------------------------------------------------------

    def forget_ids(self) -> None:
        """Forget all ids, to look them up anew: a rollback has taken some back, or a sweep has deleted some."""
        self.sources = _Ids(lambda source: self._id("sources", dict(zip(_SOURCE_COLUMNS, source, strict=True))))
        self._threads = _Ids(self._columns_of)
        self._shared_threads = 0
        self._levels: dict[int, str] = {}

    def _columns_of(self, thread: _row.Thread) -> tuple[int, int | None, int | None, str | None]:
        """Return process_id, thread_id, thread and thread_name; the last two of a thread that has no line."""
        pid, process_name, ident, name = thread
        # Of another process, whose records were sent here, only pid and name are known.
        ours = pid == _row.own_pid
        started_us = _row.microseconds(_row.own_start) if ours else 0
        key = {"host": self._host, "pid": pid, "name": process_name, "started_us": started_us}
        process_id = self._id("processes", key, program=self._program if ours else "")
        if ident is None or name is None or len(name) > _row.SHORT_NAME or self._shared_threads >= _SHARED_THREADS:
            return process_id, None, ident, name
        self._shared_threads += 1
        return process_id, self._id("threads", {"ident": ident, "name": name}), None, None

    def _id(self, table: str, key: dict[str, object], **others: object) -> int:
        """Return the id of the line of `table` with this key; add the line if there is none."""
        line = key | others
        # These are our own names.
        insert = f"INSERT OR IGNORE INTO {table} ({', '.join(line)}) VALUES ({', '.join('?' * len(line))})"  # noqa: S608
        select = f"SELECT id FROM {table} WHERE {' AND '.join(f'{column} = ?' for column in key)}"  # noqa: S608
        self.connection.execute(insert, list(line.values()))
        return int(self.connection.execute(select, list(key.values())).fetchone()[0])


class _Ids(dict[Any, Any]):
    """Ids by what has them; `find` finds one, or gives it, when it is asked for the first time."""

    def __init__(self, find: Callable[[Any], Any]) -> None:
        super().__init__()
        self._find = find
        self.weight = 0  # in ids; one with very long names counts as several

    def __missing__(self, key: Any) -> Any:
        self.weight += 1 + _row.letters_of(key) // _NAMES_LENGTH
        found = self[key] = self._find(key)
        return found


@cache
def _statement(length: int) -> str:
    return _INSERT.format(values=",".join([_VALUES] * length))


@cache
def _shared_statement(length: int) -> str:
    contexts = (f"({number}{', ?' * _CONTEXT_PARAMETERS})" for number in range(length // _ROWS_PER_CONTEXT))
    rows = f"({', '.join('?' * _ROW_PARAMETERS)})"
    return _INSERT_SHARED.format(rows=",".join([rows] * length), contexts=",".join(contexts))


def _statement_rows(rows: Sequence[PackedRow], start: int, end: int) -> int:
    """Return how many rows the next INSERT takes."""
    count = min(end - start, _STATEMENT_ROWS[-1])
    while count > 1 and sum(row[_row.SIZE] - _WITHOUT_TEXT for row in rows[start : start + count]) > _STATEMENT_SIZE:
        count //= 2
    return count
