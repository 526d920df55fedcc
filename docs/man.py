"""
Prints the manual page of `sqlite-log`, from what `--help` is made of; the build puts it into the wheel.

The words are those of the parsers, so the page is the same on each version of Python, whose `--help` differs in its
layout.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from sqlite_log_handler._cli.main import COMMANDS, command_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = r"""
.TH SQLITE\-LOG 1 "" "sqlite-log-handler" "User Commands"
.SH NAME
sqlite\-log \- read the log of a Python program from its SQLite file
.SH SYNOPSIS
.B sqlite\-log
.I COMMAND
.RI [ FLAGS ]
.RI [ FILE ]
.br
.B sqlite\-log
.RI [ FLAGS ]
.I FILE
.SH DESCRIPTION
.B sqlite\-log
reads a log that SQLiteHandler keeps in SQLite, while a program writes it, or later on any machine.
Without a command, it shows records.
""".strip()

FOOT = r"""
.SH ENVIRONMENT
.TP
.B SQLITE_LOG_DB
The log that commands read when none is named.
.TP
.BR NO_COLOR ", " FORCE_COLOR
No colours, or colours although the output is not a terminal.
.SH EXIT STATUS
.TP
.B 0
Found, or done.
.TP
.B 1
Nothing matched, or something that was checked is wrong.
.TP
.B 2
An argument is wrong, or a file cannot be used; one line on standard error says what to do.
.SH SEE ALSO
.BR sqlite3 (1),
.BR journalctl (1)
""".strip()


def escaped(text: str) -> str:
    """Return a text as roff prints it: a backslash, a hyphen and a dot at the beginning of a line have meanings."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", "\\e").replace("-", "\\-"))


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    for name, summary in COMMANDS.items():
        yield ".TP"
        yield f".B {escaped(name)}"
        yield escaped(summary)
    for name in COMMANDS:
        command = command_of(name)
        yield f".SH {escaped(name.upper())}"
        yield escaped(command.description)
        for action in command.parser()._actions:  # noqa: SLF001 - argparse has no other way to read them
            if action.dest != "help" and action.help != argparse.SUPPRESS:
                yield ".TP"
                yield f".B {escaped(heading_of(action))}"
                yield escaped(action.help or "")
        yield ".PP"
        yield "Examples:"
        for line, what in command.examples:
            yield ".TP"
            yield f".B {escaped(line)}"
            yield escaped(what)
    yield FOOT


def heading_of(action: argparse.Action) -> str:
    """Return the flags of an argument and what stands for its value."""
    value = action.metavar or action.dest.upper()
    if not action.option_strings:
        return f"{value}..." if action.nargs == "*" else str(value)
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
