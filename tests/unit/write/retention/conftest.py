"""
A log that tests fill by SQL, and a reader that holds a snapshot of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from archives import KINDS
from programs import Program

from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._write.retention.limits import Limits, NoRoom
from sqlite_log_handler._write.retention.pruner import Pruner
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Clock

    from sqlite_log_handler._logfile.forks import Connection

NOW = 1_700_000_000.0

INSERT = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO records (created_us, levelno, source_id, process_id, message)
SELECT :created + n * :step, 20, :source, 1, printf('%' || :width || 'd', n) FROM numbers
"""


class Log:
    """A log that is filled by SQL, with a pruner on a clock moved by hand."""

    def __init__(self, path: Path, clock: Clock, said: list[str]) -> None:
        self.path = str(path)
        self.clock = clock
        self.said = said
        self.wall = clock.now = NOW
        self.writer = Writer(self.path, busy_timeout=0)
        self.writer.file.open()
        self.connection: Any = self.writer.file.connection
        # Volume counts none of the rows that are filled in, so a test may fill in volume.
        self.connection.execute("UPDATE marks SET folded_id = 1 << 62")
        self.connection.execute("INSERT INTO sources VALUES (1, 'app', '/app.py', 1, 'main', '')")
        self.connection.execute("INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 0, 'app')")

    def fill(self, count: int, *, age: float = 0, step: float = 0, width: int = 1, source: int = 1) -> None:
        """Add rows, the first of that age in seconds, each `step` seconds younger than the one before."""
        values = {"created": round((NOW - age - step) * 1e6), "step": round(step * 1e6)}
        self.connection.execute(INSERT, {"count": count, "width": width, "source": source, **values})

    def pruner(self, **limits: Any) -> Pruner:
        """Make a pruner."""
        return Pruner(self.path, Limits(**limits), say=self.said.append, now=lambda: self.wall, clock=self.clock)

    def prune(self, pruner: Pruner, **options: Any) -> int:
        """Prune until there is nothing more to do; return the number of steps."""
        steps = 1
        while pruner.step(self.connection, **options) == 0:
            steps += 1
            assert steps < 10_000
        return steps

    def no_room(self, pruner: Pruner) -> str | None:
        """Make room for a commit; return why there is none."""
        try:
            pruner.make_room(self.connection)
        except NoRoom as error:
            return str(error)
        return None

    def ask(self, sql: str, *parameters: object) -> list[Any]:
        """Query the log."""
        return self.connection.execute(sql, parameters).fetchall()

    @property
    def ids(self) -> list[int]:
        """The ids that are left."""
        return [row for (row,) in self.ask("SELECT id FROM records ORDER BY id")]

    @property
    def rows(self) -> tuple[int, int, int]:
        """First id, last id, count."""
        return self.ask("SELECT min(id), max(id), count(*) FROM records")[0]

    @property
    def taken(self) -> int:
        """Bytes of file and WAL."""
        return sum(os.stat(self.path + end).st_size for end in ("", "-wal"))


@pytest.fixture
def said() -> list[str]:
    """What the operator was told."""
    return []


@pytest.fixture
def log(path: Path, clock: Clock, said: list[str]) -> Iterator[Log]:
    """The log of the test."""
    log = Log(path, clock, said)

    yield log

    assert [("ok",)] == log.ask("PRAGMA integrity_check")
    log.writer.close()


@pytest.fixture
def reader(path: Path) -> Iterator[Callable[[], sqlite3.Connection]]:
    """Hold a snapshot: `reader()`; closing what it returns lets go of it."""
    with contextlib.ExitStack() as stack:

        def hold() -> sqlite3.Connection:
            connection = stack.enter_context(contextlib.closing(connect_read_only(str(path))))
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM records").fetchone()
            return connection

        yield hold


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The format of the parts."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    return str(request.param)


@pytest.fixture
def reading(log: Log) -> Iterator[Connection]:
    """The connection by which the archive reads the log."""
    with contextlib.closing(connect_read_only(log.path)) as connection:
        yield connection


@pytest.fixture
def make(log: Log, folder: Path) -> Iterator[Callable[..., Program]]:
    """Make programs."""
    made: list[Program] = []

    def make(**options: Any) -> Program:
        made.append(Program(log, folder, **options))
        return made[-1]

    yield make

    for program in made:
        program.archiver.stop()
    for thread in threading.enumerate():
        if thread.name == "sqlite_log_handler archive":
            thread.join()
