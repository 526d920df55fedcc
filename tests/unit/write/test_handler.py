"""
The books of a handler, and its limits.
"""

from __future__ import annotations

import threading
import time

import pytest
from records import messages

from sqlite_log_handler._logfile.clock import monotonic
from sqlite_log_handler._write import committer as committer_module


def test_stats_are_one_snapshot(make_handler, logger):
    """A program that asks while its threads log gets numbers that belong together."""
    handler = make_handler(capacity=50, reserve=0)
    logger.addHandler(handler)
    stop = threading.Event()

    def chat():
        while not stop.is_set():
            logger.info("x")

    threads = [threading.Thread(target=chat) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            stats = handler.stats()
            assert stats.seen == stats.written + stats.dropped_total + stats.queued
            assert stats.dropped_total == sum(stats.dropped_by_cause.values()) == sum(stats.dropped_by_level.values())
            assert stats.queued <= 50
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_books_count_every_call(make_handler, logger, query):
    """Calls counted by those who made them are what the books say they saw, and what the file and the ledger hold."""
    handler = make_handler(capacity=200, reserve=0)
    logger.addHandler(handler)
    start = threading.Barrier(4)

    def chat():
        start.wait()
        for number in range(3_000):
            logger.info("%d", number)

    threads = [threading.Thread(target=chat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()

    stats = handler.stats()
    assert (12_000, 0) == (stats.seen, stats.queued)
    assert [(stats.written,)] == query("SELECT count(*) FROM logs WHERE logger = ?", logger.name)
    assert [(stats.dropped_total or None,)] == query("SELECT sum(count) FROM drops")


def test_a_handler_shows_itself(make_handler, path):
    """The repr names file and level, as FileHandler's does."""
    assert f"<SQLiteHandler {path} (INFO)>" == repr(make_handler(level="INFO"))


def test_the_clock_of_ticks_does_not_jump(make_handler, logger, query):
    """Ticks run on monotonic time: a wall clock that is set back does not keep rows in memory."""
    handler = make_handler()
    assert monotonic is handler.listener.committer.now


def test_without_limits_nothing_is_pruned(make_handler):
    """Retention is off by default: the listener never asks for it, and transactions have their usual size."""
    handler = make_handler()

    assert not handler.listener.committer.retains
    assert 65_536 == handler.max_record_bytes


@pytest.fixture
def prune_at_close(monkeypatch):
    """
    Give `close` the time that it needs for retention: on a machine that stands still, the usual 0.2 s are over at once.
    """
    monkeypatch.setattr(committer_module, "_CLOSE_PRUNE", 60)


def test_limits_reach_the_file(make_handler, logger, query, prune_at_close):
    """With `max_rows` the oldest records go, by a listener that runs as ever, and `close` does what is left."""
    handler = make_handler(max_rows=50, flush_interval=0.01)
    logger.addHandler(handler)
    for number in range(500):
        logger.info("n %d", number)
    handler.close()

    stored = messages(query)
    assert 40 <= len(stored) <= 50
    assert "n 499" == stored[-1]
    assert [(500,)] == query("SELECT (SELECT count(*) FROM records) + (SELECT sum(count) FROM prunes)")
    assert (500, 500) == (handler.stats().seen, handler.stats().written)


def test_a_program_that_runs_for_a_moment_prunes_too(make_handler, logger, query, prune_at_close):
    """A program that ends before the first tick prunes in `close`, so that one that is run by cron keeps its limits."""
    for run in range(3):
        handler = make_handler(max_rows=10, flush_interval=60)
        logger.addHandler(handler)
        for number in range(20):
            logger.info("run %d, %d", run, number)
        handler.close()
        logger.removeHandler(handler)

    assert [f"run 2, {number}" for number in range(10, 20)] == messages(query)


def test_a_record_fits_into_a_small_budget(make_handler):
    """With a small `max_bytes` a record is cut to a sixteenth of it, because a commit takes no more."""
    assert 65_536 == make_handler(max_bytes="1MiB").max_record_bytes
    assert 131_072 == make_handler(max_bytes="2MiB", max_record_bytes=512 * 1024).max_record_bytes


def test_an_idle_program_with_max_age_wakes_up_for_the_next_row(make_handler, logger, clock, unattended):
    """
    With `max_age` the listener sleeps until the oldest row comes of age; for the newest row it does not wake up at all.
    """
    handler = make_handler(max_age=3_600, flush_interval=60)
    listener, pruner = handler.listener, handler.listener.committer.writer.pruner
    listener.committer.now = pruner._clock = pruner._now = clock
    logger.addHandler(handler)
    clock.now = time.time()
    logger.info("one")
    logger.info("two")
    handler.flush()
    listener.handle(None)
    assert 3_500 < listener.seconds_to_wait(clock.now) < 3_601
    clock.advance(3_700)
    assert 0 == listener.seconds_to_wait(clock.now)
    listener.handle(None)
    clock.advance(61)
    listener.handle(None)

    assert None is listener.seconds_to_wait(clock.now)
