"""
`export`: the same rows in each format.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys

import pytest
from command_line import BEGIN

from sqlite_log_handler import Row


def test_export_writes_the_same_rows_in_each_format(run, tmp_path):
    """JSON lines and CSV have the same rows and columns, on standard output and in a file."""
    _, lines = run("export")
    status, _ = run("export", "--format", "csv", "--output", str(tmp_path / "x.csv"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8"), newline="")))

    assert 0 == status
    assert [str(json.loads(line)["id"]) for line in lines] == [row["id"] for row in rows]
    assert [json.loads(line)["exc_text"] or "" for line in lines] == [row["exc_text"] for row in rows]
    assert list(Row._fields) == list(rows[0])
    assert (1, []) == run("export", "-l", "nobody")
    assert 0 == run("export", "--output", str(tmp_path / "x.jsonl"))[0]
    assert lines == (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()


def test_export_writes_parquet(run, tmp_path):
    """Parquet has the same columns, with the time as a timestamp."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")

    assert 0 == run("export", "--format", "parquet", "--output", str(tmp_path / "x.parquet"))[0]
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [json.loads(line)["message"] for line in run("export")[1]] == [row["message"] for row in rows]
    assert BEGIN == rows[0]["time"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_export_without_a_record_leaves_no_file(run, tmp_path, form):
    """
    When nothing matches no file is made, so that the next run can make it.

    An empty file, or one of a head alone, was once left behind, and the next run said that it exists.
    """
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    words = ["export", "--format", form, "--output", str(tmp_path / "x")]

    assert (1, []) == run(*words, "-l", "nothere")
    assert [] == list(tmp_path.iterdir())
    assert (0, []) == run(*words, "-l", "shop.orders")


@pytest.mark.parametrize("words", [["-p", "LOUD"], ["-g", "("], ["--run", "9"]], ids=" ".join)
def test_an_export_with_a_wrong_filter_leaves_no_file(run, tmp_path, words):
    """A filter is refused before the file is made, so that the next run can make it."""
    assert (2, []) == run("export", "--output", str(tmp_path / "x"), *words, stderr=re.compile("^sqlite-log export: "))
    assert [] == list(tmp_path.iterdir())


def test_an_export_to_a_dash_is_one_to_standard_output(run, tmp_path, monkeypatch):
    """`--output -` writes to standard output, as elsewhere, and makes no file of that name."""
    monkeypatch.chdir(tmp_path)

    assert run("export") == run("export", "--output", "-")
    assert (1, []) == run("export", "--output", "-", "-l", "nothere")
    assert [] == list(tmp_path.iterdir())


def test_parquet_needs_pyarrow(run, monkeypatch):
    """Without pyarrow, it is said what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    note = "sqlite-log export: --format parquet needs pyarrow: pip install 'sqlite-log-handler[parquet]'\n"
    assert (2, []) == run("export", "--format", "parquet", stderr=note)
