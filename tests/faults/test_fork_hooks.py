"""
Hooks that the program runs in a forked child, which log before this package or `multiprocessing` has begun there.
"""

from __future__ import annotations

import itertools
import os
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


NO_HOOKS = pytest.mark.skipif(
    "free-threading" in sys.version, reason="without a GIL, a child that C code forked runs no hooks"
)


@pytest.mark.parametrize("fork", ["os", pytest.param("C", marks=NO_HOOKS)])
def test_a_hook_that_logs_before_ours(run, contents, fork):
    """
    A hook that the program registered before it imported this package logs in a child, which goes on at once.

    Its record made the child run all hooks, its own again too, and each nested one waited a second for the outer one.
    """
    run(
        '''
        # Begin again, without this package.
        os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", """if True:
            import ctypes, logging, os, sys
            logger = logging.getLogger("program")
            logger.setLevel(1)
            os.register_at_fork(after_in_child=lambda: logger.info("child 1"))
            from sqlite_log_handler import SQLiteHandler
            handler = SQLiteHandler(sys.argv[1], flush_interval=3600, close_timeout=60)
            logger.addHandler(handler)
            logger.info("parent 1")
            assert handler.flush()
            pid = os.fork() if sys.argv[2] == "os" else ctypes.CDLL(None).fork()
            if not pid:
                logger.info("child 2")
                stats = handler.stats()
                assert (2, 0) == (stats.queued, stats.dropped_total), stats
            else:
                assert 0 == os.waitpid(pid, 0)[1]
                logger.info("parent 2")
        """, path, *arguments])
        ''',
        fork,
    )

    assert {"child": [1, 2], "parent": [1, 2]} == contents().numbers


@pytest.mark.parametrize("step", ["logging.getLogger('program.new').info('thread 1')", "configure()"])
def test_a_hook_that_waits_for_a_thread(run, contents, step):
    """
    A hook that was registered before this package was imported waits for its thread, which needs logging's lock.

    That of a tracer ends its thread at a fork, which says so by a new logger. Our hook held logging's lock to the end
    of the fork, so both waited for ever.
    """
    run(
        '''
        # Begin again, without this package.
        os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", """if True:
            import logging, logging.config, os, sys, threading
            def configure():
                log = {"class": "sqlite_log_handler.SQLiteHandler", "filename": sys.argv[1], "close_timeout": 60}
                loggers = {"program": {"level": 1, "handlers": ["log"]}}
                logging.config.dictConfig({"version": 1, "handlers": {"log": log}, "loggers": loggers})
            begins = threading.Event()
            def work():
                begins.wait()
                STEP
            thread = threading.Thread(target=work)
            thread.start()
            def end_thread():
                begins.set()
                thread.join()
            os.register_at_fork(before=end_thread)
            configure()
            logger = logging.getLogger("program")
            logger.info("parent 1")
            pid = os.fork()
            if not pid:
                logger.info("child 1")
            else:
                assert 0 == os.waitpid(pid, 0)[1]
                logger.info("parent 2")
        """.replace("STEP", arguments[0]), path])
        ''',
        step,
    )

    threads = {"thread": [1]} if "thread" in step else {}
    assert {"child": [1], "parent": [1, 2], **threads} == contents().numbers


def test_a_fork_under_the_lock_of_logging(run, contents):
    """
    A thread that has logging's lock forks in the middle of another thread's fork. Its child logs, and forks again.

    A configuration may start a `multiprocessing.Manager`. The other fork waits for logging's lock, so this one must not
    wait for the other; its child has the lock of forks as a thread holds it that it does not have.
    """
    run(
        '''
        # Begin again, without this package.
        os.execv(sys.executable, [sys.executable, "-W", "ignore", "-c", """if True:
            import logging, os, sys, threading
            inside, leave = threading.Event(), threading.Event()
            def wait():
                if threading.current_thread() is not threading.main_thread():
                    inside.set()
                    leave.wait()
            os.register_at_fork(before=wait)
            from sqlite_log_handler import SQLiteHandler
            logger = logging.getLogger("program")
            logger.setLevel(1)
            logger.addHandler(SQLiteHandler(sys.argv[1], close_timeout=60))
            logger.info("parent 1")
            def fork(name):
                pid = os.fork()
                if pid:
                    assert 0 == os.waitpid(pid, 0)[1]
                else:
                    logger.info(name + " 1")
                return pid
            def work():
                if not fork("thread"):
                    os._exit(not logger.handlers[0].flush(60))
            thread = threading.Thread(target=work)
            thread.start()
            inside.wait()
            with logging._lock:
                pid = fork("child")
                if not pid:
                    logging._lock.acquire()  # it is new
            if not pid:
                fork("grandchild")
            leave.set()
            thread.join()
        """, path])
        '''
    )

    assert {"parent": [1], "thread": [1], "child": [1], "grandchild": [1]} == contents().numbers


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_child_that_logs_before_it_begins(run, contents, method):
    """
    A multiprocessing child keeps its last tick, also when it logs in a hook of the fork, or as it imports a module.

    The handler put itself on the list of finalizers when its listener started. Before the child begins there is no
    sign that it is one, and as it begins it forgets that list. From CPython 3.14 on the server imports the module.
    """
    run(
        """
        import multiprocessing
        number = 0
        def log_again():
            global number
            number += 1
            logger.info("process-%d %d", os.getpid(), number)
        logger.addHandler(SQLiteHandler(path, flush_interval=3600))
        if __name__ == "__main__":
            os.register_at_fork(after_in_child=log_again)
            context = multiprocessing.get_context(arguments[0])
            process = context.Process(target=log_again)
            process.start()
            process.join()
            assert 0 == process.exitcode
        else:
            log_again()
        """,
        method,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )

    assert [1, 2] == sorted(itertools.chain(*contents().numbers.values()))
