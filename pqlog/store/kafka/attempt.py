"""One try of a transaction, from its work to what is known of its commit."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from confluent_kafka import KafkaException

from pqlog.errors import Error
from pqlog.store.kafka.cluster import TRANSACTION_MS
from pqlog.store.kafka.fencing import Again, Fenced, is_fenced, problem, uncertain
from pqlog.store.kafka.holding import MARKS_KEPT_MS, Holding
from pqlog.store.kafka.lane import CONFIRMED, Lane, PutsAll, Transaction
from pqlog.store.kafka.state import Entry, key_of
from pqlog.store.kafka.together import all_at_once
from pqlog.store.kafka.transactions import Sending, abort, commit, dispose

T = TypeVar("T")

SLOW_S = 1.0
"""A commit that took longer may have left a request behind."""
COMMITTING_S = 5.0
"""How long a commit may take at least, however late it is: better than not to know about it."""
ASKING_S = 20.0
"""How long the outcome of a commit is asked for, at least."""
ASKED_WITHIN_S = MARKS_KEPT_MS / 2000
"""The outcome of a commit that was tried longer ago is not known any more."""


class Attempt:
    """One try of a transaction that needs some lanes, all of which are held.

    Before its commit is tried, its lanes are marked as in doubt; they are sure again when what was committed is in
    memory, or when it is known that nothing was. So whatever ends it, and wherever Ctrl-C strikes: a lane whose memory
    may be incomplete is in doubt, and is read again before it is used.

    Parameters
    ----------
    holding : Holding
    lanes : dict
        By their names. The first one's producer writes everything.
    put_all : callable
        What puts outputs in a transaction.
    """

    def __init__(self, holding: Holding, lanes: dict[str, Lane], put_all: PutsAll) -> None:
        self._holding, self._lanes = holding, lanes
        self._first, *self._others = lanes.values()
        assert self._first.producer is not None
        self._producer = self._first.producer
        self._sending = Sending(self._producer, self._first.timeout_ms, holding.cluster.check)
        self._tx = Transaction(lanes, self._sending, put_all)
        self._tx.write = self._write
        self._token = secrets.token_hex(8)
        self._is_tried = False

    def run(self, work: Callable[[Transaction], T], held: Sequence[Lane], until: float) -> T:
        """Do the work, and commit what it changes; `held` are the lanes that were not taken just before."""
        try:
            try:
                result = work(self._tx)
            except KafkaException:
                raise
            except Exception:
                self._unchanged(held, until)
                raise
            if not self._tx.sets and not self._sending.has_begun:
                self._unchanged(held, until)
                return result
            self._commit(until)
        except KafkaException as error:
            self._failed(error, until)
        except BaseException:
            self._stop()
            raise
        finally:
            del self._tx.write  # a cycle, which only the collector would free
        self._keep()
        return result

    def _unchanged(self, held: Sequence[Lane], until: float) -> None:
        """End a transaction that changes nothing; what it saw must have been true."""
        self._stop()
        for lane in held:
            if not self._holding.is_ours(lane, until):
                lane.lose()
                raise Again(Fenced(f"{lane.name}: another process takes it again and again; repeat the call"), True)

    def _stop(self) -> None:
        """End it without a result: at once, for readers wait for it."""
        if self._sending.has_begun and self._first.producer is not None:
            self._first.producer = None
            if self._sending.is_late:
                self._first.timeout_ms = self._sending.longer_ms
            abort(self._producer)
            dispose(self._producer)

    # committing

    def _write(self) -> None:
        """Write what is set and was not written yet, and the mark."""
        tx, state = self._tx, self._holding.state
        while tx.unwritten:
            name, key = tx.unwritten.pop()
            tx.sending.state(state.place(name), key_of(name, key), tx.sets[name, key])
        if tx.is_marked:
            return
        tx.is_marked = True
        for name, lane in self._lanes.items():
            place = state.place(name)
            tx.sending.state(place, key_of(name, self._holding.mark), self._token)
            for key in lane.old_marks:
                tx.sending.state(place, key_of(name, key), None)

    def _commit(self, until: float) -> None:
        first, cluster = self._first, self._holding.cluster
        self._tx.flush()
        self._doubt(True)
        self._confirm(until)
        self._is_tried = True
        took_s = commit(self._producer, max(until - time.monotonic(), COMMITTING_S), cluster.check)
        is_long = first.timeout_ms > TRANSACTION_MS and self._sending.took_s < TRANSACTION_MS / 10_000
        if took_s > SLOW_S or is_long:
            first.timeout_ms = TRANSACTION_MS
            first.drop()

    def _doubt(self, is_in_doubt: bool) -> None:
        for lane in self._lanes.values():
            lane.is_in_doubt = is_in_doubt

    def _confirm(self, until: float) -> None:
        """See that the other lanes are held, now that everything is written."""
        failed: Exception | None = None
        found = all_at_once([partial(self._confirmed, lane, until) for lane in self._others])
        for lane, took in zip(self._others, found, strict=True):
            if isinstance(took, KafkaException):
                failed = problem(took, f"confirming {lane.name}")
                lane.lose() if is_fenced(took) else lane.drop()
            elif took > SLOW_S:
                lane.drop()
        if failed is not None:
            self._doubt(False)  # nothing was committed
            raise failed

    def _confirmed(self, lane: Lane, until: float) -> KafkaException | float:
        """How long the commit of a mark took; or why it was not made."""
        assert lane.producer is not None
        cluster = self._holding.cluster
        sending = Sending(lane.producer, lane.timeout_ms, cluster.check)
        try:
            sending.state(self._holding.state.place(lane.name), key_of(lane.name, CONFIRMED), self._holding.holder)
            sending.flush()
            return commit(lane.producer, max(until - time.monotonic(), COMMITTING_S), cluster.check)
        except KafkaException as error:
            return error

    # afterwards

    def _failed(self, error: KafkaException, until: float) -> None:
        """Raise that it was not committed, or that nobody knows; return if it was, after all."""
        first = self._first
        began = time.monotonic(), time.time()
        is_late = self._sending.is_late and not self._is_tried
        lost = is_fenced(error) and not is_late
        if not lost and not self._is_tried:
            self._stop()
        first.drop()
        if self._is_tried and self._was_committed(lost, began, until):
            return
        self._doubt(False)
        if lost:
            first.lose()
        if is_late:
            for topic in self._sending.topics:  # librdkafka waits long for one that is gone
                self._holding.cluster.check_topic(topic, until)
        raise problem(error, f"committing {first.name}", is_late) from error

    def _was_committed(self, lost: bool, began: tuple[float, float], until: float) -> bool:
        """Whether it was, though the commit was not answered."""
        first = self._first
        try:
            until = max(until, time.monotonic() + ASKING_S)
            if not lost:  # it may be open: a successor ends it
                self._holding.end(first, until)
            self._holding.refresh(first.tail, until)
        except (KafkaException, Error) as problem:
            raise uncertain(first.name) from problem
        if max(time.monotonic() - began[0], time.time() - began[1]) > ASKED_WITHIN_S:
            raise uncertain(first.name)
        mark = first.tail.entry(first.name, self._holding.mark)
        return mark is not None and mark.value == msgspec.json.encode(self._token)

    def _keep(self) -> None:
        """Know what was committed. This asks the cluster for nothing, and so cannot fail."""
        now = int(time.time() * 1000)
        for (name, key), value in self._tx.sets.items():
            own = self._lanes[name].own
            own.pop(key, None)
            own[key] = None if value is None else Entry(now, msgspec.json.encode(value))
        for lane in self._lanes.values():
            for key in lane.old_marks:
                (lane.foreign or {}).pop(key, None)
            lane.old_marks = []
        for call in self._tx.after:
            call()
        self._doubt(False)
