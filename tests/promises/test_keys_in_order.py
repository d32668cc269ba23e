"""A key is with one worker at a time and in order, whoever is killed: none lost, none twice, none out of order."""

import collections
import random
import time

import pytest

import pqlog
from tests.processes import start
from tests.promises.keys_in_order import prove


@pytest.mark.slow
def test_a_pipe_whose_workers_are_killed_keeps_the_order_of_each_key(path):
    outcome = prove(path, messages=200_000, keys=10_000, kills=4, size=1_000)
    assert outcome.is_exact, outcome
    assert outcome.kills


WORKER = """
import sys, threading, pqlog
path, threads = sys.argv[1], int(sys.argv[2])
log = pqlog.open(path)
def work():
    for batch in log.topic("in").batches("stage", size=7, follow=True, ordered=True):
        batch.put_many(list(batch), topic="out", key="key")
workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers:
    worker.start()
print("ready", flush=True)
"""


@pytest.mark.parametrize(
    ("partitions", "processes", "threads"), [(8, 4, 2), pytest.param(1, 3, 2, marks=pytest.mark.slow)]
)
def test_processes_with_threads_that_are_killed_keep_the_order_of_each_key(path, partitions, processes, threads):
    chance, count, keys = random.Random(1), 4_000, 40
    with pqlog.open(path) as log:
        orders, out = log.topic("in", partitions=partitions), log.topic("out", partitions=partitions)
        values = [{"key": f"k{n % keys}", "n": n} for n in range(count)]
        for begin in range(0, count, 50):
            orders.put_many(values[begin : begin + 50], key="key")
        client, kills = orders.client("stage"), 0
        client.seek("start")
        running = [start(WORKER, path, threads) for _ in range(processes)]
        until = time.monotonic() + 120
        while client.lag:
            assert time.monotonic() < until
            time.sleep(chance.uniform(0.05, 0.3))
            if kills < 12 and client.lag:
                running.pop(chance.randrange(len(running))).kill_and_read()
                running.append(start(WORKER, path, threads))
                kills += 1
        for process in running:
            process.kill_and_read()
        got = collections.defaultdict(list)
        for number in range(partitions):
            for message in out.partition(number):
                got[message.key].append(message.value["n"])
        assert got == {f"k{k}": list(range(k, count, keys)) for k in range(keys)}
        assert kills
        assert log.verify() == []
