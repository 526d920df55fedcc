"""
The page in a real browser: how soon it shows something, and what following a busy log costs.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import ROOT, Options, Report, count_rows, folder, middle
from tests.benchmarks.load import logger_with

if TYPE_CHECKING:
    from collections.abc import Iterator

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

# Logs at a rate, in a process of its own, and prints how many a second it has reached.
WRITER = """
import logging, sys, time
from sqlite_log_handler import SQLiteHandler
path, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
handler = SQLiteHandler(path)
logger = logging.Logger("shop.orders", 1)
logger.addHandler(handler)
logged, begin = 0, time.monotonic()
while (now := time.monotonic()) < begin + seconds:
    due = int((now - begin) * rate) if rate else logged + 100
    for number in range(logged, due):
        logger.info("order %d of customer c-%d paid", number, number % 997, extra={"amount": number % 100})
    logged = max(due, logged)
    if rate:
        time.sleep(0.001)
handler.flush(60)
lasted = time.monotonic() - begin
stats = handler.stats()
handler.close()
assert stats.written == logged - stats.dropped_total
print(stats.written / lasted)
"""

LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => { for (const one of list.getEntries()) longTasks.push(one.duration); })
  .observe({ type: "longtask", buffered: true });
"""


@contextmanager
def served(path: str) -> Iterator[tuple[str, int]]:
    """Run `sqlite-log serve`, and give the address and the process id."""
    command = [sys.executable, "-m", "sqlite_log_handler", "serve", path, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0], process.pid
    finally:
        process.terminate()
        process.communicate()


def cpu_of(pids: list[int]) -> float:
    """Return the seconds of CPU that processes have taken."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def renderers() -> list[int]:
    """Return the processes below this one that draw tabs: another browser may run on this machine."""
    parents: dict[int, int] = {}
    drawing = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", encoding="utf-8") as file:
                if "--type=renderer" in file.read():
                    drawing.append(int(name))
        except OSError:
            continue

    def is_below(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_below(parents[pid]))

    return [pid for pid in drawing if is_below(pid)]


def memory_of(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        (line,) = [line for line in file if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


def fill(path: str, rows: int) -> None:
    """Make a log of so many rows."""
    handler = SQLiteHandler(path, capacity=1_000_000, capacity_bytes=1 << 30)
    logger = logger_with(handler)
    for number in range(rows):
        level = 40 if number % 1_000 == 0 else 30 if number % 100 == 0 else 20
        logger.log(level, "order %d of customer c-%d paid", number, number % 997, extra={"amount": number % 100})
        if number % 50_000 == 0:
            handler.flush(60)
    handler.flush(60)
    handler.close()


def wait(page: Any, expression: str) -> None:
    """Wait until an expression is true in the page."""
    while not page.evaluate(expression):
        time.sleep(0.005)


FILTER = "(query) => { history.pushState(null, '', '?' + query); dispatchEvent(new PopStateEvent('popstate')); }"
SHOWN = "document.querySelectorAll('#rows .row').length > 0"
# Two frames after the rows are there, the browser has painted them.
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def run(report: Report, options: Options) -> None:
    """Open the page on large logs, filter, follow a writer, and let it rest."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError:
        executable = None
    if executable is None:
        report.say("not measured: it needs Chromium and playwright")
        return
    weight = sum(
        len(gzip.compress(file.read_bytes())) for file in files("sqlite_log_handler.serve").joinpath("page").iterdir()
    )
    report.bound("weight of the page, compressed", "<=", 80, weight / 1000, weight / 1000, unit=" kB")
    with sync_playwright() as playwright, folder() as place, ExitStack() as stack:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        stack.callback(browser.close)
        for rows, limit in options.pick([(1_000_000, 1.0), (10_000_000, 1.5)], [(20_000, 1.0)]):
            path = os.path.join(place, f"rows-{rows}.db")
            fill(path, rows)
            report.verify(f"{rows} rows", rows, count_rows(path))
            open_and_filter(report, options, browser, path, rows, limit)
            if rows > 1_000_000:
                os.unlink(path)
        follow(report, options, browser, os.path.join(place, "live.db"))


def open_and_filter(report: Report, options: Options, browser: Any, path: str, rows: int, limit: float) -> None:
    """Measure from opening the address to painted rows, and from a filter to painted rows."""
    opened, filtered = [], {}
    filters = {"level=ERROR": 1, "text=order+77+of": 1, "where=amount%3D7": 1, "text=nowhere": 0}
    with served(path) as (address, _):
        for _ in range(options.times(5, 2)):
            context = browser.new_context()
            page = context.new_page()
            begin = time.monotonic()
            page.goto(address, wait_until="commit")
            wait(page, SHOWN)
            page.evaluate(PAINTED)
            opened.append(time.monotonic() - begin)
            page.wait_for_timeout(1_500)  # the bars have come
            for query, some in filters.items():
                begin = time.monotonic()
                page.evaluate(FILTER, query)
                wait(page, SHOWN if some else "!document.getElementById('empty').hidden")
                page.evaluate(PAINTED)
                filtered.setdefault(query, []).append(time.monotonic() - begin)
                page.wait_for_timeout(500)
            context.close()
    table = [["first rows", middle(opened) * 1000, min(opened) * 1000]]
    table += [[query, middle(taken) * 1000, min(taken) * 1000] for query, taken in filtered.items()]
    report.table(f"until it is painted, {rows:,} rows (ms)", ["what", "median", "best"], table)
    report.bound(f"first rows on screen, {rows:,} rows", "<=", limit, middle(opened), min(opened), unit=" s")
    if rows == 1_000_000 or options.quick:
        slowest = max(filtered.values(), key=middle)
        report.bound("a filter, the slowest", "<=", 0.3, middle(slowest), min(slowest), unit=" s")


def follow(report: Report, options: Options, browser: Any, path: str) -> None:  # noqa: PLR0915 - one story
    """
    Follow a writer of 10,000 records a second, then a log at rest, and compare a writer at full speed without a tab.
    """
    seconds = options.pick(60, 3)
    fill(path, 1_000)

    def write(rate: int, lasting: float) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", WRITER, path, str(rate), str(lasting)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def rate_of(process: subprocess.Popen[str]) -> float:
        out, _ = process.communicate()
        return float(out)

    with served(path) as (address, server):
        context = browser.new_context()
        context.add_init_script(LONG_TASKS)
        page = context.new_page()
        page.goto(address)
        wait(page, SHOWN)
        writer = write(10_000, seconds)
        delays = []
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            while writer.poll() is None:
                # The last row that is committed now, and when it is on the screen.
                last = connection.execute("SELECT max(id) FROM records").fetchone()[0]
                begin = time.monotonic()
                while page.evaluate("Number(document.querySelector('#rows .row:last-child')?.id.slice(5) ?? 0)") < last:
                    if time.monotonic() > begin + 10:
                        break
                    time.sleep(0.005)
                delays.append(time.monotonic() - begin)
                page.wait_for_timeout(100)
        connection.close()
        rate = rate_of(writer)
        page.evaluate("window.gc?.()")
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        tasks = page.evaluate("longTasks")
        memory = memory_of(server)
        page.wait_for_timeout(3_000)
        watched = [server, *renderers()]
        before, began = cpu_of(watched), time.monotonic()
        page.wait_for_timeout(options.pick(20_000, 2_000))
        idle = (cpu_of(watched) - before) / (time.monotonic() - began)
        ratios, busy = [], []
        for _ in range(options.times(5, 1)):
            before, began = cpu_of(watched), time.monotonic()
            beside = rate_of(write(0, options.pick(4, 1)))
            busy.append((cpu_of(watched) - before) / (time.monotonic() - began))
            context.set_offline(offline=True)
            alone = rate_of(write(0, options.pick(4, 1)))
            context.set_offline(offline=False)
            ratios.append(beside / alone)
        context.close()
    delays.sort()
    rows = [
        ["records a second", rate],
        ["on screen after its commit, median (ms)", middle(delays) * 1000],
        ["on screen after its commit, worst (ms)", delays[-1] * 1000],
        ["tasks above 50 ms", len(tasks)],
        ["longest task (ms)", max(tasks, default=0)],
        ["heap of the tab (MB)", heap],
        ["memory of the server (MB)", memory],
        ["CPU of tab and server at rest (% of a core)", idle * 100],
        ["CPU of tab and server beside a writer at full speed (% of a core)", middle(busy) * 100],
    ]
    report.table(f"a tab that follows for {seconds} s", ["what", "value"], rows)
    report.bound("on screen after its commit, worst", "<=", 500, delays[-1] * 1000, middle(delays) * 1000, unit=" ms")
    report.bound("longest task of the tab", "<=", 100, max(tasks, default=0), max(tasks, default=0), unit=" ms")
    report.bound("heap of the tab", "<=", 150, heap, heap, unit=" MB")
    report.bound("memory of the server", "<=", 90, memory, memory, unit=" MB")
    report.bound("CPU of an idle tab on an idle log", "<=", 1, idle * 100, idle * 100, unit=" %")
    report.bound("a writer at full speed beside a tab, against without", ">=", 0.95, middle(ratios), max(ratios))
