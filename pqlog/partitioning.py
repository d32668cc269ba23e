"""Partitioning: in which partition of its topic a message is put.

A key names its partition by the rule of Kafka's Java client and of librdkafka's ``murmur2_random``: the murmur2 hash of
its UTF-8 bytes, without its sign, modulo the number of partitions. So both sides of a bridge agree.

`pqlog.frames.partitioning` does the same for columns.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Mapping, Sequence

RUN = 100
"""How many messages without a key go into a partition, at least, before others go into the next one."""

SEED, FACTOR, POSITIVE = 0x9747B28C, 0x5BD1E995, 0x7FFF_FFFF
"""The constants of murmur2, and the mask that removes the sign, as Kafka has them."""
_BITS = 0xFFFF_FFFF
_CACHED_KEYS, _CACHED_LENGTH = 16_384, 64
"""How many keys are remembered with their hash, and how long they are at most."""


def partition_of(key: str, partitions: int) -> int:
    """The partition of a topic that a key's messages are put into."""
    digest = _cached(key) if len(key) <= _CACHED_LENGTH else murmur2(key.encode())
    return (digest & POSITIVE) % partitions


def murmur2(data: bytes) -> int:
    """The murmur2 hash, of 32 bits, without a sign."""
    words = len(data) // 4
    digest = SEED ^ len(data)
    for word in struct.unpack_from(f"<{words}I", data):
        word = word * FACTOR & _BITS
        digest = (digest * FACTOR ^ (word ^ word >> 24) * FACTOR) & _BITS
    if rest := data[4 * words :]:
        digest = (digest ^ int.from_bytes(rest, "little")) * FACTOR & _BITS
    digest = (digest ^ digest >> 13) * FACTOR & _BITS
    return digest ^ digest >> 15


@functools.lru_cache(_CACHED_KEYS)
def _cached(key: str) -> int:
    return murmur2(key.encode())


def any_of(partitions: int) -> int:
    """The number of any partition, by chance; the module `random` would take a tenth of the time of importing pqlog."""
    return int.from_bytes(os.urandom(4), "little") % partitions


class Partitioner:
    """Chooses the partition of each message that is put into a topic: by its key, or else in turn.

    Parameters
    ----------
    partitions : int
    max_bytes : int or None
        The largest row that the topic takes, for who makes rows of messages; as in `pqlog.store.values.TopicInfo`.
    """

    def __init__(self, partitions: int, max_bytes: int | None = None) -> None:
        self.partitions, self.max_bytes = partitions, max_bytes
        self._next = any_of(partitions)  # processes do not all begin with the same one
        self._in_run = 0

    def choose(self, key: str | None) -> int:
        """The partition of one message."""
        return self.next_for(1) if key is None or self.partitions == 1 else partition_of(key, self.partitions)

    def next_for(self, messages: int) -> int:
        """The partition of some messages without a key; between threads, a run may become longer or shorter."""
        chosen = self._next
        self._in_run += messages
        if self._in_run >= RUN:
            self._in_run, self._next = 0, (chosen + 1) % self.partitions
        return chosen

    def split(self, keys: Sequence[str | None]) -> Mapping[int, Sequence[int]]:
        """Which of some messages, given by their keys, go where: for each partition, in order, their indices."""
        # Not from the cache: they may be many, each here once.
        hashes = {key: murmur2(key.encode()) for key in set(keys) if key is not None}
        chosen: dict[str | None, int] = {key: (digest & POSITIVE) % self.partitions for key, digest in hashes.items()}
        if missing := keys.count(None):
            chosen[None] = self.next_for(missing)
        numbers = sorted(set(chosen.values()))
        if len(numbers) == 1:
            return {numbers[0]: range(len(keys))}
        indices: dict[int, list[int]] = {number: [] for number in numbers}
        for index, key in enumerate(keys):
            indices[chosen[key]].append(index)
        return indices
