"""
Templates that tell nothing, and messages with their values masked.
"""

from __future__ import annotations

import signal

import pytest

from sqlite_log_handler._read.templates import masked, says_something


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("order %d", True),
        ("é%s", True),
        ("%s: %s", True),
        ("%-5.2f%% [%(name)s]", True),
        ("%s", False),
        ("%s %(name)-5s\t%d\n", False),
        ("", False),
        ("3/50", False),
        ("----", False),
    ],
)
def test_a_template_that_says_nothing(template, expected):
    """A template of conversions and blanks alone, or without a conversion and a letter, tells nothing."""
    assert expected == says_something(template)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer of CPU time on this system")
@pytest.mark.parametrize("template", ["%" + "(%" * 250_000, "%" + "0" * 500_000 + "!", "%(" * 250_000 + ")d"])
def test_a_template_that_takes_long(template):
    """A template takes as long as its length asks for: the first two once took hours, and Ctrl-C did not end them."""
    signal.signal(signal.SIGVTALRM, lambda *_: pytest.fail("five seconds of CPU time"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    try:
        says_something(template)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("took 12ms, 3.5 s, 40%", "took <n>ms, <n> s, <n>%"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id <id>"),
        ("at 0xDEADbeef of deadbeef01", "at <hex> of <hex>"),
        ("job abc123 by c-17", "job <id> by c-<n>"),
        ("plain words, decade", "plain words, decade"),
        ("", ""),
    ],
)
def test_masks(message, expected):
    """Numbers, hexadecimal numbers and identifiers are masked, words are not."""
    assert expected == masked(message)
