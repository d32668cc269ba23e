"""The catalogue of a log: its topics, how far they were trimmed, and the log's own name, in one lane."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from pqlog.errors import CorruptLogError, Error
from pqlog.store.kafka.cluster import Cluster, is_allowed
from pqlog.store.kafka.damaged import Damaged, sound
from pqlog.store.kafka.lane import Transaction, shown
from pqlog.store.kafka.lanes import Lanes
from pqlog.store.kafka.shapes import CATALOGUE, GONE, LOG, TOPIC, TRIM, USED, Known
from pqlog.store.kafka.state import State
from pqlog.store.values import TopicInfo


class Seen(msgspec.Struct, frozen=True):
    """The catalogue at one moment."""

    topics: Mapping[int, Known]
    """By their ids, in the order in which they were created."""
    trims: Mapping[tuple[int, int], int]
    """Up to which offset partitions were trimmed: by the id of the topic and the number of the partition."""
    gone: Mapping[int, str]
    """Topics that were deleted, and may still be on the cluster."""

    damaged: Mapping[str, Damaged]
    """What somebody else wrote, by its key: it concerns those who need it."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Seen:
        """What is in the lane."""
        damaged = {key: value for key, value in values.items() if isinstance(value, Damaged)}
        topics = [msgspec.convert(value, Known) for value in _of(values, TOPIC).values()]
        trims = {(int(numbers[0]), int(numbers[1])): value for numbers, value in _of(values, TRIM).items()}
        gone = {int(numbers[0]): value for numbers, value in _of(values, GONE).items()}
        return cls({one.id: one for one in sorted(topics, key=lambda one: one.id)}, trims, gone, damaged)

    def all(self) -> list[Known]:
        """All topics."""
        for key, value in self.damaged.items():
            if key.startswith(TOPIC):
                value.tell()
        return list(self.topics.values())

    def named(self, name: str) -> Known | None:
        """The topic of a name."""
        found = next((one for one in self.topics.values() if one.name == name), None)
        return found or next((one for one in self.all() if one.name == name), None)

    def known(self, id: int) -> Known | None:
        """The topic of an id."""
        sound(self.damaged.get(f"{TOPIC}{id}"))
        return self.topics.get(id)

    def trimmed(self, id: int, partition: int) -> int:
        """The offset up to which a partition was trimmed."""
        sound(self.damaged.get(f"{TRIM}{id}/{partition}"))
        return self.trims.get((id, partition), 0)


def _of(values: Mapping[str, Any], kind: str) -> dict[tuple[str, ...], Any]:
    """The sound values of a kind, by the numbers in their keys."""
    found = {tuple(key.removeprefix(kind).split("/")): value for key, value in values.items() if key.startswith(kind)}
    many = 2 if kind == TRIM else 1
    return {
        numbers: value
        for numbers, value in found.items()
        if not isinstance(value, Damaged) and len(numbers) == many and all(map(str.isdecimal, numbers))
    }


class View:
    """The catalogue of a log for those who only look at it."""

    has_ids = False
    """Whether ids are looked at, too: who only reads needs no rights for them."""

    def __init__(self, state: State) -> None:
        self._state, self._tail = state, state.tail(CATALOGUE)
        self._seen: tuple[int, Seen] | None = None

    def look(self) -> Seen:
        """What there is by now."""
        self._state.check(self.has_ids)
        self._state.present(self._state.topic, self._tail.refresh)
        version = self._tail.version
        found = self._seen
        if found is None or found[0] != version:
            found = version, Seen.of(shown(self._tail, CATALOGUE))
            self._seen = found
        return found[1]

    def records(self, cluster: Cluster, since: int | None) -> list[tuple[TopicInfo, int]]:
        """All topics, with about how many records each keeps, or was put since a time."""
        topics = self.look().all()
        ms = None if since is None else since // 1000
        counts = cluster.records({one.kafka: one.partitions for one in topics}, ms)
        return [(one.info(), counts[one.kafka]) for one in topics]


class Catalogue(View):
    """The catalogue of a log.

    Parameters
    ----------
    lanes : Lanes
    state : State
    log : str
        The name of the log, with which those of its topics on the cluster begin.
    """

    has_ids = True

    def __init__(self, lanes: Lanes, state: State, log: str) -> None:
        super().__init__(state)
        self._lanes, self._log = lanes, log

    def uuid(self) -> str:
        """What distinguishes the log from all others; it is given one if it is new."""
        found = self._lanes.value(CATALOGUE, LOG)
        if found is None:
            found = self._lanes.change([CATALOGUE], _begin)
        name: str = found["uuid"]
        return name

    def create(
        self, name: str, codec: str, partitions: int, max_bytes: int, make: Callable[[str], bool], taken: Iterable[str]
    ) -> Known:
        """The topic of a name, created if there is none.

        `make` creates a topic on the cluster; False if there is one of that name. `taken` are names that are used.

        A name on the cluster is used once, and by the process that created the topic there. So what is deleted late,
        or put late, never hits another topic.
        """
        made: list[str] = []

        def work(tx: Transaction) -> Known:
            values = tx.values(CATALOGUE)
            seen = Seen.of(values)
            if (found := seen.named(name)) is not None:
                return found
            log = sound(values[LOG])
            id = log["next"]
            used = {one.kafka for one in seen.topics.values()}
            used |= {key.removeprefix(USED) for key in values if key.startswith(USED)}
            kafka = next((one for one in made if one not in used), None)
            if kafka is None:
                kafka = next(one for one in _names(self._log, name, id, {*used, *taken}) if make(one))
                made.append(kafka)
            known = Known(id, name, codec, partitions, kafka, max_bytes)
            tx.set(CATALOGUE, LOG, {**log, "next": id + partitions})
            tx.set(CATALOGUE, f"{TOPIC}{id}", msgspec.to_builtins(known))
            return known

        known = self._lanes.change([CATALOGUE], work)
        left = [kafka for kafka in made if kafka != known.kafka]
        if left:  # another process created the topic meanwhile
            with suppress(Error):  # they are empty, and in nobody's way
                self._lanes.change([CATALOGUE], partial(_leave, left))
        return known


def _begin(tx: Transaction) -> Any:
    found = tx.value(CATALOGUE, LOG)
    if found is None:
        if tx.values(CATALOGUE):
            raise CorruptLogError(f"the log has topics, and the record {LOG!r} of its state, with its id, was deleted")
        found = {"uuid": str(uuid.uuid4()), "next": 1}
        tx.set(CATALOGUE, LOG, found)
    return found


def _leave(made: Sequence[str], tx: Transaction) -> None:
    """Let topics be deleted that were created on the cluster in vain."""
    log = tx.value(CATALOGUE, LOG)
    for id, kafka in enumerate(made, log["next"]):
        tx.set(CATALOGUE, f"{GONE}{id}", kafka)
        tx.set(CATALOGUE, f"{USED}{kafka}", id)
    tx.set(CATALOGUE, LOG, {**log, "next": log["next"] + len(made)})


def _names(log: str, name: str, id: int, used: Iterable[str]) -> Iterator[str]:
    """Names on the cluster for a topic: its own, if Kafka allows that and it was never used; else others."""
    others = {one.replace(".", "_") for one in used}
    tries = [f"{log}.{name}", f"{log}.{name}-{id}", f"{log}.topic-{id}"]
    for kafka in tries:
        if is_allowed(kafka) and not name.startswith("__") and kafka.replace(".", "_") not in others:
            yield kafka
    while True:
        yield f"{tries[-1]}-{uuid.uuid4().hex[:8]}"
