"""
A row as a tuple, as JSON and as a record.
"""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged import record

import sqlite_log_handler
from sqlite_log_handler import LogReader, Row
from sqlite_log_handler._logfile.schema import LOG_COLUMNS


def test_rows_have_the_names_of_the_view(log, reading, query):
    """A row has the columns of the view `logs`, by name, in its order, with its values."""
    log(record("one", seconds=1, size=3), record("two", logging.ERROR, exc_text="Traceback: no", stack_info="Stack"))

    assert tuple(LOG_COLUMNS) == Row._fields
    assert query("SELECT * FROM logs ORDER BY id") == [tuple(row) for row in reading()]


def test_rows_cannot_be_changed(log, reading):
    """A row is frozen."""
    log(record())
    (row,) = reading()

    with pytest.raises(AttributeError):
        row.message = "other"


SCALARS = st.none() | st.text() | st.integers() | st.floats()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(), st.dictionaries(st.text(min_size=1), st.none() | st.text() | st.integers() | st.floats()))
    )
)
def test_json_lines_are_what_the_row_is(tmp_path_factory, contents):
    """What SQLite makes of a row is the JSON that Python makes of it, whatever was logged."""
    path = tmp_path_factory.mktemp("json") / "app-log.db"
    handler = sqlite_log_handler.SQLiteHandler(path, close_timeout=60)
    handler.handle(record("first"))
    for message, extra in contents:
        one = record(message)
        vars(one).update({f"x{key}": value for key, value in extra.items()})
        handler.handle(one)
    handler.close()

    with LogReader(path) as reader:
        rows, lines = list(reader), list(reader.json_lines())
    assert [json.loads(row.to_json()) for row in rows] == [json.loads(line) for line in lines]
    assert [row.extra for row in rows] == [json.loads(line)["attributes"] or {} for line in lines]
    assert all("\n" not in line for line in lines)


def test_numbers_in_attributes_stay_as_they_are(log, reading):
    """Integers beyond 2**53 and long fractions are the same digits in JSON as in the program."""
    log(record(big=2**60 + 1, small=0.1, exact=12345678901234567.0))

    (line,) = reading().json_lines()
    assert {"big": 2**60 + 1, "small": 0.1, "exact": 12345678901234567.0} == json.loads(line)["attributes"]
    assert "1152921504606846977" in line


@pytest.mark.parametrize("attributes", ["no JSON", "{", "NaN", '{"a": NaN}', '{"b": 1}\0x', "[" * 5_000])
def test_attributes_that_are_no_json(log, reading, change, attributes):
    """In a file from elsewhere, attributes that are no JSON are a text in JSON, and no attributes of the row."""
    log(record())
    change("UPDATE records SET attributes = ?", attributes)

    (row,) = reading()
    (line,) = reading().json_lines()
    assert attributes == json.loads(line)["attributes"] == json.loads(row.to_json())["attributes"]
    assert {} == row.extra or "NaN" in attributes
    assert [] == list(reading().rows(attributes={"a": 1}))


def test_json_of_several_lines(log, reading, change):
    """In a file from elsewhere, attributes may be JSON of several lines: `to_json` makes one line of it."""
    log(record())
    change("UPDATE records SET attributes = ?", '{\r\n"a":\n"b c"}')

    (row,) = reading()
    (line,) = row.to_json().splitlines()
    assert {"a": "b c"} == json.loads(line)["attributes"]


def test_a_row_becomes_a_record_again(log, reading):
    """A record that is made of a row has what the first one had, so a formatter prints the same."""
    try:
        dict[str, int]()["price"]
    except KeyError:
        first = record(
            "no %s", logging.ERROR, "shop.orders", exc_info=sys.exc_info(), order=7, stack_info="Stack: here"
        )
    first.msg, first.args = "no %s at 100%%", ("price",)
    pattern = (
        "%(asctime)s %(created).6f %(msecs)03.0f %(name)s %(levelno)d %(levelname)s %(pathname)s %(filename)s "
        "%(module)s %(lineno)d %(funcName)s %(process)d %(processName)s %(thread)d %(threadName)s %(message)s %(order)d"
    )
    expected = logging.Formatter(pattern).format(first)
    log(first)

    (row,) = reading()
    assert expected == logging.Formatter(pattern).format(row.to_record())
    now = logging.makeLogRecord({})
    relative = now.relativeCreated - (now.created - first.created) * 1000
    assert pytest.approx(relative, abs=60_000) == row.to_record().relativeCreated


def test_a_log_is_replayed_through_another_handler(log, reading, make_handler, tmp_path):
    """Rows can be sent through any handler, this one included: what arrives is what was there."""
    log(record("one", size=3), record("two", logging.ERROR, exc_text="Traceback: no", seconds=1.25))
    stream = io.StringIO()
    text, copy = logging.StreamHandler(stream), make_handler(tmp_path / "copy.db")

    for row in reading():
        text.handle(row.to_record())
        copy.handle(row.to_record())
    copy.close()

    assert "one\ntwo\nTraceback: no\n" == stream.getvalue()
    assert [row._replace(id=0) for row in reading()] == [row._replace(id=0) for row in reading(tmp_path / "copy.db")]


def test_attributes_do_not_hide_what_a_record_has(log, reading, change):
    """In a file from elsewhere, an attribute named `exc_info` or `getMessage` does not spoil the record."""
    log(record("hello"))
    change("""UPDATE records SET attributes = '{"name": 1, "args": [1], "exc_info": 1, "getMessage": 1, "size": 1}'""")

    (row,) = reading()
    made = row.to_record()
    assert ("shop", "hello", None, 1) == (made.name, made.getMessage(), made.exc_info, made.size)
