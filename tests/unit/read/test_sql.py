"""
SQL of somebody else: read-only, and bounded in steps, time, rows and bytes.
"""

from __future__ import annotations

import itertools

import pytest
from logged import record

from sqlite_log_handler import MissingFileError
from sqlite_log_handler._read import sql as sql_module
from sqlite_log_handler._read.sql import Found, QueryError, query

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def ask(path, sql, *, most_rows=100, most_bytes=10_000, **options):
    """Run a statement within usual bounds."""
    return query(str(path), sql, most_rows=most_rows, most_bytes=most_bytes, **options)


def test_a_select_is_answered(log, path):
    """A SELECT on the view and on the tables gives its columns and rows."""
    log(record("a"), record("b"))

    assert Found(["id", "message"], [(1, "a"), (2, "b")], False) == ask(
        path, "SELECT id, message FROM logs ORDER BY id"
    )
    assert [(2,)] == ask(path, "SELECT sum(records) FROM volume").rows


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records",
        "INSERT INTO levels VALUES (1, 'x')",
        "CREATE TEMP TABLE t (x)",
        "DROP TABLE records",
        "PRAGMA query_only = OFF",
        "ATTACH '/tmp/other.db' AS other",
        "VACUUM INTO '/tmp/other.db'",
        "BEGIN IMMEDIATE",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nothing",
        "",
        "SELECT '" + "x" * 20_000 + "'",
    ],
)
def test_anything_but_a_select_is_refused(log, path, statement):
    """Whatever is not one SELECT of a bounded length is refused, and the log is as it was."""
    log(record("a"))
    before = path.read_bytes()
    if not statement:
        assert Found([], [], False) == ask(path, statement)
        return
    with pytest.raises(QueryError):
        ask(path, statement)

    assert before == path.read_bytes()


def test_steps_are_bounded(log, path, monkeypatch):
    """A statement without end is ended after a number of steps, and the advice says what to do."""
    monkeypatch.setattr(sql_module, "_STEPS", 100_000)
    log(record("a"))
    with pytest.raises(QueryError, match="ask for fewer rows"):
        ask(path, ENDLESS, clock=lambda: 0.0)


def test_time_is_bounded(log, path):
    """However few its steps, a statement is ended after some seconds."""
    log(record("a"))
    ticks = itertools.count()
    with pytest.raises(QueryError, match="ask for fewer rows"):
        ask(path, ENDLESS, clock=lambda: float(next(ticks)))


def test_ctrl_c_in_a_statement_without_end(log, path):
    """Ctrl-C while SQLite works is a KeyboardInterrupt, and no fault of the statement."""

    def clock():
        if next(ticks):
            raise KeyboardInterrupt
        return 0.0

    log(record("a"))
    ticks = itertools.count()
    with pytest.raises(KeyboardInterrupt):
        ask(path, ENDLESS, clock=clock)


@pytest.mark.parametrize(
    "expression", ["zeroblob(900000000)", "hex(randomblob(90000000))", "replace(hex(zeroblob(50000)), '0', 'xxxx')"]
)
def test_one_function_is_bounded(log, path, expression):
    """A single function cannot make a value that takes long, or memory: no look between two steps would end it."""
    log(record("a"))
    with pytest.raises(QueryError, match="fewer columns"):
        ask(path, f"SELECT length({expression})")


def test_a_pattern_has_a_limit_of_its_own(log, path):
    """A long pattern is refused: one of 490 characters took 0.3 s in one step, and nothing looks at the clock in it."""
    log(record("a"))

    assert [(1,)] == ask(path, "SELECT message LIKE '" + "%" * 199 + "a' FROM logs").rows
    for word in ("LIKE", "GLOB"):
        with pytest.raises(QueryError, match="instr"):
            ask(path, f"SELECT message {word} '{'a' * 201}' FROM logs")


def test_a_value_has_a_limit_of_its_own(log, path):
    """A value of nearly 100,000 bytes is answered and one of more is not, whatever the limit of the reader is."""
    log(record("a"))

    assert [(98_000,)] == ask(path, "SELECT length(hex(zeroblob(49000)))").rows
    with pytest.raises(QueryError, match="fewer columns"):
        ask(path, "SELECT length(hex(zeroblob(50001)))")


@pytest.mark.parametrize(
    "call",
    [
        "printf('%.*c', 900000000, 'x')",
        "\"Printf\"('%d', 1)",
        "[format]('%d', 1)",
        "`format`('%d', 1)",
        "'it''s', \"a'b\", printf /* ' */ ('%d', 1)",
        "1 -- '\n, printf('%d', 1)",
    ],
)
def test_what_counts_in_one_step_is_refused(log, path, call):
    """
    `printf` counts up to its width in one step, also where the limit of length leaves nothing of it.

    Each took 3.5 s with SQLite 3.40, and a statement has room for hundreds, between which nothing looks at the clock.
    """
    log(record("a"))
    with pytest.raises(QueryError, match="printf and format may take too long"):
        ask(path, f"SELECT {call}")


@pytest.mark.parametrize(
    "script",
    [
        "DROP VIEW logs; CREATE VIEW logs AS SELECT printf('%.*c', 900000000, 'x') AS message FROM records",
        "CREATE TABLE more (id, text AS (Format('%d', id)))",
    ],
)
def test_what_counts_in_one_step_is_refused_in_the_file_too(log, path, change, script):
    """A view of the file may call `printf` for the statement, as may a table that somebody has added."""
    log(record("a"))
    change(script)
    with pytest.raises(QueryError, match="somebody has added"):
        ask(path, "SELECT count(message) FROM logs")


@pytest.mark.parametrize("function", ["trim", "ltrim", "rtrim"])
def test_what_compares_each_character_with_each_is_refused(log, path, function):
    """`trim` of 98,000 characters with a set of 8,000 takes 1.7 s in one step, and a statement has room for many."""
    log(record("a"))
    with pytest.raises(QueryError, match=rf"not authorized to use function: {function}"):
        ask(path, f"SELECT {function}(message, 'a') FROM logs")


def test_a_column_may_have_the_word_as_its_name(log, path, change):
    """A column that is called `format` calls nothing."""
    log(record("a"))
    change("CREATE TABLE reports (id, format TEXT)")

    assert [(1,)] == ask(path, "SELECT count(*) FROM logs").rows
    assert [] == ask(path, "SELECT format FROM reports").rows


def test_the_word_may_stand_in_a_text(log, path):
    """A text that is searched for may be the name of a function, and the view `logs` may call it."""
    log(record("printf"))
    found = ask(path, "SELECT length(time), message FROM logs WHERE message = 'printf' /* format */ -- format")

    assert [(27, "printf")] == found.rows


@pytest.mark.parametrize(("most_rows", "most_bytes", "expected"), [(3, 10_000, 3), (100, 10, 2), (100, 10_000, 9)])
def test_rows_and_bytes_are_bounded(log, path, most_rows, most_bytes, expected):
    """After so many rows or bytes no further row is read, and the answer says that there are more."""
    log(*(record("12345678") for _ in range(9)))
    found = ask(path, "SELECT message FROM logs", most_rows=most_rows, most_bytes=most_bytes)

    assert (expected, expected < 9) == (len(found.rows), found.is_cut)


def test_a_text_that_is_not_utf_8(log, path):
    """Bytes that are no text are shown as in the other answers; the whole statement was an error."""
    log(record("a"))

    assert [("\ufffda",)] == ask(path, "SELECT CAST(x'ff61' AS TEXT)").rows


def test_a_log_that_is_not_there(path):
    """A missing log has its own error, as everywhere."""
    with pytest.raises(MissingFileError):
        ask(path, "SELECT 1")
