"""
The file when SQLite finds it corrupt: it is moved aside, and a new one is begun.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest
from freezegun import freeze_time

from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._write.retention.archiver import archiver as make_archiver
from sqlite_log_handler._write.retention.limits import PAGE_BYTES, Limits
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from batches import POSIX, Said, corrupt_files, fill, messages, overwrite, write, write_at_last


def rootpage(path: Path, name: str) -> int:
    """Find the first page of a table or an index."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return int(page)


def write_beside_an_archive(make_writer: Callable[..., Writer], folder: Path, said: Said, max_rows: int) -> Writer:
    """Let the archive run twice on a log that it cannot read, and then write."""
    folder.mkdir()
    limits = Limits(max_rows=max_rows)
    archiver = make_archiver(folder, limits, say=said)
    assert archiver is not None
    writer = make_writer(limits=limits, archiver=archiver)
    for _ in range(2):
        writer.prune()
        archiver.await_end(60)
    writer.prune()
    write_at_last(writer)
    return writer


def test_corrupt_file_is_moved_aside(writer: Writer, path: Path, said: Said) -> None:
    """
    A log that is corrupt beyond its first page is moved aside, a new one is begun, and the operator hears of it.
    """
    fill(path)
    corrupt = overwrite(path, range(2, path.stat().st_size // PAGE_BYTES + 1))
    write_at_last(writer)
    write(writer, "more")

    assert ["after", "dropped at 1", "more"] == messages(writer)
    # The first 100 bytes have counters, which any open may raise.
    assert [corrupt[100:]] == [kept[100:] for kept in corrupt_files(path)]
    assert 1 == len(said)
    assert "moved aside as" in said[0]


@pytest.mark.parametrize(
    "name",
    [
        "records",
        "records_created_us",
        "sources",
        "sqlite_autoindex_sources_1",
        "processes",
        "volume_folded",
        "marks",
    ],
)
def test_corrupt_page(writer: Writer, path: Path, said: Said, name: str) -> None:
    """Whichever page is found corrupt, when opening or when writing, the log goes on, and nothing is deleted."""
    fill(path)
    page = rootpage(path, name)
    overwrite(path, [page])
    write_at_last(writer)

    assert ["after", "dropped at 1"] == messages(writer)[-2:]
    (kept,) = corrupt_files(path)
    assert b"\xff" * PAGE_BYTES == kept[(page - 1) * PAGE_BYTES : page * PAGE_BYTES]
    assert 1 == len(said)


def test_a_corrupt_page_that_only_the_archive_reads(
    make_writer: Callable[..., Writer], path: Path, said: Said, tmp_path: Path
) -> None:
    """
    A disk had damaged a page of old rows. No commit reads them, and retention waits for the archive, which could not
    read them either: it failed for ever, the file stayed full, and all new records were dropped, also after a restart.
    """
    with contextlib.closing(Writer(str(path))) as writer:
        write(writer, *(f"{number:05}" * 50 for number in range(5_000)))
    overwrite(path, [path.read_bytes().index(b"00300" * 50) // PAGE_BYTES + 1])  # where `Pruner` takes no sample
    writer = write_beside_an_archive(make_writer, tmp_path / "archive", said, 100)

    assert ["after", "dropped at 1"] == messages(writer)
    assert 1 == len(corrupt_files(path))
    assert [True] == ["moved aside" in line for line in said]


# What SQLite 3.40 calls a malformed schema on a connection that does not trust the file; newer ones take it.
UNSAFE = [
    "CREATE INDEX odd ON records (json_extract(attributes, '$.trace'))",
    "CREATE INDEX odd ON records (levelno) WHERE json_extract(attributes, '$.trace') IS NOT NULL",
    "CREATE TABLE odd (text, trace AS (json_extract(text, '$.trace')))",
    "ALTER TABLE records ADD COLUMN odd AS (json_extract(attributes, '$.trace'))",
]


@pytest.mark.parametrize("added", UNSAFE)
def test_what_an_owner_adds_is_no_damage(
    make_writer: Callable[..., Writer], path: Path, said: Said, tmp_path: Path, added: str
) -> None:
    """
    Rows are archived and deleted beside an index by JSON, as if it were not there.

    The archive could not read the log with SQLite 3.40, took it for corrupt, and a sound log was moved aside.
    """
    with contextlib.closing(Writer(str(path))) as writer:
        write(writer, *map(str, range(500)))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(added)
    (tmp_path / "archive").mkdir()
    limits = Limits(max_rows=100)
    archiver = make_archiver(tmp_path / "archive", limits, say=said)
    assert archiver is not None
    writer = make_writer(limits=limits, archiver=archiver)
    for _ in range(2):  # a run that fails says so at the second attempt
        writer.prune()
        archiver.await_part(60)
        writer.prune()
        archiver.stop()
        archiver.await_end(60)

    assert ([], []) == (said, corrupt_files(path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (archived,) = connection.execute("SELECT sum(last_id - first_id + 1) FROM archives").fetchone()
        (rows,) = connection.execute("SELECT count(*) FROM records").fetchone()
    assert (True, True) == (archived >= 500 - rows, rows <= 100)


def test_an_id_that_is_another_rows(make_writer: Callable[..., Writer], path: Path, said: Said, tmp_path: Path) -> None:
    """
    A bit had flipped in the id of an old row, which SQLite does not notice, and the archive took it for a deleted one.

    It began again at once, for ever and without a word, and with `max_bytes` all new records were dropped.
    """
    with contextlib.closing(Writer(str(path))) as writer:
        write(writer, *(f"{number:05}" * 10 for number in range(1, 5_001)))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\x8c\x20", 0, content.index(b"01568" * 10))
    content[at : at + 2] = b"\x9c\x20"  # 1,568 becomes 3,616
    path.write_bytes(content)
    writer = write_beside_an_archive(make_writer, tmp_path / "archive", said, 500)

    assert ["after", "dropped at 1"] == messages(writer)
    assert [True] == ["moved aside" in line for line in said]


def test_an_id_beyond_the_newest(make_writer: Callable[..., Writer], path: Path, said: Said) -> None:
    """
    A bit had flipped in the id of an old row, which then was beyond the newest one. SQLite does not notice.

    A deletion ended at that row. So none was deleted any more, and with `max_bytes` all new records were dropped.
    """
    with contextlib.closing(Writer(str(path))) as writer:
        write(writer, *(f"{number:05}" * 10 for number in range(1, 301)))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"\x81\x16", 0, content.index(b"00150" * 10))] ^= 0x40  # 150 becomes 8,342
    path.write_bytes(content)
    writer = make_writer(limits=Limits(max_rows=10))
    while writer.prune() == 0:
        pass
    write_at_last(writer)

    assert ["after", "dropped at 1"] == messages(writer)
    assert [True] == ["moved aside" in line for line in said]


def test_handler_starts_on_a_corrupt_file(writer: Writer, path: Path) -> None:
    """A program whose log is corrupt starts all the same."""
    fill(path)
    overwrite(path, range(2, path.stat().st_size // PAGE_BYTES + 1))
    writer.file.open_first()
    write_at_last(writer)

    assert "after" == messages(writer)[-2]


def test_a_logger_that_is_no_utf_8_is_pruned(make_writer: Callable[..., Writer], path: Path, said: Said) -> None:
    """
    A flipped bit in the name of a logger keeps no row.

    Retention counts the rows of each logger before it deletes them. It failed on that name, and the file grew for ever.
    """
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sources SET logger = CAST(logger || x'ff' AS TEXT) WHERE id = 1")
    writer = make_writer(limits=Limits(max_rows=10))
    for _ in range(3):
        writer.prune()

    assert [] == [*said]
    assert 10 == len(messages(writer))


def test_handler_starts_on_a_corrupt_schema(writer: Writer, path: Path, said: Said) -> None:
    """
    So it does when a bit has flipped in the text of a table.

    SQLite quotes it, and because the quote was no UTF-8, the handler raised a UnicodeDecodeError into the program.
    """
    fill(path)
    path.write_bytes(path.read_bytes().replace(b"func TEXT NOT NULL", b"func TEXT NOT \xceULL"))
    writer.file.open_first()
    write_at_last(writer)

    assert "after" == messages(writer)[-2]
    assert [True] == ["moved aside" in line for line in said]


def test_a_corrupt_database_of_another_program_stays(writer: Writer, path: Path) -> None:
    """A database of another program is refused and left in its place, though its schema cannot be read."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (x TEXT NOT NULL)")
    before = path.read_bytes().replace(b"x TEXT NOT NULL", b"x TEXT NOT \xceULL")
    path.write_bytes(before)
    with pytest.raises(LogFileError):
        writer.file.open_first()

    assert (before, []) == (path.read_bytes(), corrupt_files(path))


def test_a_first_page_that_was_half_written(writer: Writer, path: Path, said: Said) -> None:
    """A log whose first page was half written is taken for no other file: the journal beside it has the page."""
    fill(path)
    journal = path.with_name(f"{path.name}-journal")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; BEGIN IMMEDIATE; PRAGMA application_id = 1;"
            "UPDATE records SET message = 'half'"
        )
        left = {path: b"torn" + path.read_bytes()[4:], journal: journal.read_bytes()}
    for file, content in left.items():
        file.write_bytes(content)
    writer.file.open_first()

    assert ([], []) == ([*said], corrupt_files(path))
    assert [f"{number}" * 50 for number in range(500)] == messages(writer)[:-1]  # the last is a gap


@freeze_time("2025-11-23T10:00:00Z")
def test_two_corrupt_files_of_one_second(writer: Writer, path: Path) -> None:
    """A second file that is moved aside within the same second does not replace the first."""
    corrupt = []
    for _ in range(2):
        fill(path)
        corrupt.append(overwrite(path, [rootpage(path, "sources"), len(corrupt) + 20]))
        write_at_last(writer)
        writer.close()
        path.unlink()

    # The first 100 bytes have counters, which any open may raise.
    assert {kept[100:] for kept in corrupt} == {kept[100:] for kept in corrupt_files(path)}


@pytest.mark.parametrize("name", ["x" * 244 + ".db", "é" * 120 + ".db"])
def test_corrupt_file_with_the_longest_name(make_writer: Callable[..., Writer], tmp_path: Path, name: str) -> None:
    """
    The name of a file that is moved aside is cut to a length that the system takes.

    SQLite opens a name of 247 bytes. With the time behind it, it was too long to be moved to, at each try, and so
    nothing was written any more.
    """
    path = tmp_path / name
    writer = make_writer(str(path))
    write(writer, "0")
    os.truncate(path, 0)
    write(writer, "1")

    assert ["1"] == messages(writer)
    assert 1 == len([kept for kept in os.listdir(tmp_path) if kept.endswith("Z")])


@POSIX
def test_corrupt_file_that_another_process_moved_aside(
    make_writer: Callable[[], Writer], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The process that finds the corruption second does not move the new file aside that the first has begun.

    With the lock beside the file they take turns; it is where there is no such lock that they can meet.
    """
    monkeypatch.setattr("sqlite_log_handler._logfile.write_lock.fcntl", None)
    fill(path)
    overwrite(path, [rootpage(path, "sqlite_autoindex_sources_1")])
    first, second = make_writer(), make_writer()
    first.file.open()
    second.file.open()
    real = second.file.open

    def late() -> sqlite3.Connection:
        # The first one is faster, after the second has looked for the file.
        connection = real()
        monkeypatch.setattr(second.file, "open", real)
        write_at_last(first)
        return connection

    monkeypatch.setattr(second.file, "open", late)
    write_at_last(second)
    write(first, "first")

    assert ["after", "dropped at 1", "after", "dropped at 1", "first"] == messages(first)
    assert 1 == len(corrupt_files(path))
