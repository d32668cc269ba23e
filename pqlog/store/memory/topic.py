"""A topic in memory: its rows in a list, with gaps between their offsets."""

from __future__ import annotations

import bisect
import operator
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pqlog import errors
from pqlog.store.memory.client import MemoryClient
from pqlog.store.memory.transaction import changing, reading
from pqlog.store.values import (
    CachedSchema,
    Chunk,
    ClientState,
    Cursor,
    Ids,
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


class MemoryTopic:
    """A topic; the protocol is `pqlog.store.api.TopicStore`."""

    def __init__(self, log: MemoryStore, info: TopicInfo) -> None:
        self.log, self.info, self.transactions = log, info, log.transactions
        self._rows: list[Row] = []
        """Ascending, each of them whole."""
        self._begin = self._stop = 1
        """What is kept begins there at the earliest; the next message goes there at the earliest."""
        self._time = 0
        self._ids: dict[str, Put] = {}
        self._clients: dict[str, MemoryClient] = {}
        self._schema: CachedSchema | None = None

    def parts(self) -> list[MemoryClient]:
        """Its clients."""
        return list(self._clients.values())

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""
        self.log.check()
        if not self.log.has(self):
            raise errors.UnknownTopicError(self.info.name, [])

    @changing
    def rename(self, name: str) -> None:
        if self.log.find_topic(name):
            raise errors.ArgumentError(f"there is a topic {name!r} already: give another name")
        self.info = TopicInfo(self.info.id, name, self.info.codec)

    @changing
    def delete(self, force: bool) -> None:
        losing = [(state.client, state.lag) for state in self.clients() if state.lag]
        if losing and not force:
            raise errors.TrimRefusedError(losing, self.info.name, "deleted")
        self.log.drop(self)

    # putting

    def append_one(self, value: bytes, key: str | None, headers: str | None) -> int:
        return self.append([Singles([value], [key], headers)]).first

    @changing
    def append(
        self, chunks: Iterable[Chunk], id: str | None = None, cursor: Cursor | None = None, ids: Ids | None = None
    ) -> Put:
        if id is not None and (found := self.find_id(id)):
            return found
        if cursor is not None:
            cursor.check(self.log.cursor(cursor.name))
        (put,) = self.log.append_all([Output(self, chunks, ids)])
        if id is not None:
            self._ids[id] = put
        if cursor is not None:
            self.log.set_cursor(cursor)
        return put

    @changing
    def add(self, chunks: Iterable[Chunk], ids: Ids | None) -> Put:
        """Put chunks, or of those with ids the messages whose id is new."""
        before, new = self._stop, dict[str, None]()
        if ids is not None:
            masks = [self._mask(some, new) for some in ids.lists]
            chunks = ids.thinned(chunks, masks)
        offsets = [offset for row in self._add_rows(chunks) for offset in range(row.offset, row.stop)]
        if not offsets:
            return Put(before, Span(before, before).last, 0)
        self._ids |= {id: Put(offset, offset, 1) for id, offset in zip(new, offsets, strict=False)}
        return Put(offsets[0], offsets[-1], len(offsets))

    def _mask(self, ids: Sequence[str], new: dict[str, None]) -> bytes | None:
        """A 1 for each id that is not known, or None if none is; those are added to `new`."""
        mask = bytearray()
        for id in ids:
            is_new = id not in new and self.find_id(id) is None
            mask.append(is_new)
            new |= {id: None} if is_new else {}
        return None if all(mask) else bytes(mask)

    def _add_rows(self, chunks: Iterable[Chunk]) -> list[Row]:
        chance = self.log.chance
        self._time = max(self._time, time.time_ns() // 1000)
        added = []
        for row in _rows(chunks, self._time):
            added.append(row._replace(offset=self._stop + chance.choice(GAPS)))
            self._rows.append(added[-1])
            self._stop = added[-1].stop
        self._stop += chance.choice(GAPS) if added else 0
        return added

    @reading
    def find_id(self, id: str) -> Put | None:
        put = self._ids.get(id)
        return put if put is not None and max(put.first, put.last) >= self._begin else None

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
        return self._schema if self.log.has(self) else None

    def cache_schema(self, schema: CachedSchema) -> None:
        with self.transactions.locked():
            if self.log.has(self) and schema.span.first == self.span().first:
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

    @changing
    def trim(self, before: int, force: bool) -> int:
        trimmed = Span(self._begin, min(before, self._stop))
        states = {state.client: state.position for state in self.clients()}
        lost = {name: self.count(Span(position, trimmed.stop)) for name, position in states.items()}
        if any(lost.values()) and not force:
            raise errors.TrimRefusedError([(name, count) for name, count in lost.items() if count], self.info.name)
        messages = self.count(trimmed)
        self._begin = max(self._begin, trimmed.stop)
        self._rows = self._rows[self._index_of(self._begin) :]
        self._ids = {id: put for id, put in self._ids.items() if self.find_id(id)}
        return messages


def _rows(chunks: Iterable[Chunk], now: int) -> Iterator[Row]:
    """Chunks as rows, without their offsets."""
    for chunk in chunks:
        if isinstance(chunk, Segment):
            yield Row(0, now, chunk.key, chunk.headers, chunk.value, chunk.rows, 0, chunk.rows)
        else:
            for value, key in zip(chunk.values, chunk.keys or [None] * len(chunk.values), strict=True):
                yield Row(0, now, key, chunk.headers, value, None, 0, None)
