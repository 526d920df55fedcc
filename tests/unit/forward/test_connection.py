"""
The connection to a receiver that is hostile, and what it may print: sockets on this machine.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[otlp]'")

from answering import TAKEN, ask, certificate, serving
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from sqlite_log_handler._forward.connection import HttpConnection, _HttpResponse
from sqlite_log_handler._forward.delivery import Verdict
from sqlite_log_handler._forward.receiver import Endpoint, Receiver, endpoint_from


@pytest.mark.parametrize("answer", [TAKEN, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"])
def test_a_connection_is_kept(answer):
    """Requests that follow one another take one connection; one that was closed meanwhile is made anew."""
    with serving(answer) as (port, came):
        url = f"http://127.0.0.1:{port}/v1/logs?key=a b"
        connection = HttpConnection(url, {"X": "y"}, 20, ssl.create_default_context)
        for _ in range(3):
            assert 200 == connection.post(b"body")[0]
        kept = connection._connection
        assert kept is not None
        kept.sock.shutdown(socket.SHUT_RDWR)
        assert 200 == connection.post(b"body")[0]
        connection.close()

    assert 4 == len(came)
    assert came[0].startswith(b"POST /v1/logs?key=a%20b HTTP/1.1\r\n")


def test_a_connection_beside_many_files():
    """
    A connection is kept whatever the number of its descriptor is, which is high where many files are forwarded.

    `select.select` takes none from 1024 on, so each request failed, and for ever with --follow.
    """
    fcntl, resource = pytest.importorskip("fcntl"), pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2_000:
        pytest.skip("this process may not have so many files")
    with serving(TAKEN) as (port, came):
        connection = HttpConnection(f"http://127.0.0.1:{port}", {}, 20, ssl.create_default_context)
        connection.post(b"body")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2_000, hard))
        with connection._connection.sock as low:
            connection._connection.sock = high = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD, 1_500))
            high.settimeout(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert 200 == connection.post(b"body")[0]
        connection.close()

    assert 2 == len(came)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: application/x-protobuf\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: application/x-protobuf\r\n\r\n\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/x-protobuf\r\n\r\n5\r\nab",
        b"\x1b[2J\x1b]0;title\x07\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000,
        b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 30_000 + b"\r\n") * 3 + b"\r\n",
    ],
    ids=range(10),
)
def test_an_answer_that_ends_in_the_middle(answer):
    """
    An answer that is cut, or is none, is no success, and what is said of it is one short line that prints.

    One that was cut in its headers was taken for a success without a word, and its rows were passed over. One with 99
    headers of 64 KiB was taken as well, with 45 MB of memory.
    """
    with serving(lambda connection: connection.sendall(answer)) as (port, _):
        said = ask(port)

    assert Verdict.LATER is said.verdict
    assert said.message.isprintable()
    assert len(said.message) < 600


def test_a_page_without_end():
    """Of an answer that does not end, as much is read as a message of refusal has."""

    def talk(connection):
        connection.sendall(b"HTTP/1.1 401 No\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)

    with serving(talk) as (port, _):
        said = ask(port)

    assert Verdict.DENIED is said.verdict
    assert len(said.message) < 600


def test_a_success_that_is_too_long():
    """A success of more than 64 KiB is not read whole, so it is none, as the page on forwarding says."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.error_message = "x" * 65_536
    message = answer.SerializeToString()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
    with serving(head % len(message) + message) as (port, _):
        said = ask(port)

    assert (Verdict.LATER, True) == (said.verdict, "not OTLP" in said.message)


@pytest.mark.parametrize("length", [b"-1", b"-5", b"-FFFF"])
def test_a_chunk_of_a_negative_length(length):
    """No chunk makes `http.client` read to the end of an answer, which may never come: one of -1 took 3 GB."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\nConnection: close" % length
    with serving(answer) as (port, _):
        said = ask(port)

    assert (Verdict.LATER, True) == (said.verdict, "a chunk of a negative length" in said.message)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_a_request_can_be_broken_off(part):
    """Another thread ends the wait for an answer that drips, wherever it is, and is told which time is over."""
    asked, over = threading.Event(), threading.Event()

    def talk(connection):
        connection.sendall(part)
        asked.set()
        over.wait()

    with serving(talk) as (port, _):
        receiver = Receiver(Endpoint(f"http://127.0.0.1:{port}", timeout=60), "test")
        answers = []
        thread = threading.Thread(target=lambda: answers.append(receiver(b"body")))
        thread.start()
        asked.wait()
        said = receiver.give_up()
        thread.join()
        over.set()

    assert (Verdict.LATER, "no whole answer within 60 s") == (said.verdict, said.message)
    assert [Verdict.LATER] == [answer.verdict for answer in answers]


def test_nothing_is_sent_in_the_clear_while_a_request_is_broken_off(monkeypatch):
    """
    While a connection is broken off, what the other thread still sends goes through TLS, or nowhere.

    `SSLSocket.shutdown` takes TLS away first, and sends what comes before the end of the connection as plain text.
    """
    tried = []

    def send(sock, _):
        with suppress(OSError):  # of a handshake that nobody answers
            tried.append(sock.send(b"key"))

    ours, theirs = socket.socketpair()
    tls = ssl.create_default_context().wrap_socket(ours, server_hostname="a", do_handshake_on_connect=False)
    with tls, theirs:
        tls.settimeout(0)
        connection = HttpConnection("https://a", {}, 20, ssl.create_default_context)
        connection._connection.sock = tls
        monkeypatch.setattr(socket.socket, "shutdown", send)
        connection.break_off()

        assert ([], False) == (tried, b"key" in theirs.recv(1_000))


@contextmanager
def half_an_answer(monkeypatch, beginning):
    """Have a thread read an answer that does not go on; yield the receiver and the thread."""
    reading, over = threading.Event(), threading.Event()
    read = _HttpResponse.read
    monkeypatch.setattr(_HttpResponse, "read", lambda response, size: reading.set() or read(response, size))

    def talk(connection):
        connection.sendall(beginning)
        over.wait(20)

    with serving(talk) as (port, _):
        receiver = Receiver(Endpoint(f"http://127.0.0.1:{port}", timeout=60), "test")
        thread = threading.Thread(target=receiver, args=(b"body",), daemon=True)
        thread.start()
        reading.wait()
        yield receiver, thread
        over.set()
        thread.join()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close", b"HTTP/1.0 500 No"])
def test_the_last_answer_of_a_connection_can_be_broken_off(monkeypatch, head):
    """
    Another thread ends the wait for an answer after which the receiver closes the connection.

    `http.client` had let go of its socket by then. So a thread read on as long as a byte came now and then, and each
    further attempt brought another thread.
    """
    with half_an_answer(monkeypatch, head + b"\r\n\r\nx") as (receiver, thread):
        receiver.give_up()
        thread.join(10)
        is_over = not thread.is_alive()

    assert is_over


def test_a_connection_is_closed_while_another_thread_reads(monkeypatch):
    """
    A signal closes the connection at once, also while the thread that it abandoned waits for the rest of an answer.

    `http.client` closes the answer's file, which waits for the lock that the reading thread holds: SIGTERM hung for the
    whole time of a step.
    """
    with half_an_answer(monkeypatch, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx") as (receiver, _):
        closing = threading.Thread(target=receiver.close, daemon=True)
        closing.start()
        closing.join(10)
        is_closed = not closing.is_alive()

    assert is_closed


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    """What a receiver names as another address is sent nothing: the headers hold a key."""
    with serving(TAKEN) as (other, came):
        answer = f"HTTP/1.1 {status} Gone\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n".encode()
        with serving(answer) as (port, _):
            said = ask(port, headers={"authorization": "Bearer secret-token"})

    assert (Verdict.DENIED, f"HTTP status {status}", []) == (said.verdict, said.message, came)


@pytest.mark.parametrize("is_secure", [False, True])
@pytest.mark.parametrize(
    ("status", "verdict"),
    [("413 Too Large", Verdict.REFUSED), ("401 Unauthorized", Verdict.DENIED), ("200 OK", Verdict.LATER)],
)
def test_an_answer_before_the_body(tmp_path, status, verdict, is_secure):
    """
    A receiver may refuse a body before it has come, and close; only a success means nothing then.

    We took the broken connection for an outage, and sent a batch that a proxy finds too large again without end.
    """
    file, context = certificate(tmp_path, "IP:127.0.0.1") if is_secure else (None, None)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse():
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or closing throws the answer away
            with context.wrap_socket(connection, server_side=True) if context else connection as secured:
                secured.recv(1_000)
                secured.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        refusing = threading.Thread(target=refuse)
        refusing.start()
        url = f"{'https' if is_secure else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
        with closing(Receiver(Endpoint(url, timeout=20, gzip=False, certificate=file), "test")) as receiver:
            said = receiver(bytes(32 << 20))  # more than the buffers of the system take
        refusing.join()

    assert verdict is said.verdict, said.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADERS", "Bearer s3cr3t"),
        ("HEADERS", "authorization=Basic abc,s3cr3t"),
        ("HEADERS", "s3cr3t"),
        ("HEADERS", "Authorization: Basic s3cr3t=="),
        ("HEADERS", "s3cr3t%3Aname=x"),
        ("CLIENT_KEY", "-----BEGIN PRIVATE KEY-----\ns3cr3t\n"),
        ("TIMEOUT", "s3cr3t"),
        ("HEADERS", "authorization=s3cr3t%0A"),
        ("ENDPOINT", "https://user:p/s3cr3t@host:4318"),
        ("ENDPOINT", "https://user:443/s3cr3t@host:4318"),
        ("ENDPOINT", "https://user:s3cr3t@host:port"),
        ("ENDPOINT", "ftp://user:s3cr3t@host"),
        ("ENDPOINT", "https://host/?key=s3cr3t with blanks"),
        ("ENDPOINT", "https://host/?key=s3cr3t\n"),
        ("LOGS_ENDPOINT", "s3cr3t"),
    ],
)
def test_no_secret_in_an_error(name, value):
    """A setting that is refused is not written out: somebody reads the journal of the service."""
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP") as caught:
        endpoint_from({f"OTEL_EXPORTER_OTLP_{name}": value})

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_an_interim_answer(interim):
    """
    An answer that only says that the answer will come is passed over (RFC 9110, section 15.2).

    After 102 or 103 the command gave up, because it took them for a refusal; some proxies send 103.
    """
    with serving(b"HTTP/1.1 %s\r\nLink: </x>\r\n\r\n" % interim * 3 + TAKEN) as (port, _):
        said = ask(port)

    assert Verdict.TAKEN is said.verdict


def test_interim_answers_without_end():
    """A receiver that sends nothing but interim answers is given up when the request has had its time."""
    begun = threading.Event()

    def flood(connection):
        while True:
            connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            begun.set()

    with serving(flood) as (port, _):
        receiver = Receiver(Endpoint(f"http://127.0.0.1:{port}/", timeout=20, gzip=False), "test")
        said = []
        thread = threading.Thread(target=lambda: said.append(receiver(b"body")))
        thread.start()
        assert begun.wait(20)
        receiver.give_up()
        thread.join()

    assert [Verdict.LATER] == [answer.verdict for answer in said]


def test_an_answer_of_another_protocol():
    """A receiver that wants to speak another protocol is refused, as it was not asked to."""
    with serving(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") as (port, _):
        assert Verdict.DENIED is ask(port).verdict


def test_a_word_of_the_list_that_is_a_secret_is_hidden():
    """A number or a name with a slash that is set as a secret is not printed, although the list has it."""
    words = b"503 text/html expired"
    with serving(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words)) as (port, _):
        said = ask(port, headers={"x-pin": "503", "x-kind": "text/html"})

    assert "HTTP status 401: *** expired" == said.message


SECRET = 'Sup3r/S3cret+K"ey&ä!=='


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        SECRET.upper(),
        SECRET.encode("latin-1"),
        quote(SECRET, safe=""),
        quote(SECRET, safe="!*'()").lower(),
        json.dumps(SECRET),
        json.dumps(SECRET).replace("/", r"\/").replace("&", r"\u0026").replace("=", r"\u003d"),
        *(encode(SECRET.encode()) for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode)),
        base64.b64encode(f"user:{SECRET}".encode()),
        base64.b64encode(f"user:{SECRET}".encode()).decode().replace("=", r"\u003d"),
        SECRET.encode().hex(" "),
        str([*SECRET.encode()]),
        SECRET[::-1],
        "Sup3r",
    ],
)
@pytest.mark.parametrize("place", ["header", "cookie", "password", "query", "flag", "proxy"])
def test_a_secret_that_comes_back_in_any_form_is_hidden(monkeypatch, place, form):
    """
    A secret is hidden wherever it was set, and in whatever form a receiver or a proxy repeats it.

    We looked for the forms that Python writes. JSON of PHP, Java and Go, what JavaScript percent-encodes, a word of a
    cookie, a query without a name and Latin-1 got through.
    """
    words = b"Token " + (form if isinstance(form, bytes) else form.encode()) + b" has expired"
    coded = quote(SECRET, safe="")
    head = {"header": {"x-api-key": f"Bearer {SECRET}"}, "cookie": {"cookie": f'id="{SECRET}"; theme=dark'}}
    url = {
        "password": f"http://user:{coded}@127.0.0.1:{{}}/",
        "query": f"http://127.0.0.1:{{}}/?key={coded}&b=1",
        "flag": f"http://127.0.0.1:{{}}/?{coded}&debug",
    }
    with serving(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words)) as (port, _):
        if place == "proxy":
            monkeypatch.setenv("http_proxy", f"http://user:{coded}@127.0.0.1:{port}")
            monkeypatch.setenv("no_proxy", "")
        said = ask(port, url=url.get(place, "http://127.0.0.1:{}/"), headers=head.get(place, {}))

    assert "HTTP status 401: token *** has expired" == said.message


@pytest.mark.parametrize(
    ("headers", "answer", "expected"),
    [
        ({}, b"HTTP/1.1 400 No\r\nContent-Length: 10\r\n\r\nRow 7: old", "HTTP status 400: Row 7: old"),
        ({"x": "y"}, b"HTTP/1.1 400 No\r\nContent-Length: 10\r\n\r\nRow 7: old", "HTTP status 400: row *** old"),
        ({"x": "old-key"}, b"HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nold", "HTTP status 400: ***"),
        ({"x": "k3y"}, b"HTTP/k3y 200 No\r\n\r\n", "UnknownProtocol: ***"),
        ({"x": "k3y"}, b"HTTP/1.1 200 No\r\nContent-Type: k3y\r\nContent-Length: 1\r\n\r\nx", "with ***, which is"),
        (
            {"x": "k3y"},
            b'HTTP/1.1 200 No\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"k3y":1',
            "with an answer that is not OTLP: failed",
        ),
        (
            {"x": "k3y"},
            b'HTTP/1.1 200 No\r\ncontent-type: application/json\r\n\r\n{"partialSuccess":{"errorMessage":"k3y old"}}',
            "*** old",
        ),
    ],
)
def test_what_a_receiver_says(headers, answer, expected):
    """All that a receiver says is printed where it knows no secret; else words of our own list, wherever they come."""
    with serving(lambda connection: connection.sendall(answer)) as (port, _):
        said = ask(port, headers=headers)

    assert expected in said.message
    assert "k3y" not in said.message
