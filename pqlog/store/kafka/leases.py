"""What this process has of a log's clients: the batches that it holds, and acknowledgements that wait to be committed.

A claim belongs to the holder of its object, in any thread. When nobody has it any more, the claim is free. That is only
noted at first: an object may be collected at any moment, in any thread. One thread of each log tells the cluster, and
renews the leases of what is held: they count for processes on other hosts, which cannot see whether this one lives.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pqlog import errors
from pqlog.store import owners
from pqlog.store.kafka.standing import Lease, Standing
from pqlog.store.owners import Fate
from pqlog.store.values import Claim

if TYPE_CHECKING:
    from pqlog.store.kafka.client import KafkaClient

LEASE_S = 60.0
"""How long a claim is respected of whose holder nothing is known; it is renewed three times before that is over."""
LAZY_S = 0.2
"""How long an acknowledgement of `get` may wait: what is lost at most, and comes again, if the process is killed."""
ACTIVE_S = 10.0
"""How long a client of a partition is left to the process that was handed a batch of it: several turns of its loop."""
LOOK_S = 1.0
"""How soon a claim is found to be left whose finalizer was struck by Ctrl-C; and how soon a failure is tried again."""

_held: set[int] = set()
"""The tokens of all claims that this process holds, by whatever open log."""


class Acknowledgement(NamedTuple):
    """Everything up to an offset, in an epoch of the client: not committed yet."""

    client: KafkaClient
    offset: int
    epoch: int
    due: float
    since: int


@dataclass(slots=True)
class _Held:
    """A claim that somebody in this process has, or had."""

    client: KafkaClient
    claim: weakref.ref[Claim]
    since: int
    renew_at: float
    expires: int | None = None
    """The end of its lease that the cluster knows of; None while it knows nothing: then others cannot have it."""


class Leases:
    """The claims and the waiting acknowledgements of one open log.

    Parameters
    ----------
    now : callable
        The cluster's time, in microseconds.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self._pid = os.getpid()
        self._moments = itertools.count()
        self._lock = threading.Lock()
        # By token: what is held, and what nobody holds any more though the cluster does not know yet.
        self._held: dict[int, _Held] = {}
        self._left: dict[int, _Held] = {}
        # By lane.
        self._acks: dict[str, Acknowledgement] = {}
        self._failed: dict[str, errors.Error] = {}
        self._retry_at: dict[str, float] = {}
        # Of all that threads can wait on, this alone may be written to by a finalizer.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        _ALL.add(self)

    # claims

    @staticmethod
    def end(begin: int) -> int:
        """When a lease ends that begins at some time."""
        return begin + int(LEASE_S * 1_000_000)

    def is_free(self, lease: Lease, worker: str) -> bool:
        """Whether a worker of this process may take a batch."""
        if not lease.process or (worker and worker == lease.worker):
            return True
        if lease.process == owners.this_process():
            self._sweep()
            return lease.token not in _held
        fate = owners.fate(lease.process)
        return fate is Fate.GONE or (fate is Fate.UNKNOWN and lease.expires <= self.now())

    def is_elsewhere(self, standing: Standing) -> bool:
        """Whether another process that lives is at work on a client of a partition: it is best left to that one.

        Each process that changes the client fences the one before, which takes longer than most batches.
        """
        if standing.process in ("", owners.this_process()) or owners.fate(standing.process) is Fate.GONE:
            return False
        return self.is_active(standing)

    def is_active(self, standing: Standing) -> bool:
        """Whether a batch was handed out a moment ago."""
        return self.now() - standing.active < ACTIVE_S * 1_000_000

    def hold(self, client: KafkaClient, claim: Claim) -> None:
        """A claim is handed out, to be held as long as somebody has this object. To be called before the commit."""
        token = claim.token
        self._left.pop(token, None)
        _held.add(token)
        ref = weakref.ref(claim, lambda _: self.leave(token))
        self._held[token] = _Held(client, ref, self.moment(), time.monotonic() + LEASE_S / 3)
        self._start()

    def drop(self, token: int) -> None:
        """It was acknowledged, released, or lost to somebody else."""
        self._held.pop(token, None)
        self._left.pop(token, None)
        _held.discard(token)

    def leave(self, token: int) -> None:
        """Nobody holds it any more. This waits for nothing: a finalizer may call it, in the midst of anything."""
        held = self._held.get(token)
        if held is not None and self._pid == os.getpid():
            self._left[token] = held  # first: Ctrl-C may strike behind each call
            _held.discard(token)
            self._held.pop(token, None)
            self._bell.put(None)

    def _sweep(self) -> None:
        """Find what is collected also where Ctrl-C struck in the call that should have said so."""
        for token in list(self._held):
            held = self._held.get(token)
            if held is not None and held.claim() is None:
                self.leave(token)

    # acknowledgements

    def acknowledge(self, client: KafkaClient, offset: int, epoch: int) -> None:
        """Commit it soon."""
        due = time.monotonic() + LAZY_S
        with self._lock:
            before = self._acks.get(client.lane)
            if before is not None:
                due = before.due
                offset = max(before.offset, offset) if before.epoch == epoch else offset
            self._acks[client.lane] = Acknowledgement(client, offset, epoch, due, self.moment())
        if before is None:
            self._start()
            self._bell.put(None)

    def acknowledge_more(self, lane: str, offset: int, epoch: int) -> bool:
        """The same where one waits that was looked at for: False if none does."""
        with self._lock:
            before = self._acks.get(lane)
            if before is None or before.epoch != epoch:
                return False
            if offset > before.offset:
                self._acks[lane] = before._replace(offset=offset, since=self.moment())
            return True

    def is_waiting(self, lane: str) -> bool:
        """Whether an acknowledgement of a client is not committed yet."""
        return lane in self._acks

    def tell(self, lane: str) -> None:
        """Raise what went wrong in the background since the last call: once, since it is tried again."""
        error = self._failed.pop(lane, None)
        if error is not None:
            raise error

    def waiting(self, lane: str) -> Acknowledgement | None:
        """The acknowledgement of a client that is not committed yet."""
        return self._acks.get(lane)

    def overlay(self, lane: str, standing: Standing, before: Acknowledgement | None = None) -> bool:
        """Let what waits count, in what the cluster keeps of a client; whether that changes anything.

        `before` is what waited before the cluster was asked: it may have been committed behind the answer.
        """
        is_changed = False
        for ack in (before, self.waiting(lane)):
            if ack is not None and standing.lacks(ack.offset, ack.epoch):
                standing.acknowledge(ack.offset)
                is_changed = True
        return is_changed

    # what the cluster is told, and knows

    def moment(self) -> int:
        """A number that is larger than all before: what was noted later says nothing about what was seen earlier."""
        return next(self._moments)

    def update(self, lane: str, standing: Standing) -> bool:
        """Change what the cluster keeps of a client to what this process knows; whether that changes anything.

        Acknowledgements that wait count, what was left is free, and leases that are due are renewed.
        """
        is_changed = self.overlay(lane, standing)
        now, end = time.monotonic(), None
        for lease in standing.claims:
            if lease.token in self._left:
                lease.release(lease.error)
                standing.leave(owners.this_process())
                is_changed = True
            elif (held := self._held.get(lease.token)) is not None and held.renew_at <= now:
                lease.expires = end = end or self.end(self.now())
                is_changed = True
        return is_changed

    def updated(self, lane: str, standing: Standing | None, moment: int) -> None:
        """The cluster kept this at a moment: what waited for it then is over."""
        known: Mapping[int, Lease] = {} if standing is None else {lease.token: lease for lease in standing.claims}
        ack = self._acks.get(lane)
        if ack is not None and ack.since < moment and (standing is None or not standing.lacks(ack.offset, ack.epoch)):
            with self._lock:
                if self._acks.get(lane) is ack:
                    del self._acks[lane]
        for token in list(self._left):
            held = self._left.get(token)
            if self._is_of(lane, held, moment) and not (token in known and known[token].process):
                self._left.pop(token, None)
        for token in list(self._held):
            held = self._held.get(token)
            if held is None or not self._is_of(lane, held, moment):
                continue
            if token not in known:
                if held.expires is not None:
                    self.drop(token)
            elif held.expires != known[token].expires:
                held.expires, held.renew_at = known[token].expires, time.monotonic() + LEASE_S / 3

    @staticmethod
    def _is_of(lane: str, held: _Held | None, moment: int) -> bool:
        return held is not None and held.client.lane == lane and held.since < moment

    def forget(self, lane: str) -> None:
        """The topic is gone: nothing waits for it."""
        moment = self.moment()
        self.updated(lane, None, moment)
        for token in list(self._held):
            if self._is_of(lane, self._held.get(token), moment):
                self.drop(token)

    # the thread

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if (self._thread is None or not self._thread.is_alive()) and not self._is_closed:
                    work = weakref.ref(self), self._bell
                    self._thread = threading.Thread(target=_run, args=work, name="pqlog-leases", daemon=True)
                    self._thread.start()

    def _clients(self, is_all: bool = False) -> dict[str, KafkaClient]:
        """The clients of which the cluster is to be told something; with `is_all`, though it is not due yet."""
        self._sweep()
        now = time.monotonic()
        found = {ack.client.lane: ack.client for ack in list(self._acks.values()) if is_all or ack.due <= now}
        for of, is_due in ((self._left, True), (self._held, False)):
            for token in list(of):
                held = of.get(token)
                if held is not None and (is_due or held.renew_at <= now):
                    found[held.client.lane] = held.client
        return {lane: client for lane, client in found.items() if is_all or self._retry_at.get(lane, 0.0) <= now}

    def work(self) -> float:
        """Tell the cluster what is due; in how many seconds there may be more."""
        for lane, client in self._clients().items():
            if self._is_closed:
                break
            if client.is_used:  # that tells the cluster, too, and may take long: there are others to look after
                self._retry_at[lane] = time.monotonic() + LAZY_S
                continue
            try:
                client.update()
            except errors.UnknownTopicError:
                self.forget(lane)
            except Exception as error:  # the thread lives on, and what it is to say stays noted
                told = error if isinstance(error, errors.Error) else errors.StoreError(f"{lane}: {error}")
                self._retry_at[lane] = time.monotonic() + LOOK_S
                if lane in self._acks:
                    self._failed[lane] = told
            else:
                self._retry_at.pop(lane, None)
        now = time.monotonic()
        times = [max(ack.due, self._retry_at.get(lane, 0.0)) for lane, ack in list(self._acks.items())]
        return max(0.0, min([LOOK_S, *(at - now for at in times)]))

    @property
    def is_over(self) -> bool:
        """Whether the thread shall end."""
        return self._is_closed or self._pid != os.getpid()

    @property
    def has_acknowledgements(self) -> bool:
        """Whether any waits."""
        return bool(self._acks)

    # the end

    def flush(self) -> None:
        """Commit the acknowledgements that wait."""
        for client in [ack.client for ack in list(self._acks.values())]:
            with contextlib.suppress(errors.UnknownTopicError):
                client.update()

    def close(self) -> None:
        """Commit what waits and give everything back; ends at the first failure, which is raised if it matters."""
        if self._is_closed or self._pid != os.getpid():
            return
        self._is_closed = True
        self._bell.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        for token in list(self._held):
            self.leave(token)
        for client in self._clients(is_all=True).values():
            try:
                client.update()
            except errors.UnknownTopicError:
                continue
            except errors.Error:
                if self._acks:
                    raise
                return


def _run(leases: weakref.ref[Leases], bell: queue.SimpleQueue[None]) -> None:
    """The thread; it does not keep a log alive that nobody has any more, unless acknowledgements wait."""
    while True:
        found = leases()
        if found is None or found.is_over:
            return
        wait_s = found.work()
        if not found.has_acknowledgements:
            found = None
        with contextlib.suppress(queue.Empty):
            bell.get(timeout=wait_s)


_ALL = weakref.WeakSet[Leases]()


@atexit.register
def _flush_all() -> None:
    """A program that ends without closing its logs has acknowledged what it was done with."""
    for leases in list(_ALL):
        if not leases.is_over:
            with contextlib.suppress(errors.Error):
                leases.flush()
