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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import msgspec
from confluent_kafka import KafkaException, Producer

from pqlog.errors import ClusterError, Error
from pqlog.store.kafka.cluster import TRANSACTION_MS, Cluster
from pqlog.store.kafka.faults import FENCED, PASSING, code
from pqlog.store.kafka.fencing import Again, Fenced, is_fenced, problem, release, uncertain
from pqlog.store.kafka.lane import CONFIRMED, MARK, Lane, PutsAll, Transaction, shown
from pqlog.store.kafka.state import Entry, State, Tail, key_of
from pqlog.store.kafka.together import all_at_once
from pqlog.store.kafka.transactions import Sending, abort, commit, dispose, initialised

T = TypeVar("T")

SLOW_S = 1.0
"""A commit that took longer may have left a request behind."""
ASKING_S = 20.0
"""How long the outcome of a commit is asked for, at least."""
MARKS_KEPT_MS = 3_600_000
"""A mark of another holder is dropped after that, when the lane is written."""
ASKED_WITHIN_S = MARKS_KEPT_MS / 2000
"""The outcome of a commit that was tried longer ago is not known any more."""
FORGOTTEN_MS = 86_400_000
"""How old what is left in lanes is when it is removed."""
MOST_HELD = 32
"""How many lanes nobody is using keep their producers, which take memory and threads."""
IDLE_S = 600.0
"""After that, a lane that is not used gives its producer up."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 5.0
"""How long a process waits that lost a lane to another, or that failed."""
MANY = 10_000
"""Own values that are not looked up in the tail."""


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
        self._cluster, self._state, self._log, self._put_all = cluster, state, log, put_all
        self.holder = secrets.token_hex(6)
        """What distinguishes this holder from all others."""
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()
        self.committed: Callable[[], object] = lambda: None
        """Called after each commit."""

    # looking

    def look(self, name: str) -> dict[str, Any]:
        """The values of a lane, without taking it: all that was committed before the call."""
        return shown(self._refreshed(name).lane(name))

    def look_at(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The values of several lanes, of one moment if they lie together."""
        tails = dict.fromkeys(self._state.tail(name) for name in names)
        for tail in tails:
            self._refresh(tail)
        return [shown(self._state.tail(name).lane(name)) for name in names]

    def recall(self, name: str) -> dict[str, Any]:
        """The same of a lane that this process holds, without asking the cluster: a change says if it lost it since."""
        lane = self._lane(name)
        if (producer := lane.producer) is not None:
            found = shown(lane.entries())
            if lane.producer is producer:
                return found
        return self.look(name)

    def known(self, name: str) -> dict[str, Any]:
        """The values of a lane as the state was read last."""
        return shown(self._state.tail(name).lane(name))

    def value(self, name: str, key: str) -> Any:
        """One value of a lane; None if there is none."""
        entry = self._refreshed(name).entry(name, key)
        return None if entry is None else msgspec.json.decode(entry.value)

    def times(self, name: str) -> dict[str, int]:
        """When each value of a lane was committed: milliseconds since 1970, by the clock of the cluster."""
        return {key: entry.time for key, entry in self._refreshed(name).lane(name).items()}

    def names(self, prefix: str) -> list[str]:
        """The lanes with values whose names begin with a prefix, which has two parts at least: ``client/7/``."""
        return [name for name in self._refreshed(prefix).names(prefix) if shown(self._state.tail(name).lane(name))]

    def free(self, names: Sequence[str]) -> str:
        """The first of some lanes that no thread is using; the last if all are used."""
        return next((name for name in names if not self._lane(name).is_used), names[-1])

    def is_held(self, name: str) -> bool:
        """Whether this process holds a lane, as far as it knows."""
        lane = self._lanes.get(name)
        return lane is not None and lane.foreign is not None

    def _refreshed(self, name: str) -> Tail:
        tail = self._state.tail(name)
        self._refresh(tail)
        return tail

    def _refresh(self, tail: Tail, until: float | None = None) -> None:
        tail.refresh(None if until is None else max(0.0, until - time.monotonic()))

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
        with self._holding(lanes, until):
            for attempt in itertools.count():
                began = time.monotonic()
                try:
                    result = self._once(lanes, work, take, until)
                    break
                except Again as again:
                    if again.lost:
                        self._lose_all_lost(lanes, until)
                    if again.lost and not (take and retake):
                        raise Fenced(f"{next(iter(lanes))}: another process took over; nothing was changed") from again
                    if again.late:
                        until = time.monotonic() + self._cluster.timeout_s
                    if time.monotonic() > until:
                        raise again.error from again
                    self._pause(attempt, time.monotonic() - began if again.lost else 0.0)
        self._give_up_idle()
        self.committed()
        return result

    def _pause(self, attempt: int, took_s: float) -> None:
        """Let another process come to its end, for as long as that takes by chance; the lanes' locks are held.

        So no other thread of this process goes on taking the lanes meanwhile: two processes would never come to an end.
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
        """Remove what is in lanes in which nothing has been written for a day; nobody may need it."""
        tail = self._state.tail(prefix)
        newest = {name: max(entry.time for entry in tail.lane(name).values()) for name in tail.names(prefix)}
        old = max(newest.values(), default=0) - FORGOTTEN_MS
        self.forget(tx, [name for name, time in newest.items() if time < old])

    def _lane(self, name: str) -> Lane:
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = Lane(name, self._state.tail(name))
            return self._lanes[name]

    @contextmanager
    def _holding(self, lanes: Mapping[str, Lane], until: float) -> Iterator[None]:
        """Hold the locks of lanes, in the order that every thread keeps to."""
        with ExitStack() as stack:
            for name in sorted(lanes):
                lock = lanes[name].lock
                stack.callback(release, lock)  # first, for Ctrl-C may strike between the two
                if not lock.acquire(timeout=max(0.0, until - time.monotonic())):
                    raise ClusterError(f"{name}: other threads of this process used it all the time; repeat the call")
            for lane in lanes.values():
                lane.is_used = True
            try:
                yield
            finally:
                for lane in lanes.values():
                    lane.is_used = False

    def _once(self, lanes: dict[str, Lane], work: Callable[[Transaction], T], take: bool, until: float) -> T:
        """One try."""
        first, *others = lanes.values()
        are_old = all(lane.producer is not None for lane in lanes.values())
        self._take(list(lanes.values()), take, until)
        assert first.producer is not None
        sending = Sending(first.producer, first.timeout_ms, self._cluster.check)
        tx = Transaction(lanes, sending, self._put_all)
        token = secrets.token_hex(8)
        tx.write = partial(self._write, lanes, tx, token)
        is_tried = is_known = False
        try:
            try:
                result = work(tx)
            except KafkaException:
                raise
            except Exception:
                self._unchanged(lanes, sending, are_old, until)
                raise
            if not tx.sets and not sending.has_begun:
                self._unchanged(lanes, sending, are_old, until)
                return result
            tx.flush()
            self._confirm(others)
            is_tried = True
            took_s = commit(first.producer, self._cluster.timeout_s, self._cluster.check)
            self._keep(lanes, tx)
            is_known = True
            if took_s > SLOW_S or (first.timeout_ms > TRANSACTION_MS and sending.took_s < TRANSACTION_MS / 10_000):
                first.timeout_ms = TRANSACTION_MS
                first.drop()
        except KafkaException as error:
            self._failed(first, sending, error, token if is_tried else None, until)
            self._keep(lanes, tx)
            is_known = True
        except BaseException:
            self._stopped(first, sending)
            raise
        finally:
            if is_tried and not is_known:  # it may have been committed: all are read again before they are used
                for lane in lanes.values():
                    lane.drop()
        self._forget_own(lanes)
        return result

    def _take(self, lanes: Sequence[Lane], take: bool, until: float) -> None:
        """Let this process hold lanes, and know all of them exactly."""
        missing = [lane for lane in lanes if lane.producer is None]
        if not take and not all(lane.foreign is not None and self._is_ours(lane, until) for lane in missing):
            raise Fenced(f"{lanes[0].name} is not held")
        try:
            producers = all_at_once([partial(self._taken, lane, until) for lane in missing])
        except KafkaException as error:
            raise problem(error, f"taking {lanes[0].name}") from error
        for lane, producer in zip(missing, producers, strict=True):
            was, now = lane.foreign, self._foreign(lane)
            lane.own = {}
            lane.producer, lane.foreign = producer, now
            newest = max((entry.time for entry in lane.tail.lane(lane.name).values()), default=0)
            lane.old_marks = [key for key in now if self._is_old(lane, key, newest)]
            if not take and now != was:
                raise Fenced(f"{lane.name}: another process changed it")
        for lane in lanes:
            lane.used = time.monotonic()

    def _taken(self, lane: Lane, until: float) -> Producer:
        """A new producer that holds a lane, whose state was read after that."""
        producer = self._producer(lane)
        try:
            initialised(producer, until, self._cluster.check)
            self._refresh(lane.tail, until)
        except BaseException:
            dispose(producer)
            raise
        return producer

    def _producer(self, lane: Lane) -> Producer:
        ms = lane.timeout_ms
        return self._cluster.producer(f"{self._log}/{lane.name}", transaction_timeout_ms=ms, delivery_timeout_ms=ms)

    def _foreign(self, lane: Lane) -> dict[str, bytes]:
        """The marks that other holders have left, as far as the tail was read."""
        found = lane.tail.lane(lane.name).items()
        return {key: entry.value for key, entry in found if key.startswith(MARK) and key != MARK + self.holder}

    def _is_old(self, lane: Lane, key: str, newest: int) -> bool:
        entry = lane.tail.entry(lane.name, key)
        now = max(newest, int(time.time() * 1000))
        return entry is not None and entry.time < now - 2 * MARKS_KEPT_MS and entry.time < newest - MARKS_KEPT_MS

    def _is_ours(self, lane: Lane, until: float) -> bool:
        """Whether nobody has changed a lane since this process took it."""
        self._refresh(lane.tail, until)
        return self._foreign(lane) == lane.foreign

    def _lose_all_lost(self, lanes: Mapping[str, Lane], until: float) -> None:
        """Who took one lane may have taken others, too."""
        for lane in lanes.values():
            if lane.producer is not None and not self._is_ours(lane, until):
                lane.lose()

    def _unchanged(self, lanes: Mapping[str, Lane], sending: Sending, are_old: bool, until: float) -> None:
        """End a transaction that changes nothing; what it saw must have been true."""
        if sending.has_begun:
            self._stopped(next(iter(lanes.values())), sending)
        if not are_old:
            return
        for lane in lanes.values():
            if not self._is_ours(lane, until):
                lane.lose()
                raise Again(Fenced(f"{lane.name}: another process takes it again and again; repeat the call"), True)

    def _write(self, lanes: Mapping[str, Lane], tx: Transaction, token: str) -> None:
        """Write what a transaction sets and was not written yet, and its mark."""
        while tx.unwritten:
            name, key = tx.unwritten.pop()
            tx.sending.state(self._state.place(name), key_of(name, key), tx.sets[name, key])
        if tx.is_marked:
            return
        tx.is_marked = True
        for name, lane in lanes.items():
            place = self._state.place(name)
            tx.sending.state(place, key_of(name, MARK + self.holder), token)
            for key in lane.old_marks:
                tx.sending.state(place, key_of(name, key), None)

    def _confirm(self, lanes: Sequence[Lane]) -> None:
        """See that lanes are held, now that everything is written."""

        def one(lane: Lane) -> KafkaException | float:
            assert lane.producer is not None
            sending = Sending(lane.producer, lane.timeout_ms, self._cluster.check)
            try:
                sending.state(self._state.place(lane.name), key_of(lane.name, CONFIRMED), self.holder)
                sending.flush()
                return commit(lane.producer, self._cluster.timeout_s, self._cluster.check)
            except KafkaException as error:
                return error

        failed: Exception | None = None
        for lane, found in zip(lanes, all_at_once([partial(one, lane) for lane in lanes]), strict=True):
            if isinstance(found, KafkaException):
                failed = problem(found, f"confirming {lane.name}")
                lane.lose() if is_fenced(found) else lane.drop()
            elif found > SLOW_S:
                lane.drop()
        if failed is not None:
            raise failed

    def _failed(self, first: Lane, sending: Sending, error: KafkaException, token: str | None, until: float) -> None:
        """Raise that a transaction was not committed, or that nobody knows; return if it was, after all."""
        began = time.monotonic(), time.time()
        is_late = sending.is_late and token is None
        lost = is_fenced(error) and not is_late
        if not lost and token is None:
            self._stopped(first, sending)
        first.drop()
        if token is None or not self._was_committed(first, lost, token, began, until):
            if lost:
                first.lose()
            raise problem(error, f"committing {first.name}", is_late) from error

    def _was_committed(self, first: Lane, lost: bool, token: str, began: tuple[float, float], until: float) -> bool:
        """Whether a transaction was committed whose commit was not answered."""
        try:
            until = max(until, time.monotonic() + ASKING_S)
            if not lost:  # it may be open: a successor ends it
                dispose(self._ended(first, until))
            self._refresh(first.tail, until)
        except (KafkaException, Error) as problem:
            first.lose()
            raise uncertain(first.name) from problem
        if max(time.monotonic() - began[0], time.time() - began[1]) > ASKED_WITHIN_S:
            raise uncertain(first.name)
        mark = first.tail.entry(first.name, MARK + self.holder)
        return mark is not None and mark.value == msgspec.json.encode(token)

    def _ended(self, lane: Lane, until: float) -> Producer:
        """A successor of a producer, which has ended what that left open."""
        while True:
            producer = self._producer(lane)
            try:
                initialised(producer, until, self._cluster.check)
                return producer
            except KafkaException as error:
                dispose(producer)
                if time.monotonic() > until or code(error) not in PASSING | FENCED:
                    raise
                time.sleep(0.05)

    def _stopped(self, first: Lane, sending: Sending) -> None:
        """End a transaction without a result: at once, for readers wait for it."""
        if sending.has_begun and first.producer is not None:
            producer, first.producer = first.producer, None
            if sending.is_late:
                first.timeout_ms = sending.longer_ms
            abort(producer)
            dispose(producer)

    def _keep(self, lanes: Mapping[str, Lane], tx: Transaction) -> None:
        """Know what was committed."""
        now = int(time.time() * 1000)
        for (name, key), value in tx.sets.items():
            own = lanes[name].own
            own.pop(key, None)
            own[key] = None if value is None else Entry(now, msgspec.json.encode(value))
        for call in tx.after:
            call()
        for lane in lanes.values():
            for key in lane.old_marks:
                (lane.foreign or {}).pop(key, None)
            lane.old_marks = []

    def _forget_own(self, lanes: Mapping[str, Lane]) -> None:
        """Let the tail know what this process committed, if that is much."""
        for lane in lanes.values():
            if len(lane.own) > MANY:
                with suppress(Error):  # it was committed
                    self._refresh(lane.tail)
                    lane.own = {}

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
            if lane.lock.acquire(blocking=False):
                try:
                    lane.drop()
                finally:
                    lane.lock.release()

    def close(self) -> None:
        """Release the producers."""
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            if lane.lock.acquire(timeout=1):
                try:
                    lane.lose()
                finally:
                    lane.lock.release()
