"""Clients: where the clients of a topic stand, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

from pqlog import check, extras
from pqlog.errors import ArgumentError
from pqlog.message import from_micros
from pqlog.store.api import TopicStore
from pqlog.store.values import Claim, ClientState

Position = int | Any
"""The offset of the next message that a client gets; of a topic of several partitions, a dict of them by partition."""
SHOWN = 4
"""Of how many partitions a table shows the position."""


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Where a client stands.

    Attributes
    ----------
    client : str
        Its name.
    position : int or dict of int to int
        The offset of the next message that it gets; in a topic with several partitions, for each of them.
    lag : int
        How many messages it has not acknowledged.
    batches : int
        How many batches it has been handed; in one partition, the number of the latest.
    open : int
        How many batches are handed out to it and not acknowledged.
    attempt : int
        The highest delivery count among those: 1 normally, more if a batch fails again and again.
    seen : datetime.datetime
        When it last moved, UTC.
    """

    client: str
    position: Position
    lag: int
    batches: int
    open: int
    attempt: int
    seen: datetime


@dataclass(frozen=True, slots=True)
class ClaimInfo:
    """A batch that is handed out and not acknowledged.

    Attributes
    ----------
    number : int
        The batch's number; it counts within its partition.
    first, last : int
        The offsets of its first and last message.
    attempt : int
        How often it was handed out.
    owner : str
        Who holds it: the worker's name, host and process; empty if it was released.
    expires : datetime.datetime or None
        The end of its lease, UTC; None if it was released. It counts only if the owner's process cannot be checked; a
        live owner renews it.
    error : str or None
        Why it was released, if by an exception.
    partition : int
        The number of the partition that it is of; 0 if the topic has one.
    """

    number: int
    first: int
    last: int
    attempt: int
    owner: str
    expires: datetime | None
    error: str | None
    partition: int = 0


class Clients(Sequence[ClientInfo]):
    """The clients of a topic: a sequence that prints as a table; ``pandas.DataFrame(clients)`` makes a frame.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(list("abc"))
    Put(first=1, last=3, messages=3)
    >>> list(log.get("billing"))
    ['a', 'b', 'c']
    >>> clients = log.clients()
    >>> len(clients), clients[0].client, clients[0].lag
    (1, 'billing', 0)
    """

    def __init__(self, clients: Sequence[ClientInfo], messages: int = 0) -> None:
        self._clients = tuple(clients)
        self.messages = messages
        """How many messages the topic kept when they were looked at."""

    def _repr_html_(self) -> str:
        return extras.views.clients_view(self)

    @overload
    def __getitem__(self, index: int) -> ClientInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ClientInfo]: ...
    def __getitem__(self, index: int | slice) -> ClientInfo | Sequence[ClientInfo]:
        return self._clients[index]

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        head = ("client", "position", "lag", "batches", "open", "attempt", "last seen")
        rows = [
            (
                repr(c.client),
                position_text(c.position),
                f"{c.lag:,}",
                f"{c.batches:,}",
                f"{c.open}",
                f"{c.attempt or ''}",
                f"{c.seen:%Y-%m-%d %H:%M:%S}",
            )
            for c in self._clients
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *rows)
        )


def client_name(client: str | int | None) -> str:
    """A client's name, checked; None is ``""``, and 7 is ``"7"``."""
    if client is None:
        return ""
    if isinstance(client, int) and not isinstance(client, bool):
        return str(client)
    if not isinstance(client, str):
        raise ArgumentError(f"the client's name must be a str or an int, not {client!r}")
    return check.text("the client's name", client)


def client_table(partitions: Sequence[TopicStore]) -> Clients:
    """All clients of a topic."""
    if len(partitions) == 1:
        (topic,) = partitions
        open_batches = topic.open_batches()
        found = [client_info(state, *open_batches.get(state.client, (0, 0))) for state in topic.clients()]
        return Clients(found, topic.count())
    by_name: dict[str, list[ClientState | None]] = {}
    opened: dict[str, list[tuple[int, int]]] = {}
    for index, topic in enumerate(partitions):
        for name, batches in topic.open_batches().items():
            opened.setdefault(name, []).append(batches)
        for state in topic.clients():
            by_name.setdefault(state.client, [None] * len(partitions))[index] = state
    found = [_client_of(partitions, states, opened.get(name, [])) for name, states in sorted(by_name.items())]
    return Clients(found, sum(topic.count() for topic in partitions))


def _client_of(
    partitions: Sequence[TopicStore], states: Sequence[ClientState | None], opened: Sequence[tuple[int, int]]
) -> ClientInfo:
    known = [state for state in states if state is not None]
    return ClientInfo(
        known[0].client,
        position_of(partitions, states),
        sum(lags_of(partitions, states).values()),
        sum(state.batches for state in known),
        sum(count for count, _ in opened),
        max((attempt for _, attempt in opened), default=0),
        from_micros(max(state.seen for state in known)),
    )


def position_of(partitions: Sequence[TopicStore], states: Sequence[ClientState | None]) -> Position:
    """Where a client stands, given its state in each partition of a topic: at the start where it has not been yet."""
    positions = {
        topic.info.partition: topic.span().first if state is None else state.position
        for topic, state in zip(partitions, states, strict=True)
    }
    return positions if len(partitions) > 1 else next(iter(positions.values()))


def lags_of(partitions: Sequence[TopicStore], states: Sequence[ClientState | None]) -> dict[int, int]:
    """How many messages of each partition it has not acknowledged, given the same."""
    return {
        topic.info.partition: topic.count() if state is None else state.lag
        for topic, state in zip(partitions, states, strict=True)
    }


def position_text(position: int | Mapping[int, int]) -> str:
    """A position as a table shows it: that of several partitions in part, if they are many."""
    if isinstance(position, int):
        return f"{position:,}"
    shown = [f"{number}: {offset:,}" for number, offset in position.items()]
    return ", ".join(shown if len(shown) <= SHOWN else [*shown[: SHOWN - 1], "...", shown[-1]])


def client_info(state: ClientState, open: int = 0, attempt: int = 0) -> ClientInfo:
    """A client of a topic of one partition as it is shown."""
    return ClientInfo(state.client, state.position, state.lag, state.batches, open, attempt, from_micros(state.seen))


def claim_info(claim: Claim, partition: int) -> ClaimInfo:
    """A batch that is handed out, as it is shown."""
    span, expires = claim.span, from_micros(claim.expires) if claim.owner else None
    return ClaimInfo(claim.number, span.first, span.last, claim.attempt, claim.owner, expires, claim.error, partition)
