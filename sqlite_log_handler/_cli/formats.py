"""
Rows and gaps as lines of text, in the formats of `sqlite-log show`.

Pure: a row goes in, lines come out, and all of them are safe for a terminal.
"""

import contextlib
import dataclasses
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sqlite_log_handler._cli.terminal import Paint
from sqlite_log_handler._logfile.printable import Escapes, is_printable, printable
from sqlite_log_handler._logfile.times import from_microseconds
from sqlite_log_handler._logfile.units import counted, format_duration, loudest
from sqlite_log_handler._read.conditions import values_of
from sqlite_log_handler._read.rows import JSON, Row
from sqlite_log_handler._read.search import extra_of, written
from sqlite_log_handler._read.statistics import Gap

# Some columns of a row.
Values: TypeAlias = tuple[Any, ...]

_INDENT: Final = "    "
_GAP_LEVEL: Final = 30
_TWO_DIGITS: Final = tuple(f"{number:02d}" for number in range(60))


class Clock:
    """
    Writes times. It formats each minute once, and uses the text for all rows of the minute.

    `form` is a format of `strftime` that ends in `%S` or `%S%z`; the offset is written as in ISO 8601. Before it
    come `digits` of the fraction of a second: 0, 3 or 6.
    """

    def __init__(self, form: str, *, digits: int = 0, utc: bool = False) -> None:
        self._head, _, zone = form.partition("%S")
        self._zone = bool(zone)
        self._digits = digits
        self._utc = utc
        self._minute: int | None = None
        self._written = "", 0, ""

    def __call__(self, created_us: int) -> str:
        """Write one time."""
        minute, micros = divmod(created_us, 60_000_000)
        if minute != self._minute:
            self._minute, self._written = minute, self._write(minute * 60)
        begin, first, end = self._written
        second = _TWO_DIGITS[micros // 1_000_000]
        if first:
            # Outside of the calendar, or in a zone whose offset had seconds, as some had long ago.
            begin, number, end = self._write(created_us // 1_000_000)
            second = f"{number:02d}"
        fraction = f".{micros % 1_000_000:06d}"[: self._digits + 1] if self._digits else ""
        return f"{begin}{second}{fraction}{end}"

    def _write(self, seconds: int) -> tuple[str, int, str]:
        """Return a time up to its second, that, and the rest; outside of the calendar, an @ and `seconds`."""
        moment = from_microseconds(seconds * 1_000_000)
        if moment is None:
            return "@", seconds, ""
        if not self._utc:
            with contextlib.suppress(OverflowError, OSError, ValueError):
                moment = moment.astimezone()
        return moment.strftime(self._head), moment.second, moment.isoformat()[19:] if self._zone else ""


CLOCKS: Final[Mapping[str, Callable[[bool], Clock]]] = {
    "short": lambda utc: Clock("%b %d %H:%M:%S", utc=utc),
    "short-iso": lambda utc: Clock("%Y-%m-%dT%H:%M:%S%z", utc=utc),
    "short-precise": lambda utc: Clock("%b %d %H:%M:%S", digits=6, utc=utc),
}


class Format:
    """Turns rows into lines of text."""

    # The columns of the view `logs` that it needs, the id first. To read all of them takes longer.
    columns: tuple[str, ...] = Row._fields
    draws_gaps = False  # as lines between rows

    def lines(self, entries: Iterable[Values | list[Gap]]) -> Iterator[str]:
        """Yield the lines of rows and gaps, in the order of `with_gaps`."""
        for entry in entries:
            if isinstance(entry, list):
                yield self.gap(entry)
            else:
                yield from self.row(Row._make(entry))

    def row(self, row: Row) -> Iterator[str]:
        """Yield the lines of one row."""
        raise NotImplementedError

    def gap(self, _gaps: Sequence[Gap]) -> str:
        """Return the line of gaps between two rows; an empty list stands for rows that were left out, as in grep."""
        return "--"


class Drawn(Format):
    """A format for people: with colours and gaps, and with the other lines of a text indented below its first."""

    draws_gaps = True
    gap_head = "GAP"

    def __init__(self, clock: Clock, paint: Paint) -> None:
        self._clock = clock
        self._paint = paint

    def gap(self, gaps: Sequence[Gap]) -> str:
        """Return the line of gaps, or of rows that were left out."""
        if not gaps:
            return super().gap(gaps)
        text = self._paint(printable(f"{self.gap_head} ~~~ {describe(gaps)} ~~~"), _GAP_LEVEL)
        return f"{self._clock(min(gap.since_us for gap in gaps))} {text}"


class Short(Drawn):
    """
    A line for each row, such as `Nov 25 19:33:38 WARNING  shop.stock: low`.

    It shows the attributes `fields` after the message, if a row has them.
    """

    # As wide as a level.
    gap_head = "GAP     "

    def __init__(self, clock: Clock, paint: Paint, *, fields: Sequence[str] = (), has_id: bool = False) -> None:
        super().__init__(clock, paint)
        self._fields = [(name, _key(name)) for name in fields]
        self._has_id = has_id
        # Only `fields` need the attributes. Without the other columns and `Row`, this takes a fifth of the time.
        self.columns = (
            *("id", "created_us", "levelno", "level", "logger", "message", "exc_text", "stack_info"),
            "attributes" if fields else "NULL",
        )

    def lines(self, entries: Iterable[Values | list[Gap]]) -> Iterator[str]:
        """Yield the lines of rows and gaps, in the order of `with_gaps`."""
        clock, paint = self._clock, self._paint
        for entry in entries:
            if isinstance(entry, list):
                yield self.gap(entry)
                continue
            id_, created_us, levelno, level, logger, message, exc_text, stack_info, attributes = entry
            text, more = f"{level:<8} {logger}: {message}", ""
            if not text.isprintable():
                first, _, more = message.partition("\n")
                text = printable(f"{level:<8} {logger}: {first}")
            if attributes:
                extra = extra_of(attributes)
                for name, key in self._fields:
                    text += "".join(f" {_pair(key, value)}" for value in values_of(extra, name))
            head = f"[id {id_}] " if self._has_id else ""
            yield f"{clock(created_us)} {head}{paint(text, levelno)}"
            if more or exc_text or stack_info:
                yield from indented(more, exc_text, stack_info)


class Verbose(Drawn):
    """All fields of a row, each on a line."""

    def row(self, row: Row) -> Iterator[str]:
        """Yield the lines of one row."""
        first, _, more = row.message.partition("\n")
        head = printable(f"{row.level} {row.logger}: {first}")
        yield f"{self._clock(row.created_us)} [id {row.id}] {self._paint(head, row.levelno)}"
        # Farther right than the fields, so that a message cannot forge one.
        yield from (_INDENT + line for line in indented(more))
        source = f"{row.pathname}:{row.lineno} in {row.func}"
        thread = " ".join(str(part) for part in (row.thread_name, row.thread) if part is not None)
        process = f"{row.process} {row.process_name} on {row.host}"
        fields = {"source": source, "process": process, "thread": thread, "task": row.task_name}
        fields = {name: value for name, value in {**fields, "exception": row.exc_type}.items() if value}
        fields |= {f"attributes.{key}": _text(value) for key, value in row.extra.items()}
        yield from (f"{_INDENT}{printable(name)}={printable(value or '')}" for name, value in fields.items())
        yield from indented(row.exc_text, row.stack_info)


class Cat(Format):
    """The message alone."""

    columns = ("id", "message")

    def lines(self, entries: Iterable[Values | list[Gap]]) -> Iterator[str]:
        """Yield the lines of each message."""
        for entry in entries:
            if isinstance(entry, list):
                yield self.gap(entry)
            elif entry[1].isprintable():
                yield entry[1]
            else:
                first, _, more = entry[1].partition("\n")
                yield printable(first)
                yield from indented(more)


_LOGFMT_PLAIN: Final = re.compile(r'[^\s"=\\]+')
_LOGFMT_KEY: Final = re.compile(r'[\s"=]')
_LOGFMT_NAMES: Final = (
    *("pathname", "lineno", "func", "process", "thread_name", "task_name"),
    *("exc_type", "exc_text", "stack_info"),
)


class Logfmt(Format):
    """`key=value` pairs on one line (https://brandur.org/logfmt): first the columns of a row, then its attributes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def row(self, row: Row) -> Iterator[str]:
        """Yield the line of one row."""
        fields: dict[str, object] = {"time": self._clock(row.created_us), "level": row.level, "logger": row.logger}
        fields |= {"message": row.message, **{name: getattr(row, name) for name in _LOGFMT_NAMES}}
        unset = {name for name, value in fields.items() if value is None}
        # An attribute with the name of a column gets another name, the first of them the same as in `forward`.
        for name, value in row.extra.items():
            key = _key(name)
            if not key or key in fields:
                key = f"extra.{key}"
            while key in fields:  # by a number, or a stranger's names that differ in blanks alone take GB
                key = f"extra.{len(fields)}.{key}"
            fields[key] = value
        yield " ".join(_pair(key, value) for key, value in fields.items() if key not in unset)


class JsonObjects(Format):
    """A JSON object on each line, which SQLite makes; without lines between rows."""

    columns = ("id", JSON)

    def lines(self, entries: Iterable[Values | list[Gap]]) -> Iterator[str]:
        """Yield the line of each row."""
        return map(json_safe, map(itemgetter(1), filter(None, entries)))


def _key(name: str) -> str:
    return printable(_LOGFMT_KEY.sub("_", name))


def _pair(key: str, value: object) -> str:
    text = _text(value)
    if not (_LOGFMT_PLAIN.fullmatch(text) and is_printable(text)) or value == "null":  # which is no null
        text = json_safe(json.dumps(text, ensure_ascii=False))
    return f"{key}={text}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else written(value, ", ", ": ")


_JSON_ESCAPES: Final = Escapes(lambda character: json.dumps(character)[1:-1])


def json_safe(line: str) -> str:
    r"""Escape as \u and four digits what a terminal would obey; in JSON the value stays the same."""
    return line if is_printable(line) else line.translate(_JSON_ESCAPES)


def json_document(value: object) -> Iterator[str]:
    """Yield the lines of a JSON document; a dataclass is an object of its fields."""
    line: list[str] = []
    # Piece by piece, because `dumps` keeps all of them: fifty bytes for each bracket and each comma.
    for piece in json.JSONEncoder(ensure_ascii=False, indent=2, default=dataclasses.asdict).iterencode(value):
        head, *others = piece.split("\n")
        line.append(head)
        for other in others:
            yield json_safe("".join(line))
            line = [other]
    yield json_safe("".join(line))


def indented(*texts: str | None) -> Iterator[str]:
    """Yield the lines of the texts that there are, indented to stand below the line of their row."""
    for text in filter(None, texts):
        for line in text.rstrip("\n").split("\n"):
            yield _INDENT + printable(line)


def describe(gaps: Sequence[Gap]) -> str:
    """Say how many records are missing in a gap, for how long, why, and from which loggers."""
    causes, loggers = Counter[str](), Counter[str]()
    for gap in gaps:
        causes[gap.cause] += gap.count
        if gap.logger:
            loggers[gap.logger] += gap.count
    seconds = (max(gap.until_us for gap in gaps) - min(gap.since_us for gap in gaps)) / 1e6
    what = "dropped" if loggers else "pruned"
    text = f"{counted(causes.total(), 'record')} {what} in {format_duration(seconds)}: {loudest(causes)}"
    return f"{text}; from {loudest(loggers)}" if loggers else text


def behind(rows: int, seconds: float) -> str:
    """Say how far a cursor is behind the last row."""
    return f"{counted(rows, 'row')} and {format_duration(seconds)} behind" if rows else "at the end"


def with_gaps(
    rows: Iterable[Values], gaps: Sequence[Gap], *, reverse: bool = False, whole: bool = True
) -> Iterator[Values | list[Gap]]:
    """
    Yield rows and the gaps between them; gaps without a row between them form one list.

    Rows begin with their ids, which rise, or fall with `reverse`. Without `whole`, more rows may come before the first,
    and gaps there belong to them.
    """
    left = deque(sorted(gaps, key=lambda gap: gap.after_id, reverse=reverse))
    begun = whole or reverse
    for row in rows:
        here: list[Gap] = []
        while left and (left[0].after_id >= row[0] if reverse else left[0].after_id < row[0]):
            here.append(left.popleft())
        if here and begun:
            yield here
        begun = True
        yield row
    if left and begun and (whole or not reverse):
        yield [*left]
