"""Places: the messages of merged partitions have places in the merged order; what is shown are their offsets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pqlog.errors import TrimmedError
from pqlog.merged import Positions
from pqlog.store.api import Merged, TopicStore
from pqlog.store.values import Lines, PartitionRun, Row, Span
from pqlog.stream import Selection, TopicStream

MAX_GAP = 512
"""Messages that are no further apart than this are read together."""
MAX_MERGED_GAP = 3_000
"""The same for merged partitions, where finding a place takes as long as reading this many messages: about 5 ms."""


def runs_of(rows: Sequence[Row]) -> list[PartitionRun] | None:
    """The runs of rows; None if they are of a topic with one partition."""
    return [
        PartitionRun(row.partition, row.partition_offset, row.rows or 1) for row in rows if row.partition is not None
    ] or None


def shown(runs: Sequence[PartitionRun] | None) -> tuple[pa.Array, pa.Array] | tuple[None, None]:
    """For each message of some runs: the number of its partition, and its offset there."""
    if not runs:
        return None, None
    numbers, firsts, counts = (np.array(column, np.int64) for column in zip(*runs, strict=True))
    ends = counts.cumsum()
    offsets = np.arange(ends[-1]) + np.repeat(firsts - (ends - counts), counts)
    return pa.array(np.repeat(numbers.astype(np.int32), counts)), pa.array(offsets)


def origins(lines: Lines) -> tuple[pa.Array, pa.Array] | tuple[None, None]:
    """The same of lines."""
    if lines.origins is None:
        return shown(lines.runs)
    numbers, offsets = lines.origins
    return pa.array(np.asarray(numbers, np.int32)), pa.array(np.asarray(offsets, np.int64))


def by_partition(selection: Selection) -> list[Selection]:
    """The parts of a selection that are each of one partition."""
    topic, span = selection.topic, selection.span
    if not isinstance(topic.store, Merged):
        return [selection]
    bounds = zip(topic.store.positions(span.first), topic.store.positions(span.stop), strict=True)
    return [selection._replace(topic=topic.partition(n), span=Span(*bound)) for n, bound in enumerate(bounds)]


def is_from_beginning(selection: Selection) -> bool:
    """Whether nothing of its topic lies before a selection."""
    firsts = [part.span.first for part in by_partition(selection)]
    return firsts == [store.span().first for store in selection.topic.partitions]


def identity(selection: Selection) -> tuple[object, ...]:
    """The same for the same messages of one open topic: those of a span never change, but a trim may move places."""
    return tuple(part.span for part in by_partition(selection)), selection.key, selection.latest, selection.where


def mark_of(stream: TopicStream, offset: int) -> int | Positions:
    """What an offset, or a place, is known by for longer than one reading: a trim may move places."""
    return stream.store.positions(offset) if isinstance(stream.store, Merged) else offset


def at_mark(stream: TopicStream, mark: int | Positions) -> int:
    """The offset, or place, of a mark."""
    if isinstance(mark, int) or not isinstance(stream.store, Merged):
        return mark  # type: ignore[return-value]
    return stream.store.place(mark)


@contextlib.contextmanager
def unmoved(stream: TopicStream) -> Iterator[None]:
    """Raise if a trim moves the places of merged partitions meanwhile."""
    before = begins(stream)
    yield
    for store, first in zip(stream.partitions, before, strict=False):
        trimmed(store, first)


def begins(stream: TopicStream) -> list[int]:
    """Where merged partitions begin: places stay as long as none is trimmed. Empty if there are no places."""
    return [store.span().first for store in stream.partitions] if stream.is_merged else []


def trimmed(store: TopicStore, first: int) -> None:
    """Raise if a message of a partition was trimmed."""
    begin = store.span().first
    if begin > first:
        raise TrimmedError(first, begin, store.info.number)


def nearby(stream: TopicStream, offsets: Any) -> Iterator[list[int]]:
    """Ascending offsets in groups that are close together."""
    gap = MAX_MERGED_GAP if stream.is_merged else MAX_GAP
    if len(offsets):
        if not stream.log.capabilities.dense_offsets:  # messages are further apart
            first, last = offsets[0].item(), offsets[-1].item()
            gap = gap * (last - first) // max(1, stream.store.count(Span.through(first, last))) + gap
        yield from (group.tolist() for group in np.split(offsets, np.flatnonzero(np.diff(offsets) > gap) + 1))
