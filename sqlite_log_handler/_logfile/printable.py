"""Text made safe for a terminal, which obeys control characters: a log holds what strangers wrote."""

from __future__ import annotations

from collections.abc import Callable

_NON_JOINER = "\u200c"  # both have no width
_JOINER = "\u200d"

_MOST_REMEMBERED = 4_096


def is_printable(text: str) -> bool:
    """Tell whether `text` is safe for one line of a terminal."""
    return text.isprintable() or without_joiners(text).isprintable()


def without_joiners(text: str) -> str:
    """Return `text` without printing characters of no width: the length of the result is the columns it takes."""
    return text.replace(_NON_JOINER, "").replace(_JOINER, "")


def printable(text: str) -> str:
    r"""
    Make `text` safe for one line of a terminal: characters that do not print are escaped, as Python escapes them.

    That covers newlines, the control characters (C0, DEL, C1), those that change the direction of writing, and lone
    surrogates. The zero width non-joiner and joiner (U+200C, U+200D) pass: without them Persian and Hindi are misspelt
    and emoji fall apart, and they neither move a cursor nor change the direction.

    >>> printable("user\x1b[2Jroot\n")
    'user\\x1b[2Jroot\\n'
    """
    return text if is_printable(text) else text.translate(_ESCAPES)


class Escapes(dict[int, str]):
    """A table for `str.translate`: each character that does not print, as `escape` writes it."""

    def __init__(self, escape: Callable[[str], str]) -> None:
        self._escape = escape

    def __missing__(self, number: int) -> str:
        character = chr(number)
        shown = character if is_printable(character) else self._escape(character)
        if len(self) < _MOST_REMEMBERED:
            self[number] = shown
        return shown


_ESCAPES = Escapes(lambda character: character.encode("unicode_escape").decode("ascii"))
