"""What is acknowledged is on the disks of at least two nodes: as strace sees it, and after a power cut of all nodes."""

import random
import time

import pytest

import pqlog
from pqlog.store.kafka.records import ROWS
from tests.cluster.brokers import KafkaCluster
from tests.cluster.plain import make, put, values
from tests.cluster.plants import acknowledged_early
from tests.cluster.plugin import alone
from tests.cluster.stories import story
from tests.cluster.syncs import Recorder, batches, cut_power

pytestmark = [pytest.mark.timeout(600), pytest.mark.needs("strace")]
LATER = str(2**63 - 1)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    return Recorder(tmp_path_factory.mktemp("kafka"))


@pytest.fixture(scope="module")
def recorded(recorder):
    """A cluster whose nodes are recorded."""
    with alone(), KafkaCluster(recorder.folder, under=recorder.under) as cluster:
        yield cluster


def nodes_that_synced(disks, name, size, before):
    """How many nodes had synced that much of a file by then."""
    return sum(
        any(sync.path.endswith(name) and sync.size >= size and sync.end <= before for sync in disk.syncs)
        for disk in disks
    )


def put_and_look_at_the_disks(recorded, recorder, topic):
    """Put, and see that two nodes had synced it before the call returned."""
    calls = []
    with pqlog.open(recorded.url("synced"), topic) as log:
        for n in range(30):
            begin = time.time()
            last = log.put(n) if n % 3 else log.put_many([n] * 10).last
            calls.append((last // ROWS, n % 3 == 0, begin, time.time()))
    name = f"/synced.{topic}-0/00000000000000000000.log"
    disks = [recorder.disk(node) for node in recorded.nodes]
    ends = {}
    for batch in batches(recorded.data(1) / name[1:]):
        ends.update(dict.fromkeys(range(batch.first, batch.last + 1), batch.end))
    for record, is_transaction, begin, end in calls:
        assert nodes_that_synced(disks, name, ends[record], end) >= 2
        if is_transaction:
            said = [
                any("/__transaction_state-" in sync.path and begin < sync.begin < sync.end < end for sync in disk.syncs)
                for disk in disks
            ]
            assert sum(said) >= 2


def test_each_put_is_synced_on_two_nodes_before_it_returns(recorded, recorder):
    put_and_look_at_the_disks(recorded, recorder, "main")


def test_a_put_that_is_acknowledged_by_its_leader_alone_is_noticed(recorded, recorder, planted):
    planted(acknowledged_early)
    with pytest.raises(AssertionError):
        put_and_look_at_the_disks(recorded, recorder, "early")


def test_a_power_cut_of_all_nodes_loses_nothing_that_was_acknowledged(recorded, recorder, tmp_path):
    """Twice, at moments that nobody chose; the processes, which are elsewhere, live on."""
    chance = random.Random(3)
    with story(tmp_path, recorded.url("cut")) as telling:
        for _ in range(2):
            time.sleep(1 + chance.random())
            cut_power(recorded, recorder)
            recorded.start()
            telling.all_get_on()


def test_the_cut_takes_what_was_not_synced_and_leaves_the_rest(recorded, recorder):
    make(recorded.bootstrap, "not-synced", {"flush.messages": LATER})
    make(recorded.bootstrap, "synced")
    for topic in ("not-synced", "synced"):
        put(recorded.bootstrap, topic, b"acknowledged")
        assert values(recorded.bootstrap, topic) == [b"acknowledged"]
    assert cut_power(recorded, recorder) > 0
    recorded.start()
    assert values(recorded.bootstrap, "not-synced") == []
    assert values(recorded.bootstrap, "synced") == [b"acknowledged"]
