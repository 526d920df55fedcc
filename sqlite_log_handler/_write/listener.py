"""
The thread that commits, and the calls that may commit beside it: `flush`, `close`, the exit of the interpreter.

Theory of operation
===================

`QueueListener._monitor` is a loop of `dequeue` and `handle`; both are hooks, and only they are overridden. An item here
is a tick: `dequeue` returns when one is due, `handle` reports drops and commits. A tick is due when the oldest row is
`flush_interval` old, when `batch_size` rows wait, or when a row at `flush_level` has come. With nothing queued the
thread waits on a raw lock, without a timeout: no wake-ups when nothing is logged.

Any thread may commit; only the listener does so on a schedule. `commit` runs under the commit lock: copy a batch from
the head of the queue, write it in one transaction, then let it go. If that fails, everything is still where it was, and
a later tick tries again: after one flush interval, then two, four, up to BACKOFF_LIMIT. Drops are reported at every
tick all the same.

The thread that commits runs nobody else's code. A drop warning is written by the next commit, and sent to other
handlers by a thread of its own (`drop_report`). So a handler that blocks holds up that thread and nothing else, and
`close` may always join the listener.

Retention is done by the same thread, between commits and under the same lock: a short piece after a tick that leaves
the queue nearly empty. When it is not, the writer does what cannot wait before it writes. With nothing queued the
thread then wakes up when the next row comes of age, if `max_age` is set, and not at all without.

The thread has one owner, `_thread`, under the queue's mutex. A thread that finds another value there was stopped: it
writes what is queued, closes the file, and ends. While there is none the queue is closed, so the next record starts
one. That holds for a thread that died (a MemoryError between two hooks) as well.

Guarantees
==========

- Nothing escapes from `handle`. A thread that dies all the same is replaced at the next record.
- Locks are taken in this order: logging's module lock (by a fork), commit lock, the queue's mutex. Nobody logs while
  holding one of the last two.
- `close` lets the listener's thread write what is queued and close the file, and waits for that with a limit: so a
  frozen disk holds that thread. Without one, or when it fails, `close` does it on its own thread, and so does `flush`.
  They wait for the commit lock with a limit.
- A `__del__` that the garbage collector runs in the middle of a commit may log, and so need logging's module lock.
  A caller of `close` that holds it, as `dictConfig` does, waits LOCKED_PATIENCE for the thread, which then finishes
  alone.
- At each tick with drops there is one warning, and never more. The deltas add up to `dropped_total`.
- What `close` cannot write within its time is dropped with cause `close_timeout`: counted, and said on stderr. Rows
  that a stuck commit holds stay queued; they are counted when it ends.
- A listener that came back to life after `close`, or in a child that another thread than the main one has forked,
  closes its file and ends after REVIVED_IDLE seconds without a record.
- An outage puts one line on stderr when it begins and one when it ends.
"""

import _thread
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from logging.handlers import QueueListener
from typing import Any, Final, TypeVar

from sqlite_log_handler._write.drop_report import DropReport
from sqlite_log_handler._write.locks import acquire
from sqlite_log_handler._write.operator import Operator
from sqlite_log_handler._write.outage import Outage
from sqlite_log_handler._write.queue import RecordQueue
from sqlite_log_handler._write.retention.limits import COMMIT_BYTES, NoRoom
from sqlite_log_handler._write.row import SIZE_UNIT
from sqlite_log_handler._write.writer import Outcome, Writer

_T = TypeVar("_T")

# An RLock, which logging makes anew in a child.
LOGGING_LOCK: Final = logging._lock  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name

# A commit takes milliseconds, and a full batch beside busy threads a tenth of a second. `dictConfig` waits twice: for
# `flush` and for `close`.
LOCKED_PATIENCE = 0.5

# `dictConfig` closes handlers while other threads log at them; the last of those records comes soon after. Longer than
# the pauses of a server that has traffic, so that a closed handler that stays attached keeps its thread.
REVIVED_IDLE = 10.0

# What `close` spends on retention: a program that runs for less than a tick would else never prune.
_CLOSE_PRUNE = 0.2

# What it waits for a part of the archive that is being written: else one that takes longer would never be finished by
# programs that run for a moment.
_CLOSE_ARCHIVE = 1.0

_TICK: Final = object()


class RecordListener(QueueListener):
    """
    Commit the rows of `queue` through `writer`.

    Args:
        queue: The listener opens it when it starts and closes it when it stops.
        writer: Only ever called under the commit lock.
        operator: Hears of outages, and of rows that `close` gave up.
        retains: Whether the writer deletes old rows, which it does when the queue is nearly empty.
        commit_bytes: Bytes of rows in one transaction at most, by their size in memory.
        flush_interval: Seconds, see above.
        close_timeout: Seconds that `flush` and `close` take at most.
        clock: Seconds that never jump.
        sleep: Waits between two attempts of `flush` and `close`.
    """

    queue: RecordQueue

    def __init__(
        self,
        queue: RecordQueue,
        writer: Writer,
        operator: Operator,
        *,
        retains: bool = False,
        commit_bytes: int = COMMIT_BYTES,
        flush_interval: float = 0.1,
        close_timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(queue)
        self.writer = writer
        self.operator = operator
        self.retains = retains
        self._commit_size = commit_bytes // SIZE_UNIT
        self.flush_interval = flush_interval
        self.close_timeout = close_timeout
        self._clock = clock
        self._sleep = sleep
        self._reset()
        _listeners.add(self)

    def _reset(self) -> None:
        self.outage = Outage(self.flush_interval)
        self.drop_report = DropReport(self.queue, self.outage, self.operator)
        self._thread: threading.Thread | None = None
        self._retired = False  # the program has dropped the handler
        self._ends_idle = False
        self._commit_lock = threading.Lock()
        self._committing_thread: int | None = None  # that holds it
        self._forking_thread: int | None = None  # that holds the commit lock over a fork
        self._tick_due: float | None = None
        self._idle_until: float | None = None
        self._report_due = 0.0  # a full batch, or one that was cut, is due much sooner than a tick
        self._no_room = False  # for the last commit
        self._prune_due: float | None = None
        self._pruned = float("-inf")
        self._given_up = -1  # `close` had no more time for the rows before this position

    # The thread -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Start the thread, unless there is one, and open the queue.

        Raises:
            RuntimeError: The interpreter is shutting down, or there is no room for one more thread.
        """
        thread = None
        try:
            with self.queue.mutex:
                if self._thread is None:
                    self._thread = thread = threading.Thread(target=self._run, daemon=True, name="sqlite_log_handler")
                    self._idle_until = None
                    # One lock for each thread: one that is on its way out must not take the wake-up of its successor.
                    self.queue.renew_wakeup()
                self.queue.open()
            if thread is not None:
                self._start_thread(thread)
        except BaseException:
            self._abandon(thread)
            raise

    def _start_thread(self, thread: threading.Thread) -> None:
        thread.start()

    def _run(self) -> None:
        try:
            self._monitor()  # type: ignore[attr-defined]  # left out by typeshed
        finally:
            self._abandon(threading.current_thread())

    def _abandon(self, thread: threading.Thread | None) -> None:
        """Let the next record start another thread, if this is the one in charge: it has died, or was never started."""
        with self.queue.mutex:
            if thread is not None and self._thread is thread:
                self._thread = None
                self.queue.close()

    def stop(self, timeout: float | None = None) -> bool | None:  # type: ignore[override]
        """
        End the thread once it has written the queued rows. Safe to call twice, and from any thread.

        Args:
            timeout: Seconds to wait for it; by default `close_timeout`.

        Returns:
            Whether it has ended; None if there was no thread, or the caller is that thread.
        """
        with self.queue.mutex:
            self.queue.close()
            thread, self._thread = self._thread, None
            self.queue.wake()
        if thread in {None, threading.current_thread()}:
            return None
        with contextlib.suppress(RuntimeError):  # one that is only being started finds that it was stopped, and ends
            thread.join(self.close_timeout if timeout is None else timeout)
        return not thread.is_alive()

    def retire(self) -> None:
        """
        Let the thread write the queued rows and end, because the program has dropped the handler. Do not wait for it.
        """
        self._retired = True
        if self._thread is None:
            while self.queue.queued and self.commit(0):
                pass  # what the `close` of a signal handler has left
            self._close_writer(0)
        self.queue.wake()

    def dequeue(self, block: bool) -> Any:  # noqa: FBT001, ARG002 - as in QueueListener
        """
        Wait until a tick is due; return the sentinel when the thread is to end.
        """
        thread = threading.current_thread()
        while True:
            with self.queue.mutex:
                wakeup = self.queue.wakeup
                stopped = self._thread is not thread
            if stopped:
                self._run_out()
                break
            now = self._clock()
            wait = self.wait(now)
            if self._retired or (self._idle_until is not None and now >= self._idle_until):
                self.stop()
                self._finish(now + self.close_timeout)
                break
            if wait == 0:
                return _TICK
            wakeup.acquire(timeout=-1 if wait is None else min(wait, threading.TIMEOUT_MAX))
        return self._sentinel  # type: ignore[attr-defined]  # a class attribute that typeshed leaves out

    def wait(self, now: float) -> float | None:
        """
        Return the seconds until the thread has something to do: 0 when it has, None when there is nothing to wait for.
        """
        if not self.queue.pending:
            self._tick_due = None
            if self._ends_idle and self._idle_until is None:
                self._idle_until = now + REVIVED_IDLE
            due = [self._idle_until, None if self.outage.failures else self._prune_due]
            return min((max(0, at - now) for at in due if at is not None), default=None)
        self._idle_until = None
        if self._tick_due is None:
            self._tick_due = now + self.flush_interval
        if self.queue.commit_due and now >= self.outage.next_attempt:
            return 0
        return max(0, self._tick_due - now)

    def handle(self, record: object) -> None:  # noqa: ARG002 - it is the tick
        """
        Report drops, and commit if it is time to. Nothing escapes: an exception would end the thread.
        """
        now = self._clock()
        self._tick_due = now + self.flush_interval
        try:
            if now < self._report_due:
                self.queue.settle()
            elif self.drop_report.make(now):
                self._report_due = now + self.flush_interval
            if now >= self.outage.next_attempt:
                end = self.queue.removed + self.queue.queued
                if self.commit() and self.queue.removed < end:
                    # A batch that was cut to its bytes leaves rows whose time has come.
                    self._tick_due = now
            if self._prune_due is not None and self._clock() >= self._prune_due and self.queue.nearly_empty:
                self.prune()
        except BaseException as error:  # noqa: BLE001 - see Guarantees
            self.outage.note(error)

    def now(self) -> float:
        """Return the time of the listener's clock."""
        return self._clock()

    # Commit -----------------------------------------------------------------------------------------------------------

    def commit(self, timeout: float = -1) -> bool:
        """
        Write one batch in one transaction, on this thread.

        Args:
            timeout: Seconds to wait for a commit of another thread; without limit by default.

        Returns:
            Whether it was written, or there was nothing to write. If not, it is all still queued.
        """
        return self._hold(timeout, self._commit) or False

    def _commit(self) -> bool:
        queue = self.queue
        batch = queue.begin_commit(self._commit_size)
        if not batch.rows and not batch.gaps:
            queue.abort_commit()
            return True
        outcome, self._no_room = Outcome(), False
        try:
            if not self.retains or batch.rows or not queue.closed:
                self.writer.write(batch, outcome)
            else:
                # At `close` the report of drops may be left. It is small, and this is its last chance.
                self.writer.write(batch, outcome, in_any_case=True)
            queue.end_commit(batch, outcome.refused)
        except NoRoom as error:
            queue.abort_commit()
            queue.give_up(batch.first + len(batch.rows), "disk_budget")
            self.outage.last_error = str(error)
            self._no_room = True
            return bool(batch.rows)
        except BaseException as error:
            if outcome.written:
                # A signal handler raised when the batch was in the file: it is not to be written twice.
                queue.end_commit(batch, outcome.refused)
                self._succeeded()
            else:
                queue.abort_commit()
                queue.give_up(self._given_up, "close_timeout")
                self._say_later(self.outage.failed(error, self._clock()))
            if not isinstance(error, Exception):
                raise
            return outcome.written
        self._succeeded()
        return True

    def _succeeded(self) -> None:
        now = self._clock()
        self._say_later(self.outage.succeeded(now, self.queue.dropped_total))
        if self.retains:
            self._prune_due = max(now, self._pruned + self.flush_interval)

    def _say_later(self, line: str | None) -> None:
        if line is not None:
            self.operator.say_later(line)

    def _hold(self, timeout: float, work: Callable[[], _T]) -> _T | None:
        """
        Do `work` under the commit lock, and return what it does; None when the lock cannot be had, as by a signal
        handler whose thread has it already.

        It is one frame, and no context manager: what a signal handler raises into the frames of `contextlib` would
        leave the lock taken for as long as somebody keeps that exception.
        """
        thread = threading.get_ident()
        if self._committing_thread == thread:
            return None
        lock, held = self._commit_lock, False  # a child that is forked meanwhile gets a new one
        try:
            (held,) = acquire(lock, timeout)
            if not held:
                return None
            self._committing_thread = thread
            return work()
        finally:
            if held:
                # There is no call in between, and so no signal.
                self._committing_thread = None
                lock.release()
            self.operator.say_waiting()

    def prune(self, timeout: float = -1) -> float | None:
        """
        Do a piece of retention's work, on this thread.

        Args:
            timeout: Seconds to wait for a commit of another thread; without limit by default.

        Returns:
            Seconds until there is more to do: 0 when there is more now, None when there is nothing to come.
        """
        # While nothing can be written, nothing can be deleted.
        if not self.retains or self.outage.failures:
            return None
        return self._hold(timeout, self._prune)

    def _prune(self) -> float | None:
        due = self.writer.prune()
        self._pruned = self._clock()
        self._prune_due = None if due is None else self._pruned + max(due, self.flush_interval)
        return due

    # Flush and close --------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Commit, on this thread, all rows that are queued now. Return whether that took at most `timeout` seconds."""
        if timeout is None:
            timeout = self._patience
        deadline = self._clock() + timeout
        return self._drain(self._end(), deadline)

    @property
    def _patience(self) -> float:
        """
        Seconds that a caller waits for another thread, which may need the lock that the caller of `dictConfig` holds.
        """
        locked = LOGGING_LOCK._is_owned()  # noqa: SLF001 - as threading.Condition asks
        return min(self.close_timeout, LOCKED_PATIENCE) if locked else self.close_timeout

    def _end(self) -> int:
        """Return the position behind the last row that is queued now."""
        with self.queue.mutex:
            return self.queue.removed + self.queue.queued

    def _drain(self, end: int, deadline: float | None) -> bool:
        """Commit the rows before `end` and the gaps that wait now. Without a deadline, give up at the first failure."""
        queue = self.queue
        if end <= self._given_up and deadline is not None:
            # `close` has given these rows up, and no others came since: try, but do not wait for them once more. At
            # exit a handler is closed, flushed and closed again.
            deadline = self._clock()
        pause = min(self.flush_interval, 0.05)
        last_gap = queue.last_gap  # not those that come meanwhile: there may be no end to them
        tried = False
        # `queued` is asked too: in a child that a signal handler forks in here, `removed` is 0 and stays below `end`.
        while (queue.queued and queue.removed < end) or queue.holds_gap(last_gap):
            left = -1 if deadline is None else max(0, deadline - self._clock())
            if tried and not left:
                return False
            tried = True
            if not self.commit(left):
                if self._no_room and queue.removed >= end:
                    return True  # only gaps wait, until there is room
                if deadline is None or self._committing_thread == threading.get_ident():
                    return False  # the latter is a signal handler's: it ends when that returns, and not before
                self._sleep(min(pause, max(0, deadline - self._clock())))
        return True

    def close(self) -> None:
        """Stop, write the queued rows, send the last report, and close the file, all within `close_timeout` seconds."""
        self._ends_idle = True
        if self._committing_thread == threading.get_ident():
            # A signal handler closes while its own thread commits, which cannot end before it returns. What is queued
            # is left to the thread, to the next `close`, that of the exit at the latest, or to `retire`.
            self.stop(0)
            return
        deadline = self._clock() + self.close_timeout
        patience = self._patience
        ended = self.stop(patience)
        # From here on the next record finds the queue closed, and starts anew.
        if ended is False and patience < self.close_timeout:
            # It writes the rest when it goes on; what fails then is counted.
            self._given_up = self._end()
            return
        self._finish(deadline, prune=not ended)
        if patience == self.close_timeout:
            self.drop_report.wait(max(0, deadline - self._clock()))

    def _run_out(self) -> None:
        """
        Write the queued rows and close the file, on a thread that was stopped. If that fails, `close` tries again.
        """
        try:
            self.drop_report.make(self._clock())
            if self._drain(self._end(), None):
                self._prune_at_close(self._clock() + _CLOSE_PRUNE)
                self._close_writer(0)
        except BaseException as error:  # noqa: BLE001 - the thread is about to end
            self.outage.note(error)

    def _finish(self, deadline: float, *, prune: bool = True) -> None:
        """Write the queued rows, or drop them at the deadline; report the drops; close the file."""
        queue, end = self.queue, self._end()
        if not self._drain(end, deadline):
            said = end <= self._given_up
            self._given_up, deadline = end, self._clock()
            dropped = queue.give_up(end, "close_timeout")
            held = f", {queue.queued:,} held by a commit that does not end" if queue.queued else ""
            if dropped or not said:  # by the last `close`
                because = self.outage.last_error or "no error"
                self.operator.say(f"closed with {dropped:,} records dropped (close_timeout){held}; {because}")
        self.drop_report.make(self._clock())
        self._drain(end, deadline)
        if prune:
            self._prune_at_close(min(deadline, self._clock() + _CLOSE_PRUNE))
        self._close_writer(max(0, deadline - self._clock()))

    def _prune_at_close(self, end: float) -> None:
        while self._prune_due is not None and self._clock() < end and self.prune(max(0, end - self._clock())) == 0:
            pass
        archiver = self.writer.archiver
        if archiver is not None:
            archiver.await_part(min(_CLOSE_ARCHIVE, self.close_timeout / 2))
            self.prune(_CLOSE_PRUNE)  # which notes the part
            self._hold(_CLOSE_PRUNE, archiver.stop)

    def _close_writer(self, timeout: float) -> None:
        try:
            self._hold(timeout, self.writer.close)
        except Exception as error:  # noqa: BLE001 - logging.shutdown would skip the handlers that come after ours
            self.outage.note(error)

    # Fork -------------------------------------------------------------------------------------------------------------

    def before_fork(self, timeout: float) -> None:
        """
        Let a commit end and close the file, so that the child inherits neither SQLite in the middle of a commit nor a
        connection.

        SQLite keeps its POSIX locks in a list of the process. A child inherits the list but not the locks, takes none
        for its own connection, and loses its WAL when the parent closes the file; of a commit in progress it inherits
        the write lock too, and both write at once. So when the commit does not end in time, or it is that of this very
        thread, because a signal handler forks, the child never opens the file: what it logs is counted as dropped.
        """
        thread = threading.get_ident()
        mine = thread in {self._committing_thread, self._forking_thread}
        deadline = self._clock() + timeout
        (held,) = acquire(self._commit_lock, 0 if mine else timeout)
        if held:
            self._forking_thread = thread
            if self._thread is None:
                self._close_for_fork()
            else:
                self._close_beside_fork(max(0, deadline - self._clock()))

    def _close_for_fork(self) -> None:
        with contextlib.suppress(Exception):  # the next commit opens it again, or says why it cannot
            self.writer.close()

    def _close_beside_fork(self, timeout: float) -> None:
        """
        Close the file on a thread of its own, because a frozen disk may hold that for ever. When it takes too long,
        that thread lets go of the commit lock, and the child has no log.

        Without a listener this would make a program multi-threaded that was not.
        """
        lock, done, waits = self._commit_lock, threading.Lock(), [None]

        def close() -> None:
            try:
                self._close_for_fork()
            finally:
                try:
                    waits.pop()  # the fork still waits, or has just stopped to
                except IndexError:
                    lock.release()
                else:
                    done.release()

        done.acquire()
        try:
            _thread.start_new_thread(close, ())
        except RuntimeError:
            close()
        (closed,) = acquire(done, timeout)
        if not closed:
            with contextlib.suppress(IndexError):  # it was closed in this instant
                waits.pop()
                self._forking_thread = None

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._forking_thread == threading.get_ident():
            self._forking_thread = None
            self._commit_lock.release()

    def after_fork_in_child(self) -> None:
        """
        Begin anew: no thread, no connection, an empty queue, books at zero. The rows queued are the parent's to
        write.
        """
        self.queue.reset()
        self.writer.forget(lost=self._is_cut_off, interrupted=self._committing_thread == threading.get_ident())
        self._reset()
        # A thread has forked, and this process ends when that returns and no thread is left.
        self._ends_idle = not isinstance(threading.main_thread(), threading._MainThread)  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name

    @property
    def _is_cut_off(self) -> bool:
        """Whether this process was forked while a commit went on."""
        return self._commit_lock.locked() and self._forking_thread != threading.get_ident()

    @property
    def leaves_sqlite_stuck(self) -> bool:
        """Whether another thread, which this process does not have, may have been inside SQLite at the fork."""
        return self._is_cut_off and self._committing_thread != threading.get_ident()


_listeners: "weakref.WeakSet[RecordListener]" = weakref.WeakSet()


def all_listeners() -> list[RecordListener]:
    """Return every listener that is alive: a fork and the exit of the interpreter concern them all."""
    while True:
        with contextlib.suppress(RuntimeError):  # one was made in another thread meanwhile
            return list(_listeners)
