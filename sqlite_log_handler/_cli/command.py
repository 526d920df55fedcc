"""The decorator `command`, by which each module of `commands` describes itself, and the parser of its arguments."""

import argparse
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from sqlite_log_handler._cli.terminal import write_error, write_lines
from sqlite_log_handler._logfile.printable import printable

PROGRAM: Final = "sqlite-log"

_HELP_WIDTH: Final = 78


class Parser(argparse.ArgumentParser):
    """
    A parser whose errors are one line, without a screen of usage before it.

    Flags cannot be abbreviated: the next flag might make an abbreviation ambiguous.
    """

    def __init__(self, name: str, description: str, *, usage: str | None = None, epilog: str = "") -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(name, usage, description, epilog, formatter_class=layout, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the error and where to read on, and exit."""
        # argparse quotes the value that a switch was given, which may be an address with a password.
        message = re.sub(r"ignored explicit argument .*", "takes no value", message, flags=re.DOTALL)
        write_error(f"{self.prog}: {printable(message)}; `{self.prog} --help` says more\n")
        self.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        # For --help and --version. That of argparse passes over a disk that is full and a reader that has gone.
        write_lines([message.removesuffix("\n")], file)


class Command(NamedTuple):
    """One command of `sqlite-log`, named after the module that has its function."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    description: str
    examples: Sequence[tuple[str, str]]  # command lines, and what each of them does
    work: Callable[..., int]

    def __call__(self, options: argparse.Namespace, **others: Any) -> int:
        """Do the work and return the exit status: 0 for done or found, 1 for nothing found or something wrong."""
        return self.work(options, **others)

    @property
    def name(self) -> str:
        """What a person types."""
        return self.work.__module__.rpartition(".")[2]

    def parser(self) -> Parser:
        """Make the parser of its arguments."""
        lines = [f"  {line}\n      {what}" for line, what in self.examples]
        description = textwrap.fill(self.description, _HELP_WIDTH, break_on_hyphens=False)
        parser = Parser(f"{PROGRAM} {self.name}", description, epilog="\n".join(["examples:", *lines]))
        self.add_arguments(parser)
        return parser


def command(
    add_arguments: Callable[[argparse.ArgumentParser], None], description: str, *examples: tuple[str, str]
) -> Callable[[Callable[..., int]], Command]:
    """Make a `Command` of the decorated function, which does the work."""
    return partial(Command, add_arguments, description, examples)
