"""The proof of order per key: a stage from partitions to partitions, whose workers are killed at random.

`tests.promises.test_keys_in_order` runs it small; as a program it runs in any size::

    python -m tests.promises.keys_in_order --messages 10_000_000 --keys 100_000 --kills 40
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import pqlog

CHUNK = 500_000


@dataclass
class Outcome:
    """What came out at the other end."""

    messages: int
    lost: int
    twice: int
    inversions: int
    """Messages that come before an earlier one of their key."""
    kills: int
    seconds: float

    @property
    def is_exact(self):
        return not (self.lost or self.twice or self.inversions)


def same(frame):
    return frame


def fill(topic, messages, keys, seed=0):
    """Messages with keys; `n` counts within a key. Returns how many each key has."""
    chance, counts = np.random.default_rng(seed), np.zeros(keys, dtype=np.int64)
    for begin in range(0, messages, CHUNK):
        drawn = chance.integers(0, keys, min(CHUNK, messages - begin))
        frame = pd.DataFrame({"key": drawn})
        frame["n"] = counts[drawn] + frame.groupby("key").cumcount().to_numpy()
        counts += np.bincount(drawn, minlength=keys)
        topic.put_many(frame, key="key")
    return counts


def prove(path, messages, keys, workers=8, partitions=8, kills=10, size=50_000, seed=0):
    """Run the stage until all is done, and kill one of its workers now and then: at so many random places."""
    chance, killed, done = random.Random(seed), 0, threading.Event()
    places = sorted(chance.randrange(messages) for _ in range(kills))

    def kill():
        nonlocal killed
        while not done.wait(0.01):
            if places and client.lag <= places[-1] and (running := multiprocessing.active_children()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(running).pid, signal.SIGKILL)
                    killed += 1
                places.pop()

    with pqlog.open(path) as log:
        orders = log.topic("in", partitions=partitions)
        log.topic("out", partitions=partitions)
        counts = fill(orders, messages, keys, seed)
        client, killer, began = orders.client("stage"), threading.Thread(target=kill), time.monotonic()
        client.seek("start")
        killer.start()
        try:
            while client.lag:
                with contextlib.suppress(pqlog.WorkerDiedError):
                    client.pipe(same, into="out", key="key", workers=workers, size=size)
        finally:
            done.set()
            killer.join()
        seconds = time.monotonic() - began
        lost, twice, inversions = compare(log.topic("out"), counts)
        assert log.verify() == []
    return Outcome(messages, lost, twice, inversions, killed, seconds)


def compare(topic, counts):
    """How many messages are missing, came more than once, and came before an earlier one of their key."""
    lost = twice = inversions = 0
    seen = np.zeros(len(counts), dtype=np.int64)
    for number in range(topic.partitions):
        frame = topic.partition(number).history().to_pandas(metadata=False)
        if not len(frame):
            continue
        by_key = frame.groupby("key")["n"]
        inversions += int((frame["n"] < by_key.cummax()).sum())
        twice += int(frame.duplicated().sum())
        seen += np.bincount(frame.drop_duplicates()["key"], minlength=len(counts))
    lost = int((counts - seen).clip(0).sum())
    return lost, twice, inversions


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = prove(
            Path(folder, "events.db"),
            given.messages,
            given.keys,
            given.workers,
            given.partitions,
            given.kills,
            given.size,
        )
    print(outcome)
    raise SystemExit(not outcome.is_exact)


if __name__ == "__main__":
    main()
