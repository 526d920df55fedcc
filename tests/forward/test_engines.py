"""
A log as other engines read it where it lies, and as Litestream keeps a copy of it: the commands of docs/forward.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[test-forward]'")

from pages import DOCS, blocks_of, commands_of
from receivers import ENVIRONMENT, WATCHDOG, eventually, rows_in

PAGE = DOCS / "forward.md"


def commands(beginning):
    """Give the commands of the page that begin so."""
    blocks = [block for block in blocks_of(PAGE) if block.language == "sh"]
    found = [command for block in blocks for command in commands_of(block) if command.startswith(beginning)]
    assert found, f"{PAGE.name} has no command that begins with {beginning}"
    return found


def shell(command, folder, code=0):
    """Run a command of the page in a folder, with the programs of this environment, and give its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**ENVIRONMENT, "PATH": path},
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert code == done.returncode, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def contents(path):
    """Read all rows of a log, which has to be sound."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return connection.execute("SELECT * FROM logs ORDER BY id").fetchall()


def test_clickhouse_reads_the_file_where_it_lies(filled, write, path, tmp_path):
    """ClickHouse in a process of its own reads view and tables of a log, also while it is being written."""
    if importlib.util.find_spec("chdb") is None:
        pytest.skip("needs chdb: pip install 'sqlite-log-handler[test-forward]'")
    filled(1_000)
    writer = write(path, "shop.carts", 40, 10, 0.05)
    eventually(lambda: rows_in(path) > 1_000, "the program writes")

    with contextlib.closing(sqlite3.connect(path)) as reader:
        # Whoever closes a log last keeps everybody out meanwhile. The program is not the last one.
        reader.execute("SELECT max(id) FROM records").fetchone()
        outputs = [shell(command, tmp_path) for command in commands("python -m chdb ")]
        assert 0 == writer.wait(WATCHDOG)

    assert re.search(r'"shop.orders","INFO",1000\b', outputs[0])
    assert all(outputs)
    assert 1_400 == len(contents(path))


def test_duckdb_reads_what_is_exported(filled, tmp_path, path):
    """What `export --format parquet` writes, DuckDB reads: each row, with its types."""
    if importlib.util.find_spec("duckdb") is None:
        pytest.skip("needs duckdb: pip install 'sqlite-log-handler[test-forward]'")
    known = subprocess.run(
        [sys.executable, "-m", "sqlite_log_handler", "export", "--help"], capture_output=True, text=True, check=False
    )
    if "parquet" not in known.stdout:
        pytest.skip("this version cannot export to Parquet")
    filled(1_000)
    shell(f"{sys.executable} -m sqlite_log_handler export {path} --format parquet --output app-log.parquet", tmp_path)

    query = "SELECT count(*), count(DISTINCT id), min(logger), max(levelno), min(message) FROM 'app-log.parquet'"
    found = shell(
        f"{sys.executable} -c 'import duckdb, sys; print(duckdb.sql(sys.argv[1]).fetchall())' \"{query}\"", tmp_path
    )

    assert "[(1000, 1000, 'shop.orders', 20, 'order 0 of burst 0 paid by customer c-0')]\n" == found


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz"])
def test_duckdb_reads_an_archive(filled, tmp_path, path, kind):
    """DuckDB reads the parts of an archive, all at once, as the page on retention says."""
    if importlib.util.find_spec("duckdb") is None:
        pytest.skip("needs duckdb: pip install 'sqlite-log-handler[test-forward]'")
    filled(1_000)
    (tmp_path / "archive").mkdir()
    hide = "import sys; sys.modules['pyarrow'] = None; " if kind == "jsonl.gz" else ""
    prune = f"{hide}from sqlite_log_handler.__main__ import main; main(['prune', '{path}', *sys.argv[1:]])"
    shell(f'{sys.executable} -c "import sys; {prune}" --max-rows 10 --archive archive', tmp_path)

    files = f"'archive/*.{kind}'"
    source = files if kind == "parquet" else f"read_json({files}, format = 'newline_delimited') WHERE id IS NOT NULL"
    query = f"SELECT count(*), count(DISTINCT id), min(logger), max(levelno) FROM {source}"
    found = shell(
        f"{sys.executable} -c 'import duckdb, sys; print(duckdb.sql(sys.argv[1]).fetchall())' \"{query}\"", tmp_path
    )

    assert "[(990, 990, 'shop.orders', 20)]\n" == found


def test_litestream_keeps_a_copy(litestream, start, write, path, tmp_path):
    """
    A log that Litestream replicates while three processes write it is restored with every row, and both are sound.
    """
    replicate, restore = (commands(f"litestream {verb} ")[0] for verb in ("replicate", "restore"))
    assert 0 == write(path, "first", 1, 100, 0).wait(WATCHDOG)
    replicator = start("sh", "-c", f"exec {replicate}".replace("litestream", litestream, 1))
    writers = [write(path, f"writer-{number}", 30, 100, 0.05) for number in range(3)]

    assert [0, 0, 0] == [writer.wait(WATCHDOG) for writer in writers]
    eventually(lambda: os.path.exists(path.parent / "backup"), "it replicates")
    replicator.send_signal(signal.SIGTERM)  # it sends the rest before it ends
    assert 0 == replicator.wait(WATCHDOG)
    shell(restore, tmp_path)

    rows = contents(path)
    assert 9_100 == len(rows)
    assert rows == contents(tmp_path / "restored.db")


def test_litestream_that_was_killed_holds_nothing_up(litestream, start, write, path):
    """A Litestream that was killed pins no WAL: the next commits write it back, and the file is sound."""
    replicate = commands("litestream replicate ")[0]
    assert 0 == write(path, "first", 1, 100, 0).wait(WATCHDOG)
    replicator = start("sh", "-c", f"exec {replicate}".replace("litestream", litestream, 1))
    eventually(lambda: os.path.exists(path.parent / "backup"), "it replicates")
    replicator.kill()
    replicator.wait()

    assert 0 == write(path, "second", 20, 2_000, 0).wait(WATCHDOG)

    # The last one to close a log writes its WAL back, and deletes it.
    assert not os.path.exists(f"{path}-wal")
    assert 40_100 == len(contents(path))
