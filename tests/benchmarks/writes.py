"""
Bytes handed to the system per record, by rate and flush interval, against `FileHandler`.

A commit comes when its oldest row is `flush_interval` old, so at a steady rate it has the rows of that time and the one
that began it. Here each commit gets as many rows, one after the other without a wait: the bytes are those of the rate.
They are wchar of /proc/self/io: all that was passed to write(), the WAL and what is written back from it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import make_row
from sqlite_log_handler._write.writer import Writer
from tests.benchmarks.core import Options, Report, count_lines, count_rows, folder
from tests.benchmarks.load import TEXT, realistic

RATES = (1, 10, 100, 1_000, 10_000)
INTERVALS = (0.1, 1.0, 10.0)
BATCH_SIZE = 10_000
SECONDS_PER_YEAR = 365.25 * 86_400
BEGIN = 1_764_000_000.0

# Rate, flush interval: bytes written a record at most.
BOUNDS = {(10, 0.1): 4_600, (100, 0.1): 1_100, (10, 1.0): 1_100, (10_000, 0.1): 270}


def run(report: Report, options: Options) -> None:
    """Write the same records in commits of as many rows as each rate and flush interval makes, and count the bytes."""
    commits, most = options.pick(1_000, 100), options.pick(50_000, 2_000)
    if _written() is None:
        report.say("writes: this system does not tell what a process has written")
        return
    line = _text(report, options.pick(10_000, 1_000))
    rows: list[list[Any]] = []
    for rate in RATES:
        row: list[Any] = [rate, line, line * rate * SECONDS_PER_YEAR / 1e9]
        for interval in INTERVALS:
            size, count = commit_size(rate, interval, commits, most)
            bytes_per_record = database(report, rate, _records(rate, count), size)
            row += [bytes_per_record, bytes_per_record * rate * SECONDS_PER_YEAR / 1e9]
            bound = BOUNDS.get((rate, interval))
            if bound is not None:
                text = f"bytes written a record at {rate:,}/s, flush_interval={interval:g}"
                report.bound(text, "<=", bound, bytes_per_record, bytes_per_record, unit=" B")
        rows.append(row)
    columns = ["records/s", "FileHandler", "GB/year"]
    columns += [text for interval in INTERVALS for text in (f"{interval:g} s", f"GB/year, {interval:g} s")]
    report.table("writes", columns, rows)
    report.say("bytes passed to write() per record, by flush_interval")


def _written() -> int | None:
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            return int(dict(line.split(": ") for line in file)["wchar"])
    except OSError:
        return None


def commit_size(rate: int, interval: float, commits: int, most: int) -> tuple[int, int]:
    """Return the rows of a commit, and how many rows to write: those of `commits`, and about `most` at most."""
    size = min(BATCH_SIZE, max(1, int(rate * interval)) + (rate * interval >= 1))
    return size, size * max(2, min(commits, most // size))


def _records(rate: int, count: int) -> list[logging.LogRecord]:
    records = list(realistic(count))
    for number, record in enumerate(records):
        record.created = BEGIN + number / rate
    return records


def _text(report: Report, count: int) -> float:
    with folder() as path:
        file = os.path.join(path, "app.log")
        handler = logging.FileHandler(file)
        handler.setFormatter(logging.Formatter(TEXT))
        records = _records(1, count)
        before = _written() or 0
        for record in records:
            handler.handle(record)
        handler.close()
        written = (_written() or 0) - before
        report.verify("FileHandler", count, count_lines(file))
    return written / count


def database(report: Report, rate: int, records: list[logging.LogRecord], size: int, sql: str = "") -> float:
    """Write the records in commits of `size`, into a file that `sql` has changed; return the bytes written a record."""
    count = len(records)
    with folder() as path:
        file = os.path.join(path, "app-log.db")
        rows = [make_row(record) for record in records]
        with contextlib.closing(Writer(file)) as writer:
            writer.file.open()
            assert writer.file.connection is not None
            writer.file.connection.executescript(sql)
            before = _written() or 0
            for start in range(0, count, size):
                writer.write(Commit(rows[start : start + size]))
        written = (_written() or 0) - before
        report.verify(f"SQLite, {rate:,}/s, commits of {size:,}", count, count_rows(file))
    return written / count
