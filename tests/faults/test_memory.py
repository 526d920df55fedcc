"""
The memory that commands take: less than 100 MB, for the largest records and for files that somebody made to fill it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hostile
import pytest
from made_parts import write_part

import sqlite_log_handler
from sqlite_log_handler._logfile.archive import LONGEST_LINE
from sqlite_log_handler._logfile.schema import MAX_RECORD_BYTES

COMMANDS = [
    *(["show", "-o", form] for form in ("short", "verbose", "json", "jsonl", "cat", "logfmt")),
    ["show", "-o", "short-iso", "--fields", "a,b", "-r"],
    ["show", "--where", "a~x.y", "-C", "1"],
    ["brief"],
    ["patterns"],
    ["top"],
    *(["top", "--by", by] for by in ("source", "template", "exception", "thread", "process")),
    ["top", "--by", "attribute", "a"],
    ["gaps"],
    ["stats"],
    ["check"],
    ["export"],
    ["export", "--format", "csv"],
    ["metrics"],
    ["health"],
    ["prune", "--dry-run", "--max-rows", "1"],
    ["prune", "--max-rows", "3", "--vacuum"],
]
PARQUET = [["export", "--format", "parquet", "--output", os.devnull]]

NO_GIL = "free-threading" in sys.version

# Megabytes, of which pyarrow takes 51 to 62 by being imported. Without a GIL, objects are larger.
MOST = 200 if NO_GIL else 100
# Of the pages of libraries, which all processes share, so many count at most: of pyarrow's 40 to 66 MB, as many as the
# system has in its cache.
LIBRARIES = 40

# In a process of its own, whose highest memory is that of the hungriest command.
PROGRAM = """
import contextlib, io, json, sys
from sqlite_log_handler.__main__ import main

class Nowhere(io.StringIO):
    def write(self, text):
        return len(text.encode(errors="replace"))

statuses = []
for command in json.loads(sys.argv[2]):
    if command[-2:-1] == ["--output"]:
        command[-1] = sys.argv[1] + ".parquet"
    with contextlib.redirect_stdout(Nowhere()):
        statuses.append(main([command[0], sys.argv[1], *command[1:]]))
# Not ru_maxrss, which counts what the process was before exec.
found = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak, mapped = (int(found[name].split()[0]) / 1000 for name in ("VmHWM", "RssFile"))
print(json.dumps([statuses, peak, mapped]))
"""

# A character outside of the basic plane makes Python take four bytes for each other one.
WIDE = "\N{GRINNING FACE}"


def largest_records(handler, logger):
    """Log records of all sizes that cost the reader most, as large as the handler takes them."""
    for text in ("\x01", "\x85", "x", "\n", '"', "x\n", WIDE):
        logger.error("%s%s", text * MAX_RECORD_BYTES, WIDE)
        logger.error("%s%s", WIDE, text * (MAX_RECORD_BYTES // len(text.encode()) - 4), extra={"a": 1})
    logger.error("m", extra={"a": WIDE + "x" * MAX_RECORD_BYTES})
    handler.close()


def wide_everywhere(path, size, rows):
    """Make a log that has a text of `size` in each cell that a row of the view has."""
    text = "x" * (size - 4) + WIDE
    names = ("message", "thread_name", "task_name", "exc_type", "exc_text", "stack_info", "attributes")
    hostile.make(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE sources SET logger = :text, pathname = :text, func = :text, template = :text", {"text": text}
        )
        connection.execute("UPDATE processes SET host = :text, name = :text, program = :text", {"text": text})
        connection.executemany(
            f"INSERT INTO records (created_us, levelno, source_id, process_id, {', '.join(names)}) "
            f"VALUES (?, 20, 1, 1, {', '.join('?' * len(names))})",
            ((number, *[text] * len(names)) for number in range(rows)),
        )


def different_attributes(path):
    """Make a log in which one attribute has another long value in each row."""
    hostile.make(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO records (created_us, levelno, source_id, process_id, message, attributes) "
            "VALUES (1, 20, 1, 1, 'm', ?)",
            ((f'{{"a": "{number}{"x" * 400_000}{WIDE}"}}',) for number in range(60)),
        )


def numbers_of(first, last):
    """Return the beginning of a statement that has the numbers `i` in a table `n`."""
    return f"WITH n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"


def many_lines(path):
    """Make a log with as many call sites, processes, threads and gaps as retention keeps, and a record of each."""
    hostile.make(path)
    numbers = numbers_of(2, 99000)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, values in (
            (
                "sources",
                "i, 'shop.user_' || i, '/srv/app/module_' || i % 900, i, 'handle', 'order %d of ' || i",
            ),
            ("processes", "i, 'host-' || i, i, 'MainProcess', 1000000 + i * 20000000, 'app.py'"),
            ("threads", "i, i, 'ThreadPoolExecutor-' || i || '_0'"),
            (
                "drops",
                "i, i % 1000, 1700000000000000 + i, 1700000000000005 + i, i, 'queue_full', 'shop.mod' || i, 20, 3",
            ),
        ):
            connection.execute(f"{numbers} INSERT INTO {table} SELECT {values} FROM n")
        connection.execute(
            f"{numbers} INSERT INTO records (id, created_us, levelno, source_id, process_id, thread_id, message, "
            """exc_type, attributes) SELECT i, 1000000 + i * 20000000, 20, i, i, i, 'order 5 of ' || i, 'Error' || i,
            '{"a": "request-' || i || '"}' FROM n"""
        )


def long_names(path, table):
    """Make a log with 99,000 levels or processes whose names are long, and a record (and a drop) of each."""
    hostile.make(path)
    values = {"levels": "i, printf('%0200d', i)", "processes": "i, 'host', i, printf('%0200d', i), i, 'app.py'"}[table]
    column = {"levels": "levelno", "processes": "process_id"}[table]
    columns = ", ".join(name for name in ("levelno", "process_id") if name != column)
    numbers = numbers_of(100, 99000)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"{numbers} INSERT INTO {table} SELECT {values} FROM n")
        connection.execute(
            f"{numbers} INSERT INTO records (created_us, source_id, message, {column}, {columns}) "
            "SELECT i, 1, 'm', i, 1 FROM n"
        )
        if table == "processes":
            connection.execute(
                f"{numbers} INSERT INTO drops SELECT i, 0, i, i + 1, i, 'queue_full', 'shop', 20, 3 FROM n"
            )


def long_call_sites(path):
    """Make a log with 8,000 call sites whose names are as long as a handler writes them, and a record of each."""
    hostile.make(path)
    numbers = numbers_of(2, 8000)
    name = "printf('%04000d', i)"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"{numbers} INSERT INTO sources SELECT i, {name}, {name}, i, {name}, '' FROM n")
        connection.execute(
            f"{numbers} INSERT INTO records (created_us, levelno, source_id, process_id, message) "
            "SELECT i, 20, i, 1, 'm' FROM n"
        )


def many_gaps(path):
    """Make a log with as many gaps as retention keeps, of as many loggers, and a warning of each thousandth."""
    many_lines(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET source_id = 1")
        connection.execute("UPDATE sources SET logger = 'sqlite_log_handler' WHERE id = 1")


def peak_of(path, commands):
    """Run commands on a log, and return the statuses and the highest memory in MB."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "no_proxy": "*", "PYTHONPATH": str(Path(sqlite_log_handler.__file__).parents[1])},
    )
    statuses, peak, mapped = json.loads(run.stdout)
    return statuses, peak - max(0, mapped - LIBRARIES)


COUNTING = [
    *(["patterns", *more] for more in ([], ["--new-since", "1970-01-12"], ["--new-since", "0"], ["-o", "json"])),
    *(["brief", *more] for more in ([], ["-S", "1970-01-12"], ["-o", "json"])),
    *(["top", "--by", by, "-n", "all"] for by in ("logger", "source", "template", "exception", "thread", "process")),
    ["top", "--by", "attribute", "a", "-o", "json"],
    ["top", "-F", "order"],
    *([name, *more] for name in ("gaps", "stats") for more in ([], ["-o", "json"])),
    ["show", "--run", "0"],
    ["metrics"],
    ["health"],
]

SLOW = pytest.mark.slow
CRAFTED = [
    pytest.param(lambda path: wide_everywhere(path, 3_900, 800), id="names just below the first limit"),
    pytest.param(lambda path: wide_everywhere(path, 60_000, 40), id="just below the second", marks=SLOW),
    pytest.param(lambda path: wide_everywhere(path, 500_000, 4), id="many large texts in a row", marks=SLOW),
    pytest.param(different_attributes, id="attributes", marks=SLOW),
]
SETS = [pytest.param(COMMANDS, id="all"), pytest.param(PARQUET, id="parquet", marks=SLOW)]

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")


@pytest.mark.parametrize("commands", SETS)
def test_the_largest_records(make_handler, logger, path, commands):
    """
    Each command shows the largest records that a handler writes, and takes less than 100 MB.

    `show` took 340 MB for a row of 4 MiB control characters, and `-o json` refused a row of 700 kB of them.
    """
    if commands is PARQUET:
        pytest.importorskip("pyarrow")
    handler = make_handler(max_record_bytes=MAX_RECORD_BYTES)
    logger.addHandler(handler)
    largest_records(handler, logger)

    statuses, peak = peak_of(path, commands)
    assert {0, 1} >= set(statuses)
    assert peak < MOST, peak


@pytest.mark.parametrize("commands", SETS)
@pytest.mark.parametrize("make", CRAFTED)
def test_a_file_that_is_to_fill_the_memory(path, commands, make):
    """
    Whatever cells a file has, a command takes less than 100 MB, or says that it would take more.

    Each cell was limited, and a row has twelve of them.
    """
    if commands is PARQUET:
        pytest.importorskip("pyarrow")
    make(path)

    _, peak = peak_of(path, commands)
    assert peak < MOST, peak


@pytest.mark.slow
@pytest.mark.skipif(NO_GIL, reason="without a GIL, as many lines are larger than what a command keeps")
@pytest.mark.parametrize("command", COUNTING, ids=" ".join)
def test_as_many_lines_as_retention_keeps(path, command):
    """
    A command that counts takes less than 100 MB for a log with 100,000 call sites, processes, threads and gaps.

    `brief` took 240 MB and `patterns` 222.
    """
    many_lines(path)

    (status,), peak = peak_of(path, [command])
    assert status < 2
    assert peak < MOST, peak


NAMING = [["top", "--by", "level"], ["stats"], ["stats", "-o", "json"], ["patterns"], ["brief"], ["metrics"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "command"),
    [("processes", ["top", "--by", "process"]), *(("levels", command) for command in NAMING)],
    ids=lambda one: " ".join(one) if isinstance(one, list) else one,
)
def test_long_names_of_levels_and_processes(path, table, command):
    """
    Names that somebody has made long and many fit as well, as each list of them is not kept twice.

    `stats` took 201 MB for 99,000 levels, `patterns` 171, and `top --by process` 131 for as many processes.
    """
    long_names(path, table)

    _, peak = peak_of(path, [command])
    assert peak < MOST, peak


@pytest.mark.slow
@pytest.mark.parametrize("command", [["show"], ["show", "-r"], ["top"], ["stats"], ["check"]], ids=" ".join)
def test_a_part_of_an_archive_that_is_to_fill_the_memory(path, command):
    """
    The longest lines that a reader takes, with one character that makes Python take four bytes for each, fit as well.

    A row was in memory while the next one was read: 145 MB.
    """
    folder = path.parent / "archive"
    write_part(hostile.make(path), folder, (1, 1))
    (part,) = folder.iterdir()
    head, *drops, line = map(json.loads, gzip.decompress(part.read_bytes()).splitlines())
    text = WIDE + "x" * (LONGEST_LINE - 2_000)
    lines = [{**head, "rows": 6, "last_id": 6}, *drops, *({**line, "id": id_, "message": text} for id_ in range(1, 7))]
    with gzip.open(part, "wt", 1, encoding="utf-8") as file:
        file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)

    _, peak = peak_of(folder, [command])
    assert peak < MOST, peak


def largest_in_a_file(path):
    """Make a log with the largest records."""
    handler = sqlite_log_handler.SQLiteHandler(path, max_record_bytes=MAX_RECORD_BYTES, close_timeout=60)
    logger = logging.Logger("largest")  # noqa: LOG001 - not in the tree, which tests leave as it was
    logger.addHandler(handler)
    largest_records(handler, logger)


QUESTIONS = [
    *("rows", "rows?lines=2000", "rows?order=oldest&lines=2000", "rows/1", "rows/2", "rows/9", "histogram", "stats"),
    *("top", "top?by=template", "top?by=attribute&key=a", "top?by=thread", "gaps", "brief", "rows?text=none"),
]


@pytest.mark.parametrize("make", [*CRAFTED, pytest.param(largest_in_a_file, id="largest records", marks=SLOW)])
def test_the_memory_of_the_page(path, make):
    """
    The server of the page takes less than 100 MB, whatever a log holds.

    It took 134 MB for rows whose names have 4 kB, and 104 for one of the largest records with an emoji in it.
    """
    pytest.importorskip("uvicorn")
    make(path)
    command = [sys.executable, "-m", "sqlite_log_handler", "serve", str(path), "--port", "0", "--no-token"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        for question in QUESTIONS:
            try:
                answer = urllib.request.urlopen(f"{address}api/{question}")
            except urllib.error.HTTPError as error:  # such as one for a question that a busy machine has no time for
                answer = error
            with answer:
                answer.read()
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        process.terminate()
    peak = next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < MOST, peak


EPHEMERAL = ", ".join(f"(SELECT count(DISTINCT message || {number} || id) FROM logs)" for number in range(40))
TOOLS = [
    ("brief", {}),
    ("search", {"newest": 100}),
    ("search", {"level": "ERROR"}),
    ("search", {"regex": "a.c$"}),
    ("search", {"where": ["a~x.y"]}),
    ("record", {"id": 10, "context": 10}),
    ("patterns", {}),
    ("patterns", {"new_since": "0"}),
    ("sql", {"statement": "SELECT * FROM logs"}),
    ("sql", {"statement": "SELECT * FROM logs ORDER BY message"}),
    ("sql", {"statement": f"SELECT {EPHEMERAL}"}),
]


@pytest.mark.parametrize("make", [*CRAFTED, pytest.param(largest_in_a_file, id="largest records", marks=SLOW)])
def test_the_memory_of_the_tools_for_agents(path, make):
    """
    `mcp` takes less than 100 MB, and so does the process in which it answers.

    The packages for the protocol take 75 MB by being imported, and a question came on top of that.
    """
    pytest.importorskip("mcp")
    make(path)
    command = [sys.executable, "-m", "sqlite_log_handler", "mcp", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def send(**message):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            process.stdin.flush()

        version = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        send(id=0, method="initialize", params=version)
        assert "result" in json.loads(process.stdout.readline())
        send(method="notifications/initialized")
        for number, (name, arguments) in enumerate(TOOLS, 1):
            send(id=number, method="tools/call", params={"name": name, "arguments": arguments})
            assert "result" in json.loads(process.stdout.readline())
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        answering = [pid for task in tasks for pid in task.read_text(encoding="ascii").split()]
        statuses = [Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in (process.pid, *answering)]
        process.stdin.close()
    peaks = [int(line.split()[1]) / 1000 for one in statuses for line in one.splitlines() if line.startswith("VmHWM")]
    assert 2 == len(peaks)
    assert max(peaks) < MOST, peaks


@pytest.mark.parametrize(
    "make",
    [
        *CRAFTED,
        pytest.param(largest_in_a_file, id="largest records", marks=SLOW),
        pytest.param(long_call_sites, id="long names", marks=SLOW),
        pytest.param(many_gaps, id="many gaps", marks=SLOW),
    ],
)
def test_the_memory_of_the_forwarder(path, make):
    """
    `forward` takes less than 100 MB, or says which row it does not send.

    It took 540 for call sites with names of 4 kB.
    """
    pytest.importorskip("opentelemetry.proto")
    make(path)

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        _, peak = peak_of(path, [["forward", "--otlp", f"http://127.0.0.1:{server.server_port}/"]])
        server.shutdown()
        thread.join()
    assert peak < MOST, peak
