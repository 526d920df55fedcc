"""`Row`, a row of the view `logs`, and the way back to a `logging.LogRecord`."""

import json
import logging
import os
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlite_log_handler._logfile.columns import COLUMNS, FROM, JSON_COLUMNS, TEXTS, json_object
from sqlite_log_handler._logfile.schema import LOG_COLUMNS
from sqlite_log_handler._read.search import extra_of


def select(names: Iterable[str]) -> str:
    """Return a query for some columns of the view `logs`; a name that is none of them stands for itself, as `NULL`."""
    return f"SELECT {', '.join(COLUMNS.get(name, name) for name in names)} FROM {FROM}"  # noqa: S608 - no value in it


SELECT_ROW: Final = select(LOG_COLUMNS)
# True, and too big for SQLite's limit if the texts of a row are that together: SQLite limits each alone.
FITS: Final = "({}) IS NOT NULL".format(" || ".join(f"ifnull({COLUMNS[name]}, '')" for name in TEXTS))

# A row as JSON, for `select`.
JSON: Final = json_object(JSON_COLUMNS)
SELECT_JSON: Final = select(("id", JSON))

_STANDARD: Final = {*dir(logging.LogRecord), *vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Row(NamedTuple):
    """
    A row of the view `logs`: immutable, with the names of the view's columns.

    `attributes` has the `extra` of the program as JSON, and the property `extra` has it as a dict. `to_record` makes a
    record again, for any handler and any formatter.

        >>> with LogReader("app-log.db") as log:
        ...     for row in log.rows(level="WARNING"):
        ...         print(logging.Formatter("%(name)s: %(message)s").format(row.to_record()))
        shop: stock of tea is low
    """

    id: int
    created_us: int
    time: str | None
    levelno: int
    level: str
    logger: str
    message: str
    pathname: str
    lineno: int
    func: str
    process: int
    process_name: str
    host: str
    thread: int | None
    thread_name: str | None
    task_name: str | None
    exc_type: str | None
    exc_text: str | None
    stack_info: str | None
    attributes: str | None

    @property
    def extra(self) -> dict[str, Any]:
        """The `extra` of the program; empty if there was none."""
        return extra_of(self.attributes)

    def to_record(self) -> logging.LogRecord:
        """
        Make the record again from which this row was made, as far as the row has kept it.

        Its message has the arguments in it, and `exc_text` has the traceback, which formatters print. It has the
        attributes of `extra`, but none that would hide one of the record's own.
        """
        created = self.created_us / 1e6
        name = os.path.basename(self.pathname)
        record = logging.makeLogRecord({key: value for key, value in self.extra.items() if key not in _STANDARD})
        begin = record.created - record.relativeCreated / 1000
        vars(record).update(
            name=self.logger,
            msg=self.message,
            args=(),
            levelno=self.levelno,
            levelname=self.level,
            pathname=self.pathname,
            filename=name,
            module=os.path.splitext(name)[0],
            lineno=self.lineno,
            funcName=self.func,
            created=created,
            msecs=float(self.created_us // 1000 % 1000),
            relativeCreated=(created - begin) * 1000,
            thread=self.thread,
            threadName=self.thread_name,
            processName=self.process_name,
            process=self.process,
            taskName=self.task_name,
            exc_text=self.exc_text,
            stack_info=self.stack_info,
        )
        return record

    def to_json(self) -> str:
        """Return the row as one line of JSON, with `attributes` as an object in it."""
        values = self._asdict()
        attributes = values.pop("attributes")
        try:
            json.loads(attributes or "", parse_constant=int)  # which refuses NaN and Infinity: they are not JSON
        except (ValueError, RecursionError):
            attributes = json.dumps(attributes, ensure_ascii=False)
        # Somebody else's JSON may have several lines; within its texts, these characters are escaped.
        attributes = attributes.replace("\r", " ").replace("\n", " ")
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        return f'{text[:-1]},"attributes":{attributes}}}'
