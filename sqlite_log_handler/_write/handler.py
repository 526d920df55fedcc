"""
`SQLiteHandler`: the options, and the few steps from a LogRecord to the queue.

What runs where, and why nothing here can block or raise, stands in `_write.queue` and `_write.listener`.

`emit` takes no lock but the queue's. `handle` is overridden because the one it inherits takes the handler's lock, which
`logging.shutdown` holds while it flushes and closes.

The queue is closed as long as there is no thread to commit what comes: before the first record, after `close`, and in
a forked child. Then `admits` refuses everything, so the common path needs no check; the refused record finds the queue
closed and starts the listener. A handler that was closed comes back to life in this way, as a `FileHandler` in append
mode does. When no thread can be started any more, because the interpreter exits, the record is committed by its caller.
"""

import atexit
import contextlib
import logging
import os
import select
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, TextIO

from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write.listener import MARK, RecordListener, all_listeners
from sqlite_log_handler._write.queue import Closed, RecordQueue
from sqlite_log_handler._write.retention.limits import limits
from sqlite_log_handler._write.row import CREATED, LEVELNO, SOURCE, PackedRow, forget_threads, make_row, marker_row
from sqlite_log_handler._write.writer import Writer

# How long a record logged after the exit has begun waits for another thread's commit.
_EXIT_COMMIT_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Stats:
    """
    One consistent look at a handler's books: `seen == written + dropped_total + queued`.

        >>> stats = SQLiteHandler("app-log.db").stats()
        >>> stats.seen == stats.written + stats.dropped_total + stats.queued
        True

    All counts are of records since the handler was made (in a forked child: since the fork).

    Attributes:
        seen: Records that reached the handler.
        written: Records committed to the database.
        dropped_total: Records dropped, for whatever cause.
        queued: Records waiting for their commit.
        queued_bytes: Memory that they take, estimated, in bytes.
        peak_queued: The most that ever waited.
        dropped_by_cause: `dropped_total` by cause, see the reference.
        dropped_by_level: `dropped_total` by level name.
        dropped_by_logger: `dropped_total` by logger name; after 1,000 of them by "(other)".
        truncated: Records cut to `max_record_bytes`.
        malformed: Records with a marker in place of something that could not be kept.
        last_commit_age: Seconds since the last commit that succeeded, None before the first.
        last_error: What the last commit that failed said, None if none did.
    """

    seen: int
    written: int
    dropped_total: int
    queued: int
    queued_bytes: int
    peak_queued: int
    dropped_by_cause: dict[str, int]
    dropped_by_level: dict[str, int]
    dropped_by_logger: dict[str, int]
    truncated: int
    malformed: int
    last_commit_age: float | None
    last_error: str | None


class SQLiteHandler(logging.Handler):
    """
    Keep log records in an SQLite file, without ever making the caller wait for it.

        >>> handler = SQLiteHandler("app-log.db", level="INFO")
        >>> logging.getLogger().addHandler(handler)
        >>> logging.getLogger("shop").warning("stock of %s is low", "tea")
        >>> handler.flush()
        True

    Records wait in a bounded queue for a thread that commits them in batches. What does not fit is dropped, and every
    drop is counted: in `dropped_total`, in one warning per flush tick by the logger "sqlite_log_handler", and in the
    database.

    Args:
        filename: Path of the database; made absolute now, because daemons change their folder. Its folder must exist.
            A symbolic link stands for the file to which it leads, and is followed when it is switched.
        level: As for any handler.
        capacity: Records queued at most, 1 or more.
        capacity_bytes: Bytes queued at most, by the estimated size of the rows in memory; 65,536 or more.
        max_record_bytes: Message, traceback, stack and attributes of a record take this many bytes together at most;
            what is longer is cut, marked and counted. 1,024 or more; a sixteenth of `capacity_bytes` if that is less.
        reserve: Share of both capacities that is kept for `reserve_level` and above, from 0 to below 1.
        reserve_level: Level number or name.
        batch_size: Records per transaction at most, 1 or more.
        flush_interval: Seconds until a queued record is committed, from 0.001 to 3,600; also the flush tick.
        flush_level: A record at or above it is committed at once, without its caller waiting for that.
        close_timeout: Seconds that `flush` and `close` may take each, from 0 to 3,600.
        max_age: Records that are older are deleted: seconds, or a text like "7d", "12h", "30m"; 1 second or more. None,
            the default of all three, keeps everything.
        max_rows: Records kept at most, 1 or more; of more the oldest are deleted.
        max_bytes: Bytes that the file and its WAL take together at most: a number, or a text like "500MB", "2GB",
            "64MiB"; 1,048,576 or more. The oldest records are deleted; when that does not help, new ones are dropped.

    Raises:
        TypeError, ValueError: An option is of the wrong kind, or out of range.
        FileNotFoundError, IsADirectoryError: `filename` leads nowhere, or to a directory.
        ForeignFileError, NewerSchemaError: The file is not a log of ours, or too new. It was left as it is.
    """

    # Post-mortem of an unbounded channel that grew to 26 GB: 100,000 entries, 100 ms or 10,000 entries a transaction.
    # 64 MiB: 100,000 rows of the size that log lines have (320 bytes of memory) are half of that.
    # 64 KiB a record: what journald takes per field before it compresses, and twice what syslog receivers take.
    # 5 seconds to close: below the 10 that docker and systemd give before SIGKILL.
    def __init__(
        self,
        filename: str | os.PathLike[str],
        level: int | str = logging.NOTSET,
        *,
        capacity: int = 100_000,
        capacity_bytes: int = 64 * 1024 * 1024,
        max_record_bytes: int = 64 * 1024,
        reserve: float = 0.1,
        reserve_level: int | str = "WARNING",
        batch_size: int = 10_000,
        flush_interval: float = 0.1,
        flush_level: int | str = "ERROR",
        close_timeout: float = 5.0,
        max_age: float | str | None = None,
        max_rows: int | None = None,
        max_bytes: int | str | None = None,
    ) -> None:
        levelno = _level("level", level)
        queue = RecordQueue(
            _integer("capacity", capacity, 1),
            _integer("capacity_bytes", capacity_bytes, 64 * 1024),
            reserve=_number("reserve", reserve, 0, 1, below=True),
            reserve_levelno=_level("reserve_level", reserve_level),
            batch_size=_integer("batch_size", batch_size, 1),
            flush_levelno=_level("flush_level", flush_level),
        )
        max_record_bytes = _integer("max_record_bytes", max_record_bytes, 1024)
        flush_interval = _number("flush_interval", flush_interval, 0.001, 3600)
        close_timeout = _number("close_timeout", close_timeout, 0, 3600)
        keep = limits(max_age, max_rows, max_bytes)
        path = _path(filename)
        say = _Say(path)
        # Half a tick at most, because nothing ends SQLite's wait for a lock.
        lines: deque[str] = deque()
        writer = Writer(path, busy_timeout=min(0.05, flush_interval / 2), limits=keep, say=lines.append)
        writer.file.open_first()

        # From here on nothing can fail: a handler that is half made would stay in logging's list.
        super().__init__(levelno)
        self.filename = path
        self.queue = queue
        # A sixteenth: text that is not ASCII takes five times its UTF-8 in memory, and a row must fit into an empty
        # queue.
        self.max_record_bytes = min(max_record_bytes, capacity_bytes // 16)
        if keep.max_bytes is not None:
            self.max_record_bytes = min(self.max_record_bytes, keep.commit_bytes)
        self.listener = RecordListener(
            queue,
            writer,
            retention=writer if keep else None,
            commit_bytes=keep.commit_bytes,
            flush_interval=flush_interval,
            close_timeout=close_timeout,
            say=say,
            lines=lines,
        )
        while lines:
            say(lines.popleft())
        # The thread holds the listener, not the handler, so a handler that nobody has any more can go.
        weakref.finalize(self, self.listener.retire).atexit = False

    # Logging ----------------------------------------------------------------------------------------------------------

    def handle(self, record: logging.LogRecord) -> bool:
        """
        Emit `record` if the filters let it pass. Takes no lock.
        """
        if self.filters:
            try:
                passed: Any = self.filter(record)
            except Exception as error:  # noqa: BLE001 - a filter may be there to keep a secret out: keep the content out
                self._put_anyway(record, marker_row(record, error), error)
                return True
            if not passed:
                return False
            if isinstance(passed, logging.LogRecord):  # 3.12: a filter may hand over another record
                record = passed
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """
        Queue `record` as a row, or count it as dropped.

        Never waits for the disk, and raises no Exception. KeyboardInterrupt and SystemExit come through, because they
        are the program's; the record is kept with a marker.
        """
        queue = self.queue
        row = None
        try:
            if record.name == OWN_LOGGER and vars(record).get(MARK) == id(self.listener):
                # The report of our own drops reaches the database on its own way. Here it could become the next drop.
                return
            admits = queue.admits
            if (
                admits is not None
                and record.levelno < admits
                and queue.refuse(record.levelno, record.created, record.name)
            ):
                return
            row = make_row(record, self.formatter, self.max_record_bytes)
            queue.put_nowait(row)
        except Exception as error:  # noqa: BLE001 - Closed; a levelno of None, no LogRecord at all, a signal handler's
            self._put_anyway(record, row, error)
        except BaseException as error:
            self._put_anyway(record, row, error)
            raise

    def _start(self) -> bool:
        """
        Start the listener, and say whether it could be.
        """
        if _exit.begun:
            return False
        _exit.register_in_child()
        try:
            self.listener.start()
        except RuntimeError:
            return False
        return True

    def _put_without_listener(self, row: PackedRow) -> None:
        """
        Queue a row though no thread can be started; at exit there will be none, so commit it here.
        """
        queue = self.queue
        queue.open()
        queue.put_nowait(row)
        queue.close()
        if _exit.begun:
            self.listener.commit(_EXIT_COMMIT_TIMEOUT)

    def _put_anyway(self, record: logging.LogRecord, row: PackedRow | None, error: BaseException) -> None:
        """
        Queue a record on whatever way there is, or count it.

        Args:
            record: What is to be logged.
            row: The row that was made of it, if it came so far.
            error: What was raised on the usual way: `Closed`, or what the record's own code or a signal handler raises.
                A signal handler may have raised when the row was queued already.
        """
        queue = self.queue
        try:
            if row is None:
                row = self._row_of(record, error)
            elif not isinstance(error, Closed) and queue.holds(row):
                queue.wake()
                return
            while True:
                with contextlib.suppress(Closed):
                    if queue.closed and not self._start():
                        self._put_without_listener(row)
                    else:
                        queue.put_nowait(row)
                    return
        except BaseException as again:  # a signal handler's, or no frame is left on the stack
            if isinstance(error, Closed):
                self._put_anyway(record, row, again)
            else:
                # Not in a function of its own, for which there may be no frame.
                row = row or marker_row(record, again)
                if not queue.holds(row):
                    queue.contended.append((row[LEVELNO], row[CREATED], row[SOURCE][0]))
                queue.wake()
                if isinstance(again, Exception):
                    with contextlib.suppress(Exception):
                        self.handleError(record)
            if not isinstance(again, Exception):
                raise

    def _row_of(self, record: logging.LogRecord, error: BaseException) -> PackedRow:
        # A BaseException may be of the record's own code, which is not asked again.
        if isinstance(error, Exception) and issubclass(type(record), logging.LogRecord):
            return make_row(record, self.formatter, self.max_record_bytes)
        return marker_row(record, error)

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]  # says what Handler.flush does not
        """
        Commit what is queued now, on the caller's thread.

        Args:
            timeout: Seconds to try; by default `close_timeout`.

        Returns:
            Whether nothing of it is queued any more. Then all was written, except what `max_bytes` had no room for,
            which is dropped and counted (`disk_budget`).
        """
        return self.listener.flush(timeout)

    def close(self) -> None:
        """
        Write what is queued, end the thread, send the last drop warning and close the file, within `close_timeout`.

        What cannot be written by then is dropped and counted (`close_timeout`), and stderr gets a line. Raises nothing:
        `logging.shutdown` would skip the handlers that come after this one. A record that comes later starts it all
        again.
        """
        try:
            self.listener.close()
        except Exception:  # noqa: BLE001 - another handler, when it is given the last report
            with contextlib.suppress(Exception):
                self.handleError(logging.makeLogRecord({"name": OWN_LOGGER}))
        finally:
            super().close()

    # Books ------------------------------------------------------------------------------------------------------------

    @property
    def dropped_total(self) -> int:
        """
        Records dropped until now, for whatever cause.
        """
        return self.queue.dropped_total

    def stats(self) -> Stats:
        """
        Return one consistent snapshot of the books; see `Stats`.
        """
        books = self.queue.books()
        by_cause: dict[str, int] = {}
        by_level: dict[str, int] = {}
        by_logger: dict[str, int] = {}
        for (cause, levelno, logger), count in books.pop("drops").items():
            level = logging.getLevelName(levelno)
            by_cause[cause] = by_cause.get(cause, 0) + count
            by_level[level] = by_level.get(level, 0) + count
            by_logger[logger] = by_logger.get(logger, 0) + count
        return Stats(
            **books,
            dropped_by_cause=by_cause,
            dropped_by_level=by_level,
            dropped_by_logger=by_logger,
            last_commit_age=self.listener.last_commit_age,
            last_error=self.listener.last_error,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.filename} ({logging.getLevelName(self.level)})>"


# Options --------------------------------------------------------------------------------------------------------------


def _integer(option: str, value: object, minimum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{option}={value!r}: must be an integer, {minimum:,} or more"
        raise TypeError(message)
    if value < minimum:
        message = f"{option}={value!r}: must be {minimum:,} or more"
        raise ValueError(message)
    return value


def _number(option: str, value: object, minimum: float, maximum: float, *, below: bool = False) -> float:
    allowed = f"from {minimum:,} to {'below ' if below else ''}{maximum:,}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        message = f"{option}={value!r}: must be a number {allowed}"
        raise TypeError(message)
    # Written so that NaN is out of range too.
    if not (minimum <= value < maximum if below else minimum <= value <= maximum):
        message = f"{option}={value!r}: must be {allowed}"
        raise ValueError(message)
    return float(value)


def _level(option: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    names = logging.getLevelNamesMapping()
    allowed = f"must be a level number, or one of {', '.join(names)}"
    if not isinstance(value, str):
        message = f"{option}={value!r}: {allowed}"
        raise TypeError(message)
    if value not in names:
        message = f"{option}={value!r}: {allowed}"
        raise ValueError(message)
    return names[value]


def _path(filename: object) -> str:
    """
    Return the absolute path of a database, refusing what SQLite takes for something else than a path.
    """
    if not isinstance(filename, str | os.PathLike):
        message = f"filename={filename!r}: must be a path (str or os.PathLike)"
        raise TypeError(message)
    name = os.fsdecode(filename)
    if not name or name == ":memory:" or name.startswith("file:") or "\0" in name:
        message = (
            f"filename={name!r}: must be the path of a file: an empty name, ':memory:' and 'file:' URIs "
            "would not be kept, and a NUL ends a path"
        )
        raise ValueError(message)
    path = os.path.abspath(name)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        message = f"filename={name!r}: there is no folder {folder!r}: create it first"
        if name.startswith("~"):
            message = f"filename={name!r}: '~' is not expanded: use os.path.expanduser({name!r})"
        raise FileNotFoundError(message)
    if os.path.isdir(path):
        message = f"filename={name!r}: is a directory: add the name of a file"
        raise IsADirectoryError(message)
    if os.path.exists(path) and not os.path.isfile(path):
        message = f"filename={name!r}: is a device, a pipe or a socket: choose another"
        raise ValueError(message)
    return path


class _Say:
    """
    Write a line to stderr, for who operates the program: never raises, never more than one line, and none to a pipe
    that is full because nobody reads it: that would hold the listener, and `close`, for as long as nobody does.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, text: str) -> None:
        line = printable(f"sqlite_log_handler: {self.path}: {text}")
        if logging.raiseExceptions and sys.stderr:
            with contextlib.suppress(Exception):
                if _takes_more(sys.stderr):
                    sys.stderr.write(line + "\n")


def _takes_more(stream: TextIO) -> bool:
    """
    Tell whether to write to `stream` returns at once, as far as the system tells.
    """
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except Exception:  # noqa: BLE001 - no poll (Windows), or a stream of the program's own, which is no file
        return True


# The process: exit and fork -------------------------------------------------------------------------------------------


class _Exit:
    """
    Write what is queued when the interpreter exits.

    `logging.shutdown` closes the handlers in logging's list. A handler that `dictConfig` has taken off that list
    while it stays attached to a logger is not there, nor is one that came back to life; here all are.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """
        Begin anew: for `__init__`, and for a forked child.
        """
        self.begun = False
        self._registered_in_child = False

    def __call__(self) -> None:
        self.begun = True
        for listener in all_listeners():
            with contextlib.suppress(Exception):  # of another handler, when it is given the last report
                listener.close()

    def register_in_child(self) -> None:
        """
        Be called at the end of a multiprocessing child: up to Python 3.12 it runs no atexit callback.
        """
        if self._registered_in_child or "multiprocessing.process" not in sys.modules:
            return
        from multiprocessing import process, util  # noqa: PLC0415 - only where it is there already

        if process.parent_process() is not None:
            self._registered_in_child = True
            util.Finalize(None, self, exitpriority=0)


# An RLock, which logging makes anew in a child.
_LOGGING_LOCK = logging._lock  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to take it first

_exit = _Exit()
atexit.register(_exit)


# One entry for each fork in progress that has logging's lock: a signal handler may raise before one has it.
_forks: list[None] = []


def _before_fork() -> None:
    # First of all what logging takes after us: `dictConfig` holds it while it closes handlers, each of which waits for
    # its commit lock.
    _LOGGING_LOCK.acquire()
    _forks.append(None)
    for listener in all_listeners():
        listener.before_fork()


def _after_fork_in_parent() -> None:
    """
    Let go of all that is held, and of nothing the second time: it is registered twice, because a signal handler that
    waited for the end of the fork may raise before its first line.
    """
    for listener in all_listeners():
        listener.after_fork_in_parent()
    if _forks:
        _forks.pop()
        _LOGGING_LOCK.release()


def _after_fork_in_child() -> None:
    _exit.forget()
    _forks.clear()
    forget_threads()
    for listener in all_listeners():
        listener.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
    os.register_at_fork(after_in_parent=_after_fork_in_parent)
