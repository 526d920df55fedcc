"""
Text of rows: letters of all scripts, and quotes.
"""

from __future__ import annotations

import pytest

from sqlite_log_handler._cli.formats import json_safe
from sqlite_log_handler._logfile.printable import printable


def test_logfmt_quotes_what_must_be(run):
    """In `logfmt` a value with a blank is quoted, and attributes come last."""
    _, (line,) = run("--utc", "-o", "logfmt", "--where", "order=7")

    assert line.startswith(
        'time=2025-06-30T12:00:01.000000+00:00 level=INFO logger=shop.orders message="order 7 paid" pathname=/srv'
    )
    assert line.endswith(' thread_name=worker order=7 customer="c 17"')


def test_printable_keeps_letters():
    """Letters of all scripts stay as they are."""
    assert "größer, больше, 大きい, 🎉" == printable("größer, больше, 大きい, 🎉")


PERSIAN = "می\u200cخواهم"  # noqa: RUF001 - it is not meant to look like Latin


HINDI, FAMILY = "क\u094d\u200dष", "👩\u200d👧"


@pytest.mark.parametrize("text", [PERSIAN, HINDI, FAMILY])
def test_joiners_pass(text):
    """
    Persian, Hindi and emoji are written with characters of no width that join letters or keep them apart.

    They were once escaped as control characters are, so that the words could not be read. JSON has them as they are,
    too. What turns the direction of writing, or has no width for no such reason, is still escaped.
    """
    assert text == printable(text) == json_safe(text)
    assert (f"{text}\\x1b", rf"{text}\u001b") == (printable(f"{text}\x1b"), json_safe(f"{text}\x1b"))
    assert r"\u200b\u200e\u200f\u2060\u202e" == printable("\u200b\u200e\u200f\u2060\u202e")
