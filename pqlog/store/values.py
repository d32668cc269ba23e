"""What crosses the seam between a log and the engine that keeps its messages."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pqlog.errors import CursorError

if TYPE_CHECKING:
    from pqlog.store.api import ClientStore, TopicStore

LATEST = 253_402_300_799_999_999
"""The latest time that there is: the last microsecond of the year 9999, since 1970."""
MEMORY = ":memory:"
"""The path of a log that is kept in memory."""
SCHEME = "kafka://"
"""What the address of a log on a cluster begins with."""
MAX_PARTITIONS = 256
"""The most partitions that a topic can have: each is a table, and readers of all hold some messages of each."""
NEAR = 50
"""How many names before and after one that may be misspelt are compared with it."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """A range of offsets: from `first` up to, not including, `stop`.

    How many messages it has, only the engine can say (`TopicStore.count`): offsets may have gaps.
    """

    first: int
    stop: int

    @classmethod
    def at(cls, offset: int) -> Span:
        """That of one offset."""
        return cls(offset, offset + 1)

    @classmethod
    def through(cls, first: int, last: int) -> Span:
        """That from one offset to another, both included."""
        return cls(first, last + 1)

    @property
    def last(self) -> int:
        """Its last offset; that before `first` if it is empty."""
        return self.stop - 1

    def __bool__(self) -> bool:
        """Whether it has any offset."""
        return self.first < self.stop

    def __iter__(self) -> Iterator[int]:
        """Both bounds."""
        return iter((self.first, self.stop))


class PartitionOffset(NamedTuple):
    """Where a message of a topic of several partitions lies.

    Attributes
    ----------
    partition, offset : int

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> orders = log.topic("orders", partitions=8)
    >>> orders.put("paid", key="order-17")
    PartitionOffset(partition=1, offset=1)
    """

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Put:
    """Where the messages of one call went.

    Offsets ascend. In a file they have no gaps; elsewhere they may, and other messages may lie in between.

    Attributes
    ----------
    first, last : int, or dict of int to int
        The offsets of the first and the last of them. If there are none, the next offset and the one before it. Of a
        topic of several partitions: those in each partition that got some, by its number.
    messages : int
        How many there are.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(list("abc"))
    Put(first=1, last=3, messages=3)
    >>> log.put_many([])
    Put(first=4, last=3, messages=0)
    >>> orders = log.topic("orders", partitions=2)
    >>> orders.put_many([{"city": "Brno"}, {"city": "Praha"}, {"city": "Brno"}], key="city")
    Put(first={0: 1, 1: 1}, last={0: 2, 1: 1}, messages=3)
    """

    first: int | Any
    last: int | Any
    messages: int

    @classmethod
    def of(cls, parts: Mapping[int, Put], partitions: int) -> Put:
        """The result for a topic, from those of its partitions."""
        if partitions == 1:
            (put,) = parts.values()
            return put
        some = {number: put for number, put in sorted(parts.items()) if put.messages}
        return cls(
            {number: put.first for number, put in some.items()},
            {number: put.last for number, put in some.items()},
            sum(put.messages for put in some.values()),
        )


class Singles(msgspec.Struct, frozen=True, array_like=True):
    """Single messages to append, encoded: a row each."""

    values: Sequence[bytes]
    keys: Sequence[str | None] | None = None
    """As many as there are values, or None if no message has one."""
    headers: str | Sequence[str | None] | None = None
    """JSON text of a dict of str, the same for all; or as many as there are values, each message's own."""

    def each_headers(self) -> Iterable[str | None]:
        """The headers of each message."""
        if self.headers is None or isinstance(self.headers, str):
            return itertools.repeat(self.headers, len(self.values))
        return self.headers

    def only(self, mask: bytes) -> Singles:
        """Those of its messages for which the mask has a 1."""
        keys, headers = (
            some if some is None or isinstance(some, str) else list(itertools.compress(some, mask))
            for some in (self.keys, self.headers)
        )
        return Singles(list(itertools.compress(self.values, mask)), keys, headers)


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """The messages of a frame to append, as one row."""

    value: bytes
    rows: int
    """How many messages it has."""
    key: str | None = None
    """The name of the field that is its messages' key."""
    headers: str | None = None
    """JSON text of a dict of str, the same for all."""


Chunk = Singles | Segment


class Ids(NamedTuple):
    """The ids of messages that are put: one for each, and those whose id the topic has are left out."""

    lists: Iterable[Sequence[str]]
    """One for each chunk, in their order."""
    thin: Callable[[Segment, bytes | None, int], Iterable[Segment]]
    """A segment without some of its messages: the mask has a 1 for each that stays, or is None if all do; the number is
    how many stayed before."""

    call: object = None
    """The same in all outputs of one call."""

    def thinned(self, chunks: Iterable[Chunk], masks: Sequence[bytes | None], kept: Kept) -> Iterable[Chunk]:
        """Chunks without the messages whose id is known: each chunk has a mask, as for `thin`."""
        kept.is_less = kept.is_less or any(mask is not None for mask in masks)
        return _thinned(self, chunks, masks, kept.messages) if kept.is_less else chunks


@dataclass(slots=True)
class Kept:
    """What was put of a call into the partitions before."""

    messages: int = 0
    is_less: bool = False
    """Whether a message was left out."""


def _thinned(ids: Ids, chunks: Iterable[Chunk], masks: Sequence[bytes | None], start: int) -> Iterator[Chunk]:
    for chunk, mask in zip(chunks, masks, strict=True):
        count = len(chunk.values) if isinstance(chunk, Singles) else chunk.rows
        kept = count if mask is None else sum(mask)
        if isinstance(chunk, Segment):
            yield from ids.thin(chunk, mask, start) if kept else ()
        elif mask is None:
            yield chunk
        elif kept:
            yield chunk.only(mask)
        start += kept


class Row(NamedTuple):
    """A row as it is read: clipped to what was asked for."""

    offset: int
    """The offset of the first message that was asked for."""
    time: int
    """Microseconds since 1970, UTC."""
    key: str | None
    headers: str | None
    value: bytes
    rows: int | None
    """How many messages of the segment were asked for; None for a single message."""
    skip: int
    """How many messages of the segment lie before those."""
    whole: int | None
    """How many messages the whole segment has; None for a single message."""
    partition: int | None = None
    """Its partition; None for that of the topic that was read.

    A row of merged partitions has one, and its `offset` is its place in the merged order.
    """
    shift: int = 0
    """How far that place lies behind its offset in the partition."""

    @property
    def partition_offset(self) -> int:
        """Its offset in its partition."""
        return self.offset - self.shift

    @property
    def is_whole(self) -> bool:
        """Whether all of its messages were asked for."""
        return self.rows == self.whole

    @property
    def stop(self) -> int:
        """The offset behind the last message that was asked for."""
        return self.offset + (self.rows or 1)


class PartitionRun(NamedTuple):
    """Messages of one partition that follow each other in a merged order."""

    partition: int
    offset: int
    """That of the first of them in the partition."""
    messages: int


class Lines(NamedTuple):
    """A run of single messages in one piece, for readers of columns.

    Message ``i`` has the offset ``offset + i``, unless there are `offsets`.
    """

    offset: int
    """That of the first of them."""
    rows: int
    values: bytes
    """The values, a line each (only JSON values, which have no line breaks)."""
    times: bytes | array[int]
    """The times in microseconds as decimal text, a line each; or one number for all. Or as an array of 64 bits."""
    keys: bytes | list[str | None] | None
    """The keys as JSON text, a line each; or as they are; None if there are none."""
    runs: Sequence[PartitionRun] | None = None
    """Of merged partitions, from where they are; None if they are of the topic that was read."""
    offsets: Sequence[int] | None = None
    """The offset of each, ascending, if there are gaps: an array of 64 bits."""
    origins: tuple[Sequence[int], Sequence[int]] | None = None
    """In place of `runs`: the partition of each, and its offset there, as arrays of 32 and 64 bits."""

    @property
    def all_offsets(self) -> Sequence[int]:
        """The offset of each."""
        return range(self.offset, self.stop) if self.offsets is None else self.offsets

    @property
    def stop(self) -> int:
        """The offset behind the last of them."""
        return self.offset + self.rows if self.offsets is None else self.offsets[-1] + 1


class Cursor(NamedTuple):
    """How far a source outside has been read, to be set with what it brought: each value is JSON text."""

    name: str
    value: str
    expected: str
    """What it must be before; ``null`` if it was never set."""

    def check(self, found: str | None) -> None:
        """Raise `CursorError` unless it is what was expected: as a JSON value, however that is written."""
        expected, now = (msgspec.json.decode(text) for text in (self.expected, found or "null"))
        if not _is_same(expected, now):
            raise CursorError(self.name, expected, now)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


class ColumnStatistics(NamedTuple):
    """What is known of one field over the messages of a segment."""

    least: int | float | str | bool | None
    most: int | float | str | bool | None
    """Bounds of its values that are not null: no value lies outside, and none need lie on them.

    None if nothing is known of them: there are values of several types, or nested ones. An integer and a double are of
    one type here, and numbers bound numbers only. Texts are compared by their code points, and long ones are cut.
    """
    nulls: int
    """In how many messages it is null."""
    absent: int
    """In how many messages it is absent."""


class SegmentStatistics(NamedTuple):
    """What is known of the messages of a segment without reading them."""

    span: Span
    times: tuple[int, int]
    """The least and the greatest of their times."""
    columns: Mapping[str, ColumnStatistics] | None = None
    """By the name of the field: a field that is not there is absent from all messages. None if nothing is known."""
    may_have_key: Callable[[str], bool] = lambda key: True
    """Whether a message may have that key; False only if none has."""


class CachedSchema(NamedTuple):
    """What a reader inferred about the columns of a span of messages, so that nobody has to read them again for it."""

    span: Span
    text: str
    """Opaque to the engine. It may be missing at any time, and come from anybody."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a log promises beyond what every log does; asking for more raises `UnsupportedError`.

    Attributes
    ----------
    durable : bool
        Whether what was put survives a crash of the process, of the system, and a power failure.
    dense_offsets : bool
        Whether offsets have no gaps.
    shared_by_processes : bool
        Whether several processes can use it at once.
    exact_counts : bool
        Whether the number of messages is always exact. Else, of many that nobody has read yet it is an estimate.
    seals : bool
        Whether old messages can be sealed: `Topic.seal`.
    ordered_partitions : bool
        Whether what one call puts into several partitions has one time, later than that of all that was put before, and
        is seen at once. Else each partition has its own clock, and the newest messages of one may be seen before older
        ones of another.

    Examples
    --------
    >>> import pqlog
    >>> pqlog.open(":memory:").capabilities.dense_offsets
    True
    """

    durable: bool
    dense_offsets: bool
    shared_by_processes: bool
    exact_counts: bool = True
    ordered_partitions: bool = True
    seals: bool = False


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A partition of a topic as the engine knows it.

    Attributes
    ----------
    id : int
        Of the partition: no other partition or topic of the log ever has it.
    name, codec : str
        The topic's.
    partition, partitions : int
        Its number, from 0, of how many.
    max_bytes : int or None
        The largest row that can be put, with its key and headers; None if there is no limit that matters.
    """

    id: int
    name: str
    codec: str
    partition: int = 0
    partitions: int = 1
    max_bytes: int | None = None

    @property
    def number(self) -> int | None:
        """The partition's number, where the topic has several: None where nobody has to be told."""
        return self.partition if self.partitions > 1 else None


@dataclass(frozen=True, slots=True)
class ClientState:
    """Where a client stands.

    Attributes
    ----------
    client : str
        Its name.
    position : int
        The offset of the next message that it gets.
    lag : int
        How many messages lie at or behind the position.
    batches : int
        How many batches it has been handed.
    epoch : int
        Changes whenever the client is moved with seek, or deleted and created again; no two of a log are the same.
    seen : int
        When it last asked or acknowledged: microseconds since 1970, UTC.
    open : bool
        Whether a batch of it is handed out and not acknowledged.
    unread : Span
        The offsets from the position on.
    unclaimed : Span
        The offsets behind all batches that were handed out.
    """

    client: str
    position: int
    lag: int
    batches: int
    epoch: int
    seen: int
    open: bool
    unread: Span
    unclaimed: Span


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Claim:
    """A batch that was handed out: its boundaries are durable.

    The holder of the object that `ClientStore.advance` returned holds the claim, in any thread. When the object is
    garbage-collected, the claim is free.

    Attributes
    ----------
    span : Span
        From the offset of its first message to that behind its last.
    messages : int
        How many messages it had when it was cut.
    token : int
        Changes whenever it is handed out; an older holder cannot acknowledge it.
    attempt : int
        How often it was handed out.
    owner : str
        The worker and the process that hold it; empty if it was released.
    expires : int
        Until when that is respected if nothing is known of the process: microseconds since 1970, UTC.
    error : str or None
        Why it was released, if by an exception.
    """

    client: str
    epoch: int
    number: int
    span: Span
    messages: int
    token: int
    attempt: int
    owner: str
    expires: int
    error: str | None


class Size(NamedTuple):
    """How large a new batch may be."""

    messages: int
    max_bytes: int | None = None
    """What the messages may take in the store; one message may be larger."""


class Output(NamedTuple):
    """What is put into one partition of a topic, in one transaction with others."""

    topic: TopicStore
    chunks: Iterable[Chunk]
    ids: Ids | None = None
    is_placed: bool = True
    """Whether the partition is the one that the key of each message names, as `pqlog.partitioning` has it."""


class Single(NamedTuple):
    """One message that is put by a call of its own, together with those of others."""

    topic: TopicStore
    value: bytes
    key: str | None
    headers: str | None
    id: str | None
    """Puts nothing where the topic has it: then this only says where that went."""

    @property
    def output(self) -> Output:
        """The same for `Store.append`."""
        return Output(self.topic, [Singles([self.value], [self.key], self.headers)])


class Done(NamedTuple):
    """A batch that is acknowledged, and what a stage puts with the acknowledgement."""

    client: ClientStore
    claim: Claim
    outputs: Sequence[Output] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """What a seek did.

    Attributes
    ----------
    position : int or dict of int to int
        The offset of the next message that it gets; in a topic of several partitions, for each that it was moved in.
    again : int
        How many messages will come again.
    skipped : int
        How many messages will not come.
    """

    position: int | Any
    again: int
    skipped: int


@dataclass(slots=True)
class Salvage:
    """What could be copied of a damaged log, and what could not.

    Attributes
    ----------
    messages : int
        How many were copied.
    lost : dict of str to list of range
        The offsets in the old file that could not be read, as far as the file says how many there were: by topic, and
        where that has several, by partition, as in ``"orders, partition 3"``.
    problems : list of str
        What else could not be read, a sentence each: the end of a topic, for example.
    """

    messages: int = 0
    lost: dict[str, list[range]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
