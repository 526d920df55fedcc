"""
Text and regular expressions, as conditions in SQL.

SQLite looks for text by itself, in C. A regular expression it does not know, so Python is asked, row by row; but only
about those rows that contain what every match of the expression must contain, where that can be told.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

# A condition, and its parameters.
Term: TypeAlias = tuple[str, tuple[object, ...]]

SEARCH: Final = "log_search"

_LIKE_SPECIAL: Final = re.compile(r"([%_\\])")
# SQLite takes 50,000 bytes for LIKE (https://sqlite.org/limits.html), and escaped, each character may be two.
_LIKE_LONGEST: Final = 10_000


def escape_like(text: str) -> str:
    """
    Escape what LIKE takes for a placeholder.
    """
    return _LIKE_SPECIAL.sub(r"\\\1", text)


def ignores_case(text: str) -> bool:
    """
    Tell whether a text to look for stands for both cases: when it has no capital letter ("smart case").
    """
    return text == text.lower()


def _contains(text: str, *, ignore_case: bool) -> Term:
    """
    Return the condition that message or traceback contain `text`. LIKE ignores the case of ASCII letters only.
    """
    if ignore_case:
        like = f"%{escape_like(text)}%"
        return r"(message LIKE ? ESCAPE '\' OR exc_text LIKE ? ESCAPE '\')", (like, like)
    return "(instr(message, ?) OR instr(exc_text, ?))", (text, text)


def text_terms(text: str) -> list[Term]:
    """
    Return the conditions that a text as it is comes to.
    """
    if ignores_case(text) and not (text.isascii() and len(text) <= _LIKE_LONGEST):
        return [_searched(re.escape(text), ignore_case=True)]
    return [_contains(text, ignore_case=ignores_case(text))]


def pattern_terms(pattern: str) -> list[Term]:
    """
    Return the conditions that a regular expression comes to.

    Raises:
        re.error: It is none.
    """
    ignore_case = ignores_case(re.sub(r"\\.", "", pattern, flags=re.DOTALL))
    compiled(pattern, ignore_case)
    terms: list[Term] = []
    # In C first: Python looks only at rows that contain the text which every match contains.
    literals = required_literals(pattern, ignore_case=ignore_case)
    if literals:
        parts = [_contains(literal, ignore_case=ignore_case) for literal in literals]
        sql = " OR ".join(sql for sql, _ in parts)
        terms.append((f"({sql})", tuple(parameter for _, parameters in parts for parameter in parameters)))
    terms.append(_searched(pattern, ignore_case=ignore_case))
    return terms


def _searched(pattern: str, *, ignore_case: bool) -> Term:
    both = (pattern, ignore_case)
    return f"({SEARCH}(?, ?, message) OR {SEARCH}(?, ?, exc_text))", (*both, *both)


@lru_cache(maxsize=64)
def compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:  # noqa: FBT001 - as SQL hands it over
    """
    Compile a pattern once.
    """
    return re.compile(pattern, re.IGNORECASE if ignore_case else 0)


def search(pattern: str, ignore_case: bool, text: object) -> bool:  # noqa: FBT001 - same
    """
    Tell whether a pattern is found in a text. This is the function `log_search` in SQL.
    """
    return isinstance(text, str) and compiled(pattern, bool(ignore_case)).search(text) is not None


_SHORTEST_LITERAL: Final = 2
# Letters that have a third form beside capital and small one in Unicode: a dotless i, a long s, the Kelvin sign. Python
# takes them for the same when it ignores case, LIKE does not.
_OTHER_CASES: Final = re.compile("[iksIKS]|[^\x00-\x7f]")
# One piece of a pattern: what is not understood, an escape, a class, any other character. And what repeats a piece.
_PIECE: Final = re.compile(
    r"(?P<unknown>[()]|\\[xuUN0-9])|(?P<escape>\\.)|(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<other>.)", re.DOTALL
)
_REPEAT: Final = re.compile(r"[*+?]|\{[^}]*\}")


def required_literals(pattern: str, *, ignore_case: bool) -> list[str]:
    r"""
    Return texts of which every match contains one, or an empty list where that cannot be told.

    Only what is plain is understood: letters, escapes, classes, repetitions and alternatives without groups.

    >>> required_literals(r"timed? out after \d+|refused", ignore_case=False)
    [' out after ', 'refused']
    """
    branches = [[""]]
    position = 0
    while (piece := _PIECE.match(pattern, position)) is not None:
        if piece["unknown"]:
            return []
        position = piece.end()
        runs = branches[-1]
        if piece[0] == "|":
            branches.append([""])
            continue
        literal = _literal_of(piece)
        once = True
        while (repeat := _REPEAT.match(pattern, position)) is not None:
            position = repeat.end()
            once = False
            if repeat[0] != "+":
                literal = ""
        runs[-1] += literal
        if not literal or not once:
            runs.append("")
    literals = [_longest(runs, ignore_case=ignore_case) for runs in branches]
    return literals if min(map(len, literals)) >= _SHORTEST_LITERAL else []


def _literal_of(piece: re.Match[str]) -> str:
    """
    Return the one character that a piece stands for, or nothing.
    """
    if piece["escape"]:
        character = piece["escape"][1]
        return "" if character.isalnum() else character
    other = piece["other"] or ""
    return "" if other in ".^$" else other


def _longest(runs: Iterable[str], *, ignore_case: bool) -> str:
    if ignore_case:
        runs = [part for run in runs for part in _OTHER_CASES.split(run)]
    return max(runs, key=len)[:_LIKE_LONGEST]
