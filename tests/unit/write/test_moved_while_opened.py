"""
A file that is moved or replaced in the moment in which it is opened.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._write import log_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlite_log_handler._write.writer import Writer

from batches import messages, stored, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be renamed")


@pytest.mark.parametrize("comes", ["nothing", "an empty file", "another log"])
def test_a_file_that_is_moved_while_it_is_opened(
    writer: Writer, path: Path, make_writer: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    """
    A log that is moved at the moment at which it is opened has its rows, and the next ones go into a new file.

    What stood at the path after the opening passed for the file that was open. So the next commits went aside with
    their -wal, as corrupt, or into another log's.
    """
    other, moved = path.with_name("other.db"), path.with_name("moved.db")
    with contextlib.closing(make_writer(other)) as second:
        write(second, "other")
    write(writer, "before")
    writer.close()
    prepare = writer.file._prepare

    def move(connection: sqlite3.Connection) -> None:
        prepare(connection)
        connection.execute("SELECT max(id) FROM records").fetchone()
        path.rename(moved)
        if comes == "an empty file":
            path.touch()
        elif comes == "another log":
            other.rename(path)

    with monkeypatch.context() as patch:
        patch.setattr(writer.file, "_prepare", lambda connection: (patch.undo(), move(connection)))
        write(writer, "1")
    write(writer, "2")
    expected = ["other"] * (comes == "another log") + ["1", "2"]
    assert expected == messages(writer)
    writer.close()

    assert (["before"], expected) == (stored(moved), stored(path))
    assert [] == [*path.parent.glob("*.left-*"), *path.parent.glob("*.corrupt-*")]


def test_a_file_that_is_moved_while_it_is_first_opened(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler is made although its file is moved at that moment: SQLite cannot open it, and the next commit can."""

    def move(*_: object) -> None:
        path.unlink(missing_ok=True)
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(writer.file, "_prepare", move)
        writer.file.open_first()
    write(writer, "0")

    assert ["0"] == messages(writer)


def test_a_file_whose_number_is_another_each_time(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that does not keep the numbers of its files, a log is opened again for each commit."""
    numbers = itertools.count()
    monkeypatch.setattr(log_file, "identity_of", lambda *_: (1, next(numbers)))
    for number in range(3):
        write(writer, f"{number}")
    writer.close()

    assert ["0", "1", "2"] == stored(path)


def test_a_reader_that_opens_the_new_file_at_once(
    make_writer: Callable[..., Writer], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A -wal whose log was moved away is kept, also when a reader opens the new log as soon as it is there.

    SQLite deletes a -wal that stands beside an empty file, for a reader too.
    """
    write(make_writer(path), "in the -wal")
    killed = path.with_name(f"{path.name}-wal")
    rows, moved = killed.read_bytes(), path.rename(path.with_name("moved.db"))
    killed.rename(f"{moved}-wal")
    shutil.copy(f"{moved}-wal", killed)
    create = log_file._create

    def create_and_read(name: str) -> None:
        create(name)
        with contextlib.closing(connect_read_only(name)) as reader:
            assert [] == reader.execute("SELECT * FROM sqlite_master").fetchall()

    monkeypatch.setattr(log_file, "_create", create_and_read)
    with contextlib.closing(make_writer(path)) as new:
        write(new, "1")
        (kept,) = path.parent.glob("*.left-*-wal")

    assert rows == kept.read_bytes()


@contextlib.contextmanager
def moved_at(moment: int, path: Path, to: Path, comes: str) -> Iterator[None]:
    """Move a file at the call of this number inside the block."""
    calls = itertools.count(1)

    def move(_: object, event: str, __: object) -> None:
        if event == "c_call" and next(calls) == moment:
            path.rename(to)
            if comes == "an empty file":
                path.touch(0o600)

    sys.setprofile(move)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.slow
@pytest.mark.parametrize("comes", ["nothing", "an empty file"])
def test_a_file_that_is_moved_at_any_call_of_its_opening(
    make_writer: Callable[..., Writer], tmp_path: Path, comes: str
) -> None:
    """
    A log whose last rows are in its -wal alone, as a killed process leaves them, loses none of them when it is moved at
    a call of its opening (every ninth is enough), and the new file is for its owner only.

    SQLite made the new file, with the rights that the umask left, and deleted the -wal beside it.
    """
    killed = tmp_path / "killed.db"
    with contextlib.closing(make_writer(killed)) as writer:
        write(writer, "in the file")
    write(make_writer(killed), "in the -wal")
    umask = os.umask(0o022)
    try:
        for moment in itertools.count(1, 9):
            folder = tmp_path / f"{moment}"
            folder.mkdir()
            path, moved = folder / "app-log.db", folder / "moved.db"
            for end in ("", "-wal"):
                shutil.copy(f"{killed}{end}", f"{path}{end}")
            with contextlib.closing(make_writer(path)) as new:
                with moved_at(moment, path, moved, comes), contextlib.suppress(OSError, LogFileError, sqlite3.Error):
                    write(new, "1")
                if not moved.exists():
                    break
                write(new, "2")  # as the listener tries again
            for left in folder.glob("*.left-*-wal"):
                left.rename(f"{moved}-wal")

            assert ["in the file", "in the -wal"] == stored(moved)[:2]
            assert "2" == stored(path)[-1]
            assert 0o600 == path.stat().st_mode & 0o777
    finally:
        os.umask(umask)
    assert 100 < moment
