"""Readers: connections for queries, each used by one thread at a time and never while the caller's code runs.

Ctrl-C may strike between any two steps of Python code. A slot is taken by ``with`` and a lock that is written in C,
between which nothing strikes; and a connection counts as used up until its query has ended well, so that whatever an
interrupt leaves on it (an open statement, a transaction, a lock of the file) goes when it is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from pqlog import errors
from pqlog.store.sqlite.connections import UNTRANSLATED, leak, translate

T = TypeVar("T")

State = tuple[int, ...] | None
"""What tells that a file was written to, where its connections do not notice that; None where they do."""


def undisturbed(state: Callable[[], State], ask: Callable[[State], T]) -> T:
    """What is answered about a file in one state: asked again if the state changed meanwhile."""
    while True:
        before = state()
        try:
            answer = ask(before)
        except Exception:
            if state() == before:
                raise
        else:
            if state() == before:
                return answer


class _Slot:
    """A slot for one query at a time, with its connection."""

    __slots__ = ("db", "is_used", "lock", "state")

    def __init__(self) -> None:
        self.db: apsw.Connection | None = None
        self.state: State = None
        """That of the file when the connection was opened."""
        self.is_used = False
        """From before its query until that has ended well."""
        self.lock: Any = threading.RLock()


class Readers:
    """Runs queries on a few connections, which are opened when they are needed.

    Parameters
    ----------
    connect : callable
        Opens a connection to the file in a state.
    slots : int
        How many queries may run at once; more wait.
    path : str
        For error messages.
    in_memory : bool
        Whether the connection is the only one to a database in memory, which must never be closed in between.
    state : callable
        The file's state. A connection that was opened in another one is not used any more, nor what it answered while
        the state changed.
    """

    def __init__(
        self,
        connect: Callable[[State], apsw.Connection],
        slots: int,
        path: str,
        in_memory: bool,
        state: Callable[[], State],
    ) -> None:
        self._connect, self._path, self._in_memory, self._state = connect, path, in_memory, state
        self._slots = [_Slot() for _ in range(slots)]

    @property
    def locks(self) -> list[Any]:
        """Who holds all of these knows that nobody reads."""
        return [slot.lock for slot in self._slots]

    def run(self, query: Callable[[apsw.Connection], T], snapshot: bool) -> T:
        """What a query answers; with `snapshot`, several questions of it are answered as of one moment."""
        slot = self._free()
        if slot.lock._is_owned():
            raise errors.StoreError(
                f"{self._path}: a signal handler or __del__ cannot read while the call that it interrupted reads"
            )
        with slot.lock:
            try:
                return undisturbed(self._state, lambda state: self._run(slot, query, snapshot, state))
            except errors.Error:
                raise
            except UNTRANSLATED as error:
                raise translate(error, self._path) from error

    def _run(self, slot: _Slot, query: Callable[[apsw.Connection], T], snapshot: bool, state: State) -> T:
        if slot.is_used or slot.state != state:  # by a query that was interrupted; the file has changed
            self._drop(slot)
        if slot.db is None:
            slot.db, slot.state = self._connect(state), state
        db, slot.is_used = slot.db, True
        try:
            if snapshot:
                db.execute("BEGIN")
            answer = query(db)
            if snapshot:
                db.execute("ROLLBACK")  # nothing was written; of a damaged file, COMMIT would fail
        except BaseException:
            self._drop(slot)
            raise
        slot.is_used = False
        return answer

    def _free(self) -> _Slot:
        for slot in self._slots:
            if not slot.is_used:
                return slot
        return self._slots[threading.get_native_id() % len(self._slots)]

    def _drop(self, slot: _Slot) -> None:
        db = slot.db
        if db is not None:
            if self._in_memory:
                if db.in_transaction:
                    db.execute("ROLLBACK")
            else:
                db.close(True)
                slot.db = None
        slot.is_used = False

    def close(self) -> None:
        """Wait for the queries that run, and close all connections; the next query opens one again."""
        for slot in self._slots:
            with slot.lock:
                if self._in_memory:
                    slot.db = None
                else:
                    self._drop(slot)

    def leak(self) -> None:
        """In a child that was forked while queries ran: never close what belongs to the parent."""
        for slot in self._slots:
            if slot.db is not None:
                leak(slot.db)
