"""
The archive: what its parts take against the file, what its thread takes of memory and of the rate, and a soak with it.

The soak goes on at full speed with `max_bytes`, by turns with one that has no archive, and ends with `check`: each
record is in the archive, in the file, or counted.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sqlite3
import sys
import threading
import time
from functools import partial
from typing import Any

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler.__main__ import main
from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.parquet import import_pyarrow
from sqlite_log_handler._write.retention.archive import Archive
from tests.benchmarks.core import Options, Report, alternate, folder, middle, python, ratio, rss
from tests.benchmarks.load import logger_with, realistic

ROWS = 200_000
BUDGET = 50_000_000
TURN = 2.0
WITHOUT, KEEP, DELETE = "no archive", "archive, keep", "archive, delete"
# Rows a second of the log whose size is measured: as a server has them, and not a burst within one second.
RATE = 20.0


def run(report: Report, options: Options) -> None:
    """Measure sizes and memory in processes of their own, then the rate."""
    kinds = ["jsonl.gz"]
    with contextlib.suppress(ImportError):
        import_pyarrow()
        kinds.append("parquet")
    _sizes(report, options, kinds)
    _soak(report, options)


def _sizes(report: Report, options: Options, kinds: list[str]) -> None:
    files = [os.path.abspath(file) for file in options.lines]
    rows = options.pick(ROWS, 20_000)
    found = {}
    for kind in kinds:
        printed = python("-m", "tests.benchmarks.archive", kind, str(rows), *files)
        found[kind] = json.loads(printed)
        report.verify(kind, rows - 1, found[kind]["rows"])
    columns = ["", "bytes/row in file", "bytes/row in archive", "times smaller", "rows/s of CPU", "MB of memory"]
    lines = [
        [
            kind,
            one["file"] / rows,
            one["archive"] / rows,
            one["file"] / one["archive"],
            rows / one["cpu"],
            one["memory"],
        ]
        for kind, one in found.items()
    ]
    report.table(f"{rows:,} rows archived, {'lines of files' if files else 'generated lines'}", columns, lines)
    for (kind, *_), most in zip(lines, (20, 80), strict=False):
        memory = found[kind]["memory"]
        report.bound(f"memory of the archiver, {kind}", "<=", most, memory, memory, unit=" MB")
        smaller = found[kind]["file"] / found[kind]["archive"]
        note = "lines of " + ", ".join(map(os.path.basename, options.lines)) if options.lines else "generated lines"
        report.bound(f"the file against its archive, {kind}", ">=", 8, smaller, smaller, note=note)


def archived(kind: str, count: int, files: tuple[str, ...]) -> dict[str, Any]:
    """Archive so many rows, and say what that took."""
    with folder() as path:
        file = os.path.join(path, "app-log.db")
        handler = SQLiteHandler(file, capacity=2 * count, capacity_bytes=1 << 30)
        begin = time.time() - count / RATE
        for number, record in enumerate(realistic(count, files)):
            record.created = begin + number / RATE + (number * 7919 % 10_007) / 1e6
            handler.handle(record)
        handler.close()
        size = os.path.getsize(file)
        del handler, record
        memory, cpu = [rss()], time.thread_time()
        rows = taken = 0
        archive = Archive(path, file, kind=kind)

        def look() -> bool:  # after each chunk
            memory.append(rss())
            return False

        with (
            contextlib.closing(sqlite3.connect(file, isolation_level=None)) as writing,
            contextlib.closing(connect_read_only(file)) as reading,
            archive.lock.hold(0),
        ):
            for part in archive.parts(reading, stopped=look):
                archive.note(writing, part)
                rows, taken = rows + part.head.rows, taken + part.size
                memory.append(rss())
        archive.lock.close()
        cpu, grown = time.thread_time() - cpu, (max(memory) - memory[0]) / 1e6
        return {"file": size, "archive": taken, "rows": rows, "cpu": cpu, "memory": grown}


class Soak:
    """A handler on a file of its own, with an archive or without."""

    def __init__(self, path: str, **options: Any) -> None:
        os.mkdir(path)
        self.file = os.path.join(path, "app-log.db")
        self.archive = os.path.join(path, "archive")
        os.mkdir(self.archive)
        if options:
            options["archive"] = self.archive
        self.handler = SQLiteHandler(self.file, max_bytes=BUDGET, **options)
        self.logged = 0

    def turn(self) -> float:
        """Log at full speed for one turn, and return how many rows a second were written."""
        info = logger_with(self.handler).info
        before = self.handler.stats().written
        begin = time.perf_counter()
        while time.perf_counter() - begin < TURN:
            for number in range(1_000):
                info("order %d paid by %s, nothing is left to do", number, "c-17")
            self.logged += 1_000
        self.handler.flush(60)
        rate = (self.handler.stats().written - before) / (time.perf_counter() - begin)
        while any(thread.name.endswith("archive") for thread in threading.enumerate()):
            time.sleep(0.01)  # it is not to work in the turns of the others
        return rate

    def close(self, report: Report, name: str) -> list[object]:
        """Close it, and check that every record is accounted for."""
        self.handler.close()
        stats = self.handler.stats()
        report.verify(f"{name}: seen", self.logged, stats.written + stats.dropped_total)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = main(["check", self.file, "--archive", self.archive])
        report.verify(f"{name}: check", 0, code)
        (seen,) = (line for line in said.getvalue().splitlines() if " seen, " in line)
        report.say(f"{name}: {seen}")
        names = [name for name in os.listdir(self.archive) if not name.endswith("-lock")]
        taken = sum(os.path.getsize(os.path.join(self.archive, name)) for name in names)
        return [stats.dropped_total / self.logged * 100, len(names), taken / 1e6]


def _soak(report: Report, options: Options) -> None:
    rounds = options.times(60, 3)
    with folder() as path:
        soaks = {
            WITHOUT: Soak(os.path.join(path, "without")),
            KEEP: Soak(os.path.join(path, "keep"), unarchived="keep"),
            DELETE: Soak(os.path.join(path, "delete"), unarchived="delete"),
        }
        for soak in soaks.values():
            while not soak.handler.listener.committer.writer.pruner.deleted and not soak.handler.dropped_total:
                soak.turn()
        samples = alternate({name: partial(Soak.turn, soak) for name, soak in soaks.items()}, rounds)
        rows = [
            [name, *ratio(samples, name, WITHOUT, max), middle(samples[name]), *soak.close(report, name)]
            for name, soak in soaks.items()
        ]
    columns = ["case", "ratio median", "ratio best", "rows/s median", "% dropped", "parts", "MB of archive"]
    report.table(f"max_bytes=50MB at full speed in one thread, {rounds} turns of {TURN:g} s each", columns, rows)
    report.bound("rows written while archiving, against none", ">=", 0.9, *ratio(samples, DELETE, WITHOUT, max))


if __name__ == "__main__":
    logging.raiseExceptions = False
    print(json.dumps(archived(sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3:]))))
