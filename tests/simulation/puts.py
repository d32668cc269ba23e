"""Puts, with the power cut at every event."""

from __future__ import annotations

import random
from pathlib import Path
from unittest import mock

import pandas as pd

import pqlog
from pqlog.store.sqlite import claims
from tests.simulation.disk import Disk, write

CUTS = 3
"""How many states are examined for each event."""


def cut_puts(folder: Path, partitions: int = 1, every: int = 1) -> None:
    """Cut the power at each event, or at every second: every call is there in full or not at all.

    And the id of a call tells which.

    In a topic of several partitions, the calls go into all of them, and their merged order is that of the calls, though
    the clock stands still.
    """
    write(folder / "disk", {})
    disk = Disk(folder / "disk")
    key = "n" if partitions > 1 else None
    steps = [
        lambda log: log.put_many([{"n": n} for n in range(5)], key=key),
        lambda log: log.put({"n": "one"}, id="a"),
        lambda log: log.put_many(pd.DataFrame({"n": range(5, 9)}), key=key),
        lambda log: log.put_many([{"n": n} for n in "xyz"], id="b", key=key, cursor=("source", 2, None)),
        lambda log: log.put_many([{"n": n, "order": n % 7} for n in range(9)], ids="order", key=key),
        lambda log: log.put_many([{"n": n} for n in range(9, 309)], key=key),
    ]
    with mock.patch.object(claims, "now_micros", return_value=1_700_000_000_000_000):
        with disk.listening(), pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name, partitions=partitions) as log:
            done = [(disk.now, 0)]
            everything: list = []
            for step in steps:
                step(log)
                values = [message.value for message in log]
                assert values[: len(everything)] == everything
                everything = values
                done.append((disk.now, len(values)))
            last = disk.now
        chance = random.Random(1)
        for at in range(done[0][0], last + 1, every):
            returned = max(index for index, (event, _) in enumerate(done) if event <= at)
            possible = [length for _, length in done[returned : returned + 2]]
            for number in range(CUTS):
                left = folder / f"{at}-{number}"
                write(left, disk.cut(at, chance))
                with pqlog.open(left / "a.db", partitions=partitions) as log:
                    _check(log, everything, possible, at)


def _check(log: pqlog.Log, everything: list, possible: list[int], at: int) -> None:
    values = [message.value for message in log]
    assert len(values) in possible, f"after a cut at event {at}: {len(values)} messages"
    assert values == everything[: len(values)]
    assert log.cursor("source") == (2 if {"n": "y"} in values else None)
    had = {"n": "one"} in values
    log.put({"n": "one"}, id="a")
    again = [{"n": n, "order": 3} for n in "uvw"]  # in other partitions
    log.put_many(again, ids="order", key="n")
    has_order = any(value.get("order") == 3 for value in values)
    new = [] if had else [{"n": "one"}]
    found = [message.value for message in log]
    assert found[: len(values) + len(new)] == values + new
    assert len(found) == len(values) + len(new) + (not has_order)
    assert log.verify() == []
