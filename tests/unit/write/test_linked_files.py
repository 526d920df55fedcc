"""
A symbolic link to the file, which may be switched at any moment.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from freezegun import freeze_time

from sqlite_log_handler._logfile.errors import UnreadableFileError
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write.retention.limits import PAGE_BYTES, Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlite_log_handler._write.writer import Writer

from batches import (
    POSIX,
    Said,
    connect_as,
    corrupt_files,
    fill,
    messages,
    overwrite,
    reading,
    stored,
    switch,
    write,
    write_at_last,
)

# A link to the file --------------------------------------------------------------------------------------------------


def names_in(folder: Path) -> list[str]:
    """Name the files of a folder."""
    return sorted(os.listdir(folder))


@pytest.fixture
def folders(path: Path) -> tuple[Path, Path]:
    """Two folders for the files to which a link leads."""
    for name in ("1", "2"):
        path.with_name(name).mkdir()
    return path.with_name("1"), path.with_name("2")


@POSIX
def test_a_link_to_a_file_that_is_to_be_made(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """
    A link that leads to no file yet stands for one that only its owner can read, with all that belongs to it.

    SQLite made the target, and did so for everybody to read: by the link there was something at the path already.
    """
    before = os.umask(0o022)
    try:
        write(make_writer(switch(path, folders[0] / "log.db")), "secret")
    finally:
        os.umask(before)

    assert dict.fromkeys(["log.db", "log.db-lock", "log.db-shm", "log.db-wal"], 0o600) == {
        name: os.stat(folders[0] / name).st_mode & 0o777 for name in names_in(folders[0])
    }
    assert ["1", "2", "link.db"] == names_in(path.parent)


@POSIX
@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_a_link_that_is_switched(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], said: Said, read_meanwhile: bool
) -> None:
    """
    When the link leads to another file, the next commit goes there; the first one has all of its rows, those in a WAL
    that a reader holds too.
    """
    first, second = (folder / "log.db" for folder in folders)
    writer = make_writer(switch(path, first), limits=Limits(max_rows=100))
    write(writer, "0")
    with reading(first) if read_meanwhile else contextlib.nullcontext():
        write(writer, "1")
        switch(path, second)
        write(writer, "2")
        assert ["0", "1"] == stored(first)
    write(writer, "3")

    assert ["0", "1"] == stored(first)
    assert ["2", "3"] == stored(second)
    assert str(second) == writer.pruner.wal.path
    assert [] == said


@POSIX
def test_a_switched_link_and_the_lock(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two files to which a link leads in turn is opened, written and closed under its own lock."""
    first, second = (folder / "log.db" for folder in folders)
    locks = {str(file): WriteLock(str(file)) for file in (first, second)}
    free = []

    class Watched(sqlite3.Connection):
        def __init__(self, name: str, **options: Any) -> None:
            self.name = name
            self.look()
            super().__init__(name, **options)

        def look(self) -> None:
            if self.name in locks:  # the look at a file before it is opened is read-only
                with contextlib.suppress(TimeoutError), locks[self.name].hold(0):
                    free.append(self.name)

        def execute(self, *arguments: Any) -> Any:
            self.look()
            return super().execute(*arguments)

        def close(self) -> None:
            self.look()
            super().close()

    connect_as(monkeypatch, Watched)
    writer = make_writer(switch(path, first))
    writer.file.open_first()
    write(writer, "one")
    switch(path, second)
    write(writer, "two")
    switch(path, first)
    writer.close()
    for lock in locks.values():
        lock.close()

    assert [] == free
    monkeypatch.undo()
    assert [["one"], ["two"]] == [stored(first), stored(second)]


@POSIX
def test_a_switched_link_waits_for_its_turn(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """While somebody else writes to the file to which the link leads now, nothing is written, to neither."""
    first, second = (folder / "log.db" for folder in folders)
    writer = make_writer(switch(path, first))
    write(writer, "one")
    switch(path, second)
    with contextlib.closing(WriteLock(str(second))) as lock, lock.hold(0), pytest.raises(TimeoutError):
        write(writer, "two")
    assert not second.exists()
    write(writer, "two")

    assert [["one"], ["two"]] == [stored(first), stored(second)]


@POSIX
def test_a_link_that_is_switched_while_the_file_is_opened(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that is switched just when its file was opened is followed one commit later."""
    first, second = (folder / "log.db" for folder in folders)
    other = make_writer(second)
    write(other, "other")
    writer = make_writer(switch(path, first))
    connect = sqlite3.connect

    def switched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        switch(path, second)
        return connect(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", switched)
        write(writer, "one")
    write(writer, "two")

    assert [["one"], ["other", "two"]] == [stored(first), stored(second)]


@POSIX
def test_a_link_that_is_switched_to_a_pipe(make_writer: Callable[..., Writer], path: Path) -> None:
    """
    What is no regular file is refused when it comes later too, and nothing is made beside it.

    SQLite wrote its first page to a device, such as /dev/null, at each attempt. (The test has a pipe, which nobody
    misses.)
    """
    writer = make_writer(switch(path, path))
    write(writer, "one")
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    switch(path, pipe)
    for _ in range(2):
        with pytest.raises(UnreadableFileError, match="is not a file"):
            write(writer, "two")

    assert ["app-log.db", "app-log.db-lock", "link.db", "pipe"] == sorted(os.listdir(path.parent))
    switch(path, path)
    write(writer, "two")
    assert ["one", "two"] == messages(writer)


@POSIX
def test_a_file_that_is_moved_and_its_link_after_it(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """
    A file that is moved to another folder, and the link with it, takes its rows along, and is written to there.

    It is the same file, so only its old place shows that SQLite goes on in a -wal that nobody will read.
    """
    first, second = (folder / "log.db" for folder in folders)
    writer = make_writer(switch(path, first))
    write(writer, "one")
    first.rename(second)
    switch(path, second)
    write(writer, "two")
    writer.close()

    assert ["one", "two"] == stored(second)
    assert [] == [name for name in os.listdir(folders[0]) if name != "log.db-lock"]


@POSIX
def test_a_file_that_is_replaced_behind_a_link(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], said: Said
) -> None:
    """
    A backup that is put in the place of the link's target, while a reader holds the WAL, keeps its rows: the WAL of the
    file that was there is kept beside it.

    It was looked for beside the link, so SQLite applied it to the backup, and 3,000 rows were gone.
    """
    target, backup = folders[0] / "log.db", folders[1] / "backup.db"
    with contextlib.closing(make_writer(backup)) as other:
        write(other, "backup")
    writer = make_writer(switch(path, target))
    write(writer, "0")
    with reading(target):
        write(writer, *map(str, range(1, 100)))
        backup.replace(target)
        write(writer, "after")
    writer.close()

    assert ["backup", "after"] == stored(target)
    assert ["log.db", "log.db-lock"] == [name for name in names_in(folders[0]) if ".left-" not in name]
    (line,) = said
    (left,) = (name for name in names_in(folders[0]) if ".left-" in name)
    assert line.endswith(f"could not be written back: kept as {str(folders[0] / left)!r}")


@POSIX
def test_the_budget_behind_a_link(make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]) -> None:
    """
    The WAL that counts for `max_bytes` is the one beside the link's target.

    It was looked for beside the link, so a reader that stayed let it grow without end, and nobody was told.
    """
    target = folders[0] / "log.db"
    writer = make_writer(switch(path, target), limits=Limits(max_bytes=2_000_000))

    def write_much() -> None:
        for _ in range(100):
            write(writer, *["m" * 400] * 100)

    write(writer, "0")
    with reading(target), pytest.raises(BlockingIOError, match="keeps the WAL from being written back"):
        write_much()

    assert 2_200_000 > sum(os.stat(f"{target}{end}").st_size for end in ("", "-wal"))


@POSIX
@freeze_time("2025-11-23T10:00:00Z")
def test_a_corrupt_file_behind_a_link_that_is_being_read(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """With a target that is moved aside go its -wal and its -shm, or SQLite would apply that WAL to the new file."""
    target = folders[0] / "log.db"
    writer = make_writer(switch(path, target))
    write(writer, "0")
    with reading(target):
        write(writer, "1")
        writer.file._move_aside("as if it were")

    aside = "log.db.corrupt-20251123T100000Z"
    assert ["log.db-lock", aside, f"{aside}-shm", f"{aside}-wal"] == names_in(folders[0])


def test_a_corrupt_file_behind_a_link(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], said: Said
) -> None:
    """A corrupt target is moved aside where it is, and the link stays and leads to the new file."""
    target = folders[0] / "log.db"
    link = switch(path, target)
    fill(target)
    overwrite(target, range(2, target.stat().st_size // PAGE_BYTES + 1))
    write_at_last(make_writer(link))

    assert str(target) == os.readlink(link)
    assert "after" == stored(target)[-2]
    assert 1 == len(corrupt_files(target))
    assert ["1", "2", "link.db"] == names_in(path.parent)
    assert f"moved aside as '{target}.corrupt-" in said[0]
