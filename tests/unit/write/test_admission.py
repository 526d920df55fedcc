"""
What the quick ways and the mutex do when others come in between: nested calls, and threads.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from functools import partial

import pytest
from locked import in_another_thread
from queues import ERROR, INFO, WARNING, awake, check, commit_all, make_queue, report, row

from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.queue import ANY, SIZE_UNIT, Closed, RecordQueue

pytestmark = pytest.mark.usefixtures("gil")


@pytest.fixture
def held(monkeypatch):
    """Have another thread hold the mutex of a queue, for as long as the `with` lasts."""
    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0.001)

    return lambda books: in_another_thread(books.mutex)


def test_nearly_all_rows_need_no_mutex(held, gil):
    """With a GIL, a row that is not one of the first two, nor the last to fit nor a full batch's, needs no mutex."""
    books = make_queue(100, 1_000, batch_size=5)
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
    """With a GIL, a refusal of a level and a logger that were refused before is counted without the mutex."""
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


def test_what_does_not_fit_closes_the_quick_way():
    """When a row did not fit, none of its level is let in behind it, and refusals say what is full for their level."""
    books = make_queue(4, 1_000, reserve=0.5, reserve_levelno=WARNING, batch_size=1)
    books.put_nowait(row())
    books.put_nowait(row())
    assert books.refuse(INFO, 0.0, "b")
    books.put_nowait(row(WARNING, size=1_000))
    assert books.refuse(INFO, 0.0, "b")
    assert books.refuse(WARNING, 0.0, "b")
    drops = books.books()["drops"]
    assert (2, 1) == (drops["queue_full", INFO, "b"], drops["bytes_full", WARNING, "b"])

    books = make_queue(1_000, 1_000)
    books.put_nowait(row())
    books.put_nowait(row(size=1_000))
    books.put_nowait(row())
    assert {("bytes_full", INFO, "a"): 2} == books.books()["drops"]


def test_rows_that_come_before_a_put_has_ended():
    """Rows that are logged when a large one was queued, and its put not yet ended, are kept within the bounds."""

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
    """Rows that are committed when the last one was appended, and its put not yet ended, are not counted once more."""

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


def test_rows_that_come_when_another_was_found_to_fit():
    """Rows that come when a large one was found to fit, and is not yet appended, take its room, and no more."""

    class Interrupted(RecordQueue):
        """A queue into which others put when its room is looked at."""

        def _room(self, bounds):
            room = super()._room(bounds)
            while nested:
                self.put_nowait(nested.pop())
            return room

    nested: list[object] = []
    books = Interrupted(10_000, 1_000 * SIZE_UNIT)
    books.open()
    for _ in range(3):
        books.put_nowait(row(size=1))
    nested += [row(size=10)] * 40
    books.put_nowait(row(size=997))

    assert {("bytes_full", INFO, "a"): 1} == books.books()["drops"]
    assert (43, 403) == (books.queued, books.queued_size)
    check(books)


def test_a_put_during_which_the_queue_is_closed():
    """
    A row that is not yet appended when a signal handler closes the queue is put again, with a listener.

    It was appended to the closed queue, and waited there for the next record.
    """

    class Interrupted(RecordQueue):
        """A queue that is closed when a row was found to fit."""

        def _lack(self, levelno, size):
            cause = super()._lack(levelno, size)
            self.close()
            return cause

    books = Interrupted(2, 1_000 * SIZE_UNIT)
    books.open()
    books.put_nowait(row())

    with pytest.raises(Closed):
        books.put_nowait(row())

    assert (1, 1) == (books.queued, books.books()["seen"])


def test_a_put_during_which_the_queue_is_flushed():
    """
    A row before which a signal handler commits all others is the first one now, and wakes the listener.

    The queue had looked before whether it was the first, and the listener could have fallen asleep meanwhile.
    """

    class Interrupted(RecordQueue):
        """A queue that is flushed when a row is about to be admitted."""

        def _admit(self, item, levelno, size):
            commit_all(self)
            awake(self)
            return super()._admit(item, levelno, size)

    books = Interrupted(10, 1_000 * SIZE_UNIT)
    books.open()
    books.queue += [row(), row()]

    books.put_nowait(row(size=queue_module._QUICK_SIZE + 1))

    assert (2, 1) == (books.written, books.queued)
    assert awake(books)


def test_a_flush_when_the_queue_was_found_full():
    """
    A queue that a signal handler empties when it was found full does not stay closed: the next drop wakes the listener.

    The listener slept, because nothing was queued, and all later records were dropped.
    """

    class Interrupted(RecordQueue):
        """A queue that is flushed when it is about to admit less."""

        def _narrow_to(self, level):
            if not self.written:
                commit_all(self)
            super()._narrow_to(level)

    books = Interrupted(1, 1_000 * SIZE_UNIT)
    books.open()
    books.put_nowait(row())
    assert awake(books)
    assert (0, 1) == (books.queued, books.written)

    assert books.refuse(INFO, 1.0, "a")
    assert awake(books)
    assert report(books).count == 1
    assert not books.refuse(INFO, 2.0, "a")


@pytest.mark.parametrize("fair_share", [0.5, 1.0])
def test_a_drop_wakes_the_listener_when_nothing_is_queued(fair_share):
    """A row that is larger than all the room for its level is reported at the next tick, not with the next row."""
    books = make_queue(reserve=0.5, reserve_levelno=WARNING, fair_share=fair_share)

    books.put_nowait(row(size=501))

    assert {("bytes_full", INFO, "a"): 1} == books.books()["drops"]
    assert awake(books)


@pytest.mark.parametrize("nested", [commit_all, lambda books: books.give_up(10, "close_timeout")])
def test_a_look_at_the_books_during_which_rows_leave(nested):
    """
    A signal handler that flushes or closes while the program looks at the books leaves each record in them once.

    A record that was dropped after the drops were counted was in no number, and one that was written was in two.
    """

    class Interrupted(RecordQueue):
        """A queue that rows leave when it was looked how many there are."""

        @property
        def queued(self):
            queued = super().queued
            if looking:
                looking.clear()
                nested(self)
            return queued

    looking = []
    books = Interrupted(10, 1_000 * SIZE_UNIT)
    books.open()
    for _ in range(3):
        books.put_nowait(row())
    drops = books.ledger.drops

    def drops_then_signal(position):
        found = drops(position)
        looking.append(True)
        return found

    books.ledger.drops = drops_then_signal
    found = books.books()

    assert (3, 0, 0) == (found["seen"], found["queued"], found["queued_bytes"])


def test_nothing_is_refused_when_there_is_room_again():
    """After a commit, and after the queue was closed, a refusal that was known before is decided anew."""
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


@pytest.mark.parametrize("size", [1, 7, 64])
def test_is_filled_to_the_last_byte(size):
    """Rows of one size fill the bytes of the queue exactly, whatever came before them."""
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
        """A queue in which a record is logged before the queue decides what to admit."""

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


@pytest.mark.parametrize("capacity", [(500, 900), (100_000, 100_000)])
def test_threads_cannot_exceed_the_bounds(capacity, request):
    """Many threads that put and refuse at the same time never get more in than fits, and nothing is uncounted."""
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
            report(books)
        committed += len(batch.rows)
    for thread in threads:
        thread.join()

    assert 8_000 == books.books()["seen"]
    assert committed == books.written
    check(books)


def test_nested_puts_do_not_wait():
    """
    A signal handler or a `__del__` that logs while its own thread holds the mutex gets through.

    With the plain Lock of `queue.Queue` the thread would wait for itself, for ever.
    """
    books = make_queue()

    with books.mutex:
        books.put_nowait(row())

    assert 1 == books.queued
