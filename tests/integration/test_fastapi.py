"""
FastAPI under uvicorn, with uvicorn's own configuration of logging, with ours, and without any.
"""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.needs("fastapi", "uvicorn")

ACCESS = {"method": "GET", "full_path": "/orders/42", "http_version": "1.1", "status_code": 200}

# The handler is there before uvicorn configures logging, or it does not.
SERVE = """
import logging

import uvicorn

from app import app, handler

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(message)s", handlers=[handler])
    logging.getLogger("shop").info("configured")
    {run}
"""

RAISES = """

@app.get("/raises")
def raises():
    return 1 / 0
"""


def test_page(project):
    """The page can be followed word for word: the parts of the access line can be asked for."""
    project.follow()

    [[(_, *access)]] = project.answers
    assert ["GET", "/orders/42", 200] == access
    assert {"order": 42} == project.attributes("logger = 'shop'")
    attributes = project.attributes("logger = 'uvicorn.access' AND message LIKE '%orders%'")
    assert attributes.pop("client_addr").startswith("127.0.0.1:")
    assert attributes == ACCESS


@pytest.mark.parametrize(
    "command",
    [
        "uvicorn app:app --port 8000 --workers 2",
        "uvicorn app:app --port 8000 --reload",
        pytest.param("fastapi run app.py --port 8000", marks=pytest.mark.needs("fastapi_cli")),
    ],
)
def test_started_otherwise(project, command):
    """With several processes, and by FastAPI's own command, every row of every process is there."""
    project.write("app.py")
    project.start(command, "")

    assert [200] * 50 == [project.fetch(f"/orders/{number}")[0] for number in range(50)]
    project.end_servers()

    orders = "SELECT json_extract(attributes, '$.order') FROM logs WHERE logger = 'shop'"
    assert list(range(50)) == sorted(order for (order,) in project.query(orders))
    assert [(50,)] == project.query(
        "SELECT count(*) FROM logs WHERE logger = 'uvicorn.access' AND json_extract(attributes, '$.status_code') = 200"
    )


@pytest.mark.parametrize("options", ["", "--workers 2"])
def test_stopped_by_sigterm(project, options):
    """
    When the server is told to end, as `docker stop` does it, every line of the app is there, also the last.

    uvicorn restores the signal's default, and sends itself the signal once more: nothing of Python's exit is run. No
    tick is near, so it is the flush of the page that writes.
    """
    project.write("app.py")
    app = project.folder / "app.py"
    app.write_text(app.read_text().replace('level="INFO")', 'level="INFO", flush_interval=3600)'))
    program = project.start(f"uvicorn app:app --port 8000 {options}", "")

    assert [200] * 20 == [project.fetch(f"/orders/{number}")[0] for number in range(20)]
    program.end(signal.SIGTERM)

    assert [(20,)] == project.query("SELECT count(*) FROM logs WHERE logger = 'shop'")
    assert [(20,)] == project.query("SELECT count(*) FROM logs WHERE logger = 'uvicorn.access'")


def test_an_endpoint_that_raises(project):
    """Its traceback stands in a row of uvicorn's logger."""
    project.write("app.py")
    with (project.folder / "app.py").open("a", encoding="utf-8") as file:
        file.write(RAISES)
    project.start("uvicorn app:app --port 8000", "")

    assert 500 == project.fetch("/raises")[0]
    project.end_servers()

    [(level, exc_type, exc_text)] = project.query(
        "SELECT level, exc_type, exc_text FROM logs WHERE logger = 'uvicorn.error' AND exc_type IS NOT NULL"
    )
    assert ("ERROR", "ZeroDivisionError") == (level, exc_type)
    assert "return 1 / 0" in exc_text


def test_a_handler_that_uvicorn_closed_goes_on(project):
    """The configuration of uvicorn closes the handler that is there already; what is logged afterwards is there too."""
    project.write("app.py")
    (project.folder / "serve.py").write_text(SERVE.format(run=f"uvicorn.run(app, port={project.port})"))
    project.start("python serve.py", "")

    assert 200 == project.fetch("/orders/1")[0]
    project.end_servers()

    rows = project.query("SELECT message FROM logs WHERE logger IN ('shop', 'uvicorn.access') ORDER BY id")
    assert ["configured", "order looked up"] == [message for (message,) in rows[:2]]
    assert 3 == len(rows)


def test_without_a_configuration_of_uvicorn(project):
    """With `log_config=None` the handler of the root logger alone gets every row of uvicorn, once."""
    project.write("app.py")
    with (project.folder / "app.py").open("a", encoding="utf-8") as file:
        file.write("\n\napp = FastAPI()\n")
    run = f"uvicorn.run(app, port={project.port}, log_config=None)"
    (project.folder / "serve.py").write_text(SERVE.format(run=run))
    project.start("python serve.py", "")

    assert 404 == project.fetch("/orders/1")[0]
    project.end_servers()

    assert {"status_code": 404}.items() <= project.attributes("logger = 'uvicorn.access'").items()
    assert [(1,)] == project.query("SELECT count(*) FROM logs WHERE message = 'Application startup complete.'")
