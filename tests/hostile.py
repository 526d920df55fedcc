"""
Files that nobody wrote by logging: made to hang, to crash or to fill the memory of whoever reads them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlite_log_handler._logfile.schema import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

ROWS = """
INSERT INTO sources VALUES (1, 'shop', '/srv/app.py', 1, 'work', '');
INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 1, 'app');
INSERT INTO records (id, created_us, levelno, source_id, process_id, message) VALUES (1, 1, 20, 1, 1, 'm');
INSERT INTO drops VALUES (1, 0, 1, 2, 1, 'queue_full', 'shop', 20, 3);
INSERT INTO cursors VALUES ('to loki', 0, 1);
INSERT INTO prunes VALUES (1, 1, 2, 3, 4, 'max_age', 5, 6, 0);
"""

# Each runs for hours where something asks for its rows.
ENDLESS = "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
ONE_STEP = "SELECT instr(zeroblob(16000000), CAST(zeroblob(8000000) || x'01' AS BLOB)) AS id"


def make(path: Path, script: str = "", *, schema: str = SCHEMA, rows: str = ROWS) -> Path:
    """Make a log, and run a script on it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"PRAGMA synchronous = OFF; BEGIN; {schema} {rows} COMMIT; {script}")
    return path


def without_end(path: Path, *, table: str = "records", levels: int = 18, width: int = 40) -> Path:
    """
    Make a log of some pages whose table has no end: each page of its tree leads to the next one `width` times over.
    """
    make(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    count = len(content) // size
    leaf = bytes(content[(root - 1) * size : root * size])
    pages = [root, *range(count + 1, count + 1 + levels)]
    for page, child in pairwise(pages):
        interior = _interior(size, child, width)
        if page == root:
            content[(root - 1) * size : root * size] = interior
        else:
            content += interior
    content += leaf
    content[28:32] = (len(content) // size).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def _interior(size: int, child: int, width: int) -> bytes:
    """Make an interior page of a table's tree (https://sqlite.org/fileformat.html#b_tree_pages)."""
    cell = child.to_bytes(4, "big") + b"\x01"  # its key is 1
    begin = size - width * len(cell)
    head = b"\x05\0\0" + width.to_bytes(2, "big") + begin.to_bytes(2, "big") + b"\0" + child.to_bytes(4, "big")
    pointers = b"".join((begin + number * len(cell)).to_bytes(2, "big") for number in range(width))
    return (head + pointers).ljust(begin, b"\0") + cell * width
