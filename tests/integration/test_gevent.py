"""
gevent, whose monkey patching makes a greenlet of the listener's thread.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("gevent")

PROGRAM = """
from gevent import monkey

monkey.patch_all()

import logging

import gevent

from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler("app-log.db", close_timeout=60)
logger = logging.getLogger("shop")
logger.setLevel("INFO")
logger.addHandler(handler)


def work(number):
    for index in range(100):
        logger.info("%d %d", number, index)
        gevent.sleep(0)


gevent.joinall([gevent.spawn(work, number) for number in range(10)])
while handler.stats().queued:
    gevent.sleep(0.01)
stats = handler.stats()
assert (1000, 1000, 0) == (stats.seen, stats.written, stats.dropped_total), stats
handler.close()
logger.info("10 0")
"""


def test_greenlets(project):
    """Each record of each greenlet is written while the program runs, in order, and what is logged last at the exit."""
    (project.folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    assert "" == project.run("python program.py")

    stored = [tuple(map(int, message.split())) for (message,) in project.query("SELECT message FROM logs ORDER BY id")]
    for number in range(10):
        assert list(range(100)) == [index for worker, index in stored if worker == number]
    assert 1001 == len(stored)


FROM_THE_POOL = """
from gevent import monkey

monkey.patch_all()

import logging

import gevent

from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler("app-log.db", flush_interval=0.001, close_timeout=1)
logger = logging.getLogger("shop")
logger.setLevel("INFO")
logger.addHandler(handler)
gevent.get_hub().threadpool.apply(logger.info, ["from the pool"])
logger.info("from a greenlet")
gevent.sleep(1)
assert 2 == handler.stats().queued
handler.close()
logger.info("after close")
while handler.stats().queued:
    gevent.sleep(0.01)
"""


def test_a_first_record_from_the_thread_pool(project):
    """A listener that a thread of the pool has started never runs, and `close` lets the next record start another."""
    (project.folder / "program.py").write_text(FROM_THE_POOL, encoding="utf-8")
    assert "" == project.run("python program.py")

    messages = project.query("SELECT message FROM logs ORDER BY id")
    assert [("from the pool",), ("from a greenlet",), ("after close",)] == messages


MADE_BEFORE = """
import gevent.monkey

from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler("app-log.db", close_timeout=60)
gevent.monkey.patch_all()

import logging
import sqlite3
import subprocess
import sys

import gevent

WRITES = '''
import logging, sys
from sqlite_log_handler import SQLiteHandler
logging.getLogger().addHandler(SQLiteHandler("app-log.db", flush_interval=0.001))
logging.warning("begins")
for number in iter(sys.stdin.readline, ""):
    logging.warning(number)
'''
other = subprocess.Popen([sys.executable, "-c", WRITES], stdin=subprocess.PIPE, text=True)
logger = logging.getLogger("shop")
logger.setLevel("INFO")
logger.addHandler(handler)


def work(number):
    for index in range(200):
        logger.info("%d %d", number, index)
        other.stdin.write("line\\n")
        other.stdin.flush()
        if index % 10 == 0:
            assert handler.flush()
        if index % 50 == 0:
            subprocess.run(["true"], preexec_fn=lambda: None)
        gevent.sleep(0)


gevent.joinall([gevent.spawn(work, number) for number in range(10)])
other.stdin.close()
other.wait()
"""


def test_a_handler_that_was_made_before_gevent_patched(project):
    """
    Greenlets flush and fork while another process writes, though the locks of the handler are not those of gevent.

    The thread slept while it waited for its turn, or waited for a file to be closed before a fork. gevent then had
    another greenlet run, which waited for the commit lock: the program stood still for ever. So did gunicorn's worker
    class `gevent`.
    """
    (project.folder / "program.py").write_text(MADE_BEFORE, encoding="utf-8")
    assert "" == project.run("python program.py")

    assert [(2000,)] == project.query("SELECT count(*) FROM logs WHERE logger = 'shop'")
