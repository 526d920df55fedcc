"""
Who may ask, and what an answer forbids the browser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

starlette = pytest.importorskip("starlette", reason="the extra serve is not installed")

from starlette.testclient import TestClient  # noqa: E402

from sqlite_log_handler.serve import create_app  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a-token-of-256-bits"


def client(path: Path, base_url: str = "http://localhost:8710", **options: Any) -> TestClient:
    """Make a client of an application that serves `path`."""
    return TestClient(create_app(path, **options), base_url=base_url, follow_redirects=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8710", "[::1]:8710", "LOCALHOST:1"])
def test_the_names_of_loopback_are_answered(shop, host):
    """A browser on this machine may call the server by any name of loopback, with any port."""
    assert 200 == client(shop).get("/", headers={"host": host}).status_code


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8710", ""])
@pytest.mark.parametrize("question", ["/", "/api/rows", "/nothing", "/api/files?token=a-token-of-256-bits"])
def test_other_names_are_refused_before_anything_else(shop, host, question):
    """DNS rebinding makes another site's name point here: `Host` is checked before routing and before the token."""
    response = client(shop, token=TOKEN).get(question, headers={"host": host})

    assert 400 == response.status_code
    assert "set-cookie" not in response.headers


def test_a_name_can_be_allowed(shop):
    """A name beside those of loopback is allowed by its owner; a star allows all."""
    assert 200 == client(shop, allowed_hosts=["logs.example"]).get("/", headers={"host": "logs.example"}).status_code
    assert 200 == client(shop, allowed_hosts=["*"]).get("/", headers={"host": "any.example"}).status_code


def test_without_the_token_nothing_is_told(shop):
    """Neither the page nor an answer is given to somebody who does not have the token."""
    asking = client(shop, token=TOKEN)

    for question in ("/", "/main.js", "/api/rows", "/api/rows?token=wrong", "/api/files?token="):
        assert 403 == asking.get(question).status_code
    asking.cookies.set("sqlite-log-8710", "wrong")
    assert 403 == asking.get("/").status_code


@pytest.mark.parametrize("asked", ["/%0d%0aSet-Cookie:%20a=b", "/%09/evil.example", "/a%3Fb%23c"])
def test_the_token_is_taken_out_of_any_path(shop, asked):
    """
    A path with a line end in it, percent-encoded, became a header: uvicorn refused it, with a traceback.

    One with a tab led to another host, because browsers leave tabs out.
    """
    response = client(shop, token=TOKEN).get(f"{asked}?token={TOKEN}")

    assert (303, asked.replace("Cookie:", "Cookie%3A").replace("=", "%3D")) == (
        response.status_code,
        response.headers["location"].replace("%0D", "%0d").replace("%0A", "%0a"),
    )


def test_the_token_becomes_a_cookie(shop):
    """
    The address with the token sets a cookie that no script and no other site can use, and leads to the address without.

    So the token gets into no history and no `Referer`.
    """
    asking = client(shop, token=TOKEN)

    response = asking.get(f"/?level=ERROR&token={TOKEN}&row=3")

    assert (303, "/?level=ERROR&row=3") == (response.status_code, response.headers["location"])
    cookie = response.headers["set-cookie"]
    assert {"sqlite-log-8710=" + TOKEN, "Path=/", "HttpOnly", "SameSite=strict"} == {*cookie.split("; ")}
    assert 200 == asking.get("/api/rows").status_code


def test_the_cookie_of_https_is_secure(shop):
    """Behind a proxy with TLS, the browser sends the cookie by TLS only."""
    response = client(shop, "https://localhost", token=TOKEN).get(f"/?token={TOKEN}")

    assert "Secure" in response.headers["set-cookie"].split("; ")


def test_a_redirect_stays_here(shop):
    """A path of two slashes does not become the name of another host."""
    response = client(shop, token=TOKEN).get(f"/%2Fevil.example/?token={TOKEN}")

    assert "/evil.example/" == response.headers["location"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_reading_only(shop, method):
    """Nothing but GET and HEAD is answered, and no other site is told that it may read."""
    response = client(shop).request(method, "/api/rows", headers={"origin": "http://evil.example"})

    assert 405 == response.status_code
    assert [] == [name for name in response.headers if name.startswith("access-control")]
    assert 405 == client(shop, token=TOKEN).request(method, f"/?token={TOKEN}").status_code


@pytest.mark.parametrize(
    "question", ["/", "/main.js", "/api/rows", "/api/rows/999", "/nothing.js", "/api/rows?level=X"]
)
def test_what_an_answer_forbids(shop, question):
    """Each answer, an error too, forbids to run, embed, guess and keep anything."""
    headers = client(shop).get(question).headers

    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert "'none'" == policy.pop("default-src") == policy.pop("frame-ancestors") == policy.pop("base-uri")
    assert "'none'" == policy.pop("form-action")
    assert {"'self'"} == set(policy.values())
    assert "nosniff" == headers["x-content-type-options"]
    assert "no-referrer" == headers["referrer-policy"]
    assert "no-store" == headers["cache-control"]
    assert [] == [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "wanted", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/page/../app.py", "/app.py", "/%2Fetc/passwd"]
)
def test_no_path_of_a_request_is_one_on_disk(shop, wanted):
    """The files of the page are known by name; any other path is a 404, however it is written."""
    assert 404 == client(shop).get(wanted).status_code


def test_the_log_is_not_changed(shop):
    """Asking all questions changes no byte of the log."""
    before = shop.read_bytes()
    asking = client(shop)
    for question in ("rows", "rows/1", "histogram", "top", "gaps", "stats", "files"):
        assert 200 == asking.get(f"/api/{question}").status_code

    assert before == shop.read_bytes()


@pytest.mark.parametrize("prefix", ["", "/logs"])
def test_prometheus_scrapes_with_the_token(shop, prefix):
    """
    `/metrics` takes the token as Prometheus sends it, also below a path; a wrong one and other schemes do not help.

    Prometheus keeps no cookies, so it could scrape only a server that everybody may read.
    """
    app = create_app(shop, token=TOKEN)
    asking = TestClient(app, base_url="http://localhost:8710", root_path=prefix, follow_redirects=False)

    def status(credentials: str) -> int:
        return int(asking.get(f"{prefix}/metrics", headers={"authorization": credentials}).status_code)

    assert [200, 200] == [status(f"Bearer {TOKEN}"), status(f"bearer  {TOKEN}")]
    assert {403} == {status(one) for one in (TOKEN, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN} x")}


@pytest.mark.parametrize("question", ["/", "/api/rows", "/api/files", "/main.js", "/metrics/", "//metrics"])
def test_a_scrape_gets_the_metrics_only(shop, question):
    """The token in a header opens nothing but the metrics, for GET only, and sets no cookie."""
    asking = client(shop, token=TOKEN)
    headers = {"authorization": f"Bearer {TOKEN}"}

    response = asking.get(question, headers=headers)
    assert (403, False) == (response.status_code, "set-cookie" in response.headers)
    assert 403 == asking.head("/metrics", headers=headers).status_code
    assert 400 == asking.get("/metrics", headers={**headers, "host": "evil.example"}).status_code
