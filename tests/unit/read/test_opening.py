"""
Files that are no logs, damaged ones, and those of somebody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import hostile
import pytest
from logged import record

import sqlite_log_handler
from sqlite_log_handler import (
    BusyFileError,
    CorruptFileError,
    EmptyFileError,
    ForeignFileError,
    LimitError,
    LogFileError,
    LogReader,
    MissingFileError,
    NewerSchemaError,
    UnreadableFileError,
)
from sqlite_log_handler._read import opening
from sqlite_log_handler._read.opening import named_errors, open_log


def test_a_file_that_is_not_there(tmp_path):
    """A missing file has an error of its own, is also a FileNotFoundError, and is not made."""
    with pytest.raises(MissingFileError, match="does not exist: name the file of a SQLiteHandler") as caught:
        LogReader(tmp_path / "no.db")

    assert isinstance(caught.value, FileNotFoundError)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_goes_while_it_is_opened(log, path, monkeypatch, when):
    """A log that is moved away just before or after SQLite opens it is missing: it was unreadable, or had no size."""
    log(record("a"))
    connect = opening.connect_read_only

    def moved(*arguments, **options):
        if when == "before":
            os.replace(path, f"{path}.1")
        connection = connect(*arguments, **options)
        if when == "after":
            os.replace(path, f"{path}.1")
        return connection

    monkeypatch.setattr(opening, "connect_read_only", moved)
    with pytest.raises(MissingFileError, match="does not exist"):
        LogReader(path)


@pytest.mark.parametrize("name", ["x" * 253, os.path.join(*["x" * 200] * 3)], ids=["name", "path"])
@pytest.mark.skipif(os.name != "posix", reason="other limits")
def test_a_path_that_is_too_long_for_sqlite(log, path, name):
    """A log that was moved to a longer path is refused for that: it was an OSError, or said to be unreadable."""
    log(record("a"))
    moved = path.parent / name
    moved.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, moved)

    with pytest.raises(LogFileError, match="and SQLite takes 247 and 504: choose a shorter one"):
        LogReader(moved)


def test_no_folder_for_temporary_files():
    """
    Where nothing but the folder of the log can be written to, the error names the way out.

    In a container with a read-only root, the disk was said to be broken.
    """
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_GETTEMPPATH
    with pytest.raises(UnreadableFileError, match="name one in SQLITE_TMPDIR"), named_errors("app-log.db"):
        raise error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe(path):
    """A pipe is refused as such: SQLite would wait for ever for who writes to it."""
    os.mkfifo(path)
    with pytest.raises(UnreadableFileError, match="is a device, a pipe or a socket"):
        LogReader(path)


@pytest.mark.skipif(sys.platform == "win32", reason="does not tell how much of a file is on the disk")
def test_a_hole_gives_no_time(log, path):
    """A question may take longer in a larger file, and a hole, which costs nothing to make, makes none larger."""
    log(record("a"))
    before = open_log(str(path))
    os.truncate(path, 100 << 30)
    after = open_log(str(path))

    assert before.budget.seconds == pytest.approx(after.budget.seconds, abs=0.5)
    before.connection.close()
    after.connection.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_in_the_place_of_the_journal(path):
    """A pipe named like the journal is refused: SQLite would open it, and try again after each signal, also Ctrl-C."""
    path.touch()
    os.mkfifo(f"{path}-journal")
    link = path.with_name("link.db")
    link.symlink_to(path)

    for name in (path, link):
        with pytest.raises(UnreadableFileError, match="-journal' is not a file"):
            LogReader(name)


def test_files_that_are_no_logs(path, tmp_path):
    """Text, empty files, other databases and newer logs are told apart."""
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    with contextlib.closing(sqlite3.connect(tmp_path / "newer.db")) as connection:
        connection.executescript(f"PRAGMA application_id = {0x534C6F67}; PRAGMA user_version = 99")
    path.touch()
    (tmp_path / "text.db").write_text("no database\n" * 100)

    for name, error in [
        ("app-log.db", EmptyFileError),
        ("other.db", ForeignFileError),
        ("text.db", ForeignFileError),
        ("newer.db", NewerSchemaError),
    ]:
        with pytest.raises(error):
            LogReader(tmp_path / name)


def test_a_name_that_looks_like_a_uri(log, path, tmp_path):
    """A question mark, a percent sign and a hash in a name are part of the name."""
    log(record("here"))
    odd = tmp_path / "100%41?mode=memory&cache=shared#x.db"
    shutil.copy(path, odd)

    with LogReader(odd) as reader:
        assert ["here"] == [row.message for row in reader]


def test_nothing_can_be_written(log, reading):
    """The connection of a reader refuses to write, whatever is asked of it."""
    log(record())

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reading()._scan.require_open().execute("DELETE FROM records")


def test_a_huge_value(log, change, path):
    """A row larger than any that is logged costs no memory: it is an error that says how to go on."""
    log(record("one"), record("two"))
    change("UPDATE records SET message = CAST(zeroblob(5 * 1024 * 1024) AS TEXT) WHERE id = 1")

    with LogReader(path) as reader:
        with pytest.raises(LimitError, match="a row of more than 576 KiB: read on after that row"):
            list(reader.rows())
        assert ["two"] == [row.message for row in reader.rows(after_id=1)]


def test_text_that_is_no_utf_8(log, change, reading, messages):
    """Bytes that are no text are shown as the character for that, and the other rows as they are."""
    log(record("größe"), record("two"))
    change("UPDATE records SET message = CAST(X'61FF62' AS TEXT) WHERE id = 2")

    assert ["größe", "a\N{REPLACEMENT CHARACTER}b"] == messages()
    assert "a\N{REPLACEMENT CHARACTER}b" == json.loads(list(reading().json_lines())[1])["message"]


@pytest.mark.parametrize(
    "filters", [{"pattern": r"\w.b"}, {"text": "a\N{REPLACEMENT CHARACTER}"}, {"where": "k~a.b"}, {"where": "!one"}]
)
def test_a_pattern_on_text_that_is_no_utf_8(log, change, reading, filters):
    """
    A filter that Python decides takes a text that is no UTF-8 as it is shown.

    The command line ended with status 130 and no word, as by Ctrl-C: `sqlite3` did not call our function.
    """
    log(record("one", one=1), record("two"))
    bad = "CAST(X'61FF62' AS TEXT)"
    change(f"""UPDATE records SET message = {bad}, attributes = '{{"k":"' || {bad} || '"}}' WHERE id = 2""")

    assert [2] == [row.id for row in reading().rows(**filters)]


def test_a_damaged_file(log, path, reading):
    """A damaged file has an error that says so, and names what tells more and what saves the rest."""
    log(*(record(str(number) * 50) for number in range(5_000)))
    with open(path, "r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096 * 50)

    with pytest.raises(CorruptFileError, match="it is damaged: `sqlite-log check` says where"):
        list(reading())


def test_a_file_without_its_tables(log, change, reading):
    """A file that says it is a log and has not its tables is named so."""
    log(record())
    change("DROP VIEW logs; DROP TABLE records")

    with pytest.raises(
        CorruptFileError, match="its 'records' is not that of a log: the file was cut, or was not made by this package"
    ):
        list(reading())


def test_a_file_that_somebody_keeps_for_himself(log, change, path):
    """A file that is locked for everybody is an error that says to try again, after `timeout`."""
    log(record())
    change("PRAGMA journal_mode = DELETE")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyFileError, match="try again when that process is done"):
            LogReader(path, timeout=0.01)


def test_a_log_in_wal_mode_that_somebody_keeps_for_himself(log, path):
    """In WAL mode, a program whose locking mode is EXCLUSIVE is the only one that keeps readers out."""
    log(record())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        LogReader(path, timeout=0.01).close()
        connection.execute("ROLLBACK")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyFileError, match="try again when that process is done"):
            LogReader(path, timeout=0.01)


AS_NOBODY = """
import os, sys, urllib.parse  # which pathlib imports late, and another user may not read the standard library
from sqlite_log_handler import LogFileError, LogReader
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with LogReader(sys.argv[1]) as reader:
        print(reader.notice, [row.message for row in reader])
except LogFileError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def as_nobody():
    """
    Read a copy of a log as a user who may not write to its folder.

    The folder is not one of pytest's: those are closed to other users, and closed again by each run of pytest.
    """
    if not hasattr(os, "setuid"):
        pytest.skip("no users on this system")
    above = Path(tempfile.gettempdir()).resolve()
    if os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in (above, *above.parents)):
        pytest.skip(f"nobody but root may look into {above}")

    def read(path, mode=0o644, *, linked=False, folder_mode=0o555):
        with tempfile.TemporaryDirectory() as folder:
            for name in os.listdir(path.parent):
                shutil.copy(path.parent / name, folder)
                os.chmod(f"{folder}/{name}", mode)
            file = f"{folder}/{path.name}"
            if linked:
                os.symlink(file, f"{folder}/link.db")
                file = f"{folder}/link.db"
            os.chmod(folder, folder_mode)
            try:
                command = [sys.executable, "-c", AS_NOBODY, file]
                package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
                environment = {**os.environ, "PYTHONPATH": package}
                run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            finally:
                os.chmod(folder, 0o755)
        assert "" == run.stderr
        return run.stdout

    return read


def test_without_the_right_to_write(log, path, as_nobody):
    """A log in WAL mode can be read by somebody who may not write to its folder, where SQLite alone would refuse."""
    log(record("here"))

    assert "None ['here']\n" == as_nobody(path)


def test_a_folder_that_we_may_not_enter(log, path, as_nobody):
    """
    A log in a folder that is closed to the reader has the error of a file that may not be read.

    It was said not to exist, and `check` called the parts of a closed archive missing.
    """
    log(record())

    told = as_nobody(path, folder_mode=0)
    assert re.fullmatch(
        r"UnreadableFileError '.*': make the file and its folder readable \(Permission denied\)\n", told
    )


@pytest.fixture
def stranger(path, monkeypatch):
    """Make this process one that may read and write the log, and neither owns it nor is root, nor is in its group."""
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1, raising=False)
    monkeypatch.setattr(os, "getegid", lambda: os.stat(path).st_gid + 1, raising=False)


@pytest.mark.parametrize("mode", [0o640, 0o660])
def test_a_reader_leaves_no_files_to_which_the_program_cannot_write(log, path, tmp_path, stranger, mode):
    """
    A reader that may write to the folder of a log, and does not own it, leaves no -wal and no -shm behind.

    They had the mode of the log and belonged to the reader and its group. So one look at the log of a program that was
    not running kept it from writing when it ran: each of its records was dropped as it closed.
    """
    log(record("here"))
    os.chmod(path, mode)
    names = sorted(os.listdir(tmp_path))

    with LogReader(path) as reader:
        assert (None, ["here"]) == (reader.notice, [row.message for row in reader])
        assert names == sorted(os.listdir(tmp_path))

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as program:
        program.execute("UPDATE records SET message = 'in the WAL'")
        with LogReader(path) as reader:
            assert (None, ["in the WAL"]) == (reader.notice, [row.message for row in reader])


def test_the_journal_mode_of_a_log_that_is_read_without_its_wal(log, path, stranger):
    """The mode is that of the file: where SQLite is kept from making a -wal, it calls the mode `delete`."""
    log(record("here"))
    os.chmod(path, 0o640)

    with LogReader(path) as reader:
        assert "wal" == reader.stats().journal_mode


@pytest.mark.parametrize(("mode", "above", "in_group"), [(0o660, 0o770, 1), (0o660, 0o2770, 0), (0o606, 0o770, 0)])
def test_a_reader_of_a_shared_log_sees_what_is_written_later(
    log, path, tmp_path, stranger, monkeypatch, mode, above, in_group
):
    """Where users share a log, each may write to the -wal of the others, and a reader sees what comes, as ever."""
    log(record("here"))
    os.chmod(path, mode)
    os.chmod(tmp_path, above)
    if in_group:
        monkeypatch.setattr(os, "getegid", lambda: os.stat(path).st_gid)

    with LogReader(path) as reader, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as program:
        assert ["here"] == [row.message for row in reader]
        program.execute("UPDATE records SET message = 'later'")
        assert ["later"] == [row.message for row in reader]


def test_a_reader_of_a_log_without_wal_waits_for_its_writer(log, path, change, stranger):
    """A log on a file system without WAL gets no such files, so its reader respects the locks as ever."""
    log(record("here"))
    change("PRAGMA journal_mode = DELETE")

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as program:
        program.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyFileError):
            LogReader(path, timeout=0)


@pytest.mark.parametrize("linked", [False, True])
def test_a_dead_wal_without_the_right_to_write(log, path, tmp_path, as_nobody, linked):
    """The rows in a WAL that may not be read are left out, and it is said how to see them, by a link to the log too."""
    log(record("in the file"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE records SET message = 'in the WAL'")
        wal = (tmp_path / "app-log.db-wal").read_bytes()
        main = path.read_bytes()
    path.write_bytes(main)
    (tmp_path / "app-log.db-wal").write_bytes(wal)

    said = as_nobody(path, linked=linked)
    assert "is read without its -wal, so the newest rows are left out" in said
    assert said.endswith(" ['in the file']\n")


@pytest.mark.parametrize("linked", [False, True])
def test_a_journal_that_has_to_be_rolled_back(log, path, tmp_path, change, as_nobody, linked):
    """What a killed process left half written is not read as if it were whole: it is said what to do first."""
    log(*(record(str(number) * 100) for number in range(500)))
    change("PRAGMA journal_mode = DELETE")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE records SET message = 'half'")
        left = {name: (tmp_path / name).read_bytes() for name in ("app-log.db", "app-log.db-journal")}
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)

    said = as_nobody(path, linked=linked)
    assert said.startswith("UnreadableFileError")
    assert "half" not in said


def test_without_the_right_to_read(log, path, as_nobody):
    """A file that may not be read has an error of its own."""
    log(record())

    assert as_nobody(path, 0o000).startswith("UnreadableFileError")


@pytest.mark.parametrize(
    ("views", "size", "fits"),
    [
        *((40, 1_100, True), (12, 4_000, True), (3, 16_000, True), (1, 48_000, True)),
        *((80, 100, False), (40, 4_000, False), (12, 16_000, False), (4, 48_000, False), (1, 50_000, False)),
    ],
)
def test_a_schema_that_is_to_fill_the_memory(path, views, size, fits):
    """
    What an owner adds is read, and a schema of megabytes is refused before SQLite has all of it in memory.

    Views of 4 MB took 126 MB, and those of 90 MB took 294. Then 270 views of 4 kB were read, and took 48 MB beside the
    85 that `brief` takes for the lines of a large log.
    """
    hostile.make(path, "".join(f"CREATE VIEW v{number} AS SELECT '{'x' * size}';" for number in range(views)))
    refused = pytest.raises(LimitError, match="SQLite keeps all of them in memory")
    with contextlib.nullcontext() if fits else refused, LogReader(path) as reader:
        assert 1 == reader.count()
