"""
Failures and successes of commits, by numbers: when to try again, and what the operator is told.
"""

from __future__ import annotations

import math

from sqlite_log_handler._write import outage as outage_module
from sqlite_log_handler._write.outage import BACKOFF_LIMIT, OUTAGE_AFTER, TURN_OUTAGE_AFTER, Outage

DISK, TURN = OSError("disk"), TimeoutError("process 1 is writing")


def test_the_next_attempt_is_later_each_time():
    """After a failure the next attempt is one flush interval away, then two, four, and five seconds at most."""
    outage = Outage(0.1)
    delays, now = [], 100.0
    for _ in range(40):
        outage.failed(DISK, now)
        delays.append(round(outage.next_attempt - now, 6))
        now = outage.next_attempt

    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, BACKOFF_LIMIT] == delays[:7]
    assert {BACKOFF_LIMIT} == set(delays[7:])


def test_a_flush_in_an_outage_does_not_delay_the_next_attempt():
    """
    A file was locked for a second, and a program called `flush`, which tries fifty times a second. Each try counted as
    a step of the listener, so the queued records were written five seconds after the end of the lock.
    """
    outage = Outage(0.1)
    for tenth in range(2):
        for _ in range(50):
            outage.failed(DISK, 100.0 + tenth / 10)

    assert 100.3 == outage.next_attempt


def test_a_flush_that_fails_before_an_attempt_of_the_listener():
    """
    The listener has begun an attempt, which will set when the next one is due, and a `flush` of another thread fails
    first: the next one is due all the same. It waited for the end of a flush interval, however long that was.
    """
    outage = Outage(0.1)
    outage.failed(DISK, 100.0)
    outage.retry_due = math.inf

    outage.failed(DISK, 100.05)

    assert 100.1 == outage.retry_due


def test_a_turn_is_waited_for_without_a_pause():
    """While another process writes, the next attempt is due at the next tick."""
    outage = Outage(0.1)
    outage.failed(DISK, 100.0)
    outage.failed(TURN, 100.0)

    assert 0.0 == outage.next_attempt


def test_a_long_flush_interval_does_not_delay_the_next_attempt():
    """
    A commit that failed is tried again after five seconds at most, also when ticks are further apart.

    With `flush_interval=40`, an ERROR whose commit met a lock of half a second was written forty seconds later.
    """
    outage = Outage(40.0)
    outage.failed(DISK, 100.0)
    assert 100.0 + BACKOFF_LIMIT == outage.next_attempt == outage.retry_due
    outage.failed(TURN, 200.0)
    assert (0.0, 200.0 + BACKOFF_LIMIT) == (outage.next_attempt, outage.retry_due)
    outage.succeeded(201.0, 0)
    assert math.inf == outage.retry_due


def test_an_outage_is_said_once():
    """A failure is an outage after a second, and a turn that does not come after five; each is one line."""
    for error, limit in ((DISK, OUTAGE_AFTER), (TURN, TURN_OUTAGE_AFTER)):
        outage = Outage(60.0)  # so no attempt but the first one is due
        lines = [outage.failed(error, now) for now in (100.0, 100.0 + limit - 0.01, 100.0 + limit, 100.0 + 2 * limit)]

        assert [False, False, True, False] == [line is not None for line in lines]


def test_the_end_of_an_outage_counts_all_drops_since_the_last_commit():
    """
    "Writing again; 0 records were dropped meanwhile" was said after 910 drops: those before the first line were left
    out.
    """
    outage = Outage(0.1)
    assert outage.succeeded(100.0, 5) is None
    outage.failed(DISK, 101.0)  # 910 records have been dropped by now
    outage.failed(DISK, 102.0)

    assert "writing again; 910 records were dropped since the last commit" == outage.succeeded(103.0, 915)
    assert outage.succeeded(104.0, 915) is None
    outage.failed(DISK, 105.0)
    assert outage.succeeded(105.1, 916) is None  # a moment of contention is no outage


def test_the_age_of_the_last_commit():
    """There is none before the first commit, and failures do not make it younger."""
    outage = Outage(0.1)
    assert outage.last_commit_age(100.0) is None
    outage.succeeded(100.0, 0)
    outage.failed(DISK, 101.0)

    assert 2.5 == outage.last_commit_age(102.5)
    assert 0.0 == outage.last_commit_age(99.9)  # a report whose tick began before the commit


def test_an_error_that_cannot_be_shown():
    """An error that raises when it is shown is known by its type."""

    class Unshowable(Exception):  # noqa: N818 - a test's
        def __str__(self):
            raise ValueError

    outage = Outage(0.1)
    outage.note(Unshowable())

    assert "Unshowable: <Unshowable that cannot be shown: ValueError>" == outage.last_error


def test_an_error_without_memory_for_its_text(monkeypatch):
    """When there is no memory for the text of an error, that is noted: a MemoryError there came out of `close`."""
    outage = Outage(0.1)
    monkeypatch.setattr(outage_module, "shown", lambda *_: bytearray(1 << 62))
    outage.note(DISK)

    assert "MemoryError" == outage.last_error
