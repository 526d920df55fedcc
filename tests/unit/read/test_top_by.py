"""
Who logs most, by template and by the values of an attribute.
"""

from __future__ import annotations

import pytest
from logged import record

from sqlite_log_handler import FilterError, LogReader


def test_by_template(log, path):
    """Records are added up by logger and template; those without one, by call site."""
    made = [record("order %d paid", seconds=number, lineno=number, args=(number,)) for number in range(3)]
    log(*made, record("plain"))
    with LogReader(path) as reader:
        found = [(talker.name, talker.records) for talker in reader.top("template")]

    assert [("shop: order %d paid", 3), ("shop /srv/shop/app.py:7 work", 1)] == found


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("status", [("200", 2), ("500", 1), ("x y", 1)]),
        ("user.plan", [("pro", 2)]),
        ("user", [('{"plan":"pro"}', 1)]),
        ("a.b", [("1", 1)]),
        ("nothing", []),
        ("é", [("ü", 1)]),
        ('q"k', [("1", 1)]),
        ("b\\k", [("true", 1)]),
        ('"', []),
        ("a'b", [("q", 1)]),
        ("", []),
    ],
)
def test_by_attribute(log, path, key, expected):
    """Records are added up by the values of an attribute, nested or not; those that have none are not counted."""
    log(
        record("a", status=200),
        record("b", status=200, user={"plan": "pro"}),
        record("c", status=500, **{"user.plan": "pro"}),
        record("d", status="x y", **{"a.b": 1, "é": "ü", "a'b": "q", 'q"k': True, "b\\k": "true"}),
        record("e"),
    )
    with LogReader(path) as reader:
        assert expected == [(talker.name, talker.records) for talker in reader.top("attribute", key=key)]


@pytest.mark.parametrize(("by", "key"), [("attribute", None), ("logger", "status"), ("attribute", 7), ("logger", 7)])
def test_a_key_belongs_to_an_attribute(log, path, by, key):
    """To group by an attribute takes its key, and nothing else does."""
    log(record("a"))
    with LogReader(path) as reader, pytest.raises(FilterError, match="name of an attribute"):
        reader.top(by, key=key)


def test_a_key_that_no_row_can_have(log, path):
    """A key that is not UTF-8 is refused as a filter is; SQLite raised a UnicodeEncodeError of its own."""
    log(record("a"))
    with LogReader(path) as reader, pytest.raises(FilterError, match="half of a surrogate pair"):
        reader.top("attribute", key="\ud800")
