"""
The demo: real work, logged by several threads, while another process locks the database and one logger floods.

It shows that callers go on, that the queue stays small, that the flood is dropped and counted while the others lose
nothing, that the warnings say so, and that calls, counters and the file agree in the end.
"""

import argparse
import hashlib
import itertools
import logging
import logging.config
import os
import pprint
import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlite_log_handler._cli import incident
from sqlite_log_handler._cli.arguments import add_flag
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.commands.top import table
from sqlite_log_handler._cli.formats import Clock, Short, with_gaps
from sqlite_log_handler._cli.terminal import plain, terminal_width, write_lines
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._logfile.units import loudest
from sqlite_log_handler._read.reader import LogReader, columns_of
from sqlite_log_handler._write.handler import SQLiteHandler

# A piece of real work, which calls a logger once.
Job = Callable[[], None]

CAPACITY = 10_000
THREADS = 4
# Records per second of all threads: while the database is locked they fill a tenth of the queue, and only the flood
# makes it overflow.
PACE = 1_000
FLOOD = "flood"
FLOOD_BURST = 100  # records, and then a pause of a millisecond
SECONDS_BEFORE, SECONDS_LOCKED, SECONDS_AFTER = 1.2, 0.9, 1.2
MOST_SECONDS_LOCKED = 3.0  # on a slow machine, the demo then goes on without an overflow
SHORTEST_SLEEP = 0.005
LONGEST_DELAY = 0.05
LARGE_FILE = 256 * 1024
MOST_REPLAYED = 32 * 1024 * 1024  # characters read from the given logs
LONGEST_LINE = 8 * 1024

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))

# Another program: it takes the write lock, says so, and holds it until its input ends.
LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""

LEVEL_WORDS = {"fatal": 50, "critical": 50, "error": 40, "warn": 30, "failed": 30, "notice": 20, "info": 20}
LEVEL_WORDS |= {"debug": 10, "trace": 10}
LEVEL_WORD = re.compile(rf"\b(?:{'|'.join(LEVEL_WORDS)})", re.IGNORECASE)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    log = "a text log whose lines are replayed; without one, the demo hashes the files of Python's standard library"
    made = "the file to make, which must not exist yet (default: demo-log.db, or the next free name)"
    shop = "make the log of a shop whose pages fail, to look for the cause; it is always the same, and ends now"
    parser.add_argument("files", nargs="*", metavar="FILE", help=log)
    add_flag(parser, "--database PATH", made)
    add_flag(parser, "--incident", shop)


@command(
    _add_arguments,
    "Log real work from several threads into SQLite, lock the database in the middle so that a small queue overflows, "
    "and show that every record is accounted for.",
    ("sqlite-log demo", "hash the files of Python's standard library, and log it"),
    ("sqlite-log demo /var/log/syslog --database syslog.db", "replay a text log"),
    ("sqlite-log demo --incident --database shop-log.db", "make the log of a shop whose pages fail"),
)
def run(options: argparse.Namespace) -> int:
    """Run the demo, and return its exit status: 0, or 1 when the books do not balance."""
    if options.incident:
        if options.files:
            raise ValueError("--incident makes up its records: leave out the FILE")
        return show_incident(options.database)
    path = choose_database(options.database)
    jobs = jobs_from_logs(options.files) if options.files else jobs_from_standard_library()
    handler = configure(path)
    work = "replay {:,} lines" if options.files else "hash {:,} files of Python's standard library"
    work = f"{THREADS} threads {work.format(len(jobs))}, over and over, and log about {PACE:,} records a second:"
    show("", *fold(work), "")
    try:
        calls = work_and_lock(handler, jobs, path)
        handler.flush(timeout=5.0)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    balanced = show_books(handler, path, calls)
    show_file(path)
    return 0 if balanced else 1


def show_incident(database: str | None) -> int:
    """Make the log of an incident, and say how to look for its cause."""
    path = choose_database(database)
    calls = incident.make(path, int(time.time()))
    text = f"{path} is the log of a small web shop: {calls:,} records of the last 90 minutes."
    show(*fold(f"{text} In the end its pages fail. Find out why:"), "")
    quoted = shlex.quote(path)
    show_commands(
        (f"brief {quoted}", "what matters first"),
        (f"patterns {quoted} --new-since 0", "what only the last release says"),
        (f"serve {quoted}", "the log in a browser"),
    )
    return 0


def choose_database(database: str | None) -> str:
    """Return the path of a file that does not exist yet, so that its books cover this run only."""
    names = itertools.chain(["demo-log.db"], map("demo-log-{}.db".format, itertools.count(2)))
    path = next(name for name in names if not os.path.lexists(name)) if database is None else database
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists: name a file that does not exist yet")
    return path


def configure(path: str) -> SQLiteHandler:
    """Show and use a configuration: the handler on the root logger, and its own warnings on the console too."""
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"folded": {"class": "sqlite_log_handler._cli.commands.demo.FoldingFormatter"}},
        "handlers": {
            "db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": path, "capacity": CAPACITY},
            "console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "folded"},
        },
        "loggers": {"sqlite_log_handler": {"handlers": ["console"]}},
        "root": {"handlers": ["db"], "level": "DEBUG"},
    }
    show(*fold("logging.config.dictConfig gets this, with a small queue so that it overflows:"), "")
    text = pprint.pformat(config, width=min(92, width() - 2), compact=True, sort_dicts=False)
    show(*(f"  {line}" for line in text.splitlines()))
    try:
        logging.config.dictConfig(config)
    except ValueError as error:
        raise ValueError(str(error.__cause__ or error)) from error
    (console,) = logging.getLogger(OWN_LOGGER).handlers
    # Its reader may have gone, as `head` does: what the demo prints next ends it, and Python would print a traceback.
    console.handleError = lambda record: None  # type: ignore[method-assign]  # noqa: ARG005 - its name in `logging`
    return next(handler for handler in logging.getLogger().handlers if isinstance(handler, SQLiteHandler))


class FoldingFormatter(logging.Formatter):
    """Fold long messages to the width of the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as lines of text."""
        return "\n".join(fold(record.getMessage(), f"       {record.levelname} "))


def jobs_from_standard_library() -> list[Job]:
    """Return one job for each file of the installed standard library."""
    jobs: list[Job] = []
    for folder, folders, names in os.walk(STANDARD_LIBRARY):
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages", "__pycache__"})
        package = Path(folder).relative_to(STANDARD_LIBRARY).parts[:1]
        logger = logging.getLogger(".".join(("stdlib", *package)))
        jobs += [partial(hash_file, logger, Path(folder, name)) for name in sorted(names)]
    if not jobs:
        message = f"there are no files of the standard library in {STANDARD_LIBRARY}: give text logs to replay instead"
        raise FileNotFoundError(message)
    return jobs


def hash_file(logger: logging.Logger, path: Path) -> None:
    """Hash one file of the standard library and log it, at another level if it is large, empty or unreadable."""
    name = path.relative_to(STANDARD_LIBRARY).as_posix()
    try:
        size = path.stat().st_size
        if size > LARGE_FILE:
            logger.warning("%s is large: %d bytes, not hashed", name, size, extra={"size": size})
            return
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        logger.exception("cannot read %s", name)
        return
    if size == 0:
        logger.debug("%s is empty", name)
    else:
        logger.info("%s %s, %d bytes", digest[:12], name, size, extra={"size": size, "sha256": digest})


def jobs_from_logs(files: Sequence[str]) -> list[Job]:
    """Return one job for each line of the text logs `files`."""
    jobs: list[Job] = []
    size = 0
    for name in files:
        # A file may have any name, but other handlers print the name of a logger.
        logger = logging.getLogger("replay." + re.sub(r"[^\w-]", "_", Path(name).stem))
        try:
            # surrogateescape: real logs contain bytes that are not UTF-8, and the handler has to take them.
            with Path(name).open(encoding="utf-8", errors="surrogateescape") as file:
                for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), ""), 1):
                    size += len(line)
                    if size > MOST_REPLAYED:
                        break
                    text = line.rstrip()
                    job = partial(logger.log, guess_level(text), "%s", text, extra={"line": number})
                    jobs += [job] if text else []
        except OSError as error:
            raise OSError(f"cannot read {name}: {error.strerror}") from error
    if not jobs:
        raise ValueError(f"there are no lines to replay in {', '.join(files)}")
    return jobs


def guess_level(text: str) -> int:
    """Guess the level of a line from the first word that names one; INFO if no word does."""
    word = LEVEL_WORD.search(text)
    return LEVEL_WORDS[word[0].lower()] if word else logging.INFO


def do_jobs(jobs: Sequence[Job], seconds_each: float, stop: threading.Event) -> int:
    """Do `jobs` over and over at an even pace until `stop` is set; return the number of calls to a logger."""
    calls, due = 0, time.monotonic()
    while not stop.is_set():
        jobs[calls % len(jobs)]()
        calls += 1
        due += seconds_each
        ahead = due - time.monotonic()
        if ahead > SHORTEST_SLEEP:
            stop.wait(ahead)
        elif ahead < -LONGEST_DELAY:
            due = time.monotonic()  # a burst to catch up would overflow the queue by itself
    return calls


def flood(handler: SQLiteHandler) -> int:
    """Log far too much until the handler has dropped some thousands; return the number of calls to a logger."""
    logger = logging.getLogger(FLOOD)
    calls, start = 0, time.monotonic()
    while (seconds := time.monotonic() - start) < MOST_SECONDS_LOCKED:
        if seconds >= SECONDS_LOCKED and handler.dropped_total >= CAPACITY // 2:
            break
        for _ in range(FLOOD_BURST):
            logger.info("here I am again, %d", calls)
            calls += 1
        time.sleep(0.001)
    return calls


def work_and_lock(handler: SQLiteHandler, jobs: Sequence[Job], path: str) -> int:
    """Let the threads work; in the middle, lock the database and flood. Return the number of calls to a logger."""
    start = time.monotonic()

    def tell(text: str) -> None:
        show(*fold(text, f"{time.monotonic() - start:4.1f} s  "))

    stop = threading.Event()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="worker") as threads:
        try:
            parts = [jobs[number::THREADS] or jobs for number in range(THREADS)]
            counts = [threads.submit(do_jobs, part, THREADS / PACE, stop) for part in parts]
            time.sleep(SECONDS_BEFORE)
            tell(books_of(handler))
            with locked(path) as process_id:
                tell(f"another process ({process_id}) locks the database, and a logger floods; the threads do not wait")
                calls = flood(handler)
                tell(f"still locked: {books_of(handler)}")
            tell("the lock is gone: what waits in the queue is written")
            time.sleep(SECONDS_AFTER)
        finally:
            stop.set()
        calls += sum(count.result() for count in counts) + 1
    # End with an error and a traceback.
    hash_file(logging.getLogger("demo"), STANDARD_LIBRARY / "no_such_module.py")
    tell(f"done, with {calls:,} calls to a logger")
    return calls


@contextmanager
def locked(path: str) -> Iterator[int]:
    """Let another process hold the database's write lock inside the `with` block, and yield its process id."""
    command = [sys.executable, "-I", "-c", LOCKER, path]
    # Leaving Popen's own `with` block closes the pipes, which ends the process, and waits for it.
    # In a session of its own, because it would print a traceback at the Ctrl-C of a terminal.
    with subprocess.Popen(  # noqa: S603 - LOCKER is ours
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        if process.stdout is None or process.stdout.readline().strip() != b"locked":
            raise OSError("the other process could not lock the database")
        yield process.pid


def books_of(handler: SQLiteHandler) -> str:
    """Return the books in one line."""
    stats = handler.stats()
    return (
        f"{stats.seen:,} seen = {stats.written:,} written + {stats.dropped_total:,} dropped + {stats.queued:,} queued"
    )


def show_books(handler: SQLiteHandler, path: str, calls: int) -> bool:
    """Print the handler's counts beside counts from elsewhere, and return whether all of them agree."""
    stats = handler.stats()
    seen, written, dropped = stats.seen, stats.written, stats.dropped_total
    with LogReader(path) as reader:
        books = reader.books()
    show("", "The books", "", f"  {books_of(handler)}", "")
    checks = [
        ("seen", seen, "written + dropped + queued", written + dropped + stats.queued),
        ("seen", seen, "calls, as the threads counted", calls),
        ("written", written, "rows without the drop warnings", books.rows),
        ("dropped", dropped, "sum of the table drops", books.dropped_in_ledger),
        ("dropped", dropped, "sum of the table volume", books.dropped_in_volume),
        ("dropped", dropped, f"sum of the {books.warnings} drop warnings", books.dropped_in_warnings),
    ]
    for name, ours, other_name, theirs in checks:
        verdict = "agree" if ours == theirs else f"DIFFER by {abs(ours - theirs):,}"
        show(f"  {name:<8}{ours:>8,}   {other_name:<32}{theirs:>8,}   {verdict}")
    balanced = all(ours == theirs for _, ours, _, theirs in checks)
    show("", "  The books balance." if balanced else "  THE BOOKS DO NOT BALANCE.")
    if books.warnings:
        rows = books.rows + books.warnings
        show(*fold(f"The drop warnings are rows as well: `sqlite-log stats` counts {rows:,}.", "  "))
    flooded = stats.dropped_by_logger.get(FLOOD, 0)
    if dropped:
        others = f"{dropped - flooded:,}" if dropped > flooded else "nothing"
        show(f"  The flood lost {flooded:,} records, and the others lost {others}.", "")
    else:
        show("  This machine was too slow to make the queue overflow: nothing was dropped.", "")
    for key in ("cause", "level", "logger"):
        show(*fold(loudest(getattr(stats, f"dropped_by_{key}")), f"  dropped by {key:<8}"))
    return balanced


def show_file(path: str) -> None:
    """Print some of the file as the commands do, and name the commands that print more."""
    short = Short(Clock("%b %d %H:%M:%S"), plain)
    with LogReader(path) as reader:
        gaps = reader.gaps()
        if gaps:
            after_id = gaps[0].after_id
            rows = columns_of(reader, short.columns, after_id=after_id - 3, up_to_id=after_id + 3)
            entries = with_gaps(rows, [*filter(lambda gap: gap.after_id == after_id, gaps)], whole=False)
            show("", "The gap, where it is", "", *map(indented, short.lines(entries)))
        show("", "Who logs most", "", *map(indented, table(reader.top(), "logger", 6)))
    show("", f"The file stays: {path}", "")
    quoted = shlex.quote(path)
    show_commands(
        (f"{quoted} -n 20", "its newest records"),
        (f"{quoted} -p ERROR", "its errors, with their tracebacks"),
        (f"gaps {quoted}", "which records are missing, and why"),
        (f"stats {quoted}", "how much there is, and when it came"),
    )


def show_commands(*commands: tuple[str, str]) -> None:
    """Print commands, each with what it does."""
    longest = max(len(command) for command, _ in commands)
    show(*(f"  sqlite-log {command:<{longest}}  {what}" for command, what in commands))


def show(*lines: str) -> None:
    """Print lines."""
    write_lines(map(printable, lines))


def width() -> int:
    """Return how many columns to fill."""
    return terminal_width(most=100)


def fold(text: str, label: str = "") -> list[str]:
    """Put `text` behind `label`, in lines as wide as the terminal."""
    indent = " " * len(label)
    return textwrap.wrap(text, width(), initial_indent=label, subsequent_indent=indent, break_on_hyphens=False)


def indented(line: str) -> str:
    """Indent a line by two columns, and cut it to the width of the terminal."""
    room = width() - 2
    return f"  {line if len(line) <= room else f'{line[: room - 3]}...'}"
