"""
The errors of a file: one for each condition.
"""

from __future__ import annotations

import inspect

import pytest

import sqlite_log_handler
from sqlite_log_handler._logfile import errors

ERRORS = [item for _, item in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("error", ERRORS)
def test_one_base_catches_every_condition(error):
    """A program that catches LogFileError catches each, and can name each by what the package exports."""
    assert issubclass(error, sqlite_log_handler.LogFileError)
    assert error is getattr(sqlite_log_handler, error.__name__)


def test_a_missing_file_is_what_python_calls_one():
    """A program that catches FileNotFoundError catches a missing log too."""
    with pytest.raises(FileNotFoundError, match="app-log"):
        raise errors.MissingFileError("app-log.db")
