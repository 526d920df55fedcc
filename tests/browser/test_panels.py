"""
The panels beside the list lead to a cause: from a change to its first row, from a row to its request.

The log is the incident of the demo.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import sqlite_log_handler
from sqlite_log_handler._cli import incident

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the log of the incident."""
    path = tmp_path / "shop.db"
    incident.make(str(path), 1_795_921_934.0)
    return path


def ids(log: Path, condition: str) -> list[int]:
    """Return the ids of the rows that meet a condition."""
    with sqlite3.connect(log) as connection:
        found = [id_ for (id_,) in connection.execute(f"SELECT id FROM logs WHERE {condition} ORDER BY id")]
    connection.close()
    return found


SELECTED = "document.querySelector('#rows .row[aria-selected=true]')"


def test_a_change_leads_to_its_first_row(log, serve, open_tab):
    """
    A click on a change shows the row with which it began, also if older runs had such rows.

    It showed the newest row, and the cause stands before the first one.
    """
    tab = open_tab(serve(log))
    tab.page.click("#show-brief")
    tab.page.locator(".change", has_text="shop.payments").click()
    slow = ids(log, "message LIKE 'pay.example answered after%'")
    began = min(set(slow) & set(ids(log, "process = (SELECT process FROM logs ORDER BY id DESC LIMIT 1)")))
    tab.wait_until(f"{SELECTED}?.id === 'line-{began}'")

    assert began > slow[0]
    assert "false" == tab.page.get_attribute("#follow", "aria-pressed")
    assert tab.page.locator("#side .change").first.is_visible()


def test_on_a_phone_a_change_uncovers_the_list(log, serve, open_tab):
    """On a phone the panel covers the list, so a click in it that leads to rows closes it."""
    tab = open_tab(serve(log), width=320)
    tab.page.click("#show-brief")
    tab.page.locator(".change", has_text="is not paid").first.click()
    tab.page.locator("#side").wait_for(state="hidden")
    tab.wait_until(f"{SELECTED}?.textContent.includes('is not paid')")
    assert tab.page.evaluate(
        "[...document.querySelectorAll('.chip button')].every((one) => one.getBoundingClientRect().right <= innerWidth)"
    )
    tab.page.click("#show-top")
    tab.page.locator(".meter").first.wait_for()
    assert tab.page.evaluate("document.getElementById('side-body').scrollWidth <= innerWidth")
    tab.page.locator(".meter").first.click()
    tab.page.locator("#side").wait_for(state="hidden")


def test_on_a_phone_a_gap_uncovers_the_list(log, serve, open_tab):
    """On a phone a click on the place of a gap shows the list there; it moved under the panel, where nobody saw it."""
    with sqlite3.connect(log) as connection:
        connection.execute(
            "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
            "SELECT id, created_us, created_us, process_id, 'queue_full', 'shop', 20, 7 FROM records WHERE id = 50"
        )
    connection.close()
    tab = open_tab(serve(log), width=390)
    tab.page.click("#show-gaps")
    tab.page.get_by_role("button", name="Show it behind row 50").click()
    tab.page.locator("#side").wait_for(state="hidden")
    tab.wait_for_line("7 records dropped")


def drop_behind_each(log: Path, rows: int) -> None:
    """Put a gap of ten records behind each of the first rows, as bursts a second apart leave them."""
    with sqlite3.connect(log) as connection:
        connection.execute("DELETE FROM drops")
        connection.execute(
            "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) SELECT id, "
            "created_us, created_us, process_id, 'capacity', 'shop', 20, 10 FROM records ORDER BY id LIMIT ?",
            (rows,),
        )
    connection.close()


@pytest.mark.parametrize(
    ("gaps", "filters", "text"),
    [
        (0, "", "Nothing is missing: no record was dropped."),
        (1, "&level=ERROR", "No gap: none of the records that you asked for is missing."),
    ],
)
def test_no_gap(log, serve, open_tab, gaps, filters, text):
    """With filters, an empty panel speaks of what they ask for alone; it said that no record was dropped at all."""
    drop_behind_each(log, gaps)
    tab = open_tab(serve(log) + filters)
    tab.page.click("#show-gaps")
    tab.page.locator("#side-body", has_text="missing").wait_for()

    assert text == tab.page.inner_text("#side-body")


@pytest.mark.parametrize(
    ("gaps", "first", "last"),
    [
        (200, "2,000 records are missing at 200 places.", None),
        (201, "2,010 records are missing at 201 places.", "and 1 older: sqlite-log gaps lists all"),
        (
            700,
            "Of the latest 500 gaps: 5,000 records are missing at 500 places.",
            "and 500 older: sqlite-log gaps lists all",
        ),
    ],
)
def test_more_gaps_than_are_listed(log, serve, open_tab, gaps, first, last):
    """The panel lists the latest 200 places, says how many older gaps there are, and which of them the sum counts."""
    drop_behind_each(log, gaps)
    tab = open_tab(serve(log))
    tab.page.click("#show-gaps")
    tab.page.locator("#side-body .item").first.wait_for()
    lines = tab.page.locator("#side-body > p").all_inner_texts()

    assert 200 == tab.page.locator("#side-body .item").count()
    assert [first, *filter(None, [last])] == lines


def test_a_question_of_a_panel_fails(log, serve, open_tab):
    """The panel says why, in place of what answered another question, and stayed under the new title."""
    tab = open_tab(serve(log))
    tab.page.click("#show-top")
    tab.page.locator("#side .meter").first.wait_for()
    tab.page.route("**/api/gaps*", lambda route: route.fulfill(status=503, body='{"error": "the log is damaged"}'))
    tab.page.click("#show-gaps")
    tab.page.locator("#side-body", has_text="damaged").wait_for()

    assert "the log is damaged" == tab.page.inner_text("#side-body")
    assert tab.page.locator("#notice").is_hidden()


def test_all_of_a_request(log, serve, open_tab):
    """With Shift, "only this" takes the place of the other filters: a pattern would hide the rest of the request."""
    (unpaid, *_) = ids(log, "message LIKE 'order % is not paid'")
    tab = open_tab(f"{serve(log)}&row={unpaid}&pattern-of={unpaid}&level=ERROR")
    only = tab.page.get_by_label(re.compile("Only attribute request_id="))
    only.click()
    tab.wait_until("document.querySelectorAll('.chip').length === 2")
    only.click(modifiers=["Shift"])
    tab.wait_until("document.querySelectorAll('.chip').length === 1")
    tab.wait_until("document.querySelectorAll('#rows .row').length > 1")

    assert "" == tab.page.input_value("#level")
    assert tab.page.locator(".chip", has_text="request_id=").is_visible()


def test_without_a_pattern(log, serve, open_tab):
    """
    Rows that say the same as one can be left out, and the chip says what they say.

    The dialog offered that filter, and the server refused it.
    """
    (unpaid, *_) = ids(log, "message LIKE 'order % is not paid'")
    tab = open_tab(f"{serve(log)}&level=ERROR&row={unpaid}")
    tab.page.get_by_role("button", name="Without it").click()
    chip = tab.page.locator(".chip.not", has_text=re.compile(rf"not pattern of row{unpaid}: order \d+ is not paid"))
    chip.wait_for()
    tab.wait_until("document.querySelectorAll('#rows .row').length > 0")
    tab.wait_until(
        "[...document.querySelectorAll('#rows .m')].every((one) => !one.textContent.includes('is not paid'))"
    )


def test_names_of_attributes_are_offered(log, serve, open_tab):
    """The names of attributes are buttons, the most frequent first, and are suggested where one is typed."""
    tab = open_tab(serve(log))
    tab.page.click("#show-top")
    tab.page.get_by_role("button", name="status", exact=True).click()
    tab.page.locator("button[aria-pressed=true]", has_text="status").wait_for()
    tab.page.locator(".meter", has_text="200").click()
    tab.page.locator(".chip", has_text="status=200").wait_for()

    offered = tab.page.evaluate("[...document.querySelectorAll('#keys-known option')].map((one) => one.value)")
    assert {"request_id", "status", "path"} <= set(offered)


@pytest.mark.parametrize("width", [320, 1280])
def test_levels_are_not_cut(log, serve, open_tab, width):
    """The names of levels around a row have the room that they take: WARNING read "WARNI…"."""
    (first, *_) = ids(log, "level = 'WARNING'")
    tab = open_tab(f"{serve(log)}&row={first}", width=width)
    tab.page.locator(".near .l", has_text="WARNING").first.wait_for(state="attached")

    assert tab.page.evaluate(
        "[...document.querySelectorAll('.near .l')].every((one) => one.scrollWidth <= one.clientWidth)"
    )


def test_the_day_is_shown(log, serve, open_tab):
    """The first row of a day bears its date, and the bars begin with one: a time alone may be of any day."""
    with sqlite3.connect(log) as connection:
        connection.execute(
            "UPDATE records SET created_us = created_us + 86400000000 WHERE id > (SELECT max(id) - 5 FROM records)"
        )
    connection.close()
    tab = open_tab(f"{serve(log)}&tz=utc")
    tab.wait_until("document.querySelectorAll('#rows .newday').length === 1")

    assert "2026-11-30" == tab.page.get_attribute("#rows .newday", "data-day")


@pytest.mark.parametrize("name", ["shop.db", "-shop.db"])
def test_the_command_of_a_row_shows_it(log, serve, open_tab, tmp_path, name):
    """
    The command line that is copied for an open row shows that row, whatever filters the page has.

    It had each filter as a flag, and the command has none for "Without it"; and "-shop.db" was a flag.
    """
    log = log.rename(tmp_path / name)
    (unpaid, *_) = ids(log, "message LIKE 'order % is not paid'")
    tab = open_tab(f"{serve(log)}&row={unpaid}&tz=utc&without=thread%3Dnobody&logger=elsewhere")
    tab.page.get_by_role("button", name="Copy command").click()
    tab.page.get_by_text("command copied").first.wait_for()
    program, *words = shlex.split(tab.page.evaluate("navigator.clipboard.readText()"))
    run = subprocess.run(
        [sys.executable, "-m", "sqlite_log_handler", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))},
    )

    assert ("sqlite-log", 0, "", 1) == (program, run.returncode, run.stderr, run.stdout.count("is not paid"))


def test_an_attribute_with_an_operator_in_its_name(tmp_path, serve, open_tab, write):
    """What no condition can name has no button: `a>b` and 1 would be the rows whose `a` is greater than `b=1`."""
    logger = write(tmp_path / "shop.db")
    logger.info("paid", extra={"a>b": 1, "price": 2})
    logger.handlers[0].flush()
    tab = open_tab(serve(tmp_path / "shop.db"))
    tab.page.locator("#rows .row", has_text="paid").click()
    tab.page.locator("#side .facts tr", has_text="price").get_by_role("button").first.wait_for()

    assert not tab.page.locator("#side .facts tr", has_text="a>b").get_by_role("button").count()


@pytest.mark.parametrize(
    ("logger", "path", "source"),
    [
        ("shop", "/srv/my shop/order app.py", "/srv/my shop/order app.py:3"),
        ("my shop:5", "/srv/app.py", "app.py:3"),
        ("shop", "C:\\Jo Smith\\app.py", "C:\\Jo Smith\\app.py:3"),
        ("shop", "<stdin>", "<stdin>:3"),
    ],
)
def test_a_call_site_with_blanks(tmp_path, serve, open_tab, write, logger, path, source):
    """A click on a call site shows its rows, also if the path of the file or the logger has a blank in it."""
    made = write(tmp_path / "shop.db", logger)
    made.handle(logging.LogRecord(logger, 20, path, 3, "here", (), None, "work"))
    tab = open_tab(serve(tmp_path / "shop.db"))
    tab.page.click("#show-top")
    tab.page.get_by_role("button", name="call site", exact=True).click()
    tab.page.locator(".meter", has_text="work").click()
    tab.page.locator(".chip", has_text=source).wait_for()

    tab.wait_for_line("here")


def test_a_call_site_without_a_path(tmp_path, serve, open_tab, write):
    """
    A record that was received has no path, and an attribute may have no name: neither is offered as a filter.

    The filter was refused, so the list was empty.
    """
    attributes = {"name": "device", "levelno": 40, "levelname": "ERROR", "msg": "received", "": "nameless"}
    write(tmp_path / "shop.db").handle(logging.makeLogRecord(attributes))
    tab = open_tab(serve(tmp_path / "shop.db"))
    tab.page.locator(".row", has_text="received").click()
    tab.page.locator("#side .facts", has_text="call site").wait_for()
    offered = [one.get_attribute("aria-label") for one in tab.page.locator("#side .only").all()]
    assert "Only logger device" in offered
    assert not [label for label in offered if "call site" in label or "attribute" in label]

    tab.page.click("#show-top")
    tab.page.get_by_role("button", name="call site", exact=True).click()
    assert tab.page.locator(".meter", has_text=":0").is_disabled()


@pytest.mark.parametrize(
    ("text", "since"),
    [("2026-11-29 03:00", "@1795921200"), ("2026-11-29 03:00:00,1239996", "@1795921200.123999"), ("-1h", "-1h")],
)
def test_a_time_is_one_of_the_zone_that_is_shown(log, serve, open_tab, monkeypatch, text, since):
    """
    A time that somebody types is one of those that the list shows, in whatever zone the server is.

    The server took it for its own.
    """
    monkeypatch.setenv("TZ", "America/New_York")
    tab = open_tab(f"{serve(log)}&tz=utc")
    tab.page.click("#add")
    tab.page.select_option("#adder-name", "since")
    tab.page.fill("#adder-value", text)
    tab.page.click("#adder button[value=ok]")
    tab.wait_until(f"new URLSearchParams(location.search).get('since') === '{since}'")
