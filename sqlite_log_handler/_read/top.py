"""
Who logs most: from the table `volume` where that can tell, else row by row.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlite_log_handler._logfile.schema import ROW_BYTES
from sqlite_log_handler._read.filters import (
    IN_LEDGER,
    FilterError,
    Filters,
    Where,
    below,
    drops_where,
    level_range,
    where,
)
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.search import Term

HOUR_US: Final = 3_600_000_000
TREND: Final = 12
_SPAN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Talker:
    """
    What one logger, call site, level, exception, thread or process logged.

    `records` and `bytes` are what was written, `dropped` what was not; None where the ledger does not tell. The shares,
    0 to 1, are those of all: `share` of the records written and dropped, `bytes_share` of the bytes, `dropped_share` of
    the drops. `trend` has the records, written and dropped, in each of twelve equal parts of the time.
    """

    name: str
    records: int
    bytes: int
    dropped: int | None
    share: float
    bytes_share: float
    dropped_share: float | None
    trend: tuple[int, ...]


# What makes a group of records, and a query for the names of groups where that is a number.
_GROUPS: Final[dict[str, tuple[str, str]]] = {
    "logger": ("source_id", "SELECT id, logger FROM sources"),
    "source": ("source_id", "SELECT id, logger || ' ' || pathname || ':' || lineno || ' ' || func FROM sources"),
    "level": ("levelno", "SELECT levelno, name FROM levels"),
    "exception": ("exc_type", ""),
    "thread": ("coalesce(thread_name, thread)", ""),
    "process": ("process_id", "SELECT id, pid || ' ' || name || ' ' || program || ' on ' || host FROM processes"),
}
# The column of `drops` and of `volume` with the same, where they have it.
_LEDGER: Final = {"logger": "logger", "level": "levelno", "process": "process_id"}
_VOLUME: Final = {"logger": "logger", "level": "levelno"}
_VOLUME_FILTERS: Final = frozenset({"since", "until", "level", "logger", "exclude"})


class _Sums:
    """
    What one group has logged, added up.
    """

    __slots__ = ("bytes", "dropped", "records", "trend")

    def __init__(self) -> None:
        self.records = self.bytes = self.dropped = 0
        self.trend = [0] * TREND

    def add(self, part: int, records: int, size: int, dropped: int) -> None:
        """
        Add what was logged in one part of the time.
        """
        self.records += records
        self.bytes += size
        self.dropped += dropped
        self.trend[min(max(part, 0), TREND - 1)] += records + dropped


def top(scan: Scan, by: str, filters: Filters, now: datetime | None = None) -> list[Talker]:
    """
    Say who logs most; see `LogReader.top`.
    """
    if not isinstance(by, str) or by not in _GROUPS:
        message = f"by={by!r} is nothing to group by: use one of {', '.join(_GROUPS)}"
        raise FilterError(message)
    chosen = where(scan.connection, filters, now)
    given = {name for name, value in filters.items() if value is not None}
    sums: defaultdict[Any, _Sums] = defaultdict(_Sums)
    has_trend = True
    knows_drops = by in _LEDGER and given <= IN_LEDGER
    if by in _VOLUME and given <= _VOLUME_FILTERS and _in_full_hours(chosen):
        has_trend = _add_volume(scan, sums, _VOLUME[by], chosen, filters)
    else:
        _add_records(scan, sums, by, chosen)
        if knows_drops:
            _add_drops(scan, sums, _LEDGER[by], chosen, drops_where(scan.connection, filters, now))
    names = dict(scan.all(_GROUPS["level"][1])) if by == "level" else {}
    whole = _Sums()
    for group in sums.values():
        whole.add(0, group.records, group.bytes, group.dropped)
    talkers = [
        Talker(
            str(names.get(key, f"Level {key}")) if by == "level" else str(key),
            group.records,
            group.bytes,
            group.dropped if knows_drops else None,
            _share(group.records + group.dropped, whole.records + whole.dropped),
            _share(group.bytes, whole.bytes),
            _share(group.dropped, whole.dropped) if knows_drops else None,
            tuple(group.trend) if has_trend else (),
        )
        for key, group in sums.items()
    ]
    return sorted(talkers, key=lambda talker: (-talker.share, talker.name))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _in_full_hours(chosen: Where) -> bool:
    return not any(moment is not None and moment % HOUR_US for moment in (chosen.since_us, chosen.until_us))


def _add_volume(scan: Scan, sums: defaultdict[Any, _Sums], column: str, chosen: Where, filters: Filters) -> bool:
    """
    Add up what `volume` says, and return whether it is of hours enough to tell a trend.
    """
    terms, parameters = ["1"], list[object]()
    for sql, moment in (("hour >= ?", chosen.since_us), ("hour < ?", chosen.until_us)):
        if moment is not None:
            terms.append(sql)
            parameters.append(moment // 1_000_000)
    level = filters.get("level")
    if level is not None:
        terms.append("levelno BETWEEN ? AND ?")
        parameters += level_range(scan.connection, level)
    for negation, names in (("", filters.get("logger")), ("NOT ", filters.get("exclude"))):
        if names is not None:
            sql, values = below("logger", names)
            terms.append(negation + sql)
            parameters += values
    condition = " AND ".join(terms)
    ((first, last),) = scan.all(f"SELECT min(hour), max(hour) FROM volume WHERE {condition}", tuple(parameters))  # noqa: S608 - no value in it
    if first is None:
        return False
    hours = (last - first) // 3600 + 1
    rows = scan.all(
        f"SELECT {column}, (hour - ?) / 3600 * {TREND} / ?, sum(records), sum(bytes), sum(dropped) FROM volume"  # noqa: S608 - same
        f" WHERE {condition} GROUP BY 1, 2",
        (first, hours, *parameters),
    )
    for key, part, records, size, dropped in rows:
        sums[key].add(part, records, size, dropped)
    return bool(hours >= TREND)


def _add_records(scan: Scan, sums: defaultdict[Any, _Sums], by: str, chosen: Where) -> None:
    column, naming = _GROUPS[by]
    # Levels keep their numbers, which the ledger has too.
    names = dict(scan.all(naming)) if naming and by != "level" else {}
    since, width = _parts(scan, chosen)
    # LIMIT -1 keeps the inner query apart, so that what is sorted for the GROUP BY are numbers, and not the messages.
    sql = (
        f"SELECT who, count(*), sum(size) FROM (SELECT {column} AS who, {ROW_BYTES} AS size FROM records "  # noqa: S608 - no value in it
        f"WHERE id BETWEEN ? AND ? AND {column} IS NOT NULL AND {chosen.sql} LIMIT -1) GROUP BY who"
    )
    low, high = scan.bounds(chosen)
    # A span is short enough to lie in one part of the time, but for one row in some hundred.
    span = min(max((high - low) // (20 * TREND), 1), _SPAN)
    for low, high in scan.spans(chosen, span=span, widest=span):
        found = scan.all("SELECT created_us FROM records WHERE id >= ? ORDER BY id LIMIT 1", (low,))
        if not found:
            break  # all that was left has been pruned
        ((created_us,),) = found
        for key, records, size in scan.all(sql, (low, high, *chosen.parameters)):
            sums[names.get(key, key)].add((created_us - since) // width, records, size, 0)


def _add_drops(scan: Scan, sums: defaultdict[Any, _Sums], column: str, chosen: Where, ledger: Term) -> None:
    names = dict(scan.all(_GROUPS["process"][1])) if column == "process_id" else {}
    since, width = _parts(scan, chosen)
    condition, parameters = ledger
    rows = scan.all(
        f"SELECT {column}, (since_us - ?) / ?, sum(count) FROM drops WHERE {condition} GROUP BY 1, 2",  # noqa: S608 - same
        (since, width, *parameters),
    )
    for key, part, dropped in rows:
        sums[names.get(key, key)].add(part, 0, 0, dropped)


def _parts(scan: Scan, chosen: Where) -> tuple[int, int]:
    """
    Return when the first of the equal parts of the time begins, and how long each is, in microseconds.
    """
    since, until = scan.ends(chosen)
    return since, max((until - since) // TREND + 1, 1)
