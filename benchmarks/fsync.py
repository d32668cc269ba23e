"""What durability costs: journal modes by `synchronous` by transaction size by threads, in plain SQLite.

Each setting is also put on the simulated disk of the tests, where the power is cut: does what returned survive?
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apsw

from benchmarks.counting import CountingVfs
from benchmarks.harness import sync_rate, timed
from benchmarks.workloads import event
from tests.simulation.disk import Disk

JOURNALS = ("delete", "truncate", "persist", "wal")
SYNCHRONOUS = ("off", "normal", "full", "extra")
SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
THREADS = (1, 4, 16, 64)
CUTS = 150


class Setting(NamedTuple):
    """The settings with which SQLite writes a file."""

    journal: str
    synchronous: str


def _open(path: Path, setting: Setting, vfs: str | None = None, make: bool = True) -> apsw.Connection:
    db = apsw.Connection(str(path), vfs=vfs)
    db.set_busy_timeout(60_000)
    if make:
        db.pragma("journal_mode", setting.journal)
        db.execute("CREATE TABLE IF NOT EXISTS plain (id INTEGER PRIMARY KEY, value TEXT)")
    db.pragma("synchronous", setting.synchronous)
    return db


def _insert(db: apsw.Connection, first: int, size: int) -> None:
    with db:
        db.executemany(
            "INSERT INTO plain (value) VALUES (?)", ((json.dumps(event(n)),) for n in range(first, first + size))
        )


def rate(folder: Path, setting: Setting, size: int, threads: int, messages: int) -> float:
    """Messages per second, in transactions of `size`; each thread has a connection of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        path = Path(inner, "a.db")
        _open(path, setting).close()
        each = max(1, messages // size // threads)

        def work() -> None:
            db = _open(path, setting, make=False)
            for number in range(each):
                _insert(db, number * size, size)
            db.close()

        if threads == 1:
            return timed(work, each * size)
        workers = [threading.Thread(target=work) for _ in range(threads)]

        def together() -> None:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        return timed(together, each * size * threads)


def counts(folder: Path, setting: Setting, size: int) -> dict[str, float]:
    """Syncs, writes and bytes per message."""
    vfs = CountingVfs()
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        db = _open(Path(inner, "a.db"), setting, vfs.vfs_name)
        _insert(db, 0, size)
        before = vars(vfs.counts).copy()
        times = max(3, min(200, 2_000 // size))
        for number in range(times):
            _insert(db, number * size, size)
        for name, value in before.items():
            setattr(vfs.counts, name, getattr(vfs.counts, name) - value)
        db.close()
    return vfs.counts.per(times * size)


def survives(setting: Setting, cuts: int = CUTS) -> str:
    """How many power cuts lost a commit that had returned, or broke the file: "0 of 150" is durable."""
    lost = 0
    with tempfile.TemporaryDirectory() as inner:
        (Path(inner) / "disk").mkdir()
        disk = Disk(Path(inner) / "disk")
        db = _open(Path(inner) / "disk" / "a.db", setting, disk.vfs_name)
        disk.events.append(disk.events[0]._replace(kind="sync folder", name=""))  # the file itself is there
        begin, returned = disk.now, []
        for number in range(60):
            _insert(db, number, 1)
            returned.append(disk.now)
        chance = random.Random(1)
        for cut in range(cuts):
            at = chance.randrange(begin, disk.now + 1)
            folder = Path(inner) / f"cut-{cut}"
            folder.mkdir()
            for name, data in disk.cut(at, chance).items():
                (folder / name).write_bytes(data)
            need = sum(event <= at for event in returned)
            try:
                left = apsw.Connection(str(folder / "a.db"))
                found = left.execute("SELECT count(*) FROM plain").get
                lost += found < need or left.pragma("integrity_check") != "ok"
            except apsw.Error:
                lost += 1
        db.close()
    return f"{lost} of {cuts}"


def run(folder: Path, rounds: int, scale: float) -> Iterator[dict[str, object]]:
    """A row for each setting, size and number of threads."""
    for journal in JOURNALS:
        for synchronous in SYNCHRONOUS:
            setting = Setting(journal, synchronous)
            lost = survives(setting, max(10, min(CUTS, int(CUTS * scale))))
            cases = [(size, 1) for size in SIZES if size <= max(100, SIZES[-1] * scale)] + [
                (1, threads) for threads in THREADS[1:]
            ]
            for size, threads in cases:
                messages = max(size * threads, int((400 if size == 1 else min(20 * size, 100_000)) * scale), 20)
                rates, limits = [], []
                for _ in range(rounds):
                    limits.append(sync_rate(folder, max(20, int(400 * scale))))
                    rates.append(rate(folder, setting, size, threads, messages))
                yield {
                    "journal": journal,
                    "synchronous": synchronous,
                    "lost in power cuts": lost,
                    "messages a transaction": size,
                    "threads": threads,
                    "rates": rates,
                    "limits": limits,
                    **counts(folder, setting, size),
                }
