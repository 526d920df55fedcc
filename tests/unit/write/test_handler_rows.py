"""
From a call of a logger to a row in the file.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import logging.config
import logging.handlers
import os
import queue
import sys
from unittest.mock import MagicMock, Mock

import pytest
from freezegun import freeze_time
from records import messages

from sqlite_log_handler import SQLiteHandler


def test_a_record_is_a_row(make_handler, logger, query):
    """Everything that a record says stands in the view, under the names that logging has for it."""
    handler = make_handler()
    logger.addHandler(handler)
    with freeze_time("2024-02-29 12:34:56.789012"):
        logger.warning("stock of %s is low", "tea", extra={"item": 7, "_private": 1})
    handler.flush()

    columns = "time, levelno, level, logger, message, pathname, func, process, thread_name, attributes"
    (row,) = query(f"SELECT {columns} FROM logs")

    assert (
        "2024-02-29T12:34:56.789012Z",
        30,
        "WARNING",
        logger.name,
        "stock of tea is low",
        __file__,
        "test_a_record_is_a_row",
        os.getpid(),
        "MainThread",
        '{"item": 7}',
    ) == row


def test_rows_have_the_time_of_their_call(make_handler, logger, query, unattended):
    """A row has the time at which it was logged, not the one at which it was committed."""
    handler = make_handler()
    logger.addHandler(handler)
    with freeze_time("2024-01-01 00:00:00") as frozen:
        for _ in range(3):
            logger.info("x")
            frozen.tick(1.5)
    handler.listener.handle(None)

    assert [f"2024-01-01T00:00:0{second}Z" for second in ("0.000000", "1.500000", "3.000000")] == [
        moment for (moment,) in query("SELECT time FROM logs ORDER BY id")
    ]


def test_the_formatter_gives_the_message(make_handler, logger, query):
    """With a formatter, `message` is what it gives, without the traceback, which has a column of its own."""
    handler = make_handler()
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    logger.addHandler(handler)
    try:
        raise ValueError("no tea")
    except ValueError:
        logger.exception("brewing failed")
    handler.flush()

    ((message, exc_type, exc_text),) = query("SELECT message, exc_type, exc_text FROM logs")
    assert ("[ERROR] brewing failed", "ValueError") == (message, exc_type)
    assert exc_text.startswith("Traceback")
    assert exc_text.endswith("ValueError: no tea")


def test_filters_are_honoured(make_handler, logger, query):
    """A filter of the handler keeps records out."""
    handler = make_handler()
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.addHandler(handler)

    logger.info("secret")
    logger.info("public")
    handler.flush()

    assert ["public"] == messages(query)
    assert 1 == handler.stats().seen


def test_a_subclass_with_its_own_filter(logger, path, query):
    """
    A subclass's own `filter` is asked about each record, as every handler of the standard library asks it.

    It was asked only when the handler had a filter besides, so what it was to keep out was written.
    """

    class Public(SQLiteHandler):
        def filter(self, record):
            return "secret" not in record.getMessage() and super().filter(record)

    with contextlib.closing(Public(path)) as handler:
        logger.addHandler(handler)
        logger.info("secret")
        logger.info("public")

    assert ["public"] == messages(query)


def test_a_filter_whose_answer_raises(logger, path, query):
    """A subclass's own `filter` may return an object that is neither true nor false, as an array is."""

    class Answers(SQLiteHandler):
        def filter(self, record):
            return MagicMock(__bool__=Mock(side_effect=ValueError))

    with contextlib.closing(Answers(path)) as handler:
        logger.addHandler(handler)
        logger.info("secret")

    assert ["<record not kept: ValueError>"] == messages(query)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters return records from Python 3.12 on")
def test_a_filter_may_replace_the_record(make_handler, logger, query):
    """From Python 3.12 on a filter may return another record, which is then the one that is stored."""

    def redact(record):
        record = copy.copy(record)
        record.msg = "redacted"
        return record

    handler = make_handler()
    handler.addFilter(redact)
    logger.addHandler(handler)
    logger.info("secret")
    handler.flush()

    assert ["redacted"] == messages(query)


def test_a_filter_that_raises_keeps_the_content_out(make_handler, logger, query):
    """
    The caller does not see the exception. The row says it, without the message, which the filter may have had to hide.
    """

    def broken(record):
        raise KeyError("user")

    handler = make_handler()
    handler.addFilter(broken)
    logger.addHandler(handler)
    logger.info("secret")
    handler.flush()

    assert ["<record not kept: KeyError>"] == messages(query)
    assert 1 == handler.stats().malformed


def test_a_bad_record_is_a_row(make_handler, logger, query):
    """A message that cannot be formatted is kept as it is, with its args and a marker, and the caller never knows."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("%d items", "x")
    handler.flush()

    (message,) = messages(query)
    assert message.startswith('%d items ["x"] <not formatted: TypeError')
    assert (1, 1) == (handler.stats().written, handler.stats().malformed)


def test_something_that_is_no_record_is_counted(make_handler, logger, query):
    """Even what is no LogRecord at all ends as a row with a marker, not as an exception."""

    class Broken(logging.LogRecord):
        def __init__(self):
            """Have none of a record's attributes."""

        def __getattribute__(self, name):
            raise ZeroDivisionError

    handler = make_handler()
    handler.emit(logging.makeLogRecord({}))
    for thing in (type("Thing", (), {})(), None, 42, {}, object()):
        handler.handle(thing)
    handler.handle(Broken())
    handler.flush()

    attribute = "<record not kept: AttributeError>"
    assert ["", *[attribute] * 5, "<record not kept: ZeroDivisionError>"] == messages(query)


def test_an_exit_comes_through(make_handler, logger, query):
    """KeyboardInterrupt and SystemExit belong to the program: they come out of the call, and the record is kept."""

    class Exits:
        def __str__(self):
            raise SystemExit(3)

    handler = make_handler()
    logger.addHandler(handler)
    with pytest.raises(SystemExit):
        logger.info("%s", Exits())
    handler.flush()

    assert ["<record not kept: SystemExit>"] == messages(query)


def test_long_records_are_cut_and_counted(make_handler, logger, query):
    """A record longer than `max_record_bytes` is cut at its end, marked and counted."""
    handler = make_handler(max_record_bytes=2_000)
    logger.addHandler(handler)
    logger.info("x" * 260_000)
    logger.info("short")
    handler.flush()

    long, short = messages(query)
    assert (2_000, "short") == (len(long), short)
    assert long.endswith("<cut: 260000 characters>")
    assert 1 == handler.stats().truncated


def test_a_batch_may_be_as_large_as_one_likes(make_handler, logger, query):
    """A `batch_size` that no machine can count to is one that is never reached, and not one that is never written."""
    handler = make_handler(batch_size=1 << 70)
    logger.addHandler(handler)
    logger.info("x")
    handler.flush()

    assert ["x"] == messages(query)


def test_records_of_another_process(make_handler, logger, query):
    """A record that was sent here by another process keeps its process, as far as the record knows it."""
    handler = make_handler()
    record = logging.makeLogRecord({"name": "child", "msg": "x", "process": 99_999_999, "processName": "Worker-7"})
    handler.handle(record)
    handler.flush()

    assert [(99_999_999, "Worker-7")] == query("SELECT process, process_name FROM logs")


def test_a_queue_handler_may_stand_in_front(make_handler, logger, query):
    """Records that come through the standard library's own queue are stored as any other."""
    handler = make_handler()
    pipe: queue.Queue[logging.LogRecord] = queue.Queue()
    front = logging.handlers.QueueHandler(pipe)
    logger.addHandler(front)
    listener = logging.handlers.QueueListener(pipe, handler)
    listener.start()
    try:
        raise ValueError("x")
    except ValueError:
        logger.exception("failed with %s", "style")
    listener.stop()
    handler.flush()

    ((message, exc_text),) = query("SELECT message, exc_text FROM logs")
    assert message.startswith("failed with style")
    assert "ValueError: x" in (exc_text or message)
