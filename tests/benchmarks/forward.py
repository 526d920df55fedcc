"""
What forwarding costs: rows a second on one core, memory, bytes on the wire, and the program's rate beside it.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlite_log_handler import SQLiteHandler
from tests.benchmarks.core import ROOT, Options, Report, alternate, count_rows, folder, middle, python, ratio
from tests.benchmarks.load import realistic

COUNT = 300_000


def run(report: Report, options: Options) -> None:
    """Forward a backlog to Rotel, which throws it away; then forward beside a program that logs as fast as it can."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        report.say("needs Rotel: pip install 'sqlite-log-handler[test-forward]'")
        return
    count = options.pick(COUNT, 20_000)
    with folder() as path, _receiver(str(Path(found.origin).with_name("rotel-agent")), path) as url:
        _backlog(report, options, path, url, count)
        _beside(report, options, path, url, count)


def _backlog(report: Report, options: Options, path: str, url: str, count: int) -> None:
    file = os.path.join(path, "backlog.db")
    _fill(file, count)
    found = []
    for number in range(options.times(5, 1)):
        printed = python("-m", "tests.benchmarks.forward", "backlog", file, url, str(number))
        found.append(json.loads(printed))
        report.verify("rows sent", count, found[-1]["sent"])
    rates = [count / each["seconds"] for each in found]
    cpu = [count / each["cpu"] for each in found]
    memory = max(each["memory"] for each in found)
    wire = _wire(file)
    size = os.path.getsize(file) / count
    columns = ["rows", "rows/s on one core", "rows/s of CPU", "most memory MB", *wire, "bytes/row on disk"]
    report.table("forward", columns, [[count, middle(rates), middle(cpu), memory / 1e6, *wire.values(), size]])
    report.bound("rows/s to Rotel on one core", ">=", 15_000, middle(rates), max(rates), unit="/s")
    report.bound("memory of the process", "<=", 80, memory / 1e6, memory / 1e6, unit=" MB")


def _beside(report: Report, options: Options, path: str, url: str, count: int) -> None:
    numbers = iter(range(1_000))
    sent = []

    def alone() -> float:
        file = os.path.join(path, f"beside{next(numbers)}.db")
        return float(python("-m", "tests.benchmarks.forward", "log", file, str(count)))

    def beside() -> float:
        file = os.path.join(path, f"beside{next(numbers)}.db")
        _fill(file, 1)
        forwarder = subprocess.Popen(
            [sys.executable, "-m", "sqlite_log_handler", "forward", "-f", file, "--otlp", url],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(1)
        rate = float(python("-m", "tests.benchmarks.forward", "log", file, str(count)))
        forwarder.send_signal(signal.SIGTERM)
        said = forwarder.communicate(timeout=60)[1]
        sent.append(int(said.rpartition("sqlite-log: ")[2].split()[0]) * rate / count)
        return rate

    samples = alternate({"alone": alone, "beside": beside}, options.times(7, 1))
    median, best = ratio(samples, "beside", "alone", max)
    report.table(
        "beside",
        ["", "rows/s logged", "rows/s forwarded meanwhile"],
        [["alone", middle(samples["alone"]), "-"], ["beside", middle(samples["beside"]), middle(sent)]],
    )
    report.bound("rate of the program beside it, against alone", ">=", 0.9, median, best)


@contextlib.contextmanager
def _receiver(binary: str, path: str) -> Iterator[str]:
    """Run Rotel with the exporter that throws everything away."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports.append(server.getsockname()[1])
    process = subprocess.Popen(
        [
            *(binary, "start", "--exporter", "blackhole", "--otlp-http-endpoint", f"127.0.0.1:{ports[0]}"),
            *(
                "--otlp-grpc-endpoint",
                f"127.0.0.1:{ports[1]}",
                "--pid-file",
                f"{path}/pid",
                "--log-file",
                f"{path}/log",
            ),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # It is linked with the library of its Python.
        env={**os.environ, "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""},
    )
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[0])):
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        process.terminate()
        process.wait(30)


def _fill(file: str, count: int) -> None:
    handler = SQLiteHandler(file, capacity=2 * count, capacity_bytes=1 << 30)
    for record in realistic(count):
        handler.handle(record)
    handler.close()
    if count_rows(file) != count:
        raise RuntimeError(f"{handler.stats()}")


def _wire(file: str) -> dict[str, float]:
    """Encode a batch as the command does, and give the bytes for a row, as they are and compressed."""
    from sqlite_log_handler._forward.otlp import encode  # noqa: PLC0415 - only here is the extra needed
    from sqlite_log_handler._forward.receiver import _GZIP_LEVEL  # noqa: PLC0415
    from sqlite_log_handler._forward.spool import Spool  # noqa: PLC0415

    spool = Spool(file, "wire", say=print)
    batch = spool.read(8_000, 4 << 20)
    spool.close()
    body = encode(batch, batch.rows, {})
    rows = len(batch.rows)
    return {
        "bytes/row encoded": len(body) / rows,
        "bytes/row on the wire": len(gzip.compress(body, _GZIP_LEVEL, mtime=0)) / rows,
    }


def _log(file: str, count: int) -> float:
    """Log as fast as one thread can, and give the rows per second until the last one was committed."""
    handler = SQLiteHandler(file, capacity=2 * count, capacity_bytes=1 << 30)
    logger = logging.getLogger("shop.orders")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    begin = time.perf_counter()
    for number in range(count):
        logger.info("order %d paid by customer c-%d, amount %.2f EUR", number, number % 997, number / 7)
    handler.flush(120)
    seconds = time.perf_counter() - begin
    handler.close()
    if handler.stats().written != count:
        raise RuntimeError(f"{handler.stats()}")
    return count / seconds


def _forward(file: str, url: str, name: str) -> dict[str, Any]:
    """Run the command on one core of this process, and say what it took."""
    from sqlite_log_handler.__main__ import main  # noqa: PLC0415 - this process is the command's

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    said: list[str] = []
    sys.stderr.write = said.append  # type: ignore[method-assign,assignment]
    begin, before = time.perf_counter(), os.times()
    status = main(["forward", file, "--otlp", url, "--name", name])
    seconds, after = time.perf_counter() - begin, os.times()
    if status:
        raise RuntimeError("".join(said))
    from tests.benchmarks.core import status as of_process  # noqa: PLC0415 - the name is taken above

    return {
        "sent": int(said[-1].split()[1]),
        "seconds": seconds,
        "cpu": after.user - before.user + after.system - before.system,
        "memory": of_process("VmHWM") * 1024,
    }


if __name__ == "__main__":
    if sys.argv[1] == "log":
        print(_log(sys.argv[2], int(sys.argv[3])))
    else:
        print(json.dumps(_forward(*sys.argv[2:])))
