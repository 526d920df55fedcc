"""
What the integration tests share: pages that are followed word for word, and programs that end in time.

Each module is about one page of docs/integrations, and about one package of others. Where the package is missing, the
module is skipped and says so: `pip install "sqlite-log-handler[integration]"` brings all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pages import DOCS, blocks_of, commands_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTEGRATIONS = DOCS / "integrations"

# A log with attributes, a traceback and a gap, for pages that are about reading one.
MAKE_LOG = """
import logging

from sqlite_log_handler import SQLiteHandler

handler = SQLiteHandler("app-log.db", capacity=200, fair_share=1)
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel("DEBUG")
orders = logging.getLogger("shop.orders")
orders.info("order %d paid", 42, extra={"amount": 19.9, "customer": "c-17"})
orders.warning("order %d has no address", 43)
try:
    {}["price"]
except KeyError:
    orders.exception("order %d has no price", 44)
handler.flush()
for number in range(10_000):
    logging.getLogger("shop.stock").debug("burst %d", number)
"""

# Seconds that nothing here takes, on no machine.
PATIENCE = 180

# This Python's commands come first.
PATH = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"

# The port that the pages name; each test has one of its own.
PORT = "8000"

# A machine may stall for longer than a handler waits at the end, by default, for the other processes that write. This
# is for the programs that tests put under load; a page is followed as it stands.
PATIENT = {
    'SQLiteHandler("app-log.db"': 'SQLiteHandler("app-log.db", close_timeout=60',
    '"filename": "app-log.db"': '"filename": "app-log.db", "close_timeout": 60',
}
# And for longer than others wait for a process of theirs, or for an answer.
DATASETTE_LIMITS = "--setting sql_time_limit_ms 60000 --setting facet_time_limit_ms 60000"
PATIENT_ENVIRONMENT = {"UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "60", "GUNICORN_CMD_ARGS": "--timeout 120"}

# Commands that go on until they are told to end, and what they print when they are ready; "" for those with a port.
SERVERS = {
    "celery -A tasks worker": " ready.",
    "datasette app-log.db": "",
    "fastapi ": "",
    "flask ": "",
    "gunicorn ": "",
    "huey_consumer ": "Huey consumer started",
    "hypercorn ": "",
    "python manage.py runserver": "",
    "python serve.py": "",
    "uvicorn ": "",
    "uwsgi ": "",
}

# Commands that take over the terminal, and what they are without one.
INTERACTIVE = {"lnav app-log.jsonl": "lnav -n app-log.jsonl"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark the tests of this folder, so that `-m "not integration"` leaves them out, and skip those that lack something.

    Nothing is imported to find that out: the packages are for the programs that the tests start.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("integration")
            needed = [name for mark in item.iter_markers("needs") for name in mark.args]
            missing = [name for name in needed if not is_there(name)]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}, which is not installed"))


def is_there(name: str) -> bool:
    """Tell whether there is a module or a command of this name."""
    with contextlib.suppress(ModuleNotFoundError):  # of the package that the module would be in
        if find_spec(name):
            return True
    return shutil.which(name, path=PATH) is not None


def wait_until(condition: Callable[[], Any]) -> Any:
    """Wait for what another program does, as long as `PATIENCE` lasts, and give what the condition gave at last."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return result


def free_port() -> int:
    """Find a port of the loopback that nobody uses."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def fetch(url: str) -> tuple[int, str]:
    """Get a page, error pages too: its status and its text."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def query(path: Path, sql: str, *parameters: object) -> list[Any]:
    """Read a log as another program would."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        return connection.execute(sql, parameters).fetchall()


def still_running(folder: Path) -> list[int]:
    """List the processes whose folder this is, as far as the system tells: those in a session of their own, too."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if link.readlink() == folder:
                found.append(int(link.parent.name))
    return found


class Program:
    """A program as a user starts it: a line in a shell, in a folder, with this Python first on the path."""

    def __init__(self, command: str, folder: Path, port: int, **environment: str) -> None:
        self.command = command
        self.port = port
        self._printed = folder / f"printed-{time.monotonic_ns()}.txt"
        with self._printed.open("wb") as output:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                cwd=folder,
                env={
                    **os.environ,
                    "PATH": PATH,
                    "HOME": str(folder),
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONIOENCODING": "utf-8",
                    **PATIENT_ENVIRONMENT,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """What it has printed until now."""
        return self._printed.read_text(encoding="utf-8", errors="backslashreplace")

    @property
    def is_listening(self) -> bool:
        """Whether it answers on its port."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_for(self, text: str) -> None:
        """Wait until it has printed `text`; without one, until it answers on its port."""
        ready = wait_until(
            lambda: self.process.poll() is not None or (text in self.printed if text else self.is_listening)
        )
        assert ready, f"{self.command} is not ready; it printed:\n{self.printed}"
        assert self.process.poll() is None, f"{self.command} ended:\n{self.printed}"

    def end(self, with_signal: int | None = None) -> int:
        """Wait for its end, after a signal if there is one, and give its exit status."""
        if with_signal is not None and self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.command} does not end; it printed:\n{self.printed}")
        finally:
            self.kill()

    def kill(self) -> None:
        """End it with all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


class Project:
    """An empty folder in which a page is followed, and programs are run."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.port = free_port()
        self.programs: list[Program] = []
        self.answers: list[list[Any]] = []  # of the SQL on the page
        self.printed: list[str] = []  # by the commands on the page

    wait_until = staticmethod(wait_until)

    @property
    def url(self) -> str:
        """Where its server listens."""
        return f"http://127.0.0.1:{self.port}"

    def write(self, *names: str) -> None:
        """Write the files of the page, or those with these names. One that is there is gone on with."""
        for block in blocks_of(self.page):
            if block.name and (not names or block.name in names):
                code = block.code
                for old, new in PATIENT.items():
                    code = code.replace(old, new)
                self._write(block.name, code)

    def _write(self, name: str, code: str) -> None:
        if name.endswith(".ipynb"):
            self._add_cell(self.folder / name, code)
            return
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(code.replace(PORT, str(self.port)))

    @staticmethod
    def _add_cell(notebook: Path, code: str) -> None:
        known = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.exists() else []
        cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": code}
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        made = {"cells": [*known, {**cell, "id": f"cell-{len(known)}"}], "metadata": {"kernelspec": kernel}}
        notebook.write_text(json.dumps({**made, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")

    def start(self, command: str, ready: str | None = None, **environment: str) -> Program:
        """Start a program, and wait until it is ready if it says so in any way."""
        if command.startswith("datasette "):
            command = f"{command} {DATASETTE_LIMITS}"
        program = Program(command.replace(PORT, str(self.port)), self.folder, self.port, **environment)
        self.programs.append(program)
        if ready is not None:
            program.wait_for(ready)
        return program

    def run(self, command: str, status: int = 0, **environment: str) -> str:
        """Run a program to its end, and give what it printed."""
        program = self.start(command, **environment)
        assert program.end() == status, f"{program.command} printed:\n{program.printed}"
        return program.printed

    def python(self, code: str, status: int = 0, name: str = "program.py", **environment: str) -> str:
        """Run a Python program, in which every warning is an error."""
        (self.folder / name).write_text(code, encoding="utf-8")
        return self.run(f"python -W error {name}", status, **environment)

    def log(self) -> None:
        """Make the log that the page is about."""
        self.python(MAKE_LOG, name="make_log.py")

    def follow(self) -> None:
        """
        Do what the page says, from top to bottom: write each file, run each command, ask each question.

        A server runs until the next one is started, or until the end of the page; questions are asked meanwhile.
        """
        for block in blocks_of(self.page):
            if block.language == "sql":
                [log] = self.folder.glob("*log.db")
                answer = wait_until(partial(query, log, block.code))
                assert answer, f"{self.page.name}:{block.line} finds nothing"
                self.answers.append(answer)
            elif block.name:
                self._write(block.name, block.code)
            elif block.language == "sh":
                for command in commands_of(block):
                    self._run_as_a_reader(command)
            else:
                assert block.language == "text", f"{self.page.name}:{block.line} is in no file"
        self.end_servers()

    def _run_as_a_reader(self, command: str) -> None:
        server = next((beginning for beginning in SERVERS if command.startswith(beginning)), None)
        if command.startswith("pip install "):
            return  # it is there, or the test would have been skipped
        if server:
            self.end_servers()
            self.start(command, SERVERS[server])
        elif command.startswith("curl "):
            address = shlex.split(command)[-1].replace(PORT, str(self.port))
            self.printed.append(fetch(address)[1])
        else:
            self.printed.append(self.run(INTERACTIVE.get(command, command)))

    def end_servers(self) -> None:
        """End what still runs, as Ctrl-C does."""
        for program in self.programs:
            if program.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.process.pid, signal.SIGINT)
                program.end()

    def fetch(self, path: str) -> tuple[int, str]:
        """Ask its server for a page: status and text."""
        return fetch(self.url + path)

    def query(self, sql: str, *parameters: object, name: str = "app-log.db") -> list[Any]:
        """Read its log."""
        return query(self.folder / name, sql, *parameters)

    def attributes(self, where: str, *parameters: object) -> dict[str, Any]:
        """Read the attributes of the one row that is meant."""
        [(text,)] = self.query(f"SELECT attributes FROM logs WHERE {where}", *parameters)
        return dict(json.loads(text or "{}"))


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """An empty folder for the page that the module is about: test_django.py for docs/integrations/django.md."""
    name = re.sub("_", "-", request.module.__name__.rpartition(".")[2].removeprefix("test_"))
    made = Project(INTEGRATIONS / f"{name}.md", tmp_path)

    yield made

    for program in made.programs:
        program.kill()
    gone = wait_until(lambda: not still_running(tmp_path))  # a process that was killed takes a moment to go
    for pid in still_running(tmp_path):
        os.kill(pid, signal.SIGKILL)
    assert gone, "the test leaves processes behind"
