"""
Connections to a log file, and what is refused as one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.connect import (
    close,
    connect_read_only,
    connect_read_write,
    identity_of,
    is_full,
    is_ours,
    require_files,
    uri_of,
)
from sqlite_log_handler._logfile.errors import (
    ForeignFileError,
    LogFileError,
    NewerSchemaError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.schema import USER_VERSION
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable


# What is refused -----------------------------------------------------------------------------------------------------


def make_ours(path: Path) -> None:
    """Make a log."""
    writer = Writer(str(path))
    writer.file.open()
    writer.close()


def make_newer(path: Path) -> None:
    """Make a log of a version to come."""
    make_ours(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {USER_VERSION + 1}")


def make_foreign(path: Path) -> None:
    """Make another program's database."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (x)")


def make_foreign_wal(path: Path) -> None:
    """Make another program's database, in WAL mode."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE precious (x)")


def make_interrupted(path: Path) -> None:
    """Make another program's database that it was killed over: what is beside it has to be rolled back first."""
    other = path.with_name("other.db")
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE precious (x)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO precious VALUES (?)", [("x" * 1_000,)] * 1_000)
        for end in ("", "-journal"):
            shutil.copy(f"{other}{end}", f"{path}{end}")


def make_marked(path: Path) -> None:
    """Make another program's database that has a mark and no table yet."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")


def make_text(path: Path) -> None:
    """Make a text log, which somebody has given by mistake."""
    path.write_text("2025-11-23 10:00:00 INFO hello\n" * 100)


def make_short(path: Path) -> None:
    """Make a file of one letter, which SQLite takes for an empty one, and writes over."""
    path.write_text("x")


def make_random(path: Path) -> None:
    """Make a file of no kind at all."""
    path.write_bytes(random.Random(7).randbytes(10_000))


def make_nearly(path: Path) -> None:
    """Make a file that begins as a database does, and is none."""
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 10_000)


REFUSED = [
    (make_newer, NewerSchemaError),
    (make_foreign, ForeignFileError),
    (make_foreign_wal, ForeignFileError),
    (make_interrupted, ForeignFileError),
    (make_marked, ForeignFileError),
    (make_text, ForeignFileError),
    (make_short, ForeignFileError),
    (make_random, ForeignFileError),
    (make_nearly, ForeignFileError),
]


def open_writer(path: Path) -> None:
    """Open as the listener does."""
    Writer(str(path)).file.open()


def open_handler(path: Path) -> None:
    """Open as a program does."""
    SQLiteHandler(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("use", [open_writer, open_handler, lambda path: connect_read_only(str(path))])
@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_pipe_beside_the_file(path: Path, use: Callable[[Path], None], end: str, *, exists: bool) -> None:
    """
    A pipe that is named like one of SQLite's files is refused, and left where it is.

    SQLite opens a journal to see whether it has to be rolled back, so one held the constructor of a handler for ever.
    """
    if exists:
        make_ours(path)
    os.mkfifo(f"{path}{end}")

    with pytest.raises(UnreadableFileError, match=rf"{path}{end}' is not a file"):
        use(path)
    assert os.path.exists(f"{path}{end}")


def read_rows(path: Path, connect: Callable[..., sqlite3.Connection]) -> None:
    """Read as `forward` and `prune` do."""
    with contextlib.closing(connect(str(path), timeout=0)) as connection:
        connection.execute("SELECT * FROM records").fetchall()


@pytest.mark.parametrize(
    "use",
    [
        open_writer,
        open_handler,
        partial(read_rows, connect=connect_read_only),
        partial(read_rows, connect=connect_read_write),
    ],
)
def test_a_journal_that_names_another_file(path: Path, use: Callable[[Path], None]) -> None:
    """
    A journal beside the log of a stranger that names a file of the user is refused.

    SQLite rolled it back, and then deleted that file: `forward` and a handler cost the user any file.
    """
    make_ours(path)
    precious = path.with_name("precious")
    precious.touch()
    content = path.read_bytes()
    (page_bytes,) = struct.unpack(">H", content[16:18])
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(precious)
    # https://sqlite.org/fileformat2.html#the_rollback_journal
    head = magic + struct.pack(">5I", 0, 0, len(content) // page_bytes, 512, page_bytes)
    end = struct.pack(">I", 2**30 // page_bytes + 1) + name + struct.pack(">2I", len(name), sum(name)) + magic
    Path(f"{path}-journal").write_bytes(head.ljust(512, b"\0") + end)

    with pytest.raises(UnreadableFileError, match="-journal' names a file that SQLite would delete"):
        use(path)
    assert precious.exists()


def test_a_journal_that_is_a_link(path: Path) -> None:
    """
    A link in the place of a journal is not followed, as SQLite follows none.

    It led to a database of the program. To close a file takes away all locks that the process has on it, and another
    process wrote to the database as well.
    """
    make_ours(path)
    own = path.with_name("own.db")
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    Path(f"{path}-journal").symlink_to(own)
    with contextlib.closing(sqlite3.connect(own, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        require_files(str(path))
        other = subprocess.run([sys.executable, "-c", code, own], capture_output=True, text=True, check=False)

    assert "database is locked" in other.stderr


def test_a_file_that_goes_while_it_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A -shm that another process deletes is not taken for a pipe.

    We asked whether it is there, and then whether it is a file; a close in between kept a program from starting.
    """
    make_ours(path)
    shm = f"{path}-shm"
    Path(shm).touch()
    look, looks = os.stat, []

    def look_and_go(name: str, **options: bool) -> os.stat_result:
        found = look(name, **options)
        if name == shm:
            looks.append(name)
            os.unlink(shm)
        return found

    monkeypatch.setattr(os, "stat", look_and_go)

    require_files(str(path))
    assert [shm] == looks


@pytest.mark.parametrize("use", [open_writer, open_handler])
@pytest.mark.parametrize(("make", "error"), REFUSED)
def test_refused_file_is_untouched(
    path: Path, make: Callable[[Path], None], error: type[LogFileError], use: Callable[[Path], None]
) -> None:
    """A file that is not ours is refused by name, and left as it is to the byte and the nanosecond."""
    make(path)
    os.utime(path, ns=(10**18, 10**18))
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode

    with pytest.raises(error, match=re.escape(repr(str(path)))):
        use(path)

    assert before == (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)


@pytest.mark.parametrize(("make", "error"), REFUSED)
def test_refusal_says_what_to_do(path: Path, make: Callable[[Path], None], error: type[LogFileError]) -> None:
    """A refusal says what is wrong and what to do about it."""
    make(path)

    with pytest.raises(error, match=r": (upgrade|choose another filename)"):
        open_writer(path)


@pytest.mark.parametrize(("make", "ours"), [(lambda path: None, False), (Path.touch, False), (make_ours, True)])
def test_is_ours(path: Path, make: Callable[[Path], Any], ours: bool) -> None:
    """A log of ours is told from a database that is still empty."""
    make(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert ours is is_ours(connection, str(path))


def test_older_version_is_ours(path: Path) -> None:
    """A log of an older version is ours."""
    make_ours(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")
        assert True is is_ours(connection, str(path))


@pytest.mark.parametrize("before", [2, 3, 4])
def test_file_that_becomes_ours_meanwhile(path: Path, before: int) -> None:
    """
    A log that another process makes while this one looks is not taken for a foreign file: a program did not start.
    """
    other = Writer(str(path), busy_timeout=0)
    count = 0

    class Looking(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            nonlocal count
            count += 1
            if count == before:
                # It may have to wait for this one; then it is no race.
                with contextlib.suppress(sqlite3.OperationalError):
                    other.file.open()
            return super().execute(*args)

    connection = sqlite3.connect(path, factory=Looking, isolation_level=None)
    with contextlib.closing(other), contextlib.closing(connection):
        assert is_ours(connection, str(path)) in {True, False}
        assert not connection.in_transaction


# Reading -------------------------------------------------------------------------------------------------------------

NAMES = ["a?mode=rwc.db", "a#b.db", "100%.db", "%41.db", "a b.db", "a&b=c;d.db", "größe 日本.db", "'\".db", "file:x.db"]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not have")
@pytest.mark.parametrize("name", NAMES)
def test_read_only_connection_finds_any_name(tmp_path: Path, name: str) -> None:
    """A name that holds what URIs give a meaning to is the name of that very file."""
    make_ours(tmp_path / name)
    with contextlib.closing(connect_read_only(str(tmp_path / name))) as connection:
        assert True is is_ours(connection, name)

    assert [name] == sorted(os.listdir(tmp_path))[:1]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM records",
        "CREATE TABLE t (x)",
        "PRAGMA user_version = 9",
        "DROP VIEW logs",
        "INSERT INTO volume_folded VALUES (1, '', 1, 1, 1, 1)",
    ],
)
def test_read_only_connection_writes_nothing(path: Path, sql: str) -> None:
    """Nothing can be written through a connection that is for reading, not even when query_only is off again."""
    make_ours(path)
    before = path.read_bytes()
    with contextlib.closing(connect_read_only(str(path))) as connection:
        for value in (1, 0):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute(sql)
            connection.execute("PRAGMA query_only = OFF")
            assert 0 in {0, value}

    assert before == path.read_bytes()


def test_read_only_connection_is_guarded(path: Path) -> None:
    """What stands in the schema of a file is not trusted with functions, and the file cannot be changed."""
    make_ours(path)
    with contextlib.closing(connect_read_only(str(path))) as connection:
        assert (1,) == connection.execute("PRAGMA query_only").fetchone()
        assert (0,) == connection.execute("PRAGMA trusted_schema").fetchone()


def test_a_connection_that_must_not_close_in_a_lost_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A connection whose -shm was removed stays open where this process must not open the file a second time.

    It was let go of with the error, and so was closed, and the WAL deleted that others may have added to.
    """
    make_ours(path)
    monkeypatch.setattr(forks, "lost", {identity_of(str(path))})
    kept: list[object] = []
    monkeypatch.setattr(forks, "keep_open", kept.append)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        close(connection, str(path), keep_wal=True, or_never=True)

        assert [connection] == kept


def test_only_the_lost_file_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was forked in the middle of a commit opens other logs than that one."""
    other = path.with_name("other.db")
    make_ours(path)
    make_ours(other)
    monkeypatch.setattr(forks, "lost", {identity_of(str(path))})

    with pytest.raises(forks.LostFileError):
        connect_read_only(str(path))
    connect_read_only(str(other)).close()


def test_read_only_connection_makes_no_file(path: Path) -> None:
    """A file that is not there is an error, and is not made."""
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connect_read_only(str(path))

    assert [] == os.listdir(path.parent)


@pytest.mark.parametrize(
    "name", ["a.db", "100%.db", "a?mode=rwc", "a#b", "größe 日.db", "a\udcff.db", "a;b&c=d", "a\nb"]
)
def test_the_uri_of_a_path(tmp_path, name):
    """A name can hold nothing that SQLite takes for a parameter, and every name is found again."""
    path = str(tmp_path / name)

    with contextlib.closing(sqlite3.connect(f"{uri_of(path)}?mode=rwc", uri=True)) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert [os.fsencode(name)] == [os.fsencode(file) for file in os.listdir(tmp_path)]


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="the system does not tell how much room a disk has")
@pytest.mark.parametrize(
    ("mib", "free", "inodes", "flags", "full"),
    [
        (100_000, 15, 0, 0, True),
        (100_000, 16, 0, 0, False),
        (256, 7, 0, 0, True),
        (256, 8, 0, 0, False),
        (0, 0, 0, 0, False),  # some have no limit
        (100_000, 0, 1_000, 0, False),
        (100_000, 0, 0, 1, False),  # read-only
    ],
)
def test_is_full(path, monkeypatch, mib, free, inodes, flags, full):
    """A full file system copies on write if it has no fixed number of inodes; of a small one a part stays free."""
    found = os.statvfs_result((4_096, 1 << 20, mib, free, free, inodes, inodes, inodes, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)

    assert full == is_full(str(path))


def test_is_full_behind_a_link(tmp_path, fill):
    """What counts is the disk of the file to which a link leads, also if it is not there yet."""
    log, link = tmp_path / "full" / "app.db", tmp_path / "link.db"
    log.parent.mkdir()
    link.symlink_to(log)
    fill(log.parent)
    assert is_full(str(link))
    log.touch()

    assert is_full(str(link))


def test_is_full_where_the_system_does_not_tell(tmp_path):
    """A folder that is not there is not full; what opens the file says what is wrong."""
    assert not is_full(str(tmp_path / "missing" / "app.db"))
