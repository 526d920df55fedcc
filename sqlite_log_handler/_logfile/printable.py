"""
Text made safe for a terminal, which obeys control characters: a log holds what strangers wrote.
"""

from typing import Final

_NON_JOINER: Final = "\u200c"  # zero width, both
_JOINER: Final = "\u200d"

_PIECE: Final = 65_536


def is_printable(text: str) -> bool:
    """Tell whether `text` is safe for one line of a terminal."""
    return text.isprintable() or without_joiners(text).isprintable()


def without_joiners(text: str) -> str:
    """Return `text` without the characters that print and have no width: its length is the columns it takes."""
    return text.replace(_NON_JOINER, "").replace(_JOINER, "")


def printable(text: str) -> str:
    r"""
    Make `text` safe for one line of a terminal: what does not print is shown as Python would escape it.

    That covers newlines, the control characters (C0, DEL, C1), those that turn the direction of writing, and lone
    surrogates. The zero width non-joiner and joiner (U+200C, U+200D) pass: without them Persian and Hindi are misspelt
    and emoji fall apart, and they neither move a cursor nor turn the direction.

    >>> printable("user\x1b[2Jroot\n")
    'user\\x1b[2Jroot\\n'
    """
    if is_printable(text):
        return text
    # Piece by piece, because a text for each character takes many times as much memory as the text.
    return "".join("".join(map(_shown, text[at : at + _PIECE])) for at in range(0, len(text), _PIECE))


def _shown(character: str) -> str:
    return character if is_printable(character) else character.encode("unicode_escape").decode("ascii")
