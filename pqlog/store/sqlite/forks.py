"""Forks: while a process forks, none of our SQLite connections is open and no thread is inside SQLite.

SQLite keeps a table of the locks that "this process" holds. It is memory, so a forked child inherits it; the POSIX
locks themselves are not inherited. A child that opened the same file found in that table that it held the locks, took
none, and another process closed the file under it: puts that had returned were lost, or the child died of SIGBUS. And a
mutex that another thread held inside SQLite at the moment of the fork stays locked in the child for ever.

So a hook runs before each fork: it waits until nobody is inside a transaction or a query, keeps newcomers waiting, and
closes all connections. Parent and child open the file again at their next call, each with locks of its own.

`subprocess`, `posix_spawn` and the start methods "spawn" and "forkserver" of `multiprocessing` do not get here: what
they start replaces the process's memory.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from pqlog.errors import ForkError

_registry = threading.RLock()
"""Held across a fork, so that nothing is opened meanwhile."""
_paused: list[Pausable] = []
_unsafe = False
"""Whether this process was forked in a moment in which SQLite was not at rest."""


class Pausable(Protocol):
    """An open file."""

    path: str

    def pause(self) -> None:
        """Wait until it is not used, keep others waiting, and close its connections."""

    def resume(self) -> None:
        """In the parent, after the fork: let others use it again."""

    def resume_in_child(self) -> bool:
        """The same in the child; False if it was not at rest when the process forked."""
        ...


_files: weakref.WeakSet[Pausable] = weakref.WeakSet()


def register(file: Pausable) -> None:
    """Let a file be closed around forks; to be called before it is opened."""
    check()
    with _registry:
        _files.add(file)


def is_open(path: str) -> bool:
    """Whether this process has a log open at a path."""
    with _registry:
        return any(file.path == path for file in _files)


def unregister(file: Pausable) -> None:
    """A file that is closed for good needs no care."""
    with _registry:
        _files.discard(file)


def check() -> None:
    """Raise if SQLite cannot be used in this process."""
    if _unsafe:
        raise ForkError(
            f"process {os.getpid()} was forked while its parent was inside a call of a log (from a signal handler, or "
            f"by a program that tells Python of a fork only afterwards), so it cannot use SQLite safely: start it by "
            f"subprocess or with multiprocessing's method 'spawn', or open logs only after the fork"
        )


def acquire(locks: Sequence[Any]) -> bool:
    """Acquire reentrant locks; False, and none of them, if this thread holds one already: it is in a call itself."""
    if any(lock._is_owned() for lock in locks):
        return False
    for lock in locks:
        lock.acquire()
    return True


def release(locks: Sequence[Any]) -> None:
    """Release those that this thread holds; also after an interrupt struck between two of them."""
    for lock in reversed(locks):
        if lock._is_owned():
            lock.release()


def _before() -> None:
    _registry.acquire()
    for file in list(_files):
        _paused.append(file)
        file.pause()


def _in_parent() -> None:
    while _paused:
        _paused.pop().resume()
    release([_registry])


def _in_child() -> None:
    global _unsafe, _registry
    _paused.clear()
    _registry = threading.RLock()  # another thread of the parent may have held it, if the hook before did not run
    for file in list(_files):
        if not file.resume_in_child():
            _unsafe = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
