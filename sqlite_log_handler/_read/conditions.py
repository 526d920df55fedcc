"""
Conditions on attributes, such as `status>=500`.

SQLite skips the rows whose JSON does not contain the key. Python tests those of the others that SQLite cannot: it knows
neither regular expressions nor integers beyond 64 bits.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from operator import ge, gt, le, lt
from typing import Any, Final, NamedTuple

from sqlite_log_handler._read.search import Term, attribute_terms, equals, extra_of, number, smart, written

_CONDITION: Final = re.compile(r"(!?)([^=!<>~]+)(?:(!=|<=|>=|==|=|<|>|~)(.*))?", re.DOTALL)
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
# Floats are exact for integers below this.
_EXACT: Final = 2**53

HELP: Final = "write KEY=VALUE, KEY!=VALUE, KEY>=NUMBER (or <, <=, >), KEY~REGEX, KEY if it is there, or !KEY if not"


class Condition(NamedTuple):
    """A condition on one attribute. An empty operator stands for "is there", and `!` for "is not there"."""

    key: str
    operator: str = ""
    value: str = ""


@lru_cache(maxsize=64)
def parse_condition(text: str) -> Condition:
    """
    Read a condition.

    >>> parse_condition("status!=200")
    Condition(key='status', operator='!=', value='200')

    Raises:
        ValueError: It is not a condition, or its regular expression is wrong; the text says what to write.
    """
    found = _CONDITION.fullmatch(text)
    key = found[2].strip() if found is not None else ""
    if found is None or not key or (found[1] and found[3]):
        raise ValueError(f"{text!r} is not a condition: {HELP}")
    value = found[4] or ""
    if found[2].endswith(" "):  # as in `plan = pro`
        value = value.lstrip()
    if found[3] == "~":
        try:
            smart(value)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{text!r}: {value!r} is not a regular expression: {error}") from error
    return Condition(key, found[1] or found[3] or "", value)


def condition_terms(text: str) -> list[Term]:
    """Turn a condition into terms of SQL."""
    condition = parse_condition(text)
    if condition.operator == "!":
        return [("NOT coalesce(log_call(attributes), 0)", (partial(holds, condition.key),))]
    if condition.operator == "=" and "." not in condition.key:
        return attribute_terms(condition.key, condition.value)
    return [may_have(condition.key), _compared(condition, text)]


def may_have(key: str) -> Term:
    """Return the term that the JSON may have a key, which is tested without reading it."""
    # A key, or the end of one whose dots may be those of objects. JSON with an escape may spell it in another way.
    _, dot, last = key.rpartition(".")
    return r"(instr(attributes, ?) OR instr(attributes, '\'))", (json.dumps(last, ensure_ascii=False)[len(dot) :],)


def _compared(condition: Condition, text: str) -> Term:
    """
    Return the term that tests the rows whose JSON contains the key.

    SQLite compares numbers in a third of the time of Python, and does so where both agree: for a plain key, JSON
    without an escape, and a limit for which floats are exact.
    """
    member, limit = json.dumps(condition.key, ensure_ascii=False), number(condition.value)
    if condition.operator not in _COMPARISONS or limit is None or not abs(limit) < _EXACT or set(".\\") & set(member):
        return "log_call(attributes)", (partial(holds, text),)
    sql = rf"""
    CASE WHEN instr(attributes, '\') OR NOT json_valid(attributes) THEN log_call(attributes)
        WHEN json_type(attributes, ?) IN ('integer', 'real') THEN json_extract(attributes, ?) {condition.operator} ?
    END
    """
    return sql, (partial(holds, text), f"$.{member}", f"$.{member}", limit)


def holds(text: str, attributes: object) -> bool:
    """Tell whether a JSON object fulfils a condition."""
    key, sign, expected = parse_condition(text)
    values = values_of(extra_of(attributes), key)
    if sign == "!=":
        return bool(values) and not any(equals(value, expected) for value in values)
    return any(_is(sign, value, expected) for value in values)


def _is(sign: str, value: object, expected: str) -> bool:
    if not sign:
        return True
    if sign == "==":  # Python's, or the value begins with the second
        return equals(value, expected) or equals(value, f"={expected}")
    if sign == "=":
        return equals(value, expected)
    if sign == "~":
        found = value if isinstance(value, str) else written(value, ", ", ": ")
        return smart(expected).search(found) is not None
    return _compares(value, sign, expected)


def attribute(key: str, attributes: object) -> str | None:
    """Return the value of a key as a text, which a condition finds again."""
    for value in values_of(extra_of(attributes), key):
        if value is not None:
            text = value if isinstance(value, str) else written(value)
            return text.encode(errors="replace").decode()  # SQLite stores no half of a surrogate pair
    return None


def values_of(members: object, key: str) -> list[Any]:
    """Return the values of a key: `a.b` is a key, and the key `b` in the object `a`."""
    found, left = [], [(members, 0)] if isinstance(members, dict) else []
    while left:  # not by recursion, as a stranger's objects may be as deep as Python reads
        inside, begin = left.pop()
        if (rest := key[begin:]) in inside:
            found.append(inside[rest])
        if "." in rest:  # most keys have none, and rows have many members
            # Not at each dot of the key, of which a stranger's may have thousands.
            left += [
                (value, begin + len(name) + 1)
                for name, value in reversed(inside.items())
                if isinstance(value, dict) and key.startswith(f"{name}.", begin)
            ]
    return found


def _compares(value: object, sign: str, expected: str) -> bool:
    """Compare numbers as numbers and texts as texts; a number is neither above nor below a text."""
    limit = number(expected)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return limit is not None and _COMPARISONS[sign](value, limit)
    return limit is None and isinstance(value, str) and _COMPARISONS[sign](value, expected)
