"""Producers, consumers and stages are killed hundreds of times, whatever they are in the midst of."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pqlog

ROUNDS = 80
WORK = ("produce", "consume", "stage")


def report_of(path, name, number):
    lines = (path.parent / f"{name}-{number}").read_text().split("\n")
    return lines[:-1]  # the last may be incomplete: then it is not ended


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_three_processes_are_killed_again_and_again(path):
    chance = random.Random(5)
    with pqlog.open(path) as log:  # known before anybody asks
        log.client("reader").seek(to="start")
        log.client("stage").seek(to="start")
        log.topic("out")
    script = Path(__file__).with_name("killed.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        for number in range(ROUNDS):
            reports = [path.parent / f"{work}-{number}" for work in WORK]
            pids = []
            for work, report in zip(WORK, reports, strict=True):
                server.stdin.write(f"{work}\t{path}\t{report}\t{number}\n")
                server.stdin.flush()
                pids.append(int(server.stdout.readline()))
            until = time.monotonic() + 60
            while not all(report.exists() and report.stat().st_size for report in reports):
                assert time.monotonic() < until, "they do not get ready"
                time.sleep(0.001)
            time.sleep(chance.random() * 0.05)
            chance.shuffle(pids)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)  # raises if it had ended by itself
            for pid in pids:
                while is_there(pid):
                    time.sleep(0.001)
        server.stdin.close()

    with pqlog.open(path) as log:
        assert log.verify() == []
        values = {message.offset: message.value for message in log}
        assert list(values) == list(range(1, len(values) + 1))
        returned = 0
        for number in range(ROUNDS):
            for line in report_of(path, "produce", number)[1:]:
                first, stop = map(int, line.split())
                assert all(values[offset][0] == number for offset in range(first, stop))
                returned += 1
        assert returned > 5 * ROUNDS
        whole = [tuple(value[:2]) for value in values.values() if value[1] % 5 == 4]
        assert all(whole.count(put) == 30 for put in set(whole))

        last = 0
        for number in range(ROUNDS):
            for line in report_of(path, "consume", number)[1:]:
                assert int(line) in (last, last + 1), (number, line)  # the one it was killed with comes again
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
        assert [message.value for message in log.topic("out")] == [[offset] for offset in values]
