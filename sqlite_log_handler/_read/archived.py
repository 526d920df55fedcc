"""
A log and the parts of its archive, read as one.

Theory of operation
===================

Rows are in the file, in the archive, or in both for a while: the archive has them before retention deletes them. Ids
tell which. The file is asked for all rows that it has, from its first id on, and the archive for those below. Parts
hold ranges of ids, so the order of all rows is: part by part, then the file.

There is one way to answer. Rows of parts are put into a temporary database with the schema of a log (`loaded`), and the
SQL of the reader answers on that. Rows that are only shown pass through it some hundred at a time. What is counted or
sorted needs all that can match in one database: the rows of the parts whose heads may match, and those of the file. It
is kept until something else is asked.

While somebody reads, the archive may take over rows from the file: they are in a part before they are deleted. So the
first id of the file is looked at after each statement on it. If it has risen past what was to be read, those rows are
read from the archive, which is listed anew.
"""

import os
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TypeAlias

from sqlite_log_handler._logfile.archive import MORE_COLUMNS, PartName, stem_of
from sqlite_log_handler._logfile.columns import text, whole
from sqlite_log_handler._logfile.errors import EmptyFileError, ForeignFileError, LimitError, UnreadableFileError
from sqlite_log_handler._read.filters import (
    HIGHEST,
    LOWEST,
    FilterError,
    Filters,
    Where,
    level_range,
    run_processes,
    settled,
    where,
)
from sqlite_log_handler._read.loaded import Loaded, Process
from sqlite_log_handler._read.parts import FIELDS, PROCESS_FIELDS, Bounds, Part, Span, Values, meet, memory_of
from sqlite_log_handler._read.rows import select
from sqlite_log_handler._read.scan import Scan, Statement
from sqlite_log_handler._read.statistics import LogStats, file_numbers, level_names

Piece: TypeAlias = tuple[Part, Span]

_SELECT: Final = select(MORE_COLUMNS.get(name, name) for name in FIELDS)
_PROCESSES: Final = (
    f"SELECT {whole('pid')}, {text('name')}, {text('host')}, {whole('started_us')}, {text('program')} FROM processes "  # noqa: S608 - our own names
    "ORDER BY id"
)
_DROP_FIELDS: Final = ("after_id", "since_us", "until_us", "cause", "logger", "levelno", "count")
_DROPS: Final = f"""
SELECT {whole("after_id")}, {whole("since_us")}, {whole("until_us")}, {text("cause")}, {text("drops.logger")},
    {whole("levelno")}, {whole("count")}, {whole("pid")}, {text("name")}, {text("host")}, {whole("started_us")},
    {text("program")}
FROM drops LEFT JOIN processes ON processes.id = process_id ORDER BY drops.id
"""  # noqa: S608 - same
# Rows that were deleted and are not in the archive.
_PRUNES: Final = f"""
SELECT {whole("first_id")}, {whole("last_id")}, {whole("since_us")}, {whole("until_us")}, {text("cause")},
    count - archived, min(unsent, count - archived)
FROM prunes WHERE count > archived ORDER BY id
"""  # noqa: S608 - same
_CURSORS: Final = f"SELECT {text('name')}, {whole('after_id')}, {whole('updated_us')} FROM cursors"  # noqa: S608 - same

# Bytes of memory that all heads take. Those of a year with a start of the program each hour take 3 MiB.
_HEADS: Final = 32 * 1024 * 1024

# Filters that only a database with all rows can resolve.
_OF_ALL: Final = {"run", "pattern_of"}
# We take a question for at most this many ids for one of context, which asks for the next ids soon: we read more.
_FEW: Final = 1_000
_NEAR: Final = 20_000
# Ids that a statement on the file looks at.
_FIRST_SPAN: Final = 1_000
_SPAN: Final = 50_000
# Rows of the file that are in memory on their way into the database.
_ROWS: Final = 500


StrPath: TypeAlias = str | os.PathLike[str]


class Places(NamedTuple):
    """The places of one log: its file, folders with parts of its archive, and the paths of single parts."""

    path: str
    file: str | None
    folders: tuple[str, ...]
    parts: tuple[str, ...]


def is_archive(path: str) -> bool:
    """Tell whether a path is a folder, or has the name of an archived part."""
    return os.path.isdir(path) or PartName.parse(os.path.basename(path)) is not None


def places_of(path: StrPath | Iterable[StrPath]) -> Places:
    """
    Tell files, folders and parts apart, and check that they can be of one log.

    Raises:
        FilterError: There are several logs, or nothing.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else [*path]
    found: dict[str, list[str]] = {"file": [], "folder": [], "part": []}
    for one in dict.fromkeys(os.path.abspath(os.fsdecode(one)) for one in paths):
        kind = "folder" if os.path.isdir(one) else "part" if PartName.parse(os.path.basename(one)) else "file"
        found[kind].append(one)
    if not paths or len(found["file"]) > 1:
        message = f"one log at a time: {found['file'][1]!r} is one too many" if paths else "no log is named"
        raise FilterError(message)
    files, folders, parts = found.values()
    return Places([*files, *folders, *parts][0], files[0] if files else None, tuple(folders), tuple(parts))


class _Inventory(NamedTuple):
    """What there is at one moment: pieces by id, the first and the last id in the file, and names."""

    pieces: tuple[Piece, ...]
    first_id: int | None
    last_id: int
    levels: Mapping[int, str]
    processes: tuple[Process, ...]
    notices: tuple[str, ...]
    version: object


class _Kept(NamedTuple):
    """A database that may answer the next question: the rows within `bounds` up to `last_id`, of these processes."""

    loaded: Loaded
    bounds: Bounds
    processes: frozenset[Process] | None
    last_id: int


class ArchivedLog:
    """
    The parts of one log's archive, with its file or without.

    Args:
        places: Where they are. Folders may have parts of other logs, too.
        file: The log's file, if it is read too.
    """

    def __init__(self, places: Places, file: Scan | None) -> None:
        self._folders, self._parts, self._file = places.folders, places.parts, file
        self.path = places.path
        self._heads: dict[str, tuple[tuple[int, int], Part]] = {}
        self._kept: dict[str, _Kept] = {}
        self._open: set[Loaded] = set()
        self._is_closed = False
        self._found: _Inventory | None = None
        # What it was made of, and whether it has the gaps.
        self._names: tuple[Loaded, _Inventory, bool] | None = None
        found = self._look()
        self.notice = "; ".join(found.notices) or None
        if file is None and not found.pieces:
            message = f"{self.path!r} is a folder without an archived part of a log: name the file of a SQLiteHandler"
            raise EmptyFileError(message)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def close(self) -> None:
        """Close all that is open."""
        self._is_closed = True
        for loaded in self._open:
            loaded.scan.close()
        self._open.clear()
        self._kept.clear()

    def interrupt(self) -> None:
        """End the statement that another thread runs."""
        for loaded in [*self._open]:
            loaded.scan.interrupt()

    # What there is ----------------------------------------------------------------------------------------------------

    def _look(self) -> _Inventory:
        """Return what there is now: `_found` as it is, or anew if something has changed."""
        if self._is_closed:
            message = f"the reader of {self.path!r} is closed: make a new LogReader"
            raise ValueError(message)
        file = self._file
        # Before the folder is listed: what is gone from the file by then is in a part.
        first_id, last_id, version = (None, 0, None) if file is None else _ends(file)
        pieces, notices = self._pieces()
        was = self._found
        if was is not None and was.pieces == pieces and was.version == version and (was.first_id == first_id):
            return was
        levels: dict[int, str] = {}
        processes: dict[Values, Process] = {}
        for part, _ in pieces:
            levels |= {int(levelno): name for levelno, name in part.head.levels.items()}
            for process in map(_process_of, part.head.processes):
                processes.setdefault(process[:4], process)
        if file is not None:
            levels |= level_names(file)
            for process in file.all(_PROCESSES):
                processes.setdefault(process[:4], process)
        last_id = max(last_id, pieces[-1][1][1] if pieces else 0)
        self._found = _Inventory(pieces, first_id, last_id, levels, tuple(processes.values()), tuple(notices), version)
        return self._found

    def _pieces(self) -> tuple[tuple[Piece, ...], list[str]]:
        """Return the parts of this log, each with the ids that no part before it has, and what there is besides."""
        parts: list[Part] = []
        left = _HEADS
        for path in self._paths():
            parts.append(self._part(path))
            left -= memory_of(parts[-1].head)
            if left < 0:
                message = f"{path!r}: the heads of the parts up to this one take more than {_HEADS >> 20} MiB of memory"
                raise LimitError(message)
        self._heads = {part.path: self._heads[part.path] for part in parts}
        log_id, stem = self._log(parts)
        others = [part for part in parts if part.head.log_id != log_id and stem in {None, part.head.log}]
        notices = []
        if others:
            notices.append(f"{len(others):,} parts are left out: they are of another log, as {others[0].path!r}")
        mine = sorted(
            (part for part in parts if part.head.log_id == log_id),
            key=lambda part: (part.head.first_id, -part.head.last_id),
        )
        pieces: list[Piece] = []
        done = 0
        for part in mine:
            if part.head.last_id > done:
                pieces.append((part, (max(part.head.first_id, done + 1), part.head.last_id)))
                done = part.head.last_id
        if self._file is not None:
            noted = {name for (name,) in self._file.all(f"SELECT {text('name')} FROM archives")}  # noqa: S608 - our own names
            missing = noted - {os.path.basename(part.path) for part in mine}
            if missing:
                notices.append(f"{len(missing):,} parts that the log notes are not there, as {min(missing)!r}")
        return tuple(pieces), notices

    def _paths(self) -> Iterator[str]:
        for folder in self._folders:
            try:
                names = os.listdir(folder)
            except OSError as error:
                message = f"{folder!r} cannot be read: {error}"
                raise UnreadableFileError(message) from error
            yield from (os.path.join(folder, name) for name in sorted(names) if PartName.parse(name))
        yield from self._parts

    def _part(self, path: str) -> Part:
        try:
            stat = os.stat(path)
        except OSError:
            key = (0, 0)
        else:
            key = (stat.st_size, stat.st_mtime_ns)
        kept = self._heads.get(path)
        if kept is None or kept[0] != key:
            kept = self._heads[path] = key, Part.open(path)
        return kept[1]

    def _log(self, parts: list[Part]) -> tuple[str, str | None]:
        """Return the id of the log that is read, and its stem, if a folder may have parts of other logs too."""
        if self._file is not None:
            return str(self._file.one("SELECT log_id FROM marks")), stem_of(os.path.realpath(self._file.path))
        names = sorted({part.head.log for part in parts})
        if len(names) > 1:
            message = (
                f"{self.path!r} has parts of several logs ({', '.join(names)}): name those of one, or its file too"
            )
            raise ForeignFileError(message)
        newest = max(parts, key=lambda part: part.head.until_us, default=None)
        return ("", None) if newest is None else (newest.head.log_id, None)

    def last_id(self) -> int:
        """Return the id of the last row, 0 in an empty log."""
        return self._look().last_id

    def sized(self, stats: LogStats) -> LogStats:
        """Return the numbers of a temporary database with those of the file in the place of its own."""
        file, size = self._file, sum(part.bytes for part, _ in self._look().pieces)
        if file is None:
            return replace(stats, file_bytes=size, free_bytes=0, journal_mode="none")
        own = file_numbers(file)
        own["file_bytes"] += size
        return replace(stats, pruned=stats.pruned + file.one(f"SELECT {whole('expired')} FROM marks"), **own)  # noqa: S608 - our own name

    # One database -----------------------------------------------------------------------------------------------------

    def _new(self, found: _Inventory) -> Loaded:
        loaded = Loaded(self.path, found.levels, found.processes)
        self._open.add(loaded)
        return loaded

    def _retire(self, loaded: Loaded) -> None:
        loaded.retire()
        self._open = {one for one in self._open if not one.scan.closed}

    def names(self) -> Scan:
        """Return a database without rows, which has the names of levels and all processes."""
        found = self._look()
        if self._names is None or self._names[1] is not found:
            if self._names is not None:
                self._retire(self._names[0])
            self._names = self._new(found), found, False
        scan = self._names[0].scan
        scan.budget.renew()
        return scan

    def ledger(self) -> Scan:
        """Return a database without rows, which has all gaps."""
        scan = self.names()
        if self._names is not None and not self._names[2]:
            loaded, found, _ = self._names
            self._fill_ledger(loaded, found)
            self._names = loaded, found, True
        return scan

    def _fill_ledger(self, loaded: Loaded, found: _Inventory) -> None:
        file = self._file
        loaded.add_ledger(
            chain(_archived_drops(found.pieces), () if file is None else _drops(file, found.pieces)),
            () if file is None else file.all(_PRUNES),
            () if file is None else file.all(_CURSORS),
        )

    def question(self, filters: Filters) -> Scan:
        """Return a database with all rows that these filters may let pass, and the ledger."""
        names = self.names()
        bounds, processes = self._bounds(names, filters)
        loaded = self._load("question", bounds, processes)
        for id_ in _patterns_of(filters):
            self._add(loaded, self._look(), Bounds((id_, id_)), None)
        self._fill_ledger(loaded, self._look())
        loaded.scan.budget.renew()
        return loaded.scan

    def _load(self, slot: str, bounds: Bounds, processes: frozenset[Process] | None) -> Loaded:
        """Return a database with all rows within these bounds: the one that is kept in this slot, if it covers them."""
        kept = self._kept.get(slot)
        if kept is None or not (kept.bounds.cover(bounds) and kept.processes in {None, processes}):
            if kept is not None:
                del self._kept[slot]
                self._retire(kept.loaded)
            kept = _Kept(self._new(self._look()), bounds, processes, 0)
        found = self._look()
        # What came since, or all.
        low, high = max(kept.bounds.ids[0], kept.last_id + 1), min(kept.bounds.ids[1], found.last_id)
        try:
            self._add(kept.loaded, found, kept.bounds._replace(ids=(low, high)), kept.processes)
        except BaseException:
            self._kept.pop(slot, None)
            self._retire(kept.loaded)
            raise
        self._kept[slot] = kept._replace(last_id=max(kept.last_id, found.last_id))
        return kept.loaded

    def _add(self, loaded: Loaded, found: _Inventory, bounds: Bounds, processes: frozenset[Process] | None) -> None:
        """Add the rows within these bounds: those of the archive, those of the file, and those that move meanwhile."""
        low, high = bounds.ids
        while low <= high:
            stop = high if found.first_id is None else min(high, found.first_id - 1)
            for part, ids in _within(found.pieces, bounds._replace(ids=(low, stop))):
                if processes is None or not processes.isdisjoint(map(_process_of, part.head.processes)):
                    for rows in part.rows(bounds._replace(ids=ids)):
                        loaded.add(part.path, rows)
            low = max(low, stop + 1)
            if self._file is None or low > high:
                return
            filed = self._file.rows(_SELECT, _where_of(bounds._replace(ids=(low, high))))
            while some := [*islice(filed, _ROWS)]:
                loaded.add(self._file.path, some)
            found = self._look()
            if found.first_id is None or found.first_id <= low:
                return
            # Rows from `low` on went over into the archive, maybe before they were read here.
            high = min(high, found.first_id - 1)

    def _bounds(self, names: Scan, filters: Filters) -> tuple[Bounds, frozenset[Process] | None]:
        """Return what heads can tell of these filters: spans, and the processes of a run, or None for all."""
        simple: Filters = {**filters, "pattern_of": None}
        chosen = where(names.all, {**simple, "without": None})
        level = filters.get("level")
        run = filters.get("run")
        processes = None
        if run is not None:
            ids = {*run_processes(names.all, run)}
            processes = frozenset(p for id_, p in enumerate(self._look().processes, 1) if id_ in ids)
        times = (
            LOWEST if chosen.since_us is None else chosen.since_us,
            HIGHEST if chosen.until_us is None else chosen.until_us,
        )
        levels = (LOWEST, HIGHEST) if level is None else level_range(names.all, level)
        return Bounds((max(chosen.after_id, 0) + 1, chosen.up_to_id), times, levels), processes

    # Rows -------------------------------------------------------------------------------------------------------------

    def rows(self, query: str, newest: int | None, filters: Filters, *, backward: bool) -> Iterator[Values]:
        """Yield what `query` selects of each row that matches; see `LogReader.rows`."""
        names = self.names()
        filters = settled(names.all, filters)
        given = {name for name, value in filters.items() if value is not None} | {*(filters.get("without") or ())}
        if given & _OF_ALL:
            return self._ask(self.question(filters), query, newest, filters, backward=backward)
        where(names.all, filters)  # before the first row is asked for
        return self._stream(query, newest, filters, backward=backward)

    def _ask(self, scan: Scan, query: str, newest: int | None, filters: Filters, *, backward: bool) -> Iterator[Values]:
        chosen = where(scan.all, filters)
        if newest is not None:
            chosen = scan.newest(chosen, newest)
        return _using(self._kept["question"].loaded, query, chosen, backward=backward)

    def _stream(self, query: str, newest: int | None, filters: Filters, *, backward: bool) -> Iterator[Values]:
        """Yield the rows that match, in turn from the archive and from the file, some hundred in memory at a time."""
        if newest is not None:
            ids = [id_ for (id_,) in islice(self._stream(select(["id"]), None, filters, backward=True), newest)]
            if not ids:
                return
            filters = {**filters, "after_id": ids[-1] - 1, "up_to_id": ids[0]}
        names = self.names()
        chosen = where(names.all, filters)
        bounds, _ = self._bounds(names, filters)
        low, high = bounds.ids[0], min(bounds.ids[1], self._look().last_id)
        file = self._file
        if file is not None:
            file.budget.renew()
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
        pieces = _within(found.pieces, bounds)
        if not pieces:
            return
        low, high = bounds.ids
        if high - low < _FEW:
            ids = (low - low % _NEAR, high - high % _NEAR + _NEAR - 1)
            loaded = self._load("near", Bounds(ids), None)
            loaded.scan.budget.renew()
            yield from _using(loaded, query, chosen._replace(after_id=low - 1, up_to_id=high), backward=backward)
            return
        loaded = self._new(found)
        try:
            for part, ids in reversed(pieces) if backward else pieces:
                batches = part.rows(bounds._replace(ids=ids))
                windows: Iterable[Iterable[list[Values]]] = [batches] if backward else ([rows] for rows in batches)
                for window in windows:
                    loaded.clear()
                    for rows in window:
                        loaded.add(part.path, rows)
                    loaded.scan.budget.renew()
                    yield from loaded.scan.rows(query, chosen, backward=backward)
        finally:
            self._retire(loaded)

    def _filed(
        self, file: Scan, query: str, chosen: Where, ids: Span, *, backward: bool
    ) -> Generator[Values, None, int]:
        """
        Yield the rows of the file within these ids, as far as the archive does not take them over meanwhile.

        Returns:
            The id from which on, or down to which, the archive has to go on.
        """
        statement = Statement.of(query, chosen, backward=backward)
        low, high = file.bounds(chosen._replace(after_id=ids[0] - 1, up_to_id=ids[1]))
        first_id, span = _first_id(file), _FIRST_SPAN
        if first_id > ids[0] and not backward:
            return ids[0]
        low = max(low, first_id)
        while low <= high:
            begin, end = (max(high - span + 1, low), high) if backward else (low, min(low + span - 1, high))
            batch, is_last = file.batch(statement, (begin, end, *chosen.parameters))
            first_id = _first_id(file)
            if first_id > begin:
                if not backward:
                    return begin
                kept = [row for row in batch if row[0] >= first_id]
                yield from kept
                if is_last or len(kept) < len(batch):
                    return min(first_id - 1, high)
            else:
                yield from batch
            if is_last:
                low, high = (low, begin - 1) if backward else (end + 1, high)
                span = min(span * 4, _SPAN)
            else:
                low, high = (low, batch[-1][0] - 1) if backward else (batch[-1][0] + 1, high)
        return min(max(ids[0], first_id) - 1, ids[1]) if backward else ids[1] + 1


def _patterns_of(filters: Filters) -> Iterator[int]:
    """Yield the ids of rows whose pattern the filters ask for: they may be out of all bounds."""
    for given in (filters.get("pattern_of"), (filters.get("without") or {}).get("pattern_of")):
        yield from [given] if isinstance(given, int) else given or ()


def _using(loaded: Loaded, query: str, chosen: Where, *, backward: bool) -> Iterator[Values]:
    """Yield rows of a database that another question may replace meanwhile."""

    def rows() -> Iterator[Values]:
        loaded.use()
        try:
            yield ()
            yield from loaded.scan.rows(query, chosen, backward=backward)
        finally:
            loaded.leave()

    begun = rows()
    next(begun)  # from here on it leaves the database in the end, also if nobody asks for a row
    return begun


def _ends(file: Scan) -> tuple[int | None, int, object]:
    """Return the first and the last id in a file, and what changes with each commit of another process."""
    ((first_id, last_id),) = file.all("SELECT (SELECT min(id) FROM records), (SELECT max(id) FROM records)")
    return first_id, last_id or 0, file.one("PRAGMA data_version")


def _first_id(file: Scan) -> int:
    """Return the first id in a file; for an empty one HIGHEST, so that the archive has all rows."""
    first_id: int | None = file.one("SELECT min(id) FROM records")
    return HIGHEST if first_id is None else first_id


def _within(pieces: Iterable[Piece], bounds: Bounds) -> list[Piece]:
    """Return the pieces that may have something within the bounds, each with its ids that are."""
    low, high = bounds.ids
    return [
        (part, (max(ids[0], low), min(ids[1], high)))
        for part, ids in pieces
        if bounds.meet(part.head) and meet(ids, bounds.ids)
    ]


def _where_of(bounds: Bounds) -> Where:
    (low, high), (since_us, until_us) = bounds.ids, bounds.times
    return Where(
        "+created_us BETWEEN ? AND ? AND records.levelno BETWEEN ? AND ?",
        (*bounds.times, *bounds.levels),
        None if since_us == LOWEST else since_us,
        None if until_us == HIGHEST else until_us,
        low - 1,
        high,
    )


def _process_of(found: Mapping[str, Any]) -> Process:
    return tuple(map(found.__getitem__, PROCESS_FIELDS))


def _archived_drops(pieces: Iterable[Piece]) -> Iterator[tuple[Values, Process]]:
    """Yield the gaps of all parts. Before the first part, there may be some at its beginning."""
    is_first = True
    for part, (low, high) in pieces:
        for drop in part.drops():
            if (low - 1 <= drop["after_id"] or is_first) and drop["after_id"] < high:
                yield tuple(map(drop.__getitem__, _DROP_FIELDS)), _process_of(drop)
        is_first = False


def _drops(file: Scan, pieces: Iterable[Piece]) -> Iterator[tuple[Values, Process]]:
    """Yield the gaps of the file that are in no part: a gap behind the last row of a part is in the next one."""
    ends = [high for _, (_, high) in pieces]
    starts = [low - 1 for _, (low, _) in pieces]
    for *values, pid, name, host, started_us, program in file.all(_DROPS):
        place = bisect_right(ends, values[0])
        if place == len(ends) or values[0] < starts[place]:
            yield tuple(values), (pid, name, host, started_us, program)
