"""A log on a Kafka cluster."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from pqlog.errors import ClosedError, ClusterError, Error, ForkError, TrimRefusedError
from pqlog.store.api import ClientStore, MessageSource, TopicStore
from pqlog.store.kafka import client as clients_of_log
from pqlog.store.kafka import ids
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.catalogue import Catalogue, Seen
from pqlog.store.kafka.client import KafkaClient
from pqlog.store.kafka.clock import ClusterClock
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.each import Outcome, put_each
from pqlog.store.kafka.fencing import Fenced, give_way
from pqlog.store.kafka.incomplete import check_new
from pqlog.store.kafka.lane import Transaction, id_lane, name_in_lane
from pqlog.store.kafka.lanes import Lanes
from pqlog.store.kafka.leases import Leases
from pqlog.store.kafka.merged import KafkaMerged
from pqlog.store.kafka.promise import MAX_BYTES, Durability, Kind, check_promise, new_topic
from pqlog.store.kafka.putting import SinglePuts, put_all
from pqlog.store.kafka.reader import ReaderPool
from pqlog.store.kafka.records import ROWS
from pqlog.store.kafka.shapes import CATALOGUE, GONE, TEXT, TRIM, Known
from pqlog.store.kafka.standing import Standing
from pqlog.store.kafka.state import PARTITIONS, PUT, State
from pqlog.store.kafka.topic import KafkaTopic
from pqlog.store.values import Capabilities, ClientState, Cursor, Moved, Output, Put, Single, Span, TopicInfo

T = TypeVar("T")

TIMEOUT_S = 60.0
"""How long the cluster is waited for, unless the user says otherwise: longer than elections take."""
PUT_LANE = f"{PUT}/"
"""How the names of the lanes begin that puts use which need no other."""
PUT_LANES = 4
"""How many threads of a process put at the same time, with a transaction each."""
SHOWN_S = 1.0
"""How long a put waits until others see it: longer only if another transaction is open."""
SHOWING_S = 0.002
"""How long it waits before it asks again."""


class KafkaStore:
    """A log on a cluster; the protocol is `pqlog.store.api.Store`.

    Parameters
    ----------
    address : Address
        It has the name of a log.
    timeout_s : float
        How long a call waits for the cluster.
    durability : Durability
        What must survive; a cluster that is set to less is refused.
    """

    readonly = False

    def __init__(
        self, address: Address, timeout_s: float = TIMEOUT_S, durability: Durability = Durability.SYNCED
    ) -> None:
        assert address.log is not None
        self.name, self._log, self._durability = str(address), address.log, durability
        self.cluster = Cluster(address, timeout_s)
        self.readers = ReaderPool(self.cluster)
        self.capabilities = Capabilities(
            durable=durability is Durability.SYNCED,
            dense_offsets=False,
            shared_by_processes=True,
            exact_counts=False,
            ordered_partitions=False,
        )
        self._state = State(self.cluster, self._log)
        self.lanes = Lanes(self.cluster, self._state, self._log, put_all)
        self.singles = SinglePuts(self.cluster)
        self.clock = ClusterClock(self.cluster, self._state.topic)
        self.leases = Leases(self.clock.now)
        self.catalogue = Catalogue(self.lanes, self._state, self._log)
        self._handles: dict[int, tuple[KafkaTopic, ...]] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._changes = 0
        self._is_closed = False
        self.lanes.committed = self.wake
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        there = self.cluster.topics()
        kinds = {self._state.topic: Kind.STATE, self._state.ids: Kind.IDS}
        if not kinds.keys() <= there.keys():
            check_new(self.cluster, self._state, there)
        new = [new_topic(name, PARTITIONS, kind, self._durability, self._brokers()) for name, kind in kinds.items()]
        self.cluster.make([topic for topic in new if topic.topic not in there])
        self._state.begin(min(there.get(name) or self._made(name) for name in kinds))
        self.uuid = self.catalogue.uuid()
        kinds |= {known.kafka: Kind.MESSAGES for known in self.catalogue.look().topics.values()}
        check_promise(self.cluster.admin, kinds, self._durability, self.cluster.timeout_s)
        self.tidy()

    def _made(self, name: str) -> int:
        """How many partitions a topic has that was just made; not all brokers may know it yet."""
        until = time.monotonic() + self.cluster.timeout_s
        while (found := self.cluster.partitions(name)) is None:
            if time.monotonic() > until:
                raise ClusterError(f"the topic {name!r} was created, and the brokers do not know it: repeat the call")
            time.sleep(0.05)
        return found

    def _brokers(self) -> int:
        return self.cluster.brokers() if self._durability is Durability.DEVELOPMENT else 3

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""
        if self._is_closed:
            raise ClosedError(f"{self.name} was closed")
        self.cluster.check()

    # topics

    def topics(self) -> list[TopicInfo]:
        self.check()
        return [self.handles(known)[0].info for known in self.catalogue.look().all()]

    def records(self, since: int | None = None) -> list[tuple[TopicInfo, int]]:
        """The same, with about how many records each keeps: `pqlog.store.api.EstimatesTopics`."""
        return self.catalogue.records(self.cluster, since)

    def find_topic(self, name: str) -> tuple[KafkaTopic, ...]:
        self.check()
        known = self.catalogue.look().named(name)
        return () if known is None else self.handles(known)

    def topic(self, name: str, codec: str, partitions: int) -> tuple[KafkaTopic, ...]:
        if found := self.find_topic(name):
            return found

        def make(kafka: str) -> bool:
            new = new_topic(kafka, partitions, Kind.MESSAGES, self._durability, self._brokers())
            return kafka in self.cluster.make([new])

        known = self.catalogue.create(name, codec, partitions, MAX_BYTES, make, self.cluster.topics())
        self.tidy()
        return self.handles(known)

    def handles(self, known: Known) -> tuple[KafkaTopic, ...]:
        """The partitions of a topic, always as the same objects."""
        with self._lock:
            if known.id not in self._handles:
                self._handles[known.id] = tuple(KafkaTopic(self, known, number) for number in range(known.partitions))
            found = self._handles[known.id]
        if found[0].info.name != known.name:
            for one in found:
                one.named(known.name)
        return found

    def tidy(self) -> None:
        """Delete from the cluster what is not in the catalogue any more; also for others, who were killed before."""
        with suppress(Error):
            gone = self.catalogue.look().gone
            if not gone:
                return
            self.cluster.delete(list(gone.values()))
            lanes = [lane for id in gone for kind in ("client", "id") for lane in self.lanes.names(f"{kind}/{id}")]
            mine = [lane for lane in lanes if lane.split("/")[1] in map(str, gone)]

            def work(tx: Transaction) -> None:
                for id in gone:
                    tx.set(CATALOGUE, f"{GONE}{id}", None)
                self.lanes.forget(tx, mine)

            self.lanes.change([CATALOGUE], work)

    # putting

    def append(
        self, outputs: Sequence[Output], id: str | None = None, cursor: Cursor | None = None
    ) -> Mapping[int, Put]:
        topic = _ours(KafkaTopic, outputs[0].topic)
        topic.check()
        if id is not None and (found := ids.find(topic, id)):
            return found
        lanes = [id_lane(topic)] if id is not None or any(one.ids is not None for one in outputs) else []
        lanes += [] if cursor is None else [_cursor_lane(cursor.name)]

        lanes = lanes or [self._put_lane()]
        is_first = not self.lanes.is_held(lanes[0])

        def work(tx: Transaction) -> Mapping[int, Put]:
            if is_first and lanes[0].startswith(PUT_LANE):
                self.lanes.forget_old(tx, PUT_LANE)
            if id is not None and (found := ids.find_in(tx, topic, id)):
                return found
            if cursor is not None:
                cursor.check(tx.value(_cursor_lane(cursor.name), TEXT))
                tx.set(_cursor_lane(cursor.name), TEXT, cursor.value)
            went = dict(zip([one.topic.info.partition for one in outputs], tx.put_all(outputs), strict=True))
            if id is not None:
                tx.set(id_lane(topic), ids.key_of(id), ids.value_of(went))
            return went

        went = self.lanes.change(lanes, work)
        self.show([_ours(KafkaTopic, one.topic) for one in outputs])
        return went

    def append_each(self, singles: Sequence[Single]) -> list[Outcome]:
        self.check()
        outcomes = put_each(self, singles)
        self.wake()
        return outcomes

    def show(self, topics: Sequence[KafkaTopic]) -> None:
        """Wait until other processes see what was put, too: a moment after the commit, unless a transaction is open.

        Whether they do, or the cluster does not answer: it was put.
        """
        until = time.monotonic() + SHOWN_S
        together = _together(topics)
        with suppress(Error):
            while together and (left := until - time.monotonic()) > 0:
                for kafka, some in list(together.items()):
                    if self._late(some, self.cluster.stable(kafka, list(some), left)):
                        time.sleep(SHOWING_S)
                    else:
                        del together[kafka]

    def _put_lane(self) -> str:
        """A lane for a put that needs none: one of a few of this process, so that threads put at the same time."""
        return self.lanes.free([f"{PUT_LANE}{self.lanes.holder}/{number}" for number in range(PUT_LANES)])

    def cursor(self, name: str) -> str | None:
        self.check()
        text: str | None = self.lanes.value(_cursor_lane(name), TEXT)
        return text

    # what concerns several partitions

    def merged(self, partitions: Sequence[TopicStore], begin: Sequence[int] | None) -> MessageSource:
        """All partitions of a topic as one source: `pqlog.store.api.MergesPartitions`."""
        return KafkaMerged([_ours(KafkaTopic, one) for one in partitions], begin)

    def spans(self, topics: Sequence[TopicStore]) -> list[Span]:
        ours = [_ours(KafkaTopic, topic) for topic in topics]
        self.check()
        if not ours:
            return []
        seen = self.catalogue.look()
        for topic in ours:
            topic.checked(seen)
        kept: dict[KafkaTopic, Span] = {}
        for kafka, some in _together(ours).items():
            kept |= self._kept(kafka, some)
        return [topic.spanning(kept[topic]) for topic in ours]

    def _kept(self, kafka: str, topics: Mapping[int, KafkaTopic]) -> dict[KafkaTopic, Span]:
        until = time.monotonic() + self.cluster.timeout_s
        while True:
            ends = dict(zip(topics, self.cluster.all_ends(kafka, list(topics)), strict=True))
            if not (late := self._late(topics, {number: stable for number, (_, stable) in ends.items()})):
                return {topic: topic.keeping(*ends[number]) for number, topic in topics.items()}
            late[0].wait_a_moment(until)

    @staticmethod
    def _late(topics: Mapping[int, KafkaTopic], stable: Mapping[int, int]) -> list[KafkaTopic]:
        """The partitions in which something is not seen yet that this process put."""
        return [topic for number, topic in topics.items() if not topic.is_seen(stable[number])]

    def trim(self, marks: Sequence[tuple[TopicStore, int]], force: bool) -> list[int]:
        topics = [_ours(KafkaTopic, topic) for topic, _ in marks]
        spans = self.spans(topics)
        befores = [min(max(before, kept.first), kept.stop) for (_, before), kept in zip(marks, spans, strict=True)]
        if not force:  # who joins or moves back from now on does so behind the trim: no lanes are taken for that
            losing = Counter[str]()
            for topic, before in zip(topics, befores, strict=True):
                losing.update(topic.losing(before))
            if +losing:
                raise TrimRefusedError(sorted((+losing).items()), topics[0].info.name)
        counts = [topic.count(Span(kept.first, to)) for topic, kept, to in zip(topics, spans, befores, strict=True)]

        def work(tx: Transaction) -> None:
            seen = Seen.of(tx.values(CATALOGUE))
            for topic, before in zip(topics, befores, strict=True):
                topic.checked(seen)
                key = f"{TRIM}{topic.topic_id}/{topic.info.partition}"
                if before > (tx.value(CATALOGUE, key) or 0):
                    tx.set(CATALOGUE, key, before)

        if any(counts):
            self.lanes.change([CATALOGUE], work)
            with suppress(Error):  # it is trimmed; the next trim gives the space back
                self.cluster.delete_records(
                    {
                        (topic.kafka_topic, topic.info.partition): before // ROWS
                        for topic, before in zip(topics, befores, strict=True)
                    }
                )
        return counts

    # clients

    def states(self, clients: Sequence[ClientStore]) -> list[ClientState | None]:
        self.check()
        return clients_of_log.states_of(self, clients)

    def find_work(self, clients: Sequence[ClientStore], worker: str, ordered: bool = False) -> int | None:
        self.check()
        return clients_of_log.find_work(self, clients, worker, ordered)

    def join(self, clients: Sequence[ClientStore]) -> None:
        ours = list(map(_client, clients))
        until = time.monotonic() + self.cluster.timeout_s
        while new := [client for client in ours if client.look() is None]:
            began = time.monotonic()
            if began > until + self.cluster.timeout_s:
                raise ClusterError(f"client {new[0].name!r}: it is deleted whenever it is created")
            try:
                self._change_clients(new, partial(_join_all, new), retake=False)
            except Fenced:  # by a process that creates them, too
                if began > until:
                    raise
                give_way(time.monotonic() - began)

    def seek(self, moves: Sequence[tuple[ClientStore, int]]) -> list[Moved]:
        ours = [(_client(client), to) for client, to in moves]
        clients = [client for client, _ in ours]
        return self._change_clients(clients, lambda tx: [client.seek_in(tx, to) for client, to in ours])

    def delete_clients(self, clients: Sequence[ClientStore]) -> bool:
        ours = list(map(_client, clients))
        return any(self._change_clients(ours, lambda tx: [client.delete_in(tx) for client in ours]))

    def _change_clients(
        self, clients: Sequence[KafkaClient], work: Callable[[Transaction], list[T]], retake: bool = True
    ) -> list[T]:
        self.check()
        for client in clients:
            client.topic.check()
        if not clients:
            return []

        def whole(tx: Transaction) -> tuple[list[T], list[Standing | None], int]:
            result = work(tx)
            return result, [client.kept_in(tx) for client in clients], self.leases.moment()

        result, kept, moment = self.lanes.change([client.lane for client in clients], whole, retake=retake)
        for client, standing in zip(clients, kept, strict=True):
            self.leases.updated(client.lane, standing, moment)
        return result

    # waiting

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self.check()
            before = self._changes
            if ready():
                return True
            left = tick if until is None else min(tick, until - time.monotonic())
            if left <= 0:
                return False
            with self._changed:
                if self._changes == before and not self._is_closed:
                    self._changed.wait(left)

    def wake(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def close(self) -> None:
        if self._is_closed:
            return
        self.cluster.end_soon()
        try:
            with suppress(ForkError):
                self.leases.close()
        finally:
            self._is_closed = True
            with suppress(Error):
                self.cluster.check()
                self._close()

    def _close(self) -> None:
        self.wake()
        self.readers.close()
        self.lanes.close()
        self._state.close()
        self.singles.close()
        self.clock.close()
        self.cluster.close()


def _together(topics: Sequence[KafkaTopic]) -> dict[str, dict[int, KafkaTopic]]:
    """Partitions by their number, and the topic's name on the cluster."""
    together = defaultdict[str, dict[int, KafkaTopic]](dict)
    for topic in topics:
        together[topic.kafka_topic][topic.info.partition] = topic
    return together


def _join_all(clients: Sequence[KafkaClient], tx: Transaction) -> list[object]:
    return [client.join_in(tx) for client in clients]


def _cursor_lane(name: str) -> str:
    return f"cursor/{name_in_lane('the name of a cursor', name)}"


def _ours(kind: type[T], one: object) -> T:
    """A topic or client as what it is here: it is asked for more than the protocols have."""
    assert isinstance(one, kind)
    return one


def _client(client: ClientStore) -> KafkaClient:
    return _ours(KafkaClient, client)
