"""
Rows per second that are there to stay: from the first call until the last row is committed and counted.

It is a burst that fits into the queue, so nothing is dropped. Who loses records has no rate: the table says how many.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

from tests.benchmarks.core import ROOT, Options, Report, alternate, folder, middle, ratio
from tests.benchmarks.load import args, in_threads
from tests.benchmarks.stores import CEILING, IN_THE_CALLER, OURS, STORES, TEXT_FILE, InTheCaller

# They are always there: one that cannot be measured fails the run.
OWN = (OURS, CEILING, TEXT_FILE)
# Seconds for a round. One of the peers deadlocks when several threads log.
_PATIENCE = 30


class Hung(Exception):  # noqa: N818 - what happened
    """
    A store did not come back.
    """


class Worker:
    """A process that keeps one log again and again, one round each time it is told to; the others sleep meanwhile."""

    def __init__(self, name: str, count: int, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.durable", name, str(count), str(threads)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def round(self) -> dict[str, Any]:
        """Keep the log once; return what came of it."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], _PATIENCE)[0]:
            raise Hung(f"hung for {_PATIENCE} s")
        line = process.stdout.readline()
        if not line:
            raise Hung("its process died")
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise Hung(result["error"])
        return result

    def end(self) -> None:
        """End the process, hung or not."""
        self._process.kill()
        self._process.communicate()


def run(report: Report, options: Options) -> None:
    """Let everybody keep the same log, from 1 and from 4 threads."""
    count = options.pick(50_000, 5_000)
    pictured = {}
    for threads in (1, 4):
        pictured[threads] = _compare(report, count, threads, options.times(7, 2))

    def draw(axes: Any) -> None:
        names = sorted(pictured[1], key=pictured[1].__getitem__)
        for at, (threads, rates) in enumerate(pictured.items()):
            heights = [number + (0.2 if at else -0.2) for number in range(len(names))]
            axes.barh(heights, [rates.get(name, 0) for name in names], 0.38, label=f"{threads} thread{'s' * at}")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="durable rows per second (median)", title=f"{count:,} records, from first call to last commit")
        axes.legend()

    report.plot(options, "peers.png", draw, (9, 4.5))


def _compare(report: Report, count: int, threads: int, rounds: int) -> dict[str, float]:
    stalls: list[float] = []
    lost: dict[str, str] = {}
    workers: dict[str, Worker] = {}

    def durable(name: str) -> float:
        if name in lost:
            return 0.0
        try:
            result = workers[name].round()
        except Hung as error:
            if name in OWN:
                raise
            lost[name] = f"not measured: {error}"
            return 0.0
        if name in OWN:
            report.verify(f"{name}, {threads} threads", result["logged"], result["found"])
        elif result["found"] != result["logged"]:
            lost[name] = f"{result['found']:,} of {result['logged']:,} found"
        if "stall" in result:
            stalls.append(result["stall"])
        return float(result["logged"] / result["seconds"])

    cases: dict[str, Callable[[], float]] = {
        name: lambda name=name: durable(name)  # type: ignore[misc]
        for name in STORES
    }
    try:
        for name in STORES:
            workers[name] = Worker(name, count, threads)
        alternate(cases, 1)  # warms up, and shows who is there
        stalls.clear()
        samples = alternate(cases, rounds)
    finally:
        for worker in workers.values():
            worker.end()

    rows: list[list[object]] = []
    for name in STORES:
        if name in lost:
            rows.append([name, "", "", "", "", lost[name]])
            samples.pop(name, None)
            continue
        theirs = [f"{value:.2f}" for value in ratio(samples, OURS, name, max)]
        text = f"{ratio(samples, name, TEXT_FILE, max)[0]:.2f}"
        rows.append([name, *theirs, text, f"{middle(samples[name]):,.0f}", f"{max(samples[name]):,.0f}"])
    report.table(
        f"durable rows per second, {threads} thread{'s' * (threads > 1)}, {count:,} records",
        ["", "ours is x times, median", "best", "against FileHandler", "rows/s median", "rows/s best"],
        rows,
    )
    if stalls:
        report.say(f"{IN_THE_CALLER}: a caller stood still for {middle(stalls) * 1000:.0f} ms (median), "
                   f"{max(stalls) * 1000:.0f} ms (worst)")  # fmt: skip
    note = f"{threads} thread{'s' * (threads > 1)}"
    if CEILING in samples:
        median, best = ratio(samples, CEILING, TEXT_FILE, max)
        report.say(f"{note}: if writing took no time, {median:.2f} of FileHandler's rate (best {best:.2f})")
    report.bound("durable rows/s against FileHandler", ">=", 1.5, *ratio(samples, OURS, TEXT_FILE, max), note=note)
    for name in samples:
        if STORES[name].in_sqlite and name != OURS:
            report.bound(f"durable rows/s against {name}", ">=", 4, *ratio(samples, OURS, name, max), note=note)
    return {name: middle(rates) for name, rates in samples.items()}


def _work(name: str, count: int, threads: int) -> dict[str, Any]:
    store_class = STORES[name]
    each = count // store_class.share // threads
    with folder() as path:
        store = store_class(path, count)
        try:

            def work() -> None:
                in_threads(threads, lambda _: args(store.logger, each))
                store.finish()

            seconds = in_threads(1, lambda _: work())
            result = {"seconds": seconds, "logged": each * threads, "found": store.count()}
            if isinstance(store, InTheCaller):
                result["stall"] = store.stall
            return result
        finally:
            store.close()


def main(name: str, count: str, threads: str) -> None:
    """Be a `Worker`'s process."""
    warnings.simplefilter("ignore")
    for _ in sys.stdin:
        try:
            result = _work(name, int(count), int(threads))
        except Exception as error:  # noqa: BLE001 - a package that is not installed, or does not work here
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
