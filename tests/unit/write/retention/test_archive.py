"""
The archive's folder: names, notes, what a killed process leaves, and limits.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from archives import KINDS, account, contents_of, parts_in

from sqlite_log_handler import LogReader
from sqlite_log_handler._read import parts as read_parts
from sqlite_log_handler._write.retention import archive as store
from sqlite_log_handler._write.retention import parts as write_parts
from sqlite_log_handler._write.retention.archive import Archive
from sqlite_log_handler._write.retention.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Log  # type: ignore[attr-defined]

    from sqlite_log_handler._logfile.forks import Connection

DAY = 86_400


@pytest.fixture
def make(log: Log, folder: Path) -> Iterator[Callable[..., Archive]]:
    """Make archives of the log."""
    made: list[Archive] = []

    def make(kind: str = "jsonl.gz", path: str = log.path, **limits: Any) -> Archive:
        archive = Archive(str(folder), path, kind=kind, limits=Limits(**limits), now=lambda: log.wall)
        made.append(archive)
        return archive

    yield make

    for archive in made:
        archive.lock.close()


def archive_all(archive: Archive, log: Log, reading: Connection) -> list[str]:
    """Archive what there is; return the names of the parts."""
    names = []
    with archive.lock.hold(0):
        for part in archive.parts(reading):
            assert archive.note(log.connection, part)
            names.append(part.name)
    return names


def test_a_part_for_each_day(make, log, reading, folder, kind, path):
    """Each day of rows is a part, named after the day; the newest row stays in the file."""
    log.fill(40, age=3 * DAY, step=DAY / 10)

    names = archive_all(make(kind), log, reading)

    assert [f"app-log.2023-11-{day}.{kind}" for day in (11, 12, 13, 14, 15)] == names == parts_in(folder)
    assert ([*range(1, 41)], 0) == account(path, folder)


def test_a_later_chunk_of_a_day_adds_a_part(make, log, reading, folder, kind):
    """What is archived later of the same day gets the next number; that of a part that was moved away is not used."""
    archive = make(kind)
    names = []
    for _ in range(3):
        log.fill(10)
        names += archive_all(archive, log, reading)
        os.rename(folder / names[-1], folder.parent / names[-1])

    assert [f"app-log.2023-11-14{number}.{kind}" for number in ("", ".2", ".3")] == names


def test_the_head_and_the_gaps(make, log, reading, folder, kind):
    """A part says what it has, in its head and in the note, and has the gaps before its rows."""
    log.fill(10, step=1)
    log.connection.execute("INSERT INTO levels VALUES (35, 'NOTICE')")
    log.connection.execute("UPDATE records SET levelno = 35 WHERE id = 5")
    for after_id, count in ((0, 3), (4, 5), (9, 7), (10, 9)):
        values = (after_id - 1, after_id, 1_000, 2_000, 1, "queue_full", "app", 20, count)  # -1 is a damaged id
        log.connection.execute("INSERT INTO drops VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    archive = make(kind)

    (name,) = archive_all(archive, log, reading)
    head, drops, rows = contents_of(folder / name)
    ((log_id,),) = log.ask("SELECT log_id FROM marks")

    assert ("app-log", log_id, 1, 9, 9) == tuple(head[key] for key in ("log", "log_id", "first_id", "last_id", "rows"))
    assert (rows[0]["created_us"], rows[-1]["created_us"]) == (head["since_us"], head["until_us"])
    assert (35, 2, 8, {"20": "INFO", "35": "NOTICE"}) == tuple(
        head[key] for key in ("max_levelno", "drops", "dropped", "levels")
    )
    assert [(-1, 0, 3), (3, 4, 5)] == [(drop["id"], drop["after_id"], drop["count"]) for drop in drops]
    assert head["processes"] == [{key: drops[0][key] for key in head["processes"][0]}]
    assert [(name, 1, 9, head["since_us"], head["until_us"], 35, 2, 8)] == log.ask(
        "SELECT name, first_id, last_id, since_us, until_us, max_levelno, drops, dropped FROM archives"
    )


def test_a_row_has_what_readers_know(make, log, reading, folder, kind):
    """A row in a part has all columns of `logs`, and the template and the run besides."""
    log.connection.execute("INSERT INTO sources VALUES (2, 'shop', '/shop.py', 7, 'pay', 'paid %s')")
    log.connection.execute(
        "INSERT INTO records "
        "VALUES (1, 1000000, 30, 2, 1, NULL, 7, 'T', 'task', 'paid \"é\"', 'E', 'E: x', 's', '{\"a\": [1]}')"
    )
    log.fill(1)

    (name,) = archive_all(make(kind), log, reading)
    (row,) = contents_of(folder / name).rows
    names = [column for (_, column, *_) in log.ask("PRAGMA table_info(logs)")]
    expected = dict(zip(names, log.ask("SELECT * FROM logs WHERE id = 1")[0], strict=True))
    if kind == "parquet":
        row["time"] = row["time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    else:
        expected["attributes"] = {"a": [1]}

    assert expected | {"template": "paid %s", "started_us": 0, "program": "app"} == row


def test_a_clock_that_goes_back(make, log, reading, folder):
    """Rows of an earlier day stand in the part in which they come, and its head and note have their times."""
    log.fill(3)
    log.fill(3, age=10 * DAY)
    log.fill(3)

    (name,) = archive_all(make(), log, reading)

    assert 10 * DAY == round(
        (contents_of(folder / name).head["until_us"] - contents_of(folder / name).head["since_us"]) / 1e6
    )


def test_rows_that_somebody_deleted(make, log, reading, folder, path):
    """A hole that somebody has made by hand ends a part, and its rows count as deleted without an archive."""
    log.fill(20)
    log.connection.execute("DELETE FROM records WHERE id < 3 OR id BETWEEN 8 AND 10")

    names = archive_all(make(), log, reading)

    assert 2 == len(names)
    assert ([*range(3, 8), *range(11, 21)], 5) == account(path, folder)


def test_rows_that_somebody_wrote_over(make, log, reading, folder, path):
    """Rows in the middle that are written over by hand, and not deleted, end no part."""
    log.fill(20)
    log.connection.execute(
        "UPDATE records SET message = 'removed', exc_text = NULL, stack_info = NULL, attributes = NULL WHERE id % 3 = 0"
    )

    (name,) = archive_all(make(), log, reading)

    assert 6 == [row["message"] for row in contents_of(folder / name).rows].count("removed")
    assert ([*range(1, 21)], 0) == account(path, folder)


def test_a_note_takes_130_bytes(make, log, reading):
    """A part takes some 130 bytes of the log for its note, whatever it has."""
    log.fill(10)
    archive_all(make(), log, reading)
    ((before,),) = log.ask("PRAGMA page_count")
    log.connection.execute(
        """
        WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10001)
        INSERT INTO archives (name, first_id, last_id, since_us, until_us, max_levelno, drops, dropped, bytes, crc32)
        SELECT replace(name, '.jsonl', '.' || n || '.jsonl'), n << 12, n + 1 << 12, since_us, until_us, 40, 9, 9, 40000,
            (1 << 32) - n FROM numbers, archives
        """
    )
    ((after,),) = log.ask("PRAGMA page_count")
    ((page,),) = log.ask("PRAGMA page_size")

    assert 130 == round((after - before) * page / 10_000, -1)


def test_a_part_that_was_being_written(make, log, reading, folder):
    """What a killed process has left of a part is removed, and the part begun anew; other files stay."""
    for name in (
        "app-log.2023-11-14.jsonl.gz.partial",
        "app-log.2023-11-01.parquet.partial",
        "b.2023-11-14.jsonl.gz.partial",
    ):
        (folder / name).write_bytes(b"begun")
    log.fill(3)

    archive_all(make(), log, reading)

    assert ["app-log.2023-11-14.jsonl.gz", "b.2023-11-14.jsonl.gz.partial"] == parts_in(folder)


@pytest.mark.parametrize("other", KINDS)
def test_a_part_that_was_not_noted(make, log, reading, folder, path, kind, other):
    """A part that has its name and no note is written anew, also in another format, so that no row is in two."""
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    log.fill(10)
    first = make(other)
    with first.lock.hold(0):
        first.write(reading, 1, 5)

    names = archive_all(make(kind), log, reading)

    assert [f"app-log.2023-11-14.{kind}"] == names == parts_in(folder)
    assert ([*range(1, 11)], 0) == account(path, folder)


@pytest.mark.parametrize("data", [None, b"", b"anything"])
def test_a_part_of_another_log(make, log, reading, folder, path, data):
    """
    A file was removed and begun anew, so ids begin at 1 again: the parts of the first one are not written over.

    Nor is a file that has the name of a part and is none.
    """
    log.fill(5)
    (name,) = archive_all(make(), log, reading)
    if data is not None:
        (folder / name).write_bytes(data)
    kept = (folder / name).read_bytes()
    log.connection.execute("DELETE FROM archives")
    log.connection.execute("UPDATE marks SET archived_id = 0, log_id = 'another'")

    assert ["app-log.2023-11-14.2.jsonl.gz"] == archive_all(make(), log, reading)
    assert [] == archive_all(make(max_bytes=1_000_000), log, reading)
    assert kept == (folder / name).read_bytes()
    assert ([*range(1, 6)], 0) == account(path, folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_in_the_place_of_a_part(make, log, reading, folder, kind):
    """
    A pipe that has the name of a part is taken for a part of somebody else, and never opened.

    Opening it held the thread of the archive for ever, and nobody heard of that.
    """
    log.fill(40)
    os.mkfifo(folder / f"app-log.2023-11-14.{kind}")

    assert [f"app-log.2023-11-14.2.{kind}"] == archive_all(make(kind, max_bytes=1_000_000), log, reading)


@pytest.mark.parametrize("limits", [{}, {"max_bytes": 1_000_000}])
def test_a_part_of_a_copy_of_the_log(make, log, reading, folder, path, limits):
    """
    An image has a log in it, or a backup is restored: other rows get the same ids, and the file has the same `log_id`.

    The last part of the first log was written over with rows of the second. With a limit, all of its parts were
    deleted, as if the limit had removed them.
    """
    log.fill(5)
    names = archive_all(make(), log, reading)
    kept = (folder / names[0]).read_bytes()
    log.connection.execute("DELETE FROM archives")
    log.connection.execute("UPDATE processes SET pid = 2")
    log.connection.execute("UPDATE marks SET archived_id = 0")

    archive = make(**limits)
    names += archive_all(archive, log, reading)
    assert [] == archive_all(archive, log, reading)

    assert ["app-log.2023-11-14.jsonl.gz", "app-log.2023-11-14.2.jsonl.gz"] == names
    assert sorted(names) == sorted(parts_in(folder))
    assert kept == (folder / names[0]).read_bytes()
    assert [(4, 0)] == log.ask("SELECT archived_id, unarchived FROM marks")


@pytest.mark.parametrize(("limits", "later"), [({"max_age": 3 * DAY}, {}), ({"max_bytes": 10_000}, {"max_bytes": 1})])
def test_a_part_of_before_a_backup_was_restored(make, log, reading, folder, limits, later):
    """
    A part of the time between a backup and its restoration stays until the limits would remove it if it had a note.

    A backup went on in the old folder, in a process that it knew. As soon as it had archived other rows with the same
    ids, the parts of that time were deleted, minutes old, with a limit of a year: no other place had their rows.
    """

    def go_on() -> None:
        log.fill(10)
        archive_all(make(), log, reading)
        assert [] == archive_all(make(**limits), log, reading)

    log.fill(10)
    archive_all(make(), log, reading)
    log.fill(10)
    (kept,) = archive_all(make(), log, reading)
    log.connection.execute("DELETE FROM archives WHERE name = ?", (kept,))
    log.connection.execute("UPDATE records SET created_us = created_us + 1")
    log.connection.execute("UPDATE marks SET archived_id = 9")
    go_on()
    ((noted,),) = log.ask("SELECT sum(bytes) FROM archives")
    assert [] == archive_all(make(max_bytes=noted), log, reading)  # what has a note below goes first
    assert kept in parts_in(folder)

    go_on()
    log.connection.execute("DELETE FROM archives WHERE id < (SELECT max(id) FROM archives)")  # as if all had expired
    go_on()
    assert kept in parts_in(folder)

    log.wall += 4 * DAY
    assert [] == archive_all(make(**limits | later), log, reading)
    assert kept not in parts_in(folder)


def test_no_file_is_written_over(make, log, reading, folder):
    """A file that has got the name of a part meanwhile stays as it is; the part gets another name the next time."""
    log.fill(5)
    archive = make()
    name = "app-log.2023-11-14.jsonl.gz"
    with archive.lock.hold(0), pytest.raises(FileExistsError):
        archive.write(reading, 1, 4, lambda: bool((folder / name).write_bytes(b"anything")) and False)

    assert b"anything" == (folder / name).read_bytes()
    assert ["app-log.2023-11-14.2.jsonl.gz"] == archive_all(archive, log, reading)


def note(archive: Archive, log: Log, reading: Connection, first_id: int, last_id: int, **changes: Any) -> bool:
    """Write a part and note it."""
    with archive.lock.hold(0):
        part = archive.write(reading, first_id, last_id)
        return archive.note(log.connection, part._replace(head=part.head._replace(**changes)))


def test_a_part_is_refused(make, log, reading, folder):
    """A part whose rows another process has archived meanwhile gets no note, and neither does that of another file."""
    log.fill(10)
    archive = make()
    with archive.lock.hold(0):
        late = archive.write(reading, 1, 3)
    assert note(archive, log, reading, 1, 5)

    assert not archive.note(log.connection, late._replace(name="app-log.2023-11-14.3.jsonl.gz"))
    assert not note(archive, log, reading, 6, 9, log_id="another")
    assert [(1, 5)] == log.ask("SELECT first_id, last_id FROM archives")
    assert [(5, 0)] == log.ask("SELECT archived_id, unarchived FROM marks")


def test_rows_that_were_given_up(make, log, reading, path, folder):
    """Rows before a part that no part has are counted as deleted without an archive, once."""
    log.fill(10)

    assert note(make(), log, reading, 5, 7)
    assert ([5, 6, 7, 8, 9, 10], 4) == account(path, folder)


def test_rows_that_were_deleted_while_they_were_archived(make, log, reading, path, folder):
    """
    Rows that retention deletes when they are in the part already are archived.

    `prunes` says what was archived when they were deleted. It had one line corrected afterwards, which was not always
    that of these rows.
    """
    log.fill(100)
    archive = make()
    with archive.lock.hold(0):
        part = archive.write(reading, 1, 50)
        log.prune(log.pruner(max_rows=80))
        assert [(20, 0)] == log.ask("SELECT count, archived FROM prunes")
        assert [(20,)] == log.ask("SELECT unarchived FROM marks")
        archive.note(log.connection, part)

    assert ([*range(1, 101)], 0) == account(path, folder)
    assert [(20, 0)] == log.ask("SELECT count, archived FROM prunes")
    assert [(0,)] == log.ask("SELECT unarchived FROM marks")


def test_what_is_pruned_is_told_apart(make, log, reading):
    """
    Rows that are deleted count as archived if a part has them.

    Those that were given up for a later part counted as archived too, so a reader did not say that they are missing.
    """
    log.fill(100)
    archive = make()
    assert note(archive, log, reading, 1, 15)
    log.prune(log.pruner(max_rows=80))

    assert [(20, 15)] == log.ask("SELECT count, archived FROM prunes")
    assert [(20, 5)] == log.ask("SELECT archived_id, unarchived FROM marks")

    assert note(archive, log, reading, 31, 60)
    log.prune(log.pruner(max_rows=50))
    assert [(50, 35)] == log.ask("SELECT count, archived FROM prunes")
    assert [(60, 15)] == log.ask("SELECT archived_id, unarchived FROM marks")


@pytest.mark.parametrize("limits", [{"max_age": 3.6 * DAY}, {"max_bytes": 2_000}])
def test_limits_of_the_archive(make, log, reading, folder, path, limits):
    """The oldest parts go: those whose rows are all too old, and those beyond the bytes. Their rows stay counted."""
    log.fill(40, age=5 * DAY, step=DAY / 8)
    names = archive_all(make(**limits), log, reading)
    left = parts_in(folder)

    assert names[-len(left) :] == left
    assert 2 <= len(left) < len(names)
    if "max_bytes" in limits:
        assert sum(os.stat(folder / name).st_size for name in left) <= 2_000
    ids, gone = account(path, folder)
    assert 40 == len(ids) + gone
    assert [*range(gone + 1, 41)] == ids


@pytest.mark.parametrize(
    ("ages", "left"),
    [((9, -365, 5), ()), ((9, -365, 5, 1), (1,)), ((9, -365, 1, 5), (-365, 1, 5)), ((9, -365), (-365,))],
)
def test_parts_of_the_future(make, log, reading, ages, left):
    """
    A part with a time in the future goes with the old ones around it, and no part goes before a young one.

    A clock was a year ahead for one record: all later parts stayed, however old they were.
    """
    archive = make(max_age=3 * DAY)
    for age in (*ages, 0):
        log.fill(1, age=age * DAY)
        archive_all(make(), log, reading)
    archive.expire(log.connection)

    until = log.ask("SELECT until_us FROM archives ORDER BY id")
    assert [*left] == [round((log.wall - us / 1e6) / DAY) for (us,) in until]


def test_a_clock_that_is_ahead_when_a_part_is_noted(make, log, reading, folder):
    """
    A limit of age removes all parts that are too old by the clock at once, unlike rows.

    Their rows count as deleted from the archive from then on, also while they are in the file.
    """
    log.fill(40, age=5 * DAY, step=DAY / 8)
    assert 5 < len(archive_all(make(max_age=365 * DAY), log, reading)) == len(parts_in(folder))
    log.fill(10)
    log.wall += 366 * DAY
    archive_all(make(max_age=365 * DAY), log, reading)

    assert [] == parts_in(folder)
    with LogReader(log.path) as reader:
        books = reader.books()
        assert (50, 49, 1) == (books.rows, books.expired, books.unmoved)


@pytest.mark.parametrize("name", ["{}/app-log.2023-11-11.jsonl.gz", "../app-log.2023-11-11.jsonl.gz", "app.toml"])
def test_a_note_that_names_another_file(make, log, reading, folder, name):
    """
    A limit of the archive deletes parts in its folder alone, whatever the log names as one.

    `sqlite-log prune` on a log that a stranger had made deleted any file of the user, as one of a part too old.
    """
    precious = [folder.parent / "app-log.2023-11-11.jsonl.gz", folder / "app.toml"]
    for file in precious:
        file.write_text("precious")
    log.fill(1)
    log.connection.execute(
        "INSERT INTO archives VALUES (1, ?, -2, -1, 0, 0, 20, 0, 0, 1, 1)", (name.format(folder.parent),)
    )
    archive = make(max_age=DAY)
    archive.expire(log.connection)
    archive_all(archive, log, reading)

    assert [] == log.ask("SELECT name FROM archives")
    assert [True, True] == [file.exists() for file in precious]


@pytest.mark.parametrize("number", ["9" * 200, "9" * 5_000, "2\0"])
@pytest.mark.parametrize("stem", ["app-log", "\u00e4" * 120])
def test_a_note_that_names_what_no_file_can_be(make, log, reading, stem, number):
    """
    The note of a part whose name no file can have goes with a limit, and the archive goes on.

    A stranger's log ended `prune` with an error of Python, about digits or a null byte, or left no name for a part.
    """
    log.fill(40, age=5 * DAY, step=DAY / 8)
    name = f"{stem}.{time.strftime('%Y-%m-%d', time.gmtime(log.wall - 5 * DAY))}.{number}.jsonl.gz"
    log.connection.execute("INSERT INTO archives VALUES (1, ?, -2, -1, 0, 0, 20, 0, 0, 1, 1)", (name,))
    archive = make(max_age=365 * DAY)
    archive.expire(log.connection)

    assert archive_all(archive, log, reading)
    assert [] == log.ask("SELECT 1 FROM archives WHERE name = ?", name)


def test_a_note_that_names_a_part_in_another_folder(make, log, reading, folder):
    """A log whose `log_id` was damaged learns it from the parts in its folder, and from no other file that it notes."""
    log.fill(10)
    (name,) = archive_all(make(), log, reading)
    ((known,),) = log.ask("SELECT log_id FROM marks")
    os.rename(folder / name, folder.parent / name)
    log.connection.execute("UPDATE archives SET name = ?", (f"../{name}",))
    log.connection.execute("UPDATE marks SET log_id = 'text'")
    log.fill(10)
    archive_all(make(), log, reading)

    assert [(known,)] != log.ask("SELECT log_id FROM marks")


@pytest.mark.parametrize("value", ["'text'", "x'ff'", "9223372036854775807", "-9223372036854775808"])
@pytest.mark.parametrize("column", ["first_id", "last_id", "until_us", "bytes", "name"])
@pytest.mark.parametrize("limits", [{"max_age": 3.6 * DAY}, {"max_bytes": 2_000}])
def test_a_note_that_was_damaged(make, log, reading, column, value, limits):
    """A value of another type in the note of a part ends neither the archive nor `prune` in an error of Python."""
    log.fill(40, age=5 * DAY, step=DAY / 8)
    archive_all(make(), log, reading)
    log.connection.execute(f"UPDATE archives SET {column} = {value} WHERE id = 1")
    archive = make(**limits)
    archive.expire(log.connection)
    log.fill(10)
    archive.lock.close()
    with archive.lock.hold(0):
        parts = [archive.note(log.connection, part) for part in archive.parts(reading)]

    assert [True] * max(1, len(parts)) == parts


def test_a_part_that_lost_its_note_and_was_not_deleted(make, log, reading, folder):
    """A process that was killed between the two leaves a part without a note: with a limit, the next one deletes it."""
    log.fill(40, age=5 * DAY, step=DAY / 8)
    names = archive_all(make(), log, reading)
    archive = make(max_age=3.6 * DAY)
    archive.expire(log.connection)
    left = [name for (name,) in log.ask("SELECT name FROM archives ORDER BY id")]
    assert left == names[-len(left) :] != names

    assert [] == archive_all(make(), log, reading)
    assert names == parts_in(folder)
    assert [] == archive_all(make(max_age=3.6 * DAY), log, reading)
    assert left == parts_in(folder)


def test_a_part_of_an_earlier_file_is_beyond_no_limit(make, log, reading, folder):
    """A part of a file that was removed stays, though the same process goes on, and has parts of later rows."""
    log.fill(10)
    (kept,) = archive_all(make(), log, reading)
    log.connection.execute("DELETE FROM archives")
    log.connection.execute("UPDATE marks SET log_id = lower(hex(randomblob(8)))")
    log.fill(10)
    archive_all(make(), log, reading)

    assert [] == archive_all(make(max_bytes=1), log, reading)
    assert kept in parts_in(folder)


def test_a_part_that_somebody_removed_before_a_limit(make, log, reading, folder):
    """A run whose limits remove a part goes on when somebody has removed its file already."""
    log.fill(40, age=5 * DAY, step=DAY / 8)
    names = archive_all(make(), log, reading)
    (folder / names[0]).unlink()
    archive = make(max_age=3.6 * DAY)
    archive.expire(log.connection)

    assert [] == archive_all(archive, log, reading)


def test_a_part_without_a_note_where_no_other_has_one(make, log, reading, folder):
    """A part that has lost its note ends no run when no part is left that has one."""
    log.fill(10)
    names = archive_all(make(), log, reading)
    log.connection.execute("DELETE FROM archives")
    log.fill(10)
    names += archive_all(make(max_age=DAY), log, reading)

    assert (2, sorted(names)) == (len(names), parts_in(folder))


def test_a_part_that_vanishes_while_it_is_looked_at(make, log, reading, folder, monkeypatch):
    """
    Somebody removes a part that lost its note, just when a run has read its head: the run goes on.

    It ended with a FileNotFoundError, and the operator heard that the archive fails.
    """
    log.fill(40, age=5 * DAY, step=DAY / 8)
    archive_all(make(), log, reading)
    make(max_age=3.6 * DAY).expire(log.connection)
    log.fill(2)

    def read_and_remove(path):
        head = write_parts.read_head(path)
        os.unlink(path)
        return head

    monkeypatch.setattr(store, "read_head", read_and_remove)
    assert 1 == len(archive_all(make(max_age=3.6 * DAY), log, reading))


def test_a_part_whose_processes_are_forgotten(make, log, reading, folder):
    """A part that loses its note to a limit goes, also when no row in the file is left of the processes that it has."""
    log.fill(40, age=5 * DAY, step=DAY / 8)
    archive_all(make(), log, reading)
    log.connection.execute("UPDATE processes SET pid = 2")
    archive = make(max_age=3.6 * DAY)
    archive.expire(log.connection)

    assert [] == archive_all(archive, log, reading)
    assert [(name,) for name in parts_in(folder)] == log.ask("SELECT name FROM archives ORDER BY id")


def test_one_process_at_a_time(make):
    """While one archives a log in a folder, another one does not; one that archives another log does."""
    first, second, other = make(), make(), make(path="/srv/other.db")
    with first.lock.hold(0):
        with pytest.raises(TimeoutError), second.lock.hold(0):
            pass
        with other.lock.hold(0):
            pass


def test_a_lock_that_somebody_deletes(make, log, reading, folder, path):
    """
    If the file of the lock is deleted in the middle of a part, the part is given up, and the other process goes on.

    Both wrote the same part under one name. The second one had its own refused, and deleted the file, which the first
    one had noted: its rows were in no place any more.
    """
    log.fill(10)
    first, second = make(), make()
    lock = folder / "app-log-archive-lock"

    with first.lock.hold(0):
        parts = first.parts(reading, last_id=3)
        part = next(parts)
        with pytest.raises(TimeoutError, match="the file of the lock was deleted"):
            first.write(reading, 1, 9, lambda: lock.unlink(missing_ok=True) is not None)
        with second.lock.hold(0):
            again = next(second.parts(reading))
            assert part.name != again.name
            assert None is next(parts, None)
            assert second.note(log.connection, again)

    assert ([*range(1, 11)], 0) == account(path, folder)


def test_a_lock_that_somebody_deletes_before_a_note(make, log, reading, folder, path):
    """
    If the file of the lock is deleted before a part is noted, the process that makes it anew leaves that part alone.

    It took the part for one of a killed process, and deleted it. Then the first process noted it, and its rows went.
    """
    log.fill(10)
    first, second = make(), make()
    with first.lock.hold(0):
        part = next(first.parts(reading, last_id=3))
        (folder / "app-log-archive-lock").unlink()
        with second.lock.hold(0):
            second._remove_leftovers(reading)
        assert first.note(log.connection, part)

    assert [part.name] == parts_in(folder)


def test_a_part_that_was_noted_stays(make, log, reading, folder, path):
    """
    A part that has its note keeps its file, whatever the step that noted it said.

    A Ctrl-C could come between the commit of the note and its answer. The next step noted the part once more, was
    refused, and so the file was deleted, though its rows were free to be deleted from the log.
    """
    log.fill(10)
    archive = make()
    with archive.lock.hold(0):
        for part in archive.parts(reading):
            assert archive.note(log.connection, part)
            assert not archive.note(log.connection, part)

    assert ([*range(1, 11)], 0) == account(path, folder)


def test_a_folder_that_is_full(make, log, reading, folder, monkeypatch):
    """What was written of a part is removed when there is no room for the rest."""
    log.fill(10)
    archive = make()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with archive.lock.hold(0), pytest.raises(OSError, match="No space left"):
        archive.write(reading, 1, 9)
    assert [] == parts_in(folder)


def test_rows_that_shrink_without_end(make, log, reading, folder, kind, path, monkeypatch):
    """
    Rows of which readers would say that they were made to fill a disk go into parts that they take.

    A program logged the same long traceback again and again. Its part had 600 times the size of its file, the rows were
    deleted, and from then on no reader took the part.
    """
    for module in (write_parts, read_parts):
        monkeypatch.setattr(module, "GRANTED", 1 << 18)
        monkeypatch.setattr(module, "GROWTH", 20)
    monkeypatch.setattr(write_parts, "_CHUNK_ROWS", 10)
    log.fill(300, width=5_000)

    names = archive_all(make(kind), log, reading)

    assert 4 < len(names) < 20
    assert ([*range(1, 301)], 0) == account(path, folder)
    with LogReader(folder) as reader:
        assert 299 == reader.count()


def test_rows_of_very_many_processes(make, log, reading, folder, kind, path, monkeypatch):
    """Rows that very many processes wrote go into several parts, so that no head names more than a reader takes."""
    monkeypatch.setattr(write_parts, "_MOST_KEYS", 5)
    log.fill(40)
    log.connection.execute("UPDATE records SET process_id = id")
    log.connection.executemany(
        "INSERT INTO processes VALUES (?, 'host', ?, 'Job', 0, 'job')", [(id_, id_) for id_ in range(2, 41)]
    )

    names = archive_all(make(kind), log, reading)

    assert 39 == sum(len(contents_of(folder / name).head["processes"]) for name in names)
    assert 5 >= max(len(contents_of(folder / name).head["processes"]) for name in names)
    assert ([*range(1, 41)], 0) == account(path, folder)


def test_parts_are_private(make, log, reading, folder):
    """A part can be read by its owner only, as the log."""
    log.fill(3)
    (name,) = archive_all(make(), log, reading)

    assert 0o600 == os.stat(folder / name).st_mode & 0o777


def test_a_link_in_the_place_of_a_part(make, log, reading, folder, tmp_path):
    """A link that somebody has put where a part is to be written is not followed."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    archive = make()
    log.fill(3)
    with archive.lock.hold(0):
        os.symlink(victim, folder / "app-log.2023-11-14.jsonl.gz.partial")
        with pytest.raises(FileExistsError):
            archive.write(reading, 1, 2)

    assert "kept" == victim.read_text()
