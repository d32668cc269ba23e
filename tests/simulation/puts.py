"""Puts, with the power cut at every event."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd

import pqlog
from tests.simulation.disk import Disk, write

CUTS = 3
"""How many states are examined for each event."""


def cut_puts_at_every_event(folder: Path) -> None:
    """After each cut every call is there in full or not at all, and the id of a call tells which."""
    write(folder / "disk", {})
    disk = Disk(folder / "disk")
    steps = [
        lambda log: log.put_many(range(5)),
        lambda log: log.put("one", id="a"),
        lambda log: log.put_many(pd.DataFrame({"n": range(5, 9)})),
        lambda log: log.put_many(["x", "y"], id="b", cursor=("source", 2, None)),
        lambda log: log.put_many([{"order": n % 7} for n in range(9)], ids="order"),
        lambda log: log.put_many([f"k{n}" for n in range(300)]),
    ]
    with disk.listening(), pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name) as log:
        done = [(disk.now, 0)]
        for step in steps:
            step(log)
            done.append((disk.now, len(log)))
        everything = [message.value for message in log]
        last = disk.now
    chance = random.Random(1)
    for at in range(done[0][0], last + 1):
        returned = max(index for index, (event, _) in enumerate(done) if event <= at)
        possible = [length for _, length in done[returned : returned + 2]]
        for number in range(CUTS):
            left = folder / f"{at}-{number}"
            write(left, disk.cut(at, chance))
            with pqlog.open(left / "a.db") as log:
                values = [message.value for message in log]
                assert len(values) in possible, f"after a cut at event {at}: {len(values)} messages"
                assert values == everything[: len(values)]
                assert log.cursor("source") == (2 if "y" in values else None)
                had = "one" in values
                assert log.put("one", id="a") == (6 if had else len(values) + 1)
                put = log.put_many([{"order": 3}, {"order": 3}], ids="order")
                assert put.messages == ({"order": 3} not in values)
                assert len(log) == len(values) + (not had) + put.messages
                assert log.verify() == []
