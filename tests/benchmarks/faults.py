"""
What a caller feels on the worst day: the slowest calls while something is wrong, and how long a row waits for its turn.

Four threads log, the main thread among them, at a few thousand calls a second. Every second call goes to a handler that
does nothing: what the scheduler and the GIL do to a thread, they do to that one too.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import ROOT, Options, Report, count_rows, folder, percentile
from tests.benchmarks.load import Floor, Locker, logger_with

Fault = Callable[[SQLiteHandler], contextlib.AbstractContextManager[None]]


def run(report: Report, options: Options) -> None:
    """Measure the calls under each fault, then eight processes that share a file."""
    seconds = options.pick(5.0, 0.5)
    rows = []
    slowest = []
    for name, fault in FAULTS.items():
        with folder() as path, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 3.12 warns of forks beside threads
            handler = SQLiteHandler(os.path.join(path, "faults.db"))
            with fault(handler):
                ours, floor = _call(handler, seconds)
            handler.close()
            stats = handler.stats()
            report.verify(name, (stats.seen, 0), (stats.written + stats.dropped_total, stats.queued))
        shares = [percentile(times, share) for times in (ours, floor) for share in (0.999, 1.0)]
        rows.append([name, len(ours), *shares, stats.dropped_total])
        slowest.append(ours[-1] / 1000)
    columns = ["fault", "calls", "ours p99.9", "ours worst", "floor p99.9", "floor worst", "dropped"]
    report.table(f"microseconds of a call under each fault, {seconds:g} s each, 4 threads", columns, rows)
    report.bound("worst call in any fault", "<=", 50, max(slowest), min(slowest), unit=" ms")
    _processes(report, options)


# Faults ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nothing(handler: SQLiteHandler) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _locked(handler: SQLiteHandler) -> Iterator[None]:
    locker = Locker(handler.filename)
    try:
        with locker.locked():
            yield
    finally:
        locker.end()


@contextlib.contextmanager
def _no_room(handler: SQLiteHandler) -> Iterator[None]:
    writer: Any = handler.listener.committer.writer
    writer.file.open()
    (pages,) = writer.file.connection.execute("PRAGMA page_count").fetchone()
    writer.file.connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    writer.file.connection.execute("PRAGMA max_page_count = 1000000000")


@contextlib.contextmanager
def _again_and_again(pause: float, act: Callable[[], object]) -> Iterator[None]:
    over = threading.Event()

    def loop() -> None:
        while not over.wait(pause):
            act()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _unlinked(handler: SQLiteHandler) -> contextlib.AbstractContextManager[None]:
    def unlink() -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(handler.filename)

    return _again_and_again(0.05, unlink)


def _closed(handler: SQLiteHandler) -> contextlib.AbstractContextManager[None]:
    return _again_and_again(0.02, handler.close)


def _forks(handler: SQLiteHandler) -> contextlib.AbstractContextManager[None]:
    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    return _again_and_again(0.02, fork)


@contextlib.contextmanager
def _signals(handler: SQLiteHandler) -> Iterator[None]:
    logger = logger_with(handler)
    before = signal.signal(signal.SIGALRM, lambda *_: logger.warning("signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.000_5, 0.000_5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _collections(handler: SQLiteHandler) -> Iterator[None]:
    logger = logger_with(handler)

    class Talks:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            logger.info("collected")

    with _again_and_again(0.000_5, Talks):
        before = gc.get_threshold()
        gc.set_threshold(10)
        try:
            yield
        finally:
            gc.set_threshold(*before)


FAULTS: dict[str, Fault] = {
    "none": _nothing,
    "locked by another process": _locked,
    "no room": _no_room,
    "unlinked, again and again": _unlinked,
    "closed, again and again": _closed,
    "a fork each 20 ms": _forks,
    "a signal that logs each 0.5 ms": _signals,
    "collections that log": _collections,
}


def _call(handler: SQLiteHandler, seconds: float) -> tuple[list[float], list[float]]:
    """Call from four threads; return the microseconds of each call of ours and of the floor, in order of size."""
    loggers = logger_with(handler), logging.Logger("floor")  # noqa: LOG001 - of no tree
    loggers[1].addHandler(Floor())
    times: tuple[list[float], list[float]] = ([], [])
    deadline = time.monotonic() + seconds

    def work() -> None:
        now = time.perf_counter_ns
        while time.monotonic() < deadline:
            for logger, found in zip(loggers, times, strict=True):
                begin = now()
                logger.info("order %d paid by %s, nothing is left to do", begin, "c-17")
                found.append((now() - begin) / 1000)
            time.sleep(0.000_5)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    return sorted(times[0]), sorted(times[1])


# Processes ------------------------------------------------------------------------------------------------------------


def _processes(report: Report, options: Options) -> None:
    """Let eight processes write to one file, first at a pace, then all at once."""
    rows = []
    for title, pace, count in (
        ("each 1,600 a second", 16, options.pick(48_000, 1_600)),
        ("each 100,000 at once", 0, options.pick(100_000, 10_000)),
    ):
        with folder() as path:
            file = os.path.join(path, "shared.db")
            command = [sys.executable, "-m", "tests.benchmarks.faults", file, str(pace), str(count)]
            workers = [
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                for _ in range(8)
            ]
            found = [json.loads(worker.communicate()[0]) for worker in workers]
            report.verify(title, [count] * 8, [one["written"] for one in found])
            report.verify(title, 8 * count, count_rows(file, "logs WHERE logger = 'shop.orders'"))
            with contextlib.closing(sqlite3.connect(file)) as connection:
                report.verify(title, ("ok",), connection.execute("PRAGMA integrity_check").fetchone())
        waits = sorted(one["longest"] for one in found)
        rows.append([title, 8 * count, max(one["seconds"] for one in found), waits[0], waits[-1]])
        note = f"eight processes, {title}"
        report.bound("longest that a process waits for a commit", "<=", 1, waits[-1], waits[0], unit=" s", note=note)
    columns = ["eight processes on one file", "rows", "seconds", "longest without a commit, s: best", "worst process"]
    report.table("eight processes", columns, rows)


def main(file: str, pace: str, count: str) -> None:
    """Be one of eight processes: log so many rows, and note how long rows were there and none was committed."""
    logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
    handler = SQLiteHandler(file, capacity=200_000, close_timeout=60)
    logger = logger_with(handler)
    longest, over = [0.0], threading.Event()
    begin = time.monotonic()

    def look() -> None:
        while not over.wait(0.01):
            stats = handler.stats()
            if stats.queued:
                longest[0] = max(longest[0], stats.last_commit_age or time.monotonic() - begin)

    watch = threading.Thread(target=look)
    watch.start()
    for number in range(int(count)):
        logger.info("order %d paid", number)
        if int(pace) and number % int(pace) == 0:
            time.sleep(0.01)
    while handler.stats().queued:  # not by flush: what is measured are the listener's turns
        time.sleep(0.05)
    over.set()
    watch.join()
    seconds = time.monotonic() - begin
    handler.close()
    print(json.dumps({"written": handler.stats().written, "longest": longest[0], "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
