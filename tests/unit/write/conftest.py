"""
Writers that do not wait for locks, and queues with and without quick ways.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write import threads
from sqlite_log_handler._write.committer import Committer
from sqlite_log_handler._write.listener import RecordListener
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.queue import RecordQueue
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.row import SIZE_UNIT
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

from batches import Said
from listeners import FakeWriter, Warnings


@pytest.fixture
def said() -> Said:
    """What the operator was told."""
    return Said()


@pytest.fixture
def make_writer(path: Path, said: Said) -> Iterator[Callable[[], Writer]]:
    """Make writers that do not wait for locks."""
    made = []

    def make(path: object = path, **options: Any) -> Writer:
        writer = Writer(str(path), busy_timeout=0, say=said, **options)
        made.append(writer)
        return writer

    yield make

    for writer in made:
        writer.close()


@pytest.fixture
def writer(make_writer: Callable[[], Writer]) -> Writer:
    """The writer of the test."""
    return make_writer()


@pytest.fixture
def no_birth(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Have each thread die in its first step, as one does for which there is no memory, until this is undone."""
    wait = threading.Event.wait

    def wait_for_a_while(event: threading.Event, timeout: float | None = None) -> bool:
        assert timeout is not None, "this would wait for ever"
        return wait(event, timeout)

    monkeypatch.setattr(threads, "START_TIMEOUT", 0)
    monkeypatch.setattr(threading.Event, "wait", wait_for_a_while)
    monkeypatch.setattr(threading.Thread, "_bootstrap", lambda _: sys.exit())  # which nobody prints

    yield monkeypatch

    threading._limbo.clear()  # type: ignore[attr-defined]  # Python keeps them there


@pytest.fixture
def nothing_interned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test begin with the caches of a fresh process."""
    for cache in ("_shared", "_keys", "_template_counts"):
        monkeypatch.setattr(row_module, cache, {})
    monkeypatch.setattr(row_module, "_templates", set())
    for name in ("own_pid", "own_start"):
        monkeypatch.setattr(row_module, name, getattr(row_module, name))  # a test may change it


@pytest.fixture(params=[True, False], ids=["GIL", "no GIL"])
def gil(request, monkeypatch):
    """Do everything twice: with the quick ways, and with everything under the mutex, as without a GIL."""
    if request.param and not queue_module.GIL:
        pytest.skip("the quick ways need the GIL that this Python does not have")
    monkeypatch.setattr(queue_module, "GIL", request.param)
    return request.param


@pytest.fixture
def warnings(logging_tree):
    """The records that the own logger is given."""
    handler = Warnings()
    logger = logging.getLogger(OWN_LOGGER)
    logger.addHandler(handler)
    logger.propagate = False
    return handler.records


@pytest.fixture
def make(clock, said, warnings, monkeypatch):
    """Make a listener with a fake writer on a small queue; no thread runs unless a test starts it."""
    made = []

    def make(capacity=10, batch_size=4, retention=None, **options):
        books = RecordQueue(capacity, 10_000 * SIZE_UNIT, batch_size=batch_size)
        operator = Operator("app-log.db")
        operator.say = said.append  # type: ignore[method-assign]
        writer: Any = FakeWriter()
        if retention is not None:
            writer.prune = lambda: retention.prune()  # noqa: PLW0108 - a test may replace it
        limits = Limits() if retention is None else Limits(max_rows=1_000)
        committer = Committer(books, writer, operator, limits=limits, clock=clock, sleep=clock.advance, **options)
        listener = RecordListener(committer)
        report, make_report = committer.drop_report, committer.drop_report.make

        def make_and_send(now):
            made = make_report(now)
            report.wait(60)
            return made

        monkeypatch.setattr(report, "make", make_and_send)  # so that a test finds the warnings when it looks
        books.open()
        made.append(listener)
        return listener

    yield make

    for listener in made:
        writer = listener.committer.writer
        if writer.gate is not None:
            writer.gate.set()
        writer.error = None
        listener.close()
