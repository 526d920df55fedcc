"""
What the tests of the command line share: records, and a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler.__main__ import main

BEGIN = datetime(2025, 6, 30, 12, tzinfo=UTC)


# What is said of `-l nobody`.
NOBODY = "sqlite-log: no logger 'nobody' in this log\n"

# What a stranger may write: colours, a cleared screen, C1, text that runs backwards, a line of its own, NUL, a tab.
NAUGHTY = "a\x1b[31m\x1b[2J\x07\x9b1m\u202eevil\u2066\nERROR root: forged\r\x00\tb\x7f\u2028\ud800z"


def record(message="hello", level=logging.INFO, name="shop", *, seconds=0.0, **attributes):
    """Make a record as if it had been logged `seconds` after BEGIN."""
    made = logging.LogRecord(name, level, "/srv/shop/app.py", 7, message, (), None, func="work")
    made.created = (BEGIN + timedelta(seconds=seconds)).timestamp()
    made.thread, made.threadName, made.process, made.processName = 77, "worker", 4711, "Main"
    vars(made).update(attributes)
    return made


def log_of(path, *records):
    """Make a log of these records, or add them to the one at `path`."""
    handler = SQLiteHandler(path, close_timeout=60)
    for one in records:
        handler.handle(one)
    handler.close()


def failed():
    """Give the exc_info of an error."""
    try:
        dict[str, int]()["price"]
    except KeyError:
        return sys.exc_info()


def in_terminal(words, status=0, **environment):
    """Run a command with a terminal for its output, and return what it prints there."""
    pty = pytest.importorskip("pty", reason="no terminals on this system")
    ours, theirs = pty.openpty()
    printed = []

    def read():
        with contextlib.suppress(OSError):  # the other side is closed
            while part := os.read(ours, 65536):
                printed.append(part)

    reading = threading.Thread(target=read)
    reading.start()
    with pytest.MonkeyPatch.context() as patch, open(theirs, "w", encoding="utf-8") as terminal:
        patch.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm", "COLUMNS": "80", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        assert status == main(words)
    reading.join()
    os.close(ours)
    return b"".join(printed).decode()
