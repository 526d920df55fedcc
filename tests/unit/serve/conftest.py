"""
A log with rows and a gap, and an application that serves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

starlette = pytest.importorskip("starlette", reason="the extra serve is not installed")

from starlette.testclient import TestClient  # noqa: E402

from sqlite_log_handler._read import other_process  # noqa: E402
from sqlite_log_handler.serve import create_app  # noqa: E402

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlite_log_handler import SQLiteHandler


@pytest.fixture(autouse=True)
def _pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test have processes of its own, as a server that ends ends them for good."""
    monkeypatch.setattr(other_process, "_pool", other_process._Pool())
    yield
    other_process.end_questions()


@pytest.fixture
def shop(path: Path, make_handler: Callable[..., SQLiteHandler], logger: logging.Logger) -> Path:
    """A log of twelve rows: eight of the shop, one with a traceback, and others of the cart."""
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(8):
        logger.info("order %d paid", number, extra={"customer": f"c-{number % 3}"})
    cart = logger.getChild("cart")
    for number in range(3):
        cart.warning("stock of %d is low", number)
    try:
        raise KeyError("price")
    except KeyError:
        logger.exception("order 8 has no price")
    assert handler.flush()
    logger.removeHandler(handler)
    handler.close()
    return path


@pytest.fixture
def get(shop: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that asks the application a question, and returns the answer's JSON."""
    with TestClient(create_app(shop), base_url="http://localhost:8710") as client:

        def ask(question: str, status: int = 200, **parameters: Any) -> Any:
            response = client.get(f"/api/{question}", params={k.replace("_", "-"): v for k, v in parameters.items()})
            assert status == response.status_code, response.text
            return response.json()

        yield ask
