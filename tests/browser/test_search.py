"""
What the page says about a search: how many rows match, when, and that none does.

The log is the incident of the demo, in which 11,202 drops and a flood of DEBUG records lie beside the failures.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._cli import incident

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.browser.conftest import Tab

_UNPAID = "message LIKE 'order % is not paid'"
_PIXELS = """
(() => {
  const canvas = document.getElementById('histogram');
  // A copy, because the browser warns of a chart that is read.
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  return copy.getImageData(0, 0, canvas.width, canvas.height);
})()
"""
# The height in pixels of what is drawn in each column of the chart, from its foot up to the first hole.
_HEIGHTS = """
(() => {
  const { data, width, height } = PIXELS;
  const painted = (x, y) => data[(y * width + x) * 4 + 3] > 0;
  return Array.from({ length: width }, (_, x) => {
    let tall = 0;
    while (painted(x, height - 17 - tall)) tall += 1;
    return tall;
  });
})()
""".replace("PIXELS", _PIXELS)
# How many columns of the chart have the colour of errors at their foot.
_ERRORS = """
(() => {
  const { data, width, height } = PIXELS;
  const color = (x) => data.slice(((height - 17) * width + x) * 4).slice(0, 3).join();
  return Array.from({ length: width }, (_, x) => color(x)).filter((found) => found === '213,94,0').length;
})()
""".replace("PIXELS", _PIXELS)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the log of the incident."""
    path = tmp_path / "shop.db"
    incident.make(str(path), 1_795_921_934.0)
    return path


def ask(log: Path, what: str, condition: str) -> int:
    """Return a number about the rows that meet a condition."""
    with sqlite3.connect(log) as connection:
        ((number,),) = connection.execute(f"SELECT {what} FROM logs WHERE {condition}")
    connection.close()
    return int(number)


def heights(tab: Tab, label: str) -> list[int]:
    """Return the heights of the bars once the chart tells of them."""
    tab.wait_until(f"document.getElementById('histogram').ariaLabel.startsWith({label!r})")
    found: list[int] = tab.page.evaluate(_HEIGHTS)
    return sorted(height for height in found if height)


def test_a_burst_does_not_flatten_the_bars(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """
    A bar of drops, or one of a flood, leaves the other bars a height that can be read.

    The drops set the scale, and all else was one to three pixels high.
    """
    tab = open_tab(serve(log))
    rows = ask(log, "count(*)", "1")
    found = heights(tab, f"{rows:,} records and 11,202 drops")

    assert found[len(found) // 2] >= 8


def test_bars_are_added_up(
    tmp_path: Path, write: Callable[..., Any], serve: Callable[..., str], open_tab: Callable[..., Tab]
) -> None:
    """New rows are counted alone and added to the bars; all are for other filters, or when bars become too many."""
    path = tmp_path / "app.db"
    logger = write(path, flush_interval=0.05)
    logger.info("first")
    logger.info("second")
    assert logger.handlers[0].flush()
    later(path, 1, -100)
    tab = open_tab(serve(path))

    def wait_for(total: int) -> str:
        tab.wait_until(f"document.getElementById('histogram').ariaLabel.startsWith('{total} records')")
        return [url for url in tab.requests if "histogram" in url][-1]

    assert "counted-id" not in wait_for(2)
    total = 3
    logger.error("one more")
    while "counted-id" not in wait_for(total):  # all are counted now and then
        logger.error("one more")
        total += 1
    tab.page.select_option("#level", "ERROR")
    assert "counted-id" not in wait_for(total - 2)
    later(path, 3, 36_000)
    logger.error("the last")

    assert "counted-id" not in wait_for(total - 1)


def later(path: Path, id_: int, seconds: int) -> None:
    """Change the time of a row."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET created_us = created_us + ? WHERE id = ?", (seconds * 1_000_000, id_))
    connection.close()


def test_drops_do_not_flatten_a_pattern(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """The bars of the rows that a filter finds fill the chart, whatever was dropped meanwhile."""
    number = ask(log, "count(*)", _UNPAID)
    tab = open_tab(f"{serve(log)}&pattern-of={ask(log, 'max(id)', _UNPAID)}")
    found = heights(tab, f"{number} records and 11,202 drops")

    assert found[len(found) // 2] >= 16


def test_failures_stand_at_the_foot(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """The errors of a time are at the foot of its bar, so that a flood of other records does not cut them off."""
    tab = open_tab(serve(log))
    heights(tab, f"{ask(log, 'count(*)', '1'):,} records")

    assert tab.page.evaluate(_ERRORS) >= 20


def test_how_many_rows_match(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """
    The strip tells how many rows match the filters, and asks nothing more of the server for it.

    It told the number of all rows, whatever the filters were.
    """
    rows, errors = ask(log, "count(*)", "1"), ask(log, "count(*)", "levelno >= 40")
    tab = open_tab(serve(log))
    strip = tab.page.locator("#strip span").first
    strip.get_by_text(f"{rows:,} rows").wait_for()

    tab.page.select_option("#level", "ERROR")
    strip.get_by_text(f"{errors:,} of {rows:,} rows match").wait_for()
    assert not any("lines=0" in url for url in tab.requests)
    tab.page.select_option("#level", "")
    strip.get_by_text(f"{rows:,} rows", exact=True).wait_for()


def test_an_answer_to_other_filters_is_not_shown(
    log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]
) -> None:
    """Bars that come when other filters were chosen meanwhile are neither drawn nor counted."""
    rows, errors = ask(log, "count(*)", "1"), ask(log, "count(*)", "levelno >= 40")
    tab = open_tab(serve(log))
    tab.page.locator("#strip", has_text=f"{rows:,} rows").wait_for()
    held: list[Any] = []
    tab.page.route("**/api/histogram?*level=WARNING*", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks what it is given
    tab.page.select_option("#level", "WARNING")
    while not held:
        tab.page.wait_for_timeout(20)
    tab.page.select_option("#level", "ERROR")
    tab.page.evaluate(
        "new MutationObserver(() => (window.told ??= []).push(document.getElementById('strip').textContent))"
        ".observe(document.getElementById('strip'), { childList: true })"
    )
    held[0].continue_()
    tab.page.locator("#strip", has_text=f"{errors:,} of {rows:,} rows match").wait_for()

    assert [f"{errors:,}"] == [text.split(" of ")[0] for text in tab.page.evaluate("window.told")]


def test_no_row_matches(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """
    A search that finds nothing says so, beside the gaps that stand there, and one button takes the filters back.

    The list was empty but for a gap, and said nothing.
    """
    tab = open_tab(serve(log))
    tab.wait_until("document.querySelectorAll('#rows .row').length > 10")
    tab.page.fill("#query", "nothing of this kind")
    tab.page.get_by_text("No row matches.").wait_for()
    tab.wait_for_line("11,202 records dropped")

    tab.page.get_by_role("button", name="Clear the filters").click()
    tab.wait_until("document.querySelectorAll('#rows .row').length > 10")
    tab.page.locator("#empty").wait_for(state="hidden")
    assert ("", "") == (
        tab.page.input_value("#query"),
        tab.page.evaluate("location.search.includes('text') ? 'text' : ''"),
    )


def test_a_pattern_is_named(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """
    The chip of a pattern shows what its row says, and still does when another filter is added to it.

    It showed the id of a row, so nobody saw that the next filter narrowed the pattern and not the log.
    """
    tab = open_tab(serve(log))
    id_ = ask(log, "max(id)", _UNPAID)
    tab.page.goto(f"{tab.page.url}?row={id_}")
    tab.page.get_by_role("button", name="Same pattern").click()
    tab.page.locator(".chip", has_text=re.compile(rf"pattern of row{id_}: order \d+ is not paid")).wait_for()

    tab.page.get_by_label("Only logger shop.checkout").click()
    tab.wait_until("document.querySelectorAll('.chip').length === 2")
    chip = tab.page.locator(".chip", has_text="is not paid")
    chip.wait_for()
    assert "is not paid" in chip.get_attribute("title")


def test_a_pattern_outlives_its_row(
    tmp_path: Path, write: Callable[..., Any], serve: Callable[..., str], open_tab: Callable[..., Tab]
) -> None:
    """
    A page that follows a pattern goes on when retention deletes the row that it was taken from.

    It said that there is no such row, and never asked again.
    """
    path = tmp_path / "app.db"
    logger = write(path, flush_interval=0.05)
    logger.info("order %d paid", 1)
    logger.info("stock of %s is low", "tea")
    tab = open_tab(serve(path))
    tab.wait_for_line("stock of tea")
    filter_by(tab, "?pattern-of=1")
    tab.page.locator(".chip", has_text="order 1 paid").wait_for()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM records WHERE id = 1")
    logger.info("stock of %s is low", "rice")
    logger.info("order %d paid", 2)
    tab.wait_for_line("order 2 paid")

    assert tab.page.locator(".row", has_text="stock").count() == 0


def test_a_pattern_of_no_row(log: Path, serve: Callable[..., str], open_tab: Callable[..., Tab]) -> None:
    """The chip of a pattern whose row is gone keeps its number, and the page says what is wrong."""
    tab = open_tab(f"{serve(log)}&pattern-of=999999")
    tab.page.locator("#notice.bad", has_text="999999").wait_for()

    assert "pattern of row999999✕" == tab.page.locator(".chip").text_content()


def filter_by(tab: Tab, query: str) -> None:
    """Change the filters, as a link does."""
    tab.page.evaluate(
        "(query) => { history.pushState(null, '', query); dispatchEvent(new PopStateEvent('popstate')); }", query
    )


def test_an_expression_that_backtracks(
    tmp_path: Path, write: Callable[..., Any], serve: Callable[..., str], open_tab: Callable[..., Tab]
) -> None:
    """While an expression backtracks, other tabs go on, and so does the tab itself with its next question."""
    path = tmp_path / "app.db"
    logger = write(path, flush_interval=0.05)
    logger.info("%s!", "a" * 99)
    address = serve(path)
    tab = open_tab(address)
    tab.wait_for_line("aaa!")
    with tab.page.expect_request(lambda request: "grep=" in request.url):
        filter_by(tab, "?grep=(a%2B)%2B$")
    other = open_tab(address, like=tab)
    other.wait_for_line("aaa!")
    with tab.page.expect_event("requestfailed", lambda request: "grep=" in request.url):
        filter_by(tab, "?text=aaa")
    logger.info("and aaa")
    tab.wait_for_line("and aaa")
    other.wait_for_line("and aaa")


@pytest.mark.parametrize(
    ("query", "marked"),
    [("?grep=order|refund", ["order", "refund"]), ("?text=(a", ["(a"]), ("?grep=order|(a%2B)%2B$", [])],
)
def test_what_the_page_marks(
    tmp_path: Path,
    write: Callable[..., Any],
    serve: Callable[..., str],
    open_tab: Callable[..., Tab],
    query: str,
    marked: list[str],
) -> None:
    """
    The page marks the text that was searched for, and of expressions those that no text can keep busy.

    Python stops at the first match, and the browser looked for all of them, on the texts of strangers: behind `order`,
    `(a+)+$` never came to an end, and the tab froze.
    """
    path = tmp_path / "app.db"
    write(path, flush_interval=0.05).info("order and refund (%s!", "a" * 40)
    tab = open_tab(serve(path))
    tab.wait_for_line("order and refund")
    with tab.page.expect_response(lambda response: "/rows?" in response.url and query[1:5] in response.url):
        filter_by(tab, query)
    tab.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    tab.page.wait_for_function("(least) => document.querySelectorAll('#rows mark').length >= least", arg=len(marked))

    assert marked == tab.page.locator("#rows mark").all_text_contents()


@pytest.mark.parametrize("question", ["rows", "histogram"])
def test_a_question_that_is_refused(
    log: Path,
    write: Callable[..., Any],
    serve: Callable[..., str],
    open_tab: Callable[..., Tab],
    question: str,
) -> None:
    """A search that takes too long is not asked for again, even when rows come; another search works."""
    asked = []

    def refuse(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(status=400, body='{"error": "takes too long"}')

    tab = open_tab(serve(log))
    tab.wait_for_line("order")
    tab.page.clock.install()
    tab.page.route(f"**/api/{question}?*grep=*", refuse)
    filter_by(tab, "?grep=ordeal|is+not+paid")
    tab.wait_until("document.getElementById('notice').textContent === 'takes too long'")
    logger = write(log)
    logger.error("another is not paid")
    assert logger.handlers[0].flush()
    if question == "histogram":
        tab.wait_for_line("another is not paid")
    tab.page.clock.run_for(30_000)
    assert tab.page.evaluate("document.getElementById('notice').className === 'bad'")
    assert 1 == len(asked)
    filter_by(tab, "?level=ERROR")
    tab.wait_for_line("is not paid")
    tab.wait_until("document.getElementById('notice').hidden")
