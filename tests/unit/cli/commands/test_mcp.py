"""
`mcp`: what is said before an agent asks.
"""

from __future__ import annotations

import sys

import pytest

from sqlite_log_handler._cli.commands import mcp


def test_a_missing_extra_is_named(run, shop, monkeypatch):
    """Without the SDK, the command says which extra brings it."""
    monkeypatch.delitem(sys.modules, "sqlite_log_handler._cli.mcp_server", raising=False)
    monkeypatch.setattr("sqlite_log_handler._cli.mcp_server", None, raising=False)
    monkeypatch.delattr("sqlite_log_handler._cli.mcp_server")
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    error = (
        "sqlite-log mcp: this needs more packages (import of mcp.server halted; None in sys.modules): "
        "pip install 'sqlite-log-handler[mcp]'\n"
    )

    assert (2, []) == run("mcp", str(shop), stderr=error)


def test_a_missing_log_is_said_at_once(run, tmp_path):
    """A log that is not there is said before anybody waits for answers."""
    pytest.importorskip("mcp", reason="the extra mcp")
    error = f"sqlite-log mcp: '{tmp_path}/none.db' does not exist: name the file of a SQLiteHandler\n"

    assert (2, []) == run("mcp", str(tmp_path / "none.db"), stderr=error)


def test_a_closed_input_is_said(run, shop, monkeypatch):
    """`mcp` on a standard input that is closed says so. It ended in the SDK's traceback."""
    pytest.importorskip("mcp", reason="the extra mcp")
    monkeypatch.setattr("sys.stdin", None)
    error = "sqlite-log mcp: standard input is closed, so no agent can ask\n"

    assert (2, []) == run("mcp", str(shop), stderr=error)


def test_an_agent_that_has_gone(shop, monkeypatch):
    """When the agent closes the pipe of the answers, the command ends as any whose reader goes, without a traceback."""
    server = pytest.importorskip("mcp.server", reason="the extra mcp")

    def run(self, transport):
        raise ExceptionGroup("of the SDK", [BrokenPipeError()])

    monkeypatch.setattr(server.MCPServer, "run", run)
    with pytest.raises(BrokenPipeError):
        mcp.run(mcp.run.parser().parse_args([str(shop)]))
