"""`sqlite-log health`: one line and an exit status for probes, as monitoring plugins have them."""

import argparse
import sqlite3
from collections import Counter
from operator import attrgetter
from typing import Final

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.arguments import add_flag
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import write_line
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._logfile.times import now_us
from sqlite_log_handler._logfile.units import format_duration, loudest, parse_seconds
from sqlite_log_handler._read.reader import columns_of, read_file

# The exit statuses of monitoring plugins (https://www.monitoring-plugins.org/doc/guidelines.html).
_STATES: Final = ("OK", "WARNING", "CRITICAL")
_OK, _WARNING, _CRITICAL = range(3)


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser)
    drops, number = "a warning when more records were dropped", arguments.at_least(0)
    add_flag(parser, "--max-age TIME", "critical when the newest record is older than this: 90s, 10min", type=_seconds)
    add_flag(parser, "--max-drops N", drops, type=number, default=0)
    add_flag(parser, "-S, --since TIME", "count drops from this time on, written as for `show`", default="-1h")
    arguments.add_utc(parser)


@command(
    _add_arguments,
    "Say in one line whether a program still logs and whether records were dropped. The exit status is 0 for OK, 1 "
    "for a warning and 2 for a critical state, as monitoring plugins have it. A log that cannot be read is critical.",
    ("sqlite-log health app-log.db --max-age 10min", "critical when nothing was logged for ten minutes"),
    ("sqlite-log health app-log.db --max-drops 100 -S -1d", "a warning when more were dropped in a day"),
)
def run(options: argparse.Namespace) -> int:
    """Print the state of the log in one line. Returns 0 for OK, 1 for a warning and 2 for a critical state."""
    since = arguments.moment(options.since, arguments.present(utc=options.utc))
    path = arguments.file_of(options)
    try:
        with read_file(path) as reader:
            if reader.notice:  # of the newest rows and drops
                return _say(_CRITICAL, reader.notice)
            newest_us = next((created_us for _, created_us in columns_of(reader, ["id", "created_us"], newest=1)), None)
            causes = Counter[str]()
            # A gap without a logger comes from retention, which deletes on purpose.
            for gap in filter(attrgetter("logger"), reader.gaps(since=since)):
                causes[gap.cause] += gap.count
    except (LogFileError, OSError, sqlite3.Error) as error:
        return _say(_CRITICAL, str(error))
    age = None if newest_us is None else max(now_us() - newest_us, 0) / 1e6
    dropped = causes.total()
    is_old = options.max_age is not None and (age is None or age > options.max_age)
    state = _CRITICAL if is_old else _WARNING if dropped > options.max_drops else _OK
    newest = "no record" if age is None else f"newest record {format_duration(age)} old"
    drops = f"{dropped:,} dropped since {options.since}" + (f" ({loudest(causes)})" if dropped else "")
    numbers = f"{'' if age is None else f'age={age:.3f}s '}dropped={dropped}"
    return _say(state, f"{newest}, {drops} | {numbers}")


def _say(state: int, text: str) -> int:
    write_line(f"{_STATES[state]}: {text}")
    return state
