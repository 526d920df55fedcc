"""
`mcp`: what is said before an agent asks.
"""

from __future__ import annotations

import sys


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
    error = f"sqlite-log mcp: '{tmp_path}/none.db' does not exist: name the file of a SQLiteHandler\n"

    assert (2, []) == run("mcp", str(tmp_path / "none.db"), stderr=error)
