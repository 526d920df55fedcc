"""
`sqlite-log prune` on files from elsewhere: it runs nothing that stands in one, and no row fills the memory.
"""

from __future__ import annotations

import contextlib
import sqlite3

import hostile
import pytest

from sqlite_log_handler import LimitError, LogFileError
from sqlite_log_handler._cli.commands import prune as command
from sqlite_log_handler._logfile.forks import Connection

MORE = """
INSERT INTO records (created_us, levelno, source_id, process_id, message)
    VALUES (1, 20, 1, 1, 'm'), (1, 20, 1, 1, 'm'), (1, 20, 1, 1, 'm');
"""
# Each deletion and what is noted of it.
EVENTS = ("DELETE ON records", "INSERT ON prunes", "UPDATE ON marks", "INSERT ON volume_folded")


def prune(path, *arguments):
    """Run the command with a limit that deletes all rows but the newest."""
    return command.run(command.run.parser().parse_args([str(path), "--max-rows", "1", *arguments]))


def count(path, table="records"):
    """Count the rows of a table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("endless", [hostile.ENDLESS, hostile.ONE_STEP], ids=["without end", "in one step"])
def test_a_trigger_is_not_run(path, event, endless):
    """
    A file whose triggers would run is refused, and nothing is deleted.

    The author of the file chose what `prune` did: it ran for hours, and Ctrl-C did not end it.
    """
    hostile.make(path, f"{MORE} CREATE TRIGGER t BEFORE {event} BEGIN SELECT count(*) FROM ({endless}); END;")

    with pytest.raises(LogFileError, match="a trigger that somebody has added to it would run: drop it, or allow"):
        prune(path)
    assert 4 == count(path)


def test_an_owner_s_triggers(path, capsys):
    """An owner who has made triggers on purpose says so; those that are not to run are nobody's concern."""
    watch = "BEGIN INSERT INTO notes VALUES (1); END;"
    hostile.make(path, f"CREATE TABLE notes (n); CREATE TRIGGER t AFTER INSERT ON records {watch} {MORE}")
    assert (0, 3) == (prune(path), count(path, "notes"))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(f"CREATE TRIGGER u AFTER DELETE ON records {watch} {MORE}")

    assert (0, 9) == (prune(path, "--run-triggers"), count(path, "notes"))
    assert "deleted 3 rows" in capsys.readouterr().out


def test_a_row_that_fills_the_memory(path, monkeypatch):
    """
    A row that is longer than any limit of a handler is an error, before SQLite has all of it in memory.

    SQLite counts the bytes of the rows that it deletes, and took as much memory as the longest of them.
    """
    hostile.make(path, f"UPDATE records SET message = CAST(zeroblob(3000000) AS TEXT); {MORE}")
    monkeypatch.setattr(command, "_LONGEST", 2_000_000)

    assert 0 == prune(path, "--dry-run")  # which looks at no text
    with pytest.raises(LimitError, match="a row has more than 1 MiB, so no handler wrote it: delete it"):
        prune(path)
    assert 4 == count(path)


@pytest.mark.parametrize("name", ["connect_read_write", "connect_read_only"])
def test_a_cache_that_a_file_asks_for(path, tmp_path, monkeypatch, name):
    """
    The number of pages that SQLite keeps in memory is ours, and not the one in the file's header.

    With a million there, `prune` took as much memory as the file was large.
    """
    hostile.make(path, f"{MORE} PRAGMA default_cache_size = 1000000;")
    connect, sizes = getattr(command, name), []

    class Watched(Connection):
        def close(self):
            sizes.append(self.execute("PRAGMA cache_size").fetchone()[0])
            super().close()

    def watched(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr("sqlite_log_handler._logfile.forks.Connection", Watched)
            return connect(*arguments, **options)

    monkeypatch.setattr(command, name, watched)
    (tmp_path / "archive").mkdir()
    assert 0 == prune(path, "--archive", str(tmp_path / "archive"))
    assert [-2000] == sizes
