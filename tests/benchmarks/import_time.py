"""
What `import sqlite_log_handler` takes over `import logging.handlers, sqlite3`, in units of what those two take over a
bare Python. With its bytecode at hand, as an installed package has it.

And what a program that logs one line takes, from its start to its end, against one with a `FileHandler`.
"""

from __future__ import annotations

import time

from tests.benchmarks.core import Options, Report, alternate, folder, middle, python, ratio

_SCRIPT = """
import sys, time
{first}
begin = time.perf_counter()
{then}
print((time.perf_counter() - begin) * 1000)
"""
PROGRAM_OF = """
import logging, sys
{then}
logging.getLogger().addHandler(handler)
logging.getLogger().error("one line")
"""
BASE = "import logging.handlers, sqlite3"
OURS, STDLIB = "sqlite_log_handler, over those two", "logging.handlers and sqlite3, over a bare Python"

OURS_THEN = "import sqlite_log_handler; handler = sqlite_log_handler.SQLiteHandler(sys.argv[1] + '/log.db')"
TEXT_THEN = "handler = logging.FileHandler(sys.argv[1] + '/log.txt')"
PROGRAM, TEXT_PROGRAM = "a program of one line", "the same with FileHandler"
BOUND = "import, in units of logging.handlers and sqlite3"
PROGRAM_BOUND = "a program that logs one line to a file that exists, against FileHandler"


def run(report: Report, options: Options) -> None:
    """Import in fresh processes."""
    with folder() as bytecode:

        def fresh(first: str, then: str) -> float:
            script = _SCRIPT.format(first=first, then=then)
            return float(python("-c", script, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=bytecode))

        def program(then: str) -> float:
            begin = time.perf_counter()
            script = PROGRAM_OF.format(then=then)
            python("-c", script, bytecode, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=bytecode)
            return (time.perf_counter() - begin) * 1000

        cases = {
            OURS: lambda: fresh(BASE, "import sqlite_log_handler"),
            STDLIB: lambda: fresh("", BASE),
            PROGRAM: lambda: program(OURS_THEN),
            TEXT_PROGRAM: lambda: program(TEXT_THEN),
        }
        alternate(cases, 1)  # writes the bytecode and the files
        samples = alternate(cases, options.times(30, 5))
    rows = [[name, middle(times), min(times)] for name, times in samples.items()]
    report.table("milliseconds, each in a fresh process", ["", "median", "best"], rows)
    report.bound(BOUND, "<=", 0.4, *ratio(samples, OURS, STDLIB, min))
    report.bound(PROGRAM_BOUND, "<=", 1.8, *ratio(samples, PROGRAM, TEXT_PROGRAM, min))
