"""
A year of logs in a folder, asked with `sqlite-log` and DuckDB, and copied with rclone.
"""

from __future__ import annotations

import re
import shlex

import pytest

from sqlite_log_handler import LogReader

pytestmark = pytest.mark.needs("duckdb", "pyarrow")


def test_page(project):
    """The page can be followed word for word: DuckDB and `sqlite-log` count the same records."""
    project.follow()

    *_, context, patterns, top, days = project.printed
    assert 3 == len(context.splitlines())
    assert "order %d paid" in patterns
    assert 8 == len(top.splitlines())
    assert re.search(r"INFO .*1000.*49950\.0", days)
    assert re.search(r"ERROR .* 1 ", days)


@pytest.mark.needs("rclone")
def test_a_copy_elsewhere(project):
    """What the page says of rclone works: the copy has the parts and nothing else, and is a log."""
    text = project.page.read_text(encoding="utf-8")
    there, back = re.findall(r"`(rclone copy [^`]+)`", text)
    project.write("shop.py")
    project.run("python shop.py")
    project.run("sqlite-log prune app-log.db --max-rows 1 --archive archive")
    (project.folder / "archive" / "app-log.2026-11-28.parquet.partial").write_bytes(b"half")

    remote = shlex.quote(f":local:{project.folder}/bucket")
    project.run(there.replace("s3:my-bucket/app-log", remote))
    project.run(back.replace("s3:my-bucket/app-log", remote).replace("2026-03-", ""))

    assert ["parquet"] == [file.name.rpartition(".")[2] for file in (project.folder / "bucket").iterdir()]
    with LogReader(project.folder / "old") as log:
        assert 1_001 == log.count()
