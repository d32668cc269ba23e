"""Transactions in memory: one at a time, all or nothing, also if Ctrl-C interrupts one."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pqlog.errors import ForkError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Part")


class Transactions:
    """The lock of a log, and the transaction that is running.

    Parameters
    ----------
    parts : callable
        All objects that a transaction may change. Their attributes are lists, dicts, and what is not changed in place.
    """

    def __init__(self, parts: Callable[[], list[Any]]) -> None:
        self._parts = parts
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._is_running = False
        self._pid = os.getpid()

    def locked(self) -> threading.RLock:
        """The lock, for a ``with``. Raises in a forked child, where a thread that is not there may hold it for ever."""
        if self._pid != os.getpid():
            raise ForkError("a log in memory belongs to the process that opened it: open another in the child")
        return self._lock

    def run(self, change: Callable[[], R]) -> R:
        """Run a change, with the lock held; if it raises, everything is as it was. A change may consist of others."""
        if self._is_running:
            return change()
        before = [(vars(part), {name: _copied(value) for name, value in vars(part).items()}) for part in self._parts()]
        self._is_running = True
        try:
            return change()
        except BaseException:
            for now, then in before:
                now.update(then)
            raise
        finally:
            self._is_running = False
            self.changed.notify_all()


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (list, dict)) else value


class Part(Protocol):
    """An object of a log."""

    transactions: Transactions

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""


def reading(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """A method that sees one moment: nobody else changes anything meanwhile."""

    @functools.wraps(method)
    def run(self: T, /, *args: P.args, **options: P.kwargs) -> R:
        with self.transactions.locked():
            self.check()
            return method(self, *args, **options)

    return run


def changing(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """A method that is a transaction."""

    @functools.wraps(method)
    def run(self: T, /, *args: P.args, **options: P.kwargs) -> R:
        with self.transactions.locked():
            self.check()
            return self.transactions.run(functools.partial(method, self, *args, **options))

    return run
