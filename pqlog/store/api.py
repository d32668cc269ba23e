"""The seam: what a log asks of the engine that keeps its messages.

A `Store` is a log, a `TopicStore` one partition of a topic of it, a `ClientStore` one client of a partition: the holder
of one asks it. What changes several partitions at once is asked of the log. Most topics have one partition.
An engine keeps rows: a row is one message, or a *segment*, the messages of one frame as one piece of bytes. Offsets
are the engine's: nothing above it computes one, except that message ``i`` of a row has the offset ``row.offset + i``.

Every call that writes returns when its effect survives a power failure. All calls are thread-safe and raise errors of
`pqlog.errors` only. What not every engine can do is a protocol of its own, asked for with `isinstance`. The suite in
``tests/contract`` is what any engine must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pqlog.errors import Error
from pqlog.store.sealed import SealedPart
from pqlog.store.values import (
    CachedSchema,
    Capabilities,
    Claim,
    ClientState,
    Cursor,
    Done,
    Lines,
    Moved,
    Output,
    PartitionOffset,
    Put,
    Row,
    SegmentStatistics,
    Single,
    Size,
    Span,
    TopicInfo,
)


class Store(Protocol):
    """A log."""

    @property
    def uuid(self) -> str:
        """What distinguishes it from every other log, copies included."""
        ...

    @property
    def name(self) -> str:
        """What it was opened by, for people: the path of a file, say."""
        ...

    @property
    def readonly(self) -> bool:
        """Whether nothing can be changed."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it promises beyond what every engine does."""
        ...

    def topics(self) -> Sequence[TopicInfo]:
        """The first partition of each topic, in the order in which they were created."""
        ...

    def find_topic(self, name: str) -> Sequence[TopicStore]:
        """The partitions of the topic of that name, in their order; empty if there is none."""
        ...

    def topic(self, name: str, codec: str, partitions: int) -> Sequence[TopicStore]:
        """The same; created with `codec` and that many partitions if it does not exist."""
        ...

    def append(
        self, outputs: Sequence[Output], id: str | None = None, cursor: Cursor | None = None
    ) -> Mapping[int, Put]:
        """Put everything into partitions of one topic, in one transaction; returns where it went, by partition.

        With an `id` that the topic has, from whatever partition, nothing is put: only said where that put went. The
        chunks and the ids of an output can be iterated over more than once.

        From an output with `ids`, messages whose id the topic already has, in any partition, are skipped; of several
        with one id, one is put. Returns where those went. At least one output is given, which may be without chunks.

        A `cursor` is set in the same transaction. Raises `CursorError`, and puts nothing, if it is not as expected.

        All messages of one call have one time. In a topic of several partitions, it is later than that of any message
        put before into any of them.
        """
        ...

    def append_each(self, singles: Sequence[Single]) -> Sequence[PartitionOffset | Error]:
        """Put single messages, each as by a call of its own, though they share what a call takes; at least one.

        For each, where it went, or why it was not put. Those of one partition go there in their order. What fails all
        alike, such as a full disk, is raised instead: then none was put, but for an `UncertainError`.
        """
        ...

    def spans(self, topics: Sequence[TopicStore]) -> Sequence[Span]:
        """`TopicStore.span` of each, all at one moment: of each `append` all is seen, or nothing."""
        ...

    def trim(self, marks: Sequence[tuple[TopicStore, int]], force: bool) -> Sequence[int]:
        """Drop the messages before an offset of each partition, all or nothing; returns how many they were.

        All are of one topic. Raises `TrimRefusedError` if a client has not acknowledged some of them, unless `force`.
        """
        ...

    def states(self, clients: Sequence[ClientStore]) -> Sequence[ClientState | None]:
        """`ClientStore.state` of each, all at one moment."""
        ...

    def join(self, clients: Sequence[ClientStore]) -> None:
        """Create those of some clients of partitions that do not exist, all or nothing: each gets all that is kept."""

    def find_work(self, clients: Sequence[ClientStore], worker: str, ordered: bool = False) -> int | None:
        """The index of the first of some clients of partitions for which `ClientStore.has_work`; None if of none.

        All are asked at one moment.
        """
        ...

    def seek(self, moves: Sequence[tuple[ClientStore, int]]) -> Sequence[Moved]:
        """Let each client of a partition get the message at an offset next, all or nothing.

        They are created if they do not exist. Their claims are given up, and a new epoch begins.
        """
        ...

    def delete_clients(self, clients: Sequence[ClientStore]) -> bool:
        """Delete clients of partitions, all or nothing; False if none of them exists."""
        ...

    def cursor(self, name: str) -> str | None:
        """The JSON text of a cursor, if it was ever set."""
        ...

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        """Wait until `ready`; False when the time is up.

        Commits of this process wake it at once; for others `ready` is asked again, at least every `tick` seconds.
        """
        ...

    def wake(self) -> None:
        """Let all waiting calls look again."""

    def close(self) -> None:
        """End every waiting call with `ClosedError` and release all resources. Closing twice is not an error."""


class MessageSource(Protocol):
    """Messages in one order, to be read by their offsets: a partition, or the partitions of a topic merged by time."""

    @property
    def info(self) -> TopicInfo:
        """Its id, its name as far as it is known, its codec. If it is merged, that of the first partition."""
        ...

    @property
    def log(self) -> Store:
        """The log that it belongs to."""
        ...

    def span(self) -> Span:
        """The offsets that are kept: from that of the first message to anywhere after the last, up to the next offset.

        It is empty if no message is kept.
        """
        ...

    def count(self, span: Span | None = None) -> int:
        """How many messages are kept: in all, or in a span."""
        ...

    def from_end(self, messages: int, span: Span | None = None) -> int:
        """The offset of a message counted from the end of what is kept, or of a span of it: 1 is the last.

        The offset of the first message if there are fewer, and the end of the span if there are none.
        """
        ...

    def offset_at(self, time: int) -> int:
        """The offset of the first message put at or after a time (microseconds), or the next offset if none was."""
        ...

    def time_at(self, offset: int) -> int | None:
        """When the first message at or after an offset was put (microseconds), without reading it.

        None if there is none, or if the offset is before the first that is kept.
        """
        ...

    def read(
        self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False
    ) -> Sequence[Row]:
        """The first rows in a span, at most `rows` of them; at least one if there is any, however large.

        With `key`: single messages with that key, and segments that may have some. Raises `DamagedError` if the first
        of the rows do not match their checksum, unless `damaged` asks for them as they are.
        """
        ...


class TopicStore(MessageSource, Protocol):
    """A partition of a topic."""

    def rename(self, name: str) -> None:
        """Give the topic another name. The ids of its partitions, its clients and their batches stay."""

    def delete(self, force: bool) -> None:
        """Delete the topic with all of its partitions, all or nothing; their ids are never used again.

        From then on, open objects of it raise `UnknownTopicError`. Raises `TrimRefusedError` if a client has not
        acknowledged all of it, unless `force`.
        """

    # putting

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        """Put one single message; its offset. (It is there for speed: `Store.append` of one takes a seventh longer.)"""
        ...

    def find_id(self, id: str) -> Mapping[int, Put] | None:
        """Where what is kept of the put into the topic with that `id` went, by partition; None if nothing is."""
        ...

    # clients

    def clients(self) -> Sequence[ClientState]:
        """All clients, by name."""
        ...

    def open_batches(self) -> Mapping[str, tuple[int, int]]:
        """For each client that has open batches: how many, and the largest number of attempts among them.

        It looks at all of them, and `ClientStore.state` at none.
        """
        ...

    def clients_near(self, name: str) -> Sequence[str]:
        """The names of clients that an unknown name may be a misspelling of: few enough to compare each with it."""
        ...

    def client(self, name: str) -> ClientStore:
        """A client, which need not exist."""
        ...


class ClientStore(Protocol):
    """A client of a partition, which need not exist yet."""

    @property
    def name(self) -> str: ...

    def state(self) -> ClientState | None:
        """Its position, lag and batches; None if it does not exist."""
        ...

    def join(self, start: int | None = None) -> ClientState:
        """Create it if it does not exist: it gets the messages from the offset `start` on, or from the first one."""
        ...

    def acknowledge(self, offset: int, epoch: int) -> bool:
        """Acknowledge everything up to and including `offset`; False if the client was moved since `epoch`.

        Raises `ClaimedError` while a batch is handed out.
        """
        ...

    # batches

    def claims(self) -> Sequence[Claim]:
        """The batches that are handed out and not acknowledged."""
        ...

    def has_work(self, worker: str, ordered: bool = False) -> bool:
        """Whether `advance` may find a batch for `worker`; False only if it certainly would not."""
        ...

    def advance(
        self, size: Size, worker: str, done: Done | None = None, ordered: bool = False
    ) -> tuple[Claim | None, list[Put]]:
        """Acknowledge a batch, if given, and claim one, in one transaction; None if there is nothing to claim.

        `done` may be of a client of another partition or topic of the log. The batch is the first free claim, with the
        same boundaries and a new token, or else a new one. A claim is free if it was released or left, if `worker` is
        the name of its holder and not empty, or if its holder's process is gone; the lease counts only if that cannot
        be checked. With `ordered`, nothing is claimed while another batch of the client is in somebody's hands.
        A client that does not exist is created, in every partition of the topic.

        The outputs of `done` are put in the same transaction; where they went is returned. Raises `ClaimLostError`, and
        changes nothing, if it was handed to somebody else meanwhile.
        """
        ...

    def finish(self, done: Claim, outputs: Sequence[Output] = ()) -> list[Put]:
        """Acknowledge a batch of this client without claiming another."""
        ...

    def release(self, claim: Claim, error: str | None) -> bool:
        """Make a claim available at once; False if it has another holder already."""
        ...

    def leave(self, claim: Claim) -> None:
        """Release it soon, without waiting for anything: may be called by a finalizer, during a commit."""


@runtime_checkable
class ReadsLines(Protocol):
    """A topic whose messages can be read in one piece."""

    def read_lines(self, span: Span, rows: int, max_bytes: int) -> Lines | None:
        """The first single messages in a span; None if it begins with a segment, or is empty."""
        ...


@runtime_checkable
class ReadsSealed(Protocol):
    """A topic whose sealed messages can be read in columns, of which only those that are asked for are unpacked."""

    def read_sealed(self, span: Span) -> SealedPart | None:
        """The first sealed messages in a span, those of one piece; None if it begins with other messages."""
        ...


@runtime_checkable
class HasStatistics(Protocol):
    """A topic that knows something about the messages of its segments without reading them."""

    def statistics(self, span: Span) -> Sequence[SegmentStatistics]:
        """Those of the segments that have messages in a span, ascending; a message outside all of them is a row.

        They may begin before the span, and end behind it. What they say is true of all messages of a segment, and so of
        those that are kept. Another process may seal messages at any time: what was a row is in a segment then, with
        the same offset and value.
        """
        ...


@runtime_checkable
class Seals(Protocol):
    """A topic whose old messages can be kept in less space."""

    def seal(self, before: int, report: Callable[[int], object]) -> int:
        """Seal the single messages before an offset; returns how many were sealed now.

        To every reader they stay what they were: single messages with their offsets, times, keys, headers and values,
        byte for byte. `report` is called with numbers of messages. If it is interrupted, each message is sealed or not.
        """
        ...


@runtime_checkable
class CachesSchema(Protocol):
    """A topic that keeps what readers inferred about its columns."""

    def cached_schema(self) -> CachedSchema | None:
        """What `cache_schema` stored last; None if it is missing or damaged."""
        ...

    def cache_schema(self, schema: CachedSchema) -> None:
        """Store a schema, replacing the one before, if its span begins with the topic's first message.

        Nothing depends on it: the call waits for no lock, and ignores any failure to store it.
        """


@runtime_checkable
class Merged(Protocol):
    """The partitions of a topic as one source of messages, with places in the part of offsets."""

    def positions(self, place: int) -> tuple[int, ...]:
        """Where a reader that is at a place reads on in each partition."""
        ...

    def place(self, positions: tuple[int, ...]) -> int:
        """The place of a reader who reads on at some positions."""
        ...


@runtime_checkable
class PlacesKeys(Protocol):
    """A log that may know that the messages of a key are all in the partition that the key names.

    Elsewhere any partition may have some: other programs put into topics of a cluster, each by a rule of its own.
    """

    def places_keys(self, topic: TopicStore) -> bool:
        """Whether that is known of a topic, of which a partition is given: each `Output.is_placed` that it got."""
        ...


@runtime_checkable
class MergesPartitions(Protocol):
    """A log that merges the partitions of a topic itself."""

    def merged(self, partitions: Sequence[TopicStore], begin: Sequence[int] | None) -> MessageSource:
        """All partitions of a topic as one source, in the order of `pqlog.merged`, each from an offset on; `Merged`."""
        ...


@runtime_checkable
class ReadsForeignTopics(Protocol):
    """A log with topics that do not say how their values are encoded."""

    @property
    def advice(self) -> str:
        """What to do if a value cannot be decoded."""
        ...

    @property
    def is_foreign(self) -> bool:
        """Whether the topics are anybody's, and not those of a log."""
        ...

    def find_encoded(self, name: str, codec: str) -> Sequence[TopicStore]:
        """As `Store.find_topic`, for a reader who knows the codec."""
        ...

    def missing(self, name: str) -> TopicStore:
        """In place of a topic that does not exist, for a log that need not stand for one."""
        ...


@runtime_checkable
class HasAnyTimes(Protocol):
    """A partition whose times are those of its writers and may run backwards: a range of them is not one of offsets."""

    def within(self, since: int | None, until: int | None) -> TopicStore:
        """The same without the messages before one time, and at or after another."""
        ...


@runtime_checkable
class Surveys(Protocol):
    """A source of messages that is counted by reading it, so that counting many parts of it takes long."""

    def survey(self, span: Span, times: Sequence[int]) -> list[int]:
        """About how many messages of a span were put before, between and behind ascending times."""
        ...


@runtime_checkable
class EstimatesTopics(Protocol):
    """A log whose topics are counted by reading them, so that counting all of them takes long."""

    def records(self, since: int | None = None) -> Sequence[tuple[TopicInfo, int]]:
        """All topics, with about how many records each keeps, or was put since a time; nothing is read for it.

        A record has one message, or those of a segment.
        """
        ...


@runtime_checkable
class IsAFile(Protocol):
    """A log in a file."""

    @property
    def path(self) -> str: ...

    @property
    def opening(self) -> Mapping[str, Any]:
        """The other parameters of `pqlog.open` that open it again as it was opened."""
        ...

    def size_bytes(self) -> int:
        """What the file takes on the disk."""
        ...

    def compact(self) -> int:
        """Give disk space back without dropping a message; returns how many bytes."""
        ...

    def backup(self, path: str) -> None:
        """Write a copy, with a UUID of its own, to a path that does not exist yet."""

    def verify(self, report: Callable[[int], object]) -> list[str]:
        """Read everything; a sentence for each problem. `report` is called with numbers of messages that were read."""
        ...
