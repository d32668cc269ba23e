"""Puts of many threads that share their commits, or do not wait for them, and power cuts between them."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pqlog.aio
from tests.simulation.disk import Disk, write


class Put(NamedTuple):
    """A put that returned, and the number of events until then."""

    event: int
    value: list
    offset: int


def put_from_threads(folder: Path, threads: int = 8, each: int = 12) -> tuple[Disk, list[Put]]:
    """Let threads put concurrently; returns what returned when."""
    (folder / "disk").mkdir()
    disk = Disk(folder / "disk", sync_s=0.0005)
    puts: list[Put] = []
    with disk.listening(), pqlog.open(folder / "disk" / "a.db", vfs=disk.vfs_name) as log:

        def work(name: int) -> None:
            for n in range(each):
                if n % 6 == 5:
                    offset = log.put_many([[name, n, i] for i in range(3)]).first
                    puts.append(Put(disk.now, [name, n, 0], offset))
                else:
                    offset = log.put([name, n, 0])
                    puts.append(Put(disk.now, [name, n, 0], offset))

        workers = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
    return disk, puts


def send_from_threads(folder: Path, threads: int = 3, each: int = 40) -> tuple[Disk, list[Put]]:
    """The same of threads that send: what counts is when a future is done, which its callback tells at once."""
    (folder / "disk").mkdir()
    disk = Disk(folder / "disk", sync_s=0.0005)
    puts: list[Put] = []
    with disk.listening(), pqlog.open(folder / "disk" / "a.db", vfs=disk.vfs_name) as log:

        def work(name: int) -> None:
            for n in range(each):
                if n % 12 == 5:
                    offset = log.put_many([[name, n, i] for i in range(3)]).first
                    puts.append(Put(disk.now, [name, n, 0], offset))
                    continue
                n += n % 6 == 5  # what has such a number was put by put_many
                future = log.send([name, n, 0], id=f"{name} {n}" if n % 5 == 0 else None)
                future.add_done_callback(lambda done, n=n: puts.append(Put(disk.now, [name, n, 0], done.result())))
                if n % 7 == 0:
                    time.sleep(0.0003)  # less than a sync takes: more is sent meanwhile

        workers = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
    return disk, puts


def put_from_tasks(folder: Path, tasks: int = 8, each: int = 12) -> tuple[Disk, list[Put]]:
    """The same of tasks of an event loop."""
    (folder / "disk").mkdir()
    disk = Disk(folder / "disk", sync_s=0.0005)
    puts: list[Put] = []

    async def work(log: pqlog.aio.Log, name: int) -> None:
        for n in range(each):
            if n % 6 == 5:
                offset = (await log.put_many([[name, n, i] for i in range(3)])).first
            else:
                offset = await log.put([name, n, 0])
            puts.append(Put(disk.now, [name, n, 0], offset))

    async def main() -> None:
        async with pqlog.aio.open(folder / "disk" / "a.db", vfs=disk.vfs_name) as log:
            await asyncio.gather(*(work(log, name) for name in range(tasks)))

    with disk.listening():
        asyncio.run(main())
    return disk, puts


def check_cuts(disk: Disk, puts: list[Put], chance: random.Random, cuts: int) -> int:
    """Cut the power at random moments; returns how many different numbers of messages were left."""
    found = set()
    for number in range(cuts):
        at = chance.randrange(disk.now + 1)
        folder = disk.folder.with_name(f"cut-{number}")
        write(folder, disk.cut(at, chance))
        with pqlog.open(folder / "a.db") as log:
            left = {message.offset: message.value for message in log}
            for put in puts:
                if put.event <= at:
                    assert left.get(put.offset) == put.value, f"cut at event {at}: {put} is gone, {len(left)} are left"
            assert list(left) == list(range(1, len(left) + 1))
            many = [value[:2] for value in left.values() if value[1] % 6 == 5]
            assert all(many.count(value) == 3 for value in many)
            for name in range(8):  # in the order in which the thread put them
                mine = [value[1:] for value in left.values() if value[0] == name]
                assert mine == sorted(mine)
            assert log.verify() == []
        shutil.rmtree(folder)
        found.add(len(left))
    return len(found)
