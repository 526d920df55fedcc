"""Run the application by itself: find a port, print the address, and end at Ctrl-C within a second."""

import asyncio
import contextlib
import errno
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Final

import uvicorn

from sqlite_log_handler._read.other_process import end_questions
from sqlite_log_handler.serve.app import application
from sqlite_log_handler.serve.security import LOOPBACK, TOKEN

# How many ports to try, from the given one on.
_PORTS: Final = 50
_HIGHEST_PORT: Final = 65_535

# Hosts that no network reaches: not a name such as 127.example.org.
_ON_LOOPBACK: Final = re.compile(r"localhost|::1|127(\.\d{1,3}){3}", re.ASCII)
_TOKEN: Final = re.compile(r"[\w-]{32,}", re.ASCII)
_LONGEST_TOKEN: Final = 4096


def run(
    paths: Sequence[str],
    *,
    host: str,
    port: int,
    base_path: str,
    allowed_hosts: Collection[str],
    with_token: bool,
    token_file: str | None = None,
    say: Callable[[str], object],
    opened: Callable[[str], object],
) -> None:
    """
    Serve until a signal comes. `sqlite-log serve --help` explains the options.

    `say` is called with each line for the person at the terminal, and `opened` with the address once the server
    listens.

    Raises:
        ValueError: The server would show the log to a network without asking for a token, or the file has none.
        OSError: No port is free, `host` is not an address of this machine, or the file of the token cannot be read.
    """
    if not (with_token or _ON_LOOPBACK.fullmatch(host)):
        message = f"--no-token would show the log to all who reach {host}: leave --no-token out, or listen on 127.0.0.1"
        raise ValueError(message)
    token = None if not with_token else secrets.token_urlsafe() if token_file is None else _token_in(token_file)
    listening = _listen(host, port)
    taken = listening.getsockname()[1]
    if port not in {0, taken}:
        say(f"port {port} is taken, so this uses {taken}")
    names = {*LOOPBACK, host, f"[{host}]", *allowed_hosts} - {"0.0.0.0", "::", "[0.0.0.0]", "[::]"}  # noqa: S104
    app = application(
        paths, token=token, allowed_hosts=names, base_path=base_path, is_ending=lambda: server.should_exit
    )
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host  # noqa: S104 - told apart, not bound
    address = f"http://{shown}:{taken}{base_path.rstrip('/')}/" + (f"?{TOKEN}={token}" if token else "")
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",  # bounds headers, which another one collects without end before the token is asked for
            server_header=False,
            timeout_graceful_shutdown=1,
            root_path=base_path.rstrip("/"),
        )
    )
    say(f"{address}  (Ctrl-C ends it)")
    opened(address)
    log = logging.getLogger("uvicorn.error")
    log.addFilter(_is_fault)
    try:
        with listening, contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        log.removeFilter(_is_fault)
        end_questions()  # Python waits for their threads


def _is_fault(record: logging.LogRecord) -> bool:
    """Tell whether a message of uvicorn is of a fault. It says of each request that it ends only because we end."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and "timeout graceful shutdown" not in str(record.msg)


def _token_in(path: str) -> str:
    """Return the token in a file, which only its owner can read if it is made here."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            token = file.read(_LONGEST_TOKEN).strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe()
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(made, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
    if not _TOKEN.fullmatch(token):
        message = f"{path} has no token of at least 32 letters, digits, - and _: remove it, and a new one is made"
        raise ValueError(message)
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = range(port, min(port + _PORTS, _HIGHEST_PORT + 1))
    for candidate in ports if port else [0]:
        listening = socket.socket(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, candidate))
            listening.listen()  # from now on, a browser waits and is not refused
        except (socket.gaierror, TypeError, UnicodeError) as error:  # the last two of a name that cannot be one
            listening.close()
            raise ValueError(f"--host={host!r}: must be an address or a name of this machine ({error})") from error
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return listening
    message = f"ports {port} to {ports[-1]} are all taken: name another with --port"
    raise OSError(errno.EADDRINUSE, message)
