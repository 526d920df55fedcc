"""
The manual page: made of what `--help` is made of, and rendered by the tools that show it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS

import sqlite_log_handler
from sqlite_log_handler._cli.main import COMMANDS, command_of


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page, as the script prints it."""
    done = subprocess.run(
        [sys.executable, DOCS / "man.py"],
        env={"PYTHONPATH": str(Path(sqlite_log_handler.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    path = tmp_path_factory.mktemp("man") / "sqlite-log.1"
    path.write_text(done.stdout, encoding="utf-8")
    return path


@pytest.mark.parametrize("tool", [["mandoc", "-Tutf8"], ["man", "--warnings", "-l"]], ids=["mandoc", "man"])
def test_the_page_renders(tool, page):
    """Each tool shows every command with its flags and its description, and finds nothing wrong."""
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    environment = {"LANG": "C.UTF-8", "MANWIDTH": "400", "MANPAGER": "cat", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*tool, page], env=environment, capture_output=True, encoding="utf-8", check=True, stdin=subprocess.DEVNULL
    )

    shown = " ".join(re.sub(".\b", "", done.stdout).split())
    for name in COMMANDS:
        command = command_of(name)
        assert f"{name.upper()} " in shown
        for action in command.parser()._actions:
            if action.dest != "help":
                assert all(flag in shown for flag in action.option_strings)
    assert "" == done.stderr


def test_the_page_has_no_mistakes(page):
    """The checker of mandoc finds nothing but the date, which the page leaves out."""
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, encoding="utf-8", check=False)

    assert [] == [line for line in done.stdout.splitlines() if "missing date" not in line]
