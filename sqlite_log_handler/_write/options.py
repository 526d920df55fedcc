"""Checks of options: each error names the option, the value and the range."""

from __future__ import annotations

import logging
import os


def integer(option: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return `value` if it is an integer in range; without a `maximum` it has no upper end."""
    allowed = f"{minimum:,} or more" if maximum is None else f"from {minimum:,} to {maximum:,}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{option}={value!r}: must be an integer, {allowed}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{option}={value!r}: must be {allowed}")
    return value


def number(option: str, value: object, minimum: float, maximum: float, *, below: bool = False) -> float:
    """Return `value` as a float if it is in range; `below` leaves out the maximum itself."""
    allowed = f"from {minimum:,} to {'below ' if below else ''}{maximum:,}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{option}={value!r}: must be a number {allowed}")
    # Written so that NaN is out of range too.
    if not (minimum <= value < maximum if below else minimum <= value <= maximum):
        raise ValueError(f"{option}={value!r}: must be {allowed}")
    return float(value)


def level(option: str, value: object) -> int:
    """Return the number of a level that is given by number or by name."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    names = logging.getLevelNamesMapping()
    if isinstance(value, str) and value in names:
        return names[value]
    message = f"{option}={value!r}: must be a level number, or one of {', '.join(names)}"
    raise (ValueError if isinstance(value, str) else TypeError)(message)


def path(filename: object) -> str:
    """Return the absolute path of a database; refuse a name that is no path to SQLite, or leads nowhere."""
    if not isinstance(filename, str | os.PathLike):
        raise TypeError(f"filename={filename!r}: must be a path (str or os.PathLike)")
    name = os.fsdecode(filename)
    if not name or name == ":memory:" or name.startswith("file:") or "\0" in name:
        raise ValueError(
            f"filename={name!r}: must be the path of a file: an empty name, ':memory:' and 'file:' URIs "
            "would not be kept, and a NUL ends a path"
        )
    absolute = os.path.abspath(name)
    folder = os.path.dirname(absolute)
    if not os.path.isdir(folder):
        message = f"filename={name!r}: there is no folder {folder!r}: create it first"
        if name.startswith("~"):
            message = f"filename={name!r}: '~' is not expanded: use os.path.expanduser({name!r})"
        raise FileNotFoundError(message)
    if os.path.isdir(absolute):
        raise IsADirectoryError(f"filename={name!r}: is a directory: add the name of a file")
    # Asked twice, because another process may move it aside meanwhile.
    if os.path.exists(absolute) and not os.path.isfile(absolute) and os.path.exists(absolute):
        raise ValueError(f"filename={name!r}: is a device, a pipe or a socket: choose another")
    return absolute
