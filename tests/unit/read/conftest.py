"""
Logs to read.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING

import pytest
from logged import record
from made_parts import fill

from sqlite_log_handler import LogReader
from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._write.volume import fold

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(make_handler):
    """Put records into the log at `path`, at once."""

    def log(*records):
        handler = make_handler()
        for one in records:
            handler.handle(one)
        assert handler.flush()
        handler.close()

    return log


@pytest.fixture
def prune(path):
    """Delete all rows, once volume has counted them, as retention does."""

    def prune():
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection, transaction(connection):
            fold(connection)
            connection.execute("DELETE FROM records")

    return prune


@pytest.fixture
def change(path):
    """Change a file behind everybody's back."""

    def change(script, *parameters):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            if parameters:
                connection.execute(script, parameters)
            else:
                connection.executescript(script)

    return change


@pytest.fixture
def reading(path):
    """Open the log at `path` for reading."""
    with contextlib.ExitStack() as stack:
        yield lambda file=path: stack.enter_context(LogReader(file))


@pytest.fixture
def messages(reading):
    """Return the messages that match some filters."""
    return lambda **filters: [row.message for row in reading().rows(**filters)]


@pytest.fixture
def overflowed(make_handler, path):
    """A log with a gap: 10 of 25 DEBUG records are kept and the ERROR record, 15 are dropped."""
    handler = make_handler(
        capacity=20, reserve=0.5, fair_share=1, batch_size=100, flush_interval=3_600, flush_level=logging.CRITICAL
    )
    for number in range(25):
        handler.handle(record(f"burst {number}", logging.DEBUG, "shop.cache", seconds=number / 10))
    handler.handle(record("kept", logging.ERROR, seconds=3))
    handler.close()
    return path


@pytest.fixture
def file(path: Path) -> Path:
    """A log with 39 rows."""
    fill(path, [12, 27, 12])
    return path
