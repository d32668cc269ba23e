"""Delivery: how batches are handed out: in a loop, one at a time, or as single messages.

The holder of a batch's object holds the batch. A loop holds it for its body: leaving the loop gives it back.

A batch is of one partition; a loop takes the partitions in turn. Of a topic of several, and where it is asked for, the
batches of a partition are handed out strictly in order: nobody gets one while somebody has another.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from pqlog import check
from pqlog.batch import Batch
from pqlog.errors import ArgumentError, ClosedError, ForkError
from pqlog.lease import DEAD, Lease, check_letters
from pqlog.partitioning import any_of
from pqlog.store.api import ClientStore, TopicStore
from pqlog.store.values import Claim, Done, Put, Size
from pqlog.stream import TopicStream

TICK_S = 0.005
"""How soon the messages of another process are noticed, unless the caller says otherwise."""
IDLE_SHARE, BUSY_SHARE = 20, 3
"""While it waits, a thread spends a 20th of its time on looking at most; a third while others write all the time."""
LONG_LOOK_S = 0.001
"""A look that takes longer is followed by a rest, also if something is written meanwhile."""
HOT_SHARE = 10
"""A loop over a partition that has messages all the time spends a tenth of its time on looking at the others."""


class ClientPartition(NamedTuple):
    """A client of one partition of a topic, and what it reads there."""

    topic: TopicStream
    """That partition alone."""
    client: ClientStore

    @property
    def store(self) -> TopicStore:
        """The partition."""
        return self.topic.partitions[0]

    @property
    def number(self) -> int:
        """The partition's."""
        return self.store.info.partition


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The parameters of `Client.batches`."""

    size: Size
    linger_s: float = 0.0
    follow: bool = False
    messages: bool = False
    attempts: int | None = None
    dead_letter: str | None = None
    owner: str = ""
    """A name, or empty."""
    ordered: bool = False
    crew: str = ""
    """The common prefix of the names of a job's workers; where batches are ordered, none ends before the others."""


def options(
    size: int,
    max_bytes: int | None,
    linger: float,
    follow: bool,
    messages: bool,
    attempts: int | None,
    dead_letter: str | None,
    owner: str | None,
    ordered: bool = False,
) -> BatchOptions:
    """The parameters of `Client.batches`, checked."""
    size = check.count("size", size, "messages")
    if max_bytes is not None:
        max_bytes = check.count("max_bytes", max_bytes, "bytes")
    if attempts is not None:
        check.count("attempts", attempts, "attempts")
    if owner is not None:
        check.name("owner", owner)
    if dead_letter is not None:
        check.name("dead_letter, the name of a topic,", dead_letter)
    if dead_letter is not None and attempts is None:
        raise ArgumentError("dead_letter goes with attempts=: after how many failures a batch goes there")
    linger_s = check.seconds("linger", linger)
    return BatchOptions(
        Size(size, max_bytes), linger_s, follow, messages, attempts, dead_letter, owner or "", bool(ordered)
    )


def join(partitions: Sequence[ClientPartition]) -> None:
    """Create a client where it does not exist; warns if it looks misspelt, since everything would come again.

    It must exist in every partition from its first reading on, so that what it has not read is not trimmed.
    """
    first, clients = partitions[0], [one.client for one in partitions]
    log, name = first.topic.log, first.client.name
    states = log.states(clients)
    if all(states):
        return
    if not any(states):
        near = check.near(name, first.store.clients_near(name))
        check.warn_if_misspelt(f"client {name!r} is new and begins at the start", near)
    log.join(clients)


def wait(
    partitions: Sequence[ClientPartition], ready: Callable[[], bool], timeout_s: float | None, tick_s: float = TICK_S
) -> None:
    """`Store.wait`, where looking whether it is `ready` is to ask each of some partitions.

    If that takes long, it looks less often, so that a thread that waits does not keep a core busy.
    """
    log = partitions[0].topic.log
    if len(partitions) == 1:
        log.wait(ready, timeout_s, tick_s)
        return
    until = math.inf if timeout_s is None else time.perf_counter() + timeout_s
    rest_until = look_s = 0.0
    is_ready = False

    def look() -> bool:
        nonlocal rest_until, look_s, is_ready
        began = time.perf_counter()
        if began < rest_until:
            return True  # to rest outside, where nobody waits for it
        is_ready = ready()
        look_s = time.perf_counter() - began
        if look_s > LONG_LOOK_S:
            rest_until = began + BUSY_SHARE * look_s
        return is_ready

    look()
    while not is_ready and (now := time.perf_counter()) < until:
        time.sleep(max(0.0, min(rest_until, until) - now))
        left_s = None if timeout_s is None else max(0.0, until - time.perf_counter())
        log.wait(look, left_s, max(tick_s, IDLE_SHARE * look_s))


def check_tick(tick: float | None) -> float:
    """Seconds between two looks for messages of other processes."""
    return TICK_S if tick is None else check.seconds("tick", tick, "above 0")


def timeout_s(timeout: float | None) -> float | None:
    """How long to wait for a message, checked; None is for ever."""
    return None if timeout is None else check.seconds("timeout", timeout)


class Batches(Iterator[Batch]):
    """Hands out batch after batch; asking for the next acknowledges the one before.

    Parameters
    ----------
    dead_lettered : callable, optional
        Called with each batch that goes to the dead letters instead of being handed out.
    """

    def __init__(
        self,
        partitions: Sequence[ClientPartition],
        options: BatchOptions,
        dead_lettered: Callable[[Batch], object] = lambda batch: None,
    ) -> None:
        topic = partitions[0].topic
        if options.dead_letter is not None and topic.is_named(options.dead_letter):
            raise ArgumentError(
                f"dead_letter={options.dead_letter!r} is the topic that is read: what fails would come again for ever"
            )
        if options.attempts is not None:  # rather than at the first batch that fails
            letters = topic.log.find_topic(options.dead_letter or f"{topic.name}{DEAD}")
            if letters:
                check_letters(topic, letters)
        self.partitions = partitions
        self._options, self._dead_lettered = options, dead_lettered
        self._is_ordered = options.ordered or len(partitions) > 1
        self._has_joined = False
        self._batch: Batch | None = None
        self._at = 0
        """The number of the partition of the latest claim."""
        self._claimed: tuple[ClientPartition, Claim] | None = None
        """The latest claim; noted at once, since an exception may strike before it is a batch."""
        self._turn = any_of(len(partitions))  # workers do not all begin at the same one
        """The number of the partition that is asked first."""
        self._look_again = 0.0
        """When others are asked again though the partition of the batch may have more."""
        self._waiting_since: dict[int, float] = {}
        """Since when messages of a partition, given by its number, wait for their batch to fill."""
        self._is_loop = self._is_closed = False
        self._pid = os.getpid()

    def __iter__(self) -> Self:
        """For a loop, which gives the batch back when it is left; one that `next` hands out is its holder's."""
        self._is_loop = True
        return self

    def __next__(self) -> Batch:
        if self._is_closed:
            raise StopIteration
        before = self._batch
        try:
            batch = self._take(None if self._options.follow else 0, None)
        except BaseException:
            self._leave_what_nobody_got(before)  # Ctrl-C may have struck when it returned
            if self._is_loop and self._batch is not None:  # the loop is over, and its exception may keep this object
                self._batch.lease.leave()
            raise
        if batch is None:
            raise StopIteration
        return batch

    def take(self, timeout_s: float | None) -> Batch | None:
        """The next batch, with the one before acknowledged; None if none came in time, or the log has ended.

        Lingering ends with that time, too.
        """
        return self._take(timeout_s, timeout_s)

    def _take(self, timeout_s: float | None, linger_timeout_s: float | None) -> Batch | None:
        """The same with a time of its own for lingering: a loop that waits for no message waits for a full batch."""
        check.process(self._pid, "this loop over batches")
        if not self._has_joined:
            join(self.partitions)
            self._has_joined = True
        now, before = time.monotonic(), self._batch
        until = None if timeout_s is None else now + timeout_s
        linger_until = math.inf if linger_timeout_s is None else now + linger_timeout_s
        try:
            while True:
                self._linger(linger_until)
                batch = self._next()
                if batch is not None:
                    return batch
                left_s = None if until is None else until - time.monotonic()
                if left_s is None or left_s > 0:
                    wait(self.partitions, self.has_work, left_s)
                elif self._is_crew_working():
                    wait(self.partitions, lambda: self.has_work() or not self._is_crew_working(), None)
                else:
                    return None
        except ForkError:
            raise
        except ClosedError:
            if self._options.follow and self.open_batch() is None:
                return None  # what follows a log ends with it; of a batch that was not acknowledged, it says so
            raise
        except BaseException as error:
            import traceback

            traceback.clear_frames(error.__traceback__)  # a notebook keeps it, and with it the claim of a call within
            self._leave_what_nobody_got(before)
            raise

    def _leave_what_nobody_got(self, before: Batch | None) -> None:
        """Give back what a call that was interrupted had claimed.

        Otherwise the next call would acknowledge what its caller never had, or wait for it where batches are ordered.
        """
        if self._claimed is not None and (before is None or self._claimed[1] is not before.lease.claim):
            one, claim = self._claimed
            one.client.leave(claim)
            if self._batch is not before and self._batch is not None:
                self._batch.lease.leave()

    def open_batch(self) -> Batch | None:
        """The batch that is being worked on."""
        return self._batch if self._batch is not None and self._batch.lease.is_open else None

    def _next(self) -> Batch | None:
        """Acknowledge the batch before, if it is still open, and take the next, in one commit; put aside what fails."""
        while True:
            claim = self._advance()
            if claim is None:
                return None
            one = self.partitions[self._at]
            batch = self._batch = Batch(Lease(one.topic, one.client, claim), self._options.messages)
            if self._options.attempts is None or claim.attempt <= self._options.attempts:
                return batch
            try:
                batch.lease.put_all_aside(
                    self._options.dead_letter, batch.error or "its worker stopped without reporting an error"
                )
            except BaseException:
                batch.lease.leave()  # and no `release(error)`: why it failed before is what its letters will say
                raise
            self._dead_lettered(batch)

    def _advance(self) -> Claim | None:
        """Acknowledge the batch before, if it is still open, and claim one of the first partition that has any."""
        if (done := self.open_batch()) is not None:
            # Its own partition is not asked: that is free with the acknowledgement, which is made in any case.
            number = self._find_another(done.partition)
            claim = done.lease.acknowledge(functools.partial(self._claim, done.partition if number is None else number))
            if claim is not None:
                return claim
        self._batch = None
        left = self._in_turn()
        while left and (number := self._find(left)) is not None:
            claim, _ = self._claim(number)
            if claim is not None:
                return claim
            left = left[left.index(number) + 1 :]  # another worker was quicker
        return None

    def _in_turn(self) -> list[int]:
        """The numbers of the partitions, in the order in which they are asked."""
        count = len(self.partitions)
        return [(self._turn + step) % count for step in range(count)]

    def _find(self, numbers: Sequence[int]) -> int | None:
        """The first of some partitions in which there may be a batch for this worker."""
        if len(self.partitions) == 1:
            return numbers[0] if self._may_have(self.partitions[0]) else None
        clients = [self.partitions[number].client for number in numbers]
        index = self.partitions[0].topic.log.find_work(clients, self._options.owner, self._is_ordered)
        return None if index is None else numbers[index]

    def _find_another(self, before: int) -> int | None:
        """The same of those whose turn is before that of one; after a look in vain, none for a while."""
        if len(self.partitions) == 1 or (began := time.perf_counter()) < self._look_again:
            return None
        turn = self._in_turn()
        others = turn[: turn.index(before)]  # none if it has a full batch, and the others linger
        found = self._find(others) if others else None
        if found is None:
            self._look_again = began + HOT_SHARE * (time.perf_counter() - began)
        return found

    def _may_have(self, one: ClientPartition) -> bool:
        """Whether there may be a batch for this worker in a partition."""
        return one.client.has_work(self._options.owner, self._is_ordered)

    def _claim(self, number: int, done: Done | None = None) -> tuple[Claim | None, Sequence[Put]]:
        """Claim a batch of a partition, and acknowledge one of any: the claim, and where its outputs went."""
        one = self.partitions[number]
        claim, went = one.client.advance(self._options.size, self._options.owner, done, self._is_ordered)
        self._claimed = None if claim is None else (one, claim)
        if claim is not None:
            self._at, self._turn = number, number + 1
            self._waiting_since.pop(number, None)
        return claim, went

    # waiting

    def has_work(self) -> bool:
        """Whether there may be a batch for this worker."""
        return self._find(range(len(self.partitions))) is not None

    def _is_crew_working(self) -> bool:
        """Whether a worker of the crew has a batch: should it die, that and what lies behind it is for the others."""
        crew = self._options.crew
        return (
            self._is_ordered
            and bool(crew)
            and any(claim.owner.startswith(crew) for one in self.partitions for claim in one.client.claims())
        )

    def _linger(self, until: float) -> None:
        """Wait a while for a batch to fill, unless there is enough already; the one before need not wait for that."""
        if not self._options.linger_s or until <= time.monotonic() or self._is_filled():
            return
        if (batch := self.open_batch()) is not None:
            batch.ack()
        while not self._is_filled():
            left_s = min(until, min(self._waiting_since.values()) + self._options.linger_s) - time.monotonic()
            if left_s <= 0:
                return
            wait(self.partitions, self._is_filled, left_s)

    def _is_filled(self) -> bool:
        """Whether a batch of some partition is full, or has waited long enough, and is next; or whether none waits."""
        now = time.monotonic()
        for number in self._in_turn():
            messages = self._messages_for(number)
            if not messages:
                self._waiting_since.pop(number, None)
                continue
            since = self._waiting_since.setdefault(number, now)
            if messages >= self._options.size.messages or now - since >= self._options.linger_s:
                self._turn, self._look_again = number, 0.0
                return True
        return not self._waiting_since

    def _messages_for(self, number: int) -> int:
        """How many messages a batch of a partition would have: a full one if it was cut before, 0 if others have it."""
        one, batch = self.partitions[number], self.open_batch()
        is_mine = batch is not None and batch.partition == number
        if self._is_ordered and not is_mine and not self._may_have(one):
            return 0
        state, is_free = one.client.state(), self._is_ordered and not is_mine
        if any(is_free or not claim.owner for claim in one.client.claims()):
            return self._options.size.messages
        return 0 if state is None else one.store.count(state.unclaimed)

    def close(self) -> None:
        """End it: a batch that is open is released."""
        self._is_closed = True
        if self._batch is not None and self._pid == os.getpid():
            self._batch.release()

    def __del__(self) -> None:
        batch: Batch | None = getattr(self, "_batch", None)
        if batch is not None and self._is_loop:
            batch.lease.leave()
