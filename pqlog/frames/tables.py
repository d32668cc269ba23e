"""A range of a topic as an Arrow table, a stream of record batches, or a polars frame."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pqlog.errors import ArgumentError
from pqlog.frames import polars
from pqlog.frames.chunks import Chunk
from pqlog.frames.inference_pass import infer_output, read_all, read_stream
from pqlog.frames.prefetch import FIRST_READ_ROWS, growing
from pqlog.frames.projection import Projection
from pqlog.frames.reading import read_chunks
from pqlog.stream import Selection

BATCH_ROWS = 65_536
"""The default number of rows in a record batch."""


def to_arrow(selection: Selection, projection: Projection, progress: bool) -> pa.Table:
    """The messages of a range as one table."""
    chunks, output = read_all(selection, projection, progress)
    return output.table(chunks)


def to_polars(selection: Selection, projection: Projection, progress: bool) -> Any:
    """The messages of a range as a polars frame."""
    return polars.from_table(to_arrow(selection, projection, progress))


def schema(selection: Selection, projection: Projection) -> pa.Schema:
    """The schema of the stream of a range."""
    return infer_output(selection, projection).schema


def to_batches(
    selection: Selection, projection: Projection, batch_size: int | None, progress: bool
) -> pa.RecordBatchReader:
    """The messages of a range as a stream of record batches."""
    if batch_size is not None:
        check_size("batch_size", batch_size)
    chunks, output = read_stream(selection, projection, progress)

    def batches() -> Iterator[pa.RecordBatch]:
        for group in regroup(chunks, batch_size):
            table = output.table(group)
            # fails if the columns' dictionaries cannot be merged into one: then these rows come in several batches
            with contextlib.suppress(pa.ArrowException):
                table = table.combine_chunks()
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(output.schema, batches())


def count(selection: Selection) -> int:
    """How many messages a selection has; as few columns as can be are read for it."""
    return sum(len(chunk.offsets) for chunk in read_chunks(selection, Projection(columns=())))


def regroup(chunks: Iterable[Chunk], size: int | None) -> Iterator[list[Chunk]]:
    """Chunks in groups of `size` messages; the last may have fewer. Without a size, the first groups are small."""
    group: list[Chunk] = []
    sizes = growing(FIRST_READ_ROWS, BATCH_ROWS) if size is None else itertools.repeat(size)
    room = next(sizes)
    for chunk in chunks:
        start, rows = 0, len(chunk.offsets)
        while start < rows:
            part = chunk if start == 0 and rows <= room else chunk.slice(start, min(room, rows - start))
            group.append(part)
            start += len(part.offsets)
            room -= len(part.offsets)
            if not room:
                yield group
                group, room = [], next(sizes)
    if group:
        yield group


def check_size(option: str, size: int) -> None:
    """Raise unless an option is a number of messages."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(f"{option} must be a number of messages, 1 or more, not {size!r}")
