"""
A receiver of requests on a socket of this machine, and its certificate.

Import it where the packages of the extra `otlp` are.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import closing, contextmanager
from itertools import takewhile

import pytest

from sqlite_log_handler._forward.receiver import Endpoint, Receiver

TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(answer, context=None):
    """
    Answer each request on a connection with these bytes, or with what a function does; yield the port and what came.
    """
    came: list[bytes] = []
    threads: list[threading.Thread] = []
    open_: list[socket.socket] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def talk(connection):
        with contextlib.suppress(OSError), connection:
            secured = context.wrap_socket(connection, server_side=True) if context else connection
            open_.append(secured)
            with secured, secured.makefile("rb") as file:
                while head := b"".join(takewhile(lambda line: line.strip(), file)):
                    length = [line for line in head.splitlines() if line.lower().startswith(b"content-length:")]
                    came.append(head + file.read(int(length[0].split(b":")[1]) if length else 0))
                    if callable(answer):
                        answer(secured)
                        return
                    secured.sendall(answer)
                    if b"Connection: close" in answer:
                        return

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                thread = threading.Thread(target=talk, args=(connection,))
                threads.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listening.getsockname()[1], came
    finally:
        for each in (listening, *open_):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()
        for thread in threads:
            thread.join()


def ask(port, *, url="http://127.0.0.1:{}/v1/logs", **options):
    """Send one request, and return the answer."""
    endpoint = Endpoint(url.format(port), timeout=20, gzip=False, **options)
    with closing(Receiver(endpoint, "test")) as receiver:
        return receiver(b"body")


def certificate(folder, name):
    """Make a key and a certificate for a name that no authority has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    key, file = str(folder / "key.pem"), str(folder / "certificate.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=tea"),
            *("-addext", f"subjectAltName={name}", "-keyout", key, "-out", file),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return file, context
