"""
Volume: how much was logged, by hour, logger and level, kept apart from the rows that retention deletes.

Theory of operation
===================

`volume` is a view. It adds up the table `volume_folded` and the rows after a mark in the file, `marks.folded_id`. So it
is exact at every moment, and a commit of few rows writes no page for it. A commit folds the rows after the mark into
the table when there are FOLD_ROWS of them. Retention folds rows before it deletes them. With `max_bytes` a fold
changes few lines at a time, because each logger's line may be on a page of its own.

Guarantees
==========

- The rows go into the table in the transaction that moves the mark, so each row is counted once, whatever fails.
- At most FOLD_ROWS rows and one batch stand after the mark, so a look at the view reads no more.
- Dropped records are in the table from the start, because gaps are rare. `drop_totals` never falls.
"""

from __future__ import annotations

import sqlite3

from sqlite_log_handler._logfile.schema import HOUR_US, UNFOLDED
from sqlite_log_handler._logfile.typed import Any, Final

# Rows after the mark that a commit folds: a full batch. A look at the view takes some 10 ms to add them up.
FOLD_ROWS: Final = 10_000

# Bytes that a line takes besides the name of its logger, roughly.
LINE_BYTES: Final = 50

# NULL, which a flipped bit makes of a small number, counts as 0: SQLite would refuse it here, and so each later commit.
_INTO = "INSERT INTO volume_folded (hour, logger, levelno, records, bytes)"
_ADDED = """
ON CONFLICT DO UPDATE SET records = ifnull(records, 0) + excluded.records, bytes = ifnull(bytes, 0) + excluded.bytes
"""
_FOLD = f"""
{_INTO} SELECT ifnull(hour, 0), logger, ifnull(levelno, 0), records, ifnull(bytes, 0) FROM ({UNFOLDED}) WHERE true
{_ADDED}
"""  # noqa: S608 - our own SQL
_ADD = f"{_INTO} VALUES (ifnull(?, 0), ?, ifnull(?, 0), ?, ifnull(?, 0)) {_ADDED}"
_UNFOLDED_UP_TO = UNFOLDED.replace("LIMIT -1", "AND id <= :last_id LIMIT -1")
_FIRST_UNFOLDED = "SELECT min(id) FROM records WHERE id > (SELECT folded_id FROM marks)"
_MOVE_TO = "UPDATE marks SET folded_id = :last_id"
_MOVE = "UPDATE marks SET folded_id = max(folded_id, ifnull((SELECT max(id) FROM records), 0))"
_DROPPED = f"""
INSERT INTO volume_folded (hour, logger, levelno, dropped)
VALUES (:since_us / {HOUR_US} * 3600, :logger, :level, :count)
ON CONFLICT DO UPDATE SET dropped = ifnull(dropped, 0) + excluded.dropped
"""  # noqa: S608 - our own number
# A program can make up levels without end. After 1,000 lines the others count under level 0.
_DROP_TOTAL = """
INSERT INTO drop_totals (cause, levelno, count)
SELECT :cause, iif(
    (SELECT count(*) FROM drop_totals) < 1000
    OR EXISTS (SELECT 1 FROM drop_totals WHERE cause = :cause AND levelno = :level),
    :level, 0
), :count
WHERE true
ON CONFLICT DO UPDATE SET count = ifnull(count, 0) + excluded.count
"""


def fold(connection: sqlite3.Connection) -> None:
    """Fold all rows after the mark, in the transaction that is open."""
    connection.execute(_FOLD)
    connection.execute(_MOVE)


def unfolded_up_to(connection: sqlite3.Connection, last_id: int, most_lines: int) -> tuple[list[tuple[Any, ...]], int]:
    """Return lines for the rows after the mark, up to `last_id` or an id with at most `most_lines`, and that id."""
    (first_id,) = connection.execute(_FIRST_UNFOLDED).fetchone()
    counted: list[tuple[Any, ...]] = []
    # From the first row on, in growing steps: so a fold looks at a few times the rows that it folds.
    folded_id = rows = 0
    while folded_id < last_id:
        rows = max(most_lines, 2 * rows, rows * most_lines // max(1, len(counted)))
        up_to = min(last_id, (first_id or last_id) + rows - 1)
        more = connection.execute(_UNFOLDED_UP_TO, {"last_id": up_to}).fetchall()
        if counted and len(more) > most_lines:
            break
        counted, folded_id = more, up_to
    return counted, folded_id


def add(connection: sqlite3.Connection, counted: list[tuple[Any, ...]], last_id: int) -> None:
    """Fold what `unfolded_up_to` has counted."""
    if counted:
        connection.executemany(_ADD, counted)
        connection.execute(_MOVE_TO, {"last_id": last_id})


def add_drops(connection: sqlite3.Connection, drops: dict[str, Any]) -> None:
    """Count dropped records, given as cause, logger, level, count and since_us, in the transaction that is open."""
    connection.execute(_DROPPED, drops)
    connection.execute(_DROP_TOTAL, drops)
