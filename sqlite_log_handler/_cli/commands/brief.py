"""
`sqlite-log brief`: what matters first, in at most 8 kB.

Each part of the text has a bound of its own, and says how much it leaves out and which command shows the rest.
"""

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from logging import ERROR
from operator import attrgetter
from typing import Final, TypeAlias

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.commands.patterns import GUESSED, moment_or_run
from sqlite_log_handler._cli.formats import Clock, behind, describe
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import level_name
from sqlite_log_handler._logfile.times import now_us
from sqlite_log_handler._logfile.units import counted, format_duration, format_size
from sqlite_log_handler._read.brief import Brief
from sqlite_log_handler._read.filters import LOWEST
from sqlite_log_handler._read.patterns import Pattern

_LinesOf: TypeAlias = Callable[[Pattern], list[str]]

# Bytes of UTF-8. The bounds of the parts come to less than the whole, so nothing is cut twice.
MOST_BYTES: Final = 8_000
_HEAD, _ERRORS, _CHANGED, _CURSORS = 800, 2_600, 1_200, 450
_LINE, _SHORT_LINE, _PATH = 160, 120, 100

# The most loggers, the most gaps, and the most lines of a traceback.
_LOUDEST, _LARGEST_GAPS, _TRACEBACK_LINES = 5, 5, 4

# The most patterns, and the most gaps, in the JSON.
_MOST: Final = 100


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    since = "since this time, or since the start of a run: a number as for --run (default: the last run, or all)"
    arguments.add_flag(parser, "-S, --since TIME|RUN", since)
    arguments.add_json(parser)
    arguments.add_utc(parser)


@command(
    _add_arguments,
    "Show what matters first, in at most 8 kB, however large the log is: how much there is, errors by pattern, each "
    "with the end of a traceback, patterns that were never seen before, who logs most, what is missing, and the state "
    "of the file and of forwarders. It covers all since the last run began, or the whole log if there was only one. It "
    "says what it leaves out, and which command shows that.",
    ("sqlite-log brief app-log.db", "since the last run began"),
    ("sqlite-log brief app-log.db -S -1h", "of the last hour, and what is new in it"),
)
def run(options: argparse.Namespace) -> int:
    """Show the brief. Returns 0, even for an empty log."""
    paths = [arguments.file_of(options), *options.archives]
    with arguments.open_reader(options) as reader:
        found = reader.brief(moment_or_run(options.since, utc=options.utc))
    return arguments.answer(options, document(found), lines_of(found, *paths, utc=options.utc), found)


def document(found: Brief) -> dict[str, object]:
    """Return the brief for `json_document`, with the first patterns and the last gaps, and how many there are."""
    drops = [{"cause": cause, "level": level, "count": n} for (cause, level), n in found.totals.drops.items()]
    return {
        **{name: getattr(found, name) for name in Brief.__slots__},
        "pattern_count": len(found.patterns),
        "gap_count": len(found.gaps),
        "patterns": found.patterns[:_MOST],
        "new": None if found.new is None else sorted(found.new)[:_MOST],
        "gaps": found.gaps[-_MOST:],
        "totals": {**asdict(found.totals), "drops": drops},
    }


def lines_of(found: Brief, *paths: str, utc: bool) -> Iterator[str]:
    """Return the lines of the brief, which are safe for a terminal."""
    return _Text(found, paths, utc=utc).lines()


class _Text:
    """The parts of one brief as lines."""

    def __init__(self, found: Brief, paths: Sequence[str], *, utc: bool) -> None:
        self._found = found
        # A longer path would leave no room for the facts.
        quoted = printable(shlex.join(paths))
        self._file = quoted if len(quoted.encode("utf-8", "replace")) <= _PATH else "FILE"
        self._kept = " with its archive" if paths[1:] else ""
        self._name = os.path.basename(os.path.abspath(paths[0]))
        self._clock = Clock("%Y-%m-%d %H:%M:%S", utc=utc)
        # By time and id, as the brief counts: `--run 0` would leave out what earlier processes have logged since.
        self._since = f"@{(found.since_us or 0) / 1e6:.6f}".rstrip("0").rstrip(".")
        self._scope = "" if found.since_us is None else f" -S {self._since}"
        self._counted = f" --after-id {found.after_id}" if found.after_id else ""

    def lines(self) -> Iterator[str]:
        """Yield all lines."""
        found = self._found
        errors = [pattern for pattern in found.patterns if pattern.last_error_id is not None]
        errors.sort(key=lambda pattern: -_records(pattern))
        yield from chain(*fitting(([line] for line in self._head(errors)), _HEAD))
        title = "errors (how many, from when to when, the newest id)"
        left = yield from self._part(title, errors, self._error, _ERRORS)
        yield from self._left("more pattern", left, f" -p ERROR{self._scope}", ERROR)
        title = "what changed (in the order of the first time, with the newest id)"
        # By time, because the first event in a chain of failures is often the cause.
        left = yield from self._part(title, found.changes(), self._change, _CHANGED, by_time=True)
        if found.since_us is not None and found.new is None and not found.left_out:
            yield from ("", f"what changed: {'no row that was counted' if found.after_id else 'no row'} is older")
        # `--new-since` looks at all older rows, and so it does not know what is new among those that we count.
        apart = frozenset() if found.after_id else found.new or frozenset()
        new = [pattern for pattern in left if pattern.last_id in apart]
        yield from self._left("more new pattern", new, f" --new-since {self._since}")
        others = [pattern for pattern in left if pattern.last_id not in apart]
        what = "more new or frequent pattern" if found.after_id else "more frequent pattern"
        yield from self._left(what, others, self._scope, how=", among others")
        yield from self._loud()
        yield from self._gaps()
        yield from self._state()

    def _head(self, errors: list[Pattern]) -> Iterator[str]:
        found = self._found
        what = "the whole log" if found.since_us is None else f"since {self._clock(found.since_us)}"
        of = f"{found.runs:,} runs"
        what = f"since the last of {of} began" if found.is_last_run else f"{what}, of {of}" if found.runs > 1 else what
        yield f"{_line(self._name, 80)}: {what}"
        if found.first_us is not None and found.last_us is not None:
            length = format_duration((found.last_us - found.first_us) / 1e6)
            yield f"time     {self._clock(found.first_us)} to {self._clock(found.last_us)}, {length}"
        if found.begins is not None:
            yield _line(f"begins   {': '.join(found.begins)}")
        levels = Counter[int]()
        for pattern in found.patterns:
            levels.update(pattern.levels)
        named = self._levels(levels, 8) or "none"
        yield _line(f"records  {found.records:,}: {named}; {counted(len(found.patterns), 'pattern')}")
        if found.after_id:
            counts_all = f"`sqlite-log patterns {self._file}{self._scope}` counts all"
            yield f"         only those after id {found.after_id}; {counts_all}"
        for reason in found.left_out:
            yield _line(f"left out {reason}", 2 * _LINE)
        if not errors and not found.left_out:
            yield "No record is at ERROR or above."

    def _part(
        self, title: str, found: list[Pattern], as_lines: _LinesOf, most: int, *, by_time: bool = False
    ) -> Generator[str, None, list[Pattern]]:
        """Yield the lines of the first patterns, and return those for which there is no room."""
        if not found:
            return []
        shown = fitting(map(as_lines, found), most)
        items = [*zip((pattern.first_us for pattern in found), shown, strict=False)]
        yield from ("", f"{title}:", *chain(*(lines for _, lines in (sorted(items) if by_time else items))))
        return found[len(shown) :]

    def _left(self, what: str, left: list[Pattern], flags: str, least: int = LOWEST, how: str = "") -> Iterator[str]:
        """Say how many patterns are left out, with their records from a level on, and which command shows them."""
        if left:
            records = counted(sum(_records(pattern, least) for pattern in left), "record")
            command = f"sqlite-log patterns {self._file}{flags}{self._counted} -n all"
            yield f"  and {counted(len(left), what)}, {records}{how}: see `{command}`"

    def _is_new(self, pattern: Pattern) -> bool:
        return pattern.last_id in (self._found.new or ())

    def _change(self, pattern: Pattern) -> list[str]:
        what = "new" if self._is_new(pattern) else f"{self._found.grown[pattern.last_id]:,.0f} times as often"
        begun, levels = self._clock(pattern.first_us), self._levels(pattern.levels, 4)
        lines = [_line(f"  {begun}  {what}: {levels}  id {pattern.last_id}  {_named(pattern)}")]
        # The brief shows messages of errors elsewhere, and a guessed pattern or one without a value is its own message.
        if pattern.last_error_id is None and not pattern.is_guessed and "%" in pattern.text and pattern.sample:
            lines.append(_line(f"    {pattern.sample}"))
        return lines

    def _error(self, pattern: Pattern) -> list[str]:
        times = f"{self._clock(pattern.first_us)} to {self._clock(pattern.last_us)}"
        lines = [_line(f"  {_records(pattern):,}  {times}  id {pattern.last_error_id}  {_named(pattern)}")]
        message, traceback = self._found.errors.get(pattern.last_error_id or 0, ("", ""))
        if message:
            lines.append(_line(f"    {message}"))
        lines += (_line(f"    | {line}", _SHORT_LINE) for line in traceback.splitlines()[-_TRACEBACK_LINES:])
        return lines

    def _loud(self) -> Iterator[str]:
        records, dropped = Counter[str](), Counter[str]()
        for pattern in self._found.patterns:
            records[pattern.logger] += pattern.records
        for gap in self._found.gaps:
            if gap.count > 0 and gap.logger and gap.after_id >= self._found.after_id:
                dropped[gap.logger] += gap.count
        attempted = records + dropped
        ranked = attempted.most_common()
        if not ranked:
            return
        yield from ("", "who logs most (records, share of all):")
        for name, count in ranked[:_LOUDEST]:
            lost = f", {dropped[name]:,} of them dropped" if dropped[name] else ""
            yield _line(f"  {count:,}  {count / attempted.total():.1%}  {name}{lost}", _SHORT_LINE)
        if left := ranked[_LOUDEST:]:
            rest = counted(sum(count for _, count in left), "record")
            command = f"sqlite-log top {self._file}{self._scope}{self._counted} -n all"
            yield f"  and {counted(len(left), 'more logger')}, {rest}: see `{command}`"

    def _gaps(self) -> Iterator[str]:
        gaps = self._found.gaps
        if not gaps:
            return
        places = [[*some] for _, some in groupby(gaps, attrgetter("after_id"))]
        places.sort(key=lambda lost: -sum(gap.count for gap in lost))
        total = counted(sum(max(gap.count, 0) for gap in gaps), "record")
        yield from ("", f"missing: {total} in {counted(len(places), 'gap')}")
        for lost in places[:_LARGEST_GAPS]:
            begin = self._clock(min(gap.since_us for gap in lost))
            yield _line(f"  {begin}  after id {lost[0].after_id}  {describe(lost)}")
        if left := places[_LARGEST_GAPS:]:
            yield f"  and {counted(len(left), 'more gap')}: see `sqlite-log gaps {self._file}{self._scope}`"

    def _state(self) -> Iterator[str]:
        totals = self._found.totals
        yield ""
        yield f"file     {format_size(totals.file_bytes)}{self._kept}; WAL {format_size(totals.wal_bytes)}"
        if totals.last_us is not None:
            age = max(now_us() - totals.last_us, 0) / 1e6
            yield f"last row {self._clock(totals.last_us)}, {format_duration(age)} ago"
        cursors = [[_line(f"cursor   {lag.name[:80]}, {behind(lag.rows, lag.seconds)}")] for lag in totals.lags]
        shown = fitting(cursors, _CURSORS)
        yield from chain(*shown)
        if left := cursors[len(shown) :]:
            yield f"  and {counted(len(left), 'more cursor')}: see `sqlite-log stats {self._file}`"

    def _levels(self, levels: Mapping[int, int], most: int) -> str:
        """Count the records at the highest levels."""
        names = self._found.level_names
        highest = sorted(levels.items())[-most:]
        return ", ".join(f"{_line(level_name(names, level), 24)} {count:,}" for level, count in highest)


def _records(pattern: Pattern, least: int = ERROR) -> int:
    """Count the records of a pattern from a level on."""
    return sum(count for level, count in pattern.levels.items() if level >= least)


def _named(pattern: Pattern) -> str:
    return f"{pattern.logger[:60]}: {pattern.text}{GUESSED if pattern.is_guessed else ''}"


def fitting(items: Iterable[list[str]], most: int) -> list[list[str]]:
    """Return the first items whose lines have at most `most` bytes together."""
    shown: list[list[str]] = []
    for lines in items:
        most -= sum(len(line.encode("utf-8", "backslashreplace")) + 1 for line in lines)
        if most < 0:
            break
        shown.append(lines)
    return shown


def _line(text: str, most: int = _LINE) -> str:
    """Make one line of a text, with at most `most` bytes."""
    line = printable(" ".join(text.splitlines()))
    if len(line.encode()) <= most:
        return line
    return line.encode()[: most - 3].decode(errors="ignore") + "..."
