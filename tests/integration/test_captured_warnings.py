"""
Python's own warnings, by `logging.captureWarnings`.
"""

from __future__ import annotations

WARNS = """
import logging
import warnings

from sqlite_log_handler import SQLiteHandler

logging.getLogger().addHandler(SQLiteHandler("app-log.db"))
logging.captureWarnings(True)
warnings.simplefilter("always")
warnings.warn("this will go away", DeprecationWarning)
"""


def test_captured_warnings(project):
    """A warning of Python is a row of the logger py.warnings, and not a line on stderr."""
    assert "" == project.python(WARNS)

    [(level, message)] = project.query("SELECT level, message FROM logs WHERE logger = 'py.warnings'")
    assert "WARNING" == level
    assert "DeprecationWarning: this will go away" in message
