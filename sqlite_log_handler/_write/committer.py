"""
The way of rows from the queue into the file, on any thread: the listener's, or one that flushes or closes.

Theory of operation
===================

A commit copies a batch from the head of the queue, writes it in one transaction, and then lets it go. If that fails,
all rows are still queued, and a later tick tries again: after one flush interval, then two, four, up to BACKOFF_LIMIT.

Each tick reports drops, see `_write.drop_report`. Retention comes between commits, under the same lock: a short piece
after a tick that leaves the queue nearly empty. While the queue is fuller than that, the writer does before each commit
what cannot wait.

Guarantees
==========

- A thread takes the commit lock before the queue's mutex. Under either, it neither logs nor talks to the operator.
- `finish` drops, counts and says what it cannot write by its deadline (`close_timeout`). Rows that a stuck commit holds
  stay queued, and count when it ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from sqlite_log_handler._logfile.clock import monotonic
from sqlite_log_handler._logfile.typed import T
from sqlite_log_handler._write.drop_report import DropReport
from sqlite_log_handler._write.locks import CommitLock, another_forks
from sqlite_log_handler._write.log_file import CLOSE_TIMEOUT
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.outage import Outage
from sqlite_log_handler._write.queue import Commit, RecordQueue
from sqlite_log_handler._write.retention.limits import Limits, NoRoom
from sqlite_log_handler._write.row import SIZE_UNIT
from sqlite_log_handler._write.writer import Outcome, Writer

# Seconds between two pieces of retention's work, of some 20 ms each: in between, others have the file and the lock.
_PRUNE_PAUSE = 0.02

# What `close` spends on retention, and on waiting for a part of the archive that is being written: a program that runs
# for less than a tick would else never prune, and never finish a part.
_CLOSE_PRUNE, _CLOSE_ARCHIVE = 0.2, 1.0

# Seconds for each wait at exit when the time is up, or Ctrl-C was pressed: several times what a full batch takes beside
# busy threads, so a slow disk is not taken for one that does not answer.
_HURRY = 0.5


class Committer:
    """
    Commit the rows of `queue` through `writer`, which is only ever called under the commit lock.

    The `operator` hears of outages, and of rows that were given up. `clock` gives seconds that never jump, and `sleep`
    waits between two attempts of `drain`. The other options are those of the handler.
    """

    def __init__(
        self,
        queue: RecordQueue,
        writer: Writer,
        operator: Operator,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        flush_interval: float = 0.1,
        close_timeout: float = 5.0,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.queue = queue
        self.writer = writer
        self.operator = operator
        self.retains = bool(limits)
        self._commit_size = limits.commit_bytes // SIZE_UNIT
        self._most_gaps = limits.volume_lines
        self.flush_interval = flush_interval
        self.close_timeout = close_timeout
        self.now = clock
        self._sleep = sleep
        self._begin()

    def _begin(self) -> None:
        self.lock = CommitLock()
        self.outage = Outage(self.flush_interval)
        self.drop_report = DropReport(self.queue, self.outage, self.operator, self._most_gaps)
        self._report_due = 0.0  # a full batch, or one that was cut, is due much sooner than a tick
        self._no_room = False  # the last commit found none
        self._prune_due: float | None = None
        self._pruned = float("-inf")
        self._has_more = False  # to delete than the last piece of retention's work
        self._given_up = -1  # no time is left for the rows before this position
        self._written: tuple[Commit, set[int]] | None = None  # a batch in the file, whose rows are queued still
        self.exits = False  # the interpreter does
        # No commit that failed is tried again, and no wait is long: at exit the time is up, or Ctrl-C was pressed.
        self.hurried = False

    def forget(self) -> None:
        """Begin anew in a forked child, whose queue is empty by now."""
        self.writer.forget(self.lock.cut_off)
        self._begin()

    def _under_lock(self, work: Callable[[], T], timeout: float) -> T | None:
        try:
            return self.lock.do(work, self.at_most(timeout))
        finally:
            self.operator.say_waiting()

    def tick(self, now: float) -> bool:
        """Report drops, commit and prune, each if it is due. Return whether the next tick is due now: rows are left."""
        more = False
        try:
            if now >= self._report_due and self._report(now):
                self._report_due = now + self.flush_interval
            if now >= self.outage.next_attempt:
                self.outage.retry_due = float("inf")  # this is it, whatever becomes of it
                end = self.queue.end
                more = self.commit() and self.queue.removed < end
            due = self.prune_due
            if due is not None and self.now() >= due and self.queue.queued <= self.queue.capacity // 10:
                self.prune()
        except BaseException as error:  # noqa: BLE001 - it would end the listener's thread
            self.outage.note(error)
        return more

    def _report(self, now: float) -> bool:
        try:
            return self.drop_report.make(now)
        except Exception as error:  # noqa: BLE001 - it would keep the rows from being written
            self.outage.note(error)
            return False

    def commit(self, timeout: float = -1) -> bool:
        """Write a batch, unless another thread's commit takes `timeout` seconds; return False if all stays queued."""
        return self._under_lock(self._commit, timeout) or False

    def _end_written(self) -> None:
        if self._written is not None:
            self.queue.end_commit(*self._written)
            self._written = None

    def _commit(self) -> bool:
        queue = self.queue
        self._end_written()  # or it would be written twice
        batch = queue.begin_commit(self._commit_size)
        if not batch.rows and not batch.gaps:
            queue.end_commit(batch)  # and decide anew what to admit
            return True
        outcome, self._no_room = Outcome(), False
        # At `close` the report of drops may be left. It is small, and this is its last chance.
        in_any_case = not batch.rows and queue.closed
        try:
            self.writer.write(batch, outcome, in_any_case=in_any_case)
            queue.end_commit(batch, outcome.refused)
        except NoRoom as error:
            queue.abort_commit()
            queue.give_up(batch.first + len(batch.rows), "disk_budget")
            self.outage.last_error = str(error)
            self._no_room = True
            return bool(batch.rows)
        except BaseException as error:
            if outcome.written:
                # A signal handler raised when the batch was in the file, or there was no memory to take its rows off.
                self._written = batch, outcome.refused
                self._end_written()
                self._succeeded()
            else:
                queue.abort_commit()
                queue.give_up(self._given_up, "close_timeout")
                self.operator.say_later(self.outage.failed(error, self.now()))
            if not isinstance(error, Exception):
                raise
            return outcome.written
        self._succeeded()
        return True

    def _succeeded(self) -> None:
        now = self.now()
        self.operator.say_later(self.outage.succeeded(now, self.queue.dropped_total))
        if self.retains:
            self._prune_due = max(now, self._pruned + self._prune_pause)

    @property
    def _prune_pause(self) -> float:
        return min(self.flush_interval, _PRUNE_PAUSE) if self._has_more else self.flush_interval

    @property
    def prune_due(self) -> float | None:
        """When retention is due; None if it is not, and while nothing can be written, and so nothing deleted."""
        return None if self.outage.failures else self._prune_due

    @property
    def more_due(self) -> float:
        """When retention goes on with what it has begun, though the rows that wait are not due; infinity if never."""
        due = self.prune_due
        return due if self._has_more and due is not None else float("inf")

    def prune(self, timeout: float = -1) -> float | None:
        """Do a piece of retention's work, with the timeout of `commit`; return as `Writer.prune` does."""
        return self._under_lock(self._prune, timeout)

    def _prune(self) -> float | None:
        due = self.writer.prune()
        self._pruned = self.now()
        self._has_more = due == 0
        self._prune_due = None if due is None else self._pruned + max(due, self._prune_pause)
        return due

    def drain(self, end: int, deadline: float | None) -> bool:
        """Commit the rows before `end` and the gaps that wait now. Without a deadline, give up at the first failure."""
        queue = self.queue
        if end <= self._given_up and deadline is not None:
            # These rows were given up, and no others came since: try, but do not wait again. Logging does so at exit.
            deadline = self.now()
        last_gap = queue.gaps[-1:]  # not those that come meanwhile: there may be no end to them
        tried = False
        # `queued` is asked too: in a child that a signal handler forks in here, `removed` is 0 and stays below `end`.
        while (queue.queued and queue.removed < end) or any(gap in queue.gaps for gap in last_gap):
            left = -1 if deadline is None else max(0, deadline - self.now())
            if tried and not left:
                return False
            tried, removed = True, queue.removed
            if not self.commit(left):
                if self._no_room and queue.removed >= end:
                    return True  # only gaps wait, until there is room
                # `hurried` because two handlers that fail at exit would wait for the drop warnings of each other. But
                # while another thread's commits go on, the disk answers.
                if deadline is None or self.is_nested or (self.hurried and queue.removed == removed):
                    return False
                self._sleep(min(self.flush_interval, 0.05, max(0, deadline - self.now())))
        return True

    def finish(self, deadline: float | None = None, *, prune: bool = True) -> None:
        """Write what is queued, report drops, `prune` a moment, and close; drop what is not written by the deadline."""
        end = self.queue.end
        self._report(self.now())  # before the rows are written, or the gap would stand behind them
        done = self.drain(end, deadline)
        # A fork of another thread ends, and then the rows can be written; at exit nobody would.
        waits = self.is_nested or (another_forks() and not self.exits)
        if not (done or waits or deadline is None):
            self._give_up(end)
            done, deadline = True, self.now()
        self._report(self.now())
        # Once more, for the gap that this report has made.
        if done and (self.drain(end, deadline) or deadline is not None):
            if prune:
                self._prune_at_close(deadline)
            if self.writer.archiver is not None:  # the thread may have met a locked file before it came to that
                self._under_lock(self.writer.archiver.stop, self.at_most(_CLOSE_PRUNE, deadline))
                self.writer.archiver.await_end(self.at_most(self.close_timeout, deadline))
            left = 0 if deadline is None else max(0, deadline - self.now())
            self.close(left, self.at_most(CLOSE_TIMEOUT, deadline))

    def _prune_at_close(self, deadline: float | None) -> None:
        end = self.now() + self.at_most(_CLOSE_PRUNE, deadline)
        while self.prune_due is not None and self.now() < end and self.prune(max(0, end - self.now())) == 0:
            pass
        archiver = self.writer.archiver
        if archiver and archiver.await_part(self.at_most(min(_CLOSE_ARCHIVE, self.close_timeout / 2), deadline)):
            self.prune(self.at_most(_CLOSE_PRUNE, deadline))  # this notes the part

    @property
    def is_nested(self) -> bool:
        """Whether a signal handler has interrupted a commit of this thread, or a put, for whose end all others wait."""
        return self.lock.is_mine or self.queue.mutex._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition asks

    def at_most(self, seconds: float, deadline: float | None = None) -> float:
        """Return `seconds`, or what is left until the deadline; at most a moment if `hurried`, none if `is_nested`."""
        if self.is_nested:
            return 0
        left = seconds if deadline is None else max(0, min(seconds, deadline - self.now()))
        return min(left, _HURRY) if self.hurried else left

    def _give_up(self, end: int) -> None:
        said, self._given_up = end <= self._given_up, end  # said by the last call
        dropped = self.queue.give_up(end, "close_timeout")
        held = f", {self.queue.queued:,} held by a commit that does not end" if self.queue.queued else ""
        if dropped or not said:
            because = self.outage.last_error or "no error"
            self.operator.say(f"closed with {dropped:,} records dropped (close_timeout){held}; {because}")

    def close(self, timeout: float, lock_timeout: float = 0) -> None:
        """Close the file, unless another thread is in a commit for `timeout` seconds; see `LogFile.close`."""
        try:
            self._under_lock(lambda: self.writer.close(lock_timeout), timeout)
            self._prune_due = None  # until the next commit
        except Exception as error:  # noqa: BLE001 - logging.shutdown would skip the handlers that come after ours
            self.outage.note(error)

    def close_for_fork(self, lock_timeout: float) -> None:
        """Close the file, under the lock that a fork holds; see `LogFile.close`."""
        with contextlib.suppress(Exception):  # the next commit opens it again, or says why it cannot
            self.writer.close(lock_timeout)
