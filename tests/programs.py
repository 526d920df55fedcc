"""
A program with an archive, whose thread is waited for, or held.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sqlite_log_handler._write.retention import archiver as archiver_module
from sqlite_log_handler._write.retention.archive import Archive
from sqlite_log_handler._write.retention.archiver import Archiver
from sqlite_log_handler._write.retention.limits import Limits
from sqlite_log_handler._write.retention.pruner import Pruner

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DAY = 86_400


class Program:
    """A program that logs: its retention and its archive, whose thread is waited for."""

    def __init__(self, log: Any, folder: Path, *, deletes: bool = False, **limits: Any) -> None:
        self.log = log
        self.limits = Limits(**limits)
        options: dict[str, Any] = {"say": log.said.append, "now": lambda: log.wall, "clock": log.clock}

        def make(path: str) -> Archive:
            return Archive(str(folder), path, kind="jsonl.gz", say=log.said.append)

        self.archiver = Archiver(make, self.limits, deletes=deletes, **options)
        self.pruner = Pruner(log.path, self.limits, archiver=self.archiver, **options)
        self.pruner.opened(log.path)

    def step(self) -> float | None:
        """Do a step of retention, and wait until the thread of the archive has something for the next one."""
        due = self.pruner.step(self.log.connection)
        run = self.archiver._run
        if run is not None and run.part is None and not run.ended:
            run.changed.acquire()
        return due

    def step_to_a_part(self, held: Held) -> None:
        """Do a step that begins a run, and wait until it has a part, which no step has noted."""
        self.pruner.step(self.log.connection)
        held.go.set()
        run = self.archiver._run
        assert run is not None
        run.changed.acquire()
        assert run.part is not None

    def run(self) -> None:
        """Step until there is nothing more to do."""
        for _ in range(1_000):
            if self.step() not in {0, archiver_module.POLL}:
                return
        raise AssertionError("it does not end")

    @property
    def archived_id(self) -> int:
        """Up to which id rows are archived."""
        return int(self.log.ask("SELECT archived_id FROM marks")[0][0])


class Held:
    """Hold the thread of the archive at its first part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came = threading.Event()
        self.go = threading.Event()
        write = Archive.write

        def held(archive: Archive, *arguments: Any) -> Any:
            self.came.set()
            self.go.wait()
            return write(archive, *arguments)

        monkeypatch.setattr(Archive, "write", held)
