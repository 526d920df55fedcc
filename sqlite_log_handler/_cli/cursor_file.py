"""
The file of `show --cursor-file`: the id of the last row that was shown, and the time of that row.

It begins with a word of its own, so that we overwrite no other file. We write a new file beside it, under a random
name, and rename that, so that we follow no link.
"""

import contextlib
import os
import tempfile

from sqlite_log_handler._cli.arguments import require_folder, require_name, written_to
from sqlite_log_handler._cli.terminal import say
from sqlite_log_handler._read.filters import LOWEST, FilterError, integer
from sqlite_log_handler._read.reader import LogReader

_WORD = "sqlite-log-cursor"


def require_cursor_file(path: str) -> None:
    """Raise an error if we cannot store a cursor at `path`: after the records were shown, it would be too late."""
    require_name("--cursor-file", path)
    # A new file will replace it, but must replace neither /dev/null nor a link.
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
        raise FilterError(f"{path!r} is not a regular file: name one that does not exist yet")
    require_folder(path)
    _numbers_in(path)


def _numbers_in(path: str) -> list[int]:
    """Return the numbers in the file; none without a file, or in an empty one, as mktemp makes it."""
    try:
        with open(path, encoding="ascii") as file:
            words = file.read(100).split()
        if words and (words[0] != _WORD or len(words) > 3):  # noqa: PLR2004 - an id and a time
            raise ValueError  # noqa: TRY301 - as `int` below does
        return [integer("a number", int(word), least) for word, least in zip(words[1:], (0, LOWEST), strict=False)]
    except FileNotFoundError:
        return []
    except ValueError as error:
        message = f"{path!r} is not a cursor file: name one that does not exist yet, or the one that `show` wrote"
        raise FilterError(message) from error


def read_cursor(path: str, reader: LogReader, last_id: int) -> int | None:
    """Return the id that was stored, or None if there is none for this log yet."""
    numbers = _numbers_in(path)
    if not numbers:
        return None
    cursor, *created = numbers
    # In a log without rows we cannot tell: perhaps the rows that were read have been pruned.
    there = _created(reader, cursor) if created else []
    if last_id and (cursor > last_id or (there and there != created)):
        say(f"the log was replaced since {path!r} was written: none of it counts as shown")
        return None
    return cursor


def _created(reader: LogReader, id_: int) -> list[int]:
    """Return a list with the time of the row with this id, or without any if there is no such row."""
    return [row.created_us for row in reader.rows(after_id=id_ - 1, up_to_id=id_)]


def store_cursor(path: str | None, reader: LogReader, last_id: int) -> None:
    """
    Store how far the log was read, after all of that was printed: a crash shows rows twice rather than never.

    The time of the last row tells this log from another one, which has other times under its ids.
    """
    if path is None or not last_id:
        return
    with written_to(path):
        descriptor, new = tempfile.mkstemp(prefix=f".{_WORD}.", dir=os.path.dirname(path) or ".")
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(" ".join(map(str, [_WORD, last_id, *_created(reader, last_id)])) + "\n")
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
