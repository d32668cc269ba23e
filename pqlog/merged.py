"""Merged: the partitions of a topic in one order, by time, then partition, then offset."""

from __future__ import annotations

from collections.abc import Sequence

from pqlog.store.api import TopicStore


class MergedPartitions:
    """The partitions of a topic as one source of messages; the protocol is `pqlog.store.api.MessageSource`."""

    def __init__(self, partitions: Sequence[TopicStore]) -> None:
        self.partitions = tuple(partitions)
