"""`sqlite-log prune`: retention from outside, once, beside the program that logs or without it."""

import argparse
import contextlib
import math
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TypeVar

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.arguments import add_flag
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import say, write_error, write_line
from sqlite_log_handler._logfile.connect import (
    BOUND_CACHE,
    as_text,
    close,
    connect_read_only,
    connect_read_write,
    identity_of,
    is_removed,
    primary_code,
    refuse_full,
    without_triggers,
)
from sqlite_log_handler._logfile.errors import LimitError, LogFileError
from sqlite_log_handler._logfile.forks import Connection
from sqlite_log_handler._logfile.schema import ROW_BYTES
from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._logfile.units import counted, format_size
from sqlite_log_handler._logfile.write_lock import WriteLock
from sqlite_log_handler._read.opening import named_errors, open_log
from sqlite_log_handler._write.options import integer
from sqlite_log_handler._write.retention.archive import Archive
from sqlite_log_handler._write.retention.archiver import archived_only, folder_of
from sqlite_log_handler._write.retention.limits import LEAST_BYTES, VACUUM_PAGES, Cut, Limits, State, seconds, size
from sqlite_log_handler._write.retention.parts import Vanished
from sqlite_log_handler._write.retention.pruner import INCREMENTAL, Pruner, last_too_old, look

_T = TypeVar("_T")

# Seconds to wait for a process that writes, and for a reader that holds a snapshot.
_LOCK_TIMEOUT = 10.0
_READER_TIMEOUT = 10.0

# Seconds that SQLite waits for its own locks, while writers wait for our lock beside the file.
_BUSY_TIMEOUT = 0.1

# Most bytes of a value: SQLite counts the bytes of a row in memory. No handler writes rows of more than half a MiB.
_LONGEST = 32 * 1024 * 1024

# Between two pieces, a writer gets its turn: for as long as a piece took, but at most for this time.
_LONGEST_PAUSE = 0.05

_MAY_NOT_WRITE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}

# What a row takes besides its text, and the sizes of some rows: one of each so many ids, and where in them follows the
# golden ratio, because a program may log rows of different sizes in turn.
_ROW_BYTES = 60
_SAMPLES = 1_000
_SIZES = f"""
WITH RECURSIVE some (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM some LIMIT {_SAMPLES})
SELECT id, ifnull({ROW_BYTES}, 0) + {_ROW_BYTES} FROM records
WHERE id IN (SELECT :first_id + n * :step + n * 61803 % 100000 * :step / 100000 FROM some) ORDER BY id
"""  # noqa: S608 - our own SQL

# Shorter work shows no bar.
_BAR_AFTER = 0.5
_BAR_WIDTH = 40


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser)
    most_rows = "keep this many rows, or up to a hundredth less"
    archive = "write rows to compressed files in this folder before they are deleted"
    vacuum = (
        "give all free pages back; a file made without auto_vacuum is rewritten for that, which takes as much space "
        "again, and blocks writers meanwhile"
    )
    triggers = "run the triggers that somebody has added to the log; without this, one that is to run is an error"
    add_flag(parser, "--max-age AGE", "delete older rows: seconds, or 7d, '1h 30min', '2 weeks'")
    add_flag(parser, "--max-rows N", most_rows, type=arguments.whole_number)
    add_flag(parser, "--max-bytes SIZE", "let file and WAL take this much: bytes, or 500MB, 2GB")
    add_flag(parser, "--archive DIR", archive)
    add_flag(parser, "--archive-max-age AGE", "delete files of the archive whose rows are all older")
    add_flag(parser, "--archive-max-bytes SIZE", "let the archive take this much: the oldest files are deleted")
    add_flag(parser, "--vacuum", vacuum)
    add_flag(parser, "--run-triggers", triggers)
    add_flag(parser, "--dry-run", "say what would be deleted, and delete nothing")


@command(
    _add_arguments,
    "Delete the oldest rows of a log until it is within the given limits. Rows go in small chunks, so that a program "
    "that logs into the file is not held up. The table `prunes` records each deletion.",
    ("sqlite-log prune app-log.db --max-age 30d", "delete rows older than 30 days"),
    ("sqlite-log prune app-log.db --max-bytes 500MB --dry-run", "say which rows would have to go"),
    ("sqlite-log prune app-log.db --max-age 30d --archive /srv/archive", "archive them first, a file for each day"),
    ("sqlite-log prune app-log.db --vacuum", "give free pages back to the file system"),
)
def run(
    options: argparse.Namespace,
    *,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Prune, and say what was done. Returns 1 when a reader, or the archive, kept it from being done to the end."""
    rows = None if options.max_rows is None else integer("--max-rows", options.max_rows, 1)
    limits = Limits(seconds("--max-age", options.max_age), rows, size("--max-bytes", options.max_bytes))
    age, most = options.archive_max_age, options.archive_max_bytes
    kept = Limits(seconds("--archive-max-age", age), max_bytes=size("--archive-max-bytes", most))
    if kept and options.archive is None:
        raise ValueError("a limit of the archive needs its folder: give --archive")
    if not limits and not options.vacuum and not kept:
        message = "nothing to do: give --max-age, --max-rows or --max-bytes, or --vacuum to give back free pages"
        raise ValueError(message)
    path = os.path.abspath(arguments.file_of(options))
    real = os.path.realpath(path)
    archive = None
    if options.archive is not None:
        archive = Archive(folder_of("--archive", options.archive), real, limits=kept, say=say, now=now)
    with _named_errors(path):
        # Read-only: opening a file for writing may change it, and it may be a file of another program.
        reading, budget, notice, _ = open_log(path)
        with contextlib.closing(reading), budget:
            # Rows that are too long to show are deleted too.
            reading.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            reading.text_factory = as_text
            plan = partial(_plan, path=real, limits=limits, now=now())
            state, cut = plan(reading)
            if options.dry_run:
                if notice:
                    say(notice)
                _say_plan(reading, state, cut, limits, vacuum=options.vacuum)
                if archive is not None and (parts := archive.beyond_limits(reading)):
                    _say_removed("would remove", [part[3] for part in parts])
                return 0
            if not (os.access(path, os.W_OK) and os.access(os.path.dirname(real), os.W_OK)):
                raise _may_not_write(path)
        if limits.max_bytes is None:
            # A program beside may have any `max_bytes` that the file fits, and the WAL is a part of that too.
            limits = Limits(limits.max_age, limits.max_rows, beside=max(LEAST_BYTES, state.file))
        bound = None if archive is None else archived_only
        pruner = Pruner(real, limits, bound=bound, say=say, now=now, clock=clock)
        work = _Work(real, archive, plan, pruner, WriteLock(real, say=say), clock, sleep)
        return work.run(state, cut, vacuum=options.vacuum, run_triggers=options.run_triggers)


@contextlib.contextmanager
def _named_errors(path: str) -> Iterator[None]:
    """Add the path and advice to each error of SQLite in the `with` block; that of `named_errors` is for readers."""
    with named_errors(path):
        try:
            yield
        except sqlite3.Error as error:
            if primary_code(error) in _MAY_NOT_WRITE:
                raise _may_not_write(path) from error
            if primary_code(error) == sqlite3.SQLITE_FULL:
                message = (
                    f"{path!r}: its disk is full, and a deletion takes some room in the -wal before it gives any back: "
                    "make room, and prune again"
                )
                raise LogFileError(message) from error
            if primary_code(error) != sqlite3.SQLITE_TOOBIG:
                raise
            most = _LONGEST >> 20
            message = f"{path!r}: a row has more than {most} MiB, so no handler wrote it: delete it, and prune the rest"
            raise LimitError(message) from error


def _may_not_write(path: str) -> PermissionError:
    return PermissionError(f"{path!r}: you may not write to it: make the file and its folder writable")


def _plan(connection: sqlite3.Connection, path: str, limits: Limits, now: float) -> tuple[State, Cut | None]:
    """Tell what pruning would do, and to what."""
    state = look(connection, path)
    cuts = []
    if limits.max_age is not None:
        last_old = last_too_old(connection, now, limits.max_age, state.last_but_one_id)
        cuts += [] if last_old is None else [Cut(last_old, "max_age", urgent=True)]
    if limits.excess(state) > 0 and state.rows > 1:
        cuts.append(Cut(_last_of_excess(connection, state, limits), "max_bytes", urgent=True))
    return state, Limits(max_rows=limits.max_rows).cut(state, aged=max(cuts, default=None))


def _last_of_excess(connection: sqlite3.Connection, state: State, limits: Limits) -> int:
    """
    Return the id up to which rows take too much, about.

    The average of all rows is far off where the first ones are smaller or larger, and a row of a little more than half
    a page takes all of it.
    """
    step, page = math.ceil(state.rows / _SAMPLES), state.page_size
    found = connection.execute(_SIZES, {"first_id": state.first_id, "step": step})
    sizes = {id_: max(size, page / max(1, page // size)) for id_, size in found}
    goal = limits.to_free(state) / state.live * sum(sizes.values())
    reached = (id_ for id_, taken in zip(sizes, accumulate(sizes.values()), strict=True) if taken >= goal)
    return next(reached, state.last_id) + step - 1


def _say_plan(connection: sqlite3.Connection, state: State, cut: Cut | None, limits: Limits, *, vacuum: bool) -> None:
    if cut is None:
        taken = format_size(state.file + state.wal)
        write_line(f"no rows to delete: {counted(state.rows, 'row')}, {taken} with the WAL")
    else:
        (rows,) = connection.execute("SELECT count(*) FROM records WHERE id <= ?", (cut.last_id,)).fetchone()
        by_bytes = cut.cause == "max_bytes"
        taken = format_size(min(limits.to_free(state), state.live) if by_bytes else state.live * rows / state.rows)
        of = f"{'about ' if by_bytes else ''}{rows:,} of {counted(state.rows, 'row')}"
        write_line(f"would delete {of}, ids {state.first_id} to {cut.last_id}, about {taken}: {cut.cause}")
    if vacuum:
        free = format_size(state.free_pages * state.page_size)
        write_line(f"would give back {free} of free pages, and what is deleted")


def _say_removed(what: str, rows: list[int]) -> None:
    write_line(f"{what} from the archive: {counted(len(rows), 'file')}, {counted(sum(rows), 'row')}")


def _expire(archive: Archive, connection: sqlite3.Connection) -> None:
    with transaction(connection):
        archive.expire(connection)


@dataclass
class _Work:
    """Prunes one file piece by piece, and releases the lock between two pieces."""

    _path: str
    _archive: Archive | None
    _plan: Callable[[sqlite3.Connection], tuple[State, Cut | None]]
    _pruner: Pruner
    _lock: WriteLock
    _clock: Callable[[], float]
    _sleep: Callable[[float], None]
    _version: object = None

    def run(self, before: State, cut: Cut | None, *, vacuum: bool, run_triggers: bool) -> int:
        with (
            contextlib.closing(self._lock),
            self._open(run_triggers=run_triggers) as connection,
            _bar(self._clock) as self._show,
        ):
            if self._archive is None:
                done = self._prune(connection, before, cut)
            else:
                with arguments.written_to(self._archive.folder):
                    done = self._archive_and_prune(self._archive, connection, before, cut)
            done = done and (not vacuum or self._vacuum(connection))
            if done and (vacuum or self._pruner.deleted):
                done = self._write_back(connection)
            with self._turn(connection):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                after = look(connection, self._path)
        deleted = self._pruner.deleted
        causes = ", ".join(f"{cause} {rows:,}" for cause, rows in deleted.items())
        rows = counted(sum(deleted.values()), "row")
        write_line(f"deleted {rows} ({causes})" if deleted else "no rows to delete")
        took, take = (format_size(state.file + state.wal) for state in (before, after))
        left = counted(after.rows, "row is", "rows are")
        write_line(f"{left} left; file and WAL took {took}, and now take {take}")
        if not done and (pinned := self._pruner.wal.pinned):
            say(f"not done to the end: {pinned}; end that reader, and run it again")
        elif not done:
            say("not done to the end: rows beyond the limits are not archived: run it again")
        return 0 if done else 1

    @contextlib.contextmanager
    def _open(self, *, run_triggers: bool) -> Iterator[Connection]:
        with contextlib.ExitStack() as opened:
            with self._lock.hold(_LOCK_TIMEOUT):
                # Not before: somebody may move the file while this waits, and SQLite opens the -wal by its name.
                self._require_there(identity_of(self._path))
                connection = connect_read_write(self._path, timeout=_BUSY_TIMEOUT)
                opened.callback(self._close, connection)
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
                connection.execute(BOUND_CACHE)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA journal_size_limit = {self._pruner.limits.wal_bytes}")
                self._require_there(connection.file)
            if not run_triggers:
                advice = "drop it, or allow it with --run-triggers"
                opened.enter_context(without_triggers(connection, self._path, advice=advice))
            yield connection

    def _close(self, connection: Connection) -> None:
        with self._lock.hold_if_free(_LOCK_TIMEOUT) as held:
            close(connection, self._path, keep_wal=not held, timeout=_BUSY_TIMEOUT)

    def _require_there(self, file: object) -> None:
        """Refuse to go on if another file is at the path than this one, given as (device, inode), or none."""
        if identity_of(self._path) != file or file is None:
            raise LogFileError(f"{self._path!r} was moved or replaced meanwhile: run it again")

    @contextlib.contextmanager
    def _turn(self, connection: Connection) -> Iterator[None]:
        """Hold the lock for a piece of work. A file that was moved takes its WAL along, as in `LogFile`."""
        refuse_full(self._path)
        with self._lock.hold(_LOCK_TIMEOUT):
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            # Who has written since the last piece writes that back, or has another file open, with the same -wal.
            is_moved = identity_of(self._path) != connection.file
            if is_moved and version == self._version and not is_removed(connection.file):  # a copy needs its -wal
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._require_there(connection.file)
            self._version = version
            yield

    def _archive_and_prune(self, archive: Archive, connection: Connection, before: State, cut: Cut | None) -> bool:
        """
        Archive rows and delete them, until none is beyond the limits; a cut by bytes may not go far enough.

        Delete from the archive what exceeds its own limits. Returns whether all of that was possible.
        """
        with (
            contextlib.closing(archive.lock),
            archive.lock.hold(_LOCK_TIMEOUT),
            contextlib.closing(connect_read_only(self._path)) as reading,
        ):
            reading.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            self._write(connection, partial(_expire, archive))
            return self._in_turns(archive, connection, reading, before, cut)

    def _in_turns(
        self, archive: Archive, connection: Connection, reading: Connection, before: State, cut: Cut | None
    ) -> bool:
        # Not in a frame that holds the lock, see `_logfile.locks`.
        rows = taken = parts = 0
        state = before
        while True:
            last_id = 0 if cut is None else cut.last_id
            if cut is not None and cut.cause == "max_bytes":
                # A program that starts then needs room before it has archived anything.
                last_id += (state.last_id - last_id) // 4
            with contextlib.suppress(Vanished):  # a program has deleted rows of a part meanwhile
                for part in archive.parts(reading, last_id=last_id):
                    noted = self._write(connection, partial(archive.note, part=part))
                    if noted:  # else another process has archived these rows into another folder
                        rows, taken, parts = rows + part.head.rows, taken + part.size, parts + 1
                    self._show("archiving", rows, last_id - before.first_id + 1)
            done = self._prune(connection, before, cut)
            first_id = state.first_id
            state, cut = self._plan(reading)
            if not done or cut is None or state.first_id == first_id:
                break
        archived = f"archived {counted(rows, 'row')} in {counted(parts, 'file')}, {format_size(taken)}"
        write_line(archived if rows else "nothing to archive")
        if expired := archive.expired:
            _say_removed("removed", expired)
        return done and cut is None

    def _prune(self, connection: Connection, before: State, cut: Cut | None) -> bool:
        """Delete the rows beyond the limits. Returns whether all of them are deleted."""
        goal = 0 if cut is None else cut.last_id - before.first_id + 1
        while self._pruner.limits:
            begin = self._clock()
            due = self._write(connection, self._pruner.step)
            self._show("deleting", sum(self._pruner.deleted.values()), goal)
            if self._pruner.wal.pinned is not None:
                if not self._write_back(connection):
                    return False
            elif due != 0:
                break
            self._sleep(min(self._clock() - begin, _LONGEST_PAUSE))
        return True

    def _write(self, connection: Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do what writes, under the lock. A program that writes without it is waited for."""
        give_up = self._clock() + _LOCK_TIMEOUT
        while True:
            with self._turn(connection):
                try:
                    return work(connection)
                except sqlite3.OperationalError as error:
                    if primary_code(error) != sqlite3.SQLITE_BUSY or self._clock() >= give_up:
                        raise
            self._sleep(_LONGEST_PAUSE)

    def _vacuum(self, connection: Connection) -> bool:
        """Give back all free pages. Returns whether that was possible."""
        # The change goes through the WAL. While a reader keeps SQLite from writing that back, it would only grow.
        if not self._write_back(connection):
            return False
        if connection.execute("PRAGMA auto_vacuum").fetchone() != (INCREMENTAL,):
            say("made without auto_vacuum=INCREMENTAL: the file is written anew")
            with self._turn(connection):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
            return True
        left = goal = connection.execute("PRAGMA freelist_count").fetchone()[0]
        while left:
            begin = self._clock()
            with self._turn(connection):
                if free := self._pruner.wal.is_free(connection):
                    connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
                    (left,) = connection.execute("PRAGMA freelist_count").fetchone()
            if not free and not self._write_back(connection):
                return False
            self._show("giving back", goal - left, goal)
            self._sleep(min(self._clock() - begin, _LONGEST_PAUSE))
        return True

    def _write_back(self, connection: Connection) -> bool:
        """Write the WAL back, and wait some time for a reader that prevents it. Returns whether that worked."""
        give_up = self._clock() + _READER_TIMEOUT
        while True:
            with self._turn(connection):
                if self._pruner.wal.write_back(connection):
                    return True
            if self._clock() >= give_up:
                return False
            self._sleep(1.0)


@contextlib.contextmanager
def _bar(clock: Callable[[], float]) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows how much of long work is done, on a terminal only."""
    begin, is_shown = clock(), False

    def show(what: str, done: int, goal: int) -> None:
        nonlocal is_shown
        if sys.stderr.isatty() and goal and clock() - begin >= _BAR_AFTER:
            share, is_shown = min(1.0, done / goal), True
            write_error(f"\r{what} [{'#' * int(share * _BAR_WIDTH):.<{_BAR_WIDTH}}] {share:.0%}\x1b[K")

    try:
        yield show
    finally:
        if is_shown:
            write_error("\r\x1b[K")
