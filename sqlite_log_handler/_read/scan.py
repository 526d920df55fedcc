"""
Read a log in short statements.

Theory of operation
===================

An unfinished statement holds a snapshot, and meanwhile SQLite cannot write the WAL back: it grows for as long as
somebody reads. So we leave no statement open. We walk the ids in spans: each statement reads at most one span and at
most `BATCH` rows, and we fetch all of these before we hand out the first. So somebody who takes an hour over a log, or
pipes it into a pager and goes home, holds up no writer.

Between two statements the writer commits and retention deletes. Ids only rise and are never given twice, so walking by
id neither skips a row nor returns one twice. It does not return rows that are pruned meanwhile.

We first turn filters on time into bounds of ids, from the index alone. Clocks go back at times, so we also check the
time of each row within these bounds.
"""

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, islice
from operator import itemgetter, lt
from sys import getsizeof
from threading import get_ident
from typing import Any, Final, NamedTuple, NoReturn, Self, TypeVar

from sqlite_log_handler._logfile.connect import full, is_full, primary_code, schema, tables
from sqlite_log_handler._logfile.errors import CorruptFileError, LimitError
from sqlite_log_handler._logfile.forks import Connection
from sqlite_log_handler._read.budget import JSON_BYTES, LARGE_BYTES, LONG_BYTES, keeping
from sqlite_log_handler._read.filters import HIGHEST, LOWEST, FilterError, Where
from sqlite_log_handler._read.opening import Opened, named_errors, open_log, raise_named, require_log
from sqlite_log_handler._read.rows import FITS, SELECT_JSON

# Most rows of a statement, most bytes of memory if rows are large, and how many rows tell whether they are.
BATCH: Final = 128
_BATCH_BYTES: Final = 1024 * 1024
_TO_MEASURE: Final = 8

# Most lines to count or sort at a time, and most bytes of their memory.
MOST: Final = 100_000
_MOST_BYTES: Final = 32 * 1024 * 1024

# Ids in a statement: few at first, so that the first rows come at once; 50,000 take 2 to 50 ms.
_FIRST_SPAN: Final = 1_000
_SPAN: Final = 50_000

Values = tuple[Any, ...]
_Fetched = TypeVar("_Fetched")

# What SQLite says of our own SQL when only the filters can have made it so long.
_TOO_MANY: Final = ("Expression tree is too large", "query string is too large", "too many SQL variables")

# A call of Python, see `search.Term`.
_CALL: Final = re.compile(r"log_call\((\w+)\)")


class Statement(NamedTuple):
    """A statement. When a value is large, `large_sql` runs in place of `sql`, with values of up to `most_bytes`."""

    sql: str
    large_sql: str
    most_bytes: int = LARGE_BYTES

    @classmethod
    def of(cls, select: str, where: Where, *, backward: bool) -> Self:
        """Make the statement for a batch of rows that match, in the order of their ids or backward."""
        ids, end = "records.id BETWEEN ? AND ?", f"ORDER BY records.id {'DESC' if backward else 'ASC'} LIMIT {BATCH}"
        return cls(
            f"{select} WHERE {ids} AND {where.sql} {end}",
            f"{select} WHERE {ids} AND {FITS} AND {where.sql} {end}",
            JSON_BYTES if select == SELECT_JSON else LARGE_BYTES,
        )


def raise_unusable(path: str, *, closed: bool) -> NoReturn:
    """Refuse a reader that was closed, or else belongs to the process from which this one was forked."""
    if closed:
        raise ValueError(f"the reader of {path!r} is closed: make a new LogReader")
    raise ValueError(f"the reader of {path!r} was made before this process was forked: make a new LogReader")


class Scan:
    """A log that is open for reading. It opens the one at `path`, unless it is given one that is `opened` already."""

    def __init__(self, path: str, *, timeout: float = 5.0, opened: Opened | None = None) -> None:
        self.path = path
        self._connection: Connection | None
        seen = seen_at(path)
        self._connection, self.budget, self.notice, self.immutable = opened or open_log(path, timeout=timeout)
        self._seen = seen if self.immutable else None
        self._has_shm = not (opened or self.immutable)  # what is given is in memory
        self._schema_version: object = None  # whose tables were compared
        self._asker = 0  # the thread for which a statement runs
        # The functions that SQLite has, and where they keep what is raised.
        self._calls: list[Any] = []
        self._raised: object = None
        self._is_lenient = False  # True once a text turns out not to be UTF-8
        # When the log's first and last record were made, if this database has only some of its records.
        self.whole_log: tuple[int | None, int | None] | None = None

    def require_open(self) -> Connection:
        """Return the connection, unless it was closed, or belongs to the process from which this one was forked."""
        connection = self._connection
        if connection is None or connection.is_inherited:
            raise_unusable(self.path, closed=connection is None)
        return connection

    def renew(self) -> None:
        """Begin a question: with a new budget, and with the tables of a log, which somebody may have replaced."""
        connection = self.require_open()
        with connection.in_use():
            self.require_open()  # another thread may have closed it meanwhile
            self._require_idle()
            self.budget.renew()
            version = self.one("PRAGMA schema_version")
            if version != self._schema_version:
                with named_errors(self.path):
                    # Asked for once more, because a signal handler may have closed it since `use` looked.
                    self.use(lambda _: require_log(self.require_open(), self.budget, self.path))
                self._schema_version = version
                self.budget.renew()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._connection is None

    @property
    def is_stale(self) -> bool:
        """Whether somebody wrote to the file although this connection relies on nobody writing to it."""
        return self._seen is not None and self._seen != seen_at(self.path)

    def close(self) -> None:
        """Close the file, when the statement that another thread runs has ended."""
        connection, self._connection = self._connection, None
        # By a signal handler in the middle of a statement, SQLite would crash: `use` closes it then.
        if connection is not None and self._asker != get_ident():
            connection.close()

    def interrupt(self) -> None:
        """End the statement that another thread runs, if there is one."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # closed since
                connection.interrupt()

    def _call(self, function: Callable[[Any], Any], value: object) -> Any:
        """Run a function for SQLite. Its time does not count: the expression is the user's, who can press Ctrl-C."""
        begin = time.perf_counter()
        answer = function(_readable(value) if self._is_lenient else value)
        self.budget.leave_out(time.perf_counter() - begin)
        return answer

    def _with_calls(self, connection: Connection, sql: str, parameters: Values) -> tuple[str, Values]:
        """Give SQLite the functions among the parameters, and return the statement that calls them, and the others."""
        calls = [*filter(callable, parameters)]
        if not calls:
            return sql, parameters
        raised = self.budget.raised
        # To register them again for each batch of rows takes longer, and makes SQLite prepare the statement again.
        for number, call in enumerate(calls) if raised is not self._raised or calls != self._calls else ():
            function = keeping(partial(self._call, call), raised).send
            connection.create_function(f"log_call_{number}", 1, function, deterministic=True)
        self._calls, self._raised = calls, raised
        # `sqlite3` cannot pass a text that is not UTF-8, so it passes bytes then.
        column, numbers = "CAST({} AS BLOB)" if self._is_lenient else "{}", count()
        text = _CALL.sub(lambda call: f"log_call_{next(numbers)}({column.format(call[1])})", sql)
        return text, tuple(one for one in parameters if not callable(one))

    def _run(self, statement: Statement, parameters: Values, fetch: Callable[[sqlite3.Cursor], _Fetched]) -> _Fetched:
        """Run one statement, here and nowhere else, so that each error of SQLite gets its name."""
        return self.use(partial(self._ask, statement, parameters, fetch))

    def use(self, ask: Callable[[Connection], _Fetched]) -> _Fetched:
        """Call what asks SQLite; nobody else asks or closes the connection meanwhile, and no signal handler does."""
        connection = self.require_open()
        if self._has_shm and is_full(self.path):
            raise_named(self.path, full())
        with connection.in_use():
            self._require_idle()
            try:
                self._asker = get_ident()
                return ask(connection)
            finally:
                self._asker = 0
                if self._connection is None:
                    connection.close()

    def _ask(
        self,
        statement: Statement,
        parameters: Values,
        fetch: Callable[[sqlite3.Cursor], _Fetched],
        connection: Connection,
    ) -> _Fetched:
        while True:
            with self.budget:
                text = statement.large_sql if self.budget.is_large else statement.sql
                try:
                    text, values = self._with_calls(connection, text, parameters)
                    with contextlib.closing(connection.execute(text, values)) as cursor:
                        return fetch(cursor)
                except sqlite3.Error as error:
                    self._mend(connection, error, statement.most_bytes)

    def _require_idle(self) -> None:
        """Refuse a question in the middle of another one, whose functions and bounds it would take away."""
        if self._asker:
            raise ValueError(f"the reader of {self.path!r} is being asked: in a signal handler, make a new LogReader")

    def _mend(self, connection: Connection, error: sqlite3.Error, most_bytes: int) -> None:
        """Return if the statement can run again; raise the error if not."""
        self.require_open()  # another thread may have closed it meanwhile
        if self.budget.raised:
            raise error  # in its place, the budget raises what was raised in Python
        code = primary_code(error)
        called = "user-defined function" in str(error)
        if not self._is_lenient and (called or (not code and "UTF-8" in str(error))):
            # The handler did not write this text, but we can show it, and search it.
            self._is_lenient, connection.text_factory = True, _readable
        elif code == sqlite3.SQLITE_TOOBIG and self.budget.allow_more(most_bytes):
            pass
        elif code == sqlite3.SQLITE_INTERRUPT and not self.budget.spent:  # by `interrupt`
            raise KeyboardInterrupt from error
        elif any(words in str(error) for words in _TOO_MANY):
            raise FilterError("the filters are too many for one question: give fewer") from error
        else:
            raise_named(self.path, error)

    def all(self, sql: str, parameters: Values = (), each: Callable[[Any], Any] = tuple) -> list[Any]:
        """
        Run one statement and return its rows, or what `each` makes of each of them.

        Raises a LogFileError whose class says why that cannot be done.
        """
        return self._run(Statement(sql, sql), parameters, partial(self._fetch_all, each))

    def _fetch_all(self, each: Callable[[Any], Any], cursor: sqlite3.Cursor) -> list[Any]:
        rows: list[Any] = []
        size = 0
        while some := cursor.fetchmany(1 if self.budget.is_long else BATCH):
            rows += map(each, some)
            size += sum(map(getsizeof, chain.from_iterable(some)))
            self.require_few(len(rows), size)
        return rows

    def require_few(self, lines: int, size: int = 0) -> None:
        """Refuse to keep many lines, or many bytes, in memory."""
        if lines > MOST or size > _MOST_BYTES:
            raise LimitError(
                f"{self.path!r}: more than {MOST:,} lines or {_MOST_BYTES >> 20} MiB would have to be kept in memory: "
                "ask for less, by `since` or another filter"
            )

    def _require_order(self, holds: bool) -> None:  # noqa: FBT001 - the only argument
        if not holds:
            message = f"{self.path!r}: it is damaged: its ids are out of order; `sqlite-log check` says more"
            raise CorruptFileError(message)

    def _fetch_batch(self, cursor: sqlite3.Cursor) -> tuple[list[Any], bool]:
        """Return rows up to a bounded size, and whether there may be more for that reason."""
        # The first rows tell whether to measure the others: for short rows, that would take a fiftieth more time.
        rows: list[Any] = [] if self.budget.is_long else cursor.fetchmany(_TO_MEASURE)
        size = sum(map(getsizeof, chain.from_iterable(rows)))
        if len(rows) == _TO_MEASURE and size < _BATCH_BYTES // 8:
            return rows + cursor.fetchall(), False
        for row in cursor:
            rows.append(row)
            size += sum(map(getsizeof, row))
            if size > _BATCH_BYTES:
                return rows, True
        return rows, False

    def one(self, sql: str, parameters: Values = ()) -> Any:
        """Run one statement and return the first value of its first row."""
        return self.row(sql, parameters)[0]

    def row(self, sql: str, parameters: Values = ()) -> Any:
        """Run one statement and return its first row."""
        rows = self.all(sql, parameters)
        if not rows:
            raise CorruptFileError(f"{self.path!r}: a table has lost its only line: it is damaged")
        return rows[0]

    def check(self) -> list[str]:
        """
        Let SQLite check the file, and return the faults.

        If the file has more than a log has, this checks only the tables of a log, because checking another table may
        run expressions of its author.
        """
        self.budget.allow_more(LONG_BYTES)  # a hundred findings come as one text, which SQLite would cut short
        there = {sql for (sql,) in self.all("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        names = [""] if there <= {*schema().values()} else [f"({name})" for name in tables()]
        faults: list[str] = []
        for name in names:
            try:
                faults += (text for (text,) in self.all(f"PRAGMA integrity_check{name}") if text != "ok")
            except CorruptFileError as error:
                # The damage ends the check itself; the faults before it are kept.
                faults.append(str(error.__cause__ or error))
        return faults

    def last_id(self) -> int:
        """Return the highest id now, 0 without a row."""
        return self.one("SELECT max(id) FROM records") or 0

    def bounds(self, where: Where) -> tuple[int, int]:
        """Return the lowest and the highest id that can match; if none can, the first is above the second."""
        times = where.since_us, where.until_us
        if times == (LOWEST, HIGHEST):
            low, high = self.ends_of("id")
        else:
            low, high = self.row("SELECT min(id), max(id) FROM records WHERE created_us BETWEEN ? AND ?", times)
        if low is None or high is None:  # both, or one of them in a damaged file
            return 1, 0
        return max(low, where.after_id + 1), min(high, where.up_to_id)

    def ends_of(self, *columns: str) -> Any:
        """Return the lowest and the highest value of each column, as integers."""
        # In one statement, because retention may delete all rows between two. A min or max alone in a query is one
        # look into an index.
        looks = (f"CAST((SELECT {end}({name}) FROM records) AS INTEGER)" for name in columns for end in ("min", "max"))  # noqa: S608 - our own names
        (ends,) = self.all(f"SELECT {', '.join(looks)}")
        return ends

    def ends(self, where: Where) -> tuple[int, int]:
        """Return the times of the first and the last record within the bounds of time."""
        first, last = self.whole_log or self.ends_of("created_us")
        if first is None or last is None:
            return 1, 0
        return max(first, where.since_us), min(last, where.until_us)

    def spans(
        self, where: Where, *, backward: bool = False, span: int = _FIRST_SPAN, widest: int = _SPAN
    ) -> Iterator[tuple[int, int]]:
        """Yield spans of ids in which rows can match, one for each statement."""
        low, high = self.bounds(where)
        while low <= high:
            # Skip ids without rows, however many.
            if backward:
                begin, end = max(high - span + 1, low), high
                yield begin, end
                below = self.one("SELECT max(id) FROM records WHERE id < ?", (begin,))
                high = low - 1 if below is None else below
            else:
                begin, end = low, min(low + span - 1, high)
                yield begin, end
                above = self.one("SELECT min(id) FROM records WHERE id > ?", (end,))
                low = high + 1 if above is None else above
            self._require_order(high < begin or end < low)
            span = min(span * 4, widest)

    def rows(self, select: str, where: Where, *, backward: bool = False) -> Iterator[Values]:
        """Yield what `select` selects of each row that matches; its first column is the id."""
        for batch, *_ in self.batches(select, where, backward=backward):
            yield from batch
            batch.clear()  # or two batches would be in memory while the next one is read

    def batches(self, select: str, where: Where, *, backward: bool) -> Iterator[tuple[list[Values], int, int]]:
        """
        Yield the rows that match, some at a time, and the lowest and the highest id that was looked at for them.

        It refuses ids that are out of order, because walking along those might never end.
        """
        statement = Statement.of(select, where, backward=backward)
        for span in self.spans(where, backward=backward):
            low, high = span
            while low <= high:
                rows, cut = self._run(statement, (low, high, *where.parameters), self._fetch_batch)
                ids = [low - 1, *map(itemgetter(0), reversed(rows) if backward else rows), high + 1]
                self._require_order(all(map(lt, ids, islice(ids, 1, None))))
                begin, end = low, high
                if cut or len(rows) == BATCH:
                    begin, end = (ids[1], high) if backward else (low, ids[-2])
                yield rows, begin, end
                low, high = (low, begin - 1) if backward else (end + 1, high)

    def count(self, where: Where) -> int:
        """Count the rows that match."""
        sql = f"SELECT count(*) FROM records WHERE id BETWEEN ? AND ? AND {where.sql}"  # noqa: S608 - no value in it
        return sum(self.one(sql, (*span, *where.parameters)) for span in self.spans(where))

    def newest(self, where: Where, count: int) -> Where:
        """Narrow `where` to the newest `count` rows that match now."""
        _, high = self.bounds(where)
        where = where._replace(up_to_id=high)  # a writer may add rows meanwhile
        lowest = high + 1  # until one is found, so that nothing is searched twice
        sql = f"SELECT id FROM records WHERE id BETWEEN ? AND ? AND {where.sql} ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own names
        for span in self.spans(where, backward=True):
            ids = self.all(sql, (*span, *where.parameters, count))
            if ids:
                lowest = ids[-1][0]
            count -= len(ids)
            if count <= 0:
                break
        return where._replace(after_id=lowest - 1)


def seen_at(path: str) -> list[int]:
    """Return numbers that change with the log at `path`, without opening its -wal; none if there is no log."""
    found: list[int] = []
    for name in (os.path.realpath(path), os.path.realpath(path) + "-wal"):
        with contextlib.suppress(OSError):
            stat = os.stat(name)
            if stat.st_size:  # a reader may make an empty -wal, which is not a change
                found += (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return found


def _readable(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
