"""
Read a log back: its last rows, its gaps, and who logged most.

Everything here opens the file read-only and asks plain SQL. Nothing here knows the half of the package that writes.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from sqlite_log_handler._schema import ForeignFileError, connect_read_only, is_ours

HIGHEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """
    A row of the view `logs`, as far as a person at a terminal reads it.
    """

    id: int
    time: str
    level: str
    logger: str
    message: str
    exc_text: str | None


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Records that were dropped after row `after_id`: one line of the table `drops`, times in microseconds.
    """

    after_id: int
    since_us: int
    until_us: int
    cause: str
    logger: str
    level: str
    count: int


@dataclass(frozen=True, slots=True)
class Talker:
    """
    What one logger attempted: the records in the file, the dropped ones, and its share (0 to 1) of all loggers'.
    """

    logger: str
    records: int
    dropped: int
    share: float


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What the file says of itself, counted row by row.
    """

    rows: int
    warnings: int
    dropped_in_ledger: int
    dropped_in_volume: int
    dropped_in_warnings: int


@contextmanager
def open_log(path: str) -> Iterator[sqlite3.Connection]:
    """
    Open the log at `path` for reading, and close it at the end of the `with` block.

    Raises:
        ForeignFileError: the file is no log of ours.
        NewerSchemaError: it is ours, but made by a newer version.
        sqlite3.OperationalError: there is no such file, or it may not be read.
    """
    with closing(connect_read_only(path)) as connection:
        if not is_ours(connection, path):
            message = f"{path!r} is an empty database: no log was written to it"
            raise ForeignFileError(message)
        yield connection


def read_last(connection: sqlite3.Connection, count: int, *, up_to_id: int | None = None) -> list[Row]:
    """
    Read the last `count` rows, oldest first; with `up_to_id`, the last ones up to that id.
    """
    rows = connection.execute(
        "SELECT id, time, level, logger, message, exc_text FROM logs WHERE id <= ? ORDER BY id DESC LIMIT ?",
        (HIGHEST_ID if up_to_id is None else up_to_id, count),
    )
    return [Row(*row) for row in rows][::-1]


def read_after(connection: sqlite3.Connection, count: int, *, after_id: int) -> list[Row]:
    """
    Read the first `count` rows behind the row `after_id`.
    """
    rows = connection.execute(
        "SELECT id, time, level, logger, message, exc_text FROM logs WHERE id > ? ORDER BY id LIMIT ?",
        (after_id, count),
    )
    return [Row(*row) for row in rows]


def read_gaps(connection: sqlite3.Connection) -> list[Gap]:
    """
    Read the ledger of drops, in the order of the rows that the gaps follow.
    """
    rows = connection.execute(
        "SELECT after_id, since_us, until_us, cause, logger, coalesce(levels.name, 'Level ' || drops.levelno), count"
        " FROM drops LEFT JOIN levels ON levels.levelno = drops.levelno ORDER BY after_id, since_us, drops.id"
    )
    return [Gap(*row) for row in rows]


def read_talkers(connection: sqlite3.Connection) -> list[Talker]:
    """
    Read who logged most: records in the file and dropped ones, summed up by logger, the loudest first.
    """
    rows = connection.execute(
        "SELECT logger, sum(records), sum(dropped), sum(records + dropped) * 1.0 / sum(sum(records + dropped)) OVER ()"
        " FROM volume GROUP BY logger ORDER BY sum(records + dropped) DESC, logger"
    )
    return [Talker(*row) for row in rows]


def read_totals(connection: sqlite3.Connection) -> Totals:
    """
    Count the program's rows and the drop warnings among them apart, and what was dropped by ledger and by warnings.

    Ledger and warnings are written apart from each other, so one sum proves the other.
    """
    warnings, dropped_in_warnings = connection.execute(
        "SELECT count(*), coalesce(sum(json_extract(attributes, '$.dropped')), 0) FROM logs"
        " WHERE logger = 'sqlite_log_handler' AND json_extract(attributes, '$.dropped') IS NOT NULL"
    ).fetchone()
    (rows,) = connection.execute("SELECT count(*) FROM records").fetchone()
    (dropped_in_ledger,) = connection.execute("SELECT coalesce(sum(count), 0) FROM drops").fetchone()
    (dropped_in_volume,) = connection.execute("SELECT coalesce(sum(dropped), 0) FROM volume").fetchone()
    return Totals(rows - warnings, warnings, dropped_in_ledger, dropped_in_volume, dropped_in_warnings)
