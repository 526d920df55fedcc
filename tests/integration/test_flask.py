"""
Flask with its development server, which colours its lines.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("flask.cli")


def test_page(project):
    """The page can be followed word for word: what the app and the server say is in the file and on the console."""
    project.follow()

    [order, access] = project.answers[0]
    assert ["shop", "order 42 asked for"] == list(order[1:])
    assert '"GET /orders/42 HTTP/1.1" 200 -' in access[2]
    assert " * Running on " in project.programs[0].printed
    assert [(1,)] == project.query("SELECT count(*) FROM logs WHERE message LIKE '% * Running on %'")
    assert [(0,)] == project.query("SELECT count(*) FROM logs WHERE instr(message, 'x1b') OR instr(message, char(27))")


def test_colours_are_kept_without_the_formatter(project):
    """What the page says of the development server's colours is so."""
    project.write("shop.py")
    shop = project.folder / "shop.py"
    shop.write_text(shop.read_text(encoding="utf-8").replace(', "formatter": "plain"', ""), encoding="utf-8")
    project.start(f"flask --app shop run --port {project.port}", "")
    assert 404 == project.fetch("/nothing")[0]
    project.end_servers()

    [(message,)] = project.query("SELECT message FROM logs WHERE message LIKE '%/nothing%'")
    assert "\x1b[33m" in message
