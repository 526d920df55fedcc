"""
Fair share: a flood by one logger costs the others nothing.
"""

from __future__ import annotations

import random

import pytest
from queues import report
from slowly import slowly

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._write import fair_share as fair_share_module
from sqlite_log_handler._write.fair_share import Shares
from sqlite_log_handler._write.queue import ANY, NONE, RecordQueue
from sqlite_log_handler._write.row import LEVELNO, SIZE, SIZE_UNIT, SOURCE

INFO, WARNING, ERROR = 20, 30, 40


def row(logger="a", levelno=INFO, *, size=1):
    """Make what the queue knows of a row."""
    return (levelno, 1.0, (logger, "file.py", 1, "func"), size, 0)


def make_queue(capacity=100, size=10_000, **options):
    """Make an open queue, as if a listener had started."""
    made = RecordQueue(capacity, size * SIZE_UNIT, **{"fair_share": 0.5, **options})
    made.open()
    return made


def log(queue, logger="a", levelno=INFO, *, size=1):
    """Log as the handler does: ask before the row is made. Return whether the row is queued."""
    before = queue.queued
    if queue.admits is ANY or levelno >= queue.admits or not queue.refuse(levelno, 1.0, logger):
        queue.put_nowait(row(logger, levelno, size=size))
    return queue.queued > before


def commit(queue):
    """Commit one batch."""
    queue.end_commit(queue.begin_commit(10**9))


def test_one_flood_takes_half_of_what_is_free_and_stops():
    """Half of the room is anybody's. Of the other half the flood gets half, and a newcomer finds the rest."""
    queue = make_queue(100)

    for _ in range(1_000):
        log(queue, "flood")
    assert 75 == queue.queued
    assert all(log(queue, f"quiet {number}") for number in range(20))

    assert {("fair_share", INFO, "flood"): 925} == queue.books()["drops"]


def test_two_floods_share():
    """A second flood gets half of what the first has left."""
    queue = make_queue(1_000)

    for logger in ("first", "second"):
        for _ in range(1_000):
            log(queue, logger)

    held = [sum(item[SOURCE][0] == logger for item in queue.queue) for logger in ("first", "second")]
    assert [500 + 250, 125] == held


def test_shares_in_bytes():
    """A logger that holds as many bytes as are left is refused, however few its rows are."""
    queue = make_queue(1_000_000, 1_000)

    for _ in range(100):
        log(queue, "flood", size=100)
    assert 800 == queue.queued_size
    assert log(queue, "quiet", size=100)

    assert {("fair_share", INFO, "flood"): 92} == queue.books()["drops"]


def test_the_reserve_is_shared():
    """A flood of errors by one logger does not push out the errors of another."""
    queue = make_queue(100, reserve=0.2)

    for _ in range(1_000):
        log(queue, "flood", ERROR)
    assert 75 == queue.queued
    assert all(log(queue, "quiet", ERROR) for _ in range(12))


def test_a_flood_keeps_its_share_for_errors():
    """Warnings and errors are counted apart, so a logger that floods at INFO is not refused its errors."""
    queue = make_queue(100, reserve=0.2)
    for logger in ("flood", "other", "third"):
        for _ in range(100):
            log(queue, logger, INFO)

    assert not log(queue, "flood", INFO)
    assert log(queue, "flood", ERROR)


def test_a_share_comes_back_when_rows_leave():
    """A commit takes back what the flood holds; without pressure everybody is admitted again."""
    queue = make_queue(100, batch_size=10)
    for _ in range(100):
        log(queue, "flood")
    assert not log(queue, "flood")

    commit(queue)
    assert 65 == queue.queued
    assert log(queue, "flood")  # 25 of its rows count, and there is room for 35
    for _ in range(2):
        commit(queue)

    assert (46, ANY) == (queue.queued, queue.admits)


def test_only_rows_that_came_under_pressure_count():
    """Rows that were queued before the pressure count for no logger, and leave no number."""
    queue = make_queue(100, batch_size=10)
    for _ in range(50):
        log(queue, "early")
    for _ in range(20):
        log(queue, "late")
    commit(queue)

    assert {("late", False): [20, 20]} == queue._shares._held
    for _ in range(15):
        log(queue, "late")
    commit(queue)
    commit(queue)
    assert {("late", False): [30, 30]} == queue._shares._held


def test_what_close_gives_up_is_taken_back():
    """Rows that are dropped from the middle, behind a commit that does not end, count for their logger no more."""
    queue = make_queue(100, batch_size=10, fair_share=0.2)
    for _ in range(20):
        log(queue, "early")
    for _ in range(100):
        log(queue, "late")
    queue.begin_commit(10**9)
    assert {("late", False): [40, 40]} == queue._shares._held

    queue.give_up(50, "close_timeout")

    assert (20, 10) == (queue.queued, queue._rows_in_commit)
    assert {("late", False): [10, 10]} == queue._shares._held


def test_the_bound_holds_while_a_row_is_counted_for_its_logger(monkeypatch):
    """
    A record that a signal handler logs when another is counted for its logger does not take that one's room.

    The room of a row was free again when it was counted, just before it was appended: a queue of 10 held 11 rows.
    """
    queue, add = make_queue(10), Shares.add

    def interrupted(shares, item):
        add(shares, item)
        with monkeypatch.context() as patch:
            patch.setattr(Shares, "add", add)
            log(queue, f"nested {queue.queued}")

    monkeypatch.setattr(Shares, "add", interrupted)
    for number in range(10):
        log(queue, f"{number}")

    assert 10 == queue.queued


def test_it_can_be_turned_off():
    """With `fair_share=1` one logger may fill the queue."""
    queue = make_queue(100, fair_share=1.0)
    for _ in range(200):
        log(queue, "flood")

    assert (100, {("queue_full", INFO, "flood"): 100}) == (queue.queued, queue.books()["drops"])


def test_without_pressure_nothing_is_asked():
    """Below the fill a record is admitted by one attribute, and at the fill `refuse` is asked."""
    queue = make_queue(100)
    for _ in range(49):
        assert queue.admits is ANY
        log(queue)
    log(queue)

    assert NONE == queue.admits
    assert not queue.refuse(INFO, 1.0, "b")


def test_the_holders_are_bounded(monkeypatch):
    """Made-up logger names share one number beyond MAX_KEYS, and each row leaves the number that it was added to."""
    monkeypatch.setattr(fair_share_module, "MAX_KEYS", 3)
    shares = Shares(WARNING, 0)
    for name in "abcde":
        shares.add(row(name))
    assert {("a", False), ("b", False), ("c", False), (OTHER_LOGGERS, False)} == set(shares._held)

    for name in "ab":
        shares.remove([row(name)], 0)
    shares.add(row("e"))  # there is a free number, but a row of its name is among the others
    assert [3, 3] == shares._held[OTHER_LOGGERS, False]
    for name in "dee":
        shares.remove([row(name)], 0)
    shares.add(row("e"))
    for name in "ce":
        shares.remove([row(name)], 0)

    assert not shares._held


@pytest.mark.parametrize("count", [20_000, *slowly(100_000)])
def test_names_without_end_under_pressure(count):
    """A hundred thousand logger names take a bounded memory, and the books stay exact."""
    queue = make_queue(3_000)
    for number in range(count):
        log(queue, f"name {number}")
    books = queue.books()

    assert count == books["seen"] == queue.queued + books["dropped_total"]
    assert len(queue._shares._held) <= fair_share_module.MAX_KEYS + 2
    assert len(books["drops"]) <= 1_000 + 12
    assert len(queue.ledger._tallies) <= 1_000
    assert queue.queued < 3_000


def test_the_warning_says_who_spent_its_share(make_handler, logger, query):
    """The drop warning tells a logger that was refused for its share from one that met a full queue."""
    handler = make_handler(capacity=20, reserve=0, batch_size=100, flush_interval=3_600)
    logger.addHandler(handler)
    for number in range(30):
        logger.info("%d", number)
    handler.close()

    assert {"fair_share": 15} == handler.stats().dropped_by_cause
    ((warning,),) = query("SELECT message FROM logs WHERE logger = 'sqlite_log_handler'")
    assert f"most from {logger.name} INFO 15: more than its share" in warning


# The promise ----------------------------------------------------------------------------------------------------------


class Model:
    """A queue, and what each logger holds by a count of its own."""

    def __init__(self, seed):
        self.random = draw = random.Random(seed)
        self.capacity = draw.choice([1, 2, 10, 100, 500])
        self.size = draw.choice([200, 2_000, 50_000])
        self.reserve = draw.choice([0.0, 0.1, 0.5])
        self.fill = draw.choice([0.0, 0.3, 0.5, 0.8])
        self.queue = make_queue(
            self.capacity, self.size, reserve=self.reserve, fair_share=self.fill, batch_size=draw.choice([1, 7, 100])
        )
        self.loggers = [f"logger {number}" for number in range(draw.choice([1, 2, 5, 30]))]
        self.weights = [draw.choice([1, 1, 1, 100]) for _ in self.loggers]
        self.seen = 0

    def held(self, logger, *, reserved):
        """Return the rows and the size that a logger has queued, of those that have the reserve or of the others."""
        sizes = [
            item[SIZE]
            for item in self.queue.queue
            if item[SOURCE][0] == logger and (item[LEVELNO] >= WARNING) == reserved
        ]
        return len(sizes), sum(sizes)

    def left(self, *, reserved):
        """Return the rows and the size that there is room for."""
        share = 0 if reserved else self.reserve
        rows, size = self.capacity - int(self.capacity * share), self.size - int(self.size * share)
        return rows - len(self.queue.queue), size - sum(item[SIZE] for item in self.queue.queue)

    def log(self):
        """Log one record, and check the promise."""
        logger = self.random.choices(self.loggers, self.weights)[0]
        levelno, size = self.random.choice([INFO, INFO, INFO, WARNING, ERROR]), self.random.choice([1, 3, 80])
        reserved = levelno >= WARNING
        held, left = self.held(logger, reserved=reserved), self.left(reserved=reserved)
        causes = self.queue.books()["drops"]
        queued = log(self.queue, logger, levelno, size=size)
        self.seen += 1
        if not queued:
            ((cause, _, _),) = [
                key for key, count in self.queue.books()["drops"].items() if count != causes.get(key, 0)
            ]
            # Refused for its share: it held as much as was left. For want of room: there was none, for anybody, or not
            # enough for this row.
            spent = held[0] >= left[0] or held[1] >= left[1]
            assert spent if cause == "fair_share" else left[0] <= 0 or left[1] < size, (cause, held, left, size)

    def step(self):
        """Do something, and check the books and the bounds."""
        queue = self.queue
        match self.random.choice(["log"] * 30 + ["commit", "abort", "report", "give up", "reopen"]):
            case "log":
                self.log()
            case "commit":
                commit(queue)
            case "abort":
                queue.begin_commit(1_000)
                queue.abort_commit()
            case "report":
                report(queue)
            case "give up":
                queue.give_up(queue.removed + self.random.randrange(20), "close_timeout")
            case "reopen":
                queue.close()
                queue.open()
        books = queue.books()
        assert self.seen == books["seen"]
        assert len(queue.queue) == books["queued"] <= self.capacity
        assert sum(item[SIZE] for item in queue.queue) == queue.queued_size <= self.size
        for (logger, reserved), (rows, size) in queue._shares._held.items() if queue._shares else ():
            most = self.held(logger, reserved=reserved)
            assert 0 < rows <= most[0]
            assert size <= most[1]


@pytest.mark.parametrize("seed", [*range(8), *slowly(*range(8, 40))])
def test_who_holds_less_than_its_share_loses_nothing(seed):
    """
    In any order of logging, commits, drops and reopening, the queue refuses only a logger that holds its share.
    """
    model = Model(seed)
    for _ in range(600):
        model.step()
