"""
The file that stores how far `show` has read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import sqlite3

import pytest
from command_line import BEGIN, in_terminal, log_of, record


def test_the_cursor_file_keeps_how_far_one_has_read(run, tmp_path, make_handler, logger, path):
    """What was shown once is not shown again, whatever the filters left out; a new log is shown from its start."""
    cursor = str(tmp_path / "cursor")
    handler = make_handler()
    logger.addHandler(handler)
    show = [str(path), "-o", "cat", "--cursor-file", cursor]

    logger.info("one")
    logger.error("two")
    handler.flush()
    assert (0, ["two"]) == run(*show, "-p", "ERROR")
    assert (1, []) == run(*show)
    logger.info("three")
    handler.flush()
    assert (0, ["three"]) == run(*show)
    assert re.fullmatch(r"sqlite-log-cursor 3 \d+\n", (tmp_path / "cursor").read_text())

    (tmp_path / "cursor").write_text("sqlite-log-cursor 99\n")
    note = f"sqlite-log: the log was replaced since {cursor!r} was written: none of it counts as shown\n"
    assert (0, ["one", "two", "three"]) == run(*show, stderr=note)


def test_a_cursor_of_another_log_is_told_from_one_of_this(run, tmp_path, path):
    """
    A log that was begun anew is read from its beginning, also when it has more rows by now than had been read.

    Its first rows were once taken for those that had been shown, and never were.
    """
    cursor = str(tmp_path / "cursor")
    show = [str(path), "-o", "cat", "--cursor-file", cursor]
    note = f"sqlite-log: the log was replaced since {cursor!r} was written: none of it counts as shown\n"

    for numbers, stderr in ((range(2), ""), (range(10, 15), note)):
        path.unlink(missing_ok=True)
        log_of(path, *(record(str(number), seconds=number) for number in numbers))
        assert (0, [str(number) for number in numbers]) == run(*show, stderr=stderr)
        assert (1, []) == run(*show)


@pytest.mark.parametrize("cursor", [None, "", "sqlite-log-cursor 5", "sqlite-log-cursor 5 1", "sqlite-log-cursor 99"])
@pytest.mark.parametrize("words", ["", "--pid 4711", "-S @0", "--after-id 3", "-n 4", "-n all"])
@pytest.mark.parametrize("has_cursor", [True, False])
def test_where_following_begins(run, tmp_path, path, monkeypatch, cursor, words, has_cursor):
    """
    `-f` begins with the newest ten records only where nothing else says where to begin.

    With a cursor file that was new, or of another log, it showed ten of them too, and the others never; and it said
    that it read the log from its beginning.
    """
    monkeypatch.setattr("sqlite_log_handler._cli.commands.show.pause", lambda _: True)
    log_of(path, *(record(str(number), seconds=number) for number in range(1, 31)))
    file = tmp_path / "cursor"
    if cursor is not None:
        file.write_text(cursor)
    flags = words.split()
    expected = 30
    if has_cursor:
        flags += ["--cursor-file", str(file)]
        expected = 25 if cursor == "sqlite-log-cursor 5" else 30
    elif flags in ([], ["--pid", "4711"]):
        expected = 10
    expected = {"-n 4": 4, "--after-id 3": min(expected, 27)}.get(words, expected)
    _, lines = run(str(path), "-f", "-o", "cat", *flags, stderr=re.compile(""))

    assert [str(number) for number in range(31 - expected, 31)] == lines
    assert not has_cursor or file.read_text().startswith("sqlite-log-cursor 30 ")


def test_what_an_earlier_run_has_shown_is_not_shown_for_an_id(run, tmp_path, path):
    """With --after-id too, a run shows what came since the last one: it began anew each time."""
    log_of(path, record("one"), record("two"), record("three"))
    show = [str(path), "-o", "cat", "--cursor-file", str(tmp_path / "cursor")]

    assert (0, ["two", "three"]) == run(*show, "--after-id", "1")
    assert (1, []) == run(*show, "--after-id", "1")
    log_of(path, record("four"), record("five"))
    assert (0, ["five"]) == run(*show, "--after-id", "4")


def test_a_cursor_stays_when_rows_are_pruned(run, tmp_path, make_handler, path):
    """Where the newest row is left, the log is not taken for one that was begun anew, and the cursor is kept."""
    show = [str(path), "-o", "cat", "--cursor-file", str(tmp_path / "cursor")]
    handler = make_handler()
    handler.handle(record("zero"))
    handler.handle(record("one"))
    assert handler.flush()
    assert (0, ["zero", "one"]) == run(*show)

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM records WHERE id < 2")
    assert (1, []) == run(*show)
    handler.handle(record("two"))
    handler.close()
    assert (0, ["two"]) == run(*show)


def test_an_empty_cursor_file_is_the_beginning(run, tmp_path):
    """A file that `mktemp` made is empty: nothing was read yet."""
    (tmp_path / "cursor").write_text("")

    assert (0, ["stock is low"]) == run("-o", "cat", "-n", "1", "--cursor-file", str(tmp_path / "cursor"))
    assert f"sqlite-log-cursor 15 {int(BEGIN.timestamp()) + 9}000000\n" == (tmp_path / "cursor").read_text()


@pytest.mark.skipif(os.name != "posix", reason="a socket that is a file")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{folder}/no/c", "'{folder}/no/c': there is no folder '{folder}/no': create it first"),
        ("", "--cursor-file has no name: name a file"),
        (".", "'.' is a folder: name a file in it"),
        ("{folder}/socket", "'{folder}/socket' is not a regular file: name one that does not exist yet"),
        ("{folder}/ro/c", "'{folder}/ro/c': you may not write to the folder '{folder}/ro': make it writable"),
    ],
)
def test_a_cursor_that_cannot_be_kept_is_said_before_anything_is_shown(run, tmp_path, monkeypatch, name, told):
    """
    Where no cursor can be kept, no record is shown: a job would take those for new ones, each time.

    All of the log was once printed first, and then "No such file or directory: '/nonexistent/c.new'". And what is no
    file, as /dev/null, would have been replaced by one. (The test has a socket for it, which nobody misses.)
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ro").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket")  # by its short name: the path may be longer than a socket's may be
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path / "ro") and access(path, mode))
    name, told = (text.replace("{folder}", str(tmp_path)) for text in (name, told))

    assert (2, []) == run("--cursor-file", name, stderr=f"sqlite-log show: {told}\n")
    assert {"ro", "socket"} == set(os.listdir(tmp_path))


def test_a_disk_without_room_for_the_cursor(run, tmp_path, path, monkeypatch):
    """When the disk is full, the cursor file is named, and nothing is left of a new one; the error named no file."""

    def full(*_):
        raise OSError(errno.ENOSPC, "Full")

    log_of(path, record("a"))
    cursor = str(tmp_path / "cursor")
    monkeypatch.setattr(os, "replace", full)
    told = f"sqlite-log show: {cursor!r}: Full: make room, and run it again\n"
    assert (2, ["a"]) == run(str(path), "-o", "cat", "--cursor-file", cursor, stderr=told)
    assert [] == [name for name in os.listdir(tmp_path) if "cursor" in name]


def test_nothing_new_is_told_as_such(shop, tmp_path):
    """On a terminal it is told behind which id nothing came, or nothing that matches."""
    cursor = tmp_path / "cursor"
    cursor.write_text("sqlite-log-cursor 15\n")
    assert "sqlite-log: nothing new since id 15\r\n" == in_terminal([str(shop), "--cursor-file", str(cursor)], status=1)

    cursor.write_text("sqlite-log-cursor 14\n")
    words = [str(shop), "-p", "ERROR", "--cursor-file", str(cursor)]
    assert "sqlite-log: nothing new since id 14 matches\r\n" == in_terminal(words, status=1)


@pytest.mark.parametrize("text", ["17\n", "17 1700000000\n", "root:x:0:0\n", "sqlite-log-cursor x", "\xff"])
@pytest.mark.parametrize("words", [[], ["--after-id", "3"]])
def test_a_file_of_something_else_is_not_overwritten(run, tmp_path, text, words):
    """A file that `show` has not written is refused, and left as it is: the pid of a server looked like a cursor."""
    file = tmp_path / "server.pid"
    file.write_text(text, encoding="latin-1")
    told = f"'{file}' is not a cursor file: name one that does not exist yet, or the one that `show` wrote"

    assert (2, []) == run("--cursor-file", str(file), *words, stderr=f"sqlite-log show: {told}\n")
    assert text == file.read_text(encoding="latin-1")


@pytest.mark.parametrize("target", ["there", "not there"])
def test_no_link_is_followed(run, tmp_path, target):
    """A link in the place of the cursor, or where the new file is made, is neither read nor written through."""
    cursor, victim = tmp_path / "cursor", tmp_path / "victim"
    if target == "there":
        victim.write_text("precious")
    os.symlink(victim, f"{cursor}.new")
    assert 0 == run("-o", "cat", "-n", "1", "--cursor-file", str(cursor))[0]
    assert target == "not there" or "precious" == victim.read_text()
    cursor.unlink()
    os.symlink(victim, cursor)
    told = f"sqlite-log show: '{cursor}' is not a regular file: name one that does not exist yet\n"
    assert (2, []) == run("--cursor-file", str(cursor), stderr=told)

    assert (target == "there") == victim.exists()
    assert ["cursor", "cursor.new"] == sorted(file.name for file in tmp_path.iterdir() if "cursor" in file.name)


@pytest.mark.parametrize("name", ["folder/", "none/"])
def test_a_cursor_file_without_a_name(run, tmp_path, shop, name):
    """A name that ends in a slash is refused before anything is shown; `show` said so after it had shown the log."""
    path = f"{tmp_path}/{name}"
    note = re.compile(re.escape(f"{path!r} is a folder: name a file in it"))

    assert (2, []) == run(str(shop), "--cursor-file", path, stderr=note)


def test_a_cursor_file_of_the_longest_name(run, tmp_path, shop):
    """A name of as many bytes as the file system takes is one; the name of the new file beside it was too long."""
    path = tmp_path / ("c" * 255)

    assert 0 == run(str(shop), "--cursor-file", str(path))[0]
    assert path.read_text().startswith("sqlite-log-cursor ")


@pytest.mark.parametrize("number", [-1, 2**63, 10**30])
def test_a_cursor_that_is_no_id(run, tmp_path, shop, number):
    """A number that no row can have is not one that `show` wrote, and the error names the file."""
    path = tmp_path / "cursor"
    path.write_text(f"sqlite-log-cursor {number} 5\n")

    assert (2, []) == run(str(shop), "--cursor-file", str(path), stderr=re.compile("is not a cursor file"))
