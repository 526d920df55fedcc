"""
Turn filters into a condition in SQL.

The condition uses only columns of `records`, so it fits every query on that table, with or without joins. Each value
and each name from a user is a parameter.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import astuple, dataclass
from datetime import date, datetime, time
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict

from sqlite_log_handler._logfile.columns import LEVELS, text, whole
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import OTHER_LOGGERS
from sqlite_log_handler._logfile.times import HELP, from_microseconds, microseconds, parse_time
from sqlite_log_handler._read.conditions import condition_terms
from sqlite_log_handler._read.search import Term, attribute_terms, expression_terms, joined, number, text_terms
from sqlite_log_handler._read.templates import says_something

Names: TypeAlias = str | Collection[str]
Scalar: TypeAlias = str | int | float | bool | None
# Runs a statement on the file and returns its rows, as `Scan.all` does.
Ask: TypeAlias = Callable[..., list[Any]]


# The integers that SQLite can store.
LOWEST: Final = -(2**63)
HIGHEST: Final = 2**63 - 1


# Seconds: SQLite counts milliseconds in 32 bits.
_LONGEST_WAIT: Final = 2_000_000


class FilterError(ValueError):
    """A filter makes no sense; the text says which values do."""


@dataclass(frozen=True, slots=True)
class SharedSource:
    """What the rows of a pattern share, for `pattern_of`: it holds when the row is deleted, and in another file."""

    logger: str
    pathname: str
    lineno: int
    func: str
    template: str


# The columns of `sources` that these are.
SOURCE: Final = ", ".join([*map(text, ("logger", "pathname")), whole("lineno"), *map(text, ("func", "template"))])


@dataclass(frozen=True, slots=True)
class Start:
    """A run, for `run`: what a program of a host began in this time. `end_us` is when its next run began."""

    host: str
    program: str
    begin_us: int
    end_us: int


class Filters(TypedDict, total=False):
    """The filters on rows; a row must match all of them. See docs/reader.md."""

    since: datetime | date | str | None
    until: datetime | date | str | None
    level: int | str | None
    logger: Names | None
    exclude: Names | None
    text: str | None
    pattern: str | None
    process: int | None
    thread: int | str | None
    task: str | None
    exception: str | None
    source: str | None
    attributes: Mapping[str, Scalar] | None
    where: Names | None
    run: int | None
    pattern_of: int | None
    without: Mapping[str, Any] | None
    after_id: int | None
    up_to_id: int | None


class Where(NamedTuple):
    """
    Filters, resolved against one file: a condition on `records`, its parameters, and bounds.

    `sql` includes the bounds of time, but not the bounds of id.
    """

    sql: str = "1"
    parameters: tuple[object, ...] = ()
    since_us: int = LOWEST
    until_us: int = HIGHEST
    after_id: int = LOWEST - 1
    up_to_id: int = HIGHEST

    def narrowed(self, sql: str, *parameters: object) -> "Where":
        """Return the same with one more condition."""
        return self._replace(sql=f"{self.sql} AND {sql}", parameters=(*self.parameters, *parameters))


_SOURCE: Final = re.compile(r"(.+):(\d{1,18})", re.DOTALL)
# Names of levels that the file may lack: those of Python, which a program may have renamed, and those of journalctl.
_PYTHON: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_LEVEL_NAMES: Final = {**_PYTHON, "WARN": 30, "ERR": 40, "CRIT": 50, "FATAL": 50}


def where(ask: Ask, filters: Filters) -> Where:
    """Resolve `filters` against the file on which `ask` runs a statement."""
    given = _resolved(filters)
    since_us, until_us, after_id, up_to_id = map(given.get, ("since", "until", "after_id", "up_to_id"))
    return Where(
        *_terms(_TERMS, ask, given),
        LOWEST if since_us is None else since_us,
        HIGHEST if until_us is None else until_us,
        LOWEST - 1 if after_id is None else integer("after_id", after_id),
        HIGHEST if up_to_id is None else integer("up_to_id", up_to_id),
    )


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool)


_is_integer, _is_text, _is_either = _is(int), _is(str), _is(int, str)


def _is_names(value: object) -> bool:
    return _is_text(value) or (isinstance(value, Collection) and all(map(_is_text, value)))


def _is_source(value: object) -> bool:
    return isinstance(value, str) and _SOURCE.fullmatch(value) is not None


def _is_attributes(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(one, str | int | float | None) for key, one in value.items()
    )


# `date` includes `datetime`, its subclass.
_MOMENT: Final = (_is(date, str), f"a datetime, a date or a text: {HELP}")
_INTEGER: Final = (_is_integer, "an integer")
_NAMES: Final = (_is_names, "the name of a logger (str), or several in a list")
# SQLite stores UTF-8, which has no lone surrogates.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# Characters of all texts of a filter together: as JSON, no more than SQLite's limit for a value.
_LONGEST: Final = 64 * 1024
_ALLOWED: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "since": _MOMENT,
    "until": _MOMENT,
    "level": (_is_either, "a number, a name, or a range such as 'INFO..WARNING'"),
    "logger": _NAMES,
    "exclude": _NAMES,
    "text": (_is_text, "a str"),
    "pattern": (_is_text, "a regular expression as a str"),
    "process": _INTEGER,
    "thread": (_is_either, "a name (str) or an identifier (int)"),
    "task": (_is_text, "the name of a task (str)"),
    "exception": (_is_text, "the name of a class (str)"),
    "source": (_is_source, "a call site such as 'orders.py:42'"),
    "attributes": (_is_attributes, "a dict of str to str, int, float, bool or None"),
    "where": (_is_names, "a condition such as 'status>=500', or several in a list"),
    "run": (_is(int, Start), "an integer"),
    "pattern_of": (_is(int, SharedSource), "an integer"),
    "without": (_is(Mapping), "a dict of filters such as {'thread': 'worker-1'}"),
    "after_id": _INTEGER,
    "up_to_id": _INTEGER,
}


def check(filters: Filters) -> None:
    """Refuse unknown filters (a TypeError) and values of a wrong type (a FilterError), before anything is read."""
    unknown = sorted(set(filters) - Filters.__annotations__.keys())
    if unknown:
        raise TypeError(f"there is no filter {unknown[0]!r}: choose from {', '.join(Filters.__annotations__)}")
    for name, value in filters.items():
        require_shown(name, value)
        is_allowed, allowed = _ALLOWED[name]
        if value is not None and not is_allowed(value):
            raise FilterError(f"{name}={value!r}: must be {allowed}")
        require_short(name, value)


def require_shown(name: str, value: object) -> None:
    """Refuse what no error could show: Python writes no integer of more than 4,300 digits."""
    try:
        repr(value)
    except ValueError as error:
        raise FilterError(f"{name} has an integer of more digits than Python writes: give a shorter one") from error


def require_short(name: str, value: object) -> None:
    """Refuse texts that SQLite would refuse, or that would take long to look for."""
    texts = [*_texts(value)]
    count = sum(map(len, texts))
    if count > _LONGEST:
        raise FilterError(f"{name} has {count:,} characters: give {_LONGEST:,} or fewer")
    if any(map(_SURROGATE.search, texts)):
        raise FilterError(f"{name}={value!r}: has half of a surrogate pair in it, and no row has one")


def _texts(value: object) -> Iterator[str]:
    """Yield each text in the value of a filter."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for pair in value.items() for text in pair if isinstance(text, str))
    elif isinstance(value, Collection):
        yield from value


def integer(name: str, value: int, least: int = LOWEST) -> int:
    """Return `value`; refuse anything but an integer of 64 bits that is at least `least`."""
    require_shown(name, value)
    allowed = "an integer" if least == LOWEST else f"an integer, {least} or more"
    if not _is_integer(value) or LOWEST <= value < least:
        raise FilterError(f"{name}={value!r}: must be {allowed}")
    if not LOWEST <= value <= HIGHEST:
        raise FilterError(f"{name} {value} is beyond 64 bits: no row has it")
    return value


def seconds(name: str, value: float) -> float:
    """Return `value`; refuse anything but a length of time for which SQLite and the system can wait."""
    require_shown(name, value)
    if not _is(int, float)(value) or not 0 <= value <= _LONGEST_WAIT:
        raise FilterError(f"{name}={value!r}: must be seconds, from 0 to {_LONGEST_WAIT:,}")
    return value


def _one_of(column: str, ids: list[int]) -> Term:
    # Not by `json_each`: a table of the file may have that name, and hides the function.
    return f"{column} IN ({', '.join(map(str, ids))})", ()


def _terms(makers: "_Makers", ask: Ask, given: Mapping[str, Any]) -> Term:
    return joined(
        term for name, make in makers.items() if given.get(name) is not None for term in make(ask, given[name])
    )


def _logger(_: Ask, names: Names, are: str = "IN") -> list[Term]:
    sql, parameters = below(names)
    return [(f"source_id {are} (SELECT id FROM sources WHERE {sql})", parameters)]  # noqa: S608 - no value in it


def source_of(ask: Ask, id_: int | SharedSource) -> SharedSource:
    """Return what the rows of the same pattern as this one share, which may be given already."""
    if isinstance(id_, SharedSource):
        return id_
    row = f"SELECT source_id FROM records WHERE id = {integer('pattern_of', id_)}"  # noqa: S608 - a number
    found = ask(f"SELECT {SOURCE} FROM sources WHERE id = ({row})")  # noqa: S608 - same
    if not found:
        message = f"there is no row {id_}, so it has no pattern: `sqlite-log patterns` lists them, each with an id"
        raise FilterError(message)
    return SharedSource(*found[0])


def _pattern_of(ask: Ask, pattern: int | SharedSource) -> list[Term]:
    one = source_of(ask, pattern)
    same_line = "CAST(lineno AS INTEGER) = ? AND CAST(func AS TEXT) = ?"
    sql = f"SELECT id, {text('template')}, {same_line} FROM sources WHERE logger = ? AND pathname = ?"  # noqa: S608 - our own names
    ids = [
        id_
        for id_, template, is_same_line in ask(sql, (one.lineno, one.func, one.logger, one.pathname))
        if (template == one.template if says_something(one.template) else is_same_line and not says_something(template))
    ]
    return [_one_of("source_id", ids)]


def _run(ask: Ask, run: int | Start) -> list[Term]:
    if isinstance(run, int):
        return [_one_of("process_id", run_processes(ask, run))]
    sql = "SELECT id FROM processes WHERE host = ? AND program = ? AND started_us >= ? AND started_us < ?"
    return [(f"process_id IN ({sql})", astuple(run))]


_THREAD = (
    "(thread_id IN (SELECT id FROM threads WHERE name = ? OR ident = ?) "
    "OR thread_id IS NULL AND (thread_name = ? OR thread = ?))"
)


def _thread(_: Ask, thread: int | str) -> list[Term]:
    if not isinstance(thread, str):
        return [(_THREAD, (str(integer("thread", thread)), thread) * 2)]
    # A number may be the name of a thread too. With 19 digits it may exceed 64 bits.
    ident = int(thread) if thread.isdecimal() and len(thread) < len(str(HIGHEST)) else None
    return [(_THREAD, (thread, ident) * 2)]


def _exception(_: Ask, name: str) -> list[Term]:
    # Without LIKE, which ignores case: `zlib.error` is not `sqlite3.Error`.
    return [("(exc_type = ? OR substr(exc_type, -length(?)) = ?)", (name, f".{name}", f".{name}"))]


def _source(_: Ask, source: str) -> list[Term]:
    path, line = _SOURCE.fullmatch(source).groups()  # type: ignore[union-attr]  # `check` has looked
    # The file with its folders, or any file of that name.
    sql = (
        "source_id IN (SELECT id FROM sources WHERE lineno = ? AND (pathname = ? OR "
        "replace(substr(pathname, -length(?) - 1), char(92), '/') = '/' || ?))"
    )
    end = path.replace("\\", "/")
    return [(sql, (int(line), path, end, end))]


def _without(ask: Ask, without: Mapping[str, Any]) -> list[Term]:
    """Return a term for each value that a row must not have. A row with NULL in that place passes."""
    terms: list[Term] = []
    for name, values in without.items():
        for value in _each(values):
            check({name: value})  # type: ignore[misc]  # says so when there is no such filter
            if value is None:
                continue
            found = _TERMS[name](ask, value) if name in _WITHOUT else []
            if not found:
                message = f"without={name!r}: choose from {', '.join(sorted(_WITHOUT))}; for loggers there is `exclude`"
                raise FilterError(message)
            sql, parameters = joined(found)
            terms.append((f"NOT coalesce(({sql}), 0)", parameters))
    return terms


def drops_where(ask: Ask, filters: Filters) -> Term:
    """Return the filters as a condition on `drops`. Filters that do not apply to drops let every gap pass."""
    return _terms(_LEDGER_TERMS, ask, _resolved(filters))


def _moment(name: str, value: datetime | date | str | None, now: datetime) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            moment = parse_time(value, now)
        else:
            moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        return microseconds(moment)
    except (ValueError, OverflowError) as error:
        message = str(error) if isinstance(value, str) else f"{name}={value!r}: must be from the year 1 to 9999 in UTC"
        raise FilterError(message) from error


def _local_now() -> datetime:
    # Without a zone: it would have the offset of today, which is wrong for days of the other half of the year.
    return datetime.now()  # noqa: DTZ005 - local on purpose


def _resolved(filters: Filters) -> dict[str, Any]:
    """Check the filters, and return them with the bounds of time in microseconds; refuse a `since` after `until`."""
    check(filters)
    now = _local_now()
    since, until = filters.get("since"), filters.get("until")
    since_us, until_us = _moment("since", since, now), _moment("until", until, now)
    if since_us is not None and until_us is not None and since_us > until_us:
        raise FilterError(f"since ({since}) is after until ({until}), so nothing is between them: swap them")
    return {**filters, "since": since_us, "until": until_us}


def _several(values: Any) -> Collection[Any]:
    return [values] if isinstance(values, str) or not isinstance(values, Collection) else values


def _each(values: Any) -> Collection[Any]:
    """Return the values of a filter in `without`. A dict of attributes is one of them."""
    return [values] if values and isinstance(values, Mapping) else _several(values)


def below(names: Names, is_not: str = "") -> Term:
    """Return the condition that `logger` is, or with "NOT " is not, one of `names` or below one in the hierarchy."""
    several = _several(names)
    terms = ["logger = ? OR substr(logger, 1, length(?) + 1) = ? || '.'"] * len(several)
    return f"{is_not}({' OR '.join(terms) or '0'})", tuple(name for name in several for _ in range(3))


def level_range(ask: Ask, level: int | str) -> tuple[int, int]:
    """Read `WARNING`, `30`, `INFO..WARNING` or `..INFO`, and return the lowest and the highest level."""
    # Not by a regular expression, which would take hours for a long text of blanks.
    low, dots, high = map(str.strip, str(level).partition(".."))
    if not dots:
        return _levelno(ask, low), HIGHEST
    lowest = _levelno(ask, low) if low else LOWEST
    highest = _levelno(ask, high, max) if high else HIGHEST
    if lowest > highest:
        raise FilterError(f"{level!r} is empty: write the lower level first, {high}..{low}")
    return lowest, highest


def up_to(filters: Filters, last_id: int) -> Filters:
    """Narrow filters to the rows up to an id."""
    asked = filters.get("up_to_id")
    return {**filters, "up_to_id": last_id if asked is None else min(last_id, asked)}


def settled(filters: Filters) -> Filters:
    """Return `filters` with bounds of time that mean the same later: tomorrow, `12:00` is another time."""
    given = _resolved(filters)
    since, until = (None if given[end] is None else from_microseconds(given[end]) for end in ("since", "until"))
    return {**filters, "since": since, "until": until}


def lasting(ask: Ask, filters: Filters) -> Filters:
    """Return `filters` so that they mean the same when rows are deleted, runs begin, or another file comes."""
    fixed: dict[str, Any] = {**settled(filters)}
    for name, fix in _FIXED.items():
        if (value := fixed.get(name)) is not None:
            fixed[name] = fix(ask, value)
    if without := fixed.get("without"):
        _without(ask, without)  # refuses what makes no sense
        fixed["without"] = {
            name: [_FIXED.get(name, _unchanged)(ask, value) for value in _each(values) if value is not None]
            for name, values in without.items()
        }
    return fixed  # type: ignore[return-value]  # the same names


def _fixed_level(ask: Ask, level: int | str) -> str:
    low, high = level_range(ask, level)
    return f"{low}..{high}"


def _unchanged(_: Ask, value: Any) -> Any:
    return value


def _start_of(ask: Ask, number: int | Start) -> Start:
    """Return a run so that it is known in another file too, and when earlier runs are deleted."""
    if isinstance(number, Start):
        return number
    first = run_processes(ask, number)[0]
    firsts = {run[0] for run in runs(ask)}
    columns = f"{text('host')}, {text('program')}, {whole('started_us')}"
    [(host, program, begin_us)] = ask(f"SELECT {columns} FROM processes WHERE id = {first}")  # noqa: S608 - a number
    sql = "SELECT id, started_us FROM processes WHERE host = ? AND program = ? AND started_us > ? ORDER BY started_us"
    later = ask(sql, (host, program, begin_us))
    return Start(host, program, begin_us, next((started_us for id_, started_us in later if id_ in firsts), HIGHEST))


_FIXED: Final[Mapping[str, Callable[[Ask, Any], Any]]] = {
    "level": _fixed_level,
    "run": _start_of,
    "pattern_of": source_of,
}


def level_names(ask: Ask) -> dict[int, str]:
    """Read the names of levels by their numbers, of 1,000 levels and 64 KiB at most."""
    return dict(ask(LEVELS))


def _levelno(ask: Ask, name: str, one_of: Callable[[list[int]], int] = min) -> int:
    """Return the level of a name or number. Two packages may give one name to different levels."""
    if isinstance(levelno := number(name), int):
        return integer("level", levelno)
    named: dict[str, list[int]] = {}
    for levelno, known in sorted(level_names(ask).items()):
        named.setdefault(known.upper(), []).append(levelno)
    wanted = name.strip().upper()
    if wanted in named:
        return one_of(named[wanted])
    if wanted not in _LEVEL_NAMES:
        names = printable(", ".join(named))
        message = f"{name!r} is not a level of this log: write one of {names}, a number, or a range such as INFO..ERROR"
        raise FilterError(message)
    return _LEVEL_NAMES[wanted]


# Names that multiprocessing gives to children, whose start is not a start of the program.
_CHILD: Final = re.compile(r"\w*(?:Process|Worker)-[0-9:]+")
_MAIN: Final = "MainProcess"
# A server starts its workers within seconds. They may log before the server does, or the server may never log.
_TOGETHER_US: Final = 10_000_000


def runs(ask: Ask) -> list[list[int]]:
    """
    Return the starts of the program, the first one first, each with the ids of its processes.

    A start consists of the processes of one program and host that began within ten seconds, and of the children that
    multiprocessing starts for them later. Where it has a `MainProcess`, those with names of their own are children too.
    """
    # A start at 0 is unknown: another process wrote the records of such a process, so it counts for no run. The names
    # of hosts and programs stay in SQLite, as there may be 100,000 of each.
    processes = ask(
        "SELECT CAST(id AS INTEGER), CAST(started_us AS INTEGER), dense_rank() OVER (ORDER BY host, program), pid, "  # noqa: S608 - our own names
        f"{text('name')} FROM processes WHERE started_us > 0 ORDER BY started_us, id"
    )
    found: list[list[int]] = []
    current: dict[int, tuple[int, list[int], bool]] = {}
    same: dict[object, list[int]] = {}  # of those that started at one moment
    moment = 0
    for id_, started_us, program, pid, name in processes:
        if started_us != moment:
            moment, same = started_us, {}
        begun_us, run, has_main = current.get(program, (0, None, False))
        is_child = _CHILD.fullmatch(name) or (has_main and name != _MAIN)
        if (program, pid) in same:  # a process that was renamed has a line for each name
            run = same[program, pid]
        elif run is None or not (is_child or started_us - begun_us <= _TOGETHER_US):
            begun_us, run, has_main = started_us, [], False
            found.append(run)
        current[program] = begun_us, run, has_main or name == _MAIN
        run.append(id_)
        same[program, pid] = run
    return found


def run_processes(ask: Ask, number: int) -> list[int]:
    """Return the ids of the processes of a run: 0 is the last one, -1 the one before, 1 the first."""
    integer("run", number)
    found = runs(ask)
    index = number - 1 if number > 0 else len(found) - 1 + number
    if not 0 <= index < len(found):
        message = f"there is no run {number}: the log has {len(found)}; 0 is the last, -1 the one before, 1 the first"
        raise FilterError(message)
    return found[index]


def _conditions(_: Ask, conditions: Names) -> list[Term]:
    try:
        return [term for text in _several(conditions) for term in condition_terms(text)]
    except ValueError as error:
        raise FilterError(str(error)) from error


def _expression(_: Ask, expression: str) -> list[Term]:
    try:
        return expression_terms(expression)
    except (re.error, ValueError, OverflowError, RecursionError) as error:  # flags, large numbers and deep nesting
        message = f"{expression!r} is not a regular expression: {error}; to search for plain text, use -F or `text=`"
        raise FilterError(message) from error


# In the order of the terms in a condition. The most expensive come last, because SQLite evaluates from left to right.
_Makers: TypeAlias = Mapping[str, Callable[[Ask, Any], list[Term]]]
_TERMS: Final[_Makers] = {
    # The unary plus keeps SQLite from using the index: rows are read by id, within bounds that the index has given.
    "since": lambda _, since_us: [("+created_us >= ?", (since_us,))],
    "until": lambda _, until_us: [("+created_us <= ?", (until_us,))],
    "level": lambda ask, level: [("records.levelno BETWEEN ? AND ?", level_range(ask, level))],
    "run": _run,
    "process": lambda _, pid: [("process_id IN (SELECT id FROM processes WHERE pid = ?)", (integer("process", pid),))],
    "pattern_of": _pattern_of,
    "logger": _logger,
    "exclude": partial(_logger, are="NOT IN"),
    "thread": _thread,
    "task": lambda _, name: [("task_name = ?", (name,))],
    "exception": _exception,
    "source": _source,
    "without": _without,
    "text": lambda _, text: text_terms(text),
    "pattern": _expression,
    "attributes": lambda _, given: [term for key, value in given.items() for term in attribute_terms(key, value)],
    "where": _conditions,
}

_WITHOUT: Final = frozenset(_TERMS) - {"since", "until", "logger", "exclude", "without"}

# Same filters for `drops`. A gap right before the first wanted row is included. The ledger has one name for all loggers
# of a tick beyond the first thousand, so their gaps pass each filter on loggers.
_LEDGER_TERMS: Final[_Makers] = {
    "since": lambda _, since_us: [("until_us >= ?", (since_us,))],
    "until": lambda _, until_us: [("since_us <= ?", (until_us,))],
    "after_id": lambda _, id_: [("after_id >= ?", (integer("after_id", id_),))],
    "up_to_id": lambda _, id_: [("after_id < ?", (integer("up_to_id", id_),))],
    "level": lambda ask, level: [("drops.levelno BETWEEN ? AND ?", level_range(ask, level))],
    "logger": lambda _, names: [below([*_several(names), OTHER_LOGGERS])],
    "exclude": lambda _, names: [below(names, "NOT ")],
    "process": _TERMS["process"],
    "run": _TERMS["run"],
}
# The filters that apply to dropped records too, which have no text.
IN_LEDGER: Final = frozenset(_LEDGER_TERMS)
