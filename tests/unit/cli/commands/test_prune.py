"""
`sqlite-log prune`: what it deletes, what it says, and what it leaves alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sqlite3
import sys

import pytest

from sqlite_log_handler import BusyFileError, CorruptFileError, ForeignFileError, LogFileError, SQLiteHandler
from sqlite_log_handler._cli.commands import prune as command
from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.write_lock import WriteLock

DAY = 86_400.0
NOW = 1_700_000_000.0
FILL = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO records (created_us, levelno, source_id, process_id, message)
SELECT (:now - :count + n) * 1000000, 20, 1, 1, printf('%500d', n) FROM numbers
"""


@pytest.fixture
def prune(path, clock, monkeypatch):
    """Run the command: `prune("--max-rows", "5")`. Time passes only when it sleeps."""
    monkeypatch.delenv("SQLITE_LOG_DB", raising=False)

    def prune(*arguments, file=path):
        options = command.run.parser().parse_args([*([str(file)] if file else []), *arguments])
        return command.run(options, now=lambda: NOW, clock=clock, sleep=clock.advance)

    return prune


@pytest.fixture
def log(path):
    """A log of `count` rows, a second apart, the newest of now: `log(count)`."""

    def log(count, *, auto_vacuum=True):
        SQLiteHandler(path).close()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO sources VALUES (1, 'app', '/app.py', 1, 'main', '')")
            connection.execute("INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 0, 'app')")
            connection.execute(FILL, {"count": count, "now": round(NOW)})
            if not auto_vacuum:
                connection.execute("PRAGMA auto_vacuum = NONE")
                connection.execute("VACUUM")

    return log


@pytest.fixture
def held_wal(path):
    """A reader that holds a snapshot over the `with` block, and something in the WAL behind it."""

    @contextlib.contextmanager
    def held_wal():
        with contextlib.closing(connect_read_only(str(path))) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM records").fetchone()
            with contextlib.closing(sqlite3.connect(path)) as writer, writer:
                writer.execute("UPDATE levels SET name = 'LOUD' WHERE levelno = 50")
            yield

    return held_wal


@pytest.mark.parametrize(
    ("arguments", "left"),
    [(["--max-rows", "50"], 50), (["--max-age", "1m"], 61), (["--max-age=10", "--max-rows=90"], 11)],
)
def test_rows_beyond_the_limits_go(prune, log, query, arguments, left, capsys):
    """The oldest rows are deleted until all limits hold, and what was done is said."""
    log(100)

    assert 0 == prune(*arguments)
    assert [(101 - left, 100, left)] == query("SELECT min(id), max(id), count(*) FROM records")
    assert [(100 - left,)] == query("SELECT sum(count) FROM prunes")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"deleted {100 - left} rows (max_")
    assert out[1].startswith(f"{left} rows are left; file and WAL took ")


@pytest.mark.parametrize("arguments", [["--max-age", "1s"], ["--max-rows", "1"], ["--max-age=1", "--max-bytes=1MiB"]])
def test_the_newest_row_stays(prune, log, path, query, arguments, capsys):
    """The newest row stays however old it is, so that its id is never given again; the dry run says the same."""
    log(10)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET created_us = created_us - 60000000")
    prune("--dry-run", *arguments)
    assert "would delete 9 of 10 rows, ids 1 to 9," in capsys.readouterr().out

    assert 0 == prune(*arguments)
    assert [(10,)] == query("SELECT id FROM records")


def test_the_file_becomes_smaller(prune, log, path):
    """With `--max-bytes` the file has the size that was asked for when the command ends."""
    log(20_000)
    assert os.stat(path).st_size > 10_000_000

    assert 0 == prune("--max-bytes", "4MB")
    assert 2_500_000 < os.stat(path).st_size <= 3_600_000


def test_free_pages_are_given_back_on_demand(prune, log, path, query):
    """`--vacuum` gives all free pages back, with limits or without."""
    log(5_000)
    prune("--max-rows", "4000")
    assert query("PRAGMA freelist_count")[0][0] > 100
    before = os.stat(path).st_size

    assert 0 == prune("--vacuum")
    assert [(0,)] == query("PRAGMA freelist_count")
    assert os.stat(path).st_size < before * 0.85


def test_a_file_without_auto_vacuum_is_written_anew_only_on_demand(prune, log, path, query, capsys):
    """A file made without auto_vacuum keeps its size, and says so; with `--vacuum` it is written anew, with it."""
    log(5_000, auto_vacuum=False)
    before = os.stat(path).st_size
    assert 0 == prune("--max-rows", "100")
    assert before == os.stat(path).st_size
    assert "made without auto_vacuum" in capsys.readouterr().err

    assert 0 == prune("--vacuum")
    assert [(2,)] == query("PRAGMA auto_vacuum")
    assert os.stat(path).st_size < before / 5
    assert [("ok",)] == query("PRAGMA integrity_check")


def test_a_dry_run_changes_nothing(prune, log, path, capsys):
    """`--dry-run` says what would go, and why, and does not touch the file."""
    log(1_000)
    before = path.read_bytes(), os.stat(path).st_mtime_ns

    assert 0 == prune("--dry-run", "--max-age", "200", "--vacuum")
    assert before == (path.read_bytes(), os.stat(path).st_mtime_ns)
    out = capsys.readouterr().out
    assert "would delete 799 of 1,000 rows, ids 1 to 799, about " in out
    assert "max_age" in out
    assert "would give back 0 B of free pages" in out


@pytest.mark.parametrize("larger", ["id > 3000", "id <= 1000", "id % 2 = 0 AND id <= 2000"])
def test_a_dry_run_of_bytes(prune, log, path, query, capsys, larger):
    """
    With `--max-bytes`, the dry run says about how many rows go, also where some are smaller or larger.

    It went by the average of all rows, and said four times as many as were deleted then. When it went by each 20th, it
    said twice as many where a small row and a large one take turns.
    """
    log(4_000)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE records SET message = printf('%' || iif({larger}, 1100, 400) || 'd', id)")
        connection.execute("VACUUM")
    prune("--max-bytes", "2MB", "--dry-run")
    told = re.match(r"would delete about ([\d,]+) of 4,000 rows, ids 1 to \d+, about [12]", capsys.readouterr().out)
    prune("--max-bytes", "2MB")

    ((deleted,),) = query("SELECT sum(count) FROM prunes")
    assert told is not None
    assert deleted == pytest.approx(int(told[1].replace(",", "")), rel=0.1)


def test_nothing_to_delete_is_said(prune, log, capsys):
    """A log that is within its limits is left as it is, and that is no error."""
    log(10)

    assert (0, 0) == (prune("--max-rows", "10"), prune("--max-rows", "10", "--dry-run"))
    assert 2 == capsys.readouterr().out.count("no rows to delete")


def test_the_log_may_be_named_by_the_environment(prune, log, path, query, monkeypatch):
    """Without FILE the log is the one that SQLITE_LOG_DB names."""
    log(10)
    monkeypatch.setenv("SQLITE_LOG_DB", str(path))

    assert 0 == prune("--max-rows", "3", file=None)
    assert [(3,)] == query("SELECT count(*) FROM records")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --max-age, --max-rows or --max-bytes, or --vacuum"),
        (["--dry-run"], "give --max-age"),
        (["--max-age", "yesterday"], "--max-age: 'yesterday' is not a length of time: write 90s"),
        (["--max-rows", "0"], "--max-rows=0: must be 1 or more"),
        (["--max-bytes", "5"], "--max-bytes='5': must be 1,048,576 bytes or more, and is 5 bytes"),
    ],
)
def test_a_wrong_limit_is_named(prune, log, arguments, told):
    """What cannot be done is said with the flag, its value, and what is allowed."""
    log(1)
    with pytest.raises(ValueError, match=r"must be|not a length of time|give") as raised:
        prune(*arguments)

    assert told in str(raised.value)


def test_no_file_is_made(prune, path, tmp_path):
    """A file that is not there is an error, and stays away."""
    with pytest.raises(FileNotFoundError, match=r"app-log.* does not exist: name the file of a SQLiteHandler"):
        prune("--max-rows", "1")
    with pytest.raises(LogFileError, match="is a folder: name a file in it"):
        prune("--max-rows", "1", file=tmp_path)
    with pytest.raises(ValueError, match="Name a FILE, or set SQLITE_LOG_DB"):
        prune("--max-rows", "1", file=None)

    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("content", ["empty", "text", "foreign"])
def test_a_file_of_somebody_else_is_left_alone(prune, path, content):
    """A file that this package did not make is refused, and left as it is."""
    if content == "foreign":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY)")
    else:
        path.write_text("" if content == "empty" else "a text log\n" * 1_000)
    before = path.read_bytes()
    with pytest.raises(ForeignFileError):
        prune("--max-rows", "1")

    assert before == path.read_bytes()
    assert [path.name] == os.listdir(path.parent)


def test_a_damaged_file_is_told_as_such(prune, log, path):
    """A file that lost its end is an error that names what saves the rest."""
    log(1_000)
    path.write_bytes(path.read_bytes()[:8_192])

    with pytest.raises(CorruptFileError, match="it is damaged: `sqlite-log check` says where"):
        prune("--max-rows", "1")


def test_damage_that_is_found_on_the_way_is_told_as_such(prune, log, path):
    """
    Damage in the middle of a file, which deleting is the first to meet, is named with the file and what to do.

    It was once SQLite's bare "database disk image is malformed".
    """
    log(2_000)
    with open(path, "r+b") as file:
        file.seek(4_096 * 20)
        file.write(b"\xff" * 4_096 * 200)

    with pytest.raises(CorruptFileError, match=rf"{re.escape(repr(str(path)))}: it is damaged: `sqlite-log check`"):
        prune("--max-rows", "1")


def test_a_logger_that_is_no_utf_8(prune, log, path, query):
    """A flipped bit in the name of a logger keeps no row: `prune` ended with an error that `sqlite3` raised."""
    log(100)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sources SET logger = CAST(logger || x'ff' AS TEXT)")
    prune("--max-rows", "10")

    assert [(10,)] == query("SELECT count(*) FROM records")


@pytest.mark.parametrize("time", ["'yesterday'", "x'ff'"])
def test_times_that_are_no_integers(prune, log, path, query, time):
    """Rows whose time is none count as young, and the command ends as ever; it ended with an error of Python."""
    log(10)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE records SET created_us = {time}")

    assert 0 == prune("--max-age", "200")
    assert [(10,)] == query("SELECT count(*) FROM records")


def test_a_log_without_its_ledger_is_left_alone(prune, log, path, query):
    """
    Nothing is deleted from a log in which a table is missing, as `check` says: its books could not be kept.

    Without the table `drops`, 12,992 rows were once deleted, and the exit status was 0.
    """
    log(100)
    query("DROP TABLE drops")
    with pytest.raises(CorruptFileError, match="its 'drops' is not that of a log: the file was cut"):
        prune("--max-rows", "1")

    assert [(100,)] == query("SELECT count(*) FROM records")


def test_another_program_that_writes_is_told_as_such(prune, log, path, monkeypatch):
    """When a program that knows nothing of the lock beside the file is writing, the file is named, and what to do."""
    monkeypatch.setattr(command, "_BUSY_TIMEOUT", 0)
    log(100)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyFileError, match=rf"{re.escape(repr(str(path)))}: another process .*: try again when"):
            prune("--max-rows", "1")


@pytest.mark.parametrize("arguments", [["--max-rows", "10"], ["--max-rows", "10", "--archive", "."]])
def test_another_program_that_has_soon_written_is_waited_for(
    prune, log, path, tmp_path, clock, monkeypatch, query, arguments
):
    """
    A program that knows nothing of the lock beside the file is waited for, if it ends its transaction in ten seconds.

    A line of cron failed with nothing deleted when such a program was writing at that moment.
    """
    monkeypatch.setattr(command, "_BUSY_TIMEOUT", 0)
    monkeypatch.chdir(tmp_path)
    log(2_000)
    begin, advance = clock.now, clock.advance
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        def commit(seconds):
            advance(seconds)
            if clock.now - begin >= 9 and other.in_transaction:
                other.execute("COMMIT")

        clock.advance = commit
        assert 0 == prune(*arguments)

    assert [(10,)] == query("SELECT count(*) FROM records")


@pytest.mark.parametrize("denied", ["file", "folder"])
def test_who_may_not_write_is_told_so(prune, log, path, monkeypatch, denied, query):
    """
    Who may read a log and not write to it is told that, and the log is left alone; `--dry-run` only reads.

    It was once said that a process had been killed while it wrote.
    """
    log(100)
    name = str(path) if denied == "file" else str(path.parent)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and path == name) and access(path, mode))
    with pytest.raises(PermissionError, match="you may not write to it: make the file and its folder writable"):
        prune("--max-rows", "1")

    assert [(100,)] == query("SELECT count(*) FROM records")
    assert 0 == prune("--max-rows", "1", "--dry-run")


@pytest.fixture
def move(log, path):
    """Move the log away, and another one of five rows into its place, as a rotation beside a program does."""
    log(5)
    new = path.rename(f"{path}.new")
    log(100)

    def move():
        path.rename(f"{path}.1")
        new.rename(path)

    return move


def test_a_log_that_is_moved_while_it_is_opened(prune, move, path, query, monkeypatch):
    """
    A log is opened under the lock, and left alone if it was moved just then.

    It was opened before, and if it was moved while prune waited for the lock, SQLite took the -wal of the log in its
    place, and wrote it over the old one: rows of both were gone.
    """
    connect, statements = command.connect_read_write, []

    def moved(*arguments, **options):
        with contextlib.closing(WriteLock(str(path))) as lock, lock.hold_if_free(0) as free:
            assert not free
        connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        move()
        return connection

    monkeypatch.setattr(command, "connect_read_write", moved)
    with pytest.raises(LogFileError, match="was moved or replaced meanwhile: run it again"):
        prune("--max-rows", "1")

    assert not [statement for statement in statements if "checkpoint" in statement]
    assert [(5,)] == query("SELECT count(*) FROM records")
    with contextlib.closing(sqlite3.connect(f"{path}.1")) as old:
        assert [(100,)] == old.execute("SELECT count(*) FROM records").fetchall()


def test_a_log_that_is_gone(prune, log, path, monkeypatch):
    """A log that was moved while prune waited for the lock is told as such, and not as one that is protected."""
    log(100)
    hold = WriteLock.hold

    def moved(self, timeout):
        path.rename(f"{path}.1")
        return hold(self, timeout)

    monkeypatch.setattr(WriteLock, "hold", moved)
    with pytest.raises(LogFileError, match="was moved or replaced meanwhile: run it again"):
        prune("--max-rows", "1")


def test_a_log_that_is_moved_between_two_pieces(prune, move, query, monkeypatch):
    """Each piece of work looks whether the log is still there."""
    step = command.Pruner.step

    def moved(self, connection):
        monkeypatch.setattr(command.Pruner, "step", step)
        self.step(connection)
        move()
        return 0.0  # there is more to do

    monkeypatch.setattr(command.Pruner, "step", moved)
    with pytest.raises(LogFileError, match="was moved or replaced meanwhile: run it again"):
        prune("--max-rows", "1")

    assert [(5,)] == query("SELECT count(*) FROM records")


@pytest.mark.parametrize("why", ["compressed", "another program wrote"])
def test_a_moved_log_whose_wal_is_left(prune, move, path, monkeypatch, why):
    """
    A log that was moved and removed keeps its -wal, which a compressed copy needs; and so does one to which another
    program has written since, which may have another log open with the same -wal.
    """
    step, statements = command.Pruner.step, []

    def moved(self, connection):
        monkeypatch.setattr(command.Pruner, "step", step)
        self.step(connection)
        if why == "another program wrote":
            with contextlib.closing(sqlite3.connect(path)) as other, other:
                other.execute("UPDATE levels SET name = 'LOUD' WHERE levelno = 50")
        move()
        if why == "compressed":
            os.unlink(f"{path}.1")
        connection.set_trace_callback(statements.append)
        return 0.0  # there is more to do

    monkeypatch.setattr(command.Pruner, "step", moved)
    with pytest.raises(LogFileError, match="was moved or replaced meanwhile: run it again"):
        prune("--max-rows", "1")

    assert not [statement for statement in statements if "checkpoint" in statement]


def test_a_full_disk_that_copies_on_write(prune, log, path, query, fill, monkeypatch):
    """A piece of work looks whether there is room; a change of the -shm would end the process on btrfs (SIGBUS)."""
    log(100)
    connect = command.connect_read_write

    def full(*arguments, **options):
        connection = connect(*arguments, **options)
        fill(path.parent)
        return connection

    monkeypatch.setattr(command, "connect_read_write", full)
    monkeypatch.setattr("sqlite_log_handler._logfile.forks.keep_open", lambda connection: connection.close())
    with pytest.raises(LogFileError, match=r"its disk is full, .*: make room"):
        prune("--max-rows", "1")
    fill()

    assert [(100,)] == query("SELECT count(*) FROM records")


def refuse_to_delete(monkeypatch, text, code):
    """Have SQLite fail at the next deletion, with an error of its own."""

    def refuse(*_):
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner.Pruner.step", refuse)


def test_a_file_system_that_takes_no_writes_is_told_as_such(prune, log, path, monkeypatch):
    """When only SQLite finds out that nothing can be written, the line says the same."""
    log(100)
    refuse_to_delete(monkeypatch, "attempt to write a readonly database", sqlite3.SQLITE_READONLY_DIRECTORY)

    with pytest.raises(PermissionError, match="you may not write to it"):
        prune("--max-rows", "1")


def test_a_full_disk_is_told_as_such(prune, log, path, monkeypatch):
    """
    On a full disk, where one prunes, the line says what is missing.

    It sent people to the folder for temporary files, which has nothing to do with it.
    """
    log(100)
    refuse_to_delete(monkeypatch, "database or disk is full", sqlite3.SQLITE_FULL)

    with pytest.raises(LogFileError, match=r"its disk is full, .*: make room"):
        prune("--max-rows", "1")


def test_a_row_that_is_too_long_to_be_shown_can_be_deleted(prune, log, path):
    """Commands that read refuse a value of more than 16 MiB; retention has to be able to get rid of it."""
    log(10)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET message = CAST(zeroblob(?) AS TEXT) WHERE id = 1", [17 << 20])

    assert 0 == prune("--max-rows", "5")


def test_the_lock_is_let_go_between_chunks(prune, log, monkeypatch, clock, path, query):
    """Between two chunks a writer of another process gets its turn."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log(100)
    free = []
    advance = clock.advance

    def write(seconds):
        with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(0):
            free.append(query("SELECT count(*) FROM records")[0][0])
        advance(seconds)

    clock.advance = write
    prune("--max-rows", "20")

    assert [90, 80] == free[:2]


def test_a_writer_that_stays_is_an_error(prune, log, path, monkeypatch):
    """When somebody holds the lock for too long, that is said, and nothing is deleted."""
    monkeypatch.setattr(command, "_LOCK_TIMEOUT", 0)
    log(10)
    with (
        contextlib.closing(WriteLock(str(path))) as lock,
        lock.hold(0),
        pytest.raises(TimeoutError, match="writing to"),
    ):
        prune("--max-rows", "1")


def test_files_that_are_copied_under_the_lock_stay_as_they_are(prune, log, path, monkeypatch, clock):
    """When somebody takes the lock for long to copy the files, the command ends and writes nothing back."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    monkeypatch.setattr(command, "_LOCK_TIMEOUT", 0)
    log(100)
    files = [path, path.with_name(f"{path.name}-wal")]
    with contextlib.closing(WriteLock(str(path))) as lock, contextlib.ExitStack() as held:

        def copy(_seconds):
            held.enter_context(lock.hold(0))
            before.extend(file.read_bytes() for file in files)

        before = []
        clock.advance = copy
        with pytest.raises(TimeoutError, match="writing to"):
            prune("--max-rows", "20")
        assert before == [file.read_bytes() for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("linked", [False, True])
def test_a_reader_that_stays_is_said(prune, log, path, capsys, clock, linked):
    """
    A reader that keeps the WAL from being written back ends the work, with status 1 and a line about it.

    By a link to the log there was no WAL to be seen, and as much was written into it as the reader stayed for.
    """
    log(20_000)
    file = path
    if linked:
        file = path.with_name("link.db")
        file.symlink_to(path)
    begin = clock.now
    with contextlib.closing(connect_read_only(str(path))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        assert 1 == prune("--max-bytes", "2MB", file=file)

    assert "not done to the end: a reader holds a snapshot since" in capsys.readouterr().err
    assert 10 <= clock.now - begin <= 12
    assert 0 == prune("--max-bytes", "2MB", file=file)


def test_the_wal_of_a_program_with_max_bytes(prune, log, path):
    """
    Beside a reader, the command makes the WAL no longer than a program does whose `max_bytes` the file fits.

    With `--max-age`, 16.5 MB of a program with `max_bytes="20MB"` became 32.3 MB, and it dropped all records from then
    on.
    """
    log(4_000)
    max_bytes = os.stat(path).st_size * 32 // 30  # so large is the share of the file
    with contextlib.closing(connect_read_only(str(path))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        assert 1 == prune("--max-age", "1s")
        assert os.stat(path).st_size + os.stat(f"{path}-wal").st_size <= max_bytes * 1.1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--max-rows", "10"], ["--vacuum"], ["--max-rows", "10", "--vacuum"]])
def test_a_reader_that_keeps_a_small_wal_is_said(prune, log, path, capsys, clock, held_wal, arguments):
    """
    What is deleted stands in the WAL until that is written back, and a reader is in the way of that.

    Beside a reader `--max-rows` once deleted all but ten rows of 2.8 MB, the file and its WAL took 5.7 MB from then on,
    and the exit status was 0. `--vacuum` beside it said "nothing to delete", and gave nothing back.
    """
    log(2_000)
    prune("--max-rows", "1000")
    begin, before = clock.now, os.stat(path).st_size
    with held_wal():
        assert 1 == prune(*arguments)

    named = f" (process {os.getpid()}, which is this one)" if os.path.exists("/proc/locks") else ""
    assert f" or before{named}; end that reader, and run it again" in capsys.readouterr().err
    assert 10 <= clock.now - begin <= 12
    assert 0 == prune(*arguments)
    assert not os.path.exists(f"{path}-wal")
    assert os.stat(path).st_size < before or "--vacuum" not in arguments


def test_a_reader_that_is_soon_gone_is_waited_for(prune, log, path, clock):
    """A reader that lets go of its snapshot within ten seconds costs these seconds, and nothing else."""
    log(2_000)
    advance = clock.advance
    with contextlib.closing(connect_read_only(str(path))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()

        def let_go(seconds):
            if seconds == 1.0 and reader.in_transaction:
                reader.execute("COMMIT")
            advance(seconds)

        clock.advance = let_go
        assert 0 == prune("--max-rows", "10")


def test_a_reader_beside_nothing_to_do_is_no_error(prune, log, path, held_wal):
    """When there is nothing to delete, what a reader keeps in the WAL is not of this command, and no error of it."""
    log(100)
    with held_wal():
        assert 0 == prune("--max-rows", "100")


def test_a_reader_keeps_a_file_from_being_written_anew(prune, log, path, held_wal):
    """With a reader in the way a file without auto_vacuum stays as it is: written anew it would be in the WAL twice."""
    log(2_000, auto_vacuum=False)
    with held_wal():
        before = os.stat(f"{path}-wal").st_size
        assert 1 == prune("--vacuum")
        assert before == os.stat(f"{path}-wal").st_size


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_long_work_shows_a_bar_on_a_terminal_only(prune, log, monkeypatch, clock, kind):
    """On a terminal work that takes long shows how far it has come, and clears the line; elsewhere there is no bar."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    monkeypatch.setattr(command, "_BAR_AFTER", 0)
    log(100)
    stream = kind()
    monkeypatch.setattr(sys, "stderr", stream)
    prune("--max-rows", "50")

    shown = stream.getvalue()
    if kind is io.StringIO:
        assert "" == shown
    else:
        assert "\rdeleting [################################........] 80%\x1b[K" in shown
        assert shown.endswith("\r\x1b[K")


def test_short_work_shows_no_bar(prune, log, monkeypatch):
    """Work that is done in half a second shows nothing."""
    log(100)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    prune("--max-rows", "50")

    assert "" == stream.getvalue()
