"""
Pools of processes and of threads, with every start method.
"""

from __future__ import annotations

import multiprocessing

import pytest

METHODS = multiprocessing.get_all_start_methods()
NUMBERS = range(200)

EXECUTOR = """
import logging
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from squares import configure_logging, square

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    configure_logging()
    with ProcessPoolExecutor(3, mp_context=context, initializer=configure_logging) as pool:
        list(pool.map(square, range(200)))
"""

PROCESSES = """
import multiprocessing
import sys

from squares import configure_logging, square


def work(numbers):
    configure_logging()
    for number in numbers:
        square(number)


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    configure_logging()
    processes = [context.Process(target=work, args=(range(start, 200, 4),)) for start in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print([process.exitcode for process in processes])
"""

POOL = """
import multiprocessing
import sys

from squares import configure_logging, square

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    configure_logging()
    with context.Pool(3, initializer=configure_logging) as pool:
        pool.map(square, range(200))
        pool.close()
        pool.join()
"""

INHERITED = """
import logging
import multiprocessing

from squares import configure_logging, square

if __name__ == "__main__":
    configure_logging()
    logging.getLogger("squares").info("squaring -1")
    processes = [multiprocessing.get_context("fork").Process(target=square, args=(number,)) for number in range(200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""

THREADS = """
import logging
from concurrent.futures import ThreadPoolExecutor

from squares import configure_logging, square

configure_logging()
with ThreadPoolExecutor(4, thread_name_prefix="squares") as pool:
    list(pool.map(square, range(200)))
"""


def squared(project):
    """Read which numbers were logged, in their order."""
    rows = project.query("SELECT message FROM logs WHERE message LIKE 'squaring %'")
    return sorted(int(message.removeprefix("squaring ")) for (message,) in rows)


def test_page(project):
    """The page can be followed word for word: each process is there, and so are all of their records."""
    project.follow()

    [rows] = project.answers
    assert 101 == sum(records for *_, records in rows)
    assert "MainProcess" in [process_name for _, process_name, _ in rows]
    assert [(1,)] == project.query("SELECT count(*) FROM logs WHERE message = 'the sum is 328350'")


@pytest.mark.parametrize("program", [EXECUTOR, PROCESSES, POOL], ids=["executor", "processes", "pool"])
@pytest.mark.parametrize("method", METHODS)
def test_every_start_method(project, method, program):
    """Each record of each process is there once, whatever the start method and whatever the pool."""
    project.write()
    (project.folder / "program.py").write_text(program, encoding="utf-8")

    project.run(f"python program.py {method}")

    assert list(NUMBERS) == squared(project)
    assert [("ok",)] == project.query("PRAGMA integrity_check")


@pytest.mark.slow
@pytest.mark.skipif("fork" not in METHODS, reason="there is no fork")
def test_fork_without_an_initializer(project):
    """A child made by fork has the handler already, and what its parent had queued is not written twice."""
    project.write()
    (project.folder / "program.py").write_text(INHERITED, encoding="utf-8")

    project.run("python program.py")

    assert [-1, *NUMBERS] == squared(project)


def test_threads(project):
    """Threads of a pool share the handler, and their names tell them apart."""
    project.write()
    project.python(THREADS)

    assert list(NUMBERS) == squared(project)
    names = {name for (name,) in project.query("SELECT DISTINCT thread_name FROM logs")}
    assert names <= {f"squares_{number}" for number in range(4)}
