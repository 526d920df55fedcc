"""
The bounds of the queue, its commits and its wake-ups, without any thread.
"""

from __future__ import annotations

import importlib.util
import queue

import pytest
from queues import ERROR, INFO, WARNING, awake, check, commit_all, make_queue, row

from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.queue import ANY, NONE, SIZE_UNIT, Closed, RecordQueue

pytestmark = pytest.mark.usefixtures("gil")


def test_is_a_bounded_queue():
    """It is a queue.Queue that is full at `capacity` and says so in the words of queue.Queue."""
    books = make_queue(2)

    assert isinstance(books, queue.Queue)
    assert (0, True, False) == (books.qsize(), books.empty(), books.full())

    books.put_nowait(row())
    books.put(row())

    assert (2, False, True) == (books.qsize(), books.empty(), books.full())


def test_its_attributes_are_found_fast():
    """
    Beside its slots it has 30 attributes at most, because from the 31st on CPython looks each up in a dict.

    With 40, a sixteenth of what an accepted call cost went into finding them and the method that puts a row.
    """
    assert len(vars(make_queue())) <= 30


def test_beside_a_queue_of_slots_only(monkeypatch):
    """
    With gevent's monkey patching, the class in the place of `queue.Queue` has no `__dict__`, and a subclass with slots
    has none either: each program that patched before it imported the handler ended in an AttributeError.
    """
    attributes = vars(queue.Queue(1))
    methods = {name: value for name, value in vars(queue.Queue).items() if name not in {"__dict__", "__weakref__"}}
    monkeypatch.setattr(queue, "Queue", type("Queue", (), {**methods, "__slots__": tuple(attributes)}))
    spec = importlib.util.find_spec(queue_module.__name__)
    assert spec
    assert spec.loader
    patched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(patched)

    books = patched.RecordQueue(2, 1 << 20)
    books.open()
    books.put_nowait(row())

    assert 1 == books.qsize() == books.queued


def test_rows_cannot_be_taken_one_by_one():
    """`get` says what to use instead: a row must stay until its commit."""
    with pytest.raises(NotImplementedError, match="begin_commit"):
        make_queue().get()


def test_drops_the_newest():
    """A full queue keeps what it has and counts what comes."""
    books = make_queue(3)
    rows = [row(created=float(number)) for number in range(5)]

    for item in rows:
        books.put_nowait(item)

    assert rows[:3] == list(books.queue)
    assert {("queue_full", INFO, "a"): 2} == books.books()["drops"]
    check(books)


def test_admits_nothing_when_full():
    """`admits` is at its bound before the next record comes, so that one is refused before it is formatted."""
    books = make_queue(2)

    assert ANY == books.admits
    books.put_nowait(row())
    assert ANY == books.admits
    books.put_nowait(row())
    assert NONE == books.admits


def test_keeps_a_reserve():
    """Below the reserve only `reserve_level` and above is admitted, up to the whole capacity."""
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
    """The reserve is a share of both capacities."""
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
    """A row that does not fit is dropped as `bytes_full`, and the next one is refused before it is formatted."""
    books = make_queue(1_000, 100)

    books.put_nowait(row(size=90))
    books.put_nowait(row(size=11))
    books.put_nowait(row(ERROR, size=11))

    assert NONE == books.admits
    assert books.refuse(INFO, 0.0, "a")
    assert {("bytes_full", INFO, "a"): 2, ("bytes_full", ERROR, "a"): 1} == books.books()["drops"]
    check(books)


def test_opens_again_after_a_row_that_did_not_fit():
    """With nothing queued no commit will open the queue again: the drop wakes the listener, and its report does."""
    books = make_queue(1_000, 10)

    books.put_nowait(row(size=11))
    assert awake(books)
    books.take_drops()
    books.put_nowait(row(size=10))

    assert 1 == books.queued


def test_refuses_only_what_has_no_room():
    """A refusal decides again under the mutex, and counts nothing when there is room by then."""
    books = make_queue(1)

    assert not books.refuse(INFO, 0.0, "a")
    books.put_nowait(row())
    assert books.refuse(INFO, 0.0, "a")

    assert {("queue_full", INFO, "a"): 1} == books.books()["drops"]


def test_rows_count_until_their_commit():
    """Rows copied for a commit stay queued and count against the bounds until it has succeeded."""
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
    """After a failed transaction the same rows come again, in order."""
    books = make_queue()
    for number in range(3):
        books.put_nowait(row(created=float(number)))

    first = books.begin_commit(10**9)
    books.abort_commit()
    second = books.begin_commit(10**9)

    assert first == second
    assert (3, 0) == (books.queued, books.written)


def test_a_commit_is_bounded():
    """A commit takes `batch_size` rows and a number of bytes at most, but always one row."""
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
    """A large batch leaves the queue in turns of the mutex, and the books are right after each."""
    monkeypatch.setattr(queue_module, "_REMOVED_AT_ONCE", 4)
    books = make_queue(10)
    for _ in range(10):
        books.put_nowait(row())

    commit_all(books, unwritable={0, 5, 9})

    assert (0, 7, 3) == (books.queued, books.written, books.dropped_total)
    assert {("unwritable", INFO, "a"): 3} == books.books()["drops"]
    check(books)


def test_tells_the_peak():
    """`peak_queued` is the most that ever waited."""
    books = make_queue(10)
    for _ in range(7):
        books.put_nowait(row())
    for _ in range(2):
        commit_all(books)
        books.put_nowait(row())

    assert 7 == books.books()["peak_queued"]


def test_a_row_that_comes_while_rows_are_looked_at(monkeypatch):
    """A signal handler that logs while the queue is counted, or looked through for a row, makes neither fail."""
    books, looked = make_queue(10), row()
    for name, look in ("repeat", lambda: books.holds(looked)), ("islice", lambda: books.queued_size):
        made = getattr(queue_module, name)

        def interrupted(*arguments, name=name, made=made):
            monkeypatch.setattr(queue_module, name, made)
            books.queue.append(row())
            return made(*arguments)

        books.queue += (row(), row(), looked)
        monkeypatch.setattr(queue_module, name, interrupted)
        assert look() in {True, 8}


def test_counts_marks():
    """Rows that were cut and rows with a marker are counted as they come."""
    books = make_queue()
    for marks in (0, queue_module.TRUNCATED, queue_module.MALFORMED, queue_module.TRUNCATED | queue_module.MALFORMED):
        books.put_nowait(row(marks=marks))

    assert (2, 2) == (books.truncated, books.malformed)


def test_wakes_the_listener_when_there_is_reason():
    """The first row, a full batch and a row at `flush_level` wake the listener; no other row does."""
    books = make_queue(100, batch_size=4, flush_levelno=ERROR)

    woken = []
    for levelno in (INFO, INFO, WARNING, INFO, INFO, ERROR, INFO):
        books.put_nowait(row(levelno))
        woken.append(awake(books))

    assert [True, False, False, True, False, True, False] == woken


@pytest.mark.parametrize(
    ("options", "size", "due_at"),
    [
        ({"capacity": 40, "fair_share": 0.5}, 1, 10),
        ({"capacity": 40}, 1, 20),
        ({"capacity": 40, "batch_size": 5}, 1, 5),
        ({"size": 4_000, "capacity": 500, "fair_share": 0.5}, 50, 20),
        ({"size": 4_000, "capacity": 500, "fair_share": 0.5}, 100, 10),
    ],
)
def test_a_commit_is_due_before_a_burst_fills_the_queue(options, size, due_at):
    """
    Half of what fits before loggers have shares makes a commit due, also of a batch that is not full.

    With a long `flush_interval`, a queue that is smaller than `batch_size`, or large rows, hundreds of records were
    dropped beside an idle disk.
    """
    books = make_queue(**options)
    woken = []
    for _ in range(due_at + 2):
        books.put_nowait(row(size=size))
        woken.append((awake(books), books.commit_due))
    check(books)

    assert [(True, False), *[(False, False)] * (due_at - 2), (True, True), *[(False, True)] * 2] == woken


@pytest.mark.parametrize("large", range(1, 9))
def test_a_row_that_needs_no_permit_takes_the_place_of_one(large):
    """
    The row that makes a commit due wakes the listener, also if others have come without a permit before it.

    One record of more than 4 KiB was enough: the last permit went to the row that made the commit due, nobody was
    woken, and with a long `flush_interval` the queue filled up beside an idle disk.
    """
    books = make_queue(40, 4_000, fair_share=0.5)
    woken = []
    for number in range(12):
        books.put_nowait(row(size=queue_module._QUICK_SIZE + 1 if number == large else 1))
        woken.append(awake(books))

    assert [0, 9] == [number for number, is_awake in enumerate(woken) if is_awake]


def test_an_error_behind_a_full_batch_stays_urgent():
    """An ERROR that a commit leaves in the queue makes the next one due."""
    books = make_queue(batch_size=3)
    for levelno in (INFO, INFO, INFO, ERROR):
        books.put_nowait(row(levelno))
    commit_all(books)
    assert (1, True) == (books.queued, books.commit_due)
    books.put_nowait(row())
    books.end_commit(books.begin_commit(1))
    assert (1, True) == (books.queued, books.commit_due)
    commit_all(books)

    assert (0, False) == (books.queued, books.commit_due)


def test_a_wake_up_is_kept_until_it_is_taken():
    """Waking twice is waking once, and a wake-up that came before the listener waits is not missed."""
    books = make_queue()

    books.wake()
    books.wake()

    assert awake(books)
    assert not awake(books)


def test_closed_it_takes_nothing_and_counts_nothing():
    """A closed queue has no listener: the row is for its caller to put again when there is one."""
    books = RecordQueue(10, 1_000 * SIZE_UNIT)

    with pytest.raises(Closed):
        books.put_nowait(row())

    assert not books.refuse(INFO, 0.0, "a")
    assert 0 == books.books()["seen"]


def test_gives_up_the_rows_before_a_position():
    """What close has no more time for is dropped with its cause, up to the position it was called at."""
    books = make_queue()
    for _ in range(5):
        books.put_nowait(row())

    assert 3 == books.give_up(3, "close_timeout")

    assert (2, {("close_timeout", INFO, "a"): 3}) == (books.queued, books.books()["drops"])
    check(books)


def test_rows_that_a_nested_call_takes_off_first(monkeypatch):
    """
    A signal handler that gives the rows up while another call is about to take them off leaves it nothing to do.

    Without a look at what is gone, the outer call would set the position of the head back.
    """
    books, nested = make_queue(), []
    for _ in range(5):
        books.put_nowait(row())
    count_rows = books._count_rows

    def interrupted():
        count_rows()
        if not nested:
            nested.append(None)
            nested.append(books.give_up(books.end, "close_timeout"))

    monkeypatch.setattr(books, "_count_rows", interrupted)

    assert 0 == books.give_up(5, "close_timeout")
    assert [None, 5] == nested
    assert (5, 5, 0) == (books.removed, books.dropped_total, books.queued)
    check(books)


def test_does_not_give_up_what_a_commit_holds():
    """A commit that does not end may yet succeed: its rows stay queued, and are written or given up when it ends."""
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
    """A forked child starts with an empty queue, books at zero and a mutex that nobody holds."""
    books = make_queue(1)
    books.put_nowait(row())
    books.put_nowait(row())
    mutex = books.mutex

    books.reset()

    assert mutex is not books.mutex
    assert (0, 0, 0, NONE) == (books.books()["seen"], books.queued_size, books.dropped_total, books.admits)
    assert not books.pending
