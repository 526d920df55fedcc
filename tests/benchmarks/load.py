"""
What is logged, and what goes on beside it: busy threads, and another process that holds the database's lock.
"""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, repeat
from typing import Any

# Beside a time, what a text log has when it is set up with some care.
TEXT = "%(asctime)s %(levelname)s %(name)s %(process)d %(threadName)s %(filename)s:%(lineno)d %(message)s"
# The least that a text log has.
SHORT_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class Floor(logging.Handler):
    """Do nothing: what a call costs with it is what the logging module takes for itself."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Take the record, and leave it."""
        return True


class Nothing(logging.Handler):
    """Do nothing, at the far end of a queue; only count."""

    def __init__(self) -> None:
        super().__init__()
        self.handled = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Count the record."""
        self.handled += 1
        return True


def logger_with(handler: Any) -> logging.Logger:
    """Return the logger that every benchmark logs to, with this handler only."""
    logger = logging.getLogger("shop.orders")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger


def no_args(logger: Any, count: int) -> None:
    """Log a constant."""
    info = logger.info
    for _ in repeat(None, count):
        info("order paid, the customer was told, nothing is left to do")


def args(logger: Any, count: int) -> None:
    """Log with two arguments."""
    info = logger.info
    for number in range(count):
        info("order %d paid by %s, nothing is left to do", number, "c-17")


def extra(logger: Any, count: int) -> None:
    """Log with two attributes."""
    info = logger.info
    for number in range(count):
        info("order %d paid", number, extra={"amount": 19.9, "customer": "c-17"})


def traceback(logger: Any, count: int) -> None:
    """Log an exception, each time a new one."""
    for number in range(count):
        try:
            {"price": 1}["tea"]
        except KeyError:
            logger.info("order %d failed", number, exc_info=True)


SHAPES: dict[str, Callable[[Any, int], None]] = {
    "no args": no_args,
    "args": args,
    "extra": extra,
    "traceback": traceback,
}


def in_threads(threads: int, work: Callable[[int], Any]) -> float:
    """
    Run `work(count)` in so many threads at once; return the seconds from the start of the first to the last's end.
    """
    if threads == 1:
        begin = time.perf_counter()
        work(0)
        return time.perf_counter() - begin
    barrier = threading.Barrier(threads + 1)

    def run(number: int) -> None:
        barrier.wait()
        work(number)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    for thread in running:
        thread.join()
    return time.perf_counter() - begin


@contextlib.contextmanager
def busy(threads: int) -> Iterator[None]:
    """Have threads of this process burn CPU in Python code."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            for number in range(1_000):
                _ = number * number

    running = [threading.Thread(target=burn) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()


_LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for line in sys.stdin:
    connection.execute("BEGIN IMMEDIATE" if line == "lock\\n" else "ROLLBACK")
    print("done", flush=True)
"""


class Locker:
    """
    Another process, which locks the database when it is told to. POSIX locks are the process's, so it must be another.
    """

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOCKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _tell(self, word: str) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(word + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "done\n":
            raise RuntimeError(f"the locking process could not {word}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock."""
        self._tell("lock")
        try:
            yield
        finally:
            self._tell("unlock")

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


_TEMPLATES = (
    ("INFO", "shop.web.access", "middleware.py", 88, "GET /api/v2/orders/{id} 200 {ms:.1f}ms {bytes}B ({os})"),
    ("INFO", "shop.web.access", "middleware.py", 88, "POST /api/v2/carts/{hex}/items 201 {ms:.1f}ms {bytes}B"),
    ("INFO", "shop.orders", "orders.py", 412, "order {id} paid by customer c-{small}, {ms:.2f} EUR, method card"),
    ("INFO", "shop.jobs.mail", "mail.py", 57, "sent confirmation of order {id} to {name}@example.org in {ms:.0f} ms"),
    ("DEBUG", "shop.db.pool", "pool.py", 231, "connection {small} checked out, {tiny} in use, {tiny} idle"),
    ("DEBUG", "shop.db.query", "query.py", 119, "SELECT sku FROM items WHERE id = {id} [{ms:.2f} ms, {tiny} rows]"),
    ("DEBUG", "shop.cache", "cache.py", 40, "miss order:{id}:v{tiny}"),
    ("DEBUG", "shop.cache", "cache.py", 46, "stored order:{id}:v{tiny} for {small} s ({bytes} bytes)"),
    ("WARNING", "shop.stock", "stock.py", 173, "stock of sku {hex} is low: {tiny} left, reorder level is {small}"),
    ("WARNING", "shop.payments.client", "client.py", 301, "attempt {tiny} to reach pay.example.com timed out"),
    ("ERROR", "shop.payments", "payments.py", 208, "payment of order {id} refused: code {small}, request {hex}-{hex}"),
    ("INFO", "shop.worker", "worker.py", 66, "task shop.tasks.reindex[{hex}-{hex}-{hex}] succeeded in {ms:.3f}s: None"),
)  # fmt: skip


def realistic(count: int, files: tuple[str, ...] = ()) -> Iterator[logging.LogRecord]:
    """Make records as a web shop logs them, the same at each call; or with the lines of text files as messages."""
    chance = random.Random(4)
    lines = cycle([line for file in files for line in _lines(file)] or [""])
    for _ in range(count):
        level, logger, file, lineno, template = chance.choice(_TEMPLATES)
        message = next(lines) or template.format(
            id=chance.randrange(10**6, 10**7),
            small=chance.randrange(100, 1000),
            tiny=chance.randrange(1, 30),
            bytes=chance.randrange(200, 60_000),
            ms=chance.expovariate(0.05),
            hex=f"{chance.getrandbits(32):08x}",
            name=chance.choice(("ada", "grace.hopper", "linus", "margaret.h")),
            os=chance.choice(("X11; Linux x86_64", "Macintosh; Intel Mac OS X 10_15_7", "Windows NT 10.0; Win64")),
        )
        levelno = logging.getLevelName(level)
        yield logging.LogRecord(logger, levelno, f"/srv/shop/app/{file}", lineno, message, (), None, func="run")


def _lines(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        yield from filter(None, (line.rstrip("\n") for line in file))
