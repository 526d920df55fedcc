"""
What a log says in numbers.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from logged import BEGIN, record

from sqlite_log_handler import CorruptFileError, FilterError, LimitError, MissingFileError
from sqlite_log_handler._logfile.times import microseconds


def test_gaps(overflowed, reading):
    """A gap says behind which row it is, since when and until when, why, whose and how many."""
    (gap,) = reading().gaps()

    assert (10, "queue_full", "shop.cache", "DEBUG", 15, os.getpid()) == (
        gap.after_id, gap.cause, gap.logger, gap.level, gap.count, gap.process,
    )  # fmt: skip
    assert [microseconds(BEGIN) + 1_000_000, microseconds(BEGIN) + 2_400_000] == [gap.since_us, gap.until_us]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"level": "DEBUG"}, 1),
        ({"level": "ERROR"}, 0),
        ({"logger": "shop"}, 1),
        ({"logger": "jobs"}, 0),
        ({"exclude": "shop.cache"}, 0),
        ({"since": BEGIN + timedelta(seconds=2)}, 1),
        ({"since": BEGIN + timedelta(seconds=3)}, 0),
        ({"until": BEGIN}, 0),
        ({"process": 99_999_999}, 0),
        ({"run": 0}, 1),
        ({"after_id": 11}, 0),
        ({"after_id": 10}, 1),
        ({"text": "whatever"}, 1),
    ],
)
def test_gaps_are_filtered_as_far_as_can_be(overflowed, reading, filters, expected):
    """A gap is left out when no record in it can match; what cannot be known of a dropped record lets it pass."""
    assert expected == len(reading().gaps(**filters))


PRUNES = """
CREATE TABLE IF NOT EXISTS prunes (
    id INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL, since_us INTEGER NOT NULL,
    until_us INTEGER NOT NULL, cause TEXT NOT NULL, count INTEGER NOT NULL, unsent INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT PRIMARY KEY, after_id INTEGER NOT NULL, updated_us INTEGER NOT NULL
) WITHOUT ROWID;
"""


def test_what_was_pruned_before_it_was_forwarded_is_a_gap(log, reading, change):
    """Rows that retention deleted before anybody had taken them elsewhere stand among the gaps; others do not."""
    log(record("one"), record("two"), record("three"))
    change(PRUNES)
    change("INSERT INTO prunes VALUES (1, 1, 1, 100, 200, 'max_age', 1, 0, 0)")
    change("INSERT INTO prunes VALUES (2, 2, 2, 300, 400, 'max_rows', 1, 1, 0)")
    change("DELETE FROM records WHERE id < 3")

    (gap,) = reading().gaps()
    assert (2, 300, 400, "max_rows (not forwarded)", "", "", 1, None) == (
        gap.after_id, gap.since_us, gap.until_us, gap.cause, gap.logger, gap.level, gap.count, gap.process,
    )  # fmt: skip
    assert [gap] == reading().gaps(logger="whatever")
    assert [] == reading().gaps(since=BEGIN)
    assert (2, 1) == (reading().stats().pruned, reading().stats().unsent)


def test_cursors_say_how_far_behind_they_are(log, reading, change):
    """The statistics have each cursor with the rows behind it, and the age of the first of them."""
    log(record("one"), record("two"), record("three"))
    change(PRUNES)
    change("INSERT INTO cursors VALUES ('to loki', 1, 5), ('done', 3, 6)")

    done, behind = reading().stats().cursors
    assert ("done", 3, 6, 0, 0.0) == (done.name, done.after_id, done.updated_us, done.lag_rows, done.lag_seconds)
    assert ("to loki", 1, 2) == (behind.name, behind.after_id, behind.lag_rows)
    assert behind.lag_seconds > 86_400


def test_a_histogram_counts_by_level(overflowed, reading):
    """Each bucket has records by level, and drops; buckets without any are there as well."""
    buckets = reading().histogram("1s", until=BEGIN + timedelta(seconds=60))

    assert [{10: 10}, {}, {}, {40: 1}] == [bucket.levels for bucket in buckets[:4]]
    assert [0, 15, 0, 0] == [bucket.dropped for bucket in buckets[:4]]
    assert [microseconds(BEGIN), microseconds(BEGIN) + 1_000_000] == [bucket.since_us for bucket in buckets[:2]]
    assert [] == reading().histogram(since=datetime.now(UTC) + timedelta(days=1))


@pytest.mark.parametrize(
    ("times", "width"),
    [((-1_000_001, -1, 0, 1_999_999), 1_000_000), ((-(2**63), -1, 2**63 - 1), 2 * 10**17), ((2**63 - 2, 2**63 - 1), 1)],
)
def test_a_histogram_of_any_times(log, reading, change, times, width):
    """Times before 1970, and those at the ends of 64 bits, are in the buckets that Python's division gives."""
    log(*(record() for _ in times))
    for id_, created_us in enumerate(times, 1):
        change("UPDATE records SET created_us = ? WHERE id = ?", created_us, id_)
    expected = Counter(created_us // width * width for created_us in times)

    buckets = reading().histogram(width / 1e6)
    assert expected == +Counter({bucket.since_us: bucket.records for bucket in buckets})


@pytest.mark.parametrize("seconds", [0, 0.5, 20, 7_000, 90_000, 40_000_000, 2_000_000_000])
def test_a_histogram_has_a_round_bucket_by_default(log, reading, seconds):
    """Without a bucket, a round one is taken of which a few are enough."""
    log(record(), record(seconds=seconds))

    assert 1 <= len(reading().histogram()) <= 24


@pytest.mark.parametrize(
    "bucket", ["soon", 0, -1, "0s", float("nan"), "1us", float("inf"), 1e30, "99999999999w", [1]], ids=str
)
def test_a_histogram_refuses_other_buckets(log, reading, bucket):
    """A bucket that is no length of time, or makes millions of them, is refused."""
    log(record(), record(seconds=3600))

    with pytest.raises(FilterError, match=r"length of time|must be a microsecond or more|take a longer one"):
        reading().histogram(bucket)


@pytest.mark.parametrize("most", [0, 1, "x", 2.5])
def test_a_histogram_refuses_other_numbers_of_buckets(log, reading, most):
    """Round buckets of which one is enough there are not; 0 and 1 used to be a ZeroDivisionError."""
    log(record())

    with pytest.raises(FilterError, match=f"most={most!r}: must be an integer, 2 or more"):
        reading().histogram(most=most)
    assert 1 == len(reading().histogram(most=2))


def test_stats(overflowed, reading):
    """The statistics count rows, levels, sources, drops and bytes."""
    stats = reading().stats()

    assert (12, 1, 12, {10: 10, 30: 1, 40: 1}) == (stats.rows, stats.first_id, stats.last_id, stats.levels)
    assert (15, {"queue_full": 15}) == (stats.dropped, stats.dropped_by_cause)
    assert (3, 1, "wal", "incremental") == (stats.loggers, stats.processes, stats.journal_mode, stats.auto_vacuum)
    assert (os.path.getsize(overflowed), 0) == (stats.file_bytes, stats.wal_bytes)


def test_stats_without_levels(overflowed, reading, change):
    """Without the counts by level, the number of rows is the same, and no row is read."""
    with_levels = reading().stats()

    assert replace(with_levels, levels={}) == reading().stats(by_level=False)
    change("DELETE FROM records")
    assert 0 == reading().stats(by_level=False).rows


def test_stats_by_a_link(make_handler, reading, path):
    """By a link to the log, its WAL is counted too: it is beside the log, and not beside the link."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    handler = make_handler()
    handler.handle(record())
    assert handler.flush()

    assert 0 < os.path.getsize(f"{path}-wal") == reading(link).stats().wal_bytes


def test_books(overflowed, reading, change):
    """The books count each thing in all the places that have to agree."""
    books = reading().books()

    assert (11, 1, 12) == (books.rows, books.warnings, books.written_in_volume)
    assert (15, 15, 15) == (books.dropped_in_ledger, books.dropped_in_volume, books.dropped_in_warnings)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file")
def test_a_table_that_has_lost_its_line(log, reading, change):
    """The table `marks` has one line; without it, the error has a name, where it was an IndexError."""
    log(record("a"))
    change("DELETE FROM marks")

    with pytest.raises(CorruptFileError, match="a table has lost its only line"), reading() as reader:
        reader.books()


def test_a_file_that_is_gone(overflowed, reading, path):
    """
    The size of a file that was deleted, or moved with its folder, is an error with a name. It was a bare `OSError`.
    """
    (path.parent / "logs").mkdir()
    path = path.rename(path.parent / "logs" / path.name)
    log = reading(path)
    for go in (path.unlink, lambda: path.parent.rename(f"{path.parent}.1"), path.parent.touch):
        go()
        for ask in (log.stats, log.totals):
            with pytest.raises(MissingFileError, match="does not exist"):
                ask()


LEVELS = (
    "WITH n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 1_200) INSERT INTO levels SELECT i, {} FROM n"
)


@pytest.mark.parametrize(("name", "named"), [("'L' || i", 1_000), ("printf('%0250d', i)", 267)])
def test_more_levels_than_any_log_has(log, reading, change, name, named):
    """
    Of a log with thousands of levels, or with long names of levels, some are shown by their numbers.

    `stats` took 201 MB for 99,000 names of 250 letters.
    """
    log(record(level=1_200))
    numbers = "WITH n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
    change(f"{numbers} INSERT INTO levels SELECT i, {name} FROM n")

    assert named == len(reading().level_names()) == len(reading().stats().level_names)
    assert ["Level 1200"] == [*reading().totals().records]
    assert ["Level 1200"] == [talker.name for talker in reading().top("level")]


def test_more_cursors_than_any_log_has(log, reading, change):
    """
    A log with thousands of cursors is refused, as it has one for each receiver.

    `metrics` took 175 MB for 99,000 of them.
    """
    log(record())
    numbers = "WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)"
    change(f"{numbers} INSERT INTO cursors SELECT i, 0, 0 FROM n")
    for question in (reading().stats, reading().totals):
        with pytest.raises(LimitError, match="lines"):
            question()
