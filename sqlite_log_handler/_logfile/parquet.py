"""
Parquet of a log: columns, encodings and row groups. It needs pyarrow, which is imported when a file is made or read.

Ids and times rise in small steps, so they are stored as differences. All other columns but the message have few
distinct values, so they are stored as indices into a dictionary. zstd compresses all of it. A row group is small,
because a query that asks for a time or a level skips the groups that have none of it.
"""

import importlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import IO, Any, Final

from sqlite_log_handler._logfile.columns import INTEGERS, LONG_TEXTS

# The most rows of a row group.
GROUP_ROWS: Final = 5_000

_RISING: Final = ("id", "created_us", "time")


def import_pyarrow() -> tuple[Any, Any]:
    """
    Import pyarrow, and its module for Parquet.

    Raises:
        ImportError: The extra `parquet` is not installed.
    """
    return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")


def schema_of(columns: Iterable[str], *, shared: bool = False) -> Any:
    """
    Return the schema of these columns of a log; `time` is a timestamp in UTC.

    Args:
        columns: Their names.
        shared: Whether a text that rows share is in memory only once, as it is in the file either way.
    """
    pa, _ = import_pyarrow()
    once = pa.dictionary(pa.int32(), pa.string()) if shared else pa.string()
    types = {name: pa.int64() if name in INTEGERS else pa.string() if name in LONG_TEXTS else once for name in columns}
    if "time" in types:
        types["time"] = pa.timestamp("us", tz="UTC")
    return pa.schema(list(types.items()))


def writer(file: IO[bytes], schema: Any) -> Any:
    """Return a `pyarrow.parquet.ParquetWriter` for a log."""
    pa, pq = import_pyarrow()
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=[name for name in schema.names if name not in {*_RISING, "message"}],
        column_encoding=dict.fromkeys(_RISING, "DELTA_BINARY_PACKED"),
        # The least and the greatest value of each group stay in memory to the end, so long texts get no statistics.
        write_statistics=[name for name in schema.names if name in {*INTEGERS, "time", "level", "logger"}],
        write_page_checksum=True,
        store_schema=False,  # Arrow's own copy says nothing that the file does not
        # Arrow's own pool keeps what it has freed.
        memory_pool=pa.system_memory_pool(),
    )


def batch_of(columns: Iterable[Sequence[Any]], schema: Any) -> Any:
    """Make a record batch from values by column. Not with `pyarrow.array`, which imports pandas if it can: 50 MB."""
    pa, _ = import_pyarrow()
    return pa.record_batch([_array(pa, *pair) for pair in zip(columns, schema.types, strict=True)], schema=schema)


def _array(pa: Any, values: Sequence[Any], kind: Any) -> Any:
    """Make an array of integers or texts, in the layout of https://arrow.apache.org/docs/format/Columnar.html."""
    nulls, valid = values.count(None), None
    if nulls == len(values):
        return pa.nulls(nulls, kind)
    if nulls:
        bits = "".join("0" if value is None else "1" for value in reversed(values))
        valid = pa.py_buffer(int(bits, 2).to_bytes(len(values) // 8 + 1, "little"))
        values = [value or ("" if kind == pa.string() else 0) for value in values]
    if kind != pa.string():
        buffers = [pa.py_buffer(array("q", values))]
    else:
        data = "".join(values).encode()
        # Only ASCII has a byte for each character.
        texts: Sequence[str | bytes] = values if data.isascii() else [value.encode() for value in values]
        buffers = [pa.py_buffer(array("i", accumulate(map(len, texts), initial=0))), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(values), [valid, *buffers], nulls)


def table_of(lines: bytes, schema: Any) -> Any:
    """Make a table from lines as `csv_line` makes them, with `time` from `created_us`. All on this thread."""
    pa, _ = import_pyarrow()
    csv = importlib.import_module("pyarrow.csv")
    types = {field.name: field.type for field in schema if field.name != "time"}
    table = csv.read_csv(
        pa.BufferReader(lines),
        csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=list(types)),
        csv.ParseOptions(quote_char="'", newlines_in_values=True),
        csv.ConvertOptions(
            check_utf8=False,
            column_types=types,
            null_values=["NULL"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
        memory_pool=pa.system_memory_pool(),
    )
    # Not with `cast`, which loads all of Arrow's compute functions: 9 MB.
    kind = schema.field("time").type
    times = pa.chunked_array([chunk.view(kind) for chunk in table["created_us"].chunks], kind)
    return pa.Table.from_arrays([times if name == "time" else table[name] for name in schema.names], schema=schema)
