"""
The listener, driven by hand: what is due and when, commits that fail, warnings, close. Clocks and writers are fakes.
"""

from __future__ import annotations

import functools
import itertools
import logging
import logging.handlers
import threading
from collections import deque
from typing import Any

import pytest

from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import listener as listener_module
from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.listener import RecordListener
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.queue import RecordQueue
from sqlite_log_handler._write.retention.limits import NoRoom
from sqlite_log_handler._write.row import SIZE_UNIT

INFO, ERROR = 20, 40


class FakeWriter:
    """
    A writer that keeps what it is given, fails when told to, and waits at a gate when there is one.
    """

    def __init__(self):
        self.rows = []
        self.gaps = []
        self.commits = 0
        self.closed = 0
        self.forgotten = 0
        self.connection = None
        self.error = None
        self.full = None
        self.refused: set[int] = set()
        self.entered = threading.Event()
        self.gate = None

    def write(self, batch, outcome, *, in_any_case=False):
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

    def close(self):
        self.closed += 1

    def forget(self, *, lost, interrupted):
        self.forgotten += 1
        self.lost, self.interrupted = lost, interrupted


class Impatient:
    """
    A lock on which nobody waits: the clock moves instead.
    """

    def __init__(self, lock, clock):
        self._lock, self._clock = lock, clock

    def acquire(self, blocking=True, timeout=-1):
        if self._lock.acquire(blocking=False):
            return True
        self._clock.advance(max(0, timeout))
        return False

    def release(self):
        self._lock.release()


class Warnings(logging.Handler):
    """
    Keep what the own logger is told.
    """

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def row(number=0, levelno=INFO):
    """
    Make a row, as far as listener and queue look.
    """
    return (levelno, float(number), ("a", "file.py", 1, "func"), 1, 0)


@pytest.fixture
def warnings(logging_tree):
    """
    The records that the own logger is given.
    """
    handler = Warnings()
    logger = logging.getLogger(OWN_LOGGER)
    logger.addHandler(handler)
    logger.propagate = False
    return handler.records


@pytest.fixture
def said():
    """
    The lines for the operator.
    """
    return []


@pytest.fixture
def make(clock, said, warnings, monkeypatch):
    """
    Make a listener with a fake writer on a small queue; no thread runs unless a test starts it.
    """
    made = []

    def make(capacity=10, batch_size=4, retention=None, **options):
        books = RecordQueue(capacity, 10_000 * SIZE_UNIT, batch_size=batch_size)
        operator = Operator("app-log.db")
        operator.say = said.append  # type: ignore[method-assign]
        writer: Any = FakeWriter()
        if retention is not None:
            writer.prune = lambda: retention.prune()  # noqa: PLW0108 - a test may replace it
        listener = RecordListener(
            books,
            writer,
            operator,
            retains=retention is not None,
            clock=clock,
            sleep=clock.advance,
            **{"flush_interval": 0.1, **options},
        )
        books.open()
        made.append(listener)
        return listener

    yield make

    for listener in made:
        writer = listener.writer
        if writer.gate is not None:
            writer.gate.set()
        writer.error = None
        listener.close()


def put(listener, count, levelno=INFO):
    """
    Log so many rows, numbered as they come.
    """
    for _ in range(count):
        listener.queue.put_nowait(row(listener.queue.removed + listener.queue.queued, levelno))


def numbers(listener):
    """
    Return the numbers of the rows that were written.
    """
    return [item[1] for item in listener.writer.rows]


# When a tick is due --------------------------------------------------------------------------------------------------


def test_nothing_logged_is_nothing_to_wait_for(make, clock):
    """
    With an empty queue the listener waits without a timeout: no wake-ups at all.
    """
    listener = make()

    assert listener.wait(clock()) is None


def test_a_commit_is_due_when_the_oldest_row_is_old_enough(make, clock):
    """
    A row waits `flush_interval` at most, counted from the first of its batch.
    """
    listener = make()
    put(listener, 1)

    assert pytest.approx(0.1) == listener.wait(clock())
    clock.advance(0.06)
    put(listener, 1)
    assert pytest.approx(0.04) == listener.wait(clock())
    clock.advance(0.05)
    assert 0 == listener.wait(clock())


def test_a_full_batch_is_due_at_once(make, clock):
    """
    `batch_size` rows do not wait for the flush interval.
    """
    listener = make(batch_size=4)
    put(listener, 3)
    assert 0 < listener.wait(clock())

    put(listener, 1)

    assert 0 == listener.wait(clock())


def test_an_error_is_due_at_once(make, clock):
    """
    A row at `flush_level` does not wait either, and is waited for only once.
    """
    listener = make()
    put(listener, 1, ERROR)
    assert 0 == listener.wait(clock())

    listener.handle(None)
    put(listener, 1)

    assert 0 < listener.wait(clock())


def test_ticks_keep_their_pace(make, clock):
    """
    A commit that leaves rows behind is followed by the next tick one flush interval after its own.
    """
    listener = make(batch_size=4)
    put(listener, 2)
    listener.wait(clock())
    listener.writer.error = OSError("disk")
    clock.advance(0.1)
    listener.handle(None)

    clock.advance(0.03)
    assert pytest.approx(0.07) == listener.wait(clock())


def test_an_outage_does_not_make_the_listener_spin(make, clock):
    """
    While commits fail, a full batch and an error wait for the tick like everything else.
    """
    listener = make(batch_size=2)
    listener.writer.error = OSError("disk")
    put(listener, 4, ERROR)
    listener.handle(None)
    put(listener, 1, ERROR)

    assert 0 < listener.wait(clock())


# Commits -------------------------------------------------------------------------------------------------------------


def test_one_transaction_per_batch(make):
    """
    A tick writes one batch of `batch_size` rows at most, in order.
    """
    listener = make(batch_size=4)
    put(listener, 6)

    listener.handle(None)
    assert (1, [0, 1, 2, 3]) == (listener.writer.commits, numbers(listener))
    listener.handle(None)
    assert (2, [0, 1, 2, 3, 4, 5]) == (listener.writer.commits, numbers(listener))


def test_a_commit_that_fails_is_tried_again(make, clock):
    """
    Rows of a failed commit stay queued and counted, and the next attempt writes them in order.
    """
    listener = make()
    put(listener, 3)
    listener.writer.error = OSError("disk")
    listener.handle(None)
    assert (3, 0) == (listener.queue.queued, listener.queue.written)
    assert "OSError: disk" == listener.outage.last_error

    listener.writer.error = None
    clock.advance(0.1)
    listener.handle(None)

    assert ([0, 1, 2], 0) == (numbers(listener), listener.queue.queued)


def test_back_off_grows_and_falls(make, clock):
    """
    Attempts come after 1, 2, 4, ... flush intervals, 5 seconds at most, and at each tick again after a success.
    """
    listener = make()
    put(listener, 1)
    listener.writer.error = OSError("disk")
    began, attempts = clock(), []
    write = listener.writer.write

    def attempt(batch, outcome):
        attempts.append(clock() - began)
        return write(batch, outcome)

    listener.writer.write = attempt
    for _ in range(300):
        listener.handle(None)
        clock.advance(0.1)

    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0][: len(gaps)], abs=0.11) == gaps
    assert 9 <= len(gaps)

    listener.writer.error = None
    clock.advance(5)
    listener.handle(None)
    put(listener, 1)
    listener.writer.error = OSError("disk")
    attempts.clear()
    began = clock()
    for _ in range(3):
        listener.handle(None)
        clock.advance(0.1)

    assert pytest.approx([0.0, 0.1]) == attempts[:2]


def test_no_back_off_from_those_who_share_the_file(make, clock):
    """
    While another process writes, its turn is waited for: at every tick, and at once when there is a full batch.

    With attempts further and further apart, the one who has waited longest was the least likely to get the lock.
    """
    listener = make(batch_size=4)
    put(listener, 1)
    listener.writer.error = TimeoutError("process 1 is writing")
    attempts = []
    write = listener.writer.write

    def attempt(batch, outcome):
        attempts.append(clock())
        return write(batch, outcome)

    listener.writer.write = attempt
    for _ in range(30):
        listener.handle(None)
        assert pytest.approx(0.1) == listener.wait(clock())
        clock.advance(0.1)
    put(listener, 3)

    assert (30, 0) == (len(attempts), listener.wait(clock()))
    listener.writer.error = OSError("disk")
    listener.handle(None)
    assert 0 < listener.wait(clock())


def test_a_turn_is_waited_for_before_it_is_an_outage(make, clock, said):
    """
    That others who share the file are writing is an outage after five seconds, and anything else after one.
    """
    listener = make()
    put(listener, 1)
    listener.writer.error = TimeoutError("process 1 is writing")
    for _ in range(49):
        listener.handle(None)
        clock.advance(0.1001)
    assert [] == said
    for _ in range(2):
        listener.handle(None)
        clock.advance(0.1001)
    assert ["process 1 is writing"] == [line[line.index("process") : line.index(")")] for line in said]


def test_nothing_escapes_from_handle(make):
    """
    Whatever a commit raises, the thread lives: `QueueListener` would end it, and every later record with it.
    """
    listener = make()
    put(listener, 1)
    for error in (MemoryError(), RecursionError(), ValueError("x"), AssertionError()):
        listener.writer.error = error
        listener.outage.next_attempt = 0

        listener.handle(None)

        assert type(error).__name__ in listener.outage.last_error
    assert 1 == listener.queue.queued


def test_an_error_that_cannot_be_shown_does_not_end_the_listener(make, warnings):
    """
    What another handler raises may raise again when it is shown: it ended the thread, and nothing was written any more.
    """

    class UnshowableError(Exception):
        def __str__(self):
            return self.args[1]

    def fails(_):
        raise UnshowableError

    listener = make(capacity=2)
    logging.getLogger(OWN_LOGGER).handlers[0].addFilter(fails)
    put(listener, 5)
    listener.writer.error = UnshowableError()
    listener.handle(None)
    listener.writer.error = None
    listener.outage.next_attempt = 0

    listener.handle(None)

    assert [0, 1] == numbers(listener)
    assert "UnshowableError" == listener.outage.last_error
    assert not warnings


def test_rows_that_sqlite_refuses_are_dropped(make):
    """
    A row that cannot be written costs that row, counted as `unwritable`.
    """
    listener = make()
    put(listener, 3)
    listener.writer.refused = {1}

    assert listener.commit()

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
    listener.writer.error = OSError("disk")
    for _ in range(100):
        put(listener, 1)
        listener.handle(None)
        clock.advance(0.1)
    assert 1 == len(said)
    assert "OSError: disk" in said[0]

    listener.writer.error = None
    clock.advance(5)
    listener.handle(None)

    assert 2 == len(said)
    assert "100 records were dropped since the last commit" in said[1]


def test_a_moment_of_contention_is_no_outage(make, clock, said):
    """
    Two processes on one file wait for each other now and then; nobody needs to hear of that.
    """
    listener = make()
    put(listener, 1)
    listener.writer.error = OSError("busy")
    listener.handle(None)
    listener.writer.error = None
    clock.advance(0.1)
    listener.handle(None)

    assert [] == said


# Drop warnings -------------------------------------------------------------------------------------------------------


def test_one_warning_per_tick_with_drops(make, clock, warnings):
    """
    A tick with drops sends exactly one warning with their number, a tick without sends none, and all add up.
    """
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
    """
    During an outage drops are reported at every tick, not at the pace of the attempts.
    """
    listener = make(capacity=1)
    put(listener, 1)
    listener.writer.error = OSError("disk")
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
    assert [3] == [gap.count for gap in listener.writer.gaps]
    assert listener.outage.last_error == "RuntimeError: outside of a request"
    assert not warnings


def test_what_is_admitted_is_looked_at_each_tick(make, clock, warnings):
    """
    A row that found no room in the queue narrows what is admitted until the next tick, not until the next report.
    """
    listener = make(capacity=2)
    put(listener, 3)
    listener.handle(None)
    listener.commit()
    listener.queue.admits = 30

    listener.handle(None)

    assert listener.queue.admits is None


def test_a_report_that_was_given_up_long_ago(make, clock, warnings):
    """
    One close that gave up does not make the next one try its last report only once.
    """
    listener = make(capacity=2, close_timeout=3.0)
    put(listener, 1)
    listener.writer.error = OSError("disk")
    listener.close()
    listener.writer.error = None
    listener.queue.open()
    put(listener, 3)
    write, errors = listener.writer.write, [OSError("busy"), OSError("busy")]

    def busy_for_a_while(batch, outcome, **options):
        if batch.gaps and not batch.rows and errors:
            raise errors.pop()
        write(batch, outcome, **options)

    listener.writer.write = busy_for_a_while
    listener.close()

    assert [1, 1] == [gap.count for gap in listener.writer.gaps]
    assert not listener.queue.ledger.gaps


def test_a_warning_says_why(make, clock, warnings):
    """
    The text says how many and why: causes, fill, who, since when, and what the writer says.
    """
    listener = make(capacity=2)
    put(listener, 2)
    listener.commit()
    clock.advance(2.0)
    listener.writer.error = OSError("disk")
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
    """
    The warning is a WARNING of its own logger, with numbers as attributes.
    """
    listener = make(capacity=1)
    put(listener, 4)
    listener.handle(None)

    (record,) = warnings
    assert (OWN_LOGGER, logging.WARNING, 3, 3) == (record.name, record.levelno, record.dropped, record.dropped_total)


def test_warnings_reach_the_database_without_the_queue(make, warnings):
    """
    A warning is given to the writer with the next commit, in its place, and takes no room in the queue.
    """
    listener = make(capacity=1)
    put(listener, 3)

    listener.handle(None)

    (gap,) = listener.writer.gaps
    assert (1, 2, 2) == (gap.position, gap.count, gap.warning.dropped)
    assert (1, 1) == (listener.queue.written, len(listener.writer.rows))


def test_other_handlers_cannot_change_what_is_stored(make, warnings):
    """
    The database gets its own copy of the warning: what other handlers put into the record stays theirs.
    """
    listener = make(capacity=1)
    put(listener, 2)

    class Spoil(logging.Handler):
        def emit(self, record):
            record.dropped = "spoilt"

    logging.getLogger(OWN_LOGGER).addHandler(Spoil())

    listener.handle(None)

    assert 1 == listener.writer.gaps[0].warning.dropped


def test_a_second_configuration_does_not_silence_the_warnings(make, warnings):
    """
    `dictConfig` disables every logger that it does not name; drops are reported all the same.
    """
    listener = make(capacity=1)
    logging.getLogger(OWN_LOGGER).disabled = True
    put(listener, 2)

    listener.handle(None)

    assert 1 == len(warnings)


def test_the_warnings_can_be_silenced_by_their_level(make, warnings):
    """
    Who does not want them on the console raises the level of the logger; the database has them all the same.
    """
    listener = make(capacity=1)
    logging.getLogger(OWN_LOGGER).setLevel(logging.ERROR)
    put(listener, 2)

    listener.handle(None)

    assert ([], 1) == (warnings, len(listener.writer.gaps))


def test_nobody_logs_under_a_lock(make):
    """
    The thread that handles the warning holds neither the commit lock nor the queue's mutex.
    """
    listener = make(capacity=1)
    put(listener, 2)
    held = []

    class Look(logging.Handler):
        def emit(self, record):
            held.append((listener._committing_thread == threading.get_ident(), listener.queue.mutex._is_owned()))

    logging.getLogger(OWN_LOGGER).addHandler(Look())
    listener.handle(None)
    listener.drop_report.wait(60)

    assert [(False, False)] == held


def test_a_handler_that_raises_does_not_lose_the_warning(make):
    """
    Another handler that fails on the warning costs neither the thread nor the copy for the database.
    """
    listener = make(capacity=1)
    put(listener, 2)

    class Bad(logging.Handler):
        def handle(self, record):
            raise ValueError

    logging.getLogger(OWN_LOGGER).addHandler(Bad())
    listener.handle(None)
    listener.commit()

    assert 1 == len(listener.writer.gaps)


# Flush and close -----------------------------------------------------------------------------------------------------


def test_flush_writes_what_is_queued(make):
    """
    `flush` commits on the caller's thread, as many batches as it takes, and says that it did.
    """
    listener = make(batch_size=3)
    put(listener, 8)

    assert listener.flush()

    assert (list(range(8)), 3) == (numbers(listener), listener.writer.commits)


@pytest.mark.parametrize("timeout", [1e10, float("inf")])
def test_flush_takes_any_timeout(make, timeout):
    """
    Whoever wants to wait for ever may say so: no lock takes a timeout of more than some hundred years.
    """
    listener = make()
    put(listener, 3)

    assert listener.flush(timeout=timeout)

    assert [0, 1, 2] == numbers(listener)


def test_flush_gives_up_in_time(make, clock):
    """
    `flush` returns False when its time is over, and what it could not write is still queued.
    """
    listener = make()
    put(listener, 3)
    listener.writer.error = OSError("disk")
    began = clock()

    assert not listener.flush(timeout=2.0)

    assert pytest.approx(2.0) == clock() - began
    assert 3 == listener.queue.queued


def test_flush_does_not_wait_for_room(make, clock):
    """
    While a reader pinned the WAL, `flush` waited all its time for the gap of what had no room, and said that it had
    failed, with nothing queued. There may be no room for days: the gap is written when there is.
    """
    listener = make()
    listener.writer.full = "full"
    put(listener, 3)
    began = clock()

    assert listener.flush(timeout=2.0)
    assert listener.flush(timeout=2.0)
    listener.drop_report.make(listener.now())
    assert listener.flush(timeout=2.0)

    assert (began, 0, 0) == (clock(), listener.queue.queued, len(listener.writer.gaps))
    listener.writer.full, listener.writer.error = None, OSError("disk")
    assert not listener.flush(timeout=2.0)
    listener.writer.error = None
    assert listener.flush(timeout=2.0)
    assert [3] == [gap.count for gap in listener.writer.gaps]


def test_flush_waits_for_rows_where_gaps_have_no_room(make):
    """While another thread is in a commit, rows wait, and `flush` says so: only gaps are not waited for."""
    listener = make()
    listener.writer.full = "full"
    put(listener, 3)
    assert listener.flush(timeout=2.0)
    put(listener, 1)

    with listener._commit_lock:
        assert not listener.flush(0)


def test_flush_tries_once_without_time(make):
    """
    `flush(0)` makes one attempt.
    """
    listener = make()
    put(listener, 3)

    assert listener.flush(0)
    assert 0 == listener.queue.queued


def test_flush_ends_in_time_though_every_commit_succeeds(make, clock):
    """
    On a disk that is slow, and never fails, `flush` returns when its time is over: the rest is still queued.
    """
    listener = make(batch_size=2)
    put(listener, 8)
    write = listener.writer.write

    def slowly(batch, outcome):
        clock.advance(1)
        return write(batch, outcome)

    listener.writer.write = slowly

    assert not listener.flush(timeout=2.0)
    assert ([0, 1, 2, 3], 4) == (numbers(listener), listener.queue.queued)


def test_flush_does_not_wait_for_later_rows(make):
    """
    What is logged during a flush is not its business: a busy program cannot keep it for ever.
    """
    listener = make(batch_size=2)
    put(listener, 2)
    write = listener.writer.write

    def log_more(batch, outcome):
        put(listener, 1)
        return write(batch, outcome)

    listener.writer.write = log_more

    assert listener.flush()
    assert 1 == listener.writer.commits
    listener.writer.write = write


def test_flush_waits_for_a_commit_of_another_thread(make):
    """
    Rows that another thread is writing are written when `flush` returns.
    """
    listener = make()
    listener.writer.gate = threading.Event()
    put(listener, 2)
    other = threading.Thread(target=listener.commit)
    other.start()
    listener.writer.entered.wait()
    threading.Timer(0, listener.writer.gate.set).start()

    assert listener.flush()
    other.join()

    assert [0, 1] == numbers(listener)


def test_close_writes_everything_and_reports(make, warnings):
    """
    `close` writes the queue, sends the last warning, stores it, and closes the file.
    """
    listener = make(capacity=3)
    put(listener, 5)

    listener.close()

    assert ([0, 1, 2], 1) == (numbers(listener), listener.writer.closed)
    assert [2] == [record.dropped for record in warnings]
    assert 1 == len(listener.writer.gaps)
    assert not listener.queue.pending


def test_close_tries_again_for_the_last_gap(make, warnings):
    """
    When the commit of the last gap fails, `close` tries again as long as it has time: the ledger is to be complete.

    Processes that share a file wait for each other now and then, so a single attempt left drops out of the ledger.
    """
    listener = make(capacity=3)
    put(listener, 5)
    write, failures = listener.writer.write, [OSError("busy")]

    def busy_once(batch, outcome):
        if not batch.rows and failures:
            raise failures.pop()
        return write(batch, outcome)

    listener.writer.write = busy_once
    listener.close()

    assert ([2], []) == ([gap.count for gap in listener.writer.gaps], failures)


def test_flush_ends_although_there_are_always_new_gaps(make):
    """
    `flush` writes the gaps that it finds, and not those that come while it writes: there may be no end to them.
    """
    listener = make(capacity=3)
    put(listener, 5)
    listener.drop_report.make(listener.now())
    write = listener.writer.write

    def overflows(batch, outcome):
        put(listener, 5)
        listener.drop_report.make(listener.now())
        return write(batch, outcome)

    listener.writer.write = overflows
    assert listener.flush()
    assert 1 == listener.writer.commits
    listener.writer.write = write


def test_the_own_thread_closes_by_itself(make, clock):
    """
    When it is the listener's own thread that closes, for a handler that nobody has any more, it waits for nobody.
    """
    listener = make()
    put(listener, 1)
    listener._thread = threading.current_thread()
    began = clock()
    listener.close()

    assert ([0], began) == (numbers(listener), clock())


def test_close_says_what_it_gave_up(make, clock, said, warnings):
    """
    What cannot be written within `close_timeout` is dropped with that cause, counted, reported and said.
    """
    listener = make(close_timeout=3.0)
    put(listener, 5)
    listener.writer.error = OSError("disk")
    began = clock()

    listener.close()

    assert pytest.approx(3.0) == clock() - began
    assert {("close_timeout", INFO, "a"): 5} == listener.queue.books()["drops"]
    assert [5] == [record.dropped for record in warnings]
    assert "5 records dropped (close_timeout)" in said[-1]


def test_close_leaves_a_stuck_commit_its_rows(make, said):
    """
    Rows that a commit holds which does not end are neither dropped nor forgotten: they count when it ends.
    """
    listener = make(batch_size=2, close_timeout=0.0)
    listener.writer.gate = threading.Event()
    put(listener, 5)
    other = threading.Thread(target=listener.commit)
    other.start()
    listener.writer.entered.wait()

    listener.close()
    assert (2, 3) == (listener.queue.queued, listener.queue.dropped_total)

    listener.writer.gate.set()
    other.join()
    assert ([0, 1], 2, 3, 0) == (
        numbers(listener),
        listener.queue.written,
        listener.queue.dropped_total,
        listener.queue.queued,
    )


def test_nobody_waits_twice_for_a_stuck_commit(make, clock, said):
    """
    At exit a handler is closed, flushed and closed again: a stuck commit costs `close_timeout` once, and one line.
    """
    listener = make(close_timeout=3.0)
    listener.writer.gate = threading.Event()
    put(listener, 1)
    other = threading.Thread(target=listener.commit)
    other.start()
    listener.writer.entered.wait()
    listener._commit_lock = Impatient(listener._commit_lock, clock)
    began = clock()
    listener.close()
    waited = clock() - began

    assert not listener.flush()
    listener.close()
    assert (waited, 1) == (clock() - began, len(said))
    assert 3.0 <= waited

    listener.writer.gate.set()
    other.join()
    assert (1, 0) == (listener.queue.written, listener.queue.queued)


def test_nobody_waits_twice_for_a_locked_database(make, clock, said, warnings):
    """
    At exit a handler is closed, flushed and closed again: a database that stays locked costs `close_timeout` once, and
    one line. What is left by then is the report of the drops, which each of them tries to write once more.

    It took three times as long: longer than the ten seconds after which a container is killed.
    """
    listener = make(close_timeout=3.0)
    put(listener, 5)
    listener.writer.error = OSError("disk")
    began = clock()
    listener.close()
    waited = clock() - began

    assert not listener.flush()
    listener.close()
    assert (pytest.approx(3.0), waited) == (waited, clock() - began)
    assert ["closed with 5 records dropped"] == [line[:29] for line in said if line.startswith("closed")]

    listener.writer.error = None
    assert listener.flush()
    assert [5] == [gap.count for gap in listener.writer.gaps] == [record.dropped for record in warnings]


def test_a_close_after_one_in_vain_waits_for_new_rows(make, clock, said):
    """
    What is logged after a close that gave up is waited for like anything else.
    """
    listener = make(close_timeout=3.0)
    put(listener, 5)
    listener.writer.error = OSError("disk")
    listener.close()
    listener.queue.open()
    put(listener, 1)
    began = clock()

    listener.close()

    assert pytest.approx(3.0) == clock() - began
    assert ["closed with 5", "closed with 1"] == [line[:13] for line in said if line.startswith("closed")]


def test_a_first_close_waits_for_drops_without_rows(make, clock, warnings):
    """
    A report is waited for though no row was ever queued: nothing has been given up yet.
    """
    listener = make(capacity=1, close_timeout=3.0)
    listener.queue.contend((INFO, 1.0, ("a",)))
    listener.drop_report.make(listener.now())
    listener.writer.error = OSError("disk")
    began = clock()

    listener.close()

    assert pytest.approx(3.0) == clock() - began


def test_a_stuck_commit_that_fails_after_close_is_counted(make):
    """
    When the commit fails in the end, its rows are dropped as `close_timeout`: nobody is left to try again.
    """
    listener = make(batch_size=2, close_timeout=0.0)
    listener.writer.gate = threading.Event()
    listener.writer.error = OSError("disk")
    put(listener, 5)
    other = threading.Thread(target=listener.commit)
    other.start()
    listener.writer.entered.wait()
    listener.close()

    listener.writer.gate.set()
    other.join()

    assert {("close_timeout", INFO, "a"): 5} == listener.queue.books()["drops"]
    assert 0 == listener.queue.queued


# The thread ----------------------------------------------------------------------------------------------------------


def test_start_and_stop_are_idempotent(make):
    """
    Starting twice is one thread, stopping twice is no error, and no thread is left.
    """
    listener = make()
    threads = threading.active_count()

    listener.start()
    listener.start()
    assert threads + 1 == threading.active_count()

    listener.stop(timeout=threading.TIMEOUT_MAX)
    listener.stop()
    assert threads == threading.active_count()


def test_a_start_that_fails_can_be_made_again(make, monkeypatch):
    """
    When no thread can be started the queue is closed, so that whoever logs next tries again.
    """
    listener = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            listener.start()
    assert (True, None) == (listener.queue.closed, listener._thread)

    listener.start()

    assert listener._thread.is_alive()


def test_a_start_that_is_interrupted_can_be_made_again(make, monkeypatch):
    """
    What a signal handler raises into a start comes out, and the next start makes a thread.

    "Somebody is starting one" was never taken back: whatever was logged from there on waited for nobody.
    """
    listener = make()

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(listener.queue, "renew_wakeup", interrupted)
        with pytest.raises(KeyboardInterrupt):
            listener.start()
    listener.start()

    assert listener._thread is not None
    assert listener._thread.is_alive()


def test_nothing_is_said_under_the_commit_lock(make, monkeypatch):
    """
    What the writer has to say waits until the lock is free: standard error may be a pipe that nobody reads.
    """
    listener = make()
    put(listener, 1)
    write, locked = listener.writer.write, []

    def says(batch, outcome):
        listener.operator.say_later("a new file is begun")
        write(batch, outcome)

    monkeypatch.setattr(listener.writer, "write", says)
    monkeypatch.setattr(listener.operator, "say", lambda line: locked.append(listener._commit_lock.locked()))

    assert listener.commit()
    assert [False] == locked


def test_two_threads_may_have_the_same_line_to_say(make):
    """
    Whoever finds that another thread has just said the last line has no error of it.
    """

    class Raced(deque[str]):
        def __bool__(self):
            return True

    listener = make()
    listener.operator._waiting = Raced()
    put(listener, 1)

    assert listener.flush()
    assert [0] == numbers(listener)


def test_nobody_waits_for_himself(make, clock, monkeypatch):
    """
    A signal handler that flushes, forks or closes while its own thread is in a commit does not wait for its end.
    """
    listener = make(close_timeout=5)
    listener._commit_lock = Impatient(listener._commit_lock, clock)
    put(listener, 2)
    began = clock()
    write = listener.writer.write
    told = []

    def interrupted(batch, outcome):
        told.append(listener.commit(1.0))
        told.append(listener.flush())
        listener.before_fork(5.0)
        listener.after_fork_in_parent()
        listener.close()
        write(batch, outcome)

    monkeypatch.setattr(listener.writer, "write", interrupted)

    assert listener.commit()
    assert ([False, False], [0, 1], began) == (told, numbers(listener), clock())
    assert listener._committing_thread is None


def close_in_a_commit(listener, monkeypatch, count):
    """
    Commit, and in the middle of it log so many records and close, as a signal handler may.
    """
    write = listener.writer.write

    def interrupted(batch, outcome):
        monkeypatch.undo()
        put(listener, count)
        listener.close()
        write(batch, outcome)

    monkeypatch.setattr(listener.writer, "write", interrupted)
    listener.commit()


def test_what_a_signal_handler_could_not_write_is_left_to_the_next_close(make, monkeypatch, said):
    """
    A signal handler that closes while its own thread is in a commit drops nothing that the exit can still write.
    """
    listener = make()
    put(listener, 2)
    close_in_a_commit(listener, monkeypatch, 3)
    assert (3, 0, True) == (listener.queue.queued, listener.queue.dropped_total, listener.queue.closed)
    listener.close()

    assert (list(range(5)), 0, []) == (numbers(listener), listener.queue.dropped_total, said)
    assert 1 == listener.writer.closed


def test_what_a_signal_handler_could_not_write_is_written_when_the_handler_goes(make, monkeypatch):
    """
    Nothing is lost when the handler is forgotten after that `close`, as by a signal handler that configures anew.
    """
    listener = make()
    put(listener, 2)
    close_in_a_commit(listener, monkeypatch, 7)
    listener.retire()

    assert (list(range(9)), 1) == (numbers(listener), listener.writer.closed)


def test_who_lets_go_late_closes_the_file(make):
    """
    When a stuck commit ends in the instant in which `close` gives up waiting for it, its thread closes the file.
    """
    listener = make()

    class Late:
        """A commit lock that is let go just when nobody waits any more."""

        def __init__(self, lock):
            self.lock, self.waiting = lock, True

        def acquire(self, *arguments):
            if not self.waiting:
                return self.lock.acquire(*arguments)
            self.waiting = False
            # A thread that is none of the listener's: for it, it was stopped.
            other = threading.Thread(target=listener.dequeue, args=(True,))
            other.start()
            other.join()
            return False

        def release(self):
            self.lock.release()

    listener._commit_lock = Late(listener._commit_lock)
    listener._close_writer(0)

    assert 1 == listener.writer.closed


def test_a_stop_during_a_start(make, monkeypatch):
    """
    A thread that was stopped before it was there ends when it is.
    """
    listener = make()
    start, started = RecordListener._start_thread, []

    def interleaved(self, thread):
        self.stop()
        start(self, thread)
        started.append(thread)

    monkeypatch.setattr(RecordListener, "_start_thread", interleaved)
    listener.start()
    started[0].join()

    assert (True, None) == (listener.queue.closed, listener._thread)


def test_a_stop_and_a_record_during_a_start(make, monkeypatch):
    """
    What is logged after a stop that came in the middle of a start has a thread to commit it.

    The one that is being started finds that it was stopped, and ends; and the next record found the queue open, because
    somebody was about to start: nobody committed, until the queue was full and after.
    """
    listener = make()
    start = RecordListener._start_thread

    def interleaved(self, thread):
        monkeypatch.undo()
        self.stop()
        self.start()  # as a handler does when it is logged to and finds the queue closed
        start(self, thread)
        thread.join()

    monkeypatch.setattr(RecordListener, "_start_thread", interleaved)
    listener.start()

    assert (False, True) == (listener.queue.closed, listener._thread is not None and listener._thread.is_alive())


def test_stop_does_not_need_room_in_the_queue(make):
    """
    A full queue can be stopped: `QueueListener` would put a sentinel, and raise `queue.Full`.
    """
    listener = make(capacity=1)
    listener.writer.error = OSError("disk")
    put(listener, 2)
    listener.start()

    listener.stop()

    assert listener._thread is None


def test_the_thread_commits(make, warnings):
    """
    A started listener writes what comes without anybody calling it.
    """
    listener = make(batch_size=1)
    listener.start()

    put(listener, 1)
    listener.writer.entered.wait()
    listener.stop(timeout=threading.TIMEOUT_MAX)

    assert [0] == numbers(listener)


def test_an_idle_listener_does_not_wake_up(make):
    """
    With nothing queued the thread waits on its lock without a timeout, however long.
    """
    listener = make()
    waits = []
    wait = listener.wait
    waiting = threading.Event()

    def spy(now):
        waits.append(wait(now))
        waiting.set()
        return waits[-1]

    listener.wait = spy
    listener.start()
    waiting.wait()

    assert [None] == waits
    listener.stop()


def test_a_replaced_thread_takes_no_wake_up(make):
    """
    Each thread has a lock of its own, so that one on its way out cannot take the wake-up of the next.
    """
    listener = make()
    listener.start()
    first = listener.queue.wakeup
    listener.stop()
    listener.start()

    assert first is not listener.queue.wakeup
    listener.stop()


def test_a_thread_that_dies_is_replaced(make):
    """
    The next record finds the queue closed, as before the first one, and starts another thread.

    A MemoryError between two hooks, or an exception that another thread sets, ended the thread. The log was dead from
    there on, and nobody said so.
    """
    listener = make()

    def dies():
        raise MemoryError

    listener._monitor, threading.excepthook, hook = dies, lambda _: None, threading.excepthook
    try:
        listener.start()
        while not listener.queue.closed:
            pass
    finally:
        threading.excepthook = hook
    del listener._monitor
    assert (True, None) == (listener.queue.closed, listener._thread)
    listener.start()

    assert listener._thread.is_alive()


def test_close_under_logging_lock_leaves_the_rest_to_the_thread(make, said):
    """
    A `__del__` that logs may run in the middle of a commit, and need the lock that the caller of `close` holds.

    `dictConfig` waited for that commit for five seconds, and then dropped what was queued, on a healthy disk.
    """
    listener = make(batch_size=1, close_timeout=60)
    listener.writer.gate = threading.Event()
    listener.start()
    thread = listener._thread
    put(listener, 5)
    listener.writer.entered.wait()
    with listener_module.LOGGING_LOCK, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener_module, "LOCKED_PATIENCE", 0.001)
        assert not listener.flush()
        listener.close()
    assert (5, 0) == (listener.queue.queued, listener.queue.dropped_total)
    listener.writer.gate.set()
    thread.join()

    assert (list(range(5)), 1, []) == (numbers(listener), listener.writer.closed, said)


def test_what_fails_after_close_under_logging_lock_is_counted(make):
    """
    When that commit fails, nobody tries again: its rows are dropped as `close_timeout`.
    """
    listener = make(batch_size=5, close_timeout=60)
    listener.writer.gate = threading.Event()
    listener.writer.error = OSError("disk")
    listener.start()
    thread = listener._thread
    put(listener, 5)
    listener.writer.entered.wait()
    with listener_module.LOGGING_LOCK, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener_module, "LOCKED_PATIENCE", 0.001)
        listener.close()
    listener.writer.gate.set()
    thread.join()

    assert {("close_timeout", INFO, "a"): 5} == listener.queue.books()["drops"]


def test_a_revived_listener_ends_when_it_is_idle(make, clock):
    """
    After `close`, a listener that has had nothing to do for ten seconds closes its file and ends.

    A handler that `dictConfig` replaces while threads log at it comes back to life for the last of them. 8 of 17 such
    threads were still there, each with its connection, because the configuration's dict is in a cycle.
    """
    listener = make()
    assert None is listener.wait(clock())
    listener.close()
    listener.queue.open()
    listener._thread = threading.current_thread()
    put(listener, 1)
    assert 0.1 == pytest.approx(listener.wait(clock()))
    listener.handle(None)
    closed = listener.writer.closed
    assert listener_module.REVIVED_IDLE == listener.wait(clock())
    clock.advance(5)
    put(listener, 1)
    listener.wait(clock())
    listener.handle(None)
    assert listener_module.REVIVED_IDLE == listener.wait(clock())
    assert (closed, False) == (listener.writer.closed, listener.queue.closed)

    clock.advance(10)
    assert listener._sentinel is listener.dequeue(True)
    assert (closed + 1, True, None) == (listener.writer.closed, listener.queue.closed, listener._thread)


def test_a_fork_waits_for_a_file_to_be_closed_with_a_limit(make):
    """
    A disk that does not answer holds the thread that closes the file, and not the fork.

    The fork held logging's lock meanwhile: for 15 seconds no other thread could make a logger.
    """
    listener = make()
    listener.start()
    inside, leave = threading.Event(), threading.Event()

    def frozen():
        inside.set()
        leave.wait()

    listener.writer.close, close = frozen, listener.writer.close
    listener.before_fork(0.01)
    inside.wait()
    assert (True, None) == (listener._commit_lock.locked(), listener._forking_thread)
    listener.after_fork_in_parent()
    assert listener._commit_lock.locked()
    leave.set()
    assert listener._commit_lock.acquire(timeout=60)
    listener._commit_lock.release()

    listener.writer.close = close
    listener.before_fork(60)
    assert (1, threading.get_ident()) == (listener.writer.closed, listener._forking_thread)
    listener.after_fork_in_parent()
    assert not listener._commit_lock.locked()


def test_a_fork_at_exit_closes_the_file_itself(make, monkeypatch):
    """
    Where no thread can be started any more, the thread that forks closes the file.
    """

    def refused(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    listener = make()
    listener._thread = threading.current_thread()
    monkeypatch.setattr("_thread.start_new_thread", refused)
    listener.before_fork(60)
    assert 1 == listener.writer.closed
    listener.after_fork_in_parent()
    listener._thread = None

    assert not listener._commit_lock.locked()


@pytest.mark.parametrize("lost", [False, True])
def test_a_child_without_hooks_begins_anew(make, lost):
    """
    A process that C code has forked has no thread; the file is lost to it only if a commit was going on.
    """
    listener = make()
    put(listener, 3)
    if lost:
        listener._commit_lock.acquire()
    listener.after_fork_in_child()

    assert (lost, 0, True) == (listener.writer.lost, listener.queue.queued, listener.queue.closed)


def test_a_retired_listener_writes_and_goes(make):
    """
    When nobody has the handler any more, its thread writes what there is, closes the file and ends.
    """
    listener = make()
    listener.start()
    thread = listener._thread
    put(listener, 3)

    listener.retire()
    thread.join()

    assert ([0, 1, 2], 1) == (numbers(listener), listener.writer.closed)


def test_a_forked_child_begins_anew(make):
    """
    In the child there is no thread, no connection, nothing queued and nothing counted, whoever held which lock.
    """
    listener = make(capacity=2)
    put(listener, 3)
    listener.outage.last_error = "of the parent"

    listener.before_fork(5.0)
    assert listener._commit_lock.locked()
    listener.after_fork_in_child()

    assert not listener._commit_lock.locked()
    assert (0, 0, 1) == (listener.queue.books()["seen"], listener.queue.queued, listener.writer.forgotten)
    assert (None, None, True) == (listener._thread, listener.outage.last_error, listener.queue.closed)


def test_a_fork_waits_for_a_commit_with_a_limit(make):
    """
    A fork waits for the commit lock, so that SQLite is not copied in the middle of one, but never for ever.
    """
    listener = make()
    with listener._commit_lock:
        listener.before_fork(0.001)
        listener.after_fork_in_parent()
        assert listener._commit_lock.locked()

    listener.before_fork(0.001)
    listener.after_fork_in_parent()

    assert not listener._commit_lock.locked()


def test_contended_drops_are_reported(make, monkeypatch, warnings, clock):
    """
    A drop that could not wait for the mutex is reported at the next tick like any other.
    """
    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0)
    listener = make()
    with listener.queue.mutex:
        thread = threading.Thread(target=put, args=(listener, 1))
        thread.start()
        thread.join()

    assert 0.1 == pytest.approx(listener.wait(clock()))
    listener.handle(None)

    assert ["contended"] == [cause for (cause, *_) in listener.queue.books()["drops"]]
    assert [1] == [record.dropped for record in warnings]


# Retention ------------------------------------------------------------------------------------------------------------


class FakeRetention:
    """
    A retention that answers as it is told, and counts its turns.
    """

    def __init__(self):
        self.due = None
        self.turns = 0

    def prune(self):
        self.turns += 1
        return self.due.pop(0) if isinstance(self.due, list) else self.due


@pytest.fixture
def retention():
    """
    The retention of the test.
    """
    return FakeRetention()


def test_pruning_comes_after_the_commit(make, retention, clock):
    """At a tick, the commit comes first; then retention has a turn, and the next when there was another commit."""
    listener = make(retention=retention)
    listener.handle(None)
    assert 0 == retention.turns
    put(listener, 1)
    listener.handle(None)
    assert (1, 1) == (listener.writer.commits, retention.turns)
    clock.advance(1)
    listener.handle(None)
    assert 1 == retention.turns
    put(listener, 1)
    listener.handle(None)

    assert 2 == retention.turns


def test_without_retention_nobody_asks(make, clock):
    """A listener without retention waits for nothing once all is written."""
    listener = make()
    put(listener, 1)
    listener.handle(None)

    assert None is listener.wait(clock.now)


def test_nothing_logged_and_nothing_due_is_no_wakeup(make, retention, clock):
    """With limits and nothing to come, an idle listener waits without a timeout."""
    listener = make(retention=retention)
    put(listener, 1)
    listener.handle(None)

    assert None is listener.wait(clock.now)


def test_an_idle_listener_wakes_up_when_the_next_row_comes_of_age(make, retention, clock):
    """With nothing queued the thread sleeps until retention has something to do, and no longer."""
    retention.due = 3_600.0
    listener = make(retention=retention)
    put(listener, 1)
    listener.handle(None)
    assert 3_600.0 == listener.wait(clock.now)
    clock.advance(3_600)
    assert 0 == listener.wait(clock.now)
    listener.handle(None)

    assert 2 == retention.turns
    assert 3_600.0 == listener.wait(clock.now)


def test_pieces_are_a_tick_apart(make, retention, clock):
    """While there is more to delete, the next piece is due a tick later."""
    retention.due = [0, 0, None]
    listener = make(retention=retention)
    put(listener, 1)
    listener.handle(None)
    for _ in range(2):
        assert 0.1 == pytest.approx(listener.wait(clock.now))
        clock.advance(0.11)
        listener.handle(None)

    assert (None, 3) == (listener.wait(clock.now), retention.turns)


def test_a_program_that_flushes_each_record_is_pruned_too(make, retention, clock):
    """After a commit by `flush` the listener's thread has something to do, though nothing is queued any more."""
    listener = make(retention=retention)
    put(listener, 1)
    assert listener.flush()
    assert 0 == listener.wait(clock.now)
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
    listener.writer.error = OSError("no")
    put(listener, 1)
    listener._prune_due = clock.now
    listener.handle(None)
    assert 1 == retention.turns
    listener.queue.give_up(2, "close_timeout")
    listener.queue.take_drops()

    # Nor does the listener wake up for it.
    assert None is listener.wait(clock.now)


def test_without_room_rows_are_dropped_with_a_cause(make, warnings, clock):
    """What the disk budget has no room for is dropped as `disk_budget`; the warning says why, the books balance."""
    listener = make()
    listener.writer.full = "file and WAL take 52.0 MB of max_bytes 50.0 MB"
    put(listener, 3)
    listener.handle(None)
    clock.advance(0.1)
    listener.handle(None)

    books = listener.queue.books()
    assert (3, 0, 3, 0) == (books["seen"], books["written"], books["dropped_total"], books["queued"])
    assert {("disk_budget", INFO, "a"): 3} == books["drops"]
    assert [] == listener.writer.rows
    assert "disk_budget 3" in warnings[0].getMessage()
    assert warnings[0].getMessage().endswith("the writer says: file and WAL take 52.0 MB of max_bytes 50.0 MB")


def test_a_gap_waits_for_room(make, warnings, clock):
    """The gap of rows that had no room is itself written when there is room again."""
    listener = make()
    listener.writer.full = "full"
    put(listener, 3)
    listener.handle(None)
    clock.advance(0.1)
    listener.handle(None)
    assert [] == listener.writer.gaps
    listener.writer.full = None
    clock.advance(0.1)
    listener.handle(None)

    assert [3] == [gap.count for gap in listener.writer.gaps]


def test_close_writes_the_gap_in_any_case(make, retention, warnings, clock):
    """`close` drops the rows for which there is no room, writes what it has to report of drops, and takes no time."""
    listener = make(retention=retention)
    listener.writer.full = "full"
    put(listener, 3)
    before = clock.now
    listener.close()

    assert [3] == [gap.count for gap in listener.writer.gaps]
    assert ([], 3) == (listener.writer.rows, listener.queue.books()["dropped_total"])
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


def test_a_handler_that_wrote_nothing_prunes_nothing_at_close(make, retention):
    """`close` without a commit before it leaves the file as it is."""
    make(retention=retention).close()

    assert 0 == retention.turns


def test_a_batch_is_bounded_in_bytes(make):
    """A transaction takes `commit_bytes` of rows at most, so that it fits into the WAL's share of a small budget."""
    listener = make(batch_size=10, commit_bytes=3 * SIZE_UNIT)
    put(listener, 8)
    listener.commit()

    assert 3 == len(listener.writer.rows)


def test_a_batch_that_was_cut_to_its_bytes_is_followed_at_once(make, clock):
    """Rows that were due and did not fit into one transaction are committed without waiting for another tick."""
    listener = make(batch_size=10, commit_bytes=3 * SIZE_UNIT)
    put(listener, 5)
    listener.handle(None)
    assert (2, 0) == (listener.queue.queued, listener.wait(clock.now))
    listener.handle(None)

    assert (5, None) == (len(listener.writer.rows), listener.wait(clock.now))
