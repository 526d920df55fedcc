"""
From a LogRecord to a row: what is kept of anything that a record can hold.
"""

from __future__ import annotations

import copy
import enum
import gc
import logging
import math
import os
import weakref
from typing import Any

import pytest
from records import (
    Hostile,
    Text,
    attributes_of,
    make_record,
    raised,
    row_of,
)

from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.plain import MALFORMED
from sqlite_log_handler._write.row import (
    ATTRIBUTES,
    CREATED,
    EXC_TEXT,
    EXC_TYPE,
    LEVELNO,
    MARKS,
    MESSAGE,
    SIZE,
    SOURCE,
    STACK_INFO,
    TASK_NAME,
    THREAD,
    make_row,
)

pytestmark = pytest.mark.usefixtures("nothing_interned")


def test_plain_record() -> None:
    """A plain record keeps its level, time, source, process, thread and message, and nothing is added."""
    record = make_record("hello")
    row = row_of(record)

    assert (20, record.created, ("app", "/src/app.py", 7, "main", "")) == row[:SIZE]
    assert (os.getpid(), "MainProcess", record.thread, "MainThread") == row[THREAD]
    assert (0, None, "hello", None, None, None, None) == (row[MARKS], *row[TASK_NAME:])


def test_field_names() -> None:
    """The names of a row's fields count them all, in order."""
    names = (LEVELNO, CREATED, SOURCE, SIZE, MARKS, THREAD, TASK_NAME, MESSAGE, EXC_TYPE, EXC_TEXT, STACK_INFO)

    assert tuple(range(12)) == (*names, ATTRIBUTES)
    assert 12 == len(row_of(make_record()))


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
    """The message is the result of `getMessage`, for any `msg`."""
    row = row_of(make_record(msg, *args))

    assert (message, 0) == (row[MESSAGE], row[MARKS])


@pytest.mark.parametrize(
    ("msg", "args", "parts"),
    [
        ("%d", ("x",), ["%d", '["x"]', "TypeError"]),
        ("%s %s", ("one",), ["%s %s", '["one"]', "TypeError"]),
        ("none", ("too", "many"), ["none", '["too", "many"]', "TypeError"]),
        ("%(who)s", ({"me": 1},), ["%(who)s", '{"me": 1}', "KeyError"]),
        ("%y", (1,), ["%y", "[1]", "ValueError"]),
        ("%s", (Hostile(),), ["%s", "ValueError: no str"]),
        (Hostile(), (), ["<Hostile that cannot be shown: ValueError>"]),
    ],
)
def test_message_that_cannot_be_formatted(msg: Any, args: tuple[Any, ...], parts: list[str]) -> None:
    """A message whose formatting fails is kept unformatted, with its args and the reason, and marked."""
    row = row_of(make_record(msg, *args))

    assert [] == [part for part in parts if part not in row[MESSAGE]]
    assert MALFORMED == row[MARKS]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\udc80", "\0\0", "é\0"])
def test_text_that_sqlite_cannot_keep(text: str) -> None:
    """NUL and lone surrogates are written as escapes, everywhere in the row."""
    record = make_record(text, **{f"k{text}": text})
    record.name = record.pathname = record.funcName = record.threadName = record.processName = text
    record.stack_info = record.exc_text = text
    record.taskName = text
    expected = text.replace("\0", r"\x00").replace("\ud800", r"\ud800").replace("\udc80", r"\udc80")
    row = row_of(record)

    assert expected == row[MESSAGE] == row[EXC_TEXT] == row[STACK_INFO] == row[TASK_NAME]
    assert (expected, expected, 7, expected, "") == row[SOURCE]
    assert (expected, expected) == (row[THREAD][1], row[THREAD][3])
    assert {f"k{expected}": expected} == attributes_of(row)


@pytest.mark.parametrize("form", ["%s", "a%s", "%s%s"])
def test_str_subclass_becomes_str(form: str) -> None:
    """A `__str__` that returns an instance of a str subclass leaves an exact str: "%s" hands that instance through."""

    class Shown:
        def __str__(self) -> str:
            return Text("text")

    row = row_of(make_record(form, *[Shown()] * form.count("%s")))

    assert form.replace("%s", "text") == row[MESSAGE]


def test_str_subclass_that_slices_itself() -> None:
    """No method of a str subclass is called: what it gives for its first characters may be of its own kind again."""

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
    """An IntEnum level becomes a plain int."""

    class Level(enum.IntEnum):
        NOTICE = 25

    row = row_of(make_record(levelno=Level.NOTICE))

    assert 25 == row[LEVELNO]


@pytest.mark.parametrize("levelno", [2**63, 2**70, -(2**70), "INFO", None, 1.5])
def test_level_that_is_none(levelno: Any) -> None:
    """A level that SQLite cannot keep as an integer becomes 0: one such record stopped the log for ever."""
    row = row_of(make_record("hello", levelno=levelno))

    assert (0, "hello") == (row[LEVELNO], row[MESSAGE])


@pytest.mark.parametrize("created", [math.nan, math.inf, -math.inf, 1e300, 9e12, "2025-01-01", None])
def test_time_that_is_none(created: Any) -> None:
    """A time that is none becomes 0 and is marked: one such record stopped the log for ever."""
    row = row_of(make_record("hello", created=created))

    assert (0.0, MALFORMED, "hello") == (row[CREATED], row[MARKS], row[MESSAGE])


@pytest.mark.parametrize("created", [0, 0.0, -1.5, 1763891000, 1763891000.123456])
def test_time(created: float) -> None:
    """Any other time is kept, as a float."""
    row = row_of(make_record(created=created))

    assert (created, 0) == (row[CREATED], row[MARKS])


def test_record_of_nothing() -> None:
    """A record made of nothing has a row."""
    row = row_of(logging.makeLogRecord({}))

    assert (0, "", 0) == (row[LEVELNO], row[MESSAGE], row[MARKS])


@pytest.mark.parametrize("name", sorted(set(vars(make_record())) - {"msg"}))
def test_record_without_an_attribute(name: str) -> None:
    """A record that lacks any one attribute keeps its message."""
    record = make_record("hello")
    delattr(record, name)

    assert "hello" == row_of(record)[MESSAGE]


class Redacted(logging.LogRecord):
    """A record that hides a password."""

    def getMessage(self) -> str:  # noqa: N802 - as in logging
        return super().getMessage().replace("hunter2", "***")


@pytest.mark.parametrize("how", ["class", "record", "subclass", "before the import"])
@pytest.mark.parametrize("args", [(), ("hunter2",)])
def test_replaced_get_message(monkeypatch: pytest.MonkeyPatch, how: str, args: tuple[str, ...]) -> None:
    """
    A `getMessage` that the program has put in the place of the standard one is called.

    It was not for the common record, and so a secret that one kept out of every other handler was written.
    """
    original = logging.LogRecord.getMessage

    def redacted(record: logging.LogRecord) -> str:
        return original(record).replace("hunter2", "***")

    record = make_record("the password is %s" if args else "the password is hunter2", *args)
    if how == "class":
        monkeypatch.setattr(logging.LogRecord, "getMessage", redacted)
    elif how == "before the import":
        monkeypatch.setattr(logging.LogRecord, "getMessage", redacted)
        monkeypatch.setattr(row_module, "_get_message", row_module._standard_get_message())
    elif how == "record":
        record.getMessage = lambda: redacted(record)  # type: ignore[method-assign]
    else:
        record.__class__ = Redacted
    row = row_of(record)

    assert ("the password is ***", None, 0) == (row[MESSAGE], row[ATTRIBUTES], row[MARKS])


def test_the_import_beside_a_replaced_get_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the program may have another object in the place of `logging.getLogger` as it imports the handler."""
    monkeypatch.setattr(logging, "getLogger", object())

    assert logging.LogRecord.getMessage is row_module._standard_get_message()


@pytest.mark.parametrize("name", sorted({*vars(make_record())} - {"msg", "args"}))
def test_get_message_of_a_record_without_an_attribute(name: str) -> None:
    """
    A class's own `getMessage` is called also when a filter has deleted an attribute of the record.

    A record of the plain class took its place, so a secret was written that every other handler hid.
    """
    record = Redacted("app", logging.INFO, "/src/app.py", 7, "the password is %s", ("hunter2",), None)
    delattr(record, name)

    assert "the password is ***" == row_of(record)[MESSAGE]


@pytest.mark.parametrize("name", sorted(vars(make_record())))
def test_attribute_in_the_place_of_a_standard_one(name: str) -> None:
    """
    A filter that deletes one attribute and sets one of its own loses neither the record nor its own.

    The common record is told by the number of its attributes, and that is the same then.
    """
    record = make_record("hello")
    delattr(record, name)
    record.request_id = "r-17"
    row = row_of(record)

    if name == "msg":
        assert MALFORMED == row[MARKS]
    else:
        assert ("hello", {"request_id": "r-17"}) == (row[MESSAGE], attributes_of(row))


def test_record_without_anything() -> None:
    """A record without a single attribute has a row with a marker."""
    record = make_record()
    vars(record).clear()
    row = row_of(record)

    assert MALFORMED == row[MARKS] & MALFORMED
    assert row[MESSAGE].startswith("<")


def test_extra_of_a_record_that_lacks_an_attribute() -> None:
    """A filter that deletes an attribute and sets two loses none of those it set."""
    record = make_record()
    del record.module
    record.user, record.order = "bob", 7

    assert {"user": "bob", "order": 7} == attributes_of(row_of(record))


def test_record_of_another_process() -> None:
    """A record that was sent here keeps the process and the thread it was made in."""
    record = make_record(process=os.getpid() + 1, processName="worker-3", thread=77, threadName="pool")

    assert (os.getpid() + 1, "worker-3", 77, "pool") == row_of(record)[THREAD]


def test_record_without_process_and_thread() -> None:
    """With `logging.logProcesses` and `logThreads` off, the process is this one and the thread is none."""
    record = make_record(process=None, processName=None, thread=None, threadName=None)

    assert (os.getpid(), "", None, None) == row_of(record)[THREAD]


def test_forked_child_without_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `logging.logProcesses` off, a forked child's records are not taken for its parent's."""
    record = make_record(process=None)
    for _ in range(3):
        make_row(record)
    child = os.getpid() + 1
    monkeypatch.setattr(row_module, "getpid", lambda: child)
    monkeypatch.setattr(row_module, "time", lambda: 5.0)
    row_module.learn_pid()

    assert (child, 5.0) == (make_row(record)[THREAD][0], row_module.own_start)


def test_task_name() -> None:
    """The name of the asyncio task is kept."""
    assert "Task-1" == row_of(make_record(taskName="Task-1"))[TASK_NAME]


@pytest.mark.parametrize("with_extra", [False, True])
def test_record_is_not_changed(with_extra: bool) -> None:
    """A record is left as it was, because other handlers are given the same one."""
    record = make_record("%s", "x", exc_info=raised(ValueError("oops")), stack_info="Stack:")
    if with_extra:
        record.order = {"id": 1}
        record.extra = {"user": "bob"}
    before = copy.copy(vars(record))
    row_of(record)

    assert before == vars(record)


def test_no_reference_is_kept() -> None:
    """Nothing of the caller's stays alive for a row: not in the row, nor in what rows share."""

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
    """KeyboardInterrupt and SystemExit belong to the program and come out."""

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


# Exceptions -----------------------------------------------------------------------------------------------------------


class AppError(Exception):
    """An exception of the program's own."""


@pytest.mark.parametrize("as_instance", [False, True])
def test_exception(as_instance: bool) -> None:
    """The type's full name and the traceback are kept, of a tuple and of an instance."""
    exc_info = raised(AppError("oops"))
    row = row_of(make_record(exc_info=exc_info[1] if as_instance else exc_info))

    assert f"{__name__}.AppError" == row[EXC_TYPE]
    assert (row[EXC_TEXT] or "").startswith("Traceback (most recent call last):")
    assert (row[EXC_TEXT] or "").endswith("AppError: oops")
    assert 0 == row[MARKS]


def test_built_in_exception() -> None:
    """The name of a built-in exception stands without its module."""
    assert "KeyError" == row_of(make_record(exc_info=raised(KeyError("k"))))[EXC_TYPE]


@pytest.mark.parametrize("exc_info", [None, False, (None, None, None)])
def test_no_exception(exc_info: Any) -> None:
    """No exception, in all the ways that logging has to say so, is none."""
    row = row_of(make_record(exc_info=exc_info))

    assert (None, None, 0) == (row[EXC_TYPE], row[EXC_TEXT], row[MARKS])


@pytest.mark.parametrize("exc_info", [(), (1,), (1, 2, 3), (ValueError, "text", "no traceback")])
def test_exc_info_that_is_none(exc_info: Any) -> None:
    """An exc_info that is none costs neither the message nor the record."""
    assert "m" == row_of(make_record(exc_info=exc_info))[MESSAGE]


def test_traceback_of_another_process() -> None:
    """A traceback that was rendered before the record was sent here is kept, though its type is not known."""
    row = row_of(make_record(exc_text="Traceback: ..."))

    assert (None, "Traceback: ...") == (row[EXC_TYPE], row[EXC_TEXT])


def test_exception_that_cannot_be_shown() -> None:
    """An exception whose `__str__` raises keeps its type and its traceback."""

    class HostileError(Exception):
        def __str__(self) -> str:
            raise ValueError("no str")

    row = row_of(make_record("hello", exc_info=raised(HostileError())))

    assert "hello" == row[MESSAGE]
    assert (row[EXC_TYPE] or "").endswith("HostileError")
    assert "Traceback" in (row[EXC_TEXT] or "")


def test_stack_info() -> None:
    """The stack is kept in a field of its own."""
    row = row_of(make_record(stack_info="Stack (most recent call last):"))

    assert ("m", "Stack (most recent call last):") == (row[MESSAGE], row[STACK_INFO])


def test_traceback_without_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback whose rendering has to import a module, and cannot, is kept without the lines of source."""

    def no_import(*_: object) -> str:
        raise ImportError("ast")

    monkeypatch.setattr(logging.Formatter, "formatException", no_import)
    row = row_of(make_record(exc_info=raised(ValueError("oops"))))
    first, place, last = (row[EXC_TEXT] or "").splitlines()

    assert ("Traceback (most recent call last):", "ValueError: oops", 0) == (first, last, row[MARKS])
    assert place.endswith(", in raised")
