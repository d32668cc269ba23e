"""A topic of the store together with its codec: rows, messages, values; and a selection of its messages."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from pqlog import check, extras
from pqlog.codecs import UNDECODABLE, Codec, Json, codec_for, is_safe, why_undecodable
from pqlog.errors import (
    CodecMismatchError,
    CorruptLogError,
    DamagedError,
    DecodeError,
    Error,
    PartitionsError,
    PickleRefusedError,
    ReadOnlyError,
    UnknownTopicError,
)
from pqlog.merged import merge
from pqlog.message import Message, from_micros
from pqlog.partitioning import partition_of
from pqlog.store.api import (
    HasAnyTimes,
    Merged,
    MessageSource,
    PlacesKeys,
    ReadsForeignTopics,
    ReadsLines,
    ReadsSealed,
    Store,
    TopicStore,
)
from pqlog.store.sealed import SealedPart
from pqlog.store.values import MAX_PARTITIONS, NEAR, Lines, Row, Span

CHUNK_ROWS = 4_096
CHUNK_BYTES = 16 << 20
"""How much is read at a time; one row may be larger."""


@dataclass(frozen=True, slots=True)
class TopicStream:
    """A topic, or one partition of it, and what its bytes mean.

    Attributes
    ----------
    store : MessageSource
        What is read: the one partition, or all of them merged.
    codec : Codec or None
        None for a pickle topic that was opened without asking for pickle, and for an unknown codec.
    partitions : tuple of TopicStore
        In the order of their numbers.
    """

    store: MessageSource
    codec: Codec | None
    partitions: tuple[TopicStore, ...]

    @classmethod
    def open(
        cls,
        log: Store,
        name: str,
        codec: str | Codec | None = None,
        type: Any = None,
        default: str = "json",
        partitions: int | None = None,
        default_partitions: int = 1,
    ) -> TopicStream:
        """A topic of a log, with the codec that is asked for; created if it does not exist.

        Raises
        ------
        UnknownTopicError
            The topic does not exist, and the log is read-only.
        CodecMismatchError
            The topic was created with another codec.
        PartitionsError
            The topic was created with another number of partitions.
        """
        check.name("the topic's name", name)
        if partitions is not None:
            check.count("partitions", partitions, "partitions", most=MAX_PARTITIONS)
        asked = None if codec is None else codec_for(codec, type)
        if asked is not None and isinstance(log, ReadsForeignTopics):
            found = log.find_encoded(name, asked.name)
        else:
            found = log.find_topic(name)
        if not found:
            found = _make(log, name, asked.name if asked else default, partitions, default_partitions)
        if asked is not None and asked.name != found[0].info.codec:
            raise CodecMismatchError(name, asked.name, found[0].info.codec)
        if partitions is not None and partitions != len(found):
            raise PartitionsError.of(name, partitions, len(found), log.readonly)
        if asked is None and is_safe(found[0].info.codec):
            asked = codec_for(found[0].info.codec, type)
        return cls.of(found, asked)

    @classmethod
    def of(cls, partitions: Sequence[TopicStore], codec: Codec | None) -> TopicStream:
        """That of some partitions: of all that a topic has, or of one."""
        store = partitions[0] if len(partitions) == 1 else merge(partitions)
        return cls(store, codec, tuple(partitions))

    def partition(self, number: int) -> TopicStream:
        """That of one partition."""
        return self if len(self.partitions) == 1 else TopicStream.of(self.partitions[number : number + 1], self.codec)

    def of_key(self, key: str) -> TopicStream:
        """That of the partition that a key names: it has all messages of the key if the topic `places_keys`."""
        return self.partition(partition_of(key, len(self.partitions)))

    def places_keys(self) -> bool:
        """Whether each message lies in the partition that its key names; if that is not known, it may lie anywhere."""
        log = self.log
        return isinstance(log, PlacesKeys) and log.places_keys(self.partitions[0])

    def for_one_reading(self) -> TopicStream:
        """The same for one reading: merged partitions remember where places are, and a trim may move these."""
        return self if len(self.partitions) == 1 else TopicStream.of(self.partitions, self.codec)

    def beginning(self, offsets: Sequence[int]) -> TopicStream:
        """The same partitions merged, each from an offset on."""
        return TopicStream(merge(self.partitions, offsets), self.codec, self.partitions)

    def within(self, since: int | None, until: int | None) -> TopicStream:
        """The same for a range of times: where these may run backwards, without the messages that are not in it."""
        if since is None and until is None:
            return self
        partitions = [one.within(since, until) if isinstance(one, HasAnyTimes) else one for one in self.partitions]
        return self if tuple(partitions) == self.partitions else TopicStream.of(partitions, self.codec)

    @property
    def is_merged(self) -> bool:
        """Whether several partitions are read: what the store calls offsets are places then, which nobody is shown."""
        return len(self.partitions) > 1

    @property
    def has_partitions(self) -> bool:
        """Whether its topic has several partitions, though only one of them may be read."""
        return self.partitions[0].info.partitions > 1

    @property
    def number(self) -> int | None:
        """That of the one partition that is read, if its topic has several."""
        return None if self.is_merged else self.partitions[0].info.number

    @property
    def log(self) -> Store:
        """The log that the topic is in."""
        return self.partitions[0].log

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.store.info.name

    @property
    def codec_name(self) -> str:
        """The name of the codec that the topic was created with."""
        return self.store.info.codec

    def is_named(self, name: str) -> bool:
        """Whether the log knows it by a name now: another process may rename topics."""
        found = self.store.log.find_topic(name)
        return self._is_of(found)

    def _is_of(self, partitions: Sequence[TopicStore]) -> bool:
        """Whether they are the partitions of this topic."""
        return any(one.info.id == self.partitions[0].info.id for one in partitions)

    def sibling(self, name: str, default: str, partitions: int = 1) -> TopicStream:
        """Another topic of the same log, or all of this one; created like that if it does not exist."""
        other = TopicStream.open(self.store.log, name, default=default, default_partitions=partitions)
        if self._is_of(other.partitions):  # by the name that it has now: another process may rename topics
            return TopicStream.of(other.partitions, self.codec)
        if other.codec is None and self.codec is not None and other.codec_name == self.codec.name:
            return TopicStream.of(other.partitions, self.codec)
        return other

    def writable(self) -> Codec:
        """The codec to put with; raises `CodecMismatchError` if it is unknown here."""
        if self.log.readonly:
            raise ReadOnlyError(f"{self.log.name} was opened for reading only: open it without readonly=True to write")
        if self.codec is None:
            raise CodecMismatchError(self.name, None, self.codec_name)
        return self.codec

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        """`MessageSource.read`, also of merged partitions with a key: they have places, so all messages are counted."""
        if key is None or not self.is_merged:
            return self.store.read(span, rows, max_bytes, key, damaged)
        while span:
            chunk = self.store.read(span, max(rows, CHUNK_ROWS), max_bytes, None, damaged)
            found = [row for row in chunk if row.key == key or (row.rows is not None and row.key is not None)]
            if found or not chunk:
                return found[:rows]
            span = Span(chunk[-1].stop, span.stop)
        return []

    def rows(self, span: Span, key: str | None = None, damaged: bool = False) -> Iterator[Row]:
        """The rows of a span, read in chunks; no statement is open while the caller works."""
        for chunk in self.reads(span, key, damaged):
            yield from chunk

    def reads(self, span: Span, key: str | None = None, damaged: bool = False) -> Iterator[Sequence[Row]]:
        """The chunks of these rows."""
        # What lies behind the first of a key may be all of the topic; merged partitions are read in chunks anyway.
        limit = CHUNK_ROWS if key is None or self.is_merged else 1
        while span:
            chunk = self.read(span, limit, CHUNK_BYTES, key, damaged)
            if not chunk:
                return
            yield chunk
            span = Span(chunk[-1].stop, span.stop)
            limit = min(2 * limit, CHUNK_ROWS)

    def part(self, span: Span, start: int, messages: int) -> Span:
        """A part of a span: `messages` of them, from the one with the index `start` on."""
        count = self.store.count(span)

        def at(index: int) -> int:
            return self.store.from_end(count - index, span) if index < count else span.stop

        return Span(at(start), at(start + messages))

    def lines(self, span: Span, rows: int, max_bytes: int) -> Lines | None:
        """The first single messages of a span in one piece; None where there are none, or the store has no such way."""
        return self.store.read_lines(span, rows, max_bytes) if isinstance(self.store, ReadsLines) else None

    def sealed(self, span: Span) -> SealedPart | None:
        """The first sealed messages of a span as they are kept, if they are objects in columns."""
        if not isinstance(self.store, ReadsSealed):
            return None
        found = self.store.read_sealed(span)
        return found if found is not None and found.piece.head.form == "objects" else None

    def backwards(
        self,
        span: Span,
        key: str | None = None,
        at: Container[int] | None = None,
        choose: Callable[[Sequence[Row]], Container[int]] | None = None,
    ) -> Iterator[Message]:
        """The messages of a span, the newest first, read in chunks from the end; `key` and `at` as for `messages`.

        With `choose`, only those that it chooses of rows.
        """
        step = CHUNK_ROWS
        while span:
            part = Span(self.store.from_end(step, span), span.stop)
            if not part:
                return
            try:
                rows, size = list[Row](), 0
                for row in self.rows(part, key):
                    rows.append(row)
                    size += _size(row)
                    if size >= CHUNK_BYTES and step > 1:
                        break
                if size >= CHUNK_BYTES and step > 1:
                    step = max(1, step // 16)  # all of a chunk is held, so of large messages fewer
                    continue
                messages = list(self.messages(rows, key, at if choose is None else choose(rows)))
            except DecodeError as error:  # first what is newer, where it says of which partition it is
                behind = self.behind(error)
                if behind > part.first:
                    yield from self.backwards(Span(behind, span.stop), key, at, choose)
                raise
            yield from reversed(messages)
            span = Span(span.first, part.first)

    def behind(self, error: DecodeError) -> int:
        """The offset, or place, behind what could not be read; 0 if that is not known."""
        if isinstance(self.store, Merged):
            return error.behind or 0
        return Span.at(error.last if isinstance(error, DamagedError) else error.offset).stop

    def messages(
        self, rows: Iterable[Row], key: str | None = None, at: Container[int] | None = None
    ) -> Iterator[Message]:
        """The messages of rows, decoded; of segments only those with `key`; only those `at` some offsets, or places."""
        number, is_merged = self.partitions[0].info.partition, self.is_merged
        for row in rows:
            if at is not None and row.rows is None and row.offset not in at:
                continue
            partition = number if row.partition is None else row.partition
            try:
                when = from_micros(row.time)
                headers = {} if row.headers is None else headers_of(row)
            except (CorruptLogError, *UNDECODABLE) as error:
                raise self._undecodable(row, f"its time or headers are not valid: {error}") from error
            if row.rows is None:
                offset = row.partition_offset if is_merged else row.offset
                yield Message(offset, when, self._decode(row), row.key, headers, partition)
            else:
                keys, values = self._unpacked(row)
                for index, value in enumerate(values):
                    of = keys[index] if keys is not None else None
                    if (key is None or of == key) and (at is None or row.offset + index in at):
                        yield Message(row.partition_offset + index, when, value, of, headers.copy(), partition)

    def offsets_and_values(self, rows: Iterable[Row]) -> Iterator[tuple[int, Any]]:
        """The same of rows of one partition for who needs no more of a message: in half the time."""
        for row in rows:
            if row.rows is None:
                yield row.offset, self._decode(row)
            else:
                yield from enumerate(self._unpacked(row)[1], row.partition_offset)

    def _unpacked(self, row: Row) -> tuple[Sequence[str | None] | None, Iterable[Any]]:
        try:
            return extras.frames.unpack(row, self.name)
        except DecodeError as error:
            error.behind = row.stop
            raise

    def _undecodable(self, row: Row, reason: str, error: type[DecodeError] = DecodeError) -> DecodeError:
        partition = self.number if row.partition is None else row.partition
        found = error(self.name, row.partition_offset, reason, partition)
        found.behind = row.stop
        has_clients = not (isinstance(self.log, ReadsForeignTopics) and self.log.is_foreign)
        return found if has_clients else found.without_clients()

    def values(self, span: Span) -> Iterator[Any]:
        """The values of a span, decoded many at a time where the codec can."""
        while span:
            stop, values = self._next_values(span)
            if stop is None:
                return
            yield from values
            span = Span(stop, span.stop)

    def _next_values(self, span: Span) -> tuple[int | None, Iterable[Any]]:
        lines = self.lines(span, CHUNK_ROWS, CHUNK_BYTES) if isinstance(self.codec, Json) else None
        if lines is not None and isinstance(self.codec, Json):
            try:
                values = self.codec.decode_lines(lines.values)
            except UNDECODABLE:
                values = []  # one by one, to say which it was
            if len(values) == lines.rows:
                return lines.stop, values
        rows = self.store.read(span, CHUNK_ROWS, CHUNK_BYTES)
        if not rows:
            return None, []
        return rows[-1].stop, (message.value for message in self.messages(rows))

    def _decode(self, row: Row) -> Any:
        name = self.codec_name
        if self.codec is None:
            if name == "pickle":
                said = 'it is a pickle, and reading one can run any code; if you trust the file, ask for codec="pickle"'
                raise self._undecodable(row, said, PickleRefusedError)
            raise self._undecodable(row, f"its codec {name!r} is unknown here: pass it as codec=")
        try:
            return self.codec.decode(row.value)
        except Error:
            raise
        except Exception as error:  # a codec of the user's may raise anything
            hint = f"; {self.log.advice}" if isinstance(self.log, ReadsForeignTopics) else ""
            raise self._undecodable(row, f"{why_undecodable(self.codec, row.value, error)}{hint}") from error


def _size(row: Row) -> int:
    """About how many bytes the messages have that were asked for."""
    return len(row.value) * (row.rows or 1) // (row.whole or 1)


def headers_of(row: Row) -> dict[str, str]:
    """The headers of a row that has some."""
    return msgspec.json.decode(row.headers or "{}", type=dict[str, str])


def existing_topic(log: Store, name: str) -> Sequence[TopicStore]:
    """The partitions of a topic of a log; raises `UnknownTopicError` if it does not exist."""
    found = log.find_topic(check.name("the topic's name", name))
    if not found:
        raise UnknownTopicError(name, near_topics(log, name))
    return found


def near_topics(log: Store, name: str) -> list[str]:
    """The topics that may be meant by one that is not there."""
    known = sorted(info.name for info in log.topics())
    if name == "main":  # it may not have been asked for: any other may be meant
        return known
    at = bisect.bisect(known, name)
    return check.near(name, known[max(0, at - NEAR) : at + NEAR])


def _make(log: Store, name: str, codec: str, partitions: int | None, default_partitions: int) -> Sequence[TopicStore]:
    if log.readonly:
        raise UnknownTopicError(name, near_topics(log, name))
    if name != "main" and partitions is None:  # who gives a number makes a topic on purpose
        check.warn_if_misspelt(f"topic {name!r} is new and empty", near_topics(log, name))
    return log.topic(name, codec, partitions or default_partitions)


class Selection(NamedTuple):
    """Messages of a topic: what is read."""

    topic: TopicStream
    span: Span
    key: str | None = None
    """Only messages with this key."""
    latest: str | None = None
    """Only the last message of each key ("key"), or of each value of that field."""
    where: Any = None
    """Only messages that a predicate is true of, one of `pqlog.frames.predicates`."""

    @property
    def is_whole(self) -> bool:
        """Whether it has all messages of its span."""
        return self.key is None and self.latest is None and self.where is None

    def total(self) -> int:
        """How many messages its span has, those of other keys included."""
        return self.topic.store.count(self.span)
