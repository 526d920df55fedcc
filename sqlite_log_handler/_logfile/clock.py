"""
The clock of all limits of time: seconds that never jump.

freezegun replaces `time.monotonic` in every module that has it. With a clock that stands still, `flush` would wait for
a locked file for ever. It leaves `clock_gettime` as it is.
"""

import time
from collections.abc import Callable
from functools import partial

monotonic: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "CLOCK_MONOTONIC") else time.monotonic  # Windows
)
