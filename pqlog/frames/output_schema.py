"""The columns of a reading's result, the same for all of its chunks."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from pqlog.errors import CorruptLogError
from pqlog.frames import schema_cache
from pqlog.frames.arrow_types import HEADERS, TIME
from pqlog.frames.chunks import Chunk
from pqlog.frames.columns import make_table, mark_of
from pqlog.frames.conform import conform
from pqlog.frames.inference import SchemaInference
from pqlog.frames.notes import Note
from pqlog.store.api import TopicStore

_METADATA_TYPES = {
    "offset": pa.int64(),
    "_partition": pa.int32(),
    "_time": TIME,
    "_key": pa.string(),
    "_headers": HEADERS,
}


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The columns of a reading's result.

    Attributes
    ----------
    fields : pyarrow.Schema
        The fields of the messages, under their own names.
    names : tuple of str
        Their names in the result, with an underscore appended if another column has the name.
    metadata : tuple of str
        The metadata columns, which come first.
    nulls : frozenset of str
        The fields for which some message has no value.
    notes : dict of str to Note
        The notes on pandas dtypes, of fields for which all frames that were put agree.
    dictionaries : dict of str to pyarrow.Array
        The dictionaries of fields that have the same in all chunks: categories in pandas.
    is_frame_as_put : bool
        Whether the result is one frame, or a part of it, exactly as it was put.
    without_values : tuple of str
        Names that were asked for, and for which no message has a value.
    cache_check : CacheCheck, optional
        If the schema came from the cache: compares each chunk with it.
    """

    fields: pa.Schema
    names: tuple[str, ...]
    metadata: tuple[str, ...]
    nulls: frozenset[str]
    notes: dict[str, Note]
    dictionaries: dict[str, pa.Array]
    is_frame_as_put: bool
    without_values: tuple[str, ...] = ()
    cache_check: CacheCheck | None = field(default=None, compare=False)

    @property
    def mixed(self) -> frozenset[str]:
        """The fields whose values have no common type, so that each stays as it is."""
        return frozenset(field.name for field in self.fields if mark_of(field) is not None)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the Arrow table."""
        named = [field.with_name(name) for field, name in zip(self.fields, self.names, strict=True)]
        return pa.schema([*(pa.field(name, _METADATA_TYPES[name]) for name in self.metadata), *named])

    def select(self, names: Sequence[str]) -> OutputSchema:
        """The same with some of its columns only, the metadata first."""
        chosen = [index for index, name in enumerate(self.names) if name in names]
        return replace(
            self,
            fields=pa.schema([self.fields.field(index) for index in chosen]),
            names=tuple(self.names[index] for index in chosen),
            metadata=tuple(name for name in self.metadata if name in names),
            is_frame_as_put=False,
        )

    def table(self, chunks: Sequence[Chunk]) -> pa.Table:
        """Chunks as one table."""
        if not chunks:
            return self.schema.empty_table()
        if not len(self.schema):  # pyarrow loses the number of rows of tables without columns
            return make_table([], [], sum(len(chunk.offsets) for chunk in chunks))
        return pa.concat_tables([self._conform(chunk.with_exact_values(self.mixed)) for chunk in chunks])

    def _conform(self, chunk: Chunk) -> pa.Table:
        """A chunk with exactly these columns."""
        with chunk.as_decode_errors():
            if self.cache_check is not None:
                self.cache_check.check(chunk, self)
            fields = conform(chunk.fields, self.fields, self.dictionaries).columns
            metadata = [metadata_column(chunk, name) for name in self.metadata]
            return make_table(list(self.schema), [*metadata, *fields], len(chunk.offsets))


def metadata_column(chunk: Chunk, name: str) -> pa.Array:
    """One of the metadata columns of a chunk."""
    if name == "offset":
        return chunk.shown_offsets
    columns = {"_partition": chunk.partitions, "_time": chunk.times, "_key": chunk.keys, "_headers": chunk.headers}
    column = columns[name]
    if column is not None:
        return column
    nulls = pa.nulls(len(chunk.offsets), _METADATA_TYPES[name])
    return nulls.fill_null(0) if name == "_partition" else nulls  # the topic's only partition is number 0


class CacheCheck:
    """Compares the chunks of a reading with the schema from the cache, which may be wrong.

    It does not keep the store alive, since `remembered_outputs` holds it for as long as the store lives.
    """

    def __init__(self, inference: SchemaInference, store: TopicStore) -> None:
        self._inference, self._store = inference, weakref.ref(store)

    def check(self, chunk: Chunk, output: OutputSchema) -> None:
        """Raise, and drop the cache, if a chunk contradicts it."""
        wrong = self._contradiction(chunk, output)
        if wrong is not None:
            store = self._store()
            if store is not None:
                schema_cache.invalidate(store)
                remembered_outputs.pop(store, None)
            raise CorruptLogError(
                f"the schema cached in the file is wrong about {wrong} of topic {chunk.topic!r} (at "
                f"{chunk.called(0)}). The cache has been dropped; call again"
            )

    def _contradiction(self, chunk: Chunk, output: OutputSchema) -> str | None:
        """What the cache is wrong about."""
        inference, fields = self._inference, chunk.fields
        names = fields.schema.names
        missing = set(output.fields.names).difference(names)
        asked = [name for name in output.without_values if name in names]  # the cache need not have these
        known = fields.drop_columns([name for name in asked if fields.column(name).null_count == len(fields)])
        mismatch = inference.mismatch(known)
        mismatch = mismatch or next((name for name in missing if not inference.has_nulls(name)), None)
        if mismatch is not None:
            return f"the column {mismatch!r}"
        if chunk.has_keys and not inference.has_keys:
            return "the keys"
        if output.is_frame_as_put and chunk.call not in inference.puts:
            return "its puts"
        return None


remembered_outputs: WeakKeyDictionary[TopicStore, OrderedDict[tuple[Any, ...], OutputSchema]] = WeakKeyDictionary()
"""The output schemas of recent readings, by topic: by its partition, or the first of several that are merged. They stay
valid, since the messages of a span never change."""
