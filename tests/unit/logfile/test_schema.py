"""
The file as others see it: its marks, its view, and what is refused without being touched.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
import sqlite3
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._logfile.schema import APPLICATION_ID, SCHEMA, USER_VERSION
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """The schema, in memory."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO sources VALUES (1, 'app', '/src/app.py', 7, 'main', '')")
        connection.execute("INSERT INTO processes VALUES (1, 'host', 42, 'MainProcess', 0, 'prog')")
        yield connection


def insert(connection: sqlite3.Connection, created_us: int = 0, levelno: int = 20) -> None:
    """Insert one record."""
    connection.execute(
        "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (?, ?, 1, 1, 'hello')",
        (created_us, levelno),
    )


# The marks -----------------------------------------------------------------------------------------------------------


def test_marks(path: Path) -> None:
    """A file of ours carries its application_id where file(1) looks for it, and its version."""
    writer = Writer(str(path))
    writer.file.open()
    writer.close()
    header = path.read_bytes()[:100]

    assert b"SLog" == header[68:72]
    assert USER_VERSION == int.from_bytes(header[60:64], "big")
    assert int.from_bytes(b"SLog", "big") == APPLICATION_ID


def test_sql_that_old_sqlite_reads() -> None:
    """The schema has nothing that SQLite 3.34 does not know."""
    assert None is re.search(
        r"\bSTRICT\b|\bRETURNING\b|->>?|\bIIF\b|\bunixepoch\(|\bconcat\b|\bformat\(", SCHEMA, re.IGNORECASE
    )


def test_no_text_in_double_quotes(database: sqlite3.Connection) -> None:
    """The schema has no text in double quotes, which newer SQLite can be told to refuse."""
    assert '"' not in SCHEMA
    assert [("ok",)] == database.execute("PRAGMA integrity_check").fetchall()


# The view ------------------------------------------------------------------------------------------------------------


def test_columns_of_the_view(database: sqlite3.Connection) -> None:
    """The view has the columns that the reference names, in that order."""
    columns = (
        "id created_us time levelno level logger message pathname lineno func process process_name host "
        "thread thread_name task_name exc_type exc_text stack_info attributes"
    )

    assert columns.split() == [column[0] for column in database.execute("SELECT * FROM logs").description]


def test_row_of_the_view(database: sqlite3.Connection) -> None:
    """The view shows a record flat, with its source, its process and its level's name."""
    insert(database, 1_763_891_000_123_456)
    row = dict(
        zip(
            [c[0] for c in database.execute("SELECT * FROM logs").description],
            *database.execute("SELECT * FROM logs"),
            strict=True,
        )
    )

    assert ("app", "/src/app.py", 7, "main") == (row["logger"], row["pathname"], row["lineno"], row["func"])
    assert (42, "MainProcess", "host") == (row["process"], row["process_name"], row["host"])
    assert (1, "2025-11-23T09:43:20.123456Z", "INFO") == (row["id"], row["time"], row["level"])


@pytest.mark.parametrize(
    "created_us",
    [
        *(0, 1, -1, 999_999, 1_000_000, -1_000_000, -999_999, -1_000_001),
        *(1_763_891_000_123_456, -2_208_988_800_000_001, 253_402_300_799_999_999, -62_135_596_800_000_000),
    ],
)
def test_time_of_the_view(database: sqlite3.Connection, created_us: int) -> None:
    """The time is ISO 8601 in UTC, to the microsecond, before 1970 as well."""
    insert(database, created_us)
    time = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=created_us)

    assert [(f"{time.isoformat(timespec='microseconds')}Z",)] == database.execute("SELECT time FROM logs").fetchall()


@pytest.mark.parametrize("created_us", [253_402_300_800_000_000, 8_999_999_999_999_999_999, -8_999_999_999_999_999_999])
def test_time_beyond_the_calendar(database: sqlite3.Connection, created_us: int) -> None:
    """A time after the year 9999, which SQLite's calendar does not have, leaves the record in the view."""
    insert(database, created_us)

    assert [(created_us, "hello")] == database.execute("SELECT created_us, message FROM logs").fetchall()


@pytest.mark.parametrize(
    ("levelno", "level"),
    [(10, "DEBUG"), (20, "INFO"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL"), (25, "Level 25")],
)
def test_level_of_the_view(database: sqlite3.Connection, levelno: int, level: str) -> None:
    """Levels have their names, and those without one are called as logging calls them."""
    insert(database, levelno=levelno)

    assert [(level,)] == database.execute("SELECT level FROM logs").fetchall()


def test_custom_level_of_the_view(database: sqlite3.Connection) -> None:
    """A level that a program named has that name for every reader."""
    database.execute("INSERT INTO levels VALUES (25, 'NOTICE')")
    insert(database, levelno=25)

    assert [("NOTICE",)] == database.execute("SELECT level FROM logs").fetchall()


def test_time_is_searched_by_index(database: sqlite3.Connection) -> None:
    """A range of time is found by the index, through the view too."""
    plan = database.execute("EXPLAIN QUERY PLAN SELECT * FROM logs WHERE created_us >= 1").fetchall()

    assert any("records_created_us" in step[-1] for step in plan)


def test_ids_are_not_given_twice(database: sqlite3.Connection) -> None:
    """An id is never given again, because retention leaves the newest record: readers follow by id."""
    insert(database)
    insert(database)
    database.execute("DELETE FROM records WHERE id < 2")
    insert(database)

    assert [(2,), (3,)] == database.execute("SELECT id FROM logs").fetchall()


def test_names_of_all_levels_are_those_of_logging() -> None:
    """The names that the schema brings are those of the standard library."""
    named = {int(number): name for number, name in re.findall(r"\((\d+), '(\w+)'\)", SCHEMA)}

    assert {level: logging.getLevelName(level) for level in (10, 20, 30, 40, 50)} == named
    assert APPLICATION_ID < 2**31
