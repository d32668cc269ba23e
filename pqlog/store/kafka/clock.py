"""The cluster's clock, by which leases end: the clocks of the hosts that share a log are never compared."""

from __future__ import annotations

import threading
import time
from typing import Any

from confluent_kafka import KafkaException, Producer

from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.faults import patient
from pqlog.store.kafka.state import key_of
from pqlog.store.kafka.transactions import dispose

REFRESH_S = 30.0
"""How long a reading of the cluster's clock is used: this process's own clock runs on from it."""
KEY = key_of("clock", "now")
"""The key of the records that are written to be given a time. They have no value, so compaction removes them."""


class ClusterClock:
    """What time the cluster has: the time that it gave to a record, and what has passed since.

    Parameters
    ----------
    cluster : Cluster
    topic : str
        A compacted topic whose records have the time of their broker (LogAppendTime).
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster, self._topic = cluster, topic
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._read: tuple[int, int] | None = None
        """The cluster's time at the latest reading, and this process's just after it."""

    def now(self) -> int:
        """Microseconds since 1970, UTC; a little early rather than late, so that no lease is taken too soon."""
        with self._lock:
            if self._read is None or _passed() - self._read[1] > REFRESH_S * 1e6:
                stamp = patient(self._stamp, "asking the cluster for the time", self._cluster.timeout_s)
                self._read = stamp * 1000, _passed()
            then, began = self._read
            return then + _passed() - began

    def _stamp(self, slice_s: float) -> int:
        """The time that the cluster gives to a new record, in milliseconds."""
        self._cluster.check()
        producer = self._producer or self._cluster.producer(enable_idempotence=False, acks="1")  # only its time counts
        self._producer = None  # not to be used again after an error
        told: list[tuple[Any, int]] = []
        try:
            producer.produce(
                self._topic, None, KEY, 0, lambda error, message: told.append((error, message.timestamp()[1]))
            )
            while not told:
                producer.poll(slice_s / 2)
                self._cluster.check()
            error, milliseconds = told[0]
            if error is not None:
                raise KafkaException(error)
        except BaseException:
            dispose(producer)
            raise
        self._producer = producer
        return milliseconds

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            dispose(producer)


def _passed() -> int:
    """Microseconds by a clock that nobody sets, and that runs on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1000
