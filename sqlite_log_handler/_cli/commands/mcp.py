"""`sqlite-log mcp`: a log for agents."""

import argparse
import signal
import sys

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._read.other_process import end_questions


@command(
    arguments.add_file,
    "Answer the questions of an agent about a log, by the Model Context Protocol on standard input and output: brief, "
    "search, record, patterns and sql. Nothing can be changed, each answer is bounded, and the text of the log is "
    "marked as data.",
    ("sqlite-log mcp app-log.db", "what an agent is configured to start"),
)
def run(options: argparse.Namespace) -> int:
    """Answer on standard input and output until that is closed."""
    with arguments.needs("mcp"):
        from sqlite_log_handler._cli import mcp_server  # noqa: PLC0415 - needs packages that the other commands do not
    arguments.open_reader(options).close()  # says at once what is wrong with the file
    if sys.stdin is None:
        raise OSError("standard input is closed, so no agent can ask")
    # asyncio's own would wait for the thread that reads standard input.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        mcp_server.server_of(arguments.file_of(options)).run("stdio")
    except BaseExceptionGroup as group:  # not `except*`, with which Python 3.11.2 raises a group again
        if group.subgroup(BrokenPipeError) is None:
            raise
        raise BrokenPipeError from group
    finally:
        signal.signal(signal.SIGINT, before)
        end_questions()  # Python waits for their threads
    return 0
