"""
`top`: who logs most, and the line that makes it less.
"""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
from command_line import NOBODY, log_of, record

from sqlite_log_handler import Talker


def test_top_says_who_and_what_to_do(run):
    """`top` has a line for the loudest, and the setLevel line that makes the loudest of all quiet."""
    status, lines = run("top", "-n", "2")

    assert 0 == status
    assert ["records", "bytes", "share", "dropped", "logger"] == lines[0].split()
    assert "     10   60 B  83.3%       15  shop.cache" == lines[1]
    assert lines[3].endswith("3 more; -n all shows them")
    assert [
        "",
        "To leave out 10 of its records, and 15 that were dropped, 83.3% of all:",
        "  logging.getLogger('shop.cache').setLevel(logging.INFO)",
    ] == (lines[4:])


def test_top_gives_advice_on_what_it_shows(run):
    """
    With no line in the table there is no advice, and where nothing was dropped, or that is not known, no word of drops.

    The advice once had a higher number of records than the row above it, because those dropped were among them.
    """
    assert "setLevel" not in str(run("top", "-n", "0"))
    assert "To leave out 10 of its records, 100.0% of all:" in run("top", "-F", "miss")[1]


@pytest.mark.parametrize("level", ["WARNING", "INFO..", "DEBUG..INFO"])
def test_top_gives_no_advice_for_a_part_of_the_levels(run, path, level):
    """
    With a level asked for there is no advice: it would count records that the table does not.

    It once promised to leave out nine records of the one warning that was shown, 900 % of all.
    """
    log_of(path, *(record("hello", levelno) for levelno in [logging.DEBUG] * 9 + [logging.INFO, logging.WARNING]))

    status, lines = run("top", str(path), "-p", level)
    assert 0 == status
    assert 2 == len(lines)
    assert "setLevel" in str(run("top", str(path)))


def test_top_by_source_draws_the_trend(run):
    """By call site there is a line of bars for the course of time, and no line to paste."""
    _, lines = run("top", "--by", "source", "-l", "shop.cache")

    assert lines[0].endswith("  trend         source")
    assert lines[1].endswith("shop.cache app.py:7 work")
    assert set("▁▂▃▄▅▆▇█") & set(lines[1])
    assert 2 == len(lines)


def test_top_does_not_advise_to_lose_warnings(run):
    """When the loudest logger logs errors for the most part, no line is offered that would leave them out."""
    assert "setLevel" not in str(run("top", "-l", "shop.stock"))


def test_top_in_json(run):
    """For a program, `top` is an array of objects with the fields of `Talker`, without advice."""
    status, lines = run("top", "-n", "2", "-o", "json")
    found = json.loads("\n".join(lines))

    assert 0 == status
    assert {field.name for field in dataclasses.fields(Talker)} == set(found[0])
    assert ("shop.cache", 10, 15) == (found[0]["name"], found[0]["records"], found[0]["dropped"])
    assert 2 == len(found)
    assert (1, ["[]"]) == run("top", "-o", "json", "-l", "nobody", stderr=NOBODY)


def test_top_by_attribute(run):
    """`--by attribute KEY` groups by the values of an attribute, and asks for the key where it is missing."""
    status, lines = run("top", "--by", "attribute", "order")

    assert (0, "order") == (status, lines[0].split()[-1])
    assert "7" == lines[1].split()[-1]
    error = "sqlite-log top: argument --by: 'attribute': name the attribute behind it; "
    error += "`sqlite-log top --help` says more\n"
    assert (2, []) == run("top", "--by", "attribute", stderr=error)


def test_top_by_an_attribute_whose_name_a_terminal_would_obey(run, path):
    """The name of an attribute, which may be from a log, is escaped above the table."""
    log_of(path, record("tea", **{"order\x1b[2J": 7}))

    _, lines = run("top", str(path), "--by", "attribute", "order\x1b[2J")

    assert [r"order\x1b[2J", "7"] == [line.split()[-1] for line in lines]
