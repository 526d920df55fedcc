"""
What `import sqlite_log_handler` takes over `import logging.handlers, sqlite3`, in units of what those two take over a
bare Python. With its bytecode at hand, as an installed package has it.
"""

from __future__ import annotations

from tests.benchmarks.core import Options, Report, alternate, folder, middle, python, ratio

_SCRIPT = """
import sys, time
{first}
begin = time.perf_counter()
{then}
print((time.perf_counter() - begin) * 1000)
"""
_BASE = "import logging.handlers, sqlite3"
OURS, STDLIB = "sqlite_log_handler, over those two", "logging.handlers and sqlite3, over a bare Python"


def run(report: Report, options: Options) -> None:
    """Import in fresh processes."""
    with folder() as bytecode:

        def fresh(first: str, then: str) -> float:
            script = _SCRIPT.format(first=first, then=then)
            return float(python("-c", script, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=bytecode))

        cases = {
            OURS: lambda: fresh(_BASE, "import sqlite_log_handler"),
            STDLIB: lambda: fresh("", _BASE),
        }
        alternate(cases, 1)  # writes the bytecode
        samples = alternate(cases, options.times(30, 5))
    rows = [[name, middle(times), min(times)] for name, times in samples.items()]
    report.table("milliseconds to import, each in a fresh process", ["", "median", "best"], rows)
    report.bound("import, in units of logging.handlers and sqlite3", "<=", 0.4, *ratio(samples, OURS, STDLIB, min))
