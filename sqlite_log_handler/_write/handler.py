"""
`SQLiteHandler`: its options, and the few steps from a LogRecord to the queue.

`_write.queue` and `_write.listener` say which thread does what, and why nothing here can block or raise.

While no thread commits, the queue is closed: before the first record, after `close`, and in a forked child. Then
`admits` refuses everything, so the common path needs no check. The refused record finds the queue closed and starts the
listener. So a closed handler comes back to life, as a `FileHandler` in append mode does. While the interpreter exits no
thread can be started, and the caller commits its record itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from time import time  # a test of the program may replace `time.time`

from sqlite_log_handler._logfile.locks import MutexTimeoutError
from sqlite_log_handler._logfile.schema import MAX_RECORD_BYTES, OWN_LOGGER
from sqlite_log_handler._logfile.typed import Any, NamedTuple
from sqlite_log_handler._write import options, process
from sqlite_log_handler._write import row as _row
from sqlite_log_handler._write.committer import Committer
from sqlite_log_handler._write.drop_report import MARK
from sqlite_log_handler._write.listener import RecordListener
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.plain import level_name
from sqlite_log_handler._write.queue import Closed, RecordQueue
from sqlite_log_handler._write.retention.limits import limits
from sqlite_log_handler._write.row import NewProcess, PackedRow, make_row, marker_row
from sqlite_log_handler._write.writer import Writer

# Frames that starting a thread may take, even where the program has wrapped `Thread.start`.
_START_FRAMES = 100


def _require_frames(count: int) -> None:
    """Raise a RecursionError if there are not `count` frames left, before anything is begun that would need them."""
    if count:
        _require_frames(count - 1)


class Stats(NamedTuple):
    """
    One consistent look at a handler's books: `seen == written + dropped_total + queued`.

        >>> stats = SQLiteHandler("app-log.db").stats()
        >>> stats.seen == stats.written + stats.dropped_total + stats.queued
        True

    All counts are of records since the handler was made (in a forked child: since the fork).
    """

    seen: int
    """Records that reached the handler."""
    written: int
    """Records committed to the database."""
    dropped_total: int
    """Records dropped, for any cause."""
    queued: int
    """Records waiting for their commit."""
    queued_bytes: int
    """Memory that they take, estimated, in bytes."""
    peak_queued: int
    """The most that ever waited."""
    dropped_by_cause: dict[str, int]
    """`dropped_total` by cause, see the reference."""
    dropped_by_level: dict[str, int]
    """`dropped_total` by level name."""
    dropped_by_logger: dict[str, int]
    """`dropped_total` by logger name; after the first 1,000 under "(other)"."""
    truncated: int
    """Records cut to `max_record_bytes`."""
    malformed: int
    """Records with a marker in place of something that could not be kept."""
    oldest_queued_age: float | None
    """Seconds since the oldest queued record was made, None when none waits."""
    last_commit_age: float | None
    """Seconds since the last commit that succeeded, None before the first."""
    last_error: str | None
    """The last error of a commit, of starting a thread, or of another handler given a warning; None without one."""


class SQLiteHandler(logging.Handler):
    """
    Keep log records in an SQLite file, without ever making the caller wait for it.

        >>> handler = SQLiteHandler("app-log.db", level="INFO")
        >>> logging.getLogger().addHandler(handler)
        >>> logging.getLogger("shop").warning("stock of %s is low", "tea")
        >>> handler.flush()
        True

    Records wait in a bounded queue for a thread that commits them in batches. The handler drops what does not fit, and
    counts each drop: in `dropped_total`, in one warning per flush tick by the logger "sqlite_log_handler", and in the
    database.
    """

    # 100,000 records, 100 ms, and 10,000 records a transaction: from the post-mortem of a channel that grew to 26 GB.
    # 64 MiB: 100,000 usual log lines (320 bytes of memory each) take half of that.
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
        fair_share: float = 0.5,
        batch_size: int | None = None,
        flush_interval: float = 0.1,
        flush_level: int | str = "ERROR",
        close_timeout: float = 5.0,
        max_age: float | str | None = None,
        max_rows: int | None = None,
        max_bytes: int | str | None = None,
        archive: str | os.PathLike[str] | None = None,
        unarchived: str = "keep",
        archive_max_age: float | str | None = None,
        archive_max_bytes: int | str | None = None,
    ) -> None:
        """
        Check the options, and make or open the file.

        Args:
            filename: Path of the database, whose folder must exist; made absolute now, because daemons change their
                folder. A symbolic link stands for the file to which it leads, also when it is switched.
            level: As for any handler.
            capacity: Records queued at most, 1 or more.
            capacity_bytes: Bytes queued at most, by the estimated size of the rows in memory; 65,536 or more.
            max_record_bytes: Bytes that message, traceback, stack and attributes of a record take together at most; the
                handler cuts, marks and counts longer ones. 1,024 to 524,288; a sixteenth of `capacity_bytes` if that is
                less.
            reserve: Share of both capacities that is kept for `reserve_level` and above, from 0 to below 1.
            reserve_level: Level number or name.
            fair_share: Fill of the queue, from 0 to 1, from which a logger may hold no more of it than is still free,
                so that a flood by one logger costs the others nothing. 1 turns it off.
            batch_size: Records per transaction at most, 1 or more; when that many are queued, a commit is due at once.
                None is 10,000 a transaction, and due at half of what fits before `fair_share` begins, if that is less.
            flush_interval: Seconds until a queued record is committed, from 0.001 to 3,600; also the flush tick.
            flush_level: A record at or above it is committed at once; its caller does not wait for that.
            close_timeout: Seconds that `flush` and `close` may take each, from 0 to 3,600.
            max_age: Older records are deleted: seconds, or a text like "7d", "12h", "30m"; 1 second or more. None, the
                default of all three, keeps everything.
            max_rows: Records kept at most, 1 or more; the oldest are deleted.
            max_bytes: Bytes that the file and its WAL take together at most: a number, or a text like "500MB", "2GB",
                "64MiB"; 1,048,576 or more. The oldest records are deleted; when that does not help, new ones are
                dropped.
            archive: A folder, which must exist. Records are written to a compressed file in it, and that is read back,
                before they are deleted.
            unarchived: What becomes of records that are not archived in time, because the folder cannot be written to
                or is too slow: "keep", so that new records are dropped once `max_bytes` is reached, or "delete".
            archive_max_age: Files of the archive whose records are all older are deleted, as for `max_age`.
            archive_max_bytes: Bytes that the archive takes at most, as for `max_bytes`.

        Raises:
            TypeError, ValueError: An option is of the wrong kind, or out of range.
            FileNotFoundError, IsADirectoryError: `filename` or `archive` leads nowhere, or `filename` to a directory.
            ForeignFileError, NewerSchemaError: The file is not a log of this package, or too new. It is left alone.
            UnreadableFileError: A pipe, a device or a folder has the name of one of its files.
        """
        levelno = options.level("level", level)
        queue = RecordQueue(
            options.integer("capacity", capacity, 1),
            options.integer("capacity_bytes", capacity_bytes, 64 * 1024),
            reserve=options.number("reserve", reserve, 0, 1, below=True),
            reserve_levelno=options.level("reserve_level", reserve_level),
            fair_share=options.number("fair_share", fair_share, 0, 1),
            batch_size=None if batch_size is None else options.integer("batch_size", batch_size, 1),
            flush_levelno=options.level("flush_level", flush_level),
        )
        max_record_bytes = options.integer("max_record_bytes", max_record_bytes, 1024, MAX_RECORD_BYTES)
        flush_interval = options.number("flush_interval", flush_interval, 0.001, 3600)
        close_timeout = options.number("close_timeout", close_timeout, 0, 3600)
        keep = limits(max_age, max_rows, max_bytes)
        path = options.path(filename)
        process.begin_anew()
        operator = Operator(path)
        archiver = None
        if (archive, unarchived, archive_max_age, archive_max_bytes) != (None, "keep", None, None):
            from sqlite_log_handler._write.retention import archiver as archives  # noqa: PLC0415 - others load none of it

            archiver = archives.archiver(
                archive,
                keep,
                unarchived=unarchived,
                max_age=archive_max_age,
                max_bytes=archive_max_bytes,
                say=operator.say_later,
            )
        writer = Writer(
            path, busy_timeout=min(0.05, flush_interval / 2), limits=keep, archiver=archiver, say=operator.say_later
        )
        writer.file.open_first()

        self.filename = path
        self.queue = queue
        # A sixteenth: text that is not ASCII takes five times its UTF-8 in memory, and a row must fit into an empty
        # queue.
        self.max_record_bytes = min(max_record_bytes, capacity_bytes // 16, 2 * keep.commit_bytes)
        committer = Committer(
            queue, writer, operator, limits=keep, flush_interval=flush_interval, close_timeout=close_timeout
        )
        self.listener = RecordListener(committer)
        # Last, because it puts the handler on logging's list, which closes at exit what is there, half-made or not.
        super().__init__(levelno)
        if type(self).filter is not logging.Filterer.filter:
            self.addFilter(logging.Filter())  # lets all pass, and has `handle` ask the subclass's own `filter`
        operator.say_waiting()
        # The thread holds the listener, not the handler, so a handler that the program no longer has can be collected.
        weakref.finalize(self, process.retire, self.listener).atexit = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit `record` if the filters let it pass. Takes no lock: `logging.shutdown` holds ours to flush and close."""
        try:
            if self.filters:
                try:
                    passed: Any = self.filter(record)
                    if not passed:
                        return False
                except Exception as error:  # noqa: BLE001 - a filter may be there to keep a secret out: so keep no content
                    self._put_anyway(record, None, error, ask_again=False)
                    return True
                if isinstance(passed, logging.LogRecord):  # 3.12: a filter may hand over another record
                    record = passed
            self.emit(record)
        except RecursionError:
            # The stack has no frames left, not even to look for the row on the queue. So the row is not there, because
            # putting it takes more frames. The record counts as dropped, without a call.
            waiting, levelno, created, name = self.queue.ledger.waiting, 0, 0.0, "?"
            if type(record) is logging.LogRecord:
                if type(record.levelno) is int:
                    levelno = record.levelno
                if type(record.created) is float:
                    created = record.created
                if type(record.name) is str:
                    name = record.name
            waiting += (("contended", levelno, created, name),)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """
        Queue `record` as a row, or count it as dropped.

        Never waits for the disk, and raises no Exception. KeyboardInterrupt and SystemExit are the program's and come
        through; the record is kept with a marker.
        """
        queue = self.queue
        row = None
        try:
            if record.name == OWN_LOGGER and vars(record).get(MARK) == id(queue):
                # The report of our drops goes into the database by itself. Here it could become the next drop.
                return
            admits = queue.admits
            if admits is not None and record.levelno < admits:
                if record.process != _row.own_pid:
                    process.begin_anew()  # does nothing if only the record is of another process
                if queue.refuse(record.levelno, record.created, record.name):
                    return
            row = make_row(record, self.formatter, self.max_record_bytes)
            try:
                queue.put_nowait(row)
            except Closed:
                self._put_and_start(row)
        except NewProcess:
            process.begin_anew()
            self.emit(record)
        except BaseException as error:  # from a levelno of None, no LogRecord at all, a signal handler
            # The record's own code may have raised what is no Exception, so it does not run again.
            self._put_anyway(record, row, error, ask_again=isinstance(error, Exception))
            if not isinstance(error, Exception):
                raise

    def _put_and_start(self, row: PackedRow) -> None:
        """Queue a row, and start the listener if there is none."""
        _require_frames(_START_FRAMES)
        queue = self.queue
        while True:
            with contextlib.suppress(Closed):
                if not queue.closed or self._start():
                    queue.put_nowait(row)
                else:  # no thread can be started
                    try:
                        queue.open()
                        queue.put_nowait(row)
                    finally:  # or the next record would not try to start one
                        queue.close()
                    process.at_exit.commit(self.listener.committer)
                return

    def _start(self) -> bool:
        """Start the listener, if that is possible; return whether it was."""
        process.at_exit.register_in_child()
        if process.at_exit.begun:
            return False
        try:
            self.listener.start()
        except RuntimeError as error:
            self.listener.committer.outage.note(error)
            return False
        return True

    def _put_anyway(
        self, record: logging.LogRecord, row: PackedRow | None, error: BaseException, *, ask_again: bool
    ) -> None:
        """Queue a record after an error, or count it. Its own code runs again only with `ask_again`."""
        queue = self.queue
        try:
            process.begin_anew()  # the error may have come before anything else noticed a fork
            if row is not None:
                if queue.holds(row):  # it had been queued already
                    queue.wake()
                    return
            elif ask_again and issubclass(type(record), logging.LogRecord):
                row = make_row(record, self.formatter, self.max_record_bytes)
            else:
                row = marker_row(record, error)
            self._put_and_start(row)
        except BaseException as again:  # a signal handler's, or no frame is left on the stack
            # Not in a function of its own, for which there may be no frame.
            row = row or marker_row(record, again)
            if queue.holds(row):
                queue.wake()
            else:
                queue.contend(row)
            if not isinstance(again, Exception):
                raise
            with contextlib.suppress(Exception):
                self.handleError(record)

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]  # says what Handler.flush does not
        """
        Commit what is queued now, on the caller's thread.

        Args:
            timeout: Seconds to try; by default `close_timeout`.

        Returns:
            True if none of it is queued any more. Then it is written, or `max_bytes` had no room for it, and it is
            dropped and counted (`disk_budget`).
        """
        try:
            process.begin_anew()
            return self.listener.flush(timeout)
        except (MemoryError, MutexTimeoutError) as error:  # logging.shutdown would skip the handlers after this one
            self.listener.committer.outage.note(error)
            return False

    def close(self) -> None:
        """
        Write what is queued, end the thread, send the last drop warning and close the file, within `close_timeout`.

        It drops and counts what it cannot write by then, and says so on stderr. Raises nothing, because
        `logging.shutdown` would skip the handlers after this one. A later record starts the handler again.
        """
        try:
            process.begin_anew()
            self.listener.close()
        except Exception as error:  # noqa: BLE001 - a MemoryError
            self.listener.committer.outage.note(error)
        finally:
            super().close()

    @property
    def dropped_total(self) -> int:
        """Records dropped until now, for any cause."""
        return self.queue.dropped_total

    def stats(self) -> Stats:
        """Return one consistent snapshot of the books; see `Stats`."""
        process.begin_anew()
        books = self.queue.books()
        created = books.pop("oldest_created")
        by_cause: dict[str, int] = {}
        by_level: dict[str, int] = {}
        by_logger: dict[str, int] = {}
        committer = self.listener.committer
        for (cause, levelno, logger), count in books.pop("drops").items():
            for counts, key in (by_cause, cause), (by_level, level_name(levelno)), (by_logger, logger):
                counts[key] = counts.get(key, 0) + count
        return Stats(
            **books,
            dropped_by_cause=by_cause,
            dropped_by_level=by_level,
            dropped_by_logger=by_logger,
            oldest_queued_age=None if created is None else max(0.0, time() - created),
            last_commit_age=committer.outage.last_commit_age(committer.now()),
            last_error=committer.outage.last_error,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.filename} ({logging.getLevelName(self.level)})>"
