"""
The WAL: how large it may become, which readers hold it back, and what the operator is told of them.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from sqlite_log_handler._write.retention import wal as wal_module
from sqlite_log_handler._write.retention.limits import PAGE_BYTES, Limits
from sqlite_log_handler._write.retention.wal import reading_processes
from sqlite_log_handler._write.writer import Writer


def test_the_wal_of_a_small_budget_is_small(path):
    """With `max_bytes` SQLite writes the WAL back sooner, and cuts it to its share of the budget."""
    with contextlib.closing(Writer(str(path), limits=Limits(max_bytes=32_000_000))) as writer:
        writer.file.open()

        assert (2_000_000,) == writer.file.connection.execute("PRAGMA journal_size_limit").fetchone()
        assert (2_000_000 // PAGE_BYTES,) == writer.file.connection.execute("PRAGMA wal_autocheckpoint").fetchone()


def test_there_is_no_room_beside_a_reader_that_stays(log, reader, said):
    """While a reader keeps the WAL nothing is deleted, which would only add to it; at the budget there is no room."""
    log.fill(500, width=1_000)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pruner = log.pruner(max_bytes=2_000_000)
    held = reader()
    rounds = 0
    while (why := log.no_room(pruner)) is None:
        log.fill(50, width=1_000)
        pruner.step(log.connection)
        log.clock.advance(1)
        rounds += 1
    taken, rows = log.taken, log.rows

    # What is in the WAL and is to make the file longer counts twice, because the file grows before the WAL is emptied.
    assert 1_250_000 < taken <= 2_000_000
    assert why.startswith("file and WAL take ")
    assert "of max_bytes 2.0 MB, and a reader holds a snapshot since 2023-11-14T22:" in why
    assert (1, rounds * 50 + 500) == rows[:2]
    assert 1 == len([line for line in said if "a reader holds a snapshot" in line])

    held.close()
    log.clock.advance(1)
    for _ in range(20):
        assert None is log.no_room(pruner)
        log.fill(40, width=1_000)
        log.prune(pruner)
    assert log.rows[0] > 1
    assert "the reader has let go of its snapshot, pruning again" == said[-1]


def test_a_short_reader_is_not_worth_a_line(log, reader, said):
    """A reader that is gone at the next attempt is not spoken of."""
    log.fill(1_000, width=1_000)
    pruner = log.pruner(max_bytes=1_500_000)
    held = reader()
    log.fill(200, width=1_000)
    assert 1.0 == pruner.step(log.connection)
    held.close()
    log.clock.advance(1)
    log.prune(pruner)

    assert [] == said


def test_rows_wait_for_a_reader_of_the_archive_that_does_not_keep_still(log, reader):
    """
    Beside a reader of the archive that got no time of a busy machine, a commit waited for half a second each time it
    looked at the WAL, and then its rows were dropped, because "no row is left that could be deleted".
    """
    log.fill(1_000, width=1_000)
    pruner, waits, still = log.pruner(max_bytes=2_000_000), [], False

    def quiet(timeout):
        waits.append(timeout)
        return contextlib.nullcontext(still)

    pruner.wal._quiet = quiet
    held = reader()
    log.fill(1_000, width=1_000)
    for _ in range(5):
        with pytest.raises(BlockingIOError, match="keeps the WAL from being written back"):
            pruner.make_room(log.connection)
    assert [0.25] == waits

    log.clock.advance(1)
    still = True
    with pytest.raises(BlockingIOError):
        pruner.make_room(log.connection)
    log.clock.advance(1)
    assert "a reader holds a snapshot" in log.no_room(pruner)
    held.close()
    log.clock.advance(1)
    assert None is log.no_room(pruner)


def test_rows_wait_for_a_short_reader(log, reader, said):
    """
    Rows for which there is no room beside a reader wait a second for its end, in which the WAL is looked at often.

    The reader of another process's archive holds its snapshot for some 20 ms. Four processes that logged 16,000 rows a
    second met it now and then, and each dropped what it had at once, for a second, as `disk_budget`.
    """
    log.fill(1_000, width=1_000)
    pruner = log.pruner(max_bytes=2_000_000)
    held = reader()
    log.fill(1_000, width=1_000)
    with pytest.raises(BlockingIOError):
        pruner.make_room(log.connection)
    log.clock.advance(0.5)
    with pytest.raises(BlockingIOError):
        pruner.make_room(log.connection)
    assert (1, 2_000, 2_000) == log.rows
    held.close()
    log.clock.advance(0.1)

    assert (None, []) == (log.no_room(pruner), said)


def test_a_step_ends_when_the_wal_is_full(log, reader):
    """A step that has to hurry deletes no more when the WAL has its size, and a reader keeps it: it would only grow."""
    log.fill(4_000, width=1_000)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pruner = log.pruner(max_bytes=2_000_000)
    reader()
    pruner.step(log.connection)

    assert 1 < log.rows[0]
    assert os.path.getsize(log.path + "-wal") < 1.5 * pruner.limits.wal_bytes


def test_the_checkpoint_is_not_tried_at_each_step(log, reader):
    """After a second, the WAL of a reader that stays is tried once a second: that waits for the busy timeout."""
    log.fill(1_000, width=1_000)
    pruner = log.pruner(max_bytes=1_500_000)
    reader()
    log.fill(200, width=1_000)
    tried = []
    log.connection.set_trace_callback(lambda sql: tried.append(sql) if "wal_checkpoint" in sql else None)
    for _ in range(9):
        pruner.step(log.connection)
        log.clock.advance(0.5)
    log.connection.set_trace_callback(None)

    assert 6 == len(tried)  # after 0, 0.5, 1, 2, 3 and 4 seconds


LOCKS = """\
1: POSIX  ADVISORY  READ 101 fe:00:77 124 124
2: POSIX  ADVISORY  READ 102 fe:00:77 128 128
3: POSIX  ADVISORY  READ 103 fe:00:78 124 124
4: POSIX  ADVISORY  READ 104 fe:00:77 120 EOF
5: FLOCK  ADVISORY  WRITE 105 fe:00:77 0 EOF
6: -> POSIX  ADVISORY  WRITE 106 fe:00:77 123 123
7: POSIX  ADVISORY  READ 101 fe:00:77 125 126
"""


def test_readers_are_found_by_their_locks():
    """A process with a lock on one of the slots for readers in the -shm holds a snapshot; other locks tell nothing."""
    assert [101, 104] == reading_processes(iter(LOCKS.splitlines()), 77)


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who has a lock")
def test_a_reader_is_named(log, reader):
    """Where the system tells, the process that holds the snapshot is named."""
    log.fill(1)
    reader()

    assert f" (process {os.getpid()}, which is this one)" == wal_module._readers(log.path)
    assert "" == wal_module._readers(log.path + "-not-there")
