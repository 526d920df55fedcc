"""
What the fixtures of conftest.py say when a test goes wrong.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_test_that_hangs_is_named(tmp_path, processes):
    """
    When the watchdog ends the process, the place where each thread stands is on standard error.

    It was written to what pytest captures, and lost with the process: a run ended without a word and without a summary.
    """
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text().replace("\nWATCHDOG = 300\n", "\nWATCHDOG = 0.1\n"))
    (tmp_path / "test_x.py").write_text("import threading\n\ndef test_hangs():\n    threading.Event().wait()\n")

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "-n", processes, "test_x.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert 1 == done.returncode
    assert 'test_x.py", line 4 in test_hangs' in done.stderr
