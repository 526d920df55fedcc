"""
A log and its archive, read as one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import tracemalloc
from functools import partial, partialmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import hostile
import pytest
from forked import in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from logged import record
from made_parts import archive, archive_for_real, fill, ids_of, prune, write_part
from slowly import slowly

from sqlite_log_handler import (
    CorruptFileError,
    FilterError,
    LogReader,
    MissingFileError,
    SQLiteHandler,
)
from sqlite_log_handler._read import archived, reader
from sqlite_log_handler._read.parts import Bounds, Part
from sqlite_log_handler._read.reader import By, around, windows
from sqlite_log_handler._read.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILTERS: list[dict[str, Any]] = [
    {},
    {"level": "ERROR"},
    {"level": "INFO..NOTICE", "logger": "shop.1"},
    {"since": "2025-07-02", "until": "2025-07-04 12:00"},
    {"since": "2025-07-03", "level": 40},
    {"run": 1},
    {"run": 0, "level": 20},
    {"pattern_of": 3},
    {"pattern_of": 3, "after_id": 8},
    {"without": {"pattern_of": [1, 2]}, "since": "2025-07-02", "level": 20},
    {"without": {"pattern_of": 2, "thread": "worker-1"}},
    {"exclude": "shop.0", "text": "order 1"},
    {"pattern": r"order \d of"},
    {"where": "status>=8"},
    {"attributes": {"big": 10**25}},
    {"exception": "KeyError"},
    {"after_id": 4, "up_to_id": 13},
    {"process": os.getpid()},
    {"after_id": 10**6},
]
BY: list[By] = ["logger", "source", "template", "level", "exception", "thread", "process"]


def test_a_number_of_rows_costs_no_memory(file, tmp_path, monkeypatch):
    """
    To find where the rows to show begin and end, the reader keeps no id of them.

    `show -n` of an archive and `show --around ID -B` kept each: 114 MB for 2.3 million.
    """
    write_part(file, tmp_path / "archive", (1, 39))
    many = 100_000

    def archived_ids(self, query, chosen, bounds, *, backward):
        return ((id_,) for id_ in (range(many, 0, -1) if backward else range(1, many + 1)))

    monkeypatch.setattr(archived.ArchivedLog, "_archived", archived_ids)
    with LogReader(tmp_path / "archive") as log:
        tracemalloc.start()
        try:
            assert many == sum(1 for _ in reader.columns_of(log, ["id"], newest=many))
            assert (1, many) == around(log, {"up_to_id": many}, 20, many, many)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 1_000_000, peak


def answers(log: LogReader, some: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Yield what a log answers to each question, with the question."""
    for filters in some:
        try:
            yield "rows", filters, [*log.rows(**filters)]
        except FilterError as error:
            yield "error", filters, str(error)
            continue
        for newest in (0, 1, 7, 30):
            yield "newest", newest, filters, [*log.rows(newest=newest, **filters)]
        yield "reverse", filters, [*log.rows(newest=9, reverse=True, **filters)], [*log.rows(reverse=True, **filters)]
        yield "json", filters, [*log.json_lines(**filters)]
        yield "count", filters, log.count(**filters)
        yield "histogram", filters, log.histogram(**filters)
        yield "patterns", filters, log.patterns(**filters), log.patterns(new_since=0, **filters)
        yield "gaps", filters, log.gaps(**filters)
        yield "context", filters, [*windows(log, filters, None, 1, 2)]  # type: ignore[arg-type]
        for by in BY:
            yield "top", by, filters, log.top(by, **filters)
        yield "attribute", filters, log.top("attribute", key="status", **filters)
    yield "names", log.level_names(), log.last_id()
    found = log.brief()
    yield (
        "brief",
        dataclasses.replace(found, totals=dataclasses.replace(found.totals, file_bytes=0, wal_bytes=0, lags=())),
    )
    for by_level in (True, False):  # an archive counted the levels even if nobody asked for them
        stats = dataclasses.replace(log.stats(by_level=by_level), file_bytes=0, wal_bytes=0, free_bytes=0)
        lags = [dataclasses.replace(cursor, lag_seconds=0) for cursor in stats.cursors]
        yield "stats", dataclasses.replace(stats, cursors=()), lags


@settings(max_examples=max(2, settings.default.max_examples // 12))  # each asks some 500 questions twice, or 150
@given(data=st.data())
def test_an_archived_log_answers_as_one_that_was_never_archived(data: st.DataObject) -> None:
    """
    A log that is archived piece by piece answers each question as it would without an archive, also after kills.

    A kill leaves a part that is not noted, or rows that are in a part and in the file.
    """
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        # Both ways to read few ids, and pieces that end in the middle of what is asked.
        patch.setattr(archived, "_FEW", data.draw(st.sampled_from([0, 6, 1_000])))
        patch.setattr(archived, "_NEAR", data.draw(st.sampled_from([5, 1_000])))
        file, folder = Path(name, "app-log.db"), Path(name, "archive")
        folder.mkdir()
        fill(file, data.draw(st.lists(st.sampled_from([3, 12, 27]), min_size=1, max_size=4)))
        shutil.copy(file, Path(name, "whole.db"))
        with LogReader(file) as log:
            last_id = log.last_id()
        cuts = data.draw(st.lists(st.integers(1, last_id - 1), max_size=4))
        for cut in sorted(cuts):
            kind = data.draw(st.sampled_from(["jsonl.gz", "parquet"]))
            if data.draw(st.booleans()):
                with contextlib.closing(sqlite3.connect(file)) as connection:
                    ((low,),) = connection.execute("SELECT min(id) FROM records")
                if low <= cut:
                    write_part(file, folder, (low, cut), kind=kind, number=90 + cut)
            data.draw(st.sampled_from([archive, archive_for_real]))(
                file, folder, cut, kind=kind, delete=data.draw(st.booleans())
            )

        with LogReader(Path(name, "whole.db")) as whole, LogReader([file, folder]) as log:
            assert log.notice is None
            # In any order, because an answer must not depend on the rows that were loaded for the last one.
            some = data.draw(st.permutations(FILTERS))
            some = some if settings.default.max_examples > 10 else some[:6]
            for expected, actual in zip(answers(whole, some), answers(log, some), strict=True):
                assert expected == actual


def spoil(part: Path) -> None:
    """Damage the checksum at the end of a part, which still looks the same from outside and has its head."""
    before = part.stat()
    with open(part, "r+b") as broken:
        broken.seek(-8, os.SEEK_END)
        broken.write(bytes(4))
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_each_question_has_its_budget_and_its_look_at_the_tables(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With an archive too, each question begins with a new budget for the file, and looks at its tables again.

    A reader that lived for long ended with "more work than any log", and read a view in the place of a table.
    """
    archive(file, folder, 10)
    with LogReader([file, folder]) as log:
        renewed: list[object] = []
        renew = log._archive._file.renew  # type: ignore[union-attr]
        monkeypatch.setattr(log._archive._file, "renew", lambda: (renewed.append(1), renew()))  # type: ignore[union-attr]
        for ask in log.stats, log.gaps, log.last_id, lambda: log.top("source"), log.histogram, log.patterns:
            before = len(renewed)
            ask()
            assert len(renewed) > before
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DROP TABLE cursors")
            connection.execute("CREATE VIEW cursors AS SELECT 'x' AS name, 1 AS after_id, 2 AS updated_us")
        with pytest.raises(CorruptFileError, match="'cursors' is not that of a log"):
            log.stats()


@pytest.mark.parametrize(
    "filters", [{"pattern_of": "x"}, {"without": "x"}, {"without": {"pattern_of": 1.5}}, {"without": {"run": ["x"]}}]
)
def test_filters_of_a_wrong_type(file: Path, folder: Path, filters: Any) -> None:
    """What no filter may be is a `FilterError` of each method, as with a file alone; it was a `TypeError`."""
    archive(file, folder, 10)

    with LogReader(file) as alone, LogReader([file, folder]) as both:
        for log in (alone, both):
            for ask in (log.count, log.top, log.patterns, log.histogram):
                with pytest.raises(FilterError):
                    ask(**filters)


def test_an_archive_alone_is_a_log(file: Path, folder: Path) -> None:
    """Without the log's file, its archive is a log that ends with the last archived row."""
    archive(file, folder, 10)
    archive(file, folder, 25, kind="parquet")

    assert [*range(1, 26)] == ids_of(folder) == ids_of(*folder.iterdir())
    with LogReader(str(folder)) as log:
        assert (25, str(folder)) == (log.stats().rows, log.path)
        size = sum(part.stat().st_size for part in folder.iterdir())
        assert (size, size) == (log.stats().file_bytes, log.brief().totals.file_bytes)  # it was that of the folder


@pytest.mark.parametrize("levelno", [2**63 - 1, -(2**63)])
def test_a_level_at_an_end_of_64_bits(file: Path, folder: Path, levelno: int) -> None:
    """
    An archive of rows whose level has 19 digits and a name is read.

    The head with that level was called damaged, so no row of the part was read any more.
    """
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO levels VALUES (?, 'END')", (levelno,))
        connection.execute("UPDATE records SET levelno = ? WHERE id < 5", (levelno,))
    archive_for_real(file, folder, 10, kind="jsonl.gz", delete=True)

    with LogReader([file, folder]) as log:
        assert ["END"] * 4 == [row.level for row in log.rows(level="END..END")]


@pytest.mark.parametrize("column", ["created_us", "levelno"])
def test_a_text_in_the_place_of_a_number(file: Path, folder: Path, column: str) -> None:
    """Beside an archive too, a row of the file counts whose time or level is a text; it stood among the pruned ones."""
    archive(file, folder, 10)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE records SET {column} = 'no' WHERE id = 20")
    with LogReader([file, folder]) as log:
        rows = log.count()
        assert (rows, rows) == (log.stats().rows, sum(talker.records for talker in log.top("template")))


def test_what_only_a_file_has_is_refused(file: Path, folder: Path) -> None:
    """To follow, to check and to compare books needs the file; with an archive the error says to name it alone."""
    archive(file, folder, 10)

    with LogReader([file, folder]) as log:
        for ask in (log.check, log.books, log.totals, log.follow, lambda: next(log.additions()), lambda: log.schema):
            with pytest.raises(FilterError, match="name the log's file alone"):
                ask()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_an_inherited_reader_of_an_archive_alone(file: Path, folder: Path) -> None:
    """In a forked child, a reader of an archive alone refuses each question, as that of a file does; it answered."""
    archive(file, folder, 20)
    with LogReader(folder) as log:
        for ask in (log.count, log.last_id, log.rows, log.gaps):
            assert "was made before this process was forked" in in_child(lambda ask=ask: list(ask()))
        assert 20 == log.count()


def test_a_closed_reader(file: Path, folder: Path) -> None:
    """A closed reader refuses each question, and rows that were asked for before, and leaves nothing open."""
    archive(file, folder, 10)
    log = LogReader([file, folder])
    rows = iter(log)
    next(rows)
    log.close()

    assert "(closed)" in repr(log)
    for ask in (log.stats, log.count, log.gaps, lambda: list(rows), lambda: list(log)):
        with pytest.raises(ValueError, match="is closed"):
            ask()


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_that_move_while_they_are_read(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """
    Rows that go over into the archive in the middle of reading are neither lost nor shown twice.

    A reader in a pager stood at row 15 while retention deleted all rows up to 30, which an archive had taken over.
    """
    monkeypatch.setattr("sqlite_log_handler._read.scan.BATCH", 3)
    archive(file, folder, 5)
    with LogReader([file, folder]) as log:
        rows = log.rows(reverse=reverse)
        found = [next(rows).id for _ in range(15)]
        archive(file, folder, 30)
        found += [row.id for row in rows]
        count = log.last_id()

    assert sorted(range(1, count + 1), reverse=reverse) == found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("look", range(2, 9))
def test_rows_that_move_behind_a_batch(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, look: int, reverse: bool
) -> None:
    """Rows that move after a batch was read, and before it is looked whether they have, come once."""
    monkeypatch.setattr("sqlite_log_handler._read.scan.BATCH", 3)
    archive(file, folder, 5)
    first_id, looks = archived._first_id, iter(range(100))

    def move_first(scan: Scan) -> int:
        if next(looks) == look:
            archive(file, folder, 30)
        return first_id(scan)

    monkeypatch.setattr(archived, "_first_id", move_first)
    with LogReader([file, folder]) as log:
        found = [row.id for row in log.rows(reverse=reverse)]
        assert sorted(range(1, log.last_id() + 1), reverse=reverse) == found


@pytest.mark.parametrize(("reverse", "gone"), [(False, 28), (False, 35), (True, 18)])
@pytest.mark.parametrize("read", [10, 15])
def test_rows_that_move_between_two_spans(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, read: int, gone: int, reverse: bool
) -> None:
    """Rows that move while no statement runs come once, also if the file has none left for the next one."""
    spans = Scan.spans
    monkeypatch.setattr(Scan, "spans", lambda *given, **options: spans(*given, **options, span=5, widest=5))
    archive(file, folder, 5)
    with LogReader([file, folder]) as log:
        rows = log.rows(reverse=reverse, up_to_id=30)
        found = [next(rows).id for _ in range(read)]
        archive(file, folder, gone)
        found += [row.id for row in rows]

    assert sorted(range(1, 31), reverse=reverse) == found


def test_rows_that_move_while_they_are_counted(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that go over into the archive just before the file is read are counted once."""
    archive(file, folder, 5)
    with LogReader([file, folder]) as log:
        read = Scan.rows

        def move_first(scan: Scan, *arguments: Any, **options: Any) -> Iterator[Any]:
            if scan is log._scan:
                archive(file, folder, 30)
            return read(scan, *arguments, **options)

        monkeypatch.setattr(Scan, "rows", move_first)
        assert log.last_id() == log.stats().rows


@pytest.mark.parametrize("few", [1, 1_000])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_part_that_is_removed_before_it_is_read(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, few: int, by_hand: bool
) -> None:
    """
    A part that a limit removes between the listing and the reading is gone past, as rows are that the file deletes.

    It was an error, and what came after it was not shown. A part that somebody has removed, and the log notes, is one.
    """
    monkeypatch.setattr(archived, "_FEW", few)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE drops SET after_id = 3")
    archive(file, folder, 8)
    [first] = folder.glob("*.jsonl.gz")
    kept = first.read_bytes()
    archive(file, folder, 16)

    def after_removal(read: Callable[..., Iterator[Any]], part: Part, *bounds: Bounds) -> Iterator[Any]:
        if part.head.first_id == 1:
            first.unlink(missing_ok=True)
            if not by_hand:
                with contextlib.closing(sqlite3.connect(file)) as connection, connection:
                    connection.execute("DELETE FROM archives WHERE name = ?", [first.name])
        yield from read(part, *bounds)

    for name in ("rows", "drops"):
        monkeypatch.setattr(Part, name, partialmethod(partial(after_removal, getattr(Part, name))))
    questions: list[Callable[[LogReader], Any]] = [
        lambda log: [row.id for row in log.rows()],
        lambda log: [row.id for row in log.rows(reverse=True)][::-1],
        lambda log: [*range(9, 9 + log.stats().rows)],
        lambda log: (log.gaps(), [*range(9, log.last_id() + 1)])[1],
    ]
    for ask in questions:
        first.write_bytes(kept)
        with LogReader([file, folder]) as log:
            if by_hand:
                with pytest.raises(MissingFileError, match="has been removed"):
                    ask(log)
            else:
                assert [*range(9, log.last_id() + 1)] == ask(log)


def test_the_next_question_sees_what_came_since(file: Path, folder: Path) -> None:
    """A reader that stays open counts rows and parts that came since, and reads what it has read only once."""
    archive(file, folder, 10)
    with LogReader([file, folder]) as log:
        before = log.stats().rows
        handler = SQLiteHandler(file)
        handler.handle(record("new"))
        handler.close()
        archive(file, folder, 20)
        for part in folder.iterdir():
            spoil(part)

        assert before + 1 == log.stats().rows == sum(bucket.records for bucket in log.histogram())
        with pytest.raises(CorruptFileError, match="cut or damaged"):
            log.count()


def test_the_next_question_counts_what_was_deleted_since(file: Path, folder: Path) -> None:
    """What a reader has counted stays in its database when a limit deletes the part; a new reader is without it."""
    archive(file, folder, 10)
    with LogReader([file, folder]) as log:
        before = log.stats().rows
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM archives")
        for part in folder.iterdir():
            part.unlink()

        assert before == log.stats().rows
        assert before - 10 == log.count()
    with LogReader([file, folder]) as log:
        assert before - 10 == log.stats().rows


def test_the_next_question_forgets_the_runs_that_have_left(file: Path, folder: Path) -> None:
    """
    A reader that stays open counts the first run as a new reader does when the one before it has left the archive.

    Its database still had the processes of that, so no row was found of `run=1`.
    """
    add = "INSERT INTO processes SELECT 9, host, pid + 1, name, started_us * 2, program FROM processes LIMIT 1"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(add)
        connection.execute("UPDATE records SET process_id = iif(id > 10, 9, 1)")
        connection.execute("UPDATE drops SET process_id = 9")
        connection.execute("DELETE FROM processes WHERE id NOT IN (1, 9)")
    archive_for_real(file, folder, 10, kind="jsonl.gz", delete=True)
    with LogReader([file, folder]) as log:
        expected = [row.id for row in log.rows(run=2)]
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM archives")
            connection.execute("DELETE FROM processes WHERE id = 1")
        for part in folder.glob("*.gz"):
            part.unlink()

        assert expected == [row.id for row in log.rows(run=1)]
    assert len(expected) > 10


def test_the_next_question_knows_the_names_that_came_since(file: Path, folder: Path) -> None:
    """
    A reader that stays open knows the levels and the runs that came since, also those without a row in its database.

    A level that had got a name was refused, and `run=0` was the run that had been the last one at the first question.
    """
    archive(file, folder, 10)
    with LogReader([file, folder]) as log:
        log.top(level="ERROR")
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("INSERT INTO levels VALUES (35, 'CAREFUL')")
            connection.execute(
                "INSERT INTO processes (host, pid, name, started_us, program) "
                "SELECT host, pid + 1, name, started_us * 2, program FROM processes"
            )

        assert [] == log.patterns(level="ERROR", run=0)
        assert {40} == {level for bucket in log.histogram(level="CAREFUL") for level in bucket.levels}


def test_a_part_that_comes_while_a_run_is_looked_up(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a run that go over into a part while its processes are looked up are read: they were left out."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM records WHERE id < 10")
    with LogReader(file) as log:
        expected = [row.id for row in log.rows(run=0)]
    run_processes = archived.run_processes

    def archive_after(*arguments: Any) -> list[int]:
        found = run_processes(*arguments)
        if not any(folder.iterdir()):
            with contextlib.closing(sqlite3.connect(file)) as connection, connection:
                [first] = connection.execute("SELECT * FROM processes WHERE id = 1").fetchall()
                connection.execute("DELETE FROM processes WHERE id = 1")  # not one of the part's
                connection.commit()
                archive(file, folder, 25)
                connection.execute("INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?)", first)
        return found

    monkeypatch.setattr(archived, "run_processes", archive_after)
    with LogReader([file, folder]) as log:
        assert expected == [row.id for row in log.rows(run=0)]


def test_a_signal_just_before_the_rows_of_a_run_are_read(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A signal handler asks the reader just before rows are read that need a database, and these are all there.

    The rows were looked for in the database of its question, which had few of them; and if it closed the reader, there
    was a KeyError.
    """
    archive(file, folder, 10)
    newest = Scan.newest

    def newest_and_ask(*given: Any) -> Any:
        found = newest(*given)
        asks.pop(0)()
        return found

    with LogReader([file, folder]) as log:
        asks: list[Callable[[], object]] = [lambda: list(log.rows(pattern_of=3, level="ERROR")), log.close]
        expected = [row.id for row in log.rows(run=0)]
        monkeypatch.setattr(Scan, "newest", newest_and_ask)
        assert expected == [row.id for row in log.rows(run=0, newest=10**6)]
        with pytest.raises(ValueError, match="is closed"):
            list(log.rows(run=0, newest=10**6))


def test_a_question_that_fails_leaves_no_database(file: Path, folder: Path) -> None:
    """
    What a failed question has loaded is closed, and the next question reads anew.

    A program kept one reader and asked a damaged archive again and again. Each time one more temporary database stayed
    open until the reader was closed.
    """
    archive(file, folder, 10)
    rows = len(ids_of(file, folder))
    [part] = folder.glob("*.jsonl.gz")
    sound = part.read_bytes()
    spoil(part)
    with LogReader([file, folder]) as log:
        assert log._archive is not None
        for _ in range(3):
            with pytest.raises(CorruptFileError, match="cut or damaged"):
                log.top()
            assert [log._archive._names()] == [each for each in log._archive._loaded() if not each.scan.closed]
        part.write_bytes(sound)
        assert rows == log.stats().rows


def test_rows_go_on_beside_a_question_that_fails(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that somebody reads come to their end when another question finds what came since damaged."""
    spans = Scan.spans
    monkeypatch.setattr(Scan, "spans", lambda *given, **options: spans(*given, **options, span=5, widest=5))
    archive(file, folder, 10)
    with LogReader([file, folder]) as log:
        expected = [row.id for row in log.rows(pattern_of=1)]
        rows = log.rows(pattern_of=1)
        found = [next(rows).id]
        handler = SQLiteHandler(file)
        for _ in range(2):
            handler.handle(record("new"))
        handler.close()
        archive(file, folder, log.last_id() - 1)
        for part in folder.iterdir():
            spoil(part)
        with pytest.raises(CorruptFileError):
            log.stats()
        found += [row.id for row in rows]

    assert 1 < len(found)
    assert expected == found


def test_a_question_that_nobody_reads_leaves_no_database(file: Path, folder: Path) -> None:
    """Rows of which nobody takes one keep no database: each kept its own until the reader was closed."""
    archive(file, folder, 10)
    with LogReader([file, folder]) as log:
        assert log._archive is not None
        for level in ("DEBUG", "INFO", "WARNING"):
            log.rows(run=0, level=level)

        assert {log._archive._names(), log._archive._kept["question"].loaded} == {*log._archive._loaded()}


@pytest.mark.parametrize("kind", ["parquet", *slowly("jsonl.gz")])
def test_a_part_with_very_many_gaps(file: Path, folder: Path, kind: str) -> None:
    """
    The gaps of a part may take more than 6 MiB together.

    A program dropped records for an hour, and a part of Parquet got 36,000 lines of the ledger. The handler deleted the
    rows, and from then on each question on the archive failed: "a line has more than 6 MiB, which no handler writes".
    """
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        (before,) = connection.execute("SELECT count(*) FROM drops").fetchone()
        lines = ((f"{number:04}" * 250,) for number in range(7_000))
        connection.executemany(
            "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
            "VALUES (5, 1, 2, 1, 'queue_full', ?, 20, 3)",
            lines,
        )

    archive_for_real(file, folder, 10, kind=kind, delete=True)

    with LogReader([file, folder]) as log:
        assert before + 7_000 == len(log.gaps())


@pytest.mark.slow
def test_a_day_of_very_many_processes(file: Path, folder: Path) -> None:
    """
    A day of many short processes goes into several parts. These have long names, so fewer of them suffice.

    A job ran every second and logged a line each time. The head of the day's part named each process, was longer than
    6 MiB, and from then on no reader opened the archive: "a line has more than 6 MiB, which no handler writes".
    """
    count = 8_000
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        (rows,) = connection.execute("SELECT max(id) FROM records").fetchone()
        connection.execute(
            "INSERT INTO processes (pid, name, host, started_us, program) "
            "WITH numbers (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM numbers LIMIT ?) "
            "SELECT n, 'MainProcess', ?, 1764385200000000 + n, 'job.py' FROM numbers",
            (count, f"{'app' * 270}.example.com"),
        )
        connection.execute(
            "INSERT INTO records (created_us, levelno, source_id, process_id, message) "
            "SELECT (SELECT max(created_us) FROM records), 20, 1, id, 'done' FROM processes WHERE program = 'job.py'"
        )

    archive_for_real(file, folder, rows + count - 1, kind="jsonl.gz", delete=False)

    with LogReader(folder) as log:
        assert rows + count - 1 == log.last_id()


def test_days_that_cannot_match_are_not_read(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only parts whose head may match are read on, by time, level, id and run."""
    monkeypatch.setattr(archived, "_FEW", 0)
    for cut in (8, 16, 24, 32):
        archive(file, folder, cut)
    with LogReader([file, folder]) as log:
        row = next(log.rows(after_id=17))
        for part in folder.iterdir():
            if not part.name.endswith(".18.jsonl.gz"):  # the number is the first id and one
                spoil(part)

        assert [row] == [*log.rows(after_id=17, up_to_id=18)]
        assert [18] == [row.id for row in log.rows(since=row.time, until=row.time)]
        assert 1 == sum(bucket.records for bucket in log.histogram(since=row.time, until=row.time))
        with pytest.raises(CorruptFileError, match="cut or damaged"):
            list(log)


def test_what_was_pruned_and_not_archived_stays_pruned(file: Path, folder: Path) -> None:
    """
    Numbers call those rows pruned that are in neither place.

    They were added up from lines of `prunes`, which did not tell what was archived afterwards, and from the rows of
    parts that a limit had removed, also while the file had them: 44,401 of 30,000 records were pruned.
    """
    archive(file, folder, 10)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        prune(connection, 15)
        connection.execute("UPDATE prunes SET archived = 0")  # as of rows that were archived afterwards
        connection.execute("UPDATE marks SET expired = 100, archived_id = 20")  # as of rows that are in the file

    with LogReader([file, folder]) as log:
        assert (5, 5) == (log.stats().pruned, log.stats().unsent)
        assert log.stats().file_bytes == log.brief().totals.file_bytes > file.stat().st_size
        assert [5] == [gap.count for gap in log.gaps() if not gap.logger]
        assert [*range(1, 11), 16] == [row.id for row in log.rows(up_to_id=16)]


@pytest.mark.parametrize(("unsent", "expected"), [(15, 5), (3, 3)])
def test_what_was_pruned_and_has_left_the_archive_is_a_gap(
    file: Path, folder: Path, unsent: int, expected: int
) -> None:
    """
    A gap counts the rows of a line of `prunes` that are in no part now, and were not forwarded.

    It counted those that had not been in the archive when they were deleted: of 603 that a limit had removed from the
    archive before they were forwarded, 99 were missing.
    """
    for up_to_id in (5, 10, 15):
        archive(file, folder, up_to_id)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        ((name,),) = connection.execute("SELECT name FROM archives WHERE first_id = 6").fetchall()
        connection.execute("DELETE FROM archives WHERE first_id = 6")
        os.remove(folder / name)
        connection.execute("DELETE FROM prunes WHERE first_id > 1")
        connection.execute("UPDATE prunes SET last_id = 15, count = 15, archived = 15, unsent = ?", (unsent,))

    with LogReader([file, folder]) as log:
        assert (5, expected) == (log.stats().pruned, log.stats().unsent)
        assert [expected] == [gap.count for gap in log.gaps() if not gap.logger]


@pytest.mark.parametrize(
    ("spans", "unsent", "expected"),
    [
        ([(1, 15), (6, 20)], [10, 10], 15),
        ([(1, 20), (6, 10)], [15, 5], 15),
        ([(1, 10), (11, 20)], [0, 10], 10),
        ([(1, 5), (6, 20)], [5, 15], 15),
    ],
    ids=["in turns", "one in another", "none", "one after another"],
)
def test_causes_that_took_turns(
    file: Path, folder: Path, spans: list[tuple[int, int]], unsent: list[int], expected: int
) -> None:
    """
    A row that is in neither place counts once, when two causes have pruned in turns within an hour.

    The ids of the lines of both overlap, and each line counted the rows that the other had pruned: 25 of 15.
    """
    archive(file, folder, 5)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        prune(connection, 20)
        connection.execute("DELETE FROM prunes")
        connection.executemany(
            "INSERT INTO prunes (first_id, last_id, since_us, until_us, cause, count, unsent) "
            "VALUES (?, ?, 1, 1, 'a cause', 10, ?)",
            [(*span, count) for span, count in zip(spans, unsent, strict=True)],
        )

    with LogReader([file, folder]) as log:
        assert (15, expected) == (log.stats().pruned, log.stats().unsent)
        assert expected == sum(gap.count for gap in log.gaps() if not gap.logger)


@pytest.mark.parametrize("reverse", [False, True])
def test_control_characters_beside_an_archive(tmp_path, reverse):
    """
    JSON of a row of control characters, six times as long as the row, comes from the file beside an archive too.

    The file alone gave it, and with its archive it was a `LimitError`.
    """
    file = hostile.make(
        tmp_path / "app.db",
        "INSERT INTO records (id, created_us, levelno, source_id, process_id, message) "
        "SELECT 2, 1, 20, 1, 1, replace(hex(zeroblob(250000)), '0', char(1));",
    )
    folder = tmp_path / "archive"
    folder.mkdir()
    write_part(file, folder, (1, 1))
    with LogReader(file) as alone, LogReader([file, folder]) as both:
        expected = [*alone.json_lines(reverse=reverse)]

        assert expected == [*both.json_lines(reverse=reverse)]


def test_a_gap_that_moves_while_the_ledger_is_read(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A gap that leaves the file for a part between two looks is shown once.

    The parts were listed first and the file was asked after that, so such a gap was in neither.
    """
    handler = SQLiteHandler(file)
    handler.handle(record("the newest row stays in the file"))
    handler.close()
    with LogReader([file, folder]) as log:
        expected = log.gaps()
    ask = Scan.all

    def move_first(scan: Scan, sql: str, *parameters: Any) -> list[Any]:
        if sql == archived._DROPS and not any(folder.iterdir()):
            archive(file, folder, 45)
            with contextlib.closing(sqlite3.connect(file)) as connection, connection:
                assert connection.execute("DELETE FROM drops WHERE after_id < 45").rowcount
        return ask(scan, sql, *parameters)

    monkeypatch.setattr(Scan, "all", move_first)
    with LogReader([file, folder]) as log:
        assert expected == log.gaps()
