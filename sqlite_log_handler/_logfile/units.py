"""
Lengths of time, sizes and counts as people write them: `1h 30min`, `2 weeks`, `500MB`.

Pure, and without `datetime`: the handler reads its options with this module, and a program that only logs should start
fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECONDS = {
    ("us", "usec", "microsecond", "microseconds"): 1e-6,
    ("ms", "msec", "millisecond", "milliseconds"): 1e-3,
    ("s", "sec", "secs", "second", "seconds"): 1.0,
    ("min", "m", "mins", "minute", "minutes"): 60.0,
    ("h", "hr", "hrs", "hour", "hours"): 3_600.0,
    ("d", "day", "days"): 86_400.0,
    ("w", "week", "weeks"): 7 * 86_400.0,
}
_SECONDS_OF = {name: seconds for names, seconds in _SECONDS.items() for name in names}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_BYTES_OF = {name.lower(): count for name, count in _BYTES.items()}

_NUMBER = r"\s*([0-9]+(?:\.[0-9]+)?)\s*"
# Compiled on use, because compiling them takes as long as importing this module and two others.
_DURATION_PART = _NUMBER + r"([A-Za-z]+)"
_SIZE = _NUMBER + r"([a-z]*)\s*"

# The length of Python's calendar: subtracting more from a time would raise a different error.
LONGEST = 10_000 * 365.25 * 86_400

# Numbers below this get a decimal, such as 12.9 MB; from here on they have none, such as 129 MB.
_THREE_DIGITS = 100


def parse_duration(text: str) -> float:
    """
    Read a length of time, such as `90s`, `1h 30min` or `2 weeks`, and return it in seconds.

    >>> parse_duration("1h 30min")
    5400.0

    Raises:
        ValueError: The text is not a length of time; the error lists the units.
    """
    end, total, stripped = 0, 0.0, text.strip()
    hint = ""
    while (part := re.compile(_DURATION_PART).match(stripped, end)) is not None:
        unit = part[2].lower()
        if unit not in _SECONDS_OF or part[2] == "M":  # a month to systemd
            hint = f"; {part[2]!r} is not one of the units {', '.join(names[0] for names in _SECONDS)}"
            break
        total += float(part[1]) * _SECONDS_OF[unit]
        end = part.end()
    if not end or end != len(stripped) or total > LONGEST:
        raise ValueError(f"{text!r} is not a length of time: write 90s, 10min, '1h 30min', 7d or '2 weeks'{hint}")
    return total


def parse_seconds(value: object) -> float:
    """
    Read a length of time, which may also be a number of seconds.

    Raises:
        TypeError: It is neither a number nor a text.
        ValueError: The text is not a length of time.
    """
    if isinstance(value, str):
        return float(value) if re.fullmatch(_NUMBER, value) else parse_duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TypeError(
        f"{value!r} is not a length of time: write seconds, or a text such as 90s, 10min, '1h 30min', 7d or '2 weeks'"
    )


def parse_size(value: object) -> int:
    """
    Read a size: a number of bytes, or a text such as `500MB`, `2 GB` or `64MiB`.

    >>> parse_size("64MiB")
    67108864

    Raises:
        TypeError: It is neither an integer nor a text.
        ValueError: The text is not a size; the error lists the units.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    allowed = "write bytes (an integer), or a text such as 500MB, 2GB or 64MiB"
    message = f"{value!r} is not a size: {allowed}"
    if not isinstance(value, str):
        raise TypeError(message)
    found = re.fullmatch(_SIZE, value, re.IGNORECASE)
    if found is None:
        raise ValueError(message)
    unit = found[2].lower() or "b"
    if unit not in _BYTES_OF:
        message += f"; {found[2]!r} is not one of the units {', '.join(_BYTES)}"
        raise ValueError(message)
    return int(min(float(found[1]), 2.0**64) * _BYTES_OF[unit])


def format_size(count: float) -> str:
    """
    Write a number of bytes in about three digits; `parse_size` reads the text back.

    >>> format_size(129175552)
    '129 MB'
    """
    if round(count) < _BYTES["kB"]:
        return f"{count:.0f} B"
    number = float(count)
    for unit in ("kB", "MB", "GB"):
        number /= _BYTES["kB"]
        if round(number) < _BYTES["kB"]:
            return f"{number:.{0 if round(number, 1) >= _THREE_DIGITS else 1}f} {unit}"
    return f"{number / _BYTES['kB']:.1f} TB"


def format_duration(seconds: float) -> str:
    """
    Write a length of time in the unit that people would choose.

    >>> format_duration(5400)
    '90.0 min'
    """
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def counted(count: int, one: str, many: str = "") -> str:
    """
    Write a number of things.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def loudest(counts: Mapping[str, int], most: int = 4) -> str:
    """
    Write the `most` highest counts, and the sum of the others.

    >>> loudest({"shop": 7, "auth": 1200, "cache": 2}, 2)
    'auth 1,200, shop 7, 1 other 2'
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{name} {count:,}" for name, count in ranked[:most]]
    rest = ranked[most:]
    if rest:
        parts.append(f"{counted(len(rest), 'other')} {sum(count for _, count in rest):,}")
    return ", ".join(parts) or "none"
