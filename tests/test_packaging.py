"""
What is said about the package where it is installed: its licence, its version, what it is and what it needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from pages import ROOT

import sqlite_log_handler

INSTALLED = distribution("sqlite-log-handler")
METADATA = INSTALLED.metadata
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What somebody does who has nothing but the package.
FIRST_TRY = """
import logging.config
import sqlite3

logging.config.dictConfig({
    "version": 1,
    "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": "app-log.db"}},
    "root": {"handlers": ["db"], "level": "INFO"},
})
logging.getLogger("shop").info("order %d paid", 42, extra={"amount": 19.9})
logging.shutdown()
connection = sqlite3.connect("app-log.db")
print(connection.execute("SELECT level, message, attributes FROM logs").fetchall())
connection.close()
"""


def test_licence():
    """The licence is an SPDX expression with its file, as PEP 639 has it, and no classifier says it once more."""
    assert ("MIT", ["LICENSE"]) == (METADATA["License-Expression"], METADATA.get_all("License-File"))
    assert [] == [line for line in METADATA.get_all("Classifier", []) if line.startswith("License ::")]


def test_classifiers():
    """Whoever looks for logging, or for typed packages, finds it."""
    assert {"Topic :: System :: Logging", "Typing :: Typed"} <= set(METADATA.get_all("Classifier", []))


def test_one_source_of_the_version():
    """The version stands in the package, and is that of the installed distribution."""
    assert ["version"] == PROJECT["dynamic"]
    assert sqlite_log_handler.__version__ == INSTALLED.version


def test_no_dependency():
    """Without an extra nothing else is installed."""
    assert [] == [line for line in INSTALLED.requires or [] if "extra ==" not in line]


def test_no_test_is_skipped_for_a_module_that_no_extra_installs():
    """
    A module without which tests are skipped is one of the standard library, or of a package that an extra names.

    Starlette went over from httpx to httpx2, and so did the extra. The tests of the page still asked for httpx, and
    were skipped wherever nothing else had installed that.
    """
    lines = "\n".join(map("\n".join, PROJECT["optional-dependencies"].values()))
    packages = re.findall(r"^[\w-]+", lines, re.MULTILINE)
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    modules = set(re.findall(r'importorskip\("(\w+)', tests)) - sys.stdlib_module_names - {"sqlite_log_handler"}
    names = {module.replace("_", "-") for module in modules - {"_testcapi"}}

    assert set() == {name for name in names if not any(f"{package}-".startswith(f"{name}-") for package in packages)}


def test_oldest_python():
    """The oldest Python that is allowed is the oldest that a classifier names, and that the linters are told."""
    named = re.findall(r"Python :: 3\.(\d+)$", "\n".join(METADATA.get_all("Classifier", [])), re.MULTILINE)

    assert f">=3.{min(map(int, named))}" == METADATA["Requires-Python"]


def test_only_the_package_is_installed():
    """An installed wheel is the package, its metadata, its commands with their manual page, and has no tests."""
    files = [file.as_posix() for file in INSTALLED.files or []]
    if any(name.endswith(".pth") for name in files):
        pytest.skip("installed as editable")

    begin = r"sqlite_log_handler/|sqlite_log_handler-[^/]+\.dist-info/|(\.\./)+(bin|Scripts)/sqlite-log(\.exe)?$"
    manual = r"(\.\./)+share/man/man1/sqlite-log\.1$"
    assert [] == [name for name in files if not re.match(f"{begin}|{manual}", name)]


def test_first_try(tmp_path):
    """The first try gives no warning: not of Python, and none about a file that is left open."""
    program = tmp_path / "first.py"
    program.write_text(FIRST_TRY, encoding="utf-8")

    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", program.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (run.returncode, run.stderr)
    assert "[('INFO', 'order 42 paid', '{\"amount\": 19.9}')]\n" == run.stdout


def test_contributing_names_what_is_there():
    """Each file that CONTRIBUTING.md names is there, with the functions in it, so that nobody looks for a moved one."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:_\w+|tests|docs)/[\w/]+\.(?:py|md))`", text)) - {"_cli/commands/COMMAND.py"}
    folders = [ROOT, Path(sqlite_log_handler.__file__).parent]

    assert len(named) > 10
    assert [] == [name for name in sorted(named) if not any((folder / name).is_file() for folder in folders)]
    placed = re.findall(r"`(?:\w+\.)*(\w+)` in `(_\w+/[\w/]+\.py)`", text)
    assert [] == [pair for pair in placed if pair[0] not in (folders[1] / pair[1]).read_text(encoding="utf-8")]
