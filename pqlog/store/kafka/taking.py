"""Taking a batch for a worker: what was given back, or a new one that is cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pqlog.store import owners
from pqlog.store.kafka.standing import Lease, Standing, random_number
from pqlog.store.values import Claim, Size, Span

if TYPE_CHECKING:
    from pqlog.store.kafka.client import KafkaClient
    from pqlog.store.kafka.lane import Transaction


class Stale(Exception):
    """What was looked at before a transaction is not so any more: look again."""


class _Cut(NamedTuple):
    """What there is for a new batch."""

    unclaimed: int
    """The offset from which on it was looked for."""
    span: Span
    messages: int


class Taking:
    """One batch for one worker: first a look, with all that takes long, then the rest inside a transaction.

    Parameters
    ----------
    client : KafkaClient
    size : Size
    worker : str
    ordered : bool
        As for `ClientStore.advance`.
    """

    def __init__(self, client: KafkaClient, size: Size, worker: str, ordered: bool) -> None:
        self._client, self._size, self._worker, self._ordered = client, size, worker, ordered
        self._topic, self._leases = client.topic, client.leases
        self._token = random_number()
        self._others: list[KafkaClient] = []
        """The clients of the other partitions, if they are to be created, too."""
        self._is_new = False
        self._first_kept = self._now = 0
        self._cut: _Cut | None = None
        self.claim: Claim | None = None
        """What the latest transaction handed out."""

    @property
    def lanes(self) -> list[str]:
        """Those that are needed in addition to the client's own."""
        return [client.lane for client in self._others]

    def look(self, done: Claim | None) -> bool:
        """Find out what there is once a batch is acknowledged; whether a transaction is needed for it."""
        standing = self._client.look() if done is None else self._client.recall()
        kept = self._topic.span()
        self._first_kept, self._cut, self._others, self._is_new = kept.first, None, [], standing is None
        self._now = self._leases.now()
        if standing is None:
            everywhere = [partition.client(self._client.name) for partition in self._topic.partitions()]
            self._others = [client for client in everywhere if client.lane != self._client.lane]
            self._cut = self._cut_behind(Span(kept.first, kept.stop))
            return True
        if done is not None and (lease := standing.find(done.number, done.token)) is not None:
            standing.drop(lease)
        if self._is_blocked(standing):
            return False
        free = [lease for lease in standing.claims if self._is_free(lease)]
        if not any(lease.stop > kept.first for lease in free):
            self._cut = self._cut_behind(Span(max(standing.claimed, kept.first), kept.stop))
        return bool(free) or (self._cut is not None and self._cut.messages > 0)

    def _is_free(self, lease: Lease) -> bool:
        return self._client.is_free(lease, self._worker)

    def _is_blocked(self, standing: Standing) -> bool:
        """Whether the worker may take nothing, since another batch is in somebody's hands."""
        return self._ordered and not all(map(self._is_free, standing.claims))

    def _cut_behind(self, unclaimed: Span) -> _Cut:
        """The next batch, within the limits of its size, but at least one message if there is any."""
        limit = math.inf if self._size.max_bytes is None else self._size.max_bytes
        return _Cut(unclaimed.first, *self._topic.cut(unclaimed, self._size.messages, limit))

    # inside a transaction

    def take_in(self, tx: Transaction) -> Claim | None:
        """Claim the first batch that is free, or cut a new one; None if there is nothing."""
        if self.claim is not None:  # of a try that was not committed
            self._leases.drop(self._token)
            self.claim = None
        self._topic.check_in(tx)
        standing = self._client.standing_in(tx) or self._begin_in(tx)
        if self._is_blocked(standing):
            return None
        is_changed = False
        for lease in list(standing.claims):
            if self._is_free(lease):
                if lease.stop > self._first_kept:
                    return self._hand_out(tx, standing, lease)
                standing.drop(lease)  # it was trimmed: nothing of it can be handed out
                is_changed = True
        cut = self._cut
        if cut is None or cut.unclaimed != max(standing.claimed, self._first_kept):
            raise Stale
        if cut.messages:
            return self._hand_out(tx, standing, standing.cut(cut.span, cut.messages))
        if is_changed:
            self._client.keep_in(tx, standing)
        return None

    def _begin_in(self, tx: Transaction) -> Standing:
        """Create the client in every partition: it was deleted under its readers, or is new."""
        if not self._is_new:
            raise Stale
        for client in self._others:
            client.join_in(tx)
        return self._client.join_in(tx)

    def _hand_out(self, tx: Transaction, standing: Standing, lease: Lease) -> Claim:
        process = owners.this_process()
        standing.hand_out(lease, self._token, self._worker, process, self._now, self._leases.end(self._now))
        self._client.keep_in(tx, standing)
        claim = lease.claim(self._client.name, standing.epoch)
        self._leases.hold(self._client, claim)
        self.claim = claim
        return claim
