"""
The file beside other processes: they make it at the same time, move it, replace it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from freezegun import freeze_time
from slowly import slowly

from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.errors import ForeignFileError
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write import log_file as log_file_module
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

from batches import POSIX, Said, connect_as, connection_of, messages, read, reading, row, stored, write
from forked import in_child

# Several processes, and what others do to the file -------------------------------------------------------------------


def test_two_writers_of_a_new_file(path: Path) -> None:
    """Writers that begin one file at the same moment both write to it, and neither takes it for a foreign one."""
    for attempt in range(10):
        target = path.with_name(f"{attempt}.db")
        barrier = threading.Barrier(4)

        def run(name: str, target: Path = target, barrier: threading.Barrier = barrier) -> None:
            with contextlib.closing(Writer(str(target), busy_timeout=5)) as writer:
                barrier.wait()
                start = 0
                while start < 5:
                    # What is locked now may be free at the next tick.
                    with contextlib.suppress(sqlite3.OperationalError, TimeoutError):
                        writer.write(Commit([row(f"{start}", name=name, process=7)]))
                        start += 1

        with ThreadPoolExecutor() as pool:
            list(pool.map(run, [f"app.{number}" for number in range(4)]))  # raises what a thread has raised
        with contextlib.closing(sqlite3.connect(target)) as connection:
            for number in range(4):
                assert [(f"{count}",) for count in range(5)] == connection.execute(
                    "SELECT message FROM logs WHERE logger = ? ORDER BY id", (f"app.{number}",)
                ).fetchall()
            assert [(4, 1)] == connection.execute(
                "SELECT (SELECT count(*) FROM sources), (SELECT count(*) FROM processes)"
            ).fetchall()
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


def test_schema_that_another_process_made_meanwhile(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at an empty file and the lock another process may make the schema: then it is used."""
    first, second = make_writer(), make_writer()
    real = log_file_module.is_ours
    calls = 0

    def is_ours(connection: sqlite3.Connection, path: str) -> bool:
        nonlocal calls
        calls += 1
        found = real(connection, path)
        if calls == 1:
            assert not found
            second.file.open()
        return found

    monkeypatch.setattr(log_file_module, "is_ours", is_ours)
    write(first, "first")
    write(second, "second")

    assert ["first", "second"] == messages(first) == messages(second)


@POSIX
def test_nothing_is_written_without_the_lock(make_writer: Callable[[], Writer], path: Path) -> None:
    """
    While another process holds the lock beside the file, this one makes no commit and no table. A new handler starts.

    Two processes that commit and checkpoint at the same moment can corrupt the file with most versions of SQLite.
    """
    waiting, lock = make_writer(), WriteLock(str(path))
    with lock.hold(0):
        waiting.file.open_first()
        with pytest.raises(TimeoutError, match=path.name):
            write(waiting, "one")
        assert not path.exists()
        # Not the last one to close, so it need not wait.
        waiting.close()
    lock.close()
    write(waiting, "two")

    assert ["two"] == messages(waiting)


def test_a_child_never_closes_the_connection_of_its_parent(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A connection that a child has inherited in the middle of a commit is not closed when nothing refers to it any more,
    not even at the end.

    Its close may write back and delete a WAL that the parent goes on using, or wait for a lock that a thread held.
    """

    class Connection(sqlite3.Connection):
        pass

    connect_as(monkeypatch, Connection)
    writer = make_writer()
    write(writer, "one")
    inherited = weakref.ref(connection_of(writer))
    monkeypatch.setattr(forks, "lost", set())
    writer.forget(0)
    gc.collect()

    found = inherited()
    assert found is not None
    assert [("one",)] == found.execute("SELECT message FROM logs").fetchall()
    found.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_does_not_share_the_lock(writer: Writer, path: Path) -> None:
    """
    A child that was forked in the middle of a commit of its parent waits for the lock like everybody else.

    The child inherits the open file, and with it the lock: each process that has it open has the lock already.
    """
    with writer.file._lock.hold(0):
        said = in_child(lambda: (writer.forget(None), write(writer, "child")))

    assert said.startswith("TimeoutError: ")


@POSIX
def test_the_lock_is_held_from_open_to_close(
    make_writer: Callable[[], Writer], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every statement that writes to the file, and the checkpoint of `close`, come while the lock is held."""
    lock, free = WriteLock(str(path)), []

    def look() -> None:
        with contextlib.suppress(TimeoutError), lock.hold(0):
            free.append(True)

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> Any:
            look()
            return super().execute(*arguments)

        def close(self) -> None:
            look()
            super().close()

    connect_as(monkeypatch, Watched)
    writer = make_writer()
    writer.file.open_first()
    write(writer, "one")
    os.rename(path, f"{path}.1")
    write(writer, "two")
    writer.close()
    lock.close()

    assert [] == free


def test_nothing_is_made_beside_a_file_that_is_refused(writer: Writer, path: Path) -> None:
    """A file that is not ours is left as it is, and so is its folder."""
    path.write_text("a text of more than nothing")
    with pytest.raises(ForeignFileError):
        writer.file.open_first()

    assert [path.name] == os.listdir(path.parent)


@POSIX
@pytest.mark.parametrize("state", ["closed", "open", "killed"])
def test_a_foreign_database_in_wal_mode_is_left_as_it_is(writer: Writer, path: Path, state: str) -> None:
    """
    Nothing appears beside another program's database, whether that is closed, open, or was killed over its WAL.

    The read-only look made a -shm, or left a -wal behind, because it read the file together with its WAL.
    """
    other = path.with_name("other.db")
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE precious (x)")
        if state == "closed":
            connection.close()
        for end in ("", "-wal", "-shm")[: 2 if state == "killed" else 3]:
            if os.path.exists(f"{other}{end}"):
                os.link(f"{other}{end}", f"{path}{end}")
        before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent) if "-shm" not in name}
        names = sorted(os.listdir(path.parent))
        with pytest.raises(ForeignFileError, match="of another program"):
            writer.file.open_first()

        assert names == sorted(os.listdir(path.parent))
        assert before == {name: (path.parent / name).read_bytes() for name in before}


def test_an_empty_database_in_wal_mode_becomes_a_log(make_writer: Callable[[], Writer], path: Path) -> None:
    """
    A database without tables that is in WAL mode becomes a log, and the next process finds one in it.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    writer, second = make_writer(), make_writer()
    write(writer, "first")
    second.file.open_first()
    write(second, "second")

    assert ["first", "second"] == messages(writer)


def test_writers_take_turns(make_writer: Callable[[], Writer]) -> None:
    """Two writers on one file share its sources, and the ids of both rise together."""
    first, second = make_writer(), make_writer()
    for number in range(3):
        write(first, f"first {number}")
        write(second, f"second {number}")

    assert [f"{name} {number}" for number in range(3) for name in ("first", "second")] == messages(first)
    assert [(1,)] == read(first, "SELECT count(*) FROM sources")


@POSIX
@pytest.mark.parametrize("checkpointed", [False, True])
def test_file_that_was_renamed(writer: Writer, path: Path, checkpointed: bool) -> None:
    """After logrotate the old file has all of its rows, those in the WAL too, and a new file is begun."""
    write(writer, "0", "1")
    if checkpointed:
        read(writer, "PRAGMA wal_checkpoint(PASSIVE)")
        write(writer, "2")
    before = messages(writer)
    path.rename(path.with_name("rotated.db"))
    write(writer, "after")

    assert ["after"] == messages(writer)
    assert before == stored(path.with_name("rotated.db"))


@POSIX
def test_a_file_in_whose_place_another_writer_has_begun(
    make_writer: Callable[[], Writer], path: Path, said: Said
) -> None:
    """The -wal at the path of a renamed file is the new file's: nobody is told that one was removed."""
    writer, other = make_writer(), make_writer()
    write(writer, "before")
    path.rename(path.with_name("rotated.db"))
    write(other, "between")
    before = [*said]
    write(writer, "after")

    assert before == said
    assert ["between", "after"] == messages(writer)


@POSIX
def test_a_file_that_is_moved_on_a_full_disk(writer: Writer, path: Path, said: Said) -> None:
    """
    When the WAL of a moved file cannot be written back, it is kept, and beside that file it has the last rows.

    The line said that a reader held it. Without it, the moved file seemed to be corrupt.
    """
    resource = pytest.importorskip("resource")
    texts = [f"{number:01000}" for number in range(200)]
    write(writer, *texts)
    moved = path.with_name("rotated.db")
    path.rename(moved)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (moved.stat().st_size, limits[1]))
    try:
        with contextlib.suppress(sqlite3.Error):
            write(writer, "after")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    (aside,) = path.parent.glob("*.left-*")
    assert f"the file was moved or replaced, and its WAL could not be written back: kept as {str(aside)!r}" in said
    aside.rename(f"{moved}-wal")
    assert texts == stored(moved)


def compress(path: Path) -> tuple[Path, bytes]:
    """Do as logrotate with `compress` and `create`; return where the file was moved to, and what was copied there."""
    rotated = path.with_name("rotated.db")
    path.rename(rotated)
    copy = rotated.read_bytes()
    path.touch()
    rotated.unlink()
    return rotated, copy


@POSIX
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("end", ["close", "commit"])
def test_a_file_that_was_compressed(
    writer: Writer, path: Path, make_writer: Callable[[], Writer], said: Said, end: str, shared: bool
) -> None:
    """
    After logrotate with `compress` and `create`, a WAL that was not written back is kept beside the new file.

    A program logged 2,000 rows, and none while logrotate moved, copied and removed its file. The copy had no rows, the
    new file had the later ones, and nobody said a word: the handler wrote the WAL back into the file without a name.
    """
    write(writer, "0", "1")
    other = make_writer()
    if shared:
        write(other, "2")
    rotated, copy = compress(path)
    if end == "commit":
        write(writer, "after")
    writer.close()
    other.close()

    (aside,) = path.parent.glob("*.left-*")
    assert [f"the file was moved or replaced, and its WAL could not be written back: kept as {str(aside)!r}"] == said
    rotated.write_bytes(copy)
    aside.rename(f"{rotated}-wal")
    assert ["0", "1", "2"][: 2 + shared] == stored(rotated)
    assert ["after"] * (end == "commit") == ([] if end == "close" else stored(path))


@POSIX
@pytest.mark.parametrize("beside", ["a reader", "a list that fails"])
def test_a_file_that_was_compressed_after_it_was_opened_again(
    writer: Writer, path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    """
    It is kept as well when SQLite has given the connection a descriptor of an earlier one, as it does beside a reader
    of the program, and when the system could not list the descriptors, as without /proc or when none was left.

    The handler knew its descriptors by what a second list had more than a first one, and wrote the WAL back.
    """
    if beside != "a reader":
        monkeypatch.setattr(os, "listdir", unlisted)
    write(writer, "0")
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT count(*) FROM records").fetchone()
        writer.close()
        write(writer, "1")
        rotated, copy = compress(path)
        write(writer, "after")

    (aside,) = path.parent.glob("*.left-*")
    assert 1 == len(said)
    rotated.write_bytes(copy)
    aside.rename(f"{rotated}-wal")
    assert ["0", "1"] == stored(rotated)
    assert ["after"] == stored(path)


def test_a_list_of_the_first_descriptors_alone(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """FreeBSD lists descriptors 0 to 2 alone, unless another file system is mounted there; we look at all then."""
    monkeypatch.setattr(os, "listdir", lambda _: ["0", "1", "2"])
    write(writer, "0")

    assert writer.file._descriptors


def unlisted(folder: str, list_of: Callable[[str], list[str]] = os.listdir) -> list[str]:
    """Fail to list the descriptors."""
    if folder == "/dev/fd":
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), folder)
    return list_of(folder)


@POSIX
def test_a_file_that_was_compressed_and_not_replaced(writer: Writer, path: Path, said: Said) -> None:
    """The WAL of a file that was moved and removed goes with it, if no other file is in its place."""
    write(writer, "before")
    path.rename(path.with_name("rotated.db"))
    path.with_name("rotated.db").unlink()
    write(writer, "after")

    assert ([], []) == (said, [*path.parent.glob("*.left-*")])
    assert ["after"] == stored(path)


@POSIX
def test_a_file_that_is_compressed_while_the_program_logs(writer: Writer, path: Path, said: Said) -> None:
    """A copy of a moved file is corrupt if the first commit since the move comes while it is made. Nobody says so."""
    write(writer, "before")
    connection_of(writer).execute("PRAGMA wal_checkpoint")
    write(writer, *map(str, range(200)))
    copy, rotated = path.with_name("copy.db"), path.with_name("rotated.db")
    path.rename(rotated)
    with rotated.open("rb", buffering=0) as file:
        begin = file.read(4096)
        write(writer, "after")
        copy.write_bytes(begin + file.readall())

    assert [] == said
    assert 201 == len(stored(rotated))
    with (
        contextlib.closing(sqlite3.connect(copy)) as connection,
        pytest.raises(sqlite3.DatabaseError, match="malformed"),
    ):
        connection.execute("SELECT message FROM logs").fetchall()


@POSIX
def test_a_file_that_was_compressed_is_closed_without_the_lock(
    make_writer: Callable[[], Writer], path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The WAL of such a file stays when another process has the lock at `close`, and the next writer keeps it.

    `close` wrote it back into the file without a name after a second, and said nothing.
    """
    monkeypatch.setattr(log_file_module, "CLOSE_TIMEOUT", 0)
    writer = make_writer()
    write(writer, "0", "1")
    rotated, copy = compress(path)
    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(0):
        writer.close()
    write(make_writer(), "after")

    (aside,) = path.parent.glob("*.left-*")
    assert [f"-wal without the file: kept as {str(aside)!r}"] == said
    rotated.write_bytes(copy)
    aside.rename(f"{rotated}-wal")
    assert ["0", "1"] == stored(rotated)


@POSIX
@pytest.mark.parametrize("ends", [[""], ["", "-wal", "-shm"], ["-wal"], ["-wal", "-shm"]], ids="+".join)
def test_file_that_was_unlinked(writer: Writer, path: Path, ends: list[str]) -> None:
    """After an unlink of the file or of its -wal, what is written stands in a file that can be found."""
    write(writer, "before")
    for end in ends:
        os.unlink(f"{path}{end}")
    write(writer, "after")
    found = messages(writer)
    writer.close()

    assert "after" == found[-1]
    assert found == stored(path)


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_the_wal_of_a_killed_process_whose_file_was_moved(writer: Writer, path: Path, said: Said, left: str) -> None:
    """
    A -wal without its file is moved aside: beside the moved file it has the last rows.

    A process was killed, logrotate moved its file away, and the program started again. SQLite deletes a -wal beside an
    empty database, and with it went each row since the last checkpoint.
    """
    write(writer, "before")
    moved, wal = path.with_name("rotated.db"), Path(f"{path}-wal")
    copies = {path: path.read_bytes(), wal: wal.read_bytes()}
    writer.close()
    path.unlink()
    if left == "an empty file":
        path.touch()
    wal.write_bytes(copies[wal])
    write(writer, "after")

    assert ["after"] == messages(writer)
    (aside,) = path.parent.glob("*.left-*")
    assert [f"-wal without the file: kept as {str(aside)!r}"] == said
    moved.write_bytes(copies[path])
    aside.rename(f"{moved}-wal")
    assert ["before"] == stored(moved)


def test_files_of_other_programs_beside_a_new_log(writer: Writer, path: Path) -> None:
    """SQLite would delete a -wal or a -journal of another program, and write its own -shm over another one."""
    notes = b"Notes of another program." * 1000
    ends = ["-journal", "-shm", "-wal"]
    for end in ends:
        Path(f"{path}{end}").write_bytes(notes)
    write(writer, "0")

    aside = sorted(path.parent.glob("*.left-*"))
    assert ends == [name.name[-len(end) :] for name, end in zip(aside, ends, strict=True)]
    assert [notes] * 3 == [name.read_bytes() for name in aside]
    assert ["0"] == messages(writer)


def test_a_new_log_keeps_no_shm_of_sqlite(writer: Writer, path: Path, said: Said) -> None:
    """A -shm that SQLite has made says nothing without its -wal, and stays where it is."""
    for size in (3, 32_768):
        Path(f"{path}-shm").write_bytes(b"\0" * size)
        write(writer, "0")
        writer.close()
        path.unlink()

    assert [] == said


@POSIX
@freeze_time("2025-11-23T10:00:00Z")
def test_a_file_that_is_moved_twice_in_a_second_while_it_is_read(writer: Writer, path: Path) -> None:
    """
    Each -wal that a reader holds when its file is moved is kept under a name of its own.

    The second -wal of a second was moved over the first, and its rows, which were counted as written, were gone.
    """
    with contextlib.ExitStack() as readers:
        for number in range(3):
            write(writer, "0")
            readers.enter_context(reading(path))
            write(writer, "1")
            path.rename(f"{path}.{number}")
        write(writer, "2")

    assert 3 == len(list(path.parent.glob("*.left-*-wal")))


def make_foreign(path: Path, mode: str) -> None:
    """Make another program's database, or text."""
    if mode == "text":
        path.write_text("precious\n" * 1_000)
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE precious (x)")
        connection.execute("INSERT INTO precious VALUES ('gold')")
        connection.commit()


@POSIX
@pytest.mark.parametrize("mode", ["DELETE", "WAL", "text"])
@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_file_that_was_replaced_by_a_foreign_one(writer: Writer, path: Path, mode: str, read_meanwhile: bool) -> None:
    """A foreign file that comes in place of the log is refused and untouched: SQLite would apply the old WAL to it."""
    write(writer, *map(str, range(100)))
    foreign = path.with_name("foreign.db")
    make_foreign(foreign, mode)
    before = foreign.read_bytes()
    with reading(path) if read_meanwhile else contextlib.nullcontext():
        write(writer, "more")
        foreign.replace(path)
        for _ in range(3):
            with pytest.raises(ForeignFileError):
                writer.write(Commit([row("after")]))
    writer.close()

    assert before == path.read_bytes()
    if mode != "text":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert [("gold",)] == connection.execute("SELECT x FROM precious").fetchall()


@POSIX
def test_file_that_was_replaced_by_another_log(writer: Writer, path: Path) -> None:
    """A log that comes in place of the log, as when a backup is put back, keeps its rows and gets the new ones."""
    other = Writer(f"{path}.other")
    write(other, "other")
    other.close()
    write(writer, *map(str, range(100)))
    os.replace(f"{path}.other", path)
    write(writer, "after")

    assert ["other", "after"] == messages(writer)
    assert [("ok",)] == read(writer, "PRAGMA integrity_check")


def test_a_file_that_may_only_be_read_for_a_moment(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A restored file that belongs to root until it is given back is written to from then on.

    SQLite opened it read-only, and the writer kept that connection: no commit ever succeeded again.
    """
    write(writer, "before")
    writer.close()
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(os, "access", lambda *_, **__: False)
        write(writer, "refused")
    write(writer, "after")

    assert ["before", "after"] == messages(writer)


def test_a_connection_that_may_only_read_is_opened_anew(writer: Writer) -> None:
    """The file may become writable between the look at it and the opening. One commit fails, and the next succeeds."""
    write(writer, "before")
    read(writer, "PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        write(writer, "refused")
    write(writer, "after")

    assert ["before", "after"] == messages(writer)


WRITES = """
import logging, sys
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import make_row
from sqlite_log_handler._write.writer import Writer
writer = Writer(sys.argv[1])
for number in range(5):
    writer.write(Commit([make_row(logging.makeLogRecord({"name": "other", "msg": f"other {number}"}))]))
writer.close()
"""


TRUNCATES = """
import sqlite3, sys
sqlite3.connect(sys.argv[1]).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
"""


@POSIX
@pytest.mark.parametrize("truncates", [True, *slowly(False)], ids=["an empty WAL", "a full WAL"])
@pytest.mark.parametrize("closes", [False, True], ids=["writes on", "closes"])
def test_a_shm_that_is_removed(make_writer: Callable[[], Writer], path: Path, closes: bool, truncates: bool) -> None:
    """
    After `rm app-log.db-shm` no row is lost that was counted as written.

    The -shm holds the index of the WAL. A process that came later made a new one, and each of the two wrote over the
    other's frames in the WAL. A close without a write did so by writing its own frames back and deleting the WAL. When
    the other process had emptied the WAL, the connection was never closed, and none that came after it could read.
    """
    writer = make_writer()
    write(writer, "before")
    os.remove(f"{path}-shm")
    subprocess.run([sys.executable, "-c", WRITES, path], check=True)
    if truncates:
        subprocess.run([sys.executable, "-c", TRUNCATES, path], check=True)
        assert 0 == os.path.getsize(f"{path}-wal")
    if closes:
        writer.close()
    write(writer, "after")

    assert ["before", *(f"other {number}" for number in range(5)), "after"] == messages(writer)
    assert [("ok",)] == read(writer, "PRAGMA integrity_check")


@POSIX
def test_a_shm_that_is_removed_before_another_process_is_killed(writer: Writer, path: Path) -> None:
    """The rows of the killed process stand in the WAL alone, and a close without their -shm leaves that as it is."""
    write(writer, "before")
    os.remove(f"{path}-shm")
    subprocess.run([sys.executable, "-c", WRITES.replace("writer.close()", "import os; os._exit(0)"), path], check=True)
    writer.close()

    assert ["before", *(f"other {number}" for number in range(5))] == stored(path)
