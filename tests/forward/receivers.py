"""
Receivers of OTLP on the loopback: one that can be told to fail, and two that others use.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

import sqlite_log_handler

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

# Seconds that nothing here takes, on no machine.
WATCHDOG = 120

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
    # Where the package under test is: a program in another folder is to find the same one.
    "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__)),
    # A receiver that stalls for some seconds has taken what it was sent: nothing is to be sent again.
    "OTEL_EXPORTER_OTLP_TIMEOUT": "600000",
    # On the loopback nothing is to go by a proxy.
    "no_proxy": "*",
    "LD_LIBRARY_PATH": os.pathsep.join(
        filter(None, [os.environ.get("LD_LIBRARY_PATH"), sysconfig.get_config_var("LIBDIR")])
    ),
}


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until something is true that happens in another process."""
    deadline = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Tell whether somebody answers at a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def uids_in(body: bytes) -> list[str]:
    """Give the uid of each record of a request."""
    return [
        attribute.value.string_value
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        for attribute in record.attributes
        if attribute.key == "log.record.uid"
    ]


def rows_in(path: Path) -> int:
    """Count the rows of a log."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM records").fetchone()[0]
        return count


class FaultServer(ThreadingHTTPServer):
    """
    A receiver that does what it is told, request by request, and takes everything when it was told nothing.

    `plan` is a list of what to do with the next requests: "take"; "cut" takes the rows and cuts the connection before
    it answers; "hang" takes nothing and answers never; a number is an HTTP status, and a pair is a status and its
    headers; bytes are the body of an answer with status 200.
    """

    daemon_threads = False

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), FaultHandler)
        self.plan: list[Any] = []
        self.uids: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.ended = threading.Event()
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection, and remember it."""
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def end(self) -> None:
        """End as a process does: nobody listens any more, and what was open is cut."""
        self.ended.set()
        self.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing when a forwarder is killed in the middle of a request."""


class FaultHandler(BaseHTTPRequestHandler):
    """One connection to a FaultServer."""

    protocol_version = "HTTP/1.1"
    server: FaultServer

    def do_POST(self) -> None:
        """Serve a request by the plan."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        size = len(body)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        server = self.server
        server.headers.append(dict(self.headers.items()))
        server.times.append(time.monotonic())
        step = server.plan.pop(0) if server.plan else "take"
        if step == "hang":
            server.ended.wait(WATCHDOG)
            self.close_connection = True
            return
        if step in ("take", "cut") or isinstance(step, bytes):
            server.uids.update(uids_in(body))
            server.sizes.append(size)
        if step == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers = step if isinstance(step, tuple) else (step if isinstance(step, int) else 200, {})
        answer = step if isinstance(step, bytes) else b""
        self.send_response(status)
        for name, value in {"Content-Type": "application/x-protobuf", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def partial(rejected: int, message: str) -> bytes:
    """Make the answer of a receiver that took a request in part."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    body: bytes = answer.SerializeToString()
    return body


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[FaultServer]:
    """Run a FaultServer on a thread, at a port of its own or at one that another has left."""
    server = FaultServer(port)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join()


def errors_of(process: subprocess.Popen[str]) -> str:
    """Read what a process said on standard error so far."""
    return Path(f"{process.base}.err").read_text()  # type: ignore[attr-defined]


# The receivers that others have ---------------------------------------------------------------------------------------


class Rotel:
    """
    The collector Rotel, on ports of its own that it keeps when it is restarted.

    Args:
        start: The fixture.
        folder: For its files.
        exporter: Its options for what becomes of the records.
    """

    def __init__(self, start: Callable[..., subprocess.Popen[str]], folder: Path, *exporter: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._start = start
        self._command = (
            *(rotel_binary(), "start", "--otlp-http-endpoint", f"127.0.0.1:{self.port}"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"),
            *("--pid-file", str(folder / "rotel.pid"), "--log-file", str(folder / "rotel.log")),
            *exporter,
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = self._start(*self._command)
        eventually(lambda: is_listening(self.port), "Rotel listens")

    def stop(self) -> None:
        """Ask it to end, which it does when it has passed on what it has."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(WATCHDOG)


def rotel_binary() -> str:
    """Find the binary that the package brings."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or spec.origin is None:
        pytest.skip("needs Rotel: pip install 'sqlite-log-handler[test-forward]'")
    binary = str(Path(spec.origin).with_name("rotel-agent"))
    # It is linked with the library of its Python, which a Python that was built without one has not.
    done = subprocess.run([binary, "version"], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    if done.returncode:
        pytest.skip(f"Rotel does not run here: {done.stderr.strip()}")
    return binary


class OtelTap:
    """OtelTap, which prints what it gets as lines of JSON; without gzip."""

    def __init__(self, start: Callable[..., subprocess.Popen[str]]) -> None:
        if importlib.util.find_spec("oteltap") is None:
            pytest.skip("needs OtelTap: pip install 'sqlite-log-handler[test-forward]'")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._start = start
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._processes.append(self._start(sys.executable, "-m", "oteltap", "--port", self.port))
        eventually(lambda: is_listening(self.port), "OtelTap listens")

    def stop(self) -> None:
        """Interrupt it, as one does."""
        self._processes[-1].send_signal(signal.SIGINT)
        self._processes[-1].wait(WATCHDOG)

    def records(self) -> list[dict[str, Any]]:
        """Read what it has printed in all its lives."""
        found = []
        for process in self._processes:
            with open(f"{process.base}.out") as lines:  # type: ignore[attr-defined]
                found += [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
        return found

    def uids(self) -> set[str]:
        """Give the uids of the records that it got."""
        return {
            attribute["value"]["stringValue"]
            for record in self.records()
            for attribute in record["attributes"]
            if attribute["key"] == "log.record.uid"
        }
