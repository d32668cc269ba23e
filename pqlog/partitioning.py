"""Partitioning: in which partition of its topic a message is put.

A key names its partition by the rule of Kafka's Java client and of librdkafka's ``murmur2_random``: the murmur2 hash of
its UTF-8 bytes, without its sign, modulo the number of partitions. So both sides of a bridge agree.

`pqlog.frames.partitioning` does the same for columns.
"""

from __future__ import annotations

import functools
import struct

SEED, FACTOR = 0x9747B28C, 0x5BD1E995
"""The constants of murmur2, as Kafka has them."""
_BITS = 0xFFFF_FFFF
_CACHED_KEYS, _CACHED_LENGTH = 16_384, 64
"""How many keys are remembered with their hash, and how long they are at most."""


def partition_of(key: str, partitions: int) -> int:
    """The partition of a topic that a key's messages are put into."""
    digest = _cached(key) if len(key) <= _CACHED_LENGTH else murmur2(key.encode())
    return (digest & 0x7FFF_FFFF) % partitions


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
