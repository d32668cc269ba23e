"""Places: of merged partitions, messages have places in the merged order; what is shown are their offsets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from pqlog.merged import MergedPartitions
from pqlog.store.values import PartitionRun, Row, Span
from pqlog.stream import Selection, TopicStream


def is_merged(stream: TopicStream) -> bool:
    """Whether the offsets of what is read are places."""
    return len(stream.partitions) > 1


def has_partitions(stream: TopicStream) -> bool:
    """Whether its topic has several partitions, though only one may be read."""
    return stream.store.info.partitions > 1


def run_of(row: Row) -> PartitionRun:
    """The messages of a row of merged partitions."""
    return PartitionRun(row.partition or 0, row.partition_offset, row.rows or 1)


def shown(runs: Iterable[PartitionRun]) -> tuple[pa.Array, pa.Array]:
    """For each message of some runs: the number of its partition, and its offset there."""
    numbers, firsts, counts = (np.array(column, np.int64) for column in zip(*runs, strict=True))
    ends = counts.cumsum()
    offsets = np.arange(ends[-1]) + np.repeat(firsts - (ends - counts), counts)
    return pa.array(np.repeat(numbers.astype(np.int32), counts)), pa.array(offsets)


def by_partition(selection: Selection) -> list[Selection]:
    """The parts of a selection that are each of one partition."""
    topic, span = selection.topic, selection.span
    if not is_merged(topic):
        return [selection]
    assert isinstance(topic.store, MergedPartitions)
    bounds = zip(topic.store.cut(span.first), topic.store.cut(span.stop), strict=True)
    return [selection._replace(topic=topic.partition(number), span=Span(*bound)) for number, bound in enumerate(bounds)]
