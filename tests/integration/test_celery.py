"""
A Celery worker with its pool of processes, and a folder as broker.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("celery")

# Without what it says to other workers, which takes seconds.
WORKER = "celery -A tasks worker --concurrency 2 --loglevel INFO --without-gossip --without-mingle --without-heartbeat"

# So that both processes of the pool have tasks: the first one waits until the other one has its first.
TOGETHER = """

import glob, os, time

app.conf.worker_proc_alive_timeout = 60


@signals.task_prerun.connect
def wait_for_the_other(**options):
    open(f"process-{os.getpid()}", "w").close()
    while len(glob.glob("process-*")) < 2:
        time.sleep(0.01)
"""


def call(project, *numbers):
    """Call the task of the page, once for each number, and wait until the worker says that it is done."""
    worker = project.programs[0]
    calls = f"from tasks import add\nfor number in {numbers}:\n    add.delay(number, 1)\n"
    project.run(f"python -c '{calls}'")
    assert project.wait_until(lambda: worker.printed.count(" succeeded in ") == len(numbers)), worker.printed


def test_page(project):
    """The page can be followed word for word: the row of the task says of which task it is."""
    project.follow()

    rows = project.answers[0]
    assert "adding 19 and 23" == rows[0][2]
    assert rows[0][1].startswith("ForkPoolWorker-")
    assert 1 == len({task_id for *_, task_id in rows})


@pytest.mark.parametrize("hijack", [True, False])
def test_every_task_is_there(project, hijack):
    """
    With and without `worker_hijack_root_logger`, each line of each task is there once, from both processes.

    No tick is near when the worker ends: what the processes of the pool have queued, they flush.
    """
    project.write("tasks.py")
    tasks = project.folder / "tasks.py"
    code = tasks.read_text(encoding="utf-8").replace('"filters"', '"flush_interval": 3600, "filters"')
    tasks.write_text(f"{code}{TOGETHER}\n\napp.conf.worker_hijack_root_logger = {hijack}\n", encoding="utf-8")
    project.start(WORKER, " ready.")

    call(project, *range(40))
    project.end_servers()

    rows = project.query("SELECT message, process_name FROM logs WHERE logger = 'tasks'")
    assert sorted(f"adding {number} and 1" for number in range(40)) == sorted(message for message, _ in rows)
    assert 2 == len({process for _, process in rows})
    assert [(40,)] == project.query("SELECT count(*) FROM logs WHERE logger = 'celery.app.trace'")


@pytest.mark.parametrize("hijack", [True, False])
def test_without_the_signal(project, hijack):
    """What the page says of a worker that sets up logging itself is so: the handler goes, or misses the tasks."""
    project.write("tasks.py")
    tasks = project.folder / "tasks.py"
    code = tasks.read_text(encoding="utf-8").replace("@signals.setup_logging.connect\n", "")
    tasks.write_text(
        f"{code}\n\nconfigure_logging()\napp.conf.worker_hijack_root_logger = {hijack}\n", encoding="utf-8"
    )
    project.start(WORKER, " ready.")

    call(project, 1)

    # The row of the worker comes, or there is no handler to wait for. That the worker ends would take seconds.
    counts = "SELECT count(*) FROM logs WHERE logger = ?"
    assert project.wait_until(lambda: project.query(counts, "celery.app.trace") == [(0 if hijack else 1,)])
    assert [(0,)] == project.query(counts, "tasks")
