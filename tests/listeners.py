"""
A writer that is a fake, rows for a listener that is driven by hand, and ticks.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import threading

from sqlite_log_handler._write.retention.limits import NoRoom

INFO, ERROR = 20, 40


class FakeWriter:
    """A writer that keeps what it is given, fails when told to, and waits at a gate when there is one."""

    def __init__(self):
        self.rows = []
        self.gaps = []
        self.commits = 0
        self.closed = 0
        self.forgotten = 0
        self.connection = None
        self.archiver = None
        self.error = None
        self.full = None
        self.refused: set[int] = set()
        self.entered = threading.Event()
        self.gate = None
        self.before = lambda batch: None  # what a test does in the middle of each commit

    def write(self, batch, outcome, *, in_any_case=False):
        self.before(batch)
        self.entered.set()
        if self.full is not None and not in_any_case:
            raise NoRoom(self.full)
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        self.commits += 1
        self.rows += batch.rows
        self.gaps += batch.gaps
        outcome.refused = self.refused
        outcome.written = True

    def close(self, lock_timeout=0):
        self.closed += 1

    def forget(self, cut_off):
        self.forgotten += 1
        self.cut_off = cut_off


class Impatient:
    """A lock on which nobody waits: the clock moves instead."""

    def __init__(self, lock, clock):
        self._lock, self._clock = lock, clock

    def acquire(self, blocking=True, timeout=-1):
        if self._lock.acquire(blocking=False):
            return True
        self._clock.advance(max(0, timeout))
        return False

    def release(self):
        self._lock.release()

    def locked(self):
        return self._lock.locked()


class Warnings(logging.Handler):
    """Keep what the own logger is told."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def row(number=0, levelno=INFO):
    """Make a row, as far as listener and queue look."""
    return (levelno, float(number), ("a", "file.py", 1, "func"), 1, 0)


def put(listener, count, levelno=INFO):
    """Log so many rows, numbered as they come."""
    for _ in range(count):
        listener.queue.put_nowait(row(listener.queue.removed + listener.queue.queued, levelno))


def numbers(listener):
    """Return the numbers of the rows that were written."""
    return [item[1] for item in listener.committer.writer.rows]


@contextlib.contextmanager
def stuck(listener):
    """Have another thread stand in the middle of a commit inside the `with` block."""
    writer = listener.committer.writer
    writer.gate = threading.Event()
    other = threading.Thread(target=listener.committer.commit)
    other.start()
    writer.entered.wait()
    yield
    writer.gate.set()
    other.join()


def ticks(handler, clock, count=1):
    """Let so many ticks pass, with books that balance after each."""
    for _ in range(count):
        handler.listener.handle(None)
        clock.advance(handler.listener.committer.flush_interval)
        stats = handler.stats()
        assert stats.seen == stats.written + stats.dropped_total + stats.queued


def check_recovery(handler, clock, log, contents, said):
    """Let at most 5 seconds pass, and then check that all is there but what was dropped, and that two lines say so."""
    ticks(handler, clock, 52)
    stats = handler.stats()
    assert (len(log.logged), 0) == (stats.seen, stats.queued)
    found = contents()
    assert (stats.written, stats.dropped_total) == (len(found.numbers["n"]), found.dropped)
    assert 1 == len([line for line in said if "cannot write" in line])
    assert 1 == len([line for line in said if "writing again" in line])
    return found
