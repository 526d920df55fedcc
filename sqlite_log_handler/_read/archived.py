"""
A log and the parts of its archive, read as one.

Theory of operation
===================

Rows are in the file, in the archive, or in both for a while: the archive has them before retention deletes them. Ids
tell which. We ask the file for all rows that it has, from its first id on, and the archive for those below. Parts hold
ranges of ids, so the order of all rows is: part by part, then the file.

There is one way to answer. We put rows of parts into a temporary database with the schema of a log (`loaded`), and the
SQL of the reader answers on that. Rows that are only shown pass through it some hundred at a time. To count or sort, we
need all rows that can match in one database: those of the parts whose heads may match, and those of the file. We keep
that database until somebody asks for other rows.

While somebody reads, the archive may take over rows from the file: they are in a part before they are deleted. So we
look at the first id of the file after each statement on it. If it has risen past the rows that we asked for, we list
the archive anew and read them from there. A part that a limit of the archive removes before we open it is gone past.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from os import getpid
from typing import Final, NamedTuple
from weakref import ref

from sqlite_log_handler._logfile.archive import DROP, FROM_DROPS, MORE_COLUMNS, PROCESS
from sqlite_log_handler._logfile.columns import text, whole
from sqlite_log_handler._read.filters import HIGHEST, Filters, Where, check, level_range, run_processes, settled, where
from sqlite_log_handler._read.inventory import Inventory, PartList, Piece, Places, process_of
from sqlite_log_handler._read.loaded import Loaded, Process
from sqlite_log_handler._read.parts import ALL, FIELDS, Bounds, Span, Values
from sqlite_log_handler._read.rows import select
from sqlite_log_handler._read.scan import Scan, raise_unusable
from sqlite_log_handler._read.statistics import LogStats, file_numbers, sizes

_SELECT: Final = select(MORE_COLUMNS.get(name, name) for name in FIELDS)
_DROPS: Final = f"SELECT {', '.join([*DROP.values(), *PROCESS.values()])} {FROM_DROPS} ORDER BY drops.id"
_PRUNES: Final = f"""
SELECT {whole("first_id")}, {whole("last_id")}, {whole("since_us")}, {whole("until_us")}, {text("cause")},
    {whole("unsent")}
FROM prunes ORDER BY id
"""  # noqa: S608 - our own names
_CURSORS: Final = f"SELECT {text('name')}, {whole('after_id')}, {whole('updated_us')} FROM cursors"  # noqa: S608 - same

# Filters that only a database with all rows can resolve.
_OF_ALL: Final = {"run", "pattern_of"}
# We take a question for at most this many ids for one of context, which asks for the next ids soon: we read more.
_FEW: Final = 1_000
_NEAR: Final = 20_000
# Rows of the file that are in memory on their way into the database.
_ROWS: Final = 500


class _Kept(NamedTuple):
    """
    A database that may answer the next question: the rows within `bounds` up to `last_id`, of these processes.

    It has the names of the inventory `found`.
    """

    loaded: Loaded
    found: Inventory
    bounds: Bounds
    processes: frozenset[Values] | None
    last_id: int


class ArchivedLog:
    """
    The parts of one log's archive at `places`, and its `file`, if that is read too. Folders may have parts of other
    logs, too.
    """

    def __init__(self, places: Places, file: Scan | None) -> None:
        self._path, self._file = places.path, file
        self._parts = PartList(places, file)
        self._kept: dict[str, _Kept] = {}
        self._named: tuple[Loaded, Inventory] | None = None
        self._open: list[ref[Loaded]] = []
        self.closed = False
        self._process = getpid()
        self.notice = "; ".join(self._look().notices) or None

    def close(self) -> None:
        """Close all that is open."""
        self.closed = True
        for loaded in self._loaded():
            loaded.scan.close()
        self._kept.clear()

    def interrupt(self) -> None:
        """End the statement that another thread runs."""
        for loaded in self._loaded():
            loaded.scan.interrupt()

    def _loaded(self) -> list[Loaded]:
        """Return the databases that somebody uses."""
        return [loaded for loaded in (found() for found in self._open) if loaded is not None]

    def last_id(self) -> int:
        """Return the id of the last row, 0 in an empty log."""
        self._renew_file()
        return self._look().last_id

    def sized(self, stats: LogStats) -> LogStats:
        """Return the numbers of a temporary database with those of the file in the place of its own."""
        if self._file is None:
            return replace(stats, file_bytes=self.sizes()[0], free_bytes=0, journal_mode="none")
        own = {**file_numbers(self._file), "file_bytes": self.sizes()[0]}
        pruned = (stats.last_id or 0) - stats.rows
        return replace(stats, pruned=pruned, unsent=min(stats.unsent, pruned), **own)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the file and the archive together, and of the file's WAL."""
        size, wal = (0, 0) if self._file is None else sizes(self._file.path)
        return size + sum(part.bytes for part, _ in self._look().pieces), wal

    def _look(self) -> Inventory:
        if self.closed or self._process != getpid():
            raise_unusable(self._path, closed=self.closed)
        return self._parts.look()

    # Databases --------------------------------------------------------------------------------------------------------

    def _new(self, found: Inventory) -> Loaded:
        loaded = Loaded(self._path, found.levels, found.processes)
        self._open = [ref(one) for one in (*self._loaded(), loaded)]
        return loaded

    def _renew_file(self) -> None:
        """Begin a question to the file, see `Scan.renew`."""
        if self._file is not None and not self.closed:
            self._file.renew()

    def ledger(self) -> Scan:
        """Return a database without rows, which has all gaps."""
        loaded = self._names()
        if not loaded.has_ledger:
            self._fill_ledger(loaded)
        return loaded.scan

    def _names(self) -> Loaded:
        """Return a database without rows, which has the names of levels and all processes."""
        self._renew_file()
        found = self._look()
        if self._named is None or self._named[1] is not found:
            self._named = self._new(found), found
        loaded = self._named[0]
        loaded.scan.budget.renew()
        return loaded

    def _fill_ledger(self, loaded: Loaded) -> None:
        file = self._file
        filed, prunes, cursors = ([] if file is None else file.all(sql) for sql in (_DROPS, _PRUNES, _CURSORS))
        # After the file was asked: a gap that has left it by then is in a part.
        pieces = self._look().pieces
        loaded.add_ledger(chain(self._archived_drops(pieces), _drops(filed, pieces)), _prunes(prunes, pieces), cursors)

    def _archived_drops(self, pieces: Iterable[Piece]) -> Iterator[tuple[Values, Process]]:
        """Yield the gaps of all parts."""
        for part, (low, high) in pieces:
            for drop in self._parts.unless_expired(part.path, part.drops()):
                if low - 1 <= drop["after_id"] < high:
                    yield tuple(map(drop.__getitem__, DROP)), process_of(drop)

    def question(self, filters: Filters) -> Scan:
        """Return a scan of a database with all rows that these filters may let pass, and the ledger."""
        return self._load_all(filters).scan

    def _load_all(self, filters: Filters) -> Loaded:
        check(filters)
        bounds, processes = self._bounds(self._names(), filters)
        loaded = self._load("question", bounds, processes)
        for id_ in _patterns_of(filters):
            self._add(loaded, self._look(), Bounds((id_, id_)), None)
        self._fill_ledger(loaded)
        loaded.scan.whole_log = self._ends()
        loaded.scan.budget.renew()
        return loaded

    def _ends(self) -> tuple[int | None, int | None]:
        """Return the times of the first and the last record of all, in the file or not."""
        heads = [part.head for part, _ in self._look().pieces]
        ends = () if self._file is None else self._file.ends_of("created_us")
        times = [head.since_us for head in heads] + [head.until_us for head in heads]
        times += [end for end in ends if end is not None]
        return min(times, default=None), max(times, default=None)

    def _load(self, slot: str, bounds: Bounds, processes: frozenset[Values] | None) -> Loaded:
        """Return a database with all rows within these bounds: the one that is kept in this slot, if it covers them."""
        kept = self._kept.pop(slot, None)
        found = self._look()
        if kept is None or not (
            kept.bounds.cover(bounds)
            and kept.processes in {None, processes}
            # Else `run=1` would be one that is gone.
            and (kept.found is found or {*found.processes}.issuperset(kept.found.processes))
        ):
            kept = _Kept(self._new(found), found, bounds, processes, 0)
        elif kept.found is not found:
            kept.loaded.learn(found.levels, found.processes)
        # What came since, or all.
        low, high = max(kept.bounds.ids[0], kept.last_id + 1), min(kept.bounds.ids[1], found.last_id)
        try:
            self._add(kept.loaded, found, kept.bounds._replace(ids=(low, high)), kept.processes)
        except BaseException:
            if not kept.last_id:  # new, so nobody reads from it; the error may keep it for long
                kept.loaded.scan.close()
            raise
        self._kept[slot] = kept._replace(found=found, last_id=max(kept.last_id, found.last_id))
        return kept.loaded

    def _add(self, loaded: Loaded, found: Inventory, bounds: Bounds, processes: frozenset[Values] | None) -> None:
        """Add the rows within these bounds: those of the archive, those of the file, and those that move meanwhile."""
        low, high = bounds.ids
        while low <= high:
            stop = high if found.first_id is None else min(high, found.first_id - 1)
            for part, ids in found.within(bounds._replace(ids=(low, stop))):
                if processes is None or not processes.isdisjoint(process_of(one)[:4] for one in part.head.processes):
                    for rows in self._parts.unless_expired(part.path, part.rows(bounds._replace(ids=ids))):
                        loaded.add(part.path, rows)
            low = max(low, stop + 1)
            if self._file is None or low > high:
                return
            sql = f"{whole('created_us')} BETWEEN ? AND ? AND {whole('records.levelno')} BETWEEN ? AND ?"
            values = (*bounds.times, *bounds.levels)
            filed = self._file.rows(_SELECT, Where(sql, values, *bounds.times, low - 1, high))
            while some := [*islice(filed, _ROWS)]:
                loaded.add(self._file.path, some)
            found = self._look()
            if found.first_id is None or found.first_id <= low:
                return
            # Rows from `low` on went over into the archive, maybe before we read them here.
            high = min(high, found.first_id - 1)

    def _bounds(self, names: Loaded, filters: Filters) -> tuple[Bounds, frozenset[Values] | None]:
        """Return what heads can tell of these filters: spans, and the processes of a run, or None for all."""
        ask = names.scan.all
        chosen = where(ask, {**filters, "pattern_of": None, "without": None})
        level, run = filters.get("level"), filters.get("run")
        levels = ALL if level is None else level_range(ask, level)
        bounds = Bounds((max(chosen.after_id, 0) + 1, chosen.up_to_id), (chosen.since_us, chosen.until_us), levels)
        if run is None:
            return bounds, None
        ids = {*run_processes(ask, run)}
        return bounds, frozenset(process for process, id_ in names.processes.items() if id_ in ids)

    # Rows -------------------------------------------------------------------------------------------------------------

    def rows(self, query: str, newest: int | None, filters: Filters, *, backward: bool) -> Iterator[Values]:
        """Yield what `query` selects of each row that matches; see `LogReader.rows`."""
        names = self._names().scan
        filters = settled(filters)
        given = {name for name, value in filters.items() if value is not None} | {*(filters.get("without") or ())}
        if not given & _OF_ALL:
            where(names.all, filters)  # raises before the first row is asked for
            return self._stream(query, newest, filters, backward=backward)
        loaded = self._load_all(filters)
        chosen = where(loaded.scan.all, filters)
        if newest is not None:
            chosen = loaded.scan.newest(chosen, newest)
        return loaded.rows(query, chosen, backward=backward)

    def _stream(self, query: str, newest: int | None, filters: Filters, *, backward: bool) -> Iterator[Values]:
        """Yield the rows that match, in turn from the archive and from the file, some hundred in memory at a time."""
        if newest is not None:
            ids = islice(self._stream(select(["id"]), None, filters, backward=True), newest)
            (high,) = next(ids, (None,))
            if high is None:
                return
            ((low,),) = deque(ids, maxlen=1) or [(high,)]
            filters = {**filters, "after_id": low - 1, "up_to_id": high}
        names = self._names()
        chosen = where(names.scan.all, filters)
        bounds, _ = self._bounds(names, filters)
        low, high = bounds.ids[0], min(bounds.ids[1], self._look().last_id)
        file = self._file
        while low <= high:
            first_id = self._look().first_id
            if file is None or first_id is None or (high if backward else low) < first_id:
                stop = high if first_id is None else min(high, first_id - 1)
                within = bounds._replace(ids=(low, stop))
                yield from self._archived(query, chosen, within, backward=backward)
                low, high = (1, 0) if backward else (stop + 1, high)
            elif backward:
                high = yield from self._filed(file, query, chosen, (max(low, first_id), high), backward=True)
            else:
                low = yield from self._filed(file, query, chosen, (low, high), backward=False)

    def _archived(self, query: str, chosen: Where, bounds: Bounds, *, backward: bool) -> Iterator[Values]:
        """Yield the rows of parts: as they are read, or backward part by part."""
        found = self._look()
        pieces = found.within(bounds)
        if not pieces:
            return
        low, high = bounds.ids
        if high - low < _FEW:
            ids = (low - low % _NEAR, high - high % _NEAR + _NEAR - 1)
            loaded = self._load("near", Bounds(ids), None)
            loaded.scan.budget.renew()
            yield from loaded.rows(query, chosen._replace(after_id=low - 1, up_to_id=high), backward=backward)
            return
        loaded = self._new(found)
        with closing(loaded.scan):
            for part, ids in reversed(pieces) if backward else pieces:
                batches = self._parts.unless_expired(part.path, part.rows(bounds._replace(ids=ids)))
                windows: Iterable[Iterable[list[Values]]] = [batches] if backward else ([rows] for rows in batches)
                for window in windows:
                    loaded.clear()
                    for rows in window:
                        loaded.add(part.path, rows)
                    loaded.scan.budget.renew()
                    yield from loaded.scan.rows(query, chosen, backward=backward)

    def _filed(
        self, file: Scan, query: str, chosen: Where, ids: Span, *, backward: bool
    ) -> Generator[Values, None, int]:
        """
        Yield the rows of the file within these ids, as far as the archive does not take them over meanwhile.

        Returns the id from which on, or down to which, the archive has to go on.
        """
        low, high = ids  # those that are still to be read
        within = chosen._replace(after_id=low - 1, up_to_id=high)
        for batch, begin, end in file.batches(query, within, backward=backward):
            first_id = _first_id(file)
            if first_id > low and not backward:
                return low
            yield from batch if first_id <= begin else [row for row in batch if row[0] >= first_id]
            if first_id > begin:
                return min(first_id - 1, high)
            low, high = (low, begin - 1) if backward else (end + 1, high)
        first_id = _first_id(file)  # rows may have gone over after the last look
        if backward:
            return min(max(low, first_id) - 1, high)
        return low if first_id > low else ids[1] + 1


def _patterns_of(filters: Filters) -> Iterator[int]:
    """Yield the ids of rows whose pattern the filters ask for: they may be out of all bounds."""
    for given in (filters.get("pattern_of"), (filters.get("without") or {}).get("pattern_of")):
        several = given if isinstance(given, Collection) else [given]
        yield from (id_ for id_ in several if isinstance(id_, int))


def _first_id(file: Scan) -> int:
    """Return the first id in a file; for an empty one HIGHEST, so that the archive has all rows."""
    first_id: int | None = file.one("SELECT min(id) FROM records")
    return HIGHEST if first_id is None else first_id


def _drops(filed: Iterable[Values], pieces: Iterable[Piece]) -> Iterator[tuple[Values, Process]]:
    """Yield the gaps of the file that are in no part: a gap behind the last row of a part is in the next one."""
    ends = [high for _, (_, high) in pieces]
    starts = [low - 1 for _, (low, _) in pieces]
    for values in filed:
        place = bisect_right(ends, values[0])
        if place == len(ends) or values[0] < starts[place]:
            yield values[: len(DROP)], values[len(DROP) :]


def _prunes(filed: Iterable[Values], pieces: Sequence[Piece]) -> Iterator[Values]:
    """
    Yield the lines of `prunes` of which rows are in no part, with how many.

    Ids tell, because a line does not: rows of it may have come into the archive later, or have left it since. The ids
    of two lines overlap where their causes took turns, so each id counts for the first of them, and which of these
    rows were not forwarded for both.
    """
    ends = [high for _, (_, high) in pieces]
    starts = [low for _, (low, _) in pieces]
    counted = left = 0
    for first_id, last_id, *others, unsent in filed:
        begin = max(first_id, counted + 1)
        met = pieces[bisect_left(ends, begin) : bisect_right(starts, last_id)]
        kept = sum(min(high, last_id) - max(low, begin) + 1 for _, (low, high) in met)
        missing = max(0, last_id - begin + 1 - kept)
        left = missing + (left if first_id <= counted else 0)
        lost = min(unsent, left)
        if missing or lost:
            yield first_id, last_id, *others, missing, lost
        counted, left = max(counted, last_id), left - lost
