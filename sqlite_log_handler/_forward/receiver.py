"""
The receiver of OTLP/HTTP: its address, the requests, and what its answers mean.

https://opentelemetry.io/docs/specs/otlp/#otlphttp has the protocol, and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ the environment variables. We do not use the official
exporter: it takes records of OpenTelemetry's SDK and returns success or failure only, not how long the receiver wants
to be left alone, nor how many records it rejected.

We do not trust the receiver: before anybody sees its words, they are cut and made printable. Where it knows a secret,
we print only words of a fixed list, because there is no end to the forms in which it may repeat a secret.
"""

import email.utils
import gzip
import itertools
import os
import re
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from urllib.parse import urlsplit, urlunsplit

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from sqlite_log_handler._forward.connection import HttpConnection, parts_of
from sqlite_log_handler._forward.delivery import Answer, Verdict
from sqlite_log_handler._forward.otlp import pairs
from sqlite_log_handler._logfile.printable import printable

_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_TIMEOUT_MS = "10000"
# A smaller number is meant in seconds, as Python's SDK takes it: no receiver answers within a tenth of one.
_SHORTEST_TIMEOUT_MS, _LONGEST_TIMEOUT_MS = 100, 86_400_000

# It shrinks log lines to a tenth; a higher level takes three times as long to save a tenth of that.
_GZIP_LEVEL = 1

_LONGEST_MESSAGE = 500

# What receivers, proxies and `http.client` say of a request.
_WORD = re.compile(r"[^\s\"'(){}\[\],.:;!?<>]+")
_WORDS = frozenset(
    _WORD.findall("""
    400 401 403 404 407 408 413 422 429 500 502 503 504 64 a access account active all allowed already an and any api
    answer application/json are at authentication authorization bad batch be been before behind body by bytes cannot
    certificate client closed closing code collector compressed compression connection content could data decode
    denied deprecated detail details did disabled does duplicate empty encoding end entry error exceeded expected
    expired exporter failed far field fields for forbidden format found from full future gateway grpc gzip has have
    header headers host http in index ingestion internal into invalid is it its json key label labels large later
    length limit limited line log logs long malformed many max maximum memory message method missing more must name
    no not number of old older on only or organization otlp out over overloaded parse part partial payload per
    permission policy project proto protobuf provided proxy queue quota rate read reading reason receiver reduce
    refused rejected remote request requests required resource response retry row rows server service shutting size
    slow some space status storage stream streams supported table temporarily tenant text/html text/plain than that
    the this time timed timeout timestamp to token too try tunnel type unable unauthorized unavailable unexpected
    unknown unmarshal unsupported use user valid value values version was were when with without write wrong your
    """)
)

# Of the 4xx, these refuse one request or want it later; the others refuse everything from us.
_REFUSED = frozenset({400, 413, 422})
_BUSY = frozenset({408, 429})


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

    def setting(name: str) -> str | None:
        return environment.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}") or environment.get(f"OTEL_EXPORTER_OTLP_{name}")

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
    parts = parts_of(whole, "http", "https")
    if parts is None:
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
    The receiver at an endpoint. Call it with a body to send; the call raises nothing.

    Raises:
        ValueError, OSError: A certificate or the proxy of the environment cannot be used.
    """

    def __init__(self, endpoint: Endpoint, user_agent: str) -> None:
        self._endpoint = endpoint
        headers = {"User-Agent": user_agent, "Content-Type": "application/x-protobuf"}
        if endpoint.gzip:
            headers["Content-Encoding"] = "gzip"
        headers.update(endpoint.headers)
        self._context = cache(partial(_context, endpoint))
        self._context()  # so that files which cannot be used are said at once
        self._connection = HttpConnection(endpoint.url, headers, endpoint.timeout, self._context)
        secrets = " ".join([*endpoint.headers.values(), self._connection.secrets]).lower()
        parts = *re.findall("[a-z]+", secrets), *re.findall("[0-9]+", secrets), *_WORD.findall(secrets)
        known = _WORDS.difference(parts) if secrets.strip() else None
        self._readable = partial(_readable, known=known)

    def __call__(self, body: bytes) -> Answer:
        """Send a body and return the answer."""
        answer = self._ask(gzip.compress(body, _GZIP_LEVEL, mtime=0) if self._endpoint.gzip else body)
        if answer.verdict is not Verdict.TAKEN:
            # The next handshake reads the files of certificates again, which somebody may have renewed.
            self._context.cache_clear()
        if self._endpoint.gzip and answer.verdict in {Verdict.REFUSED, Verdict.DENIED}:
            return replace(answer, message=f"{answer.message} (for a receiver without gzip: --compression none)")
        return answer

    def give_up(self) -> Answer:
        """Abort the request that another thread waits for, because its time is over."""
        self._connection.break_off()
        return Answer(Verdict.LATER, f"no whole answer within {self._endpoint.timeout:g} s")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, body: bytes) -> Answer:
        try:
            status, headers, content = self._connection.post(body)
        except ssl.SSLCertVerificationError as error:
            return Answer(Verdict.DENIED, self._reason(error))
        except Exception as error:  # noqa: BLE001 - whatever http.client, ssl or the system raises, no answer came
            return Answer(Verdict.LATER, self._reason(error))
        return read_answer(status, headers, content, self._readable)

    def _reason(self, error: Exception) -> str:
        # The system knows no secret, but other errors quote the receiver.
        is_ours = isinstance(error, OSError) and error.errno
        return f"{type(error).__name__}: {error if is_ours else self._readable(str(error))}"


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=endpoint.certificate)
    if endpoint.client_certificate:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(endpoint.client_certificate, endpoint.client_key, password=_refuse_encrypted)
    return context


def _refuse_encrypted() -> str:
    raise ValueError("OTEL_EXPORTER_OTLP_CLIENT_KEY is encrypted: name a file with the key in plain text")


def _readable(text: str, known: Collection[str] | None = None) -> str:
    """Make one line of a receiver's words. If some are `known`, the others become `***`."""
    if known is not None:
        words = [word if word in known else "***" for word in _WORD.findall(text.lower())]
        text = " ".join(word for word, _ in itertools.groupby(words))
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def read_answer(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    readable: Callable[[str], str] = _readable,
    *,
    now: Callable[[], float] = time.time,
) -> Answer:
    """
    Return what an answer of HTTP means, in words that are made `readable`.

    `headers` has names such as Retry-After. That one may be a moment, which is compared with `now`.
    """
    if 200 <= status < 300:  # noqa: PLR2004 - the range of success
        return _success(status, headers.get("Content-Type", "").lower(), content, readable)
    words = content.decode(errors="replace").strip()
    message = f"HTTP status {status}" + (f": {readable(words)}" if words and words.isprintable() else "")
    if status in _REFUSED:
        return Answer(Verdict.REFUSED, message)
    # OTLP names 429, 502, 503 and 504. To retry after 408 and other 5xx costs time only: the rows are in their file.
    if status in _BUSY or status >= 500:  # noqa: PLR2004 - the range of a server's faults
        return Answer(Verdict.LATER, message, retry_after=_retry_after(headers.get("Retry-After", ""), now))
    return Answer(Verdict.DENIED, message)


def _success(status: int, content_type: str, content: bytes, readable: Callable[[str], str]) -> Answer:
    """Read an answer of success. If it is not OTLP, it came from a proxy, and no receiver took the request."""
    answer = ExportLogsServiceResponse()
    try:
        if content_type.startswith("application/json"):
            if content and not content.lstrip().startswith(b"{"):
                return Answer(Verdict.LATER, f"HTTP status {status} with JSON that is not OTLP")
            json_format.Parse(content or b"{}", answer, ignore_unknown_fields=True)
        elif content_type.startswith("application/x-protobuf"):
            answer.ParseFromString(content)
        elif content or content_type:  # some receivers answer with neither
            kind = readable(content_type) or "no content type"
            return Answer(Verdict.LATER, f"HTTP status {status} with {kind}, which is not OTLP")
    except Exception as error:  # noqa: BLE001 - whatever protobuf and json raise, it is not OTLP
        return Answer(Verdict.LATER, f"HTTP status {status} with an answer that is not OTLP: {readable(str(error))}")
    some = answer.partial_success
    return Answer(Verdict.TAKEN, readable(some.error_message), rejected=max(0, some.rejected_log_records))


def _retry_after(text: str, now: Callable[[], float]) -> float | None:
    """Read a `Retry-After`: seconds, or a moment (RFC 9110, section 10.2.3). None if it is neither."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
    except (OverflowError, ValueError):
        return None
