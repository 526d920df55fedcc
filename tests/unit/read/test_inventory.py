"""
What there is of one log: its file, folders with parts of its archive, and single parts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from made_parts import archive, ids_of

from sqlite_log_handler import EmptyFileError, FilterError, ForeignFileError, LimitError, LogReader, UnreadableFileError
from sqlite_log_handler._read import inventory
from sqlite_log_handler._read.parts import Part, memory_of
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._write.retention.archive import Archive

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_whose_archive_has_not_begun(file: Path, folder: Path) -> None:
    """An empty folder beside the log's file is an archive that has not begun; alone, it is no log."""
    assert [*range(1, 45)] == ids_of(file, folder)[:44]
    with pytest.raises(EmptyFileError, match="without an archived part"):
        LogReader(folder)


def test_two_logs_in_one_folder(file: Path, folder: Path, tmp_path: Path) -> None:
    """
    An archive of several logs is read with the file of one, or refused.

    The parts say which logs those are, so what a terminal would obey in their names is escaped.
    """
    other = tmp_path / "other\u202e.db"
    shutil.copy(file, other)
    archive(file, folder, 10)
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("UPDATE marks SET log_id = 'another'")
    archive(other, folder, 5)

    assert [*range(1, 20)] == ids_of(file, folder, up_to_id=19)
    with LogReader([file, folder]) as log:
        assert log.notice is None
    with pytest.raises(ForeignFileError, match=r"several logs \(app-log, other\\u202e\)"):
        LogReader(folder)
    with pytest.raises(FilterError, match=r"one log at a time: '.*other.*db'"):
        LogReader([file, other, folder])
    with pytest.raises(FilterError, match="no log is named"):
        LogReader([])


def test_all_files_of_an_archive(file: Path, folder: Path) -> None:
    """A glob over a whole archive names its lock as well, and what is being written: both are left out."""
    archive(file, folder, 10)
    with contextlib.closing(Archive(str(folder), str(file)).lock) as lock, lock.hold(0):
        (part,) = folder.glob("*.gz")
    part.with_name(f"{part.name}.partial").touch()
    files = sorted(folder.iterdir())

    assert ["app-log-archive-lock", part.name, f"{part.name}.partial"] == [one.name for one in files]
    assert ids_of(file, folder) == ids_of(file, *files)
    assert ids_of(part) == ids_of(*files)
    with pytest.raises(FilterError, match="no log is named"):
        LogReader(files[0])


def test_an_earlier_log_of_the_same_name(file: Path, folder: Path) -> None:
    """
    A log that was removed and made anew counts its rows from 1 again: parts of the earlier one are left out, and a
    notice says so.
    """
    archive(file, folder, 10)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE marks SET log_id = 'anew'")

    with LogReader([file, folder]) as log:
        assert log.last_id() - 10 == log.count()
        assert "parts of another log are left out: 1, such as" in str(log.notice)
        assert "parts that the log notes are missing: 1, such as" in str(log.notice)


@pytest.mark.parametrize("when", ["comes", "goes before it is listed", "goes before it is opened"])
def test_a_part_that_comes_or_goes_meanwhile(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """
    No part is called missing that was noted, or that a limit removed, while the reader looked at the folder.

    The reader listed the folder, read the heads of its parts, and then the notes: with parts for a year, that takes a
    second or more. A part that a limit removed before its head was read was an error.
    """
    archive(file, folder, 8)
    archive(file, folder, 16)
    listed = inventory.PartList._paths

    def change(places: inventory.PartList) -> list[str]:
        paths = [*listed(places)]
        if when == "comes":
            archive(file, folder, 24)
        else:
            with contextlib.closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("DELETE FROM archives WHERE name = ?", [os.path.basename(paths[-1])])
            os.unlink(paths.pop() if "listed" in when else paths[-1])
        return paths

    monkeypatch.setattr(inventory.PartList, "_paths", change)
    with LogReader([file, folder]) as log:
        assert log.notice is None


def test_a_row_that_comes_during_the_look(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A row that is committed while the reader looks at the file is there at the next question.

    The look kept the number of the file's version after that commit beside the last id before it, so the row was
    missing until the next commit.
    """
    archive(file, folder, 10)
    ends_of = Scan.ends_of

    def commit(scan: Scan, *columns: str) -> object:
        ends = ends_of(scan, *columns)
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message) "
                "SELECT created_us, levelno, source_id, process_id, 'late' FROM records LIMIT 1"
            )
        return ends

    with LogReader([file, folder]) as log:
        with monkeypatch.context() as patched:
            patched.setattr(Scan, "ends_of", commit)
            last_id = log.last_id()
        assert last_id + 1 == log.last_id()


def test_heads_without_end(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that together take more memory than those of any log are refused, and some of the parts can be read."""
    for cut in (8, 16, 24):
        archive(file, folder, cut)
    monkeypatch.setattr(inventory, "_HEADS", 5_000)
    with pytest.raises(LimitError, match=r"app-log.*the heads"):
        LogReader(folder)
    assert [*range(1, 9)] == ids_of(folder / "app-log.2025-06-30.2.jsonl.gz")


def test_heads_are_counted_by_the_memory_that_they_take(file: Path, folder: Path) -> None:
    """
    What a head is counted for is at least what it takes.

    A third of it was counted: 41,887 parts took 117 MB before they were too many.
    """
    archive(file, folder, 8)
    (first,) = folder.iterdir()
    copies = [str(shutil.copy(first, folder / first.name.replace(".2.", f".{number}."))) for number in range(3, 203)]
    Part.open(copies[0])
    tracemalloc.start()
    parts = {path: Part.open(path) for path in copies}
    took, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert took < sum(memory_of(part.head) for part in parts.values()) < 2 * took


def test_a_folder_that_cannot_be_read(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be listed is an error with a name."""

    def refuse(_: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UnreadableFileError, match=r"archive.*Permission denied"):
        LogReader([file, folder])
