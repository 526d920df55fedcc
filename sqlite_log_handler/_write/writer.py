"""
The writing half: one connection, and one transaction per call.

Theory of operation
===================

`Writer.write` puts a batch of rows and the gaps among them into the file, all or nothing. Whoever calls it holds the
commit lock of the listener, so nothing here is for two threads at once; which thread it is may change from call to
call.

Rows go in by INSERTs of many rows each. The sqlite3 module releases the GIL around every step: with `executemany` that
is once per row, and on a busy process every release means queueing to get back in. One INSERT of 5,000 rows runs in C,
with the GIL free, on the second core.

Most rows differ in time, message and attributes only. What else there is to a row is its context, and many rows have
the same. So where ten rows or more share a context, a statement is given each context once, and each row with the
number of its context: a third of the parameters, so that twice as many rows fit into a statement.

Guarantees
==========

- After an exception nothing of the batch is in the file, and no transaction is open.
- A row that SQLite refuses for its data costs that row only: the batch is written again row by row, and the caller is
  told which ones were refused.
- The file, its -wal and its -shm are touched through SQLite and `os.stat` only. Opening and closing one of them would
  drop SQLite's POSIX locks (https://sqlite.org/howtocorrupt.html, section 2.2). The one exception is the file that
  `os.open` creates anew: nobody can have it open yet.
- A file that is not ours is never written to. One of ours that is corrupt, or has lost its end, is moved aside, never
  deleted.
- Whatever writes to the file, checkpoints or moves it does so under the lock beside it (see `_logfile.write_lock`).
- A path that is a symbolic link stands for the file to which it leads when that is opened. That file's own path is the
  one to which SQLite's -wal and -shm, the lock and what is moved aside belong. A link that is switched is followed at
  the next commit.
"""

import contextlib
import errno
import gc
import logging
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Any, Protocol, TypeVar

from sqlite_log_handler._logfile.connect import connect_read_only, identity_of, is_ours, primary_code
from sqlite_log_handler._logfile.errors import ForeignFileError, LogFileError
from sqlite_log_handler._logfile.schema import APPLICATION_ID, ROW_BYTES, SCHEMA
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write import row as _row
from sqlite_log_handler._write.retention.limits import Limits, NoRoom
from sqlite_log_handler._write.retention.pruner import Pruner
from sqlite_log_handler._write.row import PackedRow

_T = TypeVar("_T")

_COLUMNS = (
    "created_us, levelno, source_id, process_id, thread, thread_name, task_name, "
    "message, exc_type, exc_text, stack_info, attributes"
)
# Microseconds are made in C, with the GIL free.
_INSERT = f"""
INSERT INTO records ({_COLUMNS})
SELECT CAST(round(column1 * 1e6) AS INTEGER), column2, column3, column4, column5, column6, column7, column8, column9,
    column10, column11, column12
FROM (VALUES {{values}})
WHERE column1 IS NOT NULL
"""  # noqa: S608 - no value in it
_PARAMETERS = 12
_VALUES = f"({', '.join('?' * _PARAMETERS)})"

# The rows, each with the number of its context, and the contexts. CROSS JOIN keeps the rows outside and so in order
# (https://sqlite.org/optoverview.html#manual_control_of_query_plans_using_cross_join).
_INSERT_SHARED = f"""
INSERT INTO records ({_COLUMNS})
SELECT CAST(round(r.column1 * 1e6) AS INTEGER), c.column2, c.column3, c.column4, c.column5, c.column6, c.column7,
    r.column2, c.column8, c.column9, c.column10, r.column3
FROM (VALUES {{rows}}) AS r CROSS JOIN (VALUES {{contexts}}) AS c ON c.column1 = r.column4
"""  # noqa: S608 - no value in it
_ROW_PARAMETERS = 4
_CONTEXT_PARAMETERS = 9

# SQLite keeps the contexts in a table and an index of its own, and would take more than 100 pages of either to a
# temporary file, for which there may be no room.
_CONTEXTS_BYTES = 64 * 1024

# SQLite takes 32,766 parameters in a statement (https://sqlite.org/limits.html). Preparing one takes longer than
# running it, so there are a few of fixed length, and rows that do not fill one are followed by NULLs, which the WHERE
# leaves out, or which find no context. A full batch is two statements: each is a turn without the GIL, and on a busy
# process a wait to get it back. One of 10,000 rows would take 80 ms to prepare, and one of 5,000 takes 20.
_STATEMENT_ROWS = (1, 3, 8, 25, 64, 160, 400, 1_000, 2_500, 5_000)
_MOST_ROWS_UNSHARED = 2_500
_FEWEST_ROWS_SHARED = 160
_ROWS_PER_CONTEXT = 10

# A statement keeps copies of what was bound to it until it runs again: 1 MiB of text, which is what is counted in a
# row beyond its 240 bytes.
_STATEMENT_SIZE = 1024 * 1024 // _row.SIZE_UNIT
_WITHOUT_TEXT = 240 // _row.SIZE_UNIT

_CACHED_IDS = 10_000

# Also when a module has turned the GIL on again (https://docs.python.org/3/howto/free-threading-python.html).
_FREE_THREADED = "free-threading" in sys.version

# https://sqlite.org/fileformat2.html#pages
_SMALLEST_PAGE = 512

# Whether the system tells what this process may do, and not only who started it.
_EFFECTIVE = os.access in os.supports_effective_ids

# What may pass while the program runs: somebody has the file locked, and a disk or a table of the system that is full.
_PASSING_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_PASSING_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}

# What SQLite counts among the errors of a disk as well: a file system that has no locks, or no shared memory.
_LASTING_CODES = {
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
}

# What a row can be refused for, by sqlite3 when it binds, and by SQLite when it steps.
_DATA_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)

# LIMIT -1 keeps the innermost query apart, so that what is sorted for its GROUP BY are numbers, and not the messages.
# A source or a process that another process has deleted, because no row was of it, makes the logger NULL, which
# `volume` refuses; then the batch is written again with new ids.
_VOLUME = f"""
INSERT INTO volume (hour, logger, levelno, records, bytes)
SELECT hour * 3600, iif(processes.id IS NULL, NULL, logger) AS logger, levelno, sum(records), sum(bytes)
FROM (
    SELECT hour, source_id, process_id, levelno, count(*) AS records, sum(bytes) AS bytes
    FROM (
        SELECT created_us / 3600000000 AS hour, source_id, process_id, levelno,
            {ROW_BYTES} AS bytes
        FROM records WHERE id BETWEEN ? AND ? LIMIT -1
    )
    GROUP BY hour, source_id, process_id, levelno
)
    LEFT JOIN sources ON sources.id = source_id
    LEFT JOIN processes ON processes.id = process_id
GROUP BY 1, 2, 3
ON CONFLICT DO UPDATE SET records = records + excluded.records, bytes = bytes + excluded.bytes
"""  # noqa: S608 - our own SQL
_VOLUME_DROPPED = """
INSERT INTO volume (hour, logger, levelno, dropped) VALUES (? / 3600000000 * 3600, ?, ?, ?)
ON CONFLICT DO UPDATE SET dropped = dropped + excluded.dropped
"""


class LostFileError(OSError):
    """
    This process was forked while its parent was writing to the file.
    """


class Batch(Protocol):
    """
    What is to be written: rows as `make_row` built them, and the gaps among them; see `_queue.Commit`.
    """

    @property
    def rows(self) -> Sequence[PackedRow]:
        """
        The rows, in order.
        """

    @property
    def gaps(self) -> Sequence[Any]:
        """
        The gaps, by position; see `_queue.Gap`.
        """

    @property
    def first(self) -> int:
        """
        Position of the first row.
        """


class Outcome:
    """
    What became of a batch. Its rows stand in the file only if `written` is true.

    Attributes:
        written: The transaction is in the file.
        refused: The indexes of the rows that SQLite did not take.
    """

    def __init__(self) -> None:
        self.written = False
        self.refused: set[int] = set()


class Writer:
    """
    Write rows and gaps to the database at `path`.

    Args:
        path: Absolute path of the database, or of a link to it; its folder is there.
        busy_timeout: Seconds to wait for the lock beside the file, and then for SQLite's. Half a flush tick at most,
            because neither `Connection.interrupt` nor anything else ends that wait.
        limits: What is kept at most, see `prune`.
        say: Called with a line for the operator: a file moved aside, a journal mode that is not WAL.
    """

    def __init__(
        self,
        path: str,
        *,
        busy_timeout: float = 0.05,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        say: Callable[[str], None] = print,
    ) -> None:
        self.path = path
        self.pruner = Pruner(path, limits, say=say)
        self._busy_timeout = busy_timeout
        self._say = say
        self._said_mode = False
        self._lock = WriteLock(path, say=say)
        self._real = self._lock.real
        self._host = socket.gethostname()
        self._program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
        self._reset()

    def _reset(self) -> None:
        self._started = time.time()
        self._connection: sqlite3.Connection | None = None
        self._files: tuple[object, ...] = ()
        self._wal = False
        self._forget_ids()

    def forget(self, *, lost: bool, interrupted: bool) -> None:
        """
        Start anew in a forked child, whose connection is its parent's.

        Args:
            lost: The parent was writing. SQLite's lists say that this process holds what the parent holds, so the file
                is never opened here again.
            interrupted: This very thread was in `write`: it is not to go on with the parent's connection.
        """
        if lost:
            _lost.update({identity_of(self.path), *self._files[:1]} - {None})
        if self._connection is not None:
            if interrupted:
                self._connection.set_authorizer(_deny)
            _keep_open(self._connection)
        self._lock.close()
        self._reset()

    def _refuse_lost(self) -> None:
        if _lost and identity_of(self.path) in _lost:
            message = "this process was forked while its parent wrote to the file, so it must not: start it by spawn"
            raise LostFileError(message)

    @property
    def connection(self) -> sqlite3.Connection | None:
        """
        The open connection, if there is one.
        """
        return self._connection

    def open_first(self) -> None:
        """
        Open the file for a new handler: what will never work is for the one who configures, what may pass is not.

        Raises:
            LogFileError: The file is not ours, too new, or may not be written.
        """
        try:
            self._refuse_lost()
            # SQLite would open it all the same, read-only, leave a -wal beside it, and no write would ever succeed.
            if _may_only_be_read(self._real):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._real)
            # Without the lock, because beside a file that is refused nothing is made.
            self._is_corrupt_log()
            with self._lock.hold(self._busy_timeout):
                self.open()
        except (TimeoutError, LostFileError):
            return
        except LogFileError:
            self._lock.close()
            raise
        except (sqlite3.Error, OSError) as error:
            code, number = getattr(error, "sqlite_errorcode", 0), getattr(error, "errno", None)
            passes = number in _PASSING_ERRORS or (primary_code(error) in _PASSING_CODES and code not in _LASTING_CODES)
            if passes and not os.path.isdir(self._real):
                return
            self._lock.close()
            message = (
                f"{self.path!r} cannot be opened as a log ({error}): make it and its folder writable, or choose another"
            )
            raise LogFileError(message) from error

    def open(self) -> None:
        """
        Open the file, and create it if there is none. For whoever holds the lock.

        Raises:
            LogFileError: It is not ours, or newer than we know.
            LostFileError: Not in this process.
            OSError, sqlite3.Error: It cannot be opened now; a later call may succeed.
        """
        if self._connection is not None:
            files, size = self._stat(self.path)
            if self._files != files:
                # Unlinked, renamed or replaced under us: what we write would go into a file that nobody finds.
                self._leave()
            elif size < _SMALLEST_PAGE:
                # As logrotate does with `copytruncate`. SQLite goes on with what it has in the WAL and in its cache.
                self._move_aside("it was cut to nothing while it was open")
            else:
                return
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            # SQLite would write its first page to a device.
            raise OSError(errno.EINVAL, "Not a regular file", self.path)
        self._real = self._lock.follow(self._busy_timeout)
        self.pruner.opened(self._real)
        corrupt = self._is_corrupt_log()
        if corrupt is not None:
            self._move_aside(corrupt)
        _create(self._real)
        found = identity_of(self._real)
        connection = sqlite3.connect(
            self._real, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            self._prepare(connection)
            # The first read opens the -wal, so that `_stat` finds it.
            connection.execute("SELECT max(id) FROM records").fetchone()
        except BaseException as error:
            connection.close()
            if not _is_corrupt(error) or found != identity_of(self._real):
                raise
            self._move_aside(error)
            self.open()
            return
        try:
            self._refuse_lost()
        except LostFileError:  # since this call began: a signal handler has forked
            _keep_open(connection)
            raise
        self._connection = connection
        # By its own path: a link may have been switched meanwhile, which the next commit finds out.
        self._files, _ = self._stat(self._real)

    def _leave(self) -> None:
        """
        Close a file that is not at its path any more, and take its WAL along.

        SQLite keeps the -wal of a file that was moved, and would apply it to whatever has come in its place
        (https://sqlite.org/howtocorrupt.html, section 1.4). So the rows in it go where they belong, into the file
        that we still have open; a -wal that cannot be emptied is moved aside. It stays where only a link was switched,
        because there it is still beside its own file.
        """
        wal = self._real + "-wal"
        known = self._files[-1] if self._wal and self._files else None
        self._write_back()
        self._close()
        is_there = identity_of(self._real) in self._files[:1]
        if known is not None and not is_there and identity_of(wal) == known and os.stat(wal).st_size:
            aside = self._real + time.strftime(".left-%Y%m%dT%H%M%SZ-wal", time.gmtime())
            os.replace(wal, aside)
            self._say(f"the file was moved or replaced while a reader held its WAL, which is kept as {aside!r}")

    def _is_corrupt_log(self) -> sqlite3.DatabaseError | None:
        """
        Look at an existing file, read-only: opening it for writing may already change it.

        Returns:
            None if it can be opened; the error of a log that is corrupt, and ours.

        Raises:
            LogFileError: It is not ours, or newer than we know.
        """
        if not os.path.exists(self._real) or not os.stat(self._real).st_size:
            return None
        if os.stat(self._real).st_size < _SMALLEST_PAGE:
            # SQLite takes it for an empty database, and writes over it.
            message = f"{self.path!r} is not an SQLite database: choose another filename, or move that file away"
            raise ForeignFileError(message)
        with contextlib.closing(connect_read_only(self._real, timeout=self._busy_timeout)) as reading:
            try:
                is_ours(reading, self.path)
            except sqlite3.DatabaseError as error:
                if primary_code(error) == sqlite3.SQLITE_READONLY:
                    # A process was killed while it wrote, and left a journal to be rolled back, which whoever opens the
                    # file does first. It is looked at again after that.
                    self._refuse_foreign_as_it_is()
                    return None
                # With it, SQLite reads the header even of a file that has lost its end.
                reading.execute("PRAGMA writable_schema = ON")
                if not _is_corrupt(error) or reading.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                    raise
                return error
        return None

    def _refuse_foreign_as_it_is(self) -> None:
        """
        Look at a file whose journal is not rolled back yet: the one of another program is for that to roll back.

        Raises:
            LogFileError: It is not ours, or newer than we know. One that cannot be read as it is may be ours.
        """
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(connect_read_only(self._real, immutable=True)) as reading,
        ):
            try:
                is_ours(reading, self.path)
            except ForeignFileError as error:
                if error.__cause__ is None:  # else its first page is not written yet
                    raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not is_ours(connection, self.path):
            # Before the first table, and before WAL: afterwards it is ignored (https://sqlite.org/pragma.html).
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have been faster.
            if not is_ours(connection, self.path):
                for statement in _statements(SCHEMA):
                    connection.execute(statement)
            connection.execute("COMMIT")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        self._wal = mode == "wal"
        if not self._wal and not self._said_mode:
            self._said_mode = True
            self._say(f"no WAL on this file system, journal mode {mode!r}: readers and the writer wait for each other")
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        limits = self.pruner.limits
        # In WAL mode a power cut costs the last commits, never the file (https://sqlite.org/pragma.html#pragma_synchronous).
        connection.executescript(f"""
            PRAGMA synchronous = NORMAL;
            PRAGMA journal_size_limit = {limits.wal_bytes};
            PRAGMA wal_autocheckpoint = {limits.checkpoint_pages(page_size)};
        """)

    def close(self) -> None:
        """
        Close the connection, if it is open; the last one to close writes the WAL back.
        """
        try:
            with self._lock.hold_if_free(self._busy_timeout) as held:
                if held and _FREE_THREADED:
                    self._write_back()
                self._close()
        finally:
            self._lock.close()

    def _write_back(self) -> None:
        """
        Write the WAL back in this thread: another one may come to close the file, and a disk must not hold it up.
        """
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        self._forget_ids()
        if connection is not None:
            connection.close()
            if _FREE_THREADED:
                _finalize_all()

    def write(self, batch: Batch, outcome: Outcome | None = None, *, in_any_case: bool = False) -> Outcome:
        """
        Write a batch in one transaction.

        Args:
            batch: What to write.
            outcome: Filled in; the caller keeps it, because a signal handler may raise after the COMMIT.
            in_any_case: Write it even if `max_bytes` has no room for it.

        Raises:
            NoRoom: There is no room for it.
            LogFileError, OSError, sqlite3.Error: Nothing was written.
            BaseException: A signal handler raised it; `outcome` tells whether the batch is in the file.
        """
        outcome = Outcome() if outcome is None else outcome
        self._last_id = 0
        self._refuse_lost()
        with self._lock.hold(self._busy_timeout):
            self.open()
            connection = self._connection
            assert connection is not None  # noqa: S101 - open() opened it, or raised
            if self.pruner.limits and not in_any_case:
                self._prune_before(connection, len(batch.rows))
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    self._write(connection, batch, self._insert_rows)
                except _DATA_ERRORS as error:
                    connection.execute("ROLLBACK")
                    self._forget_ids()
                    connection.execute("BEGIN IMMEDIATE")
                    is_no_row = "volume.logger" in str(error)  # see _VOLUME
                    insert = self._insert_rows if is_no_row else partial(self._insert_each, outcome.refused)
                    self._write(connection, batch, insert)
                connection.execute("COMMIT")
                outcome.written = True
            except BaseException as error:
                self._forget_ids()
                outcome.written = outcome.written or self._stands(connection)
                self._roll_back(connection, error)
                raise
        return outcome

    def _stands(self, connection: sqlite3.Connection) -> bool:
        """
        Tell whether the transaction that was interrupted is in the file: COMMIT may have returned already.
        """
        if connection.in_transaction or not self._last_id:
            return False
        with contextlib.suppress(sqlite3.Error):
            return connection.execute("SELECT 1 FROM records WHERE id = ?", (self._last_id,)).fetchone() is not None
        return False

    def prune(self) -> float | None:
        """
        Do a piece of what the limits ask for; see `Pruner.step`. A failure is said, and tried again later.

        Returns:
            Seconds until there is more to do; None when there is nothing to come.
        """
        try:
            with self._lock.hold(self._busy_timeout):
                if self._connection is None:  # whether it is still the one at the path, the next write finds out
                    self.open()
                connection = self._connection
                assert connection is not None  # noqa: S101 - as in `write`
                return self._work_on(connection, self.pruner.step)
        except TimeoutError:
            return 0  # it is another process's turn
        except (LogFileError, OSError, sqlite3.Error) as error:
            return self.pruner.failed(error)

    def _prune_before(self, connection: sqlite3.Connection, rows: int) -> None:
        """
        Let retention have its turn before a commit of so many rows.

        Raises:
            NoRoom: There is no room for them.
            sqlite3.Error: It is not known whether there is, or the file is gone.
        """
        try:
            self._work_on(connection, lambda connection: self.pruner.step_before(connection, rows))
        except sqlite3.Error as error:
            self.pruner.failed(error)
            if self._connection is None:
                raise
        self._work_on(connection, self.pruner.make_room)

    def _work_on(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
        sweeps = self.pruner.tables.sweeps
        try:
            return work(connection)
        except NoRoom:
            raise
        except BaseException as error:
            self._roll_back(connection, error)
            raise
        finally:
            if self.pruner.tables.sweeps != sweeps:
                self._forget_ids()

    def _roll_back(self, connection: sqlite3.Connection, error: BaseException) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # It cannot even do that. A new connection finds the file as the last commit left it.
            self._close()
        if _is_corrupt(error):
            if self._files == self._stat(self.path)[0]:
                self._move_aside(error)
            else:
                # Another process has moved it aside, and begun the one that is at the path now.
                self._close()

    def _move_aside(self, why: object) -> None:
        """
        Keep a corrupt file for whoever can mend it, and start anew at the next commit.
        """
        self._close()
        suffix = time.strftime(".corrupt-%Y%m%dT%H%M%SZ", time.gmtime())
        while os.path.exists(self._real + suffix):
            suffix += "+"
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self._real + end):
                os.replace(self._real + end, self._real + suffix + end)
        self._say(f"corrupt ({why}): moved aside as {self._real + suffix!r}, a new file is begun")

    def _write(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        insert: Callable[[sqlite3.Connection, Batch, int, int], None],
    ) -> None:
        """
        Fill the transaction that is open: the rows by `insert`, each gap where it is.
        """
        self._last_id = self._inserted = 0
        unknown = {row[_row.LEVELNO] for row in batch.rows} - self._levels
        if unknown:
            self._name_levels(connection, unknown)
        start = 0
        for gap in batch.gaps:
            end = min(max(gap.position - batch.first, start), len(batch.rows))
            insert(connection, batch, start, end)
            self._insert_gap(connection, gap)
            start = end
        insert(connection, batch, start, len(batch.rows))
        if self._inserted:
            connection.execute(_VOLUME, (self._last_id - self._inserted + 1, self._last_id))

    def _insert_rows(self, connection: sqlite3.Connection, batch: Batch, start: int, end: int) -> None:
        rows = batch.rows
        while start < end:
            count = _statement_rows(rows, start, end)
            self._insert(connection, rows[start : start + count])
            start += count

    def _insert_each(
        self, refused: set[int], connection: sqlite3.Connection, batch: Batch, start: int, end: int
    ) -> None:
        for index in range(start, end):
            try:
                self._insert(connection, [batch.rows[index]])
            except _DATA_ERRORS:
                refused.add(index)

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[PackedRow]) -> None:
        length = next(length for length in _STATEMENT_ROWS if length >= len(rows))
        parameters = self._shared_parameters(connection, rows, length) if length >= _FEWEST_ROWS_SHARED else None
        if parameters is not None:
            statement = _shared_statement(length)
        elif len(rows) > _MOST_ROWS_UNSHARED:
            self._insert(connection, rows[:_MOST_ROWS_UNSHARED])
            self._insert(connection, rows[_MOST_ROWS_UNSHARED:])
            return
        else:
            statement = _statement(length)
            parameters = self._parameters(connection, rows)
            parameters += [None] * (_PARAMETERS * (length - len(rows)))
        cursor = connection.execute(statement, parameters)
        if cursor.rowcount != len(rows):
            message = "a row has no time"
            raise sqlite3.IntegrityError(message)
        self._last_id = cursor.lastrowid or 0
        self._inserted += len(rows)

    def _insert_gap(self, connection: sqlite3.Connection, gap: Any) -> None:
        """
        Write a gap where it is: its drops into the ledger, its warning as a row.
        """
        after_id = self._last_id
        if not self._inserted:
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
            after_id = found[0] if found else 0
        gap.warning.dropped = gap.count  # that of all reports that were put together in this gap
        warning = _row.make_row(gap.warning)
        self._insert(connection, [warning])
        process_id = self._processes[warning[_row.THREAD]]
        for (cause, levelno, name), (count, since, until) in gap.drops.items():
            # Of a record that was refused nothing has been cleaned yet.
            logger, level = _row.clean(name), _row.integer(levelno)
            since_us, until_us = _row.microseconds(since), _row.microseconds(until)
            connection.execute(
                "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (after_id, since_us, until_us, process_id, cause, logger, level, count),
            )
            connection.execute(_VOLUME_DROPPED, (since_us, logger, level, count))

    def _parameters(self, connection: sqlite3.Connection, rows: Sequence[PackedRow]) -> list[object]:
        while True:
            sources, processes = self._sources, self._processes
            values: list[object] = []
            try:
                for (
                    levelno,
                    created,
                    source,
                    _,
                    _,
                    thread,
                    task,
                    message,
                    exc_type,
                    exc_text,
                    stack,
                    attributes,
                ) in rows:
                    values += (
                        created,
                        levelno,
                        sources[source],
                        processes[thread],
                        thread[2],
                        thread[3],
                        task,
                        message,
                        exc_type,
                        exc_text,
                        stack,
                        attributes,
                    )
            except KeyError:
                self._learn_ids(connection, rows)
            else:
                return values

    def _shared_parameters(
        self, connection: sqlite3.Connection, rows: Sequence[PackedRow], length: int
    ) -> list[object] | None:
        """
        Return the parameters of a statement with contexts; None when the rows have more contexts, or longer ones, than
        it takes.
        """
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
                if source not in self._sources or thread not in self._processes:
                    self._learn_ids(connection, rows)
                contexts += (
                    levelno, self._sources[source], self._processes[thread], thread[2], thread[3],
                    task, exc_type, exc_text, stack,
                )  # fmt: skip
            values += (created, message, attributes, number)
        values += [None] * (_ROW_PARAMETERS * (length - len(rows)))
        contexts += [None] * (_CONTEXT_PARAMETERS * (most - len(numbers)))
        return values + contexts

    # Ids of what many rows share --------------------------------------------------------------------------------------

    def _forget_ids(self) -> None:
        # With every transaction that fails: ids that it gave are no ids.
        self._sources: dict[_row.Source, int] = {}
        self._processes: dict[_row.Thread, int] = {}
        self._levels: set[int] = set()

    def _learn_ids(self, connection: sqlite3.Connection, rows: Sequence[PackedRow]) -> None:
        if len(self._sources) + len(self._processes) > _CACHED_IDS:
            self._forget_ids()
        for row in rows:
            source, thread = row[_row.SOURCE], row[_row.THREAD]
            if source not in self._sources:
                connection.execute(
                    "INSERT OR IGNORE INTO sources (logger, pathname, lineno, func) VALUES (?, ?, ?, ?)", source
                )
                self._sources[source] = connection.execute(
                    "SELECT id FROM sources WHERE logger = ? AND pathname = ? AND lineno = ? AND func = ?", source
                ).fetchone()[0]
            if thread not in self._processes:
                self._processes[thread] = self._process_id(connection, *thread[:2])

    def _name_levels(self, connection: sqlite3.Connection, levels: Collection[int]) -> None:
        """
        Keep the names that `logging.addLevelName` gave: a reader's process may not know them.
        """
        if len(self._levels) > _CACHED_IDS:
            self._levels.clear()
        for levelno in levels:
            name = logging.getLevelName(levelno)
            if name != f"Level {levelno}":
                connection.execute("INSERT OR REPLACE INTO levels VALUES (?, ?)", (levelno, _row.clean(name)))
        self._levels.update(levels)

    def _process_id(self, connection: sqlite3.Connection, pid: int, name: str) -> int:
        # Of another process, whose records were sent here, only pid and name are known.
        ours = pid == os.getpid()
        key = (self._host, pid, name, round(self._started * 1e6) if ours else 0)
        connection.execute(
            "INSERT OR IGNORE INTO processes (host, pid, name, started_us, program) VALUES (?, ?, ?, ?, ?)",
            (*key, _row.clean(self._program) if ours else ""),
        )
        found = connection.execute(
            "SELECT id FROM processes WHERE host = ? AND pid = ? AND name = ? AND started_us = ?", key
        ).fetchone()
        return int(found[0])

    def _stat(self, path: str) -> tuple[tuple[object, ...], int]:
        """
        Return what tells whether `path` still leads to the files that the connection has open, and the file's size.
        """
        try:
            found = os.stat(path)
        except OSError:
            return (), 0
        files: list[object] = [(found.st_dev, found.st_ino)]
        if self._real != self.path:
            # It may have been moved, and the link after it, away from its -wal.
            files.append(identity_of(self._real))
        if self._wal:
            files.append(identity_of(self._real + "-wal"))
        return tuple(files), found.st_size


@cache
def _statement(length: int) -> str:
    return _INSERT.format(values=",".join([_VALUES] * length))


@cache
def _shared_statement(length: int) -> str:
    contexts = (f"({number}{', ?' * _CONTEXT_PARAMETERS})" for number in range(length // _ROWS_PER_CONTEXT))
    rows = f"({', '.join('?' * _ROW_PARAMETERS)})"
    return _INSERT_SHARED.format(rows=",".join([rows] * length), contexts=",".join(contexts))


def _is_corrupt(error: BaseException) -> bool:
    # The low byte is the primary code (https://sqlite.org/rescode.html); errors of the module itself have none.
    return primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _statement_rows(rows: Sequence[PackedRow], start: int, end: int) -> int:
    """
    Return how many rows the next INSERT takes.
    """
    count = min(end - start, _STATEMENT_ROWS[-1])
    while count > 1 and _size(rows[start : start + count]) > _STATEMENT_SIZE:
        count //= 2
    return count


def _size(rows: Sequence[PackedRow]) -> int:
    return sum(row[_row.SIZE] - _WITHOUT_TEXT for row in rows)


# Files that this process may never open, because its parent was writing to them when it was forked.
_lost: set[object] = set()


def _deny(*_: object) -> int:
    return sqlite3.SQLITE_DENY


# Connections of a parent process, in a child that cannot leak them.
_inherited: list[sqlite3.Connection] = []


def _finalize_all() -> None:
    """
    Finalize the statements of a connection that was closed, whichever thread has prepared them.

    Without a GIL an object that one thread lets go of stays until the thread that made it comes to it, or until it is
    collected: the cache of the connection first, and then the statements in it. As long as one is left, SQLite keeps
    the file open (https://sqlite.org/c3ref/close.html), and a fork would inherit it.
    """
    for _ in ("the cache", "its statements"):
        gc.collect()


def _keep_open(connection: sqlite3.Connection) -> None:
    """
    See to it that a connection is never closed, not even when the interpreter ends and lets go of everything.

    A child that closes the connection of its parent may write back and delete a WAL that the parent goes on using, or
    hang on a lock inside SQLite that a thread of the parent held (https://sqlite.org/howtocorrupt.html, section 2.6).
    """
    try:
        import ctypes  # noqa: PLC0415 - only a child that has inherited a connection needs it
    except ImportError:
        _inherited.append(connection)
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _may_only_be_read(path: str) -> bool:
    """
    Tell whether there is a file that this process may not write to.
    """
    there = partial(os.path.exists, path)
    # Asked again, because another process may have moved it aside in between.
    return there() and not os.access(path, os.W_OK, effective_ids=_EFFECTIVE) and there()


def _create(path: str) -> None:
    """
    Create an empty file, if there is none, that only its owner may read (logs hold secrets); the -wal and the -shm
    inherit its mode.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _statements(script: str) -> list[str]:
    """
    Split a script: `executescript` would commit the transaction that the script is to run in.
    """
    statements, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            statements.append(current.strip())
            current = ""
    return statements
