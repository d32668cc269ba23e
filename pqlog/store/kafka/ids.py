"""Ids of puts and of messages: where what was put with each went.

They are kept in a lane for each topic, for 30 days, and known as long as a message that was put with them is kept. That
lane's holder has all of them in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pqlog.store.kafka import shapes
from pqlog.store.kafka.lane import Transaction, id_lane
from pqlog.store.values import Chunk, Ids, Kept, Put

if TYPE_CHECKING:
    from pqlog.store.kafka.topic import KafkaTopic

Went = Mapping[int, Put]
"""Where messages went, by the number of the partition."""


def key_of(id: str) -> str:
    """The key of an id in the lane; a lane has other keys, too."""
    return f"{shapes.ID}{id}"


def value_of(went: Went) -> list[list[int]]:
    """What the lane keeps of a put."""
    return [[number, put.first, put.last, put.messages] for number, put in went.items()]


def kept(value: Any, topic: KafkaTopic) -> Went | None:
    """Where the part of a put went that is still kept; None if nothing is."""
    if value is None:
        return None
    begins = topic.begins()
    went = {number: Put(first, last, messages) for number, first, last, messages in value}
    return {number: put for number, put in went.items() if max(put.first, put.last) >= begins[number]} or None


def find(topic: KafkaTopic, id: str) -> Went | None:
    """Where the put with an id went, as everybody sees it."""
    return kept(topic.log.lanes.value(id_lane(topic), key_of(id)), topic)


def find_in(tx: Transaction, topic: KafkaTopic, id: str) -> Went | None:
    """The same, exact."""
    return kept(tx.value(id_lane(topic), key_of(id)), topic)


class NewIds:
    """The ids of messages that one transaction puts into topics."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._new: dict[int, set[str]] = {}
        self._begins: dict[int, Sequence[int]] = {}

    def thinned(
        self, topic: KafkaTopic, ids: Ids, chunks: Iterable[Chunk], call: Kept
    ) -> tuple[Iterable[Chunk], list[str]]:
        """The messages whose ids are new, and those ids, in their order."""
        lane, new = id_lane(topic), self._new.setdefault(topic.topic_id, set())
        if topic.topic_id not in self._begins:
            self._begins[topic.topic_id] = topic.begins()
        begins = self._begins[topic.topic_id]
        order: list[str] = []

        def masks() -> Iterator[bytes | None]:
            for some in ids.lists:
                mask = bytearray(len(some))
                for index, id in enumerate(some):
                    if id not in new and not self._is_kept(self._tx.value(lane, key_of(id)), begins):
                        new.add(id)
                        order.append(id)
                        mask[index] = 1
                yield None if all(mask) else bytes(mask)

        return ids.thinned(chunks, list(masks()), call), order

    @staticmethod
    def _is_kept(value: Any, begins: Sequence[int]) -> bool:
        return value is not None and any(max(first, last) >= begins[number] for number, first, last, _ in value)

    def note(self, topic: KafkaTopic, ids: Sequence[str], offsets: Iterable[int]) -> None:
        """Note where messages went, an id each."""
        lane, number = id_lane(topic), topic.info.partition
        for id, offset in zip(ids, offsets, strict=True):
            self._tx.set(lane, key_of(id), [[number, offset, offset, 1]])
