"""
Rows of an archive in a temporary database.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler import CorruptFileError, LimitError, LogFileError, UnreadableFileError
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._read import loaded as module
from sqlite_log_handler._read.budget import Budget
from sqlite_log_handler._read.filters import Where
from sqlite_log_handler._read.loaded import Loaded
from sqlite_log_handler._read.parts import FIELDS
from sqlite_log_handler._read.rows import SELECT_ROW

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES: dict[str, Any] = {
    "id": 1, "created_us": 1_000_000, "levelno": 25, "logger": "shop", "message": "m", "pathname": "/a.py",
    "lineno": 1, "func": "f", "process": 1, "process_name": "Main", "host": "h", "thread": 7, "thread_name": "t",
    "task_name": None, "exc_type": None, "exc_text": None, "stack_info": None, "attributes": None, "template": "",
    "started_us": 5, "program": "shop",
}  # fmt: skip


def row(**values: Any) -> tuple[Any, ...]:
    """Make the values of a row."""
    return tuple({**VALUES, **values}[name] for name in FIELDS)


@pytest.fixture
def loaded() -> Iterator[Loaded]:
    """A temporary database."""
    made = Loaded("app-log", {25: "NOTICE"}, [(1, "Main", "h", 5, "shop")])
    yield made
    made.scan.close()


def test_rows_are_added_once(loaded: Loaded) -> None:
    """A row that is there already is left out; processes that no head has named get a number."""
    loaded.add("part", [row(), row(id=2, process=9)])
    loaded.add("part", [row(id=2, message="again"), row(id=3, process=9)])

    found = [(made[0], made[4], made[6], made[10]) for made in loaded.scan.rows(SELECT_ROW, Where())]
    assert [(1, "NOTICE", "m", 1), (2, "NOTICE", "m", 9), (3, "NOTICE", "m", 9)] == found
    assert 2 == loaded.scan.one("SELECT count(*) FROM processes")


def test_call_sites_are_bounded(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many call sites few are in memory, and those of rows that are gone do not stay."""
    monkeypatch.setattr(module, "_MOST_SOURCES", 3)
    loaded.add("part", [row(id=id_, lineno=id_ % 7) for id_ in range(1, 30)])
    assert 7 == loaded.scan.one("SELECT count(*) FROM sources")
    assert 4 >= len(loaded._sources)

    loaded.add("part", [row(id=id_, lineno=id_ % 7) for id_ in range(30, 34)])
    loaded.clear()
    assert 0 == loaded.scan.one("SELECT count(*) FROM records")
    assert 0 == loaded.scan.one("SELECT count(*) FROM sources")


def test_names_of_call_sites_are_bounded(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of call sites with long names few are in memory, and each still has one line.

    They were bounded by number alone, and a part of 0.6 MB, whose names are 4 kB each, took 436 MB.
    """
    monkeypatch.setattr(module, "_MOST_SOURCE_BYTES", 10_000)
    rows = [row(id=id_, template=f"{id_ % 7} {'x' * 4_000}") for id_ in range(1, 30)]
    loaded.add("part", rows)

    assert 7 == loaded.scan.one("SELECT count(*) FROM sources")
    assert 3 >= len(loaded._sources)


@pytest.mark.parametrize("values", [{"thread": 2**63}, {"message": "\ud800"}, {"message": "x" * (17 << 20)}])
def test_a_value_that_no_row_has(loaded: Loaded, values: dict[str, Any]) -> None:
    """A value that SQLite cannot keep is an error that names the part, and the row where it can be told."""
    with pytest.raises((CorruptFileError, LimitError), match=r"'part'.*(row 2|16 MiB)"):
        loaded.add("part", [row(), row(id=2, **values)])


def test_a_process_for_which_there_was_no_room(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose line could not be added is added with the next row: it was taken for known, and had no rows."""
    with monkeypatch.context() as patch, pytest.raises(LogFileError):
        patch.setattr(module, "_PROCESS", "INSERT INTO full VALUES (?, ?, ?, ?, ?, ?)")
        loaded.add("part", [row(process=9)])
    loaded.add("part", [row(process=9)])

    assert [9] == [made[10] for made in loaded.scan.rows(SELECT_ROW, Where())]


def test_processes_without_end(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """More processes than any log has are refused before they fill the memory."""
    monkeypatch.setattr("sqlite_log_handler._read.scan.MOST", 10)
    with pytest.raises(LimitError):
        loaded.add("part", [row(id=id_, process=id_) for id_ in range(1, 30)])


def test_names_of_processes_without_end(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names of processes are refused before they fill the memory, however few processes there are."""
    monkeypatch.setattr("sqlite_log_handler._read.scan._MOST_BYTES", 10_000)
    with pytest.raises(LimitError):
        loaded.add("part", [row(id=id_, process_name=f"{id_} {'x' * 4_000}") for id_ in range(1, 9)])


def test_time_for_long_rows(loaded: Loaded) -> None:
    """A question has the time of a file of that size; by the number of rows, a search in long ones had too little."""
    loaded.add("part", [row(id=id_, message="-" * 60_000) for id_ in range(1, 51)])

    assert 3 < loaded.scan.budget.seconds - Budget(loaded.scan.require_open(), "app-log", int).seconds < 4


def test_no_room(loaded: Loaded) -> None:
    """A temporary folder without room is an error with a name that says what to do."""
    loaded.scan.require_open().execute("PRAGMA max_page_count = 60")
    with pytest.raises(UnreadableFileError, match="TMPDIR"):
        loaded.add("part", [row(id=id_, message="x" * 5_000) for id_ in range(1, 200)])


def test_it_stays_open_while_it_is_used() -> None:
    """A database that another question has replaced stays open until its last rows were read."""
    loaded = Loaded("app-log", {}, [])
    scan = loaded.scan
    rows = loaded.rows(SELECT_ROW, Where(), backward=False)
    del loaded
    assert not scan.closed
    assert [*rows] == []
    assert scan.closed


def test_after_a_fork_that_must_not_use_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that must not call SQLite any more is told so."""
    monkeypatch.setattr(forks, "stuck", True)
    monkeypatch.setattr(sqlite3, "connect", None)
    with pytest.raises(UnreadableFileError, match="spawn"):
        Loaded("app-log", {}, [])


def test_another_thread_closes_it(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another thread closes a reader before rows are added, it is a ValueError, and no error of `sqlite3`."""
    connection = loaded.scan.require_open()

    def in_use() -> object:
        monkeypatch.undo()
        loaded.scan.close()
        return connection.in_use()

    monkeypatch.setattr(connection, "in_use", in_use)
    with pytest.raises(ValueError, match="is closed"):
        loaded.add("part", [row()])
    loaded.scan.budget.renew()


def test_a_signal_handler_while_it_is_filled(loaded: Loaded) -> None:
    """
    A signal handler cannot ask a database that is being filled, and one that closes it does so at the end of that.

    SQLite ended the process where it takes lines from a generator in Python, and elsewhere an error of `sqlite3` came.
    """

    def prunes() -> Iterator[tuple[Any, ...]]:
        yield 1, 1, 0, 0, "max_age", 1, 0
        with pytest.raises(ValueError, match="is being asked"):
            loaded.clear()
        loaded.scan.close()
        yield 2, 2, 0, 0, "max_age", 1, 0

    connection = loaded.scan.require_open()
    loaded.add_ledger([], prunes(), [])

    with pytest.raises(ValueError, match="is closed"):
        loaded.clear()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


def test_a_signal_when_the_transaction_has_just_begun(loaded: Loaded) -> None:
    """
    Ctrl-C when a transaction has just begun ends that too, so that rows can be added again.

    A reader of an archive said from then on that the log holds something that no log holds.
    """

    def interrupt(_: object, event: str, function: Any) -> None:
        if event == "c_return" and function.__name__ == "execute":
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loaded.add("part", [row()])
    sys.setprofile(None)

    loaded.add("part", [row()])
    assert 1 == loaded.scan.one("SELECT count(*) FROM records")


def test_an_interrupt_while_rows_are_added(loaded: Loaded) -> None:
    """
    To interrupt a reader raises a KeyboardInterrupt, whatever statement it runs.

    Of a log with an archive, it mostly raised a LimitError, which said that somebody else had made the log.
    """
    connection = loaded.scan.require_open()
    connection.create_function("stop", 1, lambda _: loaded.scan.interrupt())

    with pytest.raises(KeyboardInterrupt):
        loaded._write(lambda _: connection.execute("SELECT stop(a.levelno) FROM levels AS a, levels").fetchall())

    loaded.add("part", [row()])
    assert 1 == loaded.scan.one("SELECT count(*) FROM records")


def test_a_question_after_rows_that_were_not_added(loaded: Loaded) -> None:
    """A question has its bound again, which is lifted while rows are added, after an error there too."""
    loaded.scan.all("SELECT 1")
    with pytest.raises(CorruptFileError):
        loaded.add("part", [row(message="\ud800")])

    loaded.scan.budget._left = 0.001
    with pytest.raises(LimitError):
        loaded.scan.all("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000) SELECT max(i) FROM n")
