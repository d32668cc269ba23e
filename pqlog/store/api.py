"""The protocol of an engine: what the layers above may ask of whatever keeps the messages.

An engine keeps rows: a row is one message, or a *segment*, the messages of one frame as one piece of bytes. Offsets
are the engine's: nothing above it computes one, except that message ``i`` of a row has the offset ``row.offset + i``.
The suite in ``tests/contract`` is what any engine must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from pqlog.errors import CursorError

LATEST = 253_402_300_799_999_999
"""The latest time that there is: the last microsecond of the year 9999, since 1970."""


class Singles(NamedTuple):
    """Single messages to append, encoded: a row each."""

    values: Sequence[bytes]
    keys: Sequence[str | None] | None = None
    """As many as there are values, or None if no message has one."""
    headers: str | None = None
    """JSON text of a dict of str, the same for all."""


class Segment(NamedTuple):
    """The messages of a frame to append, as one row."""

    value: bytes
    rows: int
    """How many messages it has."""
    key: str | None = None
    """The name of the field that is its messages' key."""
    headers: str | None = None
    """As for `Singles`."""


Chunk = Singles | Segment


class Ids(NamedTuple):
    """The ids of messages that are put: one for each, and those whose id the topic has are left out."""

    lists: Iterable[Sequence[str]]
    """One for each chunk, in their order."""
    thin: Callable[[Segment, bytes | None, int], Iterable[Segment]]
    """A segment without some of its messages: 1 says that one stays, None that all do; so many stayed before."""


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
    id: int
    """The same for every clipping of the same row."""
    whole: int | None
    """How many messages the whole segment has; None for a single message."""

    @property
    def is_whole(self) -> bool:
        """Whether all of its messages were asked for."""
        return self.rows == self.whole


class Lines(NamedTuple):
    """A run of single messages in one piece, for readers of columns."""

    offset: int
    rows: int
    values: bytes
    """The values, a line each (only JSON values, which have no line breaks)."""
    times: bytes
    """The times in microseconds as decimal text, a line each; or one number for all."""
    keys: bytes | None
    """The keys as JSON text, a line each; None if there are none."""


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


class Span(NamedTuple):
    """A run of offsets: from `first` up to, not including, `stop`."""

    first: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.first)


class CachedSchema(NamedTuple):
    """What a reader inferred about the columns of a span of messages, so that nobody has to read them again for it."""

    span: Span
    text: str
    """Opaque to the engine. It may be missing at any time, and come from anybody."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the engine knows it."""

    id: int
    name: str
    codec: str


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Where a client stands.

    Attributes
    ----------
    client : str
    position : int
        The last offset that it has acknowledged; 0 if none.
    lag : int
        How many messages lie behind the position.
    batches : int
        How many batches it has been handed.
    epoch : int
        Changes whenever the client is moved with seek, or deleted and made again; no two of a file are the same.
    seen : int
        When it last asked or acknowledged: microseconds since 1970, UTC.
    open : bool
        Whether a batch of it is handed out and not acknowledged.
    unread : Span
        The offsets behind the position.
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

    Whoever has the object that `Engine.advance` returned holds the claim, in whatever thread; when nobody has it any
    more, the claim is free.

    Attributes
    ----------
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
    token: int
    attempt: int
    owner: str
    expires: int
    error: str | None


class Size(NamedTuple):
    """How large a new batch may be."""

    messages: int
    max_bytes: int | None = None
    """Of what the messages take in the file; one message may be larger."""


class Output(NamedTuple):
    """What a stage puts with the acknowledgement of its batch."""

    topic: TopicInfo
    chunks: Iterable[Chunk]
    ids: Ids | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a seek did.

    Attributes
    ----------
    position : int
        The last offset that now counts as acknowledged.
    again : int
        How many messages will come again.
    skipped : int
        How many messages will not come.
    """

    position: int
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
        By topic, the offsets in the old file that could not be read.
    problems : list of str
        What else could not be read, a sentence each.
    """

    messages: int = 0
    lost: dict[str, list[range]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Engine(Protocol):
    """What keeps the messages.

    Every call that writes returns when its effect survives a power failure. All calls are thread-safe and raise
    errors of `pqlog.errors` only.
    """

    uuid: str
    path: str

    def close(self) -> None:
        """End every waiting call with `ClosedError` and give everything back. Twice is once."""

    # topics
    def topics(self) -> Sequence[TopicInfo]:
        """All topics, in the order in which they were made."""
        ...

    def find_topic(self, name: str) -> TopicInfo | None:
        """The topic of that name, if there is one."""
        ...

    def topic(self, name: str, codec: str) -> TopicInfo:
        """The topic of that name; made with `codec` if there is none."""
        ...

    def rename_topic(self, topic: TopicInfo, name: str) -> TopicInfo:
        """Give a topic another name; raises `ClaimedError` while a batch of it is handed out."""
        ...

    def delete_topic(self, topic: TopicInfo, force: bool) -> None:
        """Drop a topic and all that belongs to it, all or nothing; its id is never used again.

        Whoever has it open is told `UnknownTopicError`. Raises `TrimRefusedError` if a client has not acknowledged all
        of it, unless `force`.
        """

    # putting
    def append_one(self, topic: TopicInfo, value: bytes, key: str | None, headers: str | None) -> int:
        """Put one single message; its offset."""
        ...

    def append(
        self,
        topic: TopicInfo,
        chunks: Iterable[Chunk],
        id: str | None = None,
        cursor: Cursor | None = None,
        ids: Ids | None = None,
    ) -> Span:
        """Put everything in one transaction; with an `id` that was used before, only say where it went.

        With `ids`, only the messages whose id the topic does not have, each id once; where those went.

        A `cursor` is set in the same transaction. Raises `CursorError`, and puts nothing, if it is not as expected.
        """
        ...

    def cursor(self, name: str) -> str | None:
        """The JSON text of a cursor, if it was ever set."""
        ...

    def find_id(self, topic: TopicInfo, id: str) -> Span | None:
        """Where the put with that `id` went, if there was one."""
        ...

    # reading
    def span(self, topic: TopicInfo) -> Span:
        """The offsets that are kept."""
        ...

    def from_end(self, topic: TopicInfo, messages: int, span: Span | None = None) -> int:
        """The offset with that many messages from it on, or the first: of what is kept, or of a span of it."""
        ...

    def count(self, topic: TopicInfo, span: Span) -> int:
        """How many messages are kept in a span."""
        ...

    def offset_at(self, topic: TopicInfo, time: int) -> int:
        """The offset of the first message put at or after a time (microseconds), or the next offset if none was."""
        ...

    def time_at(self, topic: TopicInfo, offset: int) -> int | None:
        """When the message at an offset was put (microseconds), without reading it; None if it is not kept."""
        ...

    def read(
        self,
        topic: TopicInfo,
        span: Span,
        rows: int,
        max_bytes: int,
        key: str | None = None,
        damaged: bool = False,
    ) -> Sequence[Row]:
        """The first rows in a span, at most `rows` of them; at least one if there is any, however large.

        With `key`: single messages of that key, and segments that may hold some. Raises `DamagedError` where the first
        of them do not have the checksum that they were put with, unless `damaged` says that they are wanted as they
        are.
        """
        ...

    def read_lines(self, topic: TopicInfo, span: Span, rows: int, max_bytes: int) -> Lines | None:
        """The first single messages in a span; None where a segment comes first, or nothing."""
        ...

    def cached_schema(self, topic: TopicInfo) -> CachedSchema | None:
        """What `cache_schema` stored last; None if it is missing or damaged."""
        ...

    def cache_schema(self, topic: TopicInfo, schema: CachedSchema) -> None:
        """Store a schema, replacing the one before, if its span begins with the topic's first message.

        Nothing depends on it: it waits for nobody, and if it cannot be stored, for any reason, it is not.
        """

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        """Wait until `ready` or woken; False when the time is up.

        Commits of this process wake it at once; for others `ready` is asked again, at least every `tick` seconds.
        """
        ...

    def trigger(self) -> None:
        """Wake all who wait, to look again."""

    # clients
    def clients(self, topic: TopicInfo) -> Sequence[ClientInfo]:
        """All clients of a topic, by name."""
        ...

    def open_batches(self, topic: TopicInfo) -> Mapping[str, tuple[int, int]]:
        """For each client that has open batches: how many, and the largest number of attempts among them."""
        ...

    def client(self, topic: TopicInfo, client: str) -> ClientInfo | None:
        """One client, if it is known."""
        ...

    def clients_near(self, topic: TopicInfo, client: str) -> Sequence[str]:
        """The names of clients that may be meant by one that is not known: not more than may be compared with it."""
        ...

    def join(self, topic: TopicInfo, client: str, start: int | None = None) -> ClientInfo:
        """The client, made known if it is new: at the offset `start` is the first it gets, or the first kept."""
        ...

    def acknowledge(self, topic: TopicInfo, client: str, offset: int, epoch: int) -> bool:
        """Count everything up to and including `offset` as consumed; False if the client was moved since `epoch`.

        Raises `ClaimedError` while a batch is handed out.
        """
        ...

    def claims(self, topic: TopicInfo, client: str) -> Sequence[Claim]:
        """The batches that are handed out and not acknowledged."""
        ...

    def seek(self, topic: TopicInfo, client: str, to: int) -> Moved:
        """Let `to` be the next offset that a client gets; gives up its claims and begins a new epoch."""
        ...

    def delete_client(self, topic: TopicInfo, client: str) -> bool:
        """Forget a client; False if there was none."""
        ...

    def owner(self, name: str) -> str:
        """What a worker of this process is as an owner of claims; two of the same name, if it has one, are one."""
        ...

    def has_work(self, topic: TopicInfo, client: str, owner: str) -> bool:
        """Whether to ask `advance`: there is a batch for `owner`, or something to be found out by asking."""
        ...

    def advance(
        self, topic: TopicInfo, client: str, size: Size, owner: str, done: Claim | None, outputs: Sequence[Output] = ()
    ) -> tuple[Claim | None, list[Span]]:
        """Acknowledge a claim, if given, and claim a batch, in one transaction; None if there is none.

        That is the first free claim, with the same boundaries and a new token, or else a new batch. A claim is free if
        it was released or left, if `owner` has its holder's name, or if its holder's process is gone; the lease counts
        only where nothing is known of that process. `outputs` are put in the same transaction; where they went is
        returned. Raises `ClaimLostError`, and changes nothing, if `done` was handed to somebody else meanwhile.
        """
        ...

    def finish(self, topic: TopicInfo, done: Claim, outputs: Sequence[Output] = ()) -> list[Span]:
        """The same without claiming another batch."""
        ...

    def release(self, topic: TopicInfo, claim: Claim, error: str | None) -> bool:
        """Let whoever asks next have a claim at once; False if somebody else has it already."""
        ...

    def leave(self, topic: TopicInfo, claim: Claim) -> None:
        """The same soon, without waiting for anything: may be called by a finalizer, in the midst of a commit."""

    # keeping
    def trim(self, topic: TopicInfo, before: int, force: bool) -> int:
        """Drop what lies before an offset, all or nothing; how many messages that were."""
        ...

    def compact(self) -> int:
        """Give back what disk space can be had without dropping a message; how many bytes that were."""
        ...

    def backup(self, path: str) -> None:
        """Write a copy, with an uuid of its own, to a path where nothing is."""

    def verify(self, report: Callable[[int], object]) -> list[str]:
        """Read everything, and say what is wrong: a sentence each. `report` is told of messages that were read."""
        ...

    def size_bytes(self) -> int:
        """What the file takes on the disk."""
        ...
