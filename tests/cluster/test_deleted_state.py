"""Topics of the state that somebody deletes: nothing is silently made anew, and who has the log open hears of it."""

import re
import shlex
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import pqlog
from pqlog.store.kafka import state
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.promise import Durability, Kind, new_topic
from tests.cluster.logs import opened


class Topics:
    """The topics of a log, as an administrator has them."""

    def __init__(self, url):
        address = Address.parse(url)
        self._log, self._admin = address.log, AdminClient({"bootstrap.servers": address.servers, "log_level": 0})

    def names(self):
        prefix = f"{self._log}."
        return {
            name.removeprefix(prefix) for name in self._admin.list_topics(timeout=10).topics if name.startswith(prefix)
        }

    def delete(self, *names):
        full = [f"{self._log}.{name}" for name in names]
        for deleted in self._admin.delete_topics(full).values():
            deleted.result(30)
        while self.names() & set(names):
            time.sleep(0.05)
        time.sleep(0.5)

    def make(self, name, partitions=1, copies=3, config=None):
        new = NewTopic(f"{self._log}.{name}", partitions, copies, config=config or {})
        for made in self._admin.create_topics([new]).values():
            made.result(30)
        while name not in self.names():
            time.sleep(0.05)


@pytest.fixture
def topics(cluster_url):
    return Topics(cluster_url)


def test_a_log_whose_state_was_deleted_is_not_made_anew(cluster_url, topics):
    with opened(cluster_url) as log:
        log.put_many(range(3))
    topics.delete("__state", "__ids")
    with pytest.raises(pqlog.CorruptLogError, match=r"__state' was deleted.*'[^']*\.main' of it is left"):
        opened(cluster_url)
    assert topics.names() == {"main"}
    whole, _, name = cluster_url.rpartition("/")
    with pqlog.open(whole, f"{name}.main", readonly=True) as left:
        assert [message.value for message in left] == [0, 1, 2]
    topics.delete("main")
    with opened(cluster_url) as log:
        log.put(4)
        assert [message.value for message in log] == [4]


def test_ids_that_were_used_are_left_of_a_log(cluster_url, topics):
    with opened(cluster_url) as log:
        log.put_many(range(3), id="one")
    topics.delete("__state", "main")
    with pytest.raises(pqlog.CorruptLogError, match="__ids' of it is left"):
        opened(cluster_url)


def test_a_log_whose_ids_were_deleted_is_not_given_others(cluster_url, topics):
    with opened(cluster_url) as log:
        log.put_many(range(3), id="one")
    topics.delete("__ids")
    with pytest.raises(pqlog.CorruptLogError, match="__ids' was deleted") as refused:
        opened(cluster_url)
    words = shlex.split(str(refused.value).partition("kafka-topics.sh")[2])
    config = dict(re.findall(r"--config (\S+)=(\S+)", " ".join(words)))
    numbers = [int(words[words.index(name) + 1]) for name in ("--partitions", "--replication-factor")]
    topics.make("__ids", *numbers, config)
    with pqlog.open(cluster_url) as log:
        log.put_many([3], id="two")
        assert [message.value for message in log] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [Kind.STATE, Kind.IDS])
def test_who_was_killed_while_it_created_a_log_is_in_nobodys_way(cluster_url, topics, kind):
    topics.make("theirs")  # which another program has
    address = Address.parse(cluster_url)
    cluster = Cluster(address)
    cluster.make([new_topic(f"{address.log}.__{kind.value}", 8, kind, Durability.REPLICATED, 3)])
    cluster.close()
    with opened(cluster_url) as log:
        log.put_many([1], id="one")
        log.put_many([1], id="one")
        assert [message.value for message in log] == [1]


@pytest.mark.parametrize("deleted", ["__state", "__ids"])
@pytest.mark.parametrize("is_made", [False, True])
def test_who_has_it_open_hears_of_it(cluster_url, topics, monkeypatch, deleted, is_made):
    monkeypatch.setattr(state, "LOOKED_S", 0.2)
    with opened(cluster_url) as log, pqlog.open(cluster_url, readonly=True) as reader:
        log.put_many(range(3), id="one")
        assert len(reader) == 3
        topics.delete(deleted)
        if is_made:
            topics.make(deleted, 8, config={"message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"})
        time.sleep(0.3)
        calls = [log.topics, lambda: log.put(4), lambda: log.put_many([4], id="two")]
        for call in [*calls, *([reader.topics] if deleted == "__state" else [])]:
            with pytest.raises(pqlog.MovedError, match=f"{deleted}' .* was deleted"):
                call()
        assert deleted == "__state" or reader.topics() == ["main"]


def test_a_log_whose_record_was_removed_is_not_given_ids_that_are_used(cluster_url, stores):
    store = stores()
    store.topic("main", "json", 1)
    store.lanes.change(["topics"], lambda tx: tx.set("topics", "log", None))
    with pytest.raises(pqlog.CorruptLogError, match="the record 'log'"):
        stores()
