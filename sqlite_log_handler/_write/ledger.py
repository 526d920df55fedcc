"""
The ledger of a queue: which records it dropped, when and why, and which drops are not in the database yet.

Theory of operation
===================

An entry counts the drops of one cause, level and logger. `take_drops` makes a `PendingGap` of the entries since the
last report. It stays here until a commit has written it, also when the report ends in an error. The queue's mutex
covers everything but two steps, which any thread takes without it. Each is one operation in C, so no tracer and no
other thread comes in between:

- `waiting.append`: a caller could not get the mutex, and drops its record.
- `True in tally.ticks`: a record is refused for the same reason as earlier ones of its level and logger. A tally stays
  for ever, so a late tick counts late, and is not lost.

A signal handler may raise at any call, and any call may fail for lack of memory. So each drop first joins `waiting`,
where it counts already. Then one line, which runs no code but C (see `_logfile.locks`), moves it into its entry.
There is no generator here, because CPython 3.12 and 3.13 crash when there is no memory for one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import repeat, starmap
from operator import attrgetter, length_hint

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._logfile.typed import Any
from sqlite_log_handler._write.row import integer, microseconds

MAX_KEYS = 1_000  # a program can make up logger names without end, so the rest count under OTHER_LOGGERS
LOGGER_LENGTH = 200  # letters of a name

# Gaps that wait for the database; later ones are added to the last. 1,000 ticks are 100 seconds of outage.
MAX_GAPS = 1_000

Key = tuple[str, int, str]  # cause, levelno, logger
Drop = tuple[str, int, float, str]  # cause, levelno, created, logger
Entry = list[Any]  # count, since, until; the times in seconds as in LogRecord.created
COUNT, SINCE, UNTIL = range(3)
_NONE: dict[Key, Entry] = {}


class PendingGap:
    """The drops of one report. They happened after the first `position` rows that the queue ever had."""

    __slots__ = ("dropped_total", "drops", "position", "warning")

    def __init__(self, position: int, drops: dict[Key, Entry], dropped_total: int, warning: Any = None) -> None:
        self.position = position
        self.drops = drops
        self.dropped_total = dropped_total
        self.warning = warning  # the LogRecord that reports it

    @property
    def count(self) -> int:
        """How many records were dropped here."""
        return sum([entry[COUNT] for entry in self.drops.values()])

    def sum(self, later: PendingGap) -> dict[Key, Entry]:
        """Return the drops of both."""
        drops = {key: [*entry] for key, entry in self.drops.items()}
        for key, (count, since, until) in later.drops.items():
            entry = drops.setdefault(bounded(drops, key), [0, since, until])
            entry[:] = entry[COUNT] + count, min(entry[SINCE], since), max(entry[UNTIL], until)
        return drops


class Tally:
    """Counts refusals without the mutex: `True in tally.ticks` is one step and counts one."""

    __slots__ = ("counted", "key", "ticks", "until")

    def __init__(self, key: Key, created: float) -> None:
        self.key = key
        self.ticks = repeat(True, sys.maxsize)  # noqa: FBT003 - repeat takes no keyword
        self.counted = 0  # ticks that an entry has
        self.until = created

    @property
    def total(self) -> int:
        """How many refusals there were."""
        return sys.maxsize - length_hint(self.ticks)


class Ledger:
    """The drops of one queue. All but `waiting.append` and the tallies' ticks is used under the queue's mutex."""

    def __init__(self) -> None:
        self.gaps: list[PendingGap] = []  # reported, not yet in the database
        self.gaps_in_commit = 0
        self.unsent: PendingGap | None = None  # the sum of those whose warning the other handlers do not have
        self._entered = 0  # drops that have come from `waiting` into an entry
        # Not a deque, whose `extend` may end halfway for lack of memory. Nor a list that never had an item: to extend
        # that without memory crashes CPython 3.12.
        self.waiting: list[Drop] = [("", 0, 0.0, "")]
        self.waiting.pop()
        self._drops: dict[Key, Entry] = {}  # not yet reported
        self._position = 0
        self._taken: PendingGap | None = None  # is being reported; its total is 0 until `_reported` has its drops
        self._reported: dict[Key, int] = {}  # drops of all gaps, with the one that is being reported
        self._reported_total = 0  # drops of all gaps, without that one
        self._tallies: dict[Key, Tally] = {}

    @property
    def dropped_total(self) -> int:
        """Records dropped since the queue was made. Needs no mutex."""
        ticks = sum([tally.total for tally in list(self._tallies.values())])
        return self._entered + ticks + len(self.waiting)

    @property
    def unreported(self) -> bool:
        """Whether there were drops since `take_drops`."""
        return self.dropped_total != self._reported_total

    def drop(self, drops: Iterable[Drop], position: int) -> None:
        """Count records that were dropped after the first `position` rows."""
        self.waiting += drops
        try:  # noqa: SIM105 - `suppress` takes frames that there may not be
            self._enter(position)
        except (MemoryError, RecursionError):  # they count already, and come into their entries later
            pass

    def _enter(self, position: int) -> None:
        while True:
            # Not a slice: CPython 3.11 crashes if a collection in the middle of it makes the list shorter.
            entered, drops, first = self._entered, self._drops, next(iter(self.waiting), None)
            if first is None:
                return
            cause, levelno, created, logger = first
            entry = self._entry(drops, (cause, levelno, logger), created, position)
            popping = starmap(self.waiting.pop, ((0,),))  # as soon as it is unpacked
            change = popping, entry[COUNT] + 1, entered + 1
            # A nested call may have entered this drop, or handed the entry over. From here on there is no call.
            if self._entered == entered and self._drops is drops:
                (_,), entry[COUNT], self._entered = change

    def _entry(self, drops: dict[Key, Entry], key: Key, created: float, position: int) -> Entry:
        if not drops:
            self._position = position
        cause, levelno, logger = key
        key = (cause, integer(levelno), logger[:LOGGER_LENGTH])
        created = microseconds(created) / 1e6
        entry = drops.setdefault(bounded(drops, key), [0, created, created])
        # Records come in any order of time: clocks go back, and a MemoryHandler hands them on late. There is no call
        # between a look and its store, because a nested drop may be later.
        if created < entry[SINCE]:  # noqa: PLR1730
            entry[SINCE] = created
        if created > entry[UNTIL]:  # noqa: PLR1730
            entry[UNTIL] = created
        return entry

    def tally(self, cause: str, levelno: int, created: float, logger: str) -> Tally | None:
        """Return the tally that counts the next refusals of this kind; None when there are too many kinds."""
        key = (cause, levelno, logger)
        tally = self._tallies.get(key)
        if tally is None and len(self._tallies) < MAX_KEYS and len(logger) <= LOGGER_LENGTH:
            tally = self._tallies.setdefault(key, Tally(key, created))  # a nested call may have made one
        return tally

    def _collect(self, position: int) -> None:
        """Move into the entries what was counted without the mutex."""
        self._enter(position)
        for tally in list(self._tallies.values()):
            drops, total = self._drops, tally.total
            if total != tally.counted:
                entry = self._entry(drops, tally.key, tally.until, position)
                if self._drops is drops:
                    # A difference, which stays true if a nested call has counted more meanwhile.
                    entry[COUNT], tally.counted = entry[COUNT] + total - tally.counted, total

    def take_drops(self, position: int) -> PendingGap | None:
        """Return the drops since the last report; the same ones again until `add_gap` has them."""
        self._collect(position)
        if self._taken is None and self._drops:
            later: dict[Key, Entry] = {}
            gap = PendingGap(self._position, self._drops, 0)
            # A nested call may have been faster. From here on there is no call.
            if self._taken is None and self._drops is gap.drops:
                self._taken, self._drops = gap, later
        taken = self._taken
        if taken is not None and not taken.dropped_total:
            reported = dict(self._reported)
            for key, (count, *_) in taken.drops.items():
                kept = bounded(reported, key)
                reported[kept] = reported.get(kept, 0) + count
            total = sum(reported.values())
            if not taken.dropped_total:
                self._reported, taken.dropped_total = reported, total
        return taken

    def drops(self, position: int) -> dict[Key, int]:
        """Return all drops, reported or not."""
        self._collect(position)
        # All three without a call in between: a nested one may report the drops.
        reported, recent, taken = self._reported, self._drops, self._taken
        being_reported = taken.drops if taken is not None and not taken.dropped_total else _NONE
        drops = dict(reported)
        for entries in recent, being_reported:
            for key, (count, *_) in dict(entries).items():  # not a list of the items, see `_enter`
                drops[key] = drops.get(key, 0) + count
        return drops

    def add_gap(self, gap: PendingGap, removed: int, most_in_place: int) -> PendingGap | None:
        """
        Have the gap of `take_drops` written with the next commit, and its warning sent, both or neither.

        At most so many wait without a row between them, when `removed` rows have left the queue: one commit has them.

        Returns:
            The gap that has its drops now: an earlier one when too many wait. None if another call has added it.
        """
        while self._taken is gap:
            appending = map(self.gaps.append, (gap,))  # as soon as it is unpacked
            drops = gap.drops if self.unsent is None else self.unsent.sum(gap)
            unsent = PendingGap(gap.position, drops, gap.dropped_total)
            change = appending, None, gap.dropped_total, unsent
            waiting = list(self.gaps)[self.gaps_in_commit :]  # a copy, see `_enter`
            crowded = len(waiting) >= most_in_place and (
                waiting[most_in_place - 1].position <= removed or gap.position <= waiting[-most_in_place].position
            )
            if crowded or len(waiting) >= MAX_GAPS or sum([len(known.drops) for known in waiting]) > MAX_KEYS:
                last = waiting[-1]
                drops = last.sum(gap)
                if self._taken is gap and self.gaps and self.gaps[-1] is last:
                    # The warning told of fewer drops.
                    last.drops, last.dropped_total, last.warning = drops, gap.dropped_total, None
                    self._taken, self._reported_total, self.unsent = None, gap.dropped_total, unsent
                    return last
            elif self._taken is gap:
                (_,), self._taken, self._reported_total, self.unsent = change
                return gap
        return None

    def begin_commit(self, end: int) -> list[PendingGap]:
        """Return the gaps up to position `end`; later drops no longer change these."""
        self.gaps.sort(key=attrgetter("position"))  # rows at the head may be given up after newer ones were refused
        self.gaps_in_commit = sum([gap.position <= end for gap in self.gaps])
        return self.gaps[: self.gaps_in_commit]

    def end_commit(self) -> None:
        """Let the written gaps go."""
        del self.gaps[: self.gaps_in_commit]
        self.gaps_in_commit = 0


def bounded(counts: dict[Key, Any], key: Key) -> Key:
    """Return the key to count under: beyond MAX_KEYS, one for all the others."""
    return key if key in counts or len(counts) < MAX_KEYS else for_others(key)


def for_others(key: Key) -> Key:
    """Return a key of OTHER_LOGGERS, with the level rounded to tens, because a program can make up levels, too."""
    cause, levelno, _ = key
    return (cause, min(max(levelno // 10, 0), 5) * 10, OTHER_LOGGERS)
