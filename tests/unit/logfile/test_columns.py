"""
The columns of the view `logs` as SQL.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest

from sqlite_log_handler._logfile.columns import COLUMNS, FROM, JSON_COLUMNS, json_object
from sqlite_log_handler._logfile.schema import LOG_COLUMNS, SCHEMA

_WHOLE = {"id", "created_us", "levelno", "lineno", "process", "thread"}


@pytest.mark.parametrize("created_us", [0, 1_764_380_000_123_456, -1, 253_402_300_800_000_000])
def test_as_in_the_view(created_us: int) -> None:
    """What is read column by column, and as JSON, is what the view shows."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO sources VALUES (1, 'app', '/src/app.py', 7, 'main', '')")
        connection.execute("INSERT INTO processes VALUES (1, 'host', 42, 'MainProcess', 0, 'prog')")
        connection.execute(
            "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (?, 20, 1, 1, 'hello')",
            (created_us,),
        )
        view = connection.execute("SELECT * FROM logs").fetchone()
        columns = connection.execute(f"SELECT {', '.join(COLUMNS.values())} FROM {FROM}").fetchone()
        (line,) = connection.execute(f"SELECT {json_object(JSON_COLUMNS)} FROM {FROM}").fetchone()

    assert view == columns
    assert dict(zip(LOG_COLUMNS, view, strict=True)) == json.loads(line)


def test_each_cell_is_of_its_kind() -> None:
    """A file from elsewhere may have blobs and texts where numbers belong; a reader gets the kind of the column."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO sources VALUES (1, x'41', x'42', 'many', 7.5, '')")
        connection.execute("INSERT INTO processes VALUES (1, x'43', 'x', 7, 0, 'prog')")
        values = "1, 'now', 'high', 1, 1, NULL, x'ff', 1, 2, x'44', 3, 4, 5, x'7b'"
        connection.execute(f"INSERT INTO records VALUES ({values})")
        columns = connection.execute(f"SELECT {', '.join(COLUMNS.values())} FROM {FROM}").fetchone()
        (line,) = connection.execute(f"SELECT {json_object(JSON_COLUMNS)} FROM {FROM}").fetchone()

    assert _WHOLE == {name for name, value in zip(LOG_COLUMNS, columns, strict=True) if isinstance(value, int)}
    assert "{" == json.loads(line)["attributes"]
