"""
How long it takes to read a log of a million rows, or a day in a year of its archive, and what it costs to follow one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_type_hints

from sqlite_log_handler import LogReader, Row, SQLiteHandler
from sqlite_log_handler._logfile.archive import JSON_LINES, PARQUET
from sqlite_log_handler._logfile.connect import connect_read_only, connect_read_write
from sqlite_log_handler._logfile.times import from_microseconds
from sqlite_log_handler._read.reader import windows
from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.retention.archive import Archive
from sqlite_log_handler._write.row import make_row
from sqlite_log_handler._write.writer import Writer
from tests.benchmarks.core import ROOT, Options, Report, alternate, count_rows, folder, middle
from tests.benchmarks.load import logger_with, realistic

_BATCH = 10_000
_SPAN = 2 * 86_400  # seconds from the first row to the last
_DAYS = 365

# Commands whose memory is measured, from a process's start to its end.
_COMMANDS: dict[str, list[str]] = {
    "show -n 100": ["show", "-n", "100"],
    "show, all": ["show"],
    "show -o json, all": ["show", "-o", "json"],
    "show -g, no literal": ["show", "-g", r"\d{12}"],
    "top": ["top"],
    "top --by source": ["top", "--by", "source"],
    "gaps": ["gaps"],
    "stats": ["stats"],
    "check": ["check"],
    "export csv": ["export", "--format", "csv"],
    "export parquet": ["export", "--format", "parquet"],
}


def run(report: Report, options: Options) -> None:
    """Write the rows, read them in every way, follow, and look at the memory of each command."""
    count = options.pick(1_000_000, 50_000)
    with folder() as path:
        file = os.path.join(path, "app-log.db")
        begin = time.perf_counter()
        _fill(file, count)
        report.verify("rows", count, count_rows(file))
        report.say(f"{count:,} rows: {os.path.getsize(file) / 1e6:,.0f} MB in {time.perf_counter() - begin:.0f} s")
        _queries(report, options, file, count)
        _commands(report, options, file, count)
        _archive(report, options, path)
        _against_sql(report, options, os.path.join(path, "smaller.db"))
        _follow(report, options, os.path.join(path, "followed.db"))


def _fill(file: str, count: int, span: float = _SPAN) -> None:
    """Write realistic rows of two days, with attributes in every tenth and tracebacks in one of a hundred."""
    writer = Writer(file)
    rows: list[Any] = []
    first, begin = 0, time.time() - span
    try:
        {}["price"]  # type: ignore[index]
    except KeyError:
        error = sys.exc_info()
    for number, record in enumerate(realistic(count)):
        record.created = begin + span * number / count
        record.thread, record.threadName = 140_000_000_000_000 + number % 8, f"worker_{number % 8}"
        if number % 10 == 0:
            vars(record).update(request_id=f"r-{number % 977}", seconds=number % 1000 / 7)
        if record.levelno >= logging.ERROR and number % 8 == 0:
            record.exc_info = error  # type: ignore[assignment]
        rows.append(make_row(record))
        if len(rows) == _BATCH or number == count - 1:
            writer.write(Commit(rows, first=first))
            first += len(rows)
            rows = []
    writer.close()


def _queries(report: Report, options: Options, file: str, count: int) -> None:
    with LogReader(file) as reader:
        last_us = reader.stats().last_us
        last = from_microseconds(last_us or 0)
        assert last is not None
        since = last - timedelta(hours=1)
        # What is measured, its bound in milliseconds, and how many it has to find, where that is known.
        cases: dict[str, tuple[float | None, int | None, Callable[[], int]]] = {
            "newest 100": (5, 100, lambda: len(list(reader.rows(newest=100)))),
            "errors of the last hour": (20, None, lambda: len(list(reader.rows(level="ERROR", since=since)))),
            "top by logger": (50, None, lambda: len(reader.top())),
            "top by call site": (300, None, lambda: len(reader.top("source"))),
            "text, not there": (500, 0, lambda: len(list(reader.rows(text="no such text")))),
            "text, either case, counted": (500, None, lambda: _count(reader, text="timed out")),
            "text, case counts": (500, 0, lambda: len(list(reader.rows(text="No Such Text")))),
            "expression with a literal": (500, 0, lambda: len(list(reader.rows(pattern=r"no such text \d+")))),
            "expression without a literal": (None, 0, lambda: len(list(reader.rows(pattern=r"\d{12}")))),
            "attribute": (None, None, lambda: len(list(reader.rows(attributes={"request_id": "r-5"})))),
            "condition": (600, None, lambda: len(list(reader.rows(where="seconds>=140")))),
            "context of a rare text": (300, None, lambda: _in_context(reader, text="order 9999")),
            "histogram": (None, None, lambda: len(reader.histogram())),
            "stats": (None, count, lambda: reader.stats().rows),
        }

        def timed(name: str, expected: int | None, work: Callable[[], int]) -> float:
            begin = time.perf_counter()
            found = work()
            seconds = time.perf_counter() - begin
            if expected is not None:
                report.verify(name, expected, found)
            return seconds * 1000

        samples = alternate(
            {name: lambda name=name, case=case: timed(name, *case[1:]) for name, case in cases.items()},  # type: ignore[misc]
            options.times(9, 2),
        )
    rows = [[name, middle(times), min(times)] for name, times in samples.items()]
    report.table(f"milliseconds to read from {count:,} rows, first row to last", ["", "median", "best"], rows)
    for name, (limit, _, _) in cases.items():
        if limit is not None:
            report.bound(name, "<=", limit, middle(samples[name]), min(samples[name]), unit=" ms")


def _in_context(reader: LogReader, **filters: Any) -> int:
    """Count the rows that `show -C 3` shows."""
    pieces = windows(reader, filters, None, 3, 3)  # type: ignore[arg-type]
    return sum(1 for low, high in pieces for _ in reader.rows(after_id=low - 1, up_to_id=high))


def _count(reader: LogReader, **filters: Any) -> int:
    return sum(bucket.records for bucket in reader.histogram(**filters))


_MEASURED = """
import sys
from sqlite_log_handler.__main__ import main
main(sys.argv[1:])
# The highest it has been since this program began; getrusage() would also count the one that started it.
with open("/proc/self/status") as file:
    sys.stderr.write(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


def _measured(words: list[str]) -> tuple[float, int, int]:
    """Run a command, and return its seconds, the lines that it printed, and its memory in bytes."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _MEASURED, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = sum(block.count(b"\n") for block in iter(lambda: process.stdout.read(1 << 20), b""))  # type: ignore[union-attr]
        said = process.stderr.read().decode()
    if not said.isdigit():
        raise ValueError(said)
    return time.perf_counter() - begin, lines, int(said) * 1024


def _commands(report: Report, options: Options, file: str, count: int) -> None:
    """Run commands as they are run, with their output into a pipe that somebody reads."""
    memory: dict[str, int] = {}

    def command(name: str) -> float:
        try:
            seconds, lines, memory[name] = _measured([*_COMMANDS[name], file])
        except ValueError as error:
            report.say(f"{name}: {error}")
            return float("nan")
        if name == "show -o json, all":
            report.verify(name, count + 2, lines)
        return seconds

    samples = alternate({name: lambda name=name: command(name) for name in _COMMANDS}, options.times(3, 1))  # type: ignore[misc]
    rows = [[name, middle(times), min(times), memory.get(name, 0) / 1e6] for name, times in samples.items()]
    columns = ["", "seconds, median", "best", "memory, MB"]
    report.table(f"commands on {count:,} rows, with the start of Python", columns, rows)
    rates = sorted(count / seconds for seconds in samples["show -o json, all"])
    report.bound("show -o json of everything", ">=", 150_000, middle(rates), rates[-1], unit=" rows/s")
    for name, used in memory.items():
        report.bound(f"memory of {name}", "<=", 60, used / 1e6, used / 1e6, unit=" MB")


def _archive(report: Report, options: Options, path: str) -> None:
    """Ask about one day of a year that is archived, a part for each day, in a process of its own."""
    count = options.pick(1_000_000, 20_000)
    whole = os.path.join(path, "year.db")
    _fill(whole, count, _DAYS * 86_400)
    begin = int(time.time()) - _DAYS // 2 * 86_400
    day = ["-S", f"@{begin}", "-U", f"@{begin + 86_400}"]
    with LogReader(whole) as reader:
        expected = reader.count(since=day[1], until=day[3])
    places = {kind: os.path.join(path, f"archive-{kind}") for kind in (JSON_LINES, PARQUET)}
    for kind, place in places.items():
        file = os.path.join(path, f"{kind}.db")
        shutil.copy(whole, file)
        os.mkdir(place)
        _archive_all(file, place, kind)
        size = sum(entry.stat().st_size for entry in os.scandir(place))
        report.say(
            f"{kind}: {len(os.listdir(place)) - 1} parts, 1/{os.path.getsize(whole) / size:.1f} of the file's bytes"
        )
    cases = {
        f"{name}, {kind}": [*words, *day, place]
        for kind, place in places.items()
        for name, words in {"show": ["show", "-o", "jsonl"], "top --by source": ["top", "--by", "source"]}.items()
    }
    memory: dict[str, int] = {}

    def asked(name: str) -> float:
        seconds, lines, memory[name] = _measured(cases[name])
        if name.startswith("show"):
            report.verify(name, expected, lines)
        return seconds

    samples = alternate({name: lambda name=name: asked(name) for name in cases}, options.times(7, 1))  # type: ignore[misc]
    rows = [[name, middle(times), min(times), memory[name] / 1e6] for name, times in samples.items()]
    columns = ["", "seconds, median", "best", "memory, MB"]
    report.table(f"a day of {_DAYS} archived days of {count:,} rows, with the start of Python", columns, rows)
    for name, times in samples.items():
        report.bound(f"a day of an archived year: {name}", "<=", 1, middle(times), min(times), unit=" s")
        report.bound(f"memory of that: {name}", "<=", 100, memory[name] / 1e6, memory[name] / 1e6, unit=" MB")


def _archive_all(file: str, folder: str, kind: str) -> None:
    archive = Archive(folder, file, kind=kind)
    with (
        contextlib.closing(connect_read_only(file)) as reading,
        contextlib.closing(connect_read_write(file, timeout=5)) as writing,
        contextlib.closing(archive.lock),
        archive.lock.hold(0),
    ):
        for part in archive.parts(reading):
            archive.note(writing, part)


def _csv_cell(name: str) -> str:
    quoted = f"""'"' || replace({name}, '"', '""') || '"'"""
    special = f"""{name} GLOB '*[,"' || char(10, 13) || ']*'"""
    return f"CASE WHEN {special} THEN {quoted} ELSE ifnull({name}, '') END" if name in _TEXTS else f"ifnull({name}, '')"


_TEXTS = {name for name, kind in get_type_hints(Row).items() if kind is not int and name not in {"time", "thread"}}
_CSV = " || ',' || ".join(map(_csv_cell, Row._fields))
_JSON = ", ".join(f"'{name}', {f'json({name})' if name == 'attributes' else name}" for name in Row._fields)
_SHORT = """
strftime('%Y-%m-%dT%H:%M:%S+00:00 ', created_us / 1000000, 'unixepoch') || substr(level || '        ', 1, 8) || ' '
|| logger || ': ' || message || ifnull(char(10) || '    ' || replace(exc_text, char(10), char(10) || '    '), '')
"""

# A command, its bound, the line of a row that it prints as SQL makes it, and a line above all others.
_SAME_LINES: dict[str, tuple[float, list[str], str, str]] = {
    "show": (2.0, ["show", "-o", "short-iso", "--utc"], _SHORT, ""),
    "export --format csv": (2.5, ["export", "--format", "csv"], _CSV, ",".join(Row._fields) + "\n"),
    "export": (2.0, ["export"], f"json_object({_JSON})", ""),
}

_PLAIN_SQL = """
import sqlite3, sys
line, head, file = sys.argv[1:]
write = sys.stdout.write
write(head)
for text, in sqlite3.connect(file).execute(f"SELECT {line} FROM logs ORDER BY id"):
    write(text + "\\n")
"""


def _against_sql(report: Report, options: Options, file: str) -> None:
    """Compare the CPU of commands with that of a program that has SQLite make the same lines."""
    count = options.pick(200_000, 5_000)
    _fill(file, count)

    def cpu(command: list[str]) -> tuple[float, str]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            digest = hashlib.sha256()
            for block in iter(lambda: process.stdout.read(1 << 20), b""):  # type: ignore[union-attr]
                digest.update(block)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, digest.hexdigest()

    rows = []
    for name, (limit, words, line, head) in _SAME_LINES.items():
        commands = {"command": ["-m", "sqlite_log_handler", *words, file], "SQL": ["-c", _PLAIN_SQL, line, head, file]}
        seconds: dict[str, list[float]] = {"command": [], "SQL": []}
        printed = {}
        for _ in range(options.times(5, 1)):
            for which, command in commands.items():
                taken, printed[which] = cpu(command)
                seconds[which].append(taken)
        report.verify(name, printed["SQL"], printed["command"])
        ratios = sorted(one / other for one, other in zip(*seconds.values(), strict=True))
        rows.append([name, *map(middle, seconds.values()), middle(ratios)])
        report.bound(f"CPU of {name}, against the same lines by SQL", "<=", limit, middle(ratios), ratios[0])
    columns = ["", "command", "SQL", "ratio"]
    report.table(f"seconds of CPU for {count:,} rows, piped, with the start of Python", columns, rows)


def _follow(report: Report, options: Options, file: str) -> None:
    """Follow a log: how long until a record is shown, and how much of a core it takes when nothing comes."""
    seconds = options.pick(10, 2)
    handler = SQLiteHandler(file)
    logger = logger_with(handler)
    logger.info("the first one")
    handler.flush()
    command = [sys.executable, "-m", "sqlite_log_handler", "show", "-f", "-o", "jsonl", file]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        delays = []
        for number in range(options.times(50, 5)):
            time.sleep(0.05 + number % 10 / 100)  # at any point of the ticks
            begin = time.perf_counter()
            logger.info("number %d", number)
            line = process.stdout.readline()
            delays.append((time.perf_counter() - begin) * 1000)
            report.verify("followed", f"number {number}", json.loads(line)["message"])
        before = _cpu_seconds(process.pid)
        time.sleep(seconds)
        idle = (_cpu_seconds(process.pid) - before) / seconds * 100
        process.terminate()
    handler.close()
    report.bound("-f shows a record, the slowest", "<=", 250, max(delays), min(delays), unit=" ms")
    report.bound("-f takes of a core when nothing comes", "<=", 5, idle, idle, unit=" %")


def _cpu_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
