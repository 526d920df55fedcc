"""
How much of a queue under pressure each logger holds.

While the queue is under pressure, each logger may hold as many rows as there is room left, and as many bytes;
docs/design.md has the reason, the promise and its proof. This needs no clock, no rate and no search in the queue, but a
number per logger, which goes up when a row comes, and down when it leaves.

Rows at or above `reserve_level` count apart from the others, because they have the reserve besides: a logger that
floods at INFO keeps its share for errors.

There are MAX_KEYS numbers at most. Loggers beyond that hold one share together, and while they hold anything, a logger
without a number of its own stays with them. So a row leaves the number to which it came.
"""

from __future__ import annotations

from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._write.ledger import MAX_KEYS, NAME_LENGTH


class Shares:
    """What each logger holds of the rows that came since this was made, as [rows, size]. Used under the mutex."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, bool], list[int]] = {}  # by logger, and whether at or above `reserve_level`

    def _holder(self, logger: str, *, reserved: bool) -> tuple[str, bool]:
        held = self._held
        key, others = (logger[:NAME_LENGTH], reserved), (OTHER_LOGGERS, reserved)
        return others if key not in held and (others in held or len(held) >= MAX_KEYS) else key

    def is_spent(self, logger: str, rows: int, size: int, *, reserved: bool) -> bool:
        """Tell whether a logger holds as many rows as are left, or as many bytes."""
        held = self._held.get(self._holder(logger, reserved=reserved))
        return held is not None and (held[0] >= rows or held[1] >= size)

    def add(self, logger: str, size: int, *, reserved: bool) -> None:
        """Count a row that comes."""
        held = self._held.setdefault(self._holder(logger, reserved=reserved), [0, 0])
        held[0], held[1] = held[0] + 1, held[1] + size

    def remove(self, logger: str, size: int, *, reserved: bool) -> None:
        """Count a row that leaves."""
        key = self._holder(logger, reserved=reserved)
        held = self._held.get(key)
        if held is not None:
            held[0], held[1] = held[0] - 1, held[1] - size
            if held[0] <= 0:
                del self._held[key]
