"""Equality of Python objects to the type and the last bit."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any


def identical(one: Any, other: Any) -> bool:
    """Whether two objects have the same type and the same value, to the last bit."""
    kind = type(one)
    if one is other:
        return True
    if kind is not type(other):
        return False
    if kind is float:
        return (one == other and (one != 0 or str(one) == str(other))) or (one != one and other != other)
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if kind is dict:
        return len(one) == len(other) and all(map(identical, one.items(), other.items()))
    if kind is Decimal:
        return bool(one.as_tuple() == other.as_tuple())
    if isinstance(one, (datetime.datetime, datetime.time)):
        same_zone = str(one.tzinfo) == str(other.tzinfo) and one.utcoffset() == other.utcoffset()
        return same_zone and bool(one.replace(tzinfo=None) == other.replace(tzinfo=None)) and one.fold == other.fold
    if hasattr(one, "dtype") and hasattr(one, "tolist"):  # an array
        return bool(one.dtype == other.dtype) and one.shape == other.shape and identical(one.tolist(), other.tolist())
    try:
        return (one == other) is True
    except Exception:  # an object may be anything, and raise anything
        return False
