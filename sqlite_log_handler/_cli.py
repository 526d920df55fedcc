"""
The command line: arguments in, lines of text out, an exit status.

Whatever is printed goes through `printable`: a log holds what strangers wrote, and a terminal obeys control characters.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

# The text logs to replay, the database to make, and what prints a line; returns the exit status.
Demo: TypeAlias = Callable[[Sequence[str], str | None, Callable[[str], None]], int]

PROGRAM = "python -m sqlite_log_handler"


def printable(text: str) -> str:
    r"""
    Make `text` safe for one line of a terminal: what does not print is shown as Python would escape it.

    That covers newlines, the control characters (C0, DEL, C1), those that turn the direction of writing, and lone
    surrogates.

    >>> printable("user\x1b[2Jroot\n")
    'user\\x1b[2Jroot\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def write_line(line: str = "") -> None:
    """
    Print one line, safe for a terminal, at once.
    """
    print(printable(line), flush=True)


def build_parser() -> argparse.ArgumentParser:
    """
    Build the parser: one subparser per command.
    """
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Keep a program's log in SQLite, and read it back.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="log real work, overflow a small queue, and show the books",
        description="Log real work from several threads into SQLite, lock the database in the middle so that a small "
        "queue overflows, and show that every record is accounted for.",
    )
    demo.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a text log whose lines are replayed; without one, the files of Python's standard library are hashed",
    )
    demo.add_argument(
        "--database",
        metavar="PATH",
        help="the file to make, which must not exist yet (default: demo-log.db, or the next free name)",
    )
    return parser


def main(arguments: Sequence[str] | None = None, *, demo: Demo) -> int:
    """
    Run one command and return its exit status.

    0: done. 1: the demo's books do not balance. 2: the arguments are wrong, or a file cannot be used.

    Args:
        arguments: What stands behind the program's name; None for those of this process.
        demo: Runs the demo. It is handed in, because it logs, and this module knows only the half that reads.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter gets its escape
    options = build_parser().parse_args(arguments)
    try:
        return demo(options.files, options.database, write_line)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells count
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    except OSError as error:
        sys.stderr.write(f"{PROGRAM} {options.command}: {printable(str(error))}\n")
        return 2
