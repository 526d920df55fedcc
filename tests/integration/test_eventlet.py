"""
eventlet, whose monkey patching makes a green thread of the listener's, and whose `tpool` has native threads beside it.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("eventlet")

PROGRAM = """
import eventlet

eventlet.monkey_patch()

import logging

from eventlet import tpool

from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler("app-log.db", flush_interval=0.001, close_timeout=1)
logger = logging.getLogger("shop")
logger.setLevel("INFO")
logger.addHandler(handler)


def wait():
    with eventlet.Timeout(60):
        while handler.stats().queued:
            eventlet.sleep(0.01)


"""

FROM_THE_POOL = """
logger.info("from a green thread")
wait()
tpool.execute(logger.info, "from the pool")
wait()
"""

FIRST_FROM_THE_POOL = """
tpool.execute(logger.info, "from the pool")
logger.info("from a green thread")
eventlet.sleep(1)
assert 2 == handler.stats().queued
try:
    handler.close()
except eventlet.Timeout as error:  # from Python 3.13 on
    assert 1 == error.seconds
logger.info("after close")
wait()
"""


def messages(project, program):
    """Return what a program has logged, in order."""
    (project.folder / "program.py").write_text(PROGRAM + program, encoding="utf-8")
    project.run("python program.py")  # eventlet itself may say something
    return [message for (message,) in project.query("SELECT message FROM logs ORDER BY id")]


def test_a_record_from_the_pool_of_native_threads(project):
    """
    A record from `tpool` is written while the program runs.

    eventlet's lock does not wake the green thread of another native thread: nothing was written any more.
    """
    assert ["from a green thread", "from the pool"] == messages(project, FROM_THE_POOL)


def test_a_first_record_from_the_pool_of_native_threads(project):
    """A listener that a thread of `tpool` has started never runs, and `close` lets the next record start another."""
    assert ["from the pool", "from a green thread", "after close"] == messages(project, FIRST_FROM_THE_POOL)
