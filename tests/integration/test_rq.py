"""
An RQ worker, whose children end by `os._exit()`.
"""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.needs("rq.cli", "redis-server")


@pytest.fixture(autouse=True)
def redis(project, monkeypatch):
    """Start a Redis that keeps nothing, and name it to RQ."""
    monkeypatch.setenv("RQ_REDIS_URL", f"redis://127.0.0.1:{project.port}")
    server = project.start(f"redis-server --bind 127.0.0.1 --port {project.port} --save '' --appendonly no", "")

    yield

    server.end(signal.SIGTERM)


def run_jobs(project, worker):
    """Run 40 short jobs, with no tick near, and return what they left in the file."""
    project.write("jobs.py")
    jobs = project.folder / "jobs.py"
    jobs.write_text(jobs.read_text(encoding="utf-8").replace('"filename"', '"flush_interval": 3600, "filename"'))
    queue = "import os; from redis import Redis; from rq import Queue; queue = Queue(connection=Redis.from_url("
    queue += "os.environ['RQ_REDIS_URL'])); [queue.enqueue('jobs.charge', str(number)) for number in range(40)]"
    project.run(f'python -c "{queue}"')
    project.run(f"rq worker --worker-class {worker} --burst")
    return [message for (message,) in project.query("SELECT message FROM logs WHERE logger = 'jobs' ORDER BY id")]


def test_page(project):
    """The page can be followed word for word: the line of the job is there."""
    project.follow()

    assert "charging order-42" == project.answers[0][0][2]


def test_every_job_is_there(project):
    """Each of 40 short jobs has its line, although its child ends by `os._exit()`: the worker flushes before."""
    assert [f"charging {number}" for number in range(40)] == run_jobs(project, "jobs.LoggingWorker")
    assert [(40,)] == project.query("SELECT count(DISTINCT process) FROM logs WHERE logger = 'jobs'")


def test_without_the_class(project):
    """What the page says of RQ's own worker is so: short jobs leave nothing."""
    assert [] == run_jobs(project, "rq.Worker")
