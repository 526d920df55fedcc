"""
The command `forward`, without a network; tests/forward runs it as a process.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading

import pytest

from sqlite_log_handler.__main__ import main
from sqlite_log_handler._cli.commands import forward
from sqlite_log_handler._forward.signals import Signals


def test_all_files_are_closed_within_one_time():
    """
    Files whose lock others hold share the time that there is to close them.

    Each took half a second, so SIGTERM took five seconds with six files, and a service manager kills before that.
    """
    now, given = [0.0], []

    class Locked:
        is_moved = False

        def close(self, timeout):
            given.append(timeout)
            now[0] += timeout

    forward._close([Locked()] * 6, lambda: now[0])  # type: ignore[list-item]  # as much of a spool as is used

    assert [forward._CLOSE_SECONDS, 0, 0, 0, 0, 0] == given


def test_a_moved_log_is_closed_first():
    """Of the logs that a signal leaves open, none was moved: its last rows would stay in the -wal at its old path."""
    closed = []

    class Log:
        def __init__(self, *, is_moved):
            self.is_moved = is_moved

        def close(self, _timeout):
            closed.append(self.is_moved)

    forward._close([Log(is_moved=moved) for moved in (False, True, False, True)], lambda: 0.0)  # type: ignore[list-item]

    assert [True, True, False, False] == closed


def test_a_signal_does_not_wait_for_a_slow_disk(monkeypatch):
    """
    After a signal, a log that is slow to close is left to the end of the process, and so are those behind it.

    The last to close a log writes its WAL back: a hundred logs took three seconds on a hard disk.
    """
    monkeypatch.setattr(forward, "_CLOSE_SECONDS", 0)
    disk = threading.Event()

    class Slow:
        is_moved = False

        def close(self, _timeout):
            disk.wait()

    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        closing = forward._end([Slow()] * 2, signals)  # type: ignore[list-item]  # as much of a spool as is used

    assert not closing.done()
    disk.set()
    closing.result()


def test_a_log_that_cannot_be_closed():
    """An error of a close ends the command, as it did before a thread closed the logs."""

    class Log:
        is_moved = False

        def close(self, _timeout):
            raise PermissionError

    with Signals() as signals, pytest.raises(PermissionError):
        forward._end([Log()], signals)  # type: ignore[list-item]


def test_without_a_signal_each_log_is_closed():
    """A run that has sent all rows closes all logs before it ends, however long that takes."""
    closed = []

    class Log:
        is_moved = False

        def close(self, _timeout):
            closed.append("log")

    with Signals() as signals:
        forward._end([Log()] * 3, signals)  # type: ignore[list-item]  # as much of a spool as is used

    assert ["log"] * 3 == closed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell whether a pipe is full")
def test_a_line_does_not_wait_for_a_reader(monkeypatch):
    """
    When nobody reads standard error, and its pipe is full, lines are left out.

    The command waited for a reader: no row was sent any more, and neither SIGTERM nor SIGINT ended it.
    """
    reading, writing = os.pipe()

    class Stderr(io.StringIO):
        def fileno(self):
            return writing

    monkeypatch.setattr(sys, "stderr", Stderr())
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        forward._say("one")
        assert "" == sys.stderr.getvalue()
        os.read(reading, 1 << 20)
        forward._say("two")
        assert "sqlite-log: two\n" == sys.stderr.getvalue()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_name_that_no_cursor_can_have(path, capsys):
    """A name that is not UTF-8 is refused by its flag; SQLite raised an error that named none."""
    path.touch()
    pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
    assert 2 == main(["forward", str(path), "--name", "\udcff"])
    assert "--name=" in capsys.readouterr().err


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_that_is_moved_meanwhile(path, make_handler, logger, capsys, monkeypatch, replaced):
    """
    A log that is moved while its rows are sent is not all sent, and the exit status says so too, as a job needs it.

    The line on standard error said so, and the status was 0.
    """
    pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
    from answering import TAKEN, serving  # noqa: PLC0415 - needs that extra

    monkeypatch.setattr(os, "nice", lambda _: 1)
    monkeypatch.setenv("no_proxy", "*")
    logger.addHandler(make_handler())
    logger.info("first")
    logger.info("second")
    logger.handlers.pop().close()

    def move(connection):
        if not os.path.exists(f"{path}.old"):
            os.rename(path, f"{path}.old")
            if replaced:
                make_handler().close()
        connection.sendall(TAKEN)

    with serving(move) as (port, _):
        status = main(["forward", str(path), "--otlp", f"http://127.0.0.1:{port}", "--batch-rows", "1"])

    assert (1, 1) == (status, capsys.readouterr().err.count("was moved or replaced"))
