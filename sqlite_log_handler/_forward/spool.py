"""
The log that is forwarded: the rows after a cursor, and the cursor itself.

The cursor is the id of the last row for which the receiver has answered. The table `cursors` of the log holds it, so it
is as durable as the rows and never ahead of them: after a power failure, rows and cursor come from the same commit.
`synchronous=NORMAL` is enough, because an older cursor costs duplicates but no row.

Guarantees
==========

- No read transaction is open between two calls, so a slow receiver pins no WAL.
- Only saving the cursor and closing the file write to it, and both hold the write lock of the log.
- `save` writes into the file from which the rows came. A file that was moved takes its cursor along, and the file at
  its old path has a cursor of its own.
- A file that was moved also takes along the rows of its WAL, and no other file is opened beside that WAL.
- `save` moves the cursor only from where this spool has put it, so two forwarders with one name notice each other.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from sys import getsizeof
from typing import Any, TypeAlias

from sqlite_log_handler._logfile.columns import text, text_or_none, whole
from sqlite_log_handler._logfile.connect import (
    close,
    connect_read_write,
    full,
    identity_of,
    is_full,
    is_removed,
    is_small_log,
    refuse_full,
    require_schema,
    size_of,
    without_triggers,
)
from sqlite_log_handler._logfile.errors import LimitError, LogFileError
from sqlite_log_handler._logfile.schema import MAX_ROW_BYTES, OWN_LOGGER, level_name_of
from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._logfile.write_lock import WriteLock

# The columns of `_ROWS`.
SpoolRow: TypeAlias = tuple[
    int, int, int, int, int, int | None, str | None, str | None, str, str | None, str | None, str | None, str | None
]  # fmt: skip
# logger, pathname, lineno, func
Source: TypeAlias = tuple[str, str, int, str]
# host, pid, name, started_us, program
Process: TypeAlias = tuple[str, int, str, int, str]
# since_us, until_us, cause, logger, level, count
Drop: TypeAlias = tuple[int, int, str, str, str, int]

_ROWS = f"""
SELECT records.id, {whole("created_us")}, {whole("levelno")}, {whole("source_id")}, {whole("process_id")},
    CAST(coalesce(thread, ident) AS INTEGER), {text_or_none("coalesce(thread_name, name)")},
    {text_or_none("task_name")}, {text("message")}, {text_or_none("exc_type")}, {text_or_none("exc_text")},
    {text_or_none("stack_info")}, {text_or_none("attributes")}
FROM records LEFT JOIN threads ON threads.id = thread_id WHERE records.id > ? ORDER BY records.id LIMIT ?
"""  # noqa: S608 - our own names
_DROPS = f"""
SELECT after_id, {whole("since_us")}, {whole("until_us")}, {text("cause")}, {text("logger")},
    {text(level_name_of("drops"))}, {whole("count")}
FROM drops LEFT JOIN levels ON levels.levelno = drops.levelno WHERE after_id BETWEEN ? AND ?
ORDER BY after_id, drops.id
"""  # noqa: S608 - our own name
_SOURCE = f"SELECT {text('logger')}, {text('pathname')}, {whole('lineno')}, {text('func')} FROM sources WHERE id = ?"  # noqa: S608 - our own names
_PROCESS = f"""
SELECT {text("host")}, {whole("pid")}, {text("name")}, {whole("started_us")}, {text("program")}
FROM processes WHERE id = ?
"""  # noqa: S608 - the same
_LEVEL = f"SELECT {text('name')} FROM levels WHERE levelno = ?"  # noqa: S608 - the same
_CAUSES = f"""
SELECT DISTINCT substr({text("cause")}, 1, 100) FROM prunes WHERE last_id > ? AND first_id <= ? ORDER BY 1 LIMIT 10
"""  # noqa: S608 - the same
_LOG_ID = f"SELECT {text('(SELECT substr(log_id, 1, 16) FROM marks LIMIT 1)')}"  # noqa: S608 - the same
_CURSOR = f"SELECT {whole('after_id')} FROM cursors WHERE name = ?"  # noqa: S608 - the same
_SAVE = "UPDATE cursors SET after_id = ?, updated_us = ? WHERE name = ? AND after_id = ?"

# The times and numbers of a row, or of a line of the ledger, roughly.
_ROW_BYTES = 50
# A gap has some 1,000 lines, with names of 200 letters; to encode one takes four times its size.
_MOST_DROP_BYTES = 14 * 1024 * 1024
# A value in `extra`, which becomes objects of 60 to 180 bytes: the largest row has more of them than a batch of 4 MiB.
_VALUE_BYTES = 40

# Steps of SQLite for a batch, beyond which its tables have no end; a batch that lies among many gaps takes a million.
_MOST_STEPS = 20_000_000
_STEPS_AT_ONCE = 10_000

# Short, because a signal cannot end SQLite's wait, and should end the command soon.
_BUSY_SECONDS = 0.1
_LOCK_SECONDS = 0.25


class TakenCursorError(LogFileError):
    """Another forwarder moved the cursor: two of them use one name on one file."""


@dataclass(frozen=True, slots=True)
class OutgoingBatch:
    """Consecutive rows, and what they refer to by the ids and numbers that they hold."""

    after_id: int  # that was read last before them
    rows: list[SpoolRow] = field(default_factory=list)
    missing: int = 0  # ids between `after_id` and the last row that have no row any more
    causes: list[str] = field(default_factory=list)  # for which those rows were pruned, as far as the file knows
    more: bool = False  # rows follow
    sources: dict[int, Source] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)
    levels: dict[int, str] = field(default_factory=dict)
    drops: dict[int, list[Drop]] = field(default_factory=dict)  # by the id of the row after which they are missing
    log_id: object = ""  # a random number of the file


class Spool:
    """The log at `path`, with the cursor `name`. `say` is called with a line for the operator."""

    def __init__(
        self, path: str, name: str, *, say: Callable[[str], None], time: Callable[[], float] = time.time
    ) -> None:
        self.path = os.path.abspath(path)
        self.name = name
        self.was_left = False  # a file whose rows may not all have been sent, because it was moved
        self._say = say
        self._time = time
        self._lock = WriteLock(self.path, say=say)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._real = self.path  # the path that was opened, without links
        self._beside: dict[str, tuple[int, int] | None] = {}  # the -shm and the -wal that are open, by their paths
        self._schema_version: int | None = None  # whose tables were compared
        self._read_version: int | None = None  # whose rows were all read
        self._steps = 0
        # The id that was read last, and the one that the file holds, if it holds one.
        self._position = 0
        self._saved: int | None = None

    def read(self, count: int, max_bytes: int) -> OutgoingBatch:
        """
        Read the next rows: at most `count`, and at most `max_bytes`, roughly. The first one may be longer.

        Raises:
            LogFileError: The file is not a log, or of a newer version.
            OSError, sqlite3.Error: It cannot be read now; a later call may succeed.
        """
        self._steps, self._read_version = 0, None
        connection = self._open()
        if connection is None:
            return OutgoingBatch(0)
        version = _one(connection, "PRAGMA data_version")
        connection.execute("BEGIN")
        try:
            if self._schema_version != _one(connection, "PRAGMA schema_version"):
                self._require_log(connection)
            batch = self._read(connection, count, max_bytes)
        except sqlite3.OperationalError as error:
            if self._steps < _MOST_STEPS:
                raise
            message = f"{self.path!r}: the rows after id {self._position} take too long to read: run `sqlite-log check`"
            raise LimitError(message) from error
        finally:
            if connection.in_transaction:  # SQLite has ended it after an error of the disk
                connection.execute("ROLLBACK")
        self._read_version = None if batch.more else version
        # Last, or a look-up that fails would pass over these rows.
        self._position += batch.missing + len(batch.rows)
        return batch

    def _count_steps(self) -> bool:
        """Count what SQLite does for a batch; Python handles signals here too. Return whether it should end."""
        self._steps += _STEPS_AT_ONCE
        return self._steps >= _MOST_STEPS

    def _read(self, connection: sqlite3.Connection, count: int, max_bytes: int) -> OutgoingBatch:
        try:
            names, rows, more = self._rows(connection, count, max_bytes)
        except sqlite3.DataError:
            # One row is too long. Those before it come one by one, because `sqlite3` steps to a row before it returns
            # the one before.
            try:
                names, rows, _ = self._rows(connection, 0, max_bytes)
            except sqlite3.DataError as error:
                raise LimitError(
                    f"{self.path!r}: the row after id {self._position} has more than {MAX_ROW_BYTES >> 10} KiB, so no "
                    "handler wrote it: delete it, and forward the rest"
                ) from error
            more = True
        drops: dict[int, list[Drop]] = {}
        if any(source[0] == OWN_LOGGER for source in names.sources.values()):
            read = len(rows)
            drops = self._drops(connection, rows, max_bytes)
            more = more or len(rows) < read
        after_id = self._position
        last_id = rows[-1][0] if rows else after_id
        missing = last_id - after_id - len(rows)
        causes = [cause for (cause,) in connection.execute(_CAUSES, (after_id, last_id))] if missing else []
        looked_up = names.sources, names.processes, names.levels, drops, _one(connection, _LOG_ID)
        return OutgoingBatch(after_id, rows, missing, causes, more, *looked_up)

    def _drops(self, connection: sqlite3.Connection, rows: list[SpoolRow], max_bytes: int) -> dict[int, list[Drop]]:
        """Return the gaps before these rows. If they are longer than `max_bytes`, this cuts rows off the end."""
        drops: dict[int, list[Drop]] = {}
        first, held = rows[0][0] - 1, 0
        for after_id, *drop in connection.execute(_DROPS, (first, rows[-1][0] - 1)):
            if after_id >= rows[-1][0]:
                break
            held += _ROW_BYTES + sum(map(getsizeof, drop))
            if held > _MOST_DROP_BYTES and after_id == first:
                raise LimitError(f"{self.path!r}: a gap takes more than {_MOST_DROP_BYTES >> 20} MiB of memory")
            if held > max_bytes and after_id == first:
                del rows[1:]
            elif held > min(max_bytes, _MOST_DROP_BYTES):
                rows[:] = [row for row in rows if row[0] <= after_id]
                drops.pop(after_id, None)
                break
            drops.setdefault(after_id, []).append(tuple(drop))
        return drops

    def _rows(
        self, connection: sqlite3.Connection, count: int, max_bytes: int
    ) -> tuple["_Names", list[SpoolRow], bool]:
        """Return rows, and whether more follow. Raises a DataError for a long one, as SQLite does for a long text."""
        names = _Names(connection)
        with contextlib.closing(connection.execute(_ROWS, (self._position, count + 1))) as found:
            return names, *_first(found, names, count, max_bytes)

    def go_back(self, after_id: int) -> None:
        """Let `read` begin after this id again."""
        self._position, self._read_version = after_id, None

    def has_news(self) -> bool:
        """Tell, at the cost of two system calls, whether `read` may find something new."""
        connection = self._connection
        if connection is None or self._identity != self._find():
            return True
        refuse_full(self.path)
        return self._read_version != _one(connection, "PRAGMA data_version")

    def save(self, after_id: int) -> None:
        """
        Move the cursor to `after_id`, because the receiver has answered for all rows up to it.

        Raises:
            TakenCursorError: Another forwarder has moved it.
            OSError, sqlite3.Error: It cannot be written now; a later call may succeed.
        """
        connection = self._connection
        if connection is None or after_id == self._saved:
            return
        refuse_full(self.path)
        with self._lock.hold(_LOCK_SECONDS):
            if self._identity != self._find():
                return  # the file at the path is another one, with rows of its own under these ids
            with without_triggers(connection, self.path, advice="drop it"), transaction(connection):
                self._save(connection, after_id)
        self._saved = after_id

    def _save(self, connection: sqlite3.Connection, after_id: int) -> None:
        now_us = round(self._time() * 1e6)
        if self._saved is None:
            added = connection.execute("INSERT OR IGNORE INTO cursors VALUES (?, ?, ?)", (self.name, after_id, now_us))
        else:
            added = connection.execute(_SAVE, (after_id, now_us, self.name, self._saved))
        if added.rowcount != 1:
            raise TakenCursorError(
                f"another forwarder moved the cursor {self.name!r} of {self.path!r}: end it, or give each forwarder a "
                "cursor of its own with --name"
            )

    @property
    def is_moved(self) -> bool:
        """Whether another file, or none, is where the one was that is open."""
        return self._connection is not None and identity_of(self.path) != self._identity

    def close(self, timeout: float = _LOCK_SECONDS) -> None:
        """
        Close the file.

        The last connection to close writes the WAL back, which takes the write lock. If we cannot get the lock within
        `timeout` seconds, the WAL stays.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._lock.hold_if_free(timeout) as held:
                if held:
                    with contextlib.suppress(TimeoutError):
                        self._leave(connection)
                keep_wal = not held and identity_of(self._real) == self._identity
                close(connection, self._real, keep_wal=keep_wal, timeout=_BUSY_SECONDS)
            if identity_of(self.path) != self._identity:
                self.was_left = True
                self._say(
                    f"{self.path!r} was moved or replaced: forward the old file as well, which has the rows that were "
                    "not sent, and the cursor"
                )
        self._lock.close()

    def _leave(self, connection: sqlite3.Connection) -> None:
        """
        Write the WAL back into a file that was moved, as SQLite does not when it closes one.

        The -wal stays where it is, and SQLite would apply it to the file that comes in its place
        (https://sqlite.org/howtocorrupt.html, section 1.4).

        Raises:
            TimeoutError: It could not be written back.
        """
        if identity_of(self._real) == self._identity:
            return  # not moved, though a link may have been switched
        shm, wal = ((identity_of(path), file) for path, file in self._beside.items())
        # By another -shm, other processes may have added to the WAL, which this connection does not know.
        if not is_full(self.path) and (wal[0] != wal[1] or shm[0] in {None, shm[1]}):
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        # Those that are ours still, and were not moved along or aside.
        left = [path for path, file in self._beside.items() if file is not None and identity_of(path) == file]
        if any(size_of(path) for path in left if path.endswith("-wal")):
            raise TimeoutError(
                f"{self.path!r} was moved or replaced while a reader held its -wal, which is still there"
            )
        # Another process may still have the old file open, and these with it. A new file must not share them.
        for path in left:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _open(self) -> sqlite3.Connection | None:
        """Return the connection to the file at the path; None as long as there is no log in it."""
        identity = self._find()
        if is_full(self.path):
            if self._connection is not None and is_removed(self._identity):  # as in `LogFile.do`
                connection, self._connection, self.was_left = self._connection, None, True
                connection.close()
            raise full()
        if self._connection is not None:
            if identity == self._identity:
                return self._connection
            # The file at the path now has the same -wal and -shm, so the old one must not even be read.
            with self._lock.hold(_LOCK_SECONDS):
                self._leave(self._connection)
            self.close()
        if identity is None:
            return None
        with self._lock.hold(_LOCK_SECONDS):
            # The first process to open a file rolls back what a killed one has left.
            return self._connect(self._lock.follow(_LOCK_SECONDS))

    def _connect(self, real: str) -> sqlite3.Connection | None:
        with contextlib.ExitStack() as opened:
            connection = connect_read_write(real, timeout=_BUSY_SECONDS)
            opened.callback(connection.close)
            # Send a damaged file as far as possible.
            connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
            if not self._require_log(connection):
                return None
            # The programs that log checkpoint it.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._begin(connection)
            beside = {real + end: identity_of(real + end) for end in ("-shm", "-wal")}
            identity = identity_of(real)
            if identity != connection.file:
                # Else what belongs to the file that is there now would be taken for that of the moved one.
                raise TimeoutError(f"{self.path!r} was moved or replaced while it was opened")
            opened.pop_all()
        self._connection, self._identity, self._real, self._beside = connection, identity, real, beside
        return connection

    def _require_log(self, connection: sqlite3.Connection) -> bool:
        """Refuse a file that is not a log, or not one any more; return False for one that is empty yet."""
        found = is_small_log(connection, self.path, advice="name the file of a SQLiteHandler")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        connection.set_progress_handler(self._count_steps, _STEPS_AT_ONCE)
        if found:
            version = _one(connection, "PRAGMA schema_version")
            require_schema(connection, self.path)
            self._schema_version = version
        return found

    def _begin(self, connection: sqlite3.Connection) -> None:
        found = connection.execute(_CURSOR, (self.name,)).fetchone()
        if found is not None:
            self._saved = self._position = found[0]
        else:
            # Rows that were pruned before this cursor existed do not count as missing.
            self._saved = None
            first_id = _one(connection, "SELECT min(id) FROM records")
            self._position = 0 if first_id is None else max(first_id - 1, -1 << 63)

    def _find(self) -> tuple[int, int] | None:
        """Return the identity of the file at the path; None if there is none, but raise if that cannot be seen."""
        return identity_of(self.path, FileNotFoundError)


def _first(found: Iterable[SpoolRow], names: "_Names", count: int, max_bytes: int) -> tuple[list[SpoolRow], bool]:
    rows: list[SpoolRow] = []
    for row in found:
        texts = [text for text in row[6:] if text]
        # In memory, and not in the file: with one emoji, each letter of a text takes four bytes.
        size = names[row[2:5]] + sum(map(getsizeof, texts))
        if size > MAX_ROW_BYTES and sum(map(len, texts)) + names.letters(*row[2:5]) > MAX_ROW_BYTES:
            raise sqlite3.DataError
        values = sum(map(row[12].count, ",[{")) if row[12] else 0
        max_bytes -= _ROW_BYTES + size + _VALUE_BYTES * values
        if rows and (max_bytes < 0 or len(rows) == count):
            return rows, True
        rows.append(row)
    return rows, False


class _Names(dict[tuple[int, int, int], int]):
    """
    What the rows of a batch refer to; nothing for longer, because retention may delete a source and reuse its id.

    Ask it with the level, the source and the process of a row for the bytes that it takes to send their names with it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.sources: dict[int, Source] = {}
        self.processes: dict[int, Process] = {}
        self.levels: dict[int, str] = {}

    def __missing__(self, key: tuple[int, int, int]) -> int:
        levelno, source_id, process_id = key
        # In a repaired file, a row may refer to nothing. It is sent with what it has.
        self.sources[source_id] = source = self._row(_SOURCE, source_id) or ("", "", 0, "")
        (self.levels[levelno],) = self._row(_LEVEL, levelno) or (f"Level {levelno}",)
        self[key] = size = sum(map(getsizeof, (*source, self.levels[levelno])))
        if process_id not in self.processes:  # which is sent once
            self.processes[process_id] = process = self._row(_PROCESS, process_id) or ("", 0, "", 0, "")
            size += sum(map(getsizeof, process))
        return size

    def letters(self, levelno: int, source_id: int, process_id: int) -> int:
        """Return how long the names of a row are together."""
        values = (*self.sources[source_id], *self.processes[process_id], self.levels[levelno])
        return sum(len(value) for value in values if isinstance(value, str))

    def _row(self, query: str, key: int) -> Any:
        return self._connection.execute(query, (key,)).fetchone()


def _one(connection: sqlite3.Connection, sql: str) -> int | None:
    value: int | None = connection.execute(sql).fetchone()[0]
    return value
