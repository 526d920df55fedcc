"""`sqlite-log serve`: the log in a browser."""

import argparse
import os
import threading
import webbrowser

from sqlite_log_handler._cli.arguments import (
    add_files,
    add_flag,
    at_least,
    file_of,
    needs,
    require_folder,
    require_name,
)
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import write_line
from sqlite_log_handler._read.filters import FilterError

_HOST = "127.0.0.1"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_files(parser, "logs, or folders with files ending in .db")
    called = "a name by which a browser may call this server, besides those of loopback; repeatable"
    kept = "keep the token in this file, for Prometheus and across restarts; it is made if there is none"
    add_flag(parser, "--host HOST", "the address to listen on", default=_HOST)
    add_flag(parser, "--port N", "the first port to try, 0 for a free one", type=at_least(0, 65_535), default=8710)
    add_flag(parser, "--open", "open the page in a browser")
    add_flag(parser, "--base-path PATH", "the path at which a proxy serves this, such as /logs", default="")
    add_flag(parser, "--allowed-host NAME", called, action="append")
    tokens = parser.add_mutually_exclusive_group()
    add_flag(tokens, "--token-file PATH", kept)
    add_flag(tokens, "--no-token", "ask for no token: everybody on this machine can read the log")


@command(
    _add_arguments,
    "Show logs in a browser: live, with search, filters and a histogram, and with each gap where it is. Prints the "
    "address, with a token that nobody else has. The page works offline, and changes nothing in a log.",
    ("sqlite-log serve app-log.db --open", "one log, in the browser at once"),
    ("sqlite-log serve /var/log/shop", "every log in a folder, one to be chosen at the top of the page"),
    (
        "sqlite-log serve app-log.db --base-path /logs --allowed-host ops.example.org",
        "behind a proxy, which serves it below https://ops.example.org/logs/",
    ),
)
def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    with needs("serve"):
        from sqlite_log_handler.serve import server  # noqa: PLC0415 - needs packages that the other commands do not
    if options.token_file is not None:
        _require_token_file(options.token_file)
    server.run(
        [*filter(None, options.files)] or [file_of(options)],
        host=options.host or _HOST,  # as of a variable that nobody has set; to a socket it means all addresses
        port=options.port,
        base_path=options.base_path,
        allowed_hosts=options.allowed_host or [],
        with_token=not options.no_token,
        token_file=options.token_file,
        say=write_line,
        opened=_open if options.open else lambda _: None,
    )
    return 0


def _require_token_file(path: str) -> None:
    """Raise an error if there is no file at `path`, and none can be made."""
    require_name("--token-file", path)
    if os.path.exists(path):
        return
    if os.path.islink(path):
        raise FilterError(f"{path!r} is not a regular file: name one that does not exist yet")
    require_folder(path)


def _open(address: str) -> None:
    # On a thread, because Python waits for the end of a browser that it does not know, such as that of $BROWSER.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
