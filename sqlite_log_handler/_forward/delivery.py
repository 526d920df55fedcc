"""
Deliver the rows of logs to a receiver, each at least once.

This decides what to read, send, retry and count, and when. It knows neither HTTP nor OTLP nor the time: its caller
hands in the spools, the encoder, the sender, the clock and the wait.

Guarantees
==========

- A cursor moves only after the receiver has answered for all rows up to it, and the next request of a log waits until
  it has moved. If the process is killed before that, the next one sends one request of that log again.
- One request is under way at a time, and one batch is in memory.
- While the receiver is away, nothing is written, and no further batch is read.
- If the receiver refuses one row and takes others, only that row is lost.
"""

import enum
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlite_log_handler._forward.spool import OutgoingBatch, Spool, SpoolRow

# OpenTelemetry's SDKs begin with 1 s and the Collector ends with 30 s.
_FIRST_DELAY = 1.0
_LAST_DELAY = 30.0

# We take a longer Retry-After for a mistake.
_LONGEST_DELAY = 3600.0

# Of a quarter of a second each: a program that logs at full speed holds the write lock nearly all the time.
_LOCK_ATTEMPTS = 20

# If the receiver refuses this many rows and takes none, the fault is with the receiver and not with the rows.
_REFUSED_AT_FIRST = 10

# Between two looks for new rows, as in OpenTelemetry's SDK: five looks a second would make five times the requests.
INTERVAL_SECONDS = 1.0


class Verdict(enum.Enum):
    """What an answer means for the rows of its request."""

    TAKEN = "taken"
    LATER = "later"  # the receiver is away or busy: send the same rows again after a while
    REFUSED = "refused"  # the receiver does not want some of these rows
    DENIED = "denied"  # the receiver wants nothing from us: the address or a key is wrong


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The receiver's answer to one request, in its words or those of an error.

    `rejected` rows it did not take (partial success); they are not sent again. It wants no request for `retry_after`
    seconds.
    """

    verdict: Verdict
    message: str = ""
    rejected: int = 0
    retry_after: float | None = None


# We answer this ourselves, without sending the request.
_TOO_LONG = Answer(Verdict.REFUSED, "longer than a request may be")

T = TypeVar("T")


@dataclass(slots=True)
class Counts:
    """How many rows met which fate."""

    sent: int = 0  # in requests that the receiver took, the rejected ones included
    requests: int = 0  # those requests
    rejected: int = 0  # rows of those requests that the receiver did not take
    refused: int = 0  # rows whose requests the receiver refused
    pruned: int = 0  # before they were sent


class GivenUpError(Exception):
    """The receiver refuses everything, or the receiver or a file was away for longer than allowed."""


@dataclass(slots=True)
class Delivery:
    """
    Deliver the rows of `spools` to a receiver: one batch of each log in turn.

    `encode` makes the body of a request from rows of a batch. `send` sends it and returns the answer; it raises
    nothing. With `follow`, a delivery never ends, and waits as long as something is away; else for `retry_seconds`.
    A single row may be longer than `batch_bytes`, which count before compression. `receiver` is its name in lines for
    the operator. `jitter` returns a number from 0 to 1, so that not all hosts of a fleet try again at one moment.
    """

    spools: Sequence[Spool]
    encode: Callable[[OutgoingBatch, Sequence[SpoolRow]], bytes]
    send: Callable[[bytes], Answer]
    clock: Callable[[], float]
    wait: Callable[[float], None]
    say: Callable[[str], None]
    follow: bool = False
    batch_rows: int = 8_000
    batch_bytes: int = 4 * 1024 * 1024
    retry_seconds: float = 60.0
    receiver: str = "the receiver"
    jitter: Callable[[], float] = random.random
    counts: Counts = field(default_factory=Counts)
    _told: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """
        Send all rows; with `follow`, also those that come later.

        Raises:
            GivenUpError: The receiver refuses every row; or without `follow`, something was away for too long.
            LogFileError: A file is not a log, or another forwarder moves its cursor.
        """
        turns = [_Turn(spool, _Absence(self, spool.path)) for spool in self.spools]
        while True:
            served = [self._serve(turn) for turn in _distinct(turns) if self.clock() >= turn.absence.until]
            if any(served):
                continue
            if not self.follow and not any(turn.absence.lasts for turn in turns):
                return
            self.wait(INTERVAL_SECONDS)

    def _serve(self, turn: "_Turn") -> bool:
        """Deliver the next batch of a spool, and tell whether another one follows."""
        self.wait(0)  # a signal ends the delivery between two logs, however many are locked
        if turn.owed is not None and not self._save(turn, turn.owed):
            return False
        try:
            if not turn.absence.lasts and not turn.spool.has_news():
                return False
            batch = self._patiently(lambda: turn.spool.read(self.batch_rows, self.batch_bytes))
        except (OSError, sqlite3.Error) as error:
            turn.absence.failed(str(error))
            return False
        turn.absence.end()
        # At first, this makes the cursor known to retention, which then counts the rows that were not sent.
        if not batch.rows or not (self._is_keeping_cursors or self._save(turn, batch.after_id)):
            return False
        if batch.missing:
            self.counts.pruned += batch.missing
            causes = ", ".join(batch.causes) or "deleted by hand"
            self._tell("pruned before they were sent", f"{batch.missing} rows of {turn.spool.path} ({causes})")
        for after_id in self._deliver(batch):
            if not self._save(turn, after_id):
                # The rest is read again, and what is missing in it counts again then.
                rest = [row for row in batch.rows if row[0] > after_id]
                self.counts.pruned -= batch.rows[-1][0] - after_id - len(rest)
                return False
        return batch.more

    def _save(self, turn: "_Turn", after_id: int) -> bool:
        """Move the cursor, and tell whether that worked. If not, `owed` keeps it, and nothing behind it is sent."""
        turn.owed = after_id
        try:
            self._patiently(lambda: turn.spool.save(after_id))
        except (OSError, sqlite3.Error) as error:
            turn.spool.go_back(after_id)
            turn.absence.failed(f"the cursor cannot be saved: {error}")
            return False
        turn.owed = None
        return True

    def _patiently(self, call: Callable[[], T]) -> T:
        """Retry: a busy writer holds the write lock almost continuously."""
        for _ in range(_LOCK_ATTEMPTS - 1):
            try:
                return call()
            except TimeoutError:
                self.wait(0)
        return call()

    def _deliver(self, batch: OutgoingBatch) -> Iterator[int]:
        """Send a batch, in pieces if necessary, and yield each id up to which the receiver has answered."""
        pieces: list[Sequence[SpoolRow]] = [batch.rows]
        while pieces:
            rows = pieces.pop()
            body = self.encode(batch, rows)
            too_long = len(body) > self.batch_bytes and len(rows) > 1
            answer = _TOO_LONG if too_long else self._insist(body)
            if answer.verdict is Verdict.TAKEN:
                self._count(rows, answer)
                yield rows[-1][0]
            elif len(rows) > 1:
                half = len(rows) // 2
                pieces += [rows[half:], rows[:half]]
            else:
                self._refuse(rows[0], answer)
                if not self._is_keeping_cursors:
                    yield rows[0][0]

    @property
    def _is_keeping_cursors(self) -> bool:
        """Whether the receiver has refused rows and taken none: the fault may be its own, so the cursors stay."""
        return self.counts.refused > 0 and not self.counts.requests

    def _insist(self, body: bytes) -> Answer:
        """Send a body until the receiver takes or refuses it."""
        absence = _Absence(self, self.receiver)
        while True:
            answer = self.send(body)
            if answer.verdict in {Verdict.TAKEN, Verdict.REFUSED}:
                absence.end()
                return answer
            if answer.verdict is Verdict.DENIED and not self.follow:
                raise GivenUpError(answer.message)
            self.wait(absence.failed(answer.message, answer.retry_after))

    def _count(self, rows: Sequence[SpoolRow], answer: Answer) -> None:
        self.counts.requests += 1
        self.counts.sent += len(rows)
        # Some receivers also count rows that they rejected earlier.
        rejected = min(answer.rejected, len(rows))
        self.counts.rejected += rejected
        if rejected:
            self._tell("rejected by the receiver", f"{rejected} of {len(rows)} rows: {answer.message}")
        elif answer.message:
            self._tell("the receiver took all rows, and says", answer.message)

    def _refuse(self, row: SpoolRow, answer: Answer) -> None:
        self.counts.refused += 1
        if not self.counts.requests and self.counts.refused == _REFUSED_AT_FIRST:
            raise GivenUpError(f"the receiver refuses every row, so none was skipped: {answer.message}")
        self._tell("refused by the receiver", f"row {row[0]}: {answer.message}")

    def _tell(self, what: str, line: str) -> None:
        """Tell the operator the first, second, fourth, eighth ... time, because it may happen a million times."""
        self._told[what] += 1
        times = self._told[what]
        if times & (times - 1) == 0:
            self.say(f"{what}: {line}" + (f" (this is number {times})" if times > 1 else ""))


@dataclass(slots=True)
class _Turn:
    """A spool, and why its next batch may have to wait."""

    spool: Spool
    absence: "_Absence"
    owed: int | None = None  # the cursor that could not be saved


def _distinct(turns: Sequence[_Turn]) -> Iterator[_Turn]:
    """Yield one turn for each log: two paths may lead to one, and a round later to two, because a link was switched."""
    logs = set()
    for turn in turns:
        if (log := os.path.realpath(turn.spool.path)) in logs:
            turn.spool.close()  # the other one moves the cursor, which is read again when this one opens its file
            turn.absence.end()
        else:
            logs.add(log)
            yield turn


class _Absence:
    """While something is away: one line when that begins, one when it ends, and ever longer waits in between."""

    def __init__(self, delivery: Delivery, name: str) -> None:
        self._delivery = delivery
        self._name = name
        self._since = self._delay = 0.0
        self.lasts = False
        self.until = 0.0  # no earlier the next attempt

    def failed(self, message: str, retry_after: float | None = None) -> float:
        """
        Return the seconds until the next attempt: exponential back-off with jitter, or as the receiver asks.

        Raises:
            GivenUpError: That would be too late.
        """
        delivery, now = self._delivery, self._delivery.clock()
        if not self.lasts:
            self.lasts, self._since, self._delay = True, now, _FIRST_DELAY
            delivery.say(f"{self._name}: {message}; trying again")
        if retry_after is None:
            delay = self._delay * (1 + delivery.jitter()) / 2
        else:
            # Never earlier than it asks.
            delay = min(retry_after, _LONGEST_DELAY) + delivery.jitter() * _FIRST_DELAY
        self._delay = min(2 * self._delay, _LAST_DELAY)
        if not delivery.follow and now + delay - self._since > delivery.retry_seconds:
            raise GivenUpError(
                f"{self._name}: {message}; gave up after {now - self._since:.0f} s; the next run goes on from here"
            )
        self.until = now + delay
        return delay

    def end(self) -> None:
        """Say that it is back, if there was one."""
        if self.lasts:
            self.lasts = False
            self._delivery.say(f"{self._name}: back after {self._delivery.clock() - self._since:.0f} s")
