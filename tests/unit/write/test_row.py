"""
From a LogRecord to a row: what is kept of anything that a record can hold.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import decimal
import enum
import gc
import io
import json
import logging
import math
import os
import pathlib
import sqlite3
import sys
import tempfile
import tracemalloc
import uuid
import weakref
from collections import UserDict
from typing import Any, NamedTuple

import loguru
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import (
    ATTRIBUTES,
    CREATED,
    EXC_TEXT,
    EXC_TYPE,
    LEVELNO,
    MALFORMED,
    MARKS,
    MESSAGE,
    SIZE,
    SIZE_UNIT,
    SOURCE,
    STACK_INFO,
    TASK_NAME,
    THREAD,
    TRUNCATED,
    PackedRow,
    make_row,
)
from sqlite_log_handler._write.writer import Writer

MAX = 1024


@pytest.fixture(autouse=True)
def _nothing_interned(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let each test begin with the caches of a fresh process.
    """
    monkeypatch.setattr(row_module, "_sources", {})
    monkeypatch.setattr(row_module, "_threads", {})
    monkeypatch.setattr(row_module, "_known", {})


def make_record(msg: Any = "m", *args: Any, **values: Any) -> logging.LogRecord:
    """
    Make a record, and set *values* on it as `extra` would.
    """
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, msg, args, None, "main")
    record.__dict__.update(values)
    return record


def rows_of(record: logging.LogRecord, **options: Any) -> tuple[PackedRow, PackedRow]:
    """
    Make the row twice: of a call site that is new, and of one that is known, which goes a shorter way.
    """
    forget()
    make_row(record, **options)
    known = make_row(record, **options)
    forget()
    return make_row(record, **options), known


def forget() -> None:
    """
    Let every call site and every thread be new.
    """
    for cache in (row_module._sources, row_module._threads, row_module._known):
        cache.clear()


def row_of(record: logging.LogRecord, **options: Any) -> PackedRow:
    """
    Make the row, and see that it does not depend on whether the call site is known, but for what that costs.
    """
    new, known = rows_of(record, **options)
    assert new[:SIZE] + new[SIZE + 1 :] == known[:SIZE] + known[SIZE + 1 :]
    check_contract(new)
    check_contract(known)
    return known


def check_contract(row: PackedRow) -> None:
    """
    See that a row holds exact plain types only, which SQLite takes.
    """
    levelno, created, source, size, marks, thread, *texts = row
    logger, pathname, lineno, func = source
    process, process_name, thread_id, thread_name = thread

    assert [tuple] * 3 == [type(row), type(source), type(thread)]
    assert float is type(created)
    assert math.isfinite(created)
    for number in (levelno, size, marks, lineno, process, thread_id or 0):
        assert int is type(number)
        assert -(2**63) <= number < 2**63
    assert str is type(row[MESSAGE])
    for text in (logger, pathname, func, process_name, thread_name, *texts):
        if text is not None:
            assert str is type(text)
            assert "\0" not in text
            text.encode()
    assert size > 0


def attributes_of(row: PackedRow) -> dict[str, Any]:
    """
    Read the attributes as SQLite and as Python do, which must agree that they are an object.
    """
    text = row[ATTRIBUTES]
    assert text is not None
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        assert (1, "object") == connection.execute("SELECT json_valid(?), json_type(?)", (text, text)).fetchone()
    values = json.loads(text)
    assert isinstance(values, dict)
    return values


def extract(row: PackedRow, path: str) -> Any:
    """
    Have SQLite read one attribute.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        return connection.execute("SELECT json_extract(?, ?)", (row[ATTRIBUTES], path)).fetchone()[0]


def utf8(row: PackedRow) -> int:
    """
    Add up what `max_bytes` bounds.
    """
    return sum(len((row[field] or "").encode()) for field in (MESSAGE, EXC_TEXT, STACK_INFO, ATTRIBUTES))


def raised(error: BaseException) -> Any:
    """
    Return the exc_info of *error*, raised.
    """
    try:
        raise error
    except BaseException:  # noqa: BLE001 - any kind is asked for
        return sys.exc_info()


class Hostile:
    """
    Raises whatever is asked of it.
    """

    def __str__(self) -> str:
        raise ValueError("no str")

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Text(str):
    """
    A str that is none of SQLite's business.
    """

    __slots__ = ("__weakref__",)


# The record ----------------------------------------------------------------------------------------------------------


def test_plain_record() -> None:
    """
    A plain record keeps its level, time, source, process, thread and message, and nothing is added.
    """
    record = make_record("hello")
    row = row_of(record)

    assert (20, record.created, ("app", "/src/app.py", 7, "main")) == row[:SIZE]
    assert (os.getpid(), "MainProcess", record.thread, "MainThread") == row[THREAD]
    assert (0, None, "hello", None, None, None, None) == (row[MARKS], *row[TASK_NAME:])


def test_field_names() -> None:
    """
    The names of a row's fields count them all, in order.
    """
    names = (LEVELNO, CREATED, SOURCE, SIZE, MARKS, THREAD, TASK_NAME, MESSAGE, EXC_TYPE, EXC_TEXT, STACK_INFO)

    assert tuple(range(12)) == (*names, ATTRIBUTES)
    assert 12 == len(row_of(make_record()))


def test_contract_with_the_queue() -> None:
    """
    The queue works by the same five fields, the same marks and the same unit as the row, without importing it.
    """
    names = ("LEVELNO", "CREATED", "SOURCE", "SIZE", "MARKS", "SIZE_UNIT", "TRUNCATED", "MALFORMED")

    assert {name: getattr(row_module, name) for name in names} == {name: getattr(queue_module, name) for name in names}


@pytest.mark.parametrize(
    ("msg", "args", "message"),
    [
        ("%s is %d", ("tea", 3), "tea is 3"),
        ("%(who)s left", ({"who": "bob"},), "bob left"),
        ("100 %", (), "100 %"),
        ("", (), ""),
        ("größer %s", ("日本 😀",), "größer 日本 😀"),
        (42, (), "42"),
        (None, (), "None"),
        (b"raw", (), "b'raw'"),
        (["a", 1], (), "['a', 1]"),
        (ValueError("oops"), (), "oops"),
        (Text("sub %s"), ("x",), "sub x"),
    ],
)
def test_message(msg: Any, args: tuple[Any, ...], message: str) -> None:
    """
    The message is what `getMessage` gives, whatever `msg` is.
    """
    row = row_of(make_record(msg, *args))

    assert (message, 0) == (row[MESSAGE], row[MARKS])


@pytest.mark.parametrize(
    ("msg", "args", "parts"),
    [
        ("%d", ("x",), ["%d", "('x',)", "TypeError"]),
        ("%s %s", ("one",), ["%s %s", "('one',)", "TypeError"]),
        ("none", ("too", "many"), ["none", "('too', 'many')", "TypeError"]),
        ("%(who)s", ({"me": 1},), ["%(who)s", "'me': 1", "KeyError"]),
        ("%y", (1,), ["%y", "(1,)", "ValueError"]),
        ("%s", (Hostile(),), ["%s", "ValueError: no str"]),
        (Hostile(), (), ["<Hostile that cannot be shown: ValueError>"]),
    ],
)
def test_message_that_cannot_be_formatted(msg: Any, args: tuple[Any, ...], parts: list[str]) -> None:
    """
    A message whose formatting fails is kept unformatted, with its args and the reason, and marked.
    """
    row = row_of(make_record(msg, *args))

    assert [] == [part for part in parts if part not in row[MESSAGE]]
    assert MALFORMED == row[MARKS]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\udc80", "\0\0", "é\0"])
def test_text_that_sqlite_cannot_keep(text: str) -> None:
    """
    NUL and lone surrogates are written as escapes, everywhere in the row.
    """
    record = make_record(text, **{f"k{text}": text})
    record.name = record.pathname = record.funcName = record.threadName = record.processName = text
    record.stack_info = record.exc_text = text
    record.taskName = text
    expected = text.replace("\0", r"\x00").replace("\ud800", r"\ud800").replace("\udc80", r"\udc80")
    row = row_of(record)

    assert expected == row[MESSAGE] == row[EXC_TEXT] == row[STACK_INFO] == row[TASK_NAME]
    assert (expected, expected, 7, expected) == row[SOURCE]
    assert (expected, expected) == (row[THREAD][1], row[THREAD][3])
    assert {f"k{expected}": expected} == attributes_of(row)


@pytest.mark.parametrize("form", ["%s", "a%s", "%s%s"])
def test_str_subclass_becomes_str(form: str) -> None:
    """
    A `__str__` that returns an instance of a str subclass leaves an exact str: "%s" hands that instance through.
    """

    class Shown:
        def __str__(self) -> str:
            return Text("text")

    row = row_of(make_record(form, *[Shown()] * form.count("%s")))

    assert form.replace("%s", "text") == row[MESSAGE]


def test_str_subclass_that_slices_itself() -> None:
    """
    No method of a str subclass is called: what it gives for its first characters may be of its own kind again.
    """

    class Sly(str):
        __slots__ = ()

        def __getitem__(self, key: object) -> str:
            return self

        def __str__(self) -> str:
            return self

    class Shown:
        def __str__(self) -> str:
            return Sly("text")

    row = row_of(make_record(Shown()))

    assert ("text", str) == (row[MESSAGE], type(row[MESSAGE]))


def test_level_that_is_an_enum() -> None:
    """
    An IntEnum level becomes a plain int.
    """

    class Level(enum.IntEnum):
        NOTICE = 25

    row = row_of(make_record(levelno=Level.NOTICE))

    assert 25 == row[LEVELNO]


@pytest.mark.parametrize("levelno", [2**63, 2**70, -(2**70), "INFO", None, 1.5])
def test_level_that_is_none(levelno: Any) -> None:
    """
    A level that SQLite cannot keep as an integer becomes 0: one such record stopped the log for ever.
    """
    row = row_of(make_record("hello", levelno=levelno))

    assert (0, "hello") == (row[LEVELNO], row[MESSAGE])


@pytest.mark.parametrize("created", [math.nan, math.inf, -math.inf, 1e300, 9e12, "2025-01-01", None])
def test_time_that_is_none(created: Any) -> None:
    """
    A time that is none becomes 0 and is marked: one such record stopped the log for ever.
    """
    row = row_of(make_record("hello", created=created))

    assert (0.0, MALFORMED, "hello") == (row[CREATED], row[MARKS], row[MESSAGE])


@pytest.mark.parametrize("created", [0, 0.0, -1.5, 1763891000, 1763891000.123456])
def test_time(created: float) -> None:
    """
    Any other time is kept, as a float.
    """
    row = row_of(make_record(created=created))

    assert (created, 0) == (row[CREATED], row[MARKS])


def test_record_of_nothing() -> None:
    """
    A record made of nothing has a row.
    """
    row = row_of(logging.makeLogRecord({}))

    assert (0, "", 0) == (row[LEVELNO], row[MESSAGE], row[MARKS])


@pytest.mark.parametrize("name", sorted(set(vars(make_record())) - {"msg"}))
def test_record_without_an_attribute(name: str) -> None:
    """
    A record that lacks any one attribute keeps its message.
    """
    record = make_record("hello")
    delattr(record, name)

    assert "hello" == row_of(record)[MESSAGE]


def test_record_without_anything() -> None:
    """
    A record without a single attribute has a row with a marker.
    """
    record = make_record()
    vars(record).clear()
    row = row_of(record)

    assert MALFORMED == row[MARKS] & MALFORMED
    assert row[MESSAGE].startswith("<")


def test_extra_of_a_record_that_lacks_an_attribute() -> None:
    """
    A filter that deletes an attribute and sets two loses none of those it set.
    """
    record = make_record()
    del record.module
    record.user, record.order = "bob", 7

    assert {"user": "bob", "order": 7} == attributes_of(row_of(record))


def test_record_of_another_process() -> None:
    """
    A record that was sent here keeps the process and the thread it was made in.
    """
    record = make_record(process=os.getpid() + 1, processName="worker-3", thread=77, threadName="pool")

    assert (os.getpid() + 1, "worker-3", 77, "pool") == row_of(record)[THREAD]


def test_record_without_process_and_thread() -> None:
    """
    With `logging.logProcesses` and `logThreads` off, the process is this one and the thread is none.
    """
    record = make_record(process=None, processName=None, thread=None, threadName=None)

    assert (os.getpid(), "", None, None) == row_of(record)[THREAD]


def test_forked_child_without_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With `logging.logProcesses` off, a forked child's records are not taken for its parent's.
    """
    record = make_record(process=None)
    for _ in range(3):
        make_row(record)
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    row_module.forget_threads()

    assert child == make_row(record)[THREAD][0]


def test_task_name() -> None:
    """
    The name of the asyncio task is kept.
    """
    assert "Task-1" == row_of(make_record(taskName="Task-1"))[TASK_NAME]


@pytest.mark.parametrize("with_extra", [False, True])
def test_record_is_not_changed(with_extra: bool) -> None:
    """
    A record is left as it was, because other handlers are given the same one.
    """
    record = make_record("%s", "x", exc_info=raised(ValueError("oops")), stack_info="Stack:")
    if with_extra:
        record.order = {"id": 1}
        record.extra = {"user": "bob"}
    before = copy.copy(vars(record))
    row_of(record)

    assert before == vars(record)


def test_no_reference_is_kept() -> None:
    """
    Nothing of the caller's stays alive for a row: not in the row, nor in what rows share.
    """

    class Thing:
        def __str__(self) -> str:
            return "thing"

    class Name(str):
        __slots__ = ("__weakref__",)

    thing, name = Thing(), Name("shop")
    record = make_record("%s", thing, thing=thing, name=name, exc_info=raised(ValueError(thing)))
    alive = [weakref.ref(thing), weakref.ref(name)]
    row = make_row(record)
    del record, thing, name
    gc.collect()

    assert [None, None] == [reference() for reference in alive]
    assert "thing" == row[MESSAGE]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["args", "extra", "formatter"])
def test_what_is_no_exception_comes_out(error: type[BaseException], where: str) -> None:
    """
    KeyboardInterrupt and SystemExit belong to the program and come out.
    """

    class Stop:
        def __str__(self) -> str:
            raise error

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise error

    record = make_record("%s", Stop()) if where == "args" else make_record()
    if where == "extra":
        record.stop = Stop()

    with pytest.raises(error):
        make_row(record, Formatter() if where == "formatter" else None)


# Attributes ----------------------------------------------------------------------------------------------------------


def test_extra() -> None:
    """
    What is given as `extra` becomes the attributes, as JSON that SQLite can look into.
    """
    row = row_of(make_record(order=17, user={"name": "bob", "tags": ["a", "b"]}, ok=True, nothing=None))

    assert {"order": 17, "user": {"name": "bob", "tags": ["a", "b"]}, "ok": True, "nothing": None} == attributes_of(row)
    assert ("bob", "b", 0) == (extract(row, "$.user.name"), extract(row, "$.user.tags[1]"), row[MARKS])


def test_standard_and_private_names_are_no_attributes() -> None:
    """
    What other formatters leave on a record, and names that begin with `_`, are left out.
    """
    row = row_of(make_record(message="m", asctime="now", taskName=None, _secret=1, __very=2))

    assert None is row[ATTRIBUTES]


class Point(NamedTuple):
    """
    A tuple with names.
    """

    x: int
    y: int


class Color(enum.Enum):
    """
    An enum that JSON does not know.
    """

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
        (Point(1, 2), [1, 2]),
        (Color.RED, "Color.RED"),
        (ValueError("oops"), "ValueError('oops')"),
        ({1: "int", None: "none", False: "bool"}, {"1": "int", "null": "none", "false": "bool"}),
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
    """
    What JSON does not know becomes what it looks like, and that is not a fault.
    """
    row = row_of(make_record(value=value, other="there"))

    assert {"value": kept, "other": "there"} == attributes_of(row)
    assert 0 == row[MARKS]
    assert "there" == extract(row, "$.other")


def circular() -> dict[str, Any]:
    """
    Make a dict that holds itself.
    """
    value: dict[str, Any] = {}
    value["me"] = value
    return value


def nested(depth: int) -> list[Any]:
    """
    Make a list *depth* deep.
    """
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class BrokenDict(dict):  # type: ignore[type-arg]
    """
    A dict that does not show what is in it.
    """

    def items(self) -> Any:
        raise RuntimeError("broken")

    def __repr__(self) -> str:
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        [1, -math.inf],
        {math.nan: 1},
        circular(),
        nested(1_000),
        nested(100_000),
        10**5_000,
        {(1, 2): "tuple"},
        Hostile(),
        [Hostile()],
        {Hostile(): 1},
        BrokenDict(a=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_extra_that_json_cannot_hold(value: Any) -> None:
    """
    A value that JSON cannot hold becomes a text, is marked, and leaves the other attributes and the message alone.
    """
    row = row_of(make_record("hello", value=value, other="there"))

    assert ("hello", MALFORMED) == (row[MESSAGE], row[MARKS])
    assert str is type(attributes_of(row)["value"])
    assert "there" == extract(row, "$.other")


def test_extra_deeper_than_sqlite_reads() -> None:
    """
    What is nested more deeply than SQLite reads becomes a text, also where Python could write it as JSON.
    """
    value: list[Any] = []
    for _ in range(1_200):
        value = [value]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 5_000)
    try:
        row = row_of(make_record("hello", value=value, other="there"))
    finally:
        sys.setrecursionlimit(limit)

    assert MALFORMED == row[MARKS]
    assert str is type(attributes_of(row)["value"])
    assert "there" == extract(row, "$.other")


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
    """
    Brackets that do not nest make nothing deep: a logged JSON body of 901 of them cost the whole record.
    """
    row = row_of(make_record("hello", **extra))

    assert "hello" == row[MESSAGE]
    assert set(extra) == set(attributes_of(row))


def test_extra_that_changes_while_it_is_read() -> None:
    """
    A dict that another thread fills meanwhile costs its own value at most.
    """
    shared: dict[str, Any] = {}

    class Filler:
        def __str__(self) -> str:
            shared[f"more{len(shared)}"] = 1
            return "filler"

    shared["filler"] = Filler()
    row = make_row(make_record("hello", shared=shared, other="there"))

    assert "hello" == row[MESSAGE]
    assert "there" == attributes_of(row)["other"]


def test_keys_that_are_no_str() -> None:
    """
    Attributes whose names are no str are left out.
    """
    record = make_record("hello", order=1)
    vars(record)[7] = "seven"  # type: ignore[index]

    assert {"order": 1} == attributes_of(row_of(record))


# structlog and loguru ------------------------------------------------------------------------------------------------


def test_dict_message() -> None:
    """
    Of a dict, `event` is the message and the rest the attributes, without private names.
    """
    row = row_of(make_record({"event": "order %s", "order": 17, "_record": object()}, user="bob"))

    assert ("order %s", 0) == (row[MESSAGE], row[MARKS])
    assert {"order": 17, "user": "bob"} == attributes_of(row)


def test_dict_message_without_event() -> None:
    """
    A dict without `event` is shown as it is, and is the attributes all the same.
    """
    row = row_of(make_record({"order": 17}))

    assert ("{'order': 17}", {"order": 17}) == (row[MESSAGE], attributes_of(row))


def test_dict_message_is_not_changed() -> None:
    """
    The program's dict is left as it was.
    """
    event = {"event": "hello", "order": 17}
    row_of(make_record(event))

    assert {"event": "hello", "order": 17} == event


def test_dict_message_with_other_keys() -> None:
    """
    Keys of a dict that are no str become one.
    """
    row = row_of(make_record({"event": "hello", 7: "seven", None: "none", "a\0": 1}))

    assert ("hello", {"7": "seven", "None": "none", r"a\x00": 1}) == (row[MESSAGE], attributes_of(row))


@pytest.mark.parametrize("where", ["msg", "extra"])
def test_hostile_key(where: str) -> None:
    """
    A key that cannot be shown costs that key at most.
    """
    values = {Hostile(): 1, "order": 17}
    record = make_record({**values, "event": "hello"}) if where == "msg" else make_record("hello", extra=values)
    row = row_of(record)

    assert ("hello", 17) == (row[MESSAGE], attributes_of(row)["order"])


def test_structlog(logger: logging.Logger) -> None:
    """
    Events of structlog, through the wrapper it documents for the standard library, keep their context.
    """
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    structlog.wrap_logger(
        logger,
        processors=[structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind(user="bob").warning("order lost", order=17)
    logger.removeHandler(handler)
    row = row_of(records[0])

    assert ("order lost", logging.WARNING) == (row[MESSAGE], row[LEVELNO])
    assert {"user": "bob", "order": 17, "level": "warning"} == attributes_of(row)


@pytest.mark.parametrize("form", [lambda _: True, lambda error: error, lambda _: sys.exc_info()])
def test_structlog_with_an_exception(form: Any) -> None:
    """
    What structlog was given as `exc_info` becomes the traceback: it stands in the dict, and not on the record.
    """
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        row = row_of(make_record({"event": "not paid", "order": 17, "exc_info": form(error)}))

    assert ("not paid", {"order": 17}) == (row[MESSAGE], attributes_of(row))
    assert "ZeroDivisionError" == row[EXC_TYPE]
    assert "1 / 0" in (row[EXC_TEXT] or "")


def test_structlog_with_a_formatter() -> None:
    """
    With a formatter the message is what it makes of the dict, and the context is among the attributes all the same.
    """
    row = row_module.make_row(make_record({"event": "order paid", "order": 17}), logging.Formatter("<%(message)s>"))

    assert ("<{'event': 'order paid', 'order': 17}>", {"order": 17}) == (row[MESSAGE], attributes_of(row))


def test_opentelemetry_outside_of_a_span() -> None:
    """
    The zeros that OpenTelemetry puts into a record without a span are no trace, so they are not kept.
    """
    zeros = {"otelTraceID": "0", "otelSpanID": "0", "otelTraceSampled": False, "otelServiceName": "shop"}
    ids = {"otelTraceID": "4bf92f35", "otelSpanID": "0", "otelTraceSampled": False}

    assert {"otelServiceName": "shop"} == attributes_of(row_of(make_record(**zeros)))
    assert ids == attributes_of(row_of(make_record(**ids)))


def test_loguru() -> None:
    """
    Records of loguru, given to a standard handler, keep what was bound.
    """
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    loguru.logger.remove()
    sink = loguru.logger.add(handler, format="{message}")
    loguru.logger.bind(user="bob", _private=1).info("order {}", 17)
    loguru.logger.remove(sink)
    handler.close()
    row = row_of(records[0])

    assert ("order 17", {"user": "bob"}) == (row[MESSAGE].rstrip(), attributes_of(row))


def test_nested_extra_does_not_hide_attributes() -> None:
    """
    A nested `extra` is flattened, and what stands on the record itself goes before it.
    """
    row = row_of(make_record(extra={"user": "inner", "order": 17}, user="outer"))

    assert {"user": "outer", "order": 17} == attributes_of(row)


def test_extra_that_is_no_dict() -> None:
    """
    An attribute named `extra` that is no dict is an attribute.
    """
    assert {"extra": 5} == attributes_of(row_of(make_record(extra=5)))


# Formatters ----------------------------------------------------------------------------------------------------------


def test_formatter() -> None:
    """
    With a formatter, the message is what it gives, without the traceback and the stack, which have their fields.
    """
    record = make_record("hello", exc_info=raised(ValueError("oops")), stack_info="Stack:")
    row = row_of(record, formatter=logging.Formatter("%(levelname)s|%(name)s|%(message)s"))

    assert ("INFO|app|hello", "ValueError", "Stack:") == (row[MESSAGE], row[EXC_TYPE], row[STACK_INFO])
    assert (row[EXC_TEXT] or "").endswith("ValueError: oops")
    assert (None, "Stack:") == (record.exc_text, record.stack_info)


def test_formatter_gives_the_traceback() -> None:
    """
    A formatter's `formatException` makes the traceback's text.
    """

    class Short(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
            return f"short: {ei[1]}"

    row = row_of(make_record(exc_info=raised(ValueError("oops"))), formatter=Short())

    assert ("m", "ValueError", "short: oops") == (row[MESSAGE], row[EXC_TYPE], row[EXC_TEXT])


@pytest.mark.parametrize("template", ["%(user)s", "%(created)q", "%(levelno)d %(message)d"])
def test_formatter_that_raises(template: str) -> None:
    """
    When the formatter fails, the message is kept unformatted with the reason.
    """
    row = row_of(make_record("hello"), formatter=logging.Formatter(template, validate=False))

    assert row[MESSAGE].startswith("hello <not formatted: ")
    assert MALFORMED == row[MARKS]


@pytest.mark.parametrize("result", [Text("sub\0"), None, 5])
def test_traceback_formatter_that_returns_no_str(result: Any) -> None:
    """
    What a formatter returns for a traceback becomes a str that SQLite can keep.
    """

    class Odd(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
            return result

    row = row_of(make_record(exc_info=raised(ValueError("oops"))), formatter=Odd())

    assert str(result).replace("\0", r"\x00") == row[EXC_TEXT]


@pytest.mark.parametrize("module", ["a\0b", "\ud800", "m" * 5_000, None, 5])
def test_exception_of_an_odd_module(module: Any) -> None:
    """
    The name of an exception's type is kept as SQLite can keep it, and as long as names are.
    """
    kind = type("OddError", (Exception,), {"__module__": module})
    row = row_of(make_record("hello", exc_info=raised(kind())))

    assert "hello" == row[MESSAGE]
    assert 1_100 > len(row[EXC_TYPE] or "")
    assert row[EXC_TYPE] is not None


@pytest.mark.parametrize("result", [None, 5, Text("sub"), b"raw"])
def test_formatter_that_returns_no_str(result: Any) -> None:
    """
    What a formatter returns becomes a str.
    """

    class Odd(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return result

    assert str(result) == row_of(make_record(), formatter=Odd())[MESSAGE]


def test_traceback_formatter_that_raises() -> None:
    """
    A `formatException` that fails costs the traceback only, and the record is marked.
    """

    class Broken(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
            raise RuntimeError("broken")

    row = row_of(make_record("hello", exc_info=raised(ValueError("oops"))), formatter=Broken())

    assert ("hello", "<traceback not kept: RuntimeError>") == (row[MESSAGE], row[EXC_TEXT])
    assert MALFORMED == row[MARKS]


# Exceptions ----------------------------------------------------------------------------------------------------------


class AppError(Exception):
    """
    An exception of the program's own.
    """


@pytest.mark.parametrize("as_instance", [False, True])
def test_exception(as_instance: bool) -> None:
    """
    The type's full name and the traceback are kept, of a tuple and of an instance.
    """
    exc_info = raised(AppError("oops"))
    row = row_of(make_record(exc_info=exc_info[1] if as_instance else exc_info))

    assert f"{__name__}.AppError" == row[EXC_TYPE]
    assert (row[EXC_TEXT] or "").startswith("Traceback (most recent call last):")
    assert (row[EXC_TEXT] or "").endswith("AppError: oops")
    assert 0 == row[MARKS]


def test_built_in_exception() -> None:
    """
    The name of a built-in exception stands without its module.
    """
    assert "KeyError" == row_of(make_record(exc_info=raised(KeyError("k"))))[EXC_TYPE]


@pytest.mark.parametrize("exc_info", [None, False, (None, None, None)])
def test_no_exception(exc_info: Any) -> None:
    """
    No exception, in all the ways that logging has to say so, is none.
    """
    row = row_of(make_record(exc_info=exc_info))

    assert (None, None, 0) == (row[EXC_TYPE], row[EXC_TEXT], row[MARKS])


@pytest.mark.parametrize("exc_info", [(), (1,), (1, 2, 3), (ValueError, "text", "no traceback")])
def test_exc_info_that_is_none(exc_info: Any) -> None:
    """
    An exc_info that is none costs neither the message nor the record.
    """
    assert "m" == row_of(make_record(exc_info=exc_info))[MESSAGE]


def test_traceback_of_another_process() -> None:
    """
    A traceback that was rendered before the record was sent here is kept, though its type is not known.
    """
    row = row_of(make_record(exc_text="Traceback: ..."))

    assert (None, "Traceback: ...") == (row[EXC_TYPE], row[EXC_TEXT])


def test_exception_that_cannot_be_shown() -> None:
    """
    An exception whose `__str__` raises keeps its type and its traceback.
    """

    class HostileError(Exception):
        def __str__(self) -> str:
            raise ValueError("no str")

    row = row_of(make_record("hello", exc_info=raised(HostileError())))

    assert "hello" == row[MESSAGE]
    assert (row[EXC_TYPE] or "").endswith("HostileError")
    assert "Traceback" in (row[EXC_TEXT] or "")


def test_stack_info() -> None:
    """
    The stack is kept in a field of its own.
    """
    row = row_of(make_record(stack_info="Stack (most recent call last):"))

    assert ("m", "Stack (most recent call last):") == (row[MESSAGE], row[STACK_INFO])


# Cutting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "é", "日", "😀", "\0", "\ud800", "\\", "\x01"], ids=ascii)
@pytest.mark.parametrize("max_bytes", [1_024, 4_096, pytest.param(65_536, marks=pytest.mark.slow)])
@pytest.mark.parametrize("field", ["message", "exc_text", "stack_info", "attribute", "attributes", "key", "all"])
def test_cut(letter: str, max_bytes: int, field: str) -> None:
    """
    What is too long is cut to `max_bytes` of UTF-8 in all, marked, and stays JSON; what is short stays whole.
    """
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


@pytest.mark.parametrize("length", [MAX - 1, MAX, MAX + 1])
def test_cut_begins_at_the_bound(length: int) -> None:
    """
    A message of exactly `max_bytes` is whole; one byte more is cut, and says how long it was.
    """
    row = row_of(make_record("x" * length), max_bytes=MAX)

    if length <= MAX:
        assert ("x" * length, 0) == (row[MESSAGE], row[MARKS])
    else:
        assert (MAX, TRUNCATED) == (len(row[MESSAGE]), row[MARKS])
        assert row[MESSAGE].endswith(f"x <cut: {length} characters>")


def test_cut_keeps_characters_whole() -> None:
    """
    The cut falls between characters, never within the bytes of one.
    """
    row = row_of(make_record("😀" * MAX), max_bytes=MAX)

    assert {"😀"} == set(row[MESSAGE].removesuffix(f" <cut: {MAX} characters>"))


def test_cut_takes_from_the_longest() -> None:
    """
    The long field is cut, the short ones beside it are not.
    """
    row = row_of(make_record("hello", stack_info="s" * 10 * MAX, order=17), max_bytes=MAX)

    assert ("hello", {"order": 17}) == (row[MESSAGE], attributes_of(row))
    assert (row[STACK_INFO] or "").endswith(f" <cut: {10 * MAX} characters>")


def test_names_have_a_length() -> None:
    """
    Names of any length are cut to 1,000 characters.
    """
    record = make_record(processName="p" * 5_000, threadName="t" * 5_000, taskName="k" * 5_000)
    record.name = record.pathname = record.funcName = "n" * 5_000
    row = row_of(record)

    assert ("n" * 1_000, "n" * 1_000, 7, "n" * 1_000) == row[SOURCE]
    assert ("p" * 1_000, "t" * 1_000, "k" * 1_000) == (row[THREAD][1], row[THREAD][3], row[TASK_NAME])


# Interning -----------------------------------------------------------------------------------------------------------


def test_call_site_is_shared() -> None:
    """
    Rows of one call site and one thread hold the same source and the same thread, not equal ones.
    """
    rows = [make_row(make_record(f"{number}")) for number in range(3)]
    rows.append(make_row(make_record("%d", "x", order=1)))

    assert 1 == len({id(row[SOURCE]) for row in rows})
    assert 1 == len({id(row[THREAD]) for row in rows})


@pytest.mark.parametrize("attribute", ["name", "pathname", "funcName", "threadName", "processName"])
@pytest.mark.parametrize("length", [0, 900])
def test_interning_is_bounded(monkeypatch: pytest.MonkeyPatch, attribute: str, length: int) -> None:
    """
    Made-up names do not make the process grow: what is shared is bounded.
    """
    monkeypatch.setattr(row_module, "_INTERNED", 100)
    for number in range(3 * row_module._INTERNED):
        for _ in range(2):
            make_row(make_record(**{attribute: f"{number}" + "x" * length}))

    assert row_module._INTERNED >= max(len(row_module._sources), len(row_module._threads), len(row_module._known))


def test_pairs_of_call_site_and_thread_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A program with many call sites and many threads makes what is shared grow by neither of them.
    """
    monkeypatch.setattr(row_module, "_INTERNED", 100)
    for number in range(900):
        make_row(make_record(lineno=number % 30, thread=number // 30))

    assert 0 < len(row_module._known) <= 100


def test_only_plain_names_are_kept() -> None:
    """
    A name of a class of the program's, though equal to one that is known, does not stay alive for it.
    """

    class Name(str):
        __slots__ = ()

    make_row(make_record())
    row = make_row(make_record(name=Name("app")))

    assert not row_module._known
    assert str is type(row[SOURCE][0])


def test_a_message_that_is_no_str() -> None:
    """
    A message is `str(msg) % args`, as the logging module has it, whatever `msg` makes of a `%` itself.
    """

    class Message:
        def __mod__(self, args: object) -> str:
            return "never"

        def __str__(self) -> str:
            return "paid by %s"

    assert ["paid by c-17"] * 2 == [row[MESSAGE] for row in rows_of(make_record(Message(), "c-17"))]


def test_interning_is_bounded_in_bytes() -> None:
    """
    Made-up names of 50 kB do not stay either: 2,000 of them took 100 MB.
    """
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2_000):
            make_row(make_record(name=f"{number}" + "x" * 50_000))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 12_000_000 > grown


def test_names_of_other_types() -> None:
    """
    A name that has a `__hash__` or an `__eq__` of its own costs nothing but its sharing.
    """

    class Name(str):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    assert ("shop", "hello") == ((row := row_of(make_record("hello", name=Name("shop"))))[SOURCE][0], row[MESSAGE])


# Memory --------------------------------------------------------------------------------------------------------------


def queued(texts: Any, **values: Any) -> tuple[int, int]:
    """
    Log *texts*, made and forgotten one by one, into a queue; return what it says it takes, and what it takes.
    """
    logger = logging.getLogger("test_row")
    # What a program has anyway: the interned source and thread.
    make_row(logger.makeRecord("app", 20, "/src/app.py", 7, "", (), None, "main"))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        records = queue_module.RecordQueue(100_000, 1 << 40)
        records.open()
        for text in texts:
            names = {name: f"{value}{text[:20]}" for name, value in values.items()}
            record = logger.makeRecord(names.get("name", "app"), 20, "/src/app.py", 7, "%s", (text,), None, "main")
            record.__dict__.update(names)
            records.put_nowait(make_row(record))
        del record, text, names
        # SQLite makes CPython keep the UTF-8 of what is bound: a row is at its largest after a failed commit.
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            for row in records.queue:
                connection.execute("SELECT ?, ?, ?, ?", (row[MESSAGE], row[ATTRIBUTES], row[TASK_NAME], row[SOURCE][0]))
            del row
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return records.queued_size * SIZE_UNIT, after - before


@pytest.mark.slow
def test_full_queue_takes_33_megabytes() -> None:
    """
    100,000 rows of 50 characters take 33 MB at most, and the queue says no less than it takes.
    """
    estimate, truth = queued(f"{number:050d}" for number in range(100_000))

    assert 33_000_000 >= truth
    assert 33_000_000 >= estimate >= truth


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 8, 50, 1_000, 15_000, 100_000])
@pytest.mark.parametrize("letter", ["x", "é", "日", "😀"])
def test_estimate_is_not_below_the_truth(letter: str, length: int) -> None:
    """
    Rows of any text take no more memory than the queue says, so `capacity_bytes` is a bound.
    """
    count = 200 if length > 1_000 else 2_000
    measured = [queued(f"{letter * length}{number}" for number in range(count)) for _ in range(2)]

    # The measurement takes some itself: sqlite3's module state, and caches of the interpreter. Now and then a dict of
    # the interpreter's doubles in it, which may be another 70 KB, but not in both.
    assert 50_000 > min(truth - estimate for estimate, truth in measured)


@pytest.mark.parametrize("name", ["name", "threadName", "taskName", "order"])
@pytest.mark.parametrize("letter", ["x", "é", "日", "😀"])
def test_estimate_counts_names(name: str, letter: str) -> None:
    """
    Names that are made up for each record count too.
    """
    estimate, truth = queued((f"{number:06d}{letter}" for number in range(1_000)), **{name: letter * 900})

    # What is interned is not the queue's; it is bounded by itself.
    assert estimate >= truth - 1_000 * 300


# Anything ------------------------------------------------------------------------------------------------------------

any_text = st.text(st.characters(codec=None), max_size=50) | st.sampled_from(
    ["\0", "\ud800", "'; DROP TABLE records;--"]
)
any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary(max_size=20)
    | st.decimals()
    | st.datetimes()
    | st.builds(Hostile),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(any_text | st.integers() | st.floats(), children, max_size=4)
    ),
    max_leaves=8,
)
any_record = st.builds(
    lambda msg, args, extra, values: make_record(msg, *args, **extra, **values),
    any_text | any_value,
    st.lists(any_value, max_size=2),
    st.dictionaries(
        any_text.filter(lambda key: key not in {*vars(make_record()), "msg", "args"}), any_value, max_size=4
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "name": any_text,
            "levelno": st.integers() | any_value,
            "pathname": any_text,
            "lineno": st.integers(),
            "funcName": any_text | st.none(),
            "created": st.floats() | any_value,
            "process": st.integers() | st.none(),
            "processName": any_text | st.none(),
            "thread": st.integers() | st.none(),
            "threadName": any_text | st.none(),
            "taskName": any_text | st.none(),
            "exc_info": st.sampled_from([None, raised(ValueError("a\0\ud800"))]) | any_value,
            "exc_text": any_text | st.none(),
            "stack_info": any_text | st.none(),
        },
    ),
)


@given(st.lists(any_record, min_size=1, max_size=5), st.sampled_from([1_024, 65_536]))
def test_anything_becomes_a_row_and_reads_back(records: list[logging.LogRecord], max_bytes: int) -> None:
    """
    Whatever a record holds, its row keeps the contract, SQLite takes it, and gives it back as it was.
    """
    rows = [row for record in records for row in rows_of(record, max_bytes=max_bytes)]
    for row in rows:
        check_contract(row)
        assert max_bytes >= utf8(row)
        if row[ATTRIBUTES] is not None:
            attributes_of(row)

    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(os.path.join(folder, "app-log.db"))
        try:
            outcome = writer.write(Commit(rows))
            assert not outcome.refused
            assert writer.file.connection is not None
            found = writer.file.connection.execute(
                "SELECT levelno, logger, pathname, lineno, func, process, process_name, thread, thread_name, "
                "task_name, message, exc_type, exc_text, stack_info, attributes FROM logs ORDER BY id"
            ).fetchall()
            times = writer.file.connection.execute("SELECT created_us FROM logs ORDER BY id").fetchall()
        finally:
            writer.close()

    expected = [(row[LEVELNO], *row[SOURCE], *row[THREAD], *row[TASK_NAME:]) for row in rows]
    assert expected == found
    for (created_us,), row in zip(times, rows, strict=True):
        # A float has 53 bits: beyond 285 years from 1970, the last of them is more than a microsecond.
        assert math.isclose(row[CREATED] * 1e6, created_us, rel_tol=1e-15, abs_tol=1)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A bad record is marked in its row, and nowhere else.
    """
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    make_row(make_record("%d", Hostile(), x=Hostile(), exc_info=(1,)))

    assert ("", "") == (stderr.getvalue(), capsys.readouterr().out)
