"""
The ASGI application: the page, and its questions under `api/`.

Each question opens a reader on a thread and closes it with the answer, so nothing holds a snapshot between two
questions. We answer four at a time, because each takes memory. One with a regular expression is asked in another
process, see `other_process`. If the browser goes away, we interrupt the question. If the log has not changed since the
last answer, we do not open it: its size and time, and those of its -wal, make the `ETag`.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any, Final, TypeAlias

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sqlite_log_handler._logfile.connect import as_text
from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._read.logs import Logs, UnknownLogError
from sqlite_log_handler._read.openmetrics import CONTENT_TYPE, openmetrics
from sqlite_log_handler._read.other_process import NoProcessError, OtherProcess, other_process
from sqlite_log_handler._read.reader import LogReader, read_file
from sqlite_log_handler._read.scan import seen_at
from sqlite_log_handler.serve.answers import ANSWERS, Answer, UnknownRowError, exact
from sqlite_log_handler.serve.query import Query
from sqlite_log_handler.serve.security import LOOPBACK, App, Guard, refusal

# The files of the page by name, and their types. No request gets another file.
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE: Final = {
    entry.name: (entry.read_bytes(), kind)
    for entry in files("sqlite_log_handler.serve").joinpath("page").iterdir()
    if (kind := _TYPES.get(os.path.splitext(entry.name)[1]))
}

# Answers that depend on the file alone, and not on the time.
_STILL: Final = frozenset({"rows", "row", "gaps"})

# How a request asks to be held until the log changes (RFC 7240), and for how many seconds it is held at most: less than
# the minute for which proxies wait. Between two looks at the file are _LOOK_PAUSE seconds.
_WAIT: Final = re.compile(r"\bwait=(\d{1,4})\b")
_LONGEST_WAIT: Final = 20
_LOOK_PAUSE: Final = 0.2

# Questions at a time, apart from those with a regular expression: each has a cache, rows and an arena of its own.
_AT_ONCE: Final = 4

# To look for numbers beyond 2**53 in the text takes a tenth of the time of looking for them in the values.
_MAY_BE_INEXACT: Final = re.compile(r"[1-9]\d{16}|9\d{15}", re.ASCII)

# The status of each error whose text is for the person who asked. FilterError is a ValueError.
_STATUSES: Final = {UnknownLogError: 404, UnknownRowError: 404, ValueError: 400, LogFileError: 503, NoProcessError: 503}

# Seconds between two calls of `interrupt`, which each end one statement.
_INTERRUPT_PAUSE: Final = 0.02


def create_app(
    *paths: str | os.PathLike[str],
    token: str | None = None,
    allowed_hosts: Collection[str] = LOOPBACK,
    base_path: str = "",
) -> App:
    """
    Make an ASGI application that shows logs.

        >>> app = create_app("app-log.db")
        >>> api = FastAPI()
        >>> api.mount("/logs", create_app("app-log.db", allowed_hosts=["app.example.org"]))

    If another program mounts it, the login of that program protects it. By itself it asks for the token only.

    Args:
        paths: Logs, and folders of them (every file in them that ends in .db).
        token: The value of `?token=` that each browser must send once; None asks for none.
        allowed_hosts: The names, without a port, by which a browser may call this server: those of loopback by default,
            `*` for any.
        base_path: The path at which a proxy serves this application, such as `/logs`. A framework that mounts it
            passes that on by itself.

    Raises:
        ValueError: There is no path, or `base_path` does not begin with a slash, or has one of `%?#` or is not ASCII.
    """
    return application(paths, token=token, allowed_hosts=allowed_hosts, base_path=base_path, is_ending=lambda: False)


def application(
    paths: Sequence[str | os.PathLike[str]],
    *,
    token: str | None,
    allowed_hosts: Collection[str],
    base_path: str,
    is_ending: Callable[[], bool],
) -> App:
    """Make the application for a server that says when it ends, so that it need not wait for requests that we hold."""
    base_path = base_path.rstrip("/")
    is_plain = base_path.startswith("/") and base_path.isascii() and not {*base_path} & {*"%?#"}
    if base_path and not is_plain:
        raise ValueError(f"base_path={base_path!r} must begin with a slash, and be ASCII without % ? #, such as /logs")
    logs = Logs(paths)
    limiter = cache(partial(anyio.CapacityLimiter, _AT_ONCE))  # made in the event loop, as some versions of anyio need
    ask = partial(_ask, logs, is_ending, limiter)
    routes = [
        Route("/", _page),
        Route("/api/files", partial(_files, logs)),
        Route("/metrics", partial(_metrics, logs)),
        *(Route(f"/api/{name}", partial(ask, name)) for name in ANSWERS if name != "row"),
        Route("/api/rows/{id}", partial(ask, "row")),
        Route("/{name}", _page),
    ]
    otherwise: Any = {
        404: partial(_refused, 404, "there is nothing at this address"),
        **{kind: partial(_refused, status, "") for kind, status in _STATUSES.items()},
        Exception: partial(_refused, 500, "the server failed, and printed why"),
    }
    pages = Starlette(routes=routes, exception_handlers=otherwise)
    return Guard(pages, token=token, allowed_hosts=allowed_hosts, base_path=base_path)


async def _page(request: Request) -> Response:
    found = _PAGE.get(request.path_params.get("name", "index.html"))
    if found is None:
        raise HTTPException(404)
    return Response(found[0], media_type=found[1])


async def _refused(status: int, text: str, request: Request, error: Exception) -> Response:
    return refusal(request, status, text or str(error))


async def _files(logs: Logs, _: Request) -> Response:
    return _json({"files": list(logs.by_name())})


async def _metrics(logs: Logs, _: Request) -> Response:
    text, _errors = await anyio.to_thread.run_sync(openmetrics, logs.by_name())
    return Response(text, headers={"content-type": CONTENT_TYPE})


async def _ask(
    logs: Logs, is_ending: Callable[[], bool], limiter: Callable[[], anyio.CapacityLimiter], name: str, request: Request
) -> Response:
    """Answer one question of the page."""
    query = Query([*request.query_params.multi_items(), *request.path_params.items()])
    path = logs.path_of(query.text("file"))
    tag = _tag_of(path) if name in _STILL else None
    # A proxy that compresses makes a weak tag of ours, and those are compared too (RFC 9110, section 13.1.2).
    seen = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag is not None and tag in seen:
        tag = await _tag_after_change(path, tag, request, is_ending)
        if tag is not None and tag in seen:
            return Response(status_code=304, headers={"etag": tag})
    # An expression waits for a process, and holds up nobody else.
    at_once = None if query.has_expression else limiter()
    answer = await _until_gone(request, is_ending, partial(_read, path, ANSWERS[name], query), at_once)
    return Response(status_code=499) if answer is None else _json(answer, tag)


_Question: TypeAlias = Callable[[LogReader, Query], Answer]
# What is busy with a question, so that it can be interrupted.
_Opened: TypeAlias = list[LogReader | OtherProcess]


def _read(path: str, question: _Question, query: Query, opened: _Opened) -> Answer:
    if not query.has_expression:
        return _answer(path, question, query, opened)
    with other_process() as process:
        opened.append(process)
        try:
            return process.ask(_answer, path, question, query, [])
        finally:
            opened.clear()


def _answer(path: str, question: _Question, query: Query, opened: _Opened) -> Answer:
    with read_file(path) as log:
        opened.append(log)
        return question(log, query)


async def _tag_after_change(path: str, tag: str, request: Request, is_ending: Callable[[], bool]) -> str | None:
    """Wait until the log has another tag, for as long as the request prefers, and return the tag that it has then."""
    wanted = _WAIT.search(request.headers.get("prefer", ""))
    deadline = anyio.current_time() + (min(int(wanted[1]), _LONGEST_WAIT) if wanted else 0)
    found: str | None = tag
    while found == tag and anyio.current_time() < deadline and not is_ending():
        await anyio.sleep(_LOOK_PAUSE)
        found = _tag_of(path)
    return found


async def _until_gone(
    request: Request,
    is_ending: Callable[[], bool],
    ask: Callable[[_Opened], Answer],
    limiter: anyio.CapacityLimiter | None,
) -> Answer | None:
    """Run `ask` on a thread; when the browser has gone, or the server ends, interrupt it and return None."""
    opened: _Opened = []
    answer: Answer | None = None
    raised: BaseException | None = None
    gone = False

    async def wait_for_browser() -> None:
        nonlocal gone
        # `is_disconnected` does not wait, so it learns nothing behind a middleware that passes messages on by tasks.
        while (await request.receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - parts of a body, not looks
            await anyio.sleep(_LOOK_PAUSE)  # because nobody wants a body, and it may have no end
        gone = True

    async def watch() -> None:
        nonlocal gone
        try:
            while True:
                gone = gone or is_ending()
                if gone:
                    interrupt()
                await anyio.sleep(_INTERRUPT_PAUSE * (1 if gone else 5))
        finally:
            interrupt()

    def interrupt() -> None:
        for log in opened:
            log.interrupt()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_browser)
        tasks.start_soon(watch)
        try:
            answer = await anyio.to_thread.run_sync(ask, opened, limiter=limiter)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - an interrupted statement raises the latter
            raised = error  # not in the group, which would raise it in a group of errors
        tasks.cancel_scope.cancel()
    if raised is not None and not gone:
        raise raised
    return None if gone else answer


def _tag_of(path: str) -> str | None:
    """Return a tag that changes with the log; None if we cannot tell."""
    seen = seen_at(path)
    return '"' + "-".join(f"{number:x}" for number in seen) + '"' if seen else None


def _dumps(value: Any) -> str:
    # In ASCII: with one emoji in it, each character of a text takes four bytes. A damaged cell may be bytes.
    return json.dumps(value, separators=(",", ":"), default=as_text)


def _json(value: Any, tag: str | None = None) -> Response:
    text = _dumps(value)
    if _MAY_BE_INEXACT.search(text):
        text = _dumps(exact(value))
    headers = {"etag": tag} if tag is not None else {}
    return Response(text, media_type="application/json", headers=headers)
