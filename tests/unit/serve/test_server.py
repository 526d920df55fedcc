"""
The server by itself: which port, which address, and what it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import threading
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from sqlite_log_handler._read import other_process
from sqlite_log_handler.serve import server


@pytest.fixture
def started(monkeypatch, logging_tree):  # uvicorn sets levels
    """Run the server, which calls `serving` and ends; return what it said, the address, and its configuration."""

    def run(path, serving=lambda: None, **options: Any) -> tuple[list[str], str, Any]:
        said: list[str] = []
        opened: list[str] = []
        configurations = []

        def pretend(self, sockets):
            configurations.append(self.config)
            assert 1 == len(sockets)
            serving()

        monkeypatch.setattr(server.uvicorn.Server, "run", pretend)
        defaults: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 0,
            "base_path": "",
            "allowed_hosts": [],
            "with_token": True,
        }
        server.run([str(path)], **{**defaults, **options}, say=said.append, opened=opened.append)
        (address,), (configuration,) = opened, configurations
        return said, address, configuration

    return run


def test_headers_without_end(started, path):
    """
    What reads requests bounds their headers, whatever else is installed.

    Beside FastAPI, uvicorn took another parser, and eight headers of 40 MB, without a token, took 450 MB.
    """
    _, _, configuration = started(path)
    configuration.load()

    assert configuration.http_protocol_class.__name__ == "H11Protocol"
    assert configuration.h11_max_incomplete_event_size in {None, 1 << 16}


def test_the_address_is_said(started, path):
    """The address is said with its token, which is another one at each start, and handed on to open a browser."""
    first, address, _ = started(path)
    second, _, _ = started(path)

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", address)
    assert [f"{address}  (Ctrl-C ends it)"] == first
    assert first != second


def test_no_question_outlives_the_server(started, path):
    """When the server has ended, its questions end too, those that it cannot interrupt as they wait for a process."""
    started(path)

    with pytest.raises(other_process.NoProcessError, match="about to end"), other_process.other_process():
        pass


def test_requests_that_end_with_the_server_are_no_faults(started, path, monkeypatch):
    """
    At Ctrl-C, a request whose client does not read its answer is ended without a word, and a fault is still printed.

    uvicorn prints a traceback of 60 lines for it.
    """
    printed: list[Any] = []

    def serving():
        log = logging.getLogger("uvicorn.error")
        monkeypatch.setattr(log, "callHandlers", printed.append)
        log.error("Cancel %s running task(s), timeout graceful shutdown exceeded", 1)
        for error in (asyncio.CancelledError("timeout"), ValueError("a fault")):
            log.error("Exception in ASGI application", exc_info=error)

    started(path, serving)

    assert ["a fault"] == [str(record.exc_info[1]) for record in printed]


def test_a_port_that_is_taken(started, path):
    """When the port is taken, the next free one is used, and that is said."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        said, address, _ = started(path, port=port)

    assert f":{port}/" not in address
    assert said[0].startswith(f"port {port} is taken, so this uses ")


def test_no_port_is_free(started, path, monkeypatch):
    """When no port is free, the error names those that were tried and the flag to use."""
    monkeypatch.setattr(server, "_PORTS", 1)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="--port") as caught:
            started(path, port=port)

    assert errno.EADDRINUSE == caught.value.errno


def test_the_highest_port_is_taken(started, path):
    """No port beyond the highest one is tried: Python's error at it was a traceback."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another program has it
            stack.enter_context(socket.create_server(("127.0.0.1", 65_535)))
        with pytest.raises(OSError, match="ports 65535 to 65535 are all taken: name another with --port"):
            started(path, port=65_535)


@pytest.mark.parametrize("host", ["\u202e.example", "a" * 64])
def test_a_host_that_is_none(started, path, host):
    """A host that cannot be one is named with its flag: of some Python's codec made a TypeError."""
    with pytest.raises(ValueError, match=r"--host='.*': must be an address or a name of this machine"):
        started(path, host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.example.org"])
def test_no_token_for_the_network(started, path, host):
    """A server that a network reaches asks for a token, or is refused before it listens."""
    with pytest.raises(ValueError, match="leave --no-token out"):
        started(path, host=host, with_token=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_no_token_on_loopback(started, path, host):
    """On loopback the token may be left out."""
    _, address, _ = started(path, host=host, with_token=False)

    assert re.fullmatch(rf"http://{host}:\d+/", address)


def test_behind_a_proxy(started, path):
    """The address has the path at which a proxy serves it, and so does what the application is told."""
    _, address, configuration = started(path, base_path="/logs")

    assert "/logs/?token=" in address
    assert "/logs" == configuration.root_path


def test_all_addresses_are_not_a_name(started, path):
    """Listening on all addresses allows no `Host` of that name, and the address that is said can be opened."""
    _, address, configuration = started(path, host="0.0.0.0")

    assert address.startswith("http://127.0.0.1:")
    assert "0.0.0.0" not in configuration.app._hosts


def test_a_token_that_stays(started, path, tmp_path):
    """
    A token file is made with a new token that only its owner can read, and the next start takes the same one.

    Each start made another token, so the configuration of Prometheus could not have it.
    """
    file = tmp_path / "token"
    _, first, _ = started(path, token_file=str(file))
    _, second, _ = started(path, token_file=str(file))

    token = file.read_text().strip()
    assert (43, token, token) == (len(token), first.rpartition("=")[2], second.rpartition("=")[2])
    assert 0o600 == file.stat().st_mode & 0o777


def test_a_token_from_a_pipe(started, path, tmp_path):
    """The token may come through a pipe, as `--token-file <(pass show log)` of a shell gives it."""
    fifo, token = tmp_path / "token", "t" * 40
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=(f"{token}\n",))
    writer.start()
    _, address, _ = started(path, token_file=str(fifo))
    writer.join()

    assert address.endswith(f"?token={token}")


@pytest.mark.parametrize("text", ["", "short", "a token of many characters with blanks in it", "\xe9" * 40])
def test_a_file_without_a_token(started, path, tmp_path, text):
    """A file that holds anything else, such as a password or nothing, guards no log."""
    file = tmp_path / "token"
    file.write_text(text)

    with pytest.raises(ValueError, match="has no token of at least 32"):
        started(path, token_file=str(file))
