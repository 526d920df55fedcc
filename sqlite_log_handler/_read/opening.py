"""
Open a log for reading. The file may come from anywhere, and may be hostile.

- We open it read-only, and no query can change it.
- We run nothing that stands in it: before we read a row, its tables must be those of a log, word for word.
- It can take neither time nor memory without end, see `budget`.
- Each condition has an error class of its own, whose text says what to do.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple, NoReturn

from sqlite_log_handler._logfile.connect import (
    connect_read_only,
    is_small_log,
    primary_code,
    refuse_long,
    require_schema,
    size_of,
)
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
from sqlite_log_handler._read.budget import LARGE_BYTES, LONG_BYTES, Budget

# For a path at which there is no log.
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
    sqlite3.SQLITE_IOERR_GETTEMPPATH: (
        UnreadableFileError,
        "there is no folder for temporary files that can be written to: name one in SQLITE_TMPDIR",
    ),
    sqlite3.SQLITE_INTERRUPT: (LimitError, "it takes more work to read than any log: it was not made by this package"),
    sqlite3.SQLITE_TOOBIG: (
        LimitError,
        f"it holds a row of more than {LARGE_BYTES >> 10} KiB: read on after that row with `after_id`",
    ),
    sqlite3.SQLITE_FULL: (
        UnreadableFileError,
        "make room in the folder of the log, and in that for temporary files, or name another one in SQLITE_TMPDIR",
    ),
    sqlite3.SQLITE_ERROR: (CorruptFileError, "it holds something that no log holds"),
}


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Turn each error of SQLite inside the `with` block into the error class of its condition."""
    try:
        yield
    except LostFileError as error:
        message = f"{path!r}: this process was forked in the middle of a query on it: start the process with spawn"
        raise UnreadableFileError(message) from error
    except sqlite3.Error as error:
        raise_named(path, error)


def raise_named(path: str, error: sqlite3.Error) -> NoReturn:
    """Raise the error class of the condition. An error of the `sqlite3` module has no code, and is raised unchanged."""
    code = primary_code(error)
    if not code:
        raise error
    kind, advice = _NAMED.get(error.sqlite_errorcode) or _NAMED.get(code, (LogFileError, "it cannot be read"))
    raise kind(f"{path!r}: {advice} ({error})") from error


def require_file(path: str) -> os.stat_result:
    """
    Return what the system says of the file at `path`, and raise an error if there is none.

    SQLite's errors say less, and opening a pipe may take for ever.
    """
    try:
        status = os.stat(path)
    except PermissionError as error:
        kind, advice = _NAMED[sqlite3.SQLITE_PERM]
        raise kind(f"{path!r}: {advice} ({error.strerror})") from error
    except (OSError, ValueError) as error:
        raise MissingFileError(f"{path!r} does not exist: {ADVICE}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableFileError(f"{path!r} is a folder: name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError(f"{path!r} is a device, a pipe or a socket: {ADVICE}")
    return status


def _bytes_at(path: str) -> int:
    """Return the size of a file by its blocks, because a hole takes no work to make; 0 if it was moved away."""
    try:
        status = os.stat(path)
    except OSError:
        return 0
    blocks = getattr(status, "st_blocks", 0)  # some file systems tell none
    # A file system that compresses keeps a log in a tenth.
    return min(status.st_size, 10 * 512 * blocks) if blocks else status.st_size


class Opened(NamedTuple):
    """
    A log that is open for reading, and the budget for questions about it.

    `notice` is for the user, if there is one. With `immutable`, the connection does not see later writes.
    """

    connection: Connection
    budget: Budget
    notice: str | None
    immutable: bool


def open_log(path: str, *, timeout: float = 5.0) -> Opened:
    """Open the log at `path` for reading; `timeout` is in seconds. Raises as `LogReader`."""
    require_file(path)
    # SQLite has its -wal beside the file to which a link leads.
    real = os.path.realpath(path)
    refuse_long(real)
    immutable = _would_leave_files(real)
    with named_errors(path):
        try:
            opened = _connect(path, timeout, immutable=immutable)
        except sqlite3.OperationalError as error:
            require_file(path)  # it may have been moved away meanwhile
            # A journal has to be rolled back, which the main file alone cannot tell.
            alone = os.access(real, os.R_OK) and not os.path.exists(real + "-journal")
            if immutable or primary_code(error) not in _READ_ONLY_FAILED or not alone:
                raise
            # In WAL mode, SQLite makes a -shm beside the file, and may not do that here.
            immutable = True
            opened = _connect(path, timeout, immutable=True)
    if immutable and size_of(real + "-wal"):
        opened = opened._replace(
            notice=f"{path!r} is read without its -wal, so the newest rows are left out: you must be allowed to "
            "read it and the -shm, and while no program has them open, own the log and be allowed to write to its "
            "folder. Copy the log and its -wal to a folder of your own to see these rows"
        )
    return opened


def _would_leave_files(real: str) -> bool:
    """
    Tell whether SQLite would make a -wal or -shm here that stays, and to which the log's owner may not write.

    They get the mode of the log and belong to the reader, unless that is root. The program could not log any more.
    """
    if not hasattr(os, "geteuid") or all(os.path.exists(real + end) for end in ("-wal", "-shm")):
        return False
    with suppress(OSError):
        log, folder = os.stat(real), os.stat(os.path.dirname(real))
        group = folder.st_gid if folder.st_mode & stat.S_ISGID else os.getegid()
        shared = log.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if group == log.st_gid else 0))
        if shared or os.geteuid() in {0, log.st_uid}:
            return False
        # No connection of this process has the file open in WAL mode, so closing it here takes no locks away from one.
        with open(real, "rb") as file:
            # https://sqlite.org/fileformat2.html#file_format_version_numbers
            return file.read(20)[18:] == b"\2\2"
    return False


def _connect(path: str, timeout: float, *, immutable: bool = False) -> Opened:
    connection = connect_read_only(path, timeout=timeout, immutable=immutable)
    try:
        require_file(path)  # as above
        budget = Budget(connection, path, partial(_bytes_at, path))
        require_log(connection, budget, path)
    except BaseException:
        connection.close()
        raise
    return Opened(connection, budget, None, immutable)


def require_log(connection: Connection, budget: Budget, path: str) -> None:
    """Refuse a file that is not a log, or not one any more."""
    with connection.in_use():
        ours = is_small_log(connection, path, advice=ADVICE)
    if not ours:
        raise EmptyFileError(f"{path!r} is an empty database: no log was written to it yet")
    budget.renew()
    budget.allow_more(LONG_BYTES)  # an owner may have added a view of any length
    with connection.in_use(), budget:
        require_schema(connection, path)
