"""What the processes of a story do: ``python -m tests.cluster.work WORK LOG LEDGER NAME [PLANT]``.

Each writes what happened to its ledger, a line of JSON that is synced before the process goes on. The line begins with
a time of the machine's monotonic clock. A process ends when there is a file ``stop`` beside its ledger. A work may
have a variant: ``stage-worker`` is the stage of a worker of that name. A plant is a fault from `tests.cluster.plants`.
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pqlog

MANY = 30
"""How many messages a `put_many` has."""
TIMEOUT_S = 120.0
"""Longer than any fault of a test takes, also on a machine that is busy."""

Say = Callable[..., None]


@dataclass(frozen=True)
class Told:
    """What a process was told."""

    name: str
    variant: str
    stop: Path

    def is_over(self) -> bool:
        return self.stop.exists()


def message(name: str, n: int, i: int = 0) -> dict[str, Any]:
    """Message `i` of put `n` of a process."""
    return {"of": name, "n": n, "i": i, "key": f"{name}-{(n + i) % 7}"}


def put(log: pqlog.Log, say: Say, told: Told) -> None:
    """Put one message, one with an id, or many; a put whose answer was lost is repeated if it has an id."""
    orders = log.topic("orders")
    for n in itertools.count():
        if told.is_over():
            return
        say("try", n)
        while True:
            try:
                put_one(orders, say, told.name, n)
            except pqlog.UncertainError as error:
                say("uncertain", n, str(error))
                if n % 3 == 1:
                    continue
            break


def put_one(orders: pqlog.Topic, say: Say, name: str, n: int) -> None:
    went: Any
    if n % 3 == 2:
        values = [message(name, n, i) for i in range(MANY)]
        went = orders.put_many(values, key="key")
        say("many", n, went.first, went.last, went.messages)
    else:
        value = message(name, n)
        went = orders.put(value, key=value["key"], id=f"{name}-{n}" if n % 3 == 1 else None)
        say("one", n, *went)


def read(log: pqlog.Log, say: Say, told: Told) -> None:
    """Read each partition from where the last reading ended."""
    orders = log.topic("orders")
    begins: dict[int, int | None] = dict.fromkeys(range(orders.partitions))
    while not told.is_over():
        for partition, begin in begins.items():
            found = list(orders.partition(partition).history(begin))
            if found:
                begins[partition] = found[-1].offset + 1
                say("read", partition, [[one.offset, one.value] for one in found])
        time.sleep(0.05)


def stage(log: pqlog.Log, say: Say, told: Told) -> None:
    """Copy batches into another topic until it is killed; a batch that somebody else has meanwhile is left to them."""
    while True:
        try:
            for batch in log.topic("orders").batches("stage", size=100, follow=True, owner=told.variant or None):
                say("batch", batch.partition, batch.number, batch.first, batch.last, batch.attempt)
                batch.put_many(list(batch), topic="handled", key="key")
        except (pqlog.ClaimLostError, pqlog.UncertainError) as error:
            say("lost", f"{type(error).__name__}: {error}")


def zombie(log: pqlog.Log, say: Say, told: Told) -> None:
    """Fall silent before, in or after the transaction that ends the first batch; then go on, with the second."""
    batches = log.topic("orders").batches("stage", size=100, owner="worker")
    batch = next(batches)
    batch.put_many(list(batch), topic="handled", key="key")
    if told.variant == "before":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        stop_at_the_commit(told.variant)
    try:
        batch = next(batches)
        say("committed")
        batch.put_many(list(batch), topic="handled", key="key")
        next(batches)
        say("committed")
    except pqlog.ClaimLostError:
        say("refused")


def stop_at_the_commit(where: str) -> None:
    """Stop when everything is written, ``in`` the transaction; or when it was committed and nobody knows, ``after``."""
    attempt: Any = importlib.import_module("pqlog.store.kafka.attempt")
    whole = attempt.commit

    def commit(*arguments: Any) -> Any:
        if sys._getframe(1).f_code.co_name != "_commit":  # that of another lane
            return whole(*arguments)
        attempt.commit = whole
        if where == "in":
            os.kill(os.getpid(), signal.SIGSTOP)
        took = whole(*arguments)
        if where == "after":
            os.kill(os.getpid(), signal.SIGSTOP)
        return took

    attempt.commit = commit


WORKS = {"put": put, "read": read, "stage": stage, "zombie": zombie}


def main(work: str, address: str, ledger: str, name: str, plant: str = "") -> None:
    """Do a work."""
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(*what: object) -> None:
        os.write(file, (json.dumps([time.monotonic(), *what]) + "\n").encode())
        os.fsync(file)

    faulthandler.register(signal.SIGUSR1)
    if plant:
        getattr(importlib.import_module("tests.cluster.plants"), plant)()
    work, _, variant = work.partition("-")
    with pqlog.open(address, timeout=TIMEOUT_S) as log:
        say("ready")
        WORKS[work](log, say, Told(name, variant, Path(ledger).with_name("stop")))


if __name__ == "__main__":
    main(*sys.argv[1:])
