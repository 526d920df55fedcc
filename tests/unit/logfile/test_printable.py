"""
Text from a log, made harmless for a terminal.
"""

from __future__ import annotations

import pytest

from sqlite_log_handler._logfile.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order 42 paid 日本 😀", "order 42 paid 日本 😀"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("bell\a", r"bell\x07"),
        ("c1 \x9b31m", r"c1 \x9b31m"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    """What a terminal would obey is shown as an escape; everything that is only text stays as it is."""
    assert shown == printable(text)
