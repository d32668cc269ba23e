"""Readers: consumers that stay where they are, so that who reads on does not seek; a few for each cluster."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pqlog.errors import ClusterError
from pqlog.store.kafka.cluster import SLICE_S, Cluster
from pqlog.store.kafka.faults import GONE, PASSING, told
from pqlog.store.kafka.index import Index
from pqlog.store.kafka.records import ROWS, UNREADABLE, rows_of

PULLED = 2_000
"""How many records are taken from librdkafka at a time: the memory of more is no longer in the processor's cache."""
PAUSED = 50_000
"""How many records of a partition wait for those of others before it is paused."""
PROMOTED = 5_000
"""After how many records a reader reads far ahead."""
IDLE_S, MOST_IDLE = 20.0, 8
"""How long a reader is kept that nobody uses, and how many are."""
CHECK_S = 1.0
"""How long nothing may come before the topic is looked for."""

SMALL = {
    "fetch_message_max_bytes": 256 << 10,
    "queued_min_messages": 2_000,
    "queued_max_messages_kbytes": 2 << 10,
    "fetch_wait_max_ms": 5,  # how long it takes to see that behind the last message there is none
    "fetch_queue_backoff_ms": 2,
}
LARGE = {
    "queued_min_messages": 200_000,
    "queued_max_messages_kbytes": 64 << 10,
    "fetch_wait_max_ms": 10,
    "fetch_queue_backoff_ms": 5,  # a second by default, in which nothing is read
}


@dataclass(slots=True)
class Batch:
    """Records of a partition that were received, in their order."""

    messages: Sequence[Message]
    records: Sequence[int]
    """Their record offsets."""
    headers: Sequence[Any] | None
    """None if none has any."""
    rows: Sequence[int | None] | None
    """How many messages each has if it is a segment; None if none is."""
    at: int = 0
    """The first that was not consumed."""

    def end(self, stop: int, most: int) -> int:
        """Behind the last of those before a record offset, of which there are at most so many."""
        return min(bisect.bisect_left(self.records, stop, self.at), self.at + most)

    def stop_of(self, index: int) -> int:
        """The offset behind the last message of one."""
        return self.records[index] * ROWS + ((self.rows[index] if self.rows else None) or 1)


@dataclass(slots=True)
class Part:
    """What a reader has of a partition."""

    index: Index
    behind: int
    """The offset behind the last message that was consumed."""
    seen: int
    """All before this record offset was received."""
    batches: deque[Batch] = field(default_factory=deque)
    is_paused: bool = False
    is_at_end: bool = False
    """Whether nothing more was there a moment ago."""

    @property
    def head(self) -> int:
        """The record offset of the next that is consumed, or received."""
        return self.batches[0].records[self.batches[0].at] if self.batches else self.seen

    @property
    def buffered(self) -> int:
        """How many records wait."""
        return sum(len(batch.records) - batch.at for batch in self.batches)

    def consume(self, records: int) -> None:
        """Go on behind some records of the first batch."""
        batch = self.batches[0]
        self.behind = max(self.behind, batch.stop_of(batch.at + records - 1))
        batch.at += records
        if batch.at == len(batch.records):
            self.batches.popleft()

    def has(self, offset: int) -> bool:
        """Whether an offset can be read on from, without asking for what was consumed already."""
        return self.behind <= offset and offset // ROWS <= self.seen

    def message_at(self, offset: int) -> tuple[int, Message] | None:
        """The first record that waits and has a message at or after an offset, and the offset of that."""
        for batch in self.batches:
            if batch.stop_of(-1) > offset:
                index = next(index for index in range(batch.at, len(batch.records)) if batch.stop_of(index) > offset)
                return max(offset, batch.records[index] * ROWS), batch.messages[index]
        return None

    def skip(self, offset: int) -> None:
        """Let go what ends before an offset."""
        while self.batches:
            batch = self.batches[0]
            if batch.stop_of(batch.at) > offset:
                break
            self.consume(len(batch.records) - batch.at if batch.stop_of(-1) <= offset else 1)
        self.behind = max(self.behind, offset)


class Reader:
    """A consumer of some partitions of a topic, and what it received; for one thread at a time."""

    def __init__(self, cluster: Cluster, is_large: bool) -> None:
        self._cluster, self.is_large = cluster, is_large
        self._consumer: Consumer = cluster.consumer(**(LARGE if is_large else SMALL))
        self.topic, self.parts = "", dict[int, Part]()
        self.is_whole = True
        """False while it may have lost what it received."""
        self.received = 0
        self.used = 0.0

    def begin(self, topic: str, offsets: Mapping[int, int], indexes: Mapping[int, Index]) -> None:
        """Read from these offsets of partitions on."""
        self.is_whole, self.received = False, 0
        for number, part in self.parts.items():
            if part.is_paused:  # else it would be paused also when it is assigned again
                self._pause(number, False)
        self.topic = topic
        self.parts = {number: Part(indexes[number], offset, offset // ROWS) for number, offset in offsets.items()}
        with contextlib.suppress(KafkaException):  # it may take a second to learn the leaders of a new topic otherwise
            self._consumer.list_topics(topic, SLICE_S)
        self._assign()
        self.is_whole = True

    def _assign(self) -> None:
        """Receive from where each part is."""
        self._consumer.assign([TopicPartition(self.topic, number, part.seen) for number, part in self.parts.items()])

    def has(self, topic: str, offsets: Mapping[int, int], indexes: Mapping[int, Index]) -> bool:
        """Whether it can go on at these offsets, and has noted all that waits in the indexes."""
        if topic != self.topic or offsets.keys() != self.parts.keys():
            return False
        parts = self.parts
        return all(parts[one].has(offset) and parts[one].index is indexes[one] for one, offset in offsets.items())

    def fill(self, number: int, until: int, records: int = 1) -> Part:
        """Receive, up to a record offset, until that many records of a partition wait; returns it."""
        part = self.parts[number]
        if part.is_paused:
            self._pause(number, False)
        last, checked = time.monotonic(), time.monotonic()
        while part.seen < until and (not part.batches if records == 1 else part.buffered < records):
            if self._pull():
                last = time.monotonic()
                continue
            now = time.monotonic()
            if now - max(last, checked) > CHECK_S:
                self._cluster.check_topic(self.topic)
                checked = time.monotonic()
            if now - last > self._cluster.timeout_s:
                raise ClusterError(
                    f"reading the topic {self.topic!r}: nothing came within {self._cluster.timeout_s:.0f} seconds, "
                    f"though there is more. Check that the brokers are running, then repeat the call"
                )
        return part

    def _pull(self) -> bool:
        """Take what librdkafka has, or wait a moment for it; whether anything came."""
        self._cluster.check()
        self.is_whole = False  # if Ctrl-C strikes meanwhile, what was taken is lost
        batch = self._consumer.consume(PULLED, 0) or self._consumer.consume(1, 0.1)
        failed = [message for message in batch if message.error() is not None]
        if failed:
            batch = [message for message in batch if message.error() is None]
        if len(self.parts) == 1:
            self._receive(next(iter(self.parts)), batch)
        else:
            for number, some in itertools.groupby(batch, Message.partition):
                self._receive(number, list(some))
        self.is_whole = True
        ends = [message for message in failed if _code(message) == KafkaError._PARTITION_EOF]
        for message in ends:
            self._end(_partition(message), _offset(message))
        for message in failed:
            if message not in ends:
                self._failed(message)
        return bool(batch or ends)

    def _receive(self, number: int | None, messages: Sequence[Message]) -> None:
        part = self.parts.get(number or 0)
        if not messages or part is None:
            return
        records: list[Any] = [message.offset() for message in messages]
        if records[0] < part.seen:  # of an assignment before
            messages = [message for message, record in zip(messages, records, strict=True) if record >= part.seen]
            records = [record for record in records if record >= part.seen]
            if not records:
                return
        headers = _headers(messages)
        rows = (
            None
            if headers is None
            else [rows_of(one, of) if of else None for one, of in zip(messages, headers, strict=True)]
        )
        if rows is not None and not any(rows):
            rows = None
        part.index.add(part.seen, records[-1] + 1, records, rows)
        part.batches.append(Batch(messages, records, headers, rows))
        if records[0] * ROWS < part.behind:  # it was asked for behind a segment, or within it
            part.skip(part.behind)
        part.seen, part.is_at_end = records[-1] + 1, False
        self.received += len(records)
        if len(self.parts) > 1 and part.buffered > PAUSED and not part.is_paused:
            self._pause(number or 0, True)

    def _end(self, number: int, record: int) -> None:
        """Nothing lies before the record offset of the end."""
        part = self.parts.get(number)
        if part is not None and record >= part.seen:
            part.index.add(part.seen, record, [], None)
            part.seen, part.is_at_end = record, True

    def _failed(self, message: Message) -> None:
        error: Any = message.error()
        number = _partition(message)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) and number in self.parts:
            self._trimmed(number, self.parts[number])
        elif error.code() in GONE:
            self._cluster.check_topic(self.topic)
        elif error.code() not in PASSING:
            raise told(error, f"reading the topic {self.topic!r}")

    def _trimmed(self, number: int, part: Part) -> None:
        """Go on with the first record that is kept."""
        first, stop = self._cluster.ends(self.topic, number)
        if part.seen > stop:
            raise ClusterError(
                f"reading the topic {self.topic!r}: offset {part.seen * ROWS} is behind its end. It was deleted and "
                f"created again, or the cluster lost messages: open it again"
            )
        part.seen = max(part.seen, first)
        self._assign()

    def _pause(self, number: int, pause: bool) -> None:
        part = self.parts[number]
        some = [TopicPartition(self.topic, number)]
        if pause:
            self._consumer.pause(some)
        else:
            self._consumer.resume(some)
        part.is_paused = pause

    def rest(self) -> bool:
        """Ask the cluster for nothing more while nobody reads, where there was nothing more.

        False if it cannot be used again.
        """
        try:
            for number, part in self.parts.items():
                if self.is_whole and part.is_at_end and not part.is_paused:
                    self._pause(number, True)
        except (KafkaException, RuntimeError):
            self.is_whole = False
        return self.is_whole

    def is_outgrown(self, is_large: bool) -> bool:
        """Whether a small reader is no longer enough."""
        waiting = sum(part.buffered for part in self.parts.values())
        return waiting < PROMOTED and (is_large or self.received > PROMOTED)

    def close(self) -> None:
        """Give the connections back. It does not raise: many are closed one after the other."""
        self.is_whole = False
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()


def _headers(messages: Sequence[Message]) -> list[Any] | None:
    """The headers of messages, as `records.headers_of`; None if none has any."""
    found: list[Any] = []
    while len(found) < len(messages):
        try:
            found.extend(map(Message.headers, messages if not found else messages[len(found) :]))
        except (SystemError, UnicodeDecodeError):  # what lies before is in the list
            found.append(UNREADABLE)
    return found if any(of is not None for of in found) else None


def _code(message: Message) -> int:
    error: Any = message.error()
    return int(error.code())


def _partition(message: Message) -> int:
    number: Any = message.partition()
    return int(number)


def _offset(message: Message) -> int:
    offset: Any = message.offset()
    return int(offset)


class ReaderPool:
    """The readers of a log that are not used at the moment."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._idle: list[Reader] = []
        """Those that were used last come last."""
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(
        self,
        topic: str,
        offsets: Mapping[int, int],
        indexes: Mapping[int, Index],
        is_large: bool = False,
        keep: bool = False,
    ) -> Reader:
        """A reader that reads on at these offsets; to be given back.

        A large one reads far ahead. With `keep`, what it received before them still waits for who reads it.
        """
        self._cluster.check()
        with self._lock:
            found = next((reader for reader in reversed(self._idle) if reader.has(topic, offsets, indexes)), None)
            if found is not None:
                self._idle.remove(found)
        begin = offsets
        if found is not None and not found.is_large and found.is_outgrown(is_large):
            begin = {number: part.behind for number, part in found.parts.items()} if keep else offsets
            found.close()
            found, is_large = None, True
        if found is None:
            found = self._other(is_large)
            try:
                found.begin(topic, begin, indexes)
            except BaseException:
                found.close()
                raise
        if not keep:
            for number, offset in offsets.items():
                found.parts[number].skip(offset)
        return found

    def _other(self, is_large: bool) -> Reader:
        """A reader that stands elsewhere, or a new one."""
        with self._lock:
            alike = [reader for reader in self._idle if reader.is_large == is_large]
            if len(alike) >= MOST_IDLE // 2:
                self._idle.remove(alike[0])
                return alike[0]
        return Reader(self._cluster, is_large)

    def give(self, reader: Reader) -> None:
        """Take a reader back; closed if it cannot be used again."""
        if self._cluster.is_closed or not reader.rest():
            reader.close()
            return
        reader.used = time.monotonic()
        with self._lock:
            self._idle.append(reader)
            closed = self._idle[:-MOST_IDLE]
            del self._idle[:-MOST_IDLE]
            self._watch()
        for one in closed:
            one.close()

    def _watch(self) -> None:
        """See to it that idle readers are closed in time."""
        if self._timer is None and self._idle:
            self._timer = threading.Timer(IDLE_S / 2, self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        until = time.monotonic() - IDLE_S
        with self._lock:
            old = [reader for reader in self._idle if reader.used < until]
            self._idle = [reader for reader in self._idle if reader.used >= until]
            self._timer = None
            self._watch()
        for reader in old:
            reader.close()

    def close(self) -> None:
        """Close all that are idle; the others when they are given back."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for reader in idle:
            reader.close()
