"""
Files from elsewhere: a file is what its schema says, and asks for no more work and memory than a log does.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tracemalloc
from typing import Any

import hostile
import pytest
from slowly import slowly

from sqlite_log_handler import CorruptFileError, FilterError, LimitError, LogFileError, LogReader, UnreadableFileError
from sqlite_log_handler._logfile.connect import tables
from sqlite_log_handler._logfile.schema import SCHEMA
from sqlite_log_handler._read import budget as budget_module
from sqlite_log_handler._read.reader import nearest_loggers, windows
from sqlite_log_handler._read.scan import MOST, Scan

QUESTIONS: dict[str, Any] = {
    "rows": lambda reader: list(reader.rows()),
    "rows, newest first": lambda reader: list(reader.rows(reverse=True)),
    "newest rows": lambda reader: list(reader.rows(newest=3)),
    "rows of a run": lambda reader: list(reader.rows(run=0)),
    "rows of a pattern": lambda reader: list(reader.rows(pattern_of=1)),
    "rows of a level": lambda reader: list(reader.rows(level="INFO")),
    "rows with an attribute": lambda reader: list(reader.rows(attributes={"a": 1})),
    "rows of a logger": lambda reader: list(reader.rows(logger="shop")),
    "loggers of a like name": lambda reader: nearest_loggers(reader, "none"),
    "rows since": lambda reader: list(reader.rows(since="1970-01-01")),
    "JSON": lambda reader: list(reader.json_lines()),
    "top": lambda reader: reader.top(),
    "top until": lambda reader: reader.top(until="2025-06-30T12:00:00Z"),
    **{
        f"top by {by}": lambda reader, by=by: reader.top(by, since="1970-01-01T00:00:00.000001Z")
        for by in ("logger", "source", "level", "exception", "thread", "process")
    },
    "gaps": lambda reader: reader.gaps(),
    "stats": lambda reader: reader.stats(),
    "histogram": lambda reader: reader.histogram(),
    "books": lambda reader: reader.books(),
    "check": lambda reader: reader.check(),
    "last_id": lambda reader: reader.last_id(),
}


@pytest.mark.parametrize("table", tables())
@pytest.mark.parametrize("endless", [hostile.ONE_STEP, *slowly(hostile.ENDLESS)], ids=["in one step", "without end"])
def test_a_view_in_the_place_of_a_table(path, table, endless):
    """
    A view in the place of a table is refused before anything is asked of it.

    One opcode of such a view ran for hours, and SQLite asks nobody within an opcode: not even Ctrl-C ended it.
    """
    away = "DROP VIEW volume" if table == "volume" else f"ALTER TABLE {table} RENAME TO other"
    hostile.make(path, f"{away}; CREATE VIEW {table} AS {endless};")

    with pytest.raises(CorruptFileError, match=f"its '{table}' is not that of a log"):
        LogReader(path)


OTHERS = {
    "generated column": ("message TEXT NOT NULL", "message TEXT GENERATED ALWAYS AS (hex(zeroblob(8000000)))"),
    "collation": ("message TEXT NOT NULL", "message TEXT NOT NULL COLLATE NOCASE"),
    "column more": ("message TEXT NOT NULL", "message TEXT NOT NULL, more TEXT"),
    "column of another type": ("levelno INTEGER NOT NULL,", "levelno NOT NULL,"),
    "check": ("message TEXT NOT NULL", "message TEXT NOT NULL CHECK (length(message) > 0)"),
}


@pytest.mark.parametrize("asks", ["follow", "rows", "archive"])
def test_a_view_that_takes_the_place_of_a_table_later(path, tmp_path, asks):
    """
    A table that becomes a view while a reader is open is refused by the next question.

    `show -f` compared the tables when it opened the file, and read the view.
    """
    hostile.make(path)
    (tmp_path / "archive").mkdir()
    with LogReader([path, tmp_path / "archive"] if asks == "archive" else path) as reader:
        rows = reader.follow(after_id=0) if asks == "follow" else reader.rows()
        assert 1 == next(rows).id
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(
                "ALTER TABLE sources RENAME TO other; CREATE VIEW sources AS SELECT * FROM other;"
                "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (1, 20, 1, 1, 'm');"
            )
        with pytest.raises(CorruptFileError, match="is not that of a log"):
            next(rows if asks == "follow" else reader.rows())


@pytest.mark.parametrize("other", OTHERS)
def test_another_table_in_the_place_of_a_table(path, other):
    """A table with other columns than those of a log is refused, whatever its name is."""
    hostile.make(path, schema=SCHEMA.replace(*OTHERS[other]), rows="")

    with pytest.raises(CorruptFileError, match="is not that of a log"):
        LogReader(path)


def test_a_virtual_table_in_the_place_of_a_table(path):
    """A virtual table is refused: what its module does with what the file holds is not for a log to try out."""
    hostile.make(path, "DROP TABLE levels; CREATE VIRTUAL TABLE levels USING fts5 (levelno, name)")

    with pytest.raises(CorruptFileError, match="its 'levels' is not that of a log"):
        LogReader(path)


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX odd ON records (instr(message, 'x'))",
        "CREATE INDEX odd ON records (levelno) WHERE length(message) > 1",
        "CREATE INDEX odd ON records (message COLLATE NOCASE)",
    ],
)
def test_an_odd_index(path, index):
    """An index that runs an expression when it is checked or written is refused; one of columns is for its owner."""
    has = "has an expression, a collation, a WHERE or an odd name"
    hostile.make(path, index)

    with pytest.raises(UnreadableFileError, match=f"its index 'odd' {has}: drop it"):
        LogReader(path)

    path.write_bytes(path.read_bytes().replace(b"odd", b"o\xffd"))
    with pytest.raises(UnreadableFileError, match=f"its index 'o\ufffdd' {has}"):
        LogReader(path)


@pytest.mark.parametrize("index", ["(json_extract(attributes, '$.a'))", "(id) WHERE json_extract(attributes, '$.a')"])
def test_an_index_that_sqlite_calls_unsafe(path, index):
    """An index by JSON is refused by its name. SQLite 3.40 calls the schema malformed, and the log was "damaged"."""
    hostile.make(path, f"CREATE INDEX odd ON records {index}")

    with pytest.raises(UnreadableFileError, match=r"'odd'.*: drop it"):
        LogReader(path)


@pytest.mark.parametrize("odd", ["VIEW odd IN THE FUTURE", "TRIGGER odd IN THE FUTURE", "VIEW odd AS SELECT #"])
def test_what_a_newer_sqlite_has_added(path, odd):
    """What this SQLite cannot parse, because a newer one has added it, is not damage: the error names it."""
    hostile.make(
        path,
        "PRAGMA writable_schema = ON;"
        f"INSERT INTO sqlite_master VALUES ('{odd.split()[0].lower()}', 'odd', 'records', 0, 'CREATE {odd}');",
    )

    with pytest.raises(UnreadableFileError, match=r"cannot read the file for its 'odd'.*: drop it"):
        LogReader(path)


def test_what_an_owner_adds(path):
    """Who adds an index on columns, a table, a view or a trigger to a log of his own can read it as before."""
    hostile.make(
        path,
        "CREATE INDEX mine ON records (levelno); CREATE TABLE notes (text); CREATE VIEW loud AS SELECT * FROM logs;"
        "CREATE TRIGGER watch AFTER INSERT ON records BEGIN INSERT INTO notes VALUES (NEW.message); END; ANALYZE;",
    )

    with LogReader(path) as reader:
        assert (["m"], []) == ([row.message for row in reader], reader.check())


@pytest.mark.parametrize(
    "added", ["CREATE TABLE odd (text)", "CREATE VIEW odd AS SELECT 1", "CREATE INDEX odd ON hosts (name)"]
)
def test_a_name_that_is_no_utf_8(path, added):
    """What an owner adds may have a name of any bytes. A raw `sqlite3.OperationalError` was raised for it."""
    hostile.make(path, f"CREATE TABLE hosts (name); {added}")
    path.write_bytes(path.read_bytes().replace(b"odd", b"o\xffd"))

    with LogReader(path) as reader:
        assert (["m"], []) == ([row.message for row in reader], reader.check())


@pytest.mark.parametrize(
    ("text", "damaged", "error"),
    [
        ("name TEXT PRIMARY KEY", b"name TEXT PR\xc9MARY KEY", "it is damaged"),
        ("after_id INTEGER NOT NULL", b"after_id INTEGER NO\xd4 NULL", "its 'drops' is not that of a log"),
        ("func TEXT NOT NULL", b"func TEXT NOT \xceULL", "it is damaged"),
    ],
)
def test_a_schema_that_is_no_utf_8(path, text, damaged, error):
    """
    A flipped bit in the text of a table is damage, as elsewhere in the file.

    SQLite quotes the text in its error, so `sqlite3` raised a UnicodeDecodeError, or an error without a code.
    """
    hostile.make(path)
    path.write_bytes(path.read_bytes().replace(text.encode(), damaged))

    with pytest.raises(CorruptFileError, match=error):
        LogReader(path)


@pytest.mark.parametrize("name", ["pragma_application_id", "pragma_user_version", "json_each", "json_valid"])
def test_a_table_with_the_name_of_a_function(path, name):
    """A view with the name of one of SQLite's own functions is not asked instead of that."""
    hostile.make(path, f"CREATE VIEW {name} AS {hostile.ENDLESS}")

    with LogReader(path) as reader:
        for ask in QUESTIONS.values():
            ask(reader)


def test_a_check_runs_nothing_of_the_file(path):
    """
    `check` looks at the tables of a log only where there are others: an expression of theirs would be run.

    Here it raises. A condition (CHECK) would not do for a test: SQLite runs none in a file that is open read-only.
    """
    hostile.make(
        path,
        "CREATE TABLE t (x); INSERT INTO t VALUES (1); CREATE INDEX i ON t (abs(x)); PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE INDEX i ON t (abs(x - 9223372036854775807 - 2))' WHERE name = 'i';",
    )
    with (
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
        pytest.raises(sqlite3.OperationalError, match="integer overflow"),
    ):
        connection.execute("PRAGMA integrity_check")

    with LogReader(path) as reader:
        assert [] == reader.check()


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("table", ["records", *slowly("sources", "drops", "processes", "levels", "cursors", "prunes")])
def test_a_table_without_end(path, monkeypatch, table, question):
    """
    A file whose pages lead back into themselves is given up with an error, whatever is asked of it.

    Each statement was below its limit, and there were a million of them. Now they are counted together.
    """
    monkeypatch.setattr(budget_module, "_SECONDS", 0.01)
    monkeypatch.setattr(budget_module, "_SECONDS_PER_MB", 0)
    hostile.without_end(path, table=table)

    with LogReader(path) as reader, contextlib.suppress(LimitError, CorruptFileError):
        QUESTIONS[question](reader)


def test_ids_that_do_not_rise(path):
    """Rows whose ids repeat are an error of their own, and not the same rows again and again."""
    hostile.without_end(path)

    with LogReader(path) as reader, pytest.raises(CorruptFileError, match="its ids are out of order"):
        list(reader.rows())


def test_the_time_of_a_regular_expression_is_the_user_s(path, monkeypatch):
    """An expression that takes its time on each row is no fault of the file."""
    hostile.make(path)
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr("sqlite_log_handler._read.scan.time.perf_counter", lambda: next(clock))

    with LogReader(path) as reader:
        assert ["m"] == [row.message for row in reader.rows(pattern="m+")]


WIDE = "CAST(replace(hex(zeroblob(:size / 2)), '00', 'ab') || char(128512) AS TEXT)"


@pytest.mark.slow
@pytest.mark.parametrize("question", ["rows", "rows, newest first", "JSON", "rows of a logger"])
@pytest.mark.parametrize(("rows", "size"), [(400, 90_000), (60, 500_000)])
def test_memory_is_bounded_by_bytes(path, question, rows, size):
    """
    Rows are in memory by their size, and not by their number: 250 rows of 16 MiB each took 2.8 GB.

    A character outside of the basic plane makes Python take four bytes for each other one.
    """
    hostile.make(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for id_ in range(2, rows):
            connection.execute(
                f"INSERT INTO records (id, created_us, levelno, source_id, process_id, message) "
                f"VALUES ({id_}, {id_}, 20, 1, 1, {WIDE})",
                {"size": size},
            )
        connection.execute("COMMIT")

    ask = {
        "rows": lambda reader: reader.rows(),
        "rows, newest first": lambda reader: reader.rows(reverse=True),
        "JSON": lambda reader: reader.json_lines(),
        "rows of a logger": lambda reader: reader.rows(logger="shop"),
    }[question]
    tracemalloc.start()
    try:
        with LogReader(path) as reader:
            count = sum(1 for _ in ask(reader))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (rows - 1, True) == (count, peak < 64e6), peak


@pytest.mark.parametrize("by", ["source", *slowly("thread", "exception", "level")])
def test_groups_without_number(path, monkeypatch, by):
    """What is counted by something that has no end of values is an error, and not all of the memory."""
    monkeypatch.setattr("sqlite_log_handler._read.scan.MOST", 50)
    hostile.make(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for id_ in range(2, 100):
            connection.execute("INSERT INTO sources VALUES (?, ?, '/p', 1, 'f', '')", (id_, str(id_)))
            connection.execute(
                "INSERT INTO records (id, created_us, levelno, source_id, process_id, message, exc_type, thread_name) "
                "VALUES (?, 1, ?, ?, 1, 'm', ?, ?)",
                (id_, id_, id_, f"e{id_}", f"t{id_}"),
            )

    with LogReader(path) as reader, pytest.raises(LimitError, match="ask for less, by `since` or another filter"):
        reader.top(by, since="1970-01-01T00:00:00.000001Z")
    assert MOST == 100_000


# Cells ----------------------------------------------------------------------------------------------------------------

TABLES = [name for name, sql in tables().items() if sql.startswith("CREATE TABLE")]
CELLS = ["'text'"]
CELLS += slowly("-9223372036854775808", "x'00ff61'", "''", "1.5e300", "9223372036854775807", "'1e999'", "char(27)")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("table", ["records", "sources", *slowly(*sorted({*TABLES} - {"records", "sources"}))])
def test_any_value_in_any_cell(path, table, cell):
    """
    Whatever stands in a cell, of whatever type, each question has an answer or an error with a name.

    `stats` ended in an OverflowError for a time at the end of 64 bits, and `top` in a division by zero.
    """
    hostile.make(path)
    original = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")]
    asked = 0
    for column in columns:
        path.write_bytes(original)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            try:
                connection.execute(f"UPDATE {table} SET {column} = {cell}")
            except sqlite3.Error:
                continue  # this column takes no such value
        with LogReader(path) as reader:
            for name, ask in QUESTIONS.items():
                try:
                    ask(reader)
                except (LogFileError, FilterError):
                    pass
                except Exception as error:
                    raise AssertionError(f"{table}.{column} = {cell}, {name}") from error
                asked += 1
            for row in reader:
                kinds = [type(value) for value in row]
                assert {int, str, type(None)} >= {*kinds}
                assert (int, int, int, str, str, str) == (*kinds[:2], kinds[3], *kinds[4:7])
    assert asked >= len(QUESTIONS)


def test_a_null_where_none_may_be(path):
    """
    A row in which something is NULL that never is in a log has the types of any row.

    A process without a name was a TypeError, as soon as somebody asked for a run.
    """
    loose = SCHEMA.replace(" NOT NULL", "")
    rows = "".join(f"INSERT INTO {table} (id) VALUES (1);" for table in ("records", "sources", "processes"))
    script = "UPDATE records SET source_id = 1, process_id = 1; UPDATE processes SET started_us = 1;"
    hostile.make(path, script, schema=loose, rows=rows)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for name, sql in tables().items():
            connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, name))

    with LogReader(path) as reader:
        (row,) = reader.rows()
        for ask in QUESTIONS.values():
            with contextlib.suppress(FilterError):  # there is no run
                ask(reader)
    assert (1, 0, 0, "", "", "") == (row.id, row.created_us, row.levelno, row.logger, row.message, row.host)


@pytest.mark.skipif(sys.platform == "win32", reason="the path is not shown as it is")
def test_no_error_of_sqlite_reaches_a_user(path, monkeypatch):
    """The statements of filters are run where errors get their names, too."""
    hostile.make(path)
    monkeypatch.setattr(Scan, "renew", lambda _: None)  # it would see that the tables are gone
    with LogReader(path) as reader:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DROP TABLE processes")
            connection.execute("DROP TABLE levels")
        for filters in ({"run": 0}, {"level": "x"}):
            with pytest.raises(CorruptFileError, match="it holds something that no log holds"):
                reader.rows(**filters)


MORE = "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (1, 20, 1, 1, 'm');" * 2


def test_ids_below_those_of_a_handler(path):
    """A row is shown whatever its id is, also the lowest, and with the rows around it."""
    hostile.make(
        path, f"{MORE} UPDATE records SET id = -5 WHERE id = 2; UPDATE records SET id = {-1 << 63} WHERE id = 1;"
    )

    with LogReader(path) as reader:
        assert [-(2**63), -5, 3] == [row.id for row in reader]
        assert [(-5, -4), (2, 4)] == list(windows(reader, {"level": "INFO", "after_id": -6}, None, 1, 1))
