"""
Records that hold objects which raise whatever one asks of them.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from records import attributes_of, make_record, make_structlog_record, row_of
from slowly import slowly

from sqlite_log_handler._write.row import MARKS, MESSAGE

pytestmark = pytest.mark.usefixtures("nothing_interned")


def refuse(*_: object, **__: object) -> Any:
    """Raise, as a proxy of werkzeug does outside of a request."""
    raise RuntimeError("not here")


ASKED = (
    "bool", "len", "eq", "ne", "lt", "le", "gt", "ge", "hash", "str", "repr", "iter", "int",
    "float", "index", "getattr", "contains", "mod", "format", "getitem", "add",
)  # fmt: skip
METHODS = {f"__{name}__": refuse for name in ASKED}


class Refusing:
    """An object that raises whatever one asks of it, its class too."""

    __class__ = property(refuse)  # type: ignore[assignment]


class RefusingText(str):
    """The same of a str."""

    __slots__ = ()
    __class__ = property(refuse)  # type: ignore[assignment]


class RefusingNumber(int):
    """The same of an int."""

    __class__ = property(refuse)  # type: ignore[assignment]


for kind in (Refusing, RefusingText, RefusingNumber):
    for name, method in METHODS.items():
        if name != "__hash__" or kind is Refusing:
            setattr(kind, name, method)

ATTRIBUTES = sorted(set(vars(make_record())) - {"msg", "args"})


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("make", [Refusing, lambda: RefusingText("text"), lambda: RefusingNumber(7)])
def test_a_standard_attribute_that_refuses(attribute: str, make: Any) -> None:
    """Whatever a record holds in the place of a standard attribute, its message is kept, and so is the rest."""
    record = make_record("hello", order=42)
    vars(record)[attribute] = make()
    row = row_of(record)

    assert ("hello", {"order": 42}) == (row[MESSAGE], attributes_of(row))


@pytest.mark.parametrize("name", ["value", "extra", "otelTraceID", "exc_info", "event"])
@pytest.mark.parametrize("make", [Refusing, lambda: RefusingText("text"), lambda: RefusingNumber(7)])
@pytest.mark.parametrize("body", ["short", *slowly("x" * 100_000)])
@pytest.mark.parametrize("where", ["extra", "structlog"])
def test_a_value_that_refuses(name: str, make: Any, body: str, where: str) -> None:
    """
    A value that raises whatever one asks of it becomes a marker, and costs nothing else, also where others are cut.

    An unbound proxy beside a long value, or as the attribute `extra`, cost the whole record.
    """
    values = {"order": 42, "body": body, name: make()}
    if where == "extra":
        record = make_record("hello")
        vars(record).update(values)
    else:
        record = make_structlog_record({"event": "hello", **values})
    row = row_of(record)

    assert not row[MESSAGE].startswith("<record not kept")
    if name not in {"exc_info", "event"}:
        assert ("hello", 42, body[:5]) == (row[MESSAGE], attributes_of(row)["order"], attributes_of(row)["body"][:5])
        assert name in attributes_of(row)
        assert row[MARKS]


@pytest.mark.parametrize("make", [Refusing, lambda: RefusingText("text"), lambda: RefusingNumber(7)])
def test_a_message_that_refuses(make: Any) -> None:
    """A message, or an argument of it, that raises is marked, and the rest of the record is kept."""
    for name, value in (("msg", make()), ("args", (make(),)), ("args", make())):
        record = make_record("hello %d", order=42)
        vars(record)[name] = value
        row = row_of(record)
        assert {"order": 42} == attributes_of(row)
        assert name == "msg" or row[MESSAGE].startswith("hello ")


def test_nothing_is_raised_by_a_handler(make_handler: Any) -> None:
    """A handler counts each of these records, and its caller sees none of it."""
    handler = make_handler()
    for count, attribute in enumerate(ATTRIBUTES, 1):
        record = logging.LogRecord("app", 20, "", 1, "hello", (), None)
        vars(record)[attribute] = Refusing()
        handler.handle(record)
        assert count == handler.stats().seen
