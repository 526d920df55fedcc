"""
The command line: which command is meant, errors, and help.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import socket
import sys

import pytest

import sqlite_log_handler
from sqlite_log_handler.__main__ import main
from sqlite_log_handler._cli.main import COMMANDS, parse


def test_version(capsys):
    """`sqlite-log --version` prints the name and the version of the package."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert (0, f"sqlite-log {sqlite_log_handler.__version__}\n") == (ended.value.code, capsys.readouterr().out)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["show", "--help"]])
@pytest.mark.parametrize(("error", "status"), [(BrokenPipeError(), 141), (OSError(28, "No space left on device"), 2)])
def test_help_that_nobody_reads(monkeypatch, capsys, words, error, status):
    """Help ends as other output does on a full disk, or when its reader has gone: it ended with 0, without a word."""

    class Full(io.StringIO):
        def flush(self):
            raise error

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Full())
    assert status == main(words)
    assert capsys.readouterr().err == ("" if status == 141 else "sqlite-log: [Errno 28] No space left on device\n")


def test_show_is_what_is_done_without_a_command(run, shop):
    """Without a command, and with flags or a file only, the log is shown."""
    expected = run("show", str(shop))

    assert expected == run(str(shop)) == run() == run("--level", "0", str(shop))


ERRORS = {
    "show no-such.db": "show: '{folder}/no-such.db' does not exist: name the file of a SQLiteHandler",
    "-p LOUD": "show: 'LOUD' is not a level of this log: write one of DEBUG, INFO, WARNING, ERROR, CRITICAL, a number, "
    "or a range such as INFO..ERROR",
    # From a terminal whose encoding is another one; it was a UnicodeEncodeError's text.
    "-l l\udce4g": r"show: logger='l\udce4g': has half of a surrogate pair in it, and no row has one",
    "top --where =x": "top: '=x' is not a condition: write KEY=VALUE, KEY!=VALUE, KEY>=NUMBER (or <, <=, >), "
    "KEY~REGEX, KEY if it is there, or !KEY if not",
    "-f -r": "show: -f has no end, so it goes neither with -r nor with -o json; -o jsonl has an object on each line",
    **dict.fromkeys(
        ("no-such.db -f -U -1h", "no-such.db -f --up-to-id 0"),
        "show: -f shows new records, which -U and --up-to-id would leave out: give one of them",
    ),
    # The cursor went to the end of the log, so no later run showed the rows between.
    **dict.fromkeys(
        ("--cursor-file c -U now", "--cursor-file c --up-to-id 3"),
        "show: --cursor-file stores how far the log was read, so what -U and --up-to-id leave out would never be shown",
    ),
    "--cursor-file {folder}/text": "show: '{folder}/text' is not a cursor file: name one that does not exist yet, or "
    "the one that `show` wrote",
    "export --output {folder}/text": "export: '{folder}/text' exists: name a file that does not exist yet",
    "export --output {folder}/no/x": "export: '{folder}/no/x': there is no folder '{folder}/no': create it first",
    "{folder}/text": "show: '{folder}/text' is not an SQLite database: name the file of a SQLiteHandler",
    "{folder}": "show: '{folder}' is a folder without an archived part of a log: name the file of a SQLiteHandler",
    "check {folder}": "check: '{folder}' is a folder: name a file in it",
    "a.db {folder} b.db": "show: one log at a time: 'b.db' is one too many; `sqlite-log show --help` says more",
    "-p ERROR..INFO": "show: 'ERROR..INFO' is empty: write the lower level first, INFO..ERROR",
    "gaps -S 2025-02-01T00:00Z -U 2025-01-01T00:00Z": "gaps: since (2025-02-01 00:00:00+00:00) is after until "
    "(2025-01-01 00:00:00+00:00), so nothing is between them: swap them",
    "--run x": "show: argument --run: 'x' is not a whole number; `sqlite-log show --help` says more",
    "--pid 1.5": "show: argument --pid: '1.5' is not a whole number; `sqlite-log show --help` says more",
    "--after-id x": "show: argument --after-id: 'x' is not a whole number; `sqlite-log show --help` says more",
    "-n x": "show: argument -n/--lines: 'x' is not a whole number; `sqlite-log show --help` says more",
    "top -n -5": "top: argument -n/--lines: '-5' is below 0; `sqlite-log top --help` says more",
    "prune --max-rows 1,000": "prune: argument --max-rows: '1,000' is not a whole number; `sqlite-log prune "
    "--help` says more",
    f"forward a.db --batch-rows {2**63 - 1}": f"forward: argument --batch-rows: '{2**63 - 1}' is above {2**63 - 2:,}; "
    "`sqlite-log forward --help` says more",
    "forward a.db --batch-rows x": "forward: argument --batch-rows: 'x' is not a whole number; `sqlite-log forward "
    "--help` says more",
    "-S 1h": "show: '1h' is a length of time, not a point in time: did you mean -1h?",
    **{
        words: f"show: {text!r} is not a point in time: write ISO 8601 (2025-06-30, '2025-06-30 12:00', "
        "2025-06-30T12:00:00Z), a time of today (12:00), now, today, yesterday, -1h, '10 min ago', or @seconds since "
        "1970"
        # The last was no --around, so a script without the id that it looked for got the whole log.
        for words, text in (("-S 99999999999999d", "99999999999999d"), ("--around=", ""))
    },
    "-g a{99999999999}": "show: 'a{99999999999}' is not a regular expression: the repetition number is too large; to "
    "search for plain text, use -F or `text=`",
    "--rever": "show: unrecognized arguments: --rever; `sqlite-log show --help` says more",
    "forward a.db --retry 5": "forward: unrecognized arguments: --retry; `sqlite-log forward --help` says more",
    "top a.db --limit=5": "top: --limit is called -n here: write -n 20 for 20 lines, or -n all; `sqlite-log top "
    "--help` says more",
    "forward a.db --otpl http://u:p@h": "forward: unrecognized arguments: --otpl; `sqlite-log forward --help` says "
    "more",
    "show a.db http://u:p@h": "show: an address stands in the place of a file: write --otlp in front of it; "
    "`sqlite-log show --help` says more",
    "--colour": "show: unrecognized arguments: --colour; `sqlite-log show --help` says more",
    "gaps a.db -g x": "gaps: unrecognized arguments: -g; `sqlite-log gaps --help` says more",
    "top a.db b.db": "top: one log at a time: 'b.db' is one too many; `sqlite-log top --help` says more",
    "gaps a.db b=c.db": "gaps: one log at a time: 'b=c.db' is one too many; `sqlite-log gaps --help` says more",
    "a.db b.db": "show: one log at a time: 'b.db' is one too many; `sqlite-log show --help` says more",
    "gaps a.db top": "gaps: there is no file or folder 'top'; `sqlite-log gaps --help` says more",
    "stats --bucket 1us": "stats: bucket='1us' makes 9,000,001 buckets of this log: take a longer one",
}


@pytest.mark.parametrize("words", ERRORS)
def test_errors_are_one_line(run, tmp_path, monkeypatch, words):
    """What is wrong is said in one line that says what to do, and the exit status is 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    for name in ("b.db", "b=c.db"):
        (tmp_path / name).touch()
    message = f"sqlite-log {ERRORS[words]}\n".replace("{folder}", str(tmp_path))

    assert (2, []) == run(*words.replace("{folder}", str(tmp_path)).split(), stderr=message)


@pytest.mark.parametrize("command", ["show", "metrics"])
def test_an_empty_name_is_none(run, tmp_path, monkeypatch, command):
    """
    A FILE that is empty, as a variable of a shell is that nobody has set, stands for the log of the environment.

    For `metrics` and `serve`, it was the current folder with all its logs.
    """
    monkeypatch.chdir(tmp_path)

    assert run(command)[1][:3] == run(command, "")[1][:3]


@pytest.mark.parametrize("words", ["show -fz a.db", "a.db -rz", "a.db -rf9"])
def test_two_flags_in_one_word(run, words):
    """
    Of two short flags in one word, one does not exist: that is said.

    Newer versions of argparse give back `-z` alone, which is no word of the line, and the command ended in a traceback.
    """
    assert (2, []) == run(*words.split(), stderr=re.compile(r"^sqlite-log show: .*\n\Z"))


@pytest.mark.parametrize("words", ["forward a.db --otlp URL b.db -f c.db", "metrics a.db -o openmetrics b.db c.db"])
def test_a_log_behind_a_flag(words):
    """A command that takes several logs takes them behind its flags too: `b.db` was refused as one too many."""
    assert ["a.db", "b.db", "c.db"] == parse(words.split())[1].files


def test_a_command_that_does_not_exist(run, tmp_path, monkeypatch):
    """A word that is neither a command nor a file is told as such, with the commands there are."""
    monkeypatch.chdir(tmp_path)

    note = re.compile(r"^sqlite-log: 'tops' is neither a command \(show, .*\) nor a file; `sqlite-log --help` says")
    assert (2, []) == run("tops", "app-log.db", stderr=note)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("app-log.db top", "top app-log.db"),
        ("app-log.db top -n 3", "top app-log.db -n 3"),
        ("-p ERROR gaps app-log.db", "gaps -p ERROR app-log.db"),
        ("app-log.db stats -S -1h", "stats app-log.db -S-1h"),
        ("a.db forward --otlp http://user:secret@host", "forward ..."),
    ],
)
def test_a_command_that_comes_too_late(run, words, meant):
    """
    Who names the log before the command is shown the line that was meant, but for values that may be secret.

    It was once "unrecognized arguments: top"; then, for `forward`, the line had the password of the receiver.
    """
    note = f"sqlite-log: the command comes first: sqlite-log {meant}; `sqlite-log --help` says more\n"

    assert (2, []) == run(*words.split(), stderr=note)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-H", "Authorization: Bearer secret"], "-H"),
        (["--header", "Authorization: Bearer secret"], "--header"),
        (["--headers=Authorization=secret", "--token", "secret"], "--headers --token"),
        (["--header:secret"], "--header"),
        (["-Hsecret"], "-H"),
        (["--header=Authorization: Bearer secret"], "--header"),
        (["-HAuthorization: Bearer secret", "-f"], "-H"),
    ],
)
def test_a_flag_that_does_not_exist_may_have_a_secret(run, words, shown):
    """
    Of flags that a command does not know, the error has the names alone.

    Who gave `forward` a header as curl takes it found the token in the log of the service. argparse takes a flag with a
    space in it for a file: it was printed as one that is missing, and with -f the command waited for it.
    """
    note = f"sqlite-log forward: unrecognized arguments: {shown}; `sqlite-log forward --help` says more\n"

    assert (2, []) == run("forward", "a.db", *words, stderr=note)


@pytest.mark.parametrize("flag", ["--follow=", "-f=", "-fx"])
def test_a_switch_may_have_a_secret(run, flag):
    """A value that somebody gives to a flag without one may be an address with a password, and is not printed."""
    note = re.compile(r"^sqlite-log forward: (?!.*secret).*; `sqlite-log forward --help` says more\n\Z")

    assert (2, []) == run("forward", "a.db", f"{flag}http://user:secret@host", stderr=note)


@pytest.mark.parametrize("words", [["show", "-p", "ERROR"], ["show", "a.db"], ["metrics"], ["prune"], ["-n", "1"]])
def test_a_flag_with_a_space_is_no_file(run, words):
    """Each command refuses a flag that it does not know, also one that has a space in it."""
    note = f"sqlite-log {words[0] if words[0].isalpha() else 'show'}: unrecognized arguments: --what; "

    assert (2, []) == run(*words, "--what=a b", stderr=re.compile(f"^{note}"))


def test_a_file_may_have_the_name_of_a_flag():
    """Behind `--`, a word that begins with a dash is a file."""
    assert "-a b.db" == parse(["show", "-n", "1", "--", "-a b.db"])[1].file
    assert ["-a b.db", "--c"] == parse(["forward", "-f", "--", "-a b.db", "--c"])[1].files
    assert "-" == parse(["stats", "-"])[1].file


def test_a_log_may_have_the_name_of_a_command(run, shop, tmp_path, monkeypatch):
    """A log that is called `top` is a log, where it cannot be the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "top").write_bytes(shop.read_bytes())

    note = "sqlite-log show: one log at a time: 'top' is one too many; `sqlite-log show --help` says more\n"
    assert (0, ["stock is low"]) == run("show", "top", "-o", "cat", "-n", "1")
    assert (2, []) == run("./top", "top", stderr=note)


@pytest.mark.parametrize(("words", "expected"), [(["help"], ["--help"]), (["help", "top"], ["top", "--help"])])
def test_help_is_a_word(run, words, expected):
    """`sqlite-log help` is the help, and `help top` that of `top`."""
    assert run(*expected) == run(*words)
    assert run(*words)[1]


@pytest.mark.skipif(os.name != "posix", reason="a socket that is a file")
@pytest.mark.parametrize("words", [["show"], ["check"], ["prune", "--vacuum"]], ids=" ".join)
def test_what_is_no_regular_file_is_no_log(run, tmp_path, monkeypatch, words):
    """
    A pipe, a device or a socket is told as such: SQLite would open a pipe and wait for ever.

    (Here it is a socket, which nobody waits for.)
    """
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket")

    what = "is a device, a pipe or a socket: name the file of a SQLiteHandler"
    note = re.compile(rf"^sqlite-log {words[0]}: '.*socket' {what}\n$")
    assert (2, []) == run(*words, "socket", stderr=note)


def test_every_command_works_beside_a_live_writer(run, busy_log):
    """Each command gives its answer on a file that another process is filling at that moment."""
    for words in (
        ["show"],
        ["show", "-n", "100"],
        ["show", "-r", "-n", "100"],
        ["show", "-o", "jsonl"],
        ["show", "-p", "ERROR", "-S", "-1h", "-g", "order \\d+3"],
        ["top"],
        ["top", "--by", "source"],
        ["stats"],
        ["check"],
        ["export", "--format", "csv"],
    ):
        status, lines = run(*words, str(busy_log))
        assert (words, 0, True) == (words, status, bool(lines))


def test_ctrl_c_while_modules_are_imported(monkeypatch):
    """
    Ctrl-C ends a command with 130 from its beginning.

    In its first fifth of a second it printed a traceback of the imports.
    """

    class Interrupted:
        def find_spec(self, name, *_):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "sqlite_log_handler._cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted()])

    assert 130 == main([])


def test_the_command_is_installed():
    """The package brings the command `sqlite-log`."""
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="sqlite-log")

    assert main is command.load()


def test_help_of_all(run):
    """The help names every command."""
    status, lines = run("--help")

    assert 0 == status
    assert max(len(line) for line in lines) <= 80
    assert set(COMMANDS) <= {line.split()[0] for line in lines if line.startswith("    ")}


@pytest.mark.parametrize("words", [["--oltp=https://user:s3cr3t@host/"], ["https://user:s3cr3t@host/v1/logs"]])
def test_a_misplaced_address_is_not_written_out(capsys, shop, words):
    """An address behind a misspelt flag, or in the place of a file, may hold a password, which a journal would keep."""
    pytest.importorskip("opentelemetry.proto")
    status = 0
    try:
        status = main(["forward", str(shop), *words])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err

    assert (2, False) == (status, "s3cr3t" in said)
    assert said.startswith("sqlite-log forward: ")
