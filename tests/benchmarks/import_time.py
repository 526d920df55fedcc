"""
What `import sqlite_log_handler` takes: when the modules of the standard library that it needs are there already, and
when only `logging` and `sqlite3` are. With its bytecode at hand, as an installed package has it.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.core import Options, Report, alternate, folder, middle, python

_SCRIPT = """
import sys, time
import {modules}
begin = time.perf_counter()
import sqlite_log_handler
print((time.perf_counter() - begin) * 1000)
"""


def run(report: Report, options: Options) -> None:
    """
    Import in fresh processes.
    """
    with folder() as bytecode:

        def fresh(modules: Sequence[str]) -> float:
            script = _SCRIPT.format(modules=", ".join(modules))
            return float(python("-c", script, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=bytecode))

        cases = {
            "over its standard-library imports": lambda: fresh(_standard_modules()),
            "over logging and sqlite3": lambda: fresh(["logging", "sqlite3"]),
        }
        alternate(cases, 1)  # writes the bytecode
        samples = alternate(cases, options.times(30, 5))
    rows = [[name, middle(times), min(times)] for name, times in samples.items()]
    report.table("milliseconds to import, each in a fresh process", ["", "median", "best"], rows)
    for name, times in samples.items():
        report.bound(f"import, {name}", "<=", 10, middle(times), min(times), unit=" ms")


def _standard_modules() -> list[str]:
    """
    List what the modules of the package import that are imported with it.
    """
    spec = importlib.util.find_spec("sqlite_log_handler")
    assert spec is not None
    assert spec.origin is not None
    names = {"logging", "logging.handlers"}
    for file in sorted(Path(spec.origin).parent.glob("_*.py")):
        if file.stem not in {"_row", "_queue", "_schema", "_writer", "_listener", "_handler"}:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return sorted(name for name in names if not name.startswith("sqlite_log_handler"))
