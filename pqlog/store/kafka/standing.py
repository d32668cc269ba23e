"""Where a client of a partition stands: the value that its lane keeps in the state of the log."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pqlog.store.kafka.damaged import sound
from pqlog.store.values import Claim, ClientState, Span

KEY = "client"
"""Of the one value in a client's lane."""


def lanes_of(topic_id: int, partition: int) -> str:
    """What the names of the lanes of all clients of a partition begin with."""
    return f"client/{topic_id}/{partition}/"


def random_number() -> int:
    """A number that was never given before, for epochs and tokens."""
    return secrets.randbits(62)


class Lease(msgspec.Struct):
    """A batch that was handed out and is not acknowledged."""

    number: int
    first: int
    stop: int
    messages: int
    token: int = 0
    attempt: int = 0
    process: str = ""
    """That which holds it; empty if it was released."""
    worker: str = ""
    expires: int = 0
    """By the cluster's clock: microseconds since 1970, UTC."""
    error: str | None = None

    def release(self, error: str | None) -> None:
        """It is free."""
        self.process, self.worker, self.error = "", "", error

    def hand_out(self, token: int, worker: str, process: str, expires: int) -> None:
        """It has a holder, again or for the first time."""
        self.token, self.attempt = token, self.attempt + 1
        self.worker, self.process, self.expires = worker, process, expires

    def claim(self, client: str, epoch: int, is_free: bool = False) -> Claim:
        """The same as the seam has it."""
        owner = "" if is_free or not self.process else f"{self.worker}|{self.process}"
        span = Span(self.first, self.stop)
        told = self.token, self.attempt, owner, self.expires, self.error
        return Claim(client, epoch, self.number, span, self.messages, *told)


class Standing(msgspec.Struct):
    """A client of a partition."""

    position: int
    claimed: int
    """Everything before it was acknowledged or cut into batches."""
    epoch: int
    seen: int
    batches: int = 0
    claims: list[Lease] = []
    process: str = ""
    """That which was handed a batch last, and has not left since."""
    active: int = 0
    """When it was, or acknowledged one, by the cluster's clock."""

    @classmethod
    def begin(cls, at: int, batches: int = 0) -> Standing:
        """One that gets the message at an offset next, in a new epoch."""
        return cls(at, at, random_number(), _now(), batches)

    @classmethod
    def found_in(cls, values: Mapping[str, Any]) -> Standing | None:
        """That which a lane keeps; None if the client does not exist."""
        value = sound(values.get(KEY))
        return None if value is None else msgspec.convert(value, cls)

    def value(self) -> dict[str, Any]:
        """The same for the lane to keep."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value

    def state(self, client: str, kept: Span, count: Callable[[Span], int]) -> ClientState:
        """The same as the seam has it, given what is kept of the partition, and what counts its messages."""
        unread, unclaimed = (Span(max(at, kept.first), kept.stop) for at in (self.position, self.claimed))
        return ClientState(
            client=client,
            position=unread.first,
            lag=count(unread),
            batches=self.batches,
            epoch=self.epoch,
            seen=self.seen,
            open=bool(self.claims),
            unread=unread,
            unclaimed=unclaimed,
        )

    def hand_out(self, lease: Lease, token: int, worker: str, process: str, now: int, expires: int) -> None:
        """A batch of it has a holder, again or for the first time."""
        lease.hand_out(token, worker, process, expires)
        self.process, self.active = process, now
        self.saw()

    def leave(self, process: str) -> None:
        """A process has no more to do with it, for all that it knows."""
        if process == self.process and not any(lease.process == process for lease in self.claims):
            self.process = ""

    def saw(self) -> None:
        """Its reader was here."""
        self.seen = _now()

    def find(self, number: int, token: int) -> Lease | None:
        """A batch, if nobody else has it by now."""
        return next((lease for lease in self.claims if (lease.number, lease.token) == (number, token)), None)

    def is_of(self, worker: str) -> bool:
        """Whether a worker of that name has a batch."""
        return bool(worker) and any(lease.worker == worker for lease in self.claims)

    def drop(self, lease: Lease) -> None:
        """Forget a batch; everything before the first that is left is acknowledged."""
        self.claims.remove(lease)
        self.position = min((left.first for left in self.claims), default=self.claimed)

    def cut(self, span: Span, messages: int) -> Lease:
        """A new batch, of messages that are in none."""
        self.batches, self.claimed = self.batches + 1, span.stop
        self.claims.append(Lease(self.batches, span.first, span.stop, messages))
        return self.claims[-1]

    def lacks(self, offset: int, epoch: int) -> bool:
        """Whether an acknowledgement of everything up to an offset still changes something.

        What was acknowledged before the client was moved does not count, nor what somebody else has in a batch by now.
        """
        return epoch == self.epoch and not self.claims and offset >= self.position

    def acknowledge(self, offset: int) -> None:
        """Acknowledge everything up to an offset."""
        self.position = Span.at(offset).stop
        self.claimed = max(self.claimed, self.position)
        self.saw()


def _now() -> int:
    """For people: nothing depends on it."""
    return time.time_ns() // 1000
