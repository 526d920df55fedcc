"""
Text, regular expressions and attributes as conditions in SQL.

SQLite searches for text by itself, in C. It knows no regular expressions, so it calls Python for each row, but only for
rows that contain the text which every match must contain, if we can find such a text.
"""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

# A condition, and its parameters. Where it has `log_call(column)`, a function of Python stands among these.
Term: TypeAlias = tuple[str, tuple[object, ...]]

_LIKE_SPECIAL: Final = re.compile(r"([%_\\])")
# LIKE ignores the case of ASCII letters only, and ends at a NUL.
_NOT_FOR_LIKE: Final = re.compile("[^\x01-\x7f]")
# SQLite searches a value for a text in one step, which nothing can interrupt.
_LONGEST: Final = 200


def joined(terms: Iterable[Term], by: str = " AND ") -> Term:
    """Make one term of several, which is true without any."""
    found = list(terms)
    return by.join(sql for sql, _ in found) or "1", tuple(one for _, parameters in found for one in parameters)


def ignores_case(text: str) -> bool:
    """Tell whether a search ignores case: it does if its text has no capital letter ("smart case")."""
    return text == text.lower()


def _contains(text: str, *, ignore_case: bool) -> Term:
    """Return the term that message or traceback contain `text`."""
    if ignore_case:
        like = "%" + _LIKE_SPECIAL.sub(r"\\\1", text) + "%"
        return r"(message LIKE ? ESCAPE '\' OR exc_text LIKE ? ESCAPE '\')", (like, like)
    return "(instr(message, ?) OR instr(exc_text, ?))", (text, text)


def text_terms(text: str) -> list[Term]:
    """Turn a search for plain text into terms of SQL."""
    ignore_case = ignores_case(text)
    if len(text) > _LONGEST or (ignore_case and _NOT_FOR_LIKE.search(text)):
        return [_searched(has_text, text.casefold() if ignore_case else text, ignore_case=ignore_case)]
    return [_contains(text, ignore_case=ignore_case)]


def expression_terms(expression: str) -> list[Term]:
    """Turn a search for a regular expression into terms of SQL; raise an error of `re` if it is none."""
    ignore_case = bool(smart(expression).flags & re.IGNORECASE)
    terms: list[Term] = []
    # SQLite skips the rows that have none of these texts, before it calls Python.
    literals = required_literals(expression, ignore_case=ignore_case)
    if literals:
        sql, parameters = joined((_contains(literal, ignore_case=ignore_case) for literal in literals), " OR ")
        terms.append((f"({sql})", parameters))
    terms.append(_searched(search, expression, ignore_case=ignore_case))
    return terms


def _searched(function: Callable[[str, bool, object], bool], wanted: str, *, ignore_case: bool) -> Term:
    call = partial(function, wanted, ignore_case)
    return "(log_call(message) OR exc_text IS NOT NULL AND log_call(exc_text))", (call, call)


@lru_cache(maxsize=64)
def compiled(expression: str, ignore_case: bool) -> re.Pattern[str]:  # noqa: FBT001 - a key of the cache
    """Compile an expression, and remember it."""
    return re.compile(expression, re.IGNORECASE if ignore_case else 0)


@lru_cache(maxsize=64)
def smart(expression: str) -> re.Pattern[str]:
    r"""Compile an expression in smart case, in which the letter of an escape, such as `\S`, is no capital letter."""
    return compiled(expression, ignores_case(re.sub(r"\\.", "", expression, flags=re.DOTALL)))


def search(expression: str, ignore_case: bool, text: object) -> bool:  # noqa: FBT001 - same
    """Tell whether an expression matches in a text."""
    return isinstance(text, str) and compiled(expression, ignore_case).search(text) is not None


def has_text(wanted: str, ignore_case: bool, text: object) -> bool:  # noqa: FBT001 - same
    """Tell whether a text contains another one, in a time that grows with both."""
    return isinstance(text, str) and wanted in (text.casefold() if ignore_case else text)


_SHORTEST_LITERAL: Final = 2
# In Unicode, these letters have a third form: the dotless i, the Kelvin sign, the long s. If Python ignores case, it
# takes all three for one letter, and LIKE does not.
_OTHER_CASES: Final = re.compile(f"[iksIKS]|{_NOT_FOR_LIKE.pattern}")
# One piece of an expression: a construct that we do not read, the sign between alternatives, or one that stands for
# several characters, or a character; and its repetitions.
_PIECE: Final = re.compile(
    r"(?P<unknown>[()]|\\[xuUN0-9])|(?P<or>\|)"
    r"|(?:\\[^\W_]|\[\^?\]?(?:\\.|[^\]\\])*\]|[.^$]|\\?(?P<literal>.))(?P<repeated>(?:[*+?]|\{[0-9,]*\})*)",
    re.DOTALL,
)


def required_literals(expression: str, *, ignore_case: bool) -> list[str]:
    r"""
    Return texts of which every match contains at least one, or an empty list if we cannot find them.

    We read plain expressions only: letters, escapes, classes, repetitions, and alternatives without groups.

    >>> required_literals(r"timed? out after \d+|refused", ignore_case=False)
    [' out after ', 'refused']
    """
    branches = [[""]]
    for piece in _PIECE.finditer(expression):
        if piece["unknown"]:
            return []
        if piece["or"]:
            branches.append([""])
            continue
        runs, literal, repeated = branches[-1], piece["literal"], piece["repeated"]
        if literal and not repeated.strip("+"):
            runs[-1] += literal
        if repeated or not literal:
            runs.append("")
    literals = [_longest(runs, ignore_case=ignore_case) for runs in branches]
    return literals if min(map(len, literals)) >= _SHORTEST_LITERAL else []


def _longest(runs: Iterable[str], *, ignore_case: bool) -> str:
    if ignore_case:
        runs = [part for run in runs for part in _OTHER_CASES.split(run)]
    return max(runs, key=len)[:_LONGEST]


def attribute_terms(key: str, value: str | float | None) -> list[Term]:
    """Turn the value of an attribute into terms of SQL. Numbers are compared as numbers, all else as text."""
    text = value if isinstance(value, str) else json.dumps(value)
    member = json.dumps(key, ensure_ascii=False)
    exact = "log_call(attributes)", (partial(has_attribute, key, text),)
    if "\\" in member:  # a path cannot contain it, because SQLite has no escape for quotes there
        return [("instr(attributes, ?)", (member,)), exact]
    path = f"$.{member}"
    found: list[Term] = [("json_extract(attributes, ?) = ?", (path, text))]
    if text in {"true", "false", "null"}:  # to `json_extract`, true is 1
        found.append(("json_type(attributes, ?) = ?", (path, text)))
    if (near := _as_float(text)) is not None:
        # SQLite rounds in another way, and makes a float of a long integer. So Python compares what is nearly equal. A
        # CASE, because both sides of an AND are evaluated here.
        bounds = sorted((near * (1 - 1e-9), near * (1 + 1e-9)))
        nearly = f"CASE WHEN json_extract(attributes, ?) BETWEEN ? AND ? THEN {exact[0]} END"
        found.append((nearly, (path, *bounds, *exact[1])))
    sql, parameters = joined(found, " OR ")
    # SQLite compares if the JSON has no escape.
    compared = rf"CASE WHEN instr(attributes, '\') THEN {exact[0]} WHEN json_valid(attributes) THEN {sql} END"
    return [
        (r"(instr(attributes, ?) OR instr(attributes, '\'))", (member,)),
        (compared, (*exact[1], *parameters)),
    ]


def _as_float(text: str) -> float | None:
    found = number(text)
    try:
        return None if found is None else float(found)
    except OverflowError:
        return -math.inf if text.strip().startswith("-") else math.inf


def has_attribute(key: str, text: str, attributes: object) -> bool:
    """Tell whether a JSON object has a member of this value."""
    extra = extra_of(attributes)
    return key in extra and equals(extra[key], text)


def extra_of(attributes: object) -> dict[str, Any]:
    """Read the column `attributes`; return an empty dict if it is not a JSON object."""
    if not isinstance(attributes, str):
        return {}
    # Python refuses integers of thousands of digits; to call `number` for each takes twice as long.
    for parse_int in (None, number):
        with contextlib.suppress(ValueError, RecursionError):
            extra = json.loads(attributes, parse_int=parse_int)
            return extra if isinstance(extra, dict) else {}
    return {}


def equals(value: object, text: str) -> bool:
    """Tell whether a value of JSON equals this text, or the number that the text stands for."""
    if isinstance(value, str):
        return value == text
    if isinstance(value, int | float) and not isinstance(value, bool) and value == number(text):
        return True
    return written(value) == text


def written(value: object, comma: str = ",", colon: str = ":") -> str:
    """Write a value of JSON. Python reads a stranger's value that is a little deeper than it writes."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(comma, colon))
    except RecursionError:
        return "[...]"


@lru_cache(maxsize=64)
def number(text: str) -> float | None:
    """Return a number, an integer exactly, or None if the text is not one."""
    for kind in (int, float) if "_" not in text else ():  # Python takes 1_000
        with contextlib.suppress(ValueError):
            return kind(text)
    return None
