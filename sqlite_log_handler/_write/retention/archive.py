"""
The archive of a log: a folder in which rows become parts, which are then noted in the log's file.

Theory of operation
===================

`Archive.parts` makes parts of the rows in a range, one after the other. It writes each under another name, syncs it,
reads it back and counts, and only then gives it its name and yields it. `note`, on the connection that writes to the
log, puts a line for it into the table `archives` and raises `marks.archived_id`: rows up to there may be deleted.

Guarantees
==========

- At each moment each row is in the file, in a part that is noted, or counted in `marks.unarchived`. No row is in two
  parts that are noted.
- A part that is being written ends in `.partial`, and is begun anew after a crash. So is a part that has its name but
  no note, because the process was killed in between.
- A part of another log, or of an earlier file of the same name, is never written over: its `log_id` differs. Nor is one
  of a copy of the log, whose `log_id` is the same. It is deleted only where the limits ask for it.
- One process at a time archives a log in a folder, from the choice of a name to the note.
- When the archive has become too large, its oldest parts first lose their notes, and then they are deleted.
"""

import contextlib
import errno
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, takewhile
from typing import Final, NamedTuple

from sqlite_log_handler._logfile.archive import (
    JSON_LINES,
    LOCK,
    PARQUET,
    PARTIAL,
    SELECT_PROCESS,
    Head,
    PartName,
    part_names,
    stem_of,
)
from sqlite_log_handler._logfile.columns import text, whole
from sqlite_log_handler._logfile.connect import BOUND_CACHE, as_text, open_file
from sqlite_log_handler._logfile.forks import Connection
from sqlite_log_handler._logfile.parquet import import_pyarrow
from sqlite_log_handler._logfile.schema import ARCHIVED_ID, NOTED_ID
from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._logfile.write_lock import WriteLock, give_to_users_of
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.retention.parts import (
    LOG_ID,
    Vanished,
    ask,
    head_of,
    read_back,
    read_head,
    write_part,
)

# What a folder of Windows answers, and one that a host shares with its virtual machine.
_NO_SYNC_HERE: Final = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}

# What names of parts can say: from 1970 to 9999.
_LAST_SECOND: Final = 253_402_300_799

# The newest row never leaves the file.
_FIRST_AND_LAST: Final = f"""
SELECT (SELECT min(id) FROM records WHERE id > {ARCHIVED_ID}), (SELECT max(id) - 1 FROM records) FROM marks
"""  # noqa: S608 - our own SQL
# Ids between the last part and this one were deleted, or are given up: they count in `unarchived` from now on. Rows of
# this part that were deleted before its note counted there, and no longer do.
_MARK: Final = f"""
UPDATE marks SET log_id = :log_id, archived_id = max({ARCHIVED_ID}, :last_id), unarchived = ifnull(unarchived, 0)
    + max(0, :first_id - 1 - {ARCHIVED_ID}) - max(0, min({ARCHIVED_ID}, :last_id) - :first_id + 1)
WHERE ifnull({LOG_ID}, :log_id) = :log_id AND {NOTED_ID} < :first_id
"""  # noqa: S608 - our own SQL
_NOTE: Final = """
INSERT INTO archives (name, first_id, last_id, since_us, until_us, max_levelno, drops, dropped, bytes, crc32)
VALUES (:name, :first_id, :last_id, :since_us, :until_us, :max_levelno, :drops, :dropped, :size, :crc32)
"""
_PARTS: Final = f"""
SELECT id, {text("name")}, {whole("first_id")}, {whole("last_id - first_id + 1")}, {whole("until_us")}, {whole("bytes")}
FROM archives ORDER BY id
"""  # noqa: S608 - our own names
_EXPIRED: Final = "UPDATE marks SET expired = ifnull(expired, 0) + ?"


class WrittenPart(NamedTuple):
    """A part that is on the disk and was read back."""

    name: str
    head: Head
    size: int
    crc32: int


class Archive:
    """
    The archive of the log at `path`, in `folder`.

    Args:
        folder: Absolute path of a folder that exists.
        path: Path of the database, without links.
        limits: What is kept of it: parts whose newest row is younger than `max_age`, and `max_bytes` of them.
        kind: The format of parts; by default Parquet where pyarrow is installed, else JSON lines.
        say: Called with a line for the operator if the file system of the folder has no locks, or the log is damaged.
        now: Seconds since 1970, against which the age of parts is measured.
    """

    def __init__(
        self,
        folder: str,
        path: str,
        *,
        limits: Limits = Limits(),  # noqa: B008 - nothing changes it
        kind: str | None = None,
        say: Callable[[str], None] = print,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._limits = limits
        self._kind = kind
        self.path = path
        self._stem = stem_of(path)
        self._now = now
        self._may_go: set[str] = set()  # files to delete if they have no note
        self.expired: list[int] = []  # rows of each part that a limit has removed
        self._say = say
        lock = os.path.join(folder, self._stem + LOCK)
        # The right to archive this log in the folder.
        self.lock = WriteLock(lock, users_of=path, say=lambda line: say(f"{folder!r}: {line}"))

    def parts(
        self,
        connection: Connection,
        first_id: int = 0,
        last_id: int = sys.maxsize,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[WrittenPart]:
        """
        Yield parts of the rows in a range of ids, each to be noted by the caller, who holds the `lock`.

        After that, the file of a part without a note is deleted, and so are those whose notes a limit removed. Raises
        what `write` raises.
        """
        connection.text_factory = as_text
        ask(connection, BOUND_CACHE)
        self._remove_leftovers(connection)
        begun = 0
        while not stopped():
            ((begin, end),) = ask(connection, _FIRST_AND_LAST)
            if begin is None or not begun < begin <= min(end, last_id):
                return
            begun = begin
            part = self.write(connection, max(begin, first_id), min(end, last_id), stopped)
            self._may_go = {part.name}
            yield part
            if self.lock.stands():  # else another process may have written files of these names meanwhile
                self._remove(self._may_go - _noted(connection))

    def write(
        self, connection: Connection, first_id: int, last_id: int, stopped: Callable[[], bool] = lambda: False
    ) -> WrittenPart:
        """
        Make a part of the first rows of a range; the caller holds the `lock`.

        Raises:
            Vanished: Rows of it were deleted meanwhile.
            OutOfTime: `stopped` returned True.
            TimeoutError: The file of the lock was deleted, so another process may archive the same rows.
            OSError, sqlite3.Error: It cannot be written, or its rows cannot be read.
        """
        kind = self._kind = self._kind or _best_kind()
        head, first_us = head_of(connection, self._stem, first_id, last_id)
        if head.log_id is None:
            self._say("its `log_id` is damaged: it gets that of its archive, or another one")
            known = filter(PartName.parse, _noted(connection))  # a stranger's log may name any file
            heads = (read_head(os.path.join(self.folder, name)) for name in known)
            log_id = next((head.log_id for head in heads if head is not None), os.urandom(8).hex())
            head = head._replace(log_id=log_id)
        name = self._next_name(connection, first_us, kind)
        path = os.path.join(self.folder, name)
        try:
            # A new file, and not through a link that another user has put there.
            with open_file(path + PARTIAL, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                give_to_users_of(self.path, file.fileno(), self.folder)
                last_id = write_part(connection, file, head, kind, stopped)
                file.flush()
                os.fsync(file.fileno())
            if last_id == head.last_id:
                size, crc32 = read_back(path + PARTIAL, head, kind)
                if not self.lock.stands():
                    raise TimeoutError(f"the file of the lock was deleted: {self.lock.path!r}")
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
                os.rename(path + PARTIAL, path)
                self._sync()
                return WrittenPart(name, head, size, crc32)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path + PARTIAL)
        return self.write(connection, first_id, last_id, stopped)

    def note(self, connection: sqlite3.Connection, part: WrittenPart) -> bool:
        """
        Note a part, on the connection that writes to the log, and remove the notes of parts beyond the limits.

        Return False if the part is refused, because its rows are in another one, or in another file.
        """
        values = part._asdict() | part.head._asdict()
        with transaction(connection):
            noted = connection.execute(_MARK, values).rowcount == 1
            if noted:
                connection.execute(_NOTE, values)
                self.expire(connection)
        return noted

    def expire(self, connection: sqlite3.Connection) -> None:
        """Remove the notes of parts beyond the limits, in the open transaction; `parts` removes their files."""
        for id_, name, _, rows, *_ in self.beyond_limits(connection):
            self.expired.append(rows)
            if PartName.parse(name):
                self._may_go.add(name)
            connection.execute("DELETE FROM archives WHERE id = ?", (id_,))
            connection.execute(_EXPIRED, (rows,))

    def beyond_limits(self, connection: sqlite3.Connection) -> list[tuple[int, str, int, int, int, int]]:
        """Return id, name, first id, rows, latest time and bytes of each note that `expire` would remove."""
        parts = connection.execute(_PARTS).fetchall() if self._limits else []
        return parts[: self._beyond([part[4:] for part in parts])]

    def _beyond(self, parts: list[tuple[int, int]]) -> int:
        """Return how many of these parts go, the oldest first; each has its latest time and its bytes."""
        max_age, max_bytes = self._limits.max_age, self._limits.max_bytes
        old = over = 0
        if max_age is not None:
            # As for rows: a part of the future goes with the old ones around it.
            now_us = self._now() * 1e6
            since_us = now_us - max_age * 1e6
            before_young = takewhile(lambda part: not since_us <= part[1][0] <= now_us, enumerate(parts, 1))
            old = max((number for number, (until_us, _) in before_young if until_us < since_us), default=0)
        if max_bytes is not None:
            over = sum(size > max_bytes for size in accumulate(size for _, size in reversed(parts)))
        return max(old, over)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, name))

    def _remove_leftovers(self, connection: Connection) -> None:
        """
        Delete what a limit removed the note of, and what a killed process has left.

        The latter are parts that it was writing, those that it had not noted, whose rows are in this file, and those
        whose notes a limit had removed: they lie below all that are noted, and with a note they would be beyond the
        limits. Any other may be of a copy of the log, such as one from before a backup was restored, and have the only
        copy of its rows.
        """
        self._remove(f"{name}{PARTIAL}" for name in part_names(self.folder, self._stem, PARTIAL))
        parts = ask(connection, _PARTS)
        noted = {part[1] for part in parts}
        self._remove(self._may_go - noted)
        if self.lock.is_new:  # somebody may have deleted the lock's file of a process that has yet to note its part
            return
        ((log_id, archived_id),) = ask(connection, f"SELECT {LOG_ID}, {ARCHIVED_ID} FROM marks")  # noqa: S608 - our own SQL
        for name in {*map(str, part_names(self.folder, self._stem))} - noted:
            path = os.path.join(self.folder, name)
            head = read_head(path)
            if head is None or head.log_id != log_id:
                continue
            goes = False
            with contextlib.suppress(Vanished, FileNotFoundError):  # its rows, or itself, by now
                if head.last_id > archived_id:
                    found, _ = head_of(connection, self._stem, head.first_id, head.last_id)
                    goes = head._replace(levels={}) == found._replace(levels={})  # a level may have a name since
                elif parts and head.last_id < parts[0][2]:
                    known = [json.loads(line) for (line,) in ask(connection, SELECT_PROCESS)]
                    all_parts = [(head.until_us, os.path.getsize(path)), *(part[4:] for part in parts)]
                    goes = self._beyond(all_parts) > 0 and all(process in known for process in head.processes)
            if goes:
                self._remove([name])

    def _next_name(self, connection: Connection, first_us: int, kind: str) -> str:
        """Return the next name of the day of a part's first row."""
        day = time.strftime("%Y-%m-%d", time.gmtime(min(max(first_us // 1_000_000, 0), _LAST_SECOND)))
        names = {*map(PartName.parse, _noted(connection)), *part_names(self.folder, self._stem)}
        last = max((name.number for name in names if name is not None and name.day == day), default=0)
        return str(PartName(self._stem, day, last + 1, kind))

    def _sync(self) -> None:
        """Write the folder to the disk, on systems where a folder can be opened, and on file systems that can do it."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in _NO_SYNC_HERE:
                raise


def _noted(connection: Connection) -> set[str]:
    return {name for (name,) in ask(connection, f"SELECT {text('name')} FROM archives")}  # noqa: S608 - our own name


def _best_kind() -> str:
    try:
        import_pyarrow()
    except ImportError:
        return JSON_LINES
    return PARQUET
