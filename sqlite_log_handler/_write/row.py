"""
From a `logging.LogRecord` to a row: a tuple of plain values, made on the thread that logs.

`make_row` uses no clock, no lock and no I/O. docs/design.md says why it runs before the record leaves its thread.

A row begins with the five fields that the queue reads (see `_write.queue`). All rows of a call site share one tuple for
it, and all rows of a thread another, so 100,000 rows of 50 characters fit into 33 MB.

Nothing that a program logs may make a batch fail, so a row holds only what SQLite takes: `str` that encodes to UTF-8
and has no NUL in it, `int` within 64 bits, finite `float`, None. A marker takes the place of anything else.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable
from itertools import islice
from logging import LogRecord
from os import getpid  # so that a test that replaces `os.getpid` does not look like a fork
from time import time  # same
from traceback import walk_tb

from sqlite_log_handler._logfile.typed import Any, Final
from sqlite_log_handler._write.plain import (
    MALFORMED,
    NAME_LENGTH,
    SHORTEST_MEMBER,
    TRUNCATED,
    brief,
    clean,
    cut,
    escape,
    exact,
    json_text,
    shares,
    shown,
    utf8_length,
    write_json,
)

Source = tuple[str, str, int, str, str]  # logger, pathname, lineno, func, template
Thread = tuple[int, str, int | None, str | None]  # process, process_name, thread, thread_name
PackedRow = tuple[int, float, Source, int, int, Thread, str | None, str, str | None, str | None, str | None, str | None]
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

# CPython keeps one object for each int up to 256. In units of 64 bytes, sizes up to 16 KiB are such ints and take no
# memory. In bytes, a size would take 32 bytes in each row, a tenth of it.
_SIZE_BITS = 6
SIZE_UNIT = 1 << _SIZE_BITS

# A row with an empty message takes: tuple 136, created 24, slot of the deque 8, str 49; malloc rounds each up.
_ROW_BYTES = 240
_TEXT_BYTES = 56
_ROUND_UP = _ROW_BYTES + SIZE_UNIT - 1

# Sizes of rows with a short message in ASCII, by its length: to look one up takes a fifth of working it out.
_SHORT = 1_024
_SIZES = [length + _ROUND_UP >> _SIZE_BITS for length in range(_SHORT)]

_MAX_SECONDS = 9e12  # beyond it, microseconds do not fit into 64 bits

# The rows of a thread share its name in memory, but each may store it in the file. Up to this many bytes are part of
# _ROW_BYTES; a longer name counts in each row.
SHORT_NAME = 128

# What rows share, by the attributes of a record from which it is made. The length of a key tells the three kinds apart:
# a Source, a Thread, and both with a level, for the quick way.
_shared: dict[tuple[Any, ...], Any] = {}

# A program has some thousand call sites at most; made-up logger names must not make the process grow.
_MOST_INTERNED = 4_096
_MOST_SHARED = 3 * _MOST_INTERNED
_MOST_LETTERS = 4_000_000  # in all of their names: that many call sites have a million
_letters = 0  # in the names that are shared now

# A call site has one template; one that logs for others (a helper without `stacklevel`) has some tens. Each template is
# a line in the file. So a call site keeps this many, and a process `_MOST_INTERNED`; later ones are left out.
_TEMPLATES_OF_A_SITE = 100
_templates: set[object] = set()
_template_counts: dict[object, int] = {}

own_pid = getpid()
own_start = time()
_default_formatter = logging.Formatter()

_WITHOUT_TASK_NAME = sys.version_info < (3, 12)  # before, an attribute of that name comes from `extra`
_PLAIN = vars(logging.LogRecord("", 0, "", 0, "", (), None))
_PLAIN_LENGTH = len(_PLAIN)
_LAST_PLAIN = next(reversed(_PLAIN))
_STANDARD = frozenset(_PLAIN) | {"message", "asctime", "taskName", "getMessage"}
_SPECIAL = frozenset(("extra", "otelTraceID", "getMessage"))  # attributes that `_extra` treats each in its own way
_PLAIN_TYPES = frozenset((str, int, type(None)))  # SQLite takes these, and to hash them calls no code of the program


def _standard_get_message() -> Any:
    """Return `LogRecord.getMessage`; None if a program has replaced that of the standard library already."""
    code = getattr(LogRecord.getMessage, "__code__", None)
    return LogRecord.getMessage if code and code.co_filename == logging.addLevelName.__code__.co_filename else None


# While `getMessage` is this one, the quick way formats the message itself.
_get_message = _standard_get_message()


def make_row(
    record: logging.LogRecord, formatter: logging.Formatter | None = None, max_bytes: int = 65_536
) -> PackedRow:
    """
    Build the row of `record`. Raises no Exception, whatever the record holds; KeyboardInterrupt and the like pass.

    The `formatter` gives the message, without the traceback, which has a field of its own; only it may change the
    record. Message, traceback, stack and attributes take `max_bytes` of UTF-8 together at most.
    """
    message = None
    try:
        # The common record, in few steps (docs/performance.md has what each costs). A record that lacks a part, or has
        # an odd one, goes the long way.
        if formatter is None and type(record) is LogRecord and LogRecord.getMessage is _get_message:
            # LogRecord.getMessage(), without the call. A text without arguments may be an f-string, and is no template.
            message, template, args = record.msg, "", record.args
            if args:
                if type(message) is str:
                    message, template = message % args, message
                else:
                    message = None
            try:
                known = _shared[
                    record.levelno, record.name, record.pathname, record.lineno, record.funcName, template,
                    record.process, record.processName, record.thread, record.threadName,
                ]  # fmt: skip
            except KeyError:
                known = _remember_call_site(record, template)
            created = record.created
            if (
                known is not None
                and type(message) is str
                and (size := len(message)) <= max_bytes
                and "\0" not in message
                and type(created) is float
                and 0.0 < created < _MAX_SECONDS
            ):
                # All of these must be there: a filter may have deleted one and added another, so that the count fits.
                _ = record.levelname
                _ = record.filename
                _ = record.module
                _ = record.msecs
                _ = record.relativeCreated
                # The __dict__ last, because CPython reads a record more slowly once somebody has asked for it.
                if (
                    message.isascii()
                    and record.exc_info is None
                    and record.exc_text is None
                    and record.stack_info is None
                    and (_WITHOUT_TASK_NAME or record.taskName is None)  # type: ignore[attr-defined]  # new in 3.12
                    and len(record.__dict__) == _PLAIN_LENGTH
                    and size < _SHORT
                ):
                    levelno, source, thread = known
                    return (levelno, created, source, _SIZES[size], 0, thread, None, message, None, None, None, None)
                row = _less_common(record, message, max_bytes, known)
                if row is not None:
                    return row
    except Exception:  # noqa: BLE001 - the long way finds out what is wrong, and marks it
        message = None
    try:
        return _build_slowly(record, formatter, max_bytes, message if type(message) is str else None)
    except Exception as error:  # noqa: BLE001 - RecursionError, MemoryError: keep what can be kept
        return marker_row(record, error)


def _less_common(
    record: logging.LogRecord, message: str, max_bytes: int, known: tuple[int, Source, Thread]
) -> PackedRow | None:
    """Build the row of a record that has more than the common one; None if something is to be cut or marked."""
    task_name = exc_type = exc_text = stack_info = attributes = None
    size = len(message)
    if not message.isascii():
        message = escape(message)
        size = _memory(message)
    values = record.__dict__
    if len(values) != _PLAIN_LENGTH:
        attributes = _flat_attributes(values, max_bytes)
        if attributes is None:
            return None
        attributes = attributes or None
        size += _memory(attributes)
    if record.exc_info or record.exc_text:
        exc_type, exc_text, malformed = _exception(record, _default_formatter)
        exc_text = exc_text and escape(exc_text[: max_bytes + 1])
        if malformed:
            return None
        size += _memory(exc_type) + _memory(exc_text)
    if record.stack_info is not None:
        stack_info = escape(shown(record.stack_info)[: max_bytes + 1])
        size += _memory(stack_info)
    if values.get("taskName") is not None:
        task_name = clean(values["taskName"])
        size += _memory(task_name)
    if size > max_bytes:
        return None
    levelno, source, thread = known
    size, created = size + _ROUND_UP >> _SIZE_BITS, record.created
    return (levelno, created, source, size, 0, thread, task_name, message, exc_type, exc_text, stack_info, attributes)


# Records with more attributes go the long way, which looks at no more of them than there is room for.
_MANY = 1_000

# Names of attributes, as JSON with the colon; "" for a name that is not stored.
_keys: dict[str, str] = {}


def _flat_attributes(values: dict[str, Any], max_bytes: int) -> str | None:
    """Write attributes if all are short texts and numbers, as nearly always, or return None; "" without attributes."""
    names = islice(values, _PLAIN_LENGTH - 1, None)
    if next(names, None) is not _LAST_PLAIN or len(values) > _MANY:
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
    """Remember the name of an attribute; None for one that needs a look each time."""
    if type(name) is not str or len(name) > SHORT_NAME or not name.isascii() or name in _SPECIAL:
        return None
    if len(_keys) >= _MOST_INTERNED:
        _keys.clear()
    key = _keys[name] = "" if name in _STANDARD or name.startswith("_") else f"{json_text(name)}: "
    return key


def marker_row(record: logging.LogRecord, error: BaseException) -> PackedRow:
    """Build the row that stands for a record that cannot be kept. Calls no code of the program."""
    try:
        values = object.__getattribute__(record, "__dict__")
    except AttributeError:
        values = {}  # no record at all
    name, levelno, (created, _) = values.get("name"), integer(values.get("levelno")), _created(values.get("created"))
    source = (escape(name[:NAME_LENGTH]) if type(name) is str else "?", "?", 0, "?", "")
    size = (_ROW_BYTES + 4 * NAME_LENGTH) // SIZE_UNIT
    message = f"<record not kept: {type(error).__name__}>"
    thread = (getpid(), "?", None, None)
    return (levelno, created, source, size, MALFORMED, thread, None, message, None, None, None, None)


def _build_slowly(
    record: logging.LogRecord, formatter: logging.Formatter | None, max_bytes: int, message: Any
) -> PackedRow:
    if not vars(record).keys() >= _PLAIN.keys():
        # A filter has deleted an attribute, or the record was made by other means: missing attributes are None, but
        # without `msg` there is nothing to keep. Of its own class, whose `getMessage` may hide something.
        complete = LogRecord.__new__(type(record) if issubclass(type(record), LogRecord) else LogRecord)
        complete.__dict__.update({**dict.fromkeys(_PLAIN.keys() - {"msg"}), "created": 0.0, **vars(record)})
        record = complete
    extra, hidden = _extra(record, max_bytes)
    marks = 0
    template: Any = None
    try:
        template = record.msg if record.args else None
        if isinstance(record.msg, dict):
            message, extra, more = _take_apart(record, extra, max_bytes)
            template, hidden = message, hidden + more
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
    stack_info = None if record.stack_info is None else shown(record.stack_info)
    whole = (message, exc_text, stack_info)
    texts = [None if text is None else escape(text[: max_bytes + 1]) for text in whole]
    sizes = [0 if text is None else utf8_length(text) for text in texts]
    attributes = None
    if extra:
        # The share of attributes that need more than it. What they do not need goes to the texts.
        room = shares([*sizes, max_bytes + 1], max_bytes)[-1]
        attributes, more_marks = write_json(extra, room, hidden)
        marks |= more_marks
    sizes.append(0 if attributes is None else utf8_length(attributes))
    if sum(sizes) > max_bytes:
        marks |= TRUNCATED
        limits = shares(sizes, max_bytes)
        for index, text in enumerate(texts):
            if text is not None and sizes[index] > limits[index]:
                texts[index] = cut(text, limits[index], len(whole[index] or ""))
    message, exc_text, stack_info = texts

    source_key, thread_key = _shared_keys(record, template if type(template) is str else "")
    source, source_bytes = _share(source_key, _clean_source)
    thread, thread_bytes = _share(thread_key, _clean_thread)
    task_name = None if (name := getattr(record, "taskName", None)) is None else clean(name)
    texts_bytes = sum(map(_memory, (message, task_name, exc_type, exc_text, stack_info, attributes)))
    created, malformed = _created(record.created)
    marks |= malformed
    text, levelno = message or "", integer(record.levelno)
    size = source_bytes + thread_bytes + _long_name_memory(thread) + texts_bytes + _ROUND_UP >> _SIZE_BITS
    return (levelno, created, source, size, marks, thread, task_name, text, exc_type, exc_text, stack_info, attributes)


def _extra(record: logging.LogRecord, room: int) -> tuple[dict[str, Any], int]:
    """Return what `extra`, a filter or a factory has set on the record, and the number of attributes beyond `room`."""
    values, hidden = _public(record.__dict__, len(_STANDARD) * SHORTEST_MEMBER + room)
    extra = {name: value for name, value in values.items() if name not in _STANDARD}
    of_loguru: Any = extra.get("extra")
    if issubclass(type(of_loguru), dict):
        # loguru passes its own attributes on as one of that name. They stay there if one of them would be lost.
        public, more = _public(of_loguru, room)
        if len(public) + more == len(of_loguru) and public.keys().isdisjoint(extra):
            del extra["extra"]
            extra, hidden = {**public, **extra}, hidden + more
    trace = extra.get("otelTraceID")
    if type(trace) is str and trace == "0":  # OpenTelemetry, outside of any span
        for key in ("otelTraceID", "otelSpanID", "otelTraceSampled"):
            extra.pop(key, None)
    return extra, hidden


def _public(values: dict[Any, Any], room: int) -> tuple[dict[str, Any], int]:
    """Return what has no private name, of as many items as `room` bytes hold, and how many others there are."""
    first = list(islice(values.items(), room // SHORTEST_MEMBER + 1))  # another thread may add some meanwhile
    named = ((name if type(name) is str else clean(name), value) for name, value in first)
    return {name: value for name, value in named if name[:1] != "_"}, len(values) - len(first)


def _take_apart(record: logging.LogRecord, extra: dict[str, Any], room: int) -> tuple[Any, dict[str, Any], int]:
    """
    Return the message and the attributes of a record whose message is a dict, and the number of names beyond `room`.

    The message is the event of structlog. It is None for any other dict, which is to be shown as a whole.
    """
    context, hidden = _public(record.msg, room)  # type: ignore[arg-type]  # a dict
    event = None
    if _is_of_structlog(record):
        event = context.pop("event", None)
        if _raised(record):
            context.pop("exc_info", None)
        twice = {name: value for name, value in context.items() if name in extra and extra[name] is not value}
        if twice:  # a filter has set these names as well
            context["structlog"] = twice
    return event, {**context, **extra}, hidden


def _is_of_structlog(record: logging.LogRecord) -> bool:
    """Tell whether the message is a dict of structlog's `wrap_for_formatter`, which sets two attributes beside it."""
    return isinstance(record.msg, dict) and {"_logger", "_name"} <= vars(record).keys()


def _raised(record: Any) -> Any:
    """Return the `exc_info` of a structlog event, which no processor has rendered and taken out of the dict."""
    exc_info = record.msg.get("exc_info") if _is_of_structlog(record) else None
    return exc_info if exc_info is True or isinstance(exc_info, BaseException | tuple) else None


def _without_traceback(record: logging.LogRecord) -> logging.LogRecord:
    """Return the record for a formatter, which would put a traceback into the message."""
    if record.exc_info or record.exc_text or record.stack_info:
        record = copy.copy(record)
        record.exc_info = record.exc_text = record.stack_info = None
    return record


def _unformatted(record: logging.LogRecord, error: Exception) -> str:
    text = shown(record.msg)
    if record.args is not None and (type(record.args) is not tuple or record.args):
        text = f"{text} {brief(record.args)}"
    return f"{text} <not formatted: {type(error).__name__}: {shown(error)[:NAME_LENGTH]}>"


def _exception(record: logging.LogRecord, formatter: logging.Formatter) -> tuple[str | None, str | None, int]:
    exc_info: Any = record.exc_info
    name = None
    try:
        exc_info = exc_info or _raised(record)
        if exc_info is True:
            exc_info = sys.exc_info()  # this is still the thread on which it was raised
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        if exc_info and exc_info[0] is not None:
            kind = exc_info[0]
            name = clean(
                kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            )
            try:
                return name, exact(formatter.formatException(exc_info)), 0
            except ImportError:
                return name, _bare_traceback(name, exc_info), 0
        # Another handler has rendered it already, or another process did before it sent the record here.
        return None, shown(record.exc_text) if record.exc_text else None, 0
    except Exception as error:  # noqa: BLE001 - a formatException that raises, an exc_info that is none
        return name, f"<traceback not kept: {type(error).__name__}>", MALFORMED


def _bare_traceback(name: str, exc_info: Any) -> str:
    """Render a traceback without source lines, for which `traceback` may import modules: after a chroot it cannot."""
    _, error, traceback = exc_info
    calls = ((frame.f_code, line) for frame, line in walk_tb(traceback))
    lines = (f'  File "{code.co_filename}", line {line}, in {code.co_name}' for code, line in calls)
    return "\n".join(["Traceback (most recent call last):", *lines, f"{name}: {shown(error)}"])


def _memory(text: str | None) -> int:
    """Return the bytes that a queued text takes: CPython keeps the UTF-8 for SQLite too, if it is not ASCII."""
    if text is None:
        return 0
    return _TEXT_BYTES + (len(text) if text.isascii() else text.__sizeof__() + utf8_length(text))


# What many rows share -------------------------------------------------------------------------------------------------


def integer(value: object) -> int:
    """Return `value` if SQLite can keep it as an integer, else 0."""
    number = int.__add__(value, 0) if issubclass(type(value), int) else 0  # type: ignore[operator]  # no subclass's code
    return number if -(2**63) <= number < 2**63 else 0


def microseconds(created: object) -> int:
    """Return a time as the file has it; 0 for a value that is no time."""
    return round(_created(created)[0] * 1e6)


def _created(value: object) -> tuple[float, int]:
    kind = type(value)
    if issubclass(kind, int | float):
        number = int.__add__(value, 0) if issubclass(kind, int) else float.__add__(value, 0.0)  # type: ignore[operator]
        if abs(number) < _MAX_SECONDS:
            return float(number), 0
    return 0.0, MALFORMED


def _shared_keys(record: logging.LogRecord, template: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the keys of the call site, with its template, and of the thread."""
    site = (record.name, record.pathname, record.lineno, record.funcName)
    return (*site, _kept(site, template)), (record.process, record.processName, record.thread, record.threadName)


def _clean_source(key: tuple[Any, ...]) -> Source:
    name, pathname, lineno, func, template = key
    return (clean(name), clean(pathname), integer(lineno), clean("" if func is None else func), clean(template))


def _kept(site: tuple[Any, ...], template: str) -> str:
    """Return the template that stands for a record in the file: cut, or "" if its call site has too many."""
    if not template or not _is_plain(site):
        return ""
    template = template[:NAME_LENGTH]
    if (*site, template) in _templates:
        return template
    if len(_templates) >= _MOST_INTERNED or _template_counts.get(site, 0) >= _TEMPLATES_OF_A_SITE:
        return ""
    _templates.add((*site, template))
    _template_counts[site] = _template_counts.get(site, 0) + 1
    return template


def _long_name_memory(thread: Thread) -> int:
    return _memory(thread[3]) if thread[3] is not None and utf8_length(thread[3]) > SHORT_NAME else 0


def _clean_thread(key: tuple[Any, ...]) -> Thread:
    if is_new_process():
        raise NewProcess
    process, process_name, thread, thread_name = key
    return (
        integer(process) or getpid(),
        clean("" if process_name is None else process_name),
        None if thread is None else integer(thread),
        None if thread_name is None else clean(thread_name),
    )


def _remember_call_site(record: logging.LogRecord, template: str) -> tuple[int, Source, Thread] | None:
    """Remember that a call site logs from a thread, if both are interned; with None the record goes the long way."""
    source_key, thread_key = _shared_keys(record, template)
    source, thread = _shared.get(source_key), _shared.get(thread_key)
    if source is None or thread is None or _long_name_memory(thread):
        return None
    known = (integer(record.levelno), source, thread)
    key = (record.levelno, *source_key, *thread_key)
    # Made-up and very long templates would push the others out.
    if source_key[-1] == template and _is_plain(key):
        _intern(key, known)
    return known


class NewProcess(BaseException):  # not an Exception, which `make_row` would turn into a marker
    """This process was forked without Python's hooks, and has not begun anew."""


def is_new_process() -> bool:
    """Tell whether this process was forked since `learn_pid`."""
    return getpid() != own_pid


def learn_pid() -> None:
    """Begin anew in a forked child: a record without a process (`logging.logProcesses = False`) is this child's now."""
    global own_pid, own_start
    _shared.clear()
    own_pid, own_start = getpid(), time()


def _is_plain(key: tuple[Any, ...]) -> bool:
    """Tell whether a key is short and of exact types: others may have code in their __hash__, and would stay alive."""
    return all(type(part) in _PLAIN_TYPES and (type(part) is not str or len(part) <= NAME_LENGTH) for part in key)


def _share(key: tuple[Any, ...], make: Callable[[tuple[Any, ...]], Any]) -> tuple[Any, int]:
    """Return the shared tuple for `key`, and the memory that it adds to this row: nothing, unless it is new."""
    plain = _is_plain(key)
    value = _shared.get(key) if plain else None  # one lookup: another thread may clear it
    if value is not None:
        return value, 0
    value = make(key)
    if plain:
        _intern(key, value)
    return value, 4 * SIZE_UNIT + sum(_memory(part) for part in value if isinstance(part, str))


def _intern(key: tuple[Any, ...], value: Any) -> None:
    """Share a value. Once there are too many keys, or too many letters in them, all that is shared is forgotten."""
    global _letters  # noqa: PLW0603 - as the cache
    _letters += letters_of(key)
    if len(_shared) >= _MOST_SHARED or _letters > _MOST_LETTERS:
        _shared.clear()
        _letters = 0
    _shared[key] = value


def letters_of(key: tuple[Any, ...]) -> int:
    """Count the letters of the names in a key."""
    return sum(len(part) for part in key if type(part) is str)
