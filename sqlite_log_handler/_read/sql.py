"""
Run SQL from elsewhere, such as from a language model: read-only, and bounded in steps, time, rows and bytes.

A progress handler runs between two steps of a statement, so it cannot interrupt a single function such as
`printf('%.*c', 900000000, 'x')`. Therefore SQLite's own limits of length bound each step.
"""

import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlite_log_handler._logfile.connect import as_text, schema
from sqlite_log_handler._read.budget import keeping
from sqlite_log_handler._read.opening import open_log

# Bytes of a value or a row, and of the statement.
VALUE_BYTES: Final = 100_000
_STATEMENT_BYTES: Final = 10_000
# Of LIKE and GLOB, which may compare each character of a value with each of it: 0.1 s in one step.
_PATTERN_BYTES: Final = 200
_STEPS_AT_ONCE: Final = 100
_STEPS: Final = 50_000_000
_SECONDS: Final = 5.0

_ALLOWED: Final = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE))
# These count up to the width in their format, in one step that takes seconds, even if the result is too long. The
# authorizer cannot refuse them, because the view `logs` calls them too.
_UNBOUNDED: Final = frozenset(("printf", "format"))
# Strings and comments, or a name in group 1.
_TOKEN: Final = re.compile(
    r"""'(?:[^']|'')*'|--[^\n]*|/\*.*?(?:\*/|\Z)|("(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|\w+)""", re.DOTALL
)
# Behind the name of a function.
_CALL: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*+\(", re.DOTALL)
# Each `trim` compares each character of a value with each of a set, in one step of a second or two.
_REFUSED_FUNCTIONS: Final = frozenset(
    ("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "trim", "ltrim", "rtrim")
)


class QueryError(ValueError):
    """A statement is refused, fails, or takes too much; the text says what to do."""


class Found(NamedTuple):
    """Columns and rows, whether there are more, and what the log leaves out."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    is_cut: bool
    notice: str | None = None


def query(
    path: str, sql: str, *, most_rows: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
) -> Found:
    """
    Run one SELECT on a log, and return rows until there are `most_rows`, or their values have `most_bytes` characters.

    Raises:
        LogFileError: We cannot read the log.
        QueryError: We cannot run the statement, or not within the bounds.
    """
    if _may_take_long(sql):
        raise QueryError("printf and format may take too long in one step: use round, substr and || instead")
    connection, _, notice, _ = open_log(path)
    connection.text_factory = as_text
    end, steps, spent = clock() + _SECONDS, 0, False
    raised: list[BaseException] = []

    def look(_: None) -> bool:
        nonlocal steps, spent
        steps += _STEPS_AT_ONCE
        spent = steps > _STEPS or clock() > end
        return spent

    try:
        for category, limit in (
            (sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, _STATEMENT_BYTES),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _PATTERN_BYTES),
            (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
            (sqlite3.SQLITE_LIMIT_VDBE_OP, 100_000),
        ):
            connection.setlimit(category, limit)
        with connection.in_use():
            texts = connection.execute("SELECT CAST(sql AS TEXT) FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        if any(map(_may_take_long, {text for (text,) in texts} - {*schema().values()})):
            raise QueryError("a view or table that somebody has added calls printf or format, which may take too long")
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(keeping(look, raised).__next__, _STEPS_AT_ONCE)
        with connection.in_use():
            cursor = connection.execute(sql)
            columns = [column[0] for column in cursor.description or ()]
            rows, left = list[tuple[Any, ...]](), most_bytes
            for row in cursor:
                if len(rows) == most_rows or left <= 0:
                    return Found(columns, rows, is_cut=True, notice=notice)
                rows.append(row)
                left -= sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            return Found(columns, rows, is_cut=False, notice=notice)
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
        if raised:
            raise raised[0] from error
        raise QueryError(_advice(error, spent=spent)) from error
    finally:
        connection.set_progress_handler(None, 0)
        connection.close()


def _may_take_long(sql: str) -> bool:
    names = (token for token in _TOKEN.finditer(sql) if (token[1] or "").strip('"`[]').lower() in _UNBOUNDED)
    return any(_CALL.match(sql, name.end()) for name in names)


def _advice(error: BaseException, *, spent: bool) -> str:
    code = getattr(error, "sqlite_errorcode", 0)
    if spent:
        return (
            f"the statement takes more than {_SECONDS:.0f} s or {_STEPS:,} steps: ask for fewer rows, by bounds of id "
            "or of created_us, which has an index"
        )
    if code == sqlite3.SQLITE_TOOBIG or "too big" in str(error):
        most = f"{VALUE_BYTES:,} bytes"
        return f"a value or a row has more than {most}: ask for fewer columns; of a longer field, record shows the ends"
    if "pattern too complex" in str(error):
        return f"a pattern of LIKE or GLOB has more than {_PATTERN_BYTES} bytes: write instr(message, 'the text')"
    if code == sqlite3.SQLITE_AUTH or "prohibited" in str(error):
        return f"only SELECT is allowed ({error})"
    return str(error)


def _authorize(action: int, _: str | None, second: str | None, *__: object) -> int:
    if action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _REFUSED_FUNCTIONS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
