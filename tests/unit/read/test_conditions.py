"""
Conditions on attributes: how they are read, and which rows they choose.
"""

from __future__ import annotations

import json
import logging

import pytest
from logged import record

from sqlite_log_handler import FilterError, LogReader, SQLiteHandler
from sqlite_log_handler._read.conditions import Condition, attribute, holds, parse_condition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status=500", ("status", "=", "500")),
        ("status!=200", ("status", "!=", "200")),
        ("status>=500", ("status", ">=", "500")),
        ("status <= 500", ("status", "<=", "500")),
        ("status<5", ("status", "<", "5")),
        ("status>5", ("status", ">", "5")),
        ("path~^/api/.*=", ("path", "~", "^/api/.*=")),
        ("query=a=b", ("query", "=", "a=b")),
        ("empty=", ("empty", "=", "")),
        ("user.plan", ("user.plan", "", "")),
        ("!user", ("user", "!", "")),
    ],
)
def test_a_condition_is_read(text, expected):
    """
    The key ends at the first operator.

    `status!=200` was once taken for a key named `status!`, which no row has.
    """
    assert Condition(*expected) == parse_condition(text)


@pytest.mark.parametrize("text", ["", "=5", "!", "!status=5", "~x", "path~(", "path~a{99999999999}", "path~(?a)(?u)"])
def test_what_is_not_a_condition(text):
    """Anything else is refused, and the error says what can be written, or what is wrong with the expression."""
    with pytest.raises(ValueError, match=r"is not a condition: write KEY=VALUE|is not a regular expression"):
        parse_condition(text)


ROW = {
    "status": 503,
    "seconds": 0.25,
    "path": "/api/orders",
    "started": "2025-06-30",
    "code": "503",
    "big": 2**70,
    "ok": True,
    "nothing": None,
    "user": {"plan": "Pro", "id": 7},
    "http.status": 404,
    "http.request": {"of": {"tls.version": 2}},
    "answer": {"http.status": 404, "of": {"tls.version": 1}},
    "tags": ["a", "b"],
    'quo"te': 1,
    "sign": "=",
    "order": {"state": "paid", "big": {"total": 9}},
    "order.state": "open",
    "order.big": {"total": 1},
}


@pytest.fixture(scope="module")
def three_rows(tmp_path_factory):
    """A log of a row without attributes, one with them, and one whose JSON has escapes."""
    path = tmp_path_factory.mktemp("conditions") / "app-log.db"
    handler = SQLiteHandler(path, close_timeout=60)
    for message, extra in {"plain": {}, "with": ROW, "escaped": {"line": "\n\x00", **ROW}}.items():
        vars(one := record(message)).update(extra)
        handler.handle(one)
    handler.close()
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http.request.of.tls.version=2", True),
        ("http.request.of.tls=2", False),
        ("status=503", True),
        ("status=503.0", True),
        ("status>=500", True),
        ("status == 503", True),
        ("status==503", True),
        ("status==500", False),
        ("sign==", True),  # as the page asks for the value `=`
        ("user.plan = Pro", True),
        ("user.plan= Pro", False),
        ("user.plan ~ ^pro", True),
        ("status>=503.5", False),
        ("status<1e3", True),
        ("status<1_000", False),  # a text, though Python reads a number
        ("status=5_03", False),
        ("status!=200", True),
        ("status!=503", False),
        ("missing!=200", False),
        ("seconds<0.3", True),
        ("code>=500", False),
        ("code=503", True),
        ("started>=2025-06", True),
        ("started<2025-06", False),
        ("status>abc", False),
        (f"big>{2**69}", True),
        (f"big={2**70}", True),
        (f"big={2**70 + 1}", False),
        ("ok=true", True),
        ("ok>0", False),
        ("nothing", True),
        ("nothing=null", True),
        ("user.plan=Pro", True),
        ("user.plan~pro", True),
        ("user.plan~PRO", False),
        (r"user.plan~p\So", True),  # as with -g, an escape is no capital letter
        (r"user.plan~P\SO", False),
        ("user.id>6", True),
        ("user.missing", False),
        ("user", True),
        ("http.status=404", True),
        ("http", False),
        ("answer.http.status=404", True),
        ("answer.of.tls.version<2", True),
        ("!answer.http.status", False),
        ("order.state=open", True),
        ("order.state=paid", True),  # was hidden by the key with a dot
        ("order.state!=paid", False),
        ("order.state!=open", False),
        ("order.state!=lost", True),
        ("order.state~^p", True),
        ("order.big.total>5", True),
        ("order.big.total<5", True),
        ("order.big.total>9", False),
        ("status~^5", True),
        ("tags~b", True),
        ('quo"te=1', True),
        ("!missing", True),
        ("!status", False),
    ],
)
def test_a_condition_chooses_rows(three_rows, text, expected):
    """Numbers are compared as numbers and texts as texts, nested keys have dots, and a row without the key is out."""
    chosen = ["with", "escaped"] if expected else []
    if text.startswith("!"):
        chosen = ["plain", *chosen]
    with LogReader(three_rows) as reader:
        assert chosen == [row.message for row in reader.rows(where=text)]
        assert chosen == [row.message for row in reader.rows(where=[text, text])]


def test_a_number_of_thousands_of_digits_is_read():
    """Beside a number that Python refuses to read, the other attributes have their values."""
    assert holds("a=1", '{"a": 1, "b": ' + "9" * 5_000 + "}")


def test_a_key_is_found_at_any_depth():
    """A key of 600 names is found as each other; it was a RecursionError."""
    assert holds(".".join("a" * 600) + "=1", '{"a":' * 600 + "1" + "}" * 600)


def test_a_value_that_python_reads_and_cannot_write(monkeypatch):
    """A value whose depth Python reads, but does not write, is itself alone; it was a RecursionError."""

    def too_deep(*_, **__):
        raise RecursionError

    monkeypatch.setattr(json, "dumps", too_deep)
    assert holds("a!=1", '{"a": [1]}')
    assert not holds("a~1", '{"a": [1]}')
    assert attribute("a", '{"a": [1]}') == "[...]"
    assert holds("a==[...]", '{"a": [1]}')


@pytest.mark.parametrize("attributes", [None, 5, "", "[]", "{", "5", '{"a": ' * 9999])
def test_what_has_no_attributes_has_none(attributes):
    """A row whose attributes are not a JSON object holds no condition."""
    assert not holds("a", attributes)


def test_conditions_are_refused_before_anything_is_read(make_handler, path):
    """A reader says what is wrong with a condition, and with one that is no text."""
    make_handler().close()
    with LogReader(path) as reader:
        with pytest.raises(FilterError, match="is not a condition"):
            list(reader.rows(where="=5"))
        with pytest.raises(FilterError, match="must be a condition such as 'status>=500'"):
            list(reader.rows(where=5))  # type: ignore[arg-type]


def test_conditions_all_hold(make_handler, logger, path):
    """All conditions must hold, beside the other filters."""
    logger.addHandler(handler := make_handler())
    for status in (200, 404, 500, 503):
        logger.log(logging.ERROR if status == 503 else logging.INFO, "%d", status, extra={"status": status})
    handler.close()

    with LogReader(path) as reader:
        assert ["404", "500"] == [row.message for row in reader.rows(where=["status>200", "status<503"])]
        assert ["503"] == [row.message for row in reader.rows(where=["status>=500"], level="ERROR")]
        assert [503] == [json.loads(line)["attributes"]["status"] for line in reader.json_lines(where="status>500")]
