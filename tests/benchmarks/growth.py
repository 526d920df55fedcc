"""
Whether the handler gets slower as its file grows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, alternate, count_rows, folder, middle, ratio
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
    Log into files of different sizes, by turns.
    """
    sizes: list[int] = options.pick([1_000, 1_000_000, 10_000_000], [1_000, 1_000_000])
    with folder() as path:
        files = {f"{size:,} rows": os.path.join(path, str(size)) for size in sizes}
        for size, file in zip(sizes, files.values(), strict=True):
            begin = time.perf_counter()
            _prefill(file, size)
            report.say(f"{size:,} rows: {os.path.getsize(file) / 1e6:,.0f} MB in {time.perf_counter() - begin:.0f} s")
        cases: dict[str, Callable[[], float]] = {
            name: lambda file=file: _log(report, file)  # type: ignore[misc]
            for name, file in files.items()
        }
        alternate(cases, 1)
        samples = alternate(cases, options.times(9, 3))
    first, *_, last = files
    rows = [[name, *ratio(samples, name, first, max), middle(samples[name]), max(samples[name])] for name in files]
    columns = ["in the file before", "ratio median", "ratio best", "rows/s median", "rows/s best"]
    report.table(f"durable rows per second, {COUNT:,} records, retention off", columns, rows)
    report.say("retention on: see the benchmark of that name")
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


def _log(report: Report, file: str) -> float:
    before = count_rows(file)
    handler = SQLiteHandler(file)
    logger = logger_with(handler)
    begin = time.perf_counter()
    args(logger, COUNT)
    handler.flush(60)
    seconds = time.perf_counter() - begin
    handler.close()
    report.verify(file, COUNT, count_rows(file) - before)
    return COUNT / seconds
