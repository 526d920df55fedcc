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
import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

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
    (b"cache-control", b"no-store"),
)


class Guard:
    """An ASGI application that passes allowed requests on to `app`, and refuses the others; see `create_app`."""

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
        root = scope.get("root_path", "")
        if self._base_path and f"{scope['path']}/".startswith(f"{root}{self._base_path}/"):
            # Not every proxy takes the base path off, and the printed address has it too.
            scope = {**scope, "path": root + scope["path"][len(root + self._base_path) :]}
        answer = self._answer_of(Request(scope)) or self._app
        await answer(scope, receive, _with_headers(send))

    def _answer_of(self, request: Request) -> Response | None:
        """Return our own answer to a request, or None if the application may answer it."""
        host = _PORT.sub("", request.headers.get("host", "")).lower()
        if not {"*", host} & self._hosts:
            return refusal(request, 400, "this server does not go by that name: allow it with --allowed-host")
        if request.method not in {"GET", "HEAD"}:
            return refusal(request, 405, "only GET and HEAD are answered")
        # Cookies are for all ports of a host, and two servers on one machine must not take each other's.
        cookie = f"sqlite-log-{(request.scope.get('server') or ('', 0))[1]}"
        path = _path_of(request)
        asked = request.query_params.get(TOKEN)
        token = self._token if self._token is not None and _same(asked, self._token) else None
        if token is not None or not path:
            home = self._base_path or request.scope.get("root_path", "").rstrip("/")
            query = urlencode([pair for pair in request.query_params.multi_items() if pair[0] != TOKEN])
            answer = RedirectResponse(_quoted(home + (path or "/")) + (f"?{query}" if query else ""), 303)
            if token is not None:
                secure = request.scope.get("scheme") == "https"
                where = _quoted(home)
                answer.set_cookie(cookie, token, path=where, secure=secure, httponly=True, samesite="strict")
            return answer
        if self._token is None:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_scrape = (request.method, path, scheme.lower()) == ("GET", "/metrics", "bearer")
        if _same(request.cookies.get(cookie), self._token) or (is_scrape and _same(given.strip(), self._token)):
            return None
        return refusal(request, 403, "open the address that `sqlite-log serve` printed: it has the token")


def _path_of(request: Request) -> str:
    """Return the path of a request, below the one at which another program mounts us; "" if its slash is missing."""
    path: str = request.scope["path"]
    root: str = request.scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if f"{path}/".startswith(f"{root}/") else path  # not every server puts it there


def _quoted(path: str) -> str:
    """Return a path for a header, with one slash before it: two would name another host."""
    return "/" + quote(path.lstrip("/\\"))


def refusal(request: Request, status: int, text: str) -> Response:
    """Answer with an error: as JSON below `api/`, as all that stands there, and as text for a person elsewhere."""
    if _path_of(request).startswith("/api/"):
        # In ASCII, because the name of a file may have no other encoding.
        return Response(json.dumps({"error": text}), status, media_type="application/json")
    return PlainTextResponse(text, status)


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS]
        await send(message)

    return send_with_headers
