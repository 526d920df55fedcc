"""
Traps of SQLite that show only with a second connection or a whole handler; tests/test_writer.py has the others.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

import pytest


@pytest.mark.parametrize("interval", [0.001, 0.05, 0.1, 60])
def test_the_wait_for_a_lock_is_shorter_than_a_tick(make_handler, interval):
    """
    SQLite waits for the lock of another process for half a tick at most, and never for long.

    Nothing ends that wait, not even `Connection.interrupt`: `close` and a fork would have to sit it out.
    """
    handler = make_handler(flush_interval=interval)
    with contextlib.closing(sqlite3.connect(handler.filename, isolation_level=None)) as other:
        handler.listener.committer.writer.file.open()
        ((milliseconds,),) = handler.listener.committer.writer.file.connection.execute("PRAGMA busy_timeout").fetchall()
        other.execute("BEGIN")

    assert milliseconds <= min(50, interval * 500)


def test_a_reader_that_holds_a_snapshot(make_handler, logger, unattended, path, contents):
    """
    While a reader keeps an old snapshot, rows are written all the same, and when it goes the WAL shrinks again.

    The WAL cannot begin anew under a reader: 102 MB were seen. Without `journal_size_limit` it keeps its size for good.
    """
    handler = make_handler(max_record_bytes=512 * 1024)
    logger.addHandler(handler)
    logger.info("n 0")
    handler.flush()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM logs").fetchall()
        for number in range(1, 40):
            logger.info("%s %d", "x" * 500_000, number)
            assert handler.flush()
        pinned = os.stat(f"{path}-wal").st_size
    connection = handler.listener.committer.writer.file.connection
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    logger.info("n 1")
    handler.flush()
    ((limit,),) = connection.execute("PRAGMA journal_size_limit").fetchall()

    assert pinned > limit >= os.stat(f"{path}-wal").st_size
    assert [0, 1] == contents().numbers["n"]


def test_the_locks_are_kept(make_handler, logger, unattended, start, path, contents):
    """
    After many ticks and looks at the file, another process that opens and closes it still leaves our WAL alone.

    POSIX drops all locks that a process has on a file as soon as it closes any descriptor of that file. The other
    process then finds itself alone, deletes the WAL, and what we insert afterwards is gone though every call succeeds.
    """
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(20):
        logger.info("n %d", number)
        handler.listener.handle(None)
        handler.stats()
    other = start(
        """
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert (20,) == connection.execute("SELECT count(*) FROM logs").fetchone()
        """
    )
    _, said = other.communicate()
    assert (0, "") == (other.returncode, said)
    assert os.path.exists(f"{path}-wal")
    logger.info("n 20")
    handler.flush()

    assert list(range(21)) == contents().numbers["n"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks into /proc")
@pytest.mark.parametrize(
    "closed", [["", "-wal"], pytest.param(["", "-wal", "-shm"], marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_a_program_that_closes_all_descriptors(run, contents, closed):
    """
    A program that makes itself a daemon may close descriptors that are not its own: one commit fails.

    SQLite answered "disk I/O error", or "locking protocol" after ten seconds, to each commit from then on, because the
    handler kept the connection until the program ended.
    """
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("n 0")
        assert handler.flush()
        files = [os.path.realpath(path) + end for end in ("", *arguments)]
        links = [os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
        closed = [link for link in links if os.path.realpath(link) in files]
        assert len(files) == len(closed)
        for link in closed: os.close(int(os.path.basename(link)))
        logger.info("n 1")
        assert handler.flush()
        """,
        *closed[1:],
        stderr="(?s:.*)",
    )

    assert {"n": [0, 1]} == contents().numbers


@pytest.mark.parametrize(
    ("then", "lacks"),
    [("commit", ""), ("close", ""), ("close the first", ""), ("commit", "listdir"), ("commit", "listdir sysconf")],
)
def test_files_that_have_the_numbers_of_sqlites_descriptors(run, contents, then, lacks):
    """
    A program closes all descriptors, and opens files that get their numbers: nothing is written to these, or closed.

    SQLite wrote pages of the log into them, `flush` said that all was written, and `close` closed them. So it did
    where the system `lacks` a list of the descriptors, as without /proc.
    """
    run(
        """
        def fails(*_): raise FileNotFoundError
        for name in arguments[1:]: setattr(os, name, fails)
        del arguments[1:]
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.1)
        logger.addHandler(handler)
        logger.info("n 0")
        assert handler.flush(60)
        os.closerange(3, 256)
        names = [f"{path}-mine-{number}" for number in range(12 if arguments != ["close the first"] else 2)]
        mine = [os.open(name, os.O_RDWR | os.O_CREAT) for name in names]
        for descriptor in mine: os.write(descriptor, b"mine" * 5000)
        if arguments == ["close the first"]:  # whose number the lock takes
            os.close(mine.pop(0))
            del names[0]
        if arguments == ["commit"]:
            logger.info("n 1")
            assert not handler.flush(0)
        handler.close()
        for name, descriptor in zip(names, mine):
            assert os.path.samestat(os.stat(name), os.fstat(descriptor)), name
            assert b"mine" * 5000 == open(name, "rb").read(), name
        """,
        then,
        *lacks.split(),
        stderr="(?s:.*)",
    )

    assert {"n": [0]} == contents().numbers


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="the system does not tell which descriptors are open")
def test_descriptors_of_sqlite_that_are_closed(run, contents):
    """
    When a program has closed all descriptors, the file is opened anew, and not even one commit fails.

    SQLite tried the commit again for ten seconds, and wrote into the files that got its numbers meanwhile.
    """
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("n 0")
        assert handler.flush(60)
        os.closerange(3, 256)
        logger.info("n 1")
        assert handler.flush(60)
        assert handler.stats().last_error is None
        """
    )

    assert {"n": [0, 1]} == contents().numbers


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="the system does not tell which descriptors are open")
def test_a_file_that_has_the_number_of_a_descriptor_that_sqlite_kept(run, contents):
    """
    Beside a reader, SQLite opens a log again with the descriptor that it had. Nothing is written to a file of the
    program that gets the number of that one alone.

    The handler did not know that one. It found that its others were closed, and opened the log again, for which SQLite
    used that number once more: the next pages that it wrote back would have gone into the file of the program.
    """
    run(
        """
        from sqlite_log_handler import LogReader
        for number in range(2):
            handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.1)
            logger.addHandler(handler)
            logger.info("n %d", number)
            assert handler.flush(60)
            if not number:
                reader = LogReader(path)
                assert 1 == len(list(reader.rows()))
                logger.removeHandler(handler)
                handler.close()
        numbers = [at for at in range(3, 256) if os.path.exists(f"/dev/fd/{at}")]
        numbers = [at for at in numbers if os.path.samestat(os.fstat(at), os.stat(path))]
        os.closerange(3, 256)
        mine = os.open(f"{path}-mine", os.O_RDWR | os.O_CREAT)
        os.write(mine, b"mine" * 5000)
        for number in numbers: os.dup2(mine, number)
        logger.info("n 2")
        handler.flush(0)
        handler.close()
        assert b"mine" * 5000 == open(f"{path}-mine", "rb").read()
        for number in numbers: os.fstat(number)
        """,
        stderr="(?s:.*)",
    )

    assert {"n": [0, 1]} == contents().numbers


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="the system does not tell which descriptors are open")
def test_a_lock_that_is_closed_beside_a_reader(run, contents):
    """When a program closes the descriptor of the lock alone, and had a reader open before, its log goes on."""
    run(
        """
        from sqlite_log_handler import LogReader
        SQLiteHandler(path).close()
        reader = LogReader(path)
        assert [] == list(reader.rows())
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("n 0")
        assert handler.flush(60)
        reader.close()
        (lock,) = [at for at in map(int, os.listdir("/dev/fd")) if at > 2 and
            os.path.exists(f"/dev/fd/{at}") and os.path.samestat(os.stat(at), os.stat(f"{path}-lock"))]
        os.close(lock)
        logger.info("n 1")
        assert handler.flush(60)
        assert handler.stats().last_error is None
        """
    )

    assert {"n": [0, 1]} == contents().numbers
