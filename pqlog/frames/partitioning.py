"""The partitions of many keys at once: `pqlog.partitioning` for columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pqlog import partitioning
from pqlog.frames.arrays import single_array
from pqlog.partitioning import FACTOR, POSITIVE, SEED, Partitioner

_SAMPLE = 10_000
"""How many keys are sampled: if they repeat, each distinct one is hashed once."""
_FEW = 64
"""How many of the longest keys are hashed one by one."""


def partitions_of(keys: pa.ChunkedArray, partitioner: Partitioner) -> Any:
    """The partition of each message, by its key; an array of NumPy."""
    texts = single_array(keys)
    sample = texts[:_SAMPLE]
    if len(sample.unique()) > len(sample) / 2:
        chosen = _partitions(texts, partitioner)
    else:
        encoded = texts.dictionary_encode()
        of_each = np.append(_partitions(encoded.dictionary, partitioner), np.uint8(0))  # the last is for no key
        chosen = of_each[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()]
    if texts.null_count:
        chosen[texts.is_null().to_numpy(zero_copy_only=False)] = partitioner.next_for(texts.null_count)
    return chosen


def _partitions(texts: pa.Array, partitioner: Partitioner) -> Any:
    return ((murmur2(texts) & np.uint32(POSITIVE)) % np.uint32(partitioner.partitions)).astype(np.uint8)


def runs(messages: int, length: int, partitioner: Partitioner) -> Any:
    """The partition of each of some messages without a key, which go in runs of that length."""
    lengths = [min(length, messages - start) for start in range(0, messages, length)]
    return np.repeat(np.array([partitioner.next_for(one) for one in lengths], np.uint8), lengths)


def rows_by_partition(partitions: Any, most: int) -> Iterator[tuple[int, range | Any]]:
    """The numbers of the rows of each partition, in their order, at most `most` at a time.

    They are a range where none lie in between.
    """
    order = np.argsort(partitions, kind="stable")
    start = 0
    for partition, count in enumerate(np.bincount(partitions).tolist()):
        for at in range(start, start + count, most):
            rows = order[at : min(at + most, start + count)]
            through = range(int(rows[0]), int(rows[-1]) + 1)
            yield partition, through if len(through) == len(rows) else rows
        start += count


def murmur2(texts: pa.Array) -> Any:
    """The hash of each text, as `pqlog.partitioning.murmur2`; there are no nulls among them."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    starts, sizes = offsets[:-1].astype(np.int64), np.diff(offsets)
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    digests = np.empty(len(texts), np.uint32)
    few_bits = sizes.astype(np.uint16) if sizes.max(initial=0) < 2**16 else sizes  # which are sorted faster
    shortest_first = np.argsort(few_bits, kind="stable")
    many, few = shortest_first[:-_FEW], shortest_first[-_FEW:]
    if len(many):
        digests[many] = _hashes(starts[many], sizes[many], np.append(data, np.zeros(4, np.uint8)))
    for index in few.tolist():
        digests[index] = partitioning.murmur2(data[starts[index] : offsets[index + 1]].tobytes())
    return digests


def _hashes(starts: Any, sizes: Any, data: Any) -> Any:
    """The hashes of texts in UTF-8, the shortest first: word by word."""
    factor, words = np.uint32(FACTOR), np.ndarray(len(data) - 3, "<u4", data, strides=(1,))
    digests = np.uint32(SEED) ^ sizes.astype(np.uint32)
    for end in range(4, int(sizes[-1]) + 1, 4):
        some = slice(int(np.searchsorted(sizes, end)), None)
        word = words[starts[some] + (end - 4)] * factor
        digests[some] = digests[some] * factor ^ (word ^ word >> np.uint32(24)) * factor
    rests = sizes % 4
    last = words[starts + (sizes - rests)] & np.array([0, 0xFF, 0xFFFF, 0xFF_FFFF], np.uint32)[rests]
    digests = np.where(rests > 0, (digests ^ last) * factor, digests)
    digests = (digests ^ digests >> np.uint32(13)) * factor
    return digests ^ digests >> np.uint32(15)
