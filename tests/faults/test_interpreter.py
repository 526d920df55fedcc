"""
Traps of the interpreter's beginning and end: what cannot start a thread, and what runs no atexit callback.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import sqlite_log_handler


def test_a_handler_that_could_not_be_made_is_nowhere(run):
    """
    A wrong option leaves nothing for the exit to stumble on, and nor does Ctrl-C in the constructor.

    A class that raises after `logging.Handler.__init__` leaves a half-made handler in logging's list; when the
    interpreter ends, `logging.shutdown` prints a traceback for it.
    """
    run(
        """
        import unittest.mock, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        errors = []  # a traceback keeps alive what was half made
        for options in ({"capacity": 0}, {"level": "LOUD"}, {"flush_interval": -1}, {"unknown": 1}):
            try: SQLiteHandler(path, **options)
            except (TypeError, ValueError) as error: errors.append(error)
        try: SQLiteHandler(path + "/missing/x.db")
        except FileNotFoundError as error: errors.append(error)
        with unittest.mock.patch("sqlite_log_handler._write.handler.RecordListener", side_effect=KeyboardInterrupt):
            try: SQLiteHandler(path)
            except KeyboardInterrupt as error: errors.append(error)
        assert 6 == len(errors)
        assert [] == [known() for known in logging._handlerList if isinstance(known(), SQLiteHandler)]
        """
    )


def test_the_first_record_comes_when_no_thread_can_start(run, contents):
    """
    A record that is the first ever and comes at exit is written by its caller.

    From 3.12 on starting a thread while the interpreter ends raises RuntimeError: a handler that starts its thread
    lazily loses what atexit callbacks log.
    """
    run(
        """
        def refuse(thread): raise RuntimeError("can't create new thread at interpreter shutdown")
        threading.Thread.start = refuse  # on every version
        logger.addHandler(SQLiteHandler(path))
        atexit.register(lambda: [logger.info("exit %d", number) for number in range(3)])
        """
    )

    assert {"exit": [0, 1, 2]} == contents().numbers


def test_a_subinterpreter_without_threads(run, contents):
    """
    An isolated subinterpreter refuses daemon threads; the log is kept there too.

    On 3.13 the listener's thread cannot be started in it: the rows wait, and `flush` or `close` writes them.
    """
    try:
        import _interpreters  # noqa: PLC0415, F401 - 3.13
    except ImportError:
        pytest.skip("isolated subinterpreters can be had from Python 3.13 on")
    out = run(
        """
        import _interpreters
        code = f'''if True:
            import logging, threading
            try:
                from sqlite_log_handler import SQLiteHandler
            except ImportError as error:
                print(error, end="")
            else:
                logger = logging.getLogger("program")
                logger.setLevel(1)
                handler = SQLiteHandler({path!r})
                logger.addHandler(handler)
                for number in range(3):
                    logger.info("sub %d", number)
                assert handler.flush()
                handler.close()
        '''
        interpreter = _interpreters.create("isolated")
        failed = _interpreters.exec(interpreter, code)
        assert not failed, failed
        _interpreters.destroy(interpreter)
        """
    )
    if out:
        pytest.skip(f"this interpreter has no sqlite3 for subinterpreters: {out}")

    assert {"sub": [0, 1, 2]} == contents().numbers


# Runs code in an isolated subinterpreter, to the end of that.
IN_SUBINTERPRETER = """
import _interpreters
interpreter = _interpreters.create("isolated")
failed = _interpreters.exec(interpreter, code, {"path": path, "arguments": tuple(arguments)})
assert not failed, failed.errdisplay
_interpreters.destroy(interpreter)
"""
SUBPRELUDE = """
import atexit, logging, os, threading
from sqlite_log_handler import SQLiteHandler
logger = logging.getLogger("program")
logger.setLevel(1)
"""
only_from_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 only `test` could make them")


@only_from_314
def test_a_subinterpreter_with_a_thread(run, contents):
    """
    From 3.14 on an isolated subinterpreter has the listener's thread, and keeps what comes after that one's end.

    It waits for its threads before any atexit callback. Without a thread, a worker of an InterpreterPoolExecutor
    wrote nothing until the end of the pool, and dropped what was more than the queue takes.
    """
    code = f"""{SUBPRELUDE}
handler = SQLiteHandler(path, flush_interval=0.01, close_timeout=60)
logger.addHandler(handler)
logger.info("sub 0")
while handler.stats().queued: threading.Event().wait(0.01)
handler.listener.committer.flush_interval = 3600
end = threading.Event()
threading._register_atexit(lambda: end.set())  # is called before that of the handler is
threading.Thread(target=lambda: end.wait() and logger.info("sub 1")).start()
atexit.register(logger.info, "sub 2")
"""
    run(f"code = {code!r}\n{IN_SUBINTERPRETER}")

    assert {"sub": [0, 1, 2]} == contents().numbers


@only_from_314
def test_a_subinterpreter_ends_beside_a_stream_that_takes_nothing(run):
    """The end of a subinterpreter does not wait for the stream of another handler, and says that it got no warning."""
    code = f"""{SUBPRELUDE}
reading, writing = os.pipe()
os.set_blocking(writing, False)
try:
    while True: os.write(writing, b"x" * 65_536)
except BlockingIOError: os.set_blocking(writing, True)
logging.getLogger("sqlite_log_handler").addHandler(logging.StreamHandler(open(writing, "w")))
handler = SQLiteHandler(path, capacity=1, reserve=0, close_timeout=0.1)
logger.addHandler(handler)
while not handler.dropped_total: logger.info("sub 0")
handler.flush()
while "sqlite_log_handler reporter" not in [thread.name for thread in threading.enumerate()]:
    threading.Event().wait(0.01)
"""
    said = ".* drops? not reported to other handlers: .*"
    run(f"code = {code!r}\n{IN_SUBINTERPRETER}", stderr=said)


def test_the_process_ends(run, contents):
    """
    The listener keeps no process alive, and what it had not written is written.

    A thread that is no daemon is waited for before any atexit callback runs, so it is never told to stop.
    """
    run(
        """
        logger.addHandler(SQLiteHandler(path, flush_interval=3600))
        logger.info("last %d", 1)
        assert [True] == [thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()]
        """
    )

    assert {"last": [1]} == contents().numbers


def test_a_global_object_that_logs_when_it_is_freed(run, contents):
    """
    What the `__del__` of a global object logs when the interpreter has closed all handlers is written.

    The file was opened anew with the builtin `open`, which Python has taken away by then. The record was lost, and
    nobody said so.
    """
    run(
        """
        logger.addHandler(SQLiteHandler(path))
        class Connection:
            def __del__(self):
                logger.warning("freed 1")
        connection = Connection()
        logger.info("program 1")
        """
    )

    assert {"program": [1], "freed": [1]} == contents().numbers


@pytest.mark.parametrize("part", ["_write", "_logfile"])
def test_no_builtin_that_goes_before_the_last_record(part):
    """No module that commits uses the builtin `open`: the interpreter takes it away before it frees global objects."""
    for path in (Path(sqlite_log_handler.__file__).parent / part).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "open"], path


def test_a_multiprocessing_child_runs_no_atexit(run, contents):
    """
    A child made by multiprocessing keeps its last tick.

    Up to 3.12 such a child ends by `os._exit` and runs no atexit callback. multiprocessing has a list of its own,
    `util.Finalize`, where the handler puts itself at its first record.
    """
    run(
        """
        import multiprocessing
        def work():
            logger.info("child %d", 1)
        if __name__ == "__main__":
            logger.addHandler(SQLiteHandler(path, flush_interval=3600))
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            assert 0 == process.exitcode
        """
    )

    assert {"child": [1]} == contents().numbers


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="from Python 3.13 on a child joins its threads first")
def test_a_thread_that_outlives_the_work_of_a_multiprocessing_child(run, contents):
    """
    A thread of such a child keeps what it logs after `multiprocessing.util.Finalize` has had its turn.

    The child joins its threads after that, and ends by `os._exit`. A handler that got its first record by then was
    never told of the end.
    """
    run(
        """
        import multiprocessing, multiprocessing.util
        finalized = threading.Event()
        def log_later():
            finalized.wait()
            for number in range(3): logger.info("thread %d", number)
        def work():
            multiprocessing.util.Finalize(None, finalized.set, exitpriority=-100)  # the last that is called
            threading.Thread(target=log_later).start()
        if __name__ == "__main__":
            logger.addHandler(SQLiteHandler(path, flush_interval=3600))
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            assert 0 == process.exitcode
        """
    )

    assert {"thread": [0, 1, 2]} == contents().numbers


def test_one_handler_that_raises_at_exit_costs_no_other(run, contents, path):
    """
    At exit every handler is written, though the drop warning of one meets a handler that raises.

    An atexit callback that goes through a list ends with the first exception. The handlers behind it, when dictConfig
    has taken them off logging's list, are written by no other callback.
    """
    run(
        """
        class Raises(logging.Handler):
            def handle(self, record): raise RuntimeError("no")
        own = logging.getLogger("sqlite_log_handler")
        own.addHandler(Raises())
        own.propagate = False
        options = {"capacity": 1, "reserve": 0, "batch_size": 100, "flush_interval": 3600}
        handlers = [SQLiteHandler(f"{path}{name}", **options) for name in ("", "-2")]
        logging._handlerList.clear()
        for handler in handlers:
            logger.addHandler(handler)
        for number in range(3):
            logger.info("x %d", number)
        """,
        stderr=".*",
    )

    for other in ("", "-2"):
        assert {"x": [0]} == contents(f"{path}{other}").numbers
