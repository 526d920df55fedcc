"""
The thread that commits, and everything else that may: `flush`, `close`, the exit of the interpreter.

Theory of operation
===================

`QueueListener._monitor` is a loop of `dequeue` and `handle`; both are hooks, and only they are overridden. What stands
for an item here is a tick: `dequeue` returns when one is due, `handle` reports drops and commits. A tick is due when
the oldest row is `flush_interval` old, when `batch_size` rows wait, or when a row at `flush_level` has come.
With nothing queued the thread waits on a raw lock, without a timeout: no wake-ups when nothing is logged.

Any thread may commit; one is paid to. `commit` runs under the commit lock: copy a batch from the head of the queue,
write it in one transaction, then let it go. If that fails, everything is still where it was, and a later tick tries
again: after one flush interval, then two, four, up to BACKOFF_LIMIT. Drops are reported at every tick all the same,
unless another handler took its time with the last report.

Retention is done by the same thread, between commits and under the same lock: a short piece after a tick that leaves
the queue nearly empty. When it is not, the writer does what cannot wait before it writes. With nothing queued the
thread then wakes up when the next row comes of age, if `max_age` is set, and not at all without.

Guarantees
==========

- Nothing escapes from `handle` and `dequeue`: the thread lives until it is stopped.
- Locks are taken in this order: logging's module lock (by a fork), commit lock, the queue's mutex. Nobody logs while
  holding one of the last two.
- `close` has the listener's thread write what is queued and close the file, and waits for that with a limit: so it is
  that thread which a frozen disk holds. When there is no such thread, or it cannot, `close` does it on its own thread,
  and so does `flush`. They wait for the commit lock, with a limit, and never for a thread that may be logging:
  `dictConfig` holds logging's module lock while it closes handlers, and whoever logs may need it. `close` joins the
  listener's thread except when that is inside a logging call, which a flag under the mutex tells; then the thread finds
  itself replaced and ends by itself.
- At each tick with drops one warning goes to the logger OWN_LOGGER, and never more. Its deltas, the last one sent by
  `close`, add up to `dropped_total`. It reaches the database on its own way, with the next commit, so it cannot be
  dropped. What other handlers do with it keeps no commit from being made: not by raising, and not by taking their
  time, after which as much time passes before the next warning.
- What `close` cannot write within its time is dropped with cause `close_timeout`: counted, and said on stderr. Rows
  that a stuck commit holds stay queued; they are counted when it ends.
- An outage puts one line on stderr when it begins and one when it ends.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from logging.handlers import QueueListener
from typing import Any, Final, TypeVar

from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._logfile.units import loudest
from sqlite_log_handler._write.locks import acquire
from sqlite_log_handler._write.queue import COUNT, SINCE, SIZE_UNIT, UNTIL, Gap, RecordQueue
from sqlite_log_handler._write.retention.limits import COMMIT_BYTES, NoRoom
from sqlite_log_handler._write.writer import Outcome, Writer

_T = TypeVar("_T")


# Long enough that a dead disk costs nothing, short enough that nobody waits for the log after it is back.
BACKOFF_LIMIT = 5.0

# Processes that share a file wait for each other now and then. What lasts a second is an outage, and is said; while one
# waits for its turn, which may come after seven full batches of others on a busy machine, what lasts five.
OUTAGE_AFTER = 1.0
TURN_OUTAGE_AFTER = 5.0

# What `close` spends on retention: a program that runs for less than a tick would else never prune.
_CLOSE_PRUNE = 0.2

# Between two looks of `close` at whether the thread has done its work.
_HAND_OVER_PAUSE = 0.001

# How long a fork waits for a commit to end. When it does not, the child can have no log, see `before_fork`.
_FORK_TIMEOUT = 5.0

_TICK: Final = object()


class RecordListener(QueueListener):
    """
    Commit what is in `queue` by `writer`.

    Args:
        queue: The listener opens it when it starts and closes it when it stops.
        writer: Only ever called under the commit lock.
        retention: Has a turn when the queue is nearly empty; None when everything is kept.
        commit_bytes: Bytes of rows in one transaction at most, by their size in memory.
        flush_interval: Seconds, see above.
        close_timeout: Seconds that `flush` and `close` take at most.
        say: Called with a line for the operator, never under the commit lock.
        lines: Those that wait for that lock to be free; the writer may add to them.
        clock: Seconds that never jump.
        sleep: Waits between two attempts of `flush` and `close`.
    """

    queue: RecordQueue

    def __init__(
        self,
        queue: RecordQueue,
        writer: Writer,
        *,
        retention: Writer | None = None,
        commit_bytes: int = COMMIT_BYTES,
        flush_interval: float = 0.1,
        close_timeout: float = 5.0,
        say: Callable[[str], None] = print,
        lines: deque[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(queue)
        self.writer = writer
        self.retention = retention
        self._commit_size = commit_bytes // SIZE_UNIT
        self.flush_interval = flush_interval
        self.close_timeout = close_timeout
        self._say = say
        self._lines = deque() if lines is None else lines
        self._clock = clock
        self._sleep = sleep
        self._reset()
        _listeners.add(self)

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._starting = False
        self._stopped = False  # since the last start has begun
        self._retired = False
        self._logging_thread: threading.Thread | None = None  # the own thread while it may be inside a logging call
        self._commit_lock = threading.Lock()
        self._committing_thread: int | None = None  # that holds it
        self._forking_thread: int | None = None  # that holds the commit lock over a fork
        self._tick_due: float | None = None
        self._report_due = 0.0  # a full batch, or one that was cut, is due much sooner than a tick
        self._no_room = False  # for the last commit
        self._prune_due: float | None = None
        self._pruned = float("-inf")
        self._failures = 0  # since the last commit that succeeded
        self._next_attempt = 0.0
        self._failing_since = 0.0
        self._dropping_since: float | None = None  # in every tick since then there were drops
        self._outage = False  # it was said on stderr that nothing can be written
        self._outage_dropped = 0  # dropped_total when the outage began
        self._given_up = -1  # position below which nothing waits any more: `close` had no more time
        self._handed_over = False  # `close` waits until the own thread has written all and closed the file
        self._left_open = False  # `close` could not close the writer, because a commit did not end
        self.last_commit: float | None = None
        self.last_error: str | None = None

    # Life -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Start the thread, unless there is one, and open the queue.

        Raises:
            RuntimeError: The interpreter is shutting down, or there is no room for one more thread.
        """
        starting = unattended = False
        try:
            with self.queue.mutex:
                if self._starting or self._thread is not None:
                    self.queue.open()
                    return
                self._starting = starting = True
                self._stopped = self._retired = False
                # One lock for each thread: one that is still on its way out must not take the wake-up of its successor.
                self.queue.renew_wakeup()
                self.queue.open()
            super().start()
        except BaseException:
            if starting:
                self._thread = None
                self.queue.close()
            raise
        finally:
            if starting:
                with self.queue.mutex:
                    self._starting = False
                    unattended = self._stopped and not self.queue.closed
                    if self._stopped and self.queue.closed:
                        self._thread = None
                        self.queue.wake()
        if unattended:
            # Somebody has stopped it before it was started, and somebody else has logged since.
            self.start()

    def stop(self, timeout: float | None = None) -> None:
        """
        End the thread, and join it unless it is inside a logging call. Safe to call twice, and from any thread.

        Args:
            timeout: Seconds to wait for it; by default `close_timeout`.
        """
        with self.queue.mutex:
            self.queue.close()
            thread, self._thread = self._thread, None
            self._stopped = True
            self.queue.wake()
            joinable = thread not in {None, self._logging_thread, threading.current_thread()}
        if thread is not None and joinable:
            # One that is only being started finds that it has been stopped, and ends.
            with contextlib.suppress(RuntimeError):
                thread.join(self.close_timeout if timeout is None else timeout)

    def retire(self) -> None:
        """
        Have the thread write what there is, and end: nobody has the handler any more. Waits for nothing.
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
            if not stopped and self._retired:
                with contextlib.suppress(Exception):
                    self.close()
                stopped = True
            if not stopped and self._handed_over:
                self._take_over()
                continue
            if stopped:
                if self._left_open:
                    self._close_writer(0)
                return self._sentinel  # type: ignore[attr-defined]  # a class attribute that typeshed leaves out
            wait = self.wait(self._clock())
            if wait == 0:
                return _TICK
            wakeup.acquire(timeout=-1 if wait is None else min(wait, threading.TIMEOUT_MAX))

    def wait(self, now: float) -> float | None:
        """
        Return the seconds until the next tick is due: 0 when it is, None when there is nothing to wait for.
        """
        if not self.queue.pending:
            self._tick_due = None
            if self._prune_due is None or self._failures:
                return None
            return max(0, self._prune_due - now)
        if self._tick_due is None:
            self._tick_due = now + self.flush_interval
        if self.queue.full_batch and now >= self._next_attempt:
            return 0
        return max(0, self._tick_due - now)

    def handle(self, record: object) -> None:  # noqa: ARG002 - it is the tick
        """
        Report drops, and commit if it is time to. Nothing escapes: whatever is raised would end the thread.
        """
        now = self._clock()
        self._tick_due = now + self.flush_interval
        try:
            if now >= self._report_due:
                self.report()
            else:
                self.queue.settle()
        except BaseException as error:  # noqa: BLE001 - of another handler, or its filter: no reason not to commit
            self.last_error = _shown(error)
        try:
            if now >= self._next_attempt:
                end = self.queue.removed + self.queue.queued
                if self.commit() and self.queue.removed < end:
                    # A batch that was cut to its bytes leaves rows whose time has come.
                    self._tick_due = now
            if self._prune_due is not None and self._clock() >= self._prune_due and self.queue.nearly_empty:
                self.prune()
        except BaseException as error:  # noqa: BLE001 - see Guarantees; SystemExit of another handler is no reason either
            self.last_error = _shown(error)

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
            if self.retention is None or batch.rows or not queue.closed:
                self.writer.write(batch, outcome)
            else:
                # What `close` has to report of drops is small, and there is no later.
                self.writer.write(batch, outcome, in_any_case=True)
            queue.end_commit(batch, outcome.refused)
        except NoRoom as error:
            queue.abort_commit()
            queue.give_up(batch.first + len(batch.rows), "disk_budget")
            self.last_error = str(error)
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
                self._failed(error)
            if not isinstance(error, Exception):
                raise
            return outcome.written
        self._succeeded()
        return True

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
            with contextlib.suppress(IndexError):  # another thread says the last one
                while self._lines:
                    self._say(self._lines.popleft())

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        # 2 ** 30 flush intervals are beyond any limit, and a float all the same.
        backoff = min(self.flush_interval * 2 ** min(self._failures - 1, 30), BACKOFF_LIMIT)
        # Whoever waits for others of ours to end their commits goes on waiting, so that none starves.
        waits_for_turn = isinstance(error, TimeoutError)
        self._next_attempt = 0.0 if waits_for_turn else self._clock() + backoff
        self.last_error = _shown(error)
        if self._failures == 1:
            self._failing_since = self._clock()
            self._outage_dropped = self.queue.dropped_total
        outage_after = TURN_OUTAGE_AFTER if waits_for_turn else OUTAGE_AFTER
        if self._outage or self._clock() - self._failing_since < outage_after:
            return
        self._outage = True
        self._lines.append(f"cannot write ({self.last_error}): records wait in memory, up to capacity; trying again")

    def _succeeded(self) -> None:
        self.last_commit = self._clock()
        self._next_attempt = 0.0
        self._failures = 0
        if self.retention is not None:
            self._prune_due = max(self.last_commit, self._pruned + self.flush_interval)
        if not self._outage:
            return
        self._outage = False
        dropped = self.queue.dropped_total - self._outage_dropped
        self._lines.append(f"writing again; {dropped:,} records were dropped meanwhile")

    @property
    def last_commit_age(self) -> float | None:
        """
        Seconds since the last commit that succeeded.
        """
        return None if self.last_commit is None else self._clock() - self.last_commit

    def prune(self, timeout: float = -1) -> float | None:
        """
        Do a piece of what retention asks for, on this thread.

        Args:
            timeout: Seconds to wait for a commit of another thread; without limit by default.

        Returns:
            Seconds until there is more to do: 0 when there is more now, None when there is nothing to come.
        """
        # While nothing can be written, nothing can be deleted.
        if self.retention is None or self._failures:
            return None
        return self._hold(timeout, partial(self._prune, self.retention))

    def _prune(self, retention: Writer) -> float | None:
        due = retention.prune()
        self._pruned = self._clock()
        self._prune_due = None if due is None else self._pruned + max(due, self.flush_interval)
        return due

    # Reports ----------------------------------------------------------------------------------------------------------

    def report(self) -> None:
        """
        Warn of the drops since the last report, if there are any: in the database, and through the logger.
        """
        if not self.queue.unreported:
            self._dropping_since = None
            return
        # A stop joins this thread, and may hold what a handler needs: from here on it must not.
        thread = threading.current_thread()
        if thread is self._thread and not self._enter_logging_call(thread):
            return
        try:
            gap = self.queue.take_drops()
            if gap is not None:
                begin = self._clock()
                self._report_due = begin + self.flush_interval
                extra: dict[str, object] = {
                    "dropped": gap.count, "dropped_total": gap.dropped_total, MARK: id(self),
                }  # fmt: skip
                text = self._describe(gap)
                # That of the database is a plain one: the program's record factory may raise on this thread, and other
                # handlers put things into the record that they are given.
                gap.warning = logging.LogRecord(OWN_LOGGER, logging.WARNING, __file__, 0, text, (), None, "report")
                vars(gap.warning).update(extra)
                self.queue.add_gap(gap)
                try:
                    self._send(text, extra)
                finally:
                    # Commits wait meanwhile, so they are given as much time as the slowest handler takes.
                    self._report_due = max(self._report_due, 2 * self._clock() - begin)
        finally:
            with self.queue.mutex:
                if self._logging_thread is thread:
                    self._logging_thread = None

    def _enter_logging_call(self, thread: threading.Thread) -> bool:
        with self.queue.mutex:
            if thread is not self._thread:
                return False
            self._logging_thread = thread
            return True

    def _send(self, text: str, extra: Mapping[str, object]) -> None:
        logger = logging.getLogger(OWN_LOGGER)
        # By default `dictConfig` disables every logger that it does not name. This one is silenced by its level, not
        # by accident.
        logger.disabled = False
        if logger.isEnabledFor(logging.WARNING):
            record = logger.makeRecord(OWN_LOGGER, logging.WARNING, __file__, 0, text, (), None, "report", extra)
            logger.handle(record)

    def _describe(self, gap: Gap) -> str:
        queue = self.queue
        causes: dict[str, int] = {}
        losers: dict[str, int] = {}
        for (cause, levelno, name), entry in gap.drops.items():
            causes[cause] = causes.get(cause, 0) + entry[COUNT]
            loser = f"{name} {logging.getLevelName(levelno)}"
            losers[loser] = losers.get(loser, 0) + entry[COUNT]
        if self._dropping_since is None:
            self._dropping_since = min(entry[SINCE] for entry in gap.drops.values())
        lasting = max(entry[UNTIL] for entry in gap.drops.values()) - self._dropping_since
        noun = "record" if gap.count == 1 else "records"
        used = queue.queued_size / queue.capacity_size
        parts = [
            f"dropped {gap.count:,} {noun} ({loudest(causes, 6)}; {gap.dropped_total:,} in total)",
            f"dropping for {lasting:.1f} s",
            f"queue {queue.queued:,} of {queue.capacity:,} rows, {used:.0%} of its bytes",
            f"most from {loudest(losers, 3)}",
        ]
        if self.last_commit is None:
            parts.append("no commit yet")
        else:
            parts.append(f"last commit {self.last_commit_age:.1f} s ago")
        if self.last_error and (self._failures or "disk_budget" in causes):
            parts.append(f"the writer says: {self.last_error}")
        return printable("; ".join(parts))

    # Flush and close --------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """
        Commit, on this thread, all that is queued now. Returns whether it was written within `timeout` seconds.
        """
        deadline = self._clock() + (self.close_timeout if timeout is None else timeout)
        with self.queue.mutex:
            end = self.queue.removed + self.queue.queued
        return self._drain(end, deadline)

    def _drain(self, end: int, deadline: float) -> bool:
        queue = self.queue
        if end <= self._given_up:
            # `close` has given it up, and nothing has come since: try, but do not wait for it once more. At exit a
            # handler is closed, flushed and closed again.
            deadline = self._clock()
        pause = min(self.flush_interval, 0.05)
        last_gap = queue.last_gap  # not those that come meanwhile: there may be no end to them
        tried = False
        # `queued` is asked too: in a child that a signal handler forks in here, `removed` is 0 and stays below `end`.
        while (queue.queued and queue.removed < end) or queue.holds_gap(last_gap):
            left = max(0, deadline - self._clock())
            if tried and not left:
                return False
            tried = True
            if not self.commit(left):
                if self._no_room and queue.removed >= end:
                    return True  # only gaps wait, until there is room
                if self._committing_thread == threading.get_ident():
                    return False  # a signal handler's: it ends when that returns, and not before
                self._sleep(min(pause, max(0, deadline - self._clock())))
        return True

    def close(self) -> None:
        """
        Stop, write what is queued, send the last report, and close the file, all within `close_timeout` seconds.
        """
        if self._committing_thread == threading.get_ident():
            # A signal handler closes while its own thread commits, which cannot end before it returns. What is queued
            # is left to the next `close`, that of the exit at the latest, or to `retire`.
            self.stop(0)
            return
        deadline = self._clock() + self.close_timeout
        queue = self.queue
        self._hand_over(deadline)
        self.stop(max(0, deadline - self._clock()))
        # From here on whoever logs finds the queue closed, and starts anew; what came before is written here.
        with queue.mutex:
            end = queue.removed + queue.queued
        if not self._drain(end, deadline):
            said = end <= self._given_up
            self._given_up, deadline = end, self._clock()
            dropped = queue.give_up(end, "close_timeout")
            held = f", {queue.queued:,} held by a commit that does not end" if queue.queued else ""
            if dropped or not said:  # by the last `close`
                because = self.last_error or "no error"
                self._say(f"closed with {dropped:,} records dropped (close_timeout){held}; {because}")
        try:
            self.report()
        finally:
            self._drain(end, deadline)
            self._prune_at_close(deadline)
            self._close_writer(max(0, deadline - self._clock()))

    def _hand_over(self, deadline: float) -> None:
        """
        Wait until the own thread has written what is queued and closed the file, unless it cannot.
        """
        thread = self._thread
        if thread in {None, threading.current_thread()} or self._failures:
            return
        self._handed_over = True
        self.queue.wake()
        while (
            self._handed_over
            and self._thread is thread  # else somebody else has stopped it
            and self._logging_thread is None  # it may need what our caller holds
            and self._clock() < deadline
        ):
            self._sleep(_HAND_OVER_PAUSE)
        self._handed_over = False

    def _take_over(self) -> None:
        """
        Do for `close` what may take as long as a disk likes. What fails is for `close` to try again.
        """
        try:
            with self.queue.mutex:
                end = self.queue.removed + self.queue.queued
            while self.queue.removed < end and self.commit():
                pass
            if self.queue.removed >= end:
                self._close_writer(0)
        except BaseException as error:  # noqa: BLE001 - the thread lives
            self.last_error = _shown(error)
        finally:
            self._handed_over = False

    def _prune_at_close(self, deadline: float) -> None:
        end = min(deadline, self._clock() + _CLOSE_PRUNE)
        while self._prune_due is not None and self._clock() < end and self.prune(max(0, end - self._clock())) == 0:
            pass

    def _close_writer(self, timeout: float) -> None:
        # Before the lock is asked for: whoever has it may let go just when we give up, and looks here then.
        self._left_open = True
        try:
            self._hold(timeout, self._close_it)
        except Exception as error:  # noqa: BLE001 - logging.shutdown would skip the handlers that come after ours
            self.last_error = _shown(error)

    def _close_it(self) -> None:
        self._left_open = False
        self.writer.close()

    # Fork -------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
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
        (held,) = acquire(self._commit_lock, 0 if mine else _FORK_TIMEOUT)
        if held:
            self._forking_thread = thread
            with contextlib.suppress(Exception):  # the next commit opens it again, or says why it cannot
                self.writer.close()

    def after_fork_in_parent(self) -> None:
        """
        Go on.
        """
        if self._forking_thread == threading.get_ident():
            self._forking_thread = None
            self._commit_lock.release()

    def after_fork_in_child(self) -> None:
        """
        Begin anew: no thread, no connection, an empty queue, books at zero. The rows queued are the parent's to
        write.
        """
        thread = threading.get_ident()
        self.queue.reset()
        self.writer.forget(lost=self._forking_thread != thread, interrupted=self._committing_thread == thread)
        self._reset()


# Attribute of an own warning that tells which listener sent it. The underscore keeps it out of every database.
MARK: Final = "_sqlite_log_handler"

_listeners: "weakref.WeakSet[RecordListener]" = weakref.WeakSet()


def all_listeners() -> list[RecordListener]:
    """
    Return every listener that is alive: a fork and the exit of the interpreter concern them all.
    """
    while True:
        with contextlib.suppress(RuntimeError):  # one was made in another thread meanwhile
            return list(_listeners)


def _shown(error: BaseException) -> str:
    """
    Say what was raised: another handler's error may raise when it is to be shown, and that would end the thread.
    """
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - of its __str__
        return name
