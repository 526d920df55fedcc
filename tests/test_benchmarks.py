"""
The benchmarks run: what they measure is on `docs/performance.md`, and is no matter of tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, **environment: str) -> str:
    """Run this Python in the repository."""
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 0 == run.returncode, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_the_command_runs(tmp_path):
    """The command runs what it is told to, prints each bound with what was measured, and writes it as JSON."""
    names = ["import", "idle"]

    printed = python("-m", "tests.benchmarks", "--quick", "--rounds", "1", "--json", str(tmp_path / "out.json"), *names)

    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {"cores", "Python", "SQLite", "load"} <= set(found["machine"])
    assert names == list(found["benchmarks"])
    table = printed.partition("=== bounds")[2]
    for benchmark in found["benchmarks"].values():
        assert not benchmark["failures"]
        for bound in benchmark["bounds"]:
            assert bound["what"] in table


def test_a_name_that_is_none():
    """A name that is no benchmark is refused, with those that there are."""
    with pytest.raises(AssertionError, match="no benchmark speed; there are call, durable"):
        python("-m", "tests.benchmarks", "speed")


def test_a_package_that_is_not_installed(tmp_path):
    """A package that cannot be imported is a line of the table; the others are measured."""
    (tmp_path / "loguru.py").write_text("raise ImportError('not for this machine')\n", encoding="utf-8")
    script = """
from tests.benchmarks import durable
from tests.benchmarks.core import Report
keep = (*durable.OWN, "loguru, enqueue=True, executemany")
durable.STORES = {name: durable.STORES[name] for name in keep}
report = Report("durable")
durable._compare(report, 400, 1, 1)
assert not report.failures, report.failures
"""

    printed = python("-c", script, PYTHONPATH=str(tmp_path))

    assert "not measured: ImportError: not for this machine" in printed
    assert "FileHandler with asctime  " in printed
    assert "if writing took no time, " in printed


def test_what_is_not_found_again_is_a_failure():
    """A rate whose records cannot be found again fails the run."""
    script = """
from tests.benchmarks.core import Report
report = Report("durable")
assert not report.verify("ours", 10, 9)
print(report.failures)
"""

    assert "10 logged, 9 found" in python("-c", script)
