"""
The command `forward`, without a network; tests/forward runs it as a process.
"""

from __future__ import annotations

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
