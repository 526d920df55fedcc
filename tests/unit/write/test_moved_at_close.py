"""
A file that was moved or replaced since the last commit, and then closed: at exit, before a fork, by `dictConfig`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from batches import messages, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be renamed")


def in_file(path: Path) -> list[str]:
    """Return the messages of a log, and see that it is sound."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return [message for (message,) in connection.execute("SELECT message FROM logs ORDER BY id")]


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_renamed_file_has_its_rows_at_close(
    writer: Writer, path: Path, make_writer: Callable[[], Writer], is_busy: bool
) -> None:
    """
    A file that was renamed has all its rows when the program ends before its next record, also while others commit.

    SQLite writes no WAL back into a file that was moved. So what logrotate compressed lacked up to 4 MB of rows.
    """
    write(writer, "0", "1")
    rotated = path.with_name("rotated.db")
    path.rename(rotated)
    if is_busy:
        with make_writer().file.hold():
            writer.close()
    else:
        writer.close()
        assert [] == [name for name in os.listdir(path.parent) if name.startswith("app-log.db") and "lock" not in name]

    assert ["0", "1"] == in_file(rotated)


def test_a_file_in_the_place_of_a_log_keeps_its_rows_at_close(
    writer: Writer, path: Path, make_writer: Callable[[], Writer]
) -> None:
    """
    A log that was put in the place of another one has its own rows after the program has ended and begun again.

    The -wal of the old file stayed, and SQLite applied it to the new one: all of its rows were gone, without a word.
    """
    other = Writer(f"{path}.other")
    write(other, "other")
    other.close()
    write(writer, *map(str, range(100)))
    os.replace(f"{path}.other", path)
    writer.close()
    again = make_writer()
    write(again, "after")

    assert ["other", "after"] == messages(again)
    again.close()
    assert ["other", "after"] == in_file(path)
