"""
The page as somebody uses it: following, scrolling, filtering, links, keys, tabs.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._cli import incident

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.browser.conftest import Tab


@pytest.fixture
def shop(tmp_path: Path, write: Callable[..., Any]) -> Path:
    """A log of 3,000 rows of two loggers, every hundredth a warning, and an error with a traceback at the end."""
    path = tmp_path / "shop.db"
    logger = write(path, "shop.orders")
    other = logging.Logger("shop.cart", 1)  # noqa: LOG001 - nobody else shall get it
    other.addHandler(logger.handlers[0])
    for number in range(1, 3_000):
        chosen = other if number % 10 == 0 else logger
        level = 30 if number % 100 == 0 else 20
        chosen.log(level, "order %d paid", number, extra={"customer": f"c-{number % 7}"})
        if number % 1_000 == 0:
            assert logger.handlers[0].flush()
    try:
        raise KeyError("price")
    except KeyError:
        logger.exception("order 3000 has no price")
    assert logger.handlers[0].flush()
    return path


def top_line(tab: Tab) -> float:
    """Return where on the screen the first whole line of the list stands, and which it is."""
    position: float = tab.page.evaluate("document.getElementById('list').scrollTop")
    return position


def test_the_newest_rows_are_shown_first(shop, serve, open_tab):
    """The page opens at the end of the log, with its newest row at the bottom of the list."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000 has no price")

    assert tab.lines()[-1].startswith("order 3000 has no price")
    assert "token" not in tab.page.url


def test_following(shop, serve, open_tab, write):
    """A row that is logged is on the screen without a touch, and the list stays at its end."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    logger = write(shop)

    for number in range(3):
        logger.info("new %d", number)
        tab.wait_for_line(f"new {number}")

    assert ["new 0", "new 1", "new 2"] == tab.lines()[-3:]


def test_a_row_that_moves_under_the_pointer(shop, serve, open_tab, write):
    """
    The row that was pressed is opened, although new rows have moved the list before the button is released.

    The click then belongs to no row, so that in a busy log most clicks opened nothing.
    """
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000 has no price")
    row = tab.page.locator("#rows .row", has_text="order 2995 paid")
    row.hover()
    tab.page.mouse.down()
    logger = write(shop, "shop.late")
    for number in range(3):
        logger.info("late %d", number)
    tab.wait_for_line("late 2")
    tab.lines()
    tab.page.mouse.up()

    tab.page.locator("#side .message", has_text="order 2995 paid").wait_for()


def test_scrolled_up_nothing_moves(shop, serve, open_tab, write):
    """After scrolling up, a user keeps the place and reads how many rows are new; a click shows them."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.evaluate("document.getElementById('list').scrollBy(0, -1000)")
    tab.wait_until("document.getElementById('follow').getAttribute('aria-pressed') === 'false'")
    before = (tab.lines(), top_line(tab))

    logger = write(shop)
    for number in range(128):
        logger.info("new %d", number)
    tab.wait_until("document.getElementById('new').textContent.startsWith('128 new')")

    assert before == (tab.lines(), top_line(tab))
    tab.page.click("#new")
    tab.wait_for_line("new 127")
    assert "new 127" == tab.lines()[-1]


def test_scrolling_back_to_the_beginning(shop, serve, open_tab, write):
    """Scrolling back shows each row once, down to the first one, while new rows come."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    logger = write(shop)
    seen: list[int] = []
    for round_ in range(400):
        logger.info("meanwhile %d", round_)
        numbers = [int(found[1]) for line in tab.lines() if (found := re.match(r"order (\d+)", line))]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        seen = numbers[: len(numbers) if not seen else seen[0] - numbers[0]] + seen
        if numbers[0] == 1:
            break
        tab.page.evaluate("document.getElementById('list').scrollBy(0, -560)")
        tab.wait_until("document.getElementById('list').ariaBusy !== 'true'")

    assert list(range(1, 3_001)) == seen


def test_the_ends_by_key(shop, serve, open_tab):
    """
    `g` chooses the oldest row, `G` the newest, j and k move, Enter opens, Escape closes: no mouse is needed.

    After `G`, no row was chosen, so Enter opened nothing.
    """
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    keys = tab.page.keyboard

    keys.press("g")
    tab.wait_for_line("order 1 paid")
    keys.press("j")
    keys.press("j")
    keys.press("k")
    keys.press("Enter")
    tab.page.locator("#side .message", has_text="order 2 paid").wait_for()
    assert "2" == tab.page.evaluate("new URLSearchParams(location.search).get('row')")
    keys.press("Escape")
    tab.page.locator("#side").wait_for(state="hidden")
    keys.press("G")
    tab.wait_for_line("order 3000")
    keys.press("Enter")
    tab.page.locator("#side .message", has_text="order 3000").wait_for()
    keys.press("Escape")
    keys.press("?")
    tab.page.locator("#keys").wait_for()
    keys.press("Escape")
    keys.press("Control+f")
    keys.type("order 77 ")
    tab.wait_until("document.querySelectorAll('#rows .row').length === 1")
    keys.press("Escape")
    tab.wait_for_line("order 3000")


def test_filters_are_chips_and_stand_in_the_address(shop, serve, open_tab):
    """A value of a row is a filter by one click, stands in the address, and is taken back by Back or by its chip."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.locator("#rows .row", has_text="order 2990 ").click()
    tab.page.get_by_label("Only logger shop.cart").click()
    tab.wait_until("document.querySelector('.chip')")
    tab.wait_until("![...document.querySelectorAll('#rows .row .n')].some((name) => name.textContent !== 'shop.cart')")
    tab.page.locator("#rows .row", has_text="order 2980 ").click()
    tab.page.get_by_label("Without attribute customer=c-5").click()
    tab.wait_until("document.querySelectorAll('.chip').length === 2")
    link = tab.page.url

    other = open_tab(link, like=tab)
    other.wait_until("document.querySelectorAll('.chip').length === 2")
    other.wait_for_line("order 2990")
    assert not any(re.match("order (2980|2910) ", line) for line in other.lines())

    tab.page.go_back()
    tab.wait_until("document.querySelectorAll('.chip').length === 1")
    tab.page.locator(".chip button").click()
    tab.wait_until("document.querySelectorAll('.chip').length === 0")
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("End")
    tab.wait_for_line("order 3000")


def test_an_open_row_stays_open(shop, serve, open_tab, write):
    """A row that is open and selected stays so while rows come and filters change; its loggers above filter too."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.locator("#rows .row", has_text="order 2990 ").click()
    tab.page.locator("#side .message", has_text="order 2990 ").wait_for()
    write(shop).info("new")
    tab.page.get_by_label("Only below shop", exact=True).click()
    tab.wait_until("document.querySelectorAll('.chip').length === 1")
    tab.page.select_option("#level", "WARNING")
    tab.wait_until("location.search.includes('level=WARNING')")
    tab.wait_for_line("order 2900")

    assert "order 2990 paid" == tab.page.locator("#side .message").text_content()
    tab.page.select_option("#level", "")
    tab.page.locator("#rows .row[aria-selected=true]", has_text="order 2990 ").wait_for()


def test_a_row_that_is_closed_while_the_list_is_loaded(shop, serve, open_tab):
    """
    A row that somebody closes stays closed when the rows around it come, and is no part of the address.

    It came back as `id='null' is not a whole number`.
    """
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.locator("#rows .row", has_text="order 2990 ").click()
    tab.page.locator("#side .message", has_text="order 2990 ").wait_for()

    def late(route):
        tab.page.keyboard.press("Escape")
        route.continue_()

    tab.page.route(re.compile(r"api/rows\?.*level=INFO.*up-to-id=2990"), late)
    tab.page.focus("#list")
    tab.page.evaluate("document.getElementById('level').value = 'INFO'")
    tab.page.evaluate("document.getElementById('level').dispatchEvent(new Event('change'))")
    tab.wait_for_line("order 2985 ")
    tab.lines()

    assert (True, True) == (tab.page.locator("#side").is_hidden(), tab.page.locator("#notice").is_hidden())
    assert "row=" not in tab.page.url


def test_a_panel_takes_the_place_of_a_row(shop, serve, open_tab):
    """
    Once another panel has taken the place of a row, that row is no part of the address, and does not come back.

    A click on a bar brought it back in the place of the bars.
    """
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.locator("#rows .row", has_text="order 2990 ").click()
    tab.page.locator("#side .message", has_text="order 2990 ").wait_for()
    tab.page.click("#show-top")
    tab.page.locator(".meter", has_text="shop.cart").click()
    tab.wait_for_line("order 2900 ")
    tab.lines()

    assert "Who logs most" == tab.page.locator("#side-title").text_content()
    assert "row=" not in tab.page.url


@pytest.mark.parametrize(("status", "after"), [(503, 2), (400, 1)])
def test_older_rows_that_do_not_come(shop, serve, open_tab, status, after):
    """
    Older rows are asked for again after two seconds, and not at all if the question takes too long, until one scrolls.

    They were asked for again at once, and for ever.
    """
    asked = []

    def refuse(route):
        asked.append(route.request.url)
        route.fulfill(status=status, body='{"error": "no"}')

    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.clock.install()
    tab.page.route(re.compile(r"api/rows\?.*up-to-id=2600&lines=400"), refuse)
    tab.page.evaluate("document.getElementById('list').scrollTop = 1")
    tab.page.locator("#notice", has_text="no").wait_for()
    for _ in range(5):
        tab.lines()
    at_once = len(asked)
    tab.page.clock.run_for(3_000)
    for _ in range(5):
        tab.lines()

    assert (1, after) == (at_once, len(asked))


def test_scrolling_while_older_rows_do_not_come(shop, serve, open_tab):
    """
    However often somebody scrolls meanwhile, one question follows after two seconds.

    Each scroll added one, and these were asked again for as long as they failed.
    """
    asked = []

    def refuse(route):
        asked.append(route.request.url)
        route.fulfill(status=503, body='{"error": "no"}')

    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.clock.install()
    tab.page.route(re.compile(r"api/rows\?.*up-to-id=2600&lines=400"), refuse)
    for top in range(1, 6):
        tab.page.evaluate(f"document.getElementById('list').scrollTop = {top}")
        tab.lines()
        tab.lines()
        tab.page.clock.run_for(100)
    at_once = len(asked)
    for _ in range(24):
        tab.page.clock.run_for(100)
        tab.lines()

    assert at_once == 5
    assert len(asked) - at_once in {1, 2}  # time goes on by itself too


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("level=ERROR", "order 3000 has no price"),
        ("text=order 41 p", "order 41 paid"),
        ("grep=order 12{2}3", "order 1223 paid"),
        ("exception=KeyError", "order 3000 has no price"),
        ("logger=shop.cart&level=WARNING&until=now", "order 2900 paid"),
        ("exclude=shop.orders", "order 2990 paid"),
        ("where=customer=c-3", "order 2999 paid"),
        ("without=where=customer=c-3&without=exception=KeyError", "order 2998 paid"),
        ("thread=MainThread", "order 3000 has no price"),
        ("run=0&since=-1h", "order 3000 has no price"),
        ("up-to-id=5", "order 5 paid"),
    ],
)
def test_each_filter(shop, serve, open_tab, query, expected):
    """Each filter of the command line works from the address, and the bars and the list agree about how many match."""
    address = serve(shop)
    tab = open_tab(address)
    tab.wait_for_line("order 3000")
    tab.page.goto(f"{address.partition('?')[0]}?{query}")
    tab.wait_for_line(expected)

    assert tab.lines()[-1].startswith(expected)


def test_a_link_to_a_row(shop, serve, open_tab):
    """A link to a row opens it, selected in the middle of what was logged around it."""
    address = serve(shop)
    tab = open_tab(f"{address}&row=1500")
    tab.page.locator("#side .message", has_text="order 1500 paid").wait_for()

    assert "order 1500 paid" in tab.lines()
    assert "order 1500 paid" == tab.page.locator("#rows .row[aria-selected=true] .m").text_content()
    assert "order 1505 paid" in tab.page.locator(".near").text_content()


@pytest.mark.parametrize(("width", "height"), [(640, 280), (480, 240), (350, 225), (320, 170)])
def test_a_low_window(shop, serve, open_tab, width, height):
    """
    In a low window, such as one at 400 %, a tap opens a row, and a swipe over the bars leads back up.

    Head, filters and bars took all of 225 pixels, nothing could be scrolled, and no row was to be seen.
    """
    tab = open_tab(serve(shop), width=width, height=height, has_touch=True, is_mobile=True)
    tab.page.locator("#rows .row", has_text="order 3000").tap()
    tab.page.locator("#side .message").wait_for()
    tab.wait_until("document.querySelector('#side .message').getBoundingClientRect().bottom <= innerHeight")
    before = tab.page.evaluate("scrollY")
    bars = tab.page.locator("#time").bounding_box()
    finger = tab.page.context.new_cdp_session(tab.page)
    begin = round(bars["y"] + bars["height"]) - 9
    for y in range(begin, height, 5):
        touch = {"type": "touchMove" if y > begin else "touchStart", "touchPoints": [{"x": width / 2, "y": y}]}
        finger.send("Input.dispatchTouchEvent", touch)

    tab.wait_until(f"scrollY < {before}")


def test_forced_colors(shop, serve, open_tab):
    """With the few colours that a person with low vision has chosen, a button that is pressed looks so."""
    tab = open_tab(serve(shop), forced_colors="active")
    tab.wait_for_line("order 3000")
    color = "(one) => getComputedStyle(one).backgroundColor"
    pressed, other = (tab.page.locator(name).evaluate(color) for name in ("#follow", "#regex"))
    ranges = {tab.page.locator(f"#ranges [data-since='{since}']").evaluate(color) for since in ("-5min", "-1h")}

    assert pressed != other
    assert (pressed, {other}) == (tab.page.locator("#ranges .on").evaluate(color), ranges)


def test_a_traceback(shop, serve, open_tab):
    """The error's traceback is shown, and can be copied as text, as JSON and as a command line."""
    tab = open_tab(serve(shop))
    tab.page.locator("#rows .row", has_text="order 3000").click()
    tab.page.get_by_text("KeyError: 'price'").wait_for()

    copied = {}
    for what in ("text", "JSON", "command"):
        tab.page.get_by_role("button", name=f"Copy {what}").click()
        tab.page.get_by_text(f"{what} copied").first.wait_for()
        copied[what] = tab.page.evaluate("navigator.clipboard.readText()")

    assert "Traceback (most recent call last)" in copied["text"]
    assert '"levelno": 40' in copied["JSON"]
    assert "sqlite-log show shop.db --after-id=2999 --up-to-id=3000" == copied["command"]


def test_gaps_are_drawn(shop, serve, open_tab):
    """What was dropped stands in the list at its place, in the panel, in the strip and over the bars."""
    with sqlite3.connect(shop) as connection:
        connection.execute(
            "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
            "SELECT 2990, created_us, created_us + 1500000, 1, 'queue_full', 'shop.cart', 20, 4321 "
            "FROM records WHERE id = 2990"
        )
    connection.close()
    tab = open_tab(serve(shop))
    tab.wait_for_line("4,321 records dropped (queue_full)")

    lines = tab.lines()
    place = next(index for index, line in enumerate(lines) if "4,321" in line)
    assert ("order 2990 paid", "order 2991 paid") == (lines[place - 1], lines[place + 1])
    tab.page.locator("#strip", has_text="4,321 dropped").wait_for()
    tab.wait_until("document.getElementById('histogram').ariaLabel.includes('4,321 drops')")
    tab.page.click("#show-gaps")
    tab.page.get_by_text("4,321 records are missing at 1 place.").wait_for()


def test_a_place_is_shown_however_long_it_takes(shop, serve, open_tab):
    """
    A gap is shown at its place, also when the answer takes longer than the page waits between two looks.

    Such a look found no rows and loaded the newest, so the list stayed at the end of the log.
    """
    with sqlite3.connect(shop) as connection:
        connection.execute(
            "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
            "VALUES (1000, 1, 2, 1, 'queue_full', 'shop.cart', 20, 4321)"
        )
    connection.close()
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")

    def late(route):
        tab.page.wait_for_timeout(1_000)
        route.continue_()

    tab.page.route(re.compile("up-to-id=1000"), late)
    tab.page.click("#show-gaps")
    tab.page.get_by_role("button", name="Behind row 1000").click()
    tab.wait_for_line("4,321 records dropped")
    tab.page.wait_for_timeout(1_000)

    assert "order 1001 paid" in tab.lines()


def test_who_logs_most(shop, serve, open_tab):
    """The loudest logger leads the panel, and a click on a bar shows its rows only."""
    tab = open_tab(serve(shop))
    tab.page.click("#show-top")
    tab.page.locator(".meter").first.wait_for()
    assert "shop.orders" in tab.page.locator(".meter").first.text_content()

    tab.page.locator(".meter", has_text="shop.cart").click()
    tab.wait_until("document.querySelector('.chip')?.textContent.includes('shop.cart')")
    tab.wait_for_line("order 2990")
    for by, kind in (("call site", "call site"), ("level", "level"), ("thread", "thread"), ("process", "process")):
        tab.page.goto(re.sub(r"\?.*", "", tab.page.url))
        tab.page.click("#show-top")
        tab.page.get_by_role("button", name=by, exact=True).click()
        tab.page.locator(".actions button[aria-pressed=true]", has_text=by).wait_for()
        tab.page.locator(".meter").first.click()
        tab.wait_until(f"document.querySelector('.chip b')?.textContent === '{kind}'")
        tab.wait_until("document.querySelectorAll('#rows .row').length > 0")


def test_top_values_of_an_attribute(shop, serve, open_tab):
    """The values of an attribute are grouped once its name is typed, and a click shows the rows of one value."""
    tab = open_tab(serve(shop))
    tab.page.click("#show-top")
    tab.page.get_by_label("Group by attribute").fill("customer")
    tab.page.keyboard.press("Enter")
    tab.page.locator(".meter", has_text="c-3").click()
    tab.page.locator(".chip", has_text="customer=c-3").wait_for()
    tab.wait_for_line("order 2999 paid")
    tab.page.locator("#strip", has_text="429 of 3,000 rows match").wait_for()


def test_zooming_into_time(shop, serve, open_tab):
    """Dragging over the bars narrows the list and the bars to that time; All shows everything again."""
    tab = open_tab(serve(shop))
    tab.wait_until("document.getElementById('histogram').ariaLabel.startsWith('3,000 records')")
    box = tab.page.locator("#histogram").bounding_box()
    tab.page.mouse.move(box["x"] + 1, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 20, steps=5)
    tab.page.mouse.up()
    tab.wait_until("location.search.includes('since=') && location.search.includes('until=')")
    tab.wait_until("!document.getElementById('histogram').ariaLabel.startsWith('3,000 records')")

    tab.page.get_by_role("button", name="All", exact=True).click()
    tab.wait_for_line("order 3000")
    assert "since" not in tab.page.url


def test_local_time_and_utc(shop, serve, open_tab):
    """Times are shown in local time, and in UTC at a click, which stands in the address."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000")
    tab.page.click("#zone")
    tab.wait_until("location.search.includes('tz=utc')")

    tab.page.locator("#rows .row", has_text="order 3000").click()
    tab.page.locator("#side td", has_text="UTC").wait_for()


def test_two_tabs(shop, serve, open_tab, write):
    """Two tabs of one browser follow one log, each with its own filters."""
    address = serve(shop)
    one = open_tab(address)
    other = open_tab(f"{address.partition('?')[0]}?level=WARNING", like=one)
    one.wait_for_line("order 3000")
    other.wait_for_line("order 3000")
    logger = write(shop)
    logger.info("quiet")
    logger.warning("loud")

    one.wait_for_line("quiet")
    other.wait_for_line("loud")
    assert "quiet" not in other.lines()


def open_the_second_log(tmp_path, write, serve, open_tab):
    """Open a folder of two logs, of which the first one is shown, and choose the second one."""
    for name in ("a", "b"):
        logger = write(tmp_path / f"{name}.db")
        logger.info("this is %s", name)
        assert logger.handlers[0].flush()
    tab = open_tab(serve(tmp_path))
    tab.wait_for_line("this is a")
    tab.page.select_option("#file", "b.db")
    tab.wait_for_line("this is b")
    return tab


def test_several_logs(tmp_path, write, serve, open_tab):
    """Of a folder of logs one is shown, and another is chosen at the top; the address names it."""
    tab = open_the_second_log(tmp_path, write, serve, open_tab)

    assert "file=b.db" in tab.page.url


def test_back_shows_the_log_of_before(tmp_path, write, serve, open_tab):
    """
    Back from another log shows the first one, and says so at the top and in the title, also if no link named it.

    The page showed the rows of the one and the name of the other, and commands named a file that was neither.
    """
    tab = open_the_second_log(tmp_path, write, serve, open_tab)
    tab.page.go_back()
    tab.wait_for_line("this is a")

    assert ("a.db", "a.db · sqlite-log") == (tab.page.input_value("#file"), tab.page.title())
    assert "file=a.db" in tab.page.url


def test_a_link_to_a_log_that_is_not_served(tmp_path, write, serve, open_tab):
    """A link to a log that is gone says so, and the log that there is can be chosen; it showed the rows of that one."""
    logger = write(tmp_path / "a.db")
    logger.info("this is a")
    assert logger.handlers[0].flush()
    tab = open_tab(f"{serve('--no-token', tmp_path)}?file=b.db&row=1")
    tab.page.locator("#notice", has_text="no log here is called 'b.db': choose from a.db. Trying again.").wait_for()
    assert ([], "") == (tab.lines(), tab.page.input_value("#file"))
    assert "file=b.db" in tab.page.url

    tab.page.select_option("#file", "a.db")
    tab.wait_for_line("this is a")
    tab.page.locator("#notice").wait_for(state="hidden")


def test_what_changed(tmp_path, serve, open_tab):
    """
    The panel tells what began, in order of time, and a click shows the rows that say so.

    The incident of the demo could be searched and counted, and nothing on the page named a first thing to look at.
    """
    incident.make(str(tmp_path / "shop.db"), 1_795_921_934.0)
    tab = open_tab(serve(tmp_path / "shop.db"))
    tab.page.click("#show-brief")
    tab.page.locator(".change").first.wait_for()
    changes = [re.sub(r"\s+", " ", text) for text in tab.page.locator(".change").all_text_contents()]

    assert "charging it in its transaction" in changes[0]
    samples = [re.sub(r"\d+", "N", text) for text in tab.page.locator(".change .sample").all_text_contents()]
    assert "order N reserved, charging it in its transaction" == samples[0]
    assert "shop.payments, 4 times as often" in changes[1]
    assert "no free connection" in changes[2]
    tab.page.locator(".change", has_text="shop.payments").click()
    tab.wait_until("document.querySelector('.chip b')?.textContent === 'pattern of row'")
    tab.wait_until(
        "[...document.querySelectorAll('#rows .m')].every((one) => one.textContent.startsWith('pay.example'))"
    )


def test_the_same_pattern(shop, serve, open_tab):
    """From a row, one button leads to all rows that say the same."""
    tab = open_tab(serve(shop))
    tab.wait_for_line("order 3000 has no price")
    tab.page.locator("#rows .row", has_text="order 3000 has no price").click()
    tab.page.get_by_role("button", name="Same pattern").click()
    tab.wait_until("document.querySelectorAll('#rows .row').length === 1")
