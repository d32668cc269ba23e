"""Growth: the time of each operation on small and large logs, by messages, topics, clients, ids and open batches.

`tests/promises/test_growth.py` counts the steps of the same operations in SQLite, and fails if one grows.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

import pqlog
from benchmarks.workloads import event

REPEATS = 15

_fresh = itertools.count()
_held: list[object] = []


def messages(log: pqlog.Log, count: int) -> None:
    """Messages: two thirds as a row each, a third in frames."""
    log.put_many(event(n) for n in range(count // 3))
    log.put_many(pd.DataFrame({"id": range(count - 2 * (count // 3))}))
    log.put_many(event(n) for n in range(count // 3))


def topics(log: pqlog.Log, count: int) -> None:
    """Empty topics."""
    for number in range(count):
        log.topic(f"topic {number}")


def clients(log: pqlog.Log, count: int) -> None:
    """Clients that have read nothing; created with `seek`, which does not compare names."""
    for number in range(count):
        log.client(f"{number:x} client").seek(to="start")


def ids(log: pqlog.Log, count: int) -> None:
    """Puts with ids."""
    for number in range(count):
        log.put(number, id=f"before {number}")


def cursors(log: pqlog.Log, count: int) -> None:
    """Cursors of sources."""
    for number in range(count):
        log.put_many([], cursor=(f"source {number}", number, None))


def batches(log: pqlog.Log, count: int) -> None:
    """Open batches of one client."""
    _held.append([log.client("busy").next_batch(size=1) for _ in range(count)])


def _new(what: str) -> str:
    return f"new {what} {next(_fresh)}"


def _put_through(log: pqlog.Log) -> None:
    batch = log.client("stage").next_batch(size=2)
    assert batch is not None
    with batch:
        batch.put(1, topic="out")


def _unknown(log: pqlog.Log) -> None:
    with contextlib.suppress(pqlog.UnknownClientError):
        log.client("nobody").claims()


def _taken(log: pqlog.Log) -> pqlog.Batch:
    batch = log.client("busy").next_batch(size=1)
    assert batch is not None
    return batch


def _trim(log: pqlog.Log) -> None:
    assert log.first is not None
    log.trim(before=log.first + 20, force=True)


OPERATIONS: dict[str, Callable[[pqlog.Log], object]] = {
    "put": lambda log: log.put(event(1), key="k", headers={"a": "b"}),
    "put, a new id": lambda log: log.put(1, id=_new("id")),
    "put, an old id": lambda log: log.put(1, id="old"),
    "put_many, new ids": lambda log: log.put_many([{"id": _new("id")} for _ in range(10)], ids="id"),
    "put_many, old ids": lambda log: log.put_many([{"id": n} for n in range(10)], ids="id"),
    "put_many, 10": lambda log: log.put_many([event(1)] * 10),
    "put_many, a frame": lambda log: log.put_many(pd.DataFrame({"id": [1, 2]})),
    "put_many, a cursor": lambda log: log.put_many([1], cursor=(_new("source"), 1, None)),
    "cursor": lambda log: log.cursor("no such"),
    "get, 3": lambda log: list(itertools.islice(log.get("reader"), 3)),
    "get_one": lambda log: log.get_one("one"),
    "batches, 3": lambda log: [len(batch) for batch in itertools.islice(log.batches("etl", size=5), 3)],
    "next_batch, ack": lambda log: _taken(log).ack(),
    "next_batch, release": lambda log: _taken(log).release(),
    "batch.put": _put_through,
    "position": lambda log: log.client("busy").position,
    "lag": lambda log: log.client("busy").lag,
    "unread, the first": lambda log: next(iter(log.client("reader").unread())),
    "a new client": lambda log: next(log.get(_new("client"))),
    "an unknown client": _unknown,
    "seek, an offset": lambda log: log.client("reader").seek(to=30),
    "seek, a time": lambda log: log.client("other").seek(to="1h"),
    "seek, the end": lambda log: log.client("other").seek(to="end"),
    "delete_client": lambda log: (log.client("gone").seek(to="end"), log.client("gone").delete()),
    "len, first, last": lambda log: (len(log), log.first, log.last),
    "a message": lambda log: (log[-1], log[log.last or 0]),
    "a slice of 10": lambda log: list(log[-10:]),
    "head, 5": lambda log: log.head(),
    "schema": lambda log: log.schema,
    "to_batches, the first": lambda log: next(iter(log.to_batches())),
    "since a time": lambda log: len(log.history(since="1h")),
    "topic": lambda log: len(log.topic("main")),
    "a new topic": lambda log: log.topic(_new("topic")),
    "trim, 20": _trim,
}
"""Operations that should take the same time in every log."""


def _reopened(log: pqlog.Log) -> None:
    pqlog.open(log.path, readonly=True).close()


def _backup(log: pqlog.Log) -> None:
    copy = Path(f"{log.path}.{_new('copy')}")
    log.backup(copy)
    copy.unlink()


WHOLE: dict[str, Callable[[pqlog.Log], object]] = {
    "open, read only": _reopened,
    "topics": lambda log: log.topics(),
    "clients": lambda log: log.clients(),
    "claims": lambda log: log.client("busy").claims(),
    "repr": repr,
    "verify": lambda log: log.verify(),
    "backup": _backup,
    "compact": lambda log: log.compact(),
}
"""Operations that go through everything of one kind, once each."""

SIZES: dict[Callable[[pqlog.Log, int], None], tuple[int, ...]] = {
    messages: (100_000, 1_000_000, 10_000_000),
    topics: (1, 100, 1_000),
    clients: (1, 100, 1_000),
    ids: (1, 100, 10_000),
    cursors: (1, 100, 1_000),
    batches: (1, 100, 1_000),
}


@contextlib.contextmanager
def filled(path: Path, grow: Callable[[pqlog.Log, int], None], count: int) -> Iterator[pqlog.Log]:
    """A log that has a little of everything, and `count` of one kind."""
    with pqlog.open(path) as log:
        log.put_many(event(n) for n in range(1_500))
        log.put(0, id="old")
        for client in ("reader", "busy"):
            log.client(client).seek(to="start")
        grow(log, count)
        try:
            yield log
        finally:
            _held.clear()


def _milliseconds(log: pqlog.Log, work: Callable[[pqlog.Log], object], repeats: int) -> float:
    """The fastest of several calls, which leaves out the delays that the disk and other programs add now and then."""
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        work(log)
        took.append((time.perf_counter() - start) * 1e3)
    return min(took)


def run(folder: Path, rounds: int, scale: float, largest: int = 1_000_000) -> Iterator[dict[str, object]]:
    """A row for each operation and kind that grows: milliseconds at each size, and their ratio."""
    warnings.filterwarnings("ignore", message="client .* is new")
    each = max(1, int(REPEATS * min(1, scale)))
    for grow, full in SIZES.items():
        sizes = sorted({max(1, int(size * scale)) for size in full if size <= largest})
        found: dict[str, list[list[float]]] = {}
        for number in range(rounds):
            for size in sizes:
                path = folder / f"growth-{grow.__name__}-{size}-{number}.db"
                with filled(path, grow, size) as log:
                    for operations, repeats in ((OPERATIONS, each), (WHOLE, 1)):
                        for name, work in operations.items():
                            took = found.setdefault(name, [[] for _ in range(rounds)])
                            took[number].append(_milliseconds(log, work, repeats))
                path.unlink()
        for name, took in found.items():
            yield {
                "of": grow.__name__,
                "sizes": " / ".join(f"{size:,}" for size in sizes),
                "operation": name,
                "milliseconds": took,
                "ratio": [one[-1] / one[0] for one in took],
            }
