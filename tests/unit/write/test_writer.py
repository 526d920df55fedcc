"""
From rows to the file: one transaction a batch, all or nothing, whatever happens to the file.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import sqlite3
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from freezegun import freeze_time

from sqlite_log_handler._logfile import schema as schema_module
from sqlite_log_handler._logfile.errors import ForeignFileError, LogFileError
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._write import row as row_module
from sqlite_log_handler._write import writer as writer_module
from sqlite_log_handler._write.queue import Gap
from sqlite_log_handler._write.retention.limits import Limits, NoRoom
from sqlite_log_handler._write.row import MESSAGE, SOURCE, THREAD, PackedRow, make_row
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

HOUR = 3_600.0
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows does not move an open file")


class Batch(NamedTuple):
    """
    What the writer is given; see `_queue.Commit`.
    """

    rows: Sequence[PackedRow]
    gaps: Sequence[Gap] = ()
    first: int = 0


class Said(list):  # type: ignore[type-arg]
    """
    What the operator was told.
    """

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def said() -> Said:
    """
    What the operator was told.
    """
    return Said()


@pytest.fixture
def make_writer(path: Path, said: Said) -> Iterator[Callable[[], Writer]]:
    """
    Make writers that do not wait for locks.
    """
    made = []

    def make(path: object = path, limits: Limits = Limits()) -> Writer:  # noqa: B008 - frozen
        writer = Writer(str(path), busy_timeout=0, limits=limits, say=said)
        made.append(writer)
        return writer

    yield make

    for writer in made:
        writer.close()


@pytest.fixture
def writer(make_writer: Callable[[], Writer]) -> Writer:
    """
    The writer of the test.
    """
    return make_writer()


def row(message: Any = "m", **values: Any) -> PackedRow:
    """
    Make a row.
    """
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, message, (), None, "main")
    record.__dict__.update({"created": 1_000.0, **values})
    return make_row(record)


def numbered(start: int, end: int, **values: Any) -> list[PackedRow]:
    """
    Make rows whose messages count.
    """
    return [row(f"{number}", **values) for number in range(start, end)]


def gap(
    position: int, count: int = 1, *, since: float = 1_000.0, key: tuple[Any, ...] = ("queue_full", 20, "app")
) -> Gap:
    """
    Make a gap with its warning.
    """
    warning = logging.LogRecord(
        "sqlite_log_handler", logging.WARNING, "", 0, f"dropped at {position}", (), None, "report"
    )
    warning.created = 2_000.0
    return Gap(position, {key: [count, since, since + 1]}, count, warning)  # type: ignore[dict-item]


def write(writer: Writer, *messages: Any) -> None:
    """
    Write messages that SQLite takes.
    """
    assert not writer.write(Batch([row(message) for message in messages])).refused


def read(writer: Writer, sql: str, *parameters: object) -> list[Any]:
    """
    Read through the writer's connection.
    """
    assert writer.connection is not None
    return writer.connection.execute(sql, parameters).fetchall()


def messages(writer: Writer) -> list[str]:
    """
    Read the messages, in order.
    """
    return [message for (message,) in read(writer, "SELECT message FROM logs ORDER BY id")]


def pragma(writer: Writer, name: str) -> Any:
    """
    Read a pragma.
    """
    return read(writer, f"PRAGMA {name}")[0][0]


def switch(path: Path, target: Path) -> str:
    """
    Have the link beside `path` lead to `target`, and return its name.
    """
    link = path.with_name("link.db")
    new = path.with_name("new link")
    try:
        new.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links")
    return str(new.replace(link))


# The file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reopened", [False, True])
def test_pragmas(make_writer: Callable[[], Writer], reopened: bool) -> None:
    """
    The file is in WAL mode, can be shrunk, and is written as the design says, when it is new and ever after.
    """
    if reopened:
        with contextlib.closing(make_writer()) as first:
            write(first, "before")
    writer = make_writer()
    write(writer, "now")

    assert ("wal", 2, 1) == (
        pragma(writer, "journal_mode"),
        pragma(writer, "auto_vacuum"),
        pragma(writer, "synchronous"),
    )
    assert 16 * 1024 * 1024 == pragma(writer, "journal_size_limit")
    assert (schema_module.APPLICATION_ID, schema_module.USER_VERSION) == (
        pragma(writer, "application_id"),
        pragma(writer, "user_version"),
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_mode(writer: Writer, path: Path, umask: int) -> None:
    """
    Only its owner can read a log, its -wal and its -shm, under any umask.
    """
    before = os.umask(umask)
    try:
        write(writer, "secret")
    finally:
        os.umask(before)

    assert {"app-log.db": 0o600, "app-log.db-wal": 0o600, "app-log.db-shm": 0o600, "app-log.db-lock": 0o600} == {
        name: os.stat(path.parent / name).st_mode & 0o777 for name in sorted(os.listdir(path.parent))
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("mode", [0o640, 0o666])
def test_mode_of_an_existing_file(writer: Writer, path: Path, mode: int) -> None:
    """
    The mode of a file that is there is its owner's decision.
    """
    path.touch()
    path.chmod(mode)
    write(writer, "shared")

    assert mode == path.stat().st_mode & 0o777


def test_nothing_is_opened_twice(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file that is where it was is not opened again.
    """
    write(writer, "one")
    connection = writer.connection
    write(writer, "two")

    assert connection is writer.connection


@POSIX
@pytest.mark.parametrize("linked", [False, True])
def test_a_commit_looks_at_each_file_once(
    make_writer: Callable[..., Writer], path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """
    Whether the file, its -wal, its lock and the link to it are where they were takes one look each: beside busy
    threads, each look may be a wait for the interpreter lock.
    """
    names = [f"{path}-lock", f"{path}", f"{path}-wal"]
    if linked:
        names.insert(1, switch(path, path))
    writer = make_writer(names[1])
    write(writer, "one")
    looks: list[str] = []
    for name in ("stat", "fstat", "lstat", "readlink"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, real=real: (looks.append(str(path)), real(path))[1])
    write(writer, "two")
    monkeypatch.undo()

    assert names == looks


def test_close_closes_what_another_thread_has_prepared(writer: Writer, path: Path) -> None:
    """
    The file is closed when `close` returns, though the thread that wrote to it still runs.

    Without a GIL a statement is finalized by the thread that prepared it, when that comes to it. As long as one is
    left, SQLite keeps the file open behind the back of a connection that was closed; a fork would inherit it.
    """
    written, end = threading.Event(), threading.Event()

    def work() -> None:
        try:
            writer.write(Batch([row("a")]))
        finally:
            written.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    written.wait()
    try:
        writer.close()

        assert not os.path.exists(f"{path}-wal")
    finally:
        end.set()
        thread.join()


def test_close_writes_the_wal_back(writer: Writer, path: Path) -> None:
    """
    After close there is one file, with everything in it, beside its lock; a second close does nothing.
    """
    write(writer, "one")
    writer.close()
    writer.close()

    assert ["app-log.db", "app-log.db-lock"] == sorted(os.listdir(path.parent))
    write(writer, "two")
    assert ["one", "two"] == messages(writer)


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: path.symlink_to(path.parent / "no" / "where")]
)
def test_open_first_says_what_will_not_work(writer: Writer, path: Path, make: Callable[[Path], None]) -> None:
    """
    What will never work is an error at the first open, with the path and what to do.
    """
    try:
        make(path)
    except OSError:
        pytest.skip("no symbolic links")
    with pytest.raises(LogFileError, match="make it and its folder writable, or choose another"):
        writer.open_first()


def test_a_file_that_may_only_be_read_is_refused(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    SQLite opens a file that may only be read all the same, when its folder may be written to: every commit would fail.
    """
    write(writer, "one")
    writer.close()
    path.chmod(0o444)
    if os.access(path, os.W_OK):  # root may do everything
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(LogFileError, match=r"Permission denied.*make it and its folder writable, or choose another"):
        writer.open_first()

    assert ["app-log.db", "app-log.db-lock"] == sorted(os.listdir(path.parent))
    path.chmod(0o600)


def test_a_file_that_is_moved_aside_while_it_is_looked_at_is_not_refused(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of several processes that start on a corrupt log, one moves it aside while the others ask whether they may write.
    """
    path.write_bytes(b"")

    def access(name: str, *_: object, **__: object) -> bool:
        os.unlink(name)
        return False

    monkeypatch.setattr(os, "access", access)
    writer.open_first()
    write(writer, "one")

    assert ["one"] == messages(writer)


def test_a_file_that_is_refused_late_leaves_no_lock_open(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When it is found out under the lock that the file is not ours, the lock is closed.
    """

    def refuses() -> None:
        raise ForeignFileError

    monkeypatch.setattr(writer, "open", refuses)
    with pytest.raises(ForeignFileError):
        writer.open_first()

    assert None is writer._lock._descriptor


def test_open_first_lets_pass_what_may_pass(writer: Writer, path: Path) -> None:
    """
    A lock of another process is no reason not to start: the file is opened with the first commit.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        writer.open_first()
        assert None is writer.connection
        other.execute("ROLLBACK")
    write(writer, "later")

    assert ["later"] == messages(writer)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE])
def test_open_first_lets_a_full_disk_pass(writer: Writer, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """
    What the system has no room for now, it may have room for later: that is no reason not to start either.
    """
    real = os.open

    def fails(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", fails)
    writer.open_first()
    assert None is writer.connection
    monkeypatch.undo()
    write(writer, "later")

    assert ["later"] == messages(writer)


@pytest.mark.parametrize("name", ["LOCK", "RDLOCK", "CHECKRESERVEDLOCK", "SHMLOCK", "SHMMAP"])
def test_a_file_system_without_locks_is_refused(writer: Writer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """
    To SQLite that is an error of the disk, but no write will ever succeed there.
    """

    def fails(_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_IOERR_{name}")
        raise error

    monkeypatch.setattr(writer, "_prepare", fails)
    with pytest.raises(LogFileError, match="make it and its folder writable, or choose another"):
        writer.open_first()


@pytest.mark.parametrize("mode", ["delete", "off"])
def test_no_wal(writer: Writer, said: Said, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """
    Where there is no WAL, the log is kept in the mode there is, and the operator is told once.
    """

    class NoWal(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = WAL", f"journal_mode = {mode}"), *args)

    connect = sqlite3.connect
    monkeypatch.setattr(
        writer_module.sqlite3, "connect", lambda *args, **options: connect(*args, factory=NoWal, **options)
    )
    write(writer, "one")
    writer.close()
    write(writer, "two")

    assert ["one", "two"] == messages(writer)
    assert [f"no WAL on this file system, journal mode {mode!r}: readers and the writer wait for each other"] == said


# Rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count", [0, 1, 2, 3, 4, 8, 9, 25, 63, 64, 65, 160, 400, 1_000, 1_001, 2_499, 2_500, 2_501, 2_731, 5_001, 10_000]
)
def test_every_row_once_and_in_order(writer: Writer, count: int) -> None:
    """
    Batches of any length are written whole, each row once, in order, with rising ids without a hole.
    """
    outcome = writer.write(Batch(numbered(0, count)))
    assert not outcome.refused

    assert [(number + 1, f"{number}") for number in range(count)] == read(
        writer, "SELECT id, message FROM logs ORDER BY id"
    )


@pytest.mark.parametrize("sizes", [[60_000] * 70, [10, 60_000, 10] * 20, [900_000, 10, 10], [2_000_000], [500_000] * 5])
def test_large_rows(writer: Writer, sizes: list[int]) -> None:
    """
    Rows of any size are written whole, each once, in order.
    """
    rows = [row(f"{number}:" + "x" * size) for number, size in enumerate(sizes)]
    writer.write(Batch(rows))

    assert [item[MESSAGE] for item in rows] == messages(writer)


def test_statements_are_few_and_bounded(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A full batch is two statements, with `extra` in each row too; what is bound to a statement is 1 MiB at most.
    """
    bound: list[int] = []
    insert = Writer._insert

    def counted(self: Writer, connection: sqlite3.Connection, rows: Sequence[PackedRow]) -> None:
        bound.append(sum(len(item[MESSAGE]) for item in rows))
        insert(self, connection, rows)

    monkeypatch.setattr(Writer, "_insert", counted)
    writer.write(Batch(numbered(0, 10_000)))
    assert 2 == len(bound)

    bound.clear()
    writer.write(Batch(numbered(0, 10_000, customer="c-17")))
    assert 2 == len(bound)

    bound.clear()
    writer.write(Batch([row("x" * 60_000)] * 100))
    assert 1024 * 1024 >= max(bound)
    assert 100 * 60_000 == sum(bound)


def test_statement_fits_sqlite() -> None:
    """
    No statement has more parameters than SQLite takes.
    """
    assert 1 == min(writer_module._STATEMENT_ROWS)
    assert sorted(writer_module._STATEMENT_ROWS) == list(writer_module._STATEMENT_ROWS)
    for length in writer_module._STATEMENT_ROWS:
        if length <= writer_module._MOST_ROWS_UNSHARED:
            assert length * len(row()) == writer_module._statement(length).count("?") <= 32_766
        if length >= writer_module._FEWEST_ROWS_SHARED:
            assert length * 4 + length // 10 * 9 == writer_module._shared_statement(length).count("?") <= 32_766


def rows_of(contexts: int, count: int) -> list[PackedRow]:
    """
    Make rows of so many contexts, which differ in one field each, and take turns without order.
    """
    rows = []
    for number in range(count):
        context = number if number < contexts else number * 7 % contexts
        field = ("lineno", "levelno", "thread", "threadName", "taskName", "exc_text", "stack_info")[context % 7]
        value = context if field in {"lineno", "levelno", "thread"} else f"{context}"
        extra = {"number": number} if number % 9 == 1 else {}
        rows.append(row(f"{number}", **{field: value}, created=1_000.0 + number, **extra))
    return rows


@pytest.mark.parametrize("gaps", [[], [1, 150, 450]], ids=["whole", "with gaps"])
@pytest.mark.parametrize(
    ("contexts", "count"),
    [(1, 160), (16, 101), (16, 160), (17, 160), (40, 400), (41, 400), (30, 1_000), (500, 5_000), (501, 5_001)],
)
def test_rows_that_share_are_written_like_others(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch, contexts: int, count: int, gaps: list[int]
) -> None:
    """
    Whatever many rows share, and however many do, each row is written with its own fields, in order.
    """
    batch = Batch(rows_of(contexts, count), [gap(position) for position in gaps if position < count])
    monkeypatch.delattr(Writer, "_insert_each")  # the way of those that are refused would hide what goes wrong
    found = []
    for fewest in (writer_module._FEWEST_ROWS_SHARED, 1_000_000):
        monkeypatch.setattr(writer_module, "_FEWEST_ROWS_SHARED", fewest)
        writer = make_writer()
        if fewest == 1_000_000:
            os.unlink(writer.path)
        writer.open()
        assert writer.connection is not None
        writer.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)  # some systems take more
        outcome = writer.write(batch)
        assert not outcome.refused
        found.append([read(writer, "SELECT * FROM logs ORDER BY id"), read(writer, "SELECT * FROM volume")])
        writer.close()

    assert found[1] == found[0]


def test_rows_that_share_are_looked_up(writer: Writer) -> None:
    """
    SQLite takes the rows in order and looks each one's context up; it does not go through all of them for each row.
    """
    writer.open()
    sql = writer_module._shared_statement(5_000)
    plan = read(writer, f"EXPLAIN QUERY PLAN {sql}", *[None] * sql.count("?"))

    assert "AUTOMATIC COVERING INDEX" in plan[-1][-1]


@pytest.mark.parametrize(("length", "expected"), [(600, [5_000]), (700, [2_500, 2_500])])
def test_long_texts_are_not_shared(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, length: int, expected: list[int]
) -> None:
    """
    Rows share a statement while the texts that they share take 64 KiB: more of it SQLite may take to a temporary file.
    """
    shared: list[int] = []
    parameters = Writer._shared_parameters

    def counted(self: Writer, connection: sqlite3.Connection, rows: Sequence[PackedRow], length: int) -> Any:
        found = parameters(self, connection, rows, length)
        if found is not None:
            shared.append(len(rows))
        return found

    monkeypatch.setattr(Writer, "_shared_parameters", counted)
    texts = ["é" * (length // 2) + f"{number}" if number % 50 == 0 else None for number in range(5_000)]
    writer.write(Batch([row(exc_text=text) for text in texts]))

    assert expected == shared
    assert [(text,) for text in texts] == read(writer, "SELECT exc_text FROM records ORDER BY id")


@pytest.mark.parametrize("field", [row_module.CREATED, MESSAGE, row_module.EXC_TEXT, row_module.ATTRIBUTES])
def test_one_row_that_sqlite_refuses_among_many_that_share(writer: Writer, field: int) -> None:
    """
    A row that SQLite does not take costs that row only, among many rows that share a statement too.
    """
    bad = list(row("bad"))
    bad[field] = None if field == row_module.CREATED else "\ud800"
    rows = numbered(0, 400)
    rows[123] = tuple(bad)  # type: ignore[call-overload]

    outcome = writer.write(Batch(rows))
    assert {123} == outcome.refused
    assert [f"{number}" for number in range(400) if number != 123] == messages(writer)


HOSTILE = ["'); DROP TABLE records;--", '"', "`", "?1", ":name", "%s", "\\", "]]>", "\u202e", "'" * 100, "é日😀"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_values_are_bound(writer: Writer, text: str) -> None:
    """
    No text is ever taken for SQL, wherever it stands, in rows and in gaps.
    """
    texts = dict.fromkeys(
        ["processName", "threadName", "taskName", "exc_text", "stack_info", "name", "pathname", "funcName"], text
    )
    item = row(text, k=text, **texts)
    writer.write(Batch([item], [gap(1, key=("queue_full", 20, text))]))

    assert [(text,) * 9] == read(
        writer,
        "SELECT message, process_name, thread_name, task_name, exc_text, stack_info, logger, pathname, func FROM logs "
        "WHERE json_extract(attributes, '$.k') = ?",
        text,
    )
    assert [(text,)] == read(writer, "SELECT logger FROM drops")
    assert [(text,)] == read(writer, "SELECT logger FROM volume WHERE logger = ? AND records = 1 AND dropped = 1", text)


def test_time_to_the_microsecond(writer: Writer) -> None:
    """
    Times are kept to the microsecond, rounded, and before 1970 too.
    """
    times = [0.0, 1_763_891_000.123456, 1_763_891_000.9999996, -1.5, -0.000001, 0.1, 8.9e12]
    writer.write(Batch([row(created=time) for time in times]))

    assert [(round(time * 1e6),) for time in times] == read(writer, "SELECT created_us FROM records ORDER BY id")


# What many rows share ------------------------------------------------------------------------------------------------


def test_sources_and_processes_stand_once(make_writer: Callable[[], Writer]) -> None:
    """
    A call site and a process stand in the file once, over batches and writers.
    """
    for _ in range(2):
        with contextlib.closing(make_writer()) as writer:
            for _ in range(2):
                rows = numbered(0, 20, process=7) + numbered(0, 20, process=7, lineno=8, threadName="other")
                writer.write(Batch(rows))
            assert [("app", "/src/app.py", 7, "main"), ("app", "/src/app.py", 8, "main")] == read(
                writer, "SELECT logger, pathname, lineno, func FROM sources ORDER BY lineno"
            )
            assert [(7, "MainProcess", 0, "")] == read(writer, "SELECT pid, name, started_us, program FROM processes")


def test_more_sources_in_a_statement_than_are_remembered(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Ids that were forgotten in the middle of a statement are found again, and every row has its own source.
    """
    monkeypatch.setattr(writer_module, "_CACHED_IDS", 5)
    names = [f"app.{number % 10}" for number in range(200)]
    for _ in range(2):
        writer.write(Batch([row(name, name=name) for name in names]))

    assert [(name, name) for name in names * 2] == read(writer, "SELECT logger, message FROM logs ORDER BY id")


def test_process_of_ours(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of this process the start and the program are kept, and never its arguments, which hold secrets.
    """
    monkeypatch.setattr(writer_module.sys, "argv", ["/usr/bin/shop", "--password=hunter2"])
    with freeze_time("2025-11-23T10:00:00Z"):
        fresh = Writer(writer.path)
    write(fresh, "hello")
    found = read(fresh, "SELECT pid, name, started_us, program FROM processes")
    fresh.close()

    assert [(os.getpid(), "MainProcess", 1_763_892_000_000_000, "shop")] == found


def test_levels_that_a_program_named(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The name that a program gave a level is kept once; a level without one has none.
    """
    monkeypatch.setitem(logging._levelToName, 25, "NOTICE\0")
    for _ in range(2):
        writer.write(Batch([row(levelno=level) for level in (25, 26, 25, -1)]))

    assert [(25, "NOTICE\\x00")] * 2 == read(writer, "SELECT levelno, level FROM logs WHERE levelno = 25 LIMIT 2")
    assert [(25, "NOTICE\\x00")] == read(writer, "SELECT * FROM levels WHERE levelno NOT IN (10, 20, 30, 40, 50)")


def test_more_levels_than_are_remembered(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A program that makes up levels does not make the writer grow.
    """
    monkeypatch.setattr(writer_module, "_CACHED_IDS", 5)
    for start in range(0, 50, 5):
        writer.write(Batch([row(levelno=start + number) for number in range(5)]))

    assert 10 >= len(writer._levels)


def test_more_sources_than_are_remembered(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Made-up logger names do not make the writer grow, and every row has its own name.
    """
    monkeypatch.setattr(writer_module, "_CACHED_IDS", 100)
    rows = [row(f"{number}", name=f"app.{number}") for number in range(1_000)]
    for start in range(0, 1_000, 10):
        writer.write(Batch(rows[start : start + 10]))

    assert 120 >= len(writer._sources)
    assert [(f"app.{number}", f"{number}") for number in range(1_000)] == read(
        writer, "SELECT logger, message FROM logs ORDER BY id"
    )


# Gaps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([100], "G0 1 2 3 4"),
        ([102], "0 1 G2 3 4"),
        ([105], "0 1 2 3 4G"),
        ([100, 105], "G0 1 2 3 4G"),
        ([101, 101, 103], "0 GG1 2 G3 4"),
        ([7, 104], "G0 1 2 3 G4"),
        ([102, 999], "0 1 G2 3 4G"),
    ],
)
def test_gaps_stand_where_they_are(writer: Writer, positions: list[int], expected: str) -> None:
    """
    The warning of a gap is the record after the last row before the gap.
    """
    writer.write(Batch(numbered(0, 5), [gap(position) for position in positions], first=100))
    found = "".join("G" if message.startswith("dropped") else message for message in messages(writer))

    assert expected.replace(" ", "") == found


@pytest.mark.parametrize("before", [0, 3])
def test_gap_without_rows(writer: Writer, before: int) -> None:
    """
    A gap is written without any row too, after whatever the file ends with.
    """
    writer.write(Batch(numbered(0, before)))
    writer.write(Batch([], [gap(before), gap(before)], first=before))

    assert [(before,), (before + 1,)] == read(writer, "SELECT after_id FROM drops ORDER BY id")
    assert [(before + 1,), (before + 2,)] == read(writer, "SELECT id FROM logs WHERE level = 'WARNING' ORDER BY id")


def test_gap_in_a_pruned_file(writer: Writer) -> None:
    """
    After everything was pruned, a gap stands after the last id that was given.
    """
    writer.write(Batch(numbered(0, 5)))
    read(writer, "DELETE FROM records")
    writer.write(Batch([], [gap(5)], first=5))

    assert [(5,)] == read(writer, "SELECT after_id FROM drops")


def test_ledger(writer: Writer) -> None:
    """
    The ledger says after which record, since and until when, why, from which logger and level, and how many.
    """
    first = gap(2, 5, since=100.5)
    first.drops["bytes_full", 40, "db"] = [7, 101.25, 102.0]
    writer.write(Batch(numbered(0, 3), [first]))

    assert [
        (2, 100_500_000, 101_500_000, "queue_full", "app", 20, 5),
        (2, 101_250_000, 102_000_000, "bytes_full", "db", 40, 7),
    ] == read(writer, "SELECT after_id, since_us, until_us, cause, logger, levelno, count FROM drops ORDER BY id")
    assert [(os.getpid(),)] * 2 == read(writer, "SELECT pid FROM drops JOIN processes ON processes.id = process_id")


@pytest.mark.parametrize("since", [float("nan"), float("inf"), 1e300, "now", None])
@pytest.mark.parametrize("levelno", [2**63, -(2**70), 20])
@pytest.mark.parametrize("logger", ["a\0b", "\ud800", "x" * 5_000])
def test_gap_of_a_record_that_was_never_cleaned(writer: Writer, since: Any, levelno: int, logger: str) -> None:
    """
    A refused record was never made a row; what it says about itself cannot stop the log, as it once did for ever.
    """
    bad = gap(1, key=("queue_full", levelno, logger))
    bad.drops["queue_full", levelno, logger] = [3, since, since]
    writer.write(Batch(numbered(0, 2), [bad]))

    assert [(0, 0, 3)] == read(writer, "SELECT since_us, until_us, count FROM drops")
    assert 3 == len(messages(writer))


def test_warning_has_the_sum(writer: Writer) -> None:
    """
    The warning of several reports put together has the sum of their drops.
    """
    first, second = gap(1, 5), gap(1, 7)
    first.add(second)
    writer.write(Batch(numbered(0, 1), [first]))

    assert [(12,)] == read(writer, "SELECT json_extract(attributes, '$.dropped') FROM logs WHERE level = 'WARNING'")
    assert [(12,)] == read(writer, "SELECT sum(count) FROM drops")


# Volume --------------------------------------------------------------------------------------------------------------


def test_volume(writer: Writer) -> None:
    """
    Volume adds up what was written and what was dropped, by hour, logger and level, over batches.
    """
    for _ in range(2):
        rows = [
            *numbered(0, 10, created=HOUR - 0.000001),
            *numbered(10, 20, created=HOUR),
            *numbered(20, 30, created=HOUR, lineno=8),
            *numbered(30, 40, created=HOUR, name="db"),
            *numbered(40, 50, created=HOUR, levelno=40),
        ]
        writer.write(Batch(rows, [gap(25, 3, since=2 * HOUR), gap(30, 4, since=HOUR)]))

    assert [
        (0, "app", 20, 20, 20, 0),
        (0, "sqlite_log_handler", 30, 4, None, 0),
        (3600, "app", 20, 40, 80, 8),
        (3600, "app", 40, 20, 40, 0),
        (3600, "db", 20, 20, 40, 0),
        (7200, "app", 20, 0, 0, 6),
    ] == read(
        writer,
        "SELECT hour, logger, levelno, records, CASE logger WHEN 'sqlite_log_handler' THEN NULL ELSE bytes END, "
        "dropped FROM volume ORDER BY hour, logger, levelno",
    )


def test_volume_counts_bytes(writer: Writer) -> None:
    """
    The bytes of volume are those of UTF-8 in message, traceback, stack and attributes.
    """
    rows = [row("é日😀", exc_text="é", stack_info="日", k="😀"), row("x" * 100), row("")]
    writer.write(Batch(rows))
    texts = [text for item in rows for text in (item[MESSAGE], *item[row_module.EXC_TEXT :]) if text]

    assert [(3, sum(len(text.encode()) for text in texts))] == read(writer, "SELECT records, bytes FROM volume")


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_volume_of_what_was_written_only(writer: Writer, bad: int) -> None:
    """
    Volume counts what stands in the file: not the row that was refused.
    """
    refuse(writer)
    rows = numbered(0, 5)
    rows[bad] = row("bad")
    writer.write(Batch(rows, [gap(2)]))

    assert read(writer, "SELECT count(*) FROM logs WHERE logger = 'app'") == read(
        writer, "SELECT sum(records) FROM volume WHERE logger = 'app'"
    )
    assert [(4, 1)] == read(writer, "SELECT records, dropped FROM volume WHERE logger = 'app'")


# All or nothing ------------------------------------------------------------------------------------------------------

TABLES = ["records", "sources", "processes", "drops", "volume", "sqlite_sequence"]


def refuse(writer: Writer) -> None:
    """
    Have SQLite refuse any row whose message is "bad".
    """
    writer.open()
    read(
        writer,
        "CREATE TRIGGER refuse BEFORE INSERT ON records WHEN NEW.message = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END",
    )


def everything(path: Path) -> dict[str, list[Any]]:
    """
    Read all tables, as another program would.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def test_locked_file(writer: Writer, path: Path) -> None:
    """
    While another process writes, nothing is written, and nothing is left open; afterwards the same batch goes in once.
    """
    write(writer, "before")
    before = everything(path)
    batch = Batch([row("new", name="new")], [gap(1)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                writer.write(batch)
            assert writer.connection is not None
            assert not writer.connection.in_transaction
        other.execute("ROLLBACK")

    assert before == everything(path)
    writer.write(batch)
    assert ["before", "new", "dropped at 1"] == messages(writer)


def test_full_disk(writer: Writer, path: Path) -> None:
    """
    When the disk is full, nothing of the batch is written; when there is room again, all of it, once, with its ids.
    """
    write(writer, "before")
    before = everything(path)
    batch = Batch([row(f"{number}" + "x" * 500, name=f"new.{number}") for number in range(200)], [gap(200)])
    read(writer, f"PRAGMA max_page_count = {pragma(writer, 'page_count') + 8}")
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            writer.write(batch)
        assert writer.connection is not None
        assert not writer.connection.in_transaction
        assert before == everything(path)

    read(writer, "PRAGMA max_page_count = 100000")
    writer.write(batch)
    assert [("app", "before"), *((item[SOURCE][0], item[MESSAGE]) for item in batch.rows)] == read(
        writer, "SELECT logger, message FROM logs WHERE levelno = 20 ORDER BY id"
    )
    assert [(number,) for number in range(1, 203)] == read(writer, "SELECT id FROM logs ORDER BY id")
    assert [("ok",)] == read(writer, "PRAGMA integrity_check")


def test_ids_of_a_failed_transaction_are_none(writer: Writer) -> None:
    """
    Ids that were learnt in a transaction that failed are forgotten: they may be another source's by now.
    """
    writer.open()
    read(writer, f"PRAGMA max_page_count = {pragma(writer, 'page_count')}")
    large = [row("x" * 50_000, name="lost", threadName="lost")]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        writer.write(Batch(large))
    read(writer, "PRAGMA max_page_count = 100000")
    writer.write(Batch([row("first", name="other", process=7)]))
    writer.write(Batch(large))

    assert [("other", 7), ("lost", os.getpid())] == read(writer, "SELECT logger, process FROM logs ORDER BY id")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_interrupted_commit(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """
    Whatever comes in between, nothing of the batch is written and no transaction stays open.
    """
    write(writer, "before")
    before = everything(path)

    def interrupted(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):  # noqa: PT012 - the patch is part of it
        patch.setattr(Writer, "_insert_gap", interrupted)
        writer.write(Batch([row("new", name="new")], [gap(1)]))

    assert writer.connection is not None
    assert not writer.connection.in_transaction
    assert before == everything(path)
    write(writer, "after")
    assert ["before", "after"] == messages(writer)


def test_lock_is_taken_at_the_beginning(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody else can write from the first statement on: a lock that is taken later may be refused half-way.

    That holds for the second transaction too, in which a batch with a bad row is written.
    """
    write(writer, "before")
    refuse(writer)
    insert = Writer._write
    refused: list[str] = []

    def watched(self: Writer, *args: Any) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                refused.append(str(error))
        insert(self, *args)

    monkeypatch.setattr(Writer, "_write", watched)
    outcome = writer.write(Batch([row("now"), row("bad")]))
    assert {1} == outcome.refused

    assert ["database is locked"] * 2 == refused


@pytest.mark.parametrize("bad", [[0], [2], [4], [0, 4], [1, 2, 3], [0, 1, 2, 3, 4]])
def test_bad_row_costs_that_row_only(writer: Writer, bad: list[int]) -> None:
    """
    Rows that SQLite refuses are named, and the rest is written in order, gaps where they are.
    """
    refuse(writer)
    rows = [row("bad" if number in bad else f"{number}") for number in range(5)]

    outcome = writer.write(Batch(rows, [gap(0), gap(3), gap(5)]))
    assert set(bad) == outcome.refused

    kept = [f"{number}" for number in range(5) if number not in bad]
    found = messages(writer)
    assert kept == [message for message in found if not message.startswith("dropped")]
    assert ("dropped at 0", "dropped at 5") == (found[0], found[-1])
    assert len([number for number in range(3) if number not in bad]) + 1 == found.index("dropped at 3")
    assert list(range(1, len(found) + 1)) == [number for (number,) in read(writer, "SELECT id FROM logs ORDER BY id")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (row_module.LEVELNO, 2**63),
        (MESSAGE, "\ud800"),
        (MESSAGE, None),
        (row_module.CREATED, float("nan")),
        (MESSAGE, object()),
    ],
    ids=["integer", "surrogate", "null", "time", "object"],
)
def test_row_that_breaks_the_contract(writer: Writer, field: int, value: Any) -> None:
    """
    A row that should not exist costs itself, should a defect of ours make one.
    """
    broken: list[Any] = list(row())
    broken[field] = value

    outcome = writer.write(Batch([row("0"), tuple(broken), row("2")]))  # type: ignore[list-item]
    assert {1} == outcome.refused
    assert ["0", "2"] == messages(writer)


# Several processes, and what others do to the file -------------------------------------------------------------------


def test_two_writers_of_a_new_file(path: Path) -> None:
    """
    Writers that begin one file at the same moment both write to it, and neither takes it for a foreign one.
    """
    for attempt in range(10):
        target = path.with_name(f"{attempt}.db")
        barrier = threading.Barrier(4)
        faults: list[BaseException] = []

        def run(name: str, target: Path = target, barrier: threading.Barrier = barrier) -> None:
            writer = Writer(str(target), busy_timeout=5)
            try:
                barrier.wait()
                start = 0
                while start < 5:
                    # What is locked now may be free at the next tick.
                    with contextlib.suppress(sqlite3.OperationalError, TimeoutError):
                        writer.write(Batch([row(f"{start}", name=name, process=7)]))
                        start += 1
            except BaseException as error:  # noqa: BLE001 - shown by the main thread
                faults.append(error)  # noqa: B023 - joined within the loop
            finally:
                writer.close()

        threads = [threading.Thread(target=run, args=(f"app.{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == faults
        with contextlib.closing(sqlite3.connect(target)) as connection:
            for number in range(4):
                assert [(f"{count}",) for count in range(5)] == connection.execute(
                    "SELECT message FROM logs WHERE logger = ? ORDER BY id", (f"app.{number}",)
                ).fetchall()
            assert [(4, 1)] == connection.execute(
                "SELECT (SELECT count(*) FROM sources), (SELECT count(*) FROM processes)"
            ).fetchall()
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


def test_schema_that_another_process_made_meanwhile(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Between the look at an empty file and the lock another process may make the schema: then it is used.
    """
    first, second = make_writer(), make_writer()
    real = writer_module.is_ours
    calls = 0

    def is_ours(connection: sqlite3.Connection, path: str) -> bool:
        nonlocal calls
        calls += 1
        found = real(connection, path)
        if calls == 1:
            assert not found
            second.open()
        return found

    monkeypatch.setattr(writer_module, "is_ours", is_ours)
    write(first, "first")
    write(second, "second")

    assert ["first", "second"] == messages(first) == messages(second)


@POSIX
def test_nothing_is_written_without_the_lock(make_writer: Callable[[], Writer], path: Path) -> None:
    """
    While somebody else holds the lock beside the file, nobody commits or makes tables, and a new handler starts anyway.

    Two processes that commit and checkpoint at the same moment can corrupt the file with most versions of SQLite.
    """
    waiting, lock = make_writer(), WriteLock(str(path))
    with lock.hold(0):
        waiting.open_first()
        with pytest.raises(TimeoutError, match=path.name):
            write(waiting, "one")
        assert not path.exists()
        # Not the last one to close, so it need not wait.
        waiting.close()
    lock.close()
    write(waiting, "two")

    assert ["two"] == messages(waiting)


def test_a_child_never_closes_the_connection_of_its_parent(
    make_writer: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A connection that a forked child has inherited is not closed when nobody has it any more, not even at the end.

    Its close may write back and delete a WAL that the parent goes on using, or wait for a lock that a thread held.
    """

    class Connection(sqlite3.Connection):
        pass

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Connection, **options))
    writer = make_writer()
    write(writer, "one")
    assert writer.connection is not None
    inherited = weakref.ref(writer.connection)
    writer.forget(lost=False, interrupted=False)
    gc.collect()

    found = inherited()
    assert found is not None
    assert [("one",)] == found.execute("SELECT message FROM logs").fetchall()
    found.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_does_not_share_the_lock(writer: Writer, path: Path) -> None:
    """
    A child that was forked in the middle of a commit of its parent waits for the lock like everybody else.

    The open file is inherited, and with it the lock: whoever has it open has the lock already.
    """
    with writer._lock.hold(0):
        child = os.fork()
        if child == 0:
            writer.forget(lost=False, interrupted=False)
            try:
                write(writer, "child")
            except TimeoutError:
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)

    assert 0 == os.waitstatus_to_exitcode(status)


@POSIX
def test_the_lock_is_held_from_open_to_close(
    make_writer: Callable[[], Writer], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Every statement that writes to the file, and the checkpoint of `close`, come while the lock is held.
    """
    lock, free = WriteLock(str(path)), []

    def look() -> None:
        with contextlib.suppress(TimeoutError), lock.hold(0):
            free.append(True)

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> Any:
            look()
            return super().execute(*arguments)

        def close(self) -> None:
            look()
            super().close()

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Watched, **options))
    writer = make_writer()
    writer.open_first()
    write(writer, "one")
    os.rename(path, f"{path}.1")
    write(writer, "two")
    writer.close()
    lock.close()

    assert [] == free


def test_nothing_is_made_beside_a_file_that_is_refused(writer: Writer, path: Path) -> None:
    """
    A file that is not ours is left as it is, and so is its folder.
    """
    path.write_text("a text of more than nothing")
    with pytest.raises(ForeignFileError):
        writer.open_first()

    assert [path.name] == os.listdir(path.parent)


def test_writers_take_turns(make_writer: Callable[[], Writer]) -> None:
    """
    Two writers on one file share its sources, and the ids of both rise together.
    """
    first, second = make_writer(), make_writer()
    for number in range(3):
        write(first, f"first {number}")
        write(second, f"second {number}")

    assert [f"{name} {number}" for number in range(3) for name in ("first", "second")] == messages(first)
    assert [(1,)] == read(first, "SELECT count(*) FROM sources")


@POSIX
@pytest.mark.parametrize("checkpointed", [False, True])
def test_file_that_was_renamed(writer: Writer, path: Path, checkpointed: bool) -> None:
    """
    After logrotate the old file has all of its rows, those in the WAL too, and a new file is begun.
    """
    write(writer, "0", "1")
    if checkpointed:
        read(writer, "PRAGMA wal_checkpoint(PASSIVE)")
        write(writer, "2")
    before = messages(writer)
    path.rename(path.with_name("rotated.db"))
    write(writer, "after")

    assert ["after"] == messages(writer)
    with contextlib.closing(sqlite3.connect(path.with_name("rotated.db"))) as connection:
        assert before == [message for (message,) in connection.execute("SELECT message FROM logs ORDER BY id")]
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


@POSIX
@pytest.mark.parametrize("ends", [[""], ["", "-wal", "-shm"], ["-wal"], ["-wal", "-shm"]], ids="+".join)
def test_file_that_was_unlinked(writer: Writer, path: Path, ends: list[str]) -> None:
    """
    After an unlink of the file or of its -wal, what is written stands in a file that can be found.
    """
    write(writer, "before")
    for end in ends:
        os.unlink(f"{path}{end}")
    write(writer, "after")
    found = messages(writer)
    writer.close()

    assert "after" == found[-1]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert found == [message for (message,) in connection.execute("SELECT message FROM logs ORDER BY id")]
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


def make_database(path: Path, mode: str) -> None:
    """
    Make another program's database.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE precious (x)")
        connection.execute("INSERT INTO precious VALUES ('gold')")
        connection.commit()


@POSIX
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_file_that_was_replaced_by_a_foreign_one(writer: Writer, path: Path, mode: str, read_meanwhile: bool) -> None:
    """
    A foreign file that comes in place of the log is refused and untouched: SQLite would apply the old WAL to it.
    """
    write(writer, *map(str, range(100)))
    foreign = path.with_name("foreign.db")
    make_database(foreign, mode)
    before = foreign.read_bytes()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        if read_meanwhile:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM records").fetchone()
            write(writer, "more")
        foreign.replace(path)
        for _ in range(3):
            with pytest.raises(ForeignFileError):
                writer.write(Batch([row("after")]))
    writer.close()

    assert before == path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("gold",)] == connection.execute("SELECT x FROM precious").fetchall()


@POSIX
def test_file_that_was_replaced_by_a_text(writer: Writer, path: Path) -> None:
    """
    A text file that comes in place of the log is refused and untouched.
    """
    write(writer, *map(str, range(100)))
    text = path.with_name("text")
    text.write_text("precious\n" * 1_000)
    text.replace(path)
    with pytest.raises(ForeignFileError):
        writer.write(Batch([row("after")]))
    writer.close()

    assert "precious\n" * 1_000 == path.read_text()


@POSIX
def test_file_that_was_replaced_by_another_log(writer: Writer, path: Path) -> None:
    """
    A log that comes in place of the log, as when a backup is put back, keeps its rows and gets the new ones.
    """
    other = Writer(f"{path}.other")
    write(other, "other")
    other.close()
    write(writer, *map(str, range(100)))
    os.replace(f"{path}.other", path)
    write(writer, "after")

    assert ["other", "after"] == messages(writer)
    assert [("ok",)] == read(writer, "PRAGMA integrity_check")


# A link to the file --------------------------------------------------------------------------------------------------


def names_in(folder: Path) -> list[str]:
    """
    Name the files of a folder.
    """
    return sorted(os.listdir(folder))


def stored(path: Path) -> list[str]:
    """
    Read the messages of a file that is whole, as another program would.
    """
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return [message for (message,) in connection.execute("SELECT message FROM logs ORDER BY id")]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """
    Hold a snapshot, so that the WAL cannot be written back.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        yield


@pytest.fixture
def folders(path: Path) -> tuple[Path, Path]:
    """
    Two folders for the files to which a link leads.
    """
    for name in ("1", "2"):
        path.with_name(name).mkdir()
    return path.with_name("1"), path.with_name("2")


@POSIX
def test_a_link_to_a_file_that_is_to_be_made(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """
    A link that leads to no file yet stands for one that only its owner can read, with all that belongs to it.

    SQLite made the target, and did so for everybody to read: by the link there was something at the path already.
    """
    before = os.umask(0o022)
    try:
        write(make_writer(switch(path, folders[0] / "log.db")), "secret")
    finally:
        os.umask(before)

    assert dict.fromkeys(["log.db", "log.db-lock", "log.db-shm", "log.db-wal"], 0o600) == {
        name: os.stat(folders[0] / name).st_mode & 0o777 for name in names_in(folders[0])
    }
    assert ["1", "2", "link.db"] == names_in(path.parent)


@POSIX
@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_a_link_that_is_switched(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], said: Said, read_meanwhile: bool
) -> None:
    """
    When the link leads to another file, the next commit goes there; the first one has all of its rows, those in a WAL
    that a reader holds too.
    """
    first, second = (folder / "log.db" for folder in folders)
    writer = make_writer(switch(path, first))
    write(writer, "0")
    with reading(first) if read_meanwhile else contextlib.nullcontext():
        write(writer, "1")
        switch(path, second)
        write(writer, "2")
        assert ["0", "1"] == stored(first)
    write(writer, "3")

    assert ["0", "1"] == stored(first)
    assert ["2", "3"] == stored(second)
    assert str(second) == writer.pruner.wal.path
    assert [] == said


@POSIX
def test_a_switched_link_and_the_lock(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each of two files to which a link leads in turn is opened, written and closed under its own lock.
    """
    first, second = (folder / "log.db" for folder in folders)
    locks = {str(file): WriteLock(str(file)) for file in (first, second)}
    free = []

    class Watched(sqlite3.Connection):
        def __init__(self, name: str, **options: Any) -> None:
            self.name = name
            self.look()
            super().__init__(name, **options)

        def look(self) -> None:
            if self.name in locks:  # the look at a file before it is opened is read-only
                with contextlib.suppress(TimeoutError), locks[self.name].hold(0):
                    free.append(self.name)

        def execute(self, *arguments: Any) -> Any:
            self.look()
            return super().execute(*arguments)

        def close(self) -> None:
            self.look()
            super().close()

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Watched, **options))
    writer = make_writer(switch(path, first))
    writer.open_first()
    write(writer, "one")
    switch(path, second)
    write(writer, "two")
    switch(path, first)
    writer.close()
    for lock in locks.values():
        lock.close()

    assert [] == free
    monkeypatch.undo()
    assert [["one"], ["two"]] == [stored(first), stored(second)]


@POSIX
def test_a_switched_link_waits_for_its_turn(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """
    While somebody else writes to the file to which the link leads now, nothing is written, to neither.
    """
    first, second = (folder / "log.db" for folder in folders)
    writer = make_writer(switch(path, first))
    write(writer, "one")
    switch(path, second)
    with contextlib.closing(WriteLock(str(second))) as lock, lock.hold(0), pytest.raises(TimeoutError):
        write(writer, "two")
    assert not second.exists()
    write(writer, "two")

    assert [["one"], ["two"]] == [stored(first), stored(second)]


@POSIX
def test_a_link_that_is_switched_while_the_file_is_opened(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A link that is switched just when its file was opened is followed one commit later.
    """
    first, second = (folder / "log.db" for folder in folders)
    other = make_writer(second)
    write(other, "other")
    writer = make_writer(switch(path, first))
    connect = sqlite3.connect

    def switched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        switch(path, second)
        return connect(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", switched)
        write(writer, "one")
    write(writer, "two")

    assert [["one"], ["other", "two"]] == [stored(first), stored(second)]


@POSIX
def test_a_link_that_is_switched_to_a_pipe(make_writer: Callable[..., Writer], path: Path) -> None:
    """
    What is no regular file is refused when it comes later too, and nothing is made beside it.

    SQLite wrote its first page to a device, such as /dev/null, at each attempt. (The test has a pipe, which nobody
    misses.)
    """
    writer = make_writer(switch(path, path))
    write(writer, "one")
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    switch(path, pipe)
    for _ in range(2):
        with pytest.raises(OSError, match="Not a regular file"):
            write(writer, "two")

    assert ["app-log.db", "app-log.db-lock", "link.db", "pipe"] == sorted(os.listdir(path.parent))
    switch(path, path)
    write(writer, "two")
    assert ["one", "two"] == messages(writer)


@POSIX
def test_a_file_that_is_moved_and_its_link_after_it(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """
    A file that is moved to another folder, and the link with it, takes its rows along, and is written to there.

    It is the same file, so only its old place shows that SQLite goes on in a -wal that nobody will read.
    """
    first, second = (folder / "log.db" for folder in folders)
    writer = make_writer(switch(path, first))
    write(writer, "one")
    first.rename(second)
    switch(path, second)
    write(writer, "two")
    writer.close()

    assert ["one", "two"] == stored(second)
    assert 0 == os.stat(folders[0] / "log.db-wal").st_size


@POSIX
def test_a_file_that_is_replaced_behind_a_link(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], said: Said
) -> None:
    """
    A backup that is put in the place of the link's target, while a reader holds the WAL, keeps its rows: the WAL of the
    file that was there is kept beside it.

    It was looked for beside the link, so SQLite applied it to the backup, and 3,000 rows were gone.
    """
    target, backup = folders[0] / "log.db", folders[1] / "backup.db"
    with contextlib.closing(make_writer(backup)) as other:
        write(other, "backup")
    writer = make_writer(switch(path, target))
    write(writer, "0")
    with reading(target):
        write(writer, *map(str, range(1, 100)))
        backup.replace(target)
        write(writer, "after")
    writer.close()

    assert ["backup", "after"] == stored(target)
    assert ["log.db", "log.db-lock"] == [name for name in names_in(folders[0]) if ".left-" not in name]
    (line,) = said
    (left,) = (name for name in names_in(folders[0]) if ".left-" in name)
    assert line.endswith(f"which is kept as {str(folders[0] / left)!r}")


@POSIX
def test_the_budget_behind_a_link(make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]) -> None:
    """
    The WAL that counts for `max_bytes` is the one beside the link's target.

    It was looked for beside the link, so a reader that stayed let it grow without end, and nobody was told.
    """
    target = folders[0] / "log.db"
    writer = make_writer(switch(path, target), Limits(max_bytes=2_000_000))

    def write_much() -> None:
        for _ in range(100):
            write(writer, *["m" * 400] * 100)

    write(writer, "0")
    with reading(target), pytest.raises(NoRoom, match="a reader holds a snapshot"):
        write_much()

    assert 2_200_000 > sum(os.stat(f"{target}{end}").st_size for end in ("", "-wal"))


@POSIX
@freeze_time("2025-11-23T10:00:00Z")
def test_a_corrupt_file_behind_a_link_that_is_being_read(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path]
) -> None:
    """
    With a target that is moved aside go its -wal and its -shm, or SQLite would apply that WAL to the new file.
    """
    target = folders[0] / "log.db"
    writer = make_writer(switch(path, target))
    write(writer, "0")
    with reading(target):
        write(writer, "1")
        writer._move_aside("as if it were")

    aside = "log.db.corrupt-20251123T100000Z"
    assert ["log.db-lock", aside, f"{aside}-shm", f"{aside}-wal"] == names_in(folders[0])


def test_a_corrupt_file_behind_a_link(
    make_writer: Callable[..., Writer], path: Path, folders: tuple[Path, Path], said: Said
) -> None:
    """
    A corrupt target is moved aside where it is, and the link stays and leads to the new file.
    """
    target = folders[0] / "log.db"
    link = switch(path, target)
    fill(target)
    overwrite(target, range(2, target.stat().st_size // 4096 + 1))
    write_at_last(make_writer(link))

    assert str(target) == os.readlink(link)
    assert "after" == stored(target)[-2]
    assert 1 == len(corrupt_files(target))
    assert ["1", "2", "link.db"] == names_in(path.parent)
    assert f"moved aside as '{target}.corrupt-" in said[0]


# Corrupt files -------------------------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    """
    Make a log with something on every page.
    """
    with contextlib.closing(Writer(str(path))) as writer:
        rows = [row(f"{number}" * 50, name=f"app.{number}", levelno=number % 3) for number in range(500)]
        writer.write(Batch(rows, [gap(500)]))


def overwrite(path: Path, pages: Sequence[int]) -> bytes:
    """
    Overwrite pages, counted from 1, and return what the file is now.
    """
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
    return path.read_bytes()


def rootpage(path: Path, name: str) -> int:
    """
    Find the first page of a table or an index.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return int(page)


def write_at_last(writer: Writer) -> None:
    """
    Write as the listener does, which tries again at the next tick.
    """
    for _ in range(2):
        with contextlib.suppress(sqlite3.DatabaseError):
            writer.write(Batch([row("after", levelno=0)], [gap(1)]))
            return
    writer.write(Batch([row("after", levelno=0)], [gap(1)]))


def corrupt_files(path: Path) -> list[bytes]:
    """
    Read what was moved aside.
    """
    return [
        (path.parent / name).read_bytes()
        for name in sorted(os.listdir(path.parent))
        if ".corrupt-" in name and not name.endswith(("-wal", "-shm"))
    ]


def test_corrupt_file_is_moved_aside(writer: Writer, path: Path, said: Said) -> None:
    """
    A log of ours that is corrupt beyond its first page is moved aside as it is, a new one is begun, and it is said.
    """
    fill(path)
    corrupt = overwrite(path, range(2, path.stat().st_size // 4096 + 1))
    write_at_last(writer)
    write(writer, "more")

    assert ["after", "dropped at 1", "more"] == messages(writer)
    # The first 100 bytes have counters, which any open may raise.
    assert [corrupt[100:]] == [kept[100:] for kept in corrupt_files(path)]
    assert 1 == len(said)
    assert "moved aside as" in said[0]


@pytest.mark.parametrize(
    "name",
    [
        "records",
        "records_created_us",
        "sources",
        "sqlite_autoindex_sources_1",
        "processes",
        "volume",
        "sqlite_sequence",
    ],
)
def test_corrupt_page(writer: Writer, path: Path, said: Said, name: str) -> None:
    """
    Whichever page is found corrupt, when opening or when writing, the log goes on, and nothing is deleted.
    """
    fill(path)
    page = rootpage(path, name)
    overwrite(path, [page])
    write_at_last(writer)

    assert ["after", "dropped at 1"] == messages(writer)[-2:]
    (kept,) = corrupt_files(path)
    assert b"\xff" * 4096 == kept[(page - 1) * 4096 : page * 4096]
    assert 1 == len(said)


def test_handler_starts_on_a_corrupt_file(writer: Writer, path: Path) -> None:
    """
    A program whose log is corrupt starts all the same.
    """
    fill(path)
    overwrite(path, range(2, path.stat().st_size // 4096 + 1))
    writer.open_first()
    write_at_last(writer)

    assert "after" == messages(writer)[-2]


@freeze_time("2025-11-23T10:00:00Z")
def test_two_corrupt_files_of_one_second(writer: Writer, path: Path) -> None:
    """
    A second file that is moved aside within the same second does not replace the first.
    """
    corrupt = []
    for _ in range(2):
        fill(path)
        corrupt.append(overwrite(path, [rootpage(path, "sources"), len(corrupt) + 20]))
        write_at_last(writer)
        writer.close()
        path.unlink()

    # The first 100 bytes have counters, which any open may raise.
    assert {kept[100:] for kept in corrupt} == {kept[100:] for kept in corrupt_files(path)}


@POSIX
def test_corrupt_file_that_another_process_moved_aside(
    make_writer: Callable[[], Writer], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever finds the corruption second does not move the new file aside that the first has begun.

    With the lock beside the file they take turns; it is where there is no such lock that they can meet.
    """
    monkeypatch.setattr("sqlite_log_handler._logfile.write_lock.fcntl", None)
    fill(path)
    overwrite(path, [rootpage(path, "sqlite_autoindex_sources_1")])
    first, second = make_writer(), make_writer()
    first.open()
    second.open()
    real = second.open

    def late() -> None:
        # The first one is faster, after the second has looked for the file.
        real()
        monkeypatch.setattr(second, "open", real)
        write_at_last(first)

    monkeypatch.setattr(second, "open", late)
    write_at_last(second)
    write(first, "first")

    assert ["after", "dropped at 1", "after", "dropped at 1", "first"] == messages(first)
    assert 1 == len(corrupt_files(path))


def test_forgotten_connection_is_not_closed(writer: Writer, path: Path) -> None:
    """
    A forked child starts with no connection, no ids and its own start, and leaves its parent's connection open.
    """
    write(writer, "parent")
    connection = writer.connection
    assert connection is not None
    with freeze_time("2025-11-23T10:00:00Z"):
        writer.forget(lost=False, interrupted=False)

    assert (None, {}, {}) == (writer.connection, writer._sources, writer._processes)
    assert 1_763_892_000.0 == writer._started
    assert [(1,)] == connection.execute("SELECT count(*) FROM records").fetchall()
    connection.close()
    write(writer, "child")
    assert ["parent", "child"] == messages(writer)


def test_rows_of_a_thread_that_is_not_the_writers(writer: Writer) -> None:
    """
    Which thread commits may change from call to call.
    """
    write(writer, "main")
    thread = threading.Thread(target=write, args=(writer, "other"))
    thread.start()
    thread.join()

    assert ["main", "other"] == messages(writer)
    assert row()[THREAD][3] == read(writer, "SELECT DISTINCT thread_name FROM logs")[0][0]
