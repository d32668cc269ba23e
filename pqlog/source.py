"""Source: a topic to read from, and what its bytes mean; a stretch of it is what is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from pqlog import extras
from pqlog.codecs import UNDECODABLE, Codec, Json
from pqlog.errors import CodecMismatchError, CorruptLogError, DecodeError, Error, PickleRefusedError
from pqlog.message import Message, from_micros
from pqlog.store.api import Engine, Row, Span, TopicInfo

CHUNK_ROWS = 4_096
CHUNK_BYTES = 16 << 20
"""How much is read at a time; one row may be larger."""


@dataclass(frozen=True, slots=True)
class Source:
    """A topic to read from: the engine, and what its bytes mean."""

    engine: Engine
    topic: TopicInfo
    codec: Codec | None
    """None for a pickle topic that was opened without asking for pickle, and for an unknown codec."""

    def writable(self) -> Codec:
        """The codec to put with; raises `CodecMismatchError` where there is none here."""
        if self.codec is None:
            raise CodecMismatchError(self.topic.name, None, self.topic.codec)
        return self.codec

    def rows(self, span: Span, key: str | None = None, damaged: bool = False) -> Iterator[Row]:
        """The rows of a span, read in chunks; no statement is open while the caller works."""
        limit = CHUNK_ROWS if key is None else 1  # what lies behind the first of a key may be all of the topic
        while len(span):
            chunk = self.engine.read(self.topic, span, limit, CHUNK_BYTES, key, damaged)
            if not chunk:
                return
            yield from chunk
            span = Span(stop_of(chunk[-1]), span.stop)
            limit = min(2 * limit, CHUNK_ROWS)

    def backwards(self, span: Span, key: str | None = None) -> Iterator[Message]:
        """The messages of a span, the newest first, read in chunks from the end."""
        step = CHUNK_ROWS
        while len(span):
            part = Span(self.engine.from_end(self.topic, step, span), span.stop)
            rows = list(self.engine.read(self.topic, part, CHUNK_ROWS, CHUNK_BYTES, key))
            if step > 1 and sum(len(row.value) for row in rows) >= CHUNK_BYTES:
                step = max(1, step // 16)  # all of a chunk is held, so of large messages fewer
                continue
            if rows:
                rows += self.rows(Span(stop_of(rows[-1]), part.stop), key)
            yield from reversed(list(self.messages(rows, key)))
            span = Span(span.first, part.first)

    def messages(self, rows: Iterable[Row], key: str | None = None) -> Iterator[Message]:
        """The messages of rows, decoded; of segments only those with `key`."""
        for row in rows:
            try:
                when = from_micros(row.time)
                headers = {} if row.headers is None else {"headers": headers_of(row)}
            except (CorruptLogError, *UNDECODABLE) as error:
                raise DecodeError(self.topic.name, row.offset, f"its time or headers are none: {error}") from error
            if row.rows is None:
                yield Message(row.offset, when, self._decode(row), row.key, **headers)
            else:
                keys, values = extras.frames.unpack(row, self.topic.name)
                for index, value in enumerate(values):
                    of = keys[index] if keys is not None else None
                    if key is None or of == key:
                        yield Message(row.offset + index, when, value, of, **headers)

    def values(self, span: Span) -> Iterator[Any]:
        """The values of a span, decoded many at a time where the codec can."""
        while len(span):
            stop, values = self._next_values(span)
            if stop is None:
                return
            yield from values
            span = Span(stop, span.stop)

    def _next_values(self, span: Span) -> tuple[int | None, Iterable[Any]]:
        lines = None
        if isinstance(self.codec, Json):
            lines = self.engine.read_lines(self.topic, span, CHUNK_ROWS, CHUNK_BYTES)
        if lines is not None and isinstance(self.codec, Json):
            try:
                values = self.codec.decode_lines(lines.values)
            except UNDECODABLE:
                values = []  # one by one, to say which it was
            if len(values) == lines.rows:
                return lines.offset + lines.rows, values
        rows = self.engine.read(self.topic, span, CHUNK_ROWS, CHUNK_BYTES)
        if not rows:
            return None, []
        return stop_of(rows[-1]), (message.value for message in self.messages(rows))

    def _decode(self, row: Row) -> Any:
        name = self.topic.codec
        if self.codec is None:
            if name == "pickle":
                raise PickleRefusedError(
                    self.topic.name,
                    row.offset,
                    'it is a pickle, and reading one can run any code; if you trust the file, ask for codec="pickle"',
                )
            raise DecodeError(self.topic.name, row.offset, f"its codec {name!r} is unknown here: pass it as codec=")
        try:
            return self.codec.decode(row.value)
        except Error:
            raise
        except Exception as error:  # a codec of the user's may raise anything
            raise DecodeError(self.topic.name, row.offset, f"{type(error).__name__}: {error}") from error


def headers_of(row: Row) -> dict[str, str]:
    """The headers of a row that has some."""
    return msgspec.json.decode(row.headers or "{}", type=dict[str, str])


def stop_of(row: Row) -> int:
    """The offset behind a row."""
    return row.offset + (row.rows or 1)


class Stretch(NamedTuple):
    """Messages of a topic, as they lie there now: what is read."""

    source: Source
    span: Span
    key: str | None = None
    """Only messages with this key."""
    latest: str | None = None
    """Only the last message of each key ("key"), or of each value of that field."""

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for the same messages of one open log: those of a span never change."""
        return self.source.topic.id, self.span, self.key, self.latest
