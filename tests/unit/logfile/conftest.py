"""
Locks of the test's log, and a clock on which they wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._logfile import write_lock as write_lock_module
from sqlite_log_handler._logfile.write_lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def make_lock(path: Path) -> Iterator[Callable[..., WriteLock]]:
    """Make locks of the test's log, as handlers in several processes would."""
    made: list[WriteLock] = []

    def make(say: Callable[[str], None] = pytest.fail, path: Path = path) -> WriteLock:
        made.append(WriteLock(str(path), say=say))
        return made[-1]

    yield make

    for lock in made:
        lock.close()


@pytest.fixture
def pauses(monkeypatch, clock) -> list[float]:
    """How long the lock slept each time; it sleeps on the fake clock."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(write_lock_module, "monotonic", clock)
    monkeypatch.setattr(write_lock_module, "sleep", sleep)
    return slept
