"""
Hypercorn with two workers, configured by a file.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("hypercorn.run")


def test_page(project):
    """The page can be followed word for word: the app's line and the access line are there, on the console once."""
    project.follow()

    assert ["shop", "hypercorn.access"] == [logger for _, _, logger, _ in project.answers[0]]
    printed = project.programs[0].printed
    assert (1, 1) == (printed.count("asked for /orders/42"), printed.count("GET /orders/42 "))
    assert project.query("SELECT count(*) FROM logs WHERE message LIKE 'Running on %'") > [(0,)]
