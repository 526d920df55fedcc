"""How commits fare: when to try again after one that failed, and what the operator hears."""

from __future__ import annotations

from sqlite_log_handler._write.plain import shown

# Long enough that a dead disk costs nothing, short enough that the log goes on soon after the disk does.
BACKOFF_LIMIT = 5.0

# Seconds after which the operator hears of failures: processes that share a file wait for each other now and then. On a
# busy machine, seven other processes may each have a full batch first.
OUTAGE_AFTER = 1.0
TURN_OUTAGE_AFTER = 5.0


class Outage:
    """Failures and successes of commits. Pure: each call is given the time, in seconds that never jump."""

    def __init__(self, flush_interval: float) -> None:
        self._flush_interval = flush_interval
        self._began = 0.0
        self._said = False
        self._dropped = 0  # until the last commit that succeeded
        self.failures = 0  # of attempts that were due, since the last commit that succeeded
        self.next_attempt = 0.0  # no attempt is due before it
        self.retry_due = float("inf")  # an attempt is due by then
        self.last_commit: float | None = None  # that succeeded
        self.last_error: str | None = None  # of a commit, of a thread, or of another handler that was given a warning

    def failed(self, error: BaseException, now: float) -> str | None:
        """Note a commit that failed; return a line for the operator if that begins an outage."""
        self.note(error)
        if not self.failures:
            self._began = now
        if now >= self.next_attempt:  # `flush` tries much more often, and must not make the pauses longer
            self.failures += 1
            # Cap the exponent so the power stays a float; the delay is limited anyway.
            pause = min(self._flush_interval * 2 ** min(self.failures - 1, 30), BACKOFF_LIMIT)
            self.next_attempt = now + pause
        self.retry_due = self.next_attempt  # also for `flush`: the listener may just have begun an attempt, and set it
        waits_for_turn = isinstance(error, TimeoutError)
        if waits_for_turn:
            # It keeps trying. With ever longer pauses, the process that has waited longest would be the least likely to
            # get the lock.
            self.next_attempt = 0.0
        if self._said or now - self._began < (TURN_OUTAGE_AFTER if waits_for_turn else OUTAGE_AFTER):
            return None
        self._said = True
        return f"cannot write ({self.last_error}): records wait in memory, up to capacity; trying again"

    def succeeded(self, now: float, dropped_total: int) -> str | None:
        """Note a commit that succeeded; return a line for the operator if it ends an outage."""
        said, dropped = self._said, dropped_total - self._dropped
        self._said, self._dropped = False, dropped_total
        self.failures, self.next_attempt, self.retry_due, self.last_commit = 0, 0.0, float("inf"), now
        return f"writing again; {dropped:,} records were dropped since the last commit" if said else None

    def note(self, error: BaseException) -> None:
        """Remember an error. A foreign one may raise when it is shown, and that would end the thread."""
        try:
            self.last_error = f"{type(error).__name__}: {shown(error)}"
        except MemoryError:  # there is none for the text either
            self.last_error = "MemoryError"

    def last_commit_age(self, now: float) -> float | None:
        """Return the seconds since the last commit that succeeded; 0 if that was after `now`."""
        return None if self.last_commit is None else max(0.0, now - self.last_commit)
