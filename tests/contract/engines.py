"""The engines that the contract runs over, and what its tests put into them. Offsets are those that an engine gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from pqlog.store.api import ClientStore, Store, TopicStore
from pqlog.store.memory.store import MemoryStore
from pqlog.store.sqlite.store import SqliteStore
from pqlog.store.values import (
    Chunk,
    Claim,
    ClientState,
    Cursor,
    Done,
    Ids,
    Moved,
    Output,
    Put,
    Row,
    Segment,
    Singles,
    Size,
    Span,
)


def in_a_file(folder: Path) -> Store:
    return SqliteStore(str(folder / "a.db"))


def in_memory(folder: Path) -> Store:
    return SqliteStore(":memory:")


def sparse(folder: Path) -> Store:
    return MemoryStore()


def on_a_cluster(folder: Path) -> Store:
    """A log on the cluster of the tests: the same for the same folder."""
    from tests.contract import cluster_logs

    return cluster_logs.opened(folder)


Maker = Callable[[Path], Store]
OTHER_ENGINES: list[Maker] = [sparse]
"""Those whose whole logs must answer as one on SQLite does."""
ENGINES: list[Maker] = [in_a_file, in_memory, *OTHER_ENGINES]
SHARED: list[Maker] = [in_a_file]
"""Those whose logs two stores can have open at once."""
CLUSTER: list[Maker] = [on_a_cluster]
"""In place of all of them, with ``--cluster``."""


def singles(*values: bytes, key: str | None = None) -> Singles:
    return Singles(values, None if key is None else [key] * len(values))


def one_partition(engine: Store, name: str, codec: str = "json") -> TopicStore:
    """A topic that has one partition."""
    (topic,) = engine.topic(name, codec, 1)
    return topic


def append(
    topic: TopicStore,
    chunks: Iterable[Chunk],
    id: str | None = None,
    cursor: Cursor | None = None,
    ids: Ids | None = None,
) -> Put:
    """Put into one partition."""
    ((number, went),) = topic.log.append([Output(topic, chunks, ids)], id, cursor).items()
    assert number == topic.info.partition
    return went


def trim(topic: TopicStore, before: int, force: bool) -> int:
    """Trim one partition."""
    (messages,) = topic.log.trim([(topic, before)], force)
    return messages


def seek(topic: TopicStore, client: ClientStore, to: int) -> Moved:
    """Move a client in one partition."""
    (moved,) = topic.log.seek([(client, to)])
    return moved


def put(topic: TopicStore, *chunks: Chunk, id: str | None = None) -> list[int]:
    """Put chunks; the offsets of their messages."""
    went = append(topic, chunks, id)
    found = offsets(topic, Span.through(went.first, went.last))
    assert (len(found), found[:1], found[-1:]) == (went.messages, [went.first], [went.last])
    return found


def fill(topic: TopicStore) -> list[int]:
    """Three single messages, a segment of four, one more; their offsets."""
    return [
        *put(topic, singles(b"1", b"2", b"3")),
        *put(topic, Segment(b"segment", 4)),
        *put(topic, singles(b"8", key="k")),
    ]


def rows(topic: TopicStore, span: Span | None = None, key: str | None = None) -> list[Row]:
    """The rows of a span, or all of them: a read may give fewer than were asked for, but never none."""
    left = topic.span() if span is None else span
    found: list[Row] = []
    while page := topic.read(left, 1_000, 1 << 24, key):
        found += page
        left = Span(page[-1].stop, left.stop)
    return found


def offsets(topic: TopicStore, span: Span | None = None) -> list[int]:
    """The offsets of the messages of a span, or of all."""
    return [offset for row in rows(topic, span) for offset in range(row.offset, row.stop)]


def around(offsets: Sequence[int]) -> Span:
    """The span from the first to the last of some offsets."""
    return Span.through(offsets[0], offsets[-1])


T = TypeVar("T")


def few(engine: Store, cases: Iterable[T], each: int = 8) -> list[T]:
    """All of some cases; on a cluster, where each takes long, one of so many."""
    return list(cases)[:: each if engine.name.startswith("kafka://") else 1]


# several partitions


def skip_unless_in_order(engine: Store) -> None:
    """Skip what only an engine promises whose partitions have one order."""
    if not engine.capabilities.ordered_partitions:
        pytest.skip("its partitions have clocks of their own, as its capabilities say")


COUNT = 3


def put_in(
    partitions: Sequence[TopicStore],
    chunks: Mapping[int, Iterable[Chunk]],
    id: str | None = None,
    cursor: Cursor | None = None,
    ids: Mapping[int, Ids] | None = None,
) -> Mapping[int, Put]:
    """Put chunks by the number of their partition, in one call; where they went."""
    outputs = [Output(partitions[number], some, (ids or {}).get(number)) for number, some in chunks.items()]
    return partitions[0].log.append(outputs, id, cursor)


def fill_all(partitions: Sequence[TopicStore]) -> list[list[int]]:
    """Singles and segments in each, by calls that put into one, two or all of them; the offsets of each partition."""
    put_in(partitions, {0: [singles(b"1", b"2")], 2: [singles(b"3", key="k")]})
    put_in(partitions, {number: [Segment(b"segment", 3, "k")] for number in (2, 1)})
    put_in(partitions, {1: [singles(b"4", b"5")]})
    put_in(partitions, {number: [singles(b"6")] for number in (0, 1, 2)})
    return [offsets(one) for one in partitions]


def kept(partitions: Sequence[TopicStore]) -> list[list[Row]]:
    """All that is kept, as it is read."""
    assert list(partitions[0].log.spans(partitions)) == [one.span() for one in partitions]
    return [rows(one) for one in partitions]


def clients_of(partitions: Sequence[TopicStore], name: str = "c") -> list[ClientStore]:
    """The client of that name in each partition."""
    return [one.client(name) for one in partitions]


def standing(client: ClientStore) -> ClientState | None:
    """Its state without where the partition ends, which a put that failed may move."""
    state = client.state()
    if state is None:
        return None
    unread, unclaimed = (Span(span.first, span.first) for span in (state.unread, state.unclaimed))
    return replace(state, unread=unread, unclaimed=unclaimed)


def take(
    client: ClientStore, worker: str = "", done: Done | None = None, messages: int = 2, ordered: bool = True
) -> Claim | None:
    """Claim a batch, in order."""
    return client.advance(Size(messages), worker, done, ordered)[0]


def broken(*chunks: Chunk) -> Iterator[Chunk]:
    """Chunks from a source that breaks behind them."""
    yield from chunks
    raise RuntimeError("the source broke")


def never(segment: Segment, mask: bytes | None, start: int) -> Iterable[Segment]:
    """In place of what thins segments."""
    raise AssertionError("there is no segment to thin")
