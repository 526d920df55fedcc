"""
The WAL of a log: how large it is, whether it can be written back, and which process prevents that.

SQLite cannot write the WAL back beyond the oldest snapshot that a reader holds, and a WAL that is not written back only
grows. Retention adds to it as well, so nothing is pruned while a reader holds it back.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from sqlite_log_handler._logfile.connect import open_file, size_of
from sqlite_log_handler._logfile.units import format_size
from sqlite_log_handler._write.retention.limits import Limits

RETRY = 1.0  # seconds between two attempts to write back a WAL that a reader holds: each waits for the busy timeout
_SOON = 0.1  # the same in the first second: a short reader, as that of another process's archive, is gone by then
_QUIET_PATIENCE = 0.25  # seconds to wait for the reader of the archive, whose statements take some 20 ms

# Byte ranges that SQLite locks in a -shm: its slots for readers (https://sqlite.org/walformat.html, section 2.3.1).
_READER_LOCKS = range(123, 128)


class Wal:
    """The WAL of the log at `path`. The options are those of the `Pruner`; `quiet` keeps the archive's reader still."""

    def __init__(
        self,
        path: str,
        limits: Limits,
        *,
        say: Callable[[str], None],
        now: Callable[[], float],
        clock: Callable[[], float],
        quiet: Callable[[float], AbstractContextManager[bool]],
    ) -> None:
        self.path = path
        self._quiet = quiet
        self._limits = limits
        self._say = say
        self._now = now
        self._clock = clock
        self.pinned: str | None = None  # a clause that names the reader who keeps the WAL from being written back
        self._pinned_since = 0.0  # by `clock`
        self._said_pinned = False
        self._next_attempt = 0.0

    def is_free(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the WAL has a normal size. A larger one is written back first, unless a reader prevents it."""
        size = size_of(self.path + "-wal")
        if size <= self._limits.wal_bytes:
            return self._let_go()
        if self.write_back(connection):
            return True
        if self.stays_pinned and not self._said_pinned:
            self._said_pinned = True
            self._say(
                f"{self.pinned}, so that the WAL ({format_size(size)}) cannot be written back and nothing is "
                f"pruned: end that reader"
            )
        return False

    @property
    def stays_pinned(self) -> bool:
        """Whether a reader has kept the WAL for so long that it may stay."""
        return self.pinned is not None and self._clock() - self._pinned_since >= RETRY

    def write_back(self, connection: sqlite3.Connection) -> bool:
        """Write all of the WAL back and empty it, unless that failed a moment ago; tell whether it succeeded."""
        now = self._clock()
        if now < self._next_attempt:
            return False
        with self._quiet(_QUIET_PATIENCE) as still:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return self._let_go()
        self._next_attempt = now + (_SOON if still and not self.stays_pinned else RETRY)
        if still and self.pinned is None:
            self._pinned_since = now
            started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))
            self.pinned = f"a reader holds a snapshot since {started} or before{_readers(self.path)}"
        return False

    def _let_go(self) -> bool:
        if self._said_pinned:
            self._say("the reader has let go of its snapshot, pruning again")
        self.pinned = None
        self._said_pinned = False
        self._next_attempt = 0.0
        return True


def _readers(path: str) -> str:
    """Name the processes that hold a snapshot, where the system tells (Linux does)."""
    try:
        stat = os.stat(path + "-shm")
        with open_file("/proc/locks", encoding="ascii", errors="replace") as locks:
            pids = reading_processes(locks, stat.st_ino)
    except OSError:
        return ""
    return f" ({', '.join(f'process {pid}{_program(pid)}' for pid in pids)})" if pids else ""


def reading_processes(locks: Iterable[str], inode: int) -> list[int]:
    """Find in the lines of /proc/locks who locks one of SQLite's slots for readers in the -shm `inode`."""
    pids = set()
    for line in locks:
        # 1: POSIX  ADVISORY  READ 18665 fe:00:2515278 124 124
        match line.split():
            case [_, "POSIX", _, _, pid, file, first, last] if file.rpartition(":")[2] == str(inode):
                if last == "EOF" or range(max(int(first), _READER_LOCKS[0]), min(int(last), _READER_LOCKS[-1]) + 1):
                    pids.add(int(pid))
    return sorted(pids)


def _program(pid: int) -> str:
    if pid == os.getpid():
        return ", which is this one"
    try:
        with open_file(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return f", {''.join(filter(str.isprintable, name.read()))}"
    except OSError:
        return ""
