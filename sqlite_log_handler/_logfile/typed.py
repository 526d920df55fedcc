"""
Names of `typing` for the modules that a program loads to log: a type checker sees those of `typing`.

A program that runs loads no `typing`, because that takes a third as long to import as all of them together. Then
`NamedTuple` is our own, and the others stand in annotations only, which nobody evaluates.
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
        """Makes a tuple of a class that annotates the names in it, the last ones with a default perhaps."""

        def __new__(cls, name, _bases, body):  # noqa: ANN001, ANN204 - type checkers see the other NamedTuple
            fields = body["__annotations__"]
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults)  # noqa: PYI024 - this makes what it asks for
            made.__new__.__annotations__ = fields
            for key, value in body.items():
                setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Fields, "NamedTuple", (), {})
