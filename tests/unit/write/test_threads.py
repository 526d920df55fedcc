"""
The threads of a handler: how one is started, and which signals it takes.
"""

from __future__ import annotations

import signal
import threading

import pytest

from sqlite_log_handler._write import threads


def test_a_thread_that_dies_before_it_has_begun(no_birth):
    """Its start ends with an error, and waits for no thread that had no memory for its first step."""
    with pytest.raises(RuntimeError, match="a new thread did not begin"):
        threads.start(threading.Thread(target=print))


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")
def test_a_thread_takes_no_signal():
    """A thread that we start blocks all signals but those that a thread causes itself; who starts it is as before."""
    masks = []
    before = threads.mask()
    thread = threading.Thread(target=lambda: masks.append(threads.mask()))

    threads.start(thread)
    thread.join()

    own = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
    open_ = signal.valid_signals() - masks[0] - {signal.SIGKILL, signal.SIGSTOP}
    assert (before, own) == (threads.mask(), {signal.Signals(number).name for number in open_})
