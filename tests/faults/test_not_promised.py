"""
What the reliability page says is not promised, shown as it is.
"""

from __future__ import annotations

import contextlib
import logging
import logging.config
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sqlite_log_handler import ForeignFileError
from sqlite_log_handler._logfile import locks
from sqlite_log_handler._write import listener as listener_module
from sqlite_log_handler._write.log_file import LogFile


def change(path, *statements):
    """Have another program change a log."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def messages(path, order="id"):
    """Return the messages that the view shows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [message for (message,) in connection.execute(f"SELECT message FROM logs ORDER BY {order}")]


def test_a_file_with_two_names(make_handler, logger, path, tmp_path):
    """SQLite makes a -wal for each name of a file, so what one name wrote last may be missing under the other."""
    first = make_handler()
    logger.addHandler(first)
    logger.info("one")
    assert first.flush()
    os.link(path, tmp_path / "other.db")
    found = []
    with contextlib.suppress(sqlite3.Error):  # without the WAL of the first name it is no whole database
        found = messages(tmp_path / "other.db")
    assert ["one"] != found


def test_a_handler_is_made_under_the_lock_of_logging(path, logging_tree, monkeypatch):
    """While `dictConfig` makes a handler, whose file is opened, a thread that asks for a new logger waits."""
    found = []

    def take_lock():
        if taken := locks.LOGGING_LOCK.acquire(blocking=False):
            locks.LOGGING_LOCK.release()
        found.append(taken)

    def take_lock_elsewhere(_=None):
        other = threading.Thread(target=take_lock)
        other.start()
        other.join()

    monkeypatch.setattr(LogFile, "open_first", take_lock_elsewhere)
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": str(path)}},
    })  # fmt: skip

    take_lock_elsewhere()

    assert [False, True] == found


def test_a_record_after_shutdown_in_an_outage(run, contents):
    """A record that comes after `logging.shutdown`, while the file is locked, is lost, and no line says so."""
    run(
        """
        at_exit = __import__("sqlite_log_handler")._write.process.at_exit
        def late():
            logger.info("late 0")
            assert (1, 1) == (handler.dropped_total, handler.stats().queued), handler.stats()
            other.close()
        for callback in (logging.shutdown, at_exit): atexit.unregister(callback)
        for callback in (late, logging.shutdown, at_exit): atexit.register(callback)
        handler = SQLiteHandler(path, close_timeout=0)
        logger.addHandler(handler)
        own = logging.getLogger("sqlite_log_handler")
        own.addHandler(logging.NullHandler())
        own.propagate = False
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        logger.info("queued 0")
        """,
        stderr=r"[^\n]*: closed with 1 records dropped \(close_timeout\)[^\n]*\n",
    )

    assert {} == contents().numbers


def test_two_interrupts_at_exit(run, contents):
    """What the second interrupt at exit finds queued is lost, and no line says so: it ends `logging.shutdown`."""
    run(
        """
        def interrupt(*_): raise KeyboardInterrupt
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("queued 0")
        handler.listener.close = handler.listener.flush = interrupt
        """,
        stderr="(?!.*closed with).*KeyboardInterrupt.*KeyboardInterrupt.*",
    )

    assert {} == contents().numbers


def test_an_adapter_of_the_program(run, contents):
    """An adapter for `str` that the program registers gets the texts of the log, on the thread that commits."""
    run(
        """
        handler = SQLiteHandler(path)
        logger.addHandler(handler)
        threads = set()
        sqlite3.register_adapter(str, lambda text: threads.add(threading.current_thread()) or text)
        logger.error("program 1")
        while not handler.stats().written: pass
        assert threads and threading.main_thread() not in threads, threads
        """
    )

    assert {"program": [1]} == contents().numbers


@pytest.mark.privileged
@pytest.mark.skipif(not hasattr(os, "chroot") or os.geteuid() != 0, reason="needs the right to change the root")
def test_after_a_chroot(run, tmp_path):
    """A handler that was made before a chroot looks for its file below the new root, and makes it there."""
    root = tmp_path / "root"
    (root / str(tmp_path)[1:]).mkdir(parents=True)
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("program 1")
        assert handler.flush()
        os.chroot(arguments[0]); os.chdir("/")
        logger.info("program 2")
        assert handler.flush(), handler.stats().last_error
        """,
        root,
    )

    below = next(root.rglob("*.db"))
    assert ["program 2"] == messages(below)


def test_the_newest_row_was_deleted(make_handler, logger, path):
    """The next program gives the id of the newest row again when a person has deleted that row, and no mark has it."""
    for message in ("one", "two", "three"):
        if message == "three":
            change(path, "DELETE FROM records WHERE id = 2")
        handler = make_handler()
        logger.addHandler(handler)
        logger.info(message)
        logger.removeHandler(handler)
        handler.close()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [(1, "one"), (2, "three")] == connection.execute("SELECT id, message FROM records").fetchall()


def test_lines_of_sources_were_deleted(make_handler, logger, path):
    """A row whose line in `sources` a person has deleted is in no view."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(2):
        if number:
            change(path, "PRAGMA foreign_keys = OFF", "DELETE FROM sources")
        logger.info("hello")
        assert handler.flush()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert (2,) == connection.execute("SELECT count(*) FROM records").fetchone()
    assert 2 > len(messages(path))


def test_the_tables_were_changed(make_handler, logger, path):
    """Commits fail while a table has another name, and go on when it has its name again."""
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    logger.info("one")
    assert handler.flush()
    change(path, "PRAGMA legacy_alter_table = ON", "ALTER TABLE records RENAME TO mine")
    logger.info("two")
    assert not handler.flush(0)
    assert "records" in (handler.stats().last_error or "")
    change(path, "PRAGMA legacy_alter_table = ON", "ALTER TABLE mine RENAME TO records")
    assert handler.flush()

    assert ["one", "two"] == messages(path)


def test_an_index_with_a_function_of_another_program(make_handler, logger, path):
    """Commits fail while an index calls a function that the program does not have, and go on when it was dropped."""
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.create_function("mine", 1, len, deterministic=True)
        connection.execute("CREATE INDEX odd ON records (mine(message))")
    logger.info("one")
    assert not handler.flush(0)
    assert "mine()" in (handler.stats().last_error or "")
    change(path, "DROP INDEX odd")
    assert handler.flush()

    assert ["one"] == messages(path)


def test_a_view_of_a_newer_sqlite(make_handler, logger, path, capfd):
    """A log with a view that SQLite cannot parse is moved aside with its rows, and the next ones are in a new log."""
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    logger.info("one")
    assert handler.flush()
    change(
        path,
        "PRAGMA writable_schema = ON",
        "INSERT INTO sqlite_master VALUES ('view', 'odd', 'odd', 0, 'CREATE VIEW odd IN THE FUTURE')",
        "PRAGMA schema_version = 1000",
    )
    logger.info("two")
    handler.flush()
    assert handler.flush()

    assert ["two"] == messages(path)
    (aside,) = path.parent.glob("*.corrupt-*Z")
    change(aside, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'odd'")
    assert ["one"] == messages(aside)
    assert "(odd)" in capfd.readouterr().err


def test_the_pages_were_made_larger(make_handler, logger, path):
    """With pages of 64 KiB the empty tables of a log take more than the least `max_bytes`, and no record has room."""
    make_handler().close()
    change(path, "PRAGMA journal_mode = DELETE", "PRAGMA page_size = 65536", "VACUUM")
    handler = make_handler(max_bytes="1MiB")
    logger.addHandler(handler)
    logger.info("one")
    assert handler.flush()

    assert {"disk_budget": 1} == handler.stats().dropped_by_cause


def test_the_first_page_was_overwritten(make_handler, logger, path):
    """A log whose first page another program has overwritten is refused, and left as it is."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("one")
    handler.close()
    logger.removeHandler(handler)
    with path.open("r+b") as file:
        file.write(b"x" * 2_048)
    before = path.read_bytes()

    with pytest.raises(ForeignFileError):
        make_handler()
    assert before == path.read_bytes()


def test_a_log_that_was_cut(run, path, contents):
    """The rows of a young log are in its -wal, and so not in the copy that logrotate makes before it cuts the log."""
    run(
        """
        import shutil
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("n 1")
        assert handler.flush()
        shutil.copyfile(path, f"{path}.1")
        os.truncate(path, 0)
        logger.info("n 2")
        """,
        stderr=".*cut to nothing while it was open.*",
    )

    assert ({}, {"n": [2]}) == (contents(f"{path}.1").numbers, contents().numbers)


def test_a_wal_that_was_cut(run, path):
    """Rows that are committed before the file is opened again may be lost, when another program cuts the -wal."""
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("program 1")
        assert handler.flush()
        os.truncate(f"{path}-wal", 0)
        logger.info("program 2")
        handler.flush(0)
        os._exit(0)
        """,
        stderr=".*",
    )

    assert set(messages(path)) < {"program 1", "program 2"}


def test_a_shm_that_was_cut(run):
    """A process that reads a -shm which another program has cut is killed by the system."""
    run(
        """
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("program 1")
        assert handler.flush()
        os.truncate(f"{path}-shm", 0)
        logger.info("program 2")
        handler.flush()
        """,
        code=-7,
        stderr=".*",
    )


def test_a_wal_that_was_removed_twice(make_handler, path):
    """A row from between two removals of the -wal is lost, when another handler has not logged since the first one."""

    def log(handler, message, timeout=None):
        handler.handle(logging.makeLogRecord({"name": "shop", "levelno": 20, "msg": message}))
        return handler.flush(timeout)

    first, second = make_handler(), make_handler()
    log(first, "0")
    log(second, "1")
    os.unlink(f"{path}-wal")
    log(first, "between")
    os.unlink(f"{path}-wal")
    assert not log(second, "2", 0.1)  # it cannot be written as long as the other handler is idle
    first.close()
    second.close()

    assert ["0", "1", "2"] == messages(path)
    assert (2, 0) == (first.stats().written, first.stats().dropped_total)


def test_a_file_in_the_place_of_a_killed_log(make_handler, logger, path, tmp_path):
    """The -wal of a killed process is applied to the file that is put in the place of its log."""
    for name in ("other", "killed"):
        handler = make_handler(flush_interval=3600)
        logger.addHandler(handler)
        logger.info(name)
        assert handler.flush()
        copied = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal")}
        logger.removeHandler(handler)
        handler.close()
        path.rename(tmp_path / name)
    (tmp_path / "other").rename(path)
    Path(f"{path}-wal").write_bytes(copied["-wal"])

    assert ["killed"] == messages(path)


def test_a_backup_that_is_copied_over_an_open_log(make_handler, logger, path, tmp_path):
    """What was logged since a backup is lost when that is copied over the log in place: SQLite does not notice."""
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    for number in range(300):
        logger.info("%d %s", number, "x" * 300)
        if not number:
            assert handler.flush()
            change(path, f"VACUUM INTO '{tmp_path / 'backup.db'}'")
    assert handler.flush()
    handler.listener.committer.writer.file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(tmp_path / "backup.db", path)
    logger.info("last")
    assert handler.flush()
    logger.removeHandler(handler)
    handler.close()

    found = []
    with contextlib.suppress(sqlite3.Error):
        found = messages(path)
    assert (301, 0) == (handler.stats().written, handler.stats().dropped_total)
    assert 301 > len(found)


def test_a_trigger_of_a_person_exceeds_max_bytes(make_handler, logger, path):
    """A trigger that changes pages all over a table of its own makes the WAL larger than `max_bytes` allows."""
    handler = make_handler(max_bytes="1MiB", flush_interval=3600)
    logger.addHandler(handler)
    logger.info("first")
    assert handler.flush()
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    change(
        path,
        "CREATE TABLE mine (n, padding)",
        f"INSERT INTO mine {numbers} SELECT i, zeroblob(1900) FROM n",
        "CREATE TRIGGER mine_too AFTER INSERT ON records BEGIN UPDATE mine SET n = n + 1; END",
    )
    logger.info("second")
    assert handler.flush()

    assert 1.1 * 1024 * 1024 < sum(os.stat(f"{path}{end}").st_size for end in ("", "-wal"))


def test_rows_of_a_replaced_handler_come_late(make_handler, logger, path, monkeypatch):
    """The rows of a handler that `dictConfig` replaced in an outage may stand behind those of the new one."""
    old = make_handler(flush_interval=3600, close_timeout=60)
    logger.addHandler(old)
    waits, goes_on = threading.Event(), threading.Event()
    old.listener.committer._sleep = lambda _: (waits.set(), goes_on.wait())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as locked:
        locked.execute("BEGIN EXCLUSIVE")
        logger.info("old")
        thread = old.listener._thread
        monkeypatch.setattr(listener_module, "LOCKED_PATIENCE", 0.001)
        with locks.LOGGING_LOCK:
            old.close()
        waits.wait()
    logger.removeHandler(old)
    new = make_handler()
    logger.addHandler(new)
    logger.info("new")
    assert new.flush()
    goes_on.set()
    thread.join()

    assert ["new", "old"] == messages(path)


def test_rows_that_meet_a_closed_handler_come_late(make_handler, logger, path, monkeypatch):
    """Of what reaches a handler after its `close`, only the first record is committed before its tick or the exit."""
    old = make_handler(flush_interval=3600)
    logger.addHandler(old)
    old.close()
    committed, tick = threading.Event(), old.listener.handle
    monkeypatch.setattr(old.listener, "handle", lambda item: (tick(item), committed.set()))
    logger.info("first")
    assert committed.wait(60)
    logger.info("old")
    logger.removeHandler(old)
    new = make_handler()
    logger.addHandler(new)
    logger.info("new")
    # As `dictConfig` does.
    monkeypatch.setattr(logging, "_handlerList", [known for known in logging._handlerList if known() is not old])
    logging.shutdown(logging._handlerList)
    assert ["first", "new"] == messages(path)
    old.close()

    assert ["first", "new", "old"] == messages(path)


def test_two_handlers_on_one_file(make_handler, path):
    """Two handlers of one process on one file have their rows in order each for itself; `created_us` has them all."""
    one, two = handlers = [make_handler(flush_interval=3600) for _ in range(2)]
    for number in range(4):
        handlers[number % 2].handle(logging.makeLogRecord({"msg": f"{number}", "created": number}))
    assert two.flush()
    assert one.flush()

    assert ["1", "3", "0", "2"] == messages(path)
    assert ["0", "1", "2", "3"] == messages(path, "created_us")


def test_rows_that_went_into_a_removed_file(make_handler, logger, path, tmp_path, monkeypatch):
    """The rows of a commit in whose middle the file is moved go with it, and the next ones into a new file."""
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    logger.info("one")
    assert handler.flush()
    file = handler.listener.committer.writer.file
    look = file.open

    def moved():
        connection = look()
        for end in ("", "-wal", "-shm"):
            shutil.move(f"{path}{end}", f"{tmp_path / 'gone'}{end}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(file, "open", moved)
        logger.info("two")
        assert handler.flush()
    logger.info("three")
    assert handler.flush()

    assert (["one", "two"], ["three"]) == (messages(tmp_path / "gone"), messages(path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the locks are those of POSIX")
def test_killed_in_a_commit_beside_a_child_of_c_code(start, make_handler, logger, contents):
    """
    A child that C code forked, and that has not logged since, keeps the lock of its parent, which was killed.

    The others said that the dead process was writing, and nothing that led to the child.
    """
    killed = start(
        """
        import ctypes
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("killed 1")
        assert handler.flush()
        pid = ctypes.PyDLL(None).fork()
        if not pid:
            signal.pause()
        print(pid, flush=True)
        with handler.listener.committer.writer.file._lock.hold(1):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    child = int(killed.stdout.readline())
    killed.wait()
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    logger.info("other 1")
    assert not handler.flush(0)
    assert f"process {killed.pid} (not found here) is writing to" in (handler.stats().last_error or "")
    os.kill(child, signal.SIGKILL)
    assert handler.flush(60)

    assert {"killed": [1], "other": [1]} == contents().numbers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the locks are those of POSIX")
@pytest.mark.parametrize(
    ("link", "read"),
    [
        ("", "shutil.copy(path, other)"),
        ("other.2026-11-30.jsonl.gz", "LogReader(link)"),
        ("other.db-journal", "LogReader(other)"),
    ],
)
def test_a_program_that_copies_its_own_log(run, link, read):
    """
    When a program copies its own log, the system drops the locks of SQLite, and another may take the file.

    So it does when a hard link to it stands where the program reads an archive, or the journal of another log.
    """
    run(
        f"""
        import contextlib, shutil, subprocess
        from sqlite_log_handler import LogFileError, LogReader
        # The bytes that each connection locks, see https://sqlite.org/src/file?name=src/os.h
        take = "import sys; from fcntl import *; lockf(open(sys.argv[1], 'r+b'), LOCK_EX | LOCK_NB, 510, 0x40000002)"
        def is_free():
            return 0 == subprocess.run([sys.executable, "-c", take, path], stderr=subprocess.DEVNULL).returncode
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("program 1")
        assert handler.flush()
        assert not is_free()
        other, link = (os.path.join(os.path.dirname(path), name) for name in ("other.db", {link!r}))
        if {bool(link)}:
            SQLiteHandler(other).close()
            os.link(path, link)
            assert not is_free()
        with contextlib.suppress(LogFileError):
            {read}
        assert is_free()
        """
    )


@pytest.fixture
def sqlite():
    """Return the path of the library that Python's sqlite3 module has loaded."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text(encoding="utf-8").splitlines() if maps.exists() else []
    if not (found := [line.split()[-1] for line in lines if "/libsqlite3" in line]):
        pytest.skip("needs an SQLite in a library of its own, and a system that tells where")
    return found[0]


@pytest.mark.parametrize(("another", "kept"), [(False, [1, 2, 3]), (True, [1, 3])])
def test_another_copy_of_sqlite_in_the_program(run, contents, tmp_path, sqlite, another, kept):
    """
    When another copy of SQLite in the process closes the log in the middle of a commit, that may be lost.

    The locks are those of the process, so that copy takes itself for the last one, and removes the -wal. If it has
    opened the log again when the next commit comes, the handler says so. The copy that Python uses knows better.
    """
    run(
        """
        import ctypes
        sqlite = ctypes.CDLL(arguments[0])
        def opened():
            connection = ctypes.c_void_p()
            assert 0 == sqlite.sqlite3_open(path.encode(), ctypes.byref(connection))
            assert 0 == sqlite.sqlite3_exec(connection, b"SELECT id FROM records", None, None, None)
            return connection
        def look_and_read():
            connection = look()
            assert 0 == sqlite.sqlite3_close(opened())
            return connection
        handler = SQLiteHandler(path, flush_interval=3600)
        logger.addHandler(handler)
        logger.info("n 1")
        assert handler.flush()
        file = handler.listener.committer.writer.file
        look, file.open = file.open, look_and_read
        logger.info("n 2")
        assert handler.flush()
        file.open = look
        opened()
        logger.info("n 3")
        assert handler.flush()
        stats = handler.stats()
        assert (3, 0, None) == (stats.written, stats.dropped_total, stats.last_error), stats
        """,
        shutil.copy(sqlite, tmp_path / "another.so") if another else sqlite,
        stderr=r"[^\n]*: its -wal was removed and made anew[^\n]*\n" if another else "",
    )

    assert {"n": kept} == contents().numbers


@pytest.mark.skipif(not shutil.which("flock"), reason="needs the command flock")
@pytest.mark.parametrize("lock", [["flock"], []], ids=["under the lock", "without"])
def test_a_copy_of_an_open_log(make_handler, logger, path, tmp_path, lock):
    """
    A copy of an open log that another process makes is whole under the lock: nobody writes the WAL back meanwhile.

    Without it, the file is copied as it was before that, and the -wal as it was afterwards.
    """
    handler = make_handler(flush_interval=3600)
    connection = handler.listener.committer.writer.file.connection
    logger.addHandler(handler)

    def log(first, end):
        for number in range(first, end):
            logger.info("%d %s", number, "x" * 300)
        return handler.flush(0)

    assert log(0, 300)
    copy = tmp_path / "copy.db"
    script = 'cp "$1" "$2"; echo; read line; cp "$1-wal" "$2-wal"'
    command = [*lock, *([f"{path}-lock"] if lock else []), "sh", "-c", script, "-", path, copy]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as copying:
        copying.stdout.readline()
        assert log(300, 600) != bool(lock)
        if not lock:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert log(600, 601)
        copying.communicate(b"\n")
    waited = handler.stats().queued
    assert handler.flush()

    found = []
    with contextlib.suppress(sqlite3.DatabaseError):
        found = [int(message.split()[0]) for message in messages(copy)]
    assert (300, list(range(300))) == (waited, found) if lock else list(range(601)) != found
    assert list(range(600 + (not lock))) == [int(message.split()[0]) for message in messages(path)]


def test_another_module_in_the_place_of_sqlite3(run):
    """A program that puts another module in the place of `sqlite3` cannot import this package, but for before that."""
    run(
        """
        import importlib, types
        assert SQLiteHandler
        for name in [name for name in sys.modules if name.startswith("sqlite_log_handler")]:
            del sys.modules[name]
        sys.modules["sqlite3"] = types.ModuleType("sqlite3")
        with contextlib.suppress(AttributeError):
            importlib.import_module("sqlite_log_handler").SQLiteHandler
            raise SystemExit("it was imported")
        """
    )


@pytest.mark.skipif(sys.version_info < (3, 12) or not hasattr(os, "fork"), reason="Python warns from 3.12 on")
def test_the_first_record_brings_a_thread(run):
    """From its first record on the program has a second thread, and `os.fork` warns of that."""
    run(
        """
        import warnings
        def warned_by_fork():
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                pid = os.fork()
                if not pid: os._exit(0)
                os.waitpid(pid, 0)
            return [warning.category for warning in found]
        logger.addHandler(SQLiteHandler(path))
        assert [] == warned_by_fork()
        logger.info("n 0")
        assert [DeprecationWarning] == warned_by_fork()
        """
    )
