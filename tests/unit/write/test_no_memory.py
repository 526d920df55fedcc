"""
Allocations that fail in the middle of the queue's work.
"""

from __future__ import annotations

import contextlib
import gc
import sys

import pytest
from queues import INFO, check, commit_all, make_queue, report, row
from slowly import slowly

_testcapi = pytest.importorskip("_testcapi", reason="a part of CPython's tests")

pytestmark = pytest.mark.skipif(
    "free-threading" in sys.version, reason="without a GIL, allocations that fail break the memory of CPython itself"
)


@pytest.fixture(autouse=True)
def _no_collection():
    """Have no collection run where memory fails, which would say so on standard error."""
    gc.disable()
    yield
    gc.enable()


WORK = {
    "end_commit": lambda queue: queue.end_commit(queue.begin_commit(10**9), unwritable={3, 7}),
    "give_up": lambda queue: queue.give_up(queue.end, "close_timeout"),
    "report": report,
}


def without_memory(failing, work, queue):
    """Do *work* while one allocation fails, the one of that number."""
    with contextlib.suppress(MemoryError):
        _testcapi.set_nomemory(failing, failing + 1)
        work(queue)
    _testcapi.remove_mem_hooks()


@pytest.mark.parametrize("work", WORK)
def test_the_books_balance_without_memory(work):
    """
    Whichever allocation fails, no row and no drop leaves the books, and each drop comes into a gap of the file.

    Rows had left the queue when there was no memory for the number of written ones, and counted as nothing. Drops that
    were being handed over were in no report, and so in no file; so were those whose report was made, when there was no
    memory to keep it.
    """
    queue, reported = make_queue(capacity=400), 0
    for failing in range(1, 250):
        for number in range(403):
            queue.put_nowait(row(INFO, created=float(number)))
        before = queue.books()["seen"]
        without_memory(failing, WORK[work], queue)
        books = queue.books()
        assert (before, books["dropped_total"]) == (books["seen"], queue.dropped_total), failing
        commit = queue.begin_commit(10**9)
        queue.end_commit(commit)
        queue.give_up(queue.end, "close_timeout")
        while report(queue) is not None:
            pass
        reported += sum(gap.count for gap in (*commit.gaps, *commit_all(queue).gaps))
        assert queue.dropped_total == reported, failing


def test_gaps_are_added_up_without_memory(monkeypatch):
    """When there are too many gaps, a report is added to the last one: whichever allocation fails, once."""
    monkeypatch.setattr("sqlite_log_handler._write.ledger.MAX_GAPS", 2)
    queue = make_queue(1)
    queue.put_nowait(row())
    for failing in range(1, 60):
        queue.put_nowait(row(logger=f"{failing % 3}"))
        without_memory(failing, report, queue)
        while report(queue) is not None:
            pass
        assert failing == sum(gap.count for gap in queue.gaps) == queue.dropped_total
        assert len(queue.gaps) <= 2


@pytest.mark.parametrize(("taken", "behind"), [(100, 30), *slowly((2_000, 300))])
def test_rows_behind_a_stuck_commit_without_memory(taken, behind):
    """
    The rows of a commit that does not end stay at the head, in order, while those behind them are given up.

    They were taken off and put back, and when there was no memory for that, one was gone and counted nowhere.
    """
    for failing in range(1, 150):
        queue = make_queue(capacity=3_000, size=10_000, batch_size=taken)
        for number in range(taken + behind):
            queue.put_nowait(row(created=float(number)))
        commit = queue.begin_commit(10**9)
        without_memory(failing, WORK["give_up"], queue)
        queue.give_up(queue.end, "close_timeout")
        assert commit.rows == queue._head(taken)
        assert all(map(queue.holds, commit.rows))
        queue.put_nowait(row(created=-1.0))
        queue.end_commit(commit)
        assert (taken, 1, behind) == (queue.written, queue.queued, queue.dropped_total)
        assert [-1.0] == [item[1] for item in commit_all(queue).rows]
        check(queue)


def test_a_commit_that_failed_behind_a_stuck_one():
    """Rows that outlived `give_up` and whose commit failed go with those that came after them, or are given up."""
    for work in (commit_all, WORK["give_up"]):
        queue = make_queue(capacity=1_000, batch_size=100)
        for number in range(300):
            queue.put_nowait(row(created=float(number)))
        queue.begin_commit(10**9)
        queue.give_up(queue.end, "close_timeout")
        queue.abort_commit()
        for number in range(300, 350):
            queue.put_nowait(row(created=float(number)))
        assert (150, 0.0) == (queue.queued, queue.books()["oldest_created"])
        assert [*map(float, range(100))] == [item[1] for item in queue._head(100)]
        for _ in range(2):
            work(queue)
        assert (0, 350) == (queue.queued, queue.written + queue.dropped_total)
        assert work is not commit_all or 150 == queue.written


LOOKS = {
    "dropped_total": lambda books: books.dropped_total,
    "begin_commit": lambda books: books.ledger.begin_commit(1),
    "count": lambda books: books.gaps[0].count,
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_at_the_drops_without_memory(look):
    """Without memory, a look at the drops raises a MemoryError: a generator crashed CPython 3.12 and 3.13 there."""
    books = make_queue(1)
    for _ in range(2):
        books.put_nowait(row())
    books.refuse(INFO, 0.0, "a")
    report(books)
    for failing in range(10):
        without_memory(failing, LOOKS[look], books)

    assert 2 == books.dropped_total == books.gaps[0].count
