"""The contents of a topic, in the form that tests compare."""

from __future__ import annotations

import math
from typing import Any

import pqlog


def values(messages: pqlog.Topic | pqlog.History) -> list[Any]:
    """The values of messages, each decoded by itself."""
    return [message.value for message in messages]


def offsets(put: pqlog.Put) -> range:
    """The offsets of what was put into a file at once: there they have no gaps."""
    assert put.last - put.first + 1 == put.messages
    return range(put.first, put.last + 1)


def is_same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout: NaN equals itself, -0.0 is not 0.0, True is not 1.

    The text of a set is not compared: equal sets may name their members in another order.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(is_same, one.values(), other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float):
        return (one != one and other != other) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return bool(one == other) and (isinstance(one, (set, frozenset)) or repr(one) == repr(other))
