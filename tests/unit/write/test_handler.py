"""
The handler as programs use it: options, configuration, what is stored, overflow, closing and coming back.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import json
import logging
import logging.config
import logging.handlers
import os
import queue
import socket
import sqlite3
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from freezegun import freeze_time

from sqlite_log_handler import ForeignFileError, LogFileError, NewerSchemaError, SQLiteHandler
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import handler as handler_module
from sqlite_log_handler._write import listener as listener_module
from sqlite_log_handler._write import process
from sqlite_log_handler._write.listener import RecordListener


def handler_list():
    """Return what logging will flush and close at exit: the handlers, which stay as long as somebody has this list."""
    references = list(logging._handlerList)  # type: ignore[attr-defined]
    return [handler for reference in references if (handler := reference()) is not None]


def messages(query):
    """Return the messages in the file, in order."""
    return [message for (message,) in query("SELECT message FROM logs ORDER BY id")]


@pytest.fixture
def lock(path):
    """Another connection that locks the database: `lock()`, and again to let go."""
    connection = sqlite3.connect(path, isolation_level=None)

    def toggle():
        connection.execute("ROLLBACK" if connection.in_transaction else "BEGIN IMMEDIATE")

    yield toggle

    connection.close()


@pytest.fixture
def unattended(monkeypatch):
    """Handlers whose listener starts no thread: ticks come when the test calls `handler.listener.handle(None)`."""
    monkeypatch.setattr(RecordListener, "_start_thread", lambda self, thread: None)


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("capacity", 0, ValueError),
        ("capacity", "10", TypeError),
        ("capacity", True, TypeError),
        ("capacity", 1.5, TypeError),
        ("capacity_bytes", 65_535, ValueError),
        ("max_age", "7 dogs", ValueError),
        ("max_age", 0, ValueError),
        ("max_age", [7], TypeError),
        ("max_rows", 0, ValueError),
        ("max_rows", "10", TypeError),
        ("max_bytes", "1MB", ValueError),
        ("max_bytes", "500", ValueError),
        ("max_bytes", 1e9, TypeError),
        ("max_record_bytes", 1_023, ValueError),
        ("reserve", -0.1, ValueError),
        ("reserve", 1.0, ValueError),
        ("reserve", float("nan"), ValueError),
        ("reserve_level", "LOUD", ValueError),
        ("reserve_level", None, TypeError),
        ("batch_size", 0, ValueError),
        ("flush_interval", 0, ValueError),
        ("flush_interval", 3601, ValueError),
        ("flush_interval", "fast", TypeError),
        ("flush_level", 1.5, TypeError),
        ("close_timeout", -1, ValueError),
        ("close_timeout", float("inf"), ValueError),
        ("level", "LOUD", ValueError),
        ("level", [], TypeError),
    ],
)
def test_wrong_options_are_refused(path, option, value, error):
    """A wrong option raises with its name and value, before anything is on disk or known to logging."""
    known = handler_list()

    with pytest.raises(error, match=option) as caught:
        SQLiteHandler(path, **{option: value})

    assert repr(value) in str(caught.value)
    assert known == handler_list()
    assert not path.exists()


def test_unknown_options_are_refused(path):
    """A misspelt option is a TypeError, as with any function."""
    with pytest.raises(TypeError, match="capasity"):
        SQLiteHandler(path, capasity=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["", ":memory:", "file:app-log.db", "file:x?mode=memory", "app\0log.db"])
def test_names_that_are_no_path_are_refused(name, tmp_path, monkeypatch):
    """What SQLite takes for something else than a file would not be kept: the error says so."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValueError, match="must be the path of a file"):
        SQLiteHandler(name)

    assert [] == os.listdir(tmp_path)


def test_a_filename_is_a_path():
    """Anything but str and PathLike is a TypeError that names the option."""
    with pytest.raises(TypeError, match="filename=3"):
        SQLiteHandler(3)  # type: ignore[arg-type]


def test_a_missing_folder_is_said(tmp_path):
    """The error names the folder to create."""
    with pytest.raises(FileNotFoundError, match="create it first"):
        SQLiteHandler(tmp_path / "logs" / "app-log.db")


@pytest.mark.parametrize("name", ["~/app-log.db", "~root/app-log.db"])
def test_a_tilde_is_not_expanded(name, tmp_path, monkeypatch):
    """
    A path that begins with a tilde is told how to become one; the error used to advise to create a folder named `~`.
    """
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FileNotFoundError, match=rf"'~' is not expanded: use os.path.expanduser\('{name}'\)"):
        SQLiteHandler(name)

    (tmp_path / "~").mkdir()
    SQLiteHandler("~/app-log.db").close()
    assert (tmp_path / "~" / "app-log.db").exists()


def test_a_directory_is_refused(tmp_path):
    """A directory is no file."""
    with pytest.raises(IsADirectoryError, match="add the name of a file"):
        SQLiteHandler(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no devices among its files")
@pytest.mark.parametrize("kind", ["device", "link to a device", "pipe", "socket"])
def test_what_is_no_regular_file_is_refused(path, kind, monkeypatch):
    """
    A device, a pipe and a socket can hold no log: the error names the path, and nothing is made beside it.

    SQLite refused them, when the lock, and beside a device a journal, had been made already.
    """
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as unbound:
        if kind == "device":
            path = Path(os.devnull)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            unbound.bind(path.name)  # by its short name: the path may be longer than a socket's may be
        else:
            path.symlink_to(os.devnull)
        before = beside(path)
        with pytest.raises(ValueError, match=f"{path}.*is a device, a pipe or a socket"):
            SQLiteHandler(path)

    assert before == beside(path)


def beside(path):
    """Name what is, or is called, after `path`: in /dev, others come and go."""
    return sorted(name for name in os.listdir(path.parent) if path.name in name)


@pytest.mark.parametrize("kind", ["text", "foreign", "newer"])
def test_files_that_are_no_log_are_left_alone(path, kind):
    """A text file, another program's database and a newer log are refused by name, and not a byte of them changes."""
    if kind == "text":
        path.write_text("user=admin\n" * 200)
    elif kind == "newer":
        SQLiteHandler(path).close()
    connection = sqlite3.connect(path) if kind != "text" else None
    if connection is not None:
        connection.execute("PRAGMA user_version = 99" if kind == "newer" else "CREATE TABLE users (name)")
        connection.commit()
        connection.close()
    before, known = path.read_bytes(), handler_list()

    with pytest.raises(NewerSchemaError if kind == "newer" else ForeignFileError) as caught:
        SQLiteHandler(path)

    assert isinstance(caught.value, LogFileError)
    assert str(path) in str(caught.value)
    assert known == handler_list()
    assert before == path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits for others")
def test_the_file_is_its_owners(make_handler, logger, path):
    """Logs hold secrets: file, -wal and -shm are created with mode 0600, whatever the umask."""
    umask = os.umask(0)
    try:
        handler = make_handler()
        logger.addHandler(handler)
        logger.info("x")
        handler.flush()
    finally:
        os.umask(umask)

    assert [0o600] * 3 == [os.stat(f"{path}{end}").st_mode & 0o777 for end in ("", "-wal", "-shm")]


def test_the_path_is_made_absolute(make_handler, logger, tmp_path, monkeypatch):
    """A daemon changes its folder after it has configured logging; its log stays where it was."""
    monkeypatch.chdir(tmp_path)
    handler = make_handler("relative.db")
    logger.addHandler(handler)
    monkeypatch.chdir("/")

    logger.info("x")
    handler.close()

    assert os.path.join(str(tmp_path), "relative.db") == handler.filename
    assert (tmp_path / "relative.db").exists()


def test_a_locked_file_is_no_reason_to_fail(make_handler, logger, path, query):
    """A database that is locked when the program starts is opened later; what is logged until then waits."""
    SQLiteHandler(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        handler = make_handler()
        logger.addHandler(handler)
        logger.info("early")
        assert not handler.flush(timeout=0)
    finally:
        connection.close()

    assert handler.flush()
    assert ["early"] == messages(query)


# Configuration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["dict", "json", "toml", "yaml"])
def test_configured_by(form, path, query, logging_tree):
    """
    The handler is configured by dictConfig from a dict, JSON, TOML and YAML alike: options are numbers and strings.
    """
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "db": {
                "class": "sqlite_log_handler.SQLiteHandler",
                "filename": str(path),
                "level": "INFO",
                "capacity": 5000,
                "flush_level": "CRITICAL",
                "reserve": 0.25,
            }
        },
        "loggers": {"configured": {"handlers": ["db"], "level": "DEBUG", "propagate": False}},
    }
    if form == "json":
        config = json.loads(json.dumps(config))
    elif form == "yaml":
        config = yaml.safe_load(yaml.safe_dump(config))
    elif form == "toml":
        tomllib = pytest.importorskip("tomllib")
        config = tomllib.loads(
            f"""
            version = 1
            disable_existing_loggers = false
            [handlers.db]
            class = "sqlite_log_handler.SQLiteHandler"
            filename = '{path}'
            level = "INFO"
            capacity = 5_000
            flush_level = "CRITICAL"
            reserve = 0.25
            [loggers.configured]
            handlers = ["db"]
            level = "DEBUG"
            propagate = false
            """
        )

    logging.config.dictConfig(config)
    logger = logging.getLogger("configured")
    logger.debug("below the handler's level")
    logger.info("kept")
    (handler,) = logger.handlers
    assert isinstance(handler, SQLiteHandler)
    assert handler.flush(60)

    assert (5_000, "db") == (handler.queue.capacity, handler.name)
    assert ["kept"] == messages(query)


def test_configured_by_reference(path, query, logging_tree, monkeypatch):
    """`()`, `cfg://`, `ext://` and a Path in the dict work, as dictConfig promises for any handler."""
    monkeypatch.setattr(handler_module, "LEVEL_FOR_THIS_TEST", "ERROR", raising=False)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "limits": {"capacity": 77},
            "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
            "handlers": {
                "db": {
                    "()": "sqlite_log_handler.SQLiteHandler",
                    "filename": Path(path),
                    "capacity": "cfg://limits.capacity",
                    "flush_level": "ext://sqlite_log_handler._write.handler.LEVEL_FOR_THIS_TEST",
                    "formatter": "short",
                }
            },
            "loggers": {"configured": {"handlers": ["db"], "level": "INFO", "propagate": False}},
        }
    )
    (handler,) = logging.getLogger("configured").handlers
    logging.getLogger("configured").info("x")
    assert isinstance(handler, SQLiteHandler)
    assert handler.flush(60)

    assert 77 == handler.queue.capacity
    assert ["INFO x"] == messages(query)


def test_configured_by_file(path, query, logging_tree):
    """The handler is configured by fileConfig too."""
    config = f"""
        [loggers]
        keys = root,configured
        [handlers]
        keys = db
        [formatters]
        keys =
        [logger_root]
        handlers =
        [logger_configured]
        qualname = configured
        handlers = db
        level = INFO
        propagate = 0
        [handler_db]
        class = sqlite_log_handler.SQLiteHandler
        args = ({str(path)!r},)
        kwargs = {{"capacity": 1000}}
        level = INFO
        """
    text = "\n".join(line.strip() for line in config.splitlines())
    logging.config.fileConfig(io.StringIO(text), disable_existing_loggers=False)
    logger = logging.getLogger("configured")
    logger.info("x")
    (handler,) = logger.handlers
    assert isinstance(handler, SQLiteHandler)
    assert handler.flush(60)

    assert ["x"] == messages(query)


def test_a_wrong_option_in_a_configuration_is_named(path, logging_tree):
    """A configuration that fails says which handler by dictConfig's error, and which option by ours, its cause."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": str(path), "capacity": 0}},
    }

    with pytest.raises(ValueError, match="'db'") as caught:
        logging.config.dictConfig(config)

    assert "capacity=0" in str(caught.value.__cause__)


def test_an_unknown_option_in_a_configuration_is_named(path, logging_tree):
    """Of an option that does not exist, the cause is what Python says, as the how-to guide has it."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": str(path), "maxrows": 5}},
    }

    with pytest.raises(ValueError, match="'db'") as caught:
        logging.config.dictConfig(config)

    assert isinstance(caught.value.__cause__, TypeError)
    assert "got an unexpected keyword argument 'maxrows'" in str(caught.value.__cause__)


def test_a_second_configuration_closes_the_first(path, query, logging_tree):
    """Configuring again writes and closes the old handler; the new one goes on in the same file."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": str(path), "close_timeout": 60}},
        "loggers": {"configured": {"handlers": ["db"], "level": "INFO", "propagate": False}},
    }
    for number in range(5):
        logging.config.dictConfig(copy.deepcopy(config))
        logging.getLogger("configured").info("configuration %d", number)
    logging.getLogger("configured").handlers[0].flush()

    assert [f"configuration {number}" for number in range(5)] == messages(query)


# What is stored ------------------------------------------------------------------------------------------------------


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
    assert message.startswith("%d items ('x',) <not formatted: TypeError")
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


def test_readable_at_every_moment(make_handler, logger, query):
    """Another connection reads the file while the handler has it open, and sees all that was committed."""
    handler = make_handler()
    logger.addHandler(handler)
    assert [] == messages(query)
    for number in range(3):
        logger.info("%d", number)
        handler.flush()
        assert [str(known) for known in range(number + 1)] == messages(query)


def test_records_of_another_process(make_handler, logger, query):
    """A record that was sent here by another process keeps its process, as far as the record knows it."""
    handler = make_handler()
    record = logging.makeLogRecord({"name": "child", "msg": "x", "process": 99_999_999, "processName": "Worker-7"})
    handler.handle(record)
    handler.flush()

    assert [(99_999_999, "Worker-7")] == query("SELECT process, process_name FROM logs")


# Overflow ------------------------------------------------------------------------------------------------------------


class Unformatted:
    """An argument that must not be looked at."""

    formatted = 0

    def __str__(self):
        Unformatted.formatted += 1
        return "x"


def test_refused_before_it_is_formatted(make_handler, logger, lock, monkeypatch):
    """A record that finds the queue full is counted and forgotten; its message is never built."""
    monkeypatch.setattr(Unformatted, "formatted", 0)
    handler = make_handler(capacity=3, reserve=0, fair_share=1, close_timeout=0)
    logger.addHandler(handler)
    lock()
    for _ in range(10):
        logger.info("%s", Unformatted())

    assert 3 == Unformatted.formatted
    assert {"queue_full": 7} == handler.stats().dropped_by_cause
    lock()


def test_overflow_is_counted_everywhere(make_handler, logger, lock, query, clock, logging_tree, unattended):
    """Under a locked database: one warning per tick with drops, and books, warnings, ledger and volume agree."""
    warned = []

    class Console(logging.Handler):
        def emit(self, record):
            warned.append(record.dropped)

    logging.getLogger(OWN_LOGGER).addHandler(Console())
    logging.getLogger(OWN_LOGGER).propagate = False
    handler = make_handler(capacity=100, reserve=0.1, fair_share=1)
    handler.listener._clock = clock
    logger.addHandler(handler)
    lock()
    for _ in range(4):
        for number in range(50):
            logger.info("%d", number)
        logger.warning("important")
        clock.advance(handler.listener.flush_interval)
        handler.listener.handle(None)
    lock()
    assert handler.flush()

    stats = handler.stats()
    assert [11, 50, 50] == warned
    assert (204, 93, 111, 0) == (stats.seen, stats.written, stats.dropped_total, stats.queued)
    assert (111, {"queue_full": 111}, {"INFO": 111}, {logger.name: 111}) == (
        handler.dropped_total,
        stats.dropped_by_cause,
        stats.dropped_by_level,
        stats.dropped_by_logger,
    )
    assert [(111,)] == query("SELECT sum(count) FROM drops")
    assert [(111, 93)] == query("SELECT sum(dropped), sum(records) FROM volume WHERE logger = ?", logger.name)
    own = "SELECT json_extract(attributes, '$.dropped') FROM logs WHERE logger = 'sqlite_log_handler' ORDER BY id"
    assert [(11,), (50,), (50,)] == query(own)
    assert [(stats.written,)] == query("SELECT count(*) FROM logs WHERE logger = ?", logger.name)


def test_the_gap_stands_where_it_is(make_handler, logger, lock, query, unattended):
    """
    Whoever reads the log in order finds the warning between the last row before the drops and the first after them.
    """
    logging.getLogger(OWN_LOGGER).propagate = False
    handler = make_handler(capacity=3, reserve=0, fair_share=1)
    logger.addHandler(handler)
    lock()
    for number in range(5):
        logger.info("%d", number)
    handler.listener.handle(None)
    lock()
    handler.flush()
    logger.info("after")
    handler.flush()
    logging.getLogger(OWN_LOGGER).propagate = True

    rows = query("SELECT id, logger, message FROM logs ORDER BY id")
    assert ["0", "1", "2", "dropped 2 records", "after"] == [message[:17] for _, _, message in rows]
    assert [(rows[2][0],)] == query("SELECT after_id FROM drops")


def test_the_reserve_is_for_warnings(make_handler, logger, lock, query):
    """When INFO has filled its share, WARNING and above still get in."""
    handler = make_handler(capacity=10, reserve=0.2, fair_share=1)
    logger.addHandler(handler)
    lock()
    for _ in range(20):
        logger.info("chatter")
    logger.error("this matters")
    lock()
    handler.flush()

    assert "this matters" in messages(query)
    assert 12 == handler.dropped_total


def test_own_warnings_do_not_feed_themselves(make_handler, lock, query, logging_tree, unattended):
    """The warning of a handler on the root logger reaches that handler too, which ignores it: no drop for a drop."""
    handler = make_handler(capacity=1, reserve=0)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    lock()
    for _ in range(3):
        logging.getLogger().info("x")
    for _ in range(5):
        handler.listener.handle(None)
    assert 2 == handler.dropped_total
    lock()
    handler.flush()

    assert [(1,)] == query("SELECT count(*) FROM logs WHERE logger = 'sqlite_log_handler'")


def test_warnings_of_another_handler_are_records(
    make_handler, tmp_path, path, logger, lock, query, logging_tree, unattended
):
    """Two handlers on one logger: the drops of one are an ordinary record for the other."""
    other = make_handler(tmp_path / "other.db")
    handler = make_handler(capacity=1, reserve=0)
    logger.addHandler(handler)
    logging.getLogger(OWN_LOGGER).addHandler(other)
    lock()
    for _ in range(3):
        logger.info("x")
    handler.listener.handle(None)
    lock()

    assert 1 == other.stats().seen


def test_a_bounded_number_of_bytes(make_handler, logger, lock):
    """Records of 260 kB stay within `capacity_bytes`, in the books and in the memory of the process."""
    handler = make_handler(capacity_bytes=4 * 1024 * 1024, max_record_bytes=256 * 1024, fair_share=1, close_timeout=0)
    logger.addHandler(handler)
    logger.info("started")
    handler.flush()
    lock()
    tracemalloc.start()
    try:
        for number in range(200):
            logger.info("%d %s", number, "x" * 260_000)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    stats = handler.stats()
    lock()

    assert stats.queued_bytes <= 4 * 1024 * 1024
    assert used <= 4.2 * 1024 * 1024
    assert stats.dropped_total == 201 - stats.written - stats.queued > 0
    assert {"bytes_full"} == set(stats.dropped_by_cause)


def test_emit_takes_no_lock_of_the_handler(make_handler, logger):
    """`logging.shutdown` holds a handler's lock while it flushes and closes it; nobody who logs waits for that."""
    handler = make_handler()
    logger.addHandler(handler)
    handler.acquire()
    try:
        thread = threading.Thread(target=logger.info, args=("x",))
        thread.start()
        thread.join()
    finally:
        handler.release()

    assert 1 == handler.stats().seen


def test_emit_does_not_wait_for_a_commit(make_handler, logger, monkeypatch):
    """While a commit stands still, logging goes on."""
    handler = make_handler()
    logger.addHandler(handler)
    inside, leave = threading.Event(), threading.Event()
    write = handler.listener.writer.write

    def stuck(batch, outcome):
        inside.set()
        leave.wait()
        return write(batch, outcome)

    monkeypatch.setattr(handler.listener.writer, "write", stuck)
    logger.error("first")
    inside.wait()
    for _ in range(1_000):
        logger.info("x")

    assert (1_001, 0) == (handler.stats().queued, handler.stats().written)
    leave.set()


# Closing and coming back ---------------------------------------------------------------------------------------------


def test_a_closed_handler_comes_back(make_handler, logger, query):
    """A handler that was closed and is used again works again: dictConfig closes handlers that stay attached."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("before")
    handler.close()
    handler.close()
    logger.info("after")
    handler.flush()

    assert ["before", "after"] == messages(query)


def test_no_thread_until_something_is_logged(make_handler, logger):
    """A handler that is only configured, as in the master of a prefork server, has no thread."""
    threads = threading.active_count()
    handler = make_handler()
    logger.addHandler(handler)
    assert threads == threading.active_count()

    logger.info("x")
    assert threads + 1 == threading.active_count()

    handler.close()
    assert threads == threading.active_count()


def test_a_filter_that_raises_costs_no_look_at_the_queue(make_handler, logger, monkeypatch):
    """
    A record whose filter raises is queued without a look at what is queued already.

    A filter that reads an attribute which some records lack made each of them scan the whole queue under its mutex: 9
    to 14 ms a call for all threads, with 90,000 queued.
    """
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    monkeypatch.setattr(handler.queue, "holds", lambda row: 1 / 0)

    def fails(record):
        raise AttributeError

    handler.addFilter(fails)
    for _ in range(3):
        logger.info("x")

    assert (3, 3) == (handler.stats().queued, handler.stats().malformed)


def test_the_age_of_the_oldest_queued_record(make_handler, logger, unattended):
    """`oldest_queued_age` grows while a record waits, and is None when none does."""
    handler = make_handler()
    logger.addHandler(handler)
    assert None is handler.stats().oldest_queued_age
    record = logger.makeRecord("a", 20, "file.py", 1, "x", (), None)
    record.created = time.time() - 60
    logger.handle(record)
    logger.info("younger")
    age = handler.stats().oldest_queued_age
    assert age is not None
    assert age >= 60
    handler.flush()

    assert None is handler.stats().oldest_queued_age


def test_a_new_process_is_noticed(make_handler, logger, query, monkeypatch, unattended):
    """
    The first record that carries another process id begins anew, whether it is queued or would be refused.

    A process that C code forks, as uWSGI does, runs none of Python's hooks. Its log was dead while it ran, and at its
    end it wrote what its parent had written already.
    """
    monkeypatch.setattr(process, "_run_hooks", lambda: False)
    handler = make_handler(capacity=100, reserve=0)
    logger.addHandler(handler)
    for full in (1, 101):
        for _ in range(full):
            logger.info("parent")
        child = os.getpid() + 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda child=child: child)
            logger.info("child")
            stats = handler.stats()
            assert (1, 1, 0) == (stats.seen, stats.queued, stats.dropped_total)
            assert handler.flush()
        handler.stats()  # back in the parent

    assert ["child", "child"] == messages(query)


def test_without_a_thread_records_wait(make_handler, logger, query, monkeypatch):
    """When no thread can be started the record is queued, nobody sees an exception, and `flush` still writes it."""

    def no_thread(self, thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(RecordListener, "_start_thread", no_thread)
    handler = make_handler(capacity=2, reserve=0)
    logger.addHandler(handler)
    for number in range(3):
        logger.info("%d", number)
    assert (2, 1) == (handler.stats().queued, handler.stats().dropped_total)

    handler.flush()

    assert ["0", "1"] == messages(query)[:2]


def test_at_exit_records_are_committed_by_their_caller(make_handler, logger, query, monkeypatch):
    """Once the interpreter exits there is no thread to commit later, so what is logged then is written at once."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("before")
    monkeypatch.setattr(process.at_exit, "begun", True)
    handler.close()
    logger.info("during")

    assert ["before", "during"] == messages(query)


class OverdueError(TimeoutError):
    """What a signal handler raises, to put an end to what takes too long."""


def test_a_signal_after_the_row_was_queued(make_handler, logger, query, monkeypatch, unattended):
    """
    A time limit is an Exception that may come out of any line of `emit`, and the row may be queued by then.

    Then the record was queued once more, and stood in the log twice.
    """
    handler = make_handler()
    logger.addHandler(handler)
    put_nowait = handler.queue.put_nowait

    def interrupted(row):
        put_nowait(row)
        raise OverdueError

    logger.info("starts the listener")
    monkeypatch.setattr(handler.queue, "put_nowait", interrupted)
    logger.info("once")
    handler.flush()

    assert ["starts the listener", "once"] == messages(query)


def test_a_signal_while_the_listener_starts(make_handler, logger, query, monkeypatch):
    """A time limit that ends the start of the thread does not cost the record: a second try is made."""
    handler = make_handler()
    logger.addHandler(handler)
    start = handler.listener.start

    def interrupted():
        monkeypatch.setattr(handler.listener, "start", start)
        raise OverdueError

    monkeypatch.setattr(handler.listener, "start", interrupted)
    logger.info("kept")
    handler.flush()

    assert ["kept"] == messages(query)


@pytest.mark.parametrize("error", [OverdueError, RecursionError, MemoryError, KeyboardInterrupt])
def test_what_cannot_be_queued_at_all_is_counted(make_handler, logger, capsys, monkeypatch, error):
    """When nothing helps, because no frame is left on the stack, say, the call is counted as a drop all the same."""

    def fails(row):
        raise error

    handler = make_handler()
    logger.addHandler(handler)
    logger.info("starts the listener")
    with monkeypatch.context() as patched:
        patched.setattr(handler.queue, "put_nowait", fails)
        with contextlib.nullcontext() if issubclass(error, Exception) else pytest.raises(error):
            logger.info("lost")

    stats = handler.stats()
    assert (2, 1) == (stats.seen, stats.dropped_total)
    assert issubclass(error, Exception) == (error.__name__ in capsys.readouterr().err)


def test_a_handler_that_nobody_has_goes(path, logger, query):
    """A handler that was removed and forgotten without close writes what it has, and its thread ends."""
    threads = set(threading.enumerate())
    handler = SQLiteHandler(path)
    logger.addHandler(handler)
    logger.info("x")
    (thread,) = set(threading.enumerate()) - threads
    logger.removeHandler(handler)

    del handler
    gc.collect()
    thread.join()

    assert ["x"] == messages(query)


def test_close_raises_nothing(make_handler, logger, monkeypatch):
    """
    `logging.shutdown` swallows OSError and ValueError only: anything else would cost the later handlers their flush.
    """
    handler = make_handler()

    def fails():
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.writer, "close", fails)
        handler.close()

    assert "disk I/O error" in handler.stats().last_error


def test_close_raises_nothing_of_other_handlers(make_handler, logger, logging_tree, monkeypatch):
    """The last drop warning goes to other handlers, and what one of them raises does not come out of `close` either."""

    class Raises(logging.Handler):
        def handle(self, record):
            raise ZeroDivisionError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    own = logging.getLogger(OWN_LOGGER)
    own.addHandler(Raises())
    own.propagate = False
    handler = make_handler(capacity=1, reserve=0, flush_interval=3600)
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("x")
    handler.close()

    assert (1, 2, None) == (handler.stats().written, handler.dropped_total, handler.listener.writer.file.connection)


def test_shutdown_under_load(make_handler, logger, query):
    """Whatever was logged before `logging.shutdown` was called is in the file when it returns."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(5_000):
        logger.info("%d", number)

    logging.shutdown([lambda: handler])

    assert 5_000 == len(messages(query))


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


def test_stats_are_one_snapshot(make_handler, logger):
    """Whoever asks while others log gets numbers that belong together."""
    handler = make_handler(capacity=50, reserve=0)
    logger.addHandler(handler)
    stop = threading.Event()

    def chat():
        while not stop.is_set():
            logger.info("x")

    threads = [threading.Thread(target=chat) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            stats = handler.stats()
            assert stats.seen == stats.written + stats.dropped_total + stats.queued
            assert stats.dropped_total == sum(stats.dropped_by_cause.values()) == sum(stats.dropped_by_level.values())
            assert stats.queued <= 50
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_books_count_every_call(make_handler, logger, query):
    """Calls counted by those who made them are what the books say they saw, and what the file and the ledger hold."""
    handler = make_handler(capacity=200, reserve=0)
    logger.addHandler(handler)
    start = threading.Barrier(4)

    def chat():
        start.wait()
        for number in range(3_000):
            logger.info("%d", number)

    threads = [threading.Thread(target=chat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()

    stats = handler.stats()
    assert (12_000, 0) == (stats.seen, stats.queued)
    assert [(stats.written,)] == query("SELECT count(*) FROM logs WHERE logger = ?", logger.name)
    assert [(stats.dropped_total or None,)] == query("SELECT sum(count) FROM drops")


def test_a_handler_shows_itself(make_handler, path):
    """The repr names file and level, as FileHandler's does."""
    assert f"<SQLiteHandler {path} (INFO)>" == repr(make_handler(level="INFO"))


def test_the_clock_of_ticks_does_not_jump(make_handler, logger, query):
    """Ticks run on monotonic time: a wall clock that is set back does not keep rows in memory."""
    handler = make_handler()
    assert time.monotonic is handler.listener._clock


# Retention -----------------------------------------------------------------------------------------------------------


def test_without_limits_nothing_is_pruned(make_handler):
    """Retention is off by default: the listener never asks for it, and transactions have their usual size."""
    handler = make_handler()

    assert not handler.listener.retains
    assert 65_536 == handler.max_record_bytes


@pytest.fixture
def prune_at_close(monkeypatch):
    """
    Give `close` the time that it needs for retention: on a machine that stands still, the usual 0.2 s are over at once.
    """
    monkeypatch.setattr(listener_module, "_CLOSE_PRUNE", 60)


def test_limits_reach_the_file(make_handler, logger, query, prune_at_close):
    """With `max_rows` the oldest records go, by a listener that runs as ever, and `close` does what is left."""
    handler = make_handler(max_rows=50, flush_interval=0.01)
    logger.addHandler(handler)
    for number in range(500):
        logger.info("n %d", number)
    handler.close()

    stored = messages(query)
    assert 40 <= len(stored) <= 50
    assert "n 499" == stored[-1]
    assert [(500,)] == query("SELECT (SELECT count(*) FROM records) + (SELECT sum(count) FROM prunes)")
    assert (500, 500) == (handler.stats().seen, handler.stats().written)


def test_a_program_that_runs_for_a_moment_prunes_too(make_handler, logger, query, prune_at_close):
    """A program that ends before the first tick prunes in `close`, so that one that is run by cron keeps its limits."""
    for run in range(3):
        handler = make_handler(max_rows=10, flush_interval=60)
        logger.addHandler(handler)
        for number in range(20):
            logger.info("run %d, %d", run, number)
        handler.close()
        logger.removeHandler(handler)

    assert [f"run 2, {number}" for number in range(10, 20)] == messages(query)


def test_a_record_fits_into_a_small_budget(make_handler):
    """With a small `max_bytes` a record is cut to a sixteenth of it, because a commit takes no more."""
    assert 65_536 == make_handler(max_bytes="1MiB").max_record_bytes
    assert 131_072 == make_handler(max_bytes="2MiB", max_record_bytes=1 << 20).max_record_bytes


def test_an_idle_program_with_max_age_wakes_up_for_the_next_row(make_handler, logger, clock, unattended):
    """
    With `max_age` the listener sleeps until the oldest row comes of age; for the newest row it does not wake up at all.
    """
    handler = make_handler(max_age=3_600, flush_interval=60)
    listener, pruner = handler.listener, handler.listener.writer.pruner
    listener._clock = pruner._clock = pruner._now = clock
    logger.addHandler(handler)
    clock.now = time.time()
    logger.info("one")
    logger.info("two")
    handler.flush()
    listener.handle(None)
    assert 3_500 < listener.wait(clock.now) < 3_601
    clock.advance(3_700)
    assert 0 == listener.wait(clock.now)
    listener.handle(None)
    clock.advance(61)
    listener.handle(None)

    assert None is listener.wait(clock.now)
