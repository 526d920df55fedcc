"""
The template of a record: what was given before its arguments were put in, kept once with the call site.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import Any

import pytest
import structlog
from records import make_record, make_structlog_record, row_of

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.row import MESSAGE, SOURCE, make_row

pytestmark = pytest.mark.usefixtures("nothing_interned")

TEMPLATE = 4


class Unhashable(str):  # noqa: SLOT000 - an odd one
    """
    A text that cannot be a key.
    """

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("msg", "args", "expected"),
    [
        ("order %d paid", (7,), "order %d paid"),
        ("order 7 paid", (), ""),
        ("%(who)s", ({"who": "x"},), "%(who)s"),
        ("a\0%s", (1,), r"a\x00%s"),
        ("\ud800%s", (1,), r"\ud800%s"),
        ("%d", ("x",), "%d"),
        ({"event": "paid", "order": 7}, (), ""),
        ({"order": 7}, (), ""),
        (ValueError("%s"), (1,), ""),
        (Unhashable("got %s"), (1,), ""),
        (["%s"], (1,), ""),
        (None, (), ""),
        ("", (), ""),
    ],
)
def test_template(msg: Any, args: tuple[Any, ...], expected: str) -> None:
    """The template is the text before its arguments; other messages have none."""
    row = row_of(make_record(msg, *args))

    assert expected == row[SOURCE][TEMPLATE]


@pytest.mark.parametrize(("event", "expected"), [("paid", "paid"), (["paid"], "")])
def test_the_template_of_structlog(event: Any, expected: str) -> None:
    """The template of a structlog record is its event, if that is a text."""
    row = row_of(make_structlog_record({"event": event, "order": 7}))

    assert expected == row[SOURCE][TEMPLATE]


def test_a_template_with_a_formatter() -> None:
    """A formatter changes what the message is, and not what it was made of."""
    row = row_of(make_record("order %d paid", 7), formatter=logging.Formatter("[%(message)s]"))

    assert ("[order 7 paid]", "order %d paid") == (row[MESSAGE], row[SOURCE][TEMPLATE])


def test_the_rows_of_one_template_share_their_source() -> None:
    """However different the arguments, the source is one tuple; another template of the same line has another."""
    rows = [make_row(make_record(msg, number)) for msg in ("first %d", "second %d") for number in range(3)]

    assert [3, 3] == [sum(row[SOURCE] is one for row in rows) for one in (rows[0][SOURCE], rows[-1][SOURCE])]


@pytest.mark.parametrize("length", [1_000, 1_001, 50_000])
def test_a_long_template_is_cut(length: int) -> None:
    """A template takes 1,000 characters at most, and a longer one is not remembered whole."""
    msg = "x" * length + "%s"
    row = row_of(make_record(msg, 1))

    assert msg[:1_000] == row[SOURCE][TEMPLATE]
    letters = row_module._letters
    make_row(make_record(msg, 1))
    assert letters == row_module._letters


def test_made_up_templates_of_a_call_site() -> None:
    """
    A call site that makes up templates goes by itself after a hundred, and keeps those that it had.

    Each template is a line in the file, so the file grew by one for each record.
    """
    rows = [make_row(make_record(f"user {number} got %s", 1)) for number in range(300) for _ in range(2)]

    templates = {row[SOURCE][TEMPLATE] for row in rows}
    assert 101 == len(templates)
    assert "" in templates
    assert "user 7 got %s" == make_row(make_record("user 7 got %s", 1))[SOURCE][TEMPLATE]
    assert 203 >= len(row_module._shared)  # 101 sources, each also with the thread, and the thread


def test_the_templates_of_a_process_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call sites that are made up cannot bring more templates than a process may have."""
    monkeypatch.setattr(row_module, "_MOST_INTERNED", 50)
    rows = [make_row(make_record(f"{n} %s", 1, name=f"app.{n}", lineno=n)) for n in range(500) for _ in range(2)]

    assert 51 == len({row[SOURCE][TEMPLATE] for row in rows})
    assert 50 == len(row_module._templates)


def test_a_template_stands_in_the_file_once(tmp_path) -> None:
    """The file has each template once, with its call site, and structlog's event among them."""
    path = tmp_path / "app-log.db"
    logger = logging.Logger("shop")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler := SQLiteHandler(path))
    events = structlog.wrap_logger(
        logger, processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter], wrapper_class=structlog.BoundLogger
    )
    for number in range(10):
        logger.info("order %d paid", number)
        events.info("sent", order=number)
    handler.close()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT template, count(*) FROM records JOIN sources ON sources.id = source_id GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert [("order %d paid", 10), ("sent", 10)] == found
