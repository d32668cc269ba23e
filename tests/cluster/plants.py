"""Faults that are planted into the engine: tests must notice each of them."""

from __future__ import annotations

import os
import signal
from typing import Any

from pqlog.store.kafka.client import KafkaClient
from pqlog.store.kafka.cluster import Cluster


def position_apart() -> None:
    """A batch is acknowledged in a transaction of its own; the process dies before that of what was put through it."""
    whole: Any = KafkaClient._advance

    def advance(self: KafkaClient, taking: Any, done: Any) -> Any:
        found = whole(self, taking, done and done._replace(outputs=()))
        if done is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    KafkaClient._advance = advance  # type: ignore[method-assign]


def lanes_not_fenced() -> None:
    """Each process has transactional ids of its own: nobody is fenced."""
    whole: Any = Cluster.producer

    def producer(self: Cluster, transactional_id: str | None = None, **more: Any) -> Any:
        return whole(self, transactional_id and f"{transactional_id}/{os.getpid()}", **more)

    Cluster.producer = producer  # type: ignore[method-assign]


def acknowledged_early() -> None:
    """A single message counts when its leader has it."""
    whole: Any = Cluster.producer

    def producer(self: Cluster, transactional_id: str | None = None, **more: Any) -> Any:
        early = {} if transactional_id else {"acks": "1", "enable_idempotence": False}
        return whole(self, transactional_id, **more, **early)

    Cluster.producer = producer  # type: ignore[method-assign]


def high_watermark() -> None:
    """Reading goes up to the high watermark, and so into transactions that are open or were aborted."""
    whole: Any = Cluster.consumer

    def consumer(self: Cluster, **more: Any) -> Any:
        return whole(self, **{**more, "isolation_level": "read_uncommitted"})

    Cluster.consumer = consumer  # type: ignore[method-assign]
