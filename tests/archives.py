"""
Parts of an archive, as tests read them: without the code that they test.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import sqlite3
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlite_log_handler._logfile.archive import DROPS_KEY, HEAD_KEY

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("jsonl.gz", "parquet")


class Contents(NamedTuple):
    """What a part has."""

    head: dict[str, Any]
    drops: list[dict[str, Any]]
    rows: list[dict[str, Any]]


def contents_of(path: Path) -> Contents:
    """Read a part whole."""
    if path.suffix == ".parquet":
        parquet = importlib.import_module("pyarrow.parquet")
        content = path.read_bytes()  # a thread of Arrow may close a file a moment after it was read
        metadata = parquet.read_metadata(BytesIO(content)).metadata
        rows = parquet.read_table(BytesIO(content)).to_pylist()
        return Contents(json.loads(metadata[HEAD_KEY]), json.loads(metadata[DROPS_KEY]), rows)
    head, *lines = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    return Contents(
        head, [line["drop"] for line in lines if "drop" in line], [line for line in lines if "drop" not in line]
    )


def parts_in(folder: Path) -> list[str]:
    """Return the names of what is in an archive, but for its lock."""
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith("-lock"))


def account(path: Path, folder: Path) -> tuple[list[int], int]:
    """
    Return the ids of all rows that the archive and the file have, once for each place where a reader takes it from, and
    how many were deleted without an archive; check that every part that is noted is there and whole.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        noted = connection.execute("SELECT name, first_id, last_id, bytes FROM archives ORDER BY id").fetchall()
        (archived_id, unarchived, expired) = connection.execute(
            "SELECT archived_id, unarchived, expired FROM marks"
        ).fetchone()
        in_file = [
            id_ for (id_,) in connection.execute("SELECT id FROM records WHERE id > ? ORDER BY id", (archived_id,))
        ]
    ids = []
    for name, first_id, last_id, size in noted:
        found = [row["id"] for row in contents_of(folder / name).rows]
        assert [*range(first_id, last_id + 1)] == found
        assert size == (folder / name).stat().st_size
        ids += found
    return ids + in_file, unarchived + expired
