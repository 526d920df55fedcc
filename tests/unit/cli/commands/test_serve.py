"""
`sqlite-log serve`: what reaches the server, and what is said without it.
"""

from __future__ import annotations

import queue
import sys
import threading

import pytest

from sqlite_log_handler.__main__ import main

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from sqlite_log_handler.serve import server


@pytest.fixture
def asked(monkeypatch):
    """Return what the server is asked to do, without doing it."""
    found = {}
    monkeypatch.setattr(server, "run", lambda paths, **options: found.update(paths=paths, **options))
    return found


@pytest.mark.parametrize("flags", [(), ("--host", "")])
def test_the_defaults(asked, path, flags):
    """
    Without flags it listens on loopback, at port 8710, and asks for a token.

    With an empty host, as of a variable of a shell that nobody has set, it listened on all addresses.
    """
    assert 0 == main(["serve", str(path), *flags])

    assert ([str(path)], "127.0.0.1", 8710, "", [], True, None) == tuple(
        asked[name] for name in ("paths", "host", "port", "base_path", "allowed_hosts", "with_token", "token_file")
    )


def test_the_flags(asked, path, tmp_path, monkeypatch):
    """Each flag reaches the server; `--open` opens the address in a browser."""
    opened = queue.SimpleQueue()
    monkeypatch.setattr("webbrowser.open", opened.put)
    flags = ["--host", "::1", "--port", "0", "--base-path", "/logs", "--allowed-host", "a", "--allowed-host", "b"]

    assert 0 == main(["serve", str(path), str(tmp_path), *flags, "--no-token", "--open"])
    asked["opened"]("http://[::1]:1/")

    assert ([str(path), str(tmp_path)], "::1", 0, "/logs", ["a", "b"], False) == tuple(
        asked[name] for name in ("paths", "host", "port", "base_path", "allowed_hosts", "with_token")
    )
    assert "http://[::1]:1/" == opened.get(timeout=60)
    assert 0 == main(["serve", str(path), "--token-file", "token"])
    assert "token" == asked["token_file"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--token-file has no name: name a file"),
        (".", "'.' is a folder: name a file in it"),
        ("new/", "'new/' is a folder: name a file in it"),
        ("link", "'link' is not a regular file: name one that does not exist yet"),
        ("no/token", "there is no folder"),
    ],
)
def test_a_token_file_that_cannot_be_made(asked, path, tmp_path, monkeypatch, capsys, name, message):
    """It is refused in the words of `show --cursor-file`: it was in those of the system, as `[Errno 2]`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("nowhere")

    assert 2 == main(["serve", str(path), "--token-file", name])
    assert message in capsys.readouterr().err
    assert {} == asked


def test_a_browser_that_stays(asked, path, monkeypatch):
    """
    The server does not wait until the browser is closed.

    Python waits for the end of a browser that it does not know. That one waited for a page, and no server ran yet.
    """
    is_served, is_shown = threading.Event(), threading.Event()
    monkeypatch.setattr("webbrowser.open", lambda _: is_served.wait(10) and is_shown.set())
    main(["serve", str(path), "--open"])

    asked["opened"]("http://127.0.0.1:1/")
    is_served.set()

    assert is_shown.wait(60)


def test_the_log_of_the_environment(asked, path, monkeypatch):
    """Without a file, the log that the environment names is served."""
    monkeypatch.setenv("SQLITE_LOG_DB", str(path))

    assert 0 == main(["serve"])
    assert [str(path)] == asked["paths"]


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none(port, path, capsys):
    """A port that cannot be is refused in one line."""
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(path), f"--port={port}"])

    assert 1 == capsys.readouterr().err.count("\n")


def test_without_the_extra(path, capsys, monkeypatch):
    """Without Starlette or uvicorn, one line says what to install, and nothing is a traceback."""
    monkeypatch.setitem(sys.modules, "sqlite_log_handler.serve", None)
    monkeypatch.setitem(sys.modules, "sqlite_log_handler.serve.server", None)

    assert 2 == main(["serve", str(path)])
    assert "pip install 'sqlite-log-handler[serve]'" in capsys.readouterr().err
