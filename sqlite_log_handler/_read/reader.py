"""`LogReader`: a log as Python objects."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Literal, Self, TypeAlias, Unpack

from sqlite_log_handler._logfile.columns import text
from sqlite_log_handler._logfile.connect import identity_of
from sqlite_log_handler._logfile.errors import EmptyFileError, LogFileError, MissingFileError, UnreadableFileError
from sqlite_log_handler._logfile.times import now_us
from sqlite_log_handler._read import brief, patterns, statistics, top, totals
from sqlite_log_handler._read.archived import ArchivedLog
from sqlite_log_handler._read.brief import Brief
from sqlite_log_handler._read.filters import (
    HIGHEST,
    LOWEST,
    FilterError,
    Filters,
    SharedSource,
    below,
    integer,
    lasting,
    level_names,
    require_short,
    seconds,
    source_of,
    up_to,
    where,
)
from sqlite_log_handler._read.inventory import StrPath, is_archive, places_of
from sqlite_log_handler._read.opening import require_file
from sqlite_log_handler._read.patterns import Moment, Pattern
from sqlite_log_handler._read.rows import SELECT_JSON, SELECT_ROW, Row, select
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.statistics import Books, Bucket, Gap, LogStats
from sqlite_log_handler._read.top import Talker
from sqlite_log_handler._read.totals import Totals

By: TypeAlias = Literal["logger", "source", "template", "level", "exception", "thread", "process", "attribute"]

# Seconds between two looks at a log that is followed. With the handler's tick of 0.1 s, a row appears 0.15 s after it
# was logged. A look that finds nothing new takes some ten microseconds.
POLL_SECONDS = 0.05

# Most names of loggers among which we look for the nearest ones.
_MOST_NAMES = 10_000


def read_file(path: str) -> "LogReader":
    """Open the file of a log, without an archive, to follow it or to read its state."""
    require_file(path)
    if is_archive(path):
        raise UnreadableFileError(f"{path!r} is a part of an archive: name the file of a SQLiteHandler")
    return LogReader(path)


def has_archive(reader: "LogReader") -> bool:
    """Tell whether a reader reads an archive."""
    return reader._archive is not None  # noqa: SLF001 - of this module


def log_id(reader: "LogReader") -> object:
    """Return the number of this very file: one that takes its place has another, and gives the same ids again."""
    found = reader._one_file("").all("SELECT substr(log_id, 1, 16) FROM marks LIMIT 1")  # noqa: SLF001 - of this module
    return found[0][0] if found else None


def followed(reader: "LogReader", filters: Filters) -> Filters:
    """Return `filters` so that they also hold for a file that takes the place of this one."""
    return lasting(reader._names().all, filters)  # noqa: SLF001 - of this module


def shared_source(reader: "LogReader", id_: int) -> SharedSource:
    """Return what the rows of the pattern of a row share, for `pattern_of`."""
    return source_of(reader._one_file("").all, id_)  # noqa: SLF001 - of this module


def columns_of(
    reader: "LogReader",
    names: Iterable[str],
    *,
    newest: int | None = None,
    reverse: bool = False,
    **filters: Unpack[Filters],
) -> Iterator[tuple[Any, ...]]:
    """Yield some columns of each row that `LogReader.rows` would yield, the id first."""
    return reader._select(select(names), newest, filters, reverse=reverse)  # noqa: SLF001 - of this module


def nearest_loggers(reader: "LogReader", name: str) -> list[str] | None:
    """
    Return the names nearest to `name`; None if there is a logger of this name or below it, or an archive, all of which
    we would have to read.
    """
    if has_archive(reader):
        return None
    require_short("logger", name)
    sql, parameters = below(name)
    ask = reader._names().all  # noqa: SLF001 - of this module
    if any(ask(f"SELECT 1 FROM {table} WHERE {sql} LIMIT 1", parameters) for table in ("sources", "drops")):  # noqa: S608 - no value in it
        return None
    # `difflib` takes 2 ms to import, and right names do not need it.
    from difflib import get_close_matches  # noqa: PLC0415 - see above

    names = ask(f"SELECT DISTINCT {text('logger')} FROM sources LIMIT {_MOST_NAMES}")  # noqa: S608 - our own number
    found = {found.casefold(): found for (found,) in names}
    return [found[near] for near in get_close_matches(name.casefold(), found)]


def windows(
    reader: "LogReader", filters: Filters, newest: int | None, before: int, after: int, *, reverse: bool = False
) -> Iterator[tuple[int, int]]:
    """
    Yield bounds of ids, both included: `before` rows before and `after` rows after each row that matches.

    Windows that touch become one. Ids have no holes, so we count them instead of looking them up.
    """
    window: tuple[int, int] | None = None
    for (id_,) in columns_of(reader, ["id"], newest=newest, reverse=reverse, **filters):
        low, high = max(id_ - before, min(id_, 1), LOWEST + 1), min(id_ + after, HIGHEST)
        if window is not None and low <= window[1] + 1 and window[0] <= high + 1:
            low, high = min(low, window[0]), max(high, window[1])
        elif window is not None:
            yield window
        window = low, high
    if window is not None:
        yield window


def around(reader: "LogReader", filters: Filters, place: int, before: int, after: int) -> tuple[int, int]:
    """Return bounds of ids, both included: the row `place` and, of the rows that match, `before` and `after` it."""
    first = (filters.get("after_id") or 0) + 1
    last_id = filters.get("up_to_id")
    last = reader.last_id() if last_id is None else last_id
    head, tail = up_to(filters, place - 1), filters.copy()
    tail["after_id"] = max(place, first - 1)
    (low,) = next(columns_of(reader, ["id"], newest=before, **head), (place,))
    ((high,),) = deque(islice(columns_of(reader, ["id"], **tail), after), maxlen=1) or [(place,)]
    return max(low, first), min(high, last)


class LogReader:
    """
    Read a log, while a program writes it or long after. A reader cannot change it.

        >>> with LogReader("app-log.db") as log:
        ...     for row in log.rows(level="WARNING", logger="shop", since="-1h"):
        ...         print(row.level, row.logger, row.message)
        WARNING shop stock of tea is low

    It is safe beside a program that logs: no query holds a snapshot for longer than it takes to read some hundred rows,
    however long you take over them. It is safe on files from elsewhere: it runs nothing that stands in a file, and
    refuses a file that would take endless work.

    All methods that return rows or numbers take the same filters by name. A row must match all that you give.

    - `since`, `until`: A `datetime` (without a zone: local time), a `date` (its midnight, local time), or a text such
      as `yesterday`, `-1h`, `10 min ago`, `2025-06-30 12:00`, `@1751284800`.
    - `level`: The lowest level, by name or number, or a range such as `INFO..WARNING`.
    - `logger`, `exclude`: Names of loggers, one or several, which include those below them in the hierarchy.
    - `text`: Text in the message or in the traceback; `pattern`: a regular expression instead. Without a capital
      letter, both ignore case.
    - `process`: A process id; `run`: one start of the program: the last (0), the one before (-1), or the first (1).
    - `thread`: A thread's name or identifier; `task`: the name of an asyncio task.
    - `exception`: The class of an exception, with its module or without.
    - `attributes`: A dict of names and values of `extra`. Numbers are compared as numbers, all else as text.
    - `where`: Conditions on attributes, one or several: `status>=500`, `status!=200`, `user.plan=pro`, `path~^/api`,
      `key` (is there), `!key`.
    - `pattern_of`: The id of a row, for all rows of its pattern; see `patterns`.
    - `after_id`, `up_to_id`: Bounds of `id`.

    You may hand a reader from thread to thread, but only one thread may use it at a time; others may `interrupt` and
    `close` it.

    A reader takes a folder with archived parts of a log like a log, and `["app-log.db", "archive"]`, a list of the file
    and the folder, as one log.

    Args:
        path: The database, a `str` or a `PathLike`; a folder with parts of its archive; or several of these in a list.
        timeout: Seconds to wait while another process keeps the file locked, which does not happen in WAL mode.

    Raises:
        MissingFileError: There is no file.
        EmptyFileError: No handler has written to the file yet.
        ForeignFileError: The file is not a log of this package.
        NewerSchemaError: A newer version of this package made the file.
        UnreadableFileError, BusyFileError, CorruptFileError: The reader cannot read it; the text says what to do.
        LimitError: A question takes more work than on any log.
        FilterError: A filter makes no sense. It is a ValueError.
        ValueError: The reader was used after `close()`.
    """

    def __init__(self, path: StrPath | Iterable[StrPath], *, timeout: float = 5.0) -> None:
        place = places_of(path)
        self._timeout = timeout = seconds("timeout", timeout)
        self._archive: ArchivedLog | None = None
        if place.file is not None:
            require_file(place.file)
        # Before we open it: if the file is replaced in between, rows come twice rather than never.
        self._file = None if place.file is None else identity_of(place.file)
        self._scan = None if place.file is None else Scan(place.file, timeout=timeout)
        try:
            if place.folders or place.parts:
                self._archive = ArchivedLog(place, self._scan)
        except BaseException:
            self.close()
            raise
        self.path = place.path

    def _question(self, filters: Filters | None = None) -> Scan:
        """Return a scan of all rows that may match these filters, with a new budget for one question."""
        if self._archive is not None:
            return self._archive.question(filters or {})
        return self._one_file("")

    def _names(self) -> Scan:
        """Return a scan of the names of levels, of the processes and of the gaps."""
        return self._one_file("") if self._archive is None else self._archive.ledger()

    def _one_file(self, what: str) -> Scan:
        """Return the scan of the file, with a new budget; raise an error if `what` would come from an archive."""
        if self._scan is None or self._archive is not None:
            raise FilterError(f"{self.path!r} is read with an archive, which has no {what}: name the log's file alone")
        self._scan.renew()
        return self._scan

    def _opened(self) -> "list[Scan | ArchivedLog]":
        return [reader for reader in (self._scan, self._archive) if reader is not None]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}{' (closed)' if self._opened()[0].closed else ''}>"

    @property
    def notice(self) -> str | None:
        """What the reader leaves out, such as rows in a -wal that it may not read; None if it leaves out nothing."""
        return "; ".join(reader.notice for reader in self._opened() if reader.notice) or None

    @property
    def schema(self) -> int:
        """The version of the file's schema."""
        return int(self._one_file("schema").one("PRAGMA user_version"))

    def close(self) -> None:
        """Close the file. After that, all methods but `close` raise a ValueError."""
        for reader in self._opened():
            reader.close()

    def interrupt(self) -> None:
        """End the statement that another thread runs with this reader; it raises a KeyboardInterrupt there."""
        for reader in self._opened():
            reader.interrupt()

    def level_names(self) -> dict[int, str]:
        """Return the names of levels by their numbers."""
        return level_names(self._names().all)

    def last_id(self) -> int:
        """Return the id of the last row, 0 in an empty log."""
        return self._question().last_id() if self._archive is None else self._archive.last_id()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def rows(self, *, newest: int | None = None, reverse: bool = False, **filters: Unpack[Filters]) -> Iterator[Row]:
        """
        Yield the rows that match now, in the order in which they were committed.

        Args:
            newest: Only this many of the newest rows that match; 0 or more.
            reverse: The newest one first.
            filters: See the class.
        """
        # As `Row._make` does, but without a call in Python for each row.
        return map(partial(tuple.__new__, Row), self._select(SELECT_ROW, newest, filters, reverse=reverse))

    def count(self, **filters: Unpack[Filters]) -> int:
        """Count the rows that match."""
        if self._archive is not None:
            return sum(1 for _ in self._select(select(["id"]), None, filters, reverse=False))
        scan = self._question()
        return scan.count(where(scan.all, filters))

    def json_lines(
        self, *, newest: int | None = None, reverse: bool = False, **filters: Unpack[Filters]
    ) -> Iterator[str]:
        """Yield each row as a line of JSON, as `Row.to_json` does. SQLite makes it, several times as fast."""
        return map(itemgetter(1), self._select(SELECT_JSON, newest, filters, reverse=reverse))

    def _select(self, query: str, newest: int | None, filters: Filters, *, reverse: bool) -> Iterator[tuple[Any, ...]]:
        newest = None if newest is None else integer("newest", newest, 0)
        if self._archive is not None:
            return self._archive.rows(query, newest, filters, backward=reverse)
        scan = self._question()
        chosen = where(scan.all, filters)
        if newest is not None:
            chosen = scan.newest(chosen, newest)
        return scan.rows(query, chosen, backward=reverse)

    def follow(
        self, *, wait: Callable[[float], object] = time.sleep, poll: float = POLL_SECONDS, **filters: Unpack[Filters]
    ) -> Iterator[Row]:
        """
        Yield the rows that match as they are committed, without end.

        It begins after the last row, or after `after_id`. It goes on by id, so retention does not disturb it. If
        another file takes the place of this one, it reads the old file to its end, and then the new one from its first
        row, or a copy of the old one from where it was.

        Args:
            wait: Called with the seconds until the next look. If it returns a true value, as `threading.Event().wait`
                may, the iteration ends.
            poll: The seconds between two looks.
            filters: See the class.
        """
        # Not in the generator, so that errors come at once, and all filters have their meaning of now.
        seconds("poll", poll)
        return self._follow(lasting(self._one_file("new rows").all, filters), wait, poll)

    def _follow(self, filters: Filters, wait: Callable[[float], object], poll: float) -> Iterator[Row]:
        for after_id, up_to_id in self.additions(filters.get("after_id"), wait=wait, poll=poll):
            narrowed: Filters = {**up_to(filters, up_to_id), "after_id": after_id}
            yield from self.rows(**narrowed)

    def additions(
        self, after_id: int | None = None, *, wait: Callable[[float], object] = time.sleep, poll: float = POLL_SECONDS
    ) -> Iterator[tuple[int, int]]:
        """
        Yield the bounds `(after_id, up_to_id)` of each addition to the log, without end; see `follow`.

        Until the caller asks for the next pair, the reader reads the file to which the pair belongs.
        """
        seconds("poll", poll)
        scan = self._one_file("new rows")
        last_id = scan.last_id()
        after_id = last_id if after_id is None else integer("after_id", after_id)
        version: object = None
        while True:
            file = identity_of(self.path)
            is_away = file != self._file  # moved or removed under us, and we still have it open
            try:
                newer = self._newer(scan, is_away=is_away) if is_away or scan.is_stale else None
            except LogFileError:
                if is_away and (last_id := self.last_id()) > after_id:  # the end of the file that we have open
                    yield after_id, last_id
                raise
            if newer is not None and not is_away:
                scan, version, newer = self._exchange(scan, newer, file), None, None
            # After that look: once another log stands at the path, a program has ended its last commit to ours.
            seen, version = version, self._question().one("PRAGMA data_version")
            was, last_id = last_id, scan.last_id() if seen != version else last_id
            if last_id < was:  # somebody has deleted the newest rows, whose ids may come again
                after_id = min(after_id, last_id)
            if last_id > after_id:
                if newer is not None:
                    newer.close()  # the next look finds it again, and the caller may not ask for one
                yield after_id, last_id
                after_id = last_id
            elif newer is not None:
                last = self._place(after_id)
                scan, version = self._exchange(scan, newer, file), None
                # Only a copy of the file has the rows that were read.
                after_id = after_id if last and last == self._place(after_id) else 0
                continue
            if wait(poll):
                return

    def _place(self, id_: int) -> list[object]:
        """Return what tells a row from that of another file under this id; an empty list without the row."""
        sql = "SELECT substr(log_id, 1, 16), created_us FROM marks, records WHERE id = ? LIMIT 1"
        return self._question().all(sql, (id_,))

    def _newer(self, scan: Scan, *, is_away: bool) -> Scan | None:
        """Open the log that is at the path now, if there is one that we can follow."""
        scan.require_open()  # not when `wait` has closed the reader
        try:
            newer = Scan(self.path, timeout=self._timeout)
        except (MissingFileError, EmptyFileError):
            return None
        if not is_away and newer.notice is not None:
            # We may not read its -wal, which a program may be writing back into the file at this moment.
            newer.close()
            return None
        return newer

    def _exchange(self, scan: Scan, newer: Scan, file: tuple[int, int] | None) -> Scan:
        """Read `newer` from now on, of which `file` was seen before it was opened."""
        scan.close()
        self._scan, self._file = newer, file
        return newer

    def top(self, by: By = "logger", *, key: str | None = None, **filters: Unpack[Filters]) -> list[Talker]:
        """
        Return who logs most, the loudest first.

        By logger and by level, with no filters but `level`, `logger`, `exclude` and full hours, the numbers come from
        the view `volume`, which still counts pruned rows. For all else, the reader counts row by row.

        Args:
            by: `logger`, `source` (a call site), `template`, `level`, `exception`, `thread`, `process` or `attribute`.
            key: The name of the attribute by whose values to group, such as `status` or `user.plan`.
            filters: See the class.
        """
        return top.top(self._question(filters), by, filters, key=key)

    def patterns(self, *, new_since: Moment | None = None, **filters: Unpack[Filters]) -> list[Pattern]:
        """
        Count the rows that match by pattern: by template, or by call site if there is no template.

        Args:
            new_since: Only patterns that no earlier row has: since a time as for `since`, or since a run as for `run`,
                an integer.
            filters: See the class.
        """
        # All earlier rows decide which pattern is new.
        return patterns.patterns(self._question(filters if new_since is None else {}), new_since, filters)

    def brief(self, since: Moment | None = None) -> Brief:
        """
        Read the facts that you need first: errors, new patterns, loud loggers, gaps, and the state of the file.

        Args:
            since: A time as for `since`, or a run as for `run`, an integer. By default the last run, or the whole log
                if it has one run only.
        """
        newest: Filters = {"after_id": max(self.last_id() - brief.MOST_ROWS, 0)}
        found = brief.brief(self._question(newest), since, now_us())
        if self._archive is None:
            return found
        file_bytes, wal_bytes = self._archive.sizes()
        return replace(found, totals=replace(found.totals, file_bytes=file_bytes, wal_bytes=wal_bytes))

    def gaps(self, **filters: Unpack[Filters]) -> list[Gap]:
        """
        Return the gaps: the lines of the ledger of drops, and the rows that were pruned before they were forwarded.

        Filters that do not apply to dropped records, such as `text`, let every gap pass.
        """
        return statistics.gaps(self._names(), filters)

    def stats(self, *, by_level: bool = True) -> LogStats:
        """
        Count the rows, drops and bytes of the log.

        Args:
            by_level: False leaves `levels` empty, which takes milliseconds at any size of the log.
        """
        counted = by_level or self._archive is not None  # parts of an archive may be gone, and then ids have holes
        found = statistics.stats(self._question(), now_us(), by_level=counted)
        if self._archive is not None:
            found = self._archive.sized(found)
        return found if by_level else replace(found, levels={})

    def totals(self) -> Totals:
        """Return how much was written and dropped since the file was made, in numbers that never fall; its state."""
        return totals.totals(self._one_file("totals"), now_us())

    def histogram(
        self, bucket: str | float | None = None, *, most: int = 24, **filters: Unpack[Filters]
    ) -> list[Bucket]:
        """
        Count records over time, by level.

        Args:
            bucket: The length of a bucket: seconds, or a text such as `10 min`. By default a round length.
            most: Most buckets if you give no length; 2 or more.
            filters: See the class.
        """
        return statistics.histogram(self._question(filters), bucket, filters, most)

    def books(self) -> Books:
        """Count rows and drops in all places that have to agree."""
        return statistics.books(self._one_file("books"))

    def check(self) -> list[str]:
        """Let SQLite check the file, and return the faults that it finds."""
        return self._one_file("check").check()
