"""
A log as somebody reads it who takes it elsewhere: the rows behind a cursor, and the cursor itself.

The cursor is the id of the last row that was answered for. It lives in the table `cursors` of the log, so it is as
durable as the rows are and can never be ahead of them: after a power cut the file ends at an earlier commit, cursor and
rows alike. `synchronous=NORMAL` is enough, because an older cursor costs duplicates and no row.

Guarantees
==========

- No read transaction is open between two calls, so a slow receiver pins no WAL.
- The file is written to under the write lock of the log only, and by nothing but `save` and `close`.
- A cursor is saved into the file that its rows were read from: a file that was moved or replaced takes its cursor
  along, and whatever has come in its place is read from its own cursor, which is none.
- Two that use one name at the same time are told so: `save` moves the cursor only from where this one has put it.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from sqlite_log_handler._logfile.connect import connect_read_write, is_ours
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._logfile.write_lock import WriteLock

# id, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message, exc_type, exc_text,
# stack_info, attributes
SpoolRow: TypeAlias = tuple[
    int,
    int,
    int,
    int,
    int,
    int | None,
    str | None,
    str | None,
    str,
    str | None,
    str | None,
    str | None,
    str | None,
]
# logger, pathname, lineno, func
Source: TypeAlias = tuple[str, str, int, str]
# host, pid, name, started_us, program
Process: TypeAlias = tuple[str, int, str, int, str]
# since_us, until_us, cause, logger, level, count
Drop: TypeAlias = tuple[int, int, str, str, str, int]

_ROWS = """
SELECT id, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message, exc_type, exc_text,
    stack_info, attributes
FROM records WHERE id > ? ORDER BY id LIMIT ?
"""
_DROPS = """
SELECT after_id, since_us, until_us, cause, logger, coalesce(levels.name, 'Level ' || drops.levelno), count
FROM drops LEFT JOIN levels ON levels.levelno = drops.levelno WHERE after_id BETWEEN ? AND ? ORDER BY drops.id
"""
_SAVE = "UPDATE cursors SET after_id = ?, updated_us = ? WHERE name = ? AND after_id = ?"

# What a row takes besides its texts, roughly: times, numbers, names.
_ROW_BYTES = 400

# SQLite's own wait cannot be broken off, and the end of a command may not take long.
_BUSY_SECONDS = 0.1
_LOCK_SECONDS = 0.25

# Names the logger of the handler's own warnings, as `_write.listener` does, in the half that writes.


class TakenCursorError(LogFileError):
    """The cursor was moved by somebody else: two forwarders use one name on one file."""


@dataclass(frozen=True, slots=True)
class OutgoingBatch:
    """
    Rows that follow one another, and what they refer to.

    Attributes:
        after_id: The row that was read last before them.
        last_id: The last of them, or of those that are missing.
        rows: In the order of their ids.
        missing: Rows between the cursor and the last of these that are not in the file any more.
        causes: Why they were pruned, as far as the file knows.
        more: Whether there are more rows behind these.
        sources, processes, levels: By the ids and the numbers that the rows hold.
        drops: Lines of the ledger, by the id of the row behind which the records are missing.
    """

    after_id: int
    last_id: int
    rows: list[SpoolRow] = field(default_factory=list)
    missing: int = 0
    causes: list[str] = field(default_factory=list)
    more: bool = False
    sources: dict[int, Source] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)
    levels: dict[int, str] = field(default_factory=dict)
    drops: dict[int, list[Drop]] = field(default_factory=dict)


class Spool:
    """
    The log at `path`, read by somebody whose cursor has the name `name`.

    Args:
        path: Path of the log.
        name: Name of the cursor.
        say: Called with a line for the operator: the file was replaced.
        time: Tells seconds since 1970, for `cursors.updated_us`.
    """

    def __init__(
        self, path: str, name: str, *, say: Callable[[str], None], time: Callable[[], float] = time.time
    ) -> None:
        self.path = os.path.abspath(path)
        self.name = name
        self._say = say
        self._time = time
        self._lock = WriteLock(self.path, say=say)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._version: int | None = None
        self._at_end = False
        # The id that was read last, and the one that the file knows of; None when it knows of none.
        self._position = 0
        self._saved: int | None = None

    def read(self, count: int, max_bytes: int) -> OutgoingBatch:
        """
        Read the rows behind the last one that was read: `count` at most, and of `max_bytes` of text together or one.

        Raises:
            LogFileError: The file is no log, or too new.
            OSError, sqlite3.Error: It cannot be read now; a later call may succeed.
        """
        connection = self._open()
        if connection is None:
            return OutgoingBatch(0, 0)
        self._version = _one(connection, "PRAGMA data_version")
        connection.execute("BEGIN")
        try:
            batch = self._read(connection, count, max_bytes)
        finally:
            connection.execute("ROLLBACK")
        return batch

    def _read(self, connection: sqlite3.Connection, count: int, max_bytes: int) -> OutgoingBatch:
        rows: list[SpoolRow] = []
        more = False
        with contextlib.closing(connection.execute(_ROWS, (self._position, count + 1))) as found:
            for row in found:
                max_bytes -= _ROW_BYTES + sum(map(len, filter(None, row[8:])))
                more = bool(rows) and (max_bytes < 0 or len(rows) == count)
                if more:
                    break
                rows.append(row)
        after_id = self._position
        # With no row left, all up to the last id that was given are gone.
        last_id = rows[-1][0] if rows else max(after_id, self._last_id(connection))
        missing = last_id - after_id - len(rows)
        causes = self._causes(connection, after_id, last_id) if missing else []
        batch = OutgoingBatch(after_id, last_id, rows, missing, causes, more)
        if rows:
            _fill(connection, batch)
        self._position = last_id
        self._at_end = not more
        return batch

    def _causes(self, connection: sqlite3.Connection, after_id: int, last_id: int) -> list[str]:
        found = connection.execute(
            "SELECT DISTINCT cause FROM prunes WHERE last_id > ? AND first_id <= ? ORDER BY cause", (after_id, last_id)
        )
        return [cause for (cause,) in found]

    def has_news(self) -> bool:
        """Tell, at the cost of two system calls, whether a `read` may find something that the last one did not."""
        if not self._at_end or self._connection is None or self._identity != _identity(self.path):
            return True
        return self._version != _one(self._connection, "PRAGMA data_version")

    def save(self, after_id: int) -> None:
        """
        Move the cursor: all rows up to `after_id` were answered for.

        Raises:
            TakenCursorError: Somebody else has moved it.
            OSError, sqlite3.Error: It cannot be written now; a later call may succeed.
        """
        connection = self._connection
        if connection is None or after_id == self._saved:
            return
        with self._lock.hold(_LOCK_SECONDS):
            if self._identity != _identity(self.path):
                # What has come in its place has rows of its own under these ids.
                return
            with transaction(connection):
                self._save(connection, after_id)
        self._saved = after_id

    def _save(self, connection: sqlite3.Connection, after_id: int) -> None:
        now_us = round(self._time() * 1e6)
        if self._saved is None:
            added = connection.execute("INSERT OR IGNORE INTO cursors VALUES (?, ?, ?)", (self.name, after_id, now_us))
        else:
            added = connection.execute(_SAVE, (after_id, now_us, self.name, self._saved))
        if added.rowcount != 1:
            message = (
                f"the cursor {self.name!r} of {self.path!r} was moved by somebody else: end the other forwarder, or "
                "give each a name of its own by --name"
            )
            raise TakenCursorError(message)

    def close(self, timeout: float = _LOCK_SECONDS) -> None:
        """
        Close the file, after `timeout` seconds without the write lock: then another process has the file open.

        The last connection that closes writes the WAL back, and that is done under the write lock.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._lock.hold_if_free(timeout):
                connection.close()
        self._lock.close()

    def _open(self) -> sqlite3.Connection | None:
        """Give the connection to the file at the path, and None as long as there is no log in it."""
        identity = _identity(self.path)
        if self._connection is not None:
            if identity == self._identity:
                return self._connection
            # It shares -wal and -shm with whatever stands at the path now, so it may not even be read any more.
            self.close()
            self._say(
                f"{self.path!r} was moved or replaced; what had not been sent is in the old file, with its cursor: "
                "forward that one as well"
            )
        if identity is None:
            return None
        with self._lock.hold(_LOCK_SECONDS):
            # The first process that opens a file rolls back what a killed one has left.
            return self._connect(self._lock.follow(_LOCK_SECONDS), identity)

    def _connect(self, real: str, identity: tuple[int, int]) -> sqlite3.Connection | None:
        connection = connect_read_write(real, timeout=_BUSY_SECONDS)
        try:
            # A file that somebody has damaged is sent as far as it can be.
            connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
            if not is_ours(connection, self.path, advice="name the file of a SQLiteHandler"):
                connection.close()
                return None
            # Those who write the log checkpoint it.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._begin(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, identity
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("SELECT after_id FROM cursors WHERE name = ?", (self.name,)).fetchone()
        if found is not None:
            self._saved = self._position = found[0]
        else:
            # What was pruned before anybody asked for it was not to be sent.
            self._saved = None
            first_id = _one(connection, "SELECT min(id) FROM records")
            self._position = self._last_id(connection) if first_id is None else first_id - 1

    @staticmethod
    def _last_id(connection: sqlite3.Connection) -> int:
        """Give the highest id that was ever given."""
        return _one(connection, "SELECT max(id) FROM records") or 0


def _fill(connection: sqlite3.Connection, batch: OutgoingBatch) -> None:
    """Look up what the rows refer to. Every time anew: retention may delete a source, and its id be given again."""
    source_ids, process_ids = {row[3] for row in batch.rows}, {row[4] for row in batch.rows}
    # In a file that was mended, or cut by hand, a row may refer to nothing. It is sent with what it has.
    batch.sources.update(dict.fromkeys(source_ids, ("", "", 0, "")))
    batch.processes.update(dict.fromkeys(process_ids, ("", 0, "", 0, "")))
    for source_id, *source in _lookup(connection, "sources", "logger, pathname, lineno, func", source_ids):
        batch.sources[source_id] = tuple(source)
    for process_id, *process in _lookup(connection, "processes", "host, pid, name, started_us, program", process_ids):
        batch.processes[process_id] = tuple(process)
    batch.levels.update(connection.execute("SELECT levelno, name FROM levels"))
    if any(source[0] == OWN_LOGGER for source in batch.sources.values()):
        for after_id, *drop in connection.execute(_DROPS, (batch.rows[0][0] - 1, batch.rows[-1][0])):
            batch.drops.setdefault(after_id, []).append(tuple(drop))


def _lookup(connection: sqlite3.Connection, table: str, columns: str, ids: set[int]) -> sqlite3.Cursor:
    # Not by `json_each`: a table of the file may have that name, and hides the function.
    known = ", ".join(str(id_) for id_ in sorted(id_ for id_ in ids if isinstance(id_, int)))
    return connection.execute(f"SELECT id, {columns} FROM {table} WHERE id IN ({known})")  # noqa: S608 - numbers


def _one(connection: sqlite3.Connection, sql: str) -> int | None:
    value: int | None = connection.execute(sql).fetchone()[0]
    return value


def _identity(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino
