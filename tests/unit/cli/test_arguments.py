"""
Arguments that commands share: times, and what is said about the log, its loggers and levels.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3

import pytest
from command_line import log_of, record

from sqlite_log_handler._cli.arguments import add_flag, join_times
from sqlite_log_handler._cli.command import Parser


def test_a_flag_is_given_as_help_shows_it():
    """A flag with a name behind it takes a value, and `--help` has its default; another one is a switch."""
    parser = Parser("x", "")
    add_flag(parser, "-n, --lines N", "at most N lines", type=int, default=3)
    add_flag(parser, "--fields KEY,...", "these", default="")
    add_flag(parser, "-f, --follow", "go on")

    assert {"lines": 3, "fields": "", "follow": False} == vars(parser.parse_args([]))
    assert {"lines": 5, "fields": "a,b", "follow": True} == vars(parser.parse_args(["-fn5", "--fields", "a,b"]))
    help_ = " ".join(parser.format_help().split())
    assert "--lines N at most N lines (default: 3) --fields KEY,... these -f, --follow go on" in help_


def test_a_time_may_begin_with_a_minus():
    """`-S -1h` is a flag and its value, with and without a blank, short and long."""
    assert ["-S-1h", "x.db"] == join_times(["-S", "-1h", "x.db"])
    assert ["--until=-1h 30min"] == join_times(["--until", "-1h 30min"])
    assert ["-S", "yesterday", "-f"] == join_times(["-S", "yesterday", "-f"])


WHICH = "sqlite-log {}: which log? Name a FILE, or set SQLITE_LOG_DB; `sqlite-log --help` lists the commands\n"


def test_which_log(run, monkeypatch):
    """Without a FILE and without SQLITE_LOG_DB, it is asked which log is meant."""
    monkeypatch.delenv("SQLITE_LOG_DB")

    assert (2, []) == run("stats", stderr=WHICH.format("stats"))
    assert (2, []) == run(stderr=WHICH.format("show"))


@pytest.mark.parametrize("command", ["show", "top", "stats", "export"])
def test_a_logger_that_is_not_there_is_named(run, command):
    """A misspelt logger is told with the nearest ones; one that has others below it, or only drops, is there."""
    note = re.compile(r"^sqlite-log: no logger 'shop.stocks' in this log: did you mean shop.stock\b")

    assert 1 == run(command, "-l", "shop.stocks", stderr=note)[0]
    assert 1 == run(command, "-l", "SHOP.STOCK", stderr=re.compile("did you mean shop.stock"))[0]
    assert 0 == run(command, "-l", "shop")[0]


@pytest.mark.parametrize(
    ("number", "meant"), [("3", "ERROR is 40"), ("4", "WARNING is 30"), ("6", "INFO is 20"), ("7", "DEBUG is 10")]
)
@pytest.mark.parametrize("command", ["show", "top", "gaps", "stats", "export"])
def test_who_means_a_level_of_journalctl_is_told(run, command, number, meant):
    """`-p 3` is `err` to journalctl; here it is a level below DEBUG, so that all is shown, and a note says so."""
    note = f"sqlite-log: levels are those of Python's logging: {number} is below DEBUG (10), {meant}\n"

    assert run(command, "-p", "0") == run(command, "-p", number, stderr=note)


def test_a_number_that_the_log_has_a_name_for_is_meant(run, path):
    """Where 5 is the level TRACE, `-p 5` needs no note; nor does a name, a range, or a number above."""
    log_of(path, record("deep", 5))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT OR REPLACE INTO levels VALUES (5, 'TRACE')")

    assert (0, ["deep"]) == run("-p", "5", "-o", "cat", str(path))
    assert (0, 1, 1) == (run("-p", "..5", str(path))[0], run("-p", "ERROR", str(path))[0], run("-p", "8", str(path))[0])
