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
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._listener import OWN_LOGGER

CAPACITY = 40

TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["\0", "\ud800", "\u202e", "\x1b[2J", "%s %d", "x" * 5_000, "\U0001f600" * 500]),
)


class Machine(RuleBasedStateMachine):
    """
    What a program and its disk may do to a handler. Time is a number, and there is no thread.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "app-log.db"
        self.logger = logging.Logger("program", 1)  # noqa: LOG001 - of no tree, so with no handlers above it
        self.now, self.said, self.logged, self.stored = 0.0, [], 0, 0
        self.error = self.locked = None
        self.gone = 0  # rows in files that were taken away
        self.totals = [0, 0, 0]  # of handlers before this one: seen, written, dropped
        self.handler = None
        self.make()

    def make(self):
        handler = SQLiteHandler(
            self.path, capacity=CAPACITY, capacity_bytes=1 << 17, batch_size=15, close_timeout=0, max_record_bytes=1024
        )
        listener = handler.listener
        listener._clock, listener._sleep = lambda: self.now, self.sleep
        listener._say = listener.writer._say = self.said.append
        write = listener.writer.write

        def fails(batch):
            if self.error is not None:
                raise self.error
            return write(batch)

        listener.writer.write = fails
        self.handler = handler
        self.logger.handlers[:] = [handler]

    def sleep(self, seconds):
        self.now += seconds

    def rows(self):
        """
        Count the rows at the path, without the warnings.
        """
        with contextlib.closing(sqlite3.connect(self.path, timeout=0)) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
            ((count,),) = connection.execute("SELECT count(*) FROM logs WHERE logger <> ?", (OWN_LOGGER,)).fetchall()
            ids = connection.execute("SELECT thread_name FROM logs WHERE logger <> ? ORDER BY id", (OWN_LOGGER,))
            numbers = [int(name) for (name,) in ids]
            assert sorted(set(numbers)) == numbers, "not in order, or there twice"
            return count

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

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]))
    def tick(self, seconds):
        self.now += seconds
        self.handler.listener.handle(None)

    @rule(code=st.sampled_from(["BUSY", "FULL", "IOERR", "CANTOPEN"]))
    def fail(self, code):
        self.error = sqlite3.OperationalError(code)
        self.error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")

    @rule()
    def recover(self):
        self.error = None

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
        os.unlink(self.path)

    @precondition(lambda self: self.locked is None)
    @rule()
    def corrupt(self):
        self.settle()
        self.gone += self.rows()
        self.handler.close()
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (self.path.stat().st_size - 4096))

    @rule()
    def flush(self):
        before = self.handler.stats().queued
        if self.handler.flush(0 if self.error or self.locked else 1):
            assert 0 == self.handler.stats().queued
        else:
            assert before == self.handler.stats().queued

    @rule()
    def close(self):
        self.handler.close()
        assert 0 == self.handler.stats().queued

    @precondition(lambda self: self.locked is None and self.error is None)
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
        pid = os.fork()
        if not pid:
            code = 1
            try:
                stats = self.handler.stats()
                code = 0 if (0, 0, 0, 0) == (stats.seen, stats.written, stats.dropped_total, stats.queued) else 2
            finally:
                os._exit(code)
        assert 0 == os.waitpid(pid, 0)[1]

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
            assert (0, self.totals[1] + stats.written) == (stats.queued, self.gone + self.rows())
        finally:
            self.handler.close()
            shutil.rmtree(self.folder)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_model(unattended, long, logging_tree):
    """
    Whatever happens in whatever order: the books balance, the bounds hold, and each row is there once and in order.
    """
    own = logging.getLogger(OWN_LOGGER)
    own.addHandler(logging.NullHandler())
    own.propagate = False
    settings = hypothesis.settings(
        max_examples=2_000 if long else 20,
        stateful_step_count=50 if long else 20,
        deadline=None,
        # What fails is short as it is, and shrinking what waits for a clock takes long.
        phases=[hypothesis.Phase.generate],
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    run_state_machine_as_test(Machine, settings=settings)
