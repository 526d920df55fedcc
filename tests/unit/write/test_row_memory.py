"""
What rows share, and what they take in memory.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sqlite3
import tracemalloc
from typing import Any

import pytest
from records import (
    make_record,
    row_of,
    rows_of,
)
from slowly import slowly

from sqlite_log_handler._write import queue as queue_module
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write.row import (
    ATTRIBUTES,
    MESSAGE,
    SIZE,
    SIZE_UNIT,
    SOURCE,
    TASK_NAME,
    THREAD,
    make_row,
)

pytestmark = pytest.mark.usefixtures("nothing_interned")


def test_call_site_is_shared() -> None:
    """Rows of one call site and one thread hold the same source and the same thread, not equal ones."""
    rows = [make_row(make_record(f"{number}")) for number in range(3)]
    rows.append(make_row(make_record("last", order=1)))

    assert 1 == len({id(row[SOURCE]) for row in rows})
    assert 1 == len({id(row[THREAD]) for row in rows})


@pytest.mark.parametrize("attribute", ["name", "pathname", "funcName", "threadName", "processName"])
@pytest.mark.parametrize("length", [0, 900])
def test_interning_is_bounded(monkeypatch: pytest.MonkeyPatch, attribute: str, length: int) -> None:
    """Made-up names do not make the process grow: what is shared is bounded."""
    monkeypatch.setattr(row_module, "_MOST_SHARED", 100)
    for number in range(300):
        for _ in range(2):
            make_row(make_record(**{attribute: f"{number}" + "x" * length}))

    assert 0 < len(row_module._shared) <= 100


def test_the_letters_of_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Made-up names of a thousand letters are not remembered in such numbers as usual ones.

    A process that wrote records of others grew by 250 MB beside a queue of 1 MiB.
    """
    monkeypatch.setattr(row_module, "_MOST_LETTERS", 100_000)
    for number in range(300):
        names = dict.fromkeys(("name", "pathname", "funcName", "threadName"), f"{number}" + "x" * 900)
        for _ in range(2):
            make_row(make_record(**names))

    assert 0 < sum(map(row_module.letters_of, row_module._shared)) <= 100_000


def test_pairs_of_call_site_and_thread_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with many call sites and many threads makes what is shared grow by neither of them."""
    monkeypatch.setattr(row_module, "_MOST_SHARED", 100)
    for number in range(900):
        make_row(make_record(lineno=number % 30, thread=number // 30))

    assert 0 < len(row_module._shared) <= 100


def test_only_plain_names_are_kept() -> None:
    """A name of a class of the program's, though equal to one that is known, does not stay alive for it."""

    class Name(str):
        __slots__ = ()

    make_row(make_record())
    row = make_row(make_record(name=Name("app")))

    assert Name not in {type(part) for key in row_module._shared for part in key}
    assert str is type(row[SOURCE][0])


def test_a_message_that_is_no_str() -> None:
    """A message is `str(msg) % args`, as the logging module has it, whatever `msg` makes of a `%` itself."""

    class Message:
        def __mod__(self, args: object) -> str:
            return "never"

        def __str__(self) -> str:
            return "paid by %s"

    assert ["paid by c-17"] * 2 == [row[MESSAGE] for row in rows_of(make_record(Message(), "c-17"))]


def test_interning_is_bounded_in_bytes() -> None:
    """Made-up names of 50 kB do not stay either: 2,000 of them took 100 MB."""
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2_000):
            make_row(make_record(name=f"{number}" + "x" * 50_000))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 12_000_000 > grown


def test_names_of_other_types() -> None:
    """A name that has a `__hash__` or an `__eq__` of its own costs nothing but its sharing."""

    class Name(str):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    assert ("shop", "hello") == ((row := row_of(make_record("hello", name=Name("shop"))))[SOURCE][0], row[MESSAGE])


# Memory ---------------------------------------------------------------------------------------------------------------


def queued(texts: Any, **values: Any) -> tuple[int, int]:
    """Log *texts*, made and forgotten one by one, into a queue; return what it says it takes, and what it takes."""
    logger = logging.getLogger("test_row")
    # What a program has anyway: the interned source and thread.
    make_row(logger.makeRecord("app", 20, "/src/app.py", 7, "", (), None, "main"))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        records = queue_module.RecordQueue(100_000, 1 << 40)
        records.open()
        for text in texts:
            names = {name: f"{value}{text[:20]}" for name, value in values.items()}
            record = logger.makeRecord(names.get("name", "app"), 20, "/src/app.py", 7, "%s", (text,), None, "main")
            record.__dict__.update(names)
            records.put_nowait(make_row(record))
        del record, text, names
        # SQLite makes CPython keep the UTF-8 of what is bound: a row is at its largest after a failed commit.
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            for row in records.queue:
                connection.execute("SELECT ?, ?, ?, ?", (row[MESSAGE], row[ATTRIBUTES], row[TASK_NAME], row[SOURCE][0]))
            del row
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return records.queued_size * SIZE_UNIT, after - before


@pytest.mark.parametrize("length", [0, 16, 17, 1_023, 1_024, 5_000])
def test_size_of_a_plain_row(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain row of a known call site has the size of a row and its text, in whole units, and goes no long way."""
    record = make_record("x" * length)
    rows_of(record)
    monkeypatch.delattr(row_module, "_build_slowly")
    row = make_row(record)

    assert (length, -(-(240 + length) // SIZE_UNIT)) == (len(row[MESSAGE]), row[SIZE])


@pytest.mark.slow
def test_full_queue_takes_33_megabytes() -> None:
    """100,000 rows of 50 characters take 33 MB at most, and the queue says no less than it takes."""
    estimate, truth = queued(f"{number:050d}" for number in range(100_000))

    assert 33_000_000 >= truth
    assert 33_000_000 >= estimate >= truth


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 8, 50, 1_000, 15_000, 100_000])
@pytest.mark.parametrize("letter", ["x", "é", "日", "😀"])
def test_estimate_is_not_below_the_truth(letter: str, length: int) -> None:
    """Rows of any text take no more memory than the queue says, so `capacity_bytes` is a bound."""
    count = 200 if length > 1_000 else 2_000
    measured = [queued(f"{letter * length}{number}" for number in range(count)) for _ in range(2)]

    # The measurement takes some itself: sqlite3's module state, and caches of the interpreter. Now and then a dict of
    # the interpreter's doubles in it, which may be another 70 KB, but not in both.
    assert 50_000 > min(truth - estimate for estimate, truth in measured)


@pytest.mark.parametrize("count", [250, *slowly(1_000)])
@pytest.mark.parametrize("name", ["name", "threadName", "taskName", "order"])
@pytest.mark.parametrize("letter", ["😀", *slowly("x", "é", "日")])
def test_estimate_counts_names(name: str, letter: str, count: int) -> None:
    """Names that are made up for each record count too."""
    estimate, truth = queued((f"{number:06d}{letter}" for number in range(count)), **{name: letter * 900})

    # What is interned is not the queue's; it is bounded by itself.
    assert estimate >= truth - count * 300
