"""How a process takes lanes, and finds out whether it still holds them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from functools import partial

from confluent_kafka import KafkaException, Producer

from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.faults import FENCED, PASSING, code
from pqlog.store.kafka.fencing import Fenced, problem
from pqlog.store.kafka.lane import MARK, Lane
from pqlog.store.kafka.state import State, Tail
from pqlog.store.kafka.together import all_at_once
from pqlog.store.kafka.transactions import dispose, initialised

MARKS_KEPT_MS = 3_600_000
"""A mark of another holder is dropped after twice that, when the lane is written."""
MANY = 10_000
"""How many values of a lane may be known from this process's commits, before they are looked up in the tail."""


class Holding:
    """What takes the lanes of a log for this process.

    Parameters
    ----------
    cluster : Cluster
    state : State
    log : str
        The name of the log.
    """

    def __init__(self, cluster: Cluster, state: State, log: str) -> None:
        self.cluster, self.state, self._log = cluster, state, log
        self.holder = secrets.token_hex(6)
        """What distinguishes this holder from all others."""
        self.mark = MARK + self.holder
        """The key of its marks."""

    def refresh(self, tail: Tail, until: float | None = None) -> None:
        """Read a tail to its end."""
        tail.refresh(None if until is None else max(0.0, until - time.monotonic()))

    def take(self, lanes: Sequence[Lane], take: bool, until: float) -> list[Lane]:
        """Let this process hold lanes, and know all of them exactly.

        Those are returned that it held before: until a commit nobody knows whether another process took one since.
        """
        for lane in lanes:
            if lane.is_in_doubt:
                lane.lose()
            elif len(lane.own) > MANY and self.is_ours(lane, until):
                lane.own = {}
        held = [lane for lane in lanes if lane.producer is not None]
        missing = [lane for lane in lanes if lane.producer is None]
        if not take and not all(lane.foreign is not None and self.is_ours(lane, until) for lane in missing):
            raise Fenced(f"{lanes[0].name} is not held")
        try:
            producers = all_at_once([partial(self._taken, lane, until) for lane in missing], dispose)
        except KafkaException as error:
            raise problem(error, f"taking {lanes[0].name}") from error
        for lane, producer in zip(missing, producers, strict=True):
            was, now = lane.foreign, self._foreign(lane)
            lane.own = {}
            lane.producer, lane.foreign = producer, now
            newest = max((entry.time for entry in lane.tail.lane(lane.name).values()), default=0)
            lane.old_marks = [key for key in now if _is_old(lane, key, newest)]
            if not take and now != was:
                raise Fenced(f"{lane.name}: another process changed it")
        for lane in lanes:
            lane.used = time.monotonic()
        return held

    def _taken(self, lane: Lane, until: float) -> Producer:
        """A new producer that holds a lane, whose state was read after that."""
        producer = self._producer(lane)
        try:
            initialised(producer, until, self.cluster.check)
            self.refresh(lane.tail, until)
        except BaseException:
            dispose(producer)
            raise
        return producer

    def end(self, lane: Lane, until: float) -> None:
        """End what a producer of a lane left open, that was given up."""
        while True:
            producer = self._producer(lane)
            try:
                initialised(producer, until, self.cluster.check)
                return
            except KafkaException as error:
                if time.monotonic() > until or code(error) not in PASSING | FENCED:
                    raise
                time.sleep(0.05)
            finally:
                dispose(producer)

    def _producer(self, lane: Lane) -> Producer:
        ms = lane.timeout_ms
        return self.cluster.producer(f"{self._log}/{lane.name}", transaction_timeout_ms=ms, delivery_timeout_ms=ms)

    def _foreign(self, lane: Lane) -> dict[str, bytes]:
        """The marks that other holders have left, as far as the tail was read."""
        found = lane.tail.lane(lane.name).items()
        return {key: entry.value for key, entry in found if key.startswith(MARK) and key != self.mark}

    def is_ours(self, lane: Lane, until: float) -> bool:
        """Whether nobody has changed a lane since this process took it."""
        self.refresh(lane.tail, until)
        return self._foreign(lane) == lane.foreign

    def lose_lost(self, lanes: Iterable[Lane], until: float) -> None:
        """Find out which lanes are not held any more: who took one may have taken others, too."""
        for lane in lanes:
            if lane.producer is not None and not self.is_ours(lane, until):
                lane.lose()


def _is_old(lane: Lane, key: str, newest: int) -> bool:
    entry = lane.tail.entry(lane.name, key)
    return entry is not None and entry.time < newest - 2 * MARKS_KEPT_MS  # both by the clock of the cluster
