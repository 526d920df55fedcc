"""
What a shell offers when somebody presses Tab, by argcomplete (the extra `completion`).

The shell runs `sqlite-log` with the variable `_ARGCOMPLETE`, and the line so far in `COMP_LINE`. We import only the
module of the command in that line, so an answer takes as long as `--help`.
"""

import contextlib
import os
import sqlite3
from argparse import Namespace
from operator import attrgetter
from typing import Final, get_args

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

from sqlite_log_handler._cli.arguments import file_of, join_times
from sqlite_log_handler._cli.main import COMMANDS, command_of
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._logfile.printable import is_printable
from sqlite_log_handler._read.reader import By, LogReader

# Values to offer, by the placeholder that `--help` shows behind a flag.
_VALUES: Final = {
    "LEVEL": ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    "WHAT": [*get_args(By)],
}


def complete() -> None:
    """Write what fits to the file descriptor that the shell reads, and end the process."""
    _, _, _, words, _ = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    first = words[1] if len(words) > 1 else ""
    parser = command_of(first if first in COMMANDS else "show").parser()
    if first in {*COMMANDS, "help"}:
        os.environ["_ARGCOMPLETE"] = "2"  # the line begins at its second word
    for action in parser._actions:  # noqa: SLF001 - argcomplete reads them too
        if action.metavar in _VALUES:
            action.completer = argcomplete.ChoicesCompleter(_VALUES[action.metavar])  # type: ignore[arg-type,attr-defined]
        elif action.dest in {"logger", "exclude"}:
            action.completer = _loggers  # type: ignore[attr-defined]
        elif action.dest == "file" and words[1:] in ([], ["help"]):
            action.completer = _commands_and_files  # type: ignore[attr-defined]
    parse = parser.parse_known_args
    parser.parse_known_args = lambda words, namespace: parse(join_times(words), namespace)  # type: ignore[assignment]
    argcomplete.autocomplete(parser)


def _commands_and_files(prefix: str, **_: object) -> dict[str, str]:
    return {**COMMANDS, **dict.fromkeys(FilesCompleter()(prefix), "a log")}


def _loggers(parsed_args: Namespace, **_: object) -> list[str]:
    with (
        contextlib.suppress(LogFileError, OSError, ValueError, sqlite3.Error),
        LogReader(os.path.expanduser(file_of(parsed_args))) as log,  # the shell has not done that
    ):
        return [*filter(is_printable, filter(None, map(attrgetter("name"), log.top())))]
    return []
