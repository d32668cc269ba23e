"""Clients on a cluster: who holds a batch, when another process gets it, and what a crash brings again."""

import itertools
import os
import random
import signal
import threading
import time

import pytest

import pqlog
from pqlog.store import owners
from pqlog.store.kafka import leases
from pqlog.store.values import Done, Size
from tests.cluster.logs import opened
from tests.processes import Process, python, wait_until

BATCH = 2

HOLDER = """
import sys, time
import pqlog
from pqlog.store import owners
from pqlog.store.kafka import leases
from tests.cluster.logs import opened
url, host, lease = sys.argv[1:]
leases.LEASE_S = float(lease)
if host:
    owners._host = lambda: host
with opened(url) as log:
    batch = log.client("c").next_batch(size=2)
    print(batch.first, flush=True)
    sys.stdin.readline()
    try:
        batch.put("done", topic="out")
        batch.ack()
        print("done", flush=True)
    except pqlog.ClaimLostError:
        print("lost", flush=True)
"""


@pytest.fixture
def log(cluster_url):
    with opened(cluster_url) as log:
        yield log


def holder(url, host="", lease_s=60.0):
    """A process that holds the first batch, and acknowledges it when it is told to; it may be on another host."""
    return Process(python(HOLDER, url, host, lease_s))


def taken_within(log, seconds, owner=None):
    """The batch that can be taken at last."""
    began = time.monotonic()
    while (batch := log.client("c").next_batch(size=1, owner=owner)) is None or batch.number > 1:
        if batch is not None:
            batch.release()
        assert time.monotonic() - began < seconds, "nobody gets it"
        time.sleep(0.05)
    return batch


def out(log):
    return list(log.topic("out")[:].values()) if "out" in log.topics() else []


# taking over


def test_a_batch_of_a_killed_process_is_taken_at_once(log, cluster_url):
    log.put_many(range(BATCH))
    with holder(cluster_url) as other:
        first = int(other.line())
        assert log.client("c").next_batch(size=BATCH) is None
        other.kill()
        other.wait()
        began = time.monotonic()
        batch = log.client("c").next_batch(size=1)
        assert time.monotonic() - began < 2
    assert (batch.first, batch.attempt, list(batch)) == (first, 2, [0, 1])
    batch.ack()
    assert log.client("c").lag == 0


def test_a_batch_of_a_process_on_another_host_is_taken_when_its_lease_is_over(log, cluster_url):
    log.put_many(range(BATCH))
    with holder(cluster_url, "elsewhere", 3) as other:
        other.line()
        other.kill()
        other.wait()
        began = time.monotonic()
        assert log.client("c").next_batch(size=1) is None
        batch = taken_within(log, 30)
        assert 1 < time.monotonic() - began < 15
    assert (batch.number, batch.attempt) == (1, 2)
    batch.ack()


def test_the_lease_of_a_living_process_on_another_host_is_renewed(log, cluster_url):
    log.put_many(range(BATCH))
    with holder(cluster_url, "elsewhere", 3) as other:
        other.line()
        until = time.monotonic() + 7
        while time.monotonic() < until:
            assert log.client("c").next_batch(size=1) is None
            time.sleep(0.1)
        other.tell()
        assert other.line() == "done"
        other.finish()
    assert log.client("c").lag == 0
    assert out(log) == ["done"]


def test_a_process_that_was_paused_beyond_its_lease_is_refused(log, cluster_url):
    log.put_many(range(BATCH))
    with holder(cluster_url, "elsewhere", 3) as other:
        other.line()
        os.kill(other.pid, signal.SIGSTOP)
        try:
            batch = taken_within(log, 30)
        finally:
            os.kill(other.pid, signal.SIGCONT)
        other.tell()
        assert other.line() == "lost"
        assert out(log) == []
        batch.put("by me", topic="out")
        batch.ack()
        other.finish()
    assert out(log) == ["by me"]
    assert log.client("c").lag == 0


def test_a_process_that_was_paused_and_replaced_by_nobody_continues(log, cluster_url):
    log.put_many(range(BATCH))
    with holder(cluster_url, "elsewhere", 1) as other:
        other.line()
        os.kill(other.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(other.pid, signal.SIGCONT)
        other.tell()
        assert other.line() == "done"
        other.finish()
    assert (log.client("c").lag, out(log)) == (0, ["done"])


def test_a_worker_that_begins_again_under_its_name_has_its_batch_at_once(log, cluster_url):
    log.put_many(range(BATCH))
    with opened(cluster_url) as other:
        held = other.client("c").next_batch(size=BATCH, owner="w")
        assert log.client("c").next_batch(size=BATCH, owner="v") is None
        batch = log.client("c").next_batch(size=BATCH, owner="w")
        assert (batch.number, batch.attempt) == (1, 2)
        with pytest.raises(pqlog.ClaimLostError):
            held.ack()
        batch.ack()


# several processes at once


def test_looking_at_a_client_takes_nothing_from_the_process_that_works_for_it(log, cluster_url):
    log.put_many(range(4))
    held = log.client("c").next_batch(size=4)
    with opened(cluster_url) as other:
        client = other.client("c")
        (partition,) = other.store.log.find_topic("main")
        assert (client.lag, len(client.claims()), list(client.unread().values())) == (4, 1, [0, 1, 2, 3])
        assert client.next_batch(size=1) is None
        with pytest.raises(pqlog.ClaimedError):
            next(client.get())
        assert not other.store.log.lanes.is_held(partition.client("c").lane)
    held.ack()


WORKER = """
import sys, time
from tests.cluster.logs import opened
log = opened(sys.argv[1])
seen = {}
print("ready", flush=True)
sys.stdin.readline()
for batch in log.topic("in").batches("c", size=10):
    seen[batch.partition] = seen.get(batch.partition, 0) + len(batch)
    for value in batch:
        batch.put(value, topic="out")
    time.sleep(0.05)
print(sum(seen.values()), len(seen), flush=True)
log.close()
"""


def fill(topic, messages):
    """Put numbers into all partitions in turn."""
    for start in range(0, messages, 50):
        topic.put_many(range(start, start + 50))


def begin(*workers):
    """Let them begin at the same time."""
    for worker in workers:
        assert worker.line() == "ready"
    for worker in workers:
        worker.tell()


def test_two_processes_share_a_client_by_its_partitions(log, cluster_url):
    topic = log.topic("in", partitions=4)
    fill(topic, 400)
    with Process(python(WORKER, cluster_url)) as one, Process(python(WORKER, cluster_url)) as two:
        begin(one, two)
        done = [tuple(map(int, worker.line().split())) for worker in (one, two)]
        one.finish()
        two.finish()
    assert sum(messages for messages, _ in done) == 400
    assert all(messages for messages, _ in done)
    assert sorted(out(log)) == list(range(400))
    assert topic.client("c").lag == 0


def test_two_processes_on_one_partition_do_everything_once(log, cluster_url):
    log.topic("in").put_many(range(200))
    with Process(python(WORKER, cluster_url)) as one, Process(python(WORKER, cluster_url)) as two:
        begin(one, two)
        for worker in (one, two):
            worker.line()
            worker.finish()
    assert sorted(out(log)) == list(range(200))


def test_partitions_are_shared_out_evenly_and_stay_where_they_are(log, monkeypatch):
    """One process after the other, as two processes would see it."""
    topic = log.topic("in", partitions=4)
    fill(topic, 400)
    store = log.store.log
    clients = [partition.client("c") for partition in store.find_topic("in")]
    store.join(clients)
    monkeypatch.setattr(leases, "ACTIVE_S", 1e6)
    monkeypatch.setattr(owners, "fate", lambda process: owners.Fate.LIVES)

    def find(process):
        monkeypatch.setattr(owners, "this_process", lambda: process)
        return store.find_work(clients, "", True)

    held = []
    for number in range(4):  # nobody else is there: it gets all, and has a batch of the last
        monkeypatch.setattr(owners, "this_process", lambda: "one")
        done = Done(clients[number - 1], held[-1]) if held else None
        claim, _ = clients[number].advance(Size(1), "", done, True)
        held.append(claim)
    taken = []
    while (number := find("two")) is not None:
        taken.append(clients[number].advance(Size(1), "", None, True)[0])
        assert find("one") != number
    assert len(taken) == 2
    monkeypatch.setattr(owners, "this_process", lambda: "one")
    clients[3].finish(held[-1])


STAGE = """
import sys
from tests.cluster.logs import opened
with opened(sys.argv[1]) as log:
    for batch in log.topic("in").batches("c", size=5):
        for value in batch:
            batch.put(value, topic="out")
        print(batch.number, flush=True)
"""


def test_a_stage_whose_workers_are_killed_at_random_is_exact(log, cluster_url):
    """200 batches in four partitions; two workers at a time, each killed after some batches, also in a commit."""
    chance = random.Random(os.environ.get("SEED", "1"))
    topic = log.topic("in", partitions=4)
    fill(topic, 1000)
    while topic.client("c").lag if topic.clients() else True:
        workers = [Process(python(STAGE, cluster_url)) for _ in range(2)]
        for worker in workers:
            with worker:
                for _ in range(chance.randint(5, 40)):
                    if not worker.line():
                        break
                time.sleep(chance.random() / 10)
                worker.kill()
    assert sorted(out(log)) == list(range(1000))


# positions, and acknowledging lazily


def test_positions_survive(cluster_url):
    with opened(cluster_url) as log:
        at = [log.put(n) for n in range(5)]
        assert list(itertools.islice(log.get("c"), 3)) == [0, 1, 2]  # asking for the third acknowledges the second
        assert at[1] < log.client("c").position <= at[2]
        log.client("d").seek("end")
    with opened(cluster_url) as log:
        assert at[1] < log.client("c").position <= at[2]
        assert list(log.get("c")) == [2, 3, 4]
        assert log.client("d").lag == 0
        assert list(log.get("d")) == []


GETTER = """
import sys, time
from tests.cluster.logs import opened
log = opened(sys.argv[1])
for value in log.get("c"):
    print(value, time.monotonic(), flush=True)
    time.sleep(0.01)
"""


def test_a_killed_reader_gets_again_what_it_acknowledged_in_the_last_moment(log, cluster_url):
    log.put_many(range(1000))
    with Process(python(GETTER, cluster_url)) as reader:
        lines = [reader.line() for _ in range(150)]
        lines += [line.removesuffix("\n") for line in reader.kill_and_read()]
    seen = {int(value): float(at) for value, at in (line.split() for line in lines if len(line.split()) == 2)}
    newest = max(seen)
    again = next(iter(log.get("c")))
    assert 0 < again <= newest + 1
    if again <= newest:
        assert seen[newest] - seen[again] < leases.LAZY_S + 5  # a commit takes long on a busy machine


ENDING = """
import sys
from tests.cluster.logs import opened
log = opened(sys.argv[1])
for value in log.get("c"):
    print(value, flush=True)
"""


def test_a_program_that_ends_without_closing_its_log_has_acknowledged(log, cluster_url):
    log.put_many(range(3))
    with Process(python(ENDING, cluster_url)) as other:
        assert other.finish().split() == ["0", "1", "2"]
    assert log.client("c").lag == 0


def test_two_threads_acknowledge_at_once(log):
    at = log.put_many(range(100))
    client = log.client("c")
    (partition,) = log.store.log.find_topic("main")
    one = partition.client("c")
    epoch = one.join().epoch
    offsets = [message.offset for message in log[:]]
    threads = [
        threading.Thread(target=lambda some=some: [one.acknowledge(offset, epoch) for offset in some])
        for some in (offsets[::2], offsets[1::2])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.lag == 0
    assert one.claims() == []  # which commits
    assert at.last < one.state().position


def test_what_fails_in_the_background_is_told_by_the_next_call_and_tried_again(log, monkeypatch):
    log.put_many(range(5))
    (partition,) = log.store.log.find_topic("main")
    client = partition.client("c")
    epoch = client.join().epoch
    offset = partition.span().first
    with monkeypatch.context() as patched:
        failed = threading.Event()

        def fail(*_, **__):
            failed.set()
            raise pqlog.StoreError("no cluster")

        patched.setattr(log.store.log.lanes, "change", fail)
        assert client.acknowledge(offset, epoch)
        assert failed.wait(10)
        wait_until(lambda: client.lane in log.store.log.leases._failed)
        with pytest.raises(pqlog.StoreError, match="no cluster"):
            client.acknowledge(offset, epoch)
    assert client.state().position > offset
    client.claims()
    assert client.acknowledge(offset, epoch)
    assert client.state().lag == 4


def test_an_acknowledgement_from_before_a_seek_of_another_process_is_dropped(log, cluster_url):
    log.put_many(range(5))
    (partition,) = log.store.log.find_topic("main")
    client, first = partition.client("c"), partition.span().first
    state = client.join()
    with opened(cluster_url) as other:
        other.client("c")
        (theirs,) = other.store.log.find_topic("main")
        assert client.acknowledge(partition.span().stop - 1, state.epoch)
        other.store.log.seek([(theirs.client("c"), first)])
    wait_until(lambda: not log.store.log.leases.has_acknowledgements)
    assert client.state().lag == 5


def test_the_owner_is_this_process(log):
    log.put(1)
    (partition,) = log.store.log.find_topic("main")
    claim, _ = partition.client("c").advance(Size(1), "w")
    assert owners.parts(claim.owner) == ("w", owners.this_process())


@pytest.mark.parametrize("asked", ["one", "all"])
def test_an_acknowledgement_that_is_committed_behind_an_answer_counts(log, monkeypatch, asked):
    """What was read before the commit is older than what this process knows."""
    log.put_many(range(3))
    client = log.stream.partitions[0].client("c")
    client.join()
    store = log.stream.partitions[0].log
    name = "look" if asked == "one" else "look_at"
    look = getattr(store.lanes, name)

    def slowly(lanes):
        found = look(lanes)
        if threading.current_thread() is threading.main_thread():  # and not the one that commits
            wait_until(lambda: not store.leases.is_waiting(client.lane), 10)
        return found

    monkeypatch.setattr(store.lanes, name, slowly)
    assert client.acknowledge(log.last, client.recall().epoch)
    found = client.state() if asked == "one" else store.states([client])[0]
    assert found.lag == 0
