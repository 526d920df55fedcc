"""
A file that was moved or replaced since the last commit, and then closed: at exit, before a fork, by `dictConfig`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlite_log_handler
from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile import write_lock
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write import log_file
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

from batches import messages, stored, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be renamed")


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_renamed_file_has_its_rows_at_close(
    writer: Writer, path: Path, make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    """
    A file that was renamed has all its rows when the program ends before its next record, also while others commit.

    SQLite writes no WAL back into a file that was moved. So what logrotate compressed lacked up to 4 MB of rows.
    """
    write(writer, "0", "1")
    rotated = path.with_name("rotated.db")
    path.rename(rotated)
    monkeypatch.setattr(log_file, "CLOSE_TIMEOUT", 0)
    if is_busy:
        with make_writer().file._lock.hold(0):
            writer.close()
    else:
        writer.close()
        assert [] == [name for name in os.listdir(path.parent) if name.startswith("app-log.db") and "lock" not in name]

    assert ["0", "1"] == stored(rotated)


def test_a_renamed_file_without_its_shm_has_its_rows(writer: Writer, path: Path) -> None:
    """Somebody may remove the -shm beside a file that was renamed: while there is no other one, it says all."""
    write(writer, "0")
    os.unlink(f"{path}-shm")
    moved = path.rename(path.with_name("moved.db"))
    writer.close()

    assert ["0"] == stored(moved)


def test_the_rows_are_in_the_file_although_a_reader_has_it_open(writer: Writer, path: Path) -> None:
    """
    A file that was closed has all its rows, also when a reader has it open, so it may be moved or copied alone.

    SQLite writes the WAL back only for the last one that closes the file. A log that was renamed while somebody
    followed it by `show -f` had no rows.
    """
    write(writer, "0")
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT count(*) FROM logs").fetchone()
        write(writer, "1")
        writer.close()
        assert not os.stat(f"{path}-wal").st_size
        moved = path.rename(path.with_name("moved.db"))

    assert ["0", "1"] == stored(moved)


def test_files_that_are_copied_under_the_lock_stay_as_they_are(writer: Writer, path: Path) -> None:
    """
    A program that ends, or forks, while somebody holds the lock to copy the files writes nothing back.

    The last connection wrote the WAL into a file of which half was copied, and deleted it: the copy was corrupt.
    """
    write(writer, "0")
    files = [path, path.with_name(f"{path.name}-wal")]
    before = [file.read_bytes() for file in files]
    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(0):
        writer.close(0)
        assert before == [file.read_bytes() for file in files]

    write(writer, "1")
    assert ["0", "1"] == stored(path)


@pytest.mark.parametrize("end", [SQLiteHandler.close, lambda handler: handler.listener.before_fork(5)])
def test_the_rows_of_a_busy_file_are_in_the_file_at_close(
    make_handler: Callable[[], SQLiteHandler], path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[..., None]
) -> None:
    """
    A program that ends, or forks, waits for the lock of a log to which others write, and writes the WAL back.

    Of several processes that fork, none had the file open for a moment. When it was moved then, nobody knew where to,
    and the last rows stayed in a -wal that was kept aside.
    """
    handler = make_handler()
    handler.handle(logging.makeLogRecord({"msg": "0"}))
    assert handler.flush()
    assert path.with_name(f"{path.name}-wal").stat().st_size
    ticks, pauses = itertools.count(1_000_000), itertools.count(1)
    monkeypatch.setattr(write_lock, "monotonic", lambda: next(ticks) / 100)
    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(0):
        monkeypatch.setattr(write_lock, "sleep", lambda _: next(pauses) == 20 and lock.release())
        end(handler)

    handler.listener.committer.lock.after_fork_in_parent()
    assert not path.with_name(f"{path.name}-wal").exists()
    assert 21 == next(pauses)


def test_a_file_in_the_place_of_a_log_keeps_its_rows_at_close(
    writer: Writer, path: Path, make_writer: Callable[[], Writer]
) -> None:
    """
    A log that was put in the place of another one has its own rows after the program has ended and begun again.

    The -wal of the old file stayed, and SQLite applied it to the new one: all of its rows were gone, without a word.
    """
    other = Writer(f"{path}.other")
    write(other, "other")
    other.close()
    write(writer, *map(str, range(100)))
    os.replace(f"{path}.other", path)
    writer.close()
    again = make_writer()
    write(again, "after")

    assert ["other", "after"] == messages(again)
    again.close()
    assert ["other", "after"] == stored(path)


@pytest.mark.parametrize("end", ["close", "commit"])
def test_no_empty_wal_is_left(writer: Writer, path: Path, make_writer: Callable[[], Writer], end: str) -> None:
    """
    Nothing is left of a WAL that a new process moved aside, once the process that has it open has written it back.

    Short jobs opened the path first after nearly each rename, and a file of no bytes stayed for each.
    """
    write(writer, "0", "1")
    rotated = path.with_name("rotated.db")
    path.rename(rotated)
    job = make_writer()
    write(job, "job")
    (left,) = path.parent.glob("*.left-*-wal")
    assert left.stat().st_size
    if end == "commit":
        write(writer, "2")
    writer.close()
    job.close()

    assert [] == [*path.parent.glob("*.left-*")]
    assert (["0", "1"], ["job", "2"][: 2 if end == "commit" else 1]) == (stored(rotated), stored(path))


OTHER = """
import logging, sys
from sqlite_log_handler import SQLiteHandler
handler = SQLiteHandler(sys.argv[1], close_timeout=60)
for number in range(14_000):
    handler.handle(logging.makeLogRecord({"msg": f"{number} {'x' * 500}"}))
assert handler.flush()
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["close", "commit"])
def test_another_wal_is_not_written_over(writer: Writer, path: Path, end: str) -> None:
    """
    A process that was idle while somebody removed the -wal and the -shm leaves the rows of another one alone.

    Its lock was that of the removed -shm, so it wrote its old pages over those that the other one had just written.
    """
    write(writer, *(f"lost {'y' * 500}" for _ in range(500)))
    for name in ("-wal", "-shm"):
        os.unlink(f"{path}{name}")
    package = str(Path(sqlite_log_handler.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package}
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert b"written\n" == other.stdout.readline()
        if end == "commit":
            write(writer, "after")
        writer.close()
        other.stdin.close()
        assert 0 == other.wait()

    found = stored(path)
    assert {f"{number} {'x' * 500}" for number in range(14_000)} <= set(found)
    assert ("after" in found) == (end == "commit")
