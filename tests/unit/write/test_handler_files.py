"""
The file that a handler opens, and handlers that logging's configuration makes.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import logging.config
import logging.handlers
import os
import sqlite3
import sys
from pathlib import Path

import pytest
import yaml
from records import messages

from sqlite_log_handler import ForeignFileError, LogFileError, NewerSchemaError, SQLiteHandler
from sqlite_log_handler._write import handler as handler_module


def handler_list():
    """Return the handlers that logging will flush and close at exit; they stay while this list does."""
    references = list(logging._handlerList)  # type: ignore[attr-defined]
    return [handler for reference in references if (handler := reference()) is not None]


@pytest.mark.parametrize("kind", ["text", "one byte", "foreign", "newer"])
def test_files_that_are_no_log_are_left_alone(path, kind):
    """
    A text file, another program's database and a newer log are refused by name, and not a byte of them changes.

    So is a file of one byte, which SQLite takes for an empty one.
    """
    text = {"text": "user=admin\n" * 200, "one byte": "1"}.get(kind)
    if text is not None:
        path.write_text(text)
    elif kind == "newer":
        SQLiteHandler(path).close()
    connection = sqlite3.connect(path) if text is None else None
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
    """Logs hold secrets: file, -wal and -shm are created with mode 0600, with any umask."""
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


def test_readable_at_every_moment(make_handler, logger, query):
    """Another connection reads the file while the handler has it open, and sees all that was committed."""
    handler = make_handler()
    logger.addHandler(handler)
    assert [] == messages(query)
    for number in range(3):
        logger.info("%d", number)
        handler.flush()
        assert [str(known) for known in range(number + 1)] == messages(query)
