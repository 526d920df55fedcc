"""
The file as a forwarder sees it: rows behind a cursor, and the cursor in the file itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

import hostile
import pytest

from sqlite_log_handler._forward.spool import Spool, TakenCursorError
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.connect import identity_of
from sqlite_log_handler._logfile.errors import ForeignFileError, UnreadableFileError
from sqlite_log_handler._logfile.write_lock import WriteLock

ALL = 10_000, 1 << 30


@pytest.fixture
def log(make_handler, logger):
    """Log so many messages, and see them in the file: `log(3)` logs "0", "1", "2"."""
    handler = make_handler()
    logger.addHandler(handler)

    def burst(count=1, **options):
        for number in range(count):
            logger.info("%d", number, **options)
        assert handler.flush()

    return burst


@pytest.fixture
def lines():
    """What the operator was told."""
    return []


@pytest.fixture
def make_spool(path, lines):
    """Open the log with a cursor: `make_spool(name="x")`."""
    with contextlib.ExitStack() as stack:

        def make(name="x", file=path):
            spool = Spool(str(file), name, say=lines.append, time=lambda: 1_700_000_000.5)
            stack.callback(spool.close)
            return spool

        yield make


def ids(batch):
    """Give the ids of the rows of a batch."""
    return [row[0] for row in batch.rows]


def test_rows_come_in_order_and_once(log, make_spool):
    """Rows are read in the order of their ids, from behind the last one that was read."""
    log(5)
    spool = make_spool()

    assert [1, 2, 3] == ids(spool.read(3, 1 << 30))
    assert [4, 5] == ids(spool.read(3, 1 << 30))
    assert [] == ids(spool.read(*ALL))


def test_a_batch_has_a_bound_in_bytes(make_spool, make_handler, logger):
    """A batch ends before the text of its rows is longer than asked for; a long row comes alone."""
    logger.addHandler(make_handler())
    for length in (10, 10, 5_000, 10):
        logger.info("x" * length)
    logger.handlers[0].flush()
    spool = make_spool()

    assert [[1, 2], [3], [4]] == [ids(spool.read(100, 1_500)) for _ in range(3)]


def test_a_batch_counts_the_memory_of_its_letters(make_spool, make_handler, logger):
    """
    A batch is as long as its texts are in memory, where an emoji makes four bytes of each letter beside it.

    We counted letters: of rows of 120,000 emoji, a batch of 4 MiB had 34 instead of 8, and `forward` took 125 MB.
    """
    logger.addHandler(make_handler())
    for _ in range(4):
        logger.info("\U0001f600%s", "x" * 999)
    logger.handlers[0].flush()
    spool = make_spool()

    assert [[1, 2], [3, 4]] == [ids(spool.read(100, 10_000)) for _ in range(2)]


def test_a_batch_brings_what_its_rows_refer_to(log, make_spool, logger):
    """Sources, processes and levels come with the rows that name them."""
    log()

    batch = make_spool().read(*ALL)

    ((source_id, process_id),) = [(row[3], row[4]) for row in batch.rows]
    assert (logger.name, "burst") == (batch.sources[source_id][0], batch.sources[source_id][3])
    assert os.getpid() == batch.processes[process_id][1]
    assert "INFO" == batch.levels[20]


def test_the_cursor_is_in_the_file(log, make_spool, query):
    """A saved cursor is a row of `cursors`, and whoever opens the file with its name goes on behind it."""
    log(4)
    spool = make_spool()
    spool.read(2, 1 << 30)
    spool.save(2)

    assert [("x", 2, 1_700_000_000_500_000)] == query("SELECT * FROM cursors")
    assert [3, 4] == ids(make_spool().read(*ALL))
    assert [1, 2, 3, 4] == ids(make_spool("y").read(*ALL))


def test_the_cursor_moves_only_when_it_is_saved(log, make_spool):
    """What was read and not saved is read again by the next one."""
    log(2)
    make_spool().read(*ALL)

    assert [1, 2] == ids(make_spool().read(*ALL))


def test_a_name_that_two_use_is_noticed(log, make_spool):
    """When somebody else has moved the cursor, saving says so, and what to do about it."""
    log(4)
    first, second = make_spool(), make_spool()
    first.read(*ALL)
    second.read(*ALL)
    first.save(1)
    third = make_spool()
    third.read(*ALL)
    third.save(3)

    for late in (first, second):
        with pytest.raises(TakenCursorError, match=r"'x' .* --name"):
            late.save(4)


def test_the_cursor_is_written_under_the_write_lock(log, make_spool, path):
    """Saving waits for the lock under which everything is written to a log, and gives up for now without it."""
    log()
    spool = make_spool()
    spool.read(*ALL)

    lock = WriteLock(str(path))
    with contextlib.closing(lock), lock.hold(1.0), pytest.raises(TimeoutError):
        spool.save(1)
    spool.save(1)


def test_files_that_are_copied_under_the_lock_stay_as_they_are(log, logger, make_spool, path):
    """A spool that is closed while somebody holds the lock to copy the files writes nothing back."""
    log()
    spool = make_spool()
    spool.read(*ALL)
    logger.handlers[0].close()
    spool.save(1)
    files = [path, path.with_name(f"{path.name}-wal")]
    before = [file.read_bytes() for file in files]
    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(0):
        spool.close(0)
        assert before == [file.read_bytes() for file in files]

    assert 1 == make_spool().read(*ALL).after_id


def test_a_locked_database_is_an_error_for_now(log, make_spool, path):
    """Saving while somebody writes without the lock raises an error, and leaves no transaction open."""
    log()
    spool = make_spool()
    spool.read(*ALL)

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            spool.save(1)
    spool.save(1)


@pytest.mark.parametrize("table", ["records", "sources", "marks"])
def test_rows_whose_look_up_failed_are_read_again(log, make_spool, table):
    """
    Rows are read again if a part of what they need could not be read.

    The position moved before the last look-up: if that failed once, these rows were passed over, and counted nowhere.
    """
    log(3)
    spool = make_spool()
    spool.read(1, 1 << 30)
    denied = [sqlite3.SQLITE_DENY]
    spool._connection.set_authorizer(
        lambda action, name, *_: denied.pop() if denied and (sqlite3.SQLITE_READ, table) == (action, name) else 0
    )
    with pytest.raises(sqlite3.DatabaseError, match="prohibited"):
        spool.read(*ALL)

    assert [2, 3] == ids(spool.read(*ALL))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's list of descriptors")
def test_a_disk_that_cannot_be_read_is_named(log, make_spool, path):
    """The error of a disk is SQLite's, and not that there is no transaction any more to roll back."""
    log(1_000)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    spool = make_spool()
    spool.read(1, 1 << 30)
    numbers = map(int, os.listdir("/proc/self/fd"))
    files = [number for number in numbers if identity_of(number) == identity_of(path)]
    kept, folder = [os.dup(file) for file in files], os.open("/", os.O_RDONLY)
    for file in files:
        os.dup2(folder, file)
    try:
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            spool.read(*ALL)
    finally:
        for file, was in zip(files, kept, strict=True):
            os.dup2(was, file)
            os.close(was)
        os.close(folder)


def test_a_full_disk_that_copies_on_write(log, make_spool, fill, path):
    """While btrfs has no room, the log is left alone, or the system would kill the forwarder (SIGBUS)."""
    log(3)
    spool = make_spool()
    assert [1, 2, 3] == ids(spool.read(*ALL))
    fill(path.parent)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.read(*ALL)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.save(3)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.has_news()
    fill()
    spool.save(3)
    log(1)

    assert [4] == ids(make_spool().read(*ALL))


def test_a_log_that_was_removed_to_make_room(log, make_spool, fill, path):
    """When somebody removes a log because btrfs is full, the forwarder lets go of it; it kept the room for ever."""
    log(3)
    spool = make_spool()
    assert [1, 2, 3] == ids(spool.read(*ALL))
    fill(path.parent)
    for one in path.parent.glob("app-log.db*"):
        one.unlink()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.read(*ALL)
    fill()

    assert (None, True) == (spool._connection, spool.was_left)


def test_a_moved_log_is_left_alone_on_a_full_disk(log, make_spool, fill, path, monkeypatch):
    """A log that was moved is not written back while btrfs has no room: that ended the forwarder (SIGBUS)."""
    monkeypatch.setattr(forks, "keep_open", lambda connection: connection.close())  # Python 3.11
    log(3)
    spool, statements = make_spool(), []
    spool.read(*ALL)
    spool._connection.set_trace_callback(statements.append)
    fill(path.parent)
    path.rename(f"{path}.1")
    spool.close()
    fill()

    assert not [statement for statement in statements if "checkpoint" in statement]


def test_no_snapshot_is_held_between_two_calls(log, make_spool, path):
    """A reader that sends for minutes does not keep the WAL from being written back."""
    log(3)
    spool = make_spool()
    spool.read(*ALL)
    log()

    with contextlib.closing(sqlite3.connect(path)) as other:
        busy, in_wal, written_back = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    assert (0, in_wal) == (busy, written_back)


def test_pruned_rows_leave_a_gap(log, make_spool):
    """Rows that are gone between the cursor and the next row are counted, with the cause that the file knows."""
    log(6)
    spool = make_spool()
    spool.read(1, 1 << 30)
    spool.save(1)
    with contextlib.closing(sqlite3.connect(spool.path)) as other, other:
        other.execute("DELETE FROM records WHERE id BETWEEN 2 AND 4")
        other.execute("INSERT INTO prunes VALUES (1, 1, 4, 0, 0, 'max_rows', 4, 3, 0)")

    batch = spool.read(*ALL)

    assert (3, ["max_rows"], [5, 6]) == (batch.missing, batch.causes, ids(batch))


def test_pruned_rows_are_counted_when_the_newest_is_left(log, make_spool):
    """Rows that are gone count also when only the newest row is left."""
    log(3)
    spool = make_spool()
    spool.read(1, 1 << 30)
    with contextlib.closing(sqlite3.connect(spool.path)) as other, other:
        other.execute("DELETE FROM records WHERE id < 3")

    batch = spool.read(*ALL)

    assert (1, [3], 1, []) == (batch.after_id, ids(batch), batch.missing, batch.causes)
    assert 0 == spool.read(*ALL).missing


def test_what_was_pruned_before_the_first_run_is_no_loss(log, make_spool):
    """Without a cursor reading begins at the oldest row there is; what was pruned before was not to be sent."""
    log(4)
    spool = make_spool()
    with contextlib.closing(sqlite3.connect(spool.path)) as other, other:
        other.execute("DELETE FROM records WHERE id < 3")

    batch = spool.read(*ALL)

    assert (0, [3, 4]) == (batch.missing, ids(batch))


def test_news_are_noticed(log, make_spool):
    """A file has news until it was read to its end, and again when somebody else has written to it."""
    log(3)
    spool = make_spool()
    assert spool.has_news()
    assert spool.read(2, 1 << 30).more
    assert spool.has_news()
    assert not spool.read(*ALL).more
    assert not spool.has_news()

    spool.save(3)
    assert not spool.has_news()

    log()
    assert spool.has_news()


def test_a_file_that_was_replaced_begins_anew(log, make_spool, path, lines, make_handler, logger):
    """A new file at the path has ids and cursors of its own; the cursor of the old one is not written into it."""
    log(3)
    spool = make_spool()
    spool.read(*ALL)
    logger.handlers[0].close()
    for end in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{end}"):
            os.rename(f"{path}{end}", f"{path}.old{end}")
    logger.handlers.clear()
    logger.addHandler(make_handler())
    logger.info("new")
    logger.handlers[0].flush()

    spool.save(3)
    batch = spool.read(*ALL)
    spool.save(1)

    assert ["new"] == [row[8] for row in batch.rows]
    assert "moved or replaced" in lines[0]
    assert [2, 3] == ids(make_spool(file=f"{path}.old").read(*ALL))[-2:]


def move_beside(log, make_spool, path, logger):
    """Let a program log and end, and move its log, whose WAL the forwarder has open, with the cursor in it."""
    log(3)
    spool = make_spool()
    spool.read(*ALL)
    logger.handlers.pop().close()
    spool.save(2)
    os.rename(path, f"{path}.old")
    return spool


def test_a_moved_file_takes_its_rows_along(log, make_spool, path, logger, make_handler):
    """
    A file that was moved has its rows and its cursor, also those that only its WAL had, which nobody else wrote back.

    The program had ended before the forwarder, so its close wrote nothing back; a new one moved the -wal aside.
    """
    spool = move_beside(log, make_spool, path, logger)
    logger.addHandler(make_handler())
    log_new = logger.handlers[0]
    logger.info("new")
    log_new.flush()

    assert ["new"] == [row[8] for row in spool.read(*ALL).rows]
    assert [3] == ids(make_spool(file=f"{path}.old").read(*ALL))


def test_a_moved_file_takes_its_rows_along_at_the_end(log, make_spool, path, logger, query):
    """The same if the forwarder ends before it looks again."""
    move_beside(log, make_spool, path, logger).close()
    for end in ("-wal", "-shm"):
        assert not os.path.exists(f"{path}{end}")
    os.rename(f"{path}.old", path)

    assert [(3,)] == query("SELECT count(*) FROM records")


def test_a_log_that_takes_the_place_of_another_keeps_its_rows(log, make_spool, path, logger, make_handler):
    """
    The WAL of the file that was there is not applied to the file that takes its place.

    SQLite wrote the pages of the old file into the new one, of which nothing could be read any more.
    """
    spool = move_beside(log, make_spool, path, logger)
    other = make_handler(path.with_name("other.db"))
    logger.addHandler(other)
    for number in range(500):
        logger.info("new %d", number)
    other.close()
    os.rename(path.with_name("other.db"), path)

    assert [f"new {number}" for number in range(500)] == [row[8] for row in spool.read(*ALL).rows]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


@pytest.mark.parametrize("removed", ["", "-shm"])
def test_a_reader_that_holds_the_wal_of_a_moved_file(log, make_spool, path, logger, make_handler, removed):
    """As long as a reader keeps the WAL from being written back, no other file is opened beside it."""
    log(3)
    spool = make_spool()
    spool.read(*ALL)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        spool.save(2)
        logger.handlers.pop().close()
        other = make_handler(path.with_name("other.db"))
        logger.addHandler(other)
        logger.info("new")
        other.close()
        os.rename(path, f"{path}.old")
        os.rename(path.with_name("other.db"), path)
        if removed:
            os.remove(f"{path}{removed}")
        with pytest.raises(TimeoutError, match="moved or replaced while a reader held its -wal"):
            spool.read(*ALL)

    assert ["new"] == [row[8] for row in spool.read(*ALL).rows]


def test_the_wal_of_a_moved_file_that_others_use(log, make_spool, path, logger, query):
    """By a -shm of their own, other processes may have added rows to the WAL, so it is left to them."""
    spool = move_beside(log, make_spool, path, logger)
    os.remove(f"{path}-shm")
    path.with_name("app-log.db-shm").write_bytes(b"")
    size = os.path.getsize(f"{path}-wal")
    spool.close()

    assert 0 < size == os.path.getsize(f"{path}-wal")


def test_a_wal_that_another_process_removes(log, make_spool, path, logger, lines, monkeypatch):
    """A WAL that goes away between two looks at it is none: the other logs were left to the end of the process."""
    spool = move_beside(log, make_spool, path, logger)
    looks = []

    def seen(name, *unseen):
        found = identity_of(name, *unseen)
        looks.append(name)
        if name == f"{path}-wal" and looks.count(name) == 2:
            os.remove(name)
        return found

    monkeypatch.setattr("sqlite_log_handler._forward.spool.identity_of", seen)
    spool.close()

    assert "moved or replaced" in lines[0]


def test_a_link_that_is_switched_to_another_log(log, make_spool, path, lines, make_handler, logger):
    """When the link leads to another log, that one is read, and its cursor saved under its own write lock."""
    second, link = path.with_name("second.db"), path.with_name("link.db")
    link.symlink_to(path)
    log(3)
    spool = make_spool(file=link)
    spool.read(*ALL)
    logger.handlers[:] = [make_handler(second)]
    logger.info("new")
    logger.handlers[0].flush()
    path.with_name("new link").symlink_to(second)
    path.with_name("new link").replace(link)

    spool.save(3)
    batch = spool.read(*ALL)
    with contextlib.closing(WriteLock(str(second))) as lock, lock.hold(1.0), pytest.raises(TimeoutError):
        spool.save(1)
    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(1.0):
        spool.save(1)

    assert ["new"] == [row[8] for row in batch.rows]
    assert "moved or replaced" in lines[0]
    assert [] == make_spool(file=second).read(*ALL).rows


def test_a_link_that_is_switched_away_from_an_empty_file(make_spool, path, tmp_path, make_handler, monkeypatch):
    """A log is opened under its own write lock, also when the link to it has led to a file without rows before."""
    monkeypatch.setattr("sqlite_log_handler._forward.spool._LOCK_SECONDS", 0)
    make_handler().close()
    link, empty = tmp_path / "link.db", tmp_path / "empty.db"
    empty.touch()
    link.symlink_to(empty)
    spool = make_spool(file=link)
    assert [] == spool.read(*ALL).rows
    link.unlink()
    link.symlink_to(path)

    with contextlib.closing(WriteLock(str(path))) as lock, lock.hold(1.0), pytest.raises(TimeoutError):
        spool.read(*ALL)


def test_a_link_that_is_switched_while_it_is_followed(log, make_spool, path, tmp_path, make_handler, monkeypatch):
    """
    What is opened is the log whose write lock is held, though the link lead elsewhere by now; the next read goes there.
    """
    log(3)
    make_handler(tmp_path / "second.db").close()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    spool = make_spool(file=link)
    follow = spool._lock.follow

    def switched(timeout):
        found = follow(timeout)
        link.unlink()
        link.symlink_to(tmp_path / "second.db")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(spool._lock, "follow", switched)
        assert [1, 2, 3] == ids(spool.read(*ALL))

    assert [] == ids(spool.read(*ALL))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_file_that_is_moved_while_it_is_opened(log, make_spool, path, monkeypatch, moment):
    """
    A log that takes the place of another one just as that is opened keeps its -wal and its -shm.

    The new one passed for the one that was moved. So the next look deleted the files beside it, which the program and
    each reader had open, and a reader got an error of the disk.
    """
    log(3)
    spool = make_spool()
    begin, follow = spool._begin, spool._lock.follow

    def move():
        patch.undo()
        os.rename(path, f"{path}.old")
        spool._lock.release()  # as the program has it for its next commit
        log(5)

    with monkeypatch.context() as patch:
        if moment == "before":
            patch.setattr(spool._lock, "follow", lambda timeout: (move(), follow(timeout))[1])
        else:
            patch.setattr(spool, "_begin", lambda connection: (begin(connection), move()))
        with contextlib.suppress(TimeoutError):  # a later look opens the new one
            spool.read(1, 1 << 30)
    before = [identity_of(f"{path}{end}") for end in ("", "-wal", "-shm")]
    spool.go_back(0)

    assert [1, 2, 3, 4, 5] == ids(spool.read(*ALL))
    assert before == [identity_of(f"{path}{end}") for end in ("", "-wal", "-shm")]


def test_a_file_that_is_not_there_yet_has_no_rows(make_spool, tmp_path):
    """A forwarder may be there before the program: a file that is missing or empty is a log without rows."""
    spool = make_spool(file=tmp_path / "later.db")
    assert [] == spool.read(*ALL).rows
    (tmp_path / "later.db").touch()
    assert [] == spool.read(*ALL).rows
    assert spool.has_news()


def test_a_file_of_another_program_is_refused(make_spool, tmp_path):
    """What is no log is left as it is, with an error that says so."""
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")

    with pytest.raises(ForeignFileError, match="another program"):
        make_spool(file=tmp_path / "other.db").read(*ALL)
    (tmp_path / "text.log").write_text("a text log\n" * 1_000)
    with pytest.raises(ForeignFileError, match="is not an SQLite database: name the file of a SQLiteHandler"):
        make_spool(file=tmp_path / "text.log").read(*ALL)


def test_drops_come_with_their_warning(path, make_spool, make_handler, logger):
    """Lines of the ledger come with the batch that holds the warning of their gap."""
    handler = make_handler(capacity=2, reserve=0, batch_size=100, flush_interval=3_600)
    logger.addHandler(handler)
    for number in range(5):
        logger.info("%d", number)
    handler.close()

    batch = make_spool().read(*ALL)

    warnings = [row[0] for row in batch.rows if batch.sources[row[3]][0] == "sqlite_log_handler"]
    assert [row_id - 1 for row_id in warnings] == list(batch.drops)
    assert 3 == sum(drop[5] for drops in batch.drops.values() for drop in drops)


def test_a_table_in_the_file_hides_no_function(log, make_spool, path, logger):
    """A table of the file that has the name of one of SQLite's functions takes no logger from the rows."""
    log(1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE json_each (value)")

    (source,) = make_spool().read(*ALL).sources.values()

    assert logger.name == source[0]


def test_text_that_is_no_utf8_is_read_nevertheless(log, make_spool, path):
    """A row that somebody has damaged does not stop those behind it."""
    log()
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE records SET message = CAST(x'66ff' AS TEXT)")

    assert [r"f\xff"] == [row[8] for row in make_spool().read(*ALL).rows]


def test_an_odd_index_with_a_name_that_is_no_utf8(make_spool, path):
    """
    An index on an expression is refused, whatever its name is.

    We asked SQLite for the columns of an index with another name, of which there were none.
    """
    hostile.make(path, "CREATE INDEX odd ON cursors (hex(name))")
    path.write_bytes(path.read_bytes().replace(b"odd", b"o\xffd"))

    with pytest.raises(UnreadableFileError, match="or an odd name"):
        make_spool().read(*ALL)


def test_a_row_that_refers_to_nothing_is_read_nevertheless(log, make_spool, path):
    """
    A row whose call site or process is not in the file, as after a repair, has an empty one; it was an error.

    Its level is called by its number, as logging calls a level without a name.
    """
    log()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM sources")
        connection.execute("DELETE FROM processes")
        connection.execute("DELETE FROM levels")

    batch = make_spool().read(*ALL)
    (row,) = batch.rows
    assert (("", "", 0, ""), ("", 0, "", 0, "")) == (batch.sources[row[3]], batch.processes[row[4]])
    assert {20: "Level 20"} == batch.levels
