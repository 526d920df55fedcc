"""
The listener, driven by hand: what is due and when, and commits that fail. Clocks and writers are fakes.
"""

from __future__ import annotations

import itertools

import pytest
from listeners import ERROR, INFO, numbers, put
from queues import awake

from sqlite_log_handler._write.outage import BACKOFF_LIMIT

# When a tick is due --------------------------------------------------------------------------------------------------


def test_nothing_logged_is_nothing_to_wait_for(make, clock):
    """With an empty queue the listener waits without a timeout: no wake-ups at all."""
    listener = make()

    assert listener.seconds_to_wait(clock()) is None


def test_a_commit_is_due_when_the_oldest_row_is_old_enough(make, clock):
    """A row waits `flush_interval` at most, counted from the first of its batch."""
    listener = make()
    put(listener, 1)

    assert pytest.approx(0.1) == listener.seconds_to_wait(clock())
    clock.advance(0.06)
    put(listener, 1)
    assert pytest.approx(0.04) == listener.seconds_to_wait(clock())
    clock.advance(0.05)
    assert 0 == listener.seconds_to_wait(clock())


def test_a_full_batch_is_due_at_once(make, clock):
    """`batch_size` rows do not wait for the flush interval."""
    listener = make(batch_size=4)
    put(listener, 3)
    assert 0 < listener.seconds_to_wait(clock())

    put(listener, 1)

    assert 0 == listener.seconds_to_wait(clock())


def test_a_commit_that_failed_is_due_before_a_late_tick(make, clock):
    """With a `flush_interval` above five seconds, an ERROR that met a locked file does not wait for the next tick."""
    listener = make(flush_interval=40)
    listener.committer.writer.error = OSError("locked")
    put(listener, 1, ERROR)
    listener.handle(None)

    assert BACKOFF_LIMIT == listener.seconds_to_wait(clock())


def test_a_flush_that_failed_wakes_the_thread(make, clock):
    """
    The thread sleeps until the next tick. When a `flush` has failed meanwhile, it tries again after five seconds.

    With `flush_interval=3600` it slept on for up to an hour, also when an ERROR came, or a burst that filled the queue.
    """
    listener = make(flush_interval=3_600)
    put(listener, 1)
    assert 3_600 == listener.seconds_to_wait(clock())
    awake(listener.queue)
    listener.committer.writer.error = OSError("locked")
    assert not listener.flush(0)

    assert (True, BACKOFF_LIMIT) == (awake(listener.queue), listener.seconds_to_wait(clock()))
    listener.committer.writer.error = None
    clock.advance(BACKOFF_LIMIT)
    assert 0 == listener.seconds_to_wait(clock())
    listener.handle(None)
    assert [0] == numbers(listener)


def test_an_attempt_that_finds_no_room_is_not_repeated_at_once(make, clock):
    """After a failure, a commit that finds no room within `max_bytes` is one attempt too; the next tick is the next."""
    listener = make(flush_interval=40)
    put(listener, 1)
    listener.committer.writer.error = OSError("locked")
    listener.handle(None)
    listener.committer.writer.full = "no room"
    clock.advance(BACKOFF_LIMIT)
    assert 0 == listener.seconds_to_wait(clock())
    listener.handle(None)

    assert listener.queue.pending
    assert 40 == listener.seconds_to_wait(clock())


def test_an_error_is_due_at_once(make, clock):
    """A row at `flush_level` does not wait either, and is waited for only once."""
    listener = make()
    put(listener, 1, ERROR)
    assert 0 == listener.seconds_to_wait(clock())

    listener.handle(None)
    put(listener, 1)

    assert 0 < listener.seconds_to_wait(clock())


def test_ticks_keep_their_pace(make, clock):
    """A commit that leaves rows behind is followed by the next tick one flush interval after its own."""
    listener = make(batch_size=4)
    put(listener, 2)
    listener.seconds_to_wait(clock())
    listener.committer.writer.error = OSError("disk")
    clock.advance(0.1)
    listener.handle(None)

    clock.advance(0.03)
    assert pytest.approx(0.07) == listener.seconds_to_wait(clock())


def test_an_outage_does_not_make_the_listener_spin(make, clock):
    """While commits fail, a full batch and an error wait for the tick like everything else."""
    listener = make(batch_size=2)
    listener.committer.writer.error = OSError("disk")
    put(listener, 4, ERROR)
    listener.handle(None)
    put(listener, 1, ERROR)

    assert 0 < listener.seconds_to_wait(clock())


# Commits -------------------------------------------------------------------------------------------------------------


def test_one_transaction_per_batch(make):
    """A tick writes one batch of `batch_size` rows at most, in order."""
    listener = make(batch_size=4)
    put(listener, 6)

    listener.handle(None)
    assert (1, [0, 1, 2, 3]) == (listener.committer.writer.commits, numbers(listener))
    listener.handle(None)
    assert (2, [0, 1, 2, 3, 4, 5]) == (listener.committer.writer.commits, numbers(listener))


def test_a_commit_that_fails_is_tried_again(make, clock):
    """Rows of a failed commit stay queued and counted, and the next attempt writes them in order."""
    listener = make()
    put(listener, 3)
    listener.committer.writer.error = OSError("disk")
    listener.handle(None)
    assert (3, 0) == (listener.queue.queued, listener.queue.written)
    assert "OSError: disk" == listener.committer.outage.last_error

    listener.committer.writer.error = None
    clock.advance(0.1)
    listener.handle(None)

    assert ([0, 1, 2], 0) == (numbers(listener), listener.queue.queued)


def test_back_off_grows_and_falls(make, clock):
    """Attempts come after 1, 2, 4, ... flush intervals, 5 seconds at most, and at each tick again after a success."""
    listener = make()
    put(listener, 1)
    listener.committer.writer.error = OSError("disk")
    began, attempts = clock(), []
    listener.committer.writer.before = lambda _: attempts.append(clock() - began)
    for _ in range(300):
        listener.handle(None)
        clock.advance(0.1)

    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0][: len(gaps)], abs=0.11) == gaps
    assert 9 <= len(gaps)

    listener.committer.writer.error = None
    clock.advance(5)
    listener.handle(None)
    put(listener, 1)
    listener.committer.writer.error = OSError("disk")
    attempts.clear()
    began = clock()
    for _ in range(3):
        listener.handle(None)
        clock.advance(0.1)

    assert pytest.approx([0.0, 0.1]) == attempts[:2]


def test_no_back_off_from_those_who_share_the_file(make, clock):
    """
    While another process writes, its turn is waited for: at every tick, and at once when there is a full batch.

    With ever longer pauses, the process that had waited longest was the least likely to get the lock.
    """
    listener = make(batch_size=4)
    put(listener, 1)
    listener.committer.writer.error = TimeoutError("process 1 is writing")
    attempts = []
    listener.committer.writer.before = attempts.append
    for _ in range(30):
        listener.handle(None)
        assert pytest.approx(0.1) == listener.seconds_to_wait(clock())
        clock.advance(0.1)
    put(listener, 3)

    assert (30, 0) == (len(attempts), listener.seconds_to_wait(clock()))
    listener.committer.writer.error = OSError("disk")
    listener.handle(None)
    assert 0 < listener.seconds_to_wait(clock())


def test_nothing_escapes_from_handle(make):
    """The thread survives each error of a commit: `QueueListener` would end it, and every later record with it."""
    listener = make()
    put(listener, 1)
    for error in (MemoryError(), RecursionError(), ValueError("x"), AssertionError()):
        listener.committer.writer.error = error
        listener.committer.outage.next_attempt = 0

        listener.handle(None)

        assert type(error).__name__ in listener.committer.outage.last_error
    assert 1 == listener.queue.queued


def test_rows_that_sqlite_refuses_are_dropped(make):
    """A row that cannot be written costs that row, counted as `unwritable`."""
    listener = make()
    put(listener, 3)
    listener.committer.writer.refused = {1}

    assert listener.committer.commit()

    assert {("unwritable", INFO, "a"): 1} == listener.queue.books()["drops"]
    assert (2, 0) == (listener.queue.written, listener.queue.queued)


def test_an_outage_is_two_lines(make, clock, said, warnings):
    """
    An outage says one line when it has lasted a second and one when it is over, however long it is.

    The second counts all drops since the last commit: "0 records were dropped" was said after 910 drops, because those
    before the first line were left out.
    """
    listener = make(capacity=4)
    put(listener, 4)
    listener.committer.writer.error = OSError("disk")
    for _ in range(100):
        put(listener, 1)
        listener.handle(None)
        clock.advance(0.1)
    assert 1 == len(said)
    assert "OSError: disk" in said[0]

    listener.committer.writer.error = None
    clock.advance(5)
    listener.handle(None)

    assert 2 == len(said)
    assert "100 records were dropped since the last commit" in said[1]
