"""
The receiver of OTLP/HTTP: where it is, how it is asked, and what its answers mean.

https://opentelemetry.io/docs/specs/otlp/#otlphttp has the protocol, and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ the environment variables. The official exporter is not
used: it takes records of OpenTelemetry's SDK and gives back success or failure, without the wait that the receiver asks
for and without the records that it rejected.
"""

import email.utils
import gzip
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from sqlite_log_handler._forward.delivery import Answer, Verdict
from sqlite_log_handler._forward.otlp import pairs

_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_TIMEOUT_MS = "10000"
# A tenth of a second answers nobody; who sets less has seconds in mind, as Python's SDK has.
_SHORTEST_TIMEOUT_MS = 100

# Log lines shrink to a tenth, and a higher level takes thrice the time for a tenth of that.
_GZIP_LEVEL = 1

# A message of refusal, not a page.
_LONGEST_ANSWER = 64 * 1024
_LONGEST_MESSAGE = 500

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
        timeout: Seconds for the connection, and for each wait for the answer.
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
        """
        The address without what may be a secret: user, password and query.
        """
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
        found = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, brackets that are not closed
        found = False
    if not found:
        message = (
            f"{whole!r} is no address of a receiver: it begins with http:// or https://, and a host follows, and maybe "
            "a port"
        )
        raise ValueError(message)
    path = parts.path.rstrip("/")
    # What was given is the address for logs, or that of a receiver, which has one for each kind of thing.
    is_for_logs = bool(path) if url else bool(logs_url)
    return whole if is_for_logs else urlunsplit(parts._replace(path=f"{path}/v1/logs"))


def _headers(text: str) -> dict[str, str]:
    """
    Read the headers, and refuse what cannot be sent without writing it out: it may be a secret.
    """
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
    A connection to the receiver, which is kept between requests. Call it with a body to send; it raises nothing.

    Args:
        endpoint: Where it is.
        user_agent: What we call ourselves.
    """

    def __init__(self, endpoint: Endpoint, user_agent: str) -> None:
        self._endpoint = endpoint
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": user_agent, "Content-Type": "application/x-protobuf"})
        if endpoint.gzip:
            self._session.headers["Content-Encoding"] = "gzip"
        self._session.headers.update(endpoint.headers)
        self._verify: str | bool = endpoint.certificate or True
        self._certificate: Any = endpoint.client_certificate
        if endpoint.client_certificate and endpoint.client_key:
            self._certificate = (endpoint.client_certificate, endpoint.client_key)

    def __call__(self, body: bytes) -> Answer:
        """
        Send a body, and say what came of it.
        """
        if self._endpoint.gzip:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        try:
            with self._session.post(
                self._endpoint.url,
                data=body,
                timeout=self._endpoint.timeout,
                allow_redirects=False,
                stream=True,
                verify=self._verify,
                cert=self._certificate,
            ) as response:
                content = response.raw.read(_LONGEST_ANSWER, decode_content=True)
        except requests.exceptions.SSLError as error:
            return Answer(Verdict.DENIED, _reason(error))
        except Exception as error:  # noqa: BLE001 - of requests, urllib3, http.client or the system: no answer came
            return Answer(Verdict.LATER, _reason(error))
        answer = read_answer(response.status_code, response.headers, content)
        if self._endpoint.gzip and answer.verdict in {Verdict.REFUSED, Verdict.DENIED}:
            return replace(answer, message=f"{answer.message} (for a receiver without gzip: --compression none)")
        return answer


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
    if 200 <= status < 300:  # noqa: PLR2004 - the range of success
        return _success(status, headers.get("Content-Type", ""), content)
    message = f"HTTP status {status}"
    words = content.decode(errors="replace").strip()
    if words and words.isprintable():
        message = f"{message}: {words[:_LONGEST_MESSAGE]}"
    if status in _REFUSED:
        return Answer(Verdict.REFUSED, message)
    # OTLP names 429, 502, 503 and 504. The other 5xx and 408 cost nothing but time: the rows are safe in their file.
    if status in {_REQUEST_TIMEOUT, _TOO_MANY} or status >= 500:  # noqa: PLR2004 - the range of a server's faults
        return Answer(Verdict.LATER, message, retry_after=_retry_after(headers.get("Retry-After", ""), now))
    return Answer(Verdict.DENIED, message)


def _success(status: int, content_type: str, content: bytes) -> Answer:
    """
    Read what a receiver says to a request that it took. A proxy that says 200 to everything has taken nothing.
    """
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
    """
    Read a `Retry-After`: seconds, or a moment (RFC 9110, section 10.2.3). None if it is neither.
    """
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
    except (OverflowError, ValueError):
        return None


def _reason(error: BaseException) -> str:
    """
    Name what lies below the layers of the library.
    """
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"
