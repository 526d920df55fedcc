"""
Stand-ins for names of `typing`, for the modules that a program loads to log. A type checker sees the real ones.

A running program does not load `typing`, because its import takes a third as long as that of all these modules.
`NamedTuple` is our own then, and the other names stand in annotations only, which nothing evaluates.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Any  # noqa: PLC0414 - all of these are for others to import
    from typing import Final as Final  # noqa: PLC0414
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414
    from typing import TextIO as TextIO  # noqa: PLC0414
    from typing import TypeVar

    T = TypeVar("T")
else:
    Any = Final = TextIO = T = object

    class _Fields(type):
        """Makes a named tuple of a class that annotates its fields, of which the last may have defaults."""

        def __new__(cls, name, _bases, body):  # noqa: ANN001, ANN204 - type checkers see the other NamedTuple
            fields = body["__annotations__"]
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults)  # noqa: PYI024 - this makes what the rule asks for
            made.__new__.__annotations__ = fields
            for key, value in body.items():
                setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Fields, "NamedTuple", (), {})
