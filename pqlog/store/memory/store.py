"""A log in this process's memory, whose offsets have gaps: the plainest engine, to be read first and to test against.

Rows lie in lists. What the protocols of `pqlog.store.api` leave to an engine, this one does at random: how large the
gaps between two rows are, how far beyond the last message a topic ends, and how few rows a read returns. Whoever
assumes more than the protocols promise fails here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from pqlog import errors
from pqlog.store.memory.topic import MemoryTopic
from pqlog.store.values import Capabilities, Cursor, Output, Put, TopicInfo


class MemoryStore:
    """A log; the protocol is `pqlog.store.api.Store`.

    Parameters
    ----------
    seed : int
        Of the gaps.
    """

    readonly = False
    capabilities = Capabilities(durable=False, dense_offsets=False, shared_by_processes=False, is_file=False)

    def __init__(self, seed: int = 0) -> None:
        self.uuid, self.name = str(uuid.uuid4()), ":sparse:"
        self.chance = random.Random(seed)  # noqa: S311 - of gaps, not of secrets
        self._pid = os.getpid()
        self._is_closed = False
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._wakes = 0
        self._topics: dict[str, MemoryTopic] = {}
        self._cursors: dict[str, str] = {}
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads or changes it meanwhile; raises if nothing can be asked of it any more."""
        if self._pid != os.getpid():  # the lock may be held for ever by a thread that was not forked
            raise errors.ForkError(f"{self.name} belongs to the process that opened it: open another in the child")
        with self._lock:
            if self._is_closed:
                raise errors.ClosedError(f"{self.name} was closed")
            yield

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """The same; and afterwards, whoever waits looks again."""
        with self.locked():
            yield
            self._changed.notify_all()

    def next_number(self) -> int:
        """A number that was never given before."""
        return next(self._numbers)

    def topics(self) -> list[TopicInfo]:
        with self.locked():
            return [topic.info for topic in self._topics.values()]

    def find_topic(self, name: str) -> MemoryTopic | None:
        with self.locked():
            return self._topics.get(name)

    def topic(self, name: str, codec: str) -> MemoryTopic:
        with self.changing():
            if name not in self._topics:
                self._topics[name] = MemoryTopic(self, TopicInfo(self.next_number(), name, codec))
            return self._topics[name]

    def file_under(self, topic: MemoryTopic, name: str | None) -> None:
        """Let a topic have another name, or none any more."""
        kept = {one: found for one, found in self._topics.items() if found is not topic}
        self._topics = kept if name is None else kept | {name: topic}

    def cursor(self, name: str) -> str | None:
        with self.locked():
            return self._cursors.get(name)

    def set_cursor(self, cursor: Cursor) -> None:
        """Note how far a source has been read."""
        self._cursors[cursor.name] = cursor.value

    def append_all(self, outputs: Sequence[Output]) -> list[Put]:
        """Put into several topics, all or nothing."""
        topics: list[MemoryTopic] = [output.topic for output in outputs]  # type: ignore[misc]
        marks = [(topic, topic.mark()) for topic in topics]
        try:
            return [topic.add(one.chunks, one.ids) for topic, one in zip(topics, outputs, strict=True)]
        except BaseException as error:
            for topic, mark in marks:
                topic.back_to(mark)
            if isinstance(error, errors.Error) or not isinstance(error, Exception):
                raise
            raise errors.StoreError(f"what was to be put cannot be read: {error}") from error

    def wait(self, ready: Callable[[], bool], timeout: float | None, tick: float) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        with self.locked():
            wakes = self._wakes
            while not ready() and wakes == self._wakes:
                left = tick if until is None else min(tick, until - time.monotonic())
                if left <= 0:
                    return False
                self._changed.wait(left)
                if self._is_closed:
                    raise errors.ClosedError(f"{self.name} was closed")
            return True

    def wake(self) -> None:
        with self.changing():
            self._wakes += 1

    def close(self) -> None:
        if self._pid == os.getpid():
            with self._lock:
                self._is_closed = True
                self._changed.notify_all()
