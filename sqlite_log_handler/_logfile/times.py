"""
Points in time as people write them: `yesterday`, `-1h`, `10 min ago`, `@1700000000`, ISO 8601.

Pure but for `now_us`: the caller hands in the present. The forms are those of systemd.time(7) for the past.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from time import time_ns
from typing import Final

from sqlite_log_handler._logfile.units import parse_duration

_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):\d{2}(:\d{2}(\.\d{1,6})?)?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_DAYS: Final = {"today": 0, "yesterday": -1, "tomorrow": 1}

HELP: Final = (
    "write ISO 8601 (2025-06-30, '2025-06-30 12:00', 2025-06-30T12:00:00Z), a time of today (12:00), now, today, "
    "yesterday, -1h, '10 min ago', or @seconds since 1970"
)


def parse_time(text: str, now: datetime) -> datetime:
    """
    Read a point in time.

    >>> parse_time("10 min ago", datetime(2025, 6, 30, 12, tzinfo=UTC)).isoformat()
    '2025-06-30T11:50:00+00:00'

    Args:
        text: See `HELP`. Without an offset from UTC it is a time of the zone of `now`.
        now: The present. With a zone, `yesterday` is a day of that zone; without, of the local zone.

    Raises:
        ValueError: It is not a point in time.
    """
    word = text.strip().lower()
    try:
        moment = next((read(word, now) for matches, read in _READERS if matches(word)), None)
        if moment is None:
            moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a point in time: {HELP}") from error
    try:
        if moment.tzinfo is None:
            moment = _utc(moment).astimezone() if now.tzinfo is None else moment.replace(tzinfo=now.tzinfo)
        moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r}: must be from the year 1 to 9999 in UTC") from error
    return moment


def _duration(text: str) -> timedelta:
    return timedelta(seconds=parse_duration(text))


def _clock(word: str, now: datetime) -> datetime:
    return datetime.combine(now.date(), time.fromisoformat(word.rjust(len(word) + (word[1] == ":"), "0")))


# Tests of what a text looks like, in this order, and how we then read it. A time without a zone is in that of `now`.
_READERS: Final[tuple[tuple[Callable[[str], object], Callable[[str, datetime], datetime]], ...]] = (
    (lambda word: word == "now", lambda _, now: now),
    (lambda word: word in _DAYS, lambda day, now: datetime.combine(now.date() + timedelta(days=_DAYS[day]), time())),
    (lambda word: word.startswith("@"), lambda word, _: _EPOCH + timedelta(seconds=float(word[1:]))),
    (lambda word: word.startswith("-"), lambda word, now: now.astimezone(UTC) - _duration(word[1:])),
    (lambda word: word.startswith("+"), lambda word, now: now.astimezone(UTC) + _duration(word[1:])),
    (lambda word: word.endswith("ago"), lambda word, now: now.astimezone(UTC) - _duration(word[:-3])),
    (_CLOCK.fullmatch, _clock),
)


def now_us() -> int:
    """Return the present as the file has times, in microseconds since 1970."""
    return time_ns() // 1_000


def microseconds(moment: datetime) -> int:
    """Return a time as the file has it, in microseconds since 1970, UTC; a time without a zone is local."""
    return (_utc(moment) - _EPOCH) // _MICROSECOND


def _utc(moment: datetime) -> datetime:
    """Return a time in UTC; one without a zone is local, with the offset of that day."""
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    # Not by `astimezone`, which in 3.11.7 is wrong about a time that the clocks leave out (CPython's issue 83861), nor
    # by the `timestamp` of a subclass, which may take it for UTC.
    seconds = datetime(*moment.timetuple()[:6], fold=moment.fold).timestamp()  # noqa: DTZ001 - local on purpose
    return _EPOCH + timedelta(seconds=seconds, microseconds=moment.microsecond)


def from_microseconds(created_us: int) -> datetime | None:
    """Return the time of a number in the file, in UTC; None if it is outside of Python's calendar."""
    try:
        return _EPOCH + timedelta(microseconds=created_us)
    except OverflowError:
        return None
