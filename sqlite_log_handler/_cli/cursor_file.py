"""
The file in which `show --cursor-file` stores how far it has read: an id, and the time of the row with this id.

It begins with a word of its own, so that no other file is taken for one and overwritten. It is written beside, under a
name that nobody can have made before, and then renamed, so that no link is followed.
"""

import contextlib
import os
import tempfile

from sqlite_log_handler._cli.arguments import require_folder
from sqlite_log_handler._cli.terminal import say
from sqlite_log_handler._read.filters import FilterError
from sqlite_log_handler._read.reader import LogReader

_WORD = "sqlite-log-cursor"


def require_cursor_file(path: str) -> None:
    """Raise an error if the cursor cannot be kept at `path`: after the records were shown, it would be too late."""
    if not path:
        message = "--cursor-file has no name: name a file"
        raise FilterError(message)
    if os.path.isdir(path):
        message = f"{path!r} is a folder: name a file in it"
        raise FilterError(message)
    # A new file replaces it each time, and must replace neither /dev/null nor a link.
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
        message = f"{path!r} is not a regular file: name one that does not exist yet"
        raise FilterError(message)
    require_folder(path)
    _kept(path)


def _kept(path: str) -> list[int]:
    """Return what the file holds: nothing if there is no file, or an empty one, as mktemp makes it."""
    try:
        with open(path, encoding="ascii") as file:
            words = file.read(100).split()
        if words and (words[0] != _WORD or len(words) > 3):  # noqa: PLR2004 - an id and a time
            raise ValueError  # noqa: TRY301 - as for what is no number
        return [int(word) for word in words[1:]]
    except FileNotFoundError:
        return []
    except ValueError as error:
        message = f"{path!r} is not a cursor file: name one that does not exist yet, or the one that `show` wrote"
        raise FilterError(message) from error


def read_cursor(path: str, reader: LogReader, last_id: int) -> int | None:
    """Return the id that was kept, or None if there is none yet."""
    kept = _kept(path)
    if not kept:
        return None
    cursor, *created = kept
    # A log without rows tells nothing: the rows that were read may have been pruned.
    there = _created(reader, cursor) if created else []
    if last_id and (cursor > last_id or (there and there != created)):
        say(f"the log was replaced since {path!r} was written: it is read from its beginning")
        return None
    return cursor


def _created(reader: LogReader, id_: int) -> list[int]:
    """Return the time of the row with this id in a list, which is empty if there is no such row."""
    return [row.created_us for row in reader.rows(after_id=id_ - 1, up_to_id=id_)]


def keep_cursor(path: str | None, reader: LogReader, last_id: int) -> None:
    """
    Store how far the log was read, once all of that is printed: a crash shows rows again rather than never.

    The time of the last row is stored as well: another log does not have that time under this id.
    """
    if path is not None and last_id:
        folder, name = os.path.split(path)
        descriptor, new = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(" ".join(map(str, [_WORD, last_id, *_created(reader, last_id)])) + "\n")
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
