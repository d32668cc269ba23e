"""Several real processes that use one log, and power cuts at any moment of their writes.

Each records its operations on the files, and the calls that returned, in one common file, in the order of execution.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pqlog
from pqlog.store import sealed
from pqlog.store.sqlite import checkpointer, sealing
from tests.simulation.disk import Disk, Event, short_logs, write

NAMES = "abc"


class _Record(list):
    """Events that are appended to a file."""

    def __init__(self, path: Path, dies_at: int) -> None:
        super().__init__()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._dies_at = dies_at
        self._seen = 0

    def append(self, event: Event) -> None:
        os.write(self._file, pickle.dumps(event))
        super().append(event)
        if len(self) == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def news(self) -> Iterator[Event]:
        """The events of all processes since the last call."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(self._seen)
            with contextlib.suppress(EOFError):
                while True:
                    yield pickle.load(file)
                    self._seen = file.tell()


class SharedDisk(Disk):
    """A disk that several processes use; it was empty at the start of the first one."""

    def __init__(self, folder: Path, dies_at: int = 0) -> None:
        super().__init__(folder)
        self.events = _Record(folder.with_suffix(".events"), dies_at)
        self._depth = 0

    def _found(self) -> dict[str, bytes]:
        return {}  # the present contents may be changed by the others

    @contextlib.contextmanager
    def in_order(self) -> Iterator[None]:
        with self._order:
            self._depth += 1
            try:
                with self.events.locked() if self._depth == 1 else contextlib.nullcontext():
                    yield
            finally:
                self._depth -= 1

    def opened(self, name: str, created: bool) -> int:
        for event in self.events.news():
            if event.kind == "create":
                self._files[event.name] = event.file
        if created or name not in self._files:
            self._files[name] = os.getpid() << 32 | len(self.events)
            self.events.append(Event("create", name, self._files[name]))
        return self._files[name]

    def returned(self, *what: object) -> None:
        """Note that from here on something must survive."""
        with self.in_order():
            self.events.append(Event("returned", json.dumps(what)))


def work(folder: Path, name: str, seed: int, dies_at: int) -> None:
    """What each process does."""
    chance = random.Random(f"{seed} {name}")
    disk = SharedDisk(folder, dies_at)
    number = 0
    small = mock.patch.object(sealed, "MAX_ROWS", 10), mock.patch.object(sealing, "LEAST", 2)
    with disk.listening(), mock.patch.object(checkpointer, "PAGES", 10), small[0], small[1]:
        for _ in range(3):
            with pqlog.open(folder / "a.db") as log:
                for _ in range(chance.randrange(2, 8)):
                    many = chance.choice([0, 0, 3])
                    values = [[name, number + n, "x" * chance.choice([1, 6000])] for n in range(many or 1)]
                    number += len(values)
                    first = log.put_many(values).first if many else log.put(values[0])
                    disk.returned(first, values)
                    if not chance.randrange(6):
                        log.compact()
                    if not chance.randrange(4):
                        log.seal()


def put_from_processes(folder: Path, seed: int) -> SharedDisk:
    """Let processes work concurrently; one of them may be killed at any event."""
    chance = random.Random(seed)
    write(folder / "disk", {})
    dying = chance.choice([*NAMES, ""])
    running = []
    for name in NAMES:
        dies_at = chance.randrange(20, 150) if name == dying else 0
        command = [sys.executable, "-m", __name__, str(folder / "disk"), name, str(seed), str(dies_at)]
        running.append(subprocess.Popen(command))
    for name, process in zip(NAMES, running, strict=True):
        assert process.wait(120) in ((0, -signal.SIGKILL) if name == dying else (0,))
    disk = SharedDisk(folder / "disk")
    disk.events = list(disk.events.news())
    return disk


def check_cuts(disk: SharedDisk, chance: random.Random, cuts: int) -> int:
    """Cut the power at random moments; returns how many different numbers of messages were left."""
    found = set()
    for number in range(cuts):
        at = chance.randrange(disk.now + 1)
        folder = disk.folder.with_name(f"cut-{number}")
        write(folder, disk.cut(at, chance))
        with short_logs(), pqlog.open(folder / "a.db") as log:
            left = {message.offset: message.value for message in log}
            for event in disk.events[:at]:
                if event.kind == "returned":
                    first, values = json.loads(event.name)
                    there = [left.get(first + n) for n in range(len(values))]
                    assert there == values, f"cut at event {at}: {first}, {values[0][:2]} is gone, {len(left)} are left"
            assert list(left) == list(range(1, len(left) + 1))
            for name in NAMES:  # each once, in the order in which the process put them
                mine = [value[1] for value in left.values() if value[0] == name]
                assert mine == list(range(len(mine)))
            assert log.verify() == []
        shutil.rmtree(folder)
        found.add(len(left))
    return len(found)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
