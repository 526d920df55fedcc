"""
`health`: one line and an exit status for probes.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from datetime import timedelta

import pytest
from command_line import BEGIN
from freezegun import freeze_time

from sqlite_log_handler import LogReader


@pytest.fixture
def health(run):
    """Run `health` these seconds after the log began, and return its status and its line."""

    def health(seconds, *words, stderr=""):
        with freeze_time(BEGIN + timedelta(seconds=seconds)):
            status, lines = run("health", *words, stderr=stderr)
        return status, *lines

    return health


@pytest.mark.parametrize(
    ("seconds", "words", "expected"),
    [
        (10, "--max-drops 15", (0, "OK: newest record 1.0 s old, 15 dropped since -1h")),
        (10, "", (1, "WARNING: newest record 1.0 s old, 15 dropped since -1h")),
        (10, "--max-drops 14 -S -1d", (1, "WARNING: newest record 1.0 s old, 15 dropped since -1d")),
        (600, "--max-age 10min -S -1min", (0, "OK: newest record 9.8 min old, 0 dropped since -1min")),
        (700, "--max-age 10min -S -1min", (2, "CRITICAL: newest record 11.5 min old, 0 dropped since -1min")),
        (700, "--max-age 600", (2, "CRITICAL: newest record 11.5 min old, 15 dropped since -1h")),
        (-60, "--max-age 1s -S @0", (1, "WARNING: newest record 0 ms old, 15 dropped since @0")),
    ],
)
def test_the_status_is_that_of_the_worst(health, seconds, words, expected):
    """An old log is critical, drops above the limit are a warning, and the line says both, with numbers for graphs."""
    status, line = health(seconds, *words.split())
    text, _, numbers = line.partition(" | ")

    assert expected == (status, text.removesuffix(" (queue_full 15)"))
    assert re.fullmatch(r"age=\d+\.\d{3}s dropped=\d+", numbers)


def test_a_log_without_a_record_is_old(health, make_handler, path):
    """Where nothing was logged yet, only a limit of age is exceeded."""
    make_handler().close()

    assert (0, "OK: no record, 0 dropped since -1h | dropped=0") == health(0, str(path))
    assert 2 == health(0, str(path), "--max-age", "1h")[0]


def test_what_was_pruned_is_not_dropped(health, shop, path):
    """Retention was asked to delete: what it deleted before it was forwarded is no drop."""
    path.write_bytes(shop.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM drops")
        since = int(BEGIN.timestamp()) * 1_000_000
        connection.execute("INSERT INTO prunes VALUES (1, 1, 3, ?, ?, 'max_rows', 3, 2, 0)", [since, since])

    assert 0 == health(10, str(path))[0]


def test_a_log_that_cannot_be_read_is_critical(health, tmp_path):
    """What a probe reads is on standard output, also when the file is missing or is no log."""
    (tmp_path / "text").write_text("hello")

    status, line = health(0, str(tmp_path / "no.db"))
    assert (2, True) == (status, line.startswith("CRITICAL: ") and "does not exist" in line)
    status, line = health(0, str(tmp_path / "text"))
    assert (2, True) == (status, line.startswith("CRITICAL: ") and "is not an SQLite database" in line)


def test_a_log_that_cannot_be_read_whole_is_critical(health, monkeypatch):
    """
    Who may not read the -wal sees neither the newest rows nor the drops, so a probe must not say that all is well.

    It said OK, without a word.
    """
    monkeypatch.setattr(LogReader, "notice", "it is read without its -wal")

    assert (2, "CRITICAL: it is read without its -wal") == health(10)


def test_a_length_of_time_that_is_none(health):
    """A wrong argument is told as everywhere."""
    assert (2,) == health(0, "--max-age", "soon", stderr=re.compile("'soon' is not a length of time"))
