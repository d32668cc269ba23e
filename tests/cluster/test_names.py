"""Names of topics on the cluster: each is used once, by the process that created the topic."""

import threading
import time

import pytest

import pqlog
from tests.cluster.logs import opened
from tests.contract.engines import rows


def test_who_deletes_late_does_not_hit_a_topic_of_the_same_name(stores, monkeypatch):
    here, slow = stores(), stores()
    (old,) = here.topic("t", "json", 1)
    is_there, may_go, delete = threading.Event(), threading.Event(), slow.cluster.delete

    def late(topics):
        is_there.set()
        assert may_go.wait(30)
        delete(topics)

    monkeypatch.setattr(slow.cluster, "delete", late)
    thread = threading.Thread(target=slow.tidy)
    tidy = here.tidy

    def both():
        thread.start()
        assert is_there.wait(30)
        tidy()

    with monkeypatch.context() as patch:
        patch.setattr(here, "tidy", both)
        old.delete(force=True)
    (new,) = here.topic("t", "json", 1)
    new.append_one(b"precious", None, None)
    may_go.set()
    thread.join()
    assert [row.value for row in rows(new)] == [b"precious"]
    assert here.cluster.partitions(new.kafka_topic) == 1


def beside(store, monkeypatch, *calls):
    """Do something else just after a store has created its next topic on the cluster, before it is in the catalogue."""
    make, left = store.cluster.make, list(calls)

    def both(topics):
        made = make(topics)
        while left:
            left.pop(0)()
        return made

    monkeypatch.setattr(store.cluster, "make", both)


def test_two_create_a_topic_with_other_numbers_of_partitions(stores, monkeypatch):
    here, there = stores(), stores()
    before = there.cluster.topics()
    monkeypatch.setattr(there.cluster, "topics", lambda: before)
    made = []
    beside(here, monkeypatch, lambda: made.extend(there.topic("t", "json", 3)))
    found = here.topic("t", "json", 1)
    assert len(found) == len(made) == here.cluster.partitions(made[0].kafka_topic) == 3
    made[2].append_one(b"1", None, None)
    assert [row.value for row in rows(found[2])] == [b"1"]
    prefix = f"{here._log}."
    assert [name for name in here.cluster.topics() if name.startswith(prefix) and ".__" not in name] == [
        made[0].kafka_topic
    ]
    assert here.catalogue.look().gone == {}


def test_a_name_that_was_created_in_vain_is_not_that_of_two_topics(stores, monkeypatch):
    here, there = stores(), stores()

    def other():
        (topic,) = there.topic("t", "json", 1)
        topic.append_one(b"there", None, None)
        topic.rename("u")

    before = there.cluster.topics()
    monkeypatch.setattr(there.cluster, "topics", lambda: before)
    beside(here, monkeypatch, other)
    (topic,) = here.topic("t", "json", 1)
    topic.append_one(b"here", None, None)
    (renamed,) = here.find_topic("u")
    assert topic.kafka_topic != renamed.kafka_topic
    assert [[row.value for row in rows(one)] for one in (topic, renamed)] == [[b"here"], [b"there"]]


def test_a_name_whose_topic_was_deleted_meanwhile_is_not_used(stores, monkeypatch):
    here, there = stores(), stores()

    def other():
        (topic,) = there.topic("t", "json", 1)
        topic.delete(force=True)

    beside(here, monkeypatch, other)
    (topic,) = here.topic("t", "json", 1)
    topic.append_one(b"here", None, None)
    there.tidy()
    assert [row.value for row in rows(topic)] == [b"here"]


@pytest.mark.parametrize("name", ["t", "ü"])
def test_a_name_is_used_once(stores, name):
    here = stores()
    names = []
    for _ in range(3):
        (topic,) = here.topic(name, "json", 1)
        names.append(topic.kafka_topic)
        topic.delete(force=True)
        with pytest.raises(pqlog.UnknownTopicError):
            topic.span()
    assert len(set(names)) == 3


def test_names_of_clients_and_cursors_may_be_long_but_not_too_long_for_kafka(cluster_url):
    with opened(cluster_url) as log:
        log.put(1)
        for name in ("c" * 30_000, "ü" * 15_000, "\x01" * 30_000):
            assert next(iter(log.get(name))) == 1
            log.put_many([2], cursor=(name, 1, None))
            assert log.cursor(name) == 1
            log.client(name).delete()
        for name in ("c" * 30_001, "ü" * 15_001):
            calls = [
                lambda name=name: next(iter(log.get(name))),
                lambda name=name: next(log.batches(name)),
                lambda name=name: log.client(name).lag,
                lambda name=name: log.put_many([2], cursor=(name, 1, None)),
                lambda name=name: log.cursor(name),
            ]
            for call in calls:
                began = time.monotonic()
                with pytest.raises(pqlog.ArgumentError, match=r"has 30,00\d bytes, and a cluster takes 30,000") as told:
                    call()
                assert time.monotonic() - began < 1
                assert len(str(told.value)) < 200
        assert len(log) == 4
