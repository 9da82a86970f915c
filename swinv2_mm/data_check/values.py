"""Test the types of values in an annotation file."""

from __future__ import annotations

from typing import Any

# Larger than any coordinate or area; numbers that are much larger overflow float32.
LARGEST_NUMBER = 1e15


def is_number(value: Any) -> bool:
    """Whether a value is a whole number that NumPy can hold."""
    return type(value) is int and abs(value) < 2**63


def is_name(value: Any) -> bool:
    """Whether a value can be a name."""
    return isinstance(value, str) and bool(value)


def is_box(value: Any) -> bool:
    """Whether a value is a list of four finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == 4
        # False for NaN too; math.isfinite raises at integers that no float can hold.
        and all(isinstance(v, (int, float)) and abs(v) < LARGEST_NUMBER for v in value)
    )
