"""
A `logging.Handler` that keeps a program's log in an SQLite file: bounded, counted, and never in the way.

    >>> import logging
    >>> logging.getLogger().addHandler(SQLiteHandler("app-log.db"))

See `SQLiteHandler`, and `LogReader` for reading the log back.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sqlite_log_handler._handler import SQLiteHandler, Stats
from sqlite_log_handler._schema import ForeignFileError, LogFileError, NewerSchemaError

if TYPE_CHECKING:
    from sqlite_log_handler._figures import Books, Bucket, Cursor, Gap, LogStats
    from sqlite_log_handler._filters import FilterError
    from sqlite_log_handler._logged import Row
    from sqlite_log_handler._open import (
        BusyFileError,
        CorruptFileError,
        EmptyFileError,
        LimitError,
        MissingFileError,
        UnreadableFileError,
    )
    from sqlite_log_handler._reader import LogReader
    from sqlite_log_handler._talkers import Talker

__version__ = "0.1.0"

__all__ = [
    "Books",
    "Bucket",
    "BusyFileError",
    "CorruptFileError",
    "Cursor",
    "EmptyFileError",
    "FilterError",
    "ForeignFileError",
    "Gap",
    "LimitError",
    "LogFileError",
    "LogReader",
    "LogStats",
    "MissingFileError",
    "NewerSchemaError",
    "Row",
    "SQLiteHandler",
    "Stats",
    "Talker",
    "UnreadableFileError",
]

# Of the half that reads, imported when it is asked for: most programs only log.
_READING = {
    **dict.fromkeys(("Books", "Bucket", "Cursor", "Gap", "LogStats"), "_figures"),
    **dict.fromkeys(
        (
            "BusyFileError",
            "CorruptFileError",
            "EmptyFileError",
            "LimitError",
            "MissingFileError",
            "UnreadableFileError",
        ),
        "_open",
    ),
    "FilterError": "_filters",
    "LogReader": "_reader",
    "Row": "_logged",
    "Talker": "_talkers",
}


def __getattr__(name: str) -> Any:
    if name in _READING:
        return getattr(importlib.import_module(f"{__name__}.{_READING[name]}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *_READING})
