"""inotify(7): Linux tells when something happens to a file."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

MODIFY = 0x2
MOVED = 0x400 | 0x800
"""Moved or deleted itself; of a folder, not what happens to the files in it."""
GONE = MOVED | 0x4
"""The same of a file: an unlink of an open file shows as a change of its attributes only."""


def watch(events: Mapping[str, int]) -> int | None:
    """A descriptor that becomes readable when one of the events happens to its path; None if there are no more."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    for path, mask in events.items():
        if libc.inotify_add_watch(descriptor, os.fsencode(path), mask) < 0:
            os.close(descriptor)
            return None
    return descriptor
