"""Processes that put, read and work on the messages of one log, while a test breaks what that lies on; and the judge.

What the judge asks for: what was acknowledged is there, once, where the put said; nothing else is there than what was
tried; each `put_many` is there whole or not at all; a reader read what is there, in its order; the stage handled each
message once, those of a key in their order.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pqlog
from tests.cluster.work import MANY, TIMEOUT_S
from tests.processes import Process, wait_until

PARTITIONS = 3
STALL_S = 90.0
"""How long a process may wait for the cluster, at most."""


class Worker:
    """A process of a story, with its ledger."""

    def __init__(self, folder: Path, address: str, work: str, name: str, plant: str = "") -> None:
        self.work, self.name = work.partition("-")[0], name
        self.ledger = folder / name
        self._errors = folder / f"{name}.errors"
        with open(self._errors, "w") as errors:
            command = [sys.executable, "-m", "tests.cluster.work", work, address, str(self.ledger), name, plant]
            self.process = Process(command, stdin=DEVNULL, stdout=DEVNULL, stderr=errors)

    def lines(self, kind: str | None = None) -> list[list[Any]]:
        """What it did, without the times; a line that its death cut off does not count."""
        return [line for _, *line in self._timed() if kind in (None, line[0])]

    def _timed(self) -> list[list[Any]]:
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_text().split("\n")[:-1]]

    def progress(self) -> int:
        """A number that grows with what it did."""
        assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
        return len([line for line in self.lines() if line[0] not in ("ready", "try", "uncertain", "lost")])

    def longest_stall_s(self) -> float:
        """The longest time between two lines of its ledger."""
        times = [time for time, *_ in self._timed()]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0)

    def said(self) -> str:
        """Its errors."""
        return self._errors.read_text()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
        self.process.kill_and_read()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def is_paused(self) -> bool:
        """Whether it was stopped, perhaps by itself."""
        assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def finish(self) -> None:
        """Wait until it ends by itself."""
        assert self.process.wait(2 * STALL_S) == 0, self.said()


class Story:
    """A log, and processes that put, read and work on it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.workers: list[Worker] = []
        with pqlog.open(address, timeout=TIMEOUT_S) as log:
            log.topic("orders", partitions=PARTITIONS).client("stage").seek(to="start")
            log.topic("handled", partitions=2)

    def start(self, work: str, plant: str = "") -> Worker:
        """Start a process more."""
        worker = Worker(self.folder, self.address, work, f"{work}{len(self.workers)}", plant)
        self.workers.append(worker)
        return worker

    @property
    def running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.returncode is None]

    def all_get_on(self, steps: int = 5) -> None:
        """Wait until each process has done something, some times, from now on; the stages together."""
        before = {worker.name: worker.progress() for worker in self.running}

        def steps_of(work: str) -> list[int]:
            return [one.progress() - before[one.name] for one in self.running if one.work == work]

        def all_got_on() -> bool:
            stages = steps_of("stage")
            return min(steps_of("put") + steps_of("read")) >= steps and (not stages or sum(stages) >= steps)

        try:
            wait_until(all_got_on, 2 * STALL_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.where_they_are()}") from None

    def where_they_are(self) -> str:
        """What each process does now."""
        for worker in self.running:
            worker.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        return "\n".join(f"{worker.name}: {worker.lines()[-1:]}\n{worker.said()}" for worker in self.running)

    def end(self) -> None:
        """Let those end that put and read, and kill those that work."""
        (self.folder / "stop").touch()
        for worker in self.running:
            if worker.work == "stage":
                worker.kill()
            else:
                worker.finish()

    def judge(self) -> None:
        """Work on what is left, and compare what is there with the ledgers."""
        with pqlog.open(self.address, timeout=TIMEOUT_S) as log:
            orders, handled = log.topic("orders"), log.topic("handled")

            def is_done() -> bool:
                for batch in orders.batches("stage", size=5000):
                    batch.put_many(list(batch), topic="handled", key="key")
                return orders.client("stage").lag == 0

            wait_until(is_done, 2 * STALL_S)
            there = [{one.offset: one.value for one in orders.partition(p)} for p in range(PARTITIONS)]
            done = [one.value for p in range(2) for one in handled.partition(p)]
        check(self.workers, there, done)


def check(workers: list[Worker], there: list[dict[int, Any]], done: list[Any]) -> None:
    """Compare the messages in each partition, by offset, and what the stage put, with the ledgers."""
    counted = Counter(identity(value) for partition in there for value in partition.values())
    assert set(counted.values()) <= {1}, "put twice"
    tried = set()
    for worker in workers:
        for kind, *line in worker.lines():
            if kind == "try":
                tried.add((worker.name, line[0]))
            elif kind == "one":
                n, partition, offset = line
                assert identity(there[partition].get(offset)) == (worker.name, n, 0), "lost, or elsewhere"
            elif kind == "many":
                check_many(worker.name, there, *line)
    assert {identity[:2] for identity in counted} <= tried
    for (name, n), messages in Counter(identity[:2] for identity in counted).items():
        assert messages == (MANY if n % 3 == 2 else 1), f"put_many {n} of {name} is not whole"
    check_readers(workers, there)
    assert Counter(map(identity, done)) == counted, "not handled once each"
    check_order([value for partition in there for value in partition.values()])
    check_order(done)


def identity(value: Any) -> tuple[str, int, int]:
    """What no other message has."""
    return (value["of"], value["n"], value["i"]) if value else ("", 0, 0)


def check_many(
    name: str, there: list[dict[int, Any]], n: int, first: dict[str, int], last: dict[str, int], messages: int
) -> None:
    found = []
    for partition in first:
        kept = there[int(partition)]
        assert {first[partition], last[partition]} <= kept.keys(), "lost, or elsewhere"
        run = [value for offset, value in kept.items() if first[partition] <= offset <= last[partition]]
        mine = [value["i"] for value in run if (value["of"], value["n"]) == (name, n)]
        assert mine == sorted(mine)
        assert identity(kept[first[partition]]) == (name, n, mine[0])
        assert identity(kept[last[partition]]) == (name, n, mine[-1])
        found += mine
    assert sorted(found) == list(range(messages)), "lost, or elsewhere"


def check_readers(workers: list[Worker], there: list[dict[int, Any]]) -> None:
    for worker in workers:
        found: list[list[Any]] = [[] for _ in there]
        for _, partition, messages in worker.lines("read"):
            found[partition] += messages
        for partition, kept in zip(found, there, strict=True):
            assert partition == [[offset, value] for offset, value in kept.items()][: len(partition)], "read otherwise"


def check_order(values: list[Any]) -> None:
    by_key: dict[str, list[tuple[int, int]]] = {}
    for value in values:
        by_key.setdefault(value["key"], []).append((value["n"], value["i"]))
    assert all(numbers == sorted(numbers) for numbers in by_key.values()), "a key's messages changed their order"


@contextmanager
def story(folder: Path, address: str, works: str = "put put read stage stage") -> Iterator[Story]:
    """A story that runs in the body of the block, and is judged behind it."""
    telling = Story(folder, address)
    try:
        for work in works.split():
            telling.start(work)
        telling.all_get_on(1)
        yield telling
        telling.all_get_on()
        telling.end()
    finally:
        for worker in telling.running:
            worker.process.kill_and_read()
    stalls = {worker.name: round(worker.longest_stall_s(), 1) for worker in telling.workers}
    print("longest stalls, in seconds:", stalls)
    print("uncertain:", sum(len(worker.lines("uncertain")) for worker in telling.workers))
    telling.judge()
