"""The cluster itself: started once for all, killed, paused and restarted; it ends with its parent."""

import os
import signal

import pytest
from confluent_kafka.admin import AdminClient

from tests.cluster.brokers import KafkaCluster, leader
from tests.cluster.keeper import Keeper, ask
from tests.cluster.plain import make, put, values
from tests.processes import start, wait_until


def test_all_workers_share_one_cluster_of_three(cluster, cluster_url):
    log = cluster_url.rpartition("/")[2]
    assert cluster_url == cluster.url(log)
    assert len(cluster.bootstrap.split(",")) == 3
    make(cluster.bootstrap, f"{log}.main")
    put(cluster.bootstrap, f"{log}.main", b"1")
    assert values(cluster.bootstrap, f"{log}.main") == [b"1"]


def test_nodes_are_killed_and_paused_and_come_back(own_cluster):
    make(own_cluster.bootstrap, "main")
    for what in ("kill", "pause"):
        getattr(own_cluster, what)(leader(own_cluster.bootstrap, "main"))
        put(own_cluster.bootstrap, "main", what.encode())
        own_cluster.heal()
    # A leader that was paused takes itself for the leader for a moment longer, and does not know the last message.
    wait_until(lambda: values(own_cluster.bootstrap, "main") == [b"kill", b"pause"])


OWNER = """
import sys
from tests.cluster.brokers import KafkaCluster
cluster = KafkaCluster(sys.argv[1], nodes=1)
cluster.start()
print(cluster.pid(1), flush=True)
sys.stdin.read()
"""


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:  # nobody has waited for it, perhaps
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def test_a_node_ends_with_the_process_that_started_it(tmp_path):
    with start(OWNER, tmp_path) as owner:
        node = int(owner.line())
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(node), 10)


def test_the_shared_cluster_ends_with_the_test_run():
    with Keeper() as keeper:
        bootstrap = ask(keeper.socket)
        assert ask(keeper.socket) == bootstrap
        make(bootstrap, "main")
    with pytest.raises(FileNotFoundError):
        ask(keeper.socket)


def test_users_and_listeners_are_added(tmp_path):
    plain = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    with KafkaCluster(
        tmp_path,
        nodes=1,
        listeners={"SAFE": "SASL_PLAINTEXT"},
        users={"alice": "secret"},
        settings={
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.safe.scram-sha-512.sasl.jaas.config": plain,
        },
    ) as cluster:
        known = {"sasl.username": "alice", "sasl.password": "secret", "sasl.mechanism": "SCRAM-SHA-512"}
        safe = {"bootstrap.servers": cluster.address("SAFE"), "security.protocol": "SASL_PLAINTEXT", **known}
        assert len(AdminClient(safe).list_topics(timeout=30).brokers) == 1


def test_what_is_missing_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="make build/kafka"):
        KafkaCluster(tmp_path, jars=tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="make build/kafka"):
        KafkaCluster(tmp_path)


def test_why_a_node_did_not_start_is_told(tmp_path):
    cluster = KafkaCluster(tmp_path, nodes=1, settings={"num.io.threads": "none"})
    with pytest.raises(RuntimeError, match=r"num\.io\.threads"):
        cluster.start()
