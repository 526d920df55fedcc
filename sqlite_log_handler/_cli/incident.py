"""
The incident of the demo: the log of a small web shop whose pages fail, made so that each run makes the same log.

Theory of operation
===================

No thread and no clock takes part. A model of the shop hands out its ten database connections to one request after the
other, and each request notes what it logs and when. The notes go through two real handlers, one for each release, in
the order of their times. Nothing is committed while the busy moment lasts, so the queue overflows at the same record
each time. The processes and the drop warning have the time at which the log was made, so at the end they get times of
the story.

What happened: release 2.15.0 keeps its connection while it charges a card. The provider of payments had been slow
before, and nobody noticed. Now ten slow charges take all connections, and every page waits for one in vain.
"""

import contextlib
import heapq
import itertools
import logging
import random
import sqlite3
from operator import attrgetter
from typing import Any, Final

from sqlite_log_handler._logfile.schema import HOUR_US, OWN_LOGGER
from sqlite_log_handler._write.handler import SQLiteHandler

# All times are seconds after the end of the log, so they are negative.
_BEGIN: Final = -90 * 60.0
_RELEASE: Final = -25 * 60.0
_FIRST_SLOW: Final = (-58 * 60.0, -54 * 60.0)
_SLOW: Final = -12 * 60.0
_BUSY: Final = -5 * 60.0 + 7
_IDLE: Final = _BUSY + 0.5

_CONNECTIONS: Final = 10
_LONGEST_WAIT: Final = 5.0  # for a connection
_TIMEOUT: Final = 30.0  # for a charge
_REQUESTS_A_SECOND: Final = 4.0
_THREADS: Final = 32
_BUSY_RECORDS: Final = 14_000
_BUSY_SECONDS: Final = 0.4
_CAPACITY: Final = 4_000
_IN_THE_LOOP: Final = "waiting for a connection, try %d"

# (share of the requests, method, path, seconds of work with a connection)
_PAGES: Final = (
    (0.55, "GET", "/products/{}", 0.012),
    (0.80, "GET", "/cart", 0.008),
    (0.90, "GET", "/orders", 0.020),
    (1.00, "POST", "/checkout", 0.030),
)

# The errors of the shop, and the traceback that each has there.
_PoolTimeout: Final = type("PoolTimeout", (Exception,), {"__module__": "shop.db"})
_ReadTimeout: Final = type("ReadTimeout", (Exception,), {"__module__": "httpx"})
_TRACEBACKS: Final[dict[type[Exception], str]] = {
    _PoolTimeout: """\
Traceback (most recent call last):
  File "/srv/shop/web.py", line 61, in handle
    with db.pool.connection(timeout=5) as connection:
  File "/srv/shop/db.py", line 44, in connection
    raise PoolTimeout(f"none of {self.size} connections came free within {timeout} s")
shop.db.PoolTimeout: none of 10 connections came free within 5 s""",
    _ReadTimeout: """\
Traceback (most recent call last):
  File "/srv/shop/checkout.py", line 88, in pay
    order.charge_id = payments.charge(order)
  File "/srv/shop/payments.py", line 37, in charge
    answer = self.client.post("/v1/charges", json=order.charge, timeout=30)
httpx.ReadTimeout: no answer of pay.example within 30 s""",
}


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - the standard library's name
        return _TRACEBACKS[ei[0]]


_FORMATTER: Final = _Formatter()


class _Shop:
    """The shop: what it logs, in the order in which things begin."""

    def __init__(self) -> None:
        # Of `random`, only `random()` gives the same numbers in each version of Python.
        self._chance = random.Random(7)  # noqa: S311 - no secret
        self._free = [0.0] * _CONNECTIONS
        self.records: list[logging.LogRecord] = []

    def say(
        self, at: float, logger: str, level: int, where: str, template: str, *arguments: object, **more: Any
    ) -> None:
        """Log a record at a time of the story; `where` is module:line:function, and `more` its attributes."""
        module, line, function = where.split(":")
        error = more.pop("error", None)
        info = (error, error(), None) if error else None
        path = f"/srv/shop/{module}.py"
        record = logging.LogRecord(f"shop.{logger}", level, path, int(line), template, arguments, info, function)
        record.created = at
        record.thread = int(more.get("request_id", "r-0")[2:]) % _THREADS
        record.threadName = f"worker-{record.thread}"
        vars(record).update(more)
        self.records.append(record)

    def live(self) -> None:
        """Log the whole story."""
        self._start(_BEGIN, "2.14.0")
        self.say(_RELEASE - 2, "app", logging.INFO, "app:40:stop", "SIGTERM: finishing %d requests, then ending", 2)
        self._start(_RELEASE, "2.15.0")
        self._free = [_BEGIN] * _CONNECTIONS
        at = _BEGIN + 2
        for number in itertools.count(1):
            at += (0.2 + 1.6 * self._chance.random()) / _REQUESTS_A_SECOND
            if at >= 0:
                break
            if not _RELEASE - 3 < at < _RELEASE + 2:
                self._serve(at, number)
        for minute in range(int(_BEGIN // 60) + 1, 0):
            at = minute * 60.0 + 0.5
            self.say(at, "stock", logging.INFO, "stock:19:refresh", "stock of %d products read", 1_240 + minute % 7)
        for number in range(_BUSY_RECORDS):  # a loop without a pause
            at = _BUSY + number / _BUSY_RECORDS * _BUSY_SECONDS
            self.say(at, "db", logging.DEBUG, "db:36:connection", _IN_THE_LOOP, number)

    def _start(self, at: float, version: str) -> None:
        self.say(at + 0.3, "app", logging.INFO, "app:12:main", "shop %s starts with %d threads", version, 32)
        self.say(at + 0.4, "db", logging.INFO, "db:21:open", "pool opened: %d connections", _CONNECTIONS)
        self.say(at + 0.5, "payments", logging.INFO, "payments:14:open", "charges go to %s", "pay.example")

    def _charge_seconds(self, at: float) -> float:
        luck = self._chance.random()
        if at >= _SLOW:
            # It becomes slow within two minutes.
            return (0.2 + 0.2 * luck) + min(1.0, (at - _SLOW) / 120) * (8 + 40 * luck)
        if _FIRST_SLOW[0] <= at < _FIRST_SLOW[1]:
            return 6 + 20 * luck
        return 0.15 + 0.2 * luck

    def _serve(self, at: float, number: int) -> None:
        luck = self._chance.random()
        _, method, path, work = next(page for page in _PAGES if luck < page[0])
        path = path.format(1 + int(self._chance.random() * 300))
        more = {"request_id": f"r-{number:05}", "method": method, "path": path}
        begin = max(at, self._free[0])
        waited = begin - at
        if waited > 0.5:  # noqa: PLR2004 - seconds
            what, size = "no free connection, %d of %d in use", _CONNECTIONS
            self.say(at + 0.5, "db", logging.WARNING, "db:39:connection", what, size, size, **more)
            if waited > _LONGEST_WAIT:
                self._answer(at + _LONGEST_WAIT, at, 500, more, error=_PoolTimeout)
                return
        work *= 0.6 + 0.8 * self._chance.random()
        heapq.heapreplace(self._free, begin + work)
        end, status = begin + work, 200
        if path == "/checkout":
            end, status = self._check_out(end, number, more)
        self._answer(end, at, status, more)

    def _check_out(self, at: float, number: int, more: dict[str, Any]) -> tuple[float, int]:
        """Charge a card. In the new release the connection is held meanwhile."""
        order = 48_000 + number
        held = at >= _RELEASE
        what = "order %d reserved, charging it in its transaction" if held else "order %d reserved, charging it"
        self.say(at, "checkout", logging.DEBUG, f"checkout:{86 if held else 81}:pay", what, order, **more)
        seconds = self._charge_seconds(at)
        end = at + min(seconds, _TIMEOUT)
        if held:
            self._free.remove(at)
            self._free.append(end)
            heapq.heapify(self._free)
        if seconds > _TIMEOUT:
            what = "order %d is not paid"
            self.say(end, "checkout", logging.ERROR, "checkout:93:pay", what, order, **more, error=_ReadTimeout)
            return end + 0.004, 502
        if seconds > 1:
            text = "%s answered after %.1f s"
            self.say(end, "payments", logging.WARNING, "payments:41:charge", text, "pay.example", seconds, **more)
        self.say(end + 0.002, "checkout", logging.INFO, "checkout:97:pay", "order %d paid", order, **more)
        return end + 0.004, 200

    def _answer(self, at: float, since: float, status: int, more: dict[str, Any], **error: Any) -> None:
        if error:
            said = more["method"], more["path"]
            self.say(at, "web", logging.ERROR, "web:74:handle", "%s %s failed", *said, **more, **error)
        text, values = "%s %s %d in %d ms", {"status": status, "duration_ms": round((at - since) * 1000)}
        said = more["method"], more["path"], *values.values()
        self.say(at + 0.001, "web", logging.INFO, "web:80:handle", text, *said, **more, **values)


def make(path: str, end: float) -> int:
    """Make the log of an incident that ends at `end`, in seconds since 1970; return its number of log calls."""
    shop = _Shop()
    shop.live()
    records = sorted((record for record in shop.records if record.created < 0), key=attrgetter("created"))
    own, quiet = logging.getLogger(OWN_LOGGER), logging.NullHandler()
    own.addHandler(quiet)  # the drop warning is for the log only
    old = [record for record in records if record.created < _RELEASE]
    try:
        for pid, begin, some in ((4711, _BEGIN, old), (5203, _RELEASE, records[len(old) :])):
            _write(path, some, end)
            _set_clock(path, end, pid, begin)
    finally:
        own.removeHandler(quiet)
    return len(records)


def _write(path: str, records: list[logging.LogRecord], end: float) -> None:
    # It commits at `flush` and `close`, and never by itself.
    handler = SQLiteHandler(
        path, capacity=_CAPACITY, batch_size=_CAPACITY + 1, flush_interval=3_600, flush_level=logging.CRITICAL
    )
    # A minute is one commit. `close` writes what was dropped, so the gap stands right behind the busy moment.
    for (_, is_busy), some in itertools.groupby(records, _minute_and_moment):
        # The loop comes last, because nothing promises where the gap stands among other rows of the same moment.
        for record in sorted(some, key=lambda record: record.msg == _IN_THE_LOOP) if is_busy else some:
            record.created += end
            handler.setFormatter(_FORMATTER if record.exc_info else None)
            handler.handle(record)
        if is_busy:
            handler.close()
        handler.flush()
    handler.close()


def _minute_and_moment(record: logging.LogRecord) -> tuple[float, bool]:
    return record.created // 60, _BUSY <= record.created < _IDLE


def _set_clock(path: str, end: float, pid: int, begin: float) -> None:
    """Give the process that has just written, and the drop warning, times of the story."""
    connection = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE processes SET host = 'shop-1', pid = ?, started_us = ?, program = 'shop' "
            "WHERE id = (SELECT max(id) FROM processes)",
            (pid, round((end + begin) * 1e6)),
        )
        own_us = round((end + _IDLE) * 1e6)
        # The handler measured its last commit by a clock of its own.
        connection.execute(
            "UPDATE records SET created_us = ?, message = substr(message, 1, instr(message, '; last commit')) || ? "
            "WHERE source_id IN (SELECT id FROM sources WHERE logger = ?)",
            (own_us, f" last commit {_BUSY % 60:.1f} s ago", OWN_LOGGER),
        )
        hour = own_us // HOUR_US * 3_600
        connection.execute("UPDATE volume_folded SET hour = ? WHERE logger = ?", (hour, OWN_LOGGER))
        connection.execute("COMMIT")
