"""
Queues and rows for the tests of the queue, without any thread.
"""

from __future__ import annotations

from sqlite_log_handler._write.queue import SIZE_UNIT, RecordQueue

INFO, WARNING, ERROR = 20, 30, 40


def row(levelno=INFO, *, size=1, logger="a", created=0.0, marks=0):
    """Make what the queue knows of a row."""
    return (levelno, created, (logger, "file.py", 1, "func"), size, marks)


def make_queue(capacity=10, size=1_000, **options):
    """Make an open queue, as if a listener had started."""
    made = RecordQueue(capacity, size * SIZE_UNIT, **options)
    made.open()
    return made


def check(books):
    """Check what holds at every instant, against counts that were kept apart."""
    found = books.books()
    rows = [*books._ahead, *books.queue]
    assert len(rows) == books.queued == found["queued"]
    assert sum(item[3] for item in rows) == books.queued_size
    assert found["seen"] == found["written"] + found["dropped_total"] + found["queued"]
    assert found["dropped_total"] == sum(found["drops"].values())


def commit_all(books, *, unwritable=()):
    """Commit what one transaction takes."""
    batch = books.begin_commit(10**9)
    books.end_commit(batch, unwritable)
    return batch


def report(books):
    """Report the drops since the last report as a tick does; return the gap, or None."""
    gap = books.take_drops()
    assert gap is None or books.add_gap(gap)
    return gap


def awake(books):
    """Tell whether the listener was woken, and take the wake-up as it would."""
    return books.wakeup.acquire(blocking=False)
