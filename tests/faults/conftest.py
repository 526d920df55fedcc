"""
What the fault tests share: programs that run under a watchdog, and the judgement of a log file.
"""

from __future__ import annotations

import contextlib
import logging.handlers
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import sqlite_log_handler
from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._logfile.schema import OWN_LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Seconds that no program of these tests takes, on no machine. Then it shows its stacks and ends.
WATCHDOG = 300
LONG_WATCHDOG = 1_800

# Lines are those of the test's program: the prelude is one line. When the machine stalls for some seconds, the program
# neither gives up nor says so: no test is about how long that takes by default.
PRELUDE = (
    "import atexit, contextlib, gc, json, logging, logging.config, logging.handlers; "
    "import os, signal, sqlite3, sys, threading; "
    "from sqlite_log_handler import SQLiteHandler; "
    "from sqlite_log_handler._write import outage as _outage, process as _process, queue as _queue, volume as _volume; "
    "path, arguments = sys.argv[1], sys.argv[2:]; "
    "SQLiteHandler.__init__.__kwdefaults__['close_timeout'] = _outage.TURN_OUTAGE_AFTER = _queue.MUTEX_TIMEOUT = 60; "
    "_process.FORK_TIMEOUT = 60; _volume.FOLD_ROWS = 20; "
    "logger = logging.getLogger('program'); logger.setLevel(1)\n"
)

SHIM = r"""
/* Fails the n-th call that touches the files whose path begins with a prefix, all later ones too if it is sticky, or
   kills the process there if the error is a signal below zero; or holds up every write to them, as a disk does that
   answers no more, until it is thawed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static char prefix[4096];
static long left;
static int code, sticky, fired;
static volatile int frozen, held;

void fault_arm(const char *path, long n, int error, int lasting) {
    snprintf(prefix, sizeof prefix, "%s", path);
    left = n; code = error; sticky = lasting; fired = 0;
}
int fault_disarm(void) { left = 0; return fired; }
long fault_left(void) { return left; }

static int fails(const char *path) {
    if (left <= 0 || strncmp(path, prefix, strlen(prefix))) return 0;
    if (left > 1) { left--; return 0; }
    if (code < 0) kill(getpid(), -code);
    if (!sticky) left = 0;
    fired++; errno = code;
    return 1;
}
void fault_freeze(const char *path) { snprintf(prefix, sizeof prefix, "%s", path); held = 0; frozen = 1; }
void fault_thaw(void) { frozen = 0; }
int fault_held(void) { return held; }

static int fails_fd(int fd) {
    char link[64], path[4096];
    if (left <= 0 && !frozen) return 0;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    while (frozen && !strncmp(path, prefix, strlen(prefix))) {
        struct timespec moment = {0, 1000000};
        held = 1;
        nanosleep(&moment, 0);
        errno = saved;
    }
    return fails(path);
}
#define NEXT(name) __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define PWRITE(name, offset) ssize_t name(int fd, const void *b, size_t n, offset at) { \
    NEXT(name); return fails_fd(fd) ? -1 : next(fd, b, n, at); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
ssize_t write(int fd, const void *b, size_t n) { NEXT(write); return fails_fd(fd) ? -1 : next(fd, b, n); }
static int kills(const char *path) { return code < 0 && fails(path); }
int rename(const char *old, const char *new) { NEXT(rename); kills(old); return next(old, new); }
int unlink(const char *path) { NEXT(unlink); kills(path); return next(path); }
int fsync(int fd) { NEXT(fsync); return fails_fd(fd) ? -1 : next(fd); }
int fdatasync(int fd) { NEXT(fdatasync); return fails_fd(fd) ? -1 : next(fd); }
int ftruncate(int fd, off_t n) { NEXT(ftruncate); return fails_fd(fd) ? -1 : next(fd, n); }
int ftruncate64(int fd, off64_t n) { NEXT(ftruncate64); return fails_fd(fd) ? -1 : next(fd, n); }
#define OPEN(name) int name(const char *path, int flags, ...) { \
    NEXT(name); va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
    return fails(path) ? -1 : next(path, flags, mode); }
OPEN(open)
OPEN(open64)
"""


class Contents(NamedTuple):
    """What is in a log: by the first word of a message the numbers behind it, in order; and what the ledger counts."""

    numbers: dict[str, list[int]]
    dropped: int
    warned: int


def judge(path: str | os.PathLike[str]) -> Contents:
    """Read a log whose messages are "WHO NUMBER", and check what must be true of any."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        assert [] == connection.execute("PRAGMA foreign_key_check").fetchall()
        rows = connection.execute("SELECT id, logger, message FROM logs ORDER BY id").fetchall()
        (stored,) = connection.execute("SELECT count(*) FROM records").fetchone()
        (dropped,) = connection.execute("SELECT coalesce(sum(count), 0) FROM drops").fetchone()
        (warned,) = connection.execute(
            "SELECT coalesce(sum(json_extract(attributes, '$.dropped')), 0) FROM logs WHERE logger = ?", (OWN_LOGGER,)
        ).fetchone()
        ((volume, pruned),) = connection.execute(
            "SELECT (SELECT sum(records) FROM volume), (SELECT count(*) FROM prunes)"
        )
    # Each row is counted once, whatever became of a fold.
    assert pruned or (volume or 0) == stored
    # Each row has its source and its process: the view loses none.
    assert stored == len(rows)
    numbers: dict[str, list[int]] = {}
    for _, logger, message in rows:
        if logger != OWN_LOGGER:
            who, number = message.rsplit(" ", 1)
            numbers.setdefault(who, []).append(int(number))
    for who, found in numbers.items():
        assert found == sorted(set(found)), f"{who}: not in order, or there twice"
    assert dropped == warned
    return Contents(numbers, dropped, warned)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the full numbers were asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def contents(path: Path) -> Callable[..., Contents]:
    """Return what is in the log of the test, once it was judged; or in another: `contents(path)`."""
    return lambda other=path: judge(other)


@pytest.fixture
def start(path: Path, tmp_path: Path, long: bool) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """
    Start a program that knows `path`, `arguments`, `logger` and `SQLiteHandler`; a hang ends it and shows its stacks.

    From a file, not by `-c`: multiprocessing imports it again.
    """
    started = []
    environment = {
        **os.environ,
        # Where the package under test is: a program in another folder is to find the same one.
        "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__)),
        "PYTHONFAULTHANDLER": "1",
    }

    def start(
        program: str, *arguments: object, options: Any = ("-W", "error"), wrap: Any = (), env: Any = (), **others: Any
    ) -> subprocess.Popen[str]:
        file = tmp_path / f"program{len(started)}.py"
        file.write_text(PRELUDE + textwrap.dedent(program))
        command = [*wrap, sys.executable, *options, str(file), str(path), *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command,
            **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **others},
            text=True,
            start_new_session=True,
            env={**environment, **dict(env)},
        )
        started.append(process)
        return process

    yield start

    for process in started:
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[str]], long: bool) -> Callable[..., str]:
    """Run a program to its end, which must come with `code`, and with nothing but `stderr` (a pattern) on stderr."""

    def run(program: str, *arguments: object, code: int = 0, stderr: str = "", **options: Any) -> str:
        process = start(program, *arguments, **options)
        try:
            out, err = process.communicate(timeout=LONG_WATCHDOG if long else WATCHDOG)
        except subprocess.TimeoutExpired:
            # Not by faulthandler.dump_traceback_later: a forked child waits at its end for that thread, for ever.
            os.killpg(process.pid, signal.SIGABRT)
            out, err = process.communicate()
            pytest.fail(f"hangs:\n{out}\n{err}", pytrace=False)
        assert (code, True) == (process.returncode, bool(re.fullmatch(stderr, err, re.DOTALL))), f"{out}\n{err}"
        return out

    return run


@pytest.fixture
def warnings(logging_tree: object) -> list[logging.LogRecord]:
    """The drop warnings; they go nowhere else."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    own = logging.getLogger(OWN_LOGGER)
    own.addHandler(Keep())
    own.propagate = False
    return records


@pytest.fixture
def said() -> list[str]:
    """The lines for the operator."""
    return []


@pytest.fixture
def make(
    make_handler: Callable[..., SQLiteHandler],
    unattended: None,
    clock: Callable[[], float],
    logger: logging.Logger,
    warnings: list[logging.LogRecord],
    said: list[str],
) -> Callable[..., SQLiteHandler]:
    """Make a handler that is driven by hand, on a clock that is moved by hand, attached to the test's logger."""

    def make(**options: Any) -> SQLiteHandler:
        handler = make_handler(**{"flush_interval": 0.1, "close_timeout": 0, **options})
        listener = handler.listener
        listener.committer.operator.say = said.append  # type: ignore[method-assign]
        pruner = listener.committer.writer.pruner
        listener.committer.now = clock
        if pruner is not None:
            pruner._clock = pruner.wal._clock = clock
        listener.committer._sleep = clock.advance
        logger.addHandler(handler)
        return handler

    return make


@pytest.fixture
def log(logger: logging.Logger) -> Callable[..., None]:
    """Log `count` records, numbered on: `log(count)`; `log.logged` has the numbers."""
    logged: list[int] = []

    def log(count: int, text: str = "") -> None:
        for _ in range(count):
            logger.info("%sn %d", text, len(logged))
            logged.append(len(logged))

    log.logged = logged
    return log


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes system calls fail, to be preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler here, or no Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", "shim.so", "shim.c", "-ldl"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the compiler cannot build a library: {done.stderr[:200]}")
    return str(folder / "shim.so")


@pytest.fixture(scope="session")
def strace() -> str:
    """The path of an strace that may trace and inject faults."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("no strace here")
    done = subprocess.run(
        [found, "-f", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]}")
    return found


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of its own below the test's folder: `mounted(*arguments of mount)`; returns its folder."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = []

    def mount(*arguments):
        if shutil.which("mount") is None:
            pytest.skip("no mount here")
        done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount

    for place in mounted:
        subprocess.run(["umount", place], check=True)
