"""
The archive of a program that logs: what happens when it fails, at the end of the program, and beside a commit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from archives import account, contents_of, parts_in
from forked import in_child
from programs import DAY, Held

from sqlite_log_handler._write import threads
from sqlite_log_handler._write.retention import archiver as archiver_module
from sqlite_log_handler._write.retention import parts
from sqlite_log_handler._write.retention.archive import Archive
from sqlite_log_handler._write.retention.archiver import LAST_CHUNK
from sqlite_log_handler._write.retention.parts import read_head


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


@pytest.mark.parametrize("limits", [{"max_rows": 100}, {"max_age": 30 * DAY}], ids=["rows", "age"])
def test_a_full_disk_is_told_once(make, log, monkeypatch, folder, path, limits):
    """
    An archive that fails costs a line when it begins to, and one when it works again; it is tried less and less.

    With `max_age` alone it was tried again after a sixteenth of that, which of 30 days is nearly two.
    """
    errors = failing(monkeypatch)
    program = make(**limits)
    log.fill(150, age=20 * DAY)
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


def test_a_disk_that_does_not_answer_in_time_is_told(make, log, monkeypatch, folder):
    """
    A disk whose error is a TimeoutError is a failure of the archive, and told.

    It was taken for another process that archives, for which nobody needs a line.
    """
    failing(monkeypatch)[:] = [OSError(errno.ETIMEDOUT, "Connection timed out")]
    program = make(max_rows=100)
    log.fill(150)
    program.step()

    assert 5 == program.step()
    why = f"TimeoutError: [Errno {errno.ETIMEDOUT}] Connection timed out"
    assert [f"cannot archive in {str(folder)!r} ({why}): rows stay; trying again"] == log.said


def test_the_thread_that_commits_does_not_look_at_the_folder(make, log, monkeypatch, folder, path):
    """
    Only the archive's own thread looks at the folder, because its disk may not answer.

    The thread that commits asked where the links in the lock's path lead, as each run began.
    """
    lookers = set()

    def seen(look: Any) -> Any:
        def looks(at: Any, *values: Any, **options: Any) -> Any:
            if isinstance(at, str | os.PathLike) and os.fspath(at).startswith(str(folder)):
                lookers.add(threading.current_thread().name)
            return look(at, *values, **options)

        return looks

    program = make(max_rows=100)
    log.fill(150)
    for name in ("lstat", "stat", "open", "listdir", "readlink"):
        monkeypatch.setattr(os, name, seen(getattr(os, name)))
    program.run()

    assert {"sqlite_log_handler archive"} == lookers
    assert ([*range(1, 151)], 0) == account(path, folder)


def test_a_thread_that_dies_before_it_has_begun(make, log, no_birth, folder, path):
    """
    A thread that died in its first step is a failure of the archive: it is told once, and tried less and less.

    The thread that commits waited for it for ever, under its lock. Later, it tried 70 times a second, and told nobody.
    """
    program = make(max_rows=100)
    log.fill(150)
    waits = []
    for _ in range(3):
        assert archiver_module.POLL == program.pruner.step(log.connection)
        waits.append(program.pruner.step(log.connection))
        log.clock.advance(waits[-1])
    no_birth.undo()
    program.run()

    assert [5, 10, 20] == waits
    why = "RuntimeError: a new thread did not begin: no memory for it, or an overloaded machine"
    assert [
        f"cannot archive in {str(folder)!r} ({why}): rows stay; trying again",
        "archiving again",
    ] == log.said
    assert ([*range(1, 151)], 0) == account(path, folder)


def test_a_thread_that_dies_without_a_word(make, log, monkeypatch, folder, path):
    """A thread that died before it could note its end, as where there is no memory, is followed by another one."""
    program = make(max_rows=100)
    log.fill(150)
    with monkeypatch.context() as patch:
        patch.setattr(archiver_module._Run, "work", lambda *_: None)
        program.pruner.step(log.connection)
        dead = program.archiver._run
        program.archiver._thread.join()
    program.pruner.step(log.connection)
    assert dead is not program.archiver._run
    program.run()

    assert ([*range(1, 151)], 0) == account(path, folder)


def test_a_thread_that_cannot_be_started_at_exit(make, log, no_birth, monkeypatch):
    """An interpreter that exits starts no thread, which is no failure of the archive: the operator gets no line."""
    monkeypatch.setattr(threading, "main_thread", lambda: SimpleNamespace(is_alive=lambda: False))
    program = make(max_rows=100)
    log.fill(150)
    for _ in range(3):
        program.pruner.step(log.connection)

    assert [] == log.said


def test_rows_that_come_of_age_while_the_archive_fails(make, log, monkeypatch):
    """
    With `unarchived="delete"` and an archive that fails, a program that is idle deletes rows at 110 % of `max_age`.

    It slept until the archive's next attempt: with `max_age=60`, rows stayed for 106 seconds.
    """
    failing(monkeypatch)
    program = make(max_age=60, deletes=True)
    log.fill(10)
    age = 0.0
    while 10 == log.rows[2] and age < 200:
        due = program.step()
        age += due
        log.clock.advance(due)
        log.wall += due

    assert [10] == log.ids
    assert 66 <= age <= 66.7


def test_a_limit_that_is_urgent_beside_one_that_is_not(make, log, monkeypatch):
    """
    With `unarchived="delete"` and an archive that fails, `max_rows` is kept although all rows are too old as well.

    The cut by age went further and was not urgent, so nothing was deleted until it was, a tenth of `max_age` later.
    """
    failing(monkeypatch)
    program = make(max_age=600, max_rows=100, deletes=True)
    log.fill(300, age=630)
    for _ in range(5):
        program.step()

    assert 99 == log.rows[2]


def test_a_log_that_two_runs_find_corrupt(make, log, monkeypatch, path):
    """The thread that commits hears that the log is corrupt when two runs in a row have found it, in one file."""
    errors = failing(monkeypatch)
    corrupt, errors[0] = sqlite3.DatabaseError("malformed"), OSError()
    corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    program = make(max_rows=200)  # so no row is to be deleted yet
    log.fill(150)
    program.step()
    errors[0] = corrupt
    assert 5 == program.step()
    log.clock.advance(5)
    program.step()  # begins a run
    program.step()  # this one has found the first error, and begins the second run
    with monkeypatch.context() as patch:
        patch.setattr(archiver_module, "identity_of", lambda _: "another file, put in its place")
        program.step()  # so the second run is forgotten
    program.step()  # as is the run that this step has begun
    program.step()
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        program.step()
    assert 1 == len(log.said)


def test_a_file_that_is_moved_in_the_middle_of_a_run(make, log, monkeypatch):
    """
    What fails in a run whose file was moved is not said, because the next run has another file.

    When a corrupt log was moved aside, the operator also heard of a disk I/O error, and that rows stay.
    """
    errors = failing(monkeypatch)
    program = make(max_rows=200)  # so no row is to be deleted yet
    log.fill(150)
    program.step()
    errors.clear()
    with monkeypatch.context() as patch:
        patch.setattr(archiver_module, "identity_of", lambda _: "another file, put in its place")
        program.step()
    program.run()

    assert ([], 100) == (log.said, program.archived_id)


def test_a_copy_in_the_place_of_the_file_in_the_middle_of_a_run(make, log, path, tmp_path):
    """
    A part is not noted in an older copy of its log that was put in its place, where other rows get the same ids.

    Those would have counted as archived, and been deleted.
    """
    log.fill(20)
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        log.connection.backup(copy)
    log.fill(130)
    program = make(max_rows=200)
    program.step()
    os.replace(tmp_path / "copy.db", path)
    log.connection = log.writer.file.open()
    program.pruner.opened(log.path)
    program.step()

    assert (20, 0) == (log.rows[1], program.archived_id)


def test_another_process_archives(make, log, folder):
    """While another process archives this log, nothing is said, and a second later it is tried again."""
    program = make(max_rows=100)
    log.fill(150)
    other = Archive(str(folder), log.path)
    with other.lock.hold(0):
        program.step()
        assert 1 == program.step()
    other.lock.close()

    assert ([], []) == (log.said, parts_in(folder))


def test_a_process_that_is_stopped_while_it_archives(make, log, folder):
    """When new records are dropped because another process archives and does not go on, the handler names it."""
    program = make(max_bytes=1 << 20)
    log.fill(3_000, width=400)
    other = Archive(str(folder), log.path)
    with other.lock.hold(0):
        program.step()
        program.step()
        said = log.no_room(program.pruner)
    other.lock.close()

    assert said is not None
    lock = str(folder / "app-log-archive")
    assert said.endswith(f"wait for the archive, and process {os.getpid()} is writing to {lock!r}")


def test_a_part_that_is_refused_is_removed(make, log, folder, monkeypatch):
    """Another process has archived the same rows into another folder: the part is not noted, and is removed."""
    program = make(max_rows=100)
    log.fill(150)
    program.step_to_a_part(Held(monkeypatch))
    assert 1 == len(parts_in(folder))
    log.connection.execute(
        "INSERT INTO archives SELECT 1, 'elsewhere', 1, 125, 0, max(created_us), 20, 0, 0, 1, 1 FROM records"
    )
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


@pytest.mark.parametrize("value", ["'text'", "x'ff'", "CAST(x'ff' AS TEXT)"], ids=["text", "bytes", "no UTF-8"])
@pytest.mark.parametrize(
    "column",
    ["records.levelno", "records.process_id", "drops.process_id", "drops.logger", "levels.name", "processes.host"],
)
def test_a_value_that_is_none(make, log, folder, path, column, value):
    """
    Damage that SQLite does not notice, a flipped bit in a text or in its type, does not end the archive.

    It failed at the same row for ever, the file stayed full, and all new records were dropped.
    """
    program = make(max_rows=100)
    log.fill(150)
    log.connection.execute("INSERT OR IGNORE INTO levels VALUES (20, 'INFO')")
    log.connection.execute("INSERT INTO drops VALUES (1, 5, 1, 2, 1, 'queue_full', 'app', 20, 1)")
    table, name = column.split(".")
    log.connection.execute("PRAGMA foreign_keys = OFF")
    log.connection.execute(f"UPDATE {table} SET {name} = {value}")
    program.run()

    assert ([], [(125,)]) == (log.said, log.ask("SELECT archived_id FROM marks"))


@pytest.mark.parametrize("value", ["NULL", "'text'", "x'ff'", "CAST(x'ff' AS TEXT)", "upper(log_id) || char(0)"])
def test_a_damaged_log_id(make, log, folder, path, value):
    """
    A log whose `log_id` was damaged is archived, and finds its earlier parts again: it gets the number that they have.

    No part was noted ever again, the file stayed full, and all new records were dropped.
    """
    program = make(max_rows=100)
    log.fill(150)
    program.run()
    ((known,),) = log.ask("SELECT log_id FROM marks")
    log.connection.execute("PRAGMA writable_schema = ON")
    log.connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'log_id TEXT NOT NULL', 'log_id')")
    log.connection.execute("PRAGMA writable_schema = RESET")
    log.connection.execute(f"UPDATE marks SET log_id = {value}")
    for _ in range(2):
        log.fill(150)
        program.run()

    assert [(known,)] == log.ask("SELECT log_id FROM marks")
    assert {known} == {read_head(str(folder / name)).log_id for name in parts_in(folder)}
    assert ["its `log_id` is damaged: it gets that of its archive, or another one"] == log.said
    assert ([*range(1, 451)], 0) == account(path, folder)


@pytest.mark.parametrize("value", ["'text'", "x'ff'", "archived_id - 64", "archived_id + 64", 1 << 40])
def test_a_damaged_mark(make, log, folder, path, value):
    """
    A log whose `archived_id` was damaged is archived on from its last part.

    Of a mark that was too low, the thread made a part of the same rows again and again, which was refused each time,
    and the file grew. Rows up to one that was too high were deleted, and no part had them.
    """
    program = make(max_rows=100)
    log.fill(150, age=10_000, step=1)
    program.run()
    log.connection.execute(f"UPDATE marks SET archived_id = {value}")
    log.fill(150, age=5_000, step=1)
    program.run()

    assert ([*range(1, 301)], 0) == account(path, folder)
    assert 100 >= len(log.ids)


@pytest.mark.parametrize("value", [0, 1_000])
def test_a_mark_that_is_too_low_beside_max_bytes(make, log, value):
    """
    A log that fills `max_bytes` is written on when its `archived_id` was damaged.

    No row might be deleted up to the mark, and none was archived after the last part: each new record was dropped.
    """
    program = make(max_bytes=4_000_000)

    def commit():
        log.clock.advance(1)
        program.pruner.make_room(log.connection)
        log.fill(20, width=1_000)
        program.run()

    for _ in range(250):
        commit()
    log.connection.execute("UPDATE marks SET archived_id = ?", (value,))
    for _ in range(100):
        commit()

    first, last, _ = log.rows
    assert (True, 7_000) == (first > value, last)


@pytest.mark.parametrize("value", ["last_id + 64", "last_id - 64", 1 << 40, (1 << 63) - 1, -1])
def test_a_damaged_last_note(make, log, folder, value):
    """
    Rows that no part has stay until one has them, also when a bit has flipped in the `last_id` of the last note.

    Rows up to there counted as archived, and retention deleted them.
    """
    program = make(max_rows=100)
    log.fill(150, age=10_000, step=1)
    program.run()
    log.connection.execute(f"UPDATE archives SET last_id = {value} WHERE id = (SELECT max(id) FROM archives)")
    log.fill(150, age=5_000, step=1)
    program.run()

    archived = {row["id"] for name in parts_in(folder) for row in contents_of(folder / name).rows}
    assert {*range(1, 301)} == archived | {*log.ids}


def test_a_log_id_that_is_damaged_before_the_first_part(make, log, folder, path):
    """A log whose `log_id` was damaged before it had an archive gets another one, which its parts have too."""
    program = make(max_rows=100)
    log.connection.execute("UPDATE marks SET log_id = x''")
    log.fill(150)
    program.run()

    ((log_id,),) = log.ask("SELECT log_id FROM marks")
    assert [log_id] == [read_head(str(folder / name)).log_id for name in parts_in(folder)]
    assert ([*range(1, 151)], 0) == account(path, folder)


def test_the_end_of_a_program(make, log, folder, monkeypatch):
    """At the end, a part that is being written may become ready; no other one is begun before `stop`."""
    program = make(max_rows=100)
    log.fill(150, age=5 * DAY, step=DAY / 40)
    held = Held(monkeypatch)
    program.pruner.step(log.connection)
    threading.Timer(0.05, held.go.set).start()
    program.archiver.await_part(60)
    program.pruner.step(log.connection)  # which notes the part
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()
    program.pruner.step(log.connection)

    assert None is program.archiver._run
    assert 1 == len(parts_in(folder))
    assert [(1,)] == log.ask("SELECT count(*) FROM archives")


def test_a_part_that_does_not_come_is_not_waited_for(make, log, monkeypatch):
    """At the end a part is waited for until the timeout and no longer, though the disk holds up the thread."""
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    program.pruner.step(log.connection)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(program.archiver.await_part(0)))
    thread.start()
    thread.join(20)
    in_time = [*answers]
    held.go.set()
    thread.join()

    assert [True] == in_time


@pytest.mark.parametrize("deletes", [False, True])
def test_rows_that_somebody_else_deletes(make, log, monkeypatch, folder, deletes):
    """
    When others delete rows that are about to be archived, the next run begins with the first row that is left.

    It begins half-way only where its own retention was faster, and what it leaves out may be deleted.
    """
    held = Held(monkeypatch)
    program = make(max_rows=100, deletes=deletes)
    log.fill(90)
    program.pruner.step(log.connection)
    held.came.wait()
    if deletes:
        log.connection.execute("DELETE FROM records WHERE id <= 10")
    else:
        log.prune(log.pruner(max_rows=80))  # which counts them in `unarchived`
    held.go.set()
    program.run()

    (name,) = parts_in(folder)
    assert 11 == contents_of(folder / name).head["first_id"]


def test_an_earlier_part_does_not_end_the_wait(make, log, monkeypatch, folder):
    """At the end it is waited for the part that is being written, though nobody has waited for the one before."""
    program = make(max_age=8 * DAY)
    log.fill(40, age=5 * DAY, step=DAY / 8)
    program.pruner.step(log.connection)
    run = program.archiver._run
    told = run.changed
    told.acquire()
    told.release()  # as if nobody had waited
    held = Held(monkeypatch)
    program.pruner.step(log.connection)  # notes the first
    held.came.wait()

    class Told:
        """Let the thread go on when it is waited for once more."""

        waits, release = 0, told.release

        def acquire(self, timeout):
            self.waits += 1
            if self.waits == 2:
                held.go.set()
            return told.acquire(timeout=timeout)

    run.changed = Told()
    program.archiver.await_part(60)
    part = run.part
    held.go.set()
    program.archiver.stop()

    assert part is not None


def test_a_thread_that_is_stopped_with_a_part(make, log, monkeypatch, folder):
    """A part that is ready when the program ends is given up, and the thread ends."""
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    program.pruner.step(log.connection)
    held.go.set()
    program.archiver._run.changed.acquire()
    assert 1 == len(parts_in(folder))
    program.archiver.stop()
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()

    assert [] == log.ask("SELECT * FROM archives")


def test_a_thread_that_was_stopped_is_waited_for(make, log, monkeypatch):
    """
    The end of a program waits for the thread of the archive.

    Arrow called Python in that thread while the interpreter exited: "Fatal Python error: PyGILState_Release", and the
    program ended with SIGABRT, once in 150 times.
    """
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    program.pruner.step(log.connection)
    held.came.wait()
    program.archiver.stop()
    threading.Timer(0.05, held.go.set).start()
    program.archiver.await_end(60)

    assert "sqlite_log_handler archive" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_lets_go_of_an_archive_that_was_stopped(make, log, monkeypatch):
    """
    A child that is forked after `stop`, while the thread is still in its last chunk, closes its copy of the lock.

    When its parent was killed just then, nobody could archive the log until the child had ended.
    """
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    program.pruner.step(log.connection)
    held.came.wait()
    lock = program.archiver._run.archive.lock
    program.archiver.stop()
    descriptor = lock._descriptor

    def forget():
        program.archiver.forget()
        os.fstat(descriptor)

    said = in_child(forget)
    held.go.set()
    assert "OSError: [Errno 9] Bad file descriptor" == said


def test_a_thread_that_does_not_end_is_waited_for_once(make, log, monkeypatch):
    """
    When the thread has not ended LAST_CHUNK seconds after `stop`, nobody waits for it any more.

    A program on whose disk a sync took 30 seconds waited 5 for that thread in its own `close`, and twice 5 at its end.
    """
    held = Held(monkeypatch)
    program = make(max_rows=100)
    log.fill(150)
    program.pruner.step(log.connection)
    held.came.wait()
    waits: list[float] = []
    monkeypatch.setattr(program.archiver._thread, "join", waits.append)
    for seconds in 1.0, LAST_CHUNK, 60.0:
        program.archiver.stop()
        program.archiver.await_end(60)
        log.clock.advance(seconds)
    monkeypatch.undo()
    held.go.set()
    program.archiver._thread.join()

    assert [LAST_CHUNK, LAST_CHUNK - 1, 0] == waits


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


def test_a_question_that_fails_is_not_asked_again():
    """Only a statement that was interrupted is begun anew; any other error ends the run."""
    errors = [sqlite3.OperationalError("disk I/O error"), AssertionError("asked again")]

    def fail(*_: object) -> None:
        raise errors.pop(0)

    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        parts.ask(SimpleNamespace(in_use=contextlib.nullcontext, execute=fail), "")  # type: ignore[arg-type]


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


@pytest.mark.parametrize("rows", [1, 200])
def test_closed_twice(make_handler, path, folder, rows):
    """
    A handler that is closed already leaves its file alone when it is closed again, as logging does at exit.

    With an archive it opened the file once more, and made it anew if somebody had removed it since.
    """
    handler = make_handler(max_rows=10, archive=folder)
    for _ in range(rows):
        handler.handle(logging.makeLogRecord({"msg": "once"}))
    handler.close()
    for file in path.parent.glob("*.db*"):
        file.unlink()

    handler.close()

    assert [] == [*path.parent.glob("*.db*")]


def test_close_on_a_locked_file_ends_the_archives_thread(make_handler, logger, path, folder, monkeypatch):
    """
    The archive's thread ends with the handler, though the file is locked and nothing notes what it has written.

    It waited for that for ever, with the lock of the archive; and an interpreter that refuses daemon threads for it.
    """
    write, written = Archive.write, threading.Event()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)

    def write_and_lock(archive, *arguments):
        part = write(archive, *arguments)
        other.execute("BEGIN IMMEDIATE")
        written.set()
        return part

    monkeypatch.setattr(Archive, "write", write_and_lock)
    handler = make_handler(max_rows=100, archive=folder, close_timeout=0.2)
    logger.addHandler(handler)
    with contextlib.closing(other):
        for number in range(300):
            logger.info("n %d", number)
        assert written.wait(60)
        logger.info("n 300")
        handler.close()
        thread = handler.listener.committer.writer.archiver._thread
        thread.join(60)
        assert not thread.is_alive()


def test_close_does_not_wait_for_a_thread_of_the_archive_that_did_not_start(make_handler, logger, folder, monkeypatch):
    """`close` waits for no thread of the archive where none can be started, and meets no error."""
    start = threads.start

    def refuse(thread):
        if thread.name == "sqlite_log_handler archive":
            tried.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    tried = threading.Event()
    monkeypatch.setattr(threads, "start", refuse)
    handler = make_handler(max_rows=100, archive=folder)
    logger.addHandler(handler)
    for number in range(300):
        logger.info("n %d", number)
    assert tried.wait(60)
    handler.close()

    assert handler.stats().last_error is None
