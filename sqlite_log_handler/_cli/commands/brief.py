"""
`sqlite-log brief`: what somebody needs first, in at most 8 kB.
"""

import argparse
import time
from dataclasses import asdict
from typing import Final

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.brief import text_of
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.commands.patterns import moment_or_run
from sqlite_log_handler._read.brief import Brief

# Patterns and gaps in the JSON.
_MOST: Final = 100


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser)
    parser.add_argument(
        "-S",
        "--since",
        metavar="TIME|RUN",
        help="since this time, or since the start of a run: a number as for --run (default: the last run, or all)",
    )
    arguments.add_json(parser)
    arguments.add_utc(parser)


def run(options: argparse.Namespace) -> int:
    """Show the brief. Returns 0, also for an empty log."""
    path = arguments.file_of(options)
    with arguments.open_reader(options) as reader:
        found = reader.brief(moment_or_run(options.since, utc=options.utc))
    lines = text_of(found, path, utc=options.utc, now_us=time.time_ns() // 1000).splitlines()
    return arguments.answer(options, document(found), lines, found)


def document(found: Brief) -> dict[str, object]:
    """Return the brief for `json_document`, with the first patterns and the last gaps, and how many there are."""
    counts = {"pattern_count": len(found.patterns), "gap_count": len(found.gaps)}
    drops = [{"cause": cause, "level": level, "count": n} for (cause, level), n in found.totals.drops.items()]
    return {
        **{name: getattr(found, name) for name in Brief.__slots__},
        **counts,
        "patterns": found.patterns[:_MOST],
        "new": None if found.new is None else sorted(found.new)[:_MOST],
        "gaps": found.gaps[-_MOST:],
        "totals": {**asdict(found.totals), "drops": drops},
    }


COMMAND: Final = Command(
    name="brief",
    description="Show what somebody needs first, in at most 8 kB whatever is in the log: how much there is, errors by "
    "pattern with the end of a traceback each, patterns that were never seen before, who logs most, what is missing, "
    "and the state of file and forwarders. It is of the last run, or of the whole log if there is one run only. What "
    "is left out is said, with the command that shows it.",
    examples=[
        ("sqlite-log brief app-log.db", "of the last run"),
        ("sqlite-log brief app-log.db -S -1h", "of the last hour, and what is new in it"),
    ],
    add_arguments=_add_arguments,
    run=run,
)
