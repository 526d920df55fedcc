"""
Connections to SQLite that survive a fork.

Theory of operation
===================

SQLite keeps its POSIX locks in a list of the process. A forked child inherits the list, but not the locks. If the child
opens a connection beside an inherited one, SQLite therefore takes no lock for it. Once the parent has closed the file,
the next process that closes it then deletes the WAL under the child, with rows that the child has committed.

So a child closes its inherited connections before it opens a file (`settle`). While the parent has the file open,
SQLite cannot get the exclusive lock that it needs to write back or delete the WAL, so this changes nothing in the file.
It closes them under `_opening`, so that no thread opens a file before another one has closed all of them.
The child does so when it opens a file, and not in the fork: the program may have forked in the middle of an SQLite call
of its own, for which a child that never opens a log must not wait.

`os.fork` waits until no thread is inside SQLite with a connection of this package, at most for `_FORK_SECONDS`, and has
threads that open one wait for its end. If that was too short, or C code forked without Python, the child has SQLite's
mutexes as that thread left them. Some of them, such as that of the allocator, are shared by all files, so any call of
SQLite may wait for ever. Then `stuck` forbids the child every file. The thread that forks is not inside SQLite itself,
but it may have left a transaction or a query unfinished. That costs the child this one file, which is in `lost`.

What a signal handler raises in a hook ends that hook, and Python forks on: at worst the child is `stuck`. So it is when
a signal handler forks inside a fork, and then lets go of the locks of both.

Guarantees
==========

- A thread holds the lock of a connection while it may be inside SQLite with it, and no signal handler leaves it taken.
- A process that is `stuck` does not call SQLite.
- A thread holds that lock to open or close the connection, or for one statement. Under it, it takes no other lock of
  this package but `_opening`, before the fork knows the connection.
- Under `_opening`, a thread waits for the lock of a connection only in a fork.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sqlite3
import weakref
from itertools import chain, compress, starmap
from os import getpid  # a test that replaces `os.getpid` is no fork

from sqlite_log_handler._logfile.clock import monotonic
from sqlite_log_handler._logfile.locks import LOGGING_LOCK, acquire, held_by_forks, make_mutex
from sqlite_log_handler._logfile.typed import Any, Final

_FORK_SECONDS: Final = 5.0

# (device, inode) of files that this process must never open.
lost: set[object] = set()

# Whether a thread of the parent was inside SQLite at the fork. If so, this process must open no file.
stuck = False


class LostFileError(OSError):
    """This process was forked while its parent used the file, or has closed the descriptors that SQLite had for it."""


class Connection(sqlite3.Connection):
    """
    A connection that knows which process opened it, and which thread is inside SQLite with it.

    Args:
        arguments: Those of `sqlite3.connect`.
        file: (device, inode) of the file.
        options: Those of `sqlite3.connect`.
    """

    def __init__(self, *arguments: Any, file: object, **options: Any) -> None:
        self.process = getpid()
        self.file = file
        self.lock = make_mutex()
        with self.in_use():
            with _opening():
                _connections.add(self)
            super().__init__(*arguments, **options)

    def in_use(self) -> _thread.RLock:
        """Return the lock: inside a `with` block the connection is in use, and a fork in another thread waits."""
        return self.lock

    @property
    def is_inherited(self) -> bool:
        """Whether another process opened it, from which this one was forked."""
        return self.process != getpid()

    def close(self) -> None:
        """
        Close the connection, unless the parent had left SQLite in the middle of something.

        Wait for another thread's statement: `sqlite3` lets us close a connection in the middle of one, and crashes.
        """
        if not self.is_inherited:
            with self.in_use():
                super().close()
                _connections.discard(self)
            return
        with _opening():
            with contextlib.suppress(sqlite3.ProgrammingError):  # it could not be opened, or is closed
                if stuck or self._was_in_use or self.in_transaction:
                    lost.add(self.file)
                    keep_open(self)
                else:
                    super().close()
            _connections.discard(self)

    @property
    def _was_in_use(self) -> bool:
        """Whether the fork cut off this thread, or one that this process does not have, inside SQLite."""
        return self.lock._is_owned() or not _is_free(self.lock)  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition asks


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []
# By process: without Python's hooks, a thread that a child does not have may hold that of its parent.
_openings = {getpid(): make_mutex()}


def _opening() -> _thread.RLock:
    """
    Return the lock to open a connection, and to close one that was inherited.

    A fork holds it to its end, so that no thread opens a connection which the fork does not know.
    """
    return _openings.setdefault(getpid(), make_mutex())


def settle() -> None:
    """Close all connections that this process has inherited; call this before you open one."""
    if getpid() not in _openings:
        let_go()  # a hook of the program may come before ours
    inherited = [connection for connection in _all() if connection.is_inherited]
    if inherited:
        with _opening():  # another thread may be closing them
            if not all(map(_is_free, [connection.lock for connection in inherited])):
                get_stuck()  # a thread that this process does not have holds one
            for connection in inherited:
                connection.close()


def _is_free(lock: _thread.RLock) -> bool:
    # Where there is a GIL, no other thread runs in between that would take it for taken.
    (free,) = acquire(lock, 0)
    if free:
        lock.release()
    return free


def get_stuck() -> None:
    """Never call SQLite in this process again, see above."""
    global stuck  # noqa: PLW0603 - it belongs to the process
    stuck = True
    for connection in _all():
        connection.close()


def keep_open(connection: sqlite3.Connection) -> None:
    """
    Never close a connection, not even when the interpreter exits and frees everything.

    If a child closes a connection that its parent is using, it may change the WAL under the parent, or wait for ever
    for a lock inside SQLite (https://sqlite.org/howtocorrupt.html, section 2.6).
    """
    try:
        import ctypes  # noqa: PLC0415 - hardly any process needs it
    except ImportError:
        _inherited.append(connection)
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _all() -> list[Connection]:
    while True:
        with contextlib.suppress(RuntimeError):  # another thread has opened or closed one meanwhile
            return list(_connections)


def hold() -> None:
    """Wait until no thread is inside SQLite with a connection of this package, and let none open one."""
    # `_write.process` calls this before Python does: do not wait twice.
    give_up = monotonic() + (0 if _opening()._is_owned() else _FORK_SECONDS)  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition asks
    _take(_opening(), give_up)
    for connection in _all():
        _take(connection.lock, give_up)


def _take(lock: _thread.RLock, give_up: float) -> None:
    # Another fork may wait for logging's lock, if this thread has it, and lets go of nothing before it gets that.
    locked = lock in held_by_forks and LOGGING_LOCK._is_owned()  # noqa: SLF001 - as threading.Condition asks
    # One call of C code takes it and says so: a signal handler that raises comes before both, or after.
    held_by_forks.extend(compress((lock,), acquire(lock, 0 if locked else max(give_up - monotonic(), 0))))


def let_go() -> None:
    """Release what a fork that is over holds. Call this twice, because a signal handler may raise in the first call."""
    for lock in held_by_forks[::-1]:
        with contextlib.suppress(RuntimeError):  # it is another thread's, which forks as well
            steps = chain(starmap(lock.release, ((),)), map(held_by_forks.remove, (lock,)))
            # A signal handler may have forked meanwhile, and let go of it. Between this look and the step is no call.
            if lock in held_by_forks:
                _, _ = steps


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_go)
    os.register_at_fork(after_in_parent=let_go, after_in_child=let_go)
