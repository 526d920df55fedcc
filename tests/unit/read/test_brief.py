"""
What a brief reads, and how little.
"""

from __future__ import annotations

import logging

import pytest
from logged import BEGIN, record
from made_parts import archive

from sqlite_log_handler import LogReader
from sqlite_log_handler._read import brief as brief_module


def test_the_whole_log_of_one_run(log, path):
    """With one run there is nothing older, so the whole log is told, and nothing is called new."""
    log(record("a"), record("b", logging.ERROR, exc_text="Traceback\nKeyError: 1"))
    with LogReader(path) as reader:
        found = reader.brief()

    assert (None, False, 1, 2, None) == (found.since_us, found.is_last_run, found.runs, found.records, found.new)
    assert {2: ("b", "Traceback\nKeyError: 1")} == found.errors


def test_records_of_an_earlier_time_are_not_of_the_last_run(log, path, change):
    """What a run logs with times before it began, as when it replays records, is left out, unless a time is given."""
    log(record("a"))
    change("INSERT INTO processes VALUES (50, 'host', 1, 'MainProcess', 4000000000000000, 'job')")
    log(record("replayed", process=50))
    with LogReader(path) as reader:
        found, asked = reader.brief(), reader.brief("2000-01-01")

    assert (2, 0, 2) == (found.runs, found.records, asked.records)


@pytest.fixture
def begin_run(change):
    """Let the last run of a log begin so many seconds after BEGIN, and all others before."""

    def begin_run(seconds):
        since_us = int(BEGIN.timestamp() + seconds) * 1_000_000
        change(
            "UPDATE processes SET started_us = 1; "
            f"INSERT INTO processes VALUES (50, 'host', 1, 'MainProcess', {since_us}, 'job')"
        )

    return begin_run


def test_the_first_record_of_a_run(log, reading, begin_run):
    """
    A brief of the last run has its first record by time, also where the same line comes again later.

    The newest record of that line stood there, such as the last of a thousand requests.
    """
    log(record("old"))
    log(*(record(f"loading {name}", name="app", seconds=after) for name, after in (("b", 7), ("a", 6), ("c", 8))))
    assert None is reading().brief().begins
    begin_run(5)

    assert ("app", "loading a") == reading().brief().begins
    assert None is reading().brief("2000-01-01").begins


@pytest.mark.parametrize(("most", "expected"), [(10, ("shop", "r 3")), (4, ("shop", "r 3")), (3, None)])
def test_the_first_record_of_a_large_run(log, reading, path, begin_run, tmp_path, monkeypatch, most, expected):
    """A log has the first record of a run of any size, and an archive if it is among the rows that a brief counts."""
    monkeypatch.setattr(brief_module, "MOST_ROWS", most)
    log(*(record(f"r {number}", seconds=number) for number in range(6)))
    begin_run(3)
    archive(path, tmp_path / "archive", 5, kind="jsonl.gz", delete=False)

    assert ("shop", "r 3") == reading().brief().begins
    assert expected == reading([path, tmp_path / "archive"]).brief().begins


@pytest.mark.parametrize("started_us", [2**62, 253_402_300_800_000_000, -(2**62)])
def test_a_run_outside_of_the_calendar(log, path, change, started_us):
    """A log with a process that began beyond the calendar has a brief; its time was refused as one that a user gave."""
    log(record("a"))
    change(f"INSERT INTO processes VALUES (50, 'host', 1, 'MainProcess', {started_us}, 'job')")
    with LogReader(path) as reader:
        found = reader.brief()

    assert started_us < 0 or (started_us, 2) == (found.since_us, found.runs)


def test_what_is_new_since_a_time(log, path):
    """Since a time, the records since then are told, and which of their patterns no older row has."""
    log(record("old 1"), record("old 2", seconds=8), record("new", seconds=9, lineno=99))
    with LogReader(path) as reader:
        found = reader.brief(f"@{BEGIN.timestamp() + 5}")

    assert 2 == found.records
    assert frozenset({3}) == found.new


def test_only_the_newest_rows_are_counted(log, path, monkeypatch):
    """A brief looks at the newest million rows and no more, whatever the size of the log, and says from which id on."""
    monkeypatch.setattr(brief_module, "MOST_ROWS", 10)
    log(*(record(f"{number}", seconds=number) for number in range(30)))
    with LogReader(path) as reader:
        found = reader.brief()
        later = reader.brief(f"@{BEGIN.timestamp() + 25}")

    assert (20, 10) == (found.after_id, found.records)
    assert (5, frozenset()) == (later.records, later.new)


def test_what_is_too_much_is_left_out(log, path, monkeypatch):
    """A log with more call sites than any program has is told without its patterns, and with the reason."""
    log(*(record("x", lineno=number) for number in range(30)))
    with LogReader(path) as reader:
        monkeypatch.setattr("sqlite_log_handler._read.scan.MOST", 10)
        found = reader.brief()

    assert ["patterns"] == [reason.partition(":")[0] for reason in found.left_out]
    assert (0, {"INFO": 30}) == (found.records, found.totals.records)


def said(message, level, *seconds):
    """Make records of one call site."""
    return [record(message, level, seconds=second, lineno=len(message)) for second in seconds]


def grown(log, path, older, since):
    """Log these, and return how many times as often as before the patterns since 86,400 s come, and what changed."""
    log(*older, *since)
    with LogReader(path) as reader:
        found = reader.brief(f"@{BEGIN.timestamp() + 86_400}")
    return {one.sample: found.grown.get(one.last_id) for one in found.patterns}, [one.sample for one in found.changes()]


def test_what_is_more_frequent_than_before(log, path):
    """
    A warning that was rare before is not new, but it is told how many times as often it comes now.

    A flood of what is new does not hide it.
    """
    older = said("slow", logging.WARNING, 86_380, 86_381) + said("steady", logging.INFO, *range(86_380, 86_400))
    since = said("slow", logging.WARNING, *range(86_400, 86_412)) + said("steady", logging.INFO, *range(86_400, 86_411))
    flood = said("flooding", logging.INFO, *[86_412] * 100)
    expected = {"slow": 12 / 2 * 20 / 12, "steady": 11 / 20 * 2 / 12, "flooding": None}

    assert (pytest.approx(expected), ["slow", "flooding"]) == grown(log, path, older, since + flood)


def test_each_run_of_a_job_says_the_same(log, path):
    """
    What a job of ten seconds warns of each night is as frequent as before, and no change.

    By the time alone, in most of which no program ran, it came "2,871 times as often".
    """
    older, since = [
        [one for at in nights for one in said("slow", logging.WARNING, *[at] * 5) + said("end", logging.INFO, at + 9)]
        for nights in ((0, 43_200), (86_400,))
    ]

    assert ({"slow": 1.0, "end": 1.0}, []) == grown(log, path, older, since)


def test_one_record_is_not_frequent(log, path):
    """A warning of each start of a service is no change, although few other records have followed this start yet."""
    older = said("start", logging.WARNING, 0) + said("request", logging.INFO, *range(100, 600))
    since = said("start", logging.WARNING, 86_400) + said("request", logging.INFO, 86_401, 86_410)
    times, changes = grown(log, path, older, since)

    assert (1.0, []) == (times["start"], changes)
