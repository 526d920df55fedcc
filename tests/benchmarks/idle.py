"""
How often the listener wakes up when nothing is logged.
"""

from __future__ import annotations

import os
import threading
import time

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import Options, Report, count_rows, folder, status
from tests.benchmarks.load import logger_with


def run(report: Report, options: Options) -> None:
    """Log one record, wait until it is written, then count the switches of the listener's thread."""
    if not os.path.exists("/proc/self/task"):
        report.say("not measured: no /proc/self/task on this system")
        return
    seconds = options.pick(10, 2)
    with folder() as path:
        before = set(threading.enumerate())
        handler = SQLiteHandler(os.path.join(path, "app-log.db"))
        logger_with(handler).info("the only one")
        (listener,) = set(threading.enumerate()) - before
        handler.flush()
        report.verify("idle", 1, count_rows(handler.filename))
        time.sleep(0.5)
        task = f"self/task/{listener.native_id}"
        switches = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        first = [status(name, task) for name in switches]
        time.sleep(seconds)
        last = [status(name, task) for name in switches]
        handler.close()
    rows = [[name, new - old, (new - old) / seconds] for name, old, new in zip(switches, first, last, strict=True)]
    report.table(f"the listener's thread while nothing is logged for {seconds} s", ["", "count", "per second"], rows)
    wakes = (last[0] - first[0]) / seconds
    report.bound("wake-ups per second when nothing is logged", "<=", 0, wakes, wakes, unit="")
