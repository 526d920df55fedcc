"""
The mapping from rows to OTLP, read back with the official parser of protobuf.
"""

from __future__ import annotations

import json
import logging
import os
import socket

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[otlp]'")

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from sqlite_log_handler._forward.otlp import encode, environment_attributes, exception_message, pairs, severity_number
from sqlite_log_handler._forward.spool import OutgoingBatch, Spool

UNSET = object()
SOURCES = {1: ("shop.orders", "/srv/shop/orders.py", 17, "pay"), 2: ("shop", "", 0, "")}
PROCESSES = {1: ("tea-1", 4711, "MainProcess", 1_700_000_000_000_000, "shop.py"), 2: ("tea-1", 99, "", 0, "")}
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def value_of(any_value):
    """Give the Python value of an AnyValue."""
    kind = any_value.WhichOneof("value")
    if kind is None:
        return UNSET
    if kind == "array_value":
        return [value_of(item) for item in any_value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: value_of(item.value) for item in any_value.kvlist_value.values}
    return getattr(any_value, kind)


def attributes_of(message):
    """Give the attributes of a resource or a record, each of which has to be there once."""
    names = [attribute.key for attribute in message.attributes]
    assert len(set(names)) == len(names)
    return {attribute.key: value_of(attribute.value) for attribute in message.attributes}


def encoded(batch, **attributes):
    """Encode a batch, and parse what came of it."""
    return ExportLogsServiceRequest.FromString(encode(batch, batch.rows, attributes))


def row_of(row_id=1, created_us=1_700_000_000_123_456, levelno=20, source_id=1, process_id=1, **fields):
    """Make a row as a spool reads it."""
    names = ("thread", "thread_name", "task_name", "message", "exc_type", "exc_text", "stack_info", "attributes")
    return (row_id, created_us, levelno, source_id, process_id, *({"message": "", **fields}.get(n) for n in names))


def record_of(drops=None, **fields):
    """Send one row, and give the record that arrives."""
    row = row_of(**fields)
    batch = OutgoingBatch(0, [row], sources=SOURCES, processes=PROCESSES, levels=LEVELS, drops=drops or {})
    return encoded(batch).resource_logs[0].scope_logs[0].log_records[0]


def test_a_logged_record_arrives(path, make_handler, logger):
    """A record that has all that a record can have arrives with all of it, under the names of the conventions."""
    logger.addHandler(make_handler())
    try:
        raise ValueError("no tea")
    except ValueError:
        logger.exception("order %d failed", 42, stack_info=True, extra={"customer": "c-17"})
    logger.handlers[0].flush()
    spool = Spool(str(path), "x", say=print)
    batch = spool.read(10, 1 << 20)
    spool.close()

    request = encoded(batch)

    (resource_logs,) = request.resource_logs
    (scope_logs,) = resource_logs.scope_logs
    (record,) = scope_logs.log_records
    resource, attributes = attributes_of(resource_logs.resource), attributes_of(record)
    assert logger.name == scope_logs.scope.name
    assert (socket.gethostname(), os.getpid()) == (resource["host.name"], resource["process.pid"])
    assert ("order 42 failed", 17, "ERROR") == (record.body.string_value, record.severity_number, record.severity_text)
    assert batch.rows[0][1] * 1000 == record.time_unix_nano == record.observed_time_unix_nano
    assert "test_a_logged_record_arrives" == attributes["code.function.name"]
    assert __file__ == attributes["code.file.path"]
    assert "MainThread" == attributes["thread.name"]
    assert ("ValueError", "no tea") == (attributes["exception.type"], attributes["exception.message"])
    assert attributes["exception.stacktrace"].startswith("Traceback")
    assert attributes["code.stacktrace"].startswith("Stack")
    assert "c-17" == attributes["customer"]


def test_names_are_those_of_the_conventions():
    """Every attribute of a row stands in OpenTelemetry's semantic conventions, but the name of an asyncio task."""
    conventions = pytest.importorskip("opentelemetry.semconv._incubating.attributes", reason="needs them to compare")
    known = set()
    for module in ("code", "exception", "host", "log", "process", "service", "thread"):
        names = vars(__import__(f"{conventions.__name__}.{module}_attributes", fromlist=["*"]))
        known |= {value for name, value in names.items() if name.isupper() and isinstance(value, str)}
    row = row_of(thread=1, thread_name="t", task_name="a", exc_type="E", exc_text="E: m", stack_info="s")
    request = encoded(OutgoingBatch(0, [row], sources=SOURCES, processes=PROCESSES, levels=LEVELS))
    record = request.resource_logs[0].scope_logs[0].log_records[0]

    assert {"task_name"} == set(attributes_of(record)) - known
    assert {"process_name"} == set(attributes_of(request.resource_logs[0].resource)) - known


@pytest.mark.parametrize(
    ("levelno", "number"),
    [(10, 5), (11, 6), (19, 8), (20, 9), (25, 12), (30, 13), (40, 17), (50, 21), (53, 24), (99, 24), (2**62, 24)],
)
def test_severity_numbers_are_those_of_the_sdk(levelno, number):
    """A level has the severity number that OpenTelemetry's SDK gives it."""
    assert number == severity_number(levelno)


def test_severity_below_debug():
    """A level below DEBUG, for which the SDK has no number, is TRACE; 0 and less say nothing."""
    assert [1, 1, 0, 0] == [severity_number(levelno) for levelno in (9, 1, 0, -5)]


def test_a_level_is_called_by_its_name():
    """The severity text is the name of the level, which the batch has for each of its rows."""
    assert "CRITICAL" == record_of(levelno=50).severity_text


@pytest.mark.parametrize("created_us", [0, -1, 2**63 - 1])
def test_a_time_that_otlp_cannot_hold_is_unknown(created_us):
    """OTLP's times begin after 1970 and end in 2554; a record of another time has none, which is 0."""
    assert 0 == record_of(created_us=created_us).time_unix_nano


def test_rows_share_resources_and_scopes():
    """A process is one resource of a request, and a logger one scope of it, wherever its rows stand."""
    rows = [row_of(n, source_id=1 + n % 2, process_id=1 + n // 3) for n in range(1, 6)]

    request = encoded(OutgoingBatch(0, rows, sources=SOURCES, processes=PROCESSES, levels=LEVELS))

    scopes = [[scope.scope.name for scope in resource.scope_logs] for resource in request.resource_logs]
    assert [["shop", "shop.orders"], ["shop", "shop.orders"]] == scopes


def test_the_service_is_the_program():
    """Without a name given the service is the program that logged, or unknown where that is not known."""
    rows = [row_of(1, process_id=1), row_of(2, process_id=2)]

    request = encoded(OutgoingBatch(0, rows, sources=SOURCES, processes=PROCESSES, levels=LEVELS))

    known, unknown = (attributes_of(resource.resource) for resource in request.resource_logs)
    assert {
        "service.name": "shop.py",
        "host.name": "tea-1",
        "process.pid": 4711,
        "process.executable.name": "shop.py",
        "process.creation.time": "2023-11-14T22:13:20.000000Z",
        "process_name": "MainProcess",
    } == known
    assert {"service.name": "unknown_service", "host.name": "tea-1", "process.pid": 99} == unknown


@pytest.mark.parametrize("name", ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"])
def test_attributes_that_cannot_be_sent(name):
    """What is not UTF-8 is refused at once, by the names of the settings; protobuf raised an error that named none."""
    with pytest.raises(ValueError, match="OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES is not UTF-8"):
        environment_attributes({name: "a=\udcff"})


def test_attributes_of_the_environment_are_those_of_every_resource():
    """OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME are added; the latter wins, and the option over both."""
    environment = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment.name=test%20bed, x = y "}

    assert {"service.name": "a", "deployment.environment.name": "test bed", "x": "y"} == environment_attributes(
        environment
    )
    environment["OTEL_SERVICE_NAME"] = "b"
    assert "b" == environment_attributes(environment)["service.name"]
    assert "c" == environment_attributes(environment, "c")["service.name"]
    batch = OutgoingBatch(0, [row_of()], sources=SOURCES, processes=PROCESSES, levels=LEVELS)
    assert "d" == attributes_of(encoded(batch, **{"host.name": "d"}).resource_logs[0].resource)["host.name"]


@pytest.mark.parametrize("text", ["a", "=b", "a=1,b"])
def test_a_list_that_is_none_is_refused(text):
    """An entry without a name or an equals sign is an error that shows it."""
    with pytest.raises(ValueError, match=r"OTEL_X: entry \d is not name=value"):
        pairs("OTEL_X", text)


def test_uids_tell_rows_apart():
    """The uid begins with the row's id; another row, time or process gives another uid, and nothing else does."""
    rows: list[dict] = [{}, {"row_id": 2}, {"created_us": 5}, {"process_id": 2}, {"message": "x", "source_id": 2}]

    uids = [attributes_of(record_of(**row))["log.record.uid"] for row in rows]

    assert uids[0].startswith(f"1-{1_700_000_000_123_456:x}-")
    assert uids[0] == uids[4]
    assert 4 == len(set(uids))


def test_uids_tell_logs_apart(path, make_handler, logger):
    """
    A record that one program logs into two files has a uid in each, also where both files give it the same id.

    The uids were equal, and an engine that removes duplicates by them dropped rows of one of the logs.
    """
    handlers = [make_handler(path.with_name(name)) for name in ("all.db", "shop.db")]
    for handler in handlers:
        logger.addHandler(handler)
    logger.info("order %d", 1)
    uids = []
    for handler in (*handlers, handlers[0]):
        handler.flush()
        spool = Spool(handler.filename, "x", say=print)
        batch = spool.read(10, 1 << 20)
        spool.close()
        uids += [attributes_of(encoded(batch).resource_logs[0].scope_logs[0].log_records[0])["log.record.uid"]]

    assert uids[0] == uids[2]
    assert 2 == len(set(uids))


@pytest.mark.parametrize(
    ("exc_type", "exc_text", "message"),
    [
        ("ValueError", "Traceback (most recent call last):\n  File\nValueError: no tea", "no tea"),
        ("ValueError", "ValueError: one\ntwo", "one\ntwo"),
        ("__main__.Oops", "Traceback\nOops: x", "x"),
        ("shop.Oops", "Traceback\nKeyError: 1\n\nDuring handling\n\nTraceback\nshop.Oops: x", "x"),
        ("ValueError", "Traceback\nValueError", None),
        ("ValueError", "Trace <cut: 9000 characters>", None),
    ],
)
def test_the_message_of_an_exception_stands_in_its_traceback(exc_type, exc_text, message):
    """The message is what stands behind the class at the end of the traceback, if it is there."""
    assert message == exception_message(exc_type, exc_text)
    assert message == attributes_of(record_of(exc_type=exc_type, exc_text=exc_text)).get("exception.message")


def test_extra_keeps_its_types():
    """What was given as `extra` arrives as what it is: text, numbers, truth, nothing, lists and objects."""
    extra = {"t": "ä", "i": -5, "f": 1.5, "b": True, "n": None, "l": [1, "x", []], "o": {"k": {"m": 1}}, "big": 2**64}

    attributes = attributes_of(record_of(attributes=json.dumps(extra)))

    assert UNSET is attributes["n"]
    expected = {**extra, "n": UNSET, "big": str(2**64)}
    assert expected == {name: attributes[name] for name in extra}
    assert [int, float, bool] == [type(attributes[name]) for name in "ifb"]


def test_a_name_that_is_taken_is_moved():
    """
    An `extra` of a name that the row itself has, or of none, is sent under `extra.`: names are unique.

    Two attributes had one name where `extra` had that one, too.
    """
    extra = '{"code.line.number": 1, "": 2, "thread.id": 3, "extra.": 4, "extra.extra.": 5, "dropped_since": 6}'
    attributes = attributes_of(record_of(attributes=extra, thread=7))

    assert (4, 5, 2) == (attributes["extra."], attributes["extra.extra."], attributes["extra.extra.extra."])
    assert 6 == attributes["extra.dropped_since"]
    assert (17, 1) == (attributes["code.line.number"], attributes["extra.code.line.number"])
    assert (7, 3) == (attributes["thread.id"], attributes["extra.thread.id"])


def test_deep_attributes_do_not_break_the_parser():
    """Below 20 levels what is left is sent as JSON text, because parsers of protobuf stop at a depth of 100."""
    deep = json.loads('{"a":' * 300 + "1" + "}" * 300)

    value = attributes_of(record_of(attributes=json.dumps({"deep": deep, "lists": json.loads("[" * 90 + "]" * 90)})))

    depth, found = 0, value["deep"]
    while isinstance(found, dict):
        depth, found = depth + 1, found["a"]
    assert 20 == depth
    assert 280 == found.count("{")


@pytest.mark.parametrize("text", ["{", "[1]", "null", '{"x": "\\ud800"}', '{"x": ' + "9" * 5_000 + "}"])
def test_attributes_that_the_handler_did_not_write_are_sent_as_they_are(text):
    """Attributes that are no JSON object, or hold what protobuf does not take, are sent as one text."""
    attributes = attributes_of(record_of(attributes=text))

    assert text == attributes["attributes"]
    assert "x" not in attributes


@pytest.mark.parametrize(
    ("extra", "flags"),
    [
        ({"trace_id": "ab" * 16, "span_id": "cd" * 8, "trace_flags": "01"}, 1),
        ({"trace_id": "ab" * 16, "span_id": "cd" * 8, "trace_flags": 1}, 1),
        ({"otelTraceID": "ab" * 16, "otelSpanID": "cd" * 8, "otelTraceSampled": True}, 1),
        ({"otelTraceID": "AB" * 16, "otelSpanID": "CD" * 8, "otelTraceSampled": False}, 0),
    ],
)
def test_trace_and_span_move_to_their_fields(extra, flags):
    """A trace and a span that the record carries are those of the OTLP record, and no attributes any more."""
    record = record_of(attributes=json.dumps({**extra, "x": 1}))

    assert (b"\xab" * 16, b"\xcd" * 8, flags) == (record.trace_id, record.span_id, record.flags)
    assert set() == set(extra) & set(attributes_of(record))
    assert 1 == attributes_of(record)["x"]


def test_what_is_no_trace_stays_an_attribute():
    """Ids of another length, of no hexadecimal digits or of zeros only are attributes as any other."""
    for value in ("abc", "zz" * 16, "00" * 16, "ab " * 10 + "ab", 5, None):
        record = record_of(attributes=json.dumps({"trace_id": value}))
        assert b"" == record.trace_id
        assert "trace_id" in attributes_of(record)


@pytest.mark.parametrize("flags", ["  ", 256, -1, True])
def test_what_is_no_flags_is_an_attribute(flags):
    """Blanks, or a number of more bits, are no flags of a trace, and no reason to send all attributes as one text."""
    record = record_of(attributes=json.dumps({"trace_id": "ab" * 16, "trace_flags": flags, "x": 1}))

    assert (b"\xab" * 16, 0) == (record.trace_id, record.flags)
    assert (flags, 1) == (attributes_of(record)["trace_flags"], attributes_of(record)["x"])


def test_no_trace_is_no_attribute():
    """The "0" that OpenTelemetry's instrumentation of logging writes where there is no span is left out."""
    record = record_of(attributes='{"otelTraceID": "0", "otelSpanID": "0", "otelServiceName": ""}')

    assert (b"", b"") == (record.trace_id, record.span_id)
    assert {"otelServiceName"} == {name for name in attributes_of(record) if name.startswith("otel")}


def test_a_drop_warning_carries_its_ledger(path, make_handler, logger):
    """The warning of a gap arrives with the counts of the ledger, so the far end sees what is missing, and whose."""
    handler = make_handler(capacity=3, reserve=0, fair_share=1, batch_size=100, flush_interval=3_600)
    logger.addHandler(handler)
    child = logger.getChild("child")
    for number in range(5):
        logger.info("%d", number)
    child.error("refused")
    handler.close()
    spool = Spool(str(path), "x", say=print)
    batch = spool.read(10, 1 << 20)
    spool.close()

    records = [
        record
        for scope in encoded(batch).resource_logs[0].scope_logs
        if scope.scope.name == "sqlite_log_handler"
        for record in scope.log_records
    ]

    attributes = attributes_of(records[-1])
    assert logging.WARNING // 10 * 4 + 1 == records[-1].severity_number
    assert (3, 3) == (attributes["dropped"], attributes["dropped_total"])
    assert {"queue_full": 3} == attributes["dropped_by_cause"]
    assert {logger.name: 2, child.name: 1} == attributes["dropped_by_logger"]
    assert {"INFO": 2, "ERROR": 1} == attributes["dropped_by_level"]
    assert attributes["dropped_since"] <= attributes["dropped_until"]
    assert attributes["dropped_since"].endswith("Z")
