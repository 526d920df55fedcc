"""
The columns of the view `logs` as SQL: what readers ask for, and what stands in an archive.

A file may come from anywhere, and SQLite keeps any value in any column: a text where a number belongs, and NULL where
none may be. So each expression is of the kind that its column has, whatever stands in the cell.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sqlite_log_handler._logfile.schema import LOG_COLUMNS, LOG_TABLES

# In this order: records first.
FROM: Final = LOG_TABLES.replace("JOIN", "CROSS JOIN", 2)


def whole(expression: str) -> str:
    """Return the SQL of a value that is an integer whatever stands in the cell."""
    return f"ifnull(CAST({expression} AS INTEGER), 0)"


def text(expression: str) -> str:
    """Return the SQL of a value that is a text whatever stands in the cell."""
    return f"ifnull(CAST({expression} AS TEXT), '')"


def total(expression: str) -> str:
    """Return the SQL of a sum, which numbers at the ends of 64 bits do not overflow."""
    return whole(f"total({expression})")


def text_or_none(expression: str) -> str:
    """Return the SQL of a value that is a text, or NULL, whatever stands in the cell."""
    return f"CAST({expression} AS TEXT)"


# The names of levels. A program has some ten; somebody may have put any number of them into a file, of any length.
LEVELS: Final = f"""
SELECT levelno, name FROM (
    SELECT {whole("levelno")} AS levelno, {text("name")} AS name,
        sum(length(CAST(name AS BLOB))) OVER (ORDER BY levelno) AS size
    FROM levels ORDER BY levelno LIMIT 1000
) WHERE size <= 64 * 1024
"""  # noqa: S608 - our own names

_KINDS: Final[dict[str, Callable[[str], str]]] = {
    **dict.fromkeys(("created_us", "levelno", "lineno", "process"), whole),
    **dict.fromkeys(("level", "logger", "message", "pathname", "func", "process_name", "host"), text),
    **dict.fromkeys(
        ("time", "thread_name", "task_name", "exc_type", "exc_text", "stack_info", "attributes"), text_or_none
    ),
    "thread": "CAST({} AS INTEGER)".format,
    "id": str,
}
# Texts that are long, and are hardly ever the same.
LONG_TEXTS: Final = ("message", "exc_text", "stack_info", "attributes")
# Columns that are numbers, with the one that only archives have.
INTEGERS: Final = frozenset(("id", "created_us", "levelno", "lineno", "process", "thread", "started_us"))
# Columns that are whatever text stands in the cell.
TEXTS: Final = [name for name, kind in _KINDS.items() if kind in {text, text_or_none} and name != "time"]
# As in the view, but in four fifths of the time for times from 1970 on within the calendar.
_TIME: Final = """
CASE WHEN created_us BETWEEN 1000000 AND 253402300799999999 THEN date(created_us / 1000000, 'unixepoch') || 'T'
    || time(created_us / 1000000, 'unixepoch') || '.' || substr(CAST(created_us AS INTEGER) || 'Z', -7)
ELSE {} END
""".format(text_or_none(LOG_COLUMNS["time"]))
COLUMNS: Final = {name: _KINDS[name](expression) for name, expression in LOG_COLUMNS.items()} | {"time": _TIME}

# `attributes` is JSON already, and a text if it is not JSON. Its numbers and escapes stay unchanged. SQLite reads JSON
# up to a NUL.
JSON_COLUMNS: Final = COLUMNS | {
    "attributes": "CASE WHEN attributes IS NULL THEN NULL "
    "WHEN json_valid(attributes) AND NOT instr(attributes, char(0)) THEN json(attributes) "
    "ELSE CAST(attributes AS TEXT) END"
}


def json_object(columns: Mapping[str, str]) -> str:
    """Return the SQL of a JSON object that has these columns."""
    members = ", ".join(f"'{name}', {expression}" for name, expression in columns.items())
    return f"json_object({members})"


def csv_line(columns: Mapping[str, str]) -> str:
    """
    Return the SQL of a line of CSV that has these columns, each text within single quotes; NULL has none.

    printf ends a text at a NUL. The handler writes none, and a text in which somebody has put one becomes JSON.
    """
    cells = [
        f"CASE WHEN instr(CAST({text} AS BLOB), x'00') THEN json_quote({text}) ELSE {text} END"
        if name in LONG_TEXTS
        else text
        for name, text in columns.items()
    ]
    # A number without quotes saves a tenth of the time.
    kinds = ["%d" if name in INTEGERS and name != "thread" else "%Q" for name in columns]
    return f"printf('{','.join(kinds)}', {', '.join(cells)})"
