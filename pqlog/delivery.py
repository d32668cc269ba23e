"""Delivery: how batches come to whoever asks, in a loop, one at a time, or as single messages.

A batch is held by whoever has its object. A loop holds it for its body: leaving the loop gives it back.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from pqlog import check, clients
from pqlog.batches import Batch, Sibling
from pqlog.errors import ArgumentError, ClaimLostError, ClosedError, Empty, Error, ForkError
from pqlog.source import Source
from pqlog.store.api import Claim, Size


@dataclass(frozen=True, slots=True)
class Wish:
    """How batches are wanted: the parameters of `Topic.batches`."""

    size: Size
    linger_s: float = 0.0
    follow: bool = False
    messages: bool = False
    attempts: int | None = None
    dead_letter: str | None = None
    owner: str = ""
    """A name, or empty."""


def wish(
    size: int,
    max_bytes: int | None,
    linger: float,
    follow: bool,
    messages: bool,
    attempts: int | None,
    dead_letter: str | None,
    owner: str | None,
) -> Wish:
    """The parameters of `Topic.batches`, checked."""
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
    return Wish(
        Size(size, max_bytes), check.seconds("linger", linger), follow, messages, attempts, dead_letter, owner or ""
    )


def timeout_s(timeout: float | None) -> float | None:
    """How long to wait for a message, checked; None is for ever."""
    return None if timeout is None else check.seconds("timeout", timeout)


class Batches(Iterator[Batch]):
    """Hands out batch after batch; asking for the next acknowledges the one before.

    Parameters
    ----------
    buried : callable, optional
        Is shown each batch that goes to the dead letters in place of being handed out.
    """

    def __init__(
        self,
        source: Source,
        client: str | int | None,
        wish: Wish,
        sibling: Sibling,
        buried: Callable[[Batch], object] = lambda batch: None,
    ) -> None:
        self._source, self._wish, self._sibling, self._buried = source, wish, sibling, buried
        self.client = clients.client_name(client)
        self._owner = ""
        self._batch: Batch | None = None
        self._is_loop = self._is_closed = False
        self._pid = os.getpid()
        self._is_doubtful = False
        """Whether Ctrl-C may have struck between the acknowledgement of the batch and the note of it here."""

    def __iter__(self) -> Self:
        """For a loop, which gives the batch back when it is left; one that `next` hands out is its holder's."""
        self._is_loop = True
        return self

    def __next__(self) -> Batch:
        if self._is_closed:
            raise StopIteration
        try:
            batch = self.take(None if self._wish.follow else 0)
        except BaseException:
            if self._is_loop and self._batch is not None:  # the loop is over, and its exception may keep this object
                self._batch._leave()
            raise
        if batch is None:
            raise StopIteration
        return batch

    def take(self, timeout_s: float | None) -> Batch | None:
        """The next batch, with the one before acknowledged; None if there is none within the time, or none any more."""
        engine, topic = self._source.engine, self._source.topic
        check.process(self._pid, "this loop over batches")
        if not self._owner:
            clients.join(self._source, self.client)
            self._owner = engine.owner(self._wish.owner)
        until = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while True:
                self._linger()
                batch = self._next()
                if batch is not None:
                    return batch
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return None
                engine.wait(lambda: engine.has_work(topic, self.client, self._owner), left_s, clients.TICK_S)
        except ForkError:
            raise
        except ClosedError:
            if self._wish.follow and self._open() is None:
                return None  # what follows a log ends with it; of a batch that was not acknowledged, it says so
            raise

    def _open(self) -> Batch | None:
        """The batch that is being worked on."""
        return self._batch if self._batch is not None and self._batch._ended is None else None

    def _next(self) -> Batch | None:
        """Acknowledge the batch before, if it is still open, and take the next, in one commit; bury what fails."""
        while True:
            claim = self._advance()
            if claim is None:
                return None
            batch = self._batch = Batch(self._source, claim, self._sibling, self._wish.messages)
            if self._wish.attempts is None or claim.attempt <= self._wish.attempts:
                return batch
            try:
                batch._bury(self._wish.dead_letter, batch.error or "its reader stopped, without saying why")
            except BaseException:
                batch._leave()  # and no `release(error)`: why it failed before is what its letters will say
                raise
            self._buried(batch)

    def _advance(self) -> Claim | None:
        done = self._open()
        engine, topic = self._source.engine, self._source.topic
        if done is None and not engine.has_work(topic, self.client, self._owner):
            self._batch = None
            return None
        was_doubtful, self._is_doubtful = self._is_doubtful, True
        try:
            claim, went = engine.advance(
                topic,
                self.client,
                self._wish.size,
                self._owner,
                None if done is None else done._claim,
                () if done is None else done._outputs(),
            )
        except ClaimLostError:
            self._batch, self._is_doubtful = None, False
            if was_doubtful:  # the call that was interrupted had acknowledged it
                return self._advance()
            raise
        except Error:
            self._is_doubtful = False
            raise
        if done is not None:
            done._acknowledged(went)
        self._batch, self._is_doubtful = None, False
        return claim

    def _linger(self) -> None:
        """Wait a while for a batch to fill, unless there is enough already; the one before need not wait for that."""
        engine, topic, size = self._source.engine, self._source.topic, self._wish.size.messages

        def waiting() -> int:
            found = engine.client(topic, self.client)
            return 0 if found is None else len(found.unclaimed)

        if not self._wish.linger_s or waiting() >= size:
            return
        if (batch := self._open()) is not None:
            batch.ack()
        until = time.monotonic() + self._wish.linger_s
        while 0 < waiting() < size and (left_s := until - time.monotonic()) > 0:
            engine.wait(lambda: waiting() >= size, left_s, clients.TICK_S)

    def close(self) -> None:
        """End it: a batch that is open is released."""
        self._is_closed = True
        if self._batch is not None and self._pid == os.getpid():
            self._batch.release()

    def __del__(self) -> None:
        batch: Batch | None = getattr(self, "_batch", None)
        if batch is not None and self._is_loop:
            batch._leave()


class OneByOne:
    """`get_one`: a message a call; each call of a thread acknowledges what its call before was handed.

    A message is a batch of one, so several threads and processes may share a client; what a thread had when it ended
    comes again. One for all topics of a log, which may be asked for again at each call.
    """

    def __init__(self) -> None:
        self._mine = threading.local()

    def get_one(self, source: Source, client: str | int | None, timeout: float | None, messages: bool) -> Any:
        """The next message of a client."""
        wait_s = timeout_s(timeout)
        reader = self._reader(source, client)
        batch = reader.take(wait_s)
        if batch is None:
            within = "" if timeout is None else f" within {timeout} s"
            raise Empty(f"no message for client {reader.client!r} of topic {source.topic.name!r}{within}")
        try:
            (message,) = batch.messages()
        except BaseException as error:
            batch.release(error)
            raise
        return message if messages else message.value

    def _reader(self, source: Source, client: str | int | None) -> Batches:
        name = clients.client_name(client)
        readers: dict[tuple[int, str, str], Batches] = self._mine.__dict__.setdefault("readers", {})
        of = (os.getpid(), source.topic.name, name)  # what was handed out before a fork is the parent's
        if of not in readers:
            readers[of] = Batches(source, name, Wish(Size(1)), _nothing_is_put)
        return readers[of]


def _nothing_is_put(topic: str, codec: str) -> Source:
    """For batches that nobody sees. (A topic's own way to its siblings would keep the log alive that keeps them.)"""
    raise AssertionError(f"a single message puts nothing into {topic!r}")
