"""
Lengths of time and sizes as people write them.
"""

from __future__ import annotations

import pytest

from sqlite_log_handler._logfile.units import (
    format_duration,
    format_size,
    loudest,
    parse_duration,
    parse_seconds,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("250 ms", 0.25),
        ("1h 30min", 5_400),
        ("1h30m", 5_400),
        ("2 weeks", 1_209_600),
        (" 1.5 D ", 129_600),
    ],
)
def test_lengths_of_time(text, seconds):
    """A length of time is one number with a unit or several, in either case, with or without blanks."""
    assert seconds == parse_duration(text)
    assert seconds == parse_seconds(text)


@pytest.mark.parametrize(
    "text", ["", "x", "h", "1h x", "1h -5m", "1", "\u0667d", "1 year", "99999999999999d", "1d 9999999999w"]
)
def test_what_is_not_a_length_of_time(text):
    """Anything else is refused, and the error says what can be written."""
    with pytest.raises(ValueError, match="is not a length of time: write 90s"):
        parse_duration(text)


def test_an_unknown_unit_is_named():
    """The error names the unit that is unknown, and those that are known."""
    with pytest.raises(ValueError, match=r"; 'years' is not one of the units us, ms, s, min, h, d, w$"):
        parse_duration("1d 3 years")


@pytest.mark.parametrize("text", ["6M", "1d 6 M", "500 M"])
def test_a_capital_m_is_no_minute(text):
    """To systemd, and to journalctl, it is a month: who kept a log for six of them kept six minutes of it."""
    with pytest.raises(ValueError, match="; 'M' is not one of the units us, ms, s, min"):
        parse_duration(text)


def test_an_option_may_be_seconds():
    """An option that takes a length of time takes seconds as well, as a number or as a text."""
    assert [90.0, 1.5, 90.0] == [parse_seconds(value) for value in (90, 1.5, " 90 ")]


@pytest.mark.parametrize("value", [True, None, [7]])
def test_an_option_is_no_other_kind(value):
    """What is neither a number nor a text is refused by its kind."""
    with pytest.raises(TypeError, match="write seconds, or a text"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (99_949, "99.9 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"),
     (52_400_000, "52.4 MB"), (2_500_000_000, "2.5 GB"), (10**15, "1000.0 TB"), (999.7, "1.0 kB")],
)  # fmt: skip
def test_sizes(count, expected):
    """
    Bytes are written in three digits, and read back as that.

    Retention used to write 129.2 MB where the command line wrote 129 MB.
    """
    assert expected == format_size(count)
    assert count == pytest.approx(parse_size(expected), rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 ms"), (0.25, "250 ms"), (119, "119.0 s"), (5_400, "90.0 min"), (86_400, "24.0 h"), (864_000, "10.0 days")],
)
def test_lengths_of_time_in_words(seconds, expected):
    """A length of time is written in a unit of which there are two or more."""
    assert expected == format_duration(seconds)


def test_the_loudest_come_first():
    """The highest counts are named, and the others summed up, so that the line stays short and nothing is left out."""
    counts = {"b": 2, "a": 2, "c": 1_000, "d": 1, "e": 1}

    assert "c 1,000, a 2, b 2, 2 others 2" == loudest(counts, 3)
    assert "c 1,000, a 2, b 2, d 1, 1 other 1" == loudest(counts)
    assert "none" == loudest({})
