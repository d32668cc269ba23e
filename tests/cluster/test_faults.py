"""Nodes die, fall silent and are restarted while processes put, read and work; these are killed and paused too."""

import contextlib
import random
import time

import pytest
from confluent_kafka import KafkaException

import pqlog
from pqlog.store.kafka import attempt
from tests.cluster.brokers import leader
from tests.cluster.stories import PARTITIONS, STALL_S, story
from tests.cluster.work import TIMEOUT_S
from tests.messages import values

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def telling(own_cluster, tmp_path, request):
    """A story that runs while the test does, and is judged afterwards."""
    with story(tmp_path, own_cluster.url(request.node.name.replace("_", "-")[:60])) as telling:
        yield telling
    assert max(worker.longest_stall_s() for worker in telling.workers) < STALL_S


def kafka_topic(telling, name):
    return f"{telling.address.rpartition('/')[2]}.{name}"


def test_leaders_are_killed(own_cluster, telling):
    for partition in range(PARTITIONS):
        node = leader(own_cluster.bootstrap, kafka_topic(telling, "orders"), partition)
        own_cluster.kill(node)
        telling.all_get_on()
        own_cluster.start(node)
        telling.all_get_on()


def test_a_node_falls_silent_for_six_seconds(own_cluster, telling):
    """Longer than it takes to replace it; then it speaks again, and believes that it still leads."""
    for node in own_cluster.nodes:
        own_cluster.pause(node)
        time.sleep(6)
        own_cluster.resume(node)
        telling.all_get_on()


def test_all_nodes_are_restarted_one_after_the_other(own_cluster, telling):
    own_cluster.restart()
    telling.all_get_on()


def test_all_nodes_are_killed_at_once(own_cluster, telling):
    own_cluster.kill()
    time.sleep(2)
    own_cluster.start()
    telling.all_get_on()


def test_workers_are_killed_and_paused_while_a_node_is_down(own_cluster, telling):
    chance = random.Random(8)
    own_cluster.kill(leader(own_cluster.bootstrap, kafka_topic(telling, "__state")))
    for _ in range(3):
        first, second = (worker for worker in telling.running if worker.work == "stage")
        time.sleep(chance.random())
        first.kill()
        telling.start("stage")
        second.pause()
        telling.all_get_on()
        second.resume()
        telling.all_get_on()


def test_an_answer_that_is_lost_with_its_node_is_settled(own_cluster, monkeypatch):
    """A node dies while a commit is under way: the put that returns is there once, whatever came of the commit."""
    whole, chance = attempt.commit, random.Random(4)
    killed = iter(own_cluster.nodes)

    def commit(producer, *more):
        with contextlib.suppress(KafkaException):
            producer.commit_transaction(chance.random() / 50)
        own_cluster.kill(next(killed))
        monkeypatch.undo()
        return whole(producer, *more)

    with pqlog.open(own_cluster.url("lost-answers"), timeout=TIMEOUT_S) as log:
        for number in own_cluster.nodes:
            monkeypatch.setattr(attempt, "commit", commit)
            put = log.put_many([number] * 100)
            own_cluster.heal()
            assert values(log[put.first : put.last + 1]) == [number] * 100
        assert values(log) == [number for number in own_cluster.nodes for _ in range(100)]
