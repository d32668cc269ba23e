"""Processes that fall silent before, in or after their transaction, and what readers see of those that die in it."""

import time

import pytest

import pqlog
from tests.cluster.stories import Story, story
from tests.processes import wait_until

pytestmark = pytest.mark.timeout(300)

DELAY_S = 25.0
"""A transaction may take 10 s; then the cluster looks for it every 10 s, and ends it."""


def zombie_and_successor(telling, where, plant=""):
    """A worker falls silent, another takes over under its name and works; the first one wakes up, and goes on."""
    zombie = telling.start(f"zombie-{where}", plant)
    wait_until(zombie.is_paused)
    successor = telling.start("stage-worker", plant)
    wait_until(lambda: successor.progress() >= 3)
    zombie.resume()
    zombie.finish()
    return zombie


@pytest.mark.parametrize(
    ("where", "said"),
    [("before", ["refused"]), ("in", ["refused"]), ("after", ["committed", "refused"])],
)
def test_a_zombie_changes_nothing(cluster_url, tmp_path, where, said):
    with story(tmp_path, cluster_url, "put put read") as telling:
        zombie = zombie_and_successor(telling, where)
        telling.all_get_on()
    assert [kind for kind, *_ in zombie.lines()[1:]] == said


def messages_of(topic):
    return [message.value for partition in range(topic.partitions) for message in topic.partition(partition)]


def test_a_process_that_dies_in_its_transaction_delays_readers_for_seconds(cluster_url, tmp_path):
    telling = Story(tmp_path, cluster_url)
    with pqlog.open(cluster_url) as log:
        handled = log.topic("handled")
        log.topic("orders").put_many([{"of": "test", "n": n, "i": 0, "key": str(n)} for n in range(100)], key="key")
        dying = telling.start("zombie-in")
        wait_until(dying.is_paused)
        dying.kill()
        died = time.monotonic()
        handled.put_many([{"key": str(n)} for n in range(10)], key="key")  # acknowledged, though not read yet
        wait_until(lambda: len(messages_of(handled)) == 10, DELAY_S)
        print(f"readers waited {time.monotonic() - died:.1f} s")


def test_a_successor_ends_the_wait(cluster_url, tmp_path):
    telling = Story(tmp_path, cluster_url)
    with pqlog.open(cluster_url) as log:
        orders, handled = log.topic("orders"), log.topic("handled")
        orders.put_many([{"of": "test", "n": n, "i": 0, "key": str(n)} for n in range(100)], key="key")
        dying = telling.start("zombie-in")
        wait_until(dying.is_paused)
        dying.kill()
        began = time.monotonic()
        while orders.client("stage").lag:
            for batch in orders.batches("stage"):
                batch.put_many(list(batch), topic="handled", key="key")
        wait_until(lambda: len(messages_of(handled)) == 100)
        print(f"the successor was through after {time.monotonic() - began:.1f} s")
