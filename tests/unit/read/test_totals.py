"""
Totals: what was written and dropped since the file was made.
"""

from __future__ import annotations

import logging

from logged import BEGIN, record

from sqlite_log_handler import LogReader
from sqlite_log_handler._read.totals import Lag, totals


def test_totals_outlive_the_rows(log, path, prune, change):
    """
    Totals have what retention has deleted, also from `volume`, and so never fall.

    A counter that falls is a restart to a monitoring system, which then counts everything again.
    """
    log(record("a"), record("b"), record("c", logging.ERROR))
    with LogReader(path) as reader:
        before = reader.totals()
        prune()
        change("INSERT INTO record_totals SELECT levelno, sum(records), sum(bytes) FROM volume_folded GROUP BY 1")
        change("DELETE FROM volume_folded")
        after = reader.totals()

    assert ({"ERROR": 1, "INFO": 2}, {"ERROR": 1, "INFO": 2}) == (before.records, before.bytes)
    assert (before.records, before.bytes) == (after.records, after.bytes)
    assert (int(BEGIN.timestamp()) * 1_000_000, None) == (before.last_us, after.last_us)


def test_drops_by_cause_and_level(log, path, change):
    """Drops are told by cause and level, with the names of levels where they have one."""
    log(record("a"))
    change("INSERT INTO drop_totals VALUES ('queue_full', 20, 7), ('queue_full', 17, 2), ('bytes_full', 20, -1)")
    with LogReader(path) as reader:
        assert {
            ("bytes_full", "INFO"): 0,
            ("queue_full", "INFO"): 7,
            ("queue_full", "Level 17"): 2,
        } == reader.totals().drops


def test_the_lag_of_cursors(log, path, change):
    """A cursor lags by the rows behind it that are still there, and by the age of the first of them."""
    log(*(record(str(number), seconds=number) for number in range(5)))
    change("INSERT INTO cursors VALUES ('a', 0, 0), ('b', 3, 0), ('c', 5, 0)")
    change("DELETE FROM records WHERE id < 3")
    now_us = int(BEGIN.timestamp() + 10) * 1_000_000
    with LogReader(path) as reader:
        lags = totals(reader._question(), now_us).lags

    assert (Lag("a", 3, 8.0), Lag("b", 2, 7.0), Lag("c", 0, 0.0)) == lags


def test_the_size_of_the_file(log, path):
    """The size is that of the file and of the WAL."""
    log(record("a"))
    with LogReader(path) as reader:
        assert path.stat().st_size == reader.totals().file_bytes
        assert 0 <= reader.totals().wal_bytes
