"""Renewal: a thread that keeps the file's claims as this process holds them, while it holds any."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from pqlog.errors import Error
from pqlog.store.sqlite import claims


class Renewal:
    """Renews claims three times before they expire, and releases those that were left at once.

    Parameters
    ----------
    renew : callable
        Releases what was left and, if told to, renews the rest; says whether there is any.
    """

    def __init__(self, renew: Callable[[bool], bool]) -> None:
        self._renew = renew
        self._lock = threading.Lock()
        self._running = False
        self._asked = 0
        self._stopped = False
        # Of all that threads can wait on, this alone may be written to by a finalizer.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self) -> None:
        """There is a claim."""
        self._asked += 1
        if self._running:
            return
        with self._lock:
            if not self._running and not self._stopped:
                self._running = True
                threading.Thread(target=self._run, name="pqlog-renew", daemon=True).start()

    def wake(self) -> None:
        """A claim was left."""
        self._bell.put(None)

    def stop(self) -> None:
        """The log is closed."""
        self._stopped = True
        self._bell.put(None)

    def _run(self) -> None:
        due = time.monotonic() + claims.LEASE_S / 3
        while True:
            try:
                self._bell.get(timeout=max(0.0, due - time.monotonic()))
                is_due = False
            except queue.Empty:
                is_due = True
                due = time.monotonic() + claims.LEASE_S / 3
            if self._stopped:
                return
            asked = self._asked
            try:
                if self._renew(is_due):
                    continue
            except Error:
                continue  # a full disk, say: the next time may do
            with self._lock:
                if asked == self._asked:
                    self._running = False
                    return
