"""
Checks on every request, before it is routed.

- `Host` must be a name of this server. A page on another site can make its own name point here (DNS rebinding), but
  then the browser sends that name.
- We answer GET and HEAD only, and send no CORS headers: another site can send a request, but cannot read the answer.
- The address that we print has a token of 256 bits. The first request exchanges it for a cookie, and a redirect takes
  it out of the address, so it does not stay in the history, in screenshots and in `Referer`. Jupyter does the same.
- Prometheus keeps no cookies, so `/metrics` also takes the token as `Authorization: Bearer`. No other path does: no
  program needs the page, and a log tells more than its counts.
- Every answer forbids the browser to run, load or embed any file but those of this page, to guess the type of a file,
  and to keep a copy.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
TOKEN: Final = "token"  # noqa: S105 - the parameter's name

_PORT: Final = re.compile(r":\d{1,5}$")
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """
    An ASGI application that passes allowed requests on to `app`, and refuses the others.

    Args:
        app: The application to guard.
        token: The token that a browser must know; None asks for none.
        allowed_hosts: The names of this server, without a port; `*` allows any.
        base_path: The path below which a proxy serves this, such as `/logs`.
    """

    def __init__(self, app: App, *, token: str | None, allowed_hosts: Collection[str], base_path: str = "") -> None:
        self._app = app
        self._token = token
        self._hosts = {host.lower() for host in allowed_hosts}
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket, which we do not speak
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        if not self._is_allowed_host(headers.get(b"host", b"").decode("latin-1")):
            await _refuse(send, 400, "this server does not go by that name: allow it with --allowed-host")
            return
        if scope["method"] not in {"GET", "HEAD"}:
            await _refuse(send, 405, "only GET and HEAD are answered")
            return
        if self._token is not None:
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            given = dict(query).get(TOKEN)
            if given is not None and _same(given, self._token):
                await self._exchange(scope, send, [pair for pair in query if pair[0] != TOKEN])
                return
            if not (_same(_cookie(headers, self._cookie_name(scope)), self._token) or self._is_scrape(scope, headers)):
                await _refuse(send, 403, "open the address that `sqlite-log serve` printed: it has the token")
                return
        await self._app(scope, receive, _with_headers(send))

    def _is_allowed_host(self, host: str) -> bool:
        return "*" in self._hosts or _PORT.sub("", host).lower() in self._hosts

    def _is_scrape(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Tell whether a program asks for the metrics, and knows the token."""
        path = scope["path"][len(scope.get("root_path", "")) :]
        scheme, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return (
            (scope["method"], path, scheme.lower()) == ("GET", "/metrics", "bearer")
            and self._token is not None
            and _same(given.strip(), self._token)
        )

    def _cookie_name(self, scope: Scope) -> str:
        # Cookies are for all ports of a host, and two servers on one machine must not take each other's.
        _, port = scope.get("server") or ("", 0)
        return f"sqlite-log-{port}"

    async def _exchange(self, scope: Scope, send: Send, query: list[tuple[str, str]]) -> None:
        path = self._base_path + scope["path"][len(scope.get("root_path", "")) :]
        # One slash: two would name another host.
        address = "/" + quote(path.lstrip("/\\")) + (f"?{urlencode(query)}" if query else "")
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{self._cookie_name(scope)}={self._token}; Path={self._base_path or '/'}; HttpOnly; SameSite=Strict"
        headers = [
            (b"location", address.encode("latin-1", "replace")),
            (b"set-cookie", (cookie + secure).encode("latin-1")),
        ]
        await _answer(send, 303, b"", headers)


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _cookie(headers: dict[bytes, bytes], name: str) -> str | None:
    try:
        cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    return cookies[name].value if name in cookies else None


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            no_store = () if b"cache-control" in present else ((b"cache-control", b"no-store"),)
            message["headers"] = [*message["headers"], *_HEADERS, *no_store]
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, text: str) -> None:
    await _answer(send, status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8")])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    send = _with_headers(send)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})
