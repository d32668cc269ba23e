"""A chunk: consecutive messages of a range as columns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pyarrow as pa

from pqlog.frames import segments
from pqlog.frames.arrays import filter_rows

Reread = Callable[["Chunk", frozenset[str]], pa.Table]
"""Reads fields of the messages of a chunk once more, each value as it is."""


class Chunk(NamedTuple):
    """Consecutive messages as columns."""

    offsets: pa.Array
    """Those of what was read: if it is merged partitions, their places in the merged order."""
    times: pa.Array
    keys: pa.Array | None
    fields: pa.Table
    topic: str
    segment: pa.Table | None = None
    """The part of a segment that it was read from, with the frame's own metadata."""
    origin: segments.Origin | None = None
    headers: pa.Array | None = None
    """None also if they were not asked for."""
    reread: Reread | None = None
    """None if each value is as it is already: those of segments are."""
    partitions: pa.Array | None = None
    """The numbers of their partitions; None if the topic has only one."""
    partition_offsets: pa.Array | None = None
    """Their offsets there; None if the topic has only one."""

    @property
    def has_keys(self) -> bool:
        return self.keys is not None and self.keys.null_count < len(self.keys)

    @property
    def shown_offsets(self) -> pa.Array:
        return self.offsets if self.partition_offsets is None else self.partition_offsets

    def called(self, index: int) -> str:
        """What errors call one of the messages."""
        of = "" if self.partitions is None else f" of partition {self.partitions[index]}"
        return f"message {self.shown_offsets[index]}{of}"

    @property
    def call(self) -> bytes | None:
        """The call that put it as a part of a frame; None for other messages."""
        return None if self.origin is None else self.origin.call

    def with_exact_values(self, mixed: frozenset[str]) -> Chunk:
        """The same, with the values of mixed fields as they are: some in a column of doubles may be integers."""
        if self.reread is None:
            return self
        doubles = {
            field.name
            for field, column in zip(self.fields.schema, self.fields.columns, strict=True)
            if pa.types.is_floating(field.type) and column.null_count < len(column)
        }
        names = mixed & doubles
        if not names:
            return self
        exact = self.reread(self, names)
        fields = self.fields
        for name in names:
            index = fields.schema.get_field_index(name)
            fields = fields.set_column(index, exact.schema.field(name), exact.column(name))
        return self._replace(fields=fields)

    def as_decode_errors(self) -> AbstractContextManager[None]:
        """Turn exceptions that its content causes into errors of ours."""
        if not len(self.offsets):
            return segments.as_decode_errors(self.topic, 0)
        partition = None if self.partitions is None else self.partitions[0].as_py()
        return segments.as_decode_errors(self.topic, self.shown_offsets[0].as_py(), partition)

    def slice(self, start: int, rows: int) -> Chunk:
        origin = self.origin and segments.Origin(self.origin.call, self.origin.start + start)
        return self._map(lambda column: column.slice(start, rows))._replace(origin=origin)

    def filter(self, mask: pa.Array) -> Chunk:
        """The messages where `mask` is true."""
        with self.as_decode_errors():
            return self._map(lambda columns: filter_rows(columns, mask))._replace(segment=None, origin=None)

    def _map(self, change: Callable[[Any], Any]) -> Chunk:
        return self._replace(
            **{name: change(columns) for name in _COLUMNS if (columns := getattr(self, name)) is not None}
        )


_COLUMNS = ("offsets", "times", "keys", "fields", "segment", "headers", "partitions", "partition_offsets")
"""What a chunk has for each of its messages."""
