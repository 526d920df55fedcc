"""
The receiver of OTLP/HTTP: where it is, how it is asked, and what its answers mean.

https://opentelemetry.io/docs/specs/otlp/#otlphttp has the protocol, and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ the environment variables. The official exporter is not
used: it takes records of OpenTelemetry's SDK and gives back success or failure, without the wait that the receiver asks
for and without the records that it rejected.

The receiver is not trusted: what it says is cut, made printable, and rid of our own secrets before anybody sees it.
"""

import email.utils
import gzip
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit, urlunsplit

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from sqlite_log_handler._forward.connection import Connection
from sqlite_log_handler._forward.delivery import Answer, Verdict
from sqlite_log_handler._forward.otlp import pairs
from sqlite_log_handler._logfile.printable import printable

_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_TIMEOUT_MS = "10000"
# A tenth of a second answers nobody; who sets less has seconds in mind, as Python's SDK has.
_SHORTEST_TIMEOUT_MS = 100

# Log lines shrink to a tenth, and a higher level takes thrice the time for a tenth of that.
_GZIP_LEVEL = 1

# A message of refusal, not a page.
_LONGEST_ANSWER = 64 * 1024
_LONGEST_MESSAGE = 500

# A shorter word of a header stands in ordinary text too.
_SHORTEST_SECRET = 6

# The request, or something in it; the rest of 4xx says that nothing from here is wanted.
_REFUSED = frozenset({400, 413, 422})
_REQUEST_TIMEOUT = 408
_TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    Where and how to send.

    Attributes:
        url: Of the logs, in full.
        headers: Sent with each request.
        timeout: Seconds from the beginning of a request to the end of its answer.
        gzip: Compress requests.
        certificate: File of the authorities to trust instead of the system's.
        client_certificate, client_key: Files that say who we are.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    gzip: bool = True
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None

    @property
    def name(self) -> str:
        """The address without what may be a secret: user, password and query."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def endpoint_from(
    environment: Mapping[str, str], *, url: str | None = None, compression: str | None = None
) -> Endpoint:
    """
    Put together what the options and the standard environment variables say; for each, what is for logs wins.

    Args:
        environment: As `os.environ`.
        url: The receiver's address; `/v1/logs` is added to one without a path.
        compression: "gzip" or "none".

    Raises:
        ValueError: A setting is out of its range, or names a file that is not there.
    """

    def setting(name: str, default: str | None = None) -> str | None:
        return environment.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}") or environment.get(
            f"OTEL_EXPORTER_OTLP_{name}", default
        )

    for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        file = setting(name)
        if file and not os.path.isfile(file):
            message = f"OTEL_EXPORTER_OTLP_{name}: there is no file {file!r}"
            raise ValueError(message)
    compression = compression or setting("COMPRESSION") or "gzip"
    if compression not in {"gzip", "none"}:
        message = f"the compression is {compression!r}, and not one of 'gzip' and 'none'"
        raise ValueError(message)
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
    except ValueError:  # a port that is no number, brackets that are not closed
        found = False
    if not found:
        # It is not written out, because it may hold a password.
        message = (
            "this is no address of a receiver (--otlp, OTEL_EXPORTER_OTLP_ENDPOINT): it begins with http:// or "
            "https://, and a host follows, and maybe a port; in a user or a password, percent-encode / and @"
        )
        raise ValueError(message)
    path = parts.path.rstrip("/")
    # What was given is the address for logs, or that of a receiver, which has one for each kind of thing.
    is_for_logs = bool(path) if url else bool(logs_url)
    return whole if is_for_logs else urlunsplit(parts._replace(path=f"{path}/v1/logs"))


def _headers(text: str) -> dict[str, str]:
    """Read the headers, and refuse what cannot be sent without writing it out: it may be a secret."""
    headers = pairs("OTEL_EXPORTER_OTLP_HEADERS", text)
    for name, value in headers.items():
        # http.client writes values in Latin-1.
        if not (
            f"{name}{value}".isprintable()
            and name.isascii()
            and ":" not in name
            and value == value.lstrip()
            and value == value.encode("latin-1", "ignore").decode("latin-1")
        ):
            message = (
                f"OTEL_EXPORTER_OTLP_HEADERS: {name!r} cannot be sent: a name is ASCII without a colon, and a value "
                "Latin-1, and neither has a line end or another control character in it"
            )
            raise ValueError(message)
    return headers


def _seconds(milliseconds: str) -> float:
    if not milliseconds.strip().isdecimal() or int(milliseconds) < _SHORTEST_TIMEOUT_MS:
        message = (
            f"OTEL_EXPORTER_OTLP_TIMEOUT is {milliseconds!r}: it is a number of milliseconds, as the specification has "
            f"it, and {_SHORTEST_TIMEOUT_MS} or more"
        )
        raise ValueError(message)
    return int(milliseconds) / 1000


class Receiver:
    """
    The receiver at an endpoint. Call it with a body to send; it raises nothing.

    Args:
        endpoint: Where it is.
        user_agent: What we call ourselves.

    Raises:
        ValueError, OSError: A certificate or the proxy of the environment cannot be used.
    """

    def __init__(self, endpoint: Endpoint, user_agent: str) -> None:
        self._endpoint = endpoint
        self._headers = {"User-Agent": user_agent, "Content-Type": "application/x-protobuf"}
        if endpoint.gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._headers.update(endpoint.headers)
        self._connection = Connection(endpoint.url, endpoint.timeout, _tls(endpoint))
        self._secrets = _secrets(endpoint)

    def __call__(self, body: bytes) -> Answer:
        """Send a body, and say what came of it."""
        answer = self._ask(gzip.compress(body, _GZIP_LEVEL, mtime=0) if self._endpoint.gzip else body)
        message = _readable(answer.message, self._secrets)
        if self._endpoint.gzip and answer.verdict in {Verdict.REFUSED, Verdict.DENIED}:
            message += " (for a receiver without gzip: --compression none)"
        return replace(answer, message=message)

    def give_up(self) -> Answer:
        """Break off the request that another thread waits for, because its time is over."""
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
        except Exception as error:  # noqa: BLE001 - of http.client, ssl or the system: no answer came
            return Answer(Verdict.LATER, _reason(error))
        return read_answer(status, headers, content)


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=endpoint.certificate)
    if endpoint.client_certificate:
        context.load_cert_chain(endpoint.client_certificate, endpoint.client_key)
    return context


def _secrets(endpoint: Endpoint) -> list[str]:
    """List what a receiver may repeat and nobody may read: the words of the headers, the password, the query."""
    parts = urlsplit(endpoint.url)
    texts = [*endpoint.headers.values(), unquote(parts.password or ""), parts.query]
    words = {word for text in texts for word in (text, *text.split())}
    return sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len, reverse=True)


def _readable(text: str, secrets: Sequence[str] = ()) -> str:
    """Return what a receiver says as one line for a person, without the secrets that it may repeat."""
    text = text[:_LONGEST_ANSWER]
    for secret in secrets:
        text = text.replace(secret, "***")
    text = printable(" ".join(text.split()))
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def read_answer(
    status: int, headers: Mapping[str, str], content: bytes, *, now: Callable[[], float] = time.time
) -> Answer:
    """
    Say what an answer means.

    Args:
        status: Of HTTP.
        headers: Of the answer; names in any case.
        content: Its body.
        now: Tells seconds since 1970, for a `Retry-After` that names a moment.
    """
    headers = {name.title(): value for name, value in headers.items()}
    if 200 <= status < 300:  # noqa: PLR2004 - the range of success
        return _success(status, headers.get("Content-Type", ""), content)
    message = f"HTTP status {status}"
    words = content.decode(errors="replace").strip()
    if words and words.isprintable():
        message = f"{message}: {words}"
    if status in _REFUSED:
        return Answer(Verdict.REFUSED, message)
    # OTLP names 429, 502, 503 and 504. The other 5xx and 408 cost nothing but time: the rows are safe in their file.
    if status in {_REQUEST_TIMEOUT, _TOO_MANY} or status >= 500:  # noqa: PLR2004 - the range of a server's faults
        return Answer(Verdict.LATER, message, retry_after=_retry_after(headers.get("Retry-After", ""), now))
    return Answer(Verdict.DENIED, message)


def _success(status: int, content_type: str, content: bytes) -> Answer:
    """Read what a receiver says to a request that it took. A proxy that says 200 to everything has taken nothing."""
    answer = ExportLogsServiceResponse()
    try:
        if content and content_type.startswith("application/json"):
            if not content.lstrip().startswith(b"{"):
                message = f"HTTP status {status} with JSON that is not OTLP"
                return Answer(Verdict.LATER, message)
            json_format.Parse(content, answer, ignore_unknown_fields=True)
        elif content and content_type.startswith("application/x-protobuf"):
            answer.ParseFromString(content)
        elif content:
            message = f"HTTP status {status} with {content_type or 'no content type'}, which is not OTLP"
            return Answer(Verdict.LATER, message)
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
