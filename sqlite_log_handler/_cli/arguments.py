"""What commands share: arguments for the file, the filters and the output, and the exit status."""

import argparse
import contextlib
import errno
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlite_log_handler._cli.formats import json_document
from sqlite_log_handler._cli.terminal import is_terminal, say, write_lines
from sqlite_log_handler._logfile.times import parse_time
from sqlite_log_handler._logfile.units import parse_duration
from sqlite_log_handler._read.filters import FilterError, Filters
from sqlite_log_handler._read.reader import LogReader, nearest_loggers, read_file

VARIABLE: Final = "SQLITE_LOG_DB"

NO_RECORD: Final = "no record matches; `sqlite-log stats` shows what there is"

# Lines without a limit.
ALL: Final = sys.maxsize

# The levels of syslog and journalctl (syslog(3)) as levels of `logging`: notice is nearest to INFO.
_SYSLOG: Final = {"1": 50, "2": 50, "3": 40, "4": 30, "5": 20, "6": 20, "7": 10}

# Their values may begin with a minus: -S -1h.
_TIMES: Final = ("-S", "--since", "-U", "--until", "--around", "--new-since")


def whole_number(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error


def at_least(lowest: int, highest: int = sys.maxsize) -> Callable[[str], int]:
    """Return a function that reads a whole number from `lowest` to `highest`."""

    def read(text: str) -> int:
        number = whole_number(text)
        if not lowest <= number <= highest:
            message = f"{text!r} is " + (f"below {lowest:,}" if number < lowest else f"above {highest:,}")
            raise argparse.ArgumentTypeError(message)
        return number

    return read


def count(text: str) -> int:
    """Read a number of lines, or `all`."""
    return ALL if text == "all" else at_least(0)(text)


def add_flag(parser: argparse._ActionsContainer, flag: str, what: str, **options: Any) -> None:
    """Add a flag as `--help` shows it, such as `-n, --lines N`. One without a value is a switch."""
    *names, metavar = re.split(",? ", flag)
    if metavar.startswith("-"):
        names.append(metavar)
        options["action"] = "store_true"
    else:
        options["metavar"] = metavar
    if options.get("default", "") != "":
        what += f" (default: {options['default']})"
    parser.add_argument(*names, help=what, **options)


def add_file(parser: argparse.ArgumentParser, *, archives: bool = False) -> None:
    """Add the argument for the log; with `archives`, also those for the folders of its archive."""
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"the log (default: ${VARIABLE})")
    if archives:
        what = "folders of its archive, to read all as one log; they may stand alone, too"
        parser.add_argument("archives", nargs="*", metavar="DIR", help=what)


def add_files(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the argument for any number of logs."""
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"{what} (default: ${VARIABLE})")


def file_of(options: argparse.Namespace) -> str:
    """Return the path of the log, which the command line or the environment names."""
    file: str | None = getattr(options, "file", None) or os.environ.get(VARIABLE)
    if not file:
        raise FilterError(f"which log? Name a FILE, or set {VARIABLE}; `sqlite-log --help` lists the commands")
    return file


def open_reader(options: argparse.Namespace) -> LogReader:
    """Open the log, and warn the operator of surprises in it and in the filters."""
    path = file_of(options)
    reader = LogReader([path, *options.archives]) if hasattr(options, "archives") else read_file(path)
    with contextlib.ExitStack() as unless_opened:
        unless_opened.callback(reader.close)
        _warn(reader, options)
        unless_opened.pop_all()
    return reader


def _warn(reader: LogReader, options: argparse.Namespace) -> None:
    # Not in a frame that closes the reader, see `_logfile.locks`.
    if reader.notice:
        say(reader.notice)
    for name in getattr(options, "logger", None) or ():
        if (near := nearest_loggers(reader, name)) is not None:
            say(f"no logger {name!r} in this log" + (f": did you mean {', '.join(near)}?" if near else ""))
    level = getattr(options, "level", None)
    if level in _SYSLOG and int(level) not in reader.level_names():
        meant = f"{logging.getLevelName(_SYSLOG[level])} is {_SYSLOG[level]}"
        say(f"levels are those of Python's logging: {level} is below DEBUG (10), {meant}")


def require_name(flag: str, path: str) -> None:
    """Raise an error if `path` names no file."""
    if not path:
        raise FilterError(f"{flag} has no name: name a file")
    if os.path.isdir(path) or not os.path.basename(path):
        raise FilterError(f"{path!r} is a folder: name a file in it")


def require_folder(path: str) -> None:
    """Raise an error if no file can be made at `path`: its folder is missing, or read only."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path!r}: there is no folder {folder!r}: create it first")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path!r}: you may not write to the folder {folder!r}: make it writable")


@contextlib.contextmanager
def written_to(path: str) -> Iterator[None]:
    """Name what is written inside the `with` block in the error of a full disk, which names no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise OSError(f"{path!r}: {error.strerror}: make room, and run it again") from error


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say which extra of the package to install if an import inside the `with` block fails."""
    try:
        yield
    except ImportError as error:
        raise FilterError(f"this needs more packages ({error}): pip install 'sqlite-log-handler[{extra}]'") from error


def status_of(found: object, nothing: str = NO_RECORD) -> int:
    """Return the exit status: 0 when something was `found`, else 1. A terminal then gets the text `nothing`."""
    if not found and is_terminal():
        say(nothing)
    return 0 if found else 1


def answer(
    options: argparse.Namespace, document: object, lines: Iterable[str], found: object, nothing: str = NO_RECORD
) -> int:
    """Print `document` for programs or `lines` for people, as the flag of `add_json` asks. Return the exit status."""
    write_lines(json_document(document) if options.output == "json" else lines)
    return status_of(found, nothing)


def add_ledger_filters(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the filters that apply to dropped records too, which have no text."""
    group = parser.add_argument_group("which records", "A record must match all that you give.")
    levels = "this level and above, by name or number, or a range such as INFO..WARNING"
    times = "2025-06-30, '2025-06-30 12:00', 12:00, today, yesterday, -1h, '10 min ago', or @seconds"
    run = "of one start of the program: 0 the last, -1 the one before, 1 the first"
    add_flag(group, "-p, --level LEVEL", levels)
    add_flag(group, "-S, --since TIME", f"at this time or later: {times}")
    add_flag(group, "-U, --until TIME", "at this time or earlier, written as for --since")
    add_flag(group, "-l, --logger NAME", "of this logger or of one below it; repeatable", action="append")
    add_flag(group, "--exclude NAME", "not of this logger nor of one below it; repeatable", action="append")
    add_flag(group, "--pid PID", "of this process id", type=whole_number, dest="process")
    add_flag(group, "--run N", run, type=whole_number)
    add_flag(group, "--after-id ID", "after the row with this id", type=whole_number)
    add_flag(group, "--up-to-id ID", "up to the row with this id", type=whole_number)
    return group


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add all filters on rows."""
    group = add_ledger_filters(parser)
    found = "with a match in the message or the traceback; an expression without capital letters ignores case"
    same = "that say the same as the row with this id, as `sqlite-log patterns` counts them"
    where = (
        "with this attribute, which the program gave as extra: KEY=VALUE, !=, <, <=, >, >=, KEY~REGEX, KEY (is there), "
        "!KEY; repeatable"
    )
    add_flag(group, "-g, --grep REGEX", found, dest="pattern")
    add_flag(group, "-F, --text TEXT", "the same for plain text")
    add_flag(group, "--thread THREAD", "of this thread, by name or identifier")
    add_flag(group, "--task NAME", "of this asyncio task")
    add_flag(group, "--exception CLASS", "with an exception of this class, with or without its module")
    add_flag(group, "--pattern-of ID", same, type=whole_number)
    add_flag(group, "--where CONDITION", where, action="append")


def add_utc(parser: argparse.ArgumentParser) -> None:
    """Add the flag for times in UTC."""
    add_flag(parser, "--utc", "read and show times in UTC instead of local time")


def add_color(parser: argparse.ArgumentParser) -> None:
    """Add the flag for colours."""
    what = "auto (on a terminal, or as NO_COLOR and FORCE_COLOR say), always or never"
    add_flag(parser, "--color WHEN", what, choices=("auto", "always", "never"), default="auto")


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str], what: str) -> None:
    """Add the flag that chooses one of the formats, by default the first."""
    add_flag(parser, "-o, --output FORMAT", what, choices=formats, default=formats[0])


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag that chooses between text and JSON."""
    add_output(parser, ("text", "json"), "text, or json for programs")


def add_lines(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the flag for the number of lines."""
    add_flag(parser, "-n, --lines N", "at most N lines, or all", type=count, default=default)


def filters_of(options: argparse.Namespace) -> Filters:
    """Return the filters that the user gave, with all times relative to one present."""
    given = vars(options)
    filters: dict[str, Any] = {name: given.get(name) for name in Filters.__annotations__}
    now = present(utc=given.get("utc", False))
    filters |= {name: filters[name] and moment(filters[name], now) for name in ("since", "until")}
    return cast("Filters", filters)


def present(*, utc: bool) -> datetime:
    """Return the present time, in UTC or as the clocks of the place show it."""
    return datetime.now(UTC) if utc else datetime.now()  # noqa: DTZ005 - local on purpose


def moment(text: str, now: datetime) -> datetime:
    """Read a point in time."""
    try:
        return parse_time(text, now)
    except ValueError as error:
        message = str(error)
        with contextlib.suppress(ValueError):
            parse_duration(text)
            message = f"{text!r} is a length of time, not a point in time: did you mean {shlex.quote(f'-{text}')}?"
        raise FilterError(message) from error


def join_times(arguments: Iterable[str]) -> list[str]:
    """
    Join `-S -1h` to `-S-1h` and `--since -1h` to `--since=-1h`, because argparse would take -1h for a flag; and
    `--by attribute KEY` to `--by=attribute KEY`, because argparse wants one argument.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _TIMES and argument.startswith("-"):
            joined[-1] += argument if len(joined[-1]) == 2 else f"={argument}"  # noqa: PLR2004 - a dash and a letter
        elif joined[-2:] == ["--by", "attribute"]:
            joined[-2:] = [f"--by=attribute {argument}"]
        else:
            joined.append(argument)
    return joined
