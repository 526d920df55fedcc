"""
Rounds, tables, bounds: what every benchmark is written in.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    rounds: int | None = None
    quick: bool = False
    lines: tuple[str, ...] = ()
    images: str = str(ROOT / "docs" / "images")

    def times(self, full: int, quick: int) -> int:
        """Return how many rounds to do."""
        return self.rounds or (quick if self.quick else full)

    def pick(self, full: Any, quick: Any) -> Any:
        """Return the first, or with --quick the second."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Bound:
    """A bound, and what was measured. The median decides."""

    benchmark: str
    what: str
    relation: str  # "<=" or ">="
    limit: float
    unit: str
    median: float
    best: float
    note: str = ""

    def allows(self, value: float) -> bool:
        """Tell whether a value is within the bound."""
        return value <= self.limit if self.relation == "<=" else value >= self.limit

    @property
    def verdict(self) -> str:
        """Say whether it holds."""
        if self.allows(self.median):
            return "holds"
        return "best only" if self.allows(self.best) else "NO"

    def row(self) -> list[str]:
        """Return a line of the table of all bounds."""
        values = [f"{number(value)}{self.unit}" for value in (self.median, self.best)]
        what = f"{self.what}; {self.note}" if self.note else self.what
        return [self.benchmark, what, f"{self.relation} {self.limit:g}{self.unit}", *values, self.verdict]


@dataclass
class Report:
    """What one benchmark has to say; it is printed as it comes."""

    name: str
    bounds: list[Bound] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table and keep it for the JSON."""
        self.data[title] = [dict(zip(columns, row, strict=True)) for row in rows]
        print(f"\n{title}\n{layout(columns, rows)}", flush=True)

    def bound(
        self, what: str, relation: str, limit: float, median: float, best: float, *, unit: str = "x", note: str = ""
    ) -> None:
        """Print whether a bound holds, and keep it for the table at the end."""
        bound = Bound(self.name, what, relation, limit, unit, median, best, note)
        self.bounds.append(bound)
        _, what, limits, median_text, best_text, verdict = bound.row()
        print(f"bound: {what} {limits}: median {median_text}, best {best_text}: {verdict}", flush=True)

    def verify(self, what: str, expected: object, actual: object) -> bool:
        """Compare what was logged with what was found; a difference fails the run."""
        if expected != actual:
            self.failures.append(f"{self.name}: {what}: {expected!r} logged, {actual!r} found")
            print(f"NOT DELIVERED: {self.failures[-1]}", flush=True)
        return expected == actual

    def plot(
        self, options: Options, file: str, draw: Callable[[Any], None], size: tuple[float, float] = (8, 4)
    ) -> None:
        """Draw a PNG by matplotlib, when it is there. A quick run leaves the pictures of the last full one."""
        if options.quick:
            return
        try:
            import matplotlib as mpl  # noqa: PLC0415 - of the bench extra, and it takes a second
        except ImportError as error:
            self.say(f"no plot {file}: {error}")
            return
        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415 - same

        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        os.makedirs(options.images, exist_ok=True)
        path = os.path.join(options.images, file)
        figure.savefig(path, dpi=100)
        plt.close(figure)
        self.plots.append(path)
        self.say(f"plot: {path}")

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        bounds = [{**asdict(bound), "verdict": bound.verdict} for bound in self.bounds]
        return {"bounds": bounds, "tables": self.data, "failures": self.failures, "plots": self.plots}


def alternate(cases: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Measure each case once a round; every round begins with another one, so that none is always first."""
    samples: Samples = {name: [] for name in cases}
    names = list(cases)
    for number_of_round in range(rounds):
        shift = number_of_round % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            samples[name].append(cases[name]())
    return samples


def middle(samples: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(samples)


def over_floor(samples: Samples, case: str, against: str, floor: str) -> tuple[float, float]:
    """Return what `case` adds to the floor as a share of what `against` adds: of the medians, and of the best times."""
    ratios = []
    for pick in (middle, min):
        base = pick(samples[floor])
        ratios.append((pick(samples[case]) - base) / (pick(samples[against]) - base))
    return ratios[0], ratios[1]


def ratio(samples: Samples, case: str, against: str, best: Callable[[Sequence[float]], float]) -> tuple[float, float]:
    """Return `case` over `against`: of the medians, and of the best, which is `min` for times and `max` for rates."""
    return middle(samples[case]) / middle(samples[against]), best(samples[case]) / best(samples[against])


def number(value: float) -> str:
    """Write a number with as many digits as it deserves."""
    if value != value or abs(value) >= 100:  # noqa: PLR0124 - NaN
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def layout(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a table: the first column and texts to the left, numbers to the right."""
    texts = [[number(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    right = [all(isinstance(row[at], int | float) for row in rows) for at in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *texts]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of them do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """Make a folder for one measurement, on the disk where temporary files are."""
    path = tempfile.mkdtemp(prefix="sqlite-log-bench-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def count_rows(path: str, table: str = "records") -> int:
    """Count what is in a database, as somebody else would see it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def count_lines(path: str) -> int:
    """Count the lines of a text file."""
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def python(*arguments: str, timeout: float = 600, **environment: str) -> str:
    """Run this Python on `arguments` in the repository, with these environment variables, and return what it prints."""
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    if run.returncode:
        raise RuntimeError(f"{arguments}: {run.stderr[-2000:]}")
    return run.stdout


def status(name: str, task: str = "self") -> int:
    """Read a number from /proc/self/status, or from that of another process or thread (`self/task/123`)."""
    with open(f"/proc/{task}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise KeyError(name)


def rss(pid: int | str = "self") -> int:
    """Return the resident memory of a process in bytes."""
    return status("VmRSS", str(pid)) * 1024


def machine() -> dict[str, str]:
    """Describe what this runs on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} x {model}",
        "Python": f"{platform.python_version()}, switch interval {sys.getswitchinterval() * 1000:g} ms",
        "SQLite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "folder": tempfile.gettempdir(),
    }
