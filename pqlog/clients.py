"""Clients: named readers of a topic, how far each has come, and what comes next for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

from pqlog import check, extras
from pqlog.errors import ArgumentError, ClaimedError, UnknownClientError
from pqlog.history import Time, micros_of
from pqlog.message import from_micros
from pqlog.source import CHUNK_BYTES, CHUNK_ROWS, Source
from pqlog.store.api import ClientInfo, Moved

TICK_S = 0.005
"""How soon the messages of another process are noticed, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a client stands.

    Attributes
    ----------
    client : str
        Its name.
    position : int
        The last offset that it has acknowledged; 0 if none.
    lag : int
        How many messages it has not acknowledged.
    batches : int
        The number of its latest batch.
    open : int
        How many batches are handed out to it and not acknowledged.
    attempt : int
        How often the most often handed out of those was: 1 in a smooth run, more where one fails again and again.
    seen : datetime.datetime
        When it last moved, UTC.
    """

    client: str
    position: int
    lag: int
    batches: int
    open: int
    attempt: int
    seen: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch that is handed out and not acknowledged.

    Attributes
    ----------
    number : int
        The batch's number.
    first, last : int
        The offsets of its first and last message.
    attempt : int
        How often it was handed out.
    owner : str
        Who holds it: the worker's name, host and process; empty if it was released.
    expires : datetime.datetime
        Until when that is respected where nothing is known of the process, UTC; a living owner puts it off.
    error : str or None
        Why it was released, if by an exception.
    """

    number: int
    first: int
    last: int
    attempt: int
    owner: str
    expires: datetime
    error: str | None


class Clients(Sequence[Client]):
    """The clients of a topic: a sequence that prints as a table; ``pandas.DataFrame(clients)`` makes a frame.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(list("abc"))
    range(1, 4)
    >>> list(log.get("billing"))
    ['a', 'b', 'c']
    >>> clients = log.clients()
    >>> len(clients), clients[0].client, clients[0].lag
    (1, 'billing', 0)
    """

    def __init__(self, clients: Sequence[Client], messages: int = 0) -> None:
        self._clients = tuple(clients)
        self.messages = messages
        """How many messages the topic kept when they were looked at."""

    def _repr_html_(self) -> str:
        return extras.views.clients_view(self)

    @overload
    def __getitem__(self, index: int) -> Client: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Client]: ...
    def __getitem__(self, index: int | slice) -> Client | Sequence[Client]:
        return self._clients[index]

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        head = ("client", "position", "lag", "batches", "open", "attempt", "last seen")
        rows = [
            (
                repr(c.client),
                f"{c.position:,}",
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
        raise ArgumentError(f"a client is named by a str or an int, not {client!r}")
    return check.text("the client's name", client)


def info(source: Source, client: str | int | None) -> ClientInfo:
    """A client that is known; raises `UnknownClientError`."""
    name = client_name(client)
    found = source.engine.client(source.topic, name)
    if found is None:
        raise UnknownClientError(
            name, source.topic.name, check.near(name, source.engine.clients_near(source.topic, name))
        )
    return found


def clients(source: Source) -> Clients:
    """All clients of a topic."""
    engine, topic = source.engine, source.topic
    found, batches = engine.clients(topic), engine.open_batches(topic)
    return Clients([of_info(c, *batches.get(c.client, (0, 0))) for c in found], len(engine.span(topic)))


def of_info(c: ClientInfo, batches: int = 0, attempt: int = 0) -> Client:
    """A client as it is shown."""
    return Client(c.client, c.position, c.lag, c.batches, batches, attempt, from_micros(c.seen))


def claims(source: Source, client: str | int | None) -> list[Claim]:
    """The batches of a client that are handed out."""
    name = info(source, client).client
    return [
        Claim(c.number, c.span.first, c.span.stop - 1, c.attempt, c.owner, from_micros(c.expires), c.error)
        for c in source.engine.claims(source.topic, name)
    ]


def join(source: Source, client: str | int | None) -> ClientInfo:
    """A client, made known if it is new; warns if it looks misspelt, since everything would come again."""
    name = client_name(client)
    found = source.engine.client(source.topic, name)
    if found is not None:
        return found
    similar = check.near(name, source.engine.clients_near(source.topic, name))
    if similar:
        meant = " or ".join(map(repr, similar))
        check.warn(f"client {name!r} is new and begins at the start; was {meant} meant?")
    return source.engine.join(source.topic, name)


def get(source: Source, client: str | int | None, messages: bool) -> Iterator[Any]:
    """What a client has not acknowledged, one by one; asking for the next acknowledges the one before."""
    name = client_name(client)
    return _get(source, name, messages)


def _get(source: Source, name: str, messages: bool) -> Iterator[Any]:
    engine, topic, pid = source.engine, source.topic, os.getpid()
    while True:
        client = join(source, name)
        if client.open:
            for claim in engine.claims(topic, name):
                raise ClaimedError(name, claim.number, claim.span.first, claim.span.stop - 1, topic.name)
        rows = engine.read(topic, client.unread, CHUNK_ROWS, CHUNK_BYTES)
        if not rows:
            return
        for message in source.messages(rows):
            yield message if messages else message.value
            check.process(pid, "this loop over messages")
            if not engine.acknowledge(topic, name, message.offset, client.epoch):
                break  # moved by seek meanwhile: go on from where it stands now


def get_blocking(source: Source, client: str | int | None, tick: float | None, messages: bool) -> Iterator[Any]:
    """Like `get`, but waits for more."""
    name, tick_s = client_name(client), check_tick(tick)
    return _get_blocking(source, name, tick_s, messages)


def _get_blocking(source: Source, name: str, tick_s: float, messages: bool) -> Iterator[Any]:
    while True:
        yield from _get(source, name, messages)
        source.engine.wait(lambda: _has_unread(source, name), None, tick_s)


def check_tick(tick: float | None) -> float:
    """Seconds between two looks for messages of other processes."""
    return TICK_S if tick is None else check.seconds("tick", tick, "above 0")


def seek(source: Source, client: str | int | None, to: int | str | Time) -> Moved:
    """Move a client to an offset, a time, or an end."""
    name = client_name(client)
    return source.engine.seek(source.topic, name, target(source, to))


def target(source: Source, to: int | str | Time) -> int:
    """The offset that an offset, a time, or an end stands for."""
    engine, topic = source.engine, source.topic
    kept = engine.span(topic)
    if to == "start":
        return kept.first
    if to == "end":
        return kept.stop
    if isinstance(to, int) and not isinstance(to, bool):
        return check.bounded(to) if to >= 0 else engine.from_end(topic, -to, kept)
    if isinstance(to, (float, bool)):
        raise ArgumentError(f'to is an offset (int), a time, "start" or "end", not {to!r}')
    return engine.offset_at(topic, micros_of(to))


def delete(source: Source, client: str | int | None) -> None:
    """Forget a client."""
    found = info(source, client)
    source.engine.delete_client(source.topic, found.client)


def _has_unread(source: Source, name: str) -> bool:
    found = source.engine.client(source.topic, name)
    return found is None or found.lag > 0
