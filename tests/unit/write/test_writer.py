"""
One transaction a batch: all or nothing, and a bad row costs itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.inserts import Inserter
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import MESSAGE, SOURCE, THREAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlite_log_handler._write.writer import Writer

from batches import connection_of, gap, messages, pragma, read, refuse, row, write

# All or nothing ------------------------------------------------------------------------------------------------------

TABLES = ["records", "sources", "processes", "drops", "volume_folded", "marks", "drop_totals"]


def everything(path: Path) -> dict[str, list[Any]]:
    """Read all tables, as another program would."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def test_locked_file(writer: Writer, path: Path) -> None:
    """
    While another process writes, nothing is written, and nothing is left open; afterwards the same batch goes in once.
    """
    write(writer, "before")
    before = everything(path)
    batch = Commit([row("new", name="new")], [gap(1)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                writer.write(batch)
            assert not connection_of(writer).in_transaction
        other.execute("ROLLBACK")

    assert before == everything(path)
    writer.write(batch)
    assert ["before", "new", "dropped at 1"] == messages(writer)


def test_full_disk(writer: Writer, path: Path) -> None:
    """
    When the disk is full, nothing of the batch is written; when there is room again, all of it, once, with its ids.
    """
    write(writer, "before")
    before = everything(path)
    batch = Commit([row(f"{number}" + "x" * 500, name=f"new.{number}") for number in range(200)], [gap(200)])
    read(writer, f"PRAGMA max_page_count = {pragma(writer, 'page_count') + 8}")
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            writer.write(batch)
        assert not connection_of(writer).in_transaction
        assert before == everything(path)

    read(writer, "PRAGMA max_page_count = 100000")
    writer.write(batch)
    assert [("app", "before"), *((item[SOURCE][0], item[MESSAGE]) for item in batch.rows)] == read(
        writer, "SELECT logger, message FROM logs WHERE levelno = 20 ORDER BY id"
    )
    assert [(number,) for number in range(1, 203)] == read(writer, "SELECT id FROM logs ORDER BY id")
    assert [("ok",)] == read(writer, "PRAGMA integrity_check")


def test_ids_of_a_failed_transaction_are_none(writer: Writer) -> None:
    """Ids that were learnt in a transaction that failed are forgotten: they may be another source's by now."""
    writer.file.open()
    read(writer, f"PRAGMA max_page_count = {pragma(writer, 'page_count')}")
    large = [row("x" * 50_000, name="lost", threadName="lost")]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        writer.write(Commit(large))
    read(writer, "PRAGMA max_page_count = 100000")
    writer.write(Commit([row("first", name="other", process=7)]))
    writer.write(Commit(large))

    assert [("other", 7), ("lost", os.getpid())] == read(writer, "SELECT logger, process FROM logs ORDER BY id")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_interrupted_commit(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Whichever statement raises, nothing of the batch is written and no transaction stays open."""
    write(writer, "before")
    before = everything(path)

    def interrupted(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(Inserter, "_insert_gap", interrupted)
        writer.write(Commit([row("new", name="new")], [gap(1)]))

    assert not connection_of(writer).in_transaction
    assert before == everything(path)
    write(writer, "after")
    assert ["before", "after"] == messages(writer)


def test_lock_is_taken_at_the_beginning(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No other process can write from the first statement on: a lock that is taken later may be refused half-way.

    That holds for the second transaction too, in which a batch with a bad row is written.
    """
    write(writer, "before")
    refuse(writer)
    insert = Inserter.write
    refused: list[str] = []

    def watched(self: Inserter, *args: Any) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                refused.append(str(error))
        insert(self, *args)

    monkeypatch.setattr(Inserter, "write", watched)
    outcome = writer.write(Commit([row("now"), row("bad")]))
    assert {1} == outcome.refused

    assert ["database is locked"] * 2 == refused


@pytest.mark.parametrize("bad", [[0], [2], [4], [0, 4], [1, 2, 3], [0, 1, 2, 3, 4]])
def test_bad_row_costs_that_row_only(writer: Writer, bad: list[int]) -> None:
    """Rows that SQLite refuses are named, and the rest is written in order, gaps where they are."""
    refuse(writer)
    rows = [row("bad" if number in bad else f"{number}") for number in range(5)]

    outcome = writer.write(Commit(rows, [gap(0), gap(3), gap(5)]))
    assert set(bad) == outcome.refused

    kept = [f"{number}" for number in range(5) if number not in bad]
    found = messages(writer)
    assert kept == [message for message in found if not message.startswith("dropped")]
    assert ("dropped at 0", "dropped at 5") == (found[0], found[-1])
    assert len([number for number in range(3) if number not in bad]) + 1 == found.index("dropped at 3")
    assert list(range(1, len(found) + 1)) == [number for (number,) in read(writer, "SELECT id FROM logs ORDER BY id")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (row_module.LEVELNO, 2**63),
        (MESSAGE, "\ud800"),
        (MESSAGE, None),
        (row_module.CREATED, float("nan")),
        (MESSAGE, object()),
    ],
    ids=["integer", "surrogate", "null", "time", "object"],
)
def test_row_that_breaks_the_contract(writer: Writer, field: int, value: Any) -> None:
    """A row that should not exist costs itself, should a defect of the package make one."""
    broken: list[Any] = list(row())
    broken[field] = value

    outcome = writer.write(Commit([row("0"), tuple(broken), row("2")]))  # type: ignore[list-item]
    assert {1} == outcome.refused
    assert ["0", "2"] == messages(writer)


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        ([None], ""),
        ([], ""),
        (None, ""),
        ([b"/bin/shop"], "shop"),
        ([Path("/bin/shop")], "shop"),
        (["/bin/\udcff\0"], "\\udcff\\x00"),
    ],
)
def test_a_writer_in_an_odd_program(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch, argv: object, program: str
) -> None:
    """
    A writer that is made while the program has other objects in the place of `sys.argv` and `time.time` writes.

    With None as the program's name, no handler could be made, and none begun anew in a forked child. With a mock as the
    time of the start, each row of the handler's life was dropped as unwritable.
    """
    monkeypatch.setattr(row_module, "own_start", object())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        writer = make_writer()
    writer.write(Commit([row("0")], []))

    assert [(program, 0)] == read(writer, "SELECT program, started_us FROM processes")


def test_rows_of_a_thread_that_is_not_the_writers(writer: Writer) -> None:
    """Which thread commits may change from call to call."""
    write(writer, "main")
    thread = threading.Thread(target=write, args=(writer, "other"))
    thread.start()
    thread.join()

    assert ["main", "other"] == messages(writer)
    assert row()[THREAD][3] == read(writer, "SELECT DISTINCT thread_name FROM logs")[0][0]
