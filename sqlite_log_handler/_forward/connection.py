"""
An HTTP connection to the receiver, which stays open between requests and which another thread can abort.

It uses `http.client`, which follows no redirect, reads no `~/.netrc` and keeps no cookie. So only the address that the
user named gets the headers that the user set, and no others.
"""

import base64
import http.client
import io
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_SWITCHING, _OK, _REDIRECTED = 101, 200, 300

# Bytes that are read of an answer: of its headers, as long as `http.client` lets one of them be, and of its content,
# enough for the reason of a refusal.
_LONGEST = 64 * 1024

# Browsers leave these characters of an address alone. `%` is one of them, so percent-encoded text stays as it is.
_SAFE = "/?%:@!$&'()*+,;=~[]-._"


def parts_of(address: str, *schemes: str) -> SplitResult | None:
    """
    Return the parts of an address with one of these schemes; None if a request cannot be sent there.

    The caller's error must leave the address out, because it may hold a password.
    """
    with suppress(ValueError):  # the port is not a number, or a bracket is not closed
        parts = urlsplit(address)
        is_host = parts.hostname and parts.port != 0 and "@" not in parts.path
        if is_host and parts.scheme in schemes and address.isprintable() and " " not in address:
            return parts
    return None


class HttpConnection:
    """
    Posts to one address, through the proxy that the environment names, if any.

    A user and a password in the address are sent, unless the headers have an `authorization`. `timeout` is in seconds,
    for each step: to connect, to send, and each wait for the answer. `context` is called for each handshake.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: float, context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._address = address = urlsplit(url)
        self._proxy = proxy = _proxy_of(address)
        self._headers = dict(headers)
        if "authorization" not in {name.lower() for name in headers}:
            self._headers |= _basic("Authorization", address)
        self._target = quote(address.path or "/", safe=_SAFE)
        if address.query:
            self._target += "?" + quote(address.query, safe=_SAFE)
        if proxy is not None and address.scheme == "http":
            self._target = f"http://{address.netloc.rpartition('@')[2]}{self._target}"
            self._headers = _basic("Proxy-Authorization", proxy) | self._headers
        self._timeout = timeout
        self._context = context
        self._connection = self._new_connection()

    def post(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """
        Send a body. Return the status of the answer, its headers, by names such as Retry-After, and its content.

        Raises:
            OSError, http.client.HTTPException: No answer came, or a part of one.
        """
        connection = self._connection
        try:
            if connection.sock is not None and _is_readable(connection.sock):
                connection.close()  # as the other side did: between requests, it sends nothing else
            if connection.sock is None:
                connection.connect()
            if self._connection is not connection:
                raise ConnectionAbortedError  # noqa: TRY301 - by `break_off`, while the name was looked up
            is_sent = False
            # The other side may refuse the body before it has come, and close the connection.
            with suppress(ConnectionError, ssl.SSLEOFError):
                connection.request("POST", self._target, body, self._headers)
                is_sent = True
            response: Any = connection.getresponse()
            if not is_sent and response.status < _REDIRECTED:
                raise http.client.HTTPException("the answer came before the rows")  # noqa: TRY301 - as its others do
            content = response.read(_LONGEST)
            # A read with a length does not notice that an answer ended early.
            if response.length and len(content) < _LONGEST:
                raise http.client.IncompleteRead(content, response.length)  # noqa: TRY301 - as its other reads do
            if response.is_last or not response.isclosed() or not is_sent:  # or the answer, or the request, goes on
                connection.close()
        except BaseException:
            connection.close()
            raise
        return response.status, {name.title(): value for name, value in response.headers.items()}, content

    @property
    def secrets(self) -> str:
        """Users, passwords and queries in the addresses of the receiver and the proxy."""
        addresses = [address for address in (self._address, self._proxy) if address is not None]
        return unquote(" ".join(f"{address.netloc.rpartition('@')[0]} {address.query}" for address in addresses))

    def break_off(self) -> None:
        """End the request that another thread waits for."""
        connection, self._connection = self._connection, self._new_connection()
        with suppress(TypeError, OSError):  # there is no socket yet, or no more
            # Not that of TLS, which ends TLS first: what the other thread sends then would go as plain text.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        connection = self._connection
        # `http.client` closes the answer's file, which waits until no other thread reads from it.
        self.break_off()
        connection.close()

    def _new_connection(self) -> http.client.HTTPConnection:
        place = _place_of(self._proxy or self._address)
        if self._address.scheme == "http":
            return _Http(*place, timeout=self._timeout)
        made = _Https(*place, timeout=self._timeout)
        made.context = self._context
        if self._proxy is not None:
            made.set_tunnel(*_place_of(self._address), _basic("Proxy-Authorization", self._proxy))
        return made


class _AnswerFile(io.BufferedReader):
    """
    The file of a response. It remembers the last line, because an empty one ends the headers.

    `http.client` takes 100 headers of 64 KiB each, which would become 45 MB. And it takes -1 for the length of a chunk,
    and reads to the end, which may never come.
    """

    last = b""
    _left = _LONGEST

    def readline(self, size: int | None = -1) -> bytes:
        self.last = super().readline(size)
        self._left -= len(self.last)
        if self._left < 0:
            raise http.client.HTTPException("the answer has more than 64 KiB of headers")
        return self.last

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise http.client.HTTPException("the answer has a chunk of a negative length")
        return super().read(size)


class _HttpResponse(http.client.HTTPResponse):
    """A response that must not end within its headers, which `http.client` takes for a complete one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Here, because `http.client` does not call `begin` for a proxy's answer to CONNECT.
        self.fp: Any = _AnswerFile(self.fp.detach())

    def begin(self) -> None:
        while True:
            super().begin()
            if self.fp.last not in {b"\r\n", b"\n"}:
                raise http.client.IncompleteRead(self.fp.last)
            # The answer follows an interim one (RFC 9110, section 15.2). `http.client` knows this of 100 only.
            if not _SWITCHING < self.status < _OK:
                # `http.client` would let go of the socket before the last answer is read, and `break_off` not find it.
                self.is_last, self.will_close = self.will_close, False
                return
            self.headers: Any = None


class _Http(http.client.HTTPConnection):
    response_class = _HttpResponse


class _Https(_Http):
    """
    A connection whose handshake another thread can break off: `HTTPSConnection` sets `sock` only after the handshake.
    """

    default_port = http.client.HTTPS_PORT
    context: Callable[[], ssl.SSLContext]

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and shake hands."""
        super().connect()
        name: str = self._tunnel_host or self.host  # type: ignore[attr-defined]  # of the class it inherits from
        self.sock = self.context().wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
        self.sock.do_handshake()


def _is_readable(sock: socket.socket) -> bool:
    # `select.select` takes no descriptor from 1024 on, and a forwarder of many files has more.
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _place_of(address: SplitResult) -> tuple[str, int]:
    default = http.client.HTTP_PORT if address.scheme == "http" else http.client.HTTPS_PORT
    return str(address.hostname), address.port or default


def _proxy_of(address: SplitResult) -> SplitResult | None:
    proxy = getproxies().get(address.scheme, "").strip()  # a secret that is mounted often ends in a line end
    host, port = _place_of(address)
    if not proxy or proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return None
    parts = parts_of(proxy if "://" in proxy else f"http://{proxy}", "http")
    if parts is None:
        raise ValueError(f"{address.scheme.upper()}_PROXY is not the address of a proxy that begins with http://")
    return parts


def _basic(name: str, address: SplitResult) -> dict[str, str]:
    if address.username is None:
        return {}
    pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
    return {name: "Basic " + base64.b64encode(pair.encode()).decode()}
