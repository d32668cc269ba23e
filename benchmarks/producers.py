"""Many puts at once, from one thread and from one event loop; and reading with a commit for many messages."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque

import pqlog.aio
from benchmarks.harness import beside_the_disk, sync_rate
from benchmarks.workloads import BURSTS, Bench, event

UNDER_WAY = 256


def send(bench: Bench) -> tuple[float, float]:
    """One thread that sends, with 256 messages under way; beside one that puts."""
    sent = put = send_s = put_s = 0.0
    with pqlog.open(bench.path()) as log:
        for _ in range(BURSTS):
            count = bench.count(500)
            start = time.perf_counter()
            for n in range(count):
                log.put(event(n))
            put_s += time.perf_counter() - start
            put += count
            count = bench.count(10_000)
            start = time.perf_counter()
            send_all(log, count)
            send_s += time.perf_counter() - start
            sent += count
    return sent / send_s, put / put_s


def send_all(log: pqlog.Topic, count: int) -> None:
    """Send messages, and wait for the oldest when too many are under way."""
    futures = deque[object]()
    for n in range(count):
        if len(futures) == UNDER_WAY:
            futures.popleft().result()  # type: ignore[attr-defined]
        futures.append(log.send(event(n)))
    while futures:
        futures.popleft().result()  # type: ignore[attr-defined]


def put_tasks(bench: Bench, tasks: int) -> tuple[float, float]:
    """Tasks of one event loop, each of which puts one message after the other; beside the disk."""
    each = max(3, bench.count(300 * min(tasks, 32)) // tasks)

    async def work(log: pqlog.aio.Log) -> None:
        for n in range(each):
            await log.put(event(n))

    async def main() -> tuple[float, float]:
        done = took = synced = 0.0
        syncs = bench.count(1000)
        async with pqlog.aio.open(bench.path()) as log:
            for _ in range(BURSTS):
                synced += syncs / sync_rate(bench.folder, syncs)
                start = time.perf_counter()
                await asyncio.gather(*(work(log) for _ in range(tasks)))
                took += time.perf_counter() - start
                done += each * tasks
        return done / took, BURSTS * syncs / synced

    return asyncio.run(main())


def get_in_steps(bench: Bench, every: int) -> tuple[float, float]:
    """What one client gets, a commit for so many messages; beside the disk."""
    count = bench.count(1000 * min(every, 20))
    with pqlog.open(bench.path()) as log:
        log.put_many(event(n) for n in range(count * BURSTS))
        values = log.get("client", ack_every=every, ack_seconds=60)

        def work() -> int:
            return sum(1 for _ in itertools.islice(values, count))

        return beside_the_disk(bench.folder, BURSTS, bench.count(1000), work)
