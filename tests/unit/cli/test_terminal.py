"""
Output: safe for a terminal, as wide as it is, and into pipes that close.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pathlib
import select
import shlex
import sqlite3
import subprocess
import sys

import pytest
from command_line import NAUGHTY, in_terminal
from slowly import slowly

import sqlite_log_handler
from sqlite_log_handler.__main__ import main
from sqlite_log_handler._cli import terminal as terminal_module
from sqlite_log_handler._cli.main import COMMANDS
from sqlite_log_handler._cli.terminal import columns, fit, width_of, wrap

LINES = [
    *(["show", "-o", name] for name in ("short", "short-precise", "verbose", "json", "jsonl", "cat", "logfmt")),
    *(["top", "--by", by] for by in ("logger", "source", "level", "exception", "thread", "process")),
    *([name] for name in ("gaps", "stats", "check", "export")),
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_nothing_reaches_the_terminal_that_it_would_obey(run, naughty, words):
    """Whatever stands in a log, a command prints nothing but letters, blanks and the ends of its own lines."""
    _, lines = run(*words, str(naughty))

    assert lines
    assert [] == [line for line in lines if not line.isprintable()]
    assert not any(line.startswith("ERROR root: forged") for line in lines)


@pytest.mark.parametrize("words", [["gaps"], ["stats"]], ids=" ".join)
def test_a_text_in_the_place_of_a_number_is_made_safe(run, naughty, words):
    """The maker of a file can put a text into a column of integers; the terminal obeys it as little as any other."""
    with contextlib.closing(sqlite3.connect(naughty, isolation_level=None)) as connection:
        connection.execute("UPDATE drops SET after_id = ?", ["\x1b[2J"])
        connection.execute("INSERT INTO cursors VALUES ('collector', ?, 0)", ["\x1b[2J"])

    _, lines = run(*words, str(naughty))
    assert r"\x1b[2J" in "".join(lines)
    assert [] == [line for line in lines if not line.isprintable()]


def test_json_stays_the_same_when_it_is_made_safe(run, naughty):
    """What is escaped in JSON is the same text when it is read."""
    _, (line, *_) = run("-o", "jsonl", str(naughty))

    assert NAUGHTY.replace("\x00", r"\x00").replace("\ud800", r"\ud800") == json.loads(line)["message"]


def test_levels_have_colours_on_a_terminal(shop):
    """On a terminal warnings are yellow and errors red; with NO_COLOR, or on a dumb one, nothing is."""
    words = [str(shop), "-p", "WARNING"]

    printed = in_terminal(words)
    assert "\x1b[31mERROR    shop.orders: order 8 failed\x1b[0m" in printed
    assert "\x1b[33mWARNING  shop.stock: stock is low\x1b[0m" in printed
    assert "\x1b" not in in_terminal(words, NO_COLOR="1")
    assert "\x1b" not in in_terminal(words, TERM="dumb")


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color=always"], {"NO_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_into_a_pipe(run, monkeypatch, words, environment, expected):
    """`sqlite-log FILE --color always | less -R` has colours; the flag beats NO_COLOR, and that beats FORCE_COLOR."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert expected == ("\x1b[31mERROR" in str(run(*words)[1]).replace("\\x1b", "\x1b"))
    assert expected == ("\x1b[31m" in str(run("stats", *words)[1]).replace("\\x1b", "\x1b"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("show", "no record matches; `sqlite-log stats` shows what there is"),
        *slowly(
            ("top", "no record matches; `sqlite-log stats` shows what there is"),
            ("gaps", "no gap: none of the records that you asked for is missing"),
            ("stats", "no record matches, so there is no histogram"),
            ("export", "no record matches; `sqlite-log stats` shows what there is"),
        ),
    ],
)
def test_nothing_is_told_on_a_terminal_only(run, shop, words, told):
    """A person at a terminal reads that nothing matched; a program behind a pipe has the exit status."""
    assert f"sqlite-log: {told}" in in_terminal([words, "-p", "CRITICAL", str(shop)], status=1)
    assert 1 == run(words, "-p", "CRITICAL")[0]


def test_tables_fit_the_terminal(shop):
    """On a terminal the lines of a table are cut to its width."""
    printed = in_terminal(["top", "--by", "source", str(shop)], COLUMNS="50")

    assert 50 == max(len(line) for line in printed.splitlines())
    assert "trend" not in printed  # the names need the room


def test_joiners_have_no_width(monkeypatch):
    """In a table a joiner takes no column, neither where cells are aligned nor where a line is cut."""
    joined, plain_text = "a\u200db", "ab"
    first, second, third = columns([(joined, "x"), (plain_text, "x"), ("abc", "x")])
    assert (" a\u200db  x", " ab  x", "abc  x") == (first, second, third)
    assert (2, 2) == (width_of(joined), width_of(plain_text))

    monkeypatch.setattr(terminal_module, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal_module, "terminal_width", lambda: 40)
    line = "a\u200d" * 20 + "b" * 20
    assert line == fit(line)
    assert f"{line[:57]}..." == fit(line + "c")


def test_wide_characters_take_two_columns(monkeypatch):
    """
    A table is cut to the width of the terminal and its columns stand below each other in Chinese too, and with emoji.

    Each character counted as one column, so each long line took two lines.
    """
    assert ["\u5e97  x", "ab  x"] == [*columns([("\u5e97", "x"), ("ab", "x")])]

    monkeypatch.setattr(terminal_module, "is_terminal", lambda: True)
    monkeypatch.setattr(terminal_module, "terminal_width", lambda: 40)
    line = "\u5e97\U0001f600" * 10
    assert line == fit(line)
    assert f"{line[:18]}..." == fit(line + "c")


def test_wrapping_takes_time_by_the_length_of_a_text(monkeypatch):
    """
    Of a text that is twice as long, `wrap` measures twice as many letters.

    It measured all of the rest for each line, so a cause of 180,000 Chinese letters took half a minute.
    """
    measured = []
    monkeypatch.setattr(terminal_module, "width_of", lambda text: measured.append(len(text)) or width_of(text))

    def letters(count):
        measured.clear()
        assert "\u5e97" * count == "".join(wrap("\u5e97" * count, 80, "", ""))
        return sum(measured)

    assert letters(8_000) - letters(4_000) == letters(12_000) - letters(8_000)


def test_a_closed_pipe_is_no_error(start, make_handler, logger, path):
    """When `head` has seen enough, nothing is said."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(5_000):
        logger.info("%d %s", number, "x" * 50)
    handler.close()

    process = start(path)
    process.stdout.readline()
    process.stdout.close()
    assert (141, "") == (process.wait(60), process.stderr.read())

    process = start(path, "-n", "5", closed=True)
    assert (141, "") == (process.wait(60), process.stderr.read())


@pytest.mark.skipif(not hasattr(select, "poll"), reason="this system cannot tell that a reader has gone")
def test_following_ends_with_its_reader(start, make_handler, logger, path):
    """`show -f | head -n 1` ended with the next record only, which a quiet log may never have."""
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("the last")
    handler.close()

    process = start(path, "-f")
    process.stdout.readline()
    process.stdout.close()
    assert (141, "") == (process.wait(60), process.stderr.read())


@pytest.mark.parametrize("words", [[], ["--help"], *([name] for name in COMMANDS)], ids=" ".join)
def test_a_closed_output_is_one_line(shop, monkeypatch, capsys, words):
    """
    A shell closes the output with `>&-`: every command says so, and its exit status is 2.

    It was once a traceback that ended in "'NoneType' object has no attribute 'isatty'".
    """
    monkeypatch.setenv("SQLITE_LOG_DB", str(shop))
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        assert 2 == main(words)

    note = "standard output is closed, so nothing can be shown: send it to /dev/null if nobody should see it"
    assert f"sqlite-log: {note}\n" == capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes descriptors")
@pytest.mark.parametrize(
    ("flags", "closed", "status"),
    [("-n 1", ">&-", 2), ("-p LOUD", "2>&-", 2), *slowly(("-n 1", "2>&-", 0), ("-n 1", ">&- 2>&-", 2))],
)
def test_a_shell_may_close_what_is_printed_to(shop, flags, closed, status):
    """With the output closed the status is 2; with that for errors closed it is what it would be, without a word."""
    command = f"{shlex.quote(sys.executable)} -m sqlite_log_handler {shlex.quote(str(shop))} {flags} {closed}"
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    process = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": package}, check=False
    )

    assert (status, status == 0) == (process.returncode, "stock is low" in process.stdout)
    assert ("standard output is closed" in process.stderr) == (closed == ">&-")
    assert "Traceback" not in process.stderr


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("show no.db", (2, 0)),
        ("show -o jsonl -n 5 -l shopp -l shop", (0, 5)),
        ("show -l nobody", (1, 0)),
        ("show --rever", (2, 0)),
    ],
)
def test_what_standard_error_does_not_take_changes_nothing(run, monkeypatch, words, expected):
    """
    With `2>>errors.log` on a full disk, a command does what it would do, and ends with the same status.

    A note ended `show` before its first row, an error ended with the status of "nothing matched", and `forward -f`
    ended at its first line.
    """
    monkeypatch.setattr(sys, "stderr", FullDisk())

    status, lines = run(*words.split())

    assert expected == (status, len(lines))


def test_one_function_writes_to_standard_error():
    """No other module of the command line writes to it, so a full disk there ends no command."""
    folder = pathlib.Path(terminal_module.__file__).parent
    writers = [path.name for path in sorted(folder.rglob("*.py")) if "stderr.write" in path.read_text("utf-8")]

    assert ["terminal.py"] == writers


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "words",
    [
        "show -o json",
        "show -o jsonl",
        "brief -o json",
        "patterns -o json",
        "top --by attribute tea -o json",
        "export",
        "export --format csv",
    ],
)
def test_the_output_need_not_be_utf_8(make_handler, logger, path, monkeypatch, encoding, words):
    r"""
    JSON is JSON in any encoding, and a parser restores the text; `export` writes UTF-8, as into a file.

    With a locale of Latin-1, or into a pipe on Windows, an emoji became `\U0001f600`, which is no JSON, and in CSV
    cannot be told from text.
    """
    text = "h\xe9 \u20ac \U0001f600"
    logger.addHandler(make_handler())
    logger.error(text, extra={"tea": text})
    logger.handlers[0].close()
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    name, *flags = words.split()

    assert 0 == main([name, str(path), *flags])
    sys.stdout.flush()
    found = printed.getvalue().decode("utf-8" if name == "export" else encoding)
    if "csv" in flags:
        assert text in found
    else:
        assert text in json.dumps(json.loads(found), ensure_ascii=False)
