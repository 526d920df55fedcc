"""
The bounded queue between the threads that log and the one that commits.

Theory of operation
===================

A row is a tuple that begins with (levelno, created, source, size, marks), where source begins with the logger's name.
The queue reads these five and no other.

Rows go in at the tail (`put_nowait`). A commit copies them from the head (`begin_commit`), and they leave when it has
succeeded (`end_commit`). Until then they count against both bounds.

`admits` is the lowest level that the queue takes at this moment without asking: ANY, `reserve_level` when only the
reserve is left, NONE when it is full or closed. It is NONE under pressure too, when each logger has a share of what is
left (see `_write.fair_share`). A caller reads this one attribute, without the mutex, and asks `refuse` about a record
below it, so that it formats no message for nothing. `refuse` decides, under the mutex.

Nearly all rows change nothing but numbers: they are not the first one, make no commit due, and have room. They go the
quick way, without the mutex: take a permit, append the row. docs/design.md says why that is safe. The length of the
deque says how many rows are queued, and `_count_rows` adds up their sizes later, under the mutex.

In the same way a refusal only ticks a tally, if its level and logger were refused before (see `_write.ledger`).

The queue hands out PERMITS permits at a time, under the mutex, and takes them back when it needs the room or is empty.
While there are permits, something is `pending`; the first row, which has none, wakes a listener that sleeps. Without a
GIL there are no permits, and everything happens under the mutex.

CPython runs signal handlers and collections at calls and at jumps back, and they may log, flush or close, RLock or not.
So under the mutex each line leaves the numbers true, and a number that a call has made old is not stored. CPython 3.11
collects where it makes a tuple as well, so a tuple is made before the last look at whether a number is old.

Guarantees
==========

- At every instant `seen == written + dropped + queued`: `seen` is that sum, `queued` the length of the deque, and
  `dropped` the sum of the ledger.
- `queued <= capacity`, and the sizes of the queued rows add up to `capacity_bytes` at most.
- A thread holds the mutex for microseconds: no I/O, no foreign code, no logging under it. It is the innermost lock.
- The mutex is an RLock, and no caller waits for it for longer than MUTEX_TIMEOUT: signal handlers and collections may
  log anywhere, under the mutex of this or of another handler. A caller that gives up counts its record (`contended`).
- To wake the listener, a caller releases a raw lock: `Event` and `Condition` take locks that are not reentrant.
- A RecursionError that comes out of here may follow a row that is queued, and no drop that is counted.
- If a signal handler raises out of a trace or profile function, between a permit and its row, the queue loses the room
  of one row, and no record. Without a tracer no signal handler runs there.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import accumulate, chain, compress, islice, repeat, starmap
from operator import is_, itemgetter, length_hint

from sqlite_log_handler._logfile.locks import acquire, make_mutex
from sqlite_log_handler._logfile.typed import Any, Final, NamedTuple
from sqlite_log_handler._write.fair_share import Shares
from sqlite_log_handler._write.ledger import MAX_GAPS, Ledger, PendingGap, Tally
from sqlite_log_handler._write.plain import MALFORMED, TRUNCATED, exact
from sqlite_log_handler._write.row import CREATED, LEVELNO, MARKS, SIZE, SIZE_UNIT, SOURCE

# For `admits`: every level, and one above all that a levelno can be.
ANY: Final = None
NONE: Final = 1 << 63

# Long enough for any stall of the scheduler, short enough to end a deadlock before somebody kills the process.
MUTEX_TIMEOUT = 1.0

# A GIL that is off may be turned on by an import; one that is on stays on.
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()

# The largest row that goes the quick way (4 KiB), in SIZE_UNITs. Each permit reserves this much, so with a larger value
# permits would run out sooner.
_QUICK_SIZE = 64

PERMITS = 1_000  # so one row in a thousand takes the mutex, and to take these back takes some 10 microseconds
BATCH_SIZE = 10_000
_REMOVED_AT_ONCE = 256  # per turn of the mutex: a caller that waits for it waits some 20 microseconds

_size_of = itemgetter(SIZE)


class Closed(Exception):  # noqa: N818 - a state, as queue.Full is
    """There is no listener: start one, and put the row again."""


class Commit(NamedTuple):
    """The content of one transaction: rows copied from the head of the queue, and the gaps among them."""

    rows: Sequence[Any]
    gaps: Sequence[PendingGap] = ()
    first: int = 0  # position of the first row


class _Queue(queue.Queue["Any"]):
    """A `queue.Queue` that has a `__dict__`: gevent's monkey patching puts one there that has slots only."""


class RecordQueue(_Queue):
    """
    A `queue.Queue` that is bounded in rows and in bytes, drops what does not fit, and keeps the books.

    It differs from `queue.Queue` in its two ends: `put_nowait` never raises `queue.Full`, `begin_commit` and
    `end_commit` take the place of `get`, and nobody waits on a condition. Its options are those of the handler. The
    listener wakes up when `batch_size` rows wait, or half of what fits before loggers have shares, or a row at
    `flush_levelno` or above.
    """

    # What a put reads. CPython reads slots in the fewest steps, and with more than 30 attributes beside them it no
    # longer specialises calls of a method.
    __slots__ = ("_flush_levelno", "_gone", "_granted", "_permits", "_refusals", "_settled", "admits", "queue")

    def __init__(
        self,
        capacity: int,
        capacity_bytes: int,
        *,
        reserve: float = 0.0,
        reserve_levelno: int = 30,
        batch_size: int | None = None,
        flush_levelno: int = 40,
        fair_share: float = 1.0,
    ) -> None:
        super().__init__(capacity)
        self.capacity = capacity
        self.capacity_size = capacity_bytes // SIZE_UNIT
        ordinary = (capacity - int(capacity * reserve), self.capacity_size - int(self.capacity_size * reserve))
        # Rows and size for a row below `reserve_levelno`, and for one at or above it.
        self._bounds = (ordinary, (capacity, self.capacity_size))
        # Up to here no bound is near: all rows are admitted alike.
        self._calm = (
            min(ordinary[0], int(capacity * fair_share)),
            min(ordinary[1], int(self.capacity_size * fair_share)),
        )
        self._has_shares = fair_share < 1
        self._reserve_levelno = reserve_levelno
        self._batch_size = min(batch_size or BATCH_SIZE, sys.maxsize)  # islice takes no more
        # A commit is due at half of that, or the first drop of a burst could come before it.
        self._due = batch_size or max(1, min(BATCH_SIZE, self._calm[0] // 2)), self._calm[1] // 2
        self._flush_levelno = flush_levelno
        self.reset()

    def reset(self) -> None:
        """Become as new: empty, closed, books at zero, new locks. For `__init__`, and for a forked child."""
        self.mutex = make_mutex()  # type: ignore[assignment]  # see Guarantees
        self.not_empty = self.not_full = self.all_tasks_done = threading.Condition(self.mutex)
        self.renew_wakeup()
        self.queue = deque()
        self.ledger = Ledger()
        self.closed = True
        self.admits: int | None = NONE
        self._level: int | None = NONE  # as `admits`, but for the pressure, under which that is NONE
        self._shares: Shares | None = None  # under pressure
        self._refusals: dict[tuple[int, str], Tally] = {}  # by level and logger, while `admits` stays where it is
        self._permits = repeat(True, 0)  # noqa: FBT003 - repeat takes no keyword
        self._granted = 0  # permits ever given, and rows that needed none: as many as `_settled` counts, or more
        self._settled = (0, 0)  # rows that ever came and were counted, and their size in SIZE_UNITs
        self._gone = (0, 0)  # rows that ever left, and their size
        self._ahead: Sequence[Any] = ()  # rows before the deque: those of a commit that outlived `give_up`
        self.peak_queued = 0
        self.written = 0
        self.truncated = 0
        self.malformed = 0
        self.urgent = False  # a row at flush_level or above waits
        self._rows_in_commit = 0

    @property
    def queued(self) -> int:
        """Rows that wait for their commit."""
        return len(self._ahead) + len(self.queue)

    @property
    def queued_size(self) -> int:
        """Their size in SIZE_UNITs."""
        with self.mutex:
            self._count_rows()
            return self._settled[1] - self._gone[1]

    @property
    def removed(self) -> int:
        """Rows that left the queue, written or dropped; also the position of the head."""
        return self._gone[0]

    @property
    def end(self) -> int:
        """The position behind the last row that is queued now."""
        with self.mutex:
            return self.removed + self.queued

    # The side of those who log ----------------------------------------------------------------------------------------

    def put_nowait(self, item: Any) -> None:
        """
        Queue a row, or count it as dropped, within MUTEX_TIMEOUT. Never raises `queue.Full`.

        Raises:
            Closed: There is no listener; nothing is counted.
        """
        # `in` takes one permit, if there is one, and being no call it lets no signal handler in before the append.
        if (
            item[SIZE] <= _QUICK_SIZE
            and item[LEVELNO] < self._flush_levelno
            and not item[MARKS]
            and True in self._permits
        ):
            self.queue.append(item)
        else:
            self._put(item)

    def _put(self, item: Any) -> None:
        mutex, held = self.mutex, False
        levelno, size = item[LEVELNO], item[SIZE]
        try:
            (held,) = acquire(mutex, MUTEX_TIMEOUT)
            if not held:
                self.contend(item)
                return
            gone, was_due, before = self._gone, self.commit_due, len(self.queue)
            if not self._admit(item, levelno, size):
                return
            if GIL and before and self.admits is ANY and self._lacks_permits:
                # Not after the first row: in many programs it is the only one of its tick.
                self._grant()
            if item[MARKS]:
                self.truncated += item[MARKS] & TRUNCATED
                self.malformed += item[MARKS] // MALFORMED
            if levelno >= self._flush_levelno:
                self.urgent = True
            elif before and self._gone is gone and (was_due or not self.commit_due):
                return
        finally:
            if held:
                mutex.release()
        self.wake()

    def _admit(self, item: Any, levelno: int, size: int) -> bool:
        """Queue a row or drop it; the mutex is held."""
        while True:
            if self._granted > self._settled[0]:
                self._count_rows()
            granted, settled, gone = self._granted, self._settled, self._gone
            rows, left = self._calm
            is_calm = (  # as `_room` counts, without the call
                self.admits is ANY
                and granted - gone[0] < rows - 1
                and settled[1] - gone[1] + (granted - settled[0]) * _QUICK_SIZE + size < left
            )
            if not is_calm:
                cause = self._refusal(levelno, item[SOURCE][0]) or self._lack(levelno, size)
                if self.closed:
                    raise Closed
                if cause is not None:
                    self._drop(cause, item)
                    return False
            # A nested call may have taken the room, and then it is looked for again. From here to the append there is
            # no call.
            if self._granted == granted and self._settled is settled:
                self._granted += 1
                self.queue.append(item)
                break
        counted = granted + 1, settled[1] + size
        if granted == settled[0] and self._settled is settled:
            self._settled = counted  # all others were counted
        else:
            self._count_rows()
        if not is_calm:
            if (shares := self._shares) is not None:
                shares.add(item)
            self._narrow()
        return True

    def refuse(self, levelno: int, created: float, logger: str) -> bool:
        """Count a record as dropped that has no row. Return False, with nothing counted, if there may be room."""
        tally = self._refusals.get((levelno, logger))
        if tally is not None and type(created) is float and True in tally.ticks:
            tally.until = created
            return True
        return self._refuse(levelno, created, logger)

    def _refuse(self, levelno: int, created: float, logger: str) -> bool:
        if type(levelno) is not int or type(created) is not float or type(logger) is not str:
            # Nothing foreign may be called under the mutex, and a subclass may have a __hash__ of its own.
            levelno, logger = int(levelno), exact(logger)
            created = float(created) if isinstance(created, int | float) else 0.0
        mutex, held = self.mutex, False
        try:
            (held,) = acquire(mutex, MUTEX_TIMEOUT)
            if not held:
                self.contend((levelno, created, (logger,)))
                return True
            cause = self._refusal(levelno, logger)
            if cause is None or self.closed:
                return False
            refusals = self._refusals
            tally = self.ledger.tally(cause, levelno, created, logger) if GIL else None
            if tally is not None:
                refusals[levelno, logger] = tally  # first, as there may be no memory for it
            self._drop(cause, (levelno, created, (logger,)))
            return True
        finally:
            if held:
                mutex.release()

    def contend(self, row: Sequence[Any]) -> None:
        """Count a row as dropped for lack of the mutex, in one step."""
        self.ledger.waiting.append(("contended", row[LEVELNO], row[CREATED], row[SOURCE][0]))
        try:  # noqa: SIM105 - `suppress` takes frames that there may not be
            self.wake()
        except RecursionError:  # it counts already
            pass

    def holds(self, item: Any) -> bool:
        """Tell whether this very row is queued; without the mutex in time, it is not. Looks at the last ones first."""
        mutex, held = self.mutex, False
        try:
            (held,) = map(mutex.acquire, (True,), (MUTEX_TIMEOUT,))  # no call, for which there may be no frames left
            if not held:
                return False
            while True:
                with suppress(RuntimeError):  # see `_head`
                    return any(map(is_, chain(reversed(self.queue), self._ahead), repeat(item)))
        finally:
            if held:
                mutex.release()

    def renew_wakeup(self) -> None:
        """Make the lock that a listener waits on; it is free only from a wake-up until the listener takes it."""
        self.wakeup = threading.Lock()
        self.wakeup.acquire()

    def wake(self) -> None:
        """Wake the listener. Safe from anywhere: a signal handler, a `__del__`, with or without the mutex."""
        if self.wakeup.locked():
            with suppress(RuntimeError):  # another thread was faster: it is awake
                self.wakeup.release()

    # Admission, with the mutex held -----------------------------------------------------------------------------------

    def _count_rows(self) -> None:
        """Count the rows that came the quick way since the last time, which uses up their permits."""
        while True:
            settled = self._settled
            came = self.removed + self.queued
            fresh = came - settled[0]
            if fresh <= 0:
                return
            try:
                size = self.queue[-1][SIZE] if fresh == 1 else sum(map(_size_of, islice(reversed(self.queue), fresh)))
            except (IndexError, RuntimeError):
                continue  # others have put or removed rows meanwhile, see `_head`
            counted = came, settled[1] + size
            if came == self.removed + self.queued and self._settled is settled:
                self._settled = counted

    def _refusal(self, levelno: int, logger: str) -> str | None:
        """Return why records of this level and logger are refused unseen; None if they are not."""
        rows, size = self._room(self._bounds[levelno >= self._reserve_levelno])
        if self._level is not ANY and levelno < self._level:
            return "bytes_full" if rows > 0 else "queue_full"
        if (shares := self._shares) is not None and shares.is_spent(levelno, logger, rows, size):
            return "fair_share"
        return None

    def _lack(self, levelno: int, size: int) -> str | None:
        """Return why there is no room for a row, and narrow `admits`; None if there is room."""
        reserved = levelno >= self._reserve_levelno
        self._revoke()
        rows, left = self._room(self._bounds[reserved])
        if rows >= 1 and left >= size:
            return None
        if not self._has_shares:
            # Smaller rows are not to come in behind this one. With shares, only this row is dropped: a large row of a
            # flood must not keep the small ones of others out.
            self._narrow_to(NONE if reserved else self._reserve_levelno)
        return "bytes_full" if rows >= 1 else "queue_full"

    def _room(self, bounds: tuple[int, int]) -> tuple[int, int]:
        """Return the rows, and the size, that fit within `bounds` beside what is queued and may come by permits."""
        granted, settled, gone = self._granted, self._settled, self._gone
        size = settled[1] - gone[1] + (granted - settled[0]) * _QUICK_SIZE
        return bounds[0] - (granted - gone[0]), bounds[1] - size

    def _holds(self, bounds: tuple[int, int]) -> bool:
        """Tell whether as many rows are queued, or as much of their size."""
        return len(self._ahead) + len(self.queue) >= bounds[0] or self._settled[1] - self._gone[1] >= bounds[1]

    def _narrow_to(self, level: int) -> None:
        """Take only rows at or above `level`, unless that is so already."""
        if self._level is ANY or self._level < level:
            self._level, self._refusals, self.admits = level, {}, level if self._shares is None else NONE

    def _narrow(self) -> None:
        """Narrow `admits` to the room that is left, and begin the pressure from which on each logger has a share."""
        if not self._holds(self._calm):
            return
        self._revoke()
        if self._has_shares and self._shares is None:
            self._shares, self.admits = Shares(self._reserve_levelno, self.queued), NONE
        ordinary, whole = self._bounds
        if self._holds(whole):
            self._narrow_to(NONE)
        elif self._holds(ordinary):
            self._narrow_to(self._reserve_levelno)

    def _review(self) -> None:
        """Decide anew what to admit, from the numbers alone."""
        self._count_rows()
        if not self._holds(self._calm):
            self._shares = None
        self._level, self._refusals = NONE if self.closed else ANY, {}
        self.admits = self._level if self._shares is None else NONE
        self._narrow()
        self._grant()

    @property
    def _lacks_permits(self) -> bool:
        """Whether none is left, or with those that are left a row could make a commit due without the mutex."""
        left = length_hint(self._permits)
        return not left or (not self.commit_due and min(self._room(self._due)) <= 0)

    def _grant(self) -> None:
        """Hand out the next permits, in place of those that are left."""
        left = self._permits
        self._revoke()
        count = 0
        # The first row has to wake the listener, one makes a commit due and one fills the queue: these take the mutex.
        if GIL and self.queued and self.admits is ANY:
            rows, size = self._room(self._calm)
            if not self.commit_due:
                rows, size = map(min, (rows, size), self._room(self._due))
            count = max(0, min(PERMITS, rows - 1, (size - 1) // _QUICK_SIZE))
        permits = repeat(True, count)  # noqa: FBT003 - repeat takes no keyword
        if self._permits is left:
            self._permits, self._granted = permits, self._granted + count

    def _revoke(self) -> None:
        """Take back the permits that no caller has taken yet; the others stay good."""
        # Unpacked, because no signal handler comes between that and the store.
        (left,) = map(sum, (self._permits,))
        self._granted -= left

    def _drop(self, cause: str, row: Sequence[Any]) -> None:
        self.ledger.drop([(cause, row[LEVELNO], row[CREATED], row[SOURCE][0])], self.end)
        if not self.queued:
            self.wake()  # the next tick reports it, and decides anew

    # The side of the listener -----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether there is something to commit or to report, or a row may come that wakes nobody."""
        return bool(self.queued or self.ledger.gaps or self.ledger.unreported or self._granted > self._settled[0])

    @property
    def commit_due(self) -> bool:
        """Whether a commit is due before the oldest row has reached its age."""
        queued, size = self._due  # as `_holds` compares them, without the call
        return self.urgent or len(self._ahead) + len(self.queue) >= queued or self._settled[1] - self._gone[1] >= size

    def open(self) -> None:
        """Admit rows: a thread will commit them."""
        with self.mutex:
            self.closed = False
            self._review()

    def close(self) -> None:
        """Admit nothing, so that the next record starts a listener; hardly anything without the mutex in time."""
        self.closed, self.admits = True, NONE
        with self.mutex:
            self.closed = True  # another thread may have opened it meanwhile
            self._review()

    def begin_commit(self, max_size: int) -> Commit:
        """Copy a batch from the head: `batch_size` rows at most, and `max_size` SIZE_UNITs, but one row at least."""
        with self.mutex:
            urgent, self.urgent = self.urgent, False
            rows = self._head(self._batch_size)
            self._rows_in_commit, queued = len(rows), self.queued
        # Not a list of the sums: to make one of an iterator without memory crashes CPython 3.12 and 3.13.
        for count, total in enumerate(accumulate(map(_size_of, rows))):
            if total > max_size and count:
                del rows[count:]
                break
        with self.mutex:
            self.urgent |= urgent and len(rows) < queued
            self._rows_in_commit = len(rows)
            gaps = self.ledger.begin_commit(self.removed + len(rows))
            return Commit(rows, gaps, self.removed)

    def end_commit(self, commit: Commit, unwritable: Collection[int] = ()) -> None:
        """Let the rows of a commit go, the `unwritable` as dropped. After an exception, the next call goes on."""
        while self._rows_in_commit:
            with self.mutex:
                gone, left = self._gone, self._rows_in_commit
                start = len(commit.rows) - left
                rows = commit.rows[start : start + _REMOVED_AT_ONCE]
                # Not a comprehension with an `if`, see `_logfile.locks`.
                bad = list(compress(rows, map(unwritable.__contains__, range(start, len(commit.rows)))))
                self._remove(gone, [], rows, dropped=bad, cause="unwritable")
        with self.mutex:
            self._review()
            self.ledger.end_commit()

    def abort_commit(self) -> None:
        """End a transaction that failed: its rows and gaps are still here, in order."""
        with self.mutex:
            self._rows_in_commit = self.ledger.gaps_in_commit = 0

    def give_up(self, end: int, cause: str) -> int:
        """Drop the rows before position `end`, but none that a commit holds: it may yet succeed. Return how many."""
        dropped = 0
        while True:
            with self.mutex:
                gone, held = self._gone, self._rows_in_commit
                count = min(_REMOVED_AT_ONCE, end - self.removed - held, self.queued - held)
                if count <= 0:
                    return dropped
                rows = self._head(held + count)
                kept, rows = rows[:held], rows[held:]
                if self._remove(gone, kept, rows, dropped=rows, cause=cause):
                    dropped += len(rows)

    def _head(self, count: int) -> list[Any]:
        """Copy the first rows, all of them counted; the mutex is held."""
        while True:
            self._count_rows()
            # A collection or a signal handler may append a row meanwhile, and then the iterator raises.
            with suppress(RuntimeError):
                return list(islice(chain(self._ahead, self.queue), min(count, self._settled[0] - self.removed)))

    def _remove(
        self,
        gone: tuple[int, int],
        kept: list[Any],
        rows: Sequence[Any],
        *,
        dropped: Sequence[Any],
        cause: str,
    ) -> bool:
        """
        Take off the rows behind those at the head that are `kept`; the mutex is held.

        A commit under way holds those that are `kept`, or the rows themselves. Of these, the `dropped` ones are not in
        the file. Return False, with nothing done, if a nested call has taken rows off since `_gone` was `gone`.
        """
        self._count_rows()
        self.peak_queued = max(self.peak_queued, self.queued)
        held = len(kept)
        in_commit = max(held, self._rows_in_commit - len(rows))
        passed, ahead = held + len(rows), self._ahead
        after = (gone[0] + len(rows), gone[1] + sum(map(_size_of, rows)))
        written = self.written + len(rows) - len(dropped)
        entries = [(cause, row[LEVELNO], row[CREATED], row[SOURCE][0]) for row in dropped]
        leave = starmap(self.queue.popleft, repeat((), max(0, passed - len(ahead))))
        ahead = [*kept, *ahead[passed:]]
        # First into the ledger, for which there may be no memory, and then off the deque.
        steps = chain(map(self.ledger.waiting.extend, (entries,)), map(deque(maxlen=0).extend, (leave,)))
        change = steps, after, ahead, written, in_commit
        if self._gone is not gone:
            return False
        # All in one step, without a call until all is done: a signal handler would see wrong numbers, and what it
        # raises, or a MemoryError, would leave them wrong.
        (_, _), self._gone, self._ahead, self.written, self._rows_in_commit = change
        self.ledger.drop((), after[0])
        if (shares := self._shares) is not None:
            shares.remove(rows, held)
        if self.admits is not ANY:
            self._review()
        return True

    # Reports ----------------------------------------------------------------------------------------------------------

    def take_drops(self) -> PendingGap | None:
        """Return the drops since the last report; the same ones again until `add_gap` has them."""
        with self.mutex:
            self._review()
            return self.ledger.take_drops(self.end)

    def add_gap(self, gap: PendingGap, most_in_place: int = MAX_GAPS) -> PendingGap | None:
        """Have a reported gap written and sent, see `Ledger.add_gap`."""
        with self.mutex:
            return self.ledger.add_gap(gap, self.removed, most_in_place)

    @property
    def gaps(self) -> list[PendingGap]:
        """Gaps that wait for the database."""
        with self.mutex:
            return list(self.ledger.gaps)

    @property
    def dropped_total(self) -> int:
        """Records dropped since the queue was made, also those that are in no report yet."""
        return self.ledger.dropped_total

    def books(self) -> dict[str, Any]:
        """Return one consistent snapshot. `oldest_created` is when the record at the head was made, or None."""
        while True:
            with self.mutex:
                gone = self._gone
                drops = self.ledger.drops(self.end)
                dropped = sum(drops.values())
                queued, written, waiting = self.queued, self.written, self._ahead or self.queue
                books = {
                    "seen": written + dropped + queued,
                    "written": written,
                    "dropped_total": dropped,
                    "drops": drops,
                    "queued": queued,
                    "queued_bytes": self.queued_size * SIZE_UNIT,
                    "peak_queued": max(self.peak_queued, queued),
                    "truncated": self.truncated,
                    "malformed": self.malformed,
                    "oldest_created": waiting[0][CREATED] if waiting else None,
                }
                if self._gone is gone:  # or a nested call has taken rows off meanwhile
                    return books

    # Not for this queue -----------------------------------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - as in Queue
        """Do as `put_nowait`: a caller never waits for room."""
        self.put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as in Queue
        """Raise: a row leaves after its commit, by `end_commit`."""
        message = "rows are not taken from a RecordQueue one by one: use begin_commit() and end_commit()"
        raise NotImplementedError(message)

    def task_done(self) -> None:
        """Do nothing: a row is done when its commit is."""
