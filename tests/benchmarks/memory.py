"""
Memory: of a full queue, and of a process whose queue is full of records of any size, until they are written.

Each number comes from a process of its own.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import tracemalloc
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, count_rows, folder, middle, python, rss, status
from tests.benchmarks.load import logger_with

COUNT = 100_000
MIB = 1 << 20
SIZES = (100, 1_000, 64_000, 260_000)
# One, one, two, three and four bytes of UTF-8 a character; one, one, two and four bytes in memory.
LETTERS = {"ASCII": "x", "Latin-1": "\xe4", "Greek": "\u03bb", "emoji": "\U0001f600"}


def run(report: Report, options: Options) -> None:
    """Measure in fresh processes."""
    if not os.path.exists("/proc/self/status"):
        report.say("not measured: no /proc/self/status on this system")
        return
    _full_queue(report, options)
    _any_size(report, options)


def _child(*arguments: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(python("-m", "tests.benchmarks.memory", *map(str, arguments)))
    return result


def _full_queue(report: Report, options: Options) -> None:
    resident, traced = [], []
    for _ in range(options.times(5, 2)):
        found = _child("full", "rss")
        report.verify("full queue", COUNT, found["queued"])
        resident.append(found["bytes"] / 1e6)
        found = _child("full", "tracemalloc")
        report.verify("full queue", COUNT, found["queued"])
        traced.append(found["bytes"] / 1e6)
    estimate = found["estimate"] / 1e6
    rows = [
        ["resident", middle(resident), min(resident), middle(resident) * 1e6 / COUNT],
        ["tracemalloc", middle(traced), min(traced), middle(traced) * 1e6 / COUNT],
        ["queued_bytes, its own estimate", estimate, estimate, estimate * 1e6 / COUNT],
    ]
    report.table(f"a full queue, {COUNT:,} records of 50 characters", ["", "MB median", "MB best", "bytes a row"], rows)
    report.bound("full queue, 100,000 records of 50 characters", "<=", 33, middle(resident), min(resident), unit=" MB")


def _any_size(report: Report, options: Options) -> None:
    rows = []
    worst: list[float] = []
    best: list[float] = []
    sizes = options.pick(SIZES, (1_000, 260_000))
    for letters in LETTERS:
        for size in sizes:
            rounds = [_child("any", letters, size) for _ in range(options.times(2, 1))]
            for found in rounds:
                report.verify(f"{size:,} x {letters}", found["accepted"], found["found"])
                if not found["dropped"]:
                    report.failures.append(f"memory: {size:,} x {letters}: the queue was never full")
            full, peak = ([found[key] / 1e6 for found in rounds] for key in ("full", "peak"))
            worst.append(middle(peak))
            best.append(min(peak))
            rows.append([letters, size, rounds[0]["accepted"], middle(full), middle(peak), min(peak)])
    columns = ["characters", "characters each", "records", "MB when full", "MB peak, drained too", "best"]
    report.table("capacity_bytes=64 MiB, over the idle process", columns, rows)
    report.bound(
        "any record size, capacity_bytes=64 MiB, over an idle process", "<=", 80, max(worst), max(best), unit=" MB",
        note="the worst of the table",
    )  # fmt: skip


def full(kind: str) -> dict[str, Any]:
    """Fill a queue to the last row, which the reserve's level may take; nobody consumes."""
    with folder() as path:
        handler = SQLiteHandler(os.path.join(path, "app-log.db"), capacity=COUNT, fair_share=1)
        logger = logger_with(handler)
        handler.queue.open()
        for _ in range(100):
            logger.warning("%050d", 0)
        handler.queue.reset()
        handler.queue.open()
        gc.collect()
        if kind == "tracemalloc":
            tracemalloc.start()
        before = rss() if kind == "rss" else tracemalloc.get_traced_memory()[0]
        for number in range(COUNT):
            logger.warning("%050d", number)
        gc.collect()
        after = rss() if kind == "rss" else tracemalloc.get_traced_memory()[0]
        result = {
            "bytes": after - before,
            "queued": handler.queue.queued,
            "estimate": handler.stats().queued_bytes,
        }
        handler.queue.reset()
        handler.close()
        return result


def any_size(letters: str, size: int) -> dict[str, Any]:
    """Fill the bytes of a queue, then write it all."""
    with folder() as path:
        # A flush interval that never comes, so that the queue is full before anything is written.
        handler = SQLiteHandler(
            os.path.join(path, "app-log.db"),
            capacity=10_000_000,
            fair_share=1,
            batch_size=10_000_000,
            max_record_bytes=MIB // 2,
            flush_interval=3600,
        )
        logger = logger_with(handler)
        logger.warning("the first one")
        handler.flush()
        gc.collect()
        idle = rss()
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the peak begins here (https://man7.org/linux/man-pages/man5/proc.5.html)
        text = LETTERS[letters] * (size - 8)
        while not handler.dropped_total:
            # The reserve is filled as well. Each message is a string of its own.
            logger.warning("%08d%s", handler.queue.queued, text)
        at_full = rss()
        accepted = handler.queue.queued
        handler.listener.committer.flush_interval = 0.1
        written = handler.flush(120)
        peak = status("VmHWM") * 1024
        dropped = handler.dropped_total
        handler.close()
        found = count_rows(handler.filename, "logs WHERE logger = 'shop.orders'") - 1
        assert written or found < accepted, "flush says it could not write, and all is there"
        return {
            "accepted": accepted,
            "dropped": dropped,
            "found": found,
            "full": at_full - idle,
            "peak": peak - idle,
        }


if __name__ == "__main__":
    logging.raiseExceptions = True
    print(json.dumps(full(sys.argv[2]) if sys.argv[1] == "full" else any_size(sys.argv[2], int(sys.argv[3]))))
