"""
How much of a queue under pressure each logger holds.

While the queue is under pressure, each logger may hold as many rows as there is room left, and as many bytes;
docs/design.md has the reason, the promise and its proof. This takes no search in the queue, but a number per logger,
which goes up when a row comes, and down when it leaves. Rows at or above `reserve_level` have numbers of their own.

There are MAX_KEYS numbers at most. Loggers beyond that hold one share together, and while they hold anything, a logger
without a number of its own stays with them. So a row leaves the number to which it came.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._logfile.typed import Any
from sqlite_log_handler._write.ledger import LOGGER_LENGTH, MAX_KEYS
from sqlite_log_handler._write.row import LEVELNO, SIZE, SOURCE


class Shares:
    """
    What each logger holds of the rows that came since this was made, as [rows, size]. Used under the mutex.

    The `earlier` rows, which were queued by then, count for no logger.
    """

    def __init__(self, reserve_levelno: int, earlier: int) -> None:
        self._reserve_levelno = reserve_levelno
        self._earlier = earlier
        self._held: dict[tuple[str, bool], list[int]] = {}  # by logger, and whether at or above `reserve_level`

    def _holder(self, levelno: int, logger: str) -> tuple[str, bool]:
        held, reserved = self._held, levelno >= self._reserve_levelno
        key, others = (logger[:LOGGER_LENGTH], reserved), (OTHER_LOGGERS, reserved)
        return others if key not in held and (others in held or len(held) >= MAX_KEYS) else key

    def is_spent(self, levelno: int, logger: str, rows: int, size: int) -> bool:
        """Tell whether a logger holds as many rows as are left, or as many bytes."""
        held = self._held.get(self._holder(levelno, logger))
        return held is not None and (held[0] >= rows or held[1] >= size)

    def add(self, row: Any) -> None:
        """Count a row that has come."""
        held = self._held.setdefault(self._holder(row[LEVELNO], row[SOURCE][0]), [0, 0])
        held[0], held[1] = held[0] + 1, held[1] + row[SIZE]

    def remove(self, rows: Sequence[Any], place: int) -> None:
        """Count rows that have left from behind the first `place` of the queue."""
        earlier = min(len(rows), max(0, self._earlier - place))
        self._earlier -= earlier
        for row in rows[earlier:]:
            key = self._holder(row[LEVELNO], row[SOURCE][0])
            held = self._held.get(key)
            if held is not None:  # a nested call may take a row off before `add` has counted it
                held[0], held[1] = held[0] - 1, held[1] - row[SIZE]
                if held[0] <= 0:
                    del self._held[key]
