"""
`sqlite-log mcp`: a log for agents.
"""

import argparse
from typing import Final

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.terminal import say

_MISSING: Final = "mcp needs the SDK of the Model Context Protocol ({error}): pip install 'sqlite-log-handler[mcp]'"


def run(options: argparse.Namespace) -> int:
    """Answer on standard input and output until that is closed. Returns 2 when a package is missing."""
    try:
        from sqlite_log_handler._cli import mcp_server  # noqa: PLC0415 - needs packages that the other commands do not
    except ImportError as error:
        say(_MISSING.format(error=error))
        return 2
    arguments.open_reader(options).close()  # says at once what is wrong with the file
    mcp_server.server_of(arguments.file_of(options)).run("stdio")
    return 0


COMMAND: Final = Command(
    name="mcp",
    description="Answer the questions of an agent about a log, by the Model Context Protocol on standard input and "
    "output: brief, search, record, patterns and sql. Nothing can be changed, each answer is bounded, and the text of "
    "the log is marked as data.",
    examples=[("sqlite-log mcp app-log.db", "what an agent is configured to start")],
    add_arguments=arguments.add_file,
    run=run,
)
