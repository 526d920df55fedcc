"""
Rows and gaps as lines of text, in the formats of `sqlite-log show`.

Pure: a row in, lines out, all of them safe for a terminal.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from sqlite_log_handler._cli.terminal import Paint
from sqlite_log_handler._logfile.printable import is_printable, printable
from sqlite_log_handler._logfile.times import from_microseconds
from sqlite_log_handler._logfile.units import loudest
from sqlite_log_handler._read.rows import Row
from sqlite_log_handler._read.statistics import Gap

Format: TypeAlias = Callable[[Row], Iterator[str]]

_INDENT: Final = "    "
_GAP_LEVEL: Final = 30


class Clock:
    """
    Write times, in local time or in UTC. A second is written once, and used for all rows in it.

    Args:
        pattern: Of `strftime`, for the seconds; `%z` is written as ISO 8601 has it.
        digits: Of the fraction of a second, which comes before the offset: 0, 3 or 6.
        utc: In UTC.
    """

    def __init__(self, pattern: str, *, digits: int = 0, utc: bool = False) -> None:
        self._head, zone, _ = pattern.partition("%z")
        self._zone = bool(zone)
        self._digits = digits
        self._utc = utc
        self._second: int | None = None
        self._written = ("", "")

    def __call__(self, created_us: int) -> str:
        """
        Write one time.
        """
        second, micros = divmod(created_us, 1_000_000)
        if second != self._second:
            self._written = self._write(second)
            self._second = second
        begin, end = self._written
        return f"{begin}.{f'{micros:06d}'[: self._digits]}{end}" if self._digits else begin + end

    def _write(self, second: int) -> tuple[str, str]:
        moment = from_microseconds(second * 1_000_000)
        if moment is None:
            return f"@{second}", ""
        try:
            local = moment if self._utc else moment.astimezone()
        except (OverflowError, OSError, ValueError):
            local = moment
        return local.strftime(self._head), local.isoformat()[19:] if self._zone else ""


CLOCKS: Final[Mapping[str, Callable[[bool], Clock]]] = {
    "short": lambda utc: Clock("%b %d %H:%M:%S", utc=utc),
    "short-iso": lambda utc: Clock("%Y-%m-%dT%H:%M:%S%z", utc=utc),
    "short-precise": lambda utc: Clock("%b %d %H:%M:%S", digits=6, utc=utc),
}


class Drawn:
    """
    A format for people, in which a gap is a line between rows.

    Args:
        clock: Writes times.
        paint: Gives a text the colour of its level.
    """

    gap_head = "GAP"

    def __init__(self, clock: Clock, paint: Paint) -> None:
        self._clock = clock
        self._paint = paint

    def __call__(self, row: Row) -> Iterator[str]:
        """
        Yield the lines of one row.
        """
        raise NotImplementedError

    def gap(self, gaps: Sequence[Gap]) -> str:
        """
        Return the line of gaps between two rows.
        """
        text = self._paint(printable(f"{self.gap_head} ~~~ {describe(gaps)} ~~~"), _GAP_LEVEL)
        return f"{self._clock(min(gap.since_us for gap in gaps))} {text}"


class Short(Drawn):
    """
    One line for a row, as `Nov 25 19:33:38 WARNING  shop.stock: low`, with its traceback indented below.
    """

    # As wide as a level.
    gap_head = "GAP     "

    def __call__(self, row: Row) -> Iterator[str]:
        """
        Yield the lines of one row.
        """
        text = printable(f"{row.level:<8} {row.logger}: {row.message}")
        yield f"{self._clock(row.created_us)} {self._paint(text, row.levelno)}"
        if row.exc_text:
            yield from indented(row.exc_text)
        if row.stack_info:
            yield from indented(row.stack_info)


class Verbose(Drawn):
    """
    All there is to a row, a line each.
    """

    def __call__(self, row: Row) -> Iterator[str]:
        """
        Yield the lines of one row.
        """
        head = printable(f"{row.level} {row.logger}: {row.message}")
        yield f"{self._clock(row.created_us)} [id {row.id}] {self._paint(head, row.levelno)}"
        source = f"{row.pathname}:{row.lineno} in {row.func}"
        thread = " ".join(str(part) for part in (row.thread_name, row.thread) if part is not None)
        process = f"{row.process} {row.process_name} on {row.host}"
        fields = {"source": source, "process": process, "thread": thread, "task": row.task_name}
        fields = {name: value for name, value in {**fields, "exception": row.exc_type}.items() if value}
        fields |= {f"attributes.{key}": _text(value) for key, value in row.extra.items()}
        for name, value in fields.items():
            yield f"{_INDENT}{printable(name)}={printable(value or '')}"
        for text in (row.exc_text, row.stack_info):
            if text:
                yield from indented(text)


def cat(row: Row) -> Iterator[str]:
    """
    Yield the message alone.
    """
    yield printable(row.message)


_LOGFMT_PLAIN: Final = re.compile(r'[^\s"=\\]+')
_LOGFMT_KEY: Final = re.compile(r'[\s"=]')
_LOGFMT_NAMES: Final = (
    *("pathname", "lineno", "func", "process", "thread_name", "task_name"),
    *("exc_type", "exc_text", "stack_info"),
)


class Logfmt:
    """
    `key=value` pairs on one line, as https://brandur.org/logfmt has them; attributes behind the row's own.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, row: Row) -> Iterator[str]:
        """
        Yield the line of one row.
        """
        fields: dict[str, object] = {"time": self._clock(row.created_us), "level": row.level, "logger": row.logger}
        fields |= {"message": row.message, **{name: getattr(row, name) for name in _LOGFMT_NAMES}}
        # As `forward` has it: an attribute that has the name of what a row has by itself is none the less shown.
        fields |= {f"extra.{key}" if key in fields else key: value for key, value in row.extra.items()}
        yield " ".join(_pair(key, value) for key, value in fields.items() if value is not None)


def _pair(key: str, value: object) -> str:
    text = _text(value)
    if not (_LOGFMT_PLAIN.fullmatch(text) and is_printable(text)):
        text = json_safe(json.dumps(text, ensure_ascii=False))
    return f"{printable(_LOGFMT_KEY.sub('_', key))}={text}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def json_safe(line: str) -> str:
    r"""
    Escape in JSON what a terminal would obey, as \u and four digits: the value stays the same.
    """
    if is_printable(line):
        return line
    return "".join(character if is_printable(character) else json.dumps(character)[1:-1] for character in line)


def indented(text: str) -> Iterator[str]:
    """
    Yield the lines of a traceback, to stand below the line of its row.
    """
    for line in text.rstrip("\n").split("\n"):
        yield _INDENT + printable(line)


def describe(gaps: Sequence[Gap]) -> str:
    """
    Say what is missing in a gap: how many records, since when, why and whose.
    """
    causes: dict[str, int] = {}
    loggers: dict[str, int] = {}
    for gap in gaps:
        causes[gap.cause] = causes.get(gap.cause, 0) + gap.count
        if gap.logger:
            loggers[gap.logger] = loggers.get(gap.logger, 0) + gap.count
    count = sum(gap.count for gap in gaps)
    seconds = (max(gap.until_us for gap in gaps) - min(gap.since_us for gap in gaps)) / 1e6
    what = "dropped" if loggers else "pruned"
    text = f"{count:,} record{'s' if count != 1 else ''} {what} in {seconds:,.2f} s: {loudest(causes)}"
    return f"{text}; {loudest(loggers)}" if loggers else text


def with_gaps(
    rows: Iterable[Row], gaps: Sequence[Gap], *, reverse: bool = False, whole: bool = True
) -> Iterator[Row | list[Gap]]:
    """
    Put gaps where they are: those that no row stands between, together.

    Args:
        rows: By rising id, or by falling id with `reverse`.
        gaps: By the row that they follow.
        reverse: See above.
        whole: The rows are all there are: gaps before the first of them belong to it. Otherwise they belong to rows
            that are not shown.
    """
    left = sorted(gaps, key=lambda gap: gap.after_id, reverse=reverse)
    position = 0
    begun = whole or reverse
    for row in rows:
        begin = position
        while position < len(left) and (
            left[position].after_id >= row.id if reverse else left[position].after_id < row.id
        ):
            position += 1
        if position > begin and begun:
            yield left[begin:position]
        begun = True
        yield row
    if position < len(left) and begun and (whole or not reverse):
        yield left[position:]
