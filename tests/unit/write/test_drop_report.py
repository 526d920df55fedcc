"""
Drop warnings and the thread that sends them: what a handler that blocks, raises or closes makes of them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import unittest.mock

import pytest

from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write import ledger as ledger_module
from sqlite_log_handler._write import threads
from sqlite_log_handler._write.drop_report import DropReport
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.outage import Outage
from sqlite_log_handler._write.queue import RecordQueue
from sqlite_log_handler._write.row import SIZE_UNIT


class Gate(logging.Handler):
    """Keep what comes, each record when it is let through."""

    def __init__(self):
        super().__init__()
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.records = []

    def emit(self, record):
        self.entered.release()
        self.gate.acquire()
        self.records.append(record)


@pytest.fixture
def own(logging_tree):
    """The logger of the warnings, without handlers above it."""
    logger = logging.getLogger(OWN_LOGGER)
    logger.propagate = False
    return logger


@pytest.fixture
def said():
    """The lines for the operator."""
    return []


@pytest.fixture
def report(own, said):
    """A report on a queue that has room for one row."""
    queue = RecordQueue(1, 10_000 * SIZE_UNIT)
    queue.open()
    operator = Operator("app-log.db")
    operator.say = said.append  # type: ignore[method-assign]
    return DropReport(queue, Outage(0.1), operator)


def drop(report, count):
    """Drop `count` rows, and make the report."""
    for _ in range(count + (not report._queue.queued)):
        report._queue.put_nowait((20, 1.0, ("a", "file.py", 1, "func"), 1, 0))
    assert report.make(100.0)


def test_a_report_that_is_made_beside_a_replaced_get_logger(own, monkeypatch):
    """
    A handler that is made while a test has a mock in the place of `logging.getLogger` warns by its logger all the same.

    The mock had parents without end, and from the first drop on they filled the memory.
    """
    with monkeypatch.context() as patch:
        patch.setattr(logging, "getLogger", unittest.mock.MagicMock())
        report = DropReport(RecordQueue(1, 10_000 * SIZE_UNIT), Outage(0.1), Operator("app-log.db"))

    assert own is report._logger


def test_what_waits_is_added_up(report, own):
    """
    While a handler holds the reporter, later drops are added to the one warning that waits; the sum stays right.

    The listener sent the warning itself. A console that was paused, a pipe that nobody read, or a log host that was
    gone ended all commits, although SQLite was healthy.
    """
    gate = Gate()
    own.addHandler(gate)
    for count in (1, 2, 3):
        drop(report, count)
        if count == 1:
            gate.entered.acquire()
    for _ in range(2):
        gate.gate.release()
    report.wait(60)

    assert [(1, 1), (5, 6)] == [(record.dropped, record.dropped_total) for record in gate.records]
    assert gate.records[1].getMessage().startswith("dropped 5 records (queue_full 5; 6 in total)")
    assert [1, 2, 3] == [gap.count for gap in report._queue.ledger.gaps]


def test_drops_while_a_warning_is_made(report, own):
    """What is dropped while the program's record factory makes a warning is in that warning: no delta gets lost."""
    gate = Gate()
    gate.gate.release(2)
    own.addHandler(gate)
    factory = logging.getLogRecordFactory()

    def interrupted(*arguments, **keywords):
        logging.setLogRecordFactory(factory)
        drop(report, 2)
        return factory(*arguments, **keywords)

    logging.setLogRecordFactory(interrupted)
    try:
        drop(report, 1)
        report.wait(60)
    finally:
        logging.setLogRecordFactory(factory)

    assert [(3, 3)] == [(record.dropped, record.dropped_total) for record in gate.records]


def test_a_warning_that_is_dropped_while_another_is_sent(report, own):
    """A warning that a full handler drops brings no other before `close`: two full ones would never come to rest."""

    class Full(logging.Handler):
        """A handler without room: its own warning comes back to this one, once."""

        def emit(self, record):
            sent.append(record.dropped)
            if len(sent) == 1:
                report._queue.put_nowait((30, 1.0, (OWN_LOGGER, "file.py", 1, "func"), 1, 0))
                report.make(100.0)

    sent = []
    own.addHandler(Full())
    drop(report, 2)
    report.wait(60)
    before = [*sent]
    report._queue.close()
    report.make(101.0)
    report.wait(60)

    assert ([2], [2, 1]) == (before, sent)


@pytest.mark.parametrize("name", ["_describe", "_record"])
@pytest.mark.parametrize("closes", [False, True])
def test_drops_whose_warning_cannot_be_made_are_in_the_next(report, own, monkeypatch, name, closes):
    """
    An error while a warning is made leaves its drops to the next one, or to that of `close`, so that the sum is right.

    The report had taken them from the ledger, and kept what is to be sent when it had the text. One MemoryError took
    the drops of that tick out of the warnings for good.
    """

    def fail(*_):
        raise MemoryError

    gate = Gate()
    gate.gate.release(2)
    own.addHandler(gate)
    with monkeypatch.context() as patch:
        patch.setattr(report, name, fail)
        with pytest.raises(MemoryError):
            drop(report, 2)
    if closes:
        report._queue.close()
        report.make(101.0)
    else:
        drop(report, 3)
    report.wait(60)

    assert [2 if closes else 5] == [record.dropped for record in gate.records]


def test_a_reporter_that_dies_before_it_has_begun(report, own, no_birth):
    """
    The next report sends the warnings of a reporter that died in its first step, and nobody waits for that one.

    The listener's thread waited for it for ever, so nothing was committed any more.
    """
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    drop(report, 2)
    no_birth.undo()
    drop(report, 3)
    report.wait(60)

    assert [5] == [record.dropped for record in gate.records]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")
def test_another_handler_finds_the_signals_blocked(report, own):
    """
    A handler that gets a warning runs on a thread that takes no signal of the program, so a process that it starts
    begins with all signals blocked.
    """
    masks = []
    gate = Gate()
    gate.gate.release()
    gate.addFilter(lambda _: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())) or True)
    own.addHandler(gate)
    drop(report, 2)
    report.wait(60)

    assert [True] == [signal.SIGTERM in mask for mask in masks]


def test_a_record_factory_that_fails_for_a_while(report, own, said):
    """The reporter leaves a warning to the next report when its record cannot be made, and tries once each time."""
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    factory, tries = logging.getLogRecordFactory(), []

    def fail(*arguments, **keywords):
        tries.append(arguments)
        raise ValueError

    logging.setLogRecordFactory(fail)
    try:
        for _ in range(2):
            drop(report, 2)
            report._reporter.join()
    finally:
        logging.setLogRecordFactory(factory)
    drop(report, 1)
    report.wait(60)

    assert 2 == len(tries)
    assert [5] == [record.dropped for record in gate.records]
    assert [] == said


def test_the_warning_of_gaps_that_were_put_together(report, own, monkeypatch):
    """
    The row of a gap that many ticks share tells how many were dropped in all of them.

    It had the text of the last tick, and the number of them all beside it as an attribute.
    """
    monkeypatch.setattr(ledger_module, "MAX_GAPS", 1)
    own.addHandler(logging.NullHandler())
    for count in (1, 2, 3):
        drop(report, count)
    report.wait(60)

    (gap,) = report._queue.ledger.gaps
    assert gap.warning.getMessage().startswith("dropped 6 records (queue_full 6; 6 in total)")
    assert 6 == gap.warning.dropped


def test_the_reporter_goes_when_there_is_nothing_to_send(report, own):
    """The thread is there while there is something to send, and comes back for the next warning."""
    own.addHandler(logging.NullHandler())
    threads = threading.active_count()
    for _ in range(2):
        drop(report, 1)
        report.wait(60)
        assert threads == threading.active_count()


def test_close_says_what_was_not_sent(report, own, said, monkeypatch):
    """What another handler does not take in time is said, once, with the number of drops."""
    gate = Gate()
    own.addHandler(gate)
    drop(report, 1)
    gate.entered.acquire()
    drop(report, 4)
    report.wait(0)
    waited: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(report._reporter, "join", waited.append)
        report.wait(60)

    assert [] == waited  # at exit a handler is closed again
    (line,) = said
    assert line.startswith(
        "5 drops not reported to other handlers: another handler has not returned; dropped 4 records"
    )
    gate.gate.release(2)
    report._reporter.join()


def test_at_exit_the_operator_is_told_instead(report, own, said, monkeypatch):
    """
    From Python 3.12 on no thread can be started while the interpreter exits. The last warning is a line on stderr then.
    """

    def refused(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        drop(report, 2)
    report.wait(60)
    assert ["2 drops not reported to other handlers: no thread sends them"] == [line.split(";")[0] for line in said]

    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    drop(report, 1)
    report.wait(60)
    assert [3] == [record.dropped for record in gate.records]


def test_the_last_resort(report, own, monkeypatch):
    """Without any handler the warning goes to `logging.lastResort`, as every warning does."""
    last = Gate()
    last.gate.release()
    monkeypatch.setattr(logging, "lastResort", last)
    monkeypatch.setattr(own, "handlers", [])  # without those of pytest
    drop(report, 1)
    report.wait(60)

    assert [1] == [record.dropped for record in last.records]


def test_a_reporter_that_died(report, own, said, monkeypatch):
    """
    A reporter that died, as for lack of memory, is replaced at the next drops, and what waited is sent.

    No warning was ever sent again, and `close` blamed another handler.
    """
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "run", lambda self: None)
        drop(report, 2)
        report._reporter.join()
    report.wait(60)
    assert ["2 drops not reported to other handlers: no thread sends them"] == [line.split(";")[0] for line in said]
    drop(report, 1)
    report.wait(60)

    assert [(3, 3)] == [(record.dropped, record.dropped_total) for record in gate.records]


@pytest.mark.parametrize("how", ["level", "disable"])
def test_a_silenced_warning_reaches_nobody(report, own, how):
    """The level of the logger counts, and `logging.disable`: `Logger.handle`, which sends it, asks neither."""
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    if how == "level":
        own.setLevel(logging.ERROR)
    else:
        logging.disable(logging.WARNING)
    drop(report, 1)
    report.wait(60)

    assert [] == gate.records


@pytest.mark.parametrize("how", ["level", "handler", "disable", "nobody"])
def test_warnings_that_nobody_wants_are_no_lines(report, own, said, monkeypatch, how):
    """A program that silences the warnings, by their level or by a NullHandler, gets no line instead."""

    def refused(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    if how == "level":
        own.setLevel(logging.ERROR)
    elif how == "disable":
        logging.disable(logging.WARNING)
    else:
        monkeypatch.setattr(
            own, "handlers", [logging.NullHandler()] if how == "handler" else []
        )  # and none of pytest's
        monkeypatch.setattr(logging, "lastResort", None)
    monkeypatch.setattr(threading.Thread, "start", refused)
    drop(report, 2)
    report.wait(60)

    assert [] == said


def test_an_interrupted_start_is_made_again(report, own, monkeypatch):
    """What a signal handler raises into the start of the thread comes out, and the next warning starts one."""

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            drop(report, 1)
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    drop(report, 1)
    report.wait(60)

    assert [2] == [record.dropped for record in gate.records]


def test_a_report_while_a_reporter_starts(report, own, monkeypatch):
    """
    When a report comes while the reporter of another one starts, one of the two goes, and leaves the other alone.

    It noted that nothing is being sent, so a handler that blocks kept its lock at exit, and `logging.shutdown` hung.
    """
    gate = Gate()
    own.addHandler(gate)
    start = threads.start

    def start_second_first(reporter):
        monkeypatch.undo()
        drop(report, 1)
        gate.entered.acquire()
        start(reporter)
        reporter.join()

    monkeypatch.setattr(threads, "start", start_second_first)
    lock = gate.lock
    drop(report, 1)
    report.let_exit()

    assert gate.lock is not lock
    gate.gate.release()
    report.wait(60)
    assert [2] == [record.dropped for record in gate.records]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_what_another_handler_raises_is_noted(report, own, error):
    """A filter that raises costs its warning, and neither the reporter nor the next one."""
    fails = [error]

    def once(record):
        if fails:
            raise fails.pop()
        return True

    own.addFilter(once)
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    try:
        for _ in range(2):
            drop(report, 1)
            report.wait(60)
    finally:
        own.removeFilter(once)

    assert (error.__name__ + ": ", [2]) == (
        report._outage.last_error,
        [record.dropped_total for record in gate.records],
    )


def test_another_handler_may_close_this_one(report, own, said):
    """A handler that waits for the reporter while it is given the warning would wait for itself."""

    class Closes(logging.Handler):
        def emit(self, record):
            report.wait(60)
            done.set()

    done = threading.Event()
    own.addHandler(Closes())
    drop(report, 1)
    done.wait()
    report.wait(60)

    assert (False, []) == (report._reporting, said)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell whether a pipe is full")
def test_the_reporter_holds_no_lock_of_a_stream_that_blocks(report, own):
    """
    Before a full pipe the reporter waits outside of the handler. It held the locks of the handler and of the stream,
    and the interpreter, which needs both, never came to its end.
    """
    reading, writing = os.pipe()

    class Stream(io.StringIO):
        def fileno(self):
            asked.release()
            return writing

    asked = threading.Semaphore(0)
    console = logging.StreamHandler(Stream())
    own.addHandler(console)
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        drop(report, 1)
        asked.acquire()
        drop(report, 2)
        assert console.lock is not None
        assert console.lock.acquire(blocking=False)
        console.lock.release()
        os.read(reading, 1 << 20)
        report.wait(60)
    finally:
        os.close(reading)
        os.close(writing)

    assert console.stream.getvalue().startswith("dropped 3 records")


def test_a_handler_that_blocks_at_exit_gets_a_new_lock(report, own):
    """`logging.shutdown` takes the lock of each handler. The one that the reporter is in would keep it for ever."""
    gate, other = Gate(), logging.NullHandler()
    own.addHandler(gate)
    own.addHandler(other)
    drop(report, 1)
    gate.entered.acquire()
    lock = gate.lock
    report.let_exit()
    assert gate.lock is not lock
    gate.acquire()
    gate.release()
    gate.lock = lock
    gate.gate.release()
    report.wait(60)

    with lock:  # which is the program's business when the reporter sends nothing
        thread = threading.Thread(target=report.let_exit)
        thread.start()
        thread.join()
    assert gate.lock is lock


class Odd(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler whose stream cannot be asked for."""

    @property
    def stream(self):
        raise SystemExit

    @stream.setter
    def stream(self, stream):
        pass

    def emit(self, record):
        pass


def test_a_handler_without_a_stream_to_look_at(report, own):
    """
    A stream that raises when it is looked at is not waited for, and no other handler has to.

    The reporter looked at it again and again, at full speed, and no warning was ever sent.
    """
    gate = Gate()
    gate.gate.release()
    own.addHandler(Odd())
    own.addHandler(gate)
    drop(report, 1)
    report.wait(60)

    assert [1] == [record.dropped for record in gate.records]


def test_a_stream_that_gets_no_warning_is_not_waited_for(report, own):
    """A console for errors only may be blocked: the warning is not for it."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        errors = logging.StreamHandler(open(writing, "w", closefd=False))  # noqa: SIM115 - it writes nothing
        errors.setLevel(logging.ERROR)
        gate = Gate()
        gate.gate.release()
        own.addHandler(errors)
        own.addHandler(gate)
        drop(report, 1)
        report.wait(60)

        assert [1] == [record.dropped for record in gate.records]
    finally:
        os.close(reading)
        os.close(writing)


def test_logging_lock_is_not_needed(report, own):
    """`dictConfig` holds logging's module lock while it closes handlers; the warning goes out all the same."""
    gate = Gate()
    gate.gate.release()
    own.addHandler(gate)
    own._cache.clear()
    with logging._lock:  # type: ignore[attr-defined]
        drop(report, 1)
        report.wait(60)

    assert [1] == [record.dropped for record in gate.records]


def test_asks_the_logger_outside_of_the_mutex(report, own, no_birth, monkeypatch):
    """The class of the logger may be the program's, so its level is looked up without the mutex that a caller needs."""
    owned = []
    monkeypatch.setattr(
        own, "getEffectiveLevel", lambda: owned.append(report._queue.mutex._is_owned()) or logging.WARNING
    )
    drop(report, 1)
    report.wait(60)

    assert [False] == owned
