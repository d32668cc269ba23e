"""Everything that creates or moves files, with the power cut at every event."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import pqlog
from tests import seams
from tests.simulation.disk import Disk, short_logs, write

CALLS: dict[str, Callable[[pqlog.Log, Path], Any]] = {
    "checkpoint": lambda log, folder: seams.checkpoint(log),
    "compact": lambda log, folder: log.compact(),
    "compact, then another opens": lambda log, folder: (log.compact(), pqlog.open(folder / "a.db").close()),
    "trim": lambda log, folder: log.trim(before=400, force=True),
    "seal": lambda log, folder: log.seal(),
    "backup": lambda log, folder: log.backup(folder / "b.db"),
    "salvage": lambda log, folder: pqlog.salvage(folder / "a.db", folder / "b.db"),
    "export": lambda log, folder: log.history().to_parquet(folder / "out", rows_per_file=200),
    "export by partition": lambda log, folder: (  # the file that begins with 150 is replaced by one that begins with 1
        log[150:300].to_parquet(folder / "out", rows_per_file=200, partition_by="part"),
        log.to_parquet(folder / "out", rows_per_file=200, partition_by="part"),
    ),
    "close": lambda log, folder: log.close(),
}

AT_ONCE = {"trim", "seal", "checkpoint", "compact", "compact, then another opens", "close"}
"""After these, a cut leaves nothing but the log."""


def cut_a_call(folder: Path, name: str, chance: random.Random, cuts: int, every: int = 1) -> int:
    """Cut the power at each event of a call, or at every third; returns how many events it had.

    The log holds what it held, except after a trim; and the result of the call is complete or absent.
    """
    write(folder / "disk", {})
    disk = Disk(folder / "disk")
    with disk.listening(), pqlog.open(disk.folder / "a.db") as log:
        log.put_many({"n": n, "part": n % 2} for n in range(500))
        log.put_many(pd.DataFrame({"n": range(500, 550), "part": 0}))
        seams.checkpoint(log)
        for n in range(550, 556):
            log.put({"n": n, "part": 1})
        before = disk.now
        CALLS[name](log, disk.folder)
        after = disk.now
    for at in range(after, before - 1, -every):
        for number in range(cuts):
            left = folder / f"{at}-{number}"
            write(left, disk.cut(at, chance))
            with short_logs():
                _check(left, name, at == after)
            shutil.rmtree(left)
    return after - before


def _check(folder: Path, name: str, returned: bool) -> None:
    with pqlog.open(folder / "a.db") as log:
        values = [message.value["n"] for message in log]
        first = 0 if len(values) == 556 else 399
        assert first == 0 or name == "trim"
        assert first == 399 or name != "trim" or not returned
        assert values == list(range(first, 556))
        assert log.verify() == []
        if name.startswith("export"):
            _check_export(folder / "out", log, returned, "part" if name == "export by partition" else ())
        elif os.path.exists(folder / "b.db"):
            with pqlog.open(folder / "b.db") as copy:
                assert [message.value["n"] for message in copy] == list(range(556))
                assert copy.verify() == []
        else:
            assert name in AT_ONCE or not returned


def _check_export(out: Path, log: pqlog.Log, returned: bool, partition_by: Any) -> None:
    _exported(out)
    try:
        written = log.history().to_parquet(out, rows_per_file=200, partition_by=partition_by)
    except pqlog.ArgumentError as error:
        raise AssertionError(f"what the cut left cannot be completed: {error}") from error
    assert written == [] or not returned
    assert _exported(out) == list(range(556))


def _exported(out: Path) -> list[int]:
    """The numbers in all files, which are whole."""
    found = []
    for path in out.rglob("*.parquet"):
        try:
            table = pq.read_table(path)
            table.validate(full=True)
        except pa.ArrowInvalid as error:
            raise AssertionError(f"{path} is not whole: {error}") from error
        found += table["n"].to_pylist()
    return sorted(found)


__all__ = ["CALLS", "cut_a_call"]
