"""
The lock beside a log file. A process holds it while it writes to the file.

SQLite's own locks suffice for one process. If two processes commit and checkpoint at the same moment, a bug in SQLite
3.7.0 to 3.51.2 can corrupt the file (https://sqlite.org/wal.html#walresetbug), and most systems have such a version.
Readers do not need the lock: they open the file read-only and never checkpoint.

It is a `flock` on a file of its own. To lock the database, we would have to open and close it, which drops the POSIX
locks that SQLite holds on it (https://sqlite.org/howtocorrupt.html, section 2.2). A `flock` belongs to the open file,
not to the process, so two handlers of one process exclude each other too. The lock ends with the process, and with all
children of it that C code forked and that have not logged since: they have the same file open.

The file of the lock stands beside the database itself, as SQLite's -wal does, so a process that comes by a symbolic
link takes the same lock. `follow`, and opening the file of the lock, look up where a link leads. Until then the lock
stays that of the open database: if a link was switched, we close the old database under its own lock.

A `flock` is not fair: a process that releases it and comes back at once gets it again. With eight busy processes, one
waited for eight seconds. So the file holds a line with the holder, the process that has waited longest, since when, and
when it looked last. A process does not try while the line says that another has waited longer. We read and write the
line without a lock, because only the turns depend on it.

The program may close our descriptor, as daemons close all of them, and another file may get its number. So before each
use, we look whether it is still our file. We neither lock nor write to nor close a foreign one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from time import sleep  # gevent's, put there later, has another greenlet wait for a lock of this thread, for ever

try:
    import fcntl
except ImportError:  # Windows: there SQLite's own locks are all there is
    fcntl = None  # type: ignore[assignment]

from sqlite_log_handler._logfile.clock import monotonic

_PAUSE = 0.002  # seconds between two looks. A commit of a few rows takes 1 ms, one of a full batch 30 ms
_GONE = 100_000  # microseconds after which a process that waits loses its turn if it has not looked again

# Like SQLite, we use no descriptor up to this one: a daemon may have closed them, and would then print into the file.
STDERR = 2

# The holder, and then: the process that has waited longest, since when, and when it looked last (in microseconds of a
# clock that never jumps).
_HOLDER = b"%-10d "
_LINE = b"%-10d %-16d %-16d\n"
_AFTER_HOLDER = len(_HOLDER % 0)
_LENGTH = _AFTER_HOLDER + len(_LINE % (0, 0, 0))

_NOT_LOOKED = os.stat_result([0] * 10)

_NO_LOCKS_HERE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}  # on Linux the last two are one


class WriteLock:
    """
    The right to write to the log file at `path`.

        >>> lock = WriteLock("/var/log/app-log.db")
        >>> with lock.hold(0.05):
        ...     write_to_it()
        >>> lock.close()

    Args:
        path: Absolute path of the database, or of a link to it. The lock's file has the database's name with "-lock",
            and stays: if we deleted it, two processes could hold two locks.
        users_of: Path of the file whose users may take the lock; the database, unless this is another lock.
        say: Called once with a line for the operator if the file system has no locks. Then we lock nothing.
    """

    _descriptor: int | None = None
    _opened = _NOT_LOOKED  # at the file that it is open on
    is_new = False  # whether we have made that file

    def __init__(self, path: str, *, users_of: str | None = None, say: Callable[[str], None] = print) -> None:
        self._database = path
        self._users_of = users_of
        self._lead_to(path if users_of else os.path.realpath(path))  # that of an archive may not answer: `_open` looks
        self._say = say
        self._missing = fcntl is None
        self._waiting_since: int | None = None
        self._is_line = True  # what the file holds
        self.lost = False  # the program has closed our descriptor

    def __del__(self) -> None:
        # A signal handler may raise into the constructor of a handler that has just opened the file.
        if self._descriptor is not None:
            self.close()

    def _lead_to(self, real: str) -> None:
        self.real = real  # of the database, without links
        self.path = real + "-lock"

    @contextlib.contextmanager
    def hold(self, timeout: float) -> Iterator[None]:
        """
        Hold the lock over the `with` block. Not reentrant.

        Raises:
            TimeoutError: Another process, or another handler of this one, has held it for `timeout` seconds.
            OSError: The lock's file cannot be opened.
        """
        try:
            # Inside `try`, because a signal handler may raise when the lock has just been taken.
            self._acquire(timeout)
            yield
        finally:
            # Once more if it is not sure: a signal handler may raise into the first, and that may be an OSError.
            done = False
            try:
                done = self.release()
            finally:
                if not done:
                    self.release()

    @contextlib.contextmanager
    def hold_if_free(self, timeout: float) -> Iterator[bool]:
        """
        Hold the lock over the `with` block if we get it within `timeout` seconds, and yield whether we did.

        This is for closing the database, whose last connection writes the WAL back. Without the lock it must not, see
        `connect.close`: who has the lock may be a backup, which copies the files and has no connection.
        """
        held = False
        try:
            with self.hold(timeout):
                held = True
                yield True
        except OSError:
            if held:
                raise
            yield False

    def follow(self, timeout: float) -> str:
        """
        Inside `hold`, without an open database: change to the lock of the database to which the path leads now.

        Return the path of that database, without links. If this raises what `hold` raises, no lock is held.
        """
        while (real := os.path.realpath(self._database)) != self.real:
            self.release()
            self.close()
            self._lead_to(real)
            self._acquire(timeout)
        return real

    def stands(self) -> bool:
        """Tell, inside `hold`, whether the file is still there, which others lock. Somebody may have deleted it."""
        with contextlib.suppress(FileNotFoundError):
            return self._missing or os.path.samestat(self._opened, os.stat(self.path))
        return False

    def close(self) -> None:
        """Close the file; the next `hold` opens it again. In a forked child, this leaves the parent's lock alone."""
        descriptor, self._descriptor = self._checked(), None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # NFS says only now that there was no room for the line
                os.close(descriptor)

    def _checked(self) -> int | None:
        """Return the descriptor; None if it is not open, or has become that of another file."""
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                return None
            found = os.fstat(self._descriptor)
            if self._opened is _NOT_LOOKED or os.path.samestat(found, self._opened):
                return self._descriptor
        self.lost = True
        return None

    def _acquire(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        while not self._try():
            if monotonic() >= deadline:
                holder = self._read()[0]
                self._leave_line()
                who = f"{holder} (not found here)" if _is_gone(holder) else holder or "unknown"
                raise TimeoutError(f"process {who} is writing to {self._database!r}")
            # A random time, so that two processes do not look at the same moments. From the system, because importing
            # `random` takes 4 ms.
            sleep(_PAUSE * (0.5 + int.from_bytes(os.urandom(4), "little") / 2**33))

    def _try(self) -> bool:
        if self._missing:
            return True
        descriptor = self._checked()
        if descriptor is None:
            descriptor = self._open()
            self._opened = os.fstat(descriptor)
        now = round(monotonic() * 1e6)
        holder, _, since, seen = self._read()
        mine = self._waiting_since or now
        if since < mine and 0 <= now - seen < _GONE:
            self._waiting_since = mine
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._waiting_since = mine
            self._write(_AFTER_HOLDER, _LINE % (os.getpid(), mine, now))
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            self._missing = True
            self._say(f"no locks on this file system ({error}): let one process write to the file")
            return True
        if self.stands():
            if holder != os.getpid():
                self._write(0, _HOLDER % os.getpid())
            self._leave_line()
            self._waiting_since = None
            return True
        # The file was deleted, or moved with the database: from now on, a process locks another file.
        self.close()
        return False

    # The line of the processes that wait

    def _leave_line(self) -> None:
        """Stop waiting, because we have the lock now, or have given up."""
        if self._waiting_since is not None and self._read()[1:3] == (os.getpid(), self._waiting_since):
            self._write(_AFTER_HOLDER, _LINE % (0, 0, 0))

    def _read(self) -> tuple[int, int, int, int]:
        with contextlib.suppress(OSError, ValueError):
            text = os.pread(self._descriptor or -1, _LENGTH + 1, 0)
            self._is_line = len(text) <= _LENGTH and not text.strip(b"0123456789 \n")
            found = map(int, text.split())
            # Before a process has waited, there is a holder only.
            holder, waiter, since, seen, *_ = *found, 0, 0, 0, 0
            return holder, waiter, since, seen
        return 0, 0, 0, 0

    def _write(self, offset: int, text: bytes) -> None:
        if self._is_line:  # else another program has a file of this name, which we lock and leave as it is
            with contextlib.suppress(OSError):  # on a full disk, processes do not take turns
                os.pwrite(self._descriptor or -1, text, offset)

    def _open(self) -> int:
        # Look again each time, because the folder to which a link led may be gone.
        self._lead_to(os.path.realpath(self._database))
        # As SQLite does for -wal and -shm, we follow no link, which another user may have put there.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor, self._opened = None, _NOT_LOOKED
        try:
            # In one step, see `_logfile.locks`: a signal handler that raises leaves no file open that `close` misses.
            (self._descriptor,) = map(os.open, (self.path,), (flags | os.O_EXCL,), (0o600,))
        except FileExistsError:
            (self._descriptor,) = map(os.open, (self.path,), (flags,), (0o600,))
        else:
            self.is_new = True
            place = self._database if self._users_of else self.path
            give_to_users_of(self._users_of or self.real, self._descriptor, os.path.dirname(place))
        descriptor = self._descriptor
        if descriptor <= STDERR:
            self._descriptor = None
            try:
                (self._descriptor,) = map(fcntl.fcntl, (descriptor,), (fcntl.F_DUPFD_CLOEXEC,), (STDERR + 1,))
            finally:
                os.close(descriptor)
        return self._descriptor

    def release(self) -> bool:
        """
        Let go of the lock, if it is held; return whether that is sure.

        To close the file would not suffice, because a child that was just forked may have it open too.
        """
        descriptor = None if self._missing else self._checked()
        if descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                return True
        return False


def give_to_users_of(path: str, descriptor: int, folder: str) -> None:
    """
    Give a new file in `folder` to those who may use the one at `path`, whoever makes it, root or a member of its group.

    One to which another user may have led us stays ours, see `_refuse_led`.
    """
    if not hasattr(os, "fchown"):  # on Windows
        return
    mode = 0o600
    with contextlib.suppress(OSError):
        used, own = os.stat(path), os.fstat(descriptor)
        # Only where it changes something: a filter of system calls, such as systemd's, may kill a process for it.
        if (own.st_uid, own.st_gid) != (used.st_uid, used.st_gid):
            _refuse_led(folder, used.st_uid)
            with contextlib.suppress(OSError):
                os.fchown(descriptor, -1 if os.geteuid() else used.st_uid, used.st_gid)
        mode = used.st_mode & 0o666
        if os.fstat(descriptor).st_gid != used.st_gid:
            mode = mode & 0o606 | (mode & 0o006) << 3  # its group is like all others
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, mode)  # whatever the umask is: with 0277, the owner could not open the file again


def _refuse_led(folder: str, user: int) -> None:
    """
    Raise an error for a folder in which a user may make no file, if somebody may have put it where we look.

    By a link in the place of an archive, the user of a log got files of his own in /etc when root pruned the log. An
    administrator's own link leads nobody astray.
    """
    found, trusted, by_others = os.stat(folder), {0, os.geteuid()}, stat.S_IWGRP | stat.S_IWOTH
    paths = [] if found.st_uid == user or found.st_mode & by_others else [folder]
    for path in paths:  # which grows by those to which it leads
        at = os.path.dirname(path)
        above, one = os.stat(at), os.lstat(path)
        is_link = stat.S_ISLNK(one.st_mode)
        if above.st_uid not in trusted or (is_link and (one.st_uid not in trusted or above.st_mode & by_others)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        if is_link:
            paths.append(os.path.join(at, os.readlink(path)))
        if at not in paths:
            paths.append(at)


def _is_gone(process: int) -> bool:
    """Tell whether the system knows no such process. It knows none of another container."""
    try:
        os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False
