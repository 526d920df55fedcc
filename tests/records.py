"""
What the tests of rows share: records, their rows, and what every row has to be.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.row import (
    ATTRIBUTES,
    EXC_TEXT,
    MESSAGE,
    SIZE,
    STACK_INFO,
    PackedRow,
    make_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX = 1024


def make_record(msg: Any = "m", *args: Any, **values: Any) -> logging.LogRecord:
    """Make a record, and set *values* on it as `extra` would."""
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, msg, args, None, "main")
    record.__dict__.update(values)
    return record


def make_structlog_record(msg: dict[Any, Any], **values: Any) -> logging.LogRecord:
    """Make a record as structlog does with `ProcessorFormatter.wrap_for_formatter`."""
    return make_record(msg, _logger=logging.getLogger("app"), _name="info", **values)


def rows_of(record: logging.LogRecord, **options: Any) -> tuple[PackedRow, PackedRow]:
    """Make the row twice: of a call site that is new, and of one that is known, which goes a shorter way."""
    forget()
    make_row(record, **options)
    known = make_row(record, **options)
    forget()
    return make_row(record, **options), known


def forget() -> None:
    """Let every call site and every thread be new."""
    for cache in (row_module._shared, row_module._templates, row_module._template_counts):
        cache.clear()


def row_of(record: logging.LogRecord, **options: Any) -> PackedRow:
    """Make the row, and see that it does not depend on whether the call site is known, but for what that costs."""
    new, known = rows_of(record, **options)
    assert new[:SIZE] + new[SIZE + 1 :] == known[:SIZE] + known[SIZE + 1 :]
    check_contract(new)
    check_contract(known)
    return known


def check_contract(row: PackedRow) -> None:
    """See that a row holds exact plain types only, which SQLite takes."""
    levelno, created, source, size, marks, thread, *texts = row
    logger, pathname, lineno, func, template = source
    process, process_name, thread_id, thread_name = thread

    assert [tuple] * 3 == [type(row), type(source), type(thread)]
    assert float is type(created)
    assert math.isfinite(created)
    for number in (levelno, size, marks, lineno, process, thread_id or 0):
        assert int is type(number)
        assert -(2**63) <= number < 2**63
    assert str is type(row[MESSAGE])
    for text in (logger, pathname, func, template, process_name, thread_name, *texts):
        if text is not None:
            assert str is type(text)
            assert "\0" not in text
            text.encode()
    assert size > 0


def attributes_of(row: PackedRow) -> dict[str, Any]:
    """Read the attributes as SQLite and as Python do, which must agree that they are an object."""
    text = row[ATTRIBUTES]
    assert text is not None
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        assert (1, "object") == connection.execute("SELECT json_valid(?), json_type(?)", (text, text)).fetchone()
    values = json.loads(text)
    assert isinstance(values, dict)
    return values


def extract(row: PackedRow, path: str) -> Any:
    """Have SQLite read one attribute."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        return connection.execute("SELECT json_extract(?, ?)", (row[ATTRIBUTES], path)).fetchone()[0]


def utf8(row: PackedRow) -> int:
    """Add up what `max_bytes` bounds."""
    return sum(len((row[field] or "").encode()) for field in (MESSAGE, EXC_TEXT, STACK_INFO, ATTRIBUTES))


def raised(error: BaseException) -> Any:
    """Return the exc_info of *error*, raised."""
    try:
        raise error
    except BaseException:  # noqa: BLE001 - any kind is asked for
        return sys.exc_info()


class Hostile:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise ValueError("no str")

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Text(str):
    """A str that is none of SQLite's business."""

    __slots__ = ("__weakref__",)


def messages(query: Callable[[str, str], list[tuple[str]]]) -> list[str]:
    """Return the messages in the file, in order, without the drop warnings."""
    return [text for (text,) in query("SELECT message FROM logs WHERE logger <> ? ORDER BY id", OWN_LOGGER)]
