"""What the brokers are set to, compared with the promise: each setting that is weaker is refused with its name."""

import os

import pytest

from pqlog.errors import ArgumentError, TooLargeError, UnsafeStorageError
from pqlog.store.kafka import faults, promise
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.promise import (
    MAX_BYTES,
    TRANSACTIONS,
    Durability,
    Kind,
    Settings,
    check_promise,
    new_topic,
    planned,
    read_settings,
    weaker,
)

OURS = (Kind.MESSAGES, Kind.STATE, Kind.IDS)


@pytest.fixture
def shared(cluster_url):
    """The shared cluster, and the name of a log on it."""
    address = Address.parse(cluster_url)
    cluster = Cluster(address, timeout_s=30)
    yield cluster, address.log
    cluster.close()


def made(shared, kind, durability=Durability.SYNCED, **changes):
    """A topic of a kind, with some settings changed."""
    cluster, log = shared
    topic = new_topic(f"{log}.{kind.value}", 1, kind, durability, 3)
    topic.config.update({name.replace("_", "."): value for name, value in changes.items()})
    cluster.make([topic])
    return topic.topic


def check(shared, topics, durability=Durability.SYNCED):
    return check_promise(shared[0].admin, topics, durability, 20)


def test_topics_of_ours_keep_the_promise(shared):
    topics = {made(shared, kind): kind for kind in OURS}
    for durability in Durability:
        found = check(shared, topics, durability)
        assert found.keys() == topics.keys()
        assert all(settings.copies == 3 for settings in found.values())
    assert found[f"{shared[1]}.messages"].max_bytes == MAX_BYTES


WEAKER = [
    (Kind.MESSAGES, "min.insync.replicas", "1"),
    (Kind.MESSAGES, "unclean.leader.election.enable", "true"),
    (Kind.MESSAGES, "flush.messages", "10000"),
    (Kind.MESSAGES, "retention.ms", "604800000"),
    (Kind.MESSAGES, "retention.bytes", "1073741824"),
    (Kind.MESSAGES, "cleanup.policy", "compact"),
    (Kind.MESSAGES, "cleanup.policy", "compact,delete"),
    (Kind.MESSAGES, "message.timestamp.type", "CreateTime"),
    (Kind.STATE, "cleanup.policy", "delete"),
    (Kind.STATE, "flush.messages", "2"),
    (Kind.STATE, "message.timestamp.type", "CreateTime"),
    (Kind.STATE, "delete.retention.ms", "3600000"),
    (Kind.IDS, "retention.ms", "3600000"),
    (Kind.IDS, "retention.bytes", "1073741824"),
    (Kind.IDS, "message.timestamp.type", "CreateTime"),
    (Kind.IDS, "delete.retention.ms", "0"),
    (Kind.IDS, "min.insync.replicas", "1"),
]


@pytest.mark.parametrize(("kind", "name", "value"), WEAKER, ids=lambda each: str(getattr(each, "value", each)))
def test_each_weaker_setting_is_refused_by_its_name(shared, kind, name, value):
    topic = made(shared, kind, **{name.replace(".", "_"): value})
    with pytest.raises(UnsafeStorageError) as caught:
        check(shared, {topic: kind})
    said = str(caught.value)
    assert f"Topic {topic!r} has {name}={value}, which must be " in said
    assert f"--entity-name {topic} --add-config {name}=" in said
    assert said.count("which must be") == 1


def test_two_copies_are_refused(shared):
    cluster, log = shared
    topic = new_topic(f"{log}.two", 3, Kind.MESSAGES, Durability.SYNCED, 3)
    topic.replication_factor = 2
    cluster.make([topic])
    with pytest.raises(
        UnsafeStorageError, match=r"replication factor of 2, which must be 3.*kafka-reassign-partitions"
    ):
        check(shared, {topic.topic: Kind.MESSAGES}, Durability.REPLICATED)


def test_replicated_accepts_what_is_not_synced_and_nothing_else(shared):
    topic = made(shared, Kind.MESSAGES, Durability.REPLICATED, flush_messages=str(2**63 - 1))
    with pytest.raises(UnsafeStorageError, match=r"flush\.messages.*durability='replicated'"):
        check(shared, {topic: Kind.MESSAGES})
    check(shared, {topic: Kind.MESSAGES}, Durability.REPLICATED)


@pytest.mark.parametrize(("kind", "name", "value"), WEAKER)
def test_what_replicated_accepts(kind, name, value):
    assert bool(weaker("t", kind, strong(kind, **{name: value}), Durability.REPLICATED)) is (name != "flush.messages")


@pytest.mark.parametrize(("kind", "name", "value"), WEAKER)
def test_development_accepts_what_a_small_cluster_cannot_do_but_no_lost_messages(kind, name, value):
    accepted = name in ("flush.messages", "min.insync.replicas", "unclean.leader.election.enable")
    assert bool(weaker("t", kind, strong(kind, **{name: value}), Durability.DEVELOPMENT)) is not accepted


@pytest.mark.parametrize(
    "change",
    [{"flush.messages": str(2**63 - 1)}, {"min.insync.replicas": "1"}, {"unclean.leader.election.enable": "true"}],
)
def test_kafkas_own_topic_of_transactions_is_compared_too(change):
    (name,) = change
    (said,) = weaker(TRANSACTIONS, Kind.TRANSACTIONS, strong(Kind.TRANSACTIONS, **change), Durability.SYNCED)
    assert f"Topic {TRANSACTIONS!r} has {name}=" in said


def test_the_weakest_broker_counts_for_the_topic_of_transactions_that_is_not_there_yet():
    strong = {
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
        "log.flush.interval.messages": "1",
    }
    assert weaker(TRANSACTIONS, Kind.TRANSACTIONS, planned([strong, strong]), Durability.SYNCED) == []
    for name in strong:
        weak = {**strong, name: "9" if name.startswith("log.") else "1"}
        for brokers in ([strong, weak], [weak, strong]):
            assert len(weaker(TRANSACTIONS, Kind.TRANSACTIONS, planned(brokers), Durability.SYNCED)) == 1


def test_a_topic_whose_syncs_are_left_to_the_brokers_is_asked_of_all(shared, monkeypatch):
    cluster, log = shared
    name = f"{log}.left"
    topic = new_topic(name, 1, Kind.MESSAGES, Durability.REPLICATED, 3)
    cluster.make([topic])
    real, asked = promise._values, []

    def one_is_weak(admin, names, **broker):
        found = real(admin, names, **broker)
        if broker and name in found:
            asked.append(broker["broker"])
            found[name][0]["flush.messages"] = "5" if len(asked) == 2 else "1"
        return found

    monkeypatch.setattr(promise, "_values", one_is_weak)
    with pytest.raises(UnsafeStorageError, match=r"flush\.messages=5") as caught:
        check(shared, {name: Kind.MESSAGES})
    assert len(set(asked)) == 3
    assert str(caught.value).count("which must be") == 1
    asked.clear()
    check(shared, {name: Kind.MESSAGES}, Durability.REPLICATED)
    assert asked == []


def test_a_setting_that_is_not_told_is_not_taken_for_a_strong_one():
    settings = strong(Kind.MESSAGES)
    del settings.values["flush.messages"]
    (said,) = weaker("t", Kind.MESSAGES, settings, Durability.SYNCED)
    assert "flush.messages=unknown" in said


def strong(kind, **changes):
    """Settings that keep the promise, with some changed."""
    config = new_topic("t", 1, kind, Durability.SYNCED, 3).config if kind in OURS else {}
    kept = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "flush.messages": "1"}
    settings = Settings(3, {**kept, **config})
    assert weaker("t", kind, settings, Durability.SYNCED) == []
    settings.values.update(changes)
    return settings


def test_what_does_not_exist_is_left_out(shared):
    assert read_settings(shared[0].admin, [f"{shared[1]}.none"], 20) == {}
    assert check(shared, {}) == {}


def test_a_name_of_a_durability():
    assert Durability.of("synced") is Durability.SYNCED
    with pytest.raises(ArgumentError, match="'synced', 'replicated', 'development', not 'none'"):
        Durability.of("none")


def test_a_message_over_the_limit(shared):
    topic = made(shared, Kind.MESSAGES, max_message_bytes="1000")
    found = []
    producer = shared[0].producer()
    producer.produce(topic, os.urandom(2000), on_delivery=lambda error, _: found.append(error))
    producer.flush(20)
    with pytest.raises(TooLargeError, match=r"putting: larger than the cluster accepts.*max\.message\.bytes"):
        raise faults.told(found[0], "putting")
