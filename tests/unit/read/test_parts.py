"""
Parts of an archive that come from anywhere.
"""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from made_parts import write_head_and_rows
from slowly import slowly

from sqlite_log_handler import (
    CorruptFileError,
    LimitError,
    LogFileError,
    LogReader,
    MissingFileError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile import archive
from sqlite_log_handler._logfile.schema import MAX_RECORD_BYTES
from sqlite_log_handler._read import inventory, parts
from sqlite_log_handler._read.parts import FIELDS, Bounds, Part

if TYPE_CHECKING:
    from pathlib import Path

PROCESS = {"process": 1, "process_name": "Main", "host": "h", "started_us": 5, "program": "shop"}
ROW = {
    "id": 1, "created_us": 1_000_000, "time": "1970-01-01T00:00:01.000000Z", "levelno": 20, "level": "INFO",
    "logger": "shop", "message": "m", "pathname": "/a.py", "lineno": 1, "func": "f", "process": 1,
    "process_name": "Main", "host": "h", "thread": None, "thread_name": None, "task_name": None, "exc_type": None,
    "exc_text": None, "stack_info": None, "attributes": None, "template": "", "started_us": 5, "program": "shop",
}  # fmt: skip
DROP = {
    "id": 1, "after_id": 1, "since_us": 1, "until_us": 2, "cause": "queue_full", "logger": "shop", "levelno": 20,
    "count": 3, **PROCESS,
}  # fmt: skip
HEAD = {
    "archive": 1, "rows": 3, "log": "app-log", "log_id": "x", "first_id": 1, "last_id": 3, "since_us": 0,
    "until_us": 2**50, "max_levelno": 50, "drops": 1, "dropped": 3, "levels": {"20": "INFO"}, "processes": [PROCESS],
}  # fmt: skip
KINDS = ["jsonl.gz", "parquet"]


@pytest.fixture
def part(tmp_path: Path) -> Any:
    """Write a part of three rows and a gap; what is given differs."""

    def part(kind: str = "jsonl.gz", head: Any = None, drop: Any = None, more: int = 0, **row: Any) -> Path:
        path = tmp_path / f"app-log.1970-01-01.{kind}"
        rows = [{**ROW, "id": 1}, {**ROW, "id": 2, **row}, {**ROW, "id": 3}]
        rows += [{**ROW, "id": id_, "levelno": 10 + id_ // 12 * 40} for id_ in range(4, 4 + more)]
        write_head_and_rows(path, head if head is not None else HEAD, [DROP if drop is None else drop], rows)
        return path

    return part


def rows_of(path: Path, bounds: Bounds = Bounds()) -> list[tuple[Any, ...]]:  # noqa: B008 - immutable
    """Read all rows of a part."""
    return [row for rows in Part.open(str(path)).rows(bounds) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_a_part(part: Any, kind: str) -> None:
    """A part has its head, its gaps, and its rows with the values that were written."""
    # In JSON lines SQLite has left out the blanks.
    written = '{"a": {"attributes": 1.50}, "b": "},:"}'
    path = part(kind, message="übel", thread=-(2**63), attributes=written.replace(" ", "", 9 * (kind == "jsonl.gz")))
    found = Part.open(str(path))

    assert (1, 3, [DROP]) == (found.head.first_id, found.head.last_id, [*found.drops()])
    first, row, _ = rows_of(path)
    assert tuple(ROW[name] for name in FIELDS) == first
    expected = {
        **ROW,
        "id": 2,
        "message": "übel",
        "thread": -(2**63),
        "attributes": written,
    }
    assert tuple(expected[name] for name in FIELDS) == row


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bounds", "ids"),
    [
        (Bounds(ids=(2, 2)), [2]),
        (Bounds(ids=(3, 9)), [3]),
        (Bounds(times=(0, 999_999)), []),
        (Bounds(times=(2_000_000, 2_000_000)), [2]),
        (Bounds(levels=(30, 40)), [2]),
    ],
)
def test_bounds(part: Any, kind: str, bounds: Bounds, ids: list[int]) -> None:
    """Only rows within the bounds are returned, also if their attributes have members named like columns."""
    path = part(kind, created_us=2_000_000, levelno=40, attributes='{"created_us":5,"levelno":20}')

    assert ids == [row[0] for row in rows_of(path, bounds)]


def test_members_in_another_order(tmp_path: Path) -> None:
    """The order of members does not matter, and several members of gzip are one part."""
    row = {
        "attributes": {"created_us": 9, "levelno": 9},
        **{name: ROW[name] for name in reversed(ROW) if name[0] != "a"},
    }
    lines = [{**HEAD, "rows": 1, "last_id": 1, "drops": 0}, row]
    path = tmp_path / "app-log.1970-01-01.jsonl.gz"
    path.write_bytes(b"".join(gzip.compress(json.dumps(line).encode() + b"\n") for line in lines))

    assert [1] == [found[0] for found in rows_of(path, Bounds(times=(1_000_000, 1_000_000)))]
    assert '{"created_us": 9, "levelno": 9}' == rows_of(path)[0][FIELDS.index("attributes")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "head",
    [
        [], {}, {**HEAD, "archive": 2}, {**HEAD, "rows": 4}, {**HEAD, "first_id": 0, "rows": 4},
        {**HEAD, "first_id": 4, "rows": 0},
        {**HEAD, "last_id": 2**63, "rows": 2**63}, {**HEAD, "processes": [1]}, {**HEAD, "levels": {"x": "INFO"}},
        {**HEAD, "levels": {"20": 1}}, {**HEAD, "drops": -1}, {**HEAD, "processes": [{**PROCESS, "process": 2**70}]},
        {**HEAD, "processes": [{**PROCESS, "host": "\ud800"}]}, {**HEAD, "max_levelno": True},
        {**HEAD, "since_us": 2**70},
        {**HEAD, "levels": {"20": "\udfff"}},
    ],
)  # fmt: skip
def test_a_head_that_is_none(part: Any, kind: str, head: Any) -> None:
    """A head that says what no part has is refused, and the error names the file."""
    path = part(kind, head=head)
    with pytest.raises(CorruptFileError, match=r"app-log.*line 1: "):
        LogReader(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "drop",
    [1, {}, {**DROP, "count": "3"}, {**DROP, "count": 2**64}, {**DROP, "logger": None}, {**DROP, "cause": "\ud800"}],
)
def test_a_gap_that_is_none(part: Any, kind: str, drop: Any) -> None:
    """A gap with a value that no gap has is an error that names the file and the line, and rows can be read."""
    path = part(kind, drop=drop)
    with LogReader(path) as log:
        with pytest.raises(CorruptFileError, match=r"app-log.*line 2: not a gap"):
            log.gaps()
        assert 3 == log.count()


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_gaps_than_the_head_says(part: Any, kind: str) -> None:
    """A part that lacks gaps does not answer as if there had been none. In Parquet, they were not counted."""
    with LogReader(part(kind, head={**HEAD, "drops": 2})) as log, pytest.raises(CorruptFileError, match="not a gap"):
        log.gaps()


@pytest.mark.parametrize(
    "row",
    [
        {"created_us": "now"}, {"created_us": None}, {"levelno": 2**63}, {"levelno": 2.5}, {"logger": 1},
        {"message": None},
        {"lineno": True}, {"thread": "x"}, {"exc_text": 1}, {"template": None}, {"message": "\ud800"}, {"id": 7},
        {"attributes": "[" * 100_000}, {"attributes": "1e"}, {"created_us": -(2**70)}, {"process": 2**64}, {"id": 2.0},
        {"attributes": "9" * 5000},
    ],
)  # fmt: skip
def test_a_row_that_is_none(part: Any, row: dict[str, Any]) -> None:
    """A row with a value that no row has is an error that names the file and the line or the row."""
    path = part(**row)
    with LogReader(path) as log, pytest.raises(CorruptFileError, match=r"app-log.*(line 4|row 2)"):
        list(log)
    with LogReader(path) as log, pytest.raises(CorruptFileError, match=r"app-log.*(line 4|row 2)"):
        log.stats()


def test_a_parquet_with_other_columns(part: Any) -> None:
    """A file of Parquet that has not the columns of a part, or other rows than its head says, is refused."""
    pq = pytest.importorskip("pyarrow.parquet")
    path = part("parquet")
    table = pq.read_table(path)
    others = {
        "created_us": table.drop_columns(["created_us"]),
        "message": table.set_column(table.schema.get_field_index("message"), "message", table["id"]),
        "by its head": table.slice(0, 2),
        r"row 3.*\(id\)|line 3.*\(id\)": table.take([0, 1, 1]),
    }
    for word, other in others.items():
        pq.write_table(other.replace_schema_metadata(table.schema.metadata), path)
        with LogReader(path) as log, pytest.raises(CorruptFileError, match=f"app-log.*{word}"):
            list(log)


def test_row_groups(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of row groups with nothing wanted two columns are read, and one that is too large is refused before it is."""
    read: list[int] = []
    python = parts._python
    monkeypatch.setattr(parts, "_python", lambda column: read.append(len(column)) or python(column))
    path = part("parquet", head={**HEAD, "rows": 12, "last_id": 12}, more=9)

    assert [12] == [row[0] for row in rows_of(path, Bounds(levels=(50, 50)))]
    assert {2} == set(read)  # of the third group, which the writer has made of five rows
    monkeypatch.setattr(parts, "_GROUP", 100)
    with pytest.raises(LimitError, match=r"app-log.*row group"):
        rows_of(path)


def test_a_parquet_whose_columns_are_said_to_be_others(part: Any) -> None:
    """
    One wrong bit in what a file of Parquet says of a column is an error that names the file.

    The reader looked at the statistics of columns, and pyarrow ended the process there, by an exception of C++ that it
    does not catch: `check`, `serve` and programs with a `LogReader` were killed (SIGABRT).
    """
    path = part("parquet")
    data = bytearray(path.read_bytes())
    place = data.rindex(b"\x15\x04\x19", 0, data.rindex(b"\x18\x0acreated_us"))  # the type, INT64, and encodings
    data[place + 1] = 0  # BOOLEAN
    path.write_bytes(data)

    with LogReader(path) as log:
        for ask in (lambda: list(log), lambda: log.count(since="2000-01-01"), log.top):
            with pytest.raises(CorruptFileError, match=r"app-log.*it was cut or damaged: OSError"):
                ask()


@pytest.mark.parametrize("kind", KINDS)
def test_damage(part: Any, kind: str, request: pytest.FixtureRequest) -> None:
    """A part that was cut or changed anywhere is an error with a name, or reads as rows: never another error."""
    places = 300 if request.config.getoption("--slow") else 30
    path = part(kind)
    whole = path.read_bytes()
    errors: list[str] = []
    for place in range(0, len(whole), 1 + len(whole) // places):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            try:
                with LogReader(path) as log:
                    log.gaps()
                    list(log)
            except LogFileError as error:
                errors.append(str(error))
    assert len(errors) > places / 3
    assert [] == [error for error in errors if path.name not in error]


class JobTimeoutError(Exception):
    """As a handler of SIGALRM raises."""


@pytest.mark.parametrize("error", [TimeoutError, JobTimeoutError])
@pytest.mark.parametrize("kind", KINDS)
def test_the_time_limit_of_a_job(part: Any, kind: str, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler raises while a part is read is no fault of it: a sound part was `cut or damaged` by it."""

    def late(*_: object) -> None:
        raise error("the job took too long")

    path = part(kind)
    monkeypatch.setattr(parts, "_fault_at", late)
    with pytest.raises(error, match="the job took too long"):
        rows_of(path)


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("jsonl.gz", MemoryError(), "no memory"),
        ("parquet", MemoryError(), "no memory"),
        ("parquet", "Failed to launch worker thread: Resource temporarily unavailable", "worker thread"),
        ("parquet", OSError("Couldn't deserialize thrift: std::bad_alloc"), "bad_alloc"),
        ("parquet", ImportError("pyarrow.so: failed to map segment"), "map segment"),
    ],
)
def test_what_the_system_is_short_of(
    part: Any, kind: str, error: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without memory or threads, a part cannot be read; that does not make it damaged.

    `check` under a limit of memory said so of sound parts, and somebody may throw these away.
    """

    def short(*_: object) -> None:
        raise (pytest.importorskip("pyarrow").ArrowException(error) if isinstance(error, str) else error)

    path = part(kind)
    monkeypatch.setattr(parts, "_fault_at", short)
    with pytest.raises(UnreadableFileError, match=f"cannot be read: .*{text}"):
        rows_of(path)


def test_lines_that_are_missing_or_too_many(part: Any) -> None:
    """A part that ends early, or within a line, is refused; lines behind its last row are left alone."""
    path = part()
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    late = [*lines[:-1], lines[-1][:-1] + b" more\n"]
    for kept, word in (
        (late, r"line 5.*\( more\)"),
        (lines[:-1], "by its head"),
        ([*lines[:-1], lines[-1][:-1]], "last line has no end"),
    ):
        path.write_bytes(gzip.compress(b"".join(kept)))
        with pytest.raises(CorruptFileError, match=word):
            rows_of(path)
    path.write_bytes(gzip.compress(b"".join([*lines, b"more\n"])))
    assert 3 == len(rows_of(path))


def test_a_part_that_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file that a stranger has made to fill memory or disks is refused, in bounded memory: a line without an end, lines
    that are mostly blank, and gaps without end, which had no bound.
    """
    head = {**HEAD, "drops": 0, "last_id": 10**6, "rows": 10**6}
    blank = gzip.compress(b" " * (1 << 18))
    end = gzip.compress(b" " * 900_000 + b"\n")
    rows = [gzip.compress(json.dumps({**ROW, "id": number}).encode()) for number in range(1, 33)]
    gap = gzip.compress(json.dumps({"drop": DROP}).encode())
    bombs = [
        ("a line has more than", head, [blank] * 16),
        ("grows to more than", head, [piece for row in rows for piece in (row, end)]),
        ("grows to more than", {**head, "drops": 10**6}, [gap, end] * 32),
    ]
    monkeypatch.setattr(parts, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(parts, "GRANTED", 1 << 20)
    path = tmp_path / "app-log.1970-01-01.jsonl.gz"
    for word, first, pieces in bombs:
        path.write_bytes(b"".join([gzip.compress(json.dumps(first).encode() + b"\n"), *pieces]))
        tracemalloc.start()
        with pytest.raises((LimitError, CorruptFileError), match=word):
            Part.open(str(path)).read_through()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


def test_a_head_without_an_end(tmp_path: Path) -> None:
    """A first line that has no end is refused before it fills the memory."""
    path = tmp_path / "app-log.1970-01-01.jsonl.gz"
    path.write_bytes(gzip.compress(b"[" * (32 << 20), 1))
    with pytest.raises(LimitError, match="a line has more than"):
        Part.open(str(path))


@pytest.mark.parametrize("most", [20_000, *slowly(parts._MOST_PIECES)])
@pytest.mark.parametrize("place", ["head", "drop", "row", "attributes"])
def test_a_line_of_very_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, most: int) -> None:
    """
    A line of which `json` would make millions of objects is refused before it does; a few kB took 464 MB.

    The line had its bound in text only, and each `[],` becomes 72 bytes.
    """
    monkeypatch.setattr(parts, "_MOST_PIECES", most)
    lines = {"head": HEAD, "drop": {"drop": DROP}, "row": ROW, "attributes": {**ROW, "id": 2}, "last": {**ROW, "id": 3}}
    path = tmp_path / "app-log.1970-01-01.jsonl.gz"
    texts = {name: json.dumps(line) for name, line in lines.items()}
    many = f"[{','.join(['[]'] * most * 2)}]"
    if place == "attributes":
        texts[place] = texts[place].replace('"attributes": null', f'"attributes": {many}')
    else:
        texts[place] = f'{texts[place][:-1]}, "x": {many}}}'
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts.values()).encode(), 1))
    del many, texts

    tracemalloc.start()
    with pytest.raises(LimitError, match=f"a line has more than {most:,} values"):
        rows_of(path) + list(Part.open(str(path)).drops())
    assert tracemalloc.get_traced_memory()[1] < most * 100
    tracemalloc.stop()


def test_the_gaps_of_parquet_have_the_bounds_of_a_line(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata of Parquet has JSON too, of which a stranger can make as many objects."""
    path = part("parquet", drop={**DROP, "x": [[]] * 1_000})
    monkeypatch.setattr(parts, "_MOST_PIECES", 1_000)
    with pytest.raises(LimitError, match="a line has more than"):
        list(Part.open(str(path)).drops())


def test_the_largest_attributes_are_read(part: Any) -> None:
    """Attributes as large as a handler writes them are no bomb, whatever is in them."""
    attributes = f'{{"a":[{",".join(["[]"] * (MAX_RECORD_BYTES // 3 - 4))}]}}'

    assert attributes == rows_of(part(attributes=attributes))[1][FIELDS.index("attributes")].replace(" ", "")


@pytest.mark.parametrize(
    ("text", "pieces"), [(b'"' + b'\\"' * 300_000, 1), (b'"' * 300_001, 150_001), (b'"' + b"\\" * 300_000, 1)]
)
def test_a_text_without_an_end(text: bytes, pieces: int) -> None:
    """A text that has no end is looked through once, and not again from each quote in it, which takes minutes."""
    assert pieces == sum(1 for _ in parts._PIECE.finditer(text))


def test_long_names_in_many_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the log in the heads count as the rest of a head does: 28 parts of some kB took 205 MB."""
    monkeypatch.setattr(inventory, "_HEADS", 100_000)
    for number, name in enumerate(("log", "log_id", "log_id"), 2):
        head = {**HEAD, "drops": 0, name: "x" * 40_000, "first_id": number, "last_id": number, "rows": 1}
        write_head_and_rows(tmp_path / f"app-log.1970-01-01.{number}.jsonl.gz", head, [], [{**ROW, "id": number}])
    with pytest.raises(LimitError, match="the heads of the parts"), LogReader(tmp_path) as log:
        list(log.rows())


def test_files_that_are_none(part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is not there, a folder, a pipe, and one that may not be read are errors with names."""
    with pytest.raises(MissingFileError):
        Part.open(str(tmp_path / "app-log.1970-01-02.jsonl.gz"))
    pipe = tmp_path / "app-log.1970-01-03.jsonl.gz"
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
        with pytest.raises(UnreadableFileError, match="pipe"):
            LogReader(tmp_path)
        pipe.unlink()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = part()
    monkeypatch.setattr(gzip, "open", refuse)
    with pytest.raises(UnreadableFileError, match="Permission denied"):
        LogReader(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_is_a_link(part: Any, tmp_path: Path, kind: str) -> None:
    """
    A link to a part is read as that, and one to a file of another name is refused before it is opened.

    It may lead to a database of the program: to close that would take away all locks that SQLite has on it.
    """
    (path := part(kind)).rename(target := tmp_path / "own.db")
    path.symlink_to(target)
    with pytest.raises(UnreadableFileError, match="is a link"):
        LogReader(path)

    target.rename(tmp_path / f"sha256.{kind[-7:]}")
    path.unlink()
    path.symlink_to(f"sha256.{kind[-7:]}")
    assert 3 == len(rows_of(path))


def test_parquet_without_pyarrow(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow a part of Parquet is refused, with the line that installs it; JSON lines need nothing."""
    path = part("parquet")

    def missing() -> None:
        raise ModuleNotFoundError("No module named 'pyarrow'")

    monkeypatch.setattr(parts, "import_pyarrow", missing)
    with pytest.raises(UnreadableFileError, match=r"pip install 'sqlite-log-handler\[parquet\]'"):
        LogReader(path)
    assert archive.PARQUET == "parquet"
    path.unlink()
    assert 3 == len(rows_of(part()))
