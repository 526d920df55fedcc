"""
An inventory of one log: its file, the parts of its archive, and the ids that are read from each.

A folder may have parts of other logs, and parts that overlap after a crash. Each id comes from one piece only.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from sqlite_log_handler._logfile.archive import LOCK, PARTIAL, PROCESS, PartName, stem_of
from sqlite_log_handler._logfile.columns import text
from sqlite_log_handler._logfile.errors import (
    EmptyFileError,
    ForeignFileError,
    LimitError,
    MissingFileError,
    UnreadableFileError,
)
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._read.filters import FilterError, level_names
from sqlite_log_handler._read.loaded import Process
from sqlite_log_handler._read.parts import Bounds, Part, Span, Values, meet, memory_of
from sqlite_log_handler._read.scan import Scan

StrPath: TypeAlias = str | os.PathLike[str]
T = TypeVar("T")
# A part, and the ids that are taken from it.
Piece: TypeAlias = tuple[Part, Span]

_PROCESSES: Final = f"SELECT {', '.join(PROCESS.values())} FROM processes ORDER BY id"  # noqa: S608 - our own names

# Most bytes of memory for the heads of all parts. Those of a year with a start of the program each hour take 3 MiB.
_HEADS: Final = 32 * 1024 * 1024


class Places(NamedTuple):
    """The places of one log: its file, folders with parts of its archive, and single parts; errors name `path`."""

    path: str
    file: str | None
    folders: tuple[str, ...]
    parts: tuple[str, ...]


def is_archive(path: str) -> bool:
    """Tell whether a path is a folder, or has the name of a file in an archive."""
    name = os.path.basename(path)
    return (
        os.path.isdir(path) or name.endswith(f"{LOCK}-lock") or PartName.parse(name.removesuffix(PARTIAL)) is not None
    )


def places_of(path: StrPath | Iterable[StrPath]) -> Places:
    """Tell files, folders and parts apart; raise a FilterError if they cannot be of one log."""
    given = [path] if isinstance(path, str | os.PathLike) else [*path]
    paths = [*dict.fromkeys(os.path.abspath(os.fsdecode(one)) for one in given)]
    folders = [one for one in paths if os.path.isdir(one)]
    parts = [one for one in paths if one not in folders and is_archive(one)]
    files = [one for one in paths if one not in {*folders, *parts}]
    if len(files) > 1:
        raise FilterError(f"one log at a time: {files[1]!r} is one too many")
    # A glob over an archive names its lock too, and what is being written.
    parts = [one for one in parts if PartName.parse(os.path.basename(one))]
    if not files and not folders and not parts:
        raise FilterError("no log is named")
    return Places([*files, *folders, *parts][0], files[0] if files else None, tuple(folders), tuple(parts))


class Inventory(NamedTuple):
    """
    What a log consists of at one moment.

    Attributes:
        pieces: In the order of their ids.
        first_id: The first id in the file; None without a file or a row in it.
        last_id: The last id of all, 0 if there is none.
        levels: The names of levels, by number.
        processes: All of them, the archive's first.
        notices: What is left out.
        version: Changes with each commit of another process to the file.
    """

    pieces: tuple[Piece, ...]
    first_id: int | None
    last_id: int
    levels: Mapping[int, str]
    processes: tuple[Process, ...]
    notices: tuple[str, ...]
    version: object

    def within(self, bounds: Bounds) -> list[Piece]:
        """Return the pieces that may have something within the bounds, each with its ids within them."""
        low, high = bounds.ids
        return [
            (part, (max(ids[0], low), min(ids[1], high)))
            for part, ids in self.pieces
            if bounds.meet(part.head) and meet(ids, bounds.ids)
        ]


class PartList:
    """The parts of one log's archive at `places`, listed anew at each look, and its `file`, if that is read too."""

    def __init__(self, places: Places, file: Scan | None) -> None:
        self._places, self._file = places, file
        self._heads: dict[tuple[str, int, int], Part] = {}  # by path, and what tells whether the file has changed
        self._found: Inventory | None = None
        if file is None and not self.look().pieces:
            raise EmptyFileError(
                f"{places.path!r} is a folder without an archived part of a log: name the file of a SQLiteHandler"
            )

    def look(self) -> Inventory:
        """Return what there is now; the same object as the last time if nothing has changed."""
        file = self._file
        # The version first, so that what is committed meanwhile changes the next one.
        version = None if file is None else file.one("PRAGMA data_version")
        # The file before the folder: a row that leaves the file meanwhile is in a part by then.
        first_id, last_id = (None, None) if file is None else file.ends_of("id")
        pieces, notices = self._pieces()
        was = self._found
        if was is not None and (was.pieces, was.first_id, was.version) == (pieces, first_id, version):
            return was
        heads = [part.head for part, _ in pieces]
        levels = {int(levelno): name for head in heads for levelno, name in head.levels.items()}
        found = [process_of(process) for head in heads for process in head.processes]
        if file is not None:
            levels |= level_names(file.all)
            found += file.all(_PROCESSES)
        processes: dict[Values, Process] = {}
        for process in found:
            processes.setdefault(process[:4], process)
        last_id = max(last_id or 0, pieces[-1][1][1] if pieces else 0)
        self._found = Inventory(pieces, first_id, last_id, levels, tuple(processes.values()), notices, version)
        return self._found

    def _pieces(self) -> tuple[tuple[Piece, ...], tuple[str, ...]]:
        """Return the parts of this log, each with the ids that no part before it has, and what is left out."""
        noted = self._noted()
        parts = self._parts()
        log_id, stem = self._log(parts)
        mine = [part for part in parts if part.head.log_id == log_id]
        others = [part for part in parts if part.head.log_id != log_id and stem in {None, part.head.log}]
        notices = []
        if others:
            notices.append(f"parts of another log are left out: {len(others):,}, such as {others[0].path!r}")
        missing = noted - {os.path.basename(part.path) for part in mine}
        # Noted before and after the look at the folder: meanwhile one may have come, or a limit may have removed one.
        if missing and (missing := missing & self._noted()):
            notices.append(f"parts that the log notes are missing: {len(missing):,}, such as {min(missing)!r}")
        pieces: list[Piece] = []
        done = 0
        for part in sorted(mine, key=lambda part: (part.head.first_id, -part.head.last_id)):
            if part.head.last_id > done:
                pieces.append((part, (max(part.head.first_id, done + 1), part.head.last_id)))
                done = part.head.last_id
        return tuple(pieces), tuple(notices)

    def _noted(self) -> set[str]:
        """Return the names of the parts that the log notes."""
        if self._file is None:
            return set()
        return {name for (name,) in self._file.all(f"SELECT {text('name')} FROM archives")}  # noqa: S608 - our own names

    def _parts(self) -> list[Part]:
        """Return all parts. It reads a head again only if the part has changed."""
        heads = {}
        left = _HEADS
        for path in self._paths():
            version = (path, *_version_of(path))
            part = self._heads.get(version) or next(self.unless_expired(path, map(Part.open, [path])), None)
            if part is None:
                continue
            heads[version] = part
            left -= memory_of(part.head)
            if left < 0:
                raise LimitError(
                    f"{path!r}: the heads of the parts up to this one take more than {_HEADS >> 20} MiB of memory"
                )
        self._heads = heads
        return [*heads.values()]

    def unless_expired(self, path: str, read: Iterable[T]) -> Iterator[T]:
        """Yield what stands in a part; nothing if a limit has removed it since then: first its note, then the file."""
        try:
            yield from read
        except MissingFileError:
            if os.path.lexists(path) or path in self._places.parts or os.path.basename(path) in self._noted():
                raise

    def _paths(self) -> Iterator[str]:
        for folder in self._places.folders:
            try:
                names = os.listdir(folder)
            except OSError as error:
                raise UnreadableFileError(f"{folder!r} cannot be read: {error}") from error
            yield from (os.path.join(folder, name) for name in sorted(names) if PartName.parse(name))
        yield from self._places.parts

    def _log(self, parts: list[Part]) -> tuple[str, str | None]:
        """Return the id of the log that is read, and the stem of its file, if that is read too."""
        if self._file is not None:
            return str(self._file.one("SELECT log_id FROM marks")), stem_of(os.path.realpath(self._file.path))
        names = sorted({part.head.log for part in parts})
        if len(names) > 1:
            logs = printable(", ".join(names))
            raise ForeignFileError(
                f"{self._places.path!r} has parts of several logs ({logs}): name those of one, or its file too"
            )
        newest = max(parts, key=lambda part: part.head.until_us, default=None)
        return ("", None) if newest is None else (newest.head.log_id, None)


def _version_of(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:  # which opening it raises too
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def process_of(found: Mapping[str, Any]) -> Process:
    """Return the process that stands in a head, or beside a gap."""
    return tuple(map(found.__getitem__, PROCESS))
