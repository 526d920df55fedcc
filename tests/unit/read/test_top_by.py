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
        ('q"k', [("true", 1)]),
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


@pytest.mark.parametrize("key", ["cached", "user.cached", "user.plan.cached", "back\\slash"])
def test_a_line_is_a_filter(log, path, key):
    """
    Of each value, the filter of its line finds as many rows, of numbers, booleans and texts.

    True and False were the lines 1 and 0, together with these numbers, and the filter found the numbers alone.
    """
    values = [True, True, False, 1, 1, 1, 0, 2.5, "1 text", "true"]
    log(*(record("a", **({"user": {"cached": value}} if key == "user.cached" else {key: value})) for value in values))
    with LogReader(path) as reader:
        found = {talker.name: talker.records for talker in reader.top("attribute", key=key)}
        counts = {name: reader.count(where=f"{key}={name}") for name in found}

    assert {"true": 3, "false": 1, "1": 3, "0": 1, "2.5": 1, "1 text": 1} == found == counts


@pytest.mark.parametrize("key", ["trace", "http.request.trace"])
def test_every_digit_of_a_number_counts(log, path, key):
    """
    Integers beyond 64 bits are lines of their own, also below a key with a dot in its name.

    They were counted as the float that SQLite makes of them, 1.84467440737096e+19, which no filter found.
    """
    values = [2**64, 2**64 + 1, 2**64 + 1, 10**400]
    log(*(record("a", **({key: one} if key == "trace" else {"http.request": {"trace": one}})) for one in values))
    with LogReader(path) as reader:
        found = {talker.name: talker.records for talker in reader.top("attribute", key=key)}
        counts = {name: reader.count(where=f"{key}={name}") for name in found}

    assert {str(2**64): 1, str(2**64 + 1): 2, str(10**400): 1} == found == counts


def test_every_digit_of_a_float_counts(log, path):
    """
    Floats are lines of their own, named as they are written; 1 and 1.0 are two, and the filter of each finds both.

    They were named by 15 digits: 0.1 + 0.2 was counted as 0.3, and the filter by 0.333333333333333 found no row.
    """
    values = [0.1 + 0.2, 0.3, 1 / 3, 1e22, 1, 1.0]
    log(*(record("a", amount=value) for value in values))
    with LogReader(path) as reader:
        found = {talker.name: talker.records for talker in reader.top("attribute", key="amount")}
        counts = {name: reader.count(where=f"amount={name}") for name in found}

    assert {str(value): 1 for value in values} == found
    assert found | {"1": 2, "1.0": 2} == counts


def test_a_value_that_is_not_utf_8(log, path, change):
    """Half of a surrogate pair, which a stranger's JSON may have, is a question mark."""
    log(record("a"))
    change(r"""UPDATE records SET attributes = '{"a.b.c": "a\ud800"}'""")
    with LogReader(path) as reader:
        assert [("a?", 1)] == [(talker.name, talker.records) for talker in reader.top("attribute", key="a.b.c")]


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
