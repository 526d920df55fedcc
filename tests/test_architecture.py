"""
The shape of the package: which module imports which, and what it shows to the outside.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlite_log_handler
from sqlite_log_handler._logfile.schema import CAUSES

PACKAGE = sqlite_log_handler.__name__
# From the imported package, so that a run against the installed wheel reads the wheel.
FOLDER = Path(sqlite_log_handler.__file__).parent
# By their dotted names below the package; a folder stands for its `__init__`.
MODULES = {
    ".".join(file.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(FOLDER.rglob("*.py"))
}
FACE = {"__init__", "__main__"}

# Nothing imports PyInstaller's hooks but PyInstaller, which tests/integration/test_pyinstaller.py runs.
WITHOUT_TESTS = {"_pyinstaller.hook-logging.config", "_pyinstaller.hook-sqlite_log_handler"}

# Which folder may import which.
ARROWS = {
    "_logfile": set(),
    "_pyinstaller": set(),
    "_write": {"_logfile"},
    "_read": {"_logfile"},
    "_forward": {"_logfile"},
    # The face has the version.
    "_cli": {"__init__", "_logfile", "_write", "_read", "_forward", "serve"},
    "serve": {"_logfile", "_read"},
    "metrics": {"__init__", "_logfile"},
}

# What a module needs beside the standard library, which an extra brings; imported by nobody before a command runs.
EXTRAS = {
    "_cli.completion": {"argcomplete"},
    "_cli.mcp_server": {"anyio", "mcp"},
    "_forward.otlp": {"opentelemetry"},
    "metrics": {"opentelemetry", "prometheus_client"},
    "serve": set(),  # a program imports it for what `serve.app` has
    "serve.app": {"anyio", "starlette"},
    "serve.security": {"starlette"},
    "serve.server": {"uvicorn"},
    "_forward.receiver": {"google", "opentelemetry"},
}

# Modules of the standard library that one system or another lacks.
ONE_SYSTEM_ONLY = {
    *("fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty"),
    *("_winapi", "msvcrt", "nt", "winreg", "winsound"),
}


def tree_of(module: str) -> ast.Module:
    """Parse one module of the package."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), str(MODULES[module]))


def imported(node: ast.AST) -> list[str]:
    """
    Name what an import statement imports, nothing for other nodes. Imports within the package are absolute (TID252).
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        # "from package.folder import module" names a module; "from package.folder.module import Name" is that module.
        return [
            name if ours(name := f"{node.module}.{alias.name}") in MODULES else str(node.module) for alias in node.names
        ]
    return []


def ours(name: str) -> str | None:
    """Give the module of the package that an imported name stands for, or None for a name of somebody else."""
    top, _, rest = name.partition(".")
    return (rest or "__init__") if top == PACKAGE else None


def imports_of(module: str) -> set[str]:
    """Name the modules of the package that one of them imports, also inside a function or for a type."""
    return {target for node in ast.walk(tree_of(module)) for name in imported(node) if (target := ours(name))}


def unguarded(nodes: list[ast.stmt]) -> list[ast.stmt]:
    """Give the imports that run whenever the module is imported, and whose failure is the module's."""
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
    """Tell whether an except clause is there for an import that fails."""
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    return bool(names & {"ImportError", "ModuleNotFoundError"})


def public() -> list[tuple[str, object]]:
    """List what the package exports, but the names that begin with an underscore: those are plain values."""
    return [(name, getattr(sqlite_log_handler, name)) for name in sqlite_log_handler.__all__ if name[0] != "_"]


def causes(module: str) -> Iterator[str]:
    """Yield the causes of drops in a module: where it drops rows, counts a drop, or refuses a record."""
    for node in ast.walk(tree_of(module)):
        match node:
            case ast.Call(func=ast.Attribute(attr="give_up"), args=[_, ast.Constant(value=cause)]):
                yield cause
            case ast.keyword(arg="cause", value=ast.Constant(value=cause)):
                yield cause
            # A `Drop`, of which only the cause is known when it is written down.
            case ast.Tuple(elts=[ast.Constant(value=cause), *others]) if len(others) == 3:
                if not any(isinstance(other, ast.Constant) for other in others):
                    yield cause
            case ast.FunctionDef(name="_refusal" | "_lack"):
                returns = [inner for inner in ast.walk(node) if isinstance(inner, ast.Return)]
                texts = [each.value for one in returns for each in ast.walk(one) if isinstance(each, ast.Constant)]
                yield from (text for text in texts if isinstance(text, str))


def test_folders_import_one_way():
    """A folder imports those below it and no others, and an arrow that nobody uses any more is taken off the map."""
    found: dict[str, set[str]] = {}
    for module in set(MODULES) - FACE:
        folder = module.partition(".")[0]
        found.setdefault(folder, set()).update(target.partition(".")[0] for target in imports_of(module))
        found[folder].discard(folder)

    assert ARROWS == found


def test_imports_are_acyclic():
    """Following the imports from one module to the next never leads back to where one began."""
    left = {module: imports_of(module) for module in MODULES}
    while ends := [module for module, targets in left.items() if not targets & set(left)]:
        for module in ends:
            del left[module]

    assert {} == left


def test_no_two_classes_share_a_name():
    """A class is found by its name alone: no other class of the package has it, with or without an underscore."""
    names = Counter(
        node.name.lstrip("_")
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef)
    )

    assert [] == [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_but_the_standard_library(module):
    """Nothing else is needed at run time: each import is of the standard library, of this package, or of an extra."""
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

    assert [] == [name for name, item in called if ">>>" not in (item.__doc__ or "")]
    assert "SQLiteHandler" in dict(called)


def test_every_cause_of_drops_is_known():
    """Metrics and docs list the causes by `CAUSES`; one that only `_write` knew would be missing from them."""
    modules = [module for module in MODULES if module.startswith("_write.") and "retention" not in module]

    assert set(CAUSES) == {cause for module in modules for cause in causes(module)}


def test_every_module_has_its_tests():
    """The tests of `_write/queue.py` are in tests/unit/write/test_queue.py, so that nobody has to search for them."""
    without = set()
    for module, file in MODULES.items():
        *folders, name = [part.removeprefix("_") for part in module.split(".")]
        tests = Path(__file__).parent.joinpath("unit", *folders, f"test_{name}.py")
        if file.name not in {"__init__.py", "__main__.py"} and not tests.is_file():
            without.add(module)

    assert WITHOUT_TESTS == without
