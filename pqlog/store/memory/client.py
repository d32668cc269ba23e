"""A client of a topic in memory, and its batches that are handed out."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pqlog import errors
from pqlog.store.values import LATEST, Claim, ClientState, Moved, Output, Put, Size, Span

if TYPE_CHECKING:
    from pqlog.store.memory.topic import MemoryTopic


@dataclass(slots=True)
class _Lease:
    """A batch that was handed out."""

    number: int
    span: Span
    messages: int
    token: int = 0
    attempt: int = 0
    worker: str = ""
    error: str | None = None
    is_free: bool = True
    holder: weakref.ref[Claim] | None = None
    """The object that was handed out: whoever has it holds the claim."""

    def is_for(self, worker: str) -> bool:
        """Whether a worker may take it."""
        return self.is_free or bool(worker and worker == self.worker) or self.holder is None or self.holder() is None


class MemoryClient:
    """A client; the protocol is `pqlog.store.api.ClientStore`."""

    def __init__(self, topic: MemoryTopic, name: str) -> None:
        self._topic, self.name = topic, name
        self._epoch: int | None = None
        """None while it is not known."""
        self._position = self._claimed = self._batches = self._seen = 0
        self._leases: dict[int, _Lease] = {}

    def state(self) -> ClientState | None:
        topic = self._topic
        with topic.locked():
            if self._epoch is None:
                return None
            kept = topic.span()
            unread, unclaimed = (Span(max(at, kept.first), kept.stop) for at in (self._position, self._claimed))
            return ClientState(
                self.name,
                unread.first,
                topic.count(unread),
                self._batches,
                self._epoch,
                self._seen,
                bool(self._leases),
                unread,
                unclaimed,
            )

    def join(self, start: int | None = None) -> ClientState:
        with self._topic.changing():
            if self._epoch is None:
                self._move(self._topic.span().first if start is None else start)
            state = self.state()
            assert state is not None
            return state

    def _move(self, to: int) -> None:
        """Let it stand at an offset, within what is kept, in a new epoch."""
        kept = self._topic.span()
        self._position = self._claimed = min(max(to, kept.first), kept.stop)
        self._epoch = self._topic.log.next_number()
        self._leases = {}
        self._saw()

    def _saw(self) -> None:
        self._seen = time.time_ns() // 1000

    def acknowledge(self, offset: int, epoch: int) -> bool:
        with self._topic.changing():
            self._check_unclaimed()
            if epoch != self._epoch:
                return False
            self._position = self._claimed = max(self._position, Span.at(offset).stop)
            self._saw()
            return True

    def _check_unclaimed(self) -> None:
        """Raise `ClaimedError` if a batch of it is handed out."""
        for lease in self._leases.values():
            first, last = lease.span.first, lease.span.last
            raise errors.ClaimedError(self.name, lease.number, first, last, self._topic.info.name)

    def seek(self, to: int) -> Moved:
        topic = self._topic
        with topic.changing():
            was = self.join().position
            self._move(to)
            now = self._position
            return Moved(now, again=topic.count(Span(now, was)), skipped=topic.count(Span(was, now)))

    def delete(self) -> bool:
        with self._topic.changing():
            was_known = self._epoch is not None
            self._epoch, self._batches, self._leases = None, 0, {}
            return was_known

    # batches

    def claims(self) -> list[Claim]:
        with self._topic.locked():
            return [self._claim(lease, "" if lease.is_for("") else lease.worker) for lease in self._leases.values()]

    def _claim(self, lease: _Lease, worker: str) -> Claim:
        owner = f"{worker}|{os.getpid()}" if lease.token and not lease.is_for("") else ""
        assert self._epoch is not None
        return Claim(
            self.name,
            self._epoch,
            lease.number,
            lease.span,
            lease.messages,
            lease.token,
            lease.attempt,
            owner,
            LATEST,
            lease.error,
        )

    def has_work(self, worker: str) -> bool:
        with self._topic.locked():
            state = self.state()
            is_any_free = any(lease.is_for(worker) for lease in self._leases.values())
            return state is None or is_any_free or self._topic.count(state.unclaimed) > 0

    def advance(
        self, size: Size, worker: str, done: Claim | None, outputs: Sequence[Output] = ()
    ) -> tuple[Claim | None, list[Put]]:
        with self._topic.changing():
            went = [] if done is None else self.finish(done, outputs)
            return self._take(size, worker), went

    def finish(self, done: Claim, outputs: Sequence[Output] = ()) -> list[Put]:
        with self._topic.changing():
            if self._held(done) is None:
                raise errors.ClaimLostError(self.name, done.number)
            went = self._topic.log.append_all(outputs)
            self._drop(done.number)
            return went

    def _held(self, claim: Claim) -> _Lease | None:
        """The lease of a claim, unless somebody else has it by now."""
        lease = self._leases.get(claim.number)
        return lease if lease is not None and lease.token == claim.token else None

    def _drop(self, number: int) -> None:
        """Forget a batch; everything before the first that is left is acknowledged."""
        del self._leases[number]
        self._position = min((lease.span.first for lease in self._leases.values()), default=self._claimed)
        self._saw()

    def _take(self, size: Size, worker: str) -> Claim | None:
        """Claim the first batch that is free, or cut a new one."""
        unclaimed = self.join().unclaimed
        for lease in list(self._leases.values()):
            if lease.is_for(worker):
                if self._topic.count(lease.span):
                    return self._hand_out(lease, worker)
                self._drop(lease.number)  # it was trimmed: nothing of it can be handed out
        offsets = self._offsets(unclaimed, size)
        if not offsets:
            return None
        span = Span.through(offsets[0], offsets[-1])
        self._batches, self._claimed = self._batches + 1, span.stop
        return self._hand_out(_Lease(self._batches, span, len(offsets)), worker)

    def _hand_out(self, lease: _Lease, worker: str) -> Claim:
        self._leases[lease.number] = lease
        lease.token, lease.attempt = self._topic.log.next_number(), lease.attempt + 1
        lease.worker, lease.is_free = worker, False
        self._saw()
        claim = self._claim(lease, worker)
        lease.holder = weakref.ref(claim)
        return claim

    def _offsets(self, span: Span, size: Size) -> list[int]:
        """The offsets of the messages of a new batch; of a segment, each takes as much as the others."""
        found: list[int] = []
        left = float("inf") if size.max_bytes is None else size.max_bytes
        for row in self._topic.all_rows(span):
            for offset in range(row.offset, row.stop):
                left -= len(row.value) / (row.whole or 1)
                if len(found) == size.messages or (left < 0 and found):
                    return found
                found.append(offset)
        return found

    def release(self, claim: Claim, error: str | None) -> bool:
        with self._topic.changing():
            lease = self._held(claim)
            if lease is not None:
                lease.is_free, lease.error = True, error
            return lease is not None

    def leave(self, claim: Claim) -> None:
        lease = self._held(claim)
        if lease is not None:  # without the lock, which may be held: whoever waits looks again in time
            lease.is_free = True
