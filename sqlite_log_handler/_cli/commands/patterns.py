"""`sqlite-log patterns`: which records say the same, how often, and which have never been seen before."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Final

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.formats import Clock
from sqlite_log_handler._cli.terminal import columns, fit
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import level_name
from sqlite_log_handler._read.patterns import Pattern

_RUN: Final = re.compile(r"-?\d{1,9}")
GUESSED: Final = " (guessed)"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    new = "only patterns that no record before has; a run is a number as for --run, 0 for the last"
    arguments.add_flag(parser, "--new-since TIME|RUN", new)
    arguments.add_lines(parser, default=20)
    arguments.add_json(parser)
    arguments.add_utc(parser)
    arguments.add_filters(parser)


@command(
    _add_arguments,
    "Show which records say the same. Those of one template, such as 'order %d paid', are counted exactly. Where a "
    "program puts its values into the message by itself, as an f-string does, the records of one call site count "
    "together, under a message in which values are masked, and are marked as guessed.",
    ("sqlite-log patterns app-log.db", "the most frequent, with a record of each"),
    ("sqlite-log patterns app-log.db --new-since 0 -p WARNING", "warnings that no earlier run has logged"),
    ("sqlite-log show app-log.db --pattern-of 1234", "the records of one of them, by its id"),
)
def run(options: argparse.Namespace) -> int:
    """Show the patterns. Returns 1 when there is none."""
    filters = arguments.filters_of(options)
    new_since = moment_or_run(options.new_since, utc=options.utc)
    with arguments.open_reader(options) as reader:
        found = reader.patterns(new_since=new_since, **filters)
        names = reader.level_names()
    return arguments.answer(options, found[: options.lines], table(found, names, options.lines, utc=options.utc), found)


def moment_or_run(text: str | int | None, *, utc: bool) -> datetime | int | None:
    """Read a time, or the number of a run; agents give that as a number."""
    if text is None or isinstance(text, int):
        return text
    return int(text) if _RUN.fullmatch(text) else arguments.moment(text, arguments.present(utc=utc))


def table(found: Sequence[Pattern], names: Mapping[int, str], most: int, *, utc: bool) -> Iterator[str]:
    """Yield the table: the numbers of each pattern, its text, and its newest record."""
    if not found:
        return
    clock = Clock("%Y-%m-%d %H:%M:%S", utc=utc)
    rows = [("records", "share", "first seen", "last seen", "id", "levels")]
    rows += (
        (
            f"{pattern.records:,}", f"{pattern.share:.1%}", clock(pattern.first_us), clock(pattern.last_us),
            str(pattern.last_id), printable(levels_of(pattern.levels, names)),
        )
        for pattern in found[:most]
    )  # fmt: skip
    rest = found[most:]
    if rest:
        records, share = sum(pattern.records for pattern in rest), sum(pattern.share for pattern in rest)
        rows.append((f"{records:,}", f"{share:.1%}", "", "", "", f"{len(rest):,} more; -n all shows them"))
    head, *lines = columns(rows)
    yield head
    for line, pattern in zip_longest(lines, found[:most]):
        yield line
        if pattern is not None:
            yield fit(f"  {one_line(f'{pattern.logger}: {pattern.text}')}{GUESSED if pattern.is_guessed else ''}")
            if pattern.sample and not pattern.is_guessed:
                yield fit(f"    {one_line(pattern.sample)}")


def levels_of(levels: Mapping[int, int], names: Mapping[int, str]) -> str:
    """Name the levels of a pattern; if it has several, with a count each."""
    named = {level_name(names, level): count for level, count in levels.items()}
    if len(named) == 1:
        return next(iter(named))
    return ", ".join(f"{name} {count:,}" for name, count in named.items())


def one_line(text: str) -> str:
    """Make one line of a text, safe for a terminal."""
    return printable(" ".join(text.split()))
