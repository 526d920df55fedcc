"""
From rows to the tables: each row once and in order, gaps where they are, volume.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._logfile.schema import MAX_RECORD_BYTES
from sqlite_log_handler._write import inserts as inserts_module
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write import writer as writer_module
from sqlite_log_handler._write.inserts import Inserter
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import MESSAGE, SIZE, PackedRow
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

from batches import HOUR, connection_of, fail_at, gap, messages, numbered, read, refuse, row, write
from slowly import slowly

# Rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count",
    [0, 1, 2, 3, 9, 63, 64, 65, 1_000, 1_001, 2_731, *slowly(4, 8, 25, 160, 400, 2_499, 2_500, 2_501, 5_001, 10_000)],
)
def test_every_row_once_and_in_order(writer: Writer, count: int) -> None:
    """Batches of any length are written whole, each row once, in order, with rising ids without a hole."""
    outcome = writer.write(Commit(numbered(0, count)))
    assert not outcome.refused

    assert [(number + 1, f"{number}") for number in range(count)] == read(
        writer, "SELECT id, message FROM logs ORDER BY id"
    )


@pytest.mark.parametrize("sizes", [[60_000] * 70, [10, 60_000, 10] * 20, [900_000, 10, 10], [2_000_000], [500_000] * 5])
def test_large_rows(writer: Writer, sizes: list[int]) -> None:
    """Rows of any size are written whole, each once, in order."""
    rows = [row(f"{number}:" + "x" * size) for number, size in enumerate(sizes)]
    writer.write(Commit(rows))

    assert [item[MESSAGE] for item in rows] == messages(writer)


def test_statements_are_few_and_bounded(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full batch is two statements, with `extra` in each row too; what is bound to a statement is 1 MiB at most."""
    bound: list[int] = []
    insert = Inserter._insert

    def counted(self: Inserter, rows: Sequence[PackedRow]) -> None:
        bound.append(sum(len(item[MESSAGE]) for item in rows))
        insert(self, rows)

    monkeypatch.setattr(Inserter, "_insert", counted)
    writer.write(Commit(numbered(0, 10_000)))
    assert 2 == len(bound)

    bound.clear()
    writer.write(Commit(numbered(0, 10_000, customer="c-17")))
    assert 2 == len(bound)

    bound.clear()
    writer.write(Commit([row("x" * 60_000)] * 100))
    assert 1024 * 1024 >= max(bound)
    assert 100 * 60_000 == sum(bound)


def test_statement_fits_sqlite() -> None:
    """No statement has more parameters than SQLite takes."""
    assert 1 == min(inserts_module._STATEMENT_ROWS)
    assert sorted(inserts_module._STATEMENT_ROWS) == list(inserts_module._STATEMENT_ROWS)
    for length in inserts_module._STATEMENT_ROWS:
        if length <= inserts_module._MOST_ROWS_UNSHARED:
            assert length * 13 == inserts_module._statement(length).count("?") <= 32_766
        if length >= inserts_module._FEWEST_ROWS_SHARED:
            assert length * 4 + length // 10 * 10 == inserts_module._shared_statement(length).count("?") <= 32_766


def rows_of(contexts: int, count: int) -> list[PackedRow]:
    """Make rows of `contexts` contexts, which differ in one field each, and take turns without order."""
    rows = []
    for number in range(count):
        context = number if number < contexts else number * 7 % contexts
        field = ("lineno", "levelno", "thread", "threadName", "taskName", "exc_text", "stack_info")[context % 7]
        value = context if field in {"lineno", "levelno", "thread"} else f"{context}"
        extra = {"number": number} if number % 9 == 1 else {}
        rows.append(row(f"{number}", **{field: value}, created=1_000.0 + number, **extra))
    return rows


@pytest.mark.parametrize("gaps", [[], [1, 150, 450]], ids=["whole", "with gaps"])
@pytest.mark.parametrize(
    ("contexts", "count"),
    [
        *[(1, 160), (16, 101), (16, 160), (17, 160), (40, 400), (41, 400)],
        *slowly((30, 1_000), (500, 5_000), (501, 5_001)),
    ],
)
def test_rows_that_share_are_written_like_others(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch, contexts: int, count: int, gaps: list[int]
) -> None:
    """Whatever many rows share, and however many do, each row is written with its own fields, in order."""
    batch = Commit(rows_of(contexts, count), [gap(position) for position in gaps if position < count])
    monkeypatch.setattr(writer_module, "DATA_ERRORS", ())  # to write row by row would hide what goes wrong
    found = []
    for fewest in (inserts_module._FEWEST_ROWS_SHARED, 1_000_000):
        monkeypatch.setattr(inserts_module, "_FEWEST_ROWS_SHARED", fewest)
        writer = make_writer()
        if fewest == 1_000_000:
            os.unlink(writer.file.path)
        writer.file.open()
        connection_of(writer).setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)  # some systems take more
        outcome = writer.write(batch)
        assert not outcome.refused
        found.append([read(writer, "SELECT * FROM logs ORDER BY id"), read(writer, "SELECT * FROM volume")])
        writer.close()

    assert found[1] == found[0]


def test_rows_that_share_are_looked_up(writer: Writer) -> None:
    """
    SQLite takes the rows in order and looks each one's context up; it does not go through all of them for each row.
    """
    writer.file.open()
    sql = inserts_module._shared_statement(5_000)
    plan = read(writer, f"EXPLAIN QUERY PLAN {sql}", *[None] * sql.count("?"))

    assert "AUTOMATIC COVERING INDEX" in plan[-1][-1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_row_that_is_larger_than_a_statement(count: int) -> None:
    """With one emoji, a text takes four bytes a letter in memory: a row of 2 MB still goes, in a statement alone."""
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, "x" * 500_000 + "😀", (), None)
    rows = [row_module.make_row(record, None, MAX_RECORD_BYTES)] * count

    assert 1 == inserts_module._statement_rows(rows, 0, count)
    assert rows[0][SIZE] > inserts_module._STATEMENT_SIZE


@pytest.mark.parametrize(("length", "expected"), [(600, [5_000]), (700, [2_500, 2_500])])
def test_long_texts_are_not_shared(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, length: int, expected: list[int]
) -> None:
    """
    Rows share a statement while the texts that they share take 64 KiB: SQLite keeps these twice, in memory.
    """
    shared: list[int] = []
    parameters = Inserter._shared_parameters

    def counted(self: Inserter, rows: Sequence[PackedRow], length: int) -> Any:
        found = parameters(self, rows, length)
        if found is not None:
            shared.append(len(rows))
        return found

    monkeypatch.setattr(Inserter, "_shared_parameters", counted)
    texts = ["é" * (length // 2) + f"{number}" if number % 50 == 0 else None for number in range(5_000)]
    writer.write(Commit([row(exc_text=text) for text in texts]))

    assert expected == shared
    assert [(text,) for text in texts] == read(writer, "SELECT exc_text FROM records ORDER BY id")


@pytest.mark.parametrize("field", [row_module.CREATED, MESSAGE, row_module.EXC_TEXT, row_module.ATTRIBUTES])
def test_one_row_that_sqlite_refuses_among_many_that_share(writer: Writer, field: int) -> None:
    """A row that SQLite does not take costs that row only, among many rows that share a statement too."""
    bad = list(row("bad"))
    bad[field] = None if field == row_module.CREATED else "\ud800"
    rows = numbered(0, 400)
    rows[123] = tuple(bad)  # type: ignore[call-overload]

    outcome = writer.write(Commit(rows))
    assert {123} == outcome.refused
    assert [f"{number}" for number in range(400) if number != 123] == messages(writer)


HOSTILE = ["'); DROP TABLE records;--", '"', "`", "?1", ":name", "%s", "\\", "]]>", "\u202e", "'" * 100, "é日😀"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_values_are_bound(writer: Writer, text: str) -> None:
    """No text is ever taken for SQL, wherever it stands, in rows and in gaps."""
    texts = dict.fromkeys(
        ["processName", "threadName", "taskName", "exc_text", "stack_info", "name", "pathname", "funcName"], text
    )
    item = row(text, k=text, **texts)
    writer.write(Commit([item], [gap(1, key=("queue_full", 20, text))]))

    assert [(text,) * 9] == read(
        writer,
        "SELECT message, process_name, thread_name, task_name, exc_text, stack_info, logger, pathname, func FROM logs "
        "WHERE json_extract(attributes, '$.k') = ?",
        text,
    )
    assert [(text,)] == read(writer, "SELECT logger FROM drops")
    assert [(text,)] == read(writer, "SELECT logger FROM volume WHERE logger = ? AND records = 1 AND dropped = 1", text)


def test_time_to_the_microsecond(writer: Writer) -> None:
    """Times are kept to the microsecond, rounded, and before 1970 too."""
    times = [0.0, 1_763_891_000.123456, 1_763_891_000.9999996, -1.5, -0.000001, 0.1, 8.9e12]
    writer.write(Commit([row(created=time) for time in times]))

    assert [(round(time * 1e6),) for time in times] == read(writer, "SELECT created_us FROM records ORDER BY id")


# What many rows share ------------------------------------------------------------------------------------------------


def test_sources_and_processes_stand_once(make_writer: Callable[[], Writer]) -> None:
    """A call site and a process stand in the file once, over batches and writers."""
    for _ in range(2):
        with contextlib.closing(make_writer()) as writer:
            for _ in range(2):
                rows = numbered(0, 20, process=7) + numbered(0, 20, process=7, lineno=8, threadName="other")
                writer.write(Commit(rows))
            assert [("app", "/src/app.py", 7, "main"), ("app", "/src/app.py", 8, "main")] == read(
                writer, "SELECT logger, pathname, lineno, func FROM sources ORDER BY lineno"
            )
            assert [(7, "MainProcess", 0, "")] == read(writer, "SELECT pid, name, started_us, program FROM processes")


def inserter_of(writer: Writer) -> Inserter:
    """Return the one that writes by the open connection."""
    assert writer._inserter is not None
    return writer._inserter


def test_more_sources_in_a_statement_than_are_remembered(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement may have more sources than are remembered, and every row has its own."""
    monkeypatch.setattr(inserts_module, "_CACHED_IDS", 5)
    names = [f"app.{number % 10}" for number in range(200)]
    for _ in range(2):
        writer.write(Commit([row(name, name=name) for name in names]))

    assert [(name, name) for name in names * 2] == read(writer, "SELECT logger, message FROM logs ORDER BY id")


WORKERS = {
    "worker-1": (1, "worker-1"),
    "worker-2": (2, "worker-2"),
    "worker-3": (3, "worker-3"),
    "x" * 200: (4, "x" * 200),
    "no ident": (None, "worker"),
    "no name": (5, None),
}


def test_the_first_threads_stand_once(make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first threads of a process stand in the file once, over batches and writers; the rows of others name them.

    Their columns were a sixth of a row. In a server that starts a thread for each request the table would be as long
    as the log, so it has few lines, of short names.
    """
    monkeypatch.setattr(inserts_module, "_SHARED_THREADS", 2)
    for _ in range(2):
        with contextlib.closing(make_writer()) as writer:
            for repeat in (1, 200):
                rows = [row(m, thread=ident, threadName=name) for m, (ident, name) in WORKERS.items()] * repeat
                writer.write(Commit(rows))
            assert [(1, "worker-1"), (2, "worker-2")] == read(writer, "SELECT ident, name FROM threads")
            found = read(writer, "SELECT DISTINCT message, thread, thread_name FROM logs ORDER BY id")
            assert [(message, *thread) for message, thread in WORKERS.items()] == found
            assert [("worker-1",), ("worker-2",)] == read(
                writer,
                "SELECT DISTINCT message FROM records WHERE thread_id AND coalesce(thread, thread_name) IS NULL",
            )


def test_a_thread_that_was_rolled_back_is_written_again(writer: Writer) -> None:
    """A batch that fails takes back the line of its thread, and the next one does not refer to a line that is gone."""
    write(writer, "first")
    second = row("second", thread=7, threadName="worker")
    with fail_at(writer, "records"), pytest.raises(sqlite3.DatabaseError):
        writer.write(Commit([second]))
    writer.write(Commit([second]))

    assert [(7, "worker")] == read(writer, "SELECT thread, thread_name FROM logs WHERE message = 'second'")


def test_process_of_ours(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process the start and the program are kept, and never its arguments, which hold secrets."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/shop", "--password=hunter2"])
    monkeypatch.setattr(row_module, "own_start", 1_763_892_000.0)
    for _ in range(2):  # a second configuration makes another handler
        with contextlib.closing(Writer(writer.file.path)) as fresh:
            write(fresh, "hello")
            found = read(fresh, "SELECT pid, name, started_us, program FROM processes")

    assert [(os.getpid(), "MainProcess", 1_763_892_000_000_000, "shop")] == found


def test_levels_that_a_program_named(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that a program gave a level is kept once; a level without one has none."""
    monkeypatch.setitem(logging._levelToName, 25, "NOTICE\0")
    for _ in range(2):
        writer.write(Commit([row(levelno=level) for level in (25, 26, 25, -1)]))

    assert [(25, "NOTICE\\x00")] * 2 == read(writer, "SELECT levelno, level FROM logs WHERE levelno = 25 LIMIT 2")
    assert [(25, "NOTICE\\x00")] == read(writer, "SELECT * FROM levels WHERE levelno NOT IN (10, 20, 30, 40, 50)")


def test_a_level_that_is_named_later(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a module gives when records of its level are in the file already is the name of those too."""
    for name in ("Level 25", "NOTICE", "NOTE"):
        monkeypatch.setitem(logging._levelToName, 25, name)
        writer.write(Commit([row(levelno=25)]))
        assert {(name,)} == set(read(writer, "SELECT level FROM logs"))


def test_more_levels_than_are_remembered(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes up levels does not make the writer grow."""
    monkeypatch.setattr(inserts_module, "_CACHED_IDS", 5)
    for start in range(0, 50, 5):
        writer.write(Commit([row(levelno=start + number) for number in range(5)]))

    assert 10 >= len(inserter_of(writer)._levels)


def test_more_sources_than_are_remembered(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up logger names do not make the writer grow, and every row has its own name."""
    monkeypatch.setattr(inserts_module, "_CACHED_IDS", 100)
    rows = [row(f"{number}", name=f"app.{number}") for number in range(1_000)]
    for start in range(0, 1_000, 10):
        writer.write(Commit(rows[start : start + 10]))

    assert 110 >= len(inserter_of(writer).sources)
    long = "x" * 900  # counts as four
    inserter_of(writer).forget_ids()
    for start in (0, 30):
        writer.write(Commit([row(name=f"app.{start + number}{long}") for number in range(30)]))
        assert 30 == len(inserter_of(writer).sources)
    assert [(f"app.{number}", f"{number}") for number in range(1_000)] == read(
        writer, "SELECT logger, message FROM logs WHERE length(logger) < 900 ORDER BY id"
    )


# Gaps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([100], "G0 1 2 3 4"),
        ([102], "0 1 G2 3 4"),
        ([105], "0 1 2 3 4G"),
        ([100, 105], "G0 1 2 3 4G"),
        ([101, 101, 103], "0 GG1 2 G3 4"),
        ([7, 104], "G0 1 2 3 G4"),
        ([102, 999], "0 1 G2 3 4G"),
    ],
)
def test_gaps_stand_where_they_are(writer: Writer, positions: list[int], expected: str) -> None:
    """The warning of a gap is the record after the last row before the gap."""
    writer.write(Commit(numbered(0, 5), [gap(position) for position in positions], first=100))
    found = "".join("G" if message.startswith("dropped") else message for message in messages(writer))

    assert expected.replace(" ", "") == found


@pytest.mark.parametrize("before", [0, 3])
def test_gap_without_rows(writer: Writer, before: int) -> None:
    """A gap is written without any row too, after whatever the file ends with."""
    writer.write(Commit(numbered(0, before)))
    writer.write(Commit([], [gap(before), gap(before)], first=before))

    assert [(before,), (before + 1,)] == read(writer, "SELECT after_id FROM drops ORDER BY id")
    assert [(before + 1,), (before + 2,)] == read(writer, "SELECT id FROM logs WHERE level = 'WARNING' ORDER BY id")


def test_gap_in_a_pruned_file(writer: Writer) -> None:
    """After all rows but the newest were pruned, a gap stands after the last id that was given."""
    writer.write(Commit(numbered(0, 5)))
    read(writer, "DELETE FROM records WHERE id < 5")
    writer.write(Commit([], [gap(5)], first=5))

    assert [(5,)] == read(writer, "SELECT after_id FROM drops")


@pytest.mark.parametrize("where", ["true", "id > 2", "id = 5"])
@pytest.mark.parametrize("who", ["archive", "cursor"])
def test_an_id_is_not_given_twice(writer: Writer, where: str, who: str) -> None:
    """
    An id to which the archive or a forwarder has come is not given again.

    A person deleted the newest rows. The next ones had their ids, so retention deleted rows as archived that were not,
    and a forwarder passed over them.
    """
    writer.write(Commit(numbered(0, 5)))
    read(writer, f"DELETE FROM records WHERE {where}")
    kept = read(writer, "SELECT id, message FROM records ORDER BY id")
    if who == "archive":
        read(writer, "UPDATE marks SET archived_id = 5")
    else:
        read(writer, "INSERT INTO cursors VALUES ('a', 2, 0), ('b', 5, 0), ('c', 3, 0)")
    writer.write(Commit(numbered(5, 8), [gap(0), gap(2)]))
    writer.write(Commit(numbered(8, 9)))

    expected = [(6, "dropped at 0"), (7, "5"), (8, "6"), (9, "dropped at 2"), (10, "7"), (11, "8")]
    assert kept + expected == read(writer, "SELECT id, message FROM records ORDER BY id")
    assert [(5,), (8,)] == read(writer, "SELECT after_id FROM drops ORDER BY id")


def test_an_id_is_not_given_twice_after_a_failed_commit(writer: Writer) -> None:
    """A commit that fails leaves nothing in the place of the rows that were deleted, and its ids are none."""
    writer.write(Commit(numbered(0, 5)))
    read(writer, "DELETE FROM records")
    read(writer, "UPDATE marks SET archived_id = 5")
    for refused in ("BEGIN", "COMMIT"):
        connection_of(writer).set_authorizer(
            lambda _, name, *rest, refused=refused: sqlite3.SQLITE_DENY if name == refused else sqlite3.SQLITE_OK
        )
        with pytest.raises(sqlite3.DatabaseError):
            writer.write(Commit(numbered(5, 8)))
    connection_of(writer).set_authorizer(None)
    writer.write(Commit(numbered(5, 8)))

    assert [(6,), (7,), (8,)] == read(writer, "SELECT id FROM records")


@pytest.mark.parametrize("value", [(1 << 63) - 1, "many", -7, 1.5, b"\xff"])
@pytest.mark.parametrize("statement", ["UPDATE marks SET archived_id = ?", "INSERT INTO cursors VALUES ('a', ?, 0)"])
def test_a_mark_that_no_log_has(writer: Writer, statement: str, value: object) -> None:
    """A mark far above the ids that the log may have given, or of another type, changes nothing: a bit has flipped."""
    writer.write(Commit(numbered(0, 5)))
    read(writer, statement, value)
    for start in (5, 6):
        writer.write(Commit(numbered(start, start + 1)))

    assert [(number,) for number in range(1, 8)] == read(writer, "SELECT id FROM records ORDER BY id")


def test_a_backup_is_restored_under_the_writer(writer: Writer) -> None:
    """When the contents are those of an older copy, which has not all loggers, each row has its own logger again."""
    writer.write(Commit([row(name="first")]))
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        connection_of(writer).backup(copy)
        writer.write(Commit([row(name="second")]))
        copy.backup(connection_of(writer))
    writer.write(Commit([row(name="third")]))
    writer.write(Commit([row(name="second")]))

    assert [("first",), ("third",), ("second",)] == read(writer, "SELECT logger FROM logs ORDER BY id")


@pytest.mark.parametrize("raised", ["ABORT, 'no message'", "IGNORE"])
def test_a_trigger_that_refuses_an_empty_row(writer: Writer, raised: str) -> None:
    """Where a person's trigger does not take the row that holds the place, the ids come again, and rows are counted."""
    writer.write(Commit(numbered(0, 5)))
    read(writer, "DELETE FROM records")
    read(writer, "UPDATE marks SET archived_id = 5, folded_id = 5")
    read(
        writer,
        f"CREATE TRIGGER no BEFORE INSERT ON records WHEN new.message = '' BEGIN SELECT RAISE({raised}); END",
    )
    writer.write(Commit(numbered(5, 8)))

    assert [(1,), (2,), (3,)] == read(writer, "SELECT id FROM records")
    assert [(3,)] == read(writer, "SELECT sum(records) FROM volume")


@pytest.mark.parametrize("value", ["'many'", "x'ff'", "1 << 62"])
def test_an_id_is_not_given_twice_after_the_mark_of_volume_was_damaged(writer: Writer, value: str) -> None:
    """With another value in the place of that mark, the ids go on where the archive ends, and the rows are counted."""
    writer.write(Commit(numbered(0, 5)))
    read(writer, f"UPDATE marks SET folded_id = {value}, archived_id = 9")
    for start in (5, 6):
        writer.write(Commit(numbered(start, start + 1)))

    assert [(10,), (11,)] == read(writer, "SELECT id FROM records WHERE id > 5 ORDER BY id")
    assert [(2,)] == read(writer, "SELECT sum(records) FROM volume")


def test_an_id_is_not_given_twice_after_a_row_that_sqlite_refuses(writer: Writer) -> None:
    """Nothing but the rows of a batch is written when the first one, or each, is refused after the newest were gone."""
    refuse(writer)
    writer.write(Commit(numbered(0, 5)))
    read(writer, "DELETE FROM records")
    read(writer, "UPDATE marks SET archived_id = 5")
    for rows in ([row("bad")], [row("bad"), row("good")]):
        assert {0} == writer.write(Commit(rows)).refused

    assert [(6, "good")] == read(writer, "SELECT id, message FROM records")


def test_ledger(writer: Writer) -> None:
    """The ledger says after which record, since and until when, why, from which logger and level, and how many."""
    first = gap(2, 5, since=100.5)
    first.drops["bytes_full", 40, "db"] = [7, 101.25, 102.0]
    writer.write(Commit(numbered(0, 3), [first]))

    assert [
        (2, 100_500_000, 101_500_000, "queue_full", "app", 20, 5),
        (2, 101_250_000, 102_000_000, "bytes_full", "db", 40, 7),
    ] == read(writer, "SELECT after_id, since_us, until_us, cause, logger, levelno, count FROM drops ORDER BY id")
    assert [(os.getpid(),)] * 2 == read(writer, "SELECT pid FROM drops JOIN processes ON processes.id = process_id")


@pytest.mark.parametrize("since", [float("nan"), float("inf"), 1e300, "now", None])
@pytest.mark.parametrize("levelno", [2**63, *slowly(-(2**70), 20)])
@pytest.mark.parametrize("logger", ["a\0b", "\ud800", "x" * 5_000])
def test_gap_of_a_record_that_was_never_cleaned(writer: Writer, since: Any, levelno: int, logger: str) -> None:
    """A refused record was never made a row; what it says about itself cannot stop the log, as it once did for ever."""
    bad = gap(1, key=("queue_full", levelno, logger))
    bad.drops["queue_full", levelno, logger] = [3, since, since]
    writer.write(Commit(numbered(0, 2), [bad]))

    assert [(0, 0, 3)] == read(writer, "SELECT since_us, until_us, count FROM drops")
    assert 3 == len(messages(writer))


def test_warning_has_the_sum(writer: Writer) -> None:
    """The warning of several reports put together has the sum of their drops."""
    first, second = gap(1, 5), gap(1, 7)
    first.drops = first.sum(second)
    writer.write(Commit(numbered(0, 1), [first]))

    assert [(12,)] == read(writer, "SELECT json_extract(attributes, '$.dropped') FROM logs WHERE level = 'WARNING'")
    assert [(12,)] == read(writer, "SELECT sum(count) FROM drops")


# Volume --------------------------------------------------------------------------------------------------------------


def test_volume(writer: Writer) -> None:
    """Volume adds up what was written and what was dropped, by hour, logger and level, over batches."""
    for _ in range(2):
        rows = [
            *numbered(0, 10, created=HOUR - 0.000001),
            *numbered(10, 20, created=HOUR),
            *numbered(20, 30, created=HOUR, lineno=8),
            *numbered(30, 40, created=HOUR, name="db"),
            *numbered(40, 50, created=HOUR, levelno=40),
        ]
        writer.write(Commit(rows, [gap(25, 3, since=2 * HOUR), gap(30, 4, since=HOUR)]))

    assert [
        (0, "app", 20, 20, 20, 0),
        (0, "sqlite_log_handler", 30, 4, None, 0),
        (3600, "app", 20, 40, 80, 8),
        (3600, "app", 40, 20, 40, 0),
        (3600, "db", 20, 20, 40, 0),
        (7200, "app", 20, 0, 0, 6),
    ] == read(
        writer,
        "SELECT hour, logger, levelno, records, CASE logger WHEN 'sqlite_log_handler' THEN NULL ELSE bytes END, "
        "dropped FROM volume ORDER BY hour, logger, levelno",
    )


def test_volume_counts_bytes(writer: Writer) -> None:
    """The bytes of volume are those of UTF-8 in message, traceback, stack and attributes."""
    rows = [row("é日😀", exc_text="é", stack_info="日", k="😀"), row("x" * 100), row("")]
    writer.write(Commit(rows))
    texts = [text for item in rows for text in (item[MESSAGE], *item[row_module.EXC_TEXT :]) if text]

    assert [(3, sum(len(text.encode()) for text in texts))] == read(writer, "SELECT records, bytes FROM volume")


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_volume_of_what_was_written_only(writer: Writer, bad: int) -> None:
    """Volume counts what stands in the file: not the row that was refused."""
    refuse(writer)
    rows = numbered(0, 5)
    rows[bad] = row("bad")
    writer.write(Commit(rows, [gap(2)]))

    assert read(writer, "SELECT count(*) FROM logs WHERE logger = 'app'") == read(
        writer, "SELECT sum(records) FROM volume WHERE logger = 'app'"
    )
    assert [(4, 1)] == read(writer, "SELECT records, dropped FROM volume WHERE logger = 'app'")
