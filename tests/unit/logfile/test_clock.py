"""
The clock of limits of time.
"""

from __future__ import annotations

import sys
import time

import pytest
from freezegun import freeze_time

from sqlite_log_handler._logfile.clock import monotonic


def test_it_is_the_clock_of_the_standard_library():
    """It tells the same seconds as `time.monotonic`, which the processes that wait for a lock compare."""
    assert time.monotonic() <= monotonic() <= time.monotonic()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no clock_gettime")
def test_freezegun_does_not_stop_it():
    """It goes on while freezegun has stopped `time.monotonic`, also in the modules that have it by name."""
    before = monotonic()
    with freeze_time("2025-11-23"):
        assert before < monotonic()
