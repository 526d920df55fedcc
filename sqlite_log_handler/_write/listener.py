"""
The thread that commits, and the calls that may commit beside it: `flush`, `close`, the exit of the interpreter.

Theory of operation
===================

`QueueListener._monitor` is a loop of the hooks `dequeue` and `handle`. An item here is a tick: `dequeue` returns when
one is due, and `handle` has the committer do it. A tick is due when the oldest row is `flush_interval` old, when the
queue says that a commit is (`commit_due`), or when one that failed is to be tried again. While retention has more to
delete, ticks are due for that, and commit what is queued, due or not. With nothing queued the thread waits on a raw
lock; only retention wakes it: it goes on with what it has begun, or the next row comes of age. Any thread may commit,
but only the listener on a schedule.

`_thread` is the thread in charge, and a new one is set under the queue's mutex. A thread that no longer finds itself
there was stopped: it writes what is queued, closes the file, and ends. While there is none the queue is closed, so the
next record starts one, also after a thread that died (of a MemoryError between two hooks).

Guarantees
==========

- `close` waits for the thread with a limit, and does its work if there is none, or it fails. A caller that holds
  logging's module lock waits LOCKED_PATIENCE only, and beside the fork of another thread not at all (rule 5 of
  docs/design.md says why). The thread then goes on alone, and has `close_timeout` for the rest.
- A listener that came back to life after `close`, or in a child that another thread than the main one has forked,
  closes its file and ends after REVIVED_IDLE seconds without a record.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from functools import partial
from logging.handlers import QueueListener

from sqlite_log_handler._logfile.locks import LOGGING_LOCK
from sqlite_log_handler._logfile.typed import Any
from sqlite_log_handler._write import threads
from sqlite_log_handler._write.committer import Committer
from sqlite_log_handler._write.locks import another_forks
from sqlite_log_handler._write.queue import RecordQueue

# A full batch beside busy threads takes a tenth of a second. `dictConfig` waits twice: in `flush` and in `close`.
LOCKED_PATIENCE = 0.5

# Seconds that `close` gives a commit under way in any case: on a locked file it takes a tenth of one, and then its rows
# can be dropped and counted.
ATTEMPT = 0.15

# `dictConfig` closes handlers while other threads log at them; the last of those records comes soon after. Longer than
# the pauses of a server that has traffic, so that a closed handler that stays attached keeps its thread.
REVIVED_IDLE = 10.0

# Seconds after which a green thread of eventlet looks by itself whether there are rows.
_GREEN_SLEEP = 1.0


class RecordListener(QueueListener):
    """Have `committer` work when it is time to, on a thread that opens its queue, and closes it in the end."""

    queue: RecordQueue

    def __init__(self, committer: Committer) -> None:
        super().__init__(committer.queue)
        self.committer = committer
        self._reset()
        _listeners.add(self)

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._retired = False  # the program has dropped the handler
        self._ends_idle = False
        self._ends_alone = False  # the last caller of `close` has no time to write the rest
        self._tick_due: float | None = None
        self._idle_until: float | None = None

    def start(self) -> None:
        """Start the thread, unless there is one, and open the queue. Raises RuntimeError if no thread can start."""
        thread = None
        try:
            with self.queue.mutex:
                if self._thread is None:
                    self._thread = thread = threads.make(lambda: self._run(thread), name="sqlite_log_handler")
                    self._idle_until = None
                    self._retired = False  # a copy of the handler is in use
                    # One lock for each thread: one that is on its way out must not take the wake-up of its successor.
                    self.queue.renew_wakeup()
                    self.queue.urgent |= self._ends_idle  # the next record of its caller may go to another handler
                self.queue.open()
            if thread is not None:
                self._start_thread(thread)
        except BaseException:
            self._abandon(thread)
            raise

    def _start_thread(self, thread: threading.Thread) -> None:
        threads.start(thread)  # here, so that tests can interleave

    def _run(self, thread: threading.Thread | None) -> None:
        """Work on `thread`, which `threading.current_thread` does not return once gevent or a mock has replaced it."""
        try:
            self._monitor()  # type: ignore[attr-defined]  # left out by typeshed
            self._finish()
        finally:
            self._abandon(thread)

    def _finish(self) -> None:
        """Write the rest and close the file. If this thread was stopped and that fails, `close` tries again."""
        try:
            with self.queue.mutex:
                alone = self._is_in_charge or self._ends_alone
                if self._is_in_charge:
                    self.stop()
            self.committer.finish(self.committer.now() + self.committer.close_timeout if alone else None)
        except BaseException as error:  # noqa: BLE001 - the thread is about to end
            self.committer.outage.note(error)
        self._keep_rest()

    @property
    def _is_in_charge(self) -> bool:
        return self._thread is threading.current_thread()

    def _abandon(self, thread: threading.Thread | None) -> None:
        """Let the next record start another thread, if this is the one in charge: it has died, or was never started."""
        if thread is not None and self._thread is thread:
            self._thread = None  # not under the mutex, which may not come in time
            self.queue.wake()  # if it was started after all, it ends
            self.queue.close()

    def stop(self, timeout: float | None = None) -> bool | None:  # type: ignore[override]
        """Have the thread write the queued rows and end, and wait. Return whether it has; None if there is none."""
        with self.queue.mutex:
            self.queue.close()
            thread, self._thread = self._thread, None
            self.queue.wake()
        if thread in {None, threading.current_thread()}:
            return None
        with contextlib.suppress(RuntimeError):  # one that is only being started finds that it was stopped, and ends
            thread.join(self.committer.close_timeout if timeout is None else timeout)
        return not thread.is_alive()

    def retire(self) -> None:
        """Have the thread write the queued rows and end, because the program has dropped the handler."""
        self._retired = self._ends_idle = True
        self.write_rest()
        self.queue.wake()

    def write_rest(self) -> None:
        """Without a thread, write the rows that `close` has left in a signal handler, and the gaps of an outage."""
        if self._thread is None:
            _owing.add(self)  # whatever is raised
            while (self.queue.queued or self.queue.gaps) and self.committer.commit(0):
                pass
            self.committer.close(0)
            self._keep_rest()

    def _keep_rest(self) -> None:
        """Stay alive until all is written, by a listener of the same file or at exit: no handler may be left."""
        (_owing.add if self.queue.queued or self.queue.gaps else _owing.discard)(self)

    def dequeue(self, block: bool) -> Any:  # noqa: FBT001, ARG002 - as in QueueListener
        """Wait until a tick is due; return the sentinel when the thread should end."""
        while True:
            with self.queue.mutex:
                wakeup = self.queue.wakeup
                stopped = not self._is_in_charge
            now = self.committer.now()
            seconds = 0 if stopped else self.seconds_to_wait(now)
            if stopped or self._retired or (self._idle_until is not None and now >= self._idle_until):
                return self._sentinel  # type: ignore[attr-defined]  # a class attribute that typeshed leaves out
            if seconds == 0:
                return "tick"
            if type(wakeup).__module__ == "eventlet.lock":  # it does not wake us if another thread has released it
                seconds = _GREEN_SLEEP if seconds is None else min(seconds, _GREEN_SLEEP)
            wakeup.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))

    def seconds_to_wait(self, now: float) -> float | None:
        """Return the seconds until the thread has something to do; None without anything to wait for."""
        if not self.queue.pending:
            self._tick_due = None
            if self._ends_idle and self._idle_until is None:
                self._idle_until = now + REVIVED_IDLE
            due = self._idle_until, self.committer.prune_due
            return min((max(0, at - now) for at in due if at is not None), default=None)
        self._idle_until = None
        if self._tick_due is None:
            self._tick_due = now + self.committer.flush_interval
        outage = self.committer.outage
        if self.queue.commit_due and now >= outage.next_attempt:
            return 0
        return max(0, min(self._tick_due, outage.retry_due, self.committer.more_due) - now)

    def handle(self, record: object) -> None:  # noqa: ARG002 - it is the tick
        """Report drops, and commit if it is time to."""
        now = self.committer.now()
        more = self.committer.tick(now)
        self._tick_due = now if more else now + self.committer.flush_interval
        if _owing and not self.committer.outage.failures:
            for other in [*_owing]:
                if other.committer.writer.file.path == self.committer.writer.file.path:
                    other.write_rest()

    @property
    def _patience(self) -> float:
        """Seconds that this thread waits for the listener's, which may need a lock that `dictConfig` holds."""
        if self._is_awaited:
            return 0
        locked = LOGGING_LOCK._is_owned()  # noqa: SLF001 - as threading.Condition asks
        patience = self.committer.close_timeout
        return min(patience, LOCKED_PATIENCE) if locked else patience

    @property
    def _is_awaited(self) -> bool:
        """Whether a fork in another thread waits for logging's lock, which this one has."""
        return another_forks() and LOGGING_LOCK._is_owned()  # noqa: SLF001 - as threading.Condition asks

    def flush(self, timeout: float | None = None) -> bool:
        """Commit all rows that are queued now, on this thread; return whether that took at most `timeout` seconds."""
        deadline = self.committer.now() + (self._patience if timeout is None else timeout)
        try:
            return self.committer.drain(self.queue.end, deadline)
        finally:
            if self.committer.outage.failures:
                self.queue.wake()  # the thread may sleep for longer than until the next attempt

    def close(self) -> None:
        """Stop, write the queued rows, send the last report, and close the file, all within `close_timeout` seconds."""
        self._ends_idle = True
        committer = self.committer
        awaited = self._is_awaited
        if committer.lock.is_mine or awaited:
            # A signal handler closes in a commit, or a fork, of its own thread, which cannot end before it returns; nor
            # can a fork of another thread before `dictConfig` does. The listener's thread writes the rest, or another
            # listener of this file, the next `close`, at exit at the latest, or `retire`.
            self._ends_alone = awaited
            if self.stop(0) is None:
                self._keep_rest()
            return
        deadline = committer.now() + committer.close_timeout
        patience = self._patience
        self._ends_alone = patience < committer.close_timeout
        ended = self.stop(committer.at_most(max(patience, ATTEMPT)))
        # From here on the next record finds the queue closed, and starts anew.
        if self._ends_alone and ended is False:
            return
        committer.finish(deadline, prune=not ended)
        self._keep_rest()
        if not (self._ends_alone or committer.is_nested):
            committer.drop_report.wait(committer.at_most(committer.close_timeout, deadline))
        # At exit `logging.shutdown` closes once more.
        committer.hurried = committer.hurried or (committer.exits and committer.now() >= deadline)

    def before_fork(self, timeout: float) -> None:
        """Let a commit end and close the file, within `timeout` seconds. A program without a thread gets none."""
        committer = self.committer
        deadline = committer.now() + timeout
        if committer.lock.hold_over_fork(timeout):
            left = max(0, deadline - committer.now())
            close = partial(committer.close_for_fork, left / 5)  # so that other handlers with a locked file have time
            if self._thread is None:
                close()
            else:
                committer.lock.close_beside_fork(close, left)
            committer.lock.has_closed = True

    def after_fork_in_child(self) -> None:
        """Begin anew: no thread, no connection, an empty queue, books at zero. The parent writes the queued rows."""
        self.queue.reset()
        self.committer.forget()
        self._reset()
        # A thread has forked, and this process ends when that returns and no thread is left.
        self._ends_idle = not isinstance(threading.main_thread(), threading._MainThread)  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name


_listeners: weakref.WeakSet[RecordListener] = weakref.WeakSet()
_owing: set[RecordListener] = set()  # those that have ended with rows or gaps that are in no file


def all_listeners() -> list[RecordListener]:
    """Return every listener that is alive: a fork and the exit of the interpreter concern them all."""
    while True:
        with contextlib.suppress(RuntimeError):  # one was made in another thread meanwhile
            return list(_listeners)
