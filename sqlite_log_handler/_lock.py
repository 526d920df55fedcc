"""
The lock beside a log file: whoever writes to the file holds it, one process at a time.

SQLite has locks of its own, and they suffice for one process. Two that commit and checkpoint at the same moment can
meet a bug in SQLite 3.7.0 to 3.51.2 that corrupts the file (https://sqlite.org/wal.html#walresetbug), and most
systems have such a version. Readers need not hold it: they open the file read-only, and never checkpoint.

It is a `flock` on a file of its own. One on the database would mean to open and close that file, which drops the POSIX
locks that SQLite holds on it (https://sqlite.org/howtocorrupt.html, section 2.2). A `flock` belongs to the open file,
not to the process, so two handlers of one process exclude each other too, and it goes when the process dies.

A `flock` is not fair: whoever lets go and comes again at once gets it again, and with eight busy processes one waited
for eight seconds. So the file has the process id of its last holder in it, which tells who shares the log with others,
and after each turn lets them go first; and who has waited for longer looks more often.
"""

import contextlib
import errno
import os
import random
import time
from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # Windows: there SQLite's own locks are all there is
    fcntl = None  # type: ignore[assignment]

# Seconds between two attempts, of who has just begun to wait, and of who has waited for a second and more. A commit of
# a few rows takes 1 ms, one of a full batch 30 ms.
_LONGEST_PAUSE = 0.004
_SHORTEST_PAUSE = 0.000_5

# Seconds for which others are let go first after it was seen that there are any.
_SHARED = 1.0

_NO_LOCKS_HERE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class WriteLock:
    """
    The right to write to the log file at `path`.

        >>> lock = WriteLock("/var/log/app-log.db")
        >>> with lock.hold(0.05):
        ...     write_to_it()
        >>> lock.close()

    Args:
        path: Absolute path of the database. The lock is the file of that name with "-lock", which stays: to delete it
            would leave two processes with two locks.
        say: Called once with a line for the operator if the file system has no locks; then it goes without.
    """

    def __init__(self, path: str, *, say: Callable[[str], None] = print) -> None:
        self.path = path + "-lock"
        self._database = path
        self._say = say
        self._descriptor: int | None = None
        self._missing = fcntl is None
        self._waiting_since: float | None = None
        self._shared_until = 0.0

    @contextlib.contextmanager
    def hold(self, timeout: float) -> Iterator[None]:
        """
        Hold the lock over the `with` block. Not reentrant.

        Raises:
            TimeoutError: Another process, or another handler of this one, has held it for `timeout` seconds.
            OSError: The lock's file cannot be opened.
        """
        self._acquire(timeout)
        try:
            yield
        finally:
            self._release()

    def close(self) -> None:
        """
        Close the file; the next `hold` opens it again. In a forked child, this leaves the parent's lock alone.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _acquire(self, timeout: float) -> None:
        begin = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = begin
            if begin < self._shared_until:
                time.sleep(2 * _LONGEST_PAUSE)
        while not self._missing:
            try:
                if self._try():
                    self._sign()
                    return
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise
                self._missing = True
                self._say(f"no locks on this file system ({error}): let one process write to the file")
                return
            now = time.monotonic()
            if now >= begin + timeout:
                raise TimeoutError(f"process {self._holder() or 'unknown'} is writing to {self._database!r}")
            # At random, so that of two who wait none is always last.
            pause = max(_SHORTEST_PAUSE, _LONGEST_PAUSE * (1 - now + self._waiting_since))
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - nobody gains by guessing it

    def _try(self) -> bool:
        if self._descriptor is None:
            self._descriptor = self._open()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.path)):
                return True
        # Somebody has deleted it or moved it along with the database: whoever comes now locks another file.
        self.close()
        return False

    def _sign(self) -> None:
        """
        Write down who holds the lock, and remember whether anybody else has held it since.
        """
        self._waiting_since = None
        holder = self._holder()
        if holder == os.getpid() or self._descriptor is None:
            return
        if holder is not None:
            self._shared_until = time.monotonic() + _SHARED
        with contextlib.suppress(OSError):  # of a full disk: the lock is held all the same
            os.pwrite(self._descriptor, b"%-20d\n" % os.getpid(), 0)

    def _holder(self) -> int | None:
        """
        Return the process id of the last holder, if there was one.
        """
        if self._descriptor is not None:
            with contextlib.suppress(OSError, ValueError):
                return int(os.pread(self._descriptor, 21, 0))
        return None

    def _open(self) -> int:
        try:
            mode = os.stat(self._database).st_mode & 0o666
        except FileNotFoundError:
            mode = 0o600
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self.path, flags, 0o600)
        # As SQLite does for -wal and -shm: whoever may write to the database may lock it.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)
        return descriptor

    def _release(self) -> None:
        # By name and not only by closing: a child that a fork has just made may have the same file open.
        if self._descriptor is not None and not self._missing:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
