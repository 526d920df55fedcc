"""
The command line: the list of commands, and the exit status of each error.

Each module of `commands` has a `Command` named `run`. We import only the module of the command to run: `show` needs
neither the threads of the demo nor the packages of `forward`.
"""

import argparse
import contextlib
import importlib
import os
import re
import shlex
import sqlite3
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import sqlite_log_handler
from sqlite_log_handler._cli import terminal
from sqlite_log_handler._cli.arguments import join_times
from sqlite_log_handler._cli.command import PROGRAM, Command, Parser
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._read.inventory import is_archive

# All commands by name, with their lines in `sqlite-log --help`.
COMMANDS: Final[Mapping[str, str]] = {
    "show": "show records; this is what happens without a command",
    "brief": "show what matters first: errors, what is new, and what is missing",
    "patterns": "count records that say the same, and show what is new",
    "top": "show who logs most, and the setLevel line to paste",
    "gaps": "show which records are missing: when, how many, and why",
    "stats": "show how much there is, and a histogram of it",
    "check": "check the file, its schema and its books",
    "metrics": "print the counts of logs, for Prometheus",
    "health": "say in one line whether all is well, for probes",
    "export": "write records as JSON lines, CSV or Parquet",
    "serve": "show logs in a browser, live",
    "mcp": "answer the questions of an agent about a log",
    "prune": "delete the oldest rows, and give back the space",
    "forward": "send a log to a receiver of OTLP, each row at least once",
    "demo": "log real work, overflow a small queue, and show the books",
}


# The name of a flag, with which a word may begin that has a value too.
_FLAG: Final = re.compile(r"--[\w-]*|-.?")


def command_of(name: str) -> Command:
    """Import the command with this name."""
    command: Command = importlib.import_module(f"{__package__}.commands.{name}").run
    return command


def main_parser() -> Parser:
    """Make the parser of the flags that stand before a command."""
    longest = max(map(len, COMMANDS))
    lines = [f"    {name:<{longest}}  {summary}" for name, summary in COMMANDS.items()]
    parser = Parser(
        PROGRAM,
        "\n".join(["Keep a program's log in SQLite, and read it back.", "", "commands:", *lines]),
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        epilog=f"`{PROGRAM} COMMAND --help` lists the flags of a command, and examples.\n"
        f"`{PROGRAM} FILE` is `{PROGRAM} show FILE`; `{PROGRAM} demo` makes one to try.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {sqlite_log_handler.__version__}")
    return parser


def parse(arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """Read a command line. Without a command, it is one of `show`."""
    words = join_times(arguments)
    if words[:1] == ["help"] and not os.path.exists("help"):
        words = [*words[1:2], "--help"]
    first = words[0] if words else ""
    if first in {"-h", "--help", "--version"}:
        main_parser().parse_args([first])
    named = first in COMMANDS
    if not named and first.isalpha() and not os.path.exists(first):
        main_parser().error(f"{first!r} is neither a command ({', '.join(COMMANDS)}) nor a file")
    command = command_of(first if named else "show")
    parser = command.parser()
    options, unknown = parser.parse_known_args(words[1:] if named else words)
    if hasattr(options, "archives"):
        # argparse leaves what stands behind a flag, and of `-fz` what it does not know: `-z`, or all of it.
        others = sorted([*options.archives, *unknown], key=[*words, *unknown].index)
        options.archives = [*filter(is_archive, others)]
        unknown = [word for word in others if word not in options.archives]
    elif hasattr(options, "files"):
        options.files += [word for word in unknown if not word.startswith("-") and "://" not in word]
        unknown = [word for word in unknown if word not in options.files]
    # argparse takes a flag that it does not know for a file if it has a space in it, as a header with a token has.
    named_files = [getattr(options, "file", None) or "", *getattr(options, "files", ())]
    behind = words[words.index("--") :] if "--" in words else []
    unknown += [word for word in named_files if word.startswith("-") and " " in word and word not in behind]
    if unknown:
        for word in [] if named else [*unknown, options.file]:
            if word in COMMANDS and not os.path.exists(word):
                words.remove(word)
                words = ["..."] if word == "forward" else words  # an address in them may have a password
                main_parser().error(f"the command comes first: {shlex.join([PROGRAM, word, *words])}")
        _refuse(unknown, parser, has_lines=hasattr(options, "lines"))
    return command, options


def _refuse(unknown: Sequence[str], parser: Parser, *, has_lines: bool) -> NoReturn:
    """Say what is wrong with arguments that a command does not take, and exit."""
    if unknown[0].startswith("--limit") and has_lines:
        parser.error("--limit is called -n here: write -n 20 for 20 lines, or -n all")
    if unknown[0].startswith("-"):
        # Without their values, because one may be a password or a header.
        parser.error(f"unrecognized arguments: {' '.join(flag[0] for flag in map(_FLAG.match, unknown) if flag)}")
    if "://" in unknown[0]:
        parser.error("an address stands in the place of a file: write --otlp in front of it")
    if not os.path.exists(unknown[0]):
        parser.error(f"there is no file or folder {unknown[0]!r}")
    parser.error(f"one log at a time: {unknown[0]!r} is one too many")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command and return its exit status.

    0: done, or found. 1: nothing matched, or a check found something wrong. 2: the arguments are wrong, or we cannot
    use a file.
    """
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"{__package__}.completion").complete()
        return 1
    if not terminal.prepare():
        terminal.say("standard output is closed, so nothing can be shown: send it to /dev/null if nobody should see it")
        return 2
    # Arrow's own pool keeps what it has freed, some 20 MB.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    program = PROGRAM
    try:
        command, options = parse(sys.argv[1:] if arguments is None else arguments)
        program = f"{PROGRAM} {command.name}"
        with warnings.catch_warnings():
            # `re` warns programmers of expressions whose meaning may change.
            warnings.simplefilter("ignore", FutureWarning)
            return command(options)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has gone. Without this, Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    except (LogFileError, OSError, ValueError, sqlite3.Error) as error:
        terminal.say(str(error), program)
        return 2
