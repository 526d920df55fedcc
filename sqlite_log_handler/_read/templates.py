"""Templates of messages: whether one tells messages apart, and a guess for messages without one."""

import re
from typing import Final

# A template may come from a stranger: nothing in it is looked at twice, so a key with a `%` in it is not one.
_CONVERSION: Final = re.compile(r"%(?:\([^)%]*+\))?[-#0 +]*+(?:\d++|\*)?(?:\.(?:\d++|\*))?[hlL]?[a-zA-Z%]")
_VALUE: Final = re.compile(
    r"""
    (?P<id>\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b)
    | (?P<hex>\b0[xX][0-9a-fA-F]+\b | \b(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{8,64}\b)
    | (?P<n>(?<![\w.])[-+]?\d+(?:[.,]\d+)*(?=[a-zA-Z%]{0,2}(?!\w)))
    | (?P<name>\b(?=[^\W\d]*\d)\w{2,128}\b)
    """,
    re.VERBOSE | re.ASCII,
)


def says_something(template: str) -> bool:
    """Tell whether a template has more than conversions and blanks: without, as in `%s`, it stands for any message."""
    rest, conversions = _CONVERSION.subn("", template)
    # Without a conversion, as in an event of structlog, digits and signs are a value: f"{done}/{all}".
    return bool(rest.strip()) if conversions else any(map(str.isalpha, rest))


def masked(message: str) -> str:
    """
    Replace each number, hexadecimal number and identifier by a mark.

    >>> masked("order 42 of u-7f3a2b91 took 3.5ms at 0x7ffe")
    'order <n> of u-<hex> took <n>ms at <hex>'
    """
    return _VALUE.sub(lambda value: "<id>" if value.lastgroup == "name" else f"<{value.lastgroup}>", message)
