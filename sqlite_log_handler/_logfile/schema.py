"""
What an `app-log.db` looks like: the tables, the view that people query, and how a file is told to be ours.

Both halves of the package, the one that writes and the one that reads, meet here, and otherwise only in
`_logfile.printable`.
Everything is plain SQL that SQLite 3.34 (2020) can read: no STRICT, no `->>`, no RETURNING.
"""

import os
import sqlite3
from pathlib import Path

# "SLog" in ASCII. SQLite keeps it in bytes 68 to 71 of the file, where file(1) looks for it.
APPLICATION_ID = 0x534C6F67

# Counts up with each change of the tables. A file with a higher number is refused, not guessed at.
USER_VERSION = 1

# The view that people query, column by column.
LOG_COLUMNS = {
    "id": "records.id",
    "created_us": "created_us",
    "time": "strftime('%Y-%m-%dT%H:%M:%S', (created_us - (created_us % 1000000 + 1000000) % 1000000) / 1000000, "
    "'unixepoch') || printf('.%06dZ', (created_us % 1000000 + 1000000) % 1000000)",
    "levelno": "records.levelno",
    "level": "coalesce(levels.name, 'Level ' || records.levelno)",
    "logger": "sources.logger",
    "message": "message",
    "pathname": "sources.pathname",
    "lineno": "sources.lineno",
    "func": "sources.func",
    "process": "processes.pid",
    "process_name": "processes.name",
    "host": "processes.host",
    "thread": "thread",
    "thread_name": "thread_name",
    "task_name": "task_name",
    "exc_type": "exc_type",
    "exc_text": "exc_text",
    "stack_info": "stack_info",
    "attributes": "attributes",
}
_VIEW_COLUMNS = ",\n    ".join(f"{expression} AS {name}" for name, expression in LOG_COLUMNS.items())
LOG_TABLES = """records
    JOIN sources ON sources.id = source_id
    JOIN processes ON processes.id = process_id
    LEFT JOIN levels ON levels.levelno = records.levelno"""

# created_us is integer microseconds: a float of today resolves 238 ns at best, sorts no better, and
# nanoseconds do not survive the 2**53 of JavaScript and jq.
# AUTOINCREMENT: an id is never given twice, even when the newest rows were pruned, so a reader can follow by id.
# `sources` and `processes` hold once what would otherwise stand in every row. Thread and task names stay in the row:
# a server that starts a thread per request would make a side table grow as fast as the log.
SCHEMA = f"""
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    logger TEXT NOT NULL, pathname TEXT NOT NULL, lineno INTEGER NOT NULL, func TEXT NOT NULL,
    UNIQUE (logger, pathname, lineno, func)
);
CREATE TABLE processes (
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL, pid INTEGER NOT NULL, name TEXT NOT NULL, started_us INTEGER NOT NULL, program TEXT NOT NULL,
    UNIQUE (host, pid, name, started_us)
);
CREATE TABLE levels (
    levelno INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
INSERT INTO levels VALUES (10, 'DEBUG'), (20, 'INFO'), (30, 'WARNING'), (40, 'ERROR'), (50, 'CRITICAL');
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_us INTEGER NOT NULL,
    levelno INTEGER NOT NULL,
    source_id INTEGER NOT NULL REFERENCES sources,
    process_id INTEGER NOT NULL REFERENCES processes,
    thread INTEGER,
    thread_name TEXT,
    task_name TEXT,
    message TEXT NOT NULL,
    exc_type TEXT,
    exc_text TEXT,
    stack_info TEXT,
    attributes TEXT
);
CREATE INDEX records_created_us ON records (created_us);
CREATE TABLE drops (
    id INTEGER PRIMARY KEY,
    after_id INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    until_us INTEGER NOT NULL,
    process_id INTEGER NOT NULL REFERENCES processes,
    cause TEXT NOT NULL,
    logger TEXT NOT NULL,
    levelno INTEGER NOT NULL,
    count INTEGER NOT NULL
);
CREATE TABLE volume (
    hour INTEGER NOT NULL,
    logger TEXT NOT NULL,
    levelno INTEGER NOT NULL,
    records INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, logger, levelno)
) WITHOUT ROWID;
CREATE TABLE prunes (
    id INTEGER PRIMARY KEY,
    first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,
    since_us INTEGER NOT NULL, until_us INTEGER NOT NULL,
    cause TEXT NOT NULL,
    count INTEGER NOT NULL,
    unsent INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    after_id INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE VIEW logs AS SELECT
    {_VIEW_COLUMNS}
FROM {LOG_TABLES};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {USER_VERSION};
"""  # noqa: S608 - our own numbers


class LogFileError(Exception):
    """
    A path that cannot be a log. The file, if there is one, was left as it is.

    Base of `ForeignFileError` and `NewerSchemaError`, for those who want to catch both.
    """


class ForeignFileError(LogFileError):
    """
    The file exists, and it is not a log of ours: choose another `filename`, or move that file away.
    """


class NewerSchemaError(LogFileError):
    """
    The file was written by a newer sqlite-log-handler than this one: upgrade the package.
    """


def identity_of(path: str) -> tuple[int, int] | None:
    """
    Return what tells one file from another that stands at the same path later; None when there is none to be seen.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def connect_read_only(path: str, *, timeout: float = 5.0, immutable: bool = False) -> sqlite3.Connection:
    """
    Open `path` so that nothing in it can be changed by us, nor run by what stands in it.

    `Path.as_uri` quotes what SQLite's URI syntax would take for a parameter (https://sqlite.org/uri.html).
    `trusted_schema=OFF` keeps functions out of views that somebody else wrote (https://sqlite.org/pragma.html).
    With `immutable`, SQLite takes no lock and looks at no -wal, which is right for a file that nobody writes to.

    Raises:
        sqlite3.OperationalError: there is no such file, or it may not be read.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def is_ours(
    connection: sqlite3.Connection, path: str, *, advice: str = "choose another filename, or move that file away"
) -> bool:
    """
    Tell a log of ours (True) from an empty database (False), and refuse everything else. Reads only.

    Args:
        connection: An open connection to the file.
        path: Its path, for the error.
        advice: What whoever asks can do about a file of somebody else; by default, whoever wants to write a log there.

    Raises:
        ForeignFileError: not an SQLite file, or an SQLite file of another program.
        NewerSchemaError: ours, but made by a newer version.
        sqlite3.OperationalError: the file cannot be read at this moment.
    """
    try:
        # One statement: if another process makes a log of it meanwhile, this sees nothing of it, or all.
        tables, application_id, user_version = connection.execute(
            "SELECT (SELECT count(*) FROM sqlite_master), application_id, user_version "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            message = f"{path!r} is not an SQLite database: {advice}"
            raise ForeignFileError(message) from error
        raise
    if application_id == APPLICATION_ID:
        if user_version > USER_VERSION:
            message = (
                f"{path!r} has schema version {user_version}, this sqlite-log-handler knows {USER_VERSION} at most: "
                "upgrade sqlite-log-handler, or choose another filename"
            )
            raise NewerSchemaError(message)
        return True
    if application_id or tables:
        message = f"{path!r} is an SQLite database of another program: {advice}"
        raise ForeignFileError(message)
    return False
