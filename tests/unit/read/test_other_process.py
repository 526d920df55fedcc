"""
Regular expressions in another process, which ends when they take too long.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest
from forked import in_child

from sqlite_log_handler import FilterError
from sqlite_log_handler._read import other_process as module
from sqlite_log_handler._read.other_process import NoProcessError, end_questions, other_process

# Python's `re` tries each way to cut 50 letters into pieces: it would take years.
BACKTRACKS = (r"(a+)+$", "a" * 50 + "!")


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """Processes of each test's own."""
    own = module._Pool()
    monkeypatch.setattr(module, "_pool", own)
    yield own
    end_questions()


def search(pattern, text):
    """Search as a question does."""
    import re  # noqa: PLC0415 - pickled by its name, and imported there

    return re.search(pattern, text) is not None


def fail(message):
    """Raise an error as a question does."""
    raise FilterError(message)


def test_an_answer_and_an_error_come_back():
    """What the question returns or raises comes from the process, which then answers the next one."""
    with other_process() as process:
        assert os.getpid() != process.ask(os.getpid)
        with pytest.raises(FilterError, match="no such run"):
            process.ask(fail, "no such run")
        first = process.ask(os.getpid)
    with other_process() as process:
        assert first == process.ask(os.getpid)


def test_an_expression_whose_meaning_may_change(monkeypatch):
    """Python's FutureWarning of an expression is left out, as on the command line; as an error, it was no answer."""
    monkeypatch.setenv("PYTHONWARNINGS", "error::FutureWarning")
    with other_process() as process:
        assert process.ask(search, "[[a]", "[")


def test_a_question_that_is_broken_off(monkeypatch):
    """What is raised while one waits for an answer ends the process: the next question got the answer to this one."""

    def interrupted(_):
        raise KeyboardInterrupt

    with other_process() as process:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(pickle, "load", interrupted)
            process.ask(os.getpid)
        assert not process.is_running
    with other_process() as process:
        assert process.ask(search, "a", "b") is False


@pytest.mark.skipif(sys.platform == "win32", reason="no timer of CPU time")
def test_an_expression_without_end(monkeypatch):
    """The system ends the process when the question has used up its time, and the next question gets a new one."""
    monkeypatch.setattr(module, "SECONDS", 0.1)
    with other_process() as process, pytest.raises(FilterError, match=r"takes more than 0\.1 s: ask for fewer rows"):
        process.ask(search, *BACKTRACKS)
    with other_process() as process:
        assert process.ask(search, "a+", "aaa")


def test_our_other_threads_run_meanwhile():
    """
    A question can be interrupted, because the search holds no lock of this process.

    On a thread of this process, the search kept the GIL: no other thread ran, and not even Ctrl-C ended it.
    """
    started, ended = threading.Event(), []

    def ask():
        with other_process() as process:
            found.append(process)
            started.set()
            try:
                process.ask(search, *BACKTRACKS)
            except FilterError as error:
                ended.append(str(error))

    found: list[module.OtherProcess] = []
    thread = threading.Thread(target=ask)
    thread.start()
    started.wait()
    found[0].interrupt()
    thread.join()

    assert ended == [f"the process for the question ended with status {-signal.SIGKILL}: ask again"]


def test_a_process_that_cannot_be_started(monkeypatch):
    """
    A system without room for a process has an error with a name, and the next question finds its turn free.

    The page answered a plain 500.
    """

    def no_room(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(module, "_MOST", 1)
    with monkeypatch.context() as full:
        full.setattr(subprocess, "Popen", no_room)
        with pytest.raises(NoProcessError, match=r"can be started \(.*\): ask again later"), other_process():
            pass
    with other_process() as process:
        assert process.ask(search, "a+", "aaa")


def test_a_frozen_program(monkeypatch):
    """
    A program that PyInstaller has frozen refuses questions that need a process of Python.

    Its executable is the program: each question began it a second time, and waited for an answer of it.
    """

    def begins_again(*_, **__):
        raise AssertionError

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", begins_again)
    with pytest.raises(NoProcessError, match="a frozen program cannot try an expression"), other_process():
        pass


def test_few_run_at_a_time(monkeypatch):
    """Each process takes a core and memory, so a further question waits for one, and not for ever."""
    monkeypatch.setattr(module, "_MOST", 1)
    monkeypatch.setattr(module, "_PATIENCE", 0)
    with other_process() as process:
        with pytest.raises(NoProcessError, match="are being answered already: ask again"), other_process():
            pass
        assert process.ask(search, "a+", "aaa")
    with other_process() as other:
        assert process is other


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_asks_a_process_of_its_own(pool):
    """A child of `fork` does not take a process that answers its parent, nor wait for those that its parent uses."""
    with other_process() as process:
        process.ask(os.getpid)
    with pool.changed:
        said = in_child(lambda: (module._pool.idle, module._pool.changed.acquire(blocking=False)))

    assert "([], True)" == said
    assert 1 == len(pool.idle)


@pytest.mark.parametrize("waits", [False, True])
def test_when_the_program_ends_no_question_is_left(monkeypatch, pool, waits):
    """
    Once a program is to end, a question that runs ends, and one that waits for a process or comes later gets none.

    Ctrl-C at `serve` ended the four that ran, and then others had their turn, for up to a minute.
    """
    monkeypatch.setattr(module, "_MOST", 1)
    monkeypatch.setattr(module, "_PATIENCE", 600)
    ended = []

    def ask():
        try:
            with other_process() as process:
                process.ask(search, *BACKTRACKS)
        except (NoProcessError, FilterError) as error:
            ended.append(str(error))

    waiting = threading.Event()
    monkeypatch.setattr(pool.changed, "wait_for", wait_and_say(pool.changed.wait_for, waiting))
    with other_process():
        thread = threading.Thread(target=ask)
        if waits:
            thread.start()
            waiting.wait()
        end_questions()
        if not waits:
            thread.start()
        thread.join()

    assert ["the program that answers is about to end"] == ended


def wait_and_say(wait_for, waiting):
    """Return a `wait_for` that says when it has found that it has to wait."""

    def wait(predicate, timeout):
        def look():
            found = predicate()
            if not found:
                waiting.set()
            return found

        return wait_for(look, timeout)

    return wait


@pytest.mark.skipif(not hasattr(signal, "SIGIO"), reason="no signal of a pipe")
def test_a_signal_that_comes_late_for_the_question_itself():
    """
    A process goes on when the signal of a pipe comes while its input has not ended.

    The system may send it for the last bytes of the question, after the process has begun to answer that.
    """
    with other_process() as process:
        assert process.ask(signal_and_answer, 7) == 7


def signal_and_answer(answer):
    """Get the signal of the pipe in the middle of a question."""
    signal.raise_signal(signal.SIGIO)
    return answer


def test_a_process_that_has_ended_is_not_asked():
    """A process that was killed while it waited is not taken for the next question."""
    with other_process() as process:
        process.ask(os.getpid)
    process.interrupt()
    process._process.wait()

    with other_process() as other:
        assert os.getpid() != other.ask(os.getpid)


def test_it_ends_with_this_process():
    """A process ends when nobody can ask it any more."""
    with other_process() as process:
        process.ask(os.getpid)
        process._questions.close()

        assert 0 == process._process.wait()


@pytest.mark.skipif(not hasattr(os, "getsid"), reason="no sessions")
def test_ctrl_c_at_a_terminal_does_not_reach_it():
    """
    A process is of no session but its own, and ends with ours: Ctrl-C goes to all processes of the terminal's.

    Ctrl-C while the first question was asked printed a traceback, of the process that was still importing.
    """
    with other_process() as process:
        assert process.ask(os.getpid) == process.ask(os.getsid, 0)


def begin_and_search(begun, pattern, text):
    """Tell that a question has begun, and search."""
    open(begun, "w").close()
    return search(pattern, text)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no signal at the end of a pipe")
@pytest.mark.parametrize("has_begun", [False, True])
def test_it_ends_with_this_process_in_the_middle_of_a_question(tmp_path, has_begun):
    """
    A process that searches for hours ends with ours, even if a signal ends ours at once.

    SIGTERM ended `serve`, and its processes searched on for a minute each.
    """
    begun = tmp_path / "begun"
    question = (begin_and_search, (begun, *BACKTRACKS)) if has_begun else (search, BACKTRACKS)
    with other_process() as process:
        if has_begun:
            os.mkfifo(begun)
        pickle.dump((*question, 5), process._questions)
        process._questions.flush()
        if has_begun:
            begun.read_bytes()
        process._questions.close()

        assert 0 == process._process.wait()
