"""
What the end of a process and a fork leave behind: programs run as programs are run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from slowly import slowly

import sqlite_log_handler
from sqlite_log_handler._write import process
from sqlite_log_handler._write.process import LOGGING_LOCK, _Exit

# Where the package under test is: a program in another folder is to find the same one.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))}

CONFIGURED = """
import atexit, logging, logging.config, os, sys, threading, time
{first}
logging.config.dictConfig({{
    "version": 1,
    "handlers": {{
        "db": {{
            "class": "sqlite_log_handler.SQLiteHandler",
            "filename": sys.argv[1],
            "flush_interval": 60,
            "close_timeout": 60,
        }}
    }},
    "root": {{"handlers": ["db"], "level": "INFO"}},
}})
logger = logging.getLogger("program")
handler = logging.getLogger().handlers[0]
"""


def finished(command):
    """Run a command to its end."""
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False, env=ENVIRONMENT
    )


@pytest.fixture
def run(path):
    """
    Run a program that has configured the handler with a flush interval of a minute; it must end well and say nothing.
    """

    def run(program, *, first="", code=0, stderr=""):
        script = CONFIGURED.format(first=textwrap.dedent(first)) + textwrap.dedent(program)
        options = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]  # of a fork beside threads
        command = [sys.executable, *options, "-c", script, str(path)]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
        )
        assert (code, stderr) == (done.returncode, done.stderr)
        return done.stdout

    return run


@pytest.fixture
def stored(query):
    """Return the messages in the file, in order."""
    return lambda: [message for (message,) in query("SELECT message FROM logs ORDER BY id")]


def test_a_program_that_ends_keeps_its_log(run, stored):
    """A program need not close anything: what is queued when it ends is written."""
    run("for number in range(500): logger.info('%d', number)")

    assert [str(number) for number in range(500)] == stored()


def test_a_handler_that_logging_has_forgotten_is_written_too(run, stored):
    """A second configuration closes handlers that may stay attached; what they are given later is written at exit."""
    run(
        """
        forgotten = logging.getLogger("kept")
        forgotten.addHandler(handler)
        forgotten.propagate = False
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        forgotten.warning("after")
        """
    )

    assert ["after"] == stored()


def test_callbacks_at_exit_are_heard(run, stored):
    """What atexit callbacks log is kept, whether they were registered before the handler was imported or after it."""
    run(
        """
        atexit.register(logger.info, "registered later")
        logger.info("main")
        """,
        first="""
        atexit.register(lambda: logger.info("registered first"))
        """,
    )

    assert ["main", "registered later", "registered first"] == stored()


def test_a_forked_child_logs_for_itself(run, stored):
    """In a forked child the books are at zero and a new listener starts; no row is lost and none is there twice."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")

    run(
        """
        for number in range(100): logger.info("parent %d", number)
        pid = os.fork()
        if not pid:
            assert 0 == handler.stats().seen
            for number in range(100): logger.info("child %d", number)
            sys.exit()
        assert 0 == os.waitpid(pid, 0)[1]
        assert 100 == handler.stats().seen
        """
    )

    expected = [f"{who} {number}" for who in ("child", "parent") for number in range(100)]
    assert sorted(expected) == sorted(stored())


@pytest.mark.parametrize("method", ["fork", *slowly("forkserver", "spawn")])
def test_children_of_multiprocessing_keep_their_log(tmp_path, path, stored, method):
    """A multiprocessing child runs no atexit callback up to Python 3.12; its log is kept all the same."""
    import multiprocessing  # noqa: PLC0415 - its resource tracker is this test's alone

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import logging, multiprocessing, sys
            import sqlite_log_handler

            def work(path, number):
                logger = logging.getLogger("program")
                if not logger.handlers:
                    logger.addHandler(sqlite_log_handler.SQLiteHandler(path, flush_interval=60, close_timeout=60))
                for index in range(50):
                    logger.warning("%d %d", number, index)

            if __name__ == "__main__":
                context = multiprocessing.get_context(sys.argv[2])
                handler = sqlite_log_handler.SQLiteHandler(sys.argv[1], flush_interval=60, close_timeout=60)
                logging.getLogger("program").addHandler(handler)
                logging.getLogger("program").warning("parent")
                processes = [context.Process(target=work, args=(sys.argv[1], number)) for number in range(3)]
                for process in processes: process.start()
                for process in processes: process.join()
                assert [0, 0, 0] == [process.exitcode for process in processes]
            """
        )
    )
    command = [sys.executable, str(program), str(path), method]
    done = finished(command)

    assert (0, "") == (done.returncode, done.stderr)
    assert sorted(["parent", *(f"{a} {b}" for a in range(3) for b in range(50))]) == sorted(stored())


def test_a_program_without_stderr_does_not_notice(run, stored):
    """With `sys.stderr` None, as in a program without a console, nothing raises."""
    run(
        """
        sys.stderr = None
        logger.info("%d", "x")
        handler.listener.committer.operator.say("a line for nobody")
        """
    )

    assert 1 == len(stored())


def test_import_is_quiet(run):
    """Importing and configuring says nothing and starts no thread."""
    assert "1\n" == run("print(threading.active_count())")


def test_nothing_is_imported_by_a_record(run, query):
    """
    A program that cannot import any more, after a chroot or as another user, logs and ends as any other does.

    The first record of a process that knew of multiprocessing imported a part of it. It could not, and each record was
    dropped, with a traceback on stderr.
    """
    run(
        """
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name not in {"ast", "_ast", "tokenize", "token", "_colorize"}:  # for the source in a traceback
                    print("imported:", name, file=sys.stderr)
                raise ImportError(name)

        sys.meta_path[:] = [Refuse()]
        sys.path_importer_cache.clear()
        logger.info("plain")
        logger.warning("%s", object, extra={"number": 1.5, "list": [1, {2}], "set": {b"x"}, "path": OSError("x")})
        logger.info("surrogate \\udc80 and \\0", stack_info=True)
        logger.info("%d", "not a number")
        try:
            {"price": 1}["te" + "a"]
        except KeyError:
            logger.exception("failed")
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            handler.flush()
            handler.close()
        logger.info("the last of %s", "the parent" if child else "the child")
        """,
        first="import multiprocessing.process",
    )
    texts = {text for (text,) in query("SELECT message FROM logs")}
    (failed,) = query("SELECT exc_type, exc_text FROM logs WHERE message = 'failed'")

    assert {"the last of the child", "the last of the parent", "plain"} < texts
    assert ("KeyError", True) == (failed[0], failed[1].endswith("\nKeyError: 'tea'"))


def test_a_host_whose_name_is_not_utf8(run, query):
    """A host may have any bytes for a name. With some that are not UTF-8, every record was dropped as `unwritable`."""
    run("logger.info('hello')", first=r"import socket; socket.gethostname = lambda: 'b\udcfcro'")

    assert [(r"b\udcfcro", "hello")] == query("SELECT host, message FROM logs")


def test_logging_imports_no_slow_module(tmp_path):
    """
    A program that logs a line, a cron job say, does not wait for modules that only the reader needs, or type checkers;
    and no record waits for a module, because the handler has loaded all of them when it is made.
    """
    program = (
        "import sys, logging; from sqlite_log_handler import SQLiteHandler; "
        "handler = SQLiteHandler(sys.argv[1], max_age='7d', max_rows=100, max_bytes='1GB'); made = set(sys.modules); "
        "logging.getLogger().addHandler(handler); logging.warning('%s', 1, extra={'a': [object()]}); "
        "handler.stats(); handler.close(); print(*made); print(*set(sys.modules) - made)"
    )
    slow = {
        "ast",
        "argparse",
        "dataclasses",
        "importlib.metadata",
        "inspect",
        "json",
        "pathlib",
        "typing",
        "urllib.parse",
    }

    done = finished([sys.executable, "-c", program, str(tmp_path / "app-log.db")])
    made, later = (set(line.split()) for line in done.stdout.splitlines())

    assert (0, set(), set()) == (done.returncode, slow & made, later), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_with_the_id_of_its_parent(run, stored):
    """A child may have its parent's id, as the first one in a PID namespace has, and begins anew all the same."""
    run(
        """
        from sqlite_log_handler._write import row
        row.getpid = lambda: row.own_pid
        logger.info("parent")
        if not (child := os.fork()):
            logger.info("child")
            os._exit(not handler.flush(5))
        assert 0 == os.waitpid(child, 0)[1]
        """
    )

    assert ["child", "parent"] == sorted(stored())


def test_two_threads_that_fork_at_once():
    """
    A thread that comes back from its fork lets go of logging's lock once, and not for another one that forks by then.

    The hook of the parent is there twice. Its second call took the other fork's entry off the list, and could not
    release the lock, which the other thread then kept for ever.
    """
    process._before_fork()
    began, go_on = threading.Event(), threading.Event()

    def fork():
        process._before_fork()
        began.set()
        go_on.wait()
        process._after_fork_in_parent()
        process._after_fork_in_parent()

    other = threading.Thread(target=fork)
    other.start()
    process._after_fork_in_parent()
    began.wait()
    process._after_fork_in_parent()
    go_on.set()
    other.join()

    assert LOGGING_LOCK.acquire(blocking=False)
    LOGGING_LOCK.release()


@pytest.mark.parametrize(("timeout", "expected"), [(0, 1), (1.5, 2)])
def test_a_commit_at_exit_is_tried_once(timeout, expected):
    """Commits at exit end when they have failed for `close_timeout`, and one is tried if that is 0."""
    times = count()
    tried = []
    committer: Any = Mock(close_timeout=timeout, now=times.__next__, commit=tried.append)
    at_exit = _Exit()
    at_exit.begun = True
    for _ in range(3):
        at_exit.commit(committer)

    assert expected == len(tried)
