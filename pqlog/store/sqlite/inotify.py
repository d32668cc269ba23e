"""inotify(7): Linux tells when something happens to a file."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

MODIFY = 0x2
GONE = 0x4 | 0x400 | 0x800
"""Moved or deleted; an unlink of an open file shows as a change of its attributes only."""


def watch(paths: Sequence[str], events: int) -> int | None:
    """A descriptor that becomes readable when one of the events happens to a file; None where there are no more."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    for path in paths:
        if libc.inotify_add_watch(descriptor, os.fsencode(path), events) < 0:
            os.close(descriptor)
            return None
    return descriptor
