"""A Kafka cluster as this process reaches it: its topics, the ends of partitions, and consumers and producers."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from pqlog.errors import ClosedError, ForkError, UnknownTopicError
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.faults import GONE, Heard, patient, told

T = TypeVar("T")

SLICE_S = 0.2
"""How long a call into librdkafka may take, since Ctrl-C waits for it."""
REQUEST_S = 10.0
"""How long one request may take; it is sent again until the time of the whole call is up."""
FAR_S = 3.0
"""The same for what a cluster far away was asked once more."""
OPENING_S = 10.0
"""How long a cluster is waited for that has never answered."""
LATEST, EARLIEST = -1, -2
"""The end and the beginning, as Kafka's ListOffsets asks for them instead of a time."""
TRANSACTION_MS = 10_000
"""When the cluster ends a transaction whose process died: until then nobody reads what was put behind its beginning."""
USUAL = {
    "client.id": "pqlog",
    "log_level": 0,  # what is worth knowing comes as the errors of calls
    "enable.sparse.connections": False,  # else a dead broker keeps a processor busy
    "socket.timeout.ms": int(REQUEST_S * 1000),
    "socket.connection.setup.timeout.ms": 5000,
    "socket.nagle.disable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "topic.metadata.refresh.interval.ms": 30_000,
}
"""Properties of all clients, unless the user says otherwise."""
UNKNOWN_S, GONE_S = 0.1, 1.0
"""How long a topic must be unknown before it does not exist: of one that was just created a broker may not know yet."""


class AssignedConsumer(Consumer):
    """A consumer that is assigned by hand and commits nothing (a class of ours can be referred to weakly)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self._owner = os.getpid()

    def close(self) -> None:
        """Give the connections back; not in a forked child, which would wait for threads that it does not have."""
        if self._owner == os.getpid():
            super().close()


class ProducerOfOurs(Producer):
    """A producer (a class of ours can be referred to weakly)."""


class Cluster:
    """Connections to a cluster. Everything may be called by any thread; a forked child is refused.

    Parameters
    ----------
    address : Address
    timeout_s : float
        How long an answer is waited for, over elections and restarts of brokers.
    """

    def __init__(self, address: Address, timeout_s: float = 60.0) -> None:
        self.address, self._timeout_s, self._ends_by = address, timeout_s, math.inf
        self.owner, self._is_closed, self._has_answered = os.getpid(), False, False
        self._lock = threading.RLock()
        self._heard = Heard(self._serve, address)
        self._clients = weakref.WeakSet[Any]()
        self._kept: dict[str, Any] = {}
        _CLUSTERS.add(self)

    @property
    def timeout_s(self) -> float:
        """How long an answer is waited for that is asked for now."""
        return max(0.1, min(self._timeout_s, self._ends_by - time.monotonic()))

    def end_soon(self) -> None:
        """From now on all questions together are waited for as long as one was: the log is being closed."""
        self._ends_by = min(self._ends_by, time.monotonic() + self._timeout_s)

    # what is made of the address

    def _settings(self, usual: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
        """The properties of a client: the user's may replace the usual ones, but not ours."""
        return {**USUAL, **_properties(usual), **self.address.client_config(), **_properties(ours)}

    def _made(self, kind: Callable[[dict[str, Any]], T], settings: dict[str, Any]) -> T:
        self.check()
        try:
            client = kind(settings)
        except KafkaException as error:
            raise told(error, f"connecting to {self.address}") from error
        self._clients.add(client)
        return client

    def consumer(self, **more: Any) -> Consumer:
        """A new consumer that is assigned by hand, of what was committed.

        `more` are properties, with underscores for the dots. It is the caller's, to be used by one
        thread at a time and closed.
        """
        usual = {
            "group_id": "pqlog",  # librdkafka wants one; nothing is committed, so the cluster never hears of it
            "fetch_wait_max_ms": 100,
            "fetch_error_backoff_ms": 20,
        }
        ours = {
            "enable_auto_commit": False,
            "enable_auto_offset_store": False,
            "allow_auto_create_topics": False,
            "isolation_level": "read_committed",
            "enable_partition_eof": True,
            "auto_offset_reset": "error",
            "check_crcs": True,
        }
        return self._made(AssignedConsumer, self._settings(usual, {**ours, **more}))

    def producer(self, transactional_id: str | None = None, **more: Any) -> Producer:
        """A new producer: idempotent, or of transactions. After an error it must not be used again."""
        delivery_ms = max(1, int(self.timeout_s * 1000))
        usual = {"linger_ms": 0, "batch_size": 1 << 20, "compression_type": "lz4"}
        usual |= {"queue_buffering_max_kbytes": 1 << 18, "message_max_bytes": 1_000_000_000}  # the topic's limit counts
        ours = {"acks": "all", "enable_idempotence": True, "delivery_timeout_ms": delivery_ms}
        if transactional_id is not None:
            ours |= {
                "transactional_id": transactional_id,
                "transaction_timeout_ms": TRANSACTION_MS,
                "delivery_timeout_ms": min(TRANSACTION_MS, delivery_ms),
            }
        return self._made(ProducerOfOurs, self._settings(usual, {**ours, **more}))

    @property
    def admin(self) -> AdminClient:
        """The client for what changes topics; shared by all."""
        return self._shared("admin", lambda: self._made(AdminClient, self._settings({}, {})))

    def _asker(self, isolation: str = "read_committed") -> Consumer:
        """The consumer that is asked for metadata and offsets, and reads nothing; shared by all."""
        return self._shared(isolation, lambda: self.consumer(isolation_level=isolation, error_cb=self._heard))

    def _shared(self, name: str, make: Callable[[], T]) -> T:
        self.check()
        with self._lock:
            if name not in self._kept:
                self._kept[name] = make()
            found: T = self._kept[name]
            return found

    # asking

    def _ask(self, call: Callable[[], T], doing: str, timeout_s: float | None = None, until: float = math.inf) -> T:
        """An answer of the cluster, however long an election takes; the first is not waited for that long."""

        def one(_: float) -> T:
            self.check()
            return call()

        if timeout_s is None:
            timeout_s = self.timeout_s if self._has_answered else min(OPENING_S, self.timeout_s)
        answer = patient(one, doing, min(timeout_s, max(0.1, until - time.monotonic())), self._heard)
        self._has_answered = True
        return answer

    def _waited(self, future: Future[T]) -> T:
        """The result of a future; Ctrl-C and `close` end the wait."""
        until = time.monotonic() + REQUEST_S
        while True:
            try:
                return future.result(SLICE_S / 2)
            except NotYet:
                self.check()
                if time.monotonic() > until:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer")) from None

    def topics(self) -> dict[str, int]:
        """How many partitions each topic of the cluster has."""
        found = self._ask(lambda: self._metadata(None), "listing the topics")
        return {name: len(one.partitions) for name, one in found.items() if one.error is None}

    def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """What distinguishes topics from others of the same names, before or after; empty if the cluster has none."""

        def describe() -> dict[str, str]:
            found = {}
            for name, future in self.admin.describe_topics(TopicCollection(list(topics))).items():
                try:
                    id = self._waited(future).topic_id
                except KafkaException as error:
                    if error.args[0].code() not in GONE:
                        raise
                else:
                    bits = (id.get_most_significant_bits(), id.get_least_significant_bits()) if id else (0, 0)
                    found[name] = "{:x}.{:x}".format(*bits) if any(bits) else ""
            return found

        return self._ask(describe, "looking for topics") if topics else {}

    def records(self, topics: Mapping[str, int], since_ms: int | None = None) -> dict[str, int]:
        """About how many records topics keep, or were put since a time; the brokers are asked for all topics at once.

        What begins and ends transactions counts, too, and what compaction removed. A partition that has no leader at
        the moment does not count.
        """

        def ask(time: int) -> dict[tuple[str, int], int]:
            wanted = [TopicPartition(name, number, time) for name, many in topics.items() for number in range(many)]
            answers = _in_background(lambda: self._asker().offsets_for_times(wanted, FAR_S))
            return {(one.topic, one.partition): one.offset for one in self._waited(answers) if one.error is None}

        if not topics:
            return {}
        doing = "asking for offsets of topics"
        firsts = self._ask(lambda: ask(EARLIEST if since_ms is None else max(0, since_ms)), doing)
        found = dict.fromkeys(topics, 0)
        for where, stop in self._ask(lambda: ask(LATEST), doing).items():
            first = firsts.get(where, OFFSET_INVALID)
            found[where[0]] += max(0, stop - first) if first >= 0 else 0
        return found

    def brokers(self) -> int:
        """How many brokers the cluster has."""
        found = self._ask(lambda: self._waited(self.admin.describe_cluster()), "looking for brokers")
        return len(found.nodes)

    def id(self) -> str:
        """What distinguishes the cluster from others."""
        return self._ask(lambda: str(self._listing(None).cluster_id), "connecting to the cluster")

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None if it does not exist."""
        return self._partitions(topic, UNKNOWN_S)

    def _partitions(self, topic: str, wait_s: float, until: float = math.inf) -> int | None:
        known_by = time.monotonic() + wait_s
        while True:
            one = self._ask(lambda: self._known(topic), f"looking for the topic {topic!r}", until=until)
            if one is not None:
                return len(one.partitions)
            if time.monotonic() > known_by:
                return None
            time.sleep(0.02)

    def _known(self, topic: str) -> Any:
        one = self._metadata(topic)[topic]
        if one.error is not None and one.error.code() not in GONE:
            raise KafkaException(one.error)
        return one if one.error is None else None

    def _metadata(self, topic: str | None) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._listing(topic).topics
        return found

    def _listing(self, topic: str | None) -> Any:
        def ask(timeout_s: float) -> Any:
            consumer = self._asker()
            return consumer.list_topics(timeout=timeout_s) if topic is None else consumer.list_topics(topic, timeout_s)

        try:
            return ask(SLICE_S)
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                raise
            # A cluster far away may need longer than Ctrl-C may wait.
            return self._waited(_in_background(lambda: ask(FAR_S)))

    def _serve(self, timeout_s: float) -> None:
        """Let librdkafka say what the trouble is."""
        for isolation in ("read_committed", "read_uncommitted"):
            if isolation in self._kept:
                self._asker(isolation).poll(timeout_s)

    # the ends of partitions

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """The first record offset that is kept, and the last stable one: that behind what is committed."""
        return self.all_ends(topic, [partition])[0]

    def all_ends(self, topic: str, partitions: Sequence[int]) -> list[tuple[int, int]]:
        """The same for several partitions."""
        last = self.stable(topic, partitions)
        first = self._offsets(topic, dict.fromkeys(partitions, EARLIEST))
        return [(first[number], max(first[number], last[number])) for number in partitions]

    def stable(self, topic: str, partitions: Sequence[int], timeout_s: float | None = None) -> dict[int, int]:
        """The last stable record offsets of partitions: half the time of asking for both ends."""
        return self._offsets(topic, dict.fromkeys(partitions, LATEST), timeout_s=timeout_s)

    def high(self, topic: str, partition: int, until: float = math.inf) -> int:
        """The high watermark: the offset behind all, open transactions included."""
        return self._offsets(topic, {partition: LATEST}, "read_uncommitted", until=until)[partition]

    def offset_for_time(self, topic: str, partition: int, ms: int) -> int | None:
        """The first record offset with that time or a later one; None if there is none."""
        return self.offsets_for_time(topic, [partition], ms)[0]

    def offsets_for_time(self, topic: str, partitions: Sequence[int], ms: int) -> list[int | None]:
        """The same for several partitions."""
        found = self._offsets(topic, dict.fromkeys(partitions, max(0, ms)))
        return [None if found[number] < 0 else found[number] for number in partitions]

    def _offsets(
        self,
        topic: str,
        times: Mapping[int, int],
        isolation: str = "read_committed",
        timeout_s: float | None = None,
        until: float = math.inf,
    ) -> dict[int, int]:
        def ask() -> dict[int, int]:
            wanted = [TopicPartition(topic, number, time) for number, time in times.items()]
            try:
                found = self._asker(isolation).offsets_for_times(wanted, SLICE_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._TIMED_OUT or timeout_s is not None:
                    raise
                return self._listed(wanted, isolation)
            return {one.partition: self._checked(one.error, one.offset) for one in found}

        def ask_or_look_again() -> dict[int, int]:
            try:
                return ask()
            except KafkaException as error:
                # librdkafka asks a leader that died again and again: it must hear of the new one.
                with contextlib.suppress(KafkaException):
                    self._asker(isolation).list_topics(topic, SLICE_S)
                if error.args[0].code() not in GONE:
                    raise
                if self.check_topic(topic) <= max(times):
                    raise told(error, doing) from error
                new = KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "its brokers do not know it yet")
                raise KafkaException(new) from error

        doing = f"asking for offsets of the topic {topic!r}"
        return self._ask(ask_or_look_again, doing, timeout_s, until)

    @staticmethod
    def _checked(error: KafkaError | None, offset: int) -> int:
        """An offset that is one. A leader that died answers with none, which is not the end of anything."""
        if error is not None:
            raise KafkaException(error)
        if offset == OFFSET_INVALID:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "its leader does not answer"))
        return offset

    def _listed(self, wanted: Sequence[TopicPartition], isolation: str) -> dict[int, int]:
        """The same by a way that Ctrl-C can interrupt however long it takes, which itself takes three times as long."""
        level = IsolationLevel[isolation.upper()]
        spec: Any = OffsetSpec
        ends = {LATEST: spec.latest(), EARLIEST: spec.earliest()}
        specs = {
            TopicPartition(one.topic, one.partition): ends.get(one.offset) or spec.for_timestamp(one.offset)
            for one in wanted
        }
        found = self.admin.list_offsets(specs, isolation_level=level, request_timeout=FAR_S)
        return {one.partition: self._checked(None, self._waited(future).offset) for one, future in found.items()}

    def check_topic(self, topic: str, until: float = math.inf) -> int:
        """How many partitions a topic has; raises `UnknownTopicError` if it does not exist."""
        found = self._partitions(topic, GONE_S, until)
        if found is None:
            raise UnknownTopicError(topic, [])
        return found

    # changing topics

    def make(self, topics: Sequence[NewTopic]) -> set[str]:
        """Create those topics that do not exist, and wait until they are known; the names of those that were created.

        A topic whose creation was not answered is not among them, although it may be new.
        """
        if not topics:
            return set()
        exists = KafkaError.TOPIC_ALREADY_EXISTS
        made = self._changed(lambda: self.admin.create_topics(list(topics)), "creating topics", exists)
        for topic in topics:
            until = time.monotonic() + self.timeout_s
            while self.partitions(topic.topic) is None and time.monotonic() < until:
                time.sleep(0.02)
        return made

    def delete(self, topics: Sequence[str]) -> None:
        """Delete those topics that exist."""
        if topics:
            self._changed(lambda: self.admin.delete_topics(list(topics)), "deleting topics", *GONE)

    def delete_records(self, before: Mapping[tuple[str, int], int]) -> None:
        """Drop the records of partitions before an offset of each."""
        marks = [TopicPartition(topic, partition, offset) for (topic, partition), offset in before.items()]
        if marks:
            self._changed(lambda: self.admin.delete_records(marks), "trimming", KafkaError.OFFSET_OUT_OF_RANGE)

    def _changed(self, request: Callable[[], Mapping[T, Future[Any]]], doing: str, *fine: int) -> set[T]:
        """Change something that may be changed twice; some errors say that it is as it should be.

        Returns what was changed by this call.
        """
        changed = set[T]()

        def change() -> None:
            for one, future in request().items():
                try:
                    self._waited(future)
                except KafkaException as error:
                    if error.args[0].code() not in fine:
                        raise
                else:
                    changed.add(one)

        self._ask(change, doing)
        return changed

    # the end

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._is_closed or self.owner != os.getpid()

    def check(self) -> None:
        """Raise if nothing can be asked any more."""
        if self.owner != os.getpid():
            raise ForkError("a log on a cluster belongs to the process that opened it: open it again in the child")
        if self._is_closed:
            raise ClosedError(f"{self.address} was closed")

    def close(self) -> None:
        """End all calls within a moment, and the shared connections with the last of them. Twice is not an error."""
        if self.owner == os.getpid():
            self._is_closed = True
            with self._lock:
                self._kept.clear()

    def leave_to_the_parent(self) -> None:
        """In a forked child: never free what belongs to threads that are not there, since that would wait for ever."""
        for client in [*self._clients, *self._kept.values()]:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


_CLUSTERS = weakref.WeakSet[Cluster]()


def _leave_all() -> None:
    for cluster in list(_CLUSTERS):
        cluster.leave_to_the_parent()


os.register_at_fork(after_in_child=_leave_all)


def is_allowed(topic: str) -> bool:
    """Whether Kafka allows a name for a topic; to ask for another is an error."""
    return re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic, re.ASCII) is not None and topic not in (".", "..")


def _properties(given: Mapping[str, Any]) -> dict[str, Any]:
    """Properties by their names in librdkafka, which have dots; callbacks are none of it."""
    return {name if name.endswith("_cb") else name.replace("_", "."): value for name, value in given.items()}


def _in_background(call: Callable[[], T]) -> Future[T]:
    """The result of a call that cannot be interrupted: a thread makes it, which no exit waits for."""
    future = Future[T]()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # the one who waits is told
            future.set_exception(error)

    threading.Thread(target=run, name="pqlog-ask", daemon=True).start()
    return future
