"""Renewal: a thread that puts off the expiry of this process's claims, while it has any."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pqlog.errors import Error
from pqlog.store.sqlite import claims


class Renewal:
    """Renews claims three times before they expire, from the first claim on until there is none.

    Parameters
    ----------
    renew : weak reference to a callable
        Renews them; says whether there are any. Weak, so that a log that is dropped does not live on in here.
    """

    def __init__(self, renew: Callable[[], Callable[[], bool] | None]) -> None:
        self._renew = renew
        self._lock = threading.Lock()
        self._running = False
        self._asked = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """There is a claim."""
        self._asked += 1
        if self._running:
            return
        with self._lock:
            if not self._running and not self._stopped.is_set():
                self._running = True
                threading.Thread(target=self._run, name="pqlog-renew", daemon=True).start()

    def stop(self) -> None:
        """The log is closed."""
        self._stopped.set()

    def forked(self) -> None:
        """In a forked child: the claims are the parent's, and so is the thread."""
        self._lock = threading.Lock()
        self._running = False

    def _run(self) -> None:
        while not self._stopped.wait(claims.LEASE_S / 3):
            asked = self._asked
            renew = self._renew()
            if renew is None:
                return
            try:
                if renew():
                    continue
            except Error:
                continue  # a full disk, say: the next time may do
            with self._lock:
                if asked == self._asked:
                    self._running = False
                    return
