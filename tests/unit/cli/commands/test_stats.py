"""
`stats`: numbers, and a histogram.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3

import pytest
from command_line import BEGIN, NOBODY

from sqlite_log_handler import Bucket, LogStats
from sqlite_log_handler._cli.commands.stats import bar, histogram
from sqlite_log_handler._cli.terminal import plain


def test_stats_have_a_histogram(run):
    """`stats` says how much there is, and draws it over time, with ~ where records were dropped."""
    status, lines = run("stats", "--utc", "--bucket", "1s")

    assert 0 == status
    assert "rows     15, id 1 to 15; 5 loggers, 5 call sites, 2 processes" == lines[3]
    assert "time     2025-06-30 12:00:00 to 2025-06-30 12:00:09, 9.0 s" == lines[4]
    assert "levels   DEBUG 10, INFO 2, WARNING 2, ERROR 1" == lines[5]
    assert "dropped  15: queue_full 15" == lines[6]
    bars = [line.split() for line in lines[8:-1]]
    assert 10 == len(bars)
    assert {"D"} == set(bars[3][4])
    assert {"~"} == set(bars[4][4])
    assert {"W"} == set(bars[9][4])
    assert lines[-1].endswith("D DEBUG, I INFO, W WARNING, E ERROR, ~ dropped 15")


@pytest.mark.parametrize("count", [-1, -(2**63)])
def test_a_histogram_of_less_than_nothing(run, shop, path, count):
    """In a file from elsewhere, a number of drops may be below zero. It was divided by, or a length."""
    path.write_bytes(shop.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM records WHERE id > 1")
        connection.execute("UPDATE drops SET count = ?, since_us = (SELECT created_us FROM records)", [count])

    status, lines = run("stats", str(path))
    assert (0, "dropped") == (status, lines[6].split()[0])


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_histogram_fits_the_terminal(run, monkeypatch, columns):
    """No bar is longer than the terminal is wide, and the longest fills it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, lines = run("stats")

    assert columns - 1 <= max(len(line) for line in lines[8:-1]) <= columns


@pytest.mark.parametrize(("days", "expected"), [(182, "Jun 30 00:00:00"), (183, "2026-06-30 00:00:00")])
def test_a_histogram_of_years_names_them(days, expected):
    """Bars of more than a year have the year before their day: a log of 150 years had `Dec 31` many times."""
    day_us = 86_400_000_000
    begin_us = 1_782_777_600_000_000
    buckets = [Bucket(begin_us + at * days * day_us, begin_us + (at + 1) * days * day_us, {20: 1}, 0) for at in (0, 1)]

    assert next(histogram(buckets, {}, utc=True, paint=plain)).startswith(f"{expected} 1 ")


@pytest.mark.parametrize("levels", [{20: 997, 30: 1, 40: 1, 50: 1}, {10: 500, 20: 500, 30: 1}])
def test_a_bar_is_not_longer_than_its_room(levels):
    """
    The letters that few warnings and errors have all the same are taken off the longest part of the bar.

    They came on top of a full bar, which was wrapped then on the terminal: that of nearly every log.
    """
    drawn = bar(Bucket(0, 1, levels, 1), sum(levels.values()) + 1, 60, {}, plain)

    assert 60 == len(drawn)
    assert "~" == drawn[-1]


def test_the_letter_of_a_colored_level():
    """A bar has the first letter of a level's name, and not a backslash, where a program has colored that name."""
    bucket = Bucket(0, 1, {20: 3}, 0)

    assert "III" == bar(bucket, 3, 3, {20: "\x1b[32mINFO\x1b[0m"}, plain)


def test_what_retention_and_forwarding_leave_is_shown(run, shop, path):
    """Rows that were pruned before they were forwarded are a gap, and cursors stand among the statistics."""
    path.write_bytes(shop.read_bytes())
    since = int(BEGIN.timestamp()) * 1_000_000
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            f"""
            DELETE FROM records WHERE id <= 3;
            UPDATE marks SET unarchived = 3;
            INSERT INTO record_totals VALUES (10, 3, 0);
            INSERT INTO prunes VALUES (1, 1, 3, {since}, {since} + 500000, 'max_rows', 3, 2, 0);
            INSERT INTO cursors VALUES ('loki', 13, 0), ('done', 15, 0);
            """
        )

    gap = "Jun 30 12:00:00 GAP      ~~~ 2 records pruned in 500 ms: max_rows (not forwarded) 2 ~~~"
    assert gap == run("--utc", str(path))[1][0]
    assert ["Jun", "30", "12:00:00", "500", "ms", "2", "3", "max_rows", "(not", "forwarded)"] == run(
        "gaps", "--utc", str(path)
    )[1][1].split()
    lines = run("stats", "--utc", str(path))[1]
    assert ["pruned   3, 2 of them not forwarded", "cursor   done at id 15, at the end"] == lines[7:9]
    assert lines[9].startswith("cursor   loki at id 13, 2 rows and ")
    assert [] == [line for line in run("check", str(path))[1] if line.startswith("WRONG")]


def test_stats_in_json(run):
    """For a program, `stats` is an object with the fields of `LogStats`, the path, and the buckets of the histogram."""
    status, lines = run("stats", "-o", "json", "--bucket", "1s", "-p", "ERROR")
    found = json.loads("\n".join(lines))

    assert 0 == status
    assert {"path", "histogram", *(field.name for field in dataclasses.fields(LogStats))} == set(found)
    assert (15, 15, {"queue_full": 15}) == (found["rows"], found["dropped"], found["dropped_by_cause"])
    assert [1] == [count for bucket in found["histogram"] for count in bucket["levels"].values()]
    assert 1 == run("stats", "-o", "json", "-l", "nobody", stderr=NOBODY)[0]


def test_stats_say_what_the_filters_are_for(run):
    """
    The numbers are of the whole log, whatever the filters, and with filters the histogram says so.

    With `-p ERROR` the head was once taken for the errors'.
    """
    note = "The numbers above are of the whole log. The records that match:"

    assert note in run("stats", "-p", "ERROR")[1]
    assert note not in run("stats")[1]
