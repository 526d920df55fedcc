"""
Bytes: in the file per row, against the same record as a line of text; and written per record, by the system's account.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import sys
import time
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, count_lines, count_rows, folder, python
from tests.benchmarks.load import TEXT, realistic

COUNT = 100_000


def run(report: Report, options: Options) -> None:
    """Keep the same lines as text and in SQLite: in one go, and as they come, a few thousand a second."""
    count = options.pick(COUNT, 20_000)
    ways = {
        "text": ("text", 0),
        "SQLite, in one go": ("sqlite", 0),
        "SQLite, 5,000 rows/s": ("sqlite", 5_000),
        "SQLite, 500 rows/s": ("sqlite", 500),
    }
    rows = []
    sizes = {}
    pages: list[list[Any]] = []
    for way, (kind, pace) in ways.items():
        paced = min(count, pace * options.pick(10, 2)) if pace else count
        found = _child(kind, paced, pace, options)
        report.verify(way, paced, found["found"])
        sizes[way] = found["size"] / paced
        pages = pages or [[name, *(size / paced for size in of)] for name, *of in found["pages"]]
        written = "-" if found["written"] is None else f"{found['written'] / paced:.0f}"
        passed = "-" if found["passed"] is None else f"{found['passed'] / paced:.0f}"
        rows.append([way, paced, sizes[way], sizes[way] / sizes["text"], passed, written, found["wal"] // 1024])
    columns = [
        "", "records", "bytes/row in file", "against text", "bytes/row passed to write()", "to disk", "most WAL KiB"
    ]  # fmt: skip
    report.table("disk", columns, rows)
    report.table("bytes/row, in one go", ["table or index", "bytes/row", "content", "unused"], pages)
    report.say("to the disk: dirtied pages that were or will be written (write_bytes of /proc/self/io)")
    size = sizes["SQLite, in one go"]
    share = size / sizes["text"]
    note = "lines of " + ", ".join(map(os.path.basename, options.lines)) if options.lines else "generated lines"
    report.bound("bytes per row in the file against the line of text", "<=", 1, share, share, note=note)
    if not options.lines:
        report.bound("bytes per row in the file", "<=", 100, size, size, unit=" B")


def _child(kind: str, count: int, pace: int, options: Options) -> dict[str, Any]:
    files = [os.path.abspath(file) for file in options.lines]
    printed = python("-m", "tests.benchmarks.disk", kind, str(count), str(pace), *files)
    result: dict[str, Any] = json.loads(printed)
    return result


def _io() -> dict[str, int]:
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            return {name: int(value) for name, value in (line.split(": ") for line in file)}
    except OSError:
        return {}


def keep(kind: str, count: int, pace: int, files: tuple[str, ...]) -> dict[str, Any]:
    """Keep so many records, `pace` a second if it is not 0."""
    with folder() as path:
        file = os.path.join(path, "app-log")
        handler: Any
        if kind == "text":
            handler = logging.FileHandler(file)
            handler.setFormatter(logging.Formatter(TEXT))
        else:
            handler = SQLiteHandler(file, capacity=2 * count)
        before = _io()
        wal = 0
        for number, record in enumerate(realistic(count, files), 1):
            handler.handle(record)
            if pace and number % (pace // 50) == 0:
                time.sleep(0.02)
                wal = max(wal, os.path.getsize(file + "-wal")) if os.path.exists(file + "-wal") else wal
        handler.flush()
        wal = max(wal, os.path.getsize(file + "-wal")) if kind != "text" else 0
        handler.close()
        after = _io()
        return {
            "size": os.path.getsize(file),
            "found": count_lines(file) if kind == "text" else count_rows(file),
            "passed": after["wchar"] - before["wchar"] if before else None,
            "written": after["write_bytes"] - before["write_bytes"] if before else None,
            "wal": wal,
            "pages": [] if kind == "text" else _pages(file),
        }


def _pages(file: str) -> list[Any]:
    """Add up the pages of the largest tables and indexes, if this SQLite has a `dbstat` (https://sqlite.org/dbstat.html)."""
    sql = "SELECT name, sum(pgsize), sum(payload), sum(unused) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 3"
    with contextlib.closing(sqlite3.connect(file)) as connection, contextlib.suppress(sqlite3.OperationalError):
        return connection.execute(sql).fetchall()
    return []


if __name__ == "__main__":
    print(json.dumps(keep(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), tuple(sys.argv[4:]))))
