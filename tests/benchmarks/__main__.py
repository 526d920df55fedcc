"""
The command: run the benchmarks, print what they say, and all bounds at the end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
import traceback
import warnings

from tests.benchmarks.core import ROOT, Options, Report, layout, machine

# In this order, the short ones that the bounds hang on first. Values: the module, where the name is a keyword.
BENCHMARKS = {
    "call": "call",
    "durable": "durable",
    "commit": "commit",
    "memory": "memory",
    "disk": "disk",
    "writes": "writes",
    "pages": "pages",
    "idle": "idle",
    "import": "import_time",
    "instructions": "instructions",
    "overload": "overload",
    "fairness": "fairness",
    "growth": "growth",
    "stall": "stall",
    "retention": "retention",
    "archive": "archive",
    "faults": "faults",
    "reading": "reading",
    "forward": "forward",
    "serve": "serve",
}


def main() -> int:
    """Run what the command line names. Returns 0, or 1 when something that was logged could not be found again."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="few rounds and rows: shows that it runs, proves nothing")
    parser.add_argument("--lines", nargs="+", default=[], metavar="FILE", help="disk: text logs to take messages from")
    parser.add_argument("--images", default=Options.images, metavar="FOLDER", help="where the plots go")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    options = Options(arguments.rounds, arguments.quick, tuple(arguments.lines), arguments.images)

    warnings.simplefilter("ignore", DeprecationWarning)  # of the peers
    # The drop warnings stand in the databases; here they would stand between the tables.
    logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
    head = machine()
    if sys.path[0] != str(ROOT):
        head["path"] = sys.path[0]
    print("\n".join(f"{name:8} {value}" for name, value in head.items()), flush=True)

    reports = []
    for name in arguments.names or BENCHMARKS:
        report = Report(name)
        reports.append(report)
        print(f"\n=== {name} " + "=" * (70 - len(name)), flush=True)
        begin = time.monotonic()
        try:
            importlib.import_module(f"tests.benchmarks.{BENCHMARKS[name]}").run(report, options)
        except Exception as error:  # noqa: BLE001 - the others can still be run
            traceback.print_exc()
            report.failures.append(f"{name}: {type(error).__name__}: {error}")
        report.data["seconds"] = time.monotonic() - begin

    bounds = [bound.row() for report in reports for bound in report.bounds]
    columns = ["benchmark", "bound", "limit", "median", "best", "verdict"]
    print(f"\n=== bounds {'=' * 64}\n{layout(columns, bounds)}" if bounds else "\nno bound was measured")
    failures = [failure for report in reports for failure in report.failures]
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"load at the end: {machine()['load']}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"machine": head, "benchmarks": {r.name: r.as_json() for r in reports}}, file, indent=1)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
