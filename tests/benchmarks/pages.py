"""
What the size of a page costs: bytes written a record, bytes of the file, CPU time to write and to read.

All are shares of what pages of SQLite's default size take. A second table leaves out parts of the file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable
from unittest import mock

from sqlite_log_handler import LogReader
from sqlite_log_handler._write import log_file
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import make_row
from sqlite_log_handler._write.writer import Writer
from tests.benchmarks.core import Options, Report, alternate, folder
from tests.benchmarks.load import realistic
from tests.benchmarks.writes import BATCH_SIZE, BEGIN, commit_size, database

OURS = log_file.PAGE_BYTES
SQLITES = 4_096
RATES = (10, 100, 10_000)
INTERVAL = 0.1
# Bytes of a message, from and to; None leaves them as they are.
MESSAGES = {"100": None, "200 to 600": (200, 600), "500 to 1,500": (500, 1_500), "2,000 to 6,000": (2_000, 6_000)}
WITHOUT = {
    "": "",
    ", without the map of pages": "PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum=0; VACUUM; PRAGMA journal_mode=WAL",
    ", without the index on time": "DROP INDEX records_created_us",
}


def run(report: Report, options: Options) -> None:
    """Write the same rows with pages of both sizes, and read them."""
    commits, most = options.pick(1_000, 100), options.pick(50_000, 2_000)

    def bytes_written(page_bytes: int, rate: int, message: tuple[int, int] | None, sql: str = "") -> float:
        size, count = commit_size(rate, INTERVAL, commits, most)
        with mock.patch.object(log_file, "PAGE_BYTES", page_bytes):
            return database(report, rate, _records(rate, count, message), size, sql)

    rows: list[list[object]] = []
    for name, message in MESSAGES.items():
        shares = [bytes_written(OURS, rate, message) / bytes_written(SQLITES, rate, message) for rate in RATES]
        rows.append([name, *shares, *_file_and_time(message, options)])
    columns = ["bytes of a row", *(f"{rate:,}/s" for rate in RATES)]
    columns += ["file", "full commit", "reading all", "no match", "by time, SQL"]
    report.table(f"pages of {OURS:,} bytes, as a share of {SQLITES:,}", columns, rows)
    rows = [
        [f"{page_bytes:,}{what}", *(bytes_written(page_bytes, rate, None, sql) for rate in RATES)]
        for page_bytes in (OURS // 2, OURS, SQLITES)
        for what, sql in WITHOUT.items()
    ]
    report.table("bytes written a record, by records a second", ["page", *(f"{rate:,}" for rate in RATES)], rows)


def _records(rate: int, count: int, message: tuple[int, int] | None) -> list[logging.LogRecord]:
    chance = random.Random(7)
    records = list(realistic(count))
    for number, record in enumerate(records):
        record.created = BEGIN + number / rate
        if message is not None:
            length = chance.randint(*message)
            while len(record.msg) < length:
                record.msg += f" {chance.getrandbits(64):016x}"
            record.msg = record.msg[:length]
    return records


def _file_and_time(message: tuple[int, int] | None, options: Options) -> list[float]:
    """Return the shares of the file's bytes, and of CPU time of a full commit and of three ways to read."""
    count = options.pick(5, 1) * BATCH_SIZE
    rows = [make_row(record) for record in _records(1_000, count, message)]
    with folder() as path:
        times: dict[str, dict[int, float]] = {}
        files = {page_bytes: os.path.join(path, str(page_bytes)) for page_bytes in (OURS, SQLITES)}

        def commit(page_bytes: int) -> float:
            with contextlib.suppress(FileNotFoundError):
                os.remove(files[page_bytes])
            with (
                mock.patch.object(log_file, "PAGE_BYTES", page_bytes),
                contextlib.closing(Writer(files[page_bytes])) as writer,
            ):
                writer.file.open()
                begin = time.process_time()
                for start in range(0, count, BATCH_SIZE):
                    writer.write(Commit(rows[start : start + BATCH_SIZE]))
                return time.process_time() - begin

        def read(page_bytes: int, text: str | None = None) -> float:
            begin = time.process_time()
            with LogReader(files[page_bytes]) as reader:
                for _ in reader.rows(text=text):
                    pass
            return time.process_time() - begin

        def by_time(page_bytes: int) -> float:
            begin = time.process_time()
            with contextlib.closing(sqlite3.connect(files[page_bytes])) as connection:
                last = "SELECT max(created_us) - 10000000 FROM records"
                connection.execute(f"SELECT * FROM logs WHERE created_us > ({last})").fetchall()
            return time.process_time() - begin

        ways: dict[str, Callable[[int], float]] = {
            "commit": commit,
            "all": read,
            "no match": lambda page_bytes: read(page_bytes, text="stands nowhere"),
            "by time": by_time,
        }
        for name, way in ways.items():
            found = alternate(
                {str(page_bytes): lambda way=way, at=page_bytes: way(at) for page_bytes in files},  # type: ignore[misc]
                options.times(5, 1),
            )
            times[name] = {page_bytes: min(found[str(page_bytes)]) for page_bytes in files}
        size = {page_bytes: float(os.path.getsize(file)) for page_bytes, file in files.items()}
        return [of[OURS] / of[SQLITES] for of in (size, *times.values())]
