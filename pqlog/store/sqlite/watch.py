"""Waiting for messages: woken at once by this process, by polling for others."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from pqlog.errors import ClosedError

FIRST_POLL_S = 0.001


class Watch:
    """What threads wait on. Every commit of this process, `trigger` and `close` move its sequence number on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._sequence = 0
        self._waiters = 0
        self._closed = False

    def notify(self) -> None:
        """Something may have changed: all who wait look again."""
        # No lock where nobody waits: whoever comes to wait looks at the number again before it sleeps. Each call gives
        # a new number, so that of two at once neither goes unnoticed, whichever is stored last.
        self._sequence = next(self._numbers)
        if self._waiters:
            with self._changed:
                self._changed.notify_all()

    def close(self) -> None:
        """End all who wait with `ClosedError`."""
        self._closed = True
        self.notify()

    def wait(self, ready: Callable[[], bool], timeout_s: float | None, tick_s: float) -> bool:
        """Wait until `ready`; False when the time is up.

        The sequence number is read before `ready` looks, so that what lands in between is not missed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        poll_s = min(FIRST_POLL_S, tick_s)
        seen = self._sequence
        while not ready():
            left_s = poll_s if deadline is None else min(poll_s, deadline - time.monotonic())
            with self._changed:
                if self._closed:
                    raise ClosedError(f"{self._path} was closed")
                self._waiters += 1
                try:
                    if self._sequence == seen and left_s > 0:
                        self._changed.wait(left_s)
                finally:
                    self._waiters -= 1
            if deadline is not None and time.monotonic() >= deadline:
                return ready()
            poll_s = min(poll_s * 1.5, tick_s)
            seen = self._sequence  # woken, it may be by something else: look again
        return True
