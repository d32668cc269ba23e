"""A client of a partition on a cluster: how far it has come, and which batches are handed out to it.

What the log keeps of it is one value in a *lane* of its own (`pqlog.store.kafka.lanes`): one process holds that, and
what it commits is refused from when another takes it. So a lane is taken only to change something; what others do is
looked at.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pqlog import errors
from pqlog.store import owners
from pqlog.store.api import ClientStore
from pqlog.store.kafka.fencing import Fenced, give_way
from pqlog.store.kafka.lane import Transaction, lanes_for
from pqlog.store.kafka.standing import KEY, Lease, Standing, lanes_of
from pqlog.store.kafka.taking import Stale, Taking
from pqlog.store.values import Claim, ClientState, Done, Moved, Output, Put, Size, Span

if TYPE_CHECKING:
    from pqlog.store.kafka.leases import Acknowledgement
    from pqlog.store.kafka.store import KafkaStore
    from pqlog.store.kafka.topic import KafkaTopic

T = TypeVar("T")

GIVE_WAY_S = 0.3
"""How long a worker waits before it looks again at what another process took meanwhile."""
AGAIN_S = 0.002
"""How long it waits if another thread was faster."""


class KafkaClient:
    """A client; the protocol is `pqlog.store.api.ClientStore`. What ends in `_in` runs inside a transaction."""

    def __init__(self, topic: KafkaTopic, name: str) -> None:
        self.name = name
        self.topic, self.leases, self._log = topic, topic.log.leases, topic.log
        self.lane = f"{lanes_of(topic.topic_id, topic.info.partition)}{name}"

    def look(self) -> Standing | None:
        """Where it stands, as this process knows it: without taking the lane."""
        self.topic.check()
        waiting = self.leases.waiting(self.lane)
        return self.seen(self._log.lanes.look(self.lane), waiting)

    def recall(self) -> Standing | None:
        """Where it stands by the memory of this process: a transaction finds out if another process changed it."""
        waiting = self.leases.waiting(self.lane)
        return self.seen(self._log.lanes.recall(self.lane), waiting)

    def seen(self, values: Mapping[str, Any], waiting: Acknowledgement | None) -> Standing | None:
        """Where it stands by what was found in its lane, and by what waited to be committed before that was read."""
        standing = Standing.found_in(values)
        if standing is not None:
            self.leases.overlay(self.lane, standing, waiting)
        return standing

    def state(self) -> ClientState | None:
        standing = self.look()
        return None if standing is None else self.state_of(standing, self.topic.span())

    def state_of(self, standing: Standing, kept: Span) -> ClientState:
        """Its state, by where it was found to stand and what is kept."""
        return standing.state(self.name, kept, self.topic.count)

    def open_batches(self) -> tuple[int, int]:
        """How many batches are handed out, and the largest number of attempts among them."""
        standing = self.look()
        claims = [] if standing is None else standing.claims
        return len(claims), max((lease.attempt for lease in claims), default=0)

    def join(self, start: int | None = None) -> ClientState:
        standing = self.look()
        if standing is None:
            standing = self._change(lambda tx: self.join_in(tx, start))
        return self.state_of(standing, self.topic.span())

    def acknowledge(self, offset: int, epoch: int) -> bool:
        self._log.check()
        self.topic.check_now_and_then()
        self.leases.tell(self.lane)
        if self.leases.acknowledge_more(self.lane, offset, epoch):
            return True
        standing = self.look()
        if standing is None or self._is_claimed(standing) or epoch != standing.epoch:
            return False
        self.leases.acknowledge(self, offset, epoch)
        return True

    def _is_claimed(self, standing: Standing) -> bool:
        """False; raises if a batch is handed out."""
        for lease in standing.claims:
            raise errors.ClaimedError.of(lease.claim(self.name, standing.epoch), self.topic.info)
        return False

    # for the log, which changes several at once

    def standing_in(self, tx: Transaction) -> Standing | None:
        """Where it stands, exactly, and with what this process knows of it."""
        standing = Standing.found_in(tx.values(self.lane))
        if standing is not None:
            self.leases.update(self.lane, standing)
        return standing

    def kept_in(self, tx: Transaction) -> Standing | None:
        """Where it stands once the transaction is committed."""
        return Standing.found_in(tx.values(self.lane))

    def keep_in(self, tx: Transaction, standing: Standing | None) -> None:
        """Let it stand somewhere; None deletes it."""
        tx.set(self.lane, KEY, None if standing is None else standing.value())

    def join_in(self, tx: Transaction, start: int | None = None) -> Standing:
        """Create it if it does not exist."""
        standing = self.standing_in(tx)
        if standing is None:
            kept = self.topic.span()
            standing = Standing.begin(kept.first if start is None else min(max(start, kept.first), kept.stop))
            self.keep_in(tx, standing)
        return standing

    def seek_in(self, tx: Transaction, to: int) -> Moved:
        """Let it get the message at an offset next; it is created if it does not exist."""
        before, kept = self.standing_in(tx), self.topic.span()
        was = kept.first if before is None else max(before.position, kept.first)
        now = min(max(to, kept.first), kept.stop)
        self.keep_in(tx, Standing.begin(now, 0 if before is None else before.batches))
        count = self.topic.count
        return Moved(now, again=count(Span(now, was)), skipped=count(Span(was, now)))

    def delete_in(self, tx: Transaction) -> bool:
        """Delete it; False if it does not exist."""
        if self.standing_in(tx) is None:
            return False
        self.keep_in(tx, None)
        return True

    def _change(self, work: Callable[[Transaction], T], *lanes: str, retake: bool = True) -> T:
        """One transaction that changes it."""

        def whole(tx: Transaction) -> tuple[T, Standing | None, int]:
            result = work(tx)
            return result, self.kept_in(tx), self.leases.moment()

        result, kept, moment = self._log.lanes.change([self.lane, *lanes], whole, retake=retake)
        self.leases.updated(self.lane, kept, moment)
        return result

    @property
    def is_used(self) -> bool:
        """Whether another thread is changing it."""
        return self._log.lanes.is_used(self.lane)

    def update(self) -> None:
        """Let the cluster know what waits: acknowledgements, claims that were left, leases that are due."""
        self.topic.check()
        moment = self.leases.moment()
        standing = Standing.found_in(self._log.lanes.look(self.lane))
        if standing is not None and self.leases.update(self.lane, standing):
            self._change(self._update_in)
        else:
            self.leases.updated(self.lane, standing, moment)

    def _update_in(self, tx: Transaction) -> None:
        standing = self.standing_in(tx)
        if standing is not None:
            self.keep_in(tx, standing)

    # batches

    def claims(self) -> list[Claim]:
        if self.leases.is_waiting(self.lane):
            self.update()
        standing = self.look()
        if standing is None:
            return []
        return [lease.claim(self.name, standing.epoch, self.is_free(lease)) for lease in standing.claims]

    def is_free(self, lease: Lease, worker: str = "") -> bool:
        return self.leases.is_free(lease, worker)

    def has_work(self, worker: str, ordered: bool = False) -> bool:
        standing = self.look()
        return standing is None or self.may_take(standing, self.topic.span(), worker, ordered)

    def may_take(self, standing: Standing, kept: Span, worker: str, ordered: bool, is_share: bool = False) -> bool:
        """Whether there is work, by where it was found to stand; another busy process's only if `is_share`."""
        if not is_share and self.leases.is_elsewhere(standing) and not standing.is_of(worker):
            return False
        are_free = [self.is_free(lease, worker) for lease in standing.claims]
        if ordered and not all(are_free):
            return False
        unclaimed = Span(max(standing.claimed, kept.first), kept.stop)
        return any(are_free) or self.topic.count(unclaimed) > 0

    def advance(
        self, size: Size, worker: str, done: Done | None = None, ordered: bool = False
    ) -> tuple[Claim | None, list[Put]]:
        taking = Taking(self, size, worker, ordered)
        own = done.claim if done is not None and _ours(done.client).lane == self.lane else None
        until = time.monotonic() + self._log.cluster.timeout_s
        try:
            while True:
                if not taking.look(own) and done is None:
                    return None, []
                try:
                    claim, went = self._advance(taking, done)
                    break
                except Stale:  # this process knew too little, or another thread of it was faster
                    if time.monotonic() > until:
                        return None, [] if done is None else self._finish(done.claim, done.outputs)
                    give_way(AGAIN_S)
                except Fenced:
                    if done is not None and own is None:  # the other process may have that partition
                        return None, _ours(done.client)._finish(done.claim, done.outputs)
                    give_way(GIVE_WAY_S)
                    if time.monotonic() > until or not self._is_left(worker, ordered, done is None):
                        return None, [] if done is None else self._finish(done.claim, done.outputs)
        except BaseException:  # which may keep the claim, and may have come after the commit
            if taking.claim is not None:
                self.leave(taking.claim)
            raise
        if done is not None:
            _ours(done.client)._ended(done.claim)
        return claim, went

    def _is_left(self, worker: str, ordered: bool, is_share: bool) -> bool:
        """Whether a batch is still to be had, though another process took the lane meanwhile."""
        standing = self.look()
        return standing is None or self.may_take(standing, self.topic.span(), worker, ordered, is_share)

    def _advance(self, taking: Taking, done: Done | None) -> tuple[Claim | None, list[Put]]:
        lanes = list(taking.lanes)
        if done is not None:
            lanes += [_ours(done.client).lane, *lanes_for(done.outputs)]

        def work(tx: Transaction) -> tuple[Claim | None, list[Put]]:
            if done is not None:
                _ours(done.client).finish_in(tx, done.claim)
            claim = taking.take_in(tx)
            if done is not None and claim is None:
                _ours(done.client).leave_in(tx)
            return claim, [] if done is None else tx.put_all(done.outputs)

        return self._change(work, *lanes, retake=False)

    def finish(self, done: Claim, outputs: Sequence[Output] = ()) -> list[Put]:
        return self._finish(done, outputs, is_leaving=True)

    def _finish(self, done: Claim, outputs: Sequence[Output], is_leaving: bool = False) -> list[Put]:
        """The same; it may be left for others."""

        def work(tx: Transaction) -> list[Put]:
            self.finish_in(tx, done)
            if is_leaving:
                self.leave_in(tx)
            return tx.put_all(outputs)

        went = self._change(work, *lanes_for(outputs))
        self._ended(done)
        return went

    def finish_in(self, tx: Transaction, done: Claim) -> None:
        """Acknowledge a batch."""
        owners.check_mine(done)
        self.topic.check_in(tx)
        standing = self.standing_in(tx)
        lease = None if standing is None else standing.find(done.number, done.token)
        if standing is None or lease is None:
            raise errors.ClaimLostError(self.name, done.number, partition=self.topic.info.number)
        standing.drop(lease)
        standing.saw()
        if standing.process == owners.this_process():
            standing.active = self.leases.now()
        self.keep_in(tx, standing)

    def leave_in(self, tx: Transaction) -> None:
        """Let other processes take the next batch at once."""
        standing = self.standing_in(tx)
        if standing is not None and standing.process:
            standing.leave(owners.this_process())
            self.keep_in(tx, standing)

    def _ended(self, claim: Claim) -> None:
        """A claim is over."""
        self.leases.drop(claim.token)

    def release(self, claim: Claim, error: str | None) -> bool:
        owners.check_mine(claim)
        try:
            is_released: bool = self._is_held(claim) and self._change(lambda tx: self._release_in(tx, claim, error))
        except errors.UnknownTopicError:  # nobody misses it
            is_released = False
        self._ended(claim)
        return is_released

    def _is_held(self, claim: Claim) -> bool:
        """Whether nobody else has a batch by now."""
        standing = self.look()
        return standing is not None and standing.find(claim.number, claim.token) is not None

    def _release_in(self, tx: Transaction, claim: Claim, error: str | None) -> bool:
        standing = self.standing_in(tx)
        lease = None if standing is None else standing.find(claim.number, claim.token)
        if standing is None or lease is None:
            return False
        lease.release(error)
        standing.leave(owners.this_process())
        self.keep_in(tx, standing)
        return True

    def leave(self, claim: Claim) -> None:
        self.leases.leave(claim.token)


def states_of(log: KafkaStore, clients: Sequence[ClientStore]) -> list[ClientState | None]:
    """`ClientStore.state` of each, all at one moment."""
    seen = _seen(log, clients)
    return [None if standing is None else client.state_of(standing, kept) for client, standing, kept in seen]


def find_work(log: KafkaStore, clients: Sequence[ClientStore], worker: str, ordered: bool) -> int | None:
    """The index of the first of some clients for which `ClientStore.has_work`; None if of none.

    Of a process that is at work on more partitions than this one, by two at least, one may be taken.
    """
    seen = _seen(log, clients)
    busy = None
    for index, (client, standing, kept) in enumerate(seen):
        if standing is None:
            return index
        is_share = False
        if client.leases.is_elsewhere(standing):
            busy = _busy(log, client) if busy is None else busy
            is_share = busy[standing.process] > busy[owners.this_process()] + 1
        if client.may_take(standing, kept, worker, ordered, is_share):
            return index
    return None


def _busy(log: KafkaStore, client: KafkaClient) -> Counter[str]:
    """On how many partitions of a client's topic each process is at work."""
    lanes = [one.client(client.name).lane for one in client.topic.partitions()]
    standings = map(Standing.found_in, log.lanes.look_at(lanes))
    return Counter(one.process for one in standings if one is not None and client.leases.is_active(one))


def _seen(log: KafkaStore, clients: Sequence[ClientStore]) -> list[tuple[KafkaClient, Standing | None, Span]]:
    """Where clients stand, and what is kept of their partitions."""
    ours = [_ours(client) for client in clients]
    for client in ours:
        client.topic.check()
    waiting = [client.leases.waiting(client.lane) for client in ours]
    values = log.lanes.look_at([client.lane for client in ours])
    standings = map(KafkaClient.seen, ours, values, waiting)
    return list(zip(ours, standings, log.spans([client.topic for client in ours]), strict=True))


def _ours(client: ClientStore) -> KafkaClient:
    """A client as what it is here."""
    assert isinstance(client, KafkaClient)
    return client
