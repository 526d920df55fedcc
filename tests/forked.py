"""
Functions in forked children of the process that runs the tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(function: Callable[[], Any], fork: Callable[[], int] | None = None) -> str:
    """
    Run a function in a forked child, and return the text of what it returned or raised.

    Whatever happens, the child ends here: an exception that left it would let it run the other tests a second time.
    """
    reading, writing = os.pipe()
    child = (fork or os.fork)()
    if child == 0:
        try:
            os.write(writing, str(function()).encode())
        except BaseException as error:  # noqa: BLE001 - the parent is to see it
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    return said
