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

import sqlite_log_handler
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._write import locks, process
from sqlite_log_handler._write.process import _Exit

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
        done = finished(command)
        assert (code, stderr) == (done.returncode, done.stderr)
        return done.stdout

    return run


@pytest.fixture
def stored(query):
    """Return the messages in the file, in order."""
    return lambda: [message for (message,) in query("SELECT message FROM logs ORDER BY id")]


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_host_whose_name_the_system_refuses(run, query):
    """
    Where the system refuses the name of the host, as a sandbox may, a program and its child write rows without one.

    No handler could be made. One that was there already lost the records of a forked child, and counted none.
    """
    run(
        """
        if not (child := os.fork()):
            logger.info("child")
            os._exit(not handler.flush(5))
        assert 0 == os.waitpid(child, 0)[1]
        logger.info("parent")
        """,
        first="import socket; socket.gethostname = lambda: os.close(-1)",
    )

    assert [("", "child"), ("", "parent")] == query("SELECT host, message FROM logs ORDER BY id")


@pytest.mark.parametrize("limits", [{}, {"max_age": "7d", "max_rows": 100, "max_bytes": "1GB"}])
def test_logging_imports_no_slow_module(tmp_path, limits):
    """
    A program that logs a line, a cron job say, does not wait for modules that only the reader needs, or type checkers,
    or one that has limits; and no record waits for a module, because the handler has loaded all of them when it is
    made.
    """
    program = (
        "import sys, logging, sqlite3; given = set(sys.modules); from sqlite_log_handler import SQLiteHandler; "
        f"handler = SQLiteHandler(sys.argv[1], **{limits}); made = set(sys.modules); "
        "logging.getLogger().addHandler(handler); logging.warning('%s', 1, extra={'a': [object()]}); "
        "handler.stats(); handler.close(); print(*made - given); print(*set(sys.modules) - made)"
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
        *(() if limits else ["sqlite_log_handler._write.retention.pruner"]),
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_record_in_the_middle_of_the_hook(run, stored):
    """
    What a signal handler or a collection logs in a child, while the hook of the handler runs there, is written.

    That record began anew by itself, and then the hook did so once more, and emptied the queue.
    """
    run(
        """
        from sqlite_log_handler._write.process import at_exit
        forget = at_exit.forget
        def log():
            at_exit.forget = forget
            logger.info("in the hook")
        at_exit.forget = log
        logger.info("parent")
        if not (child := os.fork()):
            logger.info("child")
            os._exit(not handler.flush(5))
        assert 0 == os.waitpid(child, 0)[1]
        """
    )

    assert ["child", "in the hook", "parent"] == sorted(stored())


def test_two_threads_that_fork_at_once():
    """
    A thread that comes back from its fork ends its own one, and not that of another thread that forks by then.

    The hook of the parent is there twice. Its second call took the other fork's entry off the list.
    """
    began, go_on = threading.Event(), threading.Event()

    def fork():
        process._before_fork()
        began.set()
        go_on.wait()
        forks.let_go()
        process._after_fork_in_parent()

    other = threading.Thread(target=fork)
    process._before_fork()
    other.start()
    forks.let_go()
    process._after_fork_in_parent()
    began.wait()
    process._after_fork_in_parent()
    forking, free = [*locks.forking], locks.fork_lock.acquire(blocking=False)
    go_on.set()
    other.join()

    assert ([other.ident], False, []) == (forking, free, locks.forking)


@pytest.mark.parametrize(("timeout", "at_most", "expected"), [(0, float, 1), (1.5, float, 2), (1.5, lambda _: 0.5, 1)])
def test_a_commit_at_exit_is_tried_once(timeout, at_most, expected):
    """Commits at exit end when they have failed for `close_timeout`, or a moment after Ctrl-C; one is always tried."""
    times = count()
    tried = []
    committer: Any = Mock(close_timeout=timeout, now=times.__next__, commit=tried.append, at_most=at_most)
    at_exit = _Exit()
    at_exit.begun = True
    for _ in range(3):
        at_exit.commit(committer)

    assert expected == len(tried)


def test_ctrl_c_at_exit_gives_new_locks(monkeypatch):
    """
    Ctrl-C at exit hurries all handlers, and the one whose lock a reporter holds gets a new lock.

    A program that was interrupted while it waited for a drop warning hung in `logging.shutdown`, which takes that lock.
    """
    listeners: list[Any] = [Mock(), Mock()]
    listeners[0].close.side_effect = KeyboardInterrupt
    monkeypatch.setattr(process, "all_listeners", lambda: listeners)
    with pytest.raises(KeyboardInterrupt):
        _Exit()()

    assert [(True, 1)] * 2 == [
        (listener.committer.hurried, listener.committer.drop_report.let_exit.call_count) for listener in listeners
    ]
