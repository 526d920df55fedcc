"""
What the limits of retention call for: numbers in, numbers out.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlite_log_handler._write.retention.limits import (
    COMMIT_BYTES,
    LEAST_BYTES,
    PAGE_BYTES,
    VACUUM_PAGES,
    Cut,
    Limits,
    State,
    limits,
)

MB = 1_000_000
PAGE = PAGE_BYTES


def state(
    live: int = 0,
    free: int = 0,
    wal: int = 0,
    *,
    rows: int | None = None,
    first: int = 1,
    file: int | None = None,
) -> State:
    """Make the state of a log with these bytes in use, free, and in the WAL; 100 bytes a row by default."""
    pages, free_pages = (live + free) // PAGE, free // PAGE
    rows = live // 100 if rows is None else rows
    file = pages * PAGE if file is None else file
    return State(PAGE, pages, free_pages, first, first + rows - 1, 0, 2, wal, file)


# Reading what was configured ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (0.5e3, 500),
        ("90", 90),
        ("90s", 90),
        ("30m", 1_800),
        ("12h", 43_200),
        ("7d", 604_800),
        (" 1.5 W ", 907_200),
        ("1h 30min", 5_400),
        ("7 d 3 h", 615_600),
        ("2 weeks", 1_209_600),
    ],
)
def test_an_age_is_seconds_or_a_length_of_time(value, expected):
    """
    An age is a number of seconds, or a length of time in either case, with or without blanks.

    The handler used to refuse "1h 30min" and "2 weeks", which every flag of the command line took.
    """
    assert expected == limits(max_age=value).max_age


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (LEAST_BYTES, LEAST_BYTES),
        ("2000000", 2 * MB),
        ("500MB", 500 * MB),
        ("2 GB", 2_000 * MB),
        ("1.5gb", 1_500 * MB),
        ("64MiB", 64 << 20),
        ("2048KiB", 2 << 20),
        ("1TiB", 1 << 40),
    ],
)
def test_a_size_is_bytes_or_a_text_with_a_unit(value, expected):
    """A size is a number of bytes, or a text in which MB is a million and MiB is 1,048,576."""
    assert expected == limits(max_bytes=value).max_bytes


@pytest.mark.parametrize(
    ("option", "value", "error", "told"),
    [
        ("max_age", 0, ValueError, "from 1 second to 100 years, and is 0 seconds"),
        ("max_age", -1, ValueError, "from 1 second to 100 years, and is -1 seconds"),
        ("max_age", "0.5s", ValueError, "from 1 second to 100 years, and is 0.5 seconds"),
        ("max_age", float("nan"), ValueError, "from 1 second"),
        ("max_age", float("inf"), ValueError, "from 1 second"),
        (
            "max_age",
            "101 years",
            ValueError,
            "'years' is not one of the units us, ms, s, min, h, d, w",
        ),
        ("max_age", "5300w", ValueError, "100 years, and is 3,205,440,000 seconds"),
        ("max_age", "", ValueError, "write 90s, 10min"),
        ("max_age", "-7d", ValueError, "7d or '2 weeks'"),
        ("max_age", "\u0667d", ValueError, "7d or '2 weeks'"),
        ("max_age", True, TypeError, "7d or '2 weeks'"),
        ("max_age", [7], TypeError, "7d or '2 weeks'"),
        ("max_rows", 0, ValueError, "1 or more"),
        ("max_rows", "100", TypeError, "an integer, 1 or more"),
        ("max_rows", 1e6, TypeError, "an integer"),
        ("max_rows", True, TypeError, "an integer"),
        ("max_bytes", LEAST_BYTES - 1, ValueError, "1,048,576 bytes or more"),
        ("max_bytes", "500", ValueError, "and is 500 bytes"),
        ("max_bytes", "500KB", ValueError, "1,048,576 bytes or more, and is 500,000 bytes"),
        ("max_bytes", "500 M", ValueError, "'M' is not one of the units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("max_bytes", "much", ValueError, "500MB, 2GB or 64MiB"),
        ("max_bytes", 1 << 62, ValueError, "below 2**62 bytes"),
        ("max_bytes", "9999999TB", ValueError, "below 2**62 bytes"),
        ("max_bytes", 10**400, ValueError, "below 2**62 bytes"),
        ("max_bytes", "9" * 400, ValueError, "below 2**62 bytes"),
        ("max_bytes", 1e9, TypeError, "500MB"),
        ("max_bytes", False, TypeError, "500MB"),
    ],
)
def test_a_wrong_limit_is_named_with_its_value_and_its_range(option, value, error, told):
    """
    A limit of the wrong kind or out of range raises, with the option, the value and what is allowed.

    It says which of unit and size is wrong: "500KB" is only too small, and "500 M" has no unit that is known, but both
    used to be told the same.
    """
    with pytest.raises(error) as raised:
        limits(**{option: value})

    assert re.match(rf"{option}(=|: ){re.escape(repr(value))}", str(raised.value))
    assert told in str(raised.value)


def test_no_limit_is_no_retention():
    """Limits of which none is set are false."""
    assert not limits()
    assert limits(max_rows=1)


# Rows -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_cut_within_the_limits():
    """A log within its limits is left alone, one without rows too."""
    assert None is Limits(max_rows=100, max_bytes=50 * MB).cut(state(live=MB, rows=100))
    assert None is Limits(max_rows=1, max_bytes=MB * 2).cut(state(live=3 * MB, rows=0))


def test_rows_beyond_max_rows_go_down_to_99_percent():
    """Rows are cut to 99 % of `max_rows`, so that the next deletion is some way off."""
    assert Cut(20, "max_rows", urgent=False) == Limits(max_rows=1_000).cut(state(live=MB, rows=1_001, first=10))


def test_a_single_row_can_be_kept():
    """With `max_rows=1` the newest row stays."""
    assert 41 == Limits(max_rows=1).cut(state(live=MB, rows=2, first=41)).last_id


def test_the_newest_row_is_in_no_cut():
    """The newest row stays, though it is too old as well: SQLite would give its id again."""
    assert 41 == Limits(max_age=60).cut(state(rows=2, first=41), aged=Cut(42, "max_age", urgent=True)).last_id


def test_bytes_are_counted_in_pages_that_are_in_use():
    """Free pages are no reason to delete rows, because the next rows go there."""
    limit = Limits(max_bytes=32 * MB)

    assert None is limit.cut(state(live=25_200_000 - PAGE, free=30 * MB))
    assert "max_bytes" == limit.cut(state(live=25_200_000 + 2 * PAGE)).cause


def test_the_largest_cut_decides_and_gives_the_cause():
    """All limits come down to one cut: the furthest, with its cause."""
    both = Limits(max_rows=1_000, max_age=60)
    log = state(live=MB, rows=1_005)

    assert "max_rows" == both.cut(log, aged=Cut(3, "max_age", urgent=False)).cause
    assert Cut(200, "max_age", urgent=False) == both.cut(log, aged=Cut(200, "max_age", urgent=False))


def test_rows_go_in_chunks():
    """However many rows are to go, one transaction deletes 20,000 of them or two megabytes at most, or one row."""
    assert 20_000 == Limits(max_rows=1).chunk_rows(100)
    assert 20 == Limits(max_rows=1).chunk_rows(100_000)
    assert 1 == Limits(max_rows=1).chunk_rows(100 * MB)
    assert 20_000 == Limits(max_rows=1).chunk_rows(0)  # empty messages


def test_a_crowded_queue_puts_off_what_can_wait():
    """While many rows wait to be written only what is a tenth over its limit is deleted, and what the disk needs."""
    crowded: Any = {"crowded": True}

    assert None is Limits(max_rows=1_000).cut(state(live=MB, rows=1_100), **crowded)
    assert Limits(max_rows=1_000).cut(state(live=MB, rows=1_101), **crowded).urgent
    assert Limits(max_bytes=16 * MB).cut(state(live=13 * MB), **crowded).urgent
    assert None is Limits(max_age=60).cut(state(live=MB), aged=Cut(5, "max_age", urgent=False), **crowded)
    assert Limits(max_age=60).cut(state(live=MB), aged=Cut(5, "max_age", urgent=True), **crowded).urgent


# Bytes ----------------------------------------------------------------------------------------------------------------


# Of 32 MB: a unit is 1 MB, and the file may take 28.2 MB.
BUDGET = Limits(max_bytes=32 * MB)


def test_a_steady_log_fits_and_does_not_shrink():
    """A log that leaves 3 units of its file free, beside a WAL of 2, has room, is not cut, and stays."""
    steady = state(live=25_200_000 - PAGE, free=3 * MB - PAGE, wal=2 * MB)

    assert (True, None, 0) == (BUDGET.has_room(steady), BUDGET.cut(steady), BUDGET.vacuum_pages(steady))


def test_there_is_room_while_three_units_of_the_file_are_free():
    """There have to be three units of the file before a commit."""
    assert BUDGET.has_room(state(live=25 * MB))
    assert not BUDGET.has_room(state(live=26 * MB))


def test_a_commit_beside_a_reader_that_would_go_beyond_the_budget_has_no_room():
    """While a reader holds the WAL, a commit may make both file and WAL longer, and is allowed up to 110 %."""
    assert BUDGET.has_room(state(live=25 * MB, wal=3_200_000))
    assert not BUDGET.has_room(state(live=25 * MB, wal=3_200_000 + 4 * PAGE))
    assert BUDGET.has_room(state(live=10 * MB, wal=18 * MB))


def test_free_pages_make_room_for_a_commit():
    """A file larger than `max_bytes` may be written to while rows go into free pages, and the WAL is free."""
    assert BUDGET.has_room(state(live=96 * MB, free=4 * MB, wal=MB))
    assert not BUDGET.has_room(state(live=100 * MB, wal=MB))
    assert not BUDGET.has_room(state(live=96 * MB, free=4 * MB, wal=3 * MB))


def test_a_file_on_disk_counts_until_the_wal_has_made_it_smaller():
    """A file that is larger on disk than its pages, because the WAL is not written back yet, counts as it is."""
    assert BUDGET.has_room(state(live=10 * MB, wal=5 * MB, file=26 * MB))
    assert not BUDGET.has_room(state(live=10 * MB, wal=5 * MB, file=27 * MB))


def test_a_program_whose_commits_need_more_pages_gets_them():
    """With more free units, rows go sooner, and there is no room until they are free."""
    more = Limits(max_bytes=BUDGET.max_bytes, free_units=6)

    assert None is BUDGET.cut(state(live=23 * MB))
    assert "max_bytes" == more.cut(state(live=23 * MB)).cause
    assert not more.has_room(state(live=23 * MB))


def test_without_max_bytes_everything_fits():
    """Without `max_bytes` no row is refused, and transactions and WAL have their usual bounds."""
    free = Limits(max_rows=5)

    assert free.has_room(state(live=10**12, wal=10**12))
    assert (COMMIT_BYTES, 16 << 20, 4_096_000 // PAGE, 100_000) == (
        free.commit_bytes,
        free.wal_bytes,
        free.checkpoint_pages(PAGE),
        free.lines,
    )


@given(st.integers(LEAST_BYTES, 1 << 50))
def test_the_shares_of_a_budget_add_up(max_bytes):
    """Whatever the budget, file and WAL are within 110 % of it in the largest transaction, and rows have 3/4 of it."""
    limit = Limits(max_bytes=max_bytes)
    unit = limit.commit_bytes
    full = limit.file_bytes - limit.free_bytes

    assert 0 < unit <= max_bytes // 32
    assert limit.file_bytes + limit.wal_bytes <= max_bytes
    assert limit.file_bytes + limit.wal_bytes + 5 * unit <= max_bytes * 1.1
    assert 2 * unit <= max_bytes // 16  # the largest record
    assert limit.chunk_bytes <= unit
    assert 1 <= limit.checkpoint_pages(PAGE) * PAGE <= max(PAGE, 2 * unit)
    assert limit.has_room(State(1, full, 0, 1, 10, 0, 2, limit.wal_bytes, full))
    assert full - unit >= max_bytes * 3 // 4
    assert 1_000 <= limit.lines <= 100_000


@given(st.integers(LEAST_BYTES, 1 << 40), st.integers(1, 1 << 40), st.integers(1, 1 << 40), st.booleans())
def test_a_cut_is_of_rows_that_are_there(max_bytes, live, rows, crowded):
    """A cut takes one row at least and none beyond the last."""
    log = State(1, live, 0, 7, 6 + rows, 0, 2, 0, live)
    cut = Limits(max_bytes=max_bytes, max_rows=max(1, rows // 2)).cut(log, crowded=crowded)

    assert cut is None or 7 <= cut.last_id <= 6 + rows


def test_pages_are_given_back_in_steps():
    """Free pages beyond a quarter of the file go back to the file system, 1 MiB at most in one step."""
    free = Limits(max_rows=1)

    assert 0 == free.vacuum_pages(state(live=75 * PAGE * 100, free=25 * PAGE * 100))
    assert 44 == free.vacuum_pages(state(live=100 * PAGE, free=(VACUUM_PAGES + 44) * PAGE))
    assert VACUUM_PAGES == free.vacuum_pages(state(live=100 * PAGE, free=9_000 * PAGE))
    assert 0 == free.vacuum_pages(state(live=100 * PAGE, free=9_000 * PAGE), crowded=True)


def test_a_file_that_is_too_large_shrinks_under_load_too():
    """What is beyond its share of `max_bytes` is given back while many rows wait, but for the pages of a commit."""
    assert VACUUM_PAGES == BUDGET.vacuum_pages(state(live=12 * MB, free=40 * MB), crowded=True)
    some = BUDGET.vacuum_pages(state(live=26 * MB, free=3_500_000), crowded=True)
    assert 500_000 == pytest.approx(some * PAGE, abs=2 * PAGE)
    assert 0 == BUDGET.vacuum_pages(state(live=40 * MB), crowded=True)


@pytest.mark.parametrize(("max_bytes", "lines"), [("2MB", 1_000), ("50MB", 5_000), ("1GB", 100_000), ("1TB", 100_000)])
def test_other_tables_are_kept_in_proportion(max_bytes, lines):
    """Of the tables beside the rows one line is kept for 10 kB of budget, from 1,000 to 100,000."""
    assert lines == limits(max_bytes=max_bytes).lines


def test_lines_that_push_out_rows_are_kept_by_their_bytes_too():
    """With long names the least number of lines is more than the least budget: a 32nd of it is for each table."""
    assert LEAST_BYTES // 32 == Limits(max_bytes=LEAST_BYTES).text_bytes
