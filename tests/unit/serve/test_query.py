"""
Parameters of a request as filters.
"""

from __future__ import annotations

import pytest

from sqlite_log_handler._read.filters import FilterError
from sqlite_log_handler.serve.query import Query


def test_parameters_are_the_long_flags():
    """Parameters are named as the long flags of `sqlite-log show`, and repeat where those do."""
    query = Query(
        [
            ("level", "WARNING"),
            ("since", "-1h"),
            ("logger", "shop"),
            ("logger", "http"),
            ("exclude", "shop.cart"),
            ("pid", "12"),
            ("run", "-1"),
            ("grep", "pa+id"),
            ("thread", "worker"),
            ("after-id", "7"),
        ]
    )

    filters = query.filters()
    query.finish()

    assert {
        "level": "WARNING",
        "since": "-1h",
        "logger": ["shop", "http"],
        "exclude": ["shop.cart"],
        "process": 12,
        "run": -1,
        "pattern": "pa+id",
        "thread": "worker",
        "after_id": 7,
    } == filters


def test_what_must_not_hold():
    """`without=FILTER=VALUE` repeats; a value may have an equals sign in it."""
    query = Query(
        [
            ("without", "thread=a"),
            ("without", "thread=b"),
            ("without", "exception=E=F"),
            ("without", "pid=3"),
            ("without", "where=k=v"),
        ]
    )

    assert {"thread": ["a", "b"], "exception": ["E=F"], "process": [3], "where": ["k=v"]} == query.filters()["without"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("level", "INFO"), ("level", "ERROR")], "level is given 2 times"),
        *(([("pid", text)], f"pid={text!r} is not a whole number") for text in ("x", "1_0", " 1", "1e3", "\uff11", "")),
        ([("pattern-of", "x")], "pattern-of='x' is not a whole number"),
        *(
            ([(name, f"{before}{value}")], "is neither an id nor a pattern")
            for name, before in (("pattern-of", ""), ("without", "pattern-of="))
            for value in (
                *("[", "[1]", "[" * 100_000, '["a", "b", true, "c", "d"]', '["a", "b", 1, [], {}]'),
                *(f'["a", "b", {2**63}, "c", "d"]', r'["a", "b", 1, "c", "\ud800"]'),  # no row has one
            )
        ),
        ([("without", "thread")], "write FILTER=VALUE"),
        *(
            ([("without", f"{name}=1")], f"without='{name}': choose from exception, grep, .*; for loggers .* `exclude`")
            for name in ("nothing", "logger", "exclude", "without", "since", "until")
        ),
        ([("levle", "INFO")], "there is no parameter 'levle'"),
    ],
)
def test_what_cannot_be_understood_is_refused(pairs, message):
    """A parameter that is unknown, wrong or given twice is refused: ignoring it would widen the search."""
    query = Query(pairs)

    def read():
        query.filters()
        query.finish()

    with pytest.raises(FilterError, match=message):
        read()


def test_numbers_have_bounds():
    """A number outside of its bounds is refused, with the bounds."""
    with pytest.raises(FilterError, match="it must be from 1 to 10"):
        Query([("lines", "11")]).number("lines", least=1, most=10)
    with pytest.raises(FilterError, match="it must be from 0 to 9223372036854775807"):  # it said None
        Query([("counted-id", "-1")]).number("counted-id", least=0)
