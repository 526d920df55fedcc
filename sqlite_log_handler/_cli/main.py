"""
The command line: which commands there are, and what becomes of their errors.

Each command lives in a module of its own, which offers `add_parser(commands)`: it adds its subparser, and sets `run`,
which takes the options and returns the exit status.
"""

import argparse
import os
import shlex
import sqlite3
import sys
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Final, NoReturn, TypeAlias

from sqlite_log_handler._cli import terminal
from sqlite_log_handler._cli.arguments import Commands, join_times
from sqlite_log_handler._cli.commands import check, export, gaps, show, stats, top
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._logfile.printable import printable

PROGRAM: Final = "sqlite-log"

AddParser: TypeAlias = Callable[[Commands], None]

COMMANDS: Final[tuple[AddParser, ...]] = (
    show.add_parser,
    top.add_parser,
    gaps.add_parser,
    stats.add_parser,
    check.add_parser,
    export.add_parser,
)


class _Parser(argparse.ArgumentParser):
    """
    A parser that says in one line what is wrong. The usage would be a screen of flags in front of it.
    """

    def error(self, message: str) -> NoReturn:
        """
        Say what is wrong, and where to read on.
        """
        self.exit(2, f"{self.prog}: {printable(message)}; `{self.prog} --help` says more\n")


def build_parser(
    more: Iterable[AddParser] = (), version: str = ""
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """
    Build the parser, with a subparser per command, and return it with those by name.
    """
    parser = _Parser(
        prog=PROGRAM,
        description="Keep a program's log in SQLite, and read it back.",
        epilog=f"`{PROGRAM} COMMAND --help` has the flags of a command, and examples.\n"
        f"`{PROGRAM} FILE` is `{PROGRAM} show FILE`; `{PROGRAM} demo` makes one to try.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_parser in (*COMMANDS, *more):
        add_parser(commands)
    return parser, commands.choices


def _parse(
    parser: argparse.ArgumentParser, by_name: Mapping[str, argparse.ArgumentParser], arguments: Sequence[str]
) -> argparse.Namespace:
    """
    Read a command line; `show` is what is meant without a command.
    """
    words = join_times(arguments)
    if words[:1] == ["help"] and not os.path.exists("help"):
        words = [*words[1:2], "--help"]
    first = words[0] if words else ""
    if first not in {*by_name, "-h", "--help", "--version"}:
        if first.isalpha() and not os.path.exists(first):
            parser.error(f"{first!r} is neither a command ({', '.join(by_name)}) nor a file")
        words.insert(0, "show")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        if first not in by_name:
            _refuse_late_command(parser, words[1:], [*unknown, options.file], by_name)
        message = f"unrecognized arguments: {' '.join(unknown)}"
        if not unknown[0].startswith("-"):
            message = f"one log at a time: {unknown[0]!r} is one too many"
        by_name[options.command].error(message)
    return options


def _refuse_late_command(
    parser: argparse.ArgumentParser, words: Sequence[str], files: Iterable[str], commands: Container[str]
) -> None:
    """
    End with the line that was meant when the name of a command stands where a file does.
    """
    for command in files:
        if command in commands and not os.path.exists(command):
            others = list(words)
            others.remove(command)
            parser.error(f"the command comes first: {shlex.join([PROGRAM, command, *others])}")


def main(arguments: Sequence[str] | None = None, *, more: Iterable[AddParser] = (), version: str = "") -> int:
    """
    Run one command and return its exit status.

    0: done, or found. 1: nothing matched, or what was checked does not hold. 2: the arguments are wrong, or a file
    cannot be used.

    Args:
        arguments: What stands behind the program's name; None for those of this process.
        more: Commands beside those that read: this module knows only that half.
        version: What `--version` prints.
    """
    if not terminal.prepare():
        terminal.say("standard output is closed, so nothing can be shown: send it to /dev/null if nobody is to see it")
        return 2
    parser, by_name = build_parser(more, version)
    options = _parse(parser, by_name, sys.argv[1:] if arguments is None else arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        with warnings.catch_warnings():
            # Of `re`, about what a pattern may mean one day: that is for those who write programs.
            warnings.simplefilter("ignore", FutureWarning)
            return run(options)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells count
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    except (LogFileError, OSError, ValueError, sqlite3.Error) as error:
        sys.stderr.write(f"{PROGRAM} {options.command}: {printable(str(error))}\n")
        return 2
