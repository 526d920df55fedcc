"""
Fixtures, and the proof that no test leaves a thread, a file or a changed logging tree behind.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import re
import signal
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import freezegun
import pytest
from hypothesis import settings

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._write.listener import RecordListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping


# No deadline: that is a wall-clock bound. No database: it would be left in the checkout.
settings.register_profile("slow", deadline=None, database=None, derandomize="CI" in os.environ, print_blob=True)
settings.register_profile("quick", settings.get_profile("slow"), max_examples=10)

# freezegun looks at every attribute of every module, which makes the lazy ones of numpy import other packages.
freezegun.configure(extend_ignore_list=["numpy"])


# Seconds that no test takes, on no machine; and with --long.
WATCHDOG = 300
LONG_WATCHDOG = 7_200

# Where the watchdog writes: pytest takes what is written to `sys.stderr` while a test runs, and would end with it.
STDERR = pytest.StashKey[int]()


# Where files are memory: half of the time of a quick test would be SQLite's wait for the disk.
MEMORY = "/dev/shm"


def _has_room(folder: str) -> bool:
    """Tell whether the tests fit into a folder, and may start programs from it."""
    if not (hasattr(os, "statvfs") and os.access(folder, os.W_OK)):
        return False
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize > 1 << 30 and not system.f_flag & os.ST_NOEXEC


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the whole suite in two processes; a part of it that is named runs in one, where a debugger and `-s` work."""
    return 0 if config.args_source is pytest.Config.ArgsSource.ARGS else 2


def pytest_configure(config: pytest.Config) -> None:
    """
    Choose how many examples Hypothesis makes, a tenth of them without --slow, and keep the logs of quick tests in
    memory. Have programs end by SIGINT, which a shell's background jobs ignore, and all that they start with them.
    """
    config.stash[STDERR] = os.dup(2)
    logging.root.addHandler(logging.NullHandler())  # or `logging` would print the warnings that no test looks at
    config.option.slow |= config.option.long  # the full numbers are those of slow tests too
    settings.load_profile("slow" if config.getoption("--slow") else "quick")
    if not config.getoption("--slow") and "TMPDIR" not in os.environ and _has_room(MEMORY):
        tempfile.tempdir = os.environ["TMPDIR"] = MEMORY  # of this process, and of those that it starts
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose how much is run."""
    parser.addoption("--slow", action="store_true", help="run the slow tests as well, as .ci/run does")
    parser.addoption(
        "--long", action="store_true", help="run the slow tests as well, and the fault suite at its full numbers"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests, unless they are asked for: to skip each would take a second in all."""
    if not config.getoption("--slow"):
        slow = [item for item in items if "slow" in item.keywords]
        items[:] = [item for item in items if "slow" not in item.keywords]
        config.hook.pytest_deselected(items=slow)


def pytest_report_header(config: pytest.Config) -> str:
    """Tell which tests are run."""
    return "all tests" if config.getoption("--slow") else "all but the slow tests, which --slow runs too"


def pytest_collection_finish() -> None:
    """Let the collector leave alone what was imported: tests that collect the garbage took a third of a second each."""
    gc.collect()
    gc.freeze()


# Handlers by name, which dictConfig fills. typeshed does not know it.
HANDLERS_BY_NAME: MutableMapping[str, logging.Handler] = logging._handlers  # type: ignore[attr-defined]


class LoggerState(NamedTuple):
    """What a configuration can change in one logger."""

    level: int = logging.NOTSET
    propagate: bool = True
    disabled: bool = False
    handlers: tuple[logging.Handler, ...] = ()
    filters: tuple[Any, ...] = ()


class LoggingTree:
    """What is global in `logging`, as it was when this was made."""

    def __init__(self) -> None:
        self.state = self._globals()
        self.loggers = self._loggers()

    def changes(self) -> list[str]:
        """Say what differs now, one line each."""
        now, loggers = self._globals(), self._loggers()
        if (now, loggers) == (self.state, self.loggers):
            return []
        lines = [f"{name}: {was!r} became {now[name]!r}" for name, was in self.state.items() if was != now[name]]
        for logger in {**self.loggers, **loggers}:
            was, state = self.loggers.get(logger, LoggerState()), loggers.get(logger, LoggerState())
            lines += [
                f"logger {logger.name!r}, {field}: {before!r} became {after!r}"
                for field, before, after in zip(LoggerState._fields, was, state, strict=True)
                if before != after
            ]
        return lines

    def restore(self) -> None:
        """Put everything back, and close the handlers that came since."""
        known = {handler for state in self.loggers.values() for handler in state.handlers}
        known.update(self.state["handler names"].values())
        loggers = self._loggers()
        came = {handler for state in loggers.values() for handler in state.handlers}
        came.update(HANDLERS_BY_NAME.values())
        for logger in {**self.loggers, **loggers}:
            was = self.loggers.get(logger, LoggerState())
            logger.setLevel(was.level)
            logger.propagate, logger.disabled = was.propagate, was.disabled
            logger.handlers[:] = was.handlers
            logger.filters[:] = was.filters
        for handler in came - known:
            handler.close()
        HANDLERS_BY_NAME.clear()
        HANDLERS_BY_NAME.update(self.state["handler names"])
        logging.disable(self.state["manager.disable"])
        logging.raiseExceptions = self.state["raiseExceptions"]
        logging.lastResort = self.state["lastResort"]
        logging.setLogRecordFactory(self.state["log record factory"])
        logging.setLoggerClass(self.state["logger class"])
        logging.captureWarnings(self.state["warnings captured"])

    @staticmethod
    def _globals() -> dict[str, Any]:
        return {
            "manager.disable": logging.root.manager.disable,
            "raiseExceptions": logging.raiseExceptions,
            "lastResort": logging.lastResort,
            "handler names": dict(HANDLERS_BY_NAME),
            "log record factory": logging.getLogRecordFactory(),
            "logger class": logging.getLoggerClass(),
            "warnings captured": logging._warnings_showwarning is not None,  # type: ignore[attr-defined]
        }

    @staticmethod
    def _loggers() -> dict[logging.Logger, LoggerState]:
        """Return the state of each logger that is not as it was made."""
        loggers = {}
        for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
            if isinstance(logger, logging.PlaceHolder):
                continue
            if logger.level or not logger.propagate or logger.disabled or logger.handlers or logger.filters:
                state = (logger.level, logger.propagate, logger.disabled, tuple(logger.handlers), tuple(logger.filters))
                loggers[logger] = LoggerState(*state)
        return loggers


class Clock:
    """
    A time that moves when it is told to. Call it for the time.

    Args:
        now: Seconds to begin with.
    """

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds


def _open_below(folder: Path) -> list[str]:
    """Name the files below *folder* that this process has open, as far as the system tells."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{descriptor}")
                if target.startswith(f"{folder}{os.sep}"):
                    found.append(target)
    return found


@pytest.fixture(autouse=True)
def _watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """Turn a deadlock into a failure that shows where every thread stands."""
    seconds = LONG_WATCHDOG if request.config.getoption("--long") else WATCHDOG
    faulthandler.dump_traceback_later(seconds, file=request.config.stash[STDERR], exit=True)

    yield

    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Fail a test that leaves a thread, a changed logging tree, or an open file of its own folder.

    Being the first fixture of a test, it looks after all others have cleaned up. What it finds is put right as
    far as that can be, so that the next test is judged for itself.
    """
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    threads = set(threading.enumerate())
    tree = LoggingTree()

    yield

    faults = []
    # A reporter in a call of another handler is left to go by itself: that is promised, so it gets the time to.
    patience = time.monotonic() + 60
    while left := set(threading.enumerate()) - threads:
        for thread in left:
            with contextlib.suppress(RuntimeError):  # counted among the others before it is started
                thread.join(max(0, patience - time.monotonic()))
        if time.monotonic() > patience:
            faults += [f"thread left: {thread!r}" for thread in left]
            break
    changes = tree.changes()
    if changes:
        faults += changes
        tree.restore()
    if folder is not None:
        while (left_open := _open_below(folder.resolve())) and time.monotonic() < patience:
            time.sleep(0.01)  # a thread of a library, as Arrow has them, may be about to close it
        faults += [f"file left open: {name}" for name in left_open]
    if faults:
        pytest.fail("the test leaves behind:\n  " + "\n  ".join(faults), pytrace=False)


@pytest.fixture
def logging_tree() -> Iterator[LoggingTree]:
    """Put the logging tree back after a test that configures it, and close the handlers that came with it."""
    tree = LoggingTree()

    yield tree

    tree.restore()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test keeps its log."""
    return tmp_path / "app-log.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the archive of the log."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def make_handler(path: Path) -> Iterator[Callable[..., SQLiteHandler]]:
    """
    Make handlers: `make_handler(**options)` on `path`, `make_handler(filename, **options)` elsewhere.

    They have a minute to flush and to close: the usual five seconds may pass while the machine stands still.
    """
    made = []

    def make(filename: str | os.PathLike[str] = path, **options: Any) -> SQLiteHandler:
        handler = SQLiteHandler(filename, **{"close_timeout": 60, **options})
        made.append(handler)
        return handler

    yield make

    for handler in made:
        handler.close()


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of the test's own, which lets everything through, passes nothing on, and is gone after the test."""
    name = "test." + re.sub(r"\W+", "_", request.node.name)
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(1)

    yield logger

    del logging.root.manager.loggerDict[name]


@pytest.fixture
def query(path: Path) -> Callable[..., list[Any]]:
    """Read the log as another program would: `query(sql, *parameters)` gives the rows."""

    def rows(sql: str, *parameters: object) -> list[Any]:
        # mode=rw: a wrong path is an error here, not a new and empty database.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return rows


@pytest.fixture
def clock() -> Clock:
    """A fake clock: `clock()` and `clock.now` tell the time, `clock.advance(seconds)` moves it."""
    return Clock()


@pytest.fixture
def lock(path: Path) -> Iterator[Callable[[], None]]:
    """Another connection that locks the database: `lock()`, and again to let go."""
    connection = sqlite3.connect(path, isolation_level=None)

    def toggle() -> None:
        connection.execute("ROLLBACK" if connection.in_transaction else "BEGIN IMMEDIATE")

    yield toggle

    connection.close()


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have each file system copy on write, as btrfs does, and let folders be full: `fill("/var/log")`, `fill()`."""
    if not hasattr(os, "statvfs"):
        pytest.skip("the system does not tell how much room a disk has")
    system = os.statvfs

    def fill(*full: Path) -> None:
        def statvfs(path: str) -> os.statvfs_result:
            found = system(path)
            blocks = 1_000 if any(map(Path(path).resolve().is_relative_to, full)) else 1 << 19
            return os.statvfs_result((4_096, 4_096, 1 << 20, blocks, blocks, 0, 0, 0, found.f_flag, found.f_namemax))

        monkeypatch.setattr(os, "statvfs", statvfs)

    return fill


@pytest.fixture
def unattended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers whose listener starts no thread: ticks come when the test calls `handler.listener.handle(None)`."""
    monkeypatch.setattr(RecordListener, "_start_thread", lambda self, thread: None)
