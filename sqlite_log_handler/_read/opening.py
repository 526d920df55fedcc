"""
Open a log for reading: one of this package, or a file from elsewhere that may be hostile.

- Nothing is written: the file is opened read-only, and no query can change it.
- Nothing in the file is run: its tables have to be those of a log, word for word, before a row is read.
- Nothing in the file can hold us up without end, nor take memory without end: see `budget`.
- Each condition has an error of its own name, which says what to do.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, NoReturn

from sqlite_log_handler._logfile.connect import connect_read_only, is_ours, primary_code, require_schema
from sqlite_log_handler._logfile.errors import (
    BusyFileError,
    CorruptFileError,
    EmptyFileError,
    LimitError,
    LogFileError,
    MissingFileError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.forks import Connection, LostFileError
from sqlite_log_handler._read.budget import VALUE_MIB, Budget

_CACHE_KIB: Final = 8 * 1024


# What to do about a path behind which there is no log.
ADVICE: Final = "name the file of a SQLiteHandler"

_READ_ONLY_FAILED: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

_NAMED: Final[dict[int, tuple[type[LogFileError], str]]] = {
    sqlite3.SQLITE_BUSY: (BusyFileError, "another process keeps it locked: try again when that process is done"),
    sqlite3.SQLITE_LOCKED: (BusyFileError, "another process keeps it locked: try again when that process is done"),
    sqlite3.SQLITE_CORRUPT: (
        CorruptFileError,
        "it is damaged: `sqlite-log check` says where, and `.recover` of the sqlite3 shell saves what can be saved",
    ),
    sqlite3.SQLITE_NOTADB: (CorruptFileError, "it is damaged: it does not begin as an SQLite file"),
    sqlite3.SQLITE_CANTOPEN: (UnreadableFileError, "make the file and its folder readable"),
    sqlite3.SQLITE_READONLY: (
        UnreadableFileError,
        "a process was killed while it wrote: open it once with the right to write, which rolls back what it left",
    ),
    sqlite3.SQLITE_PERM: (UnreadableFileError, "make the file and its folder readable"),
    sqlite3.SQLITE_AUTH: (UnreadableFileError, "make the file and its folder readable"),
    sqlite3.SQLITE_IOERR: (UnreadableFileError, "the disk reports an error"),
    sqlite3.SQLITE_INTERRUPT: (LimitError, "it takes more work to read than any log: it was not made by this package"),
    sqlite3.SQLITE_TOOBIG: (
        LimitError,
        f"it holds a row of more than {VALUE_MIB} MiB: read on after that row with `after_id`",
    ),
    sqlite3.SQLITE_ERROR: (CorruptFileError, "it holds something that no log holds"),
}


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Turn what SQLite raises inside the `with` block into the error of the condition's own name."""
    try:
        yield
    except sqlite3.Error as error:
        raise_named(path, error)


def raise_named(path: str, error: sqlite3.Error) -> NoReturn:
    """Raise the error of the condition's own name; an error of the `sqlite3` module, which has no code, as it came."""
    code = primary_code(error)
    if not code:
        raise error
    kind, advice = _NAMED.get(code, (LogFileError, "it cannot be read"))
    message = f"{path!r}: {advice} ({error})"
    raise kind(message) from error


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
    A log that is open for reading, and the budget of what is asked of it.

    `notice` is what the reader has to be told about it, if anything. With `immutable`, the connection does not see what
    is written from now on.
    """

    connection: Connection
    budget: Budget
    notice: str | None
    immutable: bool


def open_log(path: str, *, timeout: float = 5.0) -> Opened:
    """
    Open the log at `path` for reading.

    Raises:
        MissingFileError: There is no such file.
        EmptyFileError: No log was written to it yet.
        ForeignFileError: It is not a log of this package.
        NewerSchemaError: It is ours, but made by a newer version.
        LogFileError: It cannot be read; the class says why.
    """
    require_file(path)
    notice, immutable = None, False
    with named_errors(path):
        try:
            connection, budget = _connect(path, timeout)
        except sqlite3.OperationalError as error:
            # Where SQLite has its -wal: beside the file to which a link leads.
            real = os.path.realpath(path)
            if primary_code(error) not in _READ_ONLY_FAILED or not _may_be_immutable(real):
                raise
            # Beside a file in WAL mode SQLite makes a -shm, and here it may not.
            immutable = True
            connection, budget = _connect(path, timeout, immutable=True)
            if os.path.exists(real + "-wal") and os.stat(real + "-wal").st_size:
                notice = (
                    f"{path!r} is read without its -wal, so the newest rows are left out: to read a -wal, you must be "
                    "allowed to write to its folder. Copy both files to a folder of your own to see these rows"
                )
    return Opened(connection, budget, notice, immutable)


def _may_be_immutable(path: str) -> bool:
    """Tell whether the main file is sound by itself: with a journal to be rolled back, it is not."""
    return os.access(path, os.R_OK) and not os.path.exists(path + "-journal")


def _connect(path: str, timeout: float, *, immutable: bool = False) -> tuple[Connection, Budget]:
    try:
        connection = connect_read_only(path, timeout=timeout, immutable=immutable)
    except LostFileError as error:
        message = f"{path!r}: this process was forked in the middle of a query on it: start the process with spawn"
        raise UnreadableFileError(message) from error
    try:
        budget = Budget(connection, path, os.stat(path).st_size)
        _check(connection, budget, path)
    except BaseException:
        connection.close()
        raise
    return connection, budget


def _check(connection: Connection, budget: Budget, path: str) -> None:
    with connection.in_use(), budget:
        if not is_ours(connection, path, advice=ADVICE):
            message = f"{path!r} is an empty database: no log was written to it yet"
            raise EmptyFileError(message)
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        require_schema(connection, path)
