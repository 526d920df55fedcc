"""
From rows to the protobuf messages of OTLP.

docs/forward.md has the mapping as a table. Names come from OpenTelemetry's semantic conventions
(https://opentelemetry.io/docs/specs/semconv/), and from the view `logs` where the conventions have none.

A row costs some microseconds: what the rows of a process, a call site and a level share is looked up once, and their
fields are filled in once and copied in C.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias
from urllib.parse import unquote

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from sqlite_log_handler._forward.spool import Drop, OutgoingBatch, Process, SpoolRow
from sqlite_log_handler._logfile.times import from_microseconds

Attributes: TypeAlias = Any  # a repeated KeyValue, for which protobuf has no public type

# Attributes that we set, and no name. Names must be unique, so one of these in `extra` is sent as "extra.NAME".
_OWN_NAMES = frozenset(
    {
        "", "dropped_by_cause", "dropped_by_level", "dropped_by_logger", "dropped_since", "dropped_until",
        "code.file.path", "code.function.name", "code.line.number", "code.stacktrace",
        "exception.message", "exception.stacktrace", "exception.type",
        "log.record.uid", "task_name", "thread.id", "thread.name",
    }
)  # fmt: skip

# Each level of JSON takes three of protobuf, and parsers stop at 100 (https://protobuf.dev/programming-guides/proto-limits/).
_DEEPEST = 20

_LARGEST_TIME_US = (2**64 - 1) // 1000

# We take the first one that is well formed (https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/);
# OpenTelemetry's instrumentation of `logging` sets the second. Zeros alone are none.
_TRACE_ID = ("trace_id", "otelTraceID"), re.compile("(?!0+$)[0-9A-Fa-f]{32}")
_SPAN_ID = ("span_id", "otelSpanID"), re.compile("(?!0+$)[0-9A-Fa-f]{16}")
_FLAGS = re.compile("[0-9A-Fa-f]{2}")
_HIGHEST_FLAGS = 0xFF


def severity_number(levelno: int) -> int:
    """
    Return OpenTelemetry's number for a level of `logging`.

        >>> [severity_number(level) for level in (10, 20, 30, 40, 50)]
        [5, 9, 13, 17, 21]

    Levels in between take the numbers in between, as in OpenTelemetry's SDK: 25 is INFO4, one step below WARN. The SDK
    has no number below DEBUG; we take TRACE, and none for 0, which stands for no level.
    """
    if levelno <= 0:
        return 0
    tens, ones = divmod(min(levelno, 59), 10)
    return 1 + 4 * tens + min(ones, 3) if tens else 1


def environment_attributes(environment: Mapping[str, str], service: str | None = None) -> dict[str, str]:
    """
    Return the attributes of every resource, from the environment variables for them; `service` overrides one of them.

    Raises:
        ValueError: `OTEL_RESOURCE_ATTRIBUTES` is not a list of name=value, or a value is not UTF-8.
    """
    attributes = pairs("OTEL_RESOURCE_ATTRIBUTES", environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = service or environment.get("OTEL_SERVICE_NAME")
    attributes |= {"service.name": name} if name else {}
    try:
        "".join([*attributes, *attributes.values()]).encode()
    except UnicodeEncodeError as error:
        message = "--service, OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES is not UTF-8, as a receiver needs it"
        raise ValueError(message) from error
    return attributes


def pairs(option: str, text: str) -> dict[str, str]:
    """
    Read `name=value,name=value`, with percent-encoded values, as the environment variables have it.

    Raises:
        ValueError: An entry has no name, or no equals sign.
    """
    found = {}
    for number, entry in enumerate(filter(str.strip, text.split(",")), 1):
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            # The message leaves it out, because it may be a secret.
            raise ValueError(f"{option}: entry {number} is not name=value; write name=value,name=value")
        found[unquote(name.strip())] = unquote(value.strip())
    return found


def encode(batch: OutgoingBatch, rows: Sequence[SpoolRow], environment: Mapping[str, str]) -> bytes:
    """Make the body of a request from some rows of `batch`. `environment` has attributes for each resource."""
    request = ExportLogsServiceRequest()
    resources: dict[int, ResourceLogs] = {}
    scopes: dict[tuple[int, str], ScopeLogs] = {}
    shared: dict[tuple[int, int, int], tuple[Any, LogRecord, str]] = {}
    for row in rows:
        row_id, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message = row[:9]
        if row[2:5] not in shared:
            process, logger = batch.processes[process_id], batch.sources[source_id][0]
            if process_id not in resources:
                resources[process_id] = request.resource_logs.add()
                _add_known(resources[process_id].resource.attributes, {**_attributes_of(process), **environment})
            if (process_id, logger) not in scopes:
                scope = scopes[process_id, logger] = resources[process_id].scope_logs.add()
                scope.scope.name = logger
            # A key that no other process has, nor this one in another log.
            process_key = blake2b(repr((batch.log_id, *process[:4])).encode(), digest_size=6).hexdigest()
            records = scopes[process_id, logger].log_records
            shared[row[2:5]] = records, _template(batch, source_id, levelno), process_key
        records, template, process_key = shared[row[2:5]]
        record = records.add()
        record.CopyFrom(template)
        if 0 < created_us <= _LARGEST_TIME_US:
            record.time_unix_nano = record.observed_time_unix_nano = created_us * 1000
        record.body.string_value = message
        attributes = record.attributes
        _add(attributes, "log.record.uid", f"{row_id}-{created_us:x}-{process_key}")
        _add_known(attributes, {"thread.id": thread, "thread.name": thread_name, "task_name": task_name})
        if any(row[9:]):  # most rows have nothing more
            _add_details(record, *row[9:])
        if row_id - 1 in batch.drops:
            _add_drops(attributes, batch.drops[row_id - 1])
    return bytes(request.SerializeToString())


def _attributes_of(process: Process) -> dict[str, object]:
    host, pid, name, started_us, program = process
    return {
        # Unknown for a process that sent its records to another one, which wrote them.
        "service.name": program or "unknown_service",
        "host.name": host,
        "process.pid": pid,
        "process.executable.name": program or None,
        "process.creation.time": _time(started_us) if started_us else None,
        "process_name": name or None,
    }


def _template(batch: OutgoingBatch, source_id: int, levelno: int) -> LogRecord:
    """Fill in what all rows of a call site and a level share."""
    _, pathname, lineno, func = batch.sources[source_id]
    record = LogRecord(
        severity_number=severity_number(levelno),  # type: ignore[arg-type]  # an int is what the enum is
        severity_text=batch.levels[levelno],
    )
    shared = {"function.name": func, "file.path": pathname, "line.number": lineno}
    _add_known(record.attributes, {f"code.{name}": value or None for name, value in shared.items()})
    return record


def _add_details(
    record: LogRecord, exc_type: str | None, exc_text: str | None, stack_info: str | None, extra: str | None
) -> None:
    """Add what most rows do not have: the exception, the stack and `extra`."""
    attributes = record.attributes
    message = exception_message(exc_type, exc_text) if exc_type and exc_text else None
    exception = {"exception.type": exc_type, "exception.stacktrace": exc_text, "exception.message": message}
    _add_known(attributes, {**exception, "code.stacktrace": stack_info})
    if extra:
        before = len(attributes)
        try:
            values = json.loads(extra)
            _take_trace(record, values)
            for name, value in values.items():
                key = name
                while key in _OWN_NAMES or (key != name and key in values):
                    key = f"extra.{key}"
                _add(attributes, key, value)
        except (AttributeError, RecursionError, TypeError, ValueError):
            # The handler did not write this: send the text unchanged.
            del attributes[before:]
            _add(attributes, "attributes", extra)


def exception_message(exc_type: str, exc_text: str) -> str | None:
    r"""
    Return the message of an exception, which is the end of its traceback; None if it is not there.

        >>> exception_message("ValueError", "Traceback (most recent call last):\n  ...\nValueError: no tea")
        'no tea'
    """
    # The traceback module leaves these out.
    name = exc_type.removeprefix("__main__.")
    _, found, message = f"\n{exc_text}".rpartition(f"\n{name}: ")
    return message if found else None


def _take_trace(record: LogRecord, values: dict[str, Any]) -> None:
    """Move trace and span from the attributes to the fields that the record has for them."""
    record.trace_id = _take_id(values, *_TRACE_ID)
    record.span_id = _take_id(values, *_SPAN_ID)
    if record.trace_id:
        sampled, flags = values.get("otelTraceSampled"), values.get("trace_flags")
        if isinstance(sampled, bool):
            record.flags = int(values.pop("otelTraceSampled"))
        elif isinstance(flags, str) and _FLAGS.fullmatch(flags):
            record.flags = int(values.pop("trace_flags"), 16)
        elif type(flags) is int and 0 <= flags <= _HIGHEST_FLAGS:  # protobuf takes no bool
            record.flags = values.pop("trace_flags")


def _take_id(values: dict[str, Any], names: Sequence[str], form: re.Pattern[str]) -> bytes:
    for name in names:
        value = values.get(name)
        if value == "0":  # the instrumentation of `logging` found no span
            del values[name]
        elif isinstance(value, str) and form.fullmatch(value):
            return bytes.fromhex(values.pop(name))
    return b""


def _add_drops(attributes: Attributes, drops: Sequence[Drop]) -> None:
    """Add the ledger of a gap to its warning, under the names of `Stats`."""
    for index, name in ((2, "dropped_by_cause"), (3, "dropped_by_logger"), (4, "dropped_by_level")):
        counts: Counter[str] = Counter()
        for drop in drops:
            counts[str(drop[index])] += drop[5]
        _add(attributes, name, dict(counts))
    _add(attributes, "dropped_since", _time(min(drop[0] for drop in drops)))
    _add(attributes, "dropped_until", _time(max(drop[1] for drop in drops)))


def _add(attributes: Attributes, key: str, value: object, depth: int = 0) -> None:
    attribute = attributes.add()
    attribute.key = key
    _set(attribute.value, value, depth)


def _add_known(attributes: Attributes, values: Mapping[str, object]) -> None:
    """Add attributes, but for those that are None."""
    for name, value in values.items():
        if value is not None:
            _add(attributes, name, value)


def _set(target: AnyValue, value: Any, depth: int) -> None:  # noqa: C901 - one line for each kind
    """Set a value of JSON."""
    kind = type(value)
    if kind is str:
        target.string_value = value
    elif kind is int:
        if -(2**63) <= value < 2**63:
            target.int_value = value
        else:
            target.string_value = str(value)
    elif kind is bool:
        target.bool_value = value
    elif kind is float:
        target.double_value = value
    elif value is None:
        target.SetInParent()
    elif depth == _DEEPEST:
        target.string_value = json.dumps(value, ensure_ascii=False)
    elif kind is list:
        target.array_value.SetInParent()
        for item in value:
            _set(target.array_value.values.add(), item, depth + 1)
    else:
        target.kvlist_value.SetInParent()
        for key, item in value.items():
            _add(target.kvlist_value.values, key, item, depth + 1)


def _time(microseconds: int) -> str:
    """Write a time as the view `logs` does."""
    time = from_microseconds(microseconds)
    return str(microseconds) if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
