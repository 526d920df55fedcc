"""
Retention at work, on real files: what is deleted, what stays, and what is written down.
"""

from __future__ import annotations

import os
import sqlite3

import pytest
from batches import put_null

from sqlite_log_handler._write.retention import pruner as pruner_module
from sqlite_log_handler._write.retention.limits import PAGE_BYTES, Limits
from sqlite_log_handler._write.retention.pruner import look
from sqlite_log_handler._write.writer import Writer

DAY = 86_400.0
NOW = 1_700_000_000.0


# max_rows -------------------------------------------------------------------------------------------------------------


def test_the_newest_rows_are_kept(log):
    """`max_rows` keeps the newest rows, by their ids, and never more."""
    log.fill(250)
    log.prune(log.pruner(max_rows=100))

    assert (152, 250, 99) == log.rows


@pytest.mark.parametrize(
    "limits", [{"max_age": 1}, {"max_rows": 1}, {"max_bytes": 1_500_000}], ids=lambda given: next(iter(given))
)
def test_the_newest_row_always_stays(log, limits):
    """
    Whatever the limit, the newest row stays, so that the next row gets an id that no row ever had.

    SQLite gives the highest id plus one. When retention had deleted all rows, it would have begun at 1 again, and a
    reader who follows by id would have missed all rows up to the one that it read last.
    """
    log.fill(10, age=100)
    log.connection.execute("CREATE TABLE somebody_elses AS SELECT printf('%1500000d', 1)")
    pruner = log.pruner(**limits)
    log.prune(pruner)
    log.no_room(pruner)
    assert [10] == log.ids
    log.fill(1)

    assert [10, 11] == log.ids


def test_rows_go_chunk_by_chunk(log, monkeypatch):
    """
    Each step deletes a chunk and no more, so that a process that waits for the lock gets it in between.

    It deleted four while a tenth too many were left, and a twentieth of the ERRORs waited for 120 ms to be written.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    left = []
    log.fill(108)
    pruner = log.pruner(max_rows=80)
    log.connection.set_trace_callback(lambda sql: left.append(log.rows[2]) if sql == "COMMIT" else None)
    steps = log.prune(pruner)
    log.connection.set_trace_callback(None)

    assert [98, 88, 80] == left
    # One in each step, so that a thread that waits for the commit lock gets it too; the last step finds none.
    assert 4 == steps


def test_a_chunk_of_large_rows_is_short(log):
    """Where the next rows are larger than those of the log on average, one transaction deletes fewer of them."""
    log.fill(2_000, width=10_000)
    log.fill(20_000)
    deleted = []
    pruner = log.pruner(max_rows=1)
    log.connection.set_trace_callback(lambda sql: deleted.append(log.rows[0]) if sql == "COMMIT" else None)
    pruner.step(log.connection)
    log.connection.set_trace_callback(None)

    assert 200 <= deleted[0] <= 250  # not 2,000


@pytest.mark.parametrize(
    ("limits", "apart_us", "rows"),
    [
        ({"max_bytes": 1 << 30}, 100_000, [20_000]),
        ({"max_bytes": 1 << 30}, 10_000_000, range(2_000, 5_000)),
        ({}, 10_000_000, [20_000]),
    ],
)
def test_a_chunk_of_rows_in_no_order_of_time_is_short(log, limits, apart_us, rows):
    """
    With `max_bytes`, one transaction deletes fewer of the rows after which an earlier one follows, by over a second.

    Without it, they were deleted more slowly than they came: at full speed, 388,000 stood where `max_rows` was 50,000.
    """
    log.fill(25_000)
    log.ask("UPDATE records SET created_us = created_us + id * 7 % 10 * ?", apart_us)
    left = []
    pruner = log.pruner(max_rows=1, **limits)
    log.connection.set_trace_callback(lambda sql: left.append(log.rows[2]) if sql == "COMMIT" else None)
    pruner.step(log.connection)
    log.connection.set_trace_callback(None)

    assert 25_000 - left[0] in rows


def test_a_chunk_of_large_rows_is_found_at_once(log):
    """
    Where few rows take a little more than a chunk, they go as one, and pruning does not ask for each number of rows.

    Four rows of 525 kB before 220 small ones took 200 looks, which read all of these bytes, under the lock that a
    commit waits for: two tenths of a second.
    """
    log.fill(4, width=2_101_000 // 4)
    log.fill(220)
    asked = []
    log.connection.set_trace_callback(lambda sql: asked.append("heads" in sql))
    log.pruner(max_rows=10).step(log.connection)
    log.connection.set_trace_callback(None)

    assert 0 == sum(asked)
    assert 10 == len(log.ids)


# max_age --------------------------------------------------------------------------------------------------------------


def test_rows_beyond_max_age_go(log):
    """`max_age` deletes the rows that are older."""
    log.fill(10, age=10, step=1)  # aged 10, 9, ... 1
    log.prune(log.pruner(max_age=5.5))

    assert [6, 7, 8, 9, 10] == log.ids


def test_age_is_looked_at_once_per_hundredth(log):
    """Rows that come of age one by one go together: a row stays a hundredth of `max_age` too long at most."""
    log.fill(200, age=100, step=0.5)
    pruner = log.pruner(max_age=100)
    log.prune(pruner)
    assert 200 == len(log.ids)
    log.wall += 0.6
    log.clock.advance(0.6)
    log.prune(pruner)
    assert 200 == len(log.ids)
    log.wall += 0.5
    log.clock.advance(0.5)
    log.prune(pruner)

    assert (4, 200, 197) == log.rows


def test_the_next_row_to_come_of_age_is_waited_for(log):
    """When nothing is due, `step` says when the oldest row will be, in seconds; nothing waits for the newest row."""
    log.fill(2, age=30)
    pruner = log.pruner(max_age=100)
    assert 70 == pruner.step(log.connection)
    log.clock.advance(50)
    log.wall += 50
    assert 20 == pruner.step(log.connection)
    log.clock.advance(20.5)
    log.wall += 20.5
    assert 0 == pruner.step(log.connection)

    assert (None, [2]) == (pruner.step(log.connection), log.ids)


def test_old_rows_that_may_not_be_deleted_are_not_due(log):
    """
    Rows that are too old and wait for the archive are nothing to do before the archive says so, or they are urgent.

    `step` said that there was more to do at once, for as long as the archive failed.
    """
    log.fill(2, age=99.5)
    pruner = log.pruner(max_age=100)
    pruner._bound = lambda *_: None
    assert 1 == pruner.step(log.connection)
    log.clock.advance(2)
    log.wall += 2
    assert 8.5 == pytest.approx(pruner.step(log.connection))
    log.clock.advance(9)
    log.wall += 9

    assert (None, [1, 2]) == (pruner.step(log.connection), log.ids)


def test_without_max_age_nothing_is_waited_for(log):
    """A log that is within `max_rows` and `max_bytes` needs no look until more is written."""
    log.fill(10)

    assert None is log.pruner(max_rows=10, max_bytes=50_000_000).step(log.connection)


def test_a_row_from_before_the_clock_was_set_takes_no_younger_one_with_it(log):
    """
    Rows go in the order of their ids, up to the first that is young: a machine that starts with its clock in 1970 logs
    rows that are old at once, after yesterday's.
    """
    log.fill(5, age=2 * DAY)
    log.fill(5, age=DAY / 2)
    log.fill(5, age=NOW - 5)  # 1970
    log.fill(5)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(6, 21)) == log.ids


def test_a_row_of_the_future_keeps_no_older_one(log):
    """A clock that was ahead for a while leaves rows of the future, which go with the old ones around them."""
    log.fill(5, age=2 * DAY)
    log.fill(5, age=-300 * DAY)
    log.fill(5, age=2 * DAY)
    log.fill(5, age=-300 * DAY)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(16, 21)) == log.ids


def test_more_rows_of_the_future_than_a_chunk_has_keep_no_older_one(log, monkeypatch):
    """
    A clock that was years ahead for some thousand rows kept all that came later, for years.

    They go a chunk at a time, and only as far as the next row is an old one.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(35, age=-300 * DAY)
    log.fill(5, age=2 * DAY)
    log.fill(5)
    log.fill(35, age=-300 * DAY)
    log.fill(5, age=2 * DAY)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(41, 86)) == log.ids


def test_rows_of_the_future_before_a_young_one_stay(log, monkeypatch):
    """No row goes because of its age when the next one that is not of the future is young."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(35, age=-300 * DAY)
    log.fill(5)
    log.fill(5, age=2 * DAY)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(1, 46)) == log.ids


def test_a_clock_that_jumps_back_deletes_nothing(log):
    """When the clock is set back, all rows are of the future, and none of them is old."""
    log.fill(100, age=10, step=0.1)
    log.wall -= 100 * DAY
    log.prune(log.pruner(max_age=60))

    assert 100 == len(log.ids)


def test_a_clock_that_jumps_ahead_deletes_in_chunks(log, monkeypatch):
    """A clock that jumps ahead makes all rows old; they go in chunks, and when it is put right the rest stays."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(100)
    pruner = log.pruner(max_age=DAY)
    log.wall += 365 * DAY
    pruner.step(log.connection)
    log.wall = NOW
    log.prune(pruner)

    assert (11, 100, 90) == log.rows


# max_bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_come_down_by_rows(log):
    """`max_bytes` deletes the oldest rows until file and WAL are within it, and gives back the pages beyond."""
    log.fill(6_000, width=900)
    assert log.taken > 6_000_000
    pruner = log.pruner(max_bytes=2_000_000)
    log.prune(pruner)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    first, last, count = log.rows
    assert (6_000, 6_000 - first + 1) == (last, count)
    assert 1_400_000 <= count * PAGE_BYTES / 2 <= 1_575_000  # two rows to a page
    assert log.taken <= 1_762_500


def test_a_steady_log_gives_nothing_back(log, monkeypatch):
    """A log that stands at its budget uses its free pages again: the file neither grows nor shrinks."""
    pruner = log.pruner(max_bytes=4_000_000)
    pages = []
    for _ in range(60):
        log.fill(200, width=1_000)
        assert None is log.no_room(pruner)
        log.prune(pruner)
        pages.append(log.ask("PRAGMA page_count")[0][0])

    assert 1 == len(set(pages[30:]))
    assert log.taken <= 4_000_000


def test_when_nothing_can_be_deleted_it_is_said(log):
    """When what is no row takes more than the budget, and cannot be cut, there is no room, and the reason says why."""
    log.connection.execute("CREATE TABLE somebody_elses AS SELECT printf('%1500000d', 1)")
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pruner = log.pruner(max_bytes=1_500_000)

    assert log.no_room(pruner).endswith("no row is left that could be deleted")


def test_a_file_made_without_auto_vacuum_is_said_and_left(log, said):
    """A file made without auto_vacuum is named once, never vacuumed by surprise, and kept from growing all the same."""
    log.connection.execute("PRAGMA auto_vacuum = NONE")
    log.connection.execute("VACUUM")
    log.fill(5_000, width=1_000)
    size = log.ask("PRAGMA page_count")
    pruner = log.pruner(max_bytes=2_000_000)
    for _ in range(30):
        log.prune(pruner)
        assert None is log.no_room(pruner)
        log.fill(50, width=1_000)

    assert size == log.ask("PRAGMA page_count")
    assert 1 == len(said)
    assert "without auto_vacuum" in said[0]


def test_another_file_is_looked_at_again(log, said, tmp_path):
    """A file that came in place of the one that was open may be made in another way: nothing is tried for ever."""
    log.connection.execute("PRAGMA auto_vacuum = NONE")
    log.connection.execute("VACUUM")
    log.fill(5_000, width=1_000)
    log.writer.close()
    path = str(tmp_path / "open.db")
    writer = Writer(path, busy_timeout=0, limits=Limits(max_rows=10), say=said.append)
    writer.file.open()
    assert None is writer.prune()
    writer.close()
    os.replace(log.path, path)
    writer.file.open()
    log.writer, log.connection = writer, writer.file.connection

    assert 100 > next(steps for steps in range(1_000) if writer.prune() is None)
    assert (4_991, 5_000, 10) == log.rows
    writer.close()
    writer.file.open()
    log.connection = writer.file.connection
    assert None is writer.prune()
    assert 1 == len(said), "once, however often it is opened"


def test_the_file_is_looked_at_before_each_commit(log):
    """The room that was there before one commit is not taken for that before the next: another file may be full."""
    pruner = log.pruner(max_bytes=2_000_000)
    assert None is log.no_room(pruner)
    log.connection.execute("PRAGMA max_page_count = 10000")
    log.fill(2_500, width=1_000)

    assert None is log.no_room(pruner)
    assert 2_500 > log.rows[2]


# What is written down -------------------------------------------------------------------------------------------------


def test_prunes_say_what_was_deleted(log, monkeypatch):
    """A run of deletions is one line for its cause and hour: which ids, when, how many."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(100)
    pruner = log.pruner(max_rows=50)
    log.prune(pruner)
    log.wall += 60
    log.fill(20)
    log.prune(pruner)

    since = round(NOW * 1e6)
    assert [(1, 70, since, since + 60_000_000, "max_rows", 70, 0)] == log.ask(
        "SELECT first_id, last_id, since_us, until_us, cause, count, unsent FROM prunes"
    )
    assert {"max_rows": 70} == pruner.deleted


def test_each_cause_and_each_hour_has_a_line(log):
    """Another cause, or another hour, begins a new line."""
    log.fill(10, age=DAY)
    log.fill(20)
    log.prune(log.pruner(max_age=3_600))
    log.prune(log.pruner(max_rows=15))
    log.wall += 3_600
    log.prune(log.pruner(max_rows=12))

    assert [(1, 10, "max_age", 10), (11, 15, "max_rows", 5), (16, 18, "max_rows", 3)] == log.ask(
        "SELECT first_id, last_id, cause, count FROM prunes ORDER BY id"
    )


@pytest.mark.parametrize(("cursors", "unsent"), [([], 0), ([25], 15), ([25, 12], 28), ([40], 0), ([90], 0), ([0], 40)])
def test_rows_that_were_not_yet_sent_are_counted(log, cursors, unsent):
    """`unsent` counts the deleted rows that the slowest cursor had not passed; without a cursor there are none."""
    log.fill(100)
    for number, after_id in enumerate(cursors):
        log.connection.execute("INSERT INTO cursors VALUES (?, ?, 0)", (f"to {number}", after_id))
    log.prune(log.pruner(max_rows=60))

    assert [(40, unsent)] == log.ask("SELECT count, unsent FROM prunes")


@pytest.mark.parametrize(
    "column",
    [
        *("prunes.until_us", "prunes.count", "prunes.unsent", "prunes.archived"),
        *("marks.unarchived", "marks.archived_id", "marks.sweeps", "record_totals.records", "record_totals.bytes"),
    ],
)
def test_a_number_that_is_null(log, monkeypatch, column):
    """
    A flipped bit makes NULL of a small number. It stops no pruning.

    With `max_bytes` no row was written any more, because no room could be made.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._LINES", (5, 5))
    monkeypatch.setattr("sqlite_log_handler._write.retention.side_tables._ROWS_PER_LINE", 1)
    pruner = log.pruner(max_rows=5)
    for number in range(3):
        log.fill(10)
        for table, values in [("sources", "NULL, ?, '', 0, '', ''"), ("volume_folded", "0, ?, 20, 1, 1, 0")]:
            lines = [(f"{number} {line}",) for line in range(10)]
            log.connection.executemany(f"INSERT INTO {table} VALUES ({values})", lines)
        if number:
            put_null(log.connection, column)
        log.prune(pruner)

    assert (26, 30, 5) == log.rows
    assert all(value is not None for (value,) in log.ask(f"SELECT {column.split('.')[1]} FROM {column.split('.')[0]}"))


def test_volume_is_kept_apart(log):
    """What was attempted by hour, logger and level stays when the rows go."""
    log.connection.execute("INSERT INTO volume_folded VALUES (0, 'app', 20, 100, 1000, 5)")
    log.fill(100)
    log.prune(log.pruner(max_rows=1))

    assert [(0, "app", 20, 100, 1_000, 5)] == log.ask("SELECT * FROM volume")


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_failure_is_said_once_when_it_lasts(log, said):
    """One failure is somebody who has the file locked; the second is said, later ones are not, and the end is."""
    log.fill(20)
    pruner = log.pruner(max_rows=10)
    for _ in range(5):
        assert 5.0 == pruner.failed(sqlite3.OperationalError("database is locked"))
        log.clock.advance(5)
    log.prune(pruner)

    assert 2 == len(said)
    assert said[0].startswith("cannot prune (OperationalError: database is locked)")
    assert "pruning again" == said[1]


def test_one_failure_is_not_said(log, said):
    """A single failure is tried again in silence."""
    pruner = log.pruner(max_rows=10)
    pruner.failed(sqlite3.OperationalError("database is locked"))
    log.clock.advance(5)
    log.prune(pruner)

    assert [] == said


def test_a_deletion_that_fails_leaves_all_as_it_was(log, monkeypatch):
    """When the line of `prunes` cannot be written, no row is deleted, and no transaction is left open."""
    monkeypatch.setattr(pruner_module, "_NOTE", "DELETE FROM nowhere")
    log.fill(20)
    with pytest.raises(sqlite3.OperationalError):
        log.pruner(max_rows=10).step(log.connection)

    assert (20, False) == (len(log.ids), log.connection.in_transaction)


def test_a_look_costs_one_statement(log):
    """What a log takes is found out by one statement, because in a busy program each is a wait for the GIL."""
    log.fill(10, age=5)
    asked = []
    log.connection.set_trace_callback(lambda sql: None if sql.startswith("-- ") else asked.append(sql))
    state = look(log.connection, log.path)
    log.connection.set_trace_callback(None)

    assert 1 == len(asked)
    assert (1, 10, 10, round((NOW - 5) * 1e6)) == (state.first_id, state.last_id, state.rows, state.oldest_us)
    assert os.stat(log.path + "-wal").st_size == state.wal
