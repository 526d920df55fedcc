"""
What one wants, as a condition in SQL.
"""

from __future__ import annotations

import re
import sqlite3
import time as clock
from contextlib import closing
from datetime import UTC, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlite_log_handler._logfile.times import microseconds
from sqlite_log_handler._read.filters import _ALLOWED, FilterError, Filters, Start, check, drops_where, lasting, where
from sqlite_log_handler._read.search import ignores_case, required_literals


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("timeout", ["timeout"]),
        (r"timed out after \d+ ms", ["timed out after "]),
        ("refused|reset", ["refused", "reset"]),
        ("colou?rs", ["colo"]),
        ("ab+cd", ["ab"]),
        ("x{2}yz", ["yz"]),
        ("set{on|off}", ["set{on", "off}"]),  # no repetition: rows with the second alternative alone were left out
        (r"a\.b\.c", ["a.b.c"]),
        ("[abc|]dd|ee", ["dd", "ee"]),
        ("^begin.*end$", ["begin"]),
    ],
)
def test_literals_of_an_expression(expression, expected):
    """From a plain expression it is known which texts a match contains, so that SQLite can look for those."""
    assert expected == required_literals(expression, ignore_case=False)


@pytest.mark.parametrize(
    "expression", ["", r"\d+", "a", "(abc)", "abc|", r"\x41bc", r"\u0041bc", "(?i)abc", "(?x)a b c", "a*b?", "ab|c"]
)
def test_expressions_without_a_literal(expression):
    """Where it cannot be told what a match contains, nothing is told."""
    assert [] == required_literals(expression, ignore_case=False)


def test_letters_of_three_cases_are_not_relied_on():
    """Python takes the Kelvin sign for a k when it ignores case, and LIKE does not: such letters are left out."""
    assert ["per re"] == required_literals("\0per re\0s", ignore_case=True)  # and LIKE ends at a NUL
    assert ["n per re"] == required_literals("kelvin per res", ignore_case=True)
    assert re.search("kelvin", "\N{KELVIN SIGN}elvin", re.IGNORECASE)


PIECES = st.sampled_from(
    [*"abAB .,-{}^$|*+?", r"\.", r"\d", r"\w", r"\b", r"\n", "[ab]", "[^a]", "[]a]", "{2}", "{,1}"]
)


@given(st.lists(PIECES, max_size=8).map("".join), st.text("abAB .,-{}1\n", max_size=12), st.booleans())
def test_no_match_is_missed_for_its_literals(expression, text, ignore_case):
    """Whatever matches an expression contains one of the literals that were derived from it."""
    try:
        match = re.search(expression, text, re.IGNORECASE if ignore_case else 0)
    except re.error:
        return
    literals = required_literals(expression, ignore_case=ignore_case)

    if match and literals:
        found = match[0].lower() if ignore_case else match[0]
        assert any((literal.lower() if ignore_case else literal) in found for literal in literals)


@pytest.mark.parametrize(("text", "expected"), [("error", True), ("Error", False), ("ärger 1", True), ("ÄRGER", False)])
def test_smart_case(text, expected):
    """A text without a capital letter stands for both cases."""
    assert expected == ignores_case(text)


def asking(connection):
    """Make the function that filters run their statements by."""
    return lambda *statement: connection.execute(*statement).fetchall()


@pytest.fixture
def connection():
    """A database with the tables that filters are resolved against."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE levels (levelno INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO levels VALUES (5, 'TRACE'), (10, 'DEBUG'), (20, 'INFO'), (30, 'WARNING')")
        connection.execute(
            "CREATE TABLE processes (id INTEGER PRIMARY KEY, started_us INTEGER, host TEXT, pid INTEGER, "
            "program TEXT, name TEXT)"
        )
        connection.execute(
            "INSERT INTO processes SELECT column1, column2 * 1000000, 'a', column3, 'p', 'MainProcess' "
            "FROM (VALUES (1, 100, 7), (2, 0, 7), (3, 300, 9), (4, 200, 8))"
        )
        yield connection


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("WARNING", (30, 2**63 - 1)),
        ("warning", (30, 2**63 - 1)),
        ("warn", (30, 2**63 - 1)),
        ("err", (40, 2**63 - 1)),
        (15, (15, 2**63 - 1)),
        ("25", (25, 2**63 - 1)),
        ("trace", (5, 2**63 - 1)),
        ("INFO..WARNING", (20, 30)),
        ("..INFO", (-(2**63), 20)),
        (" debug .. ", (10, 2**63 - 1)),
    ],
)
def test_levels(connection, level, expected):
    """A level is a name that the log knows, a number, or a range of those; its case does not matter."""
    assert expected == where(asking(connection), {"level": level}).parameters


@pytest.mark.parametrize(
    ("level", "expected"), [("NOTICE", (25, 2**63 - 1)), ("notice..NOTICE", (25, 35)), ("..NOTICE", (-(2**63), 35))]
)
def test_two_levels_of_one_name(connection, level, expected):
    """
    The name of two levels, as two packages give it, is the lower one from which on, and the higher one up to which.

    It was the higher one always, so rows were left out that are shown under the name.
    """
    connection.execute("INSERT INTO levels VALUES (25, 'NOTICE'), (35, 'Notice')")

    assert expected == where(asking(connection), {"level": level}).parameters


def test_levels_of_python_keep_their_names(connection):
    """
    A program may call INFO something else, as those do that give it colours: it is still found by the name it has.

    Another level of that name is the one that is meant.
    """
    connection.execute("UPDATE levels SET name = '\x1b[32mINFO\x1b[0m' WHERE levelno = 20")
    connection.execute("UPDATE levels SET name = 'ERROR' WHERE levelno = 5")

    assert (20, 2**63 - 1) == where(asking(connection), {"level": "info"}).parameters
    assert (5, 30) == where(asking(connection), {"level": "ERROR..WARNING"}).parameters

    # On a terminal, a traceback with this error changed its colours.
    with pytest.raises(FilterError, match=re.escape(r"write one of ERROR, DEBUG, \x1b[32MINFO\x1b[0M, ")):
        where(asking(connection), {"level": "LOUD"})


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"level": "LOUD"}, "'LOUD' is not a level of this log: write one of TRACE, DEBUG, INFO, WARNING, a number"),
        ({"level": 2**70}, "level .* is beyond 64 bits"),
        ({"level": f"a{' ' * 60_000}b"}, "is not a level of this log"),  # a regular expression took hours for it
        ({"since": "soon"}, "'soon' is not a point in time"),
        ({"pattern": "(?a)(?u)"}, "'.*' is not a regular expression: ASCII and UNICODE flags"),
        ({"pattern": "(unclosed"}, "'.unclosed' is not a regular expression: .*; to search for plain text, use -F"),
        ({"run": 4}, "there is no run 4: the log has 3; 0 is the last"),
        ({"run": -3}, "there is no run -3"),
        ({"run": 2**63}, "run .* is beyond 64 bits"),
        ({"after_id": 2**63}, "after_id .* is beyond 64 bits"),
        ({"process": 2**63}, "process .* is beyond 64 bits"),
        ({"thread": 2**63}, "thread .* is beyond 64 bits"),
        ({"run": 10**5000}, "run .* more digits than Python writes"),
        ({"attributes": {"a": 10**5000}}, "attributes has an integer of more digits than Python writes"),
        ({"without": {"level": [10**5000]}}, "without has an integer of more digits than Python writes"),
        ({"since": datetime.min}, r"since=datetime.datetime\(1, 1, 1, 0, 0\): must be from the year 1 to 9999 in UTC"),
        ({"text": "\ud800"}, r"text='\\ud800': has half of a surrogate pair in it"),
        ({"exclude": ["a", "\udcff"]}, r"exclude=\['a', '\\udcff'\]: has half of a surrogate pair in it"),
        ({"attributes": {"a": "\udcff"}}, "attributes={.*}: has half of a surrogate pair in it"),
    ],
)
def test_a_filter_that_cannot_be_understood(connection, filters, message):
    """A filter that cannot be understood is refused by name, with what can be."""
    with pytest.raises(FilterError, match=message):
        where(asking(connection), filters)


def test_a_time_without_a_zone_has_the_offset_of_its_day(connection, monkeypatch):
    """
    Noon is noon in summer and in winter, whichever of them it is now.

    A day of the other half of the year was once read with the offset of the present, and so an hour off.
    """
    if not hasattr(clock, "tzset"):
        pytest.skip("the zone cannot be set on this system")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # that of Berlin, which needs no database of zones
    clock.tzset()
    try:
        found = [
            resolve(asking(connection), {"since": f"{day} 12:00"})[1]
            for resolve in (where, drops_where)
            for day in ("2025-01-30", "2025-06-30")
        ]
    finally:
        monkeypatch.undo()
        clock.tzset()

    winter, summer = (microseconds(datetime(2025, *of, tzinfo=UTC)) for of in ((1, 30, 11), (6, 30, 10)))
    assert [(winter,), (summer,)] * 2 == found


NO_INTEGER = "must be an integer"
NO_LOGGER = r"must be the name of a logger \(str\), or several in a list"
NO_ATTRIBUTES = "must be a dict of str to str, int, float, bool or None"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("since", 1.5, "must be a datetime, a date or a text: write ISO 8601"),
        ("until", time(12), "must be a datetime, a date or a text: write ISO 8601"),
        ("level", 1.5, r"must be a number, a name, or a range such as 'INFO\.\.WARNING'"),
        ("level", True, "must be a number, a name, or a range"),
        ("logger", 5, NO_LOGGER),
        ("logger", ["shop", 5], NO_LOGGER),
        pytest.param("exclude", (name for name in ["shop"]), NO_LOGGER, id="exclude-generator"),
        ("text", 5, "must be a str"),
        ("pattern", re.compile("x"), "must be a regular expression as a str"),
        ("process", "x", NO_INTEGER),
        ("process", True, NO_INTEGER),
        ("thread", 1.5, r"must be a name \(str\) or an identifier \(int\)"),
        ("task", 5, r"must be the name of a task \(str\)"),
        ("exception", KeyError, r"must be the name of a class \(str\)"),
        ("attributes", "a=b", NO_ATTRIBUTES),
        ("attributes", {"a": [1]}, NO_ATTRIBUTES),
        ("attributes", {1: "a"}, NO_ATTRIBUTES),
        ("run", "x", NO_INTEGER),
        ("after_id", "x", NO_INTEGER),
        ("up_to_id", 1.0, NO_INTEGER),
    ],
    ids=str,
)
def test_a_filter_of_a_wrong_kind(connection, name, value, allowed):
    """
    A filter of a wrong kind is a FilterError with its name, its value and what is allowed.

    `since=1.5` used to be an AttributeError about `strip`, `process="x"` a TypeError about `<=`, and `thread=1.5` found
    nothing. The ledger of drops is asked with the same filters.
    """
    filters: Any = {name: value}

    for resolve in (where, drops_where):
        with pytest.raises(FilterError, match=f"^{re.escape(f'{name}={value!r}')}: {allowed}"):
            resolve(asking(connection), filters)


def test_every_filter_has_a_kind():
    """No filter was forgotten where kinds are checked, and none that is None is."""
    assert Filters.__annotations__.keys() == _ALLOWED.keys()
    assert None is check(dict.fromkeys(_ALLOWED))  # type: ignore[func-returns-value, arg-type]


@pytest.mark.parametrize("names", [("shop", "jobs"), {"shop": 1}.keys(), frozenset(["shop"])], ids=str)
def test_names_in_any_collection(connection, names):
    """Several loggers may stand in a list, a tuple, a set or the keys of a dict."""
    assert {*names} == {*where(asking(connection), {"logger": names}).parameters}


def test_a_filter_that_does_not_exist(connection):
    """A misspelt filter is a TypeError, as a misspelt argument is."""
    misspelt: Any = {"levels": "INFO"}

    with pytest.raises(TypeError, match="there is no filter 'levels': choose from since, until, level"):
        where(asking(connection), misspelt)


@pytest.mark.parametrize(("run", "expected"), [(0, 3), (-1, 4), (-2, 1), (1, 1), (3, 3)])
def test_runs_are_counted_by_their_start(connection, run, expected):
    """Run 0 is the start that was the last, -1 the one before, 1 the first; a sender in between is none."""
    assert f"process_id IN ({expected})" == where(asking(connection), {"run": run}).sql


def test_a_run_among_many_is_known_elsewhere(connection):
    """To know a run in another file, the reader writes no other run into the SQL, whose length has a bound."""
    started = "INSERT INTO processes VALUES (?, ?, 'host', 1, 'job', 'MainProcess')"
    connection.executemany(started, ((2**60 + number, number * 20_000_000) for number in range(1, 101)))
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000)

    expected: Any = Start("host", "job", 40_000_000, 60_000_000)
    assert expected == lasting(asking(connection), {"run": 2})["run"]


def test_no_value_stands_in_the_sql(connection):
    """Whatever a user gives is a parameter."""
    names = ("logger", "exclude", "text", "pattern", "task", "exception", "thread")
    filters: Any = {**dict.fromkeys(names, "QQ"), "attributes": {"QQ": "QQ"}}

    assert "QQ" not in where(asking(connection), filters).sql
