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
from collections.abc import Callable, Sequence
from typing import Any

from pqlog import errors
from pqlog.store.memory.topic import MemoryTopic
from pqlog.store.memory.transaction import Transactions, changing, reading
from pqlog.store.values import Capabilities, Cursor, Output, Put, TopicInfo


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
        self._topics: dict[int, MemoryTopic] = {}
        self._cursors: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def _parts(self) -> list[Any]:
        return [self, *self._topics.values(), *(part for topic in self._topics.values() for part in topic.parts())]

    def check(self) -> None:
        """Raise if nothing can be asked of it any more."""
        if self._is_closed:
            raise errors.ClosedError(f"{self.name} was closed")

    def next_number(self) -> int:
        """A number that was never given before."""
        return next(self._numbers)

    @reading
    def topics(self) -> list[TopicInfo]:
        return [topic.info for topic in self._topics.values()]

    @reading
    def find_topic(self, name: str) -> MemoryTopic | None:
        return next((topic for topic in self._topics.values() if topic.info.name == name), None)

    @changing
    def topic(self, name: str, codec: str) -> MemoryTopic:
        found = self.find_topic(name)
        if found is None:
            found = MemoryTopic(self, TopicInfo(self.next_number(), name, codec))
            self._topics[found.info.id] = found
        return found

    def has(self, topic: MemoryTopic) -> bool:
        """Whether a topic was not deleted."""
        return topic.info.id in self._topics

    def drop(self, topic: MemoryTopic) -> None:
        """Forget a topic."""
        del self._topics[topic.info.id]

    @reading
    def cursor(self, name: str) -> str | None:
        return self._cursors.get(name)

    def set_cursor(self, cursor: Cursor) -> None:
        """Note how far a source has been read."""
        self._cursors[cursor.name] = cursor.value

    @changing
    def append_all(self, outputs: Sequence[Output]) -> list[Put]:
        """Put into several topics."""
        try:
            return [one.topic.add(one.chunks, one.ids) for one in outputs]  # type: ignore[attr-defined]
        except errors.Error:
            raise
        except Exception as error:
            raise errors.StoreError(f"what was to be put cannot be read: {error}") from error

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
