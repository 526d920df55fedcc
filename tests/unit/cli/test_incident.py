"""
The incident of the demo: always the same log, with sound books, whose brief tells what led to what.
"""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3

import pytest

from sqlite_log_handler._cli import incident
from sqlite_log_handler._cli.commands.demo import show_incident
from sqlite_log_handler._cli.main import main

END = 1_795_921_934.0

pytestmark = pytest.mark.slow  # a second to make the log


def stories(path):
    """Return all that a log tells, but for what the machine gave: threads and the path of this package."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = "id, created_us, levelno, logger, message, func, process, host, thread_name, exc_type, exc_text"
        rows = connection.execute(f"SELECT {columns}, attributes FROM logs ORDER BY id").fetchall()
        return rows, connection.execute("SELECT * FROM drops").fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The path of the log that `demo --incident` makes, how many calls of a logger it has, and what was printed."""
    path, calls, make = tmp_path_factory.mktemp("incident") / "shop-log.db", [], incident.make
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(incident, "make", lambda path, _: calls.append(make(path, END)) or calls[0])
        assert 0 == main(["demo", "--incident", "--database", str(path)])
    return path, calls[0], printed.getvalue()


def test_each_run_makes_the_same_log(made, tmp_path):
    """The pages that show its ids and counts stay true."""
    incident.make(str(tmp_path / "other.db"), END)

    assert stories(made[0]) == stories(tmp_path / "other.db")


def test_its_books_are_sound(run, made):
    """Every call of a logger is a row or a counted drop."""
    path, calls, _ = made
    rows, drops = stories(path)

    assert 0 == run("check", str(path))[0]
    assert calls == len(rows) - 1 + sum(drop[-1] for drop in drops)
    assert {"shop.db"} == {drop[6] for drop in drops}


def test_its_brief_tells_what_led_to_what(run, made):
    """The release, the slow provider, the pool and the failing pages stand in that order, which names the cause."""
    _, lines = run("brief", str(made[0]))

    begin = lines.index("what changed (in the order of the first time, with the newest id):") + 1
    loggers = re.findall(r" id \d+  ([\w.]+): ", "\n".join(lines[begin:]))
    assert ["shop.checkout", "shop.payments", "shop.db", "shop.web", "shop.checkout"] == loggers[:5]
    assert any("in its transaction" in line for line in lines)


def test_the_demo_makes_it(run, made):
    """`demo --incident` makes the log, and names the commands to begin with."""
    path, calls, printed = made
    assert f"is the log of a small web shop: {calls:,} records" in " ".join(printed.split())
    assert f"sqlite-log brief {path}" in printed

    with pytest.raises(FileExistsError, match="exists: name a file that does not exist yet"):
        show_incident(str(path))
    status, _ = run("demo", "--incident", "app.log", stderr=re.compile("--incident makes up its records"))
    assert 2 == status
