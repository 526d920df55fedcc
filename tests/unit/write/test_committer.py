"""
Drop warnings of a listener that is driven by hand.
"""

from __future__ import annotations

import functools
import logging
import logging.handlers
import threading

import pytest
from listeners import numbers, put, row

from sqlite_log_handler._logfile.schema import OWN_LOGGER


def test_one_warning_per_tick_with_drops(make, clock, warnings):
    """A tick with drops sends exactly one warning with their number, a tick without sends none, and all add up."""
    listener = make(capacity=2)
    expected = []
    for drops in (3, 0, 1, 0, 0, 5):
        put(listener, 2 - listener.queue.queued + drops)
        listener.handle(None)
        clock.advance(0.1)
        if drops:
            expected.append(drops)
        assert expected == [record.dropped for record in warnings]

    assert listener.queue.dropped_total == sum(expected) == warnings[-1].dropped_total


def test_warnings_go_out_while_nothing_can_be_written(make, clock, warnings):
    """During an outage drops are reported at every tick, not at the pace of the attempts."""
    listener = make(capacity=1)
    put(listener, 1)
    listener.committer.writer.error = OSError("disk")
    for _ in range(20):
        put(listener, 1)
        listener.handle(None)
        clock.advance(0.1)

    assert [1] * 20 == [record.dropped for record in warnings]


def test_batches_that_are_due_at_once_share_a_warning(make, clock, warnings):
    """
    Full batches, and batches cut to their bytes, are due much sooner than a tick. Drops are reported once a tick.

    Behind a reader that held the WAL, a backlog was dropped batch by batch, with 90 warnings in 0.4 s.
    """
    listener = make(capacity=2)
    for dropped in (1, 2, 3, 4):
        put(listener, 2 + dropped)
        listener.handle(None)
    assert [1] == [record.dropped for record in warnings]

    clock.advance(0.1)
    listener.handle(None)
    assert [1, 2 + 3 + 4] == [record.dropped for record in warnings]


@pytest.mark.parametrize("where", ["filter", "factory"])
def test_a_report_that_raises_keeps_no_commit_from_being_made(make, warnings, where, request):
    """
    Filters and record factories read what the program keeps for each request, and there is none on this thread.

    Each tick raised before it came to the commit. When a disk was back, nothing was written any more.
    """

    def fails(*_, **__):
        raise RuntimeError("outside of a request")

    listener = make(capacity=2)
    if where == "filter":
        logging.getLogger(OWN_LOGGER).handlers[0].addFilter(fails)
    else:
        request.addfinalizer(functools.partial(logging.setLogRecordFactory, logging.getLogRecordFactory()))
        logging.setLogRecordFactory(fails)
    put(listener, 5)
    listener.handle(None)
    listener.handle(None)

    assert [0, 1] == numbers(listener)
    assert [3] == [gap.count for gap in listener.committer.writer.gaps]
    assert listener.committer.outage.last_error == "RuntimeError: outside of a request"
    assert not warnings


def test_what_is_admitted_is_looked_at_each_tick(make, clock, warnings):
    """A row that found no room in the queue narrows what is admitted until the next tick, not until the next report."""
    listener = make(capacity=2)
    put(listener, 3)
    listener.handle(None)
    listener.committer.commit()
    listener.queue.admits = 30

    listener.handle(None)

    assert listener.queue.admits is None


def test_a_report_that_was_given_up_long_ago(make, clock, warnings):
    """One close that gave up does not make the next one try its last report only once."""
    listener = make(capacity=2, close_timeout=3.0)
    put(listener, 1)
    listener.committer.writer.error = OSError("disk")
    listener.close()
    listener.committer.writer.error = None
    listener.queue.open()
    put(listener, 3)
    errors = [OSError("busy"), OSError("busy")]

    def busy_for_a_while(batch):
        if batch.gaps and not batch.rows and errors:
            raise errors.pop()

    listener.committer.writer.before = busy_for_a_while
    listener.close()

    assert [1, 1] == [gap.count for gap in listener.committer.writer.gaps]
    assert not listener.queue.ledger.gaps


def test_a_warning_says_why(make, clock, warnings):
    """The text says how many and why: causes, fill, who, since when, and what the writer says."""
    listener = make(capacity=2)
    put(listener, 2)
    listener.committer.commit()
    clock.advance(2.0)
    listener.committer.writer.error = OSError("disk")
    put(listener, 2)
    listener.handle(None)
    for number in (5, 6, 7):
        listener.queue.put_nowait(row(number))
    listener.handle(None)

    text = warnings[0].getMessage()
    for part in (
        "dropped 3 records",
        "queue_full 3",
        "2 of 2 rows",
        "a INFO 3",
        "dropping for 2.0 s",
        "last commit 2.0 s ago",
        "OSError: disk",
    ):
        assert part in text


def test_a_warning_is_an_ordinary_record(make, warnings):
    """The warning is a WARNING of its own logger, with numbers as attributes."""
    listener = make(capacity=1)
    put(listener, 4)
    listener.handle(None)

    (record,) = warnings
    assert (OWN_LOGGER, logging.WARNING, 3, 3) == (record.name, record.levelno, record.dropped, record.dropped_total)


def test_warnings_reach_the_database_without_the_queue(make, warnings):
    """A warning is given to the writer with the next commit, in its place, and takes no room in the queue."""
    listener = make(capacity=1)
    put(listener, 3)

    listener.handle(None)

    (gap,) = listener.committer.writer.gaps
    assert (1, 2, 2) == (gap.position, gap.count, gap.warning.dropped)
    assert (1, 1) == (listener.queue.written, len(listener.committer.writer.rows))


def test_other_handlers_cannot_change_what_is_stored(make, warnings):
    """The database gets its own copy of the warning: what other handlers put into the record stays theirs."""
    listener = make(capacity=1)
    put(listener, 2)

    class Spoil(logging.Handler):
        def emit(self, record):
            record.dropped = "spoilt"

    logging.getLogger(OWN_LOGGER).addHandler(Spoil())

    listener.handle(None)

    assert 1 == listener.committer.writer.gaps[0].warning.dropped


def test_a_second_configuration_does_not_silence_the_warnings(make, warnings):
    """`dictConfig` disables every logger that it does not name; drops are reported all the same."""
    listener = make(capacity=1)
    logging.getLogger(OWN_LOGGER).disabled = True
    put(listener, 2)

    listener.handle(None)

    assert 1 == len(warnings)


def test_the_warnings_can_be_silenced_by_their_level(make, warnings):
    """To keep them off the console, a program raises the level of the logger; the database has them all the same."""
    listener = make(capacity=1)
    logging.getLogger(OWN_LOGGER).setLevel(logging.ERROR)
    put(listener, 2)

    listener.handle(None)

    assert ([], 1) == (warnings, len(listener.committer.writer.gaps))


def test_nobody_logs_under_a_lock(make):
    """The thread that handles the warning holds neither the commit lock nor the queue's mutex."""
    listener = make(capacity=1)
    put(listener, 2)
    held = []

    class Look(logging.Handler):
        def emit(self, record):
            held.append((listener.committer.lock._worker == threading.get_ident(), listener.queue.mutex._is_owned()))

    logging.getLogger(OWN_LOGGER).addHandler(Look())
    listener.handle(None)
    listener.committer.drop_report.wait(60)

    assert [(False, False)] == held


def test_a_batch_whose_end_fails_twice(make, clock, monkeypatch):
    """
    Rows are in the file once, however often there is no memory to take them off the queue.

    The second error in a row came out of the commit, and the next one wrote the batch again.
    """
    listener = make()
    errors = [MemoryError(), MemoryError()]
    remove = listener.queue._remove

    def failing(*arguments, **options):
        if errors:
            raise errors.pop()
        return remove(*arguments, **options)

    monkeypatch.setattr(listener.queue, "_remove", failing)
    put(listener, 3)
    for _ in range(2):
        clock.advance(0.1)
        listener.handle(None)

    assert [0, 1, 2] == numbers(listener)
    assert (3, 0) == (listener.queue.written, listener.queue.queued)
