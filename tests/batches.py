"""
Batches for a writer, and how to look at what it wrote.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._write.ledger import PendingGap
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.limits import PAGE_BYTES
from sqlite_log_handler._write.row import PackedRow, make_row
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


HOUR = 3_600.0
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows does not move an open file")


class Said(list):  # type: ignore[type-arg]
    """What the operator was told."""

    def __call__(self, text: str) -> None:
        self.append(text)


def row(message: Any = "m", **values: Any) -> PackedRow:
    """Make a row."""
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, message, (), None, "main")
    record.__dict__.update({"created": 1_000.0, **values})
    return make_row(record)


def numbered(start: int, end: int, **values: Any) -> list[PackedRow]:
    """Make rows whose messages count."""
    return [row(f"{number}", **values) for number in range(start, end)]


def gap(
    position: int, count: int = 1, *, since: float = 1_000.0, key: tuple[Any, ...] = ("queue_full", 20, "app")
) -> PendingGap:
    """Make a gap with its warning."""
    warning = logging.LogRecord(
        "sqlite_log_handler", logging.WARNING, "", 0, f"dropped at {position}", (), None, "report"
    )
    warning.created = 2_000.0
    return PendingGap(position, {key: [count, since, since + 1]}, count, warning)  # type: ignore[dict-item]


def write(writer: Writer, *messages: Any) -> None:
    """Write messages that SQLite takes."""
    assert not writer.write(Commit([row(message) for message in messages])).refused


def put_null(connection: sqlite3.Connection, column: str) -> None:
    """Put NULL in the place of a value, as it is when a bit of its type has flipped: SQLite does not look at that."""
    table, name = column.split(".")
    ((sql,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,))
    for text in (sql.replace(" NOT NULL", ""), sql):
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, table))
        connection.execute("PRAGMA writable_schema = RESET")
        if text != sql:
            connection.execute(f"UPDATE {table} SET {name} = NULL")


def connection_of(writer: Writer) -> sqlite3.Connection:
    """Return the connection of a writer whose file is open."""
    assert writer.file.connection is not None
    return writer.file.connection


def connect_as(monkeypatch: pytest.MonkeyPatch, factory: type[sqlite3.Connection]) -> None:
    """Have each connection that is opened from now on be a `factory`."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "factory": factory}))


def read(writer: Writer, sql: str, *parameters: object) -> list[Any]:
    """Read through the writer's connection."""
    return connection_of(writer).execute(sql, parameters).fetchall()


def messages(writer: Writer) -> list[str]:
    """Read the messages, in order."""
    return [message for (message,) in read(writer, "SELECT message FROM logs ORDER BY id")]


def stored(path: Path) -> list[str]:
    """Read the messages of a file that is whole, as another program would."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return [message for (message,) in connection.execute("SELECT message FROM logs ORDER BY id")]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Hold a snapshot, so that the WAL cannot be written back."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        yield


def pragma(writer: Writer, name: str) -> Any:
    """Read a pragma."""
    return read(writer, f"PRAGMA {name}")[0][0]


def switch(path: Path, target: Path) -> str:
    """Have the link beside `path` lead to `target`, and return its name."""
    link = path.with_name("link.db")
    new = path.with_name("new link")
    try:
        new.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links")
    return str(new.replace(link))


def fill(path: Path) -> None:
    """Make a log with something on every page."""
    with contextlib.closing(Writer(str(path))) as writer:
        rows = [row(f"{number}" * 50, name=f"app.{number}", levelno=number % 3) for number in range(500)]
        writer.write(Commit(rows, [gap(500)]))


def overwrite(path: Path, pages: Sequence[int]) -> bytes:
    """Overwrite pages, counted from 1, and return what the file is now."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE_BYTES)
            file.write(b"\xff" * PAGE_BYTES)
    return path.read_bytes()


def refuse(writer: Writer) -> None:
    """Have SQLite refuse any row whose message is "bad"."""
    writer.file.open()
    read(
        writer,
        "CREATE TRIGGER refuse BEFORE INSERT ON records WHEN NEW.message = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END",
    )


def write_at_last(writer: Writer) -> None:
    """Write as the listener does, which tries again at the next tick."""
    for _ in range(2):
        with contextlib.suppress(sqlite3.DatabaseError):
            writer.write(Commit([row("after", levelno=0)], [gap(1)]))
            return
    writer.write(Commit([row("after", levelno=0)], [gap(1)]))


def corrupt_files(path: Path) -> list[bytes]:
    """Read what was moved aside."""
    return [
        (path.parent / name).read_bytes()
        for name in sorted(os.listdir(path.parent))
        if ".corrupt-" in name and not name.endswith(("-wal", "-shm"))
    ]


@contextlib.contextmanager
def fail_at(writer: Writer, table: str) -> Iterator[None]:
    """Have each write to a table fail inside the `with` block."""

    def authorize(action: int, name: str | None, *_: Any) -> int:
        writes = action in {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE}
        return sqlite3.SQLITE_DENY if writes and name == table else sqlite3.SQLITE_OK

    connection_of(writer).set_authorizer(authorize)
    yield
    connection_of(writer).set_authorizer(None)
