"""Sending: puts whose callers do not wait. One thread commits all that was sent while it committed what came before.

It lives as long as there is something to commit, and a moment longer, so that an open log that nobody uses has no
thread, and one that nobody has any more is not kept alive. It is no daemon: when a program ends, the interpreter waits
until all that was sent is durable. Ctrl-C strikes the main thread only, so it never interrupts a commit of this one.
"""

from __future__ import annotations

import atexit
import operator
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from pqlog.errors import ClosedError, Error, ForkError, StoreError, UncertainError
from pqlog.store.api import Store
from pqlog.store.values import PartitionOffset, Single

MOST, MOST_BYTES = 1_000, 64 << 20
"""How many messages may be under way, and how much memory their values may take; one may be larger."""
TOGETHER = 500
"""How many are committed at once at most, as in the writer of a file."""
IDLE_S = 0.05
"""How long the thread waits for more before it ends: a program that ends waits for that, too."""
RECHECK_S = 0.2
"""How soon somebody who waits looks for himself: Ctrl-C may have struck between two steps of another."""


class _Condition(threading.Condition):
    """A condition whose lock is acquired and released by the ``with`` itself.

    `threading.Condition` does that in methods, which Ctrl-C may leave between the acquisition and their end: a lock
    that stays locked then would stop the thread that commits.
    """

    __enter__ = property(operator.attrgetter("_lock.__enter__"))
    __exit__ = property(operator.attrgetter("_lock.__exit__"))


class Sent(Future[Any]):
    """The future of a message that was sent."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = _Condition()
        self.is_watched = False
        """Whether somebody has asked for its outcome: what nobody has is told by `close`."""

    def result(self, timeout: float | None = None) -> Any:
        self.is_watched = True
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.is_watched = True
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        self.is_watched = True
        super().add_done_callback(fn)

    def lose(self, error: BaseException) -> None:
        """In a forked child, where it does not come, and where another thread may have held its lock."""
        self._condition = _Condition()
        if not self.done():
            self.set_exception(error)


class _Waiting(NamedTuple):
    """A message that waits to be committed."""

    future: Sent
    single: Single


class Sender:
    """What was sent through an open log and is not durable yet.

    Parameters
    ----------
    log : Store
    """

    def __init__(self, log: Store) -> None:
        self._log = log
        self._is_closed = False
        self._failures: list[Sent] = []
        """Those that failed, as far as nobody is known to have asked for their outcome."""
        self._begin()
        _ALL.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        """Held for moments, in a ``with``, which Ctrl-C cannot leave with the lock acquired."""
        self._waiting: deque[_Waiting] = deque()
        self._taken: list[_Waiting] = []
        """What is being committed."""
        self._sent = self._settled = self._bytes = 0
        self._thread: int | None = None
        """The thread that commits."""
        self._is_asleep = False
        self._sleep = threading.Lock()
        """What it sleeps on."""
        self._sleep.acquire()
        self._sleepers: deque[threading.Lock] = deque()
        """What those sleep on who wait for it."""

    @property
    def is_busy(self) -> bool:
        """Whether something is under way that a put of the same thread must come behind."""
        return self._sent != self._settled and self._thread != threading.get_ident()

    def send(self, single: Single) -> Sent:
        """Commit a message soon; waits while too much is under way."""
        while (sent := self.try_send(single)) is None:
            self._sleep_until(lambda: self._has_room(len(single.value)))
        return sent

    def try_send(self, single: Single) -> Sent | None:
        """The same; None if too much is under way."""
        future = Sent()
        if not self._add(_Waiting(future, single), len(single.value)):
            return None
        if self._thread is None:
            self._start()
        elif self._is_asleep:
            self._wake()
        return future

    def refused(self, error: Exception) -> Sent:
        """The future of a message that cannot be put at all."""
        future = Sent()
        future.set_exception(error)
        self._note(future)
        return future

    def _add(self, one: _Waiting, size: int) -> bool:
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"{self._log.name} was closed; nothing was written")
            if not self._has_room(size):
                return False
            self._waiting.append(one)
            self._sent += 1
            self._bytes += size
            return True

    def _has_room(self, size: int) -> bool:
        under_way = self._sent - self._settled
        is_within = under_way < MOST and self._bytes + size <= MOST_BYTES
        return is_within or not under_way or self._thread == threading.get_ident()  # in a callback: nobody makes room

    # waiting

    def flush(self) -> None:
        """Wait until all is settled that was sent until now."""
        until = self._sent
        if self._thread != threading.get_ident():
            self._sleep_until(lambda: self._settled >= until)

    def close(self) -> None:
        """Take no more, wait for all, and raise what failed though nobody has asked."""
        with self._lock:
            self._is_closed = True
        self.flush()
        self.tell()

    def tell(self) -> None:
        """Raise what failed though nobody has asked for its outcome."""
        unseen = [future for future in self._failures if not future.is_watched]
        self._failures = []
        if unseen and (error := unseen[0].exception()) is not None:
            messages = "a message was" if len(unseen) == 1 else f"{len(unseen):,} messages were"
            error.add_note(f"So {messages} not put: sent, by a future that nobody has asked for its result.")
            raise error

    def _sleep_until(self, is_over: Callable[[], bool]) -> None:
        lock = threading.Lock()
        lock.acquire()
        try:
            self._sleepers.append(lock)
            while not is_over():
                if self._thread is None:
                    self._start()
                lock.acquire(timeout=RECHECK_S)
        finally:
            if lock in self._sleepers:
                self._sleepers.remove(lock)

    def _wake(self) -> None:
        try:  # noqa: SIM105 - shorter than a call of suppress()
            self._sleep.release()
        except RuntimeError:  # another thread has woken it
            pass

    # the thread

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="pqlog-send").start()
        except RuntimeError:  # the interpreter is ending, and starts none
            self._run()

    def _run(self) -> None:
        with self._lock:
            if self._thread is not None or not self._waiting:
                return  # another was started
            self._thread = threading.get_ident()
        try:
            while batch := self._take():
                self._settle(batch, self._commit([one.single for one in batch]))
        except BaseException as error:  # no memory, say
            self._thread = None
            for one in self._taken:
                if not one.future.done():
                    one.future.set_exception(UncertainError(f"the thread that puts what was sent has ended: {error!r}"))
            self._forget_taken()
            raise

    def _take(self) -> Sequence[_Waiting]:
        """What is to be committed next, none of it cancelled; empty if the thread is to end."""
        while self._has_more():
            with self._lock:
                self._taken = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            batch = [one for one in self._taken if one.future.set_running_or_notify_cancel()]
            if batch:
                return batch
            self._forget_taken()
        return ()

    def _has_more(self) -> bool:
        """Whether there is something to commit, or comes soon; otherwise the thread is over."""
        while not self._waiting:
            self._is_asleep = True
            is_woken = bool(self._waiting) or self._sleep.acquire(timeout=IDLE_S)
            self._is_asleep = False
            with self._lock:
                if not (self._waiting or is_woken):
                    self._thread = None
                    return False
        return True

    def _commit(self, singles: Sequence[Single]) -> Sequence[PartitionOffset | Exception]:
        try:
            return self._log.append_each(singles)
        except Error as error:
            return [error] * len(singles)
        except Exception as error:  # of whatever kind: a future that never ends would be worse
            failed = StoreError(f"{self._log.name}: {type(error).__name__}: {error}")
            failed.__cause__ = error
            return [failed] * len(singles)

    def _settle(self, batch: Sequence[_Waiting], outcomes: Sequence[PartitionOffset | Exception]) -> None:
        for (future, single), outcome in zip(batch, outcomes, strict=True):
            try:
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                    self._note(future)
                else:
                    future.set_result(outcome.offset if single.topic.info.partitions == 1 else outcome)
            except BaseException:  # noqa: S110 - a callback ended the thread, sys.exit() say: the others are told too
                pass
        self._forget_taken()

    def _forget_taken(self) -> None:
        with self._lock:
            taken, self._taken = self._taken, []
            self._settled += len(taken)
            self._bytes -= sum([len(one.single.value) for one in taken])
        for lock in tuple(self._sleepers):
            try:  # noqa: SIM105
                lock.release()
            except RuntimeError:  # it was woken before
                pass

    def _note(self, future: Sent) -> None:
        if not future.is_watched:
            if len(self._failures) >= MOST:
                self._failures = [one for one in self._failures if not one.is_watched][: MOST - 1]
            self._failures.append(future)

    # forks

    def forked(self) -> None:
        """In a forked child: what is under way belongs to the parent."""
        lost = [*self._taken, *self._waiting]
        self._failures = []
        self._begin()
        for one in lost:
            one.future.lose(ForkError("the message was sent by the parent of this process, which puts it"))


_ALL: weakref.WeakSet[Sender] = weakref.WeakSet()


def _forked() -> None:
    for sender in list(_ALL):
        sender.forked()


@atexit.register
def _tell_all() -> None:
    """A program that ends without closing its logs says what was not put."""
    for sender in list(_ALL):
        sender.flush()
        try:
            sender.tell()
        except Error as error:
            sys.excepthook(type(error), error, error.__traceback__)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
