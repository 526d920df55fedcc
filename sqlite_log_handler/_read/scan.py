"""
Read a log in short statements.

Theory of operation
===================

A statement that is not finished holds a snapshot, and while it is held the writer's WAL cannot be written back: it
grows for as long as somebody reads. So nothing here leaves a statement open. Ids are walked in spans, each statement
reads one span at most, and its rows are all fetched before the first is handed out, `BATCH` of them at most. Whoever
takes an hour over a log, or pipes it into a pager and goes home, holds up nobody.

Between two statements the writer commits and retention deletes. Ids only rise, and are never given twice, so walking
by id neither skips a row nor returns one twice; what is pruned meanwhile is not returned.

Filters on time are turned to bounds of the ids first, by the index alone. Clocks go back at times, so the condition on
time is asked of every row within these bounds as well.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from sqlite_log_handler._logfile.connect import primary_code
from sqlite_log_handler._logfile.forks import Connection
from sqlite_log_handler._read.filters import HIGHEST, Where
from sqlite_log_handler._read.opening import named_errors, open_log, step_budget
from sqlite_log_handler._read.search import SEARCH, search

# Rows that a statement hands out at most: at 64 KiB each they take 16 MiB.
BATCH: Final = 250

# Ids that a statement looks at: few at first, so that the first rows come at once; 50,000 take 2 to 50 ms.
_FIRST_SPAN: Final = 1_000
_SPAN: Final = 50_000

Values = tuple[Any, ...]


class Scan:
    """
    One log that is open for reading.

    Args:
        path: Where it is.
        timeout: Seconds to wait for a lock.
    """

    def __init__(self, path: str, *, timeout: float = 5.0) -> None:
        self.path = path
        self._connection: Connection | None
        seen = _seen(path)
        self._connection, self.notice, immutable = open_log(path, timeout=timeout)
        self._seen = seen if immutable else None
        self._budget = step_budget(self.connection, path)
        self._raised: BaseException | None = None
        self.connection.create_function(SEARCH, 3, self._search, deterministic=True)

    @property
    def connection(self) -> Connection:
        """
        The connection to it.

        Raises:
            ValueError: It was closed, or belongs to the process from which this one was forked.
        """
        if self._connection is None:
            message = f"the reader of {self.path!r} is closed: make a new LogReader"
            raise ValueError(message)
        if self._connection.is_inherited:
            message = f"the reader of {self.path!r} was made before this process was forked: make a new LogReader"
            raise ValueError(message)
        return self._connection

    @property
    def closed(self) -> bool:
        """
        Whether it was closed.
        """
        return self._connection is None

    @property
    def is_stale(self) -> bool:
        """
        Whether the file was written to and this connection, which takes it for one that nobody writes to, cannot know.
        """
        return self._seen is not None and self._seen != _seen(self.path)

    def close(self) -> None:
        """
        Close it.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """
        End the statement that runs in another thread, if one does.
        """
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):  # closed since
                connection.interrupt()

    def _search(self, pattern: str, ignore_case: bool, text: object) -> bool:  # noqa: FBT001 - as SQL hands it over
        try:
            return search(pattern, ignore_case, text)
        except BaseException as error:
            self._raised = error
            raise

    def all(self, sql: str, parameters: Values = ()) -> list[Any]:
        """
        Run one statement and return its rows.

        Raises:
            LogFileError: It cannot be read; the class says why.
        """
        self._budget.restart()
        self._raised = None
        with named_errors(self.path), self.connection.in_use():
            try:
                return self.connection.execute(sql, parameters).fetchall()
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", None)
                if code is None and self.connection.text_factory is str:
                    # Text that is no UTF-8: not of our making, and no reason to show nothing.
                    self.connection.text_factory = _lenient
                    return self.all(sql, parameters)
                # What is raised while SQLite has the word, as by Ctrl-C, does not come out of it as what it was.
                if code == sqlite3.SQLITE_INTERRUPT and not self._budget.reached:
                    raise KeyboardInterrupt from error
                if "user-defined function" in str(error):
                    raise (self._raised or KeyboardInterrupt()) from error
                raise

    def one(self, sql: str, parameters: Values = ()) -> Any:
        """
        Run one statement and return the first value of its first row.
        """
        return self.all(sql, parameters)[0][0]

    def has_table(self, name: str) -> bool:
        """
        Tell whether the file has a table: one that was made before it was thought of does not.
        """
        return bool(self.one("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def check(self) -> list[str]:
        """
        Have SQLite check the whole file, and return what is wrong with it.
        """
        self._budget.lift()
        faults: list[str] = []
        with named_errors(self.path), self.connection.in_use():
            try:
                faults += (text for (text,) in self.connection.execute("PRAGMA integrity_check") if text != "ok")
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    raise KeyboardInterrupt from error  # as in `all`: there is no limit here
                # So damaged that the check itself cannot go on: what it has found until then is said.
                if primary_code(error) != sqlite3.SQLITE_CORRUPT:
                    raise
                faults.append(str(error))
        return faults

    def last_id(self) -> int:
        """
        Return the highest id there is now, 0 when there is no row.
        """
        return self.one("SELECT max(id) FROM records") or 0

    def bounds(self, where: Where) -> tuple[int, int]:
        """
        Return the lowest and the highest id that can match; the first above the second when none can.
        """
        if where.since_us is None and where.until_us is None:
            low, high = self._ends_of("id")
        else:
            since = where.since_us if where.since_us is not None else -HIGHEST
            until = where.until_us if where.until_us is not None else HIGHEST
            ((low, high),) = self.all(
                "SELECT min(id), max(id) FROM records WHERE created_us BETWEEN ? AND ?", (since, until)
            )
        if low is None:
            return 1, 0
        return max(low, min(where.after_id, HIGHEST - 1) + 1), min(high, where.up_to_id)

    def _ends_of(self, column: str) -> tuple[Any, Any]:
        # In one statement, or all rows may be pruned between the two; with min and max apart, each is one look.
        ((lowest, highest),) = self.all(
            f"SELECT (SELECT min({column}) FROM records), (SELECT max({column}) FROM records)"  # noqa: S608 - our own name
        )
        return lowest, highest

    def ends(self, where: Where) -> tuple[int, int]:
        """
        Return the times of the first and the last record, as far as they are within the bounds of time.
        """
        first, last = self._ends_of("created_us")
        if first is None:
            return 1, 0
        return (
            first if where.since_us is None else max(first, where.since_us),
            last if where.until_us is None else min(last, where.until_us),
        )

    def spans(
        self, where: Where, *, backward: bool = False, span: int = _FIRST_SPAN, widest: int = _SPAN
    ) -> Iterator[tuple[int, int]]:
        """
        Yield the spans of ids in which rows can match, each for one statement.
        """
        low, high = self.bounds(where)
        while low <= high:
            if backward:
                begin = max(high - span + 1, low)
                yield begin, high
                high = self.one("SELECT max(id) FROM records WHERE id < ?", (begin,)) or low - 1
            else:
                end = min(low + span - 1, high)
                yield low, end
                # Over what was pruned or never there, however wide.
                low = self.one("SELECT min(id) FROM records WHERE id > ?", (end,)) or high + 1
            span = min(span * 4, widest)

    def rows(self, select: str, where: Where, *, backward: bool = False) -> Iterator[Values]:
        """
        Yield what `select` selects of each row that matches; its first column is the id.
        """
        order = "DESC" if backward else "ASC"
        sql = f"{select} WHERE records.id BETWEEN ? AND ? AND {where.sql} ORDER BY records.id {order} LIMIT {BATCH}"
        for span in self.spans(where, backward=backward):
            low, high = span
            while low <= high:
                batch = self.all(sql, (low, high, *where.parameters))
                yield from batch
                if len(batch) < BATCH:
                    break
                if backward:
                    high = batch[-1][0] - 1
                else:
                    low = batch[-1][0] + 1

    def count(self, where: Where) -> int:
        """
        Count the rows that match.
        """
        sql = f"SELECT count(*) FROM records WHERE id BETWEEN ? AND ? AND {where.sql}"  # noqa: S608 - no value in it
        return sum(self.one(sql, (*span, *where.parameters)) for span in self.spans(where))

    def newest(self, where: Where, count: int) -> Where:
        """
        Narrow `where` down to the newest `count` rows that match now.
        """
        low, high = self.bounds(where)
        sql = f"SELECT id FROM records WHERE id BETWEEN ? AND ? AND {where.sql} ORDER BY id DESC LIMIT ?"  # noqa: S608
        for span in self.spans(where, backward=True):
            ids = self.all(sql, (*span, *where.parameters, count))
            count -= len(ids)
            if count <= 0:
                low = ids[-1][0] if ids else high + 1
                break
        return where._replace(after_id=low - 1, up_to_id=high)


def _seen(path: str) -> list[tuple[int, int]]:
    """
    Return what changes with the log, as one sees who may not open its -wal.
    """
    found = []
    for name in (os.path.realpath(path), os.path.realpath(path) + "-wal"):
        try:
            stat = os.stat(name)
        except OSError:
            continue
        found.append((stat.st_size, stat.st_mtime_ns))
    return found


def _lenient(text: bytes) -> str:
    return text.decode(errors="replace")
