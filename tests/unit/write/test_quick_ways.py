"""
The quick ways under profilers, tracers and coverage, which run Python code between any two steps.

`self.queued += 1` and `self.queue.append(item)` were one piece to the interpreter, but not to them: other threads
committed in between, and a row was written twice, another one not at all, and the books balanced.
"""

from __future__ import annotations

import contextlib
import opcode
import subprocess
import sys
import threading
from collections import Counter
from functools import partial

import pytest
from queues import report
from slowly import slowly

from sqlite_log_handler._write import fair_share as fair_share_module
from sqlite_log_handler._write import ledger as ledger_module
from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write.queue import ANY, RecordQueue
from sqlite_log_handler._write.row import SIZE_UNIT

INFO, WARNING = 20, 30

pytestmark = pytest.mark.skipif(not queue_module.GIL, reason="the quick ways need a GIL")


def row(number, *, levelno=INFO, size=1):
    """Make what the queue knows of a row."""
    return (levelno, float(number), ("a", "file.py", 1, "func"), size, 0)


def make_queue(capacity=1_000, size=100_000, **options):
    """Make an open queue, as if a listener had started."""
    made = RecordQueue(capacity, size * SIZE_UNIT, **options)
    made.open()
    return made


@contextlib.contextmanager
def before_append(queue, action):
    """Do `action` once, as a profiler does, when the next row has its permit and is not appended yet."""
    done = []

    def profile(frame, event, arg):
        if (
            event == "c_call"
            and arg.__name__ == "append"
            and frame.f_code is RecordQueue.put_nowait.__code__
            and not done
        ):
            done.append(True)
            action()

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done


def commit(queue):
    """Commit a batch, and return the numbers of its rows."""
    batch = queue.begin_commit(10**9)
    queue.end_commit(batch)
    return [item[1] for item in batch.rows]


def test_commits_between_a_permit_and_its_row():
    """Rows that are committed meanwhile are written once, the late row too, and no wake-up is needed for it."""
    queue, written = make_queue(), []
    for number in range(5):
        queue.put_nowait(row(number))

    def action():
        written.extend(commit(queue) + commit(queue))
        assert queue.pending  # so the listener does not fall asleep before the row is there

    with before_append(queue, action):
        queue.put_nowait(row(5))
    written += commit(queue)

    assert list(range(6)) == written
    assert (6, 6, 0) == (queue.books()["seen"], queue.written, queue.queued)
    assert not queue.pending


@pytest.mark.parametrize(("capacity", "size"), [(20, 100_000), (1_000, 1_500)])
def test_the_bounds_hold_beside_a_row_that_is_late(capacity, size):
    """Others fill the queue while a row has its permit only; its room is kept, in rows and in bytes."""
    queue = make_queue(capacity, size)
    for number in range(5):
        queue.put_nowait(row(number))

    def action():
        for number in range(2_000):
            queue.put_nowait(row(number, size=50))

    with before_append(queue, action):
        queue.put_nowait(row(5, size=64))

    assert queue.queued <= capacity
    assert queue.queued_size <= size
    assert 2_006 == queue.books()["seen"]
    assert 5.0 == queue.queue[-1][1]


def test_a_refusal_that_is_late_is_counted():
    """A refusal that comes when its tally was reported already counts in the next report."""
    queue = make_queue(1)
    queue.put_nowait(row(0))
    queue.refuse(INFO, 1.0, "a")
    tally = queue._refusals[INFO, "a"]
    report(queue)
    commit(queue)

    assert True in tally.ticks

    assert queue.ledger.unreported
    assert 2 == queue.dropped_total == queue.books()["dropped_total"]
    assert 1 == report(queue).count


def test_an_exception_between_a_permit_and_its_row():
    """What a signal handler raises out of a profiler, just there, costs the room of one row, and no count."""
    queue = make_queue(20)
    for number in range(5):
        queue.put_nowait(row(number))

    def action():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), before_append(queue, action):
        queue.put_nowait(row(5))
    for number in range(100):
        queue.put_nowait(row(number))

    assert 19 == queue.queued
    assert 105 == queue.books()["seen"]


@pytest.mark.parametrize("fair_share", [0.5, 1.0])
@pytest.mark.parametrize("every", [1, 2, 3, 5, 7])
def test_nested_calls_at_every_line(fair_share, every):
    """
    What logs, refuses and looks at the books at each line of the queue, as from a tracer, leaves them true.

    A signal handler that looked at the books just after a drop had looked how many wait raised IndexError out of it.
    """
    queue = make_queue(60, 400, reserve=0.1, batch_size=20, fair_share=fair_share)
    files = {module.__file__ for module in (queue_module, ledger_module, fair_share_module)}
    calls, lines = [0], [0]

    def log(levelno, size=1):
        calls[0] += 1
        if queue.admits is ANY or levelno >= queue.admits or not queue.refuse(levelno, 1.0, "a"):
            queue.put_nowait(row(calls[0], levelno=levelno, size=size))

    def trace(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines[0] += 1
            if not lines[0] % every:
                log(WARNING if lines[0] % 5 else INFO, 1 + lines[0] % 9)
                queue.books()
                assert queue.queued <= 60
        return trace

    before = sys.gettrace()
    committed = 0
    sys.settrace(trace)
    try:
        for number in range(300):
            log(INFO)
            if number % 30 == 29:
                report(queue)
                batch = queue.begin_commit(10**9)
                queue.end_commit(batch)
                committed += len(batch.rows)
    finally:
        sys.settrace(before)

    books = queue.books()
    assert lines[0] > 1_000
    assert (calls[0], committed, len(queue.queue)) == (books["seen"], books["written"], books["queued"])
    assert queue.queued_size == sum(item[3] for item in queue.queue) <= 400


@pytest.mark.parametrize("number", range(60))
def test_a_commit_at_each_line_of_a_put(number):
    """
    What empties the queue at any line of a put under pressure, as a tracer may, ends the pressure, and no put.

    A put looked whether loggers have shares, and when it took them there were none: AttributeError.
    """
    queue, lines = make_queue(10, fair_share=0.5), []
    for _ in range(7):
        queue.put_nowait(row(1))

    def trace(frame, event, _):
        if frame.f_code.co_filename not in {queue_module.__file__, fair_share_module.__file__}:
            return None
        if event == "line":
            lines.append(event)
            if len(lines) == number:
                commit(queue)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        queue.put_nowait(row(1))
    finally:
        sys.settrace(before)

    assert 8 == queue.books()["seen"]


def collect_at(number, call, nested):
    """Do `nested` where a `call` makes its tuple of this number; check the books, and return how many it made."""
    files = {module.__file__ for module in (queue_module, ledger_module, fair_share_module)}
    queue, made, calls = make_queue(10, fair_share=0.5), [], []

    def log():
        calls.append(True)
        queue.put_nowait(row(len(calls), size=70))

    works = {
        "log": log,
        "commit": partial(commit, queue),
        "give_up": partial(queue.give_up, 100, "close_timeout"),
        "report": partial(report, queue),
    }

    def trace(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and opcode.opname[frame.f_code.co_code[frame.f_lasti]] == "BUILD_TUPLE":
            made.append(True)
            if len(made) == number:
                works[nested]()
        return trace

    for _ in range(12):
        log()
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 asks whether any frame has that when the tracer is set
    sys.settrace(trace)
    try:
        works[call]()
    finally:
        sys.settrace(before)

    books = queue.books()
    numbers = [item[1] for item in queue.queue]
    assert len(calls) == books["seen"]
    assert (len(numbers), 70 * len(numbers) * SIZE_UNIT) == (books["queued"], books["queued_bytes"])
    assert sorted(set(numbers)) == numbers
    return len(made)


@pytest.mark.parametrize("nested", ["log", "commit", "give_up"])
@pytest.mark.parametrize("call", ["log", "give_up", "report"])
def test_a_collection_where_a_tuple_is_made(call, nested):
    """
    A collection, which CPython 3.11 runs where a tuple is made, may log or flush, and nothing is torn.

    Where a drop came into its entry, a nested one had come into it first: `IndexError: pop from empty list`. The
    handler then dropped the record again.
    """
    number = 1
    while collect_at(number, call, nested) >= number:
        number += 1
    assert number > 3


COLLECTED = """
import gc, sys
from itertools import count
from sqlite_log_handler._write.ledger import Ledger

def drop():
    ledger.drop((("queue_full", 20, 1.0, f"logger {next(numbers)}"),), 0)

def take():
    drop()
    return ledger.take_drops(0)

def write():
    ledger.begin_commit(0)
    ledger.end_commit()

class Nested:
    def __init__(self):
        self.itself = self

    def __del__(self):
        nested()

call, nested = {
    "drop": (drop, drop),
    "drops": (lambda: ledger.drops(0), drop),
    "add_gap": (lambda: ledger.add_gap(gap, 0, 1_000), write),
}[sys.argv[1]]
lists, numbers = [], count()
for objects in range(20):
    gc.disable()
    ledger = Ledger()
    ledger.add_gap(take(), 0, 1_000)
    gap, ledger.unsent = take(), None
    drop()
    gc.collect()
    lists.extend([] for _ in range(90))  # CPython keeps up to 80 for the next ones, which then begin no collection
    Nested()
    gc.set_threshold(max(1, gc.get_count()[0] + objects - 1))
    gc.enable()
    call()
"""


@pytest.mark.parametrize("call", ["drop", "drops", "add_gap"])
def test_a_collection_where_a_list_is_copied(call):
    """
    A collection may log or commit where CPython 3.11 makes the copy of a list, or an item of a dict.

    It crashed in a slice of a list that became empty meanwhile, and `stats()` raised when a new logger lost a record.
    """
    done = subprocess.run([sys.executable, "-c", COLLECTED, call], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)


# The books against the file -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def profiled():
    """Run the threads that start under a Python profile function."""
    threading.setprofile(lambda *_: None)
    try:
        yield
    finally:
        threading.setprofile(None)


@contextlib.contextmanager
def traced():
    """Run the threads that start under a Python trace function."""

    def trace(*_):
        return trace

    before = threading.gettrace()
    threading.settrace(trace)
    try:
        yield
    finally:
        threading.settrace(before)


@contextlib.contextmanager
def monitored():
    """Have a callback at each line and call."""
    monitoring = sys.monitoring
    monitoring.use_tool_id(4, "test")
    events = monitoring.events.LINE | monitoring.events.CALL | monitoring.events.PY_START
    for event in (monitoring.events.LINE, monitoring.events.CALL, monitoring.events.PY_START):
        monitoring.register_callback(4, event, lambda *_: None)
    monitoring.set_events(4, events)
    try:
        yield
    finally:
        monitoring.set_events(4, 0)
        monitoring.free_tool_id(4)


@contextlib.contextmanager
def covered():
    """Measure the coverage, by Python's tracer."""
    coverage = pytest.importorskip("coverage")
    measured = coverage.Coverage(data_file=None)
    measured.set_option("run:core", "pytrace")
    measured.start()
    try:
        yield
    finally:
        measured.stop()


@contextlib.contextmanager
def sampled():
    """Nothing here: each thread starts its own pyinstrument."""
    pytest.importorskip("pyinstrument")
    yield


WAYS = [
    profiled,
    traced,
    pytest.param(monitored, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")),
    *slowly(covered),
    sampled,
]


@pytest.mark.parametrize("way", WAYS)
def test_the_books_agree_with_the_file(way, make_handler, logger, query, request):
    """Each record of several threads is in the file once or counted as dropped, under each of these tools."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)
    handler = make_handler(capacity=5_000, batch_size=50, flush_interval=0.001)
    logger.addHandler(handler)

    def work(thread):
        profiler = None
        if way is sampled:
            from pyinstrument import Profiler  # noqa: PLC0415 - it is an extra

            profiler = Profiler(interval=0.0001, async_mode="disabled")
            profiler.start()
        for number in range(600):
            logger.info("%d-%d", thread, number)
        if profiler is not None:
            profiler.stop()

    with way():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    handler.close()

    stats = handler.stats()
    stored = Counter(message for (message,) in query("SELECT message FROM logs WHERE logger != 'sqlite_log_handler'"))
    assert (1_800, 0) == (stats.seen, stats.queued)
    assert stats.written == len(stored) == stored.total()
    assert 1_800 == stored.total() + stats.dropped_total
