"""The private parts that tests use, in one place; each says why no public name will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pqlog.store.sqlite.held_claims import HeldClaims
from pqlog.store.values import ClientState, Output, Put, Row, Singles, Span

if TYPE_CHECKING:
    import apsw

    from pqlog import Topic


def put_encoded(topic: Topic, *encoded: bytes) -> None:
    """Put values as raw bytes, whatever the topic's codec: no public call puts bytes that cannot be decoded."""
    (partition,) = topic.stream.partitions
    partition.log.append([Output(partition, [Singles(list(encoded))])])


def rows(topic: Topic) -> list[Row]:
    """The rows of a topic as they are stored: no public call shows where a segment begins."""
    return list(topic.store.read(topic.store.span(), 1 << 20, 1 << 30))


def checkpoint(topic: Topic) -> None:
    """Run a checkpoint now; the log itself decides when it runs one."""
    log: Any = topic.store.log
    log.checkpoint()


def connection(topic: Topic) -> apsw.Connection:
    """The connection that writes: for hooks of SQLite, and for reading tables within the process."""
    log: Any = topic.store.log
    db: apsw.Connection = log._file._db
    return db


def spans(topic: Topic) -> Sequence[Span]:
    """What is kept of each partition, also of an empty one, where `first` is None."""
    return [partition.span() for partition in topic.stream.partitions]


def find_id(topic: Topic, id: str) -> Mapping[int, Put] | None:
    """The offsets of the messages of a call with an id: asking by putting again could change the answer."""
    return topic.stream.partitions[0].find_id(id)


def join(topic: Topic, client: str) -> None:
    """Create a client, as its first call does, and nothing else, so that a power cut can follow directly."""
    for partition in topic.stream.partitions:
        partition.client(client).join()


def states(topic: Topic, client: str) -> Sequence[ClientState | None]:
    """Where a client stands in each partition; None where it has not been yet.

    No public call says where its next batch begins without taking it, and how many it had of each partition.
    """
    return [partition.client(client).state() for partition in topic.stream.partitions]


def waiting(topic: Topic) -> int:
    """How many threads wait for messages: nothing public shows it."""
    log: Any = topic.store.log
    return len(log._watch._waiters)


def held_claims(topic: Topic) -> HeldClaims:
    """The claims that this process knows it holds; forgetting them makes it act like another process."""
    log: Any = topic.store.log
    held_claims: HeldClaims = log.held_claims
    return held_claims


class Reads:
    """Counts the rows that are read from now on: the promise is that they are few."""

    def __init__(self, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        store: Any = topic.store
        read = store.read

        def counted(*arguments: Any, **keywords: Any) -> Any:
            found = read(*arguments, **keywords)
            self.rows += len(found)
            return found

        monkeypatch.setattr(store, "read", counted)
        monkeypatch.setattr(store, "read_lines", lambda *_: None)  # the other way to read, which is not counted
