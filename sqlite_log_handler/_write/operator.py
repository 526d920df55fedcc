"""Lines on standard error, for the person who operates the program."""

from __future__ import annotations

import contextlib
import io
import logging
import select
import sys
from collections import deque

from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.typed import TextIO


class Operator:
    """Tell the operator what happens to the log at `path`, a line at a time. That never raises, and never waits."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._waiting: deque[str] = deque()

    def say(self, text: str) -> None:
        """Write a line now. Not for a thread that holds a lock."""
        line = printable(f"sqlite_log_handler: {self.path}: {text}")
        if logging.raiseExceptions:
            with contextlib.suppress(Exception):
                stream = _standard_error()
                if stream is not None and takes_more(stream):
                    stream.write(line + "\n")

    def say_later(self, text: str | None) -> None:
        """Keep a line, if there is one, for `say_waiting`: the caller holds the commit lock."""
        if text is not None:
            self._waiting.append(text)

    def say_waiting(self) -> None:
        """Write the lines that wait."""
        with contextlib.suppress(IndexError):  # another thread has said the last one
            while self._waiting:
                self.say(self._waiting.popleft())


# Those of a subclass may be the program's code.
_WRITES = {io.TextIOWrapper.write, io.StringIO.write}


def _standard_error() -> TextIO | None:
    """Return `sys.stderr`, or the first one where that is an object of the program, which may log and block."""
    for stream in (sys.stderr, sys.__stderr__):
        if stream is None or getattr(type(stream), "write", None) in _WRITES:
            return stream
    return None


def takes_more(stream: TextIO, timeout: float = 0) -> bool:
    """Tell whether a write to `stream` would return now, or within `timeout` seconds, as far as the system knows."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return bool(poll.poll(timeout * 1_000))
    except Exception:  # noqa: BLE001 - Windows has no poll, and the program may have put an object there that is no file
        return True
