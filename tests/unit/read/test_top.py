"""
Who logs most.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import pytest
from logged import BEGIN, record

from sqlite_log_handler import FilterError
from sqlite_log_handler._read import top


def test_a_thread_that_is_called_by_a_number(log, reading, change):
    """A name in the row is a name, and not the number of a line in `threads`: "01" was counted as line 1."""
    log(record("a", threadName="main"), record("b", threadName="other", thread=18))
    change("UPDATE records SET thread_id = NULL, thread_name = '01' WHERE id = 2")

    assert ["01", "main"] == sorted(talker.name for talker in reading().top("thread"))


def test_top_by_logger_comes_from_the_volume(overflowed, reading, prune):
    """By logger and by level, what was pruned since still counts, and so do drops."""
    prune()

    loudest = reading().top()[0]
    assert ("shop.cache", 10, 15) == (loudest.name, loudest.records, loudest.dropped)
    assert (25 / 27, 1.0) == (loudest.share, loudest.dropped_share)
    assert ["DEBUG", "ERROR", "WARNING"] == [talker.name for talker in reading().top("level")]
    found = reading().top(level="..DEBUG", logger="shop", exclude="x")
    assert [("shop.cache", 10)] == [(talker.name, talker.records) for talker in found]


def test_top_of_a_time_is_counted_from_the_rows(overflowed, reading):
    """Bounds of time that are no full hours are kept to the microsecond, for rows and for drops."""
    since, until = BEGIN + timedelta(seconds=0.5), BEGIN + timedelta(seconds=3)
    (loudest,) = reading().top(logger="shop.cache", since=since, until=until)

    assert (5, 15, 1.0) == (loudest.records, loudest.dropped, loudest.share)


def test_full_hours_are_answered_from_the_volume(log, reading, prune):
    """Bounds of time that are full hours leave the other hours out."""
    log(record("one"), record("two", seconds=3600), record("three", seconds=7200))
    prune()

    (talker,) = reading().top(since=BEGIN + timedelta(hours=1), until=BEGIN + timedelta(hours=2))
    assert 1 == talker.records


def test_top_has_the_same_numbers_from_the_volume_and_from_the_rows(overflowed, reading):
    """Volume and rows agree on records, bytes and drops as long as nothing was pruned."""

    def numbers(talkers):
        return [(talker.name, talker.records, talker.bytes, talker.dropped) for talker in talkers]

    assert numbers(reading().top()) == numbers(reading().top(since=BEGIN - timedelta(seconds=1)))


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("source", ["shop /srv/shop/app.py:7 work", "jobs /srv/shop/app.py:7 work"]),
        ("exception", ["KeyError"]),
        ("thread", ["MainThread", "17"]),
        ("process", [f"{os.getpid()} MainProcess"]),
    ],
)
def test_top_by_other_things(log, reading, by, expected):
    """Call sites, exceptions, threads and processes are counted as well; where the ledger knows nothing, so it says."""
    try:
        dict[str, int]()["x"]
    except KeyError:
        log(record("a"), record("b", exc_info=sys.exc_info()), record("c", name="jobs", threadName=None, thread=17))

    talkers = reading().top(by)
    assert expected == [talker.name[: len(name)] for talker, name in zip(talkers, expected, strict=True)]
    assert by == "process" or {None} == {talker.dropped for talker in talkers}


def test_top_by_nothing_known(log, reading):
    """What cannot be grouped by is refused, with what can be."""
    log(record())

    for by in ("moon", ["logger"]):
        with pytest.raises(FilterError, match=r"by=.* is unknown: choose from logger, source, template, level"):
            reading().top(by)


def test_the_trend_is_the_course_of_time(log, reading):
    """The trend has twelve equal parts of the time, with what was logged in each."""
    log(*(record(seconds=number * 10) for number in range(12)), record(seconds=119))

    (talker,) = reading().top("source")
    assert (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2) == talker.trend


def test_the_trend_is_exact_where_ids_and_times_do_not_agree(log, reading):
    """
    Each record counts in its own part of the time, also when clocks go back or processes commit out of turn.

    The trend counted a span of ids in the part of its first record, so it depended on the length of the log, and a log
    had another trend with an archive than without.
    """
    log(*(record(seconds=number % 2 * 1199) for number in range(600)))

    (talker,) = reading().top("source")
    assert (300, *[0] * 10, 300) == talker.trend


@pytest.mark.parametrize("by", ["logger", "source", "level"])
def test_more_groups_than_fit_into_memory(log, reading, monkeypatch, by):
    """
    Beyond a number of groups, those with fewest records are one, so that nothing is left out of the sums.

    A log with 100,000 call sites or threads took 121 MB, and a line of text for each.
    """
    log(*(record(name=f"n{number}", level=20 + number, seconds=number) for number in range(9) for _ in range(number)))
    everything = reading().top(by)
    monkeypatch.setattr(top, "_MOST", 3)
    found = {talker.name: talker for talker in reading().top(by)}

    assert [talker.name for talker in everything[:3]] == [name for name in found if name != "(other)"]
    assert ("(other)", 4) == (next(iter(found)), len(found))
    for what in ("records", "bytes", "share"):
        assert sum(getattr(one, what) for one in everything) == pytest.approx(
            sum(getattr(one, what) for one in found.values())
        )
    assert by != "source" or sum(found["(other)"].trend) == found["(other)"].records == 15
