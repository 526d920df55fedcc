"""
`brief`: what somebody needs first, as text and as JSON.
"""

from __future__ import annotations

import json


def test_brief_as_text(run):
    """`brief` begins with what it is of, and has the error, the loudest logger and the state of the file."""
    status, lines = run("brief", "--utc")

    assert 0 == status
    assert lines[0].startswith("app-log.db: ")
    assert {"errors:", "who logs most:"} <= set(lines)
    assert lines[-2].startswith("file ")


def test_brief_as_json(run):
    """`-o json` has the same as an object, with how many patterns and gaps there are."""
    status, lines = run("brief", "-S", "2020-01-01", "-o", "json")
    found = json.loads("\n".join(lines))

    assert 0 == status
    assert {"records", "patterns", "pattern_count", "errors", "gaps", "gap_count", "totals", "new"} <= found.keys()
    assert len(found["patterns"]) == found["pattern_count"]
    assert {"cause", "level", "count"} == found["totals"]["drops"][0].keys()
