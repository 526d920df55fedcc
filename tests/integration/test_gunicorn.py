"""
gunicorn with four prefork workers: under load, through a reload, and with a worker that is killed.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.needs("gunicorn")

THREADS = 8
REQUESTS = 50  # of each thread, in each round

# Says who answered, and logs five lines for each request.
APP = """
import logging
import os

logger = logging.getLogger("shop")


def app(environ, start_response):
    for line in range(5):
        logger.info("line", extra={"path": environ["PATH_INFO"], "line": line})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def server(project):
    """
    Start the server of the page with an app that logs more, by `server(options)`.
    """

    def start(options=""):
        project.write("gunicorn.conf.py")
        (project.folder / "app.py").write_text(APP, encoding="utf-8")
        program = project.start(f"gunicorn app:app {options}", "")
        assert project.wait_until(lambda: program.printed.count("Booting worker") == 4), program.printed
        return program

    return start


def load(project, begin=0):
    """
    Ask from several threads at once; gives which worker answered which number, as far as one did.
    """

    def ask(number):
        try:
            return number, int(project.fetch(f"/{number}")[1])
        except (OSError, ValueError):
            return number, None

    with ThreadPoolExecutor(THREADS) as threads:
        return dict(threads.map(ask, range(begin, begin + THREADS * REQUESTS)))


def lines_of(project):
    """
    Read what the workers logged: how many lines for each path, and by which process.
    """
    rows = project.query(
        "SELECT json_extract(attributes, '$.path') AS path, process, count(*) FROM logs WHERE logger = 'shop'"
        " GROUP BY path, process"
    )
    return {(int(path.removeprefix("/")), process): count for path, process, count in rows}


def test_page(project):
    """The page can be followed word for word: the access line can be asked for its parts."""
    project.follow()

    [[(_, _, *access)]] = project.answers
    assert ["GET", "/orders", "200"] == access
    assert [("asked for /orders",)] == project.query("SELECT message FROM logs WHERE logger = 'shop'")
    assert [(1,)] == project.query("SELECT count(*) FROM logs WHERE message = 'Shutting down: Master'")


@pytest.mark.parametrize("options", ["", "--preload"])
def test_load_and_reload(project, server, options):
    """Every line of every worker is there after load, a graceful reload in the middle of it, and more load."""
    program = server(options)
    answers = load(project)

    with ThreadPoolExecutor(1) as thread:
        during = thread.submit(load, project, len(answers))
        os.kill(program.process.pid, signal.SIGHUP)
        answers |= during.result()
    assert project.wait_until(lambda: program.printed.count("Booting worker") == 8), program.printed
    answers |= load(project, len(answers))
    program.end(signal.SIGTERM)

    assert dict.fromkeys(answers.items(), 5) == lines_of(project)
    assert len(set(answers.values())) > 4
    assert [("ok",)] == project.query("PRAGMA integrity_check")
    assert [(0,)] == project.query("SELECT count(*) FROM drops")


@pytest.mark.parametrize("options", ["", "--preload"])
def test_a_killed_worker(project, server, options):
    """When a worker is killed under load, every line of every other worker is there."""
    program = server(options)
    victim = next(worker for worker in load(project).values() if worker)

    with ThreadPoolExecutor(1) as thread:
        during = thread.submit(load, project, THREADS * REQUESTS)
        os.kill(victim, signal.SIGKILL)
        answers = during.result()
    assert project.wait_until(lambda: program.printed.count("Booting worker") == 5), program.printed
    program.end(signal.SIGTERM)

    found = lines_of(project)
    survivors = {(number, worker) for number, worker in answers.items() if worker not in (None, victim)}
    assert dict.fromkeys(survivors, 5) == {key: found.get(key) for key in survivors}
    assert survivors
    assert [("ok",)] == project.query("PRAGMA integrity_check")
