"""
When a listener prunes: between commits, and for a moment when it closes.
"""

from __future__ import annotations

import pytest
from listeners import INFO, put
from queues import report


class FakeRetention:
    """A retention that gives the answers of the test, and counts its turns."""

    def __init__(self):
        self.due = None
        self.turns = 0

    def prune(self):
        self.turns += 1
        return self.due.pop(0) if isinstance(self.due, list) else self.due


@pytest.fixture
def retention():
    """The retention of the test."""
    return FakeRetention()


def test_pruning_comes_after_the_commit(make, retention, clock):
    """At a tick, the commit comes first; then retention has a turn, and the next when there was another commit."""
    listener = make(retention=retention)
    listener.handle(None)
    assert 0 == retention.turns
    put(listener, 1)
    listener.handle(None)
    assert (1, 1) == (listener.committer.writer.commits, retention.turns)
    clock.advance(1)
    listener.handle(None)
    assert 1 == retention.turns
    put(listener, 1)
    listener.handle(None)

    assert 2 == retention.turns


def test_retention_waits_for_two_flush_intervals_at_most(make, retention, clock):
    """
    Retention that is due sooner waits for `flush_interval`, and then for the commit of the rows that have come.

    The page on retention left that out: with `flush_interval=5`, rows stayed five seconds longer than it said.
    """
    retention.due = 1.0
    listener = make(retention=retention, flush_interval=5)
    put(listener, 1)
    listener.handle(None)
    assert 5 == listener.seconds_to_wait(clock.now)
    clock.advance(5 - 1e-6)
    put(listener, 1)

    assert (5, 1) == (listener.seconds_to_wait(clock.now), retention.turns)
    clock.advance(5)
    listener.handle(None)
    assert 2 == retention.turns


@pytest.mark.parametrize("retention", [None, FakeRetention()], ids=["no limits", "limits"])
def test_nothing_logged_and_nothing_due_is_no_wakeup(make, retention, clock):
    """Without limits, and with limits and nothing to come, an idle listener waits without a timeout."""
    listener = make(retention=retention)
    put(listener, 1)
    listener.handle(None)

    assert None is listener.seconds_to_wait(clock.now)


def test_an_idle_listener_wakes_up_when_the_next_row_comes_of_age(make, retention, clock):
    """With nothing queued the thread sleeps until retention has something to do, and no longer."""
    retention.due = 3_600.0
    listener = make(retention=retention)
    put(listener, 1)
    listener.handle(None)
    assert 3_600.0 == listener.seconds_to_wait(clock.now)
    clock.advance(3_600)
    assert 0 == listener.seconds_to_wait(clock.now)
    listener.handle(None)

    assert 2 == retention.turns
    assert 3_600.0 == listener.seconds_to_wait(clock.now)


@pytest.mark.parametrize(("flush_interval", "pause"), [(0.001, 0.001), (0.1, 0.02), (600, 0.02)])
@pytest.mark.parametrize("waiting", [0, 1])
def test_pieces_are_a_moment_apart(make, retention, clock, flush_interval, pause, waiting):
    """
    While there is more to delete, the next piece is due a moment later, also if rows wait, or somebody has flushed.

    It was due a `flush_interval` later: with `max_rows=1000` and `flush_interval=5`, 500 rows of 10 kB a second made a
    log that grew without end, because a piece is 8 MB at most.
    """
    retention.due = [0, 0, None]
    listener = make(retention=retention, flush_interval=flush_interval)
    put(listener, 1)
    listener.handle(None)
    for _ in range(2):
        put(listener, 1)
        listener.flush()
        put(listener, waiting)
        assert pause == pytest.approx(listener.seconds_to_wait(clock.now))
        clock.advance(pause * 1.1)
        listener.handle(None)

    assert (None, 3) == (listener.seconds_to_wait(clock.now), retention.turns)
    retention.due = None
    put(listener, 1)
    assert flush_interval == pytest.approx(listener.seconds_to_wait(clock.now))


def test_a_program_that_flushes_each_record_is_pruned_too(make, retention, clock):
    """After a commit by `flush` the listener's thread has something to do, though nothing is queued any more."""
    listener = make(retention=retention)
    put(listener, 1)
    assert listener.flush()
    assert 0 == listener.seconds_to_wait(clock.now)
    listener.handle(None)

    assert 1 == retention.turns


def test_retention_waits_while_many_rows_wait(make, retention, clock):
    """While more than a tenth of the capacity is queued the commits come first; what is urgent is for the writer."""
    listener = make(retention=retention, capacity=20)
    put(listener, 10)
    listener.handle(None)
    assert (6, 0) == (listener.queue.queued, retention.turns)
    listener.handle(None)

    assert (2, 1) == (listener.queue.queued, retention.turns)


def test_nothing_is_pruned_while_nothing_can_be_written(make, retention, clock):
    """After a commit that failed, retention does not try its luck."""
    listener = make(retention=retention)
    put(listener, 1)
    listener.handle(None)
    clock.advance(1)
    listener.committer.writer.error = OSError("no")
    put(listener, 1)
    listener.committer._prune_due = clock.now
    listener.handle(None)
    assert 1 == retention.turns
    listener.queue.give_up(2, "close_timeout")
    report(listener.queue)
    listener.queue.ledger.gaps.clear()

    # Nor does the listener wake up for it.
    assert None is listener.seconds_to_wait(clock.now)


def test_without_room_rows_are_dropped_with_a_cause(make, warnings, clock):
    """What the disk budget has no room for is dropped as `disk_budget`; the warning says why, the books balance."""
    listener = make()
    listener.committer.writer.full = "file and WAL take 52.0 MB of max_bytes 50.0 MB"
    put(listener, 3)
    listener.handle(None)
    clock.advance(0.1)
    listener.handle(None)

    books = listener.queue.books()
    assert (3, 0, 3, 0) == (books["seen"], books["written"], books["dropped_total"], books["queued"])
    assert {("disk_budget", INFO, "a"): 3} == books["drops"]
    assert [] == listener.committer.writer.rows
    assert "disk_budget 3" in warnings[0].getMessage()
    assert warnings[0].getMessage().endswith("the writer says: file and WAL take 52.0 MB of max_bytes 50.0 MB")


def test_a_gap_waits_for_room(make, warnings, clock):
    """The gap of rows that had no room is itself written when there is room again."""
    listener = make()
    listener.committer.writer.full = "full"
    put(listener, 3)
    listener.handle(None)
    clock.advance(0.1)
    listener.handle(None)
    assert [] == listener.committer.writer.gaps
    listener.committer.writer.full = None
    clock.advance(0.1)
    listener.handle(None)

    assert [3] == [gap.count for gap in listener.committer.writer.gaps]


def test_close_writes_the_gap_in_any_case(make, retention, warnings, clock):
    """`close` drops the rows for which there is no room, writes what it has to report of drops, and takes no time."""
    listener = make(retention=retention)
    listener.committer.writer.full = "full"
    put(listener, 3)
    before = clock.now
    listener.close()

    assert [3] == [gap.count for gap in listener.committer.writer.gaps]
    assert ([], 3) == (listener.committer.writer.rows, listener.queue.books()["dropped_total"])
    assert before == clock.now


def test_close_prunes_for_a_moment(make, retention, clock):
    """A program that runs for less than a tick prunes too: `close` does what is due, for 0.2 s at most."""
    listener = make(retention=retention)
    retention.due = [0, 0, None]
    put(listener, 1)
    listener.close()
    assert 3 == retention.turns

    prune = retention.prune

    def slow():
        clock.advance(0.15)
        return prune()

    retention.prune, retention.due, retention.turns = slow, 0, 0
    listener.queue.open()
    put(listener, 1)
    listener.close()
    assert 2 == retention.turns


@pytest.mark.parametrize(
    ("took", "prune", "left"),
    [
        (0, True, [1.0, "stop", 60]),
        (59.5, True, [0.5, "stop", 0.5]),
        (60, True, [0, "stop", 0]),
        (0, False, ["stop", 60]),
    ],
)
def test_close_waits_for_the_archive_within_its_time(make, retention, clock, took, prune, left):
    """
    `close` waits for a part that is being written, a second at most, and for the end of the thread, as long as there is
    time left.

    That second came on top of `close_timeout`. And where the listener's thread had ended on a locked file, and left it
    to `close`, the interpreter exited while the archive's thread was in Arrow, which may abort the process.
    """
    waits = []

    class Archiver:
        def await_part(self, timeout):
            return waits.append(timeout)

        def stop(self):
            waits.append("stop")

        def await_end(self, timeout):
            waits.append(timeout)

    listener = make(retention=retention, close_timeout=60)
    listener.committer.writer.archiver = Archiver()
    put(listener, 1)
    deadline = clock.now + 60
    clock.advance(took)
    listener.committer.finish(deadline, prune=prune)

    assert left == waits


def test_a_handler_that_wrote_nothing_prunes_nothing_at_close(make, retention):
    """`close` without a commit before it leaves the file as it is."""
    make(retention=retention).close()

    assert 0 == retention.turns


def test_a_batch_is_bounded_in_bytes(make):
    """A transaction takes `commit_bytes` of rows at most, so that it fits into the WAL's share of a small budget."""
    listener = make(batch_size=10)
    listener.committer._commit_size = 3
    put(listener, 8)
    listener.committer.commit()

    assert 3 == len(listener.committer.writer.rows)


def test_a_batch_that_was_cut_to_its_bytes_is_followed_at_once(make, clock):
    """Rows that were due and did not fit into one transaction are committed without waiting for another tick."""
    listener = make(batch_size=10)
    listener.committer._commit_size = 3
    put(listener, 5)
    listener.handle(None)
    assert (2, 0) == (listener.queue.queued, listener.seconds_to_wait(clock.now))
    listener.handle(None)

    assert (5, None) == (len(listener.committer.writer.rows), listener.seconds_to_wait(clock.now))
