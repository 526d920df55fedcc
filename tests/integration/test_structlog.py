"""
structlog, in both ways in which it reaches `logging`.
"""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.needs("structlog")

KWARGS = """
import orders
import structlog

structlog.configure(processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs])
logger = structlog.get_logger("kwargs")
logger.info("order paid", order=42)
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("order lost", order=43)
try:
    logger.info("order paid", name="tea")
except KeyError as error:
    print(error)
"""

EXCEPTIONS = """
import orders

structlog = orders.structlog
structlog.contextvars.bind_contextvars(request="r-1")
try:
    1 / 0
except ZeroDivisionError as error:
    orders.logger.exception("by exception()", name="tea")
    orders.logger.error("by exc_info", exc_info=True, name="tea")
    orders.logger.error("by the exception", exc_info=error, name="tea")
"""

RENDERED = """
import logging

import orders

handler = logging.getLogger().handlers[0]
render = orders.structlog.processors.JSONRenderer()
handler.setFormatter(orders.structlog.stdlib.ProcessorFormatter(processor=render))
orders.logger.info("order sent", order=43)
"""


def test_page(project):
    """The page can be followed word for word: what was bound can be asked for, and the console has structlog's line."""
    project.follow()

    [[(_, message, amount)]] = project.answers
    assert ("order paid", 19.9) == (message, amount)
    assert "order sent                     order=43\n" in project.printed[-1]
    assert {"order": 43} == project.attributes("message = 'order sent'")


def test_render_to_log_kwargs(project):
    """What is rendered to keyword arguments is kept; a key that a LogRecord has raises, as the page says."""
    project.write("orders.py")

    assert "\"Attempt to overwrite 'name' in LogRecord\"\n" == project.python(KWARGS)

    rows = project.query("SELECT level, message, attributes, exc_type FROM logs WHERE logger = 'kwargs'")
    assert [
        ("INFO", "order paid", '{"order": 42}', None),
        ("ERROR", "order lost", '{"order": 43}', "ZeroDivisionError"),
    ] == rows


def test_exceptions(project):
    """However structlog is given an exception, the traceback is in its column, and the rest among the attributes."""
    project.write("orders.py")
    project.python(EXCEPTIONS)

    rows = project.query("SELECT attributes, exc_type, instr(exc_text, '1 / 0') > 0 FROM logs WHERE level = 'ERROR'")
    assert [{"request": "r-1", "name": "tea"}] * 3 == [json.loads(attributes) for attributes, *_ in rows]
    assert [("ZeroDivisionError", 1)] * 3 == [tuple(exception) for _, *exception in rows]


def test_formatter_of_structlog(project):
    """With structlog's formatter on the handler, the message is what it renders, and the attributes are still there."""
    project.write("orders.py")
    project.python(RENDERED)

    [(message,)] = project.query("SELECT message FROM logs WHERE json_extract(attributes, '$.order') = 43")
    assert {"event": "order sent", "order": 43} == json.loads(message)
