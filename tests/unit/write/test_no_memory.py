"""
Allocations that fail in the middle of the queue's work.
"""

from __future__ import annotations

import contextlib

import pytest
from queues import INFO, make_queue, row

_testcapi = pytest.importorskip("_testcapi", reason="a part of CPython's tests")


WORK = {
    "end_commit": lambda queue: queue.end_commit(queue.begin_commit(10**9), unwritable={3, 7}),
    "give_up": lambda queue: queue.give_up(queue.end, "close_timeout"),
    "take_drops": lambda queue: queue.take_drops(),
}


@pytest.mark.parametrize("work", WORK)
def test_the_books_balance_without_memory(work):
    """
    Whichever allocation fails, no row and no drop leaves the books, and the next call goes on.

    Rows had left the queue when there was no memory for the number of written ones, and counted as nothing. Drops that
    were being handed over were in no report, and so in no file.
    """
    queue, reported = make_queue(capacity=400), 0
    for failing in range(1, 250):
        for number in range(403):
            queue.put_nowait(row(INFO, created=float(number)))
        before, gap = queue.books()["seen"], None
        with contextlib.suppress(MemoryError):
            _testcapi.set_nomemory(failing, failing + 1)
            gap = WORK[work](queue)
        _testcapi.remove_mem_hooks()
        books = queue.books()
        assert (before, books["dropped_total"]) == (books["seen"], queue.dropped_total), failing
        queue.end_commit(queue.begin_commit(10**9))
        queue.give_up(queue.end, "close_timeout")
        gaps = [gap if work == "take_drops" else None, queue.take_drops(), queue.take_drops()]
        reported += sum(gap.count for gap in gaps if gap is not None)
        assert queue.dropped_total == reported, failing
