"""
The acquisition that no signal handler can tear.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from locked import is_free

import sqlite_log_handler
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.locks import acquire

PACKAGE = str(Path(sqlite_log_handler.__file__).parent)


@pytest.fixture(params=[threading.Lock, threading.RLock])
def lock(request):
    """Make a lock of each kind."""
    return request.param()


def test_waits_with_a_limit(lock):
    """A lock that another thread holds is not taken, and no limit is too long for the system."""
    with lock:
        assert not is_free(lock, 0.001)

    (held,) = acquire(lock, 1e300)
    lock.release()
    assert held


def test_takes_the_lock_only_when_it_is_unpacked(lock):
    """What is raised before the result is unpacked finds the lock free."""
    acquire(lock, 0)

    assert is_free(lock)


def test_a_signal_at_any_call_of_a_statement():
    """
    Wherever a signal handler raises while a thread uses a connection, its lock is free afterwards.

    Ctrl-C when it had just been taken, or was just to be let go of, left it to this thread for ever: another thread
    that closed the connection waited without end, and so did a fork, for five seconds.
    """
    connection = forks.Connection(":memory:", file=None)
    calls = at = 0

    def interrupt(frame, event, argument):
        nonlocal calls
        # No signal handler runs just before a call of C code, nor when a function in Python has returned.
        ours = frame.f_code is use.__code__ or frame.f_code.co_filename.startswith(PACKAGE)
        # But CPython 3.15 runs none when a `with` has just entered.
        entered = sys.version_info >= (3, 15) and getattr(argument, "__name__", "") == "__enter__"
        calls += ours and event in {"call", "c_return"} and not entered
        if calls == at:
            raise KeyboardInterrupt(frame.f_code.co_name, frame.f_lineno, event, argument)

    def use():
        with connection.in_use():
            connection.execute("SELECT 1")

    while calls == at:
        calls, at, where = 0, at + 1, None
        try:
            sys.setprofile(interrupt)
            use()
        except KeyboardInterrupt as error:
            where = error.args
        sys.setprofile(None)
        assert is_free(connection.lock), where
    connection.close()
