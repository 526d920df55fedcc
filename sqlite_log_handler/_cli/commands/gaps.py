"""`sqlite-log gaps`: the ledger of drops."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.formats import CLOCKS, Clock
from sqlite_log_handler._cli.terminal import columns, fit, is_terminal, terminal_width, width_of
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.units import counted, format_duration, loudest
from sqlite_log_handler._read.statistics import Gap


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    arguments.add_json(parser)
    arguments.add_utc(parser)
    arguments.add_ledger_filters(parser)


def run(options: argparse.Namespace) -> int:
    """Show the gaps. Returns 1 when there are none."""
    filters = arguments.filters_of(options)
    with arguments.open_reader(options) as reader:
        gaps = reader.gaps(**filters)
    lines = table(gaps, CLOCKS["short"](options.utc))
    return arguments.answer(options, gaps, lines, gaps, "no gap: none of the records that you asked for is missing")


def table(gaps: Sequence[Gap], clock: Clock) -> Iterator[str]:
    """Yield a line for each place and cause; on a narrow terminal, the loggers follow on a second line."""
    if not gaps:
        return
    rows, losers = [("since", "lasted", "missing", "after id", "cause")], ["loggers"]
    for (after_id, cause), group in groupby(gaps, lambda gap: (gap.after_id, gap.cause)):
        parts = list(group)
        since, until = min(gap.since_us for gap in parts), max(gap.until_us for gap in parts)
        missing, lasted = sum(gap.count for gap in parts), format_duration((until - since) / 1e6)
        rows.append((clock(since), lasted, f"{missing:,}", str(after_id), printable(cause)))
        who = Counter[str]()
        for gap in parts:
            if gap.logger:
                who[f"{gap.logger} {gap.level}"] += gap.count
        losers.append(printable(loudest(who)) if who else "")
    places = {gap.after_id for gap in gaps}
    rows.append(("", "", f"{sum(gap.count for gap in gaps):,}", "", f"in {counted(len(places), 'gap')}"))
    lines = list(zip(columns(rows), [*losers, ""], strict=True))
    folds = is_terminal() and any(width_of(f"{line}: {names}") > terminal_width() for line, names in lines)
    for line, names in lines:
        yield f"{line}: {names}" if names and not folds else line
        if names and folds:
            yield fit(f"    {names}")


COMMAND: Final = Command(
    description="Show the ledger of drops: for each gap the row before it, how many records are missing, why, and "
    "from which loggers. Rows that were pruned before they were forwarded stand in it as well.",
    examples=[
        ("sqlite-log gaps app-log.db", "all of them"),
        (
            "sqlite-log gaps app-log.db -S yesterday -l shop.orders",
            "of a part of the hierarchy, since yesterday",
        ),
        ("sqlite-log gaps app-log.db -p ERROR", "those in which errors are missing"),
    ],
    add_arguments=_add_arguments,
    run=run,
)
