"""
Records as if they had been logged at a time of the test's choosing.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2025, 6, 30, 12, tzinfo=UTC)


def record(message="hello", level=logging.INFO, name="shop", *, seconds=0.0, **attributes):
    """Make a record as if it had been logged `seconds` after BEGIN."""
    made = logging.LogRecord(name, level, "/srv/shop/app.py", 7, message, (), None, func="work")
    made.created = (BEGIN + timedelta(seconds=seconds)).timestamp()
    made.msecs = made.created * 1000 // 1 % 1000
    vars(made).update(attributes)
    return made
