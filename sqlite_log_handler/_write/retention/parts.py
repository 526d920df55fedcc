"""
What stands in a part of the archive: its head, its gaps and its rows, read from the log, written, and read back.

Rows are read in statements of some milliseconds, so they hold back neither the WAL nor a fork. SQLite makes the JSON
and zlib compresses it, both with the GIL free, so the program that logs goes on. Memory is bounded by the size of a
chunk, and with Parquet by that of a row group.
"""

import contextlib
import errno
import gzip
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, takewhile
from types import SimpleNamespace
from typing import IO, Any, Final, TypeAlias

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
    is_led_away,
)
from sqlite_log_handler._logfile.columns import INTEGERS, LEVELS, LONG_TEXTS, whole
from sqlite_log_handler._logfile.connect import corrupt, open_file, primary_code
from sqlite_log_handler._logfile.forks import Connection

_DAY_US: Final = 86_400_000_000
_LAST_US: Final = 2**63 - 1

# JSON that one statement makes, roughly: some 50 ms, for which a fork waits. A program whose threads are busy hands
# over the GIL every 5 ms only, and between two statements it is needed a dozen times; so there are to be few.
_CHUNK_BYTES: Final = 5 * 512 * 1024
_CHUNK_ROWS: Final = 5_000
# What it makes at most, if the next rows are much larger than the last ones.
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
# The id of the log, as `_logfile.schema` makes it; NULL if it was damaged.
LOG_ID: Final = "iif(typeof(log_id) = 'text' AND length(log_id) = 16 AND log_id NOT GLOB '*[^0-9a-f]*', log_id, NULL)"
# The last row before the first hole, which somebody has made by hand, and before the first row of a later day. The last
# day that a column can hold is cut short.
_END: Final = f"""
SELECT ifnull(max(id), :first_id - 1) FROM (
    SELECT id, row_number() OVER by_id AS number, max({whole("created_us")}) OVER by_id AS latest
    FROM records WHERE id BETWEEN :first_id AND :last_id WINDOW by_id AS (ORDER BY id)
) WHERE id = :first_id + number - 1 AND latest <= :until
"""  # noqa: S608 - same
_LOOK: Final = f"""
SELECT count(*), min({whole("created_us")}), max({whole("created_us")}), max({whole("levelno")})
FROM records WHERE id BETWEEN ? AND ?
"""  # noqa: S608 - same
_KEY: Final = f"SELECT DISTINCT levelno, {whole('process_id')} FROM"
_KEYS: Final = f"{_KEY} records WHERE id BETWEEN ? AND ?"
# A gap stands behind the row with its `after_id`, and goes with the row that comes next.
_IN_PART: Final = "after_id >= ? - 1 AND after_id < ?"
_KEYS_OF_DROPS: Final = f"{_KEY} drops WHERE {_IN_PART} LIMIT ?"
_SUM_OF_DROPS: Final = f"SELECT count(*), CAST(total({whole('count')}) AS INTEGER) FROM drops WHERE {_IN_PART}"  # noqa: S608 - same
_DROPS_OF: Final = f"{SELECT_DROP} WHERE {_IN_PART} AND drops.id > ? ORDER BY drops.id LIMIT {_DROPS}"
_CHUNK: Final = """
SELECT count(*), count(line), CAST(group_concat(line, char(10)) || char(10) AS BLOB)
FROM ({} WHERE records.id BETWEEN ? AND ? ORDER BY records.id LIMIT -1)
"""
_CHUNKS: Final = {JSON_LINES: _CHUNK.format(SELECT_JSON), PARQUET: _CHUNK.format(SELECT_CSV)}


# Adds lines to a part, which have this many rows.
_Write: TypeAlias = Callable[[bytes, int], object]


class Vanished(Exception):  # noqa: N818 - a state, as queue.Full is
    """Rows were deleted before they were archived."""


class OutOfTime(Exception):  # noqa: N818 - same
    """There is no more time for the archive."""


def ask(connection: Connection, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[Any]:
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
    Return the head of a part that begins with row `first_id`, and the time of that row; raise Vanished without it.

    The part ends with its day, at a hole that somebody has made by hand, with row `last_id`, or sooner if very many
    processes wrote its rows. If the `log_id` of the log was damaged, the head has None.
    """
    first_us = next((us for (us,) in ask(connection, CREATED, (first_id,))), 0)
    until_us = min(first_us // _DAY_US * _DAY_US + _DAY_US - 1, _LAST_US)
    looks: list[tuple[int, int, int]] = []
    keys: set[tuple[int, int]] = set()
    begin = first_id
    while begin <= last_id:
        last = min(begin + _SPAN - 1, last_id)
        count, *look = ask(connection, _LOOK, (begin, last))[0]
        if count <= last - begin or look[1] > until_us:
            ((last_id,),) = ask(connection, _END, {"first_id": begin, "last_id": last, "until": until_us})
            continue
        some = keys.union(ask(connection, _KEYS, (begin, last)))
        if len(some) > _MOST_KEYS and last > begin:
            last_id = (begin + last) // 2
            continue
        looks.append(look)
        keys, begin = some, last + 1
    if not looks:
        raise Vanished
    since, until, levelnos = zip(*looks, strict=True)
    keys.update(ask(connection, _KEYS_OF_DROPS, (first_id, last_id, _MOST_KEYS)))
    ((drops, dropped),) = ask(connection, _SUM_OF_DROPS, (first_id, last_id))
    ((log_id,),) = ask(connection, f"SELECT {LOG_ID} FROM marks")  # noqa: S608 - our own SQL
    names = dict(ask(connection, LEVELS))
    processes: list[str] = []
    size = 0
    for process_id in sorted({key[1] for key in keys}):
        for (line,) in ask(connection, f"{SELECT_PROCESS} WHERE id = ?", (process_id,)):
            processes.append(line)
            _require_short(size := size + len(line))
    head = Head(
        stem,
        log_id,
        first_id,
        last_id,
        min(since),
        max(until),
        max(levelnos),
        drops,
        dropped,
        {str(levelno): names[levelno] for levelno in sorted({key[0] for key in keys} & {*names})},
        [*map(json.loads, processes)],
    )
    return head, first_us


def _require_short(head_bytes: int) -> None:
    if head_bytes >= LONGEST_LINE:
        raise OSError(errno.EFBIG, "Too many processes dropped records: no reader would take the part")


def write_part(
    connection: Connection, file: IO[bytes], head: Head, kind: str, stopped: Callable[[], bool] = lambda: False
) -> int:
    """
    Write a part, or raise one of the states above: OutOfTime when `stopped` says so. Return the id of its last row.

    It is a lower one than the head says, and the part is to be made anew up to there, if the part became so small for
    its rows that readers would take it for a bomb.
    """
    first_line = head.to_json()
    _require_short(len(first_line.encode()))
    chunks, drops = _chunks_of(connection, head, kind), _drops_of(connection, head)
    if kind == JSON_LINES:
        before = chain([first_line], (f'{{"drop":{drop}}}' for drop in drops))
        chunks = chain(((f"{line}\n".encode(), 0) for line in before), chunks)
        sink = _compressed(file)
    else:
        sink = _parquet(file, first_line, drops)
    size, last_id = 0, head.first_id - 1
    with sink as write:
        for lines, rows in chunks:
            write(lines, rows)
            size += len(lines)
            if size > GRANTED + GROWTH * file.tell() and last_id >= head.first_id:
                break
            if stopped():
                raise OutOfTime
            last_id += rows
    return last_id


def _drops_of(connection: Connection, head: Head) -> Iterator[str]:
    """Yield the gaps of a part as objects of JSON."""
    last = -(2**63)
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
        except sqlite3.DataError:  # SQLITE_TOOBIG, and nothing else
            found, whole_lines = rows, 0
        if found != rows:
            # From the row before, as they stand in the file: SQLite takes them to be in order.
            ids = ask(connection, "SELECT id FROM records WHERE id >= ? - 1 ORDER BY id LIMIT ?", (id_, rows + 1))
            raise Vanished if ids == sorted(ids) else corrupt("the ids of its rows are out of order")
        if whole_lines < rows:  # of a text that is too long, printf makes NULL
            if rows == 1:
                raise OSError(errno.EFBIG, f"Row {id_} is longer than any that a handler writes: delete it")
            rows = max(1, rows // 8)
            continue
        yield lines, rows
        id_ += rows
        rows = max(1, min(2 * rows, rows * _CHUNK_BYTES // len(lines), _CHUNK_ROWS))


@contextlib.contextmanager
def _compressed(file: IO[bytes]) -> Iterator[_Write]:
    """Write a part of JSON lines. The rows of each chunk are lines already."""
    compressor = zlib.compressobj(_LEVEL, wbits=31)
    yield lambda lines, _: file.write(compressor.compress(lines))
    file.write(compressor.flush())


@contextlib.contextmanager
def _parquet(file: IO[bytes], head: str, drops: Iterable[str]) -> Iterator[_Write]:
    """Write a part of Parquet. Arrow makes a row group from the CSV of each chunk, with the GIL free as well."""
    pa, _ = parquet.import_pyarrow()
    schema = parquet.schema_of(PART_COLUMNS, shared=True)
    # Arrow writes each column of a row group, and takes the GIL to call Python's `write`: 50 times for some 50 KB.
    passed_on = SimpleNamespace(write=file.write, tell=file.tell, closed=False)
    buffer = pa.BufferedOutputStream(pa.PythonFile(passed_on, "w"), _BLOCK)
    writer = parquet.writer(buffer, schema)

    def write(lines: bytes, rows: int) -> None:
        writer.write_table(parquet.table_of(lines, schema), row_group_size=rows)
        # What is freed between groups would be kept, and grow.
        pa.system_memory_pool().release_unused()

    try:
        writer.add_key_value_metadata({HEAD_KEY: head, **drops_metadata(drops)})
        yield write
        writer.close()
        buffer.flush()
    finally:
        # Arrow writes in any case: its foot now, what the buffer has when that is freed, or it says so on stderr.
        passed_on.write = len
        with contextlib.suppress(Exception):
            writer.close()
        buffer.detach()


def read_head(path: str) -> Head | None:
    """Read the head of a part; None if it is no part, or cannot be read."""
    if not os.path.isfile(path) or is_led_away(path):  # to open a pipe would take until somebody writes to it
        return None
    with contextlib.suppress(ValueError, ImportError, EOFError, OSError, zlib.error):  # Arrow's are ValueErrors
        if path.endswith("." + PARQUET):
            metadata = parquet.import_pyarrow()[1].read_metadata(path).metadata or {}
            return Head.from_json(metadata.get(HEAD_KEY, b"null"))
        with gzip.open(path) as file:
            return Head.from_json(file.readline(LONGEST_LINE))
    return None


def read_back(path: str, head: Head, kind: str) -> tuple[int, int]:
    """
    Read a part from the disk, and count its rows and gaps; return its size and its CRC-32.

    Raises:
        OSError: It cannot be read, or is not what was written.
    """
    size = crc32 = 0
    with open_file(path, "rb") as file:
        with contextlib.suppress(OSError, AttributeError):  # not from the memory of the system, if it has such advice
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for block in iter(partial(file.read, _BLOCK), b""):
            size += len(block)
            crc32 = zlib.crc32(block, crc32)
    with contextlib.suppress(ValueError, zlib.error):  # Arrow's errors are ValueErrors
        if kind == JSON_LINES:
            sound = _count_lines(path) == 1 + head.drops + head.rows
        else:
            sound = _count_parquet(path) == (head.rows, head.drops)
        if sound:
            return size, crc32
    raise OSError(errno.EIO, "What was read back is not what was written", path)


def _count_lines(path: str) -> int:
    decompressor, lines = zlib.decompressobj(wbits=31), 0
    with open_file(path, "rb") as file:
        for block in iter(lambda: decompressor.unconsumed_tail or file.read(_BLOCK), b""):
            lines += decompressor.decompress(block, _BLOCK).count(b"\n")
    lines += decompressor.flush().count(b"\n")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError
    return lines


def _count_parquet(path: str) -> tuple[int, int]:
    """Count the rows of a part of Parquet, a row group at a time, with a look at every page, and its gaps."""
    pa, pq = parquet.import_pyarrow()
    options = {"buffer_size": _BLOCK, "pre_buffer": False, "page_checksum_verification": True}
    # Texts that rows share are not copied into each row.
    with pq.ParquetFile(path, read_dictionary=_SHARED, **options) as file:
        lists = takewhile(lambda some: some is not None, map(file.metadata.metadata.get, drops_keys()))
        rows, gaps = 0, sum(len(json.loads(some)) for some in lists)
        for group in range(file.num_row_groups):
            batches = file.iter_batches(parquet.GROUP_ROWS, [group], use_threads=False)
            rows += sum(batch.num_rows for batch in batches)
            pa.default_memory_pool().release_unused()
    return rows, gaps
