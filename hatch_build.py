"""
Makes the manual page when the wheel is built, from what `--help` is made of; see docs/man.py.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPage(BuildHookInterface):
    """Put `sqlite-log.1` where `man` finds it beside the scripts of an environment."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling gives it
        """Write the page, and add it to the wheel."""
        sys.path.insert(0, self.root)
        page = Path(self.root, "build", "sqlite-log.1")
        page.parent.mkdir(exist_ok=True)
        lines = runpy.run_path(str(Path(self.root, "docs", "man.py")))["lines"]()
        page.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/sqlite-log.1"
