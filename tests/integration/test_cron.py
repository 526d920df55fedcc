"""
A job of cron: short, started in another folder, with next to no environment.
"""

from __future__ import annotations

import shlex
import sys


def test_page(project):
    """The page can be followed word for word: one row for each run, and only the warning is printed."""
    project.follow()

    [(_, _, _, files)] = project.answers[0]
    assert 4312 == files
    assert ["/srv/videos is not backed up\n"] == project.printed


def test_runs_as_cron_starts_them(project):
    """Runs that cron starts elsewhere, several at once, keep one log beside the program."""
    project.write("backup.py")
    job = shlex.join(["env", "-i", "PATH=/usr/bin:/bin", sys.executable, str(project.folder / "backup.py")])
    programs = [project.start(f"sh -c 'cd / && exec {job}'") for _ in range(3)]

    assert [0, 0, 0] == [program.end() for program in programs]
    assert [(9, 3)] == project.query("SELECT count(*), count(DISTINCT process) FROM logs")
