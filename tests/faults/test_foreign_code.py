"""
Code that is not ours beside the log: handlers that block, threads that are killed, C code that forks.
"""

from __future__ import annotations

import sys

import pytest

# A pipe that is full because nobody reads it, as stderr of a program whose supervisor hangs.
BLOCKED = """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True: os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
"""

HANDLERS = {
    "stream": "logging.StreamHandler(open(writing, 'w', buffering=1))",
    # No system tells that this one blocks.
    "other": "type('Blocks', (logging.Handler,), {'emit': lambda self, record: os.write(writing, b'x')})()",
}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_that_blocks_stops_no_commit_and_no_exit(run, contents, kind):
    """
    Beside a handler that blocks for ever, everything is committed, and the process ends within `close_timeout`.

    The listener sent its drop warnings itself. One drop, and nothing was committed any more; `close`, and with it the
    exit of the interpreter, never came back.
    """
    run(
        f"""
    {BLOCKED}
    handler = SQLiteHandler(path, capacity=100, batch_size=50, close_timeout=0.5)
    logger.addHandler(handler)
    logging.getLogger("sqlite_log_handler").addHandler({HANDLERS[kind]})
    logging.getLogger("sqlite_log_handler").propagate = False
    number = 0
    while not handler.dropped_total:
        logger.info("n %d", number)
        number += 1
    while "sqlite_log_handler reporter" not in [thread.name for thread in threading.enumerate()]:
        assert handler.flush(60)
    for number in range(number, number + 500):
        logger.info("n %d", number)
        assert handler.flush(60)
    print(handler.dropped_total)
    """,
        stderr="[^\n]*drops? not reported to other handlers: another handler has not returned; dropped [^\n]*\n",
    )

    found = contents()
    assert found.numbers["n"][-500:] == list(range(found.numbers["n"][-1] - 499, found.numbers["n"][-1] + 1))
    assert 0 < found.dropped


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
def test_a_standard_error_that_logs(run, contents):
    """
    When `sys.stderr` is an object that logs, and a handler blocks, commits go on all the same.

    celery puts such an object there. The listener wrote the line about an outage to it, and so ran the program's
    handlers: one of them waited for a full pipe, and nothing was committed any more.
    """
    run(
        f"""
    {BLOCKED}
    class Logs:
        def write(self, text): logging.getLogger("stderr").warning(text)
        def flush(self): pass
    sys.stderr = Logs()
    logging.getLogger("stderr").addHandler(logging.StreamHandler(open(writing, "w", buffering=1)))
    logging.getLogger("stderr").propagate = False
    _outage.OUTAGE_AFTER = 0
    handler = SQLiteHandler(path, flush_interval=0.01)
    logger.addHandler(handler)
    logger.propagate = False
    another = sqlite3.connect(path, isolation_level=None)
    another.execute("BEGIN EXCLUSIVE")
    logger.info("n 0")
    assert not handler.flush(0.1)
    another.execute("ROLLBACK")
    another.close()
    logger.info("n 1")
    while handler.stats().queued: threading.Event().wait(0.01)
    """,
        stderr=".* cannot write .*\n.* writing again.*\n",
    )

    assert [0, 1] == contents().numbers["n"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
def test_a_standard_error_that_nobody_reads(run, contents):
    """
    A process without other handlers ends as well, when its standard error is a full pipe that nobody reads.

    `logging.lastResort` writes the warnings there. It is in no logger's list, so nobody looked whether its stream takes
    more: the reporter kept the lock of that handler, and `logging.shutdown` waited for it for ever.
    """
    run(
        f"""
    {BLOCKED}
    os.dup2(writing, 2)
    handler = SQLiteHandler(path, capacity=1, batch_size=100, flush_interval=3600, close_timeout=0.5)
    logger.addHandler(handler)
    logger.propagate = False
    logger.info("n 0")
    logger.info("n 1")
    handler.close()
    assert [1, 1] == [handler.stats().written, handler.dropped_total]
    """,
        env={"PYTHONFAULTHANDLER": ""},  # its stacks would not come through either
    )

    assert ({"n": [0]}, 1, 1) == contents()


@pytest.mark.parametrize("error", ["SystemExit", "MemoryError"])
def test_a_listener_that_was_killed_is_replaced(run, contents, error):
    """
    What ends the listener's thread between two hooks ends one thread: the next record starts another.

    A MemoryError in a process at its limit, or an exception that another thread sets, left the log dead until the
    program closed it, with `last_error` None.
    """
    run(
        f"""
        import ctypes
        threading.excepthook = lambda arguments: None
        handler = SQLiteHandler(path, flush_interval=0.001)
        logger.addHandler(handler)
        logger.info("n 0")
        assert handler.flush()
        thread = handler.listener._thread
        while thread.is_alive():  # inside of `handle` it ends nothing
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object({error}))
            handler.queue.wake()
            thread.join(0.01)
        for number in range(1, 100): logger.info("n %d", number)
        while handler.stats().queued: pass
        assert handler.listener._thread is not thread
        """
    )

    assert {"n": list(range(100))} == contents().numbers


@pytest.mark.skipif(
    sys.platform != "linux" or "free-threading" in sys.version,
    reason="calls fork of the C library; without a GIL, a collection in the child then waits for threads of its parent",
)
def test_a_fork_that_runs_no_hooks(run, contents):
    """
    A child that C code has forked begins anew at its first record: none is lost, and none is there twice.

    uWSGI forks its workers so, and daemon(3) does. Nothing noticed that the process was another one: its log was dead
    while it ran, and at its end it wrote through its parent's connection what its parent had written already.
    """
    run(
        """
        import ctypes
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("first 0")
        assert handler.flush()
        for number in range(5): logger.info("parent %d", number)
        children = []
        for who in ("a", "b"):
            pid = ctypes.PyDLL(None).fork()
            if not pid:
                handler.listener.committer.flush_interval = 0.001
                for number in range(5): logger.info(who + " %d", number)
                stats = handler.stats()
                assert 5 == stats.seen, stats
                while handler.stats().queued: pass
                for number in range(5, 10): logger.info(who + " %d", number)
                sys.exit()
            children.append(pid)
        assert [0, 0] == [os.waitpid(pid, 0)[1] for pid in children]
        for number in range(5, 10): logger.info("parent %d", number)
        """,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )

    expected = {who: list(range(10)) for who in ("parent", "a", "b")}
    assert {"first": [0], **expected} == contents().numbers


@pytest.mark.skipif(
    sys.platform != "linux" or "free-threading" in sys.version,
    reason="calls fork of the C library; without a GIL, a collection in the child then waits for threads of its parent",
)
@pytest.mark.parametrize("where", ["queue full", "closed", "never logged"])
def test_a_fork_that_runs_no_hooks_in_any_state(run, contents, where):
    """
    It is noticed too when the queue was full at the fork, when the handler was closed, and at the exit of a child that
    has not logged: that one writes nothing of its parent's.
    """
    run(
        """
        import ctypes
        where, = arguments
        handler = SQLiteHandler(path, batch_size=100, flush_interval=3600, capacity=5, reserve=0, fair_share=1)
        logger.addHandler(handler)
        logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
        for number in range(5): logger.info("parent %d", number)
        if where == "closed": handler.close()
        pid = ctypes.PyDLL(None).fork()
        if not pid:
            if where != "never logged": logger.info("child 0")
            sys.exit()
        assert 0 == os.waitpid(pid, 0)[1]
        """,
        where,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )

    expected = {} if where == "never logged" else {"child": [0]}
    assert {"parent": list(range(5)), **expected} == contents().numbers


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_clock_that_stands_still(run, when):
    """
    `flush` keeps its limit of time though freezegun has stopped the clocks of its thread.

    It has stopped `time.monotonic` in the modules that look it up, and in all that are imported later. While another
    process had the lock, or SQLite's, `flush` asked it for the time again and again, and never returned.
    """
    run(
        """
    import freezegun
    from sqlite_log_handler._logfile.write_lock import WriteLock
    if arguments == ["before"]:
        freezegun.freeze_time("2025-11-23").start()
        for name in [name for name in sys.modules if name.startswith("sqlite_log_handler")]:
            del sys.modules[name]
        from sqlite_log_handler import SQLiteHandler
    handler = SQLiteHandler(path)
    logger.addHandler(handler)
    freezegun.freeze_time("2025-11-23").start()
    with WriteLock(path).hold(0):
        logger.info("n 0")
        assert not handler.flush(0.1)
    another = sqlite3.connect(path, isolation_level=None)
    another.execute("BEGIN EXCLUSIVE")
    logger.info("n 1")
    assert not handler.flush(0.1)
    another.execute("ROLLBACK")
    another.close()
    assert handler.flush(60)
    """,
        when,
    )
