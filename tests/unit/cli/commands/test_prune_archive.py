"""
`sqlite-log prune --archive`: rows are archived before they go.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys

import pytest
from archives import account, parts_in

from sqlite_log_handler._cli.commands import prune as command
from sqlite_log_handler._write.retention import parts
from sqlite_log_handler._write.retention.archive import Archive

NOW = 1_700_000_000.0
DAY = 86_400


@pytest.fixture
def prune(path, clock, archived_log):
    """Run the command on a log of 40 rows, eight a day, with an archive: `prune("--max-rows", "5")`."""
    archived_log(40)

    def prune(*arguments, archive=True):
        folder = ["--archive", str(path.parent / "archive")] if archive else []
        options = command.run.parser().parse_args([str(path), *folder, *arguments])
        return command.run(options, now=lambda: NOW, clock=clock, sleep=clock.advance)

    return prune


@pytest.fixture
def archived_log(path, folder, monkeypatch):
    """Fill the test's log: `archived_log(count)`. Parts are of JSON lines."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    def fill(count):
        from sqlite_log_handler import SQLiteHandler  # noqa: PLC0415 - as the other tests of the command

        SQLiteHandler(path).close()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO sources VALUES (1, 'app', '/app.py', 1, 'main', '')")
            connection.execute("INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 0, 'app')")
            connection.executemany(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (?, 20, 1, 1, 'm')",
                [(round((NOW - (count - number) * DAY / 8) * 1e6),) for number in range(1, count + 1)],
            )

    return fill


def test_what_goes_is_archived(prune, path, folder, capsys):
    """What is deleted is in the archive, a file for each day, and what is not stays in the file alone."""
    assert 0 == prune("--max-rows", "10")

    assert "archived 30 rows in 4 files" in capsys.readouterr().out
    assert ([*range(1, 41)], 0) == account(path, folder)
    assert 4 == len(parts_in(folder))


def test_rows_that_come_after_the_newest_were_deleted(prune, path, folder, make_handler, logger):
    """
    What a program logs after a person has deleted all rows is archived before it goes.

    It had ids up to which the log was archived, so it went without.
    """
    assert 0 == prune("--max-rows", "1")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM records")
    logger.addHandler(make_handler())
    for number in range(20):
        logger.info("after %d", number)
    logger.handlers[0].flush()
    assert 0 == prune("--max-rows", "1")

    assert ([*range(1, 60)], 0) == account(path, folder)


def test_nothing_to_archive(prune, path, folder, capsys):
    """When nothing is to be deleted, nothing is archived."""
    assert 0 == prune("--max-rows", "100")

    assert "nothing to archive\nno rows to delete" in capsys.readouterr().out
    assert [] == parts_in(folder)


def test_again(prune, path, folder):
    """The next run adds a part to the day at which the last one has ended."""
    prune("--max-rows", "14")
    prune("--max-rows", "10")

    assert ([*range(1, 41)], 0) == account(path, folder)
    assert 5 == len(parts_in(folder))


def test_limits_of_the_archive(prune, path, folder, capsys):
    """
    The archive has limits of its own, with which the command may be run alone.

    It removed files, and said only that there was nothing to delete.
    """
    prune("--max-rows", "5")
    before = parts_in(folder)
    capsys.readouterr()
    assert 0 == prune("--archive-max-age", "3d")

    assert before[-len(parts_in(folder)) :] == parts_in(folder) != before
    ids, gone = account(path, folder)
    assert [*range(gone + 1, 41)] == ids
    assert 1 == len(before) - len(parts_in(folder))
    assert "removed from the archive: 1 file, 8 rows\n" in capsys.readouterr().out


def test_a_dry_run_of_limits_of_the_archive(prune, path, folder, capsys):
    """`--dry-run` says which files of the archive would be deleted. It said that there was nothing to delete."""
    prune("--max-rows", "5")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE archives SET name = CAST(x'ff' AS TEXT) WHERE id = 2")
    before = parts_in(folder)
    assert 0 == prune("--archive-max-age", "3d", "--dry-run")

    assert before == parts_in(folder)
    assert "would remove from the archive: 1 file, 8 rows\n" in capsys.readouterr().out


def fill(path, *widths):
    """Add 2,000 rows of each width, in this order."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for width in widths:
            connection.execute(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000) "
                "INSERT INTO records (created_us, levelno, source_id, process_id, message) "
                "SELECT ?, 20, 1, 1, printf('%' || ? || 'd', n) FROM numbers",
                (round(NOW * 1e6), width),
            )


@pytest.mark.parametrize("off", [False, True], ids=["estimate", "an estimate that is far off"])
def test_small_rows_before_large_ones(prune, path, folder, monkeypatch, off):
    """
    With `--max-bytes`, rows are archived and deleted until the log is within it, whatever the first rows take.

    Where they were smaller than the others it took five runs, each of which ended with status 0.
    """
    fill(path, 10, 1_000)
    if off:
        monkeypatch.setattr(command, "_last_of_excess", lambda _, state, limits: state.first_id + 499)
    assert 0 == prune("--max-bytes", "2MB")

    assert 1_300_000 < os.stat(path).st_size < 2_000_000
    assert ([*range(1, 4_041)], 0) == account(path, folder)


def test_room_for_a_program_that_starts_then(prune, path):
    """
    With `--max-bytes`, some of the rows that stay are archived as well.

    Else a program that was started with the same limit dropped records until it had archived some itself.
    """
    fill(path, 100, 1_000)
    prune("--max-bytes", "2MB")

    with contextlib.closing(sqlite3.connect(path)) as connection:
        first_id, last_id = connection.execute("SELECT min(id), max(id) FROM records").fetchone()
        ((archived_id,),) = connection.execute("SELECT archived_id FROM marks")
    assert 0.2 < (archived_id - first_id) / (last_id - first_id) < 0.3


def test_an_archive_that_takes_nothing(prune, path, monkeypatch, capsys):
    """When rows beyond a limit are neither archived nor deleted, it says so, and ends with status 1."""
    monkeypatch.setattr(Archive, "parts", lambda *_, **__: iter(()))
    assert 1 == prune("--max-rows", "10")

    assert "done to the end: rows beyond the limits are not archived: run it again" in capsys.readouterr().err


def test_without_an_archive(prune, path, folder):
    """Rows that are deleted without an archive are counted."""
    prune("--max-rows", "10", archive=False)
    prune("--max-rows", "5")

    assert ([*range(31, 41)], 30) == account(path, folder)


@pytest.mark.parametrize("limits", [["--archive-max-age", "1d"], ["--max-rows", "5", "--archive-max-bytes", "2MB"]])
def test_a_limit_of_no_archive(prune, limits):
    """A limit of an archive without its folder is a mistake."""
    with pytest.raises(ValueError, match="a limit of the archive needs its folder: give --archive"):
        prune(*limits, archive=False)


def test_a_folder_that_is_missing(prune, folder):
    """A folder that does not exist is not made."""
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        prune("--max-rows", "5")


def test_a_folder_that_is_full(prune, path, folder, monkeypatch):
    """When the archive cannot be written, the folder is named, and neither anything deleted nor a begun part left."""

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"archive.*No space left.*: make room"):
        prune("--max-rows", "5")

    assert ([*range(1, 41)], 0) == account(path, folder)
    assert [] == parts_in(folder)


def test_another_process_archives_it(prune, path, folder, monkeypatch):
    """While a program archives this log, the command waits for it, and then gives up."""
    monkeypatch.setattr(command, "_LOCK_TIMEOUT", 0.01)
    other = Archive(str(folder), str(path))
    with contextlib.closing(other.lock), other.lock.hold(0), pytest.raises(TimeoutError, match="is writing to"):
        prune("--max-rows", "5")


def test_another_folder(prune, path, folder, monkeypatch):
    """A part of rows that another process has archived elsewhere meanwhile is removed, and the command goes on."""
    write = Archive.write
    taken = []

    def and_another(archive, reading, *ids):
        part = write(archive, reading, *ids)
        if not taken:
            taken.append(part)
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                noted = 1, "x", 1, part.head.last_id, 0, part.head.until_us, 20, 0, 0, 1, 1
                connection.execute("INSERT INTO archives VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", noted)
                connection.execute(f"UPDATE marks SET archived_id = {part.head.last_id}")
        return part

    monkeypatch.setattr(Archive, "write", and_another)
    assert 0 == prune("--max-rows", "10")

    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert [(1, "x")] == connection.execute("SELECT first_id, name FROM archives WHERE name = 'x'").fetchall()
        connection.execute("DELETE FROM archives WHERE name = 'x'")
    assert [*range(taken[0].head.last_id + 1, 41)] == account(path, folder)[0]
    assert taken[0].name not in parts_in(folder)


def test_rows_that_go_meanwhile(prune, path, folder, monkeypatch):
    """Rows that a program deletes while the command archives them are not archived, and the command goes on."""
    ask = parts.ask
    deleted = []

    def delete(connection, sql, parameters=()):
        if "group_concat" in sql and not deleted:
            deleted.append(1)
            with contextlib.closing(sqlite3.connect(path)) as other, other:
                other.execute("DELETE FROM records WHERE id <= 3")
        return ask(connection, sql, parameters)

    monkeypatch.setattr(parts, "ask", delete)
    assert 0 == prune("--max-rows", "10")

    assert [*range(4, 41)] == account(path, folder)[0]


def test_rows_that_come_meanwhile(prune, path, folder, monkeypatch):
    """Rows that a program logs while the command archives are archived too before they push others out of the file."""
    parts = Archive.parts

    def and_log_more(*arguments, **options):
        yield from parts(*arguments, **options)
        monkeypatch.setattr(Archive, "parts", parts)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (?, 20, 1, 1, 'm')",
                [(round(NOW * 1e6),)] * 20,
            )

    monkeypatch.setattr(Archive, "parts", and_log_more)
    assert 0 == prune("--max-rows", "10")

    assert ([*range(1, 61)], 0) == account(path, folder)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [(51, 60)] == connection.execute("SELECT min(id), max(id) FROM records").fetchall()
