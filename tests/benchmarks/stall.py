"""
The post-mortem again: another process locks the database while chatty threads log.

(a) is the standard library's unbounded queue in front of SQLite, with a batched insert, so that it keeps up as long as
there is no lock; (b) is this handler. Each is a process of its own, and (a) is stopped before it hurts the machine.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import ROOT, Options, Report, count_rows, folder, rss
from tests.benchmarks.load import Locker, logger_with
from tests.benchmarks.stores import TableHandler

THREADS = 4
# Of each thread, a second.
RATE = 5_000
MESSAGE = "request %d of %s: " + 800 * "x"
CAP = 2 * 1000**3
BEFORE, AFTER = 3.0, 10.0
STDLIB, OURS = "QueueHandler, unbounded Queue, SQLite", "sqlite-log-handler"


def run(report: Report, options: Options) -> None:
    """Lock the database in the middle of both."""
    if not os.path.exists("/proc/self/status"):
        report.say("not measured: no /proc/self/status on this system")
        return
    locked = options.pick(30.0, 5.0)
    rows = []
    curves = {}
    for name in (STDLIB, OURS):
        curve, result = _run(name, locked)
        curves[name] = curve
        first, peak, last = curve[0][1], max(size for _, size in curve), curve[-1][1]
        if result is None:
            rows.append([name, first, peak, last, "-", "-", "-", f"stopped at {CAP / 1e9:g} GB"])
            continue
        report.verify(name, result["logged"], result["written"] + result["dropped"])
        report.verify(name, result["written"], result["found"])
        said = "all accounted for" if result["logged"] == result["found"] + result["dropped"] else "LOST"
        rows.append([name, first, peak, last, *(f"{result[key]:,}" for key in ("logged", "written", "dropped")), said])
    columns = ["", "MB before", "MB peak", "MB after", "logged", "written", "dropped", ""]
    title = f"database locked for {locked:g} s, {THREADS} threads log {THREADS * RATE:,} records of 800 bytes a second"
    report.table(title, columns, rows)
    report.data["curves"] = curves

    def draw(axes: Any) -> None:
        for name, curve in curves.items():
            axes.plot([second for second, _ in curve], [size for _, size in curve], label=name)
        axes.axvspan(BEFORE, BEFORE + locked, alpha=0.12, color="gray", label="database locked by another process")
        axes.set(xlabel="seconds", ylabel="resident memory, MB", title=title, ylim=(0, None))
        axes.title.set_fontsize("medium")
        axes.grid(alpha=0.3)
        axes.legend(loc="center right")

    report.plot(options, "stall-memory.png", draw)


def _run(name: str, locked: float) -> tuple[list[tuple[float, float]], dict[str, Any] | None]:
    with folder() as path:
        file = os.path.join(path, "log.db")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.stall", name, file, str(BEFORE + locked + AFTER)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()  # the table is there
        locker = Locker(file)
        holding = locker.locked()
        begin = time.monotonic()
        state, curve = "before", []
        while process.poll() is None:
            now = time.monotonic() - begin
            try:
                size = rss(process.pid)
            except (OSError, KeyError):  # it has just ended
                break
            curve.append((round(now, 2), size / 1e6))
            if size > CAP:
                process.kill()
            if state == "before" and now >= BEFORE:
                state = "locked"
                holding.__enter__()
            elif state == "locked" and now >= BEFORE + locked:
                state = "after"
                holding.__exit__(None, None, None)
            time.sleep(0.05)
        output = process.communicate()[0]
        if state == "locked":
            holding.__exit__(None, None, None)
        locker.end()
        if process.returncode:
            return curve, None
        result: dict[str, Any] = json.loads(output)
        result["found"] = count_rows(file, "records" if name == STDLIB else "logs WHERE logger = 'shop.orders'")
        return curve, result


def chat(name: str, path: str, seconds: float) -> dict[str, int]:
    """Be the process that logs."""
    begin = time.monotonic()
    if name == OURS:
        ours = SQLiteHandler(path, close_timeout=60)
        logger = logger_with(ours)
    else:
        table = TableHandler(path, 1_000, timeout=120)
        waiting: queue.Queue[Any] = queue.Queue()
        listener = QueueListener(waiting, table)
        listener.start()
        logger = logger_with(QueueHandler(waiting))
    print("ready", flush=True)
    counts = [0] * THREADS

    def talk(number: int) -> None:
        due = begin
        while time.monotonic() - begin < seconds:
            due += 0.02
            for _ in range(RATE // 50):
                logger.info(MESSAGE, counts[number], threading.current_thread().name)
                counts[number] += 1
            time.sleep(max(0, due - time.monotonic()))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if name == OURS:
        ours.flush(60)
        ours.close()
        stats = ours.stats()
        return {"logged": sum(counts), "written": stats.written, "dropped": stats.dropped_total}
    listener.stop()
    table.close()
    return {"logged": sum(counts), "written": sum(counts), "dropped": 0}


if __name__ == "__main__":
    print(json.dumps(chat(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
