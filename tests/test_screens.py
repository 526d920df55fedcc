"""
The screens in the docs are what the commands print: of the log that `sqlite-log demo --incident` makes.

After a change of what a command prints, `SCREENS=write python -m pytest tests/test_screens.py` writes the screens anew.
"""

from __future__ import annotations

import os
import re
import shlex
import time

import pytest
from freezegun import freeze_time
from pages import DOCS

from sqlite_log_handler.__main__ import main
from sqlite_log_handler._cli import incident

# The log ends at 3:12:14 in the night.
END = 1_795_921_934.0
NIGHT, COMMAND_LINE = DOCS / "night.md", DOCS / "command-line.md"

# A screen: a prompt with a command of the log, and what it prints up to the next prompt or the end of the block.
SCREEN = re.compile(r"^\$ (sqlite-log .*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)


@pytest.fixture(scope="module")
def shop_log(tmp_path_factory):
    """The folder of the log."""
    folder = tmp_path_factory.mktemp("screens")
    incident.make(str(folder / "shop-log.db"), END)
    return folder


@pytest.fixture
def printed(shop_log, monkeypatch, capsys):
    """Run a line of the page a second after the end of the log, and return what it prints."""
    monkeypatch.chdir(shop_log)
    monkeypatch.setenv("SQLITE_LOG_DB", "shop-log.db")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def printed(line):
        command, _, lines = line.partition(" | head -n ")
        with freeze_time("2026-11-29 03:12:15"):
            status = main(shlex.split(command)[1:])
        shown = capsys.readouterr().out.splitlines(keepends=True)
        assert status in {0, 1}, line
        return "".join(shown[: int(lines)] if lines else shown).replace(str(shop_log), "/srv/shop").lstrip("\n")

    yield printed
    monkeypatch.undo()
    time.tzset()


def agrees(shown, screen):
    """Tell whether a screen shows this: `...` stands for lines left out, and a size may differ by SQLite's version."""
    sizes = re.compile(r"[\d.]+ [kM]B")
    pattern = re.escape(sizes.sub("SIZE", screen)).replace(r"\.\.\.\n", r"(?:.*\n)*?")
    return re.fullmatch(pattern, sizes.sub("SIZE", shown)) is not None


def screens(page):
    """Return the screens of a page that are of this log."""
    return [
        screen for screen in SCREEN.finditer(page.read_text("utf-8")) if page == NIGHT or "shop-log.db" in screen[1]
    ]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone")
@pytest.mark.parametrize(("page", "least"), [(NIGHT, 12), (COMMAND_LINE, 4)], ids=["night", "command-line"])
def test_screens(page, least, printed):
    """
    A page shows what its commands print.

    Some were typed by hand, and showed columns that no command prints any more.
    """
    found = screens(page)
    assert least <= len(found)
    text = page.read_text("utf-8")
    wrong = []
    for screen in reversed(found):
        shown = printed(screen[1])
        if not agrees(shown, screen[2]):
            wrong.append(screen[1])
            text = text[: screen.start(2)] + shown + text[screen.end(2) :]
    if os.environ.get("SCREENS") == "write":
        page.write_text(text, "utf-8")
    assert [] == wrong
