"""Syncs that fail once: the system marks the pages as clean, so no later sync writes them."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import apsw

import pqlog
from tests import seams
from tests.simulation.disk import Disk, Fault, errors_are_quiet, write


def fail_a_sync(folder: Path, number: int, killed: bool, reader: bool, chance: random.Random, cuts: int) -> None:
    """Let the sync with that number fail; continue to put, in the same process or in the next one; cut the power.

    Perhaps another program has a read transaction open while what the failed sync left is settled.
    """
    folder.mkdir()
    (folder / "disk").mkdir()
    disk = Disk(folder / "disk")
    returned: list[int] = []
    failed = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(errors_are_quiet())
        stack.enter_context(disk.listening())
        log = stack.enter_context(pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name))
        disk.fault = Fault(("sync",), number)
        for n in range(12):
            try:
                if n % 7 == 6:
                    seams.checkpoint(log)
                log.put(n)
                returned.append(n)
            except pqlog.DiskError:
                failed += 1
                if killed:
                    disk = disk.process_killed(folder / "next disk")
                    stack.enter_context(disk.listening())
                if reader:
                    _read(stack, disk)
                if killed:
                    log = stack.enter_context(pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name, timeout=0))
        at = disk.now
    assert failed == 1
    for cut in range(cuts):
        left = folder / f"cut-{cut}"
        write(left, disk.cut(at, chance))
        with pqlog.open(left / "a.db") as log:
            values = [message.value for message in log]
            assert log.verify() == []
        assert values == sorted(set(values))
        assert set(values) >= set(returned), f"sync {number} failed: {sorted(set(returned) - set(values))} are gone"
        shutil.rmtree(left)


def _read(stack: contextlib.ExitStack, disk: Disk) -> None:
    db = apsw.Connection(str(disk.folder / "a.db"), vfs=disk.vfs_name)
    stack.callback(db.close)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM messages_1").fetchall()
