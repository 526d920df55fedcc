"""`sqlite-log gaps`: the ledger of drops."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.formats import CLOCKS
from sqlite_log_handler._cli.terminal import columns, is_terminal, terminal_width, width_of, wrap
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.units import counted, format_duration, loudest
from sqlite_log_handler._read.statistics import Gap


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    arguments.add_json(parser)
    arguments.add_utc(parser)
    arguments.add_ledger_filters(parser)


@command(
    _add_arguments,
    "Show the ledger of drops: for each gap the row before it, how many records are missing, why, and from which "
    "loggers. Rows that were pruned before they were forwarded stand in it as well.",
    ("sqlite-log gaps app-log.db", "all of them"),
    (
        "sqlite-log gaps app-log.db -S yesterday -l shop.orders",
        "of a part of the hierarchy, since yesterday",
    ),
    ("sqlite-log gaps app-log.db -p ERROR", "those in which errors are missing"),
)
def run(options: argparse.Namespace) -> int:
    """Show the gaps. Returns 1 when there are none."""
    filters = arguments.filters_of(options)
    with arguments.open_reader(options) as reader:
        gaps = reader.gaps(**filters)
    lines = table(gaps, CLOCKS["short"](options.utc))
    return arguments.answer(options, gaps, lines, gaps, "no gap: none of the records that you asked for is missing")


def table(gaps: Sequence[Gap], clock: Callable[[int], str]) -> Iterator[str]:
    """Yield a line for each place and cause; on a narrow terminal, the cause and the loggers stand below it."""
    if not gaps:
        return
    rows = [("since", "lasted", "missing", "after id", "cause: loggers")]
    for _, group in groupby(sorted(gaps, key=_place_and_cause), _place_and_cause):
        parts = list(group)
        since, until = min(gap.since_us for gap in parts), max(gap.until_us for gap in parts)
        missing, lasted = sum(gap.count for gap in parts), format_duration((until - since) / 1e6)
        who = Counter[str]()
        for gap in parts:
            if gap.logger:
                who[f"{gap.logger} {gap.level}"] += gap.count
        detail = printable(parts[0].cause + (f": {loudest(who)}" if who else ""))
        rows.append((clock(since), lasted, f"{missing:,}", str(parts[0].after_id), detail))
    places = counted(len({gap.after_id for gap in gaps}), "gap")
    rows.append(("", "", f"{sum(gap.count for gap in gaps):,}", "", f"in {places}"))
    heads, width = [*columns([(*cells, "") for *cells, _ in rows])], terminal_width()
    if not is_terminal() or max(map(len, heads)) + 2 + max(width_of(row[-1]) for row in rows) <= width:
        yield from columns(rows)
        return
    for head, (*_, detail) in zip(heads, rows, strict=True):
        yield head
        yield from wrap(detail, width, "    ", "      ")


def _place_and_cause(gap: Gap) -> tuple[int, str]:
    return gap.after_id, gap.cause
