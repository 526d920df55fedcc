"""
Whether the handler gets slower as its file grows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, alternate, folder, middle, ratio
from tests.benchmarks.load import args, logger_with

COUNT = 50_000
_FILL = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO records (created_us, levelno, source_id, process_id, thread, thread_name, message)
SELECT :since + n * 1000, 20, 1, 1, 140000000000000, 'MainThread',
    'order ' || n || ' paid by c-17, nothing is left to do'
FROM numbers
"""


def run(report: Report, options: Options) -> None:
    """
    Log into files of different sizes, by turns, with everything kept and with `max_rows` at the size that they have.
    """
    sizes: list[int] = options.pick([1_000, 1_000_000, 10_000_000], [1_000, 1_000_000])
    cases: dict[str, Callable[[], float]] = {}
    with folder() as path:
        for size in sizes:
            for kind, max_rows in (("off", None), ("on", size)):
                file = os.path.join(path, f"{size}-{kind}")
                begin = time.perf_counter()
                _prefill(file, size)
                seconds = time.perf_counter() - begin
                name = f"{size:,} rows, retention {kind}"
                report.say(f"{name}: {os.path.getsize(file) / 1e6:,.0f} MB in {seconds:.0f} s")
                cases[name] = partial(_log, report, file, max_rows)
        alternate(cases, 1)
        samples = alternate(cases, options.times(9, 3))
    names = list(cases)
    rows = []
    for at, name in enumerate(names):
        rows.append([name, *ratio(samples, name, names[at % 2], max), middle(samples[name]), max(samples[name])])
    columns = ["in the file before", "ratio median", "ratio best", "rows/s median", "rows/s best"]
    report.table(f"durable rows per second, {COUNT:,} records", columns, rows)
    for first, last in zip(names[:2], names[-2:], strict=True):
        report.bound(f"durable rate at {last} against {first}", ">=", 0.9, *ratio(samples, last, first, max))


def _prefill(file: str, size: int) -> None:
    handler = SQLiteHandler(file)
    logger_with(handler).info("the first one gives a source and a process")
    handler.close()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        since = round((time.time() - size / 1000 - 3600) * 1e6)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute(_FILL, {"count": size - 1, "since": since})
        connection.execute("COMMIT")


def _log(report: Report, file: str, max_rows: int | None) -> float:
    before = _last_id(file)
    handler = SQLiteHandler(file, max_rows=max_rows)
    logger = logger_with(handler)
    begin = time.perf_counter()
    args(logger, COUNT)
    handler.flush(60)
    seconds = time.perf_counter() - begin
    handler.close()
    report.verify(file, COUNT, _last_id(file) - before)
    return COUNT / seconds


def _last_id(file: str) -> int:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT max(id) FROM records").fetchone()[0])
