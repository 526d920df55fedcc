"""
What `import sqlite_log_handler` takes, when the modules of the standard library that it needs are there already.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from tests.benchmarks.core import Options, Report, alternate, middle, python

_SCRIPT = """
import sys, time
begin = time.perf_counter()
import {modules}
between = time.perf_counter()
import sqlite_log_handler
end = time.perf_counter()
print((between - begin) * 1000, (end - between) * 1000, sqlite_log_handler.__file__)
"""


def run(report: Report, options: Options) -> None:
    """
    Import in fresh processes.
    """
    script = _SCRIPT.format(modules=", ".join(_standard_modules()))
    both: dict[str, list[float]] = {"its standard library": [], "sqlite_log_handler": []}

    def fresh() -> float:
        first, second, _ = python("-c", script).split(maxsplit=2)
        both["its standard library"].append(float(first))
        both["sqlite_log_handler"].append(float(second))
        return float(second)

    fresh()  # writes the bytecode
    for times in both.values():
        times.clear()
    alternate({"import": fresh}, options.times(30, 5))
    rows = [[name, middle(times), min(times)] for name, times in both.items()]
    report.table("milliseconds to import, each in a fresh process", ["", "median", "best"], rows)
    times = both["sqlite_log_handler"]
    report.bound("import, over its standard-library imports", "<=", 10, middle(times), min(times), unit=" ms")


def _standard_modules() -> list[str]:
    """
    List what the modules of the package import that are imported with it.
    """
    spec = importlib.util.find_spec("sqlite_log_handler")
    assert spec is not None
    assert spec.origin is not None
    names = {"logging", "logging.handlers"}
    for file in sorted(Path(spec.origin).parent.glob("_*.py")):
        if file.stem in {"__main__", "_cli", "_demo", "_reader"}:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return sorted(name for name in names if not name.startswith("sqlite_log_handler"))
