"""
The pages of the documentation, as a reader sees them: blocks of code, the files that they are, the commands.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"

# How the names of files end, where that is not the name of the language.
ENDINGS = {"ini": "(?:ini|service)", "python": "(?:py|ipynb)"}


class Block(NamedTuple):
    """
    A fenced code block of a page.

    `line` is the number of its first line of code, `name` the file that the text above it names last.
    """

    page: Path
    language: str
    line: int
    code: str
    name: str | None


def blocks_of(page: Path) -> list[Block]:
    """Read the fenced code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    end = 0
    for match in re.finditer(r"^( *)(```+|~~~+)([^\n`]*)\n(.*?)^\1\2 *$", text, re.MULTILINE | re.DOTALL):
        language, code = match[3].strip().partition(" ")[0], textwrap.dedent(match[4])
        ending = ENDINGS.get(language, language)
        names = re.findall(rf"`([\w./-]+\.{ending})`", text[end : match.start()]) if language else []
        found.append(Block(page, language, text.count("\n", 0, match.start(4)) + 1, code, names[-1] if names else None))
        end = match.end()
    return found


def commands_of(block: Block) -> list[str]:
    """List the commands of a shell block: the lines behind a prompt where there is one, else all of them."""
    lines = block.code.splitlines()
    prompted = any(line.startswith("$ ") for line in lines)
    commands = []
    pending = ""
    for line in lines:
        if not pending and prompted and not line.startswith("$ "):
            continue
        # A quote or a backslash that is still open: the command goes on in the next line.
        pending += (line.removeprefix("$ ") if not pending else line.removeprefix("> ")) + "\n"
        if pending.endswith("\\\n"):
            continue
        with contextlib.suppress(ValueError):
            if shlex.split(pending, comments=True):
                commands.append(pending.strip())
            pending = ""
    assert pending == "", f"{block.page.name}:{block.line}: a quote is never closed"
    return commands
