"""
A service of systemd: its unit, and the program as the unit starts it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest


def test_service(project):
    """Told to end, the program writes everything into the state folder; the journal gets the warning alone."""
    project.write("service.py")
    (project.folder / "state").mkdir()
    program = project.start(
        "python service.py", "WARNING service: stock is low", STATE_DIRECTORY=str(project.folder / "state")
    )

    assert 0 == program.end(signal.SIGTERM)
    messages = project.query("SELECT message FROM logs ORDER BY id", name="state/app-log.db")
    assert [("started",), ("stock is low",), ("stopped",)] == messages
    assert "WARNING service: stock is low\n" == program.printed


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_unit(project):
    """Systemd finds nothing wrong with the unit but that the program is not installed here."""
    project.write("shop.service")
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(project.folder / "shop.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    about_it = [line for line in run.stderr.splitlines() if "shop.service" in line]
    assert [] == [line for line in about_it if "/opt/shop/.venv/bin/python" not in line]
