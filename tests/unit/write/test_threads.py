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
        threads.start(threads.make(int, name="unborn"))


@masks
def test_a_thread_takes_no_signal():
    """A thread of ours blocks all signals but those that a thread causes itself; who starts it is as before."""
    found, before = [], mask()
    thread = threads.make(lambda: found.append(mask()), name="blocking")
    threads.start(thread)
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
    threads.make(int, name="greenlet", nice=5).run()

    assert before == mask()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_a_nice_thread():
    """A thread of ours may have a lower priority; its starter keeps its own."""

    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found, before = [], priority()
    thread = threads.make(lambda: found.append(priority()), name="nice", nice=before + 1)
    threads.start(thread)
    thread.join()

    assert ([min(before + 1, 19)], before) == (found, priority())


def test_a_thread_is_freed_without_a_collection():
    """A thread that has ended is in no cycle: with `gc.disable()` the reporters of an outage would fill the memory."""
    gc.disable()
    try:
        thread = threads.make(int, name="freed")
        threads.start(thread)
        thread.join()
        ended, begun = weakref.ref(thread), weakref.ref(thread._started)
        del thread

        assert (None, None) == (ended(), begun())
    finally:
        gc.enable()


def test_the_class_is_that_of_the_moment(monkeypatch):
    """
    A thread is of the class that stands in `threading` when it is made: gevent may have put its own there since.

    Up to Python 3.12, `join` waits in vain for a greenlet of the class of before, so `close` took all its time.
    """

    class Greenlet(threading.Thread):
        """What gevent puts there."""

    monkeypatch.setattr(threading, "Thread", Greenlet)

    assert Greenlet is type(threads.make(int, name="greenlet"))
