"""
Completion by Tab, as the shells ask for it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest
from command_line import log_of, record
from slowly import slowly

import sqlite_log_handler
from sqlite_log_handler._cli.main import COMMANDS

pytest.importorskip("argcomplete", reason="the extra completion is not installed")

PACKAGE = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))

# What `register-python-argcomplete` prints is a function that bash calls with the line in these variables.
BASH = """
eval "$(register-python-argcomplete sqlite-log)"
COMP_LINE={line} COMP_POINT={point} COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"
_python_argcomplete sqlite-log
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = """
register-python-argcomplete --shell fish sqlite-log | source
complete --do-complete {line}
"""


@pytest.fixture
def shell(tmp_path, monkeypatch, shop):
    """Run a script in a shell that finds the command, beside a folder with two files, and return its lines."""
    script = tmp_path / "bin" / "sqlite-log"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sqlite_log_handler "$@"\n')
    script.chmod(0o755)
    folder = tmp_path / "logs"
    folder.mkdir()
    shutil.copy(shop, folder / "app-log.db")
    (folder / "night.jsonl").touch()
    folders = [str(script.parent), os.path.dirname(sys.executable), os.environ["PATH"]]

    def run(name, text):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        environment = {
            "PATH": os.pathsep.join(folders),
            "PYTHONPATH": PACKAGE,
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(
            [name, "-c", text], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert "" == done.stderr
        return [line.rstrip() for line in done.stdout.splitlines()]

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sqlite-log pat", ["patterns"]),
        ("sqlite-log app-log.db -l shop.s", ["shop.stock"]),
        ("sqlite-log ~/logs/app-log.db -S -1h -l shop.s", ["shop.stock"]),
        *slowly(
            ("sqlite-log ap", ["app-log.db"]),
            ("sqlite-log help pat", ["patterns"]),
            ("sqlite-log patterns --new", ["--new-since"]),
            ("sqlite-log top --by tem", ["template"]),
            ("sqlite-log stats app-log.db -o ", ["text", "json"]),
            ("sqlite-log app-log.db --pattern", ["--pattern-of"]),
            ("sqlite-log app-log.db -p WAR", ["WARNING"]),
            ("sqlite-log gaps app-log.db --exclude shop.o", ["shop.orders"]),
            ("sqlite-log top app-log.db --by attribute status -p WAR", ["WARNING"]),
            ("sqlite-log show missing.db -l s", [""]),
        ),
    ],
)
def test_bash(shell, line, expected):
    """Tab completes commands, files, flags, choices, levels, and the loggers of the log that the line names."""
    found = shell("bash", BASH.format(line=shlex.quote(line), point=len(line)))

    assert sorted(expected) == sorted(found)


@pytest.mark.slow
def test_fish(shell):
    """In fish, the same answers come with the help of each flag."""
    assert [f"patterns\t{COMMANDS['patterns']}"] == shell("fish", FISH.format(line="'sqlite-log pat'"))


@pytest.mark.slow
def test_zsh(shell):
    """The function is taken by zsh, which asks for answers with their descriptions."""
    script = """
    autoload -Uz compinit && compinit -u -D
    eval "$(register-python-argcomplete --shell zsh sqlite-log)"
    print -r -- $_comps[sqlite-log]
    export _ARGCOMPLETE=1 _ARGCOMPLETE_SHELL=zsh COMP_LINE='sqlite-log pat' COMP_POINT=14 _ARGCOMPLETE_IFS=$'\\n'
    export _ARGCOMPLETE_SUPPRESS_SPACE=1
    sqlite-log 8>&1
    """

    assert ["_python_argcomplete", f"patterns:{COMMANDS['patterns']}"] == shell("zsh", script)


def test_without_argcomplete(tmp_path):
    """Without the extra, Tab finds nothing and says nothing."""
    (tmp_path / "argcomplete.py").write_text("raise ModuleNotFoundError")
    done = subprocess.run(
        [sys.executable, "-m", "sqlite_log_handler"],
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE}", "_ARGCOMPLETE": "1", "COMP_LINE": "", "COMP_POINT": "0"},
        capture_output=True,
        check=False,
    )

    assert (1, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_names_that_a_terminal_would_obey(tmp_path, path):
    """A logger whose name has control characters is not offered, because some shells print what is offered."""
    from sqlite_log_handler._cli.completion import _loggers  # noqa: PLC0415 - it needs argcomplete

    log_of(path, record(name="shop"), record(name="\x1b]0;pwned\x07"))

    assert ["shop"] == _loggers(Namespace(file=str(path)))
