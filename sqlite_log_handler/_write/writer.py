"""
One transaction per call: a batch of rows and the gaps among them go into the file, all or nothing.

The caller holds the commit lock, so no two threads are in here at once, but each call may come from another one.
`_write.log_file` has the file, and `_write.inserts` the statements.

Guarantees
==========

- After an exception nothing of the batch is in the file, and no transaction is open.
- A row that SQLite refuses for its data costs that row only: the batch is written again row by row, and the caller is
  told which rows were refused.
- All that writes to the file, writes its WAL back, or moves it does so under the lock beside it (see
  `_logfile.write_lock`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import partial

from sqlite_log_handler._logfile.transaction import transaction
from sqlite_log_handler._write import volume
from sqlite_log_handler._write.inserts import DATA_ERRORS, Inserter
from sqlite_log_handler._write.log_file import LogFile
from sqlite_log_handler._write.plain import clean
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.row import SIZE, SIZE_UNIT, SOURCE, PackedRow

TYPE_CHECKING = False
if TYPE_CHECKING:  # a program without an archive, or without limits, loads none of it
    from sqlite_log_handler._write.retention.archiver import Archiver
    from sqlite_log_handler._write.retention.pruner import Pruner

# Seconds until retention tries again when another process has had the lock for `busy_timeout`. Not 0, which says that
# there is more to delete: while that lasted, an idle program tried 14 times a second.
_LOCKED_RETRY = 0.05


class Outcome:
    """What became of a batch."""

    def __init__(self) -> None:
        self.written = False  # the transaction is in the file
        self.refused: set[int] = set()  # the indexes of the rows that SQLite did not take


class Writer:
    """Write rows and gaps to the database at `path`, within `limits`. `archiver` archives what is to be deleted."""

    def __init__(
        self,
        path: str,
        *,
        busy_timeout: float = 0.05,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        archiver: Archiver | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.file = LogFile(path, busy_timeout=busy_timeout, limits=limits, say=say)
        self.archiver = archiver
        self._limits = limits
        self.pruner: Pruner | None = None
        if limits:
            from sqlite_log_handler._write.retention.pruner import Pruner  # noqa: PLC0415 - others load none of it

            self.pruner = Pruner(path, limits, archiver=archiver, say=say)
        self._begin()

    def _begin(self) -> None:
        self._program = self._host = ""
        # A program may put anything there, or nothing. In a forked child, an error here would leave the rest undone.
        with contextlib.suppress(Exception):
            self._program = clean(os.path.basename(os.fsdecode(sys.argv[0])))
        with contextlib.suppress(Exception):  # a sandbox may refuse it
            self._host = clean(socket.gethostname())
        self._inserter: Inserter | None = None

    def forget(self, cut_off: int | None) -> None:
        """Start anew in a forked child, see `LogFile.forget`."""
        if self.archiver is not None:
            self.archiver.forget()
        self.file.forget(cut_off)
        self._begin()

    def close(self, timeout: float = 0) -> None:
        """Close the file, whose lock may take `timeout` seconds, see `LogFile.close`."""
        self._inserter = None
        self.file.close(timeout)

    def _open(self) -> Inserter:
        connection = self.file.open()
        if self._inserter is None or self._inserter.connection is not connection:
            self._inserter = Inserter(connection, self._host, self._program, self._limits)
            if self.pruner is not None:
                self.pruner.opened(self.file.real)
        return self._inserter

    def write(self, batch: Commit, outcome: Outcome | None = None, *, in_any_case: bool = False) -> Outcome:
        """
        Write a batch in one transaction, `in_any_case` even if `max_bytes` has no room for it.

        The caller keeps the `outcome`, because a signal handler may raise after the COMMIT.

        Raises:
            NoRoom: There is no room for it.
            LogFileError, OSError, sqlite3.Error: Nothing was written.
            BaseException: A signal handler's; `outcome` tells whether the batch is in the file.
        """
        outcome = outcome or Outcome()
        self.file.do(partial(self._commit_at_last, batch, outcome, in_any_case=in_any_case))
        return outcome

    def _commit_at_last(self, batch: Commit, outcome: Outcome, *, in_any_case: bool) -> None:
        while not outcome.written:
            try:
                self._commit(self._open(), batch, outcome, in_any_case=in_any_case)
            except sqlite3.OperationalError as error:
                if outcome.written or self.pruner is None or not self.pruner.can_free_more(error):
                    raise

    def _commit(self, inserter: Inserter, batch: Commit, outcome: Outcome, *, in_any_case: bool) -> None:
        connection = inserter.connection
        inserter.last_id = 0
        outcome.refused.clear()
        try:
            if self.pruner is not None:
                self._make_room(self.pruner, inserter, batch.rows, in_any_case=in_any_case)
            connection.execute("BEGIN IMMEDIATE")
            try:
                inserter.write(batch)
            except DATA_ERRORS:
                connection.execute("ROLLBACK")
                inserter.forget_ids()
                connection.execute("BEGIN IMMEDIATE")
                inserter.write(batch, outcome.refused)
            connection.execute("COMMIT")
            outcome.written = True
        except BaseException as error:
            inserter.forget_ids()
            outcome.written = outcome.written or _stands(inserter)
            self.file.roll_back(error)
            raise

    def prune(self) -> float | None:
        """Do a piece of what the limits ask for, see `Pruner.step`. A failure is said, and tried again later."""
        if self.pruner is None:
            return None
        try:
            return self.file.do(partial(self._step, self.pruner))
        except TimeoutError:
            return _LOCKED_RETRY
        except Exception as error:  # noqa: BLE001 - a value that somebody has put into the file may fail any step
            return self.pruner.failed(error)

    def _step(self, pruner: Pruner) -> float | None:
        connection = self._open().connection
        try:
            return pruner.step(connection)
        except BaseException as error:
            self.file.roll_back(error)
            raise

    def _make_room(self, pruner: Pruner, inserter: Inserter, rows: Sequence[PackedRow], *, in_any_case: bool) -> None:
        """Let retention have its turn before a commit of these rows, and with `max_bytes` make room for it."""
        if in_any_case:
            pruner.lift_cap(inserter.connection)
            return
        try:
            pruner.step_before(inserter.connection, len(rows), SIZE_UNIT * sum(row[SIZE] for row in rows))
        except Exception as error:
            self.file.roll_back(error)
            pruner.failed(error)
            if self.file.connection is None:
                raise
        # If only the step failed, the commit may succeed.
        if pruner.limits.max_bytes is not None:
            pruner.make_room(inserter.connection)
            self._make_way(pruner, inserter, rows)

    @staticmethod
    def _make_way(pruner: Pruner, inserter: Inserter, rows: Sequence[PackedRow]) -> None:
        """Fold the rows after the mark, and add most of the new call sites, in transactions of their own."""
        # Either changes pages all over a table, which then all go into the WAL.
        while inserter.unfolded >= volume.FOLD_ROWS:
            inserter.unfolded = pruner.fold(inserter.connection)
            pruner.make_room(inserter.connection)
        most = pruner.limits.chunk_lines
        sources = {row[SOURCE] for row in rows}
        new = list(sources - inserter.sources.keys())
        pruner.tables.needed = known = {inserter.sources[source] for source in sources.difference(new)}
        while len(new) > most // 2:
            with transaction(inserter.connection):
                known.update(inserter.sources[source] for source in new[:most])
            del new[:most]
            pruner.make_room(inserter.connection)


def _stands(inserter: Inserter) -> bool:
    """Tell whether the interrupted transaction is in the file: COMMIT may have returned already."""
    connection, last_id = inserter.connection, inserter.last_id
    if connection.in_transaction or not last_id:
        return False
    with contextlib.suppress(sqlite3.Error):
        return connection.execute("SELECT 1 FROM records WHERE id = ?", (last_id,)).fetchone() is not None
    return False
