"""
A file that is moved or replaced in the moment in which it is opened.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._write import log_file

if TYPE_CHECKING:
    from collections.abc import Callable
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
