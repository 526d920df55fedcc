"""
Arguments that commands share: the file, the filters, and examples in the help.
"""

import argparse
import os
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from sqlite_log_handler._filters import FilterError, Filters
from sqlite_log_handler._reader import LogReader
from sqlite_log_handler._terminal import is_terminal, say
from sqlite_log_handler._times import parse_time

VARIABLE: Final = "SQLITE_LOG_DB"

_HELP_WIDTH: Final = 78

# What `add_subparsers` returns; argparse has no public name for it.
Commands: TypeAlias = Any

# Their values may begin with a minus: -S -1h.
_TIMES: Final = ("-S", "--since", "-U", "--until")


def add_command(
    commands: Commands, name: str, *, summary: str, description: str, examples: Sequence[tuple[str, str]]
) -> argparse.ArgumentParser:
    """
    Add a command.

    Args:
        commands: What `add_subparsers` returned.
        name: Its name.
        summary: What it does, for the list of commands.
        description: The same at length, for its own help.
        examples: Command lines, and what each does.
    """
    lines = [f"  {line}\n      {what}" for line, what in examples]
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, _HELP_WIDTH, break_on_hyphens=False),
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def count(text: str) -> int:
    """
    Read a number of lines.
    """
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("it is below 0")
    return number


def add_file(parser: argparse.ArgumentParser) -> None:
    """
    Add the argument for the log.
    """
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"the log (default: ${VARIABLE})")


def file_of(options: argparse.Namespace) -> str:
    """
    Return the log that is meant.

    Raises:
        FilterError: None is.
    """
    file: str | None = options.file or os.environ.get(VARIABLE)
    if not file:
        message = f"which log? Name a FILE, or set {VARIABLE}; `sqlite-log --help` lists the commands"
        raise FilterError(message)
    return file


def open_reader(options: argparse.Namespace) -> LogReader:
    """
    Open the log that is meant, and tell what has to be known about it.
    """
    reader = LogReader(file_of(options))
    if reader.notice:
        say(reader.notice)
    return reader


def refuse_no_folder(path: str) -> None:
    """
    Raise an error when no file can be made at `path`, because its folder is not there or is read only.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        message = f"{path!r}: there is no folder {folder!r}: create it first"
        raise FileNotFoundError(message)
    if not os.access(folder, os.W_OK):
        message = f"{path!r}: you may not write to the folder {folder!r}: make it writable"
        raise PermissionError(message)


def status_of(found: object, nothing: str) -> int:
    """
    Return the exit status: 0 when something was found, else 1.

    Args:
        found: Whether something was.
        nothing: What somebody at a terminal is told when nothing was. A pipe or a job has the status.
    """
    if not found and is_terminal():
        say(nothing)
    return 0 if found else 1


def add_ledger_filters(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """
    Add the filters that are for records that were dropped as well: those have no text.
    """
    group = parser.add_argument_group("which records", "All of those given must hold.")
    group.add_argument(
        "-p", "--level", metavar="LEVEL", help="this level and above, by name or number, or a range as INFO..WARNING"
    )
    group.add_argument(
        "-S",
        "--since",
        metavar="TIME",
        help="at this time or later: "
        "2025-06-30, '2025-06-30 12:00', 12:00, today, yesterday, -1h, '10 min ago', or @seconds",
    )
    group.add_argument("-U", "--until", metavar="TIME", help="at this time or earlier, written as for --since")
    group.add_argument(
        "-l", "--logger", action="append", metavar="NAME", help="of this logger or of one below it; repeatable"
    )
    group.add_argument(
        "--exclude", action="append", metavar="NAME", help="not of this logger nor of one below it; repeatable"
    )
    group.add_argument("--pid", type=int, metavar="PID", help="of this process id")
    group.add_argument(
        "--run",
        type=int,
        dest="started",
        metavar="N",
        help="of one start of the program: 0 the last, -1 the one before, 1 the first",
    )
    group.add_argument("--after-id", type=int, metavar="ID", help="behind the row with this id")
    return group


def add_filters(parser: argparse.ArgumentParser) -> None:
    """
    Add all filters on rows.
    """
    group = add_ledger_filters(parser)
    group.add_argument(
        "-g",
        "--grep",
        metavar="REGEX",
        help="with a match in the message or the traceback; without a capital letter in it, of either case",
    )
    group.add_argument("-F", "--text", metavar="TEXT", help="the same, with a text as it is")
    group.add_argument("--thread", metavar="THREAD", help="of this thread, by name or identifier")
    group.add_argument("--task", metavar="NAME", help="of this asyncio task")
    group.add_argument(
        "--exception", metavar="CLASS", help="with an exception of this class, with or without its module"
    )
    group.add_argument(
        "--where",
        action="append",
        metavar="KEY=VALUE",
        help="with this attribute, given as extra by the program; repeatable",
    )


def add_utc(parser: argparse.ArgumentParser) -> None:
    """
    Add the flag for times in UTC.
    """
    parser.add_argument("--utc", action="store_true", help="read and show times in UTC instead of local time")


def filters_of(options: argparse.Namespace) -> Filters:
    """
    Return the filters that are given, with times read against one present.

    Raises:
        FilterError: One of them cannot be understood.
    """
    now = datetime.now(UTC) if getattr(options, "utc", False) else datetime.now()  # noqa: DTZ005 - local on purpose
    try:
        since, until = (text and parse_time(text, now) for text in (options.since, options.until))
    except ValueError as error:
        raise FilterError(str(error)) from error
    given = vars(options)
    filters: Filters = {
        "level": given.get("level"),
        "since": since,
        "until": until,
        "logger": given.get("logger"),
        "exclude": given.get("exclude"),
        "pattern": given.get("grep"),
        "text": given.get("text"),
        "process": given.get("pid"),
        "thread": given.get("thread"),
        "task": given.get("task"),
        "exception": given.get("exception"),
        "attributes": dict(map(_pair, given.get("where") or [])) or None,
        "run": given.get("started"),
        "after_id": given.get("after_id"),
    }
    return filters


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        message = f"--where {text!r} has no =: write KEY=VALUE"
        raise FilterError(message)
    return key, value


def join_times(arguments: Iterable[str]) -> list[str]:
    """
    Join `-S -1h` to `-S-1h`, and `--since -1h` to `--since=-1h`: argparse would take -1h for a flag.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _TIMES and argument.startswith("-"):
            joined[-1] += argument if len(joined[-1]) == 2 else f"={argument}"  # noqa: PLR2004 - a dash and a letter
        else:
            joined.append(argument)
    return joined
