"""
A program that PyInstaller has frozen.
"""

from __future__ import annotations

import sys

import pytest

pytestmark = [
    pytest.mark.needs("PyInstaller"),
    pytest.mark.skipif(sys.version_info >= (3, 15), reason="PyInstaller is late for new interpreters"),
]


def test_page(project):
    """The page can be followed word for word: the handler that is named in a text alone is in the frozen program."""
    project.follow()

    assert [["shop", "frozen, and still logging"]] == [row[1:] for row in map(list, project.answers[0])]
    assert [("shop",)] == project.query("SELECT program FROM processes")
