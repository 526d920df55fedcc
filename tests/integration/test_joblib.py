"""
joblib's workers, which are new processes that nobody has configured.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("joblib.externals")


def test_page(project):
    """The page can be followed word for word, and every line of every worker is there."""
    project.follow()

    assert 50 == project.query("SELECT count(*) FROM logs WHERE message LIKE 'squaring %'")[0][0]
    assert [("the sum is 40425",)] == project.query("SELECT message FROM logs WHERE message LIKE 'the sum %'")


def test_without_the_initializer(project):
    """What the page says of a program that configures its main process alone is so."""
    project.write("squares.py")
    squares = project.folder / "squares.py"
    code = squares.read_text(encoding="utf-8").replace(", initializer=configure_logging", "")
    squares.write_text(code, encoding="utf-8")
    project.run("python squares.py")

    assert [("the sum is 40425",)] == project.query("SELECT message FROM logs")


def test_workers_flush_when_they_end(project):
    """Every line is there although no tick came while the workers ran."""
    project.write("squares.py")
    squares = project.folder / "squares.py"
    code = squares.read_text(encoding="utf-8").replace('"app-log.db"', '"app-log.db", flush_interval=3600')
    squares.write_text(code, encoding="utf-8")
    project.run("python squares.py")

    assert [(51,)] == project.query("SELECT count(*) FROM logs")
