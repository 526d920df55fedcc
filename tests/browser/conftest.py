"""
A real browser, and `sqlite-log serve` in a process of its own.

The browser is Chromium as the system has it. Without it, or without Playwright, these tests are skipped and say so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import sqlite_log_handler
from sqlite_log_handler import SQLiteHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PACKAGE = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))

# What keeps a browser from asking for anything by itself.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--expose-gc",
]
# Milliseconds that nothing takes, on no machine.
PATIENCE = 60_000


@pytest.hookimpl(tryfirst=True)  # before the suite skips what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests, with the reason, where something is missing."""
    here = os.path.dirname(__file__)
    reason = None
    if shutil.which("chromium") is None and shutil.which("chromium-browser") is None:
        reason = "there is no Chromium: apt-get install chromium"
    for module in ("playwright", "starlette", "uvicorn"):
        try:
            __import__(module)
        except ModuleNotFoundError:
            reason = f"there is no {module}: pip install 'sqlite-log-handler[test,serve]'"
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One Chromium for all tests."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing

    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that runs `sqlite-log serve` and returns the address that it prints."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "sqlite_log_handler", "serve", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": PACKAGE, "PYTHONUNBUFFERED": "1"},
        )
        running.append(process)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if address := re.match(r"http://\S+", line):
                return address[0]
        pytest.fail(f"serve ended: {said}")

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture
def write() -> Iterator[Callable[..., logging.Logger]]:
    """Return a function that makes a log at a path, and gives a logger that writes to it at once."""
    made: list[tuple[logging.Logger, SQLiteHandler]] = []

    def start(path: Path, name: str = "shop", **options: Any) -> logging.Logger:
        handler = SQLiteHandler(path, **options)
        logger = logging.Logger(name, 1)  # noqa: LOG001 - nobody else shall get it
        logger.addHandler(handler)
        made.append((logger, handler))
        return logger

    yield start
    for logger, handler in made:
        logger.removeHandler(handler)
        handler.close()


class Tab:
    """A tab with the page in it, and all that it complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        page.on("dialog", lambda dialog: (self._hear("error", f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, kind: str, text: str) -> None:
        # The browser itself writes a line for each answer that is an error; the page says what it means.
        if kind in {"error", "warning"} and "Failed to load resource" not in text:
            self.complaints.append(f"{kind}: {text}")

    def lines(self) -> list[str]:
        """Return what the list shows, from the top down."""
        # Two frames: in the first one a scroll is told, by the second one it is drawn.
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('#rows .row')].filter((line) => {"
            " const box = line.getBoundingClientRect(), list = document.getElementById('list').getBoundingClientRect();"
            " return box.bottom > list.top + 1 && box.top < list.bottom - 1;"
            "}).sort((one, other) => one.dataset.index - other.dataset.index)"
            ".map((line) => (line.querySelector('.m') ?? line).textContent)"
        )
        return found

    def wait_for_line(self, text: str) -> None:
        """Wait until the list shows a line with this text."""
        self.page.locator("#rows .row", has_text=text).first.wait_for(state="attached")

    def wait_until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        # Not by Playwright's `wait_for_function`, which the page's Content-Security-Policy forbids.
        deadline = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(20)


@pytest.fixture
def open_tab(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """Return a function that opens a tab; at the end no tab may have complained, or asked anybody but the server."""
    contexts = []
    tabs: list[tuple[Tab, str]] = []

    def start(
        address: str, *, width: int = 1280, height: int = 800, dark: bool = False, like: Tab | None = None, **how: Any
    ) -> Tab:
        if like is None:
            context = chromium.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **how
            )
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            contexts.append(context)
        else:
            context = like.page.context
        tab = Tab(context.new_page())
        tabs.append((tab, re.match(r"http://[^/]+/", address)[0]))  # type: ignore[index]
        tab.page.goto(address)
        return tab

    yield start
    for tab, origin in tabs:
        strangers = [url for url in tab.requests if not url.startswith(origin)]
        assert ([], []) == (tab.complaints, strangers)
    for context in contexts:
        with contextlib.suppress(Exception):
            context.close()
