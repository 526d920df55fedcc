"""
From rows to the protobuf messages of OTLP.

docs/forward.md has the mapping as a table. Names come from OpenTelemetry's semantic conventions
(https://opentelemetry.io/docs/specs/semconv/), and from the view `logs` where the conventions have none.

A row costs some microseconds: the fields that the rows of a call site share are filled in once and copied in C, and the
rows of one process and logger share a resource and a scope.
"""

import json
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
# OpenTelemetry's instrumentation of `logging` sets the second.
_TRACE_IDS = ("trace_id", "otelTraceID")
_SPAN_IDS = ("span_id", "otelSpanID")


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


class Encoder:
    """Makes the body of a request from rows. Each resource gets `attributes`, see `environment_attributes`."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = attributes

    def __call__(self, batch: OutgoingBatch, rows: Sequence[SpoolRow]) -> bytes:
        """Encode some rows of `batch`."""
        request = ExportLogsServiceRequest()
        resources: dict[int, tuple[ResourceLogs, str]] = {}
        scopes: dict[tuple[int, str], ScopeLogs] = {}
        templates: dict[tuple[int, int], LogRecord] = {}
        for row in rows:
            row_id, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message = row[:9]
            if process_id not in resources:
                resources[process_id] = self._resource(request.resource_logs.add(), batch.processes[process_id])
            resource, process_key = resources[process_id]
            logger = batch.sources[source_id][0]
            if (process_id, logger) not in scopes:
                scope = scopes[process_id, logger] = resource.scope_logs.add()
                scope.scope.name = logger
            if (source_id, levelno) not in templates:
                templates[source_id, levelno] = _template(batch, source_id, levelno)

            record = scopes[process_id, logger].log_records.add()
            record.CopyFrom(templates[source_id, levelno])
            if 0 < created_us <= _LARGEST_TIME_US:
                record.time_unix_nano = record.observed_time_unix_nano = created_us * 1000
            record.body.string_value = message
            attributes = record.attributes
            _add(attributes, "log.record.uid", f"{row_id}-{created_us:x}-{process_key}")
            for name, value in (("thread.id", thread), ("thread.name", thread_name), ("task_name", task_name)):
                if value is not None:
                    _add(attributes, name, value)
            if row[9:] != _NOTHING_MORE:
                _add_details(record, *row[9:])
            if row_id - 1 in batch.drops:
                _add_drops(attributes, batch.drops[row_id - 1])
        return bytes(request.SerializeToString())

    def _resource(self, resource: ResourceLogs, process: Process) -> tuple[ResourceLogs, str]:
        """Fill in a resource, and return a key that no other process has."""
        host, pid, name, started_us, program = process
        attributes = {
            # Unknown for a process that sent its records to another one, which wrote them.
            "service.name": program or "unknown_service",
            "host.name": host,
            "process.pid": pid,
            "process.executable.name": program or None,
            "process.creation.time": _time(started_us) if started_us else None,
            "process_name": name or None,
            **self._attributes,
        }
        for key, value in attributes.items():
            if value is not None:
                _add(resource.resource.attributes, key, value)
        return resource, blake2b(repr(process[:4]).encode(), digest_size=6).hexdigest()


# exc_type, exc_text, stack_info and attributes of most rows.
_NOTHING_MORE = (None, None, None, None)


def _template(batch: OutgoingBatch, source_id: int, levelno: int) -> LogRecord:
    """Fill in what all rows of a call site and a level share."""
    _, pathname, lineno, func = batch.sources[source_id]
    record = LogRecord(
        severity_number=severity_number(levelno),  # type: ignore[arg-type]  # an int is what the enum is
        severity_text=batch.levels.get(levelno, f"Level {levelno}"),
    )
    for name, value in (("function.name", func), ("file.path", pathname), ("line.number", lineno)):
        if value:
            _add(record.attributes, f"code.{name}", value)
    return record


def _add_details(
    record: LogRecord, exc_type: str | None, exc_text: str | None, stack_info: str | None, extra: str | None
) -> None:
    """Add what most rows do not have: the exception, the stack and `extra`."""
    attributes = record.attributes
    message = exception_message(exc_type, exc_text) if exc_type and exc_text else None
    exception = (("exception.type", exc_type), ("exception.stacktrace", exc_text), ("exception.message", message))
    for name, value in (*exception, ("code.stacktrace", stack_info)):
        if value:
            _add(attributes, name, value)
    if extra is not None:
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
    record.trace_id = _take_id(values, _TRACE_IDS, 16)
    record.span_id = _take_id(values, _SPAN_IDS, 8)
    if record.trace_id:
        sampled, flags = values.get("otelTraceSampled"), values.get("trace_flags")
        if isinstance(sampled, bool):
            record.flags = int(values.pop("otelTraceSampled"))
        elif isinstance(flags, str) and len(flags) == 2 and _bytes(flags):  # noqa: PLR2004 - two digits
            record.flags = int(values.pop("trace_flags"), 16)


def _take_id(values: dict[str, Any], names: Sequence[str], length: int) -> bytes:
    for name in names:
        value = values.get(name)
        if value == "0":  # the instrumentation of `logging` found no span
            del values[name]
        elif isinstance(value, str) and len(value) == 2 * length:
            found = _bytes(value)
            if found and len(found) == length and any(found):  # `fromhex` accepts blanks
                del values[name]
                return found
    return b""


def _bytes(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _add_drops(attributes: Attributes, drops: Sequence[Drop]) -> None:
    """Add the ledger of a gap to its warning, under the names of `Stats`."""
    for index, name in ((2, "dropped_by_cause"), (3, "dropped_by_logger"), (4, "dropped_by_level")):
        counts: Counter[str] = Counter()
        for drop in drops:
            counts[str(drop[index])] += drop[5]
        _add(attributes, name, dict(counts))
    _add(attributes, "dropped_since", _time(min(drop[0] for drop in drops)))
    _add(attributes, "dropped_until", _time(max(drop[1] for drop in drops)))


def _add(attributes: Attributes, key: str, value: object) -> None:
    attribute = attributes.add()
    attribute.key = key
    _set(attribute.value, value, 0)


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
            entry = target.kvlist_value.values.add()
            entry.key = key
            _set(entry.value, item, depth + 1)


def _time(microseconds: int) -> str:
    """Write a time as the view `logs` does."""
    time = from_microseconds(microseconds)
    return str(microseconds) if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
