"""
docs/errors.md has every text with which the package refuses something or tells the operator something.

The texts are read from the source: what is raised with a text, and what is said on standard error. In a text `…`
stands for each value, as it does in the page.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pages import DOCS

import sqlite_log_handler

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(sqlite_log_handler.__file__).parent
PAGE = DOCS / "errors.md"

# A log that the demo makes up says things as well.
NOT_READ = {"incident.py"}
# Texts that no user meets: another layer catches them, or only a mistake in the package itself would show them.
NOT_MET = {
    "module … has no attribute …",
    "rows are not taken from a RecordQueue one by one: use begin_commit() and end_commit()",
    "a row has no time",
    "… is not JSON",
}


def templates(node: ast.expr) -> Iterator[str]:
    """Yield what an expression may be as a text, with `…` for each value in it."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            texts = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
            yield "".join(map(str, texts))
        case ast.IfExp(body=body, orelse=orelse):
            yield from templates(body)
            yield from templates(orelse)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from (one + other for one in templates(left) for other in templates(right))


# Functions that return a text for another to raise or say.
ADVISERS = {"_advice", "failed", "succeeded"}


def texts_of(function: ast.FunctionDef) -> Iterator[str]:
    """Yield the texts that a function raises or says, also those that it puts into a variable first."""
    named: dict[str, list[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, []).extend(templates(node.value))
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value and function.name in ADVISERS:
            yield from templates(node.value)
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        if isinstance(node, ast.Raise) or name in {"say", "_say", "error"}:
            for argument in call.args:
                yield from named.get(argument.id, ()) if isinstance(argument, ast.Name) else templates(argument)


def texts_in_code() -> set[str]:
    """Collect the texts of the package: those of two words or more beside their values."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if file.name not in NOT_READ:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    found.update(text.strip() for text in texts_of(node))
                elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_NAMED":
                    pairs = [pair for pair in ast.walk(node) if isinstance(pair, ast.Tuple) and len(pair.elts) == 2]
                    found.update(text for pair in pairs for text in templates(pair.elts[1]))
    return {text for text in found if len(re.findall("[a-z-]+", text)) > 1} - NOT_MET


def texts_on_page() -> list[str]:
    """List the texts of the page: the first column of each table."""
    rows = re.findall(r"^\| (`+) ?(.*?) ?\1 \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [text.replace("\\|", "|") for _, text in rows]


@pytest.mark.parametrize("text", sorted(texts_in_code()))
def test_every_text_has_its_line(text):
    """A text of the code stands in the page."""
    assert text in texts_on_page()


def test_no_line_is_stale():
    """A text of the page stands in the code, once."""
    texts = texts_on_page()

    assert sorted(set(texts)) == sorted(texts)
    assert set() == set(texts) - texts_in_code()
