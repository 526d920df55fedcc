"""
`demo`: what it tells, and its books.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys

import pytest
from command_line import record

import sqlite_log_handler
from sqlite_log_handler._cli.commands import demo as demo_module


def test_the_demo_keeps_to_a_narrow_terminal(monkeypatch):
    """The demo folds what it tells to the width of the terminal, and breaks no name at its hyphen."""
    monkeypatch.setenv("COLUMNS", "60")

    lines = demo_module.fold("lib-dynload " * 20, "       WARNING ")
    assert 40 < max(len(line) for line in lines) <= 60
    assert {"lib-dynload"} == {word for line in lines for word in line.split()} - {"WARNING"}


def test_the_books_of_the_demo_say_how_many_rows_there_are(run, make_handler, path, capsys):
    """
    The drop warnings are rows of the file that no program has logged, and the demo says so.

    It once said that 12,938 rows were in the file, in which `stats` then found 12,947.
    """
    handler = make_handler(capacity=20, reserve=0.5, batch_size=100, flush_interval=3_600, flush_level=logging.CRITICAL)
    for number in range(25):
        handler.handle(record(f"miss {number}", logging.DEBUG))
    handler.close()

    assert demo_module.show_books(handler, str(path), 25)
    printed = capsys.readouterr().out.splitlines()
    assert "written 10 rows without the drop warnings 10 agree" in [" ".join(line.split()) for line in printed]
    assert "  The drop warnings are rows as well: `sqlite-log stats` counts 11." in printed
    assert "rows     11, id 1 to 11" in str(run("stats", str(path)))
    assert "drop warnings and pruned rows, and the volume: 11 and 11" in str(run("check", str(path)))


def test_the_demo_says_what_the_flood_lost(make_handler, path, capsys):
    """The books of the demo tell the flood from the others, which lose nothing."""
    handler = make_handler(capacity=20, reserve=0, batch_size=100, flush_interval=3_600)
    for number in range(30):
        handler.handle(record(f"here I am again, {number}", logging.INFO, demo_module.FLOOD))
    handler.handle(record("all is well", logging.INFO))
    handler.close()

    assert demo_module.show_books(handler, str(path), 31)
    printed = capsys.readouterr().out.splitlines()
    assert "  The flood lost 15 records, and the others lost nothing." in printed


def test_the_console_of_the_demo_may_go(path):
    """`sqlite-log demo | head -20` prints no error: each drop warning that its reader did not take was a traceback."""
    program = """
import logging, sys
from sqlite_log_handler._cli.commands.demo import configure
handler = configure(sys.argv[1])
sys.stdout.close()
logging.getLogger("sqlite_log_handler").warning("dropped")
handler.close()
"""
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    environment = {**os.environ, "PYTHONPATH": package}

    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, env=environment, check=False)

    assert (0, b"") == (ended.returncode, ended.stderr)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no sessions")
def test_ctrl_c_does_not_reach_what_locks_the_database(path):
    """The process that locks the database is in no group that a terminal sends Ctrl-C to: it printed a traceback."""
    sqlite3.connect(path).close()

    with demo_module.locked(str(path)) as process_id:
        assert process_id == os.getsid(process_id)
