"""
The page on a bad day: files that change under it, hostile text, narrow and wide windows, and the end of the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import sqlite_log_handler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)><svg onload=alert(2)>",
    'javascript:alert(1) "onmouseover="alert(1)" \'><b>',
    "\u202egnp.exe\u202c and \u2066bidi\u2069",
    "\x00\x07\x1b[31mred\x1b[0m\x7f\x85",
    "\ud800 lone \udfff",
    "x" * 65_536,
    "line one\nline two\r\nline three\rline four",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
    "\u200b\u202e\ufeff",
    "\u6f22\u5b57 \u0627\u0644\u0639 \u05e2\u05d1\u05e8 \U0001f469\u200d\U0001f467 e\u0301",
]


def one_row(path: Path, write: Callable[..., Any], text: str) -> Any:
    """Make a log with one row, and return its logger."""
    logger = write(path)
    logger.info(text)
    assert logger.handlers[0].flush()
    return logger


def two_rows(path: Path, write: Callable[..., Any]) -> Path:
    """Make a log with two rows, whose program has ended, and return its path."""
    logger = one_row(path, write, "the first file")
    logger.info("its second row")
    logger.handlers[0].close()
    return path


def test_joiners_are_no_codes(tmp_path, write, serve, open_tab):
    """Text in Persian and emoji that are joined are shown as they were logged, as on a terminal; they had codes."""
    text = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f467"
    one_row(tmp_path / "joined.db", write, text)

    open_tab(serve(tmp_path / "joined.db")).wait_for_line(text)


def test_text_without_a_shape_has_codes(tmp_path, write, serve, open_tab):
    """
    No text hides in another: tags, fillers and rows of variation selectors are shown as codes, a single one is not.

    Text of tags has no width, so whoever copied a line to an agent copied orders that nobody had seen.
    """
    text = (
        "pay\U000e0069\U000e0067ment\u00ad\u034f\u3164\ufff9 ok\ufe00\U000e0101 \u2764\ufe0f \U0001f469\u200d\U0001f467"
    )
    one_row(tmp_path / "tags.db", write, text)

    shown = r"pay\U000e0069\U000e0067ment\u00ad\u034f\u3164\ufff9 ok\ufe00\U000e0101 "
    open_tab(serve(tmp_path / "tags.db")).wait_for_line(f"{shown}\u2764\ufe0f \U0001f469\u200d\U0001f467")


# What stands in tooltips, and what a screen reader says.
_TOLD = "[...document.querySelectorAll('*')].map((one) => `${one.title} ${one.ariaLabel}`).join()"


def test_a_log_full_of_hostile_text(tmp_path, write, serve, open_tab):
    """
    Nothing that stands in a log runs, loads, or hides in the page.

    The fixture fails the test for a dialog, a script error, and a request to anybody but the server.
    """
    path = tmp_path / "hostile.db"
    for text in HOSTILE:
        logger = write(path, text[:200])
        deep: dict[str, Any] = {}
        for _ in range(40):
            deep = {"<b>": deep}
        logger.error("%s", text, extra={"evil" + text[:50]: text[:500], "deep": deep})
        assert logger.handlers[0].flush()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO cursors VALUES (?, 1, 1)", [[HOSTILE[0]], [HOSTILE[3]]])
    tab = open_tab(serve(path))
    tab.wait_for_line("<script>alert(1)</script>")
    tab.page.locator("#strip", has_text="behind").wait_for()

    for number in range(1, len(HOSTILE) + 1):
        tab.page.goto(re.sub(r"\?.*", "", tab.page.url) + f"?row={number}")
        tab.page.locator("#side .message").wait_for()
        shown = tab.page.locator("body").text_content()
        shown += tab.page.evaluate(_TOLD)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", shown)
    tab.page.click("#show-top")
    tab.page.locator(".meter").first.wait_for()
    assert 0 == tab.page.evaluate("document.querySelectorAll('main script, main img, main svg, main b b').length")


def test_hostile_names(tmp_path, write, serve, open_tab):
    """Names of files, attributes and filters hide nothing either, where one of them is chosen and in an error."""
    hidden = re.compile("[\u202a-\u202e\u2066-\u2069\x00\x1b]")
    logger = write(tmp_path / "a\u202e.db")
    for name in ("plain", "evil\u2066"):
        logger.info("paid", extra={name: 1})
    assert logger.handlers[0].flush()
    tab = open_tab(f"{serve('--no-token', tmp_path)}?without=thr%E2%80%AEead=1")
    tab.page.locator(".chip", has_text=r"not thr\u202eead").wait_for()
    tab.page.goto(f"{tab.page.url.partition('?')[0]}?file=b.db")
    tab.page.locator("#notice", has_text=r"choose from a\u202e.db").wait_for()
    assert not hidden.search(tab.page.locator("body").text_content())

    tab.page.select_option("#file", label=r"a\u202e.db")
    tab.wait_for_line("paid")
    tab.page.click("#show-top")
    tab.page.get_by_role("button", name=r"evil\u2066").click()
    tab.page.locator(".meter", has_text="1").wait_for()
    shown = tab.page.locator("body").text_content() + tab.page.locator("#side input").input_value()
    offered = tab.page.evaluate("[...document.querySelectorAll('#keys-known option')].map((one) => one.value)")

    assert (None, ["plain"]) == (hidden.search(shown), offered)


def test_a_log_that_is_replaced(tmp_path, write, serve, open_tab):
    """A log that was moved away and made anew is shown by itself, with a sentence that says what happened."""
    path = tmp_path / "app.db"
    tab = open_tab(serve(two_rows(path, write)))
    tab.wait_for_line("its second row")
    path.rename(tmp_path / "app.db.1")
    for suffix in ("-wal", "-shm"):
        if os.path.exists(f"{path}{suffix}"):
            os.unlink(f"{path}{suffix}")

    one_row(path, write, "the second file")

    tab.wait_for_line("the second file")
    tab.page.locator("#notice", has_text="replaced").wait_for()
    assert ["the second file"] == tab.lines()


@pytest.mark.parametrize("rows", [2, 3])
def test_a_log_that_is_replaced_by_one_as_long(tmp_path, write, serve, open_tab, rows):
    """
    The page knows another file by its `log_id`, and not by its length.

    Somebody deleted the log and ran the program again. The new log had as many rows, and the page went on to show the
    old ones; it had more, and the page showed the last of them behind the old ones.
    """
    path = tmp_path / "app.db"
    tab = open_tab(serve(two_rows(path, write)))
    tab.wait_for_line("its second row")

    new = write(tmp_path / "new.db")
    expected = [f"the second file, row {number}" for number in range(rows)]
    for text in expected:
        new.info(text)
    new.handlers[0].close()
    (tmp_path / "new.db").replace(path)

    tab.wait_for_line(expected[-1])
    tab.page.locator("#notice", has_text="replaced").wait_for()
    assert expected == tab.lines()
    tab.page.locator(f"#histogram[aria-label^='{rows} records']").wait_for()


def test_a_log_that_is_missing_and_comes(tmp_path, write, serve, open_tab):
    """A log that is not there yet is named in a sentence, and shown as soon as it is there."""
    path = tmp_path / "app.db"
    tab = open_tab(serve(path))
    tab.page.locator("#notice.bad", has_text="does not exist").wait_for()

    one_row(path, write, "here I am")

    tab.wait_for_line("here I am")
    tab.page.locator("#notice.bad").wait_for(state="detached")


def test_a_log_that_is_damaged_and_mended(tmp_path, write, serve, open_tab):
    """While a log cannot be read, the page says why and keeps what it shows; then it goes on by itself."""
    path = tmp_path / "app.db"
    logger = one_row(path, write, "sound")
    logger.handlers[0].close()
    tab = open_tab(serve(path))
    tab.wait_for_line("sound")
    sound = path.read_bytes()

    path.write_bytes(b"\xff" * len(sound))
    tab.page.locator("#notice.bad", has_text="Trying again").wait_for()
    assert ["sound"] == tab.lines()

    path.write_bytes(sound)
    one_row(path, write, "mended")
    tab.wait_for_line("mended")
    tab.page.locator("#notice.bad").wait_for(state="detached")


def test_a_log_that_is_locked(tmp_path, write, serve, open_tab):
    """While another process keeps everybody out of the log, the page says so; then it goes on by itself."""
    path = tmp_path / "app.db"
    logger = one_row(path, write, "before")
    logger.handlers[0].close()
    tab = open_tab(serve(path))
    tab.wait_for_line("before")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        mode = None
        while mode != ("delete",):  # a WAL holds up no reader; SQLite does not wait for one that reads just now
            with contextlib.suppress(sqlite3.OperationalError):
                mode = other.execute("PRAGMA journal_mode = DELETE").fetchone()
        other.execute("BEGIN EXCLUSIVE")
        tab.page.locator("#notice.bad", has_text="another process keeps it locked").wait_for()
        assert ["before"] == tab.lines()

    one_row(path, write, "after")
    tab.wait_for_line("after")
    tab.page.locator("#notice.bad").wait_for(state="detached")


@pytest.mark.parametrize("said", ["<!doctype html><h1>Log in</h1>", '{"login": "https://sso.example.org"}', None])
def test_an_answer_that_is_none(tmp_path, write, serve, open_tab, said):
    """
    The page says so when an answer ends in the middle, or is that of a proxy that wants a login, and asks again.

    It said nothing and looked no more, so a program seemed to be silent.
    """
    logger = one_row(tmp_path / "app.db", write, "the first row")
    tab = open_tab(serve(tmp_path / "app.db"))
    tab.wait_for_line("the first row")
    if said is None:
        tab.page.evaluate("() => { window.whole = Response.prototype.text }")
        tab.page.evaluate("() => { Response.prototype.text = () => Promise.reject(new TypeError('cut')) }")
    else:
        tab.page.route("**/api/*", lambda route: route.fulfill(body=said, content_type="text/html"))
    logger.info("meanwhile")
    tab.page.locator("#notice", has_text="Trying again.").wait_for()
    tab.page.evaluate("() => { Response.prototype.text = window.whole ?? Response.prototype.text }")
    tab.page.unroute("**/api/*")

    tab.wait_for_line("meanwhile")
    tab.wait_until("document.getElementById('notice').hidden")


def test_an_error_that_is_not_ours(tmp_path, write, serve, open_tab):
    """An error of a proxy that answers JSON of its own is shown as it came; it was `[object Object]`."""
    one_row(tmp_path / "app.db", write, "the first row")
    tab = open_tab(serve(tmp_path / "app.db"))
    tab.wait_for_line("the first row")
    said = '{"error": {"message": "no upstream"}}'
    tab.page.route("**/api/*", lambda route: route.fulfill(status=502, body=said, content_type="application/json"))

    tab.page.locator("#notice", has_text=f"{said}. Trying again.").wait_for()


def test_the_names_of_the_logs_do_not_come(tmp_path, write, serve, open_tab):
    """The names of the logs are asked for again when that fails; the choice stayed empty, and filters had no chips."""
    one_row(tmp_path / "app.db", write, "the first row")
    tab = open_tab(serve(tmp_path / "app.db"))
    tab.wait_for_line("the first row")
    tab.page.route("**/api/files", lambda route: route.fulfill(status=503, body='{"error": "no"}'), times=1)
    tab.page.goto(re.sub(r"\?.*", "", tab.page.url) + "?thread=MainThread")
    tab.wait_for_line("the first row")

    assert ("app.db", 1) == (tab.page.locator("#file").input_value(), tab.page.locator(".chip").count())


def test_a_log_that_is_pruned(tmp_path, write, serve, open_tab):
    """A row that retention deletes while it is shown is a sentence in the panel; the list goes on."""
    path = tmp_path / "app.db"
    logger = write(path)
    for number in range(50):
        logger.info("row %d", number)
    assert logger.handlers[0].flush()
    tab = open_tab(serve(path))
    tab.wait_for_line("row 49")
    with sqlite3.connect(path, timeout=30) as connection:
        connection.execute("DELETE FROM records WHERE id < 50")
    connection.close()

    tab.page.locator("#rows .row", has_text="row 40").click()
    tab.page.get_by_text("retention deleted it").wait_for()
    logger.info("row 50")
    tab.wait_for_line("row 50")


@pytest.mark.parametrize("width", [320, 390, 720, 1024, 1600, 2560])
@pytest.mark.parametrize("dark", [False, True])
def test_widths(
    tmp_path,
    write,
    serve,
    open_tab,
    width,
    dark,
):
    """From a phone to a wall of screens nothing sticks out at the side, and a row can be opened and closed."""
    path = tmp_path / "app-with-a-long-name-of-a-file.db"
    one_row(path, write, "a message " * 40)
    tab = open_tab(serve(path), width=width, dark=dark)
    tab.wait_for_line("a message")
    tab.page.locator("#rows .row").first.click()
    tab.page.locator("#side .message").wait_for()

    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter((one) => one.offsetParent)"
        ".every((one) => one.getBoundingClientRect().right <= innerWidth + 1)"
    )
    tab.page.click("#close")
    tab.page.locator("#side").wait_for(state="hidden")


CONTRAST = """
() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [red, green, blue] = color.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  };
  const paint = (name) => {
    const probe = document.createElement("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const color = getComputedStyle(probe).color;
    probe.remove();
    return light(color);
  };
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const inks = ["ink", "soft", "debug", "info", "warning", "error", "critical"];
  const found = {};
  for (const paper of ["paper", "panel", "accent-paper"]) {
    for (const ink of [...inks, "accent"]) found[`${ink} on ${paper}`] = ratio(paint(ink), paint(paper));
  }
  found["on-accent on accent"] = ratio(paint("on-accent"), paint("accent"));
  return found;
}
"""


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(tmp_path, write, serve, open_tab, dark):
    """Each colour of text has the contrast of WCAG's level AA (4.5 to 1) on each paper it stands on."""
    path = tmp_path / "app.db"
    one_row(path, write, "text")
    tab = open_tab(serve(path), dark=dark)
    tab.wait_for_line("text")

    found = tab.page.evaluate(CONTRAST)

    assert {} == {pair: ratio for pair, ratio in found.items() if ratio < 4.5}


def test_everything_has_a_name(tmp_path, write, serve, open_tab):
    """A screen reader has a name for each control, and is told which row is selected."""
    path = tmp_path / "app.db"
    one_row(path, write, "text")
    tab = open_tab(serve(path))
    tab.wait_for_line("text")
    tab.page.keyboard.press("k")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#side .message").wait_for()

    nameless = tab.page.evaluate(
        "[...document.querySelectorAll('button, input, select, [role=listbox], aside, dialog')].filter((one) =>"
        " !(one.ariaLabel || one.getAttribute('aria-labelledby') || one.textContent.trim() || one.labels?.length))"
        ".map((one) => one.outerHTML)"
    )
    assert [] == nameless
    active = tab.page.get_attribute("#list", "aria-activedescendant")
    assert "true" == tab.page.get_attribute(f"#{active}", "aria-selected")


def test_the_token_is_asked_for(tmp_path, write, serve, open_tab):
    """Without the token that was printed, a browser is shown one sentence and nothing of the log."""
    path = tmp_path / "app.db"
    one_row(path, write, "secret")
    address = serve(path)
    tab = open_tab(address.partition("?")[0])

    assert "sqlite-log serve" in tab.page.text_content("body")
    assert "secret" not in tab.page.content()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_end(tmp_path, write, chromium, sent):
    """Ctrl-C ends the server while a tab asks it four times a second; the page says that nobody answers."""
    path = tmp_path / "app.db"
    one_row(path, write, "text")
    process = subprocess.Popen(
        [sys.executable, "-m", "sqlite_log_handler", "serve", str(path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))},
    )
    try:
        address = process.stdout.readline().split()[0]
        context = chromium.new_context()
        page = context.new_page()
        page.goto(address)
        page.locator("#rows .row").first.wait_for(state="attached")
        began = time.monotonic()
        process.send_signal(sent)
        process.communicate(timeout=60)
        lasted = time.monotonic() - began
        page.locator("#notice.bad", has_text="does not answer").wait_for()
        context.close()
    finally:
        process.kill()
        process.communicate()

    assert process.returncode in {0, -sent}
    assert lasted < 30  # a second on a quiet machine, which the benchmark measures
