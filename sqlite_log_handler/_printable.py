"""
Text made safe for a terminal, which obeys control characters: a log holds what strangers wrote.
"""


def printable(text: str) -> str:
    r"""
    Make `text` safe for one line of a terminal: what does not print is shown as Python would escape it.

    That covers newlines, the control characters (C0, DEL, C1), those that turn the direction of writing, and lone
    surrogates.

    >>> printable("user\x1b[2Jroot\n")
    'user\\x1b[2Jroot\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
