"""
The file: what it is made like, what is refused, and what a child does with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.errors import ForeignFileError, LogFileError
from sqlite_log_handler._logfile.forks import LostFileError
from sqlite_log_handler._logfile.schema import APPLICATION_ID, USER_VERSION
from sqlite_log_handler._write import log_file as log_file_module
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlite_log_handler._write.writer import Writer

from batches import POSIX, Said, connect_as, connection_of, messages, pragma, row, switch, write


@pytest.mark.parametrize("reopened", [False, True])
def test_pragmas(make_writer: Callable[[], Writer], reopened: bool) -> None:
    """The file is in WAL mode, can be shrunk, and is written as the design says, when it is new and ever after."""
    if reopened:
        with contextlib.closing(make_writer()) as first:
            write(first, "before")
            first.file.connection.execute("PRAGMA default_cache_size = 1000000")  # type: ignore[union-attr]
    writer = make_writer()
    write(writer, "now")

    assert ("wal", 2, 1) == (
        pragma(writer, "journal_mode"),
        pragma(writer, "auto_vacuum"),
        pragma(writer, "synchronous"),
    )
    assert 16 * 1024 * 1024 == pragma(writer, "journal_size_limit")
    assert pragma(writer, "cache_size") == -2000  # whatever the file says, or memory would grow with it
    assert pragma(writer, "temp_store") == 2  # in memory
    assert (APPLICATION_ID, USER_VERSION) == (
        pragma(writer, "application_id"),
        pragma(writer, "user_version"),
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_mode(writer: Writer, path: Path, umask: int) -> None:
    """Only its owner can read a log, its -wal and its -shm, under any umask."""
    before = os.umask(umask)
    try:
        write(writer, "secret")
    finally:
        os.umask(before)

    assert {"app-log.db": 0o600, "app-log.db-wal": 0o600, "app-log.db-shm": 0o600, "app-log.db-lock": 0o600} == {
        name: os.stat(path.parent / name).st_mode & 0o777 for name in sorted(os.listdir(path.parent))
    }


def test_a_file_system_without_modes(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the mode of a file cannot be changed, as in some folders that a host shares, the log is made all the same.

    The first start of a program was refused, and left an empty file, so that the second one went well.
    """

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuse, raising=False)
    write(writer, "kept")

    assert ["kept"] == messages(writer)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("mode", [0o640, 0o666])
def test_mode_of_an_existing_file(writer: Writer, path: Path, mode: int) -> None:
    """The mode of a file that is there is its owner's decision."""
    path.touch()
    path.chmod(mode)
    write(writer, "shared")

    assert mode == path.stat().st_mode & 0o777


@POSIX
@pytest.mark.parametrize("linked", [False, True])
def test_a_commit_looks_at_each_file_once(
    make_writer: Callable[..., Writer], path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """
    A commit looks once at the file, its -wal, its -shm, its lock and the link to it, to see whether they were moved.

    Beside busy threads, each look may be a wait for the interpreter lock. The lock's descriptor is looked at when the
    lock is taken and when it is let go, because the program may have closed it.
    """
    names = [f"{path}-lock", f"{path}", f"{path}-shm", f"{path}-wal"]
    if linked:
        names.insert(1, switch(path, path))
    writer = make_writer(names[1])
    write(writer, "one")
    looks: list[str] = []
    for name in ("stat", "fstat", "lstat", "readlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, real=real: (looks.append(str(path)), real(path))[1])
    write(writer, "two")
    monkeypatch.undo()

    descriptor = str(writer.file._lock._descriptor)
    assert [descriptor, *names, descriptor] == looks


def test_a_file_is_looked_at_once(make_writer: Callable[[], Writer], path: Path, monkeypatch: Any) -> None:
    """
    A file is looked at before it is opened for writing: once, and again only if it has changed since.

    A new handler looked twice, without the lock and with it. A program that logs one line feels each look.
    """
    with contextlib.closing(make_writer()) as first:
        write(first, "before")
    looks: list[str] = []
    connect = log_file_module.connect_read_only
    monkeypatch.setattr(log_file_module, "connect_read_only", lambda *a, **k: (looks.append(a[0]), connect(*a, **k))[1])
    writer = make_writer()
    writer.file.open_first()
    writer.close()
    assert 1 == len(looks)

    path.write_bytes(b"of another program, since then" * 100)
    with pytest.raises(ForeignFileError):
        writer.file.open_first()


def test_a_closed_file_is_closed_again_without_a_look(writer: Writer, monkeypatch: Any) -> None:
    """
    At exit a handler is closed by `logging.shutdown` and once more by the package: the second time opens nothing.

    The lock's file was opened each time, only to be closed.
    """
    write(writer, "one")
    writer.close()
    opened: list[Any] = []
    monkeypatch.setattr(os, "open", lambda *arguments, **_: opened.append(arguments))
    writer.close()

    assert [] == opened


def test_close_closes_what_another_thread_has_prepared(writer: Writer, path: Path) -> None:
    """
    The file is closed when `close` returns, though the thread that wrote to it still runs.

    Without a GIL a statement is finalized by the thread that prepared it, when that comes to it. As long as one is
    left, SQLite keeps the file open behind the back of a connection that was closed; a fork would inherit it.
    """
    written, end = threading.Event(), threading.Event()

    def work() -> None:
        try:
            writer.write(Commit([row("a")]))
        finally:
            written.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    written.wait()
    try:
        writer.close()

        assert not os.path.exists(f"{path}-wal")
    finally:
        end.set()
        thread.join()


def test_close_writes_the_wal_back(writer: Writer, path: Path) -> None:
    """After close there is one file, with everything in it, beside its lock; a second close does nothing."""
    write(writer, "one")
    writer.close()
    writer.close()

    assert ["app-log.db", "app-log.db-lock"] == sorted(os.listdir(path.parent))
    write(writer, "two")
    assert ["one", "two"] == messages(writer)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: path.mkdir(), "is not a file, and SQLite would wait for it or write to it: move it"),
        (lambda path: path.symlink_to(path.parent / "no" / "where"), "make it and its folder writable, or choose"),
    ],
)
def test_open_first_says_what_will_not_work(
    writer: Writer, path: Path, make: Callable[[Path], None], error: str
) -> None:
    """What will never work is an error at the first open, with the path and what to do."""
    try:
        make(path)
    except OSError:
        pytest.skip("no symbolic links")
    with pytest.raises(LogFileError, match=error):
        writer.file.open_first()


@pytest.mark.skipif(os.name != "posix", reason="these limits are those of POSIX systems")
@pytest.mark.parametrize("limit", ["name", "path"])
def test_a_name_that_is_too_long_for_the_files_beside_it(
    make_writer: Callable[[str], Writer], tmp_path: Path, limit: str
) -> None:
    """
    A name or path of which SQLite cannot make that of its journal is refused with this reason, and leaves no file.

    SQLite only says that it cannot open the file, so the advice was to make the folder writable.
    """
    folder, longest = tmp_path, 247
    if limit == "path":
        while len(str(folder)) < 400:
            folder /= "x" * 90
        folder.mkdir(parents=True)
        longest = 504 - len(str(folder / "x")) + 1

    with pytest.raises(LogFileError, match="and SQLite takes 247 and 504: choose a shorter one"):
        make_writer(str(folder / ("x" * (longest + 1)))).file.open_first()
    assert [] == os.listdir(folder)
    make_writer(str(folder / ("x" * longest))).file.open_first()


def test_a_file_that_may_only_be_read_is_refused(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    SQLite opens a file that may only be read all the same, when its folder may be written to: every commit would fail.
    """
    write(writer, "one")
    writer.close()
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may do everything
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(LogFileError, match=r"Permission denied.*make it and its folder writable, or choose another"):
        writer.file.open_first()

    assert ["app-log.db", "app-log.db-lock"] == sorted(os.listdir(path.parent))
    path.chmod(0o600)


def test_a_file_that_is_moved_aside_while_it_is_looked_at_is_not_refused(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of several processes that start on a corrupt log, one moves it aside while the others ask whether they may write.
    """
    path.write_bytes(b"")

    def access(name: str, *_: object, **__: object) -> bool:
        os.unlink(name)
        return False

    monkeypatch.setattr(os, "access", access)
    writer.file.open_first()
    write(writer, "one")

    assert ["one"] == messages(writer)


def test_a_file_that_is_refused_late_leaves_no_lock_open(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is found out under the lock that the file is not ours, the lock is closed."""

    def refuses() -> None:
        raise ForeignFileError

    monkeypatch.setattr(writer.file, "open", refuses)
    with pytest.raises(ForeignFileError):
        writer.file.open_first()

    assert None is writer.file._lock._descriptor


def test_open_first_lets_pass_what_may_pass(writer: Writer, path: Path) -> None:
    """A lock of another process is no reason not to start: the file is opened with the first commit."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        writer.file.open_first()
        assert None is writer.file.connection
        other.execute("ROLLBACK")
    write(writer, "later")

    assert ["later"] == messages(writer)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE])
def test_open_first_lets_a_full_disk_pass(writer: Writer, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What the system has no room for now, it may have room for later: that is no reason not to start either."""
    real = os.open

    def fails(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", fails)
    writer.file.open_first()
    assert None is writer.file.connection
    monkeypatch.undo()
    write(writer, "later")

    assert ["later"] == messages(writer)


@pytest.mark.skipif(os.name == "nt", reason="Windows counts no descriptors")
@pytest.mark.parametrize("free", range(6))
def test_open_first_lets_pass_that_no_descriptor_is_left(writer: Writer, free: int) -> None:
    """
    A process that has no descriptor left for a moment may still make a handler.

    SQLite says "unable to open database file" of it, as of a file that can never be opened, so the program did not
    start. Which call is the first to find no descriptor depends on how many are left.
    """
    import resource  # noqa: PLC0415 - not on Windows

    writer.file.open()
    writer.close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for descriptor in taken[:free]:
            os.close(descriptor)
        writer.file.open_first()
    finally:
        for descriptor in taken[free:]:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    write(writer, "one")
    assert ["one"] == messages(writer)


@pytest.mark.parametrize("name", ["LOCK", "RDLOCK", "CHECKRESERVEDLOCK", "SHMLOCK", "SHMMAP"])
def test_a_file_system_without_locks_is_refused(writer: Writer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """To SQLite that is an error of the disk, but no write will ever succeed there."""

    def fails(_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_IOERR_{name}")
        raise error

    monkeypatch.setattr(writer.file, "_prepare", fails)
    with pytest.raises(LogFileError, match="make it and its folder writable, or choose another"):
        writer.file.open_first()


@pytest.mark.parametrize("mode", ["delete", "off"])
def test_no_wal(writer: Writer, said: Said, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Where there is no WAL, the log is kept in the mode there is, and the operator is told once."""

    class NoWal(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = WAL", f"journal_mode = {mode}"), *args)

    connect_as(monkeypatch, NoWal)
    write(writer, "one")
    writer.close()
    write(writer, "two")

    assert ["one", "two"] == messages(writer)
    assert [f"no WAL on this file system, journal mode {mode!r}: readers and the writer wait for each other"] == said


def test_forgotten_connection_is_not_closed(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A child that was forked in the middle of a commit leaves its parent's connection open, and never opens the file.
    """
    monkeypatch.setattr(forks, "lost", set())
    write(writer, "parent")
    connection = connection_of(writer)
    writer.forget(0)

    assert None is writer.file.connection
    assert [(1,)] == connection.execute("SELECT count(*) FROM records").fetchall()
    connection.close()
    with pytest.raises(LostFileError):
        write(writer, "child")


def test_inherited_connection_is_closed(writer: Writer) -> None:
    """
    A child whose fork ran no hooks, between two commits, closes its parent's connection: SQLite's list of locks would
    say that this process holds what its parent holds. It has no ids.
    """
    write(writer, "parent")
    connection = connection_of(writer)
    writer.forget(None)

    assert (None, None) == (writer.file.connection, writer._inserter)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    write(writer, "child")
    assert ["parent", "child"] == messages(writer)


@POSIX
@pytest.mark.parametrize("step", ["open_first", "write", "prune"])
def test_what_a_signal_handler_raises_leaves_the_lock_free(make_writer: Callable[..., Writer], step: str) -> None:
    """
    What a signal handler raises while a file is made, written to or pruned leaves the lock beside the file free.

    An exception in the frames of `contextlib` leaves the lock taken for as long as somebody keeps that exception.
    """
    other, kept = make_writer(), None
    at = calls = 0
    while calls >= at:
        at, calls = at + 1, 0

        def interrupt(frame: Any, *_: object) -> None:
            nonlocal calls
            if frame.f_code.co_qualname.startswith("_GeneratorContextManager."):
                calls += 1
                if calls == at:  # noqa: B023 - it is called in this round only
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        interrupted = make_writer(limits=Limits(max_rows=1_000))
        steps: dict[str, Callable[[], object]] = {
            "open_first": interrupted.file.open_first,
            "write": partial(interrupted.write, Commit([row("text")])),
            "prune": interrupted.prune,
        }
        try:
            sys.setprofile(interrupt)
            steps[step]()
        except KeyboardInterrupt as error:
            kept = error
        sys.setprofile(None)
        with other.file._lock.hold(0):  # raises a TimeoutError where it is taken
            pass

    assert kept
