"""Opening the log that a test's address stands for."""

from __future__ import annotations

import pqlog
from pqlog.log import Log
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.store import KafkaStore
from pqlog.stream import TopicStream

TIMEOUT_S = 120.0
"""Longer than any fault of a test takes."""


def open_log(address: str) -> Log:
    """A log on a cluster, or in a file."""
    if not address.startswith("kafka://"):
        return pqlog.open(address)
    store = KafkaStore(Address.parse(address), timeout_s=TIMEOUT_S)
    return Log(address, TopicStream.open(store, "main", None, None, partitions=None))
