"""Arguments that are numbers, checked where they are passed: what cannot be right is refused at once."""

from __future__ import annotations

import math
from typing import Any

from pqlog.errors import ArgumentError

_MOST = (1 << 63) - 1


def count(name: str, value: Any, what: str) -> int:
    """A number of things, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ArgumentError(f"{name} is a number of {what}, 1 or more, not {_shown(value)}")
    return value


def seconds(name: str, value: Any, least: str = "0 or more", most: float = math.inf) -> float:
    """A time in seconds: "0 or more", or "above 0"."""
    try:
        fits = not isinstance(value, bool) and isinstance(value, (int, float)) and float(value) <= most
    except OverflowError:
        fits = False
    if not fits or not (value > 0 if least == "above 0" else value >= 0):
        raise ArgumentError(f"{name} is a number of seconds, {least}, not {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an int of more digits than Python writes
        return f"a {type(value).__name__} of {value.bit_length()} bits"
