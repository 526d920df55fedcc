"""
Patterns: records that say the same, except for the values in them.

`logging` gets a template and its values apart, so a pattern is exactly the template of a logger in a source file. If a
program puts its values into the message by itself, there is no template, and a pattern is a call site. Its text is then
the newest message with numbers and identifiers masked, and it is marked as guessed.

We count by the ids of call sites, which takes 200 bytes for each, and read only the names of those with most
records. So a log with 100,000 call sites does not fill the memory.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from heapq import nlargest
from itertools import groupby, islice
from logging import ERROR
from sys import getsizeof
from typing import Any, Final, TypeAlias

from sqlite_log_handler._logfile.columns import text, whole
from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._read.filters import LOWEST, SOURCE, Filters, Where, run_processes, where
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.templates import masked, says_something

Moment: TypeAlias = datetime | date | str | int

# The most frequent patterns get a sample: how many, the characters of each, and how many we read at once.
_SAMPLES: Final = 1_000
_SAMPLE_LENGTH: Final = 300
_AT_ONCE: Final = 100

# Most call sites whose names we read, and most bytes of these: a pattern takes 2 kB. The records of the others, which
# are those of a program that makes names up, are one pattern.
_MOST: Final = 10_000
_MOST_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    Records that say the same; times in microseconds since 1970.

    `text` is the template, or with `is_guessed` a masked message. `source` is the call site of the newest record,
    `last_id` its id and `sample` its message. `last_error_id` is that of the newest at ERROR or above, if there
    is one. `share` is the share of all records counted, 0 to 1; `levels` has the records by the number of their level.
    Only the thousand most frequent patterns have a `sample`.
    """

    text: str
    is_guessed: bool
    logger: str
    source: str
    records: int
    share: float
    levels: dict[int, int]
    first_us: int
    last_us: int
    last_id: int
    last_error_id: int | None
    sample: str


# Lines that a level counts for: a pattern has a number for each.
_LEVEL: Final = 100

# (logger, pathname, lineno, func, template)
_Source: TypeAlias = tuple[Any, ...]
# The records of a call site at one level: the level, how many, their first and last time, and the last id.
_Level: TypeAlias = tuple[int, ...]
_UNKNOWN: Final[_Source] = ("?", "?", 0, "?", "")
_OTHERS: Final[_Source] = (OTHER_LOGGERS, *_UNKNOWN[1:])


class _CallSites:
    """Numbers of records by call site and level."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}  # by the call site, and the level as a number of 64 bits
        self._numbers = array("q")

    def __len__(self) -> int:
        return len(self._places)

    def add(self, source_id: int, found: _Level) -> None:
        """Add the records of a call site at one level in one span of ids."""
        levelno, records, first_us, last_us, last_id = found
        numbers, end = self._numbers, len(self._numbers)
        place = self._places.setdefault((source_id << 64) + levelno - LOWEST, end)
        if place < end:
            records += numbers[place]
            first_us, last_us = min(first_us, numbers[place + 1]), max(last_us, numbers[place + 2])
        numbers[place : place + 4] = array("q", (records, first_us, last_us, last_id))

    def by_source(self) -> Iterator[tuple[int, list[_Level]]]:
        """Yield the id of each call site, and its records by level."""
        for source_id, places in groupby(sorted(self._places.items()), lambda item: item[0] >> 64):
            yield source_id, [(key % 2**64 + LOWEST, *self._numbers[place : place + 4]) for key, place in places]

    @property
    def first_us(self) -> int:
        """The time of the first record."""
        return min(self._numbers[1::4])


class _Sums:
    """The sums of one pattern."""

    __slots__ = ("first_us", "last_error_id", "last_id", "last_us", "levels", "source")

    def __init__(self) -> None:
        self.levels: dict[int, int] = {}
        self.first_us, self.last_us, self.last_id = 1 << 63, LOWEST, LOWEST
        self.last_error_id: int | None = None
        self.source = _UNKNOWN

    def add(self, source: _Source, levels: Iterable[_Level]) -> None:
        """Add the records of a call site."""
        for levelno, records, first_us, last_us, last_id in levels:
            self.levels[levelno] = self.levels.get(levelno, 0) + records
            self.first_us = min(self.first_us, first_us)
            self.last_us = max(self.last_us, last_us)
            if levelno >= ERROR:
                self.last_error_id = max(last_id, self.last_error_id or last_id)
            if last_id > self.last_id:
                self.last_id, self.source = last_id, source

    @property
    def records(self) -> int:
        return sum(self.levels.values())


def patterns(scan: Scan, new_since: Moment | None, filters: Filters) -> list[Pattern]:
    """Count records by pattern; see `LogReader.patterns`."""
    chosen = where(scan.all, filters)
    if new_since is None:
        found = _merged(scan, _counted(scan, chosen))
        return _described(found, _samples(scan, _ranked(found)))
    later, new, _ = compared(scan, chosen, begin_of(scan, new_since))
    return [pattern for pattern in later if pattern.last_id in new]


def compared(
    scan: Scan, chosen: Where, begin_us: int, after_id: int = LOWEST
) -> tuple[list[Pattern], set[int], dict[int, float] | None]:
    """
    Count the records from `begin_us` on by pattern, and compare them with the older rows.

    Returns, by their `last_id`, also the patterns that no older row has, and how many times as often as before each
    other one was logged, or None if there are no older rows: by time, or for each record of all others of these if that
    is less, and at most the number of its records. Of the older rows, only those after the id `after_id` count.
    """
    # Without the filters: a pattern that any older row has is not new.
    older = _counted(scan, Where("+created_us < ?", (begin_us,), LOWEST, begin_us, after_id))
    later = chosen.narrowed("+created_us >= ?", begin_us)._replace(since_us=max(begin_us, chosen.since_us))
    found = _merged(scan, _counted(scan, later), {source_id for source_id, _ in older.by_source()})
    before = defaultdict[_Source, _Sums](_Sums)
    functions = {_function(sums.source) for key, sums in found.items() if not key[4]}
    said = set[tuple[str, ...]]()

    def guessed() -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Add up the older records of the same patterns, and yield those of the same functions without a template."""
        for _, source, levels in _named(scan, older.by_source()):
            key, function = _key(source), _function(source)
            if key in found:
                before[key].add(source, levels)
            if not key[4] and function in functions:
                said.add((*function, ""))
                yield sum(level[1] for level in levels), max(level[4] for level in levels), function

    frequent = nlargest(_SAMPLES, guessed())
    texts = _samples(scan, _ranked(found)) | _samples(scan, frequent)
    said |= {(*function, masked(texts.get(last_id, ""))) for _, last_id, function in frequent}
    added = {key: sums for key, sums in found.items() if key not in before and key != _OTHERS}
    new = {sums.last_id for key, sums in added.items() if key[4] or _moved(sums, texts) not in said}
    grown: dict[int, float] | None = {} if len(older) else None
    if found and len(older):
        # No span is shorter than a second: one record in a microsecond is no rate.
        span_us = max(max(sums.last_us for sums in found.values()) - begin_us, 1_000_000)
        older_us = max(begin_us - older.first_us, 1_000_000)
        # Time alone is no measure: a job of cron does not run for most of it. What is new does not count as others,
        # because a flood of it would hide the rest. And one record is not frequent, however soon after a start it is.
        now, then = sum(found[key].records for key in before), sum(was.records for was in before.values())
        grown = {}
        for key, was in before.items():
            records = found[key].records
            by_others = max(then - was.records, 1) / max(now - records, 1)
            grown[found[key].last_id] = min(records / was.records * min(older_us / span_us, by_others), float(records))
    return _described(found, texts), new, grown


def begin_of(scan: Scan, new_since: Moment) -> int:
    """Return the beginning of a run, or a time, in microseconds."""
    if isinstance(new_since, int):
        ids = ",".join(map(str, run_processes(scan.all, new_since)))
        return int(scan.one(f"SELECT {whole('min(started_us)')} FROM processes WHERE id IN ({ids})"))  # noqa: S608 - numbers
    return where(scan.all, {"since": new_since}).since_us


def _named(scan: Scan, counts: Iterable[tuple[int, list[_Level]]]) -> Iterator[tuple[int, _Source, list[_Level]]]:
    """Yield call sites with their names, which are read some at a time."""
    counts, names = iter(counts), dict[object, object]()
    while some := [*islice(counts, _AT_ONCE)]:
        ids = ",".join(str(source_id) for source_id, _ in some)
        rows = scan.all(f"SELECT id, {SOURCE} FROM sources WHERE id IN ({ids})")  # noqa: S608 - numbers
        # Many call sites have the same names.
        found = {id_: tuple(names.setdefault(name, name) for name in source) for id_, *source in rows}
        for source_id, levels in some:
            yield source_id, found.get(source_id, _UNKNOWN), levels
        if len(names) > _MOST:
            names.clear()


def _merged(scan: Scan, counts: _CallSites, older: Collection[int] = ()) -> dict[_Source, _Sums]:
    """Add up the records of each pattern: of the call sites that matter most, if there are too many."""

    def rank(found: tuple[int, list[_Level]]) -> tuple[bool, bool, int]:
        source_id, levels = found
        return source_id not in older, max(levels)[0] >= ERROR, sum(level[1] for level in levels)

    found = defaultdict[_Source, _Sums](_Sums)
    left, named = _MOST_BYTES, set[int]()
    for source_id, source, levels in _named(scan, nlargest(_MOST, counts.by_source(), rank)):
        left -= sum(map(getsizeof, source))
        if left < 0:
            break
        named.add(source_id)
        found[_key(source)].add(source, levels)
    if left < 0 or len(counts) > _MOST:
        for source_id, levels in counts.by_source():
            if source_id not in named:
                found[_OTHERS].add(_OTHERS, levels)
    return found


def _function(source: _Source) -> tuple[str, ...]:
    return source[0], source[1], source[3]


def _key(source: _Source) -> _Source:
    """Return what the call sites of one pattern share: with a template, no line, which moves when the file changes."""
    logger, pathname, lineno, func, template = source
    return (logger, pathname, 0, "", template) if says_something(template) else (logger, pathname, lineno, func, "")


# Packed into one number, the keys that GROUP BY sorts take a fifth less. Levels above 255 are counted apart.
_PACKED: Final = f"""
SELECT who >> 8, who & 255, count(*), {whole("min(created_us)")}, {whole("max(created_us)")}, max(id) FROM (
    SELECT CASE WHEN levelno BETWEEN 0 AND 255 AND source_id BETWEEN 0 AND 1 << 50 THEN source_id << 8 | levelno
        ELSE -1 END AS who, created_us, id
    FROM records WHERE id BETWEEN ? AND ? AND {{0}} LIMIT -1
) GROUP BY who
"""  # noqa: S608 - our own names
_UNPACKED: Final = f"""
SELECT {whole("source_id")} AS source, {whole("levelno")} AS level, count(*), {whole("min(created_us)")},
    {whole("max(created_us)")}, max(id)
FROM records WHERE id BETWEEN ? AND ? AND {{0}} AND NOT coalesce(
    levelno BETWEEN 0 AND 255 AND source_id BETWEEN 0 AND 1 << 50, 0
) GROUP BY 1, 2
"""  # noqa: S608 - our own names


def _counted(scan: Scan, chosen: Where) -> _CallSites:
    counts = _CallSites()
    levels = set[int]()  # those above 255
    for span in scan.spans(chosen):
        parameters = (*span, *chosen.parameters)
        groups = scan.all(_PACKED.format(chosen.sql), parameters)
        if groups and groups[0][0] < 0:
            groups[:1] = scan.all(_UNPACKED.format(chosen.sql), parameters)
            levels.update(levelno for _, levelno, *_ in groups)
        for source_id, *found in groups:
            counts.add(source_id, tuple(found))
        scan.require_few(max(len(counts), len(levels) * _LEVEL))
    return counts


def _ranked(found: dict[_Source, _Sums]) -> list[tuple[int, int]]:
    return nlargest(_SAMPLES, ((sums.records, sums.last_id) for sums in found.values()))


def _samples(scan: Scan, frequent: Sequence[tuple[int, int, *tuple[object, ...]]]) -> dict[int, str]:
    """Return the newest message of the most frequent patterns by its id."""
    ids = [last_id for _, last_id, *_ in frequent]
    message = text(f"substr(message, 1, {_SAMPLE_LENGTH})")
    texts: dict[int, str] = {}
    for begin in range(0, len(ids), _AT_ONCE):
        some = ",".join(map(str, ids[begin : begin + _AT_ONCE]))
        texts.update(scan.all(f"SELECT id, {message} FROM records WHERE id IN ({some})"))  # noqa: S608 - numbers
    return texts


def _moved(sums: _Sums, texts: dict[int, str]) -> tuple[str, ...]:
    """Return the function and the text of a guessed pattern, by which we find it again if its line has moved."""
    return *_function(sums.source), masked(texts.get(sums.last_id, ""))


def _described(found: dict[_Source, _Sums], texts: dict[int, str]) -> list[Pattern]:
    everything = sum(sums.records for sums in found.values())
    described = []
    for (*_, template), sums in found.items():
        logger, pathname, lineno, func, _ = sums.source
        sample = texts.get(sums.last_id, "")
        source = f"{pathname}:{lineno} {func}"
        described.append(
            Pattern(
                text=template or masked(sample) or source,
                is_guessed=not template,
                logger=logger,
                source=source,
                records=sums.records,
                share=sums.records / everything,
                levels=dict(sorted(sums.levels.items())),
                first_us=sums.first_us,
                last_us=sums.last_us,
                last_id=sums.last_id,
                last_error_id=sums.last_error_id,
                sample=sample,
            )
        )
    return sorted(described, key=lambda pattern: (-pattern.records, pattern.logger, pattern.text, pattern.last_id))
