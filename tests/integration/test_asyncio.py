"""
asyncio: names of tasks, and an event loop that is not held up.
"""

from __future__ import annotations

import sys

LAG = """
import asyncio
import logging
import sqlite3
import sys
import time

from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler("lag-log.db", flush_interval=0.01, close_timeout=60)
logger = logging.getLogger("lag")
logger.addHandler(handler)
logger.setLevel("INFO")
logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())


async def log(rounds):
    for _ in range(rounds):
        for _ in range(20):
            logger.info("a record")
        await asyncio.sleep(0)


async def measure(rounds):
    lags = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(log(rounds))
        while not (lags and task.done()):
            before = time.monotonic()
            await asyncio.sleep(0.002)
            lags.append(time.monotonic() - before - 0.002)
    return sorted(lags)[len(lags) * 99 // 100]


def run(rounds):
    unlocked = asyncio.run(measure(rounds))
    assert handler.flush()  # so that the books of the last commit are closed
    other = sqlite3.connect("lag-log.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    before = handler.stats()
    locked = asyncio.run(measure(rounds))
    after = handler.stats()
    other.execute("ROLLBACK")
    other.close()
    assert after.written == before.written, "nothing was to be written while the file was locked"
    assert after.seen > before.seen
    print(f"p99 of the lag: {unlocked * 1e3:.2f} ms unlocked, {locked * 1e3:.2f} ms locked")


run(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
assert handler.flush()
"""


def test_page(project):
    """The page can be followed word for word: from Python 3.12 on each row says which task it is of."""
    project.follow()

    names = ["order-41", "order-41", "order-42", "order-42"] if sys.version_info >= (3, 12) else [None] * 4
    [rows] = project.answers
    assert names == [task_name for task_name, _, _ in rows]
    assert ["paid", "paid", "paying", "paying"] == sorted(message for _, _, message in rows)


def test_the_loop_is_not_held_up(project):
    """
    While the file is locked, the event loop goes on: thousands of records are logged, and none is written.

    How long the loop is held up is printed with `-s`, and not judged: machines are noisy.
    """
    print(project.python(LAG).strip())

    [(count,)] = project.query("SELECT count(*) FROM logs", name="lag-log.db")
    assert count > 1_000
