"""
The archive of a program that logs: when rows are archived, what retention may delete, and what happens when it fails.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from archives import account, contents_of, parts_in

from sqlite_log_handler._write.retention import archiver as archiver_module
from sqlite_log_handler._write.retention import parts
from sqlite_log_handler._write.retention.archive import Archive
from sqlite_log_handler._write.retention.archiver import ArchivedOnly, Archiver, archiver
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.retention.pruner import Pruner, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Log  # type: ignore[attr-defined]

DAY = 86_400


class Program:
    """A program that logs: its retention and its archive, whose thread is waited for."""

    def __init__(self, log: Log, folder: Path, *, deletes: bool = False, **limits: Any) -> None:
        self.log = log
        self.limits = Limits(**limits)
        options: dict[str, Any] = {"say": log.said.append, "now": lambda: log.wall, "clock": log.clock}

        def make(path: str) -> Archive:
            return Archive(str(folder), path, kind="jsonl.gz", say=log.said.append)

        self.archiver = Archiver(make, self.limits, deletes=deletes, **options)
        self.pruner = Pruner(log.path, self.limits, archived=self.archiver, **options)
        self.pruner.opened(log.path)

    def step(self) -> float | None:
        """Do a step of retention, and wait until the thread of the archive has something for the next one."""
        due = self.pruner.step(self.log.connection)
        run = self.archiver._run
        if run is not None and run.part is None and not run.ended:
            run.changed.acquire()
        return due

    def run(self) -> None:
        """Step until there is nothing more to do."""
        for _ in range(1_000):
            if self.step() not in {0, archiver_module.POLL}:
                return
        raise AssertionError("it does not end")

    @property
    def archived_id(self) -> int:
        """Up to which id rows are archived."""
        return int(self.log.ask("SELECT archived_id FROM marks")[0][0])


@pytest.fixture
def make(log: Log, folder: Path) -> Iterator[Callable[..., Program]]:
    """Make programs."""
    made: list[Program] = []

    def make(**options: Any) -> Program:
        made.append(Program(log, folder, **options))
        return made[-1]

    yield make

    for program in made:
        program.archiver.stop()
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()


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


# What may be deleted --------------------------------------------------------------------------------------------------


class Held:
    """Hold the thread of the archive at its first part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came = threading.Event()
        self.go = threading.Event()
        write = Archive.write

        def held(archive: Archive, *arguments: Any) -> Any:
            self.came.set()
            self.go.wait()
            return write(archive, *arguments)

        monkeypatch.setattr(Archive, "write", held)


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
    pruner = Pruner(log.path, Limits(max_rows=10), archived=ArchivedOnly(), say=log.said.append, clock=log.clock)
    log.fill(100)
    log.prune(pruner)
    assert 100 == log.rows[2]

    log.connection.execute("UPDATE marks SET archived_id = 40")
    log.prune(pruner)
    assert (41, 100, 60) == log.rows


# When it fails --------------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Make the archive fail as long as the list has something."""
    errors: list[Exception] = [OSError(28, "No space left on device")]
    write = Archive.write

    def fail(archive: Archive, *arguments: Any) -> Any:
        if errors:
            raise errors[0]
        return write(archive, *arguments)

    monkeypatch.setattr(Archive, "write", fail)
    return errors


def test_a_full_disk_is_told_once(make, log, monkeypatch, folder, path):
    """An archive that fails costs a line when it begins to, and one when it works again; it is tried less and less."""
    errors = failing(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    waits = []
    for _ in range(8):
        program.step()
        waits.append(program.step())
        log.clock.advance(waits[-1])

    assert [5, 10, 20, 40, 80, 80, 80, 80] == waits
    assert [
        f"cannot archive in {str(folder)!r} (OSError: [Errno 28] No space left on device): rows stay; trying again"
    ] == log.said
    errors.clear()
    program.run()
    log.clock.advance(80)
    program.run()
    assert ["archiving again"] == log.said[1:]
    assert ([*range(1, 151)], 0) == account(path, folder)


def test_another_process_archives(make, log, folder):
    """While another process archives this log, nothing is said, and a second later it is tried again."""
    program = make(max_rows=100)
    log.fill(150)
    other = Archive(str(folder), log.path)
    with other.hold():
        program.step()
        assert 1 == program.step()
    other.close()

    assert ([], []) == (log.said, parts_in(folder))


def test_a_part_that_is_refused_is_removed(make, log, folder, path):
    """Another process has archived the same rows into another folder: the part is not noted, and is removed."""
    program = make(max_rows=100)
    log.fill(150)
    program.step()
    assert 1 == len(parts_in(folder))
    log.connection.execute("INSERT INTO archives SELECT 1, 'elsewhere', 1, 125, 0, 0, 20, 0, 0, 1, 1 FROM marks")
    log.connection.execute("UPDATE marks SET archived_id = 125")
    program.run()
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()

    assert [] == parts_in(folder)
    log.connection.execute("DELETE FROM archives")


def test_a_time_that_is_no_number(make, log, folder, path):
    """Somebody has put a text in the place of a time: the row counts as one of 1970, and the log is archived."""
    program = make(max_age=DAY)
    log.fill(30, age=3 * DAY)
    log.connection.execute("UPDATE records SET created_us = 'yesterday' WHERE id <= 10")
    program.run()

    assert ([*range(1, 31)], 0) == account(path, folder)
    assert [(29,)] == log.ask("SELECT archived_id FROM marks")


def test_the_end_of_a_program(make, log, folder):
    """At the end, a part that is being written may become ready; no other one is begun before `stop`."""
    program = make(max_rows=100)
    log.fill(150, age=5 * DAY, step=DAY / 40)
    program.pruner.step(log.connection)
    program.archiver.await_part(60)
    program.pruner.step(log.connection)  # which notes the part
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()
    program.pruner.step(log.connection)

    assert None is program.archiver._run
    assert 1 == len(parts_in(folder))
    assert [(1,)] == log.ask("SELECT count(*) FROM archives")


def test_an_earlier_part_does_not_end_the_wait(make, log, monkeypatch, folder):
    """At the end it is waited for the part that is being written, though nobody has waited for the one before."""
    program = make(max_age=8 * DAY)
    log.fill(40, age=5 * DAY, step=DAY / 8)
    program.pruner.step(log.connection)
    run = program.archiver._run
    while run.part is None:
        pass
    held = Held(monkeypatch)
    program.pruner.step(log.connection)  # notes the first
    held.came.wait()
    threading.Timer(0.05, held.go.set).start()
    program.archiver.await_part(60)

    assert run.part is not None
    program.archiver.stop()


def test_a_thread_that_is_stopped_with_a_part(make, log, folder):
    """A part that is ready when the program ends is given up, and the thread ends."""
    program = make(max_rows=100)
    log.fill(150)
    program.step()
    assert 1 == len(parts_in(folder))
    program.archiver.stop()
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()

    assert [] == log.ask("SELECT * FROM archives")


def held_with_a_reader(make, log, monkeypatch):
    """Return the thread's hold, a program whose archive is at work, and the connection that reads for it."""
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    program.pruner.step(log.connection)
    while program.archiver._run.reader is None:
        pass
    return held, program, program.archiver._run.reader


def test_the_reader_is_kept_still(make, log, monkeypatch):
    """
    The WAL is written back between two statements of the archive, not beside one, which would keep it from that.
    """
    held, program, reader = held_with_a_reader(make, log, monkeypatch)
    with program.archiver.quiet(1) as still:
        assert still
        assert not _can_take(reader.lock)
    with reader.lock, program.archiver.quiet(0) as still:
        assert still  # an RLock: this thread has it already
    held.go.set()


def test_a_reader_that_takes_long_is_interrupted(make, log, monkeypatch):
    """
    On a busy machine the archive's thread stood in a statement for seconds, and new records were dropped because the
    WAL could not be written back. Now the statement ends, and is begun anew.
    """
    held, program, reader = held_with_a_reader(make, log, monkeypatch)
    answers = []
    reading = threading.Event()
    reader.create_function("begun", 0, reading.set)
    endless = "SELECT begun() UNION ALL SELECT * FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
    asked = [f"{endless} WHERE i < 1e12) SELECT count(*) FROM n)", "SELECT 7"]
    thread = threading.Thread(target=lambda: answers.append(_ask_in_turn(reader, asked)))
    thread.start()
    reading.wait()
    with program.archiver.quiet(0.1) as still:
        assert still
    thread.join()
    held.go.set()

    assert [[(7,)]] == answers


def _ask_in_turn(reader: Any, asked: list[str]) -> list[Any]:
    """Ask what is next in the list, each time the reader is asked."""
    connection = SimpleNamespace(in_use=reader.in_use, execute=lambda *_: reader.execute(asked.pop(0)))
    return parts.ask(connection, "")  # type: ignore[arg-type]


def _can_take(lock: Any) -> bool:
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return taken[0]


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
        ({"folder": "missing"}, FileNotFoundError, "archive='missing': there is no folder"),
        ({"folder": ".", "limits": Limits()}, ValueError, "nothing leaves the file without a limit"),
        ({"folder": ".", "unarchived": "drop"}, ValueError, "unarchived='drop': must be 'keep' or 'delete'"),
        ({"folder": ".", "max_age": "soon"}, ValueError, "archive_max_age"),
        ({"folder": ".", "max_bytes": 10}, ValueError, "archive_max_bytes=10: must be 1,048,576 bytes or more"),
        ({"folder": None, "max_age": "7d"}, ValueError, "archive_max_age is of an archive"),
        ({"folder": None, "unarchived": "delete"}, ValueError, "unarchived is of an archive"),
    ],
)
def test_wrong_options(options, error, text):
    """Each error names the option, the value and what is allowed."""
    with pytest.raises(error, match=text):
        archiver(**{"limits": Limits(max_rows=1), **options})
