"""
The command `forward`, without a network; tests/forward runs it as a process.
"""

from __future__ import annotations

import pytest

from sqlite_log_handler.__main__ import main
from sqlite_log_handler._cli.commands import forward


def test_all_files_are_closed_within_one_time():
    """
    Files whose lock others hold share the time that there is to close them.

    Each took half a second, so SIGTERM took five seconds with six files, and a service manager kills before that.
    """
    now, given = [0.0], []

    class Locked:
        def close(self, timeout):
            given.append(timeout)
            now[0] += timeout

    forward._close([Locked()] * 6, lambda: now[0])  # type: ignore[list-item]  # as much of a spool as is used

    assert [forward._CLOSE_SECONDS, 0, 0, 0, 0, 0] == given


def test_a_name_that_no_cursor_can_have(path, capsys):
    """A name that is not UTF-8 is refused by its flag; SQLite raised an error that named none."""
    path.touch()
    pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
    assert 2 == main(["forward", str(path), "--name", "\udcff"])
    assert "--name=" in capsys.readouterr().err
