"""
One transaction: all of it, or nothing.
"""

import contextlib
import sqlite3
from collections.abc import Iterator


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """
    Commit what the `with` block writes, or roll all of it back if something is raised.

    IMMEDIATE, because SQLite refuses at once to let a reader become a writer while another process writes.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled some failures back already: a full disk, say.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
