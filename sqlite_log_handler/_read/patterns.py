"""
Patterns: records that say the same, except for the values in them.

`logging` gets a template and its values apart, so a pattern is exactly the template of a logger in a source file. If a
program puts its values into the message by itself, there is no template, and a pattern is a call site. Its text is then
the newest message with numbers and identifiers masked, and it is marked as guessed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from logging import ERROR
from typing import Final, TypeAlias

from sqlite_log_handler._logfile.columns import text, whole
from sqlite_log_handler._read.filters import LOWEST, Filters, Where, run_processes, where
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.templates import masked, says_something

Moment: TypeAlias = datetime | date | str | int

# The most frequent patterns get a sample: how many, the characters of each, and how many we read at once.
_SAMPLES: Final = 1_000
_SAMPLE_LENGTH: Final = 300
_SAMPLES_AT_ONCE: Final = 100


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


# (logger, pathname, lineno, func, template)
_Source: TypeAlias = tuple[str, str, int, str, str]
# Without the line of a template, which moves with each change of the source file.
_Key: TypeAlias = tuple[str, str, int, str, str]


class _Sums:
    """The sums of one pattern."""

    __slots__ = ("first_us", "last_error_id", "last_id", "last_us", "levels", "source")

    def __init__(self) -> None:
        self.levels = Counter[int]()
        self.first_us, self.last_us, self.last_id = 1 << 63, LOWEST, LOWEST
        self.last_error_id: int | None = None
        self.source: _Source = ("?", "?", 0, "?", "")

    def add(self, source: _Source, levelno: int, found: tuple[int, int, int, int]) -> None:
        """Add a call site in one span of ids: its records, its first and last time, and its last id."""
        records, first_us, last_us, last_id = found
        self.levels[levelno] += records
        self.first_us = min(self.first_us, first_us)
        self.last_us = max(self.last_us, last_us)
        if levelno >= ERROR:
            self.last_error_id = max(last_id, self.last_error_id or last_id)
        if last_id > self.last_id:
            self.last_id, self.source = last_id, source

    @property
    def records(self) -> int:
        return self.levels.total()


def patterns(scan: Scan, new_since: Moment | None, filters: Filters, now: datetime | None = None) -> list[Pattern]:
    """Count records by pattern; see `LogReader.patterns`."""
    chosen = where(scan.all, filters, now)
    if new_since is None:
        found = _counted(scan, _sources(scan), chosen)
        return _described(found, _samples(scan, found.values()))
    later, new, _ = compared(scan, chosen, begin_of(scan, new_since, now))
    return [pattern for pattern in later if pattern.last_id in new]


def compared(
    scan: Scan, chosen: Where, begin_us: int, older_than_all: int = LOWEST
) -> tuple[list[Pattern], set[int], dict[int, float]]:
    """
    Count the records from `begin_us` on by pattern, and compare them with the older rows.

    Returns, by their `last_id`, also the patterns that no older row has, and how many times as often as before each
    other one was logged. Rows up to the id `older_than_all` are too old to be compared with.
    """
    sources = _sources(scan)
    # Without the filters: a pattern that any older row has is not new.
    older = _counted(scan, sources, Where("+created_us < ?", (begin_us,), None, begin_us, older_than_all))
    since_us = begin_us if chosen.since_us is None else max(begin_us, chosen.since_us)
    later = chosen.narrowed("+created_us >= ?", begin_us)._replace(since_us=since_us)
    found = _counted(scan, sources, later)
    guessed = [sums for key, sums in older.items() if not key[4]]
    texts = _samples(scan, guessed) | _samples(scan, found.values())
    said = {_moved(sums, texts) for sums in guessed}
    added = {key: sums for key, sums in found.items() if key not in older}
    new = {sums.last_id for key, sums in added.items() if key[4] or _moved(sums, texts) not in said}
    return _described(found, texts), new, _grown(found, older, begin_us)


def _grown(found: dict[_Key, _Sums], older: dict[_Key, _Sums], begin_us: int) -> dict[int, float]:
    if not found or not older:
        return {}
    # No span is shorter than a second: one record in a microsecond is no rate.
    span_us = max(max(sums.last_us for sums in found.values()) - begin_us, 1_000_000)
    older_us = max(begin_us - min(sums.first_us for sums in older.values()), 1_000_000)
    rates = [(sums, older[key].records) for key, sums in found.items() if key in older]
    return {sums.last_id: sums.records / before * older_us / span_us for sums, before in rates}


def begin_of(scan: Scan, new_since: Moment, now: datetime | None = None) -> int:
    """Return the beginning of a run, or a time, in microseconds."""
    if isinstance(new_since, int):
        ids = ",".join(map(str, run_processes(scan.all, new_since)))
        return int(scan.one(f"SELECT {whole('min(started_us)')} FROM processes WHERE id IN ({ids})"))  # noqa: S608 - numbers
    since_us = where(scan.all, {"since": new_since}, now).since_us
    return LOWEST if since_us is None else since_us


def _sources(scan: Scan) -> dict[int, _Source]:
    columns = ", ".join([*map(text, ("logger", "pathname")), whole("lineno"), *map(text, ("func", "template"))])
    return {id_: tuple(source) for id_, *source in scan.all(f"SELECT id, {columns} FROM sources")}  # noqa: S608 - our own names


def _key(source: _Source) -> _Key:
    logger, pathname, lineno, func, template = source
    return (logger, pathname, 0, "", template) if says_something(template) else (logger, pathname, lineno, func, "")


# Packed into one number, the keys that GROUP BY sorts take a fifth less. Levels above 255 are counted apart.
_PACKED: Final = """
SELECT who >> 8, who & 255, count(*), min(created_us), max(created_us), max(id) FROM (
    SELECT CASE WHEN levelno BETWEEN 0 AND 255 AND source_id BETWEEN 0 AND 1 << 50 THEN source_id << 8 | levelno
        ELSE -1 END AS who, created_us, id
    FROM records WHERE id BETWEEN ? AND ? AND {0} LIMIT -1
) GROUP BY who
"""
_UNPACKED: Final = f"""
SELECT {whole("source_id")} AS source, {whole("levelno")} AS level, count(*), {whole("min(created_us)")},
    {whole("max(created_us)")}, max(id)
FROM records WHERE id BETWEEN ? AND ? AND {{0}} AND NOT coalesce(
    levelno BETWEEN 0 AND 255 AND source_id BETWEEN 0 AND 1 << 50, 0
) GROUP BY 1, 2
"""  # noqa: S608 - our own names


def _counted(scan: Scan, sources: dict[int, _Source], chosen: Where) -> dict[_Key, _Sums]:
    found: dict[_Key, _Sums] = defaultdict(_Sums)
    keys = {id_: _key(source) for id_, source in sources.items()}
    unknown: _Source = ("?", "?", 0, "?", "")
    for span in scan.spans(chosen):
        parameters = (*span, *chosen.parameters)
        groups = scan.all(_PACKED.format(chosen.sql), parameters)
        if groups and groups[0][0] < 0:
            groups[:1] = scan.all(_UNPACKED.format(chosen.sql), parameters)
        for source_id, levelno, records, first_us, last_us, last_id in groups:
            source = sources.get(source_id, unknown)
            sums = found[keys.get(source_id, unknown)]
            sums.add(source, levelno, (records, _number(first_us), _number(last_us), last_id))
        scan.require_few(sum(len(sums.levels) for sums in found.values()) if len(groups) > _SAMPLES else len(found))
    return found


def _number(value: object) -> int:
    # In a file from elsewhere, any value may stand in any column.
    return value if isinstance(value, int) else 0


def _samples(scan: Scan, sums: Iterable[_Sums]) -> dict[int, str]:
    """Return the newest message of the most frequent patterns by its id."""
    frequent = sorted(sums, key=lambda one: -one.records)[:_SAMPLES]
    ids = [one.last_id for one in frequent]
    message = text(f"substr(message, 1, {_SAMPLE_LENGTH})")
    texts: dict[int, str] = {}
    for begin in range(0, len(ids), _SAMPLES_AT_ONCE):
        some = ",".join(map(str, ids[begin : begin + _SAMPLES_AT_ONCE]))
        texts.update(scan.all(f"SELECT id, {message} FROM records WHERE id IN ({some})"))  # noqa: S608 - numbers
    return texts


def _moved(sums: _Sums, texts: dict[int, str]) -> tuple[str, str, str, str]:
    """Return the function and the text of a guessed pattern, by which we find it again if its line has moved."""
    logger, pathname, _, func, _ = sums.source
    return logger, pathname, func, masked(texts.get(sums.last_id, ""))


def _described(found: dict[_Key, _Sums], texts: dict[int, str]) -> list[Pattern]:
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
