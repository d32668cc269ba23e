"""Reading a range as chunks: read, parsed, and in the form that a projection asks for."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pqlog import extras
from pqlog.errors import TrimmedError
from pqlog.frames import dates, flatten
from pqlog.frames.block_parser import ALL_METADATA, BlockParser, Choose
from pqlog.frames.chunks import Chunk
from pqlog.frames.columns import JSON_COLUMNS, PYTHON_COLUMNS
from pqlog.frames.conform import conform
from pqlog.frames.inference import SchemaInference
from pqlog.frames.latest import at_offsets, latest_of
from pqlog.frames.matching import matcher_of
from pqlog.frames.places import nearby, unmoved
from pqlog.frames.prefetch import blocks, column_blocks
from pqlog.frames.projection import Projection
from pqlog.store.values import Span
from pqlog.stream import Selection, TopicStream

_MAKERS = {b"json": JSON_COLUMNS, b"pickle": PYTHON_COLUMNS}


def read_chunks(
    selection: Selection,
    projection: Projection,
    progress: bool = False,
    mixed: frozenset[str] = frozenset(),
    choose: Choose | None = None,
    metadata: Collection[str] = ALL_METADATA,
) -> Iterator[Chunk]:
    """The messages of a range in order, in chunks of bounded size.

    The values of `mixed` fields each stay as they are. (If it is found out only later that a field is mixed, see
    `Chunk.with_exact_values`.) With `choose`, only messages that it chooses, of those of the range; with `metadata`,
    metadata columns besides these may be null.
    """
    with extras.progress_bar(selection.total() if progress else None, "reading", progress) as done:
        for chunk in _read_chunks(selection, projection, mixed, choose, metadata):
            done(len(chunk.offsets))
            yield chunk


def _read_chunks(
    selection: Selection,
    projection: Projection,
    mixed: frozenset[str],
    choose: Choose | None,
    metadata: Collection[str],
) -> Iterator[Chunk]:
    stream, span, key, by, _ = selection
    if by is not None:
        with unmoved(stream):
            yield from chunks_at(stream, latest_of(selection), projection, mixed)
        return
    matcher, spans, headers = matcher_of(selection), [span], projection.has_headers
    if matcher is not None:
        spans, headers = matcher.spans(span), headers or matcher.projection.has_headers
        choose = matcher.mask if choose is None else _both(matcher.mask, choose)
    parser = _parser(stream, projection, mixed, key=key, choose=choose, metadata=metadata)
    for part in spans:
        for block in column_blocks(stream, part, key, headers=headers):
            for chunk in parser.parse(block):
                yield project(chunk, projection, mixed)
    if matcher is not None:
        matcher.warn(span)


def _both(one: Choose, other: Choose) -> Choose:
    return lambda part: one(part) & other(part)


def chunks_at(
    stream: TopicStream, offsets: Any, projection: Projection, mixed: frozenset[str] = frozenset()
) -> Iterator[Chunk]:
    """The messages at some ascending offsets; messages between them do not influence the columns."""
    parser = _parser(stream, projection, mixed, choose=functools.partial(at_offsets, offsets))
    for chunk in _parse_at(parser, stream, offsets, projection.has_headers):
        yield project(chunk, projection, mixed)


def _parser(stream: TopicStream, projection: Projection, mixed: frozenset[str], **options: Any) -> BlockParser:
    return BlockParser(
        stream,
        projection.source_fields,
        projection.top_level(mixed),
        headers=projection.has_headers,
        reread=functools.partial(_reread, stream, projection.flatten),
        **options,
    )


def _parse_at(parser: BlockParser, stream: TopicStream, offsets: Any, headers: bool = False) -> Iterator[Chunk]:
    for group in nearby(stream, offsets):
        for block in blocks(stream, Span.through(group[0], group[-1]), headers=headers):
            yield from parser.parse(block)


def project(chunk: Chunk, projection: Projection, mixed: frozenset[str]) -> Chunk:
    """A chunk in the form that a projection asks for."""
    with chunk.as_decode_errors():
        if projection.flatten:
            chunk = chunk._replace(fields=flatten.flatten(chunk.fields, _MAKERS, mixed))
        if projection.parse_dates:
            names = projection.date_columns(chunk.fields.schema.names)
            chunk = chunk._replace(fields=dates.parse_dates(chunk.fields, names, chunk.called))
    if projection.columns is not None:
        names = chunk.fields.schema.names
        if projection.flatten:
            selected = flatten.matching(names, projection.columns)
        else:
            selected = [name for name in projection.columns if name in names]
        chunk = chunk._replace(fields=chunk.fields.select(selected))
    return chunk


def _reread(stream: TopicStream, is_flat: bool, chunk: Chunk, mixed: frozenset[str]) -> pa.Table:
    """Mixed fields of the messages of a chunk, each value as it is."""
    projection = Projection(flatten=is_flat)
    fields = frozenset(flatten.path_of(name)[0] if is_flat else name for name in mixed)
    inference, tables = SchemaInference(), list[pa.Table]()
    parts = _parts(stream, chunk)
    for part, _, offsets in parts:
        choose = functools.partial(at_offsets, offsets)
        parser, rows = BlockParser(part, fields, projection.top_level(mixed), choose=choose), 0
        for found in _parse_at(parser, part, offsets):
            table = project(found, projection, mixed).fields
            table = table.select([name for name in table.schema.names if name in mixed])
            inference.add(table)
            tables.append(table)
            rows += len(found.offsets)
        if rows != len(offsets):
            raise TrimmedError(int(offsets[0]), part.store.span().first, part.number)
    schema = inference.schema()
    exact = pa.concat_tables([conform(table, schema) for table in tables])
    return exact if len(parts) == 1 else exact.take(np.concatenate([rows for _, rows, _ in parts]).argsort())


def _parts(stream: TopicStream, chunk: Chunk) -> list[tuple[TopicStream, Any, Any]]:
    """The partitions of a chunk's messages, the rows of these, and their offsets, which no trim moves like places."""
    if chunk.partitions is None or not stream.is_merged:
        return [(stream, np.arange(len(chunk.offsets)), chunk.offsets.to_numpy())]
    numbers, offsets = chunk.partitions.to_numpy(), chunk.shown_offsets.to_numpy()
    rows_of = [(number, np.flatnonzero(numbers == number)) for number in np.unique(numbers).tolist()]
    return [(stream.partition(number), rows, offsets[rows]) for number, rows in rows_of]
