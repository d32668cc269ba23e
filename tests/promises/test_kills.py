"""Producers, consumers and stages are killed hundreds of times, at random moments."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import pqlog
from tests.messages import values
from tests.processes import Process, wait_until

ROUNDS = 80
WORK = ("produce", "consume", "stage", "seal")


def report_of(path, name, number):
    lines = (path.parent / f"{name}-{number}").read_text().split("\n")
    return lines[:-1]  # the last line may be incomplete, without its end


def is_ready(report):
    return report.exists() and report.stat().st_size


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_again_and_again(path, works, rounds):
    """Start a process for each work, and kill them all, so many times; each has the number of its round and place."""
    chance = random.Random(5)
    script = Path(__file__).with_name("killed.py")
    with Process([sys.executable, str(script)]) as server:
        for number in range(rounds):
            reports = [path.parent / f"{work}-{number}" for work in works]
            pids = []
            for work, report in zip(works, reports, strict=True):
                server.tell(f"{work.rstrip('123')}\t{path}\t{report}\t{number}{work[len(work.rstrip('123')) :]}")
                pids.append(int(server.line()))
            wait_until(lambda reports=reports: all(map(is_ready, reports)))
            time.sleep(chance.random() * 0.05)  # at a random moment
            chance.shuffle(pids)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)  # raises if the process had ended by itself
            wait_until(lambda pids=pids: not any(map(is_there, pids)))
        server.finish()


@pytest.mark.slow
def test_three_processes_are_killed_again_and_again(path):
    with pqlog.open(path) as log:  # created before anybody asks
        log.client("reader").seek(to="start")
        log.client("stage").seek(to="start")
        log.topic("out")
    kill_again_and_again(path, WORK, ROUNDS)

    with pqlog.open(path) as log:
        assert log.verify() == []
        found = {message.offset: message.value for message in log}
        assert list(found) == list(range(1, len(found) + 1))
        returned = 0
        for number in range(ROUNDS):
            for line in report_of(path, "produce", number)[1:]:
                first, stop = map(int, line.split())
                assert all(found[offset][0] == number for offset in range(first, stop))
                returned += 1
        assert returned > 5 * ROUNDS
        whole = [tuple(value[:2]) for value in found.values() if value[1] % 5 == 4]
        assert all(whole.count(put) == 30 for put in set(whole))

        last = 0
        for number in range(ROUNDS):
            for line in report_of(path, "consume", number)[1:]:
                assert int(line) in (last, last + 1), (
                    number,
                    line,
                )  # the message it held is delivered again
                last = int(line)
        assert last > ROUNDS
        assert log.client("reader").position in (last, last + 1)

        batches = {}
        for number in range(ROUNDS):
            for line in report_of(path, "stage", number)[1:]:
                batch, first, end = map(int, line.split())
                assert batches.setdefault(batch, (first, end)) == (first, end)  # its boundaries never change
        assert len(batches) > ROUNDS
        for batch in log.batches("stage", size=1000):
            batch.put_many([[message.offset] for message in batch.messages()], topic="out")
        assert values(log.topic("out")) == [[offset] for offset in found]


@pytest.mark.parametrize("rounds", [pytest.param(6, marks=pytest.mark.fast), pytest.param(60, marks=pytest.mark.slow)])
def test_workers_on_partitions_are_killed_and_keys_stay_in_order(path, rounds):
    """Each message once, those of a key in their order, from the producers through the stage into another topic."""
    with pqlog.open(path) as log:
        orders = log.topic("orders", partitions=4)
        orders.client("stage").seek("start")
        log.topic("handled", partitions=3)
    works = ("produce_keys1", "produce_keys2", "handle1", "handle2", "handle3")
    kill_again_and_again(path, works, rounds)

    with pqlog.open(path) as log:
        assert log.verify() == []
        orders, handled = log.topic("orders"), log.topic("handled")
        put = [message.value for message in orders]
        there = {(value["of"], value["n"]) for value in put}
        assert len(there) == len(put)
        batches = {}
        for number in range(rounds):
            for which in "12":
                returned = [int(n) for n in report_of(path, f"produce_keys{which}", number)[1:]]
                assert all((f"{number}{which}", 10 * n + i) in there for n in returned for i in range(10))
            for which in "123":
                for line in report_of(path, f"handle{which}", number)[1:]:
                    partition, batch, *span = map(int, line.split())
                    assert batches.setdefault((partition, batch), span) == span  # its boundaries never change
        many = [(value["of"], value["n"] // 10) for value in put if value["n"] // 10 % 3]
        assert all(many.count(call) == 10 for call in set(many))  # in all partitions, or in none
        assert len({partition for partition, _ in batches}) == 4
        for batch in orders.batches("stage", size=1000):
            batch.put_many(list(batch), topic="handled", key="key")
        done = [message.value for message in handled]
        assert len(done) == len(put)
        for values in (put, done):
            by_key = {}
            for value in values:
                by_key.setdefault(value["key"], []).append(value["n"])
            assert all(numbers == sorted(set(numbers)) for numbers in by_key.values())
        assert {(value["of"], value["n"]) for value in done} == there
