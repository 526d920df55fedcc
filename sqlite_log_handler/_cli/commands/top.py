"""`sqlite-log top`: who logs most, and the line of code that makes it less."""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, get_args

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import columns, is_terminal, shows, terminal_width
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.units import format_size
from sqlite_log_handler._read.filters import Filters
from sqlite_log_handler._read.reader import By, LogReader
from sqlite_log_handler._read.top import Talker

*BY, ATTRIBUTE = get_args(By)

_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = ".:-=+*%#"
# On a narrower terminal, the names need the room.
_TREND_COLUMNS: Final = 80
# The folder of a file, in the name of a call site.
_FOLDER: Final = re.compile(r" [^ ]*[/\\](?=[^/\\]*:\d+ )")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    what = f"{', '.join(BY)}, or {ATTRIBUTE} KEY for the values of one"
    arguments.add_flag(parser, "--by WHAT", what, type=_by, default="logger")
    arguments.add_lines(parser, default=10)
    arguments.add_json(parser)
    arguments.add_utc(parser)
    arguments.add_filters(parser)


def _by(text: str) -> str:
    """Read what to group by; `attribute` stands with its key, see `arguments.join_times`."""
    if text in BY or text.startswith(f"{ATTRIBUTE} "):
        return text
    hint = "name the attribute behind it" if text == ATTRIBUTE else f"choose from {', '.join(BY)}, {ATTRIBUTE} KEY"
    raise argparse.ArgumentTypeError(f"{text!r}: {hint}")


@command(
    _add_arguments,
    "Show who logs most: records and bytes written, the share of all records, written and dropped, and their course "
    "over time. By logger and by level, the numbers come from the log's own account, which still counts rows that "
    "were pruned.",
    ("sqlite-log top app-log.db", "by logger, since the log began"),
    ("sqlite-log top app-log.db --by source -S -1h", "by line of code, in the last hour"),
    ("sqlite-log top app-log.db --by exception -n 5", "the five most frequent exceptions"),
)
def run(options: argparse.Namespace) -> int:
    """Show who logs most. Returns 1 when nothing matched."""
    filters = arguments.filters_of(options)
    with arguments.open_reader(options) as reader:
        by, _, key = options.by.partition(" ")
        talkers = reader.top(by, key=key or None, **filters)
        lines: Iterable[str] = table(talkers, key or by, options.lines, "more; -n all shows them")
        # With --level, the table does not count the records that a higher level would leave out.
        if options.by == "logger" and talkers and options.lines and options.level is None:
            lines = chain(lines, advice(reader, talkers[0], filters))
        return arguments.answer(options, talkers[: options.lines], lines, talkers)


# Characters. Names have as many; the value of an attribute may have more.
_LONGEST_NAME: Final = 1_000


def table(talkers: Sequence[Talker], by: str, most: int, more: str = "more") -> Iterator[str]:
    """Yield the table, a line for each of the loudest."""
    if not talkers:
        return
    room = not is_terminal() or terminal_width() >= _TREND_COLUMNS
    trend = room and any(talker.trend for talker in talkers)
    highest = max(max(talker.trend, default=0) for talker in talkers)
    rows = [("records", "bytes", "share", "dropped", *(["trend       "] if trend else []), printable(by))]
    for talker in talkers[:most]:
        dropped = "-" if talker.dropped is None else f"{talker.dropped:,}"
        bars = [sparkline(talker.trend, highest)] if trend else []
        name = (_FOLDER.sub(" ", talker.name) if by == "source" else talker.name)[:_LONGEST_NAME]
        share = f"{talker.share:.1%}"
        rows.append((f"{talker.records:,}", format_size(talker.bytes), share, dropped, *bars, printable(name)))
    rest = talkers[most:]
    if rest:
        records, share = sum(talker.records for talker in rest), f"{sum(talker.share for talker in rest):.1%}"
        taken = format_size(sum(talker.bytes for talker in rest))
        rows.append((f"{records:,}", taken, share, "", *([""] if trend else []), f"{len(rest):,} {more}"))
    yield from columns(rows)


def sparkline(parts: Sequence[int], highest: int) -> str:
    """Draw numbers as bars, all lines to one scale; zero is a blank."""
    bars = _BARS if shows(_BARS) else _ASCII_BARS
    return "".join(bars[(part * len(bars) - 1) // highest] if part else " " for part in parts)


def advice(reader: LogReader, talker: Talker, filters: Filters) -> Iterator[str]:
    """Yield the line of code that halves the records of the loudest logger, if one does so without losing warnings."""
    name = "" if talker.name == "root" else repr(talker.name)
    attempted = talker.records + (talker.dropped or 0)
    for level, below in (("INFO", 19), ("WARNING", 29)):
        only: Filters = {**filters, "logger": talker.name, "level": f"..{below}"}
        spared = [found for found in reader.top(**only) if found.name == talker.name]
        records, dropped = sum(found.records for found in spared), sum(found.dropped or 0 for found in spared)
        if (records + dropped) * 2 > attempted:
            share = talker.share * (records + dropped) / attempted
            drops = f", and {dropped:,} that were dropped" if dropped else ""
            yield ""
            yield f"To leave out {records:,} of its records{drops}, {share:.1%} of all:"
            yield f"  logging.getLogger({printable(name)}).setLevel(logging.{level})"
            return
