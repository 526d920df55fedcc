"""
The logs that the server shows, and their names. A request names a log; only this module turns that name into a path.
"""

import os
from collections.abc import Sequence
from typing import Final

from sqlite_log_handler._logfile.errors import UnreadableFileError

_SUFFIX: Final = ".db"


class UnknownLogError(LookupError):
    """A request names a log that the server does not show."""


class Logs:
    """
    The logs at `paths`, which are files and folders. A folder stands for the files in it that now end in .db.

    Files of the same name get the names of their folders in front, as many as it takes to tell them apart.

    Raises:
        ValueError: `paths` is empty.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        if not paths:
            raise ValueError("there is nothing to serve: name the file of a SQLiteHandler, or a folder of them")
        self._paths = [os.path.abspath(os.fsdecode(path)) for path in paths]

    def by_name(self) -> dict[str, str]:
        """Return the path of each log by its name, in the order in which they were given."""
        # An address is UTF-8, and the name of a file may not be.
        by_text = {
            file.encode("utf-8", "backslashreplace").decode(): file for path in self._paths for file in _files_at(path)
        }
        files = list(by_text)
        names = [os.path.basename(file) for file in files]
        parts = 1
        while len(set(names)) < len(files):
            parts += 1
            names = [
                name if names.count(name) == 1 else "/".join(file.split(os.sep)[-parts:])
                for name, file in zip(names, files, strict=True)
            ]
        return dict(zip(names, by_text.values(), strict=True))

    def path_of(self, name: str | None) -> str:
        """Return the path of the log with this name, or of the first log; raise an UnknownLogError if there is none."""
        by_name = self.by_name()
        if not by_name:
            raise UnknownLogError("there is no log here yet")
        found = by_name.get(next(iter(by_name)) if name is None else name)
        if found is None:
            raise UnknownLogError(f"no log here is called {name!r}: choose from {', '.join(by_name)}")
        return found


def _files_at(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.name.endswith(_SUFFIX) and _may_be_file(entry))
    except OSError as error:
        raise UnreadableFileError(f"{path!r} cannot be read: {error}") from error


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself: a question about it says what is wrong
        return True
