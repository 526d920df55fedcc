"""
Templates that tell nothing, and messages with their values masked.
"""

from __future__ import annotations

import pytest

from sqlite_log_handler._read.templates import masked, says_something


@pytest.mark.parametrize(
    ("template", "expected"),
    [("order %d", True), ("%s", False), ("%-5.2f%% [%(name)s]", False), ("", False), ("é%s", True), ("100%", False)],
)
def test_a_template_that_says_nothing(template, expected):
    """A template of conversions alone tells no message from another."""
    assert expected == says_something(template)


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
