"""
The parameters of a request, as filters of `LogReader`. They have the names of the long flags of `sqlite-log show`.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, cast

from sqlite_log_handler._read.filters import HIGHEST, LOWEST, FilterError, Filters, SharedSource, check, integer

# The filters by parameter: texts and numbers, which are given once, and lists.
_SAME_NAME: Final = ("since", "until", "level", "text", "task", "thread", "exception", "source")
_TEXTS: Final = {"grep": "pattern", **{name: name for name in _SAME_NAME}}
_NUMBERS: Final = {
    "pid": "process",
    "run": "run",
    "after-id": "after_id",
    "up-to-id": "up_to_id",
}
_LISTS: Final = ("logger", "exclude", "where", "without")
_WITHOUT: Final = sorted({*_TEXTS, "pid", "run", "pattern-of", "where"} - {"since", "until"})

# `int` also takes 1_000, blanks, and the digits of all scripts.
_NUMBER: Final = re.compile(r"-?[0-9]{1,100}")


class Query:
    """
    The parameters of one request. Each is read once; `finish` refuses those that nobody read, so a typo never widens a
    search.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    @property
    def has_expression(self) -> bool:
        """Whether the request has a regular expression, which may take long."""
        conditions = self._values.get("where", []) + self._values.get("without", [])
        return "grep" in self._values or any("~" in text or text.startswith("grep=") for text in conditions)

    def text(self, name: str) -> str | None:
        """Take a parameter that is given once at most."""
        values = self._values.pop(name, [])
        if len(values) > 1:
            raise FilterError(f"{name} is given {len(values)} times: give it once")
        return values[0] if values else None

    def number(self, name: str, *, least: int = LOWEST, most: int = HIGHEST) -> int | None:
        """Take a whole number."""
        text = self.text(name)
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            raise FilterError(f"{name}={text!r} is not a whole number")
        number = int(text)
        if not least <= number <= most:
            raise FilterError(f"{name}={number} is out of range: it must be from {least} to {most}")
        return number

    def _pattern(self, name: str) -> int | SharedSource | None:
        """Take the id of a row, or the pattern of one as an answer has it."""
        given = self._values.get(name, [""])[0]
        if not given.startswith("["):
            return self.number(name)
        self.text(name)
        try:
            logger, pathname, lineno, func, template = json.loads(given)
            check({"logger": [logger, pathname, func, template]})  # texts that SQLite takes
            return SharedSource(logger, pathname, integer(name, lineno), func, template)
        except (ValueError, RecursionError) as error:
            raise FilterError(f"{name}={given!r} is neither an id nor a pattern") from error

    def filters(self) -> Filters:
        """Take all filters."""
        found: dict[str, Any] = {filter_: self.text(name) for name, filter_ in _TEXTS.items()}
        found |= {filter_: self.number(name) for name, filter_ in _NUMBERS.items()}
        found["pattern_of"] = self._pattern("pattern-of")
        found |= {name: self._values.pop(name, None) for name in _LISTS}
        found["without"] = _without(found["without"])
        return cast("Filters", {name: value for name, value in found.items() if value is not None})

    def finish(self) -> None:
        """Refuse the parameters that nobody took."""
        if self._values:
            raise FilterError(f"there is no parameter {min(self._values)!r}")


def _without(texts: list[str] | None) -> dict[str, list[Any]] | None:
    """Read filters such as `thread=worker-1`, which must not match."""
    if not texts:
        return None
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise FilterError(f"without={text!r}: write FILTER=VALUE, such as thread=worker-1")
        if name not in _WITHOUT:
            raise FilterError(f"without={name!r}: choose from {', '.join(_WITHOUT)}; for loggers there is `exclude`")
        for filter_, read in Query([(name, value)]).filters().items():
            found.setdefault(filter_, []).append(value if name in _LISTS else read)
    return found
