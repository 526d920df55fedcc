"""
Datasette on a log with a gap.
"""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.needs("datasette")


def test_page(project):
    """The page can be followed word for word: the gap and the error are there, as JSON."""
    project.log()

    project.follow()

    gaps, errors = map(json.loads, project.printed)
    assert {("queue_full", "shop.stock", "DEBUG")} == {(gap["cause"], gap["logger"], gap["level"]) for gap in gaps}
    assert ["order 44 has no price"] == [error["message"] for error in errors]


def test_pages_for_people(project):
    """The view of the log has its facets, the tables below it are hidden, and each query has its page."""
    project.log()
    project.write()
    project.start("datasette app-log.db --metadata metadata.yaml --port 8000", "")

    logs = json.loads(project.fetch("/app-log/logs.json")[1])
    database = json.loads(project.fetch("/app-log.json")[1])

    assert {"level", "logger"} == set(logs["facet_results"])
    assert {"DEBUG", "INFO", "WARNING", "ERROR"} == {
        result["value"] for result in logs["facet_results"]["level"]["results"]
    }
    columns = logs["columns"]
    assert max(row[columns.index("id")] for row in logs["rows"]) == logs["rows"][0][columns.index("id")]
    assert [] == [table["name"] for table in database["tables"] if not table["hidden"]]
    for name in ("latest", "gaps", "volume"):
        status, page = project.fetch(f"/app-log/{name}")
        assert 200 == status
        assert "shop.stock" in page
