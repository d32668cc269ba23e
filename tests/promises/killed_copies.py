"""The proof of shipping and mirroring: copies whose processes are killed at random, two at once, there and back.

`tests.promises.test_ship` runs it small; as a program it runs in any size, also over a cluster::

    python -m tests.promises.killed_copies --messages 1_000_000 --kills 100
    python -m tests.promises.killed_copies --messages 1_000_000 --kills 100 --to kafka://127.0.0.1:9092/proof
"""

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import pqlog
from tests.processes import run, start

COPY = """
import sys, pqlog
from pqlog import copier
verb, source, target, copier.ROWS = *sys.argv[1:4], int(sys.argv[4])
def say(progress):
    print(progress.messages, flush=True)
try:
    if verb == "ship":
        with pqlog.open(source, "orders", readonly=True) as log:
            copied = log.ship(target, progress=say)
    else:
        copied = pqlog.mirror(source, target, progress=say)
    print("done", copied.messages, flush=True)
except (pqlog.StoreError, pqlog.UncertainError) as error:  # a busy cluster did not answer in time: to be repeated
    if not target.startswith("kafka:") and not source.startswith("kafka:"):
        raise
    print("error", type(error).__name__, flush=True)
"""


@dataclass
class Outcome:
    """What a copy is like."""

    messages: int
    kills: int
    seconds: float
    differences: list[str]
    """Where it is not what was copied."""

    @property
    def is_exact(self):
        return not self.differences


def fill(path, messages, seed=0, partitions=3):
    """Singles, frames and single puts, with and without keys and headers; `n` counts in each topic."""
    chance = random.Random(seed)
    with pqlog.open(path, "plain") as log:
        orders, done = log.topic("orders", partitions=partitions), 0
        while done < messages:
            size = min(chance.choice([1, 3, 200, 5_000, 40_000]), messages - done)
            topic = chance.choice([log, orders])
            numbers = range(done, done + size)
            headers = chance.choice([None, {"part": str(done), "ř": '"\\'}])
            if size == 1:
                topic.put(
                    {"n": done, "key": f"k{done % 99}"}, key=chance.choice([None, f"k{done % 99}"]), headers=headers
                )
            elif chance.random() < 0.3:
                frame = pd.DataFrame({"n": numbers, "key": [f"k{n % 99}" for n in numbers]})
                topic.put_many(frame, key=chance.choice([None, "key"]), headers=headers)
            else:
                values = [{"n": n, "key": f"k{n % 99}"} for n in numbers]
                topic.put_many(values, key=chance.choice([None, "key"]), headers=headers)
            done += size


def copy_with_kills(verb, source, target, kills, rows, seed=0):
    """Let two processes copy, and kill one of them again and again, until nothing is left; returns how often."""
    chance, killed, is_done = random.Random(seed), 0, False
    running = [start(COPY, verb, source, target, rows) for _ in range(2)]
    try:
        while killed < kills and not is_done:
            one = running.pop(chance.randrange(2))
            lines = [one.line() for _ in range(chance.choice([0, 1, 2, 3]))]
            if all(line.isdigit() for line in lines):
                time.sleep(chance.random() * chance.choice([0.0, 0.02, 0.5]))
                one.kill_and_read()
                killed += 1
            else:
                one.finish()
                is_done = "done 0" in lines
            running.append(start(COPY, verb, source, target, rows))
        for one in running:
            one.finish()
    finally:
        for one in running:
            if one.poll() is None:
                one.kill_and_read()
    while "done" not in run(COPY, verb, source, target, rows, timeout=None):
        pass
    return killed


def compare(one, other):
    """Where two logs do not have the same messages, in the same order, in the same partitions."""
    found = []
    for name in one.topics():
        topics = [log.topic(name) for log in (one, other)]
        for number in range(topics[0].partitions):
            was, now = (_columns(topic.partition(number)) for topic in topics)
            for what in was:
                if not np.array_equal(was[what], now[what]):
                    found.append(f"{name}, partition {number}: {what}: {len(was[what])} and {len(now[what])}")
    return found


def _columns(partition):
    ours = ("pqlog-time", "pqlog-offset", "pqlog-partition")
    frame = partition.history().to_pandas(columns=["n", "key"], metadata=["key", "headers"])
    headers = [tuple(pair for pair in dict(some or ()).items() if pair[0] not in ours) for some in frame["_headers"]]
    return {
        "values": frame["n"].to_numpy(),
        "fields": frame["key"].to_numpy(),
        "keys": frame["_key"].fillna("").to_numpy(),
        "headers": np.array(list(map(repr, headers))),
    }


def prove(folder, messages, kills, to=None, rows=2_000, seed=0):
    """Ship a file to another log, mirror that to a third, and compare."""
    source, back = folder / "source.db", folder / "back.db"
    hub = to or str(folder / "hub.db")
    fill(source, messages, seed)
    began = time.monotonic()
    killed = copy_with_kills("ship", source, hub, kills, rows, seed)
    killed += copy_with_kills("mirror", hub, back, kills, rows, seed + 1)
    seconds = time.monotonic() - began
    with pqlog.open(source, "plain", readonly=True) as one, pqlog.open(back, "plain", readonly=True) as other:
        differences = compare(one, other) + other.verify()
    return Outcome(messages, killed, seconds, differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2_000, help="how many rows a transaction has at most")
    parser.add_argument("--to", help="the log to ship to; a file by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = prove(Path(folder), given.messages, given.kills, given.to, given.rows)
    print(outcome)
    raise SystemExit(not outcome.is_exact)


if __name__ == "__main__":
    main()
