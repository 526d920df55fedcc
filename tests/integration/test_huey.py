"""
The consumer of huey, with processes as workers.
"""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.needs("huey.consumer")


def test_page(project):
    """The page can be followed word for word: the line of the task is there."""
    project.follow()

    assert "charging order-42" == project.answers[0][0][2]


def test_every_task_is_there(project):
    """The workers write their queue when the consumer is told to end, although no tick is near."""
    project.write("tasks.py")
    tasks = project.folder / "tasks.py"
    code = tasks.read_text(encoding="utf-8").replace('"filename": "app', '"flush_interval": 3600, "filename": "app')
    tasks.write_text(code, encoding="utf-8")
    consumer = project.start("huey_consumer tasks.huey -k process -w 2 -n", "Huey consumer started")
    project.run("python -c 'from tasks import charge; [charge(number) for number in range(20)]'")
    assert project.wait_until(lambda: consumer.printed.count(" executed in ") == 20), consumer.printed
    consumer.end(signal.SIGTERM)

    rows = project.query("SELECT message FROM logs WHERE logger = 'shop'")
    assert sorted(f"charging {number}" for number in range(20)) == sorted(message for (message,) in rows)
