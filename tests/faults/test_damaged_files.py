"""
Logs with flipped bytes: each command has an answer or an error with a name, ends, and takes a bounded memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from slowly import slowly

import sqlite_log_handler

COMMANDS = [
    *(["show", "-o", form] for form in ("short", "verbose", "json", "logfmt", "cat")),
    ["show", "-p", "INFO", "-n", "5", "-r"],
    ["show", "--run", "0", "-l", "shop", "-F", "a"],
    ["show", "--where", "size=3", "-g", "a.c|[xy]"],
    ["show", "-S", "2000-01-01", "-U", "2100-01-01"],
    *(["top", "--by", by] for by in ("logger", "source", "level", "exception", "thread", "process")),
    ["gaps"],
    ["stats"],
    ["check"],
    ["export"],
    ["export", "--format", "csv"],
    ["prune", "--dry-run", "--max-rows", "1"],
]

# In a process of its own: SQLite may crash, and the memory that it took is counted.
PROGRAM = """
import contextlib, io, json, random, sys, traceback
from sqlite_log_handler._write.retention.limits import PAGE_BYTES
from sqlite_log_handler.__main__ import main
path, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
commands = json.loads(sys.argv[4])
with open(path, "rb") as file:
    whole = file.read()
chance, wrong, statuses = random.Random(seed), [], {0: 0, 1: 0, 2: 0}
for round in range(rounds):
    content = bytearray(whole)
    for _ in range(chance.choice([1, 2, 8, 64])):
        # Half of the time in the schema and the heads of pages, where it does most.
        end = chance.choice([len(content), 4096])
        head = chance.randrange(0, len(content), PAGE_BYTES)
        at = chance.choice([chance.randrange(end), head + chance.randrange(12)])
        content[at] = chance.choice([0, 255, content[at] ^ 1 << chance.randrange(8), chance.randrange(256)])
    with open(path, "wb") as file:
        file.write(content)
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main([command[0], path, *command[1:]])
            statuses[status] += 1
            # Before it there may be a note that no such logger was found.
            if status == 2 and not err.getvalue().splitlines()[-1].startswith(f"sqlite-log {command[0]}: "):
                wrong.append([round, command, err.getvalue()])
        except BaseException:
            wrong.append([round, command, traceback.format_exc()[-1500:]])
# Not ru_maxrss, which counts what the process was before exec.
peak = next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([wrong[:3], len(wrong), statuses, peak]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
@pytest.mark.parametrize("seed", [0, *slowly(1, 2, 3)])
def test_flipped_bytes(make_handler, path, logger, request, seed):
    """A log in which bytes were changed is read as far as it can be, or refused; nothing ends in a traceback."""
    rounds = 1_000 if request.config.getoption("--long") else 6
    handler = make_handler(capacity=60, reserve=0, batch_size=100, flush_interval=3_600)
    logger.addHandler(handler)
    for number in range(100):
        try:
            raise KeyError(number)
        except KeyError:
            logger.log(10 + number % 5 * 10, "abc %s", "x" * number, exc_info=number % 9 == 0, extra={"size": 3})
    handler.close()

    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(seed), str(rounds), json.dumps(COMMANDS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(sqlite_log_handler.__file__).parents[1])},
    )
    assert (0, "") == (run.returncode, run.stderr)
    wrong, count, statuses, megabytes = json.loads(run.stdout)
    assert ([], 0) == (wrong, count)
    assert rounds * len(COMMANDS) == sum(statuses.values())
    assert megabytes < 100
