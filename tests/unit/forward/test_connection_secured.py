"""
The connection to a receiver with a certificate, and to one behind a proxy: sockets on this machine.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import replace

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[otlp]'")

from answering import TAKEN, ask, certificate, serving

from sqlite_log_handler._forward.delivery import Verdict
from sqlite_log_handler._forward.receiver import Endpoint, Receiver


@pytest.mark.parametrize(
    ("name", "verdict", "words"),
    [
        ("IP:127.0.0.1", Verdict.TAKEN, ""),
        ("IP:127.0.0.2", Verdict.DENIED, "IP address mismatch"),
        ("DNS:collector.example", Verdict.DENIED, "mismatch"),
    ],
)
def test_a_certificate_of_a_wrong_name(tmp_path, name, verdict, words):
    """A receiver whose certificate is trusted, but is for another name, is sent nothing."""
    file, context = certificate(tmp_path, name)
    with serving(TAKEN, context) as (port, came):
        said = ask(port, url="https://127.0.0.1:{}", certificate=file, headers={"authorization": "secret-token"})

    assert verdict is said.verdict
    assert words in said.message
    assert (verdict is Verdict.TAKEN) == bool(came)


def test_certificates_are_renewed(tmp_path):
    """
    What refuses one request because of a certificate is asked with the files as they are by then.

    They were read once, so --follow tried for ever with a certificate that had run out, until somebody restarted it.
    """
    (tmp_path / "other").mkdir()
    file, context = certificate(tmp_path, "IP:127.0.0.1")
    other, _ = certificate(tmp_path / "other", "IP:127.0.0.1")
    context.load_verify_locations(file)
    context.verify_mode = ssl.CERT_REQUIRED
    used, key = str(tmp_path / "used.pem"), str(tmp_path / "used-key.pem")
    endpoint = Endpoint("", certificate=str(tmp_path / "trusted.pem"), client_certificate=used, client_key=key)
    said = []
    with serving(TAKEN, context) as (port, came):
        for trusted, mine in [(other, other), (file, other), (file, file)]:
            shutil.copy(trusted, endpoint.certificate or "")
            shutil.copy(mine, used)
            shutil.copy(mine.replace("certificate.pem", "key.pem"), key)
            if not said:
                receiver = Receiver(replace(endpoint, url=f"https://127.0.0.1:{port}"), "test")
            said.append(receiver(b"body").verdict)
        os.remove(used)
        receiver.close()
        assert Verdict.TAKEN is receiver(b"body").verdict, "files are read again where a request has failed"
        receiver.close()

    assert [Verdict.DENIED, Verdict.LATER, Verdict.TAKEN] == said
    assert 2 == len(came)


def test_a_key_that_is_encrypted(tmp_path):
    """A key that wants a password is refused: OpenSSL asked for it on the terminal, which a service does not have."""
    file, _ = certificate(tmp_path, "IP:127.0.0.1")
    key = str(tmp_path / "encrypted.pem")
    change = ("openssl", "ec", "-aes256", "-passout", "pass:word", "-in", str(tmp_path / "key.pem"), "-out", key)
    subprocess.run(change, check=True, capture_output=True)

    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_CLIENT_KEY is encrypted"):
        Receiver(Endpoint("https://127.0.0.1:1", client_certificate=file, client_key=key), "test")


@pytest.mark.parametrize("past", ["127.0.0.1:{}", "[::1], 127.0.0.1:{} "])
def test_no_proxy_with_a_port(monkeypatch, past):
    """A name in NO_PROXY may have a port, as other programs take it; the proxy was asked."""
    with serving(TAKEN) as (port, direct):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", past.format(port))
        assert Verdict.TAKEN is ask(port).verdict
        monkeypatch.setenv("no_proxy", "127.0.0.1:2")
        assert Verdict.LATER is ask(port).verdict

    assert 1 == len(direct)


def test_a_proxy_for_http(monkeypatch):
    """HTTP_PROXY is asked for the whole address, with the password of the proxy; NO_PROXY goes past it."""
    with serving(TAKEN) as (proxy, came), serving(TAKEN) as (port, direct):
        monkeypatch.setenv("http_proxy", f"http://us%40er:pass@127.0.0.1:{proxy}\n")
        assert Verdict.TAKEN is ask(port).verdict
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert Verdict.TAKEN is ask(port).verdict

    (head,) = came
    assert head.startswith(f"POST http://127.0.0.1:{port}/v1/logs HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"us@er:pass") in head
    assert 1 == len(direct)
    assert b"Proxy-Authorization" not in direct[0]


def test_a_proxy_for_https(monkeypatch, tmp_path):
    """HTTPS_PROXY makes a tunnel, and sees neither the headers nor the rows."""
    file, context = certificate(tmp_path, "IP:127.0.0.1")
    heads = []

    def tunnel(connection):
        heads.append(came[0])
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")

        def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := source.recv(65_536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        with socket.create_connection(("127.0.0.1", port)) as target:
            back = threading.Thread(target=pump, args=(target, connection))
            back.start()
            pump(connection, target)
            back.join()

    with serving(TAKEN, context) as (port, direct), serving(tunnel) as (proxy, came):
        monkeypatch.setenv("https_proxy", f"user:pass@127.0.0.1:{proxy}")
        said = ask(port, url="https://127.0.0.1:{}", certificate=file, headers={"authorization": "secret-token"})

    assert Verdict.TAKEN is said.verdict
    assert heads[0].startswith(f"CONNECT 127.0.0.1:{port} HTTP/".encode())
    assert b"secret-token" not in heads[0]
    assert b"secret-token" in direct[0]
    assert b"Proxy-Authorization" not in direct[0]


def test_a_proxy_that_refuses(monkeypatch):
    """A proxy that wants a password is away, as a receiver is; its password is not printed."""
    refusal = b"HTTP/1.1 407 No pass\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with serving(refusal) as (proxy, _):
        monkeypatch.setenv("https_proxy", f"http://user:pass-word@127.0.0.1:{proxy}")
        said = ask(1, url="https://127.0.0.1:{}")

    assert Verdict.LATER is said.verdict
    assert "407" in said.message
    assert "pass-word" not in said.message


def test_a_proxy_whose_headers_have_no_end(monkeypatch):
    """The headers with which a proxy answers are bounded as those of a receiver are."""
    headers = b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 30_000 + b"\r\n") * 3 + b"Connection: close\r\n\r\n"
    with serving(headers) as (proxy, _):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}")
        said = ask(1, url="https://127.0.0.1:{}")

    assert Verdict.LATER is said.verdict
    assert "the answer has more than 64 KiB of headers" in said.message


def test_what_the_user_set_wins(monkeypatch, tmp_path):
    """
    A line of ~/.netrc takes no part: it took the place of the authorization that OTEL_EXPORTER_OTLP_HEADERS sets, and
    sent a password that was meant for something else.
    """
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login joe password other-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(TAKEN) as (port, came):
        ask(port, headers={"authorization": "Bearer token"})
        ask(port)
        ask(port, url="http://us%40er:p%2Fw@127.0.0.1:{}")
        ask(port, url="http://us%40er:p%2Fw@127.0.0.1:{}", headers={"Authorization": "Bearer token"})

    found = [[line for line in head.splitlines() if line.lower().startswith(b"authorization")] for head in came]
    basic = b"Authorization: Basic " + base64.b64encode(b"us@er:p/w")
    assert [[b"authorization: Bearer token"], [], [basic], [b"Authorization: Bearer token"]] == found


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:s3cr3t@host:1080",
        "http://user:s3cr3t/word@host:1080",
        "http://user:s3cr3t@host:x",
        "http://user:[s3cr3t]@host:1",
        "http://user:s3cr3t@ho st:1",
    ],
)
def test_a_wrong_proxy_is_an_error(monkeypatch, proxy):
    """
    An address of a proxy that cannot be used is refused without its password.

    Of a password with a `/` in it, the first half stood in the place of a port, and was printed.
    """
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        Receiver(Endpoint("https://host"), "test")

    assert "s3cr3t" not in str(caught.value)
