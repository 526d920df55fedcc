"""
The archive of a program that logs: its options, when rows are archived, and what retention may delete.
"""

from __future__ import annotations

import threading

import pytest
from archives import account, contents_of, parts_in
from programs import DAY, Held

from sqlite_log_handler._write.retention.archiver import archived_only, archiver
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.retention.pruner import Pruner, look

# Options --------------------------------------------------------------------------------------------------------------


def test_options(tmp_path):
    """Without an archive there is none; with one, its options are read."""
    assert None is archiver(None, Limits())
    made = archiver(tmp_path, Limits(max_rows=1), unarchived="delete", max_age="7d", max_bytes="2MB")

    assert made is not None
    assert made._deletes


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"folder": 7}, TypeError, "archive=7: must be a path"),
        ({"folder": ""}, ValueError, "archive='': must be the path of a folder; '.' is the current one"),
        ({"folder": "missing"}, FileNotFoundError, "archive='missing': there is no folder"),
        ({"folder": ".", "limits": Limits()}, ValueError, "nothing leaves the file without a limit"),
        ({"folder": ".", "unarchived": []}, ValueError, "must be 'keep' or 'delete'"),
        ({"folder": ".", "unarchived": "drop"}, ValueError, "unarchived='drop': must be 'keep' or 'delete'"),
        ({"folder": ".", "max_age": "soon"}, ValueError, "archive_max_age"),
        ({"folder": ".", "max_bytes": 10}, ValueError, "archive_max_bytes=10: must be 1,048,576 bytes or more"),
        ({"folder": None, "max_age": "7d"}, ValueError, "archive_max_age needs an archive"),
        ({"folder": None, "unarchived": "delete"}, ValueError, "unarchived needs an archive"),
    ],
)
def test_wrong_options(options, error, text):
    """Each error names the option, the value and what is allowed."""
    with pytest.raises(error, match=text):
        archiver(**{"limits": Limits(max_rows=1), **options})


# When ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "archived"), [(50, 0), (51, 26), (80, 55), (120, 95)])
def test_ahead_of_max_rows(make, log, folder, path, rows, archived):
    """It begins when rows that are not archived make half of `max_rows`, and goes on until they make a quarter."""
    program = make(max_rows=100)
    log.fill(rows)

    program.run()

    assert archived == program.archived_id
    assert ([*range(1, rows + 1)], 0) == account(path, folder)
    assert min(rows, 99 if rows > 100 else 100) == log.rows[2]


def test_ahead_of_max_bytes(make, log, folder, path):
    """It begins when rows that are not archived take half of what `max_bytes` leaves them, and leaves a quarter."""
    program = make(max_bytes=1 << 20)
    room = program.limits.file_bytes - program.limits.free_bytes
    begun = []
    number = 0
    while not begun:
        number += 1
        log.fill(100, width=100)
        state = look(log.connection, log.path)
        program.run()
        if program.archived_id:
            begun.append(state.live * (state.last_id - program.archived_id) / state.rows / room)

    assert 0.4 < state.live / room < 0.6
    assert 0.15 < begun[0] < 0.3
    assert ([*range(1, number * 100 + 1)], 0) == account(path, folder)


def test_ahead_of_max_age(make, log, folder):
    """
    It begins when the oldest row has half of `max_age`, and takes whole days, as long as there are any.

    So a log that is kept for weeks has one part a day.
    """
    program = make(max_age=8 * DAY)
    log.fill(40, age=5 * DAY, step=DAY / 8)

    program.run()

    assert ["09", "10", "11"] == [name.split("-")[3][:2] for name in parts_in(folder)]
    assert 40 == log.rows[2]


def test_a_file_that_was_begun_anew(make, log, folder):
    """
    What retention wanted of a file that was removed says nothing of the next one, whose ids begin at 1 again.

    Each of its rows would be archived as soon as it comes, in a part of its own.
    """
    program = make(max_rows=100)
    log.fill(120)
    program.run()
    log.connection.execute("DELETE FROM records")
    log.connection.execute("DELETE FROM archives")
    log.connection.execute("UPDATE marks SET archived_id = 0, log_id = 'another'")
    program.pruner.opened(log.path)
    log.fill(20)
    program.run()

    assert 1 == len(parts_in(folder))
    assert 0 == program.archived_id


def test_it_wakes_up_for_max_age(make, log):
    """With nothing logged, the next step is due when the oldest row has half of its age."""
    program = make(max_age=8 * DAY)
    log.fill(10, age=3 * DAY)

    assert DAY == pytest.approx(program.step(), rel=0.01)


def test_rows_of_an_early_clock(make, log, folder, path):
    """
    A machine that starts in 1970 logs rows that are old at once: they do not make a part each.
    """
    program = make(max_age=8 * DAY)
    for _ in range(20):
        log.fill(1, age=40 * 365 * DAY)
        program.run()
        log.clock.advance(1)
        log.wall += 1

    assert len(parts_in(folder)) < 3
    assert ([*range(1, 21)], 0) == account(path, folder)


def test_it_ends_when_there_is_nothing_to_do(make, log):
    """Without rows to archive there is no thread."""
    program = make(max_rows=100)
    log.fill(120)
    program.run()
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()

    assert None is program.archiver._run


def test_it_ends_before_a_hole(make, log):
    """
    Rows that somebody has deleted are nothing to archive, and the thread sleeps.

    It was begun again with each step, ten times a second, while the rows to archive ended in such a hole.
    """
    program = make(max_rows=100)
    log.fill(90)
    program.run()
    log.fill(45)
    log.connection.execute("DELETE FROM records WHERE id BETWEEN 60 AND 130")

    program.run()

    assert {program.step() for _ in range(3)} <= {None, float("inf")}


# What may be deleted --------------------------------------------------------------------------------------------------


def test_nothing_is_deleted_before_it_is_archived(make, log, monkeypatch, folder, path):
    """While the archive is too slow, rows stay, and the thread that commits does not wait for it."""
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(500)
    for _ in range(5):
        program.pruner.step(log.connection)
    assert 500 == log.rows[2]

    held.go.set()
    program.run()
    assert 99 == log.rows[2]
    assert ([*range(1, 501)], 0) == account(path, folder)


def test_an_archive_that_is_too_slow_costs_rows_with_delete(make, log, monkeypatch, folder, path):
    """With "delete", what a limit asks for urgently goes all the same, and is counted."""
    held = Held(monkeypatch)
    program = make(max_rows=100, deletes=True)
    log.fill(105)
    for _ in range(5):
        program.pruner.step(log.connection)
    assert 105 == log.rows[2]  # not urgent

    log.fill(400)
    for _ in range(5):
        program.pruner.step(log.connection)
    assert 99 == log.rows[2]
    assert [(505 - 99,)] == log.ask("SELECT unarchived FROM marks")

    held.go.set()
    program.run()
    ids, gone = account(path, folder)
    assert [*range(gone + 1, 506)] == ids


def test_it_gets_ahead_again(make, log, monkeypatch, folder, path):
    """
    Rows that are deleted before it could read them do not make it begin again with the next ones that are deleted.

    It begins half-way, so that it has something to save.
    """
    held = Held(monkeypatch)
    program = make(max_rows=100, deletes=True)
    log.fill(60)
    program.pruner.step(log.connection)
    log.fill(400)
    for _ in range(3):
        program.pruner.step(log.connection)
    held.go.set()
    program.run()

    (name,) = parts_in(folder)
    assert (362 + 459) // 2 == contents_of(folder / name).head["first_id"]
    ids, gone = account(path, folder)
    assert 460 == len(ids) + gone
    assert ids == [*range(461 - len(ids), 461)]


def test_no_room_is_explained(make, log, monkeypatch):
    """When new records are dropped because rows wait for the archive, the handler says so."""
    held = Held(monkeypatch)
    program = make(max_bytes=1 << 20)
    log.fill(3_000, width=400)
    program.pruner.step(log.connection)
    said = log.no_room(program.pruner)
    held.go.set()

    assert said is not None
    assert said.endswith("and the rows in it wait for the archive")
    assert 3_000 == log.rows[2]


def test_make_room_takes_a_part_that_is_ready(make, log):
    """A commit that finds no room notes a part that is ready, and deletes its rows, before it gives up."""
    program = make(max_bytes=1 << 20)
    log.fill(3_000, width=400)
    program.step()

    assert None is log.no_room(program.pruner)
    assert 0 < program.archived_id


def test_what_another_process_archives(log):
    """Retention beside an archive that another makes deletes rows up to what is archived."""
    pruner = Pruner(log.path, Limits(max_rows=10), bound=archived_only, say=log.said.append, clock=log.clock)
    log.fill(100)
    log.prune(pruner)
    assert 100 == log.rows[2]

    log.connection.execute("UPDATE marks SET archived_id = 40")
    log.prune(pruner)
    assert (41, 100, 60) == log.rows
