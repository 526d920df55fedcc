"""
`check` of a log and its archive: every record that was seen is somewhere, and each part is as it was noted.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import sqlite3
import sys

import pytest
from archives import KINDS, parts_in

from sqlite_log_handler._cli.commands import check, prune


@pytest.fixture(params=KINDS)
def folder(request, make_handler, logger, path, monkeypatch, capsys):
    """The archive of a log of 90 rows: 60 have gone into parts, and 10 were deleted without an archive."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    else:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(90):
        record = logger.makeRecord("shop", 20, "", 0, "n %d", (number,), None)
        record.created = 1_700_000_000 + number * 4_000
        handler.handle(record)
    handler.close()
    folder = path.parent / "archive"
    folder.mkdir()
    for arguments in (["--max-rows", "80"], ["--max-rows", "20", "--archive", str(folder)]):
        options = prune.run.parser().parse_args([str(path), *arguments])
        prune.run(options, sleep=lambda seconds: None)
    monkeypatch.undo()
    capsys.readouterr()
    return folder


def test_all_is_there(run, path, folder):
    """Each record is in the archive, in the file, or counted, and each part is as it was noted."""
    status, lines = run("check", str(path), "--archive", str(folder))

    assert 0 == status
    assert (
        "ok     seen, 90 records: 60 in the archive, 20 in the file alone, 10 deleted without an archive, "
        "0 deleted from the archive, 0 dropped; 90 in all"
    ) in lines
    assert f"ok     the archive: {len(parts_in(folder))} of {len(parts_in(folder))} parts as noted, 60 rows" in lines


def test_a_folder_that_is_not_there(run, path):
    """A mistyped folder is refused, as `prune` does: a log without a part was found to have each of them."""
    folder = path.parent / "archiev"
    stderr = f"sqlite-log check: --archive={str(folder)!r}: there is no folder {str(folder)!r}: create it first\n"

    assert (2, []) == run("check", "--archive", str(folder), stderr=stderr)


def test_rows_that_nobody_knows_of(run, path, folder):
    """When somebody has deleted a row, a note or a mark by hand, the sum is wrong."""
    for statement in (
        "DELETE FROM records WHERE id = 85",
        "DELETE FROM archives WHERE id = 2",
        "UPDATE marks SET unarchived = 0",
    ):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute(statement)
            connection.execute("COMMIT")
        status, lines = run("check", str(path))
        assert 1 == status
        assert any(line.startswith("WRONG  seen, ") for line in lines)


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_a_part_that_was_changed(run, path, folder, damage):
    """A part that is missing, damaged, or that of other rows is named."""
    first, second = parts_in(folder)[:2]
    if damage == "missing":
        (folder / first).unlink()
    elif damage == "cut":
        (folder / first).write_bytes((folder / first).read_bytes()[:-1])
    else:
        (folder / first).write_bytes((folder / second).read_bytes())

    status, lines = run("check", str(path), "--archive", str(folder))
    assert 1 == status
    assert f"WRONG  {first}, rows 11 to " in lines[-2]
    assert ("it is missing" if damage == "missing" else "it was changed") in lines[-2]
    assert lines[-1].startswith("-      the archive: ")


@pytest.mark.parametrize("alone", [False, True])
def test_a_part_that_a_limit_removes_meanwhile(run, path, folder, monkeypatch, alone):
    """
    A part whose note is gone as well is not missing.

    `check` looked at the notes, or at the folder, and then read for minutes. A program that archived meanwhile, with a
    limit for its archive, made it say WRONG of a sound archive.
    """
    *_, last = parts = parts_in(folder)
    opened = check.Part.open

    def opened_late(place):
        if (folder / last).exists():
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("DELETE FROM archives WHERE name = ?", [last])
            (folder / last).unlink()
        return opened(place)

    monkeypatch.setattr(check.Part, "open", opened_late)
    status, lines = run("check", *([str(folder)] if alone else [str(path), "--archive", str(folder)]))
    assert 0 == status
    assert f" {len(parts) - 1} of {len(parts) - 1} parts " in lines[-2 if alone else -1]


def test_many_parts_that_are_missing(run, path, folder, monkeypatch):
    """Ten faults are named, and the others counted."""
    monkeypatch.setattr("sqlite_log_handler._cli.commands.check._MOST", 1)
    for name in parts_in(folder):
        (folder / name).unlink()
    status, lines = run("check", str(path), "--archive", str(folder))

    assert 1 == status
    assert ["WRONG", "WRONG", "-"] == [line.split()[0] for line in lines[-3:]]
    assert "more" in lines[-2]


@pytest.mark.parametrize("name", ["{folder}/{name}", "../{name}", "archive/../../{name}", "lock"])
def test_a_part_that_is_named_outside_of_the_folder(run, path, folder, monkeypatch, name):
    """
    The log may be a stranger's: a note names no file outside of the archive.

    Of `/dev/zero`, `check` never found the end.
    """
    outside = path.parent / "secret.2026-11-28.jsonl.gz"
    outside.touch()
    monkeypatch.setattr(check, "require_part", pytest.fail)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM archives WHERE id > 1")
        connection.execute("UPDATE archives SET name = ?", [name.format(folder=path.parent, name=outside.name)])

    status, lines = run("check", str(path), "--archive", str(folder))
    assert 1 == status
    assert lines[-2].endswith(": no part of an archive has this name")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_in_the_place_of_a_part(run, path, folder):
    """`check` does not wait for somebody to write into a pipe that is named like a part."""
    name = parts_in(folder)[0]
    (folder / name).unlink()
    os.mkfifo(folder / name)

    for arguments in ([str(path), "--archive", str(folder)], [str(folder)]):
        status, lines = run("check", *arguments)
        assert 1 == status
        assert any("is a device, a pipe or a socket" in line for line in lines)


def test_a_part_that_grows_before_it_is_compared(run, path, folder):
    """Of a file that is longer than noted, `check` reads no more than shows that."""
    first = folder / parts_in(folder)[0]
    with open(first, "r+b") as file:
        file.truncate(1 << 40)

    status, lines = run("check", str(path), "--archive", str(folder))
    assert 1 == status
    assert "it was changed since" in lines[-2]


def test_a_folder_with_the_log_in_it(run, path, folder):
    """A folder that holds an archive and its log is both."""
    shutil.copy(path, folder)
    status, lines = run("check", str(folder))

    assert 0 == status
    assert 60 == int(lines[-1].split(", ")[1].split()[0])
    assert any("seen, 90 records" in line for line in lines)


def test_an_archive_alone(run, folder):
    """Without the log, each part is read to its end, and what cannot be known is said."""
    status, lines = run("check", str(folder))
    assert 0 == status
    assert ["ok", "-"] == [line.split()[0] for line in lines]

    name = parts_in(folder)[0]
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    status, lines = run("check", "-o", "json", str(folder))
    found = json.loads("\n".join(lines))
    assert (1, False) == (status, found["ok"])
    assert f"{name}': it was cut" in found["verdicts"][0]["text"]


@pytest.mark.parametrize("value", [None, "\ud800", 2**70])
def test_a_row_that_no_log_has(run, folder, value):
    """
    A part with a row that the reader refuses is not sound.

    `check` counted the lines of a part, and called it ok whatever stood in them.
    """
    part = folder / parts_in(folder)[0]
    if part.suffix == ".parquet":
        pytest.skip("its columns have types")
    *lines, last = gzip.decompress(part.read_bytes()).splitlines()
    name = "lineno" if isinstance(value, int) else "message"
    changed = json.dumps({**json.loads(last), name: value}).encode()
    part.write_bytes(gzip.compress(b"".join(line + b"\n" for line in [*lines, changed])))

    status, found = run("check", str(folder))
    assert 1 == status
    assert f"line {len(lines) + 1}: not a row ({name})" in found[0]


def test_two_logs_in_a_folder(run, path, folder):
    """Of several logs in a folder, one is to be named."""
    shutil.copy(path, folder)
    shutil.copy(path, folder / "app-log")

    status, _ = run("check", str(folder), stderr=re.compile("has several logs: name one of them"))
    assert 2 == status
