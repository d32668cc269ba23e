"""Reading message by message: in turn from the partitions of a topic, acknowledged in steps."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

from pqlog import check, delivery
from pqlog.delivery import ClientPartition
from pqlog.errors import ClaimedError, Error
from pqlog.store.values import ClientState, Row, Span
from pqlog.stream import CHUNK_BYTES, CHUNK_ROWS, TopicStream

RUN_ROWS, RUN_BYTES = 100, 1 << 20
"""How much is delivered of one partition before it is the next one's turn; one row may be larger."""


class Steps(NamedTuple):
    """When what is done is acknowledged: after so many messages, or so many seconds, whichever comes first."""

    every: int = 1
    seconds: float = 1.0

    @classmethod
    def of(cls, ack_every: int, ack_seconds: float) -> Steps:
        """The parameters of `Client.get`, checked."""
        every = check.count("ack_every", ack_every, "messages")
        return cls(every, check.seconds("ack_seconds", ack_seconds))


def has_unread(partitions: Sequence[ClientPartition]) -> bool:
    """Whether there is something that a client has not acknowledged."""
    states = partitions[0].topic.log.states([one.client for one in partitions])
    return any(state is None or state.lag > 0 for state in states)


class Run(NamedTuple):
    """The next messages of one partition."""

    number: int
    """The partition's."""
    epoch: int
    """The client's when they were read."""
    items: Iterator[tuple[int, Any]]
    """The offset of each, and what the user gets: the message, or its value."""


class HandedOut:
    """What the clients of an open log have been handed and not acknowledged."""

    def __init__(self) -> None:
        self.single: dict[tuple[int, str], threading.local] = {}
        """What `get_one` handed out: for each topic and client, the batches of one message of each thread."""
        self.readings: weakref.WeakSet[Reading] = weakref.WeakSet()
        """Those that acknowledge in steps."""

    def acknowledge(self) -> None:
        """Before the log is closed: acknowledge what is done."""
        for reading in list(self.readings):
            reading.leave()


class Reading:
    """What a client gets message by message, and how far it is done.

    Parameters
    ----------
    partitions : sequence of ClientPartition
    steps : Steps
    handed_out : HandedOut
        That of the open log.
    messages : bool
        Whether the user gets `Message` objects instead of values.
    """

    def __init__(
        self, partitions: Sequence[ClientPartition], steps: Steps, handed_out: HandedOut, messages: bool = False
    ) -> None:
        self._partitions, self._steps, self._messages = partitions, steps, messages
        self._limits = (CHUNK_ROWS, CHUNK_BYTES) if len(partitions) == 1 else (RUN_ROWS, RUN_BYTES)
        self._turns: Iterator[ClientPartition] | None = None
        self._done: dict[int, tuple[int, int]] = {}
        """What is done and not acknowledged: the last offset and the epoch, by partition."""
        self._count, self._due = 0, 0.0
        self._pid = os.getpid()
        if steps.every > 1:
            handed_out.readings.add(self)

    def items(self) -> Generator[Any, None, None]:
        """All until there is nothing more. However it ends, what was asked past is acknowledged."""
        try:
            while (run := self.next_run()) is not None:
                for offset, item in run.items:
                    yield item
                    if self.note(run, offset) and not self.acknowledge():
                        break  # moved by seek meanwhile: continue at the new position
            self.acknowledge()
        except BaseException:  # also GeneratorExit: after a break, or an exception in the loop
            self.leave()
            raise

    def next_run(self) -> Run | None:
        """The next messages of a partition, of each in turn; None if none has any."""
        if self._turns is None:
            delivery.join(self._partitions)
            self._turns = itertools.cycle(self._oldest_first())
        for _ in self._partitions:
            one = next(self._turns)
            state = self._state(one)
            if rows := one.store.read(self._unread(one, state), *self._limits):
                return Run(one.number, state.epoch, self._items(one.topic, rows))
        return None

    def _items(self, topic: TopicStream, rows: Sequence[Row]) -> Iterator[tuple[int, Any]]:
        if self._messages:
            return ((message.offset, message) for message in topic.messages(rows))
        return topic.offsets_and_values(rows)

    def note(self, run: Run, offset: int) -> bool:
        """Note that the next message was asked for; whether what is done is to be acknowledged now."""
        if os.getpid() != self._pid:
            check.process(self._pid, "this loop over messages")
        now = time.monotonic()
        if not self._count:
            self._due = now + self._steps.seconds
        self._done[run.number] = offset, run.epoch
        self._count += 1
        return self._count >= self._steps.every or now >= self._due

    def acknowledge(self) -> bool:
        """Acknowledge what is done; False if the client was moved meanwhile."""
        is_in_place = True
        for one in self._partitions if self._done else ():
            if (done := self._done.get(one.number)) is not None:
                is_in_place &= one.client.acknowledge(*done)
                if self._done.get(one.number) == done:  # else more was done meanwhile, in the thread of the loop
                    del self._done[one.number]
        self._count = len(self._done)
        return is_in_place

    def leave(self) -> None:
        """The loop is over: acknowledge what is done; what fails comes again.

        A finalizer calls it, too. In the midst of a call of a log, for which a commit might wait for ever, it does
        nothing.
        """
        if self._done and self._pid == os.getpid() and not _is_within_a_store():
            with contextlib.suppress(Error):
                self.acknowledge()

    def _unread(self, one: ClientPartition, state: ClientState) -> Span:
        """What is to be read, behind what is done."""
        offset, epoch = self._done.get(one.number, (0, state.epoch))
        if epoch != state.epoch:
            del self._done[one.number]
        elif one.number in self._done:
            return Span(max(state.unread.first, Span.at(offset).stop), state.unread.stop)
        return state.unread

    def _state(self, one: ClientPartition) -> ClientState:
        """Where the client stands, without an open batch; created, in all partitions, if it was deleted meanwhile."""
        while True:
            state = one.client.state()
            if state is None:
                one.topic.log.join([each.client for each in self._partitions])
            elif not state.open:
                return state
            else:
                for claim in one.client.claims():
                    raise ClaimedError.of(claim, one.store.info)  # unless it was acknowledged meanwhile

    def _oldest_first(self) -> Sequence[ClientPartition]:
        """The partitions in turn, beginning with the one that has the oldest message for the client."""
        parts = self._partitions
        if len(parts) == 1:
            return parts
        places = zip(parts, parts[0].topic.log.states([one.client for one in parts]), strict=True)
        times = [state and one.store.time_at(state.position) for one, state in places]
        _, first = min(((time, index) for index, time in enumerate(times) if time is not None), default=(0, 0))
        return [*parts[first:], *parts[:first]]


def _is_within_a_store() -> bool:
    frame = sys._getframe(1)
    while (back := frame.f_back) is not None:
        frame = back
        if str(frame.f_globals.get("__name__")).startswith("pqlog.store."):
            return True
    return False
