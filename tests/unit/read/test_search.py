"""
What rows one asks for, and what is found.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import sys
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from logged import BEGIN, record
from slowly import slowly

import sqlite_log_handler
from sqlite_log_handler import FilterError, LogReader
from sqlite_log_handler._write import inserts

FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"level": "WARNING"}, "bdg"),
    ({"level": "INFO..WARNING"}, "abefh"),
    ({"logger": "shop"}, "abce"),
    ({"logger": "shop.db"}, "bc"),
    ({"logger": ["shop.db", "root"]}, "bcd"),
    ({"exclude": "shop"}, "dfgh"),
    ({"logger": "shop", "exclude": ["shop.db"]}, "ae"),
    ({"logger": "sho"}, ""),
    ({"text": "TIMED"}, "b"),
    ({"text": "timed"}, "ab"),
    ({"text": "50%_"}, "e"),
    ({"text": "keyerror"}, "d"),
    ({"text": "größe"}, "f"),
    ({"text": "timed out\0"}, ""),  # a LIKE ends there, and found both
    ({"text": "\0"}, ""),
    ({"pattern": "timed? out"}, "ab"),
    ({"pattern": r"T\w+D OUT"}, "b"),
    ({"pattern": "^gr..e$"}, "f"),
    ({"pattern": "keyerror: 'x"}, "d"),
    ({"pattern": "(stock|timed) out"}, "ab"),
    ({"process": 99_999_999}, "e"),
    ({"thread": "worker_1"}, "c"),
    ({"thread": 99}, "e"),
    ({"thread": "99"}, "e"),
    ({"thread": "9" * 20}, ""),
    ({"thread": "9" * 5_000}, ""),
    ({"task": "Task-7"}, "h"),
    ({"exception": "KeyError"}, "d"),
    ({"exception": "JSONDecodeError"}, "g"),
    ({"exception": "json.decoder.JSONDecodeError"}, "g"),
    ({"exception": "DecodeError"}, ""),
    ({"exception": "jsondecodeerror"}, ""),
    ({"attributes": {"order": 7}}, "ac"),
    ({"attributes": {"order": "7"}}, "ac"),
    ({"attributes": {"order": 7.0}}, "a"),
    ({"attributes": {"ok": True}}, "a"),
    ({"attributes": {"ok": "true"}}, "a"),
    ({"attributes": {"ok": None}}, "e"),
    ({"attributes": {'we"ird] key': "x"}}, "h"),
    ({"attributes": {"order": 7, "ok": True}}, "a"),
    ({"attributes": {"big": 2**60 + 1}}, "h"),
    ({"attributes": {"trace": 2**64 - 1}}, "h"),
    ({"attributes": {"trace": str(2**64 - 1)}}, "h"),
    ({"attributes": {"trace": 2**64 - 2}}, ""),
    ({"attributes": {"trace": (2**64 - 1) // 10}}, ""),
    ({"attributes": {"missing": "x"}}, ""),
    ({"since": BEGIN + timedelta(seconds=6)}, "gh"),
    ({"until": BEGIN + timedelta(seconds=1)}, "ab"),
    ({"since": "2025-06-30T12:00:02Z", "until": "2025-06-30T12:00:03Z"}, "cd"),
    ({"after_id": 6}, "gh"),
    ({"after_id": 2, "up_to_id": 4}, "cd"),
    ({"run": 0}, "abcdfgh"),
    ({"level": "WARNING", "logger": "shop", "text": "timed"}, "b"),
]


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A log of eight rows, a to h, that differ in everything that can be filtered by."""

    def error(make):
        try:
            make()
        except Exception:  # noqa: BLE001
            return sys.exc_info()

    path = tmp_path_factory.mktemp("varied") / "app-log.db"
    handler = sqlite_log_handler.SQLiteHandler(path, close_timeout=60)
    for one in [
        record("request timed out", order=7, ok=True),
        record("TIMED OUT", logging.WARNING, "shop.db.pool", seconds=1),
        record("c", logging.DEBUG, "shop.db", seconds=2, threadName="worker_1", order="7"),
        record("d", logging.ERROR, "root", seconds=3, exc_info=error(lambda: dict[str, int]()["x"])),
        record("50%_ done", seconds=4, process=99_999_999, thread=99, ok=None, order=70),
        record("Größe", name="shopping", seconds=5),
        record("g", logging.CRITICAL, "jobs", seconds=6, exc_info=error(lambda: json.loads("{"))),
        record(
            "h", name="jobs", seconds=7, taskName="Task-7", **{'we"ird] key': "x", "big": 2**60 + 1, "trace": 2**64 - 1}
        ),
    ]:
        handler.handle(one)
    handler.close()
    if sys.version_info < (3, 12):
        # Of records as old as that, taskName is an attribute.
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE records SET task_name = 'Task-7' WHERE message = 'h'")
    return path


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=[str(filters) for filters, _ in FILTERS])
def test_filters(varied, filters, expected):
    """Each filter returns the rows that it says and no others, as rows, as JSON, forwards, backwards and counted."""
    with LogReader(varied) as reader:
        ids = [row.id for row in reader.rows(**filters)]

        assert expected == "".join("abcdefgh"[id_ - 1] for id_ in ids)
        assert ids == [row.id for row in reader.rows(**filters, reverse=True)][::-1]
        assert ids == [json.loads(line)["id"] for line in reader.json_lines(**filters)]
        assert ids[-2:] == [row.id for row in reader.rows(**filters, newest=2)]
        assert len(ids) == sum(talker.records for talker in reader.top("source", **filters))
        assert len(ids) == sum(bucket.records for bucket in reader.histogram("1s", **filters))


def test_a_run_is_one_whatever_its_process_is_called(make_handler, messages):
    """A process that is given another name under way is the same start of the program."""
    handler = make_handler()
    for message, name in (("starting", "MainProcess"), ("serving", "server")):
        handler.handle(record(message, process=os.getpid(), processName=name))
    handler.close()

    assert ["starting", "serving"] == messages(run=0) == messages(run=1)
    with pytest.raises(FilterError, match="there is no run -1: the log has 1;"):
        messages(run=-1)


def test_a_run_is_one_start_of_the_program(make_handler, path, messages):
    """
    Workers that begin together are one run, and so are children that come later; the same program elsewhere is another.

    With `uvicorn --workers 2` each worker was a run, so that the last run had half of the log. So was each child with a
    name of its own, or of a class of its own, and `brief` left out what the main process had logged before it. A
    program that names its main process has no `MainProcess`, and each process with that name is a start.
    """
    make_handler().close()
    second = 1_000_000
    processes = [
        ("vm", 10, "MainProcess", 100 * second, "uvicorn"),
        ("vm", 11, "SpawnProcess-1", 101 * second, "uvicorn"),
        ("vm", 12, "SpawnProcess-2", 102 * second, "uvicorn"),
        ("vm", 13, "MainProcess", 103 * second, "cron"),
        ("vm", 11, "renamed", 101 * second, "uvicorn"),
        ("vm", 14, "SpawnProcess-3", 500 * second, "uvicorn"),
        ("elsewhere", 10, "MainProcess", 501 * second, "uvicorn"),
        ("vm", 20, "MainProcess", 600 * second, "uvicorn"),
        ("vm", 21, "MainProcess", 605 * second, "uvicorn"),
        ("vm", 30, "MainProcess", 611 * second, "uvicorn"),
        ("vm", 31, "Resizer-3", 700 * second, "uvicorn"),
        ("vm", 32, "Resizer-3:1", 720 * second, "uvicorn"),
        ("vm", 33, "resizer", 740 * second, "uvicorn"),
        ("vm", 40, "web", 800 * second, "own-name"),
        ("vm", 41, "web", 900 * second, "own-name"),
        ("vm", 50, "web-1", 1000 * second, "numbered"),
        ("vm", 51, "web-1", 1100 * second, "numbered"),
    ]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO sources VALUES (1, 'app', 'app.py', 1, 'work', '')")
        for number, process in enumerate(processes, 1):
            connection.execute("INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?)", (number, *process))
            sql = "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (0, 20, 1, ?, ?)"
            connection.execute(sql, (number, f"{process[1]} {process[2]}"))
        connection.commit()

    first = ["10 MainProcess", "11 SpawnProcess-1", "12 SpawnProcess-2", "11 renamed", "14 SpawnProcess-3"]
    runs = [first, ["13 MainProcess"], ["10 MainProcess"], ["20 MainProcess", "21 MainProcess"]]
    runs += [["30 MainProcess", "31 Resizer-3", "32 Resizer-3:1", "33 resizer"], ["40 web"], ["41 web"]]
    runs += [["50 web-1"], ["51 web-1"]]
    assert runs == [messages(run=number) for number in range(1, 10)]
    assert runs == [messages(run=number) for number in range(-8, 1)]


def test_a_date_is_its_midnight(log, messages):
    """A date is the midnight at which it begins here, as a datetime without a zone is a local time."""
    midnight = datetime(2025, 7, 1).astimezone()
    log(*(record(str(second), seconds=(midnight - BEGIN).total_seconds() + second) for second in (-1, 0, 1)))

    assert ["0", "1"] == messages(since=date(2025, 7, 1))
    assert ["-1", "0"] == messages(until=date(2025, 7, 1))


@pytest.mark.parametrize(
    ("wanted", "texts", "patterns"),
    [
        ("kelvin", ["KELVIN"], ["KELVIN", "\u212aelvin"]),
        ("kelvin" * 34, ["KELVIN" * 34, "\u212aelvin" * 34], ["KELVIN" * 34, "\u212aelvin" * 34]),
        ("\u212a", ["\u212aelvin"], ["\u212aelvin"]),
        ("izmir", ["IZMIR"], ["IZMIR", "İZMİR"]),
        ("İzmir", [], []),
        ("straße", ["STRASSE"], []),
        ("\u017fe", ["STRASSE"], ["STRASSE"]),
    ],
)
def test_letters_that_have_a_third_case(log, messages, wanted, texts, patterns):
    """A short text of ASCII ignores the case of A to Z, another one folds it, and a pattern ignores it as `re` does."""
    kelvins = ("KELVIN", "\u212aelvin")
    log(*map(record, (*kelvins, *(one * 34 for one in kelvins), "IZMIR", "İZMİR", "STRASSE")))
    short = [one for one in (*texts, *patterns) if len(one) < 99]

    def found(**filters):
        return [one for one in messages(**filters) if len(one) < 99 or not short]

    assert (texts, patterns) == (found(text=wanted), found(pattern=wanted))


def test_an_expression_whose_meaning_may_change(log, messages):
    """A program gets Python's own warning of its expression; it could not be kept back for one thread alone."""
    log(record("[a"), record("a"))

    with pytest.warns(FutureWarning, match="Possible nested set"):
        assert ["[a"] == messages(pattern="[[]a[[a]?")


@pytest.mark.parametrize("name", ["text", "pattern"])
def test_a_very_long_text(log, messages, name):
    """A text that is longer than SQLite takes for LIKE is looked for as any other."""
    long = "ab" * 30_000
    log(record(long.upper()), record("other"))

    assert [long.upper()] == messages(**{name: long})


@pytest.mark.parametrize("character", ["\N{GRINNING FACE}", *slowly("x", "\x01", "%")])
@pytest.mark.parametrize(
    ("found", "make"),
    [
        *((0, lambda text, name=name: {name: text}) for name in ("text", "pattern", "logger", "thread", "exception")),
        (0, lambda text: {"source": f"{text[2:]}:1"}),
        (0, lambda text: {"attributes": {text: ""}}),
        (0, lambda text: {"attributes": {"": text}}),
        (0, lambda text: {"where": text}),
        (0, lambda text: {"where": f"k={text[2:]}"}),
        (1, lambda text: {"exclude": [text[:99], text[99:]]}),
        (1, lambda text: {"without": {"where": text[5:]}}),
    ],
)
def test_how_long_a_text_may_be(log, path, make, found, character):
    """
    Texts of 65,536 characters are looked for; of longer ones the error says so at once.

    SQLite's limit for a value was taken for a fault of the file, and a text of 5 MB took minutes.
    """
    log(record())
    longest = character * 65_536

    with LogReader(path) as reader:
        assert found == len(list(reader.rows(**make(longest))))
        with pytest.raises(FilterError, match="has 65,537 characters: give 65,536 or fewer"):
            reader.rows(**make(longest + character))


def test_a_thread_is_found_wherever_its_name_stands(path, log, monkeypatch):
    """A row names its thread, or refers to a line that does: filters and `top` find it by name and identifier."""
    for shared, idents in ((100, (1, 2)), (0, (1, 3))):
        monkeypatch.setattr(inserts, "_SHARED_THREADS", shared)
        log(*(record(f"{ident} {shared}", thread=ident, threadName=f"worker-{ident}") for ident in idents))
    with LogReader(path) as reader:
        for wanted in ("worker-1", 1, "1"):
            assert ["1 100", "1 0"] == [row.message for row in reader.rows(thread=wanted)]
            assert ["2 100", "3 0"] == [row.message for row in reader.rows(without={"thread": wanted})]
        assert {("worker-1", 2), ("worker-2", 1), ("worker-3", 1)} == {
            (talker.name, talker.records) for talker in reader.top(by="thread")
        }
