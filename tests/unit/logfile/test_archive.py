"""
What a part of an archive is called, and what it says of itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._logfile.archive import Head, PartName, part_names, stem_of

if TYPE_CHECKING:
    from pathlib import Path

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


def test_the_head() -> None:
    """A head says how many rows the part has, and is read as it was written."""
    assert HEAD == Head.from_json(HEAD.to_json())
    assert 10 == HEAD.rows == json.loads(HEAD.to_json())["rows"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"archive": 1}',
        HEAD.to_json().replace('"first_id": 11', '"first_id": 12'),
        HEAD.to_json().replace('"first_id": 11', '"first_id": "11"'),
        HEAD._replace(first_id=2**63, last_id=2**63).to_json(),
    ],
)
def test_what_is_no_head(line: str) -> None:
    """A line that is something else is refused by a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        Head.from_json(line)
