"""
Signals and deadlines of what is waited for.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from sqlite_log_handler._forward.signals import Signals, Stopped


def test_what_a_call_raises_is_raised_where_it_is_waited_for():
    """Something in the answer that nobody has thought of ends the command, which would else wait for ever."""

    def call():
        message = "an answer that nobody has thought of"
        raise ValueError(message)

    with pytest.raises(ValueError, match="nobody has thought of"):
        Signals().run_in_thread(call, 60)


def test_no_thread_can_be_started(monkeypatch):
    """At the limit of a container a call is made without a thread; the command ended with a traceback, also with -f."""

    def start(_thread):
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", start)

    assert 7 == Signals().run_in_thread(lambda: 7, 60)


def test_a_call_has_a_deadline():
    """
    A call that does not come to an end is left after its time.

    A receiver that sent a byte now and then held the command for ever: each wait for a byte was a short one.
    """
    over = threading.Event()
    with pytest.raises(TimeoutError):
        Signals().run_in_thread(over.wait, 0.001)
    over.set()


def test_a_signal_ends_the_wait_for_a_call():
    """SIGTERM while a call is waited for raises Stopped, and the handlers of before come back."""
    before = signal.getsignal(signal.SIGTERM)
    over = threading.Event()

    def call():
        os.kill(os.getpid(), signal.SIGTERM)
        over.wait()

    with Signals() as signals:
        with pytest.raises(Stopped):
            signals.run_in_thread(call, 60)
        with pytest.raises(Stopped):
            signals.run(lambda: time.sleep(60))
        with pytest.raises(Stopped):
            signals.run_in_thread(call, 60)
    over.set()

    assert before is signal.getsignal(signal.SIGTERM)


def test_a_signal_ends_a_computation():
    """
    SIGTERM ends the making of a request, which leaves nothing behind, and none begins after it.

    A batch of rows with many values took seconds, and the signal was seen only behind it.
    """
    ran = []

    def call():
        ran.append("begun")
        os.kill(os.getpid(), signal.SIGTERM)
        ran.append("ended")

    with Signals() as signals:
        assert 5 == signals.run(lambda: 5)
        for _ in range(2):
            with pytest.raises(Stopped):
                signals.run(call)

    assert ["begun"] == ran


def test_a_second_signal_breaks_into_nothing():
    """A second signal does not break into what the first one has set going, such as the end of a wait."""
    ended = []

    def call():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            ended.append("whole")

    with Signals() as signals, pytest.raises(Stopped):
        signals.run(call)

    assert ["whole"] == ended


def test_an_answer_just_after_the_signal_counts():
    """What is answered within the grace of a signal is returned, so that the cursor moves; the next wait stops."""

    def call():
        os.kill(os.getpid(), signal.SIGTERM)
        return "taken"

    with Signals() as signals:
        assert "taken" == signals.run_in_thread(call, 60)
        with pytest.raises(Stopped):
            signals.run(lambda: None)
