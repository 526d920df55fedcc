"""
The loop that takes rows to a receiver: what is sent, tried again, passed over and counted. No network, and no time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import asdict

import pytest

from sqlite_log_handler._forward.delivery import Answer, Delivery, GivenUpError, Verdict
from sqlite_log_handler._forward.spool import OutgoingBatch
from sqlite_log_handler._forward.spool import Spool as FileSpool
from sqlite_log_handler._logfile.errors import LogFileError

TAKEN = Answer(Verdict.TAKEN)
AWAY = Answer(Verdict.LATER, "connection refused")


class Spool:
    """A file of rows that have an id and nothing else."""

    def __init__(self, ids, after_id=0, path="app-log.db"):
        self.path = path
        self.ids = list(ids)
        self.position = after_id
        self.saves = []
        self.read_errors = []
        self.save_errors = []

    def read(self, count, max_bytes):
        if self.read_errors:
            raise self.read_errors.pop(0)
        rows: list = [(row_id,) for row_id in self.ids if row_id > self.position][:count]
        after_id, self.position = self.position, rows[-1][0] if rows else self.position
        missing = self.position - after_id - len(rows)
        return OutgoingBatch(after_id, rows, missing, ["max_rows"], more=self.has_news())

    def go_back(self, after_id):
        self.position = after_id

    def has_news(self):
        return any(row_id > self.position for row_id in self.ids)

    def save(self, after_id):
        if self.save_errors:
            raise self.save_errors.pop(0)
        self.saves.append(after_id)


class Receiver:
    """Gives the answers that it is told to, then takes everything. A body is the ids of its rows, one byte each."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.bodies = []
        self.poison = set()

    def __call__(self, body):
        self.bodies.append(list(body))
        if self.poison & set(body):
            return Answer(Verdict.REFUSED, "HTTP status 400")
        return self.answers.pop(0) if self.answers else TAKEN

    @property
    def got(self):
        return [row_id for body in self.bodies for row_id in body]


class EnoughError(Exception):
    """Ends a delivery that goes on for ever."""


@pytest.fixture
def lines():
    """What the operator was told."""
    return []


@pytest.fixture
def waits():
    """For how long it waited, each time."""
    return []


@pytest.fixture
def deliver(clock, lines, waits):
    """
    Run a delivery of `spools` to a receiver, whose waits take no time; with `polls`, follow until so many are over.
    """

    def run(receiver, /, *spools, polls=None, **options):
        def wait(seconds):
            if not seconds:  # it looks whether a signal came
                return
            waits.append(seconds)
            clock.advance(seconds)
            if polls is not None and len(waits) > polls:
                raise EnoughError

        delivery = Delivery(
            spools=spools,
            encode=lambda _batch, rows: bytes(row_id for (row_id,) in rows),
            send=receiver,
            clock=clock,
            wait=wait,
            say=lines.append,
            follow=polls is not None,
            **{"jitter": lambda: 1.0, **options},
        )
        with contextlib.suppress(EnoughError):
            delivery.run()
        return delivery.counts

    return run


def test_everything_is_sent_once_and_in_order(deliver, lines):
    """A receiver that answers gets each row once, in batches, and the cursor follows the answers."""
    spool, receiver = Spool(range(1, 8)), Receiver()

    counts = deliver(receiver, spool, batch_rows=3)

    assert [[1, 2, 3], [4, 5, 6], [7]] == receiver.bodies
    assert [0, 3, 3, 6, 6, 7] == spool.saves
    assert {"sent": 7, "requests": 3, "rejected": 0, "refused": 0, "pruned": 0} == asdict(counts)
    assert [] == lines


def test_the_cursor_is_known_before_the_first_request(deliver):
    """The file learns of the cursor while nothing was answered yet, so retention counts what it prunes before that."""
    spool = Spool([5, 6], after_id=4)

    def send(_body):
        assert [4] == spool.saves
        return TAKEN

    deliver(send, spool)

    assert [4, 6] == spool.saves


def test_the_cursor_waits_for_the_answer(deliver):
    """While the receiver is away no cursor moves, nothing more is read, and the same rows are sent again."""
    spool, receiver = Spool(range(1, 5)), Receiver(AWAY, AWAY, AWAY)

    deliver(receiver, spool, batch_rows=2)

    assert [[1, 2], [1, 2], [1, 2], [1, 2], [3, 4]] == receiver.bodies
    assert [0, 2, 2, 4] == spool.saves


def test_waits_grow_and_an_outage_is_told_twice(deliver, lines, waits):
    """Each wait is twice the last one, up to 30 s; the operator hears when an outage begins and when it ends."""
    deliver(Receiver(*[AWAY] * 8), Spool([1]), retry_seconds=1_000)

    assert [1, 2, 4, 8, 16, 30, 30, 30] == waits
    assert ["the receiver: connection refused; trying again", "the receiver: back after 121 s"] == lines


def test_an_outage_is_told_with_the_address(deliver, lines):
    """The operator hears which receiver does not answer, so a wrong address is seen at once."""
    deliver(Receiver(AWAY), Spool([1]), receiver="the receiver http://a.example:4318/v1/logs")

    assert "the receiver http://a.example:4318/v1/logs: connection refused; trying again" == lines[0]


def test_waits_are_spread(deliver, waits):
    """A wait is between half and all of what it may be, so that a fleet does not come back in one moment."""
    deliver(Receiver(AWAY), Spool([1]), jitter=lambda: 0.0)

    assert [0.5] == waits


def test_retry_after_is_honoured(deliver, waits):
    """A receiver that names a time is left alone for it, and a second at most is added, for the fleet."""
    deliver(Receiver(Answer(Verdict.LATER, "HTTP status 429", retry_after=17.0)), Spool([1]))

    assert [18.0] == waits


def test_retry_after_of_a_year_is_a_mistake(deliver, waits):
    """Retry-After is honoured for an hour at most."""
    deliver(Receiver(Answer(Verdict.LATER, "", retry_after=3e7)), Spool([1]), polls=1)

    assert 3601.0 == waits[0]


def test_it_gives_up_after_a_while(deliver, waits):
    """A run that does not follow ends when the receiver was away for `retry_seconds`, with the cursor where it was."""
    spool = Spool([1, 2])

    with pytest.raises(GivenUpError, match="connection refused; gave up after 31 s; the next run goes on"):
        deliver(Receiver(*[AWAY] * 99), spool, retry_seconds=60)

    assert 60 >= sum(waits)
    assert [0] == spool.saves


def test_it_never_gives_up_when_it_follows(deliver, waits):
    """With follow, a receiver that is away for hours gets everything when it is back."""
    spool, receiver = Spool([1, 2]), Receiver(*[AWAY] * 500)

    counts = deliver(receiver, spool, polls=501)

    assert sum(waits) > 4 * 3600
    assert 2 == counts.sent


def test_a_wrong_address_ends_a_run(deliver, waits):
    """What no waiting mends (HTTP 401, 404, a wrong certificate) ends a run that does not follow at once."""
    with pytest.raises(GivenUpError, match="HTTP status 404"):
        deliver(Receiver(Answer(Verdict.DENIED, "HTTP status 404")), Spool([1]))

    assert [] == waits


def test_a_wrong_address_is_tried_again_when_it_follows(deliver, lines):
    """With follow, a receiver that denies is asked again: keys are renewed, and rows are safe in their file."""
    counts = deliver(Receiver(Answer(Verdict.DENIED, "HTTP status 401")), Spool([1]), polls=1)

    assert 1 == counts.sent
    assert "the receiver: HTTP status 401; trying again" == lines[0]


def test_partial_success_is_counted_and_not_sent_again(deliver, lines):
    """Rows that the receiver took a request without are counted and told; OTLP forbids to send them again."""
    receiver = Receiver(Answer(Verdict.TAKEN, "too old", rejected=2))

    counts = deliver(receiver, Spool(range(1, 6)))

    assert {"sent": 5, "requests": 1, "rejected": 2, "refused": 0, "pruned": 0} == asdict(counts)
    assert ["rejected by the receiver: 2 of 5 rows: too old"] == lines
    assert 1 == len(receiver.bodies)


def test_a_warning_of_the_receiver_is_told(deliver, lines):
    """What a receiver says with a full success is passed on to the operator."""
    deliver(Receiver(Answer(Verdict.TAKEN, "use v2")), Spool([1]))

    assert ["the receiver took all rows, and says: use v2"] == lines


def test_one_row_that_is_refused_costs_that_row(deliver, lines):
    """A batch that is refused is halved until the row is found that the receiver does not take; the others arrive."""
    spool, receiver = Spool(range(1, 9)), Receiver()
    receiver.poison = {6}

    counts = deliver(receiver, spool)

    assert 7 == counts.sent
    assert 1 == counts.refused
    assert [[1, 2, 3, 4], [5], [6], [7, 8]] == [body for body in receiver.bodies if 6 not in body or len(body) == 1]
    assert 8 == spool.saves[-1]
    assert ["refused by the receiver: row 6: HTTP status 400"] == lines


def test_what_happens_often_is_told_seldom(deliver, lines):
    """The first, the second, the fourth, the eighth of one kind is told: a receiver cannot flood the operator."""
    deliver(Receiver(*[Answer(Verdict.TAKEN, "no", rejected=1)] * 100), Spool(range(1, 101)), batch_rows=1)

    assert ["rejected by the receiver: 1 of 1 rows: no"] == lines[:1]
    assert [f"rejected by the receiver: 1 of 1 rows: no (this is number {n})" for n in (2, 4, 8, 16, 32, 64)] == lines[
        1:
    ]


@pytest.mark.parametrize("batch_rows", [40, 3])
def test_a_receiver_that_refuses_everything_loses_nothing(deliver, batch_rows):
    """
    When the first ten rows are refused and none was taken, it is the receiver that is wrong: no cursor has moved.

    Before the second batch the cursor was put behind the first one, so the next run left these rows out.
    """
    spool, receiver = Spool(range(1, 40)), Receiver()
    receiver.poison = set(range(1, 40))

    with pytest.raises(GivenUpError, match="refuses every row"):
        deliver(receiver, spool, polls=99, batch_rows=batch_rows)

    assert [0] == spool.saves


def test_a_refused_row_is_not_passed_over_before_another_is_taken(deliver):
    """A file of one row that is refused keeps its cursor; the next run tries again."""
    spool, receiver = Spool([1]), Receiver()
    receiver.poison = {1}

    counts = deliver(receiver, spool)

    assert 1 == counts.refused
    assert [0] == spool.saves


def test_a_request_is_never_longer_than_asked_for(deliver):
    """A batch whose body is too long is sent in pieces, and a single row whole."""
    receiver = Receiver()

    deliver(receiver, Spool(range(1, 8)), batch_bytes=2)

    assert [[1], [2, 3], [4, 5], [6, 7]] == receiver.bodies


def test_pruned_rows_are_counted_and_told(deliver, lines):
    """Rows that are missing between the cursor and what is left were pruned before they were sent."""
    counts = deliver(Receiver(), Spool([8, 9], after_id=3))

    assert 4 == counts.pruned
    assert ["pruned before they were sent: 4 rows of app-log.db (max_rows)"] == lines


def test_files_have_their_turns(deliver):
    """Several files are served a batch each in turn, so that a long one does not hold up the others."""
    receiver = Receiver()

    deliver(receiver, Spool([1, 2, 3, 4]), Spool([11, 12], after_id=10, path="second.db"), batch_rows=2)

    assert [[1, 2], [11, 12], [3, 4]] == receiver.bodies


@pytest.mark.parametrize("names", [("app-log.db", "link.db"), ("link.db", "app-log.db")], ids=" ".join)
def test_a_link_to_a_log_that_is_named_too(make_handler, logger, path, clock, lines, names):
    """
    The rows of a log and of a link to it arrive once, wherever the link is switched.

    The command decided once which names are one log, so rows of the old log were left out when the link was switched.
    """
    link, got = path.with_name("link.db"), []

    def log(text, file):
        logger.handlers[:] = [make_handler(file)]
        logger.info(text)
        logger.handlers[0].close()

    def switch(file):
        link.unlink(missing_ok=True)
        link.symlink_to(file)

    def months():
        for new, name, last in [("second", "second.db", "late"), ("third", "app-log.db", ""), ("4", "second.db", "5")]:
            switch(name)
            log(new, link)
            if last:
                log(last, path)
            yield

    log("first", path)
    switch(path)
    spools = [FileSpool(str(path.with_name(name)), "x", say=lines.append) for name in names]
    passing = months()

    def wait(seconds):
        if seconds and next(passing, "end"):
            raise EnoughError

    def encode(_batch, rows):
        got.extend(row[8] for row in rows)
        return b""

    delivery = Delivery(spools, encode, Receiver(), clock, wait, lines.append, follow=True)
    with contextlib.suppress(EnoughError):
        delivery.run()
    for spool in spools:
        spool.close()

    assert ["4", "5", "first", "late", "second", "third"] == sorted(got)
    moved = f"{str(link)!r} was moved or replaced: forward the old file as well, which has the rows that were not sent"
    assert (3 if names[0] == "link.db" else 1) == sum(line.startswith(moved) for line in lines)


def test_a_file_that_cannot_be_read_holds_up_no_other(deliver, lines):
    """A file with an error waits for its next turn while the others go on; it is told once, and when it is back."""
    first, second, receiver = Spool([1], path="first.db"), Spool([11], after_id=10), Receiver()
    first.read_errors = [sqlite3.OperationalError("disk I/O error"), sqlite3.OperationalError("disk I/O error")]

    deliver(receiver, first, second)

    assert [[11], [1]] == receiver.bodies
    assert ["first.db: disk I/O error; trying again", "first.db: back after 3 s"] == lines


def test_a_cursor_that_cannot_be_saved_is_saved_before_more_is_read(deliver, lines):
    """A file on a full disk takes the cursor later; until then nothing more is sent from it."""
    spool, receiver = Spool([1]), Receiver()

    def fill(body):
        spool.save_errors = [sqlite3.OperationalError("disk full")] * 2
        return receiver(body)

    deliver(fill, spool)

    assert [1] == receiver.got
    assert [0, 1] == spool.saves
    assert ["app-log.db: the cursor cannot be saved: disk full; trying again", "app-log.db: back after 3 s"] == lines


def test_while_a_cursor_cannot_be_saved_no_further_piece_is_sent(deliver):
    """
    Of a batch that goes in pieces, the others wait until the cursor of the first is saved; rows are counted once.

    All were sent, so a kill sent 25 requests twice.
    """
    spool = Spool([2, 3, 5, 6])

    def lock(body):
        spool.save_errors = [sqlite3.OperationalError("locked")]
        spool.saves.append([*body])
        return TAKEN

    counts = deliver(lock, spool, batch_bytes=2)

    assert [0, [2, 3], 3, 3, [5, 6], 6] == spool.saves
    assert (4, 2) == (counts.sent, counts.pruned)


def test_while_a_cursor_cannot_be_made_nothing_is_sent(deliver):
    """Of logs whose cursors cannot be saved at all, no row is sent: a kill would send one request of each twice."""
    locked, other, receiver = Spool([1], path="locked.db"), Spool([11], after_id=10), Receiver()
    locked.save_errors = [sqlite3.OperationalError("locked")] * 99

    deliver(receiver, locked, other, polls=9)

    assert [11] == receiver.got


def test_a_signal_is_looked_for_at_each_turn(clock):
    """
    A signal ends it before the next log has its turn.

    It ended it when all had theirs: SQLite waits a tenth of a second for each that is locked, and sixty took six.
    """
    spools: list = [Spool([1], path=f"{number}.db") for number in range(9)]
    asked = []

    def send(_body):
        asked.append("signal")
        return TAKEN

    def wait(_seconds):
        if asked:
            raise EnoughError

    with pytest.raises(EnoughError):
        Delivery(spools, lambda *_: b"", send, clock, wait, print).run()

    assert ["signal"] == asked


def test_a_busy_writer_is_waited_for(deliver, lines):
    """The write lock of a program that logs without a pause is tried twenty times before anybody hears of it."""
    spool = Spool([1])
    spool.save_errors = [TimeoutError("locked")] * 19

    deliver(Receiver(), spool)

    assert [0, 1] == spool.saves
    assert [] == lines

    spool = Spool([1])
    spool.save_errors = [TimeoutError("locked")] * 20
    deliver(Receiver(), spool)

    assert [0, 0, 1] == spool.saves
    assert "app-log.db: the cursor cannot be saved: locked; trying again" == lines[0]


def test_a_file_that_is_not_a_log_ends_the_run(deliver):
    """What no waiting mends in a file comes out of the loop, for the command to report."""
    spool = Spool([1])
    spool.read_errors = [LogFileError("not a log")]

    with pytest.raises(LogFileError):
        deliver(Receiver(), spool, polls=9)


def test_following_looks_for_news(deliver, waits):
    """With nothing more to send it looks again every second, so rows that come one by one share requests."""
    spool = Spool([1])

    class Growing(Receiver):
        def __call__(self, body):
            if body == b"\x01":
                spool.ids += [2, 3]
            return super().__call__(body)

    receiver = Growing()
    deliver(receiver, spool, polls=2)

    assert [[1], [2, 3]] == receiver.bodies
    assert [1.0, 1.0, 1.0] == waits
