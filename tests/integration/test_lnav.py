"""
lnav on a log that was exported as JSON lines.
"""

from __future__ import annotations

import csv

import pytest

pytestmark = pytest.mark.needs("lnav", "sqlite-log")


def test_page(project):
    """The page can be followed word for word: lnav shows tracebacks and attributes, and answers SQL."""
    project.log()

    project.follow()

    installed, _, shown, answer = project.printed
    assert "installed" in installed
    lines = shown.splitlines()
    assert "info     shop.orders: order 42 paid" == lines[0].split(" ", 1)[1]
    assert '  attributes: {"amount":19.9,"customer":"c-17"}' == lines[1]
    assert "  exc_text: KeyError: 'price'" in lines
    assert [] == [line for line in lines if line.endswith(": null")]
    counts = {(row["log_level"], row["logger"]): int(row["records"]) for row in csv.DictReader(answer.splitlines())}
    assert 1 == counts["error", "shop.orders"]
    assert counts["debug", "shop.stock"] >= 100
