"""
What stands in a part: every row once, whatever it holds, in bounded memory; and what is found when it is read back.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from archives import contents_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlite_log_handler._logfile.archive import HEAD_KEY, Head
from sqlite_log_handler._write.retention import parts
from sqlite_log_handler._write.retention.parts import OutOfTime, Vanished, head_of, read_back, read_head, write_part

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Log  # type: ignore[attr-defined]

    from sqlite_log_handler._logfile.forks import Connection

HEAD = Head("app-log", "8c0f" * 4, 11, 20, 1_000_000, 2_000_000, 40, 1, 50, {"40": "ERROR"}, [{"process": 1}])


def written(folder: Path, reading: Connection, kind: str, last_id: int) -> Path:
    """Write a part of the rows up to an id."""
    path = folder / f"part.{kind}"
    head, _ = head_of(reading, "app-log", 1, last_id)
    with path.open("wb") as file:
        write_part(reading, file, head, kind)
    return path


def test_every_row_once(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """Rows stand in a part in the order of their ids, each once, in chunks and groups of any size."""
    monkeypatch.setattr(parts, "_CHUNK_BYTES", 5_000)
    monkeypatch.setattr(parts, "_CHUNK_ROWS", 100)
    monkeypatch.setattr(parts, "_SPAN", 64)
    log.fill(1_000, step=1)

    path = written(folder, reading, kind, 999)
    head, drops, rows = contents_of(path)

    assert [*range(1, 1_000)] == [row["id"] for row in rows]
    assert [str(number) for number in range(1, 1_000)] == [row["message"].strip() for row in rows]
    assert (999, []) == (head["rows"], drops)
    assert log.ask("SELECT min(created_us), max(created_us) FROM records WHERE id < 1000") == [
        (head["since_us"], head["until_us"])
    ]


def test_arrow_seldom_calls_python(log: Log, reading: Connection, folder: Path, monkeypatch) -> None:
    """
    Row groups of Parquet reach the file some hundred at a time.

    Arrow wrote each column of each group by a call of Python, 50 times for 50 KB. Each took the GIL from a program that
    logged at full speed.
    """
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    monkeypatch.setattr(parts, "_CHUNK_ROWS", 100)
    log.fill(1_000)
    head, _ = head_of(reading, "app-log", 1, 999)
    calls = []

    class File(io.BytesIO):
        def write(self, data: Any) -> int:
            calls.append(len(data))
            return super().write(data)

    write_part(reading, File(), head, "parquet")

    assert len(calls) < 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_arrow_says_nothing_of_a_part_that_was_given_up(log: Log, reading: Connection, folder: Path, capfd) -> None:
    """
    A part that cannot be written is an error, and a part that is given up is none; neither brings a line of Arrow.

    "Error ignored when destroying file of type N5arrow2io20BufferedOutputStreamE" stood on standard error.
    """
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    log.fill(1_000)
    head, _ = head_of(reading, "app-log", 1, 999)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        write_part(reading, full, head, "parquet")
    with (folder / "part").open("wb") as file, pytest.raises(OutOfTime):
        write_part(reading, file, head, "parquet", lambda: True)
    gc.collect()

    assert ("", "") == capfd.readouterr()


def test_gaps_without_end(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """The gaps of a part are read some at a time, and none is left out."""
    monkeypatch.setattr(parts, "_DROPS", 7)
    log.fill(20)
    log.connection.executemany(
        "INSERT INTO drops VALUES (NULL, ?, 0, 0, 1, 'queue_full', 'app', 20, 1)", [(id_ % 19,) for id_ in range(3_000)]
    )

    drops = contents_of(written(folder, reading, kind, 19)).drops

    assert [*range(1, 3_001)] == [drop["id"] for drop in drops]


def test_processes_of_gaps(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """
    However many processes have lost records, the head stays short; each gap names its process itself.

    A job ran every second beside a full disk. All of its records were dropped, its processes made the head too long,
    and no row was archived any more.
    """
    monkeypatch.setattr(parts, "_MOST_KEYS", 5)
    log.fill(20)
    log.connection.executemany(
        "INSERT INTO processes VALUES (?, 'host', ?, 'Job', 0, 'job')", [(id_, 100 + id_) for id_ in range(2, 50)]
    )
    log.connection.executemany(
        "INSERT INTO drops VALUES (NULL, 3, 0, 0, ?, 'disk_budget', 'app', 20, 1)", [(id_,) for id_ in range(2, 50)]
    )

    head, drops, _ = contents_of(written(folder, reading, kind, 19))

    assert 1 < len(head["processes"]) <= 6
    assert [*range(102, 150)] == [drop["process"] for drop in drops]


def test_rows_of_all_sizes(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """
    A few rows that are as large as thousands of others do not make a chunk of thousands of times the size.

    What SQLite makes in one statement is bounded, and what exceeds that is read in smaller pieces, a single row in any
    case.
    """
    most, sizes = 20_000, []
    monkeypatch.setattr(parts, "_MOST_CHUNK_BYTES", most)
    ask = parts.ask

    def remember(connection, sql, parameters=()):
        found = ask(connection, sql, parameters)
        if "group_concat" in sql:
            sizes.extend(len(lines or ()) for *_, lines in found)
        return found

    monkeypatch.setattr(parts, "ask", remember)
    log.fill(2_000)
    log.fill(20, width=15_000)
    log.fill(1, width=3 * most)
    log.fill(500)

    rows = contents_of(written(folder, reading, kind, 2_520)).rows

    assert [*range(1, 2_521)] == [row["id"] for row in rows]
    assert [3 * most] == [len(row["message"]) for row in rows if len(row["message"]) > most]
    assert 1 == sum(size > most for size in sizes)


def test_a_row_that_no_handler_writes(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """A row so long that no reader would take the part is an error that names it, and takes no memory of its length."""
    for most in ("_MOST_CHUNK_BYTES", "LONGEST_LINE"):
        monkeypatch.setattr(parts, most, 200_000)
    log.fill(20)
    log.fill(1, width=200_000)

    with pytest.raises(OSError, match="Row 21 is longer than any that a handler writes: delete it"):
        written(folder, reading, kind, 21)


def test_a_row_without_its_source(log: Log, reading: Connection, folder: Path, kind: str) -> None:
    """
    A row whose lines of `sources` and `processes` somebody has deleted is archived all the same, without their names.

    The view `logs` does not show it. So the archiver took it for deleted, and tried again without end, in silence.
    """
    log.fill(3)
    for table in ("sources", "processes"):
        log.connection.execute(f"DELETE FROM {table}")

    rows = contents_of(written(folder, reading, kind, 3)).rows

    assert [(1, "", 0), (2, "", 0), (3, "", 0)] == [(row["id"], row["logger"], row["process"]) for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text() | st.sampled_from(['"', "'", "NULL", "\\", "\r\n", "{}", '{"drop": 1}']), min_size=1))
def test_any_text(log: Log, reading: Connection, folder: Path, kind: str, texts: list[str]) -> None:
    """Any text comes out of a part as it went in."""
    texts = [text.replace("\0", "") for text in texts]
    texts = [text.encode(errors="ignore").decode() for text in texts]
    log.connection.execute("DELETE FROM records")
    log.connection.executemany(
        "INSERT INTO records (id, created_us, levelno, source_id, process_id, message, attributes) "
        "VALUES (?, 1, 20, 1, 1, ?, ?)",
        [(id_, text, json.dumps({"text": text})) for id_, text in enumerate(texts, 1)],
    )

    rows = contents_of(written(folder, reading, kind, len(texts))).rows

    assert texts == [row["message"] for row in rows]
    attributes = [json.loads(row["attributes"]) if kind == "parquet" else row["attributes"] for row in rows]
    assert texts == [each["text"] for each in attributes]


def test_a_nul(log: Log, reading: Connection, folder: Path, kind: str) -> None:
    """A NUL that somebody has written by hand cuts off nothing; in Parquet its text is JSON."""
    log.connection.execute(
        "INSERT INTO records (id, created_us, levelno, source_id, process_id, message, exc_text) "
        "VALUES (1, 1, 20, 1, 1, 'a' || char(0) || 'b', 'c' || char(0)), (2, 1, 20, 1, 1, 'NULL', '')"
    )
    texts = ('"a\\u0000b"', '"c\\u0000"') if kind == "parquet" else ("a\0b", "c\0")

    rows = contents_of(written(folder, reading, kind, 2)).rows

    assert [(*texts, None), ("NULL", "", None)] == [
        (row["message"], row["exc_text"], row["stack_info"]) for row in rows
    ]


def test_cells_of_another_kind(log: Log, reading: Connection, folder: Path, kind: str) -> None:
    """A cell that somebody has written by hand is archived as what its column holds."""
    log.connection.execute(
        "INSERT INTO records VALUES (1, '7', x'01', 1, 1, NULL, 'x', 1, 2, x'41', 3, 4, 5, 'no JSON'), "
        "(2, 9, 20, 1, 1, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL, NULL)"
    )

    (row, _) = contents_of(written(folder, reading, kind, 2)).rows

    assert (7, 0, "A", "no JSON") == (row["created_us"], row["levelno"], row["message"], row["attributes"])


def test_rows_that_vanish(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """Rows that are deleted before they were read end the part; nothing is archived in their place."""
    monkeypatch.setattr(parts, "_CHUNK_ROWS", 100)
    log.fill(1_000)
    head, _ = head_of(reading, "app-log", 1, 900)
    with (folder / "part").open("wb") as file, pytest.raises(Vanished):
        write_part(
            reading, file, head, kind, lambda: log.connection.execute("DELETE FROM records WHERE id = 700") is None
        )
    with pytest.raises(Vanished):
        head_of(reading, "app-log", 700, 900)


def test_it_ends_at_the_next_chunk(log: Log, reading: Connection, folder: Path, kind: str) -> None:
    """A program that has no more time for a part ends it after a chunk."""
    log.fill(10_000)
    head, _ = head_of(reading, "app-log", 1, 9_000)
    asked: list[int] = []
    with (folder / "part").open("wb") as file, pytest.raises(OutOfTime):
        write_part(reading, file, head, kind, lambda: bool(asked.append(1) or True))

    assert [1] == asked


def test_a_head_that_no_reader_would_take(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """A part whose head names more than a reader takes is not written: its rows would be lost with it."""
    monkeypatch.setattr(parts, "LONGEST_LINE", 100)
    log.fill(20)

    with pytest.raises(OSError, match="no reader would take the part"):
        written(folder, reading, kind, 19)


@pytest.mark.parametrize("damage", ["cut", "last byte", "flip", "more", "fewer rows", "fewer gaps"])
def test_what_was_not_written_as_it_should_be(
    log: Log, reading: Connection, folder: Path, kind: str, damage: str
) -> None:
    """A disk that has lost a part of what it was given is found out before a row is deleted for it."""
    log.fill(500, step=0.001)
    path = written(folder, reading, kind, 499)
    head, _ = head_of(reading, "app-log", 1, 499)
    assert path.stat().st_size == read_back(str(path), head, kind)[0]
    data = path.read_bytes()
    changed = {
        "cut": data[:-20],
        "last byte": data[:-1],
        "flip": data[:300] + bytes([data[300] ^ 1]) + data[301:],
        "more": data + b"more",
        "fewer rows": data,
        "fewer gaps": data,
    }
    path.write_bytes(changed[damage])
    if damage == "fewer rows":
        head = head._replace(last_id=500)
    if damage == "fewer gaps":
        head = head._replace(drops=1)

    with pytest.raises(OSError):  # noqa: PT011 - zlib, Arrow and we find it
        read_back(str(path), head, kind)


def test_a_part_is_read_back_in_blocks(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """A part of which each block decompresses to many is sound."""
    log.fill(500, width=100)
    path = written(folder, reading, kind, 499)
    head, _ = head_of(reading, "app-log", 1, 499)
    monkeypatch.setattr(parts, "_BLOCK", 1_000)

    assert path.stat().st_size == read_back(str(path), head, kind)[0]


def test_it_reads_in_short_statements(log: Log, reading: Connection, folder: Path, kind: str, monkeypatch) -> None:
    """
    Between two chunks no statement is open, so the writer's WAL can be written back while a day of rows is archived.
    """
    monkeypatch.setattr(parts, "_CHUNK_ROWS", 100)
    log.fill(2_000)
    head, _ = head_of(reading, "app-log", 1, 1_900)
    busy = []

    def look() -> bool:
        log.fill(1)
        busy.append(log.ask("PRAGMA wal_checkpoint(TRUNCATE)")[0][0])
        return False

    with (folder / "part").open("wb") as file:
        write_part(reading, file, head, kind, look)

    assert 10 <= len(busy)
    assert {0} == {*busy}


def test_the_head_of_json_lines(tmp_path: Path) -> None:
    """The first line of a part of JSON lines is its head."""
    path = tmp_path / "a.2026-11-28.jsonl.gz"
    path.write_bytes(gzip.compress(HEAD.to_json().encode() + b'\n{"id": 11}\n'))

    assert HEAD == read_head(str(path))


def test_the_head_of_parquet(tmp_path: Path) -> None:
    """A part of Parquet has its head in the metadata of the file."""
    pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    path = tmp_path / "a.2026-11-28.parquet"
    pq.write_table(pa.table({"id": [11]}).replace_schema_metadata({HEAD_KEY: HEAD.to_json()}), path)

    assert HEAD == read_head(str(path))


def test_a_head_behind_a_link(tmp_path: Path) -> None:
    """
    A link that leads to a file of another name is no part, and is not opened.

    It may lead to a database of the program: to close that would take away all locks that SQLite has on it.
    """
    path, target = tmp_path / "a.2026-11-28.jsonl.gz", tmp_path / "own.db"
    target.write_bytes(gzip.compress(HEAD.to_json().encode()))
    path.symlink_to(target)

    assert None is read_head(str(path))


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"no gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(HEAD.to_json().encode(), mtime=0)[:40],
        gzip.compress(HEAD.to_json().encode(), mtime=0)[:20] + b"\xff" * 40,
    ],
)
def test_what_is_no_part(data: bytes | None, kind: str, tmp_path: Path) -> None:
    """A file that was cut, is something else under the name of a part, or is not there, has no head."""
    path = tmp_path / f"a.2026-11-28.{kind}"
    if data is not None:
        path.write_bytes(data)

    assert None is read_head(str(path))


def test_the_last_day_that_a_column_can_hold(log: Log, reading: Connection) -> None:
    """
    A row of the last moment that 64 bits can hold is archived as any other, and a hole behind it ends its part.

    The end of that day is beyond 64 bits: `prune --archive` ended in an OverflowError.
    """
    log.fill(4)
    log.connection.execute("UPDATE records SET created_us = 9223372036854775807 WHERE id < 3")
    log.connection.execute("DELETE FROM records WHERE id = 3")

    head, _ = head_of(reading, "app-log", 1, 4)
    assert (1, 2, 2**63 - 1) == (head.first_id, head.last_id, head.until_us)


def test_levels_without_end(log: Log, reading: Connection) -> None:
    """As readers do, the archive takes the names of 1,000 levels, however many somebody has put into the file."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    log.connection.execute(f"{numbers} INSERT INTO levels SELECT i, printf('%01000d', i) FROM n")
    log.fill(2)
    tracemalloc.start()
    try:
        head_of(reading, "app-log", 1, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000, peak


def test_processes_with_long_names(log: Log, reading: Connection) -> None:
    """A head that no reader would take is given up before all names of processes are in memory."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 21)"
    log.connection.execute(
        f"{numbers} INSERT INTO processes SELECT i, 'host', i, printf('%01000000d', i), i, 'app' FROM n"
    )
    log.fill(20)
    log.connection.execute("UPDATE records SET process_id = id + 1")
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="Too many processes"):
            head_of(reading, "app-log", 1, 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10_000_000, peak
