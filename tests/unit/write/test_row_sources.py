"""
Records of other logging packages, and of formatters.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import loguru
import pytest
import structlog
from records import (
    Hostile,
    Text,
    attributes_of,
    make_record,
    make_structlog_record,
    raised,
    row_of,
)

from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.plain import MALFORMED
from sqlite_log_handler._write.row import ATTRIBUTES, EXC_TEXT, EXC_TYPE, LEVELNO, MARKS, MESSAGE, STACK_INFO

pytestmark = pytest.mark.usefixtures("nothing_interned")


def test_structlog_event() -> None:
    """Of a dict of structlog's, `event` is the message and the rest the attributes, without private names."""
    row = row_of(make_structlog_record({"event": "order %s", "order": 17, "_record": object()}, user="bob"))

    assert ("order %s", 0) == (row[MESSAGE], row[MARKS])
    assert {"order": 17, "user": "bob"} == attributes_of(row)


@pytest.mark.parametrize("event", [ValueError("x"), 7, type("Lazy", (str,), {})("x")])
def test_an_event_that_is_no_text(event: object) -> None:
    """An event of another type is the message as well, as with `log.error(error)`, without the rest of the dict."""
    row = row_of(make_structlog_record({"event": event, "order": 17}))

    assert (str(event), '{"order": 17}') == (row[MESSAGE], row[ATTRIBUTES])


@pytest.mark.parametrize("make", [make_record, make_structlog_record])
def test_dict_message_without_event(make: Any) -> None:
    """A dict without `event` is shown as it is, and is the attributes all the same."""
    row = row_of(make({"order": 17}))

    assert ("{'order': 17}", {"order": 17}) == (row[MESSAGE], attributes_of(row))


def test_dict_message_that_is_not_of_structlog() -> None:
    """
    A dict that a program logs without structlog is the message as a whole, whatever names it has.

    One with the name `event` was taken for structlog's: its private names, and those that a filter sets, were lost.
    """
    payload = {"event": "order.paid", "_id": "5f2c", "request_id": "theirs", "exc_info": True}
    row = row_of(make_record(payload, request_id="r-42"))

    assert (str(payload), None) == (row[MESSAGE], row[EXC_TEXT])
    assert {"event": "order.paid", "request_id": "r-42", "exc_info": True} == attributes_of(row)


def test_structlog_name_that_is_there_twice() -> None:
    """What was bound under a name that a filter sets as well is kept beside it, and `event` is structlog's."""
    same = "shop"
    row = row_of(make_structlog_record({"event": "paid", "id": "theirs", "app": same}, id="r-42", app=same, event=7))

    assert "paid" == row[MESSAGE]
    assert {"id": "r-42", "app": "shop", "event": 7, "structlog": {"id": "theirs"}} == attributes_of(row)


def test_dict_message_is_not_changed() -> None:
    """The program's dict is left as it was."""
    event = {"event": "hello", "order": 17}
    row_of(make_structlog_record(event))

    assert {"event": "hello", "order": 17} == event


def test_dict_message_with_other_keys() -> None:
    """Keys of a dict that are no str become one."""
    row = row_of(make_structlog_record({"event": "hello", 7: "seven", None: "none", "a\0": 1}))

    assert ("hello", {"7": "seven", "None": "none", r"a\x00": 1}) == (row[MESSAGE], attributes_of(row))


@pytest.mark.parametrize("where", ["msg", "extra"])
def test_hostile_key(where: str) -> None:
    """A key that cannot be shown costs that key at most."""
    values = {Hostile(): 1, "order": 17}
    record = (
        make_structlog_record({**values, "event": "hello"}) if where == "msg" else make_record("hello", extra=values)
    )
    row = row_of(record)

    assert ("hello", 17) == (row[MESSAGE], attributes_of(row)["order"])


def test_structlog(logger: logging.Logger) -> None:
    """Events of structlog, through the wrapper it documents for the standard library, keep their context."""
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
    """What structlog was given as `exc_info` becomes the traceback: it stands in the dict, and not on the record."""
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        row = row_of(make_structlog_record({"event": "not paid", "order": 17, "exc_info": form(error)}))

    assert ("not paid", {"order": 17}) == (row[MESSAGE], attributes_of(row))
    assert "ZeroDivisionError" == row[EXC_TYPE]
    assert "1 / 0" in (row[EXC_TEXT] or "")


def test_structlog_with_a_formatter() -> None:
    """
    With a formatter the message is what it makes of the dict, and the context is among the attributes all the same.
    """
    row = row_module.make_row(
        make_structlog_record({"event": "order paid", "order": 17}), logging.Formatter("<%(message)s>")
    )

    assert ("<{'event': 'order paid', 'order': 17}>", {"order": 17}) == (row[MESSAGE], attributes_of(row))


def test_opentelemetry_outside_of_a_span() -> None:
    """The zeros that OpenTelemetry puts into a record without a span are no trace, so they are not kept."""
    zeros = {"otelTraceID": "0", "otelSpanID": "0", "otelTraceSampled": False, "otelServiceName": "shop"}
    ids = {"otelTraceID": "4bf92f35", "otelSpanID": "0", "otelTraceSampled": False}

    assert {"otelServiceName": "shop"} == attributes_of(row_of(make_record(**zeros)))
    assert ids == attributes_of(row_of(make_record(**ids)))


def test_loguru() -> None:
    """Records of loguru, given to a standard handler, keep what was bound."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    loguru.logger.remove()
    sink = loguru.logger.add(handler, format="{message}")
    loguru.logger.bind(user="bob").info("order {}", 17)
    loguru.logger.remove(sink)
    handler.close()
    row = row_of(records[0])

    assert ("order 17", {"user": "bob"}) == (row[MESSAGE].rstrip(), attributes_of(row))


@pytest.mark.parametrize(
    "inner", [{"user": "inner", "order": 17}, {"_id": 7, "order": 17}, {7: "a", "7": "b"}, {"extra": 1}], ids=str
)
def test_a_nested_extra_stays_whole(inner: dict[Any, Any]) -> None:
    """
    A nested `extra` is unpacked only if nothing of it gets lost: not with a private name, nor one that is there twice.

    A program that passes such a dict without loguru lost those values, and nothing marked them.
    """
    row = row_of(make_record(extra=inner, user="outer"))

    assert {"user": "outer", "extra": {str(name): value for name, value in inner.items()}} == attributes_of(row)
    assert 0 == row[MARKS]


def test_extra_that_is_no_dict() -> None:
    """An attribute named `extra` that is no dict is an attribute."""
    assert {"extra": 5} == attributes_of(row_of(make_record(extra=5)))


# Formatters -----------------------------------------------------------------------------------------------------------


def test_formatter() -> None:
    """With a formatter, the message is what it gives, without the traceback and the stack, which have their fields."""
    record = make_record("hello", exc_info=raised(ValueError("oops")), stack_info="Stack:")
    row = row_of(record, formatter=logging.Formatter("%(levelname)s|%(name)s|%(message)s"))

    assert ("INFO|app|hello", "ValueError", "Stack:") == (row[MESSAGE], row[EXC_TYPE], row[STACK_INFO])
    assert (row[EXC_TEXT] or "").endswith("ValueError: oops")
    assert (None, "Stack:") == (record.exc_text, record.stack_info)


def test_formatter_gives_the_traceback() -> None:
    """A formatter's `formatException` makes the traceback's text."""

    class Short(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
            return f"short: {ei[1]}"

    row = row_of(make_record(exc_info=raised(ValueError("oops"))), formatter=Short())

    assert ("m", "ValueError", "short: oops") == (row[MESSAGE], row[EXC_TYPE], row[EXC_TEXT])


@pytest.mark.parametrize("template", ["%(user)s", "%(created)q", "%(levelno)d %(message)d"])
def test_formatter_that_raises(template: str) -> None:
    """When the formatter fails, the message is kept unformatted with the reason."""
    row = row_of(make_record("hello"), formatter=logging.Formatter(template, validate=False))

    assert row[MESSAGE].startswith("hello <not formatted: ")
    assert MALFORMED == row[MARKS]


@pytest.mark.parametrize("result", [Text("sub\0"), None, 5])
def test_traceback_formatter_that_returns_no_str(result: Any) -> None:
    """What a formatter returns for a traceback becomes a str that SQLite can keep."""

    class Odd(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
            return result

    row = row_of(make_record(exc_info=raised(ValueError("oops"))), formatter=Odd())

    assert str(result).replace("\0", r"\x00") == row[EXC_TEXT]


@pytest.mark.parametrize("module", ["a\0b", "\ud800", "m" * 5_000, None, 5])
def test_exception_of_an_odd_module(module: Any) -> None:
    """The name of an exception's type is kept as SQLite can keep it, and as long as names are."""
    kind = type("OddError", (Exception,), {"__module__": module})
    row = row_of(make_record("hello", exc_info=raised(kind())))

    assert "hello" == row[MESSAGE]
    assert 1_100 > len(row[EXC_TYPE] or "")
    assert row[EXC_TYPE] is not None


@pytest.mark.parametrize("result", [None, 5, Text("sub"), b"raw"])
def test_formatter_that_returns_no_str(result: Any) -> None:
    """What a formatter returns becomes a str."""

    class Odd(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return result

    assert str(result) == row_of(make_record(), formatter=Odd())[MESSAGE]


def test_traceback_formatter_that_raises() -> None:
    """A `formatException` that fails costs the traceback only, not the name of its class, and the record is marked."""

    class Broken(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - as in logging
            raise RuntimeError("broken")

    row = row_of(make_record("hello", exc_info=raised(ValueError("oops"))), formatter=Broken())

    assert ("hello", "ValueError") == (row[MESSAGE], row[EXC_TYPE])
    assert ("<traceback not kept: RuntimeError>", MALFORMED) == (row[EXC_TEXT], row[MARKS])
