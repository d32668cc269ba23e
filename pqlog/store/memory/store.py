"""A log in the memory of this process, whose offsets have gaps: the plainest engine, to read first and test against.

Rows are in lists. What the protocols of `pqlog.store.api` leave open, this engine decides at random: how large the
gaps between two rows are, how far beyond the last message a topic ends, and how few rows a read returns. A caller that
assumes more than the protocols promise fails here.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pqlog import errors
from pqlog.store.api import ClientStore, TopicStore
from pqlog.store.memory.client import MemoryClient
from pqlog.store.memory.topic import MemoryTopic, Partitions
from pqlog.store.memory.transaction import Transactions, changing, reading
from pqlog.store.values import (
    Capabilities,
    ClientState,
    Cursor,
    Kept,
    Moved,
    Output,
    PartitionOffset,
    Put,
    Single,
    Span,
    TopicInfo,
)

T = TypeVar("T")


class MemoryStore:
    """A log; the protocol is `pqlog.store.api.Store`.

    Parameters
    ----------
    seed : int
        Seeds the random generator of the gaps.
    """

    readonly = False
    capabilities = Capabilities(durable=False, dense_offsets=False, shared_by_processes=False)

    def __init__(self, seed: int = 0) -> None:
        self.uuid, self.name = str(uuid.uuid4()), ":sparse:"
        self.chance = random.Random(seed)  # noqa: S311 - of gaps, not of secrets
        self.transactions = Transactions(self._parts)
        self._is_closed = False
        self._topics: list[Partitions] = []
        self._cursors: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def _parts(self) -> list[Any]:
        return [self, *self._topics, *(part for topic in self._topics for part in topic.parts())]

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""
        if self._is_closed:
            raise errors.ClosedError(f"{self.name} was closed")

    def next_number(self) -> int:
        """A number that was never given before."""
        return next(self._numbers)

    # topics

    @reading
    def topics(self) -> list[TopicInfo]:
        return [topic.all[0].info for topic in self._topics]

    @reading
    def find_topic(self, name: str) -> tuple[MemoryTopic, ...]:
        return next((topic.all for topic in self._topics if topic.name == name), ())

    @changing
    def topic(self, name: str, codec: str, partitions: int) -> tuple[MemoryTopic, ...]:
        if not self.find_topic(name):
            self._topics.append(Partitions(self, name, codec, partitions))
        return self.find_topic(name)

    def places_keys(self, topic: TopicStore) -> bool:
        """Whether each message lies in the partition that its key names: `pqlog.store.api.PlacesKeys`."""
        return _ours(MemoryTopic, topic).partitions.places_keys

    def has(self, topic: Partitions) -> bool:
        """Whether a topic was not deleted."""
        return topic in self._topics

    def drop(self, topic: Partitions) -> None:
        """Forget a topic."""
        self._topics.remove(topic)

    # what changes several partitions at once: each part of it checks that its topic is there

    @changing
    def append(self, outputs: Sequence[Output], id: str | None = None, cursor: Cursor | None = None) -> dict[int, Put]:
        topic = _ours(MemoryTopic, outputs[0].topic)
        if id is not None and (found := topic.find_id(id)):
            return found
        if cursor is not None:
            cursor.check(self.cursor(cursor.name))
        numbers = [one.topic.info.partition for one in outputs]
        went = dict(zip(numbers, self.put_all(outputs), strict=True))
        if id is not None:
            topic.partitions.ids[id] = went
        if cursor is not None:
            self._cursors[cursor.name] = cursor.value
        return went

    def append_each(self, singles: Sequence[Single]) -> list[PartitionOffset | errors.Error]:
        self.check()
        return [self._append_single(single) for single in singles]

    def _append_single(self, single: Single) -> PartitionOffset | errors.Error:
        try:
            ((partition, put), *_) = sorted(self.append([single.output], single.id).items())
        except errors.Error as error:
            return error
        return PartitionOffset(partition, put.first)

    @changing
    def put_all(self, outputs: Sequence[Output]) -> list[Put]:
        """Put into partitions of several topics; what goes into one topic has one time."""
        topics = [_ours(MemoryTopic, one.topic) for one in outputs]
        times = {topic.partitions: topic.partitions.next_time() for topic in topics}
        calls = defaultdict[int, Kept](Kept)
        for topic, one in zip(topics, outputs, strict=True):  # not taken back: then all is read, and nothing lost
            topic.partitions.places_keys = topic.partitions.places_keys and one.is_placed
        try:
            return [
                topic.add(one.chunks, one.ids, times[topic.partitions], calls[id(one.ids and one.ids.call)])
                for topic, one in zip(topics, outputs, strict=True)
            ]
        except errors.Error:
            raise
        except Exception as error:
            raise errors.StoreError(f"what was to be put cannot be read: {error}") from error

    @reading
    def spans(self, topics: Sequence[TopicStore]) -> list[Span]:
        return [topic.span() for topic in topics]

    @changing
    def trim(self, marks: Sequence[tuple[TopicStore, int]], force: bool) -> list[int]:
        losing = Counter[str]()
        for topic, before in marks:
            losing.update(_ours(MemoryTopic, topic).losing(before))
        if +losing and not force:
            raise errors.TrimRefusedError(sorted((+losing).items()), marks[0][0].info.name)
        return [_ours(MemoryTopic, topic).drop(before) for topic, before in marks]

    @reading
    def states(self, clients: Sequence[ClientStore]) -> list[ClientState | None]:
        return [client.state() for client in clients]

    @changing
    def join(self, clients: Sequence[ClientStore]) -> None:
        for client in clients:
            client.join()

    @reading
    def find_work(self, clients: Sequence[ClientStore], worker: str, ordered: bool = False) -> int | None:
        found = (index for index, client in enumerate(clients) if client.has_work(worker, ordered))
        return next(found, None)

    @changing
    def seek(self, moves: Sequence[tuple[ClientStore, int]]) -> list[Moved]:
        return [_ours(MemoryClient, client).seek(to) for client, to in moves]

    @changing
    def delete_clients(self, clients: Sequence[ClientStore]) -> bool:
        were_known = [_ours(MemoryClient, client).delete() for client in clients]
        return any(were_known)

    @reading
    def cursor(self, name: str) -> str | None:
        return self._cursors.get(name)

    # waiting

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        with self.transactions.locked():
            self.check()
            while not ready():
                left = tick if until is None else min(tick, until - time.monotonic())
                if left <= 0:
                    return False
                self.transactions.changed.wait(left)
                self.check()
            return True

    def wake(self) -> None:
        with self.transactions.locked():
            self.transactions.changed.notify_all()

    def close(self) -> None:
        with contextlib.suppress(errors.ForkError), self.transactions.locked():
            self._is_closed = True
            self.transactions.changed.notify_all()


def _ours(kind: type[T], one: object) -> T:
    """A topic or client as what it is here: it is asked for more than the protocols have."""
    assert isinstance(one, kind)
    return one
