"""The steps of one Kafka transaction, each of them bounded in time and open to Ctrl-C."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from pqlog.errors import StoreError
from pqlog.store.kafka.cluster import SLICE_S
from pqlog.store.kafka.outcome import Outcome, offset_of, uninterrupted
from pqlog.store.kafka.records import Record
from pqlog.store.kafka.state import Place

ABORT_S = 2.0
"""How long an abort may take; after that the successor of the producer, or the cluster, ends the transaction."""
AGAIN_S = 0.5
"""How often it is looked whether anybody still has a producer that was given up."""
LONGEST_MS = 900_000
"""The longest transaction that brokers allow, unless they are told otherwise."""

Headers = Mapping[str, bytes] | Sequence[tuple[str, bytes]] | None
Delivered = Callable[[int], object]


class Sending:
    """What one transaction sends.

    Parameters
    ----------
    producer : Producer
    timeout_ms : int
        How long a transaction of it may take.
    check : callable
        Raises if the log was closed.
    """

    def __init__(self, producer: Producer, timeout_ms: int, check: Callable[[], None]) -> None:
        self._producer, self._timeout_ms, self._check = producer, timeout_ms, check
        self._began = 0.0
        self.has_begun = False
        self._waiting = deque[tuple[Outcome, Delivered]]()
        self.topics = set[str]()
        """Where it sends to."""

    @property
    def took_s(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self._began

    @property
    def is_late(self) -> bool:
        """Whether the transaction took so long that the cluster is about to end it."""
        return self.has_begun and self.took_s > 0.7 * self._timeout_ms / 1000

    @property
    def longer_ms(self) -> int:
        """How long it may take the next time."""
        return min(LONGEST_MS, 6 * self._timeout_ms)

    def send(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | str | None = None,
        headers: Headers = None,
        delivered: Delivered | None = None,
    ) -> None:
        """Send a record; `delivered` is called with its offset, by `flush` at the latest."""
        if not self.has_begun:
            self._producer.begin_transaction()
            self._began, self.has_begun = time.monotonic(), True
        self.topics.add(topic)
        report = None  # the commit tells of others that failed
        if delivered is not None:
            outcome = Outcome()
            report = outcome.setdefault
            self._waiting.append((outcome, delivered))
        while True:
            try:
                self._producer.produce(topic, value, key, partition, report, headers=headers)  # type: ignore[arg-type]
                break
            except BufferError:
                self._served(self._producer.poll, SLICE_S / 2)

    def send_many(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Send records behind others, without being told their offsets."""
        produce = self._producer.produce
        for value, key, headers, _ in records:
            try:
                produce(topic, value, key, partition, headers=headers)  # type: ignore[arg-type]
            except BufferError:
                self.send(topic, partition, value, key, headers)
        self._served(self._producer.poll, 0)

    def state(self, place: Place, key: bytes, value: Any) -> None:
        """Send a value of the state; None removes it."""
        self.send(place.topic, place.partition, None if value is None else msgspec.json.encode(value), key)

    def flush(self) -> None:
        """Wait until everything is written, though not committed."""
        while self._served(self._producer.flush, SLICE_S / 2):
            pass
        if self._waiting:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "it was not said where a message went"))

    def _served(self, call: Callable[[float], int], timeout_s: float) -> int:
        """Let librdkafka work; raises what went wrong."""
        left = uninterrupted(call, timeout_s)
        if self.is_late:
            if self._timeout_ms >= LONGEST_MS:
                raise StoreError("a put took longer than a transaction may on the cluster: put less at a time")
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the transaction takes too long"))
        while self._waiting and self._waiting[0][0]:
            outcome, delivered = self._waiting.popleft()
            delivered(offset_of(outcome))
        self._check()
        return left


def initialised(producer: Producer, until: float, check: Callable[[], None]) -> None:
    """Take the transactional id of a producer: what a predecessor left open is ended."""
    _waited(producer.init_transactions, until, check)


def commit(producer: Producer, timeout_s: float, check: Callable[[], None]) -> float:
    """Commit; how many seconds it took."""
    began = time.monotonic()
    _waited(producer.commit_transaction, began + timeout_s, check)
    return time.monotonic() - began


def abort(producer: Producer) -> None:
    """Abort, if that can be done soon."""
    with contextlib.suppress(KafkaException):
        _waited(producer.abort_transaction, time.monotonic() + ABORT_S, lambda: None)


def _waited(call: Callable[[float], None], until: float, check: Callable[[], None]) -> None:
    """Make a call that may be continued after a while, until it is over."""
    while True:
        try:
            call(SLICE_S)
            return
        except KafkaException as error:
            failed = error.args[0]
            if failed.fatal() or failed.txn_requires_abort() or not failed.retriable() or time.monotonic() > until:
                raise
        check()


class _Disposal:
    """Producers that are given up, which takes a while if a broker is down: a thread does it.

    So it drops the last reference, too: what frees a producer looks for Ctrl-C, which is lost there.
    """

    def __init__(self) -> None:
        self._waiting = queue.SimpleQueue[Producer]()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, producer: Producer) -> None:
        self._waiting.put(producer)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="pqlog-disposal", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread can be started: the next one may
                    self._thread.start()

    def _run(self) -> None:
        kept = list[Producer]()
        while True:
            with contextlib.suppress(queue.Empty):
                kept.append(self._waiting.get(timeout=AGAIN_S if kept else None))
                with contextlib.suppress(KafkaException):
                    kept[-1].purge(in_queue=True, in_flight=True, blocking=False)
            kept = [one for one in kept if sys.getrefcount(one) > _ALONE]


_ALONE = max([sys.getrefcount(one) for one in [object()]])
"""How many references there are to what only a list has, and who looks at it."""


_DISPOSAL = _Disposal()


def dispose(producer: Producer) -> None:
    """Give up a producer, without waiting for it."""
    _DISPOSAL.add(producer)
