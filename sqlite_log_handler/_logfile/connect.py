"""
Open a file, and tell whether it is a log. This creates no file, and runs nothing that stands in one.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sqlite3
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache, partial
from itertools import chain

from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.errors import (
    CorruptFileError,
    ForeignFileError,
    LimitError,
    LogFileError,
    NewerSchemaError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.schema import APPLICATION_ID, SCHEMA, USER_VERSION
from sqlite_log_handler._logfile.typed import Any
from sqlite_log_handler._logfile.write_lock import STDERR

# Kept, because the builtin is gone when the interpreter frees global objects, whose `__del__` may log.
open_file = open

# For texts that are damaged, or were made by others: the default raises an error at one that is not UTF-8.
as_text = partial(str, encoding="utf-8", errors="replace")

_FREE_THREADED = "free-threading" in sys.version  # also when a module has turned the GIL on again

# SQLite adds `-journal` to a path. In bytes; https://sqlite.org/src/file/src/os_unix.c has the second.
LONGEST_NAME = 255 - len("-journal")
_LONGEST_PATH = 512 - len("-journal")

_MOST_DESCRIPTORS = 65_536  # to look at so many takes 70 ms

# Free bytes that `is_full` asks for, so that a commit ends before another program has taken them; of a small disk it is
# this part.
_ROOM = 16 << 20
_PART = 32

# The number of the rowid among the columns of an index; an expression has a lower one.
_ROWID = -1


def identity_of(path: str | int, unseen: type[OSError] = OSError) -> tuple[int, int] | None:
    """Return (device, inode) of a path or a descriptor; None if looking at the file raises `unseen`."""
    try:
        stat = os.stat(path)
    except unseen:
        return None
    return stat.st_dev, stat.st_ino


def size_of(path: str) -> int:
    """Return the size of a file, 0 if it can't be seen."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def is_removed(file: object) -> bool:
    """Tell whether a file that this process has open, given as (device, inode), has no name any more."""
    with contextlib.suppress(OSError):  # another thread has closed one of its descriptors meanwhile
        return any(not os.fstat(at).st_nlink for at in descriptors_of({file}))
    return False


def descriptors_of(files: Collection[object]) -> dict[int, object]:
    """
    Return the descriptors that this process has open on these files, and on which.

    The system may not list them: without /proc, or when no descriptor is left to read the list with. FreeBSD may list
    the first three alone.
    """
    numbers: Sequence[int] = ()
    with contextlib.suppress(OSError):
        numbers = [*map(int, os.listdir("/dev/fd"))]
    if max(numbers, default=0) <= STDERR:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows
            numbers = range(min(os.sysconf("SC_OPEN_MAX"), _MOST_DESCRIPTORS))
    return {at: file for at in numbers if (file := identity_of(at)) and file in files}


def refuse_lost(path: str) -> None:
    """
    Refuse a file that this process must not open, because its parent was using it at the fork.

    Raises:
        LostFileError: It was.
    """
    forks.settle()
    if forks.stuck or (forks.lost and identity_of(path) in forks.lost):
        raise forks.LostFileError(
            "this process must not open the file: it was forked while its parent wrote to it, or has closed SQLite's "
            "descriptors: start it with spawn, or make the handler afterwards"
        )


def is_full(path: str) -> bool:
    """
    Tell whether SQLite must leave the file at `path` alone, because its file system is full and copies on write.

    SQLite has the -shm mapped into memory. btrfs writes a page that was changed to a new place, and a store into memory
    has no error to return if there is none: the system kills the process (SIGBUS).
    """
    try:
        try:
            found = os.statvfs(path)
        except FileNotFoundError:
            found = os.statvfs(os.path.dirname(os.path.realpath(path)))
    except (AttributeError, OSError):  # Windows has none
        return False
    # Such a file system has no fixed number of inodes. Where nothing can be written, SQLite only reads the -shm.
    if found.f_files or found.f_flag & os.ST_RDONLY:
        return False
    return found.f_bavail * found.f_frsize < min(_ROOM, found.f_blocks * found.f_frsize // _PART)


def refuse_full(path: str) -> None:
    """Raise an error where `is_full`."""
    if is_full(path):
        raise full()


def full() -> sqlite3.OperationalError:
    """Return an error as SQLite raises it when a disk is full."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def refuse_long(path: str) -> None:
    """Refuse a path to which SQLite cannot add `-journal`: it would only say that it cannot open the file."""
    name, whole = len(os.fsencode(os.path.basename(path))), len(os.fsencode(path))
    if os.name == "posix" and (name > LONGEST_NAME or whole > _LONGEST_PATH):
        raise LogFileError(
            f"{path!r}: the name has {name} bytes and the path {whole}, and SQLite takes {LONGEST_NAME} and "
            f"{_LONGEST_PATH}: choose a shorter one"
        )


# The end of a journal that names another file (https://sqlite.org/atomiccommit.html#_multi_file_commit).
_NAMED = bytes.fromhex("d9d505f920a163d7")


def require_files(path: str) -> None:
    """
    Refuse a log that is not a file, or has something else in the place of one of SQLite's files beside it.

    So is a journal of a stranger that names another file: SQLite deletes that file when it has rolled back the journal.
    """
    real = os.path.realpath(path)
    for name in (real, real + "-journal", real + "-wal", real + "-shm"):
        # One look, because another process may delete the -wal and the -shm between two.
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.stat(name).st_mode):
                message = f"{name!r} is not a file, and SQLite would wait for it or write to it: move it"
                raise UnreadableFileError(message)
    # Not through a link: to close a file takes away SQLite's locks on it, and a link may lead to a database of ours.
    flags = getattr(os, "O_NOFOLLOW", 0)  # not on Windows
    with (
        contextlib.suppress(OSError),
        open_file(real + "-journal", "rb", opener=lambda name, mode: os.open(name, mode | flags)) as journal,
    ):
        journal.seek(-len(_NAMED), os.SEEK_END)
        if journal.read() == _NAMED:
            raise UnreadableFileError(f"{journal.name!r} names a file that SQLite would delete: move the journal away")


# A log has 20 objects in its schema. Somebody may add one with a text of _MORE_BYTES, or several with shorter ones:
# SQLite keeps all of them in memory, in up to 75 bytes for each byte of text, and takes some _STEPS to read one.
_OBJECTS = 20
_MORE_OBJECTS = (40, 12, 3, 1)
_MORE_BYTES = 48 * 1024
_STEPS = 8

# Of something that a newer SQLite has added, and what 3.40 says of an index or a generated column with a function that
# not everybody's file may call; newer ones take that. Compiled when it is used, because each program imports this.
_REFUSED = r"(?s)malformed database schema \((.*)\) - (?:near|unrecognized token|unsafe use of)\b"

# What SQLite takes without being told. A file can hold another number for all who open it, with `default_cache_size`.
BOUND_CACHE = "PRAGMA cache_size = -2000"


def uri_of(path: str) -> str:
    """
    Return a path as a URI in which SQLite finds no parameters (https://sqlite.org/uri.html).

    `Path.as_uri` quotes more, and `pathlib` takes as long to import as our whole writing half.

    >>> uri_of("/var/log/100%?.db")
    'file:///var/log/100%25%3F.db'
    """
    path = os.path.abspath(path)
    if os.name == "nt":
        path = path.replace("\\", "/")
        if path[1:2] == ":":  # a drive, and not the name of a host
            path = f"/{path}"
    return "file://" + path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def primary_code(error: BaseException) -> int:
    """
    Return the primary result code of SQLite, which is the low byte (https://sqlite.org/rescode.html).

    Errors of the `sqlite3` module itself have no code; for them it is 0, SQLITE_OK.
    """
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_corrupt(error: BaseException) -> bool:
    """Tell whether SQLite has found that a file is not as it wrote it."""
    return primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def corrupt(why: str) -> sqlite3.DatabaseError:
    """Return an error as SQLite raises it, for damage that SQLite does not notice."""
    error = sqlite3.DatabaseError(why)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def connect_read_only(path: str, *, timeout: float = 5.0, immutable: bool = False) -> forks.Connection:
    """
    Open `path` so that we can neither change it nor run anything that stands in it.

    Args:
        path: The file.
        timeout: Seconds to wait for a lock.
        immutable: Take no lock and ignore a -wal, which is right for a file to which nobody writes.

    Raises:
        sqlite3.OperationalError: There is no file, or we may not read it.
        UnreadableFileError: See `require_files`.
        LostFileError: See `refuse_lost`.
    """
    return _connect(path, "mode=ro&immutable=1" if immutable else "mode=ro", timeout, "PRAGMA query_only = ON")


def connect_read_write(path: str, *, timeout: float) -> forks.Connection:
    """Open an existing file for reading and writing; `timeout` is in seconds. Raises as `connect_read_only`."""
    connection = _connect(path, "mode=rw", timeout)
    connection.text_factory = as_text
    return connection


def close(
    connection: sqlite3.Connection, path: str, *, keep_wal: bool, or_never: bool = False, timeout: float = 5.0
) -> None:
    """
    Close a connection to the file at `path`, and leave the WAL as it is if `keep_wal`: the next connection reads it.

    A connection writes the WAL back and deletes it when it gets an exclusive lock on the file. Ours gets none while
    a second one is open, and that gets none, because it may only read. If no second one can be opened, because there is
    no descriptor left, ours is closed all the same, or stays open if `or_never`. Where the disk `is_full`, the WAL is
    left as it is, for which ours stays open before Python 3.12.
    """
    if is_full(path):
        if sys.version_info < (3, 12):
            forks.keep_open(connection)
            return
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        keep_wal = False
    refused = (sqlite3.Error, OSError, LogFileError)
    try:
        with contextlib.ExitStack() as stack:
            if keep_wal:
                with contextlib.suppress(*(() if or_never else refused)):
                    reading = connect_read_only(path, timeout=timeout)
                    stack.callback(reading.close)
                    # It gets its lock even if this fails, and even from a WAL that has become empty.
                    with contextlib.suppress(sqlite3.Error):
                        reading.execute("SELECT max(id) FROM records").fetchone()
            connection.close()
            if _FREE_THREADED:
                # While a statement is left, SQLite keeps the file open (https://sqlite.org/c3ref/close.html). An object
                # that one thread drops may stay until a collection: first the cache, then its statements.
                gc.collect()
                gc.collect()
    except refused:
        forks.keep_open(connection)


@contextlib.contextmanager
def without_triggers(connection: sqlite3.Connection, path: str, *, advice: str) -> Iterator[None]:
    """
    Write inside the `with` block, and run no trigger: the author of the file could have chosen what it does.

    Args:
        connection: The one that writes.
        path: The file, for the error.
        advice: What the user can do about a trigger, for the error.

    Raises:
        LogFileError: A trigger was to run.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    try:
        yield
    except sqlite3.OperationalError as error:
        if "trigger" not in str(error):  # "too many levels of trigger recursion", "triggers nested too deep"
            raise
        raise LogFileError(f"{path!r}: a trigger that somebody has added to it would run: {advice}") from error


def _connect(path: str, parameters: str, timeout: float, *pragmas: str) -> forks.Connection:
    require_files(path)
    refuse_lost(path)
    if "immutable" not in parameters:
        refuse_full(path)
    uri = f"{uri_of(path)}?{parameters}"
    make: Any = partial(forks.Connection, file=identity_of(path))
    connection: forks.Connection = sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False, factory=make
    )
    try:
        # The views of a stranger must not call functions (https://sqlite.org/pragma.html#pragma_trusted_schema).
        with getattr(connection, "in_use", contextlib.nullcontext)():  # a program may replace `sqlite3.connect`
            for pragma in ("PRAGMA trusted_schema = OFF", *pragmas):
                connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def is_ours(
    connection: sqlite3.Connection, path: str, *, advice: str = "choose another filename, or move that file away"
) -> bool:
    """
    Return True for a log of this package and False for an empty database; refuse everything else. Reads only.

    Args:
        connection: An open connection to the file.
        path: Its path, for the error.
        advice: What the user can do about a file of another program, for the error.

    Raises:
        ForeignFileError: The file is not an SQLite file, or belongs to another program.
        NewerSchemaError: A newer version of this package made the file.
        sqlite3.OperationalError: We cannot read the file now.
    """
    # In one transaction, which may be that of the caller: if another process is just making a log of the file, we see
    # nothing of that, or all. Not from `pragma_application_id`: a file may have a view of that name.
    connection.execute("SAVEPOINT header")
    try:
        application_id, user_version, tables = (
            connection.execute(sql).fetchone()[0]
            for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT EXISTS (SELECT 1 FROM sqlite_master)")
        )
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise ForeignFileError(f"{path!r} is not an SQLite database: {advice}") from error
        raise
    except UnicodeDecodeError as error:  # SQLite's text quotes the schema, and `sqlite3` raises this in its place
        raise corrupt("malformed database schema") from error
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE header")
    if application_id == APPLICATION_ID:
        if user_version > USER_VERSION:
            raise NewerSchemaError(
                f"{path!r} has schema version {user_version}, this sqlite-log-handler knows {USER_VERSION} at most: "
                "upgrade sqlite-log-handler, or choose another filename"
            )
        return True
    if application_id or tables:
        raise ForeignFileError(f"{path!r} is an SQLite database of another program: {advice}")
    return False


def is_small_log(connection: sqlite3.Connection, path: str, *, advice: str) -> bool:
    """
    Do the same for a file from elsewhere, and raise a LimitError for a schema that is to fill the memory, and an
    UnreadableFileError if this SQLite cannot read it for something that somebody has added.

    It leaves bounds on values and steps behind: set your own. The cache is bounded from then on.
    """
    for more in _MORE_OBJECTS:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MORE_BYTES // more)
        # Not in Python, where a signal handler may raise, which `sqlite3` drops.
        connection.set_progress_handler(partial(bool, True), (_OBJECTS + more) * _STEPS)  # noqa: FBT003 - of `bool`
        try:
            ours = is_ours(connection, path, advice=advice)
            connection.execute(BOUND_CACHE)
        except sqlite3.Error as error:
            refused = re.match(_REFUSED, str(error))
            if refused and refused[1] not in schema():
                raise UnreadableFileError(
                    f"{path!r}: SQLite {sqlite3.sqlite_version} cannot read the file for its {refused[1]!r}, which "
                    f"somebody has added: drop it, or read the file with a newer SQLite ({error})"
                ) from error
            if primary_code(error) not in {sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_TOOBIG}:
                raise
        else:
            return ours
    raise LimitError(
        f"{path!r}: somebody has added more or longer tables, views and indexes to it than {_MORE_OBJECTS[0]} of 1 KiB "
        f"or one of {_MORE_BYTES >> 10} KiB, and SQLite keeps all of them in memory: drop some"
    )


def require_schema(connection: sqlite3.Connection, path: str) -> None:
    """
    Refuse a file that has something else in the place of a table of a log. SQLite runs expressions in views, virtual
    tables, generated columns and indexes, and the author of the file could choose them.

    We compare the text of each object, because SQLite makes the object from nothing else.

    Raises:
        CorruptFileError: A table is missing or is another one.
        UnreadableFileError: Somebody has added an index to it that may run an expression.
    """
    # Somebody may have added a table with a name of any bytes, and a text that is damaged is another one.
    text_factory, connection.text_factory = connection.text_factory, as_text
    try:
        odd = _odd_tables(connection)
        indexes = [] if odd else [*chain.from_iterable(map(partial(_odd_indexes, connection), tables()))]
    finally:
        connection.text_factory = text_factory
    if odd:
        raise CorruptFileError(
            f"{path!r}: its {odd[0]!r} is not that of a log: the file was cut, or was not made by this package; "
            "`.recover` of the sqlite3 shell saves what can be saved"
        )
    if indexes:
        raise UnreadableFileError(
            f"{path!r}: its index {indexes[0]!r} has an expression, a collation, a WHERE or an odd name: drop it"
        )


def tables() -> dict[str, str]:
    """Return the text of each table of a log, and of the view `volume`, by name. The view `logs` is for people."""
    return {name: sql for name, sql in schema().items() if name != "logs" and not sql.startswith("CREATE INDEX")}


@cache
def schema() -> dict[str, str]:
    """Return the text of each object of a log, by name; SQLite's own indexes have none."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(SCHEMA)
        return dict(model.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def _odd_tables(connection: sqlite3.Connection) -> list[str]:
    found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    return [name for name, sql in tables().items() if sql not in found]


def _odd_indexes(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    for _, index, _, _, partial_index in connection.execute(f"PRAGMA index_list({table})").fetchall():
        quoted = index.replace('"', '""')
        columns = connection.execute(f'PRAGMA index_xinfo("{quoted}")').fetchall()
        # We cannot ask for an index whose name is not UTF-8.
        unknown = "\N{REPLACEMENT CHARACTER}" in index or partial_index
        if unknown or any(column < _ROWID or collation != "BINARY" for _, column, _, _, collation, _ in columns):
            yield index
