"""The pass over a range that infers the columns of its result."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pqlog import check
from pqlog import fields as field_names
from pqlog.errors import ArgumentError
from pqlog.frames import places, prefetch, schema_cache
from pqlog.frames.arrow_types import TIME
from pqlog.frames.chunks import Chunk
from pqlog.frames.columns import check_field_count, unused_name
from pqlog.frames.dates import TimeRanges
from pqlog.frames.flatten import column_of_path, final_names
from pqlog.frames.inference import SchemaInference
from pqlog.frames.output_schema import CacheCheck, OutputSchema, remembered_outputs
from pqlog.frames.projection import Projection
from pqlog.frames.reading import read_chunks
from pqlog.store.values import Span
from pqlog.stream import Selection, TopicStream

BUFFER_BYTES = 64 << 20
"""Chunks up to this size are kept during the pass for a stream, so that a short range is read only once."""
REMEMBERED = 64
"""How many output schemas are remembered for each open log."""


class InferencePass:
    """Infers the columns of a result from its chunks, and from what is known about the messages before them."""

    def __init__(self, topic: TopicStream, projection: Projection, known: SchemaInference | None = None) -> None:
        self._topic, self._projection = topic, projection
        self._inference = SchemaInference() if known is None else known
        self._time_ranges = TimeRanges()

    def copy(self) -> InferencePass:
        other = InferencePass(self._topic, self._projection, self._inference.copy())
        other._time_ranges = self._time_ranges.copy()
        return other

    def add(self, chunk: Chunk) -> None:
        """Take a chunk into account."""
        with chunk.as_decode_errors():
            self._inference.add(chunk.fields)
        dates = self._projection.date_columns(chunk.fields.schema.names)
        self._time_ranges.add(chunk.fields, dates, chunk.called)
        self._inference.has_keys |= chunk.has_keys
        if len(self._inference.puts) < 2:
            self._inference.puts.add(chunk.call)

    def cache(self, selection: Selection) -> None:
        """Put what was inferred into the cache, if the range is a whole topic."""
        schema_cache.store(selection, self._projection, self._inference)

    def output_from_cache(self, selection: Selection) -> OutputSchema:
        """The output schema, to be compared with each chunk, since it does not follow from chunks alone."""
        return replace(self.output(), cache_check=CacheCheck(self._inference, selection.topic.partitions[0]))

    def output(self) -> OutputSchema:
        """The output schema for all chunks so far."""
        inference, has_partitions = self._inference, self._topic.has_partitions
        columns, without_values = self._columns()
        fields = pa.schema(list(columns.values()))
        check_field_count(len(fields))
        names = []
        used = dict.fromkeys(self._projection.reserved_names(has_partitions))
        for name in columns:
            unique = unused_name(name, used)
            used[unique] = None
            names.append(unique)
        is_one_put = len(inference.puts) == 1 and None not in inference.puts
        return OutputSchema(
            fields,
            tuple(names),
            self._projection.metadata_columns(has_partitions, inference.has_keys),
            frozenset(name for name in fields.names if inference.has_nulls(name)),
            {name: note for name in fields.names if (note := inference.note(name)) is not None},
            self._dictionaries(fields),
            is_one_put and self._projection.is_fields_only,
            without_values,
        )

    def _dictionaries(self, fields: pa.Schema) -> dict[str, pa.Array]:
        names = [field.name for field in fields if pa.types.is_dictionary(field.type)]
        dictionaries = {name: self._inference.dictionary(name) for name in names}
        return {name: values for name, values in dictionaries.items() if values is not None and _is_unique(values)}

    def _columns(self) -> tuple[dict[str, pa.Field], tuple[str, ...]]:
        """The columns by their names, in order; and the names that were asked for without any value."""
        projection, schema = self._projection, self._inference.schema()
        names = final_names(schema) if projection.flatten else {name: name for name in schema.names}
        columns = {name: schema.field(column) for column, name in names.items()}
        if projection.columns is not None:
            columns = {
                name: columns.get(name, pa.field(column_of_path([name]), pa.null())) for name in projection.columns
            }
        asked = dict.fromkeys((*(projection.columns or ()), *projection.parse_dates))
        missing = tuple(name for name in asked if name not in columns or pa.types.is_null(columns[name].type))
        for name in set(missing).intersection(projection.parse_dates, columns):
            columns[name] = columns[name].with_type(TIME)
        return columns, missing


def _is_unique(dictionary: pa.Array) -> bool:
    """Whether pandas accepts a dictionary as categories."""
    if dictionary.null_count or pa.types.is_float16(dictionary.type):
        return False
    if pa.types.is_floating(dictionary.type):
        dictionary = pc.add(dictionary, 0.0)  # makes -0.0 and 0.0 the same
    return len(dictionary.unique()) == len(dictionary)


def check_names(selection: Selection, projection: Projection, output: OutputSchema) -> None:
    """Raise for a requested name that no message has; if the projection is lenient, only warn if it looks misspelt.

    That no message has a value for it is not enough: the field may be null in all of them.
    """
    if not output.without_values:
        return
    names_of = field_names.flat_columns if projection.flatten else field_names.columns
    values = prefetch.read_values(selection)
    unknown = field_names.unknown(output.without_values, values, names_of, bare=projection.flatten)
    if unknown is None:
        return
    if not projection.lenient:
        raise ArgumentError(unknown.said)
    if unknown.near:
        check.warn(unknown.said)


def read_all(selection: Selection, projection: Projection, progress: bool) -> tuple[list[Chunk], OutputSchema]:
    """All chunks of a range, and their output schema."""
    inference = InferencePass(selection.topic, projection)
    chunks = []
    for chunk in read_chunks(selection, projection, progress):
        inference.add(chunk)
        chunks.append(chunk)
    inference.cache(selection)
    output = inference.output()
    check_names(selection, projection, output)
    return chunks, output


def read_stream(selection: Selection, projection: Projection, progress: bool) -> tuple[Iterable[Chunk], OutputSchema]:
    """The chunks of a range, read one after the other, and their output schema, which is known before them."""
    chunks, output = _infer(selection, projection)
    if chunks is None:
        return read_chunks(selection, projection, progress, output.mixed), output
    return chunks, output


def infer_output(selection: Selection, projection: Projection) -> OutputSchema:
    """The output schema of a range."""
    return _infer(selection, projection)[1]


def _infer(selection: Selection, projection: Projection) -> tuple[list[Chunk] | None, OutputSchema]:
    """The output schema of a range, and its chunks if they were read for it and are few."""
    remembered = remembered_outputs.setdefault(selection.topic.partitions[0], OrderedDict())
    key = (*places.identity(selection), projection)
    output = remembered.get(key)
    chunks = None
    if output is None:
        chunks, output = _run(selection, projection)
        remembered[key] = output
        while len(remembered) > REMEMBERED:
            remembered.popitem(last=False)
    else:
        remembered.move_to_end(key)
    check_names(selection, projection, output)
    return chunks, output


def _run(selection: Selection, projection: Projection) -> tuple[list[Chunk] | None, OutputSchema]:
    """Run the pass over those messages that the cache does not cover."""
    cached = schema_cache.lookup(selection, projection)
    if cached is not None:
        inference = InferencePass(selection.topic, projection, cached.inference)
        for chunk in read_chunks(selection._replace(span=Span(cached.span.stop, selection.span.stop)), projection):
            inference.add(chunk)
        inference.cache(selection)
        return None, inference.output_from_cache(selection)
    inference = InferencePass(selection.topic, projection)
    chunks: list[Chunk] | None = []
    size = 0
    for chunk in read_chunks(selection, projection):
        inference.add(chunk)
        if chunks is not None:
            chunks.append(chunk)
            size += chunk.fields.nbytes
            if size > BUFFER_BYTES:
                chunks = None
    inference.cache(selection)
    return chunks, inference.output()
