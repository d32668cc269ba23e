"""A lane as this process knows it, and a transaction that reads and changes some of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from confluent_kafka import Producer

from pqlog.errors import ArgumentError
from pqlog.store.kafka.cluster import TRANSACTION_MS
from pqlog.store.kafka.damaged import sound
from pqlog.store.kafka.state import Entry, Tail
from pqlog.store.kafka.transactions import Sending, dispose
from pqlog.store.values import Output, Put

MARK, CONFIRMED = "mark/", "confirmed"
"""Keys that each lane has in addition: the marks of holders, and what confirms that a lane is held."""

LONGEST_NAME = 30_000
"""The name of a lane is part of a transactional id, for which Kafka has 32,767 bytes."""


class PutsAll(Protocol):
    """What puts outputs in a transaction."""

    def __call__(self, tx: Transaction, outputs: Sequence[Output], /) -> list[Put]: ...


@dataclass(eq=False)
class Lane:
    """A lane as this process knows it."""

    name: str
    tail: Tail
    lock: threading.RLock = field(default_factory=threading.RLock)
    producer: Producer | None = None
    timeout_ms: int = TRANSACTION_MS
    """How long a transaction of the producer may take."""
    foreign: dict[str, bytes] | None = None
    """The marks of others when it was taken; None if it is not held."""
    own: dict[str, Entry | None] = field(default_factory=dict)
    """What was committed since. Its times are never compared with others."""
    is_in_doubt: bool = False
    """Whether what this process knows of it may lack a commit: it must be read again before it is used."""
    old_marks: list[str] = field(default_factory=list)
    used: float = 0.0

    def entries(self) -> dict[str, Entry]:
        """Everything in it, marks included."""
        found = self.tail.lane(self.name)
        for key, entry in dict(self.own).items():
            found.pop(key, None)
            if entry is not None:
                found[key] = entry
        return found

    def entry(self, key: str) -> Entry | None:
        """One value."""
        return self.own[key] if key in self.own else self.tail.entry(self.name, key)

    def lose(self) -> None:
        """It is not held any more."""
        self.drop()
        self.foreign = None
        self.own = {}
        self.is_in_doubt = False

    def drop(self) -> None:
        """Give up the producer. What is known stays true until another process changes the lane."""
        producer, self.producer = self.producer, None
        if producer is not None:
            dispose(producer)


class Transaction:
    """What one transaction reads and changes. It is used by the thread that calls `work`, and only meanwhile."""

    def __init__(self, lanes: Mapping[str, Lane], sending: Sending, put_all: PutsAll) -> None:
        self._lanes, self.sending, self._put_all = lanes, sending, put_all
        self.sets: dict[tuple[str, str], Any] = {}
        self.unwritten = set[tuple[str, str]]()
        """Which of them were not sent yet."""
        self.is_marked = False
        self.checked = set[int]()
        """The topics that were found to exist meanwhile."""
        self.write: Callable[[], object] = lambda: None
        """Sends what is set so far, and the mark."""
        self.after: list[Callable[[], object]] = []
        """What is to be called once it is committed."""

    def values(self, name: str) -> dict[str, Any]:
        """The lane's state, exact, with what was set in this transaction; the caller's to change.

        A value that somebody else wrote is a `Damaged`.
        """
        found = shown(self._lanes[name].tail, name, self._lanes[name].entries())
        for (lane, key), value in self.sets.items():
            if lane == name:
                found.pop(key, None)
                if value is not None:
                    found[key] = value
        return found

    def value(self, name: str, key: str) -> Any:
        """One value of a lane; None if there is none."""
        if (name, key) in self.sets:
            return self.sets[name, key]
        lane = self._lanes[name]
        entry = lane.entry(key)
        return None if entry is None else sound(lane.tail.read(name, key, entry))

    def set(self, name: str, key: str, value: Any) -> None:
        """Set a value, which can be written as JSON; None removes it."""
        assert name in self._lanes, "a lane that was not asked for"
        self.sets[name, key] = value
        self.unwritten.add((name, key))

    def flush(self) -> None:
        """Wait until everything so far is written: the state together with the messages, to wait once for both."""
        self.write()
        self.sending.flush()

    def put_all(self, outputs: Sequence[Output]) -> list[Put]:
        """Put into partitions of topics; where each went. The lanes of `lanes_for` must be there."""
        return self._put_all(self, outputs)


def lanes_for(outputs: Sequence[Output]) -> list[str]:
    """The lanes that putting some outputs needs: where their messages have ids, those of the topics' ids."""
    return sorted({id_lane(one.topic) for one in outputs if one.ids is not None})


def id_lane(topic: Any) -> str:
    """The lane of the ids of a topic, which is given by any of its partitions."""
    return f"id/{topic.topic_id}"


def name_in_lane(what: str, name: str) -> str:
    """The name of a client or a cursor, if a lane can have it."""
    size = len(name.encode())
    if size > LONGEST_NAME:
        raise ArgumentError(f"{what} has {size:,} bytes, and a cluster takes {LONGEST_NAME:,}: {name[:20]!r}...")
    return name


def shown(tail: Tail, lane: str, entries: Mapping[str, Entry] | None = None) -> dict[str, Any]:
    """The values of a lane that are not ours, as they are in a tail or in `entries`."""
    found = tail.lane(lane) if entries is None else entries
    return {key: tail.read(lane, key, entry) for key, entry in found.items() if is_shown(key)}


def is_shown(key: str) -> bool:
    """Whether a key is not one of ours."""
    return key != CONFIRMED and not key.startswith(MARK)
