"""
A container as far as it can be had without Docker: the first process of a name space, and a root that is read-only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess

import pytest
import yaml
from pages import blocks_of

NAMESPACE = "unshare --pid --fork --kill-child --mount-proc"


def has_namespaces():
    """Tell whether this system lets the test make name spaces of processes and of mounts."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*NAMESPACE.split(), "true"], check=False, capture_output=True).returncode == 0


def test_files_are_what_they_say(project):
    """The Dockerfile starts the program of the page as a list, and the folder of the log is the volume."""
    dockerfile, compose = [block.code for block in blocks_of(project.page) if block.language in {"text", "yaml"}]
    [volume] = re.findall(r"^VOLUME (.*)", dockerfile, re.MULTILINE)

    assert 'CMD ["python", "service.py"]' in dockerfile
    assert f"LOG_FOLDER={volume}" in dockerfile
    service = yaml.safe_load(compose)["services"]["service"]
    assert (True, [f"log:{volume}"]) == (service["read_only"], service["volumes"])


def test_the_first_process_and_sigterm(project):
    """As process 1, on a root that is read-only, the program writes its log to the end when it gets SIGTERM."""
    if not has_namespaces():
        pytest.skip("needs to make name spaces (unshare)")
    project.write("service.py")
    (project.folder / "log").mkdir()
    mounts = "mount --bind log log && mount -o remount,bind,ro / && touch /no 2>/dev/null || exec python service.py"
    program = project.start(f"{NAMESPACE} sh -c '{mounts}'", "started", LOG_FOLDER=str(project.folder / "log"))
    children = ["pgrep", "-P", str(program.process.pid)]
    [pid] = subprocess.run(children, capture_output=True, text=True, check=True).stdout.split()

    os.kill(int(pid), signal.SIGTERM)

    assert 0 == program.end()
    assert [("started",), ("stopped",)] == project.query("SELECT message FROM logs", name="log/app-log.db")
