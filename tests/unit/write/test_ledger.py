"""
The ledger of a queue: drops, reports, gaps.
"""

from __future__ import annotations

import math
import sys
import threading
from operator import attrgetter

import pytest
from queues import INFO, WARNING, check, commit_all, make_queue, report, row

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._write import ledger as ledger_module
from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.ledger import Ledger, PendingGap
from sqlite_log_handler._write.queue import SIZE_UNIT, RecordQueue

pytestmark = pytest.mark.usefixtures("gil")


def test_refusals_go_with_the_report_that_comes_next():
    """What is refused after a report counts in the next one, under the cause that it has by then."""
    books = make_queue(3, 100, reserve=0.4, reserve_levelno=WARNING)
    books.put_nowait(row(size=60))
    books.put_nowait(row(size=2))  # does not fit, so INFO is refused for want of bytes
    for number in range(3):
        assert books.refuse(INFO, float(number), "a")
    first = report(books)
    assert books.refuse(INFO, 3.0, "a")
    books.put_nowait(row(WARNING))
    books.put_nowait(row(WARNING))  # now there is none in rows either
    assert books.refuse(INFO, 4.0, "a")
    second = report(books)

    assert {("bytes_full", INFO, "a"): [4, 0.0, 2.0]} == first.drops
    assert {("bytes_full", INFO, "a"): [1, 3.0, 3.0], ("queue_full", INFO, "a"): [1, 4.0, 4.0]} == second.drops
    assert (4, 6) == (first.dropped_total, second.dropped_total)
    check(books)


def test_a_report_in_the_middle_of_a_refusal():
    """A refusal that is interrupted by a report counts in the next one, and one inside a report counts in either."""

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
            gaps.append(report(books))
            return super().__hash__()

    books = Interrupted(1, 1_000 * SIZE_UNIT)
    books.open()
    books.put_nowait(row())
    gaps = []

    assert books.refuse(INFO, 1.0, "a")
    assert books.refuse(INFO, 3.0, Name("a"))
    gaps.append(report(books))
    assert books.refuse(INFO, 4.0, "a")
    gaps.append(report(books))

    key = ("queue_full", INFO, "a")
    assert [[2, 1.0, 2.0], [2, 2.0, 3.0], [2, 2.0, 4.0]] == [[gap.count, *sorted(gap.drops[key][1:])] for gap in gaps]
    assert [2, 4, 6] == [gap.dropped_total for gap in gaps]
    check(books)


def test_a_refusal_calls_no_code_of_a_name():
    """A name may be of a class whose `__str__` returns itself, a level of any; they ran while other callers waited."""

    class Name(str):
        """A name of the program, as Django's `SafeString` is."""

        __slots__ = ()

        def __str__(self):
            return self

        def __hash__(self):
            owned.append(books.mutex._is_owned())
            return super().__hash__()

    class Level(int):
        """A level of the program."""

        def __hash__(self):
            owned.append(books.mutex._is_owned())
            return super().__hash__()

    books, owned = make_queue(1), []
    books.put_nowait(row())
    for level, name in (INFO, Name("a")), (Level(WARNING), "a"):
        assert books.refuse(level, 1.0, name)

    assert {False} == set(owned)
    assert {("queue_full", level, "a"): [1, 1.0, 1.0] for level in (INFO, WARNING)} == report(books).drops


def test_a_snapshot_is_consistent_while_others_refuse(monkeypatch, gil):
    """A record that another thread refuses while the books are added up counts in the next snapshot."""

    class Interrupted(dict):
        """A ledger that another thread wants to change while it is read."""

        def __iter__(self):
            return super().__iter__()  # with an iterator of its own, a copy asks for the keys

        def keys(self):
            keys = list(super().keys())
            thread = threading.Thread(target=books.refuse, args=(INFO, 2.0, "a"))
            thread.start()
            thread.join()
            return keys

    monkeypatch.setattr(queue_module, "MUTEX_TIMEOUT", 0.001)
    books = make_queue(1)
    books.put_nowait(row())
    books.ledger._drops = Interrupted()
    books.refuse(INFO, 1.0, "a")

    found = books.books()

    assert (1, {("queue_full", INFO, "a"): 1}) == (found["dropped_total"], found["drops"])
    assert [0 if gil else 1, 2] == [len(books.ledger.waiting), books.dropped_total]


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


def test_a_report_in_the_middle_of_a_snapshot():
    """A signal handler that closes in the middle of `stats()` takes no drops out of it, though it reports them."""

    class Reported(dict):  # type: ignore[type-arg]
        """What was reported; the report comes while it is copied."""

        def __iter__(self):
            return super().__iter__()

        def keys(self):
            if books.ledger._reported is self:
                books.ledger._reported = {}
                gaps.append(report(books))
            return super().keys()

    gaps: list[PendingGap] = []
    books = make_queue(1)
    books.put_nowait(row())
    books.put_nowait(row())
    books.ledger._reported = Reported()

    found = books.books()

    assert ([1], 1, 2) == ([gap.count for gap in gaps], found["dropped_total"], found["seen"])
    check(books)


def test_a_report_in_the_middle_of_another_that_counts(monkeypatch):
    """
    What a signal handler reports, when a drop has just been found and not yet entered, is in no later report.

    There was an entry of none, and a warning: "dropped 0 records".
    """
    books, gaps, enter = make_queue(1), [], Ledger._entry

    def entry(*arguments):
        monkeypatch.undo()
        gaps.append(report(books))
        return enter(*arguments)

    books.put_nowait(row())
    for name in "a", "a":  # the second one ticks a tally
        monkeypatch.setattr(Ledger, "_entry", entry)
        assert books.refuse(INFO, 1.0, name)
        gaps.append(report(books))

    assert [1, None, 1, None] == [gap and gap.count for gap in gaps]
    check(books)


@pytest.mark.parametrize("name", ["PendingGap", "PendingGap.sum"])
def test_a_report_in_the_middle_of_another_is_the_only_one(monkeypatch, name):
    """What a signal handler reports while the same drops are made a gap, or added to the last one, counts once."""
    monkeypatch.setattr(ledger_module, "MAX_GAPS", 1)
    books, made = make_queue(1), attrgetter(name)(ledger_module)
    books.contend(row())
    report(books)
    books.ledger.unsent = None

    def interrupted(*arguments):
        monkeypatch.setattr(f"{ledger_module.__name__}.{name}", made)
        report(books)
        return made(*arguments)

    books.contend(row())
    gap = books.take_drops() if name == "PendingGap.sum" else None
    monkeypatch.setattr(f"{ledger_module.__name__}.{name}", interrupted)
    gap = gap or books.take_drops()
    if gap is not None:
        assert books.add_gap(gap) is None

    assert [2] == [gap.count for gap in books.ledger.gaps]
    check(books)


def test_refusals_in_the_middle_of_the_first_one(monkeypatch):
    """
    A signal handler that logs as the first record of its kind is refused ticks the tally that stays.

    There were two, and what the first one had counted was in no books.
    """
    books, make = make_queue(1), ledger_module.Tally
    books.put_nowait(row())

    def tally(*arguments):
        monkeypatch.undo()
        assert all(books.refuse(INFO, 1.0, "a") for _ in range(3))
        return make(*arguments)

    monkeypatch.setattr(ledger_module, "Tally", tally)
    assert books.refuse(INFO, 2.0, "a")
    if not queue_module.GIL:
        assert all(books.refuse(INFO, 1.0, "a") for _ in range(3))

    assert {("queue_full", INFO, "a"): 4} == books.books()["drops"]
    check(books)


def test_a_long_name_is_not_kept_for_refusals():
    """Made-up names do not stay in memory because their records were refused."""
    books = make_queue(1)
    books.put_nowait(row())
    for number in range(2 * ledger_module.MAX_KEYS):
        books.refuse(INFO, 0.0, f"{number}")
    assert ledger_module.MAX_KEYS >= len(books._refusals)

    books = make_queue(1)
    books.put_nowait(row())
    books.refuse(INFO, 0.0, "x" * 1_000_000)
    assert not books._refusals


def test_a_level_of_thousands_of_digits():
    """A refused record may have any level; one too long to be shown made each later warning and `stats()` fail."""
    books = make_queue(1)
    books.put_nowait(row())
    for _ in range(3):
        books.refuse(-(10**5_000), 1.0, "a")

    assert {("queue_full", 0, "a"): 3} == books.books()["drops"]
    assert {("queue_full", 0, "a"): [3, 1.0, 1.0]} == report(books).drops


def test_drops_in_no_order_of_time():
    """A gap lasts from the earliest to the latest of its drops: it ended before it began when a clock had jumped."""
    books = make_queue(1)
    books.put_nowait(row())
    books.refuse(INFO, 5.0, "a")
    books.refuse(INFO, 3.0, "a")
    books.put_nowait(row(created=7.0))
    books.put_nowait(row(created=6.0))
    first = report(books)
    books.refuse(INFO, 1.0, "a")
    second = report(books)

    key = ("queue_full", INFO, "a")
    assert [[4, 3.0, 7.0], [5, 1.0, 7.0]] == [first.drops[key], first.sum(second)[key]]


@pytest.mark.parametrize("created", [math.nan, math.inf, 1e300, 1.7e18])
def test_a_drop_at_no_time(created):
    """
    A refused record whose time the file cannot have counts as one of 1970, as its row would.

    Its gap ended before it began, or had no time at all.
    """
    for times in (created, 5.0), (5.0, created):
        books = make_queue(1)
        books.put_nowait(row())
        for time in times:
            books.refuse(INFO, time, "a")

        assert {("queue_full", INFO, "a"): [2, 0.0, 5.0]} == report(books).drops


def test_a_later_drop_in_the_middle_of_one():
    """Wherever a collection refuses a record while one is refused, the gap lasts until the later one."""
    number = seen = 0

    def collect(frame, event, _):
        nonlocal seen
        seen += event == "c_return" and frame.f_code.co_filename == ledger_module.__file__
        if seen == number:
            sys.setprofile(None)
            books.contend(row(created=9.0))
            books.books()

    while seen == number:
        number, seen = number + 1, 0
        books = make_queue(1)
        books.contend(row(created=1.0))
        books.put_nowait(row())
        sys.setprofile(collect)
        books.books()
        sys.setprofile(None)
        assert seen < number or [[2, 1.0, 9.0]] == [*report(books).drops.values()]


def test_reports_each_drop_once():
    """`take_drops` hands over what was dropped since the last call; the totals go on."""
    books = make_queue(1)
    for number in range(3):
        books.put_nowait(row(created=float(number)))
    first = report(books)
    books.put_nowait(row(created=9.0, logger="b"))
    second = report(books)

    assert first is not None
    assert second is not None
    assert (2, 2, {("queue_full", INFO, "a"): [2, 1.0, 2.0]}) == (first.count, first.dropped_total, first.drops)
    assert (1, 3, {("queue_full", INFO, "b"): [1, 9.0, 9.0]}) == (second.count, second.dropped_total, second.drops)
    assert report(books) is None
    check(books)


def test_a_gap_is_where_the_first_drop_was():
    """A gap stands after the last row that was queued before its first drop, however many have left since."""
    books = make_queue(2)
    for _ in range(2):
        books.put_nowait(row())
    commit_all(books)
    for _ in range(2):
        for _ in range(3):
            books.put_nowait(row())
        commit_all(books)

    gap = report(books)

    assert gap is not None
    assert 4 == gap.position


def test_a_gap_goes_with_the_commit_that_reaches_it():
    """A gap waits until the rows before it are written, and for its own transaction to succeed."""
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


def test_a_gap_without_a_row_keeps_the_listener_at_work():
    """A report that waits for its commit is `pending`, or an idle program's last drops would not come into the file."""
    books = make_queue(1)
    books.contend(row())
    report(books)
    waits = books.pending
    commit_all(books)

    assert (True, False) == (waits, books.pending)


def test_gaps_go_in_the_order_of_their_places():
    """
    A gap goes with the commit that reaches its place, also when an earlier report has a later place.

    While the budget of the disk was used up and the queue was full, the gap of the rows that were given up was reported
    after that of the newest ones. They went in the order of the reports, so each stood in the place of the other.
    """
    books = make_queue(4, batch_size=2)
    for _ in range(5):
        books.put_nowait(row())
    newest = report(books)
    books.give_up(1, "disk_budget")
    oldest = report(books)

    assert [[oldest], [newest]] == [list(commit_all(books).gaps) for _ in range(2)]


def test_waiting_gaps_are_bounded(monkeypatch):
    """In a long outage later gaps are added to the last one that waits, and no count gets out of the sum."""
    monkeypatch.setattr(ledger_module, "MAX_GAPS", 3)
    books = make_queue(1)
    books.put_nowait(row())
    for number in range(10):
        books.put_nowait(row(created=float(number)))
        gap = books.take_drops()
        assert gap is not None
        gap.warning = number
        kept = books.add_gap(gap)

    assert [1, 1, 8] == [gap.count for gap in books.ledger.gaps]
    assert kept is books.ledger.gaps[-1]
    assert (None, 10) == (kept.warning, kept.dropped_total)  # the warning would tell of the last one
    assert books.ledger.unsent.count == 10
    assert [8, 2.0, 9.0] == books.ledger.gaps[-1].drops["queue_full", INFO, "a"]


def test_gaps_without_a_row_between_them_are_bounded():
    """With a small `max_bytes` few gaps stand at one place, the head of the queue or another; others stay apart."""
    books = make_queue(1)

    def drop():
        books.put_nowait(row())
        books.put_nowait(row())
        books.add_gap(books.take_drops(), 2)

    def counts():
        return [gap.count for gap in books.ledger.gaps]

    for _ in range(4):  # the queue is full: all are behind its one row
        drop()
    assert [1, 4 + 2] == counts()
    books.give_up(books.end, "disk_budget")
    drop()  # the row at the head, and what was dropped behind the next one
    assert [1, 4 + 2 + 2] == counts()
    commit_all(books)
    for _ in range(2):
        drop()

    assert [1, 2] == counts()


def test_gaps_whose_rows_were_given_up_are_bounded():
    """Gaps of different places stay apart until the rows between them are gone; then the next one joins the last."""
    books = make_queue(10)
    for _ in range(3):
        books.put_nowait(row())
        books.contend(row())
        books.add_gap(books.take_drops(), 2)
    apart = [gap.count for gap in books.ledger.gaps]
    books.give_up(books.end, "disk_budget")
    books.add_gap(books.take_drops(), 2)

    assert ([1, 1, 1], [1, 1, 1 + 3]) == (apart, [gap.count for gap in books.ledger.gaps])


def test_gaps_that_lose_the_rows_between_them_are_bounded():
    """
    When the rows between gaps are given up, all come to the head of the queue; as many as may stand there are enough.

    A full queue has its next drops behind its rows, so all ticks of an outage had a gap, and one commit wrote them.
    """
    books = make_queue(2)
    for _ in range(3):
        books.put_nowait(row())
    for _ in range(6):
        books.add_gap(books.take_drops(), 2)
        books.put_nowait(row())  # is dropped, at the end
        books.give_up(books.removed + 1, "disk_budget")
        books.put_nowait(row())

    assert [(2, 1), (2, 5 * 2)] == [(gap.position, gap.count) for gap in books.ledger.gaps]


def test_a_gap_being_written_is_left_alone(monkeypatch):
    """What a commit holds does not change under it: the next gap stands for itself."""
    monkeypatch.setattr(ledger_module, "MAX_GAPS", 1)
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
    """Made-up logger names and levels do not make the ledger grow: the rest counts under "(other)"."""
    monkeypatch.setattr(ledger_module, "MAX_KEYS", 10)
    books = make_queue(1)
    books.put_nowait(row())
    for round_ in range(3):
        for number in range(1_000):
            books.put_nowait(row(number, logger=f"name {round_} {number}"))
        gap = report(books)
        assert gap is not None
        assert len(gap.drops) <= 10 + 6
        assert 1_000 == gap.count

    drops = books.books()["drops"]
    assert len(drops) <= 10 + 6
    assert 3_000 == sum(drops.values())
    assert {OTHER_LOGGERS} == {logger for _, _, logger in drops if not logger.startswith("name")}


def test_long_names_are_cut_in_the_books():
    """A logger's name of a megabyte does not stay in memory because its record was dropped."""
    books = make_queue(1)
    books.put_nowait(row())

    books.refuse(INFO, 0.0, "x" * 1_000_000)

    ((_, _, name),) = books.books()["drops"]
    assert 200 == len(name)
