"""
Lines on standard error, for the person who operates the program.
"""

import contextlib
import logging
import select
import sys
from collections import deque
from typing import TextIO

from sqlite_log_handler._logfile.printable import printable


class Operator:
    """
    Tell the operator what happens to the log at `path`, one line at a time.

    To write a line never raises, and never waits for a pipe that nobody reads.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._waiting: deque[str] = deque()

    def say(self, text: str) -> None:
        """Write a line now. Not for a thread that holds a lock."""
        line = printable(f"sqlite_log_handler: {self.path}: {text}")
        if logging.raiseExceptions and sys.stderr:
            with contextlib.suppress(Exception):
                if takes_more(sys.stderr):
                    sys.stderr.write(line + "\n")

    def say_later(self, text: str | None) -> None:
        """Keep a line, if there is one, for `say_waiting`: the caller holds the commit lock."""
        if text is not None:
            self._waiting.append(text)

    def say_waiting(self) -> None:
        """Write the lines that wait."""
        with contextlib.suppress(IndexError):  # another thread has said the last one
            while self._waiting:
                self.say(self._waiting.popleft())


def takes_more(stream: TextIO, timeout: float = 0) -> bool:
    """Tell whether a write to `stream` would return now, or within `timeout` seconds, as far as the system knows."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return bool(poll.poll(timeout * 1_000))
    except Exception:  # noqa: BLE001 - Windows has no poll, and the program may have put an object there that is no file
        return True
