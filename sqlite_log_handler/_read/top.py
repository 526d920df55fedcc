"""Who logs most: read from the view `volume` if it can tell, and counted row by row if not."""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from operator import add, attrgetter
from sys import getsizeof
from typing import Any, Final, TypeAlias

from sqlite_log_handler._logfile.columns import text, total, whole
from sqlite_log_handler._logfile.schema import HOUR_US, OTHER_LOGGERS, ROW_BYTES, VOLUME_LINES, level_name
from sqlite_log_handler._read.conditions import attribute, may_have
from sqlite_log_handler._read.filters import (
    HIGHEST,
    IN_LEDGER,
    LOWEST,
    FilterError,
    Filters,
    Where,
    below,
    drops_where,
    level_names,
    level_range,
    require_short,
    require_shown,
    where,
)
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.search import Term, joined

TREND: Final = 12
_SPAN: Final = 10_000
# Most groups that have a line of their own. Those with fewest records are one more.
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Talker:
    """
    The records of one logger, call site, template, level, exception, thread, process or value of an attribute.

    `records` and `bytes` were written; `dropped` counts the drops, None if the ledger cannot tell. The shares, 0 to 1,
    are `share` of the records written and dropped, `bytes_share` of the bytes, and `dropped_share` of the drops.
    `trend` has the records, written and dropped, in each of twelve equal parts of the time.
    """

    name: str
    records: int
    bytes: int
    dropped: int | None
    share: float
    bytes_share: float
    dropped_share: float | None
    trend: tuple[int, ...]


_CALL_SITE: Final = "logger || ' ' || pathname || ':' || lineno || ' ' || func"
_PROCESS: Final = "pid || ' ' || name || ' ' || program || ' on ' || host"
_TEMPLATE: Final = f"""
CASE WHEN {text("template")} = '' THEN {text(_CALL_SITE)} ELSE {text("logger")} || ': ' || {text("template")} END
"""
# As the filters write it: to `json_extract`, true is 1, and an integer beyond 64 bits is a float.
_VALUE: Final = """
CASE json_type(attributes, ?) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE json_extract(attributes, ?) END
"""
_ATTRIBUTE: Final = f"""
json_valid(attributes) THEN (
    SELECT CASE typeof(value) WHEN 'real' THEN log_call(attributes) ELSE CAST(value AS TEXT) END
    FROM (SELECT coalesce({_VALUE}, {_VALUE}) AS value)
)
"""  # noqa: S608 - our own names


def _named(name: str, table: str) -> str:
    return f"coalesce((SELECT {text(name)} FROM {table} WHERE id = who AND typeof(who) = 'integer'), who)"  # noqa: S608 - our own names


# The value `who` by which to group, and how it is read, once for each group: a table of all names would be kept twice.
_GROUPS: Final = {
    "logger": ("source_id", _named("logger", "sources")),
    "source": ("source_id", _named(_CALL_SITE, "sources")),
    "template": ("source_id", _named(_TEMPLATE, "sources")),
    "level": ("levelno", whole("who")),  # not its name, because the ledger has the number too
    "exception": ("exc_type", text("who")),
    # An id, or the text that stands in the row itself.
    "thread": ("coalesce(thread_id, CAST(coalesce(thread_name, thread) AS TEXT))", _named("name", "threads")),
    "process": ("process_id", _named(_PROCESS, "processes")),
    "attribute": ("", text("who")),
}
# The columns of `drops` and of `volume` with the same value, if there is one.
_LEDGER: Final = {"logger": text("logger"), "level": whole("levelno"), "process": "process_id"}
_VOLUME: Final = {"logger": text("logger"), "level": whole("levelno")}
_VOLUME_FILTERS: Final = frozenset({"since", "until", "level", "logger", "exclude"})


class _Group:
    """The sums of one group."""

    __slots__ = ("bytes", "dropped", "records", "trend")

    def __init__(self) -> None:
        self.records = self.bytes = self.dropped = 0
        self.trend = [0] * TREND

    def add(self, part: int, records: int, size: int, dropped: int) -> None:
        """Add the records of one part of the time."""
        # In a file from elsewhere, numbers may be below zero, which no bar can show.
        records, size, dropped = max(records, 0), max(size, 0), max(dropped, 0)
        self.records += records
        self.bytes += size
        self.dropped += dropped
        self.trend[min(max(part, 0), TREND - 1)] += records + dropped

    def merge(self, other: "_Group") -> None:
        """Add the sums of another group."""
        self.records += other.records
        self.bytes += other.bytes
        self.dropped += other.dropped
        self.trend = [*map(add, self.trend, other.trend)]


_Groups: TypeAlias = defaultdict[Any, _Group]


def top(scan: Scan, by: str, filters: Filters, *, key: str | None = None) -> list[Talker]:
    """Say who logs most; see `LogReader.top`."""
    require_shown("by", by)
    require_shown("key", key)
    if not isinstance(by, str) or by not in _GROUPS:
        raise FilterError(f"by={by!r} is unknown: choose from {', '.join(_GROUPS)}")
    if not (isinstance(key, str) if by == "attribute" else key is None):
        raise FilterError(f"key={key!r}: must be the name of an attribute with by='attribute', and None with another")
    require_short("key", key)
    chosen = where(scan.all, filters)
    given = {name for name, value in filters.items() if value is not None}
    sums: _Groups = defaultdict(_Group)
    has_trend = True
    knows_drops = by in _LEDGER and given <= IN_LEDGER
    rest, (since, until) = chosen, scan.ends(chosen)
    parts = since, max((until - since) // TREND + 1, 1)  # the beginning of the first, and the length of each
    drops, values = drops_where(scan.all, filters) if knows_drops else ("0", ())
    in_full_hours = all(us in {LOWEST, HIGHEST} or us % HOUR_US == 0 for us in (chosen.since_us, chosen.until_us))
    if by in _VOLUME and given <= _VOLUME_FILTERS and in_full_hours:
        has_trend = _add_volume(scan, sums, _VOLUME[by], chosen, filters)
        # Of the hour that begins at `until`, only the first microsecond is wanted.
        rest = chosen.narrowed("+created_us = ?", chosen.until_us)._replace(since_us=chosen.until_us)
        drops, values = f"{drops} AND since_us = ?", (*values, chosen.until_us)
    if rest is chosen or chosen.until_us != HIGHEST:
        _add_records(scan, sums, (by, key), rest, parts)
        if by in _LEDGER:
            _add_drops(scan, sums, by, (drops, values), parts)
    names = level_names(scan.all) if by == "level" else {}
    records, size, dropped = (sum(map(attrgetter(of), sums.values())) for of in ("records", "bytes", "dropped"))
    if len(sums) > _MOST:
        others = _Group()
        # Not by `nsmallest`, which keeps a tuple for each of them.
        for name in sorted(sums, key=lambda name: sums[name].records + sums[name].dropped)[:-_MOST]:
            others.merge(sums.pop(name))
        sums[OTHER_LOGGERS].merge(others)
    talkers = [
        Talker(
            level_name(names, key) if by == "level" and key != OTHER_LOGGERS else str(key),
            group.records,
            group.bytes,
            group.dropped if knows_drops else None,
            _share(group.records + group.dropped, records + dropped),
            _share(group.bytes, size),
            _share(group.dropped, dropped) if knows_drops else None,
            tuple(group.trend) if has_trend else (),
        )
        for key, group in sums.items()
    ]
    return sorted(talkers, key=lambda talker: (-talker.share, talker.name))


def _share(part: int, everything: int) -> float:
    return part / everything if everything else 0.0


def _add_volume(scan: Scan, sums: _Groups, column: str, chosen: Where, filters: Filters) -> bool:
    """Add up the lines of `volume`, and return whether they cover enough hours for a trend."""
    terms: list[Term] = [("hour >= ? AND hour < ?", (chosen.since_us // 1_000_000, chosen.until_us // 1_000_000))]
    if (level := filters.get("level")) is not None:
        terms.append(("levelno BETWEEN ? AND ?", level_range(scan.all, level)))
    for is_not, names in (("", filters.get("logger")), ("NOT ", filters.get("exclude"))):
        if names is not None:
            terms.append(below(names, is_not))
    condition, parameters = joined(terms)
    # The lines before the view adds them up, and in one statement: so SQLite counts the newest rows once.
    hours = whole("(last - first) / 3600 + 1")
    rows = scan.all(
        f"WITH lines AS (SELECT * FROM ({VOLUME_LINES}) WHERE {condition}), ends AS "  # noqa: S608 - same
        "(SELECT CAST(min(hour) AS INTEGER) AS first, CAST(max(hour) AS INTEGER) AS last FROM lines) "
        f"SELECT {column}, {whole(f'(hour - first) / 3600 * {TREND} / {hours}')}, {total('records')}, "
        f"{total('bytes')}, {total('dropped')}, {hours} FROM lines, ends GROUP BY 1, 2",
        parameters,
    )
    for key, part, records, size, dropped, _ in rows:
        sums[key].add(part, records, size, dropped)
    return any(hours >= TREND for *_, hours in rows)


def _value_of(key: str) -> Term:
    """Return the value of an attribute, as the filters write it."""
    there, end = may_have(key)
    call = partial(attribute, key)
    names = [json.dumps(name, ensure_ascii=False) for name in (key, *key.split("."))]
    # A path cannot contain a backslash, because SQLite has no escape for quotes there; and of several dots, only the
    # filters know which ones are parts of names.
    if "\\" in names[0] or len(names) > 3:  # noqa: PLR2004 - the key, and two names in it
        return f"CASE WHEN {there} THEN log_call(attributes) END", (*end, call)
    paths = [f"$.{'.'.join(path)}" for path in (names[:1], names[1:]) for _ in range(2)]
    return f"CASE WHEN {there} AND {_ATTRIBUTE} END", (*end, call, *paths)


def _add_records(
    scan: Scan, sums: _Groups, group: tuple[str, str | None], chosen: Where, parts: tuple[int, int]
) -> None:
    by, key = group
    column, who = _GROUPS[by]
    places: tuple[object, ...] = ()
    if key is not None:
        column, places = _value_of(key)
    # LIMIT -1 keeps the inner query apart, so that GROUP BY sorts numbers and not messages.
    sql = (
        f"SELECT {who}, {whole('part')}, count(*), ifnull(sum(size), 0) FROM (SELECT {column} AS who, "  # noqa: S608 - no value in it
        f"(created_us - ?) / ? AS part, {ROW_BYTES} AS size FROM records "
        f"WHERE id BETWEEN ? AND ? AND {chosen.sql} LIMIT -1) WHERE who IS NOT NULL GROUP BY who, part"
    )
    held = 0
    for span in scan.spans(chosen, widest=_SPAN):
        for name, part, records, size in scan.all(sql, (*places, *parts, *span, *chosen.parameters)):
            if name not in sums:
                held += getsizeof(name)
            sums[name].add(part, records, size, 0)
        scan.require_few(len(sums), held)


def _add_drops(scan: Scan, sums: _Groups, by: str, ledger: Term, parts: tuple[int, int]) -> None:
    name = _GROUPS[by][1] if by == "process" else "who"
    condition, parameters = ledger
    sql = (
        f"SELECT {name}, part, dropped FROM (SELECT {_LEDGER[by]} AS who, {whole('(since_us - ?) / ?')} AS part, "  # noqa: S608 - same
        f"{total('count')} AS dropped FROM drops WHERE {condition} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {_SPAN} OFFSET ?)"
    )
    first = 0
    while some := scan.all(sql, (*parts, *parameters, first)):
        for key, part, dropped in some:
            sums[key].add(part, 0, 0, dropped)
        scan.require_few(len(sums), sum(map(getsizeof, sums)))
        first += _SPAN
