"""
A row of the view `logs`, as Python sees it, and the way back to a `logging.LogRecord`.
"""

import json
import logging
import os
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlite_log_handler._logfile.columns import COLUMNS, FROM, MEMBERS
from sqlite_log_handler._logfile.schema import LOG_COLUMNS


def select(names: Iterable[str]) -> str:
    """Return a query for some columns of the view `logs`; a name that is none of them stands for itself, as `NULL`."""
    return f"SELECT {', '.join(COLUMNS.get(name, name) for name in names)} FROM {FROM}"  # noqa: S608 - no value in it


SELECT_ROW: Final = select(LOG_COLUMNS)

SELECT_JSON: Final = f"SELECT records.id, json_object({MEMBERS}) FROM {FROM}"  # noqa: S608 - same

_STANDARD: Final = {*dir(logging.LogRecord), *vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def extra_of(attributes: str | None) -> dict[str, Any]:
    """Read the column `attributes`; what is no JSON object is empty."""
    try:
        extra = json.loads(attributes or "{}")
    except (ValueError, RecursionError):
        return {}
    return extra if isinstance(extra, dict) else {}


class Row(NamedTuple):
    """
    A row of the view `logs`: immutable, with the names of the view's columns.

    What a program gave as `extra` is JSON in `attributes`, and a dict in `extra`. A row becomes a record again, which
    any handler and any formatter take::

        for row in LogReader("app-log.db").rows(level="ERROR"):
            print(logging.Formatter("%(asctime)s %(name)s: %(message)s").format(row.to_record()))
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
        """What was given as `extra`; empty when there was none."""
        return extra_of(self.attributes)

    def to_record(self) -> logging.LogRecord:
        """
        Make the record that this row was made of, as far as it was kept.

        The message has its arguments in it already, and the traceback is the text in `exc_text`, which formatters
        print. The attributes of `extra` are set as they were; none of them hides what a record has of its own.
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
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        return f'{text[:-1]},"attributes":{_json(attributes)}}}'


def _json(attributes: str | None) -> str:
    if attributes is None:
        return "null"
    try:
        json.loads(attributes, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(attributes, ensure_ascii=False)
    return attributes


def _refuse(name: str) -> None:
    message = f"{name} is no JSON"
    raise ValueError(message)
