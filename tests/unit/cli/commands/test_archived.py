"""
The commands that read an archive as well.
"""

from __future__ import annotations

import re
import shutil

import pytest
from made_parts import archive


@pytest.fixture
def places(shop, tmp_path):
    """The log of the shop as it was, and the same log with half of its rows in an archive."""
    whole, file, folder = tmp_path / "whole.db", tmp_path / "app-log.db", tmp_path / "archive"
    folder.mkdir()
    shutil.copy(shop, whole)
    shutil.copy(shop, file)
    archive(file, folder, 5)
    archive(file, folder, 9, delete=False)
    return str(whole), str(file), str(folder)


@pytest.mark.parametrize(
    "words",
    [
        "show -o verbose", "show -n 3", "show -r --id", "show -g order -C 1", "show --around 5 -C 2",
        "show -o json -p ERROR", "show --cursor-file cursor", "show -p 4", "show -l nobody", "export",
        "export --format csv -l shop", "top", "top --by source", "gaps", "gaps -o json", "patterns",
        "stats --bucket 5s -p INFO",
    ],
)  # fmt: skip
def test_a_log_and_its_archive_are_shown_as_one(run, places, words, tmp_path, monkeypatch):
    """A log and the folder of its archive are shown as the log would be without an archive."""
    monkeypatch.chdir(tmp_path)
    whole, file, folder = places
    command, *flags = words.split()
    noted = re.compile("")

    expected = run(command, whole, *flags, stderr=noted)
    (tmp_path / "cursor").unlink(missing_ok=True)
    found = run(command, file, *flags, folder, stderr=noted)

    # The first two lines of `stats` are of the file itself.
    first = 2 if command == "stats" else 0
    assert (expected[0], expected[1][first:]) == (found[0], found[1][first:])


def test_a_logger_that_is_not_there(run, places):
    """With an archive no note says so, because all of its rows would have to be read."""
    _, file, folder = places

    assert (1, []) == run("show", file, folder, "-l", "shop.stocks", stderr="")


def test_a_brief_of_an_archive_names_both(run, places):
    """The commands that a brief names are those of the log and its archive, and so is the size."""
    _, file, folder = places
    status, lines = run("brief", file, folder)

    assert (0, "app-log.db: the whole log") == (status, lines[0])
    assert 1 == sum("B with its archive; WAL " in line for line in lines)
    assert any("ERROR 1" in line for line in lines)


def test_an_archive_alone(run, places):
    """The folder alone, and its parts by name, are a log that ends with the last archived row."""
    _, _, folder = places
    status, lines = run(folder, "-o", "cat", "-n", "2")

    assert (0, ["miss 4", "miss 5"]) == (status, lines)


def test_an_archive_is_not_followed(run, places):
    """-f on an archive is refused before anything is shown."""
    _, file, folder = places
    note = "sqlite-log show: -f shows new records, and none comes to an archive: name the log's file alone\n"

    assert (2, []) == run("-f", file, folder, stderr=note)


def test_what_is_left_out_is_said(run, places, tmp_path):
    """A part that the log notes and that is missing is told on standard error."""
    _, file, folder = places
    for part in (tmp_path / "archive").glob("*.7.jsonl.gz"):
        part.unlink()
    note = re.compile(r"sqlite-log: parts that the log notes are missing: 1, such as 'app-log.*\.7\.jsonl\.gz'")

    status, lines = run("show", file, folder, "-o", "cat", stderr=note)
    assert (0, 15) == (status, len(lines))
