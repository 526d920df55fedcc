"""
The tutorial at the speed of a human: what appears on standard error meanwhile is what the page shows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pages import DOCS, blocks_of

import sqlite_log_handler

TUTORIAL = DOCS / "tutorial.md"

# A human reads after each block; here, each block that is followed by output waits until that is there.
TYPED = """
import io, sys, traceback
from time import sleep as pause

screen = sys.stderr = io.StringIO()
sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)

def shown(line):
    while line not in screen.getvalue().replace(sys.argv[1], "").splitlines():
        pause(0.01)
"""


def test_a_human_sees_what_the_page_shows(tmp_path: Path) -> None:
    """Each line of output in the tutorial appears after the block above it, and no other line does."""
    script, expected = [TYPED], []
    for block in blocks_of(TUTORIAL):
        if block.language == "python":
            # The page's tick of 0.1 s comes in the middle of the loop, and says 79 rows, where the machine is busy.
            script.append(block.code.replace('"capacity": 100', '"capacity": 100, "flush_interval": 2'))
        elif block.language == "text":
            expected += block.code.splitlines()
            script += [f"shown({line!r})" for line in block.code.splitlines()]
    script.append("sys.__stderr__.write(screen.getvalue())")

    run = subprocess.run(
        [sys.executable, "-c", "\n".join(script), f"{tmp_path}{os.sep}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(sqlite_log_handler.__file__).parent.parent)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert 0 == run.returncode, run.stderr
    assert sorted(expected) == sorted(run.stderr.replace(f"{tmp_path}{os.sep}", "").splitlines())
    assert re.search(r"^\d+ WARNING dropped 931 records", run.stdout, re.MULTILINE)
