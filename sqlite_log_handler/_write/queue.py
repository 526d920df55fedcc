"""
The bounded queue between the threads that log and the one that commits, and its books.

Theory of operation
===================

A row is a tuple that begins with (levelno, created, source, size, marks), where source begins with the logger's name.
The queue knows these five and no other.

Rows go in at the tail (`put_nowait`), are copied from the head for a commit (`begin_commit`), and leave when the commit
has succeeded (`end_commit`). Until then they count against both bounds, so nothing is in flight and unaccounted.

`admits` is the lowest level that the queue takes at this moment: ANY, `reserve_level` when only the reserve is left,
NONE when it is full or closed. It is kept up to date by whoever changes the length, so a caller reads one attribute,
without the mutex, to know that it need not format its message. The decision itself is made under the mutex.

Nearly all rows change nothing but numbers: they are not the first one, fill no batch, and have room. They go the quick
way, without the mutex: as long as `queued` is below `_quick_until`, a row of up to _QUICK_SIZE has room whatever the
others do. In the same way a refusal of a level and a logger that were refused before only counts up an entry of the
ledger, which `_refusals` knows. Whoever changes more than numbers shuts both ways first, under the mutex.

On CPython with a GIL, threads are switched, signal handlers and collections are run at calls and jumps back only. So
what has neither is done in one piece, as if under a lock, and RLock or not, all code here has to allow for what such a
nested call does. Without a GIL both ways stay shut, and everything is done under the mutex.

Guarantees
==========

- At every instant `seen == written + dropped + queued`. `seen` is not counted, it is that sum; what is counted on its
  own is what a ledger entry says about a drop, and the tests add those up against it.
- `queued <= capacity`, and the sizes of the queued rows add up to `capacity_bytes` at most.
- The mutex is held for microseconds: no I/O, no call of foreign code, no logging under it. It is the innermost lock.
- The mutex is an RLock. With the Lock of `queue.Queue`, a signal handler or a `__del__` that logs while its own
  thread is in `put` waits for ever. Such a nested call finds nothing half done: between the check of a bound and the
  append there is no call.
- Nobody who logs waits for the mutex for longer than MUTEX_TIMEOUT: a collection can log from anywhere, so the locks of
  two handlers can be taken in opposite orders. What gives up is counted (`contended`), in a deque of its own whose
  append is atomic, and comes into the books with the next drop report.
- The listener is woken by releasing a raw lock. `Event.set` and `Condition.notify` take locks that are not reentrant.
"""

import queue
import sys
import threading
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._write.locks import acquire

LEVELNO: Final = 0
CREATED: Final = 1
SOURCE: Final = 2
SIZE: Final = 3
MARKS: Final = 4
SIZE_UNIT = 64
TRUNCATED = 1
MALFORMED = 2

# For `admits`: every level, and one above all that a levelno can be.
ANY: Final = None
NONE: Final = 1 << 63

# Long enough for any stall of the scheduler, short enough to end a deadlock before somebody kills the process.
MUTEX_TIMEOUT = 1.0

# Programs can make up logger names without end: the books tell so many apart, and count the rest as OTHER_LOGGERS.
MAX_KEYS = 1_000
_NAME_LENGTH = 200

# A GIL that is off may be turned on by an import; one that is on stays on.
_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()

# Of a row that may go the quick way, in SIZE_UNITs: 4 KiB. Room is kept for so much, so more would end that way sooner.
_QUICK_SIZE = 64

# Gaps that wait for the database; later ones are added to the last. 1,000 ticks are 100 seconds of outage.
MAX_GAPS = 1_000

# Rows removed per turn of the mutex: a caller that waits for it waits some 20 microseconds.
_REMOVED_AT_ONCE = 256

# (cause, levelno, logger)
Key: TypeAlias = tuple[str, int, str]
# [count, since, until], the times in seconds as in LogRecord.created
Entry: TypeAlias = list[Any]
COUNT, SINCE, UNTIL = range(3)


class Closed(Exception):  # noqa: N818 - a state, as queue.Full is
    """
    There is no listener: start one, and put the row again.
    """


@dataclass(slots=True)
class Gap:
    """
    Drops that were reported together. It stands after the row at `position`, counted from the first one ever
    queued.
    """

    position: int
    drops: dict[Key, Entry]
    dropped_total: int
    warning: Any = None  # the LogRecord that reports it

    @property
    def count(self) -> int:
        """
        Number of records dropped here.
        """
        return sum(entry[COUNT] for entry in self.drops.values())

    def add(self, later: "Gap") -> None:
        """
        Take in a later gap; of the warnings the latest stays, with the sum.
        """
        for key, (count, since, until) in later.drops.items():
            entry = self.drops.setdefault(_bounded(self.drops, key), [0, since, until])
            entry[COUNT] += count
            entry[UNTIL] = until
        self.dropped_total = later.dropped_total
        self.warning = later.warning


@dataclass(frozen=True, slots=True)
class Commit:
    """
    What one transaction is to write: rows copied from the head of the queue, and the gaps among them.
    """

    rows: Sequence[Any]
    gaps: Sequence[Gap] = ()
    first: int = 0  # position of the first row


class RecordQueue(queue.Queue[Any]):
    """
    A `queue.Queue` that is bounded in rows and in bytes, drops what does not fit, and keeps the books.

    It differs from `queue.Queue` in what the two ends do: `put_nowait` never raises `queue.Full`, rows are not taken
    with `get` but with `begin_commit` and `end_commit`, and nobody waits on a condition.

    Args:
        capacity: Rows at most.
        capacity_bytes: Bytes at most, by the size of the rows in memory.
        reserve: Share of both that is kept for `reserve_levelno` and above.
        reserve_levelno: See `reserve`.
        batch_size: The listener is woken when so many rows wait,
        flush_levelno: or one at or above this level.
    """

    def __init__(
        self,
        capacity: int,
        capacity_bytes: int,
        *,
        reserve: float = 0.0,
        reserve_levelno: int = 30,
        batch_size: int = 10_000,
        flush_levelno: int = 40,
    ) -> None:
        super().__init__(capacity)
        self.capacity = capacity
        self.capacity_size = capacity_bytes // SIZE_UNIT
        self._open_capacity = capacity - int(capacity * reserve)
        self._open_size = self.capacity_size - int(self.capacity_size * reserve)
        self._reserve_levelno = reserve_levelno
        self._batch_size = min(batch_size, sys.maxsize)  # islice takes no more
        self._flush_levelno = flush_levelno
        self.reset()

    def reset(self) -> None:
        """
        Become as new: empty, closed, books at zero, locks that nobody holds. For `__init__`, and for a forked
        child.
        """
        self.mutex = threading.RLock()  # type: ignore[assignment]  # see Guarantees
        self.not_empty = self.not_full = self.all_tasks_done = threading.Condition(self.mutex)
        self.renew_wakeup()
        self.queue = deque()
        self.closed = True
        self.admits: int | None = NONE
        self._room = self._room_size = 0
        self._full = "queue_full"  # why `admits` is where it is
        self.queued = 0  # rows: len(self.queue), but a call shorter
        self.queued_size = 0  # in SIZE_UNITs
        self.peak_queued = 0
        self.removed = 0  # rows that left the queue, written or dropped: the position of the head
        self.written = 0
        self.dropped = 0
        self.truncated = 0
        self.malformed = 0
        self.urgent = False  # a row at flush_level or above waits
        self._rows_in_commit = 0
        self._gaps_in_commit = 0
        self.contended: deque[tuple[int, float, str]] = deque()
        self._drops: dict[Key, Entry] = {}  # not yet reported
        self._drops_position = 0
        self._quick_until = 0
        self._refusals: dict[tuple[int, str], Entry] = {}  # of `_drops`, by level and logger
        self._reported: dict[Key, int] = {}
        self.gaps: list[Gap] = []  # reported, not yet in the database

    # The side of those who log ----------------------------------------------------------------------------------------

    def put_nowait(self, item: Any) -> None:
        """
        Queue a row, or count it as dropped. Never blocks beyond MUTEX_TIMEOUT, never raises `queue.Full`.

        Raises:
            Closed: There is no listener; nothing is counted.
        """
        if (
            self.queued < self._quick_until
            and item[SIZE] <= _QUICK_SIZE
            and item[LEVELNO] < self._flush_levelno
            and not item[MARKS]
        ):
            # The quick way: no call before the append.
            self.queued += 1
            self.queued_size += item[SIZE]
            self.queue.append(item)
        else:
            self._put(item)

    def _put(self, item: Any) -> None:  # noqa: C901, PLR0912 - one piece, because a call lets others in
        mutex, held = self.mutex, False
        try:
            (held,) = acquire(mutex, MUTEX_TIMEOUT)
            if not held:
                self._contend(item[LEVELNO], item[CREATED], item[SOURCE][0])
                return
            levelno = item[LEVELNO]
            size = item[SIZE]
            if self.admits is not ANY and levelno < self.admits:
                if self.closed:
                    raise Closed
                self._drop(self._full, levelno, item[CREATED], item[SOURCE][0])
                return
            while self.queued_size + size > self._room_size:
                if not self._use_reserve(levelno):
                    self._drop("bytes_full", levelno, item[CREATED], item[SOURCE][0])
                    return
            # From here to the append there is no call, so nothing comes in between: see Guarantees.
            self._quick_until = 0
            self.queued_size += size
            self.queued = queued = self.queued + 1
            full = queued >= self._room
            if full:
                self._full = "queue_full"
                if queued >= self.capacity:
                    self.admits = NONE
                elif self.admits is ANY:
                    self.admits = self._reserve_levelno
                    self._room = self.capacity
                    self._room_size = self.capacity_size
            self.queue.append(item)
            if full:
                self._refusals = {}  # from now on they have another cause
            self._open_quick_way()
            if item[MARKS]:
                self.truncated += item[MARKS] & TRUNCATED
                self.malformed += item[MARKS] // MALFORMED
            if levelno >= self._flush_levelno:
                self.urgent = True
            elif queued not in {1, self._batch_size}:
                return
        finally:
            if held:
                mutex.release()
        self.wake()

    def refuse(self, levelno: int, created: float, logger: str) -> bool:
        """
        Count a record as dropped that has no row yet, because `admits` said that there is no room.

        Returns:
            False, with nothing counted, if there is room by now, or if the queue is closed.
        """
        refusals = self._refusals
        entry = refusals.get((levelno, logger))
        if entry is not None and type(created) is float and refusals is self._refusals:
            # The quick way: no call from the last question on.
            entry[COUNT] += 1
            entry[UNTIL] = created
            self.dropped += 1
            return True
        return self._refuse(levelno, created, logger)

    def _refuse(self, levelno: int, created: float, logger: str) -> bool:
        if type(levelno) is not int or type(created) is not float or type(logger) is not str:
            # Nothing foreign may be called under the mutex, and a subclass may have a __hash__ of its own.
            levelno, logger = int(levelno), str(logger)
            created = float(created) if isinstance(created, int | float) else 0.0
        mutex, held = self.mutex, False
        try:
            (held,) = acquire(mutex, MUTEX_TIMEOUT)
            if not held:
                self._contend(levelno, created, logger)
                return True
            if self.admits is ANY or levelno >= self.admits or self.closed:
                return False
            refusals = self._refusals
            entry = self._drop(self._full, levelno, created, logger)
            if _GIL and len(refusals) < MAX_KEYS and len(logger) <= _NAME_LENGTH:
                refusals[levelno, logger] = entry
            return True
        finally:
            if held:
                mutex.release()

    def holds(self, item: Any) -> bool:
        """
        Tell whether this very row is queued.
        """
        with self.mutex:
            return any(row is item for row in self._head(self.queued))

    def renew_wakeup(self) -> None:
        """
        Make the lock that a listener waits on; it is held except from a wake-up until the listener takes it.
        """
        self.wakeup = threading.Lock()
        self.wakeup.acquire()

    def wake(self) -> None:
        """
        Wake the listener. Safe from anywhere: a signal handler, a `__del__`, with or without the mutex.
        """
        if self.wakeup.locked():
            with suppress(RuntimeError):  # somebody else was faster: it is awake
                self.wakeup.release()

    def _contend(self, levelno: int, created: float, logger: str) -> None:
        self.contended.append((levelno, created, logger))
        self.wake()

    def _use_reserve(self, levelno: int) -> bool:
        """
        Narrow `admits` because a row did not fit; True if there is more room for `levelno` than it was offered.
        """
        # The next tick settles what is admitted, even if nothing is queued now.
        self.wake()
        self._full = "bytes_full"
        self._quick_until = 0
        self._refusals = {}
        if self.admits is ANY:
            self.admits = self._reserve_levelno
            self._room = self.capacity
            self._room_size = self.capacity_size
            return levelno >= self._reserve_levelno
        self.admits = NONE
        return False

    def _drop(self, cause: str, levelno: int, created: float, logger: str) -> Entry:
        drops = self._drops
        if not drops:
            self._drops_position = self.removed + self.queued
        entry = drops.get((cause, levelno, logger))
        if entry is None:
            entry = _entry(drops, (cause, levelno, logger), created)
        entry[COUNT] += 1
        entry[UNTIL] = created
        self.dropped += 1
        return entry

    # The side of the listener -----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """
        Whether there is anything to commit or to report.
        """
        return bool(self.queued or self.gaps or self.unreported)

    @property
    def oldest_created(self) -> float | None:
        """
        When the record at the head was made, in seconds since 1970; None when nothing waits.
        """
        with self.mutex:
            head = self._head(1)
        return head[0][CREATED] if head else None

    @property
    def unreported(self) -> bool:
        """
        Whether there were drops since `take_drops`.
        """
        return bool(self._drops or self.contended)

    @property
    def full_batch(self) -> bool:
        """
        Whether a commit is due before the oldest row has reached its age.
        """
        return self.urgent or self.queued >= self._batch_size

    @property
    def nearly_empty(self) -> bool:
        """
        Whether there is time for other things than commits.
        """
        return self.queued <= self.capacity // 10

    def open(self) -> None:
        """
        Admit rows: there is somebody to commit them.
        """
        with self.mutex:
            self.closed = False
            self._settle()

    def close(self) -> None:
        """
        Admit nothing, so that whoever logs next comes and asks for a listener.
        """
        with self.mutex:
            self.closed = True
            self._settle()

    def settle(self) -> None:
        """
        Look anew at what is admitted: a row that found no room may have narrowed it.
        """
        with self.mutex:
            self._settle()

    def _settle(self) -> None:
        self._full = "queue_full" if self.queued >= self._open_capacity else "bytes_full"
        if self.closed or self.queued >= self.capacity or self.queued_size >= self.capacity_size:
            self.admits = NONE
        elif self.queued >= self._open_capacity or self.queued_size >= self._open_size:
            self.admits = self._reserve_levelno
            self._room = self.capacity
            self._room_size = self.capacity_size
        else:
            self.admits = ANY
            self._room = self._open_capacity
            self._room_size = self._open_size
        self._refusals = {}
        self._open_quick_way()

    def _open_quick_way(self) -> None:
        """
        Settle up to which length the next rows change nothing but the numbers; the mutex is held.
        """
        # No call in here: what logs in between would be left out.
        queued = self.queued
        self._quick_until = 0
        if _GIL and queued and self.admits is ANY:
            until = queued + (self._room_size - self.queued_size) // _QUICK_SIZE
            if until >= self._room:
                until = self._room - 1
            if queued < self._batch_size <= until:
                until = self._batch_size - 1
            self._quick_until = until

    def begin_commit(self, max_size: int) -> Commit:
        """
        Copy a batch from the head: `batch_size` rows at most, and `max_size` SIZE_UNITs, but one row at least.
        """
        with self.mutex:
            self.urgent = False
            rows = self._head(self._batch_size)
            self._rows_in_commit = len(rows)
        total = 0
        for count, row in enumerate(rows):
            total += row[SIZE]
            if total > max_size and count:
                del rows[count:]
                break
        with self.mutex:
            end = self.removed + len(rows)
            whole = len(rows) == self.queued
            self._rows_in_commit = len(rows)
            self._gaps_in_commit = sum(1 for gap in self.gaps if whole or gap.position <= end)
            return Commit(rows, self.gaps[: self._gaps_in_commit], self.removed)

    def end_commit(self, commit: Commit, unwritable: Collection[int] = ()) -> None:
        """
        The transaction stands: let its rows go. `unwritable` has the indexes of those that SQLite would not take.

        When a signal handler raises into it, the next call goes on where it was.
        """
        while self._rows_in_commit:
            start = len(commit.rows) - self._rows_in_commit
            rows = commit.rows[start : start + _REMOVED_AT_ONCE]
            bad = [row for index, row in enumerate(rows, start) if index in unwritable]
            with self.mutex:
                self._remove(rows, committed=len(rows), written=len(rows) - len(bad))
                for row in bad:
                    self._drop("unwritable", row[LEVELNO], row[CREATED], row[SOURCE][0])
        with self.mutex:
            self._pop()
            self._settle()
            del self.gaps[: self._gaps_in_commit]
            self._gaps_in_commit = 0

    def abort_commit(self) -> None:
        """
        The transaction failed: its rows and gaps are still here, in order, and nothing has changed.
        """
        with self.mutex:
            self._rows_in_commit = self._gaps_in_commit = 0

    def give_up(self, end: int, cause: str) -> int:
        """
        Drop the rows before position `end`, but none that a commit is holding: it may yet succeed, in another thread.

        Returns:
            The number of rows dropped.
        """
        dropped = 0
        while True:
            with self.mutex:
                count = min(
                    _REMOVED_AT_ONCE, end - self.removed - self._rows_in_commit, self.queued - self._rows_in_commit
                )
                if count <= 0:
                    return dropped
                held = [self.queue.popleft() for _ in range(self._rows_in_commit)]
                rows = self._head(count)
                self._remove(rows, held=len(held))
                self.queue.extendleft(reversed(held))
                for row in rows:
                    self._drop(cause, row[LEVELNO], row[CREATED], row[SOURCE][0])
            dropped += count

    def _head(self, count: int) -> list[Any]:
        """
        Copy the first rows; the mutex is held.
        """
        self._pop()
        while True:
            # A collection or a signal handler may log in between: to the tail, but the iterator takes offence.
            with suppress(RuntimeError):
                return list(islice(self.queue, count))

    def _remove(self, rows: Sequence[Any], *, committed: int = 0, written: int = 0, held: int = 0) -> None:
        """
        Take `rows`, which are the head, off the queue; those not written are for the caller to drop.

        Args:
            rows: See above.
            committed: So many of them are of the commit that has ended.
            written: So many of them are in the file.
            held: So many rows the caller has taken off the head, to put them back.
        """
        count = len(rows)
        size = sum(row[SIZE] for row in rows)
        # No call in between: what logs there would find, and leave, wrong numbers, and so would what raises there.
        if self.queued > self.peak_queued:  # noqa: PLR1730 - max() is a call
            self.peak_queued = self.queued
        self._quick_until = 0  # the first row into an empty queue has to wake the listener
        self.queued -= count
        self.queued_size -= size
        self.removed += count
        self.written += written
        self._rows_in_commit -= committed
        self._pop(held)
        self._settle()

    def _pop(self, held: int = 0) -> None:
        """
        Let go of the rows that are not counted any more.
        """
        # In this order: others that come the quick way change both, but not between a look at one and a call.
        surplus = -self.queued + held + len(self.queue)
        for _ in range(surplus):
            self.queue.popleft()

    # Reports ----------------------------------------------------------------------------------------------------------

    def take_drops(self) -> Gap | None:
        """
        Hand over the drops since the last call, to be reported and then given to `add_gap`.
        """
        with self.mutex:
            self._count_contended()
            self._settle()
            if not self._drops:
                return None
            fresh: dict[Key, Entry] = {}
            self._refusals = {}
            # No call and no new object until they are exchanged, so that the total is that of these drops.
            drops, total = self._drops, self.dropped
            self._drops = fresh
            gap = Gap(self._drops_position, drops, total)
            for (cause, levelno, logger), (count, *_) in gap.drops.items():
                key = _bounded(self._reported, (cause, levelno, logger))
                self._reported[key] = self._reported.get(key, 0) + count
            return gap

    def add_gap(self, gap: Gap) -> None:
        """
        Have a reported gap written with the next commit.
        """
        with self.mutex:
            waiting = self.gaps[self._gaps_in_commit :]
            if len(waiting) >= MAX_GAPS or sum(len(known.drops) for known in waiting) > MAX_KEYS:
                waiting[-1].add(gap)
            else:
                self.gaps.append(gap)

    @property
    def last_gap(self) -> Gap | None:
        """
        The latest of the gaps that wait for the database.
        """
        with self.mutex:
            return self.gaps[-1] if self.gaps else None

    def holds_gap(self, gap: Gap | None) -> bool:
        """
        Tell whether this very gap waits for the database.
        """
        with self.mutex:
            return any(waiting is gap for waiting in self.gaps)

    def _count_contended(self) -> None:
        while self.contended:
            levelno, created, logger = self.contended.popleft()
            self._drop("contended", levelno, created, logger)

    @property
    def dropped_total(self) -> int:
        """
        Records dropped since the queue is there, those included that no report has counted yet.
        """
        return self.dropped + len(self.contended)

    def books(self) -> dict[str, Any]:
        """
        Return one consistent snapshot.
        """
        with self.mutex:
            self._count_contended()
            self._refusals = {}  # what is refused meanwhile waits for the mutex
            drops = dict(self._reported)
            for key, (count, *_) in list(self._drops.items()):
                drops[key] = drops.get(key, 0) + count
            books = {
                "dropped_total": sum(drops.values()),  # not `dropped`: a signal handler may have logged since
                "written": self.written,
                "queued": self.queued,
                "queued_bytes": self.queued_size * SIZE_UNIT,
                "peak_queued": max(self.peak_queued, self.queued),
                "truncated": self.truncated,
                "malformed": self.malformed,
            }
        books["seen"] = books["written"] + books["dropped_total"] + books["queued"]
        return {**books, "drops": drops}

    # Not for this queue -----------------------------------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - as in Queue
        """
        Do as `put_nowait`: a caller never waits for room.
        """
        self.put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as in Queue
        """
        Raise: a row leaves after its commit, by `end_commit`.
        """
        message = "rows are not taken from a RecordQueue one by one: use begin_commit() and end_commit()"
        raise NotImplementedError(message)

    def task_done(self) -> None:
        """
        Do nothing: a row is done when its commit is.
        """

    def _qsize(self) -> int:
        return self.queued


def _entry(drops: dict[Key, Entry], key: Key, created: float) -> Entry:
    # setdefault: a signal handler that logs may have been here since the caller looked.
    cause, levelno, logger = key
    name = logger[:_NAME_LENGTH] if type(logger) is str else OTHER_LOGGERS
    return drops.setdefault(_bounded(drops, (cause, levelno, name)), [0, created, created])


def _bounded(books: dict[Key, Any], key: Key) -> Key:
    """
    Return the key to count under: when there are too many, one without the name, and by the level's class.
    """
    if key in books or len(books) < MAX_KEYS:
        return key
    cause, levelno, _ = key
    return (cause, min(max(levelno // 10, 0), 5) * 10, OTHER_LOGGERS)
