"""
A soak: logging at full speed with `max_bytes`, against the same without, and what the disk has to hold.

Both go on all the time, by turns of two seconds, because what else the machine does changes from minute to minute.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from functools import partial

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, alternate, folder, middle, percentile, ratio
from tests.benchmarks.load import logger_with

BUDGET = 50_000_000
WITHOUT, WITH = "without retention", "max_bytes=50MB"
TURN = 2.0
# Between two looks at the files: some 7 ms, and a commit takes 50.
RECORDS_PER_LOOK = 1_000


class Soak:
    """A handler on a file of its own, and the most that file and WAL took."""

    def __init__(self, file: str, max_bytes: int | None) -> None:
        self.handler = SQLiteHandler(file, max_bytes=max_bytes)
        self.file = file
        self.logged = self.peak = 0

    def turn(self) -> float:
        """Log at full speed for one turn, and return how many rows a second were written."""
        info = logger_with(self.handler).info
        before = self.handler.stats().written
        begin = time.perf_counter()
        while time.perf_counter() - begin < TURN:
            for number in range(RECORDS_PER_LOOK):
                info("order %d paid by %s, nothing is left to do", number, "c-17")
            self.logged += RECORDS_PER_LOOK
            self.look()
        self.handler.flush(60)
        taken = time.perf_counter() - begin
        self.look()
        return (self.handler.stats().written - before) / taken

    def look(self) -> None:
        """Look at the files."""
        taken = os.stat(self.file).st_size
        with contextlib.suppress(FileNotFoundError):
            taken += os.stat(self.file + "-wal").st_size
        self.peak = max(self.peak, taken)

    def close(self, report: Report) -> None:
        """Close it, and check that every record is accounted for."""
        self.handler.close()
        stats = self.handler.stats()
        report.verify("seen", self.logged, stats.seen)
        report.verify("seen", stats.seen, stats.written + stats.dropped_total)
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            (written,) = connection.execute(
                "SELECT sum(records) FROM volume WHERE logger != 'sqlite_log_handler'"
            ).fetchone()
            kept, last = connection.execute("SELECT count(*), max(id) FROM records").fetchone()
            (pruned,) = connection.execute("SELECT ifnull(sum(count), 0) FROM prunes").fetchone()
        report.verify("written", stats.written, written)
        report.verify("kept and pruned", last, kept + pruned)


def run(report: Report, options: Options) -> None:
    """Fill the budget, and then take turns."""
    rounds = options.times(30, 5)
    with folder() as path:
        soaks = {
            WITHOUT: Soak(os.path.join(path, "without.db"), None),
            WITH: Soak(os.path.join(path, "with.db"), BUDGET),
        }
        while not soaks[WITH].handler.listener.committer.writer.pruner.deleted:
            soaks[WITH].turn()
        samples = alternate({name: partial(Soak.turn, soak) for name, soak in soaks.items()}, rounds)
        rows = []
        for name, soak in soaks.items():
            soak.close(report)
            dropped = soak.handler.dropped_total / soak.logged * 100
            rows.append([name, *ratio(samples, name, WITHOUT, max), middle(samples[name]), dropped, soak.peak / 1e6])
    columns = ["case", "ratio median", "ratio best", "rows/s median", "% dropped", "MB at most"]
    report.table(f"logging at full speed in one thread, {rounds} turns of {TURN:g} s each", columns, rows)
    each = sorted(one / other for one, other in zip(samples[WITH], samples[WITHOUT], strict=True))
    quartiles = ", ".join(f"{percentile(each, share):.2f}" for share in (0.25, 0.5, 0.75))
    report.say(f"ratios turn by turn, quartiles: {quartiles}")
    report.bound("rows written with max_bytes=50MB, against without", ">=", 0.8, *ratio(samples, WITH, WITHOUT, max))
    largest = soaks[WITH].peak / BUDGET
    report.bound("file and WAL, at their largest, against max_bytes", "<=", 1.1, largest, largest)
