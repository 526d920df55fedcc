"""
An HTTP connection to the receiver, which stays open between requests and which another thread can abort.

It uses `http.client`, which follows no redirect, reads no `~/.netrc` and keeps no cookie. So only the address that the
user named gets the headers that the user set, and no others.
"""

import base64
import http.client
import math
import select
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_SWITCHING, _OK = 101, 200

# Bytes of the headers of an answer, as long as `http.client` lets one of them be.
_LONGEST_HEAD = 64 * 1024

# Browsers leave these characters of an address alone. `%` is one of them, so percent-encoded text stays as it is.
_SAFE = "/?%:@!$&'()*+,;=~[]-._"


class HttpConnection:
    """
    Posts to one address, through the proxy that the environment names, if any.

    A user and a password in the address are sent, unless the headers have an `authorization`. `timeout` is in seconds,
    for each step: to connect, to send, and each wait for the answer.
    """

    def __init__(self, url: str, timeout: float, context: ssl.SSLContext) -> None:
        self._address = urlsplit(url)
        self._timeout = timeout
        self._context = context
        self._proxy = _proxy_of(self._address)
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str], longest: int) -> tuple[int, dict[str, str], bytes]:
        """
        Send a body, and return the status and the headers of the answer, and at most `longest` bytes of its content.

        Raises:
            OSError, http.client.HTTPException: No answer came, or a part of one.
        """
        connection = self._connection
        if connection is None or _was_closed(connection):
            self.close()
            self._connection = connection = self._new_connection()
        try:
            if connection.sock is None:
                connection.connect()
            if self._connection is not connection:
                raise ConnectionAbortedError  # noqa: TRY301 - by `break_off`, while the name was looked up
            connection.request("POST", self._target, body, {**self._credentials(headers), **headers})
            response = connection.getresponse()
            content = response.read(longest)
            # A read with a length does not notice that an answer ended early.
            if response.length and len(content) < longest:
                raise http.client.IncompleteRead(content, response.length)  # noqa: TRY301 - as its other reads do
            if response.length != 0 or response.will_close:
                self.close()
        except BaseException:
            connection.close()
            if self._connection is connection:
                self._connection = None
            raise
        return response.status, dict(response.headers), content

    @property
    def secrets(self) -> str:
        """Users, passwords and queries in the addresses of the receiver and the proxy."""
        addresses = [address for address in (self._address, self._proxy) if address is not None]
        return unquote(" ".join(f"{address.netloc.rpartition('@')[0]} {address.query}" for address in addresses))

    def break_off(self) -> None:
        """End the request that another thread waits for."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def _target(self) -> str:
        path = quote(self._address.path or "/", safe=_SAFE)
        if self._address.query:
            path += "?" + quote(self._address.query, safe=_SAFE)
        if self._proxy is not None and self._address.scheme == "http":
            return f"http://{self._address.netloc.rpartition('@')[2]}{path}"
        return path

    def _credentials(self, headers: Mapping[str, str]) -> dict[str, str]:
        found = {}
        if "authorization" not in {name.lower() for name in headers}:
            found.update(_basic("Authorization", self._address))
        if self._proxy is not None and self._address.scheme == "http":
            found.update(_basic("Proxy-Authorization", self._proxy))
        return found

    def _new_connection(self) -> http.client.HTTPConnection:
        address, proxy = self._address, self._proxy
        host, port = str(address.hostname), address.port
        nearest = proxy or address
        nearest_port = nearest.port or (http.client.HTTP_PORT if proxy is not None else None)
        if address.scheme == "http":
            return _Http(str(nearest.hostname), nearest_port, timeout=self._timeout)
        made = _Https(str(nearest.hostname), nearest_port, timeout=self._timeout, context=self._context)
        made.name = host
        if proxy is not None:
            made.set_tunnel(host, port or http.client.HTTPS_PORT, _basic("Proxy-Authorization", proxy))
        return made


class _AnswerFile:
    """
    The file of a response. It remembers the last line, because an empty one ends the headers.

    `http.client` takes 100 headers of 64 KiB each, which would become 45 MB. And it takes -1 for the length of a chunk,
    and reads to the end, which may never come.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.last = b""
        self._left: float = _LONGEST_HEAD

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        self._left -= len(self.last)
        if self._left < 0:
            raise http.client.HTTPException("the answer has more than 64 KiB of headers")
        return self.last

    def end_headers(self) -> None:
        """Count no more lines: those that come now stand between chunks, and are not kept."""
        self._left = math.inf

    def read(self, size: int) -> bytes:
        if size < 0:
            raise http.client.HTTPException("the answer has a chunk of a negative length")
        return cast("bytes", self.file.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _HttpResponse(http.client.HTTPResponse):
    """A response that must not end within its headers, which `http.client` takes for a complete one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Here, because `http.client` does not call `begin` for a proxy's answer to CONNECT.
        self.fp: Any = _AnswerFile(self.fp)

    def begin(self) -> None:
        file = self.fp
        is_interim = True
        while is_interim:
            super().begin()
            if file.last not in {b"\r\n", b"\n"}:
                raise http.client.IncompleteRead(file.last)
            # The answer follows (RFC 9110, section 15.2). `http.client` knows this of 100 only.
            is_interim = _SWITCHING < self.status < _OK
            if is_interim:
                self.headers: Any = None
        file.end_headers()


class _Http(http.client.HTTPConnection):
    response_class = _HttpResponse


class _Https(http.client.HTTPSConnection):
    """
    A connection whose handshake another thread can break off: its base class sets `sock` only after the handshake.
    """

    response_class = _HttpResponse
    name: str  # that the receiver's certificate must have

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and shake hands."""
        http.client.HTTPConnection.connect(self)
        context: ssl.SSLContext = self._context  # type: ignore[attr-defined]  # of the class it inherits from
        self.sock = context.wrap_socket(self.sock, server_hostname=self.name, do_handshake_on_connect=False)
        self.sock.do_handshake()


def _was_closed(connection: http.client.HTTPConnection) -> bool:
    """Tell whether the other side has closed the connection: between requests, it sends nothing else."""
    if connection.sock is None:
        return True
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return bool(readable)


def _proxy_of(address: SplitResult) -> SplitResult | None:
    proxy = getproxies().get(address.scheme)
    if not proxy or proxy_bypass(str(address.hostname)):
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        found = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:  # what it says may have a part of the password
        found = False
    if not found:
        raise ValueError(f"{address.scheme.upper()}_PROXY is not the address of a proxy that begins with http://")
    return parts


def _basic(name: str, address: SplitResult) -> dict[str, str]:
    if address.username is None:
        return {}
    pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
    return {name: "Basic " + base64.b64encode(pair.encode()).decode()}
