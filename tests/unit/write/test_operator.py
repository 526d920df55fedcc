"""
Lines for the operator: what a console that is broken, full or missing makes of them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys

import pytest

from sqlite_log_handler._write.operator import Operator


class Broken:
    """A stream that cannot be written to."""

    def write(self, text):
        raise OSError(text)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell whether a pipe is full")
def test_a_line_is_not_written_to_a_full_pipe(path, monkeypatch):
    """
    When standard error is a pipe that nobody reads, the line is left out: the listener waited for a reader, no record
    was written any more, and `close` never returned.
    """
    reading, writing = os.pipe()

    class Stderr(io.StringIO):
        def fileno(self):
            return writing

    monkeypatch.setattr(sys, "stderr", Stderr())
    say = Operator(str(path)).say
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        say("one")
        assert "" == sys.stderr.getvalue()
        os.read(reading, 1 << 20)
        say("two")
        assert f"sqlite_log_handler: {path}: two\n" == sys.stderr.getvalue()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("how", ["no stderr", "broken stderr", "no raiseExceptions"])
def test_a_line_for_the_operator_costs_nobody_anything(path, monkeypatch, capsys, how):
    """
    Without a console nothing is said and nothing is raised; nor is anything said when `logging` is told to be quiet.
    """
    say = Operator(str(path)).say
    if how == "no raiseExceptions":
        monkeypatch.setattr(logging, "raiseExceptions", False)
    else:
        monkeypatch.setattr(sys, "stderr", None if how == "no stderr" else Broken())
        monkeypatch.setattr(sys, "__stderr__", Broken())
    say("cannot write")
    monkeypatch.undo()

    assert ("", "") == capsys.readouterr()


def test_an_object_of_the_program_gets_no_line(path, monkeypatch):
    """
    When `sys.stderr` is an object of the program, the line goes to the stream that the process began with.

    Such an object may log: celery puts one there. Then the thread that commits ran the program's handlers.
    """
    monkeypatch.setattr(sys, "stderr", Broken())
    monkeypatch.setattr(sys, "__stderr__", io.StringIO())
    Operator(str(path)).say("cannot write")

    assert f"sqlite_log_handler: {path}: cannot write\n" == sys.__stderr__.getvalue()


def test_lines_wait_for_the_lock_to_be_free(capsys):
    """What is said later is said once, in order."""
    operator = Operator("app-log.db")
    operator.say_later("one")
    operator.say_later("two")
    assert "" == capsys.readouterr().err
    operator.say_waiting()
    operator.say_waiting()

    assert "sqlite_log_handler: app-log.db: one\nsqlite_log_handler: app-log.db: two\n" == capsys.readouterr().err
