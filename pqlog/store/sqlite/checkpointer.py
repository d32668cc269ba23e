"""Checkpoints: moving what the write-ahead log holds into the database file, in a thread and not within a put.

SQLite would do so in the commit that fills the log: that put took 0.94 ms instead of 0.15, and as one in a thousand
it was the p99.9 of all. Here a thread does so while puts continue, and the next commit moves the little that was put
meanwhile: only after a checkpoint to its end does the log start again at its front, so that it stays small.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import apsw

from pqlog.errors import Error
from pqlog.store.sqlite import connections

PAGES = 800
"""Before the 1,000 to which the log is extended at opening: growing on would cost each put 80 µs."""
LOOK_EVERY = 16
"""Commits between two looks at the log's size; a look takes 3 µs."""
TOO_MANY = 4_000
"""From here on a commit runs the checkpoint itself: the thread falls behind."""


class Checkpointer:
    """Runs a checkpoint whenever the log has grown to 800 pages.

    Parameters
    ----------
    connect : callable
        Makes a connection for the thread.
    """

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._db: apsw.Connection | None = None
        self._own: apsw.Connection | None = None
        self.lock: Any = threading.RLock()
        """Held while the thread's connection is used."""
        self._thread: threading.Thread | None = None
        self._thread_finished = False
        self._commits = 0

    def attach(self, db: apsw.Connection) -> None:
        """Look after what this connection writes."""
        db.wal_autocheckpoint(TOO_MANY)
        self._db = db

    def committed(self, db: apsw.Connection) -> None:
        """To be called after each commit, by the leader, with its connection."""
        self._commits += 1
        if (self._commits >= LOOK_EVERY or self._thread_finished) and db is self._db:
            self._commits = 0
            self._look(db)

    def _look(self, db: apsw.Connection) -> None:
        if self._thread_finished:
            self._thread_finished = False
            _checkpoint(db)
        elif not self._is_running() and _pages(db) >= PAGES:
            self._thread = threading.Thread(target=self._work, name="pqlog-checkpoint", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter is shutting down, or has no threads left
                self._thread.start()

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        with self.lock, contextlib.suppress(apsw.Error, Error):  # as in _checkpoint
            if self._own is None:
                self._own = self._connect()
            _checkpoint(self._own)
            self._thread_finished = True

    def disconnect(self) -> None:
        """Let a checkpoint end, and close the connection; a later one opens it again."""
        with self.lock:
            if self._own is not None:
                self._own.close(True)
                self._own = None

    def close(self) -> None:
        """Let a checkpoint end; the writer is closed already."""
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
        self.disconnect()
        self._db = None

    def leak(self) -> None:
        """In a forked child: leave the parent's connection alone."""
        if self._own is not None:
            connections.leak(self._own)


def _pages(db: apsw.Connection) -> int:
    with contextlib.suppress(apsw.Error):  # the commit has succeeded, whatever is found here
        return db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_NOOP)[0]
    return 0


def _checkpoint(db: apsw.Connection) -> None:
    # What fails stays in the write-ahead log, where it is safe, for the next time.
    with contextlib.suppress(apsw.Error):
        db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_PASSIVE)
