"""
OpenMetrics text, read by the parsers of Prometheus' own client.
"""

from __future__ import annotations

import logging
import shutil

import pytest
from logged import record
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families

from sqlite_log_handler import LogReader
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import CAUSES
from sqlite_log_handler._read.openmetrics import openmetrics

NAUGHTY = 'a"b\\c\nd\x00\x1b[31m é'


@pytest.fixture
def text(log, path, change):
    """The metrics of a log with naughty names, and of one that is not there."""
    log(record("a"), record("b", logging.ERROR), record("c", 17))
    change("INSERT INTO drop_totals VALUES ('queue_full', 20, 7), (?, 40, 2)", NAUGHTY)
    change("INSERT INTO cursors VALUES (?, 1, 0)", NAUGHTY)
    text, errors = openmetrics({"shop": str(path), NAUGHTY: str(path.with_name("none.db"))})
    assert 1 == len(errors)
    assert "does not exist" in errors[0]
    return text


@pytest.mark.parametrize("families_of", [openmetrics_families, prometheus_families])
def test_parsers_read_it(text, families_of):
    """The parser of OpenMetrics reads it, and the one of the older format, which node_exporter has, reads the same."""
    samples = {
        (sample.name, sample.labels.get("level")): sample.value
        for family in families_of(text)
        for sample in family.samples
        if sample.labels["log"] == "shop"
    }

    assert 1 == samples["sqlite_log_up", None]
    assert 1 == samples["sqlite_log_records_total", "ERROR"]
    assert 1 == samples["sqlite_log_records_total", "Level 17"]
    assert 2 == samples["sqlite_log_cursor_lag_records", None]
    assert 0 < samples["sqlite_log_file_bytes", None]


def test_drops_have_a_sample_before_the_first_one(text):
    """
    Each cause and level has a 0 before its first drop, for the levels of logging and those of the log.

    A series that begins with the first burst has not risen, so the alert for drops did not fire.
    """
    drops = [
        (sample.labels["cause"], sample.labels["level"], sample.value)
        for family in openmetrics_families(text)
        for sample in family.samples
        if sample.name == "sqlite_log_drops_total" and sample.labels["log"] == "shop"
    ]
    levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "Level 17"]
    zeros = {(cause, level, 0) for cause in CAUSES for level in levels} - {("queue_full", "INFO", 0)}

    assert {*zeros, ("queue_full", "INFO", 7), (printable(NAUGHTY), "ERROR", 2)} == {*drops}


def test_zeros_of_drops_are_few(log, path):
    """A log of many levels has a sample before the first drop for some of them only."""
    log(*(record("a", level) for level in range(1, 200)))
    text, _ = openmetrics({"shop": str(path)})

    assert len(CAUSES) * 16 == text.count("sqlite_log_drops_total{")


def test_counters_are_counters(text):
    """What never falls is a counter, the rest are gauges; each has its help."""
    kinds = {family.name: family.type for family in openmetrics_families(text)}

    assert {"records", "record_bytes", "drops"} == {
        name.removeprefix("sqlite_log_") for name, kind in kinds.items() if kind == "counter"
    }
    assert {"counter", "gauge"} == set(kinds.values())
    assert all(family.documentation for family in openmetrics_families(text))


def test_a_log_that_cannot_be_read_is_down(text):
    """A log that cannot be read has `up 0`, and nothing else; the others have all they have."""
    others = [line for line in text.splitlines() if line[0] != "#" and '{log="shop"' not in line]

    assert [True] == [line.startswith("sqlite_log_up{") and line.endswith(" 0") for line in others]


def test_a_log_whose_names_are_long(log, path, change):
    """
    A log whose samples would be long is down, and the error says why; the others have all they have.

    900 cursors with names of 30 kB took 175 MB, and twelve such logs 1,886 MB.
    """
    log(record("a"))
    other = shutil.copy(path, path.with_name("other.db"))
    change("INSERT INTO cursors SELECT value || printf('%030000d', 0), 1, 0 FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8]')")
    text, errors = openmetrics({"few": str(path), "other": str(other)})
    assert not errors
    change("INSERT INTO cursors SELECT name || n, 1, 0 FROM cursors, (SELECT 0 AS n UNION SELECT 1 UNION SELECT 2)")
    text, errors = openmetrics({"many": str(path), "other": str(other)})

    assert [True] == ["its metrics take more than 1 MiB" in error for error in errors]
    assert 'sqlite_log_up{log="many"} 0' in text
    assert 'sqlite_log_records_total{log="other",level="INFO"} 1' in text
    assert len(text) < 6_000


def test_many_logs_with_long_names(log, path, change, monkeypatch):
    """All logs together have a limit as well; those that are beyond it are down."""
    log(record("a"))
    change("INSERT INTO cursors VALUES (?, 1, 0)", "x" * 1_000)
    monkeypatch.setattr("sqlite_log_handler._read.openmetrics._MOST_OF_ALL", 9_000)
    text, errors = openmetrics(dict.fromkeys("abc", str(path)))

    assert 1 == len(errors)
    assert ["1", "1", "0"] == [line[-1] for line in text.splitlines() if line.startswith("sqlite_log_up")]


def test_a_log_that_cannot_be_read_whole_is_down(log, path, monkeypatch):
    """Without its -wal, a log has not all of its rows and drops: it was up, and had dropped nothing."""
    log(record("a"))
    monkeypatch.setattr(LogReader, "notice", "it is read without its -wal")
    text, errors = openmetrics({"shop": str(path)})

    assert ["it is read without its -wal"] == errors
    assert ['sqlite_log_up{log="shop"} 0'] == [line for line in text.splitlines() if line[0] != "#"]
