"""
From a `logging.LogRecord` to a row: a flat tuple of atoms, made on the thread that logs.

`make_row` is pure: no clock, no lock, no I/O.
It runs before the record leaves the caller, because later is too late: arguments change, frames and the
caller's objects would be kept alive, and another thread would call the caller's code.

A row begins with the five fields that the queue works by (see `_write.queue`); the others are only carried.
Its source and its thread are interned: the row holds a reference to one tuple shared by all rows of that call
site, or of that thread. Only so do 100,000 rows of 50 characters fit into 33 MB.

Nothing that a program logs may make a batch fail, so a row holds only what SQLite takes: `str` that encodes to
UTF-8 and has no NUL in it, `int` within 64 bits, finite `float`, None. What cannot be kept becomes a marker.
"""

import copy
import logging
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from logging import LogRecord
from typing import Any, Final, TypeAlias

from sqlite_log_handler._write import plain
from sqlite_log_handler._write.plain import (
    NAME_LENGTH,
    clean,
    cut,
    escape,
    exact,
    json_text,
    shares,
    short_repr,
    shown,
    utf8_length,
    write_json,
)

# (logger, pathname, lineno, func, template)
Source: TypeAlias = tuple[str, str, int, str, str]
# (process, process_name, thread, thread_name)
Thread: TypeAlias = tuple[int, str, int | None, str | None]
PackedRow: TypeAlias = tuple[
    int,
    float,
    Source,
    int,
    int,
    Thread,
    str | None,
    str,
    str | None,
    str | None,
    str | None,
    str | None,
]
LEVELNO: Final = 0
CREATED: Final = 1  # seconds since 1970, as in the record
SOURCE: Final = 2
SIZE: Final = 3  # in SIZE_UNITs of memory
MARKS: Final = 4  # TRUNCATED, MALFORMED, both or none
THREAD: Final = 5
TASK_NAME: Final = 6
MESSAGE: Final = 7
EXC_TYPE: Final = 8
EXC_TEXT: Final = 9
STACK_INFO: Final = 10
ATTRIBUTES: Final = 11  # a JSON object

TRUNCATED: Final = plain.TRUNCATED
MALFORMED: Final = plain.MALFORMED

# CPython keeps one object for each int up to 256. In units of 64 bytes a size is such an int up to 16 KiB, and takes
# no memory of its own; in bytes it would take 32 bytes a row, a tenth of the row.
_SIZE_BITS = 6
SIZE_UNIT = 1 << _SIZE_BITS

# What a row takes with an empty message: tuple 136, created 24, slot of the deque 8, str 49; malloc rounds each up.
_ROW_BYTES = 240
_TEXT_BYTES = 56
_ROUND_UP = _ROW_BYTES + SIZE_UNIT - 1

MAX_RECORD_BYTES = 64 * 1024

# Beyond it, microseconds do not fit into 64 bits.
_MAX_SECONDS = 9e12
_MAX_SQUARE = _MAX_SECONDS * _MAX_SECONDS

# The name of a thread stands in each row of the file, though only once in memory. Up to this many bytes are
# within what is counted for every row; a longer name is counted in each row.
SHORT_NAME = 128

# A program has some thousand call sites at most; made-up logger names must not make the process grow.
_INTERNED = 4_096
_sources: dict[object, Source] = {}

# A call site has one template, and one that logs for others (a helper without `stacklevel`) some tens. Where a program
# makes up more, the call site alone is kept, because each template is a line in the file: no more than this many of a
# call site, and `_INTERNED` of a process.
_TEMPLATES_OF_A_SITE = 100
_templates: set[object] = set()
_template_counts: dict[object, int] = {}
_threads: dict[object, Thread] = {}

# Who logs at which level from where: what a row of the same call site and the same thread holds again.
_known: dict[object, tuple[int, Source, Thread]] = {}

process_id = os.getpid()

# Python 3.12 came with it; an attribute of that name is `extra` before.
_WITHOUT_TASK_NAME = sys.version_info < (3, 12)

_PLAIN = vars(logging.LogRecord("", 0, "", 0, "", (), None))
_PLAIN_LENGTH = len(_PLAIN)
_LAST_PLAIN = next(reversed(_PLAIN))
_STANDARD = frozenset(_PLAIN) | {"message", "asctime", "taskName", "getMessage"}

# Names of attributes that are not kept as they are; see `_extra`.
_SPECIAL = frozenset(("extra", "otelTraceID", "getMessage"))

# What SQLite takes as it is, and what calls no code of the program's when it is hashed.
_PLAIN_TYPES = frozenset((str, int, type(None)))

_default_formatter = logging.Formatter()


def _standard_get_message() -> Any:
    """Return what `LogRecord.getMessage` is in the standard library; None if a program has replaced it already."""
    function = LogRecord.getMessage
    code = getattr(function, "__code__", None)
    return function if code and code.co_filename == logging.getLogger.__code__.co_filename else None


# As long as it is this one, the quick way formats the message by itself.
_get_message = _standard_get_message()


def make_row(
    record: logging.LogRecord, formatter: logging.Formatter | None = None, max_bytes: int = MAX_RECORD_BYTES
) -> PackedRow:
    """
    Build the row of `record`. No Exception comes out of it, whatever the record holds.

    Args:
        record: It is not changed, except by the formatter as any handler's would.
        formatter: Gives the message. The traceback is kept out of it: it has a field of its own.
        max_bytes: Message, traceback, stack and attributes take this many bytes of UTF-8 together at most.

    Raises:
        BaseException: What is no Exception (KeyboardInterrupt, SystemExit) belongs to the program and comes out.
    """
    message = None
    try:
        # The common record, in as few steps as can be (docs/performance.md has what each costs). A record with a part
        # that is missing, or is not what this expects, goes the long way.
        if (
            formatter is None
            and type(record) is LogRecord
            and LogRecord.getMessage is _get_message
            and type(record.msg) is str
        ):
            # LogRecord.getMessage(), without the call. A text without arguments may be made up, and is no template.
            template = record.msg if record.args else ""
            message = record.msg % record.args if record.args else record.msg
            known = _known.get((
                record.levelno, record.name, record.pathname, record.lineno, record.funcName, template,
                record.process, record.processName, record.thread, record.threadName,
            )) or _remember_call_site(record, template)  # fmt: skip
            created = record.created
            if (
                known is not None
                and type(message) is str
                and (size := len(message)) <= max_bytes
                and "\0" not in message
                and type(created) is float
                and created * created < _MAX_SQUARE
            ):
                levelno, source, thread = known
                # A filter may have deleted one of these and set an attribute of its own, and the number is the same.
                _ = record.levelname
                _ = record.filename
                _ = record.module
                _ = record.msecs
                _ = record.relativeCreated
                # The __dict__ last, because a record that has shown it is slower to read.
                if (
                    message.isascii()
                    and not record.exc_info
                    and not record.exc_text
                    and not record.stack_info
                    and (_WITHOUT_TASK_NAME or record.taskName is None)  # type: ignore[attr-defined]  # new in 3.12
                    and len(record.__dict__) == _PLAIN_LENGTH
                ):
                    size = size + _ROUND_UP >> _SIZE_BITS
                    return (levelno, created, source, size, 0, thread, None, message, None, None, None, None)
                size, task_name, text, exc_type, exc_text, stack_info, attributes = _less_common(
                    record, message, max_bytes
                )
                if size <= max_bytes:
                    size = size + _ROUND_UP >> _SIZE_BITS
                    return (
                        levelno, created, source, size, 0, thread, task_name, text, exc_type, exc_text, stack_info,
                        attributes,
                    )  # fmt: skip
    except Exception:  # noqa: BLE001 - the long way finds out what is wrong, and marks it
        message = None
    try:
        return _build_slowly(record, formatter, max_bytes, message)
    except Exception as error:  # noqa: BLE001 - RecursionError, MemoryError: keep what can be kept
        return marker_row(record, error)


def _less_common(
    record: logging.LogRecord, message: str, max_bytes: int
) -> tuple[int, str | None, str, str | None, str | None, str | None, str | None]:
    """
    Return the size of a record that has more than the common one, and its texts, from TASK_NAME to ATTRIBUTES.

    The size is above `max_bytes` if something has to be cut or marked, which this does not do.
    """
    marks = 0
    task_name = exc_type = exc_text = stack_info = attributes = None
    size = len(message)
    if not message.isascii():
        message = escape(message)
        size = _memory(message)
    values = record.__dict__
    if len(values) != _PLAIN_LENGTH:
        attributes, marks = _attributes(record, max_bytes)
        size += _memory(attributes)
    if record.exc_info or record.exc_text:
        exc_type, exc_text, malformed = _exception(record, _default_formatter)
        exc_text = exc_text and escape(exc_text[: max_bytes + 1])
        size += _memory(exc_type) + _memory(exc_text)
        marks |= malformed
    if record.stack_info is not None:
        stack_info = escape(shown(str, record.stack_info)[: max_bytes + 1])
        size += _memory(stack_info)
    if values.get("taskName") is not None:
        task_name = clean(values["taskName"])
        size += _memory(task_name)
    return max_bytes + 1 if marks else size, task_name, message, exc_type, exc_text, stack_info, attributes


def _attributes(record: logging.LogRecord, max_bytes: int) -> tuple[str | None, int]:
    attributes = _flat_attributes(record.__dict__, max_bytes)
    if attributes is not None:
        return attributes or None, 0
    if "getMessage" in record.__dict__:
        return None, MALFORMED  # the slow way calls it
    extra = _extra(record)
    return write_json(extra, max_bytes) if extra else (None, 0)


# The names that attributes had before, as JSON with the colon; "" for a name that is no attribute's.
_keys: dict[str, str] = {}


def _flat_attributes(values: dict[str, Any], max_bytes: int) -> str | None:
    """
    Write attributes that are short texts and numbers, as nearly all are; "" if there are none, None if others are.
    """
    names = islice(values, _PLAIN_LENGTH - 1, None)
    if next(names, None) is not _LAST_PLAIN:
        return None
    room = max_bytes
    parts = []
    for name in names:
        key = _keys.get(name)
        if key is None:
            key = _learn_key(name)
        if not key:
            if key is None:
                return None
            continue
        value = values[name]
        kind = type(value)
        if kind is str and len(value) <= room:
            room -= len(value)
            parts.append(key + json_text(value))
        elif (kind is int and -(2**63) <= value < 2**63) or (kind is float and value - value == 0.0):
            parts.append(f"{key}{value!r}")
        else:
            return None
    text = ", ".join(parts)
    if len(text) > max_bytes - 2 or "\\u0000" in text or escape(text) is not text:
        return None
    return "{" + text + "}" if text else ""


def _learn_key(name: object) -> str | None:
    """Remember a name of an attribute; None for one that has to be looked at each time."""
    if type(name) is not str or len(name) > SHORT_NAME or not name.isascii() or name in _SPECIAL:
        return None
    if len(_keys) >= _INTERNED:
        _keys.clear()
    key = _keys[name] = "" if name in _STANDARD or name.startswith("_") else f"{json_text(name)}: "
    return key


def marker_row(record: logging.LogRecord, error: BaseException) -> PackedRow:
    """Build the row of a record that could not be kept. Calls no code but ours."""
    try:
        values = object.__getattribute__(record, "__dict__")
    except AttributeError:
        values = {}  # no record at all
    name, levelno, created = values.get("name"), values.get("levelno"), values.get("created")
    return (
        integer(levelno) if type(levelno) is int else 0,
        _created(created)[0] if type(created) is float else 0.0,
        (escape(name[:NAME_LENGTH]) if type(name) is str else "?", "?", 0, "?", ""),
        (_ROW_BYTES + 4 * NAME_LENGTH) // SIZE_UNIT,
        MALFORMED,
        (os.getpid(), "?", None, None),
        None,
        f"<record not kept: {type(error).__name__}>",
        None,
        None,
        None,
        None,
    )


def _build_slowly(  # noqa: C901 - a list of fields, one after the other
    record: logging.LogRecord, formatter: logging.Formatter | None, max_bytes: int, message: Any
) -> PackedRow:
    if not vars(record).keys() >= _PLAIN.keys():
        # Somebody has deleted an attribute, or made the record by other means: what is missing is None.
        if "msg" not in vars(record):
            raise AttributeError(name="msg", obj=record)
        complete = LogRecord("", 0, "", 0, "", (), None)
        complete.__dict__.update({**dict.fromkeys(_PLAIN), **vars(record)})
        complete.created = vars(record).get("created", 0.0)
        record = complete
    extra = _extra(record)
    marks = 0
    template: Any = None
    try:
        template = record.msg if record.args else None
        if isinstance(record.msg, dict):
            # structlog: the event is the message, the rest of the dict its context, and what was raised.
            extra = {**_context(record.msg), **extra}
            message = template = extra.pop("event", None)
        if formatter is not None:
            message = formatter.format(_without_traceback(record))
        elif message is None or "getMessage" in vars(record):
            message = record.getMessage()
        message = exact(message)
    except Exception as error:  # noqa: BLE001 - "%d" % "x", a formatter that misses an attribute, a __str__ that raises
        message = _unformatted(record, error)
        marks |= MALFORMED

    exc_type, exc_text, malformed = _exception(record, formatter or _default_formatter)
    marks |= malformed
    attributes = None
    if extra:
        attributes, more_marks = write_json(extra, max_bytes)
        marks |= more_marks
    stack_info = None if record.stack_info is None else shown(str, record.stack_info)
    whole = (message, exc_text, stack_info)
    texts = [None if text is None else escape(text[: max_bytes + 1]) for text in whole]
    sizes = [0 if text is None else utf8_length(text) for text in (*texts, attributes)]
    if sum(sizes) > max_bytes:
        marks |= TRUNCATED
        limits = shares(sizes, max_bytes)
        for index, text in enumerate(texts):
            if text is not None and sizes[index] > limits[index]:
                texts[index] = cut(text, limits[index], len(whole[index] or ""))
        if sizes[-1] > limits[-1]:
            attributes, _ = write_json(extra, limits[-1])
    message, exc_text, stack_info = texts

    source, source_bytes = _source(record, template if type(template) is str else "")
    thread, thread_bytes = _thread(record)
    task_name = getattr(record, "taskName", None)
    task_name = None if task_name is None else clean(task_name)
    size = _ROW_BYTES + source_bytes + thread_bytes
    size += sum(map(_memory, (message, task_name, exc_type, exc_text, stack_info, attributes)))
    created, malformed = _created(record.created)
    levelno = integer(record.levelno)
    return (
        levelno,
        created,
        source,
        (size + SIZE_UNIT - 1) // SIZE_UNIT,
        marks | malformed,
        thread,
        task_name,
        message or "",
        exc_type,
        exc_text,
        stack_info,
        attributes,
    )


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`, or set on the record by a filter or a factory; without private names."""
    values = record.__dict__
    names: Iterator[str] = islice(values, _PLAIN_LENGTH - 1, None)
    if next(names, None) is not _LAST_PLAIN or type(record) is not LogRecord:
        # What LogRecord.__init__ sets comes first, because a dict keeps its order; but not here.
        names = iter(list(values))
    extra: dict[str, Any] = {}
    for name in names:
        if isinstance(name, str) and name not in _STANDARD and name[:1] != "_":
            extra[name] = values[name]
    if "extra" in extra and isinstance(extra["extra"], dict):
        # loguru hands all of its own down as one attribute of that name.
        extra = {**_public(extra.pop("extra")), **extra}
    if "otelTraceID" in extra and extra["otelTraceID"] == "0":
        # OpenTelemetry, outside of any span.
        for key in ("otelTraceID", "otelSpanID", "otelTraceSampled"):
            extra.pop(key, None)
    return extra


def _public(values: dict[Any, Any]) -> dict[str, Any]:
    named = ((clean(key), value) for key, value in list(values.items()))
    return {name: value for name, value in named if not name.startswith("_")}


def _context(event: dict[Any, Any]) -> dict[str, Any]:
    context = _public(event)
    if _raised(event):
        del context["exc_info"]
    return context


def _raised(event: dict[Any, Any]) -> Any:
    """Return what structlog was given as `exc_info`: it stays in the dict, for a processor that renders it."""
    exc_info = event.get("exc_info")
    return exc_info if exc_info is True or isinstance(exc_info, BaseException | tuple) else None


def _without_traceback(record: logging.LogRecord) -> logging.LogRecord:
    """Return what a formatter shall see: it would put the traceback into the message."""
    if record.exc_info or record.exc_text or record.stack_info:
        record = copy.copy(record)
        record.exc_info = record.exc_text = record.stack_info = None
    return record


def _unformatted(record: logging.LogRecord, error: Exception) -> str:
    text = shown(str, record.msg)
    if record.args:
        text = f"{text} {shown(short_repr, record.args)[:NAME_LENGTH]}"
    return f"{text} <not formatted: {type(error).__name__}: {shown(str, error)[:NAME_LENGTH]}>"


def _exception(record: logging.LogRecord, formatter: logging.Formatter) -> tuple[str | None, str | None, int]:
    exc_info: Any = record.exc_info
    try:
        if not exc_info and isinstance(record.msg, dict):
            exc_info = _raised(record.msg)
        if exc_info is True:
            exc_info = sys.exc_info()  # this is still the thread on which it was raised
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        if exc_info and exc_info[0] is not None:
            kind = exc_info[0]
            name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            try:
                return clean(name), exact(formatter.formatException(exc_info)), 0
            except ImportError:
                return clean(name), _bare_traceback(name, exc_info), 0
    except Exception as error:  # noqa: BLE001 - a formatException that raises, an exc_info that is none
        return None, f"<traceback not kept: {type(error).__name__}>", MALFORMED
    # Rendered already: by another handler, or before the record was sent here from another process.
    return None, shown(str, record.exc_text) if record.exc_text else None, 0


def _bare_traceback(name: str, exc_info: Any) -> str:
    """
    Render a traceback without the source: for that, `traceback` may import modules, which a program may be unable to.
    """
    lines = ["Traceback (most recent call last):"]
    _, error, traceback = exc_info
    while traceback is not None:
        code = traceback.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_name}')
        traceback = traceback.tb_next
    return "\n".join([*lines, f"{name}: {shown(str, error)}"])


def _memory(text: str | None) -> int:
    """Return the bytes that a queued text takes: SQLite makes CPython keep the UTF-8 of a text that is not ASCII."""
    if text is None:
        return 0
    return _TEXT_BYTES + (len(text) if text.isascii() else text.__sizeof__() + utf8_length(text))


# What many rows share -------------------------------------------------------------------------------------------------


def integer(value: object, default: int = 0) -> int:
    """Return `value` if SQLite can keep it as an integer, else `default`."""
    return int(value) if isinstance(value, int) and -(2**63) <= value < 2**63 else default


def microseconds(created: object) -> int:
    """Return a time as the file has it; 0 for one that is none."""
    return round(_created(created)[0] * 1e6)


def _created(value: object) -> tuple[float, int]:
    if isinstance(value, int | float) and abs(value) < _MAX_SECONDS:
        return float(value), 0
    return 0.0, MALFORMED


def _source(record: logging.LogRecord, template: str) -> tuple[Source, int]:
    site = (record.name, record.pathname, record.lineno, record.funcName)
    template = _kept(site, template) if template and _is_plain(site) else ""
    return _interned(_sources, (*site, template), _clean_source)


def _clean_source(key: tuple[Any, ...]) -> Source:
    name, pathname, lineno, func, template = key
    return (clean(name), clean(pathname), integer(lineno), clean(func or ""), clean(template))


def _kept(site: tuple[Any, ...], template: str) -> str:
    """Return the template that stands for a record in the file: cut, or "" where the program makes up templates."""
    template = template[:NAME_LENGTH]
    if (*site, template) not in _templates:
        if _has_enough_templates(site):
            return ""
        _templates.add((*site, template))
        _template_counts[site] = _template_counts.get(site, 0) + 1
    return template


def _has_enough_templates(site: tuple[Any, ...]) -> bool:
    return len(_templates) >= _INTERNED or _template_counts.get(site, 0) >= _TEMPLATES_OF_A_SITE


def _thread(record: logging.LogRecord) -> tuple[Thread, int]:
    key = (record.process, record.processName, record.thread, record.threadName)
    thread, size = _interned(_threads, key, _clean_thread)
    return thread, size + (_memory(thread[3]) if _has_long_name(thread) else 0)


def _has_long_name(thread: Thread) -> bool:
    return thread[3] is not None and utf8_length(thread[3]) > SHORT_NAME


def _clean_thread(key: tuple[Any, ...]) -> Thread:
    if is_new_process():
        raise NewProcess
    process, process_name, thread, thread_name = key
    return (
        integer(process, os.getpid()),
        clean(process_name or ""),
        None if thread is None else integer(thread),
        None if thread_name is None else clean(thread_name),
    )


def _remember_call_site(record: logging.LogRecord, template: str) -> tuple[int, Source, Thread] | None:
    """Remember that a call site logs from a thread, if both are interned; what is None has to go the long way."""
    site = (record.name, record.pathname, record.lineno, record.funcName)
    thread_key = (record.process, record.processName, record.thread, record.threadName)
    source_key = (*site, template[:NAME_LENGTH])
    source, thread, levelno = _sources.get(source_key), _threads.get(thread_key), record.levelno
    if source is None and template and source_key not in _templates and _has_enough_templates(site):
        source = _sources.get((*site, ""))
    if (
        source is None
        or thread is None
        or _has_long_name(thread)
        or type(levelno) is not int
        or levelno != integer(levelno)
    ):
        return None
    known = (levelno, source, thread)
    # Made-up and very long templates would push the others out.
    if source[4] == template and all(type(part) in _PLAIN_TYPES for part in (*site, *thread_key)):
        if len(_known) >= _INTERNED:
            _known.clear()
        _known[(levelno, *site, template, *thread_key)] = known
    return known


class NewProcess(BaseException):  # not an Exception, which `make_row` would turn into a marker
    """
    This process was forked, and nothing has begun anew: no hook of Python's has run.
    """


def is_new_process() -> bool:
    """Tell whether this process was forked since `begin_anew`."""
    return os.getpid() != process_id


def begin_anew() -> None:
    """Begin anew in a forked child: a record without a process (`logging.logProcesses = False`) is of this one now."""
    global process_id  # noqa: PLW0603 - there is one process
    _threads.clear()
    _known.clear()
    process_id = os.getpid()


def _is_plain(key: tuple[Any, ...]) -> bool:
    """Tell whether a key is short and of exact types: others may have a __hash__ of their own, and would stay alive."""
    return all(type(part) in _PLAIN_TYPES and (type(part) is not str or len(part) <= NAME_LENGTH) for part in key)


def _interned(known: dict[Any, Any], key: tuple[Any, ...], make: Callable[[tuple[Any, ...]], Any]) -> tuple[Any, int]:
    """Return the one tuple for `key`, and what it adds to the memory of this row: nothing, unless it is new."""
    plain = _is_plain(key)
    value = known.get(key) if plain else None  # one lookup: another thread may clear it
    if value is not None:
        return value, 0
    value = make(key)
    if plain:
        if len(known) >= _INTERNED:
            known.clear()
        known[key] = value
    return value, 4 * SIZE_UNIT + sum(_memory(part) for part in value if isinstance(part, str))
