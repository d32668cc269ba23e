"""Lanes: parts of a log's state that one process holds at a time, and changes in Kafka transactions.

A lane is a transactional id and the keys written under it. Who initialised that id last holds the lane; the holder
before is fenced: whatever it tries to commit is refused. So what a holder read when it took the lane, with what it
committed since, is exact, and a refused commit is a failed compare-and-set.

Everything that one transaction changes is written by the producer of its first lane. For each other lane, its own
producer commits a small transaction of its own first, after all records of the large one are written: if that is not
refused, the lane is held, and whoever takes it from now on reads the state up to the end, where the large transaction
is open, and so waits for its outcome.

A producer is never used again after an error, nor after a commit that took long: librdkafka may have a request of it
under way. The successor's `init_transactions` ends what was open. Whether it was committed, a mark says: a random token
that each transaction writes under its first lane.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from pqlog.errors import ClusterError, Error
from pqlog.store.kafka.attempt import Attempt
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.damaged import sound
from pqlog.store.kafka.fencing import Again, Fenced
from pqlog.store.kafka.holding import Holding
from pqlog.store.kafka.lane import Lane, PutsAll, Transaction, is_shown, shown
from pqlog.store.kafka.locking import Busy, is_held_elsewhere, while_holding
from pqlog.store.kafka.state import PUT, State, Tail, key_of
from pqlog.store.kafka.transactions import Sending, abort, commit

T = TypeVar("T")

FORGOTTEN_MS = 7_200_000
"""The age at which lanes that nobody writes any more are removed: marks are not asked for that long."""
MOST_HELD = 8
"""How many unused lanes keep their producers: each of them takes ten threads."""
IDLE_S = 600.0
"""After that, a lane that is not used gives its producer up."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 5.0
"""How long a process waits after it lost a lane to another, or after a failure."""
CLOSING_S = 1.0
"""How long closing may take for what other processes would do as well."""


class Lanes:
    """The lanes of a log.

    Parameters
    ----------
    cluster : Cluster
    state : State
    log : str
        The name of the log.
    put_all : callable
        What puts outputs in a transaction.
    """

    def __init__(self, cluster: Cluster, state: State, log: str, put_all: PutsAll) -> None:
        self._cluster, self._state, self._put_all = cluster, state, put_all
        self._holding = Holding(cluster, state, log)
        self.holder = self._holding.holder
        """What distinguishes this holder from all others."""
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()
        self.committed: Callable[[], object] = lambda: None
        """Called after each commit."""

    # looking

    def look(self, name: str) -> dict[str, Any]:
        """The values of a lane, without taking it: all that was committed before the call."""
        return shown(self._refreshed(name), name)

    def look_at(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The values of several lanes, of one moment if they lie together."""
        tails = dict.fromkeys(self._state.tail(name) for name in names)
        for tail in tails:
            self._holding.refresh(tail)
        return [shown(self._state.tail(name), name) for name in names]

    def recall(self, name: str) -> dict[str, Any]:
        """The values of a lane that this process holds, by its memory: a change says whether it lost the lane since."""
        lane = self._lane(name)
        if (producer := lane.producer) is not None and not lane.is_in_doubt:
            found = shown(lane.tail, name, lane.entries())
            if lane.producer is producer and not lane.is_in_doubt:
                return found
        return self.look(name)

    def known(self, name: str) -> dict[str, Any]:
        """The values of a lane as the state was read last."""
        return shown(self._state.tail(name), name)

    def value(self, name: str, key: str) -> Any:
        """One value of a lane; None if there is none."""
        tail = self._refreshed(name)
        entry = tail.entry(name, key)
        return None if entry is None else sound(tail.read(name, key, entry))

    def names(self, prefix: str) -> list[str]:
        """The lanes with values whose names begin with a prefix, which has two parts at least: ``client/7/``."""
        tail = self._refreshed(prefix)
        return [name for name in tail.names(prefix) if any(map(is_shown, tail.lane(name)))]

    def free(self, names: Sequence[str]) -> str:
        """The first of some lanes that no thread is using; the last if all are used."""
        return next((name for name in names if not is_held_elsewhere(self._lane(name).lock)), names[-1])

    def is_used(self, name: str) -> bool:
        """Whether another thread is changing a lane, which may take long."""
        lane = self._lanes.get(name)
        return lane is not None and is_held_elsewhere(lane.lock)

    def is_held(self, name: str) -> bool:
        """Whether this process holds a lane, as far as it knows."""
        lane = self._lanes.get(name)
        return lane is not None and lane.foreign is not None

    def _refreshed(self, name: str) -> Tail:
        tail = self._state.tail(name)
        self._holding.refresh(tail)
        return tail

    # changing

    def change(
        self, names: Sequence[str], work: Callable[[Transaction], T], take: bool = True, retake: bool = True
    ) -> T:
        """Change lanes in one transaction.

        Parameters
        ----------
        names : sequence of str
            The lanes that are needed. The first one's producer writes everything.
        work : callable
            What reads and changes them. It may be called several times. What it raises ends the transaction: nothing is
            changed.
        take : bool
            Whether to take lanes that are not held; otherwise they raise `Fenced`.
        retake : bool
            Whether to take them again from a process that took them meanwhile.

        Raises
        ------
        Fenced
            A lane is not held, and was not to be taken, or another process took it meanwhile.
        UncertainError
            The cluster did not say whether the transaction was committed.
        """
        lanes = {name: self._lane(name) for name in dict.fromkeys(names)}
        until = time.monotonic() + self._cluster.timeout_s
        locks = [lanes[name].lock for name in sorted(lanes)]  # the order that every thread keeps to
        try:
            result = while_holding(locks, until, lambda: self._change(lanes, work, take, retake, until))
        except Busy:
            raise ClusterError(
                f"{next(iter(lanes))}: other threads of this process used it, or waited for the cluster, all the time; "
                f"repeat the call"
            ) from None
        self._give_up_idle()
        self.committed()
        return result

    def _change(
        self, lanes: dict[str, Lane], work: Callable[[Transaction], T], take: bool, retake: bool, until: float
    ) -> T:
        for attempt in itertools.count():
            began = time.monotonic()
            try:
                held = self._holding.take(list(lanes.values()), take, until)
                return Attempt(self._holding, lanes, self._put_all).run(work, held, until)
            except Again as again:
                if again.lost:
                    self._holding.lose_lost(lanes.values(), until)
                if again.lost and not (take and retake):
                    raise Fenced(f"{next(iter(lanes))}: another process took over; nothing was changed") from again
                if again.late:  # the cluster can take it in a longer transaction
                    until = time.monotonic() + self._cluster.timeout_s
                if time.monotonic() > until:
                    raise again.error from again
                self._pause(attempt, time.monotonic() - began if again.lost else 0.0)
        raise AssertionError("it goes on until it is done")

    def _pause(self, attempt: int, took_s: float) -> None:
        """Wait for a random time, so that another process can finish; the locks of the lanes stay held.

        So no other thread of this process takes the lanes meanwhile: two processes would never come to an end.
        """
        longest = min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, took_s) * 2 ** min(attempt, 10))
        until = time.monotonic() + longest * secrets.randbelow(1000) / 1000
        while (left := until - time.monotonic()) > 0:
            self._cluster.check()
            time.sleep(min(left, 0.1))

    def forget(self, tx: Transaction, names: Sequence[str]) -> None:
        """Remove all that is in lanes which nobody uses any more."""
        for name in names:
            for key in self._state.tail(name).lane(name):
                tx.sending.state(self._state.place(name), key_of(name, key), None)

    def forget_old(self, tx: Transaction, prefix: str) -> None:
        """Remove what is in lanes in which nothing has been written for long: nobody may need it."""
        tail = self._state.tail(prefix)
        newest = {name: max(entry.time for entry in tail.lane(name).values()) for name in tail.names(prefix)}
        old = max(newest.values(), default=0) - FORGOTTEN_MS
        self.forget(tx, [name for name, time in newest.items() if time < old])

    def _lane(self, name: str) -> Lane:
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = Lane(name, self._state.tail(name))
            return self._lanes[name]

    # keeping few

    def _give_up_idle(self) -> None:
        """Give up the producers of lanes that were not used for long, or if there are too many."""
        if len(self._lanes) <= 1:
            return
        with self._lock:
            lanes = sorted(
                (lane for lane in self._lanes.values() if lane.producer is not None), key=lambda one: one.used
            )
        now = time.monotonic()
        for index, lane in enumerate(lanes):
            if index >= len(lanes) - MOST_HELD and lane.used > now - IDLE_S:
                break
            with suppress(Busy):
                while_holding([lane.lock], now, lane.drop)

    def close(self) -> None:
        """Release the producers."""
        with self._lock:
            lanes = list(self._lanes.values())
        mine = [lane for lane in lanes if lane.name.startswith(f"{PUT}/{self.holder}/")]
        with suppress(KafkaException, Error, Busy):
            self._leave_nothing(mine)
        for lane in lanes:
            with suppress(Busy):
                while_holding([lane.lock], time.monotonic() + CLOSING_S, lane.lose)

    def _leave_nothing(self, lanes: Sequence[Lane]) -> None:
        """Remove the marks of lanes that no other process will use; those of processes that are killed get old."""
        free = next((lane for lane in lanes if lane.producer is not None and not lane.is_in_doubt), None)
        if free is None or (producer := free.producer) is None:
            return

        def leave() -> None:
            try:
                sending = Sending(producer, int(CLOSING_S * 1000), self._cluster.check)
                for lane in lanes:
                    sending.state(self._state.place(lane.name), key_of(lane.name, self._holding.mark), None)
                sending.flush()
                commit(producer, CLOSING_S, self._cluster.check)
            except BaseException:
                abort(producer)
                raise

        while_holding([free.lock], time.monotonic(), leave)
