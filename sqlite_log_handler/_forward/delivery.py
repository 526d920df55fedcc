"""
Take rows from logs to a receiver, at least once: what is read, sent, tried again and counted, and when.

Nothing here knows HTTP, OTLP or the time: the spools, what encodes, what sends, the clock and the wait are handed in.

Guarantees
==========

- A cursor moves only after the receiver has answered for all rows up to it. A process that is killed in between
  sends one batch again.
- One request is under way at a time, and one batch is in memory.
- While the receiver is away nothing is read but the batch that it did not take, and nothing is written.
- A row that the receiver refuses for itself costs that row only, and only when the receiver takes others.
"""

import enum
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from sqlite_log_handler._forward.spool import OutgoingBatch, Spool, SpoolRow

# OpenTelemetry's SDKs begin with 1 s and the Collector ends with 30 s.
_FIRST_DELAY = 1.0
_LAST_DELAY = 30.0

# Retry-After may name any time; a longer one is taken for a mistake.
_LONGEST_DELAY = 3600.0

# A quarter of a second each. A program that logs as fast as it can holds the write lock nearly all the time.
_LOCK_ATTEMPTS = 20

# After this many rows refused one after the other, and none taken, the receiver is wrong and not the rows.
_REFUSED_AT_FIRST = 10

# Rows of one request are collected for so long when they come one by one, as by OpenTelemetry's SDK: a fleet whose
# hosts ask five times a second makes five times the requests of one whose hosts ask once.
INTERVAL_SECONDS = 1.0


class Verdict(enum.Enum):
    """What an answer means for the rows of its request."""

    TAKEN = "taken"
    LATER = "later"  # the receiver is away or busy: the same rows, after a while
    REFUSED = "refused"  # something in them is not for this receiver
    DENIED = "denied"  # nothing from here is: an address or a key is wrong


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What the receiver said to one request.

    Attributes:
        verdict: What it means.
        message: In the receiver's words, or in those of the error.
        rejected: Rows that it took the request without (partial success); they are not sent again.
        retry_after: Seconds that it asks to be left alone.
    """

    verdict: Verdict
    message: str = ""
    rejected: int = 0
    retry_after: float | None = None


# What is known before it is sent.
_TOO_LONG = Answer(Verdict.REFUSED, "longer than a request may be")

T = TypeVar("T")
Encode: TypeAlias = Callable[[OutgoingBatch, Sequence[SpoolRow]], bytes]
Send: TypeAlias = Callable[[bytes], Answer]


@dataclass(slots=True)
class Counts:
    """
    What was done.

    Attributes:
        sent: Rows that the receiver has answered for, the rejected ones included.
        requests: Requests that it has taken.
        rejected: Rows that it took a request without.
        refused: Rows that it did not take at all.
        pruned: Rows that were pruned before they were sent.
    """

    sent: int = 0
    requests: int = 0
    rejected: int = 0
    refused: int = 0
    pruned: int = 0


class GivenUpError(Exception):
    """The receiver, or a file, was not to be had for as long as was asked for."""


@dataclass(slots=True)
class Delivery:
    """
    Take the rows of `spools` to a receiver.

    Args:
        spools: Served in turn, a batch each.
        encode: Makes the body of a request from rows of a batch.
        send: Sends a body, and gives the answer; raises nothing.
        clock: Tells seconds, from any beginning.
        wait: Waits this number of seconds.
        say: Called with a line for the operator.
        follow: Go on for ever, and give up never.
        batch_rows: Rows in a request at most.
        batch_bytes: Bytes in a request at most, before compression; a single row may be longer.
        retry_seconds: How long the receiver or a file may be away when `follow` is not set.
        receiver: What it is called in the lines for the operator.
        jitter: Gives a number from 0 to 1, so that a fleet does not come back in one moment.
    """

    spools: Sequence[Spool]
    encode: Encode
    send: Send
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
        Send all there is; with `follow`, and all that comes.

        Raises:
            GivenUpError: The receiver refuses every row; without `follow`, something was away for too long.
            LogFileError: A file is no log, or somebody else moves its cursor.
        """
        turns = [_Turn(spool, _Outage(self, spool.path)) for spool in self.spools]
        while True:
            served = [self._serve(turn) for turn in turns if turn.is_due(self.clock())]
            if any(served):
                continue
            if not self.follow and not any(turn.outage.lasts for turn in turns):
                return
            self.wait(INTERVAL_SECONDS)

    def _serve(self, turn: "_Turn") -> bool:
        """Take the next batch of a spool, and tell whether there is another one behind it."""
        if not self._save(turn, turn.owed):
            return False
        try:
            if not turn.outage.lasts and not turn.spool.has_news():
                return False
            batch = self._patiently(lambda: turn.spool.read(self.batch_rows, self.batch_bytes))
        except (OSError, sqlite3.Error) as error:
            turn.outage.failed(str(error))
            return False
        turn.outage.end()
        if batch.last_id == batch.after_id:
            return False
        # The first time this makes the cursor known, so that retention counts what was not sent.
        self._save(turn, batch.after_id)
        if batch.missing:
            self.counts.pruned += batch.missing
            causes = ", ".join(batch.causes) or "deleted by hand"
            self._tell("pruned before they were sent", f"{batch.missing} rows of {turn.spool.path} ({causes})")
        for after_id in self._deliver(batch) if batch.rows else [batch.last_id]:
            self._save(turn, after_id)
        return batch.more

    def _save(self, turn: "_Turn", after_id: int | None) -> bool:
        """Move the cursor; if the file does not let us, before anything more is read from it."""
        turn.owed = after_id
        if after_id is None:
            return True
        try:
            self._patiently(lambda: turn.spool.save(after_id))
        except (OSError, sqlite3.Error) as error:
            turn.outage.failed(f"the cursor cannot be saved: {error}")
            return False
        turn.owed = None
        return True

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call what needs the write lock, which a program that logs without a pause leaves to others by chance only."""
        for _ in range(_LOCK_ATTEMPTS - 1):
            try:
                return call()
            except TimeoutError:
                self.wait(0)
        return call()

    def _deliver(self, batch: OutgoingBatch) -> Iterator[int]:
        """Send a batch, in pieces if need be, and yield how far the receiver has answered for it."""
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
                # As long as it has taken nothing, it may be the receiver that is wrong, and the cursor stays.
                if self.counts.requests:
                    yield rows[0][0]

    def _insist(self, body: bytes) -> Answer:
        """Send a body until there is an answer that lasts."""
        outage = _Outage(self, self.receiver)
        while True:
            answer = self.send(body)
            if answer.verdict in {Verdict.TAKEN, Verdict.REFUSED}:
                outage.end()
                return answer
            if answer.verdict is Verdict.DENIED and not self.follow:
                raise GivenUpError(answer.message)
            self.wait(outage.failed(answer.message, answer.retry_after))

    def _count(self, rows: Sequence[SpoolRow], answer: Answer) -> None:
        self.counts.requests += 1
        self.counts.sent += len(rows)
        # Some receivers count what they rejected of other requests too.
        rejected = min(answer.rejected, len(rows))
        self.counts.rejected += rejected
        if rejected:
            self._tell("rejected by the receiver", f"{rejected} of {len(rows)} rows: {answer.message}")
        elif answer.message:
            self._tell("the receiver took all rows, and says", answer.message)

    def _refuse(self, row: SpoolRow, answer: Answer) -> None:
        self.counts.refused += 1
        if not self.counts.requests and self.counts.refused == _REFUSED_AT_FIRST:
            message = f"the receiver refuses every row, and so none was passed over: {answer.message}"
            raise GivenUpError(message)
        self._tell("refused by the receiver", f"row {row[0]}: {answer.message}")

    def _tell(self, what: str, line: str) -> None:
        """Tell of something that may happen a million times: the first time, the second, the fourth, the eighth."""
        self._told[what] += 1
        times = self._told[what]
        if times & (times - 1) == 0:
            self.say(f"{what}: {line}" + (f" (this is number {times})" if times > 1 else ""))


@dataclass(slots=True)
class _Turn:
    """A spool, and what stands between it and its next batch."""

    spool: Spool
    outage: "_Outage"
    owed: int | None = None  # the cursor that could not be saved

    def is_due(self, now: float) -> bool:
        return not self.outage.lasts or now >= self.outage.until


class _Outage:
    """The time for which something is away: one line when it begins, one when it ends, longer waits in between."""

    def __init__(self, delivery: Delivery, name: str) -> None:
        self._delivery = delivery
        self._name = name
        self._since = 0.0
        self._delay = 0.0
        self.lasts = False
        self.until = 0.0

    def failed(self, message: str, retry_after: float | None = None) -> float:
        """Give the seconds until the next attempt: exponential back-off with jitter, or what the receiver asks for."""
        delivery, now = self._delivery, self._delivery.clock()
        if not self.lasts:
            self.lasts = True
            self._since = now
            self._delay = _FIRST_DELAY
            delivery.say(f"{self._name}: {message}; trying again")
        if retry_after is None:
            delay = self._delay * (1 + delivery.jitter()) / 2
        else:
            # Never sooner than it asks, and not all of a fleet at once.
            delay = min(retry_after, _LONGEST_DELAY) + delivery.jitter() * _FIRST_DELAY
        self._delay = min(2 * self._delay, _LAST_DELAY)
        if not delivery.follow and now + delay - self._since > delivery.retry_seconds:
            message = (
                f"{self._name}: {message}; given up after {now - self._since:.0f} s, and the next run goes on from here"
            )
            raise GivenUpError(message)
        self.until = now + delay
        return delay

    def end(self) -> None:
        """Say that it is over, if it was."""
        if self.lasts:
            self.lasts = False
            self._delivery.say(f"{self._name}: back after {self._delivery.clock() - self._since:.0f} s")
