"""Delivery: how batches are handed out: in a loop, one at a time, or as single messages.

The holder of a batch's object holds the batch. A loop holds it for its body: leaving the loop gives it back.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from pqlog import check
from pqlog.batch import Batch
from pqlog.errors import ArgumentError, ClosedError, ForkError
from pqlog.lease import Lease
from pqlog.store.api import ClientStore
from pqlog.store.values import Claim, ClientState, Size
from pqlog.stream import TopicStream

TICK_S = 0.005
"""How soon the messages of another process are noticed, unless the caller says otherwise."""


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


def options(
    size: int,
    max_bytes: int | None,
    linger: float,
    follow: bool,
    messages: bool,
    attempts: int | None,
    dead_letter: str | None,
    owner: str | None,
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
    return BatchOptions(
        Size(size, max_bytes), check.seconds("linger", linger), follow, messages, attempts, dead_letter, owner or ""
    )


def join(topic: TopicStream, client: ClientStore) -> ClientState:
    """Create a client if it does not exist; warns if it looks misspelt, since everything would come again."""
    state = client.state()
    if state is not None:
        return state
    near = check.near(client.name, topic.store.clients_near(client.name))
    check.warn_if_misspelt(f"client {client.name!r} is new and begins at the start", near)
    return client.join()


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
        topic: TopicStream,
        client: ClientStore,
        options: BatchOptions,
        dead_lettered: Callable[[Batch], object] = lambda batch: None,
    ) -> None:
        self.topic, self._client, self._log = topic, client, topic.store.log
        if options.dead_letter is not None and topic.is_named(options.dead_letter):
            raise ArgumentError(
                f"dead_letter={options.dead_letter!r} is the topic that is read: what fails would come again for ever"
            )
        self._options, self._dead_lettered = options, dead_lettered
        self._has_joined = False
        self._batch: Batch | None = None
        self._is_loop = self._is_closed = False
        self._pid = os.getpid()

    def __iter__(self) -> Self:
        """For a loop, which gives the batch back when it is left; one that `next` hands out is its holder's."""
        self._is_loop = True
        return self

    def __next__(self) -> Batch:
        if self._is_closed:
            raise StopIteration
        try:
            batch = self._take(None if self._options.follow else 0, None)
        except BaseException:
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
            join(self.topic, self._client)
            self._has_joined = True
        now = time.monotonic()
        until = None if timeout_s is None else now + timeout_s
        linger_until = math.inf if linger_timeout_s is None else now + linger_timeout_s
        try:
            while True:
                self._linger(linger_until)
                batch = self._next()
                if batch is not None:
                    return batch
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return None
                self._log.wait(lambda: self._client.has_work(self._options.owner), left_s, TICK_S)
        except ForkError:
            raise
        except ClosedError:
            if self._options.follow and self.open_batch() is None:
                return None  # what follows a log ends with it; of a batch that was not acknowledged, it says so
            raise

    def open_batch(self) -> Batch | None:
        """The batch that is being worked on."""
        return self._batch if self._batch is not None and self._batch.lease.is_open else None

    def _next(self) -> Batch | None:
        """Acknowledge the batch before, if it is still open, and take the next, in one commit; put aside what fails."""
        while True:
            claim = self._advance()
            if claim is None:
                return None
            batch = self._batch = Batch(Lease(self.topic, self._client, claim), self._options.messages)
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
        done = self.open_batch()
        size, worker = self._options.size, self._options.owner
        if done is None:
            self._batch = None
            return self._client.advance(size, worker, None)[0] if self._client.has_work(worker) else None
        claim = done.lease.acknowledge(lambda claim, outputs: self._client.advance(size, worker, claim, outputs))
        self._batch = None
        return claim or self._advance()  # an interrupted call may have acknowledged it: then this one claimed nothing

    def _linger(self, until: float) -> None:
        """Wait a while for a batch to fill, unless there is enough already; the one before need not wait for that."""
        until = min(until, time.monotonic() + self._options.linger_s)
        topic, size = self.topic.store, self._options.size.messages

        def waiting() -> int:
            state = self._client.state()
            return 0 if state is None else topic.count(state.unclaimed)

        if until <= time.monotonic() or waiting() >= size or any(not claim.owner for claim in self._client.claims()):
            return
        if (batch := self.open_batch()) is not None:
            batch.ack()
        while 0 < waiting() < size and (left_s := until - time.monotonic()) > 0:
            self._log.wait(lambda: not 0 < waiting() < size, left_s, TICK_S)

    def close(self) -> None:
        """End it: a batch that is open is released."""
        self._is_closed = True
        if self._batch is not None and self._pid == os.getpid():
            self._batch.release()

    def __del__(self) -> None:
        batch: Batch | None = getattr(self, "_batch", None)
        if batch is not None and self._is_loop:
            batch.lease.leave()
