"""A partition of a topic on a cluster, as it is read."""

from __future__ import annotations

import contextlib
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from confluent_kafka import Message

from pqlog.store.api import Store
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.cutting import Cutter
from pqlog.store.kafka.index import Index
from pqlog.store.kafka.reader import PROMOTED, PULLED, Batch, Part, Reader, ReaderPool
from pqlog.store.kafka.records import NOTHING, ROWS, decoded, row_with, time_of, times_of
from pqlog.store.values import Lines, Row, Span, TopicInfo

COUNTED = 50_000
"""How many records that nobody has read are read to be counted; the number of more is estimated."""
COUNTED_BYTES = 32 << 20
"""The same in bytes."""
KEPT_BYTES = 64 << 20
"""How much of what was read to cut a batch is kept for its reader."""
WINDOW = 8
"""How many records are read first when messages are counted from the end."""
REMEMBERED = 256
"""How many times of messages are remembered."""


class KafkaLog(Store, Protocol):
    """A log on a cluster, as its partitions see it."""

    @property
    def cluster(self) -> Cluster: ...

    @property
    def readers(self) -> ReaderPool: ...


class KafkaPartition:
    """A partition of a topic; the protocols are `pqlog.store.api.MessageSource` and `pqlog.store.api.ReadsLines`.

    Parameters
    ----------
    log : KafkaLog
    info : TopicInfo
    topic : str
        What the topic is called on the cluster.
    """

    def __init__(self, log: KafkaLog, info: TopicInfo, topic: str) -> None:
        self._log, self.info, self.kafka_topic = log, info, topic
        self.index = Index()
        self._nothing = NOTHING.get(info.codec, b"")
        self.is_text = info.codec == "json"
        self._begin = 0
        """The first record offset that was kept when it was asked last; nothing before it is given out."""
        self._trimmed = 0
        """The offset before which everything was trimmed inside of a record, as far as is known."""
        self._stable = 0
        """The last stable record offset that is known: it never goes back."""
        self._first = (0, 0)
        """From which offset on the first message was looked for last, and up to where there was none."""
        self._times = dict[int, int]()

    @property
    def log(self) -> KafkaLog:
        return self._log

    # what is kept

    def kept(self) -> Span:
        """The offsets that are kept, as Kafka knows them: transactions and compaction leave gaps anywhere."""
        return self.keeping(*self._log.cluster.ends(self.kafka_topic, self.info.partition))

    def keeping(self, first: int, stable: int) -> Span:
        """The same, of what Kafka said of the ends."""
        self._begin, self._stable = max(self._begin, first), max(self._stable, stable)
        stop = max(self._begin, self._stable) * ROWS
        return Span(min(self.floor(), stop), stop)

    def span(self) -> Span:
        return self.spanning(self.kept())

    def spanning(self, kept: Span) -> Span:
        """What is kept, from the first message on."""
        begin, none = self._first
        first = self._next(max(kept.first, none) if begin <= kept.first else kept.first, kept.stop)
        self._first = kept.first, kept.stop if first is None else first
        return Span(kept.stop if first is None else first, kept.stop)

    def _clipped(self, span: Span) -> Span:
        """The part of a span that is kept, and can be read by now."""
        if span.stop > self._stable * ROWS:
            self.kept()
        return Span(max(span.first, self.floor()), min(span.stop, self._stable * ROWS))

    def floor(self) -> int:
        """The offset before which nothing is given out."""
        return max(self._begin * ROWS, self._trimmed)

    # counting

    def count(self, span: Span | None = None) -> int:
        kept = self.kept()
        wanted = kept if span is None else Span(max(span.first, kept.first, self.floor()), min(span.stop, kept.stop))
        return self.counted(wanted)

    def counted(self, wanted: Span) -> int:
        """How many messages lie in a span that is kept."""
        if not wanted:
            return 0
        first, stop = wanted.first // ROWS, record_behind(wanted.stop)
        left = self.index.missing(first, stop)
        if sum(stop - first for first, stop in left) <= COUNTED:
            size = COUNTED_BYTES
            for part in left:
                size -= self._learn(*part, size)
                if size <= 0:
                    break
            left = self.index.missing(first, stop)
        elif not self.index.is_known:
            self._learn(left[0][0], left[0][0] + PULLED, COUNTED_BYTES)
            left = self.index.missing(first, stop)
        unread = sum(stop - first for first, stop in left)
        return self.index.count(wanted) + (max(1, round(unread * self.index.density())) if unread else 0)

    def survey(self, span: Span, times: Sequence[int]) -> list[int]:
        """About how many messages of a span were put before, between and behind times: `pqlog.store.api.Surveys`."""
        topic, number = self.kafka_topic, self.info.partition
        ends = [self._log.cluster.offset_for_time(topic, number, -(-time // 1000)) for time in times]
        return self.surveyed(self._clipped(span), ends)

    def surveyed(self, span: Span, ends: Sequence[int | None]) -> list[int]:
        """The same of a span that is kept, by the record offsets of the times; None is behind the last."""
        offsets = [span.stop if end is None else min(max(end * ROWS, span.first), span.stop) for end in ends]
        parts = [Span(*bounds) for bounds in itertools.pairwise([span.first, *offsets, span.stop])]
        records = (span.stop - span.first) / ROWS
        if records <= COUNTED:
            return list(map(self.counted, parts))
        density = self.counted(span) / records
        return [round((part.stop - part.first) / ROWS * density) for part in parts]

    def from_end(self, messages: int, span: Span | None = None) -> int:
        wanted = self.span() if span is None else self._clipped(span)
        if messages <= 0 or not wanted:
            return wanted.stop if span is None else span.stop
        first, stop = wanted.first // ROWS, record_behind(wanted.stop)
        window, size = WINDOW, COUNTED_BYTES
        while True:
            begin = max(first, stop - window)
            for part in reversed(self.index.missing(begin, stop)):
                size -= self._learn(*part, size)
            known = Span(max(begin * ROWS, wanted.first), wanted.stop)
            count = self.index.count(known)
            is_known = not self.index.missing(begin, stop)
            if is_known and count >= messages:
                return self.index.from_end(messages, known)
            if is_known and begin == first:
                found = self._next(wanted.first, wanted.stop)
                return wanted.stop if found is None else found
            more = round((messages - count) / max(self.index.density(), 1 / ROWS) * 1.1) + WINDOW
            if not is_known or (window > COUNTED and window + more > 4 * COUNTED):  # too much to read: about there
                at = max(begin * ROWS - more * ROWS, wanted.first)
                found = self._next(at, wanted.stop)
                return wanted.stop if found is None else found
            window = min(window + more, 8 * window)

    def _learn(self, first: int, stop: int, max_bytes: int) -> int:
        """Read between two record offsets, for the index; what was read waits for who reads on. Its size."""
        size, batches = 0, 0
        with self._reading(first * ROWS, stop - first > PROMOTED, keep=True) as (reader, part):
            while part.seen < stop and size < max_bytes:
                reader.fill(self.info.partition, stop, part.buffered + 1)
                size += sum(sum(map(len, batch.messages)) for batch in list(part.batches)[batches:])
                batches = len(part.batches)
        return size

    def cut(self, span: Span, messages: int, max_bytes: float) -> tuple[Span, int]:
        """Where the first messages of a span lie, and how many: within limits, but one at least if there is any.

        What was read for it waits for who reads it, unless that is a lot.
        """
        wanted = self._clipped(span)
        cutter = Cutter(wanted, messages, max_bytes)
        if wanted:
            self._cut(cutter, wanted, messages)
        return cutter.span, cutter.messages

    def _cut(self, cutter: Cutter, wanted: Span, messages: int) -> None:
        until, size, seen = record_behind(wanted.stop), 0, 0
        with self._reading(wanted.first, messages > PROMOTED, keep=True) as (reader, part):
            while True:
                for batch in list(part.batches)[seen:]:
                    if cutter.add(batch):
                        return
                    size, seen = size + sum(map(len, batch.messages)), seen + 1
                if part.seen >= until:
                    return
                if size > KEPT_BYTES:
                    while part.batches:
                        part.consume(len(part.batches[0].records) - part.batches[0].at)
                    size = seen = 0
                reader.fill(self.info.partition, until, part.buffered + 1)

    # single offsets and times

    def _next(self, offset: int, stop: int) -> int | None:
        """The offset of the first message at or after one; None if there is none before `stop`."""
        while offset < stop:
            found, known = self.index.first(offset)
            if found is not None:
                return found if found < stop else None
            if known > offset:
                offset = known
            else:
                self._peek(offset, stop)
                if self.index.first(offset) == (None, offset):  # it was trimmed meanwhile
                    offset = max(self.kept().first, offset + ROWS)
        return None

    def _peek(self, offset: int, stop: int) -> Message | None:
        """The first record with a message at or after an offset; it waits for who reads it."""
        until = record_behind(stop)
        with self._reading(offset, keep=True) as (reader, part):
            while (found := part.message_at(offset)) is None and part.seen < until:
                reader.fill(self.info.partition, until, part.buffered + 1)
        return found[1] if found is not None and found[0] < stop else None

    def is_behind(self, time: int) -> bool:
        """Whether no message is given out from a time on, whatever lies there."""
        return False

    def offset_at(self, time: int) -> int:
        ms = -(-time // 1000)
        record = self._log.cluster.offset_for_time(self.kafka_topic, self.info.partition, ms)
        kept = self.kept()
        found = None if record is None else self._next(max(record * ROWS, kept.first, self.floor()), kept.stop)
        return kept.stop if found is None else found

    def time_at(self, offset: int) -> int | None:
        if offset not in self._times:
            kept = self.span()
            message = self._peek(offset, kept.stop) if kept.first <= offset < kept.stop else None
            if message is None:
                return None
            if len(self._times) >= REMEMBERED:
                self._times.clear()
            self._times[offset] = time_of(message)
        return self._times[offset] if offset >= self.floor() else None

    # reading

    @contextlib.contextmanager
    def _reading(self, offset: int, is_large: bool = False, keep: bool = False) -> Iterator[tuple[Reader, Part]]:
        number = self.info.partition
        reader = self._log.readers.take(self.kafka_topic, {number: offset}, {number: self.index}, is_large, keep)
        try:
            yield reader, reader.parts[number]
        finally:
            self._log.readers.give(reader)

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        wanted, found = self._clipped(span), list[Row]()
        if not wanted:
            return found
        until = record_behind(wanted.stop)
        with self._reading(wanted.first) as (reader, part):
            while len(found) < rows and max_bytes > 0:
                reader.fill(self.info.partition, until)
                if not part.batches or part.head >= until:
                    break
                batch = part.batches[0]
                end = batch.end(until, rows - len(found))
                some, end = self.rows_of(batch, end, wanted, max_bytes, key)
                max_bytes -= sum([len(row[4]) for row in some])
                found += some
                is_cut = batch.stop_of(end - 1) > wanted.stop  # the rest of the segment is read from there
                if end - is_cut > batch.at:
                    part.consume(end - is_cut - batch.at)
                if is_cut:
                    break
        return found

    def rows_of(
        self, batch: Batch, end: int, span: Span, max_bytes: int, key: str | None = None
    ) -> tuple[list[Row], int]:
        """The next records of a batch as rows, up to one that is the last that fits, and where that is."""
        messages = batch.messages[batch.at : end]
        if batch.headers is None and key is None and sum(map(len, messages)) <= max_bytes:
            return self._plain_rows(messages, batch.records[batch.at : end]), end
        found = list[Row]()
        for index in range(batch.at, end):
            message = batch.messages[index]
            rows = batch.rows[index] if batch.rows else None
            if key is not None and rows is None and not _has_key(message, key):
                continue
            headers = batch.headers[index] if batch.headers else None
            row = self.row(message, batch.records[index], headers, span)
            if row is None or (key is not None and rows is not None and row.key is None):
                continue
            found.append(row)
            max_bytes -= len(row.value)
            if max_bytes <= 0:
                return found, index + 1
        return found, end

    def is_chosen(self, message: Any) -> bool:
        """Whether a record is given out."""
        return True

    def chosen(self, messages: Sequence[Any]) -> Sequence[int] | None:
        """Which of some single messages are given out; None if all are."""
        return None

    def _chosen(self, messages: Sequence[Any], records: Sequence[int]) -> tuple[Sequence[Any], Sequence[int]]:
        chosen = self.chosen(messages)
        if chosen is None:
            return messages, records
        return [messages[index] for index in chosen], [records[index] for index in chosen]

    def _plain_rows(self, messages: Sequence[Any], records: Sequence[int]) -> list[Row]:
        """Single messages without headers as rows."""
        messages, records = self._chosen(messages, records)
        values, new = self._values(messages), tuple.__new__  # half the time of calling a named tuple
        return [
            new(Row, (record * ROWS, time, key, None, value, None, 0, None, None, 0))
            for record, time, key, value in zip(records, times_of(messages), _keys(messages), values, strict=True)
        ]

    def _values(self, messages: Sequence[Any]) -> list[bytes]:
        """The values of single messages; JSON in one line each."""
        values = [message.value() for message in messages]
        if not all(values):
            values = [value or self._nothing for value in values]
        if self.is_text and b"\n" in b"".join(values):
            values = [value.replace(b"\n", b" ") for value in values]  # outside of strings: within, JSON has none
        return values

    def row(self, message: Message, record: int, headers: Any, span: Span) -> Row | None:
        """A record as a row, clipped to a span; None if nothing of it lies there."""
        row = row_with(message, record * ROWS, headers, span, self._nothing)
        if row is not None and self.is_text and row.rows is None and b"\n" in row.value:
            return row._replace(value=row.value.replace(b"\n", b" "))
        return row

    def read_lines(self, span: Span, rows: int, max_bytes: int) -> Lines | None:
        wanted = self._clipped(span)
        if not wanted or not self.is_text:
            return None
        until, offsets, times = record_behind(wanted.stop), array("q"), array("q")
        values, keys = list[bytes](), list[str | None]()
        with self._reading(wanted.first) as (reader, part):
            while len(offsets) < rows and max_bytes > 0:
                reader.fill(self.info.partition, until)
                if not part.batches or part.head >= until:
                    break
                batch = part.batches[0]
                end = batch.end(until, rows - len(offsets))
                if batch.rows:  # up to the first segment
                    end = next((at for at in range(batch.at, end) if batch.rows[at] is not None), end)
                if end == batch.at:
                    break
                some, records = self._chosen(batch.messages[batch.at : end], batch.records[batch.at : end])
                if some:  # taken apart while they are in the processor's cache
                    values.append(b"\n".join(self._values(some)))
                    times.extend(times_of(some))
                    keys += _keys(some)
                    offsets.extend([record * ROWS for record in records])
                    max_bytes -= len(values[-1])
                is_cut = end < len(batch.records)
                part.consume(end - batch.at)
                if is_cut:
                    break
        return _lines(b"\n".join(values), times, keys, offsets) if offsets else None

    def lines_of(self, messages: Sequence[Any], offsets: Sequence[int]) -> Lines:
        """Single messages in one piece."""
        values = b"\n".join(self._values(messages))
        return _lines(values, array("q", times_of(messages)), _keys(messages), array("q", offsets))


def _lines(values: bytes, times: array[int], keys: list[str | None], offsets: array[int]) -> Lines:
    some_keys = keys if keys.count(None) < len(keys) else None
    return Lines(offsets[0], len(offsets), values, times, some_keys, offsets=offsets)


def _keys(messages: Sequence[Any]) -> list[str | None]:
    """The keys of single messages."""
    keys = [message.key() for message in messages]
    if keys.count(None) == len(keys):
        return keys
    try:
        return [None if key is None else key.decode() for key in keys]
    except (UnicodeDecodeError, AttributeError):
        return [None if key is None else decoded(key) for key in keys]


def _has_key(message: Message, key: str) -> bool:
    """Whether the key of a single message is one, as it is shown: what is not UTF-8 is escaped."""
    found = message.key()
    return found is not None and decoded(found) == key


def record_behind(offset: int) -> int:
    """The record offset behind the record of the last message before an offset."""
    return -(-offset // ROWS)
