"""
What the environment says about the receiver, and what its answers mean.
"""

from __future__ import annotations

import json

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[otlp]'")

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from sqlite_log_handler._forward.delivery import Answer, Verdict
from sqlite_log_handler._forward.receiver import Endpoint, endpoint_from, read_answer

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json; charset=utf-8"}
HTML = {"Content-Type": "text/html"}
# 2026-11-25 12:00:00 UTC
NOON = 1_795_608_000.0


def partial(rejected, message):
    """Make the answer of a receiver that took a request in part."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    return answer.SerializeToString()


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, None, "http://localhost:4318/v1/logs"),
        ({}, "https://a:1", "https://a:1/v1/logs"),
        ({}, "https://a:1/", "https://a:1/v1/logs"),
        ({}, "https://a:1/otlp/v1/logs", "https://a:1/otlp/v1/logs"),
        ({}, "https://a:1?key=x", "https://a:1/v1/logs?key=x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"}, None, "http://b/v1/logs"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b/x?key=x"}, None, "http://b/x/v1/logs?key=x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b/x/"}, None, "http://b/x/v1/logs"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c"}, None, "http://c"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c/in"}, None, "http://c/in"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c/in"}, "http://d", "http://d/v1/logs"),
    ],
)
def test_where_the_receiver_is(environment, url, expected):
    """The option wins, then what is for logs, which is used as it is, then what is for all, with /v1/logs added."""
    assert expected == endpoint_from(environment, url=url).url


def test_the_rest_of_the_environment(tmp_path):
    """Headers, timeout, compression and certificates are those of the standard variables; what is for logs wins."""
    for name in ("all.pem", "logs.pem", "key.pem"):
        (tmp_path / name).touch()
    prefix = "OTEL_EXPORTER_OTLP"

    endpoint = endpoint_from(
        {
            f"{prefix}_HEADERS": "authorization=Basic%20eA==,x-scope=a",
            f"{prefix}_TIMEOUT": "9000",
            f"{prefix}_LOGS_TIMEOUT": "2500",
            f"{prefix}_COMPRESSION": "gzip",
            f"{prefix}_LOGS_COMPRESSION": "none",
            f"{prefix}_CERTIFICATE": str(tmp_path / "all.pem"),
            f"{prefix}_LOGS_CERTIFICATE": str(tmp_path / "logs.pem"),
            f"{prefix}_CLIENT_CERTIFICATE": str(tmp_path / "all.pem"),
            f"{prefix}_CLIENT_KEY": str(tmp_path / "key.pem"),
        }
    )

    assert {"authorization": "Basic eA==", "x-scope": "a"} == endpoint.headers
    assert (2.5, False) == (endpoint.timeout, endpoint.gzip)
    assert str(tmp_path / "logs.pem") == endpoint.certificate
    assert (str(tmp_path / "all.pem"), str(tmp_path / "key.pem")) == (endpoint.client_certificate, endpoint.client_key)


def test_what_nobody_says():
    """Without a word in options and environment it is gzip, and ten seconds."""
    expected = Endpoint("http://localhost:4318/v1/logs", {}, 10.0, True, None, None, None)

    assert expected == endpoint_from({})
    assert not endpoint_from({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, compression="none").gzip


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "write http:// or https://"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, "a host, and a port"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:99999"}, "address of the receiver .* is wrong"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:x"}, "address of the receiver .* is wrong"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://[::1"}, "address of the receiver .* is wrong"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=a%0A"}, "HEADERS: entry 1 cannot be sent"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b,authorization=%E2%82%AC"}, "HEADERS: entry 2 cannot be sent"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}, "milliseconds"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "1.5"}, "milliseconds"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "9" * 5_000}, "milliseconds"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "99999999999"}, "milliseconds"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "choose gzip or none"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "entry 1 is not name=value"),
        ({"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/no/such/file"}, "CLIENT_KEY: there is no such file"),
    ],
)
def test_a_wrong_setting_is_an_error(environment, words):
    """A setting that cannot be meant is refused, with what it should be."""
    with pytest.raises(ValueError, match=words):
        endpoint_from(environment)


def test_a_header_that_cannot_be_sent_is_not_written_out():
    """
    What is wrong with a secret is said without the secret.

    It was printed, as the receiver's fault, and the command tried again for ever.
    """
    with pytest.raises(ValueError, match="cannot be sent") as caught:
        endpoint_from({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20tea%0A"})

    assert "tea" not in str(caught.value)


def test_the_name_of_an_endpoint_holds_no_secret():
    """The cursor is called by the address, without the user, the password and the query."""
    assert "https://a:1/v1/logs" == Endpoint("https://user:password@a:1/v1/logs?key=secret").name


@pytest.mark.parametrize(
    ("status", "headers", "content", "answer"),
    [
        (200, PROTOBUF, b"", Answer(Verdict.TAKEN)),
        (204, {}, b"", Answer(Verdict.TAKEN)),
        (200, {}, b"", Answer(Verdict.TAKEN)),
        (200, JSON, b"", Answer(Verdict.TAKEN)),
        (200, PROTOBUF, partial(3, "too old"), Answer(Verdict.TAKEN, "too old", rejected=3)),
        (200, PROTOBUF, partial(-3, ""), Answer(Verdict.TAKEN)),
        (200, PROTOBUF, partial(0, "use v2"), Answer(Verdict.TAKEN, "use v2")),
        (200, JSON, b'{"partialSuccess": {"rejectedLogRecords": "2"}, "x": 1}', Answer(Verdict.TAKEN, rejected=2)),
        (200, JSON, b"{}", Answer(Verdict.TAKEN)),
        (400, {}, b"bad record", Answer(Verdict.REFUSED, "HTTP status 400: bad record")),
        (413, {}, b"", Answer(Verdict.REFUSED, "HTTP status 413")),
        (401, {}, b"\x1b[2J", Answer(Verdict.DENIED, "HTTP status 401")),
        (404, {}, b"", Answer(Verdict.DENIED, "HTTP status 404")),
        (302, {"Location": "/login"}, b"", Answer(Verdict.DENIED, "HTTP status 302")),
        (408, {}, b"", Answer(Verdict.LATER, "HTTP status 408")),
        (429, {"Retry-After": "7"}, b"", Answer(Verdict.LATER, "HTTP status 429", retry_after=7.0)),
        (500, {}, b"", Answer(Verdict.LATER, "HTTP status 500")),
        (503, {"Retry-After": "soon"}, b"", Answer(Verdict.LATER, "HTTP status 503")),
    ],
)
def test_what_an_answer_means(status, headers, content, answer):
    """Success, refusal of these rows, denial of all rows, and "later" are told apart as the protocol has them."""
    assert answer == read_answer(status, headers, content)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Wed, 25 Nov 2026 12:01:30 GMT", 90.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0.0),
        ("0", 0.0),
        ("-5", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_moment(text, seconds):
    """Both forms of Retry-After are read; a moment that is over is now, and what is neither is left out."""
    assert seconds == read_answer(503, {"Retry-After": text}, b"", now=lambda: NOON).retry_after


def test_the_type_of_an_answer_in_capitals():
    """The case of a media type does not matter (RFC 9110, section 8.3.1); its rows were sent again without end."""
    answer = read_answer(200, {"Content-Type": "Application/JSON; charset=UTF-8"}, b"{}")

    assert Verdict.TAKEN is answer.verdict


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        (HTML, b"<html>Log in to use this network</html>"),
        (PROTOBUF, b"\xff\xff\xff garbage"),
        (JSON, b"[1"),
        (JSON, b"[]"),
        (JSON, b"\xff"),
        (JSON, json.dumps({"partialSuccess": 5}).encode()),
        ({}, b"ok"),
        (HTML, b""),
        ({"Content-Type": "application/octet-stream"}, b""),
    ],
)
def test_a_success_that_is_not_otlp_is_none(headers, content):
    """
    A proxy that says 200 to everything has taken nothing: the rows are sent again, and not passed over.

    They were passed over if the page of the proxy was empty, as nginx has it for `return 200`. (An answer that has no
    type either counts as one of a receiver, as the page says.)
    """
    answer = read_answer(200, headers, content)

    assert Verdict.LATER is answer.verdict
    assert "not OTLP" in answer.message
