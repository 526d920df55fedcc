"""
The time that SQLite may take for one question.
"""

from __future__ import annotations

import contextlib
import inspect
import sqlite3
import time
from functools import partial
from itertools import chain, count, repeat

import pytest

from sqlite_log_handler import LimitError
from sqlite_log_handler._read.budget import Budget


def test_the_budget_is_that_of_a_question():
    """Statements share one budget of time, and the next question has a new one."""
    clock = iter([0.0, 0.5, 2.0, 2.6, 3.0, 3.4])
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        budget = Budget(connection, "app-log.db", int, clock=lambda: next(clock))
        for _ in range(2):
            with budget:
                connection.execute("SELECT 1")
        with pytest.raises(LimitError, match=r"'app-log\.db': it takes more work to read than any log"), budget:
            pass
        budget.renew()
        with budget:
            connection.execute("SELECT 1")


def test_a_file_that_grows():
    """When the time is used up, a statement gets that of the file as it is by then, and ends when that is used up."""
    clock, sizes = count(0.0, 0.25), chain([0], repeat(5_000_000))
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        budget = Budget(connection, "app-log.db", partial(next, sizes), clock=partial(next, clock))
        before = budget.seconds
        with pytest.raises(sqlite3.OperationalError), budget:
            connection.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")

    assert (1.0, 6.0, True) == (before, budget.seconds, 6 < next(clock) < 7)


def test_a_busy_machine_uses_up_no_budget():
    """What a slow disk or another process takes is not counted: the clock is that of the CPU time of the thread."""
    assert time.thread_time is inspect.signature(Budget).parameters["clock"].default


def test_calls_that_wait_on_a_busy_machine():
    """
    A part of a statement's CPU time counts however long its calls of Python took, so a table without end has an end.

    They are timed by the wall clock, and beside other programs a call that had to wait gave more than its statement
    used: `count(pattern=...)` read a table without end until somebody interrupted it.
    """
    clock = iter([0.0, 31.0, 31.0, 33.0])
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        budget = Budget(connection, "app-log.db", int, clock=lambda: next(clock))
        for _ in range(2):
            with budget:
                budget.leave_out(1_000.0)
        with pytest.raises(LimitError), budget:
            pass
