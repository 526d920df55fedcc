"""
`sqlite-log` and `python -m sqlite_log_handler`: the command line, with the demo handed to it.
"""

import argparse
import sys
from collections.abc import Sequence

from sqlite_log_handler import __version__
from sqlite_log_handler._cli.arguments import Commands
from sqlite_log_handler._cli.commands import forward, prune
from sqlite_log_handler._cli.main import main as run_command_line
from sqlite_log_handler._cli.terminal import write_line


def add_demo(commands: Commands) -> None:
    """
    Add the command `demo`.
    """
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
    demo.set_defaults(run=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    """
    Run the demo. It is imported here and not at the top: commands that read need nothing of the half that writes.
    """
    from sqlite_log_handler._cli.commands import demo  # noqa: PLC0415 - see above

    return demo.run(options.files, options.database, write_line)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line and return its exit status.
    """
    more = [add_demo, forward.add_parser, prune.add_parser]
    return run_command_line(arguments, more=more, version=__version__)


if __name__ == "__main__":
    sys.exit(main())
