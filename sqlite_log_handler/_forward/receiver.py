"""
The receiver of OTLP/HTTP: its address, the requests, and what its answers mean.

https://opentelemetry.io/docs/specs/otlp/#otlphttp has the protocol, and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ the environment variables. We do not use the official
exporter: it takes records of OpenTelemetry's SDK and returns success or failure only, not how long the receiver wants
to be left alone, nor how many records it rejected.

We do not trust the receiver: before anybody sees its words, they are cut, made printable, and rid of our secrets.
"""

import base64
import email.utils
import gzip
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from sqlite_log_handler._forward.connection import HttpConnection
from sqlite_log_handler._forward.delivery import Answer, Verdict
from sqlite_log_handler._forward.otlp import pairs
from sqlite_log_handler._logfile.printable import printable

_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_TIMEOUT_MS = "10000"
# A smaller number is meant in seconds, as Python's SDK takes it: no receiver answers within a tenth of one.
_SHORTEST_TIMEOUT_MS, _LONGEST_TIMEOUT_MS = 100, 86_400_000

# It shrinks log lines to a tenth; a higher level takes three times as long to save a tenth of that.
_GZIP_LEVEL = 1

# Enough for the reason of a refusal.
_LONGEST_ANSWER = 64 * 1024
_LONGEST_MESSAGE = 500

# Shorter words of a header also occur in ordinary text.
_SHORTEST_SECRET = 6

# These refuse one request; the other 4xx refuse everything from us.
_REFUSED = frozenset({400, 413, 422})
_REQUEST_TIMEOUT = 408
_TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to send."""

    url: str  # the whole address for logs
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0  # seconds from the beginning of a request to the end of its answer
    gzip: bool = True
    certificate: str | None = None  # file with the authorities to trust instead of the system's
    client_certificate: str | None = None  # file by which the receiver knows us
    client_key: str | None = None

    @property
    def name(self) -> str:
        """The address without user, password and query, which may be secret."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def endpoint_from(
    environment: Mapping[str, str], *, url: str | None = None, compression: str | None = None
) -> Endpoint:
    """
    Return the endpoint that the options and the standard environment variables name.

    An option wins over a variable for logs, and that over a variable for all signals. `/v1/logs` is added to a `url`
    without a path.

    Raises:
        ValueError: A setting is out of range, or names a file that does not exist.
    """

    def setting(name: str, default: str | None = None) -> str | None:
        return environment.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}") or environment.get(
            f"OTEL_EXPORTER_OTLP_{name}", default
        )

    for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        file = setting(name)
        if file and not os.path.isfile(file):
            raise ValueError(f"OTEL_EXPORTER_OTLP_{name}: there is no such file")
    compression = compression or setting("COMPRESSION") or "gzip"
    if compression not in {"gzip", "none"}:
        raise ValueError("the compression is unknown: choose gzip or none")
    return Endpoint(
        url=_logs_url(environment, url),
        headers=_headers(setting("HEADERS") or ""),
        timeout=_seconds(setting("TIMEOUT") or _DEFAULT_TIMEOUT_MS),
        gzip=compression == "gzip",
        certificate=setting("CERTIFICATE"),
        client_certificate=setting("CLIENT_CERTIFICATE"),
        client_key=setting("CLIENT_KEY"),
    )


def _logs_url(environment: Mapping[str, str], url: str | None) -> str:
    logs_url = environment.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")
    whole = url or logs_url or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULT_ENDPOINT
    try:
        parts = urlsplit(whole)
        found = (
            parts.scheme in {"http", "https"}
            and parts.hostname
            and parts.port != 0
            and "@" not in parts.path
            and whole.isprintable()
            and " " not in whole
        )
    except ValueError:  # the port is not a number, or a bracket is not closed
        found = False
    if not found:
        # The message leaves it out, because it may hold a password.
        raise ValueError(
            "the address of the receiver (--otlp, OTEL_EXPORTER_OTLP_ENDPOINT) is wrong: write http:// or https://, a "
            "host, and a port if it has one; in a user or a password, percent-encode / and @"
        )
    path = parts.path.rstrip("/")
    # This is the address for logs, or the receiver's, below which each signal has its own.
    is_for_logs = bool(path) if url else bool(logs_url)
    return whole if is_for_logs else urlunsplit(parts._replace(path=f"{path}/v1/logs"))


def _headers(text: str) -> dict[str, str]:
    """Read the headers, and refuse those that cannot be sent. The message leaves them out: they may be secret."""
    headers = pairs("OTEL_EXPORTER_OTLP_HEADERS", text)
    for number, (name, value) in enumerate(headers.items(), 1):
        # `http.client` encodes values in Latin-1.
        if not (
            f"{name}{value}".isprintable()
            and name.isascii()
            and ":" not in name
            and value == value.lstrip()
            and value == value.encode("latin-1", "ignore").decode("latin-1")
        ):
            raise ValueError(
                f"OTEL_EXPORTER_OTLP_HEADERS: entry {number} cannot be sent: write names in ASCII without a colon, "
                "values in Latin-1, and both without control characters"
            )
    return headers


def _seconds(milliseconds: str) -> float:
    found = int(milliseconds[:12]) if milliseconds.strip().isdecimal() else 0
    if not _SHORTEST_TIMEOUT_MS <= found <= _LONGEST_TIMEOUT_MS:
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds from {_SHORTEST_TIMEOUT_MS} to "
            f"{_LONGEST_TIMEOUT_MS}"
        )
    return found / 1000


class Receiver:
    """
    The receiver at an endpoint. Call it with a body to send; it raises nothing.

    Raises:
        ValueError, OSError: A certificate or the proxy of the environment cannot be used.
    """

    def __init__(self, endpoint: Endpoint, user_agent: str) -> None:
        self._endpoint = endpoint
        self._headers = {"User-Agent": user_agent, "Content-Type": "application/x-protobuf"}
        if endpoint.gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._headers.update(endpoint.headers)
        self._connection = HttpConnection(endpoint.url, endpoint.timeout, _tls(endpoint))
        self._secrets = _secrets(endpoint, self._connection.credentials)

    def __call__(self, body: bytes) -> Answer:
        """Send a body and return the answer."""
        answer = self._ask(gzip.compress(body, _GZIP_LEVEL, mtime=0) if self._endpoint.gzip else body)
        message = _readable(answer.message, self._secrets)
        if self._endpoint.gzip and answer.verdict in {Verdict.REFUSED, Verdict.DENIED}:
            message += " (for a receiver without gzip: --compression none)"
        return replace(answer, message=message)

    def give_up(self) -> Answer:
        """Abort the request that another thread waits for, because its time is over."""
        self._connection.break_off()
        return Answer(Verdict.LATER, f"no whole answer within {self._endpoint.timeout:g} s")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, body: bytes) -> Answer:
        try:
            status, headers, content = self._connection.post(body, self._headers, _LONGEST_ANSWER)
        except ssl.SSLCertVerificationError as error:
            return Answer(Verdict.DENIED, _reason(error))
        except Exception as error:  # noqa: BLE001 - whatever http.client, ssl or the system raises, no answer came
            return Answer(Verdict.LATER, _reason(error))
        return read_answer(status, headers, content)


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=endpoint.certificate)
    if endpoint.client_certificate:
        context.load_cert_chain(endpoint.client_certificate, endpoint.client_key)
    return context


def _secrets(endpoint: Endpoint, credentials: Collection[str]) -> re.Pattern[str]:
    """Return what finds the secrets that a receiver may repeat: the words of the headers, the passwords, the query."""
    query = urlsplit(endpoint.url).query
    values = [pair.partition("=")[2] for pair in query.split("&")]
    texts = [*endpoint.headers.values(), *credentials, query, *values, *map(unquote_plus, values)]
    words = {word for text in texts for word in (text, *text.split()) if len(word) >= _SHORTEST_SECRET}
    forms = sorted({form for word in words for form in _forms(word)}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, forms)) or r"(?!)", re.IGNORECASE)


def _forms(word: str) -> Iterator[str]:
    """Yield a word as it is, percent-encoded, within JSON, and in base64."""
    yield from (word, quote(word), quote(word, safe=""), json.dumps(word)[1:-1])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(word.encode()).decode().rstrip("=")


def _readable(text: str, secrets: re.Pattern[str]) -> str:
    """Make one line of a receiver's words, without our secrets."""
    text = printable(" ".join(secrets.sub("***", text[:_LONGEST_ANSWER]).split()))
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def read_answer(
    status: int, headers: Mapping[str, str], content: bytes, *, now: Callable[[], float] = time.time
) -> Answer:
    """Return what an answer of HTTP means. Its `Retry-After` may name a moment, which is compared with `now`."""
    headers = {name.title(): value for name, value in headers.items()}
    if 200 <= status < 300:  # noqa: PLR2004 - the range of success
        return _success(status, headers.get("Content-Type", ""), content)
    words = content.decode(errors="replace").strip()
    message = f"HTTP status {status}" + (f": {words}" if words and words.isprintable() else "")
    if status in _REFUSED:
        return Answer(Verdict.REFUSED, message)
    # OTLP names 429, 502, 503 and 504. To retry after 408 and other 5xx costs time only: the rows are in their file.
    if status in {_REQUEST_TIMEOUT, _TOO_MANY} or status >= 500:  # noqa: PLR2004 - the range of a server's faults
        return Answer(Verdict.LATER, message, retry_after=_retry_after(headers.get("Retry-After", ""), now))
    return Answer(Verdict.DENIED, message)


def _success(status: int, content_type: str, content: bytes) -> Answer:
    """Read an answer of success. If it is not OTLP, it came from a proxy, and no receiver took the request."""
    answer = ExportLogsServiceResponse()
    try:
        if content and content_type.startswith("application/json"):
            if not content.lstrip().startswith(b"{"):
                return Answer(Verdict.LATER, f"HTTP status {status} with JSON that is not OTLP")
            json_format.Parse(content, answer, ignore_unknown_fields=True)
        elif content and content_type.startswith("application/x-protobuf"):
            answer.ParseFromString(content)
        elif content:
            kind = content_type or "no content type"
            return Answer(Verdict.LATER, f"HTTP status {status} with {kind}, which is not OTLP")
    except (DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        return Answer(Verdict.LATER, f"HTTP status {status} with an answer that is not OTLP: {error}")
    partial = answer.partial_success
    return Answer(Verdict.TAKEN, partial.error_message, rejected=max(0, partial.rejected_log_records))


def _retry_after(text: str, now: Callable[[], float]) -> float | None:
    """Read a `Retry-After`: seconds, or a moment (RFC 9110, section 10.2.3). None if it is neither."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
    except (OverflowError, ValueError):
        return None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
