"""
The threads of a handler: how one is started, and which signals it takes.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref

import pytest

from sqlite_log_handler._write import threads

masks = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")


def mask():
    """Return the signals that this thread blocks."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_thread_that_dies_before_it_has_begun(no_birth):
    """Its start ends with an error, and waits for no thread that had no memory for its first step."""
    with pytest.raises(RuntimeError, match="a new thread did not begin"):
        threads.Thread(int, name="unborn").start()


@masks
def test_a_thread_takes_no_signal():
    """A thread of ours blocks all signals but those that a thread causes itself; who starts it is as before."""
    found, before = [], mask()
    thread = threads.Thread(lambda: found.append(mask()), name="blocking")
    thread.start()
    thread.join()

    own = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
    open_ = signal.valid_signals() - found[0] - {signal.SIGKILL, signal.SIGSTOP}
    assert (before, own) == (mask(), {signal.Signals(number).name for number in open_})


@masks
def test_a_greenlet_blocks_nothing():
    """
    A thread that gevent has made a greenlet leaves the thread in which it runs as it is.

    That is the program's: it took no signal any more, and had a lower priority for good.
    """
    before = mask()
    threads.Thread(int, name="greenlet", nice=5).run()

    assert before == mask()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_a_nice_thread():
    """A thread of ours may have a lower priority; its starter keeps its own."""

    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found, before = [], priority()
    thread = threads.Thread(lambda: found.append(priority()), name="nice", nice=before + 1)
    thread.start()
    thread.join()

    assert ([min(before + 1, 19)], before) == (found, priority())


def test_a_thread_is_freed_without_a_collection():
    """A thread that has ended is in no cycle: with `gc.disable()` the reporters of an outage would fill the memory."""
    gc.disable()
    try:
        thread = threads.Thread(int, name="freed")
        thread.start()
        thread.join()
        ended, begun = weakref.ref(thread), weakref.ref(thread._started)
        del thread

        assert (None, None) == (ended(), begun())
    finally:
        gc.enable()
