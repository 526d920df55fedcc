"""
The archive of a log: a folder of compressed parts, which `_write.retention.archive` fills and readers read.

A part holds the rows of one range of ids, none missing, and the gaps among them: the lines of `drops`. Ranges of
different parts do not overlap. A part is named after the log and the day (UTC) of its first row, and goes on until a
row of a later day comes. So rows of an earlier day, which a clock that went back leaves, stand among the others, and
only the head of the part says which times it has.

A part of JSON lines, compressed by gzip, has its head on the first line, then each gap as an object with the one key
`drop`, then the rows in the order of their ids. A part of Parquet has the rows in its columns, and the head and the
gaps in the metadata of the file. Many gaps stand in several lists, each under a key of its own.

The table `archives` in the log's file has a line for each part that was read back after it was written.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Final, NamedTuple

from sqlite_log_handler._logfile.columns import COLUMNS, FROM, JSON_COLUMNS, csv_line, json_object, text, whole

JSON_LINES: Final = "jsonl.gz"
PARQUET: Final = "parquet"
PARTIAL: Final = ".partial"
LOCK: Final = "-archive"  # behind the name of the log; `WriteLock` adds "-lock"

# The keys of Parquet's metadata.
HEAD_KEY: Final = b"sqlite_log_handler.head"
DROPS_KEY: Final = b"sqlite_log_handler.drops"
# Bytes of gaps under one key, because readers refuse very long values. A single gap may be longer.
_DROPS_BYTES: Final = 1024 * 1024

# What the view `logs` lacks, and readers ask for: the message before its arguments were put in, and the run.
MORE_COLUMNS: Final = {
    "template": text("sources.template"),
    "started_us": whole("processes.started_us"),
    "program": text("processes.program"),
}
PART_COLUMNS: Final = {**COLUMNS, **MORE_COLUMNS}

# A row is archived even if somebody has deleted its line of `sources` or `processes`.
_FROM: Final = FROM.replace("CROSS", "LEFT")

# A row as a line of CSV, of which Arrow makes Parquet; `time` is made of `created_us` there. A WHERE is to follow.
_CELLS: Final = {name: expression for name, expression in PART_COLUMNS.items() if name != "time"}
SELECT_CSV: Final = f"SELECT {csv_line(_CELLS)} AS line FROM {_FROM}"  # noqa: S608 - our own names

# A row as it stands in a part of JSON lines: one JSON object. The order makes the part smaller: to the compressor, what
# rows of a call site share is one match, and so is what lies between the digits that differ in each row.
_FIRST: Final = (
    *("levelno", "level", "logger", "pathname", "lineno", "func", "template"),
    *("id", "time", "created_us", "message"),
)
_MEMBERS: Final = {name: JSON_COLUMNS.get(name, PART_COLUMNS[name]) for name in (*_FIRST, *PART_COLUMNS)}
SELECT_JSON: Final = f"SELECT {json_object(_MEMBERS)} AS line FROM {_FROM}"  # noqa: S608 - same

# A process as it stands in heads, and beside each gap.
PROCESS: Final = {
    "process": whole("pid"),
    "process_name": text("name"),
    "host": text("host"),
    "started_us": whole("started_us"),
    "program": text("program"),
}
SELECT_PROCESS: Final = f"SELECT {json_object(PROCESS)} FROM processes"  # noqa: S608 - same
# A gap, but for its id.
DROP: Final = {
    name: (text if name in {"cause", "logger"} else whole)(name)
    for name in ("after_id", "since_us", "until_us", "cause", "logger", "levelno", "count")
}
FROM_DROPS: Final = "FROM drops LEFT JOIN processes ON processes.id = process_id"
SELECT_DROP: Final = f"SELECT drops.id, {json_object({'id': 'drops.id', **DROP, **PROCESS})} {FROM_DROPS}"

# A number of more digits would leave no room for the next one.
_NAME: Final = re.compile(r"([^\0]+)\.(\d{4}-\d\d-\d\d)(?:\.([2-9]|[1-9]\d{1,17}))?\.(jsonl\.gz|parquet)", re.ASCII)
_LONGEST_NAME: Final = 255

# Most bytes of a part, decompressed, for each byte of its file, and bytes that any may have. Rows that differ only in
# their id and their time come to 60 for each, and what is made to fill a disk to 1,000.
GROWTH: Final = 200
GRANTED: Final = 64 * 1024 * 1024

# Bytes of the longest line that a reader takes: the longest row, of control characters, each of which is six bytes of
# JSON. A head, which names each process, is not longer either.
LONGEST_LINE: Final = 3_584 * 1024


def drops_keys() -> Iterator[bytes]:
    """Yield the keys under which a part of Parquet has its gaps: `DROPS_KEY`, then with `.2` behind it, and so on."""
    yield DROPS_KEY
    for number in count(2):
        yield b"%s.%d" % (DROPS_KEY, number)


def drops_metadata(drops: Iterable[str]) -> dict[bytes, str]:
    """Return the gaps of a part, given as objects of JSON, as metadata of Parquet: lists of them, by key."""
    lists: list[list[str]] = [[]]
    size = 0
    for drop in drops:
        size += len(drop.encode())
        if size > _DROPS_BYTES and lists[-1]:
            lists.append([])
            size = len(drop.encode())
        lists[-1].append(drop)
    return {key: f"[{','.join(some)}]" for key, some in zip(drops_keys(), lists, strict=False)}


class PartName(NamedTuple):
    """What the name of a part says: the log's stem, the day of its first row, its number on that day, its format."""

    stem: str
    day: str
    number: int
    kind: str

    def __str__(self) -> str:
        number = "" if self.number == 1 else f".{self.number}"
        return f"{self.stem}.{self.day}{number}.{self.kind}"

    @classmethod
    def parse(cls, name: str) -> "PartName | None":
        """
        Read the name of a file; None if it is not that of a part. The name may be from a log, and a stranger's.

        >>> PartName.parse("app-log.2026-11-28.2.jsonl.gz")
        PartName(stem='app-log', day='2026-11-28', number=2, kind='jsonl.gz')
        """
        length = len(name) if os.name == "nt" else len(name.encode(errors="replace"))
        is_name = os.path.basename(name) == name and length <= _LONGEST_NAME
        found = _NAME.fullmatch(name) if is_name else None
        return found and cls(found[1], found[2], int(found[3] or 1), found[4])


class Head(NamedTuple):
    """What a part says of itself."""

    log: str  # the stem of the log's file
    log_id: str  # of that very file: one that takes its place counts its rows from 1 again
    first_id: int
    last_id: int  # no row is missing in between
    since_us: int  # the earliest time of a row, in microseconds since 1970
    until_us: int  # the latest one
    max_levelno: int
    drops: int  # how many gaps it has: those before its first row, and between its rows
    dropped: int  # how many records they stand for
    levels: dict[str, str]  # names, by number
    processes: list[dict[str, Any]]  # that wrote its rows and lost its records, each as `SELECT_PROCESS` has it

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.last_id - self.first_id + 1

    def to_json(self) -> str:
        """Return it as the first line of a part."""
        return json.dumps({"archive": 1, "rows": self.rows, **self._asdict()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Head":
        """Read the first line of a part. Raises ValueError if it is none, or of a version that we do not know."""
        try:
            found = json.loads(line)
        except RecursionError:
            found = None
        if isinstance(found, dict) and found.get("archive") == 1:
            values = [found.get(name) for name in cls._fields]
            head = cls(*values)  # type: ignore[arg-type]  # the next lines look at them
            typed = [*map(type, values)] == _HEAD_TYPES and found.get("rows") == head.rows
            if typed and -(2**63) <= min(head[2:9]) <= max(head[2:9]) < 2**63:  # others are an error to SQLite
                return head
        raise ValueError("not the head of a part")


_HEAD_TYPES: Final = [str, str, *[int] * 7, dict, list]


def stem_of(path: str) -> str:
    """
    Return what the parts of the log at `path` are named after.

    >>> stem_of("/var/log/app-log.db")
    'app-log'
    """
    name = os.path.basename(path)
    # Notes and heads are UTF-8, and the name may not be.
    return (name.removesuffix(".db") or name).encode("utf-8", "backslashreplace").decode()


def is_led_away(path: str) -> bool:
    """
    Tell whether a link in the place of a part leads to what has no name of a part, and may be a database.

    To close a file takes away all locks that SQLite has on it in this process.
    """
    return not os.path.realpath(path).endswith((".gz", f".{PARQUET}"))


def part_names(folder: str, stem: str | None = None, end: str = "") -> list[PartName]:
    """Return the names of the parts in a folder, of one log or of all, by log, day and number; `end` stands behind."""
    names = (name.removesuffix(end) for name in os.listdir(folder) if name.endswith(end))
    return sorted(name for name in filter(None, map(PartName.parse, names)) if stem in {None, name.stem})
