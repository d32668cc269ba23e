"""A partition of a topic of our own on a cluster: what is put into it, its name and its clients."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pqlog.errors import ArgumentError, ClusterError, Error, TrimRefusedError, UnknownTopicError
from pqlog.store.kafka import ids
from pqlog.store.kafka.catalogue import Seen
from pqlog.store.kafka.client import KafkaClient, states_of
from pqlog.store.kafka.lane import Transaction, name_in_lane
from pqlog.store.kafka.partition import KafkaPartition
from pqlog.store.kafka.putting import OVERHEAD, check_sizes
from pqlog.store.kafka.records import ROWS, records_of
from pqlog.store.kafka.shapes import CATALOGUE, GONE, TOPIC, TRIM, USED, Known
from pqlog.store.kafka.standing import lanes_of
from pqlog.store.values import NEAR, CachedSchema, ClientState, Put, Row, Singles, Span, TopicInfo

if TYPE_CHECKING:
    from pqlog.store.kafka.store import KafkaStore

CHECKED_S = 0.1
"""How long a reader may go on with a topic that another process has deleted."""
ASKED_S = 1.0
"""How long the end of a partition is asked for by what cannot wait."""


class KafkaTopic(KafkaPartition):
    """A partition; the protocol is `pqlog.store.api.TopicStore`. There is one of each in a `KafkaStore`."""

    log: KafkaStore

    def __init__(self, log: KafkaStore, known: Known, number: int) -> None:
        largest = known.max_bytes - OVERHEAD
        info = TopicInfo(known.id + number, known.name, known.codec, number, known.partitions, largest)
        super().__init__(log, info, known.kafka)
        self.topic_id = known.id
        self._written = 0
        """Behind the last record that this process put, which its readers see."""
        self._checked = 0.0
        self._schema: CachedSchema | None = None

    def check(self) -> None:
        """Raise if nothing can be asked of it any more; know its name, and how far it was trimmed."""
        self.checked(self.log.catalogue.look())

    def check_in(self, tx: Transaction) -> None:
        """The same, once in a transaction."""
        if self.topic_id not in tx.checked:
            self.check()
            tx.checked.add(self.topic_id)

    def checked(self, seen: Seen) -> None:
        """The same by what is in the catalogue."""
        known = seen.known(self.topic_id)
        if known is None:
            raise UnknownTopicError(self.info.name, [])
        if known.name != self.info.name:
            self.named(known.name)
        self._trimmed = max(self._trimmed, seen.trimmed(self.topic_id, self.info.partition))
        self._checked = time.monotonic()

    def check_now_and_then(self) -> None:
        """The same for what is done message by message."""
        if time.monotonic() - self._checked > CHECKED_S:
            self.check()

    def named(self, name: str) -> None:
        """Note what it is called now."""
        self.info = replace(self.info, name=name)

    def partitions(self) -> tuple[KafkaTopic, ...]:
        """All of the topic, in their order."""
        return self.log.handles(self.log.catalogue.look().topics[self.topic_id])

    def begins(self) -> list[int]:
        """The offset of each partition of the topic before which everything was trimmed."""
        seen = self.log.catalogue.look()
        return [seen.trimmed(self.topic_id, number) for number in range(self.info.partitions)]

    # what is kept

    def kept(self) -> Span:
        self.check()
        until = time.monotonic() + self.log.cluster.timeout_s
        while True:
            first, stable = self.log.cluster.ends(self.kafka_topic, self.info.partition)
            if stable >= self._written:
                return self.keeping(first, stable)
            self.wait_a_moment(until)

    def wait_a_moment(self, until: float) -> None:
        """Wait until a commit of this process is seen: a moment later than it is answered."""
        if time.monotonic() > until:
            raise ClusterError(
                f"topic {self.info.name!r}: what this process put cannot be read yet: another transaction is open, or "
                f"a broker is down. Repeat the call"
            )
        time.sleep(0.002)

    def wrote(self, offset: int) -> None:
        """Note that this process put a message."""
        self._written = max(self._written, offset // ROWS + 1)

    def stop(self) -> int:
        """The offset where the next message would go at least, as far as that is known in a second."""
        stable = self._stable
        with suppress(Error):
            stable = self.log.cluster.stable(self.kafka_topic, [self.info.partition], ASKED_S)[self.info.partition]
        return max(self._written, stable) * ROWS

    def is_seen(self, stable: int) -> bool:
        """Whether all that this process put lies before a record offset."""
        return stable >= self._written

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        self.check_now_and_then()
        return super().read(span, rows, max_bytes, key, damaged)

    # the schema cache, which lasts as long as the process

    def cached_schema(self) -> CachedSchema | None:
        return self._schema

    def cache_schema(self, schema: CachedSchema) -> None:
        with suppress(Error):
            if schema.span.first == self.span().first:
                self._schema = schema
            return
        self._schema = None

    def losing(self, before: int) -> dict[str, int]:
        """How many of the messages before an offset each client has not acknowledged."""
        return {state.client: self.count(Span(state.position, before)) for state in self.clients()}

    # the topic

    def rename(self, name: str) -> None:
        def work(tx: Transaction) -> None:
            seen = Seen.of(tx.values(CATALOGUE))
            self.checked(seen)
            if seen.named(name):
                raise ArgumentError(f"there is a topic {name!r} already: give another name")
            key = f"{TOPIC}{self.topic_id}"
            tx.set(CATALOGUE, key, {**tx.value(CATALOGUE, key), "name": name})

        self.log.lanes.change([CATALOGUE], work)
        with suppress(Error):  # it is renamed; the next call finds it out
            for one in self.partitions():
                one.check()

    def delete(self, force: bool) -> None:
        self.check()
        if not force:
            lags = Counter[str]()
            for one in self.partitions():
                lags.update({state.client: state.lag for state in one.clients()})
            if +lags:
                raise TrimRefusedError(sorted((+lags).items()), self.info.name, "deleted")

        def work(tx: Transaction) -> None:
            self.checked(Seen.of(tx.values(CATALOGUE)))
            tx.set(CATALOGUE, f"{TOPIC}{self.topic_id}", None)
            tx.set(CATALOGUE, f"{GONE}{self.topic_id}", self.kafka_topic)
            tx.set(CATALOGUE, f"{USED}{self.kafka_topic}", self.topic_id)
            for key in tx.values(CATALOGUE):
                if key.startswith(f"{TRIM}{self.topic_id}/"):
                    tx.set(CATALOGUE, key, None)

        self.log.lanes.change([CATALOGUE], work)
        with suppress(Error):  # it is deleted; who opens the log next gives the space back
            self.log.tidy()

    # putting

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        self.log.check()
        (record,) = records_of(Singles([value], [key], headers))
        check_sizes(self, [record])
        offset = self.log.singles.put(self, record, self.check) * ROWS
        self.wrote(offset)
        self.log.wake()
        return offset

    def find_id(self, id: str) -> Mapping[int, Put] | None:
        self.check()
        return ids.find(self, id)

    # clients

    def clients(self) -> list[ClientState]:
        self.check()
        clients = [self.client(name) for name in self._names()]
        return [state for state in states_of(self.log, clients) if state is not None]

    def _names(self) -> list[str]:
        prefix = lanes_of(self.topic_id, self.info.partition)
        return sorted(lane.removeprefix(prefix) for lane in self.log.lanes.names(prefix))

    def open_batches(self) -> dict[str, tuple[int, int]]:
        self.check()
        found = {name: self.client(name).open_batches() for name in self._names()}
        return {name: batches for name, batches in found.items() if batches[0]}

    def clients_near(self, name: str) -> list[str]:
        self.check()
        names = self._names()
        at = bisect.bisect(names, name)
        return names[max(0, at - NEAR) : at + NEAR]

    def client(self, name: str) -> KafkaClient:
        return KafkaClient(self, name_in_lane("the name of a client", name))
