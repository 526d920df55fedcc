"""
Processes that are killed, and machines that lose power: what is in the file afterwards.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import sqlite3
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

BUSY = """
    handler = SQLiteHandler(path, flush_interval=0.001, batch_size=50)
    logger.addHandler(handler)
    go = threading.Event()
    def work(who):
        for number in range(int(arguments[0])):
            logger.info("%s %d", who, number)
            if number == 100: go.set()
    threads = [threading.Thread(target=work, args=(f"thread-{who}",), daemon=True) for who in range(2)]
    for thread in threads: thread.start()
    go.wait()
    while handler.stats().written < 100: threading.Event().wait(0.001)
    print("flushed", flush=True)
    for thread in threads: thread.join()
"""


def check_prefixes(found, least):
    """
    Check that what is there of each thread begins at the beginning and has no hole but those that the ledger counts.
    """
    holes = sum(numbers[-1] + 1 - len(numbers) for numbers in found.numbers.values())
    assert holes <= found.dropped
    assert least <= sum(map(len, found.numbers.values()))


def test_killed_at_random(start, contents, path, long):
    """
    After a kill -9 the file is whole, and of each thread's records the first ones are there, without a hole.

    Rows leave the queue in order and by transactions, so what is lost is the end: what had not been committed.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(100 if long else 4):
        process = start(BUSY, 1_000_000)
        assert "flushed\n" == process.stdout.readline()
        # At once, or some milliseconds later: what the other process has done by then is up to the machine.
        for _ in range(chance.randrange(200_000)):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        check_prefixes(contents(), 100)
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)


def test_killed_while_the_file_is_made(run, contents, shim, path):
    """
    A log whose first process was killed while it made the tables can be opened, and is made anew.

    What is left is a file with a journal that SQLite rolls back when somebody opens it for writing. A look at it
    read-only, to see whose it is, says "attempt to write a readonly database", for ever.
    """
    out = run(
        """
        import ctypes
        shim, least = ctypes.CDLL(os.environ["LD_PRELOAD"]), 0
        for nth in range(1, 40):
            name = f"{path}-{nth}"
            shim.fault_arm(name.encode(), nth, 5, 1)  # from here on nothing gets to the disk: as if killed
            try:
                pid = os.fork()
                if not pid:
                    with contextlib.suppress(BaseException):
                        SQLiteHandler(name)
                    os._exit(0)
                os.waitpid(pid, 0)
            finally:
                shim.fault_disarm()
            handler = SQLiteHandler(name)
            logger.handlers[:] = [handler]
            logger.info("n 0")
            assert handler.flush()
            handler.close()
        """,
        env={"LD_PRELOAD": shim}.items(),
    )

    assert "" == out
    for nth in range(1, 40):
        assert {"n": [0]} == contents(f"{path}-{nth}").numbers


def test_a_wal_cut_anywhere(start, contents, path, tmp_path, long):
    """After a power cut that leaves a part of the WAL the file is whole, and what it has is a beginning."""
    process = start(BUSY, 1_000_000)
    assert "flushed\n" == process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size
    chance = random.Random(size)
    for cut in [0, 1, 31, 32, size - 1, *(chance.randrange(size) for _ in range(200 if long else 15))]:
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        shutil.copy(wal, f"{copy}-wal")
        with open(f"{copy}-wal", "r+b") as file:
            file.truncate(cut)
        check_prefixes(contents(copy), 0)
        for end in ("", "-wal", "-shm"):
            tmp_path.joinpath(f"copy.db{end}").unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.privileged
def test_killed_at_the_nth_write(start, contents, path, strace, long):
    """Killed by the system at whichever of its writes, a program leaves a file that is whole."""
    nth = 0
    while True:
        nth += 1 if long else 7
        inject = f"inject=pwrite64:signal=SIGKILL:when={nth}"
        wrap = (strace, "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-P", f"{path}-wal", "-e", inject)
        program = """
            handler = SQLiteHandler(path, flush_interval=0.001)
            logger.addHandler(handler)
            for number in range(30):
                logger.info("n %d", number)
                if number % 10 == 9: handler.flush()
            handler.close()
        """
        process = start(program, wrap=wrap)
        process.communicate()
        if process.returncode == 0:
            break
        follow_up = start("SQLiteHandler(path).close()")
        _, said = follow_up.communicate()
        assert (0, "") == (follow_up.returncode, said), nth
        numbers = contents().numbers.get("n", [])
        assert list(range(len(numbers))) == numbers
        for end in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + end).unlink(missing_ok=True)

    assert list(range(30)) == contents().numbers["n"]


INJECTED = """
    handler = SQLiteHandler(path, flush_interval=0.001)
    logger.addHandler(handler)
    for number in range(100):
        logger.info("n %d", number)
        if number % 5 == 4: handler.flush()
    handler.close()
    stats = handler.stats()
    assert (100, 0) == (stats.seen, stats.queued), stats
"""


@pytest.mark.privileged
@pytest.mark.parametrize("fault", ["error=EINTR", "delay_exit=3000"], ids=["interrupted", "slow"])
def test_a_disk_that_is_interrupted_or_slow(start, contents, path, strace, fault):
    """Writes that are interrupted or slow are only late: nothing is missing."""
    inject = f"inject=pwrite64:{fault}:when=3+5"
    wrap = (strace, "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-P", f"{path}-wal", "-e", inject)
    process = start(INJECTED, wrap=wrap)
    _, said = process.communicate()

    assert (0, "") == (process.returncode, said)
    assert list(range(100)) == contents().numbers["n"]


@pytest.mark.privileged
def test_a_disk_that_lies(start, path, strace):
    """
    A disk that claims to have written and has not: no caller sees it, the books balance, and SQLite says what is wrong.

    SQLite checks the frames of a WAL when it recovers them, so what was claimed and is not there ends the log early, or
    shows as corruption. Which of the two is up to the disk, but never are rows made up or put in another order.
    """
    inject = "inject=pwrite64:retval=100:when=30+9"
    wrap = (strace, "-f", "-qq", "-o", "/dev/null", "-P", f"{path}-wal", "-e", inject)
    process = start(INJECTED, wrap=wrap)
    _, said = process.communicate()

    assert 0 == process.returncode, said
    files = [file for file in path.parent.glob("app-log.db*") if re.fullmatch(r".*Z[+]*|.*db", file.name)]
    for file in files:
        with contextlib.closing(sqlite3.connect(file)) as connection, contextlib.suppress(sqlite3.DatabaseError):
            texts = connection.execute("SELECT message FROM records WHERE message LIKE 'n %' ORDER BY id")
            numbers = [int(text.split()[1]) for (text,) in texts]
            assert sorted(set(numbers)) == numbers
            assert set(numbers) <= set(range(100))


FOLDS = """
    from sqlite_log_handler._write import volume
    volume.FOLD_ROWS = 10
    handler = SQLiteHandler(path, capacity=8, reserve=0, fair_share=1, batch_size=100, flush_interval=3600, max_rows=60)
    logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
    loggers = [logging.getLogger(f"program.{number}") for number in range(5)]
    for one in loggers:
        one.setLevel(1)
        one.addHandler(handler)
    for number in range(int(arguments[0])):
        with handler.listener.committer.lock._lock:  # so that the queue has no room for the last two
            for one in loggers * 2: one.info("%s", "n" * (number % 7))
        handler.listener.committer.drop_report.make(handler.listener.committer.now())  # as at a tick
        handler.flush(60)
    handler.close()
"""


def check_volume(path):
    """Check that `volume` has each row once, those that retention has deleted as well, and each drop."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        counts = {
            "rows": "SELECT (SELECT count(*) FROM records) + (SELECT ifnull(sum(count), 0) FROM prunes)",
            "drops": "SELECT ifnull(sum(count), 0) FROM drops",
            "totals": "SELECT ifnull(sum(count), 0) FROM drop_totals",
        }
        found = {name: connection.execute(sql).fetchone()[0] for name, sql in counts.items()}
        records, dropped = connection.execute(
            "SELECT ifnull(sum(records), 0), ifnull(sum(dropped), 0) FROM volume"
        ).fetchone()
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    assert (found["rows"], found["drops"], found["totals"]) == (records, dropped, dropped)
    return records, dropped


@pytest.mark.slow
@pytest.mark.privileged
def test_killed_at_the_nth_write_of_a_fold(start, path, strace, long):
    """
    Killed at whichever of its writes while rows are folded, deleted and dropped, a program leaves a `volume` that has
    each row and each drop once.

    The rows go into the table behind the view in the transaction that moves the mark.
    """
    nth, most = 0, (0, 0)
    while True:
        nth += 1 if long else 17
        inject = f"inject=pwrite64:signal=SIGKILL:when={nth}"
        wrap = (strace, "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-P", f"{path}-wal", "-e", inject)
        process = start(FOLDS, 30, wrap=wrap)
        process.communicate()
        if process.returncode == 0:
            break
        follow_up = start("SQLiteHandler(path).close()")
        assert 0 == follow_up.wait()
        most = max(most, check_volume(path))
        for end in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + end).unlink(missing_ok=True)

    assert 100 < most[0] < check_volume(path)[0]
    assert 30 < most[1]


def test_processes_fold_together(start, path):
    """Several processes that fold, delete and drop leave a `volume` that has each row and each drop once."""
    processes = [start(FOLDS, 60) for _ in range(4)]
    for process in processes:
        assert 0 == process.wait()

    records, dropped = check_volume(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (reports,) = connection.execute(
            "SELECT sum(records) FROM volume WHERE logger = 'sqlite_log_handler'"
        ).fetchone()
    assert 4 * 60 * 10 == records - reports + dropped
