"""
The arithmetic of the page about fleets, and that the page shows what it gives.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = DOCS / "fleet.py"


def printed(*arguments):
    """Run the script, and give what it prints."""
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_page_shows_what_the_script_prints():
    """docs/fleet.md holds the output of docs/fleet.py with the figures that were measured."""
    assert f"```text\n{printed()}```" in (DOCS / "fleet.md").read_text(encoding="utf-8")


def test_figures_are_put_in_place_of_the_defaults():
    """With round figures the sums can be done by hand."""
    module = runpy.run_path(str(SCRIPT))
    figures = {name: default for name, default, _ in module["FIGURES"]}
    figures |= {"rows": 100, "disk-bytes": 100, "wire-bytes": 50, "request-bytes": 0, "outage-hours": 10}
    figures |= {"forward-us": 10, "forward-request-us": 0, "receiver-us": 10, "receiver-request-us": 0}
    figures |= {"engine-bytes": 10, "engine-days": 10, "peak": 2}

    one, day, outage, cpu, catch_up, _, _, fleet = module["lines"](figures, [1_000])

    assert "one host, 100 rows/s, 200 at the worst" == one
    assert day.endswith("0.86 GB a day")  # 100 rows of 100 bytes, 86,400 times
    assert "0.36 GB for 10 h" in outage  # 36,000 s of 10,000 bytes
    assert cpu.endswith("0.10 % of a core")  # 100 times 10 µs
    assert catch_up.endswith("0.6 min")  # 3.6 million rows at 100,000 a second
    # 100,000 rows/s, a request each a second, one core, 5 MB/s, and 8.64 billion rows a day of 10 bytes for 10 days.
    assert ["1,000", "100,000", "1,000", "1.00", "40.0", "8,640,000,000", "0.86"] == fleet.split()


def test_many_rows_make_more_than_one_request_a_second():
    """A host that logs more than a batch a second sends more than one request."""
    assert "10" in printed("--rows", "80000", "--hosts", "1").splitlines()[-1].split()
