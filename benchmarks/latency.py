"""How long a put takes: percentiles, and the share of those puts in which SQLite runs a checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pqlog
from benchmarks.harness import BLOCK, BLOCKS, sync_rate
from benchmarks.workloads import event

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def _timed(count: int, work: Callable[[int], object]) -> list[float]:
    took = []
    for number in range(count):
        start = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - start) * 1e6)
    return took


def quantiles(took: list[float]) -> dict[str, float]:
    """Percentiles of times in microseconds."""
    ordered = sorted(took)
    return {name: ordered[min(len(ordered) - 1, int(len(ordered) * q))] for name, q in QUANTILES.items()}


def run(folder: Path, rounds: int, scale: float) -> Iterator[dict[str, object]]:
    """A row for the disk itself, one for puts, and one for the puts that ran a checkpoint: in microseconds."""
    count = max(50, int(20_000 * scale))
    for number in range(rounds):
        sync_rate(folder, 20)  # creates its file
        file = os.open(folder / "disk.bin", os.O_RDWR)
        data = os.urandom(BLOCK)

        def sync(n: int, file: int = file, data: bytes = data) -> None:
            os.pwrite(file, data, n % BLOCKS * BLOCK)
            os.fdatasync(file)

        yield {"what": "the disk itself", "round": number, "count": count, **quantiles(_timed(count, sync))}
        os.close(file)
        path = folder / f"latency-{number}.db"
        with pqlog.open(path) as log:
            checkpoints: list[int] = []
            size = [path.stat().st_mtime_ns]

            def put(n: int, log: pqlog.Log = log) -> None:
                log.put(event(n))

            took = []
            for n in range(count):
                took += _timed(1, lambda _, n=n: put(n))
                now = os.stat(path).st_mtime_ns  # only a checkpoint writes to the database file itself
                if now != size[0]:
                    checkpoints.append(n)
                    size[0] = now
        yield {"what": "put", "round": number, "count": count, **quantiles(took)}
        if checkpoints:
            yield {
                "what": "puts that ran a checkpoint",
                "round": number,
                "count": len(checkpoints),
                **quantiles([took[n] for n in checkpoints]),
            }
            rest = [time for n, time in enumerate(took) if n not in set(checkpoints)]
            yield {"what": "all other puts", "round": number, "count": len(rest), **quantiles(rest)}
        path.unlink()
