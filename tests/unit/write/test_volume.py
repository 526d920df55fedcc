"""
Volume is exact at every moment: rows are folded into its table now and then, and the view adds the others.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._write import volume
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.limits import PAGE_BYTES, Limits
from sqlite_log_handler._write.retention.pruner import Pruner
from sqlite_log_handler._write.volume import FOLD_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlite_log_handler._write.writer import Writer

from batches import connection_of, fail_at, gap, numbered, put_null, read, row, write


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Fold as soon as this many rows stand after the mark."""
    monkeypatch.setattr(volume, "FOLD_ROWS", 7)
    return 7


COUNTED_BY_ROW = """
SELECT created_us / 3600000000 * 3600, logger, levelno, count(*),
    sum(length(CAST(message AS BLOB)) + ifnull(length(CAST(attributes AS BLOB)), 0))
FROM logs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
COUNTED_BY_VOLUME = """
SELECT hour, logger, levelno, records, bytes FROM volume WHERE records ORDER BY hour, logger, levelno
"""


def folded(writer: Writer) -> int:
    """Return how many rows the table behind the view has."""
    return int(read(writer, "SELECT ifnull(sum(records), 0) FROM volume_folded")[0][0])


def is_exact(writer: Writer) -> bool:
    """Tell whether the view has what the rows add up to."""
    return read(writer, COUNTED_BY_ROW) == read(writer, COUNTED_BY_VOLUME)


def test_a_commit_of_few_rows_leaves_the_table_alone(writer: Writer) -> None:
    """
    Rows are counted by the view at once, and written into the table when there are many: that would cost two pages.
    """
    for number in range(3):
        write(writer, f"{number}")
    assert (0, True) == (folded(writer), is_exact(writer))

    writer.write(Commit(numbered(0, FOLD_ROWS)))
    assert (FOLD_ROWS + 3, True) == (folded(writer), is_exact(writer))


def test_a_commit_of_one_row_writes_two_pages(writer: Writer, path: Path) -> None:
    """
    A commit of one record appends two frames to the WAL, of the rows and of the index, unless a page is full.

    It appended four: one more of `volume`, and one of the table in which AUTOINCREMENT keeps the last id.
    """
    frames = []
    for number in range(30):
        before = os.stat(f"{path}-wal").st_size if number else 0
        write(writer, f"{number}")
        frames.append((os.stat(f"{path}-wal").st_size - before) // (PAGE_BYTES + 24))

    assert 27 <= frames.count(2)


@pytest.mark.parametrize(("rows", "expected"), [(1, 4), (FOLD_ROWS, 7)])
def test_a_commit_is_few_statements(writer: Writer, rows: int, expected: int) -> None:
    """
    BEGIN, a look at the marks, an INSERT and COMMIT; a full batch has one more INSERT, and the two of its fold.

    After each statement a busy program may wait for the interpreter lock.
    """
    writer.write(Commit(numbered(0, FOLD_ROWS)))
    statements: list[str] = []
    connection_of(writer).set_trace_callback(statements.append)
    writer.write(Commit(numbered(0, rows)))
    connection_of(writer).set_trace_callback(None)

    assert expected == len(statements)


def test_volume_is_exact_after_each_commit(make_writer: Callable[[], Writer], few: int) -> None:
    """Volume is that of the rows after each commit of two writers, and few rows stand after the mark."""
    writers = [make_writer(), make_writer()]
    for writer in writers:
        write(writer, "first")
    for number in range(40):
        writer = writers[number % 2]
        rows = numbered(0, number % 5, created=number * 900.0, name=f"app.{number % 3}", extra="x")
        writer.write(Commit(rows, [gap(0)] if number % 7 == 0 else []))
        assert all(map(is_exact, writers))
        ((behind,),) = read(writer, "SELECT count(*) FROM records WHERE id > (SELECT folded_id FROM marks)")
        assert few + 4 > behind

    assert folded(writers[0])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("table", ["volume_folded", "marks"])
def test_a_fold_that_fails_counts_nothing_twice(writer: Writer, table: str) -> None:
    """When the table was written and the mark could not be moved, neither is in the file, nor are the rows."""
    writer.write(Commit(numbered(0, 6)))
    with fail_at(writer, table), pytest.raises(sqlite3.DatabaseError):
        writer.write(Commit(numbered(6, 12)))
    assert (0, True) == (folded(writer), is_exact(writer))

    writer.write(Commit(numbered(6, 12)))
    assert (12, True) == (folded(writer), is_exact(writer))


def test_rows_are_folded_before_they_are_deleted(make_writer: Callable[..., Writer]) -> None:
    """What retention deletes stays in volume, though no commit had folded it."""
    writer = make_writer(limits=Limits(max_rows=10))
    writer.write(Commit(numbered(0, 100)))
    before = read(writer, COUNTED_BY_VOLUME)
    while writer.prune() == 0:
        pass

    assert [(10,)] == read(writer, "SELECT count(*) FROM records")
    assert before == read(writer, COUNTED_BY_VOLUME)
    assert [(100,)] == read(writer, "SELECT sum(records) FROM volume")


@pytest.mark.parametrize("table", ["volume_folded", "marks"])
def test_rows_that_cannot_be_folded_are_not_deleted(make_writer: Callable[..., Writer], table: str) -> None:
    """Rows go in the transaction that folds them: when the table or the mark cannot be written, they stay."""
    writer = make_writer(limits=Limits(max_rows=10))
    writer.write(Commit(numbered(0, 100)))
    with fail_at(writer, table):
        writer.prune()
    assert [(100,)] == read(writer, "SELECT count(*) FROM records")

    while writer.prune() == 0:
        pass
    assert [(10, 100)] == read(writer, "SELECT count(*), (SELECT sum(records) FROM volume) FROM records")


def test_a_fold_under_a_budget_changes_few_lines(writer: Writer) -> None:
    """
    With `max_bytes` a fold stops where its rows would change more lines than one transaction may, and goes on there.

    Each line may be on a page of its own, and all of them would go into the WAL at once.
    """
    writer.write(Commit([row("m", name=f"app.{number}") for number in range(100)]))
    connection = connection_of(writer)
    pruner, folds = Pruner(str(writer.file.path), Limits(max_bytes=1 << 20)), 0
    before, most = read(writer, COUNTED_BY_VOLUME), pruner.limits.volume_lines
    left = 100
    while left:
        changed, left = connection.total_changes, pruner.fold(connection)
        folds += 1
        assert most + 1 >= connection.total_changes - changed  # the mark is one more

    assert 100 / most <= folds
    assert before == read(writer, COUNTED_BY_VOLUME)
    assert 100 == folded(writer)


def test_a_fold_under_a_budget_looks_at_few_rows(writer: Writer) -> None:
    """
    What a fold costs depends on the rows that it folds, and not on those behind them.

    It began with all of them and took half until their lines were few enough. With a thousand loggers and a budget of
    1 MiB it looked at 20,000 rows to fold 16, and writing fell to a tenth.
    """
    pruner = Pruner(str(writer.file.path), Limits(max_bytes=1 << 20))
    steps, instructions = [], 0

    def count() -> None:
        nonlocal instructions
        instructions += 1

    for rows in (100, 2_000):
        writer.write(Commit([row("m", name=f"app.{number}") for number in range(rows)]))
        connection = connection_of(writer)
        instructions = 0
        connection.set_progress_handler(count, 1)
        pruner.fold(connection)
        connection.set_progress_handler(None, 1)
        steps.append(instructions)

    few, many = steps
    assert few > 100
    assert many < 2 * few


@pytest.mark.usefixtures("few")
def test_a_row_whose_source_is_gone_is_counted(writer: Writer) -> None:
    """In a file that was changed by hand a row may refer to no source. It stops no fold, and so no commit."""
    write(writer, "one")
    read(writer, "DELETE FROM sources")
    writer.write(Commit(numbered(0, 10)))

    assert [(11,)] == read(writer, "SELECT sum(records) FROM volume")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("max_bytes", [None, 1 << 20])
@pytest.mark.parametrize(
    "column",
    [
        *("records.created_us", "records.levelno", "records.message", "marks.folded_id"),
        *("volume_folded.records", "volume_folded.bytes", "volume_folded.dropped", "drop_totals.count"),
    ],
)
def test_a_number_that_is_null(make_writer: Callable[..., Writer], column: str, max_bytes: int | None) -> None:
    """
    A flipped bit makes NULL of a small number. It stops no fold and no gap, and so no commit, and later rows count.

    Each later commit failed, and its rows were dropped.
    """
    writer = make_writer(limits=Limits(max_bytes=max_bytes))
    writer.write(Commit(numbered(0, 10), [gap(5)]))
    writer.write(Commit(numbered(10, 12, created=9_000.0)))  # of another hour
    put_null(connection_of(writer), column)
    totals = []
    for start in (12, 20):
        totals += read(writer, "SELECT sum(records), sum(dropped) FROM volume")[0]
        assert not writer.write(Commit(numbered(start, start + 8), [gap(5, 3)])).refused
    totals += read(writer, "SELECT sum(records), sum(dropped) FROM volume")[0]

    assert [9, 3, 9, 3] == [later - (sooner or 0) for sooner, later in zip(totals, totals[2:], strict=False)]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("value", ["'text'", "x''", "1 << 40"])
def test_a_mark_that_was_damaged(writer: Writer, value: str) -> None:
    """Rows that are written after the mark was damaged are counted; with one of another type no commit succeeded."""
    writer.write(Commit(numbered(0, 10)))
    read(writer, f"UPDATE marks SET folded_id = {value}")
    for start in (10, 14, 18):
        writer.write(Commit(numbered(start, start + 4)))

    assert [(22,)] == read(writer, "SELECT sum(records) FROM volume")


def test_totals_of_drops(writer: Writer) -> None:
    """Totals by cause and level add up over gaps, and never fall: counters that a program exports are made of them."""
    for count in (1, 2):
        writer.write(Commit([row("m")], [gap(1, count), gap(1, 5, key=("bytes_full", 10, "db"))]))
    read(writer, "DELETE FROM drops")

    expected = [("bytes_full", 10, 10), ("queue_full", 20, 3)]
    assert expected == read(writer, "SELECT cause, levelno, count FROM drop_totals ORDER BY cause")


def test_totals_of_made_up_levels_are_bounded(writer: Writer) -> None:
    """After 1,000 lines the drops of further levels count under level 0."""
    for number in range(1, 1_003):
        writer.write(Commit([], [gap(0, key=("queue_full", number, "app"))]))
    writer.write(Commit([], [gap(0, key=("queue_full", 7, "app"))]))

    assert [(1_001, 1_003)] == read(writer, "SELECT count(*), sum(count) FROM drop_totals")
    assert [(2,)] == read(writer, "SELECT count FROM drop_totals WHERE levelno = 0")
    assert [(2,)] == read(writer, "SELECT count FROM drop_totals WHERE levelno = 7")
