"""Waiting for messages: woken at once by this process and, on Linux, by what others write; by polling elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pqlog.errors import ClosedError
from pqlog.store.sqlite import inotify

FIRST_POLL_S = 0.001
LONGEST_POLL_S = 60.0
"""Longer ones are cut into pieces: the system's calls take no time-out without end."""
SOON_S = (0.0001, 0.0001, 0.0002, 0.0004, 0.0008, 0.0015)
"""When to look once another process has written: its commit counts once it is synced."""


class Watch:
    """What threads wait on. Every commit of this process, `trigger` and `close` move its sequence number on.

    Parameters
    ----------
    path : str
        For error messages.
    wal : str, optional
        The file that every commit is appended to, by whatever process.
    """

    def __init__(self, path: str, wal: str | None) -> None:
        self._path, self._wal = path, wal
        self._numbers = itertools.count(1)
        self._sequence = 0
        self._waiters: set[_Waiter] = set()
        self._closed = False

    def notify(self) -> None:
        """Something may have changed: all waiting threads look again."""
        # No lock: a thread that comes to wait looks at the number again before it sleeps. Each call gives a new
        # number, so that of two at once neither goes unnoticed, whichever is stored last.
        self._sequence = next(self._numbers)
        if self._waiters:
            for waiter in tuple(self._waiters):
                waiter.wake()

    def close(self) -> None:
        """End all waiting calls with `ClosedError`."""
        self._closed = True
        self.notify()

    def forked(self) -> None:
        """In a forked child, which has none of the waiting threads: close what they slept on."""
        for waiter in tuple(self._waiters):
            waiter.forked()
        self._waiters.clear()

    def wait(self, ready: Callable[[], bool], timeout_s: float | None, tick_s: float) -> bool:
        """Wait until `ready`; False when the time is up.

        The sequence number is read before `ready` looks, so that what lands in between is not missed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        tick_s = min(tick_s, LONGEST_POLL_S)
        poll_s, seen = min(FIRST_POLL_S, tick_s), self._sequence
        if ready():
            return True
        with _Waiter(self._wal, self._waiters) as waiter:
            while not ready():
                left_s = poll_s if deadline is None else min(poll_s, deadline - time.monotonic())
                if self._closed:
                    raise ClosedError(f"{self._path} was closed")
                if self._sequence == seen and left_s > 0 and waiter.wait(left_s) and self._sequence == seen:
                    for soon_s in SOON_S:  # written by another process
                        time.sleep(min(soon_s, tick_s))
                        if ready():
                            return True
                if deadline is not None and time.monotonic() >= deadline:
                    return ready()
                poll_s = min(poll_s * 1.5, tick_s)
                seen = self._sequence  # woken, it may be by something else: look again
        return True


class _Waiter:
    """What one thread sleeps on, in a ``with``."""

    def __init__(self, wal: str | None, waiters: set[_Waiter]) -> None:
        self._woken = threading.Event()
        self._closing = threading.Lock()  # else a wake-up could write to whatever has the number of a closed pipe
        self._waiters, self._descriptors = waiters, list[int]()
        self._poll: select.poll | None = None
        self._written = self._pipe_out = self._pipe_in = -1
        written = None if wal is None else inotify.watch({wal: inotify.MODIFY})
        if written is not None:
            self._descriptors.append(written)
            try:
                self._pipe_out, self._pipe_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # no descriptors are left: wake by polling
                return
            self._descriptors += [self._pipe_out, self._pipe_in]
            self._written, self._poll = written, select.poll()
            self._poll.register(written, select.POLLIN)
            self._poll.register(self._pipe_out, select.POLLIN)

    def __enter__(self) -> Self:
        self._waiters.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiters.discard(self)
        self.close()

    def wake(self) -> None:
        """Wake the thread."""
        self._woken.set()
        with self._closing:
            if self._poll is not None:
                with contextlib.suppress(BlockingIOError):  # full: it will wake
                    os.write(self._pipe_in, b"!")

    def wait(self, timeout_s: float) -> bool:
        """Sleep until woken, or until another process has written; whether it was that."""
        if self._poll is None:
            self._woken.wait(timeout_s)
            self._woken.clear()
            return False
        found = {fd for fd, _ in self._poll.poll(max(1, timeout_s * 1000))}
        for fd in found:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 65536)
        return self._written in found

    def close(self) -> None:
        """Let go."""
        with self._closing:
            self._poll = None
            while self._descriptors:
                os.close(self._descriptors.pop())

    def forked(self) -> None:
        """The same in a forked child, where another thread may hold the lock for ever."""
        self._closing = threading.Lock()
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_descriptors"):  # Ctrl-C may strike before it is
            self.close()
