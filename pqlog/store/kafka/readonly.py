"""A log on a cluster, or anybody's topics, read-only: nothing is written to the cluster, and need be kept there."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from pqlog.errors import Error, ReadOnlyError, UnknownTopicError, UnsupportedError
from pqlog.store.api import ClientStore, MessageSource, TopicStore
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.cluster import Cluster, is_allowed
from pqlog.store.kafka.merged import KafkaMerged
from pqlog.store.kafka.partition import COUNTED, COUNTED_BYTES, KafkaPartition
from pqlog.store.kafka.published import Published, PublishedPartition, published
from pqlog.store.kafka.reader import ReaderPool
from pqlog.store.kafka.records import time_of, times_of
from pqlog.store.kafka.refusing import Refusing
from pqlog.store.values import (
    LATEST,
    Capabilities,
    ClientState,
    Cursor,
    Moved,
    Output,
    PartitionOffset,
    Put,
    Row,
    Single,
    Span,
    TopicInfo,
)

POLL_S = 0.05
"""How often a waiting reader asks the cluster."""


class ReadOnlyStore:
    """The topics of a cluster, or of a log on it; the protocol is `pqlog.store.api.Store`.

    A topic has the partitions that it had when it was opened: of those that are added later, who opens it again reads.

    Parameters
    ----------
    address : Address
        If it names a log, that is read: it must exist. What is taken for a log once is never taken for the topics of
        other programs, nor the other way round: a copy would begin again, under other ids.
    timeout_s : float
        How long an answer of the cluster is waited for.
    codec : str
        What the values of other programs' topics are unless the reader says otherwise: Kafka does not know.

    Raises
    ------
    StoreError
        There is no such log, or it is being created.
    """

    readonly = True
    capabilities = Capabilities(
        durable=False, dense_offsets=False, shared_by_processes=True, exact_counts=False, ordered_partitions=False
    )
    advice = 'if its values are something else, say what: codec="bytes", or an object of yours that decodes'

    def __init__(
        self,
        address: Address,
        timeout_s: float = 60.0,
        codec: str = "json",
    ) -> None:
        self.name, self.address = str(address), address
        self.cluster = Cluster(address, timeout_s)
        self.readers = ReaderPool(self.cluster)
        self._codec = codec
        self._woken = threading.Condition()
        self._published: Published | None = None
        try:
            if address.log is not None:
                self._published = published(self.cluster, address.log)
            self.uuid = self.cluster.id() if self._published is None else self._published.uuid()
        except BaseException:
            self.close()
            raise

    # topics

    @property
    def is_foreign(self) -> bool:
        """Whether the topics are anybody's, and not those of a log."""
        return self._published is None

    def topics(self) -> list[TopicInfo]:
        if self._published is not None:
            return [known.info() for known in self._published.look().all()]
        return [info for _, info in self._shown()]

    def _shown(self) -> list[tuple[str, TopicInfo]]:
        """What the cluster calls each topic, and its first partition."""
        found = sorted((name, partitions) for name, partitions in self.cluster.topics().items() if _is_shown(name))
        ids = self.cluster.ids([name for name, _ in found])
        return [(name, self._info(name, ids[name], partitions)) for name, partitions in found if name in ids]

    def records(self, since: int | None = None) -> list[tuple[TopicInfo, int]]:
        """The same, with about how many records each keeps: `pqlog.store.api.EstimatesTopics`."""
        if self._published is not None:
            return self._published.records(self.cluster, since)
        found = self._shown()
        ms = None if since is None else since // 1000
        counts = self.cluster.records({name: info.partitions for name, info in found}, ms)
        return [(info, counts[name]) for name, info in found]

    def _info(self, topic: str, id: str, partitions: int, number: int = 0, codec: str = "") -> TopicInfo:
        """A partition; `id` is that of Kafka, or empty if it has none."""
        digest = hashlib.blake2b(f"{id or topic}/{number}".encode(), digest_size=7).digest()
        return TopicInfo(int.from_bytes(digest, "big"), topic, codec or self._codec, number, partitions)

    def find_topic(self, name: str) -> Sequence[TopicStore]:
        return self._found(name, "")

    def find_encoded(self, name: str, codec: str) -> Sequence[TopicStore]:
        """The same, of values of a codec: `pqlog.store.api.ReadsForeignTopics`."""
        return self._found(name, codec)

    def _found(self, name: str, codec: str) -> Sequence[TopicStore]:
        if self._published is not None:
            known = self._published.look().named(name)
            numbers = range(known.partitions if known else 0)
            return [PublishedPartition(self, self._published, known, one) for one in numbers if known]
        if not is_allowed(name):
            return ()
        partitions = self.cluster.partitions(name)
        id = None if partitions is None else self.cluster.ids([name]).get(name)
        if partitions is None or id is None:
            return ()
        infos = [self._info(name, id, partitions, number, codec) for number in range(partitions)]
        return [ForeignPartition(self, info, name) for info in infos]

    def missing(self, name: str) -> MissingTopic:
        """In place of a topic that does not exist, for a log that need not stand for one."""
        return MissingTopic(self, TopicInfo(0, name, self._codec))

    def not_there(self, name: str) -> UnknownTopicError:
        """The error for a topic that does not exist."""
        names = [info.name for info in self.topics()]
        if self.address.log is None:
            return UnknownTopicError.of_cluster(name, self.name, names)
        return UnknownTopicError(name, names)

    def topic(self, name: str, codec: str, partitions: int) -> Sequence[TopicStore]:
        return self.find_topic(name) or self.refuse()

    # reading

    def merged(self, partitions: Sequence[TopicStore], begin: Sequence[int] | None) -> MessageSource:
        """All partitions of a topic as one source: `pqlog.store.api.MergesPartitions`."""
        return KafkaMerged([one for one in partitions if isinstance(one, KafkaPartition)], begin)

    def spans(self, topics: Sequence[TopicStore]) -> list[Span]:
        found = dict[int, Span]()
        for topic in topics:
            if isinstance(topic, PublishedPartition):
                topic.check()
        ours = [(index, topic) for index, topic in enumerate(topics) if isinstance(topic, KafkaPartition)]
        for name, group in itertools.groupby(ours, key=lambda one: one[1].kafka_topic):
            some = list(group)
            ends = self.cluster.all_ends(name, [topic.info.partition for _, topic in some])
            for (index, topic), (first, stable) in zip(some, ends, strict=True):
                found[index] = topic.spanning(topic.keeping(first, stable))
        return [found[index] if index in found else topic.span() for index, topic in enumerate(topics)]

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self.cluster.check()
            if ready():
                return True
            left = POLL_S if until is None else min(POLL_S, until - time.monotonic())
            if left <= 0:
                return False
            with self._woken:
                self._woken.wait(max(min(left, tick), 0.005))

    def wake(self) -> None:
        with self._woken:
            self._woken.notify_all()

    def close(self) -> None:
        if self.cluster.owner != os.getpid():  # a lock may be held by a thread that a fork does not have
            return
        if self._published is not None:
            self._published.close()
        self.cluster.close()
        self.readers.close()
        self.wake()

    # what is refused

    def refuse(self) -> NoReturn:
        """In place of whatever writes."""
        self.cluster.check()
        raise ReadOnlyError(
            f"{self.name} was opened for reading only: pqlog.open({self._log_to_write()!r}), without readonly=True, "
            f"opens a log of pqlog's for writing"
        )

    def no_clients(self) -> NoReturn:
        """In place of what a client does."""
        if self._published is not None:
            self.refuse()
        self.cluster.check()
        raise UnsupportedError(
            f"{self.name} was opened for reading only, and a client needs a place to keep its position: open a log "
            f"with pqlog.open({self._log_to_write()!r}), or copy the topic into a file; history(), tail() and live() "
            f"need no client"
        )

    def _log_to_write(self) -> str:
        """The address of a log on the cluster, as an example where this one names none."""
        return self.name if self.address.log is not None else f"{self.name}/etl"

    def append(
        self, outputs: Sequence[Output], id: str | None = None, cursor: Cursor | None = None
    ) -> Mapping[int, Put]:
        self.refuse()

    def append_each(self, singles: Sequence[Single]) -> Sequence[PartitionOffset | Error]:
        self.refuse()

    def trim(self, marks: Sequence[tuple[TopicStore, int]], force: bool) -> Sequence[int]:
        self.refuse()

    def states(self, clients: Sequence[ClientStore]) -> Sequence[ClientState | None]:
        return [client.state() for client in clients]

    def join(self, clients: Sequence[ClientStore]) -> None:
        self.no_clients()

    def find_work(self, clients: Sequence[ClientStore], worker: str, ordered: bool = False) -> int | None:
        self.no_clients()

    def seek(self, moves: Sequence[tuple[ClientStore, int]]) -> Sequence[Moved]:
        self.no_clients()

    def delete_clients(self, clients: Sequence[ClientStore]) -> bool:
        self.no_clients()

    def cursor(self, name: str) -> str | None:
        self.no_clients()


class ForeignPartition(Refusing, KafkaPartition):
    """A partition of anybody's topic; the protocols are `pqlog.store.api.TopicStore` and `HasAnyTimes`."""

    def within(self, since: int | None, until: int | None) -> TopicStore:
        return TimedPartition(self, since, until)


class TimedPartition(ForeignPartition):
    """The messages of a partition that are within a range of times, which may run backwards."""

    def __init__(self, whole: ForeignPartition, since: int | None, until: int | None) -> None:
        super().__init__(whole.log, whole.info, whole.kafka_topic)
        self.index, self._whole = whole.index, whole
        self._since, self._until = since or 0, LATEST + 1 if until is None else until

    def chosen(self, messages: Sequence[Any]) -> Sequence[int] | None:
        times = times_of(messages)
        if not times or (min(times) >= self._since and max(times) < self._until):
            return None
        return [index for index, time in enumerate(times) if self._since <= time < self._until]

    def is_chosen(self, message: Message) -> bool:
        return self._since <= time_of(message) < self._until

    def row(self, message: Message, record: int, headers: Any, span: Span) -> Row | None:
        return super().row(message, record, headers, span) if self.is_chosen(message) else None

    def counted(self, wanted: Span) -> int:
        return sum(row.rows or 1 for row in self._all(wanted))

    def _all(self, span: Span) -> Iterator[Row]:
        while rows := self.read(span, COUNTED, COUNTED_BYTES) if span else ():
            yield from rows
            span = Span(rows[-1].stop, span.stop)

    def from_end(self, messages: int, span: Span | None = None) -> int:
        wanted, step = self.span() if span is None else span, messages
        if messages <= 0 or not wanted:
            return wanted.stop
        while True:
            first = self._whole.from_end(step, wanted)
            runs = [(row.offset, row.rows or 1) for row in self._all(Span(first, wanted.stop))]
            left = messages
            for offset, count in reversed(runs):
                if left <= count:
                    return offset + count - left
                left -= count
            if first <= wanted.first:
                return runs[0][0] if runs else wanted.stop
            step *= 8

    def is_behind(self, time: int) -> bool:
        return time >= self._until

    def offset_at(self, time: int) -> int:
        if not self.is_behind(time):
            return super().offset_at(time)
        kept, begin = self.kept(), super().offset_at(self._until)
        message = self._peek(begin, kept.stop) if begin < kept.stop else None
        is_ordered = message is not None and message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME
        return begin if is_ordered else kept.stop


class MissingTopic(Refusing):
    """A topic that does not exist: whatever is read from it raises `UnknownTopicError`."""

    def __init__(self, log: ReadOnlyStore, info: TopicInfo) -> None:
        self.log, self.info = log, info

    def _missing(self) -> NoReturn:
        raise self.log.not_there(self.info.name)

    def span(self) -> Span:
        self._missing()

    def count(self, span: Span | None = None) -> int:
        self._missing()

    def from_end(self, messages: int, span: Span | None = None) -> int:
        self._missing()

    def offset_at(self, time: int) -> int:
        self._missing()

    def time_at(self, offset: int) -> int | None:
        self._missing()

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        self._missing()


def _is_shown(topic: str) -> bool:
    """Whether a topic of the cluster is one for people: not of Kafka's own, nor of the state of a log."""
    return "__" not in (topic[:2], topic.rpartition(".")[2][:2])


_CHECKED: tuple[type[TopicStore], type[TopicStore], type[MessageSource]] = (
    ForeignPartition,
    MissingTopic,
    KafkaPartition,
)
"""A type checker sees here that they follow the protocols."""
