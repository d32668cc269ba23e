"""Locks that no Ctrl-C leaves held: it may strike behind any call, and so behind the one that acquires a lock.

A context manager would not do. If it is struck between its beginning and the block, one that is made of a generator
stands still in the traceback until the collector ends it, maybe in another thread, which cannot release the lock; one
that is made of a class is never ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """Other threads held the locks all the time."""


def while_holding(locks: Sequence[threading.RLock], until: float, work: Callable[[], T]) -> T:
    """Acquire locks, in this order, and do something.

    Parameters
    ----------
    locks : sequence of RLock
        Reentrant ones, since they know who holds them. This thread must not hold any of them.
    until : float
        How long to wait for them, by `time.monotonic`; it is tried once in any case.
    work : callable

    Raises
    ------
    Busy
        It took longer.
    """
    # To be run by one call of C code, which nothing can strike in the middle.
    release = map(methodcaller("release"), filter(methodcaller("_is_owned"), locks))
    try:
        for lock in locks:
            if not lock.acquire(timeout=max(0.0, until - time.monotonic())):
                raise Busy
        return work()
    finally:
        list(release)


def is_held_elsewhere(lock: threading.RLock) -> bool:
    """Whether another thread holds a lock at this moment."""
    try:
        while_holding([lock], 0.0, bool)
    except Busy:
        return True
    return False
