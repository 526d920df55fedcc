"""
A log of a shop, and ways to run commands on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys

import pytest
from command_line import BEGIN, NAUGHTY, failed, log_of, record

import sqlite_log_handler
from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler.__main__ import main


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A log of a shop, with levels, a traceback, attributes and a gap."""
    path = tmp_path_factory.mktemp("shop") / "app-log.db"
    handler = SQLiteHandler(
        path,
        capacity=20,
        reserve=0.5,
        batch_size=100,
        flush_interval=3_600,
        flush_level=logging.CRITICAL,
        close_timeout=60,
    )
    handler.handle(record("started"))
    handler.handle(record("order 7 paid", name="shop.orders", seconds=1, order=7, customer="c 17"))
    handler.handle(record("order 8 failed", logging.ERROR, "shop.orders", seconds=2, exc_info=failed()))
    handler.flush()
    for number in range(25):
        handler.handle(record(f"miss {number}", logging.DEBUG, "shop.cache", seconds=3 + number / 10))
    handler.close()  # which writes the drop warning
    log_of(path, record("stock is low", logging.WARNING, "shop.stock", seconds=9))
    begin = int(BEGIN.timestamp())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # The drop warning was logged now; here it is to have been logged then.
        connection.execute("UPDATE records SET created_us = ? WHERE id = 14", [begin * 1_000_000 + 6_500_000])
        connection.execute("UPDATE volume_folded SET hour = ?", [begin // 3600 * 3600])
    return path


@pytest.fixture
def run(capsys, monkeypatch, shop):
    """Run a command on the log of the shop, or on another, and return its exit status and the lines that it prints."""
    monkeypatch.setenv("SQLITE_LOG_DB", str(shop))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words, stderr=""):
        try:
            status = main(words)
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        assert (err == stderr) if isinstance(stderr, str) else stderr.search(err)
        return status, out.splitlines()

    return run


@pytest.fixture
def naughty(make_handler, tmp_path):
    """A log in which every text that a stranger can write is naughty."""
    path = tmp_path / "naughty.db"
    handler = make_handler(path, capacity=2, batch_size=100, flush_interval=3_600, flush_level=logging.CRITICAL)
    one = record(NAUGHTY, logging.ERROR, NAUGHTY, exc_info=failed(), stack_info=NAUGHTY, pathname=NAUGHTY)
    vars(one).update({"threadName": NAUGHTY, "processName": NAUGHTY, NAUGHTY: NAUGHTY, "funcName": NAUGHTY})
    one.exc_text = NAUGHTY
    one.exc_info = None
    for _ in range(10):
        handler.handle(one)
    handler.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE levels SET name = ?", ["\x1b[2J\u202e\n"])
        connection.execute("UPDATE drops SET cause = ?", ["\x1b[2J\u202e\n"])
        connection.execute("UPDATE records SET exc_type = ?", ["\x1b[2J\u202e\n"])
    return path


# Started in the background by a shell, a program ignores Ctrl-C, and inherits that to its children.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sqlite_log_handler.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def start():
    """Start a command as a process of its own; with `closed`, nobody reads what it prints, from the start on."""
    with contextlib.ExitStack() as stack:

        def start(*words, closed=False):
            package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
            out = subprocess.PIPE
            if closed:
                reading, out = os.pipe()
                os.close(reading)
                stack.callback(os.close, out)
            process = subprocess.Popen(
                [sys.executable, "-c", INTERRUPTIBLE, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": package},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def busy_log(path):
    """A log that another process is filling, until the test is over."""
    program = """
import itertools, logging, sys
from sqlite_log_handler import SQLiteHandler
handler = SQLiteHandler(sys.argv[1], capacity=2_000, flush_interval=0.01, close_timeout=60)
logger = logging.getLogger("busy")
logger.setLevel(1)
logger.addHandler(handler)
logger.propagate = False
logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
for number in itertools.count():
    logger.log((number % 5 + 1) * 10, "order %d", number, extra={"order": number})
    if number == 100:
        handler.flush()
        print("begun", flush=True)
"""
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": package},
    ) as process:
        try:
            assert b"begun\n" == process.stdout.readline()
            yield path
            assert None is process.poll()
        finally:
            process.kill()
