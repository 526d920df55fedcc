"""
What a log has counted since its file was made: totals that never fall, for monitoring.

Everything is read from tables of few lines, and from the rows that are not yet added up there, so it takes some
milliseconds at any size of the log.
"""

import os
from dataclasses import dataclass

from sqlite_log_handler._logfile.columns import text, total, whole
from sqlite_log_handler._read.scan import Scan


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a cursor is behind the last row: in rows, and in seconds since the first of them was logged."""

    name: str
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Totals:
    """
    Records by level, drops by cause and level, all processes together, since the file was made; and its state now.

    `wal_bytes` is the size of the -wal beside the file. `last_us` is the time of the last row, in microseconds since
    1970; None without a row.
    """

    records: dict[str, int]
    bytes: dict[str, int]
    drops: dict[tuple[str, str], int]
    last_us: int | None
    file_bytes: int
    wal_bytes: int
    lags: tuple[Lag, ...]


_WRITTEN = f"""
SELECT {text("coalesce(levels.name, 'Level ' || totals.levelno)")}, {total("records")}, {total("bytes")} FROM (
    SELECT levelno, records, bytes FROM volume UNION ALL SELECT levelno, records, bytes FROM record_totals
) AS totals LEFT JOIN levels ON levels.levelno = totals.levelno GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - our own names
_DROPPED = f"""
SELECT {text("cause")}, {text("coalesce(levels.name, 'Level ' || totals.levelno)")}, {total("count")}
FROM drop_totals AS totals LEFT JOIN levels ON levels.levelno = totals.levelno GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - our own names


def totals(scan: Scan, now_us: int) -> Totals:
    """Read the totals; see `LogReader.totals`."""
    written = scan.all(_WRITTEN)
    ((first_id, last_id, last_us),) = scan.all(
        f"SELECT (SELECT min(id) FROM records), (SELECT max(id) FROM records), "  # noqa: S608 - our own name
        f"(SELECT {whole('created_us')} FROM records ORDER BY id DESC LIMIT 1)"
    )
    ids = (first_id or 1, last_id or 0)
    wal = os.path.realpath(scan.path) + "-wal"
    return Totals(
        records={level: max(records, 0) for level, records, _ in written},
        bytes={level: max(size, 0) for level, _, size in written},
        drops={(cause, level): max(count, 0) for cause, level, count in scan.all(_DROPPED)},
        last_us=last_us,
        file_bytes=os.stat(scan.path).st_size,
        wal_bytes=os.stat(wal).st_size if os.path.exists(wal) else 0,
        lags=tuple(_lag(scan, name, after_id, ids, now_us) for name, after_id in scan.all(_CURSORS)),
    )


_CURSORS = f"SELECT {text('name')}, {whole('after_id')} FROM cursors ORDER BY 1"  # noqa: S608 - our own names


def _lag(scan: Scan, name: str, after_id: int, ids: tuple[int, int], now_us: int) -> Lag:
    # Ids have no holes, so the rows are counted without a look at them.
    first_id, last_id = ids
    rows = max(last_id - max(after_id, first_id - 1), 0)
    oldest = scan.all(f"SELECT {whole('created_us')} FROM records WHERE id > ? ORDER BY id LIMIT 1", (after_id,))  # noqa: S608 - our own name
    return Lag(name, rows, max(now_us - oldest[0][0], 0) / 1e6 if oldest else 0.0)
