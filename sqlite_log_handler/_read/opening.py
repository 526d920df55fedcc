"""
Open a log for reading, whoever made the file and whatever is in it.

- Nothing is written: the file is opened read-only, and no query can change it.
- Nothing in the file is run: neither functions in views (`trusted_schema`), nor a path that looks like a URI.
- Nothing in the file can hold us up without end: a statement has a limit of steps, and a value one of bytes.
- Each condition has an error of its own name, which says what to do.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from sqlite_log_handler._logfile.connect import connect_read_only, is_ours, primary_code
from sqlite_log_handler._logfile.errors import (
    BusyFileError,
    CorruptFileError,
    EmptyFileError,
    LimitError,
    LogFileError,
    MissingFileError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.forks import Connection, lost

# Steps of SQLite's machine in one statement: some seconds, and one more for each byte of the file, so that no sensible
# query on a log of any size comes near it. An endless view does.
_STEPS: Final = 500_000_000
_STEPS_AT_ONCE: Final = 200_000

# A value that the handler keeps is 64 KiB by default.
_VALUE_BYTES: Final = 16 * 1024 * 1024

_CACHE_KIB: Final = 8 * 1024


# What to do about a path behind which there is no log.
ADVICE: Final = "name the file of a SQLiteHandler"

_READ_ONLY_FAILED: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

_NAMED: Final[dict[int, tuple[type[LogFileError], str]]] = {
    sqlite3.SQLITE_BUSY: (BusyFileError, "another process keeps everybody out of it: try again when it is done"),
    sqlite3.SQLITE_LOCKED: (BusyFileError, "another process keeps everybody out of it: try again when it is done"),
    sqlite3.SQLITE_CORRUPT: (
        CorruptFileError,
        "it is damaged: `sqlite-log check` says where, and `.recover` of the sqlite3 shell saves what can be saved",
    ),
    sqlite3.SQLITE_NOTADB: (CorruptFileError, "it is damaged: its header is no SQLite header any more"),
    sqlite3.SQLITE_CANTOPEN: (UnreadableFileError, "make the file and its folder readable"),
    sqlite3.SQLITE_READONLY: (
        UnreadableFileError,
        "a process was killed while it wrote: open it once with the right to write, which rolls back what it left",
    ),
    sqlite3.SQLITE_PERM: (UnreadableFileError, "make the file and its folder readable"),
    sqlite3.SQLITE_AUTH: (UnreadableFileError, "make the file and its folder readable"),
    sqlite3.SQLITE_IOERR: (UnreadableFileError, "the disk does not answer as it should"),
    sqlite3.SQLITE_INTERRUPT: (LimitError, "it asks for more steps than any log does: it was not made by this package"),
    sqlite3.SQLITE_TOOBIG: (
        LimitError,
        f"it holds a value of more than {_VALUE_BYTES >> 20} MiB: read on behind that row with `after_id`",
    ),
    sqlite3.SQLITE_ERROR: (CorruptFileError, "it does not have the tables that a log has"),
}


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """
    Turn what SQLite raises inside the `with` block into the error of the condition's own name.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = primary_code(error)
        if not code:
            raise
        kind, advice = _NAMED.get(code, (LogFileError, "it cannot be read"))
        message = f"{path!r}: {advice} ({error})"
        raise kind(message) from error


class StepBudget:
    """
    End a statement that takes too many steps; `restart` before each.
    """

    def __init__(self, connection: sqlite3.Connection, steps: int) -> None:
        self._most = self._left = steps // _STEPS_AT_ONCE
        connection.set_progress_handler(self._tick, _STEPS_AT_ONCE)

    def restart(self) -> None:
        """
        Begin to count anew.
        """
        self._left = self._most

    def lift(self) -> None:
        """
        Let the next statement take any number of steps: those of `PRAGMA integrity_check` are of our making.
        """
        self._left = sys.maxsize

    @property
    def reached(self) -> bool:
        """
        Whether the last statement was ended by it.
        """
        return self._left < 0

    def _tick(self) -> bool:
        self._left -= 1
        return self.reached


def require_file(path: str) -> None:
    """
    Raise the error of its own name when there is no file at `path`: SQLite would say less.

    Raises:
        MissingFileError: There is nothing.
        UnreadableFileError: There is a folder, or something else that is no file; to open a pipe may take for ever.
    """
    if not os.path.exists(path):
        message = f"{path!r} does not exist: {ADVICE}"
        raise MissingFileError(message)
    if os.path.isdir(path):
        message = f"{path!r} is a folder: name a file in it"
        raise UnreadableFileError(message)
    if not os.path.isfile(path):
        message = f"{path!r} is a device, a pipe or a socket: {ADVICE}"
        raise UnreadableFileError(message)


class Opened(NamedTuple):
    """
    A log that is open for reading.

    `notice` is what the reader has to be told about it, if anything. With `immutable`, the connection does not see what
    is written from now on.
    """

    connection: Connection
    notice: str | None
    immutable: bool


def open_log(path: str, *, timeout: float = 5.0) -> Opened:
    """
    Open the log at `path` for reading.

    Raises:
        MissingFileError: There is no such file.
        EmptyFileError: No log was written to it yet.
        ForeignFileError: It is no log of ours.
        NewerSchemaError: It is ours, but made by a newer version.
        LogFileError: It cannot be read; the class says why.
    """
    require_file(path)
    notice, immutable = None, False
    with named_errors(path):
        try:
            connection = _connect(path, timeout)
        except sqlite3.OperationalError as error:
            # Where SQLite has its -wal: beside the file to which a link leads.
            real = os.path.realpath(path)
            if primary_code(error) not in _READ_ONLY_FAILED or not _may_be_immutable(real):
                raise
            # Beside a file in WAL mode SQLite makes a -shm, and here it may not.
            immutable = True
            connection = _connect(path, timeout, immutable=True)
            if os.path.exists(real + "-wal") and os.stat(real + "-wal").st_size:
                notice = (
                    f"{path!r} is read without its -wal, whose rows are left out: that takes the right to write to its "
                    "folder. Copy both files to a folder of your own to see them"
                )
    return Opened(connection, notice, immutable)


def _may_be_immutable(path: str) -> bool:
    """
    Tell whether the main file is sound by itself: with a journal to be rolled back, it is not.
    """
    return os.access(path, os.R_OK) and not os.path.exists(path + "-journal")


def _connect(path: str, timeout: float, *, immutable: bool = False) -> Connection:
    connection = connect_read_only(path, timeout=timeout, immutable=immutable)
    if connection.file in lost:
        connection.close()
        message = f"{path!r}: this process was forked in the middle of a query on it: start the process by spawn"
        raise UnreadableFileError(message)
    try:
        with connection.in_use():
            ours = is_ours(connection, path, advice=ADVICE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES)
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    if not ours:
        connection.close()
        message = f"{path!r} is an empty database: no log was written to it yet"
        raise EmptyFileError(message)
    return connection


def step_budget(connection: sqlite3.Connection, path: str) -> StepBudget:
    """
    Give statements on a file of this size their budget of steps.
    """
    return StepBudget(connection, _STEPS + os.stat(path).st_size)
