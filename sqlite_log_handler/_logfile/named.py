"""
`NamedTuple` for the modules that a program loads to log: it is that of `typing` for a type checker, and loads no
`typing` when the program runs, because that takes a third as long to import as all of them together.

For the same reason they import the other names of `typing` for type checkers alone.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414 - for others to import
else:

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
