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


def test_a_hook_that_waits_for_a_thread(run, contents):
    """
    A hook that was registered after this package was imported may wait for a thread that makes a logger.

    That of a tracer ends its thread at a fork, which says so by a new logger. Imported before this package, it would
    wait for ever, because our hook then holds logging's lock.
    """
    run(
        """
        logger.addHandler(SQLiteHandler(path))
        begins = threading.Event()
        def work():
            begins.wait()
            logging.getLogger("program.new").info("thread 1")
        thread = threading.Thread(target=work)
        thread.start()
        def end_thread():
            begins.set()
            thread.join()
        os.register_at_fork(before=end_thread)
        logger.info("parent 1")
        pid = os.fork()
        if not pid:
            logger.info("child 1")
        else:
            assert 0 == os.waitpid(pid, 0)[1]
        """
    )

    assert {"child": [1], "parent": [1], "thread": [1]} == contents().numbers


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
