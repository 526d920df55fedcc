"""
The public names as a typed program uses them: mypy checks this file, strictly, and nothing runs it.

A line with `type: ignore` is a mistake that a type checker has to find: it says so when there is nothing to ignore.
"""

import logging
from pathlib import Path
from typing import assert_type

from sqlite_log_handler import ForeignFileError, LogFileError, NewerSchemaError, SQLiteHandler, Stats


def make() -> logging.Handler:
    """Every option has its type, and the handler is a `logging.Handler`."""
    handler = SQLiteHandler(
        Path("app-log.db"),
        "INFO",
        capacity=1_000,
        capacity_bytes=1_000_000,
        max_record_bytes=10_000,
        reserve=0.1,
        reserve_level=logging.WARNING,
        batch_size=100,
        flush_interval=1,
        flush_level="ERROR",
        close_timeout=2.5,
    )
    logging.getLogger().addHandler(handler)
    return handler


def use(handler: SQLiteHandler) -> None:
    """What is read off a handler has a type."""
    assert_type(handler.filename, str)
    assert_type(handler.dropped_total, int)
    assert_type(handler.flush(), bool)
    assert_type(handler.flush(timeout=1.5), bool)
    assert_type(handler.stats(), Stats)


def read(stats: Stats) -> None:
    """So has what stands in the books, and they cannot be changed."""
    assert_type(stats.seen, int)
    assert_type(stats.written, int)
    assert_type(stats.dropped_total, int)
    assert_type(stats.queued, int)
    assert_type(stats.queued_bytes, int)
    assert_type(stats.peak_queued, int)
    assert_type(stats.dropped_by_cause, dict[str, int])
    assert_type(stats.dropped_by_level, dict[str, int])
    assert_type(stats.dropped_by_logger, dict[str, int])
    assert_type(stats.truncated, int)
    assert_type(stats.malformed, int)
    assert_type(stats.last_commit_age, float | None)
    assert_type(stats.last_error, str | None)
    stats.seen = 0  # type: ignore[misc]


def fail() -> LogFileError | None:
    """The errors are a family, and mistakes in a call are found before the program runs."""
    try:
        SQLiteHandler("app-log.db", capacty=1)  # type: ignore[call-arg]
        SQLiteHandler("app-log.db", logging.INFO, 1_000)  # type: ignore[call-arg]
        SQLiteHandler(b"app-log.db")  # type: ignore[arg-type]
        SQLiteHandler("app-log.db", capacity="1000")  # type: ignore[arg-type]
    except (ForeignFileError, NewerSchemaError) as error:
        return assert_type(error, ForeignFileError | NewerSchemaError)
    return None
