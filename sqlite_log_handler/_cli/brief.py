"""
A brief as text of at most 8 kB: each part has a bound of its own, and says what it leaves out and which command shows
the rest.
"""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from logging import ERROR, WARNING
from typing import Final

from sqlite_log_handler._cli.formats import Clock
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.units import format_duration, format_size, loudest
from sqlite_log_handler._read.brief import Brief
from sqlite_log_handler._read.patterns import Pattern

# Bytes of UTF-8. The parts come to less than the whole, so nothing is cut twice.
MOST_BYTES: Final = 8_000
_ERRORS: Final = 3_000
_CHANGED: Final = 1_400
_LOUD: Final = 700
_GAPS: Final = 900
_STATE: Final = 700
_HEAD: Final = 800

_LINE: Final = 160
_OFTEN: Final = 3  # times as often as before is worth a line
_TRACEBACK_LINES: Final = 4
_LONGEST_PATH: Final = 100


def text_of(found: Brief, path: str, *, utc: bool, now_us: int) -> str:
    """Return the brief as text, which is safe for a terminal."""
    return "\n".join(_Text(found, path, utc=utc, now_us=now_us).lines())


class _Text:
    """Lines for the parts of one brief."""

    def __init__(self, found: Brief, path: str, *, utc: bool, now_us: int) -> None:
        self._found = found
        self._now_us = now_us
        # A longer path would take the room of what matters.
        quoted = printable(shlex.quote(path))
        self._file = quoted if len(quoted.encode("utf-8", "replace")) <= _LONGEST_PATH else "FILE"
        self._name = os.path.basename(path)
        self._clock = Clock("%Y-%m-%d %H:%M:%S", utc=utc)
        since_us = found.since_us
        self._scope = " --run 0" if found.is_last_run else "" if since_us is None else f" -S @{since_us // 1_000_000}"

    def lines(self) -> Iterator[str]:
        """Yield all lines."""
        errors = [pattern for pattern in self._found.patterns if pattern.last_error_id is not None]
        errors.sort(key=lambda pattern: -_errors(pattern))
        yield from _fitting(([line] for line in self._head(errors)), _HEAD)
        yield from self._part("errors", errors, self._error, _ERRORS, f"patterns {self._file} -p ERROR{self._scope}")
        yield from self._changed()
        yield from self._loud()
        yield from self._gaps()
        yield ""
        yield from _fitting(([line] for line in self._state()), _STATE)

    def _head(self, errors: list[Pattern]) -> Iterator[str]:
        found = self._found
        what = "the last run" if found.is_last_run else "all" if found.since_us is None else "since the time asked for"
        yield f"{_line(self._name, 80)}: {what}{f', of {found.runs:,} runs' if found.runs > 1 else ''}"
        if found.first_us is not None and found.last_us is not None:
            length = format_duration((found.last_us - found.first_us) / 1e6)
            yield f"time     {self._clock(found.first_us)} to {self._clock(found.last_us)}, {length}"
        levels: Counter[int] = Counter()
        for pattern in found.patterns:
            levels.update(pattern.levels)
        named = ", ".join(f"{self._level(level)} {count:,}" for level, count in sorted(levels.items())[-8:])
        yield _line(f"records  {found.records:,} of {len(found.patterns):,} patterns: {named or 'none'}")
        if found.after_id:
            yield f"         only the newest rows, those behind id {found.after_id}: `sqlite-log patterns {self._file}`"
        for reason in found.left_out:
            yield _line(f"left out {reason}", 2 * _LINE)
        if not errors and not found.left_out:
            yield "No record is at ERROR or above."

    def _changed(self) -> Iterator[str]:
        """Say in order of time what began: the first thing in a row of failures is often their cause."""
        found = self._found
        new = found.new or frozenset()
        warned = [
            pattern
            for pattern in found.patterns
            if max(pattern.levels) >= WARNING
            and (pattern.last_id in new or found.grown.get(pattern.last_id, 0) >= _OFTEN)
        ]
        quiet = [pattern for pattern in found.patterns if pattern.last_id in new and max(pattern.levels) < WARNING]
        since = "0" if found.is_last_run else f"@{(found.since_us or 0) // 1_000_000}"
        rest = f"patterns {self._file} --new-since {since}"
        title = "what changed, by when it began"
        yield from self._part(title, warned + quiet, self._change, _CHANGED, rest, by_time=True)

    def _part(
        self,
        title: str,
        found: list[Pattern],
        lines_of: Callable[[Pattern], list[str]],
        most: int,
        rest: str,
        *,
        by_time: bool = False,
    ) -> Iterator[str]:
        if not found:
            return
        yield ""
        yield f"{title}:"
        shown: list[tuple[int, list[str]]] = []
        for pattern in found:
            lines = lines_of(pattern)
            most -= _size(lines)
            if most < 0:
                break
            shown.append((pattern.first_us, lines))
        for _, lines in sorted(shown) if by_time else shown:
            yield from lines
        if len(shown) < len(found):
            records = sum(pattern.records for pattern in found[len(shown) :])
            yield f"  and {len(found) - len(shown):,} more patterns, {records:,} records: `sqlite-log {rest}`"

    def _change(self, pattern: Pattern) -> list[str]:
        levels = ", ".join(f"{self._level(level)} {count:,}" for level, count in [*pattern.levels.items()][-4:])
        what = (
            "new"
            if pattern.last_id in (self._found.new or ())
            else f"{self._found.grown[pattern.last_id]:,.0f} times as often"
        )
        begun = self._clock(pattern.first_us)
        return [_line(f"  {begun}  {what}: {levels}  id {pattern.last_id}  {_named(pattern)}")]

    def _error(self, pattern: Pattern) -> list[str]:
        times = f"{self._clock(pattern.first_us)} to {self._clock(pattern.last_us)}"
        id_ = pattern.last_error_id
        lines = [_line(f"  {_errors(pattern):,}  {times}  id {id_}  {_named(pattern)}")]
        message, traceback = self._found.errors.get(id_ or 0, ("", ""))
        if message:
            lines.append(_line(f"    {message}"))
        lines += (_line(f"    | {line}", 120) for line in traceback.splitlines()[-_TRACEBACK_LINES:])
        return lines

    def _loud(self) -> Iterator[str]:
        records: Counter[str] = Counter()
        for pattern in self._found.patterns:
            records[pattern.logger] += pattern.records
        if not records:
            return
        yield ""
        yield "who logs most:"
        lines = [
            [_line(f"  {count:,}  {count / self._found.records:.1%}  {name}", 120)]
            for name, count in records.most_common(5)
        ]
        shown = [*_fitting(lines, _LOUD)]
        yield from shown
        if len(records) > len(shown):
            left = self._found.records - sum(count for _, count in records.most_common(len(shown)))
            yield f"  and {len(records) - len(shown):,} more loggers, {left:,} records: `sqlite-log top {self._file}`"

    def _gaps(self) -> Iterator[str]:
        gaps = self._found.gaps
        if not gaps:
            return
        places: dict[int, list[int]] = {}
        for index, gap in enumerate(gaps):
            places.setdefault(gap.after_id, []).append(index)
        total = sum(max(gap.count, 0) for gap in gaps)
        yield ""
        yield f"missing: {total:,} records in {len(places):,} gap{'s' if len(places) > 1 else ''}"
        lines = []
        for place in sorted(places.values(), key=lambda some: -sum(gaps[index].count for index in some)):
            lost = [gaps[index] for index in place]
            causes, loggers = Counter[str](), Counter[str]()
            for gap in lost:
                causes[gap.cause] += gap.count
                loggers[gap.logger or "?"] += gap.count
            begin = self._clock(min(gap.since_us for gap in lost))
            what = f"{loudest(causes, 3)}; {loudest(loggers, 3)}"
            lines.append([_line(f"  {sum(causes.values()):,}  {begin}  after id {lost[0].after_id}  {what}")])
            if len(lines) == 5:  # noqa: PLR2004 - the largest
                break
        shown = [*_fitting(lines, _GAPS)]
        yield from shown
        if len(places) > len(shown):
            yield f"  and {len(places) - len(shown):,} more gaps: `sqlite-log gaps {self._file}{self._scope}`"

    def _state(self) -> Iterator[str]:
        totals = self._found.totals
        yield f"file     {format_size(totals.file_bytes)}; WAL {format_size(totals.wal_bytes)}"
        if totals.last_us is not None:
            age = max(self._now_us - totals.last_us, 0) / 1e6
            yield f"last row {self._clock(totals.last_us)}, {format_duration(age)} ago"
        for lag in totals.lags:
            behind = f"{lag.rows:,} rows and {format_duration(lag.seconds)} behind" if lag.rows else "at the end"
            yield _line(f"cursor   {lag.name[:80]}, {behind}")

    def _level(self, levelno: int) -> str:
        return _line(self._found.level_names.get(levelno, f"Level {levelno}"), 24)


def _errors(pattern: Pattern) -> int:
    return sum(count for level, count in pattern.levels.items() if level >= ERROR)


def _named(pattern: Pattern) -> str:
    return f"{pattern.logger[:60]}: {pattern.text}{' (guessed)' if pattern.is_guessed else ''}"


def _fitting(items: Iterable[list[str]], most: int) -> Iterator[str]:
    """Yield the lines of the first items that come to at most this many bytes."""
    left = most
    for item in items:
        left -= _size(item)
        if left < 0:
            return
        yield from item


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode("utf-8", "backslashreplace")) + 1 for line in lines)


def _line(text: str, most: int = _LINE) -> str:
    """Make one line of a text, of at most that many bytes."""
    line = printable(" ".join(text.splitlines()))
    if len(line.encode()) <= most:
        return line
    return line.encode()[: most - 3].decode(errors="ignore") + "..."
