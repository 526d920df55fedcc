"""
`brief`: what matters first, as JSON and as text of at most 8 kB, each cut with the command for the rest.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import sqlite3
from contextlib import closing

import pytest
from command_line import BEGIN
from slowly import slowly

from sqlite_log_handler import LogReader
from sqlite_log_handler._cli.commands.brief import MOST_BYTES, lines_of
from sqlite_log_handler._logfile.schema import SCHEMA

LONG = "\U0001f600" * 3_000
NAUGHTY = 'a\nb\x1b[31m\u202e\ud7ff"' * 50


def written(path, texts, *, patterns=60, runs=2):
    """Write a log in which every text is one of these, and there is much of everything."""
    us = int(BEGIN.timestamp()) * 1_000_000
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        for number in range(runs):
            values = (number + 1, texts[0], number, texts[0], us + number * 60_000_000, texts[0])
            connection.execute("INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?)", values)
        for number in range(patterns):
            text = texts[number % len(texts)]
            values = (number + 1, f"{number}.{text}", text, number, text, f"{text} {number} %s" if number % 2 else "")
            connection.execute("INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?)", values)
            connection.execute(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message, exc_text) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (us + number * 2_000_000, 20 + number % 40, number + 1, 1 + number % runs, text, "\n".join([text] * 9)),
            )
            connection.execute(
                "INSERT INTO drops VALUES (NULL, ?, ?, ?, 1, ?, ?, 20, ?)",
                (number, us, us + 10**9, text, text, 2**40 + number),
            )
            connection.execute("INSERT INTO cursors VALUES (?, 1, 0)", (f"{number} {text}",))
            connection.execute("INSERT OR REPLACE INTO levels VALUES (?, ?)", (20 + number % 40, text))
        connection.commit()


def brief_of(path, since=None):
    """Return the text of a brief."""
    with LogReader(path) as reader:
        return "\n".join(lines_of(reader.brief(since), str(path), utc=True))


@pytest.mark.parametrize("runs", [40, *slowly(1, 2)])
@pytest.mark.parametrize("texts", [["short"], [LONG], [NAUGHTY], ["", "x" * 30_000, LONG, NAUGHTY]])
def test_no_log_makes_it_longer(tmp_path, texts, runs):
    """Whatever stands in a log, its brief has at most 8 kB, and no line can control a terminal."""
    written(path := tmp_path / "app-log.db", texts, runs=runs)
    for since in (None, 0, f"@{BEGIN.timestamp() + 30}"):
        with LogReader(path) as reader:
            found = reader.brief(since)
        for name in (str(path), "/" + "deep/" * 800 + "app-log.db", f"{LONG}.db"):
            text = "\n".join(lines_of(found, name, utc=True))

            assert len(text.encode()) <= MOST_BYTES
            assert not set("\x1b\u202e\r") & set(text)


def test_long_commands_have_room(tmp_path, monkeypatch):
    """
    A brief has at most 8 kB also where each part is cut, and ids and the path in the commands for the rest are long.

    It came to 8,143 bytes.
    """
    monkeypatch.setattr("sqlite_log_handler._read.brief.MOST_ROWS", 650)
    overfull(path := tmp_path / "app-log.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET id = id + 5000000000, exc_text = ?", ["\n".join(["x" * 101] * 4)])
        connection.execute("UPDATE drops SET after_id = 5000000000 + after_id / 4 * 4, levelno = rowid % 40")
        connection.execute("UPDATE drops SET count = 1e12 + count, logger = logger || ?", ["x" * 60])
        connection.execute("UPDATE cursors SET name = name || ?", ["x" * 60])
        connection.execute("UPDATE sources SET logger = logger || ?", ["x" * 110])
        connection.execute("UPDATE processes SET started_us = started_us + 123")
        connection.execute("UPDATE levels SET name = name || ?", ["x" * 20])
    with LogReader(path) as reader:
        text = "\n".join(lines_of(reader.brief(), f"/{'x' * 88}-log.db", utc=True))

    assert 5 <= len(re.findall(_LEFT, text))
    assert len(text.encode()) <= MOST_BYTES


def test_each_cut_is_said(tmp_path):
    """Where patterns, loggers or gaps are left out, the brief says how many, and which command shows them."""
    written(path := tmp_path / "app-log.db", ["a text of some length, so that not all of it has room " * 2])
    text = brief_of(path)

    for command in ("patterns", "top", "gaps"):
        assert f"`sqlite-log {command} {path}" in text
    assert " more patterns, " in text
    assert "what changed (in the order of the first time, with the newest id):" in text


def overfull(path):
    """
    Write a log with more of everything than a brief has room for. A job began at 1,000.5 s, but others go on too.

    Of the 300 patterns some are older, and of those some come more often since; each has records at two levels.
    """
    us = int(BEGIN.timestamp()) * 1_000_000
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        starts = [(us + 250_000, "web"), (us + 1_000_500_000, "job")]
        processes = [(id_, "h", id_, "p", start, name) for id_, (start, name) in enumerate(starts, 1)]
        connection.executemany("INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?)", processes)
        sources = [(n, f"shop.{n % 40}", "app.py", n, "f", f"{n} of %d " + "x" * 150) for n in range(1, 301)]
        connection.executemany("INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?)", sources)
        older = [(us + 300_000 + 1_000 * n, 30, n, 1) for n in range(1, 301) if n % 2]
        older += [(us + 1_000_300_000 + n, 30, n, 1) for n in range(1, 50)]
        several = [(n, (20, 30, 40, 40)[(n + more) % 4]) for n in range(1, 301) for more in (0, 1)]
        newer = [(us + 1_000_500_000 + 1_000 * at, level, n, 1 + n % 2) for at, (n, level) in enumerate(several)]
        insert = "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (?, ?, ?, ?, 'x')"
        connection.executemany(insert, sorted(older + newer))
        drops = [(n, us + 3_000_000 * n, us + 3_000_000 * n + 10_000_000, f"shop.{n % 30}", n) for n in range(1, 660)]
        sql = "INSERT INTO drops VALUES (NULL, ?, ?, ?, 1, 'queue_full', ?, 30, ?)"
        connection.executemany(sql, drops)
        connection.executemany("INSERT INTO cursors VALUES (?, 1, 0)", [(f"receiver {n:02}",) for n in range(50)])
        connection.commit()


_LEFT = r"  and (\d+) more ([a-z ]*?)s?(?:, ([\d,]+) records?(, among others)?)?: see `sqlite-log (.*)`"
_KEYS = {"pattern": "last_error_id", "logger": "name", "gap": "after_id", "cursor": "name"}


@pytest.mark.parametrize("since", [None, -1, "@1751285700.25"])
@pytest.mark.parametrize("most", [1_000_000, 650])
def test_each_command_shows_what_is_left_out(tmp_path, run, monkeypatch, since, most):
    """
    Each command that a brief names prints what the brief leaves out, with as many records, and others only if said.

    Beside a second program, or with a worker that was replaced, `--run 0` left out what the others had logged since:
    `patterns` printed nothing at all, and `top` called the smallest logger the loudest. Of a very large log, `patterns
    --new-since` printed none of those that are new among the newest million rows.
    """
    monkeypatch.setattr("sqlite_log_handler._read.brief.MOST_ROWS", most)
    overfull(path := tmp_path / "app-log.db")
    with LogReader(path) as reader:
        brief = reader.brief(since)
    new = {*brief.new} if brief.new and not brief.after_id else set()
    others = {str(one.last_id) for one in brief.changes() if one.last_id not in new}
    given, expected = [], []
    for section in "\n".join(lines_of(brief, str(path), utc=True)).split("\n\n"):
        texts = re.findall(r"  (?:after )?id (\d+)  |%  (shop\.\d+)|^cursor   (\w+ \d+)", section, re.MULTILINE)
        shown = {text for several in texts for text in several}
        for count, what, records, among, command in re.findall(_LEFT, section):
            _, lines = run(*shlex.split(command), "-o", "json")
            found, key = json.loads("\n".join(lines)), _KEYS.get(what, "last_id")
            left = [one for one in (found["cursors"] if what == "cursor" else found) if str(one[key]) not in shown]
            left = [one for one in left if not among or str(one[key]) in others]
            total = sum(one["records"] + one.get("dropped", 0) for one in left) if records else 0
            given.append((what, int(count), int(records.replace(",", "") or 0)))
            expected.append((what, len({one[key] for one in left}), total))

    assert expected == given
    assert {"pattern", "logger", "gap", "cursor"} <= {what for what, *_ in given}


@pytest.mark.parametrize(("since", "most", "expected"), [("@0", 2_000, "row"), (0, 500, "row that was counted")])
def test_nothing_older(tmp_path, monkeypatch, since, most, expected):
    """
    Where no row is older, or none among those that a brief counts, it says so, and calls nothing new.

    Of a run of more than a million rows, each pattern was "new", and the command for the others printed nothing.
    """
    monkeypatch.setattr("sqlite_log_handler._read.brief.MOST_ROWS", most)
    overfull(path := tmp_path / "app-log.db")
    text = brief_of(path, since)

    assert f"\nwhat changed: no {expected} is older\n" in text
    assert " new: " not in text


def test_patterns_that_are_left_out_compare_with_nothing(tmp_path, monkeypatch):
    """Where a brief leaves the patterns out, it does not say that no row is older."""
    overfull(path := tmp_path / "app-log.db")
    monkeypatch.setattr("sqlite_log_handler._read.scan.MOST", 10)
    text = brief_of(path)

    assert "left out patterns: " in text
    assert "is older" not in text


def test_an_empty_log(tmp_path):
    """A log without a row has a brief as well."""
    with closing(sqlite3.connect(path := tmp_path / "app-log.db")) as connection:
        connection.executescript(SCHEMA)

    assert "records  0: none; 0 patterns" in brief_of(path)


def test_the_first_record_of_the_last_run(tmp_path):
    """A brief of the last run has the first record since it began."""
    written(path := tmp_path / "app-log.db", ["short"])

    assert "\nbegins   30.short: short\n" in brief_of(path)
    assert "begins" not in brief_of(path, 0)


def test_an_error_stands_with_the_end_of_its_traceback(shop):
    """An error is told with its newest message and the last lines of a traceback."""
    text = brief_of(shop)

    assert "order 8 failed" in text
    assert "    | " in text
    assert f"{logging.getLevelName(40)} 1" in text
    assert "missing: 15 records in 1 gap" in text
    assert re.search(r"^  25  \d+\.\d%  shop\.cache, 15 of them dropped$", text, re.MULTILINE)


def test_brief_as_text(run):
    """`brief` begins with what it is of, and has the error, the loudest logger and the state of the file."""
    status, lines = run("brief", "--utc")

    assert 0 == status
    assert lines[0].startswith("app-log.db: ")
    assert {"errors (how many, from when to when, the newest id):", "who logs most (records, share of all):"} <= set(
        lines
    )
    assert lines[-2].startswith("file ")


def test_brief_as_json(run):
    """`-o json` has the same as an object, with how many patterns and gaps there are."""
    status, lines = run("brief", "-S", "2020-01-01", "-o", "json")
    found = json.loads("\n".join(lines))

    assert 0 == status
    assert {"records", "patterns", "pattern_count", "errors", "gaps", "gap_count", "totals", "new"} <= found.keys()
    assert len(found["patterns"]) == found["pattern_count"]
    assert {"cause", "level", "count"} == found["totals"]["drops"][0].keys()
