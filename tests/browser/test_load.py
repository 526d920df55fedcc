"""
The page on a large log, on a busy one, and on one at rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import sqlite_log_handler

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.browser.conftest import Tab

ROWS = 1_000_000

# Rows as a handler writes them, but in seconds: each has the call site and the process of the first one.
MILLION = f"""
WITH RECURSIVE numbers (number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM numbers WHERE number < {ROWS})
INSERT INTO records (id, created_us, levelno, source_id, process_id, message)
SELECT number, created_us + number * 100, levelno, source_id, process_id, 'row ' || number
FROM numbers, (SELECT * FROM records WHERE id = 1);
"""


@pytest.fixture
def million(tmp_path: Path, write: Callable[..., logging.Logger]) -> Path:
    """A log of a million rows, `row 1` to `row 1000000`."""
    path = tmp_path / "large.db"
    logger = write(path)
    logger.info("row 1")
    logger.handlers[0].close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(MILLION)
    return path


@contextlib.contextmanager
def busy(logger: logging.Logger) -> Iterator[Callable[[], int]]:
    """Log as fast as it is written, a thousand rows at a time, and give a function that counts what was logged."""
    stop = threading.Event()
    logged = 0

    def log() -> None:
        nonlocal logged
        handler: Any = logger.handlers[0]
        while not stop.is_set():
            for _ in range(1_000):
                logged += 1
                logger.info("new %d", logged)
            handler.flush()
            stop.wait(0.1)

    thread = threading.Thread(target=log)
    thread.start()
    try:
        yield lambda: logged
    finally:
        stop.set()
        thread.join()


def numbers(tab: Tab, word: str) -> list[int]:
    """Return the numbers of the rows on the screen, which must follow one another."""
    found = [int(match[1]) for line in tab.lines() if (match := re.fullmatch(rf"{word} (\d+)", line))]
    assert found == list(range(found[0], found[-1] + 1)) if found else True
    return found


def test_following_thousands_of_rows_a_second(tmp_path, write, serve, open_tab):
    """Each look at the list finds newer rows, without a hole among them, and the last row is there in the end."""
    logger = write(path := tmp_path / "busy.db")
    logger.info("new 0")
    logger.handlers[0].flush()
    tab = open_tab(serve(path))
    tab.wait_for_line("new 0")
    seen = 0
    with busy(logger) as logged:
        for _ in range(15):
            tab.wait_until(f"Number(document.querySelector('#rows .row:last-child .m').textContent.slice(4)) > {seen}")
            seen = numbers(tab, "new")[-1]
    tab.wait_for_line(f"new {logged()}")

    assert logged() == numbers(tab, "new")[-1]
    assert logged() >= 10_000


def test_a_flood_costs_what_is_drawn(tmp_path, write, serve, open_tab):
    """When more rows come at a time than a page has, the page asks for those that it draws; later it appends again."""
    logger = write(path := tmp_path / "busy.db", capacity=100_000, flush_interval=60)
    logger.info("first")
    logger.handlers[0].flush()
    tab = open_tab(serve(path))
    tab.wait_for_line("first")
    for flood in range(2):
        for number in range(1_000):
            logger.info("flood %d %d", flood, number)
        logger.handlers[0].flush()
        tab.wait_for_line(f"flood {flood} 999")
    logger.info("last")
    logger.handlers[0].flush()
    tab.wait_for_line("last")
    asked = [int(found[1]) for url in tab.requests if (found := re.search(r"after-id=.*lines=(\d+)", url))]
    few = [lines for lines in asked if lines < 400]

    assert 400 == asked[0]
    assert few
    assert max(few) < 100
    tab.page.locator("#list").hover()
    for _ in range(200):
        if any(line.startswith("flood 0 ") for line in tab.lines()):
            break
        tab.page.mouse.wheel(0, -1_000)
    assert numbers(tab, "flood 0")


def test_scrolling_back_in_a_million_rows_while_rows_come(million, write, serve, open_tab):
    """Scrolling back shows each row once, and both ends are a key away, while a thousand rows come at a time."""
    tab = open_tab(serve(million))
    tab.wait_for_line(f"row {ROWS}")
    first = last = numbers(tab, "row")[0]
    with busy(write(million)) as logged:
        for _ in range(60):
            tab.page.evaluate("document.getElementById('list').scrollBy(0, -560)")
            tab.wait_until("document.getElementById('list').ariaBusy !== 'true'")
            shown = numbers(tab, "row")
            if first < ROWS - 100:  # the first page stands below rows that came since
                assert shown[-1] >= first - 1
            first = shown[0]
        assert first < last - 1_000
        tab.page.keyboard.press("g")
        tab.wait_for_line("row 1")
        assert 1 == numbers(tab, "row")[0]
        tab.page.keyboard.press("G")
        tab.wait_until("/^new/.test(document.querySelector('#rows .row:last-child .m').textContent)")
        before = logged()
    tab.wait_for_line(f"new {logged()}")

    assert before <= numbers(tab, "new")[-1] == logged()


def wishes(tab: Tab) -> Any:
    """Wait for a question that the server is to hold."""
    return tab.page.expect_request(lambda request: "prefer" in request.headers)


def test_a_log_at_rest(tmp_path, write, serve, open_tab):
    """
    The server holds the question of a tab on a log at rest; a new row and a new filter are shown all the same.

    A tab on a log at rest asked each 0.4 seconds, and took twice the CPU that it may.
    """
    logger = write(path := tmp_path / "app.db", flush_interval=0.05)
    logger.info("first")
    tab = open_tab(serve(path))
    with wishes(tab):
        tab.wait_for_line("first")
    logger.warning("second")
    tab.wait_for_line("second")
    with wishes(tab):
        pass
    tab.page.select_option("#level", "WARNING")
    tab.wait_until("document.querySelectorAll('#rows .row').length === 1")
    logger.warning("third")
    tab.wait_for_line("third")

    assert ["second", "third"] == tab.lines()


def test_a_question_that_is_held_does_not_keep_the_page(tmp_path, write, serve, open_tab):
    """When another log is chosen, its new rows are shown though the question for the first log has no answer yet."""
    for name in ("one", "other"):
        write(tmp_path / f"{name}.db", flush_interval=0.05).info("first of %s", name)
    tab = open_tab(serve(tmp_path / "one.db", tmp_path / "other.db"))

    def hold(route, request):
        if not ("prefer" in request.headers and "file=one" in request.url):
            route.continue_()

    tab.page.route("**/api/rows*", hold)
    with wishes(tab):
        tab.wait_for_line("first of one")
    tab.page.select_option("#file", "other.db")
    tab.wait_for_line("first of other")
    write(tmp_path / "other.db", flush_interval=0.05).info("second")
    tab.wait_for_line("second")

    assert ["first of other", "second"] == tab.lines()


def test_a_proxy_that_does_not_wait(tmp_path, write, serve, open_tab):
    """Behind a proxy that gives up a question that is held, the page goes on without such questions."""
    logger = write(path := tmp_path / "app.db", flush_interval=0.05)
    logger.info("first")
    tab = open_tab(serve(path))
    refused = []

    def refuse(route, request):
        if "prefer" not in request.headers:
            route.continue_()
            return
        refused.append(request.url)
        route.fulfill(status=504, body="gateway time-out")

    tab.page.route("**/api/rows*", refuse)
    tab.wait_until("document.getElementById('notice').textContent.startsWith('gateway time-out')")
    logger.info("second")
    tab.wait_for_line("second")
    tab.wait_until("document.getElementById('notice').hidden")

    assert 1 == len(refused)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_end_beside_a_question_that_is_held(tmp_path, write, chromium, sent):
    """Ctrl-C ends the server at once, and nothing is said of the question that it holds."""
    logger = write(path := tmp_path / "app.db")
    logger.info("text")
    logger.handlers[0].flush()
    process = subprocess.Popen(
        [sys.executable, "-m", "sqlite_log_handler", "serve", str(path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))},
    )
    context = chromium.new_context()
    try:
        page = context.new_page()
        with page.expect_request(lambda request: "prefer" in request.headers, timeout=60_000):
            page.goto(process.stdout.readline().split()[0])
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    finally:
        context.close()
        process.kill()
        process.communicate()

    assert (True, "") == (process.returncode in {0, -sent}, said)
