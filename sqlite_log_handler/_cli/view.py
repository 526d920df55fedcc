"""The lines of `show`: rows in a format, the gaps between them, and the rows around a match."""

import argparse
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from typing import Any, Final, NamedTuple, TypeVar

from sqlite_log_handler._cli.formats import CLOCKS, Cat, Clock, Format, JsonObjects, Logfmt, Short, Verbose, with_gaps
from sqlite_log_handler._cli.terminal import painter
from sqlite_log_handler._read.filters import HIGHEST, IN_LEDGER, Filters
from sqlite_log_handler._read.reader import LogReader, around, columns_of, windows

FORMATS: Final = ("short", "short-iso", "short-precise", "verbose", "json", "jsonl", "cat", "logfmt")

# Rows that take less time to read in vain than a statement of their own, which takes some 90 us; and windows at a time.
_FEW_BETWEEN: Final = 30
_MOST_NEAR: Final = 1_000

_Entry = TypeVar("_Entry")


class Selection(NamedTuple):
    """
    The rows to show: those that match, or the newest of them. With `before` and `after`, also the rows around each
    match; with `around`, only the matches before and after that id.
    """

    filters: Filters
    newest: int | None = None
    before: int = 0
    after: int = 0
    around: int | None = None


class View:
    """Writes rows in the format of `-o`. `found` tells whether there were any."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.found = False
        self._options = options
        self._reverse: bool = options.reverse
        # Whether no row can follow. If one can, a gap after the last row is drawn before that row.
        self._ends: bool = not options.follow and options.cursor_file is None
        self._format = format_of(options)

    def document(self, reader: LogReader, selection: Selection) -> Iterator[str]:
        """Yield all lines; with `-o json`, as one array."""
        lines = self.lines(reader, selection)
        if self._options.output != "json":
            yield from lines
            return
        before = "["
        for line in lines:
            yield before
            before = f"{line},"
            del line  # or it would be in memory while the next one is made
        yield f"{before[:-1]}\n]" if self.found else "[]"

    def lines(self, reader: LogReader, selection: Selection) -> Iterator[str]:
        """Yield the lines of each row and of each gap."""
        if selection.around is not None:
            low, high = around(reader, selection.filters, selection.around, selection.before, selection.after)
            bounds: Filters = {**selection.filters, "after_id": low - 1, "up_to_id": high}
            return self._lines_of(reader, bounds, None, whole=False)
        if selection.before or selection.after:
            return self._with_context(reader, selection)
        return self._lines_of(reader, selection.filters, selection.newest, whole=selection.newest is None)

    def _lines_of(self, reader: LogReader, filters: Filters, newest: int | None, *, whole: bool) -> Iterator[str]:
        rows = columns_of(reader, self._format.columns, newest=newest, reverse=self._reverse, **filters)
        return self._format.lines(self._with_gaps(reader, self._noticed(rows), filters, whole=whole))

    def _with_gaps(self, reader: LogReader, rows: Iterator[Any], filters: Filters, *, whole: bool) -> Iterator[Any]:
        given = {name for name, value in filters.items() if value is not None}
        if not (self._format.draws_gaps and (self._options.gaps or given <= IN_LEDGER)):
            return rows
        ledger = filters.copy()
        if self._ends:
            last_id = filters.get("up_to_id")
            # A log without rows may have gaps.
            asks_for_all = last_id is None or not (last_id or reader.last_id())
            ledger["up_to_id"] = None if asks_for_all else min((last_id or 0) + 1, HIGHEST)
        return with_gaps(rows, reader.gaps(**ledger), reverse=self._reverse, whole=whole)

    def _with_context(self, reader: LogReader, selection: Selection) -> Iterator[str]:
        """Yield the rows around each match, with a line between those that are not consecutive."""
        is_first = True
        found = windows(
            reader, selection.filters, selection.newest, selection.before, selection.after, reverse=self._reverse
        )
        for near in _neighbours(found):
            near.sort()
            low, high = near[0][0], near[-1][1]
            bounds: Filters = {"after_id": low - 1, "up_to_id": high}
            rows = columns_of(reader, self._format.columns, reverse=self._reverse, **bounds)
            gaps = reader.gaps(after_id=low, up_to_id=high) if self._format.draws_gaps else []
            for number, some in groupby(rows, partial(_place_in, near)):
                if number is None:
                    continue
                low, high = near[number]
                # Only those between these rows.
                between = [gap for gap in gaps if low <= gap.after_id < high]
                entries = with_gaps(self._noticed(some), between, reverse=self._reverse, whole=False)
                yield from self._format.lines(entries if is_first else chain([[]], entries))
                is_first = False

    def _noticed(self, rows: Iterator[_Entry]) -> Iterator[_Entry]:
        """Yield the rows, and remember whether there were any."""
        for row in rows:
            self.found = True
            yield row
            del row
            # The rest at the speed of C.
            yield from rows


def _neighbours(windows: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield windows in lists: those that have few rows between them are read at once, with these rows."""
    near: list[tuple[int, int]] = []
    for window in windows:
        # They rise, or fall.
        if near and (len(near) == _MOST_NEAR or max(window[0] - near[-1][1], near[-1][0] - window[1]) > _FEW_BETWEEN):
            yield near
            near = []
        near.append(window)
    if near:
        yield near


def _place_in(windows: Sequence[tuple[int, int]], row: Sequence[Any]) -> int | None:
    """Return the number of the window, of those that rise, in which a row is."""
    number = bisect_right(windows, (row[0], HIGHEST)) - 1
    return number if number >= 0 and row[0] <= windows[number][1] else None


def format_of(options: argparse.Namespace) -> Format:
    """Return the format of `-o`."""
    name: str = options.output
    iso = Clock("%Y-%m-%dT%H:%M:%S%z", digits=6, utc=options.utc)
    if name in CLOCKS:
        fields = [field.strip() for field in options.fields.split(",") if field.strip()]
        return Short(CLOCKS[name](options.utc), painter(options.color), fields=fields, has_id=options.id)
    others: dict[str, Format] = {"verbose": Verbose(iso, painter(options.color)), "logfmt": Logfmt(iso), "cat": Cat()}
    return others.get(name) or JsonObjects()
