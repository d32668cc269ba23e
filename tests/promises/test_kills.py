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
WORK = ("produce", "consume", "stage")


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


@pytest.mark.slow
def test_three_processes_are_killed_again_and_again(path):
    chance = random.Random(5)
    with pqlog.open(path) as log:  # created before anybody asks
        log.client("reader").seek(to="start")
        log.client("stage").seek(to="start")
        log.topic("out")
    script = Path(__file__).with_name("killed.py")
    with Process([sys.executable, str(script)]) as server:
        for number in range(ROUNDS):
            reports = [path.parent / f"{work}-{number}" for work in WORK]
            pids = []
            for work, report in zip(WORK, reports, strict=True):
                server.tell(f"{work}\t{path}\t{report}\t{number}")
                pids.append(int(server.line()))
            wait_until(lambda reports=reports: all(map(is_ready, reports)))
            time.sleep(chance.random() * 0.05)  # at a random moment
            chance.shuffle(pids)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)  # raises if the process had ended by itself
            wait_until(lambda pids=pids: not any(map(is_there, pids)))
        server.finish()

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
