"""
Retention in faults: statements that fail, processes that are killed, readers that stay, writers in other processes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import signal
import sqlite3
import threading

import pytest

from sqlite_log_handler._cli.commands import prune as prune_module
from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.row import make_row
from sqlite_log_handler._write.writer import Writer

MB = 1_000_000


def ticks(handler, clock, count=1):
    """Let `count` ticks pass, with books that balance after each."""
    for _ in range(count):
        handler.listener.handle(None)
        clock.advance(0.2)
        stats = handler.stats()
        assert stats.seen == stats.written + stats.dropped_total + stats.queued


def taken(path):
    """Bytes of file and WAL."""
    return sum(os.stat(f"{path}{end}").st_size for end in ("", "-wal") if os.path.exists(f"{path}{end}"))


def check_prunes(path):
    """Check that `prunes` tells how many rows are gone, and that those left have no hole. Returns how many are gone."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        first, last, count = connection.execute("SELECT min(id), max(id), count(*) FROM records").fetchone()
        (gone,) = connection.execute("SELECT coalesce(sum(count), 0) FROM prunes").fetchone()
    assert last - first + 1 == count
    assert first - 1 == gone
    return gone


@pytest.mark.parametrize("rows_per_step", [1, 10**9], ids=["before a commit", "after it"])
@pytest.mark.parametrize("code", ["BUSY", "FULL", "IOERR", "NOMEM", "READONLY"])
def test_the_nth_statement_of_pruning_fails(make, clock, log, contents, monkeypatch, path, code, rows_per_step):
    """
    Whichever statement of pruning fails, once: rows are written all the same, none is lost but by retention, and the
    next attempt does what this one could not.
    """
    left, pruning = [0], [False]
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._LINES", (5, 5))
    monkeypatch.setattr("sqlite_log_handler._write.retention.side_tables._ROWS_PER_LINE", 1)
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits.VACUUM_PAGES", 1)
    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner._ROWS_PER_STEP", rows_per_step)

    class Faulty(sqlite3.Connection):
        def _fail(self, sql):
            left[0] -= pruning[0]
            if left[0] == 0 and pruning[0]:
                if self.in_transaction and sql == "COMMIT":
                    super().execute("ROLLBACK")  # as SQLite does for FULL, IOERR and NOMEM
                raised = sqlite3.OperationalError("injected")
                raised.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
                raise raised

        def execute(self, *arguments):
            self._fail(arguments[0])
            return super().execute(*arguments)

        def executescript(self, script):
            self._fail(script)
            return super().executescript(script)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "factory": Faulty}))
    handler, nth = make(max_rows=30), 0
    step = handler.listener.committer.writer.pruner.step

    def pruning_only(connection, **options):
        pruning[0] = True
        try:
            return step(connection, **options)
        finally:
            pruning[0] = False

    handler.listener.committer.writer.pruner.step = pruning_only
    while True:
        nth += 1
        left[0] = nth
        log(20, "x" * 500)
        ticks(handler, clock, 5)
        failed = left[0] <= 0
        left[0] = 0
        ticks(handler, clock, 60)
        stats = handler.stats()
        assert (nth * 20, nth * 20) == (stats.seen, stats.written), stats.last_error
        if not failed:
            break
    handler.close()

    assert 10 <= nth
    assert check_prunes(path) == nth * 20 - 30
    contents()


@pytest.mark.parametrize("rows_per_step", [1, 10**9], ids=["before a commit", "after it"])
def test_pruning_that_always_fails_is_said_once(make, clock, log, monkeypatch, said, rows_per_step):
    """When pruning fails at every attempt, the log is written as ever, and one line says so."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner._ROWS_PER_STEP", rows_per_step)
    handler = make(max_rows=10)
    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner._NOTE", "DELETE FROM nowhere")
    for _ in range(20):
        log(10)
        ticks(handler, clock, 20)
    stats = handler.stats()

    assert (200, 200) == (stats.seen, stats.written)
    assert 1 == len(said)
    assert said[0].startswith("cannot prune (OperationalError: no such table: nowhere)")


@pytest.mark.parametrize("rows_per_step", [1, 10**9], ids=["before a commit", "after it"])
def test_pruning_that_raises_anything_is_said_once(make, clock, log, monkeypatch, said, rows_per_step):
    """
    A value that somebody has put into the file fails a step in any way: the log is written as ever, and closed.

    A time that was a text came out of `close` as a TypeError.
    """

    def fail(*_, **__):
        raise TypeError

    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner._ROWS_PER_STEP", rows_per_step)
    handler = make(max_rows=10)
    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner.Pruner._delete", fail)
    for _ in range(20):
        log(10)
        ticks(handler, clock, 20)
    handler.close()
    stats = handler.stats()

    assert (200, 200) == (stats.seen, stats.written)
    assert ["cannot prune (TypeError: ): the log is written all the same; trying again"] == said


@pytest.mark.slow
def test_a_reader_that_stays_costs_rows_but_not_the_disk(make, clock, log, contents, path, said, warnings):
    """
    While a reader holds a snapshot the WAL cannot be written back. At the budget rows are dropped, and counted in the
    ledger and in the warnings, and the reader is named; when it is gone, writing resumes by itself.
    """
    handler = make(max_bytes=2 * MB)
    log(100)
    ticks(handler, clock)
    with contextlib.closing(connect_read_only(str(path))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        peak = 0
        for _ in range(300):
            log(20, "x" * 500)
            ticks(handler, clock)
            peak = max(peak, taken(path))
        dropped = handler.dropped_total
    # Nobody is in the way any more.
    ticks(handler, clock, 10)
    log(50)
    ticks(handler, clock, 2)
    stats = handler.stats()
    handler.close()

    assert peak <= 2.2 * MB
    assert {"disk_budget": dropped} == stats.dropped_by_cause
    assert 3_000 < dropped < 6_000
    assert dropped == sum(warning.dropped for warning in warnings)
    assert (6_150, 6_150 - dropped) == (stats.seen, stats.written)
    assert 1 == len([line for line in said if "a reader holds a snapshot" in line])
    assert 1 == len([line for line in said if "let go" in line])
    assert "a reader holds a snapshot since" in warnings[-1].getMessage()
    found = contents()
    assert list(range(6_100, 6_150)) == found.numbers["n"][-50:]
    assert (dropped, dropped) == (found.dropped, found.warned)


def test_closing_beside_a_reader_keeps_the_books(make, clock, log, contents, path):
    """A handler that is closed while a reader stays drops what it has no room for, and the ledger has all of it."""
    handler = make(max_bytes=2 * MB)
    log(10)
    ticks(handler, clock)
    with contextlib.closing(connect_read_only(str(path))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        for _ in range(100):
            log(20, "x" * 1_000)
            ticks(handler, clock)
        log(10)
        handler.close()
        size = taken(path)

    found, stats = contents(), handler.stats()
    assert size <= 2.2 * MB
    assert (stats.dropped_total, stats.dropped_total) == (found.dropped, found.warned)
    assert 2_020 == stats.dropped_total + stats.written


@pytest.mark.slow
def test_file_and_wal_stay_within_the_budget(make, clock, log, path):
    """Whatever is logged, file and WAL are within 110 % of `max_bytes` after each commit."""
    handler = make(max_bytes=2 * MB, capacity=50_000, fair_share=1)
    chance, peak = random.Random(5), 0  # the same at each run
    for _ in range(150):
        log(chance.randrange(1, 400), chance.choice(["", "x" * 100, "é" * 2_000, "x" * 100_000]))
        ticks(handler, clock)
        peak = max(peak, taken(path))
    while handler.stats().queued:
        ticks(handler, clock)
        peak = max(peak, taken(path))
    handler.close()

    assert 1.5 * MB < peak <= 2.2 * MB
    assert {"bytes_full"} == set(handler.stats().dropped_by_cause)
    assert check_prunes(path) > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 1_000, "日" * 1_000, "x" * 129, "x" * 128])
def test_the_name_of_a_thread_is_part_of_the_budget(make, clock, log, path, name, monkeypatch):
    """
    The name of a thread stands in each row of the file, and so it counts in each, though memory has it once.

    It was counted in the first row only: with a long one, file and WAL took ten times `max_bytes`, and more.
    """
    monkeypatch.setattr(threading.current_thread(), "name", name)
    handler, peak = make(max_bytes=2 * MB), 0
    for _ in range(30):
        log(500)
        while handler.stats().queued:
            ticks(handler, clock)
            peak = max(peak, taken(path))

    assert peak <= 2.2 * MB
    assert {} == handler.stats().dropped_by_cause


def test_a_budget_that_is_new_is_reached_without_a_drop(make, clock, log, path):
    """A file much larger than a `max_bytes` that is new comes down in steps, while rows go on to be written."""
    handler = make()
    log(10_000, "x" * 900)  # two rows to a page
    while handler.stats().queued:
        ticks(handler, clock)
    handler.close()
    assert taken(path) > 10 * MB
    handler = make(max_bytes=3 * MB)
    for _ in range(60):
        log(20, "x" * 500)
        ticks(handler, clock)
    handler.close()

    assert (0, 1_200) == (handler.dropped_total, handler.stats().written)
    assert taken(path) <= 3 * MB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conn.{:032}", "conn.{:0500}"], ids=["usual names", "long names"])
def test_a_logger_for_each_connection(make, clock, path, name):
    """
    A program that named a logger for each of its connections, with a small `max_bytes`, logged 3,400 records; then the
    tables beside the rows had taken the whole budget, and all was dropped, also after a restart. Nothing is dropped.
    """
    numbers = itertools.count()
    for _ in range(2):
        handler = make(max_bytes=1 << 20)
        for _ in range(300):
            for number in itertools.islice(numbers, 10):
                handler.handle(logging.LogRecord(name.format(number), 20, "/app.py", 1, "opened", (), None, "main"))
            ticks(handler, clock)
            assert taken(path) <= 1.15 * (1 << 20)
        handler.close()
        assert (3_000, 3_000) == (handler.stats().seen, handler.stats().written)

    assert check_prunes(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM logs").fetchone()
    assert 200 < rows < 6_000 - 200


KILLED = """
    handler = SQLiteHandler(path, max_bytes=1_500_000, flush_interval=0.01)
    logger.addHandler(handler)
    logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
    handler.listener.committer.writer.pruner.deleted = Told = type("Told", (dict,), {
        "__setitem__": lambda self, cause, count: (print(count, flush=True), dict.__setitem__(self, cause, count))[0]
    })()
    number = 0
    while True:
        logger.info("n %d", number)
        number += 1
"""


@pytest.mark.slow
def test_killed_while_it_prunes(start, contents, path, long):
    """A process that is killed in the middle of pruning leaves a sound file, whose books tell what is gone."""
    for seed in range(100 if long else 8):
        process = start(KILLED)
        for _ in range(2 + random.Random(seed).randrange(6)):
            assert process.stdout.readline()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        gone = check_prunes(path)
        contents() if seed == 0 else None
    assert gone > 1_000


def test_while_another_process_writes_pruning_waits_its_turn(make, clock, log, path, said):
    """
    When another process has the lock beside the file, pruning tries again at the next tick, and nothing is said.

    It took that for more to delete, and an idle program tried 14 times a second for as long as the other had the lock.
    """
    handler = make(max_rows=10, flush_interval=5)
    log(20)
    handler.flush()
    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(0):
        for _ in range(3):
            handler.listener.committer.prune()
            assert 5 == handler.listener.seconds_to_wait(clock.now)
            clock.advance(10)
        assert handler.listener.seconds_to_wait(clock.now) == 0
    ticks(handler, clock, 2)

    assert [] == said
    assert 10 == check_prunes(path)


BESIDE = """
    handler = SQLiteHandler(path, flush_interval=0.01)
    logger.addHandler(handler)
    print("ready", flush=True)
    number = 0
    import select
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(50):
            logger.info("n %d", number)
            number += 1
        handler.flush()
    stats = handler.stats()
    handler.close()
    assert (number, 0) == (stats.written, stats.dropped_total), stats
    print(number)
"""


def test_pruning_beside_a_writer_in_another_process(start, contents, path):
    """One process prunes what another writes: the writer loses nothing but to retention, and ids have no hole."""
    process = start(BESIDE)
    assert "ready\n" == process.stdout.readline()
    pruner = Writer(str(path), busy_timeout=5, limits=Limits(max_rows=100))
    pruned = 0
    while pruned < 20:
        pruner.prune()
        pruned = len(pruner.pruner.deleted) and pruned + 1
    out, err = process.communicate("stop\n")
    while pruner.prune() == 0:
        pass
    pruner.close()

    assert "" == err
    numbers = contents().numbers["n"]
    assert int(out) - 1 == numbers[-1]
    assert len(numbers) <= 100
    check_prunes(path)


def test_the_command_beside_a_writer_in_another_process(start, contents, path, query, monkeypatch):
    """`sqlite-log prune` deletes and gives back pages while a program logs, which loses nothing but what was pruned."""
    monkeypatch.setattr(prune_module, "_LOCK_TIMEOUT", 60)
    process = start(BESIDE)
    assert "ready\n" == process.stdout.readline()
    options = prune_module.run.parser().parse_args([str(path), "--max-rows", "1000", "--vacuum"])
    while not query("SELECT max(id) > 5000 FROM records")[0][0]:
        assert process.poll() is None
    for _ in range(10):
        assert 0 == prune_module.run(options)
    out, err = process.communicate("stop\n")

    assert "" == err
    numbers = contents().numbers["n"]
    assert int(out) - 1 == numbers[-1]
    assert check_prunes(path) >= 4_000


@pytest.mark.parametrize(("name", "process"), [("rare", 1), ("busy 29", 4711)], ids=["source", "process"])
def test_what_another_process_deleted_is_learned_anew(path, logger, monkeypatch, name, process):
    """
    A writer keeps the ids of sources and processes. When another process has deleted one of them, because no row was of
    it any more, the next row of it is not lost from the view.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._LINES", (5, 5))
    monkeypatch.setattr("sqlite_log_handler._write.retention.side_tables._ROWS_PER_LINE", 1)

    def batch(name, process=1, count=1):
        record = logger.makeRecord(name, 20, "/app.py", 1, "m", (), None, "main")
        record.process = process
        return Commit([make_row(record)] * count)

    rare, busy = Writer(str(path)), Writer(str(path), limits=Limits(max_rows=10))
    with contextlib.closing(rare), contextlib.closing(busy):
        rare.write(batch(name, process))
        for number in range(30):
            busy.write(batch(f"busy {number}"))
        while busy.prune() == 0:
            pass
        table, wanted = ("sources", "logger = 'rare'") if process == 1 else ("processes", "pid = 4711")
        assert [] == busy.file.connection.execute(f"SELECT id FROM {table} WHERE {wanted}").fetchall()
        statements = []
        rare.file.connection.set_trace_callback(statements.append)
        assert not rare.write(batch(name, process, 3)).refused
        rare.file.connection.set_trace_callback(None)
        # All at once, and not row by row, which takes long in a busy program.
        assert 1 == len([sql for sql in statements if sql.startswith("\nINSERT INTO records")])
        busy.file.connection.set_trace_callback(statements.append)
        busy.write(batch("busy 3"))
        busy.file.connection.set_trace_callback(None)
        # The file counts its sweeps, so nothing is written with an id that is none.
        assert 0 == statements.count("ROLLBACK")

        assert [("busy 3", 1), *[(name, process)] * 3] == busy.file.connection.execute(
            "SELECT logger, process FROM logs ORDER BY id DESC LIMIT 4"
        ).fetchall()


@pytest.mark.parametrize(("rows", "size"), [(150, 1 << 62), (1 << 62, 40_000)], ids=["many rows", "large rows"])
def test_what_is_urgent_is_done_though_many_rows_wait(make, clock, log, monkeypatch, path, rows, size):
    """
    A program that logs faster than its records can be written has a queue that is never nearly empty; its log is kept
    to its limits all the same, by the writer, before it writes.

    It counted rows only: one step of 8 MB came before 45 MB, if rows had 3 kB.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner._ROWS_PER_STEP", rows)
    monkeypatch.setattr("sqlite_log_handler._write.retention.pruner._BYTES_PER_STEP", size)
    handler = make(max_rows=200, capacity=1_000, batch_size=100)
    most = 0
    for _ in range(40):
        log(200)
        handler.listener.handle(None)
        clock.advance(0.2)
        stats = handler.stats()
        assert stats.queued > 99
        most = max(
            most,
            handler.listener.committer.writer.file.connection.execute("SELECT count(*) FROM records").fetchone()[0],
        )

    assert 200 <= most <= 600
    assert stats.written == 4_000


def test_a_file_that_pruning_finds_corrupt_is_moved_aside(make, clock, log, monkeypatch, path, said):
    """Corruption that only pruning meets is treated like any other: the file is moved aside, and a new one is begun."""
    handler = make(max_rows=10)

    def corrupt(connection, **_):
        connection.execute("BEGIN IMMEDIATE")
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(handler.listener.committer.writer.pruner, "step", corrupt)
        log(5)
        ticks(handler, clock)
    log(5)
    ticks(handler, clock)

    assert "moved aside" in said[0]
    assert 1 == len([file for file in os.listdir(path.parent) if ".corrupt-" in file and file[-1] not in "lm"])
    assert (10, 10) == (handler.stats().seen, handler.stats().written)
