"""
Files from elsewhere that are forwarded: nothing that stands in one is run, and no row fills the memory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

import hostile
import pytest
from slowly import slowly

from sqlite_log_handler._forward import spool as spool_module
from sqlite_log_handler._forward.spool import Spool
from sqlite_log_handler._logfile.errors import CorruptFileError, LimitError, LogFileError, UnreadableFileError
from sqlite_log_handler._logfile.write_lock import WriteLock

TEXTS = ("message", "exc_text", "stack_info", "attributes")
ROW = "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (1, 20, 1, 1, 'm');"


@pytest.fixture
def spool(path):
    """The log at the path, with a cursor; the file is opened when it is read first."""
    with contextlib.closing(Spool(str(path), "x", say=print)) as spool:
        yield spool


@pytest.mark.parametrize("table", ["records", "cursors", "sources"])
@pytest.mark.parametrize("endless", [hostile.ENDLESS, hostile.ONE_STEP], ids=["without end", "in one step"])
def test_a_view_in_the_place_of_a_table(path, table, endless, spool):
    """A view in the place of a table is refused. `forward` asked it for rows, and no signal but SIGKILL ended it."""
    hostile.make(path, f"ALTER TABLE {table} RENAME TO other; CREATE VIEW {table} AS {endless};")

    with pytest.raises(CorruptFileError, match=f"its '{table}' is not that of a log"):
        spool.read(10, 1_000_000)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("ALTER TABLE records RENAME TO old; CREATE VIEW records AS SELECT * FROM old", "not that of a log"),
        ("ALTER TABLE records ADD COLUMN more", "not that of a log"),
        ("DROP TABLE processes", "not that of a log"),
        (";".join(f"CREATE VIEW v{n} AS SELECT {n}" for n in range(300)), "somebody has added more or longer tables"),
        ("CREATE INDEX odd ON records (json_extract(attributes, '$.a'))", "'odd'.*: drop it"),  # see connect._REFUSED
    ],
    ids=["view", "column", "table", "many", "index"],
)
def test_a_log_that_becomes_something_else(path, script, message, spool):
    """
    Somebody changes the tables while they are forwarded: that is refused, as it is when the file is opened.

    The tables were compared when the file was opened, and never again.
    """
    hostile.make(path)
    assert 1 == len(spool.read(10, 1 << 20).rows)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    assert spool.has_news()
    with pytest.raises(LogFileError, match=message):
        spool.read(10, 1 << 20)


def test_an_owner_s_table_beside_a_log_that_is_forwarded(path, spool):
    """A change that leaves the tables of the log alone does no harm."""
    hostile.make(path)
    spool.read(10, 1 << 20)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"CREATE TABLE notes (text); {ROW}")
    assert [2] == [row[0] for row in spool.read(10, 1 << 20).rows]


@pytest.mark.parametrize(
    "change",
    [
        "message = CAST(zeroblob(600000) AS TEXT)",
        ", ".join(f"{name} = CAST(zeroblob(150000) AS TEXT)" for name in TEXTS),
        "message = CAST(zeroblob(300000) AS TEXT), source_id = 2",
        "message = CAST(zeroblob(300000) AS TEXT), process_id = 2",
        "message = CAST(zeroblob(300000) AS TEXT), levelno = 2",
    ],
    ids=["one text", "together", "with its call site", "with its process", "with its level"],
)
def test_a_row_that_no_handler_writes(path, change, spool):
    """A row of more than 576 KiB is an error that says where it is, and the rows before it are sent first."""
    names = "INSERT INTO sources VALUES (2, '', '', 0, CAST(zeroblob(300000) AS TEXT), '');"
    names += "INSERT INTO processes VALUES (2, '', 0, '', 0, CAST(zeroblob(300000) AS TEXT));"
    names += "INSERT INTO levels VALUES (2, CAST(zeroblob(300000) AS TEXT));"
    hostile.make(path, f"{ROW * 2} {names} UPDATE records SET {change} WHERE id = 3;")

    assert [[1], [2]] == [[row[0] for row in spool.read(10, 1 << 30).rows] for _ in range(2)]
    with pytest.raises(LimitError, match="the row after id 2 has more than 576 KiB"):
        spool.read(10, 1 << 30)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_in_the_place_of_a_journal(path, make_handler, spool):
    """
    A pipe where SQLite looks for a journal is an error, and the lock of the log is free behind it.

    SQLite waited for it with the lock held: the program beside `forward` wrote nothing more, and only SIGKILL helped.
    """
    make_handler().close()
    os.mkfifo(f"{path}-journal")

    with pytest.raises(UnreadableFileError, match="-journal' is not a file"):
        spool.read(10, 1_000_000)
    with contextlib.closing(WriteLock(str(path), say=print)) as lock, lock.hold(0):
        pass


@pytest.mark.parametrize("steps", [100_000, *slowly(spool_module._MOST_STEPS)])
def test_a_table_without_end(path, monkeypatch, steps, spool):
    """
    A file whose table leads in a circle is an error; `forward` read it for hours, and SIGTERM did not end it.

    The rows of the cursor came in one call, so Python handled no signal.
    """
    monkeypatch.setattr(spool_module, "_MOST_STEPS", steps)
    hostile.without_end(path, table="drops")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sources SET logger = 'sqlite_log_handler'")

    with pytest.raises(LimitError, match="too long to read"):
        spool.read(10, 1 << 30)


@pytest.mark.parametrize(("views", "fits"), [(40, True), (300, False)])
def test_a_schema_that_is_to_fill_the_memory(path, views, fits, spool):
    """A schema that no reader takes is refused here too: 3,000 views of 4 kB took 571 MB."""
    hostile.make(path, "".join(f"CREATE VIEW v{number} AS SELECT '{'x' * 900}';" for number in range(views)))
    refused = pytest.raises(LimitError, match="SQLite keeps all of them in memory")

    with contextlib.nullcontext() if fits else refused:
        assert spool.read(10, 1 << 30).rows


def test_levels_without_end(path, spool):
    """Of levels that lead in a circle, those of the rows are read; all of them were, for each batch."""
    hostile.without_end(path, table="levels")

    batch = spool.read(10, 1 << 30)

    assert {row[2] for row in batch.rows} == {*batch.levels}


@pytest.mark.parametrize(
    "names",
    [
        "UPDATE sources SET pathname = hex(zeroblob(2000));",
        "UPDATE sources SET id = id, func = hex(zeroblob(2000)); UPDATE levels SET name = hex(zeroblob(100));",
        "UPDATE records SET thread_name = hex(zeroblob(2000));",
        """
        INSERT INTO processes (id, pid, name, host, started_us, program)
        SELECT id + 1, id, hex(zeroblob(2000)), '', 0, '' FROM records;
        UPDATE records SET process_id = id + 1;
        """,
    ],
    ids=["call site", "function and level", "thread", "process"],
)
def test_a_batch_of_long_names(path, names, spool):
    """
    Names count for each row that takes a copy of them along.

    A batch had 8,000 rows of a call site or a process each, with names of 4 kB as a handler writes them: 540 MB.
    """
    hostile.make(path, ROW * 99 + names)

    assert 14 <= len(spool.read(1_000, 64 * 1024).rows) <= 16


def test_causes_that_are_to_fill_the_memory(path, spool):
    """Of the causes for which rows were pruned, ten are told, cut to 100 letters; 100,000 of 400 took 277 MB."""
    hostile.make(
        path,
        "UPDATE records SET id = 9; INSERT INTO cursors VALUES ('x', 1, 1);"
        + "".join(
            "INSERT INTO prunes (first_id, last_id, since_us, until_us, cause, count) "
            f"VALUES (2, 8, 1, 1, {number} || hex(zeroblob(300)), 7);"
            for number in range(15)
        ),
    )

    causes = spool.read(10, 1 << 30).causes

    assert [100] * 10 == [*map(len, causes)]


@pytest.mark.parametrize(("max_bytes", "batches"), [(10_000, [[1], [2], [3]]), (48_000, [[1, 2], [3]])])
def test_gaps_count_for_the_batch(path, max_bytes, batches, spool):
    """A batch ends before a gap for which it has no room; as many gaps as retention keeps took 112 MB at a time."""
    hostile.make(
        path,
        "UPDATE sources SET logger = 'sqlite_log_handler'; DELETE FROM drops;"
        + ROW * 2
        + "".join(f"INSERT INTO drops VALUES (NULL, {n % 3}, 1, 2, 1, 'queue_full', {n}, 20, 1);" for n in range(180)),
    )

    found = [spool.read(10, max_bytes) for _ in range(len(batches) + 1)]

    assert [*batches, []] == [[row[0] for row in batch.rows] for batch in found]
    assert [[60] * len(ids) for ids in batches] == [[*map(len, batch.drops.values())] for batch in found[:-1]]
    assert [True] * (len(batches) - 1) + [False] == [batch.more for batch in found[:-1]]


def test_a_long_gap_comes_with_its_warning_alone(path, spool):
    """A gap that is longer than a batch may be comes with one row, so that not both fill the memory."""
    hostile.make(
        path,
        "UPDATE sources SET logger = 'sqlite_log_handler'; UPDATE drops SET after_id = 0;"
        + ROW * 2
        + "INSERT INTO drops SELECT NULL, after_id, since_us, until_us, cause, logger, levelno, 1, 1 FROM drops;" * 6,
    )

    assert [[1], [2, 3]] == [[row[0] for row in spool.read(10, 10_000).rows] for _ in range(2)]


def test_gaps_that_are_to_fill_the_memory(path, monkeypatch, spool):
    """More gaps at one place than any handler keeps are an error; half a million lines took 209 MB."""
    monkeypatch.setattr(spool_module, "_MOST_DROP_BYTES", 10_000)
    hostile.make(
        path,
        "UPDATE sources SET logger = 'sqlite_log_handler'; UPDATE drops SET after_id = 0;"
        + "INSERT INTO drops SELECT NULL, after_id, since_us, until_us, cause, logger, levelno, 1, 1 FROM drops;" * 6,
    )

    with pytest.raises(LimitError, match="a gap takes more than"):
        spool.read(10, 1 << 30)


def test_many_gaps_of_which_none_is_long(path, monkeypatch, spool):
    """Gaps that are too long for a batch together make it shorter, whatever its size may be."""
    monkeypatch.setattr(spool_module, "_MOST_DROP_BYTES", 5_000)
    gaps = [f"INSERT INTO drops VALUES (NULL, {id_}, 1, 2, 1, 'queue_full', 'a', 20, 1);" * 4 for id_ in range(1, 6)]
    begin = "UPDATE sources SET logger = 'sqlite_log_handler'; DELETE FROM drops;"
    hostile.make(path, "".join([begin, ROW * 5, *gaps]))

    found = []
    while (batch := spool.read(10, 1 << 30)).rows:
        found += [row[0] for row in batch.rows]
        if not batch.more:
            break
    assert [*range(1, 7)] == found


@pytest.mark.parametrize("value", ["'loud'", *slowly("x'00ff'", "1.5e300", "9223372036854775807"), f"{-1 << 63}"])
@pytest.mark.parametrize(
    "table", ["records", "sources", "processes", "threads", "levels", "drops", "prunes", "cursors"]
)
def test_any_value_in_any_column(path, table, value):
    """
    A value of another kind is sent as one of the kind that its column has; it ended `forward` in a traceback.

    The numbers of a row were read so, but not those of its process and of the ledger, nor the texts.
    """
    otlp = pytest.importorskip("sqlite_log_handler._forward.otlp", reason="needs the extra otlp")
    hostile.make(
        path,
        "INSERT INTO sources VALUES (2, 'sqlite_log_handler', '', 0, '', '');"
        "INSERT INTO threads VALUES (1, 5, 'Main');"
        "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (1, 20, 2, 1, 'm');"
        "UPDATE drops SET after_id = 1; UPDATE records SET thread_id = 1;",
    )
    content = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = [name for _, name, *_, key in connection.execute(f"PRAGMA table_info({table})") if not key]

    for column in columns:
        path.write_bytes(content)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
        with contextlib.closing(Spool(str(path), "to loki", say=print)) as spool:
            batch = spool.read(10, 1 << 30)
        assert bool(batch.rows) is bool(otlp.encode(batch, batch.rows, {}))


def test_the_first_id_there_is(path, spool):
    """A row with the lowest number that SQLite has for an id ends nothing; there was an OverflowError."""
    hostile.make(path, f"UPDATE records SET id = {-1 << 63};")

    assert [] == spool.read(10, 1 << 30).rows


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
@pytest.mark.parametrize("endless", [hostile.ENDLESS, hostile.ONE_STEP], ids=["without end", "in one step"])
def test_a_trigger_is_not_run(path, event, endless, spool):
    """A trigger on the cursors is refused. `forward` ran it when it moved the cursor, and no signal ended it."""
    hostile.make(path, f"CREATE TRIGGER t BEFORE {event} ON cursors BEGIN SELECT count(*) FROM ({endless}); END;")

    batch = spool.read(10, 1 << 30)
    with pytest.raises(LogFileError, match="a trigger that somebody has added to it would run: drop it"):
        for id_ in (batch.after_id, batch.rows[-1][0]):
            spool.save(id_)


@pytest.mark.parametrize("values", ["1," * 4_999 + "1", "[" * 2_500 + "]" * 2_500 + ',{"a":{}}' * 833])
def test_a_batch_of_many_values(path, values, spool):
    """
    Values in `extra` count as what they take when they are encoded, so that no batch has millions of them.

    A batch of lists within lists took 150 MB: only commas were counted.
    """
    hostile.make(path, f"{ROW * 99} UPDATE records SET attributes = '{{\"a\": [{values}]}}';")

    assert 4 == len(spool.read(1_000, 1 << 20).rows)


def test_texts_in_the_place_of_other_numbers(path, spool):
    """Numbers of a process and of a gap are numbers, whatever stands there; there were TypeErrors."""
    hostile.make(
        path,
        "UPDATE processes SET pid = 'x', started_us = 'x';"
        "UPDATE sources SET lineno = 'x', logger = 'sqlite_log_handler';"
        "UPDATE drops SET since_us = 'x', until_us = x'00', count = 'many';",
    )

    batch = spool.read(10, 1 << 30)

    assert [("host", 0, "MainProcess", 0, "app")] == [*batch.processes.values()]
    assert [("sqlite_log_handler", "/srv/app.py", 0, "work")] == [*batch.sources.values()]
    assert [(0, 0, "queue_full", "shop", "INFO", 0)] == batch.drops[0]


def test_a_cache_that_a_file_asks_for(path, spool):
    """
    The number of pages that SQLite keeps in memory is ours, and not the one in the file's header.

    With a million there, `forward` took as much memory as the file was large.
    """
    hostile.make(path, "PRAGMA default_cache_size = 1000000;")
    spool.read(10, 1 << 20)
    assert spool._connection.execute("PRAGMA cache_size").fetchone() == (-2000,)
