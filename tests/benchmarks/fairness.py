"""
One logger floods while the file is locked: what that costs the quiet loggers beside it, with and without fair share.

The model runs the queue alone, by a clock of its own: 20 quiet loggers at 50 records a second, a flood at a multiple of
the rate that the writer takes, and ten seconds in which nothing can be written. The real run does the same with threads
and a file that another process locks.
"""

from __future__ import annotations

import logging
import os
import random
import time
from typing import Any

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._write.queue import ANY, RecordQueue
from tests.benchmarks.core import Options, Report, count_rows, folder, rss
from tests.benchmarks.load import Locker, in_threads

INFO = 20
QUIET = 20
QUIET_RATE = 50
# Records a second that the writer takes: low, so that a hundred times as much can be offered.
WRITER_RATE = 1_000
STRENGTHS = (1, 3, 10, 30, 100)
TICK = 0.1
LOCKED = 10.0
SIZE = 5
NAMES = 1_000_000


def run(report: Report, options: Options) -> None:
    """Run the model over all strengths of the flood, then at full strength over many seeds, then for real."""
    seeds = options.pick(1_000, 5)
    strengths = options.pick(STRENGTHS, (1, 10))
    lost: dict[str, list[float]] = {}
    rows = []
    for times in strengths:
        for name, share in (("fair_share 0.5", 0.5), ("without", 1.0)):
            quiet, flood = _model(0, times, share, report)
            lost.setdefault(name, []).append(quiet)
            rows.append([f"{times} x {WRITER_RATE:,} records/s", name, quiet, f"{flood:.0%}"])
    report.table(
        f"the model: {QUIET} quiet loggers at {QUIET_RATE} records/s, file locked for {LOCKED:g} s",
        ["flood", "option", "lost by the quiet", "lost by the flood"],
        [[flood, name, f"{quiet:.1%}", loss] for flood, name, quiet, loss in rows],
    )
    worst = max(_model(seed, 10 + seed % 91, 0.5, report)[0] for seed in range(seeds))
    report.bound(f"records lost by quiet loggers beside a flood, worst of {seeds:,} seeded runs", "<=", 0, worst, worst)
    for name, share in (("fair_share 0.5", 0.5), ("without", 1.0)):
        quiet, flood = _real(report, options, share)
        report.say(f"for real, {name}: the quiet loggers lost {quiet:.1%}, the flood {flood:.1%}")
        if share < 1:
            report.bound("records lost by quiet loggers beside a flood, file locked for real", "<=", 0, quiet, quiet)
    _names(report, options)

    def draw(axes: Any) -> None:
        for name, shares in lost.items():
            axes.plot(strengths, [100 * share for share in shares], marker="o", label=name)
        axes.set(
            xscale="log",
            xlabel="strength of the flood, over the rate that the writer takes",
            ylabel="% of the quiet loggers' records lost",
            title=f"One logger floods, {QUIET} others log {QUIET_RATE} records a second, file locked for {LOCKED:g} s",
            ylim=(-5, 105),
        )
        axes.set_xticks(list(strengths), [f"{times}x" for times in strengths])
        axes.grid(alpha=0.3)
        axes.legend()

    report.plot(options, "fairness.png", draw)


def _model(seed: int, times: float, share: float, report: Report) -> tuple[float, float]:
    """Return the shares of their records that the quiet loggers and the flood lost."""
    draw = random.Random(seed)
    queue = RecordQueue(100_000, (64 << 20), reserve=0.1, fair_share=share)
    queue.open()
    offered, lost = [0, 0], [0, 0]

    def log(kind: int, logger: str, many: int) -> None:
        before = queue.queued
        for _ in range(many):
            if queue.admits is not ANY and queue.refuse(INFO, 0.0, logger):
                break  # nothing leaves before the next step, so the rest of this burst is refused too
            queue.put_nowait((INFO, 0.0, (logger, "file.py", 1, "func"), SIZE, 0))
        offered[kind] += many
        lost[kind] += many - (queue.queued - before)

    steps = int(LOCKED / TICK)
    for step in range(steps + 20):
        if step >= steps:
            queue.end_commit(queue.begin_commit(int(WRITER_RATE * TICK) * SIZE))
        # Bursts of the flood fall between those of the others, in any order.
        turns = [(1, "flood", int(times * WRITER_RATE * TICK) // 4)] * 4
        turns += [(0, f"quiet {number}", int(QUIET_RATE * TICK)) for number in range(QUIET)]
        draw.shuffle(turns)
        for turn in turns:
            log(*turn)
        queue.take_drops()
    books = queue.books()
    report.verify(f"model {seed}, stored", sum(offered) - sum(lost), books["written"] + books["queued"])
    return lost[0] / offered[0], lost[1] / offered[1]


def _real(report: Report, options: Options, share: float) -> tuple[float, float]:
    seconds = options.pick(LOCKED, 1.0)
    capacity = options.pick(100_000, 5_000)
    with folder() as path:
        handler = SQLiteHandler(os.path.join(path, "app-log.db"), capacity=capacity, fair_share=share)
        loggers = [logging.getLogger(name) for name in ("flood", *(f"quiet {number}" for number in range(QUIET)))]
        for logger in loggers:
            logger.handlers[:], logger.propagate = [handler], False
            logger.setLevel(INFO)
        loggers[1].info("first")
        handler.flush()
        locker = Locker(handler.filename)
        calls = [0, 0]

        def work(thread: int) -> None:
            end = time.monotonic() + seconds
            if thread == 0:
                while time.monotonic() < end:
                    for number in range(1_000):
                        loggers[0].info("order %d paid by %s, nothing is left to do", number, "c-17")
                    calls[1] += 1_000
                return
            due = time.monotonic()
            while due < end:
                for logger in loggers[1:]:
                    logger.info("stock of %s is counted", "tea")
                calls[0] += QUIET
                due += 1 / QUIET_RATE
                time.sleep(max(0, due - time.monotonic()))

        with locker.locked():
            in_threads(2, work)
        handler.flush(60)
        locker.end()
        stats = handler.stats()
        handler.close()
        by_logger = dict(stats.dropped_by_logger)
        flood = by_logger.pop("flood", 0)
        report.verify("real, all", sum(calls) + 1, stats.seen)
        stored = count_rows(handler.filename, "logs WHERE logger != 'sqlite_log_handler'")
        report.verify("real, stored", stats.written, stored)
        return sum(by_logger.values()) / calls[0], flood / calls[1]


def _names(report: Report, options: Options) -> None:
    """Log under names that are made up without end, into a queue under pressure."""
    names = options.pick(NAMES, 20_000)
    queue = RecordQueue(10_000, 64 << 20, reserve=0.1, fair_share=0.5)
    queue.open()
    before = rss()
    for number in range(names):
        name = f"name {number}"
        if queue.admits is ANY or not queue.refuse(INFO, 0.0, name):
            queue.put_nowait((INFO, 0.0, (name, "file.py", 1, "func"), SIZE, 0))
    grown = rss() - before
    books = queue.books()
    report.verify("names", names, books["seen"])
    report.verify("names", sum(books["drops"].values()) + queue.queued, books["seen"])
    report.say(
        f"{names:,} logger names under pressure: {grown / 1e6:.1f} MB grown, {queue.queued:,} queued, "
        f"{len(books['drops']):,} keys in the ledger, {len(queue._shares._held):,} holders; the books are exact"
    )
