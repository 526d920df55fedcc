"""
A temporary database for rows of an archive, with the schema of a log, so that the same SQL answers.

SQLite makes it in its temporary folder (https://sqlite.org/tempfiles.html), without a name by which others could open
it, and the system removes it, however the process ends. It keeps a few pages in memory.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from sys import getsizeof
from typing import Any, Final, TypeAlias, cast
from weakref import finalize

from sqlite_log_handler._logfile.archive import DROP
from sqlite_log_handler._logfile.columns import total
from sqlite_log_handler._logfile.connect import primary_code, refuse_lost
from sqlite_log_handler._logfile.errors import CorruptFileError, LimitError
from sqlite_log_handler._logfile.forks import Connection
from sqlite_log_handler._logfile.schema import HOUR_US, SCHEMA
from sqlite_log_handler._read.budget import Budget
from sqlite_log_handler._read.filters import Where
from sqlite_log_handler._read.opening import Opened, named_errors
from sqlite_log_handler._read.parts import Values, fault_of
from sqlite_log_handler._read.scan import Scan

# pid, name, host, start, program: `_logfile.archive.PROCESS`.
Process: TypeAlias = tuple[int, str, str, int, str]

# Each row holds the name of its thread: the schema allows that as well as a line in `threads`.
_RECORD: Final = """
INSERT OR IGNORE INTO records (
    id, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message, exc_type, exc_text,
    stack_info, attributes
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PROCESS: Final = "REPLACE INTO processes (pid, name, host, started_us, program, id) VALUES (?, ?, ?, ?, ?, ?)"
_SOURCE: Final = "INSERT INTO sources (logger, pathname, lineno, func, template) VALUES (?, ?, ?, ?, ?)"
_KNOWN_SOURCE: Final = (
    "SELECT id FROM sources WHERE logger = ? AND pathname = ? AND lineno = ? AND func = ? AND template = ?"
)
_BYTES: Final = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
_DROP: Final = f"INSERT INTO drops ({', '.join(DROP)}, process_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own names
# The counts of a log besides its rows, which the view `volume` adds up.
_COUNT: Final = f"""
INSERT INTO volume_folded (hour, logger, levelno, dropped)
SELECT since_us / {HOUR_US} * 3600, logger, levelno, {total("count")} FROM drops GROUP BY 1, 2, 3;
INSERT INTO drop_totals SELECT cause, levelno, {total("count")} FROM drops GROUP BY 1, 2;
"""  # noqa: S608 - our own names

# Call sites whose ids are in memory, and bytes of their names.
_MOST_SOURCES: Final = 50_000
_MOST_SOURCE_BYTES: Final = 8 * 1024 * 1024
# Most bytes of a value while we insert rows. Reading refuses values that are longer than the reader allows.
_LONGEST: Final = 16 * 1024 * 1024


@contextmanager
def _interrupted() -> Iterator[None]:
    """Raise a KeyboardInterrupt, as `Scan` does, when another thread interrupts a statement that has no budget."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error
        raise


class Loaded:
    """
    A temporary database with rows, and the scan that reads it; errors name `path`. It is closed with this object.

    `processes` are those that are known, in the order of their ids; others are added with their rows.
    """

    def __init__(self, path: str, levels: Mapping[int, str], processes: Collection[Process]) -> None:
        self._path = path
        self.has_ledger = False
        # Those in the database, and the ids that are in memory.
        self._source_count = 0
        self._sources: dict[tuple[Any, ...], int] = {}
        # Bytes of the names that are in memory.
        self._source_bytes = self._process_bytes = 0
        self.processes: dict[Values, int] = {}
        make = cast("type[Connection]", partial(Connection, file=object()))
        with named_errors(path):
            refuse_lost(path)
            connection = sqlite3.connect("", isolation_level=None, check_same_thread=False, factory=make)
        try:
            with named_errors(path), connection.in_use():
                # Nothing has to outlive a crash.
                connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {SCHEMA} COMMIT")
                connection.execute("PRAGMA trusted_schema = OFF")
            self.scan = Scan(path, opened=Opened(connection, Budget(connection, path, int), None, immutable=False))
            self.learn(levels, processes)
        except BaseException:
            connection.close()
            raise
        finalize(self, self.scan.close).atexit = False

    def learn(self, levels: Mapping[int, str], processes: Iterable[Process]) -> None:
        """Add the names of levels, and the processes that are not here yet: a log may have got some since."""

        def write(connection: Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO levels VALUES (?, ?)", levels.items())
            for process in processes:
                if process[:4] not in self.processes:
                    self._add_process(connection, process)

        self._write(write)

    def rows(self, query: str, chosen: Where, *, backward: bool) -> Iterator[Values]:
        """Yield rows as `Scan.rows` does; the database stays open for them, because they hold this object."""
        yield from self.scan.rows(query, chosen, backward=backward)

    def _write(self, write: Callable[[Connection], object]) -> None:
        """Call what writes, in a transaction. As in a question, no signal handler asks or closes the database then."""
        with named_errors(self._path), _interrupted():
            self.scan.use(partial(self._transact, write))

    def _transact(self, write: Callable[[Connection], object], connection: Connection) -> None:
        self.scan.require_open()  # another thread may have closed it meanwhile
        self.scan.budget.lift()
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        try:
            connection.execute("BEGIN")
            write(connection)
        finally:
            # After an error too: without a journal there is no ROLLBACK, and a row that comes again is ignored.
            if connection.in_transaction:
                connection.execute("COMMIT")
        ((size,),) = connection.execute(_BYTES).fetchall()
        self.scan.budget = Budget(connection, self._path, lambda: size)

    def add(self, path: str, rows: list[Values]) -> None:
        """
        Add the rows that are not here yet, and empty the list, or long rows would be in memory while others are read.

        The values of each are in the order of `parts.FIELDS`; errors name `path`, their file.

        Raises:
            CorruptFileError: A log cannot have one of the values.
        """

        def write(connection: Connection) -> None:
            try:
                connection.executemany(_RECORD, [self._record(connection, row) for row in rows])
            except sqlite3.DataError as error:
                raise LimitError(
                    f"{path!r}: a row has more than {_LONGEST >> 20} MiB, which no handler writes"
                ) from error
            except (OverflowError, UnicodeEncodeError) as error:
                found = next(((row[0], fault) for row in rows if (fault := fault_of(row))), (rows[0][0], "a value"))
                raise CorruptFileError(f"{path!r}, row {found[0]}: not a row ({found[1]})") from error

        self._write(write)
        rows.clear()

    def clear(self) -> None:
        """Remove all rows."""

        def write(connection: Connection) -> None:
            connection.execute("DELETE FROM records")
            if self._source_count > _MOST_SOURCES:
                self._source_count = 0
                self._sources.clear()
                connection.execute("DELETE FROM sources")

        self._write(write)

    def _record(self, connection: Connection, row: Values) -> Values:
        (
            id_, created_us, levelno, logger, message, pathname, lineno, func, pid, name, host, thread, thread_name,
            task_name, exc_type, exc_text, stack_info, attributes, template, started_us, program,
        ) = row  # fmt: skip
        source = (logger, pathname, lineno, func, template)
        source_id = self._sources.get(source) or self._source_id(connection, source)
        process_id = self.processes.get((pid, name, host, started_us)) or self._process_id(
            connection, (pid, name, host, started_us, program)
        )
        return (
            id_, created_us, levelno, source_id, process_id, thread, thread_name, task_name, message,
            exc_type, exc_text, stack_info, attributes,
        )  # fmt: skip

    def _source_id(self, connection: Connection, source: tuple[Any, ...]) -> int:
        if len(self._sources) > _MOST_SOURCES or self._source_bytes > _MOST_SOURCE_BYTES:
            self._sources.clear()
            self._source_bytes = 0
        self._source_bytes += sum(map(getsizeof, source))
        ((id_,),) = connection.execute(_KNOWN_SOURCE, source).fetchall() or [(None,)]
        if id_ is None:
            id_ = connection.execute(_SOURCE, source).lastrowid or 0
            self._source_count += 1
        self._sources[source] = id_
        return int(id_)

    def _process_id(self, connection: Connection, process: Process) -> int:
        self._process_bytes += sum(map(getsizeof, process[:4]))
        self.scan.require_few(len(self.processes), self._process_bytes)
        return self._add_process(connection, process)

    def _add_process(self, connection: Connection, process: Process) -> int:
        id_ = len(self.processes) + 1
        connection.execute(_PROCESS, (*process, id_))
        self.processes[process[:4]] = id_
        return id_

    def add_ledger(
        self, drops: Iterable[tuple[Values, Process]], prunes: Iterable[Values], cursors: Sequence[Values]
    ) -> None:
        """
        Set what the log has besides its rows.

        A line of `drops` lacks the id and has its process beside it; one of `prunes` ends with `unsent`.
        """

        def write(connection: Connection) -> None:
            for table in ("drops", "prunes", "cursors", "volume_folded", "drop_totals"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            for values, process in drops:
                process_id = self.processes.get(process[:4]) or self._process_id(connection, process)
                connection.execute(_DROP, (*values, process_id))
            connection.executemany(
                "INSERT INTO prunes (first_id, last_id, since_us, until_us, cause, count, unsent) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                prunes,
            )
            connection.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", cursors)
            for statement in _COUNT.split(";")[:-1]:
                connection.execute(statement)

        self._write(write)
        self.has_ledger = True
