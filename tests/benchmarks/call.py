"""
What a call to `logger.info` costs its caller, over the floor: a handler whose `handle` does nothing.

`pure`: nobody consumes, neither ours nor the standard library's queue; short bursts into a queue that has room. This is
the cost of the call and of nothing else. `running`: listeners at work, ours committing to SQLite, the other one handing
each record to a handler that does nothing.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import MemoryHandler, QueueHandler, QueueListener
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import (
    Options,
    Report,
    alternate,
    count_rows,
    folder,
    middle,
    over_floor,
    percentile,
    ratio,
)
from tests.benchmarks.load import (
    SHAPES,
    TEXT,
    Floor,
    Locker,
    Nothing,
    args,
    in_threads,
    logger_with,
)

ROOM = 1_000_000
FLOOR, OURS, REFUSED, STDLIB = "floor", "accepted", "refused", "QueueHandler, Queue"


def run(report: Report, options: Options) -> None:
    """Measure calls in all shapes, from several threads, one by one, and while the database is locked."""
    with folder() as path:
        pure = Pure(path, report)
        try:
            _shapes(report, options, pure)
            _threads(report, options, pure)
        finally:
            pure.close()
        _running(report, options, path)
        _latencies(report, options, path)


class Pure:
    """Handlers that nobody consumes from, each made fresh for a burst, and asked afterwards how many records it has."""

    def __init__(self, path: str, report: Report) -> None:
        self._report = report
        self._ours = SQLiteHandler(os.path.join(path, "pure.db"), capacity=ROOM, capacity_bytes=1 << 30)
        self._full = SQLiteHandler(os.path.join(path, "full.db"), capacity=1)
        self._path = os.path.join(path, "app.log")
        self.cases: dict[str, Callable[[], tuple[Any, Callable[[], int]]]] = {
            FLOOR: self._floor,
            OURS: self._accepted,
            REFUSED: self._refused,
            STDLIB: self._queue,
            "QueueHandler, SimpleQueue": self._simple_queue,
            "MemoryHandler": self._memory,
            "FileHandler": self._file,
        }

    def burst(self, case: str, shape: Callable[[Any, int], None], count: int, threads: int = 1) -> float:
        """Log so often from each thread; return nanoseconds per call."""
        handler, found = self.cases[case]()
        logger = logger_with(handler)
        seconds = in_threads(threads, lambda _: shape(logger, count))
        if case != FLOOR:
            self._report.verify(case, count * threads, found())
        return seconds / (count * threads) * 1e9

    def _floor(self) -> tuple[Any, Callable[[], int]]:
        return Floor(), int

    def _accepted(self) -> tuple[Any, Callable[[], int]]:
        self._ours.queue.reset()
        self._ours.queue.open()  # as the listener does; there is none
        return self._ours, lambda: self._ours.queue.queued

    def _refused(self) -> tuple[Any, Callable[[], int]]:
        self._full.queue.reset()
        self._full.queue.open()
        self._full.handle(logging.LogRecord("shop", logging.INFO, "shop.py", 1, "the one that has room", (), None))
        return self._full, lambda: self._full.dropped_total

    def _queue(self) -> tuple[Any, Callable[[], int]]:
        handler = QueueHandler(queue.Queue(ROOM))
        return handler, handler.queue.qsize

    def _simple_queue(self) -> tuple[Any, Callable[[], int]]:
        handler = QueueHandler(queue.SimpleQueue())  # type: ignore[arg-type]  # typeshed asks for more than is used
        return handler, handler.queue.qsize

    def _memory(self) -> tuple[Any, Callable[[], int]]:
        handler = MemoryHandler(ROOM)
        return handler, lambda: len(handler.buffer)

    def _file(self) -> tuple[Any, Callable[[], int]]:
        handler = logging.FileHandler(self._path, mode="w")
        handler.setFormatter(logging.Formatter(TEXT))

        def found() -> int:
            handler.close()
            with open(self._path, "rb") as file:
                return file.read().count(b" INFO shop.orders ")

        return handler, found

    def close(self) -> None:
        """Close what was opened; the rows of the bursts are not to be written."""
        for handler in (self._ours, self._full):
            handler.queue.reset()
            handler.close()


def _shapes(report: Report, options: Options, pure: Pure) -> None:
    rounds = options.times(60, 6)
    rows: list[list[object]] = []
    ratios = {}
    for shape, log in SHAPES.items():
        count = 500 if shape == "traceback" else 2_000
        cases = {case: lambda case=case, log=log, count=count: pure.burst(case, log, count) for case in pure.cases}  # type: ignore[misc]
        alternate(cases, 1)  # warms up what is interned and specialised
        samples = alternate(cases, rounds)
        for case, times in samples.items():
            shares = over_floor(samples, case, STDLIB, FLOOR)
            ratios[shape, case] = shares
            rows.append([shape, case, *shares, middle(times), min(times), middle(times) - middle(samples[FLOOR])])
    columns = ["shape", "handler", "ratio median", "ratio best", "ns median", "ns best", "ns over floor"]
    report.table("pure calls: added cost as a share of what QueueHandler on a bounded Queue adds", columns, rows)
    for case, limits in ((OURS, {"extra": 0.85, "traceback": 1.0}), (REFUSED, dict.fromkeys(SHAPES, 0.1))):
        for shape in SHAPES:
            # `extra` is written as JSON, and a traceback rendered, before the row is queued.
            report.bound(f"added cost, {case} call, {shape}", "<=", limits.get(shape, 0.2), *ratios[shape, case])


def _threads(report: Report, options: Options, pure: Pure) -> None:
    rows = []
    for threads in (1, 2, 4, 8):
        cases = {
            case: lambda case=case, threads=threads: pure.burst(case, args, 2_000, threads)  # type: ignore[misc]
            for case in (FLOOR, OURS, REFUSED, STDLIB, "FileHandler")
        }
        samples = alternate(cases, options.times(20, 3))
        rows += [
            [threads, case, *over_floor(samples, case, STDLIB, FLOOR), middle(times), min(times)]
            for case, times in samples.items()
        ]
    report.table(
        "pure calls from several threads",
        ["threads", "handler", "ratio median", "ratio best", "ns median", "ns best"],
        rows,
    )


@contextmanager
def _stdlib_running(room: int) -> Iterator[tuple[QueueHandler, QueueListener, Nothing]]:
    handler, nothing = QueueHandler(queue.Queue(room)), Nothing()
    listener = QueueListener(handler.queue, nothing)
    listener.start()
    try:
        yield handler, listener, nothing
    finally:
        if listener._thread is not None:  # type: ignore[attr-defined]  # stop() of 3.11 fails when called twice
            listener.stop()


def _running(report: Report, options: Options, path: str) -> None:
    count = options.pick(20_000, 5_000)
    drained: dict[str, list[float]] = {}

    def floor() -> float:
        logger = logger_with(Floor())
        return in_threads(1, lambda _: args(logger, count)) / count * 1e9

    def stdlib() -> float:
        with _stdlib_running(ROOM) as (handler, listener, nothing):
            logger = logger_with(handler)
            begin = time.perf_counter()
            args(logger, count)
            called = time.perf_counter() - begin
            listener.stop()
            drained.setdefault(STDLIB, []).append((time.perf_counter() - begin) / count * 1e9)
            report.verify(STDLIB, count, nothing.handled)
        return called / count * 1e9

    def ours() -> float:
        file = os.path.join(path, "running.db")
        before = count_rows(file) if os.path.exists(file) else 0
        handler = SQLiteHandler(file)
        logger = logger_with(handler)
        begin = time.perf_counter()
        args(logger, count)
        called = time.perf_counter() - begin
        handler.flush()
        drained.setdefault(OURS, []).append((time.perf_counter() - begin) / count * 1e9)
        handler.close()
        report.verify(OURS, count, count_rows(file) - before)
        return called / count * 1e9

    samples = alternate({FLOOR: floor, OURS: ours, STDLIB: stdlib}, options.times(15, 3))
    drained[FLOOR] = samples[FLOOR]
    rows = [[case, *over_floor(samples, case, STDLIB, FLOOR), middle(samples[case]), middle(times)]
            for case, times in drained.items()]  # fmt: skip
    columns = ["handler", "ratio median", "ratio best", "ns per call", "ns until all is handled"]
    report.table("calls while listeners run: ours writes to SQLite, QueueListener does nothing", columns, rows)
    report.bound(
        "added cost, accepted call, args",
        "<=",
        0.2,
        *over_floor(samples, OURS, STDLIB, FLOOR),
        note="listeners running",
    )


def _timed(logger: Any, count: int, pace: float, stop: Callable[[], bool] = lambda: False) -> list[float]:
    """Time each call, in microseconds. `pace` is the seconds slept after every 5 calls; 0 is none."""
    now, info, times = time.perf_counter_ns, logger.info, []
    for number in range(count):
        begin = now()
        info("order %d paid by %s, nothing is left to do", number, "c-17")
        times.append((now() - begin) / 1000)
        if pace and number % 5 == 4:
            time.sleep(pace)
            if stop():
                break
    return times


def _latencies(report: Report, options: Options, path: str) -> None:
    count = options.pick(50_000, 10_000)
    latencies: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ours = stack.enter_context(_closing(SQLiteHandler(os.path.join(path, "latency.db"))))
        text = stack.enter_context(_closing(logging.FileHandler(os.path.join(path, "latency.log"))))
        text.setFormatter(logging.Formatter(TEXT))
        stdlib, _, _ = stack.enter_context(_stdlib_running(ROOM))
        for _ in range(options.times(3, 1)):
            for case, handler in ((FLOOR, Floor()), ("ours", ours), (STDLIB, stdlib), ("FileHandler", text)):
                latencies.setdefault(case, []).extend(_timed(logger_with(handler), count, 0))
            ours.flush()
        report.verify("latencies", options.times(3, 1) * count, count_rows(ours.filename))
    for unlocked, locked in _locked_and_not(report, options, path):
        latencies.setdefault("ours, paced", []).extend(unlocked)
        latencies.setdefault("ours, paced, database locked", []).extend(locked)

    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "worst": 1.0}
    table = {}
    for case, times in latencies.items():
        times.sort()
        table[case] = [percentile(times, share) for share in shares.values()]
    report.table(
        "microseconds of a call, one by one", ["handler", *shares], [[case, *row] for case, row in table.items()]
    )

    def draw(axes: Any) -> None:
        for case, times in latencies.items():
            points = [1 - 10 ** (-at / 20) for at in range(100)]
            axes.plot([1 / (1 - at) for at in points], [percentile(times, at) for at in points], label=case)
        axes.set(xscale="log", yscale="log", ylabel="microseconds", title="One call to logger.info")
        axes.set_xticks([2, 10, 100, 1_000, 10_000], ["p50", "p90", "p99", "p99.9", "p99.99"])
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    report.plot(options, "latency.png", draw)


def _locked_and_not(report: Report, options: Options, path: str) -> list[tuple[list[float], list[float]]]:
    """Log at 2,000 to 5,000 calls a second, by turns while another process locks the database and while it does not."""
    seconds = options.pick(10.0, 2.0)
    pairs = []
    p999: dict[str, list[float]] = {"locked": [], "unlocked": []}
    with _closing(SQLiteHandler(os.path.join(path, "locked.db"))) as handler:
        locker = Locker(handler.filename)
        logger = logger_with(handler)

        def paced() -> list[float]:
            over = threading.Event()
            timer = threading.Timer(seconds, over.set)
            timer.start()
            times = _timed(logger, 1_000_000, 0.001, over.is_set)
            timer.join()
            return times

        for _ in range(options.times(3, 1)):
            unlocked = paced()
            with locker.locked():
                locked = paced()
            handler.flush(30)
            pairs.append((unlocked, locked))
            p999["unlocked"].append(percentile(sorted(unlocked), 0.999))
            p999["locked"].append(percentile(sorted(locked), 0.999))
        locker.end()
        stats = handler.stats()
        report.verify("locked", sum(len(a) + len(b) for a, b in pairs), stats.written + stats.dropped_total)
        report.verify("locked", stats.written, count_rows(handler.filename, "logs WHERE logger = 'shop.orders'"))
        note = f"{seconds:g} s each, {stats.dropped_total:,} dropped"
        report.bound(
            "p99.9 of a call, database locked against not", "<=", 2, *ratio(p999, "locked", "unlocked", min), note=note
        )
    return pairs


@contextmanager
def _closing(handler: Any) -> Iterator[Any]:
    try:
        yield handler
    finally:
        handler.close()
