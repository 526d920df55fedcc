"""
Every way in which a process can end: what is kept. The table in docs/reliability.md has the same lines.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest

from sqlite_log_handler._write import process

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

BEGIN = """
    handler = SQLiteHandler(path, flush_interval=3600)
    logger.addHandler(handler)
    def log(first, who="n"):
        for number in range(first, first + 10): logger.info("%s %d", who, number)
    def end(code=0): sys.exit(code)
    if __name__ == "__main__":
        log(0)
        assert handler.flush()
        log(10)
"""

ALL, COMMITTED = "everything", "the committed records"

# The line of the table: what is kept, the exit status, what is on stderr, and the program.
EXITS = {
    "the program comes to its end": (ALL, 0, "", "pass"),
    "an exception that the program does not catch": (ALL, 1, ".*ValueError: over\n", "raise ValueError('over')"),
    "`sys.exit()`": (ALL, 3, "", "sys.exit(3)"),
    "`sys.exit()` in a thread": (ALL, 0, "", "t = threading.Thread(target=sys.exit); t.start(); t.join()"),
    # Started in the background by a shell, a program ignores SIGINT, and inherits that to its children.
    "Ctrl-C (SIGINT)": (
        ALL,
        -2,
        ".*KeyboardInterrupt\n",
        """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
        """,
    ),
    "SIGTERM, with a handler that calls `sys.exit()`": (
        ALL,
        4,
        "",
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """,
    ),
    "SIGTERM, without a handler": (COMMITTED, -15, "", "os.kill(os.getpid(), signal.SIGTERM); signal.pause()"),
    "SIGKILL, or a crash": (COMMITTED, -9, "", "os.kill(os.getpid(), signal.SIGKILL); signal.pause()"),
    "`os._exit()`": (COMMITTED, 0, "", "os._exit(0)"),
    "`os.exec*()`": (COMMITTED, 0, "", "os.execv(sys.executable, [sys.executable, '-c', 'pass'])"),
    "the end of a multiprocessing child": (
        ALL,
        0,
        "",
        """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=log, args=(0, 'child'))
        child.start()
        child.join()
        """,
    ),
    "the end of a worker of `concurrent.futures`": (
        ALL,
        0,
        "",
        """
        import concurrent.futures, multiprocessing
        context = multiprocessing.get_context("fork")
        pools = concurrent.futures.ProcessPoolExecutor(1, mp_context=context), concurrent.futures.ThreadPoolExecutor(1)
        for pool, who in zip(pools, ("child", "thread")):
            with pool: pool.submit(log, 0, who).result()
        """,
    ),
}
MORE = {
    "the end of a multiprocessing child": ["child"],
    "the end of a worker of `concurrent.futures`": ["child", "thread"],
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of Unix")
@pytest.mark.parametrize("way", EXITS)
def test_what_is_kept(run, contents, way):
    """However a process ends, what was committed is kept; and what was queued too, if Python gets to run at all."""
    kept, code, stderr, program = EXITS[way]
    lines = "\n".join(f"        {line.removeprefix('        ')}" for line in program.splitlines())
    run(
        f"{BEGIN}{lines}\n",
        code=code,
        stderr=stderr,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )

    expected = {"n": list(range(20 if kept == ALL else 10))}
    expected |= {who: list(range(10)) for who in MORE.get(way, [])}
    assert expected == contents().numbers


def test_callbacks_at_exit(run, contents):
    """
    What atexit callbacks log is kept, whether they were registered before the handler's or after it.

    That holds too for a handler that is not in logging's list, which `logging.shutdown` goes through last.
    """
    run(
        """
        atexit.unregister(__import__("sqlite_log_handler")._write.process.at_exit)
        atexit.register(lambda: logger.info("before 0"))
        atexit.register(__import__("sqlite_log_handler")._write.process.at_exit)
        logger.addHandler(SQLiteHandler(path, flush_interval=3600))
        logging._handlerList.clear()
        logger.info("main 0")
        atexit.register(lambda: logger.info("after 0"))
        """
    )

    assert {"main": [0], "after": [0], "before": [0]} == contents().numbers


def test_a_daemon_thread_at_exit(run, contents, long):
    """A daemon thread that goes on logging while the interpreter ends keeps nobody up, and its records have no hole."""
    for _ in range(50 if long else 3):
        run(
            """
            logger.addHandler(SQLiteHandler(path, flush_interval=0.001))
            logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
            begun = threading.Event()
            def work():
                number = 0
                while True:
                    logger.info(f"{os.getpid()} %d", number)
                    number += 1
                    if number == 100: begun.set()
            threading.Thread(target=work, daemon=True).start()
            begun.wait()
            """
        )
        found = contents()
        holes = sum(numbers[-1] + 1 - len(numbers) for numbers in found.numbers.values())
        assert holes <= found.dropped
        assert 100 <= min(map(len, found.numbers.values()))


@pytest.fixture
def failing(make_handler, tmp_path, clock, unattended, monkeypatch, warnings):
    """Two handlers whose files cannot be written, each with a record, when the interpreter is about to exit."""

    def fails(*_, **__):
        raise OSError("disk")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(process.at_exit, "begun", False)
    monkeypatch.setattr(process.at_exit, "_failed", {})
    handlers = [make_handler(tmp_path / name, close_timeout=3) for name in ("a.db", "b.db")]
    monkeypatch.setattr(process, "all_listeners", lambda: [handler.listener for handler in handlers])
    for handler in handlers:
        monkeypatch.setattr(handler.listener.committer.writer, "write", fails)
        handler.listener.committer.now, handler.listener.committer._sleep = clock, clock.advance
        handler.listener.queue.open()
        handler.handle(logging.makeLogRecord({"msg": "x", "levelno": 20}))
    return handlers


def shut_down(handlers):
    """Flush and close the handlers in the order in which `logging.shutdown` does."""
    for handler in reversed(handlers):
        handler.flush()
        handler.close()


def test_the_exit_of_several_handlers_adds_up(failing, clock):
    """
    Handlers whose files cannot be written are closed one after the other, and each takes its `close_timeout`, once.

    Each got the drop warnings of the others after that, and waited for these as well: two handlers took four times as
    long as one, and three eight times.
    """
    begun = clock()
    process.at_exit()

    assert 6.0 == pytest.approx(clock() - begun)
    assert [{"close_timeout": 1}] * 2 == [handler.stats().dropped_by_cause for handler in failing]
    for handler in failing:
        handler.handle(logging.makeLogRecord({"msg": "of the other", "levelno": 30}))
    shut_down(failing)
    assert 6.0 == pytest.approx(clock() - begun)
    assert [{"close_timeout": 2}] * 2 == [handler.stats().dropped_by_cause for handler in failing]


def test_ctrl_c_while_the_rest_is_written(make, clock, monkeypatch):
    """Ctrl-C at exit costs no row of a healthy file: what takes several commits is written all the same."""
    handler = make(close_timeout=3, batch_size=2)
    handler.listener.queue.open()
    for number in range(7):
        handler.handle(logging.makeLogRecord({"msg": f"n {number}", "levelno": 20}))
    monkeypatch.setattr(process.at_exit, "begun", False)
    monkeypatch.setattr(process, "all_listeners", lambda: [handler.listener])

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.committer, "drain", interrupt)
        with pytest.raises(KeyboardInterrupt):
            process.at_exit()
    shut_down([handler])

    assert (7, 0) == (handler.stats().written, handler.dropped_total)


def test_ctrl_c_at_exit(failing, clock, monkeypatch):
    """Ctrl-C ends the wait for a file that cannot be written. Each handler was waited for twice more."""

    def interrupt(_):
        raise KeyboardInterrupt

    begun = clock()
    with monkeypatch.context() as patch:
        patch.setattr(failing[0].listener.committer, "_sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            process.at_exit()
    shut_down(failing)

    assert begun == clock()
    assert [{"close_timeout": 1}] * 2 == [handler.stats().dropped_by_cause for handler in failing]


@pytest.mark.parametrize("is_written", ["by the next handler", "when it is collected", "at exit"])
def test_drops_of_a_replaced_handler(run, contents, is_written):
    """
    The ledger has the drops of a handler that `dictConfig` replaced, as soon as the file can be written again.

    The thread of the old handler gave its rows up when nobody had the handler any more, so nobody wrote the gap.
    """
    run(
        """
        gc.disable()
        options = {"class": "sqlite_log_handler.SQLiteHandler", "filename": path, "close_timeout": 0.1}
        conf = {"version": 1, "handlers": {"db": options}, "root": {"handlers": ["db"], "level": "INFO"}}
        logging.config.dictConfig(conf)
        old = logging.getLogger().handlers[0]
        locked = sqlite3.connect(path, isolation_level=None)
        locked.execute("BEGIN EXCLUSIVE")
        for number in range(5):
            logging.getLogger().info("old %d", number)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "sqlite_log_handler")
        conf["handlers"]["db"] = {**options, "close_timeout": 60}
        logging.config.dictConfig(conf)
        thread.join()
        locked.rollback()
        del old
        if arguments[0] == "by the next handler":
            logging.getLogger().info("new 0")
        elif arguments[0] == "when it is collected":
            gc.collect()
        if arguments[0] != "at exit":
            while not locked.execute("SELECT count(*) FROM drops").fetchone()[0]: pass
            os._exit(0)
        """,
        is_written,
        stderr=".*closed with 5 records dropped.*",
    )

    assert 5 == contents().dropped


def test_the_page_has_the_same_lines():
    """The table of the reliability page has a line for each way that is tested, with what is kept."""
    table = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = {way: kept for way, (kept, *_) in EXITS.items()}
    expected |= {"an atexit callback that logs": ALL, "a daemon thread that logs to the last": COMMITTED}

    assert expected == {way: kept for way, kept in table if kept in {ALL, COMMITTED}}
