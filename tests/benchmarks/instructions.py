"""
Instructions instead of seconds, counted by callgrind, so that no neighbour on the machine changes them.

A call: what 2,000 more calls take, over the floor, as a share of what they take `QueueHandler` on a bounded `Queue`,
by themselves and under a profiler, a function of Python that `sys.setprofile` calls.
Import and a program of one line: as in `tests.benchmarks.import_time`.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys

from tests.benchmarks import import_time
from tests.benchmarks.call import FLOOR, OURS, REFUSED, STDLIB, Pure
from tests.benchmarks.core import ROOT, Options, Report, folder
from tests.benchmarks.load import SHAPES

FEW, MANY = 500, 2_500
PROFILED = "profiled"
LIMITS = {OURS: {"extra": 0.85, "traceback": 1.0}, REFUSED: dict.fromkeys(SHAPES, 0.1)}


def run(report: Report, options: Options) -> None:
    """Count calls in all shapes, the import, and a program of one line."""
    if shutil.which("valgrind") is None:
        report.say("instructions: valgrind is not installed")
        return
    with folder() as path:
        _start(report, path)
        rows: list[list[object]] = []
        for shape in options.pick(list(SHAPES), ["args"]):
            counted = {case: _calls(path, shape, case) for case in (FLOOR, STDLIB, OURS, REFUSED)}
            over = {case: count - counted[FLOOR] for case, count in counted.items()}
            rows += [[shape, case, round(count), count / over[STDLIB]] for case, count in over.items()]
            for case in (OURS, REFUSED):
                share = over[case] / over[STDLIB]
                limit = LIMITS[case].get(shape, 0.2)
                report.bound(f"added cost, {case} call, {shape}, by instructions", "<=", limit, share, share)
            profiled = {case: _calls(path, shape, case, PROFILED) for case in (FLOOR, STDLIB, OURS)}
            count, theirs = (profiled[case] - profiled[FLOOR] for case in (OURS, STDLIB))
            rows.append([shape, f"{OURS}, under a profiler", round(count), count / theirs])
        report.table("instructions of a call over the floor", ["shape", "handler", "instructions", "ratio"], rows)


def _start(report: Report, path: str) -> None:
    ours, text = (import_time.PROGRAM_OF.format(then=then) for then in (import_time.OURS_THEN, import_time.TEXT_THEN))
    base = import_time.BASE
    cases = {"pass": "pass", "base": base, "package": f"{base}\nimport sqlite_log_handler", "ours": ours, "text": text}
    counts = {name: _count(path, "-c", script, path) for name, script in cases.items()}
    theirs = counts["base"] - counts["pass"]
    table = {import_time.STDLIB: theirs, import_time.OURS: counts["package"] - counts["base"]}
    table |= {import_time.PROGRAM: counts["ours"], import_time.TEXT_PROGRAM: counts["text"]}
    report.table("millions of instructions", ["", "millions"], [[name, count / 1e6] for name, count in table.items()])
    for what, limit, share in (
        (import_time.BOUND, 0.4, table[import_time.OURS] / theirs),
        (import_time.PROGRAM_BOUND, 1.8, counts["ours"] / counts["text"]),
    ):
        report.bound(f"{what}, by instructions", "<=", limit, share, share)


def _calls(path: str, *words: str) -> float:
    few, many = (_count(path, "-m", "tests.benchmarks.instructions", str(at), *words) for at in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _count(path: str, *arguments: str) -> int:
    """Count the instructions of this Python on `arguments`, whose first run writes the bytecode and the files."""
    environment = {
        **os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{path}/bytecode"
    }  # fmt: skip
    command = [sys.executable, *arguments]
    counting = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={path}/callgrind.out", *command]
    for words in (command, command, counting):
        done = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(done.stderr)
    return int(found[1])


if __name__ == "__main__":
    with folder() as files:
        pure = Pure(files, Report("instructions"))
        gc.collect()
        gc.freeze()  # or a collection of all that was imported falls into the one run, and not into the other
        number, shape, case, *how = sys.argv[1:]
        if how == [PROFILED]:
            sys.setprofile(lambda *_: None)
        pure.burst(case, SHAPES[shape], int(number))
        sys.setprofile(None)
        pure.close()
