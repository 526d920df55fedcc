"""
gunicorn with four prefork workers: under load, through a reload, and with a worker that is killed.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.needs("gunicorn", "fastapi", "uvicorn_worker")

THREADS = 8
REQUESTS = 50  # of each thread, in each round

# Both say who answered, and log five lines for each request.
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
ASGI = """
import logging
import os

from asgi_of_the_page import app

logger = logging.getLogger("shop")


@app.get("/pid/{path}")
async def answer(path: str):
    for line in range(5):
        logger.info("line", extra={"path": "/pid/" + path, "line": line})
    return os.getpid()
"""

WAYS = [
    "app:app",
    "app:app --preload",
    pytest.param("app:app --worker-class gevent", marks=pytest.mark.needs("gevent")),
    "asgi:app --worker-class uvicorn_worker.UvicornWorker",
    pytest.param("asgi:app --worker-class asgi", marks=pytest.mark.needs("gunicorn.workers.gasgi")),
]


@pytest.fixture
def server(project):
    """Start the server of the page with an app that logs more, by `server(arguments)`."""

    def start(arguments, flush_interval=None):
        project.write("gunicorn.conf.py")
        if flush_interval:
            conf = project.folder / "gunicorn.conf.py"
            conf.write_text(conf.read_text().replace('"filters"', f'"flush_interval": {flush_interval}, "filters"'))
        (project.folder / "app.py").write_text(APP, encoding="utf-8")
        project.write("asgi.py")
        (project.folder / "asgi.py").rename(project.folder / "asgi_of_the_page.py")
        (project.folder / "asgi.py").write_text(ASGI, encoding="utf-8")
        program = project.start(f"gunicorn {arguments}", "")
        assert project.wait_until(lambda: program.printed.count("Booting worker") == 4), program.printed
        return program

    return start


def load(project, begin=0):
    """Ask from several threads at once; gives which worker answered which number, as far as one did."""

    def ask(number):
        try:
            return number, int(project.fetch(f"/pid/{number}")[1])
        except (OSError, ValueError):
            return number, None

    with ThreadPoolExecutor(THREADS) as threads:
        return dict(threads.map(ask, range(begin, begin + THREADS * REQUESTS)))


def lines_of(project):
    """Read what the workers logged: how many lines for each path, and by which process."""
    rows = project.query(
        "SELECT json_extract(attributes, '$.path') AS path, process, count(*) FROM logs WHERE logger = 'shop'"
        " GROUP BY path, process"
    )
    return {(int(path.removeprefix("/pid/")), process): count for path, process, count in rows}


def test_page(project):
    """The page can be followed word for word: the access line can be asked for its parts."""
    project.follow()

    [[(_, _, *access)]] = project.answers
    assert ["GET", "/orders", "200"] == access
    shop = project.query("SELECT message FROM logs WHERE logger = 'shop' ORDER BY id")
    assert [("asked for /orders",), ("asked for /customers",)] == shop
    assert [(2,)] == project.query("SELECT count(*) FROM logs WHERE message = 'Shutting down: Master'")
    access = {"method": "GET", "path": "/customers", "status": 200}
    assert access.items() <= project.attributes("logger = 'uvicorn.access'").items()
    started = "SELECT count(DISTINCT process) FROM logs WHERE message = 'Application startup complete.'"
    assert project.query(started) > [(0,)]


@pytest.mark.parametrize("arguments", WAYS)
def test_load_and_reload(project, server, arguments):
    """Every line of every worker is there after load, a graceful reload in the middle of it, and more load."""
    program = server(arguments)
    answers = load(project)
    old = {*answers.values(), None}

    with ThreadPoolExecutor(1) as thread:
        during = thread.submit(load, project, len(answers))
        os.kill(program.process.pid, signal.SIGHUP)
        answers |= during.result()
    assert project.wait_until(lambda: program.printed.count("Booting worker") == 8), program.printed

    def a_new_worker_answers():
        answers.update(load(project, len(answers)))
        return not old.issuperset(answers.values())

    assert project.wait_until(a_new_worker_answers), program.printed
    program.end(signal.SIGTERM)

    found = lines_of(project)
    answered = [item for item in answers.items() if item[1]]
    assert dict.fromkeys(answered, 5) == {key: found.get(key) for key in answered}
    assert [("ok",)] == project.query("PRAGMA integrity_check")
    assert [(0,)] == project.query("SELECT count(*) FROM drops")


@pytest.mark.parametrize("arguments", WAYS)
def test_lines_come_while_it_runs(project, server, arguments):
    """
    Every line is in the file while the workers run.

    A worker of the class `gevent` patches Python after it has logged, and its listener then took itself for another.
    """
    server(arguments)
    answers = load(project)

    assert project.wait_until(lambda: dict.fromkeys(answers.items(), 5) == lines_of(project))


@pytest.mark.parametrize("arguments", WAYS[:-1])
def test_stopped_by_sigterm(project, server, arguments):
    """When the server is told to end, every line is there although no tick is near: each kind of worker flushes."""
    program = server(arguments, flush_interval=3600)
    answers = load(project)
    program.end(signal.SIGTERM)

    assert dict.fromkeys(answers.items(), 5) == lines_of(project)


@pytest.mark.parametrize("arguments", WAYS[:-1])
def test_a_killed_worker(project, server, arguments):
    """When a worker is killed under load, every line of every other worker is there."""
    program = server(arguments)
    victim = next(worker for worker in load(project).values() if worker)

    with ThreadPoolExecutor(1) as thread:
        during = thread.submit(load, project, THREADS * REQUESTS)
        os.kill(victim, signal.SIGKILL)
        answers = during.result()
    assert project.wait_until(lambda: program.printed.count("Booting worker") == 5), program.printed
    program.end(signal.SIGTERM)

    found = lines_of(project)
    survivors = [item for item in answers.items() if item[1] not in (None, victim)]
    assert dict.fromkeys(survivors, 5) == {key: found.get(key) for key in survivors}
    assert survivors
    assert [("ok",)] == project.query("PRAGMA integrity_check")
