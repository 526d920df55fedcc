"""
The file: how to open it, follow it, move it aside and close it, through all that can happen to it meanwhile.

Theory of operation
===================

`LogFile` owns the connection and the lock beside the file (see `_logfile.write_lock`). The writer calls `open` before
each commit. It looks at the path by `os.stat`, and opens anew what was moved, replaced or cut since the last commit.
`close` looks as well, and writes the WAL back: SQLite does so for the last one to close only, and for no moved file.

Guarantees
==========

- The package opens the file, its -wal and its -shm through SQLite only. To open and close one of them by other means
  would drop SQLite's POSIX locks (https://sqlite.org/howtocorrupt.html, section 2.2). The one exception is the file
  that `os.open` creates, because no process has that open yet.
- The package never writes to a foreign file. It moves a log aside that is corrupt or has lost its end, and never
  deletes it.
- A path that is a symbolic link stands for the file to which it led when that was opened. SQLite's -wal and -shm, the
  lock and the names of files moved aside belong to that file's own path. The next commit follows a switched link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable

from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.connect import (
    BOUND_CACHE,
    LONGEST_NAME,
    as_text,
    close,
    connect_read_only,
    descriptors_of,
    full,
    identity_of,
    is_corrupt,
    is_full,
    is_ours,
    is_removed,
    primary_code,
    refuse_long,
    refuse_lost,
    require_files,
    size_of,
    uri_of,
)
from sqlite_log_handler._logfile.errors import ForeignFileError, LogFileError
from sqlite_log_handler._logfile.forks import LostFileError
from sqlite_log_handler._logfile.schema import APPLICATION_ID, SCHEMA
from sqlite_log_handler._logfile.typed import NamedTuple, T
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write.retention.limits import PAGE_BYTES, Limits

CLOSE_TIMEOUT = 1.0  # seconds for the lock when the file is closed: without it, the last rows stay in the -wal
_SMALLEST_PAGE = 512  # https://sqlite.org/fileformat2.html#pages
_SHM_BYTES = 32_768  # by which SQLite makes a -shm longer
_NEW_SHM_BYTES = 3  # https://sqlite.org/src/file/src/os_unix.c
_NEW_JOURNAL_BYTES = 512  # its header alone: a process that was killed while it made the tables leaves that
_DESCRIPTORS = 5  # for the file, its -wal, its -shm, its -journal and its folder
_NEW_FILES = 2  # the -wal and the -shm; the -journal comes before them and goes

# Whether the system tells what this process may do, and not only what its real user may.
_EFFECTIVE = os.access in os.supports_effective_ids

# Faults that may pass while the program runs: a locked file, and a disk or a table of the system that is full.
_PASSING_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_PASSING_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}

# A connection may keep failing with these where a new one would not, see `roll_back`.
_SPENT = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL}

# SQLite counts these among the errors of a disk: a file system that has no locks, or no shared memory.
_LASTING = ("LOCK", "RDLOCK", "CHECKRESERVEDLOCK", "SHMLOCK", "SHMMAP")
_LASTING_CODES = {getattr(sqlite3, f"SQLITE_IOERR_{name}") for name in _LASTING}


class _Files(NamedTuple):
    """The files of a connection as (device, inode); None for one that is not there."""

    file: tuple[int, int] | None = None  # at the handler's path
    real: object = None  # where the links in it led
    shm: object = None
    wal: object = None


class LogFile:
    """
    The database at the absolute `path`, or behind a link there, and the connection that writes to it.

    It waits for `busy_timeout` seconds for the lock beside the file, and then for SQLite's lock. That is half a flush
    tick at most, because nothing ends SQLite's wait, not even `Connection.interrupt`.
    """

    def __init__(self, path: str, *, busy_timeout: float, limits: Limits, say: Callable[[str], None]) -> None:
        self.path = path
        self._busy_timeout = busy_timeout
        self._limits = limits
        self._say = say
        self._said_mode = self._said_lost = False
        self._lock = WriteLock(path, say=say)
        self.real = self._lock.real
        self._reset()

    def _reset(self) -> None:
        self.connection: sqlite3.Connection | None = None
        self._files = _Files()
        self._descriptors: dict[int, object] = {}  # those of the connection, and what each is open on
        self._looked_at: tuple[int, ...] | None = None  # what the last look found to be a log

    def forget(self, cut_off: int | None) -> None:
        """
        Start anew in a forked child.

        A connection that is still open is the parent's: this fork ran none of Python's hooks. To close it only takes
        the parent's POSIX locks off SQLite's list, and the locks that the parent still holds keep SQLite from changing
        the WAL. But if a thread was in a commit (`cut_off`), that list says that this process holds those locks, so it
        never opens the file again. If it was this very thread, its commit must not go on.
        """
        self._lock.close()
        lost = cut_off is not None
        if lost:
            forks.lost.update({identity_of(self.path), self._files.file} - {None})
        if self.connection is not None:
            if cut_off == threading.get_ident():
                self.connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
            if lost or forks.stuck:
                forks.keep_open(self.connection)
            else:
                self.connection.close()
        self._reset()

    def do(self, work: Callable[[], T]) -> T:
        """
        Do `work` under the lock beside the file, and return what it returns.

        Raises as `WriteLock.hold`, LostFileError if we may not open the file, and as SQLite where `is_full`.
        """
        refuse_lost(self.path)
        if is_full(self.path):
            if self.connection is not None and is_removed(self._files.file):
                # It gives its room back, and SQLite does not write back into such a file.
                connection, self.connection = self.connection, None
                connection.close()
            raise full()
        try:
            with self._lock.hold(self._busy_timeout):
                return work()
        except BaseException:
            self._lock.release()  # what a signal handler raised into the frames of `contextlib` leaves it taken
            raise

    def open_first(self) -> None:
        """Open the file for a new handler. Permanent errors raise LogFileError; the listener meets transient ones."""
        try:
            # Before the lock, because a refused file must get no lock file beside it.
            require_files(self.path)
            refuse_long(self.real)
            _refuse_read_only(self.real)
            self._look()
            self.do(self.open)
        except BaseException as error:
            self._lock.close()
            if not isinstance(error, (sqlite3.Error, OSError)):  # a LogFileError, or a signal handler's
                raise
            if _passes(error, self.real):
                return
            raise LogFileError(
                f"{self.path!r} cannot be opened as a log ({error}): make it and its folder writable, or choose another"
            ) from error

    def open(self, *, again: bool = True) -> sqlite3.Connection:
        """
        Open the file, or create it, under the lock. Return a new connection if the path leads to another file now.

        If it is moved meanwhile, open it `again`, once: a file system may not keep the numbers of its files.

        Raises:
            LogFileError: The file is foreign or too new, or no file.
            OSError, sqlite3.Error: We cannot open it now; a later call may succeed, unless it is a LostFileError.
        """
        self._check_descriptors()
        if self.connection is not None:
            files, size = self._stat(self.path)
            if self._files != files:
                # Unlinked, renamed or replaced: rows would go into a file that nobody finds.
                self._leave()
            elif size < _SMALLEST_PAGE:
                # logrotate does so with `copytruncate`. SQLite goes on with its WAL and its cache.
                self._move_aside("it was cut to nothing while it was open")
            else:
                return self.connection
        require_files(self.path)
        self.real = self._lock.follow(self._busy_timeout)
        _refuse_read_only(self.real)
        self._look()
        self._keep_left_files()  # before there is an empty file, for which a reader would delete the -wal
        _create(self.real)
        before, _ = self._stat(self.real)
        found, others = before.file, descriptors_of(before)
        self._keep_left_files()  # if somebody has just moved the file
        # If somebody has moved the file by now, SQLite would make a new one for everybody to read.
        uri = f"{uri_of(self.real)}?mode=rw"
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=32,
        )
        connection.text_factory = as_text
        if again and (found is None or found != identity_of(self.real)):
            # SQLite has read nothing yet. If the file that it has open is empty, it would delete the other one's -wal.
            connection.close()
            return self.open(again=False)
        try:
            self._prepare(connection)
            # The first read opens the -wal and the -shm, so that `_stat` finds them.
            connection.execute("SELECT max(id) FROM records").fetchone()
            refuse_lost(self.path)
        except LostFileError:  # a signal handler has forked since this call began
            forks.keep_open(connection)
            raise
        except BaseException as error:
            connection.close()
            if not is_corrupt(error) or found != identity_of(self.real):
                raise
            self._move_aside(error)
            return self.open()
        # By its own path: the next commit finds out whether a link was switched meanwhile.
        files, _ = self._stat(self.real)
        if again and files.file != found:
            # SQLite writes no WAL back into a file that was moved, and this process has written none.
            connection.close()
            return self.open(again=False)
        self.connection, self._files, self._descriptors = connection, files, descriptors_of(files)
        new = {at: file for at, file in self._descriptors.items() if file != others.get(at)}
        if files.file in new.values():  # else SQLite had kept one for it, as it does beside a reader
            self._descriptors = new
        return connection

    def _check_descriptors(self) -> None:
        """
        Never use the file again if the program has closed SQLite's descriptors and given their numbers to its files.

        SQLite would write into those, and close them; so it may if the system has not told which are SQLite's. One that
        is only closed may be given away while a commit waits: then the connection is made anew.

        Raises:
            LostFileError: The path leads to that file.
        """
        if self.connection is None or not self._lock.lost:
            return  # the lock's descriptor goes with the others
        self._lock.lost = False
        now = {at: identity_of(at) for at in self._descriptors}
        if not now or any(now[at] not in {file, None} for at, file in self._descriptors.items()):
            forks.lost.update({self._files.file} - {None})
            forks.keep_open(self.connection)
            self.connection, self._files = None, _Files()
            refuse_lost(self.path)
        elif None in now.values():
            self._close()

    def _leave(self) -> None:
        """
        Close a file that is not at its path any more, and take its WAL along.

        The -wal of a moved file stays, and SQLite would apply it to the file that comes in its place
        (https://sqlite.org/howtocorrupt.html, section 1.4). So this writes it back into the file that we still have
        open, or moves it aside. If only a link was switched, the -wal is beside its own file, and stays.
        """
        if identity_of(self.real + "-wal") not in {None, self._files.wal} and self._is_there() and not self._said_lost:
            self._said_lost = True
            self._say("its -wal was removed and made anew while it was open: the last rows may be missing")
        self._write_back()
        self._close()
        if self._files.wal is None or self._is_there():
            return
        # Another process may still have the old file open, and these with it. A new file must not share them.
        if identity_of(self.real + "-shm") == self._files.shm:
            _remove(self.real + "-shm")
        wal = self.real + "-wal"
        # A process that has opened the path since may have moved it aside, see `_keep_left_files`.
        at = wal if identity_of(wal) == self._files.wal else _left_at(os.path.dirname(wal), self._files.wal)
        if not size_of(at):
            _remove(at)
        elif at == wal:
            aside = self._rename_aside("left", ["-wal"]) + "-wal"
            self._say(f"the file was moved or replaced, and its WAL could not be written back: kept as {aside!r}")

    def _keep_left_files(self) -> None:
        """
        Move aside what stands beside a file that is not there, or empty, because SQLite would delete or overwrite it.

        Somebody may have moved the file of a killed process away, and its last rows are in the -wal. Or another program
        has files of such names.
        """
        with contextlib.suppress(FileNotFoundError):  # another error does not tell
            if os.stat(self.real).st_size:
                return
        sizes = {end: size_of(self.real + end) for end in ("-wal", "-journal", "-shm")}
        if sizes["-shm"] % _SHM_BYTES == 0 or sizes["-shm"] == _NEW_SHM_BYTES:
            del sizes["-shm"]  # says nothing without its -wal
        ends = [end for end, size in sizes.items() if size not in (0, _NEW_JOURNAL_BYTES)]
        if ends:
            aside = self._rename_aside("left", ends)
            self._say(f"{' and '.join(ends)} without the file: kept as {aside + ends[0]!r}")
        # What is left is empty, or the index of another file's WAL, which a new file must not share.
        _remove(self.real + "-wal")
        _remove(self.real + "-shm")

    def _look(self) -> None:
        """Refuse a foreign file. Reads only, because opening it for writing may change it."""
        try:
            stat = os.stat(self.real)
        except OSError:
            return
        state = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
        if not stat.st_size or state == self._looked_at:
            return
        has_wal = size_of(self.real + "-wal")  # now, because another process may make a log of it meanwhile
        try:
            # Without its WAL, because SQLite makes a -shm to read that. The first page says enough.
            with contextlib.closing(connect_read_only(self.real, immutable=True)) as reading:
                found = is_ours(reading, self.path)
        except (ForeignFileError, sqlite3.Error) as error:
            if isinstance(error, ForeignFileError) and error.__cause__ is None:
                raise
            self._look_under_locks()
            return
        # An empty file becomes a log in one step, see `_prepare`. So this WAL has tables of another program. And SQLite
        # takes a file of one byte for an empty one, and would write over it.
        if not found and (has_wal or stat.st_size < _SMALLEST_PAGE):
            message = f"{self.path!r} is a file of another program: choose another filename, or move it"
            raise ForeignFileError(message)
        self._looked_at = state if found else None

    def _look_under_locks(self) -> None:
        """Look again at a file that is corrupt, or whose first pages another process writes, or died writing."""
        with contextlib.closing(connect_read_only(self.real, timeout=self._busy_timeout)) as reading:
            try:
                is_ours(reading, self.path)
            except sqlite3.DatabaseError as error:
                if primary_code(error) == sqlite3.SQLITE_READONLY:
                    # A killed process has left a journal. Opening the file rolls it back, and `_prepare` looks again.
                    return
                # With it, SQLite reads the header even of a file that has lost its end.
                reading.execute("PRAGMA writable_schema = ON")
                if not is_corrupt(error) or reading.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                    raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if not is_ours(connection, self.path):
            # So that the first page tells other processes that this is a log, without its WAL.
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            # Before the first table, and before WAL: afterwards it is ignored (https://sqlite.org/pragma.html).
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have been faster.
            if not is_ours(connection, self.path):
                for statement in SCHEMA.split(";\n"):  # `executescript` would commit first
                    connection.execute(statement)
            connection.execute("COMMIT")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal" and not self._said_mode:
            self._said_mode = True
            self._say(f"no WAL on this file system, journal mode {mode!r}: readers and the writer wait for each other")
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        # In WAL mode a power cut costs the last commits, never the file (https://sqlite.org/pragma.html#pragma_synchronous).
        # A commit must need no folder for temporary files, which may be read-only or full: SQLite would put the journal
        # of a statement there when it has changed 64 KiB of old pages (https://sqlite.org/tempfiles.html).
        connection.executescript(f"""
            {BOUND_CACHE};
            PRAGMA temp_store = MEMORY;
            PRAGMA synchronous = NORMAL;
            PRAGMA journal_size_limit = {self._limits.wal_bytes};
            PRAGMA wal_autocheckpoint = {self._limits.checkpoint_pages(page_size)};
        """)

    def close(self, timeout: float) -> None:
        """
        Close the connection, and write the WAL back if we get the lock; a moved file is worth more than the `timeout`.

        SQLite writes it back only when nobody else has the file open.
        """
        try:
            if self.connection is not None:
                is_moved = self._files != self._stat(self.path)[0]
                with self._lock.hold_if_free(CLOSE_TIMEOUT if is_moved else max(timeout, self._busy_timeout)) as held:
                    self._check_descriptors()
                    if held and is_moved:
                        self._leave()
                    elif is_moved or held:
                        self._write_back()
                    self._close(keep_wal=not held)
        finally:
            self._lock.close()

    def _write_back(self) -> None:
        """
        Write the WAL back on this thread: a slow disk must not hold up another one that closes the file.

        A file that has no name any more may have been copied, as logrotate's `compress` does. The copy gets nothing of
        what is written back, so the -wal is kept.
        """
        if self.connection is not None and not (self._is_nameless() or self._has_lost_shm() or is_full(self.real)):
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _has_lost_shm(self) -> bool:
        """Tell whether the -shm, or the -wal, that stands beside the file is not that of the connection."""
        shm, wal = identity_of(self.real + "-shm"), identity_of(self.real + "-wal")
        if wal == self._files.wal:  # also if the file was moved; but if there is no other -shm, all have that of ours
            return shm != self._files.shm and (shm is not None or self._is_there())
        return wal is not None and self._is_there()

    def _is_nameless(self) -> bool:
        """Tell whether another file is in the place of the one that the connection has open, and that has no name."""
        with contextlib.suppress(OSError):
            os.stat(self.real)  # somebody who removes the log, and puts nothing in its place, wants no copy of it
            return is_removed(self._files.file)
        return False

    def _is_there(self) -> bool:
        return identity_of(self.real) == self._files.file

    def _close(self, *, keep_wal: bool = False) -> None:
        """Close the connection. If its -shm was removed, it must leave the WAL, to which others may have added."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if not self._is_there() and (self._files.file or ())[1:] == (identity_of(self.real) or ())[1:]:
            # Another file system was mounted over the folder. SQLite compares inode numbers alone, and would delete the
            # -wal of a file that is not ours.
            forks.keep_open(connection)
            return
        lost = self._has_lost_shm()
        keep_wal = (keep_wal or lost) and self._is_there()  # else SQLite does not write it back
        close(connection, self.real, keep_wal=keep_wal, or_never=lost, timeout=self._busy_timeout)

    def roll_back(self, error: BaseException) -> None:
        """End a transaction that failed with `error`; close a connection, or move aside a file, that is useless now."""
        connection = self.connection
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # A new connection finds the file as the last commit left it.
            self._close()
        corrupt = is_corrupt(error)
        if corrupt and self._files == self._stat(self.path)[0]:
            self._move_aside(error)
        elif corrupt or primary_code(error) in _SPENT:
            # Another process has moved the corrupt file aside, and begun a new one at the path. Or the file was
            # read-only when it was opened, or the program has closed its descriptors, and the connection stays so.
            self._close()

    def _move_aside(self, why: object) -> None:
        """Keep a corrupt file, which a person may mend, and start anew at the next commit."""
        self._close()
        aside = self._rename_aside("corrupt", [end for end in ("", "-wal", "-shm") if os.path.exists(self.real + end)])
        self._say(f"corrupt ({why}): moved aside as {aside!r}, a new file is begun")

    def _rename_aside(self, why: str, ends: list[str]) -> str:
        """Rename the files of these endings, replacing none, and return the name that they share."""
        folder, name = os.path.split(self.real)
        suffix = time.strftime(f".{why}-%Y%m%dT%H%M%SZ", time.gmtime())
        while True:
            # The name may be as long as the file system allows.
            short = os.fsdecode(os.fsencode(name)[: LONGEST_NAME - len(suffix)])
            aside = os.path.join(folder, short + suffix)
            if not any(os.path.lexists(aside + end) for end in ends):
                break
            suffix += "+"
        for end in ends:
            os.replace(self.real + end, aside + end)
        return aside

    def _stat(self, path: str) -> tuple[_Files, int]:
        """Return the identity of `path` and of the files that the connection has open, and the size."""
        try:
            found = os.stat(path)
        except OSError:
            return _Files(), 0
        file = found.st_dev, found.st_ino
        # The file may have been moved away from its -wal, and the link made to follow it.
        real = file if self.real == self.path else identity_of(self.real)
        return _Files(file, real, identity_of(self.real + "-shm"), identity_of(self.real + "-wal")), found.st_size


def _passes(error: BaseException, path: str) -> bool:
    """Tell whether the fault that keeps us from opening the file may pass."""
    if isinstance(error, (TimeoutError, LostFileError)):
        return True
    code = primary_code(error)
    if code == sqlite3.SQLITE_CANTOPEN:
        return not _has_room(path)  # SQLite does not say why; and it may just have been moved
    passing = code in _PASSING_CODES and getattr(error, "sqlite_errorcode", 0) not in _LASTING_CODES
    return passing or getattr(error, "errno", None) in _PASSING_ERRORS


def _has_room(path: str) -> bool:
    """Tell whether `path` is there, and this process and the file system can take SQLite's files beside it."""
    with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
        for _ in range(_DESCRIPTORS):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        if not hasattr(os, "statvfs"):  # Windows
            return os.path.exists(path)
        found = os.statvfs(path)
        return not found.f_files or found.f_favail >= _NEW_FILES
    return False


def _refuse_read_only(path: str) -> None:
    """Refuse a file that this process may not write to: SQLite would open it read-only and leave a -wal beside it."""
    # We ask twice, because another process may move it aside meanwhile.
    if os.path.exists(path) and not os.access(path, os.W_OK, effective_ids=_EFFECTIVE) and os.path.exists(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _left_at(folder: str, wal: object) -> str:
    """Return the path of a WAL, given as (device, inode), that was moved aside in its folder; '' if it is not there."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if ".left-" in name and identity_of(path) == wal:
                return path
    return ""


def _create(path: str) -> None:
    """Create an empty file, if there is none, for its owner only: logs hold secrets. The -wal and -shm get its mode."""
    with contextlib.suppress(FileExistsError):
        # In one step, see `_logfile.locks`.
        (descriptor,) = map(os.open, (path,), (os.O_CREAT | os.O_EXCL | os.O_RDWR,), (0o600,))
        try:
            # The umask may have taken rights of the owner; some shared folders refuse.
            with contextlib.suppress(OSError, AttributeError):  # Windows has none
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
