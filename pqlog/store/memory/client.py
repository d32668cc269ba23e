"""A client of a partition in memory, and its batches that are handed out."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pqlog import errors
from pqlog.store.memory.transaction import changing, reading
from pqlog.store.values import LATEST, Claim, ClientState, Done, Moved, Output, Put, Size, Span

if TYPE_CHECKING:
    from pqlog.store.memory.topic import MemoryTopic


@dataclass(frozen=True)
class _Lease:
    """A batch that was handed out."""

    claim: Claim
    """A copy: whoever has the object that was handed out holds the batch."""
    worker: str
    holder: weakref.ref[Claim] | None
    """That object; None if it was released."""


class MemoryClient:
    """A client; the protocol is `pqlog.store.api.ClientStore`."""

    def __init__(self, topic: MemoryTopic, name: str) -> None:
        self._topic, self.name, self.transactions = topic, name, topic.transactions
        self._epoch: int | None = None
        """None while it is not known."""
        self._position = self._claimed = self._batches = self._seen = 0
        self._leases: dict[int, _Lease] = {}
        self._left: set[int] = set()
        """Tokens of claims that were left: noted without the lock, and not a part of any transaction."""

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""
        self._topic.check()

    @reading
    def state(self) -> ClientState | None:
        if self._epoch is None:
            return None
        kept = self._topic.span()
        unread, unclaimed = (Span(max(at, kept.first), kept.stop) for at in (self._position, self._claimed))
        return ClientState(
            client=self.name,
            position=unread.first,
            lag=self._topic.count(unread),
            batches=self._batches,
            epoch=self._epoch,
            seen=self._seen,
            open=bool(self._leases),
            unread=unread,
            unclaimed=unclaimed,
        )

    @changing
    def join(self, start: int | None = None) -> ClientState:
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

    @changing
    def acknowledge(self, offset: int, epoch: int) -> bool:
        for claim in self.claims():
            raise errors.ClaimedError.of(claim, self._topic.info)
        if epoch != self._epoch:
            return False
        self._position = self._claimed = max(self._position, Span.at(offset).stop)
        self._saw()
        return True

    @changing
    def seek(self, to: int) -> Moved:
        """Let it get the message at an offset next; it is created if it does not exist."""
        was = self.join().position
        self._move(to)
        now, count = self._position, self._topic.count
        return Moved(now, again=count(Span(now, was)), skipped=count(Span(was, now)))

    @changing
    def delete(self) -> bool:
        """Delete it; False if it does not exist."""
        was_known = self._epoch is not None
        self._epoch, self._batches, self._leases = None, 0, {}
        return was_known

    # batches

    @reading
    def claims(self) -> list[Claim]:
        return [
            replace(lease.claim, owner="") if self._is_free(lease, "") else lease.claim
            for lease in self._leases.values()
        ]

    def _is_free(self, lease: _Lease, worker: str) -> bool:
        """Whether a worker may take a batch."""
        is_held = lease.holder is not None and lease.holder() is not None and lease.claim.token not in self._left
        return not is_held or bool(worker and worker == lease.worker)

    def _is_blocked(self, worker: str, ordered: bool) -> bool:
        """Whether a worker may take nothing, since another batch is in somebody's hands."""
        return ordered and not all(self._is_free(lease, worker) for lease in self._leases.values())

    @reading
    def has_work(self, worker: str, ordered: bool = False) -> bool:
        if self._is_blocked(worker, ordered):
            return False
        state = self.state()
        is_any_free = any(self._is_free(lease, worker) for lease in self._leases.values())
        return state is None or is_any_free or self._topic.count(state.unclaimed) > 0

    @changing
    def advance(
        self, size: Size, worker: str, done: Done | None = None, ordered: bool = False
    ) -> tuple[Claim | None, list[Put]]:
        went = [] if done is None else done.client.finish(done.claim, done.outputs)
        return None if self._is_blocked(worker, ordered) else self._take(size, worker), went

    @changing
    def finish(self, done: Claim, outputs: Sequence[Output] = ()) -> list[Put]:
        if not self._has(done):
            raise errors.ClaimLostError(self.name, done.number, partition=self._topic.info.number)
        went = self._topic.log.put_all(outputs)
        self._drop(done.number)
        return went

    def _has(self, claim: Claim) -> bool:
        """Whether nobody else has a batch by now."""
        lease = self._leases.get(claim.number)
        return lease is not None and lease.claim.token == claim.token

    def _drop(self, number: int) -> None:
        """Forget a batch; everything before the first that is left is acknowledged."""
        self._left.discard(self._leases.pop(number).claim.token)
        self._position = min((lease.claim.span.first for lease in self._leases.values()), default=self._claimed)
        self._saw()

    def _take(self, size: Size, worker: str) -> Claim | None:
        """Claim the first batch that is free, or cut a new one."""
        state = self.state() or self._begin_again()
        for lease in list(self._leases.values()):
            if self._is_free(lease, worker):
                if self._topic.count(lease.claim.span):
                    return self._hand_out(lease.claim, worker)
                self._drop(lease.claim.number)  # it was trimmed: nothing of it can be handed out
        offsets = self._offsets(state.unclaimed, size)
        if not offsets:
            return None
        span = Span.through(offsets[0], offsets[-1])
        self._batches, self._claimed = self._batches + 1, span.stop
        new = Claim(self.name, state.epoch, self._batches, span, len(offsets), 0, 0, "", LATEST, None)
        return self._hand_out(new, worker)

    def _begin_again(self) -> ClientState:
        """Create it in every partition."""
        for partition in self._topic.partitions.all:
            partition.client(self.name).join()
        return self.join()

    def _hand_out(self, claim: Claim, worker: str) -> Claim:
        self._left.discard(claim.token)
        token, owner = self._topic.log.next_number(), f"{worker}|{os.getpid()}"
        claim = replace(claim, token=token, attempt=claim.attempt + 1, owner=owner)
        self._leases[claim.number] = _Lease(replace(claim), worker, weakref.ref(claim))
        self._saw()
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
        try:
            return self._release(claim, error)
        except errors.UnknownTopicError:  # nobody misses it
            return False

    @changing
    def _release(self, claim: Claim, error: str | None) -> bool:
        if not self._has(claim):
            return False
        lease = self._leases[claim.number]
        self._leases[claim.number] = replace(lease, claim=replace(lease.claim, error=error), holder=None)
        return True

    def leave(self, claim: Claim) -> None:
        self._left.add(claim.token)  # without the lock, which may be held: whoever waits looks again in time
