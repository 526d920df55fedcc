"""
What a large or odd value costs the caller: what is kept of it, in time and in memory.
"""

from __future__ import annotations

import gc
import tracemalloc
from array import array
from collections import deque
from typing import Any

import pytest
from records import MAX, Text, attributes_of, make_record, make_structlog_record, row_of, utf8
from slowly import slowly

from sqlite_log_handler._write.plain import TRUNCATED
from sqlite_log_handler._write.row import MARKS, MESSAGE, make_row


def peak_of(call: Any) -> int:
    """Return the most memory that a call took at one moment."""
    call()  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


JSON_BODY = '[{"id": 17, "tags": ["a", "b"]}, '
LARGE = 20_000_000
MANY = 200_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    ["x", JSON_BODY, '<p class="x">text</p>', "[", '{"', "\\", "\0", "\x01", "é", "日", "😀", "\ud800", "\udc80é"],
    ids=ascii,
)
@pytest.mark.parametrize("where", ["msg", "args", "extra", "nested", "key", "structlog", "misformatted", "stack_info"])
def test_a_large_text_costs_what_is_kept(part: str, where: str) -> None:
    """
    A text of 20 million characters takes no more memory than the 64 KiB that are kept of it.

    A regular expression that counted brackets went over the whole of a 5 MB body, and took 520 MB and a second;
    another one that escaped surrogates took 2 seconds for a megabyte.
    """
    large = part * (LARGE // len(part))
    record = {
        "msg": lambda: make_record(large),
        "args": lambda: make_record("%s", large),
        "extra": lambda: make_record(body=large, order=17),
        "nested": lambda: make_record(request={"body": [large, large], large: 1}, order=17),
        "key": lambda: make_record(**{large: 1}, order=17),
        "structlog": lambda: make_structlog_record({"event": "hello", "body": large, "order": 17}),
        "misformatted": lambda: make_record("%d", large),
        "stack_info": lambda: make_record(stack_info=large),
    }[where]()
    peak = peak_of(lambda: make_row(record))
    row = row_of(record)

    assert peak < 3_000_000
    assert where == "misformatted" or row[MARKS] & TRUNCATED
    assert utf8(row) <= 65_536


VALUES = {
    "bytes": lambda: b"\xff" * LARGE,
    "bytearray": lambda: bytearray(LARGE),
    "list": lambda: [1] * MANY,
    "tuple": lambda: (None,) * MANY,
    "nested": lambda: [[[]]] * MANY,
    "dict": lambda: dict.fromkeys(range(MANY)),
    "set": lambda: set(range(MANY)),
    "long": lambda: [["x" * 1_000] * 1_000] * 1_000,
    "dicts": lambda: [{"a" * 900: "b"}] * MANY,
    "text": lambda: Text("x" * LARGE),
    "deque": lambda: deque(range(MANY)),
    "array": lambda: array("q", [1]) * MANY,
    "keys": lambda: dict.fromkeys(range(MANY)).keys(),
    "exception": lambda: ValueError(list(range(MANY))),
    "long exception": lambda: ValueError("x" * LARGE),
}


ALIKE = {"bytearray", "tuple", "set", "deque", "keys", "long exception"}  # the way that another value takes


@pytest.mark.parametrize("kind", [*sorted(VALUES.keys() - ALIKE), *slowly(*sorted(ALIKE))])
def test_a_large_value_costs_what_is_kept(kind: str) -> None:
    """Of very many items those are looked at that there is room for, and the rest is counted."""
    record = make_record("hello", value=VALUES[kind](), other="there")
    peak = peak_of(lambda: make_row(record, max_bytes=MAX))
    row = row_of(record, max_bytes=MAX)

    assert peak < 1_000_000
    assert (TRUNCATED, "there") == (row[MARKS], attributes_of(row)["other"])
    assert utf8(row) <= MAX


def test_many_attributes_cost_what_is_kept() -> None:
    """Of 100,000 attributes the first ones are kept, and the rest is counted."""
    record = make_record("hello", **{f"k{number}": str(number) for number in range(100_000)})
    row = row_of(record, max_bytes=MAX)
    attributes = attributes_of(row)

    assert ("0", "1") == (attributes["k0"], attributes["k1"])
    assert f"{100_000 - len(attributes) + 1} attributes" == attributes["cut"]
    assert TRUNCATED == row[MARKS]


LOOKS: list[None] = []


def looked_at(items: Any) -> Any:
    """Note each look at one of *items*."""
    for item in items:
        LOOKS.append(None)
        yield item


def counting(kind: Any, items: Any) -> Any:
    """Make a *kind* of collection that notes each look at one of its items."""
    named = issubclass(kind, dict)
    method, found = ("items", kind.items) if named else ("__iter__", kind.__iter__)
    return type(kind.__name__, (kind,), {method: lambda self: looked_at(found(self))})(items)


NUMBERS = range(10_000)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_record(value=counting(list, NUMBERS)),
        lambda: make_record(value=counting(tuple, NUMBERS)),
        lambda: make_record(value=counting(set, NUMBERS)),
        lambda: make_record(value=counting(deque, NUMBERS)),
        lambda: make_record(value=counting(dict, zip(NUMBERS, NUMBERS, strict=True))),
        lambda: make_record(value=counting(list, [1] * 10_000), order=17),
        lambda: make_record(value=[counting(list, NUMBERS)] * 1_000),
        lambda: make_record(value={"a": {"b": [{}, counting(list, NUMBERS)]}}),
        lambda: make_record(**{f"value{number}": counting(list, NUMBERS) for number in range(100)}),
        lambda: make_record(value=[counting(dict, {**dict.fromkeys(range(100)), 10**5_000: 1})] * 100_000),
        lambda: make_record(extra=counting(dict, {f"k{number}": number for number in NUMBERS})),
        lambda: make_structlog_record({"event": "hello", "value": counting(list, NUMBERS)}),
        lambda: make_structlog_record(
            counting(dict, {"event": "hello", **{f"k{number}": number for number in NUMBERS}})
        ),
        lambda: make_record("%d", counting(list, NUMBERS)),
        lambda: make_record(value=ValueError(counting(list, NUMBERS))),
    ],
    ids=[
        "list",
        "tuple",
        "set",
        "deque",
        "dict",
        "ones",
        "nested",
        "deep",
        "many",
        "key",
        "loguru",
        "in structlog",
        "structlog",
        "args",
        "exception",
    ],
)
def test_no_item_is_looked_at_that_is_not_kept(make: Any) -> None:
    """
    What a collection takes depends on the room that there is, and not on its length.

    Lists of a million items were written five times as far as there was room, and cost 0.6 seconds. All keys of an
    event of structlog and of a dict of loguru were looked at. A dict with an integer of 5,000 digits among its keys was
    written and thrown away, and so was the next one.
    """
    LOOKS.clear()
    make_row(make(), max_bytes=MAX)

    assert 0 < len(LOOKS) <= MAX


def nested_in_itself(levels: int) -> list[Any]:
    """Make lists of a hundred, each a hundred times the same one, *levels* deep."""
    value: list[Any] = ["end"]
    for _ in range(levels):
        value = [value] * 100
    return value


def test_arguments_that_are_huge_when_they_are_shown() -> None:
    """
    The arguments of a message that cannot be formatted are shown as far as there is room.

    Six lists, each a hundred times in the next, were shown in full before they were cut: a call that never returned.
    """
    row = row_of(make_record("%d", nested_in_itself(6)))

    assert row[MESSAGE].startswith('%d [[[[[[[["end"], ["end"], ')
    assert len(row[MESSAGE]) < 1_200
