"""
A Scrapy spider, run without a project.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("scrapy.cmdline")


def test_page(project):
    """The page can be followed word for word: what the spider and Scrapy say is in the file and on the console."""
    project.follow()

    [[_, message, url]] = project.answers[0]
    assert ("found 19.90", "data:text/html,%3Cb%3E19.90%3C/b%3E") == (message, url)
    assert [(1,)] == project.query(
        "SELECT count(*) FROM logs WHERE logger = 'scrapy.core.engine' AND message LIKE 'Spider closed%'"
    )
    assert "found 19.90" in project.printed[0]
    spiders = "SELECT DISTINCT json_extract(attributes, '$.spider') FROM logs WHERE attributes LIKE '%spider%'"
    assert 1 == len(project.query(spiders))
