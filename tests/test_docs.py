"""
The documentation is true: every code block runs, and the reference leaves nothing out.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import doctest
import inspect
import json
import logging
import logging.config
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from code import InteractiveConsole
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pages import DOCS, README, ROOT, Block, blocks_of, commands_of

import sqlite_log_handler
from sqlite_log_handler import Books, Bucket, Cursor, Gap, LogReader, LogStats, Pattern, SQLiteHandler, Stats, Talker
from sqlite_log_handler._cli.main import COMMANDS, command_of
from sqlite_log_handler._logfile.schema import CAUSES, SCHEMA
from sqlite_log_handler._read.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = DOCS / "reference.md"
# These are followed word for word, each by a module of tests/integration. Here is only what needs no other package.
INTEGRATIONS = sorted((DOCS / "integrations").glob("*.md"))
PAGES = [README, *sorted(DOCS.glob("*.md")), *INTEGRATIONS]
COMMAND_LINE = DOCS / "command-line.md"

CONFIGURATIONS: dict[str, Callable[[str], Any]] = {
    "toml": tomllib.loads,
    "json": json.loads,
    "yaml": yaml.safe_load,
    "ini": str,
}
SHELL = {"console", "sh"}
# Languages of blocks that no test runs, with the reason.
NOT_RUN = {
    "text": "shows what is printed, or a picture",
    "nginx": "is for another program",
    "{eval-rst}": "is for the site, which .ci/run builds",
    "{include}": "the same",
    "{toctree}": "the same",
}
# Beginnings of shell lines that no test runs, with the reason.
NOT_RUN_LINES = {
    "pip install ": "needs a package index; the README's commands are run by .ci/run",
    "python -m pip install ": "the same",
    "python -m pytest": "would run this suite within itself",
    "python -m tests.benchmarks": "takes minutes, and measures the machine",
    "sqlite-log forward ": "needs a receiver: tests/forward has several, and runs it",
    "sqlite-log serve ": "runs until it is interrupted; tests/browser drives it",
    "eval ": "is for a shell: tests/unit/cli/test_completion.py completes in several",
    "ssh ": "needs another machine",
    "python -m chdb ": "needs an engine: tests/forward runs the line as it stands in the page",
    "flock ": "needs a log in use: tests/faults/test_not_promised.py copies one under the lock",
    "litestream ": "needs a binary: tests/forward runs the line as it stands in the page",
    "python docs/fleet.py": "tests/test_fleet.py compares what it prints with the page",
    "python3 -m venv ": "needs a package index; .ci/run types the two lines of the README",
    "sqlite-log demo": "the demo has tests of its own, and is run by .ci/run",
    "sqlite-log app-log.db -f": "runs until it is interrupted; tests/test_cli.py follows",
}


def each_block(*languages: str) -> pytest.MarkDecorator:
    """Run a test once for every block in one of *languages*."""
    chosen = [block for block in RUN_HERE if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=[f"{block.page.name}:{block.line}" for block in chosen])


def name_of(page: Path) -> str:
    """Name a page in the output of pytest."""
    return page.name


BLOCKS = [block for page in PAGES if page.exists() for block in blocks_of(page)]
# tests/test_screens.py compares the screens of that page with what its commands print.
SCREENS = (DOCS / "night.md", "console")
RUN_HERE = [b for b in BLOCKS if b.page not in INTEGRATIONS and (b.page, b.language) != SCREENS]


def write_configurations(page: Path, folder: Path) -> None:
    """Put the configurations that a page shows where its code looks for them."""
    for block in BLOCKS:
        if block.page == page and block.language in CONFIGURATIONS:
            (folder / (block.name or f"logging.{block.language}")).write_text(block.code, encoding="utf-8")


def script_of(page: Path) -> str:
    """Join the Python blocks of a page to one script whose line numbers are those of the page."""
    lines: list[str] = []
    for block in BLOCKS:
        if block.page == page and block.language == "python":
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.code.splitlines()
    return "\n".join(lines) + "\n"


def is_left_out(command: str) -> bool:
    """Tell whether a command is one of those that no test runs."""
    return any(command.startswith(beginning) for beginning in NOT_RUN_LINES)


@pytest.fixture(scope="module")
def demo_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log with several loggers and levels, a traceback, attributes, and a gap."""
    path = tmp_path_factory.mktemp("docs") / "app-log.db"
    handler = SQLiteHandler(path, capacity=100, close_timeout=60)
    logger = logging.getLogger("test_docs")
    child = logger.getChild("requests")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        logger.info("started")
        child.warning("slow", extra={"request_id": "r-1", "seconds": 1.5})
        try:
            json.loads("{")
        except ValueError:
            child.exception("failed")
        handler.flush()
        for number in range(500):
            child.debug("burst %d", number)
    finally:
        handler.close()
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    return path


@pytest.mark.parametrize("page", [*PAGES, REFERENCE], ids=name_of)
def test_page_is_there(page):
    """README.md and docs/reference.md are there to be read, and every page of docs says something."""
    assert page.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_tested_or_excused(page):
    """A code block is in a language that is run or parsed here, or in one that a reason excuses."""
    known = {"python", "sql", *CONFIGURATIONS, *SHELL, *NOT_RUN}

    assert [] == [f"{page.name}:{b.line}: {b.language!r}" for b in blocks_of(page) if b.language not in known]


@pytest.mark.parametrize("page", sorted({b.page for b in RUN_HERE if b.language == "python"}), ids=name_of)
def test_python_blocks_run(page, tmp_path):
    """The Python blocks of a page run one after the other, in one process, without an error or a warning."""
    write_configurations(page, tmp_path)
    script = tmp_path / f"{page.stem}.py"
    script.write_text(script_of(page), encoding="utf-8")
    package = str(Path(sqlite_log_handler.__file__).parent.parent)

    run = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": package, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )

    assert 0 == run.returncode, f"the lines are those of {page.name}:\n{run.stderr}"
    assert "--- Logging error ---" not in run.stderr
    assert "Exception ignored" not in run.stderr


@each_block("python")
def test_python_blocks_can_be_pasted(block, monkeypatch):
    """
    A Python block may be pasted into the interactive `python`.

    Up to Python 3.12, a blank line ends a statement there, and one that is indented goes on until a blank line: a block
    with a statement right after a `with` block was a SyntaxError, and one with a blank line inside of it as well.
    """
    console = InteractiveConsole()
    errors: list[str] = []
    monkeypatch.setattr(console, "showsyntaxerror", lambda *_, **__: errors.append(str(sys.exc_info()[1])))
    monkeypatch.setattr(console, "runcode", lambda _: None)

    unfinished = [console.push(line) for line in [*block.code.splitlines(), ""]][-1]

    assert ([], False) == (errors, unfinished)


@each_block(*CONFIGURATIONS)
def test_configurations_are_accepted(block, tmp_path, monkeypatch, logging_tree):
    """A TOML, JSON or YAML block parses, and logging takes it if it is a configuration of logging, as it does INI."""
    monkeypatch.chdir(tmp_path)
    if block.language == "ini":
        parser = configparser.RawConfigParser()
        parser.read_string(block.code)
        if parser.has_section("loggers"):
            logging.config.fileConfig(parser)
        return

    configuration = CONFIGURATIONS[block.language](block.code)
    if isinstance(configuration, dict) and "version" in configuration:
        logging.config.dictConfig(configuration)


@each_block("sql")
def test_sql_blocks_run(block, tmp_path, demo_database):
    """An SQL block runs against a log; one that creates tables runs in a database of its own."""
    path = tmp_path / "app-log.db"
    if not re.match(r"\s*create\b", block.code, re.IGNORECASE):
        shutil.copy(demo_database, path)
    pending = ""

    with contextlib.closing(sqlite3.connect(path)) as connection:
        for line in block.code.splitlines(keepends=True):
            pending += line
            if sqlite3.complete_statement(pending):
                connection.execute(pending).fetchall()
                pending = ""
        if pending.strip():
            connection.execute(pending).fetchall()


def test_a_reader_takes_what_the_pages_add(tmp_path, demo_database):
    """
    What a page tells people to add to a log, within a sentence too, makes no reader refuse it.

    The page on OpenTelemetry recommended an index by JSON, which each reader refuses.
    """
    path = tmp_path / "app-log.db"
    shutil.copy(demo_database, path)
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    added = re.findall(r"\b(?:CREATE|ALTER) (?:[A-Z]+ )*(?:INDEX|VIEW|TRIGGER|TABLE) [^`;]+", text)

    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in added:
            connection.execute(statement)
    with LogReader(path) as reader:
        assert (True, []) == (len(added) > 0, reader.check())


def test_every_page_is_in_the_site():
    """Each page of docs stands in a table of contents of docs/index.md, and each table names pages that are there."""
    index = DOCS / "index.md"
    tables = "\n".join(block.code for block in blocks_of(index) if block.language == "{toctree}")
    listed = [line for line in tables.splitlines() if line and not line.startswith(":")]

    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES if page not in (README, index)}
    assert pages == set(listed)


def test_the_tree_is_that_of_the_package():
    """The page about the design shows each folder of the package, and CONTRIBUTING.md shows the same tree."""
    trees = [block.code for block in blocks_of(DOCS / "design.md") if block.code.startswith("sqlite_log_handler/\n")]
    (tree,) = trees
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    package = Path(sqlite_log_handler.__file__).parent
    folders = {path.parent.name for path in package.rglob("*.py")} - {package.name}

    assert folders == set(re.findall(r"^ +(\w+)/", tree, re.MULTILINE))
    assert tree.rstrip() in contributing


@pytest.mark.parametrize("page", INTEGRATIONS, ids=name_of)
def test_integrations_are_followed(page):
    """Each how-to of an integration has a module of tests, and says of each piece of code in which file it belongs."""
    files = [block for block in blocks_of(page) if block.language not in {*SHELL, *NOT_RUN, "sql"}]
    tests = Path(__file__).parent / "integration" / f"test_{page.stem.replace('-', '_')}.py"

    assert [] == [f"{page.name}:{block.line}" for block in files if block.name is None]
    # A page whose program is started by systemd or by Docker has no command to follow.
    follows = "project.write(" if page.stem in {"docker", "systemd"} else "project.follow()"
    assert follows in tests.read_text(encoding="utf-8")
    for block in files:
        if block.language == "python":
            compile(block.code, f"{page.name}:{block.line}", "exec")


@each_block(*SHELL)
def test_shell_commands_run(block, tmp_path, demo_database):
    """A command that asks `sqlite-log` or the sqlite3 shell is answered; every other one is excused by a reason."""
    commands = [command for command in commands_of(block) if not is_left_out(command)]
    environment = {**os.environ, **sqlite_log(tmp_path), "SQLITE_LOG_DB": "demo-log.db"}

    assert [] == [command for command in commands if not command.startswith(("sqlite3 ", "sqlite-log ", "export "))]
    for command in commands:
        if command.startswith("sqlite3 ") and not shutil.which("sqlite3"):
            continue
        for name in {*re.findall(r"[\w-]+\.db\b", command), "demo-log.db"}:
            shutil.copy(demo_database, tmp_path / name)
        run = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        # 1: in this log, nothing matches.
        assert run.returncode in ({0, 1} if command.startswith("sqlite-log ") else {0}), command
        # This log has other loggers than the one in the page.
        assert "" == re.sub(r"sqlite-log: no logger '[\w.]+'.*\n", "", run.stderr), command


def sqlite_log(folder: Path) -> dict[str, str]:
    """
    Put the command `sqlite-log` of the package under test into a folder, and return the environment that finds it.
    """
    package = Path(sqlite_log_handler.__file__).parent.parent
    script = folder / "bin" / "sqlite-log"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sqlite_log_handler "$@"\n')
    script.chmod(0o755)
    return {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(package)}


def renderings(value: object) -> list[str]:
    """List the ways in which a default may be written."""
    if isinstance(value, str):
        return [f'"{value}"', f"`{value}`"]
    if value == logging.NOTSET:
        return ["NOTSET"]
    ways = [rf"`{value}`", f"`{value!r}`", f" {value!r} "]
    if isinstance(value, int):
        ways += [f"{value:_}", f"{value:,}"]
        ways += [f"{value // unit} {name}" for name, unit in (("KiB", 1 << 10), ("MiB", 1 << 20)) if value % unit == 0]
    return ways


@pytest.mark.parametrize(
    "option", list(inspect.signature(SQLiteHandler).parameters.values()), ids=lambda option: option.name
)
def test_reference_has_every_option(option):
    """Every option of the handler has a row in the reference, with its default."""
    rows = re.findall(rf"^\| *`{option.name}` *\|.*$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)

    assert rows, f"docs/reference.md has no row that begins with | `{option.name}` |"
    if option.default is not inspect.Parameter.empty:
        ways = renderings(option.default)
        assert any(way in row for row in rows for way in ways), f"none of {ways} stands in {rows}"


def test_an_editor_names_every_option():
    """At a call an editor shows the docstring of `__init__`, and without one it showed that of `logging.Handler`."""
    shown = inspect.getdoc(SQLiteHandler.__init__) or ""

    assert [] == [name for name in inspect.signature(SQLiteHandler).parameters if f"\n    {name}: " not in shown]


@pytest.mark.parametrize(
    "word",
    [
        *Stats._fields,
        *CAUSES,
        *(name for name in sqlite_log_handler.__all__ if name.endswith("Error")),
    ],
)
def test_reference_has_every_name(word):
    """Every field of Stats, every cause of a drop and every error of the package stands in the reference."""
    assert re.search(rf"`[\w.]*\b{word}\b[^`\n]*`", REFERENCE.read_text(encoding="utf-8"))


def test_reference_has_every_table_and_column():
    """The reference names every table and view of a log, and every column of each."""
    text = REFERENCE.read_text(encoding="utf-8")
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
        ]
        columns = {
            f"{table}.{column}"
            for table in tables
            for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        }

    assert [] == [name for name in [*tables, *columns] if f"`{name.rpartition('.')[2]}`" not in text]


@pytest.mark.parametrize("name", sqlite_log_handler.__all__)
def test_docstring_examples(name, tmp_path, monkeypatch, logging_tree):
    """The examples in the docstring of a public name give what stands below them; those that read find a log."""
    monkeypatch.chdir(tmp_path)
    log = SQLiteHandler("app-log.db")
    log.handle(logging.makeLogRecord({"name": "shop", "levelno": logging.WARNING, "msg": "stock of tea is low"}))
    log.close()
    globs = {"logging": logging, **{each: getattr(sqlite_log_handler, each) for each in sqlite_log_handler.__all__}}
    examples = doctest.DocTestFinder(exclude_empty=True).find(getattr(sqlite_log_handler, name), name, globs=globs)

    assert 0 == sum(doctest.DocTestRunner().run(example).failed for example in examples)


def section_of(page: Path, title: str) -> str:
    """Return what stands under a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading ## {title}"
    return found[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_flag_has_its_place(command):
    """docs/command-line.md has a section for each command, with each of its flags, and a screen of its output."""
    section = section_of(COMMAND_LINE, command)
    shared = section_of(COMMAND_LINE, "Which records")
    flags = [
        flag
        for action in command_of(command).parser()._actions
        for flag in action.option_strings
        if flag not in {"-h", "--help"}
    ]

    assert f"| `sqlite-log {command}" in COMMAND_LINE.read_text("utf-8")
    assert [] == [flag for flag in flags if not re.search(rf"^\|.*`{flag}\b", section + shared, re.MULTILINE)]
    assert f"$ sqlite-log {command}" in section or command == "show"


@pytest.mark.parametrize("name", sorted({*Filters.__annotations__, *(n for n in vars(LogReader) if n[0] != "_")}))
def test_every_method_and_filter_of_the_reader_has_its_place(name):
    """docs/reader.md names every method of LogReader and every filter."""
    assert re.search(rf"`(\w+\.)?{name}\b", (DOCS / "reader.md").read_text("utf-8"))


@pytest.mark.parametrize(
    "kind", [Books, Bucket, Cursor, Gap, LogStats, Pattern, Talker], ids=lambda kind: kind.__name__
)
def test_every_number_of_the_reader_has_its_place(kind):
    """docs/reader.md names every field of what LogReader returns."""
    text = (DOCS / "reader.md").read_text("utf-8")

    assert [] == [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in text]


def test_blocks_are_found_as_a_reader_sees_them(tmp_path):
    """Blocks in lists and after other blocks are found, with the line and the file name that the page gives them."""
    page = tmp_path / "page.md"
    page.write_text("In `a.toml`:\n\n```toml\nx = 1\n```\n\n- then\n\n  ```python\n  if x:\n      y\n  ```\n")

    expected = [Block(page, "toml", 4, "x = 1\n", "a.toml"), Block(page, "python", 10, "if x:\n    y\n", None)]
    assert expected == blocks_of(page)


def test_commands_are_found_as_a_reader_sees_them(tmp_path):
    """Output is no command, a comment is none, and a command may run over several lines."""
    console = Block(tmp_path, "console", 1, "$ sqlite3 a.db 'select\n> 1'\n1\n$ pip install .\n", None)
    script = Block(tmp_path, "sh", 1, "# ask\nsqlite3 a.db \\\n  'select 1'\n", None)

    assert ["sqlite3 a.db 'select\n1'", "pip install ."] == commands_of(console)
    assert ["sqlite3 a.db \\\n  'select 1'"] == commands_of(script)


def test_every_line_of_the_reliability_page_has_its_test() -> None:
    """Each promise, each trap and whatever is not promised names a test that is there, or says why it has none."""
    page = (DOCS / "reliability.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    items = re.findall(r"^\| (?!trap |-)(.*)$", sections["The traps, one by one"], re.MULTILINE)
    for title in ("What is promised", "What is not promised"):
        items += re.findall(r"^- (.*?)(?=^- |^\n|\Z)", sections[title], re.MULTILINE | re.DOTALL)
    tests = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))

    assert 150 <= len(items)
    assert [] == [item for item in items if not re.search(r"`test_\w+`|\(no test: ", item)]
    assert set() == set(re.findall(r"`(test_\w+)`", page)) - set(re.findall(r"def (test_\w+)", tests))
