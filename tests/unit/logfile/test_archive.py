"""
What a part of an archive is called, and what it says of itself.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._logfile.archive import HEAD_KEY, Head, PartName, part_names, read_head, stem_of

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")

HEAD = Head("app-log", "8c0f" * 4, 11, 20, 1_000_000, 2_000_000, 40, 1, 50, {"40": "ERROR"}, [{"process": 1}])


@pytest.mark.parametrize(
    "name", [("app-log", "2026-11-28", 1, "jsonl.gz"), ("a.2026-11-28.2", "2026-11-29", 12, "parquet")]
)
def test_a_name_is_read_as_it_is_written(name: tuple[str, str, int, str]) -> None:
    """The name of a part is read as it was written, also of a log whose own name looks like that of a part."""
    part = PartName(*name)

    assert part == PartName.parse(str(part))


def test_names(tmp_path: Path) -> None:
    """A folder has the parts of several logs; what is no part, or is still being written, is none."""
    parts = ["a.2026-11-28.jsonl.gz", "a.2026-11-28.2.jsonl.gz", "a.2026-11-28.10.jsonl.gz", "b.2026-01-01.parquet"]
    others = [
        "a.2026-11-28.3.jsonl.gz.partial",
        "a.2026-11-28.1.jsonl.gz",
        "a.2026-11-28.02.jsonl.gz",
        "a.db",
        "x.jsonl.gz",
    ]
    for name in parts[::-1] + others:
        (tmp_path / name).touch()

    assert parts == [str(name) for name in part_names(str(tmp_path))]
    assert parts[3:] == [str(name) for name in part_names(str(tmp_path), "b")]


def test_the_stem() -> None:
    """
    Parts are named after the file of the log without its `.db`; another suffix stays.

    The parts of a log `.db` had a name without a stem, which nobody knew as that of a part: each was written over the
    last one, and its rows were lost. A log whose name is not UTF-8 could not be archived.
    """
    assert ["app-log", "app.sqlite"] == [stem_of("/var/log/app-log.db"), stem_of("app.sqlite")]
    assert [".db", r"caf\udce9"] == [stem_of("/var/log/.db"), stem_of("caf\udce9.db")]


def test_the_head_of_json_lines(tmp_path: Path) -> None:
    """The first line of a part of JSON lines is its head."""
    path = tmp_path / "a.2026-11-28.jsonl.gz"
    path.write_bytes(gzip.compress(HEAD.to_json().encode() + b'\n{"id": 11}\n'))

    assert HEAD == read_head(str(path))
    assert 10 == HEAD.rows == json.loads(HEAD.to_json())["rows"]


def test_the_head_of_parquet(tmp_path: Path) -> None:
    """A part of Parquet has its head in the metadata of the file."""
    path = tmp_path / "a.2026-11-28.parquet"
    table = pa.table({"id": [11]}).replace_schema_metadata({HEAD_KEY: HEAD.to_json()})
    pq.write_table(table, path)

    assert HEAD == read_head(str(path))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(b"[" * 100_000, mtime=0),
        gzip.compress(b'{"archive": 1}\n', mtime=0),
        gzip.compress(HEAD.to_json().replace('"first_id": 11', '"first_id": 12').encode(), mtime=0),
        gzip.compress(HEAD.to_json().replace('"first_id": 11', '"first_id": "11"').encode(), mtime=0),
        gzip.compress(HEAD.to_json().encode(), mtime=0)[:40],
        gzip.compress(HEAD.to_json().encode(), mtime=0)[:20] + b"\xff" * 40,
    ],
)
@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_what_is_no_part(data: bytes, kind: str, tmp_path: Path) -> None:
    """A file that was cut, or is something else under the name of a part, is refused by a ValueError."""
    path = tmp_path / f"a.2026-11-28.{kind}"
    path.write_bytes(data)
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        read_head(str(path))
