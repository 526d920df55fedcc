"""
`patterns`: which records say the same, as a table and as JSON.
"""

from __future__ import annotations

import json

import pytest


def test_patterns_as_a_table(run):
    """`patterns` has the numbers of each pattern, then its text, and one line for those that are left out."""
    status, lines = run("patterns", "-n", "1", "--utc")

    assert 0 == status
    assert ["records", "share", "first", "seen", "last", "seen", "id", "levels"] == lines[0].split()
    assert "10" == lines[1].split()[0]
    assert lines[1].endswith("DEBUG")
    assert "  shop.cache: miss <n> (guessed)" == lines[2]
    assert lines[3].endswith("more; -n all shows them")


def test_patterns_as_json(run):
    """`-o json` is an array of objects, whose records add up to those of the log."""
    status, lines = run("patterns", "-o", "json", "-n", "all")
    found = json.loads("\n".join(lines))

    assert 0 == status
    assert {"text", "is_guessed", "records", "last_id", "sample"} <= found[0].keys()
    assert 15 == sum(pattern["records"] for pattern in found)


def test_the_records_of_a_pattern(run):
    """`show --pattern-of` shows the records that a pattern counts."""
    found = json.loads("\n".join(run("patterns", "-o", "json")[1]))[0]
    _, lines = run("show", "--pattern-of", str(found["last_id"]), "-o", "cat")

    assert found["records"] == len(lines)


@pytest.mark.parametrize(("moment", "expected"), [("2020-01-01", 0), ("2030-01-01", 1), ("1", 1)])
def test_new_since(run, moment, expected):
    """`--new-since` takes a time and a run; the status is 1 when nothing is new."""
    assert expected == run("patterns", "--new-since", moment)[0]


def test_no_pattern(run):
    """Where nothing matches, nothing is printed, and the status is 1."""
    assert (1, []) == run("patterns", "-F", "no such text")
