"""
Text of rows: letters of all scripts, quotes, times, and lines made fast.
"""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
import time
from itertools import product

import pytest
from command_line import log_of, record
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sqlite_log_handler import LogReader, Row
from sqlite_log_handler._cli.commands.export import write_csv
from sqlite_log_handler._cli.formats import CLOCKS, Clock, Short, json_document, json_safe
from sqlite_log_handler._cli.terminal import plain
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import SCHEMA
from sqlite_log_handler._logfile.times import from_microseconds
from sqlite_log_handler._read import search
from sqlite_log_handler._read.reader import columns_of


def test_logfmt_quotes_what_must_be(run):
    """In `logfmt` a value with a blank is quoted, and attributes come last."""
    _, (line,) = run("--utc", "-o", "logfmt", "--where", "order=7")

    assert line.startswith(
        'time=2025-06-30T12:00:01.000000+00:00 level=INFO logger=shop.orders message="order 7 paid" pathname=/srv'
    )
    assert line.endswith(' thread_name=worker order=7 customer="c 17"')


def test_no_two_pairs_of_logfmt_have_one_name(run, path):
    """An attribute whose name is taken gets another one: of `logger` and `extra.logger`, one was lost."""
    log_of(path, record("tea", **{"logger": 1, "extra.logger": 2}))

    _, (line,) = run(str(path), "-o", "logfmt")

    assert line.endswith(" extra.logger=1 extra.extra.logger=2")


def test_no_attribute_becomes_a_column_of_logfmt(run, path):
    """An attribute whose name is taken once its blanks are `_` gets another one: it looked like the thread."""
    log_of(path, record("tea", **{"thread name": 1, "exc=type": 2}))

    _, (line,) = run(str(path), "-o", "logfmt")

    assert line.endswith(" thread_name=worker extra.thread_name=1 extra.exc_type=2")


def test_an_attribute_without_a_name_has_one_in_logfmt(run, path):
    """An attribute with an empty name is called `extra.`, as `forward` does: a value alone is no pair."""
    log_of(path, record("tea", **{"": 4}))

    _, (line,) = run(str(path), "-o", "logfmt")

    assert line.endswith(" thread_name=worker extra.=4")


def test_names_that_differ_in_blanks_alone_make_no_long_line_of_logfmt(run, path):
    """Names of which `_` makes one get a number each: 3,000 of them in a row took 39 s, and 27 MB of `extra.`."""
    names = [*map("".join, product(' "=', repeat=5))]
    log_of(path, record("tea", **dict.fromkeys(names, 1)))

    _, (line,) = run(str(path), "-o", "logfmt")

    pairs = line.partition(" thread_name=worker ")[2].split()
    assert (len(names), len(names)) == (len(pairs), len({*pairs}))
    assert max(map(len, pairs)) < 30


def test_a_field_has_the_name_that_logfmt_would_give_it(run, path):
    """The name of a field is shown without its codes and blanks: a terminal got them as they are."""
    log_of(path, record("tea", **{"a b\x1b": 1}))

    _, (line,) = run(str(path), "--fields", "a b\x1b")

    assert line.endswith(" tea a_b\\x1b=1")


def test_an_attribute_without_a_value_is_null_in_logfmt(run, path):
    """An attribute that is None is `null`, as Go's encoders write nil, and the text is quoted: it was left out."""
    log_of(path, record("tea", charge=None, text="null", exc_type=None))

    _, (line,) = run(str(path), "-o", "logfmt")

    assert line.endswith(' thread_name=worker charge=null text="null" extra.exc_type=null')


@pytest.mark.parametrize("flags", [("-o", "logfmt"), ("-o", "verbose"), ("--fields", "a")])
def test_an_attribute_that_is_nested_too_deep_to_be_written(run, path, monkeypatch, flags):
    """A stranger's attribute that Python reads and does not write, because of its depth, is no traceback."""
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]
    monkeypatch.setattr(search.json, "loads", lambda *_, **__: {"a": deep})
    log_of(path, record("tea", a=1))

    _, lines = run(str(path), *flags)

    assert "a=[...]" in lines[-1]


def test_printable_keeps_letters():
    """Letters of all scripts stay as they are."""
    assert "größer, больше, 大きい, 🎉" == printable("größer, больше, 大きい, 🎉")


PERSIAN = "می\u200cخواهم"  # noqa: RUF001 - it is not meant to look like Latin


HINDI, FAMILY = "क\u094d\u200dष", "👩\u200d👧"


@pytest.mark.parametrize("text", [PERSIAN, HINDI, FAMILY])
def test_joiners_pass(text):
    """
    Persian, Hindi and emoji are written with characters of no width that join letters or keep them apart.

    They were once escaped as control characters are, so that the words could not be read. JSON has them as they are,
    too. What turns the direction of writing, or has no width for no such reason, is still escaped.
    """
    assert text == printable(text) == json_safe(text)
    assert (f"{text}\\x1b", rf"{text}\u001b") == (printable(f"{text}\x1b"), json_safe(f"{text}\x1b"))
    assert r"\u200b\u200e\u200f\u2060\u202e" == printable("\u200b\u200e\u200f\u2060\u202e")


# Lines --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0545>-5:45", "<-004430>+0:44:30"])
def zone(request, monkeypatch):
    """Be in one time zone after the other; the last one was Liberia's until 1972."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone cannot be set on this system")
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@given(
    times=st.lists(
        st.integers(-(2**63), 2**63 - 1) | st.integers(1_743_200_000, 1_743_300_000).map((1_000_000).__mul__)
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("digits", [0, 3, 6])
@pytest.mark.parametrize("form", ["%b %d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])
def test_a_minute_is_written_once_and_right(zone, form, digits, times):
    """A clock writes a minute once and adds the seconds; that is what the calendar says, in every zone."""
    clock = Clock(form, digits=digits)

    for created_us in times:
        second, micros = divmod(created_us, 1_000_000)
        fraction = f".{micros:06d}"[: digits + 1] if digits else ""
        moment = from_microseconds(second * 1_000_000)
        expected = f"@{second}{fraction}"
        if moment is not None:
            with contextlib.suppress(OverflowError, OSError, ValueError):
                moment = moment.astimezone()
            expected = moment.strftime(form.removesuffix("%z")) + fraction
            expected += moment.isoformat()[19:] if form.endswith("%z") else ""
        assert expected == clock(created_us)


def whole(row, clock):
    """Return the lines of a row, made of all of its columns and in the plainest way."""
    first, *more = row.message.split("\n")
    lines = [f"{clock(row.created_us)} {printable(f'{row.level:<8} {row.logger}: {first}')}"]
    for text in ("\n".join(more), row.exc_text, row.stack_info):
        if text:
            lines += ["    " + printable(line) for line in text.rstrip("\n").split("\n")]
    return lines


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\x1b\u202e\x00 ,\"'"), max_size=20)


@given(rows=st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.integers(0, 60)), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[("one\ntwo", "a\nb", None, None, 20)])
def test_a_line_is_the_same_from_a_few_columns(tmp_path_factory, rows):
    """`show` reads few columns and takes no detour for plain text; the lines are those of the whole rows."""
    path = tmp_path_factory.mktemp("few") / "app-log.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {SCHEMA}")
        connection.execute("INSERT INTO processes VALUES (1, 'host', 42, 'Main', 0, 'program')")
        for number, (message, logger, exc_text, stack_info, level) in enumerate(rows):
            connection.execute("INSERT INTO sources VALUES (?, ?, 'app.py', ?, 'work', '')", (number, logger, number))
            connection.execute(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message, exc_text, stack_info) "
                "VALUES (?, ?, ?, 1, ?, ?, ?)",
                (number * 1_500_000, level, number, message, exc_text, stack_info),
            )
        connection.commit()

    with LogReader(path) as reader:
        for clock in CLOCKS.values():
            short = Short(clock(True), plain)
            expected = [line for row in reader for line in whole(row, clock(True))]
            assert expected == list(short.lines(columns_of(reader, short.columns)))


# The long columns are texts, or nothing but for the message; in the others a stranger's file may have anything.
LONG = dict.fromkeys(("exc_text", "stack_info", "attributes"), st.none() | TEXT) | {"message": TEXT}
CELLS = [LONG.get(name, st.none() | st.integers() | TEXT) for name in Row._fields]


@given(rows=st.lists(st.tuples(*CELLS), max_size=5))
def test_csv_is_read_back(rows):
    """Each cell comes back from CSV, whatever is in it; where no lone CR is, the `csv` module writes the same."""
    file, other = io.StringIO(newline=""), io.StringIO(newline="")
    assert len(rows) == write_csv([Row(*row) for row in rows], file)
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]

    file.seek(0)
    assert [list(Row._fields), *cells] == list(csv.reader(file))
    if "\r" not in str(file.getvalue()):
        csv.writer(other, lineterminator="\n").writerows([Row._fields, *rows])
        assert other.getvalue() == file.getvalue()


@pytest.mark.parametrize("name", ["short", "verbose", "cat"])
def test_a_message_of_several_lines_is_shown_as_lines(run, path, name):
    r"""
    The further lines of a message stand below the first, indented, so that none can pass for a row or a field.

    A message of several lines was once one line with \\n in it, which nobody could read.
    """
    log_of(path, record("query failed:\n  SELECT 1\n    source=forged\x1b[2J\n"))

    _, lines = run(str(path), "-o", name)
    indent = " " * (8 if name == "verbose" else 4)
    assert lines[0].endswith("query failed:")
    assert [f"{indent}  SELECT 1", rf"{indent}    source=forged\x1b[2J"] == lines[1:3]


def test_a_json_document_is_written_as_it_is_made():
    """The first lines of a long document come before the last ones are made, so that none is in memory whole."""
    lines = json_document({"a": ["b\n", 1.5, []], "c": object()})

    assert ["{", '  "a": [', '    "b\\n",', "    1.5,", "    []", "  ],"] == [next(lines) for _ in range(6)]
    with pytest.raises(TypeError):
        next(lines)
