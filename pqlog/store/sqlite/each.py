"""Single messages of several calls, put in one transaction: each has its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from pqlog.errors import ArgumentError, CorruptLogError, Error, UnknownTopicError
from pqlog.store.sqlite import ids
from pqlog.store.sqlite.append import PutOne, append, next_time
from pqlog.store.sqlite.writer import Job, Transaction
from pqlog.store.values import PartitionOffset, Single, Singles, Span

if TYPE_CHECKING:
    from pqlog.store.sqlite.topic import SqliteTopic

Outcome = PartitionOffset | Error

_OWN = (ArgumentError, CorruptLogError, UnknownTopicError)
"""What is the fault of one message, or of its topic; any other error is that of all."""


class PutEach(Job[list[Outcome]]):
    """Single messages, in their order.

    Those of a topic of one partition are inserted together, up to one with an id, which is looked for first. In a topic
    of several partitions each is a put of its own, since its time depends on the other partitions.
    """

    def __init__(self, singles: Sequence[Single]) -> None:
        self._singles = singles

    def run(self, transaction: Transaction) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(self._singles)
        waiting: dict[SqliteTopic, list[int]] = {}
        for index, single in enumerate(self._singles):
            topic = cast("SqliteTopic", single.topic)
            if single.id is None and topic.info.partitions == 1:
                waiting.setdefault(topic, []).append(index)
                continue
            if topic in waiting:
                self._put_together(transaction, topic, waiting.pop(topic), outcomes)
            outcomes[index] = _put_one(transaction, topic, single)
        for topic, some in waiting.items():
            self._put_together(transaction, topic, some, outcomes)
        return cast("list[Outcome]", outcomes)

    def _put_together(
        self, transaction: Transaction, topic: SqliteTopic, some: Sequence[int], outcomes: list[Outcome | None]
    ) -> None:
        singles = [self._singles[index] for index in some]
        headers = [single.headers for single in singles]
        keys = [single.key for single in singles]
        chunk = Singles(
            [single.value for single in singles],
            keys if any(key is not None for key in keys) else None,
            headers if any(text is not None for text in headers) else None,
        )
        went = append(transaction, topic.table, [chunk], next_time(transaction, topic.tables))
        for index, offset in zip(some, range(went.first, went.stop), strict=True):
            outcomes[index] = PartitionOffset(0, offset)


def _put_one(transaction: Transaction, topic: SqliteTopic, single: Single) -> PartitionOffset:
    db, table = transaction.db, topic.table
    if single.id is not None and (known := ids.find(db, table, single.id)) is not None:
        part, where = min(known.items())
        return PartitionOffset(table.parts.index(part), where.first)
    offset = PutOne(topic.tables, table, single.value, single.key, single.headers).run(transaction)
    if single.id is not None:
        ids.add(db, table, [single.id], {table.id: Span(offset, offset + 1)})
    return PartitionOffset(topic.info.partition, offset)


def put_each(write: Callable[[PutEach], list[Outcome]], singles: Sequence[Single]) -> list[Outcome]:
    """Put all; if one is at fault, find it by halves, so that it fails no other."""
    try:
        return write(PutEach(singles))
    except _OWN as error:
        if len(singles) == 1:
            return [error]
    half = len(singles) // 2
    first = put_each(write, singles[:half])
    try:
        return first + put_each(write, singles[half:])
    except Error as error:  # of those: the others are put
        return first + [error] * (len(singles) - half)
