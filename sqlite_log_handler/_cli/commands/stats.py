"""`sqlite-log stats`: how much there is, and when it came."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.formats import Clock, behind
from sqlite_log_handler._cli.terminal import Paint, painter, terminal_width
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import level_name
from sqlite_log_handler._logfile.units import counted, format_duration, format_size, loudest
from sqlite_log_handler._read.statistics import Bucket, LogStats

_LOUD: Final = 30
_YEAR_US: Final = 365 * 86_400_000_000
# What a program may have put around the name of a level, by `logging.addLevelName`.
_COLOR: Final = re.compile(r"\x1b\[[0-9;]*m")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    length = "length of time of a bar, such as 10min or 1h (default: a round one)"
    arguments.add_flag(parser, "--bucket TIME", length)
    arguments.add_json(parser)
    arguments.add_color(parser)
    arguments.add_utc(parser)
    arguments.add_filters(parser)


@command(
    _add_arguments,
    "Show rows, time, levels, file, WAL, free pages, drops and cursors, and a histogram of the records over time: "
    "each bar consists of the first letters of the levels, and of ~ for drops.",
    ("sqlite-log stats app-log.db", "the whole log"),
    ("sqlite-log stats app-log.db -S -1h -p WARNING", "with a histogram of the warnings of the last hour"),
    ("sqlite-log stats app-log.db --bucket 10min", "with a bar for each ten minutes"),
)
def run(options: argparse.Namespace) -> int:
    """Show the numbers. Returns 1 when nothing matched the filters."""
    filters = arguments.filters_of(options)
    with arguments.open_reader(options) as reader:
        stats = reader.stats()
        buckets = reader.histogram(options.bucket, **filters)
    found = any(bucket.records or bucket.dropped for bucket in buckets)
    document = {"path": reader.path, **asdict(stats), "histogram": buckets}
    lines = [*numbers(reader.path, stats, utc=options.utc)]
    if found:
        lines.append("")
        if any(value is not None for value in filters.values()):
            lines.append("The numbers above are of the whole log. The records that match:")
        lines += histogram(buckets, stats.level_names, utc=options.utc, paint=painter(options.color))
    return arguments.answer(options, document, lines, found, "no record matches, so there is no histogram")


def numbers(path: str, stats: LogStats, *, utc: bool) -> Iterator[str]:
    """Yield a line for each kind of number."""
    yield f"file     {printable(path)}"
    taken, free, wal = map(format_size, (stats.file_bytes, stats.free_bytes, stats.wal_bytes))
    yield f"bytes    {taken}, {free} of it free; WAL {wal}"
    yield f"mode     journal_mode {stats.journal_mode}, auto_vacuum {stats.auto_vacuum}"
    ids = "" if stats.first_id is None else f", id {stats.first_id} to {stats.last_id}"
    yield (
        f"rows     {stats.rows:,}{ids}; {counted(stats.loggers, 'logger')}, {counted(stats.sources, 'call site')}, "
        f"{counted(stats.processes, 'process', 'processes')}"
    )
    if stats.first_us is not None and stats.last_us is not None:
        clock = Clock("%Y-%m-%d %H:%M:%S", utc=utc)
        seconds = (stats.last_us - stats.first_us) / 1e6
        yield f"time     {clock(stats.first_us)} to {clock(stats.last_us)}, {format_duration(seconds)}"
    names = (f"{level_name(stats.level_names, level)} {count:,}" for level, count in stats.levels.items())
    yield f"levels   {printable(', '.join(names)) or 'none'}"
    causes = f": {printable(loudest(stats.dropped_by_cause))}" if stats.dropped else ""
    yield f"dropped  {stats.dropped:,}{causes}"
    if stats.pruned:
        yield f"pruned   {stats.pruned:,}, {stats.unsent:,} of them not forwarded"
    for cursor in stats.cursors:
        lag = behind(cursor.lag_rows, cursor.lag_seconds)
        yield f"cursor   {printable(cursor.name)} at id {cursor.after_id}, {lag}"


def histogram(buckets: Sequence[Bucket], names: Mapping[int, str], *, utc: bool, paint: Paint) -> Iterator[str]:
    """Yield the bars, one for each bucket, to fit the terminal."""
    width_us = buckets[0].until_us - buckets[0].since_us
    day = "%Y-%m-%d" if buckets[-1].until_us - buckets[0].since_us > _YEAR_US else "%b %d"
    clock = Clock(f"{day} %H:%M:%S", digits=3 if width_us % 1_000_000 else 0, utc=utc)
    label = len(clock(buckets[0].since_us))
    number = max(len(f"{bucket.records:,}") for bucket in buckets)
    room = max(terminal_width() - label - number - 3, 10)
    # In a file from elsewhere a number of drops may be below zero.
    highest = max(1, *(bucket.records + max(bucket.dropped, 0) for bucket in buckets))
    for bucket in buckets:
        drawn = bar(bucket, highest, room, names, paint)
        yield f"{clock(bucket.since_us)} {bucket.records:>{number},} {drawn}".rstrip()
    levels = sorted({level for bucket in buckets for level in bucket.levels})
    legend = ", ".join(f"{_letter(names, level)} {level_name(names, level)}" for level in levels)
    drops = sum(bucket.dropped for bucket in buckets)
    yield f"{'':<{label}} {'':>{number}} {printable(legend)}{f', ~ dropped {drops:,}' if drops else ''}"


def bar(bucket: Bucket, highest: int, room: int, names: Mapping[int, str], paint: Paint) -> str:
    """Draw one bar: letters in proportion, and at least one for drops and for each level from WARNING up."""
    parts = [(_letter(names, level), level, count) for level, count in sorted(bucket.levels.items())]
    if bucket.dropped:
        parts.append(("~", _LOUD, bucket.dropped))
    lengths = [max(round(count * room / highest), level >= _LOUD) for _, level, count in parts]
    if sum(lengths) > room:  # by those letters, or by rounding
        lengths[lengths.index(max(lengths))] -= sum(lengths) - room
    return "".join(paint(letter * length, level) for (letter, level, _), length in zip(parts, lengths, strict=True))


def _letter(names: Mapping[int, str], level: int) -> str:
    return printable(_COLOR.sub("", level_name(names, level)))[:1].upper()
