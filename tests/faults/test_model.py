"""
Everything in any order: a machine of hypothesis drives a real handler on a real file, and audits its books.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import process

CAPACITY = 40

TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["\0", "\ud800", "\u202e", "\x1b[2J", "%s %d", "x" * 5_000, "\U0001f600" * 500]),
)


class Machine(RuleBasedStateMachine):
    """
    What a program and its disk may do to a handler. Time is a number, and the only thread is a commit that is stuck.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "app-log.db"
        self.logger = logging.Logger("program", 1)  # noqa: LOG001 - of no tree, so with no handlers above it
        self.now, self.said, self.logged, self.stored = 0.0, [], 0, 0
        self.error = self.locked = self.stuck = None
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.gone = self.gone_drops = 0  # in files that were taken away
        self.children = 0  # rows of forked processes
        self.totals = [0, 0, 0]  # of handlers before this one: seen, written, dropped
        self.handler = None
        self.make()

    def make(self):
        handler = SQLiteHandler(
            self.path, capacity=CAPACITY, capacity_bytes=1 << 17, batch_size=15, close_timeout=0, max_record_bytes=1024
        )
        listener = handler.listener
        listener.committer.now, listener.committer._sleep = lambda: self.now, self.sleep
        listener.committer.operator.say = self.said.append
        # However long it takes, while a commit that is stuck is waited for a moment only.
        listener.committer.lock.close_beside_fork = lambda close, timeout: close()
        write = listener.committer.writer.write

        def fails(batch, outcome, **options):
            self.entered.set()
            self.gate.wait()
            if self.error is not None:
                raise self.error
            return write(batch, outcome, **options)

        listener.committer.writer.write = fails
        self.handler = handler
        self.logger.handlers[:] = [handler]

    def sleep(self, seconds):
        self.now += seconds

    def rows(self):
        """Count the rows at the path, without the warnings."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=0)) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
            ((count,),) = connection.execute("SELECT count(*) FROM logs WHERE logger <> ?", (OWN_LOGGER,)).fetchall()
            ids = connection.execute("SELECT thread_name FROM logs WHERE logger <> ? ORDER BY id", (OWN_LOGGER,))
            numbers = [int(name) for (name,) in ids if name != "child"]
            assert sorted(set(numbers)) == numbers, "not in order, or there twice"
            return count

    def ledger(self):
        """Sum up the drops in the file at the path."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=0)) as connection:
            return connection.execute("SELECT coalesce(sum(count), 0) FROM drops").fetchone()[0]

    def record(self, level, text):
        record = self.logger.makeRecord("program", level, "file.py", 1, text, (), None)
        record.threadName = str(self.logged)  # the number, where no content can reach it
        self.logged += 1
        return record

    @rule(level=st.sampled_from([1, 10, 20, 30, 40, 50, 2**70]), text=TEXT)
    def log(self, level, text):
        self.logger.handle(self.record(level, text))

    @rule(count=st.integers(1, 2 * CAPACITY))
    def burst(self, count):
        for _ in range(count):
            self.logger.handle(self.record(20, "burst"))

    @precondition(lambda self: self.stuck is None)
    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def tick(self, seconds):
        self.now += seconds
        self.handler.listener.handle(None)

    @rule(code=st.sampled_from(["BUSY", "FULL", "IOERR", "CANTOPEN", "CORRUPT"]))
    def fail(self, code):
        self.error = sqlite3.OperationalError(code)
        self.error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")

    @rule()
    def recover(self):
        self.error = None

    @precondition(lambda self: self.stuck is None and self.handler.queue.queued)
    @rule()
    def pause(self):
        self.entered.clear()
        self.gate.clear()
        self.stuck = threading.Thread(target=self.handler.listener.committer.commit)
        self.stuck.start()
        self.entered.wait()

    @precondition(lambda self: self.stuck is not None)
    @rule()
    def resume(self):
        self.gate.set()
        self.stuck.join()
        self.stuck = None

    @precondition(lambda self: self.locked is None)
    @rule()
    def lock(self):
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError:  # there is no log at the path at this moment, or a corrupt one
            connection.close()
        else:
            self.locked = connection

    @precondition(lambda self: self.locked is not None)
    @rule()
    def unlock(self):
        self.locked.close()
        self.locked = None

    @precondition(lambda self: self.locked is None)
    @rule()
    def unlink(self):
        self.settle()
        self.gone += self.rows()
        self.gone_drops += self.ledger()
        os.unlink(self.path)

    @precondition(lambda self: self.locked is None)
    @rule()
    def corrupt(self):
        self.settle()
        self.handler.close()
        self.gone += self.rows()
        self.gone_drops += self.ledger()
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (self.path.stat().st_size - 4096))

    @rule()
    def flush(self):
        before = self.handler.stats().queued
        if self.handler.flush(0 if self.error or self.locked or self.stuck else 1):
            assert 0 == self.handler.stats().queued
        else:
            # Not always the same: a lock may be on a file that was moved aside, and 0 seconds are enough for a batch.
            assert 0 < self.handler.stats().queued <= before or self.handler.queue.ledger.gaps

    @rule()
    def close(self):
        self.handler.close()
        assert self.handler.stats().queued <= (15 if self.stuck else 0)

    @precondition(lambda self: self.locked is None and self.error is None and self.stuck is None)
    @rule()
    def reconfigure(self):
        self.handler.close()
        stats = self.handler.stats()
        for index, number in enumerate((stats.seen, stats.written, stats.dropped_total)):
            self.totals[index] += number
        self.make()

    @precondition(lambda self: hasattr(os, "fork"))
    @rule()
    def fork(self):
        record = self.record(20, "from a child")
        record.threadName = "child"
        self.logged -= 1  # not in the books of this process
        writable = self.error is None and self.locked is None
        # A commit that is stuck is waited for a moment only. That of a handler which the garbage collector finds is
        # waited for to its end, or the child may not call SQLite.
        process.FORK_TIMEOUT = 60 if self.stuck is None else 0.001
        pid = os.fork()
        if not pid:
            code = 1
            try:
                before = self.handler.stats()
                self.gate.set()  # the commit that is stuck is its parent's
                self.logger.handle(record)
                written = self.handler.flush(1 if writable else 0)
                after = self.handler.stats()
                assert (0, 0, 0, 0) == (before.seen, before.written, before.dropped_total, before.queued)
                assert (1, int(written)) == (after.seen, after.written)
                code = 10 + written
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in ({11} if writable and self.stuck is None else {10, 11})
        self.children += code - 10

    @invariant()
    def books(self):
        if self.handler is None:
            return
        stats = self.handler.stats()
        assert stats.seen == stats.written + stats.dropped_total + stats.queued
        assert self.logged == self.totals[0] + stats.seen
        assert stats.queued <= CAPACITY
        assert stats.queued_bytes <= 1 << 17
        assert stats.dropped_total == sum(stats.dropped_by_cause.values()) == sum(stats.dropped_by_level.values())
        assert stats.dropped_total == sum(stats.dropped_by_logger.values())
        assert 2 * sum("writing again" in line for line in self.said) <= sum(
            "cannot write" in line or "writing again" in line for line in self.said
        )

    def settle(self):
        self.error = None
        if self.stuck is not None:
            self.resume()
        if self.locked is not None:
            self.unlock()
        self.now += 6
        # A record, so that there is a file at the path, and one that is whole.
        self.handler.flush(1)
        self.logger.handle(self.record(50, "settled"))
        assert self.handler.flush(1), self.handler.stats().last_error

    def teardown(self):
        try:
            self.settle()
            self.handler.close()
            stats = self.handler.stats()
            assert 0 == stats.queued
            assert self.totals[1] + stats.written + self.children == self.gone + self.rows()
            assert self.totals[2] + stats.dropped_total == self.gone_drops + self.ledger()
        finally:
            self.handler.close()
            shutil.rmtree(self.folder)


def test_the_model(unattended, long, logging_tree, monkeypatch):
    """
    Whatever happens in whatever order: the books balance, the bounds hold, and each row is there once and in order.
    """
    own = logging.getLogger(OWN_LOGGER)
    own.addHandler(logging.NullHandler())
    own.propagate = False
    monkeypatch.setattr(process, "FORK_TIMEOUT", process.FORK_TIMEOUT)  # each fork sets it
    settings = hypothesis.settings(
        max_examples=500 if long else 20,
        stateful_step_count=50 if long else 20,
        deadline=None,
        # What fails is short as it is, and shrinking what waits for a clock takes long.
        phases=[hypothesis.Phase.generate],
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    run_state_machine_as_test(Machine, settings=settings)
