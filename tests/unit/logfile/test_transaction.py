"""
One transaction: all of it, or nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from sqlite_log_handler._logfile.transaction import transaction


@pytest.fixture
def connection():
    """A database with an empty table."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        yield connection


def test_all_of_it_is_committed(connection):
    """What the block writes stands in the file, and no transaction is open."""
    with transaction(connection):
        connection.execute("INSERT INTO t VALUES (1)")

    assert ([(1,)], False) == (connection.execute("SELECT n FROM t").fetchall(), connection.in_transaction)


@pytest.mark.parametrize("rolled_back", [False, True], ids=["still open", "rolled back by SQLite"])
def test_an_exception_leaves_nothing(connection, rolled_back):
    """After an exception nothing was written, also when SQLite has rolled back already, as it does for a full disk."""
    with pytest.raises(KeyboardInterrupt), transaction(connection):
        connection.execute("INSERT INTO t VALUES (1)")
        if rolled_back:
            connection.execute("ROLLBACK")
        raise KeyboardInterrupt

    assert ([], False) == (connection.execute("SELECT n FROM t").fetchall(), connection.in_transaction)
