"""The state of a log: the latest value of each key of its compacted topics, read on from where it was left.

A key belongs to a *lane* (`pqlog.store.kafka.lanes`), and all keys of lanes that are looked at together lie in one
partition of the state: those of the clients of a topic, for example.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pqlog.errors import ClusterError, MovedError, UnknownTopicError
from pqlog.store.kafka import shapes
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.faults import PASSING, patient, told
from pqlog.store.kafka.locking import Busy, while_holding
from pqlog.store.kafka.promise import IDS_KEPT_MS
from pqlog.store.kafka.shapes import CATALOGUE

STATE, IDS = ".__state", ".__ids"
"""How the names of the topics end in which a log keeps its state, and the ids of what was put."""
PARTITIONS = 8
"""Of the state, and of the ids, of a new log."""
STALE_S = 12 * 3600.0
"""A tail that was not read for this long begins again: the cluster forgets deletions after seven days at least."""
FETCH_MS = 5
"""How long a broker waits for news: librdkafka says that the end is reached only when it has waited in vain."""
LOOKED_S = 10.0
"""How often those who have a log open find out whether somebody deleted its state."""
PAGE = 10_000
"""How many records are taken from librdkafka at once."""

PUT = "put"
"""The kind of the lanes of puts that need no other."""


class Entry(NamedTuple):
    """A value, encoded, and when it was written."""

    time: int
    """Milliseconds since 1970, by the clock of the cluster; of what this process wrote, by its own: see `Lane.own`."""
    value: bytes


class Place(NamedTuple):
    """Where the keys of a lane are written."""

    topic: str
    partition: int


def key_of(lane: str, key: str) -> bytes:
    """The key of a record."""
    return msgspec.json.encode((lane, key))


class State:
    """The state of a log.

    Parameters
    ----------
    cluster : Cluster
    log : str
        The name of the log.
    """

    def __init__(self, cluster: Cluster, log: str) -> None:
        self.cluster, self.topic, self.ids = cluster, f"{log}{STATE}", f"{log}{IDS}"
        self._tails: dict[Place, Tail] = {}
        self._lock = threading.Lock()
        self._partitions = PARTITIONS
        self._topics: dict[str, str] = {}
        """What distinguishes its topics from others of these names, as far as that is known."""
        self._looked = -LOOKED_S

    def begin(self, partitions: int) -> None:
        """Say how many partitions there are. That never changes, since it says where a lane lies."""
        self._partitions = partitions

    def check(self, ids: bool) -> None:
        """Raise if somebody deleted its topic, or that of the ids, though it was created again; this takes seconds.

        What this process knows is of the past then, and it would not read what is in a new one that is shorter.
        """
        if time.monotonic() - self._looked < LOOKED_S:
            return
        found = self.cluster.ids([self.topic, self.ids] if ids else [self.topic])
        for name, id in self._topics.items():
            if name not in found:
                self.present(name, partial(self.cluster.check_topic, name))
            elif found[name] != id:
                raise self._moved(name, "deleted and created again")
        self._topics = {**found, **self._topics}
        self._looked = time.monotonic()

    def present(self, name: str, look: Callable[[], object]) -> None:
        """Look at one of its topics, which was there when the log was opened."""
        try:
            look()
        except UnknownTopicError as error:
            raise self._moved(name, "deleted") from error

    def _moved(self, name: str, what: str) -> MovedError:
        return MovedError(
            f"the topic {name!r} of the log {self.cluster.address} was {what} while it was open: close it, and open it "
            f"again, which says what is left of it"
        )

    def place(self, lane: str) -> Place:
        """Where a lane lies. Lanes lie together if the first two parts of their names are the same; puts' all do."""
        kind = lane.partition("/")[0]
        if lane == CATALOGUE:
            return Place(self.topic, 0)
        together = kind if kind == PUT else "/".join(lane.split("/", 2)[:2])
        number = 1 + zlib.crc32(together.encode()) % (self._partitions - 1)
        return Place(self.ids if kind == "id" else self.topic, number)

    def tail(self, lane: str) -> Tail:
        """The tail that has a lane."""
        place = self.place(lane)
        with self._lock:
            if place not in self._tails:
                self._tails[place] = Tail(self.cluster, place, IDS_KEPT_MS if place.topic == self.ids else None)
            return self._tails[place]

    def close(self) -> None:
        """Release the connections."""
        with self._lock:
            tails = list(self._tails.values())
        for tail in tails:
            tail.close()


@dataclass(eq=False)
class _Known:
    """What was read of a partition, up to an offset."""

    at: int = 0
    time: int = 0
    """When the last record was written, by the clock of the cluster."""
    lanes: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def set(self, lane: str, key: str, entry: Entry | None) -> None:
        """A value as it was written later; None removes it."""
        entries = self.lanes.setdefault(lane, {})
        entries.pop(key, None)  # the newest are the last
        if entry is not None:
            entries[key] = entry
        elif not entries:
            del self.lanes[lane]


@dataclass(eq=False)
class _News:
    """What was read after that: it becomes known all at once, so that nobody sees half of a transaction."""

    at: int
    time: int = 0
    read: list[tuple[str, str, Entry | None]] = field(default_factory=list)

    def set(self, lane: str, key: str, entry: Entry | None) -> None:
        """The same."""
        self.read.append((lane, key, entry))


class Tail:
    """The latest value of each key in a partition of the state.

    Whatever fails, what was read stays: holders of lanes rely on it (`pqlog.store.kafka.lanes`).
    """

    def __init__(self, cluster: Cluster, place: Place, kept_ms: int | None) -> None:
        self._cluster, self._place, self._kept_ms = cluster, place, kept_ms
        self._lock = threading.RLock()
        """Of the one who reads, who may have to wait for a transaction to end."""
        self._looking = threading.Lock()
        """Of what is known. It is held for a moment only, since a transaction looks while others wait for its end."""
        self._consumer: Consumer | None = None
        self._known = _Known()
        self._read = 0.0
        """When it was read last, or begun."""
        self.version = 0
        """Changes whenever something is read."""

    def refresh(self, timeout_s: float | None = None) -> None:
        """Read to the end: all that was committed before the call is seen. It waits for transactions that are open."""
        self._cluster.check()  # first: in a forked child nobody might give the lock back
        until = time.monotonic() + (self._cluster.timeout_s if timeout_s is None else timeout_s)
        try:
            while_holding([self._lock], until, lambda: self._refresh(until))
        except Busy:
            raise ClusterError(
                "another thread has been waiting all the time for an answer of the cluster about the state of the log; "
                "repeat the call once it answers"
            ) from None

    def _refresh(self, until: float) -> None:
        now = time.time()
        self._read = self._read or now
        known = _Known() if now - self._read > STALE_S else self._known
        stop = self._cluster.high(*self._place, until)
        if known.at < stop:
            into = _News(known.at) if known.at and known is self._known else known
            self._read_to(into, stop, until)
            self._add(into, known)
        if known is not self._known:
            self._known = known
            self.version += 1
        self._read = now

    def _add(self, read: _Known | _News, known: _Known) -> None:
        with self._looking:
            if isinstance(read, _News):
                for lane, key, entry in read.read:
                    known.set(lane, key, entry)
                known.at, known.time = read.at, read.time or known.time
            if self._kept_ms is not None:
                _forget(known.lanes, known.time - self._kept_ms)

    def _read_to(self, known: _Known | _News, stop: int, until: float) -> None:
        """Read on. In between nothing is fetched: that would ask the brokers hundreds of times in a second."""
        if self._consumer is None:
            self._consumer = self._begun()
        consumer = self._consumer
        try:
            if not known.at:
                known.at = self._first(consumer)
            place = TopicPartition(*self._place, known.at)
            consumer.incremental_assign([place])
            while known.at < stop:
                self._read_some(consumer, known, stop, until)
            consumer.incremental_unassign([place])
        except BaseException:  # what it has fetched by then is lost
            self._end()
            raise

    def _first(self, consumer: Consumer) -> int:
        """Where the partition begins.

        Its consumer asks for that, and by its number it begins there: librdkafka takes a second longer if it is not
        connected to the leader, or does not know the offset, when it begins to fetch.
        """

        def ask(slice_s: float) -> int:
            first, _ = consumer.get_watermark_offsets(TopicPartition(*self._place), slice_s, cached=False)
            if first < 0:
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "its leader does not answer"))
            return int(first)

        return patient(ask, "reading the state of the log", self._cluster.timeout_s)

    def _begun(self) -> Consumer:
        return self._cluster.consumer(
            auto_offset_reset="earliest",
            fetch_wait_max_ms=FETCH_MS,
            fetch_queue_backoff_ms=FETCH_MS,  # a second by default, in which nothing is read
        )

    def _end(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaException, RuntimeError):
                consumer.close()

    def _read_some(self, consumer: Consumer, known: _Known | _News, stop: int, until: float) -> None:
        self._cluster.check()
        first = consumer.poll(0.1)
        if first is None:
            if time.monotonic() > until:
                raise ClusterError(
                    f"the state of the log ({self._place.topic}, partition {self._place.partition}) cannot be read to "
                    f"its end: record {known.at} of {stop} did not come. A transaction may be open there, or a broker "
                    f"be down; repeat the call"
                )
            return
        self.version += 1
        messages = (first, *consumer.consume(PAGE, 0))
        with self._looking:
            for message in messages:
                self._take(message, known)

    def _take(self, message: Message, known: _Known | _News) -> None:
        error = message.error()
        offset = message.offset() or 0
        if error is None:
            if offset >= known.at:
                self._set(message, known)
                known.at = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            known.at = max(known.at, offset)
        elif error.code() not in PASSING:
            raise told(error, "reading the state of the log")

    def _set(self, message: Message, known: _Known | _News) -> None:
        try:
            lane, key = _KEY.decode(message.key() or b"")
        except msgspec.MsgspecError:  # no value of ours has such a key, so nobody needs it
            if message.value() is not None:
                warnings.warn(
                    f"record {message.offset()} of {self._place.topic}, partition {self._place.partition}, was not "
                    f"written by pqlog, and is ignored: nobody else may write there. Write a record with its key and "
                    f"no value there to remove it",
                    stacklevel=2,
                )
            return
        value, known.time = message.value(), message.timestamp()[1]
        known.set(lane, key, None if value is None else Entry(known.time, value))

    # looking

    def lane(self, name: str) -> dict[str, Entry]:
        """What a lane has, as it was read last."""
        with self._looking:
            return dict(self._known.lanes.get(name, {}))

    def entry(self, name: str, key: str) -> Entry | None:
        """One value of a lane, as it was read last."""
        with self._looking:
            return self._known.lanes.get(name, {}).get(key)

    def read(self, lane: str, key: str, entry: Entry) -> Any:
        """What a value is; a `Damaged` if somebody else wrote it."""
        return shapes.read(entry.value, f"{self._place.topic}, partition {self._place.partition}", lane, key)

    def names(self, prefix: str) -> list[str]:
        """The lanes whose names begin with a prefix, as they were read last."""
        with self._looking:
            return sorted(name for name in self._known.lanes if name.startswith(prefix))

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._end()


def _forget(lanes: Mapping[str, dict[str, Entry]], before: int) -> None:
    """Drop what was written before a time, which is the cluster's: this host's clock may be years ahead."""
    for entries in lanes.values():
        while entries:
            oldest = next(iter(entries))
            if entries[oldest].time >= before:
                break
            del entries[oldest]


_KEY = msgspec.json.Decoder(tuple[str, str])
