"""
The clock behind every time limit: seconds that never jump.

freezegun replaces `time.monotonic` in every module that has it, but leaves `clock_gettime` as it is. With a clock that
stands still, `flush` would wait for a locked file for ever.
"""

import time
from collections.abc import Callable
from functools import partial

monotonic: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "CLOCK_MONOTONIC") else time.monotonic  # Windows
)
