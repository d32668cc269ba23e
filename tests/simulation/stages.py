"""Stages over partitions, with the power cut at every event."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

import pqlog
from tests.simulation.disk import Disk, write

PARTITIONS = 3
CUTS = 2
"""How many states are examined for each event."""


def cut_a_stage(folder: Path, every: int = 1) -> None:
    """Cut the power at each event of a stage, or at every third.

    What a stage puts, into a topic of partitions too, is there if its batch is acknowledged, whatever partition the
    worker took its next batch of. And it goes on: each message once, those of a key in their order.
    """
    disk = _filled(folder)
    with disk.listening(), pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name) as log:
        begun = disk.now
        done = [(begun, 0)]
        batches = _work(log, lambda: done.append((disk.now, len(log.topic("out")))))
        assert {batch[0] for batch in batches} == set(range(PARTITIONS))
        last = disk.now
    chance = random.Random(1)
    for at in range(begun, last + 1, every):
        returned = max(length for event, length in done if event <= at)
        for number in range(CUTS):
            left = folder / f"{at}-{number}"
            write(left, disk.cut(at, chance))
            with pqlog.open(left / "a.db") as log:
                _check(log, batches, at, returned)


def _filled(folder: Path) -> Disk:
    write(folder / "disk", {})
    disk = Disk(folder / "disk")
    with pqlog.open(disk.folder / "a.db", partitions=PARTITIONS) as log:
        log.put_many(({"n": n, "k": f"{n % 8}"} for n in range(24)), key="k")
        log.put_many(pd.DataFrame({"n": range(24, 32), "k": [f"{n % 8}" for n in range(24, 32)]}), key="k")
        log.topic("out", partitions=2)
        log.client("stage").seek("start")
    return Disk(folder / "disk")


def _work(log: pqlog.Log, taken: Callable[[], Any]) -> set[tuple[int, int, int, int]]:
    """Run the stage to its end; the batches that there were."""
    batches = set()
    for batch in log.batches("stage", size=4, owner="worker"):
        taken()
        batches.add((batch.partition, batch.number, batch.first, batch.last))
        batch.put_many([{"of": value["n"], "k": value["k"]} for value in batch], topic="out", key="k")
    return batches


def _check(log: pqlog.Log, batches: set[tuple[int, int, int, int]], at: int, returned: int) -> None:
    position = log.client("stage").position
    acknowledged = {message.value["n"] for message in log if message.offset < position[message.partition]}
    put = [message.value["of"] for message in log.topic("out")]
    assert len(put) >= returned, f"after a cut at event {at}: {returned} were put, {len(put)} are left"
    assert sorted(put) == sorted(acknowledged), f"after a cut at event {at}: outputs and acknowledgements differ"
    assert _work(log, lambda: None) <= batches  # their boundaries stay
    assert log.client("stage").lag == 0
    out = [message.value for message in log.topic("out")]
    assert sorted(value["of"] for value in out) == list(range(32))
    for key in {value["k"] for value in out}:
        mine = [value["of"] for value in out if value["k"] == key]
        assert mine == sorted(mine), f"after a cut at event {at}: key {key} is out of order"
    assert log.verify() == []


CALLS: dict[str, Callable[[pqlog.Log], Any]] = {
    "seek": lambda log: log.client("stage").seek("end"),
    "seek back": lambda log: log.client("reader").seek("start"),
    "a new client": lambda log: log.client("new").seek("end"),
    "delete client": lambda log: log.client("stage").delete(),
    "trim": lambda log: log.trim(next(iter(log.client("reader").unread())).time, force=True),
    "delete topic": lambda log: log.delete_topic("out", force=True),
    "rename topic": lambda log: log.rename_topic("out", "renamed"),
    "new topic": lambda log: log.topic("new", partitions=PARTITIONS),
}
"""What changes all partitions of a topic at once."""


def cut_a_call_over_partitions(folder: Path, name: str) -> None:
    """After a cut at any event of the call, it has done its work in all partitions, or in none."""
    disk = _filled(folder)
    with disk.listening(), pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name) as log:
        held = [log.client("stage").next_batch(size=4) for _ in range(PARTITIONS)]
        log.topic("out").put_many([{"n": n} for n in range(8)], key="n")
        log.client("reader").seek("end")
        log.put_many([{"n": n, "k": f"{n}"} for n in range(8)], key="k")
        before, begun = _state(log), disk.now
        CALLS[name](log)
        after, last = _state(log), disk.now
        del held
    assert before != after
    chance = random.Random(1)
    for at in range(begun, last + 1):
        for number in range(CUTS):
            left = folder / f"{at}-{number}"
            write(left, disk.cut(at, chance))
            with pqlog.open(left / "a.db") as log:
                possible = [after] if at == last else [before, after]
                assert _state(log) in possible, f"after a cut at event {at}: {_state(log)} is none of {possible}"
                assert log.verify() == []


def _state(log: pqlog.Log) -> Any:
    """What a log shows."""
    topics = {name: log.topic(name) for name in log.topics()}
    kept = {name: [(m.partition, m.offset, m.value) for m in topic] for name, topic in topics.items()}
    clients = {name: [(c.client, c.position, c.open) for c in topic.clients()] for name, topic in topics.items()}
    claims = {client.client: len(log.client(client.client).claims()) for client in log.clients()}
    return kept, clients, claims
