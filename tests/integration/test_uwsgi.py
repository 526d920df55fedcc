"""
uWSGI, whose workers are forked without Python's hooks, in each of its ways to run threads.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys

import pytest

pytestmark = pytest.mark.needs("uwsgi")

REQUESTS = 40
STARTS = 2  # one of some 30 has a worker that never starts, with any program: the page says why

WAYS = [
    "",
    "--enable-threads",
    "--threads 2",
    pytest.param(
        "--enable-threads --py-call-osafterfork",
        marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="uWSGI 2.0.30 aborts, with any app"),
    ),
    "--enable-threads --lazy-apps",
]


def test_page(project):
    """The page can be followed word for word."""
    project.follow()

    [[(_, process, message)]] = project.answers
    assert "asked for /orders" == message
    assert 0 < process


@pytest.mark.parametrize("options", WAYS)
def test_every_request_is_in_the_file(project, options):
    """
    While the server runs, every request of every worker comes to be in the file, and at its end none is there twice.

    A worker did not notice that it was not its parent. Its log was dead while it ran, and at its end it wrote what its
    parent had written already.
    """
    project.write("app.py")
    app = project.folder / "app.py"
    app.write_text(app.read_text() + "\n\nlogging.getLogger('shop').info('loaded')\n", encoding="utf-8")
    for _ in range(STARTS):
        program = project.start(
            f"uwsgi --http-socket 127.0.0.1:8000 --wsgi-file app.py --master --processes 2 --die-on-term {options}", ""
        )
        with contextlib.suppress(TimeoutError):
            assert [(200, "hello\n")] * REQUESTS == [project.fetch(f"/{number}") for number in range(REQUESTS)]
            break
        program.kill()
        project.wait_until(lambda: not program.is_listening)  # noqa: B023 - it is asked here only
        for file in project.folder.glob("app-log.db*"):
            file.unlink()
    in_the_file = "SELECT count(DISTINCT message) FROM logs WHERE message LIKE 'asked for %'"
    assert project.wait_until(lambda: [(REQUESTS,)] == project.query(in_the_file)), program.printed
    program.end(signal.SIGTERM)

    stored = [message for (message,) in project.query("SELECT message FROM logs WHERE logger = 'shop' ORDER BY id")]
    loads = 2 if "lazy-apps" in options else 1
    assert sorted([f"asked for /{number}" for number in range(REQUESTS)] + ["loaded"] * loads) == sorted(stored)
    assert [("ok",)] == project.query("PRAGMA integrity_check")
    assert not re.search(r"sqlite_log_handler: |Traceback", program.printed), program.printed


@pytest.mark.parametrize("way", ["", "--gevent 10 --gevent-early-monkey-patch"])
def test_the_end_of_a_worker(project, way):
    """
    At its end a worker writes what is queued, with gevent by the line of the page.

    With gevent, uWSGI ends its workers without Python's exit, and each lost what it had queued, without a word.
    """
    project.write("app.py")
    app = project.folder / "app.py"
    text = app.read_text(encoding="utf-8").replace('("app-log.db")', '("app-log.db", flush_interval=60)')
    app.write_text(text + ("\n\nimport uwsgi\nuwsgi.atexit = handler.close\n" if way else ""), encoding="utf-8")
    program = project.start(
        f"uwsgi --http-socket 127.0.0.1:8000 --wsgi-file app.py --master --enable-threads --die-on-term {way}",
        "",
    )
    assert [(200, "hello\n")] * REQUESTS == [project.fetch(f"/{number}") for number in range(REQUESTS)]
    program.end(signal.SIGTERM)

    stored = [message for (message,) in project.query("SELECT message FROM logs WHERE logger = 'shop' ORDER BY id")]
    assert [f"asked for /{number}" for number in range(REQUESTS)] == stored
