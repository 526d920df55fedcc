"""
The warning about drops: one goes into the database at each tick, and one to the program's other handlers.

Theory of operation
===================

Other handlers are foreign code: a paused terminal or a dead log host can hold its caller for ever. So the thread that
commits never calls them. `make` leaves the warning to another thread, the reporter, which starts when there is one to
send, and ends when there is none. The ledger hands `make` the drops, and in one step with that adds them to the one
warning that waits for the reporter, which takes them when it has made a record of them. So the deltas of all warnings
add up to `dropped_total`, whatever holds the reporter or fails here.

A thread that blocks in a write holds the locks of the handler and of the stream, and the interpreter needs both to end.
So the reporter waits outside of them until each stream takes more, as far as the system can tell. A handler may block
all the same, as one of a socket does. Then `let_exit` gives it a new lock at exit.

The queue's mutex covers `_sending` and `_reporting`. No foreign code runs under it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import OWN_LOGGER, SENT
from sqlite_log_handler._logfile.typed import Any, Final
from sqlite_log_handler._logfile.units import counted, loudest
from sqlite_log_handler._write import threads
from sqlite_log_handler._write.ledger import COUNT, MAX_GAPS, SINCE, UNTIL, PendingGap
from sqlite_log_handler._write.operator import Operator, takes_more
from sqlite_log_handler._write.outage import Outage
from sqlite_log_handler._write.plain import level_name
from sqlite_log_handler._write.queue import RecordQueue

_STREAM_WAIT = 1.0  # seconds between two looks at which streams there are

# Attribute of an own warning: the id of the queue whose drops it reports. The underscore keeps it out of databases.
MARK: Final = "_sqlite_log_handler"


class DropReport:
    """
    Report the drops of `queue`, in so many gaps `most_in_place` at most.

    A warning says what `outage` knows; `operator` hears of one that is not sent.
    """

    def __init__(self, queue: RecordQueue, outage: Outage, operator: Operator, most_in_place: int = MAX_GAPS) -> None:
        self._queue = queue
        self._most_in_place = most_in_place
        self._outage = outage
        self._operator = operator
        # Looked up now, because that takes logging's lock, which `dictConfig` holds while it closes handlers.
        self._logger = logging.Logger.manager.getLogger(OWN_LOGGER)
        self._dropping_since = float("inf")  # with drops at every tick
        self._now = 0.0  # of the last report
        self._sending: PendingGap | None = None
        self._reporting = False
        self._reporter: threading.Thread | None = None
        self._said = 0  # `dropped_total` of the last warning that went to the operator instead

    def make(self, now: float) -> bool:
        """Warn of the drops since the last call; return whether there were any."""
        queue, self._now = self._queue, now
        gap = queue.take_drops()
        if gap is None:
            self._dropping_since = float("inf")
            if not (queue.closed and queue.ledger.unsent):
                return False
        else:
            self._dropping_since = min(self._dropping_since, _since(gap))
            try:
                gap.warning = self._record(gap, logging.LogRecord, "report")
            finally:
                kept = queue.add_gap(gap, self._most_in_place)
            if kept is not None and kept is not gap:
                kept.warning = self._record(kept, logging.LogRecord, "report")
        reporter = threads.make(self._report, name="sqlite_log_handler reporter")
        with queue.mutex:
            if self._is_reporting() or not self._has_news():
                return True
            self._reporting, self._reporter = True, reporter
        with suppress(RuntimeError):  # the interpreter is shutting down, or there is no room for one more thread
            threads.start(reporter)
        return True

    def wait(self, timeout: float) -> None:
        """Wait until the warnings are sent, and tell the operator if they cannot be."""
        reporter = self._reporter
        if reporter is threading.current_thread():
            return  # another handler closes this one
        if reporter is not None and self._said != self._queue.dropped_total:
            with suppress(RuntimeError):  # not started yet, or never
                reporter.join(timeout)
        wanted = self._is_wanted()  # not under the mutex: the logger's class may be the program's
        with self._queue.mutex:
            gaps = list(filter(None, (self._sending, self._queue.ledger.unsent)))
            if not gaps or gaps[-1].dropped_total == self._said or not wanted:
                return  # all are sent, or the last `close` has said so
            self._said = gaps[-1].dropped_total
            count = sum(gap.count for gap in gaps)
            why = "another handler has not returned" if self._is_reporting() else "no thread sends them"
        self._operator.say(f"{count:,} drops not reported to other handlers: {why}; {self._describe(gaps[-1])}")

    def _is_reporting(self) -> bool:
        """Tell whether the reporter will look at what waits once more: it may have died, or never have been started."""
        return self._reporting and self._reporter is not None and self._reporter.is_alive()

    def _has_news(self) -> bool:
        """
        Tell whether there is a warning to send. Called under the queue's mutex.

        Until `close`, the drop of another handler's warning is no reason for one. Two handlers that have no room would
        go on warning each other for ever.
        """
        unsent = self._queue.ledger.unsent
        return unsent is not None and (self._queue.closed or {name for _, _, name in unsent.drops} != {OWN_LOGGER})

    def _wait_for_streams(self) -> bool:
        """Wait until each stream takes more; return False if the interpreter waits for this thread to end meanwhile."""
        while not all(takes_more(stream, _STREAM_WAIT) for stream in self._streams()):
            if not threads.DAEMON and threading._SHUTTING_DOWN:  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public name
                return False
        return True

    def _report(self) -> None:
        """Send what waits, on the reporter's thread, until nothing does, or its warning cannot be made."""
        queue, ledger = self._queue, self._queue.ledger
        tried: PendingGap | None = None
        while True:
            with queue.mutex:
                if self._reporter is not threading.current_thread():
                    return  # a second one was made before this one began
                self._sending = None
                if ledger.unsent is None or ledger.unsent is tried or not self._has_news():
                    self._reporting = False
                    return
            try:
                with suppress(BaseException):  # of a stream that the program made
                    if not self._wait_for_streams():
                        return
                tried = gap = ledger.unsent
                # By default `dictConfig` disables every logger that it does not name. A program silences this one by
                # its level.
                self._logger.disabled = False
                record = self._record(gap, self._logger.makeRecord, SENT) if self._is_wanted() else None
                with queue.mutex:
                    if ledger.unsent is not gap:
                        continue  # more was dropped meanwhile
                    self._sending, ledger.unsent = gap, None
                if record is not None:
                    self._logger.handle(record)
            except BaseException as error:  # noqa: BLE001 - of another handler, its filter or a record factory
                self._outage.note(error)

    def _handlers(self) -> list[logging.Handler]:
        """Return the handlers that get a warning, as `Logger.callHandlers` finds them."""
        found: list[logging.Handler] = []
        logger: logging.Logger | None = self._logger
        while logger is not None:
            found += logger.handlers
            logger = logger.parent if logger.propagate else None
        return found or [handler for handler in [logging.lastResort] if handler is not None]

    def _streams(self) -> Iterator[Any]:
        for handler in self._handlers():
            if isinstance(handler, logging.StreamHandler) and handler.level <= logging.WARNING:
                yield handler.stream

    def let_exit(self) -> None:
        """Give a new lock to each handler whose lock the reporter holds: `logging.shutdown` would wait for it."""
        if self._sending is None:
            return
        for handler in self._handlers():
            if handler.lock is not None:
                if handler.lock.acquire(blocking=False):
                    handler.lock.release()
                else:
                    handler.createLock()

    def _is_wanted(self) -> bool:
        # As `isEnabledFor` decides, which may take logging's lock.
        logger = self._logger
        if logger.manager.disable >= logging.WARNING or logger.getEffectiveLevel() > logging.WARNING:
            return False
        return not all(isinstance(handler, logging.NullHandler) for handler in self._handlers())

    def _record(self, gap: PendingGap, make: Callable[..., logging.LogRecord], func: str) -> logging.LogRecord:
        # That for the database is not made by the program's record factory, nor given to other handlers: they add
        # attributes.
        record = make(OWN_LOGGER, logging.WARNING, __file__, 0, self._describe(gap), (), None, func)
        vars(record).update({"dropped": gap.count, "dropped_total": gap.dropped_total, MARK: id(self._queue)})
        return record

    def _describe(self, gap: PendingGap) -> str:
        queue, outage = self._queue, self._outage
        causes, spent, others = Counter[str](), Counter[str](), Counter[str]()
        for (cause, levelno, name), entry in gap.drops.items():
            causes[cause] += entry[COUNT]
            losers = spent if cause == "fair_share" else others
            losers[f"{name} {level_name(levelno)}"] += entry[COUNT]
        lasting = max(entry[UNTIL] for entry in gap.drops.values()) - min(self._dropping_since, _since(gap))
        used = queue.queued_size / queue.capacity_size
        age = outage.last_commit_age(self._now)
        parts = [
            f"dropped {counted(gap.count, 'record')} ({loudest(causes, 6)}; {gap.dropped_total:,} in total)",
            f"dropping for {lasting:.1f} s",
            f"queue {queue.queued:,} of {queue.capacity:,} rows, {used:.0%} of its bytes",
            *_most_from(spent, others),
            "no commit yet" if age is None else f"last commit {age:.1f} s ago",
        ]
        if outage.last_error and (outage.failures or "disk_budget" in causes):
            parts.append(f"the writer says: {outage.last_error}")
        return printable("; ".join(parts))


def _since(gap: PendingGap) -> float:
    return float(min(entry[SINCE] for entry in gap.drops.values()))


def _most_from(spent: dict[str, int], others: dict[str, int]) -> Iterator[str]:
    """Name the loggers that lost most: those that had spent their share, then the others."""
    if spent:
        yield f"most from {loudest(spent, 3)}: more than {'its' if len(spent) == 1 else 'their'} share"
    if others:
        yield f"{'also' if spent else 'most'} from {loudest(others, 3)}"
