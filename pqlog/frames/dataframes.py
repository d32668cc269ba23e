"""A range of a topic as pandas frames: with dtypes that hold every value, or those of the frames that were put."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from pqlog.errors import ArgumentError
from pqlog.frames import dtypes, notes, pandas_table, segments
from pqlog.frames.arrays import decode_dictionary
from pqlog.frames.arrow_types import is_plain
from pqlog.frames.chunks import Chunk
from pqlog.frames.columns import mark_of
from pqlog.frames.inference_pass import InferencePass, read_all, read_stream
from pqlog.frames.latest import latest_of
from pqlog.frames.output_schema import OutputSchema
from pqlog.frames.places import unmoved
from pqlog.frames.projection import Projection
from pqlog.frames.reading import chunks_at, read_chunks
from pqlog.frames.tables import check_size, regroup
from pqlog.store.values import Span
from pqlog.stream import CHUNK_BYTES, CHUNK_ROWS, Selection, TopicStream

MAX_STEP = 1 << 20
"""How many messages are read at a time, at most, when the last ones with a predicate are searched."""


def to_pandas(selection: Selection, projection: Projection, dtype_backend: str | None, progress: bool) -> pd.DataFrame:
    """The messages of a range as a pandas frame."""
    _check_backend(dtype_backend)
    chunks, output = read_all(selection, projection, progress)
    return frame_of(chunks, output, dtype_backend)


def chunks(
    selection: Selection, projection: Projection, chunksize: int, dtype_backend: str | None, progress: bool
) -> Iterator[pd.DataFrame]:
    """The messages of a range as pandas frames of `chunksize` rows, all with the same dtypes."""
    check_size("chunksize", chunksize)
    _check_backend(dtype_backend)
    chunks, output = read_stream(selection, projection, progress)
    for group in regroup(chunks, chunksize):
        yield frame_of(group, output, dtype_backend)


def head(selection: Selection, n: int) -> pd.DataFrame:
    """The first `n` messages as a frame."""
    _check_count(n)
    if selection.latest is not None:
        return _latest_frame(selection, slice(n))
    group = next(regroup(read_chunks(_up_to(selection, n), Projection()), n), []) if n else []
    if group:  # the last chunk may have been cut from one whose types were inferred from later messages as well
        first, last = group[0].offsets[0].as_py(), group[-1].offsets[-1].as_py()
        group = list(read_chunks(selection._replace(span=Span.through(first, last)), Projection()))
    return _inferred_frame(selection, group)


def _up_to(selection: Selection, n: int) -> Selection:
    """The range up to the `n`-th message of its key, so that the rest of the topic is not read."""
    stream, span, key = selection.topic, selection.span, selection.key
    if key is None or selection.where is not None:
        return selection
    rest = span
    while n > 0 and (rows := stream.read(rest, min(n, CHUNK_ROWS), CHUNK_BYTES, key)):
        n -= sum(1 for _ in stream.messages(rows, key))
        rest = Span(rows[-1].stop, rest.stop)
    return selection._replace(span=Span(span.first, span.stop if n > 0 else rest.first))


def tail(selection: Selection, n: int) -> pd.DataFrame:
    """The last `n` messages as a frame."""
    _check_count(n)
    stream, span, key, latest, where = selection
    if latest is not None:
        return _latest_frame(selection, slice(-n, None) if n else slice(0))
    if where is not None:
        first = _from_end(selection, n)
    elif key is None:
        first = stream.store.from_end(n, span)
    elif stream.is_merged:
        first = _place_from_end(stream, span, key, n)
    else:
        newest = list(itertools.islice(stream.backwards(span, key), n))
        first = newest[-1].offset if newest else span.stop
    return _inferred_frame(selection, read_chunks(selection._replace(span=Span(first, span.stop)), Projection()))


def _place_from_end(stream: TopicStream, span: Span, key: str, n: int) -> int:
    """The place of the last message but `n` - 1 that has a key; of the first if there are fewer."""
    first, newest = span.stop, list[int]()
    while first > span.first and len(newest) < n:
        part = Span(stream.store.from_end(CHUNK_ROWS, Span(span.first, first)), first)
        places = [
            row.offset + message.offset - row.partition_offset
            for row in stream.rows(part, key)
            for message in stream.messages([row], key)
        ]
        newest += reversed(places)
        first = part.first
    return min(newest[:n], default=span.stop)


def _from_end(selection: Selection, n: int) -> int:
    """The offset, or place, of the `n`-th message from the end of a range with a predicate."""
    rest, step = selection.span, CHUNK_ROWS
    first = rest.stop
    while rest and n > 0:
        part = Span(selection.topic.store.from_end(step, rest), rest.stop)
        found = [chunk.offsets for chunk in read_chunks(selection._replace(span=part), Projection(columns=()))]
        offsets = pa.chunked_array(found, pa.int64())
        if len(offsets):
            first = offsets[max(0, len(offsets) - n)].as_py()
        n, rest, step = n - len(offsets), Span(rest.first, part.first), min(2 * step, MAX_STEP)
    return first


def _latest_frame(selection: Selection, chosen: slice) -> pd.DataFrame:
    """The frame of some of the latest messages."""
    with unmoved(selection.topic):
        return _inferred_frame(selection, chunks_at(selection.topic, latest_of(selection)[chosen], Projection()))


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(f"n must be a number of messages, not {n!r}")


def _inferred_frame(selection: Selection, chunks: Iterable[Chunk]) -> pd.DataFrame:
    """The frame of chunks, whose columns are inferred from these chunks alone."""
    inference = InferencePass(selection.topic, Projection())
    chunks = list(chunks)
    for chunk in chunks:
        inference.add(chunk)
    return frame_of(chunks, inference.output(), None)


def _check_backend(dtype_backend: str | None) -> None:
    if dtype_backend not in (None, "pyarrow", "numpy_nullable"):
        raise ArgumentError(f'dtype_backend must be "pyarrow", "numpy_nullable" or None, not {dtype_backend!r}')


def frame_of(chunks: Sequence[Chunk], output: OutputSchema, dtype_backend: str | None) -> pd.DataFrame:
    """Chunks as a pandas frame; an error names the chunk that caused it."""
    if not chunks:
        return _frame_of(chunks, output, dtype_backend)
    with chunks[0].as_decode_errors():
        try:
            return _frame_of(chunks, output, dtype_backend)
        except Exception:
            for chunk in chunks[len(chunks) == 1 :]:
                with chunk.as_decode_errors():
                    _frame_of([chunk], output, dtype_backend)
            raise


def _frame_of(chunks: Sequence[Chunk], output: OutputSchema, dtype_backend: str | None) -> pd.DataFrame:
    if output.is_frame_as_put and dtype_backend is None:
        frame = _frame_as_put(chunks)
        if frame is not None:
            return frame
    chunks = [chunk.with_exact_values(output.mixed) for chunk in chunks]
    table = output.table(chunks)
    if dtype_backend is None:
        table = _decode_different_dictionaries(table, output)
    converted = _converted_columns(chunks, table, output, dtype_backend)
    plain = table.select([name for name in table.column_names if name not in converted])
    frame = _plain_frame(plain, output, dtype_backend)
    if not plain.num_columns:
        frame = pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    if converted:
        columns = {name: converted[name] if name in converted else frame[name] for name in output.schema.names}
        frame = pd.DataFrame(columns, index=frame.index)
    return frame.set_index("offset") if "offset" in output.metadata else frame


def _decode_different_dictionaries(table: pa.Table, output: OutputSchema) -> pa.Table:
    """Replace dictionaries that differ by their values: as categories, each chunk would have others."""
    for field, name in zip(output.fields, output.names, strict=True):
        is_category = field.name in output.dictionaries or field.name in output.notes
        if pa.types.is_dictionary(field.type) and not is_category:
            position = table.schema.get_field_index(name)
            table = table.set_column(position, name, decode_dictionary(table.column(position)))
    return table


def _converted_columns(
    chunks: Sequence[Chunk], table: pa.Table, output: OutputSchema, dtype_backend: str | None
) -> dict[str, Any]:
    """The columns that Arrow's own conversion to pandas would change."""
    converted: dict[str, Any] = {}
    for field, name in zip(output.fields, output.names, strict=True):
        note = output.notes.get(field.name)
        if dtype_backend == "numpy_nullable" and (note is None or not note.is_opaque):
            note = None  # the backend's own dtypes are wanted
        if mark_of(field) is not None or (dtype_backend != "pyarrow" and _is_object(field, note)):
            converted[name] = dtypes.object_series(_objects(chunks, field.name), note)
        elif dtype_backend != "pyarrow" and note is not None:
            converted[name] = dtypes.restore(table.column(name), field, note, field.name in output.nulls)
        elif dtype_backend is None and pa.types.is_dictionary(table.schema.field(name).type):
            converted[name] = dtypes.category_of(table.column(name), output.dictionaries[field.name])
    if "_headers" in output.metadata:
        headers = [None if pairs is None else dict(pairs) for pairs in table.column("_headers").to_pylist()]
        converted["_headers"] = dtypes.object_series(headers, None)
    return converted


def _is_object(field: pa.Field, note: notes.Note | None) -> bool:
    """Whether a column has Python objects in pandas."""
    if note is not None:
        return note.dtype == notes.OBJECT
    of = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return not is_plain(of)


def _objects(chunks: Sequence[Chunk], name: str) -> list[Any]:
    """A column of nested or mixed values as Python objects."""
    values: list[Any] = []
    for chunk in chunks:
        index = chunk.fields.schema.get_field_index(name)
        if index < 0:
            values += [None] * len(chunk.offsets)
        else:
            values += dtypes.python_values(chunk.fields.column(index), chunk.fields.schema.field(index))
    return values


_NULLABLE = {pa.float32(): "Float32", pa.float64(): "Float64", pa.string(): "string", pa.bool_(): "boolean"}


def _plain_frame(table: pa.Table, output: OutputSchema, dtype_backend: str | None) -> pd.DataFrame:
    """The frame of columns that Arrow can convert, with pandas' nullable dtypes where NumPy has no null."""
    if dtype_backend == "pyarrow":
        return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    if dtype_backend == "numpy_nullable":
        return table.to_pandas(types_mapper=_nullable, ignore_metadata=True)
    nulls = {name for field, name in zip(output.fields, output.names, strict=True) if field.name in output.nulls}
    nullable = {}
    for name in table.column_names:
        of = table.schema.field(name).type
        if name in nulls and (pa.types.is_integer(of) or pa.types.is_boolean(of)):
            nullable[name] = _nullable(of).__from_arrow__(table.column(name))
    rest = table.select([name for name in table.column_names if name not in nullable])
    frame: pd.DataFrame = rest.to_pandas(ignore_metadata=True)
    if not nullable:
        return frame
    index = frame.index if rest.num_columns else pd.RangeIndex(table.num_rows)
    columns = {name: nullable[name] if name in nullable else frame[name] for name in table.column_names}
    return pd.DataFrame(columns, index)


def _nullable(of: pa.DataType) -> Any:
    if pa.types.is_integer(of):
        return pd.api.types.pandas_dtype(dtypes.nullable(of))
    return pd.api.types.pandas_dtype(_NULLABLE[of]) if of in _NULLABLE else None


def _frame_as_put(chunks: Sequence[Chunk]) -> pd.DataFrame | None:
    """The frame of one call of `put_many`, or rows of it, with its index; None if it is anything else.

    Rows that do not follow each other in the frame, as in merged partitions or around what was trimmed, keep their
    labels.
    """
    origin = chunks[0].origin if chunks else None
    if origin is None:
        return None
    start, parts, is_run = origin.start, list[tuple[pa.Table, int]](), True
    for chunk in chunks:
        if chunk.origin is None or chunk.origin.call != origin.call or chunk.segment is None:
            return None
        parts.append((chunk.segment, chunk.origin.start))
        is_run = is_run and chunk.origin.start == start
        start = chunk.origin.start + len(chunk.offsets)
    tables = [table if is_run else segments.with_index(table, first) for table, first in parts]
    note = notes.frame_note_of(tables[0].schema)
    if note is None or any(not table.schema.equals(tables[0].schema) for table in tables):
        return None
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in tables])
    return pandas_table.from_table(table, note, origin.start)
