"""
`check`: what it says of sound files and of damaged ones.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sqlite3


def test_check_says_ok(run):
    """`check` has a line for everything that it has looked at."""
    status, lines = run("check")

    assert 0 == status
    assert ["ok"] * 6 == [line.split()[0] for line in lines]


def test_check_finds_books_that_do_not_agree(run, shop, path):
    """When somebody has deleted from the ledger, `check` says which sums differ, and its exit status is 1."""
    path.write_bytes(shop.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM drops")

    status, lines = run("check", str(path))
    assert 1 == status
    assert ["ok", "ok", "WRONG", "WRONG", "ok", "ok"] == [line.split()[0] for line in lines]


def test_check_finds_that_the_newest_rows_were_deleted(run, path, make_handler, logger):
    """When a person deletes the newest rows, and the next ids are above those of a cursor, `check` says the last."""
    logger.addHandler(make_handler())
    for where in ("id > 2", "true"):
        for number in range(4):
            logger.info("%d", number)
        assert logger.handlers[0].flush()
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO cursors SELECT 'a', max(id), 0 FROM records")
            connection.execute(f"DELETE FROM records WHERE {where}")
    logger.info("last")
    assert logger.handlers[0].flush()

    status, lines = run("check", str(path))
    assert 1 == status
    assert lines[-1].startswith("WRONG  seen, 1 record: ")
    assert lines[-1].endswith("; 1 in all, and the last id is 9")


def test_check_leaves_out_the_drops_of_another_handler(run, make_handler, path):
    """
    A log that has the drop warning of another handler's file is sound.

    `check` counted the warning as one of its own, and called each log beside one that dropped records WRONG.
    """
    small, large = make_handler(capacity=10), make_handler(path.with_name("other.db"))
    root = logging.getLogger()
    for handler in small, large:
        root.addHandler(handler)
    try:
        for number in range(200):
            root.warning("%d", number)
    finally:
        for handler in small, large:
            handler.close()
            root.removeHandler(handler)

    assert small.dropped_total > large.dropped_total == 0
    for handler in small, large:
        status, lines = run("check", handler.filename)
        assert (0, ["ok"] * 6) == (status, [line.split()[0] for line in lines])
    with contextlib.closing(sqlite3.connect(large.filename)) as connection:
        query = "SELECT DISTINCT attributes ->> 'dropped_total' FROM logs WHERE logger = 'sqlite_log_handler'"
        assert [(small.dropped_total,)] == connection.execute(query).fetchall()[-1:]


def fill_and_damage(make_handler, logger, path, *, rows, pages):
    """Log `rows` rows, and write over `pages` pages of the file."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(rows):
        logger.info("%d %s", number, "x" * 50)
    handler.close()
    with open(path, "r+b") as file:
        file.seek(4096 * 30)
        file.write(b"\xff" * 4096 * pages)


def test_check_finds_damage(run, make_handler, logger, path):
    """When the file is damaged, `check` says where, as far as SQLite can tell."""
    fill_and_damage(make_handler, logger, path, rows=3_000, pages=5)

    status, lines = run("check", str(path))
    assert 1 == status
    assert "WRONG" == lines[1].split()[0]


def test_check_prints_a_finding_on_each_line(run, make_handler, logger, path):
    """
    SQLite puts up to a hundred findings into one text: the first ten are lines, and the others are counted.

    They were once one line of 4,931 characters.
    """
    fill_and_damage(make_handler, logger, path, rows=10_000, pages=130)

    status, lines = run("check", str(path))
    assert 1 == status
    assert "ok     a log of sqlite-log-handler, schema 1 of 1" == lines[0]
    assert [True] * 10 == [bool(re.fullmatch(r"WRONG  (?!\*).*[Pp]age \d+.*", line)) for line in lines[1:11]]
    assert re.fullmatch(r"WRONG  and \d+ more", lines[11])
    assert max(map(len, lines)) < 100
    assert 13 == len(lines)


def test_check_of_a_file_that_cannot_be_opened(run, shop, tmp_path):
    """A file that is too damaged to be read is what `check` is there for: one line says so, and the status is 1."""
    (tmp_path / "cut.db").write_bytes(shop.read_bytes()[:8_192])

    status, lines = run("check", str(tmp_path / "cut.db"))
    assert 1 == status
    assert "WRONG  database disk image is malformed" == lines[-2]
    assert "-" == lines[-1].split()[0]


def test_check_says_the_same_in_json(run, shop, path):
    """For a program, `check` is one object: whether all is well, and each verdict with its text."""
    status, lines = run("check", "-o", "json")
    found = json.loads("\n".join(lines))
    assert (0, True) == (status, found["ok"])
    assert [line.split(maxsplit=1) for line in run("check")[1]] == [[*one.values()] for one in found["verdicts"]]

    path.write_bytes(shop.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM drops")
    status, lines = run("check", "-o", "json", str(path))
    assert (1, False) == (status, json.loads("\n".join(lines))["ok"])
