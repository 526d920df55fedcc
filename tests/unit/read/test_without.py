"""
Filters on call sites, filters turned around, counting, and ending a statement from another thread.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler import FilterError, LogReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def shop(path: Path, make_handler: Callable[..., Any]) -> Path:
    """A log of four rows: two threads, two files, one exception."""
    handler = make_handler()
    for thread, pathname, exception in (
        ("one", "/srv/app/orders.py", None),
        ("two", "/srv/app/orders.py", ValueError()),
        (None, "C:\\app\\orders.py", None),
        ("one", "/srv/app/my_orders.py", None),
    ):
        exc_info = (type(exception), exception, None) if exception else None
        record = logging.LogRecord("shop", logging.INFO, pathname, 42, "text", (), exc_info)
        record.threadName = thread
        record.size = len(thread or "")
        handler.handle(record)
    assert handler.flush()
    handler.close()
    return path


def ids(path: Path, **filters: Any) -> list[int]:
    """Return the ids of the rows that match, and see that `count` counts them."""
    with LogReader(path) as log:
        found = [row.id for row in log.rows(**filters)]
        assert len(found) == log.count(**filters)
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("orders.py:42", [1, 2, 3]),
        ("app/orders.py:42", [1, 2, 3]),
        ("app\\orders.py:42", [1, 2, 3]),
        ("C:\\app\\orders.py:42", [3]),
        ("/srv/app/orders.py:42", [1, 2]),
        ("my_orders.py:42", [4]),
        ("orders.py:43", []),
        ("rders.py:42", []),
    ],
)
def test_a_call_site(shop, source, expected):
    """A call site is named by the end of its file's path, at a slash or a backslash, and its line."""
    assert expected == ids(shop, source=source)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ({"thread": "one"}, [2, 3]),
        ({"thread": ["one", "two"]}, [3]),
        ({"exception": "ValueError"}, [1, 3, 4]),
        ({"exception": "ValueError", "thread": "one"}, [3]),
        ({"source": "orders.py:42"}, [4]),
        ({"level": "INFO..INFO"}, []),
        ({"attributes": {"size": 0}}, [1, 2, 4]),
        ({"text": "nothing"}, [1, 2, 3, 4]),
        ({"thread": []}, [1, 2, 3, 4]),
        ({"attributes": {}}, [1, 2, 3, 4]),
        *(({name: None}, [1, 2, 3, 4]) for name in ("text", "source", "run", "where")),
    ],
)
def test_without(shop, without, expected):
    """What must not hold is left out; a row that has nothing in that place stays."""
    assert expected == ids(shop, without=without)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"source": "orders.py"}, "a call site such as 'orders.py:42'"),
        ({"without": {"logger": "shop"}}, "for loggers there is `exclude`"),
        ({"without": {"since": "-1h"}}, "choose from"),
        ({"without": {"exception": 7}}, "the name of a class"),
        ({"without": "thread"}, "a dict of filters"),
    ],
)
def test_what_cannot_be_understood(shop, filters, message):
    """A filter that cannot be understood, or cannot be turned around, is refused with what can."""
    with LogReader(shop) as log, pytest.raises(FilterError, match=message):
        log.count(**filters)


@pytest.mark.parametrize(("text", "expected"), [("nowhere", 1), ("text", 2)])
def test_the_newest_rows_are_searched_once(shop, text, expected):
    """Where fewer rows match than are asked for, the log is not searched again: a text that is nowhere took twice."""
    statements = []
    with LogReader(shop) as log:
        log._scan.require_open().set_trace_callback(statements.append)
        found = list(log.rows(newest=10, text=text))

    assert (4 if text == "text" else 0) == len(found)
    assert expected == len([statement for statement in statements if text in statement and " records" in statement])


def test_a_statement_is_ended_from_another_thread(shop):
    """`interrupt` ends the statement that runs in another thread, which raises there; the reader can be used again."""
    running, errors = threading.Event(), []
    with LogReader(shop) as log:
        log._scan.require_open().create_function("told", 0, lambda: running.set() or 1)

        def count() -> None:
            try:
                log._scan.one(
                    "WITH RECURSIVE n(i) AS (SELECT told() UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
                )
            except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt is what it raises
                errors.append(error)

        thread = threading.Thread(target=count)
        thread.start()
        running.wait()
        while thread.is_alive():
            log.interrupt()
            thread.join(0.001)

        assert [KeyboardInterrupt] == [type(error) for error in errors]
        assert 4 == log.count()
    log.interrupt()


def test_attributes_that_are_not_json(shop):
    """A row whose attributes somebody has cut has no value in them, and passes; once, it was an error of SQLite."""
    with contextlib.closing(sqlite3.connect(shop, isolation_level=None)) as connection:
        connection.execute('UPDATE records SET attributes = iif(id = 1, \'{"k": "x\', \'{"k": "x"}\')')

    assert [1] == ids(shop, without={"attributes": [{"k": "x"}]})
