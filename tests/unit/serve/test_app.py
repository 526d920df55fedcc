"""
The application: the page's files, logs that changed or cannot be read, questions that nobody waits for, mounts.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import httpx2
import pytest
from slowly import slowly

starlette = pytest.importorskip("starlette", reason="the extra serve is not installed")

from starlette.applications import Starlette  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.routing import Mount  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from sqlite_log_handler._read import other_process  # noqa: E402
from sqlite_log_handler._read.openmetrics import openmetrics  # noqa: E402
from sqlite_log_handler.serve import app as app_module  # noqa: E402
from sqlite_log_handler.serve import create_app  # noqa: E402

if TYPE_CHECKING:
    from sqlite_log_handler import LogReader

BASE = "http://localhost:8710"


def test_the_page_is_light():
    """All files of the page together are below 80 kB when they are compressed."""
    assert {"index.html", "style.css", "main.js", "icon.svg"} <= set(app_module._PAGE)
    assert sum(len(gzip.compress(body)) for body, _ in app_module._PAGE.values()) < 80_000


def test_the_page_asks_nobody_else():
    """No file of the page names an address: it works offline, and tells nobody that it is looked at."""
    for body, _ in app_module._PAGE.values():
        addresses = body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http://" not in addresses
        assert b"https://" not in addresses
        assert b"innerHTML" not in body


@pytest.mark.parametrize(
    ("wanted", "media_type"),
    [("/", "text/html"), ("/main.js", "text/javascript"), ("/style.css", "text/css"), ("/icon.svg", "image/svg+xml")],
)
def test_the_files_of_the_page(shop, wanted, media_type):
    """The page's files are sent with their types, so that `nosniff` lets the browser use them."""
    with TestClient(create_app(shop), base_url=BASE) as client:
        response = client.get(wanted)

    assert (200, media_type) == (response.status_code, response.headers["content-type"].partition(";")[0])


def test_metrics_are_behind_the_guard(shop):
    """`/metrics` is what `sqlite-log metrics` prints, for those who may see the page."""
    with TestClient(create_app(shop), base_url=BASE) as client:
        response = client.get("/metrics")
    with TestClient(create_app(shop, token="t"), base_url=BASE) as client:
        assert 403 == client.get("/metrics").status_code

    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics({os.path.basename(shop): str(shop)})[0] == response.text


@pytest.mark.parametrize("sent", ["{}", "W/{}", '"other", W/{}'])
def test_a_log_that_did_not_change_is_not_opened(shop, monkeypatch, sent):
    """
    A poll that has seen the file as it is gets 304, and the log is not opened for it.

    Behind a proxy that compresses, whose tags are weak, each tab asked the log anew four times a second.
    """
    with TestClient(create_app(shop), base_url=BASE) as client:
        tag = client.get("/api/rows?after-id=12").headers["etag"]
        monkeypatch.setattr(app_module, "read_file", None)
        response = client.get("/api/rows?after-id=12", headers={"if-none-match": sent.format(tag)})

    assert (304, tag) == (response.status_code, response.headers["etag"])


def test_a_log_that_changed_is_read(shop, make_handler, logger):
    """A row that another process has committed makes the next poll read the log."""
    with TestClient(create_app(shop), base_url=BASE) as client:
        tag = client.get("/api/rows?after-id=12").headers["etag"]
        handler = make_handler(shop)
        logger.addHandler(handler)
        logger.info("new")
        assert handler.flush()
        response = client.get("/api/rows?after-id=12", headers={"if-none-match": tag})

    assert ["new"] == [row["message"] for row in response.json()["rows"]]


def test_logs_that_cannot_be_read(tmp_path, shop):
    """
    A log that is missing, foreign or damaged is a 503 with the sentence of the error; others are served.

    A sentence may have the name of a file that is not UTF-8.
    """
    (tmp_path / "foreign.db").write_text("no database")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(shop.read_bytes()[:4096] + b"\xff" * 16_384)
    with TestClient(create_app(tmp_path, tmp_path / "missing.db", tmp_path / "\udcff.db"), base_url=BASE) as client:

        def ask(name: str) -> tuple[int, str]:
            response = client.get(f"/api/rows?file={name}")
            return response.status_code, response.json().get("error", "")

        assert (503, True) == (ask("missing.db")[0], "does not exist" in ask("missing.db")[1])
        assert (503, True) == (ask("foreign.db")[0], "not an SQLite database" in ask("foreign.db")[1])
        assert 503 == ask("damaged.db")[0]
        assert (404, True) == (ask("other.db")[0], "no log here is called" in ask("other.db")[1])
        assert (200, "") == ask(shop.name)


@pytest.mark.parametrize(("name", "shown"), [("caf\udce9.db", r"caf\udce9.db"), ("a\u202e.db", "a\u202e.db")])
def test_a_name_that_no_address_can_have(shop, name, shown):
    """A log whose name is not UTF-8 is asked for by the name that the list tells; a browser could not send its own."""
    os.rename(shop, path := shop.with_name(name))
    with TestClient(create_app(path), base_url=BASE) as client:
        assert [shown] == client.get("/api/files").json()["files"]
        assert 12 == client.get(f"/api/rows?lines=0&file={quote(shown)}").json()["count"]


def test_names_that_become_one(shop):
    """Of two logs whose names become one, one is shown; no name would tell them apart."""
    folder = shop.parent / "logs"
    folder.mkdir()
    for name in ("a\udcff.db", r"a\udcff.db"):
        (folder / name).write_bytes(shop.read_bytes())
    with TestClient(create_app(folder), base_url=BASE) as client:
        assert [r"a\udcff.db"] == client.get("/api/files").json()["files"]


@pytest.mark.parametrize(
    ("status", "method", "asked", "options"),
    [
        (400, "GET", "api/rows?lines=x", {}),
        (400, "GET", "api/rows", {"headers": {"host": "evil.example"}}),
        (403, "GET", "api/rows", {}),
        (404, "GET", "api/nothing", {}),
        (404, "GET", "api/rows/1/2", {}),
        (404, "GET", "api/rows/99", {}),
        (405, "POST", "api/rows", {}),
        (500, "GET", "api/top", {}),
        (503, "GET", "api/rows?grep=a%2B", {}),
    ],
)
def test_an_error_of_a_question_is_json(shop, monkeypatch, status, method, asked, options):
    """
    A tool that asks gets each error as JSON, and a person gets it as text.

    Errors of the guard, of the router, and of what we had not foreseen were plain text under `api/` too.
    """

    def fails(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setitem(app_module.ANSWERS, "top", fails)
    monkeypatch.setattr(subprocess, "Popen", fails)
    token = "t" if status == 403 else None
    with TestClient(create_app(shop, token=token), base_url=BASE, raise_server_exceptions=False) as client:
        found = client.request(method, f"/mounted-not/{asked}", **options)
        assert "application/json" != found.headers["content-type"]
        found = client.request(method, f"/{asked}", **options)

    assert (status, "application/json") == (found.status_code, found.headers["content-type"])
    assert ["error"] == [*found.json()]
    assert "nosniff" == found.headers["x-content-type-options"]


def test_a_folder_that_may_not_be_listed(shop, monkeypatch):
    """A folder that the server may not list is a 503 with the sentence of the error, for each question."""

    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "scandir", refused)
    with TestClient(create_app(shop.parent), base_url=BASE) as client:
        found = [client.get(f"/{asked}") for asked in ("api/files", "api/rows", "metrics")]

    assert [(503, True)] * 3 == [(answer.status_code, "cannot be read" in answer.text) for answer in found]


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_question_that_nobody_waits_for_is_interrupted(shop, monkeypatch, is_behind):
    """
    When the browser goes away, the statement that runs for it ends, and its thread with it.

    Behind a middleware of the kind that `@app.middleware("http")` makes, the question went on.
    """
    running, ended = threading.Event(), []

    def endless(log: LogReader, _: object) -> dict[str, Any]:
        try:
            running.set()
            counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
            return {"count": log._scan.one(counted)}
        except BaseException as error:
            ended.append(type(error))
            raise

    monkeypatch.setitem(app_module.ANSWERS, "top", endless)
    app: Any = create_app(shop)
    if is_behind:
        app = BaseHTTPMiddleware(app, lambda request, call_next: call_next(request))
    came = [{"type": "http.request", "body": b"", "more_body": False}]
    sent = []

    async def receive() -> dict[str, Any]:
        if came:
            return came.pop()
        while not running.is_set():  # noqa: ASYNC110 - it is set by another thread
            await anyio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/top",
        "raw_path": b"/api/top",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 8710),
        "scheme": "http",
    }
    anyio.run(app, scope, receive, send)

    assert [KeyboardInterrupt] == ended  # and not LimitError, which ends it later
    assert 499 == sent[0]["status"]


def test_few_questions_at_a_time(shop, monkeypatch):
    """
    Forty questions that come at once are answered four at a time, and do not hold up an expression.

    Each had a thread: a server of a log of 5 MB took 160 MB.
    """
    running, most, expressions = 0, 0, 0
    app, free = create_app(shop), anyio.Event()

    async def run_sync(_ask: Any, _opened: Any, *, limiter: anyio.CapacityLimiter | None) -> dict[str, Any]:
        nonlocal running, most, expressions
        if limiter is None:
            expressions += 1
            free.set()
            return {}
        async with limiter:
            running += 1
            most = max(most, running)
            await free.wait()
            running -= 1
        return {}

    async def ask() -> None:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client, anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(client.get, "/api/top")
            tasks.start_soon(client.get, "/api/rows?grep=a")

    monkeypatch.setattr(app_module.anyio.to_thread, "run_sync", run_sync)
    anyio.run(ask)
    assert (4, 1) == (most, expressions)


def test_mounted_in_another_program(shop):
    """Mounted below a path of another program, the page and its questions work, and a missing slash is added."""
    with TestClient(Starlette(routes=[Mount("/logs", create_app(shop))]), base_url=BASE) as client:
        assert 200 == client.get("/logs/").status_code
        assert 200 == client.get("/logs").status_code
        assert 12 == client.get("/logs/api/rows").json()["last_id"]
        assert 200 == client.get("/logs/main.js").status_code


def test_mounted_with_a_token(shop):
    """
    Mounted in another program, the redirect and the cookie stay below the path of the mount.

    The browser was led to the page of the other program, and sent it the token with each request.
    """
    app = Starlette(routes=[Mount("/logs", create_app(shop, token="t"))])
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        response = client.get("/logs/?token=t&level=ERROR")
        assert (303, "/logs/?level=ERROR") == (response.status_code, response.headers["location"])
        assert "Path=/logs" in response.headers["set-cookie"].split("; ")
        assert 200 == client.get("/logs/").status_code


def test_mounted_at_a_path_of_a_request(shop):
    """The path of a mount may be of the one who asks: it gets into no header as it is, and leads to no other host."""
    app = Starlette(routes=[Mount("/{tenant:path}/logs", create_app(shop, token="t"))])
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        response = client.get("/%2Fevil.example;%20Domain=x/logs/?token=t")
    assert "/evil.example%3B%20Domain%3Dx/logs/" == response.headers["location"]
    assert "Path=/evil.example%3B%20Domain%3Dx/logs" in response.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(("root_path", "base_path"), [("", "/logs"), ("/logs", ""), ("/logs", "/logs")])
def test_a_slash_is_missing(shop, root_path, base_path):
    """
    Without the slash at its end, the path of the page leads to the page, with the filters of the address.

    Below `--base-path` it was a 404, where a proxy passes all on that begins with that path, as Traefik does.
    """
    app = create_app(shop, base_path=base_path)
    with TestClient(app, base_url=BASE, root_path=root_path, follow_redirects=False) as client:
        assert "/logs/?level=ERROR" == client.get(f"{root_path}{base_path}?level=ERROR").headers["location"]
        assert 404 == client.get(f"{root_path}{base_path}/x").status_code


def test_a_root_path_that_is_in_no_path(shop):
    """A server may know the prefix of its proxy, and give paths without it: they led to themselves, without end."""
    with TestClient(rootless(create_app(shop)), base_url=BASE, follow_redirects=False) as client:
        assert 200 == client.get("/").status_code


def rootless(app):
    """Give an application `root_path`, and the path without it, as Hypercorn does."""

    async def given(scope, receive, send):
        await app({**scope, "root_path": "/logs"}, receive, send)

    return given


def test_behind_a_proxy_with_a_prefix(shop):
    """Behind a proxy that takes the prefix off, the cookie and the redirect have it."""
    with TestClient(create_app(shop, token="t", base_path="/logs/"), base_url=BASE, follow_redirects=False) as client:
        response = client.get("/?token=t")

    assert "/logs/" == response.headers["location"]
    assert "Path=/logs" in response.headers["set-cookie"].split("; ")


@pytest.mark.parametrize("root_path", ["", "/logs"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_that_nobody_takes_off(shop, root_path, slash):
    """
    Below its prefix the server answers as well, as not every proxy takes it off.

    Somebody opened the address that `serve --base-path /logs` had printed, and saw "Not Found". uvicorn puts its
    `root_path` before each path.
    """
    app = create_app(shop, token="t", base_path="/logs")
    with TestClient(app, base_url=BASE, root_path=root_path, follow_redirects=False) as client:
        response = client.get(f"{root_path}/logs{slash}?token=t")
        assert (303, "/logs/") == (response.status_code, response.headers["location"])
        assert 200 == client.get(f"{root_path}/logs/").status_code
        assert 200 == client.get(f"{root_path}/logs/main.js").status_code


@pytest.mark.parametrize("base_path", ["logs", "/lo%20gs", "/logs?", "/logs#", "/l\xf6gs"])
def test_a_prefix_that_would_not_be_found(shop, base_path):
    """A prefix without its slash, or that can be written in several ways, is refused when the application is made."""
    with pytest.raises(ValueError, match="must begin with a slash, and be ASCII"):
        create_app(shop, base_path=base_path)


def held(shop, monkeypatch, tags, prefer="respond-async, wait=20", **more):
    """Ask with the first of `tags`, while the file has one after the other; return the status, the tag and the rest."""
    left = list(tags)
    monkeypatch.setattr(app_module, "_tag_of", lambda _: left.pop(0) if len(left) > 1 else left[0])
    monkeypatch.setattr(app_module, "_LOOK_PAUSE", 0)
    options = {"token": None, "allowed_hosts": ["localhost"], "base_path": "", "is_ending": lambda: False, **more}
    with TestClient(app_module.application([shop], **options), base_url=BASE) as client:
        headers = {"if-none-match": tags[0], "prefer": prefer}
        response = client.get("/api/rows", headers=headers)
    return response.status_code, response.headers["etag"], left


def test_a_poll_can_be_held_until_the_log_changes(shop, monkeypatch):
    """A tab on a log at rest asks every ten seconds instead of each quarter, and shows a new row sooner."""
    assert (200, "c", ["c"]) == held(shop, monkeypatch, ["a", "a", "a", "c"])


def test_a_poll_is_not_held_for_ever(shop, monkeypatch):
    """A poll without a wish is answered at once, and none is held longer than a proxy waits."""
    assert (304, "a", ["a", "c"]) == held(shop, monkeypatch, ["a", "a", "c"], prefer="respond-async")
    monkeypatch.setattr(app_module, "_LONGEST_WAIT", 0)
    assert (304, "a", ["a", "c"]) == held(shop, monkeypatch, ["a", "a", "c"], prefer="wait=9999")


def test_a_server_that_ends_waits_for_no_poll(shop, monkeypatch):
    """Ctrl-C would take until the tabs' polls are answered, and then complain of them."""
    assert (304, "a", ["a", "c"]) == held(shop, monkeypatch, ["a", "a", "c"], is_ending=lambda: True)


@pytest.mark.skipif(sys.platform == "win32", reason="no timer of CPU time")
@pytest.mark.parametrize("parameters", [{"grep": "(a+)+$"}, *slowly({"where": "a~(a+)+$"}, {"without": "grep=(a+)+$"})])
def test_an_expression_without_end(shop, make_handler, logger, monkeypatch, parameters):
    """
    An expression that would take years is an error after some seconds of CPU time, and the server answers the others.

    It ran on a thread of the server and kept the GIL: nobody was answered any more, and Ctrl-C ended nothing.
    """
    monkeypatch.setattr(other_process, "SECONDS", 0.1)
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("%s!", "a" * 50, extra={"a": "a" * 50 + "!"})
    handler.close()
    with TestClient(create_app(shop), base_url="http://localhost:8710") as client:
        refused = client.get("/api/rows", params=parameters)
        found = client.get("/api/rows", params={"grep": r"^order \d paid$"})

    assert (400, True) == (refused.status_code, "takes more than 0.1 s: ask for fewer rows" in refused.json()["error"])
    assert [f"order {number} paid" for number in range(8)] == [row["message"] for row in found.json()["rows"]]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize("number", [signal.SIGINT, *slowly(signal.SIGTERM)])
def test_a_server_with_expressions_without_end_ends(shop, make_handler, logger, number):
    """
    While expressions are tried that would take years, the server answers other questions, and ends when told: with 0
    at Ctrl-C.

    At Ctrl-C, those that waited for their turn had it then: 60 s of CPU time each.
    """
    resource = pytest.importorskip("resource")
    handler = make_handler()
    logger.addHandler(handler)
    logger.info("%s!", "a" * 50)
    handler.close()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "sqlite_log_handler", "serve", str(shop), "--port", "0", "--no-token"]
    with contextlib.ExitStack() as opened:
        process = opened.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        for _ in range(6):
            port = int(address.rstrip("/").rpartition(":")[2])
            waiting = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            waiting.sendall(b"GET /api/rows?grep=(a%2B)%2B%24 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with urllib.request.urlopen(f"{address}api/stats", timeout=60) as answer:
            assert 200 == answer.status
        process.send_signal(number)
        process.communicate()

    assert process.returncode in {0, -signal.SIGTERM}
    assert 30 > resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
