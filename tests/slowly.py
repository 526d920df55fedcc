"""
Values with which a test runs only with --slow, beside those with which it always runs.
"""

from __future__ import annotations

from typing import Any

import pytest


def slowly(*values: Any) -> list[Any]:
    """Mark the tests with these values as slow; a tuple has one value for each name of the parameters."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow) for value in values
    ]
