"""
loguru, with the handler as a sink, and with all of `logging` handed on to it.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("loguru")

FAILS = """
from orders import logger

try:
    1 / 0
except ZeroDivisionError:
    logger.bind(order=43).exception("order lost")
"""

OVERFLOWS = """
import sqlite3
import sys

import orders
from everything import logger
from sqlite_log_handler import SQLiteHandler

small = SQLiteHandler("small-log.db", capacity=20, reserve=0, fair_share=1, flush_interval=0.01)
told = []
logger.remove()
logger.add(small, format=lambda record: "{message}", filter={"sqlite_log_handler": False})
logger.add(told.append, format="{message}", filter="sqlite_log_handler")

other = sqlite3.connect("small-log.db", isolation_level=None)
other.execute("BEGIN IMMEDIATE")
for number in range(100):
    logger.info("burst {}", number)
while not told:
    pass
other.execute("ROLLBACK")
other.close()
small.close()
print(len(told), small.dropped_total)
"""


def test_page(project):
    """The page can be followed word for word: the level of loguru has its name, and others' records arrive as well."""
    project.follow()

    [[(_, level, message)]] = project.answers
    assert ("SUCCESS", "order paid") == (level, message)
    rows = project.query("SELECT level, message, logger FROM logs WHERE message LIKE 'card%'")
    assert [("WARNING", "card c-17 refused", "__main__")] == rows


def test_exceptions(project):
    """The traceback is in its column, and not in the message."""
    project.write("orders.py")
    project.python(FAILS)

    [(message, exc_type, exc_text)] = project.query(
        "SELECT message, exc_type, exc_text FROM logs WHERE level = 'ERROR'"
    )
    assert ("order lost", "ZeroDivisionError") == (message, exc_type)
    assert "1 / 0" in exc_text
    assert {"order": 43} == project.attributes("level = 'ERROR'")


def test_drop_warnings_do_not_come_back(project):
    """
    A drop warning that an InterceptHandler hands on to loguru reaches loguru's other sinks, and not this one again.

    There it would be one more record that finds the queue full: one more warning at each tick, until the lock ends.
    """
    project.write()
    told, dropped = map(int, project.python(OVERFLOWS).splitlines()[-1].split())

    assert 80 == dropped
    warnings = project.query("SELECT logger FROM logs WHERE level = 'WARNING'", name="small-log.db")
    assert [("sqlite_log_handler",)] * told == warnings
