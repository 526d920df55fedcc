"""
Totals since the file was made, for monitoring: they never fall, because retention leaves them alone.

They come from tables of few lines, and from the newest rows, which are not added up there yet. So reading them takes
milliseconds at any size of the log.
"""

from collections import Counter
from dataclasses import dataclass

from sqlite_log_handler._logfile.columns import text, total, whole
from sqlite_log_handler._logfile.schema import level_name
from sqlite_log_handler._read.filters import level_names
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.statistics import cursors, sizes


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a cursor is behind the last row, in rows, and in seconds since the first of them was logged."""

    name: str
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Totals:
    """
    Records and bytes by level and drops by cause and level, of all processes since the file was made; its state now.

    `wal_bytes` is the size of the -wal beside the file. `last_us` is the time of the last row in microseconds since
    1970, None without a row.
    """

    records: dict[str, int]
    bytes: dict[str, int]
    drops: dict[tuple[str, str], int]
    last_us: int | None
    file_bytes: int
    wal_bytes: int
    lags: tuple[Lag, ...]


_WRITTEN = f"""
SELECT {whole("levelno")}, {total("records")}, {total("bytes")} FROM (
    SELECT levelno, records, bytes FROM volume UNION ALL SELECT levelno, records, bytes FROM record_totals
) GROUP BY 1
"""  # noqa: S608 - our own names
_DROPPED = f"SELECT {text('cause')}, {whole('levelno')}, {total('count')} FROM drop_totals GROUP BY 1, 2"  # noqa: S608 - our own names


def totals(scan: Scan, now_us: int) -> Totals:
    """Read the totals; see `LogReader.totals`."""
    names = level_names(scan.all)
    # Two levels may have one name.
    records, lengths, drops = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for levelno, count, size in scan.all(_WRITTEN):
        name = level_name(names, levelno)
        records[name] += max(count, 0)
        lengths[name] += max(size, 0)
    for cause, levelno, count in scan.all(_DROPPED):
        drops[cause, level_name(names, levelno)] += max(count, 0)
    newest = scan.all(f"SELECT {whole('created_us')} FROM records ORDER BY id DESC LIMIT 1")  # noqa: S608 - our own name
    file_bytes, wal_bytes = sizes(scan.path)
    return Totals(
        records=dict(sorted(records.items())),
        bytes=dict(sorted(lengths.items())),
        drops=dict(sorted(drops.items())),
        last_us=newest[0][0] if newest else None,
        file_bytes=file_bytes,
        wal_bytes=wal_bytes,
        lags=tuple(Lag(cursor.name, cursor.lag_rows, cursor.lag_seconds) for cursor in cursors(scan, now_us)),
    )
