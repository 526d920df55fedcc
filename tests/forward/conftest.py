"""
What the tests of `forward` share: the command as a process, receivers, and logs that are being written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

with contextlib.suppress(ImportError):  # without the extra; the modules of this folder say so, and are skipped
    from receivers import ENVIRONMENT, WATCHDOG, FaultServer, OtelTap, Rotel, errors_of, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.forward)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full numbers were asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A receiver that can be told to fail."""
    with serving() as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command whose output goes to files, and end it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        base = tmp_path / f"process{len(started)}"
        with open(f"{base}.out", "w") as out, open(f"{base}.err", "w") as err:
            process = subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
                cwd=tmp_path,
                env={**ENVIRONMENT, **(env or {})},
            )
        process.base = base  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield start

    for process in started:
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def forward(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Start `sqlite-log forward` with arguments."""
    return lambda *arguments, **options: start(
        sys.executable, "-W", "error", "-m", "sqlite_log_handler", "forward", *arguments, **options
    )


@pytest.fixture
def run_forward(forward: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Run `sqlite-log forward` to its end, which comes with the status `code`, and give what it said."""

    def run(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> str:
        process = forward(*arguments, env=env)
        process.wait(WATCHDOG)
        said = errors_of(process)
        assert code == process.returncode, said
        return said

    return run


WRITER = """
    import logging, sys
    from sqlite_log_handler import SQLiteHandler
    path, name, bursts, count, pause = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
    import time
    handler = SQLiteHandler(path, close_timeout=60)
    logger = logging.getLogger(name)
    logger.setLevel(1)
    logger.addHandler(handler)
    for burst in range(int(bursts)):
        for number in range(int(count)):
            logger.info("order %d of burst %d paid by customer c-%d", number, burst, number % 97)
        time.sleep(pause)
    handler.close()
    assert handler.dropped_total == 0
"""


@pytest.fixture
def write(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a program that logs bursts of records: `write(path, name, bursts, count, pause)`."""
    file = tmp_path / "writer.py"
    file.write_text(textwrap.dedent(WRITER))
    return lambda *arguments: start(sys.executable, file, *arguments)


@pytest.fixture
def filled(path: Path, write: Callable[..., subprocess.Popen[str]]) -> Callable[..., Path]:
    """Fill a log with so many rows, and give its path."""

    def fill(count: int, file: Path = path) -> Path:
        assert 0 == write(file, "shop.orders", 1, count, 0).wait(WATCHDOG)
        return file

    return fill


@pytest.fixture
def rotel(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., Rotel]:
    """Start Rotel: `rotel("--exporter", "blackhole")`."""

    def make(*exporter: str) -> Rotel:
        made = Rotel(start, tmp_path, *exporter)
        made.start()
        return made

    return make


@pytest.fixture
def oteltap(start: Callable[..., subprocess.Popen[str]]) -> OtelTap:
    """A running OtelTap."""
    tap = OtelTap(start)
    tap.start()
    return tap


@pytest.fixture
def litestream() -> str:
    """The binary of Litestream."""
    beside = shutil.which("litestream", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if beside is None:
        pytest.skip("needs Litestream: pip install 'sqlite-log-handler[test-forward]'")
    return beside
