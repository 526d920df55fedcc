"""
The shape of the package: which module imports which, and what it shows to the outside.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from pathlib import Path

import pytest

import sqlite_log_handler

PACKAGE = sqlite_log_handler.__name__
# From the imported package, so that a run against the installed wheel reads the wheel.
FOLDER = Path(sqlite_log_handler.__file__).parent
MODULES = sorted(file.stem for file in FOLDER.glob("*.py"))

ARROWS = {
    "_row": set(),
    "_queue": set(),
    "_lock": set(),
    "_times": set(),
    "_text": set(),
    "_printable": set(),
    "_terminal": {"_printable"},
    "_schema": {"_row"},
    "_limits": set(),
    "_prune": {"_limits"},
    "_writer": {"_lock", "_schema", "_row", "_limits", "_prune"},
    "_listener": {"_queue", "_limits", "_printable"},
    "_handler": {"_row", "_queue", "_limits", "_writer", "_listener", "_printable"},
    "_open": {"_schema"},
    "_filters": {"_text", "_times"},
    "_logged": {"_schema"},
    "_scan": {"_filters", "_open", "_text"},
    "_figures": {"_filters", "_scan", "_times"},
    "_talkers": {"_filters", "_scan", "_text"},
    "_reader": {"_figures", "_filters", "_logged", "_open", "_scan", "_schema", "_talkers"},
    "_formats": {"_figures", "_logged", "_printable", "_terminal", "_times"},
    "_arguments": {"_filters", "_reader", "_terminal", "_times"},
    "_show": {"_arguments", "_filters", "_formats", "_logged", "_reader", "_terminal"},
    "_top": {"_arguments", "_filters", "_printable", "_reader", "_talkers", "_terminal"},
    "_gaps": {"_arguments", "_figures", "_formats", "_printable", "_terminal"},
    "_stats": {"_arguments", "_figures", "_formats", "_printable", "_terminal"},
    "_check": {"_arguments", "_figures", "_open", "_printable", "_schema", "_terminal"},
    "_export": {"_arguments", "_filters", "_formats", "_logged", "_printable", "_terminal"},
    "_prune_command": {"_arguments", "_limits", "_lock", "_open", "_prune", "_schema", "_terminal"},
    "_cli": {
        "_arguments",
        "_check",
        "_export",
        "_gaps",
        "_printable",
        "_schema",
        "_show",
        "_stats",
        "_terminal",
        "_top",
    },
    "_demo": {"_formats", "_handler", "_reader", "_terminal", "_top"},
    "_spool": {"_schema", "_lock"},
    "_delivery": {"_spool"},
    "_otlp": {"_spool"},
    "_receiver": {"_delivery", "_otlp"},
    "_forward": {"_spool", "_delivery", "_otlp", "_receiver", "_terminal"},
}
FACE = {"__init__", "__main__"}

# What a module needs beside the standard library, which an extra brings; imported by nobody before a command runs.
EXTRAS = {
    "_otlp": {"opentelemetry"},
    "_receiver": {"google", "opentelemetry", "requests"},
}

# Modules of the standard library that one system or another lacks.
ONE_SYSTEM_ONLY = {
    *("fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty"),
    *("_winapi", "msvcrt", "nt", "winreg", "winsound"),
}


def tree_of(module: str) -> ast.Module:
    """
    Parse one module of the package.
    """
    file = FOLDER / f"{module}.py"
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported(node: ast.AST) -> list[str]:
    """
    Name what an import statement imports, with relative names made absolute; nothing for other nodes.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = ".".join(filter(None, [PACKAGE if node.level else "", node.module]))
        # "from package import _module" names a module; "from package import Name" is the package itself.
        return [f"{base}.{alias.name}" if base == PACKAGE else base for alias in node.names]
    return []


def ours(name: str) -> str | None:
    """
    Give the module of the package that an imported name stands for, or None for a name of somebody else.
    """
    top, _, rest = name.partition(".")
    if top != PACKAGE:
        return None
    module = rest.partition(".")[0]
    return module if module in MODULES else "__init__"


def unguarded(nodes: list[ast.stmt]) -> list[ast.stmt]:
    """
    Give the imports that run whenever the module is imported, and whose failure is the module's.
    """
    found: list[ast.stmt] = []
    for node in nodes:
        match node:
            case ast.Import() | ast.ImportFrom():
                found.append(node)
            case ast.Try():
                if not any(catches_import_error(handler) for handler in node.handlers):
                    found += unguarded(node.body)
                found += unguarded([*node.orelse, *node.finalbody])
            case ast.With() | ast.ClassDef() | ast.For() | ast.While():
                found += unguarded(node.body)
    return found


def catches_import_error(handler: ast.ExceptHandler) -> bool:
    """
    Tell whether an except clause is there for an import that fails.
    """
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    return bool(names & {"ImportError", "ModuleNotFoundError"})


def public() -> list[tuple[str, object]]:
    """
    List what the package exports, but the names that begin with an underscore: those are plain values.
    """
    return [(name, getattr(sqlite_log_handler, name)) for name in sqlite_log_handler.__all__ if name[0] != "_"]


def test_every_module_has_a_place_in_the_picture():
    """A module that the picture of the package does not know is refused until somebody says what it may import."""
    unknown = set(MODULES) - set(ARROWS) - FACE

    assert set() == unknown, f"say in ARROWS what these may import, and in docs/design.md what they are: {unknown}"


def test_imports_are_acyclic():
    """The arrows that are allowed never lead back to where they began."""
    left = dict(ARROWS)
    while ends := [module for module, targets in left.items() if not targets & set(left)]:
        for module in ends:
            del left[module]

    assert {} == left


@pytest.mark.parametrize("module", sorted(set(MODULES) & set(ARROWS)))
def test_imports_run_one_way(module):
    """A module imports those of ours below it and no others, not even inside a function or for a type."""
    targets = {target for node in ast.walk(tree_of(module)) for name in imported(node) if (target := ours(name))}

    assert set() == targets - ARROWS[module]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_but_the_standard_library(module):
    """There is no dependency at run time: an import is of the standard library or of ours, or what an extra adds."""
    tops = {name.partition(".")[0] for node in ast.walk(tree_of(module)) for name in imported(node)}

    assert EXTRAS.get(module, set()) == tops - sys.stdlib_module_names - {PACKAGE}


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(EXTRAS)))
def test_an_extra_is_imported_when_it_is_used(module):
    """A module that needs an extra is imported inside a function, so that everything else works without the extra."""
    targets = {ours(name) for node in unguarded(tree_of(module).body) for name in imported(node)}

    assert set() == targets & set(EXTRAS)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_of_one_system_is_imported_unguarded(module):
    """The package can be imported on Linux, macOS and Windows: what one of them lacks is imported under guard."""
    names = {name.partition(".")[0] for node in unguarded(tree_of(module).body) for name in imported(node)}

    assert set() == names & ONE_SYSTEM_ONLY


def test_an_import_in_a_guard_is_told_from_one_without():
    """The test above sees an import in `finally` and under `except OSError`, and lets guarded ones pass."""
    source = """
        try:
            import fcntl
        except ImportError:
            fcntl = None
        if True:
            import msvcrt
        def later():
            import pwd
        try:
            import resource
        except OSError:
            pass
        finally:
            import grp
    """

    found = [name for node in unguarded(ast.parse(inspect.cleandoc(source)).body) for name in imported(node)]

    assert ["resource", "grp"] == found


def test_the_package_is_typed():
    """Type checkers are told that the package has types."""
    assert (FOLDER / "py.typed").is_file()


def test_all_is_sorted():
    """`__all__` is sorted and names everything once."""
    assert sorted(set(sqlite_log_handler.__all__)) == list(sqlite_log_handler.__all__)


def test_every_public_name_has_a_docstring():
    """Whatever can be imported by name says what it is, in words of its own."""
    # A dataclass without a docstring is given its signature for one.
    silent = [name for name, item in public() if (item.__doc__ or f"{name}(").startswith(f"{name}(")]

    assert [] == silent


def test_every_class_that_one_calls_shows_an_example():
    """The docstring of a class that a user calls shows the call; errors and snapshots are only handed out."""
    called = [
        (name, item)
        for name, item in public()
        if inspect.isclass(item) and not issubclass(item, BaseException) and not dataclasses.is_dataclass(item)
    ]

    assert [] == [name for name, item in called if not re.search(">>>|::", item.__doc__ or "")]
    assert "SQLiteHandler" in dict(called)
