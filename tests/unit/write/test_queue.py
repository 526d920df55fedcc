"""
The bounded queue and its books, without any thread but where a lock is to be held by somebody else.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial

import pytest

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._write import books as books_module
from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.queue import ANY, NONE, SIZE_UNIT, Closed, RecordQueue

INFO, WARNING, ERROR = 20, 30, 40

HAS_GIL = queue_module._GIL


@pytest.fixture(autouse=True, params=[True, False], ids=["GIL", "no GIL"])
def gil(request, monkeypatch):
    """
    Do everything twice: with the quick ways, and with everything under the mutex, as without a GIL.
    """
    if request.param and not HAS_GIL:
        pytest.skip("the quick ways need the GIL that this Python does not have")
    monkeypatch.setattr(queue_module, "_GIL", request.param)
    return request.param


def row(levelno=INFO, *, size=1, logger="a", created=0.0, marks=0):
    """
    Make what the queue knows of a row.
    """
    return (levelno, created, (logger, "file.py", 1, "func"), size, marks)


def make_queue(capacity=10, size=1_000, **options):
    """
    Make an open queue, as if a listener had started.
    """
    made = RecordQueue(capacity, size * SIZE_UNIT, **options)
    made.open()
    return made


def check(books):
    """
    Check what holds at every instant, against counts that were kept apart.
    """
    found = books.books()
    assert len(books.queue) == books.queued == found["queued"]
    assert sum(item[3] for item in books.queue) == books.queued_size
    assert found["seen"] == found["written"] + found["dropped_total"] + found["queued"]
    assert found["dropped_total"] == sum(found["drops"].values())


def commit_all(books, *, unwritable=()):
    """
    Commit what one transaction takes.
    """
    batch = books.begin_commit(10**9)
    books.end_commit(batch, unwritable)
    return batch


def awake(books):
    """
    Tell whether the listener was woken, and take the wake-up as it would.
    """
    return books.wakeup.acquire(blocking=False)


def test_is_a_bounded_queue():
    """
    It is a queue.Queue that is full at `capacity` and says so in the words of queue.Queue.
    """
    books = make_queue(2)

    assert isinstance(books, queue.Queue)
    assert (0, True, False) == (books.qsize(), books.empty(), books.full())

    books.put_nowait(row())
    books.put(row())

    assert (2, False, True) == (books.qsize(), books.empty(), books.full())


def test_rows_cannot_be_taken_one_by_one():
    """
    `get` says what to use instead: a row must stay until its commit.
    """
    with pytest.raises(NotImplementedError, match="begin_commit"):
        make_queue().get()


def test_drops_the_newest():
    """
    A full queue keeps what it has and counts what comes.
    """
    books = make_queue(3)
    rows = [row(created=float(number)) for number in range(5)]

    for item in rows:
        books.put_nowait(item)

    assert rows[:3] == list(books.queue)
    assert {("queue_full", INFO, "a"): 2} == books.books()["drops"]
    check(books)


def test_admits_nothing_when_full():
    """
    `admits` is at its bound before the next record comes, so that one is refused before it is formatted.
    """
    books = make_queue(2)

    assert ANY == books.admits
    books.put_nowait(row())
    assert ANY == books.admits
    books.put_nowait(row())
    assert NONE == books.admits


def test_keeps_a_reserve():
    """
    Below the reserve only `reserve_level` and above is admitted, up to the whole capacity.
    """
    books = make_queue(10, reserve=0.2, reserve_levelno=WARNING)

    for _ in range(9):
        books.put_nowait(row(INFO))
    assert (8, WARNING) == (books.queued, books.admits)
    for _ in range(3):
        books.put_nowait(row(WARNING))

    assert (10, NONE) == (books.queued, books.admits)
    assert {("queue_full", INFO, "a"): 1, ("queue_full", WARNING, "a"): 1} == books.books()["drops"]
    check(books)


def test_keeps_a_reserve_of_bytes():
    """
    The reserve is a share of both capacities.
    """
    books = make_queue(1_000, 100, reserve=0.1, reserve_levelno=WARNING)

    books.put_nowait(row(INFO, size=60))
    books.put_nowait(row(INFO, size=31))
    books.put_nowait(row(WARNING, size=40))
    books.put_nowait(row(WARNING, size=1))

    assert 100 == books.queued_size
    assert {("bytes_full", INFO, "a"): 1, ("bytes_full", WARNING, "a"): 1} == books.books()["drops"]
    assert NONE == books.admits
    check(books)


def test_is_bounded_in_bytes():
    """
    A row that does not fit is dropped as `bytes_full`, and the next one is refused before it is formatted.
    """
    books = make_queue(1_000, 100)

    books.put_nowait(row(size=90))
    books.put_nowait(row(size=11))
    books.put_nowait(row(ERROR, size=11))

    assert NONE == books.admits
    assert books.refuse(INFO, 0.0, "a")
    assert {("bytes_full", INFO, "a"): 2, ("bytes_full", ERROR, "a"): 1} == books.books()["drops"]
    check(books)


def test_opens_again_after_a_row_that_did_not_fit():
    """
    With nothing queued no commit will open the queue again: the drop wakes the listener, and its report does.
    """
    books = make_queue(1_000, 10)

    books.put_nowait(row(size=11))
    assert awake(books)
    books.take_drops()
    books.put_nowait(row(size=10))

    assert 1 == books.queued


def test_refuses_only_what_has_no_room():
    """
    A refusal decides again under the mutex, and counts nothing when there is room by then.
    """
    books = make_queue(1)

    assert not books.refuse(INFO, 0.0, "a")
    books.put_nowait(row())
    assert books.refuse(INFO, 0.0, "a")

    assert {("queue_full", INFO, "a"): 1} == books.books()["drops"]


def test_rows_count_until_their_commit():
    """
    Rows copied for a commit stay queued and count against the bounds until it has succeeded.
    """
    books = make_queue(2)
    books.put_nowait(row())
    books.put_nowait(row())

    batch = books.begin_commit(10**9)
    assert 2 == len(batch.rows)
    assert (2, NONE) == (books.queued, books.admits)
    books.put_nowait(row())
    check(books)

    books.end_commit(batch)
    assert (0, ANY, 2, 1) == (books.queued, books.admits, books.written, books.dropped_total)
    check(books)


def test_a_commit_that_fails_changes_nothing():
    """
    After a failed transaction the same rows come again, in order.
    """
    books = make_queue()
    for number in range(3):
        books.put_nowait(row(created=float(number)))

    first = books.begin_commit(10**9)
    books.abort_commit()
    second = books.begin_commit(10**9)

    assert first == second
    assert (3, 0) == (books.queued, books.written)


def test_a_commit_is_bounded():
    """
    A commit takes `batch_size` rows and a number of bytes at most, but always one row.
    """
    books = make_queue(10, batch_size=3)
    for size in (1, 2, 3, 50, 1):
        books.put_nowait(row(size=size))

    taken = []
    while books.queued:
        batch = books.begin_commit(5)
        taken.append([item[3] for item in batch.rows])
        books.end_commit(batch)

    assert [[1, 2], [3], [50], [1]] == taken

    for _ in range(7):
        books.put_nowait(row())
    assert 3 == len(books.begin_commit(10**9).rows)


def test_rows_go_in_turns(monkeypatch):
    """
    A large batch leaves the queue in turns of the mutex, and the books are right after each.
    """
    monkeypatch.setattr(queue_module, "_REMOVED_AT_ONCE", 4)
    books = make_queue(10)
    for _ in range(10):
        books.put_nowait(row())

    commit_all(books, unwritable={0, 5, 9})

    assert (0, 7, 3) == (books.queued, books.written, books.dropped_total)
    assert {("unwritable", INFO, "a"): 3} == books.books()["drops"]
    check(books)


def test_tells_the_peak():
    """
    `peak_queued` is the most that ever waited.
    """
    books = make_queue(10)
    for _ in range(7):
        books.put_nowait(row())
    commit_all(books)
    books.put_nowait(row())

    assert 7 == books.books()["peak_queued"]


def test_counts_marks():
    """
    Rows that were cut and rows with a marker are counted as they come.
    """
    books = make_queue()
    for marks in (0, queue_module.TRUNCATED, queue_module.MALFORMED, queue_module.TRUNCATED | queue_module.MALFORMED):
        books.put_nowait(row(marks=marks))

    assert (2, 2) == (books.truncated, books.malformed)


def test_wakes_the_listener_when_there_is_reason():
    """
    The first row, a full batch and a row at `flush_level` wake the listener; no other row does.
    """
    books = make_queue(100, batch_size=4, flush_levelno=ERROR)

    woken = []
    for levelno in (INFO, INFO, WARNING, INFO, INFO, ERROR, INFO):
        books.put_nowait(row(levelno))
        woken.append(awake(books))

    assert [True, False, False, True, False, True, False] == woken


def test_a_wake_up_is_kept_until_it_is_taken():
    """
    Waking twice is waking once, and a wake-up that came before the listener waits is not missed.
    """
    books = make_queue()

    books.wake()
    books.wake()

    assert awake(books)
    assert not awake(books)


def test_closed_it_takes_nothing_and_counts_nothing():
    """
    A closed queue has no listener: the row is for its caller to put again when there is one.
    """
    books = RecordQueue(10, 1_000 * SIZE_UNIT)

    with pytest.raises(Closed):
        books.put_nowait(row())

    assert not books.refuse(INFO, 0.0, "a")
    assert 0 == books.books()["seen"]


def test_nested_puts_do_not_wait():
    """
    A signal handler or a `__del__` that logs while its own thread holds the mutex gets through.

    With the plain Lock of `queue.Queue` the thread would wait for itself, for ever.
    """
    books = make_queue()

    with books.mutex:
        books.put_nowait(row())

    assert 1 == books.queued


@pytest.fixture
def held(monkeypatch):
    """
    Have another thread hold the mutex of a queue, for as long as the `with` lasts.
    """
    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0.001)

    @contextmanager
    def hold(books):
        taken, done = threading.Event(), threading.Event()

        def keep():
            with books.mutex:
                taken.set()
                done.wait()

        thread = threading.Thread(target=keep)
        thread.start()
        taken.wait()
        try:
            yield
        finally:
            done.set()
            thread.join()

    return hold


def test_nearly_all_rows_need_no_mutex(held, gil):
    """
    With a GIL, a row that is not one of the first two, nor the last to fit nor a full batch's, needs no mutex.
    """
    books = make_queue(100, 200, batch_size=5)
    books.put_nowait(row())
    books.put_nowait(row())

    with held(books):
        for _ in range(2):
            books.put_nowait(row())
        assert ((4, 0) if gil else (2, 2)) == (books.queued, books.dropped_total)
        books.put_nowait(row(ERROR))
        books.put_nowait(row(marks=queue_module.MALFORMED))
        books.put_nowait(row(size=queue_module._QUICK_SIZE + 1))
        if gil:
            books.put_nowait(row())  # would fill the batch

    assert ((4, 4) if gil else (2, 5)) == (books.queued, books.dropped_total)
    check(books)


def test_a_refusal_like_the_last_one_needs_no_mutex(held, gil):
    """
    With a GIL, a refusal of a level and a logger that were refused before is counted without the mutex.
    """
    books = make_queue(1)
    books.put_nowait(row())
    assert books.refuse(INFO, 1.0, "a")

    with held(books):
        assert books.refuse(INFO, 2.0, "a")
        assert books.refuse(WARNING, 2.0, "a")
        assert books.refuse(INFO, 2.0, "b")
        assert books.refuse(INFO, 3, "a")  # not a time as LogRecord has it

    drops = books.books()["drops"]
    assert {True: 2, False: 1}[gil] == drops["queue_full", INFO, "a"]
    assert 5 == books.dropped_total
    check(books)


def test_refusals_go_with_the_report_that_comes_next():
    """
    What is refused after a report counts in the next one, under the cause that it has by then.
    """
    books = make_queue(3, 100, reserve=0.4, reserve_levelno=WARNING)
    books.put_nowait(row(size=60))
    books.put_nowait(row(size=2))  # does not fit, so INFO is refused for want of bytes
    for number in range(3):
        assert books.refuse(INFO, float(number), "a")
    first = books.take_drops()
    assert books.refuse(INFO, 3.0, "a")
    books.put_nowait(row(WARNING))
    books.put_nowait(row(WARNING))  # now there is none in rows either
    assert books.refuse(INFO, 4.0, "a")
    second = books.take_drops()

    assert {("bytes_full", INFO, "a"): [4, 0.0, 2.0]} == first.drops
    assert {("bytes_full", INFO, "a"): [1, 3.0, 3.0], ("queue_full", INFO, "a"): [1, 4.0, 4.0]} == second.drops
    assert (4, 6) == (first.dropped_total, second.dropped_total)
    check(books)


def test_a_report_in_the_middle_of_a_refusal():
    """
    A refusal that is interrupted by a report counts in the next one, and one inside a report counts in either.
    """

    class Interrupted(RecordQueue):
        """A queue in which a record is refused in the middle of a report."""

        def _review(self):
            super()._review()
            if self.ledger.unreported:
                self.refuse(INFO, 2.0, "a")

    class Name(str):
        """A name whose hash is looked at when the report comes."""

        __slots__ = ()

        def __hash__(self):
            gaps.append(books.take_drops())
            return super().__hash__()

    books = Interrupted(1, 1_000 * SIZE_UNIT)
    books.open()
    books.put_nowait(row())
    gaps = []

    assert books.refuse(INFO, 1.0, "a")
    assert books.refuse(INFO, 3.0, Name("a"))
    gaps.append(books.take_drops())
    assert books.refuse(INFO, 4.0, "a")
    gaps.append(books.take_drops())

    key = ("queue_full", INFO, "a")
    assert [[2, 1.0, 2.0], [2, 2.0, 3.0], [2, 2.0, 4.0]] == [[gap.count, *sorted(gap.drops[key][1:])] for gap in gaps]
    assert [2, 4, 6] == [gap.dropped_total for gap in gaps]
    check(books)


def test_a_snapshot_is_consistent_while_others_refuse(monkeypatch, gil):
    """
    A record that another thread refuses while the books are added up counts in the next snapshot.
    """

    class Interrupted(dict):
        """A ledger that another thread wants to change while it is read."""

        def items(self):
            entries = [(key, list(entry)) for key, entry in super().items()]
            thread = threading.Thread(target=books.refuse, args=(INFO, 2.0, "a"))
            thread.start()
            thread.join()
            return entries

    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0.001)
    books = make_queue(1)
    books.put_nowait(row())
    books.ledger._drops = Interrupted()
    books.refuse(INFO, 1.0, "a")

    found = books.books()

    assert (1, {("queue_full", INFO, "a"): 1}) == (found["dropped_total"], found["drops"])
    assert [0 if gil else 1, 2] == [len(books.ledger.contended), books.dropped_total]


def test_a_snapshot_is_consistent_while_signal_handlers_log():
    """
    Records that a signal handler logs, or has refused, in the middle of a snapshot make it neither fail nor disagree.
    """
    books = make_queue(1_000, reserve=0.5, reserve_levelno=WARNING)
    for _ in range(510):
        books.put_nowait(row())
    names = iter(range(1_000))

    def trace(frame, event, _):
        if frame.f_code is not RecordQueue.books.__code__:
            return None
        if event == "line":
            assert books.refuse(INFO, 1.0, f"name {next(names)}")
            books.put_nowait(row(WARNING))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = books.books()
    finally:
        sys.settrace(before)

    assert next(names) > 10
    assert found["dropped_total"] == sum(found["drops"].values())
    assert found["seen"] == found["written"] + found["dropped_total"] + found["queued"]
    check(books)


def test_what_does_not_fit_closes_the_quick_way():
    """
    When a row did not fit, none of its level is let in behind it, and refusals have its cause.
    """
    books = make_queue(4, 1_000, reserve=0.5, reserve_levelno=WARNING, batch_size=1)
    books.put_nowait(row())
    books.put_nowait(row())
    assert books.refuse(INFO, 0.0, "b")
    books.put_nowait(row(WARNING, size=1_000))
    assert books.refuse(INFO, 0.0, "b")
    drops = books.books()["drops"]
    assert (1, 1) == (drops["queue_full", INFO, "b"], drops["bytes_full", INFO, "b"])

    books = make_queue(1_000, 1_000)
    books.put_nowait(row())
    books.put_nowait(row(size=1_000))
    books.put_nowait(row())
    assert {("bytes_full", INFO, "a"): 2} == books.books()["drops"]


def test_rows_that_come_before_a_put_has_ended():
    """
    Rows that are logged when a large one was queued, and its put not yet ended, are kept within the bounds.
    """

    class Interrupted(deque):
        """A deque to which others append when a large row was appended and not yet counted."""

        def append(self, item):
            super().append(item)
            if item[3] == 950:
                for _ in range(40):
                    books.put_nowait(row(size=10))

    books = make_queue(10_000)
    books.queue = Interrupted()
    for size in (1, 1, 950):
        books.put_nowait(row(size=size))

    assert 3 + 4 == books.queued
    assert 992 == books.queued_size


def test_a_commit_before_a_put_has_ended():
    """
    Rows that are committed when the last one was appended, and its put not yet ended, are not counted once more.
    """

    class Interrupted(deque):
        """A deque whose rows a signal handler commits."""

        def append(self, item):
            super().append(item)
            if item[4] == queue_module.MALFORMED:
                books.put_nowait(row(size=2))
                commit_all(books)

    books = make_queue()
    books.queue = Interrupted()
    for marks in (0, queue_module.MALFORMED, 0):
        books.put_nowait(row(marks=marks, size=3))

    assert (1, 3, 3) == (books.queued, books.queued_size, books.written)
    check(books)


def test_a_put_that_is_interrupted_keeps_its_room(gil):
    """
    A large row that was found to fit, and is not yet appended, keeps its room from the rows that come in between.
    """

    class Interrupted(RecordQueue):
        """A queue into which others put when a large row was found to fit."""

        def _lack(self, levelno):
            cause = super()._lack(levelno)
            if self._arriving_size == 950:
                for _ in range(40):
                    self.put_nowait(row(size=10))
            return cause

    books = Interrupted(10_000, 1_000 * SIZE_UNIT)
    books.open()
    for size in (1, 1, 1, 950):
        books.put_nowait(row(size=size))

    assert books.queued_size <= 1_000
    assert gil is (8 == books.queued)
    check(books)


def test_nothing_is_refused_when_there_is_room_again():
    """
    After a commit, and after the queue was closed, a refusal that was known before is decided anew.
    """
    books = make_queue(1)
    books.put_nowait(row())
    assert books.refuse(INFO, 1.0, "a")
    commit_all(books)
    assert not books.refuse(INFO, 2.0, "a")

    books.put_nowait(row())
    assert books.refuse(INFO, 3.0, "a")
    books.close()
    assert not books.refuse(INFO, 4.0, "a")
    assert 2 == books.dropped_total


def test_a_long_name_is_not_kept_for_refusals():
    """
    Made-up names do not stay in memory because their records were refused.
    """
    books = make_queue(1)
    books.put_nowait(row())
    for number in range(2 * books_module.MAX_KEYS):
        books.refuse(INFO, 0.0, f"{number}")
    assert books_module.MAX_KEYS >= len(books._refusals)

    books.take_drops()
    books.refuse(INFO, 0.0, "x" * 1_000_000)
    assert not books._refusals


@pytest.mark.parametrize("size", [1, 7, 64])
def test_is_filled_to_the_last_byte(size):
    """
    Rows of one size fill the bytes of the queue exactly, whatever came before them.
    """
    books = make_queue(10_000, 1_000)
    books.put_nowait(row(size=1))
    books.put_nowait(row(size=1))
    books.put_nowait(row(size=300))

    for _ in range(1_000):
        books.put_nowait(row(size=size))

    assert 3 + 698 // size == books.queued
    check(books)


def test_a_row_that_comes_when_the_last_ones_have_left_wakes_the_listener(gil):
    """
    A row that is logged just after a commit has emptied the queue is the first of the next: the listener is woken.

    If the row still finds a permit, the listener is awake: while there are permits there is something pending.
    """

    class Interrupted(RecordQueue):
        """A queue in which somebody logs before it is settled what is admitted."""

        def _review(self):
            if self.written and not self.queued:
                self.put_nowait(row(logger="late"))
            super()._review()

    books = Interrupted(10, 1_000 * SIZE_UNIT)
    books.open()
    for _ in range(3):
        books.put_nowait(row())
    batch = books.begin_commit(10**9)
    assert awake(books)

    books.end_commit(batch)

    assert (1, 3) == (books.queued, books.written)
    assert books.pending
    assert gil or awake(books)


def test_waits_for_the_mutex_with_a_limit(held):
    """
    When another thread does not let go of the mutex, the record is dropped as `contended`, and counted.

    A collection can log from anywhere, so the locks of two handlers can be taken in opposite orders.
    """
    books = make_queue(1)

    with held(books):
        books.put_nowait(row(logger="put"))
        assert books.refuse(WARNING, 1.0, "refused")
        assert 2 == books.dropped_total
        assert awake(books)

    assert {("contended", INFO, "put"): 1, ("contended", WARNING, "refused"): 1} == books.books()["drops"]
    assert 2 == books.dropped_total
    check(books)


def test_reports_each_drop_once():
    """
    `take_drops` hands over what was dropped since the last call; the totals go on.
    """
    books = make_queue(1)
    for number in range(3):
        books.put_nowait(row(created=float(number)))
    first = books.take_drops()
    books.put_nowait(row(created=9.0, logger="b"))
    second = books.take_drops()

    assert first is not None
    assert second is not None
    assert (2, 2, {("queue_full", INFO, "a"): [2, 1.0, 2.0]}) == (first.count, first.dropped_total, first.drops)
    assert (1, 3, {("queue_full", INFO, "b"): [1, 9.0, 9.0]}) == (second.count, second.dropped_total, second.drops)
    assert books.take_drops() is None
    check(books)


def test_a_gap_is_where_the_first_drop_was():
    """
    A gap stands after the last row that was queued before its first drop, however many have left since.
    """
    books = make_queue(2)
    for _ in range(2):
        books.put_nowait(row())
    commit_all(books)
    for _ in range(3):
        books.put_nowait(row())
    commit_all(books)
    books.put_nowait(row())

    gap = books.take_drops()

    assert gap is not None
    assert 4 == gap.position


def test_a_gap_goes_with_the_commit_that_reaches_it():
    """
    A gap waits until the rows before it are written, and for its own transaction to succeed.
    """
    books = make_queue(4, batch_size=2)
    for _ in range(5):
        books.put_nowait(row())
    gap = books.take_drops()
    assert gap is not None
    books.add_gap(gap)

    first = commit_all(books)
    second = books.begin_commit(10**9)
    books.abort_commit()
    third = commit_all(books)

    assert [[], [gap], [gap]] == [list(batch.gaps) for batch in (first, second, third)]
    assert not books.ledger.gaps
    assert not books.pending


def test_waiting_gaps_are_bounded(monkeypatch):
    """
    In a long outage later gaps are added to the last one that waits, and no count gets out of the sum.
    """
    monkeypatch.setattr(books_module, "MAX_GAPS", 3)
    books = make_queue(1)
    books.put_nowait(row())
    for number in range(10):
        books.put_nowait(row(created=float(number)))
        gap = books.take_drops()
        assert gap is not None
        gap.warning = number
        books.add_gap(gap)

    assert [1, 1, 8] == [gap.count for gap in books.ledger.gaps]
    assert (9, 10) == (books.ledger.gaps[-1].warning, books.ledger.gaps[-1].dropped_total)
    assert [8, 2.0, 9.0] == books.ledger.gaps[-1].drops["queue_full", INFO, "a"]


def test_a_gap_being_written_is_left_alone(monkeypatch):
    """
    What a commit holds does not change under it: the next gap stands for itself.
    """
    monkeypatch.setattr(books_module, "MAX_GAPS", 1)
    books = make_queue(1)
    books.put_nowait(row())
    for _ in range(2):
        books.put_nowait(row())
        gap = books.take_drops()
        assert gap is not None
        books.add_gap(gap)
        books.begin_commit(10**9)

    assert [1, 1] == [gap.count for gap in books.ledger.gaps]


def test_the_books_are_bounded(monkeypatch):
    """
    Made-up logger names and levels do not make the ledger grow: the rest counts under "(other)".
    """
    monkeypatch.setattr(books_module, "MAX_KEYS", 10)
    books = make_queue(1)
    books.put_nowait(row())
    for round_ in range(3):
        for number in range(1_000):
            books.put_nowait(row(number, logger=f"name {round_} {number}"))
        gap = books.take_drops()
        assert gap is not None
        assert len(gap.drops) <= 10 + 6
        assert 1_000 == gap.count

    drops = books.books()["drops"]
    assert len(drops) <= 10 + 6
    assert 3_000 == sum(drops.values())
    assert {OTHER_LOGGERS} == {logger for _, _, logger in drops if not logger.startswith("name")}


def test_long_names_are_cut_in_the_books():
    """
    A logger's name of a megabyte does not stay in memory because its record was dropped.
    """
    books = make_queue(1)
    books.put_nowait(row())

    books.refuse(INFO, 0.0, "x" * 1_000_000)

    ((_, _, name),) = books.books()["drops"]
    assert 200 == len(name)


def test_gives_up_the_rows_before_a_position():
    """
    What close has no more time for is dropped with its cause, up to the position it was called at.
    """
    books = make_queue()
    for _ in range(5):
        books.put_nowait(row())

    assert 3 == books.give_up(3, "close_timeout")

    assert (2, {("close_timeout", INFO, "a"): 3}) == (books.queued, books.books()["drops"])
    check(books)


def test_does_not_give_up_what_a_commit_holds():
    """
    A commit that does not end may yet succeed: its rows stay queued, and are written or given up when it ends.
    """
    books = make_queue(10, batch_size=2)
    for number in range(5):
        books.put_nowait(row(created=float(number)))
    batch = books.begin_commit(10**9)

    assert 3 == books.give_up(5, "close_timeout")
    assert 2 == books.queued
    check(books)

    books.end_commit(batch)
    assert (0, 2, 3) == (books.queued, books.written, books.dropped_total)
    check(books)


def test_a_reset_queue_is_new():
    """
    A forked child starts with an empty queue, books at zero and a mutex that nobody holds.
    """
    books = make_queue(1)
    books.put_nowait(row())
    books.put_nowait(row())
    mutex = books.mutex

    books.reset()

    assert mutex is not books.mutex
    assert (0, 0, 0, NONE) == (books.books()["seen"], books.queued_size, books.dropped_total, books.admits)
    assert not books.pending


@pytest.mark.parametrize("capacity", [(500, 900), (100_000, 100_000)])
def test_threads_cannot_exceed_the_bounds(capacity, request):
    """
    Many threads that put and refuse at the same time never get more in than fits, and nothing is uncounted.
    """
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    books = make_queue(*capacity, reserve=0.1, batch_size=500)
    start = threading.Barrier(8)

    def put():
        start.wait()
        for number in range(1_000):
            levelno = (INFO, WARNING)[number % 2]
            if books.admits is ANY or levelno >= books.admits or not books.refuse(levelno, 0.0, "a"):
                books.put_nowait(row(levelno, size=1 + number % 3))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    committed = 0
    while any(thread.is_alive() for thread in threads):
        batch = books.begin_commit(10**9)
        assert len(books.queue) <= capacity[0]
        assert sum(item[3] for item in batch.rows) <= capacity[1]
        books.end_commit(batch)
        found = books.books()
        assert found["dropped_total"] == sum(found["drops"].values())
        if found["written"] % 7 == 0:
            books.take_drops()
        committed += len(batch.rows)
    for thread in threads:
        thread.join()

    assert 8_000 == books.books()["seen"]
    assert committed == books.written
    check(books)
