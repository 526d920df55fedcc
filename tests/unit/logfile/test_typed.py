"""`_logfile.typed`: a `NamedTuple` that does what that of `typing` does."""

from __future__ import annotations

import inspect
import pickle
import typing

import pytest

from sqlite_log_handler._logfile.typed import NamedTuple


class Ours(NamedTuple):
    """A drink."""

    name: str
    price: float = 1.5

    @property
    def label(self) -> str:
        """Its name with its price."""
        return f"{self.name}: {self.price}"


class Theirs(typing.NamedTuple):
    """A drink."""

    name: str
    price: float = 1.5


def test_it_is_the_tuple_that_typing_makes():
    """Fields, defaults, names, docstring, types, bases and copies are those that `typing.NamedTuple` gives."""

    def seen(kind: type[Ours | Theirs]) -> list[object]:
        tea = kind("tea")
        made = [tuple(tea), tea._asdict(), tea._replace(price=2.0)]
        names = [kind._fields, kind._field_defaults, kind.__doc__, kind.__module__, kind.__mro__[1:]]
        return [*names, typing.get_type_hints(kind), made]

    assert seen(Theirs) == seen(Ours)
    assert "Ours(name='tea', price=1.5)" == repr(Ours("tea"))
    assert "(name: 'str', price: 'float' = 1.5)" == str(inspect.signature(Ours))


def test_it_takes_properties_and_pickles():
    """A class may have more than fields, and an instance goes through `multiprocessing` as that of any class."""
    tea = Ours("tea")

    assert "tea: 1.5" == tea.label
    assert (tea, Ours) == (copy := pickle.loads(pickle.dumps(tea)), type(copy))


def test_it_has_no_other_attributes():
    """As with `typing.NamedTuple`, an instance has no `__dict__`, and its fields stay as they are."""
    tea = Ours("tea")

    with pytest.raises(AttributeError):
        tea.price = 2.0  # type: ignore[misc]
    assert not hasattr(tea, "__dict__")
