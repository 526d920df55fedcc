"""
Times at which nothing can be written: what waits, what is said, and that writing resumes by itself.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys

import pytest
from listeners import check_recovery, ticks

from sqlite_log_handler import LogFileError, LogReader, UnreadableFileError
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.connect import connect_read_only

CODES = {
    "busy": sqlite3.SQLITE_BUSY,
    "full": sqlite3.SQLITE_FULL,
    "ioerr": sqlite3.SQLITE_IOERR,
    "nomem": sqlite3.SQLITE_NOMEM,
    "readonly": sqlite3.SQLITE_READONLY,
    "cantopen": sqlite3.SQLITE_CANTOPEN,
}


@pytest.mark.parametrize("code", [*CODES, "corrupt"])
def test_the_nth_statement_fails(make, clock, log, contents, monkeypatch, path, code):
    """
    When any statement fails once, with any code, all rows are in the file in the end, in order, and once.

    The loop of SQLite's own tests: the first statement fails, then the second, and so on until a run has no failure.
    """
    left = [0]
    number = CODES.get(code, sqlite3.SQLITE_CORRUPT)

    class Faulty(sqlite3.Connection):
        def execute(self, *arguments):
            left[0] -= 1
            if left[0] == 0:
                if self.in_transaction and arguments[0] == "COMMIT":
                    super().execute("ROLLBACK")  # as SQLite does for FULL, IOERR and NOMEM
                error = sqlite3.OperationalError if code != "corrupt" else sqlite3.DatabaseError
                raised = error("injected")
                raised.sqlite_errorcode = number
                raise raised
            return super().execute(*arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "factory": Faulty}))
    handler, nth, total = make(capacity=50, reserve=0, fair_share=1), 0, 0
    while True:
        nth += 1
        left[0] = 0
        handler.close()  # so that opening the file is among what fails
        left[0] = nth
        log(10)
        ticks(handler, clock, 5)
        failed = left[0] <= 0
        left[0] = 0
        ticks(handler, clock, 2)
        total += 10
        assert (total, total, 0) == (handler.stats().seen, handler.stats().written, handler.stats().queued)
        if not failed:
            break

    files = [path, *(file for file in path.parent.glob("*.corrupt-*") if file.name[-4:] not in {"-wal", "-shm"})]
    stored = [number for file in files for number in contents(file).numbers.get("n", [])]
    assert 15 <= nth
    assert list(range(total)) == sorted(stored)


@pytest.mark.parametrize("step", [1, 2])
def test_a_look_that_fails_leaves_no_connection(path, make_handler, monkeypatch, step):
    """
    When the look at an existing file fails in its first steps, its connection is closed.

    The garbage collector closes it some time later, on any thread, and with it goes every POSIX lock that SQLite
    believes to have on the file; from Python 3.13 on there is a ResourceWarning too.
    """
    make_handler().close()
    closed, left = [], [step]

    class Faulty(sqlite3.Connection):
        def execute(self, *arguments):
            left[0] -= 1
            if left[0] == 0:
                raise sqlite3.OperationalError("injected")
            return super().execute(*arguments)

        def close(self):
            closed.append(True)
            super().close()

    connect, made = sqlite3.connect, []

    def keep(*args, **options):
        made.append(connect(*args, **{**options, "factory": Faulty}))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", keep)
    with pytest.raises(sqlite3.OperationalError):
        connect_read_only(str(path))
    known = list(closed)
    for connection in made:
        connection.close()

    assert [True] == known


SYSTEM_CALLS = """
    import ctypes, errno
    from sqlite_log_handler._write.listener import RecordListener
    RecordListener._start_thread = lambda self, thread: None  # this thread commits
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    code, lasting = getattr(errno, arguments[0]), int(arguments[1])
    now = [1000.0]
    def sleep(seconds): now[0] += seconds
    nth = 0
    while True:
        nth += int(arguments[2])
        name = f"{path}-{nth}"
        shim.fault_arm(name.encode(), nth, code, lasting)
        handler = None
        try:
            handler = SQLiteHandler(name, flush_interval=0.1)
        except Exception as error:
            assert type(error).__name__ == "LogFileError", repr(error)
            shim.fault_disarm()
            failed = True
            handler = SQLiteHandler(name, flush_interval=0.1)
        listener = handler.listener
        listener.committer.now, listener.committer._sleep = lambda: now[0], sleep
        logger.handlers[:] = [handler]
        for number in range(30):
            logger.info("n %d", number)
            if number % 10 == 9:
                connection = listener.committer.writer.file.connection
                if connection: connection.execute("PRAGMA wal_autocheckpoint = 2")
                for _ in range(4): listener.handle(None); now[0] += 0.1
                stats = handler.stats()
                assert number + 1 == stats.seen == stats.queued + stats.written, stats
        fired = shim.fault_disarm()
        if not fired and lasting: fired = -1
        for _ in range(52): listener.handle(None); now[0] += 0.1
        stats = handler.stats()
        assert (30, 0) == (stats.written, stats.queued), (nth, stats)
        handler.close()
        connection = sqlite3.connect(name)
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        found = [text for text, in connection.execute("SELECT message FROM logs WHERE logger = 'program' ORDER BY id")]
        assert [f"n {number}" for number in range(30)] == found, (nth, found)
        connection.close()
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError): os.unlink(name + end)
        if fired <= 0:
            break
    print(nth)
"""


@pytest.mark.parametrize("lasting", [0, 1], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EMFILE"])
def test_the_nth_system_call_fails(run, shim, error, lasting, long):
    """
    Whichever write, sync, truncation or open of the file's fails, once or from there on, no row is missing or doubled.

    SQLite takes each of these calls to fail and tests itself so; between it and the file stand a moved WAL, a half
    made schema and a connection that is no good any more, which are ours.
    """
    step = 1 if long or (error, lasting) == ("EIO", 0) else 5
    # The lines of outages: of 1 s on the fake clock and more.
    out = run(
        SYSTEM_CALLS, error, lasting, step, env={"LD_PRELOAD": shim}.items(), stderr="(sqlite_log_handler: [^\n]*\n)*"
    )

    assert 20 <= int(out)


def test_locked_by_another_process(make, clock, log, contents, start, said):
    """While another process holds the database, records wait; then they are written in order, with what was dropped."""
    handler = make(capacity=30, reserve=0, fair_share=1)
    log(5)
    ticks(handler, clock)
    other = start(
        """
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()
        """
    )
    assert "locked\n" == other.stdout.readline()
    for _ in range(20):
        log(10)
        ticks(handler, clock)
    assert (30, 170) == (handler.stats().queued, handler.dropped_total)
    assert "locked" in handler.stats().last_error
    assert 2.0 == pytest.approx(handler.stats().last_commit_age, abs=0.2)
    other.stdin.close()
    other.wait()

    found = check_recovery(handler, clock, log, contents, said)
    assert list(range(35)) == found.numbers["n"]
    assert 170 == found.dropped


@pytest.mark.parametrize(("error", "nth"), [("EROFS", 1), ("ENOSPC", 2)], ids=["read-only", "full"])
def test_a_folder_for_temporary_files_that_takes_none(run, shim, tmp_path, error, nth):
    """
    Rows are written although SQLite's folder for temporary files is read-only, as in a container, or full.

    Rows of another process were in the file, and the times of these lay between theirs; or a few hundred loggers were
    counted in `volume` again. SQLite took the journal of such a statement to a temporary file, and where that failed,
    each commit of these rows failed, until the program ended and all that waited was lost.
    """
    out = run(
        """
        import ctypes, errno
        from sqlite_log_handler._write import volume
        shim, (error, nth) = ctypes.CDLL(os.environ["LD_PRELOAD"]), arguments
        shim.fault_arm(os.path.join(os.environ["SQLITE_TMPDIR"], "etilqs").encode(), int(nth), getattr(errno, error), 1)
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0)
        def commit(names, times):
            for name, seconds in zip(names, times):
                record = logging.LogRecord(name, 20, "a.py", 1, "order paid", (), None)
                record.created = seconds
                handler.handle(record)
            print(handler.flush(), handler.stats().last_error)
        commit(["shop"] * 6000, range(6000))
        commit(["shop"] * 200, range(0, 6000, 30))
        volume.FOLD_ROWS = 800
        commit([f"{number:0200}" for number in range(800)], [6000] * 800)
        commit([f"{number:0200}" for number in range(800)], [6000] * 800)
        handler.close()
        """,
        error,
        nth,
        env={"LD_PRELOAD": shim, "SQLITE_TMPDIR": str(tmp_path)}.items(),
    )

    assert ["True None"] * 4 == out.splitlines()


def test_the_database_may_not_grow(make, clock, log, contents, said):
    """
    When the database is full (`max_page_count` stands for the disk), rows wait, and go in when there is room again.
    """
    handler = make(capacity=2_000, reserve=0, fair_share=1)
    log(1)
    ticks(handler, clock)
    connection = handler.listener.committer.writer.file.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(20):
        log(150)
        ticks(handler, clock)
    assert "full" in handler.stats().last_error
    assert (2_000, True) == (handler.stats().queued, handler.dropped_total > 0)
    connection.execute("PRAGMA max_page_count = 1000000")

    check_recovery(handler, clock, log, contents, said)


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE on Windows")
def test_the_disk_is_full(run, contents):
    """When the system takes no more bytes (RLIMIT_FSIZE), the program goes on, and so does its log when it can."""
    run(
        """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        handler = SQLiteHandler(path, capacity=1000, reserve=0, fair_share=1)
        from sqlite_log_handler._write.listener import RecordListener
        RecordListener._start_thread = lambda self, thread: None  # this thread commits
        now = [0.0]
        handler.listener.committer.now = lambda: now[0]
        logger.addHandler(handler)
        logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = os.stat(path + "-wal").st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, limits[1]))
        for number in range(3000):
            logger.info("n %d", number)
            if number % 100 == 99:
                handler.listener.handle(None)
                now[0] += 0.1
        stats = handler.stats()
        assert (3000, True) == (stats.seen, stats.dropped_total > 0), stats
        assert stats.last_error, stats
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for _ in range(60):
            handler.listener.handle(None)
            now[0] += 0.1
        stats = handler.stats()
        assert (0, stats.dropped_total) == (stats.queued, 3000 - stats.written)
        """,
        stderr="[^\n]*cannot write[^\n]*\n[^\n]*writing again[^\n]*\n",
    )
    found = contents()

    assert 3000 == len(found.numbers["n"]) + found.dropped


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE on Windows")
@pytest.mark.parametrize("made", [False, True])
def test_a_program_starts_on_a_full_disk(run, contents, made):
    """
    A disk without room for the file, or for the -wal of one that is there, is no reason not to start: what is logged
    waits, and is written when there is room.
    """
    run(
        f"""
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if {made}: SQLiteHandler(path).close()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        handler = SQLiteHandler(path, flush_interval=3600)  # no other thread commits during the flush
        logger.addHandler(handler)
        logger.info("n 0")
        assert not handler.flush(0)
        assert handler.stats().last_error == "OperationalError: disk I/O error", handler.stats()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        handler.close()
        """,
        stderr="([^\n]*cannot write[^\n]*\n[^\n]*writing again[^\n]*\n)?",
    )

    assert [0] == contents().numbers["n"]


@pytest.mark.privileged
def test_a_disk_without_room(make, mounted, clock, log, contents, said):
    """
    On a file system of 1 MiB rows wait when it is full, nothing is damaged, and they go in when there is room again.
    """
    folder = mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    filler = folder / "filler"
    filler.write_bytes(b"x" * 400_000)
    handler = make(filename=folder / "app-log.db", capacity=1_000, reserve=0, fair_share=1)
    for _ in range(200):
        log(100)
        ticks(handler, clock)
        if handler.dropped_total > 1_500:
            break
    assert "full" in handler.stats().last_error
    filler.unlink()

    check_recovery(handler, clock, log, lambda: contents(folder / "app-log.db"), said)
    handler.close()


@pytest.mark.privileged
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("free", range(6))
def test_a_disk_without_inodes(make_handler, mounted, logger, contents, exists, free):
    """
    A program starts on a file system that has no inode left, and its records wait until there is one.

    SQLite says "unable to open database file" when it cannot make the -wal or the -shm, as of a file that can never be
    opened, so the program did not start.
    """
    folder = mounted("-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "tmpfs")
    if exists:
        make_handler(filename=folder / "app-log.db").close()
    fillers = [folder / f"filler {number}" for number in range(os.statvfs(folder).f_ffree - free)]
    for filler in fillers:
        filler.touch()
    handler = make_handler(filename=folder / "app-log.db", flush_interval=0.001)
    logger.addHandler(handler)
    logger.info("n 0")
    for filler in fillers:
        filler.unlink()
    assert handler.flush(60)

    assert [0] == contents(folder / "app-log.db").numbers["n"]
    handler.close()


def test_a_file_that_cannot_be_made_is_said_at_once(make_handler, monkeypatch):
    """A path that will never work raises at once: the error has the path and says what to do."""

    def refuses(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(LogFileError, match="cannot be opened as a log"):
        make_handler()


def test_a_file_that_cannot_be_made_leaves_nothing_open(make_handler, monkeypatch, path):
    """
    When the file cannot be made, the lock beside it, which was had for that, is closed.

    A program that tries again and again would run out of descriptors. (A fixture looks for open files.)
    """

    def full(*_, **options):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(LogFileError, match="cannot be opened as a log"):
        make_handler()

    assert path.with_name(path.name + "-lock").exists()


def test_a_full_disk_that_copies_on_write(make, clock, log, contents, said, fill, monkeypatch, path):
    """
    While btrfs has no room, the log is left alone: rows wait, readers say so, and closing it leaves the -wal.

    A change in the -shm, which SQLite has mapped into memory, has no room then, and the system killed the program.
    """
    kept, wal = [], path.with_name(f"{path.name}-wal")
    monkeypatch.setattr(forks, "keep_open", kept.append)
    fill(path.parent)
    handler = make()
    log(10)
    ticks(handler, clock, 30)
    assert not path.exists()
    fill()
    check_recovery(handler, clock, log, contents, said)
    with LogReader(path) as reader:
        assert 10 == reader.count()
        fill(path.parent)
        log(10)
        ticks(handler, clock, 30)
        assert 10 == handler.stats().queued
        with pytest.raises(UnreadableFileError, match="make room in the folder of the log"):
            reader.count()
        with pytest.raises(UnreadableFileError, match="make room in the folder of the log"):
            LogReader(path)
    size = wal.stat().st_size
    handler.close()

    assert size == wal.stat().st_size
    assert (sys.version_info < (3, 12)) == len(kept)
    fill()
    for connection in kept:
        connection.close()
    assert 10 == len(contents().numbers["n"])


def test_a_log_that_was_removed_to_make_room(make, clock, log, contents, fill, path):
    """When somebody removes a log because btrfs is full, the handler lets go of it; it kept the room for ever."""
    handler = make()
    log(10)
    ticks(handler, clock, 2)
    fill(path.parent)
    for file in path.parent.glob("app-log.db*"):
        file.unlink()
    log(10)
    ticks(handler, clock, 30)
    assert handler.listener.committer.writer.file.connection is None
    fill()
    ticks(handler, clock, 52)

    assert list(range(10, 20)) == contents().numbers["n"]


def test_a_link_that_is_switched_to_a_disk_with_room(make, clock, log, contents, fill, monkeypatch, path, tmp_path):
    """A handler whose log is a link follows it off a btrfs that is full; it looked where the link had led before."""
    monkeypatch.setattr(forks, "keep_open", lambda connection: connection.close())  # Python 3.11
    for name in "full", "other":
        (tmp_path / name).mkdir()
    path.symlink_to(tmp_path / "full" / "app.db")
    handler = make()
    log(10)
    ticks(handler, clock, 2)
    fill(tmp_path / "full")
    log(10)
    ticks(handler, clock, 30)
    path.unlink()
    path.symlink_to(tmp_path / "other" / "app.db")
    ticks(handler, clock, 52)
    fill()

    assert list(range(10, 20)) == contents(tmp_path / "other" / "app.db").numbers["n"]
