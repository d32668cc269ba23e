"""What the cluster is really set to, compared with what pqlog promises.

A message that is acknowledged is on the disks of two machines at least, and stays until it is trimmed. That depends on
settings of each topic and of the topic in which Kafka keeps its transactions. They are read when a log is opened; a
cluster that is set to less is refused, with the setting named, unless that was accepted by its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, NewTopic, ResourceType

from pqlog.errors import ArgumentError, UnsafeStorageError
from pqlog.store.kafka.faults import GONE, PASSING, Heard, code, patient, told

COPIES = 3
IN_SYNC = 2
MAX_BYTES = 64 << 20
"""The largest message of a topic of ours: below what a broker takes in one request (100 MB unless it is set)."""
IDS_KEPT_MS = 30 * 24 * 3600 * 1000
DELETIONS_KEPT_MS = 24 * 3600 * 1000
"""How long a deletion must be seen in a compacted topic: longer than a process reads on from where it was."""
TRANSACTIONS = "__transaction_state"
_REQUEST_S = 10.0


class Durability(StrEnum):
    """What a message that is acknowledged survives."""

    SYNCED = "synced"
    """A power cut of all machines at once: two have synced it to disk. The promise, unless another is named."""
    REPLICATED = "replicated"
    """The loss of a machine: two of three have it, in memory at least."""
    DEVELOPMENT = "development"
    """Nothing: any cluster will do, such as one broker on a laptop."""

    @classmethod
    def of(cls, name: str) -> Durability:
        """The one that a user named."""
        if name not in list(cls):
            names = ", ".join(repr(str(each)) for each in cls)
            raise ArgumentError(f"durability is one of {names}, not {name!r}")
        return cls(name)


class Kind(Enum):
    """What a topic is for."""

    MESSAGES = "messages"
    STATE = "state"
    IDS = "ids"
    TRANSACTIONS = "transactions"


@dataclass(frozen=True)
class Settings:
    """What a topic is set to; `values` by the names of Kafka's topic settings."""

    copies: int
    values: Mapping[str, str]
    own: frozenset[str] = frozenset()
    """Which of them were set for the topic. The others are those of its brokers, of which each may have its own."""

    @property
    def max_bytes(self) -> int:
        """The largest message, or batch of messages, that it takes."""
        return int(self.values["max.message.bytes"])


# Topics of ours


def new_topic(name: str, partitions: int, kind: Kind, durability: Durability, brokers: int) -> NewTopic:
    """A topic with the settings that the promise needs; `brokers` counts only where nothing is promised."""
    weak = durability is Durability.DEVELOPMENT
    copies = min(COPIES, brokers) if weak else COPIES
    config = {
        "min.insync.replicas": str(min(IN_SYNC, copies)),
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "LogAppendTime",
        **_CONFIG[kind],
    }
    if durability is Durability.SYNCED:
        config["flush.messages"] = "1"
    return NewTopic(name, num_partitions=partitions, replication_factor=copies, config=config)


_SMALL = {
    # Compacted soon, so that it is read quickly when a log is opened.
    "segment.bytes": str(8 << 20),
    "segment.ms": str(10 * 60 * 1000),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(7 * DELETIONS_KEPT_MS),
    "max.message.bytes": str(8 << 20),
}
_CONFIG: dict[Kind, dict[str, str]] = {
    Kind.MESSAGES: {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(MAX_BYTES),
    },
    Kind.STATE: {"cleanup.policy": "compact", **_SMALL},
    Kind.IDS: {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(IDS_KEPT_MS),
        "retention.bytes": "-1",
        **_SMALL,
    },
}


def is_ours(settings: Settings) -> bool:
    """Whether a topic was made for messages of a log: other programs hardly choose all of these settings."""
    wanted = {"message.timestamp.type": "LogAppendTime", **_CONFIG[Kind.MESSAGES]}
    del wanted["max.message.bytes"]  # users change it
    return settings.own >= wanted.keys() and all(settings.values[name] == value for name, value in wanted.items())


# Reading


def read_settings(
    admin: AdminClient, topics: Iterable[str], timeout_s: float, heard: Heard | None = None, missing_s: float = 2.0
) -> dict[str, Settings]:
    """What topics are set to; those that do not exist are left out.

    `missing_s` is how long a broker may not know of a topic that another has just created.
    """
    names, until = list(topics), time.monotonic() + missing_s

    def once(_: float) -> dict[str, Settings]:
        copies = _copies(admin, names)
        values = _values(admin, copies)
        return {name: Settings(copies[name], *values[name]) for name in copies if name in values}

    while True:
        found = patient(once, "reading the settings of topics", timeout_s, heard)
        if len(found) == len(names) or time.monotonic() > until:
            return found
        time.sleep(0.1)


def _copies(admin: AdminClient, names: list[str]) -> dict[str, int]:
    """On how many brokers each topic is kept, in the partition that has the fewest."""
    if not names:
        return {}
    found = _results(admin.describe_topics(TopicCollection(names), request_timeout=_REQUEST_S), "reading the topic")
    return {name: min(len(each.replicas) for each in topic.partitions) for name, topic in found.items()}


def _values(
    admin: AdminClient, names: Iterable[str], **broker: int
) -> dict[str, tuple[dict[str, str], frozenset[str]]]:
    """The settings of topics, defaults of the broker included, and which of them are the topic's own."""
    wanted = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not wanted:
        return {}
    answers = admin.describe_configs(wanted, request_timeout=_REQUEST_S, **broker)
    found = _results({each.name: future for each, future in answers.items()}, "reading the settings of the topic")
    return {name: (_plain(entries), _own(entries)) for name, entries in found.items()}


def _results(futures: Mapping[str, Any], doing: str) -> dict[str, Any]:
    """What futures bring, without those whose topic is gone."""
    found = {}
    for name, future in futures.items():
        try:
            found[name] = future.result()
        except KafkaException as error:
            if code(error) in PASSING:
                raise
            if code(error) not in GONE:
                raise told(error, f"{doing} {name!r}") from error
    return found


def _plain(entries: Mapping[str, Any]) -> dict[str, str]:
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def _own(entries: Mapping[str, Any]) -> frozenset[str]:
    """The settings that do not come from a broker; `source` is a number, or the enumeration."""
    topics = ConfigSource.DYNAMIC_TOPIC_CONFIG
    return frozenset(name for name, entry in entries.items() if entry.source in (topics, topics.value))


def _brokers(admin: AdminClient) -> list[int]:
    """The brokers that run."""
    return [node.id for node in admin.describe_cluster(request_timeout=_REQUEST_S).result().nodes]


def _planned_transactions(admin: AdminClient) -> Settings:
    """What Kafka will set its topic of transactions to: it is made when the first transaction begins, by any broker."""
    found = []
    for broker in _brokers(admin):
        wanted = [ConfigResource(ResourceType.BROKER, str(broker))]
        (future,) = admin.describe_configs(wanted, request_timeout=_REQUEST_S).values()
        found.append(_plain(future.result()))
    return planned(found)


def planned(brokers: Sequence[Mapping[str, str]]) -> Settings:
    """The weakest that brokers with these settings would set the topic of transactions to."""
    flush = max(int(one.get("log.flush.interval.messages", 2**63 - 1)) for one in brokers)
    return Settings(
        min(int(one["transaction.state.log.replication.factor"]) for one in brokers),
        {
            "min.insync.replicas": str(min(int(one["transaction.state.log.min.isr"]) for one in brokers)),
            "unclean.leader.election.enable": "false",
            "flush.messages": str(flush),
            "cleanup.policy": "compact",
        },
    )


def _by_all_brokers(admin: AdminClient, settings: Mapping[str, Settings]) -> dict[str, Settings]:
    """The same; where a topic leaves the syncs to its brokers, those of the broker that syncs least."""
    name, found = "flush.messages", dict(settings)
    left = [topic for topic, one in found.items() if name in one.values and name not in one.own]
    for broker in _brokers(admin) if left else ():
        for topic, (values, _) in _values(admin, left, broker=broker).items():
            weakest = max(int(found[topic].values[name]), int(values.get(name, 2**63 - 1)))
            found[topic] = replace(found[topic], values={**found[topic].values, name: str(weakest)})
    return found


# Comparing


def check_promise(
    admin: AdminClient,
    topics: Mapping[str, Kind],
    durability: Durability,
    timeout_s: float,
    heard: Heard | None = None,
) -> dict[str, Settings]:
    """The settings of topics of ours, if they and Kafka's transactions keep the promise; without those that are gone.

    Raises
    ------
    UnsafeStorageError
        A setting is weaker: which, of which topic, what it is, what it must be and how it is changed.
    """
    found = read_settings(admin, topics, timeout_s, heard)
    kafkas = read_settings(admin, [TRANSACTIONS], timeout_s, heard, missing_s=0.5)
    if durability is Durability.SYNCED:
        both = {**found, **kafkas}
        weakest = patient(
            lambda _: _by_all_brokers(admin, both), "reading the settings of all brokers", timeout_s, heard
        )
        found, kafkas = ({name: weakest[name] for name in some} for some in (found, kafkas))
    transactions = kafkas.get(TRANSACTIONS)
    if transactions is None and durability is not Durability.DEVELOPMENT:
        transactions = patient(
            lambda _: _planned_transactions(admin),
            f"reading the settings of the brokers, since {TRANSACTIONS!r} does not exist",
            timeout_s,
            heard,
        )
    faults = [fault for name, each in found.items() for fault in weaker(name, topics[name], each, durability)]
    if transactions is not None:
        faults += weaker(TRANSACTIONS, Kind.TRANSACTIONS, transactions, durability)
    if faults:
        raise UnsafeStorageError(f"the cluster is set to less than pqlog promises: {'. '.join(faults)}")
    return found


@dataclass(frozen=True)
class _Rule:
    """A setting, what it must be, and what would happen otherwise."""

    name: str
    holds: Callable[[str], bool]
    wanted: str
    otherwise: str


_SYNC = _Rule(
    "flush.messages", lambda value: value == "1", "1", "a power cut of all machines loses acknowledged messages"
)
_COPIED = (
    _Rule(
        "min.insync.replicas",
        lambda value: int(value) >= IN_SYNC,
        str(IN_SYNC),
        "a message is acknowledged that only one machine has",
    ),
    _Rule(
        "unclean.leader.election.enable",
        lambda value: value == "false",
        "false",
        "a machine that lacks acknowledged messages may take over",
    ),
)
_FOREVER = tuple(
    _Rule(name, lambda value: int(value) == -1, "-1", "Kafka deletes messages that nobody trimmed")
    for name in ("retention.ms", "retention.bytes")
)
_TIMES = _Rule(
    "message.timestamp.type", lambda value: value == "LogAppendTime", "LogAppendTime", "times of messages run backwards"
)
_DELETIONS = _Rule(
    "delete.retention.ms",
    lambda value: int(value) >= DELETIONS_KEPT_MS,
    str(DELETIONS_KEPT_MS),
    "a process that slept takes for there what was deleted meanwhile",
)
_KEPT = {
    Kind.MESSAGES: (
        _Rule(
            "cleanup.policy", lambda value: value == "delete", "delete", "Kafka removes messages that have a newer one"
        ),
        *_FOREVER,
        _TIMES,
    ),
    Kind.STATE: (
        _Rule("cleanup.policy", lambda value: value == "compact", "compact", "positions are deleted with age"),
        _TIMES,
        _DELETIONS,
    ),
    Kind.IDS: (
        _Rule(
            "retention.ms",
            lambda value: int(value) == -1 or int(value) >= IDS_KEPT_MS,
            str(IDS_KEPT_MS),
            "a put with an id is repeated sooner than is promised",
        ),
        _Rule("retention.bytes", lambda value: int(value) == -1, "-1", "ids are forgotten sooner than is promised"),
        _TIMES,
        _DELETIONS,
    ),
    Kind.TRANSACTIONS: (),
}


def weaker(name: str, kind: Kind, settings: Settings, durability: Durability) -> list[str]:
    """How a topic is weaker than the promise, a sentence for each setting."""
    return list(_weaker(name, kind, settings, durability))


def _weaker(name: str, kind: Kind, settings: Settings, durability: Durability) -> Iterator[str]:
    promised = durability is not Durability.DEVELOPMENT
    if promised and settings.copies < COPIES:
        yield (
            f"Topic {name!r} has a replication factor of {settings.copies}, which must be {COPIES}, or the loss of a "
            f"disk loses messages: {_more_copies(kind)}. For a try on a cluster of less than three brokers there is "
            f"durability='development'"
        )
    rules = (*_KEPT[kind], *(_COPIED if promised else ()), *((_SYNC,) if durability is Durability.SYNCED else ()))
    for rule in rules:
        value = settings.values.get(rule.name, "unknown")
        if value == "unknown" or not rule.holds(value):
            yield (
                f"Topic {name!r} has {rule.name}={value}, which must be {rule.wanted}, or {rule.otherwise}: "
                f"{_command(name, rule)}{_ACCEPT if rule is _SYNC else ''}"
            )


_ACCEPT = ", or rely on three machines instead of a sync with durability='replicated'"


def _command(name: str, rule: _Rule) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server ... --alter --entity-type topics --entity-name {name} "
        f"--add-config {rule.name}={rule.wanted}"
    )


def _more_copies(kind: Kind) -> str:
    if kind is Kind.TRANSACTIONS:
        return (
            "transaction.state.log.replication.factor=3 on the brokers, and kafka-reassign-partitions.sh if it exists"
        )
    return "kafka-reassign-partitions.sh with three replicas for each partition"
