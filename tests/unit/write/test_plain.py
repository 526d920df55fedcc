"""
Plain values: what JSON and SQLite take of anything, at the cost of what is kept.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import uuid
from array import array
from collections import UserDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import (
    MAX,
    Hostile,
    Text,
    attributes_of,
    extract,
    make_record,
    row_of,
    rows_of,
    utf8,
)
from slowly import slowly

from sqlite_log_handler._write.plain import MALFORMED, TRUNCATED, write_json
from sqlite_log_handler._write.row import ATTRIBUTES, MARKS, MESSAGE, SOURCE, STACK_INFO, TASK_NAME, THREAD, make_row

pytestmark = pytest.mark.usefixtures("nothing_interned")


def test_extra() -> None:
    """What is given as `extra` becomes the attributes, as JSON that SQLite can look into."""
    row = row_of(make_record(order=17, user={"name": "bob", "tags": ["a", "b"]}, ok=True, nothing=None))

    assert {"order": 17, "user": {"name": "bob", "tags": ["a", "b"]}, "ok": True, "nothing": None} == attributes_of(row)
    assert ("bob", "b", 0) == (extract(row, "$.user.name"), extract(row, "$.user.tags[1]"), row[MARKS])


def test_standard_and_private_names_are_no_attributes() -> None:
    """What other formatters leave on a record, and names that begin with `_`, are left out."""
    row = row_of(make_record(message="m", asctime="now", taskName=None, _secret=1, __very=2))

    assert None is row[ATTRIBUTES]


def test_names_that_are_no_texts() -> None:
    """A name that is another value is kept as its text, or as a marker where that raises."""

    class Refusing:
        def __str__(self) -> str:
            raise RuntimeError

    record = make_record(order=17)
    others: dict[Any, str] = {7: "seven", ("a", 1): "pair", Refusing(): "refused"}
    vars(record).update(others)

    assert {
        "order": 17,
        "7": "seven",
        "('a', 1)": "pair",
        "<Refusing that cannot be shown: RuntimeError>": "refused",
    } == attributes_of(row_of(record))


class Point(NamedTuple):
    """A tuple with names."""

    x: int
    y: int


class Color(enum.Enum):
    """An enum that JSON does not know."""

    RED = "red"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (decimal.Decimal("1.10"), "1.10"),
        (dt.datetime(2025, 1, 2, 3, 4, 5), "2025-01-02 03:04:05"),
        (dt.timedelta(seconds=90), "0:01:30"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"raw\xff", r"raw\xff"),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        ((1, 2), [1, 2]),
        (array("d", [1.5, 2]), [1.5, 2.0]),
        (Point(1, 2), [1, 2]),
        (Color.RED, "Color.RED"),
        (ValueError("oops"), "ValueError('oops')"),
        ({1: "int", None: "none", False: "bool"}, {"1": "int", "null": "none", "false": "bool"}),
        ({(1, 2): "tuple", dt.date(2025, 1, 2): "day"}, {"(1, 2)": "tuple", "2025-01-02": "day"}),
        ({uuid.UUID(int=1): 1}, {"00000000-0000-0000-0000-000000000001": 1}),
        ({Color.RED: 1, Text("nan"): 2}, {"Color.RED": 1, "nan": 2}),
        (2**70, 2**70),
        ("\u2028<>&\"'\\", "\u2028<>&\"'\\"),
        ("\x01\x7f\t\n", "\x01\x7f\t\n"),
        ("\\u0000", "\\u0000"),
        ("\\\0\\\\\0", "\\\\x00\\\\\\x00"),
        ("\ud83d\ude00", r"\ud83d\ude00"),
        ({"a\0": "\0b"}, {r"a\x00": r"\x00b"}),
        (UserDict(a=1), "{'a': 1}"),
        (Text("sub"), "sub"),
    ],
    ids=ascii,
)
def test_extra_of_other_kinds(value: Any, kept: Any) -> None:
    """What JSON does not know becomes what it looks like, and that is not a fault."""
    row = row_of(make_record(value=value, other="there"))

    assert {"value": kept, "other": "there"} == attributes_of(row)
    assert 0 == row[MARKS]
    assert "there" == extract(row, "$.other")


class HostileText(str):  # noqa: SLOT000 - an odd one
    """A text that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no str")


def circular() -> dict[str, Any]:
    """Make a dict that holds itself."""
    value: dict[str, Any] = {}
    value["me"] = value
    return value


def nested(depth: int) -> list[Any]:
    """Make a list *depth* deep."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class BrokenDict(dict):  # type: ignore[type-arg]
    """A dict that does not show what is in it."""

    def items(self) -> Any:
        raise RuntimeError("broken")

    def __repr__(self) -> str:
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        ([1, -math.inf], [1, "-inf"]),
        ({math.nan: 1}, {"nan": 1}),
        (circular(), {"me": "<dict that cannot be shown: RecursionError>"}),
        (10**5_000, "<int that cannot be shown: OverflowError>"),
        ({10**5_000: 1}, {"<int that cannot be shown: OverflowError>": 1}),
        (Hostile(), "<Hostile that cannot be shown: ValueError>"),
        ([Hostile(), 2], ["<Hostile that cannot be shown: ValueError>", 2]),
        ({Hostile(): 1}, {"<Hostile that cannot be shown: ValueError>": 1}),
        ({HostileText("x"): 1}, {"<HostileText that cannot be shown: ValueError>": 1}),
        (BrokenDict(a=1), "<BrokenDict that cannot be shown: RuntimeError>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_extra_that_json_cannot_hold(value: Any, kept: Any) -> None:
    """What JSON cannot hold becomes a text in its place, is marked, and leaves all around it alone."""
    row = row_of(make_record("hello", value=value, other="there"))

    assert ("hello", MALFORMED) == (row[MESSAGE], row[MARKS])
    assert {"value": kept, "other": "there"} == attributes_of(row)
    assert "there" == extract(row, "$.other")


@pytest.mark.parametrize("depth", [99, 100, 1_000, 100_000])
def test_extra_that_is_deep(depth: int) -> None:
    """Lists within lists are kept to a depth of 100, which every reader of JSON takes; then comes a marker."""
    row = row_of(make_record("hello", value=nested(depth), other="there"))
    value, levels = attributes_of(row)["value"], 0
    while isinstance(value, list) and value:
        (value,) = value
        levels += 1

    assert "there" == extract(row, "$.other")
    if depth < 100:
        assert (depth, [], 0) == (levels, value, row[MARKS])
    else:
        assert (100, "<list that cannot be shown: RecursionError>", MALFORMED) == (levels, value, row[MARKS])


def test_extra_where_the_stack_ends() -> None:
    """A value for which no frames are left becomes a marker, as far down as there were some."""
    record = make_record("hello", value=nested(90), other="there")
    rows = []

    def log(frames: int) -> None:
        if frames:
            log(frames - 1)
        else:
            rows.append(make_row(record))

    with contextlib.suppress(RecursionError):
        for frames in range(500, 10_000, 5):
            log(frames)
    marked = [row for row in rows if row[MARKS]]

    assert marked
    for row in marked:
        assert row[ATTRIBUTES] is None or "there" == attributes_of(row)["other"]


@pytest.mark.parametrize(
    "extra",
    [
        {"body": "[" * 901},
        {"body": '{"a": [' * 500},
        {"body": "[" * 100_000},
        {"a": [[] for _ in range(500)], "b": [[] for _ in range(500)]},
        {"wide": [{"id": number} for number in range(1_000)]},
        {f"k{number}": [] for number in range(1_000)},
    ],
    ids=["brackets", "json", "cut", "two lists", "wide", "many"],
)
def test_extra_with_many_brackets(extra: dict[str, Any]) -> None:
    """Brackets that do not nest make nothing deep: a logged JSON body of 901 of them cost the whole record."""
    row = row_of(make_record("hello", **extra))

    assert "hello" == row[MESSAGE]
    assert set(extra) == set(attributes_of(row))


def test_extra_that_changes_while_it_is_read() -> None:
    """A dict that another thread fills meanwhile costs its own value at most."""
    shared: dict[str, Any] = {}

    class Filler:
        def __str__(self) -> str:
            shared[f"more{len(shared)}"] = 1
            return "filler"

    shared["filler"] = Filler()
    row = make_row(make_record("hello", shared=shared, other="there"))

    assert "hello" == row[MESSAGE]
    assert "there" == attributes_of(row)["other"]


# Cutting --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "é", "日", "😀", "\0", "\ud800", "\\", "\x01"], ids=ascii)
@pytest.mark.parametrize("max_bytes", [1_024, *slowly(4_096, 65_536)])
@pytest.mark.parametrize("field", ["message", "exc_text", "stack_info", "attribute", "attributes", "key", "all"])
def test_cut(letter: str, max_bytes: int, field: str) -> None:
    """What is too long is cut to `max_bytes` of UTF-8 in all, marked, and stays JSON; what is short stays whole."""
    long = letter * (max_bytes * 2)
    values: dict[str, Any] = {
        "message": {},
        "exc_text": {"exc_text": long},
        "stack_info": {"stack_info": long},
        "attribute": {"order": 17, "body": long},
        "attributes": {f"k{number}": letter * 500 for number in range(500)},
        "key": {f"k{long}": 1},
        "all": {"exc_text": long, "stack_info": long, "body": long},
    }[field]
    row = row_of(make_record(long if field in {"message", "all"} else "hello", **values), max_bytes=max_bytes)

    assert max_bytes >= utf8(row)
    assert TRUNCATED == row[MARKS] & TRUNCATED
    if row[ATTRIBUTES]:
        attributes_of(row)
    if field not in {"message", "all"}:
        assert "hello" == row[MESSAGE]
    if field == "attribute":
        assert {"order", "body"} == set(attributes_of(row)) or letter == "\x01"


@pytest.mark.parametrize("letter", ["é", "日", "😀", "\0", "\ud800", "\\", "\x01"], ids=ascii)
def test_cut_counts_bytes(letter: str) -> None:
    """An attribute of fewer letters than there is room for, and of more bytes, is cut to the room as well."""
    text, marks = write_json({"body": letter * 400}, 550)

    assert 550 >= len(text.encode()) > 500
    assert TRUNCATED == marks
    assert json.loads(text)["body"].endswith(" <cut: 400 characters>")


@pytest.mark.parametrize("length", [MAX - 1, MAX, MAX + 1])
def test_cut_begins_at_the_bound(length: int) -> None:
    """A message of exactly `max_bytes` is whole; one byte more is cut, and says how long it was."""
    row = row_of(make_record("x" * length), max_bytes=MAX)

    if length <= MAX:
        assert ("x" * length, 0) == (row[MESSAGE], row[MARKS])
    else:
        assert (MAX, TRUNCATED) == (len(row[MESSAGE]), row[MARKS])
        assert row[MESSAGE].endswith(f"x <cut: {length} characters>")


def test_cut_keeps_characters_whole() -> None:
    """The cut falls between characters, never within the bytes of one."""
    row = row_of(make_record("😀" * MAX), max_bytes=MAX)

    assert {"😀"} == set(row[MESSAGE].removesuffix(f" <cut: {MAX} characters>"))


def test_cut_takes_from_the_longest() -> None:
    """The long field is cut, the short ones beside it are not."""
    row = row_of(make_record("hello", stack_info="s" * 10 * MAX, order=17), max_bytes=MAX)

    assert ("hello", {"order": 17}) == (row[MESSAGE], attributes_of(row))
    assert (row[STACK_INFO] or "").endswith(f" <cut: {10 * MAX} characters>")


def test_names_have_a_length() -> None:
    """Names of any length are cut to 1,000 characters."""
    record = make_record(processName="p" * 5_000, threadName="t" * 5_000, taskName="k" * 5_000)
    record.name = record.pathname = record.funcName = "n" * 5_000
    row = row_of(record)

    assert ("n" * 1_000, "n" * 1_000, 7, "n" * 1_000, "") == row[SOURCE]
    assert ("p" * 1_000, "t" * 1_000, "k" * 1_000) == (row[THREAD][1], row[THREAD][3], row[TASK_NAME])


@pytest.mark.parametrize("name", ["n" * 1_001, (0,) * 1_001, Text("n" * 1_001)], ids=lambda name: type(name).__name__)
def test_a_cut_name_of_a_member_is_marked(name: Any) -> None:
    """A name within a dict takes 1,000 characters at most, and one that is cut counts, whatever it was."""
    row = row_of(make_record(value={name: 7}))

    assert ({str(name)[:1_000]: 7}, TRUNCATED) == (attributes_of(row)["value"], row[MARKS])


def test_what_is_cut_stays_json() -> None:
    """A list and a dict are cut between their members, so that SQLite still finds those that were kept."""
    row = row_of(make_record(items=[{"id": number} for number in range(1_000)], user={"name": "bob"}), max_bytes=MAX)
    items = attributes_of(row)["items"]

    assert ({"id": 0}, {"id": 1}, "bob") == (items[0], items[1], extract(row, "$.user.name"))
    assert f"<cut: {1_000 - len(items) + 1} items>" == items[-1]
    row = row_of(make_record(user=dict.fromkeys(map(str, range(1_000)), "x")), max_bytes=MAX)
    user = attributes_of(row)["user"]
    assert ("x", f"{1_000 - len(user) + 1} items") == (user["0"], user["cut"])


def test_short_attributes_stay_whole() -> None:
    """The long ones share what the short ones leave, in any order."""
    row = row_of(make_record(a="x" * 5_000, b=[1] * 5_000, c="short", d={"e": 7}, f="y" * 200), max_bytes=MAX)
    attributes = attributes_of(row)

    assert ["a", "b", "c", "d", "f"] == list(attributes)
    assert ("short", {"e": 7}, "y" * 200) == (attributes["c"], attributes["d"], attributes["f"])
    assert len(attributes["a"]) > 150
    assert len(attributes["b"]) > 50


@pytest.mark.parametrize("first", [True, False])
def test_a_long_list_takes_what_short_ones_leave(first: bool) -> None:
    """
    A list that is cut fills the room that the others leave, wherever it stands among them.

    The first of ten lists and dicts kept a tenth of the room, although the others were short.
    """
    short = {"tags": ["a"] * 9, "user": {"id": 7}, "day": dt.date(2025, 1, 2)} | {f"k{n}": [n] for n in range(6)}
    long = {"rows": list(range(5_000))}
    row = row_of(make_record(**(long | short if first else short | long)), max_bytes=4 * MAX)
    attributes = attributes_of(row)

    assert short | {"day": "2025-01-02"} == {name: attributes[name] for name in short}
    assert 4 * MAX - 200 < len(row[ATTRIBUTES] or "")


@pytest.mark.parametrize("first", [True, False])
def test_the_longest_list_leaves_the_others_their_share(first: bool) -> None:
    """
    A dict that is shorter than its share stays whole, also when a longer list comes at the end, behind short ones.

    It was cut to a third of its length, because that list took all that the short ones had left.
    """
    whole = {"headers": {f"header-{number}": "v" * 30 for number in range(16)}} | {f"k{n}": [n] for n in range(8)}
    long = {"rows": list(range(5_000))}
    row = row_of(make_record(**(whole | long if first else long | whole)), max_bytes=4 * MAX)
    attributes = attributes_of(row)

    assert whole == {name: attributes[name] for name in whole}


def test_within_a_dict_the_order_decides() -> None:
    """In a list or a dict, values are kept in their order as long as there is room: a long one is cut, and ends it."""
    request = {"id": 42, "body": "x" * 5_000, "status": 502}
    row = row_of(make_record(request=request, status=502), max_bytes=MAX)
    attributes = attributes_of(row)

    assert (["id", "body", "cut"], 502) == (list(attributes["request"]), attributes["status"])
    assert ("1 items", 42) == (attributes["request"]["cut"], attributes["request"]["id"])


json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.builds(Hostile),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(codec=None)) | st.integers() | st.none() | st.floats(), inner)
        | st.lists(inner).map(tuple)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.text(st.characters(codec=None)), json_value), st.integers(100, 2_000))
def test_no_more_is_taken_than_there_is_room_for(attributes: dict[str, Any], room: int) -> None:
    """Attributes fit into their room to the byte, are JSON, and what fits is what `json.dumps` writes."""
    text, marks = write_json(attributes, room)

    assert len(text.encode()) <= room
    assert isinstance(json.loads(text), dict)
    if not marks & TRUNCATED:
        assert len(json.loads(text)) <= len(attributes)
    with contextlib.suppress(ValueError, TypeError):
        whole = json.dumps(attributes, ensure_ascii=False, allow_nan=False)
        clean = r"\u0000" not in whole and whole.isascii() and max(map(len, attributes), default=0) < 100
        if clean and len(whole) <= room - 200:
            assert (whole, 0) == (text, marks)


@given(st.dictionaries(st.sampled_from(["a", "user", "_private", 'a"b']), json_value))
def test_the_quick_way_writes_the_same(attributes: dict[str, Any]) -> None:
    """Attributes that are texts and numbers are written by a shorter way, and to the same text."""
    record = make_record("hello", **attributes)
    kept = {name: value for name, value in attributes.items() if name[0] != "_"}
    text, marks = write_json(kept, 65_536) if kept else (None, 0)

    assert [(text, marks)] * 2 == [(row[ATTRIBUTES], row[MARKS]) for row in rows_of(record)]
