"""
More records than the writer can take: what is accepted and dropped, and what is left of the program's own work.

The writer is slowed down to a rate that a disk in trouble may have, so that ten times as much can be offered at all.
Two threads of the program do work of their own and log in between.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, count_rows, folder, percentile, rss
from tests.benchmarks.load import Floor, in_threads, logger_with

RATE = 5_000
THREADS = 2
SLICE = 0.01


def run(report: Report, options: Options) -> None:
    """Offer one, two, five and ten times the rate."""
    seconds = options.pick(5.0, 2.0)
    alone, _, _ = _program(None, 0, seconds)
    rows = []
    for times in (1, 2, 5, 10):
        floor, _, _ = _program(logger_with(Floor()), times * RATE, seconds)
        with folder() as path:
            handler = SQLiteHandler(os.path.join(path, "app-log.db"), capacity=RATE)
            _slow_down(handler)
            before = rss()
            work, offered, latencies = _program(logger_with(handler), times * RATE, seconds)
            grown = rss() - before
            handler.flush(60)
            stats = handler.stats()
            handler.close()
            written = count_rows(handler.filename, "logs WHERE logger = 'shop.orders'")
            report.verify(f"{times} x", offered, stats.seen)
            report.verify(f"{times} x", stats.written, written)
            latencies.sort()
            rows.append([
                f"{times} x {RATE:,} records/s", round(offered / seconds), stats.written, stats.dropped_total,
                f"{stats.dropped_total / offered:.0%}", percentile(latencies, 0.5), percentile(latencies, 0.999),
                grown / 1e6, work / alone, floor / alone,
            ])  # fmt: skip
    columns = [
        "offered", "came to, per s", "written", "dropped", "share", "us p50", "us p99.9", "MB grown", "own work left",
        "the same at the floor",
    ]  # fmt: skip
    report.say("own work left: against a run in which nothing is logged; at the floor the handler does nothing")
    title = f"a writer that takes {RATE:,} rows/s, a queue of {RATE:,}, {THREADS} threads, {seconds:g} s"
    report.table(title, columns, rows)


def _slow_down(handler: SQLiteHandler) -> None:
    writer = handler.listener.committer.writer
    write = writer.write

    def slow(batch: Any, /) -> None:
        begin = time.monotonic()
        write(batch)
        time.sleep(max(0, len(batch.rows) / RATE - (time.monotonic() - begin)))

    writer.write = slow  # type: ignore[method-assign]


def _program(logger: Any, rate: int, seconds: float) -> tuple[int, int, list[float]]:
    """
    Work for so long, logging `rate` records a second; return the work done, the records and each call's microseconds.
    """
    lock = threading.Lock()
    total = [0, 0]
    latencies: list[float] = []
    each = int(rate * SLICE / THREADS)

    def run_one(_: int) -> None:
        now, work, calls, times = time.perf_counter, 0, 0, []
        begin = now()
        due = begin
        while now() - begin < seconds:
            due += SLICE
            for number in range(each):
                start = now()
                logger.info("order %d paid by %s, nothing is left to do", number, "c-17")
                times.append((now() - start) * 1e6)
            calls += each
            while now() < due:
                sum(range(500))
                work += 1
        with lock:
            total[0] += work
            total[1] += calls
            latencies.extend(times)

    in_threads(THREADS, run_one)
    return total[0], total[1], latencies
