"""
A `logging.Handler` that keeps a program's log in an SQLite file: bounded, counted, and never in the way.

    >>> import logging
    >>> logging.getLogger().addHandler(SQLiteHandler("app-log.db"))

See `SQLiteHandler`, and `LogReader` for reading the log back.
"""

from __future__ import annotations

from sqlite_log_handler._logfile.errors import (
    BusyFileError,
    CorruptFileError,
    EmptyFileError,
    ForeignFileError,
    LimitError,
    LogFileError,
    MissingFileError,
    NewerSchemaError,
    UnreadableFileError,
)
from sqlite_log_handler._write.handler import SQLiteHandler, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sqlite_log_handler._read.brief import Brief
    from sqlite_log_handler._read.filters import FilterError
    from sqlite_log_handler._read.patterns import Pattern
    from sqlite_log_handler._read.reader import LogReader
    from sqlite_log_handler._read.rows import Row
    from sqlite_log_handler._read.statistics import Books, Bucket, Cursor, Gap, LogStats
    from sqlite_log_handler._read.top import Talker
    from sqlite_log_handler._read.totals import Lag, Totals

__version__ = "0.1.0"

__all__ = [
    "Books",
    "Brief",
    "Bucket",
    "BusyFileError",
    "CorruptFileError",
    "Cursor",
    "EmptyFileError",
    "FilterError",
    "ForeignFileError",
    "Gap",
    "Lag",
    "LimitError",
    "LogFileError",
    "LogReader",
    "LogStats",
    "MissingFileError",
    "NewerSchemaError",
    "Pattern",
    "Row",
    "SQLiteHandler",
    "Stats",
    "Talker",
    "Totals",
    "UnreadableFileError",
]

# Of the half that reads, imported when it is asked for: most programs only log.
_READING = {
    **dict.fromkeys(("Books", "Bucket", "Cursor", "Gap", "LogStats"), "statistics"),
    "Brief": "brief",
    "FilterError": "filters",
    "Lag": "totals",
    "LogReader": "reader",
    "Row": "rows",
    "Pattern": "patterns",
    "Talker": "top",
    "Totals": "totals",
}


def __getattr__(name: str) -> Any:
    if name in _READING:
        from importlib import import_module  # noqa: PLC0415 - most programs only log

        return getattr(import_module(f"{__name__}._read.{_READING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_READING})
