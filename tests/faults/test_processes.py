"""
Several processes: forks under load, workers of a prefork server, multiprocessing, and many on one file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

QUIET = ("-W", "error", "-W", "ignore::DeprecationWarning")  # 3.12 warns of forks beside threads: that is the test


@pytest.mark.skipif(
    "free-threading" in sys.version,
    reason="without a GIL, a fork may leave locks of the interpreter itself to threads that the child does not have",
)
def test_forks_under_load(run, contents, long):
    """
    Children forked while threads log and the listener commits all end, with books of their own and every row.

    Without a lock taken before it, 7 of 100 forks copy SQLite in the middle of a commit, and hang.
    """
    forks = 1_000 if long else 25
    run(
        """
        handler = SQLiteHandler(path, flush_interval=0.001, capacity=1_000_000)
        logger.addHandler(handler)
        stop, logged = threading.Event(), [0, 0]
        def load(who):
            while not stop.is_set():
                logger.info("load-%d %d", who, logged[who])
                logged[who] += 1
                if logged[who] % 50 == 0: handler.flush()
        threads = [threading.Thread(target=load, args=(who,)) for who in range(2)]
        for thread in threads: thread.start()
        for child in range(int(arguments[0])):
            pid = os.fork()
            if not pid:
                seen = handler.stats().seen
                for number in range(5): logger.info("child-%d %d", child, number)
                assert handler.flush()
                stats = handler.stats()
                os._exit(0 if (0, 5, 5, 0) == (seen, stats.seen, stats.written, stats.dropped_total) else 1)
            assert 0 == os.waitpid(pid, 0)[1]
        stop.set()
        for thread in threads: thread.join()
        stats = handler.stats()
        assert (sum(logged), 0) == (stats.seen, stats.dropped_total)
        print(*logged)
        """,
        forks,
        options=QUIET,
    )
    found = contents().numbers

    assert {f"child-{number}" for number in range(forks)} == {who for who in found if who.startswith("child")}
    for numbers in found.values():
        assert list(range(len(numbers))) == numbers


def test_a_child_holds_the_locks_of_its_connection(run, contents):
    """
    While a forked worker has the file open, its WAL stays, whatever the master does.

    SQLite keeps its POSIX locks in a list of the process, by file. A child inherits the list, but not the locks: its
    own new connection finds "this process holds the lock" and takes none. When the master closes, it finds itself
    alone, and deletes the WAL that the worker goes on writing to. So the master's connection must be closed when it
    forks.
    """
    run(
        """
        handler = SQLiteHandler(path)
        logger.addHandler(handler)
        logger.info("master 0")
        assert handler.flush()
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            logger.info("worker 0")
            assert handler.flush()
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            logger.info("worker 1")
            os._exit(0 if handler.flush() else 1)
        os.read(ready[0], 1)
        logger.info("master 1")
        handler.close()
        kept = os.path.exists(path + "-wal")
        os.write(go[1], b"x")
        assert 0 == os.waitpid(pid, 0)[1]
        assert kept, "the WAL of the worker is gone"
        """,
        options=QUIET,
    )

    assert {"master": [0, 1], "worker": [0, 1]} == contents().numbers


def test_a_prefork_server(run, contents):
    """The master configures and logs, the workers log and `sys.exit`: every row is there, once."""
    run(
        """
        logging.config.dictConfig({
            "version": 1, "disable_existing_loggers": False,
            "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": path, "flush_interval": 60}},
            "root": {"handlers": ["db"], "level": "INFO"},
        })
        logger.info("master 0")
        workers = []
        for worker in range(4):
            pid = os.fork()
            if not pid:
                for number in range(50): logger.info("worker-%d %d", worker, number)
                sys.exit()
            workers.append(pid)
        for pid in workers: assert 0 == os.waitpid(pid, 0)[1]
        logger.info("master 1")
        """,
        options=QUIET,
    )
    expected = {"master": [0, 1], **{f"worker-{worker}": list(range(50)) for worker in range(4)}}

    assert expected == contents().numbers


def test_a_child_of_a_thread_ends_with_that_thread(run, contents):
    """
    A thread forks, and its child returns from the function of that thread: what it has logged is written, and it ends.

    Such a process ends with its last thread, without anything that Python does at exit. The listener was a thread that
    never ended, so its parent waited for ever.
    """
    run(
        """
        from sqlite_log_handler._write import listener
        listener.REVIVED_IDLE = 0.05
        logger.addHandler(SQLiteHandler(path, flush_interval=0.01))
        def work():
            pid = os.fork()
            if pid:
                assert (pid, 0) == os.waitpid(pid, 0)
            else:
                logger.info("child 0")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        logger.info("parent 0")
        """,
        options=QUIET,
    )

    assert {"child": [0], "parent": [0]} == contents().numbers


def test_a_child_that_ends_at_once(run, contents):
    """`os._exit` in a child loses what the child had queued, and nothing of its parent's."""
    run(
        """
        logger.addHandler(SQLiteHandler(path, flush_interval=60))
        logger.info("parent 0")
        pid = os.fork()
        if not pid:
            logger.info("child 0")
            os._exit(0)
        os.waitpid(pid, 0)
        logger.info("parent 1")
        """,
        options=QUIET,
    )

    assert {"parent": [0, 1]} == contents().numbers


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing(run, contents, method):
    """Whichever way multiprocessing starts its children, each keeps its log."""
    run(
        """
        import multiprocessing
        def work(path, who):
            if not logger.handlers: logger.addHandler(SQLiteHandler(path, flush_interval=60))
            for number in range(20): logger.info("child-%d %d", who, number)
        if __name__ == "__main__":
            context = multiprocessing.get_context(arguments[0])
            logger.addHandler(SQLiteHandler(path, flush_interval=60))
            logger.info("parent 0")
            processes = [context.Process(target=work, args=(path, who)) for who in range(2)]
            for process in processes: process.start()
            for process in processes: process.join()
            assert [0, 0] == [process.exitcode for process in processes]
        """,
        method,
        options=QUIET,
    )

    assert {"parent": [0], "child-0": list(range(20)), "child-1": list(range(20))} == contents().numbers


def test_the_child_of_a_child(run, contents):
    """
    A child that multiprocessing makes in a child keeps its last tick too.

    That its parent is registered with multiprocessing is copied by the fork, and the registration is not.
    """
    run(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        def inner():
            logger.info("inner 0")
        def outer():
            logger.info("outer 0")
            process = context.Process(target=inner)
            process.start()
            process.join()
        if __name__ == "__main__":
            logger.addHandler(SQLiteHandler(path, flush_interval=3600))
            process = context.Process(target=outer)
            process.start()
            process.join()
            assert 0 == process.exitcode
        """,
        options=QUIET,
    )

    assert {"outer": [0], "inner": [0]} == contents().numbers


def test_a_record_without_a_process_is_of_the_one_that_made_it(run, query):
    """
    With `logging.logProcesses = False` a record has no number of a process; what its row has is that of the child.
    """
    out = run(
        """
        logging.logProcesses = False
        handler = SQLiteHandler(path)
        logger.addHandler(handler)
        logger.info("parent 0")
        handler.flush()
        pid = os.fork()
        if not pid:
            logger.info("child 0")
            os._exit(0 if handler.flush() else 1)
        assert 0 == os.waitpid(pid, 0)[1]
        print(os.getpid(), pid)
        """,
        options=QUIET,
    )

    assert [(int(pid),) for pid in out.split()] == query("SELECT process FROM logs ORDER BY id")


def test_many_processes_on_one_file(start, contents, long):
    """
    Eight processes write to one file: all rows are there, in each one's order, and the file is whole.

    In a tight loop of commits SQLite is not fair: one process starved for 12 seconds. And before SQLite 3.51.3 two
    connections that checkpoint at the same moment can corrupt the file (the WAL-reset bug).
    """
    rows = 100_000 if long else 1_500
    program = """
        handler = SQLiteHandler(path, flush_interval=0.01, capacity=1_000_000, capacity_bytes=1 << 30, close_timeout=60)
        logger.addHandler(handler)
        sys.stdin.read()
        for number in range(int(arguments[1])): logger.info("process-%s %d", arguments[0], number)
        handler.close()
        assert (int(arguments[1]), 0) == (handler.stats().written, handler.stats().dropped_total), handler.stats()
    """
    processes = [start(program, who, rows) for who in range(8)]
    for process in processes:
        process.stdin.close()
        process.stdin = None
    said = [(process.communicate()[1], process.returncode) for process in processes]

    assert [0] * 8 == [code for _, code in said], said
    assert {f"process-{who}": list(range(rows)) for who in range(8)} == contents().numbers


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_child_that_gives_up_its_rights(run, tmp_path):
    """
    A process that configures as root goes on as another user while the file is open. A fork closes it.

    What the child logs waits, the reason stands in `last_error`, and at the end it is dropped and counted.
    """
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0)
        logger.addHandler(handler)
        logger.info("program 0")
        assert handler.flush(60)
        os.setegid(65534), os.seteuid(65534)
        logger.info("program 1")
        assert handler.flush(60)
        pid = os.fork()
        if not pid:
            # Only this thread commits: one that another thread has begun would hold the record.
            from sqlite_log_handler._write.listener import RecordListener
            RecordListener._start_thread = lambda self, thread: None
            logger.info("child 0")
            assert not handler.flush(0)
            assert "Permission denied" in handler.stats().last_error
            handler.close()
            assert (1, 0, 1) == (handler.stats().seen, handler.stats().written, handler.stats().dropped_total)
            os._exit(0)
        assert 0 == os.waitpid(pid, 0)[1]
        os.seteuid(0), os.setegid(0)
        """,
        options=QUIET,
        stderr=".*closed with 1 records dropped .close_timeout.; PermissionError.*",
    )


def test_a_process_that_is_stopped_in_a_commit(start, run, contents):
    """
    A process that is stopped in the middle of a commit holds up all others on its file until it goes on.

    They keep what they log, up to `capacity`, say after five seconds which process they wait for, and lose nothing.
    """
    stopped = start(
        """
        from sqlite_log_handler._write.inserts import Inserter
        write = Inserter.write
        def stops(*arguments):
            write(*arguments)
            print("in the commit", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        Inserter.write = stops
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("stopped 0")
        assert handler.flush(60)
        Inserter.write = write
        """
    )
    assert "in the commit\n" == stopped.stdout.readline()
    run(
        """
        pid, now = int(arguments[0]), [0.0]
        _outage.TURN_OUTAGE_AFTER = 5
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        handler.listener.committer.now = lambda: now[0]
        said = []
        handler.listener.committer.operator.say = said.append
        logger.info("waiting 0")
        for _ in range(7):
            assert not handler.listener.committer.commit()
            now[0] += 1
        assert f"process {pid} is writing" in handler.stats().last_error
        assert 1 == len(said) and f"process {pid} is writing" in said[0], said
        assert 1 == handler.stats().queued
        os.kill(pid, signal.SIGCONT)
        while not handler.listener.committer.commit(): pass
        assert (1, 0) == (handler.stats().written, handler.stats().dropped_total)
        """,
        stopped.pid,
    )
    assert 0 == stopped.wait()

    assert {"stopped": [0], "waiting": [0]} == contents().numbers
