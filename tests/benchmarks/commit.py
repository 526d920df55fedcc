"""
The writer alone: one commit of 10,000 rows, against `executemany` of the same rows into the same tables.

`executemany` gets its parameters ready made, and writes neither sources nor volume; ours does all of it.
Each round's rows are a second later than those before, as in a log: with equal times the index is written all over.
Beside busy threads the difference is the GIL: the sqlite3 module lets go of it around every row. How long it takes to
get it back depends on what else runs on the machine, so the bounds are on how often a commit lets go of it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any
from unittest import mock

from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import PackedRow, make_row
from sqlite_log_handler._write.writer import Writer
from tests.benchmarks.core import Options, Report, alternate, count_rows, folder, middle, ratio
from tests.benchmarks.load import busy, realistic

COUNT = 10_000
OURS, EXECUTEMANY = "Writer.write", "executemany"

# What a commit calls that lets go of the GIL, beside the statements.
_CALLS = {os: ("stat", "fstat", "pread", "pwrite"), fcntl: ("flock",)}
# Turns of the GIL at most, by the rows of the commit.
_TURNS = {1: 13, COUNT: 16}
_SQL = (
    "INSERT INTO records (created_us, levelno, source_id, process_id, thread_id, task_name, message, "
    "exc_type, exc_text, stack_info, attributes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def run(report: Report, options: Options) -> None:
    """Commit beside no, one and four threads that burn CPU."""
    records = list(realistic(COUNT))
    rows = [make_row(record) for record in records]
    for size, turns in _turns(rows).items():
        report.bound(f"turns of the GIL in a commit of {size:,} rows", "<=", _TURNS[size], turns, turns, unit="")
    for threads in (0, 1, 4):
        samples = _compare(report, rows, threads, options.times(15 if threads == 0 else 7, 2))
        times = {case: [seconds * 1000 for seconds in found] for case, found in samples.items()}
        table = [
            [case, *ratio(samples, case, EXECUTEMANY, min), middle(times[case]), min(times[case]),
             COUNT / middle(samples[case])]
            for case in samples
        ]  # fmt: skip
        columns = ["", "ratio median", "ratio best", "ms median", "ms best", "rows/s median"]
        report.table(f"one commit of {COUNT:,} rows beside {threads} busy threads", columns, table)


def _turns(rows: list[PackedRow]) -> dict[int, int]:
    """Count how often a commit lets go of the GIL, when its writer has done the like before."""
    turns = 0

    def count_one(*_: object) -> None:
        nonlocal turns
        turns += 1

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: count_one() or call(*args, **options)

    found = {}
    with folder() as path, ExitStack() as stack:
        writer = Writer(os.path.join(path, "log"))
        stack.callback(writer.close)
        writer.write(Commit(rows))
        assert writer.file.connection is not None
        writer.file.connection.set_trace_callback(count_one)
        for module, names in _CALLS.items():
            for name in names:
                stack.enter_context(mock.patch.object(module, name, counted(getattr(module, name))))
        for size in _TURNS:
            turns = 0
            writer.write(Commit(rows[:size]))
            found[size] = turns
    return found


def _compare(report: Report, rows: list[PackedRow], threads: int, rounds: int) -> dict[str, list[float]]:
    with folder() as path:
        paths = {case: os.path.join(path, case) for case in (OURS, EXECUTEMANY)}
        writers = {case: Writer(file) for case, file in paths.items()}
        for writer in writers.values():
            writer.write(Commit(rows, [], 0))  # makes the tables, and the ids of sources and processes
        other = writers[EXECUTEMANY]
        parameters = _parameters(paths[EXECUTEMANY], rows)
        other.close()
        clock = {case: count(1) for case in paths}
        connection = sqlite3.connect(paths[EXECUTEMANY], isolation_level=None)
        connection.execute("PRAGMA synchronous = NORMAL")

        def ours() -> float:
            later = next(clock[OURS])
            batch = Commit([(row[0], row[1] + later, *row[2:]) for row in rows], [], 0)
            with busy(threads):
                begin = time.perf_counter()
                writers[OURS].write(batch)
                return time.perf_counter() - begin

        def theirs() -> float:
            later = next(clock[EXECUTEMANY]) * 1_000_000
            batch = [(row[0] + later, *row[1:]) for row in parameters]
            with busy(threads):
                begin = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_SQL, batch)
                connection.execute("COMMIT")
                return time.perf_counter() - begin

        samples = alternate({OURS: ours, EXECUTEMANY: theirs}, rounds)
        connection.close()
        writers[OURS].close()
        for case, file in paths.items():
            report.verify(f"{case}, {threads} busy threads", (rounds + 1) * COUNT, count_rows(file))
    return samples


def _parameters(path: str, rows: list[Any]) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT id, logger, pathname, lineno, func, template FROM sources")
    sources = {tuple(source): number for number, *source in found}
    (thread_id,) = connection.execute("SELECT id FROM threads").fetchone()
    process_id = connection.execute("SELECT max(id) FROM processes").fetchone()[0]
    connection.close()
    return [
        (round(created * 1e6), levelno, sources[source], process_id, thread_id, *texts)
        for levelno, created, source, _, _, _, *texts in rows
    ]
