"""
Who keeps the log: ours, and what people would use instead. Each is made with its usual setting, or a faster one.

Those in SQLite store the same fields into the same table with the same index, in WAL mode with synchronous=NORMAL,
except where the package brings its own table. Nothing may be dropped: their queues are as long as they need to be.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from logging.handlers import MemoryHandler, QueueHandler, QueueListener
from typing import TYPE_CHECKING, Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import count_lines, count_rows
from tests.benchmarks.load import SHORT_TEXT, logger_with

if TYPE_CHECKING:
    from sqlite_log_handler._write.writer import Outcome

BATCH = 10_000

_TABLE = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, created REAL, levelno INTEGER, logger TEXT, pathname TEXT, lineno INTEGER, func TEXT,
    process INTEGER, thread INTEGER, thread_name TEXT, message TEXT, exc_text TEXT
)
"""
_INSERT = (
    "INSERT INTO records (created, levelno, logger, pathname, lineno, func, process, thread, thread_name, message, "
    "exc_text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Store:
    """Somewhere to log to: `logger` is to be called, `finish` returns when all is written, `count` is what is there."""

    # Whether it is one of those that the bound "against every other handler that stores all rows in SQLite" means.
    in_sqlite = True
    # It is given so many times fewer records, because it is so slow.
    share = 1

    def __init__(self, path: str, count: int) -> None:
        """Open it in the folder `path`, for `count` records."""
        self.path = os.path.join(path, "log")
        self.expected = count
        self.logger: Any = None
        self.open()

    def open(self) -> None:
        """Set `logger`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Return when everything is written."""
        raise NotImplementedError

    def count(self) -> int:
        """Count what is there."""
        return count_rows(self.path)

    def close(self) -> None:
        """Let go of everything."""


class Ours(Store):
    """The handler as it comes."""

    def open(self) -> None:
        """Set `logger`."""
        self.handler = SQLiteHandler(self.path)
        self.logger = logger_with(self.handler)

    def finish(self) -> None:
        """Flush."""
        self.handler.flush(60)

    def close(self) -> None:
        """Close."""
        self.handler.close()


class Ceiling(Ours):
    """The handler with a writer that takes no time: what its callers would reach if only they took any."""

    in_sqlite = False

    def open(self) -> None:
        """Set `logger`."""
        super().open()

        def write(_: object, outcome: Outcome, **__: object) -> Outcome:
            outcome.written = True
            return outcome

        self.handler.listener.committer.writer.write = write  # type: ignore[method-assign,assignment]

    def count(self) -> int:
        """Count what was handed over."""
        return self.handler.stats().written


class TextFile(Store):
    """`logging.FileHandler`, with the shortest line that has a time."""

    in_sqlite = False

    def open(self) -> None:
        """Set `logger`."""
        self.handler = logging.FileHandler(self.path)
        self.handler.setFormatter(logging.Formatter(SHORT_TEXT))
        self.logger = logger_with(self.handler)

    def finish(self) -> None:
        """Flush."""
        self.handler.flush()

    def count(self) -> int:
        """Count the lines."""
        return count_lines(self.path)

    def close(self) -> None:
        """Close."""
        self.handler.close()


class Table:
    """A table, and what puts records into it."""

    def __init__(self, path: str, timeout: float = 60) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=timeout)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(_TABLE)
        self._connection.execute("CREATE INDEX records_created ON records (created)")

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows in one transaction."""
        self._connection.execute("BEGIN")
        self._connection.executemany(_INSERT, rows)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def row_of(record: Any) -> tuple[Any, ...]:
    """Return the row of a LogRecord."""
    return (
        record.created,
        record.levelno,
        record.name,
        record.pathname,
        record.lineno,
        record.funcName,
        record.process,
        record.thread,
        record.threadName,
        record.getMessage(),
        record.exc_text,
    )


class TableHandler(logging.Handler):
    """Insert so many records a commit, in the thread that hands them over."""

    def __init__(self, path: str, batch: int, timeout: float = 60) -> None:
        super().__init__()
        self._table = Table(path, timeout)
        self._batch = batch
        self._rows: list[tuple[Any, ...]] = []

    def emit(self, record: Any) -> None:
        """Keep the row, or insert all that were kept."""
        self._rows.append(row_of(record))
        if len(self._rows) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Insert what was kept."""
        rows, self._rows = self._rows, []
        if rows:
            self._table.insert(rows)

    def close(self) -> None:
        """Close the table."""
        self.flush()
        self._table.close()
        super().close()


class OneCommitEach(Store):
    """QueueListener in front of the handler that everybody writes first: INSERT, commit."""

    share = 10
    batch = 1

    def open(self) -> None:
        """Set `logger`."""
        self.handler = TableHandler(self.path, self.batch)
        waiting: queue.Queue[Any] = queue.Queue()
        self.listener = QueueListener(waiting, self.handler)
        self.listener.start()
        self.logger = logger_with(QueueHandler(waiting))

    def finish(self) -> None:
        """Stop the listener, which handles what waits."""
        self.listener.stop()
        self.handler.flush()

    def close(self) -> None:
        """Close."""
        self.handler.close()


class BatchedQueue(OneCommitEach):
    """QueueListener in front of a handler that somebody has made fast: `executemany` of 10,000."""

    in_sqlite = False  # nobody's handler: what one could write who knows what matters
    share = 1
    batch = BATCH


class InTheCaller(Store):
    """No queue: MemoryHandler keeps 10,000 records, then their caller inserts all of them."""

    in_sqlite = False  # the limit of what can be had without a queue, not a choice

    def open(self) -> None:
        """Set `logger`."""
        store = self

        class Target(MemoryHandler):
            """Flush by `executemany`."""

            def flush(self) -> None:
                """Insert what is buffered."""
                begin = time.perf_counter()
                with self.lock or contextlib.nullcontext():
                    records, self.buffer = self.buffer, []
                    if records:
                        store.table.insert([row_of(record) for record in records])
                store.stall = max(store.stall, time.perf_counter() - begin)

        self.stall = 0.0
        self.table = Table(self.path)
        self.handler = Target(BATCH, flushLevel=logging.CRITICAL)
        self.logger = logger_with(self.handler)

    def finish(self) -> None:
        """Flush."""
        self.handler.flush()

    def close(self) -> None:
        """Close."""
        self.handler.close()
        self.table.close()


class PythonSqliteLogHandler(Store):
    """python-sqlite-log-handler, as it comes."""

    def open(self) -> None:
        """Set `logger`."""
        package = importlib.import_module("python_sqlite_log_handler")
        self.handler = package.SQLiteLogHandler(self.path)
        self.logger = logger_with(self.handler)

    def finish(self) -> None:
        """Flush."""
        self.handler.flush()

    def count(self) -> int:
        """Count the rows."""
        return count_rows(self.path, "logs")

    def close(self) -> None:
        """Close."""
        self.handler.close()


class Loguru(Store):
    """loguru with `enqueue=True`, and a sink that inserts 10,000 at once."""

    def open(self) -> None:
        """Set `logger`."""
        loguru = importlib.import_module("loguru")
        table = self.table = Table(self.path)

        class Sink:
            """What loguru hands its messages to, from its own thread."""

            rows: list[tuple[Any, ...]]

            def __init__(self) -> None:
                self.rows = []

            def write(self, message: Any) -> None:
                """Keep the row, or insert all that were kept."""
                record = message.record
                self.rows.append((
                    record["time"].timestamp(), record["level"].no, record["name"], record["file"].path, record["line"],
                    record["function"], record["process"].id, record["thread"].id, record["thread"].name,
                    record["message"], None,
                ))  # fmt: skip
                if len(self.rows) >= BATCH:
                    self.flush()

            def flush(self) -> None:
                """Insert what was kept."""
                rows, self.rows = self.rows, []
                if rows:
                    table.insert(rows)

        self.sink = Sink()
        self.logger = loguru.logger
        self.logger.remove()
        # loguru formats with {}; the shape that is logged has %d in it, so it is formatted by the caller, as here.
        self.logger.add(self.sink.write, enqueue=True, format="{message}", level="INFO")
        self.logger = _PercentLogger(self.logger.info)

    def finish(self) -> None:
        """Wait for its thread."""
        importlib.import_module("loguru").logger.complete()
        self.sink.flush()

    def close(self) -> None:
        """Let its thread end."""
        importlib.import_module("loguru").logger.remove()
        self.table.close()


class _PercentLogger:
    def __init__(self, info: Callable[[str], None]) -> None:
        self._info = info

    def info(self, message: str, *args: object) -> None:
        """Format as the logging module does."""
        self._info(message % args)


class Picologging(Store):
    """picologging's logger, QueueHandler and QueueListener, in front of `executemany` of 10,000."""

    def open(self) -> None:
        """Set `logger`."""
        picologging = importlib.import_module("picologging")
        handlers = importlib.import_module("picologging.handlers")
        store = self

        class Target(picologging.Handler):  # type: ignore[name-defined,misc]  # imported by name
            """
            Keep the row, or insert all that were kept.
            """

            def emit(self, record: Any) -> None:
                """Take the record."""
                store.rows.append(row_of(record))
                if len(store.rows) >= BATCH:
                    store.flush()

            def handle(self, record: Any) -> None:
                """Take the record."""
                self.emit(record)

        self.rows: list[tuple[Any, ...]] = []
        self.table = Table(self.path)
        waiting: queue.Queue[Any] = queue.Queue()
        self.listener = handlers.QueueListener(waiting, Target())
        self.listener.start()
        self.logger = picologging.Logger("shop.orders", picologging.INFO)
        self.logger.addHandler(handlers.QueueHandler(waiting))

    def flush(self) -> None:
        """Insert what was kept."""
        rows, self.rows = self.rows, []
        if rows:
            self.table.insert(rows)

    def finish(self) -> None:
        """Stop the listener, which handles what waits."""
        self.listener.stop()
        self.flush()

    def close(self) -> None:
        """Close."""
        self.table.close()


class OpenTelemetry(Store):
    """OpenTelemetry's handler and BatchLogRecordProcessor, with an exporter into SQLite, 10,000 at once."""

    def open(self) -> None:
        """Set `logger`."""
        sdk = importlib.import_module("opentelemetry.sdk._logs")
        export = importlib.import_module("opentelemetry.sdk._logs.export")
        table = self.table = Table(self.path)

        class Exporter(export.LogRecordExporter):  # type: ignore[name-defined,misc]  # imported by name
            """
            Insert a batch.
            """

            def export(self, batch: Any) -> Any:
                """Insert it."""
                rows = []
                for data in batch:
                    record, attributes = data.log_record, data.log_record.attributes
                    rows.append((
                        record.timestamp / 1e9, record.severity_number.value, data.instrumentation_scope.name,
                        attributes["code.file.path"], attributes["code.line.number"], attributes["code.function.name"],
                        None, None, None, record.body, attributes.get("exception.stacktrace"),
                    ))  # fmt: skip
                table.insert(rows)
                return export.LogRecordExportResult.SUCCESS

            def force_flush(self, timeout_millis: int = 0) -> bool:
                """Nothing to do."""
                return True

            def shutdown(self) -> None:
                """Nothing to do."""

        self.provider = sdk.LoggerProvider(shutdown_on_exit=False)
        processor = export.BatchLogRecordProcessor(
            Exporter(), schedule_delay_millis=100, max_export_batch_size=BATCH, max_queue_size=max(BATCH, self.expected)
        )
        self.provider.add_log_record_processor(processor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.logger = logger_with(sdk.LoggingHandler(logger_provider=self.provider))

    def finish(self) -> None:
        """Flush."""
        self.provider.force_flush()

    def close(self) -> None:
        """Shut down."""
        self.provider.shutdown()
        self.table.close()


OURS = "sqlite-log-handler"
CEILING = "sqlite-log-handler, if writing took no time"
TEXT_FILE = "FileHandler with asctime"
IN_THE_CALLER = "MemoryHandler(10,000), executemany in the caller"
STORES: dict[str, type[Store]] = {
    OURS: Ours,
    CEILING: Ceiling,
    TEXT_FILE: TextFile,
    IN_THE_CALLER: InTheCaller,
    "QueueListener, executemany of 10,000": BatchedQueue,
    "QueueListener, one commit a record": OneCommitEach,
    "python-sqlite-log-handler": PythonSqliteLogHandler,
    "loguru, enqueue=True, executemany": Loguru,
    "picologging, QueueListener, executemany": Picologging,
    "OpenTelemetry batch processor, executemany": OpenTelemetry,
}
