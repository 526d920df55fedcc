"""
Parquet of a log: what takes its space, and what a query may skip.
"""

from __future__ import annotations

import io

import pytest

from sqlite_log_handler._logfile import parquet

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")

COLUMNS = ("id", "created_us", "time", "levelno", "logger", "message", "attributes")


def written(groups: int) -> bytes:
    """Write a hundred rows in each of these groups; the third one alone has an error."""
    schema, file = parquet.schema_of(COLUMNS, shared=True), io.BytesIO()
    with parquet.writer(file, schema) as writer:
        for group in range(groups):
            rows = [
                {
                    "id": group * 100 + number,
                    "created_us": 1_764_380_000_000_000 + (group * 100 + number) * 1_000_000,
                    "levelno": 40 if group == 2 and number == 50 else 20,
                    "logger": "shop.stock",
                    "message": f"stock of item {number} is low",
                }
                for number in range(100)
            ]
            lines = "".join(
                f"'{row['id']}','{row['created_us']}','{row['levelno']}','{row['logger']}','{row['message']}',NULL\n"
                for row in rows
            )
            writer.write_table(parquet.table_of(lines.encode(), schema))
    return file.getvalue()


def test_what_is_read_is_what_was_written() -> None:
    """Rows come out as they went in, `time` as a timestamp in UTC, and a column that no row has as NULL."""
    rows = pq.read_table(io.BytesIO(written(1))).to_pylist()

    assert [*range(100)] == [row["id"] for row in rows]
    assert "2025-11-29T01:33:21+00:00" == rows[1]["time"].isoformat()
    assert ("shop.stock", "stock of item 7 is low", None) == tuple(
        rows[7][name] for name in ("logger", "message", "attributes")
    )


def test_a_query_may_skip_groups() -> None:
    """Each row group says which ids, times and levels it has."""
    metadata = pq.ParquetFile(io.BytesIO(written(4))).metadata
    most = [
        [metadata.row_group(group).column(COLUMNS.index(name)).statistics.max for group in range(4)]
        for name in ("id", "levelno")
    ]

    assert [[99, 199, 299, 399], [20, 20, 40, 20]] == most


def test_how_columns_are_stored() -> None:
    """Ids and times are stored as differences, texts that repeat by their number, and all of it compressed by zstd."""
    group = pq.ParquetFile(io.BytesIO(written(1))).metadata.row_group(0)
    columns = {name: group.column(place) for place, name in enumerate(COLUMNS)}

    assert {"ZSTD"} == {column.compression for column in columns.values()}
    assert ["id", "created_us", "time"] == [
        name for name, column in columns.items() if "DELTA_BINARY_PACKED" in column.encodings
    ]
    assert "RLE_DICTIONARY" in columns["logger"].encodings


@pytest.mark.parametrize("nulls", [0, 1, 8, 17], ids=str)
def test_a_batch_has_the_values_it_was_made_of(nulls: int) -> None:
    """Values by column become arrays with these values, NULL included; we lay out their buffers ourselves."""
    texts = [*([None] * nulls), "", "stock", "\N{GRINNING FACE}\0", "x" * 100]
    numbers = [*([None] * nulls), 0, -(2**63), 2**63 - 1, 7]
    schema = parquet.schema_of(("id", "message"))

    batch = parquet.batch_of((numbers, texts), schema)
    batch.validate(full=True)
    assert {"id": numbers, "message": texts} == batch.to_pydict()
