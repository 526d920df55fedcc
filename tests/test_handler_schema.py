"""
The JSON Schema of the handler's section in a logging configuration: editors read it, and it says what the code says.
"""

from __future__ import annotations

import inspect
import json
import logging.config

import jsonschema
import pytest
from pages import DOCS

from sqlite_log_handler import SQLiteHandler

SCHEMA = json.loads((DOCS / "static" / "handler.schema.json").read_text(encoding="utf-8"))
PROPERTIES = SCHEMA["properties"]
BOUNDS = [
    (name, value)
    for name, told in PROPERTIES.items()
    for bound in ("minimum", "maximum", "exclusiveMaximum")
    if bound in told
    for value in (told[bound] - 1, told[bound], told[bound] + 1)
]


def section(**options):
    """Write the handler's section of a configuration."""
    return {"class": "sqlite_log_handler.SQLiteHandler", "filename": "app-log.db", **options}


def test_it_has_every_option_with_its_default():
    """The schema names each option of the handler, and no others but those of dictConfig, with its default."""
    parameters = inspect.signature(SQLiteHandler).parameters
    defaults = {name: each.default for name, each in parameters.items() if name not in {"filename", "level"}}

    assert {*parameters, "class", "formatter", "filters", "."} == set(PROPERTIES)
    assert defaults == {name: PROPERTIES[name]["default"] for name in defaults}
    assert logging.getLevelNamesMapping()[PROPERTIES["level"]["default"]] == parameters["level"].default


@pytest.mark.parametrize(("name", "value"), [*BOUNDS, ("capacity", "many"), ("unknown", 1), ("max_age", "7d")])
def test_it_allows_what_the_handler_takes(name, value, tmp_path, monkeypatch, logging_tree):
    """At each bound, below and above it, the schema and the handler agree on what is allowed."""
    monkeypatch.chdir(tmp_path)
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(section(**{name: value}))
    try:
        logging.config.dictConfig({"version": 1, "handlers": {"db": section(**{name: value})}})
        taken = True
    except ValueError:  # dictConfig makes it of what the handler raises
        taken = False

    assert valid is taken
