"""
pytest: the log of a test run, beside caplog.
"""

from __future__ import annotations

CONFIGURES = """
import logging
import logging.config

FILE = {"class": "sqlite_log_handler.SQLiteHandler"}


def test_configures(tmp_path):
    path = tmp_path / "own-log.db"
    config = {"version": 1, "handlers": {"db": {**FILE, "filename": path}}, "root": {"handlers": ["db"]}}
    logging.config.dictConfig({**config, "disable_existing_loggers": False})
    logging.getLogger("shop").warning("into the log of the test")
    logging.shutdown()
    assert b"into the log of the test" in path.read_bytes()


def test_has_all_again(caplog):
    logging.getLogger("shop").warning("stock is low")

    assert ["stock is low"] == caplog.messages
"""


def test_page(project):
    """The page can be followed word for word: the row says which test logged it, and caplog has the record as well."""
    project.follow()

    assert [[("test_orders.py::test_order (call)", "DEBUG", "stock is low")]] == project.answers
    assert "1 passed" in project.printed[0]


def test_a_test_that_configures_logging(project):
    """A test may call dictConfig for a log of its own; the next has caplog and the log of the run again."""
    project.write("conftest.py", "pytest.ini")
    (project.folder / "test_configures.py").write_text(CONFIGURES, encoding="utf-8")

    assert "2 passed" in project.run("python -m pytest -W error")

    assert [("stock is low",)] == project.query("SELECT message FROM logs", name="tests-log.db")
