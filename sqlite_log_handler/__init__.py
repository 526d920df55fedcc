"""
A `logging.Handler` that keeps a program's log in an SQLite file: bounded, counted, and never in the way.

    >>> import logging
    >>> logging.getLogger().addHandler(SQLiteHandler("app-log.db"))

See `SQLiteHandler`.
"""

from sqlite_log_handler._handler import SQLiteHandler, Stats
from sqlite_log_handler._schema import ForeignFileError, LogFileError, NewerSchemaError

__version__ = "0.1.0"

__all__ = ["ForeignFileError", "LogFileError", "NewerSchemaError", "SQLiteHandler", "Stats"]
