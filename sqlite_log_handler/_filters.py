"""
Which rows one wants, as a condition in SQL.

Every condition is on the columns of `records` alone, so that it can stand in any query on them, whether that joins the
other tables or not. Every value is a parameter, and so is every name that a user gives.
"""

import contextlib
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict

from sqlite_log_handler._text import Term, escape_like, pattern_terms, text_terms
from sqlite_log_handler._times import microseconds, parse_time

Names: TypeAlias = str | Sequence[str]
Scalar: TypeAlias = str | int | float | bool | None


# What SQLite can keep as an integer.
LOWEST: Final = -(2**63)
HIGHEST: Final = 2**63 - 1
_EXACT: Final = 2**53


class FilterError(ValueError):
    """
    A filter that cannot be understood; the text says what can.
    """


class Filters(TypedDict, total=False):
    """
    What rows can be chosen by; all of it must hold. See docs/reader.md.
    """

    since: datetime | str | None
    until: datetime | str | None
    level: int | str | None
    logger: Names | None
    exclude: Names | None
    text: str | None
    pattern: str | None
    process: int | None
    thread: int | str | None
    task: str | None
    exception: str | None
    attributes: Mapping[str, Scalar] | None
    run: int | None
    after_id: int | None
    up_to_id: int | None


class Where(NamedTuple):
    """
    Filters, resolved against one file: a condition on `records`, its parameters, and bounds.

    The bounds of time stand in `sql` as well; those of id do not.
    """

    sql: str = "1"
    parameters: tuple[object, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    after_id: int = LOWEST
    up_to_id: int = HIGHEST


_RANGE: Final = re.compile(r"\s*(.*?)\s*\.\.\s*(.*?)\s*")
# Names that journalctl knows, and the file may not.
_LEVEL_NAMES: Final = {"ERR": logging.ERROR, "CRIT": logging.CRITICAL, "WARN": logging.WARNING, "FATAL": 50}


def where(connection: sqlite3.Connection, filters: Filters, now: datetime | None = None) -> Where:
    """
    Resolve `filters` against the file that is open.

    Args:
        connection: The file: levels have names in it, and runs are counted in it.
        filters: What is wanted.
        now: What `yesterday` and `-1h` are counted from; the present by default.

    Raises:
        FilterError: One of them cannot be understood.
        TypeError: There is no filter of that name.
    """
    unknown = sorted(set(filters) - Filters.__annotations__.keys())
    if unknown:
        message = f"there is no filter {unknown[0]!r}; there are {', '.join(Filters.__annotations__)}"
        raise TypeError(message)
    now = now or datetime.now().astimezone()
    since_us, until_us = _span(filters, now)
    terms: list[Term] = []
    # The unary plus keeps SQLite from the index: ids are read in order, and the index has given their bounds.
    if since_us is not None:
        terms.append(("+created_us >= ?", (since_us,)))
    if until_us is not None:
        terms.append(("+created_us <= ?", (until_us,)))
    given: Mapping[str, Any] = filters
    for name, make in _TERMS.items():
        if given.get(name) is not None:
            terms += make(connection, given[name])
    return Where(
        " AND ".join(sql for sql, _ in terms) or "1",
        tuple(parameter for _, parameters in terms for parameter in parameters),
        since_us,
        until_us,
        _integer("after_id", filters.get("after_id"), LOWEST),
        _integer("up_to_id", filters.get("up_to_id"), HIGHEST),
    )


def _level(connection: sqlite3.Connection, level: int | str) -> list[Term]:
    return [("records.levelno BETWEEN ? AND ?", level_range(connection, level))]


def _logger(_: sqlite3.Connection, names: Names) -> list[Term]:
    sql, parameters = below("logger", names)
    return [(f"source_id IN (SELECT id FROM sources WHERE {sql})", parameters)]  # noqa: S608 - no value in it


def _exclude(_: sqlite3.Connection, names: Names) -> list[Term]:
    sql, parameters = below("logger", names)
    return [(f"source_id NOT IN (SELECT id FROM sources WHERE {sql})", parameters)]  # noqa: S608 - same


def _process(_: sqlite3.Connection, pid: int) -> list[Term]:
    return [("process_id IN (SELECT id FROM processes WHERE pid = ?)", (_integer("process", pid),))]


def _run(connection: sqlite3.Connection, number: int) -> list[Term]:
    return [("process_id = ?", (run_id(connection, number),))]


def _thread(_: sqlite3.Connection, thread: int | str) -> list[Term]:
    number = _integer("thread", int(thread)) if str(thread).isdecimal() else None
    return [("(thread_name = ? OR thread = ?)", (str(thread), number))]


def _task(_: sqlite3.Connection, name: str) -> list[Term]:
    return [("task_name = ?", (name,))]


def _exception(_: sqlite3.Connection, name: str) -> list[Term]:
    return [(r"(exc_type = ? OR exc_type LIKE ? ESCAPE '\')", (name, f"%.{escape_like(name)}"))]


# What the ledger can be asked for: a record that was dropped has no text.
IN_LEDGER: Final = frozenset({"since", "until", "level", "logger", "exclude", "process", "run"})


def drops_where(connection: sqlite3.Connection, filters: Filters, now: datetime | None = None) -> Term:
    """
    Return the condition on `drops` that these filters come to; those that the ledger knows nothing of let all pass.
    """
    now = now or datetime.now().astimezone()
    _span(filters, now)
    terms: list[Term] = []
    given: Mapping[str, Any] = filters
    for name, make in _LEDGER_TERMS.items():
        if given.get(name) is not None:
            terms += make(connection, given[name], now)
    return " AND ".join(sql for sql, _ in terms) or "1", tuple(value for _, values in terms for value in values)


def _integer(name: str, value: int | None, default: int = 0) -> int:
    if value is None:
        return default
    if not LOWEST <= value <= HIGHEST:
        message = f"{name} {value} is beyond 64 bits: no row has it"
        raise FilterError(message)
    return value


def _moment(value: datetime | str | None, now: datetime) -> int | None:
    if value is None:
        return None
    try:
        return microseconds(value if isinstance(value, datetime) else parse_time(value, now))
    except ValueError as error:
        raise FilterError(str(error)) from error


def _span(filters: Filters, now: datetime) -> tuple[int | None, int | None]:
    """
    Return both bounds of time, in microseconds, and refuse those between which nothing can be.
    """
    since, until = filters.get("since"), filters.get("until")
    since_us, until_us = _moment(since, now), _moment(until, now)
    if since_us is not None and until_us is not None and since_us > until_us:
        message = f"since ({since}) is after until ({until}), so nothing is between them: swap them"
        raise FilterError(message)
    return since_us, until_us


def below(column: str, names: Names, others: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
    """
    Return the condition that a logger is one of `names`, or below one of them in the hierarchy, or one of `others`.
    """
    terms = [f"{column} = ?"] * len(others)
    parameters = [*others]
    for name in [names] if isinstance(names, str) else names:
        terms.append(f"{column} = ? OR substr({column}, 1, length(?) + 1) = ? || '.'")
        parameters += [name] * 3
    return f"({' OR '.join(terms) or '0'})", tuple(parameters)


def level_range(connection: sqlite3.Connection, level: int | str) -> tuple[int, int]:
    """
    Read `WARNING`, `30`, `INFO..WARNING`, `..INFO`: the lowest and the highest level that are meant.
    """
    both = _RANGE.fullmatch(str(level))
    if both is None:
        return _levelno(connection, str(level)), HIGHEST
    low, high = both.groups()
    lowest = _levelno(connection, low) if low else LOWEST
    highest = _levelno(connection, high) if high else HIGHEST
    if lowest > highest:
        message = f"{level!r} has no level in it: write the lower one first, {high}..{low}"
        raise FilterError(message)
    return lowest, highest


def _levelno(connection: sqlite3.Connection, name: str) -> int:
    try:
        number = int(name)
    except ValueError:
        pass
    else:
        return _integer("level", number)
    named = {str(name).upper(): int(levelno) for levelno, name in connection.execute("SELECT * FROM levels")}
    known = {**_LEVEL_NAMES, **named}
    if name.strip().upper() in known:
        return known[name.strip().upper()]
    names = ", ".join(sorted(named, key=named.__getitem__))
    message = f"{name!r} is no level of this log: write one of {names}, a number, or a range as INFO..ERROR"
    raise FilterError(message)


def run_id(connection: sqlite3.Connection, number: int) -> int:
    """
    Find the process that run `number` is: 0 the last that was started, -1 the one before, 1 the first.
    """
    # Where the start is not known (0), the records came from another process, and it is no run of its own.
    ids = [
        id_ for (id_,) in connection.execute("SELECT id FROM processes WHERE started_us > 0 ORDER BY started_us, id")
    ]
    index = number - 1 if number > 0 else len(ids) - 1 + number
    if not 0 <= index < len(ids):
        message = f"there is no run {number}: the log has {len(ids)}; 0 is the last, -1 the one before, 1 the first"
        raise FilterError(message)
    return int(ids[index])


# Attributes -----------------------------------------------------------------------------------------------------------

# No path is made of the key: in a path, quotes cannot be escaped. What is no JSON has no attributes.
_ATTRIBUTE: Final = """
EXISTS (
    SELECT 1 FROM json_each(CASE WHEN json_valid(attributes) THEN attributes END) AS attribute
    WHERE attribute.key = ? AND (
        (attribute.type IN ('integer', 'real') AND attribute.value = ?)
        OR CASE attribute.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'null' THEN 'null'
            ELSE CAST(attribute.value AS TEXT) END = ?
    )
)
"""


def _attributes(_: sqlite3.Connection, attributes: Mapping[str, Scalar]) -> list[Term]:
    return [_attribute(key, value) for key, value in attributes.items()]


def _attribute(key: str, value: Scalar) -> Term:
    text = value if isinstance(value, str) else json.dumps(value)
    number: float | None = None
    with contextlib.suppress(ValueError):
        # Beyond it floats leave integers out; those are compared as text.
        number = float(text) if abs(float(text)) < _EXACT else None
    return _ATTRIBUTE, (key, number, text)


# Text -----------------------------------------------------------------------------------------------------------------


def _text(_: sqlite3.Connection, text: str) -> list[Term]:
    return text_terms(text)


def _pattern(_: sqlite3.Connection, pattern: str) -> list[Term]:
    try:
        return pattern_terms(pattern)
    except re.error as error:
        message = f"{pattern!r} is no regular expression: {error}; a text as it is goes with -F or `text=`"
        raise FilterError(message) from error


# In this order in the condition: what costs most last, because SQLite looks at its terms from left to right.
_TERMS: Final[Mapping[str, Callable[[sqlite3.Connection, Any], list[Term]]]] = {
    "level": _level,
    "run": _run,
    "process": _process,
    "logger": _logger,
    "exclude": _exclude,
    "thread": _thread,
    "task": _task,
    "exception": _exception,
    "text": _text,
    "pattern": _pattern,
    "attributes": _attributes,
}

# The same for the ledger. A gap behind the last row that is not wanted belongs to what is.
# Of loggers beyond the first thousand of a tick it is not known whose records were dropped.
_LEDGER_TERMS: Final[Mapping[str, Callable[[sqlite3.Connection, Any, datetime], list[Term]]]] = {
    "since": lambda _, value, now: [("until_us >= ?", (_moment(value, now),))],
    "until": lambda _, value, now: [("since_us <= ?", (_moment(value, now),))],
    "after_id": lambda _, value, __: [("after_id >= ?", (_integer("after_id", value),))],
    "up_to_id": lambda _, value, __: [("after_id < ?", (_integer("up_to_id", value),))],
    "level": lambda connection, value, _: [("drops.levelno BETWEEN ? AND ?", level_range(connection, value))],
    "logger": lambda _, names, __: [below("logger", names, others=["(other)"])],
    "exclude": lambda _, names, __: [("NOT " + below("logger", names)[0], below("logger", names)[1])],
    "process": lambda connection, value, _: _process(connection, value),
    "run": lambda connection, value, _: _run(connection, value),
}
