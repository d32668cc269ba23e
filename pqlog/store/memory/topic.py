"""A topic in memory: the rows of each partition in a list, with gaps between their offsets."""

from __future__ import annotations

import bisect
import operator
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pqlog import errors
from pqlog.store.memory.client import MemoryClient
from pqlog.store.memory.transaction import changing, reading
from pqlog.store.values import (
    CachedSchema,
    Chunk,
    ClientState,
    Ids,
    Kept,
    Output,
    Put,
    Row,
    Segment,
    Singles,
    Span,
    TopicInfo,
)

if TYPE_CHECKING:
    from pqlog.store.memory.store import MemoryStore

GAPS = (0, 0, 0, 1, 2, 90)
"""How many offsets may be left out before a row."""
PAGE = 7
"""How many rows a read returns at most."""


class Partitions:
    """A topic: its partitions, and what they share."""

    def __init__(self, log: MemoryStore, name: str, codec: str, partitions: int) -> None:
        infos = [TopicInfo(log.next_number(), name, codec, number, partitions) for number in range(partitions)]
        self.all = tuple(MemoryTopic(log, self, info) for info in infos)
        self.ids: dict[str, dict[int, Put]] = {}
        """Where the put with each went, by partition."""
        self._time = 0
        self.places_keys = True
        """Whether each message lies in the partition that its key names."""

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.all[0].info.name

    def parts(self) -> list[MemoryTopic | MemoryClient]:
        """Its partitions and their clients."""
        return [*self.all, *(client for topic in self.all for client in topic.parts())]

    def next_time(self) -> int:
        """The time of a put: of several partitions, later than that of any put before."""
        self._time = max(self._time + (len(self.all) > 1), time.time_ns() // 1000)
        return self._time

    def find_id(self, id: str) -> dict[int, Put] | None:
        """Where what is kept of the put with an id went."""
        went = self.ids.get(id, {})
        return {number: put for number, put in went.items() if self.all[number].keeps(put)} or None


class MemoryTopic:
    """A partition of a topic; the protocol is `pqlog.store.api.TopicStore`."""

    def __init__(self, log: MemoryStore, partitions: Partitions, info: TopicInfo) -> None:
        self.log, self.partitions, self.info, self.transactions = log, partitions, info, log.transactions
        self._rows: list[Row] = []
        """Ascending, each of them whole."""
        self._begin = self._stop = 1
        """What is kept begins there at the earliest; the next message goes there at the earliest."""
        self._clients: dict[str, MemoryClient] = {}
        self._schema: CachedSchema | None = None

    def parts(self) -> list[MemoryClient]:
        """Its clients."""
        return list(self._clients.values())

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""
        self.log.check()
        if not self.log.has(self.partitions):
            raise errors.UnknownTopicError(self.info.name, [])

    @changing
    def rename(self, name: str) -> None:
        if self.log.find_topic(name):
            raise errors.ArgumentError(f"there is a topic {name!r} already: give another name")
        for one in self.partitions.all:
            one.info = replace(one.info, name=name)

    @changing
    def delete(self, force: bool) -> None:
        lags = Counter[str]()
        for one in self.partitions.all:
            lags.update({state.client: state.lag for state in one.clients()})
        if +lags and not force:
            raise errors.TrimRefusedError(sorted((+lags).items()), self.info.name, "deleted")
        self.log.drop(self.partitions)

    # putting

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        went = self.log.append([Output(self, [Singles([value], [key], headers)])])
        return went[self.info.partition].first

    @changing
    def add(self, chunks: Iterable[Chunk], ids: Ids | None, now: int, kept: Kept) -> Put:
        """Put chunks, or of those with ids the messages whose id is new."""
        before, new = self._stop, dict[str, None]()
        if ids is not None:
            masks = [self._mask(some, new) for some in ids.lists]
            chunks = ids.thinned(chunks, masks, kept)
        offsets = [offset for row in self._add_rows(chunks, now) for offset in range(row.offset, row.stop)]
        if not offsets:
            return Put(before, Span(before, before).last, 0)
        number = self.info.partition
        kept.messages += len(offsets)
        self.partitions.ids |= {id: {number: Put(offset, offset, 1)} for id, offset in zip(new, offsets, strict=False)}
        return Put(offsets[0], offsets[-1], len(offsets))

    def _mask(self, ids: Sequence[str], new: dict[str, None]) -> bytes | None:
        """A 1 for each id that is not known, or None if none is; those are added to `new`."""
        mask = bytearray()
        for id in ids:
            is_new = id not in new and self.partitions.find_id(id) is None
            mask.append(is_new)
            new |= {id: None} if is_new else {}
        return None if all(mask) else bytes(mask)

    def _add_rows(self, chunks: Iterable[Chunk], now: int) -> list[Row]:
        chance, added = self.log.chance, []
        for row in _rows(chunks, now):
            added.append(row._replace(offset=self._stop + chance.choice(GAPS)))
            self._rows.append(added[-1])
            self._stop = added[-1].stop
        self._stop += chance.choice(GAPS) if added else 0
        return added

    @reading
    def find_id(self, id: str) -> dict[int, Put] | None:
        return self.partitions.find_id(id)

    def keeps(self, put: Put) -> bool:
        """Whether a message of a put is kept."""
        return max(put.first, put.last) >= self._begin

    # reading

    def all_rows(self, span: Span) -> Iterator[Row]:
        """The rows of a span that are kept, each with the messages that were asked for."""
        begin, stop = max(span.first, self._begin), span.stop
        for index in range(self._index_of(begin), len(self._rows)):
            row = self._rows[index]
            first, end = max(row.offset, begin), min(row.stop, stop)
            if first >= end:
                break
            yield row if row.rows is None else row._replace(offset=first, rows=end - first, skip=first - row.offset)

    def _index_of(self, offset: int) -> int:
        """The index of the first row that ends behind an offset."""
        return bisect.bisect_right(self._rows, offset, key=operator.attrgetter("stop"))

    @reading
    def span(self) -> Span:
        first = next((row.offset for row in self.all_rows(Span(self._begin, self._stop))), self._stop)
        return Span(first, self._stop)

    @reading
    def count(self, span: Span | None = None) -> int:
        return sum(row.rows or 1 for row in self.all_rows(self.span() if span is None else span))

    @reading
    def from_end(self, messages: int, span: Span | None = None) -> int:
        span = self.span() if span is None else span
        rows, offset = list(self.all_rows(span)), span.stop
        while messages > 0 and rows:
            row = rows.pop()
            count = min(messages, row.rows or 1)
            messages -= count
            offset = row.stop - count
        return offset

    @reading
    def offset_at(self, time: int) -> int:
        index = bisect.bisect_left(self._rows, time, key=operator.attrgetter("time"))
        return max(self.span().first, self._rows[index].offset) if index < len(self._rows) else self._stop

    @reading
    def time_at(self, offset: int) -> int | None:
        index = self._index_of(offset)
        is_kept = offset >= self.span().first and index < len(self._rows)
        return self._rows[index].time if is_kept else None

    @reading
    def read(self, span: Span, rows: int, max_bytes: int, key: str | None = None, damaged: bool = False) -> list[Row]:
        found: list[Row] = []
        rows = min(rows, self.log.chance.randint(1, PAGE))
        for row in self.all_rows(span):
            if max_bytes <= 0 or len(found) >= rows:
                break
            if key is None or row.key == key or (row.rows is not None and row.key is not None):
                found.append(row)
                max_bytes -= len(row.value)
        return found

    # the schema cache

    def cached_schema(self) -> CachedSchema | None:
        return self._schema if self.log.has(self.partitions) else None

    def cache_schema(self, schema: CachedSchema) -> None:
        with self.transactions.locked():
            if self.log.has(self.partitions) and schema.span.first == self.span().first:
                self._schema = schema

    # clients

    @reading
    def clients(self) -> list[ClientState]:
        states = [client.state() for _, client in sorted(self._clients.items())]
        return [state for state in states if state is not None]

    @reading
    def open_batches(self) -> dict[str, tuple[int, int]]:
        found = {name: client.claims() for name, client in self._clients.items()}
        return {name: (len(some), max(one.attempt for one in some)) for name, some in found.items() if some}

    @reading
    def clients_near(self, name: str) -> list[str]:
        return [state.client for state in self.clients()]

    def client(self, name: str) -> MemoryClient:
        with self.transactions.locked():
            return self._clients.setdefault(name, MemoryClient(self, name))

    # keeping

    @reading
    def losing(self, before: int) -> dict[str, int]:
        """How many of the messages before an offset each client has not acknowledged."""
        return {state.client: self.count(Span(state.position, before)) for state in self.clients()}

    @changing
    def drop(self, before: int) -> int:
        """Drop the messages before an offset; how many they were."""
        trimmed = Span(self._begin, min(before, self._stop))
        messages = self.count(trimmed)
        self._begin = max(self._begin, trimmed.stop)
        self._rows = self._rows[self._index_of(self._begin) :]
        ids = self.partitions.ids
        self.partitions.ids = {id: went for id, went in ids.items() if self.partitions.find_id(id)}
        return messages


def _rows(chunks: Iterable[Chunk], now: int) -> Iterator[Row]:
    """Chunks as rows, without their offsets."""
    for chunk in chunks:
        if isinstance(chunk, Segment):
            yield Row(0, now, chunk.key, chunk.headers, chunk.value, chunk.rows, 0, chunk.rows)
        else:
            keys = chunk.keys or [None] * len(chunk.values)
            for value, key, headers in zip(chunk.values, keys, chunk.each_headers(), strict=True):
                yield Row(0, now, key, headers, value, None, 0, None)
