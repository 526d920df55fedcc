"""A log in numbers: gaps, statistics, a histogram, and whether the books agree."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlite_log_handler._logfile.columns import text, total, whole
from sqlite_log_handler._logfile.connect import size_of
from sqlite_log_handler._logfile.schema import OWN_LOGGER, SENT, VOLUME_LINES, level_name_of
from sqlite_log_handler._logfile.units import LONGEST, parse_seconds
from sqlite_log_handler._read.filters import (
    HIGHEST,
    FilterError,
    Filters,
    Where,
    drops_where,
    integer,
    level_names,
    where,
)
from sqlite_log_handler._read.opening import require_file
from sqlite_log_handler._read.scan import Scan

_MOST_BUCKETS: Final = 100_000
# Lines that a cursor counts for: a log has one for each receiver.
_CURSOR: Final = 100
# Seconds: from the unit of the file to the length of Python's calendar, which in these units has far below 64 bits.
_SHORTEST_BUCKET: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Records that are missing after row `after_id`, of one cause, logger and level; times in microseconds since 1970.

    If retention deleted rows before they were forwarded, `cause` is `max_age (not forwarded)` or the like, `after_id`
    is the last of the deleted rows, and `logger` and `level` are empty.
    """

    after_id: int
    since_us: int
    until_us: int
    cause: str
    logger: str
    level: str
    count: int
    process: int | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    How far a forwarder has come, and how far it is behind the last row.

    `lag_rows` counts the rows after `after_id`; `lag_seconds` is the age of the first of them, 0 if there is none.
    """

    name: str
    after_id: int
    updated_us: int
    lag_rows: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """The records logged from `since_us` to before `until_us`, by the number of their level, and the drops."""

    since_us: int
    until_us: int
    levels: dict[int, int]
    dropped: int

    @property
    def records(self) -> int:
        """Records of all levels."""
        return sum(self.levels.values())


@dataclass(frozen=True, slots=True)
class LogStats:
    """
    The contents of a log in rows and bytes; times in microseconds since 1970.

    `wal_bytes` is the size of the -wal beside the file; pruning left `free_bytes` free inside the file. `pruned` counts
    the rows that retention deleted, and with an archive those that are in neither; `unsent` are those of them that were
    not forwarded yet.
    """

    rows: int
    first_id: int | None
    last_id: int | None
    first_us: int | None
    last_us: int | None
    levels: dict[int, int]
    level_names: dict[int, str]
    loggers: int
    sources: int
    processes: int
    dropped: int
    dropped_by_cause: dict[str, int]
    pruned: int
    unsent: int
    file_bytes: int
    wal_bytes: int
    free_bytes: int
    journal_mode: str
    auto_vacuum: str
    cursors: tuple[Cursor, ...]


@dataclass(frozen=True, slots=True)
class Books:
    """
    Counts from different places of the file, which have to agree.

    `rows` are those of the program, without the `warnings` about drops. The warnings say how many records were dropped,
    and so do the ledger (table `drops`) and the view `volume`, which also counts the rows that were written.

    Since the file was made, `written_ever` rows and warnings were written, as many as the `last_id`, and `dropped_ever`
    records dropped. Of those that were written, `archived` are in the archive, `expired` were in parts of it that are
    deleted, `unarchived` were deleted without an archive, and `unmoved` are in the file alone.
    """

    rows: int
    warnings: int
    pruned: int
    written_in_volume: int
    dropped_in_ledger: int
    dropped_in_volume: int
    dropped_in_warnings: int
    written_ever: int
    last_id: int
    dropped_ever: int
    archived: int
    expired: int
    unarchived: int
    unmoved: int


_GAPS: Final = f"""
SELECT {whole("after_id")}, {whole("since_us")}, {whole("until_us")}, {text("cause")}, {text("logger")},
    {text(level_name_of("drops"))}, {whole("count")}, CAST(processes.pid AS INTEGER)
FROM drops
    LEFT JOIN levels ON levels.levelno = drops.levelno
    LEFT JOIN processes ON processes.id = process_id
WHERE {{0}}
ORDER BY 1, 2, drops.id
"""  # noqa: S608 - no value in it
_PRUNED: Final = f"""
SELECT {whole("after_id")}, {whole("since_us")}, {whole("until_us")}, {text("cause")}, '', '', {whole("count")}, NULL
FROM (
    SELECT last_id AS after_id, since_us, until_us, cause || ' (not forwarded)' AS cause, unsent AS count
    FROM prunes WHERE unsent > 0
) WHERE {{0}}
"""  # noqa: S608 - same


def gaps(scan: Scan, filters: Filters) -> list[Gap]:
    """Read the ledger; see `LogReader.gaps`."""
    # Pruned rows have lost their logger, level and process, so those filters do not apply.
    kept: Filters = {**filters, "level": None, "logger": None, "exclude": None, "process": None, "run": None}
    names: dict[str, str] = {}

    def gap(row: Any) -> Gap:
        # Of 100,000 lines, most have the same names.
        return Gap(*row[:3], *(names.setdefault(name, name) for name in row[3:6]), *row[6:])

    found: list[Gap] = []
    for sql, chosen in ((_GAPS, filters), (_PRUNED, kept)):
        condition, parameters = drops_where(scan.all, chosen)
        found += scan.all(sql.format(condition), parameters, gap)
    return sorted(found, key=lambda gap: (gap.after_id, gap.since_us))


def histogram(scan: Scan, bucket: str | float | None, filters: Filters, most: int) -> list[Bucket]:
    """Count records over time; see `LogReader.histogram`."""
    chosen = where(scan.all, filters)
    first, last = scan.ends(chosen)
    if first > last:
        return []
    width = _width(bucket, last - first, most)
    begin, count = first // width, last // width - first // width + 1
    if count > _MOST_BUCKETS:
        raise FilterError(f"bucket={bucket!r} makes {count:,} buckets of this log: take a longer one")
    levels: list[dict[int, int]] = [{} for _ in range(count)]
    # SQLite divides towards zero, and Python down.
    part = f"created_us / {width} - {begin}" + (f" - (created_us % {width} < 0)" if first < 0 else "")
    sql = (
        f"SELECT {whole('part')}, {whole('levelno')}, count(*) FROM (SELECT {part} AS part, levelno FROM records "  # noqa: S608 - same
        f"WHERE id BETWEEN ? AND ? AND {chosen.sql} LIMIT -1) GROUP BY part, levelno"
    )
    cells = 0
    for span in scan.spans(chosen):
        for part, levelno, records in scan.all(sql, (*span, *chosen.parameters)):
            if 0 <= part < count:  # rows that a writer has added meanwhile may be later
                found = levels[part]
                cells += levelno not in found
                found[levelno] = found.get(levelno, 0) + records
        scan.require_few(cells)
    dropped = dropped_over_time(gaps(scan, filters), width)
    return [
        Bucket(start * width, (start + 1) * width, levels[start - begin], dropped[start * width])
        for start in range(begin, begin + count)
    ]


def dropped_over_time(found: Iterable[Gap], width: int) -> Counter[int]:
    """Count dropped records by the beginning of their bucket, which is `width` microseconds long."""
    counts: Counter[int] = Counter()
    for gap in found:
        if gap.logger:  # pruned rows have none
            counts[gap.since_us // width * width] += gap.count
    return counts


_NICE_SECONDS: Final = (
    *(0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200),
    *(86_400, 172_800, 604_800, 1_209_600, 2_419_200, 7_257_600, 31_449_600, 314_496_000, 3_144_960_000),
)


def _width(bucket: str | float | None, span_us: int, most: int) -> int:
    """Return the length of a bucket in microseconds: `bucket`, or a round one of which `most` cover the span."""
    integer("most", most, 2)
    if bucket is None:
        return next((round(s * 1e6) for s in _NICE_SECONDS if span_us / (s * 1e6) < most - 1), min(span_us, HIGHEST))
    try:
        seconds = parse_seconds(bucket)
    except (TypeError, ValueError, OverflowError) as error:
        raise FilterError(f"bucket: {error}") from error
    if not _SHORTEST_BUCKET <= seconds <= LONGEST:
        raise FilterError(f"bucket={bucket!r}: must be a microsecond or more, and 10,000 years or less")
    return round(seconds * 1e6)


_VACUUM: Final = ("none", "full", "incremental")


def stats(scan: Scan, now_us: int, *, by_level: bool = True) -> LogStats:
    """Count rows, bytes and drops; see `LogReader.stats`."""
    levels = _levels(scan) if by_level else {}
    causes = dict(scan.all(f"SELECT {text('cause')}, {total('count')} FROM drops GROUP BY 1 ORDER BY 2 DESC, 1"))  # noqa: S608 - our own names
    pruned, unsent = scan.row(f"SELECT {total('count')}, {total('unsent')} FROM prunes")  # noqa: S608 - our own names
    first_id, last_id, first_us, last_us = scan.ends_of("id", "created_us")
    return LogStats(
        # Ids have no holes.
        rows=sum(levels.values()) if by_level else last_id - first_id + 1 if first_id and last_id else 0,
        first_id=first_id,
        last_id=last_id,
        first_us=first_us,
        last_us=last_us,
        levels=dict(sorted(levels.items())),
        level_names=level_names(scan.all),
        loggers=scan.one("SELECT count(DISTINCT logger) FROM sources"),
        sources=scan.one("SELECT count(id) FROM sources"),
        processes=scan.one("SELECT count(id) FROM processes"),
        dropped=sum(causes.values()),
        dropped_by_cause=causes,
        pruned=pruned,
        unsent=unsent,
        cursors=tuple(cursors(scan, now_us)),
        **file_numbers(scan),
    )


def _levels(scan: Scan) -> dict[int, int]:
    levels = Counter[int]()
    rows = "SELECT levelno FROM records WHERE id BETWEEN ? AND ? LIMIT -1"
    for span in scan.spans(Where()):
        # A cell is cast to a number once for each group.
        for levelno, count in scan.all(f"SELECT {whole('levelno')}, count(*) FROM ({rows}) GROUP BY levelno", span):  # noqa: S608 - our own names
            levels[levelno] += count
        scan.require_few(len(levels))
    return levels


def file_numbers(scan: Scan) -> dict[str, Any]:
    """Return what `LogStats` has of the file itself, by name."""
    file_bytes, wal_bytes = sizes(scan.path)
    return {
        "file_bytes": file_bytes,
        "wal_bytes": wal_bytes,
        "free_bytes": scan.one("PRAGMA freelist_count") * scan.one("PRAGMA page_size"),
        # SQLite looks at no WAL of a file that nobody writes to. Only a log in WAL mode is opened so, see `open_log`.
        "journal_mode": "wal" if scan.immutable else scan.one("PRAGMA journal_mode"),
        "auto_vacuum": _VACUUM[scan.one("PRAGMA auto_vacuum")],
    }


def sizes(path: str) -> tuple[int, int]:
    """Return the bytes of a file and of its WAL."""
    wal_bytes = size_of(os.path.realpath(path) + "-wal")
    try:
        return os.stat(path).st_size, wal_bytes  # of an archive alone, the path is a folder
    except OSError:
        require_file(path)
        raise


def cursors(scan: Scan, now_us: int) -> Iterator[Cursor]:
    """Yield how far each forwarder has come."""
    first_id, last_id = scan.ends_of("id")
    sql = f"SELECT {text('name')}, {whole('after_id')}, {whole('updated_us')} FROM cursors ORDER BY 1"  # noqa: S608 - our own names
    scan.require_few(len(found := scan.all(sql)) * _CURSOR)
    for name, after_id, updated_us in found:
        # Ids have no holes, so no row is counted.
        lag = max((last_id or 0) - max(after_id, (first_id or 1) - 1), 0)
        oldest = scan.all(f"SELECT {whole('created_us')} FROM records WHERE id > ? ORDER BY id LIMIT 1", (after_id,))  # noqa: S608 - our own names
        yield Cursor(name, after_id, updated_us, lag, max(now_us - oldest[0][0], 0) / 1e6 if oldest else 0.0)


def books(scan: Scan) -> Books:
    """Count in all places that have to agree; see `LogReader.books`."""
    # In one statement, because a program may log at this moment.
    rows, warnings, *others = scan.row(_BOOKS)
    return Books(rows - warnings, warnings, *others)


# SQLite counts a table in one step, which nothing can interrupt, however long it takes; but not a query with a LIMIT.
# The scan for warnings is the dearest part; without a logger for them, SQLite leaves it out.
# A warning that another handler has sent counts records of its own file.
_BOOKS: Final = f"""
WITH own AS (SELECT id FROM sources WHERE logger = '{OWN_LOGGER}' AND func <> '{SENT}')
SELECT rows, warnings, pruned, records, in_ledger, in_volume, in_warnings, records + cut, last_id, dropped,
    archived, expired, unarchived, rows - moved
FROM
    (SELECT count(*) AS rows FROM (SELECT 1 FROM records LIMIT -1)),
    (SELECT count(dropped) AS warnings, {total("dropped")} AS in_warnings FROM
        (SELECT json_extract(attributes, '$.dropped') AS dropped
        FROM (SELECT min(id) AS lowest, max(id) AS highest FROM own) CROSS JOIN records
        WHERE lowest IS NOT NULL AND source_id BETWEEN lowest AND highest AND source_id IN own
            AND json_valid(attributes))),
    (SELECT {total("count")} AS pruned FROM prunes),
    (SELECT {total("records")} AS records, {total("dropped")} AS in_volume FROM ({VOLUME_LINES})),
    (SELECT {total("count")} AS in_ledger FROM drops),
    (SELECT {total("records")} AS cut FROM record_totals),
    (SELECT ifnull(max(id), 0) AS last_id FROM records),
    (SELECT {total("count")} AS dropped FROM drop_totals),
    (SELECT {total("last_id - first_id + 1")} AS archived FROM archives),
    (SELECT {whole("expired")} AS expired, {whole("unarchived")} AS unarchived FROM marks LIMIT 1),
    (SELECT count(*) AS moved FROM (
        SELECT 1 FROM records WHERE id <= (SELECT {whole("archived_id")} FROM marks LIMIT 1) LIMIT -1
    ))
"""  # noqa: S608 - our own name
