"""
Archives made by hand: parts of a log's file, as retention makes them, and the state of a file after a kill.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import logging
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from logged import record

from sqlite_log_handler import LogReader, SQLiteHandler
from sqlite_log_handler._logfile.archive import DROPS_KEY, HEAD_KEY, PART_COLUMNS
from sqlite_log_handler._logfile.columns import FROM
from sqlite_log_handler._logfile.connect import connect_read_only, connect_read_write
from sqlite_log_handler._write.retention.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DAY = 86_400
_LEVELS = [logging.DEBUG, logging.INFO, 25, logging.ERROR]
_INTEGERS = {"id", "created_us", "levelno", "lineno", "process", "thread", "started_us"}
_PROCESS = "'process', pid, 'process_name', name, 'host', host, 'started_us', started_us, 'program', program"
_DROP = (
    "'id', drops.id, 'after_id', after_id, 'since_us', since_us, 'until_us', until_us, 'cause', cause, "
    f"'logger', drops.logger, 'levelno', levelno, 'count', count, {_PROCESS}"
)


def write_part(file: Path, folder: Path, ids: tuple[int, int], *, kind: str = "jsonl.gz", number: int = 0) -> Path:
    """Write a part of the rows with these ids; they stay in the file."""
    low, high = ids
    with contextlib.closing(sqlite3.connect(file)) as connection:
        columns = ", ".join(f"{expression} AS {name}" for name, expression in PART_COLUMNS.items())
        cursor = connection.execute(
            f"SELECT {columns} FROM {FROM} WHERE records.id BETWEEN ? AND ? ORDER BY records.id",
            ids,
        )
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        least = 0 if low == 1 else low - 1
        drops = [
            json.loads(line)
            for (line,) in connection.execute(
                f"SELECT json_object({_DROP}) FROM drops JOIN processes ON processes.id = process_id "
                "WHERE after_id >= ? AND after_id < ? ORDER BY drops.id",
                (least, high),
            )
        ]
        head: dict[str, Any] = {
            "archive": 1,
            "rows": len(rows),
            "log": file.name.removesuffix(".db"),
            "log_id": connection.execute("SELECT log_id FROM marks").fetchone()[0],
            "first_id": low,
            "last_id": high,
            "since_us": min(row["created_us"] for row in rows),
            "until_us": max(row["created_us"] for row in rows),
            "max_levelno": max(row["levelno"] for row in rows),
            "drops": len(drops),
            "dropped": sum(drop["count"] for drop in drops),
            "levels": {str(level): name for level, name in connection.execute("SELECT levelno, name FROM levels")},
            "processes": [
                json.loads(line) for (line,) in connection.execute(f"SELECT json_object({_PROCESS}) FROM processes")
            ],
        }
    day = rows[0]["time"][:10]
    path = folder / f"{head['log']}.{day}.{number or low + 1}.{kind}"
    write_head_and_rows(path, head, drops, rows)
    return path


def write_head_and_rows(path: Path, head: object, drops: Sequence[object], rows: Sequence[dict[str, Any]]) -> None:
    """Write a part of what is given, whatever it is."""
    path.parent.mkdir(exist_ok=True)
    if path.name.endswith(".parquet"):
        _write_parquet(path, head, drops, rows)
        return
    lines = [json.dumps(head), *(json.dumps({"drop": drop}) for drop in drops), *map(_line, rows)]
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")))


def _line(row: dict[str, Any]) -> str:
    """Write a row as `export` does, with the attributes as an object."""
    attributes = row.get("attributes")
    text = json.dumps({**row, "attributes": "@"}, ensure_ascii=False, separators=(",", ":"))
    return text.replace('"attributes":"@"', f'"attributes":{attributes or "null"}', 1)


def _write_parquet(path: Path, head: object, drops: object, rows: Sequence[dict[str, Any]]) -> None:
    pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    types = {name: pa.int64() if name in _INTEGERS else pa.string() for name in PART_COLUMNS}
    metadata = {HEAD_KEY: json.dumps(head).encode(), DROPS_KEY: json.dumps(drops).encode()}
    table = pa.Table.from_pylist([*rows], schema=pa.schema([*types.items()], metadata=metadata))
    pq.write_table(table, path, compression="zstd", row_group_size=5)


def archive_for_real(file: Path, folder: Path, up_to_id: int, *, kind: str, delete: bool) -> None:
    """Archive rows as retention does, and delete them, unless the process is killed before that."""
    store = Archive(str(folder), os.path.realpath(file), kind=kind)
    with (
        contextlib.closing(connect_read_only(str(file))) as reading,
        contextlib.closing(connect_read_write(str(file), timeout=5)) as writing,
        contextlib.closing(store.lock),
        store.lock.hold(0),
    ):
        for part in store.parts(reading, last_id=up_to_id):
            assert store.note(writing, part)
        if delete:
            prune(writing, up_to_id)


def archive(file: Path, folder: Path, up_to_id: int, *, kind: str = "jsonl.gz", delete: bool = True) -> None:
    """Write a part of the rows up to an id, note it, and delete the rows, unless the process is killed before that."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        ((low,),) = connection.execute("SELECT max(archived_id, (SELECT min(id) FROM records) - 1) + 1 FROM marks")
        if low <= up_to_id:
            path = write_part(file, folder, (low, up_to_id), kind=kind)
            connection.execute("UPDATE marks SET archived_id = ?", (up_to_id,))
            connection.execute(
                "INSERT INTO archives (name, first_id, last_id, since_us, until_us, max_levelno, drops, dropped, "
                "bytes, crc32) VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, 0)",
                (path.name, low, up_to_id),
            )
        if delete:
            prune(connection, up_to_id)


def prune(connection: sqlite3.Connection, up_to_id: int) -> None:
    """Delete rows that are in the archive, as retention does."""
    ((first_id, last_id),) = connection.execute(
        "SELECT min(id), max(id) FROM records WHERE id <= ? AND id < (SELECT max(id) FROM records)", (up_to_id,)
    )
    if first_id is not None:
        connection.execute("DELETE FROM records WHERE id BETWEEN ? AND ?", (first_id, last_id))
        count = last_id - first_id + 1
        connection.execute(
            "INSERT INTO prunes (first_id, last_id, since_us, until_us, cause, count, unsent, archived) "
            "VALUES (?, ?, 0, 0, 'max_age', ?, ?, ?)",
            (first_id, last_id, count, count, count),
        )


def fill(file: Path, bursts: list[int]) -> None:
    """
    Log bursts of records, of which some are dropped, over days and in several runs of a program; the clock goes back.
    """
    logging.addLevelName(25, "NOTICE")
    try:
        handler = SQLiteHandler(
            file,
            capacity=20,
            fair_share=1,
            reserve=0,
            batch_size=100,
            flush_interval=3_600,
            flush_level=logging.CRITICAL,
        )
        number = 0
        for burst in bursts:
            for _ in range(burst):
                number += 1
                made = record(f"order {number}", _LEVELS[number % 4], f"shop.{number % 3}", seconds=number * _DAY / 7)
                made.lineno, made.threadName, made.thread = number % 5, f"worker-{number % 2}", number % 2
                if number % 3:
                    made.msg, made.args = "order %d of %s paid", (number, "ana")
                if number % 4 == 0:
                    vars(made).update(status=number, price=1e16 + number, created_us=5, levelno_="x", big=10**25)
                    made.created -= _DAY
                if number % 7 == 0:
                    made.exc_text, made.exc_info = None, (KeyError, KeyError(number), None)
                handler.handle(made)
            handler.flush()
        handler.close()
    finally:
        # `addLevelName` has no opposite.
        logging._levelToName.pop(25)
        logging._nameToLevel.pop("NOTICE")
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(
            """
            INSERT INTO processes (host, pid, name, started_us, program)
                SELECT host, pid + 1, name, started_us + 60000000, program FROM processes;
            UPDATE records SET process_id = 2 WHERE id > 9;
            UPDATE processes SET started_us = (SELECT max(created_us) FROM records WHERE id <= 5 * processes.id);
            INSERT INTO cursors VALUES ('to loki', 5, 1);
            """
        )


def ids_of(*paths: Path, **filters: Any) -> list[int]:
    """Return the ids that a reader finds."""
    with LogReader(paths) as log:
        return [row.id for row in log.rows(**filters)]
