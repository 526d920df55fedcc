"""
python-json-logger as the formatter of the handler.
"""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.needs("pythonjsonlogger")

FAILS = """
import logging

import orders

try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("shop").exception("order lost", extra={"order": 43})
"""


def test_page(project):
    """The page can be followed word for word: the message is JSON."""
    project.follow()

    [[(_, order)]] = project.answers
    assert 42 == order
    assert {"levelname": "INFO", "message": "order paid", "order": 42} == json.loads(project.printed[0])


def test_exceptions(project):
    """The traceback is in its column, and not in the JSON."""
    project.write()
    project.python(FAILS)

    [(message, exc_type)] = project.query("SELECT message, exc_type FROM logs WHERE level = 'ERROR'")
    assert {"levelname": "ERROR", "message": "order lost", "order": 43} == json.loads(message)
    assert "ZeroDivisionError" == exc_type
