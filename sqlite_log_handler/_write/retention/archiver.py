"""
The archive of a program that logs: which rows are archived when, on a thread of its own.

Theory of operation
===================

Retention asks the `Archiver` at each of its steps, on the thread that commits and under its lock, and may delete only
what `bound` allows. The archiver works ahead: it begins when rows that no part has make half of a limit, and goes on
until they make a quarter. So its thread has the time in which the other half fills, and a part has many rows.

The thread reads by a connection of its own and writes to the folder. It never writes to the log: it hands each part
over, and waits until a step has noted it. It ends when the goal is reached. `close` waits a second for a part that is
being written. Then it gives the part up, and the next program archives its rows. It also waits for the thread to end,
which takes a chunk's time: if the interpreter exits while a thread is in Arrow, Arrow may abort the process. On a disk
that does not answer it does not end, and `close` comes up to three times, so all wait for LAST_CHUNK seconds together.

Guarantees
==========

- The thread that commits waits neither for the folder nor for the thread of the archive.
- With unarchived="keep" no row leaves the file before it is in a part that is noted. With "delete" rows go when a limit
  is urgent. They are counted in `marks.unarchived`, but for those that were already in the part that is being written.
- When the archive fails, the operator gets one line, and one more when it works again. In between the archiver tries
  again after RETRY seconds, then after twice as many, up to LONGEST_RETRY.
"""

import contextlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from sqlite_log_handler._logfile.clock import monotonic
from sqlite_log_handler._logfile.columns import whole
from sqlite_log_handler._logfile.connect import connect_read_only, identity_of, is_corrupt
from sqlite_log_handler._logfile.locks import acquire
from sqlite_log_handler._logfile.schema import ARCHIVED_ID
from sqlite_log_handler._write import threads
from sqlite_log_handler._write.retention.archive import Archive, WrittenPart
from sqlite_log_handler._write.retention.limits import Cut, Limits, State, seconds, size
from sqlite_log_handler._write.retention.parts import CREATED, Vanished, ask

if TYPE_CHECKING:
    from sqlite_log_handler._logfile.forks import Connection

# Seconds between two looks at a thread that works.
POLL: Final = 0.05

RETRY: Final = 5.0
LONGEST_RETRY: Final = 80.0

# Seconds for the end of the thread, which takes a twentieth of one unless the machine is very busy. With the second for
# a part, that is the default of `close_timeout`.
LAST_CHUNK: Final = 4.0

# Of nice(2): a third of the weight of other threads. At 19, a thread that has the GIL would hold up the others for long
# when the machine is busy.
_NICE: Final = 5

# What becomes of rows that a limit asks to be deleted before they are archived.
KEEP: Final = "keep"
DELETE: Final = "delete"

_DAY: Final = 86_400
# How often we look at the age of rows while one reaches `max_age`.
_LOOKS: Final = 16

# Where somebody has deleted rows, the next one to archive lies behind a hole.
_MARKS: Final = f"""
SELECT {ARCHIVED_ID}, {whole("unarchived")}, (SELECT min(id) FROM records WHERE id > {ARCHIVED_ID}) FROM marks
"""  # noqa: S608 - our own names
_LAST_BEFORE: Final = "SELECT id FROM records WHERE created_us < ? ORDER BY created_us DESC LIMIT 1"


def archived_only(connection: sqlite3.Connection, state: State, cut: Cut) -> Cut | None:
    """Return as much of a cut as is archived, None for nothing. `sqlite-log prune --archive` deletes no more."""
    archived_id, *_ = connection.execute(_MARKS).fetchone()
    if cut.last_id <= archived_id:
        return cut
    return cut._replace(last_id=archived_id, partial=True) if archived_id >= state.first_id else None


class Archiver:
    """
    Archive the rows that `limits` will ask to be deleted.

    Args:
        make: Makes the `Archive` of the log at a path.
        limits: What is kept in the file.
        deletes: Whether rows that are not archived are deleted when a limit is urgent.
        say: Called with a line for the operator when the archive fails, and when it works again.
        now: Seconds since 1970, against which the age of rows is measured.
        clock: Seconds that never jump.
    """

    def __init__(
        self,
        make: Callable[[str], Archive],
        limits: Limits,
        *,
        deletes: bool = False,
        say: Callable[[str], None] = print,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._make = make
        self._limits = limits
        self._deletes = deletes
        self._say = say
        self._now = now
        self._clock = clock
        self._path = ""
        self._run: _Run | None = None
        self._last_run: _Run | None = None  # which may have been stopped
        self._thread: threading.Thread | None = None  # of the last run
        self._end_due = math.inf  # when its end is not waited for any more, by `clock`
        self._wanted = 0  # retention would have deleted rows up to this id
        self._unarchived = 0  # rows that were deleted without an archive, before the run
        self._ending = False
        self._error: str | None = None  # while it fails
        self._other: str | None = None  # what another process does that archives the log
        self._retry = RETRY  # seconds until the next attempt, if this one fails
        self._corrupt: object = None  # the file that the last run found corrupt
        self._next_run = 0.0  # by `clock`, as the next line
        self._next_aged = 0.0  # when to look at the age of rows again

    def opened(self, path: str) -> None:
        """Archive the log at `path`, whose file was opened, and may be another one."""
        self._wanted = 0
        self._ending = False
        if self._run is not None and self._run.file != identity_of(path):
            self.stop()
        self._path = path

    def forget(self) -> None:
        """Begin anew in a forked child, which has no thread."""
        if self._last_run is not None:
            self._last_run.archive.lock.close()
        self._run = self._last_run = self._thread = None

    def step(self, connection: sqlite3.Connection, state: State) -> float:
        """
        Note a part that is ready, and begin a run if one is due, between two transactions of the `connection`.

        Return the seconds until there is more to do, infinity when there is nothing to come.
        """
        run = self._run
        if run is not None:
            if run.part is not None:
                run.parts += run.archive.note(connection, run.part)
                run.answer(stop=self._ending)
            if not run.ended and self._thread is not None and self._thread.is_alive():
                return POLL
            self._run = None
            self._ended(run)
        _, unarchived, first_id = connection.execute(_MARKS).fetchone()
        # Rows were deleted, and none was archived: it is too slow for those that go next.
        overtaken = self._deletes and run is not None and not run.parts and unarchived > self._unarchived
        self._unarchived = unarchived
        if first_id is None or first_id > state.last_but_one_id or self._ending:
            return math.inf
        wait, goal = self._next_run - self._clock(), 0
        if wait <= 0:
            wait, goal = self._goal(connection, state, first_id)
        if wait > 0:
            return wait
        if overtaken:  # begin half-way, to be ahead again
            first_id = (first_id + state.last_but_one_id) // 2
        self._run = self._last_run = run = _Run(self._make(self._path))
        self._end_due = math.inf
        last_id = max(goal, first_id)
        self._thread = threads.make(run.work, first_id, last_id, name="sqlite_log_handler archive", nice=_NICE)
        try:
            threads.start(self._thread)
        except RuntimeError as error:  # there is no room for one more thread, or the interpreter exits
            run.answer(stop=True)  # it may begin late
            self._thread = None
            run.error, run.ended = error if threading.main_thread().is_alive() else None, True
        return POLL

    def bound(self, connection: sqlite3.Connection, state: State, cut: Cut) -> Cut | None:
        """Return as much of a cut as may be deleted now, None for nothing."""
        if cut.cause != "max_age" or self._clock() >= self._next_aged:
            self._wanted = max(self._wanted, cut.last_id)
        self.step(connection, state)
        return cut if self._deletes and cut.urgent else archived_only(connection, state, cut)

    @contextlib.contextmanager
    def quiet(self, timeout: float) -> Iterator[bool]:
        """Keep the reader of the archive still over the `with` block; tell whether it is."""
        reader = None if self._run is None else self._run.reader
        if reader is None:
            yield True
            return
        still = False
        try:
            (still,) = acquire(reader.lock, timeout)
            if not still:  # its thread gets too little of a busy machine
                with contextlib.suppress(sqlite3.Error):  # it was just closed
                    reader.interrupt()
                (still,) = acquire(reader.lock, timeout)
            yield still
        finally:
            if still:
                reader.lock.release()

    @property
    def why(self) -> str:
        """A clause that says why no row may be deleted."""
        because = f", which fails ({self._error})" if self._error else f", and {self._other}" if self._other else ""
        return f"the rows in it wait for the archive{because}"

    def await_part(self, timeout: float) -> bool:
        """Wait for a part, or the end of the run, and let nothing begin before `stop`; tell whether there was a run."""
        self._ending = True
        run = self._run
        if run is not None:
            deadline = monotonic() + timeout
            while run.part is None and not run.ended and deadline > monotonic():
                run.changed.acquire(timeout=max(0, deadline - monotonic()))  # it may tell of an earlier part
        return run is not None

    def stop(self) -> None:
        """End the run. Its thread ends at the next chunk."""
        self._ending = False
        run, self._run = self._run, None
        if run is not None:
            self._end_due = self._clock() + LAST_CHUNK
            run.answer(stop=True)

    def await_end(self, timeout: float) -> None:
        """Wait for the thread's end, LAST_CHUNK after `stop` at most. The caller does not hold the commit lock."""
        if self._thread is not None:
            self._thread.join(max(0, min(timeout, self._end_due - self._clock())))

    def _goal(self, connection: sqlite3.Connection, state: State, first_id: int) -> tuple[float, int]:
        """Return in how many seconds a run is due, and up to which id it is to go."""
        limits, last_id, wait = self._limits, state.last_id, math.inf
        goals = [self._wanted]
        room = state.rows * (limits.file_bytes - limits.free_bytes) // max(1, state.live)  # in rows
        room = min(room, limits.max_rows or room)
        if last_id - first_id + 1 > room // 2:
            goals.append(last_id - room // 4)
        if limits.max_age is not None:
            now = self._now()
            oldest = (connection.execute(CREATED, (first_id,)).fetchone() or (now * 1e6,))[0] / 1e6
            wait = max(oldest + limits.max_age / 2 - now, self._next_aged - self._clock())
            if wait <= 0:
                # Up to a quarter of the age, or to the last midnight before that.
                until = now - limits.max_age / 4
                if oldest // _DAY < until // _DAY:
                    until -= until % _DAY
                goals += connection.execute(_LAST_BEFORE, (round(until * 1e6),)).fetchone() or ()
                # Rows that come of age one by one go together.
                wait = limits.max_age / _LOOKS
                self._next_aged = self._clock() + wait
        goal = min(max(goals), state.last_but_one_id)
        return (0, goal) if goal >= first_id else (wait, 0)

    def _ended(self, run: "_Run") -> None:
        """Choose when the next run may begin, and tell the operator when the archive begins to fail or works again."""
        pause = 0.0
        known, self._corrupt, self._other = self._corrupt, None, None
        match run.error:
            case None if run.parts and self._error:
                self._retry, self._error = RETRY, None
                self._say("archiving again")
            case None | Vanished():  # retention was faster than the run
                pass
            case _ if run.file != identity_of(self._path):  # it was moved in the middle of the run
                pass
            case sqlite3.Error() as error if is_corrupt(error):
                # The thread that commits moves the log aside, if a second reader finds the same. One may be wrong, when
                # somebody has removed the -shm.
                if known == run.file:
                    raise error
                self._corrupt = run.file
            case TimeoutError(errno=None) as error:  # another process archives; a disk has an `errno`
                self._other, pause = str(error), RETRY / 5
            case error:
                self._error = f"{type(error).__name__}: {error}"
                if self._retry == RETRY:
                    then = "rows are deleted without it when a limit asks for that" if self._deletes else "rows stay"
                    self._say(f"cannot archive in {run.archive.folder!r} ({self._error}): {then}; trying again")
                pause, self._retry = self._retry, min(2 * self._retry, LONGEST_RETRY)
        self._next_run = self._clock() + pause
        if pause:
            self._next_aged = 0.0


def archiver(
    folder: Any,
    limits: Limits,
    *,
    unarchived: Any = KEEP,
    max_age: Any = None,
    max_bytes: Any = None,
    say: Callable[[str], None] = print,
) -> Archiver | None:
    """
    Return the `Archiver` that these options ask for; None if they ask for none.

    Raises:
        TypeError, ValueError: One is of the wrong kind, or out of range.
        FileNotFoundError: The folder does not exist.
    """
    if unarchived not in (KEEP, DELETE):
        raise ValueError(f"unarchived={unarchived!r}: must be {KEEP!r} or {DELETE!r}")
    kept = Limits(seconds("archive_max_age", max_age), max_bytes=size("archive_max_bytes", max_bytes))
    if folder is None:
        given = {"unarchived": unarchived != KEEP, "archive_max_age": max_age, "archive_max_bytes": max_bytes}
        for option in (name for name, value in given.items() if value):
            raise ValueError(f"{option} needs an archive: name its folder with archive")
        return None
    folder = folder_of("archive", folder)
    if not limits:
        raise ValueError(
            f"archive={folder!r}: nothing leaves the file without a limit: give max_age, max_rows or max_bytes"
        )
    make = partial(Archive, folder, limits=kept, say=cache(say))  # each run says the same of its folder
    return Archiver(make, limits, deletes=unarchived == DELETE, say=say)


def folder_of(option: str, value: Any) -> str:
    """Return the absolute path of a folder. Raises TypeError, ValueError or FileNotFoundError if there is none."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{option}={value!r}: must be a path (str or os.PathLike)")
    if not os.fspath(value):
        raise ValueError(f"{option}={value!r}: must be the path of a folder; '.' is the current one")
    folder = os.path.abspath(os.fsdecode(value))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{option}={value!r}: there is no folder {folder!r}: create it first")
    return folder


class _Run:
    """One run of the archive's thread, which sets `part`, and goes on when a step has noted or refused it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.reader: Connection | None = None
        self.file = identity_of(archive.path)
        self.part: WrittenPart | None = None
        self.parts = 0  # that were noted
        self.error: BaseException | None = None
        self.ended = False
        self.changed = threading.Lock()  # taken, until a part is ready or the run has ended
        self.changed.acquire()
        self._answered = threading.Lock()  # taken, until a part has had its turn or the run is to end
        self._answered.acquire()
        self._stopped = False

    def answer(self, *, stop: bool) -> None:
        """Let the thread go on, because the part has had its turn, or end as soon as it can."""
        self._stopped, self.part = stop, None
        _let_go(self._answered)

    def work(self, first_id: int, last_id: int) -> None:
        """Archive the rows in a range of ids, on a thread of its own."""
        try:
            with self.archive.lock.hold(0), contextlib.closing(connect_read_only(self.archive.path)) as self.reader:
                # The thread that commits runs what an owner has added in any case. Without this, SQLite 3.40 takes a
                # log that has an index by JSON for a corrupt one.
                ask(self.reader, "PRAGMA trusted_schema = ON")
                for part in self.archive.parts(self.reader, first_id, last_id, lambda: self._stopped):
                    self.part = part
                    _let_go(self.changed)
                    self._answered.acquire()
        except BaseException as error:  # noqa: BLE001 - the step that finds it tells the operator
            self.error = error
        finally:
            self.reader = None
            self.archive.lock.close()
            self.ended = True
            _let_go(self.changed)


def _let_go(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # it is free already
        lock.release()
