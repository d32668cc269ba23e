"""Renewal: a thread that keeps the file's claims as this process holds them, while it holds any."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable

from pqlog.errors import Error
from pqlog.store.sqlite import claims

LOOK_S = 1.0
"""How soon a claim is found to be left whose finalizer was struck by Ctrl-C before it could say so."""


class Renewal:
    """Renews claims three times before they expire, and releases those that were left at once.

    Parameters
    ----------
    renew : weak reference to a callable
        Releases what was left and, if told to, renews the rest; says whether there is any. Weak, so that a log that is
        dropped does not live on in here.
    """

    def __init__(self, renew: Callable[[], Callable[[bool], bool] | None]) -> None:
        self._renew = renew
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked = 0
        self._stopped = False
        # Of all that threads can wait on, this alone may be written to by a finalizer.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self) -> None:
        """There is a claim."""
        self._asked += 1
        if self._is_running():
            return
        with self._lock:
            if not self._is_running() and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="pqlog-renew", daemon=True)
                self._thread.start()

    def _is_running(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def wake(self) -> None:
        """A claim was left."""
        self._bell.put(None)

    def stop(self) -> None:
        """The log is closed."""
        self._stopped = True
        self._bell.put(None)

    def forked(self) -> None:
        """In a forked child: the claims are the parent's, and so is the thread."""
        self._lock, self._bell, self._thread = threading.Lock(), queue.SimpleQueue(), None

    def _run(self) -> None:
        due = time.monotonic() + claims.LEASE_S / 3
        while True:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=min(LOOK_S, max(0.0, due - time.monotonic())))
            if self._stopped:
                return
            is_due = time.monotonic() >= due
            if is_due:
                due = time.monotonic() + claims.LEASE_S / 3
            asked = self._asked
            if self._work(is_due):
                continue
            with self._lock:
                if asked == self._asked:
                    self._thread = None
                    return

    def _work(self, is_due: bool) -> bool:
        """Whether to go on."""
        renew = self._renew()
        if renew is None:
            return False
        try:
            return renew(is_due)
        except Error:
            return True  # a full disk, say: the next time may do
