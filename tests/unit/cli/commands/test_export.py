"""
`export`: the same rows in each format.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import BEGIN, NOBODY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sqlite_log_handler
from sqlite_log_handler import Row
from sqlite_log_handler._cli.commands import export
from sqlite_log_handler._cli.commands.export import write_csv, write_parquet
from sqlite_log_handler._cli.formats import json_safe
from sqlite_log_handler._cli.terminal import batches, write_lines

ROW = Row(1, 0, None, 20, "INFO", "shop", "m", "/p", 1, "f", 1, "M", "h", *[None] * 7)


def test_export_writes_the_same_rows_in_each_format(run, tmp_path):
    """JSON lines and CSV have the same rows and columns, on standard output and in a file."""
    _, lines = run("export")
    status, _ = run("export", "--format", "csv", "--output", str(tmp_path / "x.csv"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8"), newline="")))

    assert 0 == status
    assert [str(json.loads(line)["id"]) for line in lines] == [row["id"] for row in rows]
    assert [json.loads(line)["exc_text"] or "" for line in lines] == [row["exc_text"] for row in rows]
    assert list(Row._fields) == list(rows[0])
    assert (1, []) == run("export", "-l", "nobody", stderr=NOBODY)
    assert 0 == run("export", "--output", str(tmp_path / "x.jsonl"))[0]
    assert lines == (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()


def test_export_writes_parquet(run, tmp_path):
    """Parquet has the same columns, with the time as a timestamp."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")

    assert 0 == run("export", "--format", "parquet", "--output", str(tmp_path / "x.parquet"))[0]
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [json.loads(line)["message"] for line in run("export")[1]] == [row["message"] for row in rows]
    assert BEGIN == rows[0]["time"]


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.GZ", "x.csv.gz", "x.csv", "x.log"])
def test_the_name_of_the_output_says_what_is_in_it(run, tmp_path, name):
    """A file whose name ends in .csv, .parquet, .gz or .zst is that; other names are JSON lines."""
    assert 0 == run("export", "--output", str(tmp_path / name))[0]
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if name.lower().endswith(".gz") else data).decode()

    assert (
        text.splitlines()[: 2 if "csv" in name else 99]
        == (run("export", "--format", "csv" if "csv" in name else "jsonl")[1][: 2 if "csv" in name else 99])
    )
    assert (1, []) == run("export", "--output", str(tmp_path / f"n{name}"), "-l", "nobody", stderr=NOBODY)
    assert [name] == [file.name for file in tmp_path.iterdir()]


@pytest.mark.parametrize("words", [["--output", "x.parquet.gz"], ["--format", "parquet", "--output", "x.ZST"]])
def test_parquet_is_not_compressed_again(run, words):
    """A file whose name ends in .gz or .zst would be neither, and no tool could read it by its name."""
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")

    said = f"sqlite-log export: {words[-1]!r}: Parquet is compressed already: name a file without .gz or .zst\n"
    assert (2, []) == run("export", *words, stderr=said)


def test_zstd(run, tmp_path):
    """A file that ends in .zst is compressed by zstd, by that of Python 3.14 or by its backport."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd = pytest.importorskip(name, reason="backports.zstd is not installed")
    path = tmp_path / "x.jsonl.zst"

    assert 0 == run("export", "--output", str(path))[0]
    assert run("export")[1] == zstd.decompress(path.read_bytes()).decode().splitlines()


def test_zstd_that_is_not_there(run, tmp_path, monkeypatch):
    """Without zstd an error says how to get it, and no file is made."""
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)

    said = re.compile("pip install backports.zstd")
    assert (2, []) == run("export", "--output", str(tmp_path / "x.jsonl.zst"), stderr=said)
    assert [] == list(tmp_path.iterdir())


def test_parquet_is_small_and_can_be_skipped(run, tmp_path):
    """Parquet is compressed by zstd, and each row group says which times and levels it has."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    path = tmp_path / "x.parquet"

    assert 0 == run("export", "--output", str(path))[0]
    group = parquet.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert {"ZSTD"} == {column.compression for column in columns.values()}
    assert (10, 40) == (columns["levelno"].statistics.min, columns["levelno"].statistics.max)
    assert columns["created_us"].statistics.has_min_max


def test_parquet_has_few_row_groups(tmp_path):
    """Row groups are as long as a query wants to skip, and later ones longer: each takes memory to the end."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    path, wide = tmp_path / "x.parquet", "\N{GRINNING FACE}" * 100_000
    with path.open("xb") as file:
        write_parquet((ROW._replace(id=number) for number in range(20_000)), file)
    ordinary = parquet.read_metadata(path)
    with path.open("wb") as file:
        write_parquet((ROW._replace(id=number, message=wide) for number in range(20)), file)
    large = parquet.read_metadata(path)

    assert [5_000] * 3 == [ordinary.row_group(number).num_rows // 1_000 * 1_000 for number in range(3)]
    assert [6, 6, 6, 2] == [large.row_group(number).num_rows for number in range(large.num_row_groups)]


@pytest.mark.slow
def test_parquet_imports_no_pandas(shop, tmp_path):
    """
    An export to Parquet does not import pandas where that is installed: it takes 50 MB, half of what a command may.

    `pyarrow.array` looks whether it was given something of pandas, and imports it for that.
    """
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    (tmp_path / "pandas.py").write_text("raise SystemExit('pandas was imported')", encoding="utf-8")
    program = "from sqlite_log_handler.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"
    words = ["export", str(shop), "--output", str(tmp_path / "x.parquet")]
    folders = os.pathsep.join([str(tmp_path), str(Path(sqlite_log_handler.__file__).parents[1])])

    subprocess.run([sys.executable, "-c", program, *words], check=True, env={**os.environ, "PYTHONPATH": folders})


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_export_without_a_record_leaves_no_file(run, tmp_path, form):
    """
    When nothing matches no file is made, so that the next run can make it.

    An empty file, or one of a head alone, was once left behind, and the next run said that it exists.
    """
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    words = ["export", "--format", form, "--output", str(tmp_path / "x")]

    assert (1, []) == run(*words, "-l", "nobody", stderr=NOBODY)
    assert [] == list(tmp_path.iterdir())
    assert (0, []) == run(*words, "-l", "shop.orders")


@pytest.mark.parametrize("words", [["-p", "LOUD"], ["-g", "("], ["--run", "9"]], ids=" ".join)
def test_an_export_with_a_wrong_filter_leaves_no_file(run, tmp_path, words):
    """A filter is refused before the file is made, so that the next run can make it."""
    assert (2, []) == run("export", "--output", str(tmp_path / "x"), *words, stderr=re.compile("^sqlite-log export: "))
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError("the disk is broken"), 2, "sqlite-log export: the disk is broken\n"),
        (OSError(28, "Full"), 2, "sqlite-log export: '{path}': Full: make room, and run it again\n"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_half_an_export_is_removed(run, tmp_path, monkeypatch, name, error, status, said):
    """Half of the rows would look like all of them, and be in the way of the next run."""

    def fail(_):
        raise error

    monkeypatch.setattr(export, "json_safe", fail)
    path = str(tmp_path / name)
    assert (status, []) == run("export", "--output", path, stderr=said.replace("{path}", path))
    assert [] == list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
@pytest.mark.parametrize(("number", "ignored"), [("SIGTERM", False), ("SIGHUP", False), ("SIGHUP", True)])
def test_half_an_export_is_removed_by_a_signal(shop, tmp_path, name, number, ignored):
    """
    SIGTERM and SIGHUP, of `timeout` or of a terminal that is closed, leave no half of a file, and end the command.

    Under nohup, which has SIGHUP ignored, the command goes on.
    """
    program = f"""
import signal, sys
from sqlite_log_handler.__main__ import main
from sqlite_log_handler._cli.commands import export
signal.signal(signal.{number}, signal.{"SIG_IGN" if ignored else "SIG_DFL"})
export.json_safe = lambda line: signal.raise_signal(signal.{number}) or line
sys.exit(main(sys.argv[1:]))
"""
    folder = tmp_path / "made"
    folder.mkdir()
    words = ["export", str(shop), "--output", str(folder / name)]
    paths = {"PYTHONPATH": str(Path(sqlite_log_handler.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", program, *words], check=False, env={**os.environ, **paths})

    assert (0 if ignored else -getattr(signal, number)) == run.returncode
    assert ([name] if ignored else []) == [path.name for path in folder.iterdir()]


def test_an_export_to_a_dash_is_one_to_standard_output(run, tmp_path, monkeypatch):
    """`--output -` writes to standard output, as elsewhere, and makes no file of that name."""
    monkeypatch.chdir(tmp_path)

    assert run("export") == run("export", "--output", "-")
    assert (1, []) == run("export", "--output", "-", "-l", "nobody", stderr=NOBODY)
    assert [] == list(tmp_path.iterdir())


def test_parquet_needs_pyarrow(run, monkeypatch):
    """Without pyarrow, it is said what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    note = (
        "sqlite-log export: this needs more packages (import of pyarrow halted; None in sys.modules): "
        "pip install 'sqlite-log-handler[parquet]'\n"
    )
    assert (2, []) == run("export", "--format", "parquet", stderr=note)


# What ends a cell, a row or a file somewhere, and what Unicode or a terminal make of a line's end.
TEXTS = st.text(st.sampled_from("ab ,;\"'\r\n\t\x1a\x0b\x0c\x85\u2028\ufeff=+-@|\\é😀"), max_size=12)


def readers(path):
    """Read a file of CSV with each reader that is installed: Python's, pyarrow's, DuckDB's."""
    with open(path, encoding="utf-8", newline="") as file:
        yield "csv", [(row["message"], row["exc_text"], row["logger"]) for row in csv.DictReader(file)]
    with contextlib.suppress(ImportError):
        arrow = importlib.import_module("pyarrow.csv")

        options = arrow.ParseOptions(newlines_in_values=True)
        kinds = arrow.ConvertOptions(column_types=dict.fromkeys(("message", "exc_text", "logger"), "string"))
        table = arrow.read_csv(path, parse_options=options, convert_options=kinds).to_pylist()
        yield "pyarrow", [(row["message"], row["exc_text"], row["logger"]) for row in table]
    with contextlib.suppress(ImportError):
        duckdb = importlib.import_module("duckdb")

        sql = (
            "SELECT message, exc_text, logger FROM read_csv(?, header=true, all_varchar=true, quote='\"', escape='\"')"
        )
        rows = duckdb.connect().execute(sql, [str(path)]).fetchall()
        yield "DuckDB", [tuple(cell or "" for cell in row) for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=6))
def test_every_reader_reads_the_csv(tmp_path_factory, cells):
    """
    CSV is what RFC 4180 says: each reader finds the cells that were logged. A lone CR once made three rows of one.
    """
    folder = tmp_path_factory.mktemp("csv")
    rows = [ROW._replace(id=number, message=m, exc_text=e, logger=of) for number, (m, e, of) in enumerate(cells)]
    with open(folder / "x.csv", "x", encoding="utf-8", newline="") as file:
        assert len(rows) == write_csv(rows, file)

    for name, found in readers(folder / "x.csv"):
        assert cells == found, name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=6))
def test_json_lines_and_parquet_hold_what_was_logged(tmp_path_factory, cells):
    """JSON lines and Parquet give back each cell as it was, with what is missing missing."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    folder = tmp_path_factory.mktemp("parquet")
    rows = [ROW._replace(id=number, message=m, exc_text=e, thread=n) for number, (m, e, n) in enumerate(cells)]
    json_lines = (json_safe(row.to_json()) for row in rows)
    with open(folder / "x.parquet", "xb") as binary, open(folder / "x.jsonl", "x", encoding="utf-8") as file:
        assert len(rows) == write_parquet(rows, binary) == write_lines(json_lines, file)

    assert cells == [
        (r["message"], r["exc_text"], r["thread"]) for r in parquet.read_table(folder / "x.parquet").to_pylist()
    ]
    lines = (folder / "x.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert cells == [(r["message"], r["exc_text"], r["thread"]) for r in map(json.loads, lines)]


def test_batches_are_bounded_by_their_text():
    """What is written at a time is bounded in characters as well as in number, and nothing is kept back by an error."""

    def broken():
        yield from ("a" * 60, "b" * 60, "c", "d")
        message = "broken"
        raise ValueError(message)

    found = []
    with pytest.raises(ValueError, match="broken"):
        found.extend(batches(broken(), len, most=2, text=100))
    assert [["a" * 60, "b" * 60], ["c", "d"]] == found
    assert [["a" * 100], ["b"]] == list(batches(["a" * 100, "b"], len, most=5, text=100))
