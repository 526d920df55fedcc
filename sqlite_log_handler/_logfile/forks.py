"""
Connections to SQLite, over a fork.

Theory of operation
===================

SQLite keeps its POSIX locks in a list of the process. A forked child inherits the list without the locks. A connection
that the child opens beside an inherited one then takes no lock of its own: once the parent has closed the file, the
next process that closes it deletes the WAL under the child, with rows that the child has committed.

So a child closes what it has inherited before it opens a file (`settle`). While the parent has the file open, SQLite
cannot get the exclusive lock that it needs to write back or delete the WAL, so closing in the child changes nothing in
the file. It happens when a file is opened, and not in the fork, because the program may have forked in the middle of
an SQLite call of its own, and a child that never opens a log is not to wait for that.

`os.fork` waits until no thread is inside SQLite with a connection of this package, for `_FORK_SECONDS` at most. If
that was not long enough, or the fork went past Python, SQLite's mutexes stand in the child as that thread left them.
Some, such as that of the allocator, are the same for all files. A child that calls SQLite at all may then wait for
ever, so `stuck` forbids it every file. The thread that forks is not inside SQLite itself. What it has left unfinished,
a transaction or a query, costs the child that one file, which is in `lost`.

Guarantees
==========

- `active` is above 0 exactly while a thread may be inside SQLite with the connection.
- A process that is `stuck` does not call SQLite.
- The lock of a connection is held for one statement. Nothing that runs under it takes another lock of this package.
"""

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from typing import Any, Final

_FORK_SECONDS: Final = 5.0

# (device, inode) of files that this process must never open.
lost: set[object] = set()

# Whether a thread of the parent was inside SQLite at the fork: then this process must open no file.
stuck = False


class LostFileError(OSError):
    """This process was forked while its parent was writing to the file, or reading it."""


class Connection(sqlite3.Connection):
    """
    A connection that knows which process opened it, and whether a thread is inside SQLite with it.

    Args:
        arguments: Those of `sqlite3.connect`.
        file: (device, inode) of the file.
        options: Those of `sqlite3.connect`.
    """

    def __init__(self, *arguments: Any, file: object, **options: Any) -> None:
        self.process = os.getpid()
        self.file = file
        self.active = 0
        self.lock = threading.RLock()
        _connections.add(self)
        with self.in_use():
            super().__init__(*arguments, **options)

    def in_use(self) -> "_InUse":
        """Mark the connection as used inside a `with` block; a fork in another thread waits for its end."""
        return _InUse(self)

    @property
    def is_inherited(self) -> bool:
        """Whether another process opened it, from which this one was forked."""
        return self.process != os.getpid()

    def close(self) -> None:
        """Close it, unless SQLite is in the middle of something that only the parent can end."""
        _connections.discard(self)
        if self.is_inherited and (stuck or self.active or self.in_transaction):
            lost.add(self.file)
            keep_open(self)
        else:
            super().close()


class _InUse:
    # A class, because a generator takes a fifth of the time of a short statement.
    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.lock.acquire()
        self._connection.active += 1

    def __exit__(self, *_: object) -> None:
        self._connection.active -= 1
        self._connection.lock.release()


_connections: "weakref.WeakSet[Connection]" = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []
# What the forks in progress hold; a signal handler may fork inside a fork.
_held: list[list[Connection]] = []


def settle() -> None:
    """Close all connections that this process has inherited: call it before a connection is opened."""
    inherited = [connection for connection in _all() if connection.is_inherited]
    for connection in inherited:
        if connection.lock.acquire(blocking=False):
            connection.lock.release()
        else:  # by a thread that this process does not have
            get_stuck()
    for connection in inherited:
        connection.close()


def get_stuck() -> None:
    """Never call SQLite in this process again, see above."""
    global stuck  # noqa: PLW0603 - it is of the process
    stuck = True
    for connection in _all():
        connection.close()


def keep_open(connection: sqlite3.Connection) -> None:
    """
    Never close a connection, not even when the interpreter exits and frees everything.

    A child that closes its parent's connection in the middle of its work may change the WAL that the parent goes on
    using, or hang on a lock inside SQLite (https://sqlite.org/howtocorrupt.html, section 2.6).
    """
    try:
        import ctypes  # noqa: PLC0415 - only a child that has inherited a connection needs it
    except ImportError:
        _inherited.append(connection)
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _all() -> list[Connection]:
    while True:
        with contextlib.suppress(RuntimeError):  # another thread has opened or closed one meanwhile
            return list(_connections)


def _before_fork() -> None:
    held: list[Connection] = []
    _held.append(held)
    give_up = time.monotonic() + _FORK_SECONDS
    for connection in _all():
        if connection.lock.acquire(timeout=max(give_up - time.monotonic(), 0)):
            held.append(connection)  # noqa: PERF401 - one by one, or an error in between would leave them locked


def _after_fork() -> None:
    while _held and _held[-1]:
        _held[-1].pop().lock.release()
    if _held:
        _held.pop()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
