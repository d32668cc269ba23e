"""Putting chunks into partitions, in a transaction; and single messages without one."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from pqlog.errors import ClusterError, Error, StoreError, TooLargeError, UncertainError
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.faults import GONE, PASSING, told, words_of
from pqlog.store.kafka.ids import NewIds
from pqlog.store.kafka.lane import Transaction
from pqlog.store.kafka.outcome import Outcome, offset_of, uninterrupted
from pqlog.store.kafka.records import ROWS, Record, records_of
from pqlog.store.kafka.transactions import dispose
from pqlog.store.values import Chunk, Kept, Output, Put, Span

if TYPE_CHECKING:
    from pqlog.store.kafka.topic import KafkaTopic

OVERHEAD = 1_000
"""How many bytes a record takes at most in addition to its value, key and headers."""
SLICE_S = 0.1
"""How long a thread waits at once, since Ctrl-C waits for it: several wait in turn."""


def put_all(tx: Transaction, outputs: Sequence[Output]) -> list[Put]:
    """Put into partitions of topics; where each output went."""
    from pqlog.store.kafka.topic import KafkaTopic

    new, calls, topics = NewIds(tx), defaultdict[int, Kept](Kept), dict[KafkaTopic, None]()
    sendings: list[tuple[_Sending, list[str] | None]] = []
    for output in outputs:
        topic, chunks, ids = output.topic, output.chunks, None
        assert isinstance(topic, KafkaTopic)
        topics[topic] = None
        call = calls[id(output.ids and output.ids.call)]
        try:
            if output.ids is not None:
                chunks, ids = new.thinned(topic, output.ids, chunks, call)
            sending = _Sending(tx, topic, ids is not None)
            sending.send_all(chunks)
        except (Error, KafkaException):
            raise
        except Exception as error:
            raise StoreError(f"what was to be put cannot be read: {error}") from error
        call.messages += sending.messages
        sendings.append((sending, ids))
    if topics:  # while everything is under way
        seen = next(iter(topics)).log.catalogue.look()
        for topic in topics:
            topic.checked(seen)
    if any(sending.messages for sending, _ in sendings):
        tx.flush()
    for sending, ids in sendings:
        if ids is not None:
            new.note(sending.topic, ids, sending.offsets())
    return [sending.put() for sending, _ in sendings]


class _Sending:
    """What is sent to one partition."""

    def __init__(self, tx: Transaction, topic: KafkaTopic, is_each: bool) -> None:
        self.topic, self.messages = topic, 0
        self._tx, self._is_each = tx, is_each
        self._where = topic.kafka_topic, topic.info.partition
        self._went: list[Span] = []
        """Where records went: each of them, or the first and the last of each chunk."""

    def send_all(self, chunks: Iterable[Chunk]) -> None:
        """Send everything. Its callers know the offsets of the first and the last record, or of all."""
        for chunk in chunks:
            records = list(records_of(chunk))
            check_sizes(self.topic, records)
            if self._is_each:
                for record in records:
                    self._send(record)
            elif records:
                self._send(records[0])
                self._tx.sending.send_many(*self._where, records[1:-1])
                if len(records) > 1:
                    self._send(records[-1])
            self.messages += sum([record.rows for record in records])

    def _send(self, record: Record) -> None:
        value, key, headers, rows = record
        went = self._went

        def delivered(offset: int) -> None:
            went.append(Span(offset * ROWS, offset * ROWS + rows))

        self._tx.sending.send(*self._where, value, key, headers, delivered)

    def offsets(self) -> Iterator[int]:
        """Those of all messages, if they were to be told."""
        return (offset for span in self._went for offset in range(*span))

    def put(self) -> Put:
        """Where it went."""
        if not self.messages:
            stop = self.topic.stop()  # in a transaction, which others wait for: this must not wait for any
            return Put(stop, stop - 1, 0)
        self._tx.after.append(partial(self.topic.wrote, self._went[-1].last))
        return Put(self._went[0].first, self._went[-1].last, self.messages)


def check_sizes(topic: KafkaTopic, records: Iterable[Record]) -> None:
    """Raise if the topic does not take one of some records: before it is sent."""
    limit = topic.info.max_bytes
    if limit is None:
        return
    for record in records:
        value, key, headers, _ = record
        size = len(value)
        if key is not None:
            size += len(key)
        if headers is not None:
            size += sum([len(name) + len(text) for name, text in headers])
        if size > limit:
            raise _too_large(topic, record, size)


def _too_large(topic: KafkaTopic, record: Record, size: int) -> TooLargeError:
    what = "a message" if record.rows == 1 else f"a segment of {record.rows:,} messages"
    return TooLargeError(
        f"{what} of {size:,} bytes is larger than topic {topic.info.name!r} takes, which is "
        f"{topic.info.max_bytes or 0:,} bytes (max.message.bytes of the topic {topic.kafka_topic!r}). Nothing was put. "
        f"Put less in one message"
    )


def _doing(topic: KafkaTopic) -> str:
    return f"putting into topic {topic.info.name!r}"


def _unacknowledged(topic: KafkaTopic, why: str) -> UncertainError:
    return UncertainError(
        f"{_doing(topic)}: the cluster did not acknowledge the message in time, so it may or may not be there: {why}. "
        f"Look for it; a put with an id takes effect once, however often it is repeated"
    )


class _Served:
    """A producer of single messages, and the threads that wait for it: one of them serves it for all."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.serving = threading.Lock()
        self.moved = threading.Condition()
        self.is_broken = False
        """Whether what it was told may have been lost: Ctrl-C struck."""

    def wait(self, done: object, check: Callable[[], None]) -> None:
        """Wait until something is done, that is, true."""
        while not done:
            check()
            if self.is_broken:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "another thread was interrupted"))
            if self.serving.acquire(blocking=False):
                try:
                    while not done:
                        self._serve()
                        check()
                finally:
                    self.serving.release()
                    self._tell()  # another one serves now
            else:
                with self.moved:
                    if not done and self.serving.locked():
                        self.moved.wait(SLICE_S)

    def _serve(self) -> None:
        try:
            uninterrupted(self.producer.poll, SLICE_S)
        except BaseException:
            self.is_broken = True
            raise
        self._tell()

    def _tell(self) -> None:
        with self.moved:
            self.moved.notify_all()


class _UnderWay:
    """Records that were sent together: true once it was said of each what became of it."""

    def __init__(self) -> None:
        self.outcomes = dict[int, Outcome]()
        """By number."""
        self._waiting = deque[Outcome]()

    def add(self, number: int, outcome: Outcome) -> None:
        """One more was sent."""
        self.outcomes[number] = outcome
        self._waiting.append(outcome)

    def __bool__(self) -> bool:
        while self._waiting and self._waiting[0]:
            self._waiting.popleft()
        return not self._waiting


class SinglePuts:
    """Single messages put one by one, by any number of threads: acknowledged by all replicas, without a transaction."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._served: _Served | None = None

    def put(self, topic: KafkaTopic, record: Record, meanwhile: Callable[[], None]) -> int:
        """Put one record; its offset. `meanwhile` is called while it is under way."""
        outcome = Outcome()
        served = self._sent(topic, record, outcome.setdefault)
        try:
            meanwhile()
            served.wait(outcome, self._cluster.check)
            return offset_of(outcome)
        except KafkaException as error:
            self._renew(served)
            raise self._problem(topic, error.args[0]) from error
        except ClusterError as error:  # in `meanwhile`
            self._renew(served)
            raise _unacknowledged(topic, str(error)) from error
        except BaseException:  # the message may be on its way, to a topic that is gone
            self._renew(served)
            raise

    def put_each(self, records: Sequence[tuple[KafkaTopic, Record]]) -> list[int | Error]:
        """Put some, all under way at once; of each the offset, or the error."""
        failed = dict[int, Error]()
        under_way, served = _UnderWay(), self._current()
        try:
            for number, (topic, record) in enumerate(records):
                outcome = Outcome()
                try:
                    served = self._sent(topic, record, outcome.setdefault)
                    under_way.add(number, outcome)
                except Error as error:  # its producer is not used again, and what is under way there comes first
                    failed[number] = error
                    served.wait(under_way, self._cluster.check)
            served.wait(under_way, self._cluster.check)
        except (KafkaException, ClusterError) as error:
            self._renew(served)
            lost = str(error)
        except BaseException:
            self._renew(served)
            raise
        else:
            lost = "it was not said where it went"
        return [
            failed.get(number) or self._came(topic, served, under_way.outcomes.get(number), lost)
            for number, (topic, _) in enumerate(records)
        ]

    def _came(self, topic: KafkaTopic, served: _Served, outcome: Outcome | None, lost: str) -> int | Error:
        """What became of a record."""
        if not outcome:
            self._renew(served)
            return _unacknowledged(topic, lost)
        try:
            return offset_of(outcome)
        except KafkaException as error:
            self._renew(served)
            try:
                return self._problem(topic, error.args[0])
            except Error as gone:
                return gone

    def _sent(self, topic: KafkaTopic, record: Record, report: Callable[..., object], again: bool = True) -> _Served:
        """Send a record; the producer that has it."""
        served = self._current()
        try:
            self._produce(served.producer, topic, record, report)
        except KafkaException as error:
            self._renew(served)
            if again and error.args[0].code() == KafkaError._UNKNOWN_PARTITION:
                # It may know a topic that had the name before, with fewer partitions; a new one asks.
                return self._sent(topic, record, report, again=False)
            raise told(error, _doing(topic)) from error
        return served

    def _produce(self, producer: Producer, topic: KafkaTopic, record: Record, report: Callable[..., object]) -> None:
        value, key, headers, _ = record
        where = topic.info.partition
        while True:
            try:
                producer.produce(topic.kafka_topic, value, key, where, report, headers=headers)  # type: ignore[arg-type]
                return
            except BufferError:
                uninterrupted(producer.poll, SLICE_S)

    def _current(self) -> _Served:
        with self._lock:
            if self._served is None:
                self._served = _Served(self._cluster.producer())
            return self._served

    def _renew(self, served: _Served) -> None:
        """Never use a producer again after an error."""
        with self._lock:
            if self._served is served:
                self._served = None

    @staticmethod
    def _problem(topic: KafkaTopic, error: KafkaError) -> Error:
        if error.code() in GONE:
            topic.check()
        if error.code() in PASSING or error.fatal():
            return _unacknowledged(topic, words_of(error))
        return told(error, _doing(topic))

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            served, self._served = self._served, None
        if served is not None:
            dispose(served.producer)
