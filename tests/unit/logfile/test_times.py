"""
Points in time as people write them.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sqlite_log_handler._logfile.times import from_microseconds, microseconds, parse_time

NOW = datetime(2025, 6, 30, 15, 4, 5, tzinfo=UTC)
BERLIN, CAIRO = "CET-1CEST,M3.5.0,M10.5.0/3", "EET-2EEST,M4.5.5/0,M10.5.4/24"  # which need no database of zones


@pytest.fixture
def set_zone(monkeypatch):
    """Set the local zone until the test ends."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone cannot be set on this system")

    def set_to(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_to

    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2025-06-30T15:04:05+00:00"),
        ("today", "2025-06-30T00:00:00+00:00"),
        ("Yesterday", "2025-06-29T00:00:00+00:00"),
        ("tomorrow", "2025-07-01T00:00:00+00:00"),
        ("-1h", "2025-06-30T14:04:05+00:00"),
        ("+1h", "2025-06-30T16:04:05+00:00"),
        ("-1h 30min", "2025-06-30T13:34:05+00:00"),
        ("10 min ago", "2025-06-30T14:54:05+00:00"),
        ("2 weeks ago", "2025-06-16T15:04:05+00:00"),
        ("1.5d ago", "2025-06-29T03:04:05+00:00"),
        ("250ms ago", "2025-06-30T15:04:04.750000+00:00"),
        ("@0", "1970-01-01T00:00:00+00:00"),
        ("@1751284800.25", "2025-06-30T12:00:00.250000+00:00"),
        ("9:15", "2025-06-30T09:15:00+00:00"),
        ("09:15:30", "2025-06-30T09:15:30+00:00"),
        ("2025-06-01", "2025-06-01T00:00:00+00:00"),
        ("2025-06-01 12:00", "2025-06-01T12:00:00+00:00"),
        ("2025-06-01T12:00:00Z", "2025-06-01T12:00:00+00:00"),
        ("2025-06-01T12:00:00.5+02:00", "2025-06-01T12:00:00.500000+02:00"),
    ],
)
def test_what_is_understood(text, expected):
    """Words, clocks, dates, lengths of time before now and seconds since 1970 are points in time."""
    assert expected == parse_time(text, NOW).isoformat()


@pytest.mark.parametrize(
    "text",
    ["", "soon", "ago", "-", "-1", "-1 fortnight", "@", "@x", "25:00", "24:00", "2025-13-01", "1h ago ago", "@1e999"],
)
def test_what_is_not_understood(text):
    """
    What is not a point in time is refused, and the error says what can be written.

    From Python 3.14 on, `24:00` was the midnight at which today begins, so `--until 24:00` showed nothing.
    """
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is not a point in time: write ISO 8601"):
        parse_time(text, NOW)


@pytest.mark.parametrize("text", ["9999-12-31T23:59-05:00", "0001-01-01T00:00+02:00", "9999-12-31 23:59", "0001-01-01"])
def test_a_time_that_utc_has_not(text):
    """A time that its offset moves out of the calendar is no time of a log, and the error says which are."""
    zone = timezone(timedelta(hours=-5 if text[0] == "9" else 2))
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))}: must be from the year 1 to 9999 in UTC"):
        parse_time(text, NOW.astimezone(zone))


def test_a_day_is_one_of_the_zone_of_now():
    """Yesterday begins at midnight where the one is who asks."""
    kathmandu = timezone(timedelta(hours=5, minutes=45))

    assert "2025-06-29T00:00:00+05:45" == parse_time("yesterday", NOW.astimezone(kathmandu)).isoformat()


def test_a_time_without_a_zone_is_local(set_zone):
    """Without a zone, a day begins when it begins here, with the offset that this day has."""
    set_zone(BERLIN)
    now = datetime(2025, 3, 30, 14)  # summer time began at 01:00 UTC

    found = [parse_time(text, now).isoformat() for text in ("yesterday", "today", "12:00")]

    assert ["2025-03-29T00:00:00+01:00", "2025-03-30T00:00:00+01:00", "2025-03-30T12:00:00+02:00"] == found


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        (CAIRO, "today", "2025-04-24T22:00:00+00:00"),
        (CAIRO, "2025-04-25", "2025-04-24T22:00:00+00:00"),
        (CAIRO, "2025-04-25 00:30:00.000001", "2025-04-24T22:30:00.000001+00:00"),
        (BERLIN, "2025-03-30 02:15", "2025-03-30T01:15:00+00:00"),
        (BERLIN, "2025-10-26 02:15", "2025-10-26T00:15:00+00:00"),
    ],
)
def test_a_time_that_the_clocks_leave_out_or_show_twice(set_zone, zone, text, utc):
    """
    A time that the clocks leave out is as much later as they move; of one that they show twice, the first is meant.

    With Python 3.11.7, a day without a midnight began at 23:00 of the day before.
    """
    set_zone(zone)

    assert utc == parse_time(text, datetime(2025, 4, 25, 12)).astimezone(UTC).isoformat()


def test_a_datetime_that_the_clocks_leave_out_or_show_twice(set_zone):
    """A `datetime` without a zone is read in the same way, and its `fold` chooses the second time."""
    set_zone(BERLIN)
    moments = [datetime(2025, 3, 30, 2, 15), datetime(2025, 10, 26, 2, 15), datetime(2025, 10, 26, 2, 15, fold=1)]

    found = [f"{from_microseconds(microseconds(moment)):%H:%M}" for moment in moments]

    assert ["01:15", "00:15", "01:15"] == found


def test_microseconds_are_exact():
    """A time becomes the microseconds of the file and back without a difference, before 1970 as well."""
    moments = [
        NOW.replace(microsecond=1),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ]

    assert [1751295845000001, -1] == [microseconds(moment) for moment in moments[:2]]
    assert moments == [from_microseconds(microseconds(moment)) for moment in moments]


def test_a_time_that_no_calendar_has():
    """Microseconds beyond the year 9999 are no time, and no error."""
    assert None is from_microseconds(2**62)
