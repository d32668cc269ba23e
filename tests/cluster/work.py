"""What the processes of a story do: ``python -m tests.cluster.work WORK LOG LEDGER NAME``.

Each writes what happened to its ledger, a line of JSON that is synced before the process goes on. The line begins with
a time of the machine's monotonic clock. A process ends when there is a file ``stop`` beside its ledger.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pqlog
from tests.cluster.opening import open_log

MANY = 30
"""How many messages a `put_many` has."""

Say = Callable[..., None]


def message(name: str, n: int, i: int = 0) -> dict[str, Any]:
    """Message `i` of put `n` of a process."""
    return {"of": name, "n": n, "i": i, "key": f"{name}-{(n + i) % 7}"}


def put(log: pqlog.Log, say: Say, name: str, is_over: Callable[[], bool]) -> None:
    """Put one message, one with an id, or many; a put whose answer was lost is repeated if it has an id."""
    orders = log.topic("orders")
    for n in itertools.count():
        if is_over():
            return
        say("try", n)
        while True:
            try:
                put_one(orders, say, name, n)
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


def read(log: pqlog.Log, say: Say, name: str, is_over: Callable[[], bool]) -> None:
    """Read each partition from where the last reading ended."""
    orders = log.topic("orders")
    begins: dict[int, int | None] = dict.fromkeys(range(orders.partitions))
    while not is_over():
        for partition, begin in begins.items():
            found = list(orders.partition(partition).history(begin))
            if found:
                begins[partition] = found[-1].offset + 1
                say("read", partition, [[one.offset, one.value] for one in found])
        time.sleep(0.05)


def stage(log: pqlog.Log, say: Say, name: str, is_over: Callable[[], bool]) -> None:
    """Copy batches into another topic until it is killed; a batch that somebody else has meanwhile is left to them."""
    while True:
        try:
            for batch in log.topic("orders").batches("stage", size=100, follow=True):
                say("batch", batch.partition, batch.number, batch.first, batch.last, batch.attempt)
                batch.put_many(list(batch), topic="handled", key="key")
        except (pqlog.ClaimLostError, pqlog.UncertainError) as error:
            say("lost", f"{type(error).__name__}: {error}")


def main(work: str, address: str, ledger: str, name: str) -> None:
    """Do a work."""
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    stop = Path(ledger).with_name("stop")

    def say(*what: object) -> None:
        os.write(file, (json.dumps([time.monotonic(), *what]) + "\n").encode())
        os.fsync(file)

    with open_log(address) as log:
        say("ready")
        {"put": put, "read": read, "stage": stage}[work](log, say, name, stop.exists)


if __name__ == "__main__":
    main(*sys.argv[1:])
