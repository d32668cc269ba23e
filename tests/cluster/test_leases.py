"""What a process notes of the claims and acknowledgements of a log, and the clock by which leases end."""

import gc
import threading
import time
import types

import pytest
from confluent_kafka.admin import NewTopic

import pqlog
from pqlog.store import owners
from pqlog.store.kafka import clock, leases
from pqlog.store.kafka.address import Address
from pqlog.store.kafka.clock import ClusterClock
from pqlog.store.kafka.cluster import Cluster
from pqlog.store.kafka.leases import Leases
from pqlog.store.kafka.standing import KEY, Standing
from pqlog.store.values import Span
from tests.processes import wait_until

NOW = 10**15


class Client:
    """A client whose lane is here."""

    lane = "client/1/0/c"
    is_used = False

    def __init__(self, noted):
        self.noted, self.standing, self.updates, self.failing = noted, Standing.begin(0), 0, None

    def update(self):
        if self.failing is not None:
            raise self.failing
        self.updates += 1
        self.noted.update(self.lane, self.standing)
        self.noted.updated(self.lane, self.standing, self.noted.moment())

    def cut(self, token, worker=""):
        lease = self.standing.cut(Span(self.standing.claimed, self.standing.claimed + 2), 2)
        lease.hand_out(token, worker, owners.this_process(), self.noted.end(self.noted.now()))
        claim = lease.claim("c", self.standing.epoch)
        self.noted.hold(self, claim)
        return claim


@pytest.fixture
def noted():
    noted = Leases(lambda: NOW)
    yield noted
    noted.close()


@pytest.fixture
def client(noted):
    return Client(noted)


def test_what_a_lane_keeps_is_the_same_again():
    standing = Standing.begin(5, batches=3)
    lease = standing.cut(Span(7, 9), 2)
    lease.hand_out(1, "w", "p", NOW)
    assert Standing.found_in({KEY: standing.value()}) == standing
    assert Standing.found_in({}) is None
    assert (standing.position, standing.claimed, lease.number) == (5, 9, 4)
    standing.drop(lease)
    assert standing.position == 9
    assert Standing.begin(0).epoch != Standing.begin(0).epoch


def test_a_claim_is_held_while_somebody_has_its_object(noted, client):
    claim = client.cut(1)
    (lease,) = client.standing.claims
    assert not noted.is_free(lease, "")
    client.update()
    assert lease.process
    del claim
    gc.collect()
    assert noted.is_free(lease, "")
    wait_until(lambda: not lease.process)  # the thread says so


def test_a_claim_that_is_not_committed_yet_is_not_lost(noted, client):
    claim = client.cut(1)
    (lease,) = client.standing.claims
    client.standing.claims = []
    client.update()
    client.standing.claims = [lease]
    assert not noted.is_free(lease, "")
    client.update()
    client.standing.claims = []
    client.update()  # now somebody else has it
    assert noted.is_free(lease, "")
    assert claim.token == 1


def test_what_was_seen_before_a_claim_says_nothing_about_it(noted, client):
    before = noted.moment()
    seen = Standing.found_in({KEY: client.standing.value()})
    claim = client.cut(1)
    client.update()
    noted.updated(client.lane, seen, before)  # another thread is late with it
    assert not noted.is_free(client.standing.claims[0], "")
    client.standing.claims = []
    noted.acknowledge(client, 9, client.standing.epoch)
    noted.updated(client.lane, Standing.begin(0), before)
    assert noted.has_acknowledgements
    assert claim.token == 1


@pytest.mark.parametrize(
    ("process", "worker", "expires", "is_free"),
    [
        ("", "", 0, True),
        ("elsewhere@1:2:3", "", NOW + 1, False),
        ("elsewhere@1:2:3", "", NOW, True),
        ("elsewhere@1:2:3", "w", NOW + 1, True),
        ("gone", "", NOW + 1, True),
        ("lives", "", NOW - 1, False),
        ("lives", "w", NOW + 1, True),
    ],
)
def test_who_may_take_a_batch(noted, client, monkeypatch, process, worker, expires, is_free):
    fates = {"gone": owners.Fate.GONE, "lives": owners.Fate.LIVES}
    monkeypatch.setattr(owners, "fate", lambda process: fates.get(process, owners.Fate.UNKNOWN))
    lease = client.standing.cut(Span(0, 1), 1)
    lease.hand_out(1, worker, process, expires)
    assert noted.is_free(lease, "w") == is_free
    assert noted.is_free(lease, "") == (is_free and not worker)


def test_a_process_on_another_host_of_the_same_name_is_not_taken_for_dead(noted, client):
    host, _, rest = owners.this_process().rpartition("@")
    elsewhere = f"{host}@{rest.rpartition(':')[0]}:12345678"
    lease = client.standing.cut(Span(0, 1), 1)
    lease.hand_out(1, "", elsewhere, NOW + 1)
    assert not noted.is_free(lease, "")
    client.standing.process, client.standing.active = elsewhere, NOW
    assert noted.is_elsewhere(client.standing)
    lease.expires = NOW
    assert noted.is_free(lease, "")


def test_leases_are_renewed_before_they_end(noted, client, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 1.5)
    noted.now = lambda: time.monotonic_ns() // 1000
    claim = client.cut(1)
    (lease,) = client.standing.claims
    ends = lease.expires
    wait_until(lambda: lease.expires > ends)
    assert lease.expires < noted.now() + 2_000_000
    assert claim.token == 1


def test_acknowledgements_are_committed_soon_and_once(noted, client):
    epoch = client.standing.epoch
    noted.acknowledge(client, 3, epoch)
    assert noted.acknowledge_more(client.lane, 7, epoch)
    assert noted.acknowledge_more(client.lane, 5, epoch)
    assert not noted.acknowledge_more(client.lane, 9, epoch + 1)
    other = Standing.found_in({KEY: client.standing.value()})
    assert noted.overlay(client.lane, other)
    assert (other.position, client.standing.position) == (8, 0)
    wait_until(lambda: not noted.has_acknowledgements)
    assert (client.standing.position, client.updates) == (8, 1)


def test_an_acknowledgement_does_not_count_once_the_client_was_moved_or_claimed(noted, client):
    noted.acknowledge(client, 3, client.standing.epoch)
    client.standing = Standing.begin(1)
    noted.flush()
    assert (client.standing.position, noted.has_acknowledgements) == (1, False)
    noted.acknowledge(client, 3, client.standing.epoch)
    client.standing.cut(Span(1, 2), 1)
    noted.flush()
    assert (client.standing.position, noted.has_acknowledgements) == (1, False)


def test_closing_commits_and_gives_everything_back(noted, client):
    claim = client.cut(1)
    other = Client(noted)
    other.lane = "client/1/0/d"
    noted.acknowledge(other, 3, other.standing.epoch)
    noted.close()
    assert not client.standing.claims[0].process
    assert other.standing.position == 4
    assert claim.token == 1
    noted.close()


def test_closing_tells_of_acknowledgements_that_could_not_be_committed(noted, client):
    noted.acknowledge(client, 3, client.standing.epoch)
    client.failing = pqlog.StoreError("no cluster")
    with pytest.raises(pqlog.StoreError, match="no cluster"):
        noted.close()


def test_what_is_noted_of_a_deleted_topic_is_forgotten(noted, client):
    claim = client.cut(1)
    noted.acknowledge(client, 3, client.standing.epoch)
    client.failing = pqlog.UnknownTopicError("t", [])
    wait_until(lambda: not noted.has_acknowledgements)
    assert noted.is_free(client.standing.claims[0], "")
    assert claim.token == 1


def test_a_log_that_nobody_has_any_more_ends_its_thread():
    noted = Leases(lambda: NOW)
    client = Client(noted)
    noted.acknowledge(client, 3, client.standing.epoch)
    (thread,) = [thread for thread in threading.enumerate() if thread is noted._thread]
    standing = client.standing
    del noted, client
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert standing.position == 4  # it was committed before


@pytest.fixture
def cluster_clock(cluster, cluster_url):
    connected = Cluster(Address.parse(cluster_url, None))
    topic = f"{cluster_url.rpartition('/')[2]}.__state"
    connected.make([NewTopic(topic, 1, 3, config={"message.timestamp.type": "LogAppendTime"})])
    yield ClusterClock(connected, topic)
    connected.close()


def test_the_clock_is_the_clusters_and_never_fast(cluster_clock, monkeypatch):
    before = time.time_ns() // 1000
    now = cluster_clock.now()
    assert before - 2_000 <= now <= time.time_ns() // 1000  # its broker has this host's clock, in milliseconds
    monkeypatch.setattr(time, "time_ns", lambda: 0)  # this process's clock counts for nothing
    monkeypatch.setattr(clock, "REFRESH_S", 0)
    time.sleep(0.05)
    assert 0 <= cluster_clock.now() - now - 50_000 < 5_000_000


def test_a_clock_that_is_read_often_asks_seldom(cluster_clock, monkeypatch):
    cluster_clock.now()
    monkeypatch.setattr(ClusterClock, "_stamp", types.SimpleNamespace())
    assert cluster_clock.now() <= cluster_clock.now()
