"""Batches: checkpointed iteration. A batch's boundaries are durable before it is handed out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pqlog import clients
from pqlog.errors import ArgumentError
from pqlog.message import Message
from pqlog.readable import Readable
from pqlog.source import Source, Stretch
from pqlog.store.api import Claim


class Batch(Readable):
    """A run of consecutive messages, handed to a client as one.

    Attributes
    ----------
    number : int
        Counts the client's batches from 1. The same number always means the same messages, also after a crash and
        whatever `size` is asked for then.
    first, last : int
        The offsets of its first and last message.
    attempt : int
        How often it was handed out, this time included.
    client, topic : str
        Whose it is.
    token : str
        Client and number in one string that no other batch of any file has: key the output of a sink by it.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> log.put_many(range(5))
    range(1, 6)
    >>> [(batch.number, batch.first, batch.last, list(batch)) for batch in log.batches("etl", size=3)]
    [(1, 1, 3, [0, 1, 2]), (2, 4, 5, [3, 4])]
    """

    def __init__(self, source: Source, claim: Claim) -> None:
        self._source, self._claim = source, claim
        self.client, self.topic = claim.client, source.topic.name
        self.number, self.attempt = claim.number, claim.attempt
        self.first, self.last = claim.span.first, claim.span.stop - 1

    @property
    def token(self) -> str:
        parts = (self._source.engine.uuid, self.topic, self.client, str(self._claim.epoch), str(self.number))
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)

    def _stretch(self) -> Stretch:
        return Stretch(self._source, self._claim.span)

    def __len__(self) -> int:
        return len(self._claim.span)

    def __iter__(self) -> Iterator[Any]:
        """The values, in order."""
        return self._source.values(self._claim.span)

    def messages(self) -> Iterator[Message]:
        """The messages, in order."""
        return self._source.messages(self._source.rows(self._claim.span))

    def __repr__(self) -> str:
        return (
            f"<pqlog.Batch {self.number} of {self.client!r}, topic {self.topic!r}: offsets {self.first:,} to "
            f"{self.last:,}, attempt {self.attempt}>"
        )


def batches(source: Source, client: str | None, size: int) -> Iterator[Batch]:
    """Hand out batch after batch; asking for the next acknowledges the one before."""
    name = clients.client_name(client)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(f"size is a number of messages, 1 or more, not {size!r}")
    return _batches(source, name, size)


def _batches(source: Source, name: str, size: int) -> Iterator[Batch]:
    clients.join(source, name)
    claim = source.engine.advance(source.topic, name, None, size)
    while claim is not None:
        yield Batch(source, claim)
        claim = source.engine.advance(source.topic, name, claim, size)
