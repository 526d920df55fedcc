"""
What stands in a part of the archive: its head, its gaps and its rows, read from the log, written, and read back.

Rows are read in statements of some milliseconds, so they hold back neither the WAL nor a fork. SQLite makes the JSON
and zlib compresses it, both with the GIL free, so the program that logs goes on. Memory is bounded by the size of a
chunk, and with Parquet by that of a row group.
"""

import contextlib
import errno
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from types import SimpleNamespace
from typing import IO, Any, Final, Self

from sqlite_log_handler._logfile import parquet
from sqlite_log_handler._logfile.archive import (
    GRANTED,
    GROWTH,
    HEAD_KEY,
    JSON_LINES,
    LONGEST_LINE,
    PARQUET,
    PART_COLUMNS,
    SELECT_CSV,
    SELECT_DROP,
    SELECT_JSON,
    SELECT_PROCESS,
    Head,
    drops_keys,
    drops_metadata,
)
from sqlite_log_handler._logfile.columns import INTEGERS, LONG_TEXTS, whole
from sqlite_log_handler._logfile.connect import primary_code
from sqlite_log_handler._logfile.forks import Connection

_DAY_US: Final = 86_400_000_000

# JSON that one statement makes, roughly: some 50 ms, for which a fork waits. A program whose threads are busy hands
# over the GIL every 5 ms only, and between two statements it is needed a dozen times; so there are to be few.
_CHUNK_BYTES: Final = 5 * 512 * 1024
_CHUNK_ROWS: Final = 5_000
# What it makes at most, if the next rows are much larger than the last ones. A single row may be larger.
_MOST_CHUNK_BYTES: Final = 6 * 1024 * 1024

# Ids that one statement looks at for the head.
_SPAN: Final = 50_000
# Processes that wrote the rows of a part, and of those that lost records, each counted once for each of its levels. The
# head names them, and has a kilobyte for each. Gaps beyond that name their processes themselves.
_MOST_KEYS: Final = LONGEST_LINE // 2_048
_DROPS: Final = 1_000

# On real lines, 6 (zlib's default) makes a part 6 % larger in 0.8 of the time, and 9 one 4 % smaller in 1.5 times.
_LEVEL: Final = 7
_BLOCK: Final = 1024 * 1024
# Columns of texts that many rows share.
_SHARED: Final = [name for name in PART_COLUMNS if name not in {*INTEGERS, *LONG_TEXTS, "time"}]

CREATED: Final = f"SELECT {whole('created_us')} FROM records WHERE id = ?"  # noqa: S608 - our own name
_FIRST_LATER: Final = (
    f"SELECT min(id) FROM (SELECT id FROM records WHERE id BETWEEN ? AND ? AND {whole('created_us')} >= ? "  # noqa: S608 - same
    "ORDER BY id LIMIT 1)"
)
# The rows from the first on, up to the first hole, which somebody has made by hand.
_LAST_BEFORE_HOLE: Final = """
SELECT max(id) FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM records WHERE id BETWEEN ? AND ?)
WHERE id = ? + number - 1
"""
_LOOK: Final = f"""
SELECT count(*), min({whole("created_us")}), max({whole("created_us")}), max({whole("levelno")})
FROM records WHERE id BETWEEN ? AND ?
"""  # noqa: S608 - same
_KEYS: Final = "SELECT DISTINCT levelno, process_id FROM records WHERE id BETWEEN ? AND ?"
# A gap stands behind the row with its `after_id`, and goes with the row that comes next.
_IN_PART: Final = "after_id >= ? - 1 AND after_id < ?"
_KEYS_OF_DROPS: Final = f"SELECT DISTINCT levelno, process_id FROM drops WHERE {_IN_PART} LIMIT ?"  # noqa: S608 - same
_SUM_OF_DROPS: Final = f"SELECT count(*), CAST(total({whole('count')}) AS INTEGER) FROM drops WHERE {_IN_PART}"  # noqa: S608 - same
_DROPS_OF: Final = f"{SELECT_DROP} WHERE {_IN_PART} AND drops.id > ? ORDER BY drops.id LIMIT {_DROPS}"
_CHUNK: Final = """
SELECT count(*), count(line), CAST(group_concat(line, char(10)) || char(10) AS BLOB)
FROM ({} WHERE records.id BETWEEN ? AND ? ORDER BY records.id LIMIT -1)
"""
_CHUNKS: Final = {JSON_LINES: _CHUNK.format(SELECT_JSON), PARQUET: _CHUNK.format(SELECT_CSV)}


class Vanished(Exception):  # noqa: N818 - a state, as queue.Full is
    """Rows were deleted before they were archived."""


class OutOfTime(Exception):  # noqa: N818 - same
    """There is no more time for the archive."""


class TooDense(Exception):  # noqa: N818 - same
    """A part is so small for its rows that readers would take it for a bomb. Up to `last_id` they take it."""

    def __init__(self, last_id: int) -> None:
        self.last_id = last_id


def ask(connection: Connection, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    """Ask for a few lines; a fork waits until they are there. The writer may interrupt it, to write the WAL back."""
    while True:
        try:
            with connection.in_use():
                return connection.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
                raise


def head_of(connection: Connection, stem: str, first_id: int, last_id: int) -> tuple[Head, int]:
    """
    Return the head of a part that begins with row `first_id`, and the time of that row.

    The part ends with its day, at a hole that somebody has made by hand, with row `last_id`, or sooner if very many
    processes wrote its rows.

    Raises:
        Vanished: The first row is not there.
    """
    found = ask(connection, CREATED, (first_id,))
    if not found:
        raise Vanished
    ((first_us,),) = found
    midnight = (first_us // _DAY_US + 1) * _DAY_US
    looks: list[tuple[int, int, int, int]] = []
    keys: set[tuple[int, int]] = set()
    begin, end = first_id, first_id - 1
    while begin == end + 1 and begin <= last_id:
        last = min(begin + _SPAN - 1, last_id)
        look = ask(connection, _LOOK, (begin, last))[0]
        if look[0] and look[2] >= midnight:
            ((later,),) = ask(connection, _FIRST_LATER, (begin, last, midnight))
            if later is None:  # it was deleted since
                raise Vanished
            last = last_id = later - 1
            look = ask(connection, _LOOK, (begin, last))[0]
        if look[0] != last - begin + 1:
            ((before_hole,),) = ask(connection, _LAST_BEFORE_HOLE, (begin, last, begin))
            last = last_id = begin - 1 if before_hole is None else before_hole
            look = ask(connection, _LOOK, (begin, last))[0]
        if look[0]:
            some = {*ask(connection, _KEYS, (begin, last))}
            while len(keys | some) > _MOST_KEYS and last > begin:
                last = last_id = (begin + last) // 2
                look = ask(connection, _LOOK, (begin, last))[0]
                some = {*ask(connection, _KEYS, (begin, last))}
            looks.append(look)
            keys |= some
        begin, end = last + 1, last
    if not looks:
        raise Vanished
    _, since, until, levelnos = zip(*looks, strict=True)
    keys.update(ask(connection, _KEYS_OF_DROPS, (first_id, end, _MOST_KEYS)))
    ((drops, dropped),) = ask(connection, _SUM_OF_DROPS, (first_id, end))
    ((log_id,),) = ask(connection, "SELECT log_id FROM marks")
    names = dict(ask(connection, "SELECT levelno, name FROM levels"))
    head = Head(
        stem,
        log_id,
        first_id,
        end,
        min(since),
        max(until),
        max(levelnos),
        drops,
        dropped,
        {str(levelno): names[levelno] for levelno in sorted({key[0] for key in keys} & {*names})},
        [
            json.loads(line)
            for process_id in sorted({key[1] for key in keys})
            for (line,) in ask(connection, f"{SELECT_PROCESS} WHERE id = ?", (process_id,))
        ],
    )
    return head, first_us


def write_part(
    connection: Connection, file: IO[bytes], head: Head, kind: str, stopped: Callable[[], bool] = lambda: False
) -> None:
    """
    Write a part.

    Raises:
        Vanished: Rows of it were deleted meanwhile.
        TooDense: It is to have fewer rows.
        OutOfTime: `stopped` said so.
        OSError, sqlite3.Error: It cannot be written, or its rows cannot be read.
    """
    if len(head.to_json().encode()) >= LONGEST_LINE:
        raise OSError(errno.EFBIG, "Too many processes dropped records: no reader would take the part")
    make: type[_JsonLines | _Parquet] = _Parquet if kind == PARQUET else _JsonLines
    with make(file, head, _drops_of(connection, head)) as sink:
        last_id = head.first_id - 1
        for lines, rows in _chunks_of(connection, head, kind):
            sink.write(lines, rows)
            if sink.size > GRANTED + GROWTH * file.tell() and last_id >= head.first_id:
                raise TooDense(last_id)
            last_id += rows
            if stopped():
                raise OutOfTime


def _drops_of(connection: Connection, head: Head) -> Iterator[str]:
    """Yield the gaps of a part as lines of JSON."""
    last = 0
    while found := ask(connection, _DROPS_OF, (head.first_id, head.last_id, last)):
        yield from (line for _, line in found)
        last = found[-1][0]


def _chunks_of(connection: Connection, head: Head, kind: str) -> Iterator[tuple[bytes, int]]:
    """Yield the rows as lines of JSON or CSV, some at a time, and how many they are."""
    id_, rows = head.first_id, min(1_000, _CHUNK_ROWS)
    while id_ <= head.last_id:
        rows = min(rows, head.last_id - id_ + 1)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_CHUNK_BYTES if rows > 1 else LONGEST_LINE)
        try:
            ((found, whole_lines, lines),) = ask(connection, _CHUNKS[kind], (id_, id_ + rows - 1))
        except sqlite3.DataError as error:
            if primary_code(error) != sqlite3.SQLITE_TOOBIG:
                raise
            found, whole_lines = rows, 0
        if found != rows:
            raise Vanished
        if whole_lines < rows:  # of a text that is too long, printf makes NULL
            if rows == 1:
                raise OSError(errno.EFBIG, f"Row {id_} is longer than any that a handler writes: delete it")
            rows = max(1, rows // 8)
            continue
        yield lines, rows
        id_ += rows
        rows = max(1, min(2 * rows, rows * _CHUNK_BYTES // len(lines), _CHUNK_ROWS))


class _JsonLines:
    """A part of JSON lines. The rows of each chunk are lines already."""

    def __init__(self, file: IO[bytes], head: Head, drops: Iterable[str]) -> None:
        self._file = file
        self.size = 0
        self._compressor = zlib.compressobj(_LEVEL, wbits=31)
        self.write(f"{head.to_json()}\n".encode())
        for drop in drops:
            self.write(f"{drop}\n".encode())

    def write(self, lines: bytes, _rows: int = 1) -> None:
        """Add lines."""
        self.size += len(lines)
        self._file.write(self._compressor.compress(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._file.write(self._compressor.flush())


class _Parquet:
    """A part of Parquet. Arrow reads the CSV of each chunk, which becomes a row group, with the GIL free as well."""

    def __init__(self, file: IO[bytes], head: Head, drops: Iterable[str]) -> None:
        self._pa, _ = parquet.import_pyarrow()
        self.size = 0
        self._schema = parquet.schema_of(PART_COLUMNS, shared=True)
        # Arrow writes each column of a row group, and takes the GIL to call Python's `write`: 50 times for some 50 KB.
        self._file = SimpleNamespace(write=file.write, tell=file.tell, closed=False)
        self._buffer = self._pa.BufferedOutputStream(self._pa.PythonFile(self._file, "w"), _BLOCK)
        self._writer = parquet.writer(self._buffer, self._schema)
        gaps = drops_metadata(drop[len('{"drop":') : -1] for drop in drops)
        self._writer.add_key_value_metadata({HEAD_KEY: head.to_json(), **gaps})

    def write(self, lines: bytes, rows: int) -> None:
        """Add rows."""
        self.size += len(lines)
        self._writer.write_table(parquet.table_of(lines, self._schema), row_group_size=rows)
        # What is freed between groups would be kept, and grow.
        self._pa.system_memory_pool().release_unused()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._writer.close()
                self._buffer.flush()
        finally:
            # Arrow writes in any case: its foot now, what the buffer has when that is freed, or it says so on stderr.
            self._file.write = len
            with contextlib.suppress(Exception):
                self._writer.close()
            self._buffer.detach()


def read_back(path: str, head: Head, kind: str) -> tuple[int, int]:
    """
    Read a part from the disk, and count its rows and gaps; return its size and its CRC-32.

    Raises:
        OSError: It cannot be read, or is not what was written.
    """
    with open(path, "rb") as file:
        if hasattr(os, "posix_fadvise"):  # not from the memory of the system
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size, crc32, expected = 0, 0, 1 + head.drops + head.rows
        decompressor = zlib.decompressobj(wbits=31)
        lines = 0
        while block := file.read(_BLOCK):
            size += len(block)
            crc32 = zlib.crc32(block, crc32)
            while kind == JSON_LINES and block:
                try:
                    lines += decompressor.decompress(block, _BLOCK).count(b"\n")
                except zlib.error as error:
                    raise _differs(path) from error
                block = decompressor.unconsumed_tail
    if kind == JSON_LINES:
        lines += decompressor.flush().count(b"\n")
        sound = decompressor.eof and not decompressor.unused_data and lines == expected
    else:
        sound = _count_parquet(path) == (head.rows, head.drops)
    if not sound:
        raise _differs(path)
    return size, crc32


def _count_parquet(path: str) -> tuple[int, int]:
    """Count the rows of a part of Parquet, a row group at a time, with a look at every page, and its gaps."""
    pa, pq = parquet.import_pyarrow()
    rows = 0
    options = {"buffer_size": _BLOCK, "pre_buffer": False, "page_checksum_verification": True}
    try:
        # Texts that rows share are not copied into each row.
        with pq.ParquetFile(path, read_dictionary=_SHARED, **options) as file:
            metadata = file.metadata.metadata
            lists = takewhile(lambda some: some is not None, map(metadata.get, drops_keys()))
            gaps = sum(len(json.loads(some)) for some in lists)
            for group in range(file.num_row_groups):
                rows += sum(
                    batch.num_rows for batch in file.iter_batches(parquet.GROUP_ROWS, [group], use_threads=False)
                )
                pa.default_memory_pool().release_unused()
    except pa.ArrowInvalid as error:
        raise _differs(path) from error
    return rows, gaps


def _differs(path: str) -> OSError:
    return OSError(errno.EIO, "What was read back is not what was written", path)
