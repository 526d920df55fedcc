"""
The time that SQLite may take for one question.
"""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from sqlite_log_handler import LimitError
from sqlite_log_handler._read.budget import Budget


def test_the_budget_is_that_of_a_question(path):
    """Statements share one budget of time, and the next question has a new one."""
    wall = iter([0.0, 0.4, 1.0, 1.2, 2.0, 2.4])
    thread = iter([7.0, 7.0, 7.6])
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        budget = Budget(connection, "app-log.db", 0, wall=lambda: next(wall), clock=lambda: next(thread))
        for _ in range(3):
            with budget:
                connection.execute("SELECT 1")
        with pytest.raises(LimitError, match=r"'app-log\.db': it takes more work to read than any log"), budget:
            pass
        budget.renew()
        with budget:
            connection.execute("SELECT 1")


def test_a_busy_machine_uses_up_no_budget(path):
    """What a slow disk or another process takes is not counted: when the wall clock is through, the thread's counts."""
    wall = iter([0.0, 60.0])
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        budget = Budget(connection, "app-log.db", 0, wall=lambda: next(wall), clock=lambda: 0.1)
        for _ in range(9):
            with budget:
                connection.execute("SELECT 1")
        assert not budget.spent
