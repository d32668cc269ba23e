"""Repeated power cuts: each during the recovery from the one before, or soon after."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pqlog
from tests import seams
from tests.simulation.disk import Disk, write


def cut_again_and_again(folder: Path, chance: random.Random, lives: int) -> int:
    """Cut the power repeatedly, often while the log is being opened; returns how often that was.

    What was read from an open log, or put into it, is there after any number of cuts; a call that was running has its
    full effect or none.
    """
    files: dict[str, bytes] = {}
    possible: list[list] = [[], []]
    number = in_opening = 0
    for life in range(lives + 1):
        disk = Disk(_folder(folder / str(life), files))
        with disk.listening(), pqlog.open(disk.folder / "a.db", vfs=disk.vfs_name) as log:
            values = [message.value for message in log]
            assert values in possible, f"life {life}: {values} is none of {possible}"
            steps = [(0, possible[0]), (disk.now, values)]
            opened = disk.now
            assert log.verify() == []
            for _ in range(chance.randrange(6)):
                match chance.choice(["put", "put", "put_many", "checkpoint", "compact"]):
                    case "put":
                        number += 1
                        log.put(number)
                        values = [*values, number]
                    case "put_many":
                        log.put_many([number + 1, number + 2, "x" * 9000])
                        values = [*values, number + 1, number + 2, "x" * 9000]
                        number += 2
                    case "checkpoint":
                        seams.checkpoint(log)
                    case "compact":
                        log.compact()
                steps.append((disk.now, values))
        steps.append((disk.now, values))
        # while opening, during the last call, while closing, or anywhere
        first, last = chance.choice(
            [(0, opened), (steps[-3][0], steps[-2][0]), (steps[-2][0], disk.now), (0, disk.now)]
        )
        at = chance.randint(first, last)
        in_opening += at < opened
        returned = max(index for index, (event, _) in enumerate(steps) if event <= at)
        possible = [values for _, values in steps[returned : returned + 2]]
        files = disk.cut(at, chance)
        shutil.rmtree(disk.folder)
    return in_opening


def _folder(folder: Path, files: dict[str, bytes]) -> Path:
    write(folder, files)
    return folder
