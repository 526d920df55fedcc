"""
What an `app-log.db` looks like: the tables, the view that people query, and the names that writing and reading share.

Everything is plain SQL that SQLite 3.34 (2020) can read: no STRICT, no `->>`, no RETURNING.
"""

from collections.abc import Mapping

# "SLog" in ASCII. SQLite keeps it in bytes 68 to 71 of the file, where file(1) looks for it.
APPLICATION_ID = 0x534C6F67

# Rises with each change of the tables. The package refuses a file with a higher number, because it could only guess.
USER_VERSION = 1

# The handler's own warnings about drops are records of this logger, and those that it sends to others of this function.
OWN_LOGGER = "sqlite_log_handler"
SENT = "send"

# In the ledger, stands for all loggers beyond those that a tick tells apart.
OTHER_LOGGERS = "(other)"

# Why a handler drops a record; see docs/reference.md.
CAUSES = ("queue_full", "bytes_full", "fair_share", "unwritable", "contended", "close_timeout", "disk_budget")

# Bytes that message, traceback, stack and attributes of a record take together at most, whatever the options say. A row
# of control characters takes six times as much as JSON, and four times that in Python if there is an emoji among them;
# with this, no command needs more than 100 MB. Loki and Google Cloud take 256 KB of a record, Datadog 1 MB.
MAX_RECORD_BYTES = 512 * 1024
# The same with the names of a row, of at most 4 kB each: no handler writes more.
MAX_ROW_BYTES = MAX_RECORD_BYTES + 64 * 1024

# Microseconds of an hour, by which `volume` counts.
HOUR_US = 3_600_000_000

# Bytes of a row's text, as `volume` counts them. Most rows have a message only; asking that first saves a tenth of the
# time.
ROW_BYTES = """
length(CAST(message AS BLOB)) + CASE WHEN coalesce(exc_text, stack_info, attributes) IS NULL THEN 0 ELSE
    ifnull(length(CAST(exc_text AS BLOB)), 0) + ifnull(length(CAST(stack_info AS BLOB)), 0)
    + ifnull(length(CAST(attributes AS BLOB)), 0) END
"""


def level_name(names: Mapping[int, str], levelno: int) -> str:
    """Return the name of a level, or what `logging` calls a level without a name."""
    return names.get(levelno, f"Level {levelno}")


def level_name_of(table: str) -> str:
    """Return the same as SQL, for the rows of a table that is joined to `levels`."""
    return f"coalesce(levels.name, 'Level ' || {table}.levelno)"


# The view that people query, column by column.
LOG_COLUMNS = {
    "id": "records.id",
    "created_us": "created_us",
    "time": "strftime('%Y-%m-%dT%H:%M:%S', (created_us - (created_us % 1000000 + 1000000) % 1000000) / 1000000, "
    "'unixepoch') || printf('.%06dZ', (created_us % 1000000 + 1000000) % 1000000)",
    "levelno": "records.levelno",
    "level": level_name_of("records"),
    "logger": "sources.logger",
    "message": "message",
    "pathname": "sources.pathname",
    "lineno": "sources.lineno",
    "func": "sources.func",
    "process": "processes.pid",
    "process_name": "processes.name",
    "host": "processes.host",
    "thread": "coalesce(thread, threads.ident)",
    "thread_name": "coalesce(thread_name, threads.name)",
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
    LEFT JOIN threads ON threads.id = thread_id
    LEFT JOIN levels ON levels.levelno = records.levelno"""

# The rows that are not folded into `volume_folded` yet, added up; see `_write.volume`. LIMIT -1 keeps the innermost
# query apart, so that its GROUP BY sorts numbers and not messages.
UNFOLDED = f"""
SELECT hour * 3600 AS hour, ifnull(logger, '') AS logger, levelno, sum(records) AS records, sum(bytes) AS bytes
FROM (
    SELECT hour, source_id, levelno, count(*) AS records, sum(bytes) AS bytes
    FROM (
        SELECT created_us / {HOUR_US} AS hour, source_id, levelno, {ROW_BYTES} AS bytes
        FROM records WHERE id > (SELECT folded_id FROM marks) LIMIT -1
    )
    GROUP BY hour, source_id, levelno
)
    LEFT JOIN sources ON sources.id = source_id
GROUP BY 1, 2, 3
"""  # noqa: S608 - our own SQL

# The `last_id` of the last note; 0 if a bit has flipped in it: the newest row is in no part, and no row of a part is
# younger than its `until_us`.
NOTED_ID = """
ifnull((SELECT CAST(last_id AS INTEGER) FROM (SELECT last_id, until_us FROM archives ORDER BY id DESC LIMIT 1)
    WHERE CAST(last_id AS INTEGER) < (SELECT max(id) FROM records) AND NOT EXISTS (
        SELECT 1 FROM records WHERE id = CAST(last_id AS INTEGER)
        AND CAST(created_us AS INTEGER) > CAST(until_us AS INTEGER)
    )), 0)
"""

# Up to which id rows are archived, or were deleted without. Where mark and last note differ, a bit has flipped in one:
# a mark is too high if a row up to it is younger than the last part.
ARCHIVED_ID = f"""
iif({NOTED_ID} > 0 AND EXISTS (SELECT 1 FROM records WHERE id > {NOTED_ID} AND id <= CAST(archived_id AS INTEGER)
    AND created_us > (SELECT CAST(until_us AS INTEGER) FROM archives ORDER BY id DESC LIMIT 1)),
    {NOTED_ID}, max(ifnull(CAST(archived_id AS INTEGER), 0), {NOTED_ID}))
"""  # noqa: S608 - our own SQL

# What the view `volume` adds up.
VOLUME_LINES = f"""
    SELECT hour, logger, levelno, records, bytes, dropped FROM volume_folded
    UNION ALL
    SELECT hour, logger, levelno, records, bytes, 0 FROM ({UNFOLDED})
"""  # noqa: S608 - our own SQL

# docs/design.md says why times are integers, and why `sources`, `processes` and `threads` hold once what would stand in
# every row. A row of a thread that has no line there has its `thread` and `thread_name` itself.
# No AUTOINCREMENT, whose table costs a page a commit: retention never deletes the newest row, so SQLite never gives an
# id twice, and a reader can follow by id. `_write.inserts` has what happens when a person deletes it.
# `template` is the message before its arguments were put in, or '' where that is not known. `record_totals` adds up the
# lines that were cut off `volume_folded`, so that totals never fall. `archives` has a line for each part of the
# archive, see `archive`.
SCHEMA = f"""
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    logger TEXT NOT NULL, pathname TEXT NOT NULL, lineno INTEGER NOT NULL, func TEXT NOT NULL,
    template TEXT NOT NULL,
    UNIQUE (logger, pathname, lineno, func, template)
);
CREATE TABLE processes (
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL, pid INTEGER NOT NULL, name TEXT NOT NULL, started_us INTEGER NOT NULL, program TEXT NOT NULL,
    UNIQUE (host, pid, name, started_us)
);
CREATE TABLE threads (
    id INTEGER PRIMARY KEY,
    ident INTEGER NOT NULL, name TEXT NOT NULL,
    UNIQUE (ident, name)
);
CREATE TABLE levels (
    levelno INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
INSERT INTO levels VALUES (10, 'DEBUG'), (20, 'INFO'), (30, 'WARNING'), (40, 'ERROR'), (50, 'CRITICAL');
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    created_us INTEGER NOT NULL,
    levelno INTEGER NOT NULL,
    source_id INTEGER NOT NULL REFERENCES sources,
    process_id INTEGER NOT NULL REFERENCES processes,
    thread_id INTEGER REFERENCES threads,
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
CREATE TABLE volume_folded (
    hour INTEGER NOT NULL,
    logger TEXT NOT NULL,
    levelno INTEGER NOT NULL,
    records INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, logger, levelno)
) WITHOUT ROWID;
CREATE TABLE marks (
    folded_id INTEGER NOT NULL,
    sweeps INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    archived_id INTEGER NOT NULL,
    unarchived INTEGER NOT NULL,
    expired INTEGER NOT NULL
);
INSERT INTO marks VALUES (0, 0, lower(hex(randomblob(8))), 0, 0, 0);
CREATE TABLE drop_totals (
    cause TEXT NOT NULL,
    levelno INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (cause, levelno)
) WITHOUT ROWID;
CREATE TABLE record_totals (
    levelno INTEGER PRIMARY KEY,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE prunes (
    id INTEGER PRIMARY KEY,
    first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,
    since_us INTEGER NOT NULL, until_us INTEGER NOT NULL,
    cause TEXT NOT NULL,
    count INTEGER NOT NULL,
    unsent INTEGER NOT NULL DEFAULT 0,
    archived INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE archives (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,
    since_us INTEGER NOT NULL, until_us INTEGER NOT NULL,
    max_levelno INTEGER NOT NULL,
    drops INTEGER NOT NULL, dropped INTEGER NOT NULL,
    bytes INTEGER NOT NULL, crc32 INTEGER NOT NULL
);
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    after_id INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE VIEW logs AS SELECT
    {_VIEW_COLUMNS}
FROM {LOG_TABLES};
CREATE VIEW volume AS
SELECT hour, logger, levelno, sum(records) AS records, sum(bytes) AS bytes, sum(dropped) AS dropped
FROM ({VOLUME_LINES})
GROUP BY hour, logger, levelno;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {USER_VERSION};
"""  # noqa: S608 - our own numbers
