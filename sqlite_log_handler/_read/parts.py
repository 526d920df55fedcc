"""
The parts of an archive, read piece by piece: rows and gaps as plain values, in bounded memory.

Theory of operation
===================

A part holds a range of ids without a hole, so we know the id of its n-th row, and count lines outside of the bounds
without parsing them. Its head tells ids, times, levels and processes, so we read few parts beyond their heads; the
statistics of Parquet tell the same of each row group. Bounds only spare work: SQL asks each row again.

A part may come from anywhere. Each value must have the type of its column. We limit the length of a line, and the size
to which a part grows when we decompress it, so neither takes memory or time without end. Each fault names the part and
the line.
"""

import contextlib
import errno
import gzip
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from json.scanner import make_scanner
from operator import itemgetter
from sys import getsizeof
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from sqlite_log_handler._logfile.archive import (
    DROP,
    GRANTED,
    GROWTH,
    HEAD_KEY,
    LONGEST_LINE,
    PARQUET,
    PART_COLUMNS,
    PROCESS,
    Head,
    drops_keys,
    is_led_away,
)
from sqlite_log_handler._logfile.columns import INTEGERS
from sqlite_log_handler._logfile.errors import (
    CorruptFileError,
    LimitError,
    MissingFileError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.parquet import import_pyarrow
from sqlite_log_handler._logfile.schema import MAX_ROW_BYTES
from sqlite_log_handler._read.filters import HIGHEST, LOWEST
from sqlite_log_handler._read.opening import require_file

# What pyarrow says when memory or threads are short.
_LACKS: Final = re.compile("|".join(["bad_alloc", *map(re.escape, map(os.strerror, (errno.EAGAIN, errno.ENOMEM)))]))

# The lowest and the highest of something, both included.
Span: TypeAlias = tuple[int, int]
Values: TypeAlias = tuple[Any, ...]

ALL: Final[Span] = (LOWEST, HIGHEST)

# The values of a row, in this order. The others follow from them.
FIELDS: Final = tuple(name for name in PART_COLUMNS if name not in {"time", "level"})
_NULLABLE: Final = {"thread", "thread_name", "task_name", "exc_type", "exc_text", "stack_info", "attributes"}
_TYPES: Final = tuple(
    ({int} if name in INTEGERS else {str}) | ({NoneType} if name in _NULLABLE else set()) for name in FIELDS
)
_VALUES: Final = itemgetter(*FIELDS)
_TEXTS: Final = itemgetter(*(place for place, name in enumerate(FIELDS) if name not in INTEGERS))
_NAMES: Final = ("process_name", "host", "program")
_PROCESS: Final = {name: str if name in _NAMES else int for name in PROCESS}
_DROP: Final = {"id": int, **{name: str if name in {"cause", "logger"} else int for name in DROP}, **_PROCESS}

# Bytes that are decompressed at first, because a part begins with its gaps, which are few, and then at a time.
_BEGINNING: Final = 8 * 1024
_CHUNK: Final = 128 * 1024
# Rows that are taken from Parquet at a time: a row group, as a rule.
_ROWS: Final = 5_000
# Bytes of a row group, decompressed. Writers end one after 4 MiB.
_GROUP: Final = 32 * 1024 * 1024

# The time and the level of a row, found without parsing the rest. Within a text the quotes are escaped.
_TIME: Final = re.compile(r'"created_us":\s*(-?\d{1,19})[,}]')
_LEVEL: Final = re.compile(r'"levelno":\s*(-?\d{1,19})[,}]')
# What stands before the attributes, whose text we keep as it was written. Nothing else in a row is an object.
_ATTRIBUTES: Final = re.compile(r'[{,]\s*"attributes":\s*')
# A text of JSON, up to its end or that of the line: so no line takes time without end.
_TEXT: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'
# SQLite leaves out the blanks that `json.dumps` writes. This takes a text whole, so that nothing in it changes.
_TOKEN: Final = re.compile(rf"{_TEXT}|[,:](?!\s)")
# Texts, commas and brackets of a line, each of which `json` makes some 80 bytes of at most. The longest attributes have
# two in three bytes.
_PIECE: Final = re.compile(rf"{_TEXT}|[,\[{{]".encode())
_MOST_PIECES: Final = 2 * MAX_ROW_BYTES // 3
# What `json.loads` calls; its own steps would take a fifth of the time.
_scan: Final[Callable[[str, int], tuple[Any, int]]] = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]  # typeshed asks for the scanner itself


def meet(one: Span, other: Span) -> bool:
    """Tell whether two spans have something in common."""
    return max(one[0], other[0]) <= min(one[1], other[1])


class Bounds(NamedTuple):
    """Spans of ids, times and levels outside of which nothing is wanted."""

    ids: Span = ALL
    times: Span = ALL
    levels: Span = ALL

    def cover(self, other: "Bounds") -> bool:
        """Tell whether all that is within `other` is within these."""
        return all(mine[0] <= its[0] and its[1] <= mine[1] for mine, its in zip(self, other, strict=True))

    def meet(self, head: Head) -> bool:
        """Tell whether a part with this head may have something within the bounds."""
        levels = (LOWEST, head.max_levelno)
        return meet(self.ids, (head.first_id, head.last_id)) and self._meet((head.since_us, head.until_us), levels)

    def _meet(self, times: Span, levels: Span) -> bool:
        return meet(self.times, times) and meet(self.levels, levels)

    def admit(self, created_us: int, levelno: int) -> bool:
        """Tell whether a row is within the bounds but for its id."""
        return self._meet((created_us, created_us), (levelno, levelno))


class Part(NamedTuple):
    """
    A part whose head was read: its path, its head, and its size in bytes.

    If it cannot be read, each method raises a LogFileError whose class says why.
    """

    path: str
    head: Head
    bytes: int

    @classmethod
    def open(cls, path: str) -> "Part":
        """Read the head of a part."""
        require_part(path)
        with _named(path):
            size = os.stat(path).st_size
            try:
                line = next(_metadata(path, [HEAD_KEY]), b"") if is_parquet(path) else _first_line(path)
                head = Head.from_json(line)
            except ValueError as error:
                raise _corrupt(path, 1, str(error)) from error
            if not _is_sound(head):
                raise _corrupt(path, 1, "not the head of a part")
            return cls(path, head, size)

    def drops(self) -> Iterator[dict[str, Any]]:
        """Yield the gaps of the part, as lines of the ledger with their process."""
        if not self.head.drops:
            return
        with _named(self.path):
            found = iter(_parquet_drops(self.path)) if is_parquet(self.path) else _drop_lines(self)
            for number in range(2, self.head.drops + 2):
                drop = next(found, None)
                if not _has(drop, _DROP):
                    raise _corrupt(self.path, number, "not a gap")
                yield drop

    def rows(self, bounds: Bounds) -> Iterator[list[Values]]:
        """Yield the rows within the bounds, some hundred at a time, the values of each in the order of `FIELDS`."""
        with _named(self.path):
            yield from _parquet_rows(self, bounds) if is_parquet(self.path) else _line_rows(self, bounds)

    def read_through(self) -> None:
        """Read the part to its end, and look at each of its gaps and rows."""
        deque(self.drops(), maxlen=0)
        for rows in self.rows(Bounds()):
            for number, row in enumerate(rows, rows[0][0] - self.head.first_id + 2 + self.head.drops):
                if fault := fault_of(row):
                    raise _corrupt(self.path, number, f"not a row ({fault})")
        if not is_parquet(self.path):
            with _named(self.path):
                _require_all(self, sum(map(len, _lines(self))) - 1 - self.head.drops)


def require_part(path: str) -> None:
    """Raise an error if no file is at the path of a part, or one that is not to be opened."""
    require_file(path)
    if is_led_away(path):
        raise UnreadableFileError(f"{path!r} is a link to a file whose name is not that of a part")


def is_parquet(path: str) -> bool:
    """Tell whether a part is of Parquet, by its name."""
    return path.endswith(f".{PARQUET}")


def _is_sound(head: Head) -> bool:
    """Tell whether the values in a head are those that a part can have."""
    return (
        1 <= head.first_id <= head.last_id
        and head.drops >= 0
        and all(map(_is_storable, head))
        and all(_has(process, _PROCESS) for process in head.processes)
        and all(re.fullmatch(r"-?\d{1,19}", level) and _is_storable(int(level)) for level in head.levels)
        and all(type(name) is str and _is_storable(name) for name in head.levels.values())
    )


def memory_of(head: Head) -> int:
    """Return how many bytes of memory a head takes, roughly: what `json` makes of it, and its file's name beside it."""
    processes = head.processes
    texts = [head.log, head.log_id, *head.levels.values(), *(one[name] for one in processes for name in _NAMES)]
    return sum(map(getsizeof, texts)) + 1_000 + 300 * len(processes) + 100 * len(head.levels)


def _has(found: object, types: Mapping[str, type]) -> TypeGuard[dict[str, Any]]:
    """Tell whether this is an object with these members, integers of 64 bits and texts that UTF-8 has."""
    return isinstance(found, dict) and all(
        type(found.get(name)) is kind and _is_storable(found[name]) for name, kind in types.items()
    )


def _is_storable(value: object) -> bool:
    if isinstance(value, int):
        return LOWEST <= value <= HIGHEST
    return not isinstance(value, str) or value.isascii() or not re.search("[\ud800-\udfff]", value)


def fault_of(values: Values) -> str | None:
    """Return the name of the first value that no row has; None if there is none."""
    found = zip(FIELDS, values, _TYPES, strict=True)
    return next((name for name, value, types in found if type(value) not in types or not _is_storable(value)), None)


def _corrupt(path: str, line: int, what: str) -> CorruptFileError:
    return CorruptFileError(f"{path!r}, line {line:,}: {what}: it is damaged, or was not made by this package")


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Give each fault of a file the error of its own name."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFileError(f"{path!r}: it was cut or damaged: {error}") from error
    except FileNotFoundError as error:
        raise MissingFileError(f"{path!r} has been removed") from error
    except ModuleNotFoundError as error:
        raise UnreadableFileError(f"{path!r} needs pyarrow: pip install 'sqlite-log-handler[parquet]'") from error
    except MemoryError as error:
        raise UnreadableFileError(f"{path!r} cannot be read: no memory is left") from error
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise  # from a signal handler, such as a TimeoutError
        raise UnreadableFileError(f"{path!r} cannot be read: {error}") from error


# JSON lines -----------------------------------------------------------------------------------------------------------


def _first_line(path: str) -> bytes:
    """Return the first line, without decompressing much more."""
    with gzip.open(path) as file:
        line = file.readline(LONGEST_LINE)
    if len(line) == LONGEST_LINE:
        raise _too_long(path)
    _require_few_pieces(path, line)
    return line


def _drop_lines(part: Part) -> Iterator[object]:
    for number, line in enumerate(islice(chain.from_iterable(_lines(part)), 1, None), 2):
        _require_few_pieces(part.path, line)
        try:
            yield json.loads(line)["drop"]
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise _corrupt(part.path, number, "not a gap") from error


def _too_long(path: str) -> LimitError:
    return LimitError(f"{path!r}: a line has more than {LONGEST_LINE / 2**20:g} MiB, which no handler writes")


def _require_few_pieces(path: str, line: bytes) -> None:
    """Refuse a line of which `json` would make too many objects."""
    if len(line) > _MOST_PIECES and next(islice(_PIECE.finditer(line), _MOST_PIECES, None), None):
        raise LimitError(f"{path!r}: a line has more than {_MOST_PIECES:,} values, which no handler writes")


def _require_sane(part: Part, size: int) -> None:
    """Refuse a part that grows beyond all measure when it is decompressed."""
    if size > GRANTED + part.bytes * GROWTH:
        raise LimitError(
            f"{part.path!r} grows to more than {GROWTH} times its size, as no log does: it was made to fill disks"
        )


def _lines(part: Part) -> Iterator[list[bytes]]:
    """Yield whole lines, many at a time."""
    rest = b""
    size = 0
    with gzip.open(part.path) as file:
        for most in chain([_BEGINNING], repeat(_CHUNK)):
            chunk = file.read(most)
            if not chunk:
                break
            size += len(chunk)
            _require_sane(part, size)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if len(rest) > LONGEST_LINE:
                raise _too_long(part.path)
            yield lines
    if rest:
        raise CorruptFileError(f"{part.path!r}: it was cut or damaged: its last line has no end")


def _line_rows(part: Part, bounds: Bounds) -> Iterator[list[Values]]:
    head = part.head
    low, high = max(bounds.ids[0], head.first_id), min(bounds.ids[1], head.last_id)
    asks_more = bounds.times != ALL or bounds.levels != ALL
    # Of the first line that is looked at: the head and the gaps have been read.
    id_ = head.first_id - 1 - head.drops
    for lines in _lines(part):
        begin, id_ = id_, id_ + len(lines)
        if begin > high:
            return
        rows = []
        for place in range(max(low - begin, 0), min(high - begin + 1, len(lines))):
            try:
                _require_few_pieces(part.path, lines[place])
                line = lines[place].decode()
                if not asks_more or _admits(bounds, line):
                    rows.append(_row_of(line, begin + place))
            except (ValueError, RecursionError, TypeError, KeyError, StopIteration) as error:
                number = begin + place - head.first_id + head.drops + 2
                raise _corrupt(part.path, number, f"not a row ({error})") from error
        if rows:
            yield rows
    if id_ <= high:
        _require_all(part, id_ - head.first_id)


def _require_all(part: Part, rows: int) -> None:
    """Refuse a part that has another number of rows than its head says."""
    if rows != part.head.rows:
        raise CorruptFileError(
            f"{part.path!r}: it was cut or damaged: it has {rows:,} rows, and {part.head.rows:,} by its head"
        )


# Types that a row was found to have, and may have.
_seen_types: set[tuple[type, ...]] = set()


def _admits(bounds: Bounds, line: str) -> bool:
    """Tell whether a row may be within the bounds, by as little as possible of its line."""
    begin = _ATTRIBUTES.search(line)
    end = len(line) if begin is None else begin.start() + 1  # what stands in them may have these names too
    time, level = _TIME.search(line, 0, end), _LEVEL.search(line, 0, end)
    return time is None or level is None or bounds.admit(int(time[1]), int(level[1]))


def _spaced(token: re.Match[str]) -> str:
    return f"{token[0]} " if token[0] in {",", ":"} else token[0]


def _row_of(line: str, id_: int) -> Values:
    found, end = _scan(line, 0)
    if line[end:].strip():
        raise ValueError(line[end:])
    begin = None if isinstance(found["attributes"], str | None) else _ATTRIBUTES.search(line)
    if begin is not None:
        found["attributes"] = None  # of what is parsed again
        found["attributes"] = _TOKEN.sub(_spaced, line[begin.end() : _scan(line, begin.end())[1]])
    values: Values = _VALUES(found)
    if fault := _fault_at(id_, values):
        raise ValueError(fault)
    return values


def _fault_at(id_: int, values: Values) -> str | None:
    """Return the name of the first value that the row of this id cannot have; None if there is none."""
    types = tuple(map(type, values))
    fault = None
    if types not in _seen_types or values[0] != id_:
        fault = fault_of(values) or ("id" if values[0] != id_ else None)
        if fault is None:
            _seen_types.add(types)
    return fault


# Parquet --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _parquet(path: str) -> Iterator[Any]:
    """Open a file of Parquet. Texts are read as dictionaries, so that one text in a million rows is in memory once."""
    pyarrow, parquet = import_pyarrow()
    texts = [name for name in FIELDS if name not in INTEGERS]
    # What pyarrow raises, or we for what it makes of a file; not an Exception of a signal handler.
    faults = [pyarrow.ArrowException, OSError, UnicodeDecodeError, IndexError, TypeError, KeyError]
    try:
        with pyarrow.OSFile(path) as raw, parquet.ParquetFile(raw, read_dictionary=texts) as file:
            faults.remove(KeyError)  # for a column that is not there
            yield file
    except tuple(faults) as error:
        if isinstance(error, MemoryError) or (
            isinstance(error, OSError) and (error.errno or type(error) is not OSError)
        ):
            raise
        if _LACKS.search(str(error)):
            raise UnreadableFileError(f"{path!r} cannot be read: {error}") from error
        raise CorruptFileError(f"{path!r}: it was cut or damaged: {error!r}") from error


def _metadata(path: str, keys: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the values of these keys, up to the first that the file lacks."""
    with _parquet(path) as file:
        found: dict[bytes, bytes] = file.metadata.metadata or {}
    for value in map(found.get, keys):
        if value is None:
            return
        if len(value) > LONGEST_LINE:
            raise _too_long(path)
        _require_few_pieces(path, value)
        yield value


def _parquet_drops(path: str) -> Iterator[object]:
    try:
        for some in _metadata(path, drops_keys()):
            yield from json.loads(some) or ()
    except (ValueError, RecursionError, TypeError) as error:
        raise CorruptFileError(f"{path!r}: it was cut or damaged: we cannot read its gaps") from error


def _parquet_rows(part: Part, bounds: Bounds) -> Iterator[list[Values]]:
    with _parquet(part.path) as file:
        _require_columns(part, file)
        size, first_id = 0, part.head.first_id
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            begin, first_id = first_id, first_id + group.num_rows
            if not meet(bounds.ids, (begin, first_id - 1)):
                continue
            if group.total_byte_size > _GROUP:
                message = f"{part.path!r}: a row group has more than {_GROUP >> 20} MiB, which no handler writes"
                raise LimitError(message)
            if not _group_meets(file, number, bounds):
                continue
            for batch in file.iter_batches(_ROWS, row_groups=[number], columns=[*FIELDS], use_threads=False):
                rows = _batch_rows(part, batch, begin, bounds)
                size += sum(map(len, filter(None, chain.from_iterable(map(_TEXTS, rows)))))
                _require_sane(part, size)
                if rows:
                    yield rows
                begin += batch.num_rows


def _batch_rows(part: Part, batch: Any, begin: int, bounds: Bounds) -> list[Values]:
    """Return the rows of a batch within the bounds; `begin` is the id of its first row."""
    rows = []
    for id_, row in enumerate(zip(*(_python(batch.column(name)) for name in FIELDS), strict=True), begin):
        if meet(bounds.ids, (id_, id_)) and bounds.admit(row[1] or 0, row[2] or 0):
            if fault := _fault_at(id_, row):
                raise _corrupt(part.path, id_ - part.head.first_id + 1, f"not a row ({fault})")
            rows.append(row)
    return rows


def _require_columns(part: Part, file: Any) -> None:
    """Refuse what has not the columns and the number of rows of a part."""
    pyarrow, _ = import_pyarrow()
    schema = file.schema_arrow
    for name in FIELDS:
        place = schema.get_field_index(name)
        kind = schema.field(place).type if place >= 0 else None
        kind = kind.value_type if isinstance(kind, pyarrow.DictionaryType) else kind
        if kind != (pyarrow.int64() if name in INTEGERS else pyarrow.string()):
            raise CorruptFileError(f"{part.path!r}: its column {name!r} is not that of a part")
    _require_all(part, file.metadata.num_rows)


def _group_meets(file: Any, number: int, bounds: Bounds) -> bool:
    """
    Tell whether a row group may have something within the bounds, by its times and levels.

    Not by its statistics: where they, or what else is said of a column, are damaged, pyarrow ends the process.
    """
    for name, wanted in (("created_us", bounds.times), ("levelno", bounds.levels)):
        if wanted != ALL:
            batches = file.iter_batches(_ROWS, row_groups=[number], columns=[name], use_threads=False)
            if not any(_column_meets(batch.column(0), wanted) for batch in batches):
                return False
    return True


def _column_meets(column: Any, wanted: Span) -> bool:
    """Tell whether the span of a column's values meets the one that is wanted; where it has none, nobody knows."""
    buffer = column.buffers()[1]
    if column.null_count or buffer is None:
        return True
    values = memoryview(buffer)[8 * column.offset : 8 * (column.offset + len(column))].cast("q")
    return not values or meet(wanted, (min(values), max(values)))


def _python(column: Any) -> list[Any]:
    """Return the values of a column; equal texts are one object."""
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    texts = [*column.dictionary.to_pylist(), None]
    return [texts[-1 if place is None else place] for place in column.indices.to_pylist()]
